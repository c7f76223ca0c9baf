/* reader_impl.h — what the reader's files share: bucket.c (root, topics), partition.c (manifest, segments), scan.c
 * (reading),
 * verify.c. Public side: include/varve/reader.h. */
#ifndef VARVE_READER_IMPL_H
#define VARVE_READER_IMPL_H
#include "varve/reader.h"

#include "follow.h"
#include "footer.h"
#include "keys.h"
#include "manifest.h"
#include "origin.h"
#include "root.h"

struct vv_bucket {
    struct vv_env *env;
    struct vv_objstore *store;
    bool owns_store;
    struct vv_root root;
    char clusters[VV_CLUSTERS_MAX]; /* whose objects belong here */
    size_t memory_max, chunk_bytes;
    unsigned gets_max;
    int64_t deadline_ms;
};

struct vv_bucket_log {
    struct vv_bucket *bucket;
    struct vv_bucket_log_info info;
    struct vv_manifest_where where;
    struct vv_manifest manifest; /* page references; the head's own segments are in tail */
    struct vv_extent *tail;      /* the head's segments, and those that continue it */
    size_t tail_n, tail_cap;
};

/* Segments in pieces, so that a history of millions is never in memory at once. */
#define VV_CURSOR_BATCH 512
struct vv_cursor { /* init with vv_cursor_init */
    struct vv_bucket_log *log;
    int64_t at;      /* segments that end below are done */
    int64_t from_ts; /* pages without a time at or after it are skipped */
    struct vv_extent v[VV_CURSOR_BATCH];
    size_t n, next;
    bool tail;       /* the pages are done */
    size_t tail_next;
};
void vv_cursor_init(struct vv_cursor *c, struct vv_bucket_log *log, int64_t from, int64_t from_ts);
/* E_NOENT: no more. */
int vv_cursor_next(struct vv_cursor *c, struct vv_extent *out, struct vv_error *e);

/* chain.c: the hash chain along a scan of everything. A segment's batches are fed as they are verified, then it is closed. */
struct vv_chain_check;
struct vv_chain_check *vv_chain_check_new(struct vv_anchor *anchors, size_t n);
void vv_chain_check_free(struct vv_chain_check *c);
int vv_chain_check_feed(struct vv_chain_check *c, const struct vv_footer *f, const uint8_t *p, size_t n);
int vv_chain_check_close(struct vv_chain_check *c, const struct vv_footer *f, const char *key, struct vv_error *e);
void vv_chain_check_lost(struct vv_chain_check *c); /* a segment was given up: what follows is taken on trust */
void vv_chain_check_tell(const struct vv_chain_check *c, struct vv_verified *out);
void vv_scan_set_chain(struct vv_scan *s, struct vv_chain_check *c); /* stays the caller's */

#define VV_SCAN_WHOLE_MAX (1u << 20) /* objects up to this size come in one GET */
const struct vv_scan_opts *vv_scan_opts_of(const struct vv_scan *s);
/* The error that vv_scan_next gave is one segment's: vv_scan_skip can go on behind it. */
bool vv_scan_failed_segment(const struct vv_scan *s);
#endif
