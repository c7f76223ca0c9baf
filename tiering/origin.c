/* origin.c — see origin.h; the JSON of the root is documented in docs/bucket-format.md. */
#include "origin.h"
#include "keys.h"
#include "jsontext.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOURNAL     "varve-origin.json"
#define JOURNAL_MAX (64u << 20)

json_t *vv_origins_json(const struct vv_origins *o)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < o->n; i++) {
        const struct vv_origin *v = &o->v[i];
        json_t *j = json_pack("{s:s,s:s,s:b,s:b}", "cluster_id", v->cluster_id, "url", v->url, "seeded", v->seeded, "hydrated",
                              v->hydrated);
        if (j && v->as_of_ms >= 0) json_object_set_new(j, "as_of_ms", json_integer(v->as_of_ms));
        json_array_append_new(array, j);
    }
    return array;
}

int vv_origins_parse(const json_t *array, struct vv_origins *out)
{
    size_t i;
    const json_t *o;
    *out = (struct vv_origins){0};
    if (json_array_size(array) > VV_ORIGINS_MAX) return VV_E_LIMIT;
    json_array_foreach(array, i, o) {
        struct vv_origin *v = &out->v[out->n++];
        const char *cluster = json_string_value(json_object_get(o, "cluster_id"));
        const char *url = json_string_value(json_object_get(o, "url"));
        const json_t *as_of = json_object_get(o, "as_of_ms");
        if (!cluster || !*cluster || strchr(cluster, ',') || strlen(cluster) >= sizeof v->cluster_id || !url ||
            strlen(url) >= sizeof v->url)
            return VV_E_CORRUPT;
        snprintf(v->cluster_id, sizeof v->cluster_id, "%s", cluster);
        snprintf(v->url, sizeof v->url, "%s", url);
        v->as_of_ms = json_is_integer(as_of) ? json_integer_value(as_of) : -1;
        v->seeded = json_is_true(json_object_get(o, "seeded"));
        v->hydrated = json_is_true(json_object_get(o, "hydrated"));
    }
    return VV_OK;
}

void vv_clusters_text(const char *own, const struct vv_origins *o, char out[VV_CLUSTERS_MAX])
{
    size_t at = (size_t)snprintf(out, 64, "%s", own);
    for (size_t i = 0; i < o->n; i++) at += (size_t)snprintf(out + at, VV_CLUSTERS_MAX - at, ",%s", o->v[i].cluster_id);
}

/* ---- the journal ---- */

static int compare(const struct vv_origin_part *a, struct vv_uuid id, int32_t partition)
{
    int c = memcmp(a->topic_id.b, id.b, sizeof id.b);
    return c ? c : a->partition - partition;
}

static size_t lower(const struct vv_origin_journal *j, struct vv_uuid id, int32_t partition)
{
    size_t lo = 0, hi = j->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (compare(&j->v[mid], id, partition) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct vv_origin_part *vv_origin_part_find(const struct vv_origin_journal *j, struct vv_uuid id, int32_t partition)
{
    size_t i = lower(j, id, partition);
    return i < j->n && !compare(&j->v[i], id, partition) ? &j->v[i] : NULL;
}

int vv_origin_part_add(struct vv_origin_journal *j, const struct vv_origin_part *p)
{
    size_t i = lower(j, p->topic_id, p->partition);
    if (i < j->n && !compare(&j->v[i], p->topic_id, p->partition)) {
        j->v[i] = *p;
        return VV_OK;
    }
    struct vv_origin_part *v = realloc(j->v, (j->n + 1) * sizeof *v);
    if (!v) return VV_E_NOMEM;
    memmove(v + i + 1, v + i, (j->n - i) * sizeof *v);
    v[i] = *p;
    j->v = v;
    j->n++;
    return VV_OK;
}

void vv_origin_journal_release(struct vv_origin_journal *j)
{
    free(j->v);
    *j = (struct vv_origin_journal){0};
}

static int path_of(const char *data_dir, char out[4096])
{
    return snprintf(out, 4096, "%s/" JOURNAL, data_dir) < 4096 ? VV_OK : VV_E_LIMIT;
}

static int parse_part(struct vv_origin_journal *j, const json_t *o)
{
    struct vv_origin_part p = {.partition = -1};
    const char *id = json_string_value(json_object_get(o, "topic_id"));
    const json_t *partition = json_object_get(o, "partition"), *copied = json_object_get(o, "copied"), *end = json_object_get(o, "end");
    if (!id || !vv_uuid_parse(id, &p.topic_id) || !json_is_integer(partition) || !json_is_integer(copied) || !json_is_integer(end))
        return VV_E_CORRUPT;
    p.partition = (int32_t)json_integer_value(partition);
    p.copied = json_integer_value(copied);
    p.end = json_integer_value(end);
    return vv_origin_part_add(j, &p);
}

int vv_origin_journal_load(struct vv_env *env, const char *data_dir, struct vv_origin_journal *out, struct vv_error *e)
{
    char path[4096];
    uint8_t *text = NULL;
    size_t n, i;
    const json_t *part;
    *out = (struct vv_origin_journal){0};
    int err = path_of(data_dir, path);
    if (!err) err = vv_fs_read_file(env, path, JOURNAL_MAX, &text, &n);
    if (err) return vv_error_set(e, err, "cannot read %s/" JOURNAL ": %s", data_dir, vv_err_name(err));
    json_t *o = json_loadb((const char *)text, n, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    err = json_integer_value(json_object_get(o, "format")) == 1 ? vv_origins_parse(json_object_get(o, "origins"), &out->origins)
                                                                : VV_E_CORRUPT;
    json_array_foreach(json_object_get(o, "partitions"), i, part) {
        if (!err) err = parse_part(out, part);
    }
    json_decref(o);
    if (!err) return VV_OK;
    vv_origin_journal_release(out);
    return vv_error_set(e, err, "%s is damaged: it says from which bucket this one is being filled; remove it to have that read from the "
                        "bucket's root again (nothing is lost by that)", path);
}

int vv_origin_journal_save(struct vv_env *env, const char *data_dir, const struct vv_origin_journal *j, struct vv_error *e)
{
    char path[4096], id[23];
    json_t *parts = json_array();
    for (size_t i = 0; i < j->n; i++) {
        vv_uuid_text(j->v[i].topic_id, id);
        json_array_append_new(parts, json_pack("{s:s,s:i,s:I,s:I}", "topic_id", id, "partition", (int)j->v[i].partition, "copied",
                                               (json_int_t)j->v[i].copied, "end", (json_int_t)j->v[i].end));
    }
    json_t *o = json_pack("{s:i,s:o,s:o}", "format", 1, "origins", vv_origins_json(&j->origins), "partitions", parts);
    char *text = vv_json_text(o, JSON_COMPACT);
    json_decref(o);
    int err = text ? path_of(data_dir, path) : VV_E_NOMEM;
    if (!err) err = vv_fs_write_file(env, path, text, strlen(text));
    free(text);
    return err ? vv_error_set(e, err, "cannot write %s/" JOURNAL ": %s", data_dir, vv_err_name(err)) : VV_OK;
}
