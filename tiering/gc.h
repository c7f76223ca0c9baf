/* gc.h — collects what is in a partition's two prefixes and part of no log: gc.c tells how it is proven. */
#ifndef VARVE_TIERING_GC_H
#define VARVE_TIERING_GC_H
#include "keys.h"

struct vv_tier;
struct vv_tier_part;
struct vv_gc {
    int64_t due_us;         /* mu; monotonic; INT64_MAX = never */
    char after[VV_KEY_MAX]; /* the pass goes on behind this key; "" = begins */
    bool pages;             /* its second half: manifest pages */
    uint64_t listed;        /* keys seen in this pass */
};

void vv_gc_begin(struct vv_tier_part *p);                      /* a part opens */
bool vv_gc_due(const struct vv_tier_part *p, int64_t now_us);  /* mu held */
/* One page of the listing and what it proves, under the keeping mark. 1, or an error: the pass goes on from there. [blocking] */
int vv_gc_step(struct vv_tier_part *p, struct vv_error *e);
/* Uploads in parts that nobody will finish. [blocking] */
bool vv_gc_uploads_due(const struct vv_tier *t, int64_t now_us);
int vv_gc_uploads(struct vv_tier *t, struct vv_error *e);
#endif
