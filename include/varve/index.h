/* index.h — THE unified index: where every offset of one partition lives, local or remote. One lookup.
 *
 * A partition is a list of extents. An extent is one segment: a range of offsets [base, last], what is known
 * about it, where its bytes are, and its life state. Extents tile: extent k+1 begins at extent k's last + 1.
 * The log registers its local segments here (it keeps no list of its own), the tierer moves extents through
 * their life, a fetch asks one question: vv_index_find(offset). The list is journalled (varve.index in
 * the partition's directory), so that a restart needs no listing of the bucket.
 *
 *   OPEN -> SEALED -> UPLOADING -> BOTH -> REMOTE -> TOMBSTONED -> DELETING -> (gone)
 *             ^___________/          \______________________________/
 *   also TOMBSTONED -> REMOTE (undeleted inside the grace), SEALED -> DELETING (expired before upload), BOTH -> TOMBSTONED, REMOTE -> BOTH (hydrated), any -> DELETING (topic gone).
 * The legal moves are a const table; an illegal one is an assertion: local deletion of live data before
 * BOTH is impossible by construction.
 *
 * Threads: every call from any thread; a mutex inside, held for memory work only, except in calls marked
 * [durable], which also append to the journal and datasync it before they return (never on a reactor).
 * Lock order: partition mutex -> index mutex. The index calls nobody back.
 * Memory is bounded: only extents with local bytes and recently used pages of remote ones are resident;
 * a lookup that misses reads one page of the extent file (≤ 8 KiB). */
#ifndef VARVE_INDEX_H
#define VARVE_INDEX_H
#include "varve/env.h"
#include "varve/error.h"
#include "varve/bytes.h"

#define VV_EXTENT_STATES(X)                                                                        \
    X(OPEN)       /* being appended to; local only */                                              \
    X(SEALED)     /* closed, fsynced, local only */                                                \
    X(UPLOADING)  /* intent journalled; local is still the only proven copy */                     \
    X(BOTH)       /* remote copy proven, local copy still there */                                 \
    X(REMOTE)     /* only in the bucket */                                                         \
    X(TOMBSTONED) /* below log start or deleted; object undeletable for the grace period */        \
    X(DELETING)   /* irrevocable: bytes are being removed */
enum vv_extent_state {
#define VV_X(name) VV_EXTENT_##name,
    VV_EXTENT_STATES(VV_X)
#undef VV_X
};
const char *vv_extent_state_name(enum vv_extent_state s);
bool vv_extent_move_legal(enum vv_extent_state from, enum vv_extent_state to);

struct vv_segment; /* local files: src/log/segment.h. Refcounted; opaque here. */
struct vv_segment_ref_ops { void (*ref)(struct vv_segment *); void (*unref)(struct vv_segment *); };

struct vv_extent {
    int64_t base, last;   /* inclusive; last = INT64_MAX while OPEN, until a roll opens the next one */
    int64_t first_ts, max_ts; /* of its batches, ms; -1 when none */
    int64_t sealed_ms;    /* wall time of the seal; retention of empty segments, restore --as-of */
    int64_t dead_ms;      /* wall time of the tombstone: the grace counts from here; 0 before (set it in x when moving) */
    uint64_t bytes;       /* of the log data */
    uint64_t object_bytes;/* of the whole object (data + footer), 0 while there is none */
    uint64_t stored_bytes;/* of the data in the object, where it is compressed or encrypted there; 0 = as bytes */
    uint64_t nonce;       /* of the object's key; set by the intent */
    uint32_t generation;  /* of the object's key */
    int32_t epoch;        /* leader epoch at upload, of the object's key; first batch's epoch before */
    enum vv_extent_state state;
    struct vv_segment *local; /* NULL when not local; the copy handed out holds a reference */
};
static inline bool vv_extent_is_remote(const struct vv_extent *x)
{
    return x->state == VV_EXTENT_BOTH || x->state == VV_EXTENT_REMOTE;
}

/* Where the footer begins in the extent's object. */
static inline uint64_t vv_extent_footer_at(const struct vv_extent *x)
{
    return x->stored_bytes ? x->stored_bytes : x->bytes;
}

struct vv_index;

/* Opens (or creates) the journal in dir and replays it. A torn tail is cut; a damaged middle is E_CORRUPT.
 * Local segments are attached afterwards by the log. */
int vv_index_open(struct vv_env *env, const char *dir, const struct vv_segment_ref_ops *ops,
                  struct vv_index **out, struct vv_error *e);
void vv_index_close(struct vv_index *ix); /* drops references to local segments */

/* ---- lookups: *out holds a reference to its local segment; give it back with vv_extent_release ---- */
/* The live extent that holds offset, or the next live one above it. E_NOENT when there is none. */
int vv_index_find(struct vv_index *ix, int64_t offset, struct vv_extent *out);
/* The same without ever waiting for a disk, for reactors: E_AGAIN when the page that holds it is not in memory; then ask
 * vv_index_find from a thread that may wait. */
int vv_index_find_now(struct vv_index *ix, int64_t offset, struct vv_extent *out);
/* The first live extent at or after from_offset whose max_ts >= ts. E_NOENT when none. */
int vv_index_find_time(struct vv_index *ix, int64_t ts, int64_t from_offset, struct vv_extent *out);
/* Same walk for iteration: the extent (in any state but gone) whose base >= base. E_NOENT at the end. */
int vv_index_next(struct vv_index *ix, int64_t base, struct vv_extent *out);
/* First live extent in the given state, at or after base. E_NOENT when none. */
int vv_index_find_state(struct vv_index *ix, enum vv_extent_state state, int64_t base, struct vv_extent *out);
/* The live extent with the largest max_ts (ListOffsets -3). */
int vv_index_find_max_ts(struct vv_index *ix, struct vv_extent *out);
void vv_extent_release(struct vv_index *ix, struct vv_extent *x);

