/* migrate.c — the bucket of a running broker moves to another store: copy, prove, switch. Produce and fetch go on meanwhile.
 *
 * 1. The new bucket's root is put with `migrating` (it must be empty, or a half-done migration of the same cluster): nobody can claim it.
 * 2. Everything is copied: segments that the index knows (live and tombstoned), each proven (copy.h), manifest pages, topic.json,
 *    kept lists of topics, all of deleted topics inside their grace. Again, until there is little left.
 * 3. The switch: no upload, housekeeping or list of topics is under way (`switching`; local disk and reads are not touched). What came since
 *    step 2, heads and the newest list of topics are copied. Then the one step that decides: the old root is released with `moved_to`.
 *    After it the new bucket is the truth, before it the old one; a restart finds out by that (src/broker/migration.c), and a kill
 *    at any point leaves a migration that begins again and finds what it has copied.
 * 4. The new root is put without `migrating`, the pair's first store is replaced (obj_pair.h), manifests are loaded anew.
 * The old bucket keeps everything: only its root says where the history went. It is the operator's to delete.
 *
 * Objects are copied several at a time, across partitions (pace.h), and so are the manifests of several partitions.
 * Threads: one, and those that it starts for a while and waits for. `switching` is tier->mu's; at the switch the snapshots' lock and then claim_mu are held. */
#include "abreast.h"
#include "copy.h"
#include "obj_pair.h"
#include "pace.h"
#include "varve/thread.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdlib.h>

#define AGAIN_US     2000000
#define AGAIN_MAX_US 60000000
#define DEADLINE_MS  60000
#define SMALL_MAX    (256u << 20)
#define FEW          16 /* objects that may be left for the switch */
#define PASSES_MAX   20
#define SMALL_ABREAST 8 /* keys of a listing, partitions */

struct vv_migrate {
    struct vv_tier_migration o;
    pthread_t thread;
    bool running;
    struct vv_pace pace;
    struct vv_round round;
    struct vv_copy copy;    /* without who copies */
    struct vv_objstore *to; /* ours until the pair takes it */
    uint64_t deletes;       /* of the tier when the copy began */
    unsigned failures;
    _Atomic int state;      /* enum vv_migrate_state */
    _Atomic uint64_t objects, bytes;
};

static struct vv_tier *tier(struct vv_migrate *m)
{
    return m->pace.t;
}

/* ---- copying what has a name ---- */

static struct vv_copy copy_for(const struct vv_migrate *m, struct vv_paced *who)
{
    struct vv_copy c = m->copy;
    c.ctx = who;
    return c;
}

/* One key as it is; a segment is proven. A source that does not have it any more is no error: it was deleted meanwhile. */
static int copy_key(struct vv_migrate *m, struct vv_paced *who, const char *key, size_t size, struct vv_error *e)
{
    struct vv_copy c = copy_for(m, who);
    struct vv_segkey k;
    bool source_said = false;
    int err;
    if (!vv_pace_go_on(who, vv_segkey_parse(key, &k) ? size : 0)) return vv_error_set(e, VV_E_SHUTDOWN, "stopped");
    if (!vv_segkey_parse(key, &k)) {
        err = vv_copy_segment(&c, &k, 65536, &source_said, e);
        if (source_said && err == VV_E_NOENT) return VV_OK;
        return err == 1 ? VV_OK : err;
    }
    err = vv_copy_small(&c, key, SMALL_MAX, e);
    return err == VV_E_NOENT ? VV_OK : err;
}

/* What several threads do for one; the first error counts. */
struct several {
    struct vv_migrate *m;
    struct vv_paced who;
    const struct vv_objlist *keys;
    const char *skip;
    bool fixed, head, strays, hold;
    pthread_mutex_t lock;
    int err;
    struct vv_error e;
};

static void several_begin(struct several *s)
{
    s->err = VV_OK;
    pthread_mutex_init(&s->lock, NULL);
}

static int several_end(struct several *s, struct vv_error *e)
{
    pthread_mutex_destroy(&s->lock);
    if (s->err) *e = s->e;
    return s->err;
}

static bool several_failed(struct several *s)
{
    pthread_mutex_lock(&s->lock);
    bool yes = s->err != VV_OK;
    pthread_mutex_unlock(&s->lock);
    return yes;
}

