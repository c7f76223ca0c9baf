/* feed.c — see feed.h.
 *
 * A batch belongs to one partition and is sent when it has BATCH_BYTES or the next record is of another one. Errors
 * that pass (a leader that moves, a broker that restarts, a topic just made) are tried again for PATIENCE_MS, with
 * the same producer id and sequence, so that the broker knows it for the same batch. */
#include "feed.h"

#include "admin.h"
#include "varve/bytes.h"
#include "varve/env.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_BYTES (512u << 10)
#define PATIENCE_MS 60000
#define AGAIN_US 200000
#define RECORDS_MAX 100000 /* of a batch */

struct vv_feed {
    struct vv_client *c;
    struct vv_part_ref *parts;
    size_t n;
    char *topic;
    struct vv_batch_builder *batch;
    int32_t partition, records; /* of the batch */
    size_t bytes;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t *sequences; /* by partition */
};

static bool passes(int err)
{
    switch (err) {
    case VV_E_IO:
    case VV_E_TIMEOUT:
    case VV_NOT_LEADER_OR_FOLLOWER:
    case VV_LEADER_NOT_AVAILABLE:
    case VV_UNKNOWN_TOPIC_OR_PARTITION: /* just made */
    case VV_NOT_ENOUGH_REPLICAS:
    case VV_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
    case VV_REQUEST_TIMED_OUT:
    case VV_NETWORK_EXCEPTION:
    case VV_KAFKA_STORAGE_ERROR:
    case VV_COORDINATOR_LOAD_IN_PROGRESS:
    case VV_COORDINATOR_NOT_AVAILABLE: return true;
    default: return false;
    }
}

/* ---- beginning ---- */

static int producer_id(struct vv_feed *f, struct vv_error *e)
{
    struct InitProducerIdRequest rq;
    struct vv_reply r;
    VV_MSG_INIT(InitProducerIdRequest, &rq);
    rq.TransactionalId = VV_STR_NULL;
    rq.TransactionTimeoutMs = PATIENCE_MS;
    int err = vv_client_call(f->c, VV_NODE_ANY, 22, &rq, &r, e);
    if (err) return err;
    const struct InitProducerIdResponse *rs = r.msg;
    f->producer_id = rs->ProducerId;
    f->producer_epoch = rs->ProducerEpoch;
    err = rs->ErrorCode ? vv_error_set(e, rs->ErrorCode, "InitProducerId: %s", vv_err_name(rs->ErrorCode)) : VV_OK;
    vv_reply_release(&r);
    return err;
}

static int learn(struct vv_feed *f, struct vv_error *e)
{
    free(f->parts);
    f->parts = NULL;
    return vv_client_partitions(f->c, f->topic, &f->parts, &f->n, e);
}

/* Until it works, or fails for good, or PATIENCE_MS are over. */
static int insist(struct vv_feed *f, int (*what)(struct vv_feed *f, struct vv_error *e), struct vv_error *e)
{
    int64_t until = vv_mono_ms(&vv_env_posix) + PATIENCE_MS;
    for (;;) {
        int err = what(f, e);
        if (!err || !passes(err) || vv_mono_ms(&vv_env_posix) > until) return err;
        usleep(AGAIN_US);
    }
}

static int find_topic(struct vv_feed *f, int32_t partitions, struct vv_error *e)
{
    int err = learn(f, e);
    if (err == VV_UNKNOWN_TOPIC_OR_PARTITION) {
        err = vv_admin_create_topic(f->c, f->topic, partitions, -1, NULL, 0, e);
        if (err && err != VV_TOPIC_ALREADY_EXISTS) return err;
        fprintf(stderr, "varve replay: topic %s made, %" PRId32 " partitions\n", f->topic, partitions);
        err = insist(f, learn, e);
    }
    if (!err && f->n < (size_t)partitions)
        err = vv_error_set(e, VV_E_CONFIG, "topic %s has %zu partitions there and %" PRId32 " here: give it as many (varve topic alter "
                           "%s --partitions %" PRId32 "), or another name with --as", f->topic, f->n, partitions, f->topic, partitions);
    return err;
}

