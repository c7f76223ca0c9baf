/* scan.c — a window of a partition, read with many ranged GETs at once, handed out batch by batch in order.
 *
 * Segments pass through a ring, oldest at the head: their footers are asked for as they enter, so that footers are
 * there when their turn
 * comes. From a decoded footer the wanted blocks become chunks (runs of neighbouring blocks), each one GET; chunks are
 * asked for as
 * long as memory and GETs allow, across segment borders. A small object comes whole in one GET. The consumer
 * takes chunks of the head segment in order, checks every block, then every batch.
 *
 * Adaptive: the first chunk is small, so that the first record is soon there, each next one twice as large up to
 * chunk_bytes, and what is left of a segment is divided evenly; as many GETs are under way as it takes for the consumer
 * not to wait (twice as many each time it had to), gets_max at most.
 *
 * Invariants:
 *  1. memory: bytes asked for or held never exceed memory_max by more than one footer or small object, but for
 *     the one chunk that the consumer waits for.
 *  2. Only the consumer plans, sends, decodes and frees; a GET's completion sets its state under `mu` and signals.
 *  3. A segment leaves the ring when nothing of it is outstanding; a failed one stays at the head until vv_scan_skip.
 * Threads: one consumer; store threads in got(). `mu` is a leaf, never held across the store. */
#include "reader_impl.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define RING 32
#define TRIES 5
#define CHUNK_FIRST ((size_t)1 << 20)
#define DEPTH_FIRST 4

enum get_state { GET_NONE, GET_ASKED, GET_HERE };

struct scan_get { /* one request, for a footer or a chunk */
    struct vv_objget get;
    struct vv_scan *s;
    enum get_state state; /* mu */
    unsigned tries;
    size_t held; /* bytes counted in s->held */
};

struct scan_chunk {
    struct scan_get g;
    struct scan_chunk *next;
    uint32_t first, count; /* blocks */
    uint64_t at;           /* in the segment, not in the object */
    size_t n;
    struct vv_buf *buf;
};

struct scan_segment {
    struct vv_extent x;
    struct vv_segkey id;
    char key[VV_KEY_MAX];
    struct scan_get g;        /* the footer, or the whole object */
    struct vv_footer footer;
    bool decoded, whole, planned;
    uint32_t next_block;
    uint64_t records;         /* seen; `everything` */
    int err;                  /* sticky */
    struct vv_error error;
    struct scan_chunk *chunks, **chunks_end;
};

struct vv_scan {
    struct vv_bucket *b;
    struct vv_bucket_log *log;
    struct vv_scan_opts o;
    struct vv_cursor cursor;
    bool no_more;             /* segments */
    int cursor_err;
    struct vv_error cursor_error;
    int64_t expect;           /* where the next segment begins (the first: or before) */
    bool started;             /* a segment has entered */
    struct scan_segment ring[RING];
    unsigned head, count;     /* ring */
    struct scan_chunk *cur;   /* being handed out; belongs to the head segment */
    size_t cur_at;
    int64_t next_offset;      /* batches go up */
    size_t held;              /* bytes asked for or held; consumer */
    unsigned data_gets;       /* chunks not yet here, as far as the consumer knows */
    struct vv_chain_check *chain; /* of who verifies; NULL */
    unsigned depth;           /* of those, at once */
    size_t chunk;             /* bytes of the next one */
    struct vv_scan_stats stats;
    pthread_mutex_t mu;
    pthread_cond_t change;
    unsigned outstanding;     /* mu */
};

static struct scan_segment *ring_at(struct vv_scan *s, unsigned i)
{
    return &s->ring[(s->head + i) % RING];
}

/* ---- requests ---- */

static void got(struct vv_objget *get)
{
    struct scan_get *g = get->ctx;
    struct vv_scan *s = g->s;
    pthread_mutex_lock(&s->mu);
    g->state = GET_HERE;
    s->outstanding--;
    pthread_cond_signal(&s->change);
    pthread_mutex_unlock(&s->mu);
}

static void ask(struct vv_scan *s, struct scan_get *g, const char *key, uint64_t at, size_t n)
{
    g->s = s;
    g->tries++;
    g->get = (struct vv_objget){.key = key, .at = at, .n = n, .deadline_ms = s->b->deadline_ms, .done = got, .ctx = g};
    pthread_mutex_lock(&s->mu);
    g->state = GET_ASKED;
    s->outstanding++;
    pthread_mutex_unlock(&s->mu);
    s->stats.gets++;
    vv_objstore_get_async(s->b->store, &g->get);
}