static void several_note(struct several *s, int err, const struct vv_error *e)
{
    pthread_mutex_lock(&s->lock);
    if (err && !s->err) {
        s->err = err;
        s->e = *e;
    }
    pthread_mutex_unlock(&s->lock);
}

static void copy_listed(void *ctx, size_t i)
{
    struct several *s = ctx;
    const struct vv_objlist_entry *x = &s->keys->v[i];
    size_t n = strlen(x->key), k = s->skip ? strlen(s->skip) : 0;
    struct vv_objinfo have;
    struct vv_error e = {0};
    if (several_failed(s) || (s->skip && n >= k && !strcmp(x->key + n - k, s->skip))) return;
    if (s->fixed && !vv_objstore_head(s->m->to, x->key, DEADLINE_MS, &have, NULL) && have.size == x->size) return;
    several_note(s, copy_key(s->m, &s->who, x->key, (size_t)x->size, &e), &e);
}

/* As many at a time as their sizes allow. */
static size_t width_of(const struct vv_objlist *l)
{
    uint64_t biggest = 1;
    for (size_t i = 0; i < l->count; i++) biggest = VV_MAX(biggest, l->v[i].size);
    return (size_t)VV_MAX(VV_MIN(VV_ROUND_BYTES / biggest, (uint64_t)SMALL_ABREAST), (uint64_t)1);
}

/* Everything below a prefix; `skip` is a suffix that is left out, NULL: nothing. Keys that the new bucket has in the same size are not
 * copied again when they never change (`fixed`). */
static int copy_prefix(struct vv_migrate *m, const struct vv_paced *who, const char *prefix, const char *skip, bool fixed, struct vv_error *e)
{
    char after[VV_KEY_MAX] = "";
    bool more = true;
    int err = VV_OK;
    while (more && !err) {
        struct vv_objlist l = {0};
        struct several s = {.m = m, .who = *who, .keys = &l, .skip = skip, .fixed = fixed};
        err = vv_objstore_list(m->copy.from, prefix, *after ? after : NULL, 0, DEADLINE_MS, &l, e);
        if (err) return err;
        several_begin(&s);
        vv_abreast(l.count, width_of(&l), copy_listed, &s);
        err = several_end(&s, e);
        more = !err && l.more && l.count;
        if (more) snprintf(after, sizeof after, "%s", l.v[l.count - 1].key);
        vv_objlist_release(&l);
    }
    return err;
}

static int copy_manifest(struct vv_migrate *m, struct vv_paced *who, const struct vv_tier_part *p, bool head, struct vv_error *e)
{
    char key[VV_KEY_MAX], prefix[VV_KEY_MAX], topic[VV_KEY_MAX];
    struct vv_objinfo have;
    vv_key_head(p->o.topic_id, p->o.partition, key);
    vv_key_topic(p->o.topic_id, topic);
    snprintf(prefix, sizeof prefix, "%.*s", (int)(strlen(key) - sizeof "head.json" + 1), key);
    int err = copy_prefix(m, who, prefix, "head.json", true, e);
    if (!err && head) err = copy_key(m, who, key, 0, e);
    if (!err && (head || vv_objstore_head(m->to, topic, DEADLINE_MS, &have, NULL))) /* at the switch: its name may have changed since */
        err = copy_key(m, who, topic, 0, e);
    return err;
}

/* ---- copying what the index knows ---- */

static bool has_object(const struct vv_extent *x)
{
    return x->nonce && (vv_extent_is_remote(x) || x->state == VV_EXTENT_TOMBSTONED);
}

/* A thread of the round. */
static void copy_extent(void *ctx, struct vv_round_item *i)
{
    struct vv_migrate *m = ctx;
    struct vv_copy c = copy_for(m, &i->paced);
    struct vv_segkey k;
    bool source_said = false;
    vv_segkey_of(i->topic_id, i->partition, &i->x, &k);
    i->result = vv_copy_segment(&c, &k, (size_t)(i->x.object_bytes - vv_extent_footer_at(&i->x)), &source_said, &i->e);
    if (source_said && i->result == VV_E_NOENT && i->x.state == VV_EXTENT_TOMBSTONED) i->result = 1;
}

