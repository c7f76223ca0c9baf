/* obj_s3_http.c — one S3 request: build, sign, send, judge, try again.
 *
 * An attempt is s3_attempt_begin → a transfer (curl_easy_perform on the caller's thread, or the
 * loop's multi) → s3_attempt_end, which says: done, failed, or again after a pause. Both kinds of
 * caller share these two.
 *
 * What is tried again until the deadline: connection errors, stalls, 408, 429, 5xx, SlowDown, a
 * body that was damaged on its way (BadDigest); with the full-jitter exponential pause 100 ms·2ⁿ up
 * to 5 s, or the store's Retry-After. Once each: RequestTimeTooSkewed after setting our clock
 * offset from the Date header; 401/403 after reading the credentials file again. Nothing else.
 *
 * Payload. Every body carries Content-MD5 in a signed header, so what the store stores is what we
 * summed: that is the checksum of "verify before you forget", and for single PUTs it is the ETag.
 * Over http the SHA-256 is signed too, because nothing else binds body to request there for stores
 * that ignore Content-MD5; over https the payload goes as UNSIGNED-PAYLOAD (TLS keeps it, MD5 is
 * the only pass) unless the caller has its SHA-256 anyway. The sums are needed in the header, and
 * trailers would shut out older stores, so they come first: from the caller (vv_objput.sums), or by
 * a pass of their own over the source. What changes between summing and sending, the store refuses.
 *
 * Limits: an error body is read up to S3_ERROR_BODY_MAX, a good one up to body_max; a stall of half
 * the remaining time ends an attempt. Texts of the server reach ours only cut and without control
 * characters; secrets never do. Threads: a call is one thread's; what it touches in obj_s3 is
 * atomic or guarded by its lock. */
