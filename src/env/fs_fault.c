/* fs_fault.c — a wrapper over any file system that fails chosen calls: contract in env_sim.h. Any thread: a mutex
 * around the rules and counts only, never held while the inner file system works. */
#include "env_sim.h"
#include "varve/error.h"
#include "varve/vlog.h"

#include <stdlib.h>
#include <string.h>

#define KINDS 15

struct rule {
    struct vv_fsfault_rule r;
    char *part;
    unsigned seen, hits;
};
struct vv_fs_fault {
    pthread_mutex_t mu;
    const struct vv_fs_ops *ops;
    void *inner;
    struct rule *rules;
    size_t n;
    uint64_t calls[KINDS];
};
struct vv_file {
    struct vv_file *inner;
    char *path;
};

struct vv_fs_fault *vv_fs_fault_new(const struct vv_fs_ops *inner_ops, void *inner)
{
    struct vv_fs_fault *f = calloc(1, sizeof *f);
    VV_ASSERT(f);
    pthread_mutex_init(&f->mu, NULL);
    f->ops = inner_ops;
    f->inner = inner;
    return f;
}

void vv_fs_fault_clear(struct vv_fs_fault *f)
{
    pthread_mutex_lock(&f->mu);
    for (size_t i = 0; i < f->n; i++) free(f->rules[i].part);
    free(f->rules);
    f->rules = NULL;
    f->n = 0;
    pthread_mutex_unlock(&f->mu);
}

void vv_fs_fault_free(struct vv_fs_fault *f)
{
    if (!f) return;
    vv_fs_fault_clear(f);
    pthread_mutex_destroy(&f->mu);
    free(f);
}

int vv_fs_fault_add(struct vv_fs_fault *f, const struct vv_fsfault_rule *rule)
{
    struct rule r = {.r = *rule, .part = rule->path_part ? strdup(rule->path_part) : NULL};
    VV_ASSERT(!rule->path_part == !r.part);
    if (!r.r.ops) r.r.ops = VV_FSOP_ANY;
    if (!r.r.from) r.r.from = 1;
    if (!r.r.err) r.r.err = VV_E_IO;
    pthread_mutex_lock(&f->mu);
    f->rules = realloc(f->rules, (f->n + 1) * sizeof *f->rules);
    VV_ASSERT(f->rules);
    f->rules[f->n] = r;
    int id = (int)f->n++;
    pthread_mutex_unlock(&f->mu);
    return id;
}

unsigned vv_fs_fault_hits(struct vv_fs_fault *f, int id)
{
    pthread_mutex_lock(&f->mu);
    VV_ASSERT(id >= 0 && (size_t)id < f->n);
    unsigned hits = f->rules[id].hits;
    pthread_mutex_unlock(&f->mu);
    return hits;
}

uint64_t vv_fs_fault_calls(struct vv_fs_fault *f, unsigned ops)
{
    uint64_t n = 0;
    pthread_mutex_lock(&f->mu);
    for (int i = 0; i < KINDS; i++)
        if (ops & (1u << i)) n += f->calls[i];
    pthread_mutex_unlock(&f->mu);
    return n;
}

/* The verdict on one call: 0, or the error to give and, in *how, when. */
static int judge(struct vv_fs_fault *f, unsigned op, const char *path, const char *path2, enum vv_fsfault_action *how)
{
    int err = VV_OK;
    pthread_mutex_lock(&f->mu);
    f->calls[__builtin_ctz(op)]++;
    for (size_t i = 0; i < f->n; i++) {
        struct rule *r = &f->rules[i];
        if (!(r->r.ops & op)) continue;
        if (r->part && !strstr(path, r->part) && !(path2 && strstr(path2, r->part))) continue;
        unsigned nth = ++r->seen;
        if (err || nth < r->r.from || (r->r.count && nth - r->r.from >= r->r.count)) continue;
        r->hits++;
        err = r->r.err;
        *how = r->r.action;
    }
    pthread_mutex_unlock(&f->mu);
    return err;
}

/* Runs CALL unless the verdict is to fail first; LATE runs it and fails all the same. */
#define THROUGH(op, path, path2, CALL)                         \
    do {                                                       \
        struct vv_fs_fault *f = fs;                            \
        enum vv_fsfault_action how = VV_FSFAULT_FAIL;          \
        int verdict = judge(f, op, path, path2, &how);         \
        if (verdict && how != VV_FSFAULT_LATE) return verdict; \
        int result = (CALL);                                   \
        return verdict ? verdict : result;                     \
    } while (0)

static int wrap(struct vv_fs_fault *f, unsigned op, const char *path, int flags, struct vv_file **out)
{
    enum vv_fsfault_action how = VV_FSFAULT_FAIL;
    struct vv_file *inner = NULL;
    int verdict = judge(f, op, path, NULL, &how);
    if (verdict && how != VV_FSFAULT_LATE) return verdict;
    int err = op == VV_FSOP_LOCK ? f->ops->lock(f->inner, path, &inner) : f->ops->open(f->inner, path, flags, &inner);
    if (err) return err;
    if (verdict) {
        f->ops->close(f->inner, inner);
        return verdict;
    }
    struct vv_file *file = malloc(sizeof *file);
    VV_ASSERT(file);
    *file = (struct vv_file){inner, strdup(path)};
    VV_ASSERT(file->path);
    *out = file;
    return VV_OK;
}

