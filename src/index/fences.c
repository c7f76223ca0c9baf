/* fences.c — see fences.h. */
#include "fences.h"
#include "varve/vlog.h"

#include <stdlib.h>

#define FAN VV_FENCE_TREE_FANOUT
#define OLD_FENCE_BYTES 40

void vv_fences_release(struct vv_fences *fs)
{
    for (int k = 0; k < VV_FENCE_TREE_LEVELS; k++) free(fs->up[k].max);
    free(fs->v);
    *fs = (struct vv_fences){0};
}

void vv_fence_encode(const struct vv_fence *f, uint8_t *p)
{
    memset(p, 0, VV_FENCE_BYTES);
    vv_put64(p, (uint64_t)f->base);
    vv_put64(p + 8, (uint64_t)f->last);
    vv_put64(p + 16, (uint64_t)f->max_ts);
    vv_put64(p + 24, f->bytes);
    vv_put32(p + 32, f->slot);
    vv_put32(p + 36, f->crc);
    vv_put64(p + 40, (uint64_t)f->dead_ms);
    p[48] = (uint8_t)f->state;
}

int vv_fence_decode(const uint8_t *p, size_t n, struct vv_fence *f)
{
    if (n != VV_FENCE_BYTES && n != OLD_FENCE_BYTES) return VV_E_CORRUPT;
    *f = (struct vv_fence){
        .base = (int64_t)vv_get64(p),
        .last = (int64_t)vv_get64(p + 8),
        .max_ts = (int64_t)vv_get64(p + 16),
        .bytes = vv_get64(p + 24),
        .slot = vv_get32(p + 32),
        .crc = vv_get32(p + 36),
        .dead_ms = n == VV_FENCE_BYTES ? (int64_t)vv_get64(p + 40) : 0,
        .state = n == VV_FENCE_BYTES ? (enum vv_extent_state)p[48] : VV_EXTENT_REMOTE,
    };
    bool state = f->state == VV_EXTENT_REMOTE || f->state == VV_EXTENT_TOMBSTONED || f->state == VV_EXTENT_DELETING;
    return state && f->base >= 0 && f->last >= f->base ? VV_OK : VV_E_CORRUPT;
}

size_t vv_fences_lower(const struct vv_fences *fs, int64_t base)
{
    size_t lo = 0, hi = fs->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (fs->v[mid].base < base)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool vv_fences_hold(const struct vv_fences *fs, int64_t offset, size_t *i)
{
    size_t k = offset == INT64_MAX ? fs->n : vv_fences_lower(fs, offset + 1);
    *i = k - 1;
    return k > 0 && fs->v[k - 1].last >= offset;
}

/* ---- the tree: up[k].max[i] is the largest of [i * 16, i * 16 + 16) one level below ---- */

static bool live(const struct vv_fence *f)
{
    return f->state == VV_EXTENT_REMOTE;
}

static size_t count_at(const struct vv_fences *fs, int level) /* level 0: the fences */
{
    return level ? fs->up[level - 1].n : fs->n;
}

static int64_t value_at(const struct vv_fences *fs, int level, size_t i)
{
    if (level) return fs->up[level - 1].max[i];
    return live(&fs->v[i]) ? fs->v[i].max_ts : INT64_MIN;
}

/* Room for the tree over n fences. */
static int tree_reserve(struct vv_fences *fs, size_t n)
{
    for (int k = 0; n > 1; k++) {
        n = (n + FAN - 1) / FAN;
        struct vv_fence_level *l = &fs->up[k];
        if (n <= l->cap) continue;
        VV_ASSERT(k < VV_FENCE_TREE_LEVELS);
        size_t cap = VV_MAX(n, l->cap * 2);
        int64_t *max = realloc(l->max, cap * sizeof *max);
        if (!max) return VV_E_NOMEM;
        l->max = max;
        l->cap = cap;
    }
    return VV_OK;
}

/* Fences [from, to) changed, or moved when to is n: their maxima again. */
static void tree_update(struct vv_fences *fs, size_t from, size_t to)
{
    size_t n = fs->n;
    int level = 0;
    for (; n > 1; level++) {
        struct vv_fence_level *l = &fs->up[level];
        size_t first = from / FAN, last = VV_MIN((to + FAN - 1) / FAN, (n + FAN - 1) / FAN);
        for (size_t i = first; i < last; i++) {
            int64_t max = INT64_MIN;
            for (size_t j = i * FAN; j < VV_MIN(i * FAN + FAN, n); j++) max = VV_MAX(max, value_at(fs, level, j));
            l->max[i] = max;
        }
        n = l->n = (n + FAN - 1) / FAN;
        from = first;
        to = last;
    }
    fs->levels = level;
}

size_t vv_fences_time(const struct vv_fences *fs, size_t i, int64_t ts)
{
    int level = 0;
    for (;;) { /* along the siblings, then up, until a subtree has one */
        size_t n = count_at(fs, level);
        bool found = false;
        while (i < n && !(found = value_at(fs, level, i) >= ts) && ++i % FAN) {
        }
        if (found) break;
        if (i >= n || level == fs->levels) return fs->n;
        i /= FAN;
        level++;
    }
    while (level > 0) {
        level--;
        for (i *= FAN; value_at(fs, level, i) < ts; i++) {
        }
    }
    return i;
}

int64_t vv_fences_max_ts(const struct vv_fences *fs)
{
    return fs->n ? value_at(fs, fs->levels, 0) : INT64_MIN;
}

/* ---- changes ---- */

static void count(struct vv_fences *fs, const struct vv_fence *f, bool in)
{
    if (!live(f)) return;
    fs->live = in ? fs->live + 1 : fs->live - 1;
    fs->live_bytes = in ? fs->live_bytes + f->bytes : fs->live_bytes - f->bytes;
}

int vv_fences_insert(struct vv_fences *fs, const struct vv_fence *f)
{
    size_t i = vv_fences_lower(fs, f->base);
    if ((i < fs->n && fs->v[i].base <= f->last) || (i > 0 && fs->v[i - 1].last >= f->base)) return VV_E_CORRUPT;
    if (fs->n == fs->cap) {
        size_t cap = fs->cap ? fs->cap + fs->cap / 2 : 16;
        struct vv_fence *v = realloc(fs->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        fs->v = v;
        fs->cap = cap;
    }
    int err = tree_reserve(fs, fs->n + 1);
    if (err) return err;
    memmove(&fs->v[i + 1], &fs->v[i], (fs->n - i) * sizeof *fs->v);
    fs->v[i] = *f;
    fs->n++;
    count(fs, f, true);
    tree_update(fs, i, fs->n);
    return VV_OK;
}

void vv_fences_remove(struct vv_fences *fs, size_t from, size_t to)
{
    if (from >= to) return;
    for (size_t i = from; i < to; i++) count(fs, &fs->v[i], false);
    memmove(&fs->v[from], &fs->v[to], (fs->n - to) * sizeof *fs->v);
    fs->n -= to - from;
    tree_update(fs, from, fs->n);
}

void vv_fences_set_state(struct vv_fences *fs, size_t from, size_t to, enum vv_extent_state state, int64_t dead_ms)
{
    for (size_t i = from; i < to; i++) {
        count(fs, &fs->v[i], false);
        fs->v[i].state = state;
        fs->v[i].dead_ms = dead_ms;
        count(fs, &fs->v[i], true);
    }
    tree_update(fs, from, to);
}
