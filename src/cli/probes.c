/* probes.c — memcpy, CRC32C, loopback, append, fdatasync. Sizes are fixed, so that numbers of two
 * runs can be compared.
 * The loopback probe has a thread of its own that sends; it is joined before the probe ends. */
#include "probes.h"

#include "histogram.h"
#include "varve/bytes.h"
#include "varve/env.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB            ((size_t)1 << 20)
#define COPY_BYTES     (64 * MIB)
#define COPIES         4
#define CRC_PIECE      ((size_t)64 << 10)
#define CRC_BYTES      (512 * MIB)
#define LOOP_WRITE     ((size_t)256 << 10)
#define LOOP_BYTES     (512 * MIB)
#define APPEND_WRITE   ((size_t)64 << 10)
#define APPEND_BYTES   (128 * MIB)
#define SYNC_BYTES     ((size_t)4 << 10)
#define SYNCS_MAX      200
#define SYNC_BUDGET_US 1000000

static double seconds_since(int64_t began_us)
{
    return (double)VV_MAX(vv_mono_us(&vv_env_posix) - began_us, 1) / 1e6;
}

/* ---- memory ---- */

static int probe_memory(struct vv_probes *out)
{
    uint8_t *a = malloc(COPY_BYTES), *b = malloc(COPY_BYTES);
    int rc = a && b ? 0 : VV_E_NOMEM;
    if (!rc) {
        memset(a, 1, COPY_BYTES);
        memset(b, 2, COPY_BYTES); /* the pages are there before the clock runs */
        int64_t began = vv_mono_us(&vv_env_posix);
        for (int i = 0; i < COPIES; i++) {
            memcpy(i % 2 ? a : b, i % 2 ? b : a, COPY_BYTES);
            __asm__ volatile("" ::: "memory");
        }
        out->memcpy_gb_s = (double)COPY_BYTES * COPIES / seconds_since(began) / 1e9;
        volatile uint32_t sink = 0;
        began = vv_mono_us(&vv_env_posix);
        for (size_t done = 0; done < CRC_BYTES; done += CRC_PIECE)
            sink = vv_crc32c(sink, a, CRC_PIECE);
        out->crc32c_gb_s = (double)CRC_BYTES / seconds_since(began) / 1e9;
    }
    free(a);
    free(b);
    return rc;
}

/* ---- loopback ---- */

struct sender {
    int fd;
    bool failed;
};

