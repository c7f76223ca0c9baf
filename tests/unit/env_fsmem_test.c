/* fs_mem: behaves as a file system, and loses at a power cut what was not synced, nothing else. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "env_backends.h"
#include "env_sim.h"
#include "varve/bytes.h"
#include "varve/error.h"

static struct vv_clock_sim clock_sim;
static struct vv_fs_mem *mem;
static struct vv_env env;

static int setup(void **state)
{
    (void)state;
    vv_clock_sim_init(&clock_sim, 1700000000000);
    mem = vv_fs_mem_new(&clock_sim);
    env = (struct vv_env){.fs_ops = &vv_fs_mem_ops, .fs = mem, .clock_ops = &vv_clock_sim_ops, .clock = &clock_sim};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    vv_fs_mem_free(mem); /* asserts that nothing is open */
    return 0;
}

static struct vv_file *open_file(const char *path, int flags)
{
    struct vv_file *f = NULL;
    assert_int_equal(vv_fs_open(&env, path, flags, &f), 0);
    return f;
}

static void put(const char *path, const char *text, bool sync)
{
    struct vv_file *f = open_file(path, VV_O_WRITE | VV_O_CREATE | VV_O_TRUNC);
    assert_int_equal(vv_fs_pwrite(&env, f, text, strlen(text), 0), 0);
    if (sync) assert_int_equal(vv_fs_datasync(&env, f), 0);
    vv_fs_close(&env, f);
}

/* The content as text, NULL when the file is not there. */
static const char *get(const char *path)
{
    static char text[256];
    uint8_t *p;
    size_t n;
    int err = vv_fs_read_file(&env, path, sizeof text - 1, &p, &n);
    if (err == VV_E_NOENT) return NULL;
    assert_int_equal(err, 0);
    memcpy(text, p, n);
    text[n] = 0;
    free(p);
    return text;
}

/* ---- the same story on the real file system and in memory: every result is the same ---- */
static int count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 0;
}

static void tell(char *story, struct vv_env *e, const char *root)
{
    char a[160], b[160], d[160], x[160], buf[64] = "";
    struct vv_file *f = NULL, *g = NULL;
    struct vv_stat st = {0};
    uint64_t size = 0;
    int names = 0;
    size_t at = 0;
    snprintf(a, sizeof a, "%s/dir/a", root);
    snprintf(b, sizeof b, "%s/dir/b", root);
    snprintf(d, sizeof d, "%s/dir", root);
    snprintf(x, sizeof x, "%s/other/deep", root);
#define SAY(call) at += (size_t)snprintf(story + at, 4096 - at, "%s %d\n", #call, (int)(call))
    SAY(vv_fs_open(e, a, VV_O_WRITE | VV_O_CREATE, &f)); /* no directory */
    SAY(vv_fs_mkdirs(e, d));
    SAY(e->fs_ops->mkdir(e->fs, d));
    SAY(vv_fs_open(e, a, VV_O_READ, &f));
    SAY(vv_fs_open(e, a, VV_O_WRITE | VV_O_CREATE | VV_O_EXCL, &f));
    SAY(vv_fs_open(e, a, VV_O_WRITE | VV_O_CREATE | VV_O_EXCL, &g));
    SAY(vv_fs_pwrite(e, f, "hello", 5, 3));
    SAY(vv_fs_pread(e, f, buf, sizeof buf, 0));
    SAY(memcmp(buf, "\0\0\0hello", 8));
    SAY(vv_fs_pread(e, f, buf, 4, 6));
    SAY(vv_fs_pread(e, f, buf, 4, 60));
    SAY(vv_fs_truncate(e, f, 4));
    SAY(vv_fs_truncate(e, f, 6));
    SAY(vv_fs_pread(e, f, buf, sizeof buf, 0));
    SAY(memcmp(buf, "\0\0\0h\0\0", 6));
    SAY(vv_fs_size(e, f, &size));
    SAY(size);
    SAY(vv_fs_datasync(e, f));
    SAY(vv_fs_rmdir(e, d));
    SAY(vv_fs_rename(e, a, b));
    SAY(vv_fs_rename(e, a, b));
    SAY(vv_fs_stat(e, a, &st));
    SAY(vv_fs_stat(e, b, &st));
    SAY(st.is_dir);
    SAY(st.size);
    SAY(vv_fs_pwrite(e, f, "x", 1, 0)); /* the open file follows the rename */
    SAY(vv_fs_mkdirs(e, x));
    SAY(vv_fs_rename(e, x, d)); /* onto a directory with something in it */
    SAY(vv_fs_rename(e, b, a));
    SAY(vv_fs_list(e, d, count_name, &names));
    SAY(names);
    SAY(vv_fs_unlink(e, a));
    SAY(vv_fs_unlink(e, a));
    SAY(vv_fs_pread(e, f, buf, 1, 0)); /* unlinked, still open */
    SAY(vv_fs_close(e, f));
    SAY(vv_fs_lock(e, b, &f));
    SAY(vv_fs_lock(e, b, &g));
    SAY(vv_fs_close(e, f));
    SAY(vv_fs_lock(e, b, &f));
    SAY(vv_fs_close(e, f));
    SAY(vv_fs_unlink(e, b));
    SAY(vv_fs_sync_dir(e, d));
    SAY(vv_fs_rmdir(e, d));
    SAY(vv_fs_sync_dir(e, d));
    SAY(vv_fs_list(e, d, count_name, &names));
    SAY(vv_fs_rmdir(e, x));
    snprintf(x, sizeof x, "%s/other", root);
    SAY(vv_fs_rmdir(e, x));
#undef SAY
}

