/* bucket.c — a store URL becomes a bucket: its root is read, its topics are found by skipping through the listing (one
 * LIST of one key
 * per topic and partition, however many objects they have). */
#include "jsoncrc.h"
#include "reader_impl.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define TOPIC_JSON_MAX (1u << 20)

static void settle(struct vv_bucket *b, const struct vv_bucket_opts *o)
{
    b->memory_max = o->memory_max ? o->memory_max : (size_t)128 << 20;
    b->chunk_bytes = o->chunk_bytes ? o->chunk_bytes : (size_t)16 << 20;
    b->gets_max = o->gets_max ? o->gets_max : 16;
    b->deadline_ms = o->deadline_ms ? o->deadline_ms : 60000;
    b->env = o->env ? o->env : &vv_env_posix;
}

static int read_root(struct vv_bucket *b, struct vv_error *e)
{
    int err = vv_root_get(b->store, b->deadline_ms, &b->root, e);
    if (err == VV_E_NOENT)
        return vv_error_set(e, err, "%s is not a Varve bucket: there is no %s in it (is the prefix right?)",
                            b->store->url, VV_KEY_ROOT);
    if (!err) vv_clusters_text(b->root.cluster_id, &b->root.origins, b->clusters);
    return err;
}

int vv_bucket_attach(struct vv_objstore *store, const struct vv_bucket_opts *opts, struct vv_bucket **out,
                     struct vv_error *e)
{
    static const struct vv_bucket_opts defaults;
    struct vv_bucket *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    settle(b, opts ? opts : &defaults);
    b->store = store;
    int err = read_root(b, e);
    if (err) {
        vv_bucket_close(b);
        return err;
    }
    *out = b;
    return VV_OK;
}

int vv_bucket_open(const char *url, const struct vv_bucket_opts *opts, struct vv_bucket **out, struct vv_error *e)
{
    struct vv_bucket_opts o = opts ? *opts : (struct vv_bucket_opts){0};
    struct vv_objstore *store = NULL;
    *out = NULL;
    o.store.read_only = true;
    int err = vv_objstore_open(url, &o.store, o.env ? o.env : &vv_env_posix, &store, e);
    if (!err) err = vv_bucket_attach(store, &o, out, e);
    if (err)
        vv_objstore_close(store);
    else
        (*out)->owns_store = true;
    return err;
}

void vv_bucket_close(struct vv_bucket *b)
{
    if (!b) return;
    vv_root_release(&b->root);
    if (b->owns_store) vv_objstore_close(b->store);
    free(b);
}

const char *vv_bucket_cluster_id(const struct vv_bucket *b)
{
    return b->root.cluster_id;
}

struct vv_objstore *vv_bucket_store(const struct vv_bucket *b)
{
    return b->store;
}

/* ---- listing by skipping ---- */

/* The first component after prefix of the first key above prefix + last component; "" when there is none. */
static int next_component(struct vv_bucket *b, const char *prefix, char component[64], struct vv_error *e)
{
    char after[VV_KEY_MAX + 80];
    struct vv_objlist l = {0};
    snprintf(after, sizeof after, "%s%s/~", prefix, component); /* '~' sorts after everything that we put there */
    int err = vv_objstore_list(b->store, prefix, *component ? after : NULL, 1, b->deadline_ms, &l, e);
    *component = 0;
    if (!err && l.count) {
        const char *p = l.v[0].key + strlen(prefix);
        size_t n = strcspn(p, "/");
        if (n < 64) snprintf(component, 64, "%.*s", (int)n, p);
        if (n >= 64) err = vv_error_set(e, VV_E_CORRUPT, "%s holds a foreign key: %s", prefix, l.v[0].key);
    }
    vv_objlist_release(&l);
    return err;
}

static int add_partition(struct vv_bucket_topic *t, int32_t partition)
{
    size_t i = 0;
    while (i < t->partition_count && t->partitions[i] < partition) i++;
    if (i < t->partition_count && t->partitions[i] == partition) return VV_OK;
    int32_t *v = realloc(t->partitions, (t->partition_count + 1) * sizeof *v);
    if (!v) return VV_E_NOMEM;
    memmove(v + i + 1, v + i, (t->partition_count - i) * sizeof *v);
    v[i] = partition;
    t->partitions = v;
    t->partition_count++;
    return VV_OK;
}

static int find_partitions(struct vv_bucket *b, struct vv_bucket_topic *t, const char *prefix, struct vv_error *e)
{
    char component[64] = "";
    for (;;) {
        int err = next_component(b, prefix, component, e);
        if (err || !*component) return err;
        if (strspn(component, "0123456789") != strlen(component)) continue; /* topic.json and what else may come */
        err = add_partition(t, (int32_t)strtol(component, NULL, 10));
        if (err) return err;
    }
}

