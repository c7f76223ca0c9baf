/* keeper.c — housekeeping: log start to tombstones, manifests, expired tombstones, deleted topics, the claim's renewal.
 *
 * Deletion is a protocol; every step is durable before the next and can be repeated after a crash:
 *   1. log start moved (index, by the broker)            2. extents below: BOTH, REMOTE -> TOMBSTONED (index, with the time)
 *   3. the manifest's log_start follows (batched)        4. after the grace: a manifest revision raises deleting_below,
 *   5. TOMBSTONED -> DELETING (index)                    6. DELETE requests      7. extents removed from the index
 * Between 2 and 4 an operator can still bring the objects back; after 4 nobody can.
 * A deleted topic goes the same way by the root's list: named there, after the grace marked deleting, everything under its two prefixes
 * deleted, then struck off the list.
 * Graces are wall time: a clock that left monotonic time by more than an hour since the start stops deletion. */
#include "tier_impl.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdlib.h>

#define RENEW_US 20000000
#define CLOCK_JUMP_MS 3600000
#define DELETE_BATCH 256
#define DEADLINE_MS 60000
#define TOPIC_CHECK_US 1000000

static bool manifest_due(const struct vv_tier_part *p, int64_t now)
{
    const struct vv_tier_config *c = &p->tier->config;
    return p->dirty && (p->dirty >= (uint64_t)c->manifest_batch || now - p->dirty_since_us >= c->manifest_interval_ms * 1000);
}

bool vv_keeper_part_due(struct vv_tier_part *p, int64_t now)
{
    return !p->swept || p->delete_check_us <= now || manifest_due(p, now) || vv_gc_due(p, now);
}

bool vv_keeper_clock_sane(struct vv_tier *t)
{
    int64_t jump = vv_wall_ms(t->env) - vv_mono_ms(t->env) - t->clock_gap_ms;
    bool sane = jump < CLOCK_JUMP_MS && jump > -CLOCK_JUMP_MS;
    bool told = atomic_exchange(&t->clock_warned, !sane);
    if (!sane && !told)
        VLOG_ERROR("tier: the clock jumped by %" PRId64 " s: nothing is deleted from the bucket until it is back or the broker is "
                   "restarted", jump / 1000);
    return sane;
}

/* ---- log start -> tombstones ---- */

static int entomb(struct vv_tier_part *p, const struct vv_extent *x)
{
    struct vv_extent dead = {.dead_ms = vv_wall_ms(p->tier->env)};
    int err = vv_index_move(p->o.index, x->base, VV_EXTENT_TOMBSTONED, &dead);
    if (!err && x->local) err = vv_log_drop_local(p->o.log, x->local);
    return err;
}

/* What is only in the bucket goes by one record of the index, however much it is; local copies go one by one. */
static int sweep(struct vv_tier_part *p)
{
    int64_t start = vv_index_log_start(p->o.index);
    struct vv_extent x;
    bool any = false;
    pthread_mutex_lock(&p->life);
    int err = vv_index_find_state(p->o.index, VV_EXTENT_REMOTE, 0, &x);
    if (!err && x.last < start) {
        err = vv_index_sweep(p->o.index, start, VV_EXTENT_REMOTE, VV_EXTENT_TOMBSTONED, vv_wall_ms(p->tier->env));
        any = true;
    }
    if (err == VV_E_NOENT) err = VV_OK;
    while (!err && !(err = vv_index_find_state(p->o.index, VV_EXTENT_BOTH, 0, &x))) {
        bool below = x.last < start;
        if (below) err = entomb(p, &x);
        any = any || below;
        vv_extent_release(p->o.index, &x);
        if (!below) break;
    }
    pthread_mutex_unlock(&p->life);
    if (err && err != VV_E_NOENT) return err;
    if (any) vv_tier_part_dirty(p);
    if (any && p->o.on_progress) p->o.on_progress(p->o.ctx);
    return VV_OK;
}

/* ---- manifest ---- */

/* The first head of a life, and one that moves the log start, are not written on the word of a claim from up to twenty seconds ago:
 * who was overtaken meanwhile must not be the first to say what the log is. Later heads are conditional on the one before. */
static int claim_holds(struct vv_tier_part *p, struct vv_error *e)
{
    const struct vv_manifest *m = &p->manifest;
    if (m->loaded && m->exists && vv_index_log_start(p->o.index) <= m->log_start) return VV_OK;
    return vv_tier_saw(p->tier, vv_claim_renew(p->tier, e));
}

