/* net_echo_test.c — frames in, ordered responses out: pipelining with late answers from other threads, split frames,
 * bad lengths, strangers, slow readers, back-pressure, coalesced tasks, timers, stopping with open questions. */
#include "../../src/net/net_impl.h"
#include "varve/bytes.h"
#include "varve/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <semaphore.h>

/* The handler echoes. A frame's first byte says how: 'e' at once, 'l' later on another thread in reverse order of arrival,
 * 'd' drop, 'c' close, 'b' a big response of the size that follows, 'h' hold for ever (until the connection closes). */
static struct {
    struct vv_net *net;
    struct vv_listen listen;
    pthread_mutex_t lock;
    struct vv_exchange *late[64];
    int late_count;
    struct vv_exchange *held;
    int64_t muted_us;
    sem_t go;
    _Atomic int holding, flood, flood_before; /* frames of the flood, and when the other one came */
    _Atomic int frames, closed_callbacks;
    _Atomic int writes;
    _Atomic size_t offered; /* bytes of the first of them */
    _Atomic int64_t turn_us; /* the reactor's time of it */
    _Atomic size_t turn;    /* bytes written while it was that time */
} T = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void echo(struct vv_exchange *x)
{
    struct vv_chain c = {0};
    vv_chain_add(&c, x->frame.buf, x->frame.p, x->frame.n);
    vv_exchange_reply(x, &c);
}

static int answer_all_late(void)
{
    pthread_mutex_lock(&T.lock);
    int n = T.late_count;
    for (int i = n; i-- > 0;) echo(T.late[i]);
    T.late_count = 0;
    pthread_mutex_unlock(&T.lock);
    return n;
}

static void *answer_late(void *arg)
{
    (void)arg;
    answer_all_late();
    return NULL;
}

static void held_closed(struct vv_exchange *x)
{
    atomic_fetch_add(&T.closed_callbacks, 1);
    vv_exchange_drop(x);
}

static void big(struct vv_exchange *x)
{
    struct vv_chain c = {0};
    size_t n = vv_get32(x->frame.p + 1);
    struct vv_buf *b = vv_buf_new(n);
    memset(b->data, 'x', n);
    vv_chain_add(&c, b, b->data, n);
    vv_buf_unref(b);
    vv_exchange_reply(x, &c);
}

static void on_frame(void *ctx, struct vv_exchange *x)
{
    (void)ctx;
    pthread_mutex_lock(&T.lock);
    switch (x->frame.p[0]) {
    case 'l':
        T.late[T.late_count++] = x;
        break;
    case 'd':
        vv_exchange_drop(x);
        break;
    case 'm': /* quiet for 50 ms */
        vv_conn_mute_until(x->conn, vv_reactor_now_us(x->reactor) + 50000);
        vv_conn_mute_until(x->conn, vv_reactor_now_us(x->reactor) + 10); /* the longer wait holds */
        T.muted_us = vv_mono_us(&vv_env_posix);
        echo(x);
        break;
    case 'c':
        vv_exchange_close(x, "asked to");
        break;
    case 'b':
        big(x);
        break;
    case 'h':
        x->on_conn_closed = held_closed;
        T.held = x;
        break;
    case 'w':
        atomic_store(&T.holding, 1);
        sem_wait(&T.go);
        echo(x);
        break;
    case 'f':
        atomic_fetch_add(&T.flood, 1);
        echo(x);
        break;
    case 'o':
        atomic_store(&T.flood_before, atomic_load(&T.flood));
        echo(x);
        break;
    case 'q':
        if (vv_mono_us(&vv_env_posix) - T.muted_us < 50000) abort(); /* was read although its connection is muted */
        echo(x);
        break;
    default:
        echo(x);
    }
    atomic_fetch_add(&T.frames, 1);
    pthread_mutex_unlock(&T.lock);
}

static void nothing(void *ctx, struct vv_conn *c)
{
    (void)ctx;
    (void)c;
}

