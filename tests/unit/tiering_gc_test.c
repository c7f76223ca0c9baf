/* Garbage collection: what is part of no log goes, whatever a listing says nothing else does. */
#include "tiering_rig.h"
#include "jsoncrc.h"

#include <utime.h>

#define DAY_MS 86400000ll

static int setup(void **state)
{
    struct rig *r = rig_new();
    r->config.gc_interval_ms = 1000;
    r->config.gc_age_ms = DAY_MS;
    rig_wall_ms = vv_wall_ms(&vv_env_posix) + 10 * DAY_MS; /* what the rig's store holds is ten days old */
    rig_open(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static void key_of(struct rig *r, int64_t base, int64_t last, uint64_t nonce, char key[VV_KEY_MAX])
{
    struct vv_segkey k = {r->topic_id, 2, base, last, 3, 0, nonce};
    vv_segkey_format(&k, key);
}

static void put(struct rig *r, const char *key)
{
    struct vv_error e = {0};
    rig_ok(vv_objstore_put_mem(r->store, key, "left", 4, NULL, 0, NULL, &e), &e);
}

static bool there(struct rig *r, const char *key)
{
    struct vv_objinfo info;
    struct vv_error e = {0};
    int err = vv_objstore_head(r->store, key, 0, &info, &e);
    if (err != VV_E_NOENT) rig_ok(err, &e);
    return !err;
}

/* Every extent of the index still has its object. */
static void nothing_lost(struct rig *r)
{
    struct vv_extent x;
    struct vv_segkey k;
    char key[VV_KEY_MAX];
    for (int64_t at = 0; !vv_index_next(r->index, at, &x); at = x.last + 1) {
        vv_extent_release(r->index, &x);
        vv_segkey_of(r->topic_id, 2, &x, &k);
        vv_segkey_format(&k, key);
        if (!there(r, key)) fail_msg("%s is gone", key);
    }
}

static void leftovers_go(void **state)
{
    struct rig *r = *state;
    char within[VV_KEY_MAX], across[VV_KEY_MAX], beyond[VV_KEY_MAX], page[VV_KEY_MAX], sha[65];
    for (int i = 0; i < 20; i++) rig_seal(r, 1, 50); /* offsets 0..199 */
    rig_settle(r);
    key_of(r, 40, 49, 77, within);
    key_of(r, 95, 124, 78, across);
    key_of(r, 190, 209, 79, beyond); /* the log ends inside it: whoever restores has to decide */
    memset(sha, 'a', 64);
    sha[64] = 0;
    vv_key_page(r->topic_id, 2, 1, sha, page);
    put(r, within);
    put(r, across);
    put(r, beyond);
    put(r, page);
    rig_settle(r);
    assert_false(there(r, within));
    assert_false(there(r, across));
    assert_false(there(r, page));
    assert_true(there(r, beyond));
    nothing_lost(r);
    for (int i = 0; i < 2; i++) rig_seal(r, 1, 50);
    rig_settle(r);
    assert_false(there(r, beyond)); /* the log has grown over it */
    assert_int_equal(rig_segments(r), 22);
    assert_int_equal(r->tier->gc_objects, 4);
    assert_int_equal(r->part->manifest.garbage_count, 0);
    assert_int_equal(r->part->manifest.garbage_listed, 0); /* the last head names nothing that is gone */
}

static void young_and_foreign_stay(void **state)
{
    struct rig *r = *state;
    char young[VV_KEY_MAX], foreign[VV_KEY_MAX + 8], other[VV_KEY_MAX], path[512];
    for (int i = 0; i < 4; i++) rig_seal(r, 1, 50);
    rig_settle(r);
    key_of(r, 10, 19, 77, young);
    put(r, young);
    snprintf(path, sizeof path, "%s/%s", r->bucket, young);
    struct utimbuf now = {rig_wall_ms / 1000 + 3600, rig_wall_ms / 1000 - 3600};
    assert_int_equal(utime(path, &now), 0);
    snprintf(foreign, sizeof foreign, "%.*s.bak", (int)strlen(young), young);
    put(r, foreign);
    vv_key_part_prefix(r->topic_id, 2, other);
    snprintf(other + strlen(other), 32, "notes.txt");
    put(r, other);
    rig_settle(r);
    assert_true(there(r, young));
    assert_true(there(r, foreign));
    assert_true(there(r, other));
    nothing_lost(r);
}

/* Tombstoned objects are the keeper's: kept for the grace, although nothing live names them. */
static void the_grace_is_kept(void **state)
{
    struct rig *r = *state;
    r->config.delete_grace_ms = 5 * DAY_MS;
    vv_tier_configure(r->tier, &r->config);
    for (int i = 0; i < 4; i++) rig_seal(r, 1, 50);
    rig_settle(r);
    assert_int_equal(vv_index_set_log_start(r->index, 20), 0);
    vv_tier_part_log_start_moved(r->part);
    rig_settle(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_TOMBSTONED);
    assert_int_equal(rig_segments(r), 4);
}

/* An object in a hole that the log itself has stays: another may mend the log with it. */
static void what_mends_a_hole_stays(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    char key[VV_KEY_MAX], head[VV_KEY_MAX];
    struct vv_slice s = {0};
    for (int i = 0; i < 6; i++) rig_seal(r, 1, 50);
    rig_settle(r);
    vv_key_head(r->topic_id, 2, head); /* a manifest that lost a segment, as a bug or a person might leave it */
    rig_ok(vv_objstore_get_whole(r->store, head, 1u << 20, 0, &s, NULL, &e), &e);
    char *text = strndup((const char *)s.p, s.n), *from = strstr(text, "{\"base\":20,"), *to = strstr(text, "{\"base\":30,");
    vv_buf_unref(s.buf);
    assert_non_null(from);
    assert_non_null(to);
    memmove(from, to, strlen(to) + 1);
    size_t n = strlen(text);
    vv_jsoncrc_strip(text, &n);
    rig_ok(vv_objstore_put_mem(r->store, head, text, n, NULL, 0, NULL, &e), &e);
    free(text);
    key_of(r, 20, 29, 77, key);
    put(r, key);
    r->part->gc.due_us = 0;
    rig_run(r);
    assert_true(there(r, key));
    nothing_lost(r);
}

/* Another writer took over: whatever we think, nothing goes. */
static void a_fenced_writer_collects_nothing(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct vv_tier *other;
    char key[VV_KEY_MAX];
    for (int i = 0; i < 4; i++) rig_seal(r, 1, 50);
    rig_settle(r);
    key_of(r, 10, 19, 77, key);
    struct vv_tier_identity id = {.cluster_id = "cluster-1", .node_id = 2};
    rig_ok(vv_tier_open(&rig_env, r->store, &r->config, &id, true, &other, &e), &e);
    put(r, key);
    rig_settle(r);
    assert_true(there(r, key));
    assert_true(atomic_load(&r->tier->fenced));
    vv_tier_free(other);
}

/* Listings that lie, with leftovers among the truth: nothing of the log goes, and a listing without an end ends. */
static void lying_listings(void **state)
{
    struct rig *r = *state;
    static const enum vv_objfault_action lies[] = {VV_FAULT_LIST_MISSING, VV_FAULT_LIST_EXTRA, VV_FAULT_LIST_STALE, VV_FAULT_LIST_ENDLESS};
    for (int i = 0; i < 30; i++) rig_seal(r, 1, 50);
    rig_settle(r);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        char key[VV_KEY_MAX];
        struct vv_objfault_rule rule = {.op = VV_OBJ_LIST, .action = lies[i]};
        key_of(r, 10, 19, 100 + i, key);
        put(r, key);
        assert_true(vv_objfault_add(r->store, &rule) >= 0);
        for (int k = 0; k < 10; k++) {
            vv_tier_hurry(r->tier);
            for (int n = 0; n < 300; n++) vv_tier_step(r->tier);
            rig_advance(2000);
        }
        vv_objfault_clear(r->store);
        nothing_lost(r);
    }
    rig_settle(r);
    assert_int_equal(rig_segments(r), 30); /* and afterwards the leftovers are gone */
}

/* A crash at each step of collecting: what is live stays, the leftover goes in the end. */
static void crashes_in_between(void **state)
{
    struct rig *r = *state;
    char key[VV_KEY_MAX];
    for (int i = 0; i < 4; i++) rig_seal(r, 1, 50);
    rig_settle(r);
    key_of(r, 10, 19, 77, key);
    for (int at = 0; at < 12; at++) {
        put(r, key);
        r->part->gc.due_us = 0;
        struct vv_objfault_rule rule = {.op = at % 3 == 0 ? VV_OBJ_DELETE_MANY : VV_OBJ_PUT, .from = (unsigned)(1 + at / 3), .count = 1,
                                        .action = at % 2 ? VV_FAULT_FAIL : VV_FAULT_LOSE_REPLY};
        vv_objfault_add(r->store, &rule);
        for (int n = 0; n < 3; n++) vv_tier_step(r->tier);
        vv_objfault_clear(r->store);
        rig_crash(r);
        rig_open(r);
        nothing_lost(r);
    }
    rig_settle(r);
    assert_false(there(r, key));
    nothing_lost(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(leftovers_go, setup, teardown),
        cmocka_unit_test_setup_teardown(young_and_foreign_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(the_grace_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(what_mends_a_hole_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_fenced_writer_collects_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(lying_listings, setup, teardown),
        cmocka_unit_test_setup_teardown(crashes_in_between, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