static void like_the_real_one(void **state)
{
    (void)state;
    static char real[4096], here[4096];
    char root[] = "/tmp/varve-env-XXXXXX";
    assert_non_null(mkdtemp(root));
    tell(real, &vv_env_posix, root);
    assert_int_equal(rmdir(root), 0);
    assert_int_equal(vv_fs_mkdirs(&env, root), 0);
    tell(here, &env, root);
    assert_string_equal(here, real);
}

/* ---- durability ---- */
static void synced_stays(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        assert_int_equal(vv_fs_write_file(&env, "/kept", "old", 3), 0);
        put("/kept", "old and more", true);
        vv_fs_mem_crash(mem, seed);
        assert_string_equal(get("/kept"), "old and more");
    }
}

static void entry_needs_its_directory(void **state)
{
    (void)state;
    int there = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        put("/new", "data", true); /* synced bytes under a name that is not */
        vv_fs_mem_crash(mem, seed);
        const char *text = get("/new");
        if (text) {
            there++;
            assert_string_equal(text, "data");
            assert_int_equal(vv_fs_unlink(&env, "/new"), 0);
            assert_int_equal(vv_fs_sync_dir(&env, "/"), 0);
        }
    }
    assert_in_range(there, 40, 160);
}

static void atomic_replace(void **state)
{
    (void)state;
    int is_new = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        assert_int_equal(vv_fs_write_file(&env, "/f", "one", 3), 0);
        put("/f.tmp", "two", true);
        assert_int_equal(vv_fs_rename(&env, "/f.tmp", "/f"), 0);
        vv_fs_mem_crash(mem, seed);
        const char *text = get("/f"); /* one or the other, never nothing, never a mixture */
        assert_non_null(text);
        if (!strcmp(text, "two")) {
            is_new++;
            assert_null(get("/f.tmp"));
        } else {
            assert_string_equal(text, "one");
        }
    }
    assert_in_range(is_new, 40, 160);
}

