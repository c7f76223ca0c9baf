/* group_join.c — JoinGroup: who may come in, under which id, and whether that means a rebalance.
 *
 * Dynamic members from version 4 on get a member id first and come back with it (KIP-394). A static member that comes
 * back takes its old place over under a new id; in a stable group whose protocol stays the same nobody else notices
 * (KIP-345). A request that names a new group is checked before the group is made. On control. */
#include "groups.h"

#include <stdio.h>
#include <stdlib.h>

void vv_group_answer_join_error(struct vv_group_call *c, struct vv_str member, int err)
{
    struct JoinGroupResponse r;
    VV_MSG_INIT(JoinGroupResponse, &r);
    r.ErrorCode = (int16_t)vv_err_kafka(err);
    r.MemberId = member;
    r.Leader = VV_STR_LIT("");
    r.ProtocolName = c->version >= 7 ? VV_STR_NULL : VV_STR_LIT("");
    c->done(c, &r);
}

/* <client or instance id>-<random uuid>, as Kafka forms them: tools show it. */
static struct vv_str make_member_id(struct vv_groups *g, struct vv_group_call *c, const struct JoinGroupRequest *r)
{
    uint8_t b[16];
    struct vv_str who = r->GroupInstanceId.n >= 0 ? r->GroupInstanceId : c->client_id;
    int32_t n = VV_MIN(VV_MAX(who.n, 0), VV_GROUP_ID_MAX);
    char *p = vv_arena_alloc(c->arena, (size_t)n + 38);
    if (!p) return VV_STR_NULL;
    if (n) memcpy(p, who.p, (size_t)n);
    g->ops->random(g->ctx, b, sizeof b);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(p + n, 38, "-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return (struct vv_str){p, n + 37};
}

static int32_t rebalance_ms(const struct JoinGroupRequest *r)
{
    return r->RebalanceTimeoutMs < 0 ? r->SessionTimeoutMs : r->RebalanceTimeoutMs; /* version 0 has none */
}

static int take_protocols(struct vv_group_member *m, const struct JoinGroupRequest *r)
{
    struct vv_group_protocol v[VV_GROUP_PROTOCOLS_MAX];
    for (int32_t i = 0; i < r->Protocols.n; i++) {
        v[i].name = r->Protocols.v[i].Name;
        v[i].metadata = r->Protocols.v[i].Metadata;
    }
    return vv_member_set_protocols(m, v, r->Protocols.n);
}

static void update_member(struct vv_group_member *m, struct vv_group_call *c, const char *why)
{
    const struct JoinGroupRequest *r = c->req;
    if (take_protocols(m, r)) {
        vv_group_answer_join_error(c, m->id, VV_COORDINATOR_NOT_AVAILABLE);
        return;
    }
    m->rebalance_ms = rebalance_ms(r);
    m->session_ms = r->SessionTimeoutMs;
    vv_member_park(m, c);
    vv_group_rebalance(m->group, why);
}

static void add_member(struct vv_group *group, struct vv_group_call *c, struct vv_str id)
{
    const struct JoinGroupRequest *r = c->req;
    struct vv_groups *g = group->groups;
    struct vv_group_member *m = vv_member_new(group, id, r->GroupInstanceId, c->client_id, c->client_host);
    int err = m ? take_protocols(m, r) : VV_E_NOMEM;
    if (!err && !group->first) err = vv_str_own(&group->protocol_type, r->ProtocolType);
    if (m && err) vv_member_discard(m);
    if (!err) err = vv_member_add(m);
    if (err) {
        vv_group_answer_join_error(c, VV_STR_LIT(""), VV_COORDINATOR_NOT_AVAILABLE);
        return;
    }
    m->rebalance_ms = rebalance_ms(r);
    m->session_ms = r->SessionTimeoutMs;
    m->is_new = true;
    if (group->state == VV_GROUP_PREPARING && group->previous == VV_GROUP_EMPTY) group->new_member_added = true;
    vv_member_park(m, c);
    g->ops->arm(g->ctx, &m->session, g->ops->mono_us(g->ctx) + (int64_t)VV_GROUP_JOIN_TIMEOUT_MS * 1000);
    vv_group_rebalance(group, "a new member");
}

/* ---- a static member comes back under a new id ---- */

static void replaced_stored(struct vv_group_write *w, int err)
{
    struct vv_group *group = w->group;
    struct vv_group_member *m = vv_group_member(group, w->member);
    if (!m || !m->join || m->join != w->call) return; /* answered by what happened since */
    if (err) { /* nobody heard of the new id: it may join again */
        struct vv_group_call *c = vv_member_unpark(m);
        vv_group_answer_join_error(c, VV_STR_LIT(""), err);
        return;
    }
    if (group->state != VV_GROUP_STABLE || group->generation != w->generation) return; /* part of that rebalance now */
    const bool leads = m == group->leader, can_skip = w->call->version >= 9;
    struct vv_group_call *c = vv_member_unpark(m);
    vv_member_renew(m);
    /* Before version 9 a returning leader is told its old id leads, or it would assign: no rebalance is under way. */
    struct vv_str leader = leads && !can_skip ? vv_str_c((const char *)w->response) : group->leader->id;
    vv_group_answer_joined(m, c, leads && can_skip, leader, leads && can_skip);
}

static int store_replaced(struct vv_group_member *m, struct vv_group_call *c, struct vv_str old_id)
{
    struct vv_group_write *w;
    int err = vv_group_store(m->group, false, &w);
    if (err) return err;
    w->report = replaced_stored;
    w->call = c;
    w->generation = m->group->generation;
    w->response = vv_arena_strdup(c->arena, old_id.p, (size_t)old_id.n);
    if (!w->response || vv_str_own(&w->member, m->id)) {
        vv_group_write_free(w);
        return VV_E_NOMEM;
    }
    return vv_group_write_submit(w);
}

static void replace_static(struct vv_group_member *m, struct vv_group_call *c, struct vv_str id)
{
    const struct JoinGroupRequest *r = c->req;
    struct vv_group *group = m->group;
    struct vv_str old_id = {vv_arena_strdup(c->arena, m->id.p, (size_t)m->id.n), m->id.n};
    struct vv_group_call *join = vv_member_unpark(m), *sync = m->sync;
    m->sync = NULL;
    if (join) vv_group_answer_join_error(join, m->id, VV_FENCED_INSTANCE_ID);
    if (sync) vv_group_answer_sync_error(sync, VV_FENCED_INSTANCE_ID);
    if (!old_id.p || take_protocols(m, r) || vv_member_rename(m, id)) {
        vv_group_answer_join_error(c, VV_STR_LIT(""), VV_COORDINATOR_NOT_AVAILABLE);
        return;
    }
    m->rebalance_ms = rebalance_ms(r);
    m->session_ms = r->SessionTimeoutMs;
    vv_member_renew(m);
    vv_member_park(m, c);
    if (group->state == VV_GROUP_STABLE && vv_str_eq(vv_group_select_protocol(group), group->protocol)) {
        int err = store_replaced(m, c, old_id);
        if (err && m->join == c) {
            vv_member_unpark(m);
            vv_group_answer_join_error(c, VV_STR_LIT(""), vv_group_write_error(err));
        }
        return;
    }
    vv_group_rebalance(group, "a static member came back");
}

/* ---- the request ---- */

/* KIP-394's bound, as Kafka counts it: in a rebalance those that came, else those that are in. */
static bool has_room(struct vv_group *group, struct vv_str id)
{
    int32_t max = group->groups->config.size_max;
    struct vv_group_member *m = vv_group_member(group, id);
    switch (group->state) {
    case VV_GROUP_PREPARING: return (m && m->join) || group->awaiting_join < max;
    case VV_GROUP_COMPLETING:
    case VV_GROUP_STABLE: return m || (int64_t)group->members.count < max;
    default: return true;
    }
}

static void join_new(struct vv_group *group, struct vv_group_call *c)
{
    const struct JoinGroupRequest *r = c->req;
    if (!vv_group_supports(group, r)) {
        vv_group_answer_join_error(c, VV_STR_LIT(""), VV_INCONSISTENT_GROUP_PROTOCOL);
        return;
    }
    struct vv_str id = make_member_id(group->groups, c, r);
    if (id.n < 0) {
        vv_group_answer_join_error(c, VV_STR_LIT(""), VV_COORDINATOR_NOT_AVAILABLE);
        return;
    }
    if (r->GroupInstanceId.n >= 0) {
        struct vv_group_member *m = vv_group_instance(group, r->GroupInstanceId);
        if (m)
            replace_static(m, c, id);
        else
            add_member(group, c, id);
    } else if (c->version >= 4) {
        int err = vv_group_pending_add(group, id, r->SessionTimeoutMs);
        vv_group_answer_join_error(c, err ? VV_STR_LIT("") : id,
                                   err ? VV_COORDINATOR_NOT_AVAILABLE : VV_MEMBER_ID_REQUIRED);
    } else {
        add_member(group, c, id);
    }
}

static void answer_current(struct vv_group_member *m, struct vv_group_call *c)
{
    struct vv_group *group = m->group;
    bool members = group->state == VV_GROUP_COMPLETING && m == group->leader;
    vv_group_answer_joined(m, c, members, group->leader->id, false);
}

static void join_again(struct vv_group *group, struct vv_group_call *c)
{
    const struct JoinGroupRequest *r = c->req;
    if (!vv_group_supports(group, r)) {
        vv_group_answer_join_error(c, r->MemberId, VV_INCONSISTENT_GROUP_PROTOCOL);
        return;
    }
    if (r->GroupInstanceId.n < 0 && vv_gmap_get(&group->pending, r->MemberId)) {
        add_member(group, c, r->MemberId);
        return;
    }
    struct vv_group_member *m;
    int err = vv_group_check_member(group, r->MemberId, r->GroupInstanceId, &m);
    if (!err && group->state == VV_GROUP_EMPTY) err = VV_UNKNOWN_MEMBER_ID;
    if (err) {
        vv_group_answer_join_error(c, r->MemberId, err);
        return;
    }
    bool same = vv_member_matches(m, r);
    if (group->state == VV_GROUP_PREPARING)
        update_member(m, c, "a member came back");
    else if (group->state == VV_GROUP_STABLE && m == group->leader)
        update_member(m, c, "the leader asks for a rebalance");
    else if (!same)
        update_member(m, c, "a member's subscription changed");
    else
        answer_current(m, c); /* it may not have got our first answer */
}

static int check_join(struct vv_groups *g, const struct JoinGroupRequest *r)
{
    if (g->stopping) return VV_COORDINATOR_NOT_AVAILABLE;
    if (r->GroupId.n <= 0 || r->GroupId.n > VV_GROUP_ID_MAX) return VV_INVALID_GROUP_ID;
    if (r->SessionTimeoutMs < g->config.session_min_ms || r->SessionTimeoutMs > g->config.session_max_ms)
        return VV_INVALID_SESSION_TIMEOUT;
    if (r->GroupInstanceId.n > VV_GROUP_ID_MAX || r->ProtocolType.n > VV_GROUP_ID_MAX) return VV_INVALID_REQUEST;
    if (r->Protocols.n > VV_GROUP_PROTOCOLS_MAX) return VV_INCONSISTENT_GROUP_PROTOCOL;
    size_t bytes = 0;
    for (int32_t i = 0; i < r->Protocols.n; i++)
        bytes += (size_t)VV_MAX(r->Protocols.v[i].Metadata.n, 0) + (size_t)r->Protocols.v[i].Name.n;
    if (bytes > (size_t)g->config.batch_max) return VV_INVALID_REQUEST; /* its group could never be stored */
    return vv_groups_full(g, bytes) ? VV_GROUP_MAX_SIZE_REACHED : 0;
}

void vv_groups_join(struct vv_groups *g, struct vv_group_call *c)
{
    const struct JoinGroupRequest *r = c->req;
    bool fresh = r->MemberId.n <= 0;
    int err = check_join(g, r);
    struct vv_group *group = err ? NULL : vv_groups_find(g, r->GroupId);
    if (!err && !group && !fresh) err = VV_UNKNOWN_MEMBER_ID;
    if (!err && !group && !(r->ProtocolType.n > 0 && r->Protocols.n > 0)) err = VV_INCONSISTENT_GROUP_PROTOCOL;
    if (!err && !group) {
        group = vv_groups_add(g, r->GroupId);
        if (!group) err = VV_COORDINATOR_NOT_AVAILABLE;
    }
    if (err) {
        vv_group_answer_join_error(c, r->MemberId, err);
        return;
    }
    if (!has_room(group, r->MemberId)) {
        struct vv_group_member *m = vv_group_member(group, r->MemberId);
        if (m) vv_member_remove(m, VV_UNKNOWN_MEMBER_ID);
        vv_group_pending_drop(group, r->MemberId);
        vv_group_answer_join_error(c, VV_STR_LIT(""), VV_GROUP_MAX_SIZE_REACHED);
        return;
    }
    if (fresh)
        join_new(group, c);
    else
        join_again(group, c);
}
