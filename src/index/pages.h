/* pages.h — long histories: extents that are only in the bucket live in a file of fixed pages, not in memory.
 *
 * varve.extents is an array of slots of VV_PAGE_BYTES: 64 encoded extents (extent.h), consecutive in the list, REMOTE when they were
 * written; in memory a page is a fence (fences.h), which knows their state now. Fences are journalled (REC_PAGES) after the page was
 * synced; bringing a page back is one record with all its extents (REC_UNPAGE). A slot is written again only when no fence
 * that a restart would find names it.
 *
 * Threads: vv_pages_find and _get from anywhere; page_mu guards the small cache and is never held across I/O. All else belongs to the
 * index's commit holder. */
#ifndef VARVE_INDEX_PAGES_H
#define VARVE_INDEX_PAGES_H
#include "extent.h"
#include "fences.h"
#include "varve/env.h"

#include <pthread.h>

#define VV_PAGE_EXTENTS 64
#define VV_PAGE_BYTES (VV_PAGE_EXTENTS * VV_EXTENT_BYTES)
#define VV_PAGE_CACHE 4

struct vv_page { /* decoded */
    uint32_t slot, crc;
    uint64_t used;
    struct vv_extent v[VV_PAGE_EXTENTS];
};
struct vv_pages { /* init {0}, then vv_pages_init */
    struct vv_env *env;
    char *path;
    pthread_mutex_t page_mu;
    struct vv_file *file;             /* opened on first use */
    bool dirty;                       /* written, not synced */
    struct vv_page *cache[VV_PAGE_CACHE]; /* page_mu */
    uint64_t turn;
};
int vv_pages_init(struct vv_pages *ps, struct vv_env *env, const char *dir);
void vv_pages_release(struct vv_pages *ps);
/* Writes 64 extents to slot f->slot and fills the rest of *f. Not synced. */
int vv_pages_write(struct vv_pages *ps, const struct vv_extent *v, struct vv_fence *f);
int vv_pages_sync(struct vv_pages *ps);
/* All extents of a page, in the fence's state. E_CORRUPT: the bytes are not the fence's (damaged, or the slot has a new owner by
 * now). E_AGAIN, only without may_block: the disk would have to be asked. */
int vv_pages_get(struct vv_pages *ps, const struct vv_fence *f, struct vv_extent out[VV_PAGE_EXTENTS]);
/* The first extent of the page, in order, that pick() wants (it must not block); E_NOENT: none. Errors as above. */
typedef bool (*vv_pages_pick)(const struct vv_extent *x, const void *ctx);
int vv_pages_find(struct vv_pages *ps, const struct vv_fence *f, bool may_block, vv_pages_pick pick, const void *ctx,
                  struct vv_extent *out);
/* 64 extents as the bytes of a page, and back. */
void vv_page_encode(const struct vv_extent *v, uint8_t buf[VV_PAGE_BYTES]);
int vv_page_decode(const uint8_t buf[VV_PAGE_BYTES], struct vv_extent *v); /* E_CORRUPT */
#endif
