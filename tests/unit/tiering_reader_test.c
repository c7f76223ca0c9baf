/* The reader over a store that answers at once: cuts, cache, read-ahead, damage, time lookup, aborted transactions. */
#include "tiering_reader_rig.h"

#define KIB 1024u
static const struct vv_tier_config small = {.cache_bytes_max = 4096 * KIB, .chunk_bytes = 256 * KIB,
                                            .readahead_chunks = 2};

/* ---- serving ---- */

static void whole_log_in_order(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 5, 120, 800); /* about 5 MiB: more than the cache */
    struct rig_read q;
    size_t served = 0, all = 0;
    for (size_t i = 0; i < r->log.n; i++) all += r->log.v[i]->n;
    for (int64_t at = 0; at < r->log.end; at = q.r.next_offset) {
        size_t n = rig_read_ok(r, &q, at, 100 * KIB);
        assert_true(n > 0 && n <= 100 * KIB);
        served += n;
        assert_true(rig_stats(r).cache_bytes <= small.cache_bytes_max);
    }
    struct vv_tier_stats s = rig_stats(r);
    assert_int_equal(served, all);
    assert_true((double)s.fetch_bytes <= 1.05 * (double)served);
    assert_true(s.fetch_bytes >= served);
    assert_int_equal(s.fetch_errors, 0);
    assert_true(s.cache_hits > 0 && s.fetch_requests < 5 * 7);
    rig_free(r);
}

static void any_offset_and_every_limit(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 3, 40, 500);
    struct rig_read q;
    size_t left;
    struct vv_batch b;
    for (int64_t at = 0; at < r->log.end; at += 17) {
        rig_read_ok(r, &q, at, 20 * KIB);
        assert_true(q.r.next_offset > at);
    }
    const uint8_t *first = rig_truth(r, 0, &left);
    assert_int_equal(vv_batch_parse(first, left, &b), 0);
    assert_int_equal(rig_read_ok(r, &q, 5, 1), b.bytes); /* one whole batch even if larger */
    /* without min_one: nothing, and no step forward */
    rig_read_start(r, &q, 5, 1);
    rig_read_check(r, &q);
    q.calls = 0;
    q.r.min_one = false;
    vv_tier_read_start(&q.r);
    assert_int_equal(rig_read_wait(&q), 0);
    assert_int_equal(q.r.bytes.bytes, 0);
    assert_int_equal(q.r.next_offset, 5);
    /* only batches wholly below the limit */
    for (int64_t limit = 0; limit < 60; limit++) {
        q.calls = 0;
        q.r.offset = 0;
        q.r.limit = limit;
        q.r.max_bytes = 1 << 20;
        vv_tier_read_start(&q.r);
        assert_int_equal(rig_read_wait(&q), 0);
        assert_int_equal(q.r.next_offset, limit / BATCH_RECORDS * BATCH_RECORDS);
        assert_int_equal(rig_read_check(r, &q) > 0, limit >= BATCH_RECORDS);
    }
    rig_free(r);
}

static void one_answer_across_extents(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 6, 3, 100);
    struct rig_read q;
    for (int64_t at = 0; at < r->log.end; at += 30) rig_read_ok(r, &q, at, 1); /* all in memory now */
    rig_read_ok(r, &q, 5, 1 << 20);
    assert_int_equal(q.r.next_offset, r->log.end);
    rig_free(r);
}