#include "obj_s3.h"
#include "objsum.h"
#include "xml.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    PAUSE_FIRST_MS = 100,
    PAUSE_MAX_MS = 5000,
    CONNECT_MS = 10 * 1000,
    SKEW_MS = 5 * 60 * 1000,
    BODY_FIRST = 16 * 1024,
};

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void global_init(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

void s3_global_init(void)
{
    pthread_once(&global_once, global_init);
}

/* ---- building ---- */

void s3_call_init(struct s3_call *c, struct obj_s3 *s, enum vv_objop op, const char *method,
                  const char *key, int64_t deadline_ms)
{
    memset(c, 0, sizeof *c);
    c->s = s;
    c->op = op;
    c->method = method;
    c->key = key;
    c->deadline_us = vv_mono_us(s->base.env) + deadline_ms * 1000;
    memcpy(c->sha256, VV_SIGV4_EMPTY_SHA256, sizeof VV_SIGV4_EMPTY_SHA256);
}

void s3_call_release(struct s3_call *c)
{
    vv_buf_unref(c->buf);
    c->buf = NULL;
    curl_slist_free_all(c->list);
    c->list = NULL;
}

void s3_call_query(struct s3_call *c, const char *name, const char *value)
{
    VV_ASSERT(c->query_count < S3_QUERIES_MAX);
    c->query[c->query_count++] = (struct vv_sigv4_kv){name, value};
}

void s3_call_header(struct s3_call *c, const char *name, const char *value)
{
    VV_ASSERT(c->header_count < S3_HEADERS_MAX);
    c->headers[c->header_count++] = (struct vv_sigv4_kv){name, value};
}

int s3_call_hash(struct s3_call *c, const struct vv_objsums *known, const struct vv_objsum *sum, struct vv_error *e)
{
    struct vv_objsum own;
    unsigned kinds = s3_sums(c->s);
    if (sum) {
        kinds |= known->as.kinds;
    } else {
        int err = vv_objsum_source(c->src, c->src_at, c->src_n, kinds, &own);
        if (err) return vv_error_set(e, err, "%s: reading or summing the bytes to send: %s", c->key ? c->key : "request", vv_err_name(err));
        sum = &own;
    }
    memcpy(c->md5, sum->md5, sizeof c->md5);
    EVP_EncodeBlock((unsigned char *)c->md5_base64, sum->md5, 16);
    c->md5_etag[0] = '"';
    vv_sigv4_hex(sum->md5, 16, c->md5_etag + 1);
    memcpy(c->md5_etag + 33, "\"", 2);
    if (kinds & VV_SUM_SHA256)
        vv_sigv4_hex(sum->sha256, 32, c->sha256);
    else
        memcpy(c->sha256, VV_SIGV4_UNSIGNED, sizeof VV_SIGV4_UNSIGNED);
    s3_call_header(c, "content-md5", c->md5_base64);
    return VV_OK;
}

static bool add_line(struct s3_call *c, const char *name, const char *value)
{
    char line[VV_CRED_TOKEN_MAX + 64];
    int n = snprintf(line, sizeof line, "%s: %s", name, value);
    struct curl_slist *list =
        n > 0 && (size_t)n < sizeof line ? curl_slist_append(c->list, line) : NULL;
    OPENSSL_cleanse(line, sizeof line);
    if (list) c->list = list;
    return list != NULL;
}

/* Signs, and puts all headers into c->list. */
static int sign(struct s3_call *c, const char *path, const char *query, const struct vv_cred *cred)
{
    struct obj_s3 *s = c->s;
    struct vv_sigv4_kv headers[S3_HEADERS_MAX + 4];
    char date[VV_SIGV4_DATE_N], auth[VV_SIGV4_AUTH_MAX];
    size_t n = 0;
    c->signed_ms = vv_wall_ms(s->base.env) + atomic_load(&s->clock_offset_ms);
    vv_sigv4_date(c->signed_ms, date);
    headers[n++] = (struct vv_sigv4_kv){"host", s->host};
    headers[n++] = (struct vv_sigv4_kv){"x-amz-content-sha256", c->sha256};
    headers[n++] = (struct vv_sigv4_kv){"x-amz-date", date};
    if (cred->session_token[0])
        headers[n++] = (struct vv_sigv4_kv){"x-amz-security-token", cred->session_token};
    for (size_t i = 0; i < c->header_count; i++)
        headers[n++] = c->headers[i];
    struct vv_sigv4_request r = {.method = c->method,
                                 .path = path,
                                 .query = query,
                                 .headers = headers,
                                 .header_count = n,
                                 .payload_hash = c->sha256,
                                 .date = date,
                                 .region = s->region,
                                 .service = "s3",
                                 .access_key_id = cred->access_key_id,
                                 .secret_access_key = cred->secret_access_key};
    int err = vv_sigv4_authorization(&r, auth);
    if (err) return err;
    curl_slist_free_all(c->list);
    c->list = NULL;
    bool ok = add_line(c, "authorization", auth);
    for (size_t i = 0; i < n && ok; i++)
        ok = add_line(c, headers[i].name, headers[i].value);
    struct curl_slist *list =
        ok ? curl_slist_append(c->list, "Expect:") : NULL; /* no round trip before a body */
    if (list) c->list = list;
    return list ? VV_OK : VV_E_NOMEM;
}

/* ---- what curl calls ---- */

static size_t on_read(char *dst, size_t size, size_t count, void *ctx)
{
    struct s3_call *c = ctx;
    size_t n = (size_t)VV_MIN(c->src_n - c->sent, (uint64_t)(size * count));
    if (n == 0) return 0;
    c->src_err = c->src->read(c->src->ctx, c->src_at + c->sent, dst, n);
    if (c->src_err) return CURL_READFUNC_ABORT;
    c->sent += n;
    return n;
}

static int on_seek(void *ctx, curl_off_t at, int origin)
{
    struct s3_call *c = ctx;
    if (origin != SEEK_SET || at < 0 || (uint64_t)at > c->src_n) return CURL_SEEKFUNC_FAIL;
    c->sent = (uint64_t)at;
    return CURL_SEEKFUNC_OK;
}

static bool body_room(struct s3_call *c, size_t n)
{
    size_t cap = c->buf ? c->buf->cap : 0;
    if (n > c->body_max - c->got) {
        c->over = true;
        return false;
    }
    if (c->got + n <= cap) return true;
    cap = VV_MAX(VV_MAX(cap * 2, (size_t)BODY_FIRST), c->got + n);
    struct vv_buf *bigger = vv_buf_new(VV_MIN(cap, c->body_max));
    if (!bigger) return false;
    if (c->got) memcpy(bigger->data, c->buf->data, c->got);
    vv_buf_unref(c->buf);
    c->buf = bigger;
    return true;
}

/* Is this the part of the object that was asked for? A store may ignore Range and send everything.
 */
static bool range_fits(struct s3_call *c)
{
    if (c->suffix) return c->status == 206 || c->content_length <= (int64_t)c->range_n;
    if (!c->range) return true;
    if (c->status == 206) return c->content_at == c->range_at;
    return c->range_at == 0 && c->content_length == (int64_t)c->range_n;
}

static size_t on_body(char *src, size_t size, size_t count, void *ctx)
{
    struct s3_call *c = ctx;
    size_t n = size * count;
    if (c->status < 200 ||
        c->status > 299) { /* an error's text: keep what fits, let the rest pass */
        size_t keep = VV_MIN(n, sizeof c->error_body - c->error_n);
        memcpy(c->error_body + c->error_n, src, keep);
        c->error_n += keep;
        return n;
    }
    if (!range_fits(c)) {
        c->over = true;
        return 0;
    }
    if (c->sunk) {
        c->over = n > c->range_n - c->got;
        if (c->over || vv_objget_feed(c->sunk, c->sunk_n + c->got, (const uint8_t *)src, n)) return 0;
    } else {
        if (!body_room(c, n)) return 0;
        memcpy(c->buf->data + c->got, src, n);
    }
    c->got += n;
    return n;
}

static bool header_is(const char *line, size_t n, const char *name, char *value, size_t cap)
{
    size_t name_n = strlen(name);
    if (n <= name_n || line[name_n] != ':' || strncasecmp(line, name, name_n)) return false;
    const char *p = line + name_n + 1, *end = line + n;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && isspace((unsigned char)end[-1]))
        end--;
    size_t value_n = (size_t)(end - p);
    if (value_n >= cap) return false;
    memcpy(value, p, value_n);
    value[value_n] = 0;
    return true;
}

