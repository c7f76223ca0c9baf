/* quota_set.h — which clients have which quotas (KIP-546): entities, their limits, which of them holds for a client.
 *
 * An entity is a user, a client id, or both; either may be the default. The set is sorted by entity; whoever changes
 * it changes a copy. Pure; a set that nobody changes may be read by any thread. */
#ifndef VARVE_BROKER_QUOTA_SET_H
#define VARVE_BROKER_QUOTA_SET_H
#include "varve/error.h"
#include "varve/wire.h"

#include <jansson.h>

/* X(id, "name as Kafka's tools call it", "label of metrics") */
#define VV_QUOTA_KEYS(X)                                                                                               \
    X(PRODUCE, "producer_byte_rate", "produce")                                                                        \
    X(FETCH, "consumer_byte_rate", "fetch")                                                                            \
    X(REMOTE, "remote_consumer_byte_rate", "remote_fetch")
enum vv_quota_kind {
#define VV_X(id, name, label) VV_QUOTA_##id,
    VV_QUOTA_KEYS(VV_X)
#undef VV_X
    VV_QUOTA_KINDS
};
extern const char *const vv_quota_names[VV_QUOTA_KINDS];
int vv_quota_kind_of(struct vv_str name); /* -1: none of ours */

#define VV_QUOTA_ENTITIES_MAX 10000
struct vv_quota_entity {
    bool has_user, has_client;
    struct vv_str user, client; /* null: the default; owned when in a set */
};
struct vv_quota_entry {
    struct vv_quota_entity entity;
    double limit[VV_QUOTA_KINDS]; /* 0: none */
};
struct vv_quota_set { /* {0} is empty */
    struct vv_quota_entry *v;
    size_t n, cap;
};

int vv_quota_set_copy(const struct vv_quota_set *from, struct vv_quota_set *to); /* E_NOMEM: *to is empty */
void vv_quota_set_release(struct vv_quota_set *s);
/* Sets (limit > 0) or removes (0) one quota; an entity without quotas goes. E_NOMEM, E_LIMIT. */
int vv_quota_set_put(struct vv_quota_set *s, const struct vv_quota_entity *e, enum vv_quota_kind kind, double limit);

/* The limit that holds for a client of a user, 0 when there is none; *who is whose use is counted together for it: the
 * user's, the client id's, or both. Kafka's precedence. */
double vv_quota_set_find(const struct vv_quota_set *s, struct vv_str user, struct vv_str client,
                         enum vv_quota_kind kind, struct vv_quota_entity *who);

json_t *vv_quota_set_json(const struct vv_quota_set *s); /* NULL: out of memory */
int vv_quota_set_load(struct vv_quota_set *s, json_t *list); /* skips what it does not understand, with a warning */
#endif
