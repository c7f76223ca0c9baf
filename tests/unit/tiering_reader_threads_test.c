/* The reader over a store with threads of its own: cancelled waits, shared downloads, crowds, closing under load, the
 * rate limit. */
#include "tiering_reader_rig.h"

#include <sched.h>

#define KIB 1024u
static const struct vv_tier_config small = {.cache_bytes_max = 2048 * KIB, .chunk_bytes = 128 * KIB,
                                            .readahead_chunks = 2};

static int threaded(void **state)
{
    (void)state;
    rig_threads = true;
    return 0;
}

static void await_stalled(struct rig *r, unsigned n)
{
    while (vv_objfault_stalled(r->store) < n) sched_yield();
}

static const struct vv_objfault_rule stall = {.op = VV_OBJ_GET_ASYNC, .action = VV_FAULT_STALL};

/* ---- waits ---- */

static void download_outlives_the_wait(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 2, 30, 800);
    struct rig_read q;
    struct vv_objfault_rule second = stall;
    second.from = 2; /* the chunk; the footer passes */
    vv_objfault_add(r->store, &second);
    rig_read_start(r, &q, 0, 20 * KIB);
    await_stalled(r, 1);
    vv_tier_read_cancel(&q.r);
    assert_int_equal(rig_read_wait(&q), VV_E_TIMEOUT);
    vv_tier_read_cancel(&q.r); /* after the end: nothing */
    assert_int_equal(q.calls, 1);
    assert_int_equal(rig_stats(r).fetch_requests, 2);
    rig_read_start(r, &q, 0, 20 * KIB); /* the retry finds the same download */
    vv_objfault_clear(r->store);
    assert_int_equal(rig_read_wait(&q), 0);
    assert_true(rig_read_check(r, &q) > 0);
    assert_int_equal(rig_stats(r).fetch_requests, 2);
    rig_free(r);
}

static void many_waiters_one_download(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 2, 30, 800);
    struct rig_read q[8];
    vv_objfault_add(r->store, &stall);
    for (int i = 0; i < 8; i++) rig_read_start(r, &q[i], 5, 1000);
    await_stalled(r, 1);
    vv_tier_read_cancel(&q[3].r);
    assert_int_equal(rig_read_wait(&q[3]), VV_E_TIMEOUT);
    vv_objfault_clear(r->store);
    for (int i = 0; i < 8; i++) {
        if (i == 3) continue;
        assert_int_equal(rig_read_wait(&q[i]), 0);
        rig_read_check(r, &q[i]);
    }
    assert_int_equal(rig_stats(r).fetch_requests, 2);
    rig_free(r);
}

static const struct vv_tier_config large = {.cache_bytes_max = 65536 * KIB, .chunk_bytes = 8192 * KIB,
                                            .readahead_chunks = 4};

/* Reads in order until the stream has a GET under way that brings several chunks. Returns the next offset. */
static int64_t read_until_stalled(struct rig *r, struct rig_read *q, int64_t stop)
{
    int64_t at = 0;
    while (!vv_objfault_stalled(r->store) && at < stop) {
        rig_read_start(r, q, at, 100 * KIB);
        while (!q->calls && !vv_objfault_stalled(r->store)) sched_yield();
        if (!q->calls) vv_tier_read_cancel(&q->r); /* it may want just what stands still */
        if (rig_read_wait(q)) break;
        rig_read_check(r, q);
        at = q->r.next_offset;
    }
    assert_true(at < stop && vv_objfault_stalled(r->store));
    return at;
}