/* What is in the round, and what came of it. A topic that is deleted meanwhile is copied as such. */
static int copy_round(struct vv_migrate *m, uint64_t *fresh, struct vv_error *e)
{
    int err = VV_OK;
    vv_round_run(&m->round, copy_extent, m);
    for (size_t k = 0; k < m->round.n; k++) {
        const struct vv_round_item *i = &m->round.v[k];
        if (i->result == 1) continue;
        if (i->result == VV_E_SHUTDOWN && vv_pace_wait(&m->pace, 0) && !atomic_load(&tier(m)->fenced)) continue;
        if (i->result && !err) *e = i->e;
        if (i->result && !err) err = i->result;
        if (i->result) continue;
        ++*fresh;
        atomic_fetch_add(&m->objects, 1);
        atomic_fetch_add(&m->bytes, i->x.object_bytes);
    }
    vv_round_begin(&m->round, &m->pace);
    return err;
}

/* What the index cannot tell is not "nothing there": a part is copied whole or not at all. */
static int no_index(const struct vv_tier_part *p, int err, struct vv_error *e)
{
    return vv_error_set(e, err, "the index of %s-%d: %s", p->topic, (int)p->o.partition, vv_err_name(err));
}

/* The i-th part, or p if that is still the i-th; held, if asked for. NULL: there are no more, or (*again) that one is closing or another. */
static struct vv_tier_part *part_at(struct vv_migrate *m, size_t i, const struct vv_tier_part *p, bool hold, bool *again)
{
    struct vv_tier *t = tier(m);
    pthread_mutex_lock(&t->mu);
    struct vv_tier_part *at = i < t->part_count ? t->parts[i] : NULL;
    *again = at != NULL;
    if (at && ((p && at != p) || (hold && !vv_pace_hold(at)))) at = NULL;
    pthread_mutex_unlock(&t->mu);
    return at;
}

/* The objects of the i-th part, held by us: into rounds, which run when they are full. While one runs the part may go. */
static int copy_objects_of(struct vv_migrate *m, size_t i, struct vv_tier_part *p, bool hold, uint64_t *fresh, struct vv_error *e)
{
    struct vv_extent x;
    int64_t at = 0;
    int err = VV_OK, found;
    bool again;
    while (p && !err && !(found = vv_index_next(p->o.index, at, &x))) {
        vv_extent_release(p->o.index, &x);
        if (x.state == VV_EXTENT_OPEN) break;
        at = x.last + 1;
        if (has_object(&x)) vv_round_add(&m->round, p, hold, &x);
        if (!vv_round_full(&m->round)) continue;
        if (hold) vv_pace_give_back(p);
        err = copy_round(m, fresh, e);
        p = part_at(m, i, p, hold, &again);
    }
    if (p && !err && found && found != VV_E_NOENT) err = no_index(p, found, e);
    if (hold) vv_pace_give_back(p);
    return err;
}

/* Parts that are opened or closed meanwhile change places: the switch looks at all of them once more. */
static int copy_objects(struct vv_migrate *m, bool hold, uint64_t *fresh, struct vv_error *e)
{
    bool again = true;
    int err = VV_OK;
    vv_round_begin(&m->round, &m->pace);
    for (size_t i = 0; again && !err; i++) {
        struct vv_tier_part *p = part_at(m, i, NULL, hold, &again);
        if (p) err = copy_objects_of(m, i, p, hold, fresh, e);
    }
    return err ? err : copy_round(m, fresh, e);
}

static int sweep_part(struct vv_migrate *m, const struct vv_tier_part *p, struct vv_error *e);

static void copy_names_of(void *ctx, size_t i)
{
    struct several *s = ctx;
    struct vv_paced who = s->who;
    struct vv_error e = {0};
    bool again;
    struct vv_tier_part *p = several_failed(s) ? NULL : part_at(s->m, i, NULL, s->hold, &again);
    if (!p) return;
    if (s->hold) who.part = p;
    int err = copy_manifest(s->m, &who, p, s->head, &e);
    if (!err && s->strays) err = sweep_part(s->m, p, &e);
    bool closing = s->hold && err == VV_E_SHUTDOWN && vv_pace_wait(&s->m->pace, 0) && !atomic_load(&tier(s->m)->fenced);
    vv_pace_give_back(who.part);
    if (!closing) several_note(s, err, &e); /* else its topic is deleted: copied as such */
}

/* The manifests and names of all parts. */
static int copy_names(struct vv_migrate *m, bool hold, bool head, bool strays, struct vv_error *e)
{
    struct vv_tier *t = tier(m);
    struct several s = {.m = m, .who = {.pace = &m->pace}, .hold = hold, .head = head, .strays = strays};
    pthread_mutex_lock(&t->mu);
    size_t n = t->part_count;
    pthread_mutex_unlock(&t->mu);
    several_begin(&s);
    vv_abreast(n, SMALL_ABREAST, copy_names_of, &s);
    return several_end(&s, e);
}

