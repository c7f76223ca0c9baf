/* hydrate.c — a seeded cluster's own bucket is filled: objects are copied from the origin in the background, several at a time (pace.h).
 *
 * Reads do not wait for it: what is not here yet is read from the origin (obj_pair.h). So the order does not matter for readers; the
 * oldest objects of each partition come first, partition by partition in turn, because the origin's retention takes the oldest first.
 * How far each partition has come is in varve-origin.json (origin.h), written every few seconds: after a crash the objects since then are
 * found in the own bucket and proven, not copied again. `end` of a partition is fixed at the beginning: what was uploaded later was never
 * the origin's. An object that the log gave up while it was copied is deleted again. When every object is here, the root says so
 * (`hydrated`), the second store is forgotten, and the origin can go.
 * What the origin lost is reported by name and counted; then nothing is called complete, and the next start tries again.
 *
 * Threads: one, from vv_tier_start to vv_tier_stop, and those of its rounds; a part is held while objects of it are copied (pace.h). The journal
 * is the one thread's: a partition moves on over objects that are done, never over one that failed, whatever came of those behind it. */
#include "copy.h"
#include "obj_pair.h"
#include "pace.h"
#include "varve/thread.h"
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
    struct vv_round round;
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
static void take_back(struct vv_hydrate *h, const struct vv_round_item *i, const struct vv_segkey *k)
{
    struct vv_index *index = i->paced.part->o.index;
    struct vv_extent x;
    char key[VV_KEY_MAX];
    struct vv_error e = {0};
    int err = vv_index_next(index, i->x.base, &x);
    if (!err) vv_extent_release(index, &x);
    if (!err && x.base == i->x.base && x.nonce == i->x.nonce && x.state != VV_EXTENT_DELETING) return;
    if (err && err != VV_E_NOENT) return;
    vv_segkey_format(k, key);
    if (vv_objstore_delete(vv_objpair_first(h->t->store), key, DEADLINE_MS, &e))
        VLOG_WARN("hydration: %s is not needed any more and could not be deleted: %s", key, e.text);
}

static bool failed(const struct vv_round_item *i)
{
    return i->result != 0 && i->result != 1;
}

/* A thread of the round. result 0: copied; 1: done with it without; else try again later. */
static void bring(void *ctx, struct vv_round_item *i)
{
    struct vv_hydrate *h = ctx;
    struct vv_tier *t = h->t;
    struct vv_tier_config tc;
    struct vv_segkey k;
    bool source_said = false;
    if (!vv_extent_is_remote(&i->x)) {
        i->result = 1;
        return;
    }
    vv_tier_config_get(t, &tc);
    struct vv_copy c = {.env = t->env, .from = vv_objpair_second(t->store), .to = vv_objpair_first(t->store), .keys = t->store->keys,
                        .clusters = t->clusters, .full = tc.verify_full, .go_on = vv_pace_go_on, .ctx = &i->paced};
    vv_segkey_of(i->topic_id, i->partition, &i->x, &k);
    i->result = vv_copy_segment(&c, &k, (size_t)(i->x.object_bytes - vv_extent_footer_at(&i->x)), &source_said, &i->e);
    if (failed(i) && !source_said && i->result != VV_E_SHUTDOWN) vv_tier_saw(t, i->result);
    if (source_said && (i->result == VV_E_NOENT || i->result == VV_E_CORRUPT)) {
        struct vv_objinfo info;
        char key[VV_KEY_MAX];
        vv_segkey_format(&k, key);
        i->lost = vv_objstore_head(c.to, key, DEADLINE_MS, &info, NULL) != VV_OK; /* else a merge or an upload of our own made it */
        i->result = 1;
        if (i->lost)
            VLOG_ERROR("hydration: %s-%d offsets %" PRId64 "..%" PRId64 " cannot be brought over, the origin does not have them whole: %s",
                       i->paced.part->topic, (int)i->partition, i->x.base, i->x.last, i->e.text);
        return;
    }
    if (!failed(i)) take_back(h, i, &k);
}

/* ---- a round ---- */

/* The next part from the i-th in turn on that has something left, held; NULL: there is none. *any: there are such parts. */
static struct vv_tier_part *pick(struct vv_hydrate *h, size_t *i, struct vv_origin_part **o, bool *any)
{
    struct vv_tier *t = h->t;
    struct vv_tier_part *found = NULL;
    pthread_mutex_lock(&t->mu);
    for (; *i < t->part_count && !found; ++*i) {
        struct vv_tier_part *p = t->parts[(h->turn + *i) % t->part_count];
        *o = vv_origin_part_find(&h->journal, p->o.topic_id, p->o.partition);
        if (!*o || (*o)->copied >= (*o)->end) continue;
        *any = true;
        if (vv_pace_hold(p)) found = p;
    }
    pthread_mutex_unlock(&t->mu);
    return found;
}

