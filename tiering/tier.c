/* tier.c — the tier as a whole: opening, threads, parts, small calls. Contract: varve/tier.h; structures and locks: tier_impl.h.
 *
 * Work is found, not queued: a part says that it may have something (kicked, dirty, swept, delete_check_us) and an
 * uploader or the housekeeper takes the next part that is due, round robin. vv_tier_step does the same on the caller's
 * thread. Marks (busy, keeping) make each kind of work single per part; closing a part waits for both. */
#include "jsoncrc.h"
#include "obj_pair.h"
#include "tier_impl.h"
#include "diskcache.h"
#include "varve/thread.h"
#include "jsontext.h"
#include "varve/vlog.h"
#include "varve/wait.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define UPLOAD_BACKOFF_US 200000
#define UPLOAD_BACKOFF_MAX_US 30000000
#define MERGE_LOOK_US 60000000 /* small objects grow old slowly */
#define ROOT_ASK_MS 15000
#define KEEP_BACKOFF_US 500000
#define KEEP_BACKOFF_MAX_US 60000000

/* ---- small helpers ---- */

static void fill_defaults(struct vv_tier_config *c)
{
    if (c->upload_threads <= 0) c->upload_threads = 2;
    if (!c->cache_bytes_max) c->cache_bytes_max = 128u << 20;
    if (!c->chunk_bytes) c->chunk_bytes = 16u << 20;
    if (c->readahead_chunks < 0) c->readahead_chunks = 16;
    if (c->fetch_deadline_ms <= 0) c->fetch_deadline_ms = 30000;
    if (c->manifest_interval_ms <= 0) c->manifest_interval_ms = 60000;
    if (c->manifest_batch <= 0) c->manifest_batch = 16;
    if (!c->merge_bytes_max) c->merge_bytes_max = 16u << 20;
    if (c->merge_span_ms <= 0) c->merge_span_ms = INT64_MAX;
}

void vv_tier_config_get(struct vv_tier *t, struct vv_tier_config *out)
{
    pthread_mutex_lock(&t->mu);
    *out = t->config;
    pthread_mutex_unlock(&t->mu);
}

/* Written once: reads may be under way when a bucket that was away is claimed late, and it says the same then. */
void vv_tier_set_clusters(struct vv_tier *t, const struct vv_origins *o)
{
    static const struct vv_origins none;
    char text[VV_CLUSTERS_MAX];
    vv_clusters_text(t->id.cluster_id, o ? o : &none, text);
    if (strcmp(text, t->clusters)) memcpy(t->clusters, text, sizeof text);
}

int vv_tier_saw(struct vv_tier *t, int err)
{
    bool away = err == VV_E_AGAIN || err == VV_E_TIMEOUT || err == VV_E_ACCESS || err == VV_E_IO || err == VV_E_PROTO;
    atomic_store(&t->store_ok, !away);
    return err;
}

int64_t vv_tier_backoff_us(struct vv_tier *t, unsigned failures, int64_t base_us, int64_t max_us)
{
    uint32_t r;
    int64_t whole = base_us << VV_MIN(failures, 20u);
    if (whole > max_us) whole = max_us;
    vv_random(t->env, &r, sizeof r);
    return whole / 2 + (int64_t)(r % (uint64_t)(whole / 2 + 1));
}

bool vv_tier_overdue(struct vv_tier *t)
{
    int64_t by = atomic_load(&t->stop_by_us);
    return by && vv_mono_us(t->env) >= by;
}

static void wait_us(struct vv_tier *t, pthread_cond_t *c, int64_t us) /* mu held; for threads only: the kernel's clock */
{
    struct timespec ts = vv_deadline_us(us);
    pthread_cond_timedwait(c, &t->mu, &ts);
}

void vv_tier_wait_until(struct vv_tier *t, const int64_t *until_us)
{
    while (!t->stopping && t->started) {
        int64_t wait = *until_us - vv_mono_us(t->env);
        if (wait <= 0) return;
        wait_us(t, &t->idle, VV_MIN(wait, (int64_t)1000000));
    }
}

/* ---- open, free ---- */

