/* obj_libs3.c — the object store over Debian's libs3, for stores that still want Signature V2.
 *
 * The module varve_libs3.so (libs3/libs3_module.c) is opened by the first store that asks for it
 * and stays. This file adds what libs3 does not have: deadlines over retries, keys under a prefix,
 * ranges that are checked, async GETs (a few threads, obj_pool.c). What libs3 2.0 cannot do is left
 * out of the capabilities: conditions, multipart, bulk delete.
 *
 * Refused at open, with the way out: https (libs3 2.0 does not verify certificates) and session
 * tokens (Signature V2 as libs3 makes it has none). Refused per call: keys with a space or a
 * control character. A put's ETag is not told: libs3 loses it; HEAD has it.
 *
 * Invariants: a session is in the idle list or held by one call. Threads: any; `lock` guards the
 * idle list, a leaf. */
#include "libs3/libs3_api.h"
#include "obj_pool.h"
#include "obj_s3.h"
#include "objsum.h"
#include "varve/bytes.h"

#include <dlfcn.h>
#include <libgen.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SESSIONS_MAX = 16, PAUSE_FIRST_MS = 100, PAUSE_MAX_MS = 5000 };
#define PUT_MAX (5ull << 30) /* S3's limit of a single PUT */

struct obj_libs3 {
    struct vv_objstore base;
    const struct vv_libs3_api *api;
    struct vv_creds *creds;
    struct s3_address address;
    char bucket[64], prefix[VV_OBJ_KEY_MAX + 2];
    struct vv_objpool pool;
    pthread_mutex_t lock;
    struct vv_libs3_session *idle[SESSIONS_MAX];
    unsigned idle_count;
};

/* One call with its retries. */
struct request {
    struct obj_libs3 *s;
    enum vv_objop op;
    const char *key; /* relative; of a listing the prefix */
    char full_key[2 * VV_OBJ_KEY_MAX + 2];
    int64_t until_us;
    unsigned attempts;
    struct vv_libs3_answer answer;
    void (*run)(struct request *r, const struct vv_libs3_call *call); /* one attempt */
    /* get */
    uint64_t at;
    uint64_t n; /* 0 = to the end */
    struct vv_buf *buf;
    size_t got, max;
    /* put */
    const struct vv_objsrc *src;
    uint64_t sent;
    char md5_base64[32];
    /* list */
    struct vv_objlist *list;
    const char *marker;
    int list_max;
    bool more;
};

/* ---- the module ---- */

static pthread_mutex_t module_lock = PTHREAD_MUTEX_INITIALIZER;
static const struct vv_libs3_api *module_api;

static void module_path(const struct vv_objstore_config *config, char *path, size_t cap)
{
    char self[512];
    const char *dir = config->module_dir;
    if (!dir || !dir[0]) dir = getenv("VARVE_MODULE_DIR");
    if (!dir || !dir[0]) {
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
        self[n > 0 ? n : 0] = 0;
        dir = n > 0 ? dirname(self) : ".";
    }
    snprintf(path, cap, "%s/varve_libs3.so", dir);
}

static int module_load(const struct vv_objstore_config *config, const struct vv_libs3_api **out,
                       struct vv_error *e)
{
    char path[600];
    const struct vv_libs3_api *(*entry)(void) = NULL;
    const char *why = NULL;
    pthread_mutex_lock(&module_lock);
    if (!module_api) {
        module_path(config, path, sizeof path);
        void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!handle)
            why = dlerror();
        else if (!(*(void **)&entry = dlsym(handle, VV_LIBS3_SYMBOL)))
            why = "not a module of this program";
        else if (!(module_api = entry()))
            why = "libs3 could not be initialised";
        else if (module_api->abi != VV_LIBS3_ABI)
            module_api = NULL, why = "the module is of another version";
    }
    *out = module_api;
    pthread_mutex_unlock(&module_lock);
    if (*out) return VV_OK;
    return vv_error_set(e, VV_E_CONFIG,
                        "tier.s3.client=libs3 needs the module %s and libs3 (Debian: libs3-2): %s",
                        path, why ? why : "?");
}

/* ---- a call ---- */

static struct vv_libs3_session *session_take(struct obj_libs3 *s)
{
    struct vv_libs3_session *session = NULL;
    pthread_mutex_lock(&s->lock);
    if (s->idle_count) session = s->idle[--s->idle_count];
    pthread_mutex_unlock(&s->lock);
    return session ? session : s->api->session_new();
}

