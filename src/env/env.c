/* env.c — thin calls over the seams, and whole-file helpers built on them. Contract: varve/env.h. Any thread. */
#include "varve/env.h"
#include "varve/bytes.h"
#include "varve/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int vv_fs_open(struct vv_env *env, const char *path, int flags, struct vv_file **out)
{
    return env->fs_ops->open(env->fs, path, flags, out);
}

int vv_fs_close(struct vv_env *env, struct vv_file *f)
{
    return f ? env->fs_ops->close(env->fs, f) : VV_OK;
}

ssize_t vv_fs_pread(struct vv_env *env, struct vv_file *f, void *dst, size_t n, uint64_t at)
{
    return env->fs_ops->pread(env->fs, f, dst, n, at);
}

ssize_t vv_fs_pread_nowait(struct vv_env *env, struct vv_file *f, void *dst, size_t n, uint64_t at)
{
    return env->fs_ops->pread_nowait(env->fs, f, dst, n, at);
}

int vv_fs_pwrite(struct vv_env *env, struct vv_file *f, const void *src, size_t n, uint64_t at)
{
    return env->fs_ops->pwrite(env->fs, f, src, n, at);
}

int vv_fs_datasync(struct vv_env *env, struct vv_file *f)
{
    return env->fs_ops->datasync(env->fs, f);
}

int vv_fs_truncate(struct vv_env *env, struct vv_file *f, uint64_t size)
{
    return env->fs_ops->truncate(env->fs, f, size);
}

int vv_fs_size(struct vv_env *env, struct vv_file *f, uint64_t *out)
{
    return env->fs_ops->size(env->fs, f, out);
}

int vv_fs_drop_cache(struct vv_env *env, struct vv_file *f)
{
    return env->fs_ops->drop_cache(env->fs, f);
}

int vv_fs_stat(struct vv_env *env, const char *path, struct vv_stat *out)
{
    return env->fs_ops->stat(env->fs, path, out);
}

int vv_fs_rename(struct vv_env *env, const char *from, const char *to)
{
    return env->fs_ops->rename(env->fs, from, to);
}

int vv_fs_unlink(struct vv_env *env, const char *path)
{
    return env->fs_ops->unlink(env->fs, path);
}

int vv_fs_rmdir(struct vv_env *env, const char *path)
{
    return env->fs_ops->rmdir(env->fs, path);
}

int vv_fs_sync_dir(struct vv_env *env, const char *path)
{
    return env->fs_ops->sync_dir(env->fs, path);
}

int vv_fs_list(struct vv_env *env, const char *path, int (*each)(void *ctx, const char *name), void *ctx)
{
    return env->fs_ops->list(env->fs, path, each, ctx);
}

int vv_fs_space(struct vv_env *env, const char *path, struct vv_space *out)
{
    return env->fs_ops->space(env->fs, path, out);
}

uint64_t vv_space_reserve(int64_t configured, uint64_t total)
{
    const uint64_t gib = 1ull << 30;
    if (configured >= 0) return (uint64_t)configured;
    return VV_MIN(VV_MAX(gib, total / 20), total / 8);
}

int vv_fs_lock(struct vv_env *env, const char *path, struct vv_file **out)
{
    return env->fs_ops->lock(env->fs, path, out);
}

int64_t vv_wall_ms(struct vv_env *env)
{
    return env->clock_ops->wall_ms(env->clock);
}

int64_t vv_mono_us(struct vv_env *env)
{
    return env->clock_ops->mono_us(env->clock);
}

int64_t vv_mono_ms(struct vv_env *env)
{
    return vv_mono_us(env) / 1000;
}

void vv_random(struct vv_env *env, void *dst, size_t n)
{
    env->random_ops->fill(env->random, dst, n);
}

