/* Small objects become bigger ones: the same bytes, times and transactions as before; for the grace the old ones too; a crash at
 * every call of the store, done or not done; a log start that comes in between; generations; garbage collection beside it. */
#include "tiering_reader_rig.h"
#include "follow.h"

#define GRACE 60000
#define AGE 200000

static const struct vv_tier_config merging = {.merge_segments_min = 4, .merge_bytes_max = 65536, .merge_age_ms = AGE,
                                              .chunk_bytes = 16384, .readahead_chunks = 0};

static void settle(struct rig *r) /* without time: what is due is due */
{
    for (int i = 0; i < 20; i++) {
        vv_tier_hurry(r->tier);
        rig_run(r);
    }
}

/* What the log's partition has, offset for offset, and every time. */
static void check(struct rig *r)
{
    struct rig_read q;
    int64_t start = vv_index_log_start(r->index);
    for (int64_t at = start; at < r->log.end; at = q.r.next_offset) {
        if (vv_index_find(r->index, at, &(struct vv_extent){0})) fail_msg("no extent at %lld", (long long)at);
        if (!rig_read_ok(r, &q, at, 20000)) fail_msg("nothing at %lld", (long long)at);
    }
}

struct answer { int err, calls; struct vv_time_hit hit; };

static void on_time(void *ctx, int err, const struct vv_time_hit *hit)
{
    struct answer *a = ctx;
    a->calls++;
    a->err = err;
    if (!err) a->hit = *hit;
}

static void check_times(struct rig *r)
{
    for (int64_t o = 0; o < r->log.end; o += 17) {
        int64_t ts = rig_ts(o), want = vv_index_log_start(r->index), from = want;
        while (rig_ts(want) < ts) want++;
        struct answer a = {.err = VV_E_NOENT};
        struct vv_extent x;
        while (a.err == VV_E_NOENT && !vv_index_find_time(r->index, ts, from, &x)) {
            vv_tier_find_time(r->part, &x, ts, from, on_time, &a);
            from = x.last + 1;
        }
        assert_int_equal(a.err, 0);
        assert_int_equal(a.hit.offset, want);
    }
}

static size_t extents(struct rig *r)
{
    struct vv_index_summary s;
    vv_index_summary(r->index, &s);
    return (size_t)s.extents;
}

/* A bucket that says the same as the index, and nothing that neither it nor its list of replaced runs names. */
static void check_bucket(struct rig *r, bool no_strays)
{
    struct vv_error e = {0};
    struct vv_index *ix;
    struct vv_tier_restored out;
    struct vv_extent x, y;
    char dir[192];
    static int n;
    snprintf(dir, sizeof dir, "%s/back%d", r->dir, n++);
    rig_ok(vv_index_open(&rig_env, dir, NULL, &ix, &e), &e);
    rig_ok(vv_tier_restore_part(r->tier, r->topic_id, NULL, 2, ix, &out, &e), &e);
    int64_t at = vv_index_log_start(r->index);
    size_t live = 0;
    while (!vv_index_find(r->index, at, &x)) {
        assert_int_equal(vv_index_find(ix, at, &y), 0);
        assert_int_equal(x.base, y.base);
        assert_int_equal(x.nonce, y.nonce);
        assert_int_equal(x.generation, y.generation);
        assert_int_equal(x.object_bytes, y.object_bytes);
        assert_int_equal(x.max_ts, y.max_ts);
        at = x.last + 1;
        live++;
    }
    assert_int_equal(out.next_offset, r->log.end);
    if (no_strays) assert_int_equal(rig_segments(r), live);
    vv_index_close(ix);
    free(out.epochs);
    free(out.snapshot);
}

static struct rig *small_ones(int n, int32_t value)
{
    struct rig *r = rig_remote(&merging, n, 2, value);
    assert_int_equal(extents(r), (size_t)n);
    return r;
}

