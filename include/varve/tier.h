/* tier.h — the remote tier: uploads sealed segments, reads old offsets back, deletes by protocol, restores.
 *
 * One vv_tier per broker (one bucket prefix); one vv_tier_part per tiered partition. The tier works on the
 * unified index (index.h) and the local log's sealed segments (log.h); it never sees sockets, topics' configs or
 * Kafka requests: broker/partition.c composes them. Bucket layout and rules: docs/bucket-format.md.
 *
 * Threads: an uploader pool (blocking, one segment at a time per partition), the store's own I/O thread(s) for
 * reads, one housekeeping thread (manifests, deletion, claim renewal). Calls marked [blocking] wait for the store.
 * Completion callbacks run on tier or store threads with no locks held; they must not block. */
#ifndef VARVE_TIER_H
#define VARVE_TIER_H
#include "varve/buf.h"
#include "varve/env.h"
#include "varve/index.h"
#include "varve/log.h"
#include "varve/objstore.h"

struct vv_tier;
struct vv_tier_part;

struct vv_tier_config {
    int upload_threads;             /* default 2 */
    int64_t upload_bytes_per_s;     /* 0 = no limit (remote.log.manager.copy.max.bytes.per.second) */
    int64_t fetch_bytes_per_s;      /* 0 = no limit */
    const char *cache_dir;          /* the disk cache's (tiering/diskcache.h), outlives the tier; NULL = none. Fixed at open */
    int64_t cache_disk_bytes;       /* its bytes; 0 = off, < 0 = a tenth of the file system, at most 16 GiB */
    int64_t disk_reserve;           /* tier.disk.reserve, vv_space_reserve's; fixed at open */
    size_t cache_bytes_max;         /* memory of the chunk cache, default 128 MiB, never exceeded by more than what is being sent and 4 MiB of spare buffers */
    size_t chunk_bytes;             /* most of one ranged GET, default 16 MiB, whole blocks; first ones are smaller */
    int readahead_chunks;           /* a sequential reader has this × chunk_bytes ahead at most; 0 = none, < 0 = 16; crosses segment borders */
    int64_t fetch_deadline_ms;      /* tier.fetch.deadline.ms, default 30000: one chunk's GET incl. retries */
    bool compress, encrypt;         /* new objects: tier.compression=zstd, tier.encryption=aes-256-gcm (the store needs its keys) */
    bool verify_full;               /* tier.verify=full: read everything back before the local copy may go */
    int64_t delete_objects_per_s;   /* of dead segments and deleted topics; 0 = no limit (tier.delete.max.objects.per.second) */
    int64_t delete_grace_ms;        /* tier.delete.grace.ms: tombstoned objects stay undeletable this long */
    int64_t manifest_interval_ms;   /* batch manifest updates at most this long, default 60000 */
    int manifest_batch;             /* or this many segments, default 16 */
    int64_t gc_interval_ms;         /* tier.gc.interval.ms: every partition's objects are looked through this often; 0 = never */
    int64_t scrub_interval_ms;      /* tier.scrub.interval.ms: a pass over everything begins this often; 0 = never */
    int64_t scrub_bytes_per_s;      /* tier.scrub.bytes.per.second: of objects; 0 = they are not looked at */
    int64_t scrub_local_bytes_per_s; /* tier.scrub.local.bytes.per.second: of closed local segments; 0 = not */
    int64_t gc_age_ms;              /* tier.gc.age.ms: nothing younger is collected */
    int64_t hydrate_bytes_per_s;    /* from the origin into the own bucket; 0 = no limit */
    /* Neighbouring objects that are small, older than merge_age_ms and than the delete grace become one (merge.c). */
    int merge_segments_min;         /* at least this many at a time; 0 = never */
    uint64_t merge_bytes_max;       /* of the result, never above the topic's segment.bytes; held in memory. Default 16 MiB */
    int64_t merge_age_ms;           /* since they were sealed */
    int64_t merge_span_ms;          /* from the first's seal to the last's; 0 = no limit */
    int64_t merge_bytes_per_s;      /* read and written; 0 = no limit */
};
/* Where a bucket's first objects came from (tiering/origin.h). */
struct vv_origin {
    char cluster_id[64], url[512]; /* url "" for the origins of an origin */
    int64_t as_of_ms;              /* -1: its newest state */
    bool seeded, hydrated;
};
#define VV_ORIGINS_MAX 8
struct vv_origins { struct vv_origin v[VV_ORIGINS_MAX]; size_t n; };

