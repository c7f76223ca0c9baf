/* produce.c — Produce: check, append, wait for the disk, answer once.
 *
 * A partition's records are one batch in the receive buffer: vv_batch_check patches timestamps there, the log patches
 * offset and epoch and writes it; nothing is copied. What the durability contract asks to be on disk (log.flush.acks)
 * registers one flush waiter per partition; the last one to finish sends the answer. acks=0 has no answer: an error
 * closes the connection, so that the client notices (Kafka does the same).
 *
 * Invariants: topics are referenced until the answer; an error of one partition is that partition's alone.
 * Threads: handler and appends on the reactor; the answer from the reactor or an iopool thread. */
#include "call.h"
#include "broker.h"
#include "metrics.h"
#include "partition.h"
#include "quota.h"
#include "gen/messages.h"

#include <stdio.h>

enum { ZSTD_SINCE = 7, IDS_SINCE = 13 };
#define THROTTLE_BYTES_PER_S ((int64_t)1 << 20) /* of one connection, while the disk runs full */
#define THROTTLE_MS_MAX      1000

struct produce_op;
struct produce_part {
    struct vv_flush_waiter flush;
    struct produce_op *op;
    struct vv_partition *partition;
    struct ProduceResponse_PartitionProduceResponse *out;
};

struct produce_op {
    struct vv_call *c;
    struct ProduceResponse r;
    struct vv_topic **topics; /* references, one per topic of the request; NULL when unknown */
    int32_t topic_count;
    struct produce_part *parts;
    int32_t part_count; /* appended and to be flushed */
    _Atomic int pending;
    size_t appended; /* bytes */
    bool tiered;     /* of these, some to a tiered topic */
    int first_error; /* for acks=0 */
};

/* ---- end ---- */

static void finish(struct produce_op *op)
{
    struct vv_call *c = op->c;
    const struct ProduceRequest *q = c->req;
    for (int32_t i = 0; i < op->topic_count; i++)
        if (op->topics[i]) vv_topic_unref(op->topics[i]);
    if (q->Acks != 0) {
        vv_call_reply(c, &op->r);
        return;
    }
    if (!op->first_error) {
        vv_call_drop(c);
        return;
    }
    char why[96];
    snprintf(why, sizeof why, "Produce with acks=0 failed with %s", vv_err_name(op->first_error));
    vv_call_close(c, why);
}

static void release(struct produce_op *op)
{
    if (atomic_fetch_sub(&op->pending, 1) == 1) finish(op);
}

static void fail(struct produce_op *op, struct ProduceResponse_PartitionProduceResponse *out, int err, const char *text)
{
    int code = vv_err_kafka(err);
    out->ErrorCode = (int16_t)code;
    out->BaseOffset = -1;
    out->LogAppendTimeMs = -1;
    out->LogStartOffset = -1;
    if (text && *text) {
        char *copy = vv_arena_strdup(vv_call_arena(op->c), text, strlen(text));
        out->ErrorMessage = vv_str_c(copy);
    }
    op->first_error = op->first_error ? op->first_error : code;
    vv_count(produce_errors, 1);
}

static void flushed(struct vv_flush_waiter *w, int err)
{
    struct produce_part *part = VV_CONTAINER(w, struct produce_part, flush);
    if (err) { /* no arena here: several of these may run at a time */
        bool scarce = vv_err_scarce(err); /* it is in the log, and durable later */
        part->out->ErrorCode = (int16_t)(scarce ? VV_REQUEST_TIMED_OUT : vv_err_kafka(err));
        part->out->BaseOffset = -1;
        part->out->ErrorMessage = scarce ? VV_STR_LIT("memory or file descriptors ran out before the batch was durable")
                                         : VV_STR_LIT("the disk refused to make the batch durable");
        vv_count(produce_errors, 1);
    }
    release(part->op);
}

/* ---- one partition ---- */

static void bad_record(struct produce_op *op, struct ProduceResponse_PartitionProduceResponse *out, int32_t record)
{
    if (record < 0) return;
    if (VV_ARRAY_NEW(out->RecordErrors, ProduceResponse_BatchIndexAndErrorMessage, vv_call_arena(op->c), 1)) return;
    out->RecordErrors.v[0].BatchIndex = record;
    out->RecordErrors.v[0].BatchIndexErrorMessage = out->ErrorMessage;
}

static bool waits_for_disk(const struct vv_call *c)
{
    int16_t acks = ((const struct ProduceRequest *)c->req)->Acks;
    enum vv_flush_acks rule = c->broker->config->flush_acks;
    return rule != VV_FLUSH_NONE && (acks == -1 || (acks == 1 && rule == VV_FLUSH_LEADER));
}

