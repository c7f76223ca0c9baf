/* sigv4.c — AWS Signature Version 4 over OpenSSL's HMAC-SHA256. Contract: sigv4.h. Pure.
 *
 * Why our own: libcurl 7.88's CURLOPT_AWS_SIGV4 signs an encoded query string wrongly (a listing
 * with prefix=a%2F is refused with SignatureDoesNotMatch), and does not let UNSIGNED-PAYLOAD be
 * chosen.
 *
 * The canonical request is hashed piece by piece instead of being built: there is no length to
 * guess. */
#include "sigv4.h"
#include "varve/bytes.h"
#include "varve/error.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

size_t vv_sigv4_encode(char *dst, size_t cap, const char *src, bool keep_slash)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    for (const unsigned char *p = (const unsigned char *)src; *p; p++) {
        bool plain = (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') ||
                     (*p >= '0' && *p <= '9') || *p == '-' || *p == '.' || *p == '_' || *p == '~' ||
                     (*p == '/' && keep_slash);
        if (n + (plain ? 1 : 3) >= cap) return SIZE_MAX;
        if (plain) {
            dst[n++] = (char)*p;
        } else {
            dst[n++] = '%';
            dst[n++] = hex[*p >> 4];
            dst[n++] = hex[*p & 15];
        }
    }
    if (n >= cap) return SIZE_MAX;
    dst[n] = 0;
    return n;
}

/* By name, then value, as encoded: that is the order AWS wants, and "-" and "%" do not sort alike.
 */
static int encoded_order(const char *a, const char *b)
{
    char ea[1024], eb[1024];
    if (vv_sigv4_encode(ea, sizeof ea, a, false) == SIZE_MAX ||
        vv_sigv4_encode(eb, sizeof eb, b, false) == SIZE_MAX)
        return strcmp(a, b);
    return strcmp(ea, eb);
}

static int by_name(const void *a, const void *b)
{
    const struct vv_sigv4_kv *x = a, *y = b;
    int order = encoded_order(x->name, y->name);
    return order ? order : encoded_order(x->value, y->value);
}

size_t vv_sigv4_query(char *dst, size_t cap, const struct vv_sigv4_kv *params, size_t count)
{
    struct vv_sigv4_kv sorted[VV_SIGV4_PARAMS_MAX];
    size_t n = 0;
    if (count > VV_SIGV4_PARAMS_MAX || cap == 0) return SIZE_MAX;
    dst[0] = 0;
    if (count == 0) return 0;
    memcpy(sorted, params, count * sizeof *params);
    qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i < count; i++) {
        if (i) {
            if (n + 1 >= cap) return SIZE_MAX;
            dst[n++] = '&';
        }
        size_t name_n = vv_sigv4_encode(dst + n, cap - n, sorted[i].name, false);
        if (name_n == SIZE_MAX || n + name_n + 1 >= cap) return SIZE_MAX;
        n += name_n;
        dst[n++] = '=';
        size_t value_n = vv_sigv4_encode(dst + n, cap - n, sorted[i].value, false);
        if (value_n == SIZE_MAX) return SIZE_MAX;
        n += value_n;
    }
    return n;
}

void vv_sigv4_date(int64_t unix_ms, char out[VV_SIGV4_DATE_N])
{
    time_t t = (time_t)(unix_ms / 1000);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, VV_SIGV4_DATE_N, "%Y%m%dT%H%M%SZ", &tm);
}

void vv_sigv4_hex(const uint8_t *p, size_t n, char *out)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = hex[p[i] >> 4];
        out[2 * i + 1] = hex[p[i] & 15];
    }
    out[2 * n] = 0;
}

static bool hmac(const void *key, size_t key_n, const char *text, uint8_t out[32])
{
    unsigned n = 32;
    return HMAC(EVP_sha256(), key, (int)key_n, (const unsigned char *)text, strlen(text), out,
                &n) != NULL;
}

static void feed(EVP_MD_CTX *md, const char *text)
{
    EVP_DigestUpdate(md, text, strlen(text));
}

