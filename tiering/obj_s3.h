/* obj_s3.h — what the files of the S3 backend share: obj_s3.c (the calls), obj_s3_http.c (one
 * request with its retries), obj_s3_loop.c (the thread of the async GETs), obj_s3_multipart.c
 * (uploads in parts, stale ones). Source: Amazon S3 API reference, version 2006-03-01. */
#ifndef VARVE_OBJ_S3_H
#define VARVE_OBJ_S3_H
#include "cred.h"
#include "obj_backends.h"
#include "sigv4.h"

#include <curl/curl.h>
#include <pthread.h>

enum {
    S3_IDLE_MAX = 16,         /* sync curl handles kept, each with its connection */
    S3_ERROR_BODY_MAX = 8192, /* of an answer that is no success */
    S3_XML_MAX = 4 << 20, /* of a listing: 1000 keys of 1 KiB, percent-encoded, and their tags */
    S3_PATH_MAX = 3 * (VV_OBJ_KEY_MAX + 256) + 64,
    S3_QUERY_MAX = 3 * (2 * VV_OBJ_KEY_MAX + 512) + 256,
    S3_HEADERS_MAX = 8, /* an operation's own; the common ones come on top */
    S3_QUERIES_MAX = 8,
};

struct s3_loop;

struct obj_s3 {
    struct vv_objstore base;
    struct vv_creds *creds;
    char root[400];                  /* scheme://authority, no '/' at the end */
    char host[300];                  /* the Host header */
    char path_root[200];             /* "/bucket" encoded, or "" for virtual-host style */
    char prefix[VV_OBJ_KEY_MAX + 2]; /* "" or ends with '/' */
    char region[64], ca_file[512];
    char storage_class[64], sse[16], kms_key_id[400]; /* "" = not asked for; sse as the header has it */
    bool https, loopback;
    uint64_t multipart_above, part_size;
    unsigned connections_max;
    atomic_int_fast64_t
        clock_offset_ms;        /* the store's clock less ours, found after RequestTimeTooSkewed */
    atomic_bool no_bulk_delete; /* the store refused one */
    pthread_mutex_t lock;       /* guards idle and loop; a leaf */
    CURL *idle[S3_IDLE_MAX];
    unsigned idle_count;
    struct s3_loop *loop; /* made by the first async GET */
};

/* One logical request: filled by the caller, tried until it has an answer. Init with s3_call_init,
 * end with s3_call_release. Used by one thread at a time. */
struct s3_call {
    struct obj_s3 *s;
    enum vv_objop op;
    const char *method, *key; /* key NULL = the bucket */
    struct vv_sigv4_kv query[S3_QUERIES_MAX], headers[S3_HEADERS_MAX];
    size_t query_count, header_count;
    int64_t deadline_us; /* monotonic */
    /* body sent: src[src_at, src_at + src_n) */
    const struct vv_objsrc *src;
    uint64_t src_at, src_n, sent;
    uint8_t md5[16];
    char md5_base64[32], sha256[65];
    char md5_etag[36]; /* "\"hex\"" */
    int src_err;
    /* body received */
    struct vv_buf *buf; /* grows up to body_max; status 2xx only */
    size_t got, body_max;
    bool over;   /* more than body_max came, or was announced */
    bool range;  /* range_at and range_n were asked for: 206 expected */
    bool suffix; /* the last range_n bytes were asked for */
    uint64_t range_at;
    size_t range_n;
    struct vv_objget *sunk; /* the bytes go to its sink, the first sunk_n are there: range_at and range_n are the rest */
    size_t sunk_n;
    /* answer, of the last attempt */
    long status;
    struct vv_objinfo info; /* size: Content-Length, or the whole of Content-Range */
    int64_t content_length; /* -1 = not told */
    uint64_t content_at;    /* of Content-Range */
    int64_t date_ms, signed_ms;
    unsigned retry_after_s;
    char bucket_region[64];
    char error_body[S3_ERROR_BODY_MAX];
    size_t error_n;
    char code[64], message[200];
    /* attempts */
    unsigned attempts;
    bool skew_tried, creds_tried, unknown_outcome; /* an attempt may have been carried out unseen */
    struct curl_slist *list;
    CURL *curl; /* whose attempt runs */
};

/* obj_s3_http.c */
void s3_global_init(void);
void s3_call_init(struct s3_call *c, struct obj_s3 *s, enum vv_objop op, const char *method,
                  const char *key, int64_t deadline_ms);
void s3_call_release(struct s3_call *c);
void s3_call_query(struct s3_call *c, const char *name, const char *value);
void s3_call_header(struct s3_call *c, const char *name, const char *value);
/* Checksums of the body, by reading it, or *sum, one of `known` (else both NULL); must come before the first attempt of a call
 * with a body. */
int s3_call_hash(struct s3_call *c, const struct vv_objsums *known, const struct vv_objsum *sum, struct vv_error *e);
/* What a body must carry, enum vv_objsum_kind. */
static inline unsigned s3_sums(const struct obj_s3 *s)
{
    return VV_SUM_MD5 | (s->https ? 0 : VV_SUM_SHA256);
}
/* Sets up an attempt on curl: signed now. */
int s3_attempt_begin(struct s3_call *c, CURL *curl, struct vv_error *e);
/* The verdict on an attempt. *delay_ms >= 0: try again after that long; else the returned outcome
 * stands. */
int s3_attempt_end(struct s3_call *c, CURLcode rc, int64_t *delay_ms, struct vv_error *e);
/* Whole sync call: attempts until it has an outcome. */
int s3_call_run(struct s3_call *c, struct vv_error *e);
CURL *s3_curl_new(void);

/* obj_s3_loop.c */
int s3_loop_new(struct obj_s3 *s, struct s3_loop **out);
void s3_loop_free(struct s3_loop *loop); /* ends all GETs with E_SHUTDOWN */
void s3_loop_submit(struct s3_loop *loop, struct vv_objget *get);
void s3_loop_cancel(struct s3_loop *loop, struct vv_objget *get);

/* obj_s3_multipart.c */
uint64_t s3_part_size(const struct obj_s3 *s, uint64_t n); /* of a put of n bytes in parts */
int s3_multipart_put(struct obj_s3 *s, const char *key, const struct vv_objsrc *src,
                     const struct vv_objput *how, int64_t deadline_ms, struct vv_objinfo *info,
                     struct vv_error *e);
int s3_abort_stale(struct vv_objstore *base, const char *prefix, int64_t before_wall_ms,
                   int64_t deadline_ms, size_t *aborted, struct vv_error *e);

/* obj_s3.c */
void s3_conditions(struct s3_call *c, const struct vv_objput *how);
/* Storage class and server-side encryption, of a put or of the beginning of one in parts. */
void s3_protection(struct s3_call *c, const struct vv_objput *how);
/* Takes s3://BUCKET/PREFIX apart; prefix is "" or ends with '/'. */
int s3_parse_url(const char *url, char *bucket, size_t bucket_cap, char *prefix, size_t prefix_cap,
                 struct vv_error *e);
/* Endpoint and addressing style, from configuration and environment. */
struct s3_address {
    bool https, path_style, loopback;
    char authority[200]; /* host[:port], without a default port */
};
int s3_resolve_address(const struct vv_objstore_config *config, const char *region,
                       const char *bucket, struct s3_address *a, struct vv_error *e);
/* Undoes encoding-type=url in place. */
void s3_url_decode(char *text);
#endif