/* The plain transport; the first write of a test is looked at. */
static ssize_t look_and_write(struct vv_conn *c, const struct iovec *v, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++) sum += v[i].iov_len;
    int64_t now = vv_reactor_now_us(c->reactor); /* moves on once a turn */
    if (!atomic_fetch_add(&T.writes, 1)) {
        atomic_store(&T.offered, sum);
        atomic_store(&T.turn_us, now);
        atomic_store(&T.turn, 0);
    }
    ssize_t got = vv_transport_plain.writev(c, v, n);
    if (got > 0 && now == atomic_load(&T.turn_us)) atomic_fetch_add(&T.turn, (size_t)got);
    return got;
}

static struct vv_transport_ops looking;

static void opened(void *ctx, struct vv_conn *c)
{
    (void)ctx;
    c->transport = &looking;
}

static int set_up(void **state)
{
    static const struct vv_net_handler h = {opened, on_frame, nothing};
    struct vv_net_config c = {.reactors = 2, .frame_bytes_max = 1 << 20, .unsent_bytes_max = 1 << 20, .inflight_max = 8,
                              .idle_ms_max = 600000, .stall_ms_max = 60000, .sndbuf = -1, .rcvbuf = -1};
    struct vv_error e = {0};
    (void)state;
    T.listen = (struct vv_listen){.host = "127.0.0.1", .port = 0};
    T.late_count = 0;
    atomic_store(&T.frames, 0);
    atomic_store(&T.writes, 0);
    atomic_store(&T.closed_callbacks, 0);
    looking = vv_transport_plain;
    looking.writev = look_and_write;
    assert_int_equal(vv_net_new(&vv_env_posix, &c, &T.listen, 1, &h, NULL, &T.net, &e), 0);
    assert_int_equal(vv_net_start(T.net), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    vv_net_stop(T.net, 1000);
    struct vv_net_stats s;
    vv_net_stats(T.net, &s);
    assert_int_equal(s.conns, 0);
    vv_net_free(T.net);
    return 0;
}

static int dial(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)T.listen.bound_port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    struct timeval limit = {.tv_sec = 20}; /* so that a bug ends the test instead of hanging it */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

static void send_all(int fd, const void *p, size_t n)
{
    while (n) {
        ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
        assert_true(w > 0);
        p = (const char *)p + w;
        n -= (size_t)w;
    }
}

static void send_frame(int fd, const char *text, size_t n)
{
    uint8_t length[4];
    vv_put32(length, (uint32_t)n);
    send_all(fd, length, 4);
    send_all(fd, text, n);
}

static bool read_all(int fd, void *p, size_t n)
{
    while (n) {
        ssize_t r = recv(fd, p, n, 0);
        if (r <= 0) return false;
        p = (char *)p + r;
        n -= (size_t)r;
    }
    return true;
}

static void expect_frame(int fd, const char *text)
{
    uint8_t length[4];
    char got[256];
    assert_true(read_all(fd, length, 4));
    assert_int_equal(vv_get32(length), strlen(text));
    assert_true(read_all(fd, got, strlen(text)));
    assert_memory_equal(got, text, strlen(text));
}

static void expect_closed(int fd)
{
    char c;
    ssize_t r = recv(fd, &c, 1, 0);
    assert_true(r == 0 || (r < 0 && errno == ECONNRESET));
    close(fd);
}

static void wait_frames(int n)
{
    while (atomic_load(&T.frames) < n) sched_yield();
}

static void answers_keep_request_order(void **state)
{
    (void)state;
    int fd = dial();
    send_frame(fd, "l1", 2);
    send_frame(fd, "e2", 2);
    send_frame(fd, "l3", 2);
    send_frame(fd, "d4", 2);
    send_frame(fd, "l5", 2);
    wait_frames(5);
    pthread_t t;
    pthread_create(&t, NULL, answer_late, NULL);
    expect_frame(fd, "l1");
    expect_frame(fd, "e2");
    expect_frame(fd, "l3");
    expect_frame(fd, "l5");
    pthread_join(t, NULL);
    close(fd);
}

static void frames_may_come_byte_by_byte(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0, 0, 0, 3, 'e', 'a', 'b', 0, 0, 0, 1, 'e'};
    int fd = dial();
    for (size_t i = 0; i < sizeof bytes; i++) send_all(fd, bytes + i, 1);
    expect_frame(fd, "eab");
    expect_frame(fd, "e");
    close(fd);
}

