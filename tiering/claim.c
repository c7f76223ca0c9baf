/* claim.c — the root object: whose bucket this is and who may write to it.
 *
 * v1/root.json carries the cluster id, the claiming node, its writer epoch, and the topics under deletion. Taking the claim is a conditional
 * PUT of epoch + 1; it is renewed every 20 s and expires 60 s after the last renewal. A claim of our own (the same
 * incarnation as in tier-identity.json beside the data) is taken back at once after a crash.
 * Every change goes through put_root(); a conflict there is settled by reading: our own bytes (a lost reply) are success, a root
 * with another incarnation means that the claim is lost, and nothing is written to the bucket any more.
 * Expiry compares the store's renewed_ms with our wall clock: clocks that differ by a minute need --take-over; writes
 * that race are caught by the conditions, not by clocks. */
#include "jsoncrc.h"
#include "tier_impl.h"
#include "root.h"
#include "jsontext.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 30000
#define CLAIM_TTL_MS 60000

static void random_hex(struct vv_env *env, char out[33])
{
    uint8_t r[16];
    vv_random(env, r, sizeof r);
    for (size_t i = 0; i < sizeof r; i++) snprintf(out + i * 2, 3, "%02x", r[i]);
}

/* ---- tier-identity.json: what a crashed broker needs to recognise its own claim ---- */

static bool identity_path(const struct vv_tier *t, char *out, size_t n)
{
    return t->id.data_dir && snprintf(out, n, "%s/tier-identity.json", t->id.data_dir) < (int)n;
}

struct own { char now[33], before[33]; }; /* "" = none */

/* Not there or damaged: none. A disk that fails is told as such, not as a foreign claim. */
static int read_own(struct vv_tier *t, struct own *own, struct vv_error *e)
{
    char path[4096];
    uint8_t *p = NULL;
    size_t n;
    *own = (struct own){0};
    if (!identity_path(t, path, sizeof path)) return VV_OK;
    int err = vv_fs_read_file(t->env, path, 65536, &p, &n);
    if (err == VV_E_NOENT) return VV_OK;
    if (err) return vv_error_set(e, err, "cannot read %s: %s", path, vv_err_name(err));
    json_t *o = json_loadb((const char *)p, n, 0, NULL);
    const char *now = json_string_value(json_object_get(o, "incarnation"));
    const char *before = json_string_value(json_object_get(o, "previous"));
    const char *url = json_string_value(json_object_get(o, "store"));
    if (now && before && url && !strcmp(url, t->store->url)) {
        snprintf(own->now, sizeof own->now, "%s", now);
        snprintf(own->before, sizeof own->before, "%s", before);
    }
    json_decref(o);
    free(p);
    return VV_OK;
}

static bool is_own(const struct own *own, const char *incarnation)
{
    return incarnation[0] && (!strcmp(own->now, incarnation) || !strcmp(own->before, incarnation));
}

/* Written before the claim, with the one that it replaces if that was ours too: whichever of the two a crash or a lost reply leaves
 * in the root, we know it again. */
static int write_own(struct vv_tier *t, const char *before, struct vv_error *e)
{
    char path[4096];
    if (!identity_path(t, path, sizeof path)) return VV_OK;
    json_t *o = json_pack("{s:i,s:s,s:s,s:s,s:s}", "format", 1, "store", t->store->url, "cluster_id", t->id.cluster_id,
                          "incarnation", t->claim.incarnation, "previous", before);
    char *text = vv_json_text(o, JSON_INDENT(2));
    json_decref(o);
    int err = text ? vv_fs_write_file(t->env, path, text, strlen(text)) : VV_E_NOMEM;
    free(text);
    return err ? vv_error_set(e, err, "cannot write %s: %s", path, vv_err_name(err)) : VV_OK;
}

/* ---- the root object ---- */

static int get_root(struct vv_tier *t, struct vv_root *r, struct vv_error *e)
{
    return vv_tier_saw(t, vv_root_get(t->store, DEADLINE_MS, r, e));
}

