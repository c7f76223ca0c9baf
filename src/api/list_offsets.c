/* list_offsets.c — ListOffsets: the ends of a partition, and exact lookups by time (KIP-79, KIP-405, KIP-734).
 *
 * Special timestamps are answered from memory. A search by time runs on the iopool: the index names the first extent
 * that may have the record, a local one is searched there and then, a remote one by the tier (one footer, one block);
 * when it has none the search goes on behind it. The last search to end sends the answer.
 *
 * Invariants: topics are referenced until the answer; a search writes only its own partition's answer and uses no
 * arena. Threads: the reactor, then iopool and tier threads; `pending` hands over. */
#include "call.h"
#include "broker.h"
#include "partition.h"
#include "gen/messages.h"

enum {
    TS_LATEST = -1,
    TS_EARLIEST = -2,
    TS_MAX = -3,
    TS_EARLIEST_LOCAL = -4,
    TS_LATEST_TIERED = -5,
    TS_EARLIEST_PENDING = -6,
};

enum { AGAIN_MAX = 3 };

struct search;
struct list_op {
    struct vv_call *c;
    struct ListOffsetsResponse r;
    struct vv_topic **topics; /* references; NULL when unknown */
    _Atomic int pending;
    struct search *searches;
};

struct search {
    struct vv_work work;
    struct search *next;
    struct list_op *op;
    struct vv_partition *partition;
    struct ListOffsetsResponse_ListOffsetsPartitionResponse *out;
    int64_t ts, from, limit;
    struct vv_extent extent; /* the remote one under search */
    bool max;                /* the largest timestamp; extent known, nothing behind it */
    int again;               /* times that the extent was another one meanwhile */
};

/* ---- end ---- */

static void release_topics(struct list_op *op)
{
    for (int32_t i = 0; i < op->r.Topics.n; i++)
        if (op->topics[i]) vv_topic_unref(op->topics[i]);
}

static void release(struct list_op *op)
{
    if (atomic_fetch_sub(&op->pending, 1) != 1) return;
    release_topics(op); /* first: the operation's memory ends with the answer */
    vv_call_reply(op->c, &op->r);
}

static void search_end(struct search *s, int err, const struct vv_time_hit *hit)
{
    struct list_op *op = s->op;
    if (err && err != VV_E_NOENT) {
        s->out->ErrorCode = (int16_t)vv_err_kafka(err);
    } else if (!err && hit->offset < s->limit) {
        s->out->Offset = hit->offset;
        s->out->Timestamp = hit->timestamp;
        s->out->LeaderEpoch = hit->leader_epoch;
    }
    release(op);
}

/* ---- by time ---- */

static void find_time(struct vv_work *w);

static void remote_found(void *ctx, int err, const struct vv_time_hit *hit)
{
    struct search *s = ctx;
    if (err == VV_E_AGAIN && s->again++ < AGAIN_MAX) {
        vv_iopool_submit(s->op->c->broker->iopool, &s->work);
        return;
    }
    if (err != VV_E_NOENT || s->max) {
        search_end(s, err, hit);
        return;
    }
    s->from = s->extent.last + 1; /* it has none: behind it */
    vv_iopool_submit(s->op->c->broker->iopool, &s->work);
}

static void find_time(struct vv_work *w)
{
    struct search *s = VV_CONTAINER(w, struct search, work);
    struct vv_partition *p = s->partition;
    struct vv_time_hit hit = {0};
    int err = VV_E_NOENT, tries = 0;
    while (s->from < s->limit) {
        err = vv_index_find_time(p->index, s->ts, s->from, &s->extent);
        if (err) break;
        if (!s->extent.local) {
            if (p->tier && vv_extent_is_remote(&s->extent)) {
                vv_tier_find_time(p->tier, &s->extent, s->ts, s->from, remote_found, s);
                return;
            }
            err = VV_KAFKA_STORAGE_ERROR; /* in the bucket, and the tier is off */
            break;
        }
        err = vv_log_find_time(p->log, &s->extent, s->ts, s->from, &hit);
        int64_t last = s->extent.last;
        vv_extent_release(p->index, &s->extent);
        if (err == VV_E_AGAIN && tries++ < 3) continue; /* it left the disk after we asked the index */
        if (err != VV_E_NOENT || last == INT64_MAX) break;
        s->from = last + 1;
    }
    search_end(s, err, &hit);
}

/* ---- the largest timestamp ---- */

/* The first record of a local extent with its largest timestamp, if that is above floor. "Is there a record at or after
 * t" only turns from yes to no as t grows, and each yes names a real timestamp: gallop, then halve. */
