/* Manifest, deletion and restore: what the bucket knows, when objects go, and that an empty directory gets everything back. */
#include "tiering_rig.h"
#include "jsoncrc.h"
#include "root.h"

static int setup(void **state)
{
    struct rig *r = rig_new();
    rig_open(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static void seal_many(struct rig *r, int n)
{
    for (int i = 0; i < n; i++) rig_seal(r, 1, 50);
    rig_run(r);
}

static uint64_t puts_so_far(struct rig *r)
{
    struct vv_tier_stats s;
    vv_tier_stats(r->tier, &s);
    return s.puts;
}

/* The whole index of the partition again from nothing but the bucket. */
struct back { struct vv_index *ix; struct vv_tier_restored out; char dir[192]; };

static int restore(struct rig *r, struct back *b, struct vv_error *e)
{
    static int n;
    *b = (struct back){0};
    snprintf(b->dir, sizeof b->dir, "%s/back%d", r->dir, n++);
    rig_ok(vv_index_open(&rig_env, b->dir, NULL, &b->ix, e), e);
    return vv_tier_restore_part(r->tier, r->topic_id, NULL, 2, b->ix, &b->out, e);
}

static void back_free(struct back *b)
{
    vv_index_close(b->ix);
    free(b->out.epochs);
    free(b->out.snapshot);
}

/* Every live extent of the original is there, and nothing else. */
static void same_as(struct rig *r, struct back *b)
{
    struct vv_extent x, y;
    int64_t at = 0, bt = 0;
    size_t n = 0;
    struct vv_index_summary s;
    vv_index_summary(r->index, &s);
    while (!vv_index_find(r->index, VV_MAX(at, s.log_start), &x)) {
        vv_extent_release(r->index, &x);
        assert_int_equal(vv_index_find(b->ix, VV_MAX(bt, b->out.log_start), &y), 0);
        assert_int_equal(x.base, y.base);
        assert_int_equal(x.last, y.last);
        assert_int_equal(x.nonce, y.nonce);
        assert_int_equal(x.epoch, y.epoch);
        assert_int_equal(x.bytes, y.bytes);
        assert_int_equal(x.object_bytes, y.object_bytes);
        assert_int_equal(x.max_ts, y.max_ts);
        assert_int_equal(y.state, VV_EXTENT_REMOTE);
        at = bt = x.last + 1;
        n++;
    }
    assert_int_equal(vv_index_find(b->ix, bt, &y), VV_E_NOENT);
    assert_int_equal(b->out.log_start, s.log_start);
    assert_int_equal(b->out.next_offset, VV_MAX(at, s.log_start));
}

static void check_restore(struct rig *r)
{
    struct back b;
    struct vv_error e = {0};
    rig_ok(restore(r, &b, &e), &e);
    same_as(r, &b);
    back_free(&b);
}

static void manifest_follows_in_batches(void **state)
{
    struct rig *r = *state;
    rig_settle(r);
    uint64_t before = puts_so_far(r);
    for (int i = 0; i < 160; i++) {
        rig_seal(r, 1, 50);
        rig_run(r);
    }
    uint64_t used = puts_so_far(r) - before;
    assert_true(used <= 160 * 11 / 10 + 1); /* 1.1 PUTs per segment; topic.json once */
    check_restore(r);
}

static void pages_fold(void **state)
{
    struct rig *r = *state;
    char prefix[VV_KEY_MAX];
    struct back b;
    struct vv_error e = {0};
    seal_many(r, 700);
    rig_settle(r);
    vv_key_manifest_prefix(r->topic_id, prefix);
    assert_int_equal(rig_count(r, prefix), 3); /* head and two pages */
    check_restore(r);
    /* A page with other content than its name is refused, not believed. */
    struct vv_objlist l = {0};
    rig_ok(vv_objstore_list(r->store, prefix, NULL, 0, 0, &l, &e), &e);
    assert_int_equal(l.count, 3);
    assert_non_null(strstr(l.v[0].key, "/1-"));
    struct vv_slice s = {0};
    rig_ok(vv_objstore_get_whole(r->store, l.v[0].key, 1 << 20, 0, &s, NULL, &e), &e);
    rig_ok(vv_objstore_put_mem(r->store, l.v[0].key, s.p, s.n - 1, NULL, 0, NULL, &e), &e);
    assert_int_equal(restore(r, &b, &e), VV_E_CORRUPT);
    back_free(&b);
    rig_ok(vv_objstore_put_mem(r->store, l.v[0].key, s.p, s.n, NULL, 0, NULL, &e), &e);
    vv_buf_unref(s.buf);
    vv_objlist_release(&l);
    check_restore(r);
}

static void roll_forward_after_a_crash(void **state)
{
    struct rig *r = *state;
    struct back b;
    struct vv_error e = {0};
    seal_many(r, 3); /* no manifest yet at all */
    check_restore(r);
    rig_settle(r);
    seal_many(r, 5); /* the manifest does not know these */
    check_restore(r);
    rig_crash(r);
    rig_open(r);
    check_restore(r);
    rig_ok(restore(r, &b, &e), &e);
    assert_int_equal(b.out.epoch_count, 1);
    assert_int_equal(b.out.epochs[0].epoch, 3);
    assert_memory_equal(b.out.snapshot, "snap80", 6);
    back_free(&b);
}

static void roll_forward_stops_at_a_hole_and_at_foreign_bytes(void **state)
{
    struct rig *r = *state;
    struct back b;
    struct vv_error e = {0};
    struct vv_extent x;
    struct vv_segkey k;
    char key[VV_KEY_MAX];
    seal_many(r, 2);
    rig_settle(r);
    seal_many(r, 3); /* 20, 30, 40 */
    assert_int_equal(vv_index_find(r->index, 30, &x), 0);
    vv_extent_release(r->index, &x);
    vv_segkey_of(r->topic_id, 2, &x, &k);
    k.nonce++; /* a second candidate for 30 that holds other bytes than its key says */
    vv_segkey_format(&k, key);
    rig_ok(vv_objstore_put_mem(r->store, key, "not a segment", 13, NULL, 0, NULL, &e), &e);
    check_restore(r);
    k.nonce--;
    vv_segkey_format(&k, key);
    rig_ok(vv_objstore_delete(r->store, key, 0, &e), &e); /* a hole */
    rig_ok(restore(r, &b, &e), &e);
    assert_int_equal(b.out.next_offset, 30);
    back_free(&b);
}

/* Deleted before it was uploaded: what follows is the log, for its footers say where the log starts. */
static void roll_forward_passes_a_deleted_hole(void **state)
{
    struct rig *r = *state;
    struct back b;
    struct vv_error e = {0};
    seal_many(r, 2);
    rig_settle(r);
    r->limit = r->log.end;
    seal_many(r, 1); /* 20: not uploaded */
    rig_run(r);
    assert_int_equal(vv_index_set_log_start(r->index, 30), 0);
    vv_tier_part_log_start_moved(r->part);
    r->limit = INT64_MAX;
    seal_many(r, 2); /* 30, 40 */
    rig_run(r);
    assert_int_equal(rig_state(r, 40), VV_EXTENT_BOTH);
    rig_ok(restore(r, &b, &e), &e); /* the manifest knows nothing of all this yet */
    assert_int_equal(b.out.log_start, 30);
    assert_int_equal(b.out.next_offset, 50);
    back_free(&b);
}

static void deletion_is_a_protocol(void **state)
{
    struct rig *r = *state;
    seal_many(r, 6);
    rig_settle(r);
    assert_int_equal(vv_tier_part_drop_local(r->part, 0), 0);
    assert_int_equal(vv_index_set_log_start(r->index, 35), 0);
    vv_tier_part_log_start_moved(r->part);
    rig_run(r);
    assert_int_equal(rig_state(r, 20), VV_EXTENT_TOMBSTONED);
    assert_int_equal(rig_state(r, 30), VV_EXTENT_BOTH); /* holds 35 */
    assert_true(r->log.v[1]->dropped);
    assert_false(r->log.v[3]->dropped);
    assert_int_equal(rig_segments(r), 6); /* the grace */
    rig_advance(30000);
    vv_tier_hurry(r->tier);
    rig_run(r);
    assert_int_equal(rig_segments(r), 6);
    check_restore(r);
    rig_advance(31000);
    vv_tier_hurry(r->tier);
    rig_run(r);
    assert_int_equal(rig_segments(r), 3);
    check_restore(r);
    struct vv_extent x;
    assert_int_equal(vv_index_next(r->index, 0, &x), 0);
    assert_int_equal(x.base, 30);
    vv_extent_release(r->index, &x);
}

static void deletion_survives_crashes_and_failures(void **state)
{
    struct rig *r = *state;
    seal_many(r, 6);
    rig_settle(r);
    assert_int_equal(vv_index_set_log_start(r->index, 60), 0); /* everything */
    rig_crash(r);                                              /* before anything was tombstoned */
    rig_open(r);
    rig_run(r);
    assert_int_equal(rig_state(r, 50), VV_EXTENT_TOMBSTONED);
    vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = VV_OBJ_DELETE_MANY, .action = VV_FAULT_FAIL, .count = 1});
    rig_advance(61000);
    vv_tier_hurry(r->tier);
    vv_tier_step(r->tier);
    rig_run(r);
    assert_int_equal(rig_segments(r), 6);
    assert_int_equal(rig_state(r, 50), VV_EXTENT_DELETING);
    rig_crash(r);
    rig_open(r);
    rig_settle(r);
    assert_int_equal(rig_segments(r), 0);
    struct vv_extent x;
    assert_int_equal(vv_index_next(r->index, 0, &x), VV_E_NOENT);
    check_restore(r);
    rig_seal(r, 1, 50); /* life goes on */
    rig_settle(r);
    check_restore(r);
}

