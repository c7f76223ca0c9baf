/* obj_s3_multipart.c — uploads in parts, and the parts of uploads that nobody finished.
 *
 * States:  create → part 1…n → complete → done.  Any failure before complete → abort (best effort;
 * what remains is abort_stale's). A failed complete whose outcome is unknown is looked up with HEAD
 * before it counts as failed: after a lost reply the second complete is answered 404 NoSuchUpload
 * although the object is there.
 *
 * Parts go one after another on the caller's thread: the uploader's parallelism is over segments.
 * Each part carries its Content-MD5; the finished object's ETag is the MD5 of the parts' MD5s with
 * "-n", which we compute and compare where the store's has that form. CompleteMultipartUpload may
 * answer 200 and an <Error>: only its result element counts.
 *
 * Limits: VV_OBJ_PARTS_MAX parts; a part grows so that they suffice. Threads: as sync calls. */
#include "obj_s3.h"
#include "objsum.h"
#include "xml.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UPLOAD_ID_MAX = 1024, ABORT_MS = 10 * 1000, STALE_PAGES_MAX = 10000 };

struct upload {
    struct obj_s3 *s;
    const char *key;
    const struct vv_objsrc *src;
    int64_t deadline_us;
    uint64_t part_size;
    unsigned parts;
    char id[UPLOAD_ID_MAX];
    char (*etags)[VV_OBJ_ETAG_MAX];
    uint8_t *md5s;                  /* 16 bytes each */
    char etag[VV_OBJ_ETAG_MAX];     /* of the finished object, as told */
    char expected[VV_OBJ_ETAG_MAX]; /* as computed */
};

static int64_t left_ms(const struct upload *u)
{
    return VV_MAX((u->deadline_us - vv_mono_us(u->s->base.env)) / 1000, (int64_t)1);
}

static int failed(struct upload *u, struct vv_error *e, int err, const char *what)
{
    return vv_error_set(e, err, "%s: put %s in parts: %s", u->s->base.url, u->key, what);
}

static int on_create_element(void *ctx, const char *path, const char *text)
{
    struct upload *u = ctx;
    if (strcmp(path, "InitiateMultipartUploadResult/UploadId")) return VV_OK;
    if (strlen(text) >= sizeof u->id) return VV_E_PROTO;
    memcpy(u->id, text, strlen(text) + 1);
    return VV_OK;
}

static int create(struct upload *u, const struct vv_objput *how, struct vv_error *e)
{
    struct s3_call c;
    s3_call_init(&c, u->s, VV_OBJ_PUT, "POST", u->key, left_ms(u));
    s3_call_query(&c, "uploads", "");
    s3_protection(&c, how);
    c.body_max = 64 * 1024;
    int err = s3_call_run(&c, e);
    if (!err &&
        (vv_xml_parse(c.buf ? c.buf->data : NULL, c.got, on_create_element, u) || !u->id[0]))
        err = failed(u, e, VV_E_PROTO, "no upload id in the answer");
    s3_call_release(&c);
    return err;
}

static int put_part(struct upload *u, unsigned i, const struct vv_objsums *sums, struct vv_error *e)
{
    struct s3_call c;
    char number[16];
    snprintf(number, sizeof number, "%u", i + 1);
    s3_call_init(&c, u->s, VV_OBJ_PUT, "PUT", u->key, left_ms(u));
    s3_call_query(&c, "partNumber", number);
    s3_call_query(&c, "uploadId", u->id);
    c.src = u->src;
    c.src_at = i * u->part_size;
    c.src_n = VV_MIN(u->part_size, u->src->size - c.src_at);
    int err = s3_call_hash(&c, sums, sums ? &sums->v[i] : NULL, e);
    if (!err) err = s3_call_run(&c, e);
    if (!err && !c.info.etag[0]) err = failed(u, e, VV_E_PROTO, "a part without ETag");
    if (!err && strpbrk(c.info.etag, "<>&")) err = failed(u, e, VV_E_PROTO, "an ETag that is none");
    if (!err) {
        memcpy(u->etags[i], c.info.etag, VV_OBJ_ETAG_MAX);
        memcpy(u->md5s + 16 * i, c.md5, 16);
    }
    s3_call_release(&c);
    return err;
}

