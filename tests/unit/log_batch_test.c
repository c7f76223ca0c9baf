/* Batches: the builder, the leader's check rule by rule, all damage by one bit or a cut, iteration and time search. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>

#include "compress.h"

enum {
    LENGTH = 8,
    EPOCH = 12,
    MAGIC = 16,
    CRC = 17,
    ATTRIBUTES = 21,
    LAST_DELTA = 23,
    BASE_TS = 27,
    MAX_TS = 35,
    PRODUCER = 43,
    PRODUCER_EPOCH = 51,
    SEQUENCE = 53,
    COUNT = 57,
    RECORDS = 61
};

#define NOW 1700000000000

static const struct vv_batch_rules lax = {.max_bytes = 1 << 20,
                                          .output_max = 1 << 20,
                                          .now_ms = NOW,
                                          .before_max_ms = INT64_MAX,
                                          .after_max_ms = INT64_MAX,
                                          .client = true};

struct bytes {
    uint8_t *p;
    size_t n;
};

static void seal(struct bytes *b)
{
    vv_put32(b->p + LENGTH, (uint32_t)(b->n - 12));
    vv_put32(b->p + CRC, vv_crc32c(0, b->p + ATTRIBUTES, b->n - ATTRIBUTES));
}

/* A sealed batch of these records, declared to be `count`; a codec compresses them. */
static struct bytes wrap(const void *records, size_t n, int32_t count, enum vv_codec codec)
{
    uint8_t *packed;
    size_t packed_n;
    assert_int_equal(vv_compress(codec, records, n, &packed, &packed_n), 0);
    struct bytes b = {calloc(1, RECORDS + packed_n), RECORDS + packed_n};
    b.p[MAGIC] = 2;
    b.p[ATTRIBUTES + 1] = (uint8_t)codec;
    vv_put32(b.p + LAST_DELTA, (uint32_t)(count - 1));
    vv_put64(b.p + BASE_TS, NOW);
    vv_put64(b.p + MAX_TS, NOW);
    memset(b.p + PRODUCER, 0xff, 14);
    vv_put32(b.p + COUNT, (uint32_t)count);
    memcpy(b.p + RECORDS, packed, packed_n);
    free(packed);
    seal(&b);
    return b;
}

/* Four records: times NOW, NOW + 50, NOW - 7, NOW + 20; the second has no key, the third no value. */
static struct bytes four(enum vv_codec codec)
{
    struct vv_batch_builder *builder = vv_batch_builder_new();
    uint8_t *p;
    size_t n;
    assert_int_equal(vv_batch_builder_add(builder, NOW, "a", 1, "first", 5), 0);
    assert_int_equal(vv_batch_builder_add(builder, NOW + 50, NULL, -1, "second", 6), 0);
    assert_int_equal(vv_batch_builder_add(builder, NOW - 7, "ccc", 3, NULL, -1), 0);
    assert_int_equal(vv_batch_builder_add(builder, NOW + 20, "", 0, "", 0), 0);
    assert_int_equal(vv_batch_builder_finish(builder, &p, &n), 0);
    struct bytes b = wrap(p + RECORDS, n - RECORDS, 4, codec);
    vv_put64(b.p + MAX_TS, NOW + 50);
    seal(&b);
    vv_batch_builder_free(builder);
    return b;
}

/* Checks exactly n bytes in a block of their own; in-place changes are copied back. */
static int check_n(struct bytes *b, size_t n, const struct vv_batch_rules *rules, struct vv_batch *out, int32_t *bad)
{
    struct vv_error e = {0};
    uint8_t *exact = malloc(n ? n : 1);
    memcpy(exact, b->p, n);
    int err = vv_batch_check(exact, n, rules, out, bad, &e);
    if (err) assert_true(e.code == err && e.text[0]);
    else memcpy(b->p, exact, n);
    free(exact);
    return err;
}

static int check(struct bytes *b, const struct vv_batch_rules *rules)
{
    struct vv_batch out;
    int32_t bad;
    return check_n(b, b->n, rules, &out, &bad);
}

/* Seals, expects the error and the bad record's index, frees. */
static void refuse(struct bytes b, const struct vv_batch_rules *rules, int want, int32_t want_bad)
{
    struct vv_batch out;
    int32_t bad;
    seal(&b);
    assert_int_equal(check_n(&b, b.n, rules, &out, &bad), want);
    assert_int_equal(bad, want_bad);
    free(b.p);
}

