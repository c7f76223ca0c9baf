/* footer.h — the object of one sealed segment: segment bytes + footer + trailer. docs/bucket-format.md, "Segment object".
 *
 * The trailer is the object's last 32 bytes and finds the footer; the footer is tagged sections, so that readers skip
 * what they do not know. Decoding trusts nothing: every length is checked against the bytes that are there, both checksums
 * first, then the meaning (blocks tile the data, offsets lie within [base, last]). Pure: no I/O, any thread. */
#ifndef VARVE_TIERING_FOOTER_H
#define VARVE_TIERING_FOOTER_H
#include "keys.h"
#include "varve/blocks.h"
#include "varve/bytes.h"
#include "varve/error.h"
#include "varve/index.h"
#include "varve/log.h"

#define VV_TRAILER_BYTES 32
#define VV_FOOTER_VERSION 1
#define VV_FOOTER_MAX (64u << 20) /* larger is not ours: 1.6 million blocks, a segment of 100 GiB */

struct vv_footer { /* init {0}; vv_footer_release frees what decode allocated */
    uint16_t version;
    uint64_t data_bytes;          /* segment bytes before the footer */
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
};
/* Footer and trailer, malloc'ed. */
int vv_footer_encode(const struct vv_footer *f, uint8_t **p, size_t *n);
/* p: the last n bytes of an object of object_bytes. E_AGAIN: that is less than the footer; *need (may be NULL) = bytes of suffix
 * that are enough. E_CORRUPT: not ours or damaged. */
int vv_footer_decode(const uint8_t *p, size_t n, uint64_t object_bytes, struct vv_footer *out, size_t *need,
                     struct vv_error *e);
void vv_footer_release(struct vv_footer *f);
/* Is this the footer of that key (and, when not NULL, that cluster)? E_CORRUPT with a text if not. */
int vv_footer_check(const struct vv_footer *f, const struct vv_segkey *key, const char *cluster_id, struct vv_error *e);
/* The key of an extent's object. */
void vv_segkey_of(struct vv_uuid topic_id, int32_t partition, const struct vv_extent *x, struct vv_segkey *out);
#endif
