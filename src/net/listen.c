/* listen.c — listening sockets, admission, the reactors as one thing: vv_net.
 *
 * All listeners live on reactor 0; an accepted connection goes to the reactor with the fewest. When descriptors run out, a
 * reserved one is given up to accept and close the newcomer (it learns at once), and accepting pauses for a moment.
 * Limits: max.connections, max.connections.per.ip; 0 means none beyond the descriptor limit.
 * Stop: listeners close, idle connections close, the others have until the grace is over to get their answers. */
#include "net_impl.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SWEEP_US 1000000
#define ACCEPT_PAUSE_US 100000
#define REACTORS_MAX 64

/* ---- admission ---- */

static bool count_ip(struct vv_net *net, const struct in6_addr *ip)
{
    int max = net->config.conns_per_ip_max;
    bool ok = true;
    if (!max) return true;
    pthread_mutex_lock(&net->ip_lock);
    size_t i = 0;
    while (i < net->ip_count && memcmp(&net->ips[i].ip, ip, sizeof *ip)) i++;
    if (i == net->ip_count) {
        if (net->ip_count == net->ip_cap) {
            size_t cap = net->ip_cap ? net->ip_cap * 2 : 64;
            struct vv_ip *v = realloc(net->ips, cap * sizeof *v);
            if (v) net->ips = v, net->ip_cap = cap;
            ok = v != NULL;
        }
        if (ok) net->ips[net->ip_count++] = (struct vv_ip){.ip = *ip};
    }
    ok = ok && net->ips[i].count < max;
    if (ok) net->ips[i].count++;
    pthread_mutex_unlock(&net->ip_lock);
    return ok;
}

void vv_listen_forget(struct vv_net *net, const struct in6_addr *ip)
{
    if (!net->config.conns_per_ip_max) return;
    pthread_mutex_lock(&net->ip_lock);
    for (size_t i = 0; i < net->ip_count; i++)
        if (!memcmp(&net->ips[i].ip, ip, sizeof *ip)) {
            if (--net->ips[i].count == 0) net->ips[i] = net->ips[--net->ip_count];
            break;
        }
    pthread_mutex_unlock(&net->ip_lock);
}

/* Address as text and as a v6 key (v4 mapped). */
static void describe(const struct sockaddr_storage *a, struct vv_conn *c)
{
    char host[INET6_ADDRSTRLEN] = "?";
    int port = 0;
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        port = ntohs(v4->sin_port);
        c->ip.s6_addr[10] = c->ip.s6_addr[11] = 0xff;
        memcpy(c->ip.s6_addr + 12, &v4->sin_addr, 4);
    } else if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        port = ntohs(v6->sin6_port);
        c->ip = v6->sin6_addr;
    }
    snprintf(c->peer, sizeof c->peer, "%s:%d", host, port);
}

static struct vv_reactor *least_loaded(struct vv_net *net)
{
    struct vv_reactor *best = net->reactors[0];
    for (int i = 1; i < net->reactor_count; i++)
        if (atomic_load(&net->reactors[i]->conn_count) < atomic_load(&best->conn_count)) best = net->reactors[i];
    return best;
}

static void refuse(struct vv_net *net, int fd, const char *peer, const char *why)
{
    close(fd);
    if ((atomic_fetch_add(&net->refused, 1) & 255) == 0) VLOG_WARN("connection from %s refused: %s", peer, why);
}

static void admit(struct vv_listener *l, int fd, const struct sockaddr_storage *from)
{
    struct vv_net *net = l->net;
    int one = 1, total = net->config.conns_max;
    struct vv_conn *c = calloc(1, sizeof *c);
    if (!c) {
        refuse(net, fd, "?", "out of memory");
        return;
    }
    describe(from, c);
    if ((total && atomic_load(&net->conns) >= total) || !count_ip(net, &c->ip)) {
        refuse(net, fd, c->peer, "max.connections or max.connections.per.ip is reached");
        free(c);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (net->config.sndbuf > 0) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &net->config.sndbuf, sizeof net->config.sndbuf);
    if (net->config.rcvbuf > 0) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &net->config.rcvbuf, sizeof net->config.rcvbuf);
    c->net = net;
    c->fd = fd;
    c->listener = l->index;
    c->transport = &vv_transport_plain;
    c->id = atomic_fetch_add(&net->next_id, 1) + 1;
    c->reactor = least_loaded(net);
    c->adopt.run = vv_conn_adopt;
    atomic_fetch_add(&c->reactor->conn_count, 1);
    atomic_fetch_add(&net->conns, 1);
    atomic_fetch_add(&net->accepted, 1);
    vv_reactor_post(c->reactor, &c->adopt);
}

