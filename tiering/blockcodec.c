/* blockcodec.c — see blockcodec.h. */
#include "blockcodec.h"

#include "varve/bytes.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <zstd.h>

#define LEVEL 3 /* bench/README.md, "Sealed objects" */
#define VV_ZSTD_BLOCK 131072 /* of a zstd frame: the most that a block of it holds */

struct vv_blockcodec {
    unsigned flags;
    uint8_t key[VV_DATA_KEY_BYTES];
    char *object;
    size_t object_n;
    EVP_CIPHER_CTX *seal, *open; /* made on first use, the key is scheduled once */
    ZSTD_CCtx *pack;
    ZSTD_DCtx *unpack;
    uint8_t *scratch; /* a compressed block on its way to or from its encryption */
    size_t scratch_cap;
};

struct vv_blockcodec *vv_blockcodec_new(unsigned flags, const uint8_t *key, const char *object)
{
    struct vv_blockcodec *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->flags = flags;
    c->object = strdup(object);
    c->object_n = strlen(object);
    if (flags & VV_OBJECT_ENCRYPTED) memcpy(c->key, key, sizeof c->key);
    if (c->object) return c;
    vv_blockcodec_free(c);
    return NULL;
}

void vv_blockcodec_free(struct vv_blockcodec *c)
{
    if (!c) return;
    EVP_CIPHER_CTX_free(c->seal);
    EVP_CIPHER_CTX_free(c->open);
    ZSTD_freeCCtx(c->pack);
    ZSTD_freeDCtx(c->unpack);
    free(c->scratch);
    free(c->object);
    OPENSSL_cleanse(c->key, sizeof c->key);
    free(c);
}

/* ---- AES-256-GCM ---- */

static EVP_CIPHER_CTX *cipher_new(const uint8_t *key, bool seal)
{
    EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
    if (x && EVP_CipherInit_ex(x, EVP_aes_256_gcm(), NULL, key, NULL, seal) == 1) return x;
    EVP_CIPHER_CTX_free(x);
    return NULL;
}

static int do_seal(EVP_CIPHER_CTX *x, const uint8_t *nonce, const uint8_t *aad, size_t aad_n, const uint8_t *p, size_t n,
                   uint8_t *dst)
{
    int got, rest;
    if (n > INT_MAX || aad_n > INT_MAX) return VV_E_LIMIT;
    if (EVP_CipherInit_ex(x, NULL, NULL, NULL, nonce, 1) != 1 || EVP_CipherUpdate(x, NULL, &got, aad, (int)aad_n) != 1 ||
        EVP_CipherUpdate(x, dst, &got, p, (int)n) != 1 || EVP_CipherFinal_ex(x, dst + got, &rest) != 1 ||
        EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_GCM_GET_TAG, VV_SEAL_TAG_BYTES, dst + n) != 1)
        return VV_E_NOMEM; /* nothing else can fail */
    return VV_OK;
}

static int do_unseal(EVP_CIPHER_CTX *x, const uint8_t *nonce, const uint8_t *aad, size_t aad_n, const uint8_t *p, size_t n,
                     uint8_t *dst)
{
    uint8_t tag[VV_SEAL_TAG_BYTES];
    int got, rest;
    if (n < sizeof tag || n - sizeof tag > INT_MAX || aad_n > INT_MAX) return VV_E_CORRUPT;
    n -= sizeof tag;
    memcpy(tag, p + n, sizeof tag);
    if (EVP_CipherInit_ex(x, NULL, NULL, NULL, nonce, 0) != 1 || EVP_CipherUpdate(x, NULL, &got, aad, (int)aad_n) != 1 ||
        EVP_CipherUpdate(x, dst, &got, p, (int)n) != 1 ||
        EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_GCM_SET_TAG, VV_SEAL_TAG_BYTES, tag) != 1)
        return VV_E_NOMEM;
    return EVP_CipherFinal_ex(x, dst + got, &rest) == 1 ? VV_OK : VV_E_CORRUPT;
}

int vv_seal(const uint8_t *key, const uint8_t *nonce, const uint8_t *aad, size_t aad_n, const uint8_t *p, size_t n, uint8_t *dst)
{
    EVP_CIPHER_CTX *x = cipher_new(key, true);
    int err = x ? do_seal(x, nonce, aad, aad_n, p, n, dst) : VV_E_NOMEM;
    EVP_CIPHER_CTX_free(x);
    return err;
}

int vv_unseal(const uint8_t *key, const uint8_t *nonce, const uint8_t *aad, size_t aad_n, const uint8_t *p, size_t n,
              uint8_t *dst)
{
    EVP_CIPHER_CTX *x = cipher_new(key, false);
    int err = x ? do_unseal(x, nonce, aad, aad_n, p, n, dst) : VV_E_NOMEM;
    EVP_CIPHER_CTX_free(x);
    return err;
}

