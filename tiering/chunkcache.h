/* chunkcache.h — what was read from the bucket, bounded: chunks (runs of whole blocks), single blocks for time
 * lookups, and footers.
 *
 * An entry is one range of one object. It is QUEUED (wanted, no memory yet), FLYING (memory reserved, being fetched),
 * READY or FAILED (remembered for a few seconds). Two budgets: one for footers, one for bytes of data; an entry's
 * memory is reserved before its GET is sent, so what is in flight counts. Whoever uses an entry holds a reference:
 * eviction only forgets it here.
 *
 * Admission keeps once-only replays from washing out what is read again and again. READY entries are in one of:
 *   fresh not read yet: not evicted for half a second, so that a reader whose wait ended finds its chunk when it asks
 *         again (a cache smaller than the working set must make progress); a wish that finds no room is queued
 *   busy  being read from its beginning on: kept for a tenth of a second after each step
 *   done  read to the end once, or somewhere in the middle by somebody who jumped there: the first to go
 *   hot   read more than once: at most three quarters of the budget, touched only when the other quarter is too small
 * Read-ahead takes room from `done` (and forgotten others) only, and holds at most half of the budget in unread chunks.
 *
 * No locks, no I/O, no clock: the reader's mutex guards all of it, the caller says what time it is. */
#ifndef VARVE_TIERING_CHUNKCACHE_H
#define VARVE_TIERING_CHUNKCACHE_H
#include "footer.h"
#include "varve/objstore.h"

enum vv_cc_kind { VV_CC_FOOTER, VV_CC_CHUNK, VV_CC_BLOCK };
enum vv_cc_state { VV_CC_QUEUED, VV_CC_FLYING, VV_CC_READY, VV_CC_FAILED };
enum vv_cc_where { VV_CC_NOWHERE, VV_CC_FRESH, VV_CC_BUSY, VV_CC_DONE, VV_CC_HOT, VV_CC_WISHES, VV_CC_AIR, VV_CC_BAD };

struct vv_cc_key {
    struct vv_segkey object;
    enum vv_cc_kind kind;
    uint32_t first, count; /* blocks; 0, 0 for the footer */
};

struct vv_cc_list { struct vv_cc_entry *head, *tail; size_t count; };

struct vv_cc_entry {
    struct vv_cc_key key;
    enum vv_cc_state state;
    int err;                   /* FAILED */
    struct vv_error *error;    /* FAILED; may be NULL */
    struct vv_buf *buf;        /* READY, data: exactly the range's bytes, verified … (FLYING: as far as they came) */
    bool *bad;                 /* … but for these blocks of it; NULL = all are good. Forgotten from bad_until_us on */
    int64_t bad_until_us;
    struct vv_footer footer;   /* READY, footer: block table and aborted transactions only */
    uint32_t *chunks;          /* READY, footer: first block of each chunk, ascending */
    uint32_t chunk_count;
    /* the cache's */
    unsigned refs;
    enum vv_cc_where where;
    struct vv_cc_entry *hash_next, *prev, *next;
    uint64_t at;               /* the range: of a footer in the object, of data in the segment (logical, what memory holds) */
    size_t bytes;
    bool ahead;                /* fetched on suspicion, nobody asked yet */
    bool hashed;
    int64_t since_us;          /* last asked for or touched; FAILED: forgotten from here on */
    int64_t served_to;         /* offsets below were handed out; INT64_MIN = none */
    /* the reader's */
    void *waiters;
    struct vv_cc_entry *table; /* data: the footer entry whose block table checks it, one reference while in flight */
    struct vv_flight *flight;  /* FLYING: the GET it is part of, NULL between two; mu */
    unsigned seat;             /* in it */
    /* … and the flight's own while it is aboard */
    size_t coming, got;        /* bytes as they lie in the object, and those that are there: in raw, else in buf */
    struct vv_buf *raw;        /* compressed or encrypted blocks */
    uint32_t checked;          /* blocks that are whole and were checked */
    bool torn;                 /* … one of which did not fit its checksum */
    bool promised;             /* the buffer pool expects it to ask for memory */
    unsigned attempts;
};

struct vv_cc_pool {
    size_t max, used, hot_bytes, ahead_bytes;
    struct vv_cc_list fresh, busy, done, hot, wishes, air;
};

#define VV_CC_BUCKETS 4096
struct vv_cc {
    struct vv_cc_pool data, footers;
    struct vv_cc_list bad; /* FAILED, newest first */
    struct vv_cc_entry *hash[VV_CC_BUCKETS];
    /* a limit of the rate: bytes are spent up to this monotonic time; 0 bytes/s = none */
    int64_t bytes_per_s, spent_us;
};

void vv_cc_limits(struct vv_cc *cc, size_t bytes_max, int64_t bytes_per_s, int64_t now_us);
/* Forgets everything that is not in flight; the caller has emptied the air before. */
void vv_cc_release(struct vv_cc *cc);

enum vv_cc_urgency { VV_CC_AHEAD, VV_CC_DEMAND };
/* The entry of a key, as it is, or a new one. AHEAD gives NULL where there is no room just now. A new DEMAND is
 * QUEUED: vv_cc_pump sends it. A new AHEAD is FLYING already and put out in *send. NULL also when out of memory. No
 * reference is given. */
struct vv_cc_entry *vv_cc_want(struct vv_cc *cc, const struct vv_cc_key *key, uint64_t at, size_t bytes,
                               enum vv_cc_urgency urgency, int64_t now_us, struct vv_cc_entry **send);
struct vv_cc_entry *vv_cc_find(struct vv_cc *cc, const struct vv_cc_key *key, int64_t now_us);
/* Bytes that were counted against the rate and did not come from the store after all. */
void vv_cc_refund(struct vv_cc *cc, size_t n);
/* The next wish there is room for, now FLYING, or NULL. Wishes that nobody waits for any more are forgotten on the
 * way. */
struct vv_cc_entry *vv_cc_pump(struct vv_cc *cc, int64_t now_us);
/* FLYING -> READY / FAILED. keep_us 0: forgotten at once. What the entry holds (buf, footer) was set by the caller. */
void vv_cc_arrived(struct vv_cc *cc, struct vv_cc_entry *e, int64_t now_us);
void vv_cc_failed(struct vv_cc *cc, struct vv_cc_entry *e, int err, const struct vv_error *why, int64_t now_us,
                  int64_t keep_us);
/* Offsets [from, to) were handed out; first: where the entry begins; whole: to is its end. */
void vv_cc_touch(struct vv_cc *cc, struct vv_cc_entry *e, int64_t first, int64_t from, int64_t to, bool whole,
                 int64_t now_us);
struct vv_cc_entry *vv_cc_ref(struct vv_cc_entry *e);
void vv_cc_unref(struct vv_cc_entry *e);
#endif
