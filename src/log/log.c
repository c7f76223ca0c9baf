/* log.c — one partition's log: open, append, roll, flush, close. Contract: varve/log.h; structure and locks: log_impl.h.
 *
 * An append is one pwrite under the log's mutex; nothing is visible before the write succeeded. After a failed write or sync
 * the log is offline for good: what the disk holds then is unknown, so nothing more is acknowledged. Only a full disk is not fatal,
 * as long as the partial write can be cut off again. */
#include "log_impl.h"

#include <stdlib.h>
#include <string.h>

void vv_log_go_offline(struct vv_log *log, const char *what, int err)
{
    if (atomic_exchange(&log->offline, true)) return;
    VLOG_ERROR("%s: %s failed (%s): the partition is offline and acknowledges nothing more; check the disk, then restart the broker",
               log->dir, what, vv_err_name(err));
    if (log->on_event) log->on_event(log->ctx, VV_LOG_OFFLINE);
}

static void log_free(struct vv_log *log)
{
    vv_segment_unref(log->active);
    for (struct vv_segment *s = log->rolled, *next; s; s = next) {
        next = s->next;
        vv_segment_unref(s);
    }
    vv_prodstate_free(log->producers);
    vv_epochs_release(&log->epochs);
    pthread_mutex_destroy(&log->seal_mu);
    pthread_mutex_destroy(&log->flush_mu);
    pthread_mutex_destroy(&log->mu);
    pthread_mutex_destroy(&log->epoch_mu);
    pthread_mutex_destroy(&log->dir_mu);
    free(log->dir);
    free(log->old_dir);
    free(log->topic);
    free(log);
}

int vv_log_open(const struct vv_log_opts *o, struct vv_log **out, struct vv_error *e)
{
    struct vv_log *log = calloc(1, sizeof *log);
    if (!log) return vv_error_set(e, VV_E_NOMEM, "%s: out of memory", o->dir);
    log->env = o->env;
    log->index = o->index;
    log->config = o->config;
    log->on_event = o->on_event;
    log->ctx = o->ctx;
    log->partition = o->partition;
    pthread_mutex_init(&log->seal_mu, NULL);
    pthread_mutex_init(&log->flush_mu, NULL);
    pthread_mutex_init(&log->mu, NULL);
    pthread_mutex_init(&log->epoch_mu, NULL);
    pthread_mutex_init(&log->dir_mu, NULL);
    log->dir = strdup(o->dir);
    log->topic = strdup(o->topic);
    log->producers = vv_prodstate_new();
    if (log->producers) vv_prodstate_now(log->producers, o->now_ms); /* what is found in the log may have come just now */
    int err = log->dir && log->topic && log->producers ? vv_log_recover(log, o, e)
                                                        : vv_error_set(e, VV_E_NOMEM, "%s: out of memory", o->dir);
    if (err) {
        log_free(log);
        return err;
    }
    vv_prodstate_expire(log->producers, o->now_ms, log->config.producer_expiry_ms);
    atomic_store(&log->first_unstable, vv_prodstate_first_unstable(log->producers));
    *out = log;
    return 0;
}

/* Nothing was appended, rolled or recovered since the files on disk said all of it. */
static bool settled(struct vv_log *log)
{
    return !vv_log_offline(log) && !atomic_load(&log->rolled_count) && vv_log_end(log) == log->settled_end;
}

static int flush(struct vv_log *log, bool names);

/* Records, producers and epochs are synced, then the names, then the journal that claims the records. The tables can be made again from the
 * records and say themselves whether they are whole: a power cut before the kernel wrote them costs the next start a scan. */
int vv_log_close(struct vv_log *log)
{
    if (settled(log)) {
        log_free(log);
        return 0;
    }
    int err = vv_log_offline(log) ? VV_E_OFFLINE : vv_log_seal_pending(log);
    if (!err) err = flush(log, false);
    pthread_mutex_lock(&log->mu);
    struct vv_segment *s = log->active;
    uint8_t *snapshot = NULL;
    size_t n = 0;
    int64_t end = vv_log_end(log);
    if (!err) err = vv_prodstate_encode(log->producers, &snapshot, &n);
    pthread_mutex_unlock(&log->mu);
    if (!err) err = vv_log_write_snapshot(log, snapshot, n, end);
    free(snapshot);
    /* With its tables on disk and no byte more than they cover, the open segment needs no scan at the next start. */
    if (!err && atomic_load(&s->bytes)) err = vv_segment_write_tables(s, false);
    if (!err) err = VV_MIN(vv_log_settle_epochs(log), 0);
    if (!err) err = vv_log_sync_dir(log);
    /* The journal knows it as it is now: the next start has nothing to write, and never cuts what is here. */
    if (!err && atomic_load(&s->bytes)) err = vv_log_journal_seal(log, s);
    if (err) VLOG_WARN("%s: not closed cleanly: %s", log->dir, vv_err_name(err));
    log_free(log);
    return err;
}

