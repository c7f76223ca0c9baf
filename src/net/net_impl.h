/* net_impl.h — the inside of src/net: reactor loop, connections, listeners. Contract: varve/net.h. */
#ifndef VARVE_NET_IMPL_H
#define VARVE_NET_IMPL_H
#include "varve/net.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#define VV_IOV_MAX 64

/* What epoll points at: a connection, a listener or the wake-up. */
struct vv_source {
    void (*ready)(struct vv_source *s, uint32_t events);
};

struct vv_reactor {
    struct vv_env *env;
    char name[16];
    int epoll_fd, wake_fd;
    struct vv_source wake;
    pthread_t thread;
    _Atomic bool started; /* stored after thread is: whoever reads true may read thread */
    _Atomic bool stopping;
    _Atomic(struct vv_task *) mailbox; /* pushed in reverse; taken whole */
    struct vv_task *later;             /* the reactor's own: run behind the tasks of this turn */
    struct vv_timer **timers;          /* binary min-heap by due_us */
    size_t timer_count, timer_cap;
    _Atomic int64_t now_us;
    struct vv_net *net;                /* NULL for a reactor without connections */
    struct vv_conn *conns;             /* doubly linked */
    _Atomic int conn_count;
    struct vv_timer sweep;             /* idle and stalled connections */
    int64_t small_us;                  /* when something small was answered last */
    int64_t told_since_us;             /* lines about closed connections: so many in this second, so many left out */
    int told, untold;
};

int vv_reactor_watch(struct vv_reactor *r, int fd, uint32_t events, struct vv_source *s);
int vv_reactor_rewatch(struct vv_reactor *r, int fd, uint32_t events, struct vv_source *s);
void vv_reactor_unwatch(struct vv_reactor *r, int fd);

/* On r's thread, from a task: run once behind all tasks of this turn; nothing when it is queued already. */
void vv_reactor_later(struct vv_reactor *r, struct vv_task *t);
void vv_reactor_drain(struct vv_reactor *r); /* stopped: run what was still posted, on the caller's thread */

/* A transport moves bytes; E_AGAIN: not now; E_SHUTDOWN: the peer is gone. One per connection kind. */
struct vv_transport_ops {
    ssize_t (*read)(struct vv_conn *c, void *dst, size_t n);
    ssize_t (*writev)(struct vv_conn *c, const struct iovec *v, int n);
    void (*close)(struct vv_conn *c);
    int64_t (*rtt_us)(struct vv_conn *c); /* INT64_MAX: not known */
};
extern const struct vv_transport_ops vv_transport_plain;

/* An exchange and its place in the order of responses. `verdict` and `response` are written by whoever answers, before
 * the done task is posted; `state` is the reactor's and changes when that task has run, so a slot never ends before it. */
enum vv_slot_state { SLOT_WAITING, SLOT_REPLIED, SLOT_DROPPED, SLOT_CLOSE };
struct vv_slot {
    struct vv_exchange x;
    struct vv_slot *next;
    struct vv_task done;
    _Atomic int verdict;       /* enum vv_slot_state */
    int state;
    struct vv_chain response;
    uint8_t length[4];         /* sent before the response */
    size_t frame_n;            /* as counted in net->frame_bytes */
    size_t reserved;           /* as counted in conn->reserved */
    char why[160];
};

struct vv_conn {
    struct vv_source source;
    struct vv_reactor *reactor;
    struct vv_net *net;
    const struct vv_transport_ops *transport;
    struct vv_conn *next, **link;
    struct vv_task adopt;      /* hands a new connection to its reactor */
    int fd, listener;
    uint32_t events;           /* as registered */
    uint64_t id;
    char peer[64];
    struct in6_addr ip;
    void *user;
    /* receiving */
    struct vv_buf *in;         /* bytes [in_start, in_end) are not yet handed over */
    size_t in_start, in_end;
    size_t frame_hint;         /* about the largest of the frames that came lately */
    bool reading;              /* false: back-pressure or muted */
    bool eof, dead, first;     /* first: nothing received yet */
    int64_t muted_until_us;
    struct vv_timer mute;
    int64_t progress_us;       /* last byte in or out */
    /* answering */
    struct vv_slot *head, *tail;         /* unanswered or out of turn, in request order */
    struct vv_slot *out_head, *out_tail; /* being written */
    struct vv_task flush;      /* writes what the tasks of one turn have answered */
    int64_t rtt_us, rtt_at_us; /* the round trip, and when it was asked for; 0: not yet */
    bool full;                 /* the socket took no more */
    size_t out_skip;           /* bytes of out_head (length and response) already written */
    int inflight;
    size_t unsent, reserved;   /* bytes of finished responses; what unfinished ones may need */
    bool closing;              /* nothing more is read; ends when all is written */
    char why[160];
};

struct vv_net {
    struct vv_env *env;
    struct vv_net_config config;
    const struct vv_net_handler *handler;
    void *ctx;
    struct vv_reactor **reactors;
    int reactor_count;
    struct vv_listener {
        struct vv_source source;
        struct vv_net *net;
        int fd, index;
    } *listeners;
    size_t listener_count;
    int reserve_fd;            /* given up for a moment when descriptors run out */
    struct vv_timer accept_again;
    _Atomic bool stopping;
    _Atomic uint64_t accepted, closed, refused, bytes_in, bytes_out, requests, next_id;
    _Atomic int conns;
    _Atomic size_t frame_bytes;  /* in receive buffers and unanswered frames */
    _Atomic size_t unsent_bytes; /* of all connections */
    pthread_mutex_t ip_lock;     /* counts per address */
    struct vv_ip { struct in6_addr ip; int count; } *ips;
    size_t ip_count, ip_cap;
};

/* conn.c; on the connection's reactor */
void vv_conn_adopt(struct vv_task *t);
void vv_conn_kill(struct vv_conn *c, const char *why); /* why NULL: quiet */
void vv_conn_sweep(struct vv_reactor *r);              /* idle, stalled */
bool vv_conn_flush(struct vv_conn *c);                 /* false: the connection died */
bool vv_conn_idle(const struct vv_conn *c);            /* nothing unanswered, nothing unsent */
/* listen.c */
void vv_listen_forget(struct vv_net *net, const struct in6_addr *ip);
#endif
