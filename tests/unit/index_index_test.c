/* The unified index: life cycle, lookups, restart from the journal, torn tails, damage, a random walk against a model. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "extent.h"
#include "env_sim.h"
#include "varve/index.h"

struct vv_segment { int refs; };
static void seg_ref(struct vv_segment *s) { s->refs++; }
static void seg_unref(struct vv_segment *s) { s->refs--; }
static const struct vv_segment_ref_ops ops = {seg_ref, seg_unref};

static char dir[64];
static struct vv_env *env = &vv_env_posix;

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/varve-index-XXXXXX");
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
    int err = vv_index_open(env, dir, &ops, &ix, &e);
    if (err) fail_msg("%s", e.text);
    return ix;
}

static void add_sealed(struct vv_index *ix, int64_t base, int64_t last, int64_t max_ts, struct vv_segment *s)
{
    assert_int_equal(vv_index_add_open(ix, base, 1, s), 0);
    struct vv_extent x = {.base = base, .last = last, .first_ts = max_ts - 5, .max_ts = max_ts, .bytes = 100, .sealed_ms = 7};
    assert_int_equal(vv_index_seal(ix, &x), 0);
}

static void life(void **state)
{
    (void)state;
    struct vv_segment s[3] = {{1}, {1}, {1}};
    struct vv_index *ix = open_index();
    struct vv_extent x, want = {.nonce = 77, .epoch = 4, .object_bytes = 150};
    struct vv_index_summary sum;
    assert_int_equal(vv_index_find(ix, 0, &x), VV_E_NOENT);
    add_sealed(ix, 0, 9, 100, &s[0]);
    add_sealed(ix, 10, 19, 50, &s[1]);
    assert_int_equal(vv_index_add_open(ix, 20, 1, &s[2]), 0);
    assert_int_equal(vv_index_find(ix, 5, &x), 0);
    assert_int_equal(x.base, 0);
    assert_ptr_equal(x.local, &s[0]);
    assert_int_equal(s[0].refs, 3);
    vv_extent_release(ix, &x);
    assert_int_equal(s[0].refs, 2);
    assert_int_equal(vv_index_move(ix, 0, VV_EXTENT_UPLOADING, &want), 0);
    assert_int_equal(vv_index_move(ix, 0, VV_EXTENT_BOTH, &want), 0);
    vv_index_summary(ix, &sum);
    assert_int_equal(sum.remote_end, 10);
    assert_int_equal(sum.local_start, 0);
    assert_int_equal(sum.pending_extents, 1);
    assert_int_equal(vv_index_move(ix, 0, VV_EXTENT_REMOTE, NULL), 0);
    assert_int_equal(s[0].refs, 1);
    vv_index_summary(ix, &sum);
    assert_int_equal(sum.local_start, 10);
    assert_int_equal(vv_index_find_time(ix, 60, 0, &x), 0);
    assert_int_equal(x.base, 0);
    assert_int_equal(vv_index_find_time(ix, 60, 10, &x), 0);
    assert_int_equal(x.base, 20); /* OPEN may hold any time */
    vv_extent_release(ix, &x);
    assert_int_equal(vv_index_find_max_ts(ix, &x), 0);
    assert_int_equal(x.base, 0);
    assert_int_equal(vv_index_set_log_start(ix, 10), 0);
    want.dead_ms = 1234;
    assert_int_equal(vv_index_move(ix, 0, VV_EXTENT_TOMBSTONED, &want), 0);
    assert_int_equal(vv_index_find(ix, 0, &x), 0);
    assert_int_equal(x.base, 10); /* the next live one */
    vv_extent_release(ix, &x);
    assert_int_equal(vv_index_next(ix, 0, &x), 0);
    assert_int_equal(x.state, VV_EXTENT_TOMBSTONED);
    vv_index_close(ix);
    assert_int_equal(s[1].refs, 1);
    assert_int_equal(s[2].refs, 1);

    ix = open_index(); /* a restart: the open segment comes back by its file */
    enum vv_extent_state st;
    struct vv_extent found = {.base = 10, .last = 19, .max_ts = 50, .first_ts = 45, .bytes = 100, .local = &s[1]};
    assert_int_equal(vv_index_attach(ix, &found, &st), 0);
    assert_int_equal(st, VV_EXTENT_SEALED);
    found = (struct vv_extent){.base = 20, .last = 24, .max_ts = 60, .first_ts = 55, .bytes = 50, .local = &s[2]};
    assert_int_equal(vv_index_attach(ix, &found, &st), 0);
    found = (struct vv_extent){.base = 0, .last = 9, .local = &s[0]};
    assert_int_equal(vv_index_attach(ix, &found, &st), 0);
    assert_int_equal(st, VV_EXTENT_TOMBSTONED); /* a leftover file */
    assert_int_equal(vv_index_attached(ix, NULL), 0);
    assert_int_equal(vv_index_reopen(ix, 20), 0);
    assert_int_equal(vv_index_next(ix, 0, &x), 0);
    assert_int_equal(x.dead_ms, 1234);
    assert_int_equal(x.nonce, 77);
    assert_int_equal(x.object_bytes, 150);
    vv_index_summary(ix, &sum);
    assert_int_equal(sum.log_start, 10);
    assert_int_equal(vv_index_move(ix, 0, VV_EXTENT_DELETING, NULL), 0);
    assert_int_equal(vv_index_remove(ix, 0), 0);
    assert_int_equal(vv_index_next(ix, 0, &x), 0);
    assert_int_equal(x.base, 10);
    vv_extent_release(ix, &x);
    vv_index_close(ix);
}