static int fault_open(void *fs, const char *path, int flags, struct vv_file **out)
{
    return wrap(fs, VV_FSOP_OPEN, path, flags, out);
}

static int fault_lock(void *fs, const char *path, struct vv_file **out)
{
    return wrap(fs, VV_FSOP_LOCK, path, 0, out);
}

static int fault_close(void *fs, struct vv_file *file)
{
    struct vv_fs_fault *f = fs;
    int err = f->ops->close(f->inner, file->inner);
    free(file->path);
    free(file);
    return err;
}

static ssize_t read_with(struct vv_fs_fault *f, struct vv_file *file, void *dst, size_t n, uint64_t at, bool wait)
{
    enum vv_fsfault_action how = VV_FSFAULT_FAIL;
    int verdict = judge(f, VV_FSOP_PREAD, file->path, NULL, &how);
    if (verdict && how != VV_FSFAULT_HALF) return verdict;
    if (verdict) n /= 2;
    return wait ? f->ops->pread(f->inner, file->inner, dst, n, at)
                : f->ops->pread_nowait(f->inner, file->inner, dst, n, at);
}

static ssize_t fault_pread(void *fs, struct vv_file *file, void *dst, size_t n, uint64_t at)
{
    return read_with(fs, file, dst, n, at, true);
}

static ssize_t fault_pread_nowait(void *fs, struct vv_file *file, void *dst, size_t n, uint64_t at)
{
    return read_with(fs, file, dst, n, at, false);
}

static int fault_pwrite(void *fs, struct vv_file *file, const void *src, size_t n, uint64_t at)
{
    struct vv_fs_fault *f = fs;
    enum vv_fsfault_action how = VV_FSFAULT_FAIL;
    int verdict = judge(f, VV_FSOP_PWRITE, file->path, NULL, &how);
    if (verdict && how == VV_FSFAULT_FAIL) return verdict;
    int err = f->ops->pwrite(f->inner, file->inner, src, verdict && how == VV_FSFAULT_HALF ? n / 2 : n, at);
    return verdict ? verdict : err;
}

static int fault_datasync(void *fs, struct vv_file *file)
{
    THROUGH(VV_FSOP_DATASYNC, file->path, NULL, f->ops->datasync(f->inner, file->inner));
}

static int fault_truncate(void *fs, struct vv_file *file, uint64_t size)
{
    THROUGH(VV_FSOP_TRUNCATE, file->path, NULL, f->ops->truncate(f->inner, file->inner, size));
}

static int fault_size(void *fs, struct vv_file *file, uint64_t *out)
{
    THROUGH(VV_FSOP_SIZE, file->path, NULL, f->ops->size(f->inner, file->inner, out));
}

static int fault_drop_cache(void *fs, struct vv_file *file)
{
    struct vv_fs_fault *f = fs;
    return f->ops->drop_cache(f->inner, file->inner);
}

static int fault_stat(void *fs, const char *path, struct vv_stat *out)
{
    THROUGH(VV_FSOP_STAT, path, NULL, f->ops->stat(f->inner, path, out));
}

static int fault_rename(void *fs, const char *from, const char *to)
{
    THROUGH(VV_FSOP_RENAME, from, to, f->ops->rename(f->inner, from, to));
}

static int fault_unlink(void *fs, const char *path)
{
    THROUGH(VV_FSOP_UNLINK, path, NULL, f->ops->unlink(f->inner, path));
}

static int fault_mkdir(void *fs, const char *path)
{
    THROUGH(VV_FSOP_MKDIR, path, NULL, f->ops->mkdir(f->inner, path));
}

static int fault_rmdir(void *fs, const char *path)
{
    THROUGH(VV_FSOP_RMDIR, path, NULL, f->ops->rmdir(f->inner, path));
}

static int fault_sync_dir(void *fs, const char *path)
{
    THROUGH(VV_FSOP_SYNC_DIR, path, NULL, f->ops->sync_dir(f->inner, path));
}

static int fault_list(void *fs, const char *path, int (*each)(void *ctx, const char *name), void *ctx)
{
    THROUGH(VV_FSOP_LIST, path, NULL, f->ops->list(f->inner, path, each, ctx));
}

static int fault_space(void *fs, const char *path, struct vv_space *out)
{
    THROUGH(VV_FSOP_SPACE, path, NULL, f->ops->space(f->inner, path, out));
}

const struct vv_fs_ops vv_fs_fault_ops = {
    .open = fault_open,
    .close = fault_close,
    .pread = fault_pread,
    .pread_nowait = fault_pread_nowait,
    .pwrite = fault_pwrite,
    .datasync = fault_datasync,
    .truncate = fault_truncate,
    .size = fault_size,
    .drop_cache = fault_drop_cache,
    .stat = fault_stat,
    .rename = fault_rename,
    .unlink = fault_unlink,
    .mkdir = fault_mkdir,
    .rmdir = fault_rmdir,
    .sync_dir = fault_sync_dir,
    .list = fault_list,
    .space = fault_space,
    .lock = fault_lock,
};
