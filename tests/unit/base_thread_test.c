/* Background threads: their name and their nice value, and that it is theirs alone. */
#include "varve/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/resource.h>

struct seen {
    char name[16];
    int nice, childs;
};

static void *tell(void *nice)
{
    *(int *)nice = getpriority(PRIO_PROCESS, 0);
    return NULL;
}

static void *background(void *arg)
{
    struct seen *s = arg;
    pthread_t child;
    vv_thread_background("tier-upload");
    vv_thread_background("tier-upload"); /* not twice as nice */
    pthread_getname_np(pthread_self(), s->name, sizeof s->name);
    s->nice = getpriority(PRIO_PROCESS, 0);
    if (!pthread_create(&child, NULL, tell, &s->childs)) pthread_join(child, NULL);
    return NULL;
}

static struct seen run(void)
{
    struct seen s = {.childs = -99};
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, background, &s), 0);
    pthread_join(t, NULL);
    return s;
}

static void only_background_threads_are_nice(void **state)
{
    (void)state;
    int own = getpriority(PRIO_PROCESS, 0);
    struct seen s = run();
    assert_string_equal(s.name, "tier-upload");
    assert_int_equal(s.nice, own); /* nobody said how nice */
    vv_background_nice(0);
    assert_int_equal(run().nice, own);
    if (own > 14) return; /* the whole test runs as low as it goes */
    vv_background_nice(5);
    s = run();
    assert_int_equal(s.nice, own + 5);
    assert_int_equal(s.childs, own + 5);
    assert_int_equal(getpriority(PRIO_PROCESS, 0), own);
    vv_background_nice(19);
    assert_int_equal(run().nice, 19);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_background_threads_are_nice)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
