/* The housekeeper's judgement: how much disk must stay free, and when wall time may drive deletions. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "housekeeper.h"

#define GIB    (1ULL << 30)
#define HOUR   3600000LL
#define DAY    (24 * HOUR)
#define A_DATE 1700000000000LL /* any wall time */

static void the_reserve_is_a_gib_or_a_twentieth_less_on_small_disks(void **state)
{
    struct vv_broker_config c = {.tier_disk_reserve = -1};
    (void)state;
    assert_int_equal(vv_disk_reserve(&c, 100 * GIB), 5 * GIB);
    assert_int_equal(vv_disk_reserve(&c, 10 * GIB), GIB);
    assert_int_equal(vv_disk_reserve(&c, 64 << 20), 8 << 20);
    c.tier_disk_reserve = 12345;
    assert_int_equal(vv_disk_reserve(&c, 100 * GIB), 12345);
    c.tier_disk_reserve = 0;
    assert_int_equal(vv_disk_reserve(&c, 100 * GIB), 0);
}

static enum vv_disk_state with_free(uint64_t available)
{
    struct vv_broker_config c = {.tier_disk_reserve = 1000};
    struct vv_space s = {.total = 100000, .available = available};
    return vv_disk_state_of(&c, &s);
}

static void producers_are_slowed_below_twice_the_reserve_and_refused_below_it(void **state)
{
    (void)state;
    assert_int_equal(with_free(5000), VV_DISK_OK);
    assert_int_equal(with_free(2000), VV_DISK_OK);
    assert_int_equal(with_free(1999), VV_DISK_THROTTLE);
    assert_int_equal(with_free(1000), VV_DISK_THROTTLE);
    assert_int_equal(with_free(999), VV_DISK_REFUSE);
    assert_int_equal(with_free(0), VV_DISK_REFUSE);
}

static void a_clock_that_goes_its_way_is_believed(void **state)
{
    struct vv_clock_watch w;
    (void)state;
    vv_clock_watch_begin(&w, A_DATE, 5000, 0);
    assert_true(w.trusted);
    assert_true(vv_clock_watch_look(&w, A_DATE + DAY, 5000 + DAY));
    assert_true(vv_clock_watch_look(&w, A_DATE + 2 * DAY + HOUR / 2, 5000 + 2 * DAY)); /* set by half an hour */
}

static void slewing_is_followed(void **state)
{
    struct vv_clock_watch w;
    int64_t wall = A_DATE, mono = 0;
    (void)state;
    vv_clock_watch_begin(&w, wall, mono, 0);
    for (int64_t i = 0; i < 8 * HOUR; i += 500) { /* 0.1 % fast for a long time: far more than an hour in the end */
        wall += 1001;
        mono += 1000;
        assert_true(vv_clock_watch_look(&w, wall, mono));
    }
}

static void a_jump_pauses_until_the_clock_returns(void **state)
{
    struct vv_clock_watch w;
    (void)state;
    vv_clock_watch_begin(&w, A_DATE, 0, 0);
    assert_false(vv_clock_watch_look(&w, A_DATE + 3650 * DAY, 1000));
    assert_false(vv_clock_watch_look(&w, A_DATE + 3650 * DAY + HOUR, HOUR));
    assert_true(vv_clock_watch_look(&w, A_DATE + 2 * HOUR, 2 * HOUR));
    assert_false(vv_clock_watch_look(&w, A_DATE - DAY, 3 * HOUR)); /* backwards too */
    assert_true(vv_clock_watch_look(&w, A_DATE + 4 * HOUR, 4 * HOUR));
}

static void a_person_may_confirm_a_jump(void **state)
{
    struct vv_clock_watch w;
    (void)state;
    vv_clock_watch_begin(&w, A_DATE, 0, 0);
    assert_false(vv_clock_watch_look(&w, A_DATE + 40 * DAY, 1000));
    vv_clock_watch_confirm(&w, A_DATE + 40 * DAY, 2000);
    assert_true(vv_clock_watch_look(&w, A_DATE + 40 * DAY + 1000, 3000));
}

static void a_start_compares_with_the_journal(void **state)
{
    struct vv_clock_watch w;
    (void)state;
    vv_clock_watch_begin(&w, A_DATE + DAY, 0, A_DATE);
    assert_true(w.trusted);
    vv_clock_watch_begin(&w, A_DATE + 31 * DAY, 0, A_DATE);
    assert_false(w.trusted);
    assert_false(vv_clock_watch_look(&w, A_DATE + 31 * DAY + 1000, 1000));
    assert_true(vv_clock_watch_look(&w, A_DATE + 2000, 2000));
}

static void a_start_behind_the_journal_waits_until_it_has_caught_up(void **state)
{
    struct vv_clock_watch w;
    (void)state;
    vv_clock_watch_begin(&w, 0, 0, A_DATE); /* no battery: 1970 */
    assert_false(w.trusted);
    assert_false(vv_clock_watch_look(&w, 1000, 1000));
    assert_false(vv_clock_watch_look(&w, A_DATE + 3650 * DAY, 2000)); /* from one extreme to the other */
    assert_true(vv_clock_watch_look(&w, A_DATE + HOUR, 3000));        /* time service answered */
    assert_true(vv_clock_watch_look(&w, A_DATE + HOUR + 1000, 4000));
}

static void between_two_looks_a_jump_is_seen_and_writes_count(void **state)
{
    struct vv_broker b = {.env = &vv_env_posix};
    int64_t wall = vv_wall_ms(b.env);
    (void)state;
    assert_false(vv_broker_time_trusted(&b, wall)); /* nobody looked yet */
    atomic_store(&b.time_trusted, true);
    atomic_store(&b.clock_gap_ms, wall - vv_mono_ms(b.env));
    assert_true(vv_broker_time_trusted(&b, wall));
    assert_false(vv_broker_time_trusted(&b, wall + DAY));
    assert_false(vv_broker_time_trusted(&b, wall - DAY));
    vv_broker_disk_written(&b, 1 << 30); /* no limit is known */
    assert_int_equal(atomic_load(&b.disk_state), VV_DISK_OK);
    uint64_t written = atomic_load(&b.disk_written);
    atomic_store(&b.disk_written_slow, written + 100);
    atomic_store(&b.disk_written_max, written + 200);
    vv_broker_disk_written(&b, 99);
    assert_int_equal(atomic_load(&b.disk_state), VV_DISK_OK);
    vv_broker_disk_written(&b, 1);
    assert_int_equal(atomic_load(&b.disk_state), VV_DISK_THROTTLE);
    vv_broker_disk_written(&b, 100);
    assert_int_equal(atomic_load(&b.disk_state), VV_DISK_REFUSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reserve_is_a_gib_or_a_twentieth_less_on_small_disks),
        cmocka_unit_test(producers_are_slowed_below_twice_the_reserve_and_refused_below_it),
        cmocka_unit_test(a_clock_that_goes_its_way_is_believed),
        cmocka_unit_test(slewing_is_followed),
        cmocka_unit_test(a_jump_pauses_until_the_clock_returns),
        cmocka_unit_test(a_person_may_confirm_a_jump),
        cmocka_unit_test(a_start_compares_with_the_journal),
        cmocka_unit_test(a_start_behind_the_journal_waits_until_it_has_caught_up),
        cmocka_unit_test(between_two_looks_a_jump_is_seen_and_writes_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
