/* metrics_broker.c — what is derived from the running broker when somebody looks: sizes, tier,
 * network, disk.
 *
 * Partitions are gathered once under the registry's read lock, then printed family by family.
 * Above SHOWN_MAX only the sums are shown, so that a big broker's page stays small. Names
 * follow Kafka's tiering metrics and kafka_exporter where there is one. On the metrics server's
 * thread. */
#include "metrics_broker.h"

#include "housekeeper.h"
#include "metrics_kafka.h"
#include "partition.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MAX 2000 /* of partitions, of topics */

struct topic_row {
    char name[250];
    struct vv_topic_counters *counters; /* the topic's, as long as `topic` is held */
    struct vv_topic *topic;
    uint64_t local, remote, segments, lag, lag_segments;
    struct vv_tier_part_stats tier;
};
struct row {
    struct vv_metrics_partition kafka;
    struct vv_partition_sizes s;
};
struct gathered {
    struct row *rows;
    struct topic_row *topics;
    size_t count, all, topic_count, topic_all;
    uint64_t local, remote, segments, lag, lag_segments, dead, dead_segments;
};

static void add_tier(struct topic_row *to, struct vv_partition *p)
{
    struct vv_tier_part *part = atomic_load(&p->tier);
    struct vv_tier_part_stats s;
    if (!part) return;
    vv_tier_part_stats(part, &s);
    to->tier.uploaded_segments += s.uploaded_segments;
    to->tier.uploaded_bytes += s.uploaded_bytes;
    to->tier.upload_errors += s.upload_errors;
    to->tier.delete_lag_segments += s.delete_lag_segments;
    to->tier.delete_lag_bytes += s.delete_lag_bytes;
}

static void add_partition(struct gathered *g, struct topic_row *topic, struct vv_partition *p)
{
    struct row r = {.kafka.topic = ""};
    vv_partition_sizes(p, &r.s);
    add_tier(topic, p);
    topic->local += r.s.local_bytes;
    topic->lag += r.s.lag_bytes;
    topic->lag_segments += r.s.lag_segments;
    topic->remote += r.s.remote_bytes;
    topic->segments += r.s.remote_segments;
    g->all++;
    if (g->count == SHOWN_MAX || !g->rows) return;
    snprintf(r.kafka.topic, sizeof r.kafka.topic, "%s", p->topic->name);
    snprintf(r.kafka.id, sizeof r.kafka.id, "%" PRId32, p->id);
    r.kafka.log_start = r.s.log_start;
    r.kafka.high_watermark = r.s.high_watermark;
    g->rows[g->count++] = r;
}

static void gather(void *ctx, struct vv_topic *t)
{
    struct gathered *g = ctx;
    struct topic_row row = {.counters = &t->counters};
    for (int32_t i = 0; i < t->partition_count; i++)
        if (vv_topic_partition(t, i)) add_partition(g, &row, vv_topic_partition(t, i));
    g->topic_all++;
    g->local += row.local;
    g->remote += row.remote;
    g->segments += row.segments;
    g->lag += row.lag;
    g->lag_segments += row.lag_segments;
    g->dead += row.tier.delete_lag_bytes;
    g->dead_segments += row.tier.delete_lag_segments;
    if (g->topic_count == SHOWN_MAX || !g->topics) return;
    snprintf(row.name, sizeof row.name, "%s", t->name);
    row.topic = t;
    atomic_fetch_add(&t->refs, 1);
    g->topics[g->topic_count++] = row;
}

#define VV_SUM_METRICS(X)                                                                          \
    X("varve_topics", "Topics, internal ones too.", topic_all)                                     \
    X("varve_partitions", "Partitions.", all)                                                      \
    X("varve_local_bytes", "Bytes of all partitions on the local disk.", local)                    \
    X("varve_remote_log_size_bytes", "Bytes of all partitions in the bucket.", remote)             \
    X("varve_remote_log_segments", "Segments of all partitions in the bucket.", segments)          \
    X("varve_remote_copy_lag_bytes", "Closed and not yet in the bucket.", lag)                     \
    X("varve_remote_copy_lag_segments", "Segments closed and not yet in the bucket.", lag_segments) \
    X("varve_remote_delete_lag_bytes", "Below the log start and still in the bucket.", dead)       \
    X("varve_remote_delete_lag_segments", "Segments below the log start and still in the bucket.", dead_segments)

