/* A bucket that is filled from another one: two stores as one, proven copies, a log as of a time, what is kept of the list of topics. */
#include "tiering_rig.h"

#include "copy.h"
#include "obj_pair.h"

struct two { /* the rig's bucket is the origin */
    struct rig *r;
    struct vv_objstore *own; /* behind the fault wrapper */
    char dir[160];
};

static int setup(void **state)
{
    struct two *t = calloc(1, sizeof *t);
    struct vv_error e = {0};
    char url[200];
    struct vv_objstore *inner;
    t->r = rig_new();
    t->r->config.delete_grace_ms = 600000;
    rig_open(t->r);
    for (int i = 0; i < 4; i++) { /* sealed a minute apart: offsets 0..19, 20..39, … */
        rig_seal(t->r, 2, 50);
        rig_settle(t->r);
    }
    assert_int_equal(rig_segments(t->r), 4);
    snprintf(t->dir, sizeof t->dir, "%s/own", t->r->dir);
    snprintf(url, sizeof url, "fs:%s", t->dir);
    rig_ok(vv_objstore_open(url, &(struct vv_objstore_config){.inline_async = true}, &rig_env, &inner, &e), &e);
    assert_int_equal(vv_objfault_open(inner, 2, &t->own), 0);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct two *t = *state;
    vv_objstore_close(t->own);
    rig_free(t->r);
    free(t);
    return 0;
}

static struct vv_segkey key_at(struct two *t, int64_t base, struct vv_extent *x)
{
    struct vv_segkey k;
    assert_int_equal(vv_index_next(t->r->index, base, x), 0);
    vv_extent_release(t->r->index, x);
    vv_segkey_of(t->r->topic_id, 2, x, &k);
    return k;
}

/* ---- two stores as one ---- */

struct asked { struct vv_objget get; int done; };

static void on_done(struct vv_objget *g)
{
    VV_CONTAINER(g, struct asked, get)->done++;
    vv_buf_unref(g->buf);
}

static int ask(struct vv_objstore *s, const char *key)
{
    struct asked a = {.get = {.key = key, .n = 10, .done = on_done}};
    vv_objstore_get_async(s, &a.get);
    assert_int_equal(a.done, 1);
    return a.get.err;
}

static void a_pair_reads_segments_from_the_second_and_nothing_else(void **state)
{
    struct two *t = *state;
    struct vv_objstore *pair, *third;
    struct vv_error e = {0};
    struct vv_extent x;
    struct vv_slice s = {0};
    struct vv_objinfo info;
    struct vv_objlist l = {0};
    char key[VV_KEY_MAX], head[VV_KEY_MAX], url[200];
    struct vv_segkey k = key_at(t, 20, &x);
    vv_segkey_format(&k, key);
    vv_key_head(t->r->topic_id, 2, head);
    snprintf(url, sizeof url, "fs:%s", t->r->bucket);
    rig_ok(vv_objstore_open(url, &(struct vv_objstore_config){.inline_async = true, .read_only = true}, &rig_env, &third, &e), &e);
    assert_int_equal(vv_objpair_open(t->own, third, &pair), 0);
    t->own = pair; /* closes both */
    assert_int_equal(ask(pair, key), 0);
    assert_int_equal(ask(pair, head), VV_E_NOENT);
    assert_int_equal(vv_objstore_get_suffix(pair, key, 32, 0, &s, NULL, &e), 0);
    vv_buf_unref(s.buf);
    assert_int_equal(vv_objstore_get_whole(pair, head, 1 << 20, 0, &s, NULL, &e), VV_E_NOENT);
    assert_int_equal(vv_objstore_head(pair, key, 0, &info, &e), VV_E_NOENT);
    assert_int_equal(vv_objpair_second_reads(pair), 2);
    rig_ok(vv_objstore_list(pair, "", NULL, 0, 0, &l, &e), &e);
    assert_int_equal(l.count, 0);
    vv_objlist_release(&l);
    assert_int_equal(ask(pair, "v1/t/none"), VV_E_NOENT);
    vv_objpair_forget_second(pair);
    assert_int_equal(ask(pair, key), VV_E_NOENT);
}

