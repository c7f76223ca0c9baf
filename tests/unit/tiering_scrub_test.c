/* The scrubber: what rots on either side is found and mended from the other; what cannot be is told, and stays to be read around. */
#include "tiering_rig.h"

static int setup(void **state)
{
    struct rig *r = rig_new();
    r->config.scrub_interval_ms = 1000;
    r->config.scrub_bytes_per_s = r->config.scrub_local_bytes_per_s = 1 << 20;
    rig_open(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static void key_of(struct rig *r, int64_t base, char key[VV_KEY_MAX])
{
    struct vv_extent x;
    struct vv_segkey k;
    assert_int_equal(vv_index_next(r->index, base, &x), 0);
    vv_extent_release(r->index, &x);
    vv_segkey_of(r->topic_id, 2, &x, &k);
    vv_segkey_format(&k, key);
}

static void path_of(struct rig *r, int64_t base, char path[512])
{
    char key[VV_KEY_MAX];
    key_of(r, base, key);
    snprintf(path, 512, "%s/%s", r->bucket, key);
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 1, f);
    fclose(f);
}

static uint8_t *bytes_of(const char *path, size_t *n)
{
    uint8_t *p = NULL;
    assert_int_equal(vv_fs_read_file(&vv_env_posix, path, 1u << 20, &p, n), 0);
    return p;
}

static void passes(struct rig *r, uint64_t n)
{
    uint64_t until = r->tier->scrub.passes + n;
    for (int i = 0; i < 2000 && r->tier->scrub.passes < until; i++) {
        rig_run(r);
        vv_tier_hurry(r->tier);
        rig_advance(500);
    }
    assert_true(r->tier->scrub.passes >= until);
}

static void healthy_data_is_left_alone(void **state)
{
    struct rig *r = *state;
    uint64_t bytes = 0;
    for (int i = 0; i < 10; i++) bytes += rig_seal(r, 40, 1000)->n;
    rig_settle(r);
    uint64_t puts = r->store->stats.calls[VV_OBJ_PUT];
    uint64_t local = r->tier->scrub.bytes[0], remote = r->tier->scrub.bytes[1];
    passes(r, 2);
    assert_true(r->tier->scrub.bytes[0] - local >= bytes);
    assert_true(r->tier->scrub.bytes[1] - remote >= bytes);
    assert_int_equal(r->tier->scrub.damages, 0);
    assert_true(r->store->stats.calls[VV_OBJ_PUT] - puts < 30); /* renewals of the claim */
    assert_int_equal(rig_state(r, 0), VV_EXTENT_BOTH);
    assert_true(r->tier->scrub.last_pass_ms > 0);
}

static void local_rot_is_mended_from_the_bucket(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 3; i++) rig_seal(r, 40, 1000);
    rig_settle(r);
    r->log.v[1]->p[3333] ^= 4;
    passes(r, 2);
    assert_int_equal(rig_state(r, r->log.v[0]->base), VV_EXTENT_BOTH);
    assert_int_equal(rig_state(r, r->log.v[1]->base), VV_EXTENT_REMOTE); /* read from the bucket from now on */
    assert_true(r->log.v[1]->dropped);
    assert_int_equal(r->tier->scrub.damages, 1);
    assert_int_equal(r->tier->scrub.mended, 1);
}

static void a_damaged_head_is_mended(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct vv_manifest m = {0};
    struct vv_manifest_where w;
    char key[VV_KEY_MAX], path[512];
    for (int i = 0; i < 3; i++) rig_seal(r, 4, 1000);
    rig_settle(r);
    vv_key_head(r->topic_id, 2, key);
    snprintf(path, sizeof path, "%s/%s", r->bucket, key);
    flip(path, 150);
    passes(r, 2);
    assert_int_equal(r->tier->scrub.damages, 1);
    assert_int_equal(r->tier->scrub.mended, 1);
    vv_tier_where(r->part, &w);
    rig_ok(vv_manifest_load(&m, &w, NULL, NULL, &e), &e);
    assert_int_equal(m.next_offset, r->log.end);
    vv_manifest_release(&m);
}

static void remote_rot_is_mended_from_the_disk(void **state)
{
    struct rig *r = *state;
    char path[3][512];
    size_t n[3], m;
    uint8_t *was[3];
    for (int i = 0; i < 4; i++) rig_seal(r, 40, 1000);
    rig_settle(r);
    for (int i = 0; i < 3; i++) {
        path_of(r, r->log.v[i]->base, path[i]);
        was[i] = bytes_of(path[i], &n[i]);
    }
    flip(path[0], 5000);                    /* a block */
    flip(path[1], (long)n[1] - 60);         /* the footer */
    assert_int_equal(unlink(path[2]), 0);   /* all of it */
    passes(r, 2);
    for (int i = 0; i < 3; i++) {
        uint8_t *now = bytes_of(path[i], &m);
        assert_int_equal(m, n[i]);
        assert_memory_equal(now, was[i], r->log.v[i]->n);
        free(now);
        free(was[i]);
        assert_int_equal(rig_state(r, r->log.v[i]->base), VV_EXTENT_BOTH);
    }
    assert_int_equal(r->tier->scrub.damages, 3);
    assert_int_equal(r->tier->scrub.mended, 3);
}

