/* replica.c — one look at a partition of somebody else's bucket: the index becomes what the bucket says now.
 *
 * The rules are a restore's (restore.c): the manifest is the truth, what continues it belongs to the log (follow.h). What differs is that
 * it goes on: a HEAD says whether the manifest is another one; then its newest segments, and the pages not yet seen, are compared with the
 * index, and a range of which the bucket says something else is replaced in one step (a reader never finds a hole between). Then one LIST
 * behind the end. A manifest of another writer epoch has the last word on what was rolled forward: that is looked at anew, and what the new
 * writer's log does not have leaves the index.
 * State (vv_replica_part, the manifest) changes only when the whole look succeeded; the index may be ahead of it then, which the next look
 * finds as it is. Requests: HEAD and LIST when nothing happened; a GET of the head when it changed, of each new page (256 segments), of the
 * footers rolled forward and of the newest one. Blocking; one thread per part, nobody else uses a replica's manifest. */
#include "follow.h"
#include "tier_impl.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define ASK_MS 5000

struct look {
    struct vv_tier_part *p;
    struct vv_manifest_where w;
    struct vv_manifest now;
    bool changed, again;      /* the head is another one; what was rolled forward is looked at anew */
    int64_t next;
    int64_t log_start;        /* of the manifest, of what was rolled forward, or what is known if neither says more */
    int64_t expect;           /* where the manifest's next segment must begin; -1: not known */
    uint64_t writer_epoch;
    bool hole;
    int64_t told_start;       /* vv_replica_part's */
    struct vv_extent newest;  /* the last one met; base -1: none */
    int64_t from;             /* where the difference v begins */
    struct vv_extent *v;      /* differs from the index, and does not end where one of the index's ends */
    size_t n, cap;
    struct vv_extent *head;   /* the head's own list */
    size_t head_n, head_cap;
    struct vv_error *e;
};

static int push(struct vv_extent **v, size_t *n, size_t *cap, const struct vv_extent *x)
{
    if (*n == *cap) {
        size_t more = *cap ? *cap * 2 : 64;
        struct vv_extent *to = realloc(*v, more * sizeof *to);
        if (!to) return VV_E_NOMEM;
        *v = to;
        *cap = more;
    }
    (*v)[(*n)++] = *x;
    return VV_OK;
}

static bool same(const struct vv_extent *a, const struct vv_extent *b)
{
    return a->base == b->base && a->last == b->last && a->nonce == b->nonce && a->generation == b->generation && a->epoch == b->epoch &&
           a->object_bytes == b->object_bytes;
}

/* The extent of the index that holds the offset. E_NOENT: none does. */
static int holder(struct look *l, int64_t offset, struct vv_extent *x)
{
    int err = vv_index_find(l->p->o.index, offset, x);
    if (!err) vv_extent_release(l->p->o.index, x);
    return !err && x->base > offset ? VV_E_NOENT : err;
}

static int flush(struct look *l)
{
    struct vv_extent x;
    if (!l->n) return VV_OK;
    int64_t to = l->v[l->n - 1].last + 1;
    int err = holder(l, to - 1, &x);
    if (!err) to = x.last + 1;
    if (!err || err == VV_E_NOENT) err = vv_index_exchange(l->p->o.index, l->from, to, l->v, l->n);
    if (err == VV_E_STATE)
        err = vv_error_set(l->e, VV_E_CORRUPT, "the segments at %" PRId64 "..%" PRId64 " overlap their neighbours", l->from, to - 1);
    l->n = 0;
    return err;
}

/* A segment that belongs to the log; ascending. */
static int take(void *ctx, const struct vv_extent *x)
{
    struct look *l = ctx;
    struct vv_extent have;
    l->newest = *x;
    if (x->last < l->log_start) return VV_OK; /* dead, and kept for its grace only */
    if (!l->n) {
        int err = holder(l, x->base, &have);
        if (err && err != VV_E_NOENT) return err;
        if (!err && same(&have, x)) return VV_OK;
        l->from = err ? x->base : have.base;
    }
    int err = push(&l->v, &l->n, &l->cap, x);
    if (err) return err;
    err = holder(l, x->last, &have);
    if (err && err != VV_E_NOENT) return err;
    return err || have.last == x->last ? flush(l) : VV_OK;
}