static void accept(struct bytes b, const struct vv_batch_rules *rules)
{
    seal(&b);
    assert_int_equal(check(&b, rules), 0);
    free(b.p);
}

struct seen {
    struct vv_record r[8];
    uint8_t bytes[8][64];
    int n, stop_at, stop_with;
};

static int see(void *ctx, const struct vv_record *r)
{
    struct seen *s = ctx;
    assert_true(s->n < 8);
    s->r[s->n] = *r;
    if (r->value_n > 0) memcpy(s->bytes[s->n], r->value, (size_t)r->value_n);
    s->n++;
    return s->n == s->stop_at ? s->stop_with : 0;
}

static void builds(void **state)
{
    (void)state;
    struct vv_batch_builder *builder = vv_batch_builder_new();
    struct vv_batch b;
    uint8_t *p;
    size_t n;
    int32_t bad;
    assert_int_equal(vv_batch_builder_finish(builder, &p, &n), VV_E_STATE);
    assert_int_equal(vv_batch_builder_add(builder, 5, "k", -2, "", 0), VV_E_USAGE);
    for (int round = 0; round < 2; round++) { /* the second add after a finish begins anew */
        for (int i = 0; i < 1000; i++) {
            char value[300];
            memset(value, i, sizeof value);
            assert_int_equal(vv_batch_builder_add(builder, NOW + (i * 7919) % 1000, &i, 4, value, i % 300), 0);
        }
        assert_int_equal(vv_batch_builder_finish(builder, &p, &n), 0);
        assert_int_equal(vv_batch_parse(p, n, &b), 0);
        assert_true(vv_batch_crc_ok(p, &b));
        assert_int_equal(b.bytes, n);
        assert_int_equal(b.length, n - 12);
        assert_int_equal(b.records, 1000);
        assert_int_equal(b.last_delta, 999);
        assert_int_equal(b.base_offset, 0);
        assert_int_equal(vv_batch_last(&b), 999);
        assert_int_equal(b.base_ts, NOW);
        assert_int_equal(b.max_ts, NOW + 999);
        assert_int_equal(b.leader_epoch, -1);
        assert_int_equal(b.producer_id, -1);
        assert_int_equal(b.producer_epoch, -1);
        assert_int_equal(b.base_sequence, -1);
        assert_false(b.transactional || b.control || b.codec || b.ts_type);
        uint32_t crc = b.crc;
        assert_int_equal(vv_batch_check(p, n, &lax, &b, &bad, NULL), 0);
        assert_int_equal(b.crc, crc); /* nothing to correct */
    }
    vv_batch_builder_free(builder);
    vv_batch_builder_free(NULL);
}

static void each_record(void **state)
{
    (void)state;
    for (int codec = 0; codec <= VV_CODEC_ZSTD; codec++) {
        struct bytes b = four((enum vv_codec)codec);
        struct vv_batch h;
        struct seen s = {0};
        vv_put64(b.p, 1000); /* the base offset is not under the CRC */
        assert_int_equal(vv_batch_parse(b.p, b.n, &h), 0);
        assert_true(vv_batch_crc_ok(b.p, &h));
        assert_int_equal(h.codec, codec);
        assert_int_equal(vv_batch_each(b.p, &h, 1000, see, &s), 0);
        assert_int_equal(s.n, 4);
        static const int64_t times[] = {NOW, NOW + 50, NOW - 7, NOW + 20};
        static const int keys[] = {1, -1, 3, 0}, values[] = {5, 6, -1, 0};
        for (int i = 0; i < 4; i++) {
            assert_int_equal(s.r[i].offset, 1000 + i);
            assert_int_equal(s.r[i].timestamp, times[i]);
            assert_int_equal(s.r[i].key_n, keys[i]);
            assert_int_equal(s.r[i].value_n, values[i]);
            assert_int_equal(s.r[i].key == NULL, keys[i] < 0);
            assert_int_equal(s.r[i].value == NULL, values[i] < 0);
            assert_int_equal(s.r[i].headers, 0);
        }
        assert_memory_equal(s.bytes[0], "first", 5);
        assert_memory_equal(s.bytes[1], "second", 6);
        s = (struct seen){.stop_at = 2, .stop_with = -42};
        assert_int_equal(vv_batch_each(b.p, &h, 1000, see, &s), -42);
        assert_int_equal(s.n, 2);
        if (codec) assert_int_equal(vv_batch_each(b.p, &h, 10, see, &s), VV_E_LIMIT);
        h.ts_type = VV_LOG_APPEND_TIME;
        s = (struct seen){0};
        assert_int_equal(vv_batch_each(b.p, &h, 1000, see, &s), 0);
        assert_int_equal(s.r[2].timestamp, NOW + 50);
        h.records = 3; /* bytes left over */
        s = (struct seen){0};
        assert_int_equal(vv_batch_each(b.p, &h, 1000, see, &s), VV_E_CORRUPT);
        h.records = 5;
        s = (struct seen){0};
        assert_int_equal(vv_batch_each(b.p, &h, 1000, see, &s), VV_E_CORRUPT);
        free(b.p);
    }
}

