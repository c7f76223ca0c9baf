/* ghost.h — which ranges of which objects were fetched before: names only, no bytes, bounded.
 *
 * An object is seen in grains. A range marks the grains that begin in it (one that holds no beginning: its own first byte), so
 * that ranges which tile an object mark each grain once, however they are cut. A range was fetched before if all its marks are
 * there. Two generations of `capacity` marks: when the younger is full the older is forgotten, so that between one and two
 * times the capacity is remembered. A fingerprint is 64 bits; a false yes costs one needless write.
 *
 * Pure: no I/O, no clock, no locks: the owner's mutex guards it. */
#ifndef VARVE_TIERING_GHOST_H
#define VARVE_TIERING_GHOST_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VV_GHOST_GRAIN (256u << 10)

struct vv_ghost { /* init {0} */
    size_t capacity;         /* marks of a generation */
    size_t slots;            /* of a table, a power of two */
    uint64_t *young, *old;   /* open addressing, 0 = free */
    size_t young_count;
};
/* Forgets everything when the capacity changes. Memory is taken at the first mark: 16 to 32 bytes for each of capacity. */
void vv_ghost_resize(struct vv_ghost *g, size_t capacity);
void vv_ghost_release(struct vv_ghost *g);
/* Marks the range. True: it was fetched before, as far as is remembered. */
bool vv_ghost_again(struct vv_ghost *g, uint64_t object, uint64_t at, size_t n);
bool vv_ghost_has(const struct vv_ghost *g, uint64_t object, uint64_t at, size_t n); /* the same without marking */
#endif