static int max_in_extent(struct vv_partition *p, const struct vv_extent *x, int64_t floor, struct vv_time_hit *best)
{
    struct vv_time_hit hit;
    int err = vv_log_find_time(p->log, x, floor + 1, x->base, &hit);
    if (err) return err;
    int64_t high = INT64_MAX; /* no record at or after this */
    for (int64_t step = 1; high - hit.timestamp > 1;) {
        *best = hit;
        int64_t at = high == INT64_MAX && step < high - hit.timestamp ? hit.timestamp + step
                                                                      : hit.timestamp + (high - hit.timestamp) / 2;
        err = vv_log_find_time(p->log, x, at, x->base, &hit);
        if (err && err != VV_E_NOENT) return err;
        if (err) {
            high = at;
            hit = *best;
        } else {
            step = step > INT64_MAX / 4 ? step : step * 4;
        }
    }
    *best = hit;
    return 0;
}

static int max_in_open(struct vv_partition *p, int64_t floor, struct vv_time_hit *best)
{
    int found = VV_E_NOENT;
    struct vv_extent x;
    for (int64_t base = 0; !vv_index_find_state(p->index, VV_EXTENT_OPEN, base, &x);) {
        int err = x.local ? max_in_extent(p, &x, floor, best) : VV_E_NOENT;
        int64_t last = x.last;
        vv_extent_release(p->index, &x);
        if (err && err != VV_E_NOENT) return err;
        if (!err) {
            found = 0;
            floor = best->timestamp;
        }
        if (last == INT64_MAX) break;
        base = last + 1;
    }
    return found;
}

static void find_max(struct vv_work *w)
{
    struct search *s = VV_CONTAINER(w, struct search, work);
    struct vv_partition *p = s->partition;
    struct vv_time_hit hit = {0};
    bool sealed = !vv_index_find_max_ts(p->index, &s->extent);
    if (sealed && (s->extent.state == VV_EXTENT_OPEN || s->extent.max_ts < 0)) {
        vv_extent_release(p->index, &s->extent);
        sealed = false;
    }
    int err = max_in_open(p, sealed ? s->extent.max_ts : -1, &hit);
    if (err == VV_E_NOENT && sealed && !s->extent.local) {
        s->max = true;
        if (p->tier && vv_extent_is_remote(&s->extent)) {
            vv_tier_find_time(p->tier, &s->extent, s->extent.max_ts, s->extent.base, remote_found, s);
            return;
        }
        err = VV_KAFKA_STORAGE_ERROR;
    } else if (err == VV_E_NOENT && sealed) {
        err = vv_log_find_time(p->log, &s->extent, s->extent.max_ts, s->extent.base, &hit);
    }
    if (sealed && s->extent.local) vv_extent_release(p->index, &s->extent);
    search_end(s, err, &hit);
}

static int begin_search(struct list_op *op, struct vv_partition *p, int64_t ts, int64_t limit,
                        struct ListOffsetsResponse_ListOffsetsPartitionResponse *out)
{
    struct search *s = vv_arena_alloc(vv_call_arena(op->c), sizeof *s);
    if (!s) return VV_KAFKA_STORAGE_ERROR;
    *s = (struct search){
        .work.run = ts == TS_MAX ? find_max : find_time,
        .next = op->searches,
        .op = op,
        .partition = p,
        .out = out,
        .ts = ts,
        .from = vv_partition_log_start(p),
        .limit = limit,
    };
    op->searches = s;
    return 0;
}

/* ---- one partition ---- */

static bool version_knows(int16_t version, int64_t ts)
{
    static const int16_t since[] = {[1] = 1, [2] = 1, [3] = 7, [4] = 8, [5] = 9, [6] = 11};
    return ts >= 0 || (ts >= TS_EARLIEST_PENDING && version >= since[-ts]);
}

static int tiered_end(struct vv_partition *p, int64_t ts, struct ListOffsetsResponse_ListOffsetsPartitionResponse *out)
{
    struct vv_index_summary sum;
    vv_index_summary(p->index, &sum);
    int64_t end = vv_partition_end(p), local = sum.local_start < 0 ? end : VV_MIN(sum.local_start, end), remote = sum.remote_end;
    local = VV_MAX(local, vv_partition_log_start(p));
    if (ts == TS_EARLIEST_LOCAL)
        out->Offset = local;
    else if (!atomic_load_explicit(&p->rules.tiered, memory_order_relaxed))
        out->Offset = -1;
    else if (ts == TS_LATEST_TIERED)
        out->Offset = remote > 0 ? remote - 1 : -1;
    else
        out->Offset = VV_MAX(remote, local);
    if (out->Offset >= 0) out->LeaderEpoch = vv_log_epoch_at(p->log, out->Offset);
    return 0;
}