static void a_pair_goes_on_with_another_first_store(void **state)
{
    struct two *t = *state;
    struct vv_objstore *pair, *next;
    struct vv_error e = {0};
    char url[200];
    assert_int_equal(vv_objpair_open(t->own, NULL, &pair), 0);
    t->own = pair;
    rig_ok(vv_objstore_put_mem(pair, "a", "old", 3, NULL, 0, NULL, &e), &e);
    snprintf(url, sizeof url, "fs:%s/next", t->r->dir);
    rig_ok(vv_objstore_open(url, &(struct vv_objstore_config){.inline_async = true}, &rig_env, &next, &e), &e);
    rig_ok(vv_objstore_put_mem(next, "a", "new", 3, NULL, 0, NULL, &e), &e);
    assert_int_equal(vv_objpair_replace_first(pair, next), 0);
    struct vv_slice s = {0};
    rig_ok(vv_objstore_get_whole(pair, "a", 10, 0, &s, NULL, &e), &e);
    assert_memory_equal(s.p, "new", 3);
    vv_buf_unref(s.buf);
    assert_string_equal(pair->url, url);
}

/* ---- a proven copy ---- */

static void a_copy_is_proven_and_not_made_twice(void **state)
{
    struct two *t = *state;
    struct vv_error e = {0};
    struct vv_extent x;
    struct vv_objinfo a, b;
    char key[VV_KEY_MAX];
    bool source;
    struct vv_segkey k = key_at(t, 20, &x);
    struct vv_copy c = {.env = &rig_env, .from = t->r->store, .to = t->own, .clusters = "other,cluster-1", .full = true};
    assert_int_equal(vv_copy_segment(&c, &k, 10, &source, &e), 0); /* a guess that is too small is no matter */
    assert_int_equal(vv_copy_segment(&c, &k, 4096, &source, &e), 1);
    vv_segkey_format(&k, key);
    rig_ok(vv_objstore_head(t->r->store, key, 0, &a, &e), &e);
    rig_ok(vv_objstore_head(t->own, key, 0, &b, &e), &e);
    assert_int_equal(a.size, b.size);
    rig_ok(vv_objstore_put_mem(t->own, key, "cut", 3, NULL, 0, NULL, &e), &e); /* the source is the truth */
    assert_int_equal(vv_copy_segment(&c, &k, 4096, &source, &e), 0);
    c.clusters = "other";
    assert_int_equal(vv_copy_segment(&c, &k, 4096, &source, &e), VV_E_CORRUPT);
    assert_true(source);
}

static void a_copy_says_whose_fault_it_is(void **state)
{
    struct two *t = *state;
    struct vv_error e = {0};
    struct vv_extent x;
    char key[VV_KEY_MAX];
    bool source;
    struct vv_segkey k = key_at(t, 40, &x);
    struct vv_copy c = {.env = &rig_env, .from = t->r->store, .to = t->own, .clusters = "cluster-1"};
    struct vv_objfault_rule lie = {.op = VV_OBJ_PUT, .key_part = ".seg", .count = 1, .action = VV_FAULT_TRUNCATE};
    vv_segkey_format(&k, key);
    vv_objfault_add(t->own, &lie);
    assert_int_equal(vv_copy_segment(&c, &k, 4096, &source, &e), VV_E_CORRUPT);
    assert_false(source);
    lie = (struct vv_objfault_rule){.op = VV_OBJ_PUT, .key_part = ".seg", .from = 2, .count = 1, .action = VV_FAULT_DROP_WRITE};
    vv_objstore_delete(t->own, key, 0, &e);
    vv_objfault_clear(t->own);
    lie.from = 1;
    vv_objfault_add(t->own, &lie);
    assert_int_equal(vv_copy_segment(&c, &k, 4096, &source, &e), VV_E_NOENT);
    assert_false(source);
    struct vv_objfault_rule rot = {.op = VV_OBJ_GET, .key_part = ".seg", .from = 2, .count = 1, .action = VV_FAULT_FLIP, .arg = 7};
    vv_objfault_add(t->r->store, &rot); /* the footer first, then the data */
    assert_int_equal(vv_copy_segment(&c, &k, 4096, &source, &e), VV_E_CORRUPT);
    assert_true(source);
    vv_objfault_clear(t->r->store);
    assert_int_equal(vv_copy_segment(&c, &k, 4096, &source, &e), 0);
    rig_ok(vv_objstore_delete(t->r->store, key, 0, &e), &e);
    assert_int_equal(vv_copy_segment(&c, &k, 4096, &source, &e), VV_E_NOENT);
    assert_true(source);
}