static void large_frames_arrive_whole(void **state)
{
    (void)state;
    size_t n = 1 << 20;
    char *p = malloc(n), *back = malloc(n);
    for (size_t i = 0; i < n; i++) p[i] = (char)(i * 31 + 'e');
    p[0] = 'e';
    int fd = dial();
    for (int round = 0; round < 3; round++) {
        uint8_t length[4];
        send_frame(fd, "e", 1);
        send_frame(fd, p, n);
        expect_frame(fd, "e");
        assert_true(read_all(fd, length, 4));
        assert_int_equal(vv_get32(length), n);
        assert_true(read_all(fd, back, n));
        assert_memory_equal(back, p, n);
    }
    close(fd);
    free(p);
    free(back);
}

/* What a small answer goes by is written in turns, so that the next small one need not wait for megabytes, however many large answers
 * there are; bulk alone at once. */
static void large_answers_leave_small_ones_their_turn(void **state)
{
    (void)state;
    char *back = malloc(4 << 20);
    for (int small = 0; small < 2; small++) {
        uint8_t p[(1 + 4) * (4 + 5)], *at = p, length[4];
        size_t bulk = small ? 4 : 1, n = (4 << 20) / bulk;
        int fd = dial();
        atomic_store(&T.writes, 0);
        if (small) {
            vv_put32(at, 5);
            memcpy(at + 4, "etiny", 5);
            at += 9;
        }
        for (size_t i = 0; i < bulk; i++, at += 9) {
            vv_put32(at, 5);
            at[4] = 'b';
            vv_put32(at + 5, (uint32_t)n);
        }
        send_all(fd, p, (size_t)(at - p)); /* read at once, answered in one turn */
        if (small) expect_frame(fd, "etiny");
        for (size_t i = 0; i < bulk; i++) {
            assert_true(read_all(fd, length, 4));
            assert_int_equal(vv_get32(length), n);
            assert_true(read_all(fd, back, n));
            assert_true(back[0] == 'x' && back[n - 1] == 'x');
        }
        if (small)
            assert_in_range(atomic_load(&T.turn), 64 << 10, 128 << 10 | 64);
        else
            assert_int_equal(atomic_load(&T.offered), n + 4);
        close(fd);
    }
    free(back);
}

static void bad_lengths_close(void **state)
{
    (void)state;
    static const uint8_t bad[][4] = {{0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}, {0x7f, 0xff, 0xff, 0xff}, {0, 0x10, 0, 1}, {0x16, 3, 1, 2}, {'G', 'E', 'T', ' '}};
    for (size_t i = 0; i < VV_COUNT(bad); i++) {
        int fd = dial();
        send_all(fd, bad[i], 4);
        expect_closed(fd);
    }
    int fd = dial(); /* and the others are served */
    send_frame(fd, "e", 1);
    expect_frame(fd, "e");
    close(fd);
}

static void close_goes_out_after_earlier_answers(void **state)
{
    (void)state;
    int fd = dial();
    send_frame(fd, "l1", 2);
    send_frame(fd, "c", 1);
    wait_frames(2);
    answer_late(NULL);
    expect_frame(fd, "l1");
    expect_closed(fd);
}

static void unanswered_requests_are_bounded(void **state)
{
    (void)state;
    int fd = dial();
    for (int i = 0; i < 20; i++) send_frame(fd, "l", 1);
    send_frame(fd, "e", 1);
    wait_frames(8);
    int answered = 0;
    while (answered < 20) {
        int n = answer_all_late();
        assert_true(n <= 8);
        answered += n;
    }
    for (int i = 0; i < 20; i++) expect_frame(fd, "l");
    expect_frame(fd, "e");
    close(fd);
}