static void become_bigger(void **state)
{
    (void)state;
    rig_aborted_n = 2;
    rig_aborted[0] = (struct vv_aborted){77, 30, 95, 99}; /* over four segments */
    rig_aborted[1] = (struct vv_aborted){78, 101, 110, 120};
    struct rig *r = small_ones(40, 20);
    struct vv_extent before, after;
    assert_int_equal(vv_index_find(r->index, 45, &before), 0);
    settle(r);
    assert_int_equal(extents(r), 40); /* not before the age */
    rig_advance(AGE);
    settle(r);
    assert_true(extents(r) < 4);
    assert_int_equal(vv_index_find(r->index, 45, &after), 0);
    assert_true(after.generation >= 1 && after.base == 0 && after.last > 500);
    check(r);
    check_times(r);
    check_bucket(r, false);
    assert_true(rig_segments(r) > 40); /* whoever holds an old extent */
    struct rig_read q = {.r = {.part = r->part, .offset = 45, .limit = 60, .max_bytes = 1 << 20, .done = rig_read_done, .found = &before}};
    pthread_mutex_init(&q.mu, NULL);
    pthread_cond_init(&q.cond, NULL);
    vv_tier_read_start(&q.r);
    assert_int_equal(rig_read_wait(&q), 0);
    assert_true(rig_read_check(r, &q) > 0);
    rig_advance(GRACE + 10000);
    settle(r);
    settle(r);
    check_bucket(r, true); /* after the grace they are gone */
    q = (struct rig_read){.r = {.part = r->part, .offset = 40, .limit = r->log.end, .max_bytes = 100, .min_one = true,
                                .done = rig_read_done, .found = &before}};
    pthread_mutex_init(&q.mu, NULL);
    pthread_cond_init(&q.cond, NULL);
    rig_crash(r); /* an empty cache: the object itself is asked for */
    rig_open(r);
    q.r.part = r->part;
    vv_tier_read_start(&q.r);
    assert_int_equal(rig_read_wait(&q), 0);
    assert_true(rig_read_check(r, &q) > 0);
    struct answer a = {0};
    vv_tier_find_time(r->part, &before, rig_ts(45), 40, on_time, &a);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.err, VV_E_AGAIN); /* ask the index again */
    struct vv_footer f = {0};
    struct vv_segkey k;
    struct vv_error e = {0};
    struct vv_slice s;
    char key[VV_KEY_MAX];
    vv_segkey_of(r->topic_id, 2, &after, &k);
    vv_segkey_format(&k, key);
    rig_ok(vv_objstore_get_whole(r->store, key, 1 << 20, 1000, &s, NULL, &e), &e);
    rig_ok(vv_footer_decode(s.p, s.n, s.n, r->store->keys, &f, NULL, &e), &e);
    assert_int_equal(f.flags, rig_form(&r->config)); /* in the form that objects have */
    assert_int_equal(after.stored_bytes, f.flags ? f.stored_bytes : 0);
    assert_int_equal(f.aborted_count, 2);
    assert_int_equal(f.records, (uint64_t)(after.last - after.base + 1));
    assert_int_equal(f.sealed_ms, after.sealed_ms);
    vv_footer_release(&f);
    vv_buf_unref(s.buf);
    rig_aborted_n = 0;
    rig_free(r);
}

static void generations(void **state)
{
    (void)state;
    struct rig *r = small_ones(700, 20); /* two pages and a head */
    rig_advance(AGE);
    settle(r);
    for (int i = 0; i < 3; i++) { /* and more come, some at a time */
        for (int k = 0; k < 9; k++) rig_seal_batches(r, 1, 20, 0);
        rig_only_remote(r);
        rig_advance(AGE);
        settle(r);
    }
    assert_true(extents(r) < 40);
    struct vv_tier_stats s = rig_stats(r);
    struct vv_index_summary sum;
    vv_index_summary(r->index, &sum);
    assert_true(s.merged_bytes < 4 * sum.remote_bytes); /* a byte is copied once a generation */
    check(r);
    check_times(r);
    rig_advance(GRACE + 10000);
    settle(r);
    settle(r);
    check_bucket(r, true);
    char prefix[VV_KEY_MAX];
    vv_key_manifest_prefix(r->topic_id, prefix);
    assert_true(rig_count(r, prefix) <= 3); /* rewritten pages go, too, and small ones are joined */
    rig_crash(r);
    rig_open(r);
    settle(r);
    check(r);
    rig_free(r);
}

