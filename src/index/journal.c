/* journal.c — see journal.h. */
#include "journal.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t magic[8] = {'V', 'V', 'J', '1', 0, 0, 0, 0};
#define REC_HEAD 9u /* length, crc, type */

/* Bytes of the good record at p, 0 when there is none. */
static size_t record_at(const uint8_t *p, size_t n)
{
    if (n < REC_HEAD) return 0;
    size_t len = vv_get32(p);
    if (len < 1 || len > VV_JOURNAL_RECORD_MAX || len > n - 8) return 0;
    return vv_crc32c(0, p + 8, len) == vv_get32(p + 4) ? 8 + len : 0;
}

static bool any_record_after(const uint8_t *p, size_t n)
{
    for (size_t i = 1; i + REC_HEAD <= n; i++)
        if (record_at(p + i, n - i)) return true;
    return false;
}

static int replay(struct vv_journal *j, const uint8_t *p, size_t n, vv_journal_each each, void *ctx, struct vv_error *e)
{
    size_t at = sizeof magic;
    while (at < n) {
        size_t len = record_at(p + at, n - at);
        if (!len) {
            if (any_record_after(p + at, n - at))
                return vv_error_set(e, VV_E_CORRUPT,
                                    "%s is damaged at byte %zu and goes on after it: restore the file from a copy, or move the "
                                    "partition's directory away and restore it from the bucket",
                                    j->path, at);
            VLOG_WARN("%s: cut a torn tail of %zu bytes", j->path, n - at);
            break;
        }
        int err = each(ctx, p[at + 8], p + at + REC_HEAD, len - REC_HEAD);
        if (err) return vv_error_set(e, err, "%s: the record at byte %zu makes no sense", j->path, at);
        at += len;
    }
    j->size = at;
    return VV_OK;
}

static int cut(struct vv_journal *j, struct vv_error *e)
{
    struct vv_file *f;
    int err = vv_fs_open(j->env, j->path, VV_O_READ | VV_O_WRITE, &f);
    if (!err) {
        err = vv_fs_truncate(j->env, f, j->size);
        vv_fs_close(j->env, f);
    }
    return err ? vv_error_set(e, err, "cannot cut %s: %s", j->path, vv_err_name(err)) : VV_OK;
}

static int journal_load(struct vv_journal *j, vv_journal_each each, void *ctx, struct vv_error *e)
{
    uint8_t *p = NULL;
    size_t n = 0;
    int err = vv_fs_read_file(j->env, j->path, (size_t)1 << 31, &p, &n);
    if (err == VV_E_NOENT) return VV_OK;
    if (err) return vv_error_set(e, err, "cannot read %s: %s", j->path, vv_err_name(err));
    if (n >= sizeof magic) {
        if (memcmp(p, magic, sizeof magic))
            err = vv_error_set(e, VV_E_CORRUPT, "%s is not an index journal of this version", j->path);
        else
            err = replay(j, p, n, each, ctx, e);
        if (!err && j->size < n) err = cut(j, e);
    }
    free(p);
    return err;
}

int vv_journal_open(struct vv_env *env, const char *path, vv_journal_each each, void *ctx, struct vv_journal *out,
                    struct vv_error *e)
{
    *out = (struct vv_journal){.env = env, .path = strdup(path)};
    if (!out->path) return VV_E_NOMEM;
    int err = journal_load(out, each, ctx, e);
    if (err) vv_journal_close(out);
    return err;
}

static int go_offline(struct vv_journal *j, int err)
{
    if (j->offline) return err;
    VLOG_ERROR("%s: write failed (%s); no further change is recorded until a restart", j->path, vv_err_name(err));
    j->offline = true;
    return err;
}

static int make_dir_durable(struct vv_journal *j)
{
    char dir[4096];
    size_t n = (size_t)(strrchr(j->path, '/') - j->path);
    if (j->dir_durable) return VV_OK;
    if (n >= sizeof dir) return VV_E_LIMIT;
    memcpy(dir, j->path, n);
    dir[n] = 0;
    int err = vv_fs_sync_parent(j->env, dir);
    j->dir_durable = !err;
    return err;
}

