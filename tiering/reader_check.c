/* reader_check.c — is what arrived what it should be? Footers against their own checksums and the identity that the key
 * tells, blocks against the CRCs of the footer's table. Runs on the store's thread; the entry is in flight and this
 * thread's alone. */
#include "reader.h"

#include <inttypes.h>
#include <stdlib.h>

/* Whole blocks in runs of about chunk_bytes. */
static int lay_out_chunks(struct vv_cc_entry *e, size_t chunk_bytes)
{
    const struct vv_blocks *b = &e->footer.blocks;
    size_t n = 0;
    e->chunks = malloc((b->count + 1) * sizeof *e->chunks);
    if (!e->chunks) return VV_E_NOMEM;
    for (uint32_t i = 0; i < b->count; i++) {
        if (!i || n + b->v[i].n > chunk_bytes) {
            e->chunks[e->chunk_count++] = i;
            n = 0;
        }
        n += b->v[i].n;
    }
    return VV_OK;
}

int vv_reader_check_footer(struct vv_reader *rd, struct vv_cc_entry *e, const uint8_t *p, struct vv_error *why)
{
    struct vv_footer *f = &e->footer;
    pthread_mutex_lock(&rd->mu);
    size_t chunk_bytes = VV_MIN(VV_READER_UNIT, VV_MIN(rd->config.chunk_bytes, rd->cc.data.max / 8));
    pthread_mutex_unlock(&rd->mu);
    int err = vv_footer_decode(p, e->bytes, e->at + e->bytes, rd->store->keys, f, NULL, why);
    if (err == VV_E_AGAIN) err = vv_error_set(why, VV_E_CORRUPT, "the footer is longer than the index says");
    if (!err) err = vv_footer_check(f, &e->key.object, rd->tier->clusters, why);
    if (!err && f->stored_bytes != e->at)
        err = vv_error_set(why, VV_E_CORRUPT, "the segment's length is not what the index says");
    if (!err && !f->blocks.count && e->at) err = vv_error_set(why, VV_E_CORRUPT, "the block table is empty");
    if (!err) err = lay_out_chunks(e, chunk_bytes);
    if (err) {
        vv_footer_release(f);
        return err;
    }
    free(f->snapshot); /* not for readers; restore fetches footers of its own */
    free(f->epochs);
    f->snapshot = NULL;
    f->epochs = NULL;
    f->snapshot_n = f->epoch_count = 0;
    return VV_OK;
}

/* Whatever is there: not what fits the checksum. */
static void wrong_bytes(uint8_t *p, const struct vv_block *b)
{
    memset(p, 0, b->n);
    if (vv_crc32c(0, p, b->n) == b->crc) p[0] = 1;
}

int vv_reader_unpack(struct vv_cc_entry *e)
{
    const struct vv_footer *f = &e->table->footer;
    struct vv_blockcodec *c = vv_footer_codec(f);
    const uint8_t *p = e->raw->data;
    size_t at = 0;
    int err = c ? VV_OK : VV_E_NOMEM;
    for (uint32_t i = e->key.first; !err && i < e->key.first + e->key.count; i++) {
        const struct vv_block *b = &f->blocks.v[i];
        int bad = vv_footer_load(f, c, i, p, e->buf->data + at);
        if (bad == VV_E_NOMEM) err = bad;
        else if (bad) wrong_bytes(e->buf->data + at, b);
        p += f->stored[i].n;
        at += b->n;
    }
    vv_blockcodec_free(c);
    return err;
}

static bool block_good(const struct vv_cc_entry *e, uint32_t i)
{
    const struct vv_block *v = e->table->footer.blocks.v + e->key.first;
    return vv_crc32c(0, e->buf->data + (v[i].at - v[0].at), v[i].n) == v[i].crc;
}

void vv_reader_check_arrived(struct vv_cc_entry *e)
{
    const struct vv_block *v = e->table->footer.blocks.v + e->key.first;
    size_t whole = e->raw ? e->bytes : e->got;
    while (e->checked < e->key.count && v[e->checked].at + v[e->checked].n - v[0].at <= whole)
        e->torn |= !block_good(e, e->checked++);
}

int vv_reader_keep_good(struct vv_reader *rd, struct vv_cc_entry *e)
{
    e->bad = calloc(e->key.count, sizeof *e->bad);
    if (!e->bad) return VV_E_NOMEM;
    for (uint32_t i = 0; i < e->key.count; i++) e->bad[i] = !block_good(e, i);
    e->bad_until_us = vv_mono_us(rd->env) + VV_READER_BAD_US;
    return VV_OK;
}