static struct vv_tier *tier_new(struct vv_env *env, struct vv_objstore *store, const struct vv_tier_config *c)
{
    struct vv_tier *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->env = env;
    t->store = store;
    t->config = *c;
    fill_defaults(&t->config);
    atomic_init(&t->store_ok, true);
    pthread_mutex_init(&t->mu, NULL);
    pthread_mutex_init(&t->claim_mu, NULL);
    vv_cond_init(&t->work);
    vv_cond_init(&t->keep);
    vv_cond_init(&t->idle);
    t->clock_gap_ms = vv_wall_ms(env) - vv_mono_ms(env);
    if (!c->cache_dir) return t;
    t->disk = vv_diskcache_new(env, c->cache_dir, c->cache_disk_bytes, c->disk_reserve);
    if (t->disk) return t;
    vv_tier_free(t);
    return NULL;
}

int vv_tier_open(struct vv_env *env, struct vv_objstore *store, const struct vv_tier_config *c, struct vv_tier_identity *id,
                 bool take_over, struct vv_tier **out, struct vv_error *e)
{
    *out = NULL;
    struct vv_tier *t = tier_new(env, store, c);
    if (!t) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    t->id = *id;
    int err = vv_claim_take(t, take_over, e);
    if (err) {
        vv_tier_free(t);
        return err;
    }
    if ((store->caps & VV_OBJ_CAP_CONDITIONAL_PUT) != VV_OBJ_CAP_CONDITIONAL_PUT)
        VLOG_WARN("tier: %s has no conditional writes: nothing keeps a second writer out, see to it that only this broker "
                  "writes there", store->url);
    memcpy(id->cluster_id, t->id.cluster_id, sizeof id->cluster_id);
    VLOG_INFO("tier: writing to %s as cluster %s, writer epoch %llu", store->url, t->id.cluster_id,
              (unsigned long long)t->claim.writer_epoch);
    *out = t;
    return VV_OK;
}

int vv_tier_open_later(struct vv_env *env, struct vv_objstore *store, const struct vv_tier_config *c, const struct vv_tier_identity *id,
                       bool take_over, struct vv_tier **out, struct vv_error *e)
{
    VV_ASSERT(id->cluster_id[0]);
    struct vv_tier *t = *out = tier_new(env, store, c);
    if (!t) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    t->id = *id;
    vv_tier_set_clusters(t, id->origins);
    if (id->origins) t->claim.origins = *id->origins;
    t->take_over = take_over;
    t->claim.lost = true;
    atomic_store(&t->fenced, true);
    atomic_store(&t->unclaimed, true);
    atomic_store(&t->store_ok, false);
    return VV_OK;
}

static int replica_of(struct vv_tier *t, const struct vv_root *r, struct vv_error *e)
{
    const char *url = t->store->url;
    if (r->migrating || *r->moved_to)
        return vv_error_set(e, VV_E_CONFLICT, *r->moved_to ? "%s was moved to %s: follow that one" : "%s is being filled by a migration%s: wait for its end",
                            url, r->moved_to);
    if (r->origins.n && !r->origins.v[0].hydrated)
        return vv_error_set(e, VV_E_CONFLICT, "%s is itself still being filled from %s: follow that one, or wait until it is complete", url,
                            r->origins.v[0].url);
    if (*t->id.cluster_id && strcmp(t->id.cluster_id, r->cluster_id))
        return vv_error_set(e, VV_E_CONFLICT, "%s belongs to cluster %s, and the data directory is a replica of cluster %s: choose another "
                            "directory with --data-dir DIR", url, r->cluster_id, t->id.cluster_id);
    memcpy(t->id.cluster_id, r->cluster_id, sizeof t->id.cluster_id);
    vv_tier_set_clusters(t, &r->origins);
    return VV_OK;
}

int vv_tier_open_replica(struct vv_env *env, struct vv_objstore *store, const struct vv_tier_config *c, struct vv_tier_identity *id,
                         struct vv_tier **out, struct vv_error *e)
{
    struct vv_root r = {0};
    *out = NULL;
    struct vv_tier *t = tier_new(env, store, c);
    if (!t) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    t->id = *id;
    t->replica = t->claim.lost = true;
    atomic_store(&t->fenced, true);
    int err = vv_root_get(store, ROOT_ASK_MS, &r, e);
    if (err == VV_E_NOENT)
        vv_error_set(e, err, "%s is not a Varve bucket: there is no %s in it (is the prefix right?)", store->url, VV_KEY_ROOT);
    if (!err) err = replica_of(t, &r, e);
    vv_root_release(&r);
    if (err) {
        vv_tier_free(t);
        return err;
    }
    memcpy(id->cluster_id, t->id.cluster_id, sizeof id->cluster_id);
    *out = t;
    return VV_OK;
}

