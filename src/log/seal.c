/* seal.c — closing a rolled segment: everything about it is made durable, then the index says SEALED.
 *
 * Order: log file, .index, .timeindex, producer snapshot, .blocks, leader epochs, directory, index journal. A crash between any two leaves a
 * segment that recovery scans or trusts (its .blocks covers every byte), never one that is sealed and incomplete. */
#include "log_impl.h"

#include <stdlib.h>

#define WAIT_MIN_MS 250
#define WAIT_MAX_MS 8000

/* With flush_mu: the kernel tells a failed write-back to one caller. A flush that syncs the same file after us and finds nothing
 * must find the log offline. */
static int sync_file(struct vv_log *log, struct vv_segment *s)
{
    pthread_mutex_lock(&log->flush_mu);
    int err = vv_log_offline(log) ? VV_E_OFFLINE : vv_fs_datasync(log->env, s->file);
    if (err && err != VV_E_OFFLINE) vv_log_go_offline(log, "fdatasync of a segment", err);
    pthread_mutex_unlock(&log->flush_mu);
    return err;
}

int vv_log_journal_seal(struct vv_log *log, struct vv_segment *s)
{
    struct vv_extent x = {.base = s->base,
                          .last = atomic_load(&s->next_offset) - 1,
                          .first_ts = s->first_ts,
                          .max_ts = s->max_ts,
                          .bytes = atomic_load(&s->bytes),
                          .epoch = s->epoch,
                          .sealed_ms = vv_wall_ms(log->env)};
    return vv_index_seal(log->index, &x);
}

static int seal_one(struct vv_log *log, struct vv_segment *s)
{
    int err = sync_file(log, s);
    if (err) return err;
    int64_t next = atomic_load(&s->next_offset);
    if (s->snapshot) err = vv_log_write_snapshot(log, s->snapshot, s->snapshot_n, next);
    if (!err) err = vv_segment_write_tables(s, true);
    if (!err) err = VV_MIN(vv_log_settle_epochs(log), 0); /* a sealed segment is not asked for its epochs again */
    if (!err) err = vv_fs_sync_dir(log->env, log->dir);
    if (!err && vv_log_offline(log)) err = VV_E_OFFLINE; /* a flush failed meanwhile: what we synced may be less than we think */
    return err ? err : vv_log_journal_seal(log, s);
}

/* What passes by itself is tried again, less and less often; after anything else nobody knows what the disk holds. */
static void seal_failed(struct vv_log *log, struct vv_segment *s, int err)
{
    if (vv_log_offline(log)) return;
    if (err != VV_E_NOSPC && !vv_err_scarce(err)) {
        vv_log_go_offline(log, "closing a segment", err);
        return;
    }
    log->seal_wait_ms = log->seal_wait_ms ? VV_MIN(log->seal_wait_ms * 2, (int64_t)WAIT_MAX_MS) : WAIT_MIN_MS;
    atomic_store(&log->seal_not_before_ms, vv_mono_ms(log->env) + log->seal_wait_ms);
    VLOG_WARN("%s: closing segment %lld failed (%s); the next try is in %lld ms", log->dir, (long long)s->base, vv_err_name(err),
              (long long)log->seal_wait_ms);
}

int vv_log_seal_pending(struct vv_log *log)
{
    int err = 0;
    pthread_mutex_lock(&log->seal_mu);
    for (;;) {
        pthread_mutex_lock(&log->mu);
        struct vv_segment *s = log->rolled;
        pthread_mutex_unlock(&log->mu);
        if (!s) break;
        err = vv_log_offline(log) ? VV_E_OFFLINE : seal_one(log, s);
        if (err) {
            seal_failed(log, s, err);
            break;
        }
        log->seal_wait_ms = 0;
        atomic_store(&log->seal_not_before_ms, 0);
        pthread_mutex_lock(&log->mu);
        log->rolled = s->next;
        s->next = NULL;
        pthread_mutex_unlock(&log->mu);
        atomic_fetch_sub(&log->rolled_count, 1);
        vv_segment_drop_tables(s);
        vv_segment_unpin(s);
        vv_segment_unref(s);
        if (log->on_event) log->on_event(log->ctx, VV_LOG_SEALED);
    }
    pthread_mutex_unlock(&log->seal_mu);
    return err;
}

bool vv_log_has_pending_seal(struct vv_log *log)
{
    if (atomic_load_explicit(&log->rolled_count, memory_order_relaxed) <= 0 || vv_log_offline(log)) return false;
    int64_t not_before = atomic_load_explicit(&log->seal_not_before_ms, memory_order_relaxed);
    return !not_before || vv_mono_ms(log->env) >= not_before;
}

/* ---- what the tierer needs of a sealed segment ---- */

int vv_segment_read_raw(struct vv_segment *s, void *dst, size_t n, uint64_t at)
{
    struct vv_file *f;
    int err = vv_segment_enter(s, true, &f);
    if (err) return err;
    ssize_t got = vv_fs_pread(s->env, f, dst, n, at);
    vv_segment_leave(s, f);
    if (got < 0) return (int)got;
    return (size_t)got == n ? 0 : VV_E_CORRUPT;
}

int vv_segment_blocks(struct vv_segment *s, struct vv_blocks *out)
{
    return vv_segment_load_blocks(s, out);
}

int vv_segment_snapshot(struct vv_segment *s, uint8_t **p, size_t *n)
{
    char path[VV_SEGMENT_PATH];
    vv_segment_path(s->dir, atomic_load(&s->next_offset), ".snapshot", path);
    int err = vv_fs_read_file(s->env, path, (size_t)64 << 20, p, n);
    if (!err) {
        struct vv_prodstate *probe = vv_prodstate_new();
        err = probe ? vv_prodstate_decode(probe, *p, *n) : VV_E_NOMEM;
        vv_prodstate_free(probe);
        if (!err) return 0;
        free(*p);
        *p = NULL;
        if (err == VV_E_CORRUPT) VLOG_WARN("%s: damaged, it is left out of the upload", path);
    }
    if (err != VV_E_NOENT && err != VV_E_CORRUPT) return err;
    *p = calloc(1, 1);
    *n = 0;
    return *p ? 0 : VV_E_NOMEM;
}

/* The segment's snapshot is the state at its base: useless once it is gone. */
int vv_log_drop_local(struct vv_log *log, struct vv_segment *s)
{
    pthread_mutex_lock(&log->dir_mu);
    int err = vv_segment_unlink(log->env, log->dir, s->base);
    if (!err) err = vv_fs_sync_dir(log->env, log->dir);
    pthread_mutex_unlock(&log->dir_mu);
    return err;
}
