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

void vv_fence_encode(const struct vv_fence *f, uint8_t *p)
{
    vv_put64(p, (uint64_t)f->base);
    vv_put64(p + 8, (uint64_t)f->last);
    vv_put64(p + 16, (uint64_t)f->max_ts);
    vv_put64(p + 24, f->bytes);
    vv_put32(p + 32, f->slot);
    vv_put32(p + 36, f->crc);
}

void vv_fence_decode(const uint8_t *p, struct vv_fence *f)
{
    *f = (struct vv_fence){
        .base = (int64_t)vv_get64(p),
        .last = (int64_t)vv_get64(p + 8),
        .max_ts = (int64_t)vv_get64(p + 16),
        .bytes = vv_get64(p + 24),
        .slot = vv_get32(p + 32),
        .crc = vv_get32(p + 36),
    };
}

static int file_open(struct vv_pages *ps) /* page_mu held */
{
    if (ps->file) return VV_OK;
    return vv_fs_open(ps->env, ps->path, VV_O_READ | VV_O_WRITE | VV_O_CREATE, &ps->file);
}

int vv_pages_write(struct vv_pages *ps, const struct vv_extent *v, struct vv_fence *f)
{
    uint8_t buf[VV_PAGE_BYTES];
    uint32_t slot = f->slot;
    *f = (struct vv_fence){.base = v[0].base, .last = v[VV_PAGE_EXTENTS - 1].last, .max_ts = -1, .slot = slot};
    for (size_t i = 0; i < VV_PAGE_EXTENTS; i++) {
        vv_extent_encode(&v[i], buf + i * VV_EXTENT_BYTES);
        f->max_ts = VV_MAX(f->max_ts, v[i].max_ts);
        f->bytes += v[i].bytes;
    }
    f->crc = vv_crc32c(0, buf, sizeof buf);
    pthread_mutex_lock(&ps->page_mu);
    int err = file_open(ps);
    if (!err) err = vv_fs_pwrite(ps->env, ps->file, buf, sizeof buf, (uint64_t)slot * VV_PAGE_BYTES);
    if (!err) ps->dirty = true;
    pthread_mutex_unlock(&ps->page_mu);
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

static int page_load(struct vv_pages *ps, const struct vv_fence *f, struct vv_page *pg) /* page_mu held */
{
    uint8_t buf[VV_PAGE_BYTES];
    int err = file_open(ps);
    if (err) return err;
    ssize_t n = vv_fs_pread(ps->env, ps->file, buf, sizeof buf, (uint64_t)f->slot * VV_PAGE_BYTES);
    if (n < 0) return (int)n;
    if ((size_t)n < sizeof buf || vv_crc32c(0, buf, sizeof buf) != f->crc) return VV_E_CORRUPT;
    for (size_t i = 0; i < VV_PAGE_EXTENTS && !err; i++) err = vv_extent_decode(buf + i * VV_EXTENT_BYTES, &pg->v[i]);
    pg->slot = f->slot;
    pg->crc = f->crc;
    return err;
}

int vv_pages_get(struct vv_pages *ps, const struct vv_fence *f, struct vv_extent out[VV_PAGE_EXTENTS])
{
    int err = VV_OK;
    pthread_mutex_lock(&ps->page_mu);
    struct vv_page **at = &ps->cache[0], *pg = NULL;
    for (size_t i = 0; i < VV_PAGE_CACHE && !pg; i++) {
        struct vv_page *c = ps->cache[i];
        if (c && c->slot == f->slot && c->crc == f->crc) pg = c;
        if (!c || (*at && c->used < (*at)->used)) at = &ps->cache[i]; /* the empty or oldest one */
    }
    if (!pg) {
        pg = *at ? *at : calloc(1, sizeof *pg);
        *at = NULL;
        err = pg ? page_load(ps, f, pg) : VV_E_NOMEM;
        if (err) {
            free(pg);
            goto out;
        }
        *at = pg;
    }
    pg->used = ++ps->turn;
    memcpy(out, pg->v, sizeof pg->v);
out:
    pthread_mutex_unlock(&ps->page_mu);
    return err;
}
