/* log_golden_test.c — against Kafka 4.2's own classes (tests/golden/batches.bin, producers.bin; tests/golden/run makes
 * more of them): every batch that Kafka built passes the leader's check untouched and holds what Kafka put into it; the
 * producer state answers as Kafka's does, batch by batch, and its snapshot is Kafka's.
 *
 * Arguments, for golden/run: a directory with the two files, and a file for batches of ours, which Kafka reads then. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "compress.h"
#include "prodstate.h"

static const char *dir = VARVE_SOURCE_DIR "/tests/golden", *ours;

static uint8_t *load(const char *name, size_t *n)
{
    char path[4096];
    uint8_t *p;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(vv_fs_read_file(&vv_env_posix, path, (size_t)1 << 30, &p, n), 0);
    return p;
}

/* ---- batches ---- */

struct want { /* what Kafka put in, in the file's form */
    const uint8_t *at;
    struct vv_batch_builder *builder; /* of our own, without headers; NULL when not wanted */
    int32_t records;
    bool headers;
};

static void expect_bytes(struct want *w, const uint8_t *p, int32_t n)
{
    assert_int_equal((int32_t)vv_get32(w->at), n);
    w->at += 4;
    if (n < 0) {
        assert_null(p);
        return;
    }
    if (n) assert_memory_equal(w->at, p, (size_t)n);
    w->at += n;
}

static int expect_record(void *ctx, const struct vv_record *r)
{
    struct want *w = ctx;
    const uint8_t *h = r->headers_p, *end = h + r->headers_n;
    assert_int_equal(r->offset, w->records);
    assert_int_equal((int64_t)vv_get64(w->at), r->timestamp);
    w->at += 8;
    w->records++;
    expect_bytes(w, r->key, r->key_n);
    expect_bytes(w, r->value, r->value_n);
    assert_int_equal(vv_get32(w->at), r->headers);
    w->at += 4;
    for (int32_t i = 0; i < 2 * r->headers; i++) { /* keys and values */
        int32_t n;
        h += vv_varint_get(h, (size_t)(end - h), &n);
        expect_bytes(w, n < 0 ? NULL : h, n);
        h += VV_MAX(n, 0);
    }
    assert_ptr_equal(h, end);
    w->headers = w->headers || r->headers;
    assert_int_equal(vv_batch_builder_add(w->builder, r->timestamp, r->key, r->key_n, r->value, r->value_n), 0);
    return 0;
}

static void emit(FILE *f, const uint8_t *batch, size_t n, const uint8_t *content, size_t content_n)
{
    uint8_t length[4];
    vv_put32(length, (uint32_t)n);
    assert_int_equal(fwrite(length, 1, 4, f), 4);
    assert_int_equal(fwrite(batch, 1, n, f), n);
    assert_int_equal(fwrite(content, 1, content_n, f), content_n);
}

/* The same records by our codecs, and by our builder when it can carry them. */
static void emit_ours(FILE *f, const uint8_t *p, const struct vv_batch *b, struct want *w, const uint8_t *content)
{
    size_t content_n = (size_t)(w->at - content), plain_n, packed_n, n;
    uint8_t *plain, *packed, *built;
    assert_int_equal(
        vv_decompress(b->codec, p + VV_BATCH_HEADER, b->bytes - VV_BATCH_HEADER, 1 << 26, &plain, &plain_n), 0);
    for (int codec = 0; codec <= VV_CODEC_ZSTD; codec++) {
        assert_int_equal(vv_compress((enum vv_codec)codec, plain, plain_n, &packed, &packed_n), 0);
        uint8_t *q = malloc(VV_BATCH_HEADER + packed_n);
        memcpy(q, p, VV_BATCH_HEADER);
        memcpy(q + VV_BATCH_HEADER, packed, packed_n);
        q[22] = (uint8_t)((q[22] & ~7) | codec);
        vv_put32(q + 8, (uint32_t)(VV_BATCH_HEADER + packed_n - VV_BATCH_OVERHEAD));
        vv_put32(q + 17, vv_crc32c(0, q + 21, VV_BATCH_HEADER + packed_n - 21));
        emit(f, q, VV_BATCH_HEADER + packed_n, content, content_n);
        free(q);
        free(packed);
    }
    free(plain);
    assert_int_equal(vv_batch_builder_finish(w->builder, &built, &n), 0);
    if (!w->headers) emit(f, built, n, content, content_n);
}

