/* replica.c — see replica.h. */
#include "replica.h"

#include "broker_tier.h"
#include "topics.h"
#include "jsontext.h"
#include "varve/bytes.h"
#include "varve/vlog.h"
#include "varve/wait.h"

#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELPERS_MAX      16
#define PARTS_PER_HELPER 8

struct part_ref {
    struct vv_topic *topic; /* a reference */
    struct vv_partition *partition;
};

struct vv_replica {
    struct vv_broker *b;
    struct vv_objstore *store;
    pthread_t thread;
    pthread_mutex_t lock; /* what follows, and waiting */
    pthread_cond_t changed;
    bool started, applied;
    _Atomic bool stopping;
    char etag[VV_OBJ_ETAG_MAX]; /* of the list of topics as we know it; "" = none */
    json_t *list;               /* handed to control */
    struct vv_task apply;
    struct part_ref *v; /* of the look under way */
    size_t n, cap;
    _Atomic size_t next;
    size_t failed;         /* lock */
    struct vv_error error; /* lock: the first one */
    bool behind;           /* the last look did not succeed, and that was told */
};

int vv_replica_refusal(struct vv_broker *b, int code, struct vv_error *e)
{
    return vv_error_set(e, code, "This broker is a read-only replica of %s: write to the broker of cluster %s", b->tier_url, b->cluster_id);
}

/* Asking on, for the other partitions too, would only wait. */
static bool is_away(int err)
{
    return err == VV_E_AGAIN || err == VV_E_TIMEOUT || err == VV_E_ACCESS;
}

/* ---- opening ---- */

int vv_replica_open_tier(struct vv_broker *b, const struct vv_directory *d, struct vv_objstore **store, struct vv_error *e)
{
    struct vv_tier_config tc;
    struct vv_objstore_config oc;
    struct vv_tier_identity id = {.node_id = b->node_id, .data_dir = d->path};
    struct vv_error why = {0};
    if (!b->config->tier) return vv_error_set(e, VV_E_CONFIG, "--replica needs the bucket to follow: set tier.url");
    if (b->config->tier_restore_url) return vv_error_set(e, VV_E_CONFIG, "--replica and --restore exclude each other");
    vv_broker_tier_config(b->config, &tc);
    vv_broker_store_config(b->config, &oc);
    oc.read_only = true;
    snprintf(id.cluster_id, sizeof id.cluster_id, "%s", b->cluster_id);
    int err = vv_objstore_open(b->config->tier, &oc, b->env, store, &why);
    if (err == VV_E_NOENT) return vv_error_set(e, err, "%s is not a Varve bucket: %s", b->config->tier, why.text);
    *e = why;
    if (!err) err = vv_tier_open_replica(b->env, *store, &tc, &id, &b->tier, e);
    if (err) return err;
    b->tier_url = strdup((*store)->url);
    if (!b->tier_url) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    snprintf(b->cluster_id, sizeof b->cluster_id, "%s", id.cluster_id);
    VLOG_INFO("replica of %s (cluster %s): reading only, a look every %" PRId64 " ms", b->tier_url, b->cluster_id,
              b->config->tier_replica_interval_ms);
    return VV_OK;
}

/* ---- the list of topics ---- */

static int check_list(struct vv_broker *b, const json_t *o, struct vv_error *e)
{
    const char *cluster = json_string_value(json_object_get(o, "cluster_id"));
    json_int_t format = json_integer_value(json_object_get(o, "format"));
    if (o && format > 1)
        return vv_error_set(e, VV_E_UNSUPPORTED, "the list of topics in %s has format %d, which a newer Varve wrote: upgrade this one",
                            b->tier_url, (int)format);
    if (!json_is_array(json_object_get(o, "topics")) || format != 1)
        return vv_error_set(e, VV_E_CORRUPT, "the list of topics in %s is damaged", b->tier_url);
    if (!cluster || strcmp(cluster, b->cluster_id))
        return vv_error_set(e, VV_E_CONFLICT, "the list of topics in %s is of cluster %s, this is a replica of cluster %s", b->tier_url,
                            cluster ? cluster : "?", b->cluster_id);
    return VV_OK;
}

