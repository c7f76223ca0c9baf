/* objstore.c — the calls of varve/objstore.h: checks arguments, counts, hands over to the backend's
 * ops; opening by URL; page lists. Everything that all backends share is here, so that a backend
 * has only its own work.
 *
 * Invariants: a backend never sees a bad key, a deadline <= 0 or a list page that was not checked;
 * an output is zero unless the call succeeded. Threads: any; the counters are atomics, nothing else
 * is shared. */
#include "varve/objstore.h"
#include "varve/bytes.h"
#include "varve/vlog.h"
#include "keyring.h"
#include "obj_backends.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *vv_objop_name(enum vv_objop op)
{
    switch (op) {
#define VV_X(name, text, put)                                                                      \
    case VV_OBJ_##name:                                                                            \
        return text;
        VV_OBJ_OPS(VV_X)
#undef VV_X
    case VV_OBJ_OP_COUNT:
        break;
    }
    return "?";
}

static bool component_valid(const char *p, size_t n)
{
    return n > 0 && !(n == 1 && p[0] == '.') && !(n == 2 && p[0] == '.' && p[1] == '.');
}

bool vv_objkey_valid(const char *key)
{
    if (!key) return false;
    size_t n = strlen(key);
    if (n == 0 || n > VV_OBJ_KEY_MAX) return false;
    for (const char *p = key;;) {
        const char *slash = strchr(p, '/');
        size_t len = slash ? (size_t)(slash - p) : strlen(p);
        if (!component_valid(p, len)) return false;
        if (!slash) return true;
        p = slash + 1;
    }
}

static int key_check(const char *key, struct vv_error *e)
{
    if (vv_objkey_valid(key)) return VV_OK;
    return vv_error_set(e, VV_E_USAGE,
                        "bad object key: 1 to %d bytes, no empty, '.' or '..' component",
                        VV_OBJ_KEY_MAX);
}

static int live_check(struct vv_objstore *s, struct vv_error *e)
{
    if (!atomic_load(&s->interrupted)) return VV_OK;
    return vv_error_set(e, VV_E_SHUTDOWN, "%s: the store is being closed", s->url);
}

static int change_check(struct vv_objstore *s, struct vv_error *e)
{
    if (!s->read_only) return live_check(s, e);
    return vv_error_set(e, VV_E_ACCESS, "%s: opened for reading only", s->url);
}

static int64_t deadline(int64_t ms)
{
    return ms <= 0 ? VV_OBJ_DEADLINE_MS : VV_MIN(ms, (int64_t)VV_OBJ_DEADLINE_MAX_MS);
}

static void count(struct vv_objstore *s, enum vv_objop op, int64_t start_us, int err)
{
    atomic_fetch_add(&s->stats.calls[op], 1);
    if (err) atomic_fetch_add(&s->stats.errors[op], 1);
    static const int64_t le_us[] = {
#define VV_X(ms) ms * 1000,
        VV_OBJ_LATENCY_MS(VV_X)
#undef VV_X
    };
    int64_t us = VV_MAX(vv_mono_us(s->env) - start_us, (int64_t)0);
    size_t bucket = 0;
    while (bucket < VV_COUNT(le_us) && us > le_us[bucket]) bucket++;
    atomic_fetch_add(&s->stats.call_us[op], (uint64_t)us);
    atomic_fetch_add(&s->stats.call_le[op][bucket], 1);
}

void vv_objget_finish(struct vv_objstore *s, struct vv_objget *get, int err, struct vv_buf *buf)
{
    get->err = err;
    if (err) {
        vv_buf_unref(buf);
        get->buf = NULL;
        if (get->error.code != err) vv_error_set(&get->error, err, "%s", vv_err_name(err));
    } else {
        VV_ASSERT(!buf == (get->sink != NULL));
        get->buf = buf;
        atomic_fetch_add(&s->stats.bytes_got, get->n);
    }
    count(s, VV_OBJ_GET_ASYNC, get->started_us, err);
    get->done(get);
}

int vv_objget_feed(struct vv_objget *get, size_t at, const uint8_t *src, size_t n)
{
    while (n) {
        uint8_t *dst;
        size_t room = get->sink->room(get, at, &dst), k = VV_MIN(n, room); /* asked once: the next answer may be another */
        if (!k) return vv_error_set(&get->error, VV_E_NOMEM, "get %s: out of memory", get->key);
        memcpy(dst, src, k);
        get->sink->arrived(get, at, k);
        at += k;
        src += k;
        n -= k;
    }
    return VV_OK;
}

