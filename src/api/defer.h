/* defer.h — what the admin handlers share: going to another thread and back, texts that live as long as the call,
 * duplicates.
 *
 * Changes of topics run on `control`, blocking disk work on the iopool; the handler replies from there. Everything is
 * in the call's arena: nothing here is freed, and nothing may be used after the reply. */
#ifndef VARVE_API_DEFER_H
#define VARVE_API_DEFER_H
#include "call.h"
#include "broker.h"

typedef void vv_deferred(struct vv_call *c);
void vv_call_on_control(struct vv_call *c, vv_deferred *run);
void vv_call_on_iopool(struct vv_call *c, vv_deferred *run);

/* NUL-terminated copy. NULL for a null string, and when the arena is full (*full). */
char *vv_call_text(struct vv_call *c, struct vv_str s, bool *full);
struct vv_str vv_call_str(struct vv_call *c, const char *text, bool *full); /* copy; NULL stays null */
/* An error as a response carries it: the code, and its text (null when there is none). */
int16_t vv_call_error(struct vv_call *c, int err, const struct vv_error *e, struct vv_str *message, bool *full);
bool vv_str_has_nul(struct vv_str s);

/* Names the broker keeps for itself. */
bool vv_internal_topic_name(struct vv_str name);

/* For each of n items: is there another one with the same name? at(ctx, i) gives names; a null one is no duplicate. */
struct vv_str_at {
    struct vv_str name;
    int32_t i;
};
/* NULL when the arena is full. */
bool *vv_call_duplicates(struct vv_call *c, struct vv_str (*at)(const void *ctx, int32_t i), const void *ctx,
                         int32_t n);
/* A manual assignment of one partition: only this broker, once. INVALID_REPLICA_ASSIGNMENT otherwise. */
int vv_check_replicas(const struct vv_broker *b, const int32_t *ids, int32_t n, struct vv_error *e);
#endif