static void expired_before_upload(void **state)
{
    struct rig *r = *state;
    vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = VV_OBJ_PUT, .key_part = ".seg", .action = VV_FAULT_LOSE_REPLY, .count = 1});
    for (int i = 0; i < 3; i++) rig_seal(r, 1, 50);
    vv_tier_step(r->tier);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_UPLOADING); /* its object is there, unknown to us */
    assert_int_equal(vv_index_set_log_start(r->index, 20), 0);
    vv_tier_part_log_start_moved(r->part);
    rig_settle(r);
    struct vv_extent x;
    assert_int_equal(vv_index_next(r->index, 0, &x), 0);
    assert_int_equal(x.base, 20);
    vv_extent_release(r->index, &x);
    assert_true(r->log.v[0]->dropped && r->log.v[1]->dropped);
    assert_int_equal(rig_segments(r), 1); /* no orphan */
    check_restore(r);
}

static void a_jumping_clock_deletes_nothing(void **state)
{
    struct rig *r = *state;
    seal_many(r, 2);
    rig_settle(r);
    assert_int_equal(vv_index_set_log_start(r->index, 20), 0);
    vv_tier_part_log_start_moved(r->part);
    rig_run(r);
    rig_wall_ms += 10LL * 365 * 86400 * 1000;
    for (int i = 0; i < 10; i++) {
        vv_tier_hurry(r->tier);
        rig_run(r);
        rig_mono_us += 1000000;
    }
    assert_int_equal(rig_segments(r), 2);
    rig_wall_ms -= 10LL * 365 * 86400 * 1000;
    rig_advance(120000);
    vv_tier_hurry(r->tier);
    rig_run(r);
    rig_settle(r);
    assert_int_equal(rig_segments(r), 0);
}

