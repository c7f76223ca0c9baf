/* restore.c — an empty directory gets a partition's history back from the bucket.
 *
 * The manifest is the truth; objects after its last entry belong to the log if they continue it without a hole (uploads that the
 * batched manifest had not seen when the broker died): the partition is listed from there on, every candidate's footer must prove its
 * identity, and of several with one base the one of the highest writer epoch wins. What lies beyond a hole is
 * reported, not taken, unless a footer tells that the log start had passed the hole (deleted before it was uploaded).
 * Without any manifest a log begins at offset 0. Nothing is downloaded but manifests and footers. */
#include "tier_impl.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define DEADLINE_MS 60000

struct restore {
    struct vv_tier *t;
    struct vv_manifest_where w;
    struct vv_index *index;
    struct vv_extent newest; /* state REMOTE; base -1 = none */
    int64_t next;            /* expected base */
    int64_t log_start;
    struct vv_footer best;   /* candidate for `next`, and its extent */
    struct vv_extent best_x;
    bool have_best, hole;
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

static int on_manifest(void *ctx, const struct vv_extent *x)
{
    return adopt(ctx, x);
}

/* The footer of an object whose identity its key tells; size 0 = unknown. */
static int get_footer(struct restore *r, const struct vv_segkey *k, size_t guess, struct vv_footer *f, uint64_t *object_bytes)
{
    char key[VV_KEY_MAX];
    size_t need = guess;
    int err = VV_E_AGAIN;
    vv_segkey_format(k, key);
    for (int tries = 0; tries < 3 && err == VV_E_AGAIN; tries++) {
        struct vv_slice s = {0};
        struct vv_objinfo info = {0};
        err = vv_tier_saw(r->t, vv_objstore_get_suffix(r->t->store, key, need, DEADLINE_MS, &s, &info, r->e));
        if (err) return err;
        err = vv_footer_decode(s.p, s.n, info.size, f, &need, r->e);
        *object_bytes = info.size;
        vv_buf_unref(s.buf);
    }
    if (err == VV_E_AGAIN) err = VV_E_CORRUPT;
    if (!err) err = vv_footer_check(f, k, r->t->id.cluster_id, r->e);
    if (err) vv_footer_release(f);
    return err;
}

static void best_release(struct restore *r)
{
    vv_footer_release(&r->best);
    r->have_best = false;
}

/* A listed object whose base is the one that we expect. */
static int consider(struct restore *r, const struct vv_segkey *k)
{
    struct vv_footer f = {0};
    uint64_t object_bytes = 0;
    int err = get_footer(r, k, 65536, &f, &object_bytes);
    if (err == VV_E_CORRUPT || err == VV_E_NOENT) { /* an unfinished or damaged leftover is not part of the log */
        VLOG_WARN("restore: ignoring the object of %" PRId64 "..%" PRId64 ": %s", k->base, k->last, r->e ? r->e->text : "damaged");
        return VV_OK;
    }
    if (err) return err;
    if (r->have_best && r->best.writer_epoch >= f.writer_epoch) {
        vv_footer_release(&f);
        return VV_OK;
    }
    best_release(r);
    r->best = f;
    r->have_best = true;
    r->best_x = (struct vv_extent){.base = k->base, .last = k->last, .first_ts = f.first_ts, .max_ts = f.max_ts,
                                   .sealed_ms = f.sealed_ms, .bytes = f.data_bytes, .object_bytes = object_bytes, .nonce = k->nonce,
                                   .generation = k->generation, .epoch = k->epoch, .state = VV_EXTENT_REMOTE};
    return VV_OK;
}

static int accept_best(struct restore *r)
{
    if (!r->have_best) return VV_OK;
    int err = adopt(r, &r->best_x);
    r->log_start = VV_MAX(r->log_start, r->best.log_start);
    best_release(r);
    return err;
}

/* Beyond a hole: does this object say that the log starts at or after it? Then what is missing was deleted before it was uploaded. */
static int starts_log(struct restore *r, const struct vv_segkey *k, bool *starts)
{
    struct vv_footer f = {0};
    uint64_t object_bytes = 0;
    int err = get_footer(r, k, 65536, &f, &object_bytes);
    *starts = !err && f.log_start >= k->base;
    vv_footer_release(&f);
    return err == VV_E_CORRUPT || err == VV_E_NOENT ? VV_OK : err;
}

/* One listed key, ascending. */
static int on_listed(struct restore *r, const char *key)
{
    struct vv_segkey k;
    bool starts = false;
    if (vv_segkey_parse(key, &k)) return VV_OK; /* not a segment */
    if (r->have_best && k.base > r->best_x.base) {
        int err = accept_best(r);
        if (err) return err;
    }
    if (k.base < r->next) return VV_OK;
    if (k.base == r->next) return consider(r, &k);
    int err = starts_log(r, &k, &starts);
    if (err) return err;
    if (starts) {
        r->hole = false;
        r->next = k.base;
        return consider(r, &k);
    }
    if (!r->hole)
        VLOG_WARN("restore: offsets %" PRId64 "..%" PRId64 " of partition %d are missing in the bucket; the object %s beyond the hole and "
                  "what follows are not part of the restored log", r->next, k.base - 1, (int)r->w.partition, key);
    r->hole = true;
    return VV_OK;
}

static int roll_forward(struct restore *r)
{
    char prefix[VV_KEY_MAX], after[VV_KEY_MAX];
    vv_key_part_prefix(r->w.topic_id, r->w.partition, prefix);
    if (r->newest.base >= 0)
        vv_key_after(r->w.topic_id, r->w.partition, r->newest.base, after);
    else
        after[0] = 0;
    bool more = true;
    int err = VV_OK;
    while (more && !err) {
        struct vv_objlist l = {0};
        err = vv_tier_saw(r->t, vv_objstore_list(r->t->store, prefix, after[0] ? after : NULL, 0, DEADLINE_MS, &l, r->e));
        more = l.more && l.count;
        for (size_t i = 0; i < l.count && !err; i++) err = on_listed(r, l.v[i].key);
        if (more) snprintf(after, sizeof after, "%s", l.v[l.count - 1].key);
        vv_objlist_release(&l);
    }
    if (!err) err = accept_best(r);
    best_release(r);
    return err;
}

static int newest_footer(struct restore *r, struct vv_tier_restored *out)
{
    struct vv_footer f = {0};
    struct vv_segkey k;
    uint64_t object_bytes;
    if (r->newest.base < 0) return VV_OK;
    vv_segkey_of(r->w.topic_id, r->w.partition, &r->newest, &k);
    int err = get_footer(r, &k, (size_t)(r->newest.object_bytes - r->newest.bytes), &f, &object_bytes);
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
    int err = vv_tier_saw(t, vv_manifest_walk(&m, &r.w, on_manifest, &r, e));
    if (!err) {
        r.next = VV_MAX(r.next, m.next_offset);
        r.log_start = m.log_start;
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
