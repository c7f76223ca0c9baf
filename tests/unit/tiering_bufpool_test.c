/* tiering/bufpool.c: what is given back is given out again, of the right size, and never more is kept than said. */
#include "bufpool.h"
#include "varve/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define MIB ((size_t)1 << 20)
#define SPARE 2 /* of 4 MiB each */

static void sizes(void **state)
{
    (void)state;
    static const size_t n[] = {1, VV_BUFPOOL_FROM - 1, VV_BUFPOOL_FROM, MIB, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1,
                               4 * MIB - 70000, 9 * MIB + 5};
    struct vv_bufpool *p = vv_bufpool_new(SPARE * 4 * MIB);
    for (size_t i = 0; i < VV_COUNT(n); i++) {
        struct vv_buf *b = vv_bufpool_get(p, n[i]);
        assert_non_null(b);
        assert_int_equal(b->cap, n[i]);
        memset(b->data, (int)i + 1, n[i]); /* all of it is there */
        assert_int_equal(b->data[n[i] - 1], i + 1);
        vv_buf_unref(b);
        vv_bufpool_trim(p);
    }
    vv_bufpool_free(p);
}

static void reused(void **state)
{
    (void)state;
    struct vv_bufpool *p = vv_bufpool_new(SPARE * 4 * MIB);
    struct vv_buf *a = vv_bufpool_get(p, 4 * MIB - 5);
    uint8_t *was = a->data;
    vv_buf_ref(a);
    vv_buf_unref(a);
    struct vv_buf *other = vv_bufpool_get(p, 4 * MIB); /* a is still in use */
    assert_ptr_not_equal(other->data, was);
    vv_buf_unref(a);
    a = vv_bufpool_get(p, 4 * MIB - 99);
    assert_ptr_equal(a->data, was);
    assert_int_equal(a->cap, 4 * MIB - 99);
    assert_int_equal(a->refs, 1);
    vv_buf_unref(a);
    struct vv_buf *small = vv_bufpool_get(p, MIB); /* would hold four times what it needs */
    assert_ptr_not_equal(small->data, was);
    struct vv_buf *large = vv_bufpool_get(p, 5 * MIB);
    assert_ptr_not_equal(large->data, was);
    vv_buf_unref(small);
    vv_buf_unref(large);
    vv_buf_unref(other);
    vv_bufpool_free(p);
}

static void newest_are_kept(void **state)
{
    (void)state;
    struct vv_bufpool *p = vv_bufpool_new(SPARE * 4 * MIB);
    struct vv_buf *b[SPARE + 1];
    uint8_t *was;
    for (size_t i = 0; i <= SPARE; i++) {
        b[i] = vv_bufpool_get(p, (i ? 4 : 2) * MIB);
    }
    for (size_t i = 0; i <= SPARE; i++) vv_buf_unref(b[i]); /* the small one first: it has to go */
    assert_int_equal(vv_bufpool_trim(p), SPARE * 4 * MIB);
    for (size_t i = 0; i < 3; i++) { /* one that fits is found behind one that does not */
        b[0] = vv_bufpool_get(p, 4 * MIB);
        b[1] = vv_bufpool_get(p, 2 * MIB);
        was = b[0]->data;
        vv_buf_unref(b[i % 2]);
        vv_buf_unref(b[1 - i % 2]);
        b[0] = vv_bufpool_get(p, 4 * MIB);
        assert_ptr_equal(b[0]->data, was);
        vv_buf_unref(b[0]);
    }
    vv_bufpool_free(p);
}

static void bounded(void **state)
{
    (void)state;
    struct vv_bufpool *p = vv_bufpool_new(SPARE * 4 * MIB);
    struct vv_buf *b[8];
    for (size_t i = 0; i < 8; i++) b[i] = vv_bufpool_get(p, 4 * MIB);
    assert_int_equal(vv_bufpool_trim(p), 0);
    for (size_t i = 0; i < 8; i++) vv_buf_unref(b[i]);
    assert_int_equal(vv_bufpool_trim(p), SPARE * 4 * MIB);
    assert_int_equal(vv_bufpool_trim(p), 0);
    vv_bufpool_free(p);
}

/* What was promised is kept for whoever it was promised to. */
static void promised(void **state)
{
    (void)state;
    struct vv_bufpool *p = vv_bufpool_new(4 * MIB);
    struct vv_buf *b[4];
    for (size_t i = 0; i < 4; i++) b[i] = vv_bufpool_get(p, 4 * MIB);
    vv_bufpool_promise(p, 8 * MIB);
    for (size_t i = 0; i < 4; i++) vv_buf_unref(b[i]);
    assert_int_equal(vv_bufpool_trim(p), 3 * 4 * MIB);
    vv_bufpool_unpromise(p, 8 * MIB);
    for (size_t i = 0; i < 4; i++) b[i] = vv_bufpool_get(p, 4 * MIB);
    for (size_t i = 0; i < 4; i++) vv_buf_unref(b[i]);
    assert_int_equal(vv_bufpool_trim(p), 4 * MIB);
    vv_bufpool_free(p);
}

static void outlives_the_pool(void **state)
{
    (void)state;
    struct vv_bufpool *p = vv_bufpool_new(SPARE * 4 * MIB);
    struct vv_buf *a = vv_bufpool_get(p, MIB), *b = vv_bufpool_get(p, MIB);
    vv_buf_unref(a);
    vv_bufpool_free(p);
    memset(b->data, 7, MIB);
    vv_buf_unref(b);
    vv_bufpool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(reused),
        cmocka_unit_test(newest_are_kept),
        cmocka_unit_test(bounded),
        cmocka_unit_test(promised),
        cmocka_unit_test(outlives_the_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
