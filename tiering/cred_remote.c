/* cred_remote.c — see cred_remote.h. */
#include "cred_remote.h"

#include "obj_s3.h"
#include "sigv4.h"
#include "varve/bytes.h"
#include "xml.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MAX = 64 * 1024, TOKEN_MAX = 32 * 1024, METADATA_MS = 1000, STS_MS = 10000 };
#define METADATA_ENDPOINT "http://169.254.169.254"
#define METADATA_ROLES "/latest/meta-data/iam/security-credentials/"

const char *vv_cred_service_name(enum vv_cred_service s)
{
    static const char *const names[] = {"no service", "STS web identity", "instance metadata"};
    return names[s];
}

static void take_endpoint(char dst[300], const char *url)
{
    size_t n = strlen(url);
    while (n && url[n - 1] == '/') n--;
    snprintf(dst, 300, "%.*s", (int)VV_MIN(n, (size_t)299), url);
}

void vv_cred_remote_find(const struct vv_objstore_config *config, const char *region, struct vv_cred_remote *r)
{
    const char *role = vv_cred_env(config, "AWS_ROLE_ARN"), *token = vv_cred_env(config, "AWS_WEB_IDENTITY_TOKEN_FILE");
    const char *session = vv_cred_env(config, "AWS_ROLE_SESSION_NAME"), *sts = vv_cred_env(config, "AWS_ENDPOINT_URL_STS");
    const char *metadata = vv_cred_env(config, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
    const char *off = vv_cred_env(config, "AWS_EC2_METADATA_DISABLED"), *ca = vv_cred_env(config, "AWS_CA_BUNDLE");
    *r = (struct vv_cred_remote){0};
    if (config->ignore_environment) return;
    if (role && token) {
        r->service = VV_CRED_WEB_IDENTITY;
        snprintf(r->role_arn, sizeof r->role_arn, "%s", role);
        snprintf(r->token_file, sizeof r->token_file, "%s", token);
        snprintf(r->session, sizeof r->session, "%s", session ? session : "varve");
        snprintf(r->ca_file, sizeof r->ca_file, "%s", ca ? ca : "");
        if (sts) take_endpoint(r->endpoint, sts);
        else snprintf(r->endpoint, sizeof r->endpoint, "https://sts.%s.amazonaws.com", region);
    } else if (!off || strcasecmp(off, "true")) {
        r->service = VV_CRED_METADATA;
        take_endpoint(r->endpoint, metadata ? metadata : METADATA_ENDPOINT);
    }
}

/* ---- one exchange ---- */

struct answer {
    char *p; /* NUL behind it */
    size_t n;
    long status;
};

static void answer_release(struct answer *a)
{
    if (a->p) OPENSSL_cleanse(a->p, a->n);
    free(a->p);
    *a = (struct answer){0};
}

static size_t on_body(char *src, size_t size, size_t count, void *ctx)
{
    struct answer *a = ctx;
    size_t n = size * count;
    if (n > ANSWER_MAX - a->n) return 0;
    memcpy(a->p + a->n, src, n);
    a->n += n;
    a->p[a->n] = 0;
    return n;
}

/* header, form: NULL = none; a form is posted. E_ACCESS unless it is a 200. */
static int exchange(const struct vv_cred_remote *r, const char *method, const char *path, const char *header, const char *form,
                    struct answer *a, struct vv_error *e)
{
    char url[1024];
    struct curl_slist *headers = header ? curl_slist_append(NULL, header) : NULL;
    s3_global_init();
    CURL *curl = curl_easy_init();
    *a = (struct answer){.p = calloc(1, ANSWER_MAX + 1)};
    CURLcode rc = CURLE_OUT_OF_MEMORY;
    if (!curl || !a->p || (header && !headers)) goto out;
    snprintf(url, sizeof url, "%s%s", r->endpoint, path);
    long ms = r->service == VV_CRED_METADATA ? METADATA_MS : STS_MS;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, ms);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, ms);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "varve/" VARVE_VERSION);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, a);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    if (r->service == VV_CRED_METADATA || strstr(url, "://127.0.0.1")) curl_easy_setopt(curl, CURLOPT_PROXY, "");
    if (r->ca_file[0]) curl_easy_setopt(curl, CURLOPT_CAINFO, r->ca_file);
    if (form) curl_easy_setopt(curl, CURLOPT_POSTFIELDS, form);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    rc = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &a->status);
out:
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    if (rc == CURLE_OUT_OF_MEMORY) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (rc)
        return vv_error_set(e, VV_E_ACCESS, "%s at %s: %s", vv_cred_service_name(r->service), r->endpoint, curl_easy_strerror(rc));
    if (a->status != 200)
        return vv_error_set(e, VV_E_ACCESS, "%s at %s: HTTP status %ld", vv_cred_service_name(r->service), r->endpoint, a->status);
    return VV_OK;
}

static bool take(char *dst, size_t cap, const char *text)
{
    bool ok = text && *text && strlen(text) < cap && !strpbrk(text, "\r\n");
    snprintf(dst, cap, "%s", ok ? text : "");
    return ok;
}

static int nonsense(const struct vv_cred_remote *r, struct vv_error *e)
{
    return vv_error_set(e, VV_E_ACCESS, "%s at %s: the answer holds no credentials", vv_cred_service_name(r->service), r->endpoint);
}

/* ---- instance metadata: a session token, the role's name, its credentials ---- */