/* length, attributes, time delta, offset delta, key, value, headers */
#define R(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define Z(n) ((n) * 2) /* zigzag of a small number */

static void headers_and_gaps(void **state)
{
    (void)state;
    struct bytes b = wrap(R(Z(14), 0, 0, Z(2), 1, Z(1), 'v', Z(2), Z(1), 'h', Z(2), 'x', 'y', Z(0),
                            1, /* offset delta 2, two headers */
                            Z(6), 0, 0, Z(5), 1, 1, 0),
                          6, VV_CODEC_NONE);
    struct vv_batch h;
    struct seen s = {0};
    vv_put32(b.p + COUNT, 2); /* compaction: two of six are left */
    seal(&b);
    assert_int_equal(vv_batch_parse(b.p, b.n, &h), 0);
    assert_int_equal(vv_batch_each(b.p, &h, 0, see, &s), 0);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.r[0].offset, 2);
    assert_int_equal(s.r[1].offset, 5);
    assert_int_equal(s.r[0].headers, 2);
    assert_int_equal(s.r[0].headers_n, 7);
    assert_int_equal(s.r[0].headers_p[1], 'h');
    assert_int_equal(check(&b, &lax), VV_INVALID_RECORD);
    h.last_delta = 4; /* behind the batch's last */
    s = (struct seen){0};
    assert_int_equal(vv_batch_each(b.p, &h, 0, see, &s), VV_E_CORRUPT);
    free(b.p);
    /* descending and repeated deltas */
    b = wrap(R(Z(6), 0, 0, Z(1), 1, 1, 0, Z(6), 0, 0, Z(1), 1, 1, 0), 2, VV_CODEC_NONE);
    assert_int_equal(vv_batch_parse(b.p, b.n, &h), 0);
    s = (struct seen){0};
    assert_int_equal(vv_batch_each(b.p, &h, 0, see, &s), VV_E_CORRUPT);
    free(b.p);
}

static void parse_refuses(void **state)
{
    (void)state;
    struct bytes b = four(VV_CODEC_NONE);
    struct vv_batch h;
    uint8_t *copy = malloc(b.n);
    for (size_t i = 0; i < b.n; i++)
        assert_int_equal(vv_batch_parse(b.p, i, &h), VV_E_AGAIN);
    assert_int_equal(vv_batch_parse(b.p, b.n + 5, &h), 0);
    static const struct { int at, size; uint64_t v;
    } bad[] = {
        {LENGTH, 4, 48},        {LENGTH, 4, 0},     {LENGTH, 4, 0xffffffff}, {MAGIC, 1, 1},
        {MAGIC, 1, 3},          {ATTRIBUTES, 2, 5}, {ATTRIBUTES, 2, 7},      {LAST_DELTA, 4, 0xffffffff},
        {COUNT, 4, 0x80000000}, {0, 8, UINT64_MAX}, {0, 8, INT64_MAX - 2},
    };
    for (size_t i = 0; i < VV_COUNT(bad); i++) {
        memcpy(copy, b.p, b.n);
        for (int k = 0; k < bad[i].size; k++)
            copy[bad[i].at + k] = (uint8_t)(bad[i].v >> 8 * (bad[i].size - 1 - k));
        assert_int_equal(vv_batch_parse(copy, b.n, &h), VV_E_CORRUPT);
    }
    memcpy(copy, b.p, b.n);
    vv_put64(copy, INT64_MAX - 4); /* the last offset is INT64_MAX - 1: there is one behind it */
    assert_int_equal(vv_batch_parse(copy, b.n, &h), 0);
    vv_put32(copy + COUNT, 0); /* compaction may leave an empty batch */
    assert_int_equal(vv_batch_parse(copy, b.n, &h), 0);
    free(copy);
    free(b.p);
}

