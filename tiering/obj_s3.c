/* obj_s3.c — the object store in an S3-compatible bucket, over libcurl: opening, and the sync
 * calls.
 *
 * A sync call is one s3_call (obj_s3_http.c) run with curl_easy_perform on the caller's own thread,
 * so that reading an upload from a slow disk, hashing it and waiting for the store hold up nobody
 * else. Async GETs are the loop's (obj_s3_loop.c); its thread starts with the first. libcurl itself
 * is initialised by the first open: a broker on a directory never pays for it.
 *
 * Dialects: the answer's encoding-type decides if keys are decoded, not what was asked; a store
 * that refuses a bulk delete once gets single ones from then on; no checksum header newer than
 * Content-MD5 is sent.
 *
 * Threads: any; see obj_s3.h for what the lock guards. */
#include "obj_s3.h"
#include "objsum.h"
#include "xml.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int proto(struct obj_s3 *s, struct vv_error *e, const char *what)
{
    return vv_error_set(e, VV_E_PROTO, "%s: the answer to a %s makes no sense", s->base.url, what);
}

/* ---- reading ---- */

static void s3_get_async(struct vv_objstore *base, struct vv_objget *get)
{
    struct obj_s3 *s = (struct obj_s3 *)base;
    int err = VV_OK;
    pthread_mutex_lock(&s->lock);
    if (!s->loop) err = s3_loop_new(s, &s->loop);
    struct s3_loop *loop = s->loop;
    pthread_mutex_unlock(&s->lock);
    if (err)
        vv_objget_finish(base, get, err, NULL);
    else
        s3_loop_submit(loop, get);
}

static void s3_cancel(struct vv_objstore *base, struct vv_objget *get)
{
    struct obj_s3 *s = (struct obj_s3 *)base;
    pthread_mutex_lock(&s->lock);
    struct s3_loop *loop = s->loop;
    pthread_mutex_unlock(&s->lock);
    if (loop) s3_loop_cancel(loop, get);
}

static int s3_get(struct vv_objstore *base, const char *key, enum vv_objget_kind kind, uint64_t at,
                  size_t n, int64_t deadline_ms, struct vv_slice *out, struct vv_objinfo *info,
                  struct vv_error *e)
{
    struct s3_call c;
    char range[64];
    s3_call_init(&c, (struct obj_s3 *)base, VV_OBJ_GET, "GET", key, deadline_ms);
    c.body_max = n;
    if (kind == VV_GET_RANGE) {
        snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)at,
                 (unsigned long long)(at + n - 1));
        c.range = true;
        c.range_at = at;
        c.range_n = n;
    } else if (kind == VV_GET_SUFFIX) {
        snprintf(range, sizeof range, "bytes=-%zu", n);
        c.suffix = true;
        c.range_n = n;
    }
    if (kind != VV_GET_WHOLE) s3_call_header(&c, "range", range);
    int err = s3_call_run(&c, e);
    if (err && c.status == 416 && kind == VV_GET_SUFFIX) {
        /* An empty object has no last bytes. Some stores also say so of one that is shorter than the suffix (RFC 9110,
         * 14.1.2, wants the whole object then): the whole object is the right answer to both. */
        s3_call_release(&c);
        return s3_get(base, key, VV_GET_WHOLE, 0, n, deadline_ms, out, info, e);
    }
    if (!err && !c.buf && !(c.buf = vv_buf_new(0)))
        err = vv_error_set(e, VV_E_NOMEM, "get %s: out of memory", key);
    if (!err) {
        *out = (struct vv_slice){.buf = c.buf, .p = c.buf->data, .n = c.got};
        c.buf = NULL;
        *info = c.info;
    }
    s3_call_release(&c);
    return err;
}

static int s3_head(struct vv_objstore *base, const char *key, int64_t deadline_ms,
                   struct vv_objinfo *info, struct vv_error *e)
{
    struct s3_call c;
    s3_call_init(&c, (struct obj_s3 *)base, VV_OBJ_HEAD, "HEAD", key, deadline_ms);
    int err = s3_call_run(&c, e);
    if (!err) *info = c.info;
    s3_call_release(&c);
    return err;
}

/* ---- writing ---- */

void s3_conditions(struct s3_call *c, const struct vv_objput *how)
{
    if (how->if_none_match) s3_call_header(c, "if-none-match", "*");
    if (how->if_match) s3_call_header(c, "if-match", how->if_match);
}

