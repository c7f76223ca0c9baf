/* reader_ahead.c — read-ahead: who reads on where a read ended before is a stream, and a window ahead of its position is
 * kept in memory or in flight, across extents. Tasks, locks: reader.h.
 *
 * How much. The window begins small and doubles with each window's worth that was read, and each time the reader could
 * have taken more than was there, up to a few GETs of full size: whoever reads on for long deserves those. From there
 * on it doubles only if the reader had to wait and as long as that brings more bytes a second, measured behind what was asked for before: it finds
 * the product of bandwidth and delay, whether the limit is the store, the line or a connection. Its bounds are the configured one and
 * an equal share of what the cache gives to all read-ahead, so that many streams together always make progress
 * (chunkcache.h).
 *
 * In what pieces. A GET brings a third of the window (half where others read too), chunk_bytes at most: first ones are small and quickly there, those
 * of a replay large. One is sent when there is room for all of it, so that a full window is topped up by few large GETs
 * and not by many small ones; what is left of a segment is divided evenly.
 *
 * It is topped up when the stream reads, so it stops when the reader stops. */
#include "reader.h"

#define WINDOW_FIRST ((size_t)2 << 20)
#define GETS_MIN 3                    /* a window's worth is brought by as many GETs at least (2 where others read too) */
#define GETS_SURE 6                   /* it grows to the room for so many of full size before it asks whether that helps */
#define LIVELY_US 2000000             /* a stream that read within this time has a share */

/* mu held. Who expects the offset, or (make) the slot to begin with. */
static struct vv_stream *stream_of(struct vv_reader *rd, struct vv_tier_part *p, int64_t from, bool *goes_on)
{
    struct vv_stream *oldest = NULL;
    *goes_on = true;
    for (size_t i = 0; i < VV_READER_STREAMS; i++) {
        struct vv_stream *s = &rd->streams[i];
        if (s->part == p && s->expect == from) return s;
        if (!s->ahead && (!oldest || !s->part || (oldest->part && s->used_us < oldest->used_us))) oldest = s;
    }
    *goes_on = false;
    return oldest;
}

/* mu held */
static size_t count_lively(const struct vv_reader *rd, int64_t now)
{
    size_t lively = 0;
    for (size_t i = 0; i < VV_READER_STREAMS; i++) {
        const struct vv_stream *s = &rd->streams[i];
        lively += s->part && s->window && now - s->used_us < LIVELY_US;
    }
    return VV_MAX(lively, (size_t)1);
}

/* mu held. wanting: the reader could have taken more than was there. */
static void grow(struct vv_reader *rd, struct vv_stream *s, bool wanting, int64_t now)
{
    if (!s->since_us && s->read >= s->since_read) {
        s->since_read = s->read;
        s->since_us = now;
    }
    uint64_t bytes = s->since_us ? s->read - s->since_read : 0;
    bool small = s->window < GETS_SURE * rd->config.chunk_bytes;
    if (!(small && wanting) && (!s->since_us || bytes < s->window)) return; /* too early to tell */
    double rate = s->since_us ? (double)bytes / (double)VV_MAX(now - s->since_us, (int64_t)1) : 0;
    bool helped = rate > s->best * 1.1, more = small || (wanting && helped);
    s->best = helped ? rate : s->best * 0.97; /* asks again later: lines change */
    s->since_read = more ? s->sent : s->read; /* what is asked for before it grows tells nothing about the new size */
    s->since_us = more ? 0 : now;
    if (more) s->window *= 2;
}

/* mu held: how much the next GET brings; 0 = the window is full. */
static size_t next_get(struct vv_reader *rd, struct vv_stream *s)
{
    size_t lively = count_lively(rd, vv_mono_us(rd->env));
    size_t config = (size_t)rd->config.readahead_chunks * rd->config.chunk_bytes;
    s->window = VV_MIN(s->window, VV_MIN(config, rd->cc.data.max / 2 / lively));
    size_t used = s->sent > s->read ? (size_t)(s->sent - s->read) : 0;
    size_t one = VV_MIN(s->window / (lively > 1 ? 2 : GETS_MIN), rd->config.chunk_bytes);
    one = VV_MAX(one, VV_MIN(VV_READER_UNIT, s->window));
    return used + one <= s->window ? one : 0;
}

static void go(struct vv_reader *rd, struct vv_stream *s, struct vv_tier_part *p)
{
    struct vv_task *k = vv_task_new(p, VV_TASK_AHEAD);
    if (k) {
        k->stream = s;
        k->offset = s->sent_to;
        vv_task_run(k);
        return;
    }
    pthread_mutex_lock(&rd->mu);
    s->ahead = false;
    pthread_mutex_unlock(&rd->mu);
}

