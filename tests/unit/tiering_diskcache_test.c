/* The disk cache: names, what it remembers and admits, eviction, files that are torn, foreign or rotten, a disk that is
 * full or fails, restart; and under the reader, over a directory as store. */
#include "tiering_reader_rig.h"

#include "../../src/env/env_sim.h"
#include "diskcache.h"
#include "diskindex.h"
#include "ghost.h"

#define KIB 1024u
#define PART (64 * KIB)
#define RESERVE PART

static struct vv_segkey object(int64_t base)
{
    struct vv_segkey k = {.partition = 3, .base = base, .last = base + 99, .epoch = 1, .nonce = (uint64_t)base * 77 + 5};
    memset(k.topic_id.b, 9, 16);
    return k;
}

/* ---- pure parts ---- */

static void names_come_back(void **state)
{
    (void)state;
    char name[VV_DI_NAME_MAX], changed[VV_DI_NAME_MAX];
    struct vv_segkey key = object(1234567), got;
    uint64_t at;
    size_t n;
    vv_di_name(&key, 0x123456789, 77777, name);
    assert_int_equal(vv_di_parse(name, &got, &at, &n), 0);
    vv_di_name(&got, 0x123456789, 77777, changed);
    assert_string_equal(changed, name);
    assert_true(at == 0x123456789 && n == 77777);
    static const char *const bad[] = {"", "lock", "a.b.c.vvc", ".vvc", "CQkJCQkJCQkJCQkJCQkJCQ.00003.x.0-1.vvc"};
    for (size_t i = 0; i < VV_COUNT(bad); i++) assert_int_equal(vv_di_parse(bad[i], &got, &at, &n), VV_E_PROTO);
    for (size_t i = 0; name[i]; i++) { /* one letter more, less or different is another file's name, or nobody's */
        snprintf(changed, sizeof changed, "%.*s%s", (int)i, name, name + i + 1);
        if (!vv_di_parse(changed, &got, &at, &n)) assert_false(at == 0x123456789 && n == 77777 && got.nonce == key.nonce &&
            got.base == key.base && got.last == key.last && got.partition == key.partition && got.epoch == key.epoch);
    }
}

static void once_is_not_again_however_it_is_cut(void **state)
{
    (void)state;
    struct vv_ghost g = {0};
    uint64_t at = 0;
    vv_ghost_resize(&g, 4096);
    for (int i = 0; at < (100u << 20); i++) { /* ranges of every size, one after the other */
        size_t n = 1 + ((size_t)i * 7919u % (3u << 20));
        assert_false(vv_ghost_again(&g, 1, at, n));
        at += n;
    }
    for (uint64_t b = 0; b + (8u << 20) < at; b += 8u << 20) assert_true(vv_ghost_again(&g, 1, b, 8u << 20));
    assert_false(vv_ghost_again(&g, 2, 0, 8u << 20));
    assert_false(vv_ghost_again(&g, 3, 77, 5)); /* small ones too */
    assert_false(vv_ghost_again(&g, 3, 82, 5));
    assert_true(vv_ghost_again(&g, 3, 77, 5));
    for (uint64_t i = 0; i < 20000; i++) vv_ghost_again(&g, 4, i << 18, 1u << 18); /* what is long ago is forgotten */
    assert_false(vv_ghost_again(&g, 1, 0, 8u << 20));
    vv_ghost_release(&g);
}