/* E_NOENT: no topic.json. */
static int read_topic(struct vv_bucket *b, struct vv_uuid id, struct vv_bucket_topic *t, struct vv_error *e)
{
    char key[VV_KEY_MAX], prefix[VV_KEY_MAX], text[23];
    struct vv_slice s = {0};
    *t = (struct vv_bucket_topic){.id = id};
    vv_key_topic(id, key);
    int err = vv_objstore_get_whole(b->store, key, TOPIC_JSON_MAX, b->deadline_ms, &s, NULL, e);
    if (err) return err;
    json_t *o = vv_jsoncrc_holds((const char *)s.p, s.n) ? json_loadb((const char *)s.p, s.n, 0, NULL) : NULL;
    vv_buf_unref(s.buf);
    const char *name = json_string_value(json_object_get(o, "topic"));
    const char *topic_id = json_string_value(json_object_get(o, "topic_id"));
    const char *cluster = json_string_value(json_object_get(o, "cluster_id"));
    vv_uuid_text(id, text);
    if (json_integer_value(json_object_get(o, "format")) > VV_BUCKET_FORMAT)
        err = vv_error_set(e, VV_E_UNSUPPORTED, "%s has a format this Varve does not know: upgrade it", key);
    else if (!name || strlen(name) >= sizeof t->name || !topic_id || strcmp(topic_id, text))
        err = vv_error_set(e, VV_E_CORRUPT, "%s is damaged", key);
    else if (!cluster || strcmp(cluster, b->root.cluster_id))
        err = vv_error_set(e, VV_E_CONFLICT, "%s belongs to cluster %s, not to %s", key, cluster ? cluster : "?",
                           b->root.cluster_id);
    if (!err) snprintf(t->name, sizeof t->name, "%s", name);
    json_decref(o);
    if (err) return err;
    vv_key_topic_prefix(id, prefix);
    err = find_partitions(b, t, prefix, e);
    vv_key_manifest_prefix(id, prefix);
    if (!err) err = find_partitions(b, t, prefix, e);
    if (err) vv_bucket_topic_release(t);
    return err;
}

static bool is_deleted(const struct vv_bucket *b, struct vv_uuid id)
{
    for (size_t i = 0; i < b->root.deleted_count; i++)
        if (vv_uuid_eq(b->root.deleted[i].id, id)) return true;
    return false;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct vv_bucket_topic *)a)->name, ((const struct vv_bucket_topic *)b)->name);
}

int vv_bucket_topics(struct vv_bucket *b, struct vv_bucket_topic **v, size_t *n, struct vv_error *e)
{
    char component[64] = "";
    int err;
    *v = NULL;
    *n = 0;
    for (;;) {
        struct vv_uuid id;
        struct vv_bucket_topic t;
        err = next_component(b, VV_KEY_TOPICS, component, e);
        if (err || !*component) break;
        if (!vv_uuid_parse(component, &id) || is_deleted(b, id)) continue;
        err = read_topic(b, id, &t, e);
        if (err == VV_E_NOENT) continue; /* its first upload is under way */
        if (err) break;
        struct vv_bucket_topic *more = realloc(*v, (*n + 1) * sizeof *more);
        if (!more) {
            vv_bucket_topic_release(&t);
            err = vv_error_set(e, VV_E_NOMEM, "out of memory");
            break;
        }
        *v = more;
        more[(*n)++] = t;
    }
    if (!err && *n) qsort(*v, *n, sizeof **v, by_name);
    if (!err) return VV_OK;
    vv_bucket_topics_free(*v, *n);
    *v = NULL;
    *n = 0;
    return err;
}

void vv_bucket_topics_free(struct vv_bucket_topic *v, size_t n)
{
    for (size_t i = 0; i < n; i++) vv_bucket_topic_release(&v[i]);
    free(v);
}

void vv_bucket_topic_release(struct vv_bucket_topic *t)
{
    free(t->partitions);
    t->partitions = NULL;
    t->partition_count = 0;
}

static int no_topic(const struct vv_bucket *b, const char *name, struct vv_error *e)
{
    for (size_t i = 0; i < b->root.deleted_count; i++)
        if (!strcmp(b->root.deleted[i].name, name))
            return vv_error_set(e, VV_E_NOENT, "topic %s was deleted from %s", name, b->store->url);
    return vv_error_set(e, VV_E_NOENT, "there is no topic %s in %s: varve ls shows what there is", name, b->store->url);
}

int vv_bucket_find_topic(struct vv_bucket *b, const char *name, struct vv_bucket_topic *out, struct vv_error *e)
{
    struct vv_bucket_topic *v;
    size_t n, hits = 0, hit = 0;
    struct vv_uuid id;
    *out = (struct vv_bucket_topic){0};
    bool is_id = strlen(name) == 22 && vv_uuid_parse(name, &id);
    int err = vv_bucket_topics(b, &v, &n, e);
    if (err) return err;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(v[i].name, name) || (is_id && vv_uuid_eq(v[i].id, id))) {
            hits++;
            hit = i;
        }
    if (hits == 1) {
        *out = v[hit];
        v[hit].partitions = NULL;
    } else if (!hits) {
        err = no_topic(b, name, e);
    } else {
        err = vv_error_set(e, VV_E_CONFLICT, "%zu topics in %s are called %s: name one by its id", hits, b->store->url,
                           name);
    }
    vv_bucket_topics_free(v, n);
    return err;
}