static void set_accepting(struct vv_net *net, bool on)
{
    for (size_t i = 0; i < net->listener_count; i++)
        vv_reactor_rewatch(net->reactors[0], net->listeners[i].fd, on ? (uint32_t)EPOLLIN : 0, &net->listeners[i].source);
}

static void accept_again(struct vv_timer *t)
{
    struct vv_net *net = VV_CONTAINER(t, struct vv_net, accept_again);
    if (net->reserve_fd < 0) net->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    set_accepting(net, true);
}

/* No descriptors left: tell one newcomer, then rest for a moment instead of spinning. */
static void out_of_descriptors(struct vv_listener *l)
{
    struct vv_net *net = l->net;
    if (net->reserve_fd >= 0) {
        close(net->reserve_fd);
        net->reserve_fd = -1;
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) refuse(net, fd, "?", "out of file descriptors (raise the limit of open files)");
        net->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    set_accepting(net, false);
    vv_timer_arm(net->reactors[0], &net->accept_again, vv_reactor_now_us(net->reactors[0]) + ACCEPT_PAUSE_US);
}

static void on_accept(struct vv_source *s, uint32_t events)
{
    struct vv_listener *l = VV_CONTAINER(s, struct vv_listener, source);
    (void)events;
    for (int i = 0; i < 64; i++) {
        struct sockaddr_storage from = {0};
        socklen_t n = sizeof from;
        int fd = accept4(l->fd, (struct sockaddr *)&from, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            admit(l, fd, &from);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            out_of_descriptors(l);
            return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            return;
        }
    }
}

/* ---- binding ---- */

static int bind_one(struct vv_listen *want, struct vv_listener *l, struct vv_error *e)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list;
    char port[8];
    const char *host = want->host && *want->host ? want->host : NULL;
    snprintf(port, sizeof port, "%d", want->port);
    int rc = getaddrinfo(host, port, &hints, &list);
    if (rc) return vv_error_set(e, VV_E_CONFIG, "listener address %s: %s. Check `listeners`", host ? host : "*", gai_strerror(rc));
    int one = 1, err = VV_OK;
    l->fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd >= 0) setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (l->fd < 0 || bind(l->fd, list->ai_addr, list->ai_addrlen) || listen(l->fd, 512)) {
        if (errno == EADDRINUSE)
            err = vv_error_set(e, VV_E_EXIST, "port %d on %s is taken: another broker? Stop it, or give another port with `listeners`",
                               want->port, host ? host : "*");
        else
            err = vv_error_set(e, VV_E_ACCESS, "cannot listen on %s:%d: %s", host ? host : "*", want->port, strerror(errno));
    }
    freeaddrinfo(list);
    struct sockaddr_storage bound;
    socklen_t n = sizeof bound;
    if (!err && !getsockname(l->fd, (struct sockaddr *)&bound, &n))
        want->bound_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                              : ((struct sockaddr_in *)&bound)->sin_port);
    return err;
}

/* ---- life ---- */

static void sweep(struct vv_timer *t)
{
    struct vv_reactor *r = VV_CONTAINER(t, struct vv_reactor, sweep);
    vv_conn_sweep(r);
    vv_timer_arm(r, &r->sweep, vv_reactor_now_us(r) + SWEEP_US);
}

int vv_net_new(struct vv_env *env, const struct vv_net_config *config, struct vv_listen *listens, size_t n,
               const struct vv_net_handler *h, void *ctx, struct vv_net **out, struct vv_error *e)
{
    struct vv_net *net = calloc(1, sizeof *net);
    if (!net) return VV_E_NOMEM;
    net->env = env;
    net->config = *config;
    net->handler = h;
    net->ctx = ctx;
    pthread_mutex_init(&net->ip_lock, NULL);
    net->accept_again.fire = accept_again;
    net->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int count = config->reactors > 0 ? config->reactors : (int)VV_MAX(cores, 1L);
    count = VV_MIN(count, REACTORS_MAX);
    net->reactors = calloc((size_t)count, sizeof *net->reactors);
    net->listeners = calloc(n + 1, sizeof *net->listeners);
    int err = net->reactors && net->listeners ? VV_OK : VV_E_NOMEM;
    for (int i = 0; !err && i < count; i++) {
        char name[16];
        snprintf(name, sizeof name, "net-%d", i);
        err = vv_reactor_new(env, name, &net->reactors[i]);
        if (err) break;
        net->reactors[i]->net = net;
        net->reactors[i]->sweep.fire = sweep;
        net->reactor_count++;
    }
    for (size_t i = 0; !err && i < n; i++) {
        struct vv_listener *l = &net->listeners[net->listener_count++];
        *l = (struct vv_listener){.source = {on_accept}, .net = net, .fd = -1, .index = (int)i};
        err = bind_one(&listens[i], l, e);
    }
    if (err) {
        vv_net_free(net);
        return err;
    }
    *out = net;
    return VV_OK;
}