static char *root_text(struct vv_tier *t, bool released, bool migrating, const char *moved_to, int64_t now)
{
    struct vv_claim *c = &t->claim;
    json_t *deleted = json_array();
    for (size_t i = 0; i < c->deleted_count; i++) {
        char id[23];
        vv_uuid_text(c->deleted[i].id, id);
        json_array_append_new(deleted, json_pack("{s:s,s:s,s:I,s:b}", "topic_id", id, "topic", c->deleted[i].name, "deleted_ms",
                                                 (json_int_t)c->deleted[i].deleted_ms, "deleting", c->deleted[i].deleting));
    }
    json_t *o = json_pack("{s:i,s:s,s:i,s:s,s:I,s:I,s:I,s:b,s:o}", "format", 1, "cluster_id", t->id.cluster_id, "node_id",
                          (int)t->id.node_id, "incarnation", c->incarnation, "writer_epoch", (json_int_t)c->writer_epoch,
                          "claimed_ms", (json_int_t)c->claimed_ms, "renewed_ms", (json_int_t)now, "released", released,
                          "deleted_topics", deleted);
    if (migrating) json_object_set_new(o, "migrating", json_true());
    if (moved_to) json_object_set_new(o, "moved_to", json_string(moved_to));
    if (c->origins.n) json_object_set_new(o, "origins", vv_origins_json(&c->origins));
    char *text = vv_json_text(o, JSON_INDENT(1)), *sealed = text ? vv_jsoncrc_add(text, strlen(text), &(size_t){0}) : NULL;
    json_decref(o);
    free(text);
    return sealed;
}

/* After a put whose outcome is unknown or refused: is the root ours all the same? Takes its ETag over if so. */
static int settle(struct vv_tier *t, int err, struct vv_error *e)
{
    struct vv_root r;
    struct vv_error why;
    if (get_root(t, &r, &why)) return err;
    bool ours = !strcmp(r.incarnation, t->claim.incarnation) && r.writer_epoch == t->claim.writer_epoch;
    if (ours) {
        memcpy(t->claim.etag, r.etag, sizeof r.etag);
        err = err == VV_E_CONFLICT ? VV_E_AGAIN : err; /* ours, perhaps an older state: the next put decides */
    } else if (r.writer_epoch >= t->claim.writer_epoch) {
        err = vv_error_set(e, VV_E_CONFLICT, "node %d of cluster %s took over the bucket %s (writer epoch %llu, ours %llu)",
                           (int)r.node_id, r.cluster_id, t->store->url, (unsigned long long)r.writer_epoch,
                           (unsigned long long)t->claim.writer_epoch);
    }
    free(r.deleted);
    return err;
}

static int put_root(struct vv_tier *t, bool fresh, bool released, struct vv_error *e)
{
    struct vv_claim *c = &t->claim;
    struct vv_objinfo info = {0};
    struct vv_objput how = {0};
    char etag[VV_OBJ_ETAG_MAX];
    int err = VV_E_AGAIN;
    for (int tries = 0; tries < 3 && err == VV_E_AGAIN; tries++) { /* E_AGAIN: lost reply to an older state of ours */
        char *text = root_text(t, released, false, NULL, vv_wall_ms(t->env));
        if (!text) return VV_E_NOMEM;
        memcpy(etag, c->etag, sizeof etag);
        how.if_none_match = fresh && !tries && (t->store->caps & VV_OBJ_CAP_IF_NONE_MATCH);
        how.if_match = (!fresh || tries) && etag[0] && (t->store->caps & VV_OBJ_CAP_IF_MATCH) ? etag : NULL;
        err = vv_tier_saw(t, vv_objstore_put_mem(t->store, VV_KEY_ROOT, text, strlen(text), &how, DEADLINE_MS, &info, e));
        free(text);
        if (err) err = settle(t, err, e);
    }
    if (err) return err;
    memcpy(c->etag, info.etag, sizeof c->etag);
    c->renewed_mono_us = vv_mono_us(t->env);
    return VV_OK;
}

/* ---- taking the claim ---- */

