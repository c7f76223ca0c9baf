/* reactor.c — one epoll loop on one thread: descriptors, tasks from other threads, timers.
 *
 * Tasks: an MPSC stack of embedded nodes; the pusher that finds it empty writes the eventfd, so a burst of posts costs one
 * wake-up. A task that is queued already is not queued again; its flag is cleared before it runs, so a post during the
 * run queues it anew. A task may ask for one that runs behind all of this turn's (vv_reactor_later). Timers: a binary heap of embedded nodes that know their slot, so cancelling is O(log n).
 * Invariant: everything but vv_reactor_post runs on the reactor's thread (asserted by owner functions). */
#include "net_impl.h"
#include "varve/vlog.h"
#include "varve/bytes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS_MAX 256

/* ---- descriptors ---- */

int vv_reactor_watch(struct vv_reactor *r, int fd, uint32_t events, struct vv_source *s)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};
    return epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &ev) ? vv_err_from_errno(errno) : VV_OK;
}

int vv_reactor_rewatch(struct vv_reactor *r, int fd, uint32_t events, struct vv_source *s)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};
    return epoll_ctl(r->epoll_fd, EPOLL_CTL_MOD, fd, &ev) ? vv_err_from_errno(errno) : VV_OK;
}

void vv_reactor_unwatch(struct vv_reactor *r, int fd)
{
    epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* ---- tasks ---- */

static void wake(struct vv_reactor *r)
{
    uint64_t one = 1;
    ssize_t n;
    do
        n = write(r->wake_fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
}

void vv_reactor_post(struct vv_reactor *r, struct vv_task *t)
{
    if (atomic_exchange(&t->queued, 1)) return;
    struct vv_task *head = atomic_load(&r->mailbox);
    do
        t->next = head;
    while (!atomic_compare_exchange_weak(&r->mailbox, &head, t));
    /* t may have run and be gone by now. The loop looks at the mailbox before it sleeps: no wake-up for itself. */
    if (!head && !(r->started && pthread_equal(pthread_self(), r->thread))) wake(r);
}

void vv_reactor_later(struct vv_reactor *r, struct vv_task *t)
{
    if (atomic_exchange(&t->queued, 1)) return;
    t->next = r->later;
    r->later = t;
}

static void run_one(struct vv_task *t)
{
    atomic_store(&t->queued, 0);
    t->run(t);
}

static void run_tasks(struct vv_reactor *r)
{
    struct vv_task *taken = atomic_exchange(&r->mailbox, NULL), *list = NULL;
    while (taken) { /* oldest first */
        struct vv_task *next = taken->next;
        taken->next = list;
        list = taken;
        taken = next;
    }
    while (list) {
        struct vv_task *t = list;
        list = t->next;
        run_one(t);
    }
    while (r->later) {
        struct vv_task *t = r->later;
        r->later = t->next;
        run_one(t);
    }
}

static void on_wake(struct vv_source *s, uint32_t events)
{
    struct vv_reactor *r = VV_CONTAINER(s, struct vv_reactor, wake);
    uint64_t count;
    (void)events;
    ssize_t n = read(r->wake_fd, &count, sizeof count);
    (void)n; /* the mailbox says what there is to do */
}

/* ---- timers ---- */

static void place(struct vv_reactor *r, size_t i, struct vv_timer *t)
{
    r->timers[i] = t;
    t->slot = i + 1;
}

static void sift_up(struct vv_reactor *r, size_t i, struct vv_timer *t)
{
    while (i > 0 && r->timers[(i - 1) / 2]->due_us > t->due_us) {
        place(r, i, r->timers[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(r, i, t);
}

static void sift_down(struct vv_reactor *r, size_t i, struct vv_timer *t)
{
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= r->timer_count) break;
        if (k + 1 < r->timer_count && r->timers[k + 1]->due_us < r->timers[k]->due_us) k++;
        if (r->timers[k]->due_us >= t->due_us) break;
        place(r, i, r->timers[k]);
        i = k;
    }
    place(r, i, t);
}

void vv_timer_cancel(struct vv_reactor *r, struct vv_timer *t)
{
    vv_reactor_assert_here(r);
    if (!t->slot) return;
    size_t i = t->slot - 1;
    t->slot = 0;
    struct vv_timer *last = r->timers[--r->timer_count];
    if (last == t) return;
    if (i > 0 && r->timers[(i - 1) / 2]->due_us > last->due_us)
        sift_up(r, i, last);
    else
        sift_down(r, i, last);
}

void vv_timer_arm(struct vv_reactor *r, struct vv_timer *t, int64_t due_us)
{
    vv_reactor_assert_here(r);
    vv_timer_cancel(r, t);
    if (r->timer_count == r->timer_cap) {
        size_t cap = r->timer_cap ? r->timer_cap * 2 : 64;
        struct vv_timer **v = realloc(r->timers, cap * sizeof *v);
        if (!v) { /* without its timer a wait would never end: fire now */
            t->fire(t);
            return;
        }
        r->timers = v;
        r->timer_cap = cap;
    }
    t->due_us = due_us;
    sift_up(r, r->timer_count++, t);
}

static void run_timers(struct vv_reactor *r)
{
    int64_t now = vv_reactor_now_us(r);
    while (r->timer_count && r->timers[0]->due_us <= now) {
        struct vv_timer *t = r->timers[0];
        vv_timer_cancel(r, t);
        t->fire(t);
    }
}

static int wait_ms(struct vv_reactor *r)
{
    if (atomic_load(&r->mailbox)) return 0;
    if (!r->timer_count) return -1;
    int64_t us = r->timers[0]->due_us - vv_mono_us(r->env);
    return us <= 0 ? 0 : us > 3600000000LL ? 3600000 : (int)((us + 999) / 1000);
}

/* ---- the loop ---- */

static void *loop(void *arg)
{
    struct vv_reactor *r = arg;
    struct epoll_event events[EVENTS_MAX];
    pthread_setname_np(pthread_self(), r->name);
    for (;;) {
        int n = epoll_wait(r->epoll_fd, events, EVENTS_MAX, wait_ms(r));
        atomic_store_explicit(&r->now_us, vv_mono_us(r->env), memory_order_relaxed);
        for (int i = 0; i < n; i++) {
            struct vv_source *s = events[i].data.ptr;
            s->ready(s, events[i].events);
        }
        run_tasks(r);
        run_timers(r);
        if (atomic_load(&r->stopping) && !atomic_load(&r->mailbox)) return NULL;
    }
}

int64_t vv_reactor_now_us(struct vv_reactor *r)
{
    return atomic_load_explicit(&r->now_us, memory_order_relaxed);
}

void vv_reactor_assert_here(struct vv_reactor *r)
{
    VV_ASSERT(!r->started || pthread_equal(pthread_self(), r->thread));
}

int vv_reactor_new(struct vv_env *env, const char *name, struct vv_reactor **out)
{
    struct vv_reactor *r = calloc(1, sizeof *r);
    if (!r) return VV_E_NOMEM;
    r->env = env;
    snprintf(r->name, sizeof r->name, "%s", name);
    r->wake.ready = on_wake;
    r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    r->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    atomic_store(&r->now_us, vv_mono_us(env));
    int err = r->epoll_fd < 0 || r->wake_fd < 0 ? vv_err_from_errno(errno) : vv_reactor_watch(r, r->wake_fd, EPOLLIN, &r->wake);
    if (err) {
        vv_reactor_free(r);
        return err;
    }
    *out = r;
    return VV_OK;
}

int vv_reactor_start(struct vv_reactor *r)
{
    int rc = pthread_create(&r->thread, NULL, loop, r);
    r->started = rc == 0;
    return rc ? vv_err_from_errno(rc) : VV_OK;
}

void vv_reactor_stop(struct vv_reactor *r)
{
    if (!r->started) return;
    atomic_store(&r->stopping, true);
    wake(r);
    pthread_join(r->thread, NULL);
    r->started = false;
}

void vv_reactor_drain(struct vv_reactor *r)
{
    VV_ASSERT(!r->started);
    while (atomic_load(&r->mailbox)) run_tasks(r);
}

void vv_reactor_free(struct vv_reactor *r)
{
    if (!r) return;
    vv_reactor_stop(r);
    if (r->epoll_fd >= 0) close(r->epoll_fd);
    if (r->wake_fd >= 0) close(r->wake_fd);
    free(r->timers);
    free(r);
}
