/* sigv4.h — AWS Signature Version 4, header form. Pure functions; any thread.
 * Source: "Signing AWS API requests" / "Authenticating Requests: Using the Authorization Header"
 * (Amazon S3 API reference). S3's dialect: the path is percent-encoded once and not normalised. */
#ifndef VARVE_SIGV4_H
#define VARVE_SIGV4_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VV_SIGV4_EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define VV_SIGV4_UNSIGNED     "UNSIGNED-PAYLOAD"

enum {
    VV_SIGV4_PARAMS_MAX = 16,
    VV_SIGV4_DATE_N = 17, /* 20130524T000000Z and NUL */
    VV_SIGV4_AUTH_MAX = 1024,
};

struct vv_sigv4_kv {
    const char *name;  /* headers: lower case */
    const char *value; /* raw, not encoded */
};

struct vv_sigv4_request {
    const char *method;
    const char *path;                  /* percent-encoded, begins with '/' */
    const char *query;                 /* canonical, see vv_sigv4_query; "" = none */
    const struct vv_sigv4_kv *headers; /* all that are to be signed, any order */
    size_t header_count;               /* at most VV_SIGV4_PARAMS_MAX */
    const char *payload_hash; /* lower-case hex SHA-256 of the body, or VV_SIGV4_UNSIGNED */
    const char *date;         /* the x-amz-date header */
    const char *region, *service, *access_key_id, *secret_access_key;
};

/* Percent-encodes all but A-Za-z0-9-._~ (and '/', if keep_slash). Returns the length written
 * without the NUL, or SIZE_MAX when dst is too small (3 n + 1 bytes always do). */
size_t vv_sigv4_encode(char *dst, size_t cap, const char *src, bool keep_slash);
/* The canonical query string, which is also what goes into the URL: encoded, sorted. SIZE_MAX as
 * above. */
size_t vv_sigv4_query(char *dst, size_t cap, const struct vv_sigv4_kv *params, size_t count);
void vv_sigv4_date(int64_t unix_ms, char out[VV_SIGV4_DATE_N]);
void vv_sigv4_hex(const uint8_t *p, size_t n, char *out); /* 2 n + 1 bytes */
/* The value of the Authorization header. Returns 0, VV_E_LIMIT or VV_E_IO (OpenSSL refused). */
int vv_sigv4_authorization(const struct vv_sigv4_request *r, char out[VV_SIGV4_AUTH_MAX]);
#endif
