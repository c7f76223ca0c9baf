/* delete_records.c — DeleteRecords: moves the log start of partitions, durably, before the answer. Threads: iopool.
 *
 * A Varve extension: the offset INT64_MIN, which no client sends and any other broker refuses, moves it back as far as records are still kept
 * inside tier.delete.grace.ms (`varve topic undelete NAME --records`). The answer's low watermark says where the log starts now. */
#include "defer.h"
#include "gen/messages.h"
#include "varve/vlog.h"

typedef struct DeleteRecordsRequest_DeleteRecordsTopic wanted;
typedef struct DeleteRecordsResponse_DeleteRecordsPartitionResult result;

static int delete_one(struct vv_topic *t, int32_t partition, int64_t offset, int64_t *low)
{
    struct vv_error e = {0};
    if (!t) return VV_UNKNOWN_TOPIC_OR_PARTITION;
    if (t->internal) return VV_INVALID_TOPIC_EXCEPTION;
    if (t->broker->config->tier_replica) return VV_POLICY_VIOLATION; /* there is no room for a text */
    struct vv_partition *p = vv_topic_partition(t, partition);
    if (!p) return vv_topic_absent(t, partition);
    if (offset != INT64_MIN) return vv_partition_delete_records(p, offset, low, &e);
    int err = vv_partition_undelete_records(p, low, &e);
    if (err) VLOG_WARN("%s-%d: records are not undeleted: %s", t->name, (int)partition, *e.text ? e.text : vv_err_name(err));
    return err;
}

static int delete_topic(struct vv_call *c, const wanted *w, struct DeleteRecordsResponse_DeleteRecordsTopicResult *r)
{
    int32_t n = VV_MAX(w->Partitions.n, 0);
    r->Name = w->Name;
    if (VV_ARRAY_NEW(r->Partitions, DeleteRecordsResponse_DeleteRecordsPartitionResult, vv_call_arena(c), n))
        return vv_arena_err(vv_call_arena(c));
    struct vv_topic *t = vv_topics_get(c->broker->topics, w->Name.p, (size_t)VV_MAX(w->Name.n, 0));
    for (int32_t i = 0; i < n; i++) {
        result *p = &r->Partitions.v[i];
        p->PartitionIndex = w->Partitions.v[i].PartitionIndex;
        p->LowWatermark = -1;
        p->ErrorCode =
            (int16_t)vv_err_kafka(delete_one(t, p->PartitionIndex, w->Partitions.v[i].Offset, &p->LowWatermark));
    }
    if (t) vv_topic_unref(t);
    return VV_OK;
}

static void delete_all(struct vv_call *c)
{
    const struct DeleteRecordsRequest *q = c->req;
    struct DeleteRecordsResponse r;
    int32_t n = VV_MAX(q->Topics.n, 0);
    VV_MSG_INIT(DeleteRecordsResponse, &r);
    int err = VV_ARRAY_NEW(r.Topics, DeleteRecordsResponse_DeleteRecordsTopicResult, vv_call_arena(c), n);
    for (int32_t i = 0; i < n && !err; i++) err = delete_topic(c, &q->Topics.v[i], &r.Topics.v[i]);
    if (err)
        vv_call_close(c, "out of memory");
    else
        vv_call_reply(c, &r);
}

void vv_handle_delete_records(struct vv_call *c)
{
    vv_call_on_iopool(c, delete_all);
}