struct vv_tier_identity {
    char cluster_id[64];
    int32_t node_id;
    const struct vv_origins *origins; /* of a bucket that is being seeded, or of one that cannot be asked now; NULL = as its root says */
    uint64_t epoch_floor;             /* writer epochs up to this one are in use in the origin */
    bool arriving;        /* a migration's old bucket says that this one is the truth: `migrating` in its root is no reason to refuse it */
    bool must_exist;      /* the broker has a history in a bucket: one without a root is refused, not made */
    const char *data_dir; /* tier-identity.json is kept here, so that a crashed broker takes its own claim back at once; NULL = none */
};

/* Opens the store's root, claims it (epoch + 1, conditional PUT where the store can) or creates it.
 * E_CONFLICT: another live writer (named in *e) or another cluster's bucket; E_NOENT/E_ACCESS/E_TIMEOUT: the store's answer, said plainly.
 * The bucket's cluster id is adopted into *id when id->cluster_id is empty (restore). [blocking] */
int vv_tier_open(struct vv_env *env, struct vv_objstore *store, const struct vv_tier_config *c, struct vv_tier_identity *id,
                 bool take_over, struct vv_tier **out, struct vv_error *e);
/* The same without asking the store, for a broker that starts while its bucket is away: id must be complete. Nothing is written until
 * the started tier has claimed the bucket by itself; reads work as soon as the store answers. */
int vv_tier_open_later(struct vv_env *env, struct vv_objstore *store, const struct vv_tier_config *c, const struct vv_tier_identity *id,
                       bool take_over, struct vv_tier **out, struct vv_error *e);
/* A replica of somebody else's bucket, which is never written to: no claim, no uploads, no housekeeping, for good (the store is opened
 * read_only). id->cluster_id is filled; one that is set must be the bucket's: E_CONFLICT. E_NOENT: no Varve bucket. [blocking] */
int vv_tier_open_replica(struct vv_env *env, struct vv_objstore *store, const struct vv_tier_config *c, struct vv_tier_identity *id,
                         struct vv_tier **out, struct vv_error *e);
int vv_tier_start(struct vv_tier *t);                   /* threads */
void vv_tier_configure(struct vv_tier *t, const struct vv_tier_config *c); /* run-time changes */
/* Finishes or abandons uploads within grace_ms, writes dirty manifests, releases the claim, joins. [blocking] */
void vv_tier_stop(struct vv_tier *t, int64_t grace_ms);
void vv_tier_free(struct vv_tier *t);

struct vv_tier_part_opts {
    struct vv_uuid topic_id;
    const char *topic;
    int32_t partition;
    struct vv_log *log;       /* both outlive the part */
    struct vv_index *index;
    /* What may be uploaded now: segments whose last offset < this (min(high watermark, last stable offset)). */
    int64_t (*upload_limit)(void *ctx);
    int32_t (*leader_epoch)(void *ctx);
    /* After an extent became BOTH or REMOTE, or log start moved: retention may have work. Tier thread, no locks. */
    void (*on_progress)(void *ctx);
    void *ctx;
    bool copy_disabled;       /* remote.log.copy.disable: no new uploads, history stays readable */
    int64_t segment_bytes;    /* the topic's: no merged object is bigger; 0 = not told */
};
int vv_tier_part_open(struct vv_tier *t, const struct vv_tier_part_opts *o, struct vv_tier_part **out, struct vv_error *e);
/* While a part is open the tier alone moves its extents from SEALED on: retention moves the log start (index, then
 * vv_tier_part_log_start_moved) and forgets local copies with vv_tier_part_drop_local; it never calls vv_index_move itself.
 * Stops its uploads (waits for the one that runs), writes its manifest, forgets it. [blocking] */
void vv_tier_part_close(struct vv_tier_part *p);
void vv_tier_part_kick(struct vv_tier_part *p);         /* something was sealed or the limit moved: look again; cheap, any thread */
void vv_tier_part_set_copy_disabled(struct vv_tier_part *p, bool disabled);
void vv_tier_part_set_segment_bytes(struct vv_tier_part *p, int64_t bytes);
/* Log start moved (already durable in the index): extents wholly below are tombstoned (those never uploaded are deleted with their
 * files), the manifest follows soon. Cheap, any thread. */
