/* index.c — the unified index of one partition. Contract, states and thread rules: varve/index.h.
 *
 * Design: a sorted array of resident extents, kept in step with an append-only journal.
 * Two mutexes: `commit` orders durable changes (held across journal I/O), `mu` guards memory and is never held
 * across I/O. A durable change is: take commit, check under mu, journal it, apply it under mu: readers only
 * ever see what the disk knows. Order: commit -> mu. add_open and reopen take mu only: OPEN extents are not journalled,
 * the segment file itself is their record.
 *
 * Invariants: v is sorted by base; extents do not overlap; at most the last one is OPEN. */
#include "index_impl.h"
#include "varve/vlog.h"

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
    for (size_t i = from; i < to; i++) local_unref(ix, ix->v[i].local);
    memmove(&ix->v[from], &ix->v[to], (ix->n - to) * sizeof *ix->v);
    ix->n -= to - from;
}

/* ---- journal records ---- */

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
    case REC_TRUNCATE:
        if (n != 8) return VV_E_CORRUPT;
        vv_ix_cut(ix, vv_ix_lower(ix, at), ix->n);
        return VV_OK;
    default:
        return VV_E_CORRUPT;
    }
}

/* Rewrites the journal as what is live now. commit held. */
static int checkpoint(struct vv_index *ix)
{
    struct vv_journal_image im = {0};
    uint8_t rec[VV_EXTENT_BYTES];
    pthread_mutex_lock(&ix->mu);
    vv_put64(rec, (uint64_t)ix->log_start);
    vv_journal_image_add(&im, REC_LOG_START, rec, 8);
    for (size_t i = 0; i < ix->n; i++) {
        if (ix->v[i].state == VV_EXTENT_OPEN) continue;
        vv_extent_encode(&ix->v[i], rec);
        vv_journal_image_add(&im, REC_EXTENT, rec, sizeof rec);
    }
    pthread_mutex_unlock(&ix->mu);
    int err = vv_journal_replace(&ix->journal, &im);
    if (!err) ix->journal_live = ix->journal.size;
    return err;
}

