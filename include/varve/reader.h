/* reader.h — read a Varve bucket without a broker.
 *
 * Everything is told by the bucket itself (docs/bucket-format.md). Nothing is written to it, no claim is taken; a
 * broker may be at work on it at the same time. Four things, each opened from the one before:
 *
 *   vv_bucket       a store URL: whose bucket it is, which topics and partitions are in it
 *   vv_bucket_log   one partition: its manifest and what continues it; its segments, however long the history is
 *   vv_scan         batches or records of a window of it, by parallel ranged GETs with read-ahead, in bounded memory
 *   vv_verify_log   everything there is to check about it
 *
 * What a scan hands out is verified: the footer's checksum and identity, the CRC of every block read, the CRC of
 * every batch, offsets that go up. Records below the log start, control batches and batches of aborted transactions
 * are not handed out.
 *
 * WINDOWS. Offsets and times are both [from, to). A time window is exact for records in any order across batches; a
 * record older than the first of its own batch is found if `to` is above that first one (blocks are chosen by their
 * batches' first and largest times). Segments behind `to` cost one small GET each, for they may hold late records.
 *
 * ERRORS (and a text in *e, which names the object):
 *   E_NOENT        no bucket, no Varve root in it, no such topic or partition
 *   E_UNSUPPORTED  written in a newer format
 *   E_CORRUPT      a damaged, forged or missing object, a hole in the log
 *   E_CONFLICT     an object of another cluster; a topic name that two live topics have
 *   others         of the object store (objstore.h): E_ACCESS, E_AGAIN, E_TIMEOUT ...; E_NOMEM
 *
 * THREADS. A bucket may be shared; a log and its scans belong to one thread at a time. Close in reverse order.
 *
 * EXAMPLE: examples/read_bucket.c. In short:
 *   vv_bucket_open("fs:./varve-data/tier", NULL, &b, &e);
 *   vv_bucket_find_topic(b, "cars", &t, &e);
 *   vv_bucket_log_open(b, &t, 0, &log, &e);
 *   vv_scan_open(log, &VV_SCAN_ALL, &scan, &e);
 *   vv_scan_each(scan, print, NULL, &e); */
#ifndef VARVE_READER_H
#define VARVE_READER_H
#include "varve/env.h"
#include "varve/error.h"
#include "varve/index.h"
#include "varve/log.h"
#include "varve/objstore.h"

struct vv_footer; /* tiering/footer.h */

/* ---- the bucket ---- */
struct vv_bucket;
struct vv_bucket_opts { /* zeroed = defaults */
    struct vv_objstore_config store; /* credentials, endpoint …; read_only is set for you */
    struct vv_env *env;              /* NULL = the real world */
    size_t memory_max;               /* bytes a scan holds or has asked for, default 128 MiB (one chunk at least) */
    size_t chunk_bytes;              /* of one ranged GET, default 16 MiB, whole blocks (one at least); the first are smaller */
    unsigned gets_max;               /* data GETs of a scan in flight, default 16 */
    int64_t deadline_ms;             /* of one request, default 60000; an unanswered GET is tried 5 times */
};
/* url: fs:DIR or s3://BUCKET[/PREFIX]. opts may be NULL. [blocking] */
int vv_bucket_open(const char *url, const struct vv_bucket_opts *opts, struct vv_bucket **out, struct vv_error *e);
/* The same on an open store, which stays the caller's and outlives the bucket (tests; wrappers). */
int vv_bucket_attach(struct vv_objstore *store, const struct vv_bucket_opts *opts, struct vv_bucket **out,
                     struct vv_error *e);
void vv_bucket_close(struct vv_bucket *b); /* NULL is fine */
const char *vv_bucket_cluster_id(const struct vv_bucket *b);
struct vv_objstore *vv_bucket_store(const struct vv_bucket *b);

struct vv_bucket_topic {
    char name[250];
    struct vv_uuid id;
    int32_t *partitions; /* those with anything in the bucket, ascending; malloc'ed */
    size_t partition_count;
};
/* Every live topic, by name; a topic that was deleted is not. Release with vv_bucket_topics_free. [blocking] */
int vv_bucket_topics(struct vv_bucket *b, struct vv_bucket_topic **v, size_t *n, struct vv_error *e);
void vv_bucket_topics_free(struct vv_bucket_topic *v, size_t n);
/* One, by name or by its id's 22 characters. Release with vv_bucket_topic_release. */
int vv_bucket_find_topic(struct vv_bucket *b, const char *name, struct vv_bucket_topic *out, struct vv_error *e);
void vv_bucket_topic_release(struct vv_bucket_topic *t);

