/* reader.h — the reading side's own structures: reader.c (getting: entries, GETs, waiters), reader_read.c (what is
 * asked: reads, time lookups, aborted transactions), reader_ahead.c (read-ahead).
 *
 * A task is one question. It runs on whatever thread brings it forward: the caller's, then a store thread each time an
 * entry that it waits for arrives. It is in exactly one of three states: running (one thread, no lock held between
 * steps), waiting (in one entry's list) or over (freed after its callback). An entry that arrives is handed to its
 * waiters as a reference, so that eviction cannot come between.
 *
 * Locks: `mu` guards everything here and in the chunk cache; it is short, a leaf, never held across the store, the
 * index, a CRC or a callback. A part's tasks end before the part does; downloads belong to the reader and outlive
 * tasks and parts. */
#ifndef VARVE_TIERING_READER_H
#define VARVE_TIERING_READER_H
#include "bufpool.h"
#include "chunkcache.h"
#include "tier_impl.h"

#define VV_READER_STREAMS 512
#define VV_READER_UNIT ((size_t)256 << 10)       /* a chunk: what is cached and served as one; GETs bring many */
#define VV_READER_SPARE_BYTES ((size_t)4 << 20)  /* buffers kept beyond those that GETs under way will fill */
#define VV_READER_PATIENCE ((size_t)1 << 20)     /* who reads on waits for this much, where one GET brings it */
#define VV_READER_BAD_US 3000000 /* how long damage and absence are remembered */

enum vv_task_kind { VV_TASK_READ, VV_TASK_TIME, VV_TASK_ABORTED, VV_TASK_AHEAD };

struct vv_task {
    enum vv_task_kind kind;
    struct vv_reader *rd;
    struct vv_tier_part *part;
    struct vv_task *prev, *next;  /* of rd->tasks; mu */
    struct vv_task *wait_next;    /* mu */
    struct vv_cc_entry *on;       /* waits for it; mu */
    bool beyond;                  /* … but wants one before it in the same flight: more is served at once */
    int end_err;                  /* mu: asked to end with it (cancel, part closing); 0 = no */
    struct vv_cc_entry *footer, *data; /* references */
    struct vv_extent x;           /* where offset is; without its local part */
    bool found;                   /* x is set */
    int64_t offset;               /* goes on here */
    /* READ */
    struct vv_tier_read *r;
    struct vv_chain bytes;
    int64_t returned;             /* after the last batch in bytes */
    bool moved;                   /* the extent was looked up again after a missing object */
    bool waited;                  /* for bytes, not only for a footer */
    bool dry;                     /* there was room for more than is in memory */
    size_t patience;              /* bytes worth waiting for at once */
    /* TIME */
    int64_t ts, from;             /* from: also ABORTED's */
    uint32_t block;
    bool block_set;
    void (*time_done)(void *ctx, int err, const struct vv_time_hit *hit);
    /* ABORTED */
    int64_t to;
    struct vv_aborted *aborted;
    size_t aborted_n, aborted_cap;
    void (*aborted_done)(void *ctx, int err, const struct vv_aborted *v, size_t n);
    void *ctx;
    /* AHEAD */
    struct vv_stream *stream;
};

struct vv_stream { /* somebody who reads on and on; mu */
    struct vv_tier_part *part; /* NULL = free */
    int64_t expect;            /* the next read begins here */
    int64_t used_us;
    bool ahead;                /* an AHEAD task runs for it, and alone moves sent_to and adds to `sent` */
    int64_t sent_to;           /* what lies before it was asked for */
    uint64_t sent, read;       /* bytes asked for and read since the stream began; their difference is the window's use */
    size_t window;             /* bytes to have ahead of the reader; 0 = it has not read on yet */
    /* does a larger window help? */
    uint64_t since_read;       /* where `read` is (since_us) or will be (0: not yet) when what the present one brings is measured */
    int64_t since_us;
    double best;               /* bytes per microsecond with the one before */
};

/* One GET: a run of entries, filled in order. Gone when its callback has returned. */
#define VV_FLIGHT_MAX 256
struct vv_flight {
    struct vv_objget get;
    struct vv_reader *rd;
    struct vv_flight *prev, *next; /* of rd->flying; mu */
    bool cancelled;                /* mu */
    bool from_disk;                /* the disk cache was asked, not the store; mu until it is sent */
    struct vv_segkey id;
    struct vv_chain stored;        /* what has landed, as it lies in the object: for the disk cache */
    char object[VV_KEY_MAX];
    unsigned count, filling;
    struct vv_cc_entry *e[VV_FLIGHT_MAX]; /* NULL: has landed */
};