static void moves_are_a_table(void **state)
{
    (void)state;
    assert_false(vv_extent_move_legal(VV_EXTENT_SEALED, VV_EXTENT_REMOTE));
    assert_false(vv_extent_move_legal(VV_EXTENT_UPLOADING, VV_EXTENT_REMOTE));
    assert_false(vv_extent_move_legal(VV_EXTENT_SEALED, VV_EXTENT_BOTH));
    assert_false(vv_extent_move_legal(VV_EXTENT_SEALED, VV_EXTENT_TOMBSTONED));
    assert_false(vv_extent_move_legal(VV_EXTENT_DELETING, VV_EXTENT_REMOTE));
    assert_true(vv_extent_move_legal(VV_EXTENT_BOTH, VV_EXTENT_REMOTE));
    for (int s = 0; s <= VV_EXTENT_REMOTE; s++) assert_true(vv_extent_move_legal((enum vv_extent_state)s, VV_EXTENT_DELETING));
    assert_string_equal(vv_extent_state_name(VV_EXTENT_TOMBSTONED), "TOMBSTONED");
}

static void missing_files(void **state)
{
    (void)state;
    struct vv_segment s[3] = {{1}, {1}, {1}};
    struct vv_index *ix = open_index();
    struct vv_extent x, want = {.nonce = 1, .object_bytes = 9};
    struct vv_error e;
    add_sealed(ix, 0, 9, 1, &s[0]);
    add_sealed(ix, 10, 19, 1, &s[1]);
    add_sealed(ix, 20, 29, 1, &s[2]);
    assert_int_equal(vv_index_move(ix, 0, VV_EXTENT_UPLOADING, &want), 0);
    assert_int_equal(vv_index_move(ix, 0, VV_EXTENT_BOTH, &want), 0);
    assert_int_equal(vv_index_move(ix, 10, VV_EXTENT_UPLOADING, &want), 0);
    vv_index_close(ix);
    ix = open_index();
    assert_int_equal(vv_index_attached(ix, &e), VV_E_CORRUPT); /* 20 was never uploaded: said so */
    assert_non_null(strstr(e.text, "20..29"));
    assert_int_equal(vv_index_find(ix, 0, &x), 0);
    assert_int_equal(x.state, VV_EXTENT_REMOTE);
    assert_int_equal(vv_index_find(ix, 10, &x), 0);
    assert_int_equal(x.state, VV_EXTENT_UPLOADING);
    assert_int_equal(vv_index_find(ix, 20, &x), VV_E_NOENT);
    vv_index_close(ix);
}

static long journal_size(const char *path)
{
    FILE *f = fopen(path, "rb");
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    fclose(f);
    return n;
}

