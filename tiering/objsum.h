/* objsum.h — the sums of what a put sends, made by whoever reads its bytes first: MD5 and SHA-256 while the bytes are in the
 * processor's cache. Pure. A summer is one thread's; errors (out of memory, OpenSSL) are kept and told by vv_summer_end. */
#ifndef VARVE_TIERING_OBJSUM_H
#define VARVE_TIERING_OBJSUM_H
#include "varve/objstore.h"

struct evp_md_ctx_st;
struct vv_summer { /* vv_summer_begin … vv_summer_release; zeroed = sums nothing */
    struct vv_objsumming as;
    struct evp_md_ctx_st *md5, *sha256;
    uint64_t in_piece; /* bytes of the piece under way */
    struct vv_objsum *v;
    size_t count, cap;
    int err;
};

void vv_summer_begin(struct vv_summer *s, struct vv_objsumming as);
void vv_summer_feed(struct vv_summer *s, const void *p, size_t n);
/* The SHA-256 of the piece under way, up to here; the piece goes on. */
void vv_summer_sha256(struct vv_summer *s, uint8_t out[32]);
/* The last piece ends; no bytes at all are a piece too. Returns 0 or the first error. */
int vv_summer_end(struct vv_summer *s);
void vv_summer_release(struct vv_summer *s);

/* The sums, if they are of such pieces, that many, and of all these kinds; else NULL. */
const struct vv_objsum *vv_objsums_for(const struct vv_objsums *sums, struct vv_objsumming as, uint64_t count);
/* One piece of a source, summed by reading it: its n bytes from `at` on. */
int vv_objsum_source(const struct vv_objsrc *src, uint64_t at, uint64_t n, unsigned kinds, struct vv_objsum *out);
#endif
