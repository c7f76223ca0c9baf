/* epochs.h — the leader epochs of one partition (KIP-101): which epoch began at which offset.
 *
 * An ascending list in memory, mirrored in Kafka's `leader-epoch-checkpoint` (text: version 0, count, then "epoch start" lines).
 * One owner: the log, under its own mutex for this list; save is [blocking]. */
#ifndef VARVE_LOG_EPOCHS_H
#define VARVE_LOG_EPOCHS_H
#include "varve/log.h"

struct vv_epochs { /* init {0} */
    struct vv_epoch *v;
    size_t n, cap;
};
void vv_epochs_release(struct vv_epochs *e);
/* Adds (epoch, start) when epoch is above the latest; entries at or above start go first (they never got a record). Returns 1
 * when the list changed, 0 when not, or a negative error. */
int vv_epochs_assign(struct vv_epochs *e, int32_t epoch, int64_t start);
void vv_epochs_cut_end(struct vv_epochs *e, int64_t end);     /* drop entries that start above end (truncation, torn tail) */
void vv_epochs_cut_start(struct vv_epochs *e, int64_t start); /* log start moved: the one in force at start begins there now */
int32_t vv_epochs_latest(const struct vv_epochs *e);          /* -1 when empty */
int32_t vv_epochs_at(const struct vv_epochs *e, int64_t offset); /* -1 when unknown */
/* KIP-101: largest epoch <= asked and the end of it (the next one's start, log_end for the latest); -1, -1 when unknown. */
void vv_epochs_end(const struct vv_epochs *e, int32_t asked, int64_t log_end, int32_t *epoch, int64_t *end);
/* File dir/leader-epoch-checkpoint, atomic and durable; without `name` the directory is the caller's to sync. Load: absent is an empty list, nonsense is E_CORRUPT. */
int vv_epochs_save(const struct vv_epochs *e, struct vv_env *env, const char *dir, bool name);
int vv_epochs_load(struct vv_epochs *e, struct vv_env *env, const char *dir);
#endif
