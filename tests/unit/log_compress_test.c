/* The four codecs: round trips, foreign framings, limits, bombs, truncated and flipped bytes. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <lz4frame.h>
#include <snappy-c.h>
#include <stdlib.h>
#include <zstd.h>

#include "compress.h"

static const enum vv_codec codecs[] = {VV_CODEC_NONE, VV_CODEC_GZIP, VV_CODEC_SNAPPY, VV_CODEC_LZ4, VV_CODEC_ZSTD};

/* Half of it repeats, half does not. */
static uint8_t *sample(size_t n, uint64_t seed)
{
    uint8_t *p = malloc(n + 1);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = (i / 64) % 2 ? (uint8_t)(seed >> 56) : (uint8_t)"flights of storks "[i % 18];
    }
    return p;
}

/* Decodes a copy of exactly n bytes: a sanitizer sees every read behind it. */
static int decode(enum vv_codec codec, const uint8_t *p, size_t n, size_t max, uint8_t **out, size_t *out_n)
{
    uint8_t *exact = malloc(n ? n : 1);
    if (n) memcpy(exact, p, n);
    int err = vv_decompress(codec, n ? exact : exact + 1, n, max, out, out_n);
    free(exact);
    if (err) assert_null(*out);
    else assert_true(*out && *out_n <= max);
    return err;
}

static void expect(enum vv_codec codec, const uint8_t *p, size_t n, const void *want, size_t want_n)
{
    uint8_t *out;
    size_t out_n;
    assert_int_equal(decode(codec, p, n, want_n, &out, &out_n), 0);
    assert_int_equal(out_n, want_n);
    if (want_n) assert_memory_equal(out, want, want_n);
    free(out);
}

static void expect_error(enum vv_codec codec, const uint8_t *p, size_t n, size_t max, int want)
{
    uint8_t *out;
    size_t out_n;
    assert_int_equal(decode(codec, p, n, max, &out, &out_n), want);
}

static void round_trips(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 100, 16383, 16384, 16385, 32768, 32769, 65536, 1000003};
    for (size_t c = 0; c < VV_COUNT(codecs); c++) {
        for (size_t i = 0; i < VV_COUNT(sizes); i++) {
            uint8_t *p = sample(sizes[i], i), *packed;
            size_t n;
            assert_int_equal(vv_compress(codecs[c], p, sizes[i], &packed, &n), 0);
            if (codecs[c] && sizes[i] > 1000) assert_true(n < sizes[i] * 3 / 4);
            expect(codecs[c], packed, n, p, sizes[i]); /* the limit is exactly the size */
            if (sizes[i]) expect_error(codecs[c], packed, n, sizes[i] - 1, VV_E_LIMIT);
            free(packed);
            free(p);
        }
    }
}

static void truncations(void **state)
{
    (void)state;
    enum { SIZE = 3000 };
    uint8_t *p = sample(SIZE, 1), *packed, *out;
    size_t n, out_n;
    for (size_t c = 1; c < VV_COUNT(codecs); c++) {
        assert_int_equal(vv_compress(codecs[c], p, SIZE, &packed, &n), 0);
        for (size_t i = 0; i < n; i++) {
            int err = decode(codecs[c], packed, i, SIZE, &out, &out_n);
            /* xerial's stream has no end mark: its header alone is an empty one */
            if (codecs[c] == VV_CODEC_SNAPPY && i == 16) {
                assert_int_equal(err, 0);
                assert_int_equal(out_n, 0);
                free(out);
                continue;
            }
            assert_int_equal(err, VV_E_CORRUPT);
        }
        free(packed);
    }
    free(p);
}

static void flips(void **state)
{
    (void)state;
    enum { SIZE = 700 };
    uint8_t *p = sample(SIZE, 2), *packed, *out;
    size_t n, out_n, refused = 0;
    for (size_t c = 1; c < VV_COUNT(codecs); c++) {
        assert_int_equal(vv_compress(codecs[c], p, SIZE, &packed, &n), 0);
        for (size_t i = 0; i < n; i++) {
            for (int bit = 0; bit < 8; bit++) {
                packed[i] = (uint8_t)(packed[i] ^ (1 << bit));
                int err = decode(codecs[c], packed, n, 4 * SIZE, &out, &out_n);
                assert_true(err == 0 || err == VV_E_CORRUPT || err == VV_E_LIMIT);
                refused += err != 0;
                if (!err) free(out);
                packed[i] = (uint8_t)(packed[i] ^ (1 << bit));
            }
        }
        expect(codecs[c], packed, n, p, SIZE);
        free(packed);
    }
    assert_true(refused > 1000);
    free(p);
}

static void glued(void **state)
{
    (void)state;
    for (size_t c = 1; c < VV_COUNT(codecs); c++) {
        uint8_t *a, *b;
        size_t an, bn;
        assert_int_equal(vv_compress(codecs[c], (const uint8_t *)"first ", 6, &a, &an), 0);
        assert_int_equal(vv_compress(codecs[c], (const uint8_t *)"second", 6, &b, &bn), 0);
        a = realloc(a, an + bn);
        memcpy(a + an, b, bn);
        expect(codecs[c], a, an + bn, "first second", 12);
        expect_error(codecs[c], a, an + bn, 11, VV_E_LIMIT);
        expect_error(codecs[c], a, an + bn - 1, 12, VV_E_CORRUPT);
        memset(a + an, 0xee, bn); /* garbage behind a good stream */
        expect_error(codecs[c], a, an + bn, 1000, VV_E_CORRUPT);
        free(a);
        free(b);
    }
}

