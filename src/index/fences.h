/* fences.h — what stays in memory of a paged-out history: one fence per page of the extent file, sorted, and a tree of maxima
 * over their times, so that "the first page from here on with a time >= t" is O(log n).
 *
 * All extents of a page are in one state: REMOTE, TOMBSTONED or DELETING, the fence's; dead ones count for no time. Pure; the
 * index's mutex guards it. Changes are the commit holder's alone, so he may read it without the mutex. */
#ifndef VARVE_INDEX_FENCES_H
#define VARVE_INDEX_FENCES_H
#include "extent.h"

#define VV_FENCE_BYTES 56
#define VV_FENCES_PER_RECORD 64 /* of the journal */
#define VV_FENCE_TREE_FANOUT 16
#define VV_FENCE_TREE_LEVELS 8 /* 16^8 pages */

struct vv_fence {
    int64_t base, last, max_ts;
    int64_t dead_ms;
    uint64_t bytes; /* of log data, sum */
    uint32_t slot, crc; /* of the page in the extent file */
    enum vv_extent_state state;
};
struct vv_fences { /* init {0} */
    struct vv_fence *v;
    size_t n, cap, live;
    uint64_t live_bytes;
    struct vv_fence_level { int64_t *max; size_t n, cap; } up[VV_FENCE_TREE_LEVELS]; /* up[0]: of 16 fences each, … */
    int levels;
};
void vv_fences_release(struct vv_fences *fs);
void vv_fence_encode(const struct vv_fence *f, uint8_t *p);
int vv_fence_decode(const uint8_t *p, size_t n, struct vv_fence *f); /* n: VV_FENCE_BYTES, or 40 of earlier versions; E_CORRUPT */
size_t vv_fences_lower(const struct vv_fences *fs, int64_t base); /* first with base >= base */
bool vv_fences_hold(const struct vv_fences *fs, int64_t offset, size_t *i); /* *i: the fence whose range has offset */
int vv_fences_insert(struct vv_fences *fs, const struct vv_fence *f); /* E_CORRUPT: overlaps another */
void vv_fences_remove(struct vv_fences *fs, size_t from, size_t to);
void vv_fences_set_state(struct vv_fences *fs, size_t from, size_t to, enum vv_extent_state state, int64_t dead_ms);
/* The first fence at or after i with a time >= ts; n when there is none. */
size_t vv_fences_time(const struct vv_fences *fs, size_t i, int64_t ts);
int64_t vv_fences_max_ts(const struct vv_fences *fs); /* INT64_MIN: none is live */
#endif