void vv_log_abandon(struct vv_log *log)
{
    log_free(log);
}

void vv_log_configure(struct vv_log *log, const struct vv_log_config *c)
{
    pthread_mutex_lock(&log->mu);
    log->config = *c;
    pthread_mutex_unlock(&log->mu);
}

/* ---- rolling ---- */

int vv_log_new_active(struct vv_log *log, int64_t base)
{
    struct vv_segment *s = vv_segment_new(log->env, log->dir, base);
    if (!s) return VV_E_NOMEM;
    int err = vv_segment_create(s);
    if (!err) {
        if (log->config.segment_jitter_ms > 0) {
            uint64_t r;
            vv_random(log->env, &r, sizeof r);
            s->jitter_ms = (int64_t)(r % (uint64_t)log->config.segment_jitter_ms);
        }
        err = vv_index_add_open(log->index, base, vv_log_epoch(log), s);
    }
    if (err) {
        vv_segment_unref(s);
        return err;
    }
    log->active = s;
    log->dir_dirty = true;
    return 0;
}

int vv_log_roll_locked(struct vv_log *log)
{
    struct vv_segment *old = log->active;
    if (!atomic_load(&old->bytes)) return 0;
    free(old->snapshot);
    old->snapshot = NULL;
    int err = vv_prodstate_encode(log->producers, &old->snapshot, &old->snapshot_n);
    if (!err) err = vv_log_new_active(log, vv_log_end(log));
    if (err) {
        log->active = old;
        return err;
    }
    struct vv_segment **tail = &log->rolled;
    while (*tail) tail = &(*tail)->next;
    *tail = old;
    atomic_fetch_add(&log->rolled_count, 1);
    return 0;
}

int vv_log_roll(struct vv_log *log)
{
    pthread_mutex_lock(&log->mu);
    int err = vv_log_offline(log) ? VV_E_OFFLINE : vv_log_roll_locked(log);
    pthread_mutex_unlock(&log->mu);
    return err;
}

static bool roll_wanted(struct vv_log *log, const struct vv_batch *b)
{
    const struct vv_segment *s = log->active;
    const struct vv_log_config *c = &log->config;
    uint64_t bytes = atomic_load_explicit(&s->bytes, memory_order_relaxed);
    if (!bytes) return false;
    if (bytes + b->bytes > (uint64_t)c->segment_bytes) return true;
    if (vv_log_end(log) + b->last_delta - s->base > INT32_MAX) return true;
    if ((int64_t)(s->offset_count + 1) * 8 > c->segment_index_bytes) return true;
    if (c->segment_ms >= INT64_MAX / 2) return false;
    return vv_mono_ms(log->env) - s->opened_mono_ms >= VV_MAX(c->segment_ms - s->jitter_ms, 1);
}

bool vv_log_roll_due(struct vv_log *log, int64_t idle_ms)
{
    pthread_mutex_lock(&log->mu);
    const struct vv_segment *s = log->active;
    int64_t limit = VV_MIN(VV_MAX(log->config.segment_ms - s->jitter_ms, 1), idle_ms);
    bool due = atomic_load(&s->bytes) && vv_mono_ms(log->env) - s->opened_mono_ms >= limit;
    pthread_mutex_unlock(&log->mu);
    return due;
}

/* ---- append ---- */

/* The write failed: nothing of it may stay, or the next append would leave a hole. */
static int write_failed(struct vv_log *log, uint64_t at, int err, struct vv_error *e)
{
    bool full = err == VV_E_NOSPC && !vv_fs_truncate(log->env, log->active->file, at);
    if (!full) vv_log_go_offline(log, "writing", err);
    return vv_error_set(e, err, full ? "%s: the disk is full; free space or raise tier.disk.reserve, then retry"
                                     : "%s: the write failed and the partition is offline; see the broker's log", log->dir);
}

