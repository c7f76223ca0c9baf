/* topics.c — the registry of topics: lookups for everybody, changes on control.
 *
 * Invariants: a change is on disk (topics_file.c) before anybody sees it; the registry holds one reference to each
 * topic it lists. Threads: lookups anywhere (read lock); changes on control (write lock for the moment of the swap).
 */
#include "live.h"
#include "opening.h"
#include "topics.h"

#include "groups_snapshot.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the registry ---- */

int vv_topics_new(struct vv_broker *b, struct vv_topics **out)
{
    struct vv_topics *ts = calloc(1, sizeof *ts);
    if (!ts) return VV_E_NOMEM;
    ts->broker = b;
    ts->id_cap = 64;
    ts->ids = calloc(ts->id_cap, sizeof *ts->ids);
    if (!ts->ids || asprintf(&ts->path, "%s/varve-topics.json", b->log_dir) < 0) {
        free(ts->ids);
        free(ts);
        return VV_E_NOMEM;
    }
    pthread_rwlock_init(&ts->lock, NULL);
    pthread_mutex_init(&ts->snapshot.put_lock, NULL);
    *out = ts;
    return VV_OK;
}

void vv_topics_free(struct vv_topics *ts)
{
    if (!ts) return;
    for (size_t i = 0; i < ts->count; i++)
        vv_topic_free(ts->v[i]);
    for (size_t i = 0; i < ts->doomed_count; i++)
        vv_doomed_release(&ts->doomed[i]);
    pthread_rwlock_destroy(&ts->lock);
    pthread_mutex_destroy(&ts->snapshot.put_lock);
    free(ts->snapshot.json);
    vv_doomed_release(&ts->snapshot.doomed);
    free(ts->snapshot.purge_ids);
    free(ts->doomed);
    free(ts->ids);
    free(ts->v);
    free(ts->path);
    free(ts);
}

