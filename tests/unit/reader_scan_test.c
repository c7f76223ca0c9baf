/* The reader on buckets made here: windows against a plain list of what was put in, with chunks, memory and GETs as
 * small as can be; aborted
 * transactions; a store that stumbles; manifests with pages; what is missing or forged. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "reader_impl.h"

#define CLUSTER "reader-test-cluster"

struct fact { int64_t offset, ts; bool hidden; }; /* hidden: control or aborted */
static char dir[64];
static struct vv_objstore *inner, *store;
static const struct vv_uuid topic_id = {{1, 2, 3}};
static struct fact facts[200000];
static size_t fact_n;
static struct vv_extent segments[2000];
static size_t segment_n;
static uint64_t seed, writer_epoch;

static uint32_t chance(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void put_text(const char *key, const char *text)
{
    struct vv_error e = {0};
    assert_int_equal(vv_objstore_put_mem(inner, key, text, strlen(text), NULL, 0, NULL, &e), 0);
}

static int setup(void **state)
{
    struct vv_error e = {0};
    struct vv_objstore_config c = {.ignore_environment = true};
    char url[80], key[VV_KEY_MAX], text[512], id[23];
    (void)state;
    strcpy(dir, "/tmp/varve-reader-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(url, sizeof url, "fs:%s", dir);
    assert_int_equal(vv_objstore_open(url, &c, &vv_env_posix, &inner, &e), 0);
    assert_int_equal(vv_objfault_open(inner, 1, &store), 0);
    vv_uuid_text(topic_id, id);
    put_text(VV_KEY_ROOT, "{\"format\":1,\"cluster_id\":\"" CLUSTER "\",\"node_id\":1,\"incarnation\":\"x\",\"writer_epoch\":3,\"claimed_ms\":1,"
                          "\"renewed_ms\":1,\"released\":true,\"deleted_topics\":[]}");
    vv_key_topic(topic_id, key);
    snprintf(text, sizeof text, "{\"format\":1,\"topic\":\"cars\",\"topic_id\":\"%s\",\"cluster_id\":\"" CLUSTER "\"}",
             id);
    put_text(key, text);
    fact_n = segment_n = 0;
    seed = 7;
    writer_epoch = 3;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    vv_objstore_close(store);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}

/* ---- segments ---- */

struct build { uint8_t *p; size_t n; struct vv_blocks blocks; int64_t next, first_ts, max_ts; };

/* A batch of count records from b->next on. attributes 0x10 transactional, 0x20 control; hidden: not to be handed out. */
static void add_batch(struct build *b, int count, int64_t ts, size_t value_n, uint16_t attributes, int64_t producer,
                      bool hidden)
{
    struct vv_batch_builder *w = vv_batch_builder_new();
    uint8_t *p, *value = calloc(1, value_n + 1);
    size_t n;
    int64_t max = ts;
    for (int i = 0; i < count; i++) {
        int64_t t = ts + (i % 3) * 5;
        max = VV_MAX(max, t);
        facts[fact_n++] = (struct fact){b->next + i, t, hidden};
        assert_int_equal(vv_batch_builder_add(w, t, "k", 1, value, (int32_t)value_n), 0);
    }
    assert_int_equal(vv_batch_builder_finish(w, &p, &n), 0);
    vv_put64(p, (uint64_t)b->next);
    vv_put16(p + 21, attributes);
    vv_put64(p + 43, (uint64_t)producer);
    vv_put32(p + 17, vv_crc32c(0, p + 21, n - 21));
    assert_int_equal(vv_blocks_append(&b->blocks, p, n, b->next, ts, max, (uint32_t)count), 0);
    b->p = realloc(b->p, b->n + n);
    memcpy(b->p + b->n, p, n);
    if (!b->n) b->first_ts = ts;
    b->max_ts = b->n ? VV_MAX(b->max_ts, max) : max;
    b->n += n;
    b->next += count;
    free(value);
    vv_batch_builder_free(w);
}

static void finish_segment(struct build *b, int64_t base, int64_t log_start, struct vv_aborted *aborted,
                           size_t aborted_n)
{
    struct vv_epoch epoch = {0, 0};
    struct vv_footer f = {.data_bytes = b->n, .key = {topic_id, 0, base, b->next - 1, 0, 0, (uint64_t)base + 1},
                          .records = b->blocks.records,
                          .writer_epoch = writer_epoch, .first_ts = b->first_ts, .max_ts = b->max_ts, .sealed_ms = 99,
                          .log_start = log_start,
                          .topic = (char *)(uintptr_t)"cars", .cluster_id = (char *)(uintptr_t)CLUSTER,
                          .epochs = &epoch, .epoch_count = 1,
                          .aborted = aborted, .aborted_count = aborted_n};
    uint8_t *foot;
    size_t n;
    char key[VV_KEY_MAX];
    struct vv_error e = {0};
    vv_blocks_seal(&b->blocks);
    f.blocks = b->blocks;
    assert_int_equal(vv_footer_encode(&f, &foot, &n), 0);
    b->p = realloc(b->p, b->n + n);
    memcpy(b->p + b->n, foot, n);
    vv_segkey_format(&f.key, key);
    assert_int_equal(vv_objstore_put_mem(inner, key, b->p, b->n + n, NULL, 0, NULL, &e), 0);
    segments[segment_n++] = (struct vv_extent){.base = base, .last = b->next - 1, .first_ts = b->first_ts,
                                               .max_ts = b->max_ts, .sealed_ms = 99,
                                               .bytes = b->n, .object_bytes = b->n + n, .nonce = (uint64_t)base + 1,
                                               .state = VV_EXTENT_REMOTE};
    free(foot);
    free(b->p);
    vv_blocks_release(&b->blocks);
}

/* count segments of `batches` batches, times mostly rising, some late; values of value_n bytes. */
static void make_log(int count, int batches, size_t value_n)
{
    int64_t next = segment_n ? segments[segment_n - 1].last + 1 : 0;
    for (int s = 0; s < count; s++) {
        struct build b = {.next = next};
        for (int i = 0; i < batches; i++) {
            int64_t ts = 1000000 + b.next * 10 - (chance(9) ? 0 : (int64_t)chance(5000));
            add_batch(&b, 1 + (int)chance(6), ts, value_n, 0, -1, false);
        }
        finish_segment(&b, next, 0, NULL, 0);
        next = b.next;
    }
}

/* ---- reading ---- */

struct hits { int64_t v[200000]; size_t n; };
static struct hits hits;

static int hit(void *ctx, const struct vv_scan_batch *b, const struct vv_record *r)
{
    (void)b;
    struct hits *h = ctx;
    h->v[h->n++] = r->offset;
    return 0;
}

static struct vv_bucket *bucket;
static struct vv_bucket_topic topic;

static struct vv_bucket_log *open_log(const struct vv_bucket_opts *o)
{
    struct vv_error e = {0};
    struct vv_bucket_log *log;
    int err = vv_bucket_attach(store, o, &bucket, &e);
    if (!err) err = vv_bucket_find_topic(bucket, "cars", &topic, &e);
    if (!err) err = vv_bucket_log_open(bucket, &topic, 0, &log, &e);
    if (err) print_error("%s\n", e.text);
    assert_int_equal(err, 0);
    return log;
}

static void close_log(struct vv_bucket_log *log)
{
    vv_bucket_log_close(log);
    vv_bucket_topic_release(&topic);
    vv_bucket_close(bucket);
}

static int scan(struct vv_bucket_log *log, const struct vv_scan_opts *o, struct vv_error *e)
{
    struct vv_scan *s;
    hits.n = 0;
    assert_int_equal(vv_scan_open(log, o, &s, e), 0);
    int err = vv_scan_each(s, hit, &hits, e);
    vv_scan_close(s);
    return err;
}

static void expect_window(struct vv_bucket_log *log, const struct vv_scan_opts *o)
{
    struct vv_error e = {0};
    size_t n = 0;
    int err = scan(log, o, &e);
    if (err) print_error("%s\n", e.text);
    assert_int_equal(err, 0);
    for (size_t i = 0; i < fact_n; i++) {
        const struct fact *f = &facts[i];
        if (f->hidden || f->offset < o->from || f->offset >= o->to || f->ts < o->from_ts || f->ts >= o->to_ts) continue;
        assert_true(n < hits.n);
        assert_int_equal(hits.v[n++], f->offset);
    }
    assert_int_equal(hits.n, n);
}

static void random_windows(struct vv_bucket_log *log, int count)
{
    int64_t end = facts[fact_n - 1].offset + 1;
    for (int i = 0; i < count; i++) {
        struct vv_scan_opts o = VV_SCAN_ALL;
        if (chance(2)) o.from = chance((uint32_t)end);
        if (chance(2)) o.to = o.from + 1 + chance((uint32_t)end);
        /* times that are there: the borders of batches and blocks among them */
        if (chance(2)) o.from_ts = facts[chance((uint32_t)fact_n)].ts;
        if (chance(2)) o.to_ts = VV_MAX(o.from_ts, facts[chance((uint32_t)fact_n)].ts) + (int64_t)chance(2);
        expect_window(log, &o);
    }
}

static void windows(void **state)
{
    (void)state;
    make_log(9, 40, 3000);  /* below 1 MiB: whole objects */
    make_log(3, 600, 1500); /* several MiB: footers and chunks */
    make_log(5, 1, 10);
    static const struct vv_bucket_opts how[] = {{.gets_max = 0},
                                                {.chunk_bytes = 1, .memory_max = 1, .gets_max = 1},
                                                {.chunk_bytes = 100000, .memory_max = 300000, .gets_max = 3}};
    for (size_t i = 0; i < VV_COUNT(how); i++) {
        struct vv_bucket_log *log = open_log(&how[i]);
        assert_int_equal(vv_bucket_log_info(log)->segments, segment_n);
        assert_int_equal(vv_bucket_log_info(log)->followed, segment_n); /* there is no manifest */
        assert_int_equal(vv_bucket_log_info(log)->next_offset, facts[fact_n - 1].offset + 1);
        struct vv_scan_opts all = VV_SCAN_ALL;
        expect_window(log, &all);
        random_windows(log, 30);
        close_log(log);
    }
}

/* Late data read-ahead left behind: a scan that is closed early waits for its GETs and leaks nothing. */
static void closed_early(void **state)
{
    (void)state;
    make_log(3, 600, 1500);
    struct vv_bucket_log *log = open_log(NULL);
    struct vv_scan_opts all = VV_SCAN_ALL;
    struct vv_scan_batch b;
    struct vv_error e;
    for (int i = 0; i < 5; i++) {
        struct vv_scan *s;
        assert_int_equal(vv_scan_open(log, &all, &s, &e), 0);
        for (int k = 0; k < i; k++) assert_int_equal(vv_scan_next(s, &b, &e), 0);
        vv_scan_close(s);
    }
    close_log(log);
}

/* Who reads one scan asks for the next one's beginning, again and again until all is asked for or as much as may be. */
static void asked_for_ahead(void **state)
{
    (void)state;
    make_log(1, 900, 1500); /* chunks, and whole objects behind them */
    make_log(4, 30, 3000);
    static const struct vv_bucket_opts how[] = {{.gets_max = 0}, {.chunk_bytes = 1, .memory_max = 1, .gets_max = 1}};
    for (size_t i = 0; i < VV_COUNT(how); i++) {
        struct vv_bucket_log *log = open_log(&how[i]);
        struct vv_scan_opts all = VV_SCAN_ALL;
        struct vv_scan_stats stats, later;
        struct vv_scan *s, *unread;
        struct vv_error e;
        bool little = how[i].memory_max;
        assert_int_equal(vv_scan_open(log, &all, &s, &e), 0);
        assert_int_equal(vv_scan_open(log, &all, &unread, &e), 0);
        if (little) assert_false(vv_scan_ask(s) || vv_scan_ask(unread)); /* a byte of memory is not enough for all of it */
        while (!little && !(vv_scan_ask(s) && vv_scan_ask(unread))) sched_yield();
        vv_scan_stats(s, &stats);
        assert_true(stats.gets > (little ? 0 : segment_n));
        hits.n = 0;
        assert_int_equal(vv_scan_each(s, hit, &hits, &e), 0);
        vv_scan_stats(s, &later);
        if (!little) assert_int_equal(later.gets, stats.gets);
        size_t n = 0;
        for (size_t k = 0; k < fact_n; k++)
            if (!facts[k].hidden) assert_int_equal(hits.v[n++], facts[k].offset);
        assert_int_equal(hits.n, n);
        vv_scan_close(unread);
        vv_scan_close(s);
        close_log(log);
    }
}

/* A sequential replay: hardly more bytes than it serves, and few GETs. In proportion to a TB of segments of 64 MiB, read in chunks of
 * 16 MiB, they would be 75,000: four chunks and a footer each. */
static void few_gets_hardly_a_byte_twice(void **state)
{
    (void)state;
    make_log(6, 800, 1500); /* some 4 MiB each */
    struct vv_bucket_log *log = open_log(&(struct vv_bucket_opts){.chunk_bytes = 1 << 20});
    struct vv_scan_opts all = VV_SCAN_ALL;
    struct vv_scan_batch b;
    struct vv_scan_stats stats;
    struct vv_scan *s;
    struct vv_error e;
    uint64_t served = 0;
    assert_int_equal(vv_scan_open(log, &all, &s, &e), 0);
    while (!vv_scan_next(s, &b, &e) && b.p) served += b.b.bytes;
    vv_scan_stats(s, &stats);
    assert_true(served > 6 * 3500000u);
    assert_true((double)stats.bytes <= 1.05 * (double)served);
    double per_tb = (double)stats.gets / ((double)served * 16) * 1e12; /* in proportion */
    if (per_tb > 100000) fail_msg("%llu GETs for %llu bytes", (unsigned long long)stats.gets, (unsigned long long)served);
    vv_scan_close(s);
    close_log(log);
}

static void stumbling_store(void **state)
{
    (void)state;
    make_log(4, 300, 1500);
    struct vv_bucket_log *log = open_log(&(struct vv_bucket_opts){.chunk_bytes = 100000});
    struct vv_scan_opts all = VV_SCAN_ALL;
    struct vv_error e = {0};
    int id = vv_objfault_add(store, &(struct vv_objfault_rule){.op = VV_OBJ_GET_ASYNC, .percent = 20,
                                                               .action = VV_FAULT_FAIL, .err = VV_E_AGAIN});
    expect_window(log, &all);
    assert_true(vv_objfault_hits(store, id) > 0);
    vv_objfault_clear(store);
    vv_objfault_add(store, &(struct vv_objfault_rule){.op = VV_OBJ_GET_ASYNC, .from = 5, .action = VV_FAULT_FAIL,
                                                      .err = VV_E_AGAIN});
    assert_int_equal(scan(log, &all, &e), VV_E_AGAIN); /* away for good: said, not damage */
    vv_objfault_clear(store);
    vv_objfault_add(store, &(struct vv_objfault_rule){.op = VV_OBJ_GET_ASYNC, .from = 1, .action = VV_FAULT_FAIL,
                                                      .err = VV_E_ACCESS});
    assert_int_equal(scan(log, &all, &e), VV_E_ACCESS);
    vv_objfault_clear(store);
    expect_window(log, &all);
    close_log(log);
}

static void transactions(void **state)
{
    (void)state;
    struct build b = {.next = 0};
    struct vv_aborted aborted = {7, 3, 9, 12};
    add_batch(&b, 3, 1000, 10, 0x10, 7, false);  /* 0..2: an earlier transaction of the same producer, committed */
    add_batch(&b, 2, 1001, 10, 0x10, 7, true);   /* 3, 4: aborted */
    add_batch(&b, 2, 1002, 10, 0, -1, false);    /* 5, 6: in between, of nobody's transaction */
    add_batch(&b, 1, 1003, 10, 0x10, 8, false);  /* 7: another producer's */
    add_batch(&b, 1, 1004, 10, 0x10, 7, true);   /* 8: aborted */
    add_batch(&b, 1, 1005, 10, 0x30, 7, true);   /* 9: the marker */
    add_batch(&b, 2, 1006, 10, 0x10, 7, false);  /* 10, 11: its next one */
    finish_segment(&b, 0, 0, &aborted, 1);
    struct vv_bucket_log *log = open_log(NULL);
    struct vv_scan_opts o = VV_SCAN_ALL;
    expect_window(log, &o);
    o.everything = true;
    struct vv_error e;
    assert_int_equal(scan(log, &o, &e), 0);
    assert_int_equal(hits.n, 11); /* markers hold no records of users */
    close_log(log);
}

static void log_start(void **state)
{
    (void)state;
    struct build b = {.next = 0};
    for (int i = 0; i < 10; i++) add_batch(&b, 2, 1000 + i, 10, 0, -1, false);
    finish_segment(&b, 0, 7, NULL, 0); /* when it was uploaded the log began inside a batch */
    for (size_t i = 0; i < fact_n; i++) facts[i].hidden = facts[i].offset < 7;
    struct vv_bucket_log *log = open_log(NULL);
    struct vv_scan_opts o = VV_SCAN_ALL;
    assert_int_equal(vv_bucket_log_info(log)->log_start, 7);
    expect_window(log, &o);
    close_log(log);
}

/* ---- manifests ---- */

static struct vv_index *index_of(size_t n)
{
    char path[100];
    struct vv_index *ix;
    struct vv_error e;
    snprintf(path, sizeof path, "%s/.tmp/index", dir);
    assert_int_equal(vv_fs_mkdirs(&vv_env_posix, path), 0);
    assert_int_equal(vv_index_open(&vv_env_posix, path, &vv_segment_refs, &ix, &e), 0);
    for (size_t i = 0; i < n; i++) assert_int_equal(vv_index_adopt(ix, &segments[i]), 0);
    return ix;
}

static void commit(size_t n)
{
    struct vv_manifest m = {0};
    struct vv_error e = {0};
    struct vv_manifest_where w = {.env = &vv_env_posix, .store = inner, .cluster_id = CLUSTER, .topic = "cars",
                                  .topic_id = topic_id, .writer_epoch = 3};
    struct vv_index *ix = index_of(n);
    assert_int_equal(vv_manifest_commit(&m, &w, ix, 0, &e), 0);
    vv_index_close(ix);
    vv_manifest_release(&m);
}

static int count_segment(void *ctx, const struct vv_extent *x)
{
    size_t *n = ctx;
    assert_int_equal(x->base, segments[*n].base);
    (*n)++;
    return 0;
}

static void damage_told(void *ctx, const struct vv_error *e)
{
    snprintf(ctx, 512, "%s", e->text);
}

static void pages(void **state)
{
    (void)state;
    make_log(700, 2, 20); /* two pages, a head, and what the manifest has not seen */
    commit(690);
    struct vv_bucket_log *log = open_log(NULL);
    const struct vv_bucket_log_info *i = vv_bucket_log_info(log);
    struct vv_error e = {0};
    size_t n = 0;
    assert_true(i->manifest);
    assert_int_equal(i->segments, 700);
    assert_int_equal(i->followed, 10);
    assert_int_equal(i->first_ts, segments[0].first_ts);
    assert_int_equal(vv_bucket_log_segments(log, 0, count_segment, &n, &e), 0);
    assert_int_equal(n, 700);
    n = 300;
    assert_int_equal(vv_bucket_log_segments(log, segments[300].last, count_segment, &n, &e), 0);
    assert_int_equal(n, 700);
    random_windows(log, 20);
    struct vv_verified v;
    char said[512] = "";
    assert_int_equal(vv_verify_log(log, damage_told, said, &v, &e), 0);
    assert_string_equal(said, "");
    assert_int_equal(v.records, fact_n);
    assert_int_equal(v.segments, 700);
    /* a page that is not what its name says */
    char key[VV_KEY_MAX];
    vv_key_page(topic_id, 0, 1, log->manifest.level[1].v[1].sha256, key);
    put_text(key, "{}");
    assert_int_equal(vv_verify_log(log, damage_told, said, &v, &e), 0);
    assert_int_equal(v.damages, 1);
    assert_non_null(strstr(said, key));
    close_log(log);
}

static void verify_goes_on(void **state)
{
    (void)state;
    make_log(12, 30, 300);
    commit(12);
    struct vv_error e = {0};
    char key[VV_KEY_MAX], said[512] = "";
    struct vv_segkey k;
    static const size_t victims[] = {2, 5, 11};
    vv_segkey_of(topic_id, 0, &segments[5], &k);
    vv_segkey_format(&k, key);
    assert_int_equal(vv_objstore_delete(inner, key, 0, &e), 0);
    for (size_t i = 0; i < 3; i += 2) {
        vv_segkey_of(topic_id, 0, &segments[victims[i]], &k);
        vv_segkey_format(&k, key);
        put_text(key, "something else");
    }
    struct vv_bucket_log *log = open_log(NULL); /* the newest object is damaged: that is no reason not to read the others */
    struct vv_verified v;
    assert_int_equal(vv_verify_log(log, damage_told, said, &v, &e), 0);
    assert_int_equal(v.damages, 3);
    struct vv_scan_opts o = VV_SCAN_ALL;
    o.to = segments[2].base;
    expect_window(log, &o);
    o.to = o.to + 1;
    assert_int_equal(scan(log, &o, &e), VV_E_CORRUPT);
    close_log(log);
}

/* A flipped bit anywhere in the data, also where no batch's own checksum looks. */
static void rot(void **state)
{
    (void)state;
    static const uint64_t at[] = {0, 7, 8, 12, 16, 17, 21, 57, 61, 100};
    make_log(1, 30, 300);
    make_log(1, 600, 2000); /* by footer and chunks */
    struct vv_bucket_log *log = open_log(NULL);
    for (size_t i = 0; i < 2 * VV_COUNT(at); i++) {
        const struct vv_extent *x = &segments[i % 2];
        struct vv_segkey k;
        char path[VV_KEY_MAX + 80], key[VV_KEY_MAX];
        vv_segkey_of(topic_id, 0, x, &k);
        vv_segkey_format(&k, key);
        snprintf(path, sizeof path, "%s/%s", dir, key);
        for (int twice = 0; twice < 2; twice++) {
            FILE *f = fopen(path, "r+");
            assert_non_null(f);
            assert_int_equal(fseek(f, (long)at[i / 2], SEEK_SET), 0);
            int c = fgetc(f);
            assert_int_equal(fseek(f, (long)at[i / 2], SEEK_SET), 0);
            assert_int_not_equal(fputc(c ^ 1, f), EOF);
            assert_int_equal(fclose(f), 0);
            if (twice) break;
            struct vv_scan_opts o = VV_SCAN_ALL;
            struct vv_error e = {0};
            assert_int_equal(scan(log, &o, &e), VV_E_CORRUPT);
            assert_non_null(strstr(e.text, key));
        }
    }
    struct vv_scan_opts o = VV_SCAN_ALL;
    expect_window(log, &o);
    close_log(log);
}

/* What a fenced writer put behind the manifest of its successor is not the log's continuation. */
static void fenced_writer(void **state)
{
    (void)state;
    make_log(3, 5, 50);
    commit(3);
    size_t known = fact_n;
    writer_epoch = 2;
    make_log(1, 5, 50);
    struct vv_bucket_log *log = open_log(NULL);
    assert_int_equal(vv_bucket_log_info(log)->followed, 0);
    assert_int_equal(vv_bucket_log_info(log)->next_offset, segments[2].last + 1);
    fact_n = known;
    struct vv_scan_opts o = VV_SCAN_ALL;
    expect_window(log, &o);
    close_log(log);
}

static void no_bucket(void **state)
{
    (void)state;
    struct vv_error e = {0};
    struct vv_bucket *b;
    struct vv_bucket_topic t;
    struct vv_bucket_log *log;
    char url[100];
    struct vv_stat st;
    struct vv_bucket_opts o = {.store = {.ignore_environment = true}};
    snprintf(url, sizeof url, "fs:%s/nowhere", dir);
    assert_int_equal(vv_bucket_open(url, &o, &b, &e), VV_E_NOENT);
    assert_int_equal(vv_fs_stat(&vv_env_posix, url + 3, &st), VV_E_NOENT);
    assert_int_not_equal(vv_bucket_open("ftp://x", &o, &b, &e), 0);
    assert_int_equal(vv_bucket_attach(store, NULL, &b, &e), 0);
    assert_string_equal(vv_bucket_cluster_id(b), CLUSTER);
    assert_int_equal(vv_bucket_find_topic(b, "nobody", &t, &e), VV_E_NOENT);
    assert_int_equal(vv_bucket_find_topic(b, "cars", &t, &e), 0);
    assert_int_equal(vv_bucket_log_open(b, &t, 3, &log, &e), VV_E_NOENT);
    vv_bucket_topic_release(&t);
    vv_bucket_close(b);
    put_text(VV_KEY_ROOT, "{\"format\":2}");
    assert_int_equal(vv_bucket_attach(store, NULL, &b, &e), VV_E_UNSUPPORTED);
    put_text(VV_KEY_ROOT, "{\"format\":1}");
    assert_int_equal(vv_bucket_attach(store, NULL, &b, &e), VV_E_CORRUPT);
    assert_int_equal(vv_objstore_delete(inner, VV_KEY_ROOT, 0, &e), 0);
    assert_int_equal(vv_bucket_attach(store, NULL, &b, &e), VV_E_NOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define VV_T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        VV_T(windows), VV_T(closed_early), VV_T(asked_for_ahead), VV_T(few_gets_hardly_a_byte_twice), VV_T(stumbling_store), VV_T(transactions), VV_T(log_start),
        VV_T(pages),   VV_T(verify_goes_on), VV_T(rot), VV_T(fenced_writer), VV_T(no_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