static void hold(struct vv_scan *s, struct scan_get *g, size_t n)
{
    g->held = n;
    s->held += n;
}

static void let_go(struct vv_scan *s, struct scan_get *g)
{
    s->held -= g->held;
    g->held = 0;
}

static bool is_here(struct vv_scan *s, struct scan_get *g)
{
    pthread_mutex_lock(&s->mu);
    bool here = g->state == GET_HERE;
    pthread_mutex_unlock(&s->mu);
    return here;
}

static void await(struct vv_scan *s, struct scan_get *g)
{
    pthread_mutex_lock(&s->mu);
    while (g->state == GET_ASKED) pthread_cond_wait(&s->change, &s->mu);
    pthread_mutex_unlock(&s->mu);
}

/* Waits for it; what the store could not answer is asked again. E_CORRUPT for an object that is missing or short. */
static int settle(struct vv_scan *s, struct scan_get *g, struct scan_segment *seg, struct vv_error *e)
{
    await(s, g);
    while ((g->get.err == VV_E_AGAIN || g->get.err == VV_E_TIMEOUT) && g->tries < TRIES) {
        ask(s, g, seg->key, g->get.at, g->get.n);
        await(s, g);
    }
    if (!g->get.err) return VV_OK;
    if (g->get.err == VV_E_NOENT) return vv_error_set(e, VV_E_CORRUPT, "object %s is missing", seg->key);
    if (g->get.err == VV_E_CORRUPT)
        return vv_error_set(e, VV_E_CORRUPT, "object %s is not whole: %.200s", seg->key, g->get.error.text);
    return vv_error_set(e, g->get.err, "%s: %.300s", seg->key, g->get.error.text);
}

/* ---- segments ---- */

static int seg_fail(struct scan_segment *seg, int err)
{
    seg->err = err;
    seg->error.code = err;
    return err;
}

static struct scan_segment *enter(struct vv_scan *s, const struct vv_extent *x)
{
    struct scan_segment *seg = ring_at(s, s->count++);
    *seg = (struct scan_segment){.x = *x};
    seg->chunks_end = &seg->chunks;
    vv_segkey_of(s->log->info.topic_id, s->log->info.partition, x, &seg->id);
    vv_segkey_format(&seg->id, seg->key);
    return seg;
}

/* Segments tile: what is missing between two is an entry of its own, failed from the start, so that it can be skipped
 * like one. */
static void check_tiling(struct vv_scan *s, const struct vv_extent *x)
{
    if (s->o.from_ts != INT64_MIN) return; /* pages before the time are skipped: nothing can be said */
    if (x->base > s->expect) {
        struct scan_segment *seg = enter(s, &(struct vv_extent){.base = s->expect, .last = x->base - 1});
        seg->planned = true;
        seg_fail(seg, vv_error_set(&seg->error, VV_E_CORRUPT,
                                   "%s-%d: offsets %" PRId64 "..%" PRId64 " are in no object",
                                   s->log->info.topic, (int)s->log->info.partition, s->expect, x->base - 1));
    }
    if (s->started && x->base < s->expect) {
        struct scan_segment *seg = enter(s, x);
        seg->planned = true;
        seg_fail(seg, vv_error_set(&seg->error, VV_E_CORRUPT,
                                   "object %s begins before the end of the one before it (%" PRId64 ")",
                                   seg->key, s->expect - 1));
    }
    s->expect = x->last + 1;
    s->started = true;
}

