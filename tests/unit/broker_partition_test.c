/* Partitions over the real log, index and tier (a directory as bucket): appends and group commit, waiters, retention
 * with and without the tier, DeleteRecords, deletion under a reader, reopening, restore. The wall clock is under
 * control; the tier is stepped on the test's thread; what runs on the iopool is waited for by its own condition. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "metrics.h"
#include "partition.h"
#include "varve/objstore.h"

#define T0 1700000000000

static _Atomic int64_t wall = T0;
static int64_t test_wall(void *c)
{
    (void)c;
    return wall;
}
static int64_t test_mono(void *c)
{
    (void)c;
    return (wall - T0) * 1000 + 1000000;
}
static const struct vv_clock_ops test_clock = {test_wall, test_mono};

struct rig {
    char dir[64], log_dir[128], bucket[128];
    struct vv_env env;
    struct vv_broker_config config;
    struct vv_broker b;
    struct vv_topic t;
    struct vv_objstore *store;
    struct vv_partition *p;
    struct vv_batch_builder *builder;
};

static void ok(int err, const struct vv_error *e)
{
    if (err) fail_msg("%s: %s", vv_err_name(err), e ? e->text : "");
}

static void open_tier(struct rig *r)
{
    struct vv_error e = {0};
    char url[160];
    struct vv_objstore_config sc = {.inline_async = true};
    struct vv_tier_config tc = {.delete_grace_ms = 1000};
    struct vv_tier_identity id = {.cluster_id = "cluster-1", .node_id = 1};
    snprintf(url, sizeof url, "fs:%s", r->bucket);
    ok(vv_objstore_open(url, &sc, &r->env, &r->store, &e), &e);
    ok(vv_tier_open(&r->env, r->store, &tc, &id, true, &r->b.tier, &e), &e);
}

static void close_tier(struct rig *r)
{
    if (!r->b.tier) return;
    vv_tier_stop(r->b.tier, 1000);
    vv_tier_free(r->b.tier);
    vv_objstore_close(r->store);
    r->b.tier = NULL;
}

static void open_part(struct rig *r, bool clean)
{
    struct vv_error e = {0};
    ok(vv_partition_open(&r->b, &r->t, 0, clean, &r->p, &e), &e);
}

/* n overrides "key", "value" ... */
static void configure(struct rig *r, const struct vv_kv *kv, size_t n)
{
    struct vv_error e = {0};
    ok(vv_topic_config_parse(kv, n, &r->config, r->t.internal, &r->t.config, &e), &e);
    if (r->p) vv_partition_configure(r->p, &r->t.config);
}
#define CONFIGURE(r, ...)                                                                                              \
    configure(r, (const struct vv_kv[]){__VA_ARGS__},                                                                  \
              sizeof((const struct vv_kv[]){__VA_ARGS__}) / sizeof(struct vv_kv))