static void slow_reader_stops_being_read(void **state)
{
    (void)state;
    int fd = dial();
    uint8_t ask[9] = {0, 0, 0, 5, 'b'};
    vv_put32(ask + 5, 900000);
    for (int i = 0; i < 40; i++) send_all(fd, ask, sizeof ask);
    for (int i = 0; i < 40; i++) {
        uint8_t length[4];
        static char sink[900000];
        assert_true(read_all(fd, length, 4));
        assert_int_equal(vv_get32(length), 900000);
        /* At most unsent_bytes_max and a response more than what the sockets hold were ever built ahead. */
        assert_true(read_all(fd, sink, sizeof sink));
    }
    close(fd);
}

static void held_exchanges_hear_of_the_end(void **state)
{
    (void)state;
    int fd = dial();
    send_frame(fd, "h", 1);
    wait_frames(1);
    close(fd);
    while (!atomic_load(&T.closed_callbacks)) sched_yield();
    assert_int_equal(atomic_load(&T.closed_callbacks), 1);
}

static void stop_with_open_questions(void **state)
{
    (void)state;
    int fd = dial();
    send_frame(fd, "h", 1);
    wait_frames(1);
    vv_net_stop(T.net, 0);
    assert_int_equal(atomic_load(&T.closed_callbacks), 1);
    expect_closed(fd);
}

/* ---- reactors alone ---- */

static struct {
    struct vv_task task;
    struct vv_timer first, second;
    struct vv_reactor *r;
    _Atomic int runs, order;
} R;

static void count_run(struct vv_task *t)
{
    (void)t;
    atomic_fetch_add(&R.runs, 1);
}

static void on_second(struct vv_timer *t)
{
    (void)t;
    atomic_store(&R.order, atomic_load(&R.order) * 10 + 2);
}

static void on_first(struct vv_timer *t)
{
    (void)t;
    atomic_store(&R.order, atomic_load(&R.order) * 10 + 1);
}

static void arm_both(struct vv_task *t)
{
    (void)t;
    int64_t now = vv_mono_us(&vv_env_posix);
    vv_timer_arm(R.r, &R.second, now + 20000);
    vv_timer_arm(R.r, &R.first, now + 90000000);
    vv_timer_arm(R.r, &R.first, now + 10000); /* re-armed earlier */
}

static void tasks_coalesce_and_timers_fire_in_order(void **state)
{
    (void)state;
    assert_int_equal(vv_reactor_new(&vv_env_posix, "test", &R.r), 0);
    R.task.run = count_run;
    for (int i = 0; i < 100; i++) vv_reactor_post(R.r, &R.task); /* not started: all but one coalesce */
    assert_int_equal(vv_reactor_start(R.r), 0);
    while (!atomic_load(&R.runs)) sched_yield();
    struct vv_task arm = {.run = arm_both};
    R.first.fire = on_first;
    R.second.fire = on_second;
    vv_reactor_post(R.r, &arm);
    while (atomic_load(&R.order) < 10) sched_yield();
    assert_int_equal(atomic_load(&R.order), 12);
    assert_int_equal(atomic_load(&R.runs), 1);
    vv_reactor_free(R.r);
}

struct job { struct vv_work work; _Atomic int *sum; };
static void add_one(struct vv_work *w) { atomic_fetch_add(VV_CONTAINER(w, struct job, work)->sum, 1); }

static void iopool_runs_everything_before_it_ends(void **state)
{
    (void)state;
    static struct job jobs[1000];
    static _Atomic int sum;
    struct vv_iopool *p;
    assert_int_equal(vv_iopool_new("test", 3, &p), 0);
    for (int i = 0; i < 1000; i++) {
        jobs[i] = (struct job){{add_one, NULL}, &sum};
        vv_iopool_submit(p, &jobs[i].work);
    }
    vv_iopool_free(p);
    assert_int_equal(atomic_load(&sum), 1000);
}

/* What came together with the request that muted is answered when the time is over, not at some later sweep; others are
 * served meanwhile. */
