/* conn.c — one connection: bytes to frames, frames to exchanges, answers out in request order.
 *
 * Receiving: one buffer per connection while it has unread bytes, none while it is idle. A whole frame is handed over as
 * a slice of the buffer (no copy); the handler may keep and change it. When a frame does not fit, the buffer grows to at most
 * GROWTH times what has really arrived: a declared length alone allocates nothing. A new buffer has room for a frame as large as
 * those that came lately, so that a stream of equal requests is read one by one, each into its place.
 * Answering: see struct vv_slot. Slots move from the waiting list to the output list in request order and are
 * written with their response's slices by writev, small ones together at the end of the turn; a slot's frame and arena go
 * when it is answered.
 * Back-pressure: not read from while too many requests are unanswered, too many bytes unsent, or the process holds
 * too many frame bytes; looked at again when a slot ends, bytes leave, and once a second.
 * Death: the descriptor closes at once; the struct stays until the last exchange has been answered.
 * Threads: the reactor of the connection; vv_exchange_* from any (they only fill the slot and post its task). */
#include "net_impl.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define READ_BYTES 16384
#define READ_TURN_BYTES (1 << 20) /* per event, then the others' turn */
#define WRITE_TURN_BYTES ((size_t)128 << 10) /* beside small answers; COMPANY_US after the last one no more */
#define COMPANY_US 10000
#define RTT_KEPT_US 1000000
#define GROWTH 16
#define CLOSED_LINES_PER_S 10 /* by reactor */
#define HINT_MAX ((size_t)256 << 10)
#define FLUSH_AT ((size_t)64 << 10) /* not worth waiting for more */
#define FRAME_BYTES_TOTAL_MAX ((size_t)1 << 30)

/* ---- end ---- */

static void free_slot(struct vv_conn *c, struct vv_slot *s)
{
    vv_chain_release(&s->response);
    vv_buf_unref(s->x.frame.buf);
    vv_arena_release(&s->x.arena);
    atomic_fetch_sub(&c->net->frame_bytes, s->frame_n);
    free(s);
}

static void maybe_free(struct vv_conn *c)
{
    if (!c->dead || c->head || atomic_load(&c->flush.queued)) return;
    struct vv_net *net = c->net;
    if (net->handler->on_close) net->handler->on_close(net->ctx, c);
    *c->link = c->next;
    if (c->next) c->next->link = c->link;
    vv_listen_forget(net, &c->ip);
    atomic_fetch_sub(&c->reactor->conn_count, 1);
    atomic_fetch_sub(&net->conns, 1);
    atomic_fetch_add(&net->closed, 1);
    free(c);
}

/* A crowd of bad peers must not fill the log: a few lines a second, then how many were left out. */
static void tell_closed(const struct vv_conn *c, const char *why)
{
    struct vv_reactor *r = c->reactor;
    int64_t now = vv_reactor_now_us(r);
    if (now - r->told_since_us >= 1000000) {
        if (r->untold) VLOG_INFO("%d more connections were closed for such reasons", r->untold);
        r->told_since_us = now;
        r->told = r->untold = 0;
    }
    if (r->told < CLOSED_LINES_PER_S) {
        r->told++;
        VLOG_INFO("connection %s closed: %s", c->peer, why);
    } else {
        r->untold++;
    }
}

void vv_conn_kill(struct vv_conn *c, const char *why)
{
    if (c->dead) return;
    c->dead = true;
    if (why) tell_closed(c, why);
    vv_timer_cancel(c->reactor, &c->mute);
    vv_reactor_unwatch(c->reactor, c->fd);
    c->transport->close(c);
    vv_buf_unref(c->in);
    c->in = NULL;
    while (c->out_head) {
        struct vv_slot *s = c->out_head;
        c->out_head = s->next;
        free_slot(c, s);
    }
    c->out_tail = NULL;
    atomic_fetch_sub_explicit(&c->net->unsent_bytes, c->unsent, memory_order_relaxed);
    c->unsent = 0;
    for (struct vv_slot *s = c->head, *next; s; s = next) {
        next = s->next;
        if (atomic_load(&s->verdict) == SLOT_WAITING && s->x.on_conn_closed) s->x.on_conn_closed(&s->x);
    }
    /* Answered slots that waited for their turn will never have it. */
    struct vv_slot **at = &c->head;
    c->tail = NULL;
    while (*at) {
        struct vv_slot *s = *at;
        if (s->state != SLOT_WAITING) {
            *at = s->next;
            free_slot(c, s);
        } else {
            c->tail = s;
            at = &s->next;
        }
    }
    maybe_free(c);
}