static struct rig *rig_new(const char *topic, bool internal)
{
    struct rig *r = calloc(1, sizeof *r);
    struct vv_error e = {0};
    char a[160], b[160];
    wall = T0;
    snprintf(r->dir, sizeof r->dir, "/tmp/varve-part-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->log_dir, sizeof r->log_dir, "%s/log", r->dir);
    snprintf(r->bucket, sizeof r->bucket, "%s/bucket", r->dir);
    snprintf(a, sizeof a, "log.dirs=%s", r->log_dir);
    snprintf(b, sizeof b, "tier.url=fs:%s", r->bucket);
    r->env = vv_env_posix;
    r->env.clock_ops = &test_clock;
    const char *sets[] = {a, b};
    ok(vv_config_load(&r->env, NULL, 0, sets, 2, &r->config, &e), &e);
    r->b = (struct vv_broker){
        .env = &r->env, .config = &r->config, .node_id = 1, .log_dir = r->log_dir, .time_trusted = true};
    ok(vv_fs_mkdirs(&r->env, r->log_dir), NULL);
    ok(vv_iopool_new("test-io", 2, &r->b.iopool), NULL);
    ok(vv_reactor_new(&r->env, "test-ctl", &r->b.control), NULL);
    ok(vv_reactor_start(r->b.control), NULL);
    r->t.name = strdup(topic);
    r->t.internal = internal;
    r->t.broker = &r->b;
    memset(r->t.id.b, 7, 16);
    r->builder = vv_batch_builder_new();
    open_tier(r);
    return r;
}

static int rm_entry(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st, (void)flag, (void)f;
    return remove(path);
}

static void rig_free(struct rig *r)
{
    if (r->p) ok(vv_partition_close(r->p), NULL);
    close_tier(r);
    vv_reactor_stop(r->b.control);
    vv_reactor_free(r->b.control);
    vv_iopool_free(r->b.iopool);
    vv_batch_builder_free(r->builder);
    vv_config_release(&r->config);
    free(r->t.name);
    nftw(r->dir, rm_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(r);
}

/* No flush or maintenance is under way. */
static void settle(struct rig *r)
{
    struct vv_partition *p = r->p;
    pthread_mutex_lock(&p->lock);
    while (p->flushing || p->maintain_state) pthread_cond_wait(&p->idle, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static void maintain(struct rig *r)
{
    vv_partition_maintain(r->p);
    settle(r);
}

/* Uploads and deletions until nothing happens any more; time passes. */
static void tier_run(struct rig *r)
{
    for (int i = 0; i < 10; i++) {
        while (vv_tier_step(r->b.tier)) settle(r);
        settle(r);
        vv_tier_hurry(r->b.tier);
        wall += 200;
    }
}

/* One batch of n records of about `size` bytes each, at time ts. Returns the base offset. */
static int64_t append(struct rig *r, int n, size_t size, int64_t ts)
{
    struct vv_error e = {0};
    uint8_t *p, *value = calloc(1, size), *copy;
    size_t bytes;
    struct vv_batch b;
    struct vv_batch_rules rules;
    int32_t bad;
    for (int i = 0; i < n; i++) assert_int_equal(vv_batch_builder_add(r->builder, ts, "k", 1, value, (int32_t)size), 0);
    assert_int_equal(vv_batch_builder_finish(r->builder, &p, &bytes), 0);
    copy = malloc(bytes);
    memcpy(copy, p, bytes);
    vv_partition_check_rules(r->p, wall, &rules);
    ok(vv_batch_check(copy, bytes, &rules, &b, &bad, &e), &e);
    struct vv_append a = {.p = copy, .b = &b, .leader_epoch = vv_partition_epoch(r->p), .now_ms = wall};
    ok(vv_partition_append(r->p, &a, &e), &e);
    free(copy);
    free(value);
    return a.base_offset;
}

/* A segment of ten records that is closed. */
static void segment(struct rig *r, int64_t ts)
{
    append(r, 10, 1000, ts);
    assert_int_equal(vv_log_roll(r->p->log), 0);
    maintain(r);
}

static int64_t start(struct rig *r)
{
    return vv_partition_log_start(r->p);
}

static bool exists(struct rig *r, const char *dir, int64_t base)
{
    char path[1024];
    struct vv_stat st;
    snprintf(path, sizeof path, "%s/%020lld.log", dir, (long long)base);
    return vv_fs_stat(&r->env, path, &st) == 0;
}

/* ---- appends, flushes, waiters ---- */

struct flushed {
    struct vv_flush_waiter w;
    pthread_mutex_t m;
    pthread_cond_t c;
    bool done;
    int err;
};

static void on_flushed(struct vv_flush_waiter *w, int err)
{
    struct flushed *f = VV_CONTAINER(w, struct flushed, w);
    pthread_mutex_lock(&f->m);
    assert_false(f->done);
    f->done = true;
    f->err = err;
    pthread_cond_signal(&f->c);
    pthread_mutex_unlock(&f->m);
}

static int await(struct flushed *f)
{
    pthread_mutex_lock(&f->m);
    while (!f->done) pthread_cond_wait(&f->c, &f->m);
    pthread_mutex_unlock(&f->m);
    return f->err;
}

static void test_group_commit(void **state)
{
    (void)state;
    struct rig *r = rig_new("events", false);
    struct flushed f[50];
    CONFIGURE(r, {"remote.storage.enable", "false"});
    open_part(r, true);
    assert_int_equal(vv_partition_epoch(r->p), 0);
    assert_int_equal(vv_partition_high_watermark(r->p), 0);
    int64_t before = atomic_load(&vv_metrics.flushes);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(append(r, 2, 100, wall), i * 2);
        f[i] = (struct flushed){.w = {.offset = i * 2 + 2, .done = on_flushed}};
        pthread_mutex_init(&f[i].m, NULL);
        pthread_cond_init(&f[i].c, NULL);
        vv_partition_flush_wait(r->p, &f[i].w);
    }
    for (int i = 0; i < 50; i++) assert_int_equal(await(&f[i]), 0);
    settle(r);
    assert_int_equal(vv_partition_high_watermark(r->p), 100);
    assert_int_equal(vv_log_flushed(r->p->log), 100);
    int64_t flushes = atomic_load(&vv_metrics.flushes) - before;
    assert_in_range(flushes, 1, 50);
    struct flushed again = {.w = {.offset = 50, .done = on_flushed}}; /* on disk already: at once, without a flush */
    pthread_mutex_init(&again.m, NULL);
    pthread_cond_init(&again.c, NULL);
    vv_partition_flush_wait(r->p, &again.w);
    assert_true(again.done);
    assert_int_equal(atomic_load(&vv_metrics.flushes) - before, flushes);
    rig_free(r);
}

struct woken {
    struct vv_task task;
    struct vv_waiter w;
    pthread_mutex_t m;
    pthread_cond_t c;
    int count;
};

static void on_woken(struct vv_task *t)
{
    struct woken *k = VV_CONTAINER(t, struct woken, task);
    pthread_mutex_lock(&k->m);
    k->count++;
    pthread_cond_signal(&k->c);
    pthread_mutex_unlock(&k->m);
}

static void test_waiters(void **state)
{
    (void)state;
    struct rig *r = rig_new("events", false);
    CONFIGURE(r, {"remote.storage.enable", "false"});
    open_part(r, true);
    struct woken k[2] = {{.count = 0}};
    for (int i = 0; i < 2; i++) {
        k[i].task.run = on_woken;
        k[i].w = (struct vv_waiter){.reactor = r->b.control, .task = &k[i].task};
        pthread_mutex_init(&k[i].m, NULL);
        pthread_cond_init(&k[i].c, NULL);
        vv_partition_wait(r->p, &k[i].w);
    }
    assert_int_equal(r->p->waiter_count, 2);
    vv_partition_unwait(r->p, &k[0].w);
    vv_partition_unwait(r->p, &k[0].w); /* harmless */
    append(r, 1, 10, wall);
    pthread_mutex_lock(&k[1].m);
    while (!k[1].count) pthread_cond_wait(&k[1].c, &k[1].m);
    pthread_mutex_unlock(&k[1].m);
    assert_null(k[1].w.link);
    assert_int_equal(r->p->waiter_count, 0);
    append(r, 1, 10, wall); /* nobody is registered: nobody is told */
    vv_reactor_stop(r->b.control);
    assert_int_equal(k[0].count, 0);
    assert_int_equal(k[1].count, 1);
    assert_int_equal(vv_reactor_start(r->b.control), 0);
    rig_free(r);
}

/* ---- retention ---- */

static void test_retention_by_time(void **state)
{
    (void)state;
    struct rig *r = rig_new("events", false);
    CONFIGURE(r, {"remote.storage.enable", "false"}, {"retention.ms", "10000"});
    open_part(r, true);
    for (int i = 0; i < 3; i++) segment(r, T0 + i * 1000);
    append(r, 10, 1000, T0 + 3000);
    assert_int_equal(start(r), 0);
    wall = T0 + 11500; /* the first two are too old */
    r->b.time_trusted = false;
    maintain(r);
    assert_int_equal(start(r), 0); /* not by a clock nobody believes */
    r->b.time_trusted = true;
    maintain(r);
    assert_int_equal(start(r), 20);
    assert_false(exists(r, r->p->dir, 0));
    assert_false(exists(r, r->p->dir, 10));
    assert_true(exists(r, r->p->dir, 20));
    struct vv_extent x;
    assert_int_equal(vv_index_next(r->p->index, 0, &x), 0);
    assert_int_equal(x.base, 20); /* gone from the index too */
    vv_extent_release(r->p->index, &x);
    wall = T0 + 60000; /* everything: the open segment is closed and goes */
    maintain(r);
    assert_int_equal(start(r), 40);
    assert_int_equal(vv_partition_high_watermark(r->p), 40);
    assert_false(exists(r, r->p->dir, 30));
    assert_int_equal(append(r, 1, 10, wall), 40);
    maintain(r);
    assert_int_equal(start(r), 40);
    rig_free(r);
}

static void test_retention_by_size(void **state)
{
    (void)state;
    struct rig *r = rig_new("events", false);
    struct vv_partition_sizes s;
    CONFIGURE(r, {"remote.storage.enable", "false"});
    open_part(r, true);
    for (int i = 0; i < 5; i++) segment(r, T0);
    vv_partition_sizes(r->p, &s);
    assert_int_equal(s.end, 50);
    assert_int_equal(s.remote_bytes, 0);
    char limit[32];
    snprintf(limit, sizeof limit, "%llu",
             (unsigned long long)(s.local_bytes / 5 * 2 + 10)); /* room for two and a bit */
    CONFIGURE(r, {"remote.storage.enable", "false"}, {"retention.bytes", limit});
    settle(r);
    assert_int_equal(start(r), 20); /* never below the limit: three stay */
    maintain(r);
    assert_int_equal(start(r), 20); /* and a second look takes no more */
    assert_false(exists(r, r->p->dir, 10));
    assert_true(exists(r, r->p->dir, 20));
    rig_free(r);
}

static void test_delete_records(void **state)
{
    (void)state;
    struct rig *r = rig_new("events", false);
    struct vv_error e = {0};
    int64_t low;
    CONFIGURE(r, {"remote.storage.enable", "false"});
    open_part(r, true);
    for (int i = 0; i < 3; i++) segment(r, T0);
    append(r, 5, 10, T0);
    assert_int_equal(vv_partition_delete_records(r->p, 36, &low, &e), VV_OFFSET_OUT_OF_RANGE);
    assert_int_equal(vv_partition_delete_records(r->p, -2, &low, &e), VV_OFFSET_OUT_OF_RANGE);
    ok(vv_partition_delete_records(r->p, 15, &low, &e), &e);
    assert_int_equal(low, 15);
    settle(r);
    assert_false(exists(r, r->p->dir, 0));
    assert_true(exists(r, r->p->dir, 10));                  /* it holds 15 */
    ok(vv_partition_delete_records(r->p, 3, &low, &e), &e); /* never backwards */
    assert_int_equal(low, 15);
    ok(vv_partition_delete_records(r->p, -1, &low, &e), &e);
    assert_int_equal(low, 35);
    assert_int_equal(vv_log_flushed(r->p->log), 35); /* a log never ends below its start after a power cut */
    settle(r);
    ok(vv_partition_close(r->p), NULL);
    open_part(r, true);
    assert_int_equal(start(r), 35);
    assert_int_equal(vv_partition_high_watermark(r->p), 35);
    rig_free(r);
}

/* ---- the tier ---- */

static void test_tiering(void **state)
{
    (void)state;
    struct rig *r = rig_new("flights", false);
    struct vv_partition_sizes s;
    CONFIGURE(r, {"local.retention.ms", "5000"});
    open_part(r, true);
    assert_non_null(r->p->tier);
    append(r, 10, 1000, T0);
    assert_int_equal(vv_log_roll(r->p->log), 0);
    vv_partition_sizes(r->p, &s); /* closed, and nobody had the time to seal it: it lags all the same */
    assert_int_equal(s.lag_segments, 1);
    assert_true(s.lag_bytes > 0 && s.lag_bytes == s.local_bytes);
    maintain(r);
    for (int i = 0; i < 2; i++) segment(r, T0);
    wall = T0 + 6000;
    maintain(r);
    assert_true(exists(r, r->p->dir, 0)); /* too old to be local, but nowhere else */
    vv_partition_sizes(r->p, &s);
    assert_int_equal(s.lag_bytes, s.local_bytes);
    tier_run(r);
    vv_partition_sizes(r->p, &s);
    assert_int_equal(s.lag_bytes, 0);
    assert_int_equal(s.remote_end, 30);
    assert_int_equal(s.log_start, 0);
    assert_int_equal(s.local_start, 30);
    assert_true(s.remote_bytes > 30000);
    assert_int_equal(s.local_bytes, 0);
    for (int i = 0; i < 3; i++) assert_false(exists(r, r->p->dir, i * 10));
    CONFIGURE(r, {"local.retention.ms", "5000"}, {"retention.ms", "5000"}); /* total: cold ones too */
    settle(r);
    assert_int_equal(start(r), 30);
    tier_run(r);
    wall += 10000;
    tier_run(r);
    vv_partition_sizes(r->p, &s);
    assert_int_equal(s.remote_bytes, 0);
    rig_free(r);
}

static void test_switch_off(void **state)
{
    (void)state;
    struct rig *r = rig_new("flights", false);
    CONFIGURE(r, {"remote.storage.enable", "false"});
    open_part(r, true);
    assert_null(r->p->tier);
    for (int i = 0; i < 2; i++) segment(r, T0);
    CONFIGURE(r, {"remote.storage.enable", "true"}, {"local.retention.ms", "5000"}); /* what is there goes up too */
    settle(r);
    assert_non_null(r->p->tier);
    tier_run(r);
    wall = T0 + 10000;
    maintain(r);
    assert_false(exists(r, r->p->dir, 0));
    segment(r, wall);
    CONFIGURE(r, {"remote.storage.enable", "false"}); /* a file was edited: history is not deleted by that */
    settle(r);
    assert_int_equal(start(r), 0);
    CONFIGURE(r, {"remote.storage.enable", "false"}, {"remote.log.delete.on.disable", "true"});
    settle(r);
    assert_int_equal(start(r), 20);
    tier_run(r);
    assert_true(exists(r, r->p->dir, 20)); /* local ones stay, and are not uploaded */
    struct vv_partition_sizes s;
    vv_partition_sizes(r->p, &s);
    assert_int_equal(s.remote_bytes, 0);
    rig_free(r);
}

static int count_record(void *ctx, const struct vv_record *rec)
{
    (void)rec;
    ++*(int *)ctx;
    return 0;
}

static void test_restore(void **state)
{
    (void)state;
    struct rig *r = rig_new("flights", false);
    CONFIGURE(r, {"local.retention.ms", "-2"});
    open_part(r, true);
    for (int i = 0; i < 3; i++) segment(r, T0);
    append(r, 5, 10, T0); /* this is not in the bucket and will be lost */
    tier_run(r);
    ok(vv_partition_close(r->p), NULL);
    r->p = NULL;
    close_tier(r);
    nftw(r->log_dir, rm_entry, 16, FTW_DEPTH | FTW_PHYS);
    ok(vv_fs_mkdirs(&r->env, r->log_dir), NULL);
    open_tier(r);
    r->b.restoring = true;
    for (int i = 0; i < 2; i++) { /* again after a crash in the middle: it begins anew */
        open_part(r, false);
        assert_int_equal(start(r), 0);
        assert_int_equal(vv_partition_high_watermark(r->p), 30);
        assert_int_equal(vv_partition_epoch(r->p), 1);
        if (i) break;
        settle(r);
        ok(vv_partition_close(r->p), NULL);
    }
    r->b.restoring = false;
    assert_int_equal(append(r, 1, 10, wall), 30);
    settle(r);
    ok(vv_partition_close(r->p), NULL);
    r->b.restoring = true; /* records are there now: nothing is thrown away */
    open_part(r, true);
    assert_int_equal(vv_partition_high_watermark(r->p), 31);
    rig_free(r);
}

/* ---- internal topics ---- */

struct produced {
    struct vv_produce_done d;
    pthread_mutex_t m;
    pthread_cond_t c;
    bool done;
    int err;
};

static void on_produced(struct vv_produce_done *d, int err)
{
    struct produced *p = VV_CONTAINER(d, struct produced, d);
    pthread_mutex_lock(&p->m);
    p->done = true;
    p->err = err;
    pthread_cond_signal(&p->c);
    pthread_mutex_unlock(&p->m);
}

static void append_internal(struct rig *r, const char *key, const char *value, int64_t expect)
{
    uint8_t *b;
    size_t n;
    struct produced p = {.d.done = on_produced};
    pthread_mutex_init(&p.m, NULL);
    pthread_cond_init(&p.c, NULL);
    assert_int_equal(
        vv_batch_builder_add(r->builder, wall, key, (int32_t)strlen(key), value, value ? (int32_t)strlen(value) : -1),
        0);
    assert_int_equal(vv_batch_builder_finish(r->builder, &b, &n), 0);
    assert_int_equal(vv_partition_append_internal(r->p, b, n, &p.d), 0);
    pthread_mutex_lock(&p.m);
    while (!p.done) pthread_cond_wait(&p.c, &p.m);
    pthread_mutex_unlock(&p.m);
    assert_int_equal(p.err, 0);
    assert_int_equal(p.d.offset, expect);
    assert_true(vv_log_flushed(r->p->log) > expect);
}

struct last_value {
    const char *key;
    char value[32];
    int count;
};

static int keep_value(void *ctx, const struct vv_record *rec)
{
    struct last_value *l = ctx;
    if (rec->key_n != (int32_t)strlen(l->key) || memcmp(rec->key, l->key, (size_t)rec->key_n)) return 0;
    l->count++;
    snprintf(l->value, sizeof l->value, "%.*s", (int)rec->value_n, (const char *)rec->value);
    return 0;
}

static void test_internal(void **state)
{
    (void)state;
    struct rig *r = rig_new("__consumer_offsets", true);
    struct vv_error e = {0};
    char text[32];
    CONFIGURE(r, {"cleanup.policy", "compact"});
    open_part(r, true);
    assert_null(r->p->tier);
    for (int i = 0; i < 20; i++) {
        snprintf(text, sizeof text, "v%d", i);
        append_internal(r, i % 2 ? "odd" : "even", text, i);
    }
    struct last_value l = {.key = "odd"};
    ok(vv_partition_scan(r->p, keep_value, &l, &e), &e);
    assert_int_equal(l.count, 10);
    assert_string_equal(l.value, "v19");
    assert_int_equal(vv_log_roll(r->p->log), 0);
    maintain(r); /* seals the segment and compacts it */
    append_internal(r, "even", "v20", 20);
    l = (struct last_value){.key = "even"};
    ok(vv_partition_scan(r->p, keep_value, &l, &e), &e);
    assert_string_equal(l.value, "v20");
    assert_int_equal(l.count, 2); /* of the compacted ones only the last */
    settle(r);
    ok(vv_partition_close(r->p), NULL);
    open_part(r, true);
    int n = 0;
    ok(vv_partition_scan(r->p, count_record, &n, &e), &e);
    assert_int_equal(n, 3);
    rig_free(r);
}

/* ---- reopening, deleting ---- */

static void test_epochs(void **state)
{
    (void)state;
    struct rig *r = rig_new("events", false);
    CONFIGURE(r, {"remote.storage.enable", "false"});
    open_part(r, true);
    append(r, 3, 10, wall);
    settle(r);
    ok(vv_partition_close(r->p), NULL);
    open_part(r, true);
    assert_int_equal(vv_partition_epoch(r->p), 0);
    assert_int_equal(vv_partition_high_watermark(r->p), 3);
    settle(r);
    ok(vv_partition_close(r->p), NULL);
    open_part(r, false); /* what was acknowledged without a flush may be gone */
    assert_int_equal(vv_partition_epoch(r->p), 1);
    assert_int_equal(append(r, 1, 10, wall), 3);
    int32_t epoch;
    int64_t end;
    vv_log_epoch_end(r->p->log, 0, &epoch, &end);
    assert_int_equal(epoch, 0);
    assert_int_equal(end, 3);
    rig_free(r);
}

/* The topic is deleted and made again under a reader and under the tier: neither touches the new one's files. */
static void test_retire(void **state)
{
    (void)state;
    struct rig *r = rig_new("events", false);
    struct vv_error e = {0};
    int64_t low;
    CONFIGURE(r, {"local.retention.ms", "-2"});
    open_part(r, true);
    segment(r, T0);
    tier_run(r); /* the first is in both places */
    append(r, 10, 1000, T0);
    ok(vv_partition_delete_records(r->p, 10, &low, &e), &e); /* the tier has to remove 0..9, and has not yet */
    settle(r);
    struct vv_partition *old = r->p;
    struct vv_extent x;
    assert_int_equal(vv_index_find(old->index, 10, &x), 0);
    char was[512];
    snprintf(was, sizeof was, "%s", old->dir);
    ok(vv_partition_retire_dir(old), NULL);
    assert_string_not_equal(old->dir, was);
    assert_non_null(strstr(old->dir, "events-0."));
    assert_string_equal(old->dir + strlen(old->dir) - 7, "-delete");
    struct vv_append a = {0};
    assert_int_equal(vv_partition_append(old, &a, &e), VV_E_SHUTDOWN);

    struct vv_uuid old_id = r->t.id;
    memset(r->t.id.b, 9, 16);
    open_part(r, true);
    assert_int_equal(append(r, 1, 10, wall), 0);
    r->t.id = old_id;
    tier_run(r); /* sweeps the old one's first segment */
    assert_true(exists(r, was, 0));
    assert_false(exists(r, old->dir, 0));
    assert_true(exists(r, old->dir, 10));
    struct vv_chain bytes = {0};
    struct vv_read read = {.offset = 10, .limit = 20, .max_bytes = 1 << 20, .min_one = true, .may_block = true};
    ok(vv_log_read(old->log, &x, &read, &bytes, &e), &e);
    assert_int_equal(read.next_offset, 20);
    vv_chain_release(&bytes);
    vv_extent_release(old->index, &x);

    char aside[512];
    struct vv_stat st;
    snprintf(aside, sizeof aside, "%s", old->dir);
    vv_partition_destroy(old);
    assert_int_equal(vv_fs_stat(&r->env, aside, &st), VV_E_NOENT);
    assert_true(exists(r, was, 0));
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_commit),
        cmocka_unit_test(test_waiters),
        cmocka_unit_test(test_retention_by_time),
        cmocka_unit_test(test_retention_by_size),
        cmocka_unit_test(test_delete_records),
        cmocka_unit_test(test_tiering),
        cmocka_unit_test(test_switch_off),
        cmocka_unit_test(test_restore),
        cmocka_unit_test(test_internal),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_retire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
