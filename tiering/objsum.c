/* objsum.c — see objsum.h. */
#include "objsum.h"
#include "varve/bytes.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define READ_CHUNK ((size_t)128 << 10) /* stays in the second level of the processor's cache */

static bool start(struct vv_summer *s)
{
    return (!s->md5 || EVP_DigestInit_ex(s->md5, EVP_md5(), NULL) == 1) && (!s->sha256 || EVP_DigestInit_ex(s->sha256, EVP_sha256(), NULL) == 1);
}

void vv_summer_begin(struct vv_summer *s, struct vv_objsumming as)
{
    memset(s, 0, sizeof *s);
    s->as = as;
    if (as.kinds & VV_SUM_MD5) s->md5 = EVP_MD_CTX_new();
    if (as.kinds & VV_SUM_SHA256) s->sha256 = EVP_MD_CTX_new();
    bool made = (!(as.kinds & VV_SUM_MD5) || s->md5) && (!(as.kinds & VV_SUM_SHA256) || s->sha256);
    if (!made || !start(s)) s->err = VV_E_NOMEM;
}

static void piece_ends(struct vv_summer *s)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 1;
        struct vv_objsum *v = realloc(s->v, cap * sizeof *v);
        if (!v) {
            s->err = VV_E_NOMEM;
            return;
        }
        s->v = v;
        s->cap = cap;
    }
    struct vv_objsum *sum = &s->v[s->count++];
    memset(sum, 0, sizeof *sum);
    if ((s->md5 && EVP_DigestFinal_ex(s->md5, sum->md5, NULL) != 1) || (s->sha256 && EVP_DigestFinal_ex(s->sha256, sum->sha256, NULL) != 1) || !start(s))
        s->err = VV_E_IO;
    s->in_piece = 0;
}

void vv_summer_feed(struct vv_summer *s, const void *p, size_t n)
{
    const uint8_t *from = p;
    while (s->as.kinds && n && !s->err) {
        if (s->in_piece == s->as.piece) piece_ends(s); /* not before something follows: the last one is ended by vv_summer_end */
        size_t take = (size_t)VV_MIN((uint64_t)n, s->as.piece - s->in_piece);
        if ((s->md5 && EVP_DigestUpdate(s->md5, from, take) != 1) || (s->sha256 && EVP_DigestUpdate(s->sha256, from, take) != 1)) s->err = VV_E_IO;
        s->in_piece += take;
        from += take;
        n -= take;
    }
}

void vv_summer_sha256(struct vv_summer *s, uint8_t out[32])
{
    EVP_MD_CTX *copy = s->err ? NULL : EVP_MD_CTX_new();
    if (!s->err && (!copy || EVP_MD_CTX_copy_ex(copy, s->sha256) != 1 || EVP_DigestFinal_ex(copy, out, NULL) != 1)) s->err = VV_E_NOMEM;
    EVP_MD_CTX_free(copy);
}

int vv_summer_end(struct vv_summer *s)
{
    if (s->as.kinds && !s->err) piece_ends(s);
    return s->err;
}

void vv_summer_release(struct vv_summer *s)
{
    EVP_MD_CTX_free(s->md5);
    EVP_MD_CTX_free(s->sha256);
    free(s->v);
    memset(s, 0, sizeof *s);
}

const struct vv_objsum *vv_objsums_for(const struct vv_objsums *sums, struct vv_objsumming as, uint64_t count)
{
    bool fits = sums && sums->as.piece == as.piece && sums->count == count && (sums->as.kinds & as.kinds) == as.kinds;
    return fits ? sums->v : NULL;
}

int vv_objsum_source(const struct vv_objsrc *src, uint64_t at, uint64_t n, unsigned kinds, struct vv_objsum *out)
{
    struct vv_summer s;
    size_t cap = (size_t)VV_MIN(VV_MAX(n, (uint64_t)1), (uint64_t)READ_CHUNK);
    uint8_t *chunk = malloc(cap);
    vv_summer_begin(&s, (struct vv_objsumming){VV_SUM_WHOLE, kinds});
    int err = chunk ? s.err : VV_E_NOMEM;
    for (uint64_t done = 0; done < n && !err;) {
        size_t take = (size_t)VV_MIN(n - done, (uint64_t)cap);
        err = src->read(src->ctx, at + done, chunk, take);
        if (!err) vv_summer_feed(&s, chunk, take);
        done += take;
    }
    if (!err) err = vv_summer_end(&s);
    if (!err) *out = s.v[0];
    vv_summer_release(&s);
    free(chunk);
    return err;
}
