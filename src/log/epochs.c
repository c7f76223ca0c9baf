/* epochs.c — leader epochs of one partition. Contract: epochs.h.
 *
 * Invariant: epochs and start offsets both strictly ascend. One owner; save and load touch the disk. */
#include "epochs.h"
#include "segment.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define FILE_NAME "leader-epoch-checkpoint"
#define FILE_MAX ((size_t)64 << 20)
#define LINE_MAX_BYTES 40 /* "2147483647 9223372036854775807\n" */

void vv_epochs_release(struct vv_epochs *e)
{
    free(e->v);
    *e = (struct vv_epochs){0};
}

int vv_epochs_assign(struct vv_epochs *e, int32_t epoch, int64_t start)
{
    if (epoch <= vv_epochs_latest(e)) return 0;
    if (start < 0) return VV_E_USAGE;
    if (e->n == e->cap) { /* before anything goes: a failure changes nothing */
        size_t cap = e->cap ? e->cap * 2 : 8;
        struct vv_epoch *v = realloc(e->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        e->v = v;
        e->cap = cap;
    }
    while (e->n && e->v[e->n - 1].start >= start)
        e->n--;
    e->v[e->n++] = (struct vv_epoch){epoch, start};
    return 1;
}

void vv_epochs_cut_end(struct vv_epochs *e, int64_t end)
{
    while (e->n && e->v[e->n - 1].start > end)
        e->n--;
}

/* Entries whose key (epoch or start) is at most the one asked: the last of them is the answer, 0 = none. */
static size_t count_by_start(const struct vv_epochs *e, int64_t offset)
{
    size_t lo = 0, hi = e->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (e->v[mid].start <= offset) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static size_t count_by_epoch(const struct vv_epochs *e, int32_t epoch)
{
    size_t lo = 0, hi = e->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (e->v[mid].epoch <= epoch) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

void vv_epochs_cut_start(struct vv_epochs *e, int64_t start)
{
    size_t at = count_by_start(e, start);
    if (!at) return;
    memmove(e->v, e->v + at - 1, (e->n - at + 1) * sizeof *e->v);
    e->n -= at - 1;
    e->v[0].start = start;
}

int32_t vv_epochs_latest(const struct vv_epochs *e)
{
    return e->n ? e->v[e->n - 1].epoch : -1;
}

int32_t vv_epochs_at(const struct vv_epochs *e, int64_t offset)
{
    size_t at = count_by_start(e, offset);
    return at ? e->v[at - 1].epoch : -1;
}

void vv_epochs_end(const struct vv_epochs *e, int32_t asked, int64_t log_end, int32_t *epoch, int64_t *end)
{
    *epoch = -1;
    *end = -1;
    if (asked < 0 || asked > vv_epochs_latest(e)) return; /* never led here: nothing to say about it */
    size_t at = count_by_epoch(e, asked);
    /* Older than all we know: its records are gone, so whoever asks goes on from our first. */
    *epoch = at ? e->v[at - 1].epoch : asked;
    *end = at == e->n ? log_end : e->v[at].start;
}

int vv_epochs_save(const struct vv_epochs *e, struct vv_env *env, const char *dir, bool name)
{
    char path[4096];
    int len = snprintf(path, sizeof path, "%s/" FILE_NAME, dir);
    if (len < 0 || (size_t)len >= sizeof path) return VV_E_USAGE;
    size_t room = 2 * LINE_MAX_BYTES + e->n * LINE_MAX_BYTES, n;
    char *text = malloc(room);
    if (!text) return VV_E_NOMEM;
    n = (size_t)snprintf(text, room, "0\n%zu\n", e->n);
    for (size_t i = 0; i < e->n; i++)
        n += (size_t)snprintf(text + n, room - n, "%" PRId32 " %" PRId64 "\n", e->v[i].epoch, e->v[i].start);
    int err = name ? vv_fs_write_file(env, path, text, n) : vv_segment_write_file(env, path, text, n, true);
    free(text);
    return err;
}

/* A decimal number without sign in [0, max], followed by `stop`; *at moves behind it. */
static bool number(const char **at, int64_t max, char stop, int64_t *out)
{
    const char *p = *at;
    int64_t v = 0;
    if (*p < '0' || *p > '9') return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (v > (max - (*p - '0')) / 10) return false;
        v = v * 10 + (*p - '0');
    }
    if (*p != stop) return false;
    *at = p + 1;
    *out = v;
    return true;
}

static int parse(struct vv_epochs *e, const char *text, size_t n)
{
    const char *at = text, *end = text + n;
    int64_t version, count, epoch, start;
    if (!number(&at, INT32_MAX, '\n', &version) || version != 0) return VV_E_CORRUPT;
    if (!number(&at, INT32_MAX, '\n', &count)) return VV_E_CORRUPT;
    for (int64_t i = 0; i < count; i++) {
        if (!number(&at, INT32_MAX, ' ', &epoch) || !number(&at, INT64_MAX, '\n', &start)) return VV_E_CORRUPT;
        if (e->n && (epoch <= e->v[e->n - 1].epoch || start <= e->v[e->n - 1].start)) return VV_E_CORRUPT;
        int rc = vv_epochs_assign(e, (int32_t)epoch, start);
        if (rc < 0) return rc;
    }
    return at == end ? 0 : VV_E_CORRUPT;
}

int vv_epochs_load(struct vv_epochs *e, struct vv_env *env, const char *dir)
{
    char path[4096];
    uint8_t *text;
    size_t n;
    int len = snprintf(path, sizeof path, "%s/" FILE_NAME, dir);
    if (len < 0 || (size_t)len >= sizeof path) return VV_E_USAGE;
    e->n = 0;
    int err = vv_fs_read_file(env, path, FILE_MAX, &text, &n);
    if (err == VV_E_NOENT) return 0;
    if (err) return err == VV_E_LIMIT ? VV_E_CORRUPT : err;
    err = parse(e, (const char *)text, n);
    if (err) e->n = 0;
    free(text);
    return err;
}