/* Topics inside their grace can be undeleted: everything below their prefixes. */
static int copy_deleted(struct vv_migrate *m, const struct vv_deleted_topic *v, size_t n, struct vv_error *e)
{
    char prefix[VV_KEY_MAX];
    struct vv_paced who = {.pace = &m->pace};
    int err = VV_OK;
    for (size_t i = 0; i < n && !err; i++) {
        if (v[i].deleting) continue;
        vv_key_topic_prefix(v[i].id, prefix);
        err = copy_prefix(m, &who, prefix, NULL, false, e);
        vv_key_manifest_prefix(v[i].id, prefix);
        if (!err) err = copy_prefix(m, &who, prefix, NULL, false, e);
    }
    return err;
}

/* Before the switch, so that it is short. */
static int copy_deleted_early(struct vv_migrate *m, struct vv_error *e)
{
    struct vv_tier *t = tier(m);
    pthread_mutex_lock(&t->claim_mu);
    size_t n = t->claim.deleted_count;
    struct vv_deleted_topic *v = n ? malloc(n * sizeof *v) : NULL;
    if (v) memcpy(v, t->claim.deleted, n * sizeof *v);
    pthread_mutex_unlock(&t->claim_mu);
    int err = n && !v ? VV_E_NOMEM : copy_deleted(m, v, n, e);
    free(v);
    return err;
}

/* What was copied and is not known any more: deleted while we copied. */
static int sweep_part(struct vv_migrate *m, const struct vv_tier_part *p, struct vv_error *e)
{
    char prefix[VV_KEY_MAX], after[VV_KEY_MAX] = "";
    bool more = true;
    int err = VV_OK;
    vv_key_part_prefix(p->o.topic_id, p->o.partition, prefix);
    while (more && !err) {
        struct vv_objlist l = {0};
        err = vv_objstore_list(m->to, prefix, *after ? after : NULL, 0, DEADLINE_MS, &l, e);
        for (size_t i = 0; i < l.count && !err; i++) {
            struct vv_segkey k;
            struct vv_extent x = {0};
            if (vv_segkey_parse(l.v[i].key, &k)) continue;
            int found = vv_index_next(p->o.index, k.base, &x);
            if (!found) vv_extent_release(p->o.index, &x);
            if (!found && x.base == k.base && x.nonce == k.nonce && has_object(&x)) continue;
            bool told = !found || found == VV_E_NOENT;
            err = told ? vv_objstore_delete(m->to, l.v[i].key, DEADLINE_MS, e) : no_index(p, found, e);
        }
        more = !err && l.more && l.count;
        if (more) snprintf(after, sizeof after, "%s", l.v[l.count - 1].key);
        vv_objlist_release(&l);
    }
    return err;
}

/* ---- the switch ---- */

static bool quiet(struct vv_tier *t) /* mu held */
{
    bool yes = !t->tier_keeping;
    for (size_t i = 0; i < t->part_count && yes; i++) yes = !t->parts[i]->busy && !t->parts[i]->keeping && !t->parts[i]->merging && !t->parts[i]->leaving;
    return yes;
}

static int settle(struct vv_migrate *m)
{
    struct vv_tier *t = tier(m);
    pthread_mutex_lock(&t->mu);
    t->switching = true;
    bool done = quiet(t);
    pthread_mutex_unlock(&t->mu);
    while (!done) {
        if (!vv_pace_wait(&m->pace, 50000)) return VV_E_SHUTDOWN;
        pthread_mutex_lock(&t->mu);
        done = quiet(t);
        pthread_mutex_unlock(&t->mu);
    }
    return VV_OK;
}

/* With `switching` nothing is uploaded, deleted or committed; a part that is closed now waits, one that is opened has nothing here. */
static int copy_rest(struct vv_migrate *m, struct vv_error *e)
{
    struct vv_tier *t = tier(m);
    struct vv_paced who = {.pace = &m->pace};
    uint64_t fresh = 0;
    bool strays = atomic_load(&t->deletes) != m->deletes;
    int err = copy_objects(m, false, &fresh, e);
    if (!err) err = copy_names(m, false, true, strays, e);
    if (!err) err = copy_deleted(m, t->claim.deleted, t->claim.deleted_count, e);
    if (!err) err = copy_prefix(m, &who, VV_KEY_SNAPSHOTS, NULL, true, e);
    return err ? err : copy_key(m, &who, VV_KEY_CLUSTER, 0, e);
}

