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
    REC_PAGES = 5,     /* fences (fences.h), each of 64 extents in the extent file, which are no longer listed themselves */
    REC_UNPAGE = 6,    /* 64 extents as a page's bytes: they are listed again, their fence is gone */
    REC_SWEEP = 7,     /* below i64, from u8, to u8, dead_ms i64: every extent wholly below, in that state, moves */
    REC_INTENT = 9,    /* an extent that is to replace those of its range; nonce 0: none is */
    REC_REPLACE = 10,  /* an extent that replaces all of its range; no intent is left */
    REC_DROP = 8,      /* below i64: every DELETING extent wholly below is gone */
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
    bool changed;          /* commit, at open: what is attached differs from what the journal says */
    size_t page_next;      /* resident extents at which paging out is tried again */
    struct vv_fences f;    /* v and f together are the list, without overlap */
    struct vv_pages pages; /* its own lock inside */
    uint32_t *slots;       /* commit: free slots of the extent file below slot_top */
    size_t slot_count, slot_cap;
    uint32_t slot_top;
    bool slots_known;      /* false: not yet looked for, the file's slots are those of the fences */
    struct vv_extent intent; /* of a replacement (replace.c); nonce 0: none */
    struct vv_index_summary sum;
    bool summed;           /* sum is what v and f say now */
    _Atomic int64_t log_start; /* changed under mu; read anywhere */
};

/* mu held. */
size_t vv_ix_lower(const struct vv_index *ix, int64_t base);
struct vv_extent *vv_ix_at(struct vv_index *ix, int64_t base);
int vv_ix_put(struct vv_index *ix, const struct vv_extent *x);
void vv_ix_cut(struct vv_index *ix, size_t from, size_t to);
int vv_ix_replace_apply(struct vv_index *ix, const struct vv_extent *n); /* replace.c */
/* commit held, mu not. commit_end gives commit back, after a rewrite when the journal has grown; split: the page across `below`, if
 * there is one, comes back, so that pages lie wholly on one side. */
void vv_ix_commit_end(struct vv_index *ix);
int vv_ix_split_page(struct vv_index *ix, int64_t below);
/* commit held, mu not: paging.c */
#define VV_PAGE_OUT_AT 1024 /* resident extents that make paging worth while */
int vv_ix_page_out(struct vv_index *ix, bool journal);
int vv_ix_unpage(struct vv_index *ix, int64_t base); /* E_NOENT: no page holds it */
#endif
