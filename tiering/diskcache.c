/* diskcache.c — see diskcache.h. */
#include "diskcache.h"
#include "diskindex.h"
#include "ghost.h"
#include "varve/thread.h"
#include "varve/wait.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS 2
#define PIECES 16             /* files that one read may take from */
#define LOOK_US 1000000       /* between looks at the free space */
#define QUIET_US 10000000     /* after a failed write, and after room was made for others */
#define GHOST_MIN 4096        /* marks: 1 GiB */
#define GHOST_MAX (1u << 17)  /* 32 GiB */
#define ORDER_US 60000000     /* how long an order holds */
#define ORDER_MARKS 16384     /* 4 to 8 GiB that are on order */

struct vv_diskread {
    struct vv_objget *get;
    struct vv_diskread *next;
    size_t count;
    struct vv_di_piece v[PIECES];
    struct vv_segkey key;
};

struct write {
    struct vv_segkey key;
    uint64_t at;
    struct vv_chain bytes;
};

struct vv_diskcache {
    struct vv_env *env;
    char *dir;
    int64_t limit, reserve;
    pthread_mutex_t mu;
    struct vv_event work;
    /* mu: */
    struct vv_di index;
    struct vv_ghost ghost, ordered;
    int64_t ordered_until_us;
    struct vv_diskread *reads, **reads_tail;
    struct write writes[VV_DISKCACHE_ORDERED];
    size_t write_first, write_count, write_bytes;
    bool started, stopping;
    bool opened, usable;  /* the directory was looked through; it is ours */
    bool changing;        /* one thread opens, writes or evicts */
    bool look;            /* at the free space */
    int64_t looked_us, quiet_until_us;
    struct vv_diskcache_stats stats;
    /* changing: */
    struct vv_file *lock;
    pthread_t threads[THREADS];
    size_t thread_count;
};

static char *path_of(const struct vv_diskcache *dc, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", dc->dir, name) < 0 ? NULL : path;
}

static char *file_of(const struct vv_diskcache *dc, const struct vv_segkey *key, uint64_t at, size_t n)
{
    char name[VV_DI_NAME_MAX];
    vv_di_name(key, at, n, name);
    return path_of(dc, name);
}

static void unlink_file(struct vv_diskcache *dc, const struct vv_segkey *key, uint64_t at, size_t n)
{
    char *path = file_of(dc, key, at, n);
    if (path) vv_fs_unlink(dc->env, path); /* stays: found again at the next start */
    free(path);
}

/* mu held, changing or in vv_diskcache_bad; given up meanwhile. */
static void drop_range(struct vv_diskcache *dc, struct vv_di_range *r)
{
    struct vv_segkey key = r->object->key;
    uint64_t at = r->at;
    size_t n = r->n;
    vv_di_remove(&dc->index, r);
    pthread_mutex_unlock(&dc->mu);
    unlink_file(dc, &key, at, n);
    pthread_mutex_lock(&dc->mu);
}

static bool evict_one(struct vv_diskcache *dc) /* as drop_range */
{
    struct vv_di_range *r = vv_di_victim(&dc->index);
    if (!r) return false;
    dc->stats.evictions++;
    drop_range(dc, r);
    return true;
}

/* ---- opening: what is there from before ---- */

struct found { struct vv_segkey key; uint64_t at; size_t n; int64_t mtime_ms; };
struct scan { struct vv_diskcache *dc; struct found *v; size_t count, cap, strangers; };