/* Ends a durable change: commit is given back, after a rewrite when the journal has grown far past what is live. */
static void commit_end(struct vv_index *ix)
{
    if (!ix->journal.offline && ix->journal.size > 64 * 1024 && ix->journal.size > 4 * ix->journal_live) {
        int err = checkpoint(ix); /* the change is durable already; a failed rewrite takes later ones offline */
        if (err) VLOG_ERROR("%s: rewriting the index journal failed: %s", ix->dir, vv_err_name(err));
    }
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
    if (!err) err = vv_fs_mkdirs(env, dir);
    if (err) {
        vv_error_set(e, err, "cannot use directory %s: %s", dir, vv_err_name(err));
        goto out;
    }
    err = vv_journal_open(env, path, on_record, ix, &ix->journal, e);
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

/* First extent from the one that holds (or follows) offset on for which want() holds. */
struct want {
    int64_t ts;
    enum vv_extent_state state;
};
typedef bool (*want_fn)(const struct vv_extent *x, const struct want *w);

static int walk(struct vv_index *ix, int64_t offset, want_fn want, const struct want *w, struct vv_extent *out)
{
    int err = VV_E_NOENT;
    pthread_mutex_lock(&ix->mu);
    size_t i = vv_ix_lower(ix, offset);
    if (i > 0 && ix->v[i - 1].last >= offset) i--;
    for (; i < ix->n && err; i++)
        if (want(&ix->v[i], w)) err = hand_out(ix, &ix->v[i], out);
    pthread_mutex_unlock(&ix->mu);
    return err;
}

static bool want_live(const struct vv_extent *x, const struct want *w)
{
    (void)w;
    return vv_extent_is_live(x);
}

static bool want_time(const struct vv_extent *x, const struct want *w)
{
    return vv_extent_is_live(x) && time_bound(x) >= w->ts;
}

static bool want_state(const struct vv_extent *x, const struct want *w)
{
    return x->state == w->state;
}

int vv_index_find(struct vv_index *ix, int64_t offset, struct vv_extent *out)
{
    return walk(ix, offset, want_live, &(struct want){0}, out);
}

int vv_index_find_time(struct vv_index *ix, int64_t ts, int64_t from_offset, struct vv_extent *out)
{
    return walk(ix, from_offset, want_time, &(struct want){.ts = ts}, out);
}

int vv_index_find_state(struct vv_index *ix, enum vv_extent_state state, int64_t base, struct vv_extent *out)
{
    return walk(ix, base, want_state, &(struct want){.state = state}, out);
}

int vv_index_next(struct vv_index *ix, int64_t base, struct vv_extent *out)
{
    int err = VV_E_NOENT;
    pthread_mutex_lock(&ix->mu);
    size_t i = vv_ix_lower(ix, base);
    if (i < ix->n) err = hand_out(ix, &ix->v[i], out);
    pthread_mutex_unlock(&ix->mu);
    return err;
}

int vv_index_find_max_ts(struct vv_index *ix, struct vv_extent *out)
{
    int err = VV_E_NOENT;
    const struct vv_extent *best = NULL;
    pthread_mutex_lock(&ix->mu);
    for (size_t i = 0; i < ix->n; i++) /* the first of equals; OPEN counts with what it is known to hold */
        if (vv_extent_is_live(&ix->v[i]) && (!best || ix->v[i].max_ts > best->max_ts)) best = &ix->v[i];
    if (best) err = hand_out(ix, best, out);
    pthread_mutex_unlock(&ix->mu);
    return err;
}

void vv_index_summary(struct vv_index *ix, struct vv_index_summary *out)
{
    *out = (struct vv_index_summary){.local_start = -1, .remote_end = -1};
    pthread_mutex_lock(&ix->mu);
    out->log_start = ix->log_start;
    for (size_t i = 0; i < ix->n; i++) {
        const struct vv_extent *x = &ix->v[i];
        if (!vv_extent_is_live(x)) continue;
        out->extents++;
        if (vv_extent_is_remote(x)) {
            out->remote_extents++;
            out->remote_bytes += x->bytes;
            out->remote_end = x->last + 1;
        }
        if (x->state == VV_EXTENT_SEALED || x->state == VV_EXTENT_UPLOADING) {
            out->pending_extents++;
            out->pending_bytes += x->bytes;
        }
        if (x->state != VV_EXTENT_REMOTE) {
            out->local_extents++;
            out->local_bytes += x->bytes;
            if (out->local_start < 0) out->local_start = x->base;
        }
    }
    if (out->local_start < 0) out->local_start = VV_MAX(out->remote_end, out->log_start);
    pthread_mutex_unlock(&ix->mu);
}

/* ---- the log's calls ---- */

int vv_index_attach(struct vv_index *ix, const struct vv_extent *x, enum vv_extent_state *state)
{
    int err = VV_OK;
    pthread_mutex_lock(&ix->mu);
    struct vv_extent *have = vv_ix_at(ix, x->base);
    if (!have) {
        struct vv_extent fresh = *x;
        fresh.state = VV_EXTENT_SEALED;
        err = vv_ix_put(ix, &fresh);
        if (!err) local_ref(ix, fresh.local);
        *state = fresh.state;
        goto out;
    }
    *state = have->state;
    if (have->state == VV_EXTENT_REMOTE || !vv_extent_is_live(have)) goto out;
    if (have->state == VV_EXTENT_SEALED) { /* it may have been reopened and have grown since: the file knows better */
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
    for (size_t i = 0; i < ix->n; i++) {
        if (!ix->v[i].local && settle_missing(ix, &ix->v[i], &err, e)) continue;
        ix->v[to++] = ix->v[i];
    }
    ix->n = to;
    pthread_mutex_unlock(&ix->mu);
    int cerr = checkpoint(ix);
    pthread_mutex_unlock(&ix->commit);
    if (cerr) return vv_error_set(e, cerr, "%s: cannot write the index journal: %s", ix->dir, vv_err_name(cerr));
    return err;
}

int vv_index_add_open(struct vv_index *ix, int64_t base, int32_t epoch, struct vv_segment *local)
{
    pthread_mutex_lock(&ix->mu);
    VV_ASSERT(!ix->n || ix->v[ix->n - 1].last < base);
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
    *x = *next;
    x->local = drop_local ? NULL : local;
    if (drop_local) dropped = local;
    pthread_mutex_unlock(&ix->mu);
    local_unref(ix, dropped);
    return VV_OK;
}

static int peek(struct vv_index *ix, int64_t base, struct vv_extent *out)
{
    pthread_mutex_lock(&ix->mu);
    struct vv_extent *x = vv_ix_at(ix, base);
    if (x) *out = *x;
    pthread_mutex_unlock(&ix->mu);
    return x ? VV_OK : VV_E_NOENT;
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
    commit_end(ix);
    return err;
}

int vv_index_truncate(struct vv_index *ix, int64_t offset)
{
    pthread_mutex_lock(&ix->commit);
    pthread_mutex_lock(&ix->mu);
    for (size_t i = vv_ix_lower(ix, offset); i < ix->n; i++)
        VV_ASSERT(ix->v[i].state == VV_EXTENT_OPEN || ix->v[i].state == VV_EXTENT_SEALED);
    pthread_mutex_unlock(&ix->mu);
    int err = record_offset(ix, REC_TRUNCATE, offset);
    pthread_mutex_lock(&ix->mu);
    if (!err) vv_ix_cut(ix, vv_ix_lower(ix, offset), ix->n);
    pthread_mutex_unlock(&ix->mu);
    commit_end(ix);
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
    }
    if (x && (to == VV_EXTENT_TOMBSTONED || to == VV_EXTENT_DELETING) && x->dead_ms) next.dead_ms = x->dead_ms;
    if (next.state == VV_EXTENT_OPEN) next.last = VV_MAX(base, ix->log_start); /* only for DELETING: its end does not matter */
    next.state = to;
    err = commit_extent(ix, &next, to == VV_EXTENT_REMOTE || !vv_extent_is_live(&next));
out:
    commit_end(ix);
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
    commit_end(ix);
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
    commit_end(ix);
    return err;
}

int vv_index_adopt(struct vv_index *ix, const struct vv_extent *x)
{
    struct vv_extent next = *x;
    next.state = VV_EXTENT_REMOTE;
    next.local = NULL;
    pthread_mutex_lock(&ix->mu);
    int err = VV_E_STATE;
    if (x->base >= 0 && x->last >= x->base && (!ix->n || ix->v[ix->n - 1].last < x->base)) err = vv_ix_put(ix, &next);
    pthread_mutex_unlock(&ix->mu);
    return err;
}

int vv_index_sync(struct vv_index *ix)
{
    pthread_mutex_lock(&ix->commit);
    int err = checkpoint(ix);
    pthread_mutex_unlock(&ix->commit);
    return err;
}