int vv_keeper_commit(struct vv_tier_part *p, int64_t deleting_below, struct vv_error *e)
{
    struct vv_tier *t = p->tier;
    struct vv_manifest_where w;
    int err = claim_holds(p, e);
    if (err) return err;
    pthread_mutex_lock(&t->mu);
    uint64_t taken = p->dirty;
    pthread_mutex_unlock(&t->mu);
    vv_tier_where(p, &w);
    err = vv_tier_saw(t, vv_manifest_commit(&p->manifest, &w, p->o.index, deleting_below, e));
    if (err) return err;
    vv_manifest_sweep(&p->manifest, &w);
    pthread_mutex_lock(&t->mu);
    p->dirty -= VV_MIN(p->dirty, taken);
    if (p->manifest.garbage_listed && !p->manifest.garbage_count) p->dirty++; /* a head that no longer names what is gone */
    if (p->dirty) p->dirty_since_us = vv_mono_us(t->env);
    pthread_mutex_unlock(&t->mu);
    return VV_OK;
}

/* ---- for who is not the keeper's thread ---- */

int vv_tier_keep_begin(struct vv_tier_part *p)
{
    struct vv_tier *t = p->tier;
    pthread_mutex_lock(&t->mu);
    while (p->keeping || (t->switching && !p->merging)) pthread_cond_wait(&t->idle, &t->mu);
    p->keeping = true;
    pthread_mutex_unlock(&t->mu);
    return atomic_load(&t->fenced) ? VV_E_CONFLICT : VV_OK;
}

void vv_tier_keep_end(struct vv_tier_part *p)
{
    pthread_mutex_lock(&p->tier->mu);
    p->keeping = false;
    pthread_cond_broadcast(&p->tier->idle);
    pthread_mutex_unlock(&p->tier->mu);
}

int vv_keeper_mend_head(struct vv_tier_part *p, struct vv_error *e)
{
    int err = vv_tier_keep_begin(p);
    p->manifest.loaded = false; /* the commit asks the root, and the bucket */
    if (!err) err = vv_keeper_commit(p, 0, e);
    vv_tier_keep_end(p);
    return err;
}

/* ---- expired tombstones ---- */

/* End of the leading run of dead extents whose grace is over; 0 when there is none. *next_ms: when the next one is due. */
static int64_t expired_end(struct vv_tier_part *p, int64_t grace_ms, int64_t *next_ms)
{
    struct vv_extent x;
    int64_t at = 0, end = 0, now = vv_wall_ms(p->tier->env);
    *next_ms = INT64_MAX;
    while (!vv_index_next(p->o.index, at, &x)) {
        vv_extent_release(p->o.index, &x);
        bool dead = x.state == VV_EXTENT_DELETING || (x.state == VV_EXTENT_TOMBSTONED && x.dead_ms + grace_ms <= now);
        if (!dead) {
            if (x.state == VV_EXTENT_TOMBSTONED) *next_ms = x.dead_ms + grace_ms;
            break;
        }
        if (x.state == VV_EXTENT_TOMBSTONED) end = x.last + 1;
        at = x.last + 1;
    }
    return end;
}

/* How many of so many objects may be deleted now: at most what a second allows. 0: none before *at_us. */
static size_t allowance(struct vv_tier *t, size_t most, int64_t *at_us)
{
    pthread_mutex_lock(&t->mu);
    int64_t rate = t->config.delete_objects_per_s;
    *at_us = t->delete_tokens_us;
    if (rate > 0) most = *at_us > vv_mono_us(t->env) ? 0 : (size_t)VV_MIN((int64_t)most, rate);
    pthread_mutex_unlock(&t->mu);
    return most;
}

static void pay_for(struct vv_tier *t, size_t n)
{
    pthread_mutex_lock(&t->mu);
    int64_t rate = t->config.delete_objects_per_s;
    if (rate > 0) t->delete_tokens_us = vv_mono_us(t->env) + (int64_t)((double)n * 1e6 / (double)rate);
    pthread_mutex_unlock(&t->mu);
}

struct batch { char keys[DELETE_BATCH][VV_KEY_MAX]; const char *refs[DELETE_BATCH]; int64_t bases[DELETE_BATCH]; int results[DELETE_BATCH]; size_t n, max; int64_t at_us; };