void vv_objstore_get_async(struct vv_objstore *s, struct vv_objget *get)
{
    get->err = 0;
    get->buf = NULL;
    get->error.code = 0;
    get->error.text[0] = 0;
    get->impl = NULL;
    get->next = NULL;
    get->started_us = vv_mono_us(s->env);
    get->deadline_ms = deadline(get->deadline_ms);
    int err = key_check(get->key, &get->error);
    if (!err) err = live_check(s, &get->error);
    if (!err && get->at > UINT64_MAX - get->n)
        err = vv_error_set(&get->error, VV_E_USAGE, "range of %s overflows", get->key);
    if (err) {
        vv_objget_finish(s, get, err, NULL);
    } else if (get->n == 0) {
        struct vv_buf *empty = get->sink ? NULL : vv_buf_new(0);
        vv_objget_finish(s, get, empty || get->sink ? VV_OK : VV_E_NOMEM, empty);
    } else {
        s->ops->get_async(s, get);
    }
}

void vv_objstore_cancel(struct vv_objstore *s, struct vv_objget *get)
{
    s->ops->cancel(s, get);
}

int vv_objstore_get(struct vv_objstore *s, const char *key, enum vv_objget_kind kind, uint64_t at,
                    size_t n, int64_t deadline_ms, struct vv_slice *out, struct vv_objinfo *info,
                    struct vv_error *e)
{
    struct vv_objinfo scratch;
    int64_t start = vv_mono_us(s->env);
    if (!info) info = &scratch;
    memset(info, 0, sizeof *info);
    memset(out, 0, sizeof *out);
    int err = key_check(key, e);
    if (!err) err = live_check(s, e);
    if (!err && kind == VV_GET_RANGE && at > UINT64_MAX - n)
        err = vv_error_set(e, VV_E_USAGE, "range of %s overflows", key);
    if (!err && kind != VV_GET_WHOLE && n == 0)
        err = vv_error_set(e, VV_E_USAGE, "a range of no bytes of %s: use head", key);
    if (!err) err = s->ops->get(s, key, kind, at, n, deadline(deadline_ms), out, info, e);
    if (err) {
        vv_buf_unref(out->buf);
        memset(out, 0, sizeof *out);
        memset(info, 0, sizeof *info);
    } else {
        atomic_fetch_add(&s->stats.bytes_got, out->n);
    }
    count(s, VV_OBJ_GET, start, err);
    return err;
}

int vv_objstore_get_whole(struct vv_objstore *s, const char *key, size_t max, int64_t deadline_ms,
                          struct vv_slice *out, struct vv_objinfo *info, struct vv_error *e)
{
    return vv_objstore_get(s, key, VV_GET_WHOLE, 0, max, deadline_ms, out, info, e);
}

int vv_objstore_get_suffix(struct vv_objstore *s, const char *key, size_t n, int64_t deadline_ms,
                           struct vv_slice *out, struct vv_objinfo *info, struct vv_error *e)
{
    return vv_objstore_get(s, key, VV_GET_SUFFIX, 0, n, deadline_ms, out, info, e);
}

int vv_objstore_head(struct vv_objstore *s, const char *key, int64_t deadline_ms,
                     struct vv_objinfo *info, struct vv_error *e)
{
    struct vv_objinfo scratch;
    int64_t start = vv_mono_us(s->env);
    if (!info) info = &scratch;
    memset(info, 0, sizeof *info);
    int err = key_check(key, e);
    if (!err) err = live_check(s, e);
    if (!err) err = s->ops->head(s, key, deadline(deadline_ms), info, e);
    if (err) memset(info, 0, sizeof *info);
    count(s, VV_OBJ_HEAD, start, err);
    return err;
}

static int put_check(struct vv_objstore *s, const char *key, const struct vv_objput *how,
                     struct vv_error *e)
{
    int err = key_check(key, e);
    if (!err) err = change_check(s, e);
    if (err) return err;
    if (how->if_none_match && how->if_match)
        return vv_error_set(e, VV_E_USAGE, "put %s: two conditions", key);
    if (how->if_none_match && !(s->caps & VV_OBJ_CAP_IF_NONE_MATCH))
        return vv_error_set(e, VV_E_UNSUPPORTED, "put %s: this store has no If-None-Match", key);
    if (how->if_match && !(s->caps & VV_OBJ_CAP_IF_MATCH))
        return vv_error_set(e, VV_E_UNSUPPORTED, "put %s: this store has no If-Match", key);
    if (how->if_match && (!how->if_match[0] || strlen(how->if_match) >= VV_OBJ_ETAG_MAX ||
                          strpbrk(how->if_match, "\r\n")))
        return vv_error_set(e, VV_E_USAGE, "put %s: bad ETag", key);
    return VV_OK;
}