/* ---- as of a time ---- */

static int64_t no_start(void *ctx, struct vv_uuid id, int32_t partition)
{
    (void)id, (void)partition;
    return *(int64_t *)ctx;
}

/* Restores the partition into a tier of its own over the own bucket, as of then; its end. */
static int64_t restore_as_of(struct two *t, int64_t as_of_ms, int64_t start, int64_t *log_start, int32_t *epoch_used)
{
    struct vv_error e = {0};
    struct vv_tier *tier;
    struct vv_index *index;
    struct vv_tier_restored out;
    char data[200], part[220];
    struct vv_tier_seed seed = {.source = t->r->store, .cluster_id = "cluster-1", .origins.n = 1, .log_start = no_start, .ctx = &start,
                                .writer_epoch = t->r->tier->claim.writer_epoch + 5};
    snprintf(data, sizeof data, "%s/data-%lld", t->r->dir, (long long)as_of_ms + start);
    snprintf(part, sizeof part, "%s/p", data);
    assert_int_equal(vv_fs_mkdirs(&rig_env, part), 0);
    strcpy(seed.origins.v[0].cluster_id, "cluster-1");
    strcpy(seed.origins.v[0].url, t->r->store->url);
    seed.origins.v[0].as_of_ms = as_of_ms;
    struct vv_tier_identity id = {.node_id = 2, .data_dir = data, .origins = &seed.origins, .epoch_floor = 40};
    rig_ok(vv_tier_open(&rig_env, t->own, &t->r->config, &id, true, &tier, &e), &e);
    assert_true(tier->claim.writer_epoch > 40);
    assert_string_not_equal(id.cluster_id, "cluster-1");
    vv_tier_seed(tier, &seed);
    rig_ok(vv_tier_seed_clear(tier, &e), &e);
    rig_ok(vv_index_open(&rig_env, part, &rig_ref_ops, &index, &e), &e);
    rig_ok(vv_tier_restore_part(tier, t->r->topic_id, NULL, 2, index, &out, &e), &e);
    rig_ok(vv_tier_seeded(tier, &e), &e);
    *log_start = out.log_start;
    *epoch_used = out.epoch_used;
    free(out.epochs);
    free(out.snapshot);
    struct vv_manifest m = {0}; /* the own bucket says the same */
    struct vv_manifest_where w = {.env = &rig_env, .store = t->own, .cluster_id = id.cluster_id, .topic_id = t->r->topic_id, .partition = 2};
    rig_ok(vv_manifest_load(&m, &w, NULL, NULL, &e), &e);
    assert_int_equal(m.next_offset, out.next_offset > out.log_start ? out.next_offset : 0);
    vv_manifest_release(&m);
    vv_index_close(index);
    vv_tier_stop(tier, 0);
    vv_tier_free(tier);
    return out.next_offset;
}

static int64_t sealed_at(struct two *t, int64_t base)
{
    struct vv_extent x;
    key_at(t, base, &x);
    return x.sealed_ms;
}

static void a_log_ends_with_what_was_sealed_by_then(void **state)
{
    struct two *t = *state;
    int64_t start;
    int32_t epoch;
    assert_int_equal(restore_as_of(t, -1, -1, &start, &epoch), 80);
    assert_int_equal(epoch, 3 + 5); /* as many lives of the origin since the last footer */
    assert_int_equal(restore_as_of(t, sealed_at(t, 40), 0, &start, &epoch), 60);
    assert_int_equal(restore_as_of(t, sealed_at(t, 40) - 1, 0, &start, &epoch), 40);
    assert_int_equal(restore_as_of(t, sealed_at(t, 0) - 1, 0, &start, &epoch), 0);
    assert_true(epoch >= 3); /* also when nothing of it is taken */
}

