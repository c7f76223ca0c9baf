/* obj_fs.c — the object store in a directory (`fs:DIR`): the embedded default, tests, air-gapped
 * disks, simulation.
 *
 * An object is the file DIR/KEY, byte for byte. All disk access goes through the vv_fs seam, so it
 * also works in memory. A put writes DIR/.tmp/NAME, syncs it, renames it into place and syncs the
 * directory: a reader sees the old object, the new one or none, never a part, also after a crash.
 *
 * Invariants:
 *  1. `change` is held around every rename, unlink, mkdir and rmdir, so that a delete that tidies
 * an empty directory away cannot pull it from under a put of this process; across processes the put
 * tries again on E_NOENT.
 *  2. Conditional puts hold `change` and the lock file DIR/.tmp/lock from the check to the rename:
 * atomic across processes too. A lock held elsewhere is E_CONFLICT, as S3's 409.
 *  3. The ETag of an object up to ETAG_ABOVE is its MD5; above it is not told: nobody needs it
 * there, and a HEAD that reads 128 MiB would be no HEAD.
 *  4. Keys whose first component is ".tmp" do not exist: neither stored nor listed.
 *
 * Limits: a component has at most 255 bytes; "a" and "a/b" cannot both be objects; a listing reads
 * the whole of each directory it passes, per page.
 *
 * Threads: sync calls run on the caller's, async GETs on obj_pool's (inline with inline_async).
 * `change` is a leaf. */
#include "obj_backends.h"
#include "obj_pool.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <limits.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    COPY_CHUNK = 1 << 20,
    ETAG_ABOVE = 1 << 20,
    PATH_LIMIT = 512 + VV_OBJ_KEY_MAX + 64,
    TMP_STALE_MS = 24 * 3600 * 1000,
};

struct obj_fs {
    struct vv_objstore base;
    char dir[512];
    pthread_mutex_t change;
    struct vv_objpool pool;
};

static int path_of(struct obj_fs *s, const char *key, char path[PATH_LIMIT], struct vv_error *e)
{
    if (!strcmp(key, ".tmp") || !strncmp(key, ".tmp/", 5))
        return vv_error_set(e, VV_E_USAGE, "key %s: names under .tmp are the store's own", key);
    for (const char *p = key; *p;) {
        size_t n = strcspn(p, "/");
        if (n > 255)
            return vv_error_set(e, VV_E_USAGE, "key %.200s…: a component is over 255 bytes", key);
        p += n + (p[n] == '/');
    }
    snprintf(path, PATH_LIMIT, "%s/%s", s->dir, key);
    return VV_OK;
}

static int fs_error(struct obj_fs *s, struct vv_error *e, int err, const char *what,
                    const char *key)
{
    return vv_error_set(e, err, "%s %s in %s: %s", what, key, s->base.url, vv_err_name(err));
}

static void etag_md5(const unsigned char md5[16], char etag[VV_OBJ_ETAG_MAX])
{
    size_t at = 0;
    etag[at++] = '"';
    for (int i = 0; i < 16; i++)
        at += (size_t)snprintf(etag + at, 3, "%02x", md5[i]);
    etag[at++] = '"';
    etag[at] = 0;
}

static void etag_of(const void *p, size_t n, char etag[VV_OBJ_ETAG_MAX])
{
    unsigned char md5[EVP_MAX_MD_SIZE];
    etag[0] = 0;
    if (n <= ETAG_ABOVE && EVP_Digest(p, n, md5, NULL, EVP_md5(), NULL) == 1) etag_md5(md5, etag);
}

/* ---- reading ---- */

static int open_object(struct obj_fs *s, const char *key, struct vv_file **f, uint64_t *size,
                       struct vv_error *e)
{
    char path[PATH_LIMIT];
    struct vv_stat st;
    int err = path_of(s, key, path, e);
    if (err) return err;
    err = vv_fs_stat(s->base.env, path, &st);
    if (!err && st.is_dir) err = VV_E_NOENT;
    if (!err) err = vv_fs_open(s->base.env, path, VV_O_READ, f);
    if (!err) {
        err =
            vv_fs_size(s->base.env, *f, size); /* of what was opened: a put may have come between */
        if (err) vv_fs_close(s->base.env, *f);
    }
    return err ? fs_error(s, e, err, "get", key) : VV_OK;
}

