/* log_read.c — reading local segments: whole batches for fetches, exact time lookup, and the walk that recovery uses.
 *
 * Every batch is checked (header, order, CRC) on the way out, each time: a damaged byte is never handed to a client, whenever it
 * was damaged. Batches before the wanted one are only stepped over by their headers. A batch's CRC does not cover its base offset
 * and leader epoch: these must be the ones that the batches before it, the index and the epochs make us expect. Where they are not
 * (compaction leaves holes) the CRC of its block decides, which covers every byte. */
#include "log_impl.h"

#include <stdlib.h>

#define STEP_BYTES 8192u /* looking for a batch: about two index intervals */
#define BATCH_MAX  (1u << 30)
#define INLINE_BYTES (1u << 20) /* more takes as long as a disk would, even from the page cache: not on a reactor */

static int damaged(const struct vv_segment *s, uint64_t at, struct vv_error *e)
{
    return vv_error_set(e, VV_E_CORRUPT, "%s/%020lld.log: damaged at byte %llu; the bytes were not served. Restore the file from a backup or a copy",
                        s->dir, (long long)s->base, (unsigned long long)at);
}

static ssize_t read_some(struct vv_segment *s, struct vv_file *f, void *p, size_t n, uint64_t at, bool may_block)
{
    return may_block ? vv_fs_pread(s->env, f, p, n, at) : vv_fs_pread_nowait(s->env, f, p, n, at);
}

/* Header only: length, magic and order make sense. E_AGAIN never: the caller gives at least VV_BATCH_HEADER bytes. */
static int header_at(const uint8_t *p, struct vv_batch *b)
{
    int32_t length = (int32_t)vv_get32(p + 8);
    if (length < VV_BATCH_HEADER - VV_BATCH_OVERHEAD || (uint32_t)length > BATCH_MAX || p[16] != 2) return VV_E_CORRUPT;
    b->base_offset = (int64_t)vv_get64(p);
    b->last_delta = (int32_t)vv_get32(p + 23);
    b->bytes = (size_t)length + VV_BATCH_OVERHEAD;
    return b->last_delta < 0 ? VV_E_CORRUPT : 0;
}

struct reading {
    struct vv_log *log;
    struct vv_segment *s;
    struct vv_file *f;
    bool may_block;
    uint64_t proven_from, proven_to; /* bytes of the last block that was checked */
    int64_t base, last;              /* of the next batch, as far as known; -1 */
    int64_t next_offset;             /* of the segment, when the read began or later */
    int32_t epoch;                   /* that of offsets below epoch_end; -1: not known */
    int64_t epoch_end;
};

/* Are the bytes of the block at this position what was written? E_AGAIN when that needs the disk and may not. */
static int check_block(struct reading *g, uint64_t at, struct vv_error *e)
{
    struct vv_blocks t;
    if (at >= g->proven_from && at < g->proven_to) return 0;
    if (!g->may_block) return VV_E_AGAIN;
    int err = vv_segment_load_blocks(g->s, &t);
    if (err) return err == VV_E_NOENT || err == VV_E_CORRUPT ? damaged(g->s, at, e) : err;
    uint32_t i = 0;
    while (i < t.count && at >= t.v[i].at + t.v[i].n) i++;
    uint8_t *p = i < t.count ? malloc(t.v[i].n) : NULL;
    if (i < t.count && !p) err = VV_E_NOMEM;
    ssize_t got = p ? vv_fs_pread(g->s->env, g->f, p, t.v[i].n, t.v[i].at) : 0;
    if (!err && got < 0) err = (int)got;
    if (!err && (!p || (size_t)got < t.v[i].n || vv_crc32c(0, p, t.v[i].n) != t.v[i].crc)) err = damaged(g->s, at, e);
    if (!err) {
        g->proven_from = t.v[i].at;
        g->proven_to = t.v[i].at + t.v[i].n;
    }
    free(p);
    vv_blocks_release(&t);
    return err;
}

/* The batch at this position carries the offsets that are expected, or its block proves them. */
static int check_offsets(struct reading *g, const struct vv_batch *b, uint64_t at, struct vv_error *e)
{
    int64_t last = vv_batch_last(b);
    bool odd = (g->base >= 0 && b->base_offset != g->base) || (g->last >= 0 && last != g->last);
    odd = odd || b->base_offset < g->s->base || last >= g->next_offset;
    int err = odd ? check_block(g, at, e) : 0;
    g->base = last + 1;
    g->last = -1;
    return err;
}

static int check_epoch(struct reading *g, const struct vv_batch *b, uint64_t at, struct vv_error *e)
{
    if (b->base_offset >= g->epoch_end) g->epoch = vv_log_epoch_span(g->log, b->base_offset, &g->epoch_end);
    return b->leader_epoch == g->epoch ? 0 : check_block(g, at, e);
}

