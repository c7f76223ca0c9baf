/* group_rebalance.c — the state machine of a group: begin a rebalance, wait for the members, make a generation, expire.
 *
 * Follows Kafka's coordinator step by step: an empty group waits group.initial.rebalance.delay.ms, and again while more
 * members come, at most the rebalance timeout; any other one waits for all its members to rejoin, at most the rebalance
 * timeout, then goes on without the dynamic ones that did not. Members that owe a SyncGroup are out after another
 * rebalance timeout. On control. */
#include "groups.h"
#include "varve/vlog.h"

static const char *const state_names[] = {"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"};

const char *vv_group_state_name(enum vv_group_state s)
{
    return state_names[s];
}

static void complete_join(struct vv_group *group);

static void arm_in(struct vv_group *group, struct vv_timer *t, int64_t ms)
{
    struct vv_groups *g = group->groups;
    g->ops->arm(g->ctx, t, g->ops->mono_us(g->ctx) + ms * 1000);
}

static void disarm(struct vv_group *group, struct vv_timer *t)
{
    group->groups->ops->cancel(group->groups->ctx, t);
}

void vv_group_transition(struct vv_group *group, enum vv_group_state s)
{
    group->previous = group->state;
    group->state = s;
    group->state_ms = group->groups->ops->wall_ms(group->groups->ctx);
}

/* ---- sessions ---- */

void vv_member_renew(struct vv_group_member *m)
{
    arm_in(m->group, &m->session, m->session_ms);
}

void vv_group_member_left(struct vv_group *group, const char *why)
{
    if (group->state == VV_GROUP_STABLE || group->state == VV_GROUP_COMPLETING)
        vv_group_rebalance(group, why);
    else if (group->state == VV_GROUP_PREPARING)
        vv_group_maybe_complete_join(group);
}

void vv_member_session_fire(struct vv_timer *t)
{
    struct vv_group_member *m = VV_CONTAINER(t, struct vv_group_member, session);
    struct vv_group *group = m->group;
    struct vv_groups *g = group->groups;
    if (!m->is_new && (m->join || m->sync)) { /* it waits for us: that is a sign of life */
        vv_member_renew(m);
        return;
    }
    /* Late ourselves (a stalled disk, a stopped process): its heartbeats may lie unread in front of us. */
    int64_t late_ms = (g->ops->mono_us(g->ctx) - t->due_us) / 1000;
    if (late_ms > 1000) {
        arm_in(group, t, VV_MIN(late_ms, (int64_t)m->session_ms));
        return;
    }
    VLOG_INFO("group %s: member %s is gone (no heartbeat for %d ms)", group->id.p, m->id.p, m->session_ms);
    vv_member_remove(m, VV_UNKNOWN_MEMBER_ID);
    vv_group_member_left(group, "a member's session ended");
}

void vv_group_pending_fire(struct vv_timer *t)
{
    struct vv_group_pending *p = VV_CONTAINER(t, struct vv_group_pending, timer);
    struct vv_group *group = p->group;
    vv_group_pending_drop(group, p->by_id.key);
    if (group->state == VV_GROUP_PREPARING) vv_group_maybe_complete_join(group);
}

/* ---- sync ---- */

static bool all_synced(const struct vv_group *group)
{
    for (const struct vv_group_member *m = group->first; m; m = m->next)
        if (m->pending_sync) return false;
    return true;
}

void vv_group_sync_received(struct vv_group_member *m)
{
    bool owed = m->pending_sync;
    m->pending_sync = false;
    if (owed && all_synced(m->group)) disarm(m->group, &m->group->sync_timer);
}

static void sync_overdue(struct vv_timer *t)
{
    struct vv_group *group = VV_CONTAINER(t, struct vv_group, sync_timer);
    if (group->state != VV_GROUP_COMPLETING && group->state != VV_GROUP_STABLE) return;
    int gone = 0;
    for (struct vv_group_member *m = group->first, *next; m; m = next) {
        next = m->next;
        if (!m->pending_sync) continue;
        vv_member_remove(m, VV_UNKNOWN_MEMBER_ID);
        gone++;
    }
    if (gone) vv_group_prepare(group, "members did not ask for their assignment");
}

void vv_group_propagate(struct vv_group *group, int err)
{
    struct SyncGroupResponse r;
    for (struct vv_group_member *m = group->first, *next; m; m = next) {
        next = m->next;
        if (err) vv_bytes_drop(&m->assignment);
        struct vv_group_call *c = m->sync;
        if (!c) continue;
        m->sync = NULL;
        vv_member_renew(m);
        if (err) {
            vv_group_answer_sync_error(c, err);
            continue;
        }
        VV_MSG_INIT(SyncGroupResponse, &r);
        r.ProtocolType = group->protocol_type;
        r.ProtocolName = group->protocol;
        r.Assignment = m->assignment;
        c->done(c, &r);
    }
}

/* ---- join ---- */

static bool all_joined(const struct vv_group *group)
{
    return (size_t)group->awaiting_join == group->members.count && !group->pending.count;
}

static void join_due(struct vv_timer *t)
{
    struct vv_group *group = VV_CONTAINER(t, struct vv_group, join_timer);
    if (group->state != VV_GROUP_PREPARING) return;
    if (group->previous == VV_GROUP_EMPTY && group->new_member_added && group->initial_left_ms > 0) {
        group->new_member_added = false;
        int32_t delay = VV_MIN(group->groups->config.initial_delay_ms, group->initial_left_ms);
        group->initial_left_ms = VV_MAX(group->initial_left_ms - group->initial_delay_ms, 0);
        group->initial_delay_ms = delay;
        arm_in(group, t, delay);
        return;
    }
    complete_join(group);
}

