/* wait.c — see varve/wait.h. */
#include "varve/wait.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

void vv_cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

struct timespec vv_deadline_us(int64_t us)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (us <= 0) return t;
    int64_t ns = t.tv_nsec + us % 1000000 * 1000;
    t.tv_sec += us / 1000000 + ns / 1000000000;
    t.tv_nsec = ns % 1000000000;
    return t;
}

void vv_event_wait(struct vv_event *e, pthread_mutex_t *mu)
{
    uint32_t seen = atomic_load(&e->count);
    atomic_fetch_add(&e->waiting, 1);
    pthread_mutex_unlock(mu);
    syscall(SYS_futex, &e->count, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0); /* woken, not equal any more, a signal: all the same */
    atomic_fetch_sub(&e->waiting, 1);
    pthread_mutex_lock(mu);
}

void vv_event_wake(struct vv_event *e, bool all)
{
    atomic_fetch_add(&e->count, 1);
    if (atomic_load(&e->waiting)) syscall(SYS_futex, &e->count, FUTEX_WAKE_PRIVATE, all ? INT_MAX : 1, NULL, NULL, 0);
}
