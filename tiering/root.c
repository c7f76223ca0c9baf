/* root.c — see root.h; the JSON is documented in docs/bucket-format.md. */
#include "root.h"
#include "jsoncrc.h"
#include "keys.h"
#include "origin.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOT_MAX (16u << 20)

int vv_deleted_push(struct vv_deleted_topic **v, size_t *n, const struct vv_deleted_topic *d)
{
    struct vv_deleted_topic *p = realloc(*v, (*n + 1) * sizeof *p);
    if (!p) return VV_E_NOMEM;
    *v = p;
    p[(*n)++] = *d;
    return VV_OK;
}

static int parse_deleted(const json_t *arr, struct vv_root *r)
{
    size_t i;
    const json_t *o;
    json_array_foreach(arr, i, o) {
        struct vv_deleted_topic d = {0};
        const char *id = json_string_value(json_object_get(o, "topic_id"));
        const char *name = json_string_value(json_object_get(o, "topic"));
        if (!id || !name || !vv_uuid_parse(id, &d.id)) return VV_E_CORRUPT;
        snprintf(d.name, sizeof d.name, "%s", name);
        d.deleted_ms = json_integer_value(json_object_get(o, "deleted_ms"));
        d.deleting = json_is_true(json_object_get(o, "deleting"));
        int err = vv_deleted_push(&r->deleted, &r->deleted_count, &d);
        if (err) return err;
    }
    return VV_OK;
}

static int parse_root(const uint8_t *p, size_t n, struct vv_root *r)
{
    const char *cluster = NULL, *incarnation = NULL;
    int node = 0, format = 0, released = 0;
    json_int_t epoch = 0, claimed = 0, renewed = 0;
    json_t *o = json_loadb((const char *)p, n, JSON_REJECT_DUPLICATES, NULL);
    const json_t *written = json_object_get(o, "format");
    if (json_is_integer(written) && json_integer_value(written) > VV_BUCKET_FORMAT) {
        json_decref(o);
        return VV_E_UNSUPPORTED;
    }
    int bad = json_unpack(o, "{s:i,s:s,s:i,s:s,s:I,s:I,s:I,s:b}", "format", &format, "cluster_id", &cluster, "node_id",
                          &node,
                          "incarnation", &incarnation, "writer_epoch", &epoch, "claimed_ms", &claimed, "renewed_ms",
                          &renewed,
                          "released", &released);
    int err = bad || format != VV_BUCKET_FORMAT || epoch < 0 ||
    strlen(cluster) >= sizeof r->cluster_id ? VV_E_CORRUPT : VV_OK;
    if (!err) {
        snprintf(r->cluster_id, sizeof r->cluster_id, "%s", cluster);
        snprintf(r->incarnation, sizeof r->incarnation, "%s", incarnation);
        r->node_id = node;
        r->writer_epoch = (uint64_t)epoch;
        r->claimed_ms = claimed;
        r->renewed_ms = renewed;
        r->released = released;
        err = parse_deleted(json_object_get(o, "deleted_topics"), r);
        const char *moved = json_string_value(json_object_get(o, "moved_to"));
        snprintf(r->moved_to, sizeof r->moved_to, "%s", moved ? moved : "");
        r->migrating = json_is_true(json_object_get(o, "migrating"));
        if (!err) err = vv_origins_parse(json_object_get(o, "origins"), &r->origins);
    }
    json_decref(o);
    return err;
}

int vv_root_get(struct vv_objstore *store, int64_t deadline_ms, struct vv_root *r, struct vv_error *e)
{
    struct vv_slice s = {0};
    struct vv_objinfo info = {0};
    *r = (struct vv_root){0};
    int err = vv_objstore_get_whole(store, VV_KEY_ROOT, ROOT_MAX, deadline_ms, &s, &info, e);
    if (err) return err;
    bool holds = vv_jsoncrc_holds((const char *)s.p, s.n);
    err = holds ? parse_root(s.p, s.n, r) : VV_E_CORRUPT;
    vv_buf_unref(s.buf);
    if (err) {
        vv_root_release(r);
        if (err == VV_E_UNSUPPORTED)
            return vv_error_set(e, err, "%s in %s has a format that a newer Varve wrote: upgrade this one",
                                VV_KEY_ROOT, store->url);
        return vv_error_set(e, err, "%s in %s is damaged%s: bring an older version of it back (object versions, a copy of the bucket)",
                            VV_KEY_ROOT, store->url, holds ? "" : ", it does not fit its checksum");
    }
    snprintf(r->etag, sizeof r->etag, "%s", info.etag);
    return VV_OK;
}

void vv_root_release(struct vv_root *r)
{
    free(r->deleted);
    *r = (struct vv_root){0};
}