void s3_protection(struct s3_call *c, const struct vv_objput *how)
{
    const struct obj_s3 *s = c->s;
    if (how->cold && s->storage_class[0]) s3_call_header(c, "x-amz-storage-class", s->storage_class);
    if (s->sse[0]) s3_call_header(c, "x-amz-server-side-encryption", s->sse);
    if (s->kms_key_id[0]) s3_call_header(c, "x-amz-server-side-encryption-aws-kms-key-id", s->kms_key_id);
}

static struct vv_objsumming s3_summing(struct vv_objstore *base, uint64_t n)
{
    const struct obj_s3 *s = (const struct obj_s3 *)base;
    return (struct vv_objsumming){n > s->multipart_above ? s3_part_size(s, n) : VV_SUM_WHOLE, s3_sums(s)};
}

static int s3_put(struct vv_objstore *base, const char *key, const struct vv_objsrc *src,
                  const struct vv_objput *how, int64_t deadline_ms, struct vv_objinfo *info,
                  struct vv_error *e)
{
    struct obj_s3 *s = (struct obj_s3 *)base;
    struct s3_call c;
    if (src->size > s->multipart_above)
        return s3_multipart_put(s, key, src, how, deadline_ms, info, e);
    s3_call_init(&c, s, VV_OBJ_PUT, "PUT", key, deadline_ms);
    c.src = src;
    c.src_n = src->size;
    s3_conditions(&c, how);
    s3_protection(&c, how);
    int err = s3_call_hash(&c, how->sums, vv_objsums_for(how->sums, s3_summing(base, src->size), 1), e);
    if (!err) err = s3_call_run(&c, e);
    if (err == VV_E_NOENT && how->if_match) /* AWS: 404 when the object to match is gone */
        err = vv_error_set(e, VV_E_CONFLICT, "%s: put %s: the object to replace is gone", base->url,
                           key);
    if (!err) {
        *info = c.info;
        info->size = src->size;
        info->etag_differs = strlen(info->etag) == strlen(c.md5_etag) && strcmp(info->etag, c.md5_etag);
    }
    s3_call_release(&c);
    return err;
}

static int s3_delete(struct vv_objstore *base, const char *key, int64_t deadline_ms,
                     struct vv_error *e)
{
    struct s3_call c;
    s3_call_init(&c, (struct obj_s3 *)base, VV_OBJ_DELETE, "DELETE", key, deadline_ms);
    int err = s3_call_run(&c, e);
    if (err == VV_E_NOENT && strcmp(c.code, "NoSuchBucket")) err = VV_OK;
    s3_call_release(&c);
    return err;
}

/* ---- DeleteObjects ---- */

struct bulk {
    struct obj_s3 *s;
    const char *const *keys;
    size_t count;
    int *results;
    int first;
    bool understood; /* the root element is DeleteResult */
    char key[VV_OBJ_KEY_MAX * 2], code[64], message[200];
};

static int on_delete_element(void *ctx, const char *path, const char *text)
{
    struct bulk *b = ctx;
    if (!strcmp(path, "DeleteResult")) b->understood = true;
    if (!strcmp(path, "DeleteResult/Error/Key")) snprintf(b->key, sizeof b->key, "%s", text);
    if (!strcmp(path, "DeleteResult/Error/Code")) snprintf(b->code, sizeof b->code, "%s", text);
    if (!strcmp(path, "DeleteResult/Error/Message"))
        snprintf(b->message, sizeof b->message, "%s", text);
    if (strcmp(path, "DeleteResult/Error")) return VV_OK;
    size_t prefix_n = strlen(b->s->prefix);
    if (strncmp(b->key, b->s->prefix, prefix_n) || !strcmp(b->code, "NoSuchKey")) return VV_OK;
    int err = !strcmp(b->code, "AccessDenied") ? VV_E_ACCESS : VV_E_AGAIN;
    for (size_t i = 0; i < b->count; i++)
        if (!strcmp(b->keys[i], b->key + prefix_n)) b->results[i] = err;
    if (!b->first) b->first = err;
    return VV_OK;
}

