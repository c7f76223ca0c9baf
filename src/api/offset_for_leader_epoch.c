/* offset_for_leader_epoch.c — where a leader epoch ends (KIP-101, KIP-320), so that clients notice a log that was cut.
 * Inline on the reactor: epochs are in memory. */
#include "call.h"
#include "broker.h"
#include "partition.h"
#include "gen/messages.h"

static int lookup(struct vv_topic *t, const struct OffsetForLeaderEpochRequest_OffsetForLeaderPartition *q,
                  struct OffsetForLeaderEpochResponse_EpochEndOffset *out)
{
    struct vv_partition *p = t ? vv_topic_partition(t, q->Partition) : NULL;
    if (!t || atomic_load(&t->deleted)) return VV_UNKNOWN_TOPIC_OR_PARTITION;
    if (!p) return vv_topic_absent(t, q->Partition);
    int32_t ours = vv_partition_epoch(p);
    if (q->CurrentLeaderEpoch >= 0 && q->CurrentLeaderEpoch < ours) return VV_FENCED_LEADER_EPOCH;
    if (q->CurrentLeaderEpoch > ours) return VV_UNKNOWN_LEADER_EPOCH;
    vv_log_epoch_end(p->log, q->LeaderEpoch, &out->LeaderEpoch, &out->EndOffset);
    if (p->followed) out->EndOffset = VV_MIN(out->EndOffset, vv_partition_end(p));
    return 0;
}

void vv_handle_offset_for_leader_epoch(struct vv_call *c)
{
    const struct OffsetForLeaderEpochRequest *q = c->req;
    struct OffsetForLeaderEpochResponse r;
    VV_MSG_INIT(OffsetForLeaderEpochResponse, &r);
    int err =
        VV_ARRAY_NEW(r.Topics, OffsetForLeaderEpochResponse_OffsetForLeaderTopicResult, vv_call_arena(c), q->Topics.n);
    for (int32_t i = 0; !err && i < q->Topics.n; i++) {
        const struct OffsetForLeaderEpochRequest_OffsetForLeaderTopic *from = &q->Topics.v[i];
        struct OffsetForLeaderEpochResponse_OffsetForLeaderTopicResult *to = &r.Topics.v[i];
        to->Topic = from->Topic;
        err = VV_ARRAY_NEW(to->Partitions, OffsetForLeaderEpochResponse_EpochEndOffset, vv_call_arena(c),
                           from->Partitions.n);
        struct vv_topic *t = vv_topics_get(c->broker->topics, from->Topic.p, (size_t)from->Topic.n);
        for (int32_t k = 0; !err && k < from->Partitions.n; k++) {
            to->Partitions.v[k].Partition = from->Partitions.v[k].Partition;
            to->Partitions.v[k].ErrorCode = (int16_t)lookup(t, &from->Partitions.v[k], &to->Partitions.v[k]);
        }
        if (t) vv_topic_unref(t);
    }
    if (err)
        vv_call_close(c, "its OffsetForLeaderEpoch answer does not fit into memory");
    else
        vv_call_reply(c, &r);
}