static int append(struct produce_op *op, struct vv_partition *p, struct vv_records records,
                  struct ProduceResponse_PartitionProduceResponse *out, struct vv_error *e, int32_t *bad)
{
    struct vv_call *c = op->c;
    struct vv_batch_rules rules = {0};
    struct vv_batch batch = {0};
    uint8_t *bytes = (uint8_t *)(uintptr_t)records.p; /* the frame is ours to change (net.h) */
    int64_t now = vv_wall_ms(c->broker->env);
    if (records.n <= 0)
        return vv_error_set(e, VV_INVALID_RECORD, "A produce request must carry one record batch per partition");
    vv_partition_check_rules(p, now, &rules);
    int err = vv_batch_check(bytes, (size_t)records.n, &rules, &batch, bad, e);
    if (err) return err;
    if (batch.codec == VV_CODEC_ZSTD && c->version < ZSTD_SINCE)
        return vv_error_set(e, VV_UNSUPPORTED_COMPRESSION_TYPE, "zstd needs Produce version %d", ZSTD_SINCE);
    if (batch.transactional)
        return vv_error_set(e, VV_INVALID_TXN_STATE,
                            "Transactions are not served: no transaction is open for this producer");
    struct vv_append a = {.p = bytes, .b = &batch, .now_ms = now};
    err = vv_partition_append(p, &a, e);
    if (err) return err;
    out->BaseOffset = a.base_offset;
    out->LogAppendTimeMs = rules.ts_type == VV_LOG_APPEND_TIME ? rules.now_ms : -1;
    out->LogStartOffset = vv_partition_log_start(p);
    op->appended += batch.bytes;
    vv_broker_disk_written(c->broker, batch.bytes);
    op->tiered |= atomic_load_explicit(&p->rules.tiered, memory_order_relaxed);
    vv_count(produce_batches, 1);
    vv_count(produce_bytes, batch.bytes);
    vv_count(produce_records, batch.records);
    vv_topic_count(p->topic, produce_bytes, batch.bytes);
    vv_topic_count(p->topic, produce_records, batch.records);
    if (a.duplicate) vv_count(produce_duplicates, 1);
    if (waits_for_disk(c)) {
        struct produce_part *part = &op->parts[op->part_count++];
        *part = (struct produce_part){{.offset = a.last_offset + 1, .done = flushed}, op, p, out};
    }
    return 0;
}

static void produce_one(struct produce_op *op, struct vv_topic *t, int refusal,
                        const struct ProduceRequest_PartitionProduceData *q,
                        struct ProduceResponse_PartitionProduceResponse *out)
{
    struct vv_error e = {0};
    int32_t bad = -1;
    out->Index = q->Index;
    struct vv_partition *p = t ? vv_topic_partition(t, q->Index) : NULL;
    int err = refusal;
    if (!err && (!t || atomic_load(&t->deleted))) err = VV_UNKNOWN_TOPIC_OR_PARTITION;
    if (!err && !p) err = vv_topic_absent(t, q->Index);
    if (!err && t->internal)
        err = vv_error_set(&e, VV_INVALID_TOPIC_EXCEPTION, "Clients may not write to the internal topic %s", t->name);
    if (!err && p->followed) /* a code that every client takes as final, also where there is no room for the text (before v8) */
        err = vv_replica_refusal(op->c->broker, VV_TOPIC_AUTHORIZATION_FAILED, &e);
    if (!err && atomic_load_explicit(&p->rules.tiered, memory_order_relaxed) &&
        atomic_load(&op->c->broker->disk_state) == VV_DISK_REFUSE) {
        vv_count(disk_refusals, 1);
        err = vv_error_set(
            &e, VV_KAFKA_STORAGE_ERROR,
            "The disk is full up to the reserve (tier.disk.reserve): nothing is accepted until there is room again");
    }
    if (!err) err = append(op, p, q->Records, out, &e, &bad);
    if (!err) return;
    fail(op, out, err, e.text);
    bad_record(op, out, bad);
}

/* ---- the request ---- */

static int refusal_of(const struct ProduceRequest *q)
{
    if (q->Acks < -1 || q->Acks > 1) return VV_INVALID_REQUIRED_ACKS;
    if (q->TransactionalId.n >= 0) return VV_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    return 0;
}