static void reset_answer(struct s3_call *c)
{
    memset(&c->info, 0, sizeof c->info);
    c->content_length = -1;
    c->content_at = 0;
    c->date_ms = 0;
    c->retry_after_s = 0;
    c->bucket_region[0] = c->code[0] = c->message[0] = 0;
    c->got = c->error_n = 0;
    c->over = false;
    c->status = 0;
}

static size_t on_header(char *line, size_t size, size_t count, void *ctx)
{
    struct s3_call *c = ctx;
    size_t n = size * count;
    char value[256];
    unsigned long long from, to, whole;
    if (n > 5 && !strncmp(line, "HTTP/", 5)) {
        char status_line[64];
        snprintf(status_line, sizeof status_line, "%.*s", (int)VV_MIN(n, sizeof status_line - 1),
                 line);
        reset_answer(c);
        const char *space = strchr(status_line, ' ');
        c->status = space ? strtol(space, NULL, 10) : 0;
    } else if (header_is(line, n, "etag", value, sizeof value)) {
        if (strlen(value) < sizeof c->info.etag) memcpy(c->info.etag, value, strlen(value) + 1);
    } else if (header_is(line, n, "content-length", value, sizeof value)) {
        c->content_length = strtoll(value, NULL, 10);
        if (!c->content_at && c->content_length >= 0 && !c->info.size)
            c->info.size = (uint64_t)c->content_length;
    } else if (header_is(line, n, "content-range", value, sizeof value)) {
        if (sscanf(value, "bytes %llu-%llu/%llu", &from, &to, &whole) == 3) {
            c->content_at = from;
            c->info.size = whole;
        }
    } else if (header_is(line, n, "last-modified", value, sizeof value)) {
        c->info.mtime_ms = VV_MAX((int64_t)curl_getdate(value, NULL) * 1000, (int64_t)0);
    } else if (header_is(line, n, "date", value, sizeof value)) {
        c->date_ms = VV_MAX((int64_t)curl_getdate(value, NULL) * 1000, (int64_t)0);
    } else if (header_is(line, n, "retry-after", value, sizeof value)) {
        c->retry_after_s = (unsigned)VV_MIN(strtoul(value, NULL, 10), 3600ul);
    } else if (header_is(line, n, "x-amz-bucket-region", value, sizeof value)) {
        snprintf(c->bucket_region, sizeof c->bucket_region, "%.63s", value);
    }
    return n;
}

static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t d, curl_off_t u)
{
    struct s3_call *c = ctx;
    (void)a, (void)b, (void)d, (void)u;
    return atomic_load(&c->s->base.interrupted);
}

/* ---- an attempt ---- */

CURL *s3_curl_new(void)
{
    return curl_easy_init();
}

