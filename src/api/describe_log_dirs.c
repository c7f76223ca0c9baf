/* describe_log_dirs.c — DescribeLogDirs: the log directory, and the tier as a second one.
 *
 * The second entry is named "remote://" and the tier's URL; a partition's size there is what the bucket holds of it. A
 * segment that is in both places counts in both. What Kafka has no field for (objects, what is pending) is told in tagged
 * fields of our own, which other clients step over. The lag of a local partition is 0 (this broker leads), that of a
 * remote one the offsets that are not uploaded yet. Threads: iopool (statfs, many partitions). */
#include "defer.h"
#include "migration.h"
#include "partition.h"
#include "gen/messages.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct DescribeLogDirsResponse_DescribeLogDirsResult dir_result;
typedef struct DescribeLogDirsResponse_DescribeLogDirsTopic topic_result;
typedef struct DescribeLogDirsResponse_DescribeLogDirsPartition part_result;

struct names { /* in the arena: counted, then filled; topics that appear in between are left out */
    struct vv_call *c;
    struct vv_str *v;
    int32_t n, cap;
    bool full;
};

static void count_topic(void *ctx, struct vv_topic *t)
{
    (void)t;
    ((struct names *)ctx)->cap++;
}

static void add_topic(void *ctx, struct vv_topic *t)
{
    struct names *l = ctx;
    if (l->n < l->cap) l->v[l->n++] = vv_call_str(l->c, t->name, &l->full);
}

struct lookup { /* what the two directories are filled from */
    struct vv_call *c;
    dir_result *local, *remote; /* remote NULL: no tier */
};

static void add_partition(struct lookup *l, topic_result *local, topic_result *remote, struct vv_partition *p)
{
    struct vv_partition_sizes s;
    vv_partition_sizes(p, &s);
    part_result *at = &local->Partitions.v[local->Partitions.n++];
    VV_STRUCT_INIT(DescribeLogDirsResponse_DescribeLogDirsPartition, at);
    at->PartitionIndex = p->id;
    at->PartitionSize = (int64_t)s.local_bytes;
    if (!l->remote || !p->tier) return;
    at = &remote->Partitions.v[remote->Partitions.n++];
    VV_STRUCT_INIT(DescribeLogDirsResponse_DescribeLogDirsPartition, at);
    at->PartitionIndex = p->id;
    at->PartitionSize = (int64_t)s.remote_bytes;
    at->OffsetLag = VV_MAX(s.high_watermark - VV_MAX(s.remote_end, s.log_start), 0);
    at->Segments = (int64_t)s.remote_segments;
    at->PendingBytes = (int64_t)s.lag_bytes;
    at->PendingSegments = (int64_t)s.lag_segments;
}

static topic_result *topic_begin(struct vv_call *c, dir_result *d, struct vv_str name, int32_t partitions)
{
    topic_result *t = &d->Topics.v[d->Topics.n];
    VV_STRUCT_INIT(DescribeLogDirsResponse_DescribeLogDirsTopic, t);
    t->Name = name;
    if (VV_ARRAY_NEW(t->Partitions, DescribeLogDirsResponse_DescribeLogDirsPartition, vv_call_arena(c), partitions))
        return NULL;
    t->Partitions.n = 0;
    return t;
}

/* asked NULL: every partition. Unknown topics and partitions are left out, as Kafka does. */
static int add_one(struct lookup *l, struct vv_str name, const int32_t *asked, int32_t n)
{
    struct vv_topic *t = vv_topics_get(l->c->broker->topics, name.p, (size_t)VV_MAX(name.n, 0));
    if (!t) return VV_OK;
    if (!asked) n = t->partition_count;
    topic_result *local = topic_begin(l->c, l->local, name, n);
    topic_result *remote = l->remote ? topic_begin(l->c, l->remote, name, n) : NULL;
    int err = !local || (l->remote && !remote) ? VV_E_LIMIT : VV_OK;
    for (int32_t i = 0; i < n && !err; i++) {
        struct vv_partition *p = vv_topic_partition(t, asked ? asked[i] : i);
        if (p) add_partition(l, local, remote, p);
    }
    if (!err && local->Partitions.n) l->local->Topics.n++;
    if (!err && remote && remote->Partitions.n) l->remote->Topics.n++;
    vv_topic_unref(t);
    return err;
}