static int read_range(struct obj_fs *s, struct vv_file *f, const char *key, uint64_t at, size_t n,
                      struct vv_buf **out, struct vv_error *e)
{
    struct vv_buf *buf = vv_buf_new(n);
    if (!buf) return fs_error(s, e, VV_E_NOMEM, "get", key);
    ssize_t got = n ? vv_fs_pread(s->base.env, f, buf->data, n, at) : 0;
    if (got == (ssize_t)n) {
        *out = buf;
        return VV_OK;
    }
    vv_buf_unref(buf);
    return fs_error(s, e, got < 0 ? (int)got : VV_E_CORRUPT, "get", key);
}

static int range_check(const char *key, uint64_t at, size_t n, uint64_t size, struct vv_error *e)
{
    if (at <= size && n <= size - at) return VV_OK;
    return vv_error_set(e, VV_E_CORRUPT, "get %s: %zu bytes at %llu wanted, the object has %llu",
                        key, n, (unsigned long long)at, (unsigned long long)size);
}

static int fs_get(struct vv_objstore *base, const char *key, enum vv_objget_kind kind, uint64_t at,
                  size_t n, int64_t deadline_ms, struct vv_slice *out, struct vv_objinfo *info,
                  struct vv_error *e)
{
    struct obj_fs *s = (struct obj_fs *)base;
    struct vv_file *f;
    (void)deadline_ms;
    int err = open_object(s, key, &f, &info->size, e);
    if (err) return err;
    if (kind == VV_GET_WHOLE && info->size > n) {
        err = vv_error_set(e, VV_E_LIMIT, "get %s: %llu bytes, at most %zu wanted", key,
                           (unsigned long long)info->size, n);
        goto out;
    }
    if (kind != VV_GET_RANGE) {
        n = (size_t)VV_MIN((uint64_t)n, info->size);
        at = kind == VV_GET_WHOLE ? 0 : info->size - n;
    } else if ((err = range_check(key, at, n, info->size, e)) != VV_OK) {
        goto out;
    }
    err = read_range(s, f, key, at, n, &out->buf, e);
    if (err) goto out;
    out->p = out->buf->data;
    out->n = n;
    if (n == info->size) etag_of(out->p, n, info->etag);
out:
    vv_fs_close(base->env, f);
    return err;
}

static int head_path(struct obj_fs *s, const char *path, struct vv_objinfo *info)
{
    struct vv_stat st;
    int err = vv_fs_stat(s->base.env, path, &st);
    if (!err && st.is_dir) err = VV_E_NOENT;
    if (err) return err;
    info->size = st.size;
    info->mtime_ms = st.mtime_ms;
    info->etag[0] = 0;
    if (st.size > ETAG_ABOVE) return VV_OK;
    uint8_t *bytes;
    size_t n;
    err = vv_fs_read_file(s->base.env, path, ETAG_ABOVE, &bytes, &n);
    if (err) return err == VV_E_LIMIT ? VV_E_AGAIN : err; /* replaced by a bigger one just now */
    info->size = n;
    etag_of(bytes, n, info->etag);
    free(bytes);
    return VV_OK;
}

static int fs_head(struct vv_objstore *base, const char *key, int64_t deadline_ms,
                   struct vv_objinfo *info, struct vv_error *e)
{
    struct obj_fs *s = (struct obj_fs *)base;
    char path[PATH_LIMIT];
    (void)deadline_ms;
    int err = path_of(s, key, path, e);
    if (!err && (err = head_path(s, path, info)) != VV_OK) fs_error(s, e, err, "head", key);
    return err;
}

/* ---- async GET ---- */

