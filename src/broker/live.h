/* live.h — the broker's configuration as it is altered while it runs (KIP-226), and the clients' quotas.
 *
 * Alterations are kept in the registry's file (topics_file.c, "broker_configs", "quotas"), so they survive a restart and travel
 * with the bucket's snapshot. Precedence: this broker's, all brokers', the files', the default. Threads: control, or
 * the main thread before it runs; what other threads need of it is in struct vv_live_values. */
#ifndef VARVE_BROKER_LIVE_H
#define VARVE_BROKER_LIVE_H
#include "broker.h"
#include "quota.h"

#include <jansson.h>

/* The configuration in force. On control. */
const struct vv_broker_config *vv_broker_live(const struct vv_broker *b);

struct vv_live_change {
    const char *key, *value; /* value NULL: not altered any more */
};
/* Applies all changes or none; durable and in force before it returns. replace: what is altered in this scope and not
 * named goes back. Errors as Kafka words them. */
int vv_live_alter(struct vv_broker *b, enum vv_alter_scope scope, const struct vv_live_change *v, size_t n,
                  bool replace, bool validate_only, struct vv_error *e);

/* The client quotas from now on: durable and in force before it returns. *set is taken over (and emptied). */
int vv_live_set_quotas(struct vv_broker *b, struct vv_quota_set *set, struct vv_error *e);

/* The registry's member and back. Loading skips, with a warning, what is not understood any more. */
json_t *vv_live_json(struct vv_broker *b, const struct vv_broker_config *config); /* NULL: out of memory */
int vv_live_load(struct vv_broker *b, json_t *altered);
int vv_live_load_quotas(struct vv_broker *b, json_t *list);
/* Puts the configuration in force everywhere: at start after the registry was loaded. */
void vv_live_apply(struct vv_broker *b);
void vv_live_free(struct vv_broker *b);
#endif