/* What has come of a GET is served while the rest is on its way: verified, and without a second GET. */
static size_t served_of_a_stalled_get(void)
{
    struct rig *r = rig_remote(&large, 1, 1500, 800); /* 12 MiB */
    struct rig_read q;
    struct vv_objfault_rule midway = stall;
    midway.from = 5; /* footer, first chunk, two of the first window: it has grown */
    midway.arg = 700 * KIB;
    vv_objfault_add(r->store, &midway);
    int64_t at = read_until_stalled(r, &q, r->log.end);
    uint64_t before = rig_stats(r).fetch_bytes;
    size_t served = 0;
    for (;;) { /* up to where the GET stands still */
        rig_read_start(r, &q, at, 100 * KIB);
        for (int i = 0; i < 100 && !q.calls; i++) sched_yield();
        if (!q.calls) vv_tier_read_cancel(&q.r);
        if (rig_read_wait(&q)) break;
        served += rig_read_check(r, &q);
        at = q.r.next_offset;
    }
    assert_int_equal(q.r.err, VV_E_TIMEOUT);
    assert_true(rig_stats(r).fetch_bytes - before < served + 16 * 1024 * KIB);
    vv_objfault_clear(r->store);
    for (; at < r->log.end; at = q.r.next_offset) rig_read_ok(r, &q, at, 1000 * KIB);
    assert_true(rig_stats(r).fetch_bytes <= r->log.v[0]->n + 64 * KIB); /* each byte once */
    rig_free(r);
    return served;
}

/* How much of it the reader had before it was seen to stand still is chance: that must show once. What holds always is checked
 * each time. */
static void served_while_the_rest_arrives(void **state)
{
    (void)state;
    for (int tries = 0; tries < 50; tries++)
        if (served_of_a_stalled_get() >= 500 * KIB) return;
    fail_msg("nothing of a GET was served before all of it was there, in 50 tries");
}

/* Whatever breaks in the middle of a large GET costs that part again, not all of it, and no wrong byte goes out. */
static void broken_midway(void **state)
{
    static const enum vv_objfault_action actions[] = {VV_FAULT_TRUNCATE, VV_FAULT_FLIP};
    (void)state;
    for (size_t i = 0; i < VV_COUNT(actions); i++) {
        struct rig *r = rig_remote(&large, 1, 1500, 800);
        struct rig_read q;
        struct vv_objfault_rule once = {.op = VV_OBJ_GET_ASYNC, .from = 5, .count = 1, .action = actions[i],
                                       .arg = 600 * KIB};
        int id = vv_objfault_add(r->store, &once);
        for (int64_t at = 0; at < r->log.end; at = q.r.next_offset) rig_read_ok(r, &q, at, 300 * KIB);
        struct vv_tier_stats s = rig_stats(r);
        assert_int_equal(vv_objfault_hits(r->store, id), 1);
        assert_int_equal(s.fetch_errors, 0);
        assert_true(s.fetch_bytes <= r->log.v[0]->n + 400 * KIB);
        rig_free(r);
    }
}

static void closing_ends_reads(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 3, 30, 800);
    struct rig_read q[3];
    vv_objfault_add(r->store, &stall);
    for (int i = 0; i < 3; i++) rig_read_start(r, &q[i], i * 300, 1000);
    await_stalled(r, 3);
    vv_tier_part_close(r->part);
    r->part = NULL;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rig_read_wait(&q[i]), VV_E_SHUTDOWN);
        vv_tier_read_cancel(&q[i].r); /* who was late */
        assert_int_equal(q[i].calls, 1);
    }
    vv_tier_stop(r->tier, 1000);
    vv_tier_free(r->tier); /* three downloads are still under way: canceled, not waited out */
    r->tier = NULL;
    assert_int_equal(vv_objfault_stalled(r->store), 0);
    rig_free(r);
}

static void slow_store_is_a_storage_error(void **state)
{
    (void)state;
    struct vv_tier_config c = small;
    c.fetch_deadline_ms = 50;
    struct rig *r = rig_remote(&c, 1, 30, 800);
    struct rig_read q;
    vv_objfault_add(r->store, &stall);
    rig_read_start(r, &q, 0, 1000);
    assert_int_equal(rig_read_wait(&q), VV_KAFKA_STORAGE_ERROR);
    vv_objfault_clear(r->store);
    rig_free(r);
}

/* ---- crowds ---- */

/* Chunks must age, and somebody must look when they have. */
static void run_by_the_clock(struct rig *r)
{
    rig_env.clock_ops = vv_env_posix.clock_ops;
    assert_int_equal(vv_tier_start(r->tier), 0);
}