/* The range piece by piece, straight to where the sink wants it. */
static int read_into_sink(struct obj_fs *s, struct vv_file *f, struct vv_objget *get)
{
    for (size_t at = 0; at < get->n;) {
        uint8_t *dst;
        size_t room = get->sink->room(get, at, &dst), n = VV_MIN(get->n - at, room);
        if (!n) return fs_error(s, &get->error, VV_E_NOMEM, "get", get->key);
        ssize_t got = vv_fs_pread(s->base.env, f, dst, n, get->at + at);
        if (got != (ssize_t)n)
            return fs_error(s, &get->error, got < 0 ? (int)got : VV_E_CORRUPT, "get", get->key);
        get->sink->arrived(get, at, n);
        at += n;
    }
    return VV_OK;
}

static int fs_range(struct vv_objstore *base, struct vv_objget *get, int64_t left_ms,
                    struct vv_buf **out)
{
    struct obj_fs *s = (struct obj_fs *)base;
    struct vv_error *e = &get->error;
    struct vv_file *f;
    uint64_t size;
    (void)left_ms;
    int err = open_object(s, get->key, &f, &size, e);
    if (err) return err;
    err = range_check(get->key, get->at, get->n, size, e);
    if (!err)
        err = get->sink ? read_into_sink(s, f, get)
                        : read_range(s, f, get->key, get->at, get->n, out, e);
    vv_fs_close(base->env, f);
    return err;
}

static void fs_get_async(struct vv_objstore *base, struct vv_objget *get)
{
    vv_objpool_submit(&((struct obj_fs *)base)->pool, get);
}

static void fs_cancel(struct vv_objstore *base, struct vv_objget *get)
{
    vv_objpool_cancel(&((struct obj_fs *)base)->pool, get);
}

/* ---- writing ---- */

static int copy_source(struct obj_fs *s, struct vv_file *f, const struct vv_objsrc *src,
                       char etag[VV_OBJ_ETAG_MAX])
{
    int err = VV_OK;
    size_t cap = (size_t)VV_MIN(VV_MAX(src->size, (uint64_t)1), (uint64_t)COPY_CHUNK);
    uint8_t *chunk = malloc(cap);
    if (!chunk) return VV_E_NOMEM;
    for (uint64_t at = 0; at < src->size && !err;) {
        size_t n = (size_t)VV_MIN(src->size - at, (uint64_t)cap);
        err = src->read(src->ctx, at, chunk, n);
        if (!err) err = vv_fs_pwrite(s->base.env, f, chunk, n, at);
        at += n;
    }
    etag[0] = 0;
    if (!err && src->size <= cap) etag_of(chunk, (size_t)src->size, etag);
    free(chunk);
    return err;
}

/* A finished, synced temporary file; its path is in tmp. */
static int write_temp(struct obj_fs *s, const struct vv_objsrc *src, char tmp[PATH_LIMIT],
                      char etag[VV_OBJ_ETAG_MAX])
{
    struct vv_env *env = s->base.env;
    uint64_t id[2];
    struct vv_file *f;
    vv_random(env, id, sizeof id);
    snprintf(tmp, PATH_LIMIT, "%s/.tmp/%016llx%016llx", s->dir, (unsigned long long)id[0],
             (unsigned long long)id[1]);
    int err = vv_fs_open(env, tmp, VV_O_WRITE | VV_O_CREATE | VV_O_EXCL, &f);
    if (err) return err;
    err = copy_source(s, f, src, etag);
    if (!err) err = vv_fs_datasync(env, f);
    int closed = vv_fs_close(env, f);
    if (!err) err = closed;
    if (err) vv_fs_unlink(env, tmp);
    return err;
}

static int parent_of(const char *path, char parent[PATH_LIMIT])
{
    size_t n = (size_t)(strrchr(path, '/') - path);
    memcpy(parent, path, n);
    parent[n] = 0;
    return VV_OK;
}

