/* log_impl.h — the log's own structure, shared by log.c, log_read.c, seal.c, recover.c and compact.c.
 *
 * Invariants: end only grows; flushed <= end; everything below flushed survives a power cut. Segments live in the unified index;
 * the log itself knows only the active one and those rolled but not yet sealed.
 * Locks: seal_mu (one sealer, compactor or closer) -> flush_mu (one flusher) -> mu (append: memory and one write) -> a segment's own.
 * epoch_mu is a leaf. */
#ifndef VARVE_LOG_IMPL_H
#define VARVE_LOG_IMPL_H
#include "varve/log.h"
#include "varve/vlog.h"
#include "epochs.h"
#include "prodstate.h"
#include "segment.h"

struct vv_log {
    struct vv_env *env;
    char *_Atomic dir;             /* changes once: vv_log_moved */
    char *old_dir, *topic;
    pthread_mutex_t dir_mu;        /* around removing files by path, and the move; a leaf */
    int32_t partition;
    struct vv_index *index;
    void (*on_event)(void *ctx, enum vv_log_event ev);
    void *ctx;

    pthread_mutex_t seal_mu, flush_mu, mu, epoch_mu;
    struct vv_log_config config;   /* mu */
    struct vv_segment *active;     /* mu; holds a reference */
    struct vv_segment *rolled;     /* mu; oldest first; each holds a reference */
    _Atomic int rolled_count;
    _Atomic int64_t seal_not_before_ms; /* monotonic: a seal that failed is asked for again only then */
    int64_t seal_wait_ms;          /* seal_mu */
    struct vv_prodstate *producers; /* mu */
    bool dir_dirty;                /* mu: a segment file was created since the directory was synced */
    bool parent_dirty;             /* flush_mu: nobody in this process has made the directory's own name durable yet */
    bool epochs_dirty;             /* epoch_mu: the first epoch of a new log, written with the first flush */
    int64_t settled_end;           /* as long as the log ends here the files on disk say so; -1: they never did */
    struct vv_epochs epochs;       /* epoch_mu */
    _Atomic int64_t end, flushed, first_unstable;
    _Atomic bool offline;
    int64_t compacted_to;          /* seal_mu: offsets below were compacted */
};

void vv_log_go_offline(struct vv_log *log, const char *what, int err);
/* Makes the directory, its name in the one above and the leader epochs durable, what of it is not yet. [blocking] */
int vv_log_sync_dir(struct vv_log *log);
int vv_log_settle_epochs(struct vv_log *log); /* 1: written and synced, its name is the caller's to sync; 0: was durable */
int vv_log_journal_seal(struct vv_log *log, struct vv_segment *s); /* seal.c: the index's part of a seal [blocking] */
/* mu held. Opens a new active segment at the log end; the old one, if not empty, joins the rolled. */
int vv_log_roll_locked(struct vv_log *log);
int vv_log_new_active(struct vv_log *log, int64_t base);
/* recover.c: everything vv_log_open does to the directory. */
int vv_log_recover(struct vv_log *log, const struct vv_log_opts *o, struct vv_error *e);
/* log_read.c: reads and checks whole batches one after the other; each() gets the full batch. Stops at `to` bytes. *at is where it
 * stopped. verify: CRC too. Returns 0, what each() returned, or E_CORRUPT at *at. [blocking] */
int vv_log_walk(struct vv_env *env, struct vv_file *f, uint64_t *at, uint64_t to, bool verify,
                int (*each)(void *ctx, const uint8_t *p, const struct vv_batch *b, uint64_t at), void *ctx);
/* The epoch of the batch at this offset, and the first offset above it that has another one. */
int32_t vv_log_epoch_span(struct vv_log *log, int64_t offset, int64_t *end);
int vv_log_write_snapshot(struct vv_log *log, const uint8_t *p, size_t n, int64_t offset);
#endif
