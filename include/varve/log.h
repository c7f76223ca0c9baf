/* log.h — one partition's local log in Kafka's exact on-disk format.
 *
 * Directory <topic>-<partition>/ with <base:020>.log .index .timeindex .txnindex .snapshot, leader-epoch-checkpoint and
 * partition.metadata as Apache Kafka writes them (kafka-dump-log reads them), plus ours: <base:020>.blocks (blocks.h)
 * and varve.index (index.h).
 *
 * Append: vv_batch_check() outside any lock, then vv_log_append(): a short mutex {producer check, assign offset, write,
 * publish end with release}. Readers take no log lock: they look up the extent in the unified index, hold a
 * reference to its segment and read below the published end; bytes below the readable end never change.
 * Durability: vv_log_flush(); the broker's flusher groups callers. A failed write or sync takes the log offline
 * (E_OFFLINE from then on): never retried into an ack.
 *
 * Threads: any. Calls marked [blocking] touch the disk beyond the page cache and belong on the iopool. */
#ifndef VARVE_LOG_H
#define VARVE_LOG_H
#include "varve/buf.h"
#include "varve/env.h"
#include "varve/error.h"
#include "varve/index.h"
#include "varve/blocks.h"

/* ---- batches (src/log/batch.c): the v2 record batch, KIP-98 ---- */
#define VV_BATCH_HEADER 61      /* bytes before the records */
#define VV_BATCH_OVERHEAD 12    /* base offset and length, not counted in the length field */
enum vv_codec { VV_CODEC_NONE, VV_CODEC_GZIP, VV_CODEC_SNAPPY, VV_CODEC_LZ4, VV_CODEC_ZSTD };
enum vv_ts_type { VV_CREATE_TIME, VV_LOG_APPEND_TIME };

struct vv_batch { /* a decoded header; offsets and times as declared */
    int64_t base_offset, base_ts, max_ts, producer_id;
    int32_t length, leader_epoch, last_delta, base_sequence, records;
    uint32_t crc;
    int16_t attributes, producer_epoch;
    size_t bytes; /* length + VV_BATCH_OVERHEAD */
    bool transactional, control;
    enum vv_codec codec;
    enum vv_ts_type ts_type;
};
static inline int64_t vv_batch_last(const struct vv_batch *b) { return b->base_offset + b->last_delta; }
/* Header of the batch at p. E_AGAIN: fewer than 61 bytes or than the declared length; E_CORRUPT: not a v2 batch. */
int vv_batch_parse(const uint8_t *p, size_t n, struct vv_batch *out);
bool vv_batch_crc_ok(const uint8_t *p, const struct vv_batch *b);

struct vv_record { /* one record inside a batch; pointers into the (decompressed) bytes */
    int64_t offset, timestamp;
    const uint8_t *key, *value; /* NULL = null */
    int32_t key_n, value_n;     /* -1 = null */
    int32_t headers;            /* count; encoded headers at headers_p */
    const uint8_t *headers_p; size_t headers_n;
};
/* Calls each() for every record; decompresses under output_max (E_LIMIT above). each() returning non-zero stops and is returned. */
int vv_batch_each(const uint8_t *p, const struct vv_batch *b, size_t output_max,
                  int (*each)(void *ctx, const struct vv_record *r), void *ctx);

struct vv_batch_rules {
    size_t max_bytes;           /* max.message.bytes -> MESSAGE_TOO_LARGE */
    size_t output_max;          /* decompressed bytes -> INVALID_RECORD (a bomb) */
    enum vv_ts_type ts_type;    /* LOG_APPEND_TIME: stamp now */
    int64_t now_ms, before_max_ms, after_max_ms; /* message.timestamp.{before,after}.max.ms; INT64_MAX = off -> INVALID_TIMESTAMP */
    bool client;                /* reject control batches, require producer fields to make sense */
    bool compacted;             /* null keys -> INVALID_RECORD */
};
/* What a leader does before it appends: exactly one v2 batch (magic 0/1 -> UNSUPPORTED_FOR_MESSAGE_FORMAT), CRC, count = last_delta + 1, inner
 * offsets and times, codec, size and time rules. Patches p in place: timestamps (and CRC when they changed). Fills *out.
 * On a bad record *bad_record is its index (else -1) and *e says why. */
int vv_batch_check(uint8_t *p, size_t n, const struct vv_batch_rules *rules, struct vv_batch *out, int32_t *bad_record,
                   struct vv_error *e);

