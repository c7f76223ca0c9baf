/* The log as a whole: append, read, roll, seal, restart; torn tails at every byte, lost and damaged files, compaction. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <inttypes.h>

#include "env_sim.h"
#include "log_impl.h"

struct rig {
    char top[64], dir[128];
    struct vv_index *index;
    struct vv_log *log;
    struct vv_log_config config;
    struct vv_uuid id;
    bool clean;
};

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st, (void)flag, (void)f;
    return remove(path);
}

static struct vv_env *world = &vv_env_posix;

static void start(struct rig *r)
{
    struct vv_error e = {0};
    struct vv_log_opts o = {.env = world, .dir = r->dir, .topic = "t", .topic_id = r->id, .config = r->config, .clean = r->clean, .now_ms = 1000};
    assert_int_equal(vv_fs_mkdirs(world, r->dir), 0);
    if (vv_index_open(world, r->dir, &vv_segment_refs, &r->index, &e)) fail_msg("%s", e.text);
    o.index = r->index;
    if (vv_log_open(&o, &r->log, &e)) fail_msg("%s", e.text);
}

static void stop(struct rig *r, bool clean)
{
    r->clean = clean;
    if (clean) assert_int_equal(vv_log_close(r->log), 0);
    else vv_log_abandon(r->log);
    vv_index_close(r->index);
}

static void setup(struct rig *r)
{
    *r = (struct rig){.config = {.segment_bytes = 4096, .segment_ms = INT64_MAX, .segment_index_bytes = 1 << 20, .index_interval_bytes = 256, .producer_expiry_ms = INT64_MAX / 2}};
    memset(r->id.b, 7, 16);
    snprintf(r->top, sizeof r->top, "/tmp/varve-log-XXXXXX");
    assert_non_null(mkdtemp(r->top));
    snprintf(r->dir, sizeof r->dir, "%s/t-0", r->top);
    start(r);
}

static void teardown(struct rig *r)
{
    stop(r, false);
    nftw(r->top, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* One batch of n records "value <offset>", keys k<offset % 5>, time = 1000 * offset. */
static int append(struct rig *r, int n, int64_t producer, int32_t sequence, struct vv_append *a)
{
    struct vv_batch_builder *bb = vv_batch_builder_new();
    uint8_t *p;
    size_t len;
    for (int i = 0; i < n; i++) {
        char key[16], value[64];
        int64_t off = vv_log_end(r->log) + i;
        int k = snprintf(key, sizeof key, "k%d", (int)(off % 5)), v = snprintf(value, sizeof value, "value %" PRId64, off);
        assert_int_equal(vv_batch_builder_add(bb, off * 1000, key, k, value, v), 0);
    }
    assert_int_equal(vv_batch_builder_finish(bb, &p, &len), 0);
    if (producer >= 0) {
        vv_put64(p + 43, (uint64_t)producer);
        vv_put16(p + 51, 0);
        vv_put32(p + 53, (uint32_t)sequence);
        vv_put32(p + 17, vv_crc32c(0, p + 21, len - 21));
    }
    struct vv_batch b;
    assert_int_equal(vv_batch_parse(p, len, &b), 0);
    *a = (struct vv_append){.p = p, .b = &b, .leader_epoch = 0};
    struct vv_error e;
    int err = vv_log_append(r->log, a, &e);
    vv_batch_builder_free(bb);
    return err;
}

static void fill(struct rig *r, int batches)
{
    struct vv_append a;
    for (int i = 0; i < batches; i++) assert_int_equal(append(r, 1 + i % 3, -1, -1, &a), 0);
}

struct seen { int64_t next; int count; };
static int see(void *ctx, const struct vv_record *rec)
{
    struct seen *s = ctx;
    char want[64];
    assert_true(rec->offset >= s->next);
    s->next = rec->offset + 1;
    s->count++;
    int n = snprintf(want, sizeof want, "value %" PRId64, rec->offset);
    assert_int_equal(rec->value_n, n);
    assert_memory_equal(rec->value, want, (size_t)n);
    assert_int_equal(rec->timestamp, rec->offset * 1000);
    return 0;
}

