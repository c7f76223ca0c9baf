/* The histogram against sorted values, at its borders, and merged. */
#include "histogram.h"

#include "varve/bytes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    return *seed ^= *seed << 17;
}

static void agrees_with_sorting(void **state)
{
    (void)state;
    static const double qs[] = {0, 0.001, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    enum { N = 20000 };
    uint64_t *v = calloc(N, sizeof *v), seed = 88172645463325252ull;
    struct vv_hist *h = calloc(1, sizeof *h), *half = calloc(2, sizeof *half);
    double sum = 0;
    for (int i = 0; i < N; i++) {
        v[i] = next(&seed) >> (next(&seed) % 64); /* every magnitude */
        vv_hist_add(h, v[i]);
        vv_hist_add(&half[i % 2], v[i]);
        sum += (double)v[i];
    }
    qsort(v, N, sizeof *v, ascending);
    vv_hist_merge(&half[0], &half[1]);
    for (size_t i = 0; i < VV_COUNT(qs); i++) {
        size_t rank = (size_t)fmax(ceil(qs[i] * N), 1) - 1;
        uint64_t told = vv_hist_at(h, qs[i]);
        assert_true(told >= v[rank]); /* never less than what was */
        assert_true(told - v[rank] <= v[rank] / 128);
        assert_true(told == vv_hist_at(&half[0], qs[i]));
    }
    assert_true(vv_hist_at(h, 1) == v[N - 1] && h->max == v[N - 1] && half[0].count == N);
    assert_true(fabs(vv_hist_mean(h) - sum / N) <= sum / N * 1e-9);
    free(v);
    free(h);
    free(half);
}

static void borders(void **state)
{
    (void)state;
    static const uint64_t edges[] = {0, 1, 127, 128, 129, 255, 256, 257, 511, 512, UINT64_MAX / 2, UINT64_MAX - 1,
                                     UINT64_MAX};
    for (size_t i = 0; i < VV_COUNT(edges); i++) {
        struct vv_hist *h = calloc(1, sizeof *h);
        vv_hist_add(h, edges[i]);
        assert_true(vv_hist_at(h, 0.5) == edges[i]); /* one value is told exactly: it is the largest */
        vv_hist_add(h, UINT64_MAX);
        uint64_t told = vv_hist_at(h, 0.5);
        assert_true(told >= edges[i] && told - edges[i] <= edges[i] / 128);
        if (edges[i] < 256) assert_true(told == edges[i]);
        free(h);
    }
}

static void empty(void **state)
{
    (void)state;
    struct vv_hist *h = calloc(1, sizeof *h);
    assert_true(vv_hist_at(h, 0.99) == 0 && vv_hist_mean(h) == 0.0);
    free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_sorting), cmocka_unit_test(borders),
                                       cmocka_unit_test(empty)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