int vv_feed_open(const struct vv_feed_opts *o, struct vv_feed **out, struct vv_error *e)
{
    struct vv_feed *f = calloc(1, sizeof *f);
    *out = NULL;
    if (!f) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    f->topic = strdup(o->topic);
    f->batch = vv_batch_builder_new();
    int err = f->topic && f->batch ? VV_OK : vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (!err) err = vv_client_open(o->bootstrap, "varve-replay", &f->c, e);
    if (!err) err = find_topic(f, o->partitions, e);
    if (!err) err = insist(f, producer_id, e);
    if (!err && !(f->sequences = calloc(f->n, sizeof *f->sequences))) err = vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (err)
        vv_feed_close(f);
    else
        *out = f;
    return err;
}

/* ---- sending ---- */

static int32_t leader_of(const struct vv_feed *f)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->parts[i].partition == f->partition) return f->parts[i].leader;
    return -1;
}

static int answer(struct vv_feed *f, const struct ProduceResponse *rs, struct vv_error *e)
{
    if (rs->Responses.n != 1 || rs->Responses.v[0].PartitionResponses.n != 1)
        return vv_error_set(e, VV_E_PROTO, "Produce: an answer without the partition that was asked about");
    const struct ProduceResponse_PartitionProduceResponse *a = &rs->Responses.v[0].PartitionResponses.v[0];
    if (!a->ErrorCode || a->ErrorCode == VV_DUPLICATE_SEQUENCE_NUMBER) return VV_OK; /* the first try went through */
    return vv_error_set(e, a->ErrorCode, "Produce to %s-%" PRId32 ": %s %.*s", f->topic, f->partition,
                        vv_err_name(a->ErrorCode), VV_STR_ARG(a->ErrorMessage));
}

static int send_batch(struct vv_feed *f, struct vv_error *e)
{
    struct ProduceRequest rq;
    struct ProduceRequest_TopicProduceData t;
    struct ProduceRequest_PartitionProduceData p;
    struct vv_reply r;
    uint8_t *bytes;
    size_t n;
    vv_batch_builder_producer(f->batch, f->producer_id, f->producer_epoch, f->sequences[f->partition]);
    if (vv_batch_builder_finish(f->batch, &bytes, &n)) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    VV_MSG_INIT(ProduceRequest, &rq);
    VV_STRUCT_INIT(ProduceRequest_TopicProduceData, &t);
    VV_STRUCT_INIT(ProduceRequest_PartitionProduceData, &p);
    p.Index = f->partition;
    p.Records = (struct vv_records){.p = bytes, .n = (int32_t)n};
    t.Name = vv_str_c(f->topic);
    t.PartitionData.v = &p;
    t.PartitionData.n = 1;
    rq.Acks = -1;
    rq.TimeoutMs = 30000;
    rq.TopicData.v = &t;
    rq.TopicData.n = 1;
    int err = vv_client_call(f->c, leader_of(f), 0, &rq, &r, e);
    if (err) {
        struct vv_error ignored = {0};
        learn(f, &ignored); /* perhaps another leads now */
        return err;
    }
    err = answer(f, r.msg, e);
    vv_reply_release(&r);
    if (err && passes(err)) {
        struct vv_error ignored = {0};
        learn(f, &ignored);
    }
    return err;
}

int vv_feed_flush(struct vv_feed *f, struct vv_error *e)
{
    if (!f->records) return VV_OK;
    int err = insist(f, send_batch, e);
    if (err) return err;
    f->sequences[f->partition] = (int32_t)(((uint32_t)f->sequences[f->partition] + (uint32_t)f->records) & INT32_MAX);
    f->records = 0;
    f->bytes = 0;
    return VV_OK;
}

int vv_feed_add(struct vv_feed *f, int32_t partition, const struct vv_record *r, struct vv_error *e)
{
    size_t bytes = (size_t)VV_MAX(r->key_n, 0) + (size_t)VV_MAX(r->value_n, 0) + r->headers_n + 32;
    int err = VV_OK;
    if (f->records && (f->partition != partition || f->bytes + bytes > BATCH_BYTES || f->records == RECORDS_MAX))
        err = vv_feed_flush(f, e);
    if (err) return err;
    f->partition = partition;
    err = vv_batch_builder_add_record(f->batch, r);
    if (err) return vv_error_set(e, err, "offset %" PRId64 ": %s", r->offset, vv_err_name(err));
    f->bytes += bytes;
    f->records++;
    return VV_OK;
}

void vv_feed_close(struct vv_feed *f)
{
    if (!f) return;
    vv_client_close(f->c);
    vv_batch_builder_free(f->batch);
    free(f->parts);
    free(f->sequences);
    free(f->topic);
    free(f);
}
