/* Long histories: a million extents in bounded memory; every lookup as if all were resident; pages brought back to be
 * tombstoned; restarts; a damaged page. And a random walk of a small index against a plain list. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "index_impl.h"

static char dir[64];
static struct vv_env *env = &vv_env_posix;
#define STEP 10

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/varve-pages-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const files[] = {"varve.index", "varve.extents"};
    char path[128];
    for (size_t i = 0; i < VV_COUNT(files); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    return rmdir(dir);
}

static struct vv_index *open_index(void)
{
    struct vv_index *ix;
    struct vv_error e;
    if (vv_index_open(env, dir, NULL, &ix, &e)) fail_msg("%s", e.text);
    return ix;
}

static int64_t ts_of(int64_t k) { return k * 100 + (k % 7 ? 0 : 350); } /* every seventh is out of order */

static struct vv_extent made(int64_t k)
{
    return (struct vv_extent){.base = k * STEP, .last = k * STEP + STEP - 1, .first_ts = k * 100, .max_ts = ts_of(k), .bytes = 1000,
                              .object_bytes = 1100, .nonce = (uint64_t)k + 1, .epoch = 2};
}

static int64_t by_time(int64_t ts, int64_t from, int64_t n) /* the answer, slowly but only nearby */
{
    int64_t k = VV_MAX(ts / 100 - 8, from);
    while (k < n && ts_of(k) < ts) k++;
    return k;
}

static void check(struct vv_index *ix, int64_t first, int64_t n, int times)
{
    struct vv_extent x;
    for (int i = 0; i < times; i++) {
        int64_t k = first + (int64_t)((uint64_t)rand() * 32768u + (uint64_t)rand()) % (n - first);
        assert_int_equal(vv_index_find(ix, k * STEP + rand() % STEP, &x), 0);
        assert_int_equal(x.base, k * STEP);
        assert_int_equal(x.nonce, k + 1);
        assert_int_equal(vv_index_next(ix, k * STEP - 3, &x), 0);
        assert_int_equal(x.base, k * STEP);
        int64_t ts = k * 100 + 1, want = by_time(ts, first, n);
        int err = vv_index_find_time(ix, ts, first * STEP, &x);
        assert_int_equal(err, want < n ? 0 : VV_E_NOENT);
        if (!err) assert_int_equal(x.base, want * STEP);
    }
}