/* Fills the ring; each new segment's footer is asked for, or all of it. */
static void fill(struct vv_scan *s)
{
    while (!s->no_more && s->count + 2 <= RING && (!s->count || s->held < s->b->memory_max)) {
        struct vv_extent x;
        int err = vv_cursor_next(&s->cursor, &x, &s->cursor_error);
        if (!err && x.base >= s->o.to) err = VV_E_NOENT;
        if (err) {
            s->no_more = true;
            s->cursor_err = err == VV_E_NOENT ? VV_OK : err;
            return;
        }
        if (x.max_ts < s->o.from_ts) continue;
        check_tiling(s, &x);
        struct scan_segment *seg = enter(s, &x);
        uint64_t size = x.object_bytes;
        uint64_t footer_at = vv_extent_footer_at(&x);
        if (size <= footer_at || size - footer_at > VV_FOOTER_MAX) {
            seg->planned = true;
            seg_fail(seg, vv_error_set(&seg->error, VV_E_CORRUPT, "%s: the manifest's sizes make no sense", seg->key));
            continue;
        }
        seg->whole = size <= VV_SCAN_WHOLE_MAX && x.first_ts < s->o.to_ts;
        size_t n = (size_t)(seg->whole ? size : size - footer_at);
        hold(s, &seg->g, n);
        ask(s, &seg->g, seg->key, seg->whole ? 0 : footer_at, n);
    }
}

/* What the manifest says of the object, and what the object says of itself. */
static int check_against_manifest(const struct scan_segment *seg, struct vv_error *e)
{
    const struct vv_footer *f = &seg->footer;
    const struct vv_extent *x = &seg->x;
    if (f->data_bytes != x->bytes || f->max_ts != x->max_ts || f->first_ts != x->first_ts ||
        f->sealed_ms != x->sealed_ms)
        return vv_error_set(e, VV_E_CORRUPT,
                            "%s: the footer (%" PRIu64 " bytes, times %" PRId64 " and %" PRId64 ", sealed %" PRId64
                            ") is not what the manifest says (%" PRIu64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ")",
                            seg->key, f->data_bytes, f->first_ts, f->max_ts, f->sealed_ms, x->bytes, x->first_ts,
                            x->max_ts,
                            x->sealed_ms);
    return VV_OK;
}

static struct scan_chunk *add_chunk(struct scan_segment *seg, uint32_t first, uint32_t count, size_t n)
{
    struct scan_chunk *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->first = first;
    c->count = count;
    c->at = seg->footer.blocks.v[first].at;
    c->n = n;
    *seg->chunks_end = c;
    seg->chunks_end = &c->next;
    return c;
}

static int decode(struct vv_scan *s, struct scan_segment *seg)
{
    struct vv_error why = {0};
    int err = settle(s, &seg->g, seg, &seg->error);
    if (err) return seg_fail(seg, err);
    struct vv_buf *buf = seg->g.get.buf;
    s->stats.bytes += seg->g.get.n;
    seg->g.get.buf = NULL;
    err = vv_footer_decode(buf->data, seg->g.get.n, seg->x.object_bytes, s->b->store->keys, &seg->footer, NULL, &why);
    if (err)
        vv_error_set(&seg->error, err == VV_E_AGAIN ? VV_E_CORRUPT : err, "object %s: %.300s", seg->key,
                     err == VV_E_AGAIN ? "the footer is longer than the manifest says" : why.text);
    if (!err) err = vv_footer_check(&seg->footer, &seg->id, s->b->clusters, &seg->error);
    if (!err && (s->o.everything || seg->footer.data_bytes != seg->x.bytes)) err = check_against_manifest(seg,
                                                                                                          &seg->error);
    seg->decoded = true;
    const struct vv_blocks *t = &seg->footer.blocks;
    if (!err && t->count) seg->next_block = seg->x.base >= s->o.from || s->o.everything ? 0 : vv_blocks_find(t, s->o.from);
    if (!err && seg->whole && t->count) {
        struct scan_chunk *c = add_chunk(seg, 0, t->count, (size_t)t->bytes);
        if (!c) err = vv_error_set(&seg->error, VV_E_NOMEM, "out of memory");
        if (c) c->buf = vv_buf_ref(buf);
        seg->planned = true;
    } else {
        let_go(s, &seg->g);
    }
    vv_buf_unref(buf);
    return err ? seg_fail(seg, err == VV_E_AGAIN ? VV_E_CORRUPT : err) : VV_OK;
}

/* ---- planning ---- */

static bool wanted(const struct vv_scan *s, const struct vv_block *b)
{
    return b->max_ts >= s->o.from_ts && b->min_ts < s->o.to_ts && b->first_offset < s->o.to;
}