static void muted_connections_wait(void **state)
{
    (void)state;
    int fd = dial(), other = dial();
    static const char frames[] = "\0\0\0\1m\0\0\0\2q1\0\0\0\2q2";
    send_all(fd, frames, sizeof frames - 1);
    expect_frame(fd, "m");
    send_frame(other, "x", 1);
    expect_frame(other, "x");
    expect_frame(fd, "q1");
    expect_frame(fd, "q2");
    close(fd);
    close(other);
}

/* A flood of requests on one connection and one request on another, all there before the reactor looks: the other one is
 * answered after at most so many of the flood as may be unanswered at a time, twice (what waits in the buffer is taken
 * again at the end of a turn). Counted, not timed: the reactor is held until everything has been sent. */
static void a_flood_leaves_the_others_their_turn(void **state)
{
    (void)state;
    enum { FLOOD = 5000, INFLIGHT = 8 };
    static const struct vv_net_handler h = {nothing, on_frame, nothing};
    struct vv_net_config c = {.reactors = 1, .frame_bytes_max = 1 << 20, .unsent_bytes_max = 1 << 20,
                              .inflight_max = INFLIGHT, .idle_ms_max = 600000, .stall_ms_max = 60000, .sndbuf = -1,
                              .rcvbuf = -1};
    struct vv_listen usual = T.listen;
    struct vv_error e = {0};
    struct vv_net *net;
    T.listen.port = 0;
    assert_int_equal(vv_net_new(&vv_env_posix, &c, &T.listen, 1, &h, NULL, &net, &e), 0);
    assert_int_equal(vv_net_start(net), 0);
    int flooder = dial(), other = dial(), holder = dial();
    int fds[] = {flooder, other};
    for (int i = 0; i < 2; i++) { /* the reactor knows them */
        send_frame(fds[i], "x", 1);
        expect_frame(fds[i], "x");
    }
    static uint8_t flood[FLOOD * 5];
    for (int i = 0; i < FLOOD; i++) memcpy(flood + 5 * i, "\0\0\0\1f", 5);
    sem_init(&T.go, 0, 0);
    atomic_store(&T.flood, 0);
    send_frame(holder, "w", 1);
    while (!atomic_load(&T.holding)) sched_yield();
    send_all(flooder, flood, sizeof flood);
    send_all(other, "\0\0\0\1o", 5); /* at once: Nagle would hold the second half back */
    sem_post(&T.go);
    expect_frame(other, "o");
    assert_in_range(atomic_load(&T.flood_before), 0, 2 * INFLIGHT);
    for (int i = 0; i < FLOOD; i++) expect_frame(flooder, "f");
    close(flooder);
    close(other);
    close(holder);
    vv_net_stop(net, 1000);
    vv_net_free(net);
    sem_destroy(&T.go);
    T.listen = usual;
}

static void occupied_port_is_named(void **state)
{
    (void)state;
    struct vv_net_config c = {.reactors = 1, .frame_bytes_max = 1024};
    struct vv_listen l = {.host = "127.0.0.1", .port = T.listen.bound_port};
    struct vv_net *second = NULL;
    struct vv_error e = {0};
    static const struct vv_net_handler h = {nothing, on_frame, nothing};
    assert_int_equal(vv_net_new(&vv_env_posix, &c, &l, 1, &h, NULL, &second, &e), VV_E_EXIST);
    assert_non_null(strstr(e.text, "is taken"));
}

int main(void)
{
#define T_(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T_(answers_keep_request_order), T_(frames_may_come_byte_by_byte), T_(large_frames_arrive_whole), T_(large_answers_leave_small_ones_their_turn),
        T_(bad_lengths_close),
        T_(close_goes_out_after_earlier_answers), T_(unanswered_requests_are_bounded), T_(slow_reader_stops_being_read),
        T_(held_exchanges_hear_of_the_end), T_(muted_connections_wait),
        T_(a_flood_leaves_the_others_their_turn), T_(stop_with_open_questions), T_(occupied_port_is_named),
        cmocka_unit_test(tasks_coalesce_and_timers_fire_in_order),
        cmocka_unit_test(iopool_runs_everything_before_it_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
