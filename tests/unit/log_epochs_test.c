/* Leader epochs: assignment, truncation at both ends, KIP-101's answers, the checkpoint and every kind of nonsense in
 * it. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "epochs.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/varve-epochs-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/leader-epoch-checkpoint", dir);
    unlink(path);
    return rmdir(dir);
}

static struct vv_epochs three(void)
{
    struct vv_epochs e = {0};
    assert_int_equal(vv_epochs_assign(&e, 2, 0), 1);
    assert_int_equal(vv_epochs_assign(&e, 5, 10), 1);
    assert_int_equal(vv_epochs_assign(&e, 6, 30), 1);
    return e;
}

static void check(const struct vv_epochs *e, size_t n, const struct vv_epoch *want)
{
    assert_int_equal(e->n, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(e->v[i].epoch, want[i].epoch);
        assert_int_equal(e->v[i].start, want[i].start);
    }
}

#define CHECK(e, ...)                                                                                                  \
    do {                                                                                                               \
        static const struct vv_epoch want_[] = {__VA_ARGS__};                                                          \
        check(&(e), VV_COUNT(want_), want_);                                                                           \
    } while (0)

static void assigns(void **state)
{
    (void)state;
    struct vv_epochs e = three();
    assert_int_equal(vv_epochs_assign(&e, 6, 40), 0); /* known */
    assert_int_equal(vv_epochs_assign(&e, 4, 40), 0); /* older */
    assert_int_equal(vv_epochs_assign(&e, -1, 40), 0);
    CHECK(e, {2, 0}, {5, 10}, {6, 30});
    assert_int_equal(vv_epochs_assign(&e, 7, 30), 1); /* 6 never got a record */
    CHECK(e, {2, 0}, {5, 10}, {7, 30});
    assert_int_equal(vv_epochs_assign(&e, 9, 10), 1);
    CHECK(e, {2, 0}, {9, 10});
    assert_int_equal(vv_epochs_assign(&e, 10, -1), VV_E_USAGE);
    for (int i = 0; i < 100; i++)
        assert_int_equal(vv_epochs_assign(&e, 10 + i, 11 + i), 1);
    assert_int_equal(e.n, 102);
    assert_int_equal(vv_epochs_latest(&e), 109);
    vv_epochs_release(&e);
    assert_int_equal(vv_epochs_latest(&e), -1);
}

static void cuts(void **state)
{
    (void)state;
    struct vv_epochs e = three();
    vv_epochs_cut_end(&e, 30); /* an epoch may begin at the end */
    CHECK(e, {2, 0}, {5, 10}, {6, 30});
    vv_epochs_cut_end(&e, 29);
    CHECK(e, {2, 0}, {5, 10});
    vv_epochs_release(&e);
    e = three();
    vv_epochs_cut_start(&e, 12);
    CHECK(e, {5, 12}, {6, 30});
    vv_epochs_cut_start(&e, 5); /* nothing goes back */
    CHECK(e, {5, 12}, {6, 30});
    vv_epochs_cut_start(&e, 30);
    CHECK(e, {6, 30});
    vv_epochs_cut_start(&e, 1000);
    CHECK(e, {6, 1000});
    vv_epochs_cut_end(&e, 0);
    assert_int_equal(e.n, 0);
    vv_epochs_cut_start(&e, 5);
    assert_int_equal(e.n, 0);
    vv_epochs_release(&e);
}

static void looks_up(void **state)
{
    (void)state;
    struct vv_epochs e = three();
    static const struct {
        int64_t offset;
        int32_t epoch;
    } at[] = {{-1, -1}, {0, 2}, {9, 2}, {10, 5}, {29, 5}, {30, 6}, {INT64_MAX, 6}};
    for (size_t i = 0; i < VV_COUNT(at); i++)
        assert_int_equal(vv_epochs_at(&e, at[i].offset), at[i].epoch);
    static const struct { int32_t asked, epoch; int64_t end; } ends[] = {
        {-1, -1, -1}, {0, 0, 0}, {2, 2, 10}, {3, 2, 10}, {4, 2, 10}, {5, 5, 30}, {6, 6, 77}, {7, -1, -1}};
    for (size_t i = 0; i < VV_COUNT(ends); i++) {
        int32_t epoch;
        int64_t end;
        vv_epochs_end(&e, ends[i].asked, 77, &epoch, &end);
        assert_int_equal(epoch, ends[i].epoch);
        assert_int_equal(end, ends[i].end);
    }
    vv_epochs_release(&e);
    int32_t epoch;
    int64_t end;
    vv_epochs_end(&e, 0, 77, &epoch, &end);
    assert_int_equal(epoch, -1);
    assert_int_equal(end, -1);
    assert_int_equal(vv_epochs_at(&e, 5), -1);
}

