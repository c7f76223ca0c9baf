/* group_admin.c — ListGroups, DescribeGroups, DeleteGroups: what administrators ask. On control. */
#include "groups.h"
#include "varve/vlog.h"

#include <ctype.h>
#include <stdlib.h>

/* Without an authorizer everything there is may be done: READ, DELETE, DESCRIBE. */
#define GROUP_OPERATIONS (1 << 3 | 1 << 6 | 1 << 8)

/* ---- ListGroups ---- */

static bool same_word(struct vv_str a, const char *b)
{
    if (a.n != (int32_t)strlen(b)) return false;
    for (int32_t i = 0; i < a.n; i++)
        if (tolower((unsigned char)a.p[i]) != tolower((unsigned char)b[i])) return false;
    return true;
}

static bool passes(const struct vv_str *v, int32_t n, const char *word)
{
    for (int32_t i = 0; i < n; i++)
        if (same_word(v[i], word)) return true;
    return n <= 0;
}

void vv_groups_list(struct vv_groups *g, struct vv_group_call *c)
{
    const struct ListGroupsRequest *r = c->req;
    struct ListGroupsResponse response;
    struct vv_gcursor at = {0};
    VV_MSG_INIT(ListGroupsResponse, &response);
    if (g->stopping)
        response.ErrorCode = VV_COORDINATOR_NOT_AVAILABLE;
    else if (VV_ARRAY_NEW(response.Groups, ListGroupsResponse_ListedGroup, c->arena, g->table.count))
        response.ErrorCode = VV_UNKNOWN_SERVER_ERROR;
    int32_t n = 0;
    for (struct vv_gnode *node; !response.ErrorCode && (node = vv_gmap_next(&g->table, &at));) {
        struct vv_group *group = VV_CONTAINER(node, struct vv_group, node);
        const char *state = vv_group_state_name(group->state);
        if (!passes(r->StatesFilter.v, r->StatesFilter.n, state)) continue;
        if (!passes(r->TypesFilter.v, r->TypesFilter.n, "classic")) continue;
        struct ListGroupsResponse_ListedGroup *told = &response.Groups.v[n++];
        told->GroupId = group->id;
        told->ProtocolType = group->protocol_type.n < 0 ? VV_STR_LIT("") : group->protocol_type;
        told->GroupState = vv_str_c(state);
        told->GroupType = VV_STR_LIT("classic");
    }
    response.Groups.n = n;
    c->done(c, &response);
}

/* ---- DescribeGroups ---- */

static int describe_members(struct vv_group *group, struct vv_group_call *c,
                            struct DescribeGroupsResponse_DescribedGroup *told)
{
    bool stable = group->state == VV_GROUP_STABLE;
    if (VV_ARRAY_NEW(told->Members, DescribeGroupsResponse_DescribedGroupMember, c->arena, group->members.count))
        return VV_UNKNOWN_SERVER_ERROR;
    struct DescribeGroupsResponse_DescribedGroupMember *to = told->Members.v;
    for (struct vv_group_member *m = group->first; m; m = m->next, to++) {
        to->MemberId = m->id;
        to->GroupInstanceId = m->instance;
        to->ClientId = m->client_id;
        to->ClientHost = m->client_host;
        if (!stable) continue; /* between generations it means nothing */
        to->MemberMetadata = vv_member_metadata(m, group->protocol);
        to->MemberAssignment = m->assignment;
    }
    return 0;
}

