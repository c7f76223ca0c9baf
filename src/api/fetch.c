/* fetch.c — Fetch: which partitions, may they be read, when is there enough to answer.
 *
 * An operation (fetch.h) is resolved, read once, and answered at once when it has min_bytes, an error, or nothing to
 * wait for. Else it parks: a waiter on each partition, a timer for max_wait. Whoever appends posts the operation's task
 * to this reactor, which reads on where it stopped. A fetch that waits for the bucket and has nothing else to say waits
 * at least remote.fetch.max.wait.ms; then it answers without and the download goes on for the next one. Threads: the
 * connection's reactor. */
#include "fetch.h"

enum { IDS_SINCE = 13, REPLICA_STATE_SINCE = 15, READ_COMMITTED = 1 };

/* ---- end ---- */

static void try_reply(struct fetch_op *op)
{
    if (op->ended && !op->pending && !atomic_load(&op->task.queued)) vv_fetch_reply(op);
}

/* Idempotent: reads under way are cut short, the last of them answers. */
static void end(struct fetch_op *op)
{
    if (op->ended) return;
    op->ended = true;
    vv_timer_cancel(op->c->x->reactor, &op->timer);
    for (int32_t i = 0; i < op->part_count; i++) {
        struct fetch_part *part = &op->parts[i];
        if (part->partition) vv_partition_unwait(part->partition, &part->waiter);
        if (part->pending == FETCH_REMOTE) vv_tier_read_cancel(&part->io->remote);
    }
    try_reply(op);
}

static void conn_closed(struct vv_exchange *x)
{
    end(x->user);
}

/* ---- quotas ---- */

int64_t vv_fetch_quota(struct fetch_op *op, enum vv_quota_kind kind, uint64_t n)
{
    int64_t now_ms = vv_reactor_now_us(op->c->x->reactor) / 1000;
    return vv_quota_record(op->c->broker->quotas, kind, op->c->client_id, n, now_ms);
}

/* ---- waiting ---- */

static bool satisfied(const struct fetch_op *op, int64_t now_us)
{
    const struct FetchRequest *q = op->c->req;
    if (op->failed || !op->part_count) return true;
    if (op->bytes >= q->MinBytes && (op->bytes || !op->pending)) return true;
    if (!op->pending && now_us >= op->due_us) return true;
    if (op->pending) return false;
    for (int32_t i = 0; i < op->part_count; i++)
        if (!op->parts[i].stuck || op->parts[i].held) return false;
    return true; /* nothing can be added before the client has taken what there is */
}

static void step(struct fetch_op *op, bool held_too);

static void expire(struct vv_timer *t)
{
    struct fetch_op *op = VV_CONTAINER(t, struct fetch_op, timer);
    int64_t now = vv_reactor_now_us(op->c->x->reactor);
    if (op->held_until_us && now < op->due_us) {
        op->held_until_us = 0;
        step(op, true);
    } else if (op->cold_pending && !op->bytes && now < op->cold_due_us)
        vv_timer_arm(op->c->x->reactor, t, op->cold_due_us);
    else
        end(op);
}

static bool idle(const struct fetch_part *part)
{
    return part->partition && part->pending == FETCH_IDLE && !part->err && !part->diverging;
}

static void look(struct fetch_part *part, bool held_too)
{
    if (!idle(part) || (part->held && !held_too)) return;
    if (atomic_load(&part->topic->deleted)) {
        vv_fetch_fail(part, part->op->by_id ? VV_UNKNOWN_TOPIC_ID : VV_UNKNOWN_TOPIC_OR_PARTITION, NULL);
        return;
    }
    if (part->held || vv_fetch_limit(part) > part->seen_limit) vv_fetch_advance(part);
}

static bool park(struct fetch_op *op)
{
    bool moved = false;
    for (int32_t i = 0; i < op->part_count; i++) {
        struct fetch_part *part = &op->parts[i];
        if (!idle(part)) continue;
        vv_partition_wait(part->partition, &part->waiter);
        moved |= (!part->held && vv_fetch_limit(part) > part->seen_limit) || atomic_load(&part->topic->deleted);
    }
    return !moved;
}

/* held_too: what waits for the quota of cold reads asks for it again. */
static void step(struct fetch_op *op, bool held_too)
{
    struct vv_reactor *r = op->c->x->reactor;
    do {
        op->hungry = -1;
        for (int32_t i = 0; i < op->part_count; i++) look(&op->parts[(op->first + i) % op->part_count], held_too);
        held_too = false;
        /* A broker that stops wakes everybody: what there is goes out now. */
        if (satisfied(op, vv_reactor_now_us(r)) || atomic_load(&op->c->broker->stopping)) {
            end(op);
            return;
        }
    } while (!park(op));
    int64_t next_us = op->held_until_us ? VV_MIN(op->held_until_us, op->due_us) : op->due_us;
    if (!op->timer.slot || next_us < op->timer.due_us) vv_timer_arm(r, &op->timer, next_us);
}