static int refuse(struct vv_tier *t, const struct vv_root *r, bool take_over, const struct own *own, struct vv_error *e)
{
    int64_t age = vv_wall_ms(t->env) - r->renewed_ms;
    if (t->id.cluster_id[0] && strcmp(t->id.cluster_id, r->cluster_id))
        return vv_error_set(e, VV_E_CONFLICT,
                            "the bucket %s belongs to cluster %s (node %d), this broker is of cluster %s: use another bucket or "
                            "prefix",
                            t->store->url, r->cluster_id, (int)r->node_id, t->id.cluster_id);
    if (r->moved_to[0])
        return vv_error_set(e, VV_E_CONFIG, "the history of cluster %s was moved from %s to %s (varve tier migrate): set tier.url=%s",
                            r->cluster_id, t->store->url, r->moved_to, r->moved_to);
    if (r->migrating && !t->id.arriving)
        return vv_error_set(e, VV_E_CONFIG, "%s is the half-done copy of a migration of cluster %s: keep the old tier.url until it is done",
                            t->store->url, r->cluster_id);
    if (r->released || take_over || age >= CLAIM_TTL_MS || is_own(own, r->incarnation)) return VV_OK;
    return vv_error_set(e, VV_E_CONFLICT,
                        "node %d of cluster %s writes to the bucket %s (it renewed its claim %lld s ago): stop it first, wait %d s, "
                        "or start with --take-over if it is surely gone",
                        (int)r->node_id, r->cluster_id, t->store->url, (long long)(age / 1000), CLAIM_TTL_MS / 1000);
}

int vv_claim_take(struct vv_tier *t, bool take_over, struct vv_error *e)
{
    struct vv_root r;
    struct own own;
    struct vv_claim *c = &t->claim;
    int err = get_root(t, &r, e);
    bool fresh = err == VV_E_NOENT;
    if (err && !fresh) return err;
    if (fresh && t->id.must_exist)
        return vv_error_set(e, VV_E_CONFLICT, "%s has no Varve root (%s), although this broker has a history in a bucket: set tier.url back or "
                            "bring the bucket back; a new one would hide that the history is gone", t->store->url, VV_KEY_ROOT);
    err = read_own(t, &own, e);
    if (!err && !fresh) err = refuse(t, &r, take_over, &own, e);
    if (err) goto out;
    unsigned caps; /* a server may accept a condition and ignore it: believe only what was tried */
    err = vv_tier_saw(t, vv_objstore_probe(t->store, "v1/", DEADLINE_MS, &caps, e));
    if (err) goto out;
    t->store->caps = caps;
    if (!t->id.cluster_id[0] && fresh) { /* a new bucket for a broker without an identity */
        struct vv_uuid u;
        vv_random(t->env, u.b, sizeof u.b);
        vv_uuid_text(u, t->id.cluster_id);
    } else if (!fresh) {
        memcpy(t->id.cluster_id, r.cluster_id, sizeof r.cluster_id);
    }
    c->origins = fresh && t->id.origins ? *t->id.origins : r.origins;
    vv_tier_set_clusters(t, &c->origins);
    c->writer_epoch = VV_MAX(r.writer_epoch, t->id.epoch_floor) + 1;
    c->claimed_ms = vv_wall_ms(t->env);
    memcpy(c->etag, r.etag, sizeof c->etag);
    free(c->deleted);
    c->deleted = r.deleted;
    c->deleted_count = r.deleted_count;
    r.deleted = NULL;
    random_hex(t->env, c->incarnation);
    err = write_own(t, !fresh && is_own(&own, r.incarnation) ? r.incarnation : "", e);
    if (!err) err = put_root(t, fresh, false, e);
out:
    free(r.deleted);
    return err;
}