void vv_group_prepare(struct vv_group *group, const char *why)
{
    if (group->state == VV_GROUP_COMPLETING) vv_group_propagate(group, VV_REBALANCE_IN_PROGRESS);
    disarm(group, &group->sync_timer);
    for (struct vv_group_member *m = group->first; m; m = m->next) m->pending_sync = false;
    bool initial = group->state == VV_GROUP_EMPTY;
    VLOG_INFO("group %s: rebalance after generation %d: %s", group->id.p, group->generation, why);
    vv_group_transition(group, VV_GROUP_PREPARING);
    group->join_timer.fire = join_due;
    group->sync_timer.fire = sync_overdue;
    group->storing = false;
    if (!initial) {
        if (all_joined(group))
            complete_join(group);
        else
            arm_in(group, &group->join_timer, vv_group_rebalance_ms(group));
        return;
    }
    group->new_member_added = false;
    group->initial_delay_ms = group->groups->config.initial_delay_ms;
    group->initial_left_ms = VV_MAX(vv_group_rebalance_ms(group) - group->initial_delay_ms, 0);
    arm_in(group, &group->join_timer, group->initial_delay_ms);
}

void vv_group_maybe_complete_join(struct vv_group *group)
{
    if (group->state == VV_GROUP_PREPARING && group->previous != VV_GROUP_EMPTY && all_joined(group))
        complete_join(group);
}

void vv_group_rebalance(struct vv_group *group, const char *why)
{
    if (group->state == VV_GROUP_PREPARING)
        vv_group_maybe_complete_join(group);
    else
        vv_group_prepare(group, why);
}

static void empty_stored(struct vv_group_write *w, int err)
{
    if (err) VLOG_WARN("group %s: its empty state was not stored: %s", w->group->id.p, vv_err_name(err));
}

static void store_empty(struct vv_group *group)
{
    struct vv_group_write *w;
    int err = vv_group_store(group, false, &w);
    if (!err) {
        w->report = empty_stored;
        err = vv_group_write_submit(w);
    }
    if (err) VLOG_WARN("group %s: its empty state was not stored: %s", group->id.p, vv_err_name(err));
}

void vv_group_answer_joined(struct vv_group_member *m, struct vv_group_call *c, bool with_members, struct vv_str leader,
                            bool skip_assignment)
{
    struct vv_group *group = m->group;
    struct JoinGroupResponse r;
    VV_MSG_INIT(JoinGroupResponse, &r);
    r.GenerationId = group->generation;
    r.ProtocolType = group->protocol_type;
    r.ProtocolName = group->protocol;
    r.Leader = leader;
    r.MemberId = m->id;
    r.SkipAssignment = skip_assignment;
    if (with_members) {
        if (VV_ARRAY_NEW(r.Members, JoinGroupResponse_JoinGroupResponseMember, c->arena, group->members.count)) {
            vv_group_answer_join_error(c, m->id, VV_UNKNOWN_SERVER_ERROR);
            return;
        }
        int32_t i = 0;
        for (struct vv_group_member *k = group->first; k; k = k->next, i++) {
            r.Members.v[i].MemberId = k->id;
            r.Members.v[i].GroupInstanceId = k->instance;
            r.Members.v[i].Metadata = vv_member_metadata(k, group->protocol);
        }
    }
    c->done(c, &r);
}

/* The leader must be one that is here to assign. False: nobody is. */
static bool elect_leader(struct vv_group *group)
{
    if (group->leader && group->leader->join) return true;
    for (struct vv_group_member *m = group->first; m; m = m->next)
        if (m->join) {
            group->leader = m;
            return true;
        }
    return false;
}

static void begin_generation(struct vv_group *group)
{
    group->generation = group->generation == INT32_MAX ? 1 : group->generation + 1;
    for (struct vv_group_member *m = group->first; m; m = m->next) vv_bytes_drop(&m->staged);
    struct vv_str chosen = group->first ? vv_group_select_protocol(group) : VV_STR_NULL;
    if (vv_str_own(&group->protocol, chosen)) vv_str_drop(&group->protocol);
    vv_group_transition(group, group->first ? VV_GROUP_COMPLETING : VV_GROUP_EMPTY);
    vv_group_find_topics(group);
}

static void complete_join(struct vv_group *group)
{
    disarm(group, &group->join_timer);
    for (struct vv_group_member *m = group->first, *next; m; m = next) {
        next = m->next;
        if (m->join || m->instance.n >= 0) continue;
        VLOG_INFO("group %s: member %s is gone (did not rejoin)", group->id.p, m->id.p);
        vv_member_remove(m, VV_UNKNOWN_MEMBER_ID);
    }
    if (group->first && !elect_leader(group)) { /* only static members, none back yet: until their sessions end */
        arm_in(group, &group->join_timer, vv_group_rebalance_ms(group));
        return;
    }
    begin_generation(group);
    if (!group->first) {
        VLOG_INFO("group %s: generation %d is empty", group->id.p, group->generation);
        store_empty(group);
        return;
    }
    VLOG_INFO("group %s: generation %d, %zu members, protocol %s, leader %s", group->id.p, group->generation,
              group->members.count, group->protocol.p ? group->protocol.p : "-", group->leader->id.p);
    arm_in(group, &group->sync_timer, vv_group_rebalance_ms(group));
    for (struct vv_group_member *m = group->first; m; m = m->next) {
        vv_member_renew(m);
        m->is_new = false;
        m->pending_sync = true;
    }
    for (struct vv_group_member *m = group->first, *next; m; m = next) {
        next = m->next;
        struct vv_group_call *c = vv_member_unpark(m);
        if (c) vv_group_answer_joined(m, c, m == group->leader, group->leader->id, false);
    }
}
