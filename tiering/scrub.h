/* scrub.h — looks over time at every closed segment, on the disk and in the bucket: scrub.c. */
#ifndef VARVE_TIERING_SCRUB_H
#define VARVE_TIERING_SCRUB_H
#include "varve/bytes.h"
#include "varve/error.h"

#include <stdatomic.h>
#include <stdbool.h>

struct vv_tier;
struct vv_scrub { /* the scrubbing thread's (or vv_tier_step's), but for the counters */
    struct vv_uuid topic_id; /* the pass goes on at or behind this partition … */
    int32_t partition;
    int64_t base;            /* … and this offset */
    int64_t began_ms;        /* wall, of this pass; 0 = none is under way */
    int64_t saved_us;        /* monotonic: when that was written down last */
    int64_t after_us;        /* monotonic: back-off, the store is away */
    int64_t tokens_us[2];    /* budget: monotonic time up to which bytes are spent; local, remote */
    bool loaded;
    _Atomic uint64_t bytes[2], damages, mended, passes;
    _Atomic int64_t last_pass_ms;
};

/* One segment. 1: looked at one, or a pass ended; 0: nothing is due or the budget is spent. [blocking] */
int vv_scrub_step(struct vv_tier *t);
void vv_scrub_save(struct vv_tier *t); /* where it is, beside the data */
#endif
