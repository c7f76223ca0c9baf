/* fs_mem.c — a file system in memory that can lose its power: the calls. What is durable and what a cut takes is in
 * fs_mem_node.c.
 *
 * Invariants: a vv_file belongs to one life of the machine (`life`); after the power went it fails for good, so that
 * what a dead process still does cannot reach the disk. Any thread: one mutex, never held while a caller's function
 * runs. */
#include "fs_mem_node.h"
#include "varve/error.h"
#include "varve/vlog.h"

#include <stdlib.h>
#include <string.h>

struct vv_fs_mem {
    pthread_mutex_t mu;
    struct mem_disk disk;
    struct vv_clock_sim *clock;
    bool on;
    unsigned life;
    uint64_t changes, cut_at; /* cut_at: the number of the change that is not finished; 0 = none */
    void (*hook)(void *ctx);
    void *hook_ctx;
    size_t open_files;
};
struct vv_file {
    struct mem_node *node;
    unsigned life;
    bool write, lock;
};

struct vv_fs_mem *vv_fs_mem_new(struct vv_clock_sim *clock)
{
    struct vv_fs_mem *m = calloc(1, sizeof *m);
    VV_ASSERT(m);
    pthread_mutex_init(&m->mu, NULL);
    m->clock = clock;
    m->on = true;
    m->disk.root = mem_node_new(&m->disk, true);
    return m;
}

void vv_fs_mem_free(struct vv_fs_mem *m)
{
    if (!m) return;
    VV_ASSERT(!m->open_files);
    mem_disk_free(&m->disk);
    pthread_mutex_destroy(&m->mu);
    free(m);
}

/* ---- the mutex and the power ---- */

static struct vv_fs_mem *enter(void *fs)
{
    struct vv_fs_mem *m = fs;
    pthread_mutex_lock(&m->mu);
    return m;
}

static int leave(struct vv_fs_mem *m, int result)
{
    pthread_mutex_unlock(&m->mu);
    return result;
}

static void power_off(struct vv_fs_mem *m)
{
    m->on = false;
    m->life++;
    m->cut_at = 0;
    for (struct mem_node *n = m->disk.first; n; n = n->next) n->locked = false;
}

/* Every change passes here; true when the power goes in the middle of this one. */
static bool cut_now(struct vv_fs_mem *m)
{
    m->changes++;
    if (!m->cut_at || m->changes < m->cut_at) return false;
    power_off(m);
    return true;
}

/* Leaves after a cut: the hook runs without the mutex. */
static int leave_cut(struct vv_fs_mem *m)
{
    void (*hook)(void *ctx) = m->hook;
    void *ctx = m->hook_ctx;
    m->hook = NULL;
    pthread_mutex_unlock(&m->mu);
    if (hook) hook(ctx);
    return VV_E_IO;
}

static bool usable(struct vv_fs_mem *m, const struct vv_file *f)
{
    return m->on && f->life == m->life;
}

void vv_fs_mem_power(struct vv_fs_mem *m, bool on)
{
    enter(m);
    if (on) m->on = true;
    else if (m->on) power_off(m);
    leave(m, 0);
}

bool vv_fs_mem_is_on(struct vv_fs_mem *m)
{
    enter(m);
    bool on = m->on;
    leave(m, 0);
    return on;
}

void vv_fs_mem_cut_after(struct vv_fs_mem *m, uint64_t n, void (*hook)(void *ctx), void *ctx)
{
    enter(m);
    m->cut_at = n ? m->changes + n : 0;
    m->hook = n ? hook : NULL;
    m->hook_ctx = ctx;
    leave(m, 0);
}

void vv_fs_mem_crash(struct vv_fs_mem *m, uint64_t seed)
{
    enter(m);
    if (m->on) power_off(m);
    mem_disk_crash(&m->disk, seed);
    m->on = true;
    leave(m, 0);
}

uint64_t vv_fs_mem_changes(struct vv_fs_mem *m)
{
    enter(m);
    uint64_t n = m->changes;
    leave(m, 0);
    return n;
}

size_t vv_fs_mem_open_files(struct vv_fs_mem *m)
{
    enter(m);
    size_t n = m->open_files;
    leave(m, 0);
    return n;
}

void vv_fs_mem_capacity(struct vv_fs_mem *m, uint64_t bytes)
{
    enter(m);
    m->disk.capacity = bytes;
    leave(m, 0);
}

uint64_t vv_fs_mem_used(struct vv_fs_mem *m)
{
    enter(m);
    uint64_t n = m->disk.used;
    leave(m, 0);
    return n;
}

/* ---- paths ---- */