static void topic_deletion(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct back b;
    seal_many(r, 300);
    rig_settle(r);
    vv_tier_part_close(r->part);
    r->part = NULL;
    rig_ok(vv_tier_delete_topic(r->tier, r->topic_id, "flights", 0, &e), &e);
    rig_settle(r); /* 80 s */
    vv_tier_stop(r->tier, 0);
    vv_tier_free(r->tier);
    rig_open_tier(r);
    rig_settle(r);
    assert_int_equal(rig_count(r, "v1/t/"), 0);
    assert_int_equal(rig_count(r, "v1/m/"), 0);
    assert_int_equal(r->tier->claim.deleted_count, 0);
    r->topic_id.b[0]++; /* the name again, another topic */
    r->log.n = r->log.n; /* its segments stay with the rig */
    assert_int_equal(restore(r, &b, &e), 0);
    assert_int_equal(b.out.next_offset, 0);
    back_free(&b);
}

/* Two objects a second: segments first, then a whole topic, a second at a time. */
static void deletions_keep_to_their_rate(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct vv_tier_config c = r->config;
    seal_many(r, 9);
    rig_settle(r);
    c.delete_objects_per_s = 2;
    vv_tier_configure(r->tier, &c);
    assert_int_equal(vv_index_set_log_start(r->index, 50), 0);
    vv_tier_part_log_start_moved(r->part);
    rig_run(r);
    rig_advance(61000);
    for (size_t left = 7; left >= 5; left -= 2) { /* of 5 that are dead */
        vv_tier_hurry(r->tier);
        rig_run(r);
        vv_tier_hurry(r->tier);
        rig_run(r); /* looking again does not make more of it */
        assert_int_equal(rig_segments(r), left);
        rig_advance(1001);
    }
    rig_run(r);
    assert_int_equal(rig_segments(r), 4);
    vv_tier_part_close(r->part);
    r->part = NULL;
    rig_ok(vv_tier_delete_topic(r->tier, r->topic_id, "flights", 0, &e), &e);
    rig_advance(61000);
    for (int i = 0; i < 5; i++) {
        vv_tier_hurry(r->tier);
        rig_run(r);
    }
    assert_int_equal(rig_segments(r), 2);
    assert_int_equal(r->tier->claim.deleted_count, 1); /* stays on the list until all is gone */
    c.delete_objects_per_s = 0;
    vv_tier_configure(r->tier, &c);
    rig_settle(r);
    assert_int_equal(rig_count(r, "v1/t/"), 0);
    assert_int_equal(r->tier->claim.deleted_count, 0);
    r->topic_id.b[0]++;
    rig_open_part(r);
}