/* Above the log start a manifest's segments tile: a hole there means that somebody took one out. */
static int take_named(void *ctx, const struct vv_extent *x)
{
    struct look *l = ctx;
    if (l->expect >= 0 && x->base > VV_MAX(l->expect, l->log_start))
        return vv_error_set(l->e, VV_E_CORRUPT, "its manifest names no segment for offsets %" PRId64 "..%" PRId64,
                            VV_MAX(l->expect, l->log_start), x->base - 1);
    l->expect = x->last + 1;
    return take(l, x);
}

static int keep(void *ctx, const struct vv_extent *x)
{
    struct look *l = ctx;
    return push(&l->head, &l->head_n, &l->head_cap, x);
}

static int see_head(struct look *l)
{
    const struct vv_manifest *was = &l->p->manifest;
    struct vv_objinfo info = {0};
    char key[VV_KEY_MAX];
    vv_key_head(l->p->o.topic_id, l->p->o.partition, key);
    int err = vv_objstore_head(l->w.store, key, ASK_MS, &info, l->e);
    if (err == VV_E_NOENT && was->exists)
        return vv_error_set(l->e, err, "its manifest %s is gone from the bucket: what was known of it stays", key);
    if (err && err != VV_E_NOENT) return err;
    l->changed = !was->loaded || (!err && (!*info.etag || strcmp(info.etag, was->etag) != 0));
    return VV_OK;
}

/* Pages are named by their content: the lowest offset of which a page says what no page said before; INT64_MAX: none does. */
static int64_t new_pages(const struct vv_manifest *was, const struct vv_manifest *now)
{
    int64_t from = INT64_MAX;
    for (int k = 1; k < VV_MANIFEST_LEVELS; k++) {
        for (size_t i = 0; i < now->level[k].n; i++) {
            const struct vv_pageref *r = &now->level[k].v[i];
            bool known = false;
            for (size_t j = 0; j < was->level[k].n && !known; j++) known = !strcmp(was->level[k].v[j].sha256, r->sha256);
            if (!known) from = VV_MIN(from, r->base);
        }
    }
    return from;
}

static int take_manifest(struct look *l)
{
    const struct vv_manifest *was = &l->p->manifest;
    int err = vv_manifest_load(&l->now, &l->w, keep, l, l->e);
    if (err) return err;
    l->again = !was->loaded || l->now.writer_epoch != was->writer_epoch;
    l->log_start = l->now.log_start; /* it may have gone back: records were undeleted */
    int64_t from = new_pages(was, &l->now), known = vv_index_log_start(l->p->o.index);
    if (!was->loaded || l->log_start < known) from = 0;
    from = VV_MAX(from, l->log_start);
    l->expect = from == INT64_MAX ? l->now.folded_end : from == l->log_start ? from : -1;
    if (from != INT64_MAX) err = vv_manifest_pages(&l->now, &l->w, from, INT64_MIN, take_named, l, l->e);
    for (size_t i = 0; i < l->head_n && !err; i++) err = take_named(l, &l->head[i]);
    if (!err) err = flush(l);
    l->next = l->again ? l->now.next_offset : VV_MAX(l->next, l->now.next_offset);
    l->writer_epoch = l->again ? l->now.writer_epoch : VV_MAX(l->writer_epoch, l->now.writer_epoch);
    if (l->again || l->next <= l->now.next_offset) l->told_start = 0; /* the manifest knew what they said */
    l->log_start = VV_MAX(l->log_start, l->told_start);
    return err;
}