/* Deletes the objects of DELETING extents, a batch at a time. Returns how many, or an error. */
static int delete_objects(struct vv_tier_part *p, struct batch *b, struct vv_error *e)
{
    struct vv_tier *t = p->tier;
    struct vv_extent x;
    struct vv_segkey k;
    int64_t at = 0;
    bool whole = true; /* all DELETING ones below `at` */
    b->n = 0;
    b->max = allowance(t, DELETE_BATCH, &b->at_us);
    while (b->n < b->max && !vv_index_find_state(p->o.index, VV_EXTENT_DELETING, at, &x)) {
        vv_extent_release(p->o.index, &x);
        at = x.last + 1;
        whole = whole && x.nonce;
        if (!x.nonce) continue; /* never had an object: whoever condemned it removes it */
        vv_segkey_of(p->o.topic_id, p->o.partition, &x, &k);
        vv_segkey_format(&k, b->keys[b->n]);
        b->refs[b->n] = b->keys[b->n];
        b->bases[b->n++] = x.base;
    }
    if (!b->n) return 0;
    int err = vv_tier_saw(t, vv_objstore_delete_many(t->store, b->refs, b->n, DEADLINE_MS, b->results, e));
    pay_for(t, b->n);
    for (size_t i = 0; i < b->n; i++) {
        atomic_fetch_add(b->results[i] ? &t->delete_errors : &t->deletes, 1);
        whole = whole && !b->results[i];
    }
    int rerr = whole ? vv_index_drop(p->o.index, at) : VV_OK;
    for (size_t i = 0; i < b->n && !whole && !rerr; i++)
        if (!b->results[i]) rerr = vv_index_remove(p->o.index, b->bases[i]);
    if (rerr && !err) err = vv_error_set(e, rerr, "index: %s", vv_err_name(rerr));
    return err ? err : (int)b->n;
}

static void next_delete_check(struct vv_tier_part *p, int64_t next_ms, bool again)
{
    struct vv_tier *t = p->tier;
    int64_t now = vv_mono_us(t->env), wait_ms = next_ms == INT64_MAX ? -1 : VV_MAX(next_ms - vv_wall_ms(t->env), (int64_t)0);
    pthread_mutex_lock(&t->mu);
    if (again)
        p->delete_check_us = 0;
    else if (wait_ms < 0)
        p->delete_check_us = INT64_MAX;
    else
        p->delete_check_us = now + VV_MIN(wait_ms, (int64_t)60000) * 1000; /* a clock that jumps back is noticed within a minute */
    pthread_mutex_unlock(&t->mu);
}

static int expire(struct vv_tier_part *p, struct vv_error *e)
{
    struct vv_tier_config c;
    int64_t next_ms = 0;
    vv_tier_config_get(p->tier, &c);
    next_delete_check(p, INT64_MAX, false); /* set first: what comes in while we work sets it again */
    int64_t below = 0;
    if (vv_keeper_clock_sane(p->tier))
        below = expired_end(p, c.delete_grace_ms, &next_ms);
    else
        next_ms = vv_wall_ms(p->tier->env) + 60000;
    int err = VV_OK;
    if (below) err = vv_keeper_commit(p, below, e);
    if (!err && below) err = vv_index_sweep(p->o.index, below, VV_EXTENT_TOMBSTONED, VV_EXTENT_DELETING, 0);
    struct batch *b = err ? NULL : malloc(sizeof *b);
    if (!err && !b) err = VV_E_NOMEM;
    int n = err ? err : delete_objects(p, b, e);
    bool more = n > 0 && (size_t)n == b->max;
    int64_t wait_us = !err && !b->max ? VV_MAX(b->at_us - vv_mono_us(p->tier->env), (int64_t)0) : -1;
    free(b);
    if (n < 0)
        next_delete_check(p, 0, true);
    else if (wait_us >= 0) /* the rate limit: look again when it allows the next one */
        next_delete_check(p, vv_wall_ms(p->tier->env) + wait_us / 1000 + 1, false);
    else if (more || next_ms != INT64_MAX)
        next_delete_check(p, next_ms, more);
    return n;
}

/* ---- the steps ---- */

int vv_keeper_part_step(struct vv_tier_part *p, bool flush)
{
    struct vv_tier *t = p->tier;
    struct vv_error e = {0};
    int64_t now = vv_mono_us(t->env);
    pthread_mutex_lock(&t->mu);
    bool unswept = !p->swept, check = p->delete_check_us <= now && !flush, gc = vv_gc_due(p, now);
    bool due = manifest_due(p, now);
    p->swept = true;
    pthread_mutex_unlock(&t->mu);
    int err = VV_OK;
    if (unswept) {
        err = sweep(p);
        pthread_mutex_lock(&t->mu);
        if (err) p->swept = false;
        p->delete_check_us = 0;
        pthread_mutex_unlock(&t->mu);
    } else if (check) {
        err = expire(p, &e);
    } else if (flush || due) {
        err = vv_keeper_commit(p, 0, &e);
    } else if (gc) {
        err = vv_gc_step(p, &e);
    }
    if (unswept && !err && flush) err = vv_keeper_commit(p, 0, &e);
    if (err < 0) VLOG_WARN("%s-%d: housekeeping in the bucket: %s", p->topic, (int)p->o.partition, e.text[0] ? e.text : vv_err_name(err));
    return err < 0 ? err : 1;
}

/* Deletes everything under a prefix, or with `paced` what the rate limit allows: then *paced says whether that was all.
 * LIST may lag behind, so an empty answer ends it, never a count. */