void vv_tier_free(struct vv_tier *t)
{
    if (!t) return;
    VV_ASSERT(!t->started && !t->part_count);
    vv_diskcache_stop(t->disk); /* no read of the reader waits there any more */
    vv_reader_free(t->reader);
    vv_diskcache_free(t->disk);
    vv_claim_free(t);
    vv_hydrate_free(t->hydrate);
    vv_migrate_free(t->migrate);
    vv_snapshots_free(t->snapshots);
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->keep);
    pthread_cond_destroy(&t->idle);
    pthread_mutex_destroy(&t->mu);
    pthread_mutex_destroy(&t->claim_mu);
    free(t->parts);
    free(t->topics_named);
    free(t->uploaders);
    free(t);
}

/* ---- taking work: mu held on entry and exit of the pick_… and end_… pairs ---- */

static struct vv_tier_part *pick_upload(struct vv_tier *t, int64_t now)
{
    if (atomic_load(&t->fenced) || t->switching) return NULL;
    for (size_t i = 0; i < t->part_count; i++) {
        struct vv_tier_part *p = t->parts[(t->upload_turn + i) % t->part_count];
        if (p->busy || p->closing || !p->kicked || p->upload_after_us > now) continue;
        t->upload_turn = (t->upload_turn + i + 1) % t->part_count;
        p->busy = true;
        p->kicked = false;
        return p;
    }
    return NULL;
}

static void end_upload(struct vv_tier *t, struct vv_tier_part *p, int result)
{
    p->busy = false;
    if (result) p->kicked = true; /* there may be more, or try again */
    if (result < 0) {
        p->upload_after_us = vv_mono_us(t->env) +
                             vv_tier_backoff_us(t, p->upload_failures++, UPLOAD_BACKOFF_US, UPLOAD_BACKOFF_MAX_US);
    } else {
        p->upload_failures = 0;
        p->upload_after_us = 0;
    }
    pthread_cond_broadcast(&t->idle);
}

static struct vv_tier_part *pick_keep(struct vv_tier *t, int64_t now)
{
    if (atomic_load(&t->fenced) || t->switching) return NULL;
    for (size_t i = 0; i < t->part_count; i++) {
        struct vv_tier_part *p = t->parts[(t->keep_turn + i) % t->part_count];
        if (p->keeping || p->closing || p->keep_after_us > now || !vv_keeper_part_due(p, now)) continue;
        t->keep_turn = (t->keep_turn + i + 1) % t->part_count;
        p->keeping = true;
        return p;
    }
    return NULL;
}

static void end_keep(struct vv_tier *t, struct vv_tier_part *p, int result)
{
    p->keeping = false;
    if (result < 0) {
        p->keep_after_us = vv_mono_us(t->env) + vv_tier_backoff_us(t, p->keep_failures++, KEEP_BACKOFF_US, KEEP_BACKOFF_MAX_US);
    } else {
        p->keep_failures = 0;
        p->keep_after_us = 0;
    }
    pthread_cond_broadcast(&t->idle);
}

static struct vv_tier_part *pick_merge(struct vv_tier *t, int64_t now)
{
    if (t->switching || atomic_load(&t->fenced)) return NULL;
    for (size_t i = 0; i < t->part_count; i++) {
        struct vv_tier_part *p = t->parts[(t->merge_turn + i) % t->part_count];
        if (p->merging || p->closing || p->merge_after_us > now) continue;
        t->merge_turn = (t->merge_turn + i + 1) % t->part_count;
        p->merging = true;
        return p;
    }
    return NULL;
}

static void end_merge(struct vv_tier *t, struct vv_tier_part *p, int result)
{
    p->merging = false;
    int64_t wait = result > 0 ? 0 : MERGE_LOOK_US;
    if (result < 0) wait = vv_tier_backoff_us(t, p->merge_failures, KEEP_BACKOFF_US, KEEP_BACKOFF_MAX_US);
    p->merge_failures = result < 0 ? p->merge_failures + 1 : 0;
    p->merge_after_us = vv_mono_us(t->env) + wait;
    pthread_cond_broadcast(&t->idle);
}

