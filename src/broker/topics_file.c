/* topics_file.c — the registry as JSON: varve-topics.json beside the logs, and the same as the bucket's snapshot.
 *
 * {"format":1, "topics":[{"name","id","internal","partitions","configs":{}}],
 * "deleted":[{"name","id","partitions","tiered","deleted_ms","configs":{},"offsets":[]}],
 * "broker_configs":{} (live.h), "quotas":[] (quota_set.h)}. The bucket's copy also has "cluster_id", "producer_ids" (ids
 * below were handed out), "groups" (groups_snapshot.h) and "log_starts". Unknown members are ignored, so that a newer broker's file can be read; another format is
 * refused. On control, or on the main thread before it runs. */
#include "topics.h"

#include "groups_snapshot.h"
#include "live.h"
#include "jsontext.h"
#include "opening.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT 1

/* ---- out ---- */

static json_t *configs_json(const struct vv_kv *kv, size_t n)
{
    json_t *configs = json_object();
    for (size_t i = 0; i < n; i++)
        json_object_set_new(configs, kv[i].key, json_string(kv[i].value));
    return configs;
}

static json_t *topic_json(const struct vv_topic *t, int32_t partitions, const struct vv_kv *kv, size_t n)
{
    char id[23];
    json_t *configs = configs_json(kv, n);
    vv_uuid_text(t->id, id);
    return json_pack("{s:s,s:s,s:b,s:i,s:o}", "name", t->name, "id", id, "internal", (int)t->internal, "partitions",
                     (int)partitions, "configs", configs);
}

static int append(json_t *to, json_t *o)
{
    return o && !json_array_append_new(to, o) ? VV_OK : VV_E_NOMEM;
}

static int topics_json(struct vv_topics *ts, const struct vv_topics_change *change, json_t *to)
{
    static const struct vv_topics_change none;
    const struct vv_topics_change *c = change ? change : &none;
    bool added = !c->add;
    int err = VV_OK;
    for (size_t i = 0; i < ts->count && !err; i++) {
        const struct vv_topic *t = ts->v[i];
        if (!added && strcmp(t->name, c->add->name) > 0) {
            err = append(to, topic_json(c->add, c->partitions, c->add->overrides, c->add->override_count));
            added = true;
        }
        if (err || t == c->drop) continue;
        if (t == c->edit)
            err = append(to, topic_json(t, c->partitions, c->overrides, c->override_count));
        else
            err = append(to, topic_json(t, t->partition_count, t->overrides, t->override_count));
    }
    if (!added && !err)
        err = append(to, topic_json(c->add, c->partitions, c->add->overrides, c->add->override_count));
    return err;
}

static json_t *doomed_json(const struct vv_doomed *d)
{
    char id[23];
    vv_uuid_text(d->id, id);
    json_t *o = json_pack("{s:s,s:s,s:i,s:b,s:I,s:o}", "name", d->name, "id", id, "partitions", (int)d->partitions, "tiered",
                          (int)d->tiered, "deleted_ms", (json_int_t)d->deleted_ms, "configs",
                          configs_json(d->configs, d->config_count));
    if (o && d->offsets) json_object_set(o, "offsets", d->offsets);
    return o;
}

/* Log starts above 0, by topic id: a restore as of a time begins there (DeleteRecords and retention move them on later). */
static json_t *log_starts_json(struct vv_topics *ts)
{
    json_t *to = json_object();
    for (size_t i = 0; to && i < ts->count; i++) {
        const struct vv_topic *t = ts->v[i];
        bool any = false;
        char id[23];
        json_t *starts = json_array();
        for (int32_t k = 0; k < t->partition_count; k++) {
            int64_t start = t->partitions[k] ? vv_partition_log_start(t->partitions[k]) : 0;
            any = any || start > 0;
            json_array_append_new(starts, json_integer(start));
        }
        vv_uuid_text(t->id, id);
        if (any && !t->internal)
            json_object_set_new(to, id, starts);
        else
            json_decref(starts);
    }
    return to;
}

/* While the groups have no coordinator yet: as the bucket had them. */
static json_t *groups_json(struct vv_broker *b)
{
    size_t n = 0;
    const char *list = b->opening ? vv_opening_list(b->opening, &n) : NULL;
    json_t *root = list ? json_loadb(list, n, 0, NULL) : NULL, *groups = json_incref(json_object_get(root, "groups"));
    json_decref(root);
    return list ? groups ? groups : json_array() : vv_groups_export(b->groups);
}

static char *registry_text(struct vv_topics *ts, const struct vv_topics_change *change, bool bucket)
{
    json_t *topics = json_array(), *deleted = json_array();
    int err = topics_json(ts, change, topics);
    for (size_t i = 0; i < ts->doomed_count && !err; i++)
        err = append(deleted, doomed_json(&ts->doomed[i]));
    json_t *configs = vv_live_json(ts->broker, change ? change->config : NULL);
    const struct vv_quota_set none = {0}, *now = ts->broker->quotas ? &ts->broker->quotas->set : &none;
    json_t *quotas = vv_quota_set_json(change && change->quotas ? change->quotas : now);
    json_t *o = json_pack("{s:i,s:o,s:o,s:o,s:o}", "format", FORMAT, "broker_configs", configs, "quotas", quotas,
                          "topics", topics, "deleted", deleted);
    if (o && bucket) {
        json_object_set_new(o, "cluster_id", json_string(ts->broker->cluster_id));
        json_t *groups = groups_json(ts->broker);
        if (!groups)
            err = VV_E_NOMEM;
        json_object_set_new(o, "groups", groups);
        json_object_set_new(o, "log_starts", log_starts_json(ts));
        json_object_set_new(o, "producer_ids", json_integer((json_int_t)vv_producer_ids_reserved(ts->broker)));
    }
    char *text = err || !o ? NULL : vv_json_text(o, JSON_INDENT(1));
    json_decref(o);
    return text;
}

