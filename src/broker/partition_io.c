/* partition_io.c — what flows through a partition: appends, the high watermark, parked fetches, group commit, the
 * broker's own reads and writes of internal topics. Contract: partition.h.
 *
 * Invariants: a flush waiter is completed once, without locks; at most one flush of a partition is under way and
 * everybody who came before it began is served by it. A fetch waiter is posted to under the lock, so that after unwait
 * nothing comes. */
#include "partition.h"
#include "metrics.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdlib.h>

#define SCAN_BYTES  (1024 * 1024)
#define RECORDS_MIN ((size_t)64 << 20)  /* decompressed bytes of one batch: at least this much is fine, ... */
#define RECORDS_MAX ((size_t)256 << 20) /* ... never more than this, and in between 64 times the largest batch */

/* ---- offsets ---- */

int64_t vv_partition_high_watermark(struct vv_partition *p)
{
    return atomic_load_explicit(&p->high_watermark, memory_order_acquire);
}

int64_t vv_partition_log_start(struct vv_partition *p)
{
    return vv_index_log_start(p->index);
}

int32_t vv_partition_epoch(struct vv_partition *p)
{
    return vv_log_epoch(p->log);
}

int64_t vv_partition_last_stable(struct vv_partition *p)
{
    int64_t hw = vv_partition_high_watermark(p), unstable = vv_log_first_unstable(p->log);
    return VV_MIN(hw, unstable);
}

/* One replica: what is in the log is committed. With followers this becomes the smallest end of the in-sync replicas.
 */
static void advance_high_watermark(struct vv_partition *p)
{
    int64_t end = vv_log_end(p->log), hw = atomic_load(&p->high_watermark);
    while (hw < end && !atomic_compare_exchange_weak(&p->high_watermark, &hw, end)) {
    }
}

void vv_partition_advance(struct vv_partition *p)
{
    advance_high_watermark(p);
    vv_partition_wake(p);
}

/* ---- appends ---- */

void vv_partition_check_rules(struct vv_partition *p, int64_t now_ms, struct vv_batch_rules *out)
{
    const struct vv_partition_rules *r = &p->rules;
    size_t max_bytes = (size_t)atomic_load_explicit(&r->max_message_bytes, memory_order_relaxed);
    *out = (struct vv_batch_rules){
        .max_bytes = max_bytes,
        .output_max = VV_MIN(VV_MAX(64 * max_bytes, RECORDS_MIN), RECORDS_MAX),
        .ts_type = (enum vv_ts_type)atomic_load_explicit(&r->ts_type, memory_order_relaxed),
        .now_ms = now_ms,
        .before_max_ms = atomic_load_explicit(&r->ts_before_max_ms, memory_order_relaxed),
        .after_max_ms = atomic_load_explicit(&r->ts_after_max_ms, memory_order_relaxed),
        .client = true,
        .compacted = atomic_load_explicit(&r->compacted, memory_order_relaxed),
    };
}

static bool append_begin(struct vv_partition *p)
{
    atomic_fetch_add(&p->appending, 1);
    return !atomic_load(&p->closing);
}

static void append_end(struct vv_partition *p)
{
    if (!atomic_load(&p->closing)) {
        atomic_fetch_sub(&p->appending, 1);
        return;
    }
    pthread_mutex_lock(&p->lock); /* whoever closes waits for the last one, and may free p once we let go */
    atomic_fetch_sub(&p->appending, 1);
    pthread_cond_broadcast(&p->idle);
    pthread_mutex_unlock(&p->lock);
}

int vv_partition_append(struct vv_partition *p, struct vv_append *a, struct vv_error *e)
{
    int err = VV_E_SHUTDOWN;
    if (!a->replica) a->leader_epoch = vv_partition_epoch(p);
    if (append_begin(p))
        err = vv_log_append(p->log, a, e);
    else
        vv_error_set(e, err, "the partition is being closed");
    if (!err && !a->duplicate) vv_partition_advance(p);
    if (!err && vv_log_has_pending_seal(p->log)) vv_partition_maintain(p);
    int64_t unflushed = atomic_load_explicit(&p->rules.flush_messages, memory_order_relaxed);
    if (!err && unflushed != INT64_MAX && a->last_offset + 1 - vv_log_flushed(p->log) >= unflushed)
        vv_partition_flush_start(p);
    append_end(p);
    return err;
}

