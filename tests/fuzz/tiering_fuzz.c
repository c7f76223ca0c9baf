/* tiering_fuzz.c — libFuzzer: any bytes as the footer of a segment object, and as a stored block. Whatever decodes must encode to
 * something that decodes to the same; block ranges must lie within the object; a block that loads has its length.
 *
 * Input: {u8 mode} {bytes}. Mode 0 footer as it is, 1 footer whose checksums are put right first, 2 the same with its data length too,
 * 3 a block: {u16 length} {u8 how} {stored bytes}; bits 2-3 of the mode: the trailer's flags. */
#include "footer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make_right(uint8_t *p, size_t n, uint16_t flags, bool lengths)
{
    uint8_t *t = p + n - VV_TRAILER_BYTES;
    memcpy(t, "VARVESEG", 8);
    vv_put16(t + 24, VV_FOOTER_VERSION);
    vv_put16(t + 26, flags);
    if (lengths) vv_put32(t + 8, (uint32_t)(n - VV_TRAILER_BYTES));
    uint32_t len = vv_get32(t + 8);
    if (len <= n - VV_TRAILER_BYTES) vv_put32(t + 12, vv_crc32c(0, t - len, len));
    vv_put32(t + 28, vv_crc32c(0, t, 28));
}

static void ranges(const struct vv_footer *f)
{
    uint64_t end = 0;
    for (uint32_t i = 0; i < f->blocks.count; i++) {
        uint64_t at;
        size_t n;
        vv_footer_range(f, i, 1, &at, &n);
        if (at != end || !n) abort();
        end = at + n;
    }
    if (end != f->stored_bytes) abort();
}

static void footer(uint8_t *p, size_t n, uint16_t flags, unsigned mode)
{
    struct vv_footer f, g;
    struct vv_error e;
    uint8_t *again;
    size_t again_n;
    if (n >= VV_TRAILER_BYTES && mode) make_right(p, n, flags, mode == 2);
    uint64_t object = n >= VV_TRAILER_BYTES ? vv_get64(p + n - 16) + vv_get32(p + n - 24) + VV_TRAILER_BYTES : n;
    if (vv_footer_decode(p, n, object, NULL, &f, NULL, &e)) return;
    ranges(&f);
    if (vv_footer_encode(&f, &again, &again_n)) abort();
    if (vv_footer_decode(again, again_n, f.stored_bytes + again_n, NULL, &g, NULL, &e)) abort();
    if (g.blocks.count != f.blocks.count || g.data_bytes != f.data_bytes || g.epoch_count != f.epoch_count || g.flags != f.flags) abort();
    vv_footer_release(&g);
    vv_footer_release(&f);
    free(again);
}

static void block(const uint8_t *p, size_t n, unsigned flags)
{
    static const uint8_t key[VV_DATA_KEY_BYTES];
    if (n < 3) return;
    size_t length = vv_get16(p);
    uint8_t *dst = malloc(length + 1);
    struct vv_blockcodec *c = vv_blockcodec_new(flags, key, "object");
    if (!dst || !c) abort();
    vv_block_load(c, 0, p[2], p + 3, n - 3, dst, length);
    vv_blockcodec_free(c);
    free(dst);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    unsigned mode = data[0] & 3, flags = data[0] >> 2 & 3;
    uint8_t *p = malloc(size);
    memcpy(p, data + 1, size - 1);
    if (mode == 3) block(p, size - 1, flags);
    else footer(p, size - 1, (uint16_t)flags, mode);
    free(p);
    return 0;
}