struct vv_reader {
    struct vv_tier *tier;
    struct vv_env *env;
    struct vv_objstore *store;
    pthread_mutex_t mu;
    pthread_cond_t change;      /* a task ended, a flight ended, a cancel is over */
    struct vv_tier_config config;
    struct vv_cc cc;
    struct vv_task *tasks;
    struct vv_stream streams[VV_READER_STREAMS];
    struct vv_bufpool *bufs;
    struct vv_flight *flying;
    unsigned flights;           /* between take-off and the end of their callback */
    unsigned sending;           /* threads inside vv_objstore_get_async */
    int64_t landed_us;          /* the last time one ended */
    bool dying;
    struct vv_flight *cancelling;
    pthread_t canceller;
};

struct vv_reader *vv_reader_of(struct vv_tier *t); /* made on first use; NULL when out of memory */

/* ---- reader.c ---- */
/* The next step of a task; afterwards it is waiting or gone: the caller forgets it. No locks held. */
void vv_task_run(struct vv_task *k);
struct vv_task *vv_task_new(struct vv_tier_part *p, enum vv_task_kind kind);
void vv_task_free(struct vv_task *k); /* takes mu, wakes a closing part */
int vv_task_ended(struct vv_task *k); /* end_err, or 0 */

enum vv_get { VV_GOT, VV_GOT_LATER, VV_GOT_NOT };
/* The footer of k->x / the blocks [first, first + count) of it, in k->footer / k->data. GOT: there (READY or FAILED);
 * LATER: the task waits and is the other thread's; NOT: ended meanwhile, no memory, or (peek) not there. */
enum vv_get vv_task_get_footer(struct vv_task *k, bool peek);
enum vv_get vv_task_get_data(struct vv_task *k, enum vv_cc_kind kind, uint32_t first, uint32_t count, bool peek);
void vv_task_drop_footer(struct vv_task *k);
void vv_task_drop_data(struct vv_task *k);
/* Index of the chunk that has the block. */
uint32_t vv_footer_chunk_of(const struct vv_cc_entry *footer, uint32_t block);
uint32_t vv_footer_chunk_blocks(const struct vv_cc_entry *footer, uint32_t chunk);
uint32_t vv_footer_chunk_bytes(const struct vv_cc_entry *footer, uint32_t first, uint32_t count, uint64_t *at);
/* Asks for chunks from c on that are not there yet, in one GET of about `bytes` (one chunk at least), without anybody
 * waiting. Returns the chunk to go on with; c itself: no room now. */
uint32_t vv_task_send_ahead(struct vv_task *k, uint32_t c, size_t bytes);
/* The footer of another extent, likewise. */
void vv_task_footer_ahead(struct vv_task *k, const struct vv_extent *x);
/* Sends what is queued as far as there is room. */
void vv_reader_pump(struct vv_reader *rd);
void vv_reader_key_object(const struct vv_task *k, struct vv_segkey *out);
void vv_reader_count_cache(struct vv_reader *rd); /* mu held */

/* ---- reader_flight.c ---- */
struct vv_flight *vv_flight_new(struct vv_reader *rd); /* NULL when out of memory; free() while nothing is aboard */
/* e is FLYING and goes on where the flight ends so far; data has its table. mu held; vv_flight_send must follow,
 * without mu. */
void vv_flight_board(struct vv_flight *f, struct vv_cc_entry *e);
void vv_flight_send(struct vv_flight *f);

/* ---- reader_check.c ---- */
/* p: all of the footer. */
int vv_reader_check_footer(struct vv_reader *rd, struct vv_cc_entry *e, const uint8_t *p, struct vv_error *why);
void vv_reader_check_arrived(struct vv_cc_entry *e); /* the blocks that are whole by now */
/* Compressed or encrypted, and all of it is there: the blocks as they were appended, from raw into buf. One that does not come back
 * leaves bytes that do not fit its checksum. E_NOMEM is the only failure. */
int vv_reader_unpack(struct vv_cc_entry *e);
/* The damage is in the object: its good blocks are served, for a while, the bad ones named. */
int vv_reader_keep_good(struct vv_reader *rd, struct vv_cc_entry *e);

/* ---- reader_order.c ---- */
void vv_reader_order(struct vv_task *k); /* for the disk cache: the extents from k->offset on */

/* ---- reader_read.c, reader_ahead.c: the steps by kind ---- */
void vv_task_run_read(struct vv_task *k);
void vv_task_run_time(struct vv_task *k);
void vv_task_run_aborted(struct vv_task *k);
void vv_task_run_ahead(struct vv_task *k);
/* A read begins: true if it goes on where another ended; then its window is asked for, if that was not done yet. */
bool vv_reader_begins(struct vv_reader *rd, struct vv_tier_part *p, int64_t from);
/* It is served: [from, to), so many bytes; wanting: it had to wait, or more would have been taken. Fills the window. */
void vv_reader_served(struct vv_reader *rd, struct vv_tier_part *p, int64_t from, int64_t to, size_t bytes, bool wanting);
#endif