static void write_text(const char *text, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/leader-epoch-checkpoint", dir);
    assert_int_equal(vv_fs_write_file(&vv_env_posix, path, text, n), 0);
}

static void saves_and_loads(void **state)
{
    (void)state;
    struct vv_epochs e = three(), f = {0};
    char path[128];
    uint8_t *text;
    size_t n;
    assert_int_equal(vv_epochs_load(&f, &vv_env_posix, dir), 0); /* absent */
    assert_int_equal(f.n, 0);
    assert_int_equal(vv_epochs_save(&e, &vv_env_posix, dir, true), 0);
    snprintf(path, sizeof path, "%s/leader-epoch-checkpoint", dir);
    assert_int_equal(vv_fs_read_file(&vv_env_posix, path, 1000, &text, &n), 0);
    assert_string_equal((char *)text, "0\n3\n2 0\n5 10\n6 30\n"); /* as Kafka writes it */
    free(text);
    assert_int_equal(vv_epochs_load(&f, &vv_env_posix, dir), 0);
    CHECK(f, {2, 0}, {5, 10}, {6, 30});
    assert_int_equal(vv_epochs_assign(&f, INT32_MAX, INT64_MAX), 1);
    assert_int_equal(vv_epochs_save(&f, &vv_env_posix, dir, true), 0);
    assert_int_equal(vv_epochs_load(&e, &vv_env_posix, dir), 0);
    CHECK(e, {2, 0}, {5, 10}, {6, 30}, {INT32_MAX, INT64_MAX});
    e.n = 0;
    assert_int_equal(vv_epochs_save(&e, &vv_env_posix, dir, true), 0);
    assert_int_equal(vv_epochs_load(&f, &vv_env_posix, dir), 0);
    assert_int_equal(f.n, 0);
    vv_epochs_release(&e);
    vv_epochs_release(&f);
}

static void nonsense(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "\n",
        "0",
        "0\n",
        "1\n0\n",
        "0\n1\n",
        "0\n-1\n",
        "0\n2\n1 1\n",
        "0\n1\n1 1\n2 2\n",
        "0\n1\n1 1",
        "0\n1\n1  1\n",
        "0\n1\n1 1 1\n",
        "0\n1\n1\n",
        "0\n1\na 1\n",
        "0\n1\n1 b\n",
        "0\n1\n-1 0\n",
        "0\n1\n1 -1\n",
        "0\n2\n1 1\n1 2\n",
        "0\n2\n2 1\n1 2\n",
        "0\n2\n1 5\n2 5\n",
        "0\n2\n1 5\n2 4\n",
        "0\n1\n2147483648 1\n",
        "0\n1\n1 9223372036854775808\n",
        "0\n99999999999999999999\n",
        "0\n2147483647\n1 1\n",
        "0\n1\n1 1\n\n",
        " 0\n0\n",
        "0\r\n0\r\n",
    };
    struct vv_epochs e = {0};
    for (size_t i = 0; i < VV_COUNT(bad); i++) {
        write_text(bad[i], strlen(bad[i]));
        assert_int_equal(vv_epochs_load(&e, &vv_env_posix, dir), VV_E_CORRUPT);
        assert_int_equal(e.n, 0);
    }
    write_text("0\n1\n1 1\n\0", 9); /* a NUL does not end the file */
    assert_int_equal(vv_epochs_load(&e, &vv_env_posix, dir), VV_E_CORRUPT);
    static const char good[] = "0\n2\n1 1\n20 300\n";
    for (size_t n = 0; n < sizeof good - 1; n++) { /* no prefix is a checkpoint */
        write_text(good, n);
        assert_int_equal(vv_epochs_load(&e, &vv_env_posix, dir), VV_E_CORRUPT);
    }
    write_text(good, sizeof good - 1);
    assert_int_equal(vv_epochs_load(&e, &vv_env_posix, dir), 0);
    CHECK(e, {1, 1}, {20, 300});
    vv_epochs_release(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(assigns),
        cmocka_unit_test(cuts),
        cmocka_unit_test(looks_up),
        cmocka_unit_test_setup_teardown(saves_and_loads, setup, teardown),
        cmocka_unit_test_setup_teardown(nonsense, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
