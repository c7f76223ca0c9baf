/* Committed offsets that went to the bucket and come back: what a restore writes is what the coordinator then knows.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "groups.h"
#include "groups_snapshot.h"
#include "topics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct rig {
    char root[64], log[80];
    struct vv_broker_config config;
    struct vv_broker b;
    struct vv_error e;
};

static void create(struct rig *r, const char *name, int32_t partitions, bool internal)
{
    struct vv_kv compact = {"cleanup.policy", "compact"};
    assert_int_equal(
        vv_topics_create(r->b.topics, name, partitions, &compact, internal, internal, false, NULL, &r->e), 0);
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    snprintf(r->root, sizeof r->root, "/tmp/varve-offsets-XXXXXX");
    if (!mkdtemp(r->root)) return -1;
    snprintf(r->log, sizeof r->log, "%s/log", r->root);
    if (mkdir(r->log, 0755)) return -1;
    const char *sets[] = {"tier.url=off"};
    if (vv_config_load(&vv_env_posix, NULL, 0, sets, 1, &r->config, &r->e)) return -1;
    r->b = (struct vv_broker){.env = &vv_env_posix, .config = &r->config, .node_id = 1, .log_dir = r->log};
    atomic_init(&r->b.time_trusted, true);
    assert_int_equal(vv_iopool_new("io", 2, &r->b.iopool), 0);
    assert_int_equal(vv_reactor_new(&vv_env_posix, "control", &r->b.control), 0);
    assert_int_equal(vv_topics_new(&r->b, &r->b.topics), 0);
    create(r, VV_OFFSETS_TOPIC, 3, true);
    create(r, "empty", 2, false);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    char command[128];
    vv_groups_close(r->b.groups);
    assert_int_equal(vv_topics_close(r->b.topics), 0);
    vv_iopool_free(r->b.iopool);
    r->b.iopool = NULL;
    vv_topics_free(r->b.topics);
    vv_reactor_free(r->b.control);
    vv_config_release(&r->config);
    snprintf(command, sizeof command, "rm -rf '%s'", r->root);
    int rc = system(command);
    free(r);
    return rc;
}

static void import_and_open(struct rig *r, const char *text)
{
    assert_int_equal(vv_groups_import(&r->b, text, strlen(text), &r->e), 0);
    assert_int_equal(vv_groups_open(&r->b, &r->b.groups, &r->e), 0);
}

static json_t *group_of(json_t *groups, const char *id)
{
    size_t i;
    json_t *o;
    json_array_foreach(groups, i, o)
    {
        if (!strcmp(json_string_value(json_object_get(o, "group")), id)) return json_object_get(o, "offsets");
    }
    return NULL;
}

static void offsets_come_back(void **state)
{
    struct rig *r = *state;
    import_and_open(r, "{\"groups\":[{\"group\":\"g\",\"offsets\":[{\"topic\":\"empty\",\"partition\":1,\"offset\":0,"
                       "\"leader_epoch\":7,"
                       "\"commit_ms\":1234,\"metadata\":\"note\"}]},{\"group\":\"other\",\"offsets\":[{\"topic\":"
                       "\"empty\",\"partition\":0,"
                       "\"offset\":0,\"leader_epoch\":-1,\"commit_ms\":5,\"metadata\":\"\"}]}]}");
    json_t *groups = vv_groups_export(r->b.groups), *offsets = group_of(groups, "g");
    assert_int_equal(json_array_size(groups), 2);
    assert_int_equal(json_array_size(offsets), 1);
    json_t *o = json_array_get(offsets, 0);
    assert_string_equal(json_string_value(json_object_get(o, "topic")), "empty");
    assert_int_equal(json_integer_value(json_object_get(o, "partition")), 1);
    assert_int_equal(json_integer_value(json_object_get(o, "offset")), 0);
    assert_int_equal(json_integer_value(json_object_get(o, "leader_epoch")), 7);
    assert_int_equal(json_integer_value(json_object_get(o, "commit_ms")), 1234);
    assert_string_equal(json_string_value(json_object_get(o, "metadata")), "note");
    json_decref(groups);
}

static void an_offset_beyond_the_restored_log_becomes_its_end(void **state)
{
    struct rig *r = *state;
    import_and_open(r, "{\"groups\":[{\"group\":\"g\",\"offsets\":[{\"topic\":\"empty\",\"partition\":0,\"offset\":"
                       "99,\"leader_epoch\":3,"
                       "\"commit_ms\":1,\"metadata\":\"\"}]}]}");
    json_t *groups = vv_groups_export(r->b.groups), *o = json_array_get(group_of(groups, "g"), 0);
    assert_int_equal(json_integer_value(json_object_get(o, "offset")), 0);
    json_decref(groups);
}

static void topics_that_are_gone_are_left_out(void **state)
{
    struct rig *r = *state;
    import_and_open(
        r, "{\"groups\":[{\"group\":\"g\",\"offsets\":[{\"topic\":\"gone\",\"partition\":0,\"offset\":1,\"leader_"
           "epoch\":0,"
           "\"commit_ms\":1,\"metadata\":\"\"},{\"topic\":\"empty\",\"partition\":2,\"offset\":1,\"leader_epoch\":0,"
           "\"commit_ms\":1,\"metadata\":\"\"}]}]}");
    json_t *groups = vv_groups_export(r->b.groups);
    assert_int_equal(json_array_size(groups), 0);
    json_decref(groups);
}

static void many_offsets_take_several_batches(void **state)
{
    struct rig *r = *state;
    json_t *groups = json_array();
    create(r, "wide", 510, false);
    json_t *offsets = json_array();
    for (int i = 0; i < 510; i++)
        json_array_append_new(offsets, json_pack("{s:s,s:i,s:i,s:i,s:i,s:s}", "topic", "wide", "partition", i,
                                                 "offset", 0, "leader_epoch", 0, "commit_ms", i, "metadata", ""));
    json_array_append_new(groups, json_pack("{s:s,s:o}", "group", "g", "offsets", offsets));
    json_t *root = json_pack("{s:o}", "groups", groups);
    char *text = json_dumps(root, 0);
    import_and_open(r, text);
    json_decref(root);
    free(text);
    groups = vv_groups_export(r->b.groups);
    assert_int_equal(json_array_size(group_of(groups, "g")), 510);
    json_decref(groups);
}

static void a_snapshot_without_groups_is_fine_and_a_damaged_one_is_not(void **state)
{
    struct rig *r = *state;
    static const char bad[] = "{\"groups\":[{\"group\":\"g\",\"offsets\":[{\"topic\":\"empty\"}]}]}";
    assert_int_not_equal(vv_groups_import(&r->b, bad, strlen(bad), &r->e), 0);
    import_and_open(r, "{\"topics\":[]}");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(offsets_come_back),
        TEST(an_offset_beyond_the_restored_log_becomes_its_end),
        TEST(topics_that_are_gone_are_left_out),
        TEST(many_offsets_take_several_batches),
        TEST(a_snapshot_without_groups_is_fine_and_a_damaged_one_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