static void holes_are_stepped_over(void **state)
{
    (void)state;
    struct rig *r = rig_new();
    struct rig_read q;
    r->config = small;
    rig_open(r);
    rig_seal_batches(r, 3, 100, 7); /* 0-29, nothing at 30-36 */
    rig_seal_batches(r, 3, 100, 0);
    rig_only_remote(r);
    rig_seal_batches(r, 3, 100, 0); /* local */
    size_t left;
    struct vv_batch b;
    const uint8_t *want = r->log.v[1]->p;
    assert_int_equal(vv_batch_parse(want, r->log.v[1]->n, &b), 0);
    rig_read_start(r, &q, 33, 1);
    assert_int_equal(rig_read_wait(&q), 0);
    assert_int_equal(q.r.bytes.bytes, b.bytes);
    assert_memory_equal(q.r.bytes.v[0].p, want, b.bytes);
    assert_int_equal(q.r.next_offset, 47);
    vv_chain_release(&q.r.bytes);
    rig_read_start(r, &q, 67, 1); /* local: not ours */
    assert_int_equal(rig_read_wait(&q), VV_E_AGAIN);
    rig_read_start(r, &q, 5000, 1);
    assert_int_equal(rig_read_wait(&q), VV_OFFSET_OUT_OF_RANGE);
    assert_non_null(rig_truth(r, 67, &left));
    rig_free(r);
}

/* ---- cache and read-ahead ---- */

static void readahead_crosses_extents(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 6, 30, 800); /* one chunk each, about 240 KiB */
    struct rig_read q;
    rig_read_ok(r, &q, 0, 20 * KIB);
    assert_int_equal(rig_stats(r).fetch_requests, 2); /* a jump: footer and chunk, no more */
    rig_read_ok(r, &q, q.r.next_offset, 20 * KIB);
    struct vv_tier_stats s = rig_stats(r);
    assert_in_range(s.fetch_requests, 2 + 4, 2 + 7); /* sequential: at least two extents ahead */
    uint64_t before = s.cache_misses;
    for (int64_t at = q.r.next_offset; at < 3 * 300; at = q.r.next_offset) rig_read_ok(r, &q, at, 20 * KIB);
    assert_int_equal(rig_stats(r).cache_misses, before); /* nobody had to wait */
    rig_read_ok(r, &q, 5 * 300 + 100, 20 * KIB);
    uint64_t requests = rig_stats(r).fetch_requests;
    rig_read_ok(r, &q, 5 * 300, 20 * KIB); /* jumps back: no stream */
    assert_int_equal(rig_stats(r).fetch_requests, requests);
    rig_free(r);
}

/* The first answer costs a small GET; who reads on gets ever larger ones, and no byte twice. */
static void gets_grow_with_the_stream(void **state)
{
    (void)state;
    struct vv_tier_config c = {.cache_bytes_max = 65536 * KIB, .chunk_bytes = 4096 * KIB, .readahead_chunks = 4};
    struct rig *r = rig_remote(&c, 3, 2000, 800); /* 16 MiB each */
    struct rig_read q;
    size_t all = 0;
    for (size_t i = 0; i < r->log.n; i++) all += r->log.v[i]->n;
    rig_read_ok(r, &q, 0, 32768 * KIB);
    struct vv_tier_stats s = rig_stats(r);
    assert_int_equal(s.fetch_requests, 2);
    assert_true(s.fetch_bytes < 320 * KIB);
    int64_t at = q.r.next_offset;
    for (; at < r->log.v[1]->base; at = q.r.next_offset) rig_read_ok(r, &q, at, 1024 * KIB);
    uint64_t gets = rig_stats(r).fetch_requests;
    for (; at < r->log.end; at = q.r.next_offset) rig_read_ok(r, &q, at, 1024 * KIB);
    s = rig_stats(r);
    assert_in_range(s.fetch_requests - gets, 6, 2 * 5 + 1); /* 4 MiB each, and the footer, of what was not there yet */
    assert_true(gets < 24);
    assert_true((double)s.fetch_bytes <= 1.01 * (double)all);
    rig_free(r);
}

/* Every stream has its share of the read-ahead, and a jump does not pay for others' windows. */
static void streams_share_the_cache(void **state)
{
    (void)state;
    struct vv_tier_config c = {.cache_bytes_max = 9216 * KIB, .chunk_bytes = 4096 * KIB, .readahead_chunks = 16};
    struct rig *r = rig_remote(&c, 8, 500, 800); /* 4 MiB each */
    struct rig_read q;
    int64_t at[8];
    size_t all = 0;
    for (size_t i = 0; i < 8; i++) at[i] = r->log.v[i]->base, all += r->log.v[i]->n;
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < 8; i++) {
            if (at[i] > r->log.v[i]->last) continue;
            rig_read_ok(r, &q, at[i], 100 * KIB);
            at[i] = q.r.next_offset;
            more = true;
            assert_true(rig_stats(r).cache_bytes <= c.cache_bytes_max);
        }
    }
    assert_true((double)rig_stats(r).fetch_bytes <= 1.1 * (double)all);
    rig_free(r);
}

