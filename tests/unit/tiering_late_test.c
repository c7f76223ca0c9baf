/* A tier that was opened while its store was away: nothing is written until it has claimed the bucket by itself. */
#include "tiering_rig.h"

static void reopen_later(struct rig *r, bool must_exist)
{
    struct vv_error e = {0};
    rig_open_index(r, r->part_dir);
    r->id.must_exist = must_exist;
    rig_ok(vv_tier_open_later(&rig_env, r->store, &r->config, &r->id, false, &r->tier, &e), &e);
    rig_open_part(r);
}

static int setup(void **state)
{
    struct rig *r = rig_new();
    rig_open(r);
    rig_seal(r, 2, 50);
    rig_settle(r);
    assert_int_equal(rig_segments(r), 1);
    rig_crash(r);
    reopen_later(r, true);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static void away(struct rig *r)
{
    struct vv_objfault_rule rule = {.op = -1, .action = VV_FAULT_FAIL, .err = VV_E_AGAIN};
    vv_objfault_add(r->store, &rule);
}

static void uploads_wait_for_the_claim_and_then_go(void **state)
{
    struct rig *r = *state;
    struct vv_tier_stats stats;
    struct vv_error e = {0};
    away(r);
    rig_seal(r, 2, 50);
    rig_settle(r);
    assert_int_equal(rig_state(r, 20), VV_EXTENT_SEALED);
    assert_int_equal(vv_tier_put_snapshot(r->tier, "{}", 2, true, &e), VV_E_AGAIN);
    assert_int_equal(vv_tier_delete_topic(r->tier, (struct vv_uuid){{9}}, "other", 0, &e), VV_E_AGAIN);
    vv_tier_stats(r->tier, &stats);
    assert_false(stats.store_ok);
    vv_objfault_clear(r->store);
    rig_settle(r);
    assert_int_equal(rig_state(r, 20), VV_EXTENT_BOTH);
    assert_int_equal(rig_segments(r), 2);
    assert_int_equal(r->tier->claim.writer_epoch, 2);
    rig_ok(vv_tier_put_snapshot(r->tier, "{}", 2, true, &e), &e);
    rig_ok(vv_tier_delete_topic(r->tier, (struct vv_uuid){{9}}, "other", 0, &e), &e);
}

static void another_writer_is_respected(void **state)
{
    struct rig *r = *state;
    struct vv_tier *other;
    struct vv_error e = {0};
    char dir[200];
    snprintf(dir, sizeof dir, "%s/other", r->dir);
    assert_int_equal(vv_fs_mkdirs(&rig_env, dir), 0);
    struct vv_tier_identity id = {.cluster_id = "cluster-1", .node_id = 2, .data_dir = dir};
    rig_ok(vv_tier_open(&rig_env, r->store, &r->config, &id, true, &other, &e), &e);
    rig_seal(r, 2, 50);
    rig_run(r);
    assert_int_equal(rig_state(r, 20), VV_EXTENT_SEALED);
    assert_int_equal(rig_segments(r), 1);
    vv_tier_stop(other, 0); /* gives its claim back */
    vv_tier_free(other);
    rig_settle(r);
    assert_int_equal(rig_state(r, 20), VV_EXTENT_BOTH);
}

static void a_bucket_that_lost_its_root_is_not_made_anew(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    rig_ok(vv_objstore_delete(r->store, VV_KEY_ROOT, 1000, &e), &e);
    rig_seal(r, 2, 50);
    rig_settle(r);
    assert_int_equal(rig_state(r, 20), VV_EXTENT_SEALED);
    assert_int_equal(rig_count(r, VV_KEY_ROOT), 0);
}

static void a_stop_before_the_claim_writes_nothing(void **state)
{
    struct rig *r = *state;
    away(r);
    rig_run(r);
    vv_objfault_clear(r->store);
    size_t before = rig_count(r, "");
    vv_tier_part_close(r->part);
    r->part = NULL;
    vv_tier_stop(r->tier, 1000);
    vv_tier_free(r->tier);
    assert_int_equal(rig_count(r, ""), before);
    rig_open_tier(r); /* and the next start finds its old claim */
    assert_int_equal(r->tier->claim.writer_epoch, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(uploads_wait_for_the_claim_and_then_go, setup, teardown),
        cmocka_unit_test_setup_teardown(another_writer_is_respected, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bucket_that_lost_its_root_is_not_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_before_the_claim_writes_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
