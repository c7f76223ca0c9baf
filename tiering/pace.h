/* pace.h — background work that copies objects: how it waits, stops, keeps to tier.hydrate.max.bytes.per.second, and copies several at a time.
 *
 * A part is held by its `copying` count (tier->mu), which vv_tier_part_close waits for: pacing gives up when that part is closing, when the
 * claim is lost, or on stop.
 * A round is what is copied at the same time: small objects many at a time, because each of them mostly waits for the store; big ones few, so that
 * memory stays bounded, and less the less bandwidth there is to share. It ends when its last object has; what it holds is given back object by
 * object. Whoever filled it then looks at the results in the order in which it was filled.
 * Threads: a round is its owner's; while it runs, each item is one thread's. */
#ifndef VARVE_TIERING_PACE_H
#define VARVE_TIERING_PACE_H
#include "tier_impl.h"

#define VV_ROUND_MAX   16
#define VV_ROUND_BYTES ((uint64_t)64 << 20)

struct vv_pace {
    struct vv_tier *t;
    pthread_mutex_t mu;  /* of what follows */
    pthread_cond_t wake; /* monotonic */
    bool stop;
    int64_t paid_us;     /* the bandwidth up to this time is spent */
};
void vv_pace_init(struct vv_pace *p, struct vv_tier *t);
void vv_pace_release(struct vv_pace *p);
void vv_pace_stop(struct vv_pace *p);                 /* any thread */
bool vv_pace_wait(struct vv_pace *p, int64_t us);     /* false: stop now */

struct vv_paced { /* who copies */
    struct vv_pace *pace;
    struct vv_tier_part *part; /* held; NULL: none */
};
bool vv_pace_go_on(void *paced, size_t bytes);        /* as copy.h wants it */
bool vv_pace_hold(struct vv_tier_part *part);         /* tier->mu held; false: it is closing */
void vv_pace_give_back(struct vv_tier_part *part);    /* NULL is fine */

struct vv_round_item {
    struct vv_paced paced;
    struct vv_uuid topic_id;
    int32_t partition;
    struct vv_extent x;
    int64_t from; /* the owner's: where it looked for x */
    int result;
    bool lost; /* hydration: the source has it no more */
    struct vv_error e;
};
struct vv_round {
    struct vv_pace *pace;
    struct vv_round_item v[VV_ROUND_MAX];
    size_t n;
    uint64_t bytes, bytes_max;
};
void vv_round_begin(struct vv_round *r, struct vv_pace *p); /* empty */
bool vv_round_full(const struct vv_round *r);
/* hold: the part is held by the caller, and is until this call's item is done too. */
struct vv_round_item *vv_round_add(struct vv_round *r, struct vv_tier_part *part, bool hold, const struct vv_extent *x);
void vv_round_run(struct vv_round *r, void (*one)(void *ctx, struct vv_round_item *i), void *ctx);
#endif
