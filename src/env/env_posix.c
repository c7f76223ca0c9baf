/* env_posix.c — the real clock and randomness, and the environment made of real parts. Any thread. */
#include "env_backends.h"
#include "varve/vlog.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

static int64_t real_wall_ms(void *clock)
{
    (void)clock;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t real_mono_us(void *clock)
{
    (void)clock;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void real_fill(void *random, void *dst, size_t n)
{
    (void)random;
    size_t got = 0;
    while (got < n) {
        ssize_t r = getrandom((char *)dst + got, n - got, 0);
        if (r < 0 && errno == EINTR) continue;
        VV_ASSERT(r > 0);
        got += (size_t)r;
    }
}

const struct vv_clock_ops vv_clock_real_ops = {.wall_ms = real_wall_ms, .mono_us = real_mono_us};
const struct vv_random_ops vv_random_real_ops = {.fill = real_fill};

struct vv_env vv_env_posix = {
    .fs_ops = &vv_fs_posix_ops,
    .clock_ops = &vv_clock_real_ops,
    .random_ops = &vv_random_real_ops,
};