static void use_form(struct rig *r, unsigned form)
{
    r->config.compress = form & VV_OBJECT_COMPRESSED;
    r->config.encrypt = form & VV_OBJECT_ENCRYPTED;
    vv_tier_configure(r->tier, &r->config);
}

static unsigned form_of(struct rig *r, int64_t at)
{
    struct vv_extent x;
    struct vv_segkey k;
    struct vv_footer f = {0};
    struct vv_error e = {0};
    uint64_t n;
    assert_int_equal(vv_index_find(r->index, at, &x), 0);
    vv_segkey_of(r->topic_id, 2, &x, &k);
    rig_ok(vv_footer_get(r->store, &k, "cluster-1", 1000, &f, &n, &e), &e);
    assert_int_equal(n, x.object_bytes);
    unsigned form = f.flags;
    vv_footer_release(&f);
    return form;
}

/* From every form of objects, two in one run, into every other. */
static void forms_change(void **state)
{
    (void)state;
    for (unsigned from = 0; from <= VV_OBJECT_FLAGS; from++) {
        for (unsigned to = 0; to <= VV_OBJECT_FLAGS; to++) {
            struct rig *r = small_ones(5, 200);
            use_form(r, from);
            for (int k = 0; k < 5; k++) rig_seal_batches(r, 3, 200, 0);
            rig_only_remote(r);
            use_form(r, to);
            rig_advance(AGE);
            settle(r);
            assert_int_equal(extents(r), 1);
            assert_int_equal(form_of(r, 0), to);
            rig_crash(r); /* nothing is cached */
            rig_open(r);
            check(r);
            check_times(r);
            rig_advance(GRACE + 10000);
            settle(r);
            settle(r);
            check_bucket(r, true);
            rig_free(r);
        }
    }
}

/* The settings change between an intent and its retry: what is there under the intent's name never disagrees with the manifest. */
static void forms_change_on_the_way(void **state)
{
    (void)state;
    for (unsigned pair = 0; pair < 16; pair++) {
        for (unsigned n = pair % 3; n < 12; n += 3) {
            struct rig *r = small_ones(8, 200);
            use_form(r, pair & 3);
            rig_advance(AGE);
            vv_tier_hurry(r->tier);
            rig_run(r);
            if (extents(r) > 1) fail_msg("nothing was merged");
            for (int k = 0; k < 8; k++) rig_seal_batches(r, 2, 200, 0);
            rig_only_remote(r);
            rig_advance(AGE);
            vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = VV_OBJ_PUT, .from = n, .count = n % 2, .action = VV_FAULT_LOSE_REPLY});
            vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = VV_OBJ_PUT, .from = n + n % 2, .action = VV_FAULT_FAIL});
            vv_tier_hurry(r->tier);
            for (int i = 0; i < 30 && vv_tier_step(r->tier); i++) {
            }
            vv_objfault_clear(r->store);
            if (n % 3 == 2) {
                rig_crash(r);
                rig_open(r);
            }
            use_form(r, pair >> 2);
            check(r);
            settle(r);
            check(r);
            struct vv_extent x;
            assert_false(vv_index_intent(r->index, &x));
            check_bucket(r, false);
            rig_advance(GRACE + 10000);
            settle(r);
            settle(r);
            check_bucket(r, true);
            rig_crash(r);
            rig_open(r);
            check(r);
            rig_free(r);
        }
    }
}