/* A new segment could not be opened; the old one is as it was. */
static int roll_failed(struct vv_log *log, int err, struct vv_error *e)
{
    if (err != VV_E_NOSPC && !vv_err_scarce(err)) vv_log_go_offline(log, "opening a new segment", err);
    return vv_error_set(e, err, "%s: cannot open a new segment: %s", log->dir, vv_err_name(err));
}

static int note_epoch(struct vv_log *log, int32_t epoch, int64_t start)
{
    pthread_mutex_lock(&log->epoch_mu);
    bool first = !epoch && !start && !log->epochs.n; /* lost with everything else, a log begins with another one (vv_log_begin_epoch) */
    int changed = vv_epochs_latest(&log->epochs) < epoch ? vv_epochs_assign(&log->epochs, epoch, start) : 0;
    if (changed > 0) log->epochs_dirty |= first;
    if (changed > 0 && !first) changed = vv_epochs_save(&log->epochs, log->env, log->dir, true);
    pthread_mutex_unlock(&log->epoch_mu);
    return VV_MIN(changed, 0);
}

static int append_locked(struct vv_log *log, struct vv_append *a, struct vv_error *e)
{
    struct vv_batch b = *a->b;
    if (vv_log_offline(log)) return vv_error_set(e, VV_E_OFFLINE, "%s: offline after a disk error; see the broker's log", log->dir);
    a->duplicate = false;
    if (!a->replica) {
        int err = vv_prodstate_check(log->producers, &b, &a->duplicate, &a->base_offset, &a->last_offset, e);
        if (err || a->duplicate) return err;
    } else if (b.base_offset < vv_log_end(log)) {
        return vv_error_set(e, VV_E_STATE, "%s: batch at %lld does not continue the log at %lld", log->dir,
                            (long long)b.base_offset, (long long)vv_log_end(log));
    }
    if (roll_wanted(log, &b)) {
        int err = vv_log_roll_locked(log);
        if (err) return roll_failed(log, err, e);
    }
    if (!a->replica) {
        b.base_offset = vv_log_end(log);
        b.leader_epoch = a->leader_epoch;
        vv_put64(a->p, (uint64_t)b.base_offset);
        vv_put32(a->p + 12, (uint32_t)b.leader_epoch);
    }
    struct vv_segment *s = log->active;
    int err = b.producer_id >= 0 ? vv_prodstate_reserve(log->producers) : 0; /* once it is written, nothing may be wanting */
    if (!err) err = vv_segment_reserve(s);
    if (err) return vv_error_set(e, err, "%s: out of memory", log->dir);
    err = note_epoch(log, b.leader_epoch, b.base_offset);
    if (err) return write_failed(log, atomic_load(&log->active->bytes), err, e);
    uint64_t at = atomic_load_explicit(&s->bytes, memory_order_relaxed);
    err = vv_fs_pwrite(log->env, s->file, a->p, b.bytes, at);
    if (err) return write_failed(log, at, err, e);
    if (!a->replica) vv_prodstate_now(log->producers, a->now_ms);
    err = vv_prodstate_update(log->producers, &b);
    if (!err) err = vv_segment_account(s, a->p, &b, log->config.index_interval_bytes);
    if (err) return write_failed(log, at, err, e); /* what we know and what is there may differ */
    a->base_offset = b.base_offset;
    a->last_offset = vv_batch_last(&b);
    if (b.transactional) atomic_store(&log->first_unstable, vv_prodstate_first_unstable(log->producers));
    atomic_store_explicit(&log->end, a->last_offset + 1, memory_order_release);
    return 0;
}

int vv_log_append(struct vv_log *log, struct vv_append *a, struct vv_error *e)
{
    pthread_mutex_lock(&log->mu);
    int err = append_locked(log, a, e);
    pthread_mutex_unlock(&log->mu);
    return err;
}

int64_t vv_log_end(struct vv_log *log)
{
    return atomic_load_explicit(&log->end, memory_order_acquire);
}

int64_t vv_log_flushed(struct vv_log *log)
{
    return atomic_load_explicit(&log->flushed, memory_order_acquire);
}

int64_t vv_log_first_unstable(struct vv_log *log)
{
    return atomic_load_explicit(&log->first_unstable, memory_order_acquire);
}

bool vv_log_offline(struct vv_log *log)
{
    return atomic_load_explicit(&log->offline, memory_order_acquire);
}

