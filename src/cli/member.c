/* member.c — the classic group protocol, as small as it can honestly be.
 *
 * States: no member (id empty or generation -1) → JoinGroup → (leader: assign) → SyncGroup →
 * fetch with a heartbeat every HEARTBEAT_MS. REBALANCE_IN_PROGRESS, ILLEGAL_GENERATION,
 * UNKNOWN_MEMBER_ID lead back to JoinGroup; before it, what was read is committed. Positions
 * begin at the committed offset, or at the earliest. */
#include "member.h"

#include "varve/bytes.h"
#include "varve/env.h"

#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define HEARTBEAT_MS 1000
#define SESSION_MS   10000
#define OUTPUT_MAX   (256u << 20)

struct vv_consumer {
    struct vv_client *c;
    char *group, *topic;
    char id[256];
    int32_t generation, coordinator;
    bool joined;
    struct vv_part_ref *parts; /* assigned; offset = next to read */
    int64_t *ends;             /* high watermarks seen, by assigned partition; -1 unknown */
    size_t count;
    int rebalances;
    int64_t heartbeat_ms; /* when the last one went out */
};

static bool rejoin_code(int err)
{
    return err == VV_REBALANCE_IN_PROGRESS || err == VV_ILLEGAL_GENERATION ||
           err == VV_UNKNOWN_MEMBER_ID;
}

static bool coordinator_code(int err)
{
    return err == VV_NOT_COORDINATOR || err == VV_COORDINATOR_NOT_AVAILABLE ||
           err == VV_COORDINATOR_LOAD_IN_PROGRESS;
}

/* What an error of the group protocol means for the member. Returns 0 when it joins again. */
static int handle(struct vv_consumer *m, int err, const char *what, struct vv_error *e)
{
    if (!rejoin_code(err) && !coordinator_code(err))
        return vv_error_set(e, err, "%s (group %s): %s", what, m->group, vv_err_name(err));
    m->joined = false;
    if (err == VV_UNKNOWN_MEMBER_ID) m->id[0] = 0;
    if (coordinator_code(err)) {
        m->coordinator = -1;
        poll(NULL, 0, 100);
    }
    return 0;
}

int vv_consumer_new(const char *bootstrap, const char *client_id, const char *group,
                  const char *topic, struct vv_consumer **out, struct vv_error *e)
{
    struct vv_consumer *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    m->group = strdup(group);
    m->topic = strdup(topic);
    m->coordinator = -1;
    m->generation = -1;
    int rc = m->group && m->topic ? vv_client_open(bootstrap, client_id, &m->c, e)
                                  : vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (rc)
        vv_consumer_close(m);
    else
        *out = m;
    return rc;
}

/* ---- joining ---- */

/* A ConsumerProtocol message behind its 16-bit version (0), in memory of arena. */
static int with_version(const struct vv_msg_schema *schema, const void *msg, struct vv_arena *arena,
                        struct vv_bytes *out)
{
    struct vv_out o;
    struct vv_chain chain = {0};
    vv_out_init(&o);
    uint8_t *version = vv_out_reserve(&o, 2);
    int rc = version ? 0 : VV_E_NOMEM;
    if (!rc) {
        vv_put16(version, 0);
        rc = vv_msg_encode(schema, 0, msg, &o);
    }
    if (rc)
        vv_out_release(&o);
    else
        rc = vv_out_finish(&o, &chain);
    if (!rc) {
        uint8_t *p = vv_arena_alloc(arena, chain.bytes + 1);
        rc = p ? 0 : VV_E_NOMEM;
        if (p) vv_chain_copy_out(&chain, p);
        *out = (struct vv_bytes){p, (int32_t)chain.bytes};
    }
    vv_chain_release(&chain);
    return rc;
}