#define VV_PARTITION_METRICS(X)                                                                    \
    X("varve_partition_local_bytes", "Bytes on the local disk.", local_bytes)                      \
    X("varve_partition_remote_bytes", "Bytes in the bucket.", remote_bytes)                        \
    X("varve_partition_remote_segments", "Segments in the bucket.", remote_segments)               \
    X("varve_partition_tier_lag_bytes", "Closed and not yet in the bucket.", lag_bytes)            \
    X("varve_partition_local_start_offset", "First offset on the local disk.", local_start)

/* Kafka's BrokerTopicMetrics, of this process's life. */
#define VV_TOPIC_METRICS(X)                                                                        \
    X("varve_topic_produce_bytes_total", "counter", "Batch bytes appended.", counters->produce_bytes) \
    X("varve_topic_produce_records_total", "counter", "Records appended.", counters->produce_records) \
    X("varve_topic_fetch_bytes_total", "counter", "Batch bytes sent to consumers.", counters->fetch_bytes) \
    X("varve_topic_remote_fetch_requests_total", "counter", "Cold reads.", counters->cold_requests) \
    X("varve_topic_remote_fetch_bytes_total", "counter", "Bytes read cold.", counters->cold_bytes) \
    X("varve_topic_remote_fetch_errors_total", "counter", "Failed cold reads.", counters->cold_errors) \
    X("varve_topic_remote_copy_requests_total", "counter", "Segments uploaded.", tier.uploaded_segments) \
    X("varve_topic_remote_copy_bytes_total", "counter", "Bytes uploaded.", tier.uploaded_bytes)    \
    X("varve_topic_remote_copy_errors_total", "counter", "Failed uploads.", tier.upload_errors)    \
    X("varve_topic_remote_copy_lag_bytes", "gauge", "Closed and not yet in the bucket.", lag) \
    X("varve_topic_remote_copy_lag_segments", "gauge", "Segments closed and not yet in the bucket.", \
      lag_segments)                                                                           \
    X("varve_topic_remote_delete_lag_bytes", "gauge", "Below the log start and still in the bucket.", tier.delete_lag_bytes) \
    X("varve_topic_remote_delete_lag_segments", "gauge", "Segments below the log start and still in the bucket.", \
      tier.delete_lag_segments)                                                                    \
    X("varve_topic_local_bytes", "gauge", "Bytes on the local disk.", local)                       \
    X("varve_topic_remote_log_size_bytes", "gauge", "Bytes in the bucket.", remote)                \
    X("varve_topic_remote_log_segments", "gauge", "Segments in the bucket.", segments)

static void print_topics(const struct gathered *g, struct vv_metrics_out *o)
{
#define VV_X(family, type, help, field)                                                            \
    vv_metrics_family(o, family, type, help);                                                      \
    for (size_t i = 0; i < g->topic_count; i++)                                                    \
        vv_metrics_sample(o, (double)g->topics[i].field, "topic", g->topics[i].name, (const char *)NULL);
    VV_TOPIC_METRICS(VV_X)
#undef VV_X
}

static void print_partitions(struct vv_broker *b, const struct gathered *g, struct vv_metrics_out *o)
{
    struct vv_metrics_partition *kafka = calloc(g->count + 1, sizeof *kafka);
    bool shown = kafka && g->all == g->count;
#define VV_X(name, help, field)                                                                    \
    vv_metrics_family(o, name, "gauge", help);                                                     \
    for (size_t i = 0; shown && i < g->count; i++)                                                 \
        vv_metrics_sample(o, (double)g->rows[i].s.field, "topic", g->rows[i].kafka.topic, "partition", \
                          g->rows[i].kafka.id, (const char *)NULL);
    VV_PARTITION_METRICS(VV_X)
#undef VV_X
    for (size_t i = 0; shown && i < g->count; i++) kafka[i] = g->rows[i].kafka;
    vv_metrics_kafka_partitions(b, o, kafka, shown ? g->count : 0);
    free(kafka);
}

