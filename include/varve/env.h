/* env.h — the seams: everything a broker takes from outside the process except the network.
 *
 * Disk, clock and randomness come through these ops, so that unit tests and the seeded simulator can crash,
 * tear, slow and repeat them. Backends in src/env: fs_posix (real), fs_mem (in memory; a crash loses, keeps or
 * tears what was not synced, by seed), fs_fault (a wrapper that fails the n-th call); clock_real, clock_sim.
 * The object store has its own seam (tiering/objstore.h).
 *
 * All calls may be made from any thread. All return 0 or a negative vv_err (errno mapped), reads and writes
 * the byte count; EINTR and short transfers are handled inside (a short read means end of file).
 * fs errors other than E_NOENT/E_EXIST are logged by the caller that handles them. */
#ifndef VARVE_ENV_H
#define VARVE_ENV_H
#include <stdint.h>
#include <stddef.h>
#include <stdbool.h>
#include <sys/types.h>

struct vv_file; /* backend's own */

enum vv_open_flags {
    VV_O_READ = 1,
    VV_O_WRITE = 2,
    VV_O_CREATE = 4,
    VV_O_EXCL = 8,   /* with CREATE: E_EXIST when it is there */
    VV_O_TRUNC = 16,
};
struct vv_stat { uint64_t size; int64_t mtime_ms; bool is_dir; unsigned mode; /* permissions; 0 = the file system has none */ };
struct vv_space { uint64_t total, available; }; /* bytes of the file system that holds a path */

struct vv_fs_ops {
    int (*open)(void *fs, const char *path, int flags, struct vv_file **out);
    int (*close)(void *fs, struct vv_file *f);
    ssize_t (*pread)(void *fs, struct vv_file *f, void *dst, size_t n, uint64_t at);
    /* As pread, but only what is in memory already: E_AGAIN when the disk would be asked. */
    ssize_t (*pread_nowait)(void *fs, struct vv_file *f, void *dst, size_t n, uint64_t at);
    int (*pwrite)(void *fs, struct vv_file *f, const void *src, size_t n, uint64_t at); /* all n or an error */
    int (*datasync)(void *fs, struct vv_file *f); /* a failed one is never retried: the caller goes offline */
    int (*truncate)(void *fs, struct vv_file *f, uint64_t size);
    int (*size)(void *fs, struct vv_file *f, uint64_t *out);
    int (*drop_cache)(void *fs, struct vv_file *f); /* POSIX_FADV_DONTNEED: next read sees the disk */
    int (*stat)(void *fs, const char *path, struct vv_stat *out);
    int (*rename)(void *fs, const char *from, const char *to);
    int (*unlink)(void *fs, const char *path);
    int (*mkdir)(void *fs, const char *path); /* one level; E_EXIST when there */
    int (*rmdir)(void *fs, const char *path);
    int (*sync_dir)(void *fs, const char *path); /* entries of a directory are durable */
    /* Calls each(ctx, name) for every entry but . and ..; stops when it returns non-zero and returns that. */
    int (*list)(void *fs, const char *path, int (*each)(void *ctx, const char *name), void *ctx);
    int (*space)(void *fs, const char *path, struct vv_space *out);
    int (*lock)(void *fs, const char *path, struct vv_file **out); /* exclusive advisory lock; E_CONFLICT when held */
};

struct vv_clock_ops {
    int64_t (*wall_ms)(void *clock); /* Unix time: may jump; for timestamps and what people read */
    int64_t (*mono_us)(void *clock); /* never goes back: for every duration and timeout */
};

struct vv_random_ops {
    void (*fill)(void *random, void *dst, size_t n);
};

struct vv_env {
    const struct vv_fs_ops *fs_ops; void *fs;
    const struct vv_clock_ops *clock_ops; void *clock;
    const struct vv_random_ops *random_ops; void *random;
};
extern struct vv_env vv_env_posix; /* the real world */

/* Thin calls, so that code reads well. */
int vv_fs_open(struct vv_env *env, const char *path, int flags, struct vv_file **out);
int vv_fs_close(struct vv_env *env, struct vv_file *f); /* NULL is fine */
ssize_t vv_fs_pread(struct vv_env *env, struct vv_file *f, void *dst, size_t n, uint64_t at);
ssize_t vv_fs_pread_nowait(struct vv_env *env, struct vv_file *f, void *dst, size_t n, uint64_t at);
int vv_fs_pwrite(struct vv_env *env, struct vv_file *f, const void *src, size_t n, uint64_t at);
int vv_fs_datasync(struct vv_env *env, struct vv_file *f);
int vv_fs_truncate(struct vv_env *env, struct vv_file *f, uint64_t size);
int vv_fs_size(struct vv_env *env, struct vv_file *f, uint64_t *out);
int vv_fs_drop_cache(struct vv_env *env, struct vv_file *f);
int vv_fs_stat(struct vv_env *env, const char *path, struct vv_stat *out);
int vv_fs_rename(struct vv_env *env, const char *from, const char *to);
int vv_fs_unlink(struct vv_env *env, const char *path);
int vv_fs_mkdir(struct vv_env *env, const char *path);  /* the last level is not synced; fine when there */
int vv_fs_mkdirs(struct vv_env *env, const char *path); /* like mkdir -p; new directories are synced */
int vv_fs_rmdir(struct vv_env *env, const char *path);
int vv_fs_sync_dir(struct vv_env *env, const char *path);
int vv_fs_sync_parent(struct vv_env *env, const char *path); /* the directory that holds path */
int vv_fs_list(struct vv_env *env, const char *path, int (*each)(void *ctx, const char *name), void *ctx);
int vv_fs_space(struct vv_env *env, const char *path, struct vv_space *out);
/* Bytes of a file system of `total` bytes that stay free: as configured, or (< 0) 1 GiB or 5 %, less on small disks. */
uint64_t vv_space_reserve(int64_t configured, uint64_t total);
int vv_fs_lock(struct vv_env *env, const char *path, struct vv_file **out);
int64_t vv_wall_ms(struct vv_env *env);
int64_t vv_mono_us(struct vv_env *env);
int64_t vv_mono_ms(struct vv_env *env);
void vv_random(struct vv_env *env, void *dst, size_t n);

/* Whole small files. Read: at most max bytes (E_LIMIT above), *out is malloc'ed and NUL-terminated.
 * Write is atomic and durable: temporary file, datasync, rename, sync_dir. */
int vv_fs_read_file(struct vv_env *env, const char *path, size_t max, uint8_t **out, size_t *n);
int vv_fs_write_file(struct vv_env *env, const char *path, const void *src, size_t n);
/* Neither atomic nor durable: for what can be made again from elsewhere. */
int vv_fs_write_hint(struct vv_env *env, const char *path, const void *src, size_t n);
#endif