static void ranges_cover_each_other(void **state)
{
    (void)state;
    struct vv_di *di = calloc(1, sizeof *di);
    struct vv_di_piece v[8];
    struct vv_segkey k = object(1), other = object(2);
    static const struct { uint64_t at; size_t n; } have[] = {{100, 50}, {0, 60}, {150, 50}, {300, 10}};
    di->bytes_max = 1 << 20;
    for (size_t i = 0; i < VV_COUNT(have); i++) assert_non_null(vv_di_add(di, &k, have[i].at, have[i].n));
    assert_int_equal(vv_di_find(di, &k, 100, 100, v, 8), 2);
    assert_true(v[0].from == 0 && v[0].n == 50 && v[1].from == 0 && v[1].n == 50);
    vv_di_unpin(v[0].range), vv_di_unpin(v[1].range);
    assert_int_equal(vv_di_find(di, &k, 120, 40, v, 8), 2);
    assert_true(v[0].from == 20 && v[0].n == 30 && v[1].n == 10);
    vv_di_unpin(v[0].range), vv_di_unpin(v[1].range);
    assert_int_equal(vv_di_find(di, &k, 100, 100, v, 1), 0);
    assert_int_equal(vv_di_find(di, &k, 50, 60, v, 8), 0);
    assert_int_equal(vv_di_find(di, &k, 0, 61, v, 8), 0);
    assert_int_equal(vv_di_find(di, &other, 0, 10, v, 8), 0);
    static const struct { uint64_t at; size_t n; uint64_t to_at; size_t to_n; } cuts[] = {
        {0, 60, 60, 0}, {0, 100, 60, 40}, {50, 100, 60, 40}, {60, 40, 60, 40}, {120, 200, 200, 120}, {250, 60, 250, 50},
        {100, 100, 200, 0}, {400, 10, 400, 10}, {60, 245, 60, 240}};
    for (size_t i = 0; i < VV_COUNT(cuts); i++) {
        uint64_t at = cuts[i].at;
        size_t n = cuts[i].n;
        vv_di_trim(di, &k, &at, &n);
        assert_int_equal(n, cuts[i].to_n);
        if (n) assert_int_equal(at, cuts[i].to_at);
    }
    vv_di_release(di);
    assert_int_equal(di->files, 0);
    assert_int_equal(di->bytes, 0);
    free(di);
}

/* ---- over a disk in memory, without threads ---- */

struct world {
    struct vv_clock_sim clock;
    struct vv_fs_mem *mem;
    struct vv_fs_fault *fault;
    struct vv_random_seeded random;
    struct vv_env env;
    struct vv_diskcache *dc;
    struct vv_objget get;
    int done;
};

static void begin(struct world *w, int64_t bytes_max)
{
    memset(w, 0, sizeof *w);
    vv_clock_sim_init(&w->clock, 1700000000000);
    vv_random_seeded_init(&w->random, 1);
    w->mem = vv_fs_mem_new(&w->clock);
    w->fault = vv_fs_fault_new(&vv_fs_mem_ops, w->mem);
    w->env = (struct vv_env){&vv_fs_fault_ops, w->fault, &vv_clock_sim_ops, &w->clock, &vv_random_seeded_ops, &w->random};
    w->dc = vv_diskcache_new(&w->env, "/c", bytes_max, RESERVE);
    assert_non_null(w->dc);
}

static void again(struct world *w, int64_t bytes_max) /* the process died and starts again */
{
    vv_diskcache_free(w->dc);
    w->dc = vv_diskcache_new(&w->env, "/c", bytes_max, RESERVE);
}

static void end(struct world *w)
{
    vv_diskcache_free(w->dc);
    vv_fs_fault_free(w->fault);
    vv_fs_mem_free(w->mem);
}

static void got(struct vv_objget *g)
{
    VV_CONTAINER(g, struct world, get)->done++;
}

static void pattern(uint8_t *p, int64_t base, uint64_t at, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)(((uint64_t)base * 31 + at + i) * 2654435761u >> 11);
}

/* What a reader does. 1: from the cache and right; 0: not there, fetched and offered; < 0: the cache's error. */
static int read_it(struct world *w, int64_t base, uint64_t at, size_t n)
{
    struct vv_segkey key = object(base);
    uint8_t *want = malloc(n);
    pattern(want, base, at, n);
    w->get = (struct vv_objget){.at = at, .n = n, .done = got};
    w->done = 0;
    struct vv_diskread *r = vv_diskcache_find(w->dc, &key, &w->get);
    int result = 0;
    if (r) {
        vv_diskcache_read(w->dc, r);
        assert_int_equal(w->done, 1);
        result = w->get.err ? w->get.err : 1;
        if (!w->get.err && memcmp(want, w->get.buf->data, n)) result = VV_E_CORRUPT;
        vv_buf_unref(w->get.buf);
        if (result < 0) vv_diskcache_bad(w->dc, &key, at, n);
    }
    if (result != 1) {
        struct vv_buf *b = vv_buf_new(n);
        struct vv_chain c = {0};
        memcpy(b->data, want, n);
        vv_chain_add(&c, b, b->data, n / 3);
        vv_chain_add(&c, b, b->data + n / 3, n - n / 3);
        vv_diskcache_offer(w->dc, &key, at, &c);
        vv_chain_release(&c);
        vv_buf_unref(b);
    }
    free(want);
    return result;
}

static struct vv_diskcache_stats stats(struct world *w)
{
    struct vv_diskcache_stats s;
    vv_diskcache_stats(w->dc, &s);
    return s;
}

