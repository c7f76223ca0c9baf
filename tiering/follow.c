/* follow.c — see follow.h. */
#include "follow.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define DEADLINE_MS 60000
#define FOOTER_GUESS 65536

int vv_footer_get(struct vv_objstore *store, const struct vv_segkey *k, const char *cluster_id, size_t guess,
                  struct vv_footer *f,
                  uint64_t *object_bytes, struct vv_error *e)
{
    char key[VV_KEY_MAX];
    size_t need = guess;
    int err = VV_E_AGAIN;
    vv_segkey_format(k, key);
    for (int tries = 0; tries < 3 && err == VV_E_AGAIN; tries++) {
        struct vv_slice s = {0};
        struct vv_objinfo info = {0};
        err = vv_objstore_get_suffix(store, key, need, DEADLINE_MS, &s, &info, e);
        if (err) return err;
        err = vv_footer_decode(s.p, s.n, info.size, store->keys, f, &need, e);
        *object_bytes = info.size;
        vv_buf_unref(s.buf);
    }
    if (err == VV_E_AGAIN) err = VV_E_CORRUPT;
    if (!err) err = vv_footer_check(f, k, cluster_id, e);
    if (err) vv_footer_release(f);
    return err;
}

static int footer_of(struct vv_follow *r, const struct vv_segkey *k, struct vv_footer *f, uint64_t *object_bytes)
{
    return vv_footer_get(r->w->store, k, r->w->cluster_id, FOOTER_GUESS, f, object_bytes, r->e);
}

static int take(struct vv_follow *r)
{
    int err = r->each(r->ctx, &r->best_x);
    r->next = r->best_x.last + 1;
    return err;
}

static void best_release(struct vv_follow *r)
{
    vv_footer_release(&r->best);
    r->have_best = false;
}

/* A listed object whose base is the one that we expect. */
static int consider(struct vv_follow *r, const struct vv_segkey *k)
{
    struct vv_footer f = {0};
    uint64_t object_bytes = 0;
    int err = footer_of(r, k, &f, &object_bytes);
    if (err == VV_E_CORRUPT || err == VV_E_NOENT) { /* an unfinished or damaged leftover is not part of the log */
        VLOG_WARN("%s: ignoring the object of %" PRId64 "..%" PRId64 ": %s", r->who, k->base, k->last,
                  r->e ? r->e->text : "damaged");
        return VV_OK;
    }
    if (err) return err;
    if (f.writer_epoch < r->epoch_floor) {
        VLOG_WARN("%s: ignoring the object of %" PRId64 "..%" PRId64 " by writer epoch %" PRIu64 ": %" PRIu64 " owns the log before it",
                  r->who, k->base, k->last, f.writer_epoch, r->epoch_floor);
        vv_footer_release(&f);
        return VV_OK;
    }
    if (r->have_best && (r->best.writer_epoch > f.writer_epoch ||
                         (r->best.writer_epoch == f.writer_epoch && r->best.key.generation >= f.key.generation))) {
        vv_footer_release(&f);
        return VV_OK;
    }
    best_release(r);
    r->best = f;
    r->have_best = true;
    r->best_x = (struct vv_extent){.base = k->base, .last = k->last, .first_ts = f.first_ts, .max_ts = f.max_ts,
                                   .sealed_ms = f.sealed_ms, .bytes = f.data_bytes, .object_bytes = object_bytes,
                                   .stored_bytes = f.flags ? f.stored_bytes : 0, .nonce = k->nonce,
                                   .generation = k->generation, .epoch = k->epoch, .state = VV_EXTENT_REMOTE};
    return VV_OK;
}

static int accept_best(struct vv_follow *r)
{
    if (!r->have_best) return VV_OK;
    int err = take(r);
    r->log_start = VV_MAX(r->log_start, r->best.log_start);
    r->epoch_floor = r->best.writer_epoch;
    best_release(r);
    return err;
}

/* Beyond a hole: does this object say that the log starts at or after it? Then what is missing was deleted before it was uploaded. */
static int starts_log(struct vv_follow *r, const struct vv_segkey *k, bool *starts)
{
    struct vv_footer f = {0};
    uint64_t object_bytes = 0;
    int err = footer_of(r, k, &f, &object_bytes);
    *starts = !err && f.log_start >= k->base && f.writer_epoch >= r->epoch_floor;
    vv_footer_release(&f);
    return err == VV_E_CORRUPT || err == VV_E_NOENT ? VV_OK : err;
}

/* One listed key, ascending. */
static int on_listed(struct vv_follow *r, const char *key)
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
        VLOG_WARN("%s: offsets %" PRId64 "..%" PRId64 " of partition %d are missing in the bucket; the object %s beyond the hole and "
                  "what follows are not part of the log", r->who, r->next, k.base - 1, (int)r->w->partition, key);
    r->hole = true;
    return VV_OK;
}

int vv_follow_run(struct vv_follow *r)
{
    char prefix[VV_KEY_MAX], after[VV_KEY_MAX];
    vv_key_part_prefix(r->w->topic_id, r->w->partition, prefix);
    if (r->after >= 0)
        vv_key_after(r->w->topic_id, r->w->partition, r->after, after);
    else
        after[0] = 0;
    bool more = true;
    int err = VV_OK;
    while (more && !err) {
        struct vv_objlist l = {0};
        err = vv_objstore_list(r->w->store, prefix, after[0] ? after : NULL, 0, DEADLINE_MS, &l, r->e);
        more = l.more && l.count;
        for (size_t i = 0; i < l.count && !err; i++) err = on_listed(r, l.v[i].key);
        if (more) snprintf(after, sizeof after, "%s", l.v[l.count - 1].key);
        vv_objlist_release(&l);
    }
    if (!err) err = accept_best(r);
    best_release(r);
    return err;
}
