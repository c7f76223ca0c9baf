/* blockcodec.h — how the blocks of a segment object are stored: as they are, compressed (zstd), encrypted (AES-256-GCM), or both.
 *
 * Logical block -> zstd, if that makes it smaller -> AES-256-GCM -> stored block, and back. The same input gives the same bytes, as
 * often as an upload asks for them. Encryption: the key is the object's own data key, the nonce is the block's number, the object's
 * name is associated data; so a block that was changed, cut, moved within its object or taken from another one does not open.
 * What comes out of vv_block_load has its full length, but is still to be compared with the block table's CRC.
 * docs/bucket-format.md, "Compressed and encrypted objects". Pure; a codec has one user at a time. */
#ifndef VARVE_TIERING_BLOCKCODEC_H
#define VARVE_TIERING_BLOCKCODEC_H
#include "varve/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Flags of an object's trailer. */
#define VV_OBJECT_COMPRESSED 1u
#define VV_OBJECT_ENCRYPTED 2u
#define VV_OBJECT_FLAGS (VV_OBJECT_COMPRESSED | VV_OBJECT_ENCRYPTED)

/* A compressed block has at most so many bytes: what a footer declares costs its reader memory. A larger batch (socket.request.max.bytes is
 * 100 MiB unless told) is stored as it is. */
#define VV_PACKED_MAX (128u << 20)

#define VV_DATA_KEY_BYTES 32u
#define VV_SEAL_NONCE_BYTES 12u
#define VV_SEAL_TAG_BYTES 16u

enum vv_stored_how { VV_STORED_PLAIN, VV_STORED_ZSTD };
struct vv_stored { /* where a block lies in the object */
    uint64_t at;
    uint32_t n;
    uint32_t how; /* enum vv_stored_how; under the encryption, if there is one */
};

struct vv_blockcodec;
/* key: VV_DATA_KEY_BYTES, for encrypted objects; object: its name. NULL: out of memory. */
struct vv_blockcodec *vv_blockcodec_new(unsigned flags, const uint8_t *key, const char *object);
void vv_blockcodec_free(struct vv_blockcodec *c); /* NULL is fine; wipes the key */
size_t vv_block_stored_max(const struct vv_blockcodec *c, size_t n); /* room that storing n bytes may need */
/* Can a zstd frame of so many bytes hold n, of those that vv_block_store makes? */
bool vv_block_may_unpack(size_t packed_n, size_t n);
/* The block of this number, n bytes, into dst. */
int vv_block_store(struct vv_blockcodec *c, uint32_t number, const uint8_t *p, size_t n, uint8_t *dst, uint32_t *stored_n,
                   uint32_t *how);
/* And back: exactly n bytes into dst, or E_CORRUPT. */
int vv_block_load(struct vv_blockcodec *c, uint32_t number, uint32_t how, const uint8_t *p, size_t stored_n, uint8_t *dst,
                  size_t n);

/* AES-256-GCM of anything small: dst gets n bytes and the tag / n - VV_SEAL_TAG_BYTES bytes. E_CORRUPT: does not open. */
int vv_seal(const uint8_t *key, const uint8_t *nonce, const uint8_t *aad, size_t aad_n, const uint8_t *p, size_t n, uint8_t *dst);
int vv_unseal(const uint8_t *key, const uint8_t *nonce, const uint8_t *aad, size_t aad_n, const uint8_t *p, size_t n,
              uint8_t *dst);
#endif