static void session_give(struct obj_libs3 *s, struct vv_libs3_session *session)
{
    bool kept = false;
    pthread_mutex_lock(&s->lock);
    if (s->idle_count < SESSIONS_MAX) {
        s->idle[s->idle_count++] = session;
        kept = true;
    }
    pthread_mutex_unlock(&s->lock);
    if (!kept) s->api->session_free(session);
}

/* libs3 2.0 writes a space into the URL's path as '+', which names another object. */
static bool key_is_plain(const char *key)
{
    for (const unsigned char *p = (const unsigned char *)key; *p; p++)
        if (*p <= ' ' || *p == 0x7f) return false;
    return true;
}

static int request_init(struct request *r, struct obj_libs3 *s, enum vv_objop op, const char *key,
                        int64_t deadline_ms, struct vv_error *e)
{
    memset(r, 0, sizeof *r);
    r->s = s;
    r->op = op;
    r->key = key;
    r->until_us = vv_mono_us(s->base.env) + deadline_ms * 1000;
    int n = snprintf(r->full_key, sizeof r->full_key, "%s%s", s->prefix, key);
    if (n > VV_OBJ_KEY_MAX)
        return vv_error_set(e, VV_E_USAGE, "%.200s…: key and prefix are too long", key);
    if (key_is_plain(r->full_key)) return VV_OK;
    return vv_error_set(e, VV_E_UNSUPPORTED,
                        "%s: libs3 2.0 cannot carry a key with a space or a control character",
                        key);
}

static void nap(struct obj_libs3 *s, int64_t ms)
{
    for (; ms > 0 && !atomic_load(&s->base.interrupted); ms -= 50) {
        struct timespec t = {.tv_nsec = VV_MIN(ms, (int64_t)50) * 1000000};
        nanosleep(&t, NULL);
    }
}

static void attempt(struct request *r, struct vv_libs3_session *session, int64_t left_ms,
                    struct vv_error *e)
{
    struct obj_libs3 *s = r->s;
    struct vv_cred cred;
    r->answer.err = vv_creds_get(s->creds, &cred, e);
    if (r->answer.err) {
        snprintf(r->answer.text, sizeof r->answer.text, "no credentials");
        return;
    }
    struct vv_libs3_target target = {.host = s->address.authority,
                                     .bucket = s->bucket,
                                     .path_style = s->address.path_style,
                                     .access_key_id = cred.access_key_id,
                                     .secret_access_key = cred.secret_access_key};
    struct vv_libs3_call call = {.session = session,
                                 .target = &target,
                                 .deadline_ms = left_ms,
                                 .interrupted = &s->base.interrupted,
                                 .key = r->full_key,
                                 .ctx = r};
    r->got = 0;
    r->sent = 0;
    r->attempts++;
    atomic_fetch_add(&s->base.stats.requests[r->op], 1);
    if (r->attempts > 1) atomic_fetch_add(&s->base.stats.retries[r->op], 1);
    r->run(r, &call);
    vv_cred_wipe(&cred);
}

static int64_t pause_ms(struct request *r)
{
    uint32_t random;
    int64_t bound =
        VV_MIN((int64_t)PAUSE_FIRST_MS << VV_MIN(r->attempts - 1, 8u), (int64_t)PAUSE_MAX_MS);
    vv_random(r->s->base.env, &random, sizeof random);
    return 1 + (int64_t)(random % (uint64_t)bound);
}

static int request_run(struct request *r, struct vv_error *e)
{
    struct obj_libs3 *s = r->s;
    struct vv_libs3_session *session = session_take(s);
    bool reloaded = false, again = true;
    int64_t pause = 0;
    if (!session) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    while (again) {
        nap(s, pause);
        int64_t left_ms = (r->until_us - vv_mono_us(s->base.env)) / 1000;
        attempt(r, session, VV_MAX(left_ms, (int64_t)1), e);
        left_ms = (r->until_us - vv_mono_us(s->base.env)) / 1000;
        again = r->answer.err && r->answer.again;
        pause = again ? pause_ms(r) : 0;
        if (r->answer.err == VV_E_ACCESS && !reloaded) {
            reloaded = true;
            again = vv_creds_reload(s->creds);
        }
        if (pause >= left_ms || atomic_load(&s->base.interrupted)) again = false;
    }
    session_give(s, session);
    int err = r->answer.err;
    if (!err) return VV_OK;
    return vv_error_set(e, err, "%s: %s %.200s: %s", s->base.url, vv_objop_name(r->op), r->key,
                        r->answer.text[0] ? r->answer.text : vv_err_name(err));
}

