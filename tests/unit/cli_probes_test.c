/* The machine's probes: every number is there, no file stays behind, a directory that is not there is told. */
#include "probes.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static int entries(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    while (d && readdir(d)) n++;
    closedir(d);
    return n - 2;
}

static void all_numbers(void **state)
{
    (void)state;
    struct vv_probes p;
    struct vv_error e = {0};
    char dir[] = "/tmp/varve-probes-XXXXXX";
    assert_non_null(mkdtemp(dir));
    if (vv_probe_machine(dir, &p, &e)) fail_msg("%s", e.text);
    assert_true(p.cpus > 0 && p.memcpy_gb_s > 0 && p.crc32c_gb_s > 0 && p.loopback_mb_s > 0);
    assert_true(p.append_cold_mb_s > 0 && p.append_mb_s > 0 && p.syncs > 0);
    assert_true(p.sync_p99_us >= p.sync_p50_us);
    assert_int_equal(entries(dir), 0);
    rmdir(dir);
}

static void no_directory(void **state)
{
    (void)state;
    struct vv_probes p;
    struct vv_error e = {0};
    assert_int_equal(vv_probe_machine("/nowhere/at/all", &p, &e), VV_E_NOENT);
    assert_non_null(strstr(e.text, "/nowhere/at/all"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_numbers), cmocka_unit_test(no_directory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