/* The directory that holds the last name of path, and that name. The root itself has n == 0. */
static int walk(struct vv_fs_mem *m, const char *path, struct mem_node **dir, const char **name, size_t *n)
{
    struct mem_node *at = m->disk.root;
    *dir = at;
    *name = "";
    *n = 0;
    for (const char *p = path;;) {
        while (*p == '/') p++;
        if (!*p) return VV_OK;
        size_t k = strcspn(p, "/");
        if (k == 1 && *p == '.') {
            p++;
            continue;
        }
        VV_ASSERT(!(k == 2 && !memcmp(p, "..", 2)));
        if (*n) { /* the name before this one must be a directory */
            at = mem_dir_find(at, *name, *n);
            if (!at) return VV_E_NOENT;
            if (!at->is_dir) return VV_E_IO;
        }
        *dir = at;
        *name = p;
        *n = k;
        p += k;
    }
}

static int find(struct vv_fs_mem *m, const char *path, struct mem_node **out)
{
    struct mem_node *dir;
    const char *name;
    size_t n;
    int err = walk(m, path, &dir, &name, &n);
    if (err) return err;
    *out = n ? mem_dir_find(dir, name, n) : dir;
    return *out ? VV_OK : VV_E_NOENT;
}

static void touch(struct vv_fs_mem *m, struct mem_node *n)
{
    if (m->clock) n->mtime_ms = m->clock->wall_ms;
}

/* One change in one directory. name need not end at n. */
static void put_entry(struct vv_fs_mem *m, struct mem_node *dir, const char *name, size_t n, struct mem_node *node)
{
    char *s = strndup(name, n);
    VV_ASSERT(s);
    mem_dir_change(&m->disk, dir, ++m->disk.seq, node ? NULL : s, node ? s : NULL, node, NULL);
    touch(m, dir);
    free(s);
}

static int open_node(struct vv_fs_mem *m, struct mem_node *node, bool write, struct vv_file **out)
{
    struct vv_file *f = malloc(sizeof *f);
    VV_ASSERT(f);
    *f = (struct vv_file){.node = node, .life = m->life, .write = write};
    mem_node_ref(node);
    m->open_files++;
    *out = f;
    return VV_OK;
}

/* ---- files ---- */

static int open_locked(struct vv_fs_mem *m, const char *path, int flags, struct vv_file **out, bool *cut)
{
    struct mem_node *dir, *node;
    const char *name;
    size_t n;
    if (!m->on) return VV_E_IO;
    int err = walk(m, path, &dir, &name, &n);
    if (err) return err;
    node = n ? mem_dir_find(dir, name, n) : dir;
    if (node && (flags & VV_O_CREATE) && (flags & VV_O_EXCL)) return VV_E_EXIST;
    if (node && node->is_dir) return VV_E_IO;
    if (!node && !(flags & VV_O_CREATE)) return VV_E_NOENT;
    bool cuts = node && (flags & VV_O_TRUNC) && node->live.n;
    if ((!node || cuts) && (*cut = cut_now(m))) return VV_E_IO;
    if (!node) {
        node = mem_node_new(&m->disk, false);
        put_entry(m, dir, name, n, node);
        mem_node_unref(&m->disk, node);
        touch(m, node);
    } else if (cuts) {
        mem_file_resize(&m->disk, node, 0);
        touch(m, node);
    }
    return open_node(m, node, (flags & VV_O_WRITE) != 0, out);
}

static int fsm_open(void *fs, const char *path, int flags, struct vv_file **out)
{
    struct vv_fs_mem *m = enter(fs);
    bool cut = false;
    int err = open_locked(m, path, flags, out, &cut);
    return cut ? leave_cut(m) : leave(m, err);
}

static int fsm_close(void *fs, struct vv_file *f)
{
    struct vv_fs_mem *m = enter(fs);
    if (f->lock && f->life == m->life) f->node->locked = false;
    mem_node_unref(&m->disk, f->node);
    m->open_files--;
    free(f);
    return leave(m, VV_OK);
}

static ssize_t read_some(void *fs, struct vv_file *f, void *dst, size_t n, uint64_t at, bool wait)
{
    struct vv_fs_mem *m = enter(fs);
    struct mem_node *node = f->node;
    ssize_t got = VV_E_IO;
    if (usable(m, f)) {
        if (wait) node->cold = false;
        size_t have = at < node->live.n ? node->live.n - (size_t)at : 0, k = n < have ? n : have;
        if (node->cold) {
            got = VV_E_AGAIN;
        } else {
            if (k) memcpy(dst, node->live.p + at, k);
            got = (ssize_t)k;
        }
    }
    leave(m, 0);
    return got;
}

static ssize_t fsm_pread(void *fs, struct vv_file *f, void *dst, size_t n, uint64_t at)
{
    return read_some(fs, f, dst, n, at, true);
}