static void answer_info(const struct request *r, struct vv_objinfo *info)
{
    info->size = r->answer.size;
    info->mtime_ms = r->answer.mtime_ms;
    memcpy(info->etag, r->answer.etag, sizeof info->etag);
}

/* ---- reading ---- */

static int on_bytes(void *ctx, const void *p, size_t n)
{
    struct request *r = ctx;
    if (n > r->max - r->got) return VV_E_LIMIT;
    if (r->got + n > r->buf->cap) {
        size_t cap = VV_MIN(VV_MAX(r->buf->cap * 2, r->got + n), r->max);
        struct vv_buf *bigger = vv_buf_new(cap);
        if (!bigger) return VV_E_NOMEM;
        memcpy(bigger->data, r->buf->data, r->got);
        vv_buf_unref(r->buf);
        r->buf = bigger;
    }
    memcpy(r->buf->data + r->got, p, n);
    r->got += n;
    return VV_OK;
}

static void run_get(struct request *r, const struct vv_libs3_call *call)
{
    r->s->api->get(call, r->at, r->n, on_bytes, &r->answer);
}

static void run_head(struct request *r, const struct vv_libs3_call *call)
{
    r->s->api->head(call, &r->answer);
}

/* Gets [at, at + n) into r->buf of cap n. The caller unrefs r->buf. */
static int get_range(struct request *r, uint64_t at, size_t n, struct vv_error *e)
{
    r->run = run_get;
    r->at = at;
    r->n = n;
    r->max = n;
    r->buf = vv_buf_new(n);
    int err = r->buf ? request_run(r, e) : vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (!err && r->got < n)
        err =
            vv_error_set(e, VV_E_CORRUPT, "get %s: the object ends before the range does", r->key);
    if (err == VV_E_LIMIT)
        err = vv_error_set(e, VV_E_PROTO,
                           "get %s: the store did not answer with the range asked for", r->key);
    return err;
}

static int libs3_range(struct vv_objstore *base, struct vv_objget *get, int64_t left_ms,
                       struct vv_buf **out)
{
    struct request r;
    int err = request_init(&r, (struct obj_libs3 *)base, VV_OBJ_GET_ASYNC, get->key, left_ms,
                           &get->error);
    if (!err) err = get_range(&r, get->at, get->n, &get->error);
    if (!err && get->sink) err = vv_objget_feed(get, 0, r.buf->data, get->n);
    if (err || get->sink)
        vv_buf_unref(r.buf);
    else
        *out = r.buf;
    return err;
}

static void libs3_get_async(struct vv_objstore *base, struct vv_objget *get)
{
    vv_objpool_submit(&((struct obj_libs3 *)base)->pool, get);
}

static void libs3_cancel(struct vv_objstore *base, struct vv_objget *get)
{
    vv_objpool_cancel(&((struct obj_libs3 *)base)->pool, get);
}

static int libs3_head(struct vv_objstore *base, const char *key, int64_t deadline_ms,
                      struct vv_objinfo *info, struct vv_error *e)
{
    struct request r;
    int err = request_init(&r, (struct obj_libs3 *)base, VV_OBJ_HEAD, key, deadline_ms, e);
    r.run = run_head;
    if (!err) err = request_run(&r, e);
    if (!err) answer_info(&r, info);
    return err;
}

static int get_whole(struct request *r, size_t max, struct vv_error *e)
{
    r->run = run_get;
    r->max = max;
    r->buf = vv_buf_new(VV_MIN(max, (size_t)16384));
    int err = r->buf ? request_run(r, e) : vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (err == VV_E_LIMIT)
        err = vv_error_set(e, err, "get %s: more than the %zu bytes wanted", r->key, max);
    return err;
}