int vv_claim_take_late(struct vv_tier *t)
{
    struct vv_error e = {0};
    pthread_mutex_lock(&t->claim_mu);
    int err = vv_claim_take(t, t->take_over, &e);
    t->claim.lost = err != VV_OK;
    pthread_mutex_unlock(&t->claim_mu);
    if (err) {
        VLOG_WARN("tier: not claimed yet, will try again: %s", e.text[0] ? e.text : vv_err_name(err));
        return err;
    }
    atomic_store(&t->unclaimed, false);
    atomic_store(&t->fenced, false);
    VLOG_INFO("tier: the bucket answers; writing to %s as cluster %s, writer epoch %llu", t->store->url, t->id.cluster_id,
              (unsigned long long)t->claim.writer_epoch);
    return 1;
}

/* ---- changes, all under claim_mu ---- */

static int locked_put(struct vv_tier *t, bool released, struct vv_error *e)
{
    if (atomic_load(&t->unclaimed)) return vv_error_set(e, VV_E_AGAIN, "%s does not answer yet", t->store->url);
    if (t->claim.lost) return vv_error_set(e, VV_E_CONFLICT, "the claim on %s is lost", t->store->url);
    int err = put_root(t, false, released, e);
    if (err == VV_E_CONFLICT) {
        t->claim.lost = true;
        atomic_store(&t->fenced, true);
        VLOG_ERROR("tier: %s; nothing more is written to it by this broker", e->text);
    }
    return err;
}

int vv_claim_renew(struct vv_tier *t, struct vv_error *e)
{
    pthread_mutex_lock(&t->claim_mu);
    int err = locked_put(t, false, e);
    pthread_mutex_unlock(&t->claim_mu);
    return err;
}

void vv_claim_release(struct vv_tier *t)
{
    struct vv_error e = {0};
    pthread_mutex_lock(&t->claim_mu);
    if (!t->claim.lost && locked_put(t, true, &e)) VLOG_WARN("tier: the claim could not be released: %s", e.text);
    pthread_mutex_unlock(&t->claim_mu);
}

void vv_claim_free(struct vv_tier *t)
{
    free(t->claim.deleted);
    t->claim.deleted = NULL;
}

static struct vv_deleted_topic *find_deleted(struct vv_tier *t, struct vv_uuid id)
{
    for (size_t i = 0; i < t->claim.deleted_count; i++)
        if (vv_uuid_eq(t->claim.deleted[i].id, id)) return &t->claim.deleted[i];
    return NULL;
}

int vv_claim_add_deleted(struct vv_tier *t, struct vv_uuid id, const char *topic, int64_t deleted_ms, struct vv_error *e)
{
    int err = VV_OK;
    pthread_mutex_lock(&t->claim_mu);
    if (!find_deleted(t, id)) {
        struct vv_deleted_topic d = {.id = id, .deleted_ms = deleted_ms};
        snprintf(d.name, sizeof d.name, "%s", topic);
        err = vv_deleted_push(&t->claim.deleted, &t->claim.deleted_count, &d);
    }
    if (!err) err = locked_put(t, false, e); /* kept in memory when it fails: every renewal carries it again */
    pthread_mutex_unlock(&t->claim_mu);
    return err;
}

int vv_claim_mark_deleting(struct vv_tier *t, struct vv_uuid id, struct vv_error *e)
{
    pthread_mutex_lock(&t->claim_mu);
    struct vv_deleted_topic *d = find_deleted(t, id);
    int err = d ? VV_OK : VV_E_NOENT;
    if (d && !d->deleting) {
        d->deleting = true;
        err = locked_put(t, false, e);
        if (err) d->deleting = false;
    }
    pthread_mutex_unlock(&t->claim_mu);
    return err;
}

int vv_claim_undelete(struct vv_tier *t, struct vv_uuid id, struct vv_error *e)
{
    pthread_mutex_lock(&t->claim_mu);
    struct vv_deleted_topic *d = find_deleted(t, id);
    int err = VV_OK;
    if (!d) {
        err = vv_error_set(e, VV_E_NOENT, "%s names no such deleted topic", VV_KEY_ROOT);
    } else if (d->deleting) {
        err = vv_error_set(e, VV_E_STATE, "topic %s cannot come back: its grace is over and its objects are being deleted", d->name);
    } else {
        struct vv_deleted_topic kept = *d;
        *d = t->claim.deleted[--t->claim.deleted_count]; /* leaves room for one */
        err = locked_put(t, false, e);
        if (err) t->claim.deleted[t->claim.deleted_count++] = kept; /* deleted still; every renewal says so again */
    }
    pthread_mutex_unlock(&t->claim_mu);
    return err;
}