bool vv_conn_idle(const struct vv_conn *c)
{
    return !c->head && !c->out_head;
}

/* ---- interest ---- */

/* One more request? What its answers may need counts as if it were waiting to be sent already. */
static bool may_take(const struct vv_conn *c)
{
    const struct vv_net_config *cfg = &c->net->config;
    return !c->closing && !c->muted_until_us && c->inflight < cfg->inflight_max && c->unsent + c->reserved < cfg->unsent_bytes_max;
}

static bool may_read(const struct vv_conn *c)
{
    const struct vv_net *n = c->net;
    return may_take(c) && atomic_load(&n->frame_bytes) < FRAME_BYTES_TOTAL_MAX && !atomic_load(&n->stopping);
}

static void update_interest(struct vv_conn *c)
{
    if (c->out_head && !c->full) vv_reactor_post(c->reactor, &c->flush); /* its turn is over */
    uint32_t events = (may_read(c) ? (uint32_t)EPOLLIN : 0) | (c->out_head && c->full ? (uint32_t)EPOLLOUT : 0);
    if (events == c->events) return;
    c->events = events;
    if (vv_reactor_rewatch(c->reactor, c->fd, events, &c->source)) vv_conn_kill(c, "epoll refused it");
}

static bool take_frames(struct vv_conn *c);

static void unmute(struct vv_timer *t)
{
    struct vv_conn *c = VV_CONTAINER(t, struct vv_conn, mute);
    c->muted_until_us = 0;
    c->progress_us = vv_reactor_now_us(c->reactor); /* it was not the peer that was quiet */
    if (c->in_end > c->in_start && may_read(c) && !take_frames(c)) return; /* what had come already */
    update_interest(c);
}

void vv_conn_mute_until(struct vv_conn *c, int64_t due_us)
{
    if (c->dead || due_us <= c->muted_until_us) return; /* the longest wait holds */
    c->muted_until_us = due_us;
    vv_timer_arm(c->reactor, &c->mute, due_us);
    update_interest(c);
}

/* ---- writing ---- */

/* Fills v with unwritten bytes of the output list, beginning out_skip bytes into its head: room of them, lengths not counted. */
static int gather(const struct vv_conn *c, size_t room, struct iovec *v)
{
    int n = 0;
    size_t skip = c->out_skip;
    for (const struct vv_slot *s = c->out_head; s && room && n < VV_IOV_MAX; s = s->next) {
        if (skip < 4)
            v[n++] = (struct iovec){(void *)(uintptr_t)(s->length + skip), 4 - skip};
        skip = skip > 4 ? skip - 4 : 0;
        for (size_t i = 0; i < s->response.count && room && n < VV_IOV_MAX; i++) {
            const struct vv_slice *slice = &s->response.v[i];
            if (skip >= slice->n) {
                skip -= slice->n;
                continue;
            }
            size_t take = VV_MIN(slice->n - skip, room);
            v[n++] = (struct iovec){(void *)(uintptr_t)(slice->p + skip), take};
            room -= take;
            skip = 0;
        }
        skip = 0;
    }
    return n;
}

static void written(struct vv_conn *c, size_t n)
{
    c->unsent -= n;
    atomic_fetch_sub_explicit(&c->net->unsent_bytes, n, memory_order_relaxed);
    c->out_skip += n;
    while (c->out_head && c->out_skip >= 4 + c->out_head->response.bytes) {
        struct vv_slot *s = c->out_head;
        c->out_skip -= 4 + s->response.bytes;
        c->out_head = s->next;
        if (!c->out_head) c->out_tail = NULL;
        free_slot(c, s);
    }
}

/* A socket may take megabytes at once, which is a millisecond for whoever waits on this reactor, or on this core: the kernel may
 * not be interrupted meanwhile. Small pieces cost more than they are worth where only bulk goes by (bench/README.md, T2), so
 * they are for reactors that answered something small just now. */
static size_t turn_bytes(const struct vv_conn *c)
{
    return vv_reactor_now_us(c->reactor) - c->reactor->small_us < COMPANY_US ? WRITE_TURN_BYTES : SIZE_MAX;
}

