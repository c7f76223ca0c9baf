/* restore.c — an empty directory gets a partition's history back from the bucket.
 *
 * The manifest is the truth; what continues it belongs to the log too (follow.h). Without any manifest a log begins at offset 0.
 * Nothing is downloaded but manifests and footers.
 * The partition is then taken: a head of our epoch goes over the one that was read (take), before anybody is served.
 * A cluster that is seeded (vv_tier_seed) reads another cluster's manifests, as of a time if one was given: the log ends before the first
 * segment that was sealed after it, and starts where it did then, as far as that is kept. Then its own manifest is written at once: from
 * there on the own bucket says what the log is, wherever the objects still lie. */
#include "follow.h"
#include "varve/vlog.h"
#include "tier_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGES 8 /* of a manifest, read at a time */

struct restore {
    struct vv_tier *t;
    struct vv_manifest_where w;
    struct vv_index *index;
    const struct vv_manifest *manifest;
    struct vv_extent newest; /* state REMOTE; base -1 = none */
    int64_t next;            /* expected base */
    int64_t log_start;
    int64_t manifest_end;    /* segments below are the manifest's */
    uint64_t epoch_floor;    /* writer epoch of the manifest */
    int64_t as_of_ms;        /* INT64_MAX: the newest state */
    int64_t keep_from;       /* segments that end below are not taken */
    bool cut;                /* something was sealed after as_of_ms: it and what follows are not part of the log */
    int32_t epoch_used;      /* the highest of any object's key, taken or not */
    char topic[250];
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
    struct restore *r = ctx;
    r->epoch_used = VV_MAX(r->epoch_used, x->epoch);
    r->cut = r->cut || x->sealed_ms > r->as_of_ms;
    if (r->cut) return VV_OK;
    if (x->last >= r->keep_from) return adopt(r, x);
    r->next = x->last + 1;
    return VV_OK;
}

