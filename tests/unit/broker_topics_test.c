/* The registry of topics: names, creating, changing, deleting, and what is there again after a restart. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "topics.h"
#include "varve/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct rig {
    char root[64], log[80];
    struct vv_broker_config config;
    struct vv_broker b;
    struct vv_error e;
};

static void start(struct rig *r)
{
    r->b = (struct vv_broker){.env = &vv_env_posix, .config = &r->config, .node_id = 1, .log_dir = r->log};
    atomic_init(&r->b.time_trusted, true);
    assert_int_equal(vv_iopool_new("io", 2, &r->b.iopool), 0);
    assert_int_equal(vv_reactor_new(&vv_env_posix, "control", &r->b.control), 0);
    assert_int_equal(vv_topics_new(&r->b, &r->b.topics), 0);
}

static void stop(struct rig *r)
{
    assert_int_equal(vv_topics_close(r->b.topics), 0);
    vv_iopool_free(r->b.iopool);
    r->b.iopool = NULL;
    vv_topics_free(r->b.topics);
    vv_reactor_free(r->b.control);
}

static void restart(struct rig *r)
{
    uint8_t *text;
    size_t n;
    stop(r);
    start(r);
    assert_int_equal(vv_fs_read_file(&vv_env_posix, r->b.topics->path, 1 << 20, &text, &n), 0);
    assert_int_equal(vv_topics_load(r->b.topics, (char *)text, n, &r->e), 0);
    free(text);
    assert_int_equal(vv_topics_tidy(r->b.topics, &r->e), 0);
    assert_int_equal(vv_topics_open_all(r->b.topics, true, &r->e), 0);
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    snprintf(r->root, sizeof r->root, "/tmp/varve-topics-XXXXXX");
    if (!mkdtemp(r->root)) return -1;
    snprintf(r->log, sizeof r->log, "%s/log", r->root);
    if (mkdir(r->log, 0755)) return -1;
    const char *sets[] = {"tier.url=off"};
    if (vv_config_load(&vv_env_posix, NULL, 0, sets, 1, &r->config, &r->e)) return -1;
    start(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    char command[128];
    stop(r);
    vv_config_release(&r->config);
    snprintf(command, sizeof command, "rm -rf '%s'", r->root);
    int rc = system(command);
    free(r);
    return rc;
}

static struct vv_topic *create(struct rig *r, const char *name, int32_t partitions)
{
    struct vv_topic *t = NULL;
    assert_int_equal(vv_topics_create(r->b.topics, name, partitions, NULL, 0, false, false, &t, &r->e), 0);
    assert_non_null(t);
    return t;
}

static int try_create(struct rig *r, const char *name, int32_t partitions)
{
    return vv_topics_create(r->b.topics, name, partitions, NULL, 0, false, false, NULL, &r->e);
}

static bool there(struct rig *r, const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", r->log, name);
    return access(path, F_OK) == 0;
}

static void names_follow_kafkas_rules(void **state)
{
    char name[252];
    memset(name, 'a', sizeof name);
    (void)state;
    assert_true(vv_topic_name_ok("a", 1, NULL));
    assert_true(vv_topic_name_ok("A.b_c-9", 7, NULL));
    assert_true(vv_topic_name_ok("...", 3, NULL));
    assert_true(vv_topic_name_ok(name, 249, NULL));
    assert_false(vv_topic_name_ok(name, 250, NULL));
    assert_false(vv_topic_name_ok("", 0, NULL));
    assert_false(vv_topic_name_ok(".", 1, NULL));
    assert_false(vv_topic_name_ok("..", 2, NULL));
    assert_false(vv_topic_name_ok("a/b", 3, NULL));
    assert_false(vv_topic_name_ok("a\0b", 3, NULL));
    assert_false(vv_topic_name_ok("\xc3\xa4", 2, NULL));
}

static void what_is_created_is_found_by_name_and_id(void **state)
{
    struct rig *r = *state;
    struct vv_topic *t = create(r, "one", 3);
    assert_int_equal(t->partition_count, 3);
    assert_non_null(vv_topic_partition(t, 2));
    assert_null(vv_topic_partition(t, 3));
    assert_null(vv_topic_partition(t, -1));
    struct vv_topic *same = vv_topics_get(r->b.topics, "one", 3);
    assert_ptr_equal(same, t);
    vv_topic_unref(same);
    same = vv_topics_get_id(r->b.topics, t->id);
    assert_ptr_equal(same, t);
    vv_topic_unref(same);
    assert_null(vv_topics_get(r->b.topics, "on", 2));
    assert_null(vv_topics_get(r->b.topics, "onee", 4));
    assert_null(vv_topics_get_id(r->b.topics, (struct vv_uuid){{1}}));
    assert_true(there(r, "one-2"));
    vv_topic_unref(t);
}

static void creating_refuses_what_kafka_refuses(void **state)
{
    struct rig *r = *state;
    struct vv_kv bad = {"no.such.key", "1"};
    vv_topic_unref(create(r, "a.b", 1));
    assert_int_equal(try_create(r, "a.b", 1), VV_TOPIC_ALREADY_EXISTS);
    assert_int_equal(try_create(r, "a_b", 1), VV_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(try_create(r, "..", 1), VV_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(try_create(r, "c", 0), VV_INVALID_PARTITIONS);
    assert_int_equal(try_create(r, "c", -2), VV_INVALID_PARTITIONS);
    assert_int_equal(try_create(r, "c", VV_PARTITIONS_MAX + 1), VV_INVALID_PARTITIONS);
    assert_int_equal(vv_topics_create(r->b.topics, "c", 1, &bad, 1, false, false, NULL, &r->e), VV_INVALID_CONFIG);
    assert_int_equal(vv_topics_create(r->b.topics, "c", 1, NULL, 0, false, true, NULL, &r->e), 0);
    assert_null(vv_topics_get(r->b.topics, "c", 1));
    assert_false(there(r, "c-0"));
    assert_int_equal(try_create(r, "c", -1), 0); /* the broker's default */
}