/* Builder of uncompressed batches for our own records (group offsets, tests, tools). */
struct vv_batch_builder;
struct vv_batch_builder *vv_batch_builder_new(void);
int vv_batch_builder_add(struct vv_batch_builder *b, int64_t ts, const void *key, int32_t key_n, const void *value, int32_t value_n);
int vv_batch_builder_add_record(struct vv_batch_builder *b, const struct vv_record *r); /* with its headers; the offset is not kept */
void vv_batch_builder_producer(struct vv_batch_builder *b, int64_t id, int16_t epoch, int32_t sequence); /* of this batch; -1 = none */
/* Finished batch with base offset 0, valid CRC; owned by the builder until the next add/free. */
int vv_batch_builder_finish(struct vv_batch_builder *b, uint8_t **p, size_t *n);
void vv_batch_builder_free(struct vv_batch_builder *b);

/* ---- the log ---- */
struct vv_log_config { /* topic configs that concern the log; replaced whole by vv_log_configure */
    int64_t segment_bytes, segment_ms, segment_index_bytes, index_interval_bytes, segment_jitter_ms;
    int64_t flush_messages, flush_ms; /* Kafka's; INT64_MAX = off */
    int64_t producer_expiry_ms;       /* producer.id.expiration.ms */
    bool compact;                     /* internal compacted topics */
};

enum vv_log_event {
    VV_LOG_SEALED,  /* a segment was sealed: [durable] and in the index */
    VV_LOG_OFFLINE, /* a write or sync failed */
};
struct vv_log_opts {
    struct vv_env *env;
    const char *dir;             /* the partition's directory; created when absent */
    const char *topic;
    int32_t partition;
    struct vv_uuid topic_id;     /* into partition.metadata; mismatch on open is E_CONFLICT */
    struct vv_index *index;      /* outlives the log */
    struct vv_log_config config;
    bool clean;                  /* the broker's clean-shutdown mark was there: scan only the OPEN segment's tail */
    int64_t recovery_point;      /* offsets below are known to be fsynced; 0 = scan every unsealed segment */
    int64_t start_offset;        /* base of the first segment when the directory is empty (restore: end of the bucket) */
    int64_t now_ms;
    void (*on_event)(void *ctx, enum vv_log_event ev); /* any thread, no locks held; may be NULL */
    void *ctx;
};
struct vv_log;
/* Recovers: cuts torn tails to the last whole batch with a good CRC, rebuilds missing or damaged index files, epochs and
 * producer state (snapshot + replay), only scanning what is not known clean. [blocking] */
int vv_log_open(const struct vv_log_opts *o, struct vv_log **out, struct vv_error *e);
/* Clean close: flush, producer snapshot. vv_log_abandon: close without writing anything (crash tests, deletion). */
int vv_log_close(struct vv_log *log);
void vv_log_abandon(struct vv_log *log);
void vv_log_configure(struct vv_log *log, const struct vv_log_config *c);

struct vv_append {
    uint8_t *p;               /* one checked batch; base offset and leader epoch are patched in place */
    const struct vv_batch *b; /* from vv_batch_check (leader) or vv_batch_parse (replica) */
    int32_t leader_epoch;
    bool replica;             /* keep offset and epoch as they are; must continue the log */
    int64_t now_ms;
    /* out */
    int64_t base_offset, last_offset;
    bool duplicate;           /* already there (idempotent retry): base/last are the original's */
};
/* OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID per KIP-98/360; E_NOSPC, E_IO, E_OFFLINE.
 * Rolls the segment first when size, time, index or offset range ask for it; the seal of the old one is [blocking] and is done by
 * whoever calls vv_log_seal_pending (the broker's iopool), not here. */
int vv_log_append(struct vv_log *log, struct vv_append *a, struct vv_error *e);
/* Roll now when the open segment is not empty (timed sealing, shutdown, tests). */
int vv_log_roll(struct vv_log *log);
/* Finish seals that rolls left behind: fsync of log, indexes, snapshot and directory, write .blocks, index SEALED, event. [blocking] */
int vv_log_seal_pending(struct vv_log *log);
bool vv_log_has_pending_seal(struct vv_log *log); /* and it is time to try: one that failed for a full disk waits a little */
/* True when the open segment is older than segment.ms / idle_ms by the monotonic clock and not empty. */
bool vv_log_roll_due(struct vv_log *log, int64_t idle_ms);

int64_t vv_log_end(struct vv_log *log);           /* next offset; acquire */
int64_t vv_log_flushed(struct vv_log *log);       /* offsets below are on disk */
int vv_log_flush(struct vv_log *log);             /* datasync everything appended so far (files, new segment's directory) [blocking] */
int64_t vv_log_first_unstable(struct vv_log *log);/* first offset of an open transaction; INT64_MAX when none */
bool vv_log_offline(struct vv_log *log);

