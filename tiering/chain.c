/* chain.c — see chain.h. */
#include "chain.h"

#include <openssl/evp.h>
#include <stdio.h>

/* It only fails for want of memory; out is as it was then. */
static int digest(const void *p, size_t n, uint8_t out[VV_CHAIN_BYTES])
{
    return EVP_Digest(p, n, out, NULL, EVP_sha256(), NULL) == 1 ? VV_OK : VV_E_NOMEM;
}

int vv_chain_begin(struct vv_uuid topic_id, int32_t partition, uint8_t chain[VV_CHAIN_BYTES])
{
    uint8_t p[9 + 16 + 4];
    memcpy(p, "varve log", 9);
    memcpy(p + 9, topic_id.b, 16);
    vv_put32(p + 25, (uint32_t)partition);
    return digest(p, sizeof p, chain);
}

void vv_link_put(const struct vv_link *l, uint8_t p[VV_LINK_BYTES])
{
    vv_put64(p, (uint64_t)l->base);
    vv_put64(p + 8, (uint64_t)l->last);
    vv_put64(p + 16, l->bytes);
    memcpy(p + 24, l->sha256, VV_CHAIN_BYTES);
}

void vv_link_get(const uint8_t p[VV_LINK_BYTES], struct vv_link *l)
{
    l->base = (int64_t)vv_get64(p);
    l->last = (int64_t)vv_get64(p + 8);
    l->bytes = vv_get64(p + 16);
    memcpy(l->sha256, p + 24, VV_CHAIN_BYTES);
}

int vv_chain_next(uint8_t chain[VV_CHAIN_BYTES], const struct vv_link *l)
{
    uint8_t p[VV_CHAIN_BYTES + VV_LINK_BYTES];
    memcpy(p, chain, VV_CHAIN_BYTES);
    vv_link_put(l, p + VV_CHAIN_BYTES);
    return digest(p, sizeof p, chain);
}

void vv_chain_text(const uint8_t chain[VV_CHAIN_BYTES], char out[2 * VV_CHAIN_BYTES + 1])
{
    for (size_t i = 0; i < VV_CHAIN_BYTES; i++) snprintf(out + i * 2, 3, "%02x", chain[i]);
}