/* The request's body, or NULL: a key that XML cannot carry, or no memory. */
static char *delete_body(struct obj_s3 *s, const char *const *keys, size_t count, size_t *n)
{
    size_t cap = 128 + count * 64, at = 0, prefix_n = strlen(s->prefix);
    for (size_t i = 0; i < count; i++)
        cap += 5 * (prefix_n + strlen(keys[i]));
    char *body = malloc(cap);
    if (!body) return NULL;
    at += (size_t)snprintf(
        body, cap, "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
    for (size_t i = 0; i < count; i++) {
        at += (size_t)snprintf(body + at, cap - at, "<Object><Key>");
        size_t a = vv_xml_escape(body + at, cap - at, s->prefix);
        size_t b = a == SIZE_MAX ? SIZE_MAX : vv_xml_escape(body + at + a, cap - at - a, keys[i]);
        if (b == SIZE_MAX) {
            free(body);
            return NULL;
        }
        at += a + b;
        at += (size_t)snprintf(body + at, cap - at, "</Key></Object>");
    }
    at += (size_t)snprintf(body + at, cap - at, "</Delete>");
    *n = at;
    return body;
}

static int body_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    memcpy(dst, (const char *)ctx + at, n);
    return VV_OK;
}

/* E_UNSUPPORTED: key by key, please. */
static int bulk_delete(struct bulk *b, int64_t deadline_ms, struct vv_error *e)
{
    struct s3_call c;
    size_t n;
    char *body = delete_body(b->s, b->keys, b->count, &n);
    if (!body) return VV_E_UNSUPPORTED;
    struct vv_objsrc src = {.size = n, .read = body_read, .ctx = body};
    s3_call_init(&c, b->s, VV_OBJ_DELETE_MANY, "POST", NULL, deadline_ms);
    s3_call_query(&c, "delete", "");
    c.src = &src;
    c.src_n = n;
    c.body_max = S3_XML_MAX;
    int err = s3_call_hash(&c, NULL, NULL, e);
    if (!err) err = s3_call_run(&c, e);
    if (!err && vv_xml_parse(c.buf ? c.buf->data : NULL, c.got, on_delete_element, b))
        err = proto(b->s, e, "bulk delete");
    if (!err && !b->understood) err = proto(b->s, e, "bulk delete");
    /* 400, 405, 501 and nonsense: a store without DeleteObjects, or with its own idea of it */
    if (err == VV_E_UNSUPPORTED || err == VV_E_PROTO || c.status == 400) {
        VLOG_WARN("%s: no bulk delete here (HTTP %ld %s): deleting key by key", b->s->base.url,
                  c.status, c.code);
        atomic_store(&b->s->no_bulk_delete, true);
        err = VV_E_UNSUPPORTED;
    }
    s3_call_release(&c);
    free(body);
    return err;
}

static int s3_delete_many(struct vv_objstore *base, const char *const *keys, size_t count,
                          int64_t deadline_ms, int *results, struct vv_error *e)
{
    struct obj_s3 *s = (struct obj_s3 *)base;
    struct bulk b = {.s = s, .keys = keys, .count = count, .results = results};
    int64_t until_us = vv_mono_us(base->env) + deadline_ms * 1000;
    int err = VV_E_UNSUPPORTED;
    if (count > 1 && !atomic_load(&s->no_bulk_delete)) {
        for (size_t i = 0; i < count; i++)
            results[i] = VV_OK;
        err = bulk_delete(&b, deadline_ms, e);
    }
    if (!err) {
        if (b.first)
            vv_error_set(e, b.first, "%s: bulk delete: %s %s: %s", base->url, b.key, b.code,
                         b.message);
        return b.first;
    }
    if (err != VV_E_UNSUPPORTED) {
        for (size_t i = 0; i < count; i++)
            results[i] = err;
        return err;
    }
    int first = VV_OK;
    for (size_t i = 0; i < count; i++) {
        int64_t left_ms = VV_MAX((until_us - vv_mono_us(base->env)) / 1000, (int64_t)1);
        results[i] = s3_delete(base, keys[i], left_ms, first ? NULL : e);
        if (!first) first = results[i];
    }
    return first;
}

/* ---- ListObjectsV2 ---- */

void s3_url_decode(char *text)
{
    char *out = text;
    for (const char *p = text; *p; p++) {
        if (*p == '%' && isxdigit((unsigned char)p[1]) && isxdigit((unsigned char)p[2])) {
            char hex[3] = {p[1], p[2], 0};
            *out++ = (char)strtol(hex, NULL, 16);
            p += 2;
        } else {
            *out++ = *p == '+' ? ' ' : *p;
        }
    }
    *out = 0;
}