static void compute_etag(struct upload *u)
{
    uint8_t md5[EVP_MAX_MD_SIZE];
    char hex[33];
    if (EVP_Digest(u->md5s, 16 * (size_t)u->parts, md5, NULL, EVP_md5(), NULL) != 1) return;
    vv_sigv4_hex(md5, 16, hex);
    snprintf(u->expected, sizeof u->expected, "\"%s-%u\"", hex, u->parts);
}

static char *complete_body(const struct upload *u, size_t *n)
{
    size_t cap = 128 + (size_t)u->parts * (VV_OBJ_ETAG_MAX + 80), at = 0;
    char *body = malloc(cap);
    if (!body) return NULL;
    at += (size_t)snprintf(
        body, cap, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (unsigned i = 0; i < u->parts; i++)
        at += (size_t)snprintf(body + at, cap - at,
                               "<Part><PartNumber>%u</PartNumber><ETag>%s</ETag></Part>", i + 1,
                               u->etags[i]);
    at += (size_t)snprintf(body + at, cap - at, "</CompleteMultipartUpload>");
    *n = at;
    return body;
}

static int body_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    memcpy(dst, (const char *)ctx + at, n);
    return VV_OK;
}

struct completed {
    struct upload *u;
    bool result;
    char code[64];
};

static int on_complete_element(void *ctx, const char *path, const char *text)
{
    struct completed *done = ctx;
    if (!strcmp(path, "CompleteMultipartUploadResult")) done->result = true;
    if (!strcmp(path, "CompleteMultipartUploadResult/ETag") && strlen(text) < VV_OBJ_ETAG_MAX)
        snprintf(done->u->etag, VV_OBJ_ETAG_MAX, "%s", text);
    if (!strcmp(path, "Error/Code")) snprintf(done->code, sizeof done->code, "%s", text);
    return VV_OK;
}

/* One CompleteMultipartUpload; *unknown: it may have been done although it failed. */
static int complete_once(struct upload *u, const struct vv_objsrc *body,
                         const struct vv_objput *how, bool *unknown, struct vv_error *e)
{
    struct s3_call c;
    struct completed done = {.u = u};
    s3_call_init(&c, u->s, VV_OBJ_PUT, "POST", u->key, left_ms(u));
    s3_call_query(&c, "uploadId", u->id);
    s3_conditions(&c, how);
    c.src = body;
    c.src_n = body->size;
    c.body_max = 64 * 1024;
    int err = s3_call_hash(&c, NULL, NULL, e);
    if (!err) err = s3_call_run(&c, e);
    *unknown = c.unknown_outcome || err == VV_E_TIMEOUT;
    if (!err && vv_xml_parse(c.buf ? c.buf->data : NULL, c.got, on_complete_element, &done))
        err = failed(u, e, VV_E_PROTO, "the answer to complete makes no sense");
    if (!err && !done.result) { /* 200, and an error inside */
        char what[128];
        snprintf(what, sizeof what, "complete failed after all: %.63s", done.code);
        err = failed(u, e, !strcmp(done.code, "PreconditionFailed") ? VV_E_CONFLICT : VV_E_AGAIN,
                     what);
    }
    s3_call_release(&c);
    return err;
}

/* Is the object that is there ours? */
static bool arrived(struct upload *u)
{
    struct vv_objinfo info;
    struct s3_call c;
    s3_call_init(&c, u->s, VV_OBJ_HEAD, "HEAD", u->key, left_ms(u));
    int err = s3_call_run(&c, NULL);
    info = c.info;
    s3_call_release(&c);
    if (err || info.size != u->src->size || strcmp(info.etag, u->expected)) return false;
    memcpy(u->etag, info.etag, sizeof u->etag);
    return true;
}

static int complete(struct upload *u, const struct vv_objput *how, struct vv_error *e)
{
    struct vv_objsrc body = {.read = body_read};
    size_t n;
    bool unknown = false;
    body.ctx = complete_body(u, &n);
    if (!body.ctx) return failed(u, e, VV_E_NOMEM, "out of memory");
    body.size = n;
    compute_etag(u);
    int err = VV_E_AGAIN;
    for (int i = 0; i < 3 && err == VV_E_AGAIN && (i == 0 || left_ms(u) > 1); i++)
        err = complete_once(u, &body, how, &unknown, e);
    free(body.ctx);
    if (err && unknown && arrived(u)) return VV_OK;
    if (err == VV_E_NOENT) err = failed(u, e, unknown ? VV_E_AGAIN : VV_E_IO, "the upload is gone");
    size_t etag_n = strlen(u->etag);
    /* Where single puts have other ETags (SSE-KMS), those of parts look like MD5s and are none. */
    bool md5_form = etag_n > 34 && u->etag[33] == '-' && (u->s->base.caps & VV_OBJ_CAP_ETAG_IS_MD5);
    if (!err && md5_form && strcmp(u->etag, u->expected))
        err = failed(u, e, VV_E_CORRUPT, "the store put other bytes together than were sent");
    return err;
}