static void cuts(void **state)
{
    (void)state;
    for (int codec = 0; codec <= VV_CODEC_ZSTD; codec++) {
        struct bytes b = four((enum vv_codec)codec);
        struct vv_batch out;
        int32_t bad;
        for (size_t i = 0; i < b.n; i++) {
            assert_int_equal(check_n(&b, i, &lax, &out, &bad), i ? VV_CORRUPT_MESSAGE : VV_INVALID_RECORD);
            struct bytes cut = {malloc(RECORDS + b.n), i}; /* the same, with length and CRC that fit */
            if (i < RECORDS) cut.n = RECORDS;
            memcpy(cut.p, b.p, b.n);
            seal(&cut);
            int err = check_n(&cut, cut.n, &lax, &out, &bad);
            assert_true(err == VV_CORRUPT_MESSAGE || err == VV_INVALID_RECORD);
            free(cut.p);
        }
        assert_int_equal(check(&b, &lax), 0);
        free(b.p);
    }
}

static void flips(void **state)
{
    (void)state;
    for (int codec = 0; codec <= VV_CODEC_ZSTD; codec++) {
        struct bytes b = four((enum vv_codec)codec);
        for (size_t i = 0; i < b.n * 8; i++) {
            size_t at = i / 8;
            struct bytes f = {malloc(b.n), b.n};
            memcpy(f.p, b.p, b.n);
            f.p[at] = (uint8_t)(f.p[at] ^ (1 << i % 8));
            int err = check(&f, &lax);
            /* The leader epoch is the broker's to write; nothing else may change. */
            if (at >= EPOCH && at < MAGIC) assert_int_equal(err, 0);
            else if (at == MAGIC)
                assert_int_equal(err, f.p[MAGIC] < 2 ? VV_UNSUPPORTED_FOR_MESSAGE_FORMAT : VV_CORRUPT_MESSAGE);
            else if (at < LENGTH) assert_true(err == VV_CORRUPT_MESSAGE || err == VV_INVALID_RECORD);
            else if (at < EPOCH)
                assert_true(err == VV_CORRUPT_MESSAGE || err == VV_INVALID_RECORD || err == VV_MESSAGE_TOO_LARGE);
            else assert_int_equal(err, VV_CORRUPT_MESSAGE);
            free(f.p);
        }
        free(b.p);
    }
}

/* Damage under a CRC that fits: what is accepted must be readable to the end, with the declared count. */
static void sealed_flips(void **state)
{
    (void)state;
    int refused = 0, accepted = 0;
    for (int codec = 0; codec <= VV_CODEC_ZSTD; codec++) {
        struct bytes b = four((enum vv_codec)codec);
        for (size_t i = ATTRIBUTES * 8; i < b.n * 8; i++) {
            struct bytes f = {malloc(b.n), b.n};
            struct vv_batch h;
            struct seen s = {0};
            memcpy(f.p, b.p, b.n);
            f.p[i / 8] = (uint8_t)(f.p[i / 8] ^ (1 << i % 8));
            seal(&f);
            int err = check(&f, &lax);
            int seen = vv_batch_parse(f.p, f.n, &h) ? VV_E_CORRUPT : vv_batch_each(f.p, &h, 1 << 20, see, &s);
            if (!err) {
                assert_int_equal(seen, 0);
                assert_int_equal(s.n, h.records);
                assert_true(vv_batch_crc_ok(f.p, &h));
            }
            refused += err != 0;
            accepted += err == 0;
            free(f.p);
        }
        free(b.p);
    }
    assert_true(refused > 500 && accepted > 500);
}