/* ---- one partition ---- */
struct vv_bucket_log;
struct vv_bucket_log_info {
    char topic[250];
    struct vv_uuid topic_id;
    int32_t partition;
    int64_t log_start, next_offset;
    uint64_t segments, bytes;   /* data bytes; what waits for its deletion is included */
    uint64_t followed;          /* of the segments: not in the manifest yet */
    int64_t first_ts, max_ts;   /* of the first segment's first batch; of all; -1 when none */
    bool manifest;              /* there is one */
    uint64_t revision;          /* its */
    int64_t deleting_below;
    bool hole;                  /* objects lie beyond a hole: they are not part of the log */
};
/* Manifest head, then what continues it by listing. [blocking] */
int vv_bucket_log_open(struct vv_bucket *b, const struct vv_bucket_topic *t, int32_t partition,
                       struct vv_bucket_log **out,
                       struct vv_error *e);
void vv_bucket_log_close(struct vv_bucket_log *log);
const struct vv_bucket_log_info *vv_bucket_log_info(const struct vv_bucket_log *log);
/* Every segment that ends at or above offset `from`, ascending. each()'s non-zero stops and is returned. [blocking] */
int vv_bucket_log_segments(struct vv_bucket_log *log, int64_t from, int (*each)(void *ctx, const struct vv_extent *x),
                           void *ctx, struct vv_error *e);

/* ---- reading ---- */
struct vv_scan;
struct vv_scan_opts {
    int64_t from, to;       /* offsets */
    int64_t from_ts, to_ts; /* Unix milliseconds */
    bool everything;        /* control batches and aborted ones too, and every check of vv_verify_log */
};
#define VV_SCAN_ALL ((struct vv_scan_opts){.from = 0, .to = INT64_MAX, .from_ts = INT64_MIN, .to_ts = INT64_MAX})

struct vv_scan_batch {
    const uint8_t *p; /* the batch, b.bytes long, verified; NULL = the end. Valid until the next call on this scan */
    struct vv_batch b;
    bool aborted;     /* with `everything` only */
    const struct vv_extent *segment;
};
struct vv_scan_stats { uint64_t gets, bytes; int64_t segments; }; /* bytes got, segments done with */

/* What a scan will cost, from the manifest alone: no object is read. Upper bounds but for the first and last segment,
 * which are estimated. [blocking] */
struct vv_scan_plan { uint64_t segments, footers_only, gets, bytes; };
int vv_scan_plan(struct vv_bucket_log *log, const struct vv_scan_opts *o, struct vv_scan_plan *out, struct vv_error *e);

int vv_scan_open(struct vv_bucket_log *log, const struct vv_scan_opts *o, struct vv_scan **out, struct vv_error *e);
/* Asks for what it will read first, and for more of it as footers come in; nothing of it is needed before vv_scan_next, which does it too: for
 * who reads another scan meanwhile. True: all of the window is asked for. Waits for nothing but a page of the manifest. */
bool vv_scan_ask(struct vv_scan *s);
/* The next batch that touches the window. After an error of a segment (E_CORRUPT) vv_scan_skip() gives that segment
 * up, and the scan goes on behind it; without that the same error comes again. [blocking] */
int vv_scan_next(struct vv_scan *s, struct vv_scan_batch *out, struct vv_error *e);
void vv_scan_skip(struct vv_scan *s);
/* Every record of the window, decompressed; a callback's non-zero stops and is returned. */
int vv_scan_each(struct vv_scan *s, int (*each)(void *ctx, const struct vv_scan_batch *b, const struct vv_record *r),
                 void *ctx,
                 struct vv_error *e);
void vv_scan_stats(const struct vv_scan *s, struct vv_scan_stats *out);
/* Waits for the GETs under way. NULL is fine. */
void vv_scan_close(struct vv_scan *s);

/* Calls each(ctx, key, key_n, value, value_n) for the headers of a record; value_n -1 = null. */
int vv_record_headers(const struct vv_record *r,
                      int (*each)(void *ctx, const uint8_t *key, int32_t key_n, const uint8_t *value, int32_t value_n),
                      void *ctx);

/* ---- checking ---- */
struct vv_verified {
    uint64_t segments, batches, records, bytes, damages;
    uint64_t unlinked;     /* segments without a place in the hash chain: written by an older version */
    char chain[65];        /* the chain's value (hex) behind the last segment, an anchor to remember; "" when there is none */
    int64_t chain_offset;  /* it covers everything below */
};
/* Every object of the partition from its log start on: trailer, footer, identity, what the manifest says of it, block
 * table, the CRC of every block and batch, the number of records, offsets without a hole from segment to segment.
 * Each damage is told to found() and the check goes on behind it; an error is returned only when the store cannot be
 * read. [blocking] */
/* An anchor is a value of the chain that somebody remembered (tiering/chain.h). Met: what lies below `offset`, as far as the log still has it, is
 * what lay there when the value was told, and nothing of it was replaced or left out. */
struct vv_anchor {
    uint8_t value[32];
    bool met;
    int64_t offset;
};
int vv_verify_anchored(struct vv_bucket_log *log, struct vv_anchor *anchors, size_t n,
                       void (*found)(void *ctx, const struct vv_error *damage), void *ctx, struct vv_verified *out,
                       struct vv_error *e);
int vv_verify_log(struct vv_bucket_log *log, void (*found)(void *ctx, const struct vv_error *damage), void *ctx,
                  struct vv_verified *out, struct vv_error *e);
#endif