struct vv_read {
    int64_t offset;     /* first offset wanted: the batch that holds it is the first one returned */
    int64_t limit;      /* only batches whose last offset < limit (high watermark, LSO, log end) */
    size_t max_bytes;
    bool min_one;       /* one whole batch even when larger than max_bytes */
    bool may_block;     /* false: E_AGAIN when the disk would be asked, or more than 1 MiB copied */
    /* out */
    int64_t next_offset;/* offset after the last returned batch */
};
/* Whole batches of one local segment, every CRC verified on the way out (E_CORRUPT says where in *e). out gets one slice. */
int vv_log_read(struct vv_log *log, const struct vv_extent *x, struct vv_read *r, struct vv_chain *out, struct vv_error *e);
/* First record in this local segment with timestamp >= ts and offset >= from: exact. E_NOENT when none;
 * E_AGAIN: its files were removed meanwhile, ask the index again. [blocking] */
struct vv_time_hit { int64_t offset, timestamp; int32_t leader_epoch; };
int vv_log_find_time(struct vv_log *log, const struct vv_extent *x, int64_t ts, int64_t from, struct vv_time_hit *out);
/* The same search in memory, for bytes that came from the bucket: p holds whole batches. */
int vv_batches_find_time(const uint8_t *p, size_t n, int64_t ts, int64_t from, struct vv_time_hit *out);

/* Leader epochs (KIP-101): cached, in leader-epoch-checkpoint. */
struct vv_epoch { int32_t epoch; int64_t start; };
int vv_log_begin_epoch(struct vv_log *log, int32_t epoch); /* At the log end; durable before return, once the directory's own name is (the caller syncs the one above). Epoch 0 of a log
                                                             * that is new waits for the first flush. [blocking] */
int32_t vv_log_epoch(struct vv_log *log);                  /* latest, -1 when none */
int32_t vv_log_epoch_at(struct vv_log *log, int64_t offset);
/* KIP-101 answer: largest epoch <= asked and the end offset of it; epoch -1 / end -1 when unknown. */
void vv_log_epoch_end(struct vv_log *log, int32_t asked, int32_t *epoch, int64_t *end);
/* Copies up to max entries; returns the total count. */
size_t vv_log_epochs(struct vv_log *log, struct vv_epoch *out, size_t max);
int vv_log_set_epochs(struct vv_log *log, const struct vv_epoch *v, size_t n); /* restore */

extern const struct vv_segment_ref_ops vv_segment_refs; /* for vv_index_open */

/* What the tierer needs of a sealed segment. */
int vv_segment_read_raw(struct vv_segment *s, void *dst, size_t n, uint64_t at); /* exactly n bytes or an error [blocking] */
int vv_segment_blocks(struct vv_segment *s, struct vv_blocks *out);  /* decoded .blocks; caller releases [blocking] */
int vv_segment_snapshot(struct vv_segment *s, uint8_t **p, size_t *n);/* producer snapshot as of the end, Kafka's format; malloc'ed; n may be 0 */
struct vv_aborted { int64_t producer_id, first_offset, last_offset, last_stable_offset; };
/* Aborted transactions that overlap [from, to]; malloc'ed. */
int vv_log_aborted(struct vv_log *log, int64_t from, int64_t to, struct vv_aborted **v, size_t *n);
/* Remove the local files of a segment whose extent no longer has a local part. [blocking] */
int vv_log_drop_local(struct vv_log *log, struct vv_segment *s);
/* The directory was renamed (vv_index_move_dir): files are found, read and removed below dir from now on. Once in a log's life; no
 * append, flush or seal may be under way. */
int vv_log_moved(struct vv_log *log, const char *dir);
int vv_log_truncate(struct vv_log *log, int64_t offset); /* replicas: drop everything at or above [blocking] */
int vv_log_load_snapshot(struct vv_log *log, const uint8_t *p, size_t n, int64_t at_offset); /* restore */

/* Compaction of internal topics (__consumer_offsets): keeps the last value per key below the open segment, rewrites
 * sealed segments in place (Kafka's .cleaned/.swap protocol), drops tombstones older than delete_retention_ms. [blocking] */
int vv_log_compact(struct vv_log *log, int64_t delete_retention_ms);

struct vv_log_stats {
    uint64_t bytes, segments;
    int64_t open_bytes;                     /* not sealed: the active one and those that rolled */
    uint64_t rolled_bytes, rolled_segments; /* of these, closed and about to be sealed */
};
void vv_log_stats(struct vv_log *log, struct vv_log_stats *out);
#endif