static void a_restart_finds_topics_ids_and_configs_again(void **state)
{
    struct rig *r = *state;
    struct vv_kv set[] = {
        {"retention.ms", "1000"}, {"segment.bytes", "70000"}, {"retention.ms", "2000"}, {"flush.ms", NULL}};
    struct vv_topic *t;
    assert_int_equal(vv_topics_create(r->b.topics, "x", 2, set, 4, false, false, &t, &r->e), 0);
    struct vv_uuid id = t->id;
    vv_topic_unref(t);
    t = create(r, "y", 1);
    assert_int_equal(vv_topics_add_partitions(r->b.topics, t, 5, false, &r->e), 0);
    assert_int_equal(vv_topics_add_partitions(r->b.topics, t, 5, false, &r->e), VV_INVALID_PARTITIONS);
    assert_int_equal(vv_topics_add_partitions(r->b.topics, t, 6, true, &r->e), 0);
    vv_topic_unref(t);
    restart(r);
    t = vv_topics_get_id(r->b.topics, id);
    assert_non_null(t);
    assert_string_equal(t->name, "x");
    assert_int_equal(t->partition_count, 2);
    assert_int_equal(t->override_count, 2);
    assert_string_equal(t->overrides[0].key, "retention.ms");
    assert_string_equal(t->overrides[0].value, "2000");
    assert_int_equal(t->config.retention_ms, 2000);
    assert_int_equal(t->config.segment_bytes, 70000);
    vv_topic_unref(t);
    t = vv_topics_get(r->b.topics, "y", 1);
    assert_int_equal(t->partition_count, 5);
    assert_non_null(vv_topic_partition(t, 4));
    vv_topic_unref(t);
}

static void configs_are_replaced_as_a_whole(void **state)
{
    struct rig *r = *state;
    struct vv_kv a[] = {{"retention.ms", "1000"}}, b[] = {{"segment.bytes", "70000"}},
                 bad[] = {{"segment.bytes", "-4"}};
    struct vv_topic *t = create(r, "x", 1);
    assert_int_equal(vv_topics_set_configs(r->b.topics, t, a, 1, false, &r->e), 0);
    assert_int_equal(t->config.retention_ms, 1000);
    assert_int_equal(vv_topics_set_configs(r->b.topics, t, bad, 1, false, &r->e), VV_INVALID_CONFIG);
    assert_int_equal(vv_topics_set_configs(r->b.topics, t, b, 1, true, &r->e), 0);
    assert_int_equal(t->config.retention_ms, 1000);
    assert_int_equal(vv_topics_set_configs(r->b.topics, t, b, 1, false, &r->e), 0);
    assert_int_equal(t->config.retention_ms, -1);
    assert_int_equal(t->config.segment_bytes, 70000);
    vv_topic_unref(t);
    restart(r);
    t = vv_topics_get(r->b.topics, "x", 1);
    assert_int_equal(t->config.segment_bytes, 70000);
    vv_topic_unref(t);
}

