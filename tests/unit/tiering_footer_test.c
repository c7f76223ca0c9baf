/* Footer and keys: round trip, suffix reads that are too short, every single-bit change refused, foreign identity. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>

#include "footer.h"

static const uint8_t data[70000];

static void sample(struct vv_footer *f)
{
    *f = (struct vv_footer){.key = {.partition = 3, .base = 100, .last = 299, .epoch = 7, .generation = 1, .nonce = 0xabcdef},
                            .records = 150, .writer_epoch = 12, .first_ts = 5, .max_ts = 900, .sealed_ms = 1000, .log_start = 20,
                            .topic = strdup("flights"), .cluster_id = strdup("c1")};
    memset(f->key.topic_id.b, 0x5a, 16);
    assert_int_equal(vv_blocks_append(&f->blocks, data, 65536, 100, 5, 100, 100), 0);
    assert_int_equal(vv_blocks_append(&f->blocks, data, 4464, 200, 50, 900, 50), 0);
    f->data_bytes = 70000;
    f->epoch_count = 2;
    f->epochs = calloc(2, sizeof *f->epochs);
    f->epochs[0] = (struct vv_epoch){1, 0};
    f->epochs[1] = (struct vv_epoch){7, 90};
    f->aborted_count = 1;
    f->aborted = calloc(1, sizeof *f->aborted);
    f->aborted[0] = (struct vv_aborted){9, 110, 120, 121};
    f->snapshot = (uint8_t *)strdup("snap");
    f->snapshot_n = 4;
}

static void round_trip(void **state)
{
    (void)state;
    struct vv_footer f, g;
    struct vv_error e;
    uint8_t *p;
    size_t n, need = 0;
    sample(&f);
    assert_int_equal(vv_footer_encode(&f, &p, &n), 0);
    uint64_t object = f.data_bytes + n;
    assert_int_equal(vv_footer_decode(p, n, object, NULL, &g, &need, &e), 0);
    assert_int_equal(vv_footer_check(&g, &f.key, "c1", &e), 0);
    assert_int_equal(vv_footer_check(&g, &f.key, "other", &e), VV_E_CORRUPT);
    struct vv_segkey foreign = f.key;
    foreign.base++;
    assert_int_equal(vv_footer_check(&g, &foreign, NULL, &e), VV_E_CORRUPT);
    assert_string_equal(g.topic, "flights");
    assert_int_equal(g.records, 150);
    assert_int_equal(g.writer_epoch, 12);
    assert_int_equal(g.log_start, 20);
    assert_int_equal(g.blocks.count, 2);
    assert_int_equal(g.epoch_count, 2);
    assert_int_equal(g.epochs[1].start, 90);
    assert_int_equal(g.aborted[0].last_stable_offset, 121);
    assert_memory_equal(g.snapshot, "snap", 4);
    vv_footer_release(&g);
    /* A suffix that is too short says how much is enough. */
    assert_int_equal(vv_footer_decode(p + n - 10, 10, object, NULL, &g, &need, &e), VV_E_AGAIN);
    assert_int_equal(need, VV_TRAILER_BYTES);
    assert_int_equal(vv_footer_decode(p + n - 40, 40, object, NULL, &g, &need, &e), VV_E_AGAIN);
    assert_int_equal(need, n);
    /* An object cut by one byte, or with other lengths than the trailer tells. */
    assert_int_equal(vv_footer_decode(p, n - 1, object - 1, NULL, &g, &need, &e), VV_E_CORRUPT);
    assert_int_equal(vv_footer_decode(p, n, object + 1, NULL, &g, &need, &e), VV_E_CORRUPT);
    for (size_t i = 0; i < n * 8; i++) {
        p[i / 8] ^= (uint8_t)(1 << (i % 8));
        int err = vv_footer_decode(p, n, object, NULL, &g, &need, &e);
        assert_int_equal(err, VV_E_CORRUPT);
        p[i / 8] ^= (uint8_t)(1 << (i % 8));
    }
    free(p);
    vv_footer_release(&f);
}

static void refuses_a_table_of_other_bytes(void **state)
{
    (void)state;
    struct vv_footer f;
    uint8_t *p;
    size_t n;
    sample(&f);
    f.data_bytes--;
    assert_int_equal(vv_footer_encode(&f, &p, &n), VV_E_CORRUPT);
    vv_footer_release(&f);
}

static void unknown_sections_are_skipped(void **state)
{
    (void)state;
    struct vv_footer f, g;
    uint8_t *p;
    size_t n;
    sample(&f);
    assert_int_equal(vv_footer_encode(&f, &p, &n), 0);
    uint8_t *q = malloc(n + 11);
    memcpy(q, "XTRA\0\0\0\3abc", 11);
    memcpy(q + 11, p, n);
    uint8_t *t = q + 11 + n - VV_TRAILER_BYTES;
    size_t len = n - VV_TRAILER_BYTES + 11;
    vv_put32(t + 8, (uint32_t)len);
    vv_put32(t + 12, vv_crc32c(0, q, len));
    vv_put32(t + 28, vv_crc32c(0, t, 28));
    assert_int_equal(vv_footer_decode(q, n + 11, f.data_bytes + n + 11, NULL, &g, NULL, NULL), 0);
    assert_string_equal(g.topic, "flights");
    vv_footer_release(&g);
    free(q);
    free(p);
    vv_footer_release(&f);
}

static void keys(void **state)
{
    (void)state;
    char key[VV_KEY_MAX], other[VV_KEY_MAX];
    struct vv_segkey k = {.partition = 42, .base = 7, .last = 1234567890123, .epoch = 255, .generation = 2, .nonce = 0xfeed}, r;
    memset(k.topic_id.b, 1, 16);
    vv_segkey_format(&k, key);
    assert_string_equal(key, "v1/t/AQEBAQEBAQEBAQEBAQEBAQ/00042/00000000000000000007-00000001234567890123-000000ff-0002-"
                             "000000000000feed.seg");
    assert_int_equal(vv_segkey_parse(key, &r), 0);
    assert_int_equal(r.nonce, k.nonce);
    assert_int_equal(r.last, k.last);
    size_t n = strlen(key);
    for (size_t i = 0; i < n; i++) { /* cut anywhere, or one character changed to something out of place */
        char c = key[i];
        key[i] = 0;
        assert_int_equal(vv_segkey_parse(key, &r), VV_E_PROTO);
        key[i] = '!';
        assert_int_equal(vv_segkey_parse(key, &r), VV_E_PROTO);
        key[i] = c;
    }
    vv_key_after(k.topic_id, 42, 7, other);
    assert_true(strcmp(other, key) > 0);
    k.base = 8;
    vv_segkey_format(&k, key);
    assert_true(strcmp(other, key) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(refuses_a_table_of_other_bytes),
        cmocka_unit_test(unknown_sections_are_skipped),
        cmocka_unit_test(keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
