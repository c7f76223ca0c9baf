/* replace.c — a run of remote extents becomes one: small objects merged, or compacted ones. Contract: varve/index.h.
 *
 *   intent journalled -> (the caller: new object, proven; manifest committed) -> one record: the run is the new extent
 *
 * One replacement at a time. A restart finds the intent and whoever replaces goes on with the same key, or gives it up. Pages across
 * the run's borders come back to memory first, so that the record applies to whole pages. */
#include "index_impl.h"
#include "varve/vlog.h"

static int record_extent_as(struct vv_index *ix, uint8_t type, const struct vv_extent *x)
{
    uint8_t rec[VV_EXTENT_BYTES];
    vv_extent_encode(x, rec);
    return vv_journal_append(&ix->journal, type, rec, sizeof rec);
}

/* mu held (or a replay). E_STATE: the run's borders are not extents' borders, or something in it is not remote. */
int vv_ix_replace_apply(struct vv_index *ix, const struct vv_extent *n)
{
    size_t i = vv_ix_lower(ix, n->base), to = i, k = vv_fences_lower(&ix->f, n->base), kto = k;
    if (i > 0 && ix->v[i - 1].last >= n->base) return VV_E_STATE;
    if (k > 0 && ix->f.v[k - 1].last >= n->base) return VV_E_STATE;
    for (; to < ix->n && ix->v[to].base <= n->last; to++)
        if (ix->v[to].last > n->last || ix->v[to].state < VV_EXTENT_REMOTE) return VV_E_STATE;
    for (; kto < ix->f.n && ix->f.v[kto].base <= n->last; kto++)
        if (ix->f.v[kto].last > n->last) return VV_E_STATE;
    vv_ix_cut(ix, i, to);
    vv_fences_remove(&ix->f, k, kto);
    if (kto > k) ix->slots_known = false;
    ix->intent = (struct vv_extent){0};
    return vv_ix_put(ix, n);
}

int vv_index_intend(struct vv_index *ix, const struct vv_extent *n)
{
    struct vv_extent next = n ? *n : (struct vv_extent){0};
    next.local = NULL;
    pthread_mutex_lock(&ix->commit);
    int err = record_extent_as(ix, REC_INTENT, &next);
    if (!err) {
        pthread_mutex_lock(&ix->mu);
        ix->intent = next;
        pthread_mutex_unlock(&ix->mu);
    }
    vv_ix_commit_end(ix);
    return err;
}

bool vv_index_intent(struct vv_index *ix, struct vv_extent *out)
{
    pthread_mutex_lock(&ix->mu);
    *out = ix->intent;
    pthread_mutex_unlock(&ix->mu);
    return out->nonce != 0;
}

int vv_index_replace(struct vv_index *ix, const struct vv_extent *n)
{
    struct vv_extent next = *n;
    VV_ASSERT(next.state >= VV_EXTENT_REMOTE && next.nonce && next.last >= next.base && next.last < INT64_MAX);
    next.local = NULL;
    pthread_mutex_lock(&ix->commit);
    int err = vv_ix_split_page(ix, next.base);
    if (!err) err = vv_ix_split_page(ix, next.last + 1);
    if (!err) { /* is it possible? A record that a restart could not apply must not be written */
        pthread_mutex_lock(&ix->mu);
        size_t i = vv_ix_lower(ix, next.base), k;
        int64_t end = vv_fences_hold(&ix->f, next.last, &k) ? ix->f.v[k].last : -1;
        if (i > 0 && ix->v[i - 1].last >= next.base) err = VV_E_STATE;
        for (; !err && i < ix->n && ix->v[i].base <= next.last; i++) {
            end = VV_MAX(end, ix->v[i].last);
            if (ix->v[i].state < VV_EXTENT_REMOTE) err = VV_E_STATE;
        }
        if (end != next.last) err = VV_E_STATE;
        pthread_mutex_unlock(&ix->mu);
    }
    if (!err) err = record_extent_as(ix, REC_REPLACE, &next);
    if (!err) {
        pthread_mutex_lock(&ix->mu);
        err = vv_ix_replace_apply(ix, &next);
        pthread_mutex_unlock(&ix->mu);
    }
    vv_ix_commit_end(ix);
    return err;
}