/* Reads from offset to the end as a fetch does; returns the number of records. */
static int read_all(struct rig *r, int64_t offset, size_t max_bytes)
{
    struct seen s = {.next = offset};
    struct vv_extent x;
    while (offset < vv_log_end(r->log) && !vv_index_find(r->index, offset, &x)) {
        struct vv_chain c = {0};
        struct vv_error e = {0};
        struct vv_read q = {.offset = offset, .limit = INT64_MAX, .max_bytes = max_bytes, .min_one = true, .may_block = true};
        int err = vv_log_read(r->log, &x, &q, &c, &e);
        if (err) fail_msg("%s %s", vv_err_name(err), e.text);
        uint8_t *all = malloc(c.bytes + 1);
        vv_chain_copy_out(&c, all);
        struct seen batch = s;
        for (size_t at = 0; at < c.bytes;) {
            struct vv_batch b;
            assert_int_equal(vv_batch_parse(all + at, c.bytes - at, &b), 0);
            batch.next = b.base_offset;
            assert_int_equal(vv_batch_each(all + at, &b, 1 << 20, see, &batch), 0);
            at += b.bytes;
        }
        s = batch;
        free(all);
        offset = q.next_offset > offset ? q.next_offset : x.last + 1; /* a compacted segment may end early */
        vv_chain_release(&c);
        vv_extent_release(r->index, &x);
    }
    return s.count;
}

static void appends_are_read_back(void **state)
{
    struct rig r;
    (void)state;
    setup(&r);
    fill(&r, 300);
    assert_int_equal(vv_log_end(r.log), 600);
    assert_true(vv_log_has_pending_seal(r.log));
    assert_int_equal(read_all(&r, 0, 500), 600);
    assert_int_equal(vv_log_flushed(r.log), 0);
    assert_int_equal(vv_log_flush(r.log), 0);
    assert_int_equal(vv_log_flushed(r.log), 600);
    assert_int_equal(vv_log_seal_pending(r.log), 0);
    assert_false(vv_log_has_pending_seal(r.log));
    assert_int_equal(read_all(&r, 0, 1), 600);
    assert_int_equal(read_all(&r, 0, 1 << 20), 600);
    stop(&r, true);
    start(&r);
    assert_int_equal(vv_log_end(r.log), 600);
    assert_int_equal(read_all(&r, 0, 700), 600);
    fill(&r, 3);
    stop(&r, false); /* killed: nothing written since */
    start(&r);
    assert_int_equal(vv_log_end(r.log), 606);
    assert_int_equal(read_all(&r, 0, 700), 606);
    teardown(&r);
}

static void limits_hold(void **state)
{
    struct rig r;
    struct vv_extent x;
    struct vv_error e;
    (void)state;
    setup(&r);
    fill(&r, 10); /* batches of 1, 2, 3, 1, … records */
    assert_int_equal(vv_index_find(r.index, 4, &x), 0);
    struct vv_chain c = {0};
    struct vv_read q = {.offset = 4, .limit = 7, .max_bytes = 1 << 20, .min_one = true, .may_block = true};
    assert_int_equal(vv_log_read(r.log, &x, &q, &c, &e), 0);
    assert_int_equal(q.next_offset, 7); /* batch 3..5 holds 4; 6..6 is below the limit */
    vv_chain_release(&c);
    q = (struct vv_read){.offset = 4, .limit = 5, .max_bytes = 1 << 20, .min_one = true, .may_block = true};
    assert_int_equal(vv_log_read(r.log, &x, &q, &c, &e), 0);
    assert_int_equal(c.bytes, 0);
    q = (struct vv_read){.offset = 4, .limit = 100, .max_bytes = 1, .min_one = false, .may_block = true};
    assert_int_equal(vv_log_read(r.log, &x, &q, &c, &e), 0);
    assert_int_equal(c.bytes, 0);
    vv_extent_release(r.index, &x);
    teardown(&r);
}