static void readahead_can_be_off(void **state)
{
    (void)state;
    struct vv_tier_config c = small;
    struct rig_read q;
    c.readahead_chunks = 0;
    struct rig *r = rig_remote(&c, 3, 30, 800);
    for (int64_t at = 0; at < 200; at = q.r.next_offset) rig_read_ok(r, &q, at, 20 * KIB);
    assert_int_equal(rig_stats(r).fetch_requests, 2);
    rig_free(r);
}

static void hot_chunks_survive_a_replay(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 40, 30, 800); /* 9.6 MiB through a cache of 4 */
    struct rig_read q;
    for (int i = 0; i < 3; i++) rig_read_ok(r, &q, 100, 20 * KIB);
    for (int64_t at = 300; at < r->log.end; at = q.r.next_offset) rig_read_ok(r, &q, at, 60 * KIB);
    uint64_t data = 0, before = rig_stats(r).fetch_bytes;
    rig_read_ok(r, &q, 100, 20 * KIB);
    data = rig_stats(r).fetch_bytes - before;
    assert_true(data < 20 * KIB); /* at most the footer again */
    before = rig_stats(r).fetch_bytes;
    rig_read_ok(r, &q, 700, 20 * KIB); /* read once, long ago: gone */
    assert_true(rig_stats(r).fetch_bytes - before > 100 * KIB);
    rig_free(r);
}

static void batch_larger_than_the_cache(void **state)
{
    (void)state;
    struct vv_tier_config c = {.cache_bytes_max = 64 * KIB, .chunk_bytes = 16 * KIB};
    struct rig *r = rig_remote(&c, 2, 3, 20 * KIB); /* batches of 200 KiB */
    struct rig_read q;
    for (int64_t at = 0; at < r->log.end; at = q.r.next_offset) rig_read_ok(r, &q, at, 1000);
    rig_free(r);
}

/* ---- damage ---- */

struct time_answer { int calls, err; struct vv_time_hit hit; };
static void time_done(void *ctx, int err, const struct vv_time_hit *hit)
{
    struct time_answer *a = ctx;
    a->calls++;
    a->err = err;
    if (!err) a->hit = *hit;
}

static void objects_of(struct rig *r, char keys[][VV_KEY_MAX], size_t max)
{
    struct vv_extent x;
    int64_t at = 0;
    for (size_t i = 0; i < max; i++) {
        struct vv_segkey k;
        assert_int_equal(vv_index_next(r->index, at, &x), 0);
        vv_extent_release(r->index, &x);
        vv_segkey_of(r->topic_id, 2, &x, &k);
        vv_segkey_format(&k, keys[i]);
        at = x.last + 1;
    }
}

static void expect_corrupt(struct rig *r, int64_t offset, const char *key)
{
    struct rig_read q;
    rig_read_start(r, &q, offset, 20 * KIB);
    assert_int_equal(rig_read_wait(&q), VV_CORRUPT_MESSAGE);
    assert_int_equal(q.r.bytes.bytes, 0);
    assert_int_equal(q.r.next_offset, offset);
    assert_non_null(strstr(q.r.error.text, key));
    assert_non_null(strstr(q.r.error.text, "kafka-delete-records"));
}

static void a_lie_is_asked_again(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 2, 30, 800);
    struct rig_read q;
    struct vv_objfault_rule once = {.op = VV_OBJ_GET_ASYNC, .from = 2, .count = 1, .action = VV_FAULT_FLIP,
                                   .arg = 70000};
    int id = vv_objfault_add(r->store, &once);
    rig_read_ok(r, &q, 0, 20 * KIB);
    assert_int_equal(vv_objfault_hits(r->store, id), 1);
    assert_int_equal(rig_stats(r).fetch_requests, 3);
    assert_int_equal(rig_stats(r).fetch_errors, 0);
    rig_free(r);
}