/* What curl keeps a copy of. Without memory for one it would be another request: a DELETE without its method is a GET. */
static int set_texts(struct s3_call *c, CURL *curl, const char *url)
{
    struct obj_s3 *s = c->s;
    bool ok = !curl_easy_setopt(curl, CURLOPT_URL, url) && !curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") &&
              !curl_easy_setopt(curl, CURLOPT_USERAGENT, "varve/" VARVE_VERSION) &&
              !curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, c->method) &&
              (!s->ca_file[0] || !curl_easy_setopt(curl, CURLOPT_CAINFO, s->ca_file)) &&
              (!s->loopback || !curl_easy_setopt(curl, CURLOPT_PROXY, ""));
    return ok ? VV_OK : VV_E_NOMEM;
}

static void set_options(struct s3_call *c, CURL *curl, int64_t left_ms)
{
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, c->list);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)VV_MAX(left_ms, (int64_t)1));
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
                     (long)VV_MIN(VV_MAX(left_ms, (int64_t)1), (int64_t)CONNECT_MS));
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)VV_MAX(left_ms / 2000, (int64_t)1));
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 128L * 1024);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, c);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_PRIVATE, c);
    if (!strcmp(c->method, "HEAD")) curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    if (c->src || !strcmp(c->method, "POST")) {
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)c->src_n);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(curl, CURLOPT_READDATA, c);
        curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(curl, CURLOPT_SEEKDATA, c);
        curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 512L * 1024);
    }
}

/* path (encoded) and the URL. */
static int build_url(struct s3_call *c, char path[S3_PATH_MAX], char query[S3_QUERY_MAX], char *url,
                     size_t url_cap)
{
    struct obj_s3 *s = c->s;
    size_t n = (size_t)snprintf(path, S3_PATH_MAX, "%s", s->path_root);
    if (c->key) {
        path[n++] = '/';
        size_t prefix_n = vv_sigv4_encode(path + n, S3_PATH_MAX - n, s->prefix, true);
        if (prefix_n == SIZE_MAX) return VV_E_LIMIT;
        n += prefix_n;
        if (vv_sigv4_encode(path + n, S3_PATH_MAX - n, c->key, true) == SIZE_MAX) return VV_E_LIMIT;
    } else if (n == 0) {
        memcpy(path, "/", 2);
    }
    size_t query_n = vv_sigv4_query(query, S3_QUERY_MAX, c->query, c->query_count);
    if (query_n == SIZE_MAX) return VV_E_LIMIT;
    int url_n = snprintf(url, url_cap, "%s%s%s%s", s->root, path, query_n ? "?" : "", query);
    return url_n > 0 && (size_t)url_n < url_cap ? VV_OK : VV_E_LIMIT;
}

int s3_attempt_begin(struct s3_call *c, CURL *curl, struct vv_error *e)
{
    char path[S3_PATH_MAX], query[S3_QUERY_MAX], url[S3_PATH_MAX + S3_QUERY_MAX + 512];
    struct vv_cred cred;
    int64_t left_ms = (c->deadline_us - vv_mono_us(c->s->base.env)) / 1000;
    int err = vv_creds_get(c->s->creds, &cred, e);
    if (err) return err;
    err = build_url(c, path, query, url, sizeof url);
    if (!err) err = sign(c, path, query, &cred);
    vv_cred_wipe(&cred);
    if (!err) {
        curl_easy_reset(curl);
        err = set_texts(c, curl, url);
    }
    if (err)
        return vv_error_set(e, err, "building the request for %.200s: %s", c->key,
                            vv_err_name(err));
    reset_answer(c);
    c->sent = 0;
    c->src_err = 0;
    c->curl = curl;
    c->attempts++;
    set_options(c, curl, left_ms);
    atomic_fetch_add(&c->s->base.stats.requests[c->op], 1);
    if (c->attempts > 1) atomic_fetch_add(&c->s->base.stats.retries[c->op], 1);
    return VV_OK;
}

/* ---- the verdict ---- */

static int on_error_element(void *ctx, const char *path, const char *text)
{
    struct s3_call *c = ctx;
    char *dst = NULL;
    size_t cap = 0;
    if (!strcmp(path, "Error/Code")) dst = c->code, cap = sizeof c->code;
    if (!strcmp(path, "Error/Message")) dst = c->message, cap = sizeof c->message;
    if (!strcmp(path, "Error/Region")) dst = c->bucket_region, cap = sizeof c->bucket_region;
    if (!dst) return VV_OK;
    snprintf(dst, cap, "%s", text);
    for (char *p = dst; *p; p++)
        if (iscntrl((unsigned char)*p)) *p = '?';
    return VV_OK;
}