static int add_topics(struct lookup *l, const struct DescribeLogDirsRequest *q)
{
    struct names names = {.c = l->c};
    bool all = q->Topics.n < 0;
    if (all) {
        vv_topics_each(l->c->broker->topics, count_topic, &names);
        names.v = vv_arena_alloc(vv_call_arena(l->c), ((size_t)names.cap + 1) * sizeof *names.v);
        if (!names.v) return VV_E_LIMIT;
        vv_topics_each(l->c->broker->topics, add_topic, &names);
        if (names.full) return VV_E_LIMIT;
    }
    int32_t n = all ? names.n : q->Topics.n;
    int err = VV_ARRAY_NEW(l->local->Topics, DescribeLogDirsResponse_DescribeLogDirsTopic, vv_call_arena(l->c), n);
    if (!err && l->remote)
        err = VV_ARRAY_NEW(l->remote->Topics, DescribeLogDirsResponse_DescribeLogDirsTopic, vv_call_arena(l->c), n);
    l->local->Topics.n = 0;
    if (l->remote) l->remote->Topics.n = 0;
    for (int32_t i = 0; i < n && !err; i++) {
        static const int32_t none;
        if (all)
            err = add_one(l, names.v[i], NULL, 0);
        else
            err = add_one(l, q->Topics.v[i].Topic, q->Topics.v[i].Partitions.v ? q->Topics.v[i].Partitions.v : &none,
                          VV_MAX(q->Topics.v[i].Partitions.n, 0));
    }
    return err;
}

/* While the bucket is being moved: a directory migrate://URL, with an error when that was given up. */
static bool migration(struct vv_call *c, struct DescribeLogDirsResponse_DescribeLogDirsResult *out)
{
    const char *to = vv_migration_target(c->broker);
    struct vv_tier_stats s;
    vv_tier_stats(c->broker->tier, &s);
    char *url = to && s.migrate_state != VV_MIGRATE_DONE ? vv_arena_printf(vv_call_arena(c), "migrate://%s", to) : NULL;
    if (!url) return false;
    out->LogDir = vv_str_c(url);
    out->ErrorCode = s.migrate_state == VV_MIGRATE_FAILED || !s.migrate_state ? VV_KAFKA_STORAGE_ERROR : 0;
    return true;
}

static void describe(struct vv_call *c)
{
    struct vv_broker *b = c->broker;
    struct DescribeLogDirsResponse r;
    struct vv_space space;
    VV_MSG_INIT(DescribeLogDirsResponse, &r);
    bool tier = b->tier != NULL;
    int err = VV_ARRAY_NEW(r.Results, DescribeLogDirsResponse_DescribeLogDirsResult, vv_call_arena(c), tier ? 3 : 1);
    if (!err) {
        struct lookup l = {.c = c, .local = &r.Results.v[0], .remote = tier ? &r.Results.v[1] : NULL};
        l.local->LogDir = vv_str_c(b->log_dir);
        if (!vv_fs_space(b->env, b->log_dir, &space)) {
            l.local->TotalBytes = (int64_t)space.total;
            l.local->UsableBytes = (int64_t)space.available;
        }
        char *url =
            tier ? vv_arena_printf(vv_call_arena(c), "remote://%s", b->tier_url ? b->tier_url : "") : NULL;
        if (tier) l.remote->LogDir = vv_str_c(url);
        if (tier && !migration(c, &r.Results.v[2])) r.Results.n = 2;
        err = tier && !url ? VV_E_LIMIT : add_topics(&l, c->req);
    }
    if (err)
        vv_call_close(c, "out of memory");
    else
        vv_call_reply(c, &r);
}

void vv_handle_describe_log_dirs(struct vv_call *c)
{
    vv_call_on_iopool(c, describe);
}
