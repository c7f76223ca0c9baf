/* net.h — epoll reactors, connections, framing, ordered response slots, timers, mailboxes, blocking-work pool.
 *
 * N reactors each own their connections. A frame (4-byte big-endian length + payload) becomes an exchange;
 * its handler runs inline on the reactor and answers at once or later from any thread. Responses leave in
 * request order. Back-pressure: a connection with too many unanswered requests or too many unsent bytes is
 * not read from. Nothing is allocated by a declared size: buffers grow as bytes arrive, up to the frame limit.
 * Transport is a const ops struct (conn_plain.c today; TLS joins there), so is the handler: SASL state lives
 * in the connection's user pointer. */
#ifndef VARVE_NET_H
#define VARVE_NET_H
#include "varve/buf.h"
#include "varve/env.h"
#include "varve/error.h"

struct vv_net;
struct vv_reactor;
struct vv_conn;

/* ---- tasks and timers ---- */
struct vv_task { /* embed; run once per post; posting a task that is already queued does nothing (coalesced) */
    void (*run)(struct vv_task *t);
    struct vv_task *next;
    _Atomic int queued;
};
void vv_reactor_post(struct vv_reactor *r, struct vv_task *t); /* any thread; runs on r */
struct vv_timer { /* embed; belongs to one reactor; zero-initialise */
    void (*fire)(struct vv_timer *t);
    int64_t due_us;
    size_t slot; /* heap position + 1; 0 = not armed */
};
void vv_timer_arm(struct vv_reactor *r, struct vv_timer *t, int64_t due_us); /* mono_us; on r's thread; re-arms */
void vv_timer_cancel(struct vv_reactor *r, struct vv_timer *t);              /* on r's thread; fine when not armed */
void vv_reactor_assert_here(struct vv_reactor *r);                           /* owner functions assert their thread */

/* A reactor without connections: the control thread (groups, admin) is one of these too. */
int vv_reactor_new(struct vv_env *env, const char *name, struct vv_reactor **out);
int vv_reactor_start(struct vv_reactor *r);
void vv_reactor_stop(struct vv_reactor *r); /* stops and joins; queued tasks run before */
void vv_reactor_free(struct vv_reactor *r);
int64_t vv_reactor_now_us(struct vv_reactor *r); /* cached monotonic time of this loop turn */

/* ---- exchanges ---- */
struct vv_exchange { /* one request and its response slot; allocated by net, freed after the reply was sent or dropped */
    struct vv_conn *conn;
    struct vv_reactor *reactor;
    struct vv_slice frame;   /* the payload (without the length); mutable bytes, owned; valid until the reply */
    int64_t received_us;
    struct vv_arena arena;   /* for the handler; released with the exchange; initialised by net (limit 64 MiB) */
    void *user;              /* the handler's */
    void (*on_conn_closed)(struct vv_exchange *x); /* optional; on the reactor, when the peer left before the reply: the
                                                      handler must still reply or drop once (bytes are discarded) */
};
/* Exactly one of these per exchange, from any thread. reply takes the chain over (frame length is added by net). */
void vv_exchange_reply(struct vv_exchange *x, struct vv_chain *body);
/* The answer may be this large: counted as unsent bytes of its connection until the reply, so that a peer that sends many large
 * questions and reads nothing is stopped early. On its reactor, from on_frame. */
void vv_exchange_reserve(struct vv_exchange *x, size_t bytes);
void vv_exchange_drop(struct vv_exchange *x);                       /* no response (acks=0) */
void vv_exchange_close(struct vv_exchange *x, const char *why);     /* close the connection after earlier replies went out; logged */

struct vv_net_handler {
    void (*on_open)(void *ctx, struct vv_conn *c);   /* may set vv_conn_set_user; on its reactor */
    void (*on_frame)(void *ctx, struct vv_exchange *x);
    void (*on_close)(void *ctx, struct vv_conn *c);  /* last call for c */
};
void vv_conn_set_user(struct vv_conn *c, void *user);
void *vv_conn_user(struct vv_conn *c);
const char *vv_conn_peer(struct vv_conn *c);     /* "127.0.0.1:51234" */
int vv_conn_listener(struct vv_conn *c);         /* index of the listener it came in on */
uint64_t vv_conn_id(struct vv_conn *c);
/* The way to the peer and back is short (near_us: this machine, this rack), so it loses nothing by asking more often. On its
 * reactor; as of a second ago. */
bool vv_conn_near(struct vv_conn *c);
/* Throttle (quotas, disk reserve): do not read from it before due_us. On its reactor. */
void vv_conn_mute_until(struct vv_conn *c, int64_t due_us);

struct vv_net_config {
    int reactors;               /* 0 = number of cores, at most 64 */
    size_t frame_bytes_max;     /* socket.request.max.bytes, default 100 MiB: larger or negative length -> close */
    size_t unsent_bytes_max;    /* per connection, default 64 MiB: stop reading above */
    int inflight_max;           /* unanswered requests per connection, default 64: stop reading above */
    int64_t near_us;            /* vv_conn_near: a round trip below this; 0: nobody is */
    int64_t idle_ms_max;        /* connections.max.idle.ms, default 600000 */
    int64_t stall_ms_max;       /* a started frame or an unsent response without progress, default 60000 -> close */
    int conns_max, conns_per_ip_max; /* max.connections(.per.ip); 0 = no limit beyond the fd limit */
    int sndbuf, rcvbuf;         /* socket.*.buffer.bytes; -1 = kernel's choice */
};
struct vv_listen { const char *host; int port; int bound_port; /* out */ };
/* Binds all listeners (E_EXIST with a clear text when a port is taken). Nothing is accepted before vv_net_start. */
int vv_net_new(struct vv_env *env, const struct vv_net_config *c, struct vv_listen *listens, size_t n,
               const struct vv_net_handler *h, void *ctx, struct vv_net **out, struct vv_error *e);
int vv_net_start(struct vv_net *net);
/* Stops accepting, lets answered bytes go out for up to grace_ms, closes, joins. */
void vv_net_stop(struct vv_net *net, int64_t grace_ms);
void vv_net_free(struct vv_net *net);
struct vv_net_stats { uint64_t conns, accepted, closed, refused, bytes_in, bytes_out, requests, unsent; };
uint64_t vv_net_unsent(struct vv_net *net); /* bytes of all finished responses that wait for their readers */
void vv_net_stats(struct vv_net *net, struct vv_net_stats *out);
int vv_net_reactor_count(struct vv_net *net);
struct vv_reactor *vv_net_reactor(struct vv_net *net, int i);

/* ---- blocking work ---- */
struct vv_iopool;
struct vv_work { void (*run)(struct vv_work *w); struct vv_work *next; }; /* embed */
int vv_iopool_new(const char *name, int threads, struct vv_iopool **out);
void vv_iopool_submit(struct vv_iopool *p, struct vv_work *w); /* FIFO; any thread */
void vv_iopool_free(struct vv_iopool *p);                      /* nobody submits any more; runs what is queued, joins */
#endif