int vv_topics_save(struct vv_topics *ts, const struct vv_topics_change *change, struct vv_error *e)
{
    char *text = registry_text(ts, change, false);
    if (!text) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int err = vv_fs_write_file(ts->broker->env, ts->path, text, strlen(text));
    free(text);
    if (err) VLOG_ERROR("cannot write %s: %s", ts->path, vv_err_name(err));
    return err ? vv_error_set(e, err, "cannot write %s: %s", ts->path, vv_err_name(err)) : VV_OK;
}

char *vv_topics_snapshot(struct vv_topics *ts)
{
    return registry_text(ts, NULL, true);
}

/* ---- in ---- */

static int load_kv(json_t *configs, struct vv_kv **out, size_t *out_n)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    struct vv_kv *kv = calloc(json_object_size(configs) + 1, sizeof *kv);
    if (!kv) return VV_E_NOMEM;
    json_object_foreach(configs, key, value)
    {
        if (json_is_string(value)) kv[n++] = (struct vv_kv){key, json_string_value(value)};
    }
    int err = vv_kv_copy(kv, n, out, out_n);
    free(kv);
    return err;
}

static int load_configs(struct vv_topics *ts, struct vv_topic *t, json_t *configs)
{
    int err = load_kv(configs, &t->overrides, &t->override_count);
    if (!err)
        vv_topic_config_load(t->overrides, t->override_count, vv_broker_live(ts->broker), t->internal, t->name, &t->config);
    return err;
}

/* A topic without open partitions: the array is there, its entries NULL. */
static int load_topic(struct vv_topics *ts, json_t *o, struct vv_error *e)
{
    const char *name, *id;
    int internal, partitions;
    json_t *configs;
    struct vv_uuid uuid;
    if (json_unpack(o, "{s:s,s:s,s:b,s:i,s:o}", "name", &name, "id", &id, "internal", &internal, "partitions",
                    &partitions, "configs", &configs) ||
        !vv_uuid_parse(id, &uuid) || !json_is_object(configs) || partitions < 1 || partitions > VV_PARTITIONS_MAX ||
        !vv_topic_name_ok(name, strlen(name), NULL))
        return vv_error_set(e, VV_E_CORRUPT, "a topic's entry is damaged");
    struct vv_topic *t = vv_topic_new(ts->broker, name, uuid, internal);
    int32_t cap = 1;
    while (cap < partitions)
        cap *= 2;
    if (t) t->partitions = calloc((size_t)cap, sizeof(struct vv_partition *));
    int err = t && t->partitions ? load_configs(ts, t, configs) : VV_E_NOMEM;
    if (!err) {
        t->partition_count = partitions;
        err = vv_topics_insert(ts, t);
    }
    if (!err) return VV_OK;
    vv_topic_free(t);
    if (err == VV_TOPIC_ALREADY_EXISTS) return vv_error_set(e, VV_E_CORRUPT, "topic %s is listed twice", name);
    return vv_error_set(e, err, "out of memory");
}

static int load_deleted(struct vv_topics *ts, json_t *o, struct vv_error *e)
{
    const char *name, *id;
    int partitions, tiered;
    struct vv_uuid uuid;
    if (json_unpack(o, "{s:s,s:s,s:i,s:b}", "name", &name, "id", &id, "partitions", &partitions, "tiered", &tiered) ||
        !vv_uuid_parse(id, &uuid))
        return vv_error_set(e, VV_E_CORRUPT, "a deleted topic's entry is damaged");
    struct vv_doomed d = {.id = uuid, .name = strdup(name), .partitions = partitions, .tiered = tiered,
                          .deleted_ms = json_integer_value(json_object_get(o, "deleted_ms")),
                          .offsets = json_incref(json_object_get(o, "offsets"))};
    int err = load_kv(json_object_get(o, "configs"), &d.configs, &d.config_count);
    if (!err)
        err = vv_doomed_push(ts, &d);
    else
        vv_doomed_release(&d);
    return err ? vv_error_set(e, err, "out of memory") : VV_OK;
}

int vv_topics_load(struct vv_topics *ts, const char *text, size_t n, struct vv_error *e)
{
    json_error_t why;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why), *o;
    if (!root) return vv_error_set(e, VV_E_CORRUPT, "line %d: %s", why.line, why.text);
    json_int_t format = json_integer_value(json_object_get(root, "format"));
    int err = VV_OK;
    size_t i;
    if (format != FORMAT)
        err = vv_error_set(e, VV_E_CORRUPT, "format %d is not known here: it was written by another version",
                           (int)format);
    else if (!json_is_array(json_object_get(root, "topics")))
        err = vv_error_set(e, VV_E_CORRUPT, "there is no list of topics");
    else if ((err = vv_live_load(ts->broker, json_object_get(root, "broker_configs")))) /* topics inherit from it */
        vv_error_set(e, err, "out of memory");
    else if ((err = vv_live_load_quotas(ts->broker, json_object_get(root, "quotas"))))
        vv_error_set(e, err, "out of memory");
    json_array_foreach(json_object_get(root, "topics"), i, o)
    {
        if (!err) err = load_topic(ts, o, e);
    }
    json_array_foreach(json_object_get(root, "deleted"), i, o)
    {
        if (!err) err = load_deleted(ts, o, e);
    }
    ts->producer_ids = json_integer_value(json_object_get(root, "producer_ids"));
    json_decref(root);
    return err;
}
