/* partition.h — the inside of a partition: the one place where log, index and tier meet.
 *
 * Invariants: high watermark <= log end; nothing below log start is handed out; the local copy of an extent
 * goes only from BOTH (index.h). Threads: reactors append and read; iopool threads flush and maintain; tier
 * threads report progress; `lock` guards the waiter lists and the flush queue and is held for list work only.
 * Lock order: topics rwlock -> partition lock -> index mutex; the log's own mutex is a leaf. */
#ifndef VARVE_PARTITION_H
#define VARVE_PARTITION_H
#include "broker.h"

#include <pthread.h>

/* A parked fetch: woken once per registration when the end moves (or the partition goes away). */
struct vv_waiter {
    struct vv_waiter *next, **link; /* link NULL: not registered */
    struct vv_reactor *reactor;
    struct vv_task *task; /* posted to reactor; coalesced */
};

/* Somebody waits for everything below `offset` to be on disk. done runs on an iopool thread, or at once. */
struct vv_flush_waiter {
    struct vv_flush_waiter *next;
    int64_t offset;
    void (*done)(struct vv_flush_waiter *w, int err);
};

/* Hot copies of the topic's config: replaced field by field, read without a lock. */
struct vv_partition_rules {
    _Atomic int64_t max_message_bytes, ts_before_max_ms, ts_after_max_ms;
    _Atomic int ts_type;
    _Atomic bool compacted, tiered, copy_disabled;
    _Atomic bool drop_remote; /* the tier was switched off for this topic: remote history goes */
    _Atomic int64_t flush_messages, delete_retention_ms;
    _Atomic int64_t retention_ms, retention_bytes, local_retention_ms, local_retention_bytes;
};

struct vv_partition {
    struct vv_broker *broker;
    struct vv_topic *topic; /* outlives the partition */
    int32_t id;
    char *dir;
    struct vv_index *index;
    struct vv_log *log;
    struct vv_tier_part *_Atomic tier; /* NULL: not tiered; set once, at open or by maintenance, and it stays */
    _Atomic int64_t high_watermark;
    struct vv_partition_rules rules;
    bool restored; /* vv_partition_restore made it */
    bool followed; /* a replica's: only what the bucket has, no log of its own, the high watermark is where that ends (replica.h) */

    pthread_mutex_t lock;
    struct vv_waiter *waiters;
    _Atomic int waiter_count;
    struct vv_flush_waiter *flush_waiters;
    bool flushing, flush_asked;
    struct vv_work flush_work;
    _Atomic bool closing;     /* no new appends, flushes or maintenance */
    _Atomic int appending;    /* appends under way; retire_dir waits for them */

    _Atomic int maintain_state; /* 0 idle, 1 queued, 2 running, 3 running and asked again */
    struct vv_work maintain_work;
    pthread_mutex_t maintaining; /* around maintenance and compaction; before lock */
    uint64_t compacted_bytes;    /* sealed bytes after the last compaction; with maintaining */
    int64_t swept_start;         /* log start the tier was last told of; with maintaining */
    pthread_cond_t idle; /* with lock: no append, flush or maintenance under way */
};

/* Opens or restores the partition below dir. clean: the broker's last stop was clean. Blocking. */
int vv_partition_open(struct vv_broker *b, struct vv_topic *t, int32_t id, bool clean, struct vv_partition **out,
                      struct vv_error *e);
/* Builds it anew from the bucket's. A mark lies in its directory until it is complete and durable: then it is as if it had been opened. */
#define VV_PARTITION_MARK "varve-restoring"
#define VV_PARTITION_MADE ".restoring" /* ends the name of a directory in which there is nothing but the mark yet */
int vv_partition_restore(struct vv_broker *b, struct vv_topic *t, int32_t id, struct vv_partition **out, struct vv_error *e);
void vv_partition_join(struct vv_partition *p); /* then, before anybody sees it: the tier takes it. On control */
void vv_partition_configure(struct vv_partition *p, const struct vv_topic_config *c);
int vv_partition_close(struct vv_partition *p);            /* clean: flush and close. Blocking */
void vv_partition_destroy(struct vv_partition *p);         /* topic deletion: forget, remove the files. Blocking */
/* Topic deletion, inside the grace: after retire_dir. What is proven in the bucket goes from the disk, the rest stays as after a clean
 * stop. Blocking. */
int vv_partition_put_aside(struct vv_partition *p);
int vv_partition_retire_dir(struct vv_partition *p);       /* rename the directory away, so that the name is free */

/* Leader append of one client batch (already checked). err as vv_log_append; wakes fetches. Any thread. */
int vv_partition_append(struct vv_partition *p, struct vv_append *a, struct vv_error *e);
void vv_partition_check_rules(struct vv_partition *p, int64_t now_ms, struct vv_batch_rules *out);
/* w->done once everything below w->offset is on disk (or failed). Group commit: one datasync serves all who wait. */
void vv_partition_flush_wait(struct vv_partition *p, struct vv_flush_waiter *w);
/* Flush soon, nobody waits (flush.ms, flush.messages). */
void vv_partition_flush_start(struct vv_partition *p);

void vv_partition_wait(struct vv_partition *p, struct vv_waiter *w);   /* on the waiter's reactor; then look again */
void vv_partition_unwait(struct vv_partition *p, struct vv_waiter *w);
void vv_partition_wake(struct vv_partition *p);

/* Seal what rolled, apply retention, tell the tier: coalesced, on the iopool. */
void vv_partition_maintain(struct vv_partition *p);
int64_t vv_partition_last_stable(struct vv_partition *p);
int64_t vv_partition_end(struct vv_partition *p); /* next offset */
/* A replica's look at the bucket: index, leader epochs, high watermark; wakes fetches. Blocking; one thread per partition. */
int vv_partition_follow(struct vv_partition *p, struct vv_error *e);
bool vv_partition_roll_due(struct vv_partition *p);

/* ---- between partition.c and partition_io.c ---- */
void vv_partition_flush_run(struct vv_work *w);
void vv_partition_advance(struct vv_partition *p); /* the high watermark, after the end moved */

/* retention.c: log start and local copies. Blocking; only from maintenance. */
void vv_retention_apply(struct vv_partition *p, int64_t now_ms, bool time_trusted);
/* Local files of extents wholly below log start go; remote ones are the tier's. */
int vv_retention_below_log_start(struct vv_partition *p);
#endif