/* Nearly always, and then nothing more need be asked. */
static inline bool as_expected(const struct reading *g, const struct vv_batch *b, int64_t last)
{
    return b->base_offset == g->base && g->last < 0 && last < g->next_offset && b->base_offset < g->epoch_end &&
           b->leader_epoch == g->epoch;
}

/* From a position at or before it to the batch that holds offset. */
static int seek(struct reading *g, int64_t offset, uint64_t end, uint64_t *at, struct vv_error *e)
{
    struct vv_segment *s = g->s;
    struct vv_file *f = g->f;
    bool may_block = g->may_block;
    uint8_t buf[STEP_BYTES];
    uint64_t from = 0;
    size_t have = 0;
    while (*at + VV_BATCH_HEADER <= end) {
        if (*at < from || *at + VV_BATCH_HEADER > from + have) {
            size_t want = (size_t)VV_MIN((uint64_t)sizeof buf, end - *at);
            ssize_t got = read_some(s, f, buf, want, *at, may_block);
            if (got < 0) return (int)got;
            if (got < VV_BATCH_HEADER) return damaged(s, *at, e);
            from = *at;
            have = (size_t)got;
        }
        struct vv_batch b;
        if (header_at(buf + (*at - from), &b)) return damaged(s, *at, e);
        int64_t base = g->base, last = g->last;
        int err = check_offsets(g, &b, *at, e);
        if (err) return err;
        if (vv_batch_last(&b) >= offset) {
            g->base = base; /* it is looked at again, with all its bytes */
            g->last = last;
            return 0;
        }
        *at += b.bytes;
    }
    return *at == end ? 0 : damaged(s, *at, e);
}

/* Whole good batches at the front of p: their bytes, at most max (but one when min_one). *next is the offset after them. */
static int take(struct reading *g, const uint8_t *p, size_t n, uint64_t at, const struct vv_read *r, size_t *taken, size_t *short_of,
                int64_t *next, struct vv_error *e)
{
    struct vv_segment *s = g->s;
    *taken = *short_of = 0;
    while (*taken < n) {
        struct vv_batch b;
        int err = vv_batch_parse(p + *taken, n - *taken, &b);
        if (err == VV_E_AGAIN) {
            if (!*taken && n >= VV_BATCH_HEADER && !header_at(p, &b)) *short_of = b.bytes;
            return 0;
        }
        if (err || (*next >= 0 && b.base_offset < *next)) return damaged(s, at + *taken, e);
        int64_t last = vv_batch_last(&b);
        if (as_expected(g, &b, last)) {
            g->base = last + 1;
        } else {
            err = check_offsets(g, &b, at + *taken, e);
            if (!err) err = check_epoch(g, &b, at + *taken, e);
            if (err) return err;
        }
        if (last >= r->limit) return 0;
        if (*taken + b.bytes > r->max_bytes && !(r->min_one && !*taken)) return 0;
        if (!vv_batch_crc_ok(p + *taken, &b)) return damaged(s, at + *taken, e);
        *taken += b.bytes;
        *next = last + 1;
    }
    return 0;
}

static int read_locked(struct reading *g, struct vv_read *r, struct vv_chain *out, struct vv_error *e)
{
    struct vv_segment *s = g->s;
    struct vv_file *f = g->f;
    struct vv_place place = {0};
    uint64_t at, end = atomic_load_explicit(&s->bytes, memory_order_acquire);
    g->next_offset = atomic_load_explicit(&s->next_offset, memory_order_acquire); /* covers bytes: it is set before them */
    int err = vv_segment_lookup(s, r->offset, r->may_block, &place);
    at = place.at;
    g->base = place.base;
    g->last = place.last;
    if (!err) err = seek(g, r->offset, end, &at, e);
    if (err == VV_E_CORRUPT && at) { /* the index may have lied: once more from the beginning */
        at = 0;
        g->base = s->base;
        g->last = -1;
        err = seek(g, r->offset, end, &at, e);
    }
    if (err || at >= end) return err;
    size_t want = (size_t)VV_MIN(end - at, (uint64_t)VV_MAX(r->max_bytes, (size_t)STEP_BYTES));
    if (!r->may_block && want > INLINE_BYTES) return VV_E_AGAIN;
    for (int tries = 0;; tries++) {
        struct vv_buf *buf = vv_buf_new(want);
        if (!buf) return VV_E_NOMEM;
        ssize_t got = read_some(s, f, buf->data, want, at, r->may_block);
        size_t taken = 0, short_of = 0;
        int64_t next = -1, base = g->base, last = g->last;
        if (got < 0) err = (int)got;
        else if ((size_t)got < want) err = damaged(s, at + (uint64_t)got, e); /* the file is shorter than what was written */
        else err = take(g, buf->data, want, at, r, &taken, &short_of, &next, e);
        if (err && taken) err = 0; /* the good ones first; the damage is found again when it is their turn */
        if (!err && taken) {
            err = vv_chain_add(out, buf, buf->data, taken);
            r->next_offset = next;
            if (!err) vv_segment_hint(s, next, at + taken);
        }
        vv_buf_unref(buf);
        if (err || taken || !short_of || !r->min_one || tries) return err;
        if (short_of > end - at) return damaged(s, at, e);
        want = short_of;
        g->base = base;
        g->last = last;
    }
}