static void a_million(void **state)
{
    (void)state;
    const int64_t n = 1000000;
    struct vv_index_summary s;
    struct vv_extent x;
    srand(7);
    struct vv_index *ix = open_index();
    for (int64_t k = 0; k < n; k++) {
        x = made(k);
        assert_int_equal(vv_index_adopt(ix, &x), 0);
    }
    assert_int_equal(vv_index_sync(ix), 0);
    assert_true(ix->n < 2048);
    size_t resident = ix->cap * sizeof *ix->v + ix->f.cap * sizeof *ix->f.v + sizeof(struct vv_page) * VV_PAGE_CACHE;
    print_message("1,000,000 extents: %zu KiB resident\n", resident / 1024);
    assert_true(resident < 2 << 20);
    check(ix, 0, n, 2000);
    vv_index_close(ix);
    ix = open_index();
    assert_int_equal(vv_index_attached(ix, NULL), 0);
    vv_index_summary(ix, &s);
    assert_int_equal(s.remote_extents, n);
    assert_int_equal(s.remote_bytes, n * 1000);
    assert_int_equal(s.remote_end, n * STEP);
    check(ix, 0, n, 2000);
    assert_int_equal(vv_index_find_max_ts(ix, &x), 0);
    int64_t best = n - 1;
    for (int64_t k = n - 10; k < n; k++)
        if (ts_of(k) > ts_of(best)) best = k;
    assert_int_equal(x.base, best * STEP);
    assert_int_equal(vv_index_find_time(ix, n * 100 + 1000, 0, &x), VV_E_NOENT);
    /* The log start moves over the first 200: pages come back, tombstones go their way. */
    assert_int_equal(vv_index_set_log_start(ix, 200 * STEP), 0);
    for (int64_t k = 0; k < 200; k++) {
        assert_int_equal(vv_index_move(ix, k * STEP, VV_EXTENT_TOMBSTONED, NULL), 0);
        if (k < 150) assert_int_equal(vv_index_move(ix, k * STEP, VV_EXTENT_DELETING, NULL), 0);
        if (k < 100) assert_int_equal(vv_index_remove(ix, k * STEP), 0);
    }
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(vv_index_next(ix, 0, &x), 0);
        assert_int_equal(x.base, 100 * STEP);
        assert_int_equal(x.state, VV_EXTENT_DELETING);
        assert_int_equal(vv_index_find(ix, 0, &x), 0);
        assert_int_equal(x.base, 200 * STEP);
        assert_int_equal(vv_index_find_state(ix, VV_EXTENT_TOMBSTONED, 0, &x), 0);
        assert_int_equal(x.base, 150 * STEP);
        assert_int_equal(vv_index_find_state(ix, VV_EXTENT_REMOTE, 0, &x), 0);
        assert_int_equal(x.base, 200 * STEP);
        assert_int_equal(vv_index_find_state(ix, VV_EXTENT_SEALED, 0, &x), VV_E_NOENT);
        check(ix, 200, n, 500);
        vv_index_close(ix);
        ix = open_index();
    }
    vv_index_close(ix);
}

static void damaged_page(void **state)
{
    (void)state;
    char path[128];
    struct vv_extent x;
    struct vv_index *ix = open_index();
    for (int64_t k = 0; k < 5000; k++) {
        x = made(k);
        assert_int_equal(vv_index_adopt(ix, &x), 0);
    }
    assert_int_equal(vv_index_sync(ix), 0);
    vv_index_close(ix);
    snprintf(path, sizeof path, "%s/varve.extents", dir);
    FILE *f = fopen(path, "r+b");
    fseek(f, 2 * VV_PAGE_BYTES + 100, SEEK_SET);
    fputc(0x77, f);
    fclose(f);
    ix = open_index();
    assert_int_equal(vv_index_find(ix, 130 * STEP, &x), VV_E_CORRUPT); /* said, not guessed */
    assert_int_equal(vv_index_find(ix, 10 * STEP, &x), 0);
    assert_int_equal(vv_index_find(ix, 200 * STEP, &x), 0);
    vv_index_close(ix);
}

/* A partition that lives: extents sealed, uploaded, made remote, tombstoned, removed, in any legal order, with restarts;
 * after every few moves the index must equal a plain array. */
struct model { enum vv_extent_state s[6000]; bool gone[6000]; int64_t n, first; };

static void compare(struct vv_index *ix, const struct model *m)
{
    struct vv_extent x;
    int64_t at = 0;
    for (int64_t k = m->first; k < m->n; k++) {
        if (m->gone[k]) continue;
        assert_int_equal(vv_index_next(ix, at, &x), 0);
        assert_int_equal(x.base, k * STEP);
        assert_int_equal(x.state, m->s[k]);
        at = x.last + 1;
    }
    assert_int_equal(vv_index_next(ix, at, &x), VV_E_NOENT);
}