/* More cold readers than chunks in memory: every one gets through although most must wait for room. */
static void a_crowd_larger_than_the_cache(void **state)
{
    (void)state;
    struct vv_tier_config c = {.cache_bytes_max = 700 * KIB, .chunk_bytes = 64 * KIB, .readahead_chunks = 1};
    struct rig *r = rig_remote(&c, 10, 60, 800); /* about 5 MiB */
    run_by_the_clock(r);
    struct rig_read q[60];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 60; i++) rig_read_start(r, &q[i], (i * 97 + round) % r->log.end, 64 * KIB);
        for (int i = 0; i < 60; i++) {
            assert_int_equal(rig_read_wait(&q[i]), 0);
            assert_true(rig_read_check(r, &q[i]) > 0);
            assert_true(rig_stats(r).cache_bytes <= c.cache_bytes_max);
        }
    }
    rig_free(r);
}

/* As many replays as there are chunks in memory: none starves, none is fetched over and over. */
static void replays_larger_than_the_cache(void **state)
{
    (void)state;
    struct vv_tier_config c = {.cache_bytes_max = 1200 * KIB, .chunk_bytes = 64 * KIB, .readahead_chunks = 4};
    struct rig *r = rig_remote(&c, 10, 60, 800); /* about 5 MiB */
    run_by_the_clock(r);
    struct rig_read q[16];
    int64_t at[16];
    size_t served = 0;
    bool more = true;
    for (int i = 0; i < 16; i++) at[i] = i * r->log.end / 16;
    while (more) {
        more = false;
        for (int i = 0; i < 16; i++) rig_read_start(r, &q[i], at[i], 40 * KIB);
        for (int i = 0; i < 16; i++) {
            assert_int_equal(rig_read_wait(&q[i]), 0);
            served += rig_read_check(r, &q[i]);
            if (q[i].r.next_offset < (i + 1) * r->log.end / 16) at[i] = q[i].r.next_offset;
            more |= at[i] == q[i].r.next_offset;
            assert_true(rig_stats(r).cache_bytes <= c.cache_bytes_max);
        }
    }
    assert_true(rig_stats(r).fetch_bytes < 3 * served);
    rig_free(r);
}

struct crowd { struct rig *r; unsigned seed; bool in_order, cancels; size_t served; unsigned cancelled; };

static void *crowd_main(void *arg)
{
    struct crowd *c = arg;
    struct rig *r = c->r;
    struct rig_read q;
    int64_t at = (int64_t)(c->seed * 331u) % r->log.end;
    for (int i = 0; i < 100; i++) {
        uint64_t x = (c->seed = c->seed * 1664525u + 1013904223u) >> 8;
        if (!c->in_order) at = (int64_t)(x % (uint64_t)r->log.end);
        rig_read_start(r, &q, at, 10 * KIB + x % (90 * KIB));
        if (c->cancels && x % 4 == 0) vv_tier_read_cancel(&q.r);
        int err = rig_read_wait(&q);
        assert_true(err == 0 || (err == VV_E_TIMEOUT && c->cancels));
        c->cancelled += err != 0;
        c->served += rig_read_check(r, &q);
        at = q.r.next_offset % r->log.end; /* a cancelled one in order asks again, as a consumer does */
        assert_true(rig_stats(r).cache_bytes <= small.cache_bytes_max);
    }
    return NULL;
}

static void parallel_readers(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 12, 60, 800); /* 6 MiB through a cache of 2 */
    pthread_t th[6];
    struct crowd c[6] = {{0}};
    struct vv_objfault_rule lie = {.op = VV_OBJ_GET_ASYNC, .from = 3, .count = 1, .action = VV_FAULT_FLIP, .arg = -1};
    vv_objfault_add(r->store, &lie);
    run_by_the_clock(r);
    for (unsigned i = 0; i < 6; i++) {
        c[i] = (struct crowd){.r = r, .seed = i + 1, .in_order = i % 2, .cancels = i >= 4};
        assert_int_equal(pthread_create(&th[i], NULL, crowd_main, &c[i]), 0);
    }
    size_t in_order = 0;
    for (unsigned i = 0; i < 6; i++) {
        pthread_join(th[i], NULL);
        if (!c[i].cancels) assert_true(c[i].served > 0 && !c[i].cancelled);
        if (c[i].in_order) in_order += c[i].served;
    }
    assert_true(in_order > 0);
    rig_free(r);
}