static void only_what_is_read_again_is_written(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 64 * PART);
    for (int i = 0; i < 200; i++) assert_int_equal(read_it(&w, i, 0, PART), 0);
    assert_int_equal(stats(&w).writes, 0);
    for (int i = 0; i < 20; i++) assert_int_equal(read_it(&w, i, 0, PART), 0);
    assert_int_equal(stats(&w).writes, 20);
    assert_int_equal(stats(&w).bytes, 20 * PART);
    for (int i = 0; i < 20; i++) assert_int_equal(read_it(&w, i, (uint64_t)i, PART - 2 * (size_t)i), 1);
    for (int i = 200; i < 400; i++) read_it(&w, i, 0, PART); /* a replay displaces nothing */
    for (int i = 0; i < 20; i++) assert_int_equal(read_it(&w, i, 0, PART), 1);
    assert_int_equal(stats(&w).writes, 20);
    assert_int_equal(stats(&w).hits, 40);
    end(&w);
}

static void ordered_is_written_at_once(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 32 * PART);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 32; i++) read_it(&w, i, 0, PART); /* full */
    assert_int_equal(vv_diskcache_ready(w.dc), 0);
    struct vv_segkey key = object(500);
    vv_diskcache_order(w.dc, &key, 10 * PART);
    for (int k = 0; k < 2; k++) {
        for (uint64_t at = 0; at < 10; at++) assert_int_equal(read_it(&w, 500, at * PART, PART), k);
        assert_int_equal(read_it(&w, 500, 77, 300), 1);
        assert_int_equal(read_it(&w, 501, (uint64_t)k * PART, PART), 0); /* no other object */
    }
    assert_true(stats(&w).bytes <= 32 * PART);
    struct vv_segkey late = object(600);
    vv_diskcache_order(w.dc, &late, 10 * PART);
    vv_clock_sim_advance(&w.clock, 61000); /* orders end */
    uint64_t writes = stats(&w).writes;
    for (uint64_t at = 0; at < 10; at++) assert_int_equal(read_it(&w, 600, at * PART, PART), 0);
    assert_int_equal(stats(&w).writes, writes);
    again(&w, 0);
    assert_int_equal(vv_diskcache_ready(w.dc), VV_E_UNSUPPORTED);
    assert_int_equal(vv_diskcache_ready(NULL), VV_E_UNSUPPORTED);
    end(&w);
}

static void a_restart_finds_it_again(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 64 * PART);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 30; i++) {
            read_it(&w, i, 0, PART);
            vv_clock_sim_advance(&w.clock, 10);
        }
    again(&w, 10 * PART); /* smaller now: the oldest went */
    for (int i = 0; i < 30; i++) assert_int_equal(read_it(&w, i, 0, PART), i >= 20);
    assert_int_equal(stats(&w).files, 10);
    again(&w, 0); /* off: nothing stays */
    assert_int_equal(read_it(&w, 25, 0, PART), 0);
    assert_int_equal(stats(&w).files, 0);
    again(&w, 10 * PART);
    assert_int_equal(read_it(&w, 25, 0, PART), 0);
    end(&w);
}

/* At every write: the process dies in the middle of it, or power goes. */
static void death_in_the_middle_of_a_write(void **state)
{
    (void)state;
    for (uint64_t cut = 1; cut < 60; cut++) {
        struct world w;
        begin(&w, 64 * PART);
        for (int i = 0; i < 10; i++) read_it(&w, i, 0, PART);
        vv_fs_mem_cut_after(w.mem, cut, NULL, NULL);
        for (int i = 0; i < 10; i++) read_it(&w, i, 0, PART);
        vv_diskcache_free(w.dc);
        if (cut % 2) vv_fs_mem_crash(w.mem, cut);
        vv_fs_mem_power(w.mem, true);
        vv_fs_mem_cut_after(w.mem, 0, NULL, NULL);
        w.dc = vv_diskcache_new(&w.env, "/c", 64 * PART, RESERVE);
        for (int k = 0; k < 3; k++)
            for (int i = 0; i < 10; i++) { /* read_it compares: never a wrong byte, at most a file that is not one */
                int r = read_it(&w, i, 0, PART);
                assert_true(k == 0 ? r == 1 || r == 0 || r == VV_E_CORRUPT : k == 1 || r == 1);
            }
        assert_int_equal(vv_fs_mem_open_files(w.mem), 1);
        end(&w);
    }
}