void vv_tier_part_log_start_moved(struct vv_tier_part *p);
/* The same, and somebody asked for it: the manifest follows at once, so that a disk lost now does not bring the records back. */
void vv_tier_part_commit_soon(struct vv_tier_part *p);
/* Undelete: the log starts again where the oldest object lies that is still inside its grace and reaches up to the log start without a hole.
 * *log_start: where it starts now (where it did, when there is nothing to bring back). [blocking] */
int vv_tier_part_undelete(struct vv_tier_part *p, int64_t *log_start, struct vv_error *e);
/* Forget the local copy of a BOTH extent: index -> REMOTE, then files. [blocking, disk only] */
int vv_tier_part_drop_local(struct vv_tier_part *p, int64_t base);

struct vv_tier_part_stats {
    uint64_t uploaded_segments, uploaded_bytes, upload_errors;
    uint64_t delete_lag_bytes, delete_lag_segments; /* below the log start and still in the bucket: the grace, or a store that is away */
    int64_t last_upload_ms;    /* wall; 0 = never */
    char last_error[160];      /* "" = none since the last success */
};
void vv_tier_part_stats(struct vv_tier_part *p, struct vv_tier_part_stats *out);

/* One unit of work (an upload, a manifest, a deletion, a renewal) on the caller's thread, instead of vv_tier_start: for the simulator and
 * tests. Deterministic given env and store. 1: did something (or tried), 0: nothing to do now. */
int vv_tier_step(struct vv_tier *t);
/* Also for those: everything that is due is due now (manifest interval, back-off), without touching graces. */
void vv_tier_hurry(struct vv_tier *t);

/* ---- reading ---- */
struct vv_tier_read { /* caller-owned, must stay until done ran */
    struct vv_tier_part *part;
    int64_t offset, limit;     /* as in vv_read */
    size_t max_bytes;
    bool min_one;
    bool order;                /* what is fetched from here on goes to the disk cache: vv_tier_part_order_ready came before */
    void (*done)(struct vv_tier_read *r); /* exactly once */
    void *user;
    const struct vv_extent *found; /* the extent that the index named for offset; only looked at by vv_tier_read_start. NULL: none */
    /* out, valid in done */
    int err;                   /* 0; CORRUPT_MESSAGE (damaged, missing or foreign object); KAFKA_STORAGE_ERROR (store away
                                  past the deadline); E_TIMEOUT (wait cancelled: ask again, the download goes on);
                                  OFFSET_OUT_OF_RANGE (log start passed the offset); E_AGAIN (not remote, or where it is must
                                  be read from the disk: ask the index again); E_SHUTDOWN (the part is closing) */
    struct vv_chain bytes;     /* whole verified batches; first one holds offset; may cross extents; receiver releases */
    int64_t next_offset;       /* after the last batch; err 0, no bytes and above offset: nothing below it, read on there */
    struct vv_error error;
    /* the reader's own */
    void *waiter, *reader;
};
/* Starts a read of a REMOTE (or BOTH) extent found in the index. May call done before it returns when the bytes
 * are cached. Sequential callers get read-ahead across segment borders. */
void vv_tier_read_start(struct vv_tier_read *r);
/* May a read with `order` start? E_AGAIN: the disk cache has enough to write for now; E_UNSUPPORTED: there is none. */
int vv_tier_part_order_ready(struct vv_tier_part *p);
/* The wait is over (max.wait.ms): done is called with E_TIMEOUT soon unless it already ran; the download itself continues
 * into the cache for the retry. Any thread; also after the part was closed. May call done before it returns: hold no lock that
 * done takes. */
void vv_tier_read_cancel(struct vv_tier_read *r);
/* Exact time lookup in a remote extent: first record with timestamp >= ts and offset >= from, at most one footer GET and one or a
 * few blocks. done on a tier thread; err E_NOENT when the extent has none, E_AGAIN when another object took its place meanwhile: ask the
 * index again. */
void vv_tier_find_time(struct vv_tier_part *p, const struct vv_extent *x, int64_t ts, int64_t from,
                       void (*done)(void *ctx, int err, const struct vv_time_hit *hit), void *ctx);
