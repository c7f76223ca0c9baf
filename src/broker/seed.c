/* seed.c — see seed.h. */
#include "seed.h"

#include "broker_tier.h"
#include "keys.h"
#include "obj_pair.h"
#include "origin.h"
#include "root.h"
#include "jsontext.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ASK_MS 15000

struct vv_seed {
    struct vv_objstore *source;
    bool source_lent; /* the pair closes it */
    struct vv_root root;
    json_t *list; /* of topics, as of the time asked for */
    struct vv_tier_seed tier;
};

static const char *utc(int64_t ms, char out[40])
{
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    size_t n = strftime(out, 40, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, 40 - n, ".%03dZ", (int)(ms % 1000));
    return out;
}

static int open_source(struct vv_broker *b, const char *url, struct vv_objstore **out, struct vv_error *e)
{
    struct vv_error why = {0};
    int err = vv_broker_open_other(b, url, true, out, &why);
    if (err == VV_E_NOENT) return vv_error_set(e, err, "%s is not a Varve bucket: %s", url, why.text);
    *e = why;
    return err;
}

/* ---- the list of topics ---- */

static json_t *topic_of(const json_t *list, const char *id)
{
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(list, "topics"), i, o) {
        const char *have = json_string_value(json_object_get(o, "id"));
        if (have && !strcmp(have, id)) return o;
    }
    return NULL;
}

/* Is it there, as of then? Deleted later is: its objects are kept for a grace, which may be over. */
static bool topic_there(const struct vv_seed *s, const json_t *o, const json_t *now, int64_t as_of_ms)
{
    const char *name = json_string_value(json_object_get(o, "name")), *id = json_string_value(json_object_get(o, "id"));
    struct vv_uuid uuid;
    if (!name || !id || !vv_uuid_parse(id, &uuid)) return true; /* loading it says that it is damaged */
    for (size_t i = 0; i < s->root.deleted_count; i++) {
        const struct vv_deleted_topic *d = &s->root.deleted[i];
        if (!vv_uuid_eq(d->id, uuid)) continue;
        if (d->deleted_ms <= as_of_ms) return false;
        if (d->deleting) VLOG_WARN("restore: topic %s was deleted since, and its objects are gone: left out", name);
        return !d->deleting;
    }
    if (topic_of(now, id) || json_is_true(json_object_get(o, "internal"))) return true;
    VLOG_WARN("restore: topic %s was deleted since, and its objects are gone: left out", name);
    return false;
}

static int filter(struct vv_seed *s, const json_t *now, int64_t as_of_ms)
{
    json_t *topics = json_array(), *o;
    size_t i;
    json_array_foreach(json_object_get(s->list, "topics"), i, o) {
        if (topic_there(s, o, now, as_of_ms)) json_array_append(topics, o);
    }
    const char *scope;
    json_object_foreach(json_object_get(s->list, "broker_configs"), scope, o) {
        json_object_del(o, "tier.migrate.url"); /* where the source's own bucket goes is not the new cluster's */
    }
    json_int_t ids = json_integer_value(json_object_get(s->list, "producer_ids"));
    json_int_t ids_now = json_integer_value(json_object_get(now, "producer_ids")); /* the origin's producers may be in its segments */
    bool bad = !topics || json_object_set_new(s->list, "topics", topics) || json_object_set_new(s->list, "deleted", json_array()) ||
               json_object_set_new(s->list, "producer_ids", json_integer(VV_MAX(ids, ids_now)));
    return bad ? VV_E_NOMEM : VV_OK;
}

static json_t *parse(struct vv_seed *s, const char *text, size_t n, struct vv_error *e)
{
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
    const char *cluster = json_string_value(json_object_get(o, "cluster_id"));
    json_int_t format = json_integer_value(json_object_get(o, "format"));
    if (o && format > 1)
        vv_error_set(e, VV_E_UNSUPPORTED, "the list of topics in %s has format %d, which a newer Varve wrote: upgrade this one", s->source->url,
                     (int)format);
    else if (!json_is_array(json_object_get(o, "topics")) || format != 1)
        vv_error_set(e, VV_E_CORRUPT, "the list of topics in %s is damaged", s->source->url);
    else if (!cluster || strcmp(cluster, s->root.cluster_id))
        vv_error_set(e, VV_E_CONFLICT, "the list of topics in %s is of cluster %s, its root of cluster %s", s->source->url,
                     cluster ? cluster : "?", s->root.cluster_id);
    else
        return o;
    json_decref(o);
    return NULL;
}

static int too_old(const struct vv_seed *s, int64_t as_of_ms, int64_t oldest_ms, struct vv_error *e)
{
    char then[40], begin[40];
    utc(as_of_ms, then);
    if (oldest_ms < 0)
        return vv_error_set(e, VV_E_NOENT, "%s keeps no earlier lists of topics (v1/h/): it cannot be restored as of %s, only its newest "
                            "state, without --as-of", s->source->url, then);
    return vv_error_set(e, VV_E_NOENT, "%s lies before the beginning of %s: what is known of it begins at %s (ts:%" PRId64 ")", then,
                        s->source->url, utc(oldest_ms, begin), oldest_ms);
}