static void make_file(struct world *w, const char *path, size_t n)
{
    struct vv_file *f;
    uint8_t zero[512] = {0};
    assert_int_equal(vv_fs_open(&w->env, path, VV_O_WRITE | VV_O_CREATE | VV_O_TRUNC, &f), 0);
    for (uint64_t at = 0; at < n; at += sizeof zero)
        assert_int_equal(vv_fs_pwrite(&w->env, f, zero, VV_MIN(sizeof zero, n - at), at), 0);
    vv_fs_close(&w->env, f);
}

static void files_that_are_not_what_they_say(void **state)
{
    (void)state;
    struct world w;
    char name[VV_DI_NAME_MAX], path[VV_DI_NAME_MAX + 8];
    struct vv_segkey k = object(3);
    struct vv_stat st;
    begin(&w, 64 * PART);
    for (int i = 0; i < 20; i++) read_it(&w, i % 10, 0, PART);
    vv_di_name(&k, 0, PART, name);
    snprintf(path, sizeof path, "/c/%s", name);
    assert_int_equal(vv_fs_mem_flip(w.mem, path, 1234), 0); /* rotten: whoever checks it says so */
    assert_int_equal(read_it(&w, 3, 0, PART), VV_E_CORRUPT);
    assert_int_equal(vv_fs_stat(&w.env, path, &st), 0); /* fetched, and written anew */
    assert_int_equal(read_it(&w, 3, 0, PART), 1);
    assert_int_equal(stats(&w).bad, 1);
    make_file(&w, path, 1000); /* cut off behind our back */
    assert_int_equal(read_it(&w, 3, 0, PART), VV_E_CORRUPT);
    vv_fs_unlink(&w.env, path); /* gone */
    assert_int_equal(read_it(&w, 3, 0, PART), VV_E_CORRUPT);
    assert_int_equal(read_it(&w, 3, 0, PART), 1);
    make_file(&w, path, 1000); /* cut off while nobody looked */
    make_file(&w, "/c/holiday.jpg", 1000);
    again(&w, 64 * PART);
    assert_int_equal(read_it(&w, 3, 0, PART), 0);
    assert_int_equal(vv_fs_stat(&w.env, path, &st), VV_E_NOENT);
    assert_int_equal(vv_fs_stat(&w.env, "/c/holiday.jpg", &st), 0);
    assert_int_equal(stats(&w).files, 9);
    end(&w);
}

static void one_broker_a_directory(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 64 * PART);
    for (int i = 0; i < 2; i++) read_it(&w, 1, 0, PART);
    struct vv_diskcache *first = w.dc;
    w.dc = vv_diskcache_new(&w.env, "/c", 64 * PART, RESERVE);
    for (int i = 0; i < 3; i++) assert_int_equal(read_it(&w, 1, 0, PART), 0);
    vv_diskcache_free(w.dc);
    w.dc = first;
    assert_int_equal(read_it(&w, 1, 0, PART), 1);
    end(&w);
}

/* A working set larger than the cache: it goes on, most of the cache stands and is found, and not everything is written
 * round and round. */
static void smaller_than_the_working_set(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 32 * PART);
    for (int round = 0; round < 50; round++)
        for (int i = 0; i < 96; i++) {
            assert_true(read_it(&w, i, 0, PART) >= 0);
            assert_true(stats(&w).bytes <= 32 * PART);
        }
    struct vv_diskcache_stats s = stats(&w);
    assert_true(s.hits > 50 * 96 / 10);
    assert_true(s.writes < 32 + s.hits / 2 + 9);
    for (int k = 0; k < 300; k++) { /* what is read now gets in, in time */
        vv_clock_sim_advance(&w.clock, 60000);
        for (int i = 1000; i < 1032; i++) read_it(&w, i, 0, PART);
    }
    for (int i = 1000; i < 1032; i++) assert_int_equal(read_it(&w, i, 0, PART), 1);
    end(&w);
}