/* The next run of wanted blocks of a segment; false when there is none. */
static bool next_run(const struct vv_scan *s, struct scan_segment *seg, uint32_t *first, uint32_t *count, size_t *n)
{
    const struct vv_blocks *t = &seg->footer.blocks;
    while (seg->next_block < t->count && !wanted(s, &t->v[seg->next_block])) seg->next_block++;
    *first = seg->next_block;
    *count = 0;
    *n = 0;
    if (*first == t->count) return false;
    uint64_t left = t->bytes - t->v[*first].at, gets = (left + s->chunk - 1) / s->chunk;
    for (uint32_t i = *first; i < t->count && wanted(s, &t->v[i]) && (!*count || *n < left / gets); i++) {
        if (*count && *n + t->v[i].n > s->b->chunk_bytes) break;
        *n += t->v[i].n;
        ++*count;
    }
    return true;
}

/* Asks for chunks of one segment; false when memory or GETs are used up. */
static bool plan_segment(struct vv_scan *s, struct scan_segment *seg)
{
    uint32_t first, count;
    size_t n;
    while (!seg->planned) {
        if (!next_run(s, seg, &first, &count, &n)) {
            seg->planned = true;
            break;
        }
        bool needed = seg == ring_at(s, 0) && !seg->chunks; /* the consumer waits for it: always goes */
        if (!needed && (s->data_gets >= s->depth || s->held + n > s->b->memory_max)) return false;
        struct scan_chunk *c = add_chunk(seg, first, count, n);
        if (!c) {
            seg->planned = true;
            seg_fail(seg, vv_error_set(&seg->error, VV_E_NOMEM, "out of memory"));
            break;
        }
        seg->next_block = first + count;
        s->data_gets++;
        s->chunk = VV_MIN(s->chunk * 2, s->b->chunk_bytes);
        uint64_t at;
        size_t stored;
        vv_footer_range(&seg->footer, first, count, &at, &stored);
        hold(s, &c->g, n);
        ask(s, &c->g, seg->key, at, stored);
    }
    return true;
}

/* Asks for whatever may be asked for; the head's footer is waited for when the consumer needs it. True: nothing is left to be asked for. */
static bool pump(struct vv_scan *s, bool needed)
{
    fill(s);
    for (unsigned i = 0; i < s->count; i++) {
        struct scan_segment *seg = ring_at(s, i);
        if (!seg->decoded && !seg->err) {
            if ((i || !needed) && !is_here(s, &seg->g)) {
                if (seg->whole) continue; /* all of it is asked for */
                return false;
            }
            decode(s, seg);
        }
        if (!seg->err && !plan_segment(s, seg)) return false;
    }
    return s->no_more;
}

bool vv_scan_ask(struct vv_scan *s)
{
    return pump(s, false);
}

/* ---- leaving ---- */

static void chunk_free(struct vv_scan *s, struct scan_chunk *c)
{
    await(s, &c->g);
    if (c->g.tries && !c->buf) s->data_gets--; /* never looked at */
    let_go(s, &c->g);
    vv_buf_unref(c->g.get.buf);
    vv_buf_unref(c->buf);
    free(c);
}

/* Out of the segment's list and away. */
static void drop_first_chunk(struct vv_scan *s, struct scan_segment *seg)
{
    struct scan_chunk *c = seg->chunks;
    seg->chunks = c->next;
    if (!seg->chunks) seg->chunks_end = &seg->chunks;
    chunk_free(s, c);
}

static void pop(struct vv_scan *s)
{
    struct scan_segment *seg = ring_at(s, 0);
    while (seg->chunks) drop_first_chunk(s, seg);
    await(s, &seg->g);
    vv_buf_unref(seg->g.get.buf);
    let_go(s, &seg->g);
    vv_footer_release(&seg->footer);
    s->cur = NULL;
    s->head = (s->head + 1) % RING;
    s->count--;
    s->stats.segments++;
}

/* ---- handing out ---- */

/* What was stored compressed or encrypted becomes what was appended. E_CORRUPT: block *bad does not. */
static int unpack(const struct scan_segment *seg, struct scan_chunk *c, uint32_t *bad)
{
    struct vv_buf *plain = vv_buf_new(c->n);
    struct vv_blockcodec *codec = vv_footer_codec(&seg->footer);
    const uint8_t *p = c->buf->data;
    int err = plain && codec ? VV_OK : VV_E_NOMEM;
    for (uint32_t i = c->first; !err && i < c->first + c->count; p += seg->footer.stored[i++].n) {
        err = vv_footer_load(&seg->footer, codec, i, p, plain->data + (seg->footer.blocks.v[i].at - c->at));
        *bad = i;
    }
    vv_blockcodec_free(codec);
    vv_buf_unref(err ? plain : c->buf);
    if (!err) c->buf = plain;
    return err;
}

