/* chain.c — follows the hash chain (tiering/chain.h) along a scan that reads everything.
 *
 * Three checks: a segment's bytes have the SHA-256 that its link says; its footer continues the chain of the segment before it; and an anchor
 * is met if the chain has its value behind some segment. The chain before the first segment that is still there is taken on trust:
 * what lay below it is gone, but every later value, an anchor too, depends on it. */
#include "reader_impl.h"
#include "varve/vlog.h"

#include <openssl/evp.h>
#include <stdlib.h>

struct vv_chain_check {
    struct vv_anchor *anchors;
    size_t anchor_count;
    uint8_t chain[VV_CHAIN_BYTES]; /* behind the last closed segment */
    bool known;
    EVP_MD_CTX *md;
    size_t link;                   /* of the segment being fed */
    uint64_t fed;                  /* bytes of that link */
    bool wrong;
    uint64_t unlinked;
    int64_t offset;
};

struct vv_chain_check *vv_chain_check_new(struct vv_anchor *anchors, size_t n)
{
    struct vv_chain_check *c = calloc(1, sizeof *c);
    if (c) c->md = EVP_MD_CTX_new();
    if (!c || !c->md) {
        free(c);
        return NULL;
    }
    c->anchors = anchors;
    c->anchor_count = n;
    return c;
}

void vv_chain_check_free(struct vv_chain_check *c)
{
    if (!c) return;
    EVP_MD_CTX_free(c->md);
    free(c);
}

static void link_ends(struct vv_chain_check *c, const struct vv_link *l)
{
    uint8_t sha[VV_CHAIN_BYTES];
    if (!c->fed) VV_ASSERT(EVP_DigestInit_ex(c->md, EVP_sha256(), NULL) == 1);
    VV_ASSERT(EVP_DigestFinal_ex(c->md, sha, NULL) == 1);
    if (c->fed != l->bytes || memcmp(sha, l->sha256, sizeof sha)) c->wrong = true;
    c->fed = 0;
    c->link++;
}

int vv_chain_check_feed(struct vv_chain_check *c, const struct vv_footer *f, const uint8_t *p, size_t n)
{
    while (n && c->link < f->link_count) {
        const struct vv_link *l = &f->links[c->link];
        size_t take = (size_t)VV_MIN((uint64_t)n, l->bytes - c->fed);
        if (!c->fed && EVP_DigestInit_ex(c->md, EVP_sha256(), NULL) != 1) return VV_E_NOMEM;
        if (take && EVP_DigestUpdate(c->md, p, take) != 1) return VV_E_NOMEM;
        c->fed += take;
        p += take;
        n -= take;
        if (c->fed == l->bytes) link_ends(c, l);
    }
    return VV_OK;
}

static void meet(struct vv_chain_check *c, int64_t offset)
{
    for (size_t i = 0; i < c->anchor_count; i++) {
        struct vv_anchor *a = &c->anchors[i];
        if (a->met || memcmp(a->value, c->chain, sizeof c->chain)) continue;
        a->met = true;
        a->offset = offset;
    }
}

static void begin_segment(struct vv_chain_check *c)
{
    c->link = 0;
    c->fed = 0;
    c->wrong = false;
}

void vv_chain_check_lost(struct vv_chain_check *c)
{
    begin_segment(c);
    c->known = false;
}

int vv_chain_check_close(struct vv_chain_check *c, const struct vv_footer *f, const char *key, struct vv_error *e)
{
    while (c->link < f->link_count) link_ends(c, &f->links[c->link]); /* empty ones, and what is missing */
    bool wrong = c->wrong, breaks = f->link_count && c->known && memcmp(c->chain, f->chain, sizeof c->chain);
    begin_segment(c);
    if (!f->link_count) {
        c->unlinked++;
        c->known = false;
        return VV_OK;
    }
    if (wrong || breaks) c->known = false;
    if (wrong)
        return vv_error_set(e, VV_E_CORRUPT, "object %s: its bytes are not those that its SHA-256 was taken of: it was replaced or rewritten", key);
    if (breaks)
        return vv_error_set(e, VV_E_CORRUPT, "object %s does not continue the hash chain of the one before it: one of the two was replaced, or "
                            "one between them left out", key);
    memcpy(c->chain, f->chain, sizeof c->chain);
    for (size_t i = 0; i < f->link_count; i++) {
        if (vv_chain_next(c->chain, &f->links[i])) return VV_E_NOMEM;
        meet(c, f->links[i].last + 1);
    }
    c->known = true;
    c->offset = f->key.last + 1;
    return VV_OK;
}

void vv_chain_check_tell(const struct vv_chain_check *c, struct vv_verified *out)
{
    out->unlinked = c->unlinked;
    if (!c->known) return;
    vv_chain_text(c->chain, out->chain);
    out->chain_offset = c->offset;
}
