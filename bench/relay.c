/* relay.c — a TCP relay that copies, for bench/cold: what a middleman costs at least, and a line of a given length.
 *
 *   relay HOST:PORT [--delay-ms N] [--bytes-per-s N]
 *
 * Listens on a free port of 127.0.0.1, prints "PORT\n" on stdout, and ends with its stdin. Each connection gets one to
 * HOST:PORT and two threads, which read and write 256 KiB at a time. --delay-ms holds every piece on its way to the far
 * end for so long (for requests that wait for their answers: the round trip). --bytes-per-s is each connection's own
 * limit on the way back. SIGUSR1 prints the most connections that were open at once, and begins to count anew. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE (256u << 10)
#define LATE_S 0.05

static struct sockaddr_in far_end;
static long delay_ms;
static double bytes_per_s;
static atomic_int open_now, open_most;

struct pipe { int from, to; double rate; long delay_ms; struct both *both; };
struct both { struct pipe way[2]; atomic_int left; };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void nap(double s)
{
    if (s <= 0) return;
    struct timespec t = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
}

static int push(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static void end(struct both *b)
{
    if (atomic_fetch_sub(&b->left, 1) != 1) return;
    close(b->way[0].from);
    close(b->way[0].to);
    atomic_fetch_sub(&open_now, 1);
    free(b);
}

static void *copy(void *arg)
{
    struct pipe *p = arg;
    char *piece = malloc(PIECE);
    double due = 0; /* when what was sent so far has passed the line */
    ssize_t n;
    while (piece && (n = recv(p->from, piece, PIECE, 0)) > 0) {
        nap((double)p->delay_ms / 1e3);
        if (p->rate > 0) {
            double now = now_s();
            due = (due > now - LATE_S ? due : now - LATE_S) + (double)n / p->rate; /* a nap that was too long is made up for */
            nap(due - now);
        }
        if (push(p->to, piece, (size_t)n)) break;
    }
    shutdown(p->to, SHUT_WR);
    shutdown(p->from, SHUT_RD);
    free(piece);
    end(p->both);
    return NULL;
}

static void join(int near)
{
    int one = 1, most, now, far = socket(AF_INET, SOCK_STREAM, 0);
    struct both *b = calloc(1, sizeof *b);
    pthread_t t;
    if (!b || far < 0 || connect(far, (struct sockaddr *)&far_end, sizeof far_end)) {
        close(near);
        if (far >= 0) close(far);
        free(b);
        return;
    }
    setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(far, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    b->way[0] = (struct pipe){near, far, 0, delay_ms, b};
    b->way[1] = (struct pipe){far, near, bytes_per_s, 0, b};
    atomic_init(&b->left, 2);
    now = atomic_fetch_add(&open_now, 1) + 1;
    for (most = atomic_load(&open_most); now > most && !atomic_compare_exchange_weak(&open_most, &most, now);) {}
    for (int i = 0; i < 2; i++) {
        if (pthread_create(&t, NULL, copy, &b->way[i])) exit(1);
        pthread_detach(t);
    }
}

static void *listen_in(void *arg)
{
    for (;;) join(accept(*(int *)arg, NULL, NULL));
    return NULL;
}

/* The main thread: waits for the end, and tells when asked. */
static void tell(int sig)
{
    (void)sig;
    char line[32];
    int n = snprintf(line, sizeof line, "%d\n", atomic_exchange(&open_most, atomic_load(&open_now)));
    if (write(STDOUT_FILENO, line, (size_t)n) != n) _exit(1);
}

int main(int argc, char **argv)
{
    char host[64], c;
    int port, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof self;
    pthread_t t;
    if (argc < 2 || sscanf(argv[1], "%63[^:]:%d", host, &port) != 2 || !inet_aton(host, &far_end.sin_addr)) {
        fprintf(stderr, "usage: relay ADDRESS:PORT [--delay-ms N] [--bytes-per-s N]\n");
        return 2;
    }
    for (int i = 2; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--delay-ms")) delay_ms = atol(argv[i + 1]);
        if (!strcmp(argv[i], "--bytes-per-s")) bytes_per_s = atof(argv[i + 1]);
    }
    far_end.sin_family = AF_INET;
    far_end.sin_port = htons((uint16_t)port);
    signal(SIGUSR1, tell);
    if (bind(fd, (struct sockaddr *)&self, n) || listen(fd, 128) || getsockname(fd, (struct sockaddr *)&self, &n)) {
        perror("relay");
        return 1;
    }
    printf("%d\n", ntohs(self.sin_port));
    fflush(stdout);
    if (pthread_create(&t, NULL, listen_in, &fd)) return 1;
    while (read(STDIN_FILENO, &c, 1)) {} /* a signal is no end */
    return 0;
}