/* Every block of the chunk against its checksum. */
static int check_chunk(const struct scan_segment *seg, struct scan_chunk *c, uint32_t *bad)
{
    const struct vv_blocks *t = &seg->footer.blocks;
    if (seg->footer.flags) return unpack(seg, c, bad);
    for (*bad = c->first; *bad < c->first + c->count; ++*bad)
        if (vv_crc32c(0, c->buf->data + (t->v[*bad].at - c->at), t->v[*bad].n) != t->v[*bad].crc) return VV_E_CORRUPT;
    return VV_OK;
}

/* The head segment's first chunk becomes the current one, all its blocks verified. */
static int take_chunk(struct vv_scan *s, struct scan_segment *seg)
{
    struct scan_chunk *c = seg->chunks;
    const struct vv_blocks *t = &seg->footer.blocks;
    if (!c->buf) {
        if (!is_here(s, &c->g)) s->depth = VV_MIN(s->depth * 2, s->b->gets_max);
        int err = settle(s, &c->g, seg, &seg->error);
        if (err) return seg_fail(seg, err);
        c->buf = c->g.get.buf;
        c->g.get.buf = NULL;
        s->data_gets--;
        s->stats.bytes += c->g.get.n;
    }
    uint32_t i = c->first;
    int err = check_chunk(seg, c, &i);
    if (err == VV_E_CORRUPT)
        vv_error_set(&seg->error, err, "object %s: block %u (bytes %" PRIu64 "..%" PRIu64 ") is damaged: its checksum is wrong",
                     seg->key, i, t->v[i].at, t->v[i].at + t->v[i].n - 1);
    else if (err)
        vv_error_set(&seg->error, err, "out of memory");
    if (err) return seg_fail(seg, err);
    s->cur = c;
    s->cur_at = 0;
    if (c->first) { /* a gap in time: offsets go up all the same */
        s->next_offset = VV_MAX(s->next_offset, t->v[c->first].first_offset);
    }
    return VV_OK;
}

static bool is_aborted(const struct vv_footer *f, const struct vv_batch *b)
{
    if (!b->transactional || b->control) return false;
    for (size_t i = 0; i < f->aborted_count; i++)
        if (f->aborted[i].producer_id == b->producer_id && f->aborted[i].first_offset <= b->base_offset &&
            f->aborted[i].last_offset >= b->base_offset)
            return true;
    return false;
}

static int bad_batch(struct vv_scan *s, struct scan_segment *seg, const char *what)
{
    return seg_fail(seg, vv_error_set(&seg->error, VV_E_CORRUPT, "object %s: the batch at byte %" PRIu64 " %s",
                                      seg->key,
                                      s->cur->at + s->cur_at, what));
}

/* The next batch of the current chunk, verified; out->p stays NULL at its end. */
static int next_batch(struct vv_scan *s, struct scan_segment *seg, struct vv_scan_batch *out)
{
    const struct scan_chunk *c = s->cur;
    if (s->cur_at == c->n) return VV_OK;
    const uint8_t *p = c->buf->data + s->cur_at;
    struct vv_batch *b = &out->b;
    if (vv_batch_parse(p, c->n - s->cur_at, b)) return bad_batch(s, seg, "is no whole record batch");
    if (!vv_batch_crc_ok(p, b)) return bad_batch(s, seg, "is damaged: its checksum is wrong");
    if (b->base_offset < VV_MAX(s->next_offset, seg->x.base) || vv_batch_last(b) > seg->x.last || b->last_delta < 0)
        return bad_batch(s, seg, "has offsets that do not belong there");
    s->next_offset = vv_batch_last(b) + 1;
    s->cur_at += b->bytes;
    seg->records += (uint64_t)b->records;
    if (s->chain && vv_chain_check_feed(s->chain, &seg->footer, p, b->bytes))
        return seg_fail(seg, vv_error_set(&seg->error, VV_E_NOMEM, "out of memory"));
    out->p = p;
    out->segment = &seg->x;
    out->aborted = is_aborted(&seg->footer, b);
    return VV_OK;
}