static void deleted_topic_is_not_restored(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct back b;
    seal_many(r, 2);
    rig_settle(r);
    vv_tier_part_close(r->part);
    r->part = NULL;
    rig_ok(vv_tier_delete_topic(r->tier, r->topic_id, "flights", 0, &e), &e);
    rig_crash(r); /* the list is in the bucket */
    rig_open_index(r, r->part_dir);
    rig_open_tier(r);
    assert_int_equal(r->tier->claim.deleted_count, 1);
    assert_int_equal(restore(r, &b, &e), VV_E_NOENT);
    back_free(&b);
    assert_int_equal(rig_segments(r), 2); /* within the grace an operator can still have it */
}

static void old_local_data_is_refused(void **state)
{
    struct rig *r = *state;
    struct vv_index *newer = r->index;
    struct vv_error e = {0};
    seal_many(r, 4);
    rig_settle(r);
    struct vv_manifest m = {0};
    struct vv_manifest_where w;
    struct back b;
    vv_tier_where(r->part, &w);
    snprintf(b.dir, sizeof b.dir, "%s/old", r->dir);
    rig_ok(vv_index_open(&rig_env, b.dir, NULL, &b.ix, &e), &e);
    assert_int_equal(vv_manifest_commit(&m, &w, b.ix, 0, &e), VV_E_STATE);
    assert_non_null(strstr(e.text, "restore"));
    assert_int_equal(vv_manifest_commit(&m, &w, newer, 0, &e), 0);
    w.writer_epoch--;
    vv_manifest_release(&m);
    w.writer_epoch = 0;
    assert_int_equal(vv_manifest_commit(&m, &w, newer, 0, &e), VV_E_CONFLICT);
    vv_manifest_release(&m);
    vv_index_close(b.ix);
}

struct long_walk {
    struct vv_manifest_where w;
    pthread_t thread;
    int64_t next; /* expected base */
    int err;
    struct vv_error e;
};

static int on_walked(void *ctx, const struct vv_extent *x)
{
    struct long_walk *l = ctx;
    assert_int_equal(x->base, l->next);
    l->next = x->last + 1;
    return VV_OK;
}

static void *walk_long(void *arg)
{
    struct long_walk *l = arg;
    struct vv_manifest m = {0};
    l->next = 0;
    l->err = vv_manifest_walk(&m, &l->w, on_walked, l, &l->e);
    vv_manifest_release(&m);
    return NULL;
}

