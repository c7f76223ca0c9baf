/* cred.c — S3 credentials: configuration, environment, web identity, shared credentials file, instance metadata.
 * Contract: cred.h.
 *
 * The first source that has an access key id wins, and the rest of the credentials come from the
 * same source: a key of one and a secret of another never mix. Configuration and environment are
 * read once, at open; the file
 * ($AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials, profile AWS_PROFILE or "default") again when
 * its mtime changes and after a 403, because other programs rotate it.
 *
 * Credentials that a service gives out (cred_remote.h) expire. A thread of this file's own, started when they are first needed, fetches
 * them and fetches them again five minutes before their end (or at half of what is left), and after a 403. Who asks waits only as long as
 * there are none at all; while the service is away the old ones serve until they end.
 *
 * Not here: container credentials, SSO, credential_process. A side program can write the file.
 *
 * Threads: any; `lock` guards everything that changes, and is not held while a service is asked. */
#include "cred.h"
#include "cred_remote.h"
#include "varve/bytes.h"
#include "varve/vlog.h"
#include "varve/wait.h"

#include <ctype.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILE_LIMIT = 256 * 1024,
    EARLY_MS = 5 * 60 * 1000,
    AGAIN_FIRST_MS = 1000,
    AGAIN_MAX_MS = 60 * 1000,
    UNTOLD_MS = 15 * 60 * 1000, /* credentials that do not say when they end */
};

struct vv_creds {
    struct vv_env *env;
    pthread_mutex_t lock;
    struct vv_cred cred;
    bool fixed; /* from configuration or environment: the file does not matter */
    bool found;
    char file[1024], profile[128];
    int64_t file_mtime_ms;
    char region[64];
    /* what a service gives out */
    struct vv_cred_remote remote;
    pthread_t thread;
    pthread_cond_t change;
    bool running, stopping, hurry;
    unsigned failures;      /* since the last success */
    bool asked;             /* at least once, with whatever outcome */
    bool temporary;         /* cred came from the service */
    int64_t expires_ms;     /* wall clock */
    struct vv_error why;    /* of the last failure */
};

const char *vv_cred_env(const struct vv_objstore_config *config, const char *name)
{
    const char *value = config->ignore_environment ? NULL : getenv(name);
    return value && value[0] ? value : NULL;
}

void vv_cred_wipe(struct vv_cred *cred)
{
    OPENSSL_cleanse(cred, sizeof *cred);
}

/* ---- the file: [profile] sections of `name = value`, # and ; comments ---- */

static const char *trim(const char *p, const char *end, size_t *n)
{
    while (p < end && isspace((unsigned char)*p))
        p++;
    while (end > p && isspace((unsigned char)end[-1]))
        end--;
    *n = (size_t)(end - p);
    return p;
}

static bool is(const char *p, size_t n, const char *word)
{
    return n == strlen(word) && !memcmp(p, word, n);
}

static void take(char *dst, size_t cap, const char *p, size_t n)
{
    if (n >= cap) n = 0; /* longer than any real one */
    memcpy(dst, p, n);
    dst[n] = 0;
}

static void parse_line(const char *p, size_t n, struct vv_cred *out, char *region,
                       size_t region_cap)
{
    const char *equals = memchr(p, '=', n);
    if (!equals) return;
    size_t name_n, value_n;
    const char *name = trim(p, equals, &name_n), *value = trim(equals + 1, p + n, &value_n);
    if (is(name, name_n, "aws_access_key_id"))
        take(out->access_key_id, sizeof out->access_key_id, value, value_n);
    else if (is(name, name_n, "aws_secret_access_key"))
        take(out->secret_access_key, sizeof out->secret_access_key, value, value_n);
    else if (is(name, name_n, "aws_session_token"))
        take(out->session_token, sizeof out->session_token, value, value_n);
    else if (is(name, name_n, "region"))
        take(region, region_cap, value, value_n);
}

bool vv_cred_parse(const char *text, const char *profile, struct vv_cred *out, char *region,
                   size_t region_cap)
{
    bool inside = false;
    memset(out, 0, sizeof *out);
    for (const char *line = text; *line;) {
        const char *end = line + strcspn(line, "\n");
        size_t n;
        const char *p = trim(line, end, &n);
        if (n && p[0] == '[') {
            const char *close = memchr(p, ']', n);
            size_t name_n;
            const char *name = trim(p + 1, close ? close : p + n, &name_n);
            if (name_n > 8 && !memcmp(name, "profile ", 8))
                name = trim(name + 8, name + name_n, &name_n);
            inside = is(name, name_n, profile);
        } else if (inside && n && p[0] != '#' && p[0] != ';') {
            parse_line(p, n, out, region, region_cap);
        }
        line = *end ? end + 1 : end;
    }
    return out->access_key_id[0] && out->secret_access_key[0];
}