static void changes_in_order(void **state)
{
    (void)state;
    int partly = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        char name[8] = "/0";
        for (; name[1] < '6'; name[1]++) put(name, "x", false);
        vv_fs_mem_crash(mem, seed);
        bool gone = false;
        int n = 0;
        for (name[1] = '0'; name[1] < '6'; name[1]++) {
            struct vv_stat st;
            bool is = !vv_fs_stat(&env, name, &st);
            assert_false(gone && is); /* a later one without an earlier one */
            gone = !is;
            n += is;
            if (is) vv_fs_unlink(&env, name);
        }
        partly += n > 0 && n < 6;
        assert_int_equal(vv_fs_sync_dir(&env, "/"), 0);
    }
    assert_in_range(partly, 20, 120);
}

static void rename_between_directories(void **state)
{
    (void)state;
    int moved = 0;
    assert_int_equal(vv_fs_mkdirs(&env, "/a"), 0);
    assert_int_equal(vv_fs_mkdirs(&env, "/b"), 0);
    for (uint64_t seed = 0; seed < 200; seed++) {
        assert_int_equal(vv_fs_write_file(&env, "/a/f", "f", 1), 0);
        assert_int_equal(vv_fs_rename(&env, "/a/f", "/b/f"), 0);
        vv_fs_mem_crash(mem, seed);
        bool in_a = get("/a/f"), in_b = get("/b/f");
        assert_true(in_a != in_b);
        moved += in_b;
        vv_fs_unlink(&env, in_a ? "/a/f" : "/b/f");
        vv_fs_sync_dir(&env, in_a ? "/a" : "/b");
    }
    assert_in_range(moved, 40, 190);
    assert_int_equal(vv_fs_write_file(&env, "/a/f", "f", 1), 0);
    assert_int_equal(vv_fs_rename(&env, "/a/f", "/b/f"), 0);
    assert_int_equal(vv_fs_sync_dir(&env, "/b"), 0); /* one side's sync takes the other along */
    vv_fs_mem_crash(mem, 1);
    assert_null(get("/a/f"));
    assert_non_null(get("/b/f"));
}

/* What a crash makes of unsynced writes after a synced prefix: whole, gone, zeros, and torn at sectors only. */
static void writes_tear_at_sectors(void **state)
{
    (void)state;
    enum { PREFIX = 700, N = 3000 };
    int whole = 0, none = 0, torn = 0, zeros = 0;
    uint8_t src[PREFIX + N], got[PREFIX + N];
    memset(src, 'p', PREFIX);
    memset(src + PREFIX, 'w', N);
    for (uint64_t seed = 0; seed < 400; seed++) {
        assert_int_equal(vv_fs_write_file(&env, "/log", src, PREFIX), 0);
        struct vv_file *f = open_file("/log", VV_O_WRITE);
        assert_int_equal(vv_fs_pwrite(&env, f, src + PREFIX, N, PREFIX), 0);
        vv_fs_mem_crash(mem, seed);
        assert_int_equal(vv_fs_pread(&env, f, got, 1, 0), VV_E_IO); /* the old process' file */
        assert_int_equal(vv_fs_pwrite(&env, f, "!", 1, 0), VV_E_IO);
        vv_fs_close(&env, f);
        f = open_file("/log", VV_O_READ);
        ssize_t n = vv_fs_pread(&env, f, got, sizeof got, 0);
        vv_fs_close(&env, f);
        assert_in_range(n, PREFIX, PREFIX + N);
        assert_memory_equal(got, src, PREFIX);
        size_t good = 0, bad = 0;
        for (size_t i = PREFIX; i < (size_t)n; i++) {
            assert_true(got[i] == 'w' || !got[i]);
            if (i > PREFIX && i % 512) assert_int_equal(got[i], got[i - 1]);
            if (got[i]) good++;
            else bad++;
        }
        whole += good == N;
        none += n == PREFIX;
        zeros += !good && bad;
        torn += good && good < N;
    }
    assert_true(whole > 40 && none > 40 && zeros > 10 && torn > 20);
}