/* Eleven pages, eight at a time, told in order; one that is missing ends it where it would begin. */
static void pages_are_read_at_the_same_time(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct vv_manifest m = {0};
    struct long_walk l = {0};
    struct back b;
    char key[VV_KEY_MAX];
    snprintf(b.dir, sizeof b.dir, "%s/long", r->dir);
    rig_ok(vv_index_open(&rig_env, b.dir, NULL, &b.ix, &e), &e);
    for (int64_t i = 0; i < 12 * VV_MANIFEST_FANOUT; i++) {
        struct vv_extent x = {.base = i * 10, .last = i * 10 + 9, .nonce = (uint64_t)i + 1, .bytes = 100, .object_bytes = 200,
                              .state = VV_EXTENT_REMOTE};
        assert_int_equal(vv_index_adopt(b.ix, &x), 0);
    }
    vv_tier_where(r->part, &l.w);
    l.w.partition = 9;
    l.w.pages = 8;
    rig_ok(vv_manifest_commit(&m, &l.w, b.ix, 0, &e), &e);
    assert_true(m.level[1].n >= 11);
    vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = VV_OBJ_GET, .key_part = "v1/m/", .from = 2, .action = VV_FAULT_STALL});
    assert_int_equal(pthread_create(&l.thread, NULL, walk_long, &l), 0);
    while (vv_objfault_stalled(r->store) < 8) usleep(1000);
    vv_objfault_clear(r->store);
    pthread_join(l.thread, NULL);
    rig_ok(l.err, &l.e);
    assert_int_equal(l.next, 12 * VV_MANIFEST_FANOUT * 10);
    vv_key_page(r->topic_id, 9, 1, m.level[1].v[3].sha256, key);
    rig_ok(vv_objstore_delete(r->store, key, 0, &e), &e);
    walk_long(&l);
    assert_int_equal(l.err, VV_E_NOENT);
    assert_non_null(strstr(l.e.text, m.level[1].v[3].sha256));
    assert_int_equal(l.next, m.level[1].v[3].base);
    vv_manifest_release(&m);
    vv_index_close(b.ix);
}

static void head_commits_survive_lost_replies(void **state)
{
    struct rig *r = *state;
    vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = VV_OBJ_PUT, .key_part = "v1/m/", .percent = 40,
                                                         .action = VV_FAULT_LOSE_REPLY});
    vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = VV_OBJ_PUT, .key_part = "v1/m/", .percent = 40, .action = VV_FAULT_FAIL});
    for (int i = 0; i < 10; i++) {
        seal_many(r, 60);
        rig_settle(r);
    }
    vv_objfault_clear(r->store);
    rig_settle(r);
    assert_int_equal(r->part->dirty, 0);
    check_restore(r);
}

static void snapshot(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    char *json;
    size_t n;
    assert_int_equal(vv_tier_get_snapshot(r->tier, &json, &n, &e), VV_E_NOENT);
    rig_ok(vv_tier_put_snapshot(r->tier, "{\"a\":1}", 7, true, &e), &e);
    rig_ok(vv_tier_get_snapshot(r->tier, &json, &n, &e), &e);
    assert_string_equal(json, "{\"a\":1}");
    free(json);
}

/* ---- objects that rot under a fixed name ---- */

static uint8_t *get(struct rig *r, const char *key, size_t *n)
{
    struct vv_slice s = {0};
    struct vv_error e = {0};
    rig_ok(vv_objstore_get_whole(r->store, key, 1 << 20, 0, &s, NULL, &e), &e);
    uint8_t *p = malloc(s.n + 1);
    memcpy(p, s.p, s.n);
    p[s.n] = 0;
    *n = s.n;
    vv_buf_unref(s.buf);
    return p;
}

static void put(struct rig *r, const char *key, const uint8_t *p, size_t n)
{
    struct vv_error e = {0};
    rig_ok(vv_objstore_put_mem(r->store, key, (const char *)p, n, NULL, 0, NULL, &e), &e);
}

struct seen { struct vv_manifest m; struct vv_extent v[16]; size_t n; };

static int see(void *ctx, const struct vv_extent *x)
{
    struct seen *s = ctx;
    assert_true(s->n < VV_COUNT(s->v));
    s->v[s->n++] = *x;
    return 0;
}

static int look(struct rig *r, struct seen *s, struct vv_error *e)
{
    struct vv_manifest_where w;
    vv_tier_where(r->part, &w);
    *s = (struct seen){0};
    return vv_manifest_load(&s->m, &w, see, s, e);
}

/* Every byte of a head, flipped: told by name, or it changed nothing that is said. */
static void every_byte_of_a_head(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct seen was, now;
    char key[VV_KEY_MAX];
    size_t n, believed = 0;
    seal_many(r, 4);
    rig_settle(r);
    vv_key_head(r->topic_id, 2, key);
    uint8_t *p = get(r, key, &n);
    rig_ok(look(r, &was, &e), &e);
    assert_int_equal(was.n, 4);
    for (size_t i = 0; i < n; i++) {
        for (unsigned bit = 1; bit < 256; bit <<= 4) {
            p[i] ^= (uint8_t)bit;
            put(r, key, p, n);
            p[i] ^= (uint8_t)bit;
            e.text[0] = 0;
            int err = look(r, &now, &e);
            if (err) {
                assert_int_equal(err, VV_E_CORRUPT);
                assert_non_null(strstr(e.text, key));
            } else { /* the name of the checksum: what was said is what was meant */
                believed++;
                assert_true(i >= n - 20);
                assert_memory_equal(now.v, was.v, sizeof was.v);
                assert_int_equal(now.m.revision, was.m.revision);
                assert_int_equal(now.m.next_offset, was.m.next_offset);
            }
            vv_manifest_release(&now.m);
        }
    }
    assert_true(believed < 10 * 2);
    for (size_t cut = 0; cut < n; cut += 7) { /* cut short, too */
        put(r, key, p, cut);
        assert_int_equal(look(r, &now, &e), VV_E_CORRUPT);
        vv_manifest_release(&now.m);
    }
    put(r, key, p, n);
    vv_manifest_release(&was.m);
    free(p);
    check_restore(r);
}