/* Bytes that are in the page cache, but so many that a reactor would be held up: somebody else reads them. */
static void long_reads_are_not_for_reactors(void **state)
{
    struct rig r;
    struct vv_extent x;
    struct vv_error e;
    struct vv_append a;
    (void)state;
    setup(&r);
    r.log->config.segment_bytes = 8 << 20;
    for (int i = 0; i < 8; i++) assert_int_equal(append(&r, 10000, -1, -1, &a), 0); /* about 250 KiB each */
    assert_int_equal(vv_index_find(r.index, 0, &x), 0);
    struct vv_chain c = {0};
    struct vv_read q = {.limit = INT64_MAX, .max_bytes = 8 << 20, .min_one = true};
    assert_int_equal(vv_log_read(r.log, &x, &q, &c, &e), VV_E_AGAIN);
    assert_int_equal(c.bytes, 0);
    q.may_block = true;
    assert_int_equal(vv_log_read(r.log, &x, &q, &c, &e), 0);
    assert_true(c.bytes > 1 << 20);
    assert_int_equal(q.next_offset, 80000);
    vv_chain_release(&c);
    q = (struct vv_read){.limit = INT64_MAX, .max_bytes = 1 << 20, .min_one = true};
    assert_int_equal(vv_log_read(r.log, &x, &q, &c, &e), 0);
    assert_true(c.bytes > 512 << 10 && c.bytes <= 1 << 20);
    vv_chain_release(&c);
    vv_extent_release(r.index, &x);
    teardown(&r);
}

static long file_size(const char *path)
{
    struct vv_stat st;
    return vv_fs_stat(&vv_env_posix, path, &st) ? -1 : (long)st.size;
}

/* Whatever the last write left: cut at every byte of the last two batches, with and without garbage behind. */
static void torn_tails_are_cut(void **state)
{
    struct rig r;
    (void)state;
    setup(&r);
    fill(&r, 12);
    long whole = (long)atomic_load(&r.log->active->bytes);
    stop(&r, false);
    char path[VV_SEGMENT_PATH];
    vv_segment_path(r.dir, 0, ".log", path);
    uint8_t *bytes, *copy;
    size_t n;
    assert_int_equal(vv_fs_read_file(&vv_env_posix, path, 1 << 20, &bytes, &n), 0);
    assert_int_equal(n, whole);
    copy = malloc(n);
    int64_t ends[64];
    size_t batch_at[64], count = 0;
    for (size_t at = 0; at < n; count++) {
        struct vv_batch b;
        assert_int_equal(vv_batch_parse(bytes + at, n - at, &b), 0);
        batch_at[count] = at;
        ends[count] = vv_batch_last(&b) + 1;
        at += b.bytes;
    }
    for (size_t cut = batch_at[count - 2]; cut < n; cut++) {
        for (int garble = 0; garble < 2; garble++) {
            memcpy(copy, bytes, n);
            if (garble) memset(copy + cut, 0, n - cut);
            assert_int_equal(vv_fs_write_file(&vv_env_posix, path, copy, garble ? n : cut), 0);
            start(&r);
            size_t there = garble ? n : cut, intact = 0; /* zeros over zeros do no harm */
            while (intact < count) {
                size_t to = intact + 1 < count ? batch_at[intact + 1] : n;
                if (to > there || memcmp(copy, bytes, to)) break;
                intact++;
            }
            int64_t want = ends[intact - 1];
            assert_int_equal(vv_log_end(r.log), want);
            assert_int_equal(read_all(&r, 0, 1 << 20), want);
            stop(&r, false);
            /* recovery journalled the shorter end: begin anew for the next cut */
            char journal[256];
            snprintf(journal, sizeof journal, "%s/varve.index", r.dir);
            unlink(journal);
        }
    }
    free(bytes);
    free(copy);
    start(&r);
    teardown(&r);
}

