/* metrics_kafka.c — kafka_exporter's families, from the broker itself: brokers, topics, partitions, consumer groups.
 *
 * Names, labels and meaning are those of danielqsj/kafka_exporter (its README is the source), so that Grafana
 * dashboard 7589 and alerts written for it work on this page. Groups live on `control`: a task copies what is asked
 * for into rows, the metrics server's thread waits and prints. The lag is counted from the high watermark; a group
 * whose commit is ahead of it (a restored log) has no lag, not a negative one. */
#include "metrics_kafka.h"

#include "groups.h"
#include "partition.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 20000 /* of groups' offsets: beyond it only the sums are shown */

/* ---- brokers, topics, partitions ---- */

struct page {
    struct vv_metrics_out *o;
    char node[16];
};

static void brokers(struct vv_broker *b, struct page *g)
{
    const char *host = NULL;
    char address[300];
    int port = 0;
    vv_broker_endpoint(b, 0, &host, &port);
    snprintf(address, sizeof address, "%s:%d", host ? host : "", port);
    vv_metrics_one(g->o, "kafka_brokers", "gauge", "Brokers of the cluster.", 1);
    vv_metrics_family(g->o, "kafka_broker_info", "gauge", "A broker's address.");
    vv_metrics_sample(g->o, 1, "id", g->node, "address", address, (const char *)NULL);
}

static void topic_row(void *ctx, struct vv_topic *t)
{
    struct page *g = ctx;
    vv_metrics_sample(g->o, t->partition_count, "topic", t->name, (const char *)NULL);
}

/* One copy of everything, and this broker leads: constants until there are several brokers. */
#define VV_KAFKA_PARTITION(X)                                                                                  \
    X("kafka_topic_partition_current_offset", "End of what consumers may read.", p[i].high_watermark)         \
    X("kafka_topic_partition_oldest_offset", "First readable offset.", p[i].log_start)                        \
    X("kafka_topic_partition_leader", "The broker that leads.", b->node_id)                                   \
    X("kafka_topic_partition_leader_is_preferred", "1: the first replica leads.", 1)                          \
    X("kafka_topic_partition_replicas", "Copies.", 1)                                                         \
    X("kafka_topic_partition_in_sync_replica", "Copies in sync.", 1)                                          \
    X("kafka_topic_partition_under_replicated_partition", "1: a copy is behind.", 0)

void vv_metrics_kafka_partitions(struct vv_broker *b, struct vv_metrics_out *o, const struct vv_metrics_partition *p,
                                 size_t n)
{
    struct page g = {.o = o};
    snprintf(g.node, sizeof g.node, "%" PRId32, b->node_id);
    brokers(b, &g);
    vv_metrics_family(o, "kafka_topic_partitions", "gauge", "Partitions of a topic.");
    vv_topics_each(b->topics, topic_row, &g);
    if (!n) return;
#define VV_X(name, help, value)                                                                                \
    vv_metrics_family(o, name, "gauge", help);                                                                 \
    for (size_t i = 0; i < n; i++)                                                                             \
        vv_metrics_sample(o, (double)(value), "topic", p[i].topic, "partition", p[i].id, (const char *)NULL);
    VV_KAFKA_PARTITION(VV_X)
#undef VV_X
}

/* ---- groups ---- */

struct group_row { /* names are borrowed from `text`, by position: it moves while it grows */
    size_t group, topic;
    int32_t partition;
    int64_t offset, lag;
};
struct group_sum {
    size_t group, topic;
    int64_t offset, lag;
};
struct rows {
    struct vv_task task;
    struct vv_broker *b;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    bool failed; /* out of memory, or more than ROWS_MAX: sums only */
    char *text;
    size_t text_n, text_cap;
    struct group_row *v;
    size_t n, cap;
    struct group_sum *sums, *members;
    size_t sum_n, sum_cap, member_n, member_cap;
};

static size_t keep_text(struct rows *r, struct vv_str s)
{
    size_t n = (size_t)VV_MAX(s.n, 0), at = r->text_n;
    if (r->text_n + n + 1 > r->text_cap) {
        size_t cap = VV_MAX(r->text_cap * 2, r->text_n + n + 4096);
        char *text = realloc(r->text, cap);
        if (!text) return SIZE_MAX;
        r->text = text;
        r->text_cap = cap;
    }
    if (n) memcpy(r->text + at, s.p, n);
    r->text[at + n] = 0;
    r->text_n += n + 1;
    return at;
}

static void *grow(void *v, size_t *cap, size_t n, size_t size)
{
    if (n < *cap) return v;
    size_t more = *cap ? *cap * 2 : 64;
    void *to = realloc(v, more * size);
    if (to) *cap = more;
    return to;
}

static int64_t lag_of(struct vv_broker *b, struct vv_str topic, int32_t partition, int64_t offset)
{
    struct vv_topic *t = vv_topics_get(b->topics, topic.p, (size_t)VV_MAX(topic.n, 0));
    struct vv_partition *p = t ? vv_topic_partition(t, partition) : NULL;
    int64_t lag = p ? VV_MAX(vv_partition_high_watermark(p) - offset, (int64_t)0) : -1;
    vv_topic_unref(t);
    return lag;
}