/* Aborted transactions that overlap [from, to], from the footers of the remote extents there (read_committed); each once, by first
 * offset. OFFSET_OUT_OF_RANGE: the log start passed some of it meanwhile, what was read there must not be handed out.
 * E_AGAIN: the index must be read from the disk first (vv_index_find over the range). v is the callee's and valid in done only. */
void vv_tier_aborted(struct vv_tier_part *p, int64_t from, int64_t to,
                     void (*done)(void *ctx, int err, const struct vv_aborted *v, size_t n), void *ctx);

/* ---- topics, restore ---- */
/* topic.json and the cluster snapshot (topics, ids, partition counts, configs, opaque JSON made by the broker). [blocking] */
/* keep: a copy of this state stays for restores as of a time (thinned out with age); else at most one in ten minutes does. */
int vv_tier_put_snapshot(struct vv_tier *t, const char *json, size_t n, bool keep, struct vv_error *e);
int vv_tier_get_snapshot(struct vv_tier *t, char **json, size_t *n, struct vv_error *e); /* E_NOENT: a new bucket */
/* What was in the list of topics before: the newest copy kept at or before as_of_ms (INT64_MAX: the newest of all). E_NOENT: none that old;
 * *oldest_ms then says when the history begins, -1: there is none. [blocking] */
int vv_snapshots_get(struct vv_objstore *store, int64_t as_of_ms, char **json, size_t *n, int64_t *at_ms, int64_t *oldest_ms,
                     struct vv_error *e);
/* Topic deleted: tombstone all its objects; the housekeeper deletes them after the grace, which counts from deleted_ms (wall; 0 = now).
 * Told again it changes nothing. Works without open parts. [blocking] */
int vv_tier_delete_topic(struct vv_tier *t, struct vv_uuid topic_id, const char *topic, int64_t deleted_ms, struct vv_error *e);
/* The way back, under the same name or another: after it the objects are live again. E_STATE: too late, they are being deleted;
 * E_NOENT: the bucket knows of no such deletion; anything else: it may or may not have been done, tell the deletion again or repeat this.
 * The caller opens the parts afterwards. [blocking] */
int vv_tier_undelete_topic(struct vv_tier *t, struct vv_uuid topic_id, const char *topic, struct vv_error *e);
enum vv_tier_fate {
    VV_TIER_LIVE,     /* not on the list of deleted topics: never was, brought back, or gone for good */
    VV_TIER_DELETED,  /* tombstoned: can be brought back */
    VV_TIER_DELETING, /* irrevocable */
    VV_TIER_BUSY,     /* the list is being written: ask again */
};
enum vv_tier_fate vv_tier_topic_fate(struct vv_tier *t, struct vv_uuid topic_id); /* never waits; any thread */
/* Empty directory: fills a fresh index with the partition's remote extents (manifest, then roll-forward by listing this partition after its last
 * entry), sets log start, gives the leader epochs and producer snapshot of the newest footer. With the topic's name the
 * partition is taken, too: a head of our epoch goes over the one that was read, so that a writer who was overtaken and does not know it yet
 * writes none any more. E_CONFLICT: it did meanwhile; restore again. NULL: nothing is written. [blocking] */
struct vv_tier_restored {
    int64_t log_start, next_offset;     /* next_offset: where the new local log begins */
    struct vv_epoch *epochs; size_t epoch_count;   /* malloc'ed */
    uint8_t *snapshot; size_t snapshot_n;          /* producer snapshot as of next_offset; malloc'ed */
    int32_t epoch_used;                            /* leader epochs up to this one may have been used; -1: none */
};
int vv_tier_restore_part(struct vv_tier *t, struct vv_uuid topic_id, const char *topic, int32_t partition, struct vv_index *index,
                         struct vv_tier_restored *out, struct vv_error *e);

/* ---- a replica (tiering/replica.c) ---- */
#define VV_REPLICA_LOG_BASE (INT64_C(1) << 62) /* where its local log begins, in which nothing ever is: above all that is followed */
struct vv_tier_followed {
    int64_t log_start, end;   /* end: what is in the bucket ends there; where a replica's high watermark is */
    bool grown;               /* epochs are told: something is there that was not */
    struct vv_epoch *epochs; size_t epoch_count; /* malloc'ed */
};
/* One look: brings the part's index to what the bucket says now. A HEAD of its manifest and one LIST if nothing changed. Index first, then
 * *out. One thread per part. Only of a tier opened as a replica. [blocking] */
