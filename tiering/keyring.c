/* keyring.c — see keyring.h. */
#include "keyring.h"

#include "varve/bytes.h"
#include "varve/vlog.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { FILE_LIMIT = 1 << 20, BASE64_BYTES = 44 };

struct kek {
    char id[VV_KEY_ID_MAX];
    uint8_t key[VV_DATA_KEY_BYTES];
};
struct keks { struct kek *v; size_t n; };

struct vv_keyring {
    struct vv_env *env;
    char *path, *active;
    pthread_mutex_t mu; /* a leaf; held while the file is read */
    struct keks keys;
    int64_t mtime_ms;
    uint64_t size;
};

static void keks_release(struct keks *k)
{
    if (k->v) OPENSSL_cleanse(k->v, k->n * sizeof *k->v);
    free(k->v);
    *k = (struct keks){0};
}

bool vv_key_id_valid(const char *p, size_t n)
{
    if (!n || n >= VV_KEY_ID_MAX) return false;
    for (size_t i = 0; i < n; i++)
        if (!p[i] || !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", p[i])) return false;
    return true;
}

/* 44 characters of base64, the last one '=', are 32 bytes. */
static bool base64_key(const char *p, size_t n, uint8_t key[VV_DATA_KEY_BYTES])
{
    uint8_t out[BASE64_BYTES];
    bool ok = n == BASE64_BYTES && p[n - 1] == '=' && p[n - 2] != '=' &&
              EVP_DecodeBlock(out, (const unsigned char *)p, BASE64_BYTES) == VV_DATA_KEY_BYTES + 1;
    if (ok) memcpy(key, out, VV_DATA_KEY_BYTES);
    OPENSSL_cleanse(out, sizeof out);
    return ok;
}

static const struct kek *keks_find(const struct keks *k, const char *id)
{
    for (size_t i = 0; i < k->n; i++)
        if (!strcmp(k->v[i].id, id)) return &k->v[i];
    return NULL;
}

static int parse_line(const char *p, size_t n, struct keks *out)
{
    size_t id_n = 0, gap;
    while (id_n < n && p[id_n] != ' ' && p[id_n] != '\t') id_n++;
    for (gap = id_n; gap < n && (p[gap] == ' ' || p[gap] == '\t'); gap++)
        ;
    while (n > gap && (p[n - 1] == ' ' || p[n - 1] == '\t' || p[n - 1] == '\r')) n--;
    struct kek k = {0};
    if (!vv_key_id_valid(p, id_n) || !base64_key(p + gap, n - gap, k.key)) return VV_E_CONFIG;
    memcpy(k.id, p, id_n);
    if (keks_find(out, k.id)) return VV_E_EXIST;
    struct kek *v = malloc((out->n + 1) * sizeof *v); /* realloc would leave a copy behind */
    if (!v) return VV_E_NOMEM;
    if (out->n) memcpy(v, out->v, out->n * sizeof *v);
    v[out->n] = k;
    size_t count = out->n + 1;
    keks_release(out);
    *out = (struct keks){v, count};
    OPENSSL_cleanse(&k, sizeof k);
    return VV_OK;
}

static int parse(const char *path, const char *text, size_t n, struct keks *out, struct vv_error *e)
{
    int number = 0, err = VV_OK;
    for (size_t at = 0; at < n && !err;) {
        const char *p = text + at, *end = memchr(p, '\n', n - at);
        size_t line = end ? (size_t)(end - p) : n - at;
        at += line + 1;
        number++;
        size_t skip = 0;
        while (skip < line && strchr(" \t\r", p[skip])) skip++;
        if (skip == line || p[skip] == '#') continue;
        err = parse_line(p + skip, line - skip, out);
    }
    if (err == VV_E_NOMEM) return vv_error_set(e, err, "out of memory");
    if (err == VV_E_EXIST) return vv_error_set(e, VV_E_CONFIG, "%s:%d: this key id is there twice", path, number);
    if (err)
        return vv_error_set(e, err, "%s:%d: not `ID BASE64`, an id of at most 64 characters [A-Za-z0-9._-] and the base64 of 32 bytes",
                            path, number);
    return out->n ? VV_OK : vv_error_set(e, VV_E_CONFIG, "%s holds no key: give `ID BASE64`, the base64 of 32 random bytes", path);
}

/* mu held, or nobody else knows k. Does nothing when the file is as it was. */
static int load(struct vv_keyring *k, struct vv_error *e)
{
    struct vv_stat st;
    struct keks fresh = {0};
    uint8_t *text;
    size_t n;
    int err = vv_fs_stat(k->env, k->path, &st);
    if (err) return vv_error_set(e, err, "tier.encryption.keys.file=%s: %s", k->path, vv_err_name(err));
    if (k->keys.n && st.mtime_ms == k->mtime_ms && st.size == k->size) return VV_OK;
    if (st.mode & 07)
        return vv_error_set(e, VV_E_CONFIG, "%s can be read or written by everybody: chmod 600 it", k->path);
    err = vv_fs_read_file(k->env, k->path, FILE_LIMIT, &text, &n);
    if (err) return vv_error_set(e, err, "tier.encryption.keys.file=%s cannot be read: %s", k->path, vv_err_name(err));
    err = parse(k->path, (const char *)text, n, &fresh, e);
    OPENSSL_cleanse(text, n);
    free(text);
    if (!err && k->active && !keks_find(&fresh, k->active))
        err = vv_error_set(e, VV_E_CONFIG, "tier.encryption.key.id=%s is not in %s", k->active, k->path);
    if (err) {
        keks_release(&fresh);
        return err;
    }
    keks_release(&k->keys);
    k->keys = fresh;
    k->mtime_ms = st.mtime_ms;
    k->size = st.size;
    return VV_OK;
}

static void reload(struct vv_keyring *k) /* mu held */
{
    struct vv_error e = {0};
    if (load(k, &e)) VLOG_WARN("%s; going on with the keys read before", e.text);
}

int vv_keyring_open(struct vv_env *env, const char *path, const char *active, struct vv_keyring **out, struct vv_error *e)
{
    struct vv_keyring *k = *out = calloc(1, sizeof *k);
    if (!k) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    k->env = env;
    pthread_mutex_init(&k->mu, NULL);
    k->path = strdup(path);
    k->active = active && *active ? strdup(active) : NULL;
    int err = k->path && (k->active || !active || !*active) ? load(k, e) : vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (!err) return VV_OK;
    vv_keyring_free(k);
    *out = NULL;
    return err;
}

void vv_keyring_free(struct vv_keyring *k)
{
    if (!k) return;
    keks_release(&k->keys);
    pthread_mutex_destroy(&k->mu);
    free(k->path);
    free(k->active);
    free(k);
}

int vv_keyring_active(struct vv_keyring *k, char id[VV_KEY_ID_MAX], uint8_t key[VV_DATA_KEY_BYTES], struct vv_error *e)
{
    if (!k) return vv_error_set(e, VV_E_KEY, "there is no key to encrypt with: set tier.encryption.keys.file");
    pthread_mutex_lock(&k->mu);
    reload(k);
    const struct kek *x = k->active ? keks_find(&k->keys, k->active) : &k->keys.v[k->keys.n - 1];
    memcpy(id, x->id, sizeof x->id);
    memcpy(key, x->key, sizeof x->key);
    pthread_mutex_unlock(&k->mu);
    return VV_OK;
}

int vv_keyring_find(struct vv_keyring *k, const char *id, uint8_t key[VV_DATA_KEY_BYTES], struct vv_error *e)
{
    if (!k) return vv_error_set(e, VV_E_KEY, "encrypted with key %s: set tier.encryption.keys.file to a file that has it", id);
    pthread_mutex_lock(&k->mu);
    const struct kek *x = keks_find(&k->keys, id);
    if (!x) {
        reload(k);
        x = keks_find(&k->keys, id);
    }
    if (x) memcpy(key, x->key, sizeof x->key);
    pthread_mutex_unlock(&k->mu);
    return x ? VV_OK : vv_error_set(e, VV_E_KEY, "encrypted with key %s, which is not in %s: add it there", id, k->path);
}