static int prepare(struct produce_op *op, const struct ProduceRequest *q)
{
    struct vv_arena *a = vv_call_arena(op->c);
    size_t parts = 0;
    for (int32_t i = 0; i < q->TopicData.n; i++)
        if (q->TopicData.v[i].PartitionData.n > 0) parts += (size_t)q->TopicData.v[i].PartitionData.n;
    op->topic_count = VV_MAX(q->TopicData.n, 0);
    op->topics = vv_arena_alloc(a, ((size_t)op->topic_count + 1) * sizeof(struct vv_topic *));
    op->parts = vv_arena_alloc(a, (parts + 1) * sizeof *op->parts);
    if (!op->topics || !op->parts) return vv_arena_err(a);
    int err = VV_ARRAY_NEW(op->r.Responses, ProduceResponse_TopicProduceResponse, a, op->topic_count);
    for (int32_t i = 0; !err && i < op->topic_count; i++)
        err = VV_ARRAY_NEW(op->r.Responses.v[i].PartitionResponses, ProduceResponse_PartitionProduceResponse, a,
                           VV_MAX(q->TopicData.v[i].PartitionData.n, 0));
    return err;
}

static void produce_topic(struct produce_op *op, int32_t i, int refusal)
{
    struct vv_call *c = op->c;
    const struct ProduceRequest_TopicProduceData *q = &((const struct ProduceRequest *)c->req)->TopicData.v[i];
    struct ProduceResponse_TopicProduceResponse *out = &op->r.Responses.v[i];
    bool by_id = c->version >= IDS_SINCE;
    out->Name = q->Name;
    out->TopicId = q->TopicId;
    struct vv_topic *t = by_id ? vv_topics_get_id(c->broker->topics, q->TopicId)
                               : vv_topics_get(c->broker->topics, q->Name.p, (size_t)VV_MAX(q->Name.n, 0));
    op->topics[i] = t;
    if (!refusal && !t) refusal = by_id ? VV_UNKNOWN_TOPIC_ID : VV_UNKNOWN_TOPIC_OR_PARTITION;
    for (int32_t k = 0; k < out->PartitionResponses.n; k++)
        produce_one(op, t, refusal, &q->PartitionData.v[k], &out->PartitionResponses.v[k]);
}

/* The disk runs full: 0 while it does not. */
static int64_t disk_wait_ms(const struct produce_op *op)
{
    if (!op->tiered || atomic_load(&op->c->broker->disk_state) != VV_DISK_THROTTLE) return 0;
    int64_t ms = (int64_t)op->appended * 1000 / THROTTLE_BYTES_PER_S;
    ms = VV_MAX(1, VV_MIN(ms, THROTTLE_MS_MAX));
    vv_count(throttled_us, ms * 1000);
    return ms;
}

/* The request counts as it came, as Kafka does it. */
static int64_t quota_wait_ms(const struct vv_call *c)
{
    int64_t now_ms = vv_reactor_now_us(c->x->reactor) / 1000;
    int64_t ms = vv_quota_record(c->broker->quotas, VV_QUOTA_PRODUCE, c->client_id, c->x->frame.n, now_ms);
    if (!ms) return 0;
    vv_count(quota_produce_us, ms * 1000);
    vv_count(quota_produce_hits, 1);
    return ms;
}

/* The answer tells the client to wait, and its connection is not read from meanwhile. */
static void throttle(struct produce_op *op)
{
    struct vv_call *c = op->c;
    int64_t disk_ms = disk_wait_ms(op), quota_ms = quota_wait_ms(c), ms = VV_MAX(disk_ms, quota_ms);
    if (!ms) return;
    op->r.ThrottleTimeMs = (int32_t)ms;
    vv_conn_mute_until(c->x->conn, vv_reactor_now_us(c->x->reactor) + ms * 1000);
}

void vv_handle_produce(struct vv_call *c)
{
    const struct ProduceRequest *q = c->req;
    struct produce_op *op = vv_arena_alloc(vv_call_arena(c), sizeof *op);
    if (!op) {
        vv_call_close(c, "its Produce does not fit into memory");
        return;
    }
    op->c = c;
    VV_MSG_INIT(ProduceResponse, &op->r);
    if (prepare(op, q)) {
        vv_call_close(c, "its Produce does not fit into memory");
        return;
    }
    int refusal = refusal_of(q);
    for (int32_t i = 0; i < op->topic_count; i++) produce_topic(op, i, refusal);
    throttle(op);
    atomic_store(&op->pending, op->part_count + 1);
    for (int32_t i = 0, n = op->part_count; i < n; i++)
        vv_partition_flush_wait(op->parts[i].partition, &op->parts[i].flush);
    release(op);
}