/* ---- parked fetches ---- */

void vv_partition_wait(struct vv_partition *p, struct vv_waiter *w)
{
    pthread_mutex_lock(&p->lock);
    if (!w->link) {
        w->next = p->waiters;
        w->link = &p->waiters;
        if (w->next) w->next->link = &w->next;
        p->waiters = w;
        p->waiter_count++;
    }
    pthread_mutex_unlock(&p->lock);
}

static void waiter_unlink(struct vv_partition *p, struct vv_waiter *w)
{
    *w->link = w->next;
    if (w->next) w->next->link = w->link;
    w->link = NULL;
    w->next = NULL;
    p->waiter_count--;
}

void vv_partition_unwait(struct vv_partition *p, struct vv_waiter *w)
{
    pthread_mutex_lock(&p->lock);
    if (w->link) waiter_unlink(p, w);
    pthread_mutex_unlock(&p->lock);
}

void vv_partition_wake(struct vv_partition *p)
{
    if (!atomic_load(&p->waiter_count)) return; /* who registers after this looks at the end after it registered */
    pthread_mutex_lock(&p->lock);
    while (p->waiters) {
        struct vv_waiter *w = p->waiters;
        waiter_unlink(p, w);
        vv_reactor_post(w->reactor, w->task);
    }
    pthread_mutex_unlock(&p->lock);
}

/* ---- group commit ---- */

static int flush_log(struct vv_partition *p)
{
    int64_t began = vv_mono_us(p->broker->env);
    int err = vv_log_flush(p->log);
    vv_count(flushes, 1);
    vv_count(flush_us, vv_mono_us(p->broker->env) - began);
    return err;
}

static void complete(struct vv_flush_waiter *w, int err)
{
    while (w) {
        struct vv_flush_waiter *next = w->next; /* done may free it */
        w->done(w, err);
        w = next;
    }
}

/* Takes those that are served by a flush up to flushed (all of them after an error), oldest first. lock held. */
static struct vv_flush_waiter *take_served(struct vv_partition *p, int64_t flushed, bool all)
{
    struct vv_flush_waiter *served = NULL, **link = &p->flush_waiters;
    while (*link) {
        struct vv_flush_waiter *w = *link;
        if (!all && w->offset > flushed) {
            link = &w->next;
            continue;
        }
        *link = w->next;
        w->next = served;
        served = w;
    }
    return served;
}

void vv_partition_flush_run(struct vv_work *work)
{
    struct vv_partition *p = VV_CONTAINER(work, struct vv_partition, flush_work);
    pthread_mutex_lock(&p->lock);
    while (p->flush_waiters || p->flush_asked) {
        p->flush_asked = false;
        pthread_mutex_unlock(&p->lock);
        int err = flush_log(p);
        int64_t flushed = vv_log_flushed(p->log);
        pthread_mutex_lock(&p->lock);
        struct vv_flush_waiter *served = take_served(p, flushed, err != VV_OK);
        pthread_mutex_unlock(&p->lock);
        complete(served, err);
        pthread_mutex_lock(&p->lock);
    }
    p->flushing = false;
    pthread_cond_broadcast(&p->idle);
    pthread_mutex_unlock(&p->lock);
}

static void flush_begin(struct vv_partition *p) /* lock held */
{
    if (p->flushing) return;
    p->flushing = true;
    vv_iopool_submit(p->broker->iopool, &p->flush_work);
}

