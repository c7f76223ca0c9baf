/* A bucket moves to another store: copies are proven, and nothing is switched over that was not copied whole. */
#include "tiering_rig.h"

#include "copy.h"
#include "obj_pair.h"
#include "pace.h"

struct move {
    struct rig *r;
    struct vv_objstore *to; /* where it goes, a second handle: the migration closes its own */
    char url[160];
};

static struct vv_objstore *open_to(struct move *m)
{
    struct vv_objstore_config sc = {.inline_async = true, .keys_file = m->r->keys};
    struct vv_objstore *s;
    struct vv_error e = {0};
    rig_ok(vv_objstore_open(m->url, &sc, &rig_env, &s, &e), &e);
    return s;
}

static int setup(void **state)
{
    struct move *m = calloc(1, sizeof *m);
    struct rig *r = m->r = rig_new();
    struct vv_objstore *pair;
    assert_int_equal(vv_objpair_open(r->store, NULL, &pair), 0);
    r->store = pair;
    snprintf(m->url, sizeof m->url, "fs:%s/moved", r->dir);
    m->to = open_to(m);
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    struct move *m = *state;
    vv_objstore_close(m->to);
    rig_free(m->r);
    free(m);
    return 0;
}

static void begin(struct move *m)
{
    struct vv_error e = {0};
    struct vv_tier_migration o = {.to = open_to(m)};
    rig_ok(vv_tier_migrate(m->r->tier, &o, &e), &e);
}

static enum vv_migrate_state ended(struct move *m)
{
    struct vv_tier_stats s = {0};
    while (s.migrate_state != VV_MIGRATE_DONE && s.migrate_state != VV_MIGRATE_FAILED) {
        usleep(1000);
        vv_tier_stats(m->r->tier, &s);
    }
    return s.migrate_state;
}

static enum vv_migrate_state migrate(struct move *m)
{
    begin(m);
    return ended(m);
}

static void key_at(struct rig *r, int64_t base, struct vv_segkey *k, char key[VV_KEY_MAX])
{
    struct vv_extent x;
    assert_int_equal(vv_index_next(r->index, base, &x), 0);
    vv_extent_release(r->index, &x);
    vv_segkey_of(r->topic_id, 2, &x, k);
    vv_segkey_format(k, key);
}

static void everything_moves(void **state)
{
    struct move *m = *state;
    struct rig *r = m->r;
    struct vv_objinfo info;
    struct vv_root root;
    struct vv_error e = {0};
    struct vv_segkey k;
    char key[VV_KEY_MAX];
    rig_open(r);
    for (int i = 0; i < 5; i++) rig_seal(r, 2, 50);
    rig_settle(r);
    struct vv_objstore *from = vv_objpair_first(r->store);
    assert_int_equal(migrate(m), VV_MIGRATE_DONE);
    for (int64_t base = 0; base < 100; base += 20) {
        key_at(r, base, &k, key);
        rig_ok(vv_objstore_head(m->to, key, 0, &info, &e), &e);
    }
    rig_ok(vv_root_get(from, 0, &root, &e), &e);
    assert_string_equal(root.moved_to, m->to->url);
    vv_root_release(&root);
    rig_seal(r, 2, 50);
    rig_settle(r);
    assert_int_equal(rig_segments(r), 6); /* the pair's first store is the new one */
}

/* A damaged page of the index is no end of the log: without the rest of its history the bucket stays where it is. */
static void an_index_that_cannot_be_read_stops_it(void **state)
{
    struct move *m = *state;
    struct rig *r = m->r;
    struct vv_error e = {0};
    struct vv_root root;
    char path[256];
    rig_open_index(r, r->part_dir);
    for (int64_t i = 0; i < 1200; i++) {
        struct vv_extent x = {.base = i * 10, .last = i * 10 + 9, .nonce = (uint64_t)i + 1, .bytes = 100, .object_bytes = 200};
        assert_int_equal(vv_index_adopt(r->index, &x), 0);
    }
    assert_int_equal(vv_index_sync(r->index), 0);
    snprintf(path, sizeof path, "%s/varve.extents", r->part_dir);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    for (int i = 0; i < 1200 * 64; i++) fputc(0, f);
    fclose(f);
    rig_open_tier(r);
    rig_open_part(r);
    struct vv_objstore *from = vv_objpair_first(r->store);
    assert_int_equal(migrate(m), VV_MIGRATE_FAILED);
    rig_ok(vv_root_get(from, 0, &root, &e), &e);
    assert_string_equal(root.moved_to, "");
    vv_root_release(&root);
    assert_ptr_equal(vv_objpair_first(r->store), from);
}