int vv_net_start(struct vv_net *net)
{
    int err = VV_OK;
    for (int i = 0; !err && i < net->reactor_count; i++) {
        struct vv_reactor *r = net->reactors[i];
        vv_timer_arm(r, &r->sweep, vv_reactor_now_us(r) + SWEEP_US);
        if (i == 0)
            for (size_t k = 0; !err && k < net->listener_count; k++)
                err = vv_reactor_watch(r, net->listeners[k].fd, EPOLLIN, &net->listeners[k].source);
        if (!err) err = vv_reactor_start(r);
    }
    return err;
}

struct stop_task {
    struct vv_task task;
    struct vv_reactor *r;
    bool force;
    _Atomic int *left;
};

static void stop_run(struct vv_task *t)
{
    struct stop_task *s = VV_CONTAINER(t, struct stop_task, task);
    for (struct vv_conn *c = s->r->conns, *next; c; c = next) {
        next = c->next;
        if (!c->dead && (s->force || vv_conn_idle(c))) vv_conn_kill(c, NULL);
    }
    atomic_fetch_sub(s->left, 1);
}

/* One pass over every reactor's connections; waits for it. */
static void stop_pass(struct vv_net *net, bool force)
{
    struct stop_task tasks[REACTORS_MAX];
    _Atomic int left = net->reactor_count;
    for (int i = 0; i < net->reactor_count; i++) {
        tasks[i] = (struct stop_task){.task = {.run = stop_run}, .r = net->reactors[i], .force = force, .left = &left};
        vv_reactor_post(net->reactors[i], &tasks[i].task);
    }
    struct timespec pause = {.tv_nsec = 1000000};
    while (atomic_load(&left)) nanosleep(&pause, NULL);
}

void vv_net_stop(struct vv_net *net, int64_t grace_ms)
{
    if (!net->reactors[0]->started) return;
    atomic_store(&net->stopping, true);
    for (size_t i = 0; i < net->listener_count; i++) vv_reactor_unwatch(net->reactors[0], net->listeners[i].fd);
    int64_t until = vv_mono_ms(net->env) + grace_ms;
    struct timespec pause = {.tv_nsec = 10000000};
    stop_pass(net, false);
    while (atomic_load(&net->conns) && vv_mono_ms(net->env) < until) {
        nanosleep(&pause, NULL);
        stop_pass(net, false);
    }
    stop_pass(net, true);
    /* What was killed with questions open gets its (discarded) answers from the parts that stop after us. */
    until = vv_mono_ms(net->env) + 1000;
    while (atomic_load(&net->conns) && vv_mono_ms(net->env) < until) nanosleep(&pause, NULL);
    for (int i = 0; i < net->reactor_count; i++) vv_reactor_stop(net->reactors[i]);
}

void vv_net_free(struct vv_net *net)
{
    if (!net) return;
    for (size_t i = 0; i < net->listener_count; i++)
        if (net->listeners[i].fd >= 0) close(net->listeners[i].fd);
    for (int i = 0; i < net->reactor_count; i++) {
        vv_reactor_drain(net->reactors[i]); /* late answers free their exchanges and connections */
        vv_reactor_free(net->reactors[i]);
    }
    if (net->reserve_fd >= 0) close(net->reserve_fd);
    pthread_mutex_destroy(&net->ip_lock);
    free(net->ips);
    free(net->listeners);
    free(net->reactors);
    free(net);
}

void vv_net_stats(struct vv_net *net, struct vv_net_stats *out)
{
    *out = (struct vv_net_stats){
        .conns = (uint64_t)atomic_load(&net->conns),
        .accepted = atomic_load(&net->accepted),
        .closed = atomic_load(&net->closed),
        .refused = atomic_load(&net->refused),
        .bytes_in = atomic_load(&net->bytes_in),
        .bytes_out = atomic_load(&net->bytes_out),
        .requests = atomic_load(&net->requests),
        .unsent = vv_net_unsent(net),
    };
}

uint64_t vv_net_unsent(struct vv_net *net)
{
    return atomic_load_explicit(&net->unsent_bytes, memory_order_relaxed);
}

int vv_net_reactor_count(struct vv_net *net)
{
    return net->reactor_count;
}

struct vv_reactor *vv_net_reactor(struct vv_net *net, int i)
{
    return net->reactors[i];
}
