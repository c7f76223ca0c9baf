/* undelete.c — records below the log start come back, inside their grace.
 *
 * Order, each step durable, a crash after any of them leaves a log that is whole: a head that says the new log start (the manifest still lists
 * the tombstoned segments; a commit by the index's own log start takes it back), then the index: tombstoned -> remote, log start. What of the
 * tombstoned ones lies below the new log start is swept again by the housekeeper, with a new grace. Nothing that is DELETING, or below a
 * deleting_below that is in the bucket, comes back.
 *
 * Under the keeping mark, so that no commit and no deletion comes between. */
#include "tier_impl.h"
#include "varve/vlog.h"

#include <inttypes.h>

static void keep_begin(struct vv_tier_part *p)
{
    struct vv_tier *t = p->tier;
    pthread_mutex_lock(&t->mu);
    while (p->keeping) pthread_cond_wait(&t->idle, &t->mu);
    p->keeping = true;
    pthread_mutex_unlock(&t->mu);
}

static void keep_end(struct vv_tier_part *p)
{
    pthread_mutex_lock(&p->tier->mu);
    p->keeping = false;
    p->swept = false;
    pthread_cond_broadcast(&p->tier->idle);
    pthread_cond_signal(&p->tier->keep);
    pthread_mutex_unlock(&p->tier->mu);
}

/* Where the log can start again: the base of the oldest run of objects that reaches up to the log start. */
static int64_t earliest(struct vv_tier_part *p, int64_t log_start)
{
    struct vv_extent x;
    int64_t from = log_start, next = -1;
    for (int64_t at = 0; !vv_index_next(p->o.index, at, &x); at = x.last + 1) {
        bool kept = x.state != VV_EXTENT_DELETING && x.last >= p->manifest.deleting_below;
        vv_extent_release(p->o.index, &x);
        if (x.base >= log_start) break;
        if (kept && x.base != next) from = x.base;
        if (x.last >= log_start - 1) return kept ? VV_MAX(from, p->manifest.deleting_below) : log_start;
        next = kept ? x.last + 1 : -1;
    }
    return log_start;
}

static int revive(struct vv_tier_part *p, int64_t *log_start, struct vv_error *e)
{
    struct vv_manifest_where w;
    struct vv_manifest *m = &p->manifest;
    int64_t now = vv_index_log_start(p->o.index);
    vv_tier_where(p, &w);
    if (atomic_load(&p->tier->fenced)) return vv_error_set(e, VV_E_CONFLICT, "another writer has the bucket");
    m->loaded = false; /* what may be deleted is what the bucket says */
    int err = vv_tier_saw(p->tier, vv_manifest_load(m, &w, NULL, NULL, e));
    if (err) return err;
    int64_t to = earliest(p, now);
    *log_start = now;
    if (to >= now) return VV_OK;
    m->reviving = true;
    m->revive_to = to;
    err = vv_keeper_commit(p, 0, e);
    m->reviving = false;
    pthread_mutex_lock(&p->life);
    if (!err) err = vv_index_revive(p->o.index, to);
    pthread_mutex_unlock(&p->life);
    if (err) return err;
    *log_start = to;
    VLOG_INFO("%s-%d: undeleted, the log starts at %" PRId64 " again, was %" PRId64, p->topic, (int)p->o.partition, to, now);
    return VV_OK;
}

int vv_tier_part_undelete(struct vv_tier_part *p, int64_t *log_start, struct vv_error *e)
{
    keep_begin(p);
    int err = revive(p, log_start, e);
    keep_end(p);
    return err;
}
