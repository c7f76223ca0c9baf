/* log_fuzz.c — libFuzzer: any bytes as a batch that a client sent, as stored batches and as a producer snapshot. What
 * the leader's check accepts must be readable to its last record, pass again unchanged, and be found by its own maximum
 * time.
 *
 * Input: {u8 flags: 0 fix length and CRC first, 1 LogAppendTime, 2 compacted, 3 time bounds, 4 not from a client;
 * 5-7 codec: the records are compressed with it first, 0 leaves all as it is} {batch}. */
#include "compress.h"
#include "prodstate.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW 1700000000000
#define OUTPUT_MAX ((size_t)1 << 20)

struct sum {
    int32_t records;
    int64_t max_ts;
    size_t bytes;
};

static int add(void *ctx, const struct vv_record *r)
{
    struct sum *s = ctx;
    s->records++;
    s->max_ts = VV_MAX(s->max_ts, r->timestamp);
    for (int32_t i = 0; i < r->key_n; i++)
        s->bytes += r->key[i];
    for (int32_t i = 0; i < r->value_n; i++)
        s->bytes += r->value[i];
    for (size_t i = 0; i < r->headers_n; i++)
        s->bytes += r->headers_p[i];
    return 0;
}

static void accepted(uint8_t *p, size_t n, const struct vv_batch_rules *rules, const struct vv_batch *b)
{
    struct sum s = {.max_ts = -1};
    struct vv_batch again;
    struct vv_time_hit hit;
    int32_t bad;
    if (b->bytes != n || !vv_batch_crc_ok(p, b)) abort();
    if (vv_batch_parse(p, n, &again) || again.crc != b->crc || again.max_ts != b->max_ts) abort();
    if (again.attributes != b->attributes || again.ts_type != b->ts_type) abort();
    if (vv_batch_each(p, b, OUTPUT_MAX, add, &s) || s.records != b->records || s.max_ts != b->max_ts) abort();
    if (b->max_ts >= 0 && vv_batches_find_time(p, n, b->max_ts, 0, &hit)) abort();
    if (rules->ts_type == VV_CREATE_TIME && (vv_batch_check(p, n, rules, &again, &bad, NULL) || again.crc != b->crc))
        abort();
}

/* The same header, its records compressed; takes *p. */
static void compress(uint8_t **p, size_t *n, enum vv_codec codec)
{
    uint8_t *packed, *out;
    size_t packed_n;
    if (vv_compress(codec, *p + VV_BATCH_HEADER, *n - VV_BATCH_HEADER, &packed, &packed_n)) abort();
    out = malloc(VV_BATCH_HEADER + packed_n);
    if (!out) abort();
    memcpy(out, *p, VV_BATCH_HEADER);
    memcpy(out + VV_BATCH_HEADER, packed, packed_n);
    out[22] = (uint8_t)((out[22] & ~7) | codec);
    free(packed);
    free(*p);
    *p = out;
    *n = VV_BATCH_HEADER + packed_n;
}

static void snapshot(uint8_t *p, size_t n)
{
    static struct vv_prodstate *state;
    uint8_t *out;
    size_t out_n;
    if (!state && !(state = vv_prodstate_new())) abort();
    if (n >= 10) vv_put32(p + 2, vv_crc32c(0, p + 6, n - 6));
    if (vv_prodstate_decode(state, p, n)) return;
    if (vv_prodstate_encode(state, &out, &out_n) || out_n != n) abort();
    vv_prodstate_expire(state, NOW, 1000);
    vv_prodstate_clear(state);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    uint8_t flags = *data;
    size_t n = size - 1;
    uint8_t *p = malloc(n ? n : 1);
    struct vv_batch_rules rules = {.max_bytes = (size_t)1 << 20,
                                   .output_max = OUTPUT_MAX,
                                   .now_ms = NOW,
                                   .before_max_ms = flags & 8 ? 1000 : INT64_MAX,
                                   .after_max_ms = flags & 8 ? 1000 : INT64_MAX,
                                   .ts_type = flags & 2 ? VV_LOG_APPEND_TIME : VV_CREATE_TIME,
                                   .compacted = flags & 4,
                                   .client = !(flags & 16)};
    struct vv_batch b;
    struct vv_time_hit hit;
    struct vv_error e;
    struct sum s = {0};
    int32_t bad;
    if (!p) return 0;
    if (n) memcpy(p, data + 1, n);
    enum vv_codec codec = (enum vv_codec)(flags >> 5);
    if (codec && codec <= VV_CODEC_ZSTD && n >= VV_BATCH_HEADER) compress(&p, &n, codec);
    if ((flags & 1) && n >= VV_BATCH_HEADER) {
        vv_put64(p, 0);
        vv_put32(p + 8, (uint32_t)(n - VV_BATCH_OVERHEAD));
        p[16] = 2;
        vv_put32(p + 17, vv_crc32c(0, p + 21, n - 21));
    }
    if (!vv_batch_parse(p, n, &b)) vv_batch_each(p, &b, OUTPUT_MAX, add, &s); /* stored bytes, perhaps damaged */
    if (!(flags & 1)) vv_batches_find_time(p, n, NOW, 3, &hit);
    if (!vv_batch_check(p, n, &rules, &b, &bad, &e)) accepted(p, n, &rules, &b);
    else if (e.code == 0 || bad < -1) abort();
    snapshot(p, n);
    free(p);
    return 0;
}