/* Header values are trimmed and runs of blanks become one. */
static void feed_value(EVP_MD_CTX *md, const char *value)
{
    bool any = false, blank = false;
    for (const char *p = value; *p; p++) {
        if (*p == ' ' || *p == '\t') {
            blank = any;
            continue;
        }
        if (blank) feed(md, " ");
        EVP_DigestUpdate(md, p, 1);
        any = true;
        blank = false;
    }
}

static void feed_names(EVP_MD_CTX *md, const struct vv_sigv4_kv *headers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i) feed(md, ";");
        feed(md, headers[i].name);
    }
}

static bool canonical_hash(const struct vv_sigv4_request *r, const struct vv_sigv4_kv *sorted,
                           char hex[65])
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;
    if (ok) {
        const char *const head[] = {r->method, "\n", r->path, "\n", r->query, "\n"};
        for (size_t i = 0; i < VV_COUNT(head); i++)
            feed(md, head[i]);
        for (size_t i = 0; i < r->header_count; i++) {
            feed(md, sorted[i].name);
            feed(md, ":");
            feed_value(md, sorted[i].value);
            feed(md, "\n");
        }
        feed(md, "\n");
        feed_names(md, sorted, r->header_count);
        feed(md, "\n");
        feed(md, r->payload_hash);
        ok = EVP_DigestFinal_ex(md, hash, NULL) == 1;
        if (ok) vv_sigv4_hex(hash, 32, hex);
    }
    EVP_MD_CTX_free(md);
    return ok;
}

static bool signature(const struct vv_sigv4_request *r, const char *day, const char *to_sign,
                      char hex[65])
{
    char secret[256];
    uint8_t key[32];
    int n = snprintf(secret, sizeof secret, "AWS4%s", r->secret_access_key);
    bool ok = n > 0 && (size_t)n < sizeof secret && hmac(secret, (size_t)n, day, key) &&
              hmac(key, 32, r->region, key) && hmac(key, 32, r->service, key) &&
              hmac(key, 32, "aws4_request", key) && hmac(key, 32, to_sign, key);
    if (ok) vv_sigv4_hex(key, 32, hex);
    OPENSSL_cleanse(secret, sizeof secret);
    OPENSSL_cleanse(key, sizeof key);
    return ok;
}

static int header_order(const void *a, const void *b)
{
    const struct vv_sigv4_kv *x = a, *y = b;
    return strcmp(x->name, y->name);
}

int vv_sigv4_authorization(const struct vv_sigv4_request *r, char out[VV_SIGV4_AUTH_MAX])
{
    struct vv_sigv4_kv sorted[VV_SIGV4_PARAMS_MAX];
    char day[9], scope[128], hash[65], to_sign[320], sign[65], names[512];
    size_t names_n = 0;
    if (r->header_count > VV_SIGV4_PARAMS_MAX) return VV_E_LIMIT;
    memcpy(sorted, r->headers, r->header_count * sizeof *sorted);
    qsort(sorted, r->header_count, sizeof *sorted, header_order);
    for (size_t i = 0; i < r->header_count; i++) {
        int n =
            snprintf(names + names_n, sizeof names - names_n, "%s%s", i ? ";" : "", sorted[i].name);
        if (n < 0 || (size_t)n >= sizeof names - names_n) return VV_E_LIMIT;
        names_n += (size_t)n;
    }
    snprintf(day, sizeof day, "%.8s", r->date);
    int n = snprintf(scope, sizeof scope, "%s/%s/%s/aws4_request", day, r->region, r->service);
    if (n < 0 || (size_t)n >= sizeof scope) return VV_E_LIMIT;
    if (!canonical_hash(r, sorted, hash)) return VV_E_IO;
    snprintf(to_sign, sizeof to_sign, "AWS4-HMAC-SHA256\n%s\n%s\n%s", r->date, scope, hash);
    if (!signature(r, day, to_sign, sign)) return VV_E_IO;
    n = snprintf(out, VV_SIGV4_AUTH_MAX,
                 "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s",
                 r->access_key_id, scope, names, sign);
    return n < 0 || n >= VV_SIGV4_AUTH_MAX ? VV_E_LIMIT : VV_OK;
}
