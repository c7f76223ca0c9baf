/* call.h — one decoded request on its way through a handler.
 *
 * dispatch.c decodes the frame (header, version check, body into the exchange's arena) and calls the handler of
 * the API table (table.c) on the connection's reactor. A handler answers exactly once, at once or later, from any
 * thread: vv_call_reply (encodes at the call's version), vv_call_drop (no response) or vv_call_close.
 * The call, the request and everything in the arena live until that moment and not longer. */
#ifndef VARVE_CALL_H
#define VARVE_CALL_H
#include "varve/net.h"
#include "varve/wire.h"

struct vv_broker;
struct vv_call {
    struct vv_exchange *x;
    struct vv_broker *broker;
    const struct vv_api *api;
    int16_t version;
    int32_t correlation;
    struct vv_str client_id;
    void *req; /* e.g. struct ProduceRequest * */
};
static inline struct vv_arena *vv_call_arena(struct vv_call *c)
{
    return &c->x->arena;
}
void vv_call_reply(struct vv_call *c, const void *response); /* struct of api->response */
/* As reply, without sending: the caller hands body to vv_exchange_reply (when it must count or add bytes first). */
int vv_call_encode(struct vv_call *c, const void *response, struct vv_chain *body);
void vv_call_drop(struct vv_call *c);
void vv_call_close(struct vv_call *c, const char *why);

/* ApiVersions at a version we lack: version 0 body, UNSUPPORTED_VERSION, key 18's range (KIP-511). */
void vv_api_versions_unsupported(struct vv_call *c);

/* One row per served API: the versions come from vv_apis[] (src/wire). An API without a handler is
 * not advertised and closes the connection as Kafka does. */
typedef void vv_handler(struct vv_call *c);
#define VV_HANDLERS(X)                                                                             \
    X(0, vv_handle_produce)                                                                        \
    X(1, vv_handle_fetch)                                                                          \
    X(2, vv_handle_list_offsets)                                                                   \
    X(3, vv_handle_metadata)                                                                       \
    X(8, vv_handle_offset_commit)                                                                  \
    X(9, vv_handle_offset_fetch)                                                                   \
    X(10, vv_handle_find_coordinator)                                                              \
    X(11, vv_handle_join_group)                                                                    \
    X(12, vv_handle_heartbeat)                                                                     \
    X(13, vv_handle_leave_group)                                                                   \
    X(14, vv_handle_sync_group)                                                                    \
    X(15, vv_handle_describe_groups)                                                               \
    X(16, vv_handle_list_groups)                                                                   \
    X(18, vv_handle_api_versions)                                                                  \
    X(19, vv_handle_create_topics)                                                                 \
    X(20, vv_handle_delete_topics)                                                                 \
    X(21, vv_handle_delete_records)                                                                \
    X(22, vv_handle_init_producer_id)                                                              \
    X(23, vv_handle_offset_for_leader_epoch)                                                       \
    X(32, vv_handle_describe_configs)                                                              \
    X(33, vv_handle_alter_configs)                                                                 \
    X(35, vv_handle_describe_log_dirs)                                                             \
    X(37, vv_handle_create_partitions)                                                             \
    X(42, vv_handle_delete_groups)                                                                 \
    X(44, vv_handle_incremental_alter_configs)                                                     \
    X(47, vv_handle_offset_delete)                                                                 \
    X(48, vv_handle_describe_client_quotas)                                                        \
    X(49, vv_handle_alter_client_quotas)                                                           \
    X(50, vv_handle_describe_user_scram_credentials)                                               \
    X(60, vv_handle_describe_cluster)
#define VV_X(key, fn) vv_handler fn;
VV_HANDLERS(VV_X)
#undef VV_X
vv_handler *vv_handler_find(int16_t key); /* NULL: not served */

/* The connection handler for vv_net_new; ctx is the broker. */
extern const struct vv_net_handler vv_api_net_handler;
#endif