/* The bucket's topics but for internal ones: an array. No list yet: an empty one. */
static int get_list(struct vv_broker *b, json_t **out, struct vv_error *e)
{
    char *text;
    size_t n, i;
    *out = NULL;
    int err = vv_broker_tier_snapshot(b, &text, &n, e);
    if (err) return err;
    json_t *topics = json_array(), *t, *o = text ? json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (text) err = check_list(b, o, e);
    json_array_foreach(json_object_get(o, "topics"), i, t) {
        if (!json_is_true(json_object_get(t, "internal")) && json_array_append(topics, t)) err = VV_E_NOMEM;
    }
    json_decref(o);
    free(text);
    if (!err && !topics) err = vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (err)
        json_decref(topics);
    else
        *out = topics;
    return err;
}

int vv_replica_registry(struct vv_broker *b, const char *own, size_t own_n, char **text, struct vv_error *e)
{
    json_t *topics, *t, *o = own ? json_loadb(own, own_n, JSON_REJECT_DUPLICATES, NULL) : json_pack("{s:i}", "format", 1);
    size_t i;
    *text = NULL;
    if (!o) return vv_error_set(e, VV_E_CORRUPT, "%s is damaged", b->topics->path);
    int err = get_list(b, &topics, e);
    json_array_foreach(json_object_get(o, "topics"), i, t) {
        if (!err && json_is_true(json_object_get(t, "internal")) && json_array_append(topics, t)) err = VV_E_NOMEM;
    }
    if (!err && (json_object_set_new(o, "topics", topics) || json_object_set_new(o, "deleted", json_array()))) err = VV_E_NOMEM;
    if (!err) *text = vv_json_text(o, JSON_INDENT(1));
    json_decref(o);
    return err || *text ? err : vv_error_set(e, VV_E_NOMEM, "out of memory");
}

/* ---- changes of topics: on control ---- */

struct wanted { /* a topic as the list has it */
    const char *name;
    struct vv_uuid id;
    int32_t partitions;
    struct vv_kv *configs; /* owned */
    size_t config_count;
};

static int take_wanted(json_t *o, struct wanted *w)
{
    const char *id, *key;
    int partitions;
    size_t n = 0;
    json_t *configs, *value;
    *w = (struct wanted){0};
    if (json_unpack(o, "{s:s,s:s,s:i,s:o}", "name", &w->name, "id", &id, "partitions", &partitions, "configs", &configs) ||
        !vv_uuid_parse(id, &w->id) || !json_is_object(configs) || partitions < 1 || partitions > VV_PARTITIONS_MAX ||
        !vv_topic_name_ok(w->name, strlen(w->name), NULL))
        return VV_E_CORRUPT;
    struct vv_kv *kv = calloc(json_object_size(configs) + 1, sizeof *kv);
    w->partitions = partitions;
    json_object_foreach(configs, key, value) {
        if (kv && json_is_string(value)) kv[n++] = (struct vv_kv){key, json_string_value(value)};
    }
    int err = kv ? vv_kv_copy(kv, n, &w->configs, &w->config_count) : VV_E_NOMEM;
    free(kv);
    return err;
}

static bool same_configs(const struct vv_topic *t, const struct wanted *w)
{
    bool same = t->override_count == w->config_count;
    for (size_t i = 0; same && i < w->config_count; i++)
        same = !strcmp(t->overrides[i].key, w->configs[i].key) && !strcmp(t->overrides[i].value, w->configs[i].value);
    return same;
}

