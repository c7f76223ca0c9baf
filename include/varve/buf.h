/* buf.h — bytes: refcounted buffers, slices of them, chains of slices, a growing output buffer, an arena.
 *
 * One idea serves the whole broker: bytes that leave the process are a chain of slices, whether they were
 * encoded into memory, read from a local segment or fetched from the bucket. A slice holds a reference;
 * eviction drops one. Thread rules: refcounts are atomic; a chain, an out and an arena have one owner. */
#ifndef VARVE_BUF_H
#define VARVE_BUF_H
#include <stdint.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdatomic.h>

struct vv_buf {
    atomic_uint refs;
    size_t cap;                          /* bytes at data */
    uint8_t *data;
    void (*release)(struct vv_buf *buf); /* called when the last reference goes; NULL = free(buf) */
    void *owner;                         /* for release */
};
struct vv_buf *vv_buf_new(size_t cap); /* refs = 1; NULL when out of memory */
struct vv_buf *vv_buf_ref(struct vv_buf *buf);
void vv_buf_unref(struct vv_buf *buf); /* NULL is fine */

struct vv_slice {
    struct vv_buf *buf; /* holds one reference; NULL = static bytes that outlive everything */
    const uint8_t *p;
    size_t n;
};

struct vv_chain { /* init with {0} */
    struct vv_slice *v;
    size_t count, cap;
    size_t bytes; /* sum of n */
};
int vv_chain_add(struct vv_chain *c, struct vv_buf *buf, const uint8_t *p, size_t n); /* takes a new reference */
int vv_chain_append(struct vv_chain *c, const struct vv_chain *from);               /* shares from's buffers */
void vv_chain_move(struct vv_chain *c, struct vv_chain *from);                      /* empties from; c must be empty */
void vv_chain_copy_out(const struct vv_chain *c, uint8_t *dst);                     /* c->bytes bytes */
void vv_chain_release(struct vv_chain *c);                                          /* drops references, back to {0} */

/* Growing output that ends as a chain: small writes go to owned buffers, vv_out_chain() splices without
 * copying. Errors stick: check `err` once at the end. */
struct vv_out {
    struct vv_chain chain; /* finished slices */
    struct vv_buf *cur;    /* buffer under writing */
    size_t start, at;      /* unsliced bytes of cur: [start, at) */
    int err;               /* 0 or E_NOMEM */
};
void vv_out_init(struct vv_out *o);
uint8_t *vv_out_reserve(struct vv_out *o, size_t n);         /* n contiguous bytes, committed; NULL on error */
void vv_out_bytes(struct vv_out *o, const void *p, size_t n);
void vv_out_chain(struct vv_out *o, const struct vv_chain *c); /* by reference */
size_t vv_out_size(const struct vv_out *o);
int vv_out_finish(struct vv_out *o, struct vv_chain *dst);   /* moves everything to *dst (empty), resets o */
void vv_out_release(struct vv_out *o);

/* Arena: many small allocations, one release. Memory is zeroed. Limit bounds the total (0 = 64 MiB). */
struct vv_arena {
    struct vv_arena_block *head;
    size_t used, limit;
    bool starved; /* memory ran out, not the limit */
};
void vv_arena_init(struct vv_arena *a, size_t limit);
void *vv_arena_alloc(struct vv_arena *a, size_t n); /* NULL past the limit or out of memory */
char *vv_arena_strdup(struct vv_arena *a, const char *p, size_t n); /* adds a NUL */
char *vv_arena_printf(struct vv_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int vv_arena_err(const struct vv_arena *a); /* why one of these was NULL: E_NOMEM, or E_LIMIT */
void vv_arena_reset(struct vv_arena *a); /* keeps the first block */
void vv_arena_release(struct vv_arena *a);
#endif