/* With lock held. Keeps the old credentials when the file cannot be read just now. */
static bool load_file(struct vv_creds *c, bool always)
{
    struct vv_stat st;
    uint8_t *text;
    size_t n;
    struct vv_cred fresh;
    if (c->fixed || !c->file[0] || vv_fs_stat(c->env, c->file, &st)) return false;
    if (!always && c->found && st.mtime_ms == c->file_mtime_ms) return false;
    if (vv_fs_read_file(c->env, c->file, FILE_LIMIT, &text, &n)) return false;
    char region[sizeof c->region] = "";
    bool found = vv_cred_parse((const char *)text, c->profile, &fresh, region, sizeof region);
    OPENSSL_cleanse(text, n);
    free(text);
    c->file_mtime_ms = st.mtime_ms;
    bool changed = found && memcmp(&fresh, &c->cred, sizeof fresh);
    if (found) {
        c->cred = fresh;
        c->found = true;
        if (!c->region[0]) memcpy(c->region, region, sizeof region);
    }
    vv_cred_wipe(&fresh);
    return changed;
}

/* ---- what a service gives out: the thread ---- */

/* lock held, given up while the service is asked. */
static void fetch(struct vv_creds *c)
{
    struct vv_cred fresh;
    struct vv_error e = {0};
    int64_t expires_ms;
    c->hurry = false;
    pthread_mutex_unlock(&c->lock);
    int err = vv_cred_remote_fetch(&c->remote, c->env, &fresh, &expires_ms, &e);
    int64_t now = vv_wall_ms(c->env);
    pthread_mutex_lock(&c->lock);
    c->asked = true;
    if (err) {
        if (!c->failures++ || c->found) VLOG_WARN("S3 credentials: %s", e.text);
        c->why = e;
    } else {
        if (!c->found || c->failures) VLOG_INFO("S3 credentials come from %s at %s", vv_cred_service_name(c->remote.service), c->remote.endpoint);
        c->cred = fresh;
        c->expires_ms = expires_ms ? expires_ms : now + UNTOLD_MS;
        c->found = c->temporary = true;
        c->failures = 0;
    }
    vv_cred_wipe(&fresh);
    pthread_cond_broadcast(&c->change);
}

static int64_t pause_ms(const struct vv_creds *c)
{
    if (c->failures) return VV_MIN((int64_t)AGAIN_FIRST_MS << VV_MIN(c->failures, 10u), (int64_t)AGAIN_MAX_MS);
    int64_t left = c->expires_ms - vv_wall_ms(c->env);
    return VV_MAX(VV_MAX(left - EARLY_MS, left / 2), (int64_t)AGAIN_FIRST_MS);
}