/* With `change` held. */
static int move_into_place(struct obj_fs *s, const char *tmp, const char *path)
{
    struct vv_env *env = s->base.env;
    char parent[PATH_LIMIT];
    int err = VV_OK;
    parent_of(path, parent);
    for (int attempt = 0; attempt < 8;
         attempt++) { /* another process may tidy the directory away */
        err = vv_fs_mkdirs(env, parent);
        if (!err) err = vv_fs_rename(env, tmp, path);
        if (err != VV_E_NOENT) break;
    }
    return err ? err : vv_fs_sync_dir(env, parent);
}

static int check_condition(struct obj_fs *s, const char *path, const struct vv_objput *how)
{
    struct vv_objinfo now;
    int err = head_path(s, path, &now);
    if (how->if_none_match) return err == VV_E_NOENT ? VV_OK : err ? err : VV_E_CONFLICT;
    if (err == VV_E_NOENT) return VV_E_CONFLICT;
    return err ? err : strcmp(now.etag, how->if_match) ? VV_E_CONFLICT : VV_OK;
}

static int place(struct obj_fs *s, const char *tmp, const char *path, const struct vv_objput *how)
{
    struct vv_file *lock = NULL;
    int err = VV_OK;
    pthread_mutex_lock(&s->change);
    if (how->if_none_match || how->if_match) {
        char lock_path[PATH_LIMIT];
        snprintf(lock_path, sizeof lock_path, "%s/.tmp/lock", s->dir);
        err = vv_fs_lock(s->base.env, lock_path, &lock);
        if (!err) err = check_condition(s, path, how);
    }
    if (!err) err = move_into_place(s, tmp, path);
    vv_fs_close(s->base.env, lock);
    pthread_mutex_unlock(&s->change);
    return err;
}

static int fs_put(struct vv_objstore *base, const char *key, const struct vv_objsrc *src,
                  const struct vv_objput *how, int64_t deadline_ms, struct vv_objinfo *info,
                  struct vv_error *e)
{
    struct obj_fs *s = (struct obj_fs *)base;
    char path[PATH_LIMIT], tmp[PATH_LIMIT];
    (void)deadline_ms;
    int err = path_of(s, key, path, e);
    if (err) return err;
    err = write_temp(s, src, tmp, info->etag);
    if (err) return fs_error(s, e, err, "put", key);
    err = place(s, tmp, path, how);
    if (err) {
        vv_fs_unlink(base->env, tmp);
        return fs_error(s, e, err, "put", key);
    }
    info->size = src->size;
    info->mtime_ms = vv_wall_ms(base->env);
    return VV_OK;
}

static int fs_delete(struct vv_objstore *base, const char *key, int64_t deadline_ms,
                     struct vv_error *e)
{
    struct obj_fs *s = (struct obj_fs *)base;
    char path[PATH_LIMIT], parent[PATH_LIMIT];
    struct vv_stat st;
    (void)deadline_ms;
    int err = path_of(s, key, path, e);
    if (err) return err;
    pthread_mutex_lock(&s->change);
    err = vv_fs_stat(base->env, path, &st);
    if (err || st.is_dir) {
        if (!err || err == VV_E_NOENT) goto gone;
        goto out;
    }
    err = vv_fs_unlink(base->env, path);
    if (err == VV_E_NOENT) goto gone;
    if (err) goto out;
    parent_of(path, parent);
    err = vv_fs_sync_dir(base->env, parent);
    while (!err && strcmp(parent, s->dir) && !vv_fs_rmdir(base->env, parent)) {
        char up[PATH_LIMIT];
        parent_of(parent, up);
        memcpy(parent, up, sizeof parent);
    }
    goto out;
gone:
    err = VV_OK;
out:
    pthread_mutex_unlock(&s->change);
    return err ? fs_error(s, e, err, "delete", key) : VV_OK;
}

static int fs_delete_many(struct vv_objstore *base, const char *const *keys, size_t count,
                          int64_t deadline_ms, int *results, struct vv_error *e)
{
    int first = VV_OK;
    for (size_t i = 0; i < count; i++) {
        results[i] = fs_delete(base, keys[i], deadline_ms, first ? NULL : e);
        if (!first) first = results[i];
    }
    return first;
}