static void damage_is_reported_and_forgotten(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 3, 30, 800);
    struct rig_read q;
    char key[3][VV_KEY_MAX];
    objects_of(r, key, 3);
    for (int from = 1; from <= 2; from++) { /* the footer, then the data */
        struct vv_objfault_rule always = {.op = VV_OBJ_GET_ASYNC, .key_part = key[1], .from = (unsigned)from,
                                          .action = VV_FAULT_FLIP, .arg = 900};
        int id = vv_objfault_add(r->store, &always);
        expect_corrupt(r, 310, key[1]);
        expect_corrupt(r, 320, key[1]);
        assert_int_equal(vv_objfault_hits(r->store, id), 2); /* once more, then remembered */
        rig_read_ok(r, &q, 100, 20 * KIB); /* others are served */
        rig_read_ok(r, &q, 700, 20 * KIB);
        vv_objfault_clear(r->store);
        rig_advance(10000);
    }
    rig_read_ok(r, &q, 310, 20 * KIB);
    rig_free(r);
}

/* Eight blocks in one chunk, one of them bad: its offsets alone are lost. */
static void one_bad_block_costs_one_block(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 1, 60, 800);
    const struct vv_blocks *b = &r->log.v[0]->blocks;
    char key[1][VV_KEY_MAX];
    struct rig_read q;
    int64_t bad_from = b->v[2].first_offset, bad_to = b->v[3].first_offset;
    assert_true(b->count > 6 && r->log.v[0]->n < 2 * small.chunk_bytes);
    objects_of(r, key, 1);
    struct vv_objfault_rule flip = {.op = VV_OBJ_GET_ASYNC, .from = 2, .action = VV_FAULT_FLIP,
                                   .arg = (int64_t)b->v[2].at + 99};
    int id = vv_objfault_add(r->store, &flip);
    int64_t at = 0;
    while (at < bad_from) {
        rig_read_ok(r, &q, at, 50 * KIB);
        at = q.r.next_offset;
    }
    assert_int_equal(at, bad_from);
    expect_corrupt(r, at, key[0]);
    expect_corrupt(r, bad_to - 1, key[0]);
    rig_read_ok(r, &q, bad_to, 50 * KIB);
    rig_read_ok(r, &q, bad_to + 25, 500 * KIB);
    assert_int_equal(vv_objfault_hits(r->store, id), 4); /* each chunk twice, then remembered */
    struct vv_extent x;
    struct time_answer a = {0};
    assert_int_equal(vv_index_next(r->index, 0, &x), 0);
    vv_extent_release(r->index, &x);
    vv_tier_find_time(r->part, &x, rig_ts(bad_from + 5), bad_from, time_done, &a);
    assert_int_equal(a.err, VV_CORRUPT_MESSAGE);
    vv_tier_find_time(r->part, &x, rig_ts(bad_to), bad_to, time_done, &a);
    assert_int_equal(a.err, 0);
    vv_objfault_clear(r->store); /* replaced by a good copy */
    rig_advance(4000);
    rig_read_ok(r, &q, bad_from, 50 * KIB);
    rig_free(r);
}

static void every_flipped_byte_is_found(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 1, 5, 100);
    char key[1][VV_KEY_MAX], path[1200];
    struct rig_read q;
    objects_of(r, key, 1);
    snprintf(path, sizeof path, "%s/%s", r->bucket, key[0]);
    size_t n;
    uint8_t *p;
    assert_int_equal(vv_fs_read_file(&rig_env, path, 1 << 20, &p, &n), 0);
    for (size_t i = 0; i < n; i += 37) {
        p[i] ^= 0x40;
        assert_int_equal(vv_fs_write_file(&rig_env, path, p, n), 0);
        rig_crash(r); /* an empty cache */
        rig_open(r);
        rig_read_start(r, &q, 0, 1 << 20);
        int err = rig_read_wait(&q);
        if (rig_form(&r->config) == VV_OBJECT_COMPRESSED && !err) rig_read_check(r, &q); /* a bit that the decoder does not need */
        else assert_int_equal(err, VV_CORRUPT_MESSAGE);
        p[i] ^= 0x40;
    }
    assert_int_equal(vv_fs_write_file(&rig_env, path, p, n), 0);
    rig_advance(10000);
    rig_read_ok(r, &q, 0, 1 << 20);
    free(p);
    rig_free(r);
}

