/* The EV story: in order, the same from the same seed, sessions whole, rhythm as meant. */
#include "ev_story.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include <cmocka.h>

#define DAY    86400000LL
#define MONDAY 1767571200000LL /* 2026-01-05T00:00:00Z */

static void same_seed_same_story(void **state)
{
    (void)state;
    struct ev_story *a = ev_story_new(7, 12, MONDAY, MONDAY + DAY),
                    *b = ev_story_new(7, 12, MONDAY, MONDAY + DAY);
    struct ev_story *c = ev_story_new(8, 12, MONDAY, MONDAY + DAY);
    struct ev_event x, y, z;
    int n = 0, differs = 0;
    while (ev_story_next(a, &x)) {
        assert_int_equal(ev_story_next(b, &y), 1);
        assert_string_equal(x.json, y.json);
        assert_string_equal(x.key, y.key);
        differs |= ev_story_next(c, &z) && strcmp(x.json, z.json);
        n++;
    }
    assert_int_equal(ev_story_next(b, &y), 0);
    assert_true(n > 100 && differs);
    ev_story_free(a);
    ev_story_free(b);
    ev_story_free(c);
    ev_story_free(NULL);
}

static void sessions_are_whole(void **state)
{
    (void)state;
    enum { STATIONS = 30 };
    int open[STATIONS] = {0}, seq[STATIONS] = {0};
    int64_t last = 0, wh[STATIONS] = {0}, ended = 0;
    struct ev_story *s = ev_story_new(1, STATIONS, MONDAY, MONDAY + 7 * DAY);
    struct ev_event e;
    while (ev_story_next(s, &e)) {
        assert_true(e.time_ms >= last && e.time_ms >= MONDAY && e.time_ms < MONDAY + 7 * DAY);
        last = e.time_ms;
        assert_int_equal(open[e.station], e.type != EV_STARTED);
        open[e.station] = e.type != EV_ENDED;
        if (e.type == EV_STARTED) seq[e.station] = (int)(wh[e.station] = 0);
        assert_true(e.session_wh >= wh[e.station] && e.session_wh < 100000);
        wh[e.station] = e.session_wh;
        json_t *j = json_loadb(e.json, e.json_n, 0, NULL);
        assert_non_null(j);
        assert_int_equal(json_integer_value(json_object_get(j, "seqNo")), seq[e.station]++);
        json_t *custom = json_object_get(j, "customData");
        assert_string_equal(json_string_value(json_object_get(custom, "station")), e.key);
        ended += e.type == EV_ENDED;
        json_decref(j);
    }
    assert_true(ended > 300);
    ev_story_free(s);
}

static void weekdays_differ(void **state)
{
    (void)state;
    int workday = 0, weekend = 0, night = 0, day = 0;
    struct ev_story *s = ev_story_new(3, 60, MONDAY, MONDAY + 28 * DAY);
    struct ev_event e;
    while (ev_story_next(s, &e)) {
        int hour = (int)((e.time_ms - MONDAY) / 3600000 % 168);
        if (e.type != EV_STARTED) continue;
        if (e.site == 2) /* the offices */
            *(hour >= 120 ? &weekend : &workday) += 1;
        *(hour % 24 < 5 ? &night : &day) += 1;
    }
    assert_true(workday > 10 * weekend);
    assert_true(day > 8 * night);
    ev_story_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_seed_same_story),
                                       cmocka_unit_test(sessions_are_whole),
                                       cmocka_unit_test(weekdays_differ)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
