/* index_impl.h — the index's own structure and the helpers its files share. See index.c. */
#ifndef VARVE_INDEX_IMPL_H
#define VARVE_INDEX_IMPL_H
#include "varve/index.h"
#include "extent.h"
#include "journal.h"
#include "pages.h"

#include <pthread.h>

enum rec_type { /* of the journal; numbers are the file format */
    REC_EXTENT = 1,    /* one extent: insert, or replace the one with this base */
    REC_REMOVE = 2,    /* base i64 */
    REC_LOG_START = 3, /* offset i64 */
    REC_TRUNCATE = 4,  /* offset i64: extents that begin at or above it are gone */
    REC_PAGE = 5,      /* a fence (pages.h): 64 extents in the extent file; only in a rewritten journal */
};

struct vv_index {
    pthread_mutex_t commit; /* orders durable changes; held across journal I/O */
    pthread_mutex_t mu;     /* guards everything below but journal; never held across journal I/O */
    struct vv_env *env;
    const struct vv_segment_ref_ops *ops; /* NULL in tests without segments */
    char *dir;
    struct vv_journal journal;
    uint64_t journal_live; /* its size right after the last rewrite */
    struct vv_extent *v;   /* sorted by base; local holds a reference */
    size_t n, cap;
    size_t page_next;      /* resident extents at which paging out is tried again */
    struct vv_fence *f;    /* sorted by base; v and f together are the list, without overlap */
    size_t fn, fcap;
    uint64_t paged_bytes;  /* of log data */
    struct vv_pages pages; /* its own lock inside */
    _Atomic int64_t log_start; /* changed under mu; read anywhere */
};

/* mu held. */
size_t vv_ix_lower(const struct vv_index *ix, int64_t base);
struct vv_extent *vv_ix_at(struct vv_index *ix, int64_t base);
int vv_ix_put(struct vv_index *ix, const struct vv_extent *x);
void vv_ix_cut(struct vv_index *ix, size_t from, size_t to);
#endif
