/* pace.h — a background thread that copies objects: how it waits, stops, and keeps to tier.hydrate.max.bytes.per.second.
 *
 * The thread holds one part at a time by its `copying` mark (tier->mu), which vv_tier_part_close waits for: pacing gives up when that part is
 * closing, when the claim is lost, or on stop. `mu` guards stop alone; the rest is the thread's. */
#ifndef VARVE_TIERING_PACE_H
#define VARVE_TIERING_PACE_H
#include "tier_impl.h"

struct vv_pace {
    struct vv_tier *t;
    pthread_mutex_t mu;
    pthread_cond_t wake; /* monotonic */
    bool stop;
    int64_t paid_us;     /* the bandwidth up to this time is spent */
    struct vv_tier_part *part; /* held now; NULL: none */
};
void vv_pace_init(struct vv_pace *p, struct vv_tier *t);
void vv_pace_release(struct vv_pace *p);
void vv_pace_stop(struct vv_pace *p);                 /* any thread */
bool vv_pace_wait(struct vv_pace *p, int64_t us);     /* false: stop now */
bool vv_pace_go_on(void *pace, size_t bytes);         /* as copy.h wants it */
bool vv_pace_hold(struct vv_pace *p, struct vv_tier_part *part); /* tier->mu held; false: it is closing */
void vv_pace_give_back(struct vv_pace *p);
#endif
