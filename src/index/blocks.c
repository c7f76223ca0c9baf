/* blocks.c — the block table: accumulate, search, encode. Contract: varve/blocks.h.
 *
 * Encoding (all big-endian): count u32, then per block {at u64, n u32, crc u32, first_offset i64, min_ts i64, max_ts i64}
 * (40 bytes), then records u64 and CRC32C u32 over everything before it. Blocks tile [0, bytes) without holes, so a decoder
 * checks that; a table that decodes is safe to use as a map of the segment. */
#include "varve/blocks.h"

#include <stdlib.h>

#define BLOCK_BYTES 40u
#define HEAD_BYTES 4u
#define TAIL_BYTES 12u

int vv_blocks_reserve(struct vv_blocks *t)
{
    if (t->count < t->cap) return VV_OK;
    uint32_t cap = t->cap ? t->cap * 2 : 8;
    struct vv_block *v = realloc(t->v, cap * sizeof *v);
    if (!v) return VV_E_NOMEM;
    t->v = v;
    t->cap = cap;
    return VV_OK;
}

int vv_blocks_append(struct vv_blocks *t, const uint8_t *batch, size_t n, int64_t base_offset, int64_t min_ts,
                     int64_t max_ts, uint32_t records)
{
    if (!n || n > UINT32_MAX) return VV_E_USAGE;
    struct vv_block *b = t->open ? &t->v[t->count - 1] : NULL;
    if (b && b->n + (uint64_t)n > VV_BLOCK_TARGET) b = NULL;
    if (!b) {
        if (vv_blocks_reserve(t)) return VV_E_NOMEM;
        b = &t->v[t->count++];
        *b = (struct vv_block){.at = t->bytes, .first_offset = base_offset, .min_ts = min_ts, .max_ts = max_ts};
        t->open = true;
    }
    b->crc = vv_crc32c(b->crc, batch, n);
    b->n += (uint32_t)n;
    b->min_ts = VV_MIN(b->min_ts, min_ts);
    b->max_ts = VV_MAX(b->max_ts, max_ts);
    t->bytes += n;
    t->records += records;
    if (b->n >= VV_BLOCK_TARGET) t->open = false;
    return VV_OK;
}

void vv_blocks_seal(struct vv_blocks *t)
{
    t->open = false;
}

void vv_blocks_release(struct vv_blocks *t)
{
    free(t->v);
    *t = (struct vv_blocks){0};
}

uint32_t vv_blocks_find(const struct vv_blocks *t, int64_t offset)
{
    uint32_t lo = 0, hi = t->count;
    while (lo < hi) { /* first block above offset */
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->v[mid].first_offset <= offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo ? lo - 1 : 0;
}

uint32_t vv_blocks_find_time(const struct vv_blocks *t, int64_t ts, uint32_t from)
{
    uint32_t i = from;
    while (i < t->count && t->v[i].max_ts < ts) i++;
    return VV_MIN(i, t->count);
}

size_t vv_blocks_encoded_size(const struct vv_blocks *t)
{
    return HEAD_BYTES + (size_t)t->count * BLOCK_BYTES + TAIL_BYTES;
}

void vv_blocks_encode(const struct vv_blocks *t, uint8_t *dst)
{
    uint8_t *p = dst;
    vv_put32(p, t->count);
    p += HEAD_BYTES;
    for (uint32_t i = 0; i < t->count; i++, p += BLOCK_BYTES) {
        const struct vv_block *b = &t->v[i];
        vv_put64(p, b->at);
        vv_put32(p + 8, b->n);
        vv_put32(p + 12, b->crc);
        vv_put64(p + 16, (uint64_t)b->first_offset);
        vv_put64(p + 24, (uint64_t)b->min_ts);
        vv_put64(p + 32, (uint64_t)b->max_ts);
    }
    vv_put64(p, t->records);
    vv_put32(p + 8, vv_crc32c(0, dst, (size_t)(p + 8 - dst)));
}

static int decode_block(const uint8_t *p, struct vv_blocks *t)
{
    struct vv_block *b = &t->v[t->count];
    *b = (struct vv_block){
        .at = vv_get64(p),
        .n = vv_get32(p + 8),
        .crc = vv_get32(p + 12),
        .first_offset = (int64_t)vv_get64(p + 16),
        .min_ts = (int64_t)vv_get64(p + 24),
        .max_ts = (int64_t)vv_get64(p + 32),
    };
    if (b->at != t->bytes || !b->n) return VV_E_CORRUPT;
    if (t->count && b->first_offset <= b[-1].first_offset) return VV_E_CORRUPT;
    t->bytes += b->n;
    t->count++;
    return VV_OK;
}

int vv_blocks_decode(const uint8_t *p, size_t n, struct vv_blocks *out)
{
    *out = (struct vv_blocks){0};
    if (n < HEAD_BYTES + TAIL_BYTES) return VV_E_CORRUPT;
    uint32_t count = vv_get32(p);
    if ((n - HEAD_BYTES - TAIL_BYTES) % BLOCK_BYTES || (n - HEAD_BYTES - TAIL_BYTES) / BLOCK_BYTES != count)
        return VV_E_CORRUPT;
    if (vv_crc32c(0, p, n - 4) != vv_get32(p + n - 4)) return VV_E_CORRUPT;
    out->v = malloc((count ? count : 1) * sizeof *out->v); /* count is proven by n */
    if (!out->v) return VV_E_NOMEM;
    out->cap = count ? count : 1;
    int err = VV_OK;
    for (uint32_t i = 0; i < count && !err; i++) err = decode_block(p + HEAD_BYTES + (size_t)i * BLOCK_BYTES, out);
    out->records = vv_get64(p + n - TAIL_BYTES);
    if (err) vv_blocks_release(out);
    return err;
}

bool vv_blocks_same(const struct vv_blocks *a, const struct vv_blocks *b)
{
    return a->count == b->count && a->bytes == b->bytes && a->records == b->records &&
           (!a->count || !memcmp(a->v, b->v, a->count * sizeof *a->v));
}