/* ---- flush ---- */

int vv_log_sync_dir(struct vv_log *log)
{
    int err = vv_fs_sync_dir(log->env, log->dir);
    if (!err && log->parent_dirty) {
        err = vv_fs_sync_parent(log->env, log->dir);
        log->parent_dirty = err;
        if (!err) vv_index_dir_durable(log->index);
    }
    return err;
}

int vv_log_settle_epochs(struct vv_log *log)
{
    pthread_mutex_lock(&log->epoch_mu);
    bool dirty = log->epochs_dirty;
    int err = dirty ? vv_epochs_save(&log->epochs, log->env, log->dir, false) : 0;
    log->epochs_dirty = dirty && err;
    pthread_mutex_unlock(&log->epoch_mu);
    return err ? err : dirty;
}

/* names: with the directory and the first leader epoch, where these are not durable yet. */
static int flush(struct vv_log *log, bool names)
{
    enum { AT_ONCE = 64 };
    struct vv_segment *v[AT_ONCE];
    int err = 0;
    pthread_mutex_lock(&log->flush_mu);
    pthread_mutex_lock(&log->mu);
    size_t n = 0;
    int64_t end = vv_log_end(log);
    struct vv_segment *s = log->rolled;
    for (; s && n < AT_ONCE - 1; s = s->next) /* those that seals left behind may be on disk already */
        if (atomic_load(&s->next_offset) > vv_log_flushed(log)) v[n++] = s;
    bool dirty = names && log->dir_dirty;
    if (s) end = s->base; /* a long queue of seals: this call covers its beginning */
    else v[n++] = log->active;
    for (size_t i = 0; i < n; i++) vv_segment_ref(v[i]);
    log->dir_dirty = log->dir_dirty && !names;
    pthread_mutex_unlock(&log->mu);
    if (vv_log_offline(log)) err = VV_E_OFFLINE;
    bool needed = end > vv_log_flushed(log) || dirty;
    for (size_t i = 0; i < n && !err && needed; i++) {
        struct vv_file *f;
        err = vv_segment_enter(v[i], true, &f);
        if (err) break;
        err = vv_fs_datasync(log->env, f);
        vv_segment_leave(v[i], f);
    }
    int wrote = !err && needed && names ? vv_log_settle_epochs(log) : 0;
    if (!err) err = VV_MIN(wrote, 0);
    if (!err && (dirty || wrote)) err = vv_log_sync_dir(log);
    for (size_t i = 0; i < n; i++) vv_segment_unref(v[i]);
    if (vv_err_scarce(err)) { /* a file could not be opened, no sync failed: the next call does all of it */
        pthread_mutex_lock(&log->mu);
        log->dir_dirty |= dirty || wrote > 0;
        pthread_mutex_unlock(&log->mu);
    } else if (err && err != VV_E_OFFLINE) {
        vv_log_go_offline(log, "fdatasync", err);
    }
    if (!err && end > vv_log_flushed(log)) atomic_store_explicit(&log->flushed, end, memory_order_release);
    pthread_mutex_unlock(&log->flush_mu);
    if (!err && s) return flush(log, names);
    return err;
}

int vv_log_flush(struct vv_log *log)
{
    return flush(log, true);
}

/* ---- leader epochs ---- */

int vv_log_begin_epoch(struct vv_log *log, int32_t epoch)
{
    return note_epoch(log, epoch, vv_log_end(log));
}

int32_t vv_log_epoch(struct vv_log *log)
{
    pthread_mutex_lock(&log->epoch_mu);
    int32_t epoch = vv_epochs_latest(&log->epochs);
    pthread_mutex_unlock(&log->epoch_mu);
    return epoch;
}

int32_t vv_log_epoch_at(struct vv_log *log, int64_t offset)
{
    pthread_mutex_lock(&log->epoch_mu);
    int32_t epoch = vv_epochs_at(&log->epochs, offset);
    pthread_mutex_unlock(&log->epoch_mu);
    return epoch;
}

int32_t vv_log_epoch_span(struct vv_log *log, int64_t offset, int64_t *end)
{
    pthread_mutex_lock(&log->epoch_mu);
    int32_t epoch = vv_epochs_at(&log->epochs, offset);
    *end = INT64_MAX;
    for (size_t i = log->epochs.n; i > 0 && log->epochs.v[i - 1].start > offset; i--) *end = log->epochs.v[i - 1].start;
    pthread_mutex_unlock(&log->epoch_mu);
    return epoch;
}