static int delete_prefix(struct vv_tier *t, const char *prefix, bool *paced, struct vv_error *e)
{
    for (;;) {
        struct vv_objlist l = {0};
        int64_t at_us;
        size_t most = paced ? allowance(t, VV_OBJ_LIST_MAX, &at_us) : VV_OBJ_LIST_MAX;
        if (!most) {
            *paced = false;
            return VV_OK;
        }
        int err = vv_tier_saw(t, vv_objstore_list(t->store, prefix, NULL, most, DEADLINE_MS, &l, e));
        size_t n = l.count;
        const char **keys = n ? calloc(n, sizeof *keys) : NULL;
        int *results = n ? calloc(n, sizeof *results) : NULL;
        if (!err && n && (!keys || !results)) err = VV_E_NOMEM;
        for (size_t i = 0; i < n && !err; i++) keys[i] = l.v[i].key;
        if (!err && n) err = vv_tier_saw(t, vv_objstore_delete_many(t->store, keys, n, DEADLINE_MS, results, e));
        if (!err) atomic_fetch_add(&t->deletes, n);
        if (n && paced) pay_for(t, n);
        free(keys);
        free(results);
        vv_objlist_release(&l);
        if (err || !n) return err;
        if (vv_tier_overdue(t)) return VV_E_SHUTDOWN;
    }
}

int vv_tier_delete_prefix(struct vv_tier *t, const char *prefix, struct vv_error *e)
{
    return delete_prefix(t, prefix, NULL, e);
}

/* What the rate limit leaves over is deleted by later steps: each of them finds the topic on the list again. */
static int delete_topic(struct vv_tier *t, const struct vv_deleted_topic *d, struct vv_error *e)
{
    char prefix[VV_KEY_MAX];
    int err = vv_claim_mark_deleting(t, d->id, e);
    vv_key_topic_prefix(d->id, prefix);
    bool all = true;
    if (!err) err = delete_prefix(t, prefix, &all, e);
    vv_key_manifest_prefix(d->id, prefix);
    if (!err && all) err = delete_prefix(t, prefix, &all, e);
    if (err || !all) return err;
    if (!err) err = vv_claim_drop_deleted(t, d->id, e);
    if (!err) VLOG_INFO("tier: the objects of deleted topic %s are gone", d->name);
    return err;
}

static bool next_deleted(struct vv_tier *t, struct vv_deleted_topic *out)
{
    struct vv_tier_config c;
    bool found = false;
    vv_tier_config_get(t, &c);
    int64_t now = vv_wall_ms(t->env);
    if (!vv_keeper_clock_sane(t)) return false;
    pthread_mutex_lock(&t->claim_mu);
    for (size_t i = 0; i < t->claim.deleted_count && !found; i++) {
        *out = t->claim.deleted[i];
        found = out->deleting || out->deleted_ms + c.delete_grace_ms <= now;
    }
    pthread_mutex_unlock(&t->claim_mu);
    return found;
}

static bool topic_open(struct vv_tier *t, struct vv_uuid id)
{
    bool open = false;
    pthread_mutex_lock(&t->mu);
    for (size_t i = 0; i < t->part_count && !open; i++) open = vv_uuid_eq(t->parts[i]->o.topic_id, id);
    pthread_mutex_unlock(&t->mu);
    return open;
}

int vv_keeper_tier_step(struct vv_tier *t)
{
    struct vv_error e = {0};
    struct vv_deleted_topic d;
    int err = 0;
    int64_t now = vv_mono_us(t->env);
    pthread_mutex_lock(&t->claim_mu);
    bool renew = now - t->claim.renewed_mono_us >= RENEW_US;
    pthread_mutex_unlock(&t->claim_mu);
    pthread_mutex_lock(&t->mu);
    t->tier_after_us = now + TOPIC_CHECK_US;
    pthread_mutex_unlock(&t->mu);
    int did = 1;
    if (!t->stale_aborted) { /* uploads in parts that an earlier life began: we are the only writer now */
        size_t aborted = 0;
        err = vv_tier_saw(t, vv_objstore_abort_stale(t->store, "v1/", t->claim.claimed_ms, DEADLINE_MS, &aborted, &e));
        if (!err) err = vv_tier_delete_prefix(t, "v1/probe-", &e); /* of an opening that a crash cut short */
        if (!err) t->stale_aborted = true;
        if (aborted) VLOG_INFO("tier: aborted %zu unfinished uploads of earlier lives", aborted);
    } else if (renew) {
        err = vv_claim_renew(t, &e);
    } else if (vv_gc_uploads_due(t, now)) {
        err = vv_gc_uploads(t, &e);
    } else if (next_deleted(t, &d) && !topic_open(t, d.id)) {
        err = delete_topic(t, &d, &e);
    } else {
        did = 0;
    }
    if (err) VLOG_WARN("tier: %s", e.text[0] ? e.text : vv_err_name(err));
    return err ? err : did;
}