/* From call n of the store on nothing works (or: its answer is lost, then nothing); then the process dies. 0: it never came that far. */
static bool crash_at(unsigned n, enum vv_objfault_action how, bool log_start)
{
    struct rig *r = small_ones(300, 20);
    rig_advance(AGE);
    vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = -1, .from = n, .count = 1, .action = how});
    vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = -1, .from = n + (how == VV_FAULT_LOSE_REPLY), .action = VV_FAULT_FAIL});
    vv_tier_hurry(r->tier);
    for (int i = 0; i < 200 && vv_tier_step(r->tier); i++) {
    }
    bool reached = extents(r) > 10; /* the merges were not all done */
    vv_objfault_clear(r->store);
    if (log_start) assert_int_equal(vv_index_set_log_start(r->index, 1234), 0);
    rig_crash(r);
    rig_open(r);
    if (log_start) vv_tier_part_log_start_moved(r->part);
    check(r);
    settle(r);
    check(r);
    check_bucket(r, false);
    rig_crash(r);
    rig_open(r);
    rig_advance(GRACE + 10000);
    settle(r);
    settle(r);
    check(r);
    check_bucket(r, true);
    struct vv_extent x;
    assert_false(vv_index_intent(r->index, &x));
    rig_free(r);
    return reached;
}

static void crashes(void **state)
{
    (void)state;
    unsigned reached = 0;
    for (unsigned n = 1; n < 700; n += n < 3 ? 1 : 173)
        for (int how = 0; how < 2; how++) reached += crash_at(n, how ? VV_FAULT_LOSE_REPLY : VV_FAULT_FAIL, n % 3 == 1);
    assert_true(reached > 3);
}

/* Around the object's PUT, its proof, the pages and the head: every call of a small merge. */
static void crashes_at_every_call(void **state)
{
    (void)state;
    for (unsigned n = 1; n < 30; n++) {
        for (int how = 0; how < 2; how++) {
            struct rig *r = small_ones(8, 20);
            rig_advance(AGE);
            vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = -1, .from = n, .count = how ? 1 : 0,
                                                                 .action = how ? VV_FAULT_LOSE_REPLY : VV_FAULT_FAIL});
            if (how) vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = -1, .from = n + 1, .action = VV_FAULT_FAIL});
            vv_tier_hurry(r->tier);
            for (int i = 0; i < 30 && vv_tier_step(r->tier); i++) {
            }
            vv_objfault_clear(r->store);
            rig_crash(r);
            rig_open(r);
            check(r);
            struct vv_extent x; /* with an intent the bucket may be a step ahead */
            if (!vv_index_intent(r->index, &x)) check_bucket(r, false);
            settle(r);
            check(r);
            check_bucket(r, false);
            assert_int_equal(extents(r), 1);
            rig_advance(GRACE + 10000);
            settle(r);
            settle(r);
            check_bucket(r, true);
            check(r);
            rig_free(r);
        }
    }
}

