/* replay.c — the epoll loop of `varve bench`. Responses come in request order (the protocol says so); an id that is
 * not the expected one is an error. A connection's buffer grows with what has arrived, to four times that at most.
 * One thread. */
#include "replay.h"

#include "varve/bytes.h"
#include "varve/env.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#define IN_BYTES    ((size_t)256 << 10)
#define FRAME_MAX   ((size_t)256 << 20)
#define IOV_MAX_    16
#define EVENTS_MAX  128
#define PROGRESS_US 250000

int vv_replay_encode(int16_t key, int16_t version, const void *msg, struct vv_chain *out)
{
    const struct vv_api *api = vv_api_by_key(key);
    struct vv_out o;
    vv_out_init(&o);
    uint8_t *head = vv_out_reserve(&o, 4);
    const struct vv_request_header h = {.key = key, .version = version, .client_id = VV_STR_LIT("varve-bench"),
                                        .api = api};
    int rc = head ? vv_request_header_encode(&h, &o) : VV_E_NOMEM;
    if (!rc) rc = vv_msg_encode(api->request, version, msg, &o);
    if (!rc) {
        vv_put32(head, (uint32_t)(vv_out_size(&o) - 4));
        rc = vv_out_finish(&o, out);
    }
    if (rc) vv_out_release(&o);
    return rc;
}

int vv_replay_decode(int16_t key, int16_t version, const uint8_t *p, size_t n, struct vv_arena *a, void **msg)
{
    const struct vv_api *api = vv_api_by_key(key);
    int32_t correlation;
    size_t used = 0;
    int rc = vv_response_header_decode(key, version, p, n, &correlation, &used);
    if (rc) return rc;
    *msg = vv_arena_alloc(a, api->response->root->size);
    return *msg ? vv_msg_decode(api->response, version, p + used, n - used, a, *msg, NULL) : VV_E_NOMEM;
}

bool vv_lane_sending(const struct vv_lane *l)
{
    return l->out;
}

/* ---- writing ---- */

static void begin(struct vv_lane *l, const struct vv_chain *frame)
{
    l->out = frame;
    l->sent = 0;
    memcpy(l->head, frame->v[0].p, sizeof l->head); /* key and version make the first slice longer than that */
    vv_put32(l->head + 8, (uint32_t)++l->correlation);
    if (!l->replay->silent) l->inflight++;
}

static size_t gather(const struct vv_lane *l, struct iovec *v)
{
    size_t n = 0, skip = l->sent;
    if (skip < sizeof l->head) {
        v[n++] = (struct iovec){(void *)(uintptr_t)(l->head + skip), sizeof l->head - skip};
        skip = sizeof l->head;
    }
    for (size_t i = 0; i < l->out->count && n < IOV_MAX_; i++) {
        const struct vv_slice *s = &l->out->v[i];
        if (skip < s->n) v[n++] = (struct iovec){(void *)(uintptr_t)(s->p + skip), s->n - skip};
        skip -= VV_MIN(skip, s->n);
    }
    return n;
}

static int watch(struct vv_lane *l, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = l};
    if (l->events == events) return 0;
    int op = l->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    l->events = events;
    return epoll_ctl(l->replay->epoll_fd, op, l->fd, &ev) ? VV_E_IO : 0;
}