static void torn_tail_and_damage(void **state)
{
    (void)state;
    struct vv_segment s = {1};
    char path[128];
    struct vv_extent x;
    struct vv_error e;
    snprintf(path, sizeof path, "%s/varve.index", dir);
    struct vv_index *ix = open_index();
    add_sealed(ix, 0, 9, 1, &s);
    long one = journal_size(path);
    add_sealed(ix, 10, 19, 1, &s);
    vv_index_close(ix);
    long two = journal_size(path);
    assert_int_equal(truncate(path, two - 5), 0); /* torn */
    ix = open_index();
    assert_int_equal(vv_index_find(ix, 0, &x), 0);
    assert_int_equal(vv_index_find(ix, 10, &x), VV_E_NOENT);
    assert_int_equal(journal_size(path), one);
    add_sealed(ix, 10, 19, 1, &s);
    vv_index_close(ix);
    FILE *f = fopen(path, "r+b"); /* damage before a good record */
    fseek(f, one - 3, SEEK_SET);
    fputc(0x5a, f);
    fclose(f);
    assert_int_equal(vv_index_open(env, dir, &ops, &ix, &e), VV_E_CORRUPT);
    assert_non_null(strstr(e.text, "damaged"));
    f = fopen(path, "wb"); /* a foreign file */
    fputs("hello, world", f);
    fclose(f);
    assert_int_equal(vv_index_open(env, dir, &ops, &ix, &e), VV_E_CORRUPT);
}

static void truncate_and_reseal(void **state)
{
    (void)state;
    struct vv_segment s[3] = {{1}, {1}, {1}};
    struct vv_index *ix = open_index();
    struct vv_extent x;
    add_sealed(ix, 0, 9, 1, &s[0]);
    add_sealed(ix, 10, 19, 1, &s[1]);
    assert_int_equal(vv_index_add_open(ix, 20, 1, &s[2]), 0);
    assert_int_equal(vv_index_truncate(ix, 10), 0);
    assert_int_equal(s[1].refs, 1);
    assert_int_equal(vv_index_reopen(ix, 0), 0);
    x = (struct vv_extent){.base = 0, .last = 14, .bytes = 160};
    assert_int_equal(vv_index_seal(ix, &x), 0);
    vv_index_close(ix);
    ix = open_index();
    assert_int_equal(vv_index_find(ix, 12, &x), 0);
    assert_int_equal(x.last, 14);
    assert_int_equal(vv_index_next(ix, 1, &x), VV_E_NOENT);
    vv_index_close(ix);
}

static void roll_before_seal(void **state)
{
    (void)state;
    struct vv_segment s[2] = {{1}, {1}};
    struct vv_index *ix = open_index();
    struct vv_extent x;
    assert_int_equal(vv_index_add_open(ix, 0, 1, &s[0]), 0);
    assert_int_equal(vv_index_add_open(ix, 10, 1, &s[1]), 0);
    assert_int_equal(vv_index_find(ix, 9, &x), 0);
    assert_int_equal(x.base, 0);
    assert_int_equal(x.state, VV_EXTENT_OPEN);
    vv_extent_release(ix, &x);
    assert_int_equal(vv_index_find(ix, 10, &x), 0);
    assert_int_equal(x.base, 10);
    vv_extent_release(ix, &x);
    x = (struct vv_extent){.base = 0, .last = 9, .bytes = 5};
    assert_int_equal(vv_index_seal(ix, &x), 0);
    assert_int_equal(vv_index_find_state(ix, VV_EXTENT_SEALED, 0, &x), 0);
    vv_extent_release(ix, &x);
    vv_index_close(ix);
}

static void journal_is_rewritten(void **state)
{
    (void)state;
    struct vv_index *ix = open_index();
    char path[128];
    struct vv_index_summary sum;
    for (int64_t i = 1; i <= 8000; i++) assert_int_equal(vv_index_set_log_start(ix, i), 0);
    snprintf(path, sizeof path, "%s/varve.index", dir);
    assert_true(journal_size(path) < 100 * 1024);
    vv_index_close(ix);
    ix = open_index();
    vv_index_summary(ix, &sum);
    assert_int_equal(sum.log_start, 8000);
    vv_index_close(ix);
}