static void same_seed_same_world(void **state)
{
    (void)state;
    uint32_t first = 0;
    for (int round = 0; round < 2; round++) {
        struct vv_fs_mem *m = vv_fs_mem_new(NULL);
        struct vv_env e = {.fs_ops = &vv_fs_mem_ops, .fs = m};
        uint32_t sum = 0;
        for (uint64_t seed = 0; seed < 20; seed++) {
            for (int i = 0; i < 8; i++) {
                char path[16], text[2000];
                struct vv_file *f;
                memset(text, 'a' + i, sizeof text);
                snprintf(path, sizeof path, "/%d", i);
                assert_int_equal(vv_fs_open(&e, path, VV_O_WRITE | VV_O_CREATE, &f), 0);
                assert_int_equal(vv_fs_pwrite(&e, f, text, sizeof text, seed * 1000), 0);
                vv_fs_close(&e, f);
            }
            vv_fs_mem_crash(m, seed);
            for (int i = 0; i < 8; i++) {
                char path[16];
                uint8_t *p;
                size_t n;
                snprintf(path, sizeof path, "/%d", i);
                if (vv_fs_read_file(&e, path, 1 << 20, &p, &n)) continue;
                sum = vv_crc32c(sum, p, n) + (uint32_t)i;
                free(p);
            }
        }
        vv_fs_mem_free(m);
        if (round) assert_int_equal(sum, first);
        first = sum;
    }
    assert_true(first != 0);
}

/* ---- power, cuts, capacity, cold bytes, rot ---- */
static void note_cut(void *ctx)
{
    ++*(int *)ctx;
}

static void cut_at_every_change(void **state)
{
    (void)state;
    int hooks = 0, old = 0;
    uint64_t n = 1;
    assert_int_equal(vv_fs_write_file(&env, "/f", "old", 3), 0);
    for (;; n++) {
        vv_fs_mem_cut_after(mem, n, note_cut, &hooks);
        int err = vv_fs_write_file(&env, "/f", "new", 3);
        if (vv_fs_mem_is_on(mem)) {
            assert_int_equal(err, 0);
            break;
        }
        assert_int_equal(err, VV_E_IO);
        struct vv_stat st;
        assert_int_equal(vv_fs_stat(&env, "/f", &st), VV_E_IO); /* off */
        vv_fs_mem_crash(mem, n);
        const char *text = get("/f");
        assert_non_null(text);
        assert_true(!strcmp(text, "old") || !strcmp(text, "new"));
        old += !strcmp(text, "old");
    }
    vv_fs_mem_cut_after(mem, 0, NULL, NULL);
    assert_int_equal(hooks, n - 1);
    assert_true(n >= 5 && old >= 3); /* create, write, datasync, rename, sync_dir */
    assert_string_equal(get("/f"), "new");
}

static void kill_keeps_what_was_written(void **state)
{
    (void)state;
    struct vv_file *f = open_file("/f", VV_O_WRITE | VV_O_CREATE), *lock, *again;
    assert_int_equal(vv_fs_pwrite(&env, f, "unsynced", 8, 0), 0);
    assert_int_equal(vv_fs_lock(&env, "/lock", &lock), 0);
    assert_int_equal(vv_fs_lock(&env, "/lock", &again), VV_E_CONFLICT);
    vv_fs_mem_power(mem, false);
    vv_fs_mem_power(mem, true);
    assert_int_equal(vv_fs_pwrite(&env, f, "late", 4, 0), VV_E_IO);
    assert_int_equal(vv_fs_lock(&env, "/lock", &again), 0); /* the dead hold no locks */
    vv_fs_close(&env, lock);
    assert_int_equal(vv_fs_lock(&env, "/lock", &lock), VV_E_CONFLICT); /* and give none away */
    vv_fs_close(&env, again);
    vv_fs_close(&env, f);
    assert_string_equal(get("/f"), "unsynced");
}