int vv_replay_kick(struct vv_lane *l, struct vv_error *e)
{
    struct vv_replay *r = l->replay;
    for (;;) {
        if (!l->out) {
            const struct vv_chain *frame = l->inflight < r->inflight_max ? r->ops->next(r->ctx, l) : NULL;
            if (!frame) break;
            begin(l, frame);
        }
        struct iovec v[IOV_MAX_];
        struct msghdr m = {.msg_iov = v, .msg_iovlen = gather(l, v)};
        ssize_t n = sendmsg(l->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (n < 0) return vv_error_set(e, VV_E_IO, "the broker closed a connection: %s", strerror(errno));
        l->sent += (size_t)n;
        r->bytes_out += (uint64_t)n;
        if (l->sent == l->out->bytes) l->out = NULL;
    }
    return watch(l, EPOLLIN | (l->out ? (uint32_t)EPOLLOUT : 0));
}

/* ---- reading ---- */

static int room(struct vv_lane *l)
{
    size_t whole = l->in_n >= 4 ? 4 + (size_t)vv_get32(l->in) : 0;
    size_t want = VV_MAX(VV_MIN(whole, l->in_n * 4), IN_BYTES);
    if (whole > FRAME_MAX) return VV_E_PROTO;
    if (l->in_n < l->in_cap && want <= l->in_cap) return 0;
    uint8_t *p = realloc(l->in, VV_MAX(want, l->in_cap));
    if (!p) return VV_E_NOMEM;
    l->in = p;
    l->in_cap = VV_MAX(want, l->in_cap);
    return 0;
}

static int take(struct vv_lane *l, struct vv_error *e)
{
    struct vv_replay *r = l->replay;
    size_t at = 0;
    int rc = 0;
    while (!rc && l->in_n - at >= 8) {
        size_t n = vv_get32(l->in + at);
        if (n < 4 || n > FRAME_MAX) return vv_error_set(e, VV_E_PROTO, "a response of %zu bytes", n);
        if (l->in_n - at - 4 < n) break;
        if ((int32_t)vv_get32(l->in + at + 4) != ++l->expected || !l->inflight)
            return vv_error_set(e, VV_E_PROTO, "a response nobody asked for");
        l->inflight--;
        rc = r->ops->answer(r->ctx, l, l->in + at + 4, n, e);
        at += 4 + n;
    }
    memmove(l->in, l->in + at, l->in_n - at);
    l->in_n -= at;
    return rc;
}

static int readable(struct vv_lane *l, struct vv_error *e)
{
    int rc = room(l);
    if (rc) return vv_error_set(e, rc, "a response does not fit: %s", vv_err_name(rc));
    ssize_t n = recv(l->fd, l->in + l->in_n, l->in_cap - l->in_n, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return 0;
    if (n <= 0) return vv_error_set(e, VV_E_IO, "the broker closed a connection");
    l->in_n += (size_t)n;
    l->replay->bytes_in += (uint64_t)n;
    rc = take(l, e);
    return rc ? rc : vv_replay_kick(l, e);
}

/* ---- the loop ---- */

void vv_replay_wake_at(struct vv_replay *r, int64_t mono_us)
{
    mono_us = VV_MAX(mono_us, 1); /* zero would disarm it */
    const struct itimerspec at = {.it_value = {mono_us / 1000000, mono_us % 1000000 * 1000}};
    timerfd_settime(r->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static int serve(struct vv_replay *r, const struct epoll_event *ev, struct vv_error *e)
{
    struct vv_lane *l = ev->data.ptr;
    if (!l) {
        uint64_t times;
        if (read(r->timer_fd, &times, sizeof times) == sizeof times) r->ops->due(r->ctx);
        return 0;
    }
    int rc = ev->events & EPOLLOUT ? vv_replay_kick(l, e) : 0;
    return !rc && ev->events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? readable(l, e) : rc;
}

int vv_replay_run(struct vv_replay *r, struct vv_error *e)
{
    struct epoll_event events[EVENTS_MAX];
    int64_t moved_us = vv_mono_us(&vv_env_posix), told_us = moved_us;
    uint64_t moved = 0;
    int rc = 0;
    for (size_t i = 0; i < r->count && !rc; i++)
        rc = vv_replay_kick(&r->lanes[i], e);
    while (!rc && !r->ops->finished(r->ctx)) {
        int n = epoll_wait(r->epoll_fd, events, EVENTS_MAX, PROGRESS_US / 1000);
        int64_t now = vv_mono_us(&vv_env_posix);
        for (int i = 0; i < n && !rc; i++)
            rc = serve(r, &events[i], e);
        if (r->bytes_in + r->bytes_out != moved) {
            moved = r->bytes_in + r->bytes_out;
            moved_us = now;
        } else if (!rc && now - moved_us > (r->stall_ms ? r->stall_ms : 30000) * 1000ll) {
            rc = vv_error_set(e, VV_E_TIMEOUT, "nothing moved for %lld s", (long long)(now - moved_us) / 1000000);
        }
        if (r->ops->progress && now - told_us >= PROGRESS_US) {
            told_us = now;
            r->ops->progress(r->ctx, now);
        }
    }
    return rc;
}

int vv_replay_open(struct vv_replay *r, struct vv_client *c, const int32_t *nodes, size_t count, struct vv_error *e)
{
    r->count = count;
    r->lanes = calloc(count + 1, sizeof *r->lanes);
    for (size_t i = 0; r->lanes && i < count; i++)
        r->lanes[i] = (struct vv_lane){.replay = r, .index = i, .node = nodes[i], .fd = -1};
    r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    r->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN};
    int rc = r->lanes && r->epoll_fd >= 0 && r->timer_fd >= 0 && !epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, r->timer_fd,
                                                                            &ev)
                 ? 0
                 : vv_error_set(e, VV_E_NOMEM, "no more descriptors or memory");
    for (size_t i = 0; i < count && !rc; i++)
        rc = vv_client_dial(c, nodes[i], &r->lanes[i].fd, e);
    if (rc) vv_replay_close(r);
    return rc;
}

void vv_replay_close(struct vv_replay *r)
{
    for (size_t i = 0; r->lanes && i < r->count; i++) {
        if (r->lanes[i].fd >= 0) close(r->lanes[i].fd);
        free(r->lanes[i].in);
    }
    free(r->lanes);
    r->lanes = NULL;
    if (r->epoll_fd >= 0) close(r->epoll_fd);
    if (r->timer_fd >= 0) close(r->timer_fd);
    r->epoll_fd = r->timer_fd = -1;
}
