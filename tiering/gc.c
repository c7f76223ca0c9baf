/* gc.c — garbage collection in the bucket: objects that are part of no log, and how that is proven.
 *
 * What can be there: what a lost disk left unfinished, a fenced writer's uploads, copies that a retry with another key replaced, manifest
 * pages that a crash kept from being named. A listing only proposes; it may be stale, short, long or wrong. A segment's object goes
 * only if ALL of this holds:
 *   1. its key is spelled exactly as this partition's keys are, and the store says it is older than tier.gc.age.ms, which is longer than
 *      any upload may take (and not of the future, and our clock did not jump);
 *   2. the index, which knows every intent before its first byte, does not name it;
 *   3. the manifest as it is in the bucket NOW, read again for this and of our own epoch, does not name it, neither as part of the log nor as
 *      tombstone or garbage, and ends beyond it;
 *   4. every offset of its range that the log still has (from log start on) is held by segments that the manifest names: who reads the bucket
 *      after us needs it for nothing. An object in a hole of the log stays: it may be what mends it;
 *   5. it is not one of those that a merge replaced and that are kept for the grace (they go by manifest_replace.c), nor the one that a merge
 *      under way is making;
 *   6. the claim was renewed just now.
 * Then it goes the way of all deletions: named as garbage in a head committed under our epoch (a fenced writer's commit fails, and nothing
 * was deleted), after that DELETE. A manifest page: 1, 3 (no level refers to it, nor what was replaced), 6, the same way.
 * What a listing does not show is not collected now; what it invents is deleted in vain. Foreign names are left alone.
 *
 * Budget: one page of a listing per step, parts in turn; a pass per tier.gc.interval.ms and partition, spread over the interval. A pass that
 * lists far more than the partition can have is given up: such a listing would never end. */
#include "gc.h"
#include "tier_impl.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 60000
#define BATCH 256 /* condemned per step; the rest of a page comes with the next pass */

struct suspects { struct vv_objlist_entry *v[VV_OBJ_LIST_MAX]; size_t n; };

static void due_in(struct vv_tier_part *p, int64_t ms)
{
    struct vv_tier *t = p->tier;
    pthread_mutex_lock(&t->mu);
    p->gc.due_us = ms < 0 ? INT64_MAX : vv_mono_us(t->env) + ms * 1000;
    pthread_mutex_unlock(&t->mu);
}

static int64_t spread_ms(struct vv_tier *t, int64_t interval_ms)
{
    uint64_t r;
    vv_random(t->env, &r, sizeof r);
    return interval_ms ? (int64_t)(r % (uint64_t)interval_ms) : -1;
}

void vv_gc_begin(struct vv_tier_part *p)
{
    struct vv_tier_config c;
    vv_tier_config_get(p->tier, &c);
    due_in(p, spread_ms(p->tier, c.gc_interval_ms)); /* all at once would be thousands of listings */
}

bool vv_gc_due(const struct vv_tier_part *p, int64_t now_us)
{
    return p->gc.due_us <= now_us && p->tier->config.gc_interval_ms;
}

static void pass_ends(struct vv_tier_part *p, const struct vv_tier_config *c)
{
    p->gc.after[0] = 0;
    p->gc.pages = false;
    p->gc.listed = 0;
    due_in(p, c->gc_interval_ms ? c->gc_interval_ms : -1);
}

static bool old_enough(struct vv_tier_part *p, const struct vv_tier_config *c, const struct vv_objlist_entry *o)
{
    int64_t age = vv_wall_ms(p->tier->env) - o->mtime_ms;
    return o->mtime_ms > 0 && age >= c->gc_age_ms && age > 0;
}

/* ---- segments ---- */

static bool parse_own(const struct vv_tier_part *p, const char *key, struct vv_segkey *k)
{
    return !vv_segkey_parse(key, k) && vv_uuid_eq(k->topic_id, p->o.topic_id) && k->partition == p->o.partition;
}

static bool same_object(const struct vv_segkey *k, const struct vv_extent *x)
{
    return x->base == k->base && x->last == k->last && x->nonce == k->nonce && x->generation == k->generation && x->epoch == k->epoch;
}

/* Any extent at that base counts while it might still move to the key: UPLOADING is known by its nonce. */
static bool index_names(struct vv_tier_part *p, const struct vv_segkey *k)
{
    struct vv_extent x;
    if (vv_index_intent(p->o.index, &x) && same_object(k, &x)) return true;
    int err = vv_index_next(p->o.index, k->base, &x);
    if (err) return err != VV_E_NOENT; /* the disk cannot tell: then it may */
    vv_extent_release(p->o.index, &x);
    return same_object(k, &x);
}

/* One object against the manifest: is it named, and which of its offsets do others hold? */
struct judged { struct vv_segkey k; int64_t covered; bool named; const char *key; };
struct court { struct judged v[BATCH]; size_t n; int64_t end; };