static void a_deleted_topic_is_gone_at_once_and_its_name_is_free(void **state)
{
    struct rig *r = *state;
    struct vv_topic *t = create(r, "x", 2);
    struct vv_uuid id = t->id;
    assert_int_equal(vv_topics_delete(r->b.topics, t, &r->e), 0);
    assert_true(atomic_load(&t->deleted));
    assert_null(vv_topics_get(r->b.topics, "x", 1));
    assert_null(vv_topics_get_id(r->b.topics, id));
    assert_false(there(r, "x-0"));
    assert_non_null(vv_topic_partition(t, 1)); /* whoever still holds it may look */
    assert_int_equal(vv_topics_delete(r->b.topics, t, &r->e), VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(vv_topics_add_partitions(r->b.topics, t, 9, false, &r->e), VV_UNKNOWN_TOPIC_OR_PARTITION);
    struct vv_topic *again = create(r, "x", 1);
    assert_false(vv_uuid_eq(again->id, id));
    vv_topic_unref(again);
    vv_topic_unref(t);
    restart(r);
    assert_null(vv_topics_get_id(r->b.topics, id));
}

static void many_topics_are_all_found(void **state)
{
    struct rig *r = *state;
    struct vv_uuid ids[100];
    char name[16];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "t%d", i * 37 % 100);
        struct vv_topic *t = create(r, name, 1);
        ids[i * 37 % 100] = t->id;
        if (i % 10 == 3) assert_int_equal(vv_topics_delete(r->b.topics, t, &r->e), 0);
        vv_topic_unref(t);
    }
    for (int i = 0; i < 100; i++) {
        int k = i * 37 % 100;
        snprintf(name, sizeof name, "t%d", k);
        struct vv_topic *t = vv_topics_get(r->b.topics, name, strlen(name)),
                        *by_id = vv_topics_get_id(r->b.topics, ids[k]);
        assert_ptr_equal(t, by_id);
        assert_true((t == NULL) == (i % 10 == 3));
        vv_topic_unref(t);
        vv_topic_unref(by_id);
    }
}

static void leftovers_of_a_crash_are_tidied(void **state)
{
    struct rig *r = *state;
    char path[200];
    static const char *const dirs[] = {"gone-0", "kept-0", "x-1.0123-delete", "notes"};
    vv_topic_unref(create(r, "x", 1));
    for (size_t i = 0; i < VV_COUNT(dirs); i++) {
        snprintf(path, sizeof path, "%s/%s", r->log, dirs[i]);
        assert_int_equal(mkdir(path, 0755), 0);
        snprintf(path, sizeof path, "%s/%s/00000000000000000000.log", r->log, dirs[i]);
        assert_int_equal(vv_fs_write_file(&vv_env_posix, path, "data", i == 1 ? 4 : 0), 0);
    }
    restart(r);
    assert_true(there(r, "x-0"));
    assert_false(there(r, "gone-0"));      /* a creation that was not written down: nothing in it */
    assert_true(there(r, "kept-0-stray")); /* has records: not ours to delete */
    assert_false(there(r, "x-1.0123-delete"));
    assert_true(there(r, "notes"));
}

static void a_deletion_that_crashed_is_finished(void **state)
{
    struct rig *r = *state;
    char text[300], id[23], path[200];
    struct vv_topic *t = create(r, "x", 1);
    vv_uuid_text(t->id, id);
    vv_topic_unref(t);
    stop(r);
    snprintf(path, sizeof path, "%s/x-0/00000000000000000000.log", r->log);
    assert_int_equal(vv_fs_write_file(&vv_env_posix, path, "data", 4), 0);
    start(r);
    snprintf(
        text, sizeof text,
        "{\"format\":1,\"topics\":[],\"deleted\":[{\"name\":\"x\",\"id\":\"%s\",\"partitions\":1,\"tiered\":false}]}",
        id);
    assert_int_equal(vv_topics_load(r->b.topics, text, strlen(text), &r->e), 0);
    assert_int_equal(vv_topics_tidy(r->b.topics, &r->e), 0);
    assert_false(there(r, "x-0"));
    assert_false(there(r, "x-0-stray"));
    assert_int_equal(r->b.topics->doomed_count, 0);
}