void vv_partition_flush_wait(struct vv_partition *p, struct vv_flush_waiter *w)
{
    VV_ASSERT(w->offset <= vv_log_end(p->log)); /* nobody waits for what was not appended: no flush would serve it */
    if (vv_log_flushed(p->log) >= w->offset) {
        w->done(w, VV_OK);
        return;
    }
    pthread_mutex_lock(&p->lock);
    bool closing = p->closing;
    if (!closing) {
        w->next = p->flush_waiters;
        p->flush_waiters = w;
        flush_begin(p);
    }
    pthread_mutex_unlock(&p->lock);
    if (closing) w->done(w, VV_E_SHUTDOWN);
}

void vv_partition_flush_start(struct vv_partition *p)
{
    pthread_mutex_lock(&p->lock);
    if (!p->closing && !p->flush_asked) {
        p->flush_asked = true;
        flush_begin(p);
    }
    pthread_mutex_unlock(&p->lock);
}

/* ---- internal topics ---- */

struct internal_wait {
    struct vv_flush_waiter w;
    struct vv_produce_done *d;
};

static void internal_done(struct vv_task *t)
{
    struct vv_produce_done *d = VV_CONTAINER(t, struct vv_produce_done, task);
    d->done(d, d->err);
}

static void internal_flushed(struct vv_flush_waiter *w, int err)
{
    struct internal_wait *iw = VV_CONTAINER(w, struct internal_wait, w);
    struct vv_produce_done *d = iw->d;
    free(iw);
    d->err = err;
    vv_broker_control_post(d->partition->broker, &d->task);
}

/* Committed offsets are durable before anybody hears of them, whatever log.flush.acks says of clients' records. */
int vv_partition_append_internal(struct vv_partition *p, uint8_t *batch, size_t n, struct vv_produce_done *d)
{
    struct vv_batch b;
    struct vv_error e = {0};
    int err = vv_batch_parse(batch, n, &b);
    if (err) return err;
    struct internal_wait *iw = calloc(1, sizeof *iw);
    if (!iw) return VV_E_NOMEM;
    struct vv_append a = {
        .p = batch, .b = &b, .now_ms = vv_wall_ms(p->broker->env)};
    err = vv_partition_append(p, &a, &e);
    if (err) {
        VLOG_ERROR("%s: cannot append: %s %s", p->dir, vv_err_name(err), e.text);
        free(iw);
        return err;
    }
    d->task = (struct vv_task){.run = internal_done};
    d->partition = p;
    d->offset = a.base_offset;
    d->err = VV_OK;
    *iw = (struct internal_wait){.w = {.offset = a.last_offset + 1, .done = internal_flushed}, .d = d};
    vv_partition_flush_wait(p, &iw->w);
    return VV_OK;
}

struct scan {
    int64_t from;
    int (*each)(void *ctx, const struct vv_record *r);
    void *ctx;
};

static int scan_record(void *ctx, const struct vv_record *r)
{
    struct scan *s = ctx;
    return r->offset < s->from ? 0 : s->each(s->ctx, r);
}

static int scan_batches(struct scan *s, const uint8_t *p, size_t n)
{
    int err = VV_OK;
    for (size_t at = 0; at < n && !err;) {
        struct vv_batch b;
        err = vv_batch_parse(p + at, n - at, &b);
        if (err) break;
        if (!b.control) err = vv_batch_each(p + at, &b, RECORDS_MAX, scan_record, s);
        at += b.bytes;
    }
    return err;
}

/* Reads one piece of the extent that holds *offset and moves *offset behind it. */
static int scan_piece(struct vv_partition *p, struct scan *s, const struct vv_extent *x, int64_t end, int64_t *offset,
                      struct vv_error *e)
{
    struct vv_chain bytes = {0};
    struct vv_read r = {
        .offset = VV_MAX(*offset, x->base), .limit = end, .max_bytes = SCAN_BYTES, .min_one = true, .may_block = true};
    int err = vv_log_read(p->log, x, &r, &bytes, e);
    for (size_t i = 0; i < bytes.count && !err; i++) err = scan_batches(s, bytes.v[i].p, bytes.v[i].n);
    bool last = !bytes.bytes || r.next_offset > x->last;
    if (!err) *offset = last ? VV_MAX(x->last == INT64_MAX ? end : x->last + 1, *offset) : r.next_offset;
    vv_chain_release(&bytes);
    return err;
}