/* Every auxiliary file, and every pair of them, gone or emptied: the log knows enough to make them again. */
static void lost_tables_are_rebuilt(void **state)
{
    static const char *const names[] = {"00000000000000000000.index", "00000000000000000000.timeindex", "00000000000000000000.blocks",
                                        "leader-epoch-checkpoint", "SNAPSHOTS", "partition.metadata"};
    struct rig r;
    struct vv_append a;
    (void)state;
    setup(&r);
    for (int i = 0; i < 100; i++) assert_int_equal(append(&r, 2, 42, 2 * i, &a), 0);
    assert_int_equal(vv_log_begin_epoch(r.log, 3), 0);
    a.leader_epoch = 3;
    assert_int_equal(vv_log_seal_pending(r.log), 0);
    stop(&r, true);
    for (size_t i = 0; i < VV_COUNT(names); i++)
        for (size_t k = i; k < VV_COUNT(names); k++)
            for (int how = 0; how < 2; how++) {
                for (size_t w = 0; w < 2; w++) {
                    const char *name = names[w ? k : i];
                    char path[512];
                    snprintf(path, sizeof path, "%s/%s", r.dir, name);
                    if (!strcmp(name, "SNAPSHOTS")) snprintf(path, sizeof path, "rm -f %s/*.snapshot", r.dir);
                    if (!strcmp(name, "SNAPSHOTS")) assert_int_equal(system(path), 0);
                    else if (how) unlink(path);
                    else assert_int_equal(truncate(path, 0), 0);
                }
                start(&r);
                assert_int_equal(vv_log_end(r.log), 200);
                assert_int_equal(read_all(&r, 0, 900), 200);
                assert_int_equal(append(&r, 2, 42, 198, &a), 0); /* known: the last batch again */
                assert_true(a.duplicate);
                assert_int_equal(a.base_offset, 198);
                assert_int_equal(append(&r, 2, 42, 500, &a), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
                struct vv_time_hit hit;
                struct vv_extent x;
                assert_int_equal(vv_index_find_time(r.index, 31500, 0, &x), 0);
                assert_int_equal(vv_log_find_time(r.log, &x, 31500, 0, &hit), 0);
                assert_int_equal(hit.offset, 32);
                vv_extent_release(r.index, &x);
                stop(&r, true);
            }
    start(&r);
    teardown(&r);
}

/* A flipped bit in a closed segment is found by the read that meets it; everything else is served, nothing is cut. */
static void rot_is_not_served(void **state)
{
    struct rig r;
    char path[VV_SEGMENT_PATH];
    (void)state;
    setup(&r);
    fill(&r, 200);
    assert_int_equal(vv_log_seal_pending(r.log), 0);
    stop(&r, true);
    vv_segment_path(r.dir, 0, ".log", path);
    long n = file_size(path);
    for (int round = 0; round < 200; round++) {
        struct vv_file *f;
        uint8_t c;
        uint64_t at = (uint64_t)(round * 7919) % (uint64_t)n;
        assert_int_equal(vv_fs_open(&vv_env_posix, path, VV_O_READ | VV_O_WRITE, &f), 0);
        assert_int_equal(vv_fs_pread(&vv_env_posix, f, &c, 1, at), 1);
        c ^= (uint8_t)(1 << round % 8);
        assert_int_equal(vv_fs_pwrite(&vv_env_posix, f, &c, 1, at), 0);
        start(&r);
        assert_int_equal(vv_log_end(r.log), 399);
        struct vv_extent x;
        bool found = false;
        assert_int_equal(vv_index_find(r.index, 0, &x), 0);
        int64_t last = x.last;
        for (int64_t off = 0; off <= last && !found;) {
            struct vv_chain ch = {0};
            struct vv_error e;
            struct vv_read q = {.offset = off, .limit = INT64_MAX, .max_bytes = 1, .min_one = true, .may_block = true};
            int err = vv_log_read(r.log, &x, &q, &ch, &e);
            struct vv_batch b;
            if (err == VV_E_CORRUPT) found = true;
            else if (err) fail_msg("%s", vv_err_name(err));
            else if (!ch.bytes) break;
            else if (ch.v[0].p) {
                assert_int_equal(vv_batch_parse(ch.v[0].p, ch.bytes, &b), 0);
                off = q.next_offset;
            }
            vv_chain_release(&ch);
        }
        vv_extent_release(r.index, &x);
        assert_int_equal(read_all(&r, last + 1, 4096), 399 - last - 1);
        assert_true(found); /* every byte: the CRC covers most, the expected offsets and epochs the rest */
        stop(&r, true);
        c ^= (uint8_t)(1 << round % 8);
        assert_int_equal(vv_fs_pwrite(&vv_env_posix, f, &c, 1, at), 0);
        vv_fs_close(&vv_env_posix, f);
        assert_int_equal(file_size(path), n);
    }
    start(&r);
    teardown(&r);
}

static void time_lookup_is_exact(void **state)
{
    struct rig r;
    (void)state;
    setup(&r);
    fill(&r, 120);
    assert_int_equal(vv_log_seal_pending(r.log), 0);
    for (int64_t ts = 0; ts < 240000; ts += 777) {
        struct vv_extent x;
        struct vv_time_hit hit;
        int err = vv_index_find_time(r.index, ts, 0, &x);
        if (err == VV_E_NOENT) { /* beyond what sealed ones know: the open one */
            assert_int_equal(vv_index_find(r.index, vv_log_end(r.log) - 1, &x), 0);
            err = 0;
        }
        assert_int_equal(err, 0);
        err = vv_log_find_time(r.log, &x, ts, 0, &hit);
        int64_t want = (ts + 999) / 1000;
        if (want >= vv_log_end(r.log)) assert_int_equal(err, VV_E_NOENT);
        else {
            assert_int_equal(err, 0);
            assert_int_equal(hit.offset, want);
            assert_int_equal(hit.timestamp, want * 1000);
        }
        vv_extent_release(r.index, &x);
    }
    teardown(&r);
}

static void compaction_keeps_the_last(void **state)
{
    struct rig r;
    struct vv_index_summary before, after;
    (void)state;
    setup(&r);
    r.config.compact = true;
    fill(&r, 300);
    assert_int_equal(vv_log_seal_pending(r.log), 0);
    vv_index_summary(r.index, &before);
    int64_t open_base = r.log->active->base;
    assert_int_equal(vv_log_compact(r.log, 0), 0);
    vv_index_summary(r.index, &after);
    assert_true(after.log_start > 0);
    int live = read_all(&r, after.log_start, 1 << 20);
    assert_true(live < 600 && live >= 5);
    assert_int_equal(live, 600 - open_base + VV_MAX(0, live - (600 - open_base)));
    assert_int_equal(vv_log_compact(r.log, 0), 0); /* nothing new: nothing to do */
    stop(&r, false);
    start(&r);
    assert_int_equal(vv_log_end(r.log), 600);
    assert_int_equal(read_all(&r, after.log_start, 1 << 20), live);
    teardown(&r);
}

static void another_topics_directory_is_refused(void **state)
{
    struct rig r;
    struct vv_error e = {0};
    (void)state;
    setup(&r);
    stop(&r, true);
    assert_int_equal(vv_index_open(&vv_env_posix, r.dir, &vv_segment_refs, &r.index, &e), 0);
    struct vv_log_opts o = {.env = &vv_env_posix, .dir = r.dir, .topic = "t", .topic_id = {{9}}, .config = r.config, .index = r.index};
    struct vv_log *log;
    assert_int_equal(vv_log_open(&o, &log, &e), VV_E_CONFLICT);
    assert_non_null(strstr(e.text, "another topic"));
    vv_index_close(r.index);
    start(&r);
    teardown(&r);
}

/* A segment that was sealed, reopened, and lost what came after, while the file of the next one survived: no hole is papered over. */
static void a_reopened_segment_is_cut_as_an_unsealed_one(void **state)
{
    (void)state;
    struct rig r;
    char path[VV_SEGMENT_PATH];
    setup(&r);
    fill(&r, 3);
    stop(&r, true);
    start(&r); /* the journal has the segment as sealed now, and it is open again */
    int64_t before = vv_log_end(r.log);
    vv_segment_path(r.dir, 0, ".log", path);
    long n = file_size(path);
    fill(&r, 3);
    assert_int_equal(vv_log_roll(r.log), 0);
    fill(&r, 2);
    stop(&r, false);
    assert_int_equal(truncate(path, n), 0);
    start(&r);
    assert_int_equal(vv_log_end(r.log), before);
    read_all(&r, 0, 4096);
    fill(&r, 2); /* its tables are in memory: it can be sealed */
    assert_int_equal(vv_log_roll(r.log), 0);
    assert_int_equal(vv_log_seal_pending(r.log), 0);
    struct vv_extent x;
    struct vv_blocks t;
    assert_int_equal(vv_index_find(r.index, 0, &x), 0);
    assert_int_equal(vv_segment_blocks(x.local, &t), 0);
    assert_true(t.bytes == x.bytes);
    vv_blocks_release(&t);
    vv_extent_release(r.index, &x);
    teardown(&r);
}

/* A roll made its file and then failed: the log went on in the segment before, past the base of the empty one. */
static void a_failed_roll_leaves_no_trap(void **state)
{
    (void)state;
    for (int rolled = 0; rolled < 2; rolled++) {
        struct rig r;
        struct vv_file *f;
        char path[VV_SEGMENT_PATH];
        setup(&r);
        fill(&r, 4);
        if (rolled) assert_int_equal(vv_log_roll(r.log), 0);
        if (rolled) fill(&r, 2);
        int64_t end = vv_log_end(r.log);
        stop(&r, false);
        vv_segment_path(r.dir, 1, ".log", path);
        assert_int_equal(vv_fs_open(&vv_env_posix, path, VV_O_WRITE | VV_O_CREATE, &f), 0);
        vv_fs_close(&vv_env_posix, f);
        start(&r);
        assert_int_equal(vv_log_end(r.log), end);
        assert_int_equal(file_size(path), -1);
        read_all(&r, 0, 4096);
        teardown(&r);
    }
}

/* Seals that cannot be done pile up: a flush still covers all of it. */
static void a_flush_covers_any_number_of_unsealed_segments(void **state)
{
    (void)state;
    struct rig r;
    setup(&r);
    for (int i = 0; i < 200; i++) {
        fill(&r, 1);
        assert_int_equal(vv_log_roll(r.log), 0);
    }
    assert_int_equal(vv_log_flush(r.log), 0);
    assert_int_equal(vv_log_flushed(r.log), vv_log_end(r.log));
    fill(&r, 1);
    assert_int_equal(vv_log_flush(r.log), 0);
    assert_int_equal(vv_log_flushed(r.log), vv_log_end(r.log));
    assert_int_equal(vv_log_seal_pending(r.log), 0);
    teardown(&r);
}

/* A seal that fails because the disk is full is tried again later and later, and succeeds; after an I/O error the log is offline. */
static void a_seal_that_fails_backs_off(void **state)
{
    (void)state;
    struct rig r;
    char path[VV_SEGMENT_PATH];
    struct vv_fs_fault *fault = vv_fs_fault_new(vv_env_posix.fs_ops, vv_env_posix.fs);
    struct vv_env faulty = vv_env_posix;
    faulty.fs_ops = &vv_fs_fault_ops;
    faulty.fs = fault;
    world = &faulty;
    setup(&r);
    fill(&r, 3);
    assert_int_equal(vv_log_roll(r.log), 0);
    vv_fs_fault_add(fault, &(struct vv_fsfault_rule){.ops = VV_FSOP_PWRITE, .path_part = ".blocks.tmp", .err = VV_E_NOSPC});
    assert_true(vv_log_has_pending_seal(r.log));
    assert_int_equal(vv_log_seal_pending(r.log), VV_E_NOSPC);
    assert_false(vv_log_has_pending_seal(r.log)); /* not now */
    assert_false(vv_log_offline(r.log));
    int64_t wait = r.log->seal_wait_ms;
    assert_int_equal(vv_log_seal_pending(r.log), VV_E_NOSPC);
    assert_true(r.log->seal_wait_ms > wait);
    atomic_store(&r.log->seal_not_before_ms, 1); /* the time has come */
    assert_true(vv_log_has_pending_seal(r.log));
    vv_fs_fault_clear(fault);
    assert_int_equal(vv_log_seal_pending(r.log), 0);
    vv_segment_path(r.dir, 0, ".blocks", path);
    assert_int_equal(access(path, F_OK), 0);
    fill(&r, 3);
    assert_int_equal(vv_log_roll(r.log), 0);
    vv_fs_fault_add(fault, &(struct vv_fsfault_rule){.ops = VV_FSOP_PWRITE, .path_part = ".blocks.tmp", .err = VV_E_IO});
    assert_int_equal(vv_log_seal_pending(r.log), VV_E_IO);
    assert_true(vv_log_offline(r.log));
    vv_fs_fault_clear(fault);
    assert_int_equal(vv_log_seal_pending(r.log), VV_E_OFFLINE);
    teardown(&r);
    world = &vv_env_posix;
    vv_fs_fault_free(fault);
}

/* ---- a clean stop, on a disk that knows what a power cut takes ---- */

static void on_memory_disk(struct rig *r, struct vv_env *env, struct vv_fs_mem *mem, struct vv_fs_fault *fault)
{
    *env = vv_env_posix;
    env->fs_ops = &vv_fs_fault_ops;
    env->fs = fault;
    world = env;
    assert_int_equal(vv_fs_mkdirs(env, "/log"), 0);
    assert_true(vv_fs_mem_is_on(mem));
    *r = (struct rig){.dir = "/log/t-0", .config = {.segment_bytes = 1 << 20, .segment_ms = INT64_MAX, .segment_index_bytes = 1 << 20, .index_interval_bytes = 256, .producer_expiry_ms = INT64_MAX / 2}};
    memset(r->id.b, 7, 16);
    start(r);
}

/* Whatever the power cut leaves of what a stop did not sync: records, producers, epochs and times are as before (the .index is a hint). */
static void a_clean_stop_survives_a_power_cut(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct rig r;
        struct vv_env env;
        struct vv_append a, again;
        struct vv_fs_mem *mem = vv_fs_mem_new(NULL);
        struct vv_fs_fault *fault = vv_fs_fault_new(&vv_fs_mem_ops, mem);
        on_memory_disk(&r, &env, mem, fault);
        for (int life = 0; life < 3; life++) {
            for (int i = 0; i < 20; i++) assert_int_equal(append(&r, 3, 9, life * 60 + i * 3, &a), 0);
            int64_t end = vv_log_end(r.log), max_ts = r.log->active->max_ts, at = r.log->active->max_ts_offset;
            stop(&r, true);
            if (life != 1 || seed % 2) vv_fs_mem_crash(mem, seed + (uint64_t)life); /* else the next life finds it in memory, and the cut comes later */
            start(&r);
            assert_int_equal(vv_log_end(r.log), end);
            assert_int_equal(read_all(&r, 0, 1 << 20), end);
            assert_int_equal(r.log->active->max_ts, max_ts);
            assert_int_equal(r.log->active->max_ts_offset, at);
            assert_int_equal(vv_log_epoch_at(r.log, 0), 0);
            assert_int_equal(append(&r, 3, 9, life * 60 + 57, &again), 0); /* the last one, sent again */
            assert_true(again.duplicate);
        }
        stop(&r, false);
        world = &vv_env_posix;
        vv_fs_fault_free(fault);
        vv_fs_mem_free(mem);
    }
}