static void a_full_disk_and_one_that_fails(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1000 * PART);
    vv_fs_mem_capacity(w.mem, 20 * PART);
    for (int k = 0; k < 6; k++)
        for (int i = 0; i < 40; i++) assert_true(read_it(&w, i, 0, PART) >= 0);
    assert_true(stats(&w).bytes <= 20 * PART - RESERVE * 2 && stats(&w).files > 0);
    vv_fs_mem_capacity(w.mem, 12 * PART); /* others want the disk: it steps back by itself */
    for (int i = 0; i < 8; i++) {
        vv_clock_sim_advance(&w.clock, 2000);
        vv_diskcache_tick(w.dc);
        vv_fs_sync_dir(&w.env, "/c"); /* this disk counts a file until its removal is durable */
    }
    assert_true(stats(&w).bytes <= 12 * PART - RESERVE * 2 && stats(&w).bytes >= 8 * PART);
    vv_fs_mem_capacity(w.mem, 0);
    vv_clock_sim_advance(&w.clock, 20000);
    struct vv_fsfault_rule half = {.ops = VV_FSOP_PWRITE, .action = VV_FSFAULT_HALF, .err = VV_E_IO};
    vv_fs_fault_add(w.fault, &half);
    for (int k = 0; k < 3; k++)
        for (int i = 100; i < 110; i++) assert_int_equal(read_it(&w, i, 0, PART), 0);
    assert_int_equal(stats(&w).errors, 1); /* it is left alone */
    vv_fs_fault_clear(w.fault);
    vv_clock_sim_advance(&w.clock, 20000);
    for (int k = 0; k < 2; k++)
        for (int i = 100; i < 110; i++) assert_int_equal(read_it(&w, i, 0, PART), k);
    struct vv_fsfault_rule eio = {.ops = VV_FSOP_PREAD, .count = 1};
    vv_fs_fault_add(w.fault, &eio);
    assert_int_equal(read_it(&w, 100, 0, PART), VV_E_CORRUPT);
    assert_int_equal(read_it(&w, 100, 0, PART), 1);
    end(&w);
}

/* ---- under the reader ---- */

static const struct vv_tier_config small = {.cache_bytes_max = 1024 * KIB, .chunk_bytes = 128 * KIB, .readahead_chunks = 2,
                                            .cache_disk_bytes = 64 << 20};

static struct rig *rig_cached(char dir[64])
{
    struct vv_tier_config c = small;
    snprintf(dir, 64, "/tmp/varve-cache-XXXXXX");
    assert_non_null(mkdtemp(dir));
    c.cache_dir = dir;
    return rig_remote(&c, 5, 80, 800); /* more than memory holds */
}

static void rig_end(struct rig *r, const char *dir)
{
    rig_free(r);
    nftw(dir, rig_rm, 16, FTW_DEPTH | FTW_PHYS);
}

static size_t replay(struct rig *r)
{
    struct rig_read q;
    size_t n = 0;
    for (int64_t at = 0; at < r->log.end; at = q.r.next_offset) n += rig_read_ok(r, &q, at, 100 * KIB);
    return n;
}

static void the_second_replay_fills_it_the_third_needs_no_store(void **state)
{
    (void)state;
    char dir[64];
    struct rig *r = rig_cached(dir);
    size_t all = replay(r);
    assert_int_equal(rig_stats(r).disk_writes, 0);
    replay(r);
    struct vv_tier_stats before = rig_stats(r);
    assert_true(before.disk_write_bytes >= all / 2);
    replay(r);
    replay(r);
    struct vv_tier_stats s = rig_stats(r);
    assert_true(s.disk_hit_bytes >= all && s.fetch_bytes - before.fetch_bytes < all);
    before = s;
    for (int i = 0; i < 2; i++) replay(r);
    for (int i = 0; i < 2; i++) { /* what is there outlives the process; the footers come to it */
        rig_crash(r);
        rig_open(r);
        if (!i) replay(r);
    }
    struct vv_objfault_rule away = {.op = VV_OBJ_GET_ASYNC, .action = VV_FAULT_FAIL};
    vv_objfault_add(r->store, &away);
    assert_int_equal(replay(r), all);
    assert_int_equal(rig_stats(r).fetch_bytes, 0);
    rig_end(r, dir);
}

static void the_rate_is_for_the_store(void **state)
{
    (void)state;
    char dir[64];
    struct rig *r = rig_cached(dir);
    struct rig_read q;
    for (int i = 0; i < 4; i++) replay(r);
    struct vv_tier_config slow = r->config;
    slow.fetch_bytes_per_s = 1;
    vv_tier_configure(r->tier, &slow);
    for (int64_t at = 0; at < r->log.end; at = q.r.next_offset) { /* no time passes, no GET is sent */
        rig_read_start(r, &q, at, 100 * KIB);
        assert_int_equal(q.calls, 1);
        assert_int_equal(q.r.err, 0);
        rig_read_check(r, &q);
    }
    rig_end(r, dir);
}