static void capacity(void **state)
{
    (void)state;
    struct vv_space space;
    vv_fs_mem_capacity(mem, 1000);
    struct vv_file *f = open_file("/f", VV_O_WRITE | VV_O_CREATE);
    char text[600] = {1};
    assert_int_equal(vv_fs_pwrite(&env, f, text, 600, 0), 0);
    assert_int_equal(vv_fs_pwrite(&env, f, text, 600, 0), 0); /* in place */
    assert_int_equal(vv_fs_pwrite(&env, f, text, 600, 600), VV_E_NOSPC);
    assert_int_equal(vv_fs_mem_used(mem), 1000); /* what fits was written */
    assert_int_equal(vv_fs_space(&env, "/", &space), 0);
    assert_int_equal(space.total, 1000);
    assert_int_equal(space.available, 0);
    assert_int_equal(vv_fs_truncate(&env, f, 2000), VV_E_NOSPC);
    assert_int_equal(vv_fs_truncate(&env, f, 100), 0);
    assert_int_equal(vv_fs_mem_used(mem), 100);
    assert_int_equal(vv_fs_unlink(&env, "/f"), 0);
    assert_int_equal(vv_fs_mem_used(mem), 100); /* still open */
    vv_fs_close(&env, f);
    assert_int_equal(vv_fs_sync_dir(&env, "/"), 0);
    assert_int_equal(vv_fs_mem_used(mem), 0);
}

static void cold_bytes_and_rot(void **state)
{
    (void)state;
    char c;
    assert_int_equal(vv_fs_write_file(&env, "/f", "abc", 3), 0);
    struct vv_file *f = open_file("/f", VV_O_READ);
    assert_int_equal(vv_fs_pread_nowait(&env, f, &c, 1, 0), 1);
    assert_int_equal(vv_fs_drop_cache(&env, f), 0);
    assert_int_equal(vv_fs_pread_nowait(&env, f, &c, 1, 0), VV_E_AGAIN);
    assert_int_equal(vv_fs_pread(&env, f, &c, 1, 0), 1);
    assert_int_equal(vv_fs_pread_nowait(&env, f, &c, 1, 0), 1);
    vv_fs_close(&env, f);
    assert_int_equal(vv_fs_mem_flip(mem, "/g", 0), VV_E_NOENT);
    assert_int_equal(vv_fs_mem_flip(mem, "/f", 3), VV_E_LIMIT);
    assert_int_equal(vv_fs_mem_flip(mem, "/f", 1), 0);
    vv_fs_mem_crash(mem, 1);
    assert_string_equal(get("/f"), "acc");
}

static void clock_and_chance(void **state)
{
    (void)state;
    struct vv_stat st;
    put("/f", "x", false);
    vv_clock_sim_advance(&clock_sim, 5000);
    assert_int_equal(vv_mono_ms(&env), 6000);
    vv_clock_sim_jump(&clock_sim, -10000);
    assert_int_equal(vv_mono_ms(&env), 6000);
    assert_int_equal(vv_wall_ms(&env), 1700000000000 - 5000);
    assert_int_equal(vv_fs_stat(&env, "/f", &st), 0);
    assert_int_equal(st.mtime_ms, 1700000000000);

    struct vv_random_seeded a, b;
    uint8_t x[100], y[100];
    vv_random_seeded_init(&a, 7);
    vv_random_seeded_init(&b, 7);
    vv_random_seeded_ops.fill(&a, x, sizeof x);
    vv_random_seeded_ops.fill(&b, y, sizeof y);
    assert_memory_equal(x, y, sizeof x);
    vv_random_seeded_ops.fill(&a, x, sizeof x);
    assert_memory_not_equal(x, y, sizeof x);
    struct vv_rand r;
    int seen[10] = {0};
    vv_rand_seed(&r, 0);
    for (int i = 0; i < 10000; i++) seen[vv_rand_below(&r, 10)]++;
    for (int i = 0; i < 10; i++) assert_in_range(seen[i], 850, 1150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(like_the_real_one),
        T(synced_stays),
        T(entry_needs_its_directory),
        T(atomic_replace),
        T(changes_in_order),
        T(rename_between_directories),
        T(writes_tear_at_sectors),
        T(same_seed_same_world),
        T(cut_at_every_change),
        T(kill_keeps_what_was_written),
        T(capacity),
        T(cold_bytes_and_rot),
        T(clock_and_chance),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
