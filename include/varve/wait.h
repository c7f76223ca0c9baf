/* wait.h — timed waits of threads: conditions that count the kernel's monotonic time, whatever the wall clock does.
 *
 * For waits that only threads make. What a simulation must decide goes by vv_mono_us of the environment (env.h). */
#ifndef VARVE_WAIT_H
#define VARVE_WAIT_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

void vv_cond_init(pthread_cond_t *c);        /* its timed waits end at a vv_deadline_us */
struct timespec vv_deadline_us(int64_t us);  /* so many microseconds from now; 0 or less: now */

/* An event count: a condition whose caller never waits. pthread_cond_signal may: glibc lets it wait until those whom the signal before
 * woke have run, and where the core is taken that is tens of milliseconds, with the caller's mutex in hand. So what a reactor
 * wakes, waits here. Zero is a valid one; nothing to destroy. Futex(2); spurious returns as with conditions. */
struct vv_event {
    _Atomic uint32_t count, waiting;
};
/* mu is held, given up meanwhile, and held again. Who changes what is waited for holds mu, then wakes: nothing is missed. */
void vv_event_wait(struct vv_event *e, pthread_mutex_t *mu);
void vv_event_wake(struct vv_event *e, bool all); /* any thread; mu may be held */
#endif