static void missing_truncated_foreign(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 4, 30, 800);
    char key[4][VV_KEY_MAX], path[4][1200];
    struct rig_read q;
    size_t n;
    uint8_t *p;
    objects_of(r, key, 4);
    for (int i = 0; i < 4; i++) snprintf(path[i], sizeof path[i], "%s/%s", r->bucket, key[i]);
    assert_int_equal(vv_fs_read_file(&rig_env, path[1], 1 << 20, &p, &n), 0);
    assert_int_equal(vv_fs_write_file(&rig_env, path[0], p, n), 0);     /* another segment's bytes */
    assert_int_equal(vv_fs_write_file(&rig_env, path[1], p, n / 2), 0); /* half */
    assert_int_equal(vv_fs_unlink(&rig_env, path[2]), 0);
    expect_corrupt(r, 0, key[0]);
    expect_corrupt(r, 300, key[1]);
    expect_corrupt(r, 600, key[2]);
    rig_read_ok(r, &q, 900, 20 * KIB);
    assert_true(rig_stats(r).fetch_errors >= 3);
    free(p);
    rig_free(r);
}

static void store_away(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 2, 30, 800);
    struct rig_read q;
    struct vv_objfault_rule away = {.op = VV_OBJ_GET_ASYNC, .action = VV_FAULT_FAIL, .err = VV_E_TIMEOUT};
    vv_objfault_add(r->store, &away);
    rig_read_start(r, &q, 0, 1000);
    assert_int_equal(rig_read_wait(&q), VV_KAFKA_STORAGE_ERROR); /* not E_TIMEOUT: that is a cancelled wait */
    assert_false(rig_stats(r).store_ok);
    vv_objfault_clear(r->store);
    rig_advance(5000);
    rig_read_ok(r, &q, 0, 1000);
    assert_true(rig_stats(r).store_ok);
    rig_free(r);
}

static void deleted_by_right_is_out_of_range(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 3, 30, 800);
    struct rig_read q;
    struct vv_extent gone;
    assert_int_equal(vv_index_next(r->index, 0, &gone), 0);
    vv_extent_release(r->index, &gone);
    assert_int_equal(vv_index_set_log_start(r->index, 300), 0);
    vv_tier_part_log_start_moved(r->part);
    rig_settle(r);
    rig_advance(70000);
    rig_settle(r);
    rig_read_start(r, &q, 100, 1000);
    assert_int_equal(rig_read_wait(&q), VV_OFFSET_OUT_OF_RANGE);
    rig_read_ok(r, &q, 300, 1000);
    struct time_answer a = {0};
    vv_tier_find_time(r->part, &gone, 0, 0, time_done, &a); /* asked just before */
    assert_int_equal(a.err, VV_E_NOENT);
    rig_free(r);
}

/* ---- time, transactions ---- */

static void time_lookup_is_exact(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 2, 200, 100);
    struct vv_extent x;
    assert_int_equal(vv_index_next(r->index, 2000, &x), 0);
    vv_extent_release(r->index, &x);
    assert_true(r->log.v[1]->blocks.count > 3);
    for (int64_t ts = rig_ts(1990) - 4000; ts < rig_ts(4000) + 8000; ts += 333) {
        for (int64_t from = 2000; from < 4000; from += 501) {
            int64_t want = from;
            while (want <= 3999 && rig_ts(want) < ts) want++;
            struct time_answer a = {0};
            vv_tier_find_time(r->part, &x, ts, from, time_done, &a);
            assert_int_equal(a.calls, 1);
            assert_int_equal(a.err, want <= 3999 ? 0 : VV_E_NOENT);
            if (a.err) continue;
            assert_int_equal(a.hit.offset, want);
            assert_int_equal(a.hit.timestamp, rig_ts(want));
            assert_int_equal(a.hit.leader_epoch, 3);
        }
    }
    rig_free(r);
}

