/* base_bytes_test.c — varints, CRC32C, UUID text, buffers and arenas, timed waits. */
#include "varve/buf.h"
#include "varve/bytes.h"
#include "varve/error.h"
#include "varve/wait.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

static void varints_round_trip(void **state)
{
    (void)state;
    static const int64_t values[] = {0, 1, -1, 63, 64, -64, -65, 300, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    uint8_t p[10];
    for (size_t i = 0; i < VV_COUNT(values); i++) {
        int64_t wide = 7;
        size_t n = vv_varlong_put(p, values[i]);
        assert_int_equal(vv_varlong_get(p, n, &wide), n);
        assert_true(wide == values[i]);
        assert_int_equal(vv_varlong_get(p, n - 1, &wide), 0); /* truncated */
        if (values[i] < INT32_MIN || values[i] > INT32_MAX) continue;
        int32_t narrow = 7;
        n = vv_varint_put(p, (int32_t)values[i]);
        assert_int_equal(vv_varint_get(p, n, &narrow), n);
        assert_int_equal(narrow, values[i]);
    }
}

static void varints_refuse_overlong(void **state)
{
    (void)state;
    static const uint8_t five[] = {0xff, 0xff, 0xff, 0xff, 0x1f}, six[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x01};
    uint32_t u;
    int64_t wide;
    assert_int_equal(vv_uvarint_get(five, sizeof five, &u), 0);
    assert_int_equal(vv_uvarint_get(six, sizeof six, &u), 0);
    static const uint8_t eleven[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    assert_int_equal(vv_varlong_get(eleven, sizeof eleven, &wide), 0);
}

static void crc32c_known_vectors(void **state)
{
    (void)state;
    /* RFC 3720, B.4 */
    uint8_t zeros[32] = {0}, ones[32];
    memset(ones, 0xff, sizeof ones);
    assert_int_equal(vv_crc32c(0, zeros, 32), 0x8a9136aa);
    assert_int_equal(vv_crc32c(0, ones, 32), 0x62a8ab43);
    assert_int_equal(vv_crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(vv_crc32c(vv_crc32c(0, "1234", 4), "56789", 5), 0xe3069283); /* continues */
}

static void uuid_text(void **state)
{
    (void)state;
    struct vv_uuid u, back;
    char text[23];
    for (size_t i = 0; i < 16; i++) u.b[i] = (uint8_t)(i * 17);
    vv_uuid_text(u, text);
    assert_int_equal(strlen(text), 22);
    assert_true(vv_uuid_parse(text, &back));
    assert_true(vv_uuid_eq(u, back));
    assert_false(vv_uuid_parse("short", &back));
    assert_false(vv_uuid_parse("!!!!!!!!!!!!!!!!!!!!!!", &back));
}

static int released;
static void count_release(struct vv_buf *b)
{
    released++;
    (void)b;
}

static void chains_hold_references(void **state)
{
    (void)state;
    struct vv_buf b = {.cap = 3, .data = (uint8_t *)(uintptr_t)"abc", .release = count_release};
    struct vv_chain one = {0}, two = {0};
    uint8_t copy[6];
    atomic_init(&b.refs, 1);
    released = 0;
    assert_int_equal(vv_chain_add(&one, &b, b.data, 3), 0);
    assert_int_equal(vv_chain_append(&two, &one), 0);
    assert_int_equal(vv_chain_append(&two, &one), 0);
    vv_buf_unref(&b);
    vv_chain_release(&one);
    assert_int_equal(two.bytes, 6);
    vv_chain_copy_out(&two, copy);
    assert_memory_equal(copy, "abcabc", 6);
    assert_int_equal(released, 0);
    vv_chain_release(&two);
    assert_int_equal(released, 1);
}

static void out_mixes_small_writes_and_chains(void **state)
{
    (void)state;
    struct vv_out o;
    struct vv_chain spliced = {0}, done = {0};
    struct vv_buf *big = vv_buf_new(100000);
    memset(big->data, 'x', big->cap);
    assert_int_equal(vv_chain_add(&spliced, big, big->data, big->cap), 0);
    vv_out_init(&o);
    vv_out_bytes(&o, "head", 4);
    vv_out_chain(&o, &spliced);
    for (int i = 0; i < 5000; i++) vv_out_bytes(&o, "tail", 4);
    assert_int_equal(vv_out_size(&o), 4 + 100000 + 20000);
    assert_int_equal(vv_out_finish(&o, &done), 0);
    assert_int_equal(done.bytes, 120004);
    uint8_t *flat = malloc(done.bytes);
    vv_chain_copy_out(&done, flat);
    assert_memory_equal(flat, "headxxxx", 8);
    assert_memory_equal(flat + 120000, "tail", 4);
    free(flat);
    vv_chain_release(&done);
    vv_chain_release(&spliced);
    vv_buf_unref(big);
}

static void arena_is_bounded_and_zeroed(void **state)
{
    (void)state;
    struct vv_arena a;
    vv_arena_init(&a, 10000);
    uint8_t *p = vv_arena_alloc(&a, 3000);
    assert_non_null(p);
    for (int i = 0; i < 3000; i++) assert_int_equal(p[i], 0);
    memset(p, 1, 3000);
    assert_non_null(vv_arena_alloc(&a, 6000));
    assert_null(vv_arena_alloc(&a, 6000));
    assert_null(vv_arena_alloc(&a, SIZE_MAX));
    vv_arena_reset(&a);
    p = vv_arena_alloc(&a, 3000);
    for (int i = 0; i < 3000; i++) assert_int_equal(p[i], 0);
    vv_arena_release(&a);
}

static void errors_map_to_kafka(void **state)
{
    (void)state;
    assert_int_equal(vv_err_kafka(VV_E_NOSPC), VV_KAFKA_STORAGE_ERROR);
    assert_int_equal(vv_err_kafka(VV_E_CORRUPT), VV_CORRUPT_MESSAGE);
    assert_int_equal(vv_err_kafka(VV_OFFSET_OUT_OF_RANGE), VV_OFFSET_OUT_OF_RANGE);
    assert_string_equal(vv_err_name(VV_CORRUPT_MESSAGE), "CORRUPT_MESSAGE");
}

static void waits_end_by_monotonic_time(void **state)
{
    (void)state;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t c;
    struct timespec before, until, after;
    vv_cond_init(&c);
    clock_gettime(CLOCK_MONOTONIC, &before);
    static const int64_t us[] = {-5, 0, 1, 999999, 1000000, 3600000001};
    for (size_t i = 0; i < VV_COUNT(us); i++) {
        until = vv_deadline_us(us[i]);
        clock_gettime(CLOCK_MONOTONIC, &after);
        assert_in_range(until.tv_nsec, 0, 999999999);
        int64_t end = until.tv_sec * 1000000000LL + until.tv_nsec, wait = VV_MAX(us[i], (int64_t)0) * 1000;
        assert_true(end >= before.tv_sec * 1000000000LL + before.tv_nsec + wait);
        assert_true(end <= after.tv_sec * 1000000000LL + after.tv_nsec + wait);
    }
    until = vv_deadline_us(2000);
    pthread_mutex_lock(&lock);
    while (pthread_cond_timedwait(&c, &lock, &until) != ETIMEDOUT) {}
    pthread_mutex_unlock(&lock);
    clock_gettime(CLOCK_MONOTONIC, &after);
    assert_true(after.tv_sec > until.tv_sec || (after.tv_sec == until.tv_sec && after.tv_nsec >= until.tv_nsec));
    pthread_cond_destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(varints_round_trip),       cmocka_unit_test(varints_refuse_overlong),
        cmocka_unit_test(crc32c_known_vectors),     cmocka_unit_test(uuid_text),
        cmocka_unit_test(chains_hold_references),   cmocka_unit_test(out_mixes_small_writes_and_chains),
        cmocka_unit_test(arena_is_bounded_and_zeroed), cmocka_unit_test(errors_map_to_kafka),
        cmocka_unit_test(waits_end_by_monotonic_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
