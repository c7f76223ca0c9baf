/* metrics_broker.c — what is derived from the running broker when somebody looks: sizes, tier,
 * network, disk.
 *
 * Partitions are gathered once under the registry's read lock, then printed family by family.
 * Above PARTITIONS_SHOWN only the sums are shown, so that a big broker's page stays small. Names
 * follow Kafka's tiering metrics and kafka_exporter where there is one. On the metrics server's
 * thread. */
#include "metrics_broker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARTITIONS_SHOWN 2000

struct row {
    char topic[250], partition[12];
    struct vv_partition_sizes s;
};
struct gathered {
    struct row *rows;
    size_t count, cap, all;
    uint64_t local, remote, lag;
    size_t topics;
};

static void gather(void *ctx, struct vv_topic *t)
{
    struct gathered *g = ctx;
    g->topics++;
    for (int32_t i = 0; i < t->partition_count; i++) {
        struct row r;
        vv_partition_sizes(t->partitions[i], &r.s);
        g->local += r.s.local_bytes;
        g->remote += r.s.remote_bytes;
        g->lag += r.s.lag_bytes;
        g->all++;
        if (g->count == g->cap) continue;
        snprintf(r.topic, sizeof r.topic, "%s", t->name);
        snprintf(r.partition, sizeof r.partition, "%" PRId32, i);
        g->rows[g->count++] = r;
    }
}

#define VV_PARTITION_METRICS(X)                                                                    \
    X("varve_partition_local_bytes", "Bytes on the local disk.", local_bytes)                      \
    X("varve_partition_remote_bytes", "Bytes in the bucket.", remote_bytes)                        \
    X("varve_partition_tier_lag_bytes", "Closed and not yet in the bucket.", lag_bytes)            \
    X("varve_partition_local_start_offset", "First offset on the local disk.", local_start)        \
    X("kafka_topic_partition_oldest_offset", "First readable offset.", log_start)                  \
    X("kafka_topic_partition_current_offset", "End of what consumers may read.", high_watermark)

static void partitions(struct vv_broker *b, struct vv_metrics_out *o)
{
    struct gathered g = {.rows = calloc(PARTITIONS_SHOWN, sizeof *g.rows), .cap = PARTITIONS_SHOWN};
    if (!g.rows) g.cap = 0;
    vv_topics_each(b->topics, gather, &g);
    vv_metrics_one(o, "varve_topics", "gauge", "Topics, internal ones too.", (double)g.topics);
    vv_metrics_one(o, "varve_partitions", "gauge", "Partitions.", (double)g.all);
    vv_metrics_one(o, "varve_local_bytes", "gauge", "Bytes of all partitions on the local disk.",
                   (double)g.local);
    vv_metrics_one(o, "varve_remote_log_size_bytes", "gauge",
                   "Bytes of all partitions in the bucket.", (double)g.remote);
    vv_metrics_one(o, "varve_remote_copy_lag_bytes", "gauge", "Closed and not yet in the bucket.",
                   (double)g.lag);
    if (g.all == g.count) {
#define VV_X(name, help, field)                                                                    \
    vv_metrics_family(o, name, "gauge", help);                                                     \
    for (size_t i = 0; i < g.count; i++)                                                           \
        vv_metrics_sample(o, (double)g.rows[i].s.field, "topic", g.rows[i].topic, "partition",     \
                          g.rows[i].partition, (const char *)NULL);
        VV_PARTITION_METRICS(VV_X)
#undef VV_X
    }
    free(g.rows);
}

