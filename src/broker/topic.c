/* topic.c — one topic: its name's rules, its settings, its partitions, its end.
 *
 * The partition array only grows, and old arrays stay until the topic goes, so that readers need no lock. A deleted
 * topic is destroyed on the iopool when the last reference goes. Threads: any; growth on control under the registry's
 * write lock. */
#include "topics.h"

#include "varve/bytes.h"
#include "varve/vlog.h"

#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

bool vv_topic_name_ok(const char *name, size_t n, struct vv_error *e)
{
    const char *why = NULL;
    bool chars = true;
    for (size_t i = 0; i < n && chars; i++) {
        char c = name[i];
        chars = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                c == '-';
    }
    if (!n)
        why = "the empty string is not allowed";
    else if (n > 249)
        why = "it is longer than 249 characters";
    else if (!chars)
        why = "only ASCII letters, digits, '.', '_' and '-' are allowed";
    else if (name[0] == '.' && (n == 1 || (n == 2 && name[1] == '.')))
        why = "'.' and '..' are not allowed";
    if (why) vv_error_set(e, VV_INVALID_TOPIC_EXCEPTION, "Topic name is invalid: %s", why);
    return !why;
}

/* ---- key-value lists ---- */

void vv_kv_free(struct vv_kv *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free((void *)(uintptr_t)v[i].key);
        free((void *)(uintptr_t)v[i].value);
    }
    free(v);
}

static int kv_put(struct vv_kv *v, size_t *n, const struct vv_kv *x)
{
    size_t at = 0;
    while (at < *n && strcmp(v[at].key, x->key) < 0)
        at++;
    bool same = at < *n && !strcmp(v[at].key, x->key);
    char *key = same ? NULL : strdup(x->key), *value = strdup(x->value);
    if (!value || (!same && !key)) {
        free(key);
        free(value);
        return VV_E_NOMEM;
    }
    if (same) {
        free((void *)(uintptr_t)v[at].value);
        v[at].value = value;
        return VV_OK;
    }
    memmove(v + at + 1, v + at, (*n - at) * sizeof *v);
    v[at] = (struct vv_kv){key, value};
    ++*n;
    return VV_OK;
}

int vv_kv_copy(const struct vv_kv *v, size_t n, struct vv_kv **out, size_t *out_n)
{
    struct vv_kv *copy = calloc(n + 1, sizeof *copy);
    size_t count = 0;
    int err = copy ? VV_OK : VV_E_NOMEM;
    for (size_t i = 0; i < n && !err; i++)
        if (v[i].value) err = kv_put(copy, &count, &v[i]);
    if (err) {
        vv_kv_free(copy, count);
        return err;
    }
    *out = copy;
    *out_n = count;
    return VV_OK;
}

/* ---- a topic ---- */

struct vv_topic *vv_topic_new(struct vv_broker *b, const char *name, struct vv_uuid id, bool internal)
{
    struct vv_topic *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->name = strdup(name);
    t->id = id;
    t->internal = internal;
    t->broker = b;
    atomic_init(&t->refs, 1);
    if (t->name) return t;
    free(t);
    return NULL;
}

void vv_topic_free(struct vv_topic *t)
{
    if (!t) return;
    for (size_t i = 0; i < VV_COUNT(t->retired); i++)
        free(t->retired[i]);
    free(t->partitions);
    vv_kv_free(t->overrides, t->override_count);
    free(t->name);
    free(t);
}

static void destroy(struct vv_work *w)
{
    struct vv_topic *t = VV_CONTAINER(w, struct vv_topic, destroy_work);
    bool kept = atomic_load(&t->kept);
    for (int32_t i = 0; i < t->partition_count; i++) {
        if (!t->partitions[i]) continue;
        if (kept)
            vv_partition_put_aside(t->partitions[i]);
        else
            vv_partition_destroy(t->partitions[i]);
    }
    VLOG_INFO(kept ? "topic %s: deleted; only what is not in the bucket stays on the disk, for the grace"
                   : "topic %s: deleted, its local files are gone", t->name);
    vv_topic_free(t);
}

void vv_topic_unref(struct vv_topic *t)
{
    if (!t || atomic_fetch_sub(&t->refs, 1) != 1) return;
    VV_ASSERT(atomic_load(&t->deleted)); /* the registry's own reference goes by deletion only */
    t->destroy_work.run = destroy;
    if (t->broker->iopool)
        vv_iopool_submit(t->broker->iopool, &t->destroy_work);
    else
        destroy(&t->destroy_work);
}

struct vv_partition *vv_topic_partition(struct vv_topic *t, int32_t index)
{
    /* The count is published after the array that has the room. */
    int32_t count = __atomic_load_n(&t->partition_count, __ATOMIC_ACQUIRE);
    if (index < 0 || index >= count) return NULL;
    return __atomic_load_n(&__atomic_load_n(&t->partitions, __ATOMIC_ACQUIRE)[index], __ATOMIC_ACQUIRE);
}

int32_t vv_topic_partitions(struct vv_topic *t)
{
    return __atomic_load_n(&t->partition_count, __ATOMIC_ACQUIRE);
}

void vv_topic_put(struct vv_topic *t, int32_t index, struct vv_partition *p)
{
    __atomic_store_n(&t->partitions[index], p, __ATOMIC_RELEASE);
}

static int32_t room_for(int32_t count)
{
    int32_t cap = 1;
    while (cap < count)
        cap *= 2;
    return cap;
}

/* Appends partitions; the array's capacity is the power of two above the count, so there are few growths. */
int vv_topic_grow(struct vv_topic *t, struct vv_partition **add, int32_t n)
{
    int32_t count = t->partition_count, total = count + n;
    struct vv_partition **v = t->partitions;
    if (!v || room_for(total) > room_for(VV_MAX(count, 1))) {
        v = calloc((size_t)room_for(total), sizeof *v);
        if (!v) return VV_E_NOMEM;
        if (count) memcpy(v, t->partitions, (size_t)count * sizeof *v);
        size_t k = 0;
        while (t->partitions && k < VV_COUNT(t->retired) && t->retired[k])
            k++;
        VV_ASSERT(k < VV_COUNT(t->retired));
        if (t->partitions) t->retired[k] = t->partitions;
    }
    memcpy(v + count, add, (size_t)n * sizeof *v);
    __atomic_store_n(&t->partitions, v, __ATOMIC_RELEASE);
    __atomic_store_n(&t->partition_count, total, __ATOMIC_RELEASE);
    return VV_OK;
}