/* ---- a migration ---- */

int vv_claim_announce(struct vv_tier *t, struct vv_objstore *to, struct vv_error *e)
{
    if (t->claim.lost) return vv_error_set(e, VV_E_AGAIN, "%s is not claimed", t->store->url);
    char *text = root_text(t, true, true, NULL, vv_wall_ms(t->env));
    if (!text) return VV_E_NOMEM;
    int err = vv_objstore_put_mem(to, VV_KEY_ROOT, text, strlen(text), NULL, DEADLINE_MS, NULL, e);
    free(text);
    return err;
}

int vv_claim_leave(struct vv_tier *t, const char *url, struct vv_error *e)
{
    struct vv_claim *c = &t->claim;
    struct vv_objput how = {.if_match = c->etag[0] && (t->store->caps & VV_OBJ_CAP_IF_MATCH) ? c->etag : NULL};
    struct vv_root r = {0};
    if (c->lost) return vv_error_set(e, VV_E_CONFLICT, "the claim on %s is lost", t->store->url);
    char *text = root_text(t, true, false, url, vv_wall_ms(t->env));
    if (!text) return VV_E_NOMEM;
    int err = vv_tier_saw(t, vv_objstore_put_mem(t->store, VV_KEY_ROOT, text, strlen(text), &how, DEADLINE_MS, NULL, e));
    free(text);
    if (!err) return VV_OK;
    int looked = vv_root_get(t->store, DEADLINE_MS, &r, &(struct vv_error){0}); /* a lost reply? */
    bool ours = !looked && !strcmp(r.incarnation, c->incarnation) && r.writer_epoch == c->writer_epoch;
    bool left = ours && !strcmp(r.moved_to, url);
    if (ours) memcpy(c->etag, r.etag, sizeof c->etag);
    vv_root_release(&r);
    if (left) return VV_OK;
    if (looked) { /* it may have been decided: going on here could fork the history, a restart finds out */
        c->lost = true;
        atomic_store(&t->fenced, true);
        VLOG_ERROR("tier: whether the bucket was switched to %s is not known (%s): nothing more is written until the broker is restarted", url,
                   e->text);
        return VV_E_CONFLICT;
    }
    if (!ours) return vv_error_set(e, VV_E_CONFLICT, "another writer took over %s", t->store->url);
    put_root(t, false, false, &(struct vv_error){0}); /* a put that is still on its way must not decide later: it finds another ETag */
    return VV_E_AGAIN;
}

void vv_claim_arrive(struct vv_tier *t)
{
    struct vv_error e = {0};
    t->claim.etag[0] = 0;
    int err = write_own(t, "", &e);
    if (!err) err = put_root(t, false, false, &e);
    if (err) VLOG_WARN("tier: the claim on %s is not written yet, will be tried again: %s", t->store->url, e.text);
    t->claim.renewed_mono_us = err ? INT64_MIN / 2 : t->claim.renewed_mono_us;
}

int vv_claim_set_origins(struct vv_tier *t, const struct vv_origins *o, struct vv_error *e)
{
    pthread_mutex_lock(&t->claim_mu);
    struct vv_origins before = t->claim.origins;
    t->claim.origins = *o;
    int err = locked_put(t, false, e);
    if (err) t->claim.origins = before;
    pthread_mutex_unlock(&t->claim_mu);
    return err;
}

int vv_claim_drop_deleted(struct vv_tier *t, struct vv_uuid id, struct vv_error *e)
{
    pthread_mutex_lock(&t->claim_mu);
    struct vv_deleted_topic *d = find_deleted(t, id);
    int err = VV_OK;
    if (d) {
        *d = t->claim.deleted[--t->claim.deleted_count];
        err = locked_put(t, false, e);
    }
    pthread_mutex_unlock(&t->claim_mu);
    return err;
}