#define VV_TIER_METRICS(X)                                                                         \
    X("varve_remote_copy_requests_total", "Segments uploaded.", uploads)                           \
    X("varve_remote_copy_bytes_total", "Bytes uploaded.", upload_bytes)                            \
    X("varve_remote_copy_errors_total", "Failed uploads.", upload_errors)                          \
    X("varve_remote_fetch_requests_total", "Cold reads.", fetch_requests)                          \
    X("varve_remote_fetch_bytes_total", "Bytes read cold.", fetch_bytes)                           \
    X("varve_remote_fetch_errors_total", "Failed cold reads.", fetch_errors)                       \
    X("varve_remote_delete_requests_total", "Segments deleted from the bucket.", deletes)          \
    X("varve_remote_delete_errors_total", "Failed deletions.", delete_errors)                      \
    X("varve_tier_cache_hits_total", "Chunks found in the cache.", cache_hits)                     \
    X("varve_tier_cache_misses_total", "Chunks that had to be fetched.", cache_misses)

static void tier(struct vv_broker *b, struct vv_metrics_out *o)
{
    struct vv_tier_stats s;
    vv_tier_stats(b->tier, &s);
#define VV_X(name, help, field) vv_metrics_one(o, name, "counter", help, (double)s.field);
    VV_TIER_METRICS(VV_X)
#undef VV_X
    vv_metrics_one(o, "varve_tier_cache_bytes", "gauge", "Memory of the chunk cache.",
                   (double)s.cache_bytes);
    vv_metrics_one(o, "varve_tier_store_up", "gauge", "1: the last call reached the store.",
                   s.store_ok);
    vv_metrics_family(o, "varve_tier_store_requests_total", "counter",
                      "Requests to the store, by kind.");
    vv_metrics_sample(o, (double)s.gets, "op", "get", (const char *)NULL);
    vv_metrics_sample(o, (double)s.puts, "op", "put", (const char *)NULL);
    vv_metrics_sample(o, (double)s.heads, "op", "head", (const char *)NULL);
    vv_metrics_sample(o, (double)s.lists, "op", "list", (const char *)NULL);
}

#define VV_NET_METRICS(X)                                                                          \
    X("varve_connections", "gauge", "Open connections.", conns)                                    \
    X("varve_connections_accepted_total", "counter", "Connections accepted.", accepted)            \
    X("varve_connections_refused_total", "counter", "Connections refused by a limit.", refused)    \
    X("varve_network_receive_bytes_total", "counter", "Bytes received from clients.", bytes_in)    \
    X("varve_network_send_bytes_total", "counter", "Bytes sent to clients.", bytes_out)

static void collect(void *ctx, struct vv_metrics_out *o)
{
    struct vv_broker *b = ctx;
    struct vv_net_stats net;
    struct vv_space space;
    vv_net_stats(b->net, &net);
#define VV_X(name, type, help, field) vv_metrics_one(o, name, type, help, (double)net.field);
    VV_NET_METRICS(VV_X)
#undef VV_X
    if (!vv_fs_space(b->env, b->log_dir, &space)) {
        vv_metrics_one(o, "varve_disk_bytes", "gauge", "Size of the log directory's disk.",
                       (double)space.total);
        vv_metrics_one(o, "varve_disk_available_bytes", "gauge", "Free on it.",
                       (double)space.available);
    }
    partitions(b, o);
    if (b->tier) tier(b, o);
}

static const char *api_name(int key)
{
    const struct vv_api *api = vv_api_by_key((int16_t)key);
    return api ? api->name : NULL;
}

static bool ready(void *ctx)
{
    struct vv_broker *b = ctx;
    return atomic_load(&b->ready) && !atomic_load(&b->stopping);
}

int vv_metrics_broker_start(struct vv_broker *b, struct vv_metrics_server **out, char *where,
                            size_t where_n, struct vv_error *e)
{
    const struct vv_broker_config *c = b->config;
    struct vv_metrics_opts opts = {
        .listen = &c->metrics, .api_name = api_name, .ready = ready, .collect = collect, .ctx = b};
    *out = NULL;
    snprintf(where, where_n, "-");
    if (!c->metrics_on) return 0;
    int rc = vv_metrics_start(&opts, out, e);
    if (rc) return rc;
    const char *host = *c->metrics.host ? c->metrics.host : "0.0.0.0";
    snprintf(where, where_n, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, vv_metrics_port(*out));
    return 0;
}
