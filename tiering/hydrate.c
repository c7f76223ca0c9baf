/* hydrate.c — a seeded cluster's own bucket is filled: objects are copied from the origin, one after the other, in the background.
 *
 * Reads do not wait for it: what is not here yet is read from the origin (obj_pair.h). So the order does not matter for readers; the
 * oldest object of each partition comes first, partition by partition in turn, because the origin's retention takes the oldest first.
 * How far each partition has come is in varve-origin.json (origin.h), written every few seconds: after a crash the objects since then are
 * found in the own bucket and proven, not copied again. `end` of a partition is fixed at the beginning: what was uploaded later was never
 * the origin's. An object that the log gave up while it was copied is deleted again. When every object is here, the root says so
 * (`hydrated`), the second store is forgotten, and the origin can go.
 * What the origin lost is reported by name and counted; then nothing is called complete, and the next start tries again.
 *
 * Threads: one, from vv_tier_start to vv_tier_stop; a part is held while an object of it is copied (pace.h). */
#include "copy.h"
#include "obj_pair.h"
#include "pace.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdlib.h>

#define SAVE_US      5000000
#define SAY_US       60000000
#define AGAIN_US     1000000
#define AGAIN_MAX_US 30000000
#define DEADLINE_MS  60000

struct vv_hydrate {
    struct vv_tier *t;
    pthread_t thread;
    bool running;
    struct vv_pace pace;
    struct vv_origin_journal journal;
    bool unsaved;
    int64_t saved_us, said_us;
    size_t turn;
    unsigned failures;
    _Atomic bool hydrating;
    _Atomic uint64_t left, objects, bytes, lost;
};

/* ---- the journal ---- */

static void save(struct vv_hydrate *h, bool now)
{
    struct vv_error e = {0};
    int64_t at = vv_mono_us(h->t->env);
    if (!h->unsaved || (!now && at - h->saved_us < SAVE_US)) return;
    h->saved_us = at;
    if (vv_origin_journal_save(h->t->env, h->t->id.data_dir, &h->journal, &e))
        VLOG_WARN("hydration: %s; a restart looks at more objects again", e.text);
    else
        h->unsaved = false;
}

static uint64_t count_left(struct vv_tier_part *p, int64_t from, int64_t end)
{
    struct vv_extent x;
    uint64_t n = 0;
    while (from < end && !vv_index_next(p->o.index, from, &x)) {
        vv_extent_release(p->o.index, &x);
        from = x.last + 1;
        if (x.state == VV_EXTENT_OPEN) break;
        if (x.base < end) n++;
    }
    return n;
}

/* Partitions that the journal does not know: their history up to now may be the origin's. Before anything is uploaded. */
static int open_journal(struct vv_hydrate *h, struct vv_error *e)
{
    struct vv_tier *t = h->t;
    int err = vv_origin_journal_load(t->env, t->id.data_dir, &h->journal, e);
    bool first = err == VV_E_NOENT || (!err && !h->journal.n);
    if (err && !first) return err;
    if (!first) return VV_OK;
    h->journal.origins = t->claim.origins;
    for (size_t i = 0; i < t->part_count; i++) {
        const struct vv_tier_part_opts *o = &t->parts[i]->o;
        struct vv_index_summary s;
        vv_index_summary(o->index, &s);
        struct vv_origin_part p = {.topic_id = o->topic_id, .partition = o->partition, .end = s.remote_end};
        err = vv_origin_part_add(&h->journal, &p);
        if (err) return vv_error_set(e, err, "out of memory");
    }
    return vv_origin_journal_save(t->env, t->id.data_dir, &h->journal, e);
}

/* ---- one object ---- */

/* Was it given up meanwhile? Then what we put is nobody's. */
static void take_back(struct vv_hydrate *h, const struct vv_extent *was, const struct vv_segkey *k)
{
    struct vv_extent x;
    char key[VV_KEY_MAX];
    struct vv_error e = {0};
    int err = vv_index_next(h->pace.part->o.index, was->base, &x);
    if (!err) vv_extent_release(h->pace.part->o.index, &x);
    if (!err && x.base == was->base && x.nonce == was->nonce && x.state != VV_EXTENT_DELETING) return;
    if (err && err != VV_E_NOENT) return;
    vv_segkey_format(k, key);
    if (vv_objstore_delete(vv_objpair_first(h->t->store), key, DEADLINE_MS, &e))
        VLOG_WARN("hydration: %s is not needed any more and could not be deleted: %s", key, e.text);
}

