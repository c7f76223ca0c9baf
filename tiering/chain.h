/* chain.h — the hash chain over a log's content, from segment to segment, whatever objects they lie in.
 *
 * Every upload writes down in its footer the chain up to it and a link: its range, its bytes, the SHA-256 of its bytes. The chain after it is
 * SHA-256(chain before · base i64 · last i64 · bytes u64 · sha256), and the chain before the first segment of a log
 * SHA-256("varve log" · topic id · partition i32). So a chain value names everything up to an offset, and whoever remembers one (an anchor) can
 * prove later that what is still there was there then, unchanged: `varve verify --anchor`. CRCs find rot, this finds forgery.
 *
 * An object that holds several segments (merged) carries their links one by one: the chain does not depend on how segments are packed.
 * Pure. Any thread. */
#ifndef VARVE_TIERING_CHAIN_H
#define VARVE_TIERING_CHAIN_H
#include "varve/bytes.h"
#include "varve/error.h"
#include "varve/log.h"

#define VV_CHAIN_BYTES 32

struct vv_link { /* one segment as it was sealed */
    int64_t base, last;
    uint64_t bytes;
    uint8_t sha256[VV_CHAIN_BYTES];
};
#define VV_LINK_BYTES (24u + VV_CHAIN_BYTES) /* encoded: in this order, big-endian */

int vv_chain_begin(struct vv_uuid topic_id, int32_t partition, uint8_t chain[VV_CHAIN_BYTES]);
int vv_chain_next(uint8_t chain[VV_CHAIN_BYTES], const struct vv_link *l); /* both: E_NOMEM, then nothing changed */
void vv_link_put(const struct vv_link *l, uint8_t p[VV_LINK_BYTES]);
void vv_link_get(const uint8_t p[VV_LINK_BYTES], struct vv_link *l);
void vv_chain_text(const uint8_t chain[VV_CHAIN_BYTES], char out[2 * VV_CHAIN_BYTES + 1]);
#endif