static int decide(struct vv_migrate *m, struct vv_error *e)
{
    struct vv_tier *t = tier(m);
    char old[512];
    snprintf(old, sizeof old, "%s", t->store->url);
    int err = copy_rest(m, e);
    if (!err) err = vv_claim_leave(t, m->to->url, e); /* the one step that decides */
    if (err) return err;
    VLOG_INFO("migration: %s is the truth from now on, %s is not written to any more", m->to->url, old);
    if (vv_objpair_replace_first(t->store, m->to)) VV_ASSERT(false); /* room was looked for at the start */
    m->to = NULL;
    if (m->o.switched) m->o.switched(m->o.ctx, t->store->url);
    vv_claim_arrive(t); /* not now: with the next renewal; the old root tells a restart where to go */
    struct vv_tier_part *p;
    bool again;
    for (size_t i = 0; (p = part_at(m, i, NULL, false, &again)); i++) { /* what is remembered of heads is the old store's */
        p->manifest.loaded = false;
        vv_tier_part_dirty(p);
    }
    return VV_OK;
}

static int switch_over(struct vv_migrate *m, struct vv_error *e)
{
    struct vv_tier *t = tier(m);
    int err = settle(m);
    if (!err) {
        vv_snapshots_lock(t);
        pthread_mutex_lock(&t->claim_mu);
        err = decide(m, e);
        pthread_mutex_unlock(&t->claim_mu);
        vv_snapshots_unlock(t);
    }
    pthread_mutex_lock(&t->mu);
    t->switching = false;
    pthread_cond_broadcast(&t->idle);
    pthread_cond_broadcast(&t->work);
    pthread_cond_broadcast(&t->keep);
    pthread_mutex_unlock(&t->mu);
    return err;
}

/* ---- the thread ---- */

/* Empty, or a half-done migration of this cluster. */
static int occupy(struct vv_migrate *m, struct vv_error *e)
{
    struct vv_tier *t = tier(m);
    struct vv_root r = {0};
    struct vv_objlist l = {0};
    int err = vv_root_get(m->to, DEADLINE_MS, &r, e);
    bool none = err == VV_E_NOENT;
    if (none) err = vv_objstore_list(m->to, "", NULL, 1, DEADLINE_MS, &l, e);
    bool other = none ? l.count != 0 : !r.migrating || strcmp(r.cluster_id, t->id.cluster_id);
    vv_objlist_release(&l);
    if (!err && other)
        err = none ? vv_error_set(e, VV_E_CONFLICT, "%s is not empty: a migration needs an empty bucket or prefix", m->to->url)
                   : vv_error_set(e, VV_E_CONFLICT, "%s belongs to cluster %s already: a migration needs an empty bucket or prefix",
                                  m->to->url, r.cluster_id);
    vv_root_release(&r);
    if (err) return err;
    pthread_mutex_lock(&t->claim_mu);
    err = vv_claim_announce(t, m->to, e); /* before anything else is written: what a crash leaves must be known as ours */
    pthread_mutex_unlock(&t->claim_mu);
    unsigned caps;
    if (!err) err = vv_objstore_probe(m->to, "v1/", DEADLINE_MS, &caps, e);
    if (!err) m->to->caps = caps;
    return err;
}

/* All of it. 0: switched. */
static int migrate(struct vv_migrate *m, struct vv_error *e)
{
    uint64_t fresh = FEW + 1;
    atomic_store(&m->state, VV_MIGRATE_COPYING);
    int err = occupy(m, e);
    m->deletes = atomic_load(&tier(m)->deletes);
    for (int pass = 0; !err && fresh > FEW && pass < PASSES_MAX; pass++) {
        struct vv_paced who = {.pace = &m->pace};
        fresh = 0;
        err = copy_objects(m, true, &fresh, e);
        if (!err) err = copy_names(m, true, false, false, e);
        if (!err && !pass) err = copy_deleted_early(m, e);
        if (!err && !pass) err = copy_prefix(m, &who, VV_KEY_SNAPSHOTS, NULL, true, e);
        VLOG_INFO("migration: %" PRIu64 " objects (%" PRIu64 " bytes) copied to %s", atomic_load(&m->objects), atomic_load(&m->bytes),
                  m->to->url);
    }
    if (err) return err;
    atomic_store(&m->state, VV_MIGRATE_SWITCHING);
    return switch_over(m, e);
}