static void a_clean_stop_syncs_little(void **state)
{
    (void)state;
    struct rig r;
    struct vv_env env;
    struct vv_fs_mem *mem = vv_fs_mem_new(NULL);
    struct vv_fs_fault *fault = vv_fs_fault_new(&vv_fs_mem_ops, mem);
    on_memory_disk(&r, &env, mem, fault);
    static const uint64_t at_most[] = {7, 5}; /* records, producers, epochs, journal, the directory before and after it, the one above */
    for (size_t life = 0; life < VV_COUNT(at_most); life++) {
        fill(&r, 5);
        uint64_t before = vv_fs_fault_calls(fault, VV_FSOP_DATASYNC | VV_FSOP_SYNC_DIR);
        stop(&r, true);
        assert_int_equal(vv_fs_fault_calls(fault, VV_FSOP_DATASYNC | VV_FSOP_SYNC_DIR) - before, at_most[life]);
        start(&r);
    }
    stop(&r, false);
    world = &vv_env_posix;
    vv_fs_fault_free(fault);
    vv_fs_mem_free(mem);
}

/* Tables that are there and empty vouch for nothing. */
static void empty_tables_are_not_trusted(void **state)
{
    (void)state;
    static const char *const suffixes[] = {".index", ".timeindex", ".blocks"};
    for (size_t i = 0; i < VV_COUNT(suffixes); i++) {
        struct rig r;
        char path[VV_SEGMENT_PATH];
        setup(&r);
        r.config.segment_bytes = 1 << 20;
        vv_log_configure(r.log, &r.config);
        while (atomic_load(&r.log->active->bytes) < 100000) fill(&r, 1); /* more than a block */
        int64_t max_ts = r.log->active->max_ts, at = r.log->active->max_ts_offset;
        size_t entries = r.log->active->offset_count;
        stop(&r, true);
        vv_segment_path(r.dir, 0, suffixes[i], path);
        assert_int_equal(truncate(path, 0), 0);
        start(&r);
        assert_int_equal(r.log->active->offset_count, entries);
        assert_int_equal(r.log->active->max_ts, max_ts);
        assert_int_equal(r.log->active->max_ts_offset, at);
        teardown(&r);
    }
}

int main(void)
{
    vlog_level = VV_ERROR + 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_are_read_back),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(long_reads_are_not_for_reactors),
        cmocka_unit_test(torn_tails_are_cut),
        cmocka_unit_test(lost_tables_are_rebuilt),
        cmocka_unit_test(rot_is_not_served),
        cmocka_unit_test(time_lookup_is_exact),
        cmocka_unit_test(compaction_keeps_the_last),
        cmocka_unit_test(another_topics_directory_is_refused),
        cmocka_unit_test(a_reopened_segment_is_cut_as_an_unsealed_one),
        cmocka_unit_test(a_failed_roll_leaves_no_trap),
        cmocka_unit_test(a_flush_covers_any_number_of_unsealed_segments),
        cmocka_unit_test(a_seal_that_fails_backs_off),
        cmocka_unit_test(a_clean_stop_survives_a_power_cut),
        cmocka_unit_test(a_clean_stop_syncs_little),
        cmocka_unit_test(empty_tables_are_not_trusted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