static int look_at_file(void *ctx, const char *name)
{
    struct scan *s = ctx;
    struct found f;
    struct vv_stat st;
    if (!strcmp(name, "lock")) return 0;
    if (vv_di_parse(name, &f.key, &f.at, &f.n)) {
        s->strangers++;
        return 0;
    }
    char *path = path_of(s->dc, name);
    if (!path) return VV_E_NOMEM;
    int err = vv_fs_stat(s->dc->env, path, &st);
    if (!err && (st.size != f.n || st.is_dir)) { /* the process died while it wrote it */
        vv_fs_unlink(s->dc->env, path);
        err = VV_E_NOENT;
    }
    free(path);
    if (err) return 0;
    if (s->count == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 256;
        struct found *v = realloc(s->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        s->v = v;
        s->cap = cap;
    }
    f.mtime_ms = st.mtime_ms;
    s->v[s->count++] = f;
    return 0;
}

static int by_age(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return (x->mtime_ms > y->mtime_ms) - (x->mtime_ms < y->mtime_ms);
}

/* mu held. */
static void apply_limit(struct vv_diskcache *dc, uint64_t total)
{
    dc->index.bytes_max = dc->limit < 0 ? VV_MIN(total / 10, VV_DISKCACHE_AUTO_MAX) : (uint64_t)dc->limit;
    size_t marks = (size_t)VV_MIN(2 * dc->index.bytes_max / VV_GHOST_GRAIN, (uint64_t)GHOST_MAX);
    vv_ghost_resize(&dc->ghost, dc->index.bytes_max ? VV_MAX(marks, (size_t)GHOST_MIN) : 0);
}

static int open_dir(struct vv_diskcache *dc, struct scan *s, struct vv_space *space)
{
    int err = vv_fs_mkdirs(dc->env, dc->dir);
    char *path = err ? NULL : path_of(dc, "lock");
    if (!err && !path) err = VV_E_NOMEM;
    if (!err) err = vv_fs_lock(dc->env, path, &dc->lock);
    free(path);
    if (!err) err = vv_fs_space(dc->env, dc->dir, space);
    return err ? err : vv_fs_list(dc->env, dc->dir, look_at_file, s);
}

static void open_cache(struct vv_diskcache *dc) /* mu held, changing; given up meanwhile */
{
    struct scan s = {.dc = dc};
    struct vv_space space = {0};
    pthread_mutex_unlock(&dc->mu);
    int err = open_dir(dc, &s, &space);
    if (s.count) qsort(s.v, s.count, sizeof *s.v, by_age);
    pthread_mutex_lock(&dc->mu);
    dc->opened = true;
    dc->usable = !err;
    apply_limit(dc, space.total);
    for (size_t i = 0; i < s.count && !err; i++)
        if (!vv_di_add(&dc->index, &s.v[i].key, s.v[i].at, s.v[i].n)) break;
    while (vv_di_over(&dc->index, 0) && evict_one(dc)) {}
    free(s.v);
    if (err)
        VLOG_WARN("tier: no disk cache in %s: %s%s", dc->dir, vv_err_name(err),
                  err == VV_E_CONFLICT ? ", another process uses it (tier.cache.dir)" : "");
    else
        VLOG_INFO("tier: disk cache in %s: %zu files, %" PRIu64 " of %" PRIu64 " MiB", dc->dir, dc->index.files,
                  dc->index.bytes >> 20, dc->index.bytes_max >> 20);
    if (s.strangers) VLOG_WARN("tier: %zu files in %s are not the cache's and stay", s.strangers, dc->dir);
}

/* ---- the free space ---- */

/* The bytes that must come free; mu held, given up meanwhile. */
static uint64_t lacking(struct vv_diskcache *dc, size_t n)
{
    struct vv_space s;
    pthread_mutex_unlock(&dc->mu);
    int err = vv_fs_space(dc->env, dc->dir, &s);
    pthread_mutex_lock(&dc->mu);
    if (err) return 0;
    uint64_t reserve = vv_space_reserve(dc->reserve, s.total), floor = reserve * 2 + reserve / 4;
    return s.available < floor + n ? floor + n - s.available : 0;
}

/* True: there is room for n more bytes on the disk. mu held, changing; given up meanwhile. */
static bool make_room(struct vv_diskcache *dc, size_t n)
{
    uint64_t lack = lacking(dc, n), before = dc->index.bytes;
    if (!lack) return true;
    while (dc->index.bytes && before - dc->index.bytes < lack && evict_one(dc)) {}
    if (before != dc->index.bytes)
        VLOG_INFO("tier: the disk runs short: %" PRIu64 " MiB of the disk cache were freed", (before - dc->index.bytes) >> 20);
    dc->quiet_until_us = vv_mono_us(dc->env) + QUIET_US; /* else every offer would push another file out */
    return false;
}

/* ---- writing ---- */

static int write_file(struct vv_diskcache *dc, const char *path, const struct write *w, size_t skip, size_t n)
{
    struct vv_file *f;
    uint64_t at = 0;
    int err = vv_fs_open(dc->env, path, VV_O_WRITE | VV_O_CREATE | VV_O_TRUNC, &f);
    if (err) return err;
    for (size_t i = 0; i < w->bytes.count && n && !err; i++) {
        const struct vv_slice *s = &w->bytes.v[i];
        size_t off = VV_MIN(skip, s->n), here = VV_MIN(s->n - off, n);
        skip -= off;
        if (here) err = vv_fs_pwrite(dc->env, f, s->p + off, here, at);
        at += here;
        n -= here;
    }
    int closed = vv_fs_close(dc->env, f);
    return err ? err : closed;
}

static void failed_write(struct vv_diskcache *dc, int err) /* mu held */
{
    VLOG_WARN("tier: cannot write to the disk cache %s: %s; it is left alone for a while", dc->dir, vv_err_name(err));
    dc->stats.errors++;
    dc->quiet_until_us = vv_mono_us(dc->env) + QUIET_US;
}

static void write_out(struct vv_diskcache *dc, struct write *w) /* mu held, changing; given up meanwhile */
{
    uint64_t at = w->at;
    size_t n = w->bytes.bytes;
    vv_di_trim(&dc->index, &w->key, &at, &n);
    if (!n || !make_room(dc, n)) return;
    while (vv_di_over(&dc->index, n))
        if (!evict_one(dc)) return; /* all of them are being read */
    pthread_mutex_unlock(&dc->mu);
    char *path = file_of(dc, &w->key, at, n);
    int err = path ? write_file(dc, path, w, (size_t)(at - w->at), n) : VV_E_NOMEM;
    if (err && path) vv_fs_unlink(dc->env, path);
    free(path);
    pthread_mutex_lock(&dc->mu);
    if (err) {
        failed_write(dc, err);
    } else if (vv_di_add(&dc->index, &w->key, at, n)) { /* else it is found at the next start */
        dc->stats.writes++;
        dc->stats.write_bytes += n;
    }
}

/* ---- reading ---- */

/* n bytes of a file, to dst or, piece by piece, to where the sink wants them: from `at` of the range on. */
static int read_bytes(struct vv_diskcache *dc, struct vv_file *f, struct vv_objget *get, uint64_t from, size_t at, size_t n,
                      uint8_t *dst)
{
    while (n) {
        size_t room = get->sink ? get->sink->room(get, at, &dst) : n, k = VV_MIN(n, room);
        if (!k) return VV_E_NOMEM;
        ssize_t got = vv_fs_pread(dc->env, f, dst, k, from);
        if (got != (ssize_t)k) return got < 0 ? (int)got : VV_E_CORRUPT;
        if (get->sink) get->sink->arrived(get, at, k);
        n -= k;
        at += k;
        from += k;
    }
    return VV_OK;
}

static int read_piece(struct vv_diskcache *dc, const struct vv_diskread *r, const struct vv_di_piece *p, size_t at, uint8_t *dst)
{
    struct vv_file *f;
    char *path = file_of(dc, &r->key, p->range->at, p->range->n);
    int err = path ? vv_fs_open(dc->env, path, VV_O_READ, &f) : VV_E_NOMEM;
    free(path);
    if (err) return err;
    err = read_bytes(dc, f, r->get, p->from, at, p->n, dst);
    vv_fs_close(dc->env, f);
    return err;
}

static void unpin(struct vv_diskcache *dc, struct vv_diskread *r)
{
    pthread_mutex_lock(&dc->mu);
    for (size_t i = 0; i < r->count; i++) vv_di_unpin(r->v[i].range);
    pthread_mutex_unlock(&dc->mu);
}

static void end_read(struct vv_diskread *r, int err, struct vv_buf *buf)
{
    struct vv_objget *get = r->get;
    get->err = err;
    get->buf = buf;
    get->error = (struct vv_error){0};
    if (err) vv_error_set(&get->error, err, "the copy in the disk cache cannot be read");
    free(r);
    get->done(get);
}

static void read_in(struct vv_diskcache *dc, struct vv_diskread *r) /* no locks */
{
    struct vv_buf *buf = r->get->sink ? NULL : vv_buf_new(r->get->n);
    int err = buf || r->get->sink ? VV_OK : VV_E_NOMEM;
    size_t at = 0;
    for (size_t i = 0; i < r->count && !err; i++) {
        err = read_piece(dc, r, &r->v[i], at, buf ? buf->data + at : NULL);
        at += r->v[i].n;
    }
    if (err) {
        vv_buf_unref(buf);
        buf = NULL;
    }
    unpin(dc, r);
    end_read(r, err && err != VV_E_NOMEM ? VV_E_CORRUPT : err, buf);
}

/* ---- work and threads ---- */

/* One unit of what changes files. mu held and given up meanwhile. */
static bool change_one(struct vv_diskcache *dc)
{
    struct write w;
    if (dc->changing || dc->stopping) return false;
    if (dc->opened && !dc->look && !dc->write_count) return false;
    dc->changing = true;
    if (!dc->opened) {
        open_cache(dc);
    } else if (dc->look) {
        dc->look = false;
        while (vv_di_over(&dc->index, 0) && evict_one(dc)) {}
        if (dc->index.files) make_room(dc, 0);
    } else {
        w = dc->writes[dc->write_first];
        dc->write_first = (dc->write_first + 1) % VV_DISKCACHE_ORDERED;
        dc->write_count--;
        dc->write_bytes -= w.bytes.bytes;
        write_out(dc, &w);
        vv_chain_release(&w.bytes);
    }
    dc->changing = false;
    return true;
}

static bool read_one(struct vv_diskcache *dc) /* mu held; given up meanwhile */
{
    struct vv_diskread *r = dc->reads;
    if (!r || dc->stopping) return false;
    dc->reads = r->next;
    if (!dc->reads) dc->reads_tail = &dc->reads;
    pthread_mutex_unlock(&dc->mu);
    read_in(dc, r);
    pthread_mutex_lock(&dc->mu);
    return true;
}

static void *cache_main(void *arg)
{
    struct vv_diskcache *dc = arg;
    vv_thread_background("disk-cache");
    pthread_mutex_lock(&dc->mu);
    while (!dc->stopping)
        if (!read_one(dc) && !change_one(dc)) vv_event_wait(&dc->work, &dc->mu);
    pthread_mutex_unlock(&dc->mu);
    return NULL;
}

/* There is work. mu held; given up meanwhile where there are no threads. */
static void wake(struct vv_diskcache *dc)
{
    if (dc->started) vv_event_wake(&dc->work, false);
    else while (change_one(dc)) {}
}

/* ---- the reader's calls ---- */

struct vv_diskread *vv_diskcache_find(struct vv_diskcache *dc, const struct vv_segkey *key, struct vv_objget *get)
{
    if (!dc) return NULL;
    pthread_mutex_lock(&dc->mu);
    if (!dc->opened) wake(dc);
    bool in_use = dc->usable && !dc->stopping && dc->index.bytes_max;
    struct vv_diskread *r = in_use && dc->index.files ? malloc(sizeof *r) : NULL;
    if (r) {
        *r = (struct vv_diskread){.get = get, .key = *key};
        r->count = vv_di_find(&dc->index, key, get->at, get->n, r->v, PIECES);
        if (!r->count) {
            free(r);
            r = NULL;
        }
    }
    dc->stats.hits += r != NULL;
    dc->stats.hit_bytes += r ? get->n : 0;
    dc->stats.misses += in_use && !r;
    pthread_mutex_unlock(&dc->mu);
    return r;
}

void vv_diskcache_read(struct vv_diskcache *dc, struct vv_diskread *r)
{
    pthread_mutex_lock(&dc->mu);
    bool queue = dc->started && !dc->stopping, late = dc->stopping;
    if (queue) {
        *dc->reads_tail = r;
        dc->reads_tail = &r->next;
        vv_event_wake(&dc->work, false);
    }
    pthread_mutex_unlock(&dc->mu);
    if (queue) return;
    if (!late) {
        read_in(dc, r);
        return;
    }
    unpin(dc, r);
    end_read(r, VV_E_SHUTDOWN, NULL);
}

void vv_diskcache_bad(struct vv_diskcache *dc, const struct vv_segkey *key, uint64_t at, size_t n)
{
    struct vv_di_range *r;
    pthread_mutex_lock(&dc->mu);
    while ((r = vv_di_overlap(&dc->index, key, at, n)) != NULL) {
        dc->stats.bad++;
        drop_range(dc, r);
    }
    pthread_mutex_unlock(&dc->mu);
}

static void queue_write(struct vv_diskcache *dc, const struct vv_segkey *key, uint64_t at, const struct vv_chain *bytes)
{
    struct write *w = &dc->writes[(dc->write_first + dc->write_count) % VV_DISKCACHE_ORDERED];
    *w = (struct write){.key = *key, .at = at};
    if (vv_chain_append(&w->bytes, bytes)) {
        vv_chain_release(&w->bytes);
        return;
    }
    dc->write_count++;
    dc->write_bytes += bytes->bytes;
    wake(dc);
}

static uint64_t object_mark(const struct vv_segkey *key)
{
    return key->nonce ^ (uint64_t)key->base << 20 ^ (uint64_t)key->partition << 50 ^ key->generation;
}

int vv_diskcache_ready(struct vv_diskcache *dc)
{
    if (!dc) return VV_E_UNSUPPORTED;
    pthread_mutex_lock(&dc->mu);
    if (!dc->opened) wake(dc);
    bool off = dc->opened && (!dc->usable || !dc->index.bytes_max);
    bool busy = !dc->opened || dc->write_count > VV_DISKCACHE_ORDERED / 4 || dc->write_bytes > VV_DISKCACHE_BYTES / 2 ||
                vv_mono_us(dc->env) < dc->quiet_until_us;
    pthread_mutex_unlock(&dc->mu);
    return off ? VV_E_UNSUPPORTED : busy ? VV_E_AGAIN : VV_OK;
}

void vv_diskcache_order(struct vv_diskcache *dc, const struct vv_segkey *key, size_t object_bytes)
{
    if (!dc) return;
    int64_t now = vv_mono_us(dc->env);
    pthread_mutex_lock(&dc->mu);
    if (now >= dc->ordered_until_us) vv_ghost_release(&dc->ordered);
    vv_ghost_resize(&dc->ordered, ORDER_MARKS);
    vv_ghost_again(&dc->ordered, object_mark(key), 0, object_bytes);
    dc->ordered_until_us = now + ORDER_US;
    pthread_mutex_unlock(&dc->mu);
}

/* Orders are for whole objects: a small range is in one of its grains. */
static bool is_ordered(const struct vv_diskcache *dc, const struct vv_segkey *key, uint64_t at, size_t n, int64_t now_us)
{
    uint64_t from = at / VV_GHOST_GRAIN * VV_GHOST_GRAIN;
    return now_us < dc->ordered_until_us && vv_ghost_has(&dc->ordered, object_mark(key), from, (size_t)(at - from) + n);
}

/* In the queue. */
static bool has_place(const struct vv_diskcache *dc, size_t n, bool ordered)
{
    size_t count = ordered ? VV_DISKCACHE_ORDERED : VV_DISKCACHE_QUEUE;
    size_t bytes = ordered ? VV_DISKCACHE_ORDERED_BYTES : VV_DISKCACHE_BYTES;
    return !dc->write_count || (dc->write_count < count && dc->write_bytes + n <= bytes);
}

void vv_diskcache_offer(struct vv_diskcache *dc, const struct vv_segkey *key, uint64_t at, const struct vv_chain *bytes)
{
    if (!dc || !bytes->bytes) return;
    size_t n = bytes->bytes;
    int64_t now = vv_mono_us(dc->env);
    pthread_mutex_lock(&dc->mu);
    bool in_use = dc->usable && !dc->stopping && dc->index.bytes_max;
    bool again = in_use && vv_ghost_again(&dc->ghost, object_mark(key), at, n);
    bool ordered = in_use && is_ordered(dc, key, at, n, now);
    again |= in_use && n < VV_GHOST_GRAIN && vv_di_has(&dc->index, key);
    if ((again || ordered) && has_place(dc, n, ordered) && now >= dc->quiet_until_us) {
        uint64_t from = at;
        vv_di_trim(&dc->index, key, &from, &n);
        if (n && vv_di_admit(&dc->index, n, ordered, now)) queue_write(dc, key, at, bytes);
    }
    pthread_mutex_unlock(&dc->mu);
}

/* ---- life ---- */

struct vv_diskcache *vv_diskcache_new(struct vv_env *env, const char *dir, int64_t bytes_max, int64_t reserve)
{
    struct vv_diskcache *dc = calloc(1, sizeof *dc);
    if (!dc) return NULL;
    dc->env = env;
    dc->dir = strdup(dir);
    dc->limit = bytes_max;
    dc->reserve = reserve;
    dc->reads_tail = &dc->reads;
    pthread_mutex_init(&dc->mu, NULL);
    if (dc->dir) return dc;
    vv_diskcache_free(dc);
    return NULL;
}

int vv_diskcache_start(struct vv_diskcache *dc)
{
    if (!dc) return VV_OK;
    pthread_mutex_lock(&dc->mu);
    dc->started = true;
    pthread_mutex_unlock(&dc->mu);
    for (; dc->thread_count < THREADS; dc->thread_count++) {
        int rc = pthread_create(&dc->threads[dc->thread_count], NULL, cache_main, dc);
        if (rc && !dc->thread_count) {
            dc->started = false;
            return vv_err_from_errno(rc);
        }
        if (rc) break; /* one will do */
    }
    return VV_OK;
}

void vv_diskcache_stop(struct vv_diskcache *dc)
{
    if (!dc) return;
    pthread_mutex_lock(&dc->mu);
    dc->stopping = true;
    vv_event_wake(&dc->work, true);
    pthread_mutex_unlock(&dc->mu);
    while (dc->thread_count) pthread_join(dc->threads[--dc->thread_count], NULL);
    struct vv_diskread *r = dc->reads;
    dc->reads = NULL;
    dc->reads_tail = &dc->reads;
    while (r) {
        struct vv_diskread *next = r->next;
        unpin(dc, r);
        end_read(r, VV_E_SHUTDOWN, NULL);
        r = next;
    }
    for (; dc->write_count; dc->write_count--, dc->write_first = (dc->write_first + 1) % VV_DISKCACHE_ORDERED)
        vv_chain_release(&dc->writes[dc->write_first].bytes);
}

void vv_diskcache_free(struct vv_diskcache *dc)
{
    if (!dc) return;
    vv_diskcache_stop(dc);
    vv_di_release(&dc->index);
    vv_ghost_release(&dc->ghost);
    vv_ghost_release(&dc->ordered);
    vv_fs_close(dc->env, dc->lock);
    pthread_mutex_destroy(&dc->mu);
    free(dc->dir);
    free(dc);
}

void vv_diskcache_limit(struct vv_diskcache *dc, int64_t bytes_max)
{
    struct vv_space s = {0};
    if (!dc) return;
    if (bytes_max < 0) vv_fs_space(dc->env, dc->dir, &s);
    pthread_mutex_lock(&dc->mu);
    dc->limit = bytes_max;
    if (dc->opened) apply_limit(dc, s.total); /* else when it opens */
    dc->look = dc->opened;
    wake(dc);
    pthread_mutex_unlock(&dc->mu);
}

void vv_diskcache_tick(struct vv_diskcache *dc)
{
    if (!dc) return;
    int64_t now = vv_mono_us(dc->env);
    pthread_mutex_lock(&dc->mu);
    if (dc->opened && dc->usable && dc->index.files && now - dc->looked_us >= LOOK_US) {
        dc->looked_us = now;
        dc->look = true;
        wake(dc);
    }
    pthread_mutex_unlock(&dc->mu);
}

void vv_diskcache_stats(struct vv_diskcache *dc, struct vv_diskcache_stats *out)
{
    *out = (struct vv_diskcache_stats){0};
    if (!dc) return;
    pthread_mutex_lock(&dc->mu);
    *out = dc->stats;
    out->bytes = dc->index.bytes;
    out->files = dc->index.files;
    pthread_mutex_unlock(&dc->mu);
}
