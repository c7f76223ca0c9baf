/* fs_fault: the chosen call fails in the chosen way, the others pass; whole-file writes survive a failure at every
 * call. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "env_sim.h"
#include "varve/error.h"

static struct vv_fs_mem *mem;
static struct vv_fs_fault *fault;
static struct vv_env env;

static int setup(void **state)
{
    (void)state;
    mem = vv_fs_mem_new(NULL);
    fault = vv_fs_fault_new(&vv_fs_mem_ops, mem);
    env = (struct vv_env){.fs_ops = &vv_fs_fault_ops, .fs = fault};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    vv_fs_fault_free(fault);
    vv_fs_mem_free(mem);
    return 0;
}

static void nth_of_a_kind(void **state)
{
    (void)state;
    struct vv_file *f;
    int id = vv_fs_fault_add(
        fault,
        &(struct vv_fsfault_rule){.ops = VV_FSOP_PWRITE, .path_part = "seg", .from = 2, .count = 2, .err = VV_E_NOSPC});
    assert_int_equal(vv_fs_open(&env, "/seg", VV_O_WRITE | VV_O_CREATE, &f), 0);
    assert_int_equal(vv_fs_write_file(&env, "/other", "x", 1), 0); /* another path does not count */
    assert_int_equal(vv_fs_pwrite(&env, f, "1", 1, 0), 0);
    assert_int_equal(vv_fs_pwrite(&env, f, "2", 1, 1), VV_E_NOSPC);
    assert_int_equal(vv_fs_datasync(&env, f), 0);
    assert_int_equal(vv_fs_pwrite(&env, f, "2", 1, 1), VV_E_NOSPC);
    assert_int_equal(vv_fs_pwrite(&env, f, "2", 1, 1), 0);
    assert_int_equal(vv_fs_fault_hits(fault, id), 2);
    assert_int_equal(vv_fs_fault_calls(fault, VV_FSOP_PWRITE), 5);
    vv_fs_close(&env, f);
}

static void for_ever_and_cleared(void **state)
{
    (void)state;
    struct vv_stat st;
    int id = vv_fs_fault_add(fault, &(struct vv_fsfault_rule){0}); /* everything, E_IO */
    for (int i = 0; i < 3; i++) assert_int_equal(vv_fs_stat(&env, "/", &st), VV_E_IO);
    assert_int_equal(vv_fs_fault_hits(fault, id), 3);
    vv_fs_fault_clear(fault);
    assert_int_equal(vv_fs_stat(&env, "/", &st), 0);
}

static void halves_and_late_failures(void **state)
{
    (void)state;
    struct vv_file *f;
    char buf[8];
    uint64_t size;
    assert_int_equal(vv_fs_open(&env, "/f", VV_O_WRITE | VV_O_CREATE, &f), 0);
    vv_fs_fault_add(fault, &(struct vv_fsfault_rule){.ops = VV_FSOP_PWRITE, .count = 1, .action = VV_FSFAULT_HALF});
    vv_fs_fault_add(fault, &(struct vv_fsfault_rule){.ops = VV_FSOP_PREAD, .count = 1, .action = VV_FSFAULT_HALF});
    vv_fs_fault_add(fault, &(struct vv_fsfault_rule){
                               .ops = VV_FSOP_RENAME, .path_part = "/g", .count = 1, .action = VV_FSFAULT_LATE});
    assert_int_equal(vv_fs_pwrite(&env, f, "abcdef", 6, 0), VV_E_IO);
    assert_int_equal(vv_fs_size(&env, f, &size), 0);
    assert_int_equal(size, 3);
    assert_int_equal(vv_fs_pwrite(&env, f, "abcdef", 6, 0), 0);
    assert_int_equal(vv_fs_pread(&env, f, buf, 6, 0), 3);
    assert_int_equal(vv_fs_pread(&env, f, buf, 6, 0), 6);
    assert_int_equal(vv_fs_rename(&env, "/f", "/g"), VV_E_IO);    /* the destination's name fits too */
    assert_int_equal(vv_fs_rename(&env, "/f", "/g"), VV_E_NOENT); /* it was done */
    vv_fs_close(&env, f);
}

/* A failure at any call leaves the old content or the new, and an error is told unless it is the new. */
static void whole_file_at_every_call(void **state)
{
    (void)state;
    unsigned failed = 0;
    for (unsigned n = 1;; n++) {
        uint8_t *p;
        size_t k;
        vv_fs_fault_clear(fault);
        assert_int_equal(vv_fs_write_file(&env, "/f", "old", 3), 0);
        int id = vv_fs_fault_add(fault, &(struct vv_fsfault_rule){.from = n, .count = 1});
        int err = vv_fs_write_file(&env, "/f", "new", 3);
        bool hit = vv_fs_fault_hits(fault, id);
        vv_fs_fault_clear(fault);
        assert_int_equal(vv_fs_read_file(&env, "/f", 10, &p, &k), 0);
        assert_int_equal(k, 3);
        if (err) assert_true(!memcmp(p, "old", 3) || !memcmp(p, "new", 3));
        else assert_memory_equal(p, "new", 3);
        free(p);
        failed += err != 0;
        assert_int_equal(vv_fs_mem_open_files(mem), 0);
        if (!hit) break;
        assert_int_equal(err, VV_E_IO);
    }
    assert_int_equal(failed, 5); /* open, write, sync, rename, sync of the directory */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(nth_of_a_kind),
        T(for_ever_and_cleared),
        T(halves_and_late_failures),
        T(whole_file_at_every_call),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