static ssize_t fsm_pread_nowait(void *fs, struct vv_file *f, void *dst, size_t n, uint64_t at)
{
    return read_some(fs, f, dst, n, at, false);
}

static int fsm_pwrite(void *fs, struct vv_file *f, const void *src, size_t n, uint64_t at)
{
    struct vv_fs_mem *m = enter(fs);
    if (!usable(m, f) || !f->write) return leave(m, VV_E_IO);
    bool cut = cut_now(m);
    int err = mem_file_write(&m->disk, f->node, src, cut ? n / 2 : n, at);
    touch(m, f->node);
    return cut ? leave_cut(m) : leave(m, err);
}

static int fsm_datasync(void *fs, struct vv_file *f)
{
    struct vv_fs_mem *m = enter(fs);
    if (!usable(m, f)) return leave(m, VV_E_IO);
    if (cut_now(m)) return leave_cut(m);
    mem_file_sync(f->node);
    return leave(m, VV_OK);
}

static int fsm_truncate(void *fs, struct vv_file *f, uint64_t size)
{
    struct vv_fs_mem *m = enter(fs);
    if (!usable(m, f) || !f->write) return leave(m, VV_E_IO);
    if (cut_now(m)) return leave_cut(m);
    touch(m, f->node);
    return leave(m, mem_file_resize(&m->disk, f->node, size));
}

static int fsm_size(void *fs, struct vv_file *f, uint64_t *out)
{
    struct vv_fs_mem *m = enter(fs);
    if (!usable(m, f)) return leave(m, VV_E_IO);
    *out = f->node->live.n;
    return leave(m, VV_OK);
}

static int fsm_drop_cache(void *fs, struct vv_file *f)
{
    struct vv_fs_mem *m = enter(fs);
    if (!usable(m, f)) return leave(m, VV_E_IO);
    if (!f->node->write_n) f->node->cold = true; /* what was not written out stays in memory */
    return leave(m, VV_OK);
}

static int fsm_lock(void *fs, const char *path, struct vv_file **out)
{
    struct vv_fs_mem *m = enter(fs);
    struct vv_file *f = NULL;
    bool cut = false;
    int err = open_locked(m, path, VV_O_READ | VV_O_WRITE | VV_O_CREATE, &f, &cut);
    if (!err && f->node->locked) {
        mem_node_unref(&m->disk, f->node);
        m->open_files--;
        free(f);
        err = VV_E_CONFLICT;
    } else if (!err) {
        f->lock = f->node->locked = true;
        *out = f;
    }
    return cut ? leave_cut(m) : leave(m, err);
}

/* ---- names ---- */

static int fsm_stat(void *fs, const char *path, struct vv_stat *out)
{
    struct vv_fs_mem *m = enter(fs);
    struct mem_node *n = NULL;
    int err = m->on ? find(m, path, &n) : VV_E_IO;
    if (!err) *out = (struct vv_stat){.size = n->live.n, .mtime_ms = n->mtime_ms, .is_dir = n->is_dir};
    return leave(m, err);
}

static int rename_locked(struct vv_fs_mem *m, const char *from, const char *to, bool *cut)
{
    struct mem_node *a, *b, *node, *old;
    const char *an, *bn;
    size_t ak, bk;
    if (!m->on) return VV_E_IO;
    int err = walk(m, from, &a, &an, &ak);
    if (!err) err = walk(m, to, &b, &bn, &bk);
    if (err) return err;
    if (!ak || !bk) return VV_E_IO;
    node = mem_dir_find(a, an, ak);
    old = mem_dir_find(b, bn, bk);
    if (!node) return VV_E_NOENT;
    if (old == node) return VV_OK;
    if (old && old->is_dir && old->now.n) return VV_E_EXIST;
    if (old && old->is_dir != node->is_dir) return VV_E_IO;
    if ((*cut = cut_now(m))) return VV_E_IO;
    char *unset = strndup(an, ak), *set = strndup(bn, bk);
    VV_ASSERT(unset && set);
    uint64_t seq = ++m->disk.seq;
    if (a == b) {
        mem_dir_change(&m->disk, a, seq, unset, set, node, NULL);
    } else {
        mem_dir_change(&m->disk, b, seq, NULL, set, node, a);
        mem_dir_change(&m->disk, a, seq, unset, NULL, NULL, b);
    }
    touch(m, a);
    touch(m, b);
    free(unset);
    free(set);
    return VV_OK;
}

static int fsm_rename(void *fs, const char *from, const char *to)
{
    struct vv_fs_mem *m = enter(fs);
    bool cut = false;
    int err = rename_locked(m, from, to, &cut);
    return cut ? leave_cut(m) : leave(m, err);
}