struct listing {
    struct obj_s3 *s;
    struct vv_objlist *out;
    bool understood, encoded, foreign;
    char key[3 * VV_OBJ_KEY_MAX + 1], etag[VV_OBJ_ETAG_MAX];
    uint64_t size;
    int64_t mtime_ms;
};

static int on_list_element(void *ctx, const char *path, const char *text)
{
    static const char root[] = "ListBucketResult";
    struct listing *l = ctx;
    if (strncmp(path, root, sizeof root - 1)) return VV_OK;
    const char *name = path + sizeof root - 1;
    if (!*name) {
        l->understood = true;
    } else if (!strcmp(name, "/IsTruncated")) {
        l->out->more = !strcmp(text, "true");
    } else if (!strcmp(name, "/EncodingType")) {
        l->encoded = !strcmp(text, "url");
    } else if (!strcmp(name, "/Contents/Key")) {
        if (strlen(text) >= sizeof l->key) return VV_E_PROTO;
        memcpy(l->key, text, strlen(text) + 1);
    } else if (!strcmp(name, "/Contents/ETag")) {
        snprintf(l->etag, sizeof l->etag, "%s", strlen(text) < sizeof l->etag ? text : "");
    } else if (!strcmp(name, "/Contents/Size")) {
        l->size = strtoull(text, NULL, 10);
    } else if (!strcmp(name, "/Contents/LastModified")) {
        l->mtime_ms = vv_xml_time_ms(text);
    } else if (!strcmp(name, "/Contents")) {
        int err = vv_objlist_add(l->out, l->key, strlen(l->key), l->size, l->mtime_ms, l->etag);
        l->key[0] = l->etag[0] = 0;
        l->size = 0;
        l->mtime_ms = 0;
        return err;
    }
    return VV_OK;
}

/* EncodingType may follow the entries: decode and cut the prefix when all is read. */
static int finish_listing(struct listing *l, struct vv_error *e)
{
    size_t prefix_n = strlen(l->s->prefix);
    if (!l->understood) return proto(l->s, e, "listing");
    for (size_t i = 0; i < l->out->count; i++) {
        struct vv_objlist_entry *entry = &l->out->v[i];
        if (l->encoded) s3_url_decode(entry->key);
        if (strncmp(entry->key, l->s->prefix, prefix_n)) return proto(l->s, e, "listing");
        entry->key += prefix_n;
    }
    return VV_OK;
}

static int s3_list(struct vv_objstore *base, const char *prefix, const char *start_after,
                   size_t max, int64_t deadline_ms, struct vv_objlist *out, struct vv_error *e)
{
    struct obj_s3 *s = (struct obj_s3 *)base;
    struct s3_call c;
    struct listing l = {.s = s, .out = out};
    char full_prefix[2 * VV_OBJ_KEY_MAX + 2], full_after[2 * VV_OBJ_KEY_MAX + 2], max_keys[16];
    snprintf(full_prefix, sizeof full_prefix, "%s%s", s->prefix, prefix);
    snprintf(full_after, sizeof full_after, "%s%s", s->prefix, start_after ? start_after : "");
    snprintf(max_keys, sizeof max_keys, "%zu", max);
    s3_call_init(&c, s, VV_OBJ_LIST, "GET", NULL, deadline_ms);
    s3_call_query(&c, "list-type", "2");
    s3_call_query(&c, "encoding-type", "url");
    s3_call_query(&c, "max-keys", max_keys);
    s3_call_query(&c, "prefix", full_prefix);
    if (start_after) s3_call_query(&c, "start-after", full_after);
    c.body_max = S3_XML_MAX;
    int err = s3_call_run(&c, e);
    if (!err && vv_xml_parse(c.buf ? c.buf->data : NULL, c.got, on_list_element, &l))
        err = proto(s, e, "listing");
    if (!err) err = finish_listing(&l, e);
    s3_call_release(&c);
    return err;
}

/* ---- life ---- */