void vv_log_epoch_end(struct vv_log *log, int32_t asked, int32_t *epoch, int64_t *end)
{
    pthread_mutex_lock(&log->epoch_mu);
    vv_epochs_end(&log->epochs, asked, vv_log_end(log), epoch, end);
    pthread_mutex_unlock(&log->epoch_mu);
}

size_t vv_log_epochs(struct vv_log *log, struct vv_epoch *out, size_t max)
{
    pthread_mutex_lock(&log->epoch_mu);
    size_t n = log->epochs.n;
    if (n && max) memcpy(out, log->epochs.v, VV_MIN(n, max) * sizeof *out);
    pthread_mutex_unlock(&log->epoch_mu);
    return n;
}

int vv_log_set_epochs(struct vv_log *log, const struct vv_epoch *v, size_t n)
{
    int err = 0;
    pthread_mutex_lock(&log->epoch_mu);
    vv_epochs_release(&log->epochs);
    for (size_t i = 0; i < n && err >= 0; i++) err = vv_epochs_assign(&log->epochs, v[i].epoch, v[i].start);
    if (err >= 0) err = vv_epochs_save(&log->epochs, log->env, log->dir, true);
    pthread_mutex_unlock(&log->epoch_mu);
    return VV_MIN(err, 0);
}

/* ---- producer snapshots, statistics, truncation ---- */

int vv_log_write_snapshot(struct vv_log *log, const uint8_t *p, size_t n, int64_t offset)
{
    char path[VV_SEGMENT_PATH];
    vv_segment_path(log->dir, offset, ".snapshot", path);
    return vv_segment_write_file(log->env, path, p, n, true);
}

int vv_log_load_snapshot(struct vv_log *log, const uint8_t *p, size_t n, int64_t at_offset)
{
    pthread_mutex_lock(&log->mu);
    int err = vv_prodstate_decode(log->producers, p, n);
    atomic_store(&log->first_unstable, vv_prodstate_first_unstable(log->producers));
    pthread_mutex_unlock(&log->mu);
    if (!err) err = vv_log_write_snapshot(log, p, n, at_offset);
    if (!err) err = vv_fs_sync_dir(log->env, log->dir);
    return err;
}

void vv_log_stats(struct vv_log *log, struct vv_log_stats *out)
{
    *out = (struct vv_log_stats){.segments = 1};
    pthread_mutex_lock(&log->mu);
    for (struct vv_segment *s = log->rolled; s; s = s->next) {
        out->rolled_bytes += atomic_load(&s->bytes);
        out->rolled_segments++;
    }
    out->open_bytes = (int64_t)(out->rolled_bytes + atomic_load(&log->active->bytes));
    out->segments += out->rolled_segments;
    pthread_mutex_unlock(&log->mu);
    struct vv_index_summary sum;
    vv_index_summary(log->index, &sum);
    out->bytes = sum.local_bytes + (uint64_t)out->open_bytes;
    out->segments = VV_MAX(out->segments, sum.local_extents);
}

int vv_log_moved(struct vv_log *log, const char *dir)
{
    struct vv_extent x;
    char *to = strdup(dir);
    if (!to) return VV_E_NOMEM;
    VV_ASSERT(!log->old_dir);
    pthread_mutex_lock(&log->dir_mu); /* who removes files by the old name is done before the name is free */
    log->old_dir = log->dir;
    log->dir = to;
    pthread_mutex_unlock(&log->dir_mu);
    int err = 0;
    for (int64_t at = 0; !err && !vv_index_next(log->index, at, &x); at = x.base + 1) {
        if (x.local) err = vv_segment_moved(x.local, dir);
        vv_extent_release(log->index, &x);
    }
    return err;
}

int vv_log_truncate(struct vv_log *log, int64_t offset)
{
    if (offset >= vv_log_end(log)) return 0;
    return VV_E_UNSUPPORTED; /* a single broker never has a record to take back; replication brings this with its tests */
}

/* There are no transactions here yet, so none was aborted; the transactional produce path brings the .txnindex with it. */
int vv_log_aborted(struct vv_log *log, int64_t from, int64_t to, struct vv_aborted **v, size_t *n)
{
    (void)log, (void)from, (void)to;
    *v = NULL;
    *n = 0;
    return 0;
}
