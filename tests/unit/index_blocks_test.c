/* The block table: accumulation, search, encoding, and every kind of damage refused. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>

#include "varve/blocks.h"

static void fill(struct vv_blocks *t, int batches, size_t n)
{
    uint8_t *p = malloc(n);
    for (int i = 0; i < batches; i++) {
        memset(p, i, n);
        assert_int_equal(vv_blocks_append(t, p, n, i * 10, 1000 - i, 1000 + i, 10), 0);
    }
    free(p);
}

static void accumulates(void **state)
{
    (void)state;
    struct vv_blocks t = {0};
    fill(&t, 10, 20000); /* three batches to a block */
    assert_int_equal(t.count, 4);
    assert_int_equal(t.bytes, 200000);
    assert_int_equal(t.records, 100);
    assert_int_equal(t.v[1].at, 60000);
    assert_int_equal(t.v[1].first_offset, 30);
    assert_int_equal(t.v[1].min_ts, 1000 - 5);
    assert_int_equal(t.v[1].max_ts, 1000 + 5);
    uint8_t *p = malloc(60000);
    for (int i = 0; i < 3; i++) memset(p + i * 20000, 3 + i, 20000);
    assert_int_equal(t.v[1].crc, vv_crc32c(0, p, 60000));
    free(p);
    vv_blocks_release(&t);
}

static void large_batch_is_its_own_block(void **state)
{
    (void)state;
    struct vv_blocks t = {0};
    fill(&t, 3, 200000);
    assert_int_equal(t.count, 3);
    vv_blocks_release(&t);
}

static void sealed_table_starts_a_new_block(void **state)
{
    (void)state;
    struct vv_blocks t = {0};
    fill(&t, 1, 10);
    vv_blocks_seal(&t);
    uint8_t b[10] = {0};
    assert_int_equal(vv_blocks_append(&t, b, sizeof b, 10, 0, 0, 1), 0);
    assert_int_equal(t.count, 2);
    vv_blocks_release(&t);
}

static void finds(void **state)
{
    (void)state;
    struct vv_blocks t = {0};
    fill(&t, 10, 65536);
    assert_int_equal(vv_blocks_find(&t, -5), 0);
    assert_int_equal(vv_blocks_find(&t, 0), 0);
    assert_int_equal(vv_blocks_find(&t, 9), 0);
    assert_int_equal(vv_blocks_find(&t, 10), 1);
    assert_int_equal(vv_blocks_find(&t, 1000), 9);
    assert_int_equal(vv_blocks_find_time(&t, 0, 0), 0);
    assert_int_equal(vv_blocks_find_time(&t, 1004, 0), 4);
    assert_int_equal(vv_blocks_find_time(&t, 0, 7), 7);
    assert_int_equal(vv_blocks_find_time(&t, 5000, 0), 10);
    vv_blocks_release(&t);
}

static void round_trip_and_damage(void **state)
{
    (void)state;
    struct vv_blocks t = {0}, u;
    fill(&t, 5, 65536);
    size_t n = vv_blocks_encoded_size(&t);
    uint8_t *p = malloc(n);
    vv_blocks_encode(&t, p);
    assert_int_equal(vv_blocks_decode(p, n, &u), 0);
    assert_int_equal(u.count, 5);
    assert_int_equal(u.bytes, t.bytes);
    assert_int_equal(u.records, t.records);
    assert_memory_equal(u.v, t.v, 5 * sizeof *t.v);
    vv_blocks_release(&u);
    for (size_t i = 0; i < n; i++) { /* every single-bit change and every truncation */
        p[i] ^= 1;
        assert_int_equal(vv_blocks_decode(p, n, &u), VV_E_CORRUPT);
        p[i] ^= 1;
        assert_int_equal(vv_blocks_decode(p, i, &u), VV_E_CORRUPT);
    }
    free(p);
    vv_blocks_release(&t);
    n = vv_blocks_encoded_size(&t);
    p = malloc(n);
    vv_blocks_encode(&t, p); /* the empty segment */
    assert_int_equal(vv_blocks_decode(p, n, &u), 0);
    assert_int_equal(u.count, 0);
    vv_blocks_release(&u);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accumulates),
        cmocka_unit_test(large_batch_is_its_own_block),
        cmocka_unit_test(sealed_table_starts_a_new_block),
        cmocka_unit_test(finds),
        cmocka_unit_test(round_trip_and_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
