/* groups.c — the APIs of group members and of their administrators: each is one step to the coordinator on control.
 *
 * The request, its arena and the coordinator's call live with the exchange until the reply. The reply is encoded and
 * sent on control. Handlers run on reactors. */
#include "groups_calls.h"

struct group_exchange {
    struct vv_group_call gc;
    struct vv_call *call;
    void (*go)(struct vv_groups *g, struct vv_group_call *gc);
};

static void run(struct vv_task *t)
{
    struct group_exchange *x = VV_CONTAINER(t, struct group_exchange, gc.task);
    if (!atomic_load(&x->call->broker->groups_ready)) { /* who asks FindCoordinator first knows that there is none yet */
        vv_call_close(x->call, "the groups have no coordinator yet");
        return;
    }
    x->go(x->call->broker->groups, &x->gc);
}

static void done(struct vv_group_call *gc, const void *response)
{
    struct group_exchange *x = VV_CONTAINER(gc, struct group_exchange, gc);
    vv_call_reply(x->call, response);
}

/* "/127.0.0.1", as Kafka's tools show a member's host. */
static const char *host_of(struct vv_call *c)
{
    const char *peer = vv_conn_peer(c->x->conn), *colon = strrchr(peer, ':');
    size_t n = colon ? (size_t)(colon - peer) : strlen(peer);
    if (n > 1 && peer[0] == '[' && peer[n - 1] == ']') {
        peer++;
        n -= 2;
    }
    return vv_arena_printf(vv_call_arena(c), "/%.*s", (int)n, peer);
}

void vv_group_call_post(struct vv_call *c, void (*go)(struct vv_groups *g, struct vv_group_call *gc))
{
    struct group_exchange *x = vv_arena_alloc(vv_call_arena(c), sizeof *x);
    if (!x) {
        vv_call_close(c, "the request leaves no room to answer it");
        return;
    }
    x->gc = (struct vv_group_call){.req = c->req,
                                   .version = c->version,
                                   .arena = vv_call_arena(c),
                                   .client_id = c->client_id,
                                   .client_host = host_of(c),
                                   .done = done};
    x->gc.task.run = run;
    x->call = c;
    x->go = go;
    vv_broker_control_post(c->broker, &x->gc.task);
}

void vv_handle_join_group(struct vv_call *c)
{
    vv_group_call_post(c, vv_groups_join);
}

void vv_handle_sync_group(struct vv_call *c)
{
    vv_group_call_post(c, vv_groups_sync);
}

void vv_handle_heartbeat(struct vv_call *c)
{
    vv_group_call_post(c, vv_groups_heartbeat);
}

void vv_handle_leave_group(struct vv_call *c)
{
    vv_group_call_post(c, vv_groups_leave);
}

void vv_handle_offset_commit(struct vv_call *c)
{
    vv_group_call_post(c, vv_groups_commit);
}

void vv_handle_offset_fetch(struct vv_call *c)
{
    vv_group_call_post(c, vv_groups_fetch);
}

void vv_handle_offset_delete(struct vv_call *c)
{
    vv_group_call_post(c, vv_groups_offset_delete);
}

void vv_handle_list_groups(struct vv_call *c)
{
    vv_group_call_post(c, vv_groups_list);
}

void vv_handle_describe_groups(struct vv_call *c)
{
    vv_group_call_post(c, vv_groups_describe);
}

void vv_handle_delete_groups(struct vv_call *c)
{
    vv_group_call_post(c, vv_groups_delete);
}
