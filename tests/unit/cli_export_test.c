/* What `varve replay` writes: UTF-8 or not, JSON and CSV text; positions as they are typed; the progress line. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "bucket.h"
#include "export.h"
#include "progress.h"

static bool utf8(const char *s)
{
    return vv_utf8_ok((const uint8_t *)s, strlen(s));
}

static void utf8_or_not(void **state)
{
    (void)state;
    static const char *const good[] = {"", "plain", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x9a\x97", "\xed\x9f\xbf",
                                       "\xee\x80\x80", "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\xff", "\xc3", "\xc3(", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80", "\x80", "ok\xe2\x82", "\xf0\x9f\x9a"};
    for (size_t i = 0; i < VV_COUNT(good); i++) assert_true(utf8(good[i]));
    for (size_t i = 0; i < VV_COUNT(bad); i++) assert_false(utf8(bad[i]));
    assert_true(vv_utf8_ok((const uint8_t *)"a\0b", 3));
}

static void expect(enum vv_export_format f, const struct vv_record *r, const char *want)
{
    struct vv_export x = {.format = f, .topic = "t", .partition = 3};
    vv_export_record(&x, r, VV_LOG_APPEND_TIME);
    assert_int_equal(x.out.n, strlen(want));
    assert_memory_equal(x.out.p, want, x.out.n);
    vv_export_release(&x);
}

static void records(void **state)
{
    (void)state;
    static const uint8_t headers[] = {2, 'h', 2, 'v', 2, 'h', 1, 2, 'b', 4, 0xff, 0}; /* h=v, h=null, b=bytes */
    struct vv_record r = {.offset = 5, .timestamp = -1, .key_n = -1, .value = (const uint8_t *)"a\"b\\\n\x01,",
                          .value_n = 7, .headers = 3,
                          .headers_p = headers, .headers_n = sizeof headers};
    expect(VV_EXPORT_NDJSON, &r,
           "{\"topic\":\"t\",\"partition\":3,\"offset\":5,\"timestamp\":-1,\"timestampType\":\"LogAppendTime\",\"key\":null,"
           "\"value\":\"a\\\"b\\\\\\n\\u0001,\",\"headers\":[{\"key\":\"h\",\"value\":\"v\"},{\"key\":\"h\",\"value\":null},"
           "{\"key\":\"b\",\"value\":{\"base64\":\"/wA=\"}}]}\n");
    expect(VV_EXPORT_CSV, &r,
           "t,3,5,-1,LogAppendTime,,\"a\"\"b\\\n\x01,\",\"[{\"\"key\"\":\"\"h\"\",\"\"value\"\":\"\"v\"\"},{\"\"key\"\":\"\"h\"\",\"\"value\"\":null},"
           "{\"\"key\"\":\"\"b\"\",\"\"value\"\":{\"\"base64\"\":\"\"/wA=\"\"}}]\"\n");
    expect(VV_EXPORT_RAW, &r, "a\"b\\\n\x01,\n");
    r.headers = 0;
    r.key = (const uint8_t *)"";
    r.key_n = 0;
    r.value_n = -1;
    expect(VV_EXPORT_CSV, &r, "t,3,5,-1,LogAppendTime,\"\",,[]\n");
    expect(VV_EXPORT_RAW, &r, "\n");
    r.headers = 9; /* more announced than there are: they end, nothing is read beyond */
    r.headers_n = 3;
    expect(VV_EXPORT_CSV, &r, "t,3,5,-1,LogAppendTime,\"\",,[]\n");
}

static void base64_lengths(void **state)
{
    (void)state;
    static const char *const want[] = {"{\"base64\":\"/w==\"}", "{\"base64\":\"//4=\"}", "{\"base64\":\"//79\"}",
                                       "{\"base64\":\"//79/A==\"}"};
    static const uint8_t bytes[] = {0xff, 0xfe, 0xfd, 0xfc};
    for (int32_t n = 1; n <= 4; n++) {
        struct vv_export x = {.format = VV_EXPORT_NDJSON, .topic = "t"};
        struct vv_record r = {.key = bytes, .key_n = n, .value_n = -1};
        vv_export_record(&x, &r, VV_CREATE_TIME);
        assert_non_null(memmem(x.out.p, x.out.n, want[n - 1], strlen(want[n - 1])));
        vv_export_release(&x);
    }
}

static void positions(void **state)
{
    (void)state;
    static const struct { const char *text; bool ok, is_time; int64_t at; } v[] = {
        {"0", true, false, 0}, {"42", true, false, 42}, {"9223372036854775807", true, false, INT64_MAX},
        {"9223372036854775808", false, false, 0},
        {"-1", false, false, 0}, {"", false, false, 0}, {"1x", false, false, 0},
        {"ts:1700000000123", true, true, 1700000000123}, {"ts:-5", true, true, -5},
        {"ts:", false, false, 0}, {"ts:1.5", false, false, 0}, {"1970-01-01T00:00:00Z", true, true, 0},
        {"2023-11-14T22:13:20.123Z", true, true, 1700000000123},
        {"2023-11-14t22:13:20.1239z", true, true, 1700000000123},
        {"2023-11-14T23:13:20+01:00", true, true, 1700000000000},
        {"2023-11-14 16:43:20-05:30", true, true, 1700000000000}, {"2024-02-29T00:00:00Z", true, true, 1709164800000},
        {"2023-02-29T00:00:00Z", false, false, 0},
        {"2023-13-01T00:00:00Z", false, false, 0}, {"2023-01-01T24:00:00Z", false, false, 0},
        {"2023-01-01T00:00:00", false, false, 0},
        {"2023-01-01", false, false, 0}, {"2023-01-01T00:00:00Zx", false, false, 0},
        {"2023-01-01T00:00:00.Z", false, false, 0}, {"yesterday", false, false, 0},
        {"1969-12-31T23:59:59.999Z", true, true, -1},
    };
    for (size_t i = 0; i < VV_COUNT(v); i++) {
        struct vv_position p;
        bool ok = vv_position_parse(v[i].text, &p);
        if (ok != v[i].ok) print_error("%s\n", v[i].text);
        assert_int_equal(ok, v[i].ok);
        if (!ok) continue;
        assert_int_equal(p.is_time, v[i].is_time);
        assert_int_equal(p.at, v[i].at);
    }
    char text[40];
    assert_string_equal(vv_time_text(1700000000123, text), "2023-11-14T22:13:20.123Z");
    assert_string_equal(vv_time_text(-2, text), "1969-12-31T23:59:59.998Z");
    assert_string_equal(vv_time_text(-1, text), "-");
}

static void progress(void **state)
{
    (void)state;
    char text[200];
    vv_progress_text(text, sizeof text, 1u << 30, 3ull << 30, 12, 2000000);
    assert_string_equal(text, "1.0 GiB of 3.0 GiB  33 %  512 MiB/s  ETA 0:04  12 records");
    vv_progress_text(text, sizeof text, 0, 0, 0, 0);
    assert_string_equal(text, "0 B of 0 B  0 %  0 B/s  ETA -  0 records");
    vv_progress_text(text, sizeof text, 1000, 1000 + 3661ull * 1000, 1, 1000000);
    assert_non_null(strstr(text, "ETA 1:01:01"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(utf8_or_not), cmocka_unit_test(records),
                                       cmocka_unit_test(base64_lengths),
                                       cmocka_unit_test(positions), cmocka_unit_test(progress)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