/* Each: 1 = did or tried something. mu held; given up while working. */
static int do_upload(struct vv_tier *t)
{
    struct vv_tier_part *p = pick_upload(t, vv_mono_us(t->env));
    if (!p) return 0;
    pthread_mutex_unlock(&t->mu);
    int result = vv_uploader_step(p);
    pthread_mutex_lock(&t->mu);
    end_upload(t, p, result);
    return 1;
}

static int do_keep(struct vv_tier *t)
{
    int64_t now = vv_mono_us(t->env);
    int result;
    bool claim = atomic_load(&t->unclaimed);
    if (!t->tier_keeping && !t->switching && t->tier_after_us <= now && (claim || !atomic_load(&t->fenced))) {
        t->tier_keeping = true;
        pthread_mutex_unlock(&t->mu);
        result = claim ? vv_claim_take_late(t) : vv_keeper_tier_step(t);
        pthread_mutex_lock(&t->mu);
        t->tier_keeping = false;
        if (claim && result == 1) pthread_cond_broadcast(&t->work); /* uploads waited for it */
        t->tier_failures = result < 0 ? t->tier_failures + 1 : 0;
        if (result < 0) t->tier_after_us = now + vv_tier_backoff_us(t, t->tier_failures, KEEP_BACKOFF_US, 10000000);
        if (result) return 1;
    }
    struct vv_tier_part *p = pick_keep(t, now);
    if (!p) return 0;
    pthread_mutex_unlock(&t->mu);
    result = vv_keeper_part_step(p, false);
    pthread_mutex_lock(&t->mu);
    end_keep(t, p, result);
    return 1;
}

static int do_merge(struct vv_tier *t)
{
    struct vv_tier_part *p = pick_merge(t, vv_mono_us(t->env));
    if (!p) return 0;
    pthread_mutex_unlock(&t->mu);
    int result = vv_merge_step(p);
    pthread_mutex_lock(&t->mu);
    end_merge(t, p, result);
    return result != 0;
}

/* Reads that had to wait for their share of the bandwidth go on. mu held; given up meanwhile. */
static void tick_reader(struct vv_tier *t)
{
    struct vv_reader *reader = t->reader;
    if (!reader) return;
    pthread_mutex_unlock(&t->mu);
    vv_diskcache_tick(t->disk);
    vv_reader_tick(reader);
    pthread_mutex_lock(&t->mu);
}

int vv_tier_step(struct vv_tier *t)
{
    pthread_mutex_lock(&t->mu);
    tick_reader(t);
    int did = do_upload(t);
    if (!did) did = do_keep(t);
    if (!did) did = do_merge(t);
    pthread_mutex_unlock(&t->mu);
    return did ? did : vv_scrub_step(t);
}

void vv_tier_hurry(struct vv_tier *t)
{
    pthread_mutex_lock(&t->mu);
    t->tier_after_us = 0;
    for (size_t i = 0; i < t->part_count; i++) {
        struct vv_tier_part *p = t->parts[i];
        if (t->config.gc_interval_ms) p->gc.due_us = 0;
        p->upload_after_us = p->keep_after_us = p->merge_after_us = 0;
        p->dirty_since_us = INT64_MIN / 2;
        if (p->delete_check_us != INT64_MAX) p->delete_check_us = 0;
    }
    pthread_cond_broadcast(&t->work);
    pthread_cond_broadcast(&t->keep);
    pthread_mutex_unlock(&t->mu);
}

/* ---- threads ---- */

static void *uploader_main(void *arg)
{
    struct vv_tier *t = arg;
    vv_thread_background("tier-upload");
    pthread_mutex_lock(&t->mu);
    while (!t->stopping) {
        if (!do_upload(t)) wait_us(t, &t->work, 200000); /* back-offs end without a signal */
        tick_reader(t);
    }
    pthread_mutex_unlock(&t->mu);
    return NULL;
}

static void *keeper_main(void *arg)
{
    struct vv_tier *t = arg;
    vv_thread_background("tier-keeper");
    pthread_mutex_lock(&t->mu);
    while (!t->stopping) {
        if (!do_keep(t)) wait_us(t, &t->keep, 200000);
        tick_reader(t);
    }
    pthread_mutex_unlock(&t->mu);
    return NULL;
}

static void *merger_main(void *arg)
{
    struct vv_tier *t = arg;
    vv_thread_background("tier-merger");
    pthread_mutex_lock(&t->mu);
    while (!t->stopping)
        if (!do_merge(t)) wait_us(t, &t->idle, 1000000);
    pthread_mutex_unlock(&t->mu);
    return NULL;
}