static void s3_close(struct vv_objstore *base)
{
    struct obj_s3 *s = (struct obj_s3 *)base;
    s3_loop_free(s->loop);
    for (unsigned i = 0; i < s->idle_count; i++)
        curl_easy_cleanup(s->idle[i]);
    vv_creds_free(s->creds);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static const struct vv_objstore_ops s3_ops = {
    .close = s3_close,
    .get_async = s3_get_async,
    .cancel = s3_cancel,
    .get = s3_get,
    .head = s3_head,
    .put = s3_put,
    .summing = s3_summing,
    .del = s3_delete,
    .delete_many = s3_delete_many,
    .list = s3_list,
    .abort_stale = s3_abort_stale,
};

static int config_error(struct vv_error *e, const char *what, const char *value)
{
    return vv_error_set(e, VV_E_CONFIG, "%s: %.300s", what, value);
}

int s3_parse_url(const char *url, char *bucket, size_t bucket_cap, char *prefix, size_t prefix_cap,
                 struct vv_error *e)
{
    const char *name = url + 5;
    size_t n = strcspn(name, "/");
    if (n < 3 || n > 63 || n >= bucket_cap ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") < n)
        return config_error(e, "tier.url: not a bucket name (3 to 63 of a-z 0-9 . -)", url);
    memcpy(bucket, name, n);
    bucket[n] = 0;
    const char *rest = name + n;
    while (*rest == '/')
        rest++;
    size_t rest_n = strlen(rest);
    while (rest_n && rest[rest_n - 1] == '/')
        rest_n--;
    if (rest_n + 2 > prefix_cap) return config_error(e, "tier.url: the prefix is too long", url);
    memcpy(prefix, rest, rest_n);
    prefix[rest_n] = 0;
    if (!rest_n) return VV_OK;
    if (!vv_objkey_valid(prefix))
        return config_error(e, "tier.url: no empty, '.' or '..' component", url);
    memcpy(prefix + rest_n, "/", 2);
    return VV_OK;
}

static bool is_loopback(const char *authority)
{
    return !strncmp(authority, "127.", 4) || !strncmp(authority, "[::1]", 5) ||
           (!strncmp(authority, "localhost", 9) && (!authority[9] || authority[9] == ':'));
}

int s3_resolve_address(const struct vv_objstore_config *config, const char *region,
                       const char *bucket, struct s3_address *a, struct vv_error *e)
{
    char aws[128];
    const char *endpoint = config->endpoint, *style = config->path_style;
    if (!endpoint || !endpoint[0]) endpoint = vv_cred_env(config, "AWS_ENDPOINT_URL_S3");
    if (!endpoint) endpoint = vv_cred_env(config, "AWS_ENDPOINT_URL");
    bool given = endpoint != NULL;
    if (!given) {
        snprintf(aws, sizeof aws, "https://s3.%s.amazonaws.com", region);
        endpoint = aws;
    }
    a->https = !strncmp(endpoint, "https://", 8);
    if (!a->https && strncmp(endpoint, "http://", 7))
        return config_error(e, "tier.s3.endpoint: give http[s]://HOST[:PORT]", endpoint);
    const char *authority = endpoint + (a->https ? 8 : 7);
    size_t n = strcspn(authority, "/");
    if (n == 0 || n >= sizeof a->authority || strlen(authority) > n + 1 ||
        memchr(authority, '@', n) || strpbrk(authority, "?# \r\n\t"))
        return config_error(e, "tier.s3.endpoint: give http[s]://HOST[:PORT], no path, no user",
                            endpoint);
    a->loopback = is_loopback(authority);
    const char *port = a->https ? ":443" : ":80"; /* clients send Host without a default port */
    size_t port_n = strlen(port);
    if (n > port_n && !strncmp(authority + n - port_n, port, port_n)) n -= port_n;
    memcpy(a->authority, authority, n);
    a->authority[n] = 0;
    a->path_style = given || strchr(bucket, '.') != NULL; /* a dot breaks TLS's wildcard */
    if (style && !strcmp(style, "true"))
        a->path_style = true;
    else if (style && !strcmp(style, "false"))
        a->path_style = false;
    else if (style && style[0] && strcmp(style, "auto"))
        return config_error(e, "tier.s3.path.style: give true, false or auto", style);
    return VV_OK;
}

/* root, host, path_root from endpoint and addressing style. */
static int set_address(struct obj_s3 *s, const struct vv_objstore_config *config,
                       const char *bucket, struct vv_error *e)
{
    struct s3_address a;
    int err = s3_resolve_address(config, s->region, bucket, &a, e);
    if (err) return err;
    s->https = a.https;
    s->loopback = a.loopback;
    const char *sub = a.path_style ? "" : bucket, *dot = a.path_style ? "" : ".";
    snprintf(s->host, sizeof s->host, "%s%s%s", sub, dot, a.authority);
    snprintf(s->root, sizeof s->root, "%s://%s", a.https ? "https" : "http", s->host);
    snprintf(s->path_root, sizeof s->path_root, "%s%s", a.path_style ? "/" : "",
             a.path_style ? bucket : "");
    return VV_OK;
}

static int set_limits(struct obj_s3 *s, const struct vv_objstore_config *config, struct vv_error *e)
{
    const char *ca = config->ca_file && config->ca_file[0] ? config->ca_file
                                                           : vv_cred_env(config, "AWS_CA_BUNDLE");
    s->multipart_above = config->multipart_above ? config->multipart_above : VV_OBJ_MULTIPART_ABOVE;
    s->part_size = config->part_size ? config->part_size : VV_OBJ_PART_SIZE;
    s->connections_max = config->connections_max ? VV_MIN(config->connections_max, 1024u) : 64;
    if (s->part_size < (5u << 20) || s->multipart_above > (5ull << 30))
        return config_error(e, "S3 multipart",
                            "parts have at least 5 MiB, a single put at most 5 GiB");
    if (ca && strlen(ca) >= sizeof s->ca_file)
        return config_error(e, "tier.s3.ca.file: too long", ca);
    snprintf(s->ca_file, sizeof s->ca_file, "%s", ca ? ca : "");
    return VV_OK;
}

/* One word of the store's, which goes into a header as it is. */
static int take_word(const char *key, const char *word, char *dst, size_t cap, struct vv_error *e)
{
    if (!word) return VV_OK;
    if (strlen(word) >= cap || strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-:/.+=") < strlen(word))
        return config_error(e, key, word);
    snprintf(dst, cap, "%s", word);
    return VV_OK;
}

static int set_protection(struct obj_s3 *s, const struct vv_objstore_config *config, struct vv_error *e)
{
    const char *class = config->storage_class;
    bool kms = config->sse && !strcmp(config->sse, "sse-kms");
    if (class && (!strcmp(class, "GLACIER") || !strcmp(class, "DEEP_ARCHIVE")))
        return config_error(e, "tier.s3.storage.class: objects must be readable at once, GLACIER_IR is the coldest that are", class);
    if (config->sse && !kms && strcmp(config->sse, "sse-s3"))
        return config_error(e, "tier.s3.sse: give none, sse-s3 or sse-kms", config->sse);
    if (config->sse_kms_key_id && !kms)
        return config_error(e, "tier.s3.sse.kms.key.id: of use only with tier.s3.sse=sse-kms", config->sse_kms_key_id);
    int err = take_word("tier.s3.storage.class: not a storage class", class, s->storage_class, sizeof s->storage_class, e);
    if (!err)
        err = take_word("tier.s3.sse.kms.key.id: not a key's id", config->sse_kms_key_id, s->kms_key_id, sizeof s->kms_key_id, e);
    if (!err && config->sse) snprintf(s->sse, sizeof s->sse, "%s", kms ? "aws:kms" : "AES256");
    if (kms) s->base.caps &= ~(unsigned)VV_OBJ_CAP_ETAG_IS_MD5; /* theirs are of the encrypted bytes */
    return err;
}

int vv_obj_s3_open(const char *url, const struct vv_objstore_config *config, struct vv_env *env,
                   struct vv_objstore **out, struct vv_error *e)
{
    char bucket[64];
    struct obj_s3 *s = calloc(1, sizeof *s);
    if (!s) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    s3_global_init();
    vv_objstore_init(&s->base, &s3_ops, env,
                     VV_OBJ_CAP_CONDITIONAL_PUT | VV_OBJ_CAP_MULTIPART | VV_OBJ_CAP_BULK_DELETE |
                         VV_OBJ_CAP_ETAG_IS_MD5 | VV_OBJ_CAP_CHECKED_PUT,
                     url);
    pthread_mutex_init(&s->lock, NULL);
    int err = s3_parse_url(url, bucket, sizeof bucket, s->prefix, sizeof s->prefix, e);
    if (!err) err = vv_creds_new(config, env, &s->creds, e);
    if (!err) vv_creds_region(s->creds, s->region, sizeof s->region);
    if (!err &&
        strspn(s->region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") <
            strlen(s->region))
        err = config_error(e, "tier.s3.region: not a region", s->region);
    if (!err) err = set_address(s, config, bucket, e);
    if (!err) err = set_limits(s, config, e);
    if (!err) err = set_protection(s, config, e);
    if (err) {
        s3_close(&s->base);
        return err;
    }
    *out = &s->base;
    return VV_OK;
}