static void moved(struct vv_task *t)
{
    struct fetch_op *op = VV_CONTAINER(t, struct fetch_op, task);
    if (op->ended)
        try_reply(op);
    else
        step(op, false);
}

static void read_ended(struct vv_task *t)
{
    struct fetch_part *part = VV_CONTAINER(t, struct fetch_part, task);
    struct fetch_op *op = part->op;
    vv_fetch_take(part);
    if (op->ended)
        try_reply(op);
    else
        step(op, false);
}

/* ---- may it be read ---- */

static int check_epochs(struct fetch_part *part)
{
    const struct FetchRequest_FetchPartition *q = &part->q;
    int32_t ours = vv_partition_epoch(part->partition), epoch = -1;
    int64_t log_end = -1;
    if (q->CurrentLeaderEpoch >= 0 && q->CurrentLeaderEpoch < ours) return VV_FENCED_LEADER_EPOCH;
    if (q->CurrentLeaderEpoch > ours) return VV_UNKNOWN_LEADER_EPOCH;
    if (q->LastFetchedEpoch < 0) return 0;
    vv_log_epoch_end(part->partition->log, q->LastFetchedEpoch, &epoch, &log_end);
    if (epoch < 0 || log_end < 0) return VV_OFFSET_OUT_OF_RANGE;
    if (epoch < q->LastFetchedEpoch || log_end < q->FetchOffset) {
        part->diverging = true;
        part->diverges = (struct FetchResponse_EpochEndOffset){epoch, log_end};
        part->op->failed = true; /* told at once */
    }
    return 0;
}

static int check(struct fetch_part *part)
{
    struct fetch_op *op = part->op;
    struct vv_topic *t = part->topic;
    if (!t || atomic_load(&t->deleted)) return op->by_id ? VV_UNKNOWN_TOPIC_ID : VV_UNKNOWN_TOPIC_OR_PARTITION;
    part->partition = vv_topic_partition(t, part->q.Partition);
    if (!part->partition) return vv_topic_absent(t, part->q.Partition);
    if (op->follower) return VV_NOT_LEADER_OR_FOLLOWER; /* no broker is a replica of ours */
    int err = check_epochs(part);
    if (err) return err;
    if (part->q.FetchOffset < vv_partition_log_start(part->partition)) return VV_OFFSET_OUT_OF_RANGE;
    return part->q.FetchOffset > vv_partition_end(part->partition) ? VV_OFFSET_OUT_OF_RANGE : 0;
}

static struct vv_topic *topic_of(struct fetch_op *op, int32_t i)
{
    const struct fetch_part *part = &op->parts[i], *before = i ? &op->parts[i - 1] : NULL;
    if (before && before->topic &&
        (op->by_id ? vv_uuid_eq(part->topic_id, before->topic_id) : vv_str_eq(part->topic_name, before->topic_name))) {
        atomic_fetch_add(&before->topic->refs, 1);
        return before->topic;
    }
    struct vv_topics *topics = op->c->broker->topics;
    return op->by_id ? vv_topics_get_id(topics, part->topic_id)
                     : vv_topics_get(topics, part->topic_name.p, (size_t)VV_MAX(part->topic_name.n, 0));
}

static void resolve(struct fetch_op *op)
{
    for (int32_t i = 0; i < op->part_count; i++) {
        struct fetch_part *part = &op->parts[i];
        part->op = op;
        part->next = part->q.FetchOffset;
        part->seen_limit = -1;
        part->left = VV_MAX(part->q.PartitionMaxBytes, 0);
        part->task.run = read_ended;
        part->waiter.reactor = op->c->x->reactor;
        part->waiter.task = &op->task;
        part->topic = topic_of(op, i);
        int err = check(part);
        if (err) {
            part->err = err;
            op->failed = true;
        }
    }
}

/* ---- which partitions ---- */

static int parts_of_request(struct fetch_op *op, const struct FetchRequest *q)
{
    size_t n = 0;
    for (int32_t i = 0; i < q->Topics.n; i++) n += (size_t)VV_MAX(q->Topics.v[i].Partitions.n, 0);
    op->parts = vv_arena_alloc(vv_call_arena(op->c), (n + 1) * sizeof *op->parts);
    if (!op->parts) return vv_arena_err(vv_call_arena(op->c));
    for (int32_t i = 0; i < q->Topics.n; i++) {
        const struct FetchRequest_FetchTopic *t = &q->Topics.v[i];
        for (int32_t k = 0; k < t->Partitions.n; k++)
            op->parts[op->part_count++] =
                (struct fetch_part){.topic_name = t->Topic, .topic_id = t->TopicId, .q = t->Partitions.v[k]};
    }
    return 0;
}

