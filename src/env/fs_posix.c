/* fs_posix.c — the real file system. EINTR and short transfers end here; every errno becomes a vv_err.
 * A vv_file is a small struct around the descriptor. Any thread; files have no shared state. */
#include "env_backends.h"
#include "varve/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

struct vv_file {
    int fd;
};

static int failed(void)
{
    return vv_err_from_errno(errno);
}

/* A sync that failed never passes, whatever it says: no caller may take it for one that was not tried. */
static int sync_failed(void)
{
    int err = failed();
    return vv_err_scarce(err) || err == VV_E_AGAIN ? VV_E_IO : err;
}

static int wrap(int fd, struct vv_file **out)
{
    if (fd < 0) return failed();
    struct vv_file *f = malloc(sizeof *f);
    if (!f) {
        close(fd);
        return VV_E_NOMEM;
    }
    f->fd = fd;
    *out = f;
    return VV_OK;
}

static int posix_open(void *fs, const char *path, int flags, struct vv_file **out)
{
    (void)fs;
    int o = O_CLOEXEC | ((flags & VV_O_WRITE) ? O_RDWR : O_RDONLY);
    if (flags & VV_O_CREATE) o |= O_CREAT;
    if (flags & VV_O_EXCL) o |= O_EXCL;
    if (flags & VV_O_TRUNC) o |= O_TRUNC;
    int fd;
    do
        fd = open(path, o, 0644);
    while (fd < 0 && errno == EINTR);
    return wrap(fd, out);
}

static int posix_close(void *fs, struct vv_file *f)
{
    (void)fs;
    int rc = close(f->fd); /* never retried: the descriptor is gone either way */
    free(f);
    return rc && errno != EINTR ? failed() : VV_OK;
}

static ssize_t posix_pread(void *fs, struct vv_file *f, void *dst, size_t n, uint64_t at)
{
    (void)fs;
    size_t got = 0;
    while (got < n) {
        ssize_t r = pread(f->fd, (char *)dst + got, n - got, (off_t)(at + got));
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return failed();
        if (!r) break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

static ssize_t posix_pread_nowait(void *fs, struct vv_file *f, void *dst, size_t n, uint64_t at)
{
    size_t got = 0;
    while (got < n) {
        struct iovec v = {(char *)dst + got, n - got};
        ssize_t r = preadv2(f->fd, &v, 1, (off_t)(at + got), RWF_NOWAIT);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0 && errno == EOPNOTSUPP) return posix_pread(fs, f, dst, n, at); /* tmpfs: always in memory */
        if (r < 0) return failed();
        if (!r) break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

static int posix_pwrite(void *fs, struct vv_file *f, const void *src, size_t n, uint64_t at)
{
    (void)fs;
    size_t put = 0;
    while (put < n) {
        ssize_t r = pwrite(f->fd, (const char *)src + put, n - put, (off_t)(at + put));
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return failed();
        if (!r) return VV_E_NOSPC;
        put += (size_t)r;
    }
    return VV_OK;
}

static int posix_datasync(void *fs, struct vv_file *f)
{
    (void)fs;
    return fdatasync(f->fd) ? sync_failed() : VV_OK; /* an interrupted one counts as failed: see env.h */
}

static int posix_truncate(void *fs, struct vv_file *f, uint64_t size)
{
    (void)fs;
    int rc;
    do
        rc = ftruncate(f->fd, (off_t)size);
    while (rc && errno == EINTR);
    return rc ? failed() : VV_OK;
}

static int posix_size(void *fs, struct vv_file *f, uint64_t *out)
{
    (void)fs;
    struct stat st;
    if (fstat(f->fd, &st)) return failed();
    *out = (uint64_t)st.st_size;
    return VV_OK;
}

static int posix_drop_cache(void *fs, struct vv_file *f)
{
    (void)fs;
    int rc = posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    return rc ? vv_err_from_errno(rc) : VV_OK;
}

static int posix_stat(void *fs, const char *path, struct vv_stat *out)
{
    (void)fs;
    struct stat st;
    if (stat(path, &st)) return failed();
    *out = (struct vv_stat){
        .size = (uint64_t)st.st_size,
        .mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000,
        .is_dir = S_ISDIR(st.st_mode),
        .mode = (unsigned)st.st_mode & 0777,
    };
    return VV_OK;
}

static int posix_rename(void *fs, const char *from, const char *to)
{
    (void)fs;
    return rename(from, to) ? failed() : VV_OK;
}

static int posix_unlink(void *fs, const char *path)
{
    (void)fs;
    return unlink(path) ? failed() : VV_OK;
}

static int posix_mkdir(void *fs, const char *path)
{
    (void)fs;
    return mkdir(path, 0755) ? failed() : VV_OK;
}

static int posix_rmdir(void *fs, const char *path)
{
    (void)fs;
    return rmdir(path) ? failed() : VV_OK;
}

static int posix_sync_dir(void *fs, const char *path)
{
    (void)fs;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return failed();
    int err = fsync(fd) ? sync_failed() : VV_OK;
    close(fd);
    return err;
}

static int posix_list(void *fs, const char *path, int (*each)(void *ctx, const char *name), void *ctx)
{
    (void)fs;
    int stop = VV_OK;
    DIR *d = opendir(path);
    if (!d) return failed();
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(d);
        if (!entry) {
            if (errno) stop = failed();
            break;
        }
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        stop = each(ctx, entry->d_name);
        if (stop) break;
    }
    closedir(d);
    return stop;
}

static int posix_space(void *fs, const char *path, struct vv_space *out)
{
    (void)fs;
    struct statvfs st;
    if (statvfs(path, &st)) return failed();
    *out = (struct vv_space){.total = (uint64_t)st.f_blocks * st.f_frsize,
                             .available = (uint64_t)st.f_bavail * st.f_frsize};
    return VV_OK;
}

static int posix_lock(void *fs, const char *path, struct vv_file **out)
{
    int err = posix_open(fs, path, VV_O_READ | VV_O_WRITE | VV_O_CREATE, out);
    if (err) return err;
    if (flock((*out)->fd, LOCK_EX | LOCK_NB)) {
        err = errno == EWOULDBLOCK ? VV_E_CONFLICT : failed();
        posix_close(fs, *out);
        *out = NULL;
    }
    return err;
}

const struct vv_fs_ops vv_fs_posix_ops = {
    .open = posix_open,
    .close = posix_close,
    .pread = posix_pread,
    .pread_nowait = posix_pread_nowait,
    .pwrite = posix_pwrite,
    .datasync = posix_datasync,
    .truncate = posix_truncate,
    .size = posix_size,
    .drop_cache = posix_drop_cache,
    .stat = posix_stat,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .mkdir = posix_mkdir,
    .rmdir = posix_rmdir,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .space = posix_space,
    .lock = posix_lock,
};