/* The index says all of it again after a disk was lost in the middle. */
static void index_replaces(void **state)
{
    (void)state;
    char dir[] = "/tmp/varve-replace-XXXXXX";
    struct vv_index *ix;
    struct vv_error e = {0};
    struct vv_extent x, intent;
    assert_non_null(mkdtemp(dir));
    rig_env = vv_env_posix;
    rig_ok(vv_index_open(&rig_env, dir, NULL, &ix, &e), &e);
    for (int64_t k = 0; k < 3000; k++) {
        x = (struct vv_extent){.base = k * 10, .last = k * 10 + 9, .max_ts = k, .bytes = 7, .object_bytes = 9, .nonce = (uint64_t)k + 1};
        assert_int_equal(vv_index_adopt(ix, &x), 0);
    }
    assert_int_equal(vv_index_sync(ix), 0);
    const struct { int64_t from, to; } runs[] = {{100, 299}, {0, 49}, {64, 100 - 1}, {1000, 1511}, {2990, 2999}};
    for (size_t i = 0; i < VV_COUNT(runs); i++) {
        struct vv_extent n = {.base = runs[i].from * 10, .last = runs[i].to * 10 + 9, .max_ts = runs[i].to, .bytes = 70,
                              .object_bytes = 99, .nonce = 90000 + i, .generation = 1, .state = VV_EXTENT_REMOTE};
        assert_int_equal(vv_index_intend(ix, &n), 0);
        vv_index_close(ix);
        rig_ok(vv_index_open(&rig_env, dir, NULL, &ix, &e), &e);
        assert_true(vv_index_intent(ix, &intent));
        assert_int_equal(intent.nonce, n.nonce);
        n.last++;
        assert_int_equal(vv_index_replace(ix, &n), VV_E_STATE); /* not an extent's border */
        n.last--;
        assert_int_equal(vv_index_replace(ix, &n), 0);
        for (int pass = 0; pass < 2; pass++) {
            assert_false(vv_index_intent(ix, &intent));
            assert_int_equal(vv_index_find(ix, n.base + 5, &x), 0);
            assert_int_equal(x.nonce, n.nonce);
            assert_int_equal(vv_index_next(ix, n.base + 1, &x), runs[i].to == 2999 ? VV_E_NOENT : 0);
            if (runs[i].to != 2999) assert_int_equal(x.base, n.last + 1);
            if (n.base) assert_int_equal(vv_index_find(ix, n.base - 1, &x), 0);
            vv_index_close(ix);
            rig_ok(vv_index_open(&rig_env, dir, NULL, &ix, &e), &e);
        }
    }
    vv_index_close(ix);
    nftw(dir, rig_rm, 16, FTW_DEPTH | FTW_PHYS);
}

/* After the grace, but the index cannot say what it still names: everything stays. */
static void an_index_that_cannot_be_read_keeps_it(void **state)
{
    (void)state;
    struct rig *r = small_ones(40, 20);
    struct vv_error e = {0};
    struct vv_index *ix;
    struct vv_manifest_where w;
    char dir[192], path[224];
    int64_t next;
    rig_advance(AGE);
    settle(r);
    size_t objects = rig_segments(r);
    assert_int_not_equal(r->part->manifest.replaced_count, 0);
    snprintf(dir, sizeof dir, "%s/damaged", r->dir);
    rig_ok(vv_index_open(&rig_env, dir, NULL, &ix, &e), &e);
    for (int64_t i = 0; i < 1200; i++) {
        struct vv_extent x = {.base = i * 10, .last = i * 10 + 9, .nonce = (uint64_t)i + 1, .bytes = 100, .object_bytes = 200};
        assert_int_equal(vv_index_adopt(ix, &x), 0);
    }
    assert_int_equal(vv_index_sync(ix), 0);
    snprintf(path, sizeof path, "%s/varve.extents", dir);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    for (int i = 0; i < 1200 * 64; i++) fputc(0, f);
    fclose(f);
    vv_tier_where(r->part, &w);
    struct vv_manifest *m = &r->part->manifest;
    m->folded_end = 11990; /* what is committed on the way does not look at the damaged pages */
    assert_int_equal(vv_manifest_expire(m, &w, ix, INT64_MAX, &next, &e), VV_E_STATE);
    assert_int_equal(rig_segments(r), objects);
    vv_index_close(ix);
    rig_crash(r);
    rig_free(r);
}

int main(void)
{
    rig_no_sync = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_replaces),
        cmocka_unit_test(become_bigger),
        cmocka_unit_test(an_index_that_cannot_be_read_keeps_it),
        cmocka_unit_test(generations),
        cmocka_unit_test(forms_change),
        cmocka_unit_test(forms_change_on_the_way),
        cmocka_unit_test(crashes_at_every_call),
        cmocka_unit_test(crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