static void *scrubber_main(void *arg)
{
    struct vv_tier *t = arg;
    vv_thread_background("tier-scrubber");
    pthread_mutex_lock(&t->mu);
    while (!t->stopping) {
        pthread_mutex_unlock(&t->mu);
        int did = vv_scrub_step(t);
        pthread_mutex_lock(&t->mu);
        if (!did && !t->stopping) wait_us(t, &t->keep, 1000000);
    }
    pthread_mutex_unlock(&t->mu);
    vv_scrub_save(t);
    return NULL;
}

static void join_threads(struct vv_tier *t)
{
    pthread_mutex_lock(&t->mu);
    t->stopping = true;
    pthread_cond_broadcast(&t->work);
    pthread_cond_broadcast(&t->keep);
    pthread_cond_broadcast(&t->idle);
    pthread_mutex_unlock(&t->mu);
    for (int i = 0; i < t->uploader_count; i++) pthread_join(t->uploaders[i], NULL);
    if (t->started) pthread_join(t->keeper, NULL);
    if (t->started) pthread_join(t->scrubber, NULL);
    vv_hydrate_stop(t->hydrate);
    vv_migrate_stop(t->migrate);
    if (t->merging) pthread_join(t->merger, NULL);
    t->merging = false;
    t->uploader_count = 0;
    t->started = false;
}

int vv_tier_start(struct vv_tier *t)
{
    VV_ASSERT(!t->started);
    int failed = vv_diskcache_start(t->disk);
    if (failed) return failed;
    t->uploaders = calloc((size_t)t->config.upload_threads, sizeof *t->uploaders);
    if (!t->uploaders) return VV_E_NOMEM;
    t->stopping = false;
    t->started = true; /* before the threads: they read it */
    int rc = pthread_create(&t->keeper, NULL, keeper_main, t);
    if (!rc && (rc = pthread_create(&t->scrubber, NULL, scrubber_main, t))) {
        pthread_mutex_lock(&t->mu);
        t->stopping = true;
        pthread_cond_broadcast(&t->keep);
        pthread_mutex_unlock(&t->mu);
        pthread_join(t->keeper, NULL);
    }
    if (rc) {
        t->started = false;
        return vv_err_from_errno(rc);
    }
    int err = vv_hydrate_start(t);
    if (err) {
        join_threads(t);
        return err;
    }
    t->merging = !pthread_create(&t->merger, NULL, merger_main, t); /* small objects stay small without it */
    for (; t->uploader_count < t->config.upload_threads; t->uploader_count++) {
        rc = pthread_create(&t->uploaders[t->uploader_count], NULL, uploader_main, t);
        if (!rc) continue;
        if (t->uploader_count) break; /* fewer will do */
        join_threads(t);
        return vv_err_from_errno(rc);
    }
    return VV_OK;
}

void vv_tier_configure(struct vv_tier *t, const struct vv_tier_config *c)
{
    struct vv_tier_config filled = *c;
    fill_defaults(&filled);
    pthread_mutex_lock(&t->mu);
    filled.upload_threads = t->config.upload_threads; /* fixed while running */
    filled.cache_dir = t->config.cache_dir;
    filled.disk_reserve = t->config.disk_reserve;
    t->config = filled;
    struct vv_reader *reader = t->reader;
    pthread_cond_broadcast(&t->keep);
    pthread_mutex_unlock(&t->mu);
    vv_diskcache_limit(t->disk, filled.cache_disk_bytes);
    vv_reader_configure(reader, &filled);
}

static void flush_manifest(struct vv_tier_part *p)
{
    struct vv_tier *t = p->tier;
    if (atomic_load(&t->fenced)) return;
    pthread_mutex_lock(&t->mu);
    while (p->keeping || t->switching) pthread_cond_wait(&t->idle, &t->mu);
    bool dirty = p->dirty != 0;
    p->keeping = true;
    pthread_mutex_unlock(&t->mu);
    int result = dirty ? vv_keeper_part_step(p, true) : 0;
    pthread_mutex_lock(&t->mu);
    end_keep(t, p, result);
    pthread_mutex_unlock(&t->mu);
}