int vv_tier_follow_part(struct vv_tier_part *p, struct vv_tier_followed *out, struct vv_error *e);
/* The ETag of the list of topics, to see cheaply that it changed; "" = the store does not tell. [blocking] */
int vv_tier_snapshot_etag(struct vv_tier *t, char etag[VV_OBJ_ETAG_MAX], struct vv_error *e);

/* ---- a cluster seeded from somebody else's bucket (store: a vv_objpair of the own bucket and that one) ----
 * Until vv_tier_seeded, vv_tier_restore_part reads the origin's manifests, as of a time if one is given, and writes the own bucket's. */
struct vv_tier_seed { /* borrowed until vv_tier_seeded */
    struct vv_objstore *source;
    char cluster_id[64];
    struct vv_origins origins;  /* v[0] is the source itself */
    uint64_t writer_epoch;      /* of the source's root */
    int64_t (*log_start)(void *ctx, struct vv_uuid topic_id, int32_t partition); /* what the list of topics of that time says; -1: nothing */
    void *ctx;
};
void vv_tier_seed(struct vv_tier *t, const struct vv_tier_seed *seed); /* what an unfinished seeding left in the own bucket must go before: */
int vv_tier_seed_clear(struct vv_tier *t, struct vv_error *e);         /* [blocking] */
int vv_tier_seeded(struct vv_tier *t, struct vv_error *e);             /* every partition was restored: said in the root. [blocking] */
bool vv_tier_hydrates(const struct vv_tier *t); /* parts of the history may still lie in an origin only */
/* Before the data directory counts: writes down beside the data that the history may still lie in an origin. */
int vv_tier_keep_origins(struct vv_tier *t, struct vv_error *e);

/* ---- the bucket moves to another store (tiering/migrate.c) ---- */
enum vv_migrate_state { VV_MIGRATE_NONE, VV_MIGRATE_COPYING, VV_MIGRATE_SWITCHING, VV_MIGRATE_DONE, VV_MIGRATE_FAILED };
struct vv_tier_migration {
    struct vv_objstore *to; /* taken over, also by an error */
    void (*switched)(void *ctx, const char *url); /* the other bucket is the truth now: remember it before this returns. Its own thread */
    void *ctx;
};
/* Begins; once a life. A started tier, on control. Progress is in the statistics and the log. */
int vv_tier_migrate(struct vv_tier *t, const struct vv_tier_migration *o, struct vv_error *e);
void vv_tier_migrate_cancel(struct vv_tier *t); /* it ends soon, unless it has switched */

struct vv_tier_stats {
    uint64_t migrate_objects, migrate_bytes;
    enum vv_migrate_state migrate_state;
    uint64_t hydrate_objects_left, hydrate_bytes, hydrate_objects, hydrate_lost; /* from the origin; left 0: nothing (more) to bring */
    bool hydrating;
    uint64_t uploads, upload_bytes, upload_errors, fetch_requests, fetch_bytes, fetch_errors, deletes, delete_errors;
    uint64_t gc_objects, gc_uploads; /* collected: objects that were no part of any log, abandoned uploads in parts */
    uint64_t merges, merged_segments, merged_bytes; /* small objects that became bigger ones, and the bytes of those */
    uint64_t scrub_local_bytes, scrub_remote_bytes, scrub_damages, scrub_mended, scrub_passes;
    int64_t scrub_last_pass_ms;      /* wall; 0 = none yet */
    uint64_t cache_hits, cache_misses, cache_bytes, gets, puts, heads, lists;
    uint64_t copy_throttle_us; /* uploads were held back by upload_bytes_per_s */
    uint64_t reads_waiting, ranges_queued, gets_flying; /* now: reads that wait, ranges that wait for memory, GETs under way */
    uint64_t disk_hits, disk_hit_bytes, disk_misses, disk_writes, disk_write_bytes, disk_evictions, disk_bad, disk_errors,
        disk_bytes, disk_files; /* the disk cache */
    bool store_ok;             /* the last call reached the store */
};
void vv_tier_stats(struct vv_tier *t, struct vv_tier_stats *out);
const struct vv_objstore_stats *vv_tier_store_stats(const struct vv_tier *t); /* as long as the tier; any thread */
#endif