static void random_life(void **state)
{
    (void)state;
    static struct model m;
    memset(&m, 0, sizeof m);
    srand(11);
    struct vv_index *ix = open_index();
    for (int step = 0; step < 12000; step++) {
        int64_t k = m.first + (m.n > m.first ? rand() % (m.n - m.first) : 0);
        enum vv_extent_state to = (enum vv_extent_state)(m.s[k] + 1);
        if ((rand() % 3 == 0 || m.n == m.first) && m.n < 6000) {
            struct vv_extent x = made(m.n);
            assert_int_equal(vv_index_add_open(ix, x.base, 1, NULL), 0);
            assert_int_equal(vv_index_seal(ix, &x), 0);
            m.s[m.n++] = VV_EXTENT_SEALED;
        } else if (m.s[k] < VV_EXTENT_REMOTE) {
            while (m.s[k] < VV_EXTENT_REMOTE) { /* all the way, so that runs form */
                struct vv_extent x = made(k);
                to = (enum vv_extent_state)(m.s[k] + 1);
                assert_int_equal(vv_index_move(ix, k * STEP, to, &x), 0);
                m.s[k] = to;
            }
        } else if (rand() % 4 == 0 && m.first < m.n && m.s[m.first] == VV_EXTENT_REMOTE) {
            assert_int_equal(vv_index_move(ix, m.first * STEP, VV_EXTENT_TOMBSTONED, NULL), 0);
            assert_int_equal(vv_index_move(ix, m.first * STEP, VV_EXTENT_DELETING, NULL), 0);
            assert_int_equal(vv_index_remove(ix, m.first * STEP), 0);
            m.first++;
        }
        if (rand() % 2000 == 0) {
            vv_index_close(ix);
            ix = open_index();
        }
        if (rand() % 500 == 0) compare(ix, &m);
    }
    compare(ix, &m);
    assert_true(ix->f.n > 0); /* paging took part */
    vv_index_close(ix);
}

/* The tree of maxima against a plain scan, while fences come at the end and go at the front and in the middle. */
static void fences_by_time(void **state)
{
    (void)state;
    struct vv_fences fs = {0};
    int64_t next = 0;
    srand(5);
    for (int step = 0; step < 4000; step++) {
        int r = rand() % 100;
        if (r < 80 || !fs.n) {
            struct vv_fence f = {.base = next, .last = next + 9, .max_ts = rand() % 1000 + next / 20, .bytes = 5,
                                 .state = VV_EXTENT_REMOTE};
            next += 10;
            assert_int_equal(vv_fences_insert(&fs, &f), 0);
            assert_int_equal(vv_fences_insert(&fs, &f), VV_E_CORRUPT);
        } else if (r < 90) {
            size_t at = (size_t)rand() % fs.n;
            struct vv_fence f = fs.v[at];
            vv_fences_remove(&fs, at, at + 1);
            if (r & 1) assert_int_equal(vv_fences_insert(&fs, &f), 0);
        } else if (r < 94) {
            size_t k = (size_t)rand() % fs.n;
            vv_fences_set_state(&fs, k, VV_MIN(k + 3, fs.n), VV_EXTENT_TOMBSTONED, 7);
        }
        size_t from = (size_t)rand() % (fs.n + 1), want = from, live = 0;
        int64_t ts = rand() % 1500 + next / 25;
        while (want < fs.n && (fs.v[want].state != VV_EXTENT_REMOTE || fs.v[want].max_ts < ts)) want++;
        assert_int_equal(vv_fences_time(&fs, from, ts), want);
        for (size_t i = 0; i < fs.n; i++) live += fs.v[i].state == VV_EXTENT_REMOTE;
        assert_int_equal(fs.live, live);
        assert_int_equal(fs.live_bytes, live * 5);
    }
    vv_fences_release(&fs);
}

/* The log start passes a long history at once: tombstones, deletion and removal are a record each, survive a restart after every
 * step, and a page across the border is divided. */
