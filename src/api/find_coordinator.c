/* find_coordinator.c — FindCoordinator: this broker looks after every group. Transactions and share groups are not
 * served: their ids are refused with what clients take for final. On reactors. */
#include "broker.h"
#include "call.h"
#include "groups.h"

enum { KEY_GROUP = 0, KEY_TRANSACTION = 1 };

struct found {
    int16_t error;
    const char *text;
    int32_t node;
    const char *host;
    int port;
};

static struct found find(struct vv_call *c, int8_t type, struct vv_str key)
{
    struct found f = {.node = -1, .host = "", .port = -1};
    if (type == KEY_TRANSACTION) {
        f.error = VV_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        f.text = "transactions are not supported by this broker: produce without transactional.id";
    } else if (type != KEY_GROUP) {
        f.error = VV_INVALID_REQUEST;
        f.text = "only groups have a coordinator here";
    } else if (key.n <= 0 || key.n > VV_GROUP_ID_MAX) {
        f.error = VV_INVALID_GROUP_ID;
        f.text = key.n <= 0 ? "the group id is empty" : "the group id is too long";
    } else if (!atomic_load(&c->broker->groups_ready)) {
        f.error = VV_COORDINATOR_NOT_AVAILABLE;
        f.text = "the partitions are still being brought back from the bucket";
    } else {
        f.node = c->broker->node_id;
        vv_broker_endpoint(c->broker, vv_conn_listener(c->x->conn), &f.host, &f.port);
    }
    return f;
}

void vv_handle_find_coordinator(struct vv_call *c)
{
    const struct FindCoordinatorRequest *r = c->req;
    struct FindCoordinatorResponse response;
    VV_MSG_INIT(FindCoordinatorResponse, &response);
    if (c->version < 4) {
        struct found f = find(c, r->KeyType, r->Key);
        response.ErrorCode = f.error;
        response.ErrorMessage = vv_str_c(f.text);
        response.NodeId = f.node;
        response.Host = vv_str_c(f.host);
        response.Port = f.port;
    } else if (VV_ARRAY_NEW(response.Coordinators, FindCoordinatorResponse_Coordinator, vv_call_arena(c),
                            VV_MAX(r->CoordinatorKeys.n, 0))) {
        vv_call_close(c, "the request leaves no room to answer it");
        return;
    }
    for (int32_t i = 0; i < response.Coordinators.n; i++) {
        struct FindCoordinatorResponse_Coordinator *told = &response.Coordinators.v[i];
        struct found f = find(c, r->KeyType, r->CoordinatorKeys.v[i]);
        told->Key = r->CoordinatorKeys.v[i];
        told->ErrorCode = f.error;
        told->ErrorMessage = vv_str_c(f.text);
        told->NodeId = f.node;
        told->Host = vv_str_c(f.host);
        told->Port = f.port;
    }
    vv_call_reply(c, &response);
}