static int roll_forward(struct look *l)
{
    int64_t after = l->again ? l->newest.base : VV_MAX(l->newest.base, l->p->replica.newest.base);
    struct vv_follow f = {.w = &l->w, .who = l->p->topic, .each = take, .ctx = l, .after = after, .e = l->e, .next = l->next,
                          .log_start = l->log_start, .epoch_floor = l->writer_epoch};
    int err = vv_follow_run(&f);
    if (!err) err = flush(l);
    l->next = f.next;
    if (f.log_start > l->log_start) l->log_start = l->told_start = f.log_start;
    l->writer_epoch = f.epoch_floor;
    l->hole = f.hole;
    if (!err && l->again) err = vv_index_exchange(l->p->o.index, l->next, VV_REPLICA_LOG_BASE, NULL, 0);
    return err;
}

/* Leader epochs, and the log start as of its upload. */
static int see_newest(struct look *l, struct vv_tier_followed *out)
{
    const struct vv_extent *was = &l->p->replica.newest, *x = &l->newest;
    struct vv_footer f = {0};
    struct vv_segkey k;
    uint64_t object_bytes;
    int64_t end = l->changed ? l->now.next_offset : l->p->manifest.next_offset;
    if (x->base < 0 || (was->base >= 0 && same(x, was))) return VV_OK;
    vv_segkey_of(l->p->o.topic_id, l->p->o.partition, x, &k);
    int err = vv_footer_get(l->w.store, &k, l->p->tier->clusters, (size_t)(x->object_bytes - vv_extent_footer_at(x)), &f, &object_bytes, l->e);
    if (err) return err;
    if (x->last >= end && f.log_start > l->log_start) l->log_start = l->told_start = f.log_start; /* else the manifest knew */
    out->grown = true;
    out->epochs = f.epochs;
    out->epoch_count = f.epoch_count;
    f.epochs = NULL;
    vv_footer_release(&f);
    return VV_OK;
}

/* Clients first hear of the new start; then what lies below is forgotten. Undeleted records are in the index already. */
static int move_start(struct look *l)
{
    struct vv_index *ix = l->p->o.index;
    if (l->log_start < vv_index_log_start(ix)) return vv_index_revive(ix, l->log_start);
    if (l->log_start == vv_index_log_start(ix)) return VV_OK;
    int err = vv_index_set_log_start(ix, l->log_start);
    if (!err) err = vv_index_sweep(ix, l->log_start, VV_EXTENT_REMOTE, VV_EXTENT_TOMBSTONED, vv_wall_ms(l->p->tier->env));
    if (!err) err = vv_index_sweep(ix, l->log_start, VV_EXTENT_TOMBSTONED, VV_EXTENT_DELETING, 0);
    return err ? err : vv_index_drop(ix, l->log_start);
}

static void remember(struct look *l)
{
    struct vv_tier_part *p = l->p;
    if (l->changed) {
        vv_manifest_release(&p->manifest);
        p->manifest = l->now;
        l->now = (struct vv_manifest){0};
    }
    p->replica.next = l->next;
    p->replica.writer_epoch = l->writer_epoch;
    p->replica.told_start = l->told_start;
    p->replica.hole = l->hole;
    if (l->newest.base >= 0) p->replica.newest = l->newest;
}

int vv_tier_follow_part(struct vv_tier_part *p, struct vv_tier_followed *out, struct vv_error *e)
{
    struct vv_tier *t = p->tier;
    struct look l = {.p = p, .next = p->replica.next, .writer_epoch = p->replica.writer_epoch, .hole = p->replica.hole,
                     .told_start = p->replica.told_start, .expect = -1, .log_start = vv_index_log_start(p->o.index), .newest = {.base = -1}, .e = e};
    *out = (struct vv_tier_followed){0};
    VV_ASSERT(t->replica);
    vv_tier_where(p, &l.w);
    int err = see_head(&l);
    if (!err && l.changed) err = take_manifest(&l);
    if (!err && (l.changed || !l.hole)) err = roll_forward(&l);
    if (!err) err = see_newest(&l, out);
    if (!err) err = move_start(&l);
    if (!err) remember(&l);
    vv_tier_saw(t, err);
    out->log_start = l.log_start;
    out->end = VV_MAX(l.next, l.log_start);
    vv_manifest_release(&l.now);
    free(l.head);
    free(l.v);
    if (!err) return VV_OK;
    free(out->epochs);
    *out = (struct vv_tier_followed){0};
    return err;
}
