/* compress.c — the codecs of record batches. Contract: compress.h. Pure; any thread.
 *
 * Every decoder writes into a buffer that doubles as output appears and may grow to one byte above the limit: that byte
 * tells "exactly at the limit" from "more than it". Declared sizes are never trusted with memory: a snappy block
 * declares its output, so it is held to what the format can reach; zstd windows are capped. Bytes after the end of a
 * stream are refused unless they are another whole stream (gzip members, LZ4 and zstd frames, xerial headers may follow
 * each other). */
#include "compress.h"

#include <limits.h>
#include <lz4frame.h>
#include <snappy-c.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define FIRST_CAP 16384u
#define ZSTD_WINDOW_LOG 27 /* the largest that a standard level asks for (level 22) */
#define SNAPPY_RATIO 22u   /* three bytes of a copy element give at most 64 */
#define XERIAL_HEADER 16u
#define XERIAL_BLOCK 32768u

struct sink {
    uint8_t *p;
    size_t n, cap, max;
};

/* Room for at least `more` bytes, or for one when more is 0 (then as much as doubling gives). E_LIMIT when max is
 * exceeded. */
static int sink_room(struct sink *s, size_t more)
{
    size_t top = s->max == SIZE_MAX ? SIZE_MAX : s->max + 1;
    if (s->n > s->max || more > top - s->n) return VV_E_LIMIT;
    size_t want = s->n + (more ? more : 1);
    if (want <= s->cap) return 0;
    size_t cap = s->cap > top / 2 ? top : s->cap * 2;
    cap = VV_MIN(VV_MAX(VV_MAX(cap, want), FIRST_CAP), top);
    uint8_t *p = realloc(s->p, cap);
    if (!p) return VV_E_NOMEM;
    s->p = p;
    s->cap = cap;
    return 0;
}

static int copy_plain(const uint8_t *p, size_t n, struct sink *s)
{
    if (n > s->max) return VV_E_LIMIT;
    int err = sink_room(s, n);
    if (!err && n) memcpy(s->p, p, n);
    s->n = n;
    return err;
}

/* ---- gzip ---- */

static int gunzip(const uint8_t *p, size_t n, struct sink *s)
{
    z_stream z = {0};
    if (inflateInit2(&z, 15 + 16) != Z_OK) return VV_E_NOMEM;
    int err = 0;
    bool ended = false;
    size_t left = n;
    z.next_in = (Bytef *)(uintptr_t)p;
    while (!ended || left) {
        if (ended && inflateReset(&z) != Z_OK) err = VV_E_CORRUPT;
        if (!err) err = sink_room(s, 0);
        if (err) break;
        uInt in = (uInt)VV_MIN(left, (size_t)INT_MAX), room = (uInt)VV_MIN(s->cap - s->n, (size_t)INT_MAX);
        z.avail_in = in;
        z.avail_out = room;
        z.next_out = s->p + s->n;
        int rc = inflate(&z, Z_NO_FLUSH);
        left -= in - z.avail_in;
        s->n += room - z.avail_out;
        ended = rc == Z_STREAM_END;
        bool moved = z.avail_in != in || z.avail_out != room;
        if (rc == Z_MEM_ERROR) err = VV_E_NOMEM;
        else if (!ended && (rc != Z_OK || !moved)) err = VV_E_CORRUPT; /* damaged, or the input ends too early */
        if (err) break;
    }
    inflateEnd(&z);
    return err;
}

static int gzip(const uint8_t *p, size_t n, struct sink *s)
{
    z_stream z = {0};
    if (n > INT_MAX) return VV_E_LIMIT;
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) return VV_E_NOMEM;
    size_t bound = deflateBound(&z, (uLong)n);
    int err = sink_room(s, bound);
    if (!err) {
        z.next_in = (Bytef *)(uintptr_t)p;
        z.avail_in = (uInt)n;
        z.next_out = s->p;
        z.avail_out = (uInt)VV_MIN(s->cap, (size_t)UINT_MAX);
        if (deflate(&z, Z_FINISH) != Z_STREAM_END) err = VV_E_LIMIT;
        s->n = z.total_out;
    }
    deflateEnd(&z);
    return err;
}

/* ---- snappy ---- */

static const uint8_t xerial_magic[8] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0};

static int unsnappy_block(const uint8_t *p, size_t n, struct sink *s)
{
    size_t size;
    if (snappy_uncompressed_length((const char *)p, n, &size) != SNAPPY_OK) return VV_E_CORRUPT;
    if (size / SNAPPY_RATIO > n) return VV_E_CORRUPT;
    if (size > s->max - s->n) return VV_E_LIMIT;
    int err = sink_room(s, size);
    if (err) return err;
    if (snappy_uncompress((const char *)p, n, (char *)s->p + s->n, &size) != SNAPPY_OK) return VV_E_CORRUPT;
    s->n += size;
    return 0;
}

static bool xerial_at(const uint8_t *p, size_t n)
{
    return n >= XERIAL_HEADER && !memcmp(p, xerial_magic, sizeof xerial_magic);
}

static int unsnappy(const uint8_t *p, size_t n, struct sink *s)
{
    if (!xerial_at(p, n)) return unsnappy_block(p, n, s);
    while (n) {
        if (xerial_at(p, n)) { /* streams may be glued together */
            p += XERIAL_HEADER;
            n -= XERIAL_HEADER;
            continue;
        }
        if (n < 4) return VV_E_CORRUPT;
        size_t block = vv_get32(p);
        p += 4;
        n -= 4;
        if (block > n) return VV_E_CORRUPT;
        int err = unsnappy_block(p, block, s);
        if (err) return err;
        p += block;
        n -= block;
    }
    return 0;
}