bool vv_conn_flush(struct vv_conn *c)
{
    size_t left = turn_bytes(c);
    c->full = false;
    while (c->out_head && left) {
        struct iovec v[VV_IOV_MAX];
        int count = gather(c, left, v);
        ssize_t n = c->transport->writev(c, v, count);
        if (n == VV_E_AGAIN) {
            c->full = true;
            break;
        }
        if (n < 0) {
            vv_conn_kill(c, NULL);
            return false;
        }
        c->progress_us = vv_reactor_now_us(c->reactor);
        atomic_fetch_add_explicit(&c->net->bytes_out, (uint64_t)n, memory_order_relaxed);
        written(c, (size_t)n);
        left -= VV_MIN((size_t)n, left); /* lengths are not counted */
    }
    if (c->closing && !c->out_head) {
        vv_conn_kill(c, c->why[0] ? c->why : NULL);
        return false;
    }
    return true;
}

/* Moves answered slots from the front of the waiting list to the output list. */
static void advance(struct vv_conn *c)
{
    while (c->head && c->head->state != SLOT_WAITING && !c->closing) {
        struct vv_slot *s = c->head;
        c->head = s->next;
        if (!c->head) c->tail = NULL;
        s->next = NULL;
        c->inflight--;
        c->reserved -= s->reserved;
        /* The request's memory goes now; only the response stays until it is written. */
        vv_buf_unref(s->x.frame.buf);
        s->x.frame.buf = NULL;
        vv_arena_release(&s->x.arena);
        atomic_fetch_sub(&c->net->frame_bytes, s->frame_n);
        s->frame_n = 0;
        if (s->state == SLOT_REPLIED) {
            vv_put32(s->length, (uint32_t)s->response.bytes);
            if (s->response.bytes < FLUSH_AT) c->reactor->small_us = vv_reactor_now_us(c->reactor);
            c->unsent += 4 + s->response.bytes;
            atomic_fetch_add_explicit(&c->net->unsent_bytes, 4 + s->response.bytes, memory_order_relaxed);
            if (c->out_tail)
                c->out_tail->next = s;
            else
                c->out_head = s;
            c->out_tail = s;
            continue;
        }
        if (s->state == SLOT_CLOSE) {
            c->closing = true;
            snprintf(c->why, sizeof c->why, "%s", s->why);
        }
        free_slot(c, s);
    }
}

static void slot_done(struct vv_task *t)
{
    struct vv_slot *s = VV_CONTAINER(t, struct vv_slot, done);
    struct vv_conn *c = s->x.conn;
    s->state = atomic_load(&s->verdict);
    if (c->dead) { /* nobody is there to answer */
        struct vv_slot **at = &c->head;
        while (*at != s) at = &(*at)->next;
        *at = s->next;
        free_slot(c, s);
        maybe_free(c);
        return;
    }
    advance(c);
    /* One write now and one at the end of the turn, however many are answered in it. */
    if (c->unsent >= FLUSH_AT && !atomic_load(&c->flush.queued) && !vv_conn_flush(c)) return;
    vv_reactor_later(c->reactor, &c->flush);
}

static void flush_turn(struct vv_task *t)
{
    struct vv_conn *c = VV_CONTAINER(t, struct vv_conn, flush);
    if (c->dead) {
        maybe_free(c);
        return;
    }
    if (!vv_conn_flush(c)) return;
    /* Frames that waited in the buffer for a slot to end. */
    if (c->in_end > c->in_start && may_read(c) && !take_frames(c)) return;
    update_interest(c);
}

static void answer(struct vv_exchange *x, int verdict)
{
    struct vv_slot *s = VV_CONTAINER(x, struct vv_slot, x);
    int before = atomic_exchange(&s->verdict, verdict);
    VV_ASSERT(before == SLOT_WAITING); /* exactly one answer */
    vv_reactor_post(x->reactor, &s->done);
}

void vv_exchange_reply(struct vv_exchange *x, struct vv_chain *body)
{
    struct vv_slot *s = VV_CONTAINER(x, struct vv_slot, x);
    vv_chain_move(&s->response, body);
    answer(x, SLOT_REPLIED);
}

void vv_exchange_reserve(struct vv_exchange *x, size_t bytes)
{
    struct vv_slot *s = VV_CONTAINER(x, struct vv_slot, x);
    vv_reactor_assert_here(x->reactor);
    s->reserved += bytes;
    x->conn->reserved += bytes;
}

void vv_exchange_drop(struct vv_exchange *x)
{
    answer(x, SLOT_DROPPED);
}