static int list_one(struct list_op *op, struct vv_topic *t, const struct ListOffsetsRequest_ListOffsetsPartition *q,
                    struct ListOffsetsResponse_ListOffsetsPartitionResponse *out)
{
    const struct ListOffsetsRequest *req = op->c->req;
    struct vv_partition *p = t ? vv_topic_partition(t, q->PartitionIndex) : NULL;
    out->PartitionIndex = q->PartitionIndex;
    if (!t || atomic_load(&t->deleted)) return VV_UNKNOWN_TOPIC_OR_PARTITION;
    if (!p) return vv_topic_absent(t, q->PartitionIndex);
    if (!version_knows(op->c->version, q->Timestamp)) return VV_UNSUPPORTED_VERSION;
    int32_t ours = vv_partition_epoch(p);
    if (q->CurrentLeaderEpoch >= 0 && q->CurrentLeaderEpoch < ours) return VV_FENCED_LEADER_EPOCH;
    if (q->CurrentLeaderEpoch > ours) return VV_UNKNOWN_LEADER_EPOCH;
    int64_t limit = req->ReplicaId >= 0        ? vv_partition_end(p)
                    : req->IsolationLevel == 1 ? vv_partition_last_stable(p)
                                               : vv_partition_high_watermark(p);
    switch (q->Timestamp) {
    case TS_LATEST:
        out->Offset = limit;
        out->LeaderEpoch = ours;
        return 0;
    case TS_EARLIEST:
        out->Offset = vv_partition_log_start(p);
        out->LeaderEpoch = vv_log_epoch_at(p->log, out->Offset);
        return 0;
    case TS_EARLIEST_LOCAL:
    case TS_LATEST_TIERED:
    case TS_EARLIEST_PENDING:
        return tiered_end(p, q->Timestamp, out);
    default:
        return begin_search(op, p, q->Timestamp, limit, out);
    }
}

/* ---- the request ---- */

static int list_topic(struct list_op *op, int32_t i)
{
    struct vv_call *c = op->c;
    const struct ListOffsetsRequest_ListOffsetsTopic *from = &((const struct ListOffsetsRequest *)c->req)->Topics.v[i];
    struct ListOffsetsResponse_ListOffsetsTopicResponse *to = &op->r.Topics.v[i];
    int32_t n = VV_MAX(from->Partitions.n, 0);
    to->Name = from->Name;
    if (VV_ARRAY_NEW(to->Partitions, ListOffsetsResponse_ListOffsetsPartitionResponse, vv_call_arena(c), n))
        return vv_arena_err(vv_call_arena(c));
    op->topics[i] = vv_topics_get(c->broker->topics, from->Name.p, (size_t)VV_MAX(from->Name.n, 0));
    for (int32_t k = 0; k < n; k++)
        to->Partitions.v[k].ErrorCode =
            (int16_t)list_one(op, op->topics[i], &from->Partitions.v[k], &to->Partitions.v[k]);
    return 0;
}

void vv_handle_list_offsets(struct vv_call *c)
{
    const struct ListOffsetsRequest *q = c->req;
    int32_t n = VV_MAX(q->Topics.n, 0);
    struct list_op *op = vv_arena_alloc(vv_call_arena(c), sizeof *op);
    struct vv_topic **topics = vv_arena_alloc(vv_call_arena(c), ((size_t)n + 1) * sizeof(struct vv_topic *));
    if (!op || !topics) {
        vv_call_close(c, "its ListOffsets does not fit into memory");
        return;
    }
    op->c = c;
    op->topics = topics;
    VV_MSG_INIT(ListOffsetsResponse, &op->r);
    int err = VV_ARRAY_NEW(op->r.Topics, ListOffsetsResponse_ListOffsetsTopicResponse, vv_call_arena(c), n);
    for (int32_t i = 0; !err && i < n; i++) err = list_topic(op, i);
    if (err) {
        release_topics(op);
        vv_call_close(c, "its ListOffsets answer does not fit into memory");
        return;
    }
    int searches = 0;
    for (struct search *s = op->searches; s; s = s->next) searches++;
    atomic_store(&op->pending, searches + 1);
    for (struct search *s = op->searches, *next; s; s = next) { /* s may be gone once it runs */
        next = s->next;
        vv_iopool_submit(c->broker->iopool, &s->work);
    }
    release(op);
}