static void frame_rules(void **state)
{
    (void)state;
    struct vv_batch_rules rules = lax;
    struct bytes b = four(VV_CODEC_NONE), two = {malloc(2 * b.n), 2 * b.n};
    memcpy(two.p, b.p, b.n);
    memcpy(two.p + b.n, b.p, b.n);
    assert_int_equal(check(&two, &lax), VV_INVALID_RECORD); /* more than one batch */
    two.n = b.n + 1;
    assert_int_equal(check(&two, &lax), VV_INVALID_RECORD);
    free(two.p);
    rules.max_bytes = b.n;
    assert_int_equal(check(&b, &rules), 0);
    rules.max_bytes = b.n - 1;
    assert_int_equal(check(&b, &rules), VV_MESSAGE_TOO_LARGE);
    b.p[MAGIC] = 0;
    assert_int_equal(check(&b, &lax), VV_UNSUPPORTED_FOR_MESSAGE_FORMAT);
    b.p[MAGIC] = 1;
    assert_int_equal(check(&b, &lax), VV_UNSUPPORTED_FOR_MESSAGE_FORMAT);
    struct vv_batch out;
    int32_t bad;
    assert_int_equal(check_n(&b, 17, &lax, &out, &bad),
                     VV_UNSUPPORTED_FOR_MESSAGE_FORMAT); /* old messages are shorter */
    free(b.p);
}

#define WITH(field, put, value, err)                                                                                   \
    do {                                                                                                               \
        struct bytes b_ = four(VV_CODEC_NONE);                                                                         \
        put(b_.p + (field), (value));                                                                                  \
        refuse(b_, &lax, (err), -1);                                                                                   \
    } while (0)

static void header_rules(void **state)
{
    (void)state;
    struct vv_batch_rules own = lax;
    own.client = false;
    WITH(COUNT, vv_put32, 3, VV_INVALID_RECORD);
    WITH(COUNT, vv_put32, 0, VV_INVALID_RECORD);
    WITH(COUNT, vv_put32, INT32_MAX, VV_INVALID_RECORD);
    WITH(COUNT, vv_put32, (uint32_t)-1, VV_CORRUPT_MESSAGE);
    WITH(LAST_DELTA, vv_put32, 4, VV_INVALID_RECORD);
    WITH(LAST_DELTA, vv_put32, INT32_MAX, VV_INVALID_RECORD);
    WITH(0, vv_put64, 1, VV_INVALID_RECORD);
    WITH(ATTRIBUTES, vv_put16, 0x20, VV_INVALID_RECORD); /* control */
    WITH(ATTRIBUTES, vv_put16, 0x10, VV_INVALID_RECORD); /* transactional without a producer */
    WITH(PRODUCER, vv_put64, 5, VV_INVALID_RECORD);      /* producer without epoch and sequence */
    struct bytes b = four(VV_CODEC_NONE);
    vv_put64(b.p + PRODUCER, 5);
    vv_put16(b.p + PRODUCER_EPOCH, 0);
    refuse(b, &lax, VV_INVALID_RECORD, -1); /* without sequence */
    b = four(VV_CODEC_NONE);
    vv_put64(b.p + PRODUCER, 5);
    vv_put32(b.p + SEQUENCE, 0);
    refuse(b, &lax, VV_INVALID_RECORD, -1); /* without epoch */
    b = four(VV_CODEC_NONE);
    vv_put64(b.p + PRODUCER, 5);
    vv_put16(b.p + PRODUCER_EPOCH, 0);
    vv_put32(b.p + SEQUENCE, 0);
    vv_put16(b.p + ATTRIBUTES, 0x10);
    accept(b, &lax);
    b = four(VV_CODEC_NONE); /* the broker's own may be markers */
    vv_put64(b.p + PRODUCER, 5);
    vv_put16(b.p + PRODUCER_EPOCH, 0);
    vv_put16(b.p + ATTRIBUTES, 0x30);
    accept(b, &own);
}