static int on_named(void *ctx, const struct vv_extent *x)
{
    struct court *c = ctx;
    for (size_t i = 0; i < c->n; i++) {
        struct judged *j = &c->v[i];
        if (same_object(&j->k, x)) j->named = true;
        if (x->base <= j->covered && x->last >= j->covered) j->covered = x->last + 1;
    }
    return x->base > c->end ? 1 : VV_OK; /* 1: seen enough */
}

/* Reads the manifest again, from the bucket, and asks it about all of them. */
static int hear(struct vv_tier_part *p, struct court *c, struct vv_error *e)
{
    struct vv_manifest_where w;
    vv_tier_where(p, &w);
    p->manifest.loaded = false;
    int64_t from = INT64_MAX;
    struct vv_manifest *m = &p->manifest;
    int err = vv_tier_saw(p->tier, vv_manifest_load(m, &w, NULL, NULL, e));
    if (err) return err;
    if (m->writer_epoch > w.writer_epoch) return vv_error_set(e, VV_E_CONFLICT, "a writer with a higher epoch owns the manifest");
    for (size_t i = 0; i < c->n; i++) from = VV_MIN(from, c->v[i].k.base);
    for (size_t i = 0; i < c->n; i++) c->v[i].covered = VV_MAX(c->v[i].k.base, m->log_start);
    err = vv_tier_saw(p->tier, vv_manifest_pages(m, &w, from, INT64_MIN, on_named, c, e));
    if (err < 0) return err;
    struct vv_manifest again = {0}; /* after the pages the head's own segments: ascending */
    err = vv_tier_saw(p->tier, vv_manifest_load(&again, &w, on_named, c, e));
    bool same = !strcmp(again.sha256, m->sha256);
    vv_manifest_release(&again);
    if (err < 0) return err;
    return same ? VV_OK : vv_error_set(e, VV_E_CONFLICT, "the manifest changed under us: another writer is here");
}

static bool garbage_names(const struct vv_manifest *m, const char *key)
{
    for (size_t i = 0; i < m->garbage_count; i++)
        if (!strcmp(m->garbage[i], key)) return true;
    return false;
}

static int condemn_segments(struct vv_tier_part *p, const struct suspects *s, size_t *condemned, struct vv_error *e)
{
    struct court *c = calloc(1, sizeof *c);
    if (!c) return VV_E_NOMEM;
    for (size_t i = 0; i < s->n && c->n < BATCH; i++) {
        struct judged *j = &c->v[c->n];
        if (!parse_own(p, s->v[i]->key, &j->k) || index_names(p, &j->k)) continue;
        j->key = s->v[i]->key;
        c->end = VV_MAX(c->end, j->k.last);
        c->n++;
    }
    int err = c->n ? hear(p, c, e) : VV_OK;
    struct vv_manifest *m = &p->manifest;
    for (size_t i = 0; !err && i < c->n; i++) {
        const struct judged *j = &c->v[i];
        bool beyond = j->k.last >= m->next_offset;
        if (vv_manifest_keeps(m, j->k.base, j->k.last)) continue;
        if (j->named || beyond || j->covered <= j->k.last || index_names(p, &j->k) || garbage_names(m, j->key)) continue;
        err = vv_manifest_condemn(m, j->key);
        if (!err) VLOG_INFO("tier: %s is part of no log (left by a crash or a fenced writer): collecting it", j->key);
        ++*condemned;
    }
    free(c);
    return err;
}

/* ---- manifest pages ---- */

struct pages { struct suspects s; struct vv_tier_part *p; };

static int on_ref(void *ctx, int level, const struct vv_pageref *r)
{
    struct pages *g = ctx;
    char key[VV_KEY_MAX];
    vv_key_page(g->p->o.topic_id, g->p->o.partition, level, r->sha256, key);
    for (size_t i = 0; i < g->s.n; i++)
        if (!strcmp(g->s.v[i]->key, key)) g->s.v[i--] = g->s.v[--g->s.n];
    return VV_OK;
}

/* Is it spelled as a page of this partition? */
static bool is_page(const struct vv_tier_part *p, const char *key)
{
    char again[VV_KEY_MAX];
    const char *name = strrchr(key, '/');
    if (!name || name[1] < '0' || name[1] > '0' + VV_MANIFEST_LEVELS - 1 || name[2] != '-' || strlen(name + 3) != 64 + 5) return false;
    char sha[65];
    memcpy(sha, name + 3, 64);
    sha[64] = 0;
    if (strspn(sha, "0123456789abcdef") != 64) return false;
    vv_key_page(p->o.topic_id, p->o.partition, name[1] - '0', sha, again);
    return !strcmp(again, key);
}