static void time_lookup_is_cheap(void **state)
{
    (void)state;
    struct rig *r = rig_remote(&small, 1, 400, 100);
    struct vv_extent x;
    struct time_answer a = {0};
    assert_int_equal(vv_index_next(r->index, 0, &x), 0);
    vv_extent_release(r->index, &x);
    vv_tier_find_time(r->part, &x, rig_ts(2600), 0, time_done, &a);
    assert_int_equal(a.err, 0);
    assert_in_range(rig_stats(r).fetch_requests, 2, 3);
    assert_true(rig_stats(r).fetch_bytes < 3 * 66 * KIB);
    rig_free(r);
}

struct abort_answer { int calls, err; size_t n; struct vv_aborted v[8]; };
static void aborted_done(void *ctx, int err, const struct vv_aborted *v, size_t n)
{
    struct abort_answer *a = ctx;
    a->calls++;
    a->err = err;
    a->n = n;
    for (size_t i = 0; i < n && i < 8; i++) a->v[i] = v[i];
}

static void aborted_from_footers(void **state)
{
    (void)state;
    rig_aborted_n = 3;
    rig_aborted[0] = (struct vv_aborted){77, 250, 650, 700}; /* over three segments */
    rig_aborted[1] = (struct vv_aborted){78, 10, 20, 30};
    rig_aborted[2] = (struct vv_aborted){79, 605, 610, 615};
    struct rig *r = rig_remote(&small, 3, 30, 100);
    struct abort_answer a = {0};
    vv_tier_aborted(r->part, 100, 899, aborted_done, &a);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.err, 0);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.v[0].producer_id, 77);
    assert_int_equal(a.v[1].producer_id, 79);
    vv_tier_aborted(r->part, 0, 240, aborted_done, &a);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.v[0].producer_id, 78);
    vv_tier_aborted(r->part, 700, INT64_MAX, aborted_done, &a);
    assert_int_equal(a.n, 0);
    assert_int_equal(a.calls, 3);
    assert_int_equal(vv_index_set_log_start(r->index, 300), 0); /* between a read and this question */
    vv_tier_part_log_start_moved(r->part);
    rig_run(r);
    vv_tier_aborted(r->part, 100, 899, aborted_done, &a);
    assert_int_equal(a.err, VV_OFFSET_OUT_OF_RANGE);
    vv_tier_aborted(r->part, 300, 899, aborted_done, &a);
    assert_int_equal(a.err, 0);
    assert_int_equal(a.n, 2);
    rig_aborted_n = 0;
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_log_in_order), cmocka_unit_test(any_offset_and_every_limit),
        cmocka_unit_test(one_answer_across_extents), cmocka_unit_test(holes_are_stepped_over),
        cmocka_unit_test(readahead_crosses_extents), cmocka_unit_test(readahead_can_be_off),
        cmocka_unit_test(gets_grow_with_the_stream), cmocka_unit_test(streams_share_the_cache),
        cmocka_unit_test(hot_chunks_survive_a_replay),
        cmocka_unit_test(batch_larger_than_the_cache), cmocka_unit_test(a_lie_is_asked_again),
        cmocka_unit_test(damage_is_reported_and_forgotten), cmocka_unit_test(every_flipped_byte_is_found),
        cmocka_unit_test(one_bad_block_costs_one_block),
        cmocka_unit_test(missing_truncated_foreign), cmocka_unit_test(store_away),
        cmocka_unit_test(deleted_by_right_is_out_of_range), cmocka_unit_test(time_lookup_is_exact),
        cmocka_unit_test(time_lookup_is_cheap), cmocka_unit_test(aborted_from_footers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