/* The log start moved on since the upload: the footer says less, the object keeps its size, for the index says where the footer lies. */
static void a_mended_object_keeps_its_size(void **state)
{
    struct rig *r = *state;
    char path[512];
    size_t n, m;
    for (int i = 0; i < 4; i++) rig_seal(r, 40, 1000);
    for (int i = 0; i < 8; i++) rig_aborted[i] = (struct vv_aborted){i, r->log.v[2]->base, r->log.v[2]->base + 5, r->log.v[2]->base};
    rig_aborted_n = 1;
    rig_settle(r);
    path_of(r, r->log.v[2]->base, path);
    uint8_t *was = bytes_of(path, &n);
    flip(path, 77);
    rig_aborted_n = 8; /* more to say than there is room: not mended, and said so */
    passes(r, 1);
    assert_int_equal(r->tier->scrub.mended, 0);
    assert_true(r->tier->scrub.damages >= 1);
    rig_aborted_n = 0;
    passes(r, 2);
    assert_int_equal(r->tier->scrub.mended, 1);
    uint8_t *now = bytes_of(path, &m);
    assert_int_equal(n, m);
    free(now);
    free(was);
}

static void what_has_no_other_copy_is_told(void **state)
{
    struct rig *r = *state;
    char path[512];
    for (int i = 0; i < 3; i++) rig_seal(r, 40, 1000);
    rig_settle(r);
    assert_int_equal(vv_tier_part_drop_local(r->part, r->log.v[1]->base), 0);
    path_of(r, r->log.v[1]->base, path);
    flip(path, 100);
    r->limit = 0; /* nothing more goes up */
    rig_seal(r, 40, 1000)->p[10] ^= 1;
    r->log.v[0]->p[9] ^= 1; /* both sides of one */
    path_of(r, r->log.v[0]->base, path);
    flip(path, 30000);
    passes(r, 1);
    assert_true(r->tier->scrub.damages >= 4);
    assert_int_equal(r->tier->scrub.mended, 0);
    assert_int_equal(rig_state(r, r->log.v[0]->base), VV_EXTENT_BOTH); /* its good blocks are still served */
    assert_int_equal(rig_state(r, r->log.v[1]->base), VV_EXTENT_REMOTE);
    assert_false(r->log.v[3]->dropped);
}

/* A store that is away is no damage, and the pass goes on where it was, also after a crash. */
static void away_is_no_damage(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 6; i++) rig_seal(r, 40, 1000);
    rig_settle(r);
    passes(r, 1);
    struct vv_objfault_rule rule = {.op = VV_OBJ_GET, .key_part = "/v1/t/", .action = VV_FAULT_FAIL};
    rule.key_part = ".seg";
    vv_objfault_add(r->store, &rule);
    rig_advance(2000);
    for (int i = 0; i < 20; i++) {
        rig_run(r);
        rig_advance(3000);
    }
    assert_int_equal(r->tier->scrub.damages, 0);
    vv_scrub_save(r->tier);
    int64_t base = r->tier->scrub.base, last = r->tier->scrub.last_pass_ms;
    rig_crash(r);
    vv_objfault_clear(r->store);
    rig_open(r);
    vv_scrub_step(r->tier);
    assert_true(r->tier->scrub.base >= base);
    assert_int_equal(r->tier->scrub.last_pass_ms, last);
    passes(r, 1);
    assert_int_equal(r->tier->scrub.damages, 0);
}

/* The budget: so many bytes a second, and not one more than a segment beyond. */
static void the_budget_holds(void **state)
{
    struct rig *r = *state;
    r->config.scrub_bytes_per_s = r->config.scrub_local_bytes_per_s = 10000;
    vv_tier_configure(r->tier, &r->config);
    for (int i = 0; i < 10; i++) rig_seal(r, 40, 1000);
    rig_run(r);
    uint64_t before = r->tier->scrub.bytes[0];
    for (int i = 0; i < 100; i++) {
        rig_run(r);
        rig_advance(100);
    }
    assert_true(r->tier->scrub.bytes[0] - before <= 10 * 10000 + 2 * 40000);
    assert_true(r->tier->scrub.bytes[0] - before >= 40000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(healthy_data_is_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(local_rot_is_mended_from_the_bucket, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_head_is_mended, setup, teardown),
        cmocka_unit_test_setup_teardown(remote_rot_is_mended_from_the_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(a_mended_object_keeps_its_size, setup, teardown),
        cmocka_unit_test_setup_teardown(what_has_no_other_copy_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(away_is_no_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(the_budget_holds, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