static void every_byte_of_the_root(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct vv_root was, now;
    struct vv_uuid gone = {{9}};
    size_t n;
    rig_ok(vv_tier_delete_topic(r->tier, gone, "gone", rig_wall_ms, &e), &e);
    rig_ok(vv_root_get(r->store, 0, &was, &e), &e);
    assert_int_equal(was.deleted_count, 1);
    uint8_t *p = get(r, VV_KEY_ROOT, &n);
    for (size_t i = 0; i < n; i++) {
        for (unsigned bit = 1; bit < 256; bit <<= 4) {
            p[i] ^= (uint8_t)bit;
            put(r, VV_KEY_ROOT, p, n);
            p[i] ^= (uint8_t)bit;
            int err = vv_root_get(r->store, 0, &now, &e);
            if (err) {
                assert_int_equal(err, VV_E_CORRUPT);
                assert_non_null(strstr(e.text, VV_KEY_ROOT));
                assert_non_null(strstr(e.text, "bring an older version of it back"));
                continue;
            }
            assert_true(i >= n - 20);
            assert_string_equal(now.cluster_id, was.cluster_id);
            assert_int_equal(now.writer_epoch, was.writer_epoch);
            assert_int_equal(now.deleted_count, 1);
            assert_memory_equal(&now.deleted[0].id, &gone, sizeof gone);
            vv_root_release(&now);
        }
    }
    p[n / 2] ^= 1; /* nobody starts on such a root, and nothing is written over it */
    put(r, VV_KEY_ROOT, p, n);
    struct vv_tier *other;
    assert_int_equal(vv_tier_open(&rig_env, r->store, &r->config, &r->id, true, &other, &e), VV_E_CORRUPT);
    size_t m;
    uint8_t *q = get(r, VV_KEY_ROOT, &m);
    assert_int_equal(m, n);
    assert_memory_equal(p, q, n);
    p[n / 2] ^= 1;
    put(r, VV_KEY_ROOT, p, n);
    free(p);
    free(q);
    vv_root_release(&was);
}

/* What older versions wrote has no checksum. */
static void without_a_checksum(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct vv_root root;
    char head[VV_KEY_MAX];
    seal_many(r, 3);
    rig_settle(r);
    vv_key_head(r->topic_id, 2, head);
    const char *keys[] = {head, VV_KEY_ROOT};
    for (size_t i = 0; i < VV_COUNT(keys); i++) {
        size_t n;
        uint8_t *p = get(r, keys[i], &n);
        assert_non_null(strstr((char *)p, ", \"crc\": \""));
        vv_jsoncrc_strip((char *)p, &n);
        assert_null(strstr((char *)p, "\"crc\""));
        put(r, keys[i], p, n);
        free(p);
    }
    rig_ok(vv_root_get(r->store, 0, &root, &e), &e);
    vv_root_release(&root);
    check_restore(r);
    rig_crash(r);
    rig_open(r);
    seal_many(r, 2);
    rig_settle(r);
    check_restore(r);
}

static void damage_head(struct rig *r, char key[VV_KEY_MAX])
{
    size_t n;
    vv_key_head(r->topic_id, 2, key);
    uint8_t *p = get(r, key, &n);
    p[n / 2] ^= 1;
    put(r, key, p, n);
    free(p);
}