static void everything_below(void **state)
{
    (void)state;
    const int64_t n = 20000, cut = 12345;
    struct vv_index_summary s;
    struct vv_extent x;
    struct vv_index *ix = open_index();
    for (int64_t k = 0; k < n; k++) {
        x = made(k);
        assert_int_equal(vv_index_adopt(ix, &x), 0);
    }
    assert_int_equal(vv_index_sync(ix), 0);
    uint64_t before = ix->journal.size;
    assert_int_equal(vv_index_set_log_start(ix, cut * STEP + 3), 0);
    const struct { enum vv_extent_state from, to; } moves[] = {{VV_EXTENT_REMOTE, VV_EXTENT_TOMBSTONED},
                                                                {VV_EXTENT_TOMBSTONED, VV_EXTENT_DELETING}};
    for (size_t i = 0; i < VV_COUNT(moves); i++) {
        assert_int_equal(vv_index_sweep(ix, cut * STEP + 3, moves[i].from, moves[i].to, i ? 0 : 777), 0);
        for (int pass = 0; pass < 2; pass++) {
            assert_true(ix->n < 2048);
            vv_index_summary(ix, &s);
            assert_int_equal(s.remote_extents, n - cut);
            assert_int_equal(s.remote_bytes, (n - cut) * 1000);
            assert_int_equal(vv_index_find(ix, 5, &x), 0);
            assert_int_equal(x.base, cut * STEP);
            assert_int_equal(vv_index_find_time(ix, 500, 0, &x), 0);
            assert_int_equal(x.base, cut * STEP);
            assert_int_equal(vv_index_find_state(ix, moves[i].to, 3000 * STEP, &x), 0);
            assert_int_equal(x.base, 3000 * STEP);
            assert_int_equal(x.dead_ms, 777);
            assert_int_equal(vv_index_next(ix, (cut - 1) * STEP, &x), 0);
            assert_int_equal(x.state, moves[i].to);
            vv_index_close(ix);
            ix = open_index();
        }
    }
    assert_true(ix->journal.size < before + 16 * 1024);
    assert_int_equal(vv_index_drop(ix, 6000 * STEP), 0); /* a batch of deletions is over */
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(vv_index_next(ix, 0, &x), 0);
        assert_int_equal(x.base, 6000 * STEP);
        assert_int_equal(x.state, VV_EXTENT_DELETING);
        vv_index_close(ix);
        ix = open_index();
    }
    assert_int_equal(vv_index_drop(ix, cut * STEP), 0);
    assert_int_equal(vv_index_next(ix, 0, &x), 0);
    assert_int_equal(x.base, cut * STEP);
    check(ix, cut, n, 500);
    for (int64_t k = n; k < n + 9000; k++) { /* freed slots are used again */
        x = made(k);
        assert_int_equal(vv_index_adopt(ix, &x), 0);
    }
    assert_int_equal(vv_index_sync(ix), 0);
    assert_true(ix->slot_top <= 20000 / VV_PAGE_EXTENTS + 1);
    check(ix, cut, n + 9000, 500);
    vv_index_close(ix);
}

/* A reactor asks: what is in memory is answered, what is not is said to be so, and is there after another thread looked. */
static void never_waits(void **state)
{
    (void)state;
    struct vv_extent x;
    struct vv_index *ix = open_index();
    for (int64_t k = 0; k < 5000; k++) {
        x = made(k);
        assert_int_equal(vv_index_adopt(ix, &x), 0);
    }
    assert_int_equal(vv_index_sync(ix), 0);
    vv_index_close(ix);
    ix = open_index();
    assert_int_equal(vv_index_find_now(ix, 4990 * STEP, &x), 0);
    assert_int_equal(vv_index_find_now(ix, 100 * STEP, &x), VV_E_AGAIN);
    assert_int_equal(vv_index_find(ix, 100 * STEP, &x), 0);
    assert_int_equal(vv_index_find_now(ix, 101 * STEP, &x), 0);
    assert_int_equal(x.base, 101 * STEP);
    vv_index_close(ix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_million, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_page, setup, teardown),
        cmocka_unit_test_setup_teardown(random_life, setup, teardown),
        cmocka_unit_test(fences_by_time),
        cmocka_unit_test_setup_teardown(everything_below, setup, teardown),
        cmocka_unit_test_setup_teardown(never_waits, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