void vv_tier_stop(struct vv_tier *t, int64_t grace_ms)
{
    int64_t by = vv_mono_us(t->env) + VV_MAX(grace_ms, (int64_t)0) * 1000;
    atomic_store(&t->stop_by_us, VV_MAX(by, (int64_t)1));
    join_threads(t);
    bool reachable = true;
    for (size_t i = 0; i < t->part_count && reachable; i++) { /* the caller opens and closes no parts meanwhile */
        flush_manifest(t->parts[i]);
        reachable = atomic_load(&t->store_ok) && !vv_tier_overdue(t);
    }
    if (reachable) vv_claim_release(t);
}

/* ---- parts ---- */

void vv_tier_where(struct vv_tier_part *p, struct vv_manifest_where *w)
{
    struct vv_tier *t = p->tier;
    *w = (struct vv_manifest_where){.env = t->env, .store = t->store, .cluster_id = t->id.cluster_id, .topic = p->topic,
                                    .topic_id = p->o.topic_id, .partition = p->o.partition,
                                    .writer_epoch = t->claim.writer_epoch};
}

static int parts_add(struct vv_tier *t, struct vv_tier_part *p) /* mu held */
{
    if (t->part_count == t->part_cap) {
        size_t cap = t->part_cap ? t->part_cap * 2 : 16;
        struct vv_tier_part **v = realloc(t->parts, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        t->parts = v;
        t->part_cap = cap;
    }
    t->parts[t->part_count++] = p;
    return VV_OK;
}

int vv_tier_part_open(struct vv_tier *t, const struct vv_tier_part_opts *o, struct vv_tier_part **out, struct vv_error *e)
{
    *out = NULL;
    struct vv_tier_part *p = calloc(1, sizeof *p);
    if (!p) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    p->tier = t;
    p->o = *o;
    snprintf(p->topic, sizeof p->topic, "%s", o->topic);
    p->o.topic = p->topic;
    p->replica.newest.base = -1;
    atomic_init(&p->copy_disabled, o->copy_disabled);
    atomic_init(&p->segment_bytes, o->segment_bytes);
    pthread_mutex_init(&p->life, NULL);
    struct vv_index_summary s;
    vv_index_summary(o->index, &s);
    p->kicked = true;
    vv_gc_begin(p);
    if (s.remote_end >= 0 || s.log_start > 0) { /* a crash may have come between an upload and its manifest */
        p->dirty = 1;
        p->dirty_since_us = vv_mono_us(t->env);
    }
    pthread_mutex_lock(&t->mu);
    int err = parts_add(t, p);
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->mu);
    if (err) {
        free(p);
        return vv_error_set(e, err, "out of memory");
    }
    *out = p;
    return VV_OK;
}

bool vv_tier_hydrates(const struct vv_tier *t)
{
    return t->claim.origins.n && !t->claim.origins.v[0].hydrated;
}

void vv_tier_part_close(struct vv_tier_part *p)
{
    if (!p) return;
    struct vv_tier *t = p->tier;
    pthread_mutex_lock(&t->mu);
    p->closing = true;
    pthread_cond_broadcast(&t->idle); /* a scrub that waits for its budget */
    while (p->busy || p->keeping || p->copying || p->merging || p->scrubbing) pthread_cond_wait(&t->idle, &t->mu);
    pthread_mutex_unlock(&t->mu);
    flush_manifest(p);
    pthread_mutex_lock(&t->mu);
    while (t->switching) pthread_cond_wait(&t->idle, &t->mu);
    p->leaving = true;
    struct vv_reader *reader = t->reader;
    pthread_mutex_unlock(&t->mu);
    vv_reader_part_closed(reader, p);
    pthread_mutex_lock(&t->mu);
    for (size_t i = 0; i < t->part_count; i++)
        if (t->parts[i] == p) t->parts[i] = t->parts[--t->part_count];
    pthread_mutex_unlock(&t->mu);
    vv_manifest_release(&p->manifest);
    pthread_mutex_destroy(&p->life);
    free(p);
}

void vv_tier_part_kick(struct vv_tier_part *p)
{
    pthread_mutex_lock(&p->tier->mu);
    p->kicked = true;
    pthread_cond_signal(&p->tier->work);
    pthread_mutex_unlock(&p->tier->mu);
}

void vv_tier_part_set_copy_disabled(struct vv_tier_part *p, bool disabled)
{
    atomic_store(&p->copy_disabled, disabled);
    vv_tier_part_kick(p);
}

