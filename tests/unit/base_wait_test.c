/* Event counts: nothing is missed, and everybody can be woken. */
#include "varve/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { TAKERS = 4, GIVERS = 2, EACH = 20000 };

static struct {
    pthread_mutex_t mu;
    struct vv_event more;
    int here, taken;
    bool over;
} Q = {.mu = PTHREAD_MUTEX_INITIALIZER};

static void *take(void *arg)
{
    pthread_mutex_lock(&Q.mu);
    for (;;) {
        while (!Q.here && !Q.over) vv_event_wait(&Q.more, &Q.mu);
        if (!Q.here) break;
        Q.here--;
        Q.taken++;
    }
    pthread_mutex_unlock(&Q.mu);
    return arg;
}

static void *give(void *arg)
{
    for (int i = 0; i < EACH; i++) {
        pthread_mutex_lock(&Q.mu);
        Q.here++;
        if (i % 2) vv_event_wake(&Q.more, false);
        pthread_mutex_unlock(&Q.mu);
        if (i % 2 == 0) vv_event_wake(&Q.more, false);
    }
    return arg;
}

/* A wake-up that got lost leaves an item, or a taker that does not end: the test's time limit. */
static void nothing_is_missed(void **state)
{
    (void)state;
    pthread_t takers[TAKERS], givers[GIVERS];
    for (int i = 0; i < TAKERS; i++) assert_int_equal(pthread_create(&takers[i], NULL, take, NULL), 0);
    for (int i = 0; i < GIVERS; i++) assert_int_equal(pthread_create(&givers[i], NULL, give, NULL), 0);
    for (int i = 0; i < GIVERS; i++) pthread_join(givers[i], NULL);
    pthread_mutex_lock(&Q.mu);
    Q.over = true;
    pthread_mutex_unlock(&Q.mu);
    vv_event_wake(&Q.more, true);
    for (int i = 0; i < TAKERS; i++) pthread_join(takers[i], NULL);
    assert_int_equal(Q.here, 0);
    assert_int_equal(Q.taken, GIVERS * EACH);
    assert_int_equal(atomic_load(&Q.more.waiting), 0);
}

static struct {
    pthread_mutex_t mu;
    struct vv_event first, second;
    int turn, rounds;
} P = {.mu = PTHREAD_MUTEX_INITIALIZER};

static void *pong(void *arg)
{
    pthread_mutex_lock(&P.mu);
    while (P.rounds) {
        while (P.turn != 1) vv_event_wait(&P.second, &P.mu);
        P.turn = 0;
        P.rounds--;
        vv_event_wake(&P.first, false);
    }
    pthread_mutex_unlock(&P.mu);
    return arg;
}

/* One item at a time: each side sleeps until the other has had its turn. */
static void one_wakes_the_other(void **state)
{
    (void)state;
    pthread_t t;
    P.rounds = 5000;
    assert_int_equal(pthread_create(&t, NULL, pong, NULL), 0);
    for (int i = 0; i < 5000; i++) {
        pthread_mutex_lock(&P.mu);
        P.turn = 1;
        vv_event_wake(&P.second, false);
        while (P.turn) vv_event_wait(&P.first, &P.mu);
        pthread_mutex_unlock(&P.mu);
    }
    pthread_join(t, NULL);
    assert_int_equal(P.rounds, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_missed), cmocka_unit_test(one_wakes_the_other)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
