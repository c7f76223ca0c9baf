/* segment.h — one segment's local files: <base>.log and what belongs to it.
 *
 * A segment is OPEN (appended to; its tables live in memory) or closed (its tables are files: .index, .timeindex, .blocks). Bytes
 * below `bytes` never change, except that compaction of internal topics replaces the whole file under `file_lock`.
 * The .index is only a hint: a reader checks what it finds and falls back to the start of the segment.
 *
 * Threads: the log's mutex orders appends. Readers take `file_lock` (shared) around the file and `mu` for tables and hints; both
 * are leaves. Refcounted: the index holds one reference, whoever reads another; the last one closes the file. */
#ifndef VARVE_LOG_SEGMENT_H
#define VARVE_LOG_SEGMENT_H
#include "varve/log.h"

#include <pthread.h>
#include <stdatomic.h>

#define VV_SEGMENT_HINTS 8

struct vv_segment {
    atomic_int refs;
    struct vv_env *env;
    char *_Atomic dir;            /* changes once, under file_lock alone: vv_segment_moved */
    char *old_dir;
    int64_t base;
    _Atomic int64_t next_offset;  /* after its last batch */
    _Atomic uint64_t bytes;       /* published length of the .log file */
    pthread_rwlock_t file_lock;
    struct vv_file *file;         /* NULL: not open now */
    bool pinned;                  /* open or unsealed: the file stays open */

    /* What is known about its batches; written by the appender, or by recovery. */
    int64_t first_ts, max_ts, max_ts_offset; /* -1 when none; max_ts_offset: last offset of that batch */
    int32_t epoch;                           /* of the first batch */
    int64_t opened_mono_ms;                  /* first append, for rolling by time */
    int64_t jitter_ms;

    pthread_mutex_t mu;
    bool open;                    /* tables below are in memory */
    struct { uint32_t rel, at; } *offsets;               /* Kafka's .index: last offset of a batch, its position */
    size_t offset_count, offset_cap;
    struct { int64_t ts; uint32_t rel; } *times;         /* Kafka's .timeindex: largest so far, last offset of its batch */
    size_t time_count, time_cap;
    uint64_t since_index;         /* bytes since the last entry */
    struct vv_blocks blocks;
    struct { int64_t offset; uint64_t at; } hints[VV_SEGMENT_HINTS]; /* where sequential readers go on; offset -1 = free */
    unsigned next_hint;

    uint8_t *snapshot;            /* producer state as of the roll, until the seal wrote it */
    size_t snapshot_n;
    struct vv_segment *next;      /* of the log's list of rolled ones */
};

struct vv_segment *vv_segment_new(struct vv_env *env, const char *dir, int64_t base); /* one reference; NULL: no memory */
void vv_segment_ref(struct vv_segment *s);
void vv_segment_unref(struct vv_segment *s); /* NULL is fine */
int vv_segment_moved(struct vv_segment *s, const char *dir); /* its files are there now */
/* <dir>/<offset:020><suffix> into path. */
#define VV_SEGMENT_PATH 4096
void vv_segment_path(const char *dir, int64_t offset, const char *suffix, char path[VV_SEGMENT_PATH]);

/* The open segment's file, kept open for appends. [blocking] */
int vv_segment_create(struct vv_segment *s);      /* a new, empty file */
int vv_segment_open_file(struct vv_segment *s);   /* an existing one */
void vv_segment_unpin(struct vv_segment *s);      /* closed for good: the file is one of the many kept open for readers */
/* The path has other bytes now: the next reader opens it again. The caller holds file_lock alone. */
void vv_segment_forget_file(struct vv_segment *s);
/* Shared access to the file. E_AGAIN: may_block is false and it would have to be opened. *f is good until leave. */
int vv_segment_enter(struct vv_segment *s, bool may_block, struct vv_file **f);
void vv_segment_leave(struct vv_segment *s, struct vv_file *f);

/* Room for what the next batch adds to the tables: vv_segment_account does not fail for want of memory after it. E_NOMEM. */
int vv_segment_reserve(struct vv_segment *s);
/* Takes note of one batch at position `at` (the present end): tables, times, epoch, next_offset, bytes. The caller holds the log's
 * mutex or owns the segment. E_NOMEM leaves everything as it was. */
int vv_segment_account(struct vv_segment *s, const uint8_t *p, const struct vv_batch *b, int64_t index_interval);
/* A batch at or before the one that holds offset: its position, and what its base or last offset should be (-1: not known).
 * E_AGAIN as above. */
struct vv_place {
    uint64_t at;
    int64_t base, last;
};
int vv_segment_lookup(struct vv_segment *s, int64_t offset, bool may_block, struct vv_place *out);
void vv_segment_hint(struct vv_segment *s, int64_t offset, uint64_t at);
/* Writes .index, .timeindex and .blocks from the tables, in this order, each synced when durable; the directory is the caller's. [blocking] */
int vv_segment_write_tables(struct vv_segment *s, bool durable);
void vv_segment_drop_tables(struct vv_segment *s);  /* closed: memory back, files serve */
/* The other way round, after a clean stop, with blocks and max_ts known. E_CORRUPT: scan instead. [blocking] */
int vv_segment_load_tables(struct vv_segment *s, int64_t index_interval);
int vv_segment_load_blocks(struct vv_segment *s, struct vv_blocks *out); /* file or memory [blocking] */
/* Atomic, but for a power cut when not durable; sync the directory after. */
int vv_segment_write_file(struct vv_env *env, const char *path, const void *p, size_t n, bool durable);
int vv_segment_unlink(struct vv_env *env, const char *dir, int64_t base); /* all its files; absent ones are fine [blocking] */
#endif
