/* groups.c — the coordinator's life: table of groups, start, stop.
 *
 * A group leaves the table at once and memory when its last write ended. Stop answers whoever is parked or waits for a
 * write; close frees, after control stopped. On control else. */
#include "groups.h"
#include "varve/vlog.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- table ---- */

struct vv_group *vv_groups_find(struct vv_groups *g, struct vv_str id)
{
    struct vv_gnode *node = vv_gmap_get(&g->table, id);
    return node ? VV_CONTAINER(node, struct vv_group, node) : NULL;
}

bool vv_groups_full(struct vv_groups *g, size_t more)
{
    return g->bytes + more > VV_GROUPS_BYTES_MAX;
}

struct vv_group *vv_groups_add(struct vv_groups *g, struct vv_str id)
{
    if (vv_groups_full(g, sizeof(struct vv_group))) return NULL;
    struct vv_group *group = calloc(1, sizeof *group);
    if (!group) return NULL;
    group->groups = g;
    group->id = group->protocol_type = group->protocol = VV_STR_NULL;
    group->state_ms = -1;
    if (vv_str_own(&group->id, id) || vv_gmap_put(&g->table, &group->node, group->id)) {
        vv_str_drop(&group->id);
        free(group);
        return NULL;
    }
    g->bytes += sizeof *group + (size_t)id.n;
    return group;
}

static void group_free(struct vv_group *group)
{
    struct vv_groups *g = group->groups;
    struct vv_gcursor at = {0};
    for (struct vv_gnode *node; (node = vv_gmap_next(&group->offsets, &at));)
        vv_group_offset_free(group, VV_CONTAINER(node, struct vv_group_offset, node));
    vv_gmap_release(&group->offsets);
    vv_gmap_release(&group->members);
    vv_gmap_release(&group->instances);
    vv_gmap_release(&group->pending);
    for (int32_t i = 0; i < group->topic_count; i++) vv_str_drop(&group->topics[i]);
    free(group->topics);
    free(group->votes);
    g->bytes -= sizeof *group + (size_t)group->id.n;
    vv_str_drop(&group->id);
    vv_str_drop(&group->protocol_type);
    vv_str_drop(&group->protocol);
    free(group);
}

static void drop_pending(struct vv_group *group)
{
    struct vv_gcursor at = {0};
    for (struct vv_gnode *node; (node = vv_gmap_next(&group->pending, &at));) vv_group_pending_drop(group, node->key);
}

void vv_group_remove(struct vv_group *group)
{
    struct vv_groups *g = group->groups;
    g->ops->cancel(g->ctx, &group->join_timer);
    g->ops->cancel(g->ctx, &group->sync_timer);
    while (group->first) vv_member_remove(group->first, VV_COORDINATOR_NOT_AVAILABLE);
    drop_pending(group);
    vv_gmap_remove(&g->table, &group->node);
    group->state = VV_GROUP_DEAD;
    if (!group->writes) group_free(group);
}

void vv_group_unpin(struct vv_group *group)
{
    if (--group->writes == 0 && group->state == VV_GROUP_DEAD) group_free(group);
}

/* ---- start and end ---- */

static void expiry_fire(struct vv_timer *t)
{
    struct vv_groups *g = VV_CONTAINER(t, struct vv_groups, expiry);
    if (g->ops->time_trusted(g->ctx)) vv_groups_expire(g);
    g->ops->arm(g->ctx, t, g->ops->mono_us(g->ctx) + g->config.expiry_interval_ms * 1000);
}

int vv_groups_new(const struct vv_group_ops *ops, void *ctx, const struct vv_group_config *c, struct vv_groups **out)
{
    struct vv_groups *g = calloc(1, sizeof *g);
    uint64_t seed;
    if (!g) return VV_E_NOMEM;
    g->ops = ops;
    g->ctx = ctx;
    g->config = *c;
    g->expiry.fire = expiry_fire;
    ops->random(ctx, &seed, sizeof seed);
    vv_gmap_seed(seed);
    *out = g;
    return 0;
}

void vv_groups_started(struct vv_groups *g)
{
    struct vv_gcursor at = {0};
    for (struct vv_gnode *node; (node = vv_gmap_next(&g->table, &at));) {
        struct vv_group *group = VV_CONTAINER(node, struct vv_group, node);
        for (struct vv_group_member *m = group->first; m; m = m->next) vv_member_renew(m);
        if (group->first && group->members.count > (size_t)g->config.size_max)
            vv_group_prepare(group, "more members than the group may have");
    }
    g->ops->arm(g->ctx, &g->expiry, g->ops->mono_us(g->ctx) + g->config.expiry_interval_ms * 1000);
}

void vv_groups_stop(struct vv_groups *g)
{
    struct vv_gcursor at = {0};
    if (!g || g->stopping) return;
    g->stopping = true;
    g->ops->cancel(g->ctx, &g->expiry);
    for (struct vv_gnode *node; (node = vv_gmap_next(&g->table, &at));) {
        struct vv_group *group = VV_CONTAINER(node, struct vv_group, node);
        g->ops->cancel(g->ctx, &group->join_timer);
        g->ops->cancel(g->ctx, &group->sync_timer);
        drop_pending(group);
        for (struct vv_group_member *m = group->first; m; m = m->next) {
            struct vv_group_call *join = vv_member_unpark(m), *sync = m->sync;
            m->sync = NULL;
            g->ops->cancel(g->ctx, &m->session);
            if (join) vv_group_answer_join_error(join, m->id, VV_COORDINATOR_NOT_AVAILABLE);
            if (sync) vv_group_answer_sync_error(sync, VV_COORDINATOR_NOT_AVAILABLE);
        }
    }
    /* Commits under way: the answer may be wrong, the client then commits once more. */
    for (struct vv_group_write *w = g->writes; w; w = w->next) {
        g->ops->cancel(g->ctx, &w->timeout);
        if (!w->reported && w->report && w->call) w->report(w, VV_COORDINATOR_NOT_AVAILABLE);
        w->reported = true;
        w->call = NULL;
    }
}

static void no_cancel(void *ctx, struct vv_timer *t)
{
    (void)ctx;
    (void)t;
}

void vv_groups_close(struct vv_groups *g)
{
    struct vv_gcursor at = {0};
    if (!g) return;
    struct vv_group_ops ops = *g->ops; /* nothing fires any more, and this is not control's thread */
    ops.cancel = no_cancel;
    g->ops = &ops;
    for (struct vv_gnode *node; (node = vv_gmap_next(&g->table, &at));)
        vv_group_remove(VV_CONTAINER(node, struct vv_group, node));
    /* A write whose append has not ended is left alone: its disk flush may still touch it. The process ends soon. */
    vv_gmap_release(&g->table);
    if (ops.release) ops.release(g->ctx);
    free(g);
}
