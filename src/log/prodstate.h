/* prodstate.h — what a partition remembers of its idempotent producers (KIP-98, KIP-360): per producer id the epoch, and the last
 * five batches with their sequences and offsets.
 *
 * One owner: the log, under its mutex. No I/O here; the snapshot is Kafka's `<offset>.snapshot` format, version 1. */
#ifndef VARVE_LOG_PRODSTATE_H
#define VARVE_LOG_PRODSTATE_H
#include "varve/log.h"

struct vv_prodstate;
struct vv_prodstate *vv_prodstate_new(void); /* NULL: out of memory */
void vv_prodstate_free(struct vv_prodstate *s); /* NULL is fine */
void vv_prodstate_clear(struct vv_prodstate *s);

/* May this batch of a client be appended? Batches without a producer id always. 0 with *duplicate set: it is there already, *base and
 * *last are the original's offsets. OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID with *e filled. */
int vv_prodstate_check(const struct vv_prodstate *s, const struct vv_batch *b, bool *duplicate, int64_t *base, int64_t *last,
                       struct vv_error *e);
/* Room for one more producer: vv_prodstate_update does not fail after it. E_NOMEM. */
int vv_prodstate_reserve(struct vv_prodstate *s);
/* The batch is in the log at b->base_offset (the final one). Also used for replay: takes everything as it is. Control batches end
 * the producer's open transaction (the marker's coordinator epoch is not kept). E_NOMEM. */
int vv_prodstate_update(struct vv_prodstate *s, const struct vv_batch *b);
/* Wall time of the updates that follow: a producer is as old as its last append, not as the records in it. Kafka counts from the
 * records' time, so that who replays an old history there loses his producer state with it. 0 (the beginning): the records' time. */
void vv_prodstate_now(struct vv_prodstate *s, int64_t now_ms);
/* First offset of an open transaction; INT64_MAX when none. */
int64_t vv_prodstate_first_unstable(const struct vv_prodstate *s);
/* Forget producers whose last batch is older than expiry_ms, except those in a transaction. */
void vv_prodstate_expire(struct vv_prodstate *s, int64_t now_ms, int64_t expiry_ms);
size_t vv_prodstate_count(const struct vv_prodstate *s);

/* Kafka keeps only the last batch of each producer in a snapshot; so do we. *out is malloc'ed, never NULL on success. */
int vv_prodstate_encode(const struct vv_prodstate *s, uint8_t **out, size_t *n);
int vv_prodstate_decode(struct vv_prodstate *s, const uint8_t *p, size_t n); /* replaces everything; E_CORRUPT leaves it empty */
#endif