/* ---- listing: a walk in key order; among siblings a directory sorts as "name/" ---- */

struct names {
    char **v;
    size_t count, cap;
};

struct walk {
    struct obj_fs *s;
    const char *prefix, *after;
    size_t max;
    struct vv_objlist *out;
    char path[PATH_LIMIT]; /* DIR/KEY of where the walk is */
    size_t root_n;         /* strlen(DIR) + 1: the key begins there */
};

static int add_name(void *ctx, const char *name)
{
    struct names *names = ctx;
    if (names->count == names->cap) {
        size_t cap = names->cap ? names->cap * 2 : 64;
        char **v = realloc(names->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        names->v = v;
        names->cap = cap;
    }
    size_t n = strlen(name);
    char *copy = malloc(n + 2); /* room for the '/' of a directory */
    if (!copy) return VV_E_NOMEM;
    memcpy(copy, name, n + 1);
    names->v[names->count++] = copy;
    return VV_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Can the key or the directory at w->path (ends with '/') matter for prefix and start? */
static bool wanted(const struct walk *w, bool is_dir)
{
    const char *key = w->path + w->root_n;
    size_t n = strlen(key), prefix_n = strlen(w->prefix);
    if (strncmp(key, w->prefix, VV_MIN(n, prefix_n))) return false;
    if (!is_dir) return n >= prefix_n && (!w->after || strcmp(key, w->after) > 0);
    return !w->after || strncmp(key, w->after, n) >= 0;
}

static int walk_dir(struct walk *w, size_t path_n);

/* One entry, its name appended to w->path at path_n. */
static int walk_entry(struct walk *w, size_t path_n, const char *name)
{
    size_t n = strlen(name);
    bool is_dir = n && name[n - 1] == '/';
    struct vv_stat st;
    if (path_n + n >= sizeof w->path - 1) return VV_OK; /* longer than any key of ours */
    memcpy(w->path + path_n, name, n + 1);
    if (!wanted(w, is_dir)) return VV_OK;
    if (is_dir) return walk_dir(w, path_n + n);
    int err = vv_fs_stat(w->s->base.env, w->path, &st);
    if (err) return err == VV_E_NOENT ? VV_OK : err; /* deleted meanwhile */
    if (w->out->count == w->max) {
        w->out->more = true;
        return VV_OK;
    }
    return vv_objlist_add(w->out, w->path + w->root_n, path_n + n - w->root_n, st.size, st.mtime_ms,
                          "");
}

/* w->path is a directory, with '/' at path_n - 1. Recursion is as deep as a key has components. */
static int walk_dir(struct walk *w, size_t path_n)
{
    struct names names = {0};
    struct vv_env *env = w->s->base.env;
    w->path[path_n - 1] = 0;
    int err = vv_fs_list(env, w->path, add_name, &names);
    w->path[path_n - 1] = '/';
    if (err == VV_E_NOENT) err = VV_OK;
    for (size_t i = 0; i < names.count && !err; i++) {
        size_t n = strlen(names.v[i]);
        struct vv_stat st;
        if (path_n + n >= sizeof w->path - 1) continue;
        memcpy(w->path + path_n, names.v[i], n + 1);
        if (path_n == w->root_n && !strcmp(names.v[i], ".tmp")) {
            names.v[i][0] = 0; /* ours: sorts first, skipped below */
        } else if (!vv_fs_stat(env, w->path, &st) && st.is_dir) {
            memcpy(names.v[i] + n, "/", 2);
        }
    }
    if (names.count) qsort(names.v, names.count, sizeof *names.v, by_name);
    for (size_t i = 0; i < names.count && !err && !w->out->more; i++)
        if (names.v[i][0]) err = walk_entry(w, path_n, names.v[i]);
    for (size_t i = 0; i < names.count; i++)
        free(names.v[i]);
    free(names.v);
    return err;
}

static int fs_list(struct vv_objstore *base, const char *prefix, const char *start_after,
                   size_t max, int64_t deadline_ms, struct vv_objlist *out, struct vv_error *e)
{
    struct obj_fs *s = (struct obj_fs *)base;
    struct walk w = {.s = s, .prefix = prefix, .after = start_after, .max = max, .out = out};
    (void)deadline_ms;
    w.root_n = (size_t)snprintf(w.path, sizeof w.path, "%s/", s->dir);
    int err = walk_dir(&w, w.root_n);
    return err ? fs_error(s, e, err, "list", prefix) : VV_OK;
}

static int fs_abort_stale(struct vv_objstore *base, const char *prefix, int64_t before_wall_ms,
                          int64_t deadline_ms, size_t *aborted, struct vv_error *e)
{
    (void)base, (void)prefix, (void)before_wall_ms, (void)deadline_ms, (void)aborted, (void)e;
    return VV_OK;
}

/* ---- life ---- */

static void fs_close(struct vv_objstore *base)
{
    struct obj_fs *s = (struct obj_fs *)base;
    vv_objpool_release(&s->pool);
    pthread_mutex_destroy(&s->change);
    free(s);
}

static const struct vv_objstore_ops fs_ops = {
    .close = fs_close,
    .get_async = fs_get_async,
    .cancel = fs_cancel,
    .get = fs_get,
    .head = fs_head,
    .put = fs_put,
    .del = fs_delete,
    .delete_many = fs_delete_many,
    .list = fs_list,
    .abort_stale = fs_abort_stale,
};

/* Puts that a crash left behind, old enough to belong to no running process. */
static int sweep_one(void *ctx, const char *name)
{
    struct obj_fs *s = ctx;
    char path[PATH_LIMIT];
    struct vv_stat st;
    if (strlen(name) != 32) return VV_OK;
    snprintf(path, sizeof path, "%s/.tmp/%s", s->dir, name);
    if (!vv_fs_stat(s->base.env, path, &st) && vv_wall_ms(s->base.env) - st.mtime_ms > TMP_STALE_MS)
        vv_fs_unlink(s->base.env, path);
    return VV_OK;
}

int vv_obj_fs_open(const char *url, const struct vv_objstore_config *config, struct vv_env *env,
                   struct vv_objstore **out, struct vv_error *e)
{
    const char *dir = url + 3;
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    if (n == 0 || (n == 1 && dir[0] == '/'))
        return vv_error_set(e, VV_E_CONFIG, "tier.url=%s: name a directory of its own", url);
    struct obj_fs *s = calloc(1, sizeof *s);
    if (!s) return vv_error_set(e, VV_E_NOMEM, "tier.url=%s: out of memory", url);
    vv_objstore_init(&s->base, &fs_ops, env, VV_OBJ_CAP_CONDITIONAL_PUT | VV_OBJ_CAP_ETAG_IS_MD5,
                     url);
    memcpy(s->dir, dir, n);
    vv_objpool_init(&s->pool, &s->base, fs_range, config->inline_async);
    pthread_mutex_init(&s->change, NULL);
    char tmp[PATH_LIMIT];
    snprintf(tmp, sizeof tmp, "%s/.tmp", s->dir);
    struct vv_stat st;
    int err = config->read_only ? vv_fs_stat(env, s->dir, &st) : vv_fs_mkdirs(env, tmp);
    if (!err && config->read_only && !st.is_dir) err = VV_E_NOENT;
    if (!err && !config->read_only) err = vv_fs_list(env, tmp, sweep_one, s);
    if (err) {
        if (err == VV_E_NOENT && config->read_only)
            vv_error_set(e, err, "there is no directory %s", s->dir);
        else
            vv_error_set(e, err, "tier.url=%s: %s", url, vv_err_name(err));
        fs_close(&s->base);
        return err;
    }
    *out = &s->base;
    return VV_OK;
}