static int change_topic(struct vv_topics *ts, struct vv_topic *t, const struct wanted *w, struct vv_error *e)
{
    int err = w->partitions > t->partition_count ? vv_topics_add_partitions(ts, t, w->partitions, false, e) : VV_OK;
    if (err || same_configs(t, w)) return err;
    return vv_topics_set_configs(ts, t, w->configs, w->config_count, false, e);
}

static int apply_topic(struct vv_topics *ts, json_t *o, struct vv_error *e)
{
    struct wanted w;
    int err = take_wanted(o, &w);
    if (err) return vv_error_set(e, err, "an entry of the list of topics is damaged");
    struct vv_topic *t = vv_topics_get_id(ts, w.id);
    if (t)
        err = change_topic(ts, t, &w, e);
    else
        err = vv_topics_adopt(ts, w.name, w.id, w.partitions, w.configs, w.config_count, e);
    vv_topic_unref(t);
    vv_kv_free(w.configs, w.config_count);
    return err;
}

static bool listed(const json_t *list, const struct vv_topic *t)
{
    char id[23];
    size_t i;
    json_t *o;
    vv_uuid_text(t->id, id);
    json_array_foreach(list, i, o) {
        const char *name = json_string_value(json_object_get(o, "name")), *other = json_string_value(json_object_get(o, "id"));
        if (name && other && !strcmp(other, id)) return !strcmp(name, t->name);
    }
    return false;
}

/* What is not in the list, or under another name: first, so that names are free. */
static void drop_topics(struct vv_topics *ts, const json_t *list)
{
    for (size_t i = ts->count; i-- > 0;) {
        struct vv_topic *t = ts->v[i];
        struct vv_error e = {0};
        if (t->internal || listed(list, t)) continue;
        if (vv_topics_delete(ts, t, &e)) VLOG_ERROR("replica: topic %s cannot be deleted: %s", t->name, e.text);
    }
}