/* mu held: read-ahead is wanted and nobody is at it; then the caller is, with go(). */
static bool wants_more(struct vv_reader *rd, struct vv_stream *s)
{
    if (s->ahead || rd->dying || rd->config.readahead_chunks <= 0) return false;
    if (s->sent_to < s->expect) { /* the reader has overtaken it */
        s->sent_to = s->expect;
        s->sent = s->read;
    }
    s->ahead = next_get(rd, s) > 0;
    return s->ahead;
}

bool vv_reader_begins(struct vv_reader *rd, struct vv_tier_part *p, int64_t from)
{
    bool goes_on, more = false;
    pthread_mutex_lock(&rd->mu);
    struct vv_stream *s = stream_of(rd, p, from, &goes_on);
    if (goes_on) {
        s->used_us = vv_mono_us(rd->env);
        if (!s->window) {
            s->window = WINDOW_FIRST;
            s->since_us = s->used_us;
        }
        more = s->sent_to <= from && wants_more(rd, s);
    }
    pthread_mutex_unlock(&rd->mu);
    if (more) go(rd, s, p);
    return goes_on;
}

void vv_reader_served(struct vv_reader *rd, struct vv_tier_part *p, int64_t from, int64_t to, size_t bytes, bool wanting)
{
    bool goes_on, more = false;
    pthread_mutex_lock(&rd->mu);
    struct vv_stream *s = stream_of(rd, p, from, &goes_on);
    int64_t now = vv_mono_us(rd->env);
    if (s && !goes_on) *s = (struct vv_stream){.part = p, .expect = to, .sent_to = to};
    if (s) s->used_us = now;
    if (goes_on) {
        s->expect = to;
        s->read += bytes;
        if (s->window) grow(rd, s, wanting, now);
        more = s->window && wants_more(rd, s);
    }
    pthread_mutex_unlock(&rd->mu);
    if (more) go(rd, s, p);
}

static void over(struct vv_task *k)
{
    pthread_mutex_lock(&k->rd->mu);
    k->stream->ahead = false;
    pthread_mutex_unlock(&k->rd->mu);
    vv_task_free(k);
}

/* Bytes of chunks [c, to). */
static uint64_t bytes_of(const struct vv_task *k, uint32_t c, uint32_t to)
{
    const struct vv_blocks *b = &k->footer->footer.blocks;
    uint64_t end = to < k->footer->chunk_count ? b->v[k->footer->chunks[to]].at : b->bytes;
    return c < k->footer->chunk_count ? end - b->v[k->footer->chunks[c]].at : 0;
}

/* One GET's worth of this extent from k->offset on. False: the window is full or there is no room. */
static bool send_one(struct vv_task *k)
{
    struct vv_reader *rd = k->rd;
    const struct vv_blocks *b = &k->footer->footer.blocks;
    uint32_t c = b->count ? vv_footer_chunk_of(k->footer, vv_blocks_find(b, k->offset)) : 0, next = c;
    uint64_t left = bytes_of(k, c, k->footer->chunk_count);
    pthread_mutex_lock(&rd->mu);
    size_t one = next_get(rd, k->stream);
    pthread_mutex_unlock(&rd->mu);
    if (!one) return false;
    if (left) {
        uint64_t gets = (left + one - 1) / one;
        next = vv_task_send_ahead(k, c, (size_t)((left + gets - 1) / gets));
        if (next == c) return false;
    }
    bool end = next >= k->footer->chunk_count;
    k->offset = end ? k->x.last + 1 : b->v[k->footer->chunks[next]].first_offset;
    pthread_mutex_lock(&rd->mu);
    k->stream->sent += bytes_of(k, c, next);
    k->stream->sent_to = k->offset;
    pthread_mutex_unlock(&rd->mu);
    if (end) {
        vv_task_drop_footer(k);
        k->found = false;
    }
    return true;
}

/* The remote extent of an offset, without its local part. */
static bool find(const struct vv_task *k, int64_t offset, struct vv_extent *x)
{
    if (vv_index_find_now(k->part->o.index, offset, x)) return false; /* also when the disk would have to be asked */
    vv_extent_release(k->part->o.index, x);
    x->local = NULL;
    return x->state == VV_EXTENT_REMOTE;
}

void vv_task_run_ahead(struct vv_task *k)
{
    for (;;) {
        if (vv_task_ended(k)) break;
        if (!k->found) {
            if (!find(k, k->offset, &k->x)) break;
            k->found = true;
        }
        if (!k->footer) {
            struct vv_extent after;
            enum vv_get got = vv_task_get_footer(k, false);
            if (got == VV_GOT_LATER) return;
            if (got == VV_GOT_NOT) break;
            if (k->footer->state == VV_CC_FAILED) break;
            if (find(k, k->x.last + 1, &after)) vv_task_footer_ahead(k, &after);
        }
        if (k->footer->state == VV_CC_FAILED || !send_one(k)) break;
    }
    over(k);
}