static void *fetcher(void *arg)
{
    struct vv_creds *c = arg;
    pthread_mutex_lock(&c->lock);
    while (!c->stopping) {
        fetch(c);
        struct timespec until = vv_deadline_us(VV_MIN(pause_ms(c), (int64_t)3600 * 1000) * 1000);
        while (!c->stopping && !c->hurry && !pthread_cond_timedwait(&c->change, &c->lock, &until)) {}
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* lock held. True: there are some that are still good. */
static bool from_service(struct vv_creds *c)
{
    if (c->remote.service == VV_CRED_NO_SERVICE) return false;
    if (!c->running) c->running = !pthread_create(&c->thread, NULL, fetcher, c);
    while (c->running && !c->asked && !c->stopping) pthread_cond_wait(&c->change, &c->lock);
    if (!c->temporary) return false;
    if (vv_wall_ms(c->env) < c->expires_ms) return true;
    vv_error_set(&c->why, VV_E_ACCESS, "they have expired and %s gives no new ones", vv_cred_service_name(c->remote.service));
    return false;
}

int vv_creds_get(struct vv_creds *c, struct vv_cred *out, struct vv_error *e)
{
    char why[160] = "";
    pthread_mutex_lock(&c->lock);
    if (c->remote.service != VV_CRED_WEB_IDENTITY && !c->temporary) load_file(c, false);
    bool found = c->found && !c->temporary ? true : from_service(c);
    if (found) *out = c->cred;
    else if (c->why.text[0]) snprintf(why, sizeof why, " (%.150s)", c->why.text);
    pthread_mutex_unlock(&c->lock);
    if (found) return VV_OK;
    return vv_error_set(
        e, VV_E_ACCESS,
        "no S3 credentials: set tier.s3.access.key.id and tier.s3.secret.access.key, or "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or profile [%s] in %s%s",
        c->profile, c->file[0] ? c->file : "~/.aws/credentials", why);
}

bool vv_creds_reload(struct vv_creds *c)
{
    pthread_mutex_lock(&c->lock);
    bool changed = !c->temporary && load_file(c, true);
    if (c->temporary) { /* the next request has the new ones */
        c->hurry = true;
        pthread_cond_broadcast(&c->change);
    }
    pthread_mutex_unlock(&c->lock);
    if (changed) VLOG_INFO("S3 credentials read again from %s [%s]", c->file, c->profile);
    return changed;
}

void vv_creds_region(struct vv_creds *c, char *out, size_t cap)
{
    pthread_mutex_lock(&c->lock);
    snprintf(out, cap, "%s", c->region[0] ? c->region : "us-east-1");
    pthread_mutex_unlock(&c->lock);
}

static int set_fixed(struct vv_creds *c, const char *id, const char *secret, const char *token,
                     const char *where, struct vv_error *e)
{
    if (!secret || !secret[0])
        return vv_error_set(e, VV_E_CONFIG, "%s: an access key id without a secret access key",
                            where);
    if (strlen(id) >= VV_CRED_KEY_MAX || strlen(secret) >= VV_CRED_KEY_MAX ||
        (token && strlen(token) >= VV_CRED_TOKEN_MAX))
        return vv_error_set(e, VV_E_CONFIG, "%s: a credential is longer than any S3 store's",
                            where);
    if (strpbrk(id, "\r\n") || (token && strpbrk(token, "\r\n")))
        return vv_error_set(e, VV_E_CONFIG, "%s: a credential has a line break", where);
    snprintf(c->cred.access_key_id, VV_CRED_KEY_MAX, "%s", id);
    snprintf(c->cred.secret_access_key, VV_CRED_KEY_MAX, "%s", secret);
    snprintf(c->cred.session_token, VV_CRED_TOKEN_MAX, "%s", token ? token : "");
    c->fixed = c->found = true;
    return VV_OK;
}

int vv_creds_new(const struct vv_objstore_config *config, struct vv_env *env, struct vv_creds **out,
                 struct vv_error *e)
{
    struct vv_creds *c = calloc(1, sizeof *c);
    if (!c) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    c->env = env;
    pthread_mutex_init(&c->lock, NULL);
    vv_cond_init(&c->change);
    const char *profile = config->profile ? config->profile : vv_cred_env(config, "AWS_PROFILE");
    const char *file = vv_cred_env(config, "AWS_SHARED_CREDENTIALS_FILE"),
               *home = vv_cred_env(config, "HOME");
    const char *region = config->region;
    if (!region || !region[0]) region = vv_cred_env(config, "AWS_REGION");
    if (!region) region = vv_cred_env(config, "AWS_DEFAULT_REGION");
    snprintf(c->profile, sizeof c->profile, "%s", profile && profile[0] ? profile : "default");
    snprintf(c->region, sizeof c->region, "%s", region ? region : "");
    if (file)
        snprintf(c->file, sizeof c->file, "%s", file);
    else if (home)
        snprintf(c->file, sizeof c->file, "%s/.aws/credentials", home);
    int err = VV_OK;
    const char *env_id = vv_cred_env(config, "AWS_ACCESS_KEY_ID");
    if (config->access_key_id && config->access_key_id[0])
        err = set_fixed(c, config->access_key_id, config->secret_access_key, config->session_token,
                        "tier.s3.access.key.id", e);
    else if (env_id && !config->profile)
        err = set_fixed(c, env_id, vv_cred_env(config, "AWS_SECRET_ACCESS_KEY"),
                        vv_cred_env(config, "AWS_SESSION_TOKEN"), "AWS_ACCESS_KEY_ID", e);
    else {
        vv_cred_remote_find(config, c->region[0] ? c->region : "us-east-1", &c->remote);
        if (config->profile && c->remote.service == VV_CRED_WEB_IDENTITY) c->remote.service = VV_CRED_NO_SERVICE; /* the profile was asked for */
        if (c->remote.service != VV_CRED_WEB_IDENTITY) load_file(c, true);
    }
    if (err) {
        vv_creds_free(c);
        return err;
    }
    *out = c;
    return VV_OK;
}

void vv_creds_free(struct vv_creds *c)
{
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_cond_broadcast(&c->change);
    pthread_mutex_unlock(&c->lock);
    if (c->running) pthread_join(c->thread, NULL); /* a service is asked for seconds at most */
    pthread_cond_destroy(&c->change);
    pthread_mutex_destroy(&c->lock);
    vv_cred_wipe(&c->cred);
    free(c);
}
