/* configs.h — changing a topic's overrides: the pure part, apart from requests and threads. */
#ifndef VARVE_API_CONFIGS_H
#define VARVE_API_CONFIGS_H
#include "broker.h"

enum vv_config_op { VV_CONFIG_SET, VV_CONFIG_DELETE, VV_CONFIG_APPEND, VV_CONFIG_SUBTRACT };
struct vv_config_change {
    const char *key, *value;
    int op; /* as it came: unknown ones are refused */
};
/* A list after an APPEND or SUBTRACT; NULL when the arena is full. */
char *vv_list_change(struct vv_arena *arena, const char *list, const struct vv_config_change *ch);
/* A full set of overrides under change; lives in the arena. */
struct vv_overrides {
    struct vv_arena *arena;
    struct vv_kv *v;
    size_t n, cap;
};
/* Copies what is set now, with room for `more` keys. E_LIMIT: the arena is full. */
int vv_overrides_begin(struct vv_overrides *o, struct vv_arena *arena, const struct vv_kv *now, size_t n, size_t more);
/* Applies one change: 0, or INVALID_REQUEST, INVALID_CONFIG with *e as Kafka words it. What an entry of a list is added
 * to or taken from is the value in force: the override, else the broker's. */
int vv_overrides_apply(struct vv_overrides *o, const struct vv_config_change *ch, const struct vv_broker_config *broker,
                       bool internal, struct vv_error *e);
#endif