static void *send_all(void *arg)
{
    struct sender *s = arg;
    uint8_t *p = calloc(1, LOOP_WRITE);
    size_t sent = 0;
    while (p && sent < LOOP_BYTES) {
        ssize_t n = send(s->fd, p, VV_MIN(LOOP_WRITE, LOOP_BYTES - sent), MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += (size_t)n;
    }
    s->failed = sent < LOOP_BYTES;
    free(p);
    shutdown(s->fd, SHUT_WR);
    return NULL;
}

int vv_probe_tcp_pair(int fds[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[1] = -1;
    if (l >= 0 && fds[0] >= 0 && !bind(l, (struct sockaddr *)&at, sizeof at) && !listen(l, 1) &&
        !getsockname(l, (struct sockaddr *)&at, &n) && !connect(fds[0], (struct sockaddr *)&at, n))
        fds[1] = accept(l, NULL, NULL);
    if (l >= 0) close(l);
    if (fds[1] < 0 && fds[0] >= 0) close(fds[0]);
    return fds[1] < 0 ? VV_E_IO : 0;
}

static int probe_loopback(struct vv_probes *out)
{
    int fds[2];
    pthread_t thread;
    uint8_t *p = malloc(LOOP_WRITE);
    int rc = p ? vv_probe_tcp_pair(fds) : VV_E_NOMEM;
    if (rc) {
        free(p);
        return rc;
    }
    struct sender s = {.fd = fds[0]};
    int64_t began = vv_mono_us(&vv_env_posix);
    rc = pthread_create(&thread, NULL, send_all, &s) ? VV_E_NOMEM : 0;
    size_t got = 0;
    for (ssize_t n = 1; !rc && n > 0; got += (size_t)VV_MAX(n, 0))
        n = recv(fds[1], p, LOOP_WRITE, 0);
    out->loopback_mb_s = (double)got / seconds_since(began) / 1e6;
    if (!rc) pthread_join(thread, NULL);
    close(fds[0]);
    close(fds[1]);
    free(p);
    return rc ? rc : s.failed || got < LOOP_BYTES ? VV_E_IO : 0;
}

/* ---- disk ---- */

static int append_pass(const char *path, const uint8_t *p, double *mb_s)
{
    struct vv_file *f;
    int rc = vv_fs_open(&vv_env_posix, path, VV_O_WRITE | VV_O_CREATE | VV_O_TRUNC, &f);
    if (rc) return rc;
    int64_t began = vv_mono_us(&vv_env_posix);
    for (size_t at = 0; at < APPEND_BYTES && !rc; at += APPEND_WRITE)
        rc = vv_fs_pwrite(&vv_env_posix, f, p, APPEND_WRITE, at);
    *mb_s = (double)APPEND_BYTES / seconds_since(began) / 1e6;
    vv_fs_close(&vv_env_posix, f);
    int gone = vv_fs_unlink(&vv_env_posix, path);
    return rc ? rc : gone;
}

static int probe_sync(const char *path, const uint8_t *p, struct vv_probes *out)
{
    struct vv_file *f;
    struct vv_hist *h = calloc(1, sizeof *h);
    int rc = h ? vv_fs_open(&vv_env_posix, path, VV_O_WRITE | VV_O_CREATE | VV_O_TRUNC, &f) : VV_E_NOMEM;
    if (rc) {
        free(h);
        return rc;
    }
    int64_t first = vv_mono_us(&vv_env_posix);
    for (uint64_t i = 0; i < SYNCS_MAX && !rc; i++) {
        int64_t began = vv_mono_us(&vv_env_posix);
        if (began - first > SYNC_BUDGET_US && i) break;
        rc = vv_fs_pwrite(&vv_env_posix, f, p, SYNC_BYTES, i * SYNC_BYTES);
        if (!rc) rc = vv_fs_datasync(&vv_env_posix, f);
        vv_hist_add(h, (uint64_t)(vv_mono_us(&vv_env_posix) - began));
    }
    out->sync_p50_us = (double)vv_hist_at(h, 0.5);
    out->sync_p99_us = (double)vv_hist_at(h, 0.99);
    out->syncs = (int)h->count;
    vv_fs_close(&vv_env_posix, f);
    int gone = vv_fs_unlink(&vv_env_posix, path);
    free(h);
    return rc ? rc : gone;
}

static int probe_disk(const char *dir, struct vv_probes *out)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/.varve-probe.%ld", dir, (long)getpid()) >= (int)sizeof path) return VV_E_USAGE;
    uint8_t *p = malloc(APPEND_WRITE);
    if (!p) return VV_E_NOMEM;
    memset(p, 0xa5, APPEND_WRITE);
    int rc = append_pass(path, p, &out->append_cold_mb_s);
    if (!rc) rc = append_pass(path, p, &out->append_mb_s);
    if (!rc) rc = probe_sync(path, p, out);
    free(p);
    return rc;
}

int vv_probe_machine(const char *dir, struct vv_probes *out, struct vv_error *e)
{
    cpu_set_t set;
    *out = (struct vv_probes){.cpus = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set)};
    if (getloadavg(&out->load1, 1) != 1) out->load1 = -1;
    int rc = probe_memory(out);
    if (rc) return vv_error_set(e, rc, "the memory probe failed: %s", vv_err_name(rc));
    rc = probe_loopback(out);
    if (rc) return vv_error_set(e, rc, "the loopback probe failed: %s", vv_err_name(rc));
    rc = probe_disk(dir, out);
    if (rc) return vv_error_set(e, rc, "the disk probe cannot write to %s: %s", dir, vv_err_name(rc));
    return 0;
}