void vv_exchange_close(struct vv_exchange *x, const char *why)
{
    struct vv_slot *s = VV_CONTAINER(x, struct vv_slot, x);
    snprintf(s->why, sizeof s->why, "%s", why);
    answer(x, SLOT_CLOSE);
}

/* ---- reading ---- */

/* Something else than Kafka knocks: say what it is, once, instead of "frame too large". */
static const char *stranger(const uint8_t *p, size_t n)
{
    if (n >= 2 && p[0] == 0x16 && p[1] == 0x03) return "it speaks TLS on a plaintext listener (set security.protocol=PLAINTEXT)";
    if (n >= 4 && (!memcmp(p, "GET ", 4) || !memcmp(p, "POST", 4) || !memcmp(p, "HEAD", 4)))
        return "it speaks HTTP on a Kafka listener (metrics have their own port)";
    return NULL;
}

static bool hand_over(struct vv_conn *c, size_t at, size_t n)
{
    struct vv_slot *s = calloc(1, sizeof *s);
    if (!s) {
        vv_conn_kill(c, "out of memory");
        return false;
    }
    s->x.conn = c;
    s->x.reactor = c->reactor;
    s->x.frame = (struct vv_slice){vv_buf_ref(c->in), c->in->data + at, n};
    s->x.received_us = vv_reactor_now_us(c->reactor);
    vv_arena_init(&s->x.arena, 0);
    s->done.run = slot_done;
    s->frame_n = n;
    atomic_fetch_add(&c->net->frame_bytes, n);
    if (c->tail)
        c->tail->next = s;
    else
        c->head = s;
    c->tail = s;
    c->inflight++;
    atomic_fetch_add_explicit(&c->net->requests, 1, memory_order_relaxed);
    c->net->handler->on_frame(c->net->ctx, &s->x);
    return !c->dead;
}

/* Hands over every whole frame in the buffer. False: the connection is gone. */
static bool take_frames(struct vv_conn *c)
{
    while (c->in_end - c->in_start >= 4 && may_take(c)) {
        const uint8_t *p = c->in->data + c->in_start;
        const char *who = c->first ? stranger(p, c->in_end - c->in_start) : NULL;
        uint32_t n = vv_get32(p);
        if (who || n == 0 || n > c->net->config.frame_bytes_max) {
            char why[160];
            snprintf(why, sizeof why, "a frame of %d bytes is not allowed (socket.request.max.bytes=%zu)", (int32_t)n,
                     c->net->config.frame_bytes_max);
            vv_conn_kill(c, who ? who : why);
            return false;
        }
        c->first = false;
        if (c->in_end - c->in_start - 4 < n) break;
        size_t at = c->in_start + 4;
        c->in_start = at + n;
        c->frame_hint = VV_MIN(VV_MAX((size_t)n + 4, c->frame_hint - c->frame_hint / 8), HINT_MAX);
        if (!hand_over(c, at, n)) return false;
    }
    if (c->in && c->in_start == c->in_end) { /* an idle connection keeps no buffer */
        vv_buf_unref(c->in);
        c->in = NULL;
        c->in_start = c->in_end = 0;
    }
    return true;
}

/* Makes room behind in_end. The next buffer is at most GROWTH times what is here, or as large as what came lately. */
static bool make_room(struct vv_conn *c)
{
    size_t have = c->in_end - c->in_start, cap = VV_MAX((size_t)READ_BYTES, c->frame_hint);
    if (c->in && c->in->cap - c->in_end >= (have < 4 ? 4 : 1) && c->in_start + 4 <= c->in->cap) {
        size_t whole = have >= 4 ? 4 + (size_t)vv_get32(c->in->data + c->in_start) : 0;
        /* Stay when the frame under way fits, or while it is small. */
        if (whole <= c->in->cap - c->in_start) return true;
    }
    if (have >= 4) {
        size_t whole = 4 + (size_t)vv_get32(c->in->data + c->in_start);
        cap = VV_MAX(VV_MIN(whole, VV_MAX(have * GROWTH, (size_t)READ_BYTES)), (size_t)READ_BYTES);
        if (c->in && c->in_start == 0 && cap <= c->in->cap) return true; /* it is as large as it may be yet */
        cap = VV_MAX(cap, have + 1);
    }
    struct vv_buf *b = vv_buf_new(cap);
    if (!b) return false;
    if (have) memcpy(b->data, c->in->data + c->in_start, have);
    vv_buf_unref(c->in);
    c->in = b;
    c->in_start = 0;
    c->in_end = have;
    return true;
}