/* Where the round's last object of this partition ends, or what is done of it. */
static int64_t reached(const struct vv_round *r, const struct vv_origin_part *o, bool *waits)
{
    int64_t at = o->copied;
    *waits = false;
    for (size_t i = 0; i < r->n; i++) {
        if (r->v[i].partition != o->partition || !vv_uuid_eq(r->v[i].topic_id, o->topic_id)) continue;
        at = r->v[i].x.last + 1;
        *waits = true;
    }
    return at;
}

/* The next object of a held part. 1: taken; 2: all of it is here, which is noted; 0: nothing more for now; else what the index says. */
static int take(struct vv_hydrate *h, struct vv_tier_part *p, struct vv_origin_part *o, struct vv_error *e)
{
    struct vv_extent x;
    bool waits;
    int64_t at = reached(&h->round, o, &waits);
    int err = vv_index_next(p->o.index, at, &x);
    if (err && err != VV_E_NOENT)
        return vv_error_set(e, err, "the index of %s-%d: %s", p->topic, (int)p->o.partition, vv_err_name(err));
    if (!err) vv_extent_release(p->o.index, &x);
    if (!err && x.base < o->end && x.state != VV_EXTENT_OPEN) {
        vv_round_add(&h->round, p, true, &x)->from = at;
        return 1;
    }
    if (waits) return 0;
    o->copied = o->end;
    h->unsaved = true;
    return 2;
}

/* Partition by partition in turn, again and again until the round is full. *any: something is left. */
static int fill(struct vv_hydrate *h, bool *any, struct vv_error *e)
{
    int first = VV_OK;
    bool more = *any = true;
    vv_round_begin(&h->round, &h->pace);
    while (more && !vv_round_full(&h->round)) {
        struct vv_origin_part *o;
        struct vv_tier_part *p;
        size_t i = 0, next = 0;
        more = *any = false;
        while (!vv_round_full(&h->round) && (p = pick(h, &i, &o, any))) {
            struct vv_error why = {0};
            int err = take(h, p, o, &why);
            vv_pace_give_back(p);
            more = more || err == 1 || err == 2;
            if (err == 1) next = i;
            if (err && err != 1 && err != 2 && !first) {
                first = err;
                *e = why;
            }
        }
        h->turn += next;
    }
    return first;
}

/* What came of the round, in order. The first failure, if nothing went on. */
static int settle(struct vv_hydrate *h, struct vv_error *e)
{
    int first = VV_OK;
    bool moved = false;
    for (size_t k = 0; k < h->round.n; k++) {
        const struct vv_round_item *i = &h->round.v[k];
        struct vv_origin_part *o = vv_origin_part_find(&h->journal, i->topic_id, i->partition);
        if (failed(i)) {
            if (!first) *e = i->e;
            if (!first) first = i->result;
            continue;
        }
        if (!o || o->copied != i->from) continue; /* one before it failed: asked for again after that */
        o->copied = i->x.last + 1;
        h->unsaved = moved = true;
        if (i->lost) atomic_fetch_add(&h->lost, 1);
        if (!i->lost && vv_extent_is_remote(&i->x)) atomic_fetch_add(&h->objects, 1);
        if (!i->result) atomic_fetch_add(&h->bytes, i->x.object_bytes);
        if (atomic_load(&h->left)) atomic_fetch_sub(&h->left, 1);
    }
    return moved ? VV_OK : first;
}

/* ---- the thread ---- */

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

/* One round, or the end. 1: all is done; 0: go on; else wait a little. */
static int step(struct vv_hydrate *h, struct vv_error *e)
{
    bool any;
    int err = fill(h, &any, e);
    if (!h->round.n && !err) return any ? VV_E_AGAIN : complete(h, e);
    vv_round_run(&h->round, bring, h);
    struct vv_error why = {0};
    int nothing = settle(h, &why);
    if (nothing && !err) *e = why;
    if (!atomic_load(&h->lost)) save(h, false); /* a lost one must be asked for again after a restart: the journal stays behind it */
    return err ? err : nothing;
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
    vv_thread_background("hydrate");
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
