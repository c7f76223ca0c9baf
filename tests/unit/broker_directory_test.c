/* The log directory: whose it is, how the last stop went, what is refused. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "directory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct rig {
    char root[64], path[80];
    struct vv_directory d;
    struct vv_error e;
};

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    snprintf(r->root, sizeof r->root, "/tmp/varve-directory-XXXXXX");
    if (!mkdtemp(r->root)) return -1;
    snprintf(r->path, sizeof r->path, "%s/log", r->root);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    char command[128];
    vv_directory_close(&r->d);
    snprintf(command, sizeof command, "rm -rf '%s'", r->root);
    int rc = system(command);
    free(r);
    return rc;
}

static int open_it(struct rig *r, int32_t node)
{
    vv_directory_close(&r->d);
    r->e.text[0] = 0;
    return vv_directory_open(&vv_env_posix, r->path, node, &r->d, &r->e);
}

static void put(struct rig *r, const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", r->path, name);
    assert_int_equal(vv_fs_write_file(&vv_env_posix, path, text, strlen(text)), 0);
}

static bool there(struct rig *r, const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", r->path, name);
    return access(path, F_OK) == 0;
}

static void a_new_directory_is_fresh_until_it_is_claimed(void **state)
{
    struct rig *r = *state;
    assert_int_equal(open_it(r, 7), 0);
    assert_true(r->d.fresh);
    assert_false(r->d.clean);
    assert_int_equal(vv_directory_claim(&r->d, "cluster-a", "fs:/x", &r->e), 0);
    assert_int_equal(open_it(r, 7), 0);
    assert_false(r->d.fresh);
    assert_string_equal(r->d.cluster_id, "cluster-a");
    assert_string_equal(r->d.tier, "fs:/x");
    assert_int_equal(strlen(r->d.directory_id), 22);
    assert_int_equal(vv_directory_claim(&r->d, "cluster-a", NULL, &r->e), 0);
    assert_string_equal(r->d.tier, "fs:/x");
}

static void meta_properties_is_in_kafkas_format(void **state)
{
    struct rig *r = *state;
    uint8_t *text;
    size_t n;
    char path[200];
    assert_int_equal(open_it(r, 7), 0);
    assert_int_equal(vv_directory_claim(&r->d, "abc", NULL, &r->e), 0);
    snprintf(path, sizeof path, "%s/meta.properties", r->path);
    assert_int_equal(vv_fs_read_file(&vv_env_posix, path, 4096, &text, &n), 0);
    assert_int_equal(text[0], '#');
    assert_non_null(strstr((char *)text, "\nversion=1\n"));
    assert_non_null(strstr((char *)text, "\nnode.id=7\n"));
    assert_non_null(strstr((char *)text, "\ncluster.id=abc\n"));
    assert_non_null(strstr((char *)text, "\nvarve.version="));
    free(text);
}

static void a_second_broker_is_refused(void **state)
{
    struct rig *r = *state;
    struct vv_directory second;
    assert_int_equal(open_it(r, 1), 0);
    assert_int_equal(vv_directory_open(&vv_env_posix, r->path, 1, &second, &r->e), VV_E_CONFLICT);
    assert_non_null(strstr(r->e.text, "second broker"));
    assert_non_null(strstr(r->e.text, r->path));
    vv_directory_close(&second);
    assert_int_equal(open_it(r, 1), 0); /* and the lock goes with its holder */
}

static void another_node_is_refused(void **state)
{
    struct rig *r = *state;
    assert_int_equal(open_it(r, 1), 0);
    assert_int_equal(vv_directory_claim(&r->d, "abc", NULL, &r->e), 0);
    assert_int_equal(open_it(r, 2), VV_E_CONFLICT);
    assert_non_null(strstr(r->e.text, "node.id=1"));
}

static void kafkas_directory_is_refused_by_name(void **state)
{
    struct rig *r = *state;
    assert_int_equal(open_it(r, 1), 0);
    put(r, "meta.properties", "#\nversion=1\nnode.id=1\ncluster.id=k\ndirectory.id=d\n");
    assert_int_equal(open_it(r, 1), VV_E_CONFLICT);
    assert_non_null(strstr(r->e.text, "Apache Kafka"));
}

