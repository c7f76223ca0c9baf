/* reader_ahead.c — read-ahead: who reads on where a read ended before is a stream, and a window behind its position
 * is kept in memory or in flight, across extents. It is topped up when the stream reads, so it stops when the reader
 * stops. Tasks, locks: reader.h. */
#include "reader.h"

#define SMALL_CHUNKS 4 /* times readahead_chunks: the window's length when segments are smaller than chunks */

/* mu held */
static struct vv_stream *stream_of(struct vv_reader *rd, struct vv_tier_part *p, int64_t from, bool *sequential)
{
    struct vv_stream *oldest = NULL;
    *sequential = true;
    for (size_t i = 0; i < VV_READER_STREAMS; i++) {
        struct vv_stream *s = &rd->streams[i];
        if (s->part == p && s->expect == from) return s;
        if (!s->ahead && (!oldest || !s->part || (oldest->part && s->used_us < oldest->used_us))) oldest = s;
    }
    *sequential = false;
    if (oldest) oldest->part = p;
    return oldest;
}

void vv_reader_served(struct vv_reader *rd, struct vv_tier_part *p, int64_t from, int64_t to)
{
    bool sequential;
    pthread_mutex_lock(&rd->mu);
    struct vv_stream *s = stream_of(rd, p, from, &sequential);
    if (s) {
        s->expect = to;
        s->used_us = vv_mono_us(rd->env);
    }
    bool go = s && sequential && rd->config.readahead_chunks > 0 && !s->ahead && !rd->dying;
    if (go) s->ahead = true;
    struct vv_tier_config c = rd->config;
    pthread_mutex_unlock(&rd->mu);
    if (!go) return;
    struct vv_task *k = vv_task_new(p, VV_TASK_AHEAD);
    if (!k) {
        pthread_mutex_lock(&rd->mu);
        s->ahead = false;
        pthread_mutex_unlock(&rd->mu);
        return;
    }
    k->stream = s;
    k->offset = to;
    k->chunks_left = c.readahead_chunks * SMALL_CHUNKS;
    k->bytes_left = (int64_t)c.readahead_chunks * (int64_t)c.chunk_bytes;
    vv_task_run(k);
}

static void over(struct vv_task *k)
{
    pthread_mutex_lock(&k->rd->mu);
    k->stream->ahead = false;
    pthread_mutex_unlock(&k->rd->mu);
    vv_task_free(k);
}

/* The chunks of this extent. False: the window is full or there is no room. */
static bool send_chunks(struct vv_task *k)
{
    const struct vv_blocks *b = &k->footer->footer.blocks;
    if (!b->count) return true;
    for (uint32_t c = vv_footer_chunk_of(k->footer, vv_blocks_find(b, k->offset)); c < k->footer->chunk_count; c++) {
        uint32_t first = k->footer->chunks[c], count = vv_footer_chunk_blocks(k->footer, c);
        uint64_t at;
        if (k->under && (k->chunks_left-- <= 0 || k->bytes_left <= 0)) return false;
        if (k->under) k->bytes_left -= vv_footer_chunk_bytes(k->footer, first, count, &at);
        k->under = true;
        if (!vv_task_send_ahead(k, first, count)) return false;
    }
    return true;
}

void vv_task_run_ahead(struct vv_task *k)
{
    for (;;) {
        if (vv_task_ended(k)) break;
        if (!k->found) {
            if (vv_index_find_now(k->part->o.index, k->offset, &k->x)) break; /* also when the disk would have to be asked */
            vv_extent_release(k->part->o.index, &k->x);
            k->x.local = NULL;
            if (k->x.state != VV_EXTENT_REMOTE) break;
            k->found = true;
        }
        enum vv_get got = k->footer ? VV_GOT : vv_task_get_footer(k, false);
        if (got == VV_GOT_LATER) return;
        if (got == VV_GOT_NOT || k->footer->state == VV_CC_FAILED || !send_chunks(k)) break;
        vv_task_drop_footer(k);
        k->offset = k->x.last + 1;
        k->found = false;
    }
    over(k);
}