/* Small objects mostly wait for the store: so they wait together. Big ones do not fit into one round. */
static void small_objects_are_copied_at_the_same_time(void **state)
{
    struct move *m = *state;
    struct rig *r = m->r;
    struct vv_error e = {0};
    struct vv_objinfo info;
    struct vv_segkey k;
    char key[VV_KEY_MAX];
    rig_open(r);
    for (int i = 0; i < 20; i++) rig_seal(r, 1, 50);
    rig_settle(r);
    struct vv_objstore *from = vv_objpair_first(r->store);
    struct vv_objfault_rule stall = {.op = VV_OBJ_GET, .key_part = "v1/t/", .count = VV_ROUND_MAX, .action = VV_FAULT_STALL};
    vv_objfault_add(from, &stall);
    begin(m);
    while (vv_objfault_stalled(from) < VV_ROUND_MAX) usleep(1000);
    vv_objfault_clear(from);
    assert_int_equal(ended(m), VV_MIGRATE_DONE);
    for (int64_t base = 0; base < 200; base += 10) {
        key_at(r, base, &k, key);
        rig_ok(vv_objstore_head(m->to, key, 0, &info, &e), &e);
    }
    struct vv_pace p;
    struct vv_round round;
    vv_pace_init(&p, r->tier);
    vv_round_begin(&round, &p);
    for (int i = 0; i < 2; i++) vv_round_add(&round, r->part, false, &(struct vv_extent){.object_bytes = VV_ROUND_BYTES / 2});
    assert_true(vv_round_full(&round));
    r->config.hydrate_bytes_per_s = 1000; /* puts have deadlines: what shares little bandwidth is little */
    vv_tier_configure(r->tier, &r->config);
    vv_round_begin(&round, &p);
    vv_round_add(&round, r->part, false, &(struct vv_extent){.object_bytes = 8000});
    assert_true(vv_round_full(&round));
    vv_pace_release(&p);
}

/* An earlier copy whose footer is good and whose blocks are not: with tier.verify=full it is found and made again. */
static void a_bad_copy_is_made_again(void **state)
{
    struct move *m = *state;
    struct rig *r = m->r;
    struct vv_segkey k;
    struct vv_slice s = {0}, again = {0};
    struct vv_error e = {0};
    char key[VV_KEY_MAX];
    bool source_said;
    rig_open(r);
    rig_seal(r, 2, 5000);
    rig_settle(r);
    key_at(r, 0, &k, key);
    rig_ok(vv_objstore_get_whole(r->store, key, 1 << 20, 0, &s, NULL, &e), &e);
    uint8_t *bad = malloc(s.n);
    memcpy(bad, s.p, s.n);
    bad[10] ^= 1;
    rig_ok(vv_objstore_put_mem(m->to, key, bad, s.n, NULL, 0, NULL, &e), &e);
    struct vv_copy c = {.env = &rig_env, .from = r->store, .to = m->to, .keys = r->store->keys, .clusters = "cluster-1", .full = true};
    rig_ok(vv_copy_segment(&c, &k, 1000, &source_said, &e), &e);
    rig_ok(vv_objstore_get_whole(m->to, key, 1 << 20, 0, &again, NULL, &e), &e);
    assert_int_equal(again.n, s.n);
    assert_memory_equal(again.p, s.p, s.n);
    assert_int_equal(vv_copy_segment(&c, &k, 1000, &source_said, &e), 1);
    vv_buf_unref(again.buf);
    vv_buf_unref(s.buf);
    free(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(an_index_that_cannot_be_read_stops_it, setup, teardown),
        cmocka_unit_test_setup_teardown(small_objects_are_copied_at_the_same_time, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bad_copy_is_made_again, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