/* The file as it is to be; what was there stays when the disk is full, or memory or descriptors are scarce. */
static int write_whole(struct vv_journal *j, const uint8_t *p, size_t n)
{
    struct vv_stat st;
    int err = make_dir_durable(j);
    if (!err) err = vv_fs_write_file(j->env, j->path, p, n);
    if (err && err != VV_E_NOSPC && !vv_err_scarce(err)) return go_offline(j, err);
    if (err) { /* did it take the old one's place, and only the directory could not be synced? */
        int there = vv_fs_stat(j->env, j->path, &st);
        if (there == VV_E_NOENT ? !j->size : !there && st.size == j->size) return err;
        return go_offline(j, err);
    }
    j->size = n;
    return VV_OK;
}

static int append_record(struct vv_journal *j, const uint8_t *rec, size_t n)
{
    struct vv_file *f;
    int err = make_dir_durable(j);
    if (!err) err = vv_fs_open(j->env, j->path, VV_O_READ | VV_O_WRITE, &f);
    if (err) return vv_err_scarce(err) ? err : go_offline(j, err);
    err = vv_fs_pwrite(j->env, f, rec, n, j->size);
    /* A full disk passes: what was written of the record is cut off, and nobody relied on it. A failed sync never passes. */
    bool passes = err == VV_E_NOSPC && !vv_fs_truncate(j->env, f, j->size);
    if (!err) err = vv_fs_datasync(j->env, f);
    vv_fs_close(j->env, f);
    if (err) return passes ? err : go_offline(j, err);
    j->size += n;
    return VV_OK;
}

int vv_journal_append(struct vv_journal *j, uint8_t type, const void *p, size_t n)
{
    uint8_t first[sizeof magic + REC_HEAD + VV_JOURNAL_RECORD_MAX], *rec = first + sizeof magic;
    VV_ASSERT(n < VV_JOURNAL_RECORD_MAX);
    if (j->offline) return VV_E_OFFLINE;
    vv_put32(rec, (uint32_t)n + 1);
    rec[8] = type;
    if (n) memcpy(rec + REC_HEAD, p, n);
    vv_put32(rec + 4, vv_crc32c(0, rec + 8, n + 1));
    if (j->size) return append_record(j, rec, REC_HEAD + n);
    memcpy(first, magic, sizeof magic);
    return write_whole(j, first, sizeof magic + REC_HEAD + n);
}

void vv_journal_image_add(struct vv_journal_image *im, uint8_t type, const void *p, size_t n)
{
    size_t need = im->n + REC_HEAD + n + (im->n ? 0 : sizeof magic);
    if (need > im->cap) {
        size_t cap = VV_MAX(need, im->cap * 2);
        uint8_t *q = realloc(im->p, cap);
        if (!q) {
            im->failed = true;
            return;
        }
        im->p = q;
        im->cap = cap;
    }
    if (!im->n) {
        memcpy(im->p, magic, sizeof magic);
        im->n = sizeof magic;
    }
    uint8_t *rec = im->p + im->n;
    vv_put32(rec, (uint32_t)n + 1);
    rec[8] = type;
    if (n) memcpy(rec + REC_HEAD, p, n);
    vv_put32(rec + 4, vv_crc32c(0, rec + 8, n + 1));
    im->n = need;
}

int vv_journal_replace(struct vv_journal *j, struct vv_journal_image *im)
{
    int err = j->offline ? VV_E_OFFLINE : im->failed ? VV_E_NOMEM : VV_OK;
    if (!err) err = write_whole(j, im->n ? im->p : magic, im->n ? im->n : sizeof magic);
    free(im->p);
    return err;
}

void vv_journal_close(struct vv_journal *j)
{
    free(j->path);
    *j = (struct vv_journal){0};
}