/* One reader after the other through everything, cold, nothing fetched twice: read-ahead does not outrun the cache. */
static void parallel_replays_fetch_once(void **state)
{
    (void)state;
    struct vv_tier_config c = small;
    c.cache_bytes_max = 16384 * KIB;
    struct rig *r = rig_remote(&c, 12, 60, 800);
    struct rig_read q[4];
    int64_t at[4];
    size_t served = 0;
    bool more = true;
    for (int i = 0; i < 4; i++) at[i] = i * 3 * 600;
    while (more) { /* four partitions of one Fetch, so to speak */
        more = false;
        for (int i = 0; i < 4; i++)
            if (at[i] < (i + 1) * 3 * 600) rig_read_start(r, &q[i], at[i], 50 * KIB);
        for (int i = 0; i < 4; i++) {
            if (at[i] >= (i + 1) * 3 * 600) continue;
            assert_int_equal(rig_read_wait(&q[i]), 0);
            at[i] = q[i].r.next_offset;
            served += rig_read_check(r, &q[i]);
            more = true;
        }
    }
    assert_true((double)rig_stats(r).fetch_bytes <= 1.05 * (double)served);
    rig_free(r);
}

/* ---- bandwidth ---- */

static void rate_limit(void **state)
{
    (void)state;
    rig_threads = false;
    struct vv_tier_config c = small;
    c.fetch_bytes_per_s = 64 * KIB;
    struct rig *r = rig_remote(&c, 4, 16, 800); /* chunks of about 128 KiB: two seconds each */
    struct rig_read q[3];
    for (int i = 0; i < 3; i++) rig_read_start(r, &q[i], i * 160, 1000);
    int steps = 0;
    uint64_t before = rig_stats(r).fetch_bytes;
    while (!q[0].calls || !q[1].calls || !q[2].calls) {
        rig_advance(100);
        vv_tier_step(r->tier);
        assert_true(++steps < 1000);
        assert_true(rig_stats(r).fetch_bytes - before <= (size_t)steps * 6554 + 140 * KIB);
    }
    assert_true(steps > 30);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rig_read_wait(&q[i]), 0);
        rig_read_check(r, &q[i]);
    }
    rig_free(r);
}

static void a_smaller_cache_at_run_time(void **state)
{
    (void)state;
    rig_threads = false;
    struct rig *r = rig_remote(&small, 12, 60, 800);
    struct rig_read q;
    for (int64_t at = 0; at < r->log.end; at = q.r.next_offset) rig_read_ok(r, &q, at, 100 * KIB);
    struct vv_tier_config c = r->config;
    assert_true(rig_stats(r).cache_bytes > 512 * KIB);
    rig_advance(10000);
    c.cache_bytes_max = 256 * KIB;
    vv_tier_configure(r->tier, &c);
    assert_true(rig_stats(r).cache_bytes <= 256 * KIB);
    for (int64_t at = 0; at < r->log.end; at = q.r.next_offset) rig_read_ok(r, &q, at, 100 * KIB);
    assert_true(rig_stats(r).cache_bytes <= 256 * KIB);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(download_outlives_the_wait, threaded),
        cmocka_unit_test_setup(many_waiters_one_download, threaded),
        cmocka_unit_test_setup(served_while_the_rest_arrives, threaded),
        cmocka_unit_test_setup(broken_midway, threaded),
        cmocka_unit_test_setup(closing_ends_reads, threaded),
        cmocka_unit_test_setup(slow_store_is_a_storage_error, threaded),
        cmocka_unit_test_setup(a_crowd_larger_than_the_cache, threaded),
        cmocka_unit_test_setup(replays_larger_than_the_cache, threaded),
        cmocka_unit_test_setup(parallel_readers, threaded),
        cmocka_unit_test_setup(parallel_replays_fetch_once, threaded), cmocka_unit_test(rate_limit),
        cmocka_unit_test(a_smaller_cache_at_run_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