static void a_directory_of_something_else_is_refused(void **state)
{
    struct rig *r = *state;
    assert_int_equal(open_it(r, 1), 0);
    put(r, "holiday.jpg", "x");
    assert_int_equal(open_it(r, 1), VV_E_CONFLICT);
    assert_non_null(strstr(r->e.text, "holiday.jpg"));
    assert_true(there(r, "holiday.jpg"));
}

static void a_damaged_meta_properties_is_told(void **state)
{
    struct rig *r = *state;
    assert_int_equal(open_it(r, 1), 0);
    put(r, "meta.properties", "version=9\nvarve.version=0.1.0\n");
    assert_int_equal(open_it(r, 1), VV_E_CORRUPT);
}

static void the_clean_mark_holds_for_one_start(void **state)
{
    struct rig *r = *state;
    assert_int_equal(open_it(r, 1), 0);
    assert_int_equal(vv_directory_claim(&r->d, "abc", NULL, &r->e), 0);
    assert_int_equal(vv_directory_mark_clean(&r->d), 0);
    assert_true(there(r, ".kafka_cleanshutdown"));
    assert_int_equal(open_it(r, 1), 0);
    assert_true(r->d.clean);
    assert_int_equal(open_it(r, 1), 0); /* a start that came to nothing took nothing away */
    assert_true(r->d.clean);
    assert_int_equal(vv_directory_begin(&r->d, &r->e), 0);
    assert_false(there(r, ".kafka_cleanshutdown"));
    assert_int_equal(open_it(r, 1), 0);
    assert_false(r->d.clean);
}

static void an_interrupted_restore_begins_again(void **state)
{
    struct rig *r = *state;
    char sub[200];
    assert_int_equal(open_it(r, 1), 0);
    assert_int_equal(vv_directory_restoring(&r->d, &r->e), 0);
    snprintf(sub, sizeof sub, "%s/topic-0", r->path);
    assert_int_equal(mkdir(sub, 0755), 0);
    put(r, "topic-0/00000000000000000000.log", "half");
    put(r, "varve-topics.json", "{}");
    put(r, "tier-identity.json", "{}");
    assert_int_equal(open_it(r, 1), 0);
    assert_true(r->d.fresh);
    assert_false(there(r, "topic-0"));
    assert_false(there(r, "varve-topics.json"));
    assert_true(there(r, "tier-identity.json"));
    /* a finished one is never taken back */
    put(r, "varve-topics.json", "{}");
    assert_int_equal(vv_directory_claim(&r->d, "abc", NULL, &r->e), 0);
    assert_false(there(r, "varve-restoring"));
    assert_int_equal(open_it(r, 1), 0);
    assert_false(r->d.fresh);
    assert_true(there(r, "varve-topics.json"));
}

static void an_unwritable_directory_is_told_with_a_way_out(void **state)
{
    struct rig *r = *state;
    /* A file in the way is refused for everybody, root too. */
    snprintf(r->path, sizeof r->path, "%s/file", r->root);
    FILE *f = fopen(r->path, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_not_equal(open_it(r, 1), 0);
    assert_non_null(strstr(r->e.text, r->path));
    assert_non_null(strstr(r->e.text, "not a directory"));
    if (!geteuid()) return; /* root may write anywhere */
    snprintf(r->path, sizeof r->path, "%s/closed", r->root);
    assert_int_equal(mkdir(r->path, 0555), 0);
    assert_int_equal(open_it(r, 1), VV_E_ACCESS);
    assert_non_null(strstr(r->e.text, "--data-dir"));
    snprintf(r->path, sizeof r->path, "%s/closed/log", r->root); /* cannot even be made */
    assert_int_equal(open_it(r, 1), VV_E_ACCESS);
    assert_non_null(strstr(r->e.text, "may not write there"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_directory_is_fresh_until_it_is_claimed),
        TEST(meta_properties_is_in_kafkas_format),
        TEST(a_second_broker_is_refused),
        TEST(another_node_is_refused),
        TEST(kafkas_directory_is_refused_by_name),
        TEST(a_directory_of_something_else_is_refused),
        TEST(a_damaged_meta_properties_is_told),
        TEST(the_clean_mark_holds_for_one_start),
        TEST(an_interrupted_restore_begins_again),
        TEST(an_unwritable_directory_is_told_with_a_way_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