static void batches(void **state)
{
    (void)state;
    size_t n, at = 0, stamped = 0;
    uint8_t *file = load("batches.bin", &n);
    FILE *f = ours ? fopen(ours, "wb") : NULL;
    assert_true(!ours || f);
    int seen[VV_CODEC_ZSTD + 1] = {0};
    while (at < n) {
        size_t size = vv_get32(file + at);
        uint8_t *p = file + at + 4, *before = malloc(size);
        const uint8_t *content = p + size;
        struct want w = {.at = content + 4, .builder = vv_batch_builder_new()};
        struct vv_batch b;
        struct vv_error e = {0};
        int32_t bad;
        struct vv_batch_rules rules = {.max_bytes = size,
                                       .output_max = 1 << 26,
                                       .now_ms = 1700000000000,
                                       .client = true,
                                       .before_max_ms = 1000000,
                                       .after_max_ms = 1000000};
        memcpy(before, p, size);
        assert_int_equal(vv_batch_parse(p, size, &b), 0);
        int want = b.ts_type == VV_LOG_APPEND_TIME ? VV_INVALID_TIMESTAMP : 0;
        assert_int_equal(vv_batch_check(p, size, &rules, &b, &bad, &e), want);
        assert_memory_equal(p, before, size);
        stamped += want != 0;
        seen[b.codec]++;
        assert_int_equal(vv_batch_each(p, &b, 1 << 26, expect_record, &w), 0);
        assert_int_equal(w.records, vv_get32(content));
        assert_int_equal(w.records, b.records);
        if (f) emit_ours(f, p, &b, &w, content);
        at = (size_t)(w.at - file);
        vv_batch_builder_free(w.builder);
        free(before);
    }
    for (int i = 0; i <= VV_CODEC_ZSTD; i++)
        assert_true(seen[i] >= 5);
    assert_true(stamped > 0);
    if (f) assert_int_equal(fclose(f), 0);
    free(file);
}

/* ---- producers ---- */

static int by_id(const void *a, const void *b)
{
    return memcmp(a, b, 8);
}

static void same_snapshot(const uint8_t *kafka, size_t n, struct vv_prodstate *s)
{
    uint8_t *mine, *sorted = malloc(n);
    size_t mine_n;
    struct vv_prodstate *t = vv_prodstate_new();
    assert_int_equal(vv_prodstate_decode(t, kafka, n), 0);
    assert_int_equal(vv_prodstate_count(t), vv_prodstate_count(s));
    assert_int_equal(vv_prodstate_first_unstable(t), vv_prodstate_first_unstable(s));
    memcpy(sorted, kafka, n);
    qsort(sorted + 10, (n - 10) / 46, 46, by_id);
    for (int round = 0; round < 2; round++) { /* the state replayed, and the one from Kafka's bytes */
        assert_int_equal(vv_prodstate_encode(round ? t : s, &mine, &mine_n), 0);
        assert_int_equal(mine_n, n);
        qsort(mine + 10, (n - 10) / 46, 46, by_id);
        for (size_t i = 10; i < n; i += 46) {
            if (!round) memcpy(mine + i + 34, sorted + i + 34, 4); /* the coordinator epoch of a marker is not kept */
            assert_memory_equal(mine + i, sorted + i, 46);
        }
        free(mine);
    }
    free(sorted);
    vv_prodstate_free(t);
}

static void producers(void **state)
{
    (void)state;
    size_t n, unstable = 0, answers[5] = {0};
    uint8_t *file = load("producers.bin", &n), *at = file + 4;
    struct vv_prodstate *s = vv_prodstate_new();
    for (uint32_t i = 0; i < vv_get32(file); i++, at += 81) {
        struct vv_batch b;
        bool duplicate;
        int64_t base = -1, last = -1, first = (int64_t)vv_get64(at + 73);
        struct vv_error e = {0};
        int want = (int)vv_get32(at + 61);
        assert_int_equal(vv_batch_parse(at, 61, &b), VV_E_AGAIN); /* the header alone, decoded all the same */
        int err = vv_prodstate_check(s, &b, &duplicate, &base, &last, &e);
        if (duplicate) err = 1000;
        if (err != want) print_message("batch %u: %s\n", i, e.text);
        assert_int_equal(err, want);
        assert_int_equal(base, (int64_t)vv_get64(at + 65));
        if (duplicate) assert_int_equal(last, base + b.last_delta);
        if (!err) assert_int_equal(vv_prodstate_update(s, &b), 0);
        assert_int_equal(vv_prodstate_first_unstable(s), first < 0 ? INT64_MAX : first);
        answers[err == 0 ? 0 : err == 1000 ? 1 : err == 45 ? 2 : err == 47 ? 3 : 4]++;
        unstable += first < 0;
    }
    for (size_t i = 0; i < 5; i++)
        assert_true(answers[i] > 10);
    assert_true(unstable > 10);
    same_snapshot(at, n - (size_t)(at - file), s);
    vv_prodstate_free(s);
    free(file);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(batches), cmocka_unit_test(producers)};
    if (argc > 1) dir = argv[1];
    if (argc > 2) ours = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
