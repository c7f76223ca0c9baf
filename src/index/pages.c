/* pages.c — see pages.h. */
#include "pages.h"

#include <stdio.h>
#include <stdlib.h>

int vv_pages_init(struct vv_pages *ps, struct vv_env *env, const char *dir)
{
    size_t n = strlen(dir) + sizeof "/varve.extents";
    *ps = (struct vv_pages){.env = env, .path = malloc(n)};
    if (!ps->path) return VV_E_NOMEM;
    snprintf(ps->path, n, "%s/varve.extents", dir);
    pthread_mutex_init(&ps->page_mu, NULL);
    return VV_OK;
}

void vv_pages_release(struct vv_pages *ps)
{
    if (!ps->path) return;
    for (size_t i = 0; i < VV_PAGE_CACHE; i++) free(ps->cache[i]);
    if (ps->file) vv_fs_close(ps->env, ps->file);
    pthread_mutex_destroy(&ps->page_mu);
    free(ps->path);
    *ps = (struct vv_pages){0};
}

void vv_page_encode(const struct vv_extent *v, uint8_t buf[VV_PAGE_BYTES])
{
    for (size_t i = 0; i < VV_PAGE_EXTENTS; i++) vv_extent_encode(&v[i], buf + i * VV_EXTENT_BYTES);
}

int vv_page_decode(const uint8_t buf[VV_PAGE_BYTES], struct vv_extent *v)
{
    int err = VV_OK;
    for (size_t i = 0; i < VV_PAGE_EXTENTS && !err; i++) err = vv_extent_decode(buf + i * VV_EXTENT_BYTES, &v[i]);
    return err;
}

static int file_open(struct vv_pages *ps)
{
    pthread_mutex_lock(&ps->page_mu);
    int err = VV_OK;
    if (!ps->file) err = vv_fs_open(ps->env, ps->path, VV_O_READ | VV_O_WRITE | VV_O_CREATE, &ps->file);
    pthread_mutex_unlock(&ps->page_mu);
    return err;
}

int vv_pages_write(struct vv_pages *ps, const struct vv_extent *v, struct vv_fence *f)
{
    uint8_t buf[VV_PAGE_BYTES];
    uint32_t slot = f->slot;
    *f = (struct vv_fence){.base = v[0].base, .last = v[VV_PAGE_EXTENTS - 1].last, .max_ts = -1, .slot = slot,
                           .state = VV_EXTENT_REMOTE};
    vv_page_encode(v, buf);
    for (size_t i = 0; i < VV_PAGE_EXTENTS; i++) {
        f->max_ts = VV_MAX(f->max_ts, v[i].max_ts);
        f->bytes += v[i].bytes;
    }
    f->crc = vv_crc32c(0, buf, sizeof buf);
    int err = file_open(ps);
    if (!err) err = vv_fs_pwrite(ps->env, ps->file, buf, sizeof buf, (uint64_t)slot * VV_PAGE_BYTES);
    if (!err) ps->dirty = true;
    return err;
}

int vv_pages_sync(struct vv_pages *ps)
{
    if (!ps->dirty) return VV_OK;
    int err = vv_fs_datasync(ps->env, ps->file);
    if (!err) {
        char dir[4096];
        snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(ps->path, '/') - ps->path), ps->path);
        err = vv_fs_sync_dir(ps->env, dir); /* the file itself may be new */
    }
    if (!err) ps->dirty = false;
    return err;
}

static int page_load(struct vv_pages *ps, const struct vv_fence *f, bool may_block, struct vv_page *pg)
{
    uint8_t buf[VV_PAGE_BYTES];
    uint64_t at = (uint64_t)f->slot * VV_PAGE_BYTES;
    int err = file_open(ps);
    if (err) return err;
    ssize_t n = may_block ? vv_fs_pread(ps->env, ps->file, buf, sizeof buf, at)
                          : vv_fs_pread_nowait(ps->env, ps->file, buf, sizeof buf, at);
    if (n < 0) return (int)n;
    if ((size_t)n < sizeof buf && !may_block) return VV_E_AGAIN; /* a short one may be all that is in memory */
    if ((size_t)n < sizeof buf || vv_crc32c(0, buf, sizeof buf) != f->crc) return VV_E_CORRUPT;
    pg->slot = f->slot;
    pg->crc = f->crc;
    return vv_page_decode(buf, pg->v);
}

/* page_mu held. The page, if it is cached; else NULL and *at is the place for it. */
static struct vv_page *cached(struct vv_pages *ps, const struct vv_fence *f, struct vv_page ***at)
{
    *at = &ps->cache[0];
    for (size_t i = 0; i < VV_PAGE_CACHE; i++) {
        struct vv_page *c = ps->cache[i];
        if (c && c->slot == f->slot && c->crc == f->crc) return c;
        if (**at && (!c || c->used < (**at)->used)) *at = &ps->cache[i]; /* an empty or the oldest one */
    }
    return NULL;
}

/* page_mu held: 64 extents for a caller who wants all of them, or the first that pick() takes. */
struct wish { vv_pages_pick pick; const void *ctx; struct vv_extent *out; };

static int grant(struct vv_pages *ps, struct vv_page *pg, const struct vv_fence *f, const struct wish *w)
{
    pg->used = ++ps->turn;
    for (size_t i = 0; i < VV_PAGE_EXTENTS; i++) {
        struct vv_extent *to = w->pick ? w->out : &w->out[i];
        *to = pg->v[i];
        if (f->state != VV_EXTENT_REMOTE) {
            to->state = f->state;
            to->dead_ms = f->dead_ms;
        }
        if (w->pick && w->pick(to, w->ctx)) return VV_OK;
    }
    return w->pick ? VV_E_NOENT : VV_OK;
}

static int serve(struct vv_pages *ps, const struct vv_fence *f, bool may_block, const struct wish *w)
{
    struct vv_page **at;
    int err = VV_E_AGAIN;
    pthread_mutex_lock(&ps->page_mu);
    struct vv_page *pg = cached(ps, f, &at);
    if (pg) err = grant(ps, pg, f, w);
    bool openable = may_block || ps->file;
    pthread_mutex_unlock(&ps->page_mu);
    if (pg || !openable) return err;
    pg = calloc(1, sizeof *pg);
    err = pg ? page_load(ps, f, may_block, pg) : VV_E_NOMEM;
    if (!err) {
        pthread_mutex_lock(&ps->page_mu);
        err = grant(ps, pg, f, w);
        struct vv_page *old = cached(ps, f, &at);
        if (!old) { /* else another thread was as quick */
            old = *at;
            *at = pg;
            pg = old;
        }
        pthread_mutex_unlock(&ps->page_mu);
    }
    free(pg);
    return err;
}

int vv_pages_get(struct vv_pages *ps, const struct vv_fence *f, struct vv_extent out[VV_PAGE_EXTENTS])
{
    return serve(ps, f, true, &(struct wish){.out = out});
}

int vv_pages_find(struct vv_pages *ps, const struct vv_fence *f, bool may_block, vv_pages_pick pick, const void *ctx,
                  struct vv_extent *out)
{
    return serve(ps, f, may_block, &(struct wish){pick, ctx, out});
}
