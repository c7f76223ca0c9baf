/* JSON for which there was no memory has no text; what comes after it has. */
#include "jsontext.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

/* A sanitizer's allocator, too, says no rather than ending the process. It asks before it is ready to watch anybody. */
#define UNWATCHED __attribute__((no_sanitize("thread")))
const char *__asan_default_options(void);
UNWATCHED const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void);
UNWATCHED const char *__tsan_default_options(void)
{
    return __asan_default_options();
}

static void a_value_that_was_dropped(void **state)
{
    (void)state;
    json_t *o = json_object();
    json_object_set_new(o, "kept", json_integer(1));
    json_object_set_new(o, "dropped", json_stringn_nocheck("", SIZE_MAX / 4)); /* no memory for that */
    assert_null(vv_json_text(o, JSON_COMPACT));
    json_decref(o);
    o = json_object();
    json_object_set_new(o, "kept", json_integer(1));
    char *text = vv_json_text(o, JSON_COMPACT);
    assert_string_equal(text, "{\"kept\":1}");
    free(text);
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_value_that_was_dropped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