static int snappy(const uint8_t *p, size_t n, struct sink *s)
{
    int err = sink_room(s, XERIAL_HEADER);
    if (err) return err;
    memcpy(s->p, xerial_magic, sizeof xerial_magic);
    vv_put32(s->p + 8, 1);
    vv_put32(s->p + 12, 1);
    s->n = XERIAL_HEADER;
    while (n) {
        size_t take = VV_MIN(n, XERIAL_BLOCK), size = snappy_max_compressed_length(take);
        err = sink_room(s, 4 + size);
        if (err) return err;
        if (snappy_compress((const char *)p, take, (char *)s->p + s->n + 4, &size) != SNAPPY_OK) return VV_E_STATE;
        vv_put32(s->p + s->n, (uint32_t)size);
        s->n += 4 + size;
        p += take;
        n -= take;
    }
    return 0;
}

/* ---- LZ4 ---- */

static int unlz4(const uint8_t *p, size_t n, struct sink *s)
{
    LZ4F_dctx *ctx;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION))) return VV_E_NOMEM;
    int err = 0;
    size_t hint = 1;
    while (hint || n) { /* hint 0: a frame has ended; the next bytes begin another */
        err = sink_room(s, 0);
        if (err) break;
        size_t in = n, out = s->cap - s->n;
        hint = LZ4F_decompress(ctx, s->p + s->n, &out, p, &in, NULL);
        if (LZ4F_isError(hint) || (!in && !out && hint)) {
            err = VV_E_CORRUPT;
            break;
        }
        p += in;
        n -= in;
        s->n += out;
    }
    LZ4F_freeDecompressionContext(ctx);
    return err;
}

static int lz4(const uint8_t *p, size_t n, struct sink *s)
{
    LZ4F_preferences_t prefs = {
        .frameInfo = {.blockMode = LZ4F_blockIndependent}}; /* Kafka's reader knows no linked blocks */
    int err = sink_room(s, LZ4F_compressFrameBound(n, &prefs));
    if (err) return err;
    size_t size = LZ4F_compressFrame(s->p, s->cap, p, n, &prefs);
    if (LZ4F_isError(size)) return VV_E_STATE;
    s->n = size;
    return 0;
}

/* ---- zstd ---- */

static int unzstd(const uint8_t *p, size_t n, struct sink *s)
{
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    if (!ctx) return VV_E_NOMEM;
    ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
    ZSTD_inBuffer in = {p, n, 0};
    size_t hint = 1;
    int err = 0;
    while (hint || in.pos < in.size) {
        err = sink_room(s, 0);
        if (err) break;
        size_t before = in.pos;
        ZSTD_outBuffer out = {s->p, s->cap, s->n};
        hint = ZSTD_decompressStream(ctx, &out, &in);
        if (ZSTD_isError(hint) || (hint && in.pos == before && out.pos == s->n)) {
            err = VV_E_CORRUPT;
            break;
        }
        s->n = out.pos;
    }
    ZSTD_freeDCtx(ctx);
    return err;
}

static int zstd(const uint8_t *p, size_t n, struct sink *s)
{
    int err = sink_room(s, ZSTD_compressBound(n));
    if (err) return err;
    size_t size = ZSTD_compress(s->p, s->cap, p, n, 3);
    if (ZSTD_isError(size)) return VV_E_STATE;
    s->n = size;
    return 0;
}

/* ---- */

static int finish(int err, struct sink *s, uint8_t **out, size_t *out_n)
{
    if (!err && s->n > s->max) err = VV_E_LIMIT;
    if (!err) err = sink_room(s, 0); /* never NULL, even when empty */
    if (err) {
        free(s->p);
        return err;
    }
    *out = s->p;
    *out_n = s->n;
    return 0;
}

int vv_decompress(enum vv_codec codec, const uint8_t *p, size_t n, size_t max, uint8_t **out, size_t *out_n)
{
    struct sink s = {.max = max};
    int err = VV_E_CORRUPT;
    *out = NULL;
    *out_n = 0;
    switch (codec) {
    case VV_CODEC_NONE: err = copy_plain(p, n, &s); break;
    case VV_CODEC_GZIP: err = gunzip(p, n, &s); break;
    case VV_CODEC_SNAPPY: err = unsnappy(p, n, &s); break;
    case VV_CODEC_LZ4: err = unlz4(p, n, &s); break;
    case VV_CODEC_ZSTD: err = unzstd(p, n, &s); break;
    }
    return finish(err, &s, out, out_n);
}

int vv_compress(enum vv_codec codec, const uint8_t *p, size_t n, uint8_t **out, size_t *out_n)
{
    struct sink s = {.max = SIZE_MAX};
    int err = VV_E_USAGE;
    *out = NULL;
    *out_n = 0;
    switch (codec) {
    case VV_CODEC_NONE: err = copy_plain(p, n, &s); break;
    case VV_CODEC_GZIP: err = gzip(p, n, &s); break;
    case VV_CODEC_SNAPPY: err = snappy(p, n, &s); break;
    case VV_CODEC_LZ4: err = lz4(p, n, &s); break;
    case VV_CODEC_ZSTD: err = zstd(p, n, &s); break;
    }
    return finish(err, &s, out, out_n);
}