void vv_tier_part_set_segment_bytes(struct vv_tier_part *p, int64_t bytes)
{
    atomic_store(&p->segment_bytes, bytes);
}

void vv_tier_part_dirty(struct vv_tier_part *p)
{
    struct vv_tier *t = p->tier;
    pthread_mutex_lock(&t->mu);
    if (!p->dirty++) p->dirty_since_us = vv_mono_us(t->env);
    if (p->dirty >= (uint64_t)t->config.manifest_batch) pthread_cond_signal(&t->keep);
    pthread_mutex_unlock(&t->mu);
}

void vv_tier_part_log_start_moved(struct vv_tier_part *p)
{
    struct vv_tier *t = p->tier;
    pthread_mutex_lock(&t->mu);
    p->swept = false;
    p->kicked = true;
    if (!p->dirty++) p->dirty_since_us = vv_mono_us(t->env);
    pthread_cond_signal(&t->keep);
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->mu);
}

void vv_tier_part_commit_soon(struct vv_tier_part *p)
{
    struct vv_tier *t = p->tier;
    pthread_mutex_lock(&t->mu);
    if (!p->dirty) p->dirty = 1;
    p->dirty_since_us = INT64_MIN / 2;
    pthread_cond_signal(&t->keep);
    pthread_mutex_unlock(&t->mu);
}

int vv_tier_part_drop_local(struct vv_tier_part *p, int64_t base)
{
    struct vv_extent x;
    pthread_mutex_lock(&p->life);
    int err = vv_index_next(p->o.index, base, &x);
    if (!err && (x.base != base || x.state != VV_EXTENT_BOTH)) {
        vv_extent_release(p->o.index, &x);
        err = VV_E_STATE;
    }
    if (!err) {
        err = vv_index_move(p->o.index, base, VV_EXTENT_REMOTE, NULL);
        if (!err && x.local) err = vv_log_drop_local(p->o.log, x.local);
        vv_extent_release(p->o.index, &x);
    }
    pthread_mutex_unlock(&p->life);
    return err;
}

void vv_tier_part_stats(struct vv_tier_part *p, struct vv_tier_part_stats *out)
{
    struct vv_index_summary s;
    vv_index_summary(p->o.index, &s);
    pthread_mutex_lock(&p->tier->mu);
    *out = p->stats;
    pthread_mutex_unlock(&p->tier->mu);
    out->delete_lag_bytes = s.dead_bytes;
    out->delete_lag_segments = s.dead_extents;
}

void vv_tier_stats(struct vv_tier *t, struct vv_tier_stats *out)
{
    const struct vv_objstore_stats *s = vv_tier_store_stats(t);
    struct vv_diskcache_stats d;
    vv_diskcache_stats(t->disk, &d);
    *out = (struct vv_tier_stats){
        .uploads = t->uploads, .upload_bytes = t->upload_bytes, .upload_errors = t->upload_errors,
        .fetch_requests = t->fetch_requests, .fetch_bytes = t->fetch_bytes, .fetch_errors = t->fetch_errors,
        .deletes = t->deletes, .delete_errors = t->delete_errors, .gc_objects = t->gc_objects, .gc_uploads = t->gc_uploads,
        .merges = t->merges, .merged_segments = t->merged_segments, .merged_bytes = t->merged_bytes,
        .scrub_local_bytes = t->scrub.bytes[0], .scrub_remote_bytes = t->scrub.bytes[1], .scrub_damages = t->scrub.damages,
        .scrub_mended = t->scrub.mended, .scrub_passes = t->scrub.passes, .scrub_last_pass_ms = t->scrub.last_pass_ms,
        .cache_hits = t->cache_hits, .cache_misses = t->cache_misses, .cache_bytes = t->cache_bytes,
        .gets = s->calls[VV_OBJ_GET] + s->calls[VV_OBJ_GET_ASYNC], .puts = s->calls[VV_OBJ_PUT],
        .heads = s->calls[VV_OBJ_HEAD], .lists = s->calls[VV_OBJ_LIST], .store_ok = t->store_ok,
        .disk_hits = d.hits, .disk_hit_bytes = d.hit_bytes, .disk_misses = d.misses, .disk_writes = d.writes,
        .disk_write_bytes = d.write_bytes, .disk_evictions = d.evictions, .disk_bad = d.bad, .disk_errors = d.errors,
        .disk_bytes = d.bytes, .disk_files = d.files,
    };
    out->copy_throttle_us = t->copy_throttle_us;
    vv_hydrate_stats(t->hydrate, out);
    vv_migrate_stats(t->migrate, out);
    pthread_mutex_lock(&t->mu);
    struct vv_reader *rd = t->reader;
    pthread_mutex_unlock(&t->mu);
    vv_reader_stats(rd, out);
}