static void a_log_starts_where_it_did_then(void **state)
{
    struct two *t = *state;
    int64_t start;
    int32_t epoch;
    assert_int_equal(vv_index_set_log_start(t->r->index, 45), 0);
    vv_tier_part_log_start_moved(t->r->part);
    rig_settle(t->r);
    int64_t then = sealed_at(t, 40);
    restore_as_of(t, -1, -1, &start, &epoch);
    assert_int_equal(start, 45);
    assert_int_equal(restore_as_of(t, then, 20, &start, &epoch), 60);
    assert_int_equal(start, 20); /* tombstoned since, kept for the grace */
    rig_advance(700000);
    rig_settle(t->r); /* the grace is over: what lies below is gone */
    restore_as_of(t, then, 0, &start, &epoch);
    assert_true(start >= 40);
}

/* ---- what is kept of the list of topics ---- */

static void put(struct two *t, const char *text, bool keep)
{
    struct vv_error e = {0};
    rig_ok(vv_tier_put_snapshot(t->r->tier, text, strlen(text), keep, &e), &e);
}

static void lists_of_topics_are_kept_and_thinned_out(void **state)
{
    struct two *t = *state;
    struct vv_error e = {0};
    char *text;
    size_t n;
    int64_t at, oldest, begin = rig_wall_ms;
    assert_int_equal(vv_snapshots_get(t->r->store, begin, &text, &n, &at, &oldest, &e), VV_E_NOENT);
    assert_int_equal(oldest, -1);
    put(t, "one", true);
    rig_advance(1000);
    put(t, "two", true);
    rig_advance(1000);
    put(t, "offsets", false); /* only offsets, and too soon */
    assert_int_equal(rig_count(t->r, VV_KEY_SNAPSHOTS), 2);
    rig_advance(600000);
    put(t, "offsets", false);
    assert_int_equal(rig_count(t->r, VV_KEY_SNAPSHOTS), 3);
    rig_ok(vv_snapshots_get(t->r->store, begin + 999, &text, &n, &at, &oldest, &e), &e);
    assert_string_equal(text, "one");
    free(text);
    rig_ok(vv_snapshots_get(t->r->store, begin + 5000, &text, &n, &at, &oldest, &e), &e);
    assert_string_equal(text, "two");
    free(text);
    assert_int_equal(vv_snapshots_get(t->r->store, begin - 1, &text, &n, &at, &oldest, &e), VV_E_NOENT);
    assert_int_equal(oldest, begin);
    for (int i = 0; i < 40 * 24; i++) { /* forty days of a change an hour, each a little later */
        rig_advance(3600000);
        put(t, "hourly", true);
    }
    size_t kept = rig_count(t->r, VV_KEY_SNAPSHOTS);
    assert_true(kept < 14 * 24 + 40 && kept > 13 * 24);
    rig_ok(vv_snapshots_get(t->r->store, begin + 10, &text, &n, &at, &oldest, &e), &e);
    assert_string_equal(text, "one"); /* the oldest stays */
    free(text);
}

/* ---- hydration ---- */

/* The rig goes on with a bucket of its own; what it had is the origin. */
static void move_in(struct two *t)
{
    struct rig *r = t->r;
    struct vv_objstore *pair;
    vv_tier_part_close(r->part);
    r->part = NULL;
    vv_tier_stop(r->tier, 1000);
    rig_crash(r);
    t->own->keys = r->store->keys;
    r->store->keys = NULL;
    assert_int_equal(vv_objpair_open(t->own, r->store, &pair), 0);
    r->store = pair;
    rig_open(r);
    struct vv_origins *o = &r->tier->claim.origins;
    o->n = 1;
    snprintf(o->v[0].cluster_id, sizeof o->v[0].cluster_id, "cluster-1");
    snprintf(o->v[0].url, sizeof o->v[0].url, "fs:%s", r->bucket);
    o->v[0].as_of_ms = -1;
    o->v[0].seeded = true;
}