int vv_partition_scan(struct vv_partition *p, int (*each)(void *ctx, const struct vv_record *r), void *ctx,
                      struct vv_error *e)
{
    struct scan s = {.from = vv_partition_log_start(p), .each = each, .ctx = ctx};
    int64_t offset = s.from, end = vv_log_end(p->log);
    int err = VV_OK;
    while (offset < end && !err) {
        struct vv_extent x;
        err = vv_index_find(p->index, offset, &x);
        if (err == VV_E_NOENT) return VV_OK; /* compaction left nothing up there */
        if (!err && !x.local)
            err = vv_error_set(e, VV_E_UNSUPPORTED, "%s: offset %" PRId64 " is not local", p->dir, offset);
        else if (!err)
            err = scan_piece(p, &s, &x, end, &offset, e);
        vv_extent_release(p->index, &x);
    }
    return err;
}

/* ---- sizes, DeleteRecords ---- */

void vv_partition_sizes(struct vv_partition *p, struct vv_partition_sizes *out)
{
    struct vv_index_summary s;
    struct vv_log_stats l;
    bool tiered = atomic_load(&p->rules.tiered);
    vv_log_stats(p->log, &l); /* first: a segment that is sealed in between counts twice rather than not at all */
    vv_index_summary(p->index, &s);
    *out = (struct vv_partition_sizes){
        .local_bytes = s.local_bytes + (uint64_t)VV_MAX(l.open_bytes, 0),
        .remote_bytes = s.remote_bytes,
        .remote_segments = s.remote_extents,
        .lag_bytes = tiered ? s.pending_bytes + l.rolled_bytes : 0,
        .lag_segments = tiered ? s.pending_extents + l.rolled_segments : 0,
        .log_start = s.log_start,
        .local_start = VV_MIN(VV_MAX(s.local_start, s.log_start), vv_partition_end(p)),
        .remote_end = s.remote_end,
        .high_watermark = vv_partition_high_watermark(p),
        .end = vv_partition_end(p),
    };
}

int vv_partition_delete_records(struct vv_partition *p, int64_t offset, int64_t *low, struct vv_error *e)
{
    int64_t hw = vv_partition_high_watermark(p);
    int err = VV_OK;
    *low = -1;
    if (offset == -1) offset = hw;
    if (offset < 0 || offset > hw)
        return vv_error_set(e, VV_OFFSET_OUT_OF_RANGE, "offset %" PRId64 " is not below the high watermark %" PRId64,
                            offset, hw);
    if (!append_begin(p)) err = vv_error_set(e, VV_E_SHUTDOWN, "the partition is being closed");
    /* A power cut must not leave a log that ends below its start. */
    if (!err && offset > vv_log_flushed(p->log)) err = flush_log(p);
    if (!err) err = vv_index_set_log_start(p->index, offset);
    if (!err) *low = vv_partition_log_start(p);
    append_end(p);
    if (err) return vv_error_set(e, err, "cannot move the log start: %s", vv_err_name(err));
    if (p->tier) vv_tier_part_commit_soon(p->tier);
    vv_partition_maintain(p);
    return VV_OK;
}

int vv_partition_undelete_records(struct vv_partition *p, int64_t *low, struct vv_error *e)
{
    *low = vv_partition_log_start(p);
    if (!p->tier) return VV_OK;
    pthread_mutex_lock(&p->maintaining); /* no retention meanwhile */
    int err = p->closing ? VV_NOT_LEADER_OR_FOLLOWER : vv_tier_part_undelete(p->tier, low, e);
    p->swept_start = VV_MIN(p->swept_start, *low);
    pthread_mutex_unlock(&p->maintaining);
    return err;
}