struct vv_index_summary {
    int64_t log_start;       /* first offset a client may read */
    int64_t local_start;     /* first offset with local bytes (= end of remote when none) */
    int64_t remote_end;      /* last remote offset + 1; -1 when nothing is remote */
    uint64_t extents, local_extents, remote_extents, pending_extents;
    uint64_t local_bytes, remote_bytes, pending_bytes; /* pending: sealed or uploading */
    uint64_t dead_extents, dead_bytes; /* tombstoned or being deleted: still in the bucket */
};
void vv_index_summary(struct vv_index *ix, struct vv_index_summary *out); /* what is resident is walked once after a change */
int64_t vv_index_log_start(struct vv_index *ix); /* lock-free */

/* ---- the log's calls ---- */
/* At open, for each local segment file found: the journal's entry with this base gets its local part, an unknown one is
 * added as SEALED (the log opens the last one afterwards with vv_index_reopen). Returns the state; REMOTE,
 * TOMBSTONED or DELETING mean that the file is a leftover: the log deletes it and the local part is not attached. */
int vv_index_attach(struct vv_index *ix, const struct vv_extent *x, enum vv_extent_state *state);
/* After the last attach: BOTH without local files becomes REMOTE, UPLOADING stays (its intent is retried under the
 * same key), SEALED without a file is dropped and reported in *e (damage; E_CORRUPT). */
int vv_index_attached(struct vv_index *ix, struct vv_error *e);
/* May come before the previous one's seal (which is blocking and may lag): that one stays OPEN, its last becomes base - 1. */
int vv_index_add_open(struct vv_index *ix, int64_t base, int32_t epoch, struct vv_segment *local);
int vv_index_reopen(struct vv_index *ix, int64_t base); /* SEALED, never uploaded -> OPEN (after recovery) */
int vv_index_seal(struct vv_index *ix, const struct vv_extent *x); /* by base; last, times, bytes from x [durable] */
/* Replica truncation: removes extents that begin at or above offset (all must be local only). */
int vv_index_truncate(struct vv_index *ix, int64_t offset); /* [durable] */

/* ---- the tierer's and retention's calls ---- */
/* Moves the extent with this base; fields given in x (nonce, generation, epoch, object_bytes, stored_bytes) are taken over for UPLOADING and
 * BOTH. REMOTE, TOMBSTONED and DELETING drop the local reference. [durable] E_NOENT when it is gone. */
int vv_index_move(struct vv_index *ix, int64_t base, enum vv_extent_state to, const struct vv_extent *x);
int vv_index_remove(struct vv_index *ix, int64_t base); /* DELETING -> gone [durable] */
/* Many at once, one record whatever their number: every extent in state `from` (REMOTE or later) that lies wholly below the offset
 * moves to `to`; dead_ms 0 keeps theirs. [durable] */
int vv_index_sweep(struct vv_index *ix, int64_t below, enum vv_extent_state from, enum vv_extent_state to, int64_t dead_ms);
int vv_index_drop(struct vv_index *ix, int64_t below); /* every DELETING one wholly below is gone [durable] */
int vv_index_set_log_start(struct vv_index *ix, int64_t offset); /* only forward [durable] */
/* A run of remote extents becomes one (merged, compacted). intend: the key of the new object is fixed before its first byte; NULL gives
 * it up. replace: every extent of [n->base, n->last] - whole ones, REMOTE or dead - is n from now on, in n's state, and no intent
 * is left. E_STATE: the borders are not those of extents, or one is not remote. [durable] */
int vv_index_intend(struct vv_index *ix, const struct vv_extent *n);
bool vv_index_intent(struct vv_index *ix, struct vv_extent *out); /* false: none */
int vv_index_replace(struct vv_index *ix, const struct vv_extent *n);
/* Undelete: the log starts at offset again, at or before where it starts now; what is tombstoned at or above it is REMOTE again, and more below
 * may be: the caller sweeps. A crash in between leaves the log start where it was. [durable] */
int vv_index_revive(struct vv_index *ix, int64_t offset);
/* Restore: adopt an extent known from a manifest, in order, state REMOTE. [durable after vv_index_sync] */
int vv_index_adopt(struct vv_index *ix, const struct vv_extent *x);
int vv_index_sync(struct vv_index *ix); /* [durable] */
/* A history that is followed (a replica): of what is REMOTE, what begins in [from, to) goes and v[0..n), ascending, is there instead: one
 * step for readers. Not journalled: such an index is built anew at each start. E_STATE: v would overlap what stays, or not all was REMOTE. */
int vv_index_exchange(struct vv_index *ix, int64_t from, int64_t to, const struct vv_extent *v, size_t n);

/* Renames the partition's directory under the index, so that the old name is free: from then on everything of this index is
 * below `to`. Whoever keeps paths of his own follows (vv_log_moved). The parent's entries are the caller's to sync. */
int vv_index_move_dir(struct vv_index *ix, const char *to);
/* Somebody made the directory's own name durable: the journal need not any more. */
void vv_index_dir_durable(struct vv_index *ix);
#endif