/* A disk that is full takes nothing and says so; when there is room again the journal goes on, whole. A failed sync is for good. */
static void a_full_disk_passes_and_a_failed_sync_does_not(void **state)
{
    (void)state;
    struct vv_segment s[4] = {{1}, {1}, {1}, {1}};
    struct vv_fs_fault *fault = vv_fs_fault_new(vv_env_posix.fs_ops, vv_env_posix.fs);
    struct vv_env faulty = vv_env_posix;
    faulty.fs_ops = &vv_fs_fault_ops;
    faulty.fs = fault;
    env = &faulty;
    struct vv_index *ix = open_index();
    add_sealed(ix, 0, 9, 100, &s[0]);
    vv_fs_fault_add(fault, &(struct vv_fsfault_rule){
                               .ops = VV_FSOP_PWRITE, .count = 3, .action = VV_FSFAULT_HALF, .err = VV_E_NOSPC});
    assert_int_equal(vv_index_add_open(ix, 10, 1, &s[1]), 0);
    struct vv_extent x = {.base = 10, .last = 19, .first_ts = 1, .max_ts = 2, .bytes = 100, .sealed_ms = 7};
    int err = VV_E_NOSPC;
    for (int i = 0; i < 5 && err == VV_E_NOSPC; i++) err = vv_index_seal(ix, &x);
    assert_int_equal(err, VV_OK);
    vv_fs_fault_clear(fault);
    vv_fs_fault_add(fault, &(struct vv_fsfault_rule){.ops = VV_FSOP_DATASYNC, .count = 1, .err = VV_E_IO});
    assert_int_equal(vv_index_add_open(ix, 20, 1, &s[2]), 0);
    x.base = 20;
    x.last = 29;
    assert_int_equal(vv_index_seal(ix, &x), VV_E_IO);
    assert_int_equal(vv_index_seal(ix, &x), VV_E_OFFLINE);
    vv_index_close(ix);
    env = &vv_env_posix;
    ix = open_index();
    assert_int_equal(vv_index_find(ix, 15, &x), 0);
    assert_int_equal(x.last, 19);
    vv_extent_release(ix, &x);
    vv_index_close(ix);
    vv_fs_fault_free(fault);
}

static struct vv_extent far(int64_t base, int64_t last, uint64_t nonce)
{
    return (struct vv_extent){.base = base, .last = last, .bytes = 10, .object_bytes = 20, .nonce = nonce, .max_ts = last};
}

/* A followed history: ranges are exchanged in one step, also below pages; nothing that overlaps or is not remote. */
static void exchange_a_range(void **state)
{
    (void)state;
    struct vv_segment s = {1};
    struct vv_index *ix = open_index();
    struct vv_extent x, v[3];
    assert_int_equal(vv_index_add_open(ix, INT64_C(1) << 62, 1, &s), 0); /* the end of the list, as a replica's */
    for (int i = 0; i < 3000; i++) {
        v[0] = far(i * 10, i * 10 + 9, 1);
        assert_int_equal(vv_index_exchange(ix, i * 10, i * 10, v, 1), 0);
    }
    v[0] = far(100, 299, 2); /* twenty became one */
    assert_int_equal(vv_index_exchange(ix, 100, 300, v, 1), 0);
    assert_int_equal(vv_index_find(ix, 250, &x), 0);
    assert_true(x.base == 100 && x.last == 299 && x.nonce == 2 && x.state == VV_EXTENT_REMOTE);
    assert_int_equal(vv_index_find(ix, 300, &x), 0);
    assert_int_equal(x.base, 300);
    v[0] = far(100, 149, 3);
    v[1] = far(150, 299, 4);
    assert_int_equal(vv_index_exchange(ix, 100, 300, v, 2), 0);
    assert_int_equal(vv_index_find(ix, 150, &x), 0);
    assert_int_equal(x.nonce, 4);
    v[0] = far(95, 104, 5);
    assert_int_equal(vv_index_exchange(ix, 100, 150, v, 1), VV_E_STATE); /* begins below */
    v[0] = far(100, 155, 5);
    assert_int_equal(vv_index_exchange(ix, 100, 150, v, 1), VV_E_STATE); /* ends above */
    assert_int_equal(vv_index_exchange(ix, 0, INT64_MAX, NULL, 0), VV_E_STATE); /* the open one is not remote */
    assert_int_equal(vv_index_find(ix, 100, &x), 0);
    assert_int_equal(x.nonce, 3); /* refused: nothing happened */
    assert_int_equal(vv_index_exchange(ix, 20000, INT64_C(1) << 62, NULL, 0), 0);
    assert_int_equal(vv_index_find(ix, 20000, &x), 0);
    assert_int_equal(x.state, VV_EXTENT_OPEN);
    vv_extent_release(ix, &x);
    assert_int_equal(vv_index_find(ix, 19999, &x), 0);
    assert_int_equal(x.base, 19990);
    vv_index_close(ix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_are_a_table),
        cmocka_unit_test_setup_teardown(life, setup, teardown),
        cmocka_unit_test_setup_teardown(missing_files, setup, teardown),
        cmocka_unit_test_setup_teardown(torn_tail_and_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(truncate_and_reseal, setup, teardown),
        cmocka_unit_test_setup_teardown(roll_before_seal, setup, teardown),
        cmocka_unit_test_setup_teardown(journal_is_rewritten, setup, teardown),
        cmocka_unit_test_setup_teardown(exchange_a_range, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_passes_and_a_failed_sync_does_not, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