static int abort_upload(struct obj_s3 *s, const char *key, const char *id, int64_t deadline_ms,
                        struct vv_error *e)
{
    struct s3_call c;
    s3_call_init(&c, s, VV_OBJ_ABORT_STALE, "DELETE", key, deadline_ms);
    s3_call_query(&c, "uploadId", id);
    int err = s3_call_run(&c, e);
    if (err == VV_E_NOENT) err = VV_OK; /* finished or aborted meanwhile */
    s3_call_release(&c);
    return err;
}

uint64_t s3_part_size(const struct obj_s3 *s, uint64_t n)
{
    return VV_MAX(s->part_size, (n + VV_OBJ_PARTS_MAX - 1) / VV_OBJ_PARTS_MAX);
}

int s3_multipart_put(struct obj_s3 *s, const char *key, const struct vv_objsrc *src,
                     const struct vv_objput *how, int64_t deadline_ms, struct vv_objinfo *info,
                     struct vv_error *e)
{
    struct upload u = {.s = s, .key = key, .src = src};
    u.deadline_us = vv_mono_us(s->base.env) + deadline_ms * 1000;
    u.part_size = s3_part_size(s, src->size);
    uint64_t parts = (src->size + u.part_size - 1) / u.part_size;
    u.parts = (unsigned)parts;
    if (src->size > (5ull << 40)) return failed(&u, e, VV_E_LIMIT, "an object has at most 5 TiB");
    const struct vv_objsums *sums = vv_objsums_for(how->sums, (struct vv_objsumming){u.part_size, s3_sums(s)}, parts) ? how->sums : NULL;
    u.etags = calloc(u.parts, sizeof *u.etags);
    u.md5s = calloc(u.parts, 16);
    int err = u.etags && u.md5s ? create(&u, how, e) : failed(&u, e, VV_E_NOMEM, "out of memory");
    for (unsigned i = 0; i < u.parts && !err; i++)
        err = put_part(&u, i, sums, e);
    if (!err) err = complete(&u, how, e);
    if (!err) {
        memcpy(info->etag, u.etag, sizeof info->etag);
        info->size = src->size;
    } else if (u.id[0] && abort_upload(s, key, u.id, ABORT_MS, NULL)) {
        VLOG_WARN("%s: the parts of a failed upload of %s could not be removed: left to the stale "
                  "upload sweep",
                  s->base.url, key);
    }
    free(u.etags);
    free(u.md5s);
    return err;
}

/* ---- uploads that nobody finished ---- */

struct stale {
    struct obj_s3 *s;
    int64_t before_wall_ms;
    struct vv_objlist found; /* keys; their upload ids are in ids */
    char ids[VV_OBJ_LIST_MAX][UPLOAD_ID_MAX];
    bool understood, encoded, more;
    char key[3 * VV_OBJ_KEY_MAX + 1], id[UPLOAD_ID_MAX];
    int64_t initiated_ms;
    char next_key[3 * VV_OBJ_KEY_MAX + 1], next_id[UPLOAD_ID_MAX];
};

static int copy(char *dst, size_t cap, const char *text)
{
    if (strlen(text) >= cap) return VV_E_PROTO;
    memcpy(dst, text, strlen(text) + 1);
    return VV_OK;
}