static int parse_metadata(const struct answer *a, struct vv_cred *out, int64_t *expires_ms)
{
    json_t *o = json_loadb(a->p, a->n, 0, NULL);
    const char *code = json_string_value(json_object_get(o, "Code")), *until = json_string_value(json_object_get(o, "Expiration"));
    bool ok = (!code || !strcmp(code, "Success")) &&
              take(out->access_key_id, sizeof out->access_key_id, json_string_value(json_object_get(o, "AccessKeyId"))) &&
              take(out->secret_access_key, sizeof out->secret_access_key, json_string_value(json_object_get(o, "SecretAccessKey"))) &&
              take(out->session_token, sizeof out->session_token, json_string_value(json_object_get(o, "Token")));
    *expires_ms = until ? vv_xml_time_ms(until) : 0;
    json_decref(o);
    return ok ? VV_OK : VV_E_ACCESS;
}

static int from_metadata(const struct vv_cred_remote *r, struct vv_cred *out, int64_t *expires_ms, struct vv_error *e)
{
    struct answer token, role = {0}, cred = {0};
    char header[1200], path[400];
    int err = exchange(r, "PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 21600", NULL, &token, e);
    if (!err && (!token.n || token.n > 1024 || strpbrk(token.p, "\r\n"))) err = nonsense(r, e);
    snprintf(header, sizeof header, "X-aws-ec2-metadata-token: %.1024s", err ? "" : token.p);
    if (!err) err = exchange(r, "GET", METADATA_ROLES, header, NULL, &role, e);
    if (!err) {
        role.p[strcspn(role.p, "\r\n")] = 0;
        bool fits = *role.p && strlen(role.p) < 200 && !strpbrk(role.p, "/ ?#%");
        snprintf(path, sizeof path, METADATA_ROLES "%.200s", role.p);
        err = fits ? exchange(r, "GET", path, header, NULL, &cred, e) : nonsense(r, e);
    }
    if (!err && parse_metadata(&cred, out, expires_ms)) err = nonsense(r, e);
    OPENSSL_cleanse(header, sizeof header);
    answer_release(&token);
    answer_release(&role);
    answer_release(&cred);
    return err;
}

/* ---- STS ---- */

struct assumed { struct vv_cred *out; int64_t expires_ms; unsigned got; };

static int on_assumed(void *ctx, const char *path, const char *text)
{
    static const char at[] = "AssumeRoleWithWebIdentityResponse/AssumeRoleWithWebIdentityResult/Credentials/";
    struct assumed *a = ctx;
    if (strncmp(path, at, sizeof at - 1)) return VV_OK;
    path += sizeof at - 1;
    if (!strcmp(path, "AccessKeyId")) a->got |= take(a->out->access_key_id, sizeof a->out->access_key_id, text) ? 1u : 0;
    if (!strcmp(path, "SecretAccessKey")) a->got |= take(a->out->secret_access_key, sizeof a->out->secret_access_key, text) ? 2u : 0;
    if (!strcmp(path, "SessionToken")) a->got |= take(a->out->session_token, sizeof a->out->session_token, text) ? 4u : 0;
    if (!strcmp(path, "Expiration")) a->expires_ms = vv_xml_time_ms(text);
    return VV_OK;
}

/* Adds NAME=VALUE, encoded. */
static int add_field(char *form, size_t cap, const char *name, const char *value)
{
    size_t n = strlen(form);
    int w = snprintf(form + n, cap - n, "%s%s=", n ? "&" : "", name);
    if (w < 0 || (size_t)w >= cap - n) return VV_E_LIMIT;
    n += (size_t)w;
    return vv_sigv4_encode(form + n, cap - n, value, false) == SIZE_MAX ? VV_E_LIMIT : VV_OK;
}

static int from_sts(const struct vv_cred_remote *r, struct vv_env *env, struct vv_cred *out, int64_t *expires_ms, struct vv_error *e)
{
    uint8_t *token;
    size_t n;
    struct answer a = {0};
    struct assumed got = {.out = out};
    int err = vv_fs_read_file(env, r->token_file, TOKEN_MAX, &token, &n); /* it is replaced from time to time */
    if (err)
        return vv_error_set(e, VV_E_ACCESS, "AWS_WEB_IDENTITY_TOKEN_FILE=%s cannot be read: %s", r->token_file, vv_err_name(err));
    size_t cap = 3 * n + 8192;
    char *form = calloc(1, cap), *text = strndup((char *)token, n);
    if (!form || !text) err = vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (!err) {
        text[strcspn(text, "\r\n")] = 0;
        bool bad = add_field(form, cap, "Action", "AssumeRoleWithWebIdentity") || add_field(form, cap, "Version", "2011-06-15") ||
                   add_field(form, cap, "RoleArn", r->role_arn) || add_field(form, cap, "RoleSessionName", r->session) ||
                   add_field(form, cap, "WebIdentityToken", text);
        err = bad ? vv_error_set(e, VV_E_CONFIG, "AWS_ROLE_ARN or the token is too long") : VV_OK;
    }
    if (!err) err = exchange(r, "POST", "/", NULL, form, &a, e);
    if (!err && (vv_xml_parse(a.p, a.n, on_assumed, &got) || got.got != 7)) err = nonsense(r, e);
    *expires_ms = got.expires_ms;
    if (form) OPENSSL_cleanse(form, cap);
    if (text) OPENSSL_cleanse(text, strlen(text));
    OPENSSL_cleanse(token, n);
    free(form);
    free(text);
    free(token);
    answer_release(&a);
    return err;
}

int vv_cred_remote_fetch(const struct vv_cred_remote *r, struct vv_env *env, struct vv_cred *out, int64_t *expires_ms,
                         struct vv_error *e)
{
    memset(out, 0, sizeof *out);
    *expires_ms = 0;
    int err = r->service == VV_CRED_WEB_IDENTITY ? from_sts(r, env, out, expires_ms, e) : from_metadata(r, out, expires_ms, e);
    if (err) vv_cred_wipe(out);
    return err;
}