static int remove_entry(void *fs, const char *path, bool want_dir)
{
    struct vv_fs_mem *m = enter(fs);
    struct mem_node *dir = NULL, *node = NULL;
    const char *name;
    size_t n;
    int err = m->on ? walk(m, path, &dir, &name, &n) : VV_E_IO;
    if (!err && !n) err = VV_E_IO;
    if (!err && !(node = mem_dir_find(dir, name, n))) err = VV_E_NOENT;
    if (!err && node->is_dir != want_dir) err = VV_E_IO;
    if (!err && node->now.n) err = VV_E_EXIST;
    if (err) return leave(m, err);
    if (cut_now(m)) return leave_cut(m);
    put_entry(m, dir, name, n, NULL);
    return leave(m, VV_OK);
}

static int fsm_unlink(void *fs, const char *path)
{
    return remove_entry(fs, path, false);
}

static int fsm_rmdir(void *fs, const char *path)
{
    return remove_entry(fs, path, true);
}

static int fsm_mkdir(void *fs, const char *path)
{
    struct vv_fs_mem *m = enter(fs);
    struct mem_node *dir = NULL;
    const char *name;
    size_t n;
    int err = m->on ? walk(m, path, &dir, &name, &n) : VV_E_IO;
    if (!err && (!n || mem_dir_find(dir, name, n))) err = VV_E_EXIST;
    if (err) return leave(m, err);
    if (cut_now(m)) return leave_cut(m);
    struct mem_node *node = mem_node_new(&m->disk, true);
    put_entry(m, dir, name, n, node);
    mem_node_unref(&m->disk, node);
    touch(m, node);
    return leave(m, VV_OK);
}

static int fsm_sync_dir(void *fs, const char *path)
{
    struct vv_fs_mem *m = enter(fs);
    struct mem_node *dir = NULL;
    int err = m->on ? find(m, path, &dir) : VV_E_IO;
    if (!err && !dir->is_dir) err = VV_E_IO;
    if (err) return leave(m, err);
    if (cut_now(m)) return leave_cut(m);
    mem_dir_sync(&m->disk, dir);
    return leave(m, VV_OK);
}

static int fsm_list(void *fs, const char *path, int (*each)(void *ctx, const char *name), void *ctx)
{
    struct vv_fs_mem *m = enter(fs);
    struct mem_node *dir = NULL;
    int err = m->on ? find(m, path, &dir) : VV_E_IO;
    if (!err && !dir->is_dir) err = VV_E_IO;
    size_t n = err ? 0 : dir->now.n;
    char **names = calloc(n + 1, sizeof *names);
    VV_ASSERT(names);
    for (size_t i = 0; i < n; i++) {
        names[i] = strdup(dir->now.v[i].name);
        VV_ASSERT(names[i]);
    }
    leave(m, 0);
    for (size_t i = 0; i < n; i++) {
        if (!err) err = each(ctx, names[i]);
        free(names[i]);
    }
    free(names);
    return err;
}

static int fsm_space(void *fs, const char *path, struct vv_space *out)
{
    struct vv_fs_mem *m = enter(fs);
    struct mem_node *node;
    int err = m->on ? find(m, path, &node) : VV_E_IO;
    uint64_t total = m->disk.capacity ? m->disk.capacity : (uint64_t)1 << 40;
    if (!err) *out = (struct vv_space){.total = total, .available = total > m->disk.used ? total - m->disk.used : 0};
    return leave(m, err);
}

int vv_fs_mem_flip(struct vv_fs_mem *m, const char *path, uint64_t at)
{
    enter(m);
    struct mem_node *node = NULL;
    int err = find(m, path, &node);
    if (!err && node->is_dir) err = VV_E_IO;
    if (!err && at >= node->live.n) err = VV_E_LIMIT;
    if (!err) {
        mem_file_sync(node);
        node->live.p[at] ^= 1;
        node->disk.p[at] ^= 1;
    }
    return leave(m, err);
}

const struct vv_fs_ops vv_fs_mem_ops = {
    .open = fsm_open,
    .close = fsm_close,
    .pread = fsm_pread,
    .pread_nowait = fsm_pread_nowait,
    .pwrite = fsm_pwrite,
    .datasync = fsm_datasync,
    .truncate = fsm_truncate,
    .size = fsm_size,
    .drop_cache = fsm_drop_cache,
    .stat = fsm_stat,
    .rename = fsm_rename,
    .unlink = fsm_unlink,
    .mkdir = fsm_mkdir,
    .rmdir = fsm_rmdir,
    .sync_dir = fsm_sync_dir,
    .list = fsm_list,
    .space = fsm_space,
    .lock = fsm_lock,
};