static void raw_snappy(void **state)
{
    (void)state;
    uint8_t *p = sample(50000, 3), *packed = malloc(snappy_max_compressed_length(50000));
    size_t n = snappy_max_compressed_length(50000);
    assert_int_equal(snappy_compress((const char *)p, 50000, (char *)packed, &n), SNAPPY_OK);
    expect(VV_CODEC_SNAPPY, packed, n, p, 50000);
    expect_error(VV_CODEC_SNAPPY, packed, n, 49999, VV_E_LIMIT);
    expect_error(VV_CODEC_SNAPPY, packed, n - 1, 50000, VV_E_CORRUPT);
    free(packed);
    free(p);
}

static void foreign_frames(void **state)
{
    (void)state;
    enum { SIZE = 300000 };
    uint8_t *p = sample(SIZE, 4), *packed = malloc(2 * SIZE);
    LZ4F_preferences_t prefs = {.frameInfo = {.blockMode = LZ4F_blockLinked,
                                              .blockSizeID = LZ4F_max64KB,
                                              .contentChecksumFlag = LZ4F_contentChecksumEnabled,
                                              .contentSize = SIZE}};
    size_t n = LZ4F_compressFrame(packed, 2 * SIZE, p, SIZE, &prefs);
    assert_false(LZ4F_isError(n));
    expect(VV_CODEC_LZ4, packed, n, p, SIZE);
    /* zstd as Java's stream writes it: no content size, several flushed blocks */
    ZSTD_CCtx *z = ZSTD_createCCtx();
    ZSTD_outBuffer out = {packed, 2 * SIZE, 0};
    for (size_t at = 0; at < SIZE; at += 100000) {
        ZSTD_inBuffer in = {p + at, 100000, 0};
        ZSTD_EndDirective end = at + 100000 == SIZE ? ZSTD_e_end : ZSTD_e_flush;
        assert_int_equal(ZSTD_compressStream2(z, &out, &in, end), 0);
    }
    ZSTD_freeCCtx(z);
    expect(VV_CODEC_ZSTD, packed, out.pos, p, SIZE);
    free(packed);
    free(p);
}

static void bombs(void **state)
{
    (void)state;
    enum { SIZE = 64 << 20 };
    uint8_t *zeros = calloc(1, SIZE), *packed;
    size_t n;
    for (size_t c = 1; c < VV_COUNT(codecs); c++) {
        assert_int_equal(vv_compress(codecs[c], zeros, SIZE, &packed, &n), 0);
        expect_error(codecs[c], packed, n, 1 << 20, VV_E_LIMIT);
        expect_error(codecs[c], packed, n, 0, VV_E_LIMIT);
        free(packed);
    }
    free(zeros);
}

static void lies_about_size(void **state)
{
    (void)state;
    /* snappy: 4 GiB - 1 declared by six bytes; inside xerial's frame too */
    static const uint8_t raw[] = {0xff, 0xff, 0xff, 0xff, 0x0f, 0x00};
    static const uint8_t framed[] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 6,
                                     0xff, 0xff, 0xff, 0xff, 0x0f, 0x00};
    static const uint8_t block[] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y',  0,    0,    0,
                                    0,    1,   0,   0,   0,   1,   0xff, 0xff, 0xff, 0xff};
    expect_error(VV_CODEC_SNAPPY, raw, sizeof raw, SIZE_MAX, VV_E_CORRUPT);
    expect_error(VV_CODEC_SNAPPY, framed, sizeof framed, SIZE_MAX, VV_E_CORRUPT);
    expect_error(VV_CODEC_SNAPPY, block, sizeof block, SIZE_MAX, VV_E_CORRUPT);
    /* zstd: one raw block "x" under a window of 2^27 (the largest a level uses) and of 2^28 */
    uint8_t window[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 0x09, 0x00, 0x00, 'x'};
    expect(VV_CODEC_ZSTD, window, sizeof window, "x", 1);
    window[5] = 0x90;
    expect_error(VV_CODEC_ZSTD, window, sizeof window, 100, VV_E_CORRUPT);
    /* zstd: a content size of 2^60, nothing behind it */
    static const uint8_t content[] = {0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x58, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x09, 0, 0, 'x'};
    expect_error(VV_CODEC_ZSTD, content, sizeof content, SIZE_MAX, VV_E_CORRUPT);
}

static void not_a_codec(void **state)
{
    (void)state;
    uint8_t *out;
    size_t n;
    assert_int_equal(vv_decompress((enum vv_codec)5, (const uint8_t *)"x", 1, 10, &out, &n), VV_E_CORRUPT);
    assert_int_equal(vv_compress((enum vv_codec)5, (const uint8_t *)"x", 1, &out, &n), VV_E_USAGE);
    for (size_t c = 1; c < VV_COUNT(codecs); c++)
        expect_error(codecs[c], NULL, 0, 100, VV_E_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips), cmocka_unit_test(truncations),    cmocka_unit_test(flips),
        cmocka_unit_test(glued),       cmocka_unit_test(raw_snappy),     cmocka_unit_test(foreign_frames),
        cmocka_unit_test(bombs),       cmocka_unit_test(lies_about_size), cmocka_unit_test(not_a_codec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
