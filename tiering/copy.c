/* copy.c — see copy.h. */
#include "copy.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 60000
#define WINDOW      ((size_t)32 << 20)
/* A store that takes 256 KiB/s is slow, not away. */
#define PUT_DEADLINE_MS(n) (DEADLINE_MS + (int64_t)((n) / 256))

struct segment { /* being copied */
    const struct vv_copy *c;
    char key[VV_KEY_MAX];
    struct vv_footer footer;
    struct vv_blockcodec *codec;
    struct vv_slice tail; /* footer and trailer */
    struct vv_slice window;
    uint64_t window_at;
    bool source_said;
    struct vv_error e; /* of the reading side */
};

static void drop(struct vv_slice *s)
{
    if (s->buf) vv_buf_unref(s->buf);
    *s = (struct vv_slice){0};
}

static uint32_t block_of(const struct vv_footer *f, uint64_t at)
{
    uint32_t lo = 0, hi = f->blocks.count;
    while (lo + 1 < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        uint64_t where;
        size_t n;
        vv_footer_range(f, mid, 1, &where, &n);
        if (where <= at)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static int check_window(struct segment *s, uint32_t from, uint32_t to)
{
    const struct vv_footer *f = &s->footer;
    uint8_t *plain = NULL;
    int err = f->flags && !s->codec && !(s->codec = vv_footer_codec(f)) ? VV_E_NOMEM : VV_OK;
    for (uint32_t i = from; i < to && !err; i++) {
        uint64_t at;
        size_t n;
        uint8_t *bigger = realloc(plain, f->blocks.v[i].n);
        if (!bigger) err = VV_E_NOMEM;
        if (bigger) plain = bigger;
        vv_footer_range(f, i, 1, &at, &n);
        if (!err) err = vv_footer_load(f, s->codec, i, s->window.p + (at - s->window_at), plain);
        if (err == VV_E_CORRUPT)
            vv_error_set(&s->e, err, "the block at byte %" PRIu64 " of %s in %s does not fit its checksum", at, s->key, s->c->from->url);
    }
    free(plain);
    return err;
}

/* The blocks from the one that holds `at` on, as many as fit; each proven. */
static int load_window(struct segment *s, uint64_t at)
{
    const struct vv_footer *f = &s->footer;
    uint32_t from = block_of(f, at), to = from;
    size_t n = 0, more;
    drop(&s->window);
    if (!f->blocks.count) return vv_error_set(&s->e, VV_E_CORRUPT, "%s: no block holds byte %" PRIu64, s->key, at);
    do {
        to++;
        vv_footer_range(f, from, to - from, &s->window_at, &n);
        more = to < f->blocks.count ? f->blocks.v[to].n : 0;
    } while (to < f->blocks.count && n + more <= WINDOW);
    if (s->c->go_on && !s->c->go_on(s->c->ctx, n)) return vv_error_set(&s->e, VV_E_SHUTDOWN, "stopped");
    s->source_said = true;
    int err = vv_objstore_get(s->c->from, s->key, VV_GET_RANGE, s->window_at, n, PUT_DEADLINE_MS(n), &s->window, NULL, &s->e);
    if (!err) err = check_window(s, from, to);
    if (err) drop(&s->window);
    s->source_said = err != VV_OK;
    return err;
}

static int source_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    struct segment *s = ctx;
    uint8_t *to = dst;
    while (n) {
        const struct vv_slice *from = &s->window;
        uint64_t base = s->window_at;
        if (at >= s->footer.stored_bytes) {
            from = &s->tail;
            base = s->footer.stored_bytes;
        } else if (!s->window.buf || at < base || at >= base + s->window.n) {
            int err = load_window(s, at);
            if (err) return err;
            base = s->window_at;
        }
        size_t k = VV_MIN(n, (size_t)(base + from->n - at));
        memcpy(to, from->p + (at - base), k);
        to += k;
        at += k;
        n -= k;
    }
    return VV_OK;
}

/* The target's footer is the source's, byte by byte, and nothing is missing before it. E_NOENT: there is no object. */
static int prove(struct segment *s, struct vv_error *e)
{
    struct vv_slice t = {0};
    struct vv_objinfo info = {0};
    int err = vv_objstore_get_suffix(s->c->to, s->key, s->tail.n, DEADLINE_MS, &t, &info, e);
    if (err) return err;
    bool same = info.size == s->footer.stored_bytes + s->tail.n && t.n == s->tail.n && !memcmp(t.p, s->tail.p, t.n);
    drop(&t);
    return same ? VV_OK : vv_error_set(e, VV_E_CORRUPT, "%s keeps other bytes for %s than it was given", s->c->to->url, s->key);
}

static int prove_blocks(struct segment *s, struct vv_error *e)
{
    struct vv_copy back = *s->c;
    struct segment r = *s;
    int err = VV_OK;
    back.from = s->c->to;
    back.go_on = NULL;
    r.c = &back;
    r.window = (struct vv_slice){0};
    r.codec = NULL;
    for (uint64_t at = 0; at < r.footer.stored_bytes && !err; at = r.window_at + r.window.n) err = load_window(&r, at);
    drop(&r.window);
    vv_blockcodec_free(r.codec);
    if (err) *e = r.e;
    return err;
}

static int source_footer(struct segment *s, const struct vv_segkey *k, size_t guess, struct vv_error *e)
{
    struct vv_objinfo info = {0};
    size_t need = guess;
    int err = VV_E_AGAIN;
    for (int tries = 0; tries < 3 && err == VV_E_AGAIN; tries++) {
        drop(&s->tail);
        err = vv_objstore_get_suffix(s->c->from, s->key, need, DEADLINE_MS, &s->tail, &info, e);
        if (err) return err;
        err = vv_footer_decode(s->tail.p, s->tail.n, info.size, s->c->keys, &s->footer, &need, e);
    }
    if (err == VV_E_AGAIN) err = vv_error_set(e, VV_E_CORRUPT, "the footer of %s does not end", s->key);
    if (!err) err = vv_footer_check(&s->footer, k, s->c->clusters, e);
    if (err) return err;
    size_t tail = (size_t)(info.size - s->footer.stored_bytes); /* the guess may have been more than the footer */
    s->tail.p += s->tail.n - tail;
    s->tail.n = tail;
    return VV_OK;
}

static int bring(struct segment *s, struct vv_error *e)
{
    struct vv_objsrc src = {.size = s->footer.stored_bytes + s->tail.n, .read = source_read, .ctx = s};
    struct vv_objinfo told;
    s->source_said = false;
    int err = vv_objstore_put(s->c->to, s->key, &src, NULL, PUT_DEADLINE_MS(src.size), &told, e);
    if (err && s->e.code) *e = s->e; /* not the target's fault */
    if (!err && told.etag_differs && (s->c->to->caps & VV_OBJ_CAP_ETAG_IS_MD5))
        err = vv_error_set(e, VV_E_CORRUPT, "%s: the ETag of %s is not the checksum of what was sent", s->c->to->url, s->key);
    if (!err) err = prove(s, e);
    return err;
}

int vv_copy_segment(const struct vv_copy *c, const struct vv_segkey *k, size_t footer_bytes, bool *source_said,
                    struct vv_error *e)
{
    struct segment s = {.c = c};
    bool there = false;
    vv_segkey_format(k, s.key);
    int err = source_footer(&s, k, VV_MAX(footer_bytes, (size_t)VV_TRAILER_BYTES), e);
    s.source_said = err != VV_OK;
    if (!err) {
        err = prove(&s, e);
        there = !err;
    }
    if (!s.source_said && (err == VV_E_NOENT || err == VV_E_CORRUPT)) /* cut short, or of another: the source is the truth */
        err = bring(&s, e);
    if (!err && c->full) err = prove_blocks(&s, e);
    if (err == VV_E_CORRUPT && there) { /* an earlier copy with a good footer and bad blocks */
        there = false;
        err = bring(&s, e);
        if (!err) err = prove_blocks(&s, e);
    }
    *source_said = err && s.source_said;
    drop(&s.tail);
    drop(&s.window);
    vv_blockcodec_free(s.codec);
    vv_footer_release(&s.footer);
    return err ? err : there;
}

int vv_copy_small(const struct vv_copy *c, const char *key, size_t max, struct vv_error *e)
{
    struct vv_slice s = {0};
    int err = vv_objstore_get_whole(c->from, key, max, DEADLINE_MS, &s, NULL, e);
    if (err) return err;
    err = vv_objstore_put_mem(c->to, key, s.p, s.n, NULL, DEADLINE_MS, NULL, e);
    drop(&s);
    return err;
}