static int by_member(const void *a, const void *b)
{
    const struct vv_str *x = a, *y = b;
    int c = memcmp(x->p, y->p, (size_t)VV_MIN(x->n, y->n));
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* Range: partitions in order, the first members get one more when it does not come out even. */
static int assign(struct vv_consumer *m, const struct JoinGroupResponse *join, struct vv_arena *arena,
                  struct SyncGroupRequest *sync, struct vv_error *e)
{
    struct vv_part_ref *parts;
    size_t n, members = (size_t)join->Members.n, at = 0;
    int rc = vv_client_partitions(m->c, m->topic, &parts, &n, e);
    if (rc) return rc;
    struct vv_str *ids = vv_arena_alloc(arena, (members + 1) * sizeof *ids);
    if (!ids || VV_ARRAY_NEW(sync->Assignments, SyncGroupRequest_SyncGroupRequestAssignment, arena,
                             members))
        rc = VV_E_NOMEM;
    for (size_t i = 0; i < members && !rc; i++)
        ids[i] = join->Members.v[i].MemberId;
    if (!rc) qsort(ids, members, sizeof *ids, by_member);
    for (size_t i = 0; i < members && !rc; i++) {
        struct ConsumerProtocolAssignment as;
        struct ConsumerProtocolAssignment_TopicPartition tp;
        size_t take = n / members + (i < n % members);
        VV_MSG_INIT(ConsumerProtocolAssignment, &as);
        VV_STRUCT_INIT(ConsumerProtocolAssignment_TopicPartition, &tp);
        tp.Topic = vv_str_c(m->topic);
        rc = VV_PLAIN_ARRAY_NEW(tp.Partitions, arena, take);
        for (size_t k = 0; k < take && !rc; k++)
            tp.Partitions.v[k] = parts[at + k].partition;
        at += take;
        as.AssignedPartitions.v = &tp;
        as.AssignedPartitions.n = 1;
        sync->Assignments.v[i].MemberId = ids[i];
        if (!rc)
            rc = with_version(&vv_schema_ConsumerProtocolAssignment, &as, arena,
                              &sync->Assignments.v[i].Assignment);
    }
    free(parts);
    return rc ? vv_error_set(e, rc, "out of memory") : 0;
}

/* Committed offsets of the assigned partitions; the earliest where there is none. */
static int begin_positions(struct vv_consumer *m, struct vv_error *e)
{
    struct OffsetFetchRequest rq;
    struct OffsetFetchRequest_OffsetFetchRequestTopic t;
    struct vv_reply r;
    int32_t *ids = calloc(m->count + 1, sizeof *ids);
    if (!ids) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    VV_MSG_INIT(OffsetFetchRequest, &rq);
    VV_STRUCT_INIT(OffsetFetchRequest_OffsetFetchRequestTopic, &t);
    for (size_t i = 0; i < m->count; i++)
        ids[i] = m->parts[i].partition;
    t.Name = vv_str_c(m->topic);
    t.PartitionIndexes.v = ids;
    t.PartitionIndexes.n = (int32_t)m->count;
    rq.GroupId = vv_str_c(m->group);
    rq.Topics.v = &t;
    rq.Topics.n = 1;
    int rc = vv_client_call(m->c, m->coordinator, 9, &rq, &r, e);
    free(ids);
    if (rc) return rc;
    const struct OffsetFetchResponse *rs = r.msg;
    for (size_t i = 0; i < m->count; i++) {
        m->parts[i].offset = -1;
        for (int32_t k = 0; rs->Topics.n && k < rs->Topics.v[0].Partitions.n; k++)
            if (rs->Topics.v[0].Partitions.v[k].PartitionIndex == m->parts[i].partition)
                m->parts[i].offset = rs->Topics.v[0].Partitions.v[k].CommittedOffset;
    }
    vv_reply_release(&r);
    for (size_t i = 0; i < m->count && !rc; i++)
        if (m->parts[i].offset < 0) {
            m->parts[i].timestamp = -2;
            rc = vv_client_offsets(m->c, &m->parts[i], 1, e);
        }
    return rc;
}

/* Takes the assignment a SyncGroup answer carries. */
static int take_assignment(struct vv_consumer *m, struct vv_bytes b, struct vv_arena *arena,
                           struct vv_error *e)
{
    struct ConsumerProtocolAssignment as;
    struct vv_part_ref *all;
    size_t n;
    int rc = vv_client_partitions(m->c, m->topic, &all, &n, e);
    if (rc) return rc;
    free(m->parts);
    free(m->ends);
    m->parts = calloc(n + 1, sizeof *m->parts);
    m->ends = calloc(n + 1, sizeof *m->ends);
    m->count = 0;
    if (!m->parts || !m->ends)
        rc = vv_error_set(e, VV_E_NOMEM, "out of memory");
    else if (b.n >= 2 && vv_msg_decode(&vv_schema_ConsumerProtocolAssignment, 0, b.p + 2,
                                       (size_t)b.n - 2, arena, &as, NULL))
        rc = vv_error_set(e, VV_E_PROTO, "the group's assignment cannot be read");
    for (int32_t t = 0; !rc && b.n >= 2 && t < as.AssignedPartitions.n; t++)
        for (int32_t i = 0; i < as.AssignedPartitions.v[t].Partitions.n; i++)
            for (size_t k = 0; k < n; k++)
                if (all[k].partition == as.AssignedPartitions.v[t].Partitions.v[i] &&
                    m->count < n && vv_str_is(as.AssignedPartitions.v[t].Topic, m->topic)) {
                    m->ends[m->count] = -1;
                    m->parts[m->count] = all[k];
                    m->parts[m->count++].topic = m->topic;
                }
    free(all);
    return rc;
}

static int sync_group(struct vv_consumer *m, const struct JoinGroupResponse *join,
                      struct vv_arena *arena, struct vv_error *e)
{
    struct SyncGroupRequest rq;
    struct vv_reply r;
    VV_MSG_INIT(SyncGroupRequest, &rq);
    rq.GroupId = vv_str_c(m->group);
    rq.GenerationId = m->generation;
    rq.MemberId = vv_str_c(m->id);
    rq.ProtocolType = vv_str_c("consumer");
    rq.ProtocolName = vv_str_c("range");
    int rc = vv_str_is(join->Leader, m->id) ? assign(m, join, arena, &rq, e) : 0;
    if (rc || (rc = vv_client_call(m->c, m->coordinator, 14, &rq, &r, e))) return rc;
    const struct SyncGroupResponse *rs = r.msg;
    if (rs->ErrorCode) {
        rc = handle(m, rs->ErrorCode, "SyncGroup", e);
    } else {
        m->joined = true;
        m->rebalances++;
        rc = take_assignment(m, rs->Assignment, &r.arena, e);
        if (!rc) rc = begin_positions(m, e);
    }
    vv_reply_release(&r);
    return rc;
}

static int join_group(struct vv_consumer *m, struct vv_error *e)
{
    struct JoinGroupRequest rq;
    struct JoinGroupRequest_JoinGroupRequestProtocol protocol;
    struct ConsumerProtocolSubscription sub;
    struct vv_str topic = vv_str_c(m->topic);
    struct vv_arena arena;
    struct vv_reply r;
    if (m->coordinator < 0) {
        int rc = vv_client_coordinator(m->c, m->group, &m->coordinator, e);
        if (rc) return rc;
    }
    vv_arena_init(&arena, 0);
    VV_MSG_INIT(JoinGroupRequest, &rq);
    VV_STRUCT_INIT(JoinGroupRequest_JoinGroupRequestProtocol, &protocol);
    VV_MSG_INIT(ConsumerProtocolSubscription, &sub);
    sub.Topics.v = &topic;
    sub.Topics.n = 1;
    int rc =
        with_version(&vv_schema_ConsumerProtocolSubscription, &sub, &arena, &protocol.Metadata);
    protocol.Name = vv_str_c("range");
    rq.GroupId = vv_str_c(m->group);
    rq.SessionTimeoutMs = SESSION_MS;
    rq.RebalanceTimeoutMs = SESSION_MS;
    rq.MemberId = vv_str_c(m->id);
    rq.ProtocolType = vv_str_c("consumer");
    rq.Protocols.v = &protocol;
    rq.Protocols.n = 1;
    if (!rc) rc = vv_client_call(m->c, m->coordinator, 11, &rq, &r, e);
    if (rc) {
        vv_arena_release(&arena);
        return rc;
    }
    const struct JoinGroupResponse *rs = r.msg;
    if (rs->MemberId.n > 0 && (size_t)rs->MemberId.n < sizeof m->id) {
        memcpy(m->id, rs->MemberId.p, (size_t)rs->MemberId.n);
        m->id[rs->MemberId.n] = 0;
    }
    m->generation = rs->GenerationId;
    if (rs->ErrorCode == VV_MEMBER_ID_REQUIRED)
        rc = 0; /* come again with the id */
    else if (rs->ErrorCode)
        rc = handle(m, rs->ErrorCode, "JoinGroup", e);
    else
        rc = sync_group(m, rs, &arena, e);
    m->heartbeat_ms = vv_mono_ms(&vv_env_posix);
    vv_reply_release(&r);
    vv_arena_release(&arena);
    return rc;
}

static int heartbeat(struct vv_consumer *m, struct vv_error *e)
{
    struct HeartbeatRequest rq;
    struct vv_reply r;
    int64_t now = vv_mono_ms(&vv_env_posix);
    if (now - m->heartbeat_ms < HEARTBEAT_MS) return 0;
    m->heartbeat_ms = now;
    VV_MSG_INIT(HeartbeatRequest, &rq);
    rq.GroupId = vv_str_c(m->group);
    rq.GenerationId = m->generation;
    rq.MemberId = vv_str_c(m->id);
    int rc = vv_client_call(m->c, m->coordinator, 12, &rq, &r, e);
    if (rc) return rc;
    int err = ((const struct HeartbeatResponse *)r.msg)->ErrorCode;
    vv_reply_release(&r);
    if (err == VV_REBALANCE_IN_PROGRESS && (rc = vv_consumer_commit(m, e))) return rc;
    return err ? handle(m, err, "Heartbeat", e) : 0;
}

/* ---- fetching ---- */

struct pass { /* one partition's records on their way to the caller */
    int32_t partition;
    int64_t from, next;
    int (*each)(void *ctx, int32_t partition, const struct vv_record *r);
    void *ctx;
};

static int pass_record(void *ctx, const struct vv_record *r)
{
    struct pass *p = ctx;
    if (r->offset < p->from) return 0; /* the batch began before */
    p->next = r->offset + 1;
    return p->each(p->ctx, p->partition, r);
}

/* Every record of whole batches in [at, at + n). The last batch may be cut off. */
static int pass_batches(const uint8_t *at, size_t n, struct pass *p, struct vv_error *e)
{
    struct vv_batch b;
    while (n >= VV_BATCH_HEADER) {
        int rc = vv_batch_parse(at, n, &b);
        if (rc == VV_E_AGAIN) return 0;
        if (rc || !vv_batch_crc_ok(at, &b))
            return vv_error_set(e, VV_CORRUPT_MESSAGE,
                                "partition %d: a batch at offset %" PRId64 " is damaged",
                                p->partition, p->next);
        rc = b.control ? 0 : vv_batch_each(at, &b, OUTPUT_MAX, pass_record, p);
        if (rc) return rc;
        p->next = VV_MAX(p->next, vv_batch_last(&b) + 1);
        at += b.bytes;
        n -= b.bytes;
    }
    return 0;
}

static void fetch_request(struct FetchRequest *rq, struct FetchRequest_FetchTopic *t,
                          const char *topic, struct FetchRequest_FetchPartition *p, int32_t n,
                          int wait_ms, int32_t max_bytes)
{
    VV_MSG_INIT(FetchRequest, rq);
    VV_STRUCT_INIT(FetchRequest_FetchTopic, t);
    rq->MaxWaitMs = wait_ms;
    rq->MinBytes = 1;
    rq->MaxBytes = max_bytes;
    t->Topic = vv_str_c(topic);
    t->Partitions.v = p;
    t->Partitions.n = n;
    rq->Topics.v = t;
    rq->Topics.n = 1;
}

static void fetch_row(struct FetchRequest_FetchPartition *p, const struct vv_part_ref *part,
                      int32_t max_bytes)
{
    VV_STRUCT_INIT(FetchRequest_FetchPartition, p);
    p->Partition = part->partition;
    p->FetchOffset = part->offset;
    p->PartitionMaxBytes = max_bytes;
}

int vv_fetch_partition(struct vv_client *c, const struct vv_part_ref *part, int wait_ms,
                       int32_t max_bytes,
                       int (*each)(void *ctx, int32_t partition, const struct vv_record *r),
                       void *ctx, int64_t *next, size_t *bytes, struct vv_error *e)
{
    struct FetchRequest rq;
    struct FetchRequest_FetchTopic t;
    struct FetchRequest_FetchPartition p;
    struct vv_reply r;
    fetch_row(&p, part, max_bytes);
    fetch_request(&rq, &t, part->topic, &p, 1, wait_ms, max_bytes);
    *next = part->offset;
    *bytes = 0;
    int rc = vv_client_call(c, part->leader, 1, &rq, &r, e);
    if (rc) return rc;
    const struct FetchResponse *rs = r.msg;
    if (rs->ErrorCode || rs->Responses.n < 1 || rs->Responses.v[0].Partitions.n < 1) {
        rc = vv_error_set(e, rs->ErrorCode ? rs->ErrorCode : VV_E_PROTO, "Fetch: %s",
                          vv_err_name(rs->ErrorCode));
    } else {
        const struct FetchResponse_PartitionData *d = &rs->Responses.v[0].Partitions.v[0];
        struct pass pass = {part->partition, part->offset, part->offset, each, ctx};
        if (d->ErrorCode)
            rc = vv_error_set(e, d->ErrorCode, "Fetch %s-%d at offset %" PRId64 ": %s", part->topic,
                              part->partition, part->offset, vv_err_name(d->ErrorCode));
        else if (d->Records.n > 0)
            rc = pass_batches(d->Records.p, (size_t)d->Records.n, &pass, e);
        *next = pass.next;
        *bytes = (size_t)VV_MAX(d->Records.n, 0);
    }
    vv_reply_release(&r);
    return rc;
}

static int take_partition(struct vv_consumer *m, const struct FetchResponse_PartitionData *d,
                          int (*each)(void *ctx, int32_t partition, const struct vv_record *r),
                          void *ctx, struct vv_error *e)
{
    for (size_t i = 0; i < m->count; i++) {
        struct vv_part_ref *part = &m->parts[i];
        if (part->partition != d->PartitionIndex) continue;
        if (d->ErrorCode == VV_NOT_LEADER_OR_FOLLOWER || d->ErrorCode == VV_KAFKA_STORAGE_ERROR)
            return 0; /* ask again */
        if (d->ErrorCode)
            return vv_error_set(e, d->ErrorCode, "Fetch %s-%d at offset %" PRId64 ": %s", m->topic,
                                part->partition, part->offset, vv_err_name(d->ErrorCode));
        struct pass pass = {part->partition, part->offset, part->offset, each, ctx};
        m->ends[i] = d->HighWatermark;
        int rc = d->Records.n > 0 ? pass_batches(d->Records.p, (size_t)d->Records.n, &pass, e) : 0;
        part->offset = pass.next;
        return rc;
    }
    return 0;
}

/* All assigned partitions of the first one's leader; with several brokers the others take their
 * turn next time. */
static int fetch(struct vv_consumer *m, int wait_ms,
                 int (*each)(void *ctx, int32_t partition, const struct vv_record *r), void *ctx,
                 struct vv_error *e)
{
    struct FetchRequest rq;
    struct FetchRequest_FetchTopic t;
    struct vv_reply r;
    if (!m->count) {
        poll(NULL, 0, VV_MIN(wait_ms, HEARTBEAT_MS));
        return 0;
    }
    struct FetchRequest_FetchPartition *p = calloc(m->count, sizeof *p);
    if (!p) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int32_t leader = m->parts[0].leader, n = 0;
    for (size_t i = 0; i < m->count; i++)
        if (m->parts[i].leader == leader) fetch_row(&p[n++], &m->parts[i], 1 << 20);
    fetch_request(&rq, &t, m->topic, p, n, wait_ms, 4 << 20);
    int rc = vv_client_call(m->c, leader, 1, &rq, &r, e);
    free(p);
    if (rc) return rc;
    const struct FetchResponse *rs = r.msg;
    for (int32_t k = 0; k < rs->Responses.n && !rc; k++)
        for (int32_t i = 0; i < rs->Responses.v[k].Partitions.n && !rc; i++)
            rc = take_partition(m, &rs->Responses.v[k].Partitions.v[i], each, ctx, e);
    vv_reply_release(&r);
    return rc;
}

int vv_consumer_poll(struct vv_consumer *m, int wait_ms,
                   int (*each)(void *ctx, int32_t partition, const struct vv_record *r), void *ctx,
                   struct vv_error *e)
{
    int rc = m->joined ? heartbeat(m, e) : join_group(m, e);
    if (rc || !m->joined) return rc;
    return fetch(m, VV_MIN(wait_ms, HEARTBEAT_MS), each, ctx, e);
}

int vv_consumer_commit(struct vv_consumer *m, struct vv_error *e)
{
    struct OffsetCommitRequest rq;
    struct OffsetCommitRequest_OffsetCommitRequestTopic t;
    struct vv_reply r;
    if (!m->joined || !m->count) return 0;
    struct OffsetCommitRequest_OffsetCommitRequestPartition *p = calloc(m->count, sizeof *p);
    if (!p) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    VV_MSG_INIT(OffsetCommitRequest, &rq);
    VV_STRUCT_INIT(OffsetCommitRequest_OffsetCommitRequestTopic, &t);
    for (size_t i = 0; i < m->count; i++) {
        VV_STRUCT_INIT(OffsetCommitRequest_OffsetCommitRequestPartition, &p[i]);
        p[i].PartitionIndex = m->parts[i].partition;
        p[i].CommittedOffset = m->parts[i].offset;
        p[i].CommittedMetadata = vv_str_c("");
    }
    t.Name = vv_str_c(m->topic);
    t.Partitions.v = p;
    t.Partitions.n = (int32_t)m->count;
    rq.GroupId = vv_str_c(m->group);
    rq.GenerationIdOrMemberEpoch = m->generation;
    rq.MemberId = vv_str_c(m->id);
    rq.Topics.v = &t;
    rq.Topics.n = 1;
    int rc = vv_client_call(m->c, m->coordinator, 8, &rq, &r, e);
    free(p);
    if (rc) return rc;
    const struct OffsetCommitResponse *rs = r.msg;
    int err = rs->Topics.n && rs->Topics.v[0].Partitions.n
                  ? rs->Topics.v[0].Partitions.v[0].ErrorCode
                  : 0;
    vv_reply_release(&r);
    return err ? handle(m, err, "OffsetCommit", e) : 0;
}

int32_t vv_consumer_partitions(const struct vv_consumer *m)
{
    return (int32_t)m->count;
}

int vv_consumer_rebalances(const struct vv_consumer *m)
{
    return m->rebalances;
}

int64_t vv_consumer_lag(const struct vv_consumer *m)
{
    int64_t lag = 0;
    for (size_t i = 0; i < m->count; i++) {
        if (m->ends[i] < 0) return INT64_MAX;
        lag += VV_MAX(m->ends[i] - m->parts[i].offset, 0);
    }
    return m->joined ? lag : INT64_MAX;
}

void vv_consumer_close(struct vv_consumer *m)
{
    if (!m) return;
    if (m->joined) {
        struct LeaveGroupRequest rq;
        struct LeaveGroupRequest_MemberIdentity who;
        struct vv_reply r;
        VV_MSG_INIT(LeaveGroupRequest, &rq);
        VV_STRUCT_INIT(LeaveGroupRequest_MemberIdentity, &who);
        who.MemberId = vv_str_c(m->id);
        rq.GroupId = vv_str_c(m->group);
        rq.Members.v = &who;
        rq.Members.n = 1;
        if (!vv_client_call(m->c, m->coordinator, 13, &rq, &r, NULL)) vv_reply_release(&r);
    }
    vv_client_close(m->c);
    free(m->parts);
    free(m->ends);
    free(m->group);
    free(m->topic);
    free(m);
}
