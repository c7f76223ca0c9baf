/* A replica of the rig's bucket: what one look brings, what it costs, what a new writer and a moved log start change; nothing is written. */
#include "tiering_rig.h"

struct pair { /* the rig is the owner */
    struct rig *r;
    struct vv_objstore *store; /* the same bucket, for reading */
    struct vv_index *index;
    struct vv_tier *tier;
    struct vv_tier_part *part;
    struct vv_log log;
    struct vv_tier_followed seen;
};

static void open_replica(struct pair *p, const char *name)
{
    struct vv_error e = {0};
    struct vv_tier_identity id = {.node_id = 1};
    char dir[160];
    snprintf(dir, sizeof dir, "%s/%s", p->r->data, name);
    rig_ok(vv_tier_open_replica(&rig_env, p->store, &p->r->config, &id, &p->tier, &e), &e);
    assert_string_equal(id.cluster_id, "cluster-1");
    rig_ok(vv_index_open(&rig_env, dir, &rig_ref_ops, &p->index, &e), &e);
    struct vv_tier_part_opts o = {.topic_id = p->r->topic_id, .topic = "flights", .partition = 2, .log = &p->log, .index = p->index,
                                  .upload_limit = rig_limit, .leader_epoch = rig_epoch, .on_progress = rig_progress, .ctx = p->r};
    rig_ok(vv_tier_part_open(p->tier, &o, &p->part, &e), &e);
}

static void close_replica(struct pair *p)
{
    vv_tier_part_close(p->part);
    vv_tier_stop(p->tier, 1000);
    vv_tier_free(p->tier);
    vv_index_close(p->index);
    p->tier = NULL;
}

static int setup(void **state)
{
    struct pair *p = calloc(1, sizeof *p);
    struct vv_error e = {0};
    char url[200];
    p->r = rig_new();
    rig_open(p->r);
    snprintf(url, sizeof url, "fs:%s", p->r->bucket);
    struct vv_objstore_config c = {.inline_async = true, .read_only = true, .keys_file = p->r->keys};
    rig_ok(vv_objstore_open(url, &c, &rig_env, &p->store, &e), &e);
    open_replica(p, "replica");
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;
    if (p->tier) close_replica(p);
    vv_objstore_close(p->store);
    rig_free(p->r);
    free(p);
    return 0;
}

static int look(struct pair *p)
{
    struct vv_error e = {0};
    int err = vv_tier_follow_part(p->part, &p->seen, &e);
    free(p->seen.epochs);
    p->seen.epochs = NULL;
    return err;
}

/* Bases of the index, as "0 20 40". */
static const char *bases(struct pair *p)
{
    static char text[400];
    struct vv_extent x;
    size_t n = 0;
    text[0] = 0;
    for (int64_t at = 0; !vv_index_next(p->index, at, &x); at = x.last + 1)
        n += (size_t)snprintf(text + n, sizeof text - n, n ? " %lld" : "%lld", (long long)x.base);
    return text;
}

static uint64_t calls(const struct pair *p, enum vv_objop op)
{
    return atomic_load(&p->store->stats.calls[op]);
}

static void it_grows_with_the_bucket(void **state)
{
    struct pair *p = *state;
    assert_int_equal(look(p), 0);
    assert_int_equal(p->seen.end, 0);
    for (int i = 0; i < 3; i++) rig_seal(p->r, 2, 50);
    rig_run(p->r); /* uploaded; the manifest is batched: rolled forward */
    assert_int_equal(look(p), 0);
    assert_string_equal(bases(p), "0 20 40");
    assert_int_equal(p->seen.end, 60);
    assert_true(p->seen.grown && p->seen.epoch_count == 1);
    rig_settle(p->r);
    rig_seal(p->r, 2, 50);
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    assert_string_equal(bases(p), "0 20 40 60");
    assert_int_equal(p->seen.end, 80);
    uint64_t heads = calls(p, VV_OBJ_HEAD), lists = calls(p, VV_OBJ_LIST), gets = calls(p, VV_OBJ_GET);
    assert_int_equal(look(p), 0);
    assert_false(p->seen.grown);
    assert_int_equal(calls(p, VV_OBJ_HEAD) - heads, 1); /* nothing happened: what it may cost */
    assert_int_equal(calls(p, VV_OBJ_LIST) - lists, 1);
    assert_int_equal(calls(p, VV_OBJ_GET) - gets, 0);
}

static void it_starts_where_its_owner_says(void **state)
{
    struct pair *p = *state;
    for (int i = 0; i < 4; i++) rig_seal(p->r, 2, 50);
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    assert_int_equal(vv_index_set_log_start(p->r->index, 45), 0);
    vv_tier_part_log_start_moved(p->r->part);
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    assert_int_equal(p->seen.log_start, 45);
    assert_int_equal(vv_index_log_start(p->index), 45);
    assert_string_equal(bases(p), "40 60");
    rig_advance(120000); /* and its objects go */
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    assert_string_equal(bases(p), "40 60");
    assert_int_equal(vv_index_set_log_start(p->r->index, 95), 0); /* past what is in the bucket */
    vv_tier_part_log_start_moved(p->r->part);
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    assert_int_equal(p->seen.end, 95);
    assert_string_equal(bases(p), "");
    for (int i = 0; i < 2; i++) rig_seal(p->r, 2, 50); /* 80..99 holds the start */
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    assert_string_equal(bases(p), "80 100");
    assert_int_equal(p->seen.end, 120);
}