const struct vv_objstore_stats *vv_tier_store_stats(const struct vv_tier *t)
{
    return vv_objpair_is(t->store) ? &vv_objpair_first(t->store)->stats : &t->store->stats; /* requests are counted in there */
}

/* ---- topic.json, cluster snapshot ---- */

int vv_tier_name_topic(struct vv_tier *t, struct vv_uuid topic_id, const char *topic, struct vv_error *e)
{
    char key[VV_KEY_MAX], id[23];
    vv_uuid_text(topic_id, id);
    vv_key_topic(topic_id, key);
    json_t *o = json_pack("{s:i,s:s,s:s,s:s}", "format", 1, "topic", topic, "topic_id", id, "cluster_id", t->id.cluster_id);
    size_t n = 0;
    char *plain = vv_json_text(o, JSON_INDENT(1)), *text = plain ? vv_jsoncrc_add(plain, strlen(plain), &n) : NULL;
    json_decref(o);
    free(plain);
    if (!text) return VV_E_NOMEM;
    int err = vv_tier_saw(t, vv_objstore_put_mem(t->store, key, text, n, NULL, 60000, NULL, e));
    free(text);
    return err;
}

/* ---- seeding ---- */

void vv_tier_seed(struct vv_tier *t, const struct vv_tier_seed *seed)
{
    t->seed = seed;
}

int vv_tier_seed_clear(struct vv_tier *t, struct vv_error *e)
{
    int err = vv_tier_delete_prefix(t, VV_KEY_MANIFESTS, e);
    return err ? err : vv_tier_delete_prefix(t, VV_KEY_TOPICS, e);
}

int vv_tier_seeded(struct vv_tier *t, struct vv_error *e)
{
    struct vv_origins o = t->claim.origins;
    VV_ASSERT(o.n);
    o.v[0].seeded = true;
    t->seed = NULL;
    return vv_claim_set_origins(t, &o, e);
}

int vv_tier_keep_origins(struct vv_tier *t, struct vv_error *e)
{
    struct vv_origin_journal j = {.origins = t->claim.origins};
    return j.origins.n && !j.origins.v[0].hydrated ? vv_origin_journal_save(t->env, t->id.data_dir, &j, e) : VV_OK;
}

int vv_tier_delete_topic(struct vv_tier *t, struct vv_uuid topic_id, const char *topic, int64_t deleted_ms, struct vv_error *e)
{
    int err = vv_claim_add_deleted(t, topic_id, topic, deleted_ms ? deleted_ms : vv_wall_ms(t->env), e);
    pthread_mutex_lock(&t->mu);
    t->tier_after_us = 0;
    pthread_cond_signal(&t->keep);
    pthread_mutex_unlock(&t->mu);
    return err;
}

enum vv_tier_fate vv_tier_topic_fate(struct vv_tier *t, struct vv_uuid topic_id)
{
    enum vv_tier_fate fate = VV_TIER_LIVE;
    if (pthread_mutex_trylock(&t->claim_mu)) return VV_TIER_BUSY; /* held across the store */
    for (size_t i = 0; i < t->claim.deleted_count; i++)
        if (vv_uuid_eq(t->claim.deleted[i].id, topic_id))
            fate = t->claim.deleted[i].deleting ? VV_TIER_DELETING : VV_TIER_DELETED;
    pthread_mutex_unlock(&t->claim_mu);
    return atomic_load(&t->unclaimed) ? VV_TIER_BUSY : fate; /* before the claim the list is not known */
}

/* The name first: a stranger who reads the bucket meanwhile sees a topic that is deleted, whatever it is called. */
int vv_tier_undelete_topic(struct vv_tier *t, struct vv_uuid topic_id, const char *topic, struct vv_error *e)
{
    if (vv_tier_topic_fate(t, topic_id) == VV_TIER_DELETED) {
        int err = vv_tier_name_topic(t, topic_id, topic, e);
        if (err) return err;
    }
    return vv_claim_undelete(t, topic_id, e);
}