static int load_list(struct vv_seed *s, int64_t as_of_ms, struct vv_error *e)
{
    char *text = NULL;
    size_t n;
    int64_t at, oldest;
    int err = vv_snapshots_get(s->source, INT64_MAX, &text, &n, &at, &oldest, e);
    json_t *now = err ? NULL : parse(s, text, n, e);
    free(text);
    if (err == VV_E_NOENT) return vv_error_set(e, err, "%s has no list of topics yet (v1/cluster.json): nothing to restore", s->source->url);
    if (!now) return err ? err : e->code;
    if (as_of_ms < 0) {
        s->list = json_incref(now);
    } else {
        err = vv_snapshots_get(s->source, as_of_ms, &text, &n, &at, &oldest, e);
        if (err == VV_E_NOENT) err = too_old(s, as_of_ms, oldest, e);
        s->list = err ? NULL : parse(s, text, n, e);
        if (!err && !s->list) err = e->code;
        free(text);
    }
    if (!err && filter(s, now, as_of_ms < 0 ? INT64_MAX : as_of_ms)) err = vv_error_set(e, VV_E_NOMEM, "out of memory");
    json_decref(now);
    return err;
}

static int64_t log_start_then(void *ctx, struct vv_uuid topic_id, int32_t partition)
{
    const struct vv_seed *s = ctx;
    char id[23];
    vv_uuid_text(topic_id, id);
    const json_t *v = json_array_get(json_object_get(json_object_get(s->list, "log_starts"), id), (size_t)partition);
    return json_is_integer(v) ? json_integer_value(v) : json_object_get(s->list, "log_starts") ? 0 : -1;
}

/* ---- opening ---- */

static int read_root(struct vv_seed *s, struct vv_error *e)
{
    int err = vv_root_get(s->source, ASK_MS, &s->root, e);
    if (err == VV_E_NOENT)
        return vv_error_set(e, err, "%s is not a Varve bucket: there is no %s in it (is the prefix right?)", s->source->url, VV_KEY_ROOT);
    if (err) return err;
    const struct vv_origins *o = &s->root.origins;
    if (o->n && !o->v[0].hydrated)
        return vv_error_set(e, VV_E_CONFLICT, "%s is itself still being filled from %s: restore from that one, or wait until it is complete",
                            s->source->url, o->v[0].url);
    if (o->n == VV_ORIGINS_MAX) return vv_error_set(e, VV_E_LIMIT, "%s has %d origins already", s->source->url, VV_ORIGINS_MAX);
    return VV_OK;
}

int vv_seed_open(struct vv_broker *b, const char *url, int64_t as_of_ms, struct vv_seed **out, struct vv_error *e)
{
    struct vv_seed *s = *out = calloc(1, sizeof *s);
    char then[40];
    if (!s) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int err = VV_OK;
    if (!b->config->tier)
        err = vv_error_set(e, VV_E_CONFIG, "--restore needs a bucket of its own for the new cluster: set tier.url");
    else if (!strcmp(url, b->config->tier))
        err = vv_error_set(e, VV_E_CONFIG, "--restore and tier.url are both %s: to come back from a broker's own bucket start it on an empty "
                           "directory without --restore; a new cluster needs another bucket or prefix", url);
    else if (as_of_ms > vv_wall_ms(b->env))
        err = vv_error_set(e, VV_E_USAGE, "--as-of %s lies in the future", utc(as_of_ms, then));
    if (!err) err = open_source(b, url, &s->source, e);
    if (!err) err = read_root(s, e);
    if (!err) err = load_list(s, as_of_ms, e);
    if (err) {
        vv_seed_close(s);
        *out = NULL;
        return err;
    }
    struct vv_origins *o = &s->tier.origins;
    o->n = 1 + s->root.origins.n;
    snprintf(o->v[0].url, sizeof o->v[0].url, "%s", url);
    snprintf(o->v[0].cluster_id, sizeof o->v[0].cluster_id, "%s", s->root.cluster_id);
    o->v[0].as_of_ms = as_of_ms;
    memcpy(o->v + 1, s->root.origins.v, s->root.origins.n * sizeof *o->v);
    snprintf(s->tier.cluster_id, sizeof s->tier.cluster_id, "%s", s->root.cluster_id);
    s->tier.source = s->source;
    s->tier.writer_epoch = s->root.writer_epoch;
    s->tier.log_start = log_start_then;
    s->tier.ctx = s;
    return VV_OK;
}

void vv_seed_close(struct vv_seed *s)
{
    if (!s) return;
    vv_root_release(&s->root);
    json_decref(s->list);
    if (!s->source_lent) vv_objstore_close(s->source);
    free(s);
}

uint64_t vv_seed_writer_epoch(const struct vv_seed *s)
{
    return s->root.writer_epoch;
}

/* ---- which origin ---- */