/* The directory part of path; "." when there is none. */
static int parent_of(const char *path, char *out, size_t cap)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= cap) return VV_E_LIMIT;
    if (!slash) {
        snprintf(out, cap, ".");
    } else if (!n) {
        snprintf(out, cap, "/");
    } else {
        memcpy(out, path, n);
        out[n] = 0;
    }
    return VV_OK;
}

int vv_fs_sync_parent(struct vv_env *env, const char *path)
{
    char parent[4096];
    int err = parent_of(path, parent, sizeof parent);
    return err ? err : vv_fs_sync_dir(env, parent);
}

int vv_fs_mkdir(struct vv_env *env, const char *path)
{
    struct vv_stat st;
    if (vv_fs_stat(env, path, &st) == VV_OK) return st.is_dir ? VV_OK : VV_E_EXIST; /* mkdir would lock the directory above */
    int err = env->fs_ops->mkdir(env->fs, path);
    return err == VV_E_NOENT ? vv_fs_mkdirs(env, path) : err == VV_E_EXIST ? VV_OK : err;
}

int vv_fs_mkdirs(struct vv_env *env, const char *path)
{
    struct vv_stat st;
    char parent[4096];
    if (vv_fs_stat(env, path, &st) == VV_OK) return st.is_dir ? VV_OK : VV_E_EXIST;
    int err = parent_of(path, parent, sizeof parent);
    if (!err && strcmp(parent, path) != 0 && strcmp(parent, ".") != 0) err = vv_fs_mkdirs(env, parent);
    if (!err) err = env->fs_ops->mkdir(env->fs, path);
    if (err == VV_E_EXIST) return VV_OK; /* somebody else made it meanwhile */
    if (!err) err = vv_fs_sync_dir(env, parent);
    return err;
}

int vv_fs_read_file(struct vv_env *env, const char *path, size_t max, uint8_t **out, size_t *n)
{
    struct vv_file *f = NULL;
    uint64_t size = 0;
    uint8_t *p = NULL;
    int err = vv_fs_open(env, path, VV_O_READ, &f);
    if (!err) err = vv_fs_size(env, f, &size);
    if (!err && size > max) err = VV_E_LIMIT;
    if (!err && !(p = malloc((size_t)size + 1))) err = VV_E_NOMEM;
    if (!err) {
        ssize_t got = vv_fs_pread(env, f, p, (size_t)size, 0);
        if (got < 0) err = (int)got;
        else size = (uint64_t)got;
    }
    vv_fs_close(env, f);
    if (err) {
        free(p);
        return err;
    }
    p[size] = 0;
    *out = p;
    *n = (size_t)size;
    return VV_OK;
}

int vv_fs_write_file(struct vv_env *env, const char *path, const void *src, size_t n)
{
    char temp[4096], parent[4096];
    struct vv_file *f = NULL;
    if ((size_t)snprintf(temp, sizeof temp, "%s.tmp", path) >= sizeof temp) return VV_E_LIMIT;
    int err = parent_of(path, parent, sizeof parent);
    if (!err) err = vv_fs_open(env, temp, VV_O_WRITE | VV_O_CREATE | VV_O_TRUNC, &f);
    if (err) return err;
    err = vv_fs_pwrite(env, f, src, n, 0);
    if (!err) err = vv_fs_datasync(env, f);
    int closed = vv_fs_close(env, f);
    if (!err) err = closed;
    if (!err) err = vv_fs_rename(env, temp, path);
    if (!err) err = vv_fs_sync_dir(env, parent);
    else vv_fs_unlink(env, temp);
    return err;
}

int vv_fs_write_hint(struct vv_env *env, const char *path, const void *src, size_t n)
{
    struct vv_file *f = NULL;
    int err = vv_fs_open(env, path, VV_O_WRITE | VV_O_CREATE | VV_O_TRUNC, &f);
    if (err) return err;
    err = vv_fs_pwrite(env, f, src, n, 0);
    int closed = vv_fs_close(env, f);
    return err ? err : closed;
}
