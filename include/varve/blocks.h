/* blocks.h — the block table of one segment: the sparse offset and time index and the checksums of its bytes.
 *
 * A block is a run of whole batches of about 64 KiB. The table is accumulated while batches are appended
 * (over the bytes as written), stored beside the sealed segment as `<base>.blocks`, and is the heart of
 * the object's footer: the same structure locally and remotely, so that rot between append and upload is found,
 * not blessed. Pure data, no I/O; one owner. Encoding: docs/bucket-format.md, "Block table". */
#ifndef VARVE_BLOCKS_H
#define VARVE_BLOCKS_H
#include "varve/bytes.h"
#include "varve/error.h"

#define VV_BLOCK_TARGET 65536

struct vv_block {
    uint64_t at;          /* logical position in the segment */
    uint32_t n;           /* bytes (logical = stored without compression or encryption) */
    uint32_t crc;         /* CRC32C of the bytes */
    int64_t first_offset; /* of its first batch */
    int64_t min_ts, max_ts; /* over its batches (min: base timestamps), ms */
};
struct vv_blocks { /* init {0} */
    struct vv_block *v;
    uint32_t count, cap;
    uint64_t bytes; /* sum of n */
    uint64_t records;
    bool open;      /* last block still grows */
};
int vv_blocks_reserve(struct vv_blocks *t); /* room for one more block: the next append needs no memory */
int vv_blocks_append(struct vv_blocks *t, const uint8_t *batch, size_t n, int64_t base_offset, int64_t min_ts,
                     int64_t max_ts, uint32_t records);
void vv_blocks_seal(struct vv_blocks *t);
bool vv_blocks_same(const struct vv_blocks *a, const struct vv_blocks *b); /* describe the same bytes */
void vv_blocks_release(struct vv_blocks *t);
/* Index of the last block whose first_offset <= offset; 0 when all are above. count must be > 0. */
uint32_t vv_blocks_find(const struct vv_blocks *t, int64_t offset);
/* Index of the first block whose max_ts >= ts, at or after `from`; count when none. */
uint32_t vv_blocks_find_time(const struct vv_blocks *t, int64_t ts, uint32_t from);
size_t vv_blocks_encoded_size(const struct vv_blocks *t);
void vv_blocks_encode(const struct vv_blocks *t, uint8_t *dst); /* ends with a CRC32C */
int vv_blocks_decode(const uint8_t *p, size_t n, struct vv_blocks *out); /* E_CORRUPT */
#endif