static void describe(struct vv_groups *g, struct vv_group_call *c, struct vv_str id,
                     struct DescribeGroupsResponse_DescribedGroup *told)
{
    const struct DescribeGroupsRequest *r = c->req;
    struct vv_group *group = vv_groups_find(g, id);
    told->GroupId = id;
    told->GroupState = told->ProtocolType = told->ProtocolData = VV_STR_LIT("");
    if (r->IncludeAuthorizedOperations) told->AuthorizedOperations = GROUP_OPERATIONS;
    if (g->stopping) {
        told->ErrorCode = VV_COORDINATOR_NOT_AVAILABLE;
        return;
    }
    if (!group) {
        told->GroupState = VV_STR_LIT("Dead");
        if (c->version < 6) return;
        told->ErrorCode = VV_GROUP_ID_NOT_FOUND;
        char *text = vv_arena_printf(c->arena, "Group %.*s not found.", VV_MAX(id.n, 0), id.n > 0 ? id.p : "");
        told->ErrorMessage = vv_str_c(text);
        return;
    }
    told->GroupState = vv_str_c(vv_group_state_name(group->state));
    if (group->protocol_type.n >= 0) told->ProtocolType = group->protocol_type;
    if (group->state == VV_GROUP_STABLE && group->protocol.n >= 0) told->ProtocolData = group->protocol;
    told->ErrorCode = (int16_t)describe_members(group, c, told);
}

void vv_groups_describe(struct vv_groups *g, struct vv_group_call *c)
{
    const struct DescribeGroupsRequest *r = c->req;
    struct DescribeGroupsResponse response;
    VV_MSG_INIT(DescribeGroupsResponse, &response);
    if (!VV_ARRAY_NEW(response.Groups, DescribeGroupsResponse_DescribedGroup, c->arena, VV_MAX(r->Groups.n, 0)))
        for (int32_t i = 0; i < response.Groups.n; i++) describe(g, c, r->Groups.v[i], &response.Groups.v[i]);
    c->done(c, &response);
}

/* ---- DeleteGroups ---- */

struct deletion {
    struct vv_group_call *c;
    int32_t open; /* writes that have not been reported, and one for the request itself */
    struct DeleteGroupsResponse response;
};

static void deletion_step(struct deletion *d)
{
    if (--d->open == 0) d->c->done(d->c, &d->response);
}

static void group_deleted(struct vv_group_write *w, int err)
{
    struct deletion *d = w->response;
    if (!w->call) return;
    d->response.Results.v[w->index].ErrorCode = (int16_t)err;
    deletion_step(d);
}

static bool is_any(void *ctx, const struct vv_group_offset *o)
{
    (void)ctx;
    (void)o;
    return true;
}

static int delete_one(struct vv_groups *g, struct deletion *d, struct vv_str id, int32_t index)
{
    if (g->stopping) return VV_COORDINATOR_NOT_AVAILABLE;
    if (id.n <= 0) return VV_INVALID_GROUP_ID;
    struct vv_group *group = vv_groups_find(g, id);
    if (!group) return VV_GROUP_ID_NOT_FOUND;
    if (group->state != VV_GROUP_EMPTY) return VV_NON_EMPTY_GROUP;
    struct vv_group_drop drop = {.pick = is_any, .with_group = true, .report = group_deleted, .call = d->c,
                                 .response = d, .index = index};
    bool wrote;
    d->open++; /* report may come before this returns */
    int err = vv_group_offsets_drop(group, &drop, &wrote);
    if (err || !wrote) d->open--;
    if (err) return vv_group_write_error(err);
    VLOG_INFO("group %s: deleted", group->id.p);
    vv_group_remove(group);
    return 0;
}

void vv_groups_delete(struct vv_groups *g, struct vv_group_call *c)
{
    const struct DeleteGroupsRequest *r = c->req;
    struct deletion *d = vv_arena_alloc(c->arena, sizeof *d), none;
    struct deletion *to = d ? d : &none;
    VV_MSG_INIT(DeleteGroupsResponse, &to->response);
    to->c = c;
    to->open = 1;
    int32_t n = d ? VV_MAX(r->GroupsNames.n, 0) : 0;
    if (VV_ARRAY_NEW(to->response.Results, DeleteGroupsResponse_DeletableGroupResult, c->arena, n)) n = 0;
    for (int32_t i = 0; i < n; i++) {
        to->response.Results.v[i].GroupId = r->GroupsNames.v[i];
        int err = delete_one(g, to, r->GroupsNames.v[i], i);
        if (err) to->response.Results.v[i].ErrorCode = (int16_t)err;
    }
    deletion_step(to);
}
