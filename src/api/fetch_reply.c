/* fetch_reply.c — the answer to a Fetch: what each partition got, what the session already knew left out, records by
 * reference. On the operation's reactor, once per operation. */
#include "fetch.h"
#include "metrics.h"

#include <stdlib.h>

/* Appends what is not there yet: a segment that is local and remote is told of twice. */
static void add_aborted(struct FetchResponse_PartitionData *out, const struct vv_aborted *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int32_t at = 0;
        while (at < out->AbortedTransactions.n && (out->AbortedTransactions.v[at].ProducerId != v[i].producer_id ||
                                                   out->AbortedTransactions.v[at].FirstOffset != v[i].first_offset))
            at++;
        if (at < out->AbortedTransactions.n) continue;
        out->AbortedTransactions.v[at].ProducerId = v[i].producer_id;
        out->AbortedTransactions.v[at].FirstOffset = v[i].first_offset;
        out->AbortedTransactions.n++;
    }
}

static int fill_aborted(struct fetch_part *part, struct FetchResponse_PartitionData *out)
{
    if (!part->op->committed || !part->partition) return 0;
    out->AbortedTransactions.n = 0;
    if (!part->bytes.bytes) return 0;
    struct vv_aborted *v = NULL;
    size_t n = 0;
    int err = vv_log_aborted(part->partition->log, part->q.FetchOffset, part->next - 1, &v, &n);
    if (!err && n + part->aborted_n) {
        err = VV_ARRAY_NEW(out->AbortedTransactions, FetchResponse_AbortedTransaction, vv_call_arena(part->op->c),
                           n + part->aborted_n);
        out->AbortedTransactions.n = 0;
        if (!err) {
            add_aborted(out, part->aborted, part->aborted_n);
            add_aborted(out, v, n);
        }
    }
    free(v);
    return err;
}

static void drop_bytes(struct fetch_part *part)
{
    part->op->bytes -= (int64_t)part->bytes.bytes;
    vv_chain_release(&part->bytes);
}

static void fill_part(struct fetch_part *part, struct FetchResponse_PartitionData *out)
{
    bool known = part->partition && (!part->err || part->err == VV_OFFSET_OUT_OF_RANGE);
    out->PartitionIndex = part->q.Partition;
    out->HighWatermark = out->LastStableOffset = out->LogStartOffset = -1;
    out->AbortedTransactions.n = -1;
    if (!part->err) {
        part->err = vv_err_kafka(fill_aborted(part, out));
        if (part->err) drop_bytes(part);
    }
    out->ErrorCode = (int16_t)part->err;
    if (known) {
        out->HighWatermark = vv_partition_high_watermark(part->partition);
        out->LastStableOffset = vv_partition_last_stable(part->partition);
        out->LogStartOffset = vv_partition_log_start(part->partition);
    }
    if (part->diverging) out->DivergingEpoch = part->diverges;
    if (part->err == VV_FENCED_LEADER_EPOCH || part->err == VV_NOT_LEADER_OR_FOLLOWER) {
        out->CurrentLeader.LeaderId = part->op->c->broker->node_id;
        out->CurrentLeader.LeaderEpoch = part->partition ? vv_partition_epoch(part->partition) : -1;
    }
    if (part->op->prewarm && !part->err) {
        out->PrewarmedTo = part->next;
        out->PrewarmedBytes = (int64_t)part->bytes.bytes;
        drop_bytes(part);
    }
    out->Records = (struct vv_records){(const uint8_t *)"", 0, part->bytes.bytes ? &part->bytes : NULL};
    if (part->err) vv_count(fetch_errors, 1);
    if (part->bytes.bytes) vv_topic_count(part->topic, fetch_bytes, part->bytes.bytes);
}

/* An incremental answer names a partition only when there is something to tell (KIP-227). */
static bool worth_telling(struct fetch_part *part, const struct FetchResponse_PartitionData *out)
{
    struct vv_session_part *s = part->cached;
    if (!s) return true;
    bool news = part->bytes.bytes || part->err || part->diverging || s->high_watermark != out->HighWatermark ||
                s->log_start != out->LogStartOffset;
    s->high_watermark = part->err ? -1 : out->HighWatermark;
    s->log_start = out->LogStartOffset;
    return news || vv_fetch_session_full(part->op->session);
}

