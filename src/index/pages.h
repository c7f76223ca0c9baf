/* pages.h — long histories: extents that are only in the bucket live in a file of fixed pages, not in memory.
 *
 * varve.extents is an array of slots of VV_PAGE_BYTES: 64 encoded extents (extent.h), all REMOTE, consecutive in the list. In memory
 * a page is a fence: its range, its largest time, its slot and its CRC. Fences are journalled only by rewriting the
 * journal (REC_PAGE in the image): paging out is write page, sync file, rewrite journal; bringing a page back is read
 * page, rewrite journal. A slot is written again only when no journalled fence names it.
 *
 * vv_pages_get locks inside (page_mu: the small cache and the reads); everything else belongs to the index's commit holder. */
#ifndef VARVE_INDEX_PAGES_H
#define VARVE_INDEX_PAGES_H
#include "extent.h"
#include "varve/env.h"

#include <pthread.h>

#define VV_PAGE_EXTENTS 64
#define VV_PAGE_BYTES (VV_PAGE_EXTENTS * VV_EXTENT_BYTES)
#define VV_PAGE_CACHE 2
#define VV_FENCE_BYTES 40

struct vv_fence {
    int64_t base, last, max_ts;
    uint64_t bytes; /* of log data, sum */
    uint32_t slot, crc;
};
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
    uint32_t slots;                   /* slots of the file in use or free below; grows */
    struct vv_page *cache[VV_PAGE_CACHE]; /* page_mu */
    uint64_t turn;
};
int vv_pages_init(struct vv_pages *ps, struct vv_env *env, const char *dir);
void vv_pages_release(struct vv_pages *ps);
void vv_fence_encode(const struct vv_fence *f, uint8_t *p);
void vv_fence_decode(const uint8_t *p, struct vv_fence *f);
/* Writes 64 extents to slot f->slot and fills the rest of *f. Not synced. */
int vv_pages_write(struct vv_pages *ps, const struct vv_extent *v, struct vv_fence *f);
int vv_pages_sync(struct vv_pages *ps);
/* All extents of a page. E_CORRUPT: the bytes are not the fence's (damaged, or the slot has a new owner by now). */
int vv_pages_get(struct vv_pages *ps, const struct vv_fence *f, struct vv_extent out[VV_PAGE_EXTENTS]);
#endif