static void block_nonce(uint32_t number, uint8_t *nonce)
{
    memset(nonce, 0, VV_SEAL_NONCE_BYTES);
    vv_put32(nonce + VV_SEAL_NONCE_BYTES - 4, number);
}

/* ---- blocks ---- */

static int room(struct vv_blockcodec *c, size_t n)
{
    if (n <= c->scratch_cap) return VV_OK;
    uint8_t *p = realloc(c->scratch, n);
    if (!p) return VV_E_NOMEM;
    c->scratch = p;
    c->scratch_cap = n;
    return VV_OK;
}

size_t vv_block_stored_max(const struct vv_blockcodec *c, size_t n)
{
    return n + (c->flags & VV_OBJECT_ENCRYPTED ? VV_SEAL_TAG_BYTES : 0);
}

bool vv_block_may_unpack(size_t packed_n, size_t n)
{
    return n <= VV_PACKED_MAX && n / (VV_ZSTD_BLOCK / 4) <= packed_n; /* a run of 128 KiB takes four bytes */
}

/* Into dst, which has room for less than n: *packed_n 0 if it does not get smaller. */
static int pack(struct vv_blockcodec *c, const uint8_t *p, size_t n, uint8_t *dst, size_t *packed_n)
{
    *packed_n = 0;
    if (!c->pack && !(c->pack = ZSTD_createCCtx())) return VV_E_NOMEM;
    size_t got = ZSTD_compressCCtx(c->pack, dst, n - 1, p, n, LEVEL);
    if (!ZSTD_isError(got)) *packed_n = got; /* the error is that it does not fit */
    return VV_OK;
}

int vv_block_store(struct vv_blockcodec *c, uint32_t number, const uint8_t *p, size_t n, uint8_t *dst, uint32_t *stored_n,
                   uint32_t *how)
{
    bool encrypt = c->flags & VV_OBJECT_ENCRYPTED;
    size_t packed = 0;
    int err = n && n <= INT_MAX ? VV_OK : VV_E_LIMIT;
    *how = VV_STORED_PLAIN;
    if (!err && c->flags & VV_OBJECT_COMPRESSED && n <= VV_PACKED_MAX) {
        if (encrypt) err = room(c, n);
        if (!err) err = pack(c, p, n, encrypt ? c->scratch : dst, &packed);
    }
    if (err) return err;
    if (packed) *how = VV_STORED_ZSTD;
    *stored_n = (uint32_t)((packed ? packed : n) + (encrypt ? VV_SEAL_TAG_BYTES : 0));
    if (!encrypt) {
        if (!packed) memcpy(dst, p, n);
        return VV_OK;
    }
    uint8_t nonce[VV_SEAL_NONCE_BYTES];
    block_nonce(number, nonce);
    if (!c->seal && !(c->seal = cipher_new(c->key, true))) return VV_E_NOMEM;
    return do_seal(c->seal, nonce, (const uint8_t *)c->object, c->object_n, packed ? c->scratch : p, packed ? packed : n, dst);
}

int vv_block_load(struct vv_blockcodec *c, uint32_t number, uint32_t how, const uint8_t *p, size_t stored_n, uint8_t *dst,
                  size_t n)
{
    if (c->flags & VV_OBJECT_ENCRYPTED) {
        uint8_t nonce[VV_SEAL_NONCE_BYTES];
        if (stored_n < VV_SEAL_TAG_BYTES) return VV_E_CORRUPT;
        size_t inner = stored_n - VV_SEAL_TAG_BYTES;
        if (how == VV_STORED_PLAIN && inner != n) return VV_E_CORRUPT;
        int err = how == VV_STORED_PLAIN ? VV_OK : room(c, inner + 1);
        if (err) return err;
        block_nonce(number, nonce);
        if (!c->open && !(c->open = cipher_new(c->key, false))) return VV_E_NOMEM;
        uint8_t *to = how == VV_STORED_PLAIN ? dst : c->scratch;
        err = do_unseal(c->open, nonce, (const uint8_t *)c->object, c->object_n, p, stored_n, to);
        if (err || how == VV_STORED_PLAIN) return err;
        p = c->scratch;
        stored_n = inner;
    }
    if (how == VV_STORED_PLAIN) {
        if (stored_n != n) return VV_E_CORRUPT;
        memcpy(dst, p, n);
        return VV_OK;
    }
    if (how != VV_STORED_ZSTD) return VV_E_CORRUPT;
    if (!c->unpack && !(c->unpack = ZSTD_createDCtx())) return VV_E_NOMEM;
    return ZSTD_decompressDCtx(c->unpack, dst, n, p, stored_n) == n ? VV_OK : VV_E_CORRUPT;
}