static int parts_of_session(struct fetch_op *op)
{
    size_t n = vv_fetch_session_count(op->session);
    op->parts = vv_arena_alloc(vv_call_arena(op->c), (n + 1) * sizeof *op->parts);
    if (!op->parts) return VV_E_LIMIT;
    for (struct vv_session_part *s = vv_fetch_session_first(op->session); s; s = s->next)
        op->parts[op->part_count++] =
            (struct fetch_part){.topic_name = {s->name, s->name_n}, .topic_id = s->id, .q = s->q, .cached = s};
    return 0;
}

/* With this much waiting for slow readers, everybody's next answer is a small one. */
#define UNSENT_MANY    (512ull << 20)
#define LEFT_WHEN_MANY (1 << 20)
/* What is read from local segments and sent at once costs half the CPU where it fits into the processor's cache (bench/README.md,
 * R5). A client that is near may as well ask again; not one that waits for more than that. */
#define HOT_NEAR_BYTES (1 << 20)
#define HOT_MIN_BYTES  (64 << 10)

static void refuse(struct vv_call *c, int err)
{
    struct FetchResponse r;
    VV_MSG_INIT(FetchResponse, &r);
    r.ErrorCode = (int16_t)err;
    vv_call_reply(c, &r);
}

static void set_limits(struct fetch_op *op, const struct FetchRequest *q)
{
    struct vv_call *c = op->c;
    int64_t now = vv_reactor_now_us(c->x->reactor), wait = VV_MAX(q->MaxWaitMs, 0);
    int32_t cold_wait = atomic_load_explicit(&c->broker->values.remote_fetch_max_wait_ms, memory_order_relaxed);
    int64_t cold = VV_MAX(wait, cold_wait);
    int32_t replica = c->version >= REPLICA_STATE_SINCE ? q->ReplicaState.ReplicaId : q->ReplicaId;
    op->due_us = now + wait * 1000;
    op->cold_due_us = now + cold * 1000;
    op->left = VV_MAX(0, VV_MIN(q->MaxBytes, c->broker->config->fetch_max_bytes));
    op->left = VV_MIN(op->left, vv_quota_burst(c->broker->quotas, VV_QUOTA_FETCH, c->client_id));
    if (vv_net_unsent(c->broker->net) > UNSENT_MANY) op->left = VV_MIN(op->left, LEFT_WHEN_MANY);
    bool small = q->MinBytes <= HOT_MIN_BYTES && vv_conn_near(c->x->conn);
    op->hot_max = small ? HOT_NEAR_BYTES : INT64_MAX;
    /* Who has no session and always asks in the same order must not meet the first partition's records only: its own limit is larger. */
    if (small && !op->session && op->left >= HOT_NEAR_BYTES) op->first = (int32_t)((uint32_t)c->correlation % (uint32_t)VV_MAX(op->part_count, 1));
    vv_exchange_reserve(c->x, (size_t)op->left);
    op->committed = q->IsolationLevel == READ_COMMITTED;
    op->follower = replica >= 0;
    op->prewarm = q->Prewarm && !op->session;
    op->timer.fire = expire;
    op->task.run = moved;
}

void vv_handle_fetch(struct vv_call *c)
{
    const struct FetchRequest *q = c->req;
    struct fetch_op *op = vv_arena_alloc(vv_call_arena(c), sizeof *op);
    if (!op) {
        vv_call_close(c, "its Fetch does not fit into memory");
        return;
    }
    op->c = c;
    op->by_id = c->version >= IDS_SINCE;
    size_t slots = (size_t)c->broker->config->max_incremental_fetch_session_cache_slots;
    int err = vv_fetch_session_begin(q, op->by_id, slots, vv_mono_ms(c->broker->env), &op->session);
    if (err) {
        refuse(c, err);
        return;
    }
    if (op->session ? parts_of_session(op) : parts_of_request(op, q)) {
        if (op->session) vv_fetch_session_end(op->session);
        vv_call_close(c, "its Fetch does not fit into memory");
        return;
    }
    set_limits(op, q);
    resolve(op);
    c->x->user = op;
    c->x->on_conn_closed = conn_closed;
    if (vv_fetch_quota(op, VV_QUOTA_FETCH, 0))
        end(op); /* above its quota already, by another connection: an empty answer says how long to wait */
    else
        step(op, false);
}
