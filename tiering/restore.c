/* restore.c — an empty directory gets a partition's history back from the bucket.
 *
 * The manifest is the truth; what continues it belongs to the log too (follow.h). Without any manifest a log begins at offset 0.
 * Nothing is downloaded but manifests and footers. */
#include "follow.h"
#include "tier_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct restore {
    struct vv_tier *t;
    struct vv_manifest_where w;
    struct vv_index *index;
    struct vv_extent newest; /* state REMOTE; base -1 = none */
    int64_t next;            /* expected base */
    int64_t log_start;
    uint64_t epoch_floor;    /* writer epoch of the manifest */
    struct vv_error *e;
};

static int adopt(struct restore *r, const struct vv_extent *x)
{
    int err = vv_index_adopt(r->index, x);
    if (err)
        return vv_error_set(r->e, err == VV_E_STATE ? VV_E_CORRUPT : err,
                            "the manifest's segment %" PRId64 "..%" PRId64 " overlaps its predecessor, or the index is not empty",
                            x->base, x->last);
    r->newest = *x;
    r->next = x->last + 1;
    return VV_OK;
}

static int on_segment(void *ctx, const struct vv_extent *x)
{
    return adopt(ctx, x);
}

static int roll_forward(struct restore *r)
{
    struct vv_follow f = {.w = &r->w, .who = "restore", .each = on_segment, .ctx = r, .after = r->newest.base, .e = r->e,
                          .next = r->next, .log_start = r->log_start, .epoch_floor = r->epoch_floor};
    int err = vv_tier_saw(r->t, vv_follow_run(&f));
    r->next = f.next;
    r->log_start = f.log_start;
    return err;
}

static int newest_footer(struct restore *r, struct vv_tier_restored *out)
{
    struct vv_footer f = {0};
    struct vv_segkey k;
    uint64_t object_bytes;
    if (r->newest.base < 0) return VV_OK;
    vv_segkey_of(r->w.topic_id, r->w.partition, &r->newest, &k);
    int err = vv_tier_saw(r->t, vv_footer_get(r->t->store, &k, r->t->id.cluster_id,
                                              (size_t)(r->newest.object_bytes - vv_extent_footer_at(&r->newest)), &f, &object_bytes, r->e));
    if (err) return err;
    r->log_start = VV_MAX(r->log_start, f.log_start);
    out->epochs = f.epochs;
    out->epoch_count = f.epoch_count;
    out->snapshot = f.snapshot;
    out->snapshot_n = f.snapshot_n;
    f.epochs = NULL;
    f.snapshot = NULL;
    vv_footer_release(&f);
    return VV_OK;
}

static bool is_deleted(struct vv_tier *t, struct vv_uuid id)
{
    bool found = false;
    pthread_mutex_lock(&t->claim_mu);
    for (size_t i = 0; i < t->claim.deleted_count; i++) found = found || vv_uuid_eq(t->claim.deleted[i].id, id);
    pthread_mutex_unlock(&t->claim_mu);
    return found;
}

int vv_tier_restore_part(struct vv_tier *t, struct vv_uuid topic_id, int32_t partition, struct vv_index *index,
                         struct vv_tier_restored *out, struct vv_error *e)
{
    struct restore r = {.t = t, .index = index, .newest = {.base = -1}, .e = e};
    struct vv_manifest m = {0};
    *out = (struct vv_tier_restored){0};
    r.w = (struct vv_manifest_where){.env = t->env, .store = t->store, .cluster_id = t->id.cluster_id, .topic = "",
                                     .topic_id = topic_id, .partition = partition, .writer_epoch = t->claim.writer_epoch};
    if (is_deleted(t, topic_id)) return vv_error_set(e, VV_E_NOENT, "the topic was deleted");
    int err = vv_tier_saw(t, vv_manifest_walk(&m, &r.w, on_segment, &r, e));
    if (!err) {
        r.next = VV_MAX(r.next, m.next_offset);
        r.log_start = m.log_start;
        r.epoch_floor = m.writer_epoch;
        err = roll_forward(&r);
    }
    if (!err) err = newest_footer(&r, out);
    if (!err) err = vv_index_set_log_start(index, r.log_start);
    if (!err) err = vv_index_sync(index);
    out->log_start = r.log_start;
    out->next_offset = VV_MAX(r.next, r.log_start);
    vv_manifest_release(&m);
    if (err) {
        free(out->epochs);
        free(out->snapshot);
        *out = (struct vv_tier_restored){0};
    }
    return err;
}
