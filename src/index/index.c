/* index.c — the unified index of one partition. Contract, states and thread rules: varve/index.h.
 *
 * Design: a sorted array of resident extents, kept in step with an append-only journal.
 * Two mutexes: `commit` orders durable changes (held across journal I/O), `mu` guards memory and is never held
 * across I/O. A durable change is: take commit, check under mu, journal it, apply it under mu: readers only
 * ever see what the disk knows. Order: commit -> mu. add_open and reopen take mu only: OPEN extents are not journalled,
 * the segment file itself is their record.
 *
 * Long histories: runs of 64 old REMOTE extents move to the extent file (paging.c, pages.h) and leave a fence (fences.h); v and f
 * are walked as one list. A change of one extent in a page first brings the whole page back; a change of everything below
 * an offset (sweep, drop) changes the fences, whatever their number is, by one record.
 *
 * Invariants: v and f are sorted by base; extents do not overlap; OPEN ones are at the end (one that is appended
 * to, before it those rolled but not yet sealed); the extents of a page are in one state, REMOTE or dead. f changes only
 * under commit and mu. */
#include "index_impl.h"
#include "varve/vlog.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the resident array (mu held) ---- */

size_t vv_ix_lower(const struct vv_index *ix, int64_t base) /* first with v.base >= base */
{
    size_t lo = 0, hi = ix->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (ix->v[mid].base < base)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct vv_extent *vv_ix_at(struct vv_index *ix, int64_t base)
{
    size_t i = vv_ix_lower(ix, base);
    return i < ix->n && ix->v[i].base == base ? &ix->v[i] : NULL;
}

static void local_ref(struct vv_index *ix, struct vv_segment *s)
{
    if (s && ix->ops) ix->ops->ref(s);
}

static void local_unref(struct vv_index *ix, struct vv_segment *s)
{
    if (s && ix->ops) ix->ops->unref(s);
}

int vv_ix_put(struct vv_index *ix, const struct vv_extent *x) /* insert or replace; local is taken as it is */
{
    size_t i = vv_ix_lower(ix, x->base);
    ix->summed = false;
    if (i < ix->n && ix->v[i].base == x->base) {
        ix->v[i] = *x;
        return VV_OK;
    }
    if (ix->n == ix->cap) {
        size_t cap = ix->cap ? ix->cap * 2 : 16;
        struct vv_extent *v = realloc(ix->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        ix->v = v;
        ix->cap = cap;
    }
    memmove(&ix->v[i + 1], &ix->v[i], (ix->n - i) * sizeof *ix->v);
    ix->v[i] = *x;
    ix->n++;
    return VV_OK;
}

void vv_ix_cut(struct vv_index *ix, size_t from, size_t to) /* removes v[from, to) */
{
    if (from >= to) return;
    ix->summed = false;
    for (size_t i = from; i < to; i++) local_unref(ix, ix->v[i].local);
    memmove(&ix->v[from], &ix->v[to], (ix->n - to) * sizeof *ix->v);
    ix->n -= to - from;
}

/* ---- journal records ---- */

static int64_t at_of(const uint8_t *p)
{
    return (int64_t)vv_get64(p);
}

static int on_pages(struct vv_index *ix, const uint8_t *p, size_t n)
{
    size_t each = n % VV_FENCE_BYTES ? n : VV_FENCE_BYTES; /* earlier versions: one of 40 bytes */
    if (!n) return VV_E_CORRUPT;
    for (size_t at = 0; at < n; at += each) {
        struct vv_fence f;
        int err = vv_fence_decode(p + at, each, &f);
        if (err) return err;
        size_t to = vv_ix_lower(ix, f.last == INT64_MAX ? f.last : f.last + 1);
        vv_ix_cut(ix, vv_ix_lower(ix, f.base), to);
        err = vv_fences_insert(&ix->f, &f);
        if (err) return err;
    }
    return VV_OK;
}

static int on_unpage(struct vv_index *ix, const uint8_t *p, size_t n)
{
    struct vv_extent v[VV_PAGE_EXTENTS];
    size_t k;
    if (n != VV_PAGE_BYTES || vv_page_decode(p, v)) return VV_E_CORRUPT;
    if (!vv_fences_hold(&ix->f, v[0].base, &k) || ix->f.v[k].base != v[0].base) return VV_E_CORRUPT;
    vv_fences_remove(&ix->f, k, k + 1);
    int err = VV_OK;
    for (size_t i = 0; i < VV_PAGE_EXTENTS && !err; i++) err = vv_ix_put(ix, &v[i]);
    return err;
}

/* ---- ranges at once: below an offset, whole extents; pages lie wholly on one side (mu held) ---- */

#define SWEEP_BYTES 18

/* Indexes in v and f of the first that is not wholly below. */
static void bounds(const struct vv_index *ix, int64_t below, size_t *i, size_t *k)
{
    *i = vv_ix_lower(ix, below);
    if (*i > 0 && ix->v[*i - 1].last >= below) --*i;
    *k = vv_fences_lower(&ix->f, below);
    if (*k > 0 && ix->f.v[*k - 1].last >= below) --*k;
}

static int sweep_apply(struct vv_index *ix, int64_t below, enum vv_extent_state from, enum vv_extent_state to, int64_t dead_ms)
{
    size_t i, k;
    if (!vv_extent_move_legal(from, to)) return VV_E_CORRUPT;
    bounds(ix, below, &i, &k);
    ix->summed = false;
    while (i-- > 0) {
        if (ix->v[i].state != from) continue;
        ix->v[i].state = to;
        if (dead_ms) ix->v[i].dead_ms = dead_ms;
    }
    for (size_t j = 0; j < k;) { /* runs in one state and of one time */
        size_t end = j + 1;
        const struct vv_fence f = ix->f.v[j];
        while (end < k && ix->f.v[end].state == f.state && ix->f.v[end].dead_ms == f.dead_ms) end++;
        if (f.state == from) vv_fences_set_state(&ix->f, j, end, to, dead_ms ? dead_ms : f.dead_ms);
        j = end;
    }
    return VV_OK;
}

static void drop_apply(struct vv_index *ix, int64_t below)
{
    size_t i, k, to = 0;
    bounds(ix, below, &i, &k);
    ix->summed = false;
    for (size_t j = 0; j < i; j++) {
        if (ix->v[j].state == VV_EXTENT_DELETING)
            local_unref(ix, ix->v[j].local);
        else
            ix->v[to++] = ix->v[j];
    }
    memmove(&ix->v[to], &ix->v[i], (ix->n - i) * sizeof *ix->v);
    ix->n -= i - to;
    while (k > 0) {
        size_t end = k;
        while (k > 0 && ix->f.v[k - 1].state == VV_EXTENT_DELETING) k--;
        vv_fences_remove(&ix->f, k, end);
        if (k > 0) k--;
    }
}

static int on_record(void *ctx, uint8_t type, const uint8_t *p, size_t n)
{
    struct vv_index *ix = ctx;
    struct vv_extent x;
    int64_t at = n == 8 ? (int64_t)vv_get64(p) : -1;
    switch (type) {
    case REC_EXTENT:
        if (n != VV_EXTENT_BYTES || vv_extent_decode(p, &x)) return VV_E_CORRUPT;
        return vv_ix_put(ix, &x);
    case REC_REMOVE: {
        if (n != 8) return VV_E_CORRUPT;
        size_t i = vv_ix_lower(ix, at);
        if (i < ix->n && ix->v[i].base == at) vv_ix_cut(ix, i, i + 1);
        return VV_OK;
    }
    case REC_LOG_START:
        if (n != 8) return VV_E_CORRUPT;
        ix->log_start = at;
        return VV_OK;
    case REC_PAGES: return on_pages(ix, p, n);
    case REC_UNPAGE: return on_unpage(ix, p, n);
    case REC_SWEEP:
        if (n != SWEEP_BYTES) return VV_E_CORRUPT;
        return sweep_apply(ix, at_of(p), (enum vv_extent_state)p[8], (enum vv_extent_state)p[9], at_of(p + 10));
    case REC_DROP:
        if (n != 8) return VV_E_CORRUPT;
        drop_apply(ix, at);
        return VV_OK;
    case REC_INTENT:
        if (n != VV_EXTENT_BYTES) return VV_E_CORRUPT;
        return vv_extent_decode(p, &ix->intent);
    case REC_REPLACE:
        if (n != VV_EXTENT_BYTES || vv_extent_decode(p, &x) || vv_ix_replace_apply(ix, &x)) return VV_E_CORRUPT;
        return VV_OK;
    case REC_TRUNCATE:
        if (n != 8) return VV_E_CORRUPT;
        vv_ix_cut(ix, vv_ix_lower(ix, at), ix->n);
        return VV_OK;
    default:
        return VV_E_CORRUPT;
    }
}

/* Rewrites the journal as what is live now. commit held: fences stand still, so that mu is held for the resident extents only. */
static int checkpoint(struct vv_index *ix)
{
    struct vv_journal_image im = {0};
    uint8_t rec[VV_FENCES_PER_RECORD * VV_FENCE_BYTES];
    int err = vv_pages_sync(&ix->pages); /* before the first journal that names them */
    if (err) return err;
    vv_put64(rec, (uint64_t)ix->log_start);
    vv_journal_image_add(&im, REC_LOG_START, rec, 8);
    if (ix->intent.nonce) {
        vv_extent_encode(&ix->intent, rec);
        vv_journal_image_add(&im, REC_INTENT, rec, VV_EXTENT_BYTES);
    }
    for (size_t i = 0; i < ix->f.n;) {
        size_t n = 0;
        while (i < ix->f.n && n < VV_FENCES_PER_RECORD) vv_fence_encode(&ix->f.v[i++], rec + n++ * VV_FENCE_BYTES);
        vv_journal_image_add(&im, REC_PAGES, rec, n * VV_FENCE_BYTES);
    }
    pthread_mutex_lock(&ix->mu);
    for (size_t i = 0; i < ix->n; i++) {
        if (ix->v[i].state == VV_EXTENT_OPEN) continue;
        vv_extent_encode(&ix->v[i], rec);
        vv_journal_image_add(&im, REC_EXTENT, rec, VV_EXTENT_BYTES);
    }
    pthread_mutex_unlock(&ix->mu);
    err = vv_journal_replace(&ix->journal, &im);
    if (!err) ix->journal_live = ix->journal.size;
    return err;
}

/* Ends a durable change: commit is given back, after a rewrite when the journal has grown far past what is live. The change
 * itself is durable already: a failed rewrite only takes later ones offline. */
void vv_ix_commit_end(struct vv_index *ix)
{
    int err = VV_OK;
    bool grown = ix->journal.size > 64 * 1024 && ix->journal.size > 4 * ix->journal_live;
    pthread_mutex_lock(&ix->mu);
    bool many = ix->n >= ix->page_next;
    pthread_mutex_unlock(&ix->mu);
    if (many && !ix->journal.offline) err = vv_ix_page_out(ix, true);
    if (!err && grown && !ix->journal.offline) err = checkpoint(ix);
    if (err) VLOG_ERROR("%s: rewriting the index journal failed: %s", ix->dir, vv_err_name(err));
    pthread_mutex_unlock(&ix->commit);
}

static int record_offset(struct vv_index *ix, uint8_t type, int64_t offset)
{
    uint8_t rec[8];
    vv_put64(rec, (uint64_t)offset);
    return vv_journal_append(&ix->journal, type, rec, sizeof rec);
}

static int record_extent(struct vv_index *ix, const struct vv_extent *x)
{
    uint8_t rec[VV_EXTENT_BYTES];
    vv_extent_encode(x, rec);
    return vv_journal_append(&ix->journal, REC_EXTENT, rec, sizeof rec);
}

/* ---- open, close ---- */

int vv_index_open(struct vv_env *env, const char *dir, const struct vv_segment_ref_ops *ops, struct vv_index **out,
                  struct vv_error *e)
{
    char path[4096];
    *out = NULL;
    struct vv_index *ix = calloc(1, sizeof *ix);
    if (!ix) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    pthread_mutex_init(&ix->mu, NULL);
    pthread_mutex_init(&ix->commit, NULL);
    ix->env = env;
    ix->ops = ops;
    ix->dir = strdup(dir);
    int err = ix->dir ? VV_OK : VV_E_NOMEM;
    if (!err && snprintf(path, sizeof path, "%s/varve.index", dir) >= (int)sizeof path) err = VV_E_LIMIT;
    if (!err) err = vv_fs_mkdir(env, dir); /* durable with the first record of the journal or the first flush of the log */
    if (err) {
        vv_error_set(e, err, "cannot use directory %s: %s", dir, vv_err_name(err));
        goto out;
    }
    ix->page_next = VV_PAGE_OUT_AT;
    err = vv_pages_init(&ix->pages, env, dir);
    if (!err) err = vv_journal_open(env, path, on_record, ix, &ix->journal, e);
    if (err) goto out;
    ix->journal_live = ix->journal.size;
    *out = ix;
    ix = NULL;
out:
    vv_index_close(ix);
    return err;
}

void vv_index_close(struct vv_index *ix)
{
    if (!ix) return;
    vv_ix_cut(ix, 0, ix->n);
    if (ix->journal.path) vv_journal_close(&ix->journal);
    pthread_mutex_destroy(&ix->mu);
    pthread_mutex_destroy(&ix->commit);
    vv_pages_release(&ix->pages);
    vv_fences_release(&ix->f);
    free(ix->slots);
    free(ix->v);
    free(ix->dir);
    free(ix);
}

/* ---- lookups ---- */

static int hand_out(struct vv_index *ix, const struct vv_extent *x, struct vv_extent *out)
{
    *out = *x;
    local_ref(ix, out->local);
    return VV_OK;
}

void vv_extent_release(struct vv_index *ix, struct vv_extent *x)
{
    local_unref(ix, x->local);
    x->local = NULL;
}

static int64_t time_bound(const struct vv_extent *x) /* an OPEN extent may hold any time: its segment knows */
{
    return x->state == VV_EXTENT_OPEN ? INT64_MAX : x->max_ts;
}

/* ---- the walk over v and f as one list ---- */

struct want { /* what a lookup looks for */
    int64_t ts, base;
    enum vv_extent_state state;
    bool may_block;
    bool (*extent)(const struct vv_extent *x, const struct want *w);
    size_t (*page)(const struct vv_fences *fs, size_t k, const struct want *w); /* the first at or after k that may hold one */
};
enum { MOVED = 1 }; /* the page moved meanwhile: walk again */

/* Under mu, from the extent that holds (or follows) offset: VV_OK = found in memory; E_AGAIN = *fence may hold it; E_NOENT. */
static int walk_resident(struct vv_index *ix, int64_t offset, const struct want *w, struct vv_extent *out, struct vv_fence *fence)
{
    size_t i = vv_ix_lower(ix, offset), k = vv_fences_lower(&ix->f, offset);
    if (i > 0 && ix->v[i - 1].last >= offset) i--;
    if (k > 0 && ix->f.v[k - 1].last >= offset) k--;
    k = w->page(&ix->f, k, w);
    int64_t page = k < ix->f.n ? ix->f.v[k].base : INT64_MAX;
    for (; i < ix->n && ix->v[i].base <= page; i++)
        if (w->extent(&ix->v[i], w)) return hand_out(ix, &ix->v[i], out);
    if (k == ix->f.n) return VV_E_NOENT;
    *fence = ix->f.v[k];
    return VV_E_AGAIN;
}

struct in_page { const struct want *w; int64_t offset; };

static bool pick_extent(const struct vv_extent *x, const void *ctx)
{
    const struct in_page *p = ctx;
    return x->last >= p->offset && p->w->extent(x, p->w);
}

/* In the page behind fence. E_NOENT: none there; MOVED. */
static int walk_page(struct vv_index *ix, const struct vv_fence *fence, int64_t offset, const struct want *w, struct vv_extent *out)
{
    size_t k;
    int err = vv_pages_find(&ix->pages, fence, w->may_block, pick_extent, &(struct in_page){w, offset}, out);
    if (err != VV_E_CORRUPT) return err;
    pthread_mutex_lock(&ix->mu); /* damaged, or its slot was given to another page after we let go of mu */
    const struct vv_fence *now = vv_fences_hold(&ix->f, fence->base, &k) ? &ix->f.v[k] : NULL;
    if (!now || now->base != fence->base || now->slot != fence->slot || now->crc != fence->crc) err = MOVED;
    pthread_mutex_unlock(&ix->mu);
    return err;
}

static int walk(struct vv_index *ix, int64_t offset, const struct want *w, struct vv_extent *out)
{
    for (;;) {
        struct vv_fence fence = {0};
        pthread_mutex_lock(&ix->mu);
        int err = walk_resident(ix, offset, w, out, &fence);
        pthread_mutex_unlock(&ix->mu);
        if (err != VV_E_AGAIN) return err;
        err = walk_page(ix, &fence, offset, w, out);
        if (err == VV_E_NOENT) offset = fence.last + 1;
        if (err != VV_E_NOENT && err != MOVED) return err;
    }
}

static size_t any_page(const struct vv_fences *fs, size_t k, const struct want *w)
{
    (void)fs, (void)w;
    return k;
}

static size_t live_page(const struct vv_fences *fs, size_t k, const struct want *w)
{
    (void)w;
    return vv_fences_time(fs, k, INT64_MIN + 1); /* dead ones count for no time */
}

static bool live_extent(const struct vv_extent *x, const struct want *w)
{
    (void)w;
    return vv_extent_is_live(x);
}

static bool time_extent(const struct vv_extent *x, const struct want *w)
{
    return vv_extent_is_live(x) && time_bound(x) >= w->ts;
}

static size_t time_page(const struct vv_fences *fs, size_t k, const struct want *w)
{
    return vv_fences_time(fs, k, w->ts);
}

static bool state_extent(const struct vv_extent *x, const struct want *w)
{
    return x->state == w->state;
}

static size_t state_page(const struct vv_fences *fs, size_t k, const struct want *w)
{
    if (w->state == VV_EXTENT_REMOTE) return live_page(fs, k, w);
    if (fs->live == fs->n || (w->state != VV_EXTENT_TOMBSTONED && w->state != VV_EXTENT_DELETING)) return fs->n;
    while (k < fs->n && fs->v[k].state != w->state) k++; /* dead pages are the oldest */
    return k;
}

static bool base_extent(const struct vv_extent *x, const struct want *w)
{
    return x->base >= w->base;
}

int vv_index_find(struct vv_index *ix, int64_t offset, struct vv_extent *out)
{
    return walk(ix, offset, &(struct want){.may_block = true, .extent = live_extent, .page = live_page}, out);
}

int vv_index_find_now(struct vv_index *ix, int64_t offset, struct vv_extent *out)
{
    return walk(ix, offset, &(struct want){.extent = live_extent, .page = live_page}, out);
}

int vv_index_find_time(struct vv_index *ix, int64_t ts, int64_t from_offset, struct vv_extent *out)
{
    struct want w = {.ts = VV_MAX(ts, INT64_MIN + 1), .may_block = true, .extent = time_extent, .page = time_page};
    return walk(ix, from_offset, &w, out);
}

int vv_index_find_state(struct vv_index *ix, enum vv_extent_state state, int64_t base, struct vv_extent *out)
{
    return walk(ix, base, &(struct want){.state = state, .may_block = true, .extent = state_extent, .page = state_page}, out);
}

int vv_index_next(struct vv_index *ix, int64_t base, struct vv_extent *out)
{
    return walk(ix, base, &(struct want){.base = base, .may_block = true, .extent = base_extent, .page = any_page}, out);
}

int vv_index_find_max_ts(struct vv_index *ix, struct vv_extent *out)
{
    const struct vv_extent *best = NULL;
    pthread_mutex_lock(&ix->mu);
    for (size_t i = 0; i < ix->n; i++) /* the first of equals; OPEN counts with what it is known to hold */
        if (vv_extent_is_live(&ix->v[i]) && (!best || ix->v[i].max_ts > best->max_ts)) best = &ix->v[i];
    int64_t paged = vv_fences_max_ts(&ix->f), from = 0;
    if (paged > INT64_MIN) from = ix->f.v[vv_fences_time(&ix->f, 0, paged)].base;
    bool in_page = paged > INT64_MIN && (!best || paged > best->max_ts || (paged == best->max_ts && from < best->base));
    int err = best ? VV_OK : VV_E_NOENT;
    if (best && !in_page) hand_out(ix, best, out);
    pthread_mutex_unlock(&ix->mu);
    return in_page ? vv_index_find_time(ix, paged, from, out) : err;
}

int64_t vv_index_log_start(struct vv_index *ix)
{
    return atomic_load_explicit(&ix->log_start, memory_order_acquire);
}

static void sum_up(struct vv_index *ix) /* mu held */
{
    struct vv_index_summary *out = &ix->sum;
    *out = (struct vv_index_summary){.local_start = -1, .remote_end = -1};
    out->extents = out->remote_extents = ix->f.live * VV_PAGE_EXTENTS;
    out->remote_bytes = ix->f.live_bytes;
    if (ix->f.n && ix->f.v[ix->f.n - 1].state == VV_EXTENT_REMOTE) out->remote_end = ix->f.v[ix->f.n - 1].last + 1;
    for (size_t i = 0; i < ix->f.n - ix->f.live; i++) { /* the dead ones are the oldest */
        out->dead_extents += VV_PAGE_EXTENTS;
        out->dead_bytes += ix->f.v[i].bytes;
    }
    for (size_t i = 0; i < ix->n; i++) {
        const struct vv_extent *x = &ix->v[i];
        if (!vv_extent_is_live(x)) {
            out->dead_extents += x->nonce != 0;
            out->dead_bytes += x->nonce ? x->bytes : 0;
            continue;
        }
        out->extents++;
        if (vv_extent_is_remote(x)) {
            out->remote_extents++;
            out->remote_bytes += x->bytes;
            out->remote_end = VV_MAX(out->remote_end, x->last + 1);
        }
        if (x->state == VV_EXTENT_SEALED || x->state == VV_EXTENT_UPLOADING) {
            out->pending_extents++;
            out->pending_bytes += x->bytes;
        }
        if (x->state != VV_EXTENT_REMOTE) {
            out->local_extents++;
            if (x->state != VV_EXTENT_OPEN) out->local_bytes += x->bytes; /* those of a reopened one are the log's to count */
            if (out->local_start < 0) out->local_start = x->base;
        }
    }
    ix->summed = true;
}

void vv_index_summary(struct vv_index *ix, struct vv_index_summary *out)
{
    pthread_mutex_lock(&ix->mu);
    if (!ix->summed) sum_up(ix);
    *out = ix->sum;
    out->log_start = ix->log_start;
    if (out->local_start < 0) out->local_start = VV_MAX(out->remote_end, out->log_start);
    pthread_mutex_unlock(&ix->mu);
}

/* ---- the log's calls ---- */

int vv_index_attach(struct vv_index *ix, const struct vv_extent *x, enum vv_extent_state *state)
{
    int err = VV_OK;
    pthread_mutex_lock(&ix->mu);
    struct vv_extent *have = vv_ix_at(ix, x->base);
    size_t k;
    ix->summed = false;
    if (!have && vv_fences_hold(&ix->f, x->base, &k)) {
        *state = ix->f.v[k].state; /* a leftover in any case */
        goto out;
    }
    if (!have) {
        struct vv_extent fresh = *x;
        fresh.state = VV_EXTENT_SEALED;
        err = vv_ix_put(ix, &fresh);
        if (!err) local_ref(ix, fresh.local);
        *state = fresh.state;
        ix->changed = true;
        goto out;
    }
    *state = have->state;
    if (have->state == VV_EXTENT_REMOTE || !vv_extent_is_live(have)) goto out;
    if (have->state == VV_EXTENT_SEALED) { /* it may have been reopened and have grown since: the file knows better */
        ix->changed |= have->last != x->last || have->first_ts != x->first_ts || have->max_ts != x->max_ts || have->bytes != x->bytes;
        have->last = x->last;
        have->first_ts = x->first_ts;
        have->max_ts = x->max_ts;
        have->bytes = x->bytes;
    }
    VV_ASSERT(!have->local);
    have->local = x->local;
    local_ref(ix, have->local);
out:
    pthread_mutex_unlock(&ix->mu);
    return err;
}

/* What to do with a journalled extent whose file did not show up. True: drop it. */
static bool settle_missing(struct vv_index *ix, struct vv_extent *x, int *err, struct vv_error *e)
{
    if (x->state == VV_EXTENT_BOTH) x->state = VV_EXTENT_REMOTE; /* replayed the same way next time: no journal needed */
    if (x->state == VV_EXTENT_DELETING && !x->nonce) return true; /* local only: its deletion is complete */
    if (x->state != VV_EXTENT_SEALED) return false;
    *err = vv_error_set(e, VV_E_CORRUPT,
                        "%s: the segment of offsets %lld..%lld is gone from the disk and was never uploaded: these "
                        "records are lost unless the file is put back",
                        ix->dir, (long long)x->base, (long long)x->last);
    return true;
}

int vv_index_attached(struct vv_index *ix, struct vv_error *e)
{
    int err = VV_OK;
    pthread_mutex_lock(&ix->commit);
    pthread_mutex_lock(&ix->mu);
    size_t to = 0;
    ix->summed = false;
    for (size_t i = 0; i < ix->n; i++) {
        if (!ix->v[i].local && settle_missing(ix, &ix->v[i], &err, e)) continue;
        ix->v[to++] = ix->v[i];
    }
    ix->changed |= to != ix->n;
    ix->n = to;
    pthread_mutex_unlock(&ix->mu);
    int cerr = ix->changed ? checkpoint(ix) : VV_OK;
    pthread_mutex_unlock(&ix->commit);
    if (cerr) return vv_error_set(e, cerr, "%s: cannot write the index journal: %s", ix->dir, vv_err_name(cerr));
    return err;
}

int vv_index_add_open(struct vv_index *ix, int64_t base, int32_t epoch, struct vv_segment *local)
{
    pthread_mutex_lock(&ix->mu);
    struct vv_extent *before = ix->n ? &ix->v[ix->n - 1] : NULL;
    if (before && before->state == VV_EXTENT_OPEN && before->base < base) before->last = base - 1; /* rolled, its seal follows */
    VV_ASSERT((!before || before->last < base) && (!ix->f.n || ix->f.v[ix->f.n - 1].last < base));
    struct vv_extent x = {.base = base, .last = INT64_MAX, .first_ts = -1, .max_ts = -1, .epoch = epoch,
                          .state = VV_EXTENT_OPEN, .local = local};
    int err = vv_ix_put(ix, &x);
    if (!err) local_ref(ix, local);
    pthread_mutex_unlock(&ix->mu);
    return err;
}

int vv_index_reopen(struct vv_index *ix, int64_t base)
{
    pthread_mutex_lock(&ix->mu);
    struct vv_extent *x = vv_ix_at(ix, base);
    int err = x ? VV_OK : VV_E_NOENT;
    if (x) {
        VV_ASSERT(vv_extent_move_legal(x->state, VV_EXTENT_OPEN) && x == &ix->v[ix->n - 1]);
        x->state = VV_EXTENT_OPEN;
        x->last = INT64_MAX;
        ix->summed = false;
    }
    pthread_mutex_unlock(&ix->mu);
    return err;
}

/* The commit path of every durable change of one extent: journal `next`, then make it visible. commit held. */
static int commit_extent(struct vv_index *ix, const struct vv_extent *next, bool drop_local)
{
    int err = record_extent(ix, next);
    if (err) return err;
    struct vv_segment *dropped = NULL;
    pthread_mutex_lock(&ix->mu);
    struct vv_extent *x = vv_ix_at(ix, next->base);
    VV_ASSERT(x); /* only commit holders remove */
    struct vv_segment *local = x->local;
    ix->summed = false;
    *x = *next;
    x->local = drop_local ? NULL : local;
    if (drop_local) dropped = local;
    pthread_mutex_unlock(&ix->mu);
    local_unref(ix, dropped);
    return VV_OK;
}

/* commit held; afterwards the extent is resident. */
static int peek(struct vv_index *ix, int64_t base, struct vv_extent *out)
{
    for (int tries = 0;; tries++) {
        pthread_mutex_lock(&ix->mu);
        struct vv_extent *x = vv_ix_at(ix, base);
        if (x) *out = *x;
        pthread_mutex_unlock(&ix->mu);
        if (x) return VV_OK;
        int err = tries ? VV_E_NOENT : vv_ix_unpage(ix, base);
        if (err) return err;
    }
}

int vv_index_seal(struct vv_index *ix, const struct vv_extent *x)
{
    struct vv_extent next;
    pthread_mutex_lock(&ix->commit);
    int err = peek(ix, x->base, &next);
    if (err) goto out;
    VV_ASSERT(vv_extent_move_legal(next.state, VV_EXTENT_SEALED) && x->last >= x->base);
    next.state = VV_EXTENT_SEALED;
    next.last = x->last;
    next.first_ts = x->first_ts;
    next.max_ts = x->max_ts;
    next.bytes = x->bytes;
    next.sealed_ms = x->sealed_ms;
    if (x->epoch > 0) next.epoch = x->epoch;
    err = commit_extent(ix, &next, false);
out:
    vv_ix_commit_end(ix);
    return err;
}

int vv_index_truncate(struct vv_index *ix, int64_t offset)
{
    pthread_mutex_lock(&ix->commit);
    pthread_mutex_lock(&ix->mu);
    VV_ASSERT(!ix->f.n || ix->f.v[ix->f.n - 1].base < offset);
    for (size_t i = vv_ix_lower(ix, offset); i < ix->n; i++)
        VV_ASSERT(ix->v[i].state == VV_EXTENT_OPEN || ix->v[i].state == VV_EXTENT_SEALED);
    pthread_mutex_unlock(&ix->mu);
    int err = record_offset(ix, REC_TRUNCATE, offset);
    pthread_mutex_lock(&ix->mu);
    if (!err) vv_ix_cut(ix, vv_ix_lower(ix, offset), ix->n);
    pthread_mutex_unlock(&ix->mu);
    vv_ix_commit_end(ix);
    return err;
}

/* ---- the tierer's and retention's calls ---- */

int vv_index_move(struct vv_index *ix, int64_t base, enum vv_extent_state to, const struct vv_extent *x)
{
    struct vv_extent next;
    pthread_mutex_lock(&ix->commit);
    int err = peek(ix, base, &next);
    if (err) goto out;
    VV_ASSERT(vv_extent_move_legal(next.state, to));
    if (x && (to == VV_EXTENT_UPLOADING || to == VV_EXTENT_BOTH)) {
        next.nonce = x->nonce;
        next.generation = x->generation;
        next.epoch = x->epoch;
        next.object_bytes = x->object_bytes;
        next.stored_bytes = x->stored_bytes;
    }
    if (x && (to == VV_EXTENT_TOMBSTONED || to == VV_EXTENT_DELETING) && x->dead_ms) next.dead_ms = x->dead_ms;
    if (next.state == VV_EXTENT_OPEN) next.last = VV_MAX(base, ix->log_start); /* only for DELETING: its end does not matter */
    next.state = to;
    err = commit_extent(ix, &next, to == VV_EXTENT_REMOTE || !vv_extent_is_live(&next));
out:
    vv_ix_commit_end(ix);
    return err;
}

int vv_index_remove(struct vv_index *ix, int64_t base)
{
    struct vv_extent x;
    pthread_mutex_lock(&ix->commit);
    int err = peek(ix, base, &x);
    if (err) goto out;
    VV_ASSERT(x.state == VV_EXTENT_DELETING);
    err = record_offset(ix, REC_REMOVE, base);
    if (err) goto out;
    pthread_mutex_lock(&ix->mu);
    size_t i = vv_ix_lower(ix, base);
    vv_ix_cut(ix, i, i + 1);
    pthread_mutex_unlock(&ix->mu);
out:
    vv_ix_commit_end(ix);
    return err;
}

int vv_ix_split_page(struct vv_index *ix, int64_t below)
{
    size_t k;
    bool across = vv_fences_hold(&ix->f, below, &k) && ix->f.v[k].base < below;
    return across ? vv_ix_unpage(ix, ix->f.v[k].base) : VV_OK;
}

int vv_index_sweep(struct vv_index *ix, int64_t below, enum vv_extent_state from, enum vv_extent_state to, int64_t dead_ms)
{
    uint8_t rec[SWEEP_BYTES];
    VV_ASSERT(vv_extent_move_legal(from, to) && from >= VV_EXTENT_REMOTE && to >= VV_EXTENT_REMOTE);
    vv_put64(rec, (uint64_t)below);
    rec[8] = (uint8_t)from;
    rec[9] = (uint8_t)to;
    vv_put64(rec + 10, (uint64_t)dead_ms);
    pthread_mutex_lock(&ix->commit);
    int err = vv_ix_split_page(ix, below);
    if (!err) err = vv_journal_append(&ix->journal, REC_SWEEP, rec, sizeof rec);
    if (!err) {
        pthread_mutex_lock(&ix->mu);
        err = sweep_apply(ix, below, from, to, dead_ms);
        pthread_mutex_unlock(&ix->mu);
    }
    vv_ix_commit_end(ix);
    return err;
}

int vv_index_drop(struct vv_index *ix, int64_t below)
{
    pthread_mutex_lock(&ix->commit);
    int err = vv_ix_split_page(ix, below);
    if (!err) err = record_offset(ix, REC_DROP, below);
    if (!err) {
        ix->slots_known = false; /* those of the pages that go */
        pthread_mutex_lock(&ix->mu);
        drop_apply(ix, below);
        pthread_mutex_unlock(&ix->mu);
    }
    vv_ix_commit_end(ix);
    return err;
}

int vv_index_revive(struct vv_index *ix, int64_t offset)
{
    int64_t now = vv_index_log_start(ix);
    VV_ASSERT(offset <= now);
    int err = vv_index_sweep(ix, now, VV_EXTENT_TOMBSTONED, VV_EXTENT_REMOTE, 0);
    if (err) return err;
    pthread_mutex_lock(&ix->commit);
    err = record_offset(ix, REC_LOG_START, offset);
    if (!err) {
        pthread_mutex_lock(&ix->mu);
        ix->log_start = offset;
        pthread_mutex_unlock(&ix->mu);
    }
    vv_ix_commit_end(ix);
    return err;
}

int vv_index_set_log_start(struct vv_index *ix, int64_t offset)
{
    int err = VV_OK;
    pthread_mutex_lock(&ix->commit);
    if (offset > ix->log_start) err = record_offset(ix, REC_LOG_START, offset);
    if (!err) {
        pthread_mutex_lock(&ix->mu);
        ix->log_start = VV_MAX(ix->log_start, offset);
        pthread_mutex_unlock(&ix->mu);
    }
    vv_ix_commit_end(ix);
    return err;
}

int vv_index_adopt(struct vv_index *ix, const struct vv_extent *x)
{
    struct vv_extent next = *x;
    next.state = VV_EXTENT_REMOTE;
    next.local = NULL;
    pthread_mutex_lock(&ix->commit);
    pthread_mutex_lock(&ix->mu);
    int err = VV_E_STATE;
    bool follows = (!ix->n || ix->v[ix->n - 1].last < x->base) && (!ix->f.n || ix->f.v[ix->f.n - 1].last < x->base);
    if (x->base >= 0 && x->last >= x->base && follows) err = vv_ix_put(ix, &next);
    bool many = ix->n >= ix->page_next;
    pthread_mutex_unlock(&ix->mu);
    if (!err && many) err = vv_ix_page_out(ix, false); /* the journal follows with vv_index_sync */
    pthread_mutex_unlock(&ix->commit);
    return err;
}

/* mu held: v[i, end) are what begins in [from, to). */
static int exchangeable(const struct vv_index *ix, size_t i, size_t end, const struct vv_extent *v, size_t n)
{
    for (size_t k = i; k < end; k++)
        if (ix->v[k].state != VV_EXTENT_REMOTE) return VV_E_STATE;
    for (size_t k = 0; k < n; k++)
        if (v[k].base < 0 || v[k].last < v[k].base || (k && v[k - 1].last >= v[k].base)) return VV_E_STATE;
    if (!n) return VV_OK;
    size_t f = vv_fences_lower(&ix->f, v[0].base);
    bool before = (i > 0 && ix->v[i - 1].last >= v[0].base) || (f > 0 && ix->f.v[f - 1].last >= v[0].base);
    bool behind = (end < ix->n && ix->v[end].base <= v[n - 1].last) || (f < ix->f.n && ix->f.v[f].base <= v[n - 1].last);
    return before || behind ? VV_E_STATE : VV_OK;
}

int vv_index_exchange(struct vv_index *ix, int64_t from, int64_t to, const struct vv_extent *v, size_t n)
{
    int err = VV_OK;
    pthread_mutex_lock(&ix->commit);
    while (!err && from < to) { /* pages of the range come back: the commit holder may read the fences */
        size_t k = vv_fences_lower(&ix->f, from);
        if (k > 0 && ix->f.v[k - 1].last >= from) k--;
        if (k == ix->f.n || ix->f.v[k].base >= to) break;
        err = vv_ix_unpage(ix, ix->f.v[k].base);
    }
    pthread_mutex_lock(&ix->mu);
    size_t i = vv_ix_lower(ix, from), end = VV_MAX(i, vv_ix_lower(ix, to));
    if (!err) err = exchangeable(ix, i, end, v, n);
    if (!err && ix->n + n > ix->cap) {
        size_t cap = VV_MAX(ix->cap * 2, ix->n + n);
        struct vv_extent *more = realloc(ix->v, cap * sizeof *more);
        if (more) ix->v = more, ix->cap = cap;
        if (!more) err = VV_E_NOMEM;
    }
    if (!err) vv_ix_cut(ix, i, end);
    for (size_t k = 0; k < n && !err; k++) {
        struct vv_extent x = v[k];
        x.state = VV_EXTENT_REMOTE;
        x.local = NULL;
        err = vv_ix_put(ix, &x); /* there is room */
    }
    pthread_mutex_unlock(&ix->mu);
    vv_ix_commit_end(ix);
    return err;
}

/* Paths are used by holders of commit, and the page file's by holders of page_mu. */
int vv_index_move_dir(struct vv_index *ix, const char *to)
{
    char *dir = strdup(to), *journal = NULL, *pages = NULL;
    int err = dir && asprintf(&journal, "%s/varve.index", to) >= 0 ? VV_OK : VV_E_NOMEM;
    if (!err && asprintf(&pages, "%s/%s", to, strrchr(ix->pages.path, '/') + 1) < 0) err = VV_E_NOMEM;
    pthread_mutex_lock(&ix->commit);
    pthread_mutex_lock(&ix->pages.page_mu);
    if (!err) err = vv_fs_rename(ix->env, ix->dir, to);
    if (!err) {
        char *t;
        t = ix->dir, ix->dir = dir, dir = t;
        t = ix->journal.path, ix->journal.path = journal, journal = t;
        t = ix->pages.path, ix->pages.path = pages, pages = t;
    }
    pthread_mutex_unlock(&ix->pages.page_mu);
    pthread_mutex_unlock(&ix->commit);
    free(dir);
    free(journal);
    free(pages);
    return err;
}

void vv_index_dir_durable(struct vv_index *ix)
{
    pthread_mutex_lock(&ix->commit);
    ix->journal.dir_durable = true;
    pthread_mutex_unlock(&ix->commit);
}

int vv_index_sync(struct vv_index *ix)
{
    pthread_mutex_lock(&ix->commit);
    int err = checkpoint(ix);
    pthread_mutex_unlock(&ix->commit);
    return err;
}