static bool add_sum(struct rows *r, const struct group_row *row)
{
    for (size_t i = r->sum_n; i-- && r->sums[i].group == row->group;)
        if (!strcmp(r->text + r->sums[i].topic, r->text + row->topic)) {
            r->sums[i].offset += row->offset;
            r->sums[i].lag += VV_MAX(row->lag, (int64_t)0);
            return true;
        }
    void *v = grow(r->sums, &r->sum_cap, r->sum_n, sizeof *r->sums);
    if (!v) return false;
    r->sums = v;
    r->sums[r->sum_n++] = (struct group_sum){row->group, row->topic, row->offset, VV_MAX(row->lag, (int64_t)0)};
    return true;
}

static bool add_offset(struct rows *r, size_t group, const struct vv_group_offset *o)
{
    struct vv_str topic = vv_group_offset_topic(o);
    struct group_row row = {.group = group, .partition = vv_group_offset_partition(o), .offset = o->offset};
    row.topic = keep_text(r, topic);
    row.lag = lag_of(r->b, topic, row.partition, row.offset);
    if (row.topic == SIZE_MAX || !add_sum(r, &row)) return false;
    if (r->n == ROWS_MAX) return r->failed = true;
    void *v = grow(r->v, &r->cap, r->n, sizeof *r->v);
    if (!v) return false;
    r->v = v;
    r->v[r->n++] = row;
    return true;
}

static bool add_group(struct rows *r, const struct vv_group *group)
{
    struct vv_gcursor at = {0};
    size_t name = keep_text(r, group->id);
    void *v = grow(r->members, &r->member_cap, r->member_n, sizeof *r->members);
    if (!v || name == SIZE_MAX) return false;
    r->members = v;
    r->members[r->member_n++] = (struct group_sum){.group = name, .offset = (int64_t)group->members.count};
    for (struct vv_gnode *node; (node = vv_gmap_next(&group->offsets, &at));) {
        const struct vv_group_offset *o = VV_CONTAINER(node, struct vv_group_offset, node);
        if (o->present && !add_offset(r, name, o)) return false;
    }
    return true;
}

static void gather(struct vv_task *task)
{
    struct rows *r = VV_CONTAINER(task, struct rows, task);
    struct vv_groups *g = r->b->groups;
    struct vv_gcursor at = {0};
    bool ok = true;
    for (struct vv_gnode *node; ok && g && (node = vv_gmap_next(&g->table, &at));)
        ok = add_group(r, VV_CONTAINER(node, struct vv_group, node));
    pthread_mutex_lock(&r->lock);
    r->failed |= !ok;
    r->done = true;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void print_rows(const struct rows *r, struct vv_metrics_out *o, const char *name, const char *help, bool lag)
{
    vv_metrics_family(o, name, "gauge", help);
    for (size_t i = 0; i < r->n; i++) {
        char id[12];
        if (lag && r->v[i].lag < 0) continue; /* the topic is gone */
        snprintf(id, sizeof id, "%" PRId32, r->v[i].partition);
        vv_metrics_sample(o, (double)(lag ? r->v[i].lag : r->v[i].offset), "consumergroup", r->text + r->v[i].group,
                          "topic", r->text + r->v[i].topic, "partition", id, (const char *)NULL);
    }
}

static void print_sums(const struct rows *r, struct vv_metrics_out *o, const char *name, const char *help, bool lag)
{
    vv_metrics_family(o, name, "gauge", help);
    for (size_t i = 0; i < r->sum_n; i++)
        vv_metrics_sample(o, (double)(lag ? r->sums[i].lag : r->sums[i].offset), "consumergroup",
                          r->text + r->sums[i].group, "topic", r->text + r->sums[i].topic, (const char *)NULL);
}

static void print(const struct rows *r, struct vv_metrics_out *o)
{
    vv_metrics_family(o, "kafka_consumergroup_members", "gauge", "Members of a group.");
    for (size_t i = 0; i < r->member_n; i++)
        vv_metrics_sample(o, (double)r->members[i].offset, "consumergroup", r->text + r->members[i].group,
                          (const char *)NULL);
    if (!r->failed) {
        print_rows(r, o, "kafka_consumergroup_current_offset", "Committed offset.", false);
        print_rows(r, o, "kafka_consumergroup_lag", "Records behind the high watermark.", true);
    }
    print_sums(r, o, "kafka_consumergroup_current_offset_sum", "Committed offsets of all partitions, added up.", false);
    print_sums(r, o, "kafka_consumergroup_lag_sum", "Records behind, of all partitions.", true);
}

void vv_metrics_kafka_groups(struct vv_broker *b, struct vv_metrics_out *o)
{
    if (!atomic_load(&b->ready)) return; /* `control` may not run yet */
    struct rows *r = calloc(1, sizeof *r);
    if (!r) return;
    *r = (struct rows){.task.run = gather, .b = b};
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    vv_broker_control_post(b, &r->task); /* the server is stopped before `control` is: it always runs */
    pthread_mutex_lock(&r->lock);
    while (!r->done)
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
    print(r, o);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    free(r->text);
    free(r->v);
    free(r->sums);
    free(r->members);
    free(r);
}
