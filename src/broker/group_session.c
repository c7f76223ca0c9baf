/* group_session.c — SyncGroup, Heartbeat, LeaveGroup: what members say between two joins. On control. */
#include "groups.h"
#include "varve/vlog.h"

#include <stdlib.h>

/* ---- SyncGroup ---- */

void vv_group_answer_sync_error(struct vv_group_call *c, int err)
{
    struct SyncGroupResponse r;
    VV_MSG_INIT(SyncGroupResponse, &r);
    r.ErrorCode = (int16_t)vv_err_kafka(err);
    c->done(c, &r);
}

static void answer_assignment(struct vv_group_member *m, struct vv_group_call *c)
{
    struct SyncGroupResponse r;
    VV_MSG_INIT(SyncGroupResponse, &r);
    r.ProtocolType = m->group->protocol_type;
    r.ProtocolName = m->group->protocol;
    r.Assignment = m->assignment;
    c->done(c, &r);
}

static void assignment_stored(struct vv_group_write *w, int err)
{
    struct vv_group *group = w->group;
    if (group->state != VV_GROUP_COMPLETING || group->generation != w->generation) return; /* overtaken */
    group->storing = false;
    if (err) {
        vv_group_propagate(group, err);
        vv_group_rebalance(group, "the assignment could not be stored");
        return;
    }
    for (struct vv_group_member *m = group->first; m; m = m->next) {
        vv_bytes_drop(&m->assignment);
        m->assignment = m->staged;
        m->staged = (struct vv_bytes){NULL, 0};
    }
    vv_group_transition(group, VV_GROUP_STABLE);
    vv_group_propagate(group, 0);
}

static int store_assignment(struct vv_group *group, const struct SyncGroupRequest *r)
{
    size_t bytes = 0;
    for (int32_t i = 0; i < r->Assignments.n; i++) bytes += (size_t)VV_MAX(r->Assignments.v[i].Assignment.n, 0);
    if (bytes > (size_t)group->groups->config.batch_max) return VV_MESSAGE_TOO_LARGE;
    for (struct vv_group_member *m = group->first; m; m = m->next) vv_bytes_drop(&m->staged);
    for (int32_t i = 0; i < r->Assignments.n; i++) {
        struct vv_group_member *m = vv_group_member(group, r->Assignments.v[i].MemberId);
        if (m && vv_bytes_own(&m->staged, r->Assignments.v[i].Assignment)) return VV_E_NOMEM;
    }
    struct vv_group_write *w;
    int err = vv_group_store(group, true, &w);
    if (err) return err;
    w->report = assignment_stored;
    w->generation = group->generation;
    return vv_group_write_submit(w);
}

static void sync_completing(struct vv_group_member *m, struct vv_group_call *c)
{
    struct vv_group *group = m->group;
    struct vv_group_call *old = m->sync;
    m->sync = c;
    if (old) vv_group_answer_sync_error(old, VV_REBALANCE_IN_PROGRESS); /* its client gave up on it */
    vv_group_sync_received(m);
    if (m != group->leader || group->storing) return;
    group->storing = true;
    int err = store_assignment(group, c->req);
    if (!err) return;
    VLOG_WARN("group %s: the assignment was not stored: %s", group->id.p, vv_err_name(err));
    group->storing = false;
    vv_group_propagate(group, vv_group_write_error(err));
    vv_group_rebalance(group, "the assignment could not be stored");
}

static bool differ(struct vv_str asked, struct vv_str is)
{
    return asked.n >= 0 && is.n >= 0 && !vv_str_eq(asked, is);
}

void vv_groups_sync(struct vv_groups *g, struct vv_group_call *c)
{
    const struct SyncGroupRequest *r = c->req;
    struct vv_group_member *m = NULL;
    int err = g->stopping ? VV_COORDINATOR_NOT_AVAILABLE : r->GroupId.n <= 0 ? VV_INVALID_GROUP_ID : 0;
    struct vv_group *group = err ? NULL : vv_groups_find(g, r->GroupId);
    if (!err && !group) err = VV_UNKNOWN_MEMBER_ID;
    if (!err) err = vv_group_check_member(group, r->MemberId, r->GroupInstanceId, &m);
    if (!err && r->GenerationId != group->generation) err = VV_ILLEGAL_GENERATION;
    if (!err && (differ(r->ProtocolType, group->protocol_type) || differ(r->ProtocolName, group->protocol)))
        err = VV_INCONSISTENT_GROUP_PROTOCOL;
    if (!err && group->state == VV_GROUP_EMPTY) err = VV_UNKNOWN_MEMBER_ID;
    if (!err && group->state == VV_GROUP_PREPARING) err = VV_REBALANCE_IN_PROGRESS;
    if (err) {
        vv_group_answer_sync_error(c, err);
        return;
    }
    if (group->state == VV_GROUP_COMPLETING) {
        sync_completing(m, c);
        return;
    }
    vv_group_sync_received(m);
    vv_member_renew(m);
    answer_assignment(m, c);
}