static void apply_list(struct vv_task *task)
{
    struct vv_replica *r = VV_CONTAINER(task, struct vv_replica, apply);
    size_t i;
    json_t *o;
    drop_topics(r->b->topics, r->list);
    json_array_foreach(r->list, i, o) {
        struct vv_error e = {0};
        const char *name = json_string_value(json_object_get(o, "name"));
        if (apply_topic(r->b->topics, o, &e)) VLOG_ERROR("replica: topic %s: %s", name ? name : "?", e.text);
    }
    pthread_mutex_lock(&r->lock);
    r->applied = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static int look_at_topics(struct vv_replica *r, struct vv_error *e)
{
    char etag[VV_OBJ_ETAG_MAX];
    int err = vv_tier_snapshot_etag(r->b->tier, etag, e);
    if (err == VV_E_NOENT && !*r->etag) return VV_OK; /* its owner has not written one yet */
    if (err || (*etag && !strcmp(etag, r->etag))) return err;
    err = get_list(r->b, &r->list, e);
    if (err) return err;
    r->applied = false;
    r->apply.run = apply_list;
    vv_broker_control_post(r->b, &r->apply);
    pthread_mutex_lock(&r->lock);
    while (!r->applied) pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
    json_decref(r->list);
    memcpy(r->etag, etag, sizeof r->etag); /* of before the GET: at worst it is read once more */
    return VV_OK;
}

/* ---- partitions ---- */

static void collect(void *ctx, struct vv_topic *t)
{
    struct vv_replica *r = ctx;
    for (int32_t i = 0; i < t->partition_count && !t->internal; i++) {
        if (r->n == r->cap) {
            size_t cap = r->cap ? r->cap * 2 : 64;
            struct part_ref *v = realloc(r->v, cap * sizeof *v);
            if (!v) return; /* the next look sees to it */
            r->v = v;
            r->cap = cap;
        }
        atomic_fetch_add(&t->refs, 1);
        r->v[r->n++] = (struct part_ref){t, t->partitions[i]};
    }
}

static void *follow_some(void *arg)
{
    struct vv_replica *r = arg;
    for (;;) {
        size_t i = atomic_fetch_add(&r->next, 1);
        if (i >= r->n || atomic_load(&r->stopping)) return NULL;
        struct vv_error e = {0};
        const struct part_ref *x = &r->v[i];
        int err = atomic_load(&x->topic->deleted) ? VV_OK : vv_partition_follow(x->partition, &e);
        if (!err) continue;
        if (is_away(err)) atomic_store(&r->next, r->n);
        pthread_mutex_lock(&r->lock);
        if (!r->failed++)
            vv_error_set(&r->error, err, "%s-%d: %s", x->topic->name, (int)x->partition->id, *e.text ? e.text : vv_err_name(err));
        pthread_mutex_unlock(&r->lock);
    }
}

static int look_at_partitions(struct vv_replica *r, struct vv_error *e)
{
    pthread_t threads[HELPERS_MAX];
    size_t started = 0;
    r->n = r->failed = 0;
    atomic_store(&r->next, 0);
    vv_topics_each(r->b->topics, collect, r);
    size_t want = VV_MIN(r->n / PARTS_PER_HELPER, (size_t)HELPERS_MAX);
    while (started < want && !pthread_create(&threads[started], NULL, follow_some, r)) started++;
    follow_some(r);
    for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    for (size_t i = 0; i < r->n; i++) vv_topic_unref(r->v[i].topic);
    if (!r->failed) return VV_OK;
    *e = r->error;
    return r->error.code;
}

/* ---- life ---- */

static void look(struct vv_replica *r)
{
    struct vv_error topics = {0}, parts = {0};
    int err = look_at_topics(r, &topics), more = is_away(err) ? VV_OK : look_at_partitions(r, &parts);
    if (atomic_load(&r->stopping)) return;
    const char *text = err ? topics.text : parts.text;
    if ((err || more) && !r->behind)
        VLOG_WARN("replica: behind %s: %s. What is known is served; trying again", r->b->tier_url, text);
    if (!err && !more && r->behind) VLOG_INFO("replica: as far as %s again", r->b->tier_url);
    r->behind = err || more;
}

/* False: stopping. */
static bool pause_ms(struct vv_replica *r, int64_t ms)
{
    struct timespec until = vv_deadline_us(ms * 1000);
    pthread_mutex_lock(&r->lock);
    int rc = 0;
    while (!r->stopping && !rc) rc = pthread_cond_timedwait(&r->changed, &r->lock, &until);
    bool on = !r->stopping;
    pthread_mutex_unlock(&r->lock);
    return on;
}

static void *follower(void *arg)
{
    struct vv_replica *r = arg;
    while (pause_ms(r, r->b->config->tier_replica_interval_ms)) look(r);
    return NULL;
}

int vv_replica_first(struct vv_broker *b, struct vv_objstore *store, struct vv_replica **out, struct vv_error *e)
{
    struct vv_replica *r = *out = calloc(1, sizeof *r);
    if (!r) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    r->b = b;
    r->store = store;
    pthread_mutex_init(&r->lock, NULL);
    vv_cond_init(&r->changed);
    int err = look_at_partitions(r, e);
    if (!err) VLOG_INFO("replica: %zu partitions of %s are known", r->n, b->tier_url);
    return err;
}

int vv_replica_start(struct vv_replica *r)
{
    int rc = pthread_create(&r->thread, NULL, follower, r);
    r->started = !rc;
    return rc ? vv_err_from_errno(rc) : VV_OK;
}

void vv_replica_stop(struct vv_replica *r)
{
    if (!r || !r->started) return;
    pthread_mutex_lock(&r->lock);
    atomic_store(&r->stopping, true);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    vv_objstore_interrupt(r->store);
    pthread_join(r->thread, NULL);
    r->started = false;
}

void vv_replica_free(struct vv_replica *r)
{
    if (!r) return;
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    free(r->v);
    free(r);
}