int vv_log_read(struct vv_log *log, const struct vv_extent *x, struct vv_read *r, struct vv_chain *out, struct vv_error *e)
{
    struct vv_segment *s = x->local;
    struct vv_file *f;
    r->next_offset = r->offset;
    int err = vv_segment_enter(s, r->may_block, &f);
    if (err) return err;
    struct reading g = {.log = log, .s = s, .f = f, .may_block = r->may_block, .epoch = -1, .epoch_end = -1};
    err = read_locked(&g, r, out, e);
    vv_segment_leave(s, f);
    return err;
}

/* One block of a segment, whole batches. */
static int find_in_block(struct vv_segment *s, struct vv_file *f, const struct vv_block *b, int64_t ts, int64_t from, struct vv_time_hit *out)
{
    uint8_t *p = malloc(b->n);
    if (!p) return VV_E_NOMEM;
    ssize_t got = vv_fs_pread(s->env, f, p, b->n, b->at);
    int err = got < 0 ? (int)got : (size_t)got < b->n || vv_crc32c(0, p, b->n) != b->crc ? VV_E_CORRUPT : 0;
    if (!err) err = vv_batches_find_time(p, b->n, ts, from, out);
    free(p);
    return err;
}

int vv_log_find_time(struct vv_log *log, const struct vv_extent *x, int64_t ts, int64_t from, struct vv_time_hit *out)
{
    struct vv_segment *s = x->local;
    struct vv_blocks t;
    struct vv_file *f;
    (void)log;
    int err = vv_segment_load_blocks(s, &t);
    if (err) return err == VV_E_NOENT ? VV_E_AGAIN : err; /* the file went since the index was asked; not "no such record" */
    err = vv_segment_enter(s, true, &f);
    if (err) {
        vv_blocks_release(&t);
        return err == VV_E_NOENT ? VV_E_AGAIN : err;
    }
    err = VV_E_NOENT;
    for (uint32_t i = vv_blocks_find_time(&t, ts, 0); i < t.count && err == VV_E_NOENT; i = vv_blocks_find_time(&t, ts, i + 1)) {
        if (i + 1 < t.count && t.v[i + 1].first_offset <= from) continue;
        err = find_in_block(s, f, &t.v[i], ts, from, out);
    }
    vv_segment_leave(s, f);
    vv_blocks_release(&t);
    return err;
}

/* ---- the walk ---- */

int vv_log_walk(struct vv_env *env, struct vv_file *f, uint64_t *at, uint64_t to, bool verify,
                int (*each)(void *ctx, const uint8_t *p, const struct vv_batch *b, uint64_t at), void *ctx)
{
    size_t cap = 1u << 20, have = 0;
    uint8_t *buf = malloc(cap);
    uint64_t from = *at;
    int err = buf ? 0 : VV_E_NOMEM;
    while (!err && *at < to) {
        struct vv_batch b;
        const uint8_t *p = buf + (*at - from);
        size_t left = have - (size_t)(*at - from);
        err = vv_batch_parse(p, left, &b);
        if (err == VV_E_AGAIN && have < to - from) { /* fetch more, from this batch on */
            size_t need = cap;
            if (left >= VV_BATCH_HEADER && header_at(p, &b)) {
                err = VV_E_CORRUPT;
                break;
            }
            if (left >= VV_BATCH_HEADER) need = VV_MAX(cap, b.bytes);
            if (left >= VV_BATCH_HEADER && b.bytes > to - *at) {
                err = VV_E_CORRUPT;
                break;
            }
            if (need > cap) {
                uint8_t *grown = realloc(buf, need);
                if (!grown) {
                    err = VV_E_NOMEM;
                    break;
                }
                buf = grown;
                cap = need;
            }
            ssize_t got = vv_fs_pread(env, f, buf, (size_t)VV_MIN((uint64_t)cap, to - *at), *at);
            err = got < 0 ? (int)got : got == 0 ? VV_E_CORRUPT : 0;
            from = *at;
            have = got > 0 ? (size_t)got : 0;
            if (have < VV_MIN((uint64_t)cap, to - *at)) to = *at + have; /* shorter than it says */
            continue;
        }
        if (err == VV_E_AGAIN || (!err && verify && !vv_batch_crc_ok(p, &b))) err = VV_E_CORRUPT;
        if (!err) err = each(ctx, p, &b, *at);
        if (!err) *at += b.bytes;
    }
    free(buf);
    return err;
}
