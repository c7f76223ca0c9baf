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
 * Threads: one. `switching` is tier->mu's; at the switch the snapshots' lock and then claim_mu are held. */
#include "copy.h"
#include "obj_pair.h"
#include "pace.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdlib.h>

#define AGAIN_US     2000000
#define AGAIN_MAX_US 60000000
#define DEADLINE_MS  60000
#define SMALL_MAX    (256u << 20)
#define FEW          16 /* objects that may be left for the switch */
#define PASSES_MAX   20

struct vv_migrate {
    struct vv_tier_migration o;
    pthread_t thread;
    bool running;
    struct vv_pace pace;
    struct vv_copy copy;
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

/* One key as it is; a segment is proven. A source that does not have it any more is no error: it was deleted meanwhile. */
static int copy_key(struct vv_migrate *m, const char *key, size_t size, struct vv_error *e)
{
    struct vv_segkey k;
    bool source_said = false;
    int err;
    if (!vv_pace_go_on(&m->pace, vv_segkey_parse(key, &k) ? size : 0)) return vv_error_set(e, VV_E_SHUTDOWN, "stopped");
    if (!vv_segkey_parse(key, &k)) {
        err = vv_copy_segment(&m->copy, &k, 65536, &source_said, e);
        if (source_said && err == VV_E_NOENT) return VV_OK;
        return err == 1 ? VV_OK : err;
    }
    err = vv_copy_small(&m->copy, key, SMALL_MAX, e);
    return err == VV_E_NOENT ? VV_OK : err;
}

/* Everything below a prefix; `skip` is a suffix that is left out, NULL: nothing. Keys that the new bucket has in the same size are not
 * copied again when they never change (`fixed`). */
static int copy_prefix(struct vv_migrate *m, const char *prefix, const char *skip, bool fixed, struct vv_error *e)
{
    char after[VV_KEY_MAX] = "";
    bool more = true;
    int err = VV_OK;
    while (more && !err) {
        struct vv_objlist l = {0};
        err = vv_objstore_list(m->copy.from, prefix, *after ? after : NULL, 0, DEADLINE_MS, &l, e);
        for (size_t i = 0; i < l.count && !err; i++) {
            const char *key = l.v[i].key;
            size_t n = strlen(key), k = skip ? strlen(skip) : 0;
            struct vv_objinfo have;
            if (skip && n >= k && !strcmp(key + n - k, skip)) continue;
            if (fixed && !vv_objstore_head(m->to, key, DEADLINE_MS, &have, NULL) && have.size == l.v[i].size) continue;
            err = copy_key(m, key, (size_t)l.v[i].size, e);
        }
        more = !err && l.more && l.count;
        if (more) snprintf(after, sizeof after, "%s", l.v[l.count - 1].key);
        vv_objlist_release(&l);
    }
    return err;
}

static int copy_manifest(struct vv_migrate *m, const struct vv_tier_part *p, bool head, struct vv_error *e)
{
    char key[VV_KEY_MAX], prefix[VV_KEY_MAX];
    vv_key_head(p->o.topic_id, p->o.partition, key);
    snprintf(prefix, sizeof prefix, "%.*s", (int)(strlen(key) - sizeof "head.json" + 1), key);
    int err = copy_prefix(m, prefix, "head.json", true, e);
    if (!err && head) err = copy_key(m, key, 0, e);
    vv_key_topic(p->o.topic_id, key);
    if (!err && head) err = copy_key(m, key, 0, e); /* its name may have changed since */
    return err;
}

/* ---- copying what the index knows ---- */

static bool has_object(const struct vv_extent *x)
{
    return x->nonce && (vv_extent_is_remote(x) || x->state == VV_EXTENT_TOMBSTONED);
}

static int copy_extent(struct vv_migrate *m, const struct vv_tier_part *p, const struct vv_extent *x, uint64_t *fresh, struct vv_error *e)
{
    struct vv_segkey k;
    bool source_said = false;
    vv_segkey_of(p->o.topic_id, p->o.partition, x, &k);
    int err = vv_copy_segment(&m->copy, &k, (size_t)(x->object_bytes - vv_extent_footer_at(x)), &source_said, e);
    if (source_said && err == VV_E_NOENT && x->state == VV_EXTENT_TOMBSTONED) return VV_OK;
    if (err == 1) return VV_OK;
    if (err) return err;
    ++*fresh;
    atomic_fetch_add(&m->objects, 1);
    atomic_fetch_add(&m->bytes, x->object_bytes);
    return VV_OK;
}

/* What the index cannot tell is not "nothing there": a part is copied whole or not at all. */
static int no_index(const struct vv_tier_part *p, int err, struct vv_error *e)
{
    return vv_error_set(e, err, "the index of %s-%d: %s", p->topic, (int)p->o.partition, vv_err_name(err));
}

static int copy_part(struct vv_migrate *m, const struct vv_tier_part *p, uint64_t *fresh, struct vv_error *e)
{
    struct vv_extent x;
    char key[VV_KEY_MAX];
    int64_t at = 0;
    int err;
    bool any = false;
    while (!(err = vv_index_next(p->o.index, at, &x))) {
        vv_extent_release(p->o.index, &x);
        if (x.state == VV_EXTENT_OPEN) break;
        at = x.last + 1;
        if (!has_object(&x)) continue;
        any = true;
        int failed = copy_extent(m, p, &x, fresh, e);
        if (failed) return failed;
    }
    if (err && err != VV_E_NOENT) return no_index(p, err, e);
    err = VV_OK;
    struct vv_objinfo have;
    vv_key_topic(p->o.topic_id, key);
    if (!err && any && vv_objstore_head(m->to, key, DEADLINE_MS, &have, NULL)) err = copy_key(m, key, 0, e);
    return err ? err : copy_manifest(m, p, false, e);
}

/* The i-th part, held; NULL: there are no more, or (*again) that one is closing. */
static struct vv_tier_part *hold(struct vv_migrate *m, size_t i, bool *again)
{
    struct vv_tier *t = tier(m);
    pthread_mutex_lock(&t->mu);
    struct vv_tier_part *p = i < t->part_count ? t->parts[i] : NULL;
    *again = p != NULL;
    if (p && !vv_pace_hold(&m->pace, p)) p = NULL;
    pthread_mutex_unlock(&t->mu);
    return p;
}

/* Parts that are opened or closed meanwhile change places: the switch looks at all of them once more. */
static int copy_parts(struct vv_migrate *m, uint64_t *fresh, struct vv_error *e)
{
    bool again = true;
    int err = VV_OK;
    *fresh = 0;
    for (size_t i = 0; again && !err; i++) {
        if (!hold(m, i, &again)) continue;
        err = copy_part(m, m->pace.part, fresh, e);
        bool closing = err == VV_E_SHUTDOWN && vv_pace_wait(&m->pace, 0);
        vv_pace_give_back(&m->pace);
        if (closing && !atomic_load(&tier(m)->fenced)) err = VV_OK; /* its topic is deleted: copied as such */
    }
    return err;
}

/* Topics inside their grace can be undeleted: everything below their prefixes. */
static int copy_deleted(struct vv_migrate *m, const struct vv_deleted_topic *v, size_t n, struct vv_error *e)
{
    char prefix[VV_KEY_MAX];
    int err = VV_OK;
    for (size_t i = 0; i < n && !err; i++) {
        if (v[i].deleting) continue;
        vv_key_topic_prefix(v[i].id, prefix);
        err = copy_prefix(m, prefix, NULL, false, e);
        vv_key_manifest_prefix(v[i].id, prefix);
        if (!err) err = copy_prefix(m, prefix, NULL, false, e);
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

static struct vv_tier_part *part_at(struct vv_tier *t, size_t i)
{
    pthread_mutex_lock(&t->mu);
    struct vv_tier_part *p = i < t->part_count ? t->parts[i] : NULL;
    pthread_mutex_unlock(&t->mu);
    return p;
}

/* With `switching` nothing is uploaded, deleted or committed; a part that is closed now waits, one that is opened has nothing here. */
static int copy_rest(struct vv_migrate *m, struct vv_error *e)
{
    struct vv_tier *t = tier(m);
    uint64_t fresh = 0;
    bool strays = atomic_load(&t->deletes) != m->deletes;
    int err = VV_OK;
    const struct vv_tier_part *p;
    for (size_t i = 0; !err && (p = part_at(t, i)); i++) {
        err = copy_part(m, p, &fresh, e);
        if (!err) err = copy_manifest(m, p, true, e);
        if (!err && strays) err = sweep_part(m, p, e);
    }
    if (!err) err = copy_deleted(m, t->claim.deleted, t->claim.deleted_count, e);
    if (!err) err = copy_prefix(m, VV_KEY_SNAPSHOTS, NULL, true, e);
    return err ? err : copy_key(m, VV_KEY_CLUSTER, 0, e);
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
    for (size_t i = 0; (p = part_at(t, i)); i++) { /* what is remembered of heads is the old store's */
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
        err = copy_parts(m, &fresh, e);
        if (!err && !pass) err = copy_deleted_early(m, e);
        if (!err && !pass) err = copy_prefix(m, VV_KEY_SNAPSHOTS, NULL, true, e);
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
                               .clusters = t->clusters, .full = c.verify_full, .go_on = vv_pace_go_on, .ctx = &m->pace};
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
