/* footer.h — the object of one sealed segment: segment bytes + footer + trailer. docs/bucket-format.md, "Segment object".
 *
 * The trailer is the object's last 32 bytes and finds the footer; the footer is tagged sections, so that readers skip
 * what they do not know. Decoding trusts nothing: every length is checked against the bytes that are there, both checksums
 * first, then the meaning (blocks tile the data, offsets lie within [base, last]). No I/O but what a keyring does; any thread.
 *
 * Compressed and encrypted objects say where each block is stored; all positions outside vv_footer_range are logical ones. An
 * encrypted object's footer keeps what tells of its records (block table, producers, transactions, epochs) sealed under the object's
 * data key, which is itself wrapped by a key of the keyring; what stays readable is authenticated by the same seal. */
#ifndef VARVE_TIERING_FOOTER_H
#define VARVE_TIERING_FOOTER_H
#include "blockcodec.h"
#include "chain.h"
#include "keyring.h"
#include "keys.h"
#include "varve/blocks.h"
#include "varve/bytes.h"
#include "varve/error.h"
#include "varve/index.h"
#include "varve/log.h"

#define VV_TRAILER_BYTES 32
#define VV_FOOTER_VERSION 1
#define VV_FOOTER_MAX (64u << 20) /* larger is not ours: 1.6 million blocks, a segment of 100 GiB */

struct vv_sealing { /* of an encrypted object */
    char key_id[VV_KEY_ID_MAX];   /* of the key that wraps the data key */
    uint8_t wrap_nonce[VV_SEAL_NONCE_BYTES], wrapped[VV_DATA_KEY_BYTES + VV_SEAL_TAG_BYTES];
    uint8_t data_key[VV_DATA_KEY_BYTES];
};

struct vv_footer { /* init {0}; vv_footer_release frees what decode allocated */
    uint16_t version;
    uint16_t flags;               /* VV_OBJECT_COMPRESSED, VV_OBJECT_ENCRYPTED */
    uint64_t data_bytes;          /* segment bytes */
    uint64_t stored_bytes;        /* what they take in the object, before the footer; without flags the same (encode: may be 0) */
    struct vv_stored *stored;     /* with flags: where each block lies; as many as blocks */
    struct vv_sealing *sealing;   /* ENCRYPTED; wiped by release */
    struct vv_segkey key;         /* the identity: must equal the object's key */
    uint64_t records;
    uint64_t writer_epoch;
    int64_t first_ts, max_ts, sealed_ms;
    int64_t log_start;            /* when it was uploaded */
    char *topic;                  /* NUL-terminated */
    char *cluster_id;             /* NUL-terminated */
    struct vv_blocks blocks;
    struct vv_epoch *epochs;      /* from log start to the end of the segment, ascending */
    size_t epoch_count;
    struct vv_aborted *aborted;   /* all that overlap the segment */
    size_t aborted_count;
    uint8_t *snapshot;            /* producer snapshot as of last + 1, Kafka's .snapshot file; may be empty */
    size_t snapshot_n;
    uint8_t chain[VV_CHAIN_BYTES]; /* before this object; means something with links only */
    struct vv_link *links;         /* the segments in it, in order; none in objects of older versions */
    size_t link_count;
    size_t pad;                    /* encode: bytes that mean nothing, at least 8: an object that must have a certain size */
};
/* For an object that holds what several held (merged), member after member: their links become its own. A member without links leaves it
 * without (and gives `to` none any more): first = the first member. */
int vv_footer_add_links(struct vv_footer *to, const struct vv_footer *member, bool first);
/* Footer and trailer, malloc'ed. */
int vv_footer_encode(const struct vv_footer *f, uint8_t **p, size_t *n);
/* Before the blocks of an encrypted object are stored: a fresh data key, wrapped by the active key. */
int vv_footer_make_key(struct vv_footer *f, struct vv_keyring *keys, struct vv_env *env, struct vv_error *e);
/* p: the last n bytes of an object of object_bytes. E_AGAIN: that is less than the footer; *need (may be NULL) = bytes of suffix
 * that are enough. E_CORRUPT: not ours or damaged. E_KEY: encrypted, and keys (may be NULL) has not the key. */
int vv_footer_decode(const uint8_t *p, size_t n, uint64_t object_bytes, struct vv_keyring *keys, struct vv_footer *out,
                     size_t *need, struct vv_error *e);
/* Where the blocks [first, first + count) lie in the object. */
void vv_footer_range(const struct vv_footer *f, uint32_t first, uint32_t count, uint64_t *at, size_t *n);
/* For an object with flags; NULL: out of memory. */
struct vv_blockcodec *vv_footer_codec(const struct vv_footer *f);
/* Block i, as it lies in the object at p, becomes dst (blocks.v[i].n bytes) and fits its checksum; else E_CORRUPT. c: of this footer,
 * NULL without flags. */
int vv_footer_load(const struct vv_footer *f, struct vv_blockcodec *c, uint32_t i, const uint8_t *p, uint8_t *dst);
void vv_footer_release(struct vv_footer *f);
/* Is this the footer of that key (and, when not NULL, of one of these clusters: ids with commas between)? E_CORRUPT with a text if not. */
int vv_footer_check(const struct vv_footer *f, const struct vv_segkey *key, const char *clusters, struct vv_error *e);
/* The key of an extent's object. */
void vv_segkey_of(struct vv_uuid topic_id, int32_t partition, const struct vv_extent *x, struct vv_segkey *out);
#endif