/* The head of a long history rots while its writer is away, or at work: the next commit writes it anew, tombstones and all. */
static void a_damaged_head_is_written_anew(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct vv_manifest_where w;
    struct vv_manifest m = {0};
    struct back b;
    char key[VV_KEY_MAX];
    r->config.delete_grace_ms = 400000; /* more than a settling: some of it is dead and kept, some gone */
    vv_tier_configure(r->tier, &r->config);
    seal_many(r, 600);
    rig_settle(r);
    int64_t starts[] = {900, 1500};
    for (size_t i = 0; i < VV_COUNT(starts); i++) {
        assert_int_equal(vv_index_set_log_start(r->index, starts[i]), 0);
        vv_tier_part_log_start_moved(r->part);
        rig_settle(r);
        if (!i) rig_advance(300000);
    }
    for (int i = 0; i < 10 && rig_segments(r) == 600; i++) rig_settle(r);
    assert_int_equal(rig_segments(r), 510);
    for (int away = 0; away < 2; away++) {
        damage_head(r, key);
        assert_int_equal(restore(r, &b, &e), VV_E_CORRUPT);
        assert_non_null(strstr(e.text, key));
        back_free(&b);
        if (away) {
            rig_crash(r);
            rig_open(r);
        }
        seal_many(r, 3);
        rig_settle(r);
        check_restore(r);
        vv_tier_where(r->part, &w);
        rig_ok(vv_manifest_load(&m, &w, NULL, NULL, &e), &e);
        assert_int_equal(m.log_start, 1500);
        assert_int_equal(m.deleting_below, 900);
        assert_int_equal(m.next_offset, r->log.end);
        vv_manifest_release(&m);
    }
    assert_int_equal(vv_index_set_log_start(r->index, 1600), 0); /* and it goes on: the dead are deleted when it is time */
    vv_tier_part_log_start_moved(r->part);
    for (int i = 0; i < 10; i++) rig_settle(r);
    assert_int_equal(rig_segments(r), 606 - 160);
    check_restore(r);
}

/* Only the manifest can tell an older data directory: without it nothing is written over what that one does not know. */
static void an_older_directory_writes_no_head_anew(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct vv_segkey k = {.topic_id = r->topic_id, .partition = 2, .base = 40, .last = 49, .epoch = 3, .nonce = 77};
    char key[VV_KEY_MAX], head[VV_KEY_MAX];
    size_t n, m;
    seal_many(r, 3);
    rig_settle(r);
    vv_segkey_format(&k, key);
    put(r, key, (const uint8_t *)"somebody's", 10);
    damage_head(r, head);
    uint8_t *p = get(r, head, &n);
    rig_crash(r);
    rig_open(r);
    seal_many(r, 1);
    rig_settle(r);
    assert_int_equal(vv_keeper_mend_head(r->part, &e), VV_E_STATE);
    assert_non_null(strstr(e.text, key));
    uint8_t *q = get(r, head, &m);
    assert_int_equal(n, m);
    assert_memory_equal(p, q, n);
    free(p);
    free(q);
    rig_ok(vv_objstore_delete(r->store, key, 0, &e), &e);
    rig_settle(r);
    check_restore(r);
}

/* ---- a successor ---- */

static struct vv_tier *take_over(struct rig *r)
{
    struct vv_error e = {0};
    struct vv_tier *other;
    struct vv_tier_identity id = {.cluster_id = "cluster-1", .node_id = 2};
    rig_ok(vv_tier_open(&rig_env, r->store, &r->config, &id, true, &other, &e), &e);
    return other;
}

static void restore_at(struct rig *r, struct vv_tier *t, const char *topic, const char *name, struct back *b)
{
    struct vv_error e = {0};
    *b = (struct back){0};
    snprintf(b->dir, sizeof b->dir, "%s/%s", r->dir, name);
    rig_ok(vv_index_open(&rig_env, b->dir, NULL, &b->ix, &e), &e);
    rig_ok(vv_tier_restore_part(t, r->topic_id, topic, 2, b->ix, &b->out, &e), &e);
}

/* Somebody takes the bucket over, on an empty directory, while we are at work and do not know it: once a partition is restored there, nothing
 * that we upload gets into its manifest, and the log is what the successor has. */