/* 0: done with it, whatever came of it; else try again later. */
static int bring(struct vv_hydrate *h, const struct vv_extent *x, struct vv_error *e)
{
    struct vv_tier *t = h->t;
    struct vv_tier_config tc;
    struct vv_segkey k;
    bool source_said = false;
    vv_tier_config_get(t, &tc);
    struct vv_copy c = {.env = t->env, .from = vv_objpair_second(t->store), .to = vv_objpair_first(t->store), .keys = t->store->keys,
                        .clusters = t->clusters, .full = tc.verify_full, .go_on = vv_pace_go_on, .ctx = &h->pace};
    vv_segkey_of(h->pace.part->o.topic_id, h->pace.part->o.partition, x, &k);
    int err = vv_copy_segment(&c, &k, (size_t)(x->object_bytes - vv_extent_footer_at(x)), &source_said, e);
    if (err && !source_said && err != VV_E_SHUTDOWN) vv_tier_saw(t, err);
    if (source_said && (err == VV_E_NOENT || err == VV_E_CORRUPT)) {
        struct vv_objinfo info;
        char key[VV_KEY_MAX];
        vv_segkey_format(&k, key);
        if (!vv_objstore_head(c.to, key, DEADLINE_MS, &info, NULL)) return VV_OK; /* a merge or an upload of our own made it */
        VLOG_ERROR("hydration: %s-%d offsets %" PRId64 "..%" PRId64 " cannot be brought over, the origin does not have them whole: %s",
                   h->pace.part->topic, (int)h->pace.part->o.partition, x->base, x->last, e->text);
        atomic_fetch_add(&h->lost, 1);
        return VV_OK;
    }
    if (err < 0 || err > 1) return err;
    take_back(h, x, &k);
    if (!err) atomic_fetch_add(&h->bytes, x->object_bytes);
    atomic_fetch_add(&h->objects, 1);
    return VV_OK;
}

static int part_step(struct vv_hydrate *h, struct vv_origin_part *o, struct vv_error *e)
{
    struct vv_tier_part *p = h->pace.part;
    struct vv_extent x;
    int err = vv_index_next(p->o.index, o->copied, &x);
    if (err == VV_E_NOENT || (!err && (x.base >= o->end || x.state == VV_EXTENT_OPEN))) {
        if (!err) vv_extent_release(p->o.index, &x);
        o->copied = o->end;
        h->unsaved = true;
        return VV_OK;
    }
    if (err) return vv_error_set(e, err, "the index of %s-%d: %s", p->topic, (int)p->o.partition, vv_err_name(err));
    if (vv_extent_is_remote(&x)) err = bring(h, &x, e);
    vv_extent_release(p->o.index, &x);
    if (err) return err;
    o->copied = x.last + 1;
    h->unsaved = true;
    if (atomic_load(&h->left)) atomic_fetch_sub(&h->left, 1);
    return VV_OK;
}

/* ---- the thread ---- */

/* The next part that has something left, its mark set. *any: there are such parts. */
static struct vv_origin_part *pick(struct vv_hydrate *h, bool *any)
{
    struct vv_tier *t = h->t;
    struct vv_origin_part *found = NULL;
    *any = false;
    pthread_mutex_lock(&t->mu);
    for (size_t i = 0; i < t->part_count && !found; i++) {
        struct vv_tier_part *p = t->parts[(h->turn + i) % t->part_count];
        struct vv_origin_part *o = vv_origin_part_find(&h->journal, p->o.topic_id, p->o.partition);
        if (!o || o->copied >= o->end) continue;
        *any = true;
        if (!vv_pace_hold(&h->pace, p)) continue;
        h->turn = (h->turn + i + 1) % t->part_count;
        found = o;
    }
    pthread_mutex_unlock(&t->mu);
    return found;
}

/* 1: all is done. */
static int complete(struct vv_hydrate *h, struct vv_error *e)
{
    struct vv_tier *t = h->t;
    struct vv_origins o = h->journal.origins;
    if (atomic_load(&h->lost)) {
        VLOG_ERROR("hydration: ended, but %" PRIu64 " objects could not be brought over from %s: keep it; the next start tries them again",
                   atomic_load(&h->lost), o.v[0].url);
        return 1;
    }
    o.v[0].hydrated = true;
    int err = vv_claim_set_origins(t, &o, e);
    if (err) return err;
    h->journal.origins = o;
    free(h->journal.v);
    h->journal.v = NULL;
    h->journal.n = 0;
    h->unsaved = true;
    save(h, true);
    vv_objpair_forget_second(t->store);
    VLOG_INFO("hydration: complete, %" PRIu64 " objects (%" PRIu64 " bytes copied) are in %s; %s is not needed any more",
              atomic_load(&h->objects), atomic_load(&h->bytes), t->store->url, o.v[0].url);
    return 1;
}