static int on_uploads_element(void *ctx, const char *path, const char *text)
{
    static const char root[] = "ListMultipartUploadsResult";
    struct stale *t = ctx;
    if (strncmp(path, root, sizeof root - 1)) return VV_OK;
    const char *name = path + sizeof root - 1;
    if (!*name) t->understood = true;
    if (!strcmp(name, "/IsTruncated")) t->more = !strcmp(text, "true");
    if (!strcmp(name, "/EncodingType")) t->encoded = !strcmp(text, "url");
    if (!strcmp(name, "/NextKeyMarker")) return copy(t->next_key, sizeof t->next_key, text);
    if (!strcmp(name, "/NextUploadIdMarker")) return copy(t->next_id, sizeof t->next_id, text);
    if (!strcmp(name, "/Upload/Key")) return copy(t->key, sizeof t->key, text);
    if (!strcmp(name, "/Upload/UploadId")) return copy(t->id, sizeof t->id, text);
    if (!strcmp(name, "/Upload/Initiated")) t->initiated_ms = vv_xml_time_ms(text);
    if (strcmp(name, "/Upload") || !t->initiated_ms || t->initiated_ms >= t->before_wall_ms)
        return VV_OK;
    if (t->found.count == VV_OBJ_LIST_MAX) return VV_E_PROTO;
    memcpy(t->ids[t->found.count], t->id, sizeof t->id);
    t->initiated_ms = 0;
    return vv_objlist_add(&t->found, t->key, strlen(t->key), 0, 0, "");
}

/* One page of ListMultipartUploads. */
static int stale_page(struct stale *t, const char *prefix, int64_t deadline_ms, struct vv_error *e)
{
    struct s3_call c;
    char key_marker[sizeof t->next_key], id_marker[sizeof t->next_id];
    memcpy(key_marker, t->next_key, sizeof key_marker);
    memcpy(id_marker, t->next_id, sizeof id_marker);
    t->understood = t->more = false;
    s3_call_init(&c, t->s, VV_OBJ_ABORT_STALE, "GET", NULL, deadline_ms);
    s3_call_query(&c, "uploads", "");
    s3_call_query(&c, "encoding-type", "url");
    s3_call_query(&c, "prefix", prefix);
    if (key_marker[0]) {
        s3_call_query(&c, "key-marker", key_marker);
        s3_call_query(&c, "upload-id-marker", id_marker);
    }
    c.body_max = S3_XML_MAX;
    int err = s3_call_run(&c, e);
    bool ok = !err && !vv_xml_parse(c.buf ? c.buf->data : NULL, c.got, on_uploads_element, t) &&
              t->understood;
    if (!err && !ok)
        err = vv_error_set(e, VV_E_PROTO, "%s: the list of uploads makes no sense", t->s->base.url);
    s3_call_release(&c);
    if (t->encoded) s3_url_decode(t->next_key);
    if (!err && t->more && !strcmp(t->next_key, key_marker) && !strcmp(t->next_id, id_marker))
        t->more = false;
    return err;
}

static int abort_found(struct stale *t, const char *full_prefix, int64_t until_us, size_t *aborted,
                       struct vv_error *e)
{
    int err = VV_OK;
    for (size_t i = 0; i < t->found.count && !err; i++) {
        char *key = t->found.v[i].key;
        int64_t left = VV_MAX((until_us - vv_mono_us(t->s->base.env)) / 1000, (int64_t)1);
        if (t->encoded) s3_url_decode(key);
        if (strncmp(key, full_prefix, strlen(full_prefix))) continue; /* not ours to abort */
        err = abort_upload(t->s, key + strlen(t->s->prefix), t->ids[i], left, e);
        if (!err) ++*aborted;
    }
    vv_objlist_release(&t->found);
    vv_arena_init(&t->found.arena, 16u << 20);
    return err;
}

int s3_abort_stale(struct vv_objstore *base, const char *prefix, int64_t before_wall_ms,
                   int64_t deadline_ms, size_t *aborted, struct vv_error *e)
{
    struct obj_s3 *s = (struct obj_s3 *)base;
    char full_prefix[2 * VV_OBJ_KEY_MAX + 2];
    int64_t until_us = vv_mono_us(base->env) + deadline_ms * 1000;
    struct stale *t = calloc(1, sizeof *t);
    if (!t) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    t->s = s;
    t->before_wall_ms = before_wall_ms;
    vv_arena_init(&t->found.arena, 16u << 20);
    snprintf(full_prefix, sizeof full_prefix, "%s%s", s->prefix, prefix);
    int err = VV_OK;
    for (int page = 0; page < STALE_PAGES_MAX && !err && (page == 0 || t->more); page++) {
        int64_t left = VV_MAX((until_us - vv_mono_us(base->env)) / 1000, (int64_t)1);
        err = stale_page(t, full_prefix, left, e);
        if (!err) err = abort_found(t, full_prefix, until_us, aborted, e);
    }
    vv_objlist_release(&t->found);
    free(t);
    return err;
}