/* libs3 has no suffix range and does not tell a range's whole: HEAD first. */
static int libs3_get(struct vv_objstore *base, const char *key, enum vv_objget_kind kind,
                     uint64_t at, size_t n, int64_t deadline_ms, struct vv_slice *out,
                     struct vv_objinfo *info, struct vv_error *e)
{
    struct request r;
    int64_t until_us = vv_mono_us(base->env) + deadline_ms * 1000;
    int err = VV_OK;
    if (kind != VV_GET_WHOLE) err = libs3_head(base, key, deadline_ms, info, e);
    if (err) return err;
    if (kind == VV_GET_SUFFIX) {
        n = (size_t)VV_MIN((uint64_t)n, info->size);
        at = info->size - n;
    }
    int64_t left_ms = VV_MAX((until_us - vv_mono_us(base->env)) / 1000, (int64_t)1);
    err = request_init(&r, (struct obj_libs3 *)base, VV_OBJ_GET, key, left_ms, e);
    if (err) return err;
    if (kind == VV_GET_WHOLE)
        err = get_whole(&r, n, e);
    else if (n)
        err = get_range(&r, at, n, e);
    else if (!(r.buf = vv_buf_new(0)))
        err = vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (err) {
        vv_buf_unref(r.buf);
        return err;
    }
    if (kind == VV_GET_WHOLE) {
        answer_info(&r, info);
        info->size = r.got;
    }
    *out = (struct vv_slice){.buf = r.buf, .p = r.buf->data, .n = r.got};
    return VV_OK;
}

/* ---- writing ---- */

static int on_source(void *ctx, void *dst, size_t n)
{
    struct request *r = ctx;
    int err = r->src->read(r->src->ctx, r->sent, dst, n);
    r->sent += n;
    return err;
}

static void run_put(struct request *r, const struct vv_libs3_call *call)
{
    r->s->api->put(call, r->src->size, r->md5_base64, on_source, &r->answer);
}

static struct vv_objsumming libs3_summing(struct vv_objstore *base, uint64_t n)
{
    (void)base, (void)n;
    return (struct vv_objsumming){VV_SUM_WHOLE, VV_SUM_MD5};
}

static int libs3_put(struct vv_objstore *base, const char *key, const struct vv_objsrc *src,
                     const struct vv_objput *how, int64_t deadline_ms, struct vv_objinfo *info,
                     struct vv_error *e)
{
    struct request r;
    int err = request_init(&r, (struct obj_libs3 *)base, VV_OBJ_PUT, key, deadline_ms, e);
    if (err) return err;
    if (src->size > PUT_MAX)
        return vv_error_set(e, VV_E_LIMIT, "put %s: libs3 2.0 has single puts of at most 5 GiB",
                            key);
    r.run = run_put;
    r.src = src;
    const struct vv_objsum *known = vv_objsums_for(how->sums, libs3_summing(base, src->size), 1); /* no condition comes here */
    struct vv_objsum sum;
    if (!known) err = vv_objsum_source(src, 0, src->size, VV_SUM_MD5, &sum);
    if (err) return vv_error_set(e, err, "put %s: reading or summing the bytes to send: %s", key, vv_err_name(err));
    EVP_EncodeBlock((unsigned char *)r.md5_base64, (known ? known : &sum)->md5, 16);
    err = request_run(&r, e);
    if (err) return err;
    answer_info(&r, info);
    info->size = src->size;
    return VV_OK;
}

static void run_delete(struct request *r, const struct vv_libs3_call *call)
{
    r->s->api->del(call, &r->answer);
}

static int libs3_delete(struct vv_objstore *base, const char *key, int64_t deadline_ms,
                        struct vv_error *e)
{
    struct request r;
    int err = request_init(&r, (struct obj_libs3 *)base, VV_OBJ_DELETE, key, deadline_ms, e);
    r.run = run_delete;
    if (!err) err = request_run(&r, e);
    if (err == VV_E_NOENT && !strstr(r.answer.text, "NoSuchBucket")) err = VV_OK;
    return err;
}

static int libs3_delete_many(struct vv_objstore *base, const char *const *keys, size_t count,
                             int64_t deadline_ms, int *results, struct vv_error *e)
{
    int64_t until_us = vv_mono_us(base->env) + deadline_ms * 1000;
    int first = VV_OK;
    for (size_t i = 0; i < count; i++) {
        int64_t left_ms = VV_MAX((until_us - vv_mono_us(base->env)) / 1000, (int64_t)1);
        results[i] = libs3_delete(base, keys[i], left_ms, first ? NULL : e);
        if (!first) first = results[i];
    }
    return first;
}

/* ---- listing ---- */

static int on_entry(void *ctx, const char *key, uint64_t size, int64_t mtime_ms, const char *etag)
{
    struct request *r = ctx;
    size_t prefix_n = strlen(r->s->prefix);
    if (!key || strncmp(key, r->s->prefix, prefix_n)) return VV_E_PROTO;
    return vv_objlist_add(r->list, key + prefix_n, strlen(key + prefix_n), size, mtime_ms, etag);
}

static void run_list(struct request *r, const struct vv_libs3_call *call)
{
    r->list->count = 0;
    r->s->api->list(call, r->marker, r->list_max, on_entry, &r->more, &r->answer);
}