static int garble(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)f;
    if (flag != FTW_F || !strstr(path, VV_DI_SUFFIX)) return 0;
    FILE *file = fopen(path, "r+");
    if (!file) return 0; /* the cache let it go meanwhile */
    if (st->st_size % 3 == 0) assert_int_equal(ftruncate(fileno(file), st->st_size / 2), 0);
    fseek(file, st->st_size / 5, SEEK_SET);
    fputc(0x55, file);
    fputc(0xaa, file);
    return fclose(file);
}

static void damage_in_it_is_never_served(void **state)
{
    (void)state;
    char dir[64];
    struct rig *r = rig_cached(dir);
    size_t all = replay(r);
    for (int i = 0; i < 4; i++) replay(r);
    nftw(dir, garble, 16, FTW_PHYS);
    uint64_t errors = rig_stats(r).fetch_errors;
    assert_int_equal(replay(r), all); /* compared byte by byte */
    assert_int_equal(rig_stats(r).fetch_errors, errors);
    assert_true(rig_stats(r).disk_bad > 5);
    assert_int_equal(replay(r), all);
    rig_end(r, dir);
}

/* ---- with its threads ---- */

struct crowd { struct rig *r; unsigned seed; };

static void *read_about(void *arg)
{
    struct crowd *c = arg;
    struct rig_read q;
    for (int i = 0; i < 150; i++) {
        c->seed = c->seed * 1103515245u + 12345u;
        rig_read_ok(c->r, &q, (int64_t)(c->seed >> 8) % c->r->log.end, 60 * KIB);
        pthread_mutex_destroy(&q.mu);
        pthread_cond_destroy(&q.cond);
    }
    return NULL;
}

static void many_readers_files_that_change_and_an_end_under_load(void **state)
{
    (void)state;
    char dir[64];
    struct vv_error e = {0};
    struct crowd c[6];
    pthread_t t[VV_COUNT(c)];
    rig_threads = true;
    struct rig *r = rig_cached(dir);
    rig_env.clock_ops = vv_env_posix.clock_ops;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(vv_tier_start(r->tier), 0);
        for (unsigned i = 0; i < VV_COUNT(c); i++) {
            c[i] = (struct crowd){r, i + 1};
            assert_int_equal(pthread_create(&t[i], NULL, read_about, &c[i]), 0);
        }
        struct vv_tier_config less = r->config; /* meanwhile */
        for (int i = 0; i < 20; i++) {
            less.cache_disk_bytes = i % 2 ? 512 << 10 : 64 << 20;
            vv_tier_configure(r->tier, &less);
            nftw(dir, garble, 16, FTW_PHYS);
        }
        for (size_t i = 0; i < VV_COUNT(c); i++) pthread_join(t[i], NULL);
        assert_true(rig_stats(r).disk_writes > 0);
        struct rig_read q[3]; /* under way when everything ends */
        for (int i = 0; i < 3; i++) rig_read_start(r, &q[i], i * 700, 60 * KIB);
        vv_tier_part_close(r->part);
        r->part = NULL;
        for (int i = 0; i < 3; i++)
            if (!rig_read_wait(&q[i])) rig_read_check(r, &q[i]);
        vv_tier_stop(r->tier, 1000);
        vv_tier_free(r->tier);
        r->tier = NULL;
        rig_ok(vv_tier_open(&rig_env, r->store, &r->config, &r->id, false, &r->tier, &e), &e);
        rig_open_part(r);
    }
    rig_end(r, dir);
    rig_threads = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_come_back), cmocka_unit_test(once_is_not_again_however_it_is_cut),
        cmocka_unit_test(ranges_cover_each_other), cmocka_unit_test(only_what_is_read_again_is_written),
        cmocka_unit_test(ordered_is_written_at_once), cmocka_unit_test(a_restart_finds_it_again), cmocka_unit_test(death_in_the_middle_of_a_write),
        cmocka_unit_test(files_that_are_not_what_they_say), cmocka_unit_test(one_broker_a_directory),
        cmocka_unit_test(smaller_than_the_working_set), cmocka_unit_test(a_full_disk_and_one_that_fails),
        cmocka_unit_test(the_second_replay_fills_it_the_third_needs_no_store),
        cmocka_unit_test(the_rate_is_for_the_store), cmocka_unit_test(damage_in_it_is_never_served),
        cmocka_unit_test(many_readers_files_that_change_and_an_end_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