/* What a person must settle; all else is tried again. */
static bool hopeless(int err)
{
    return err == VV_E_CONFLICT || err == VV_E_CONFIG || err == VV_E_UNSUPPORTED || err == VV_E_CORRUPT;
}

static void *run(void *arg)
{
    struct vv_migrate *m = arg;
    vv_thread_background("migrate");
    struct vv_tier *t = tier(m);
    while (atomic_load(&t->fenced) && vv_pace_wait(&m->pace, AGAIN_US)) continue;
    while (vv_pace_wait(&m->pace, 0)) {
        struct vv_error e = {0};
        int err = migrate(m, &e);
        if (!err) {
            atomic_store(&m->state, VV_MIGRATE_DONE);
            break;
        }
        if (!vv_pace_wait(&m->pace, 0)) break;
        if (hopeless(err)) {
            VLOG_ERROR("migration: given up, nothing was switched: %s", e.text[0] ? e.text : vv_err_name(err));
            atomic_store(&m->state, VV_MIGRATE_FAILED);
            break;
        }
        VLOG_WARN("migration: %s; trying again", e.text[0] ? e.text : vv_err_name(err));
        vv_pace_wait(&m->pace, vv_tier_backoff_us(t, m->failures++, AGAIN_US, AGAIN_MAX_US));
    }
    int state = atomic_load(&m->state);
    if (state == VV_MIGRATE_DONE || state == VV_MIGRATE_FAILED) return NULL;
    VLOG_INFO("migration: stopped before the switch, %s stays the bucket", t->store->url);
    atomic_store(&m->state, VV_MIGRATE_FAILED);
    return NULL;
}

int vv_tier_migrate(struct vv_tier *t, const struct vv_tier_migration *o, struct vv_error *e)
{
    int err = VV_OK;
    if (t->migrate) err = vv_error_set(e, VV_E_STATE, "a migration is under way or was done in this life");
    else if (!vv_objpair_is(t->store)) err = vv_error_set(e, VV_E_UNSUPPORTED, "this store cannot be replaced");
    else if (vv_objpair_second(t->store))
        err = vv_error_set(e, VV_E_STATE, "%s is still being filled from its origin: migrate when that is complete", t->store->url);
    struct vv_migrate *m = err ? NULL : calloc(1, sizeof *m);
    if (!err && !m) err = vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (err) {
        vv_objstore_close(o->to);
        return err;
    }
    struct vv_tier_config c;
    vv_tier_config_get(t, &c);
    m->o = *o;
    m->to = o->to;
    vv_pace_init(&m->pace, t);
    m->copy = (struct vv_copy){.env = t->env, .from = vv_objpair_first(t->store), .to = o->to, .keys = t->store->keys,
                               .clusters = t->clusters, .full = c.verify_full, .go_on = vv_pace_go_on};
    atomic_init(&m->state, VV_MIGRATE_COPYING); /* who asks at once must not think that it has failed */
    t->migrate = m;
    VLOG_INFO("migration: moving the bucket from %s to %s", t->store->url, o->to->url);
    m->running = !pthread_create(&m->thread, NULL, run, m);
    return m->running ? VV_OK : vv_error_set(e, VV_E_NOMEM, "cannot start a thread");
}

void vv_migrate_stop(struct vv_migrate *m)
{
    if (!m) return;
    vv_pace_stop(&m->pace);
    if (m->running) pthread_join(m->thread, NULL);
    m->running = false;
}

void vv_migrate_free(struct vv_migrate *m)
{
    if (!m) return;
    VV_ASSERT(!m->running);
    vv_objstore_close(m->to);
    vv_pace_release(&m->pace);
    free(m);
}

void vv_tier_migrate_cancel(struct vv_tier *t)
{
    if (t->migrate) vv_pace_stop(&t->migrate->pace);
}

void vv_migrate_stats(struct vv_migrate *m, struct vv_tier_stats *out)
{
    if (!m) return;
    out->migrate_state = (enum vv_migrate_state)atomic_load(&m->state);
    out->migrate_objects = atomic_load(&m->objects);
    out->migrate_bytes = atomic_load(&m->bytes);
}