static bool own_has(struct two *t, int64_t base)
{
    struct vv_extent x;
    struct vv_objinfo info;
    char key[VV_KEY_MAX];
    struct vv_segkey k = key_at(t, base, &x);
    vv_segkey_format(&k, key);
    return !vv_objstore_head(t->own, key, 0, &info, NULL);
}

static void hydrated(struct two *t)
{
    struct vv_tier_stats s = {.hydrating = true};
    while (s.hydrating) {
        usleep(1000);
        vv_tier_stats(t->r->tier, &s);
    }
    assert_int_equal(s.hydrate_lost, 0);
    assert_int_equal(s.hydrate_objects, 4);
    assert_int_equal(s.hydrate_objects_left, 0);
    assert_null(vv_objpair_second(t->r->store));
    vv_hydrate_stop(t->r->tier->hydrate);
    for (int64_t base = 0; base < 80; base += 20) assert_true(own_has(t, base));
    t->own = NULL; /* the pair's */
}

static void objects_are_brought_over_at_the_same_time(void **state)
{
    struct two *t = *state;
    struct vv_objstore *origin = t->r->store;
    vv_objfault_add(origin, &(struct vv_objfault_rule){.op = VV_OBJ_GET, .key_part = "v1/t/", .action = VV_FAULT_STALL});
    move_in(t);
    assert_int_equal(vv_hydrate_start(t->r->tier), 0);
    while (vv_objfault_stalled(origin) < 4) usleep(1000);
    vv_objfault_clear(origin);
    hydrated(t);
}

/* What comes behind one that fails is here, and still the journal stays before it: a restart asks for it again. */
static void the_journal_stays_before_what_failed(void **state)
{
    struct two *t = *state;
    struct vv_objstore *origin = t->r->store;
    struct vv_origin_journal j;
    struct vv_error e = {0};
    struct vv_extent x;
    char key[VV_KEY_MAX];
    struct vv_segkey k = key_at(t, 20, &x);
    vv_segkey_format(&k, key);
    vv_objfault_add(origin, &(struct vv_objfault_rule){.op = VV_OBJ_GET, .key_part = key, .action = VV_FAULT_FAIL});
    move_in(t);
    assert_int_equal(vv_hydrate_start(t->r->tier), 0);
    while (!own_has(t, 0) || !own_has(t, 40) || !own_has(t, 60)) usleep(1000);
    vv_hydrate_stop(t->r->tier->hydrate);
    assert_false(own_has(t, 20));
    rig_ok(vv_origin_journal_load(&rig_env, t->r->data, &j, &e), &e);
    assert_int_equal(j.n, 1);
    assert_int_equal(j.v[0].copied, 20);
    vv_origin_journal_release(&j);
    vv_objfault_clear(origin);
    vv_hydrate_free(t->r->tier->hydrate);
    t->r->tier->hydrate = NULL;
    assert_int_equal(vv_hydrate_start(t->r->tier), 0);
    struct vv_tier_stats s = {.hydrating = true};
    while (s.hydrating) {
        usleep(1000);
        vv_tier_stats(t->r->tier, &s);
    }
    assert_int_equal(s.hydrate_objects, 3); /* the two behind it were found here, the first one was not asked for */
    vv_hydrate_stop(t->r->tier->hydrate);
    assert_true(own_has(t, 20));
    t->own = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_pair_reads_segments_from_the_second_and_nothing_else, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pair_goes_on_with_another_first_store, setup, teardown),
        cmocka_unit_test_setup_teardown(a_copy_is_proven_and_not_made_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(a_copy_says_whose_fault_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(a_log_ends_with_what_was_sealed_by_then, setup, teardown),
        cmocka_unit_test_setup_teardown(a_log_starts_where_it_did_then, setup, teardown),
        cmocka_unit_test_setup_teardown(objects_are_brought_over_at_the_same_time, setup, teardown),
        cmocka_unit_test_setup_teardown(the_journal_stays_before_what_failed, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_of_topics_are_kept_and_thinned_out, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
