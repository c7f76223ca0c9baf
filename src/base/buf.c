/* buf.c — refcounted buffers, chains, growing output, arenas. Contract and thread rules: varve/buf.h.
 *
 * Invariants: chain.bytes is the sum of its slices; every slice with a buf holds exactly one reference;
 * an out's `cur` holds one reference of its own until it is full or finished. */
#include "varve/buf.h"
#include "varve/error.h"
#include "varve/vlog.h"
#include "varve/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vv_buf *vv_buf_new(size_t cap)
{
    struct vv_buf *b = malloc(sizeof *b + cap);
    if (!b) return NULL;
    atomic_init(&b->refs, 1);
    b->cap = cap;
    b->data = (uint8_t *)(b + 1);
    b->release = NULL;
    b->owner = NULL;
    return b;
}

struct vv_buf *vv_buf_ref(struct vv_buf *b)
{
    if (b) atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void vv_buf_unref(struct vv_buf *b)
{
    if (!b) return;
    unsigned before = atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel);
    VV_ASSERT(before > 0);
    if (before > 1) return;
    if (b->release)
        b->release(b);
    else
        free(b);
}

static int chain_grow(struct vv_chain *c, size_t more)
{
    if (c->count + more <= c->cap) return VV_OK;
    size_t cap = VV_MAX(c->cap * 2, c->count + more);
    cap = VV_MAX(cap, (size_t)4);
    struct vv_slice *v = realloc(c->v, cap * sizeof *v);
    if (!v) return VV_E_NOMEM;
    c->v = v;
    c->cap = cap;
    return VV_OK;
}

int vv_chain_add(struct vv_chain *c, struct vv_buf *buf, const uint8_t *p, size_t n)
{
    if (!n) return VV_OK;
    int err = chain_grow(c, 1);
    if (err) return err;
    c->v[c->count++] = (struct vv_slice){vv_buf_ref(buf), p, n};
    c->bytes += n;
    return VV_OK;
}

int vv_chain_append(struct vv_chain *c, const struct vv_chain *from)
{
    int err = chain_grow(c, from->count);
    for (size_t i = 0; !err && i < from->count; i++)
        err = vv_chain_add(c, from->v[i].buf, from->v[i].p, from->v[i].n);
    return err;
}

void vv_chain_move(struct vv_chain *c, struct vv_chain *from)
{
    VV_ASSERT(c->count == 0);
    free(c->v);
    *c = *from;
    *from = (struct vv_chain){0};
}

void vv_chain_copy_out(const struct vv_chain *c, uint8_t *dst)
{
    for (size_t i = 0; i < c->count; i++) {
        memcpy(dst, c->v[i].p, c->v[i].n);
        dst += c->v[i].n;
    }
}

void vv_chain_release(struct vv_chain *c)
{
    for (size_t i = 0; i < c->count; i++)
        vv_buf_unref(c->v[i].buf);
    free(c->v);
    *c = (struct vv_chain){0};
}

/* ---- growing output ---- */

void vv_out_init(struct vv_out *o)
{
    *o = (struct vv_out){0};
}

/* Turn the written part of cur into a slice of the chain. */
static void out_seal(struct vv_out *o)
{
    if (o->cur && o->at > o->start) {
        int err = vv_chain_add(&o->chain, o->cur, o->cur->data + o->start, o->at - o->start);
        if (err) o->err = err;
        o->start = o->at;
    }
}

uint8_t *vv_out_reserve(struct vv_out *o, size_t n)
{
    if (o->err) return NULL;
    if (!o->cur || o->cur->cap - o->at < n) {
        out_seal(o);
        size_t cap = o->cur ? VV_MIN(o->cur->cap * 2, (size_t)65536) : 512;
        struct vv_buf *b = vv_buf_new(VV_MAX(cap, n));
        if (!b) {
            o->err = VV_E_NOMEM;
            return NULL;
        }
        vv_buf_unref(o->cur);
        o->cur = b;
        o->start = o->at = 0;
    }
    uint8_t *p = o->cur->data + o->at;
    o->at += n;
    return p;
}

void vv_out_bytes(struct vv_out *o, const void *p, size_t n)
{
    uint8_t *dst = n ? vv_out_reserve(o, n) : NULL;
    if (dst) memcpy(dst, p, n);
}

void vv_out_chain(struct vv_out *o, const struct vv_chain *c)
{
    if (o->err || !c->bytes) return;
    out_seal(o);
    int err = vv_chain_append(&o->chain, c);
    if (err) o->err = err;
}

size_t vv_out_size(const struct vv_out *o)
{
    return o->chain.bytes + (o->at - o->start);
}

int vv_out_finish(struct vv_out *o, struct vv_chain *dst)
{
    out_seal(o);
    int err = o->err;
    if (!err) vv_chain_move(dst, &o->chain);
    vv_out_release(o);
    return err;
}

void vv_out_release(struct vv_out *o)
{
    vv_chain_release(&o->chain);
    vv_buf_unref(o->cur);
    *o = (struct vv_out){0};
}

/* ---- arena ---- */

struct vv_arena_block {
    struct vv_arena_block *next;
    size_t cap, at;
    _Alignas(16) uint8_t data[];
};

void vv_arena_init(struct vv_arena *a, size_t limit)
{
    *a = (struct vv_arena){.limit = limit ? limit : (size_t)64 << 20};
}

void *vv_arena_alloc(struct vv_arena *a, size_t n)
{
    if (n > a->limit || a->used > a->limit - n) return NULL;
    size_t need = (n + 15) & ~(size_t)15;
    struct vv_arena_block *b = a->head;
    if (!b || b->cap - b->at < need) {
        size_t cap = b ? VV_MIN(b->cap * 2, (size_t)1 << 20) : 2048;
        cap = VV_MAX(cap, need);
        b = malloc(sizeof *b + cap);
        if (!b) {
            a->starved = true;
            return NULL;
        }
        b->next = a->head;
        b->cap = cap;
        b->at = 0;
        a->head = b;
    }
    void *p = b->data + b->at;
    b->at += need;
    a->used += need;
    memset(p, 0, n);
    return p;
}

int vv_arena_err(const struct vv_arena *a)
{
    return a->starved ? VV_E_NOMEM : VV_E_LIMIT;
}

char *vv_arena_strdup(struct vv_arena *a, const char *p, size_t n)
{
    char *s = vv_arena_alloc(a, n + 1);
    if (s && n) memcpy(s, p, n);
    return s;
}

char *vv_arena_printf(struct vv_arena *a, const char *fmt, ...)
{
    va_list ap;
    char tmp[1024];
    va_start(ap, fmt);
    int n = vsnprintf(tmp, sizeof tmp, fmt, ap);
    va_end(ap);
    if (n < 0) return NULL;
    return vv_arena_strdup(a, tmp, VV_MIN((size_t)n, sizeof tmp - 1));
}

void vv_arena_reset(struct vv_arena *a)
{
    struct vv_arena_block *keep = NULL;
    for (struct vv_arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        if (!next)
            keep = b;
        else
            free(b);
    }
    a->head = keep;
    if (keep) {
        keep->next = NULL;
        keep->at = 0;
    }
    a->used = 0;
    a->starved = false;
}

void vv_arena_release(struct vv_arena *a)
{
    vv_arena_reset(a);
    free(a->head);
    a->head = NULL;
}
