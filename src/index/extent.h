/* extent.h — one extent as bytes. Fixed 96-byte record, big-endian: base, last, first_ts, max_ts, sealed_ms, dead_ms,
 * bytes, object_bytes, nonce (8 each), generation u32, epoch i32, state u8, 7 zeros, stored_bytes (8). Pure. */
#ifndef VARVE_INDEX_EXTENT_H
#define VARVE_INDEX_EXTENT_H
#include "varve/index.h"

#define VV_EXTENT_BYTES 96
void vv_extent_encode(const struct vv_extent *x, uint8_t *p);
int vv_extent_decode(const uint8_t *p, struct vv_extent *x); /* E_CORRUPT; local = NULL */
static inline bool vv_extent_is_live(const struct vv_extent *x)
{
    return x->state != VV_EXTENT_TOMBSTONED && x->state != VV_EXTENT_DELETING;
}
#endif