/* ---- Heartbeat ---- */

void vv_groups_heartbeat(struct vv_groups *g, struct vv_group_call *c)
{
    const struct HeartbeatRequest *r = c->req;
    struct vv_group_member *m = NULL;
    int err = g->stopping ? VV_COORDINATOR_NOT_AVAILABLE : r->GroupId.n <= 0 ? VV_INVALID_GROUP_ID : 0;
    struct vv_group *group = err ? NULL : vv_groups_find(g, r->GroupId);
    if (!err && !group) err = VV_UNKNOWN_MEMBER_ID;
    if (!err) err = vv_group_check_member(group, r->MemberId, r->GroupInstanceId, &m);
    if (!err && r->GenerationId != group->generation) err = VV_ILLEGAL_GENERATION;
    if (!err && group->state == VV_GROUP_EMPTY) err = VV_UNKNOWN_MEMBER_ID;
    if (!err) {
        vv_member_renew(m);
        if (group->state == VV_GROUP_PREPARING) err = VV_REBALANCE_IN_PROGRESS;
    }
    struct HeartbeatResponse response;
    VV_MSG_INIT(HeartbeatResponse, &response);
    response.ErrorCode = (int16_t)err;
    c->done(c, &response);
}

/* ---- LeaveGroup ---- */

/* One of the leaving: 0 or its error. *left: it was a member, not only a member id given out. */
static int leave_one(struct vv_group *group, struct vv_str id, struct vv_str instance)
{
    struct vv_group_member *m = NULL;
    int err = 0;
    if (id.n <= 0) { /* an administrator names the instance only */
        m = vv_group_instance(group, instance);
        if (!m) return VV_UNKNOWN_MEMBER_ID;
    } else if (vv_group_pending_drop(group, id)) {
        return 0;
    } else {
        err = vv_group_check_member(group, id, instance, &m);
    }
    if (err) return err;
    VLOG_INFO("group %s: member %s leaves", group->id.p, m->id.p);
    vv_member_remove(m, VV_UNKNOWN_MEMBER_ID);
    return 0;
}

void vv_groups_leave(struct vv_groups *g, struct vv_group_call *c)
{
    const struct LeaveGroupRequest *r = c->req;
    struct LeaveGroupRequest_MemberIdentity one = {.MemberId = r->MemberId, .GroupInstanceId = VV_STR_NULL};
    const struct LeaveGroupRequest_MemberIdentity *v = c->version < 3 ? &one : r->Members.v;
    int32_t n = c->version < 3 ? 1 : VV_MAX(r->Members.n, 0), good = 0;
    struct LeaveGroupResponse response;
    VV_MSG_INIT(LeaveGroupResponse, &response);
    int err = g->stopping ? VV_COORDINATOR_NOT_AVAILABLE : r->GroupId.n <= 0 ? VV_INVALID_GROUP_ID : 0;
    if (!err && VV_ARRAY_NEW(response.Members, LeaveGroupResponse_MemberResponse, c->arena, n))
        err = VV_UNKNOWN_SERVER_ERROR;
    struct vv_group *group = err ? NULL : vv_groups_find(g, r->GroupId);
    for (int32_t i = 0; i < n && !err; i++) {
        int code = group ? leave_one(group, v[i].MemberId, v[i].GroupInstanceId) : VV_UNKNOWN_MEMBER_ID;
        response.Members.v[i].MemberId = v[i].MemberId;
        response.Members.v[i].GroupInstanceId = v[i].GroupInstanceId;
        response.Members.v[i].ErrorCode = (int16_t)code;
        if (!code) good++;
    }
    if (good) vv_group_member_left(group, "members left");
    if (c->version < 3) {
        if (!err) err = response.Members.v[0].ErrorCode;
        response.Members.n = 0;
    }
    response.ErrorCode = (int16_t)err;
    c->done(c, &response);
}