static bool in_window(const struct vv_scan *s, const struct vv_scan_batch *x)
{
    const struct vv_batch *b = &x->b;
    if (s->o.everything) return true;
    return !x->aborted && !b->control && vv_batch_last(b) >= s->o.from && b->base_offset < s->o.to &&
    b->max_ts >= s->o.from_ts;
}

/* The head segment is done with. */
static int finish(struct vv_scan *s, struct scan_segment *seg)
{
    bool all = s->o.everything && s->o.to > seg->x.last && s->o.from_ts == INT64_MIN &&
    s->o.to_ts == INT64_MAX;
    if (all && seg->records != seg->footer.records)
        return seg_fail(seg, vv_error_set(&seg->error, VV_E_CORRUPT,
                                          "object %s has %" PRIu64 " records, its footer says %" PRIu64, seg->key,
                                          seg->records, seg->footer.records));
    if (all && s->chain && vv_chain_check_close(s->chain, &seg->footer, seg->key, &seg->error)) return seg_fail(seg, VV_E_CORRUPT);
    pop(s);
    return VV_OK;
}

/* One step with the head segment. */
static int step(struct vv_scan *s, struct vv_scan_batch *out)
{
    struct scan_segment *seg = ring_at(s, 0);
    if (seg->err) return seg->err;
    if (s->cur) {
        int err = next_batch(s, seg, out);
        if (err || out->p) return err;
        s->cur = NULL;
        drop_first_chunk(s, seg);
        pump(s, true);
        return seg->err;
    }
    if (seg->chunks) return take_chunk(s, seg);
    if (seg->decoded && seg->planned) return finish(s, seg);
    pump(s, true);
    return seg->err;
}

int vv_scan_next(struct vv_scan *s, struct vv_scan_batch *out, struct vv_error *e)
{
    for (;;) {
        *out = (struct vv_scan_batch){0};
        if (!s->count) {
            pump(s, true);
            if (!s->count) {
                if (s->cursor_err && e) *e = s->cursor_error;
                return s->cursor_err;
            }
        }
        int err = step(s, out);
        if (err) {
            if (e) *e = ring_at(s, 0)->error;
            out->p = NULL;
            return err;
        }
        if (out->p && in_window(s, out)) return VV_OK;
    }
}

void vv_scan_skip(struct vv_scan *s)
{
    if (!s->count || !ring_at(s, 0)->err) return;
    if (s->chain) vv_chain_check_lost(s->chain);
    pop(s);
}

void vv_scan_set_chain(struct vv_scan *s, struct vv_chain_check *c)
{
    s->chain = c;
}

int vv_scan_open(struct vv_bucket_log *log, const struct vv_scan_opts *o, struct vv_scan **out, struct vv_error *e)
{
    struct vv_scan *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    s->b = log->bucket;
    s->log = log;
    s->o = *o;
    s->o.from = VV_MAX(o->from, log->info.log_start);
    s->expect = s->o.from;
    s->depth = VV_MIN(DEPTH_FIRST, s->b->gets_max);
    s->chunk = VV_MIN(CHUNK_FIRST, s->b->chunk_bytes);
    vv_cursor_init(&s->cursor, log, s->o.from, o->from_ts);
    pthread_mutex_init(&s->mu, NULL);
    pthread_cond_init(&s->change, NULL);
    *out = s;
    return VV_OK;
}

const struct vv_scan_opts *vv_scan_opts_of(const struct vv_scan *s)
{
    return &s->o;
}

bool vv_scan_failed_segment(const struct vv_scan *s)
{
    return s->count && s->ring[s->head].err;
}

void vv_scan_stats(const struct vv_scan *s, struct vv_scan_stats *out)
{
    *out = s->stats;
}

void vv_scan_close(struct vv_scan *s)
{
    if (!s) return;
    while (s->count) pop(s);
    pthread_mutex_lock(&s->mu); /* the last completion may still hold it */
    VV_ASSERT(!s->outstanding);
    pthread_mutex_unlock(&s->mu);
    pthread_cond_destroy(&s->change);
    pthread_mutex_destroy(&s->mu);
    free(s);
}