static void partitions(struct vv_broker *b, struct vv_metrics_out *o)
{
    struct gathered g = {.rows = calloc(SHOWN_MAX, sizeof *g.rows), .topics = calloc(SHOWN_MAX, sizeof *g.topics)};
    vv_topics_each(b->topics, gather, &g);
#define VV_X(name, help, field) vv_metrics_one(o, name, "gauge", help, (double)g.field);
    VV_SUM_METRICS(VV_X)
#undef VV_X
    print_topics(&g, o);
    print_partitions(b, &g, o);
    for (size_t i = 0; i < g.topic_count; i++) vv_topic_unref(g.topics[i].topic);
    free(g.rows);
    free(g.topics);
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
    X("varve_tier_gc_objects_total", "Objects collected that were part of no log.", gc_objects)    \
    X("varve_tier_gc_uploads_total", "Abandoned uploads in parts that were aborted.", gc_uploads)  \
    X("varve_tier_merges_total", "Merges of small objects.", merges)                               \
    X("varve_tier_merged_objects_total", "Small objects that became bigger ones.", merged_segments)\
    X("varve_tier_merged_bytes_total", "Bytes of those bigger ones.", merged_bytes)                \
    X("varve_scrub_local_bytes_total", "Bytes of local segments checked.", scrub_local_bytes)      \
    X("varve_scrub_remote_bytes_total", "Bytes of objects checked.", scrub_remote_bytes)           \
    X("varve_scrub_damages_total", "Damaged copies found, mended ones too.", scrub_damages)        \
    X("varve_scrub_mended_total", "Damaged copies mended from the other side.", scrub_mended)      \
    X("varve_scrub_passes_total", "Passes over everything that were completed.", scrub_passes)     \
    X("varve_tier_cache_hits_total", "Chunks found in the cache.", cache_hits)                     \
    X("varve_tier_cache_misses_total", "Chunks that had to be fetched.", cache_misses)             \
    X("varve_tier_disk_cache_hits_total", "Ranges read from the disk cache.", disk_hits)           \
    X("varve_tier_disk_cache_hit_bytes_total", "Bytes of those.", disk_hit_bytes)                  \
    X("varve_tier_disk_cache_misses_total", "Ranges it did not have.", disk_misses)                \
    X("varve_tier_disk_cache_writes_total", "Files written to it.", disk_writes)                   \
    X("varve_tier_disk_cache_write_bytes_total", "Bytes of those.", disk_write_bytes)              \
    X("varve_tier_disk_cache_evictions_total", "Files removed to make room.", disk_evictions)      \
    X("varve_tier_disk_cache_bad_total", "Files dropped as damaged.", disk_bad)                    \
    X("varve_tier_disk_cache_errors_total", "Failed writes.", disk_errors)

/* The store's own counters, by operation of objstore.h. */
static void store(const struct vv_objstore_stats *s, struct vv_metrics_out *o)
{
#define VV_X(ms) ms / 1e3,
    static const double le[] = {VV_OBJ_LATENCY_MS(VV_X)};
#undef VV_X
    static const struct vv_metrics_histogram h = {
        "varve_store_call_seconds", "Calls of the object store, retries included, by operation.", "op", le,
        VV_COUNT(le)};
    vv_metrics_histogram(o, &h);
    for (int op = 0; op < VV_OBJ_OP_COUNT; op++) {
        uint64_t counts[VV_OBJ_LATENCIES];
        for (int i = 0; i < VV_OBJ_LATENCIES; i++) counts[i] = s->call_le[op][i];
        vv_metrics_observed(o, &h, vv_objop_name(op), counts, (double)s->call_us[op] / 1e6);
    }
#define VV_STORE_METRICS(X)                                                                        \
    X("varve_store_errors_total", "Calls that failed, by operation.", errors)                      \
    X("varve_store_requests_total", "HTTP requests, by operation.", requests)                      \
    X("varve_store_retries_total", "Of these, repeated ones.", retries)
#define VV_X(name, help, field)                                                                    \
    vv_metrics_family(o, name, "counter", help);                                                   \
    for (int op = 0; op < VV_OBJ_OP_COUNT; op++)                                                   \
        vv_metrics_sample(o, (double)s->field[op], "op", vv_objop_name(op), (const char *)NULL);
    VV_STORE_METRICS(VV_X)
#undef VV_X
    vv_metrics_one(o, "varve_store_sent_bytes_total", "counter", "Bytes of objects put.", (double)s->bytes_put);
    vv_metrics_one(o, "varve_store_received_bytes_total", "counter", "Bytes of objects got.", (double)s->bytes_got);
}

static void tier(struct vv_broker *b, struct vv_metrics_out *o)
{
    struct vv_tier_stats s;
    vv_tier_stats(b->tier, &s);
#define VV_X(name, help, field) vv_metrics_one(o, name, "counter", help, (double)s.field);
    VV_TIER_METRICS(VV_X)
#undef VV_X
    vv_metrics_one(o, "varve_tier_cache_bytes", "gauge", "Memory of the chunk cache.",
                   (double)s.cache_bytes);
    vv_metrics_one(o, "varve_tier_disk_cache_bytes", "gauge", "Disk of the disk cache.",
                   (double)s.disk_bytes);
    vv_metrics_one(o, "varve_tier_disk_cache_files", "gauge", "Its files.", (double)s.disk_files);
    vv_metrics_one(o, "varve_remote_copy_throttle_seconds_total", "counter", "Time uploads were held back by the copy rate limit.",
                   (double)s.copy_throttle_us / 1e6);
    vv_metrics_one(o, "varve_remote_reader_waiting", "gauge", "Cold reads that wait for bytes.", (double)s.reads_waiting);
    vv_metrics_one(o, "varve_remote_reader_queue", "gauge", "Ranges that wait for memory or a limit before they are asked for.",
                   (double)s.ranges_queued);
    vv_metrics_one(o, "varve_remote_reader_gets", "gauge", "Ranged GETs under way.", (double)s.gets_flying);
    vv_metrics_one(o, "varve_scrub_last_pass_seconds", "gauge", "Unix time of the last complete pass; 0: none yet.",
                   (double)s.scrub_last_pass_ms / 1e3);
    vv_metrics_one(o, "varve_tier_store_up", "gauge", "1: the last call reached the store.",
                   s.store_ok);
    if (s.migrate_state) {
        vv_metrics_one(o, "varve_tier_migrate_state", "gauge", "1 copying, 2 switching, 3 done, 4 given up.", s.migrate_state);
        vv_metrics_one(o, "varve_tier_migrate_bytes_total", "counter", "Bytes copied to the new bucket.", (double)s.migrate_bytes);
    }
    if (s.hydrating || s.hydrate_objects || s.hydrate_lost) {
        vv_metrics_one(o, "varve_tier_hydrate_objects_left", "gauge", "Objects still to be brought over from the bucket restored from.",
                       (double)s.hydrate_objects_left);
        vv_metrics_one(o, "varve_tier_hydrate_bytes_total", "counter", "Bytes brought over from there.", (double)s.hydrate_bytes);
        vv_metrics_one(o, "varve_tier_hydrate_lost_objects", "gauge", "Objects that are no longer whole there.", (double)s.hydrate_lost);
    }
    store(vv_tier_store_stats(b->tier), o);
}

static void disk(struct vv_broker *b, struct vv_metrics_out *o)
{
    struct vv_space space;
    int64_t left = atomic_load(&b->disk_seconds_left);
    if (vv_fs_space(b->env, b->log_dir, &space)) return;
    vv_metrics_one(o, "varve_disk_bytes", "gauge", "Size of the log directory's disk.", (double)space.total);
    vv_metrics_one(o, "varve_disk_available_bytes", "gauge", "Free on it.", (double)space.available);
    vv_metrics_one(o, "varve_disk_reserve_bytes", "gauge", "What must stay free: tier.disk.reserve.",
                   (double)vv_disk_reserve(b->config, space.total));
    vv_metrics_one(o, "varve_disk_state", "gauge", "0: room enough, 1: producers are slowed down, 2: refused.",
                   atomic_load(&b->disk_state));
    vv_metrics_one(o, "varve_disk_seconds_left", "gauge",
                   "Until the reserve is reached if nothing leaves the disk, at the rate producers wrote lately.",
                   left == INT64_MAX ? (double)INFINITY : (double)left);
    vv_metrics_one(o, "varve_clock_trusted", "gauge", "0: wall time jumped, nothing is deleted by age.",
                   atomic_load(&b->time_trusted));
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
    vv_net_stats(b->net, &net);
#define VV_X(name, type, help, field) vv_metrics_one(o, name, type, help, (double)net.field);
    VV_NET_METRICS(VV_X)
#undef VV_X
    disk(b, o);
    partitions(b, o);
    vv_metrics_kafka_groups(b, o);
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