/* The seeding was done, and the end of that start did not reach the disk (or the disk was lost since): the own bucket has it all. */
static bool was_done(const struct vv_seed *s, const struct vv_root *own)
{
    const struct vv_origin *want = &s->tier.origins.v[0], *have = &own->origins.v[0];
    return own->origins.n && have->seeded && !strcmp(have->cluster_id, want->cluster_id) && !strcmp(have->url, want->url) &&
           have->as_of_ms == want->as_of_ms;
}

static int fits_own(const struct vv_seed *s, const struct vv_root *own, const char *url, struct vv_error *e)
{
    const struct vv_origin *want = &s->tier.origins.v[0], *have = own->origins.n ? &own->origins.v[0] : NULL;
    if (!strcmp(own->cluster_id, s->root.cluster_id))
        return vv_error_set(e, VV_E_CONFIG, "%s and %s are of the same cluster %s: to come back from a broker's own bucket start it on an empty "
                            "directory without --restore; a new cluster needs an empty bucket or prefix", url, want->url, own->cluster_id);
    if (have && !have->seeded && !strcmp(have->cluster_id, want->cluster_id)) return VV_OK; /* an unfinished one begins again */
    return vv_error_set(e, VV_E_CONFIG, "%s is not empty, it belongs to cluster %s: --restore seeds a new cluster, which needs an empty "
                        "bucket or prefix (tier.url)", url, own->cluster_id);
}

static int find_in_root(struct vv_broker *b, struct vv_objstore *own, struct vv_seed **seed, struct vv_origins *out, struct vv_error *e)
{
    struct vv_root r;
    int err = vv_root_get(own, ASK_MS, &r, e);
    if (err == VV_E_NOENT) {
        if (*seed) *out = (*seed)->tier.origins;
        return VV_OK;
    }
    if (err) return err;
    *out = r.origins;
    if (*seed && was_done(*seed, &r)) {
        VLOG_INFO("%s was seeded from %s before: coming back from it", own->url, r.origins.v[0].url);
        vv_seed_close(*seed);
        *seed = NULL;
    }
    if (*seed) err = fits_own(*seed, &r, own->url, e);
    if (!err && !*seed && r.origins.n && !r.origins.v[0].seeded) {
        VLOG_INFO("%s was to be seeded from %s, which was interrupted: beginning again", own->url, r.origins.v[0].url);
        err = vv_seed_open(b, r.origins.v[0].url, r.origins.v[0].as_of_ms, seed, e);
    }
    vv_root_release(&r);
    return err;
}

int vv_seed_check_directory(const struct vv_directory *d, struct vv_error *e)
{
    if (d->fresh) return VV_OK;
    return vv_error_set(e, VV_E_CONFLICT, "%s is not empty: --restore seeds a new cluster in an empty directory. A broker that was seeded "
                        "goes on without --restore", d->path);
}

int vv_seed_find_origins(struct vv_broker *b, const struct vv_directory *d, struct vv_objstore *own, struct vv_seed **seed,
                         struct vv_origins *out, struct vv_error *e)
{
    struct vv_origin_journal j;
    *out = (struct vv_origins){0};
    if (d->fresh) return find_in_root(b, own, seed, out, e);
    int err = vv_origin_journal_load(b->env, b->log_dir, &j, e);
    if (err == VV_E_NOENT) return VV_OK;
    if (!err) *out = j.origins;
    if (!err) vv_origin_journal_release(&j);
    return err;
}

int vv_seed_wrap(struct vv_broker *b, struct vv_seed *seed, const struct vv_origins *o, struct vv_objstore **store, struct vv_error *e)
{
    struct vv_objstore *source = NULL, *pair;
    int err = VV_OK;
    if (seed)
        source = seed->source;
    else if (o->n && !o->v[0].hydrated)
        err = open_source(b, o->v[0].url, &source, e);
    if (err) return err;
    err = vv_objpair_open(*store, source, &pair);
    if (err) {
        if (!seed) vv_objstore_close(source);
        return vv_error_set(e, err, "out of memory");
    }
    if (seed) seed->source_lent = true;
    *store = pair;
    return VV_OK;
}

/* ---- the seeding itself ---- */

int vv_seed_begin(struct vv_seed *s, struct vv_broker *b, char **text, size_t *n, struct vv_error *e)
{
    char then[40] = "";
    int64_t as_of = s->tier.origins.v[0].as_of_ms;
    *text = NULL;
    int err = vv_tier_seed_clear(b->tier, e);
    if (err) return err;
    json_object_set_new(s->list, "cluster_id", json_string(b->cluster_id));
    *text = vv_json_text(s->list, JSON_INDENT(1));
    if (!*text) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    *n = strlen(*text);
    VLOG_INFO("restore: seeding cluster %s from %s (cluster %s)%s%s", b->cluster_id, s->source->url, s->root.cluster_id,
              as_of < 0 ? "" : " as of ", as_of < 0 ? "" : utc(as_of, then));
    vv_tier_seed(b->tier, &s->tier);
    return VV_OK;
}

int vv_seed_end(struct vv_seed *s, struct vv_broker *b, const char *text, size_t n, struct vv_error *e)
{
    (void)s;
    int err = vv_tier_put_snapshot(b->tier, text, n, true, e);
    return err ? err : vv_tier_seeded(b->tier, e);
}