static void the_overtaken_write_no_head(void **state)
{
    for (int stage = 0; stage < 3; stage++) { /* a manifest and objects beyond it; it alone; all of it deleted */
        struct rig *r = *state;
        struct vv_error e = {0};
        struct vv_extent x;
        struct seen was, now;
        struct back b;
        seal_many(r, 4);
        rig_settle(r);
        if (stage == 2) assert_int_equal(vv_index_set_log_start(r->index, r->log.end), 0);
        if (stage == 2) vv_tier_part_log_start_moved(r->part);
        for (int i = 0; stage == 2 && i < 4; i++) rig_settle(r);
        if (!stage) seal_many(r, 2);
        int64_t end = r->log.end;
        struct vv_tier *other = take_over(r);
        restore_at(r, other, "flights", "other", &b);
        assert_int_equal(b.out.next_offset, end);
        back_free(&b);
        rig_ok(look(r, &was, &e), &e);
        assert_int_equal(was.m.writer_epoch, other->claim.writer_epoch);
        assert_int_equal(was.m.next_offset, end);
        seal_many(r, 40); /* a batch of heads' worth, before the next renewal */
        assert_int_equal(rig_state(r, end), VV_EXTENT_BOTH);
        vv_keeper_commit(r->part, 0, &e);
        assert_int_equal(vv_keeper_commit(r->part, 0, &e), VV_E_CONFLICT);
        assert_true(atomic_load(&r->tier->fenced)); /* and it knows */
        rig_ok(look(r, &now, &e), &e);
        assert_string_equal(now.m.sha256, was.m.sha256);
        restore_at(r, other, NULL, "again", &b); /* what was uploaded after that is no part of the log */
        assert_int_equal(b.out.next_offset, end);
        assert_int_equal(vv_index_find(b.ix, end, &x), VV_E_NOENT);
        back_free(&b);
        vv_manifest_release(&was.m);
        vv_manifest_release(&now.m);
        vv_tier_free(other);
        rig_free(r);
        setup(state);
    }
}

static int take_in(void *ctx, const struct vv_extent *x)
{
    return vv_index_adopt(ctx, x);
}

/* It did write one more, between the successor's look and its head: that is seen, and another look takes it in. */
static void a_head_while_it_is_restored(void **state)
{
    struct rig *r = *state;
    struct vv_error e = {0};
    struct vv_manifest_where w;
    struct vv_manifest m = {0};
    struct vv_index *ix;
    struct back b;
    char dir[192];
    seal_many(r, 4);
    rig_settle(r);
    struct vv_tier *other = take_over(r);
    snprintf(dir, sizeof dir, "%s/first", r->dir);
    rig_ok(vv_index_open(&rig_env, dir, NULL, &ix, &e), &e);
    vv_tier_where(r->part, &w);
    w.writer_epoch = other->claim.writer_epoch;
    rig_ok(vv_manifest_walk(&m, &w, take_in, ix, &e), &e);
    seal_many(r, 20);
    rig_ok(vv_keeper_commit(r->part, 0, &e), &e);
    m.taking = true;
    assert_int_equal(vv_manifest_commit(&m, &w, ix, 0, &e), VV_E_CONFLICT);
    vv_manifest_release(&m);
    vv_index_close(ix);
    restore_at(r, other, "flights", "second", &b);
    assert_int_equal(b.out.next_offset, r->log.end);
    back_free(&b);
    vv_tier_free(other);
}

static void with_threads(void **state)
{
    struct rig *r = *state;
    rig_env.clock_ops = vv_env_posix.clock_ops;
    for (int i = 0; i < 100; i++) rig_seal(r, 1, 5000);
    assert_int_equal(vv_tier_start(r->tier), 0);
    while (rig_state(r, 990) != VV_EXTENT_BOTH) usleep(1000); /* bounded by the test's own timeout */
    vv_tier_stop(r->tier, 10000);
    rig_env.clock_ops = &rig_clock;
    assert_int_equal(rig_segments(r), 100);
    check_restore(r);
    vv_tier_part_close(r->part);
    r->part = NULL;
    vv_tier_free(r->tier);
    rig_open_tier(r); /* the claim was released: no wait, no secret needed */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(manifest_follows_in_batches), T(pages_fold), T(pages_are_read_at_the_same_time), T(roll_forward_after_a_crash),
        T(roll_forward_stops_at_a_hole_and_at_foreign_bytes), T(roll_forward_passes_a_deleted_hole), T(deletion_is_a_protocol),
        T(deletion_survives_crashes_and_failures), T(expired_before_upload), T(a_jumping_clock_deletes_nothing),
        T(topic_deletion), T(deletions_keep_to_their_rate), T(deleted_topic_is_not_restored), T(old_local_data_is_refused),
        T(head_commits_survive_lost_replies), T(every_byte_of_a_head), T(every_byte_of_the_root), T(without_a_checksum),
        T(a_damaged_head_is_written_anew), T(an_older_directory_writes_no_head_anew),
        T(the_overtaken_write_no_head), T(a_head_while_it_is_restored), T(snapshot), T(with_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