static bool code_is(const struct s3_call *c, const char *code)
{
    return !strcmp(c->code, code);
}

static int fail(struct s3_call *c, struct vv_error *e, int err, const char *what)
{
    return vv_error_set(e, err, "%s: %s %.200s: %s", c->s->base.url, vv_objop_name(c->op),
                        c->key ? c->key : "", what);
}

static int fail_status(struct s3_call *c, struct vv_error *e, int err)
{
    char what[400];
    if (c->bucket_region[0] && (c->status == 301 || c->status == 307 || c->status == 400) &&
        strcmp(c->bucket_region, c->s->region))
        snprintf(what, sizeof what, "HTTP %ld: the bucket is in region %s: set tier.s3.region",
                 c->status, c->bucket_region);
    else
        snprintf(what, sizeof what, "HTTP %ld %s%s%s", c->status,
                 c->code[0] ? c->code : vv_err_name(err), c->message[0] ? ": " : "", c->message);
    return fail(c, e, err, what);
}

/* Full jitter: anything between 0 and the exponential bound. */
static int64_t pause_ms(struct s3_call *c)
{
    uint32_t r;
    unsigned shift = VV_MIN(c->attempts - 1, 8u);
    int64_t bound = VV_MIN((int64_t)PAUSE_FIRST_MS << shift, (int64_t)PAUSE_MAX_MS);
    vv_random(c->s->base.env, &r, sizeof r);
    return VV_MAX(1 + (int64_t)(r % (uint64_t)bound), (int64_t)c->retry_after_s * 1000);
}

static int again(struct s3_call *c, int err, int64_t *delay_ms)
{
    int64_t pause = pause_ms(c);
    int64_t left_ms = (c->deadline_us - vv_mono_us(c->s->base.env)) / 1000;
    *delay_ms = pause < left_ms && !atomic_load(&c->s->base.interrupted) ? pause : -1;
    return err;
}

/* curl could not finish the exchange. */
static int judge_transfer(struct s3_call *c, CURLcode rc, int64_t *delay_ms, struct vv_error *e)
{
    if (c->src_err) return fail(c, e, c->src_err, "reading the bytes to send failed");
    if (atomic_load(&c->s->base.interrupted)) return fail(c, e, VV_E_SHUTDOWN, "interrupted");
    if (c->over) {
        if (!range_fits(c))
            return fail(c, e, VV_E_PROTO, "the store did not answer with the range asked for");
        return fail(c, e, VV_E_LIMIT, "the answer is bigger than wanted");
    }
    switch (rc) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return fail(c, e, VV_E_ACCESS,
                    "the store's TLS certificate is not trusted (tier.s3.ca.file?)");
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return fail(c, e, VV_E_CONFIG, curl_easy_strerror(rc));
    case CURLE_OUT_OF_MEMORY:
    case CURLE_WRITE_ERROR: /* body_room found no memory */
        return fail(c, e, VV_E_NOMEM, curl_easy_strerror(rc));
    case CURLE_OPERATION_TIMEDOUT:
        c->unknown_outcome = true;
        return again(c, fail(c, e, VV_E_TIMEOUT, "no answer in time"), delay_ms);
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return again(c, fail(c, e, VV_E_AGAIN, curl_easy_strerror(rc)), delay_ms);
    default:
        c->unknown_outcome = true;
        return again(c, fail(c, e, VV_E_AGAIN, curl_easy_strerror(rc)), delay_ms);
    }
}

static int judge_refused(struct s3_call *c, int64_t *delay_ms, struct vv_error *e)
{
    int64_t skew = c->date_ms ? c->date_ms - c->signed_ms : 0;
    if (!c->skew_tried && (skew > SKEW_MS || skew < -SKEW_MS)) {
        c->skew_tried = true;
        atomic_store(&c->s->clock_offset_ms, c->date_ms - vv_wall_ms(c->s->base.env));
        VLOG_WARN("%s: the store's clock differs by %lld s from ours: signing with its time",
                  c->s->base.url, (long long)(skew / 1000));
        *delay_ms = 0;
    } else if (!c->creds_tried) {
        c->creds_tried = true;
        if (vv_creds_reload(c->s->creds)) *delay_ms = 0;
    }
    return fail_status(c, e, VV_E_ACCESS);
}