static int condemn_pages(struct vv_tier_part *p, const struct suspects *s, size_t *condemned, struct vv_error *e)
{
    struct vv_manifest_where w;
    struct pages g = {.p = p};
    for (size_t i = 0; i < s->n; i++)
        if (is_page(p, s->v[i]->key)) g.s.v[g.s.n++] = s->v[i];
    if (!g.s.n) return VV_OK;
    vv_tier_where(p, &w);
    p->manifest.loaded = false;
    int err = vv_tier_saw(p->tier, vv_manifest_load(&p->manifest, &w, NULL, NULL, e));
    if (!err && p->manifest.writer_epoch > w.writer_epoch)
        err = vv_error_set(e, VV_E_CONFLICT, "a writer with a higher epoch owns the manifest");
    if (!err && !p->manifest.exists) g.s.n = 0; /* nothing refers to anything: nothing is proven */
    if (!err && g.s.n) err = vv_tier_saw(p->tier, vv_manifest_each_ref(&p->manifest, &w, on_ref, &g, e));
    for (size_t i = 0; !err && i < g.s.n && i < BATCH; i++) {
        if (garbage_names(&p->manifest, g.s.v[i]->key)) continue;
        err = vv_manifest_condemn(&p->manifest, g.s.v[i]->key);
        if (!err) VLOG_INFO("tier: no manifest refers to %s: collecting it", g.s.v[i]->key);
        ++*condemned;
    }
    return err;
}

/* ---- the step ---- */

static int judge(struct vv_tier_part *p, const struct suspects *s, struct vv_error *e)
{
    struct vv_tier *t = p->tier;
    size_t condemned = 0;
    if (!s->n) return VV_OK;
    int err = p->gc.pages ? condemn_pages(p, s, &condemned, e) : condemn_segments(p, s, &condemned, e);
    if (!err && condemned) err = vv_claim_renew(t, e);
    if (!err && condemned) err = vv_keeper_commit(p, 0, e);
    if (err) p->manifest.loaded = false; /* forgets what was condemned and not written down */
    if (!err) atomic_fetch_add(&t->gc_objects, condemned);
    return err;
}

/* More than twice what the index has, and then some: this listing does not end. */
static bool endless(struct vv_tier_part *p)
{
    struct vv_index_summary s;
    vv_index_summary(p->o.index, &s);
    return p->gc.listed > 2 * s.extents + 100000;
}

int vv_gc_step(struct vv_tier_part *p, struct vv_error *e)
{
    struct vv_tier *t = p->tier;
    struct vv_gc *g = &p->gc;
    struct vv_tier_config c;
    struct vv_objlist l = {0};
    struct suspects s = {.n = 0};
    char prefix[VV_KEY_MAX];
    vv_tier_config_get(t, &c);
    if (!vv_keeper_clock_sane(t) || !c.gc_interval_ms) {
        pass_ends(p, &c);
        return 1;
    }
    if (g->pages)
        vv_key_pages_prefix(p->o.topic_id, p->o.partition, prefix);
    else
        vv_key_part_prefix(p->o.topic_id, p->o.partition, prefix);
    int err = vv_tier_saw(t, vv_objstore_list(t->store, prefix, g->after[0] ? g->after : NULL, 0, DEADLINE_MS, &l, e));
    for (size_t i = 0; !err && i < l.count && s.n < VV_COUNT(s.v); i++)
        if (old_enough(p, &c, &l.v[i])) s.v[s.n++] = &l.v[i];
    if (!err) err = judge(p, &s, e);
    bool more = !err && l.more && l.count;
    if (more) snprintf(g->after, sizeof g->after, "%s", l.v[l.count - 1].key);
    g->listed += l.count;
    vv_objlist_release(&l);
    if (err) {
        due_in(p, VV_MIN(c.gc_interval_ms, (int64_t)60000));
        return err;
    }
    if (more && endless(p)) {
        VLOG_WARN("%s-%d: the bucket lists more than %" PRIu64 " objects below %s: this is no listing of it; nothing more is collected",
                  p->topic, (int)p->o.partition, g->listed, prefix);
        more = false;
    }
    if (!more && g->pages) {
        pass_ends(p, &c);
    } else if (!more) {
        g->pages = true;
        g->after[0] = 0;
    }
    return 1;
}

/* ---- uploads in parts ---- */

bool vv_gc_uploads_due(const struct vv_tier *t, int64_t now_us)
{
    return t->gc_uploads_us <= now_us && t->config.gc_interval_ms;
}

int vv_gc_uploads(struct vv_tier *t, struct vv_error *e)
{
    struct vv_tier_config c;
    size_t aborted = 0;
    vv_tier_config_get(t, &c);
    t->gc_uploads_us = vv_mono_us(t->env) + c.gc_interval_ms * 1000;
    if (!vv_keeper_clock_sane(t)) return VV_OK;
    int err = vv_tier_saw(t, vv_objstore_abort_stale(t->store, "v1/", vv_wall_ms(t->env) - c.gc_age_ms, DEADLINE_MS, &aborted, e));
    atomic_fetch_add(&t->gc_uploads, aborted);
    if (aborted) VLOG_INFO("tier: aborted %zu uploads in parts that nobody finished", aborted);
    return err;
}