/* Above the log start a manifest's segments tile: a hole there means that somebody took one out. */
static int on_manifest_segment(void *ctx, const struct vv_extent *x)
{
    struct restore *r = ctx;
    if (!r->cut && x->base > VV_MAX(r->next, r->manifest->log_start))
        return vv_error_set(r->e, VV_E_CORRUPT,
                            "the manifest of partition %d names no segment for offsets %" PRId64 "..%" PRId64
                            ": bring an older version of its head.json back, or see what is left with varve replay",
                            (int)r->w.partition, VV_MAX(r->next, r->manifest->log_start), x->base - 1);
    return on_segment(ctx, x);
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

/* lives: the writer epoch up to which others may have written. */
static int newest_footer(struct restore *r, const char *clusters, uint64_t lives, struct vv_tier_restored *out)
{
    struct vv_footer f = {0};
    struct vv_segkey k;
    uint64_t object_bytes;
    if (r->newest.base < 0) return VV_OK;
    vv_segkey_of(r->w.topic_id, r->w.partition, &r->newest, &k);
    int err = vv_tier_saw(r->t, vv_footer_get(r->w.store, &k, clusters, (size_t)(r->newest.object_bytes - vv_extent_footer_at(&r->newest)),
                                              &f, &object_bytes, r->e));
    if (err) return err;
    if (r->newest.last >= r->manifest_end) r->log_start = VV_MAX(r->log_start, f.log_start); /* else the manifest knew, and may have undeleted */
    /* Every opening of the log raises the claim's writer epoch by one and its leader epoch by one at most: this many may have been
     * used since that footer was written, by records that were never uploaded. */
    if (f.epoch_count) r->epoch_used = VV_MAX(r->epoch_used, f.epochs[f.epoch_count - 1].epoch);
    r->epoch_used += (int32_t)VV_MIN(lives > f.writer_epoch ? lives - f.writer_epoch : 0, (uint64_t)1 << 20);
    snprintf(r->topic, sizeof r->topic, "%s", f.topic);
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

/* The log start of the origin's, as of the time asked for: what is known of it before any segment is read. Without a time the
 * manifest's; with one the list of topics of then says, and what was deleted since is gone. */
static int64_t seed_start(const struct vv_tier_seed *seed, const struct restore *r, const struct vv_manifest *m)
{
    if (r->as_of_ms == INT64_MAX) return m->log_start;
    int64_t then = seed->log_start ? seed->log_start(seed->ctx, r->w.topic_id, r->w.partition) : -1;
    return VV_MIN(m->log_start, VV_MAX(m->deleting_below, then));
}

static int seed_walk(struct restore *r, const struct vv_tier_seed *seed, struct vv_manifest *m)
{
    int err = vv_manifest_load(m, &r->w, NULL, NULL, r->e);
    if (err) return err;
    r->keep_from = r->log_start = seed_start(seed, r, m);
    if (r->as_of_ms != INT64_MAX && r->log_start < m->log_start)
        VLOG_INFO("partition %d: the log starts at %" PRId64 " as of then, %" PRId64 " now", (int)r->w.partition, r->log_start, m->log_start);
    return vv_manifest_walk(m, &r->w, on_manifest_segment, r, r->e);
}

/* The own bucket learns what the log is. */
static int seed_write(struct restore *r, struct vv_tier *t)
{
    struct vv_manifest own = {0};
    struct vv_manifest_where w = r->w;
    if (r->newest.base < 0 && !r->log_start) return VV_OK;
    w.store = t->store;
    w.cluster_id = t->id.cluster_id;
    w.topic = r->topic;
    w.writer_epoch = t->claim.writer_epoch;
    int err = r->topic[0] ? vv_tier_name_topic(t, w.topic_id, r->topic, r->e) : VV_OK;
    if (!err) err = vv_tier_saw(t, vv_manifest_commit(&own, &w, r->index, 0, r->e));
    vv_manifest_release(&own);
    return err;
}

static int walk(struct restore *r, const struct vv_tier_seed *seed, struct vv_manifest *m)
{
    r->manifest = m;
    int err = seed ? seed_walk(r, seed, m) : vv_manifest_walk(m, &r->w, on_manifest_segment, r, r->e);
    if (vv_tier_saw(r->t, err)) return err;
    if (r->cut) return VV_OK;
    r->next = VV_MAX(r->next, m->next_offset);
    if (!seed || r->as_of_ms == INT64_MAX) r->log_start = m->log_start;
    r->manifest_end = m->next_offset;
    r->epoch_floor = m->writer_epoch;
    int64_t start = r->log_start;
    err = roll_forward(r);
    if (!err && seed && r->cut) r->log_start = start; /* what lies beyond the cut does not say where the log starts */
    return err;
}

/* The next head is ours, conditional on the one that was read: nobody else's comes between. Where there is none, a first one asks the root. */
static int take(struct restore *r, const char *topic, struct vv_manifest *m)
{
    struct vv_manifest_where w = r->w;
    if (!m->exists && r->newest.base < 0) return VV_OK;
    w.topic = topic;
    m->taking = true;
    int err = vv_tier_saw(r->t, vv_manifest_commit(m, &w, r->index, 0, r->e));
    if (err == VV_E_CONFLICT)
        return vv_error_set(r->e, err, "another writer put the manifest of %s-%d while it was restored", topic, (int)w.partition);
    return err;
}

int vv_tier_restore_part(struct vv_tier *t, struct vv_uuid topic_id, const char *topic, int32_t partition, struct vv_index *index,
                         struct vv_tier_restored *out, struct vv_error *e)
{
    const struct vv_tier_seed *seed = t->seed;
    struct restore r = {.t = t, .index = index, .newest = {.base = -1}, .as_of_ms = INT64_MAX, .epoch_used = -1, .e = e};
    struct vv_manifest m = {0};
    *out = (struct vv_tier_restored){0};
    if (atomic_load(&t->fenced)) return vv_error_set(e, VV_E_AGAIN, "the bucket is not ours yet, or not any more");
    r.w = (struct vv_manifest_where){.env = t->env, .store = t->store, .cluster_id = t->id.cluster_id, .topic = "",
                                     .topic_id = topic_id, .partition = partition, .writer_epoch = t->claim.writer_epoch,
                                     .pages = PAGES};
    if (seed) {
        r.w.store = seed->source;
        r.w.cluster_id = seed->cluster_id;
        if (seed->origins.v[0].as_of_ms >= 0) r.as_of_ms = seed->origins.v[0].as_of_ms;
    }
    if (is_deleted(t, topic_id)) return vv_error_set(e, VV_E_NOENT, "the topic was deleted");
    int err = walk(&r, seed, &m);
    if (!err) err = newest_footer(&r, t->clusters, seed ? seed->writer_epoch : t->claim.writer_epoch - 1, out);
    if (!err) err = vv_index_set_log_start(index, r.log_start);
    if (!err) err = vv_index_sync(index);
    out->log_start = r.log_start;
    out->next_offset = VV_MAX(r.next, r.log_start);
    out->epoch_used = r.epoch_used;
    if (!err && seed) err = seed_write(&r, t);
    else if (!err && topic) err = take(&r, topic, &m);
    vv_manifest_release(&m);
    if (err) {
        free(out->epochs);
        free(out->snapshot);
        *out = (struct vv_tier_restored){0};
    }
    return err;
}