/* One object, or the end. 1: all is done; 0: go on; else wait a little. */
static int step(struct vv_hydrate *h, struct vv_error *e)
{
    bool any;
    struct vv_origin_part *o = pick(h, &any);
    if (!o) return any ? VV_E_AGAIN : complete(h, e);
    bool losing = atomic_load(&h->lost) != 0;
    int err = part_step(h, o, e);
    vv_pace_give_back(&h->pace);
    if (!losing && !atomic_load(&h->lost)) save(h, false); /* a lost one must be asked for again after a restart: the journal stays behind it */
    return err;
}

static void say(struct vv_hydrate *h)
{
    int64_t now = vv_mono_us(h->t->env);
    if (now - h->said_us < SAY_US) return;
    h->said_us = now;
    VLOG_INFO("hydration: %" PRIu64 " objects (%" PRIu64 " bytes) brought over, %" PRIu64 " to go", atomic_load(&h->objects),
              atomic_load(&h->bytes), atomic_load(&h->left));
}

static void *run(void *arg)
{
    struct vv_hydrate *h = arg;
    struct vv_tier *t = h->t;
    int err = 0;
    while (atomic_load(&t->fenced) && vv_pace_wait(&h->pace, AGAIN_US)) continue; /* the bucket is claimed when it answers */
    while (err <= 0 && vv_pace_wait(&h->pace, 0)) {
        struct vv_error e = {0};
        err = atomic_load(&t->fenced) ? VV_E_CONFLICT : step(h, &e);
        say(h);
        if (!err) {
            h->failures = 0;
        } else if (err != 1) {
            if (!h->failures && e.text[0] && err != VV_E_SHUTDOWN) VLOG_WARN("hydration: %s; trying again", e.text);
            if (!vv_pace_wait(&h->pace, vv_tier_backoff_us(t, h->failures++, AGAIN_US, AGAIN_MAX_US))) break;
            err = 0;
        }
    }
    if (!atomic_load(&h->lost)) save(h, true);
    atomic_store(&h->hydrating, false);
    return NULL;
}

int vv_hydrate_start(struct vv_tier *t)
{
    struct vv_error e = {0};
    const struct vv_origins *o = &t->claim.origins;
    if (!o->n || o->v[0].hydrated || !vv_objpair_is(t->store) || !vv_objpair_second(t->store)) return VV_OK;
    struct vv_hydrate *h = calloc(1, sizeof *h);
    if (!h) return VV_E_NOMEM;
    h->t = t;
    vv_pace_init(&h->pace, t);
    t->hydrate = h;
    int err = open_journal(h, &e);
    if (err) {
        VLOG_ERROR("hydration: %s", e.text);
        return err;
    }
    for (size_t i = 0; i < t->part_count; i++) {
        const struct vv_origin_part *p = vv_origin_part_find(&h->journal, t->parts[i]->o.topic_id, t->parts[i]->o.partition);
        if (p) atomic_fetch_add(&h->left, count_left(t->parts[i], p->copied, p->end));
    }
    h->said_us = vv_mono_us(t->env);
    VLOG_INFO("hydration: %" PRIu64 " objects are to be brought over from %s; until then what is not here is read from there",
              atomic_load(&h->left), o->v[0].url);
    atomic_store(&h->hydrating, true);
    int rc = pthread_create(&h->thread, NULL, run, h);
    h->running = !rc;
    return rc ? vv_err_from_errno(rc) : VV_OK;
}

void vv_hydrate_stop(struct vv_hydrate *h)
{
    if (!h) return;
    vv_pace_stop(&h->pace);
    if (h->running) pthread_join(h->thread, NULL);
    h->running = false;
}

void vv_hydrate_free(struct vv_hydrate *h)
{
    if (!h) return;
    VV_ASSERT(!h->running);
    vv_origin_journal_release(&h->journal);
    vv_pace_release(&h->pace);
    free(h);
}

void vv_hydrate_stats(struct vv_hydrate *h, struct vv_tier_stats *out)
{
    if (!h) return;
    out->hydrating = atomic_load(&h->hydrating);
    out->hydrate_objects_left = atomic_load(&h->left);
    out->hydrate_objects = atomic_load(&h->objects);
    out->hydrate_bytes = atomic_load(&h->bytes);
    out->hydrate_lost = atomic_load(&h->lost);
}