int vv_objstore_put(struct vv_objstore *s, const char *key, const struct vv_objsrc *src,
                    const struct vv_objput *how, int64_t deadline_ms, struct vv_objinfo *info,
                    struct vv_error *e)
{
    static const struct vv_objput plain;
    struct vv_objinfo scratch;
    int64_t start = vv_mono_us(s->env);
    if (!how) how = &plain;
    if (!info) info = &scratch;
    memset(info, 0, sizeof *info);
    int err = put_check(s, key, how, e);
    if (!err) err = s->ops->put(s, key, src, how, deadline(deadline_ms), info, e);
    if (err)
        memset(info, 0, sizeof *info);
    else
        atomic_fetch_add(&s->stats.bytes_put, src->size);
    count(s, VV_OBJ_PUT, start, err);
    return err;
}

struct vv_objsumming vv_objstore_summing(struct vv_objstore *s, uint64_t n)
{
    return s->ops->summing ? s->ops->summing(s, n) : (struct vv_objsumming){0};
}

static int mem_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    memcpy(dst, (const uint8_t *)ctx + at, n);
    return VV_OK;
}

int vv_objstore_put_mem(struct vv_objstore *s, const char *key, const void *p, size_t n,
                        const struct vv_objput *how, int64_t deadline_ms, struct vv_objinfo *info,
                        struct vv_error *e)
{
    struct vv_objsrc src = {.size = n, .read = mem_read, .ctx = (void *)(uintptr_t)p};
    return vv_objstore_put(s, key, &src, how, deadline_ms, info, e);
}

int vv_objstore_delete(struct vv_objstore *s, const char *key, int64_t deadline_ms,
                       struct vv_error *e)
{
    int64_t start = vv_mono_us(s->env);
    int err = key_check(key, e);
    if (!err) err = change_check(s, e);
    if (!err) err = s->ops->del(s, key, deadline(deadline_ms), e);
    count(s, VV_OBJ_DELETE, start, err);
    return err;
}

int vv_objstore_delete_many(struct vv_objstore *s, const char *const *keys, size_t n,
                            int64_t deadline_ms, int *results, struct vv_error *e)
{
    int64_t start = vv_mono_us(s->env);
    int first = change_check(s, e);
    for (size_t i = 0; i < n; i++) {
        results[i] = VV_E_STATE;
        if (!first) first = key_check(keys[i], e);
    }
    if (first) return first;
    for (size_t i = 0; i < n; i += VV_OBJ_DELETE_MAX) {
        struct vv_error page_error = {0};
        size_t page = VV_MIN(n - i, (size_t)VV_OBJ_DELETE_MAX);
        int err =
            s->ops->delete_many(s, keys + i, page, deadline(deadline_ms), results + i, &page_error);
        for (size_t k = i; k < i + page; k++)
            if (results[k] == VV_E_STATE) results[k] = err;
        if (err && !first) {
            first = err;
            if (e) *e = page_error;
        }
    }
    count(s, VV_OBJ_DELETE_MANY, start, first);
    return first;
}

/* A page that goes back or leaves its prefix would make the caller's loop endless or delete a
 * stranger's objects. */
static int page_check(const struct vv_objlist *page, const char *prefix, const char *after,
                      struct vv_error *e)
{
    size_t prefix_n = strlen(prefix);
    const char *last = after ? after : "";
    for (size_t i = 0; i < page->count; i++) {
        if (strncmp(page->v[i].key, prefix, prefix_n))
            return vv_error_set(e, VV_E_PROTO,
                                "the store's listing of '%s' has a key outside of it", prefix);
        if (strcmp(page->v[i].key, last) <= 0)
            return vv_error_set(e, VV_E_PROTO, "the store's listing of '%s' is out of order",
                                prefix);
        last = page->v[i].key;
    }
    if (page->more && page->count == 0)
        return vv_error_set(e, VV_E_PROTO,
                            "the store's listing of '%s' has an empty page before the end", prefix);
    return VV_OK;
}

