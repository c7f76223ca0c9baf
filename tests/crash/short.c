/* short.c — preloaded by disk.py: reads and writes of files end early or are interrupted, as POSIX allows them to.
 * Every third call fails with EINTR, every second other one moves only a part. Descriptors of sockets are not touched: only
 * pread, pwrite and preadv2 are here. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <sys/uio.h>

static atomic_uint calls;

/* 0: interrupted; else how much of n is moved. */
static size_t part(size_t n)
{
    unsigned c = atomic_fetch_add(&calls, 1);
    if (c % 3 == 0) return 0;
    return c % 2 && n > 1 ? 1 + c % (n - 1) : n;
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
    static ssize_t (*next)(int, void *, size_t, off_t);
    if (!next) next = (ssize_t(*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread64");
    size_t some = n ? part(n) : 0;
    if (n && !some) return errno = EINTR, -1;
    return next(fd, p, some, at);
}

ssize_t pread64(int fd, void *p, size_t n, off_t at)
{
    return pread(fd, p, n, at);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    static ssize_t (*next)(int, const void *, size_t, off_t);
    if (!next) next = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    size_t some = n ? part(n) : 0;
    if (n && !some) return errno = EINTR, -1;
    return next(fd, p, some, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t at)
{
    return pwrite(fd, p, n, at);
}

ssize_t preadv2(int fd, const struct iovec *v, int count, off_t at, int flags)
{
    static ssize_t (*next)(int, const struct iovec *, int, off_t, int);
    if (!next) next = (ssize_t(*)(int, const struct iovec *, int, off_t, int))dlsym(RTLD_NEXT, "preadv2");
    struct iovec first = v[0];
    first.iov_len = first.iov_len ? part(first.iov_len) : 0;
    if (v[0].iov_len && !first.iov_len) return errno = EINTR, -1;
    return count == 1 ? next(fd, &first, 1, at, flags) : next(fd, v, count, at, flags);
}