static void a_damaged_file_is_refused(void **state)
{
    struct rig *r = *state;
    static const char *const bad[] = {
        "",
        "[]",
        "{\"format\":2,\"topics\":[]}",
        "{\"format\":1}",
        "{\"format\":1,\"topics\":[{\"name\":\"x\"}]}",
        "{\"format\":1,\"topics\":[{\"name\":\"../"
        "x\",\"id\":\"AAAAAAAAAAAAAAAAAAAAAQ\",\"internal\":false,\"partitions\":1,\"configs\":{}}]}",
    };
    for (size_t i = 0; i < VV_COUNT(bad); i++) {
        assert_int_equal(vv_topics_load(r->b.topics, bad[i], strlen(bad[i]), &r->e), VV_E_CORRUPT);
        assert_int_equal(r->b.topics->count, 0);
    }
}

static void producer_ids_are_never_handed_out_twice(void **state)
{
    struct rig *r = *state;
    int64_t id, last = -1;
    for (int round = 0; round < 3; round++) {
        assert_int_equal(vv_producer_ids_open(&r->b, &r->b.producer_ids, &r->e), 0);
        for (int i = 0; i < 1500; i++) {
            assert_int_equal(vv_producer_id_next(&r->b, &id), 0);
            assert_true(id > last);
            last = id;
        }
        assert_true(vv_producer_ids_reserved(&r->b) > last);
        vv_producer_ids_close(r->b.producer_ids); /* as a crash: nothing is written at the end */
    }
    assert_int_equal(vv_producer_ids_open(&r->b, &r->b.producer_ids, &r->e), 0);
    vv_producer_ids_skip_to(&r->b, 5000000);
    assert_int_equal(vv_producer_id_next(&r->b, &id), 0);
    assert_true(id > 5000000);
    vv_producer_ids_close(r->b.producer_ids);
    r->b.producer_ids = NULL;
}

/* While a deleted topic's directories are being removed it cannot come back: what is renamed meanwhile would be half a log. */
static void nothing_comes_back_while_it_is_removed(void **state)
{
    struct rig *r = *state;
    struct vv_topics *ts = r->b.topics;
    struct vv_doomed d = {.id = {{9}}, .name = strdup("gone"), .partitions = 1, .tiered = true};
    struct vv_uuid ids[] = {{{9}}};
    struct vv_undelete *u;
    assert_int_equal(vv_doomed_push(ts, &d), 0);
    r->b.tier = (struct vv_tier *)&d; /* never asked */
    ts->snapshot.purging = true;
    ts->snapshot.purge_ids = ids;
    ts->snapshot.purge_count = 1;
    assert_int_equal(vv_undelete_begin(ts, "gone", "gone", NULL, 0, false, &u, &r->e), VV_REQUEST_TIMED_OUT);
    assert_false(ts->doomed[0].returning);
    assert_non_null(strstr(r->e.text, "try again"));
    ts->snapshot.purging = false;
    ts->snapshot.purge_ids = NULL;
    ts->snapshot.purge_count = 0;
    r->b.tier = NULL;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_follow_kafkas_rules),
        TEST(nothing_comes_back_while_it_is_removed),
        TEST(what_is_created_is_found_by_name_and_id),
        TEST(creating_refuses_what_kafka_refuses),
        TEST(a_restart_finds_topics_ids_and_configs_again),
        TEST(configs_are_replaced_as_a_whole),
        TEST(a_deleted_topic_is_gone_at_once_and_its_name_is_free),
        TEST(many_topics_are_all_found),
        TEST(leftovers_of_a_crash_are_tidied),
        TEST(a_deletion_that_crashed_is_finished),
        TEST(a_damaged_file_is_refused),
        TEST(producer_ids_are_never_handed_out_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