static void record_rules(void **state)
{
    (void)state;
    static const struct { uint8_t n, bytes[24]; int32_t count, bad;
    } cases[] = {
        {0, {0}, 1, 0},                                                   /* nothing there */
        {7, {Z(6), 0, 0, 0, 1, 1, 0}, 2, 1},                              /* one of two */
        {14, {Z(6), 0, 0, 0, 1, 1, 0, Z(6), 0, 0, Z(1), 1, 1, 0}, 1, -1}, /* two of one */
        {8, {Z(6), 0, 0, 0, 1, 1, 0, 0}, 1, -1},                          /* a byte behind it */
        {14, {Z(6), 0, 0, 0, 1, 1, 0, Z(6), 0, 0, Z(2), 1, 1, 0}, 2, 1},  /* deltas 0, 2 */
        {14, {Z(6), 0, 0, 0, 1, 1, 0, Z(6), 0, 0, Z(0), 1, 1, 0}, 2, 1},  /* deltas 0, 0 */
        {7, {Z(6), 0, 0, 1, 1, 1, 0}, 1, 0},                              /* delta -1 */
        {7, {Z(7), 0, 0, 0, 1, 1, 0}, 1, 0},                              /* longer than the batch */
        {7, {Z(5), 0, 0, 0, 1, 1, 0}, 1, 0},                              /* shorter than its fields */
        {8, {Z(7), 0, 0, 0, 1, 1, 0, 0}, 1, 0},                           /* longer than its fields */
        {7, {1, 0, 0, 0, 1, 1, 0}, 1, 0},                                 /* length -1 */
        {7, {0, 0, 0, 0, 1, 1, 0}, 1, 0},                                 /* length 0 */
        {5, {0x80, 0x80, 0x80, 0x80, 0x80}, 1, 0},                        /* a varint without end */
        {6, {0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, 1, 0},                  /* an over-long one */
        {7, {Z(6), 0, 0, 0, 3, 1, 0}, 1, 0},                              /* key of -2 bytes */
        {7, {Z(6), 0, 0, 0, 1, 3, 0}, 1, 0},                              /* value of -2 bytes */
        {7, {Z(6), 0, 0, 0, Z(3), 1, 0}, 1, 0},                           /* key longer than the record */
        {7, {Z(6), 0, 0, 0, 1, Z(2), 0}, 1, 0},                           /* value longer than the record */
        {11, {Z(10), 0, 0, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0}, 1, 0}, /* value of INT32_MAX bytes */
        {7, {Z(6), 0, 0, 0, 1, 1, 1}, 1, 0},                              /* -1 headers */
        {7, {Z(6), 0, 0, 0, 1, 1, Z(1)}, 1, 0},                           /* one header, no bytes */
        {11, {Z(10), 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f}, 1, 0}, /* INT32_MAX headers */
        {9, {Z(8), 0, 0, 0, 1, 1, Z(1), 1, 1}, 1, 0},                     /* a header's key is null */
        {10, {Z(9), 0, 0, 0, 1, 1, Z(1), Z(1), 'h', 3}, 1, 0},            /* a header's value of -2 bytes */
        {9, {Z(8), 0, 0, 0, 1, 1, Z(1), Z(1), 'h'}, 1, 0},                /* a header without value */
        {10, {Z(9), 0, 0, 0, 1, 1, Z(1), Z(2), 'h', 1}, 1, 0},            /* a header's key longer than the record */
    };
    for (int codec = 0; codec <= VV_CODEC_ZSTD; codec++) {
        for (size_t i = 0; i < VV_COUNT(cases); i++)
            refuse(wrap(cases[i].bytes, cases[i].n, cases[i].count, (enum vv_codec)codec), &lax, VV_INVALID_RECORD,
                   cases[i].bad);
        accept(wrap(R(Z(6), 0, 0, 0, 1, 1, 0), 1, (enum vv_codec)codec), &lax);
        accept(wrap(R(Z(12), 0xff, 0, 0, 1, 1, Z(2), 0, 1, Z(1), 'h', Z(1), 'v'), 1, (enum vv_codec)codec), &lax);
    }
    struct vv_batch_rules compacted = lax;
    compacted.compacted = true;
    refuse(four(VV_CODEC_NONE), &compacted, VV_INVALID_RECORD, 1);
    refuse(four(VV_CODEC_LZ4), &compacted, VV_INVALID_RECORD, 1);
    accept(wrap(R(Z(6), 0, 0, 0, 0, 1, 0), 1, VV_CODEC_NONE), &compacted); /* an empty key is a key */
}

static void compression_rules(void **state)
{
    (void)state;
    enum { SIZE = 40 << 20 };
    uint8_t *record = calloc(1, SIZE);
    struct vv_batch_rules rules = lax;
    size_t n = vv_varint_put(record, SIZE - 20);
    n += 3; /* attributes and deltas are 0 */
    n += vv_varint_put(record + n, -1);
    n += vv_varint_put(record + n, SIZE - 30);
    for (int codec = 1; codec <= VV_CODEC_ZSTD; codec++) {
        struct bytes b = wrap(record, SIZE, 1, (enum vv_codec)codec);
        rules.max_bytes = b.n;
        refuse(b, &rules, VV_INVALID_RECORD, -1); /* a bomb */
        b = four((enum vv_codec)codec);
        memset(b.p + RECORDS, 0x5a, b.n - RECORDS);
        refuse(b, &lax, VV_CORRUPT_MESSAGE, -1);
    }
    free(record);
}

static void time_bounds(void **state)
{
    (void)state;
    struct vv_batch_rules rules = lax;
    rules.after_max_ms = 50;
    accept(four(VV_CODEC_NONE), &rules);
    rules.after_max_ms = 49;
    refuse(four(VV_CODEC_NONE), &rules, VV_INVALID_TIMESTAMP, 1);
    refuse(four(VV_CODEC_ZSTD), &rules, VV_INVALID_TIMESTAMP, 1);
    rules.ts_type = VV_LOG_APPEND_TIME; /* then the sender's times do not matter */
    accept(four(VV_CODEC_NONE), &rules);
    rules = lax;
    rules.before_max_ms = 7;
    accept(four(VV_CODEC_NONE), &rules);
    rules.before_max_ms = 6;
    refuse(four(VV_CODEC_NONE), &rules, VV_INVALID_TIMESTAMP, 2);
    rules.before_max_ms = rules.after_max_ms = 0;
    struct bytes b = wrap(R(Z(6), 0, 0, 0, 1, 1, 0), 1, VV_CODEC_NONE);
    vv_put64(b.p + BASE_TS, UINT64_MAX); /* no timestamp is never out of bounds */
    accept(b, &rules);
    b = wrap(R(Z(6), 0, 0, 0, 1, 1, 0), 1, VV_CODEC_NONE);
    vv_put64(b.p + BASE_TS, (uint64_t)INT64_MIN);
    refuse(b, &rules, VV_INVALID_TIMESTAMP, 0);
    b = wrap(R(Z(6), 0, 0, 0, 1, 1, 0), 1, VV_CODEC_NONE);
    vv_put64(b.p + BASE_TS, INT64_MAX);
    refuse(b, &rules, VV_INVALID_TIMESTAMP, 0);
    b = wrap(R(Z(6), 0, Z(1), 0, 1, 1, 0), 1, VV_CODEC_NONE); /* base + delta does not fit */
    vv_put64(b.p + BASE_TS, INT64_MAX);
    refuse(b, &lax, VV_INVALID_TIMESTAMP, 0);
    b = four(VV_CODEC_NONE); /* only the log stamps */
    vv_put16(b.p + ATTRIBUTES, 0x08);
    refuse(b, &lax, VV_INVALID_TIMESTAMP, 0);
}

static void stamps(void **state)
{
    (void)state;
    for (int codec = 0; codec <= VV_CODEC_ZSTD; codec++) {
        struct vv_batch_rules rules = lax;
        struct vv_batch out, again;
        int32_t bad;
        struct bytes b = four((enum vv_codec)codec), before = four((enum vv_codec)codec);
        assert_int_equal(check_n(&b, b.n, &rules, &out, &bad), 0);
        assert_memory_equal(b.p, before.p, b.n); /* right already: not a byte changes */
        vv_put64(b.p + MAX_TS, NOW + 5000);      /* a wrong maximum is corrected */
        seal(&b);
        assert_int_equal(check_n(&b, b.n, &rules, &out, &bad), 0);
        assert_int_equal(out.max_ts, NOW + 50);
        assert_memory_equal(b.p, before.p, b.n);
        rules.ts_type = VV_LOG_APPEND_TIME;
        rules.now_ms = NOW + 777;
        assert_int_equal(check_n(&b, b.n, &rules, &out, &bad), 0);
        assert_int_equal(vv_batch_parse(b.p, b.n, &again), 0);
        assert_true(vv_batch_crc_ok(b.p, &again));
        assert_int_equal(again.crc, out.crc); /* *out is the patched header */
        assert_int_equal(again.max_ts, out.max_ts);
        assert_int_equal(again.attributes, out.attributes);
        assert_int_equal(again.ts_type, out.ts_type);
        assert_int_equal(out.ts_type, VV_LOG_APPEND_TIME);
        assert_int_equal(out.max_ts, NOW + 777);
        assert_int_equal(out.attributes, 0x08 | codec);
        assert_int_equal(out.base_ts, NOW);
        assert_memory_equal(b.p + RECORDS, before.p + RECORDS, b.n - RECORDS);
        free(b.p);
        free(before.p);
    }
    struct bytes b = wrap(R(Z(6), 0, 0, 0, 1, 1, 0), 1, VV_CODEC_NONE);
    struct vv_batch out;
    int32_t bad;
    vv_put64(b.p + BASE_TS, (uint64_t)-500); /* before the epoch: there is no maximum, as in Kafka */
    seal(&b);
    assert_int_equal(check_n(&b, b.n, &lax, &out, &bad), 0);
    assert_int_equal(out.max_ts, -1);
    free(b.p);
}

static void finds_time(void **state)
{
    (void)state;
    for (int codec = 0; codec <= VV_CODEC_ZSTD; codec++) {
        struct bytes one = four((enum vv_codec)codec), b = {malloc(one.n * 3), one.n * 3};
        struct vv_time_hit hit;
        for (int i = 0; i < 3; i++) { /* offsets 100.., 104.., 108..; base times NOW, NOW + 100, NOW + 200 */
            memcpy(b.p + (size_t)i * one.n, one.p, one.n);
            struct bytes part = {b.p + (size_t)i * one.n, one.n};
            vv_put64(part.p, 100 + (uint64_t)i * 4);
            vv_put32(part.p + EPOCH, 7 + (uint32_t)i);
            vv_put64(part.p + BASE_TS, NOW + 100 * (uint64_t)i);
            vv_put64(part.p + MAX_TS, NOW + 50 + 100 * (uint64_t)i);
            seal(&part);
        }
        static const struct { int64_t ts, from, offset, found; int32_t epoch; } asks[] = {
            {NOW - 100, 0, 100, NOW, 7},        {INT64_MIN, 0, 100, NOW, 7},        {NOW, 0, 100, NOW, 7},
            {NOW + 1, 0, 101, NOW + 50, 7},     {NOW + 50, 0, 101, NOW + 50, 7},    {NOW + 51, 0, 104, NOW + 100, 8},
            {NOW, 102, 103, NOW + 20, 7},       {NOW + 1, 104, 104, NOW + 100, 8},  {NOW + 50, 102, 104, NOW + 100, 8},
            {NOW + 94, 105, 105, NOW + 150, 8}, {NOW + 250, 0, 109, NOW + 250, 9},
        };
        for (size_t i = 0; i < VV_COUNT(asks); i++) {
            assert_int_equal(vv_batches_find_time(b.p, b.n, asks[i].ts, asks[i].from, &hit), 0);
            assert_int_equal(hit.offset, asks[i].offset);
            assert_int_equal(hit.timestamp, asks[i].found);
            assert_int_equal(hit.leader_epoch, asks[i].epoch);
        }
        assert_int_equal(vv_batches_find_time(b.p, b.n, NOW + 251, 0, &hit), VV_E_NOENT);
        assert_int_equal(vv_batches_find_time(b.p, b.n, NOW, 112, &hit), VV_E_NOENT);
        assert_int_equal(vv_batches_find_time(b.p, b.n, NOW + 250, 110, &hit), VV_E_NOENT);
        assert_int_equal(vv_batches_find_time(b.p, 0, 0, 0, &hit), VV_E_NOENT);
        assert_int_equal(vv_batches_find_time(b.p, b.n - 1, NOW + 250, 0, &hit), VV_E_CORRUPT);
        b.p[one.n + MAGIC] = 9;
        assert_int_equal(vv_batches_find_time(b.p, b.n, NOW + 250, 0, &hit), VV_E_CORRUPT);
        assert_int_equal(vv_batches_find_time(b.p, b.n, NOW, 0, &hit), 0);
        free(b.p);
        free(one.p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(builds),       cmocka_unit_test(each_record),  cmocka_unit_test(headers_and_gaps),
        cmocka_unit_test(parse_refuses), cmocka_unit_test(cuts),        cmocka_unit_test(flips),
        cmocka_unit_test(sealed_flips), cmocka_unit_test(frame_rules),  cmocka_unit_test(header_rules),
        cmocka_unit_test(record_rules), cmocka_unit_test(compression_rules), cmocka_unit_test(time_bounds),
        cmocka_unit_test(stamps),       cmocka_unit_test(finds_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