static size_t lower_bound(struct vv_topics *ts, const char *name, size_t n, bool *found)
{
    size_t lo = 0, hi = ts->count;
    *found = false;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const char *other = ts->v[mid]->name;
        int c = strncmp(other, name, n);
        if (!c && other[n]) c = 1;
        if (!c) *found = true;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct vv_topic *vv_topics_get(struct vv_topics *ts, const char *name, size_t n)
{
    bool found;
    struct vv_topic *t = NULL;
    if (!n || n > 249 || memchr(name, 0, n)) return NULL;
    pthread_rwlock_rdlock(&ts->lock);
    size_t at = lower_bound(ts, name, n, &found);
    if (found) {
        t = ts->v[at];
        atomic_fetch_add(&t->refs, 1);
    }
    pthread_rwlock_unlock(&ts->lock);
    return t;
}

static size_t id_slot(const struct vv_topics *ts, struct vv_uuid id)
{
    size_t mask = ts->id_cap - 1, i = (size_t)vv_get64(id.b + 8) & mask;
    while (ts->ids[i] && !vv_uuid_eq(ts->ids[i]->id, id))
        i = (i + 1) & mask;
    return i;
}

struct vv_topic *vv_topics_get_id(struct vv_topics *ts, struct vv_uuid id)
{
    pthread_rwlock_rdlock(&ts->lock);
    struct vv_topic *t = ts->ids[id_slot(ts, id)];
    if (t) atomic_fetch_add(&t->refs, 1);
    pthread_rwlock_unlock(&ts->lock);
    return t;
}

void vv_topics_each(struct vv_topics *ts, void (*each)(void *ctx, struct vv_topic *t), void *ctx)
{
    pthread_rwlock_rdlock(&ts->lock);
    for (size_t i = 0; i < ts->count; i++)
        each(ctx, ts->v[i]);
    pthread_rwlock_unlock(&ts->lock);
}

static int reserve(struct vv_topics *ts) /* write lock held */
{
    if (ts->count == ts->cap) {
        size_t cap = ts->cap ? ts->cap * 2 : 32;
        struct vv_topic **v = realloc(ts->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        ts->v = v;
        ts->cap = cap;
    }
    if ((ts->count + 1) * 2 > ts->id_cap) {
        struct vv_topic **ids = calloc(ts->id_cap * 2, sizeof *ids);
        if (!ids) return VV_E_NOMEM;
        free(ts->ids);
        ts->ids = ids;
        ts->id_cap *= 2;
        for (size_t i = 0; i < ts->count; i++)
            ts->ids[id_slot(ts, ts->v[i]->id)] = ts->v[i];
    }
    return VV_OK;
}

/* Takes the caller's reference over. TOPIC_ALREADY_EXISTS: the name or the id is there. */
int vv_topics_insert(struct vv_topics *ts, struct vv_topic *t)
{
    bool found;
    pthread_rwlock_wrlock(&ts->lock);
    size_t at = lower_bound(ts, t->name, strlen(t->name), &found);
    int err = found || ts->ids[id_slot(ts, t->id)] ? VV_TOPIC_ALREADY_EXISTS : reserve(ts);
    if (!err) {
        memmove(ts->v + at + 1, ts->v + at, (ts->count - at) * sizeof *ts->v);
        ts->v[at] = t;
        ts->count++;
        ts->ids[id_slot(ts, t->id)] = t;
    }
    pthread_rwlock_unlock(&ts->lock);
    return err;
}

static void forget(struct vv_topics *ts, struct vv_topic *t)
{
    bool found;
    pthread_rwlock_wrlock(&ts->lock);
    size_t at = lower_bound(ts, t->name, strlen(t->name), &found);
    memmove(ts->v + at, ts->v + at + 1, (ts->count - at - 1) * sizeof *ts->v);
    ts->count--;
    memset(ts->ids, 0, ts->id_cap * sizeof *ts->ids);
    for (size_t i = 0; i < ts->count; i++)
        ts->ids[id_slot(ts, ts->v[i]->id)] = ts->v[i];
    atomic_store(&t->deleted, true);
    pthread_rwlock_unlock(&ts->lock);
}

/* ---- doomed ---- */

void vv_doomed_release(struct vv_doomed *d)
{
    free(d->name);
    vv_kv_free(d->configs, d->config_count);
    json_decref(d->offsets);
    *d = (struct vv_doomed){0};
}

int vv_doomed_push(struct vv_topics *ts, struct vv_doomed *d)
{
    struct vv_doomed *v = d->name ? realloc(ts->doomed, (ts->doomed_count + 1) * sizeof *v) : NULL;
    if (!v) {
        vv_doomed_release(d);
        return VV_E_NOMEM;
    }
    ts->doomed = v;
    v[ts->doomed_count++] = *d;
    return VV_OK;
}

struct vv_doomed *vv_doomed_find(struct vv_topics *ts, struct vv_uuid id)
{
    for (size_t i = 0; i < ts->doomed_count; i++)
        if (vv_uuid_eq(ts->doomed[i].id, id)) return &ts->doomed[i];
    return NULL;
}

void vv_doomed_remove(struct vv_topics *ts, struct vv_uuid id)
{
    struct vv_doomed *d = vv_doomed_find(ts, id);
    if (!d) return;
    vv_doomed_release(d);
    memmove(d, d + 1, (size_t)(ts->doomed + --ts->doomed_count - d) * sizeof *d);
}

/* ---- creating ---- */

/* Metrics of Kafka's world spell '.' as '_': two names that then read alike are refused. */
static bool collide(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if ((*a == '.' ? '_' : *a) != (*b == '.' ? '_' : *b)) return false;
    return *a == *b;
}

int vv_topics_check_create(struct vv_topics *ts, const char *name, int32_t partitions, struct vv_error *e)
{
    bool found;
    size_t n = strlen(name);
    if (!vv_topic_name_ok(name, n, e)) return VV_INVALID_TOPIC_EXCEPTION;
    lower_bound(ts, name, n, &found);
    if (found) return vv_error_set(e, VV_TOPIC_ALREADY_EXISTS, "Topic '%s' already exists.", name);
    const char *returning = vv_undelete_name(ts->undelete);
    if (returning && !strcmp(returning, name))
        return vv_error_set(e, VV_TOPIC_ALREADY_EXISTS, "Topic '%s' is just being brought back.", name);
    for (size_t i = 0; strpbrk(name, "._") && i < ts->count; i++)
        if (collide(ts->v[i]->name, name))
            return vv_error_set(e, VV_INVALID_TOPIC_EXCEPTION,
                                "Topic '%s' collides with existing topic: %s ('.' and '_' count "
                                "as the same)",
                                name, ts->v[i]->name);
    if (partitions < 1 || partitions > VV_PARTITIONS_MAX)
        return vv_error_set(e, VV_INVALID_PARTITIONS,
                            "Number of partitions was set to an invalid value: %d is not in 1..%d.", (int)partitions,
                            VV_PARTITIONS_MAX);
    return VV_OK;
}

static struct vv_uuid new_id(struct vv_topics *ts)
{
    struct vv_uuid id;
    char text[23];
    do { /* Kafka's ids never begin with '-': they are arguments on command lines */
        vv_random(ts->broker->env, id.b, sizeof id.b);
        id.b[6] = (uint8_t)((id.b[6] & 0x0f) | 0x40);
        id.b[8] = (uint8_t)((id.b[8] & 0x3f) | 0x80);
        vv_uuid_text(id, text);
    } while (text[0] == '-' || ts->ids[id_slot(ts, id)]);
    return id;
}

static void undo_parts(struct vv_partition **parts, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (parts[i]) vv_partition_destroy(parts[i]);
}

/* Opens [from, total) of t, writes the registry as `change` says, then shows them. */
static int add_parts(struct vv_topics *ts, struct vv_topic *t, int32_t from, int32_t total,
                     const struct vv_topics_change *change, struct vv_error *e)
{
    struct vv_partition **parts = calloc((size_t)(total - from), sizeof *parts);
    if (!parts) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int err = vv_topics_open_parts(t, from, total, parts, e);
    if (!err) err = vv_topics_save(ts, change, e);
    if (!err) {
        pthread_rwlock_wrlock(&ts->lock);
        err = vv_topic_grow(t, parts, total - from);
        pthread_rwlock_unlock(&ts->lock);
        if (err && vv_topics_save(ts, NULL, NULL))
            VLOG_ERROR("topic %s: out of memory while it was changed", t->name);
    }
    if (err) undo_parts(parts, total - from);
    free(parts);
    return err;
}

/* Takes t over: opens its partitions, writes it down, shows it. */
static int add_topic(struct vv_topics *ts, struct vv_topic *t, int32_t partitions, struct vv_error *e)
{
    struct vv_topics_change change = {.add = t, .partitions = partitions};
    int err = add_parts(ts, t, 0, partitions, &change, e);
    if (!err && (err = vv_topics_insert(ts, t))) {
        vv_error_set(e, err, "cannot add topic '%s': %s", t->name, vv_err_name(err));
        undo_parts(t->partitions, t->partition_count);
        vv_topics_save(ts, NULL, NULL);
    }
    if (err) {
        VLOG_WARN("topic %s: not created: %s", t->name, e ? e->text : vv_err_name(err));
        vv_topic_free(t);
        return err;
    }
    VLOG_INFO("topic %s: created with %d partition%s", t->name, (int)partitions, partitions == 1 ? "" : "s");
    return VV_OK;
}

int vv_topics_adopt(struct vv_topics *ts, const char *name, struct vv_uuid id, int32_t partitions, const struct vv_kv *configs, size_t n,
                    struct vv_error *e)
{
    vv_reactor_assert_here(ts->broker->control);
    int err = vv_topics_check_create(ts, name, partitions, e);
    if (err) return err;
    struct vv_topic *t = vv_topic_new(ts->broker, name, id, false);
    err = t ? vv_kv_copy(configs, n, &t->overrides, &t->override_count) : VV_E_NOMEM;
    if (err) {
        vv_topic_free(t);
        return vv_error_set(e, err, "out of memory");
    }
    vv_topic_config_load(t->overrides, t->override_count, vv_broker_live(ts->broker), false, name, &t->config);
    return add_topic(ts, t, partitions, e);
}

int vv_topics_create(struct vv_topics *ts, const char *name, int32_t partitions, const struct vv_kv *configs,
                     size_t n, bool internal, bool validate_only, struct vv_topic **out, struct vv_error *e)
{
    struct vv_broker *b = ts->broker;
    struct vv_topic_config config;
    if (out) *out = NULL;
    vv_reactor_assert_here(b->control);
    if (partitions == -1) partitions = b->config->num_partitions;
    int err = vv_topics_check_create(ts, name, partitions, e);
    if (!err) err = vv_topic_config_parse(configs, n, vv_broker_live(b), internal, &config, e);
    if (err || validate_only) return err;
    struct vv_topic *t = vv_topic_new(b, name, new_id(ts), internal);
    if (t) t->config = config;
    err = t ? vv_kv_copy(configs, n, &t->overrides, &t->override_count) : VV_E_NOMEM;
    if (err) {
        vv_topic_free(t);
        return vv_err_kafka(vv_error_set(e, err, "out of memory"));
    }
    err = add_topic(ts, t, partitions, e);
    if (err) return vv_err_kafka(err);
    if (out) {
        atomic_fetch_add(&t->refs, 1);
        *out = t;
    }
    vv_topics_changed(b);
    return VV_OK;
}

/* ---- changing ---- */

int vv_topics_add_partitions(struct vv_topics *ts, struct vv_topic *t, int32_t total, bool validate_only,
                             struct vv_error *e)
{
    vv_reactor_assert_here(ts->broker->control);
    if (atomic_load(&t->deleted)) return vv_error_set(e, VV_UNKNOWN_TOPIC_OR_PARTITION, "The topic was deleted.");
    if (total <= t->partition_count)
        return vv_error_set(e, VV_INVALID_PARTITIONS,
                            "The topic %s currently has %d partition(s); %d would not be an increase.", t->name,
                            (int)t->partition_count, (int)total);
    if (total > VV_PARTITIONS_MAX)
        return vv_error_set(e, VV_INVALID_PARTITIONS, "A topic may have at most %d partitions.", VV_PARTITIONS_MAX);
    if (validate_only) return VV_OK;
    struct vv_topics_change change = {
        .edit = t, .partitions = total, .overrides = t->overrides, .override_count = t->override_count};
    int32_t before = t->partition_count;
    int err = add_parts(ts, t, before, total, &change, e);
    if (err) return vv_err_kafka(err);
    VLOG_INFO("topic %s: %d partitions, were %d", t->name, (int)total, (int)before);
    vv_topics_changed(ts->broker);
    return VV_OK;
}

int vv_topics_set_configs(struct vv_topics *ts, struct vv_topic *t, const struct vv_kv *configs, size_t n,
                          bool validate_only, struct vv_error *e)
{
    struct vv_broker *b = ts->broker;
    struct vv_topic_config config;
    struct vv_kv *copy = NULL;
    size_t copy_n = 0;
    vv_reactor_assert_here(b->control);
    if (atomic_load(&t->deleted)) return vv_error_set(e, VV_UNKNOWN_TOPIC_OR_PARTITION, "The topic was deleted.");
    int err = vv_topic_config_change(t->overrides, t->override_count, configs, n, vv_broker_live(b), t->internal, &config, e);
    if (err || validate_only) return err;
    err = vv_kv_copy(configs, n, &copy, &copy_n);
    if (err) return vv_err_kafka(vv_error_set(e, err, "out of memory"));
    struct vv_topics_change change = {
        .edit = t, .partitions = t->partition_count, .overrides = copy, .override_count = copy_n};
    err = vv_topics_save(ts, &change, e);
    if (err) {
        vv_kv_free(copy, copy_n);
        return vv_err_kafka(err);
    }
    pthread_rwlock_wrlock(&ts->lock);
    struct vv_kv *old = t->overrides;
    size_t old_n = t->override_count;
    t->overrides = copy;
    t->override_count = copy_n;
    t->config = config;
    pthread_rwlock_unlock(&ts->lock);
    vv_kv_free(old, old_n);
    for (int32_t i = 0; i < t->partition_count; i++) {
        if (!t->partitions[i]) continue; /* configured when it is back */
        vv_partition_configure(t->partitions[i], &config);
        vv_partition_maintain(t->partitions[i]);
    }
    vv_topics_changed(b);
    return VV_OK;
}

/* ---- deleting ---- */

static bool ever_tiered(struct vv_topic *t)
{
    if (t->config.remote_storage) return true;
    for (int32_t i = 0; i < t->partition_count; i++) {
        struct vv_partition_sizes s;
        if (!t->partitions[i]) return true;
        vv_partition_sizes(t->partitions[i], &s);
        if (t->partitions[i]->tier || s.remote_bytes) return true;
    }
    return false;
}

int vv_topics_delete(struct vv_topics *ts, struct vv_topic *t, struct vv_error *e)
{
    struct vv_broker *b = ts->broker;
    vv_reactor_assert_here(b->control);
    if (atomic_load(&t->deleted)) return vv_error_set(e, VV_UNKNOWN_TOPIC_OR_PARTITION, "The topic was deleted.");
    if (!vv_opening_drop(b->opening, t))
        return vv_error_set(e, VV_KAFKA_STORAGE_ERROR, "Topic '%s' is just being brought back from the bucket: try again.", t->name);
    bool tiered = !b->config->tier_replica && ever_tiered(t); /* a replica keeps nothing of it */
    struct vv_doomed d = {.id = t->id, .name = strdup(t->name), .partitions = t->partition_count, .tiered = tiered,
                          .deleted_ms = vv_wall_ms(b->env), .offsets = vv_groups_export_topic(b->groups, t->name)};
    int err = vv_kv_copy(t->overrides, t->override_count, &d.configs, &d.config_count);
    if (err)
        vv_doomed_release(&d);
    else
        err = vv_doomed_push(ts, &d);
    if (err) return vv_err_kafka(vv_error_set(e, err, "out of memory"));
    atomic_store(&t->kept, vv_doomed_keeps(b, &d));
    struct vv_topics_change change = {.drop = t};
    err = vv_topics_save(ts, &change, e);
    if (err) {
        vv_doomed_remove(ts, t->id);
        return vv_err_kafka(err);
    }
    forget(ts, t);
    for (int32_t i = 0; i < t->partition_count; i++)
        if (t->partitions[i]) vv_partition_wake(t->partitions[i]);
    struct vv_error why = {0};
    err = vv_topics_retire_parts(t, &why);
    if (err) VLOG_ERROR("topic %s: cannot rename its directories away: %s", t->name, why.text);
    if (!tiered && !err) vv_doomed_remove(ts, t->id); /* else the next start removes what is left */
    VLOG_INFO("topic %s: deleted", t->name);
    vv_groups_topic_deleted(b->groups, t->name);
    vv_topic_unref(t);
    vv_topics_changed(b);
    return VV_OK;
}