static void on_readable(struct vv_conn *c)
{
    size_t turn = 0;
    while (turn < READ_TURN_BYTES && may_read(c)) {
        if (!make_room(c) || c->in->cap == c->in_end) {
            vv_conn_kill(c, "out of memory");
            return;
        }
        size_t room = c->in->cap - c->in_end;
        ssize_t n = c->transport->read(c, c->in->data + c->in_end, room);
        if (n == VV_E_AGAIN) break;
        if (n < 0) {
            vv_conn_kill(c, NULL);
            return;
        }
        c->in_end += (size_t)n;
        turn += (size_t)n;
        c->progress_us = vv_reactor_now_us(c->reactor);
        atomic_fetch_add_explicit(&c->net->bytes_in, (uint64_t)n, memory_order_relaxed);
        if (!take_frames(c)) return;
        if ((size_t)n < room) break; /* the socket is empty: save a read */
    }
    if (c->in && c->in_start == c->in_end) {
        vv_buf_unref(c->in);
        c->in = NULL;
        c->in_start = c->in_end = 0;
    }
    update_interest(c);
}

static void on_ready(struct vv_source *source, uint32_t events)
{
    struct vv_conn *c = VV_CONTAINER(source, struct vv_conn, source);
    if (events & (EPOLLERR | EPOLLHUP)) {
        vv_conn_kill(c, NULL);
        return;
    }
    if (events & EPOLLOUT) {
        if (!vv_conn_flush(c)) return;
        /* Frames that waited in the buffer for these bytes to leave. */
        if (c->in_end > c->in_start && may_read(c) && !take_frames(c)) return;
        update_interest(c);
    }
    if (events & EPOLLIN) on_readable(c);
}

/* ---- begin, care ---- */

void vv_conn_adopt(struct vv_task *t)
{
    struct vv_conn *c = VV_CONTAINER(t, struct vv_conn, adopt);
    struct vv_reactor *r = c->reactor;
    c->source.ready = on_ready;
    c->mute.fire = unmute;
    c->flush.run = flush_turn;
    c->first = true;
    c->progress_us = vv_reactor_now_us(r);
    c->next = r->conns;
    if (c->next) c->next->link = &c->next;
    c->link = &r->conns;
    r->conns = c;
    if (c->net->handler->on_open) c->net->handler->on_open(c->net->ctx, c);
    c->events = EPOLLIN;
    if (vv_reactor_watch(r, c->fd, c->events, &c->source)) vv_conn_kill(c, "epoll refused it");
}

/* Frames that stayed in the buffer because of back-pressure, idle and stalled peers. */
static void care(struct vv_conn *c, int64_t now_us)
{
    const struct vv_net_config *cfg = &c->net->config;
    int64_t quiet_ms = (now_us - c->progress_us) / 1000;
    bool partial = c->in && c->in_end > c->in_start && may_read(c);
    if (vv_conn_idle(c) && !partial && !c->muted_until_us && quiet_ms > cfg->idle_ms_max) {
        vv_conn_kill(c, NULL);
    } else if ((partial || c->out_head) && quiet_ms > cfg->stall_ms_max) {
        vv_conn_kill(c, c->out_head ? "it does not read its responses" : "it stopped in the middle of a request");
    } else {
        if (c->in && c->in_end > c->in_start && may_read(c) && !take_frames(c)) return;
        update_interest(c);
    }
}

void vv_conn_sweep(struct vv_reactor *r)
{
    int64_t now = vv_reactor_now_us(r);
    for (struct vv_conn *c = r->conns, *next; c; c = next) {
        next = c->next;
        if (!c->dead) care(c, now);
    }
}

void vv_conn_set_user(struct vv_conn *c, void *user)
{
    c->user = user;
}

void *vv_conn_user(struct vv_conn *c)
{
    return c->user;
}

const char *vv_conn_peer(struct vv_conn *c)
{
    return c->peer;
}

int vv_conn_listener(struct vv_conn *c)
{
    return c->listener;
}

bool vv_conn_near(struct vv_conn *c)
{
    int64_t now = vv_reactor_now_us(c->reactor);
    if (!c->rtt_at_us || now - c->rtt_at_us > RTT_KEPT_US) {
        c->rtt_us = c->dead ? INT64_MAX : c->transport->rtt_us(c);
        c->rtt_at_us = now;
    }
    return c->rtt_us < c->net->config.near_us;
}

uint64_t vv_conn_id(struct vv_conn *c)
{
    return c->id;
}