/* HTTP status (and S3 code) → vv_err, for what is neither success, retried nor an access matter. */
static int status_error(const struct s3_call *c)
{
    if (code_is(c, "EntityTooLarge") || code_is(c, "EntityTooSmall")) return VV_E_LIMIT;
    switch (c->status) {
    case 301:
    case 307:
        return VV_E_CONFIG;
    case 400:
        return c->bucket_region[0] && strcmp(c->bucket_region, c->s->region) ? VV_E_CONFIG
                                                                             : VV_E_IO;
    case 404:
        return VV_E_NOENT;
    case 405:
    case 501:
        return VV_E_UNSUPPORTED;
    case 409:
    case 412:
        return VV_E_CONFLICT;
    case 416:
        return VV_E_CORRUPT;
    case 507:
        return VV_E_NOSPC;
    default:
        return VV_E_IO;
    }
}

static int judge_status(struct s3_call *c, int64_t *delay_ms, struct vv_error *e)
{
    if (c->error_n) vv_xml_parse(c->error_body, c->error_n, on_error_element, c);
    long status = c->status;
    if (status == 401 || status == 403 || code_is(c, "ExpiredToken") || code_is(c, "InvalidToken"))
        return judge_refused(c, delay_ms, e);
    if (code_is(c, "BadDigest") || code_is(c, "XAmzContentSHA256Mismatch") ||
        code_is(c, "IncompleteBody"))
        return again(c, fail_status(c, e, VV_E_CORRUPT), delay_ms);
    bool busy = status == 408 || status == 429 || status == 500 ||
                (status >= 502 && status <= 504) || code_is(c, "SlowDown") ||
                code_is(c, "RequestTimeout") || code_is(c, "OperationAborted");
    if (!busy) return fail_status(c, e, status_error(c));
    if (status >= 500 && status != 503) c->unknown_outcome = true;
    return again(c, fail_status(c, e, VV_E_AGAIN), delay_ms);
}

int s3_attempt_end(struct s3_call *c, CURLcode rc, int64_t *delay_ms, struct vv_error *e)
{
    *delay_ms = -1;
    curl_slist_free_all(c->list);
    c->list = NULL;
    if (c->sunk && c->got == c->range_n) return VV_OK; /* all of it is there, whatever came after */
    if (rc != CURLE_OK && (c->status < 300 || c->over || c->src_err))
        return judge_transfer(c, rc, delay_ms, e);
    if (c->status < 200 || c->status > 299) return judge_status(c, delay_ms, e);
    if ((c->range || c->suffix) && !range_fits(c))
        return fail(c, e, VV_E_PROTO, "the store did not answer with the range asked for");
    if (c->range && c->got < c->range_n)
        return fail(c, e, VV_E_CORRUPT, "the object ends before the range does");
    return VV_OK;
}

/* ---- a whole sync call ---- */

static CURL *curl_take(struct obj_s3 *s)
{
    CURL *curl = NULL;
    pthread_mutex_lock(&s->lock);
    if (s->idle_count) curl = s->idle[--s->idle_count];
    pthread_mutex_unlock(&s->lock);
    return curl ? curl : s3_curl_new();
}

static void curl_give(struct obj_s3 *s, CURL *curl)
{
    bool kept = false;
    curl_easy_reset(curl); /* drops the pointers into the call; the connection stays */
    pthread_mutex_lock(&s->lock);
    if (s->idle_count < S3_IDLE_MAX) {
        s->idle[s->idle_count++] = curl;
        kept = true;
    }
    pthread_mutex_unlock(&s->lock);
    if (!kept) curl_easy_cleanup(curl);
}

/* In slices, so that an interrupt is seen. */
static void nap(struct s3_call *c, int64_t ms)
{
    for (; ms > 0 && !atomic_load(&c->s->base.interrupted); ms -= 50) {
        struct timespec t = {.tv_nsec = VV_MIN(ms, (int64_t)50) * 1000000};
        nanosleep(&t, NULL);
    }
}

int s3_call_run(struct s3_call *c, struct vv_error *e)
{
    CURL *curl = curl_take(c->s);
    if (!curl) return fail(c, e, VV_E_NOMEM, "out of memory");
    int64_t delay_ms = -1;
    int err;
    do {
        nap(c, delay_ms);
        err = s3_attempt_begin(c, curl, e);
        if (err) break;
        err = s3_attempt_end(c, curl_easy_perform(curl), &delay_ms, e);
    } while (err && delay_ms >= 0);
    curl_give(c->s, curl);
    c->curl = NULL;
    return err;
}