int vv_objstore_list(struct vv_objstore *s, const char *prefix, const char *start_after, size_t max,
                     int64_t deadline_ms, struct vv_objlist *out, struct vv_error *e)
{
    int64_t start = vv_mono_us(s->env);
    int err = live_check(s, e);
    if (!prefix) prefix = "";
    if (max == 0 || max > VV_OBJ_LIST_MAX) max = VV_OBJ_LIST_MAX;
    if (!err &&
        (strlen(prefix) > VV_OBJ_KEY_MAX || (start_after && strlen(start_after) > VV_OBJ_KEY_MAX)))
        err = vv_error_set(e, VV_E_USAGE, "list: a prefix or start longer than %d bytes",
                           VV_OBJ_KEY_MAX);
    memset(out, 0, sizeof *out);
    vv_arena_init(&out->arena, 16u << 20);
    if (!err) err = s->ops->list(s, prefix, start_after, max, deadline(deadline_ms), out, e);
    if (!err) err = page_check(out, prefix, start_after, e);
    if (err) vv_objlist_release(out);
    count(s, VV_OBJ_LIST, start, err);
    return err;
}

int vv_objstore_abort_stale(struct vv_objstore *s, const char *prefix, int64_t before_wall_ms,
                            int64_t deadline_ms, size_t *aborted, struct vv_error *e)
{
    int64_t start = vv_mono_us(s->env);
    size_t scratch;
    if (!aborted) aborted = &scratch;
    *aborted = 0;
    int err = change_check(s, e);
    if (!err && s->caps & VV_OBJ_CAP_MULTIPART)
        err = s->ops->abort_stale(s, prefix ? prefix : "", before_wall_ms, deadline(deadline_ms),
                                  aborted, e);
    count(s, VV_OBJ_ABORT_STALE, start, err);
    return err;
}

void vv_objstore_interrupt(struct vv_objstore *s)
{
    atomic_store(&s->interrupted, true);
    if (s->ops->interrupt) s->ops->interrupt(s);
}

void vv_objstore_close(struct vv_objstore *s)
{
    if (!s) return;
    struct vv_keyring *keys = s->keys;
    s->ops->close(s);
    vv_keyring_free(keys);
}

void vv_objlist_release(struct vv_objlist *list)
{
    free(list->v);
    vv_arena_release(&list->arena);
    memset(list, 0, sizeof *list);
}

int vv_objlist_add(struct vv_objlist *list, const char *key, size_t key_n, uint64_t size,
                   int64_t mtime_ms, const char *etag)
{
    if (list->count == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 64;
        struct vv_objlist_entry *v = realloc(list->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        list->v = v;
        list->cap = cap;
    }
    struct vv_objlist_entry *entry = &list->v[list->count];
    entry->key = vv_arena_strdup(&list->arena, key, key_n);
    entry->etag = vv_arena_strdup(&list->arena, etag, strlen(etag));
    if (!entry->key || !entry->etag) return VV_E_NOMEM;
    entry->size = size;
    entry->mtime_ms = mtime_ms;
    list->count++;
    return VV_OK;
}

int vv_objstore_open(const char *url, const struct vv_objstore_config *config, struct vv_env *env,
                     struct vv_objstore **out, struct vv_error *e)
{
    static const struct vv_objstore_config defaults;
    *out = NULL;
    if (!config) config = &defaults;
    if (!url || strlen(url) >= sizeof((*out)->url))
        return vv_error_set(e, VV_E_CONFIG,
                            "tier.url: give fs:DIR or s3://BUCKET/PREFIX, at most 511 bytes");
    struct vv_keyring *keys = NULL;
    int err = config->keys_file ? vv_keyring_open(env, config->keys_file, config->active_key, &keys, e) : VV_OK;
    if (err) return err;
    if (!strncmp(url, "fs:", 3))
        err = vv_obj_fs_open(url, config, env, out, e);
    else if (strncmp(url, "s3://", 5))
        err = vv_error_set(e, VV_E_CONFIG, "tier.url=%s: give fs:DIR or s3://BUCKET/PREFIX", url);
    else if (!config->client || !strcmp(config->client, "curl"))
        err = vv_obj_s3_open(url, config, env, out, e);
    else if (!strcmp(config->client, "libs3"))
        err = vv_obj_libs3_open(url, config, env, out, e);
    else
        err = vv_error_set(e, VV_E_CONFIG, "tier.s3.client=%s: give curl or libs3", config->client);
    if (err) vv_keyring_free(keys);
    else (*out)->keys = keys;
    if (!err) (*out)->read_only = config->read_only;
    return err;
}

void vv_objstore_init(struct vv_objstore *s, const struct vv_objstore_ops *ops, struct vv_env *env,
                      unsigned caps, const char *url)
{
    memset(s, 0, sizeof *s);
    s->ops = ops;
    s->env = env;
    s->caps = caps;
    snprintf(s->url, sizeof s->url, "%s", url);
}