static bool same_topic(const struct fetch_op *op, const struct FetchResponse_FetchableTopicResponse *t,
                       const struct fetch_part *part)
{
    return op->by_id ? vv_uuid_eq(t->TopicId, part->topic_id) : vv_str_eq(t->Topic, part->topic_name);
}

/* Partitions in the order of service; neighbours of one topic share its entry. */
static int fill(struct fetch_op *op, struct FetchResponse *r)
{
    struct vv_arena *a = vv_call_arena(op->c);
    struct FetchResponse_PartitionData *data =
        vv_struct_array(&vv_struct_FetchResponse_PartitionData, a, op->part_count);
    if (!data || VV_ARRAY_NEW(r->Responses, FetchResponse_FetchableTopicResponse, a, op->part_count)) return vv_arena_err(a);
    struct FetchResponse_FetchableTopicResponse *t = NULL;
    int32_t topics = 0, told = 0;
    for (int32_t i = 0; i < op->part_count; i++) {
        struct fetch_part *part = &op->parts[i];
        fill_part(part, &data[told]);
        if (!worth_telling(part, &data[told])) {
            vv_struct_init(&vv_struct_FetchResponse_PartitionData, &data[told]);
            continue;
        }
        if (!t || !same_topic(op, t, part)) {
            t = &r->Responses.v[topics++];
            t->Topic = part->topic_name;
            t->TopicId = part->topic_id;
            t->Partitions.v = &data[told];
            t->Partitions.n = 0;
        }
        t->Partitions.n++;
        told++;
    }
    r->Responses.n = topics;
    return 0;
}

static void rotate(struct fetch_op *op)
{
    for (int32_t i = 0; i < op->part_count; i++)
        if (op->parts[i].cached && op->parts[i].bytes.bytes) vv_fetch_session_to_end(op->session, op->parts[i].cached);
}

static void give_back(struct fetch_op *op)
{
    for (int32_t i = 0; i < op->part_count; i++) {
        vv_chain_release(&op->parts[i].bytes);
        free(op->parts[i].aborted);
        if (op->parts[i].topic) vv_topic_unref(op->parts[i].topic);
    }
    if (op->session) vv_fetch_session_end(op->session);
}

static void leader_endpoint(struct fetch_op *op, struct FetchResponse *r, struct FetchResponse_NodeEndpoint *self)
{
    bool moved = false;
    for (int32_t i = 0; i < op->part_count; i++)
        moved |= op->parts[i].err == VV_FENCED_LEADER_EPOCH || op->parts[i].err == VV_NOT_LEADER_OR_FOLLOWER;
    if (!moved) return;
    const char *host = NULL;
    int port = 0;
    vv_broker_endpoint(op->c->broker, vv_conn_listener(op->c->x->conn), &host, &port);
    VV_STRUCT_INIT(FetchResponse_NodeEndpoint, self);
    self->NodeId = op->c->broker->node_id;
    self->Host = vv_str_c(host);
    self->Port = port;
    r->NodeEndpoints.v = self;
    r->NodeEndpoints.n = 1;
}

/* The answer goes out as it is and tells the client to wait; its connection is not read from meanwhile. */
static int32_t throttle(struct fetch_op *op)
{
    int64_t ms = vv_fetch_quota(op, VV_QUOTA_FETCH, (uint64_t)op->bytes);
    if (!ms) return 0;
    vv_count(quota_fetch_us, ms * 1000);
    vv_count(quota_fetch_hits, 1);
    vv_conn_mute_until(op->c->x->conn, vv_reactor_now_us(op->c->x->reactor) + ms * 1000);
    return (int32_t)ms;
}

void vv_fetch_reply(struct fetch_op *op)
{
    struct FetchResponse r;
    struct FetchResponse_NodeEndpoint self;
    VV_MSG_INIT(FetchResponse, &r);
    r.SessionId = op->session ? vv_fetch_session_id(op->session) : 0;
    int err = fill(op, &r);
    leader_endpoint(op, &r, &self);
    if (!err) rotate(op);
    r.ThrottleTimeMs = throttle(op);
    vv_count(fetch_bytes, op->bytes);
    /* The exchange ends on this reactor, after this function: op stays until then. */
    if (err)
        vv_call_close(op->c, "its Fetch answer does not fit into memory");
    else
        vv_call_reply(op->c, &r);
    give_back(op);
}