/* Undeleted records: the log start goes back, and what lies there is in the index again. */
static void its_owner_brings_records_back(void **state)
{
    struct pair *p = *state;
    struct vv_error e = {0};
    int64_t start = -1;
    for (int i = 0; i < 4; i++) rig_seal(p->r, 2, 50);
    rig_settle(p->r);
    assert_int_equal(vv_index_set_log_start(p->r->index, 45), 0);
    vv_tier_part_log_start_moved(p->r->part);
    rig_seal(p->r, 2, 50); /* its footer says so too */
    rig_run(p->r);
    assert_int_equal(look(p), 0);
    assert_int_equal(p->seen.log_start, 45);
    assert_string_equal(bases(p), "40 60 80");
    rig_ok(vv_tier_part_undelete(p->r->part, &start, &e), &e);
    assert_int_equal(start, 0);
    rig_run(p->r);
    vv_tier_hurry(p->r->tier);
    rig_run(p->r);
    assert_int_equal(look(p), 0);
    assert_int_equal(p->seen.log_start, 0);
    assert_int_equal(vv_index_log_start(p->index), 0);
    assert_string_equal(bases(p), "0 20 40 60 80");
    assert_int_equal(look(p), 0);
    assert_int_equal(p->seen.log_start, 0);
}

/* What was rolled forward and is not in the new writer's log leaves the index. */
static void a_new_writer_has_the_last_word(void **state)
{
    struct pair *p = *state;
    struct vv_extent x;
    for (int i = 0; i < 2; i++) rig_seal(p->r, 2, 50);
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    struct vv_extent foreign[2] = {{.base = 40, .last = 49, .nonce = 9, .object_bytes = 100, .bytes = 50},
                                   {.base = 50, .last = 99, .nonce = 8, .object_bytes = 100, .bytes = 50}};
    assert_int_equal(vv_index_exchange(p->index, 40, 40, foreign, 2), 0); /* as if a writer that lost its claim had put them */
    p->part->replica.next = 100;
    p->part->replica.newest = foreign[1];
    vv_tier_part_close(p->r->part);
    vv_tier_stop(p->r->tier, 1000);
    vv_tier_free(p->r->tier);
    rig_open_tier(p->r);
    rig_open_part(p->r);
    rig_seal(p->r, 2, 50); /* 40..59 */
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    assert_string_equal(bases(p), "0 20 40");
    assert_int_equal(p->seen.end, 60);
    assert_int_equal(vv_index_find(p->index, 50, &x), 0);
    assert_int_equal(x.last, 59);
    assert_true(x.nonce != 9 && p->seen.grown);
}

static void what_cannot_be_read_stays(void **state)
{
    struct pair *p = *state;
    char head[VV_KEY_MAX], from[512], to[512];
    for (int i = 0; i < 2; i++) rig_seal(p->r, 2, 50);
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    vv_key_head(p->r->topic_id, 2, head);
    snprintf(from, sizeof from, "%s/%s", p->r->bucket, head);
    snprintf(to, sizeof to, "%s/aside", p->r->dir);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(look(p), VV_E_NOENT);
    assert_string_equal(bases(p), "0 20");
    assert_int_equal(rename(to, from), 0);
    assert_int_equal(look(p), 0);
    assert_int_equal(p->seen.end, 40);
}

static void a_long_history_comes_by_pages(void **state)
{
    struct pair *p = *state;
    for (int i = 0; i < 600; i++) rig_seal(p->r, 1, 20);
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    assert_int_equal(p->seen.end, 6000);
    for (int i = 0; i < 300; i++) rig_seal(p->r, 1, 20); /* another page is folded */
    rig_settle(p->r);
    uint64_t gets = calls(p, VV_OBJ_GET);
    assert_int_equal(look(p), 0);
    assert_int_equal(p->seen.end, 9000);
    assert_true(calls(p, VV_OBJ_GET) - gets <= 4); /* head, the new page, the newest footer */
    struct vv_index_summary s;
    vv_index_summary(p->index, &s);
    assert_int_equal(s.remote_extents, 900);
}

static void nothing_is_written(void **state)
{
    struct pair *p = *state;
    struct vv_error e = {0};
    int result = 0;
    const char *key = VV_KEY_ROOT;
    rig_seal(p->r, 2, 50);
    rig_settle(p->r);
    assert_int_equal(look(p), 0);
    vv_tier_hurry(p->tier);
    assert_int_equal(vv_tier_step(p->tier), 0); /* no claim, no upload, no housekeeping */
    assert_int_equal(calls(p, VV_OBJ_PUT) + calls(p, VV_OBJ_DELETE) + calls(p, VV_OBJ_DELETE_MANY), 0);
    assert_int_equal(vv_objstore_put_mem(p->store, key, "x", 1, NULL, 0, NULL, &e), VV_E_ACCESS); /* and could not be */
    assert_int_equal(vv_objstore_delete(p->store, key, 0, &e), VV_E_ACCESS);
    assert_int_equal(vv_objstore_delete_many(p->store, &key, 1, 0, &result, &e), VV_E_ACCESS);
    assert_int_equal(vv_objstore_abort_stale(p->store, "", 0, 0, NULL, &e), VV_E_ACCESS);
    close_replica(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_grows_with_the_bucket, setup, teardown),
        cmocka_unit_test_setup_teardown(it_starts_where_its_owner_says, setup, teardown),
        cmocka_unit_test_setup_teardown(its_owner_brings_records_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_writer_has_the_last_word, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_history_comes_by_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_written, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