static int libs3_list(struct vv_objstore *base, const char *prefix, const char *start_after,
                      size_t max, int64_t deadline_ms, struct vv_objlist *out, struct vv_error *e)
{
    struct request r;
    char marker[2 * VV_OBJ_KEY_MAX + 2];
    struct obj_libs3 *s = (struct obj_libs3 *)base;
    int err = request_init(&r, s, VV_OBJ_LIST, prefix, deadline_ms, e);
    if (err) return err;
    snprintf(marker, sizeof marker, "%s%s", s->prefix, start_after ? start_after : "");
    if (!key_is_plain(marker))
        return vv_error_set(e, VV_E_UNSUPPORTED, "libs3 cannot list from %s", start_after);
    r.run = run_list;
    r.list = out;
    r.list_max = (int)max;
    r.marker = start_after ? marker : NULL;
    err = request_run(&r, e);
    out->more = r.more;
    return err;
}

static int libs3_abort_stale(struct vv_objstore *base, const char *prefix, int64_t before_wall_ms,
                             int64_t deadline_ms, size_t *aborted, struct vv_error *e)
{
    (void)base, (void)prefix, (void)before_wall_ms, (void)deadline_ms, (void)aborted, (void)e;
    return VV_OK;
}

/* ---- life ---- */

static void libs3_close(struct vv_objstore *base)
{
    struct obj_libs3 *s = (struct obj_libs3 *)base;
    atomic_store(&base->interrupted, true); /* the pool's running GETs too */
    vv_objpool_release(&s->pool);
    for (unsigned i = 0; i < s->idle_count; i++)
        s->api->session_free(s->idle[i]);
    vv_creds_free(s->creds);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static const struct vv_objstore_ops libs3_ops = {
    .close = libs3_close,
    .get_async = libs3_get_async,
    .cancel = libs3_cancel,
    .get = libs3_get,
    .head = libs3_head,
    .put = libs3_put,
    .summing = libs3_summing,
    .del = libs3_delete,
    .delete_many = libs3_delete_many,
    .list = libs3_list,
    .abort_stale = libs3_abort_stale,
};

static int check_usable(struct obj_libs3 *s, const struct vv_objstore_config *config,
                        struct vv_error *e)
{
    struct vv_cred cred;
    if (s->address.https)
        return vv_error_set(
            e, VV_E_CONFIG,
            "tier.s3.client=libs3 with https: libs3 2.0 does not verify certificates; "
            "use tier.s3.client=curl, or an http endpoint on a trusted network");
    if (config->ca_file && config->ca_file[0])
        return vv_error_set(e, VV_E_CONFIG, "tier.s3.ca.file has no use with tier.s3.client=libs3");
    if (config->storage_class || config->sse)
        return vv_error_set(e, VV_E_CONFIG, "tier.s3.storage.class and tier.s3.sse need tier.s3.client=curl");
    bool token = !vv_creds_get(s->creds, &cred, NULL) && cred.session_token[0];
    vv_cred_wipe(&cred);
    if (token)
        return vv_error_set(
            e, VV_E_CONFIG,
            "tier.s3.client=libs3 cannot use a session token: use tier.s3.client=curl");
    return VV_OK;
}

int vv_obj_libs3_open(const char *url, const struct vv_objstore_config *config, struct vv_env *env,
                      struct vv_objstore **out, struct vv_error *e)
{
    char region[64];
    struct obj_libs3 *s = calloc(1, sizeof *s);
    if (!s) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    vv_objstore_init(&s->base, &libs3_ops, env, VV_OBJ_CAP_ETAG_IS_MD5 | VV_OBJ_CAP_CHECKED_PUT,
                     url);
    pthread_mutex_init(&s->lock, NULL);
    vv_objpool_init(&s->pool, &s->base, libs3_range, config->inline_async);
    int err = s3_parse_url(url, s->bucket, sizeof s->bucket, s->prefix, sizeof s->prefix, e);
    if (!err) err = vv_creds_new(config, env, &s->creds, e);
    if (!err) vv_creds_region(s->creds, region, sizeof region);
    if (!err) err = s3_resolve_address(config, region, s->bucket, &s->address, e);
    if (!err) err = check_usable(s, config, e);
    if (!err) err = module_load(config, &s->api, e);
    if (err) {
        libs3_close(&s->base);
        return err;
    }
    *out = &s->base;
    return VV_OK;
}
