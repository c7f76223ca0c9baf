/* fetch_read.c — the bytes of one partition of a Fetch, from wherever they are.
 *
 * One question to the index says which extent holds the next offset. Local: read from the page cache at once, else by
 * the iopool. Remote: a read of the tier, all partitions in parallel. When an extent is done and there is room, the
 * next one follows, so a response crosses the border between cold and hot; only a second cold read waits for the next
 * request (the tier reads ahead).
 *
 * Budget: a read reserves bytes of the operation while it is under way, a cold one at most its share. The first partition that has data may return
 * one whole batch whatever the limits (KIP-74). Bytes already read are sent before an error that comes after them is
 * told. A reactor never waits for a disk: a page of the index that is not in memory is looked up on the iopool.
 * Threads: the operation's reactor; read_blocking, look_up, aborted_again on the iopool, remote_done on any thread (fetch.h). */
#include "fetch.h"
#include "metrics.h"
#include "varve/vlog.h"

#include <stdlib.h>

enum { AGAIN_MAX = 3, COLD_SHARE_MIN = 65536 };

int64_t vv_fetch_limit(const struct fetch_part *part)
{
    return part->op->committed ? vv_partition_last_stable(part->partition)
                               : vv_partition_high_watermark(part->partition);
}

/* At most one line a second: clients repeat a failing fetch as fast as they can. */
static void log_failure(const struct fetch_part *part, int err, const char *text)
{
    static _Atomic int64_t quiet_until_us;
    int64_t now = vv_reactor_now_us(part->op->c->x->reactor), until = atomic_load(&quiet_until_us);
    if (now < until || !atomic_compare_exchange_strong(&quiet_until_us, &until, now + 1000000)) return;
    VLOG_WARN("fetch of %s-%d at offset %lld failed: %s %s", part->topic->name, part->q.Partition,
              (long long)part->next, vv_err_name(err), text ? text : "");
}

void vv_fetch_fail(struct fetch_part *part, int err, const char *text)
{
    if (part->bytes.bytes) { /* told by the next fetch, which begins there */
        part->stuck = true;
        return;
    }
    if (part->partition && part->next < vv_partition_log_start(part->partition)) err = VV_OFFSET_OUT_OF_RANGE;
    if (part->partition && err != VV_OFFSET_OUT_OF_RANGE && text) log_failure(part, err, text);
    part->err = vv_err_kafka(err);
    part->op->failed = true;
}

/* ---- budget ---- */

/* What waits for the bucket holds its reservation meanwhile: those behind it, hot or cold, keep a share. Counted once a step: there
 * may be thousands. */
static int64_t cold_share(const struct fetch_part *part)
{
    struct fetch_op *op = part->op;
    if (op->hungry >= 0) {
        op->hungry = VV_MAX(0, op->hungry - 1);
    } else {
        op->hungry = 0;
        for (const struct fetch_part *p = part + 1; p < op->parts + op->part_count; p++)
            op->hungry += p->partition && !p->err && !p->diverging && vv_fetch_limit(p) > VV_MAX(p->next, p->seen_limit);
    }
    return VV_MIN(op->left, VV_MAX(op->left / (1 + op->hungry), COLD_SHARE_MIN));
}

static size_t reserve(struct fetch_part *part, int64_t left)
{
    struct fetch_op *op = part->op;
    part->min_one = !op->bytes && !op->min_one_given;
    op->min_one_given |= part->min_one;
    part->reserved = VV_MAX(0, VV_MIN(part->left, left));
    op->left -= part->reserved;
    return (size_t)part->reserved;
}

static void settle(struct fetch_part *part, size_t got)
{
    struct fetch_op *op = part->op;
    if (part->min_one && !got) op->min_one_given = false;
    part->min_one = false;
    op->left = VV_MAX(0, op->left + part->reserved - (int64_t)got);
    part->reserved = 0;
    part->left -= (int64_t)got;
    op->bytes += (int64_t)got;
}

static bool has_room(const struct fetch_part *part)
{
    const struct fetch_op *op = part->op;
    return (part->left > 0 && op->left > 0 && op->bytes < op->hot_max) || (!op->bytes && !op->min_one_given);
}

/* ---- reads that take their time ---- */

static struct fetch_io *io_of(struct fetch_part *part)
{
    if (!part->io) part->io = vv_arena_alloc(vv_call_arena(part->op->c), sizeof *part->io);
    if (part->io) *part->io = (struct fetch_io){0};
    return part->io;
}

static void read_blocking(struct vv_work *w)
{
    struct fetch_io *io = VV_CONTAINER(w, struct fetch_io, work);
    struct fetch_part *part = io->remote.user;
    io->err = vv_log_read(part->partition->log, &io->extent, &io->read, &io->bytes, &io->error);
    vv_reactor_post(part->op->c->x->reactor, &part->task);
}

static void remote_done(struct vv_tier_read *r)
{
    struct fetch_part *part = r->user;
    vv_reactor_post(part->op->c->x->reactor, &part->task);
}

static void pend(struct fetch_part *part, enum fetch_pending how)
{
    part->pending = how;
    part->op->pending++;
    part->op->cold_pending += how == FETCH_REMOTE;
}

/* ---- one extent; true: look for the next one ---- */

/* The client has used up its quota of cold reads: the part waits, within the fetch's time. */
static bool hold(struct fetch_part *part)
{
    struct fetch_op *op = part->op;
    int64_t ms = vv_fetch_quota(op, VV_QUOTA_REMOTE, 0);
    if (!ms) return false;
    int64_t now = vv_reactor_now_us(op->c->x->reactor), until = now + ms * 1000;
    part->stuck = part->held = true;
    if (!op->held_until_us || until < op->held_until_us) op->held_until_us = until;
    vv_count(quota_remote_us, VV_MAX(VV_MIN(until, op->due_us) - now, 0));
    vv_count(quota_remote_hits, 1);
    return true;
}

static int64_t remote_burst(const struct fetch_part *part)
{
    return vv_quota_burst(part->op->c->broker->quotas, VV_QUOTA_REMOTE, part->op->c->client_id);
}

static bool read_remote(struct fetch_part *part, const struct vv_extent *x)
{
    struct vv_partition *p = part->partition;
    if (part->bytes.bytes) {
        part->stuck = true;
        return false;
    }
    int ready = part->op->prewarm && p->tier ? vv_tier_part_order_ready(p->tier) : VV_OK;
    if (ready == VV_E_AGAIN) { /* told as no progress: asked again in a while */
        part->stuck = true;
        return false;
    }
    if (ready) {
        vv_fetch_fail(part, VV_INVALID_CONFIG, "there is no disk cache to prewarm (tier.cache.disk.bytes)");
        return false;
    }
    struct fetch_io *io = p->tier && vv_extent_is_remote(x) ? io_of(part) : NULL;
    if (!io) {
        vv_fetch_fail(part, VV_KAFKA_STORAGE_ERROR, "it is in the bucket, and the tier is off");
        return false;
    }
    if (hold(part)) return false;
    int64_t room = (int64_t)reserve(part, cold_share(part)), burst = remote_burst(part);
    io->remote = (struct vv_tier_read){
        .part = p->tier,
        .offset = VV_MAX(part->next, x->base),
        .limit = part->seen_limit,
        .max_bytes = (size_t)VV_MIN(room, burst),
        .min_one = part->min_one,
        .order = part->op->prewarm,
        .done = remote_done,
        .user = part,
        .found = x,
    };
    pend(part, FETCH_REMOTE);
    vv_tier_read_start(&io->remote);
    return false;
}

static bool read_later(struct fetch_part *part, struct vv_extent *x, const struct vv_read *r)
{
    struct fetch_io *io = io_of(part);
    if (!io) {
        settle(part, 0);
        vv_fetch_fail(part, VV_E_NOMEM, "out of memory");
        return false;
    }
    settle(part, 0); /* the disk likes large reads, whoever asks */
    io->extent = *x; /* with its reference */
    x->local = NULL;
    io->read = *r;
    io->read.max_bytes = reserve(part, part->op->left);
    io->read.min_one = part->min_one;
    io->read.may_block = true;
    io->remote.user = part;
    io->work.run = read_blocking;
    pend(part, FETCH_LOCAL);
    vv_iopool_submit(part->op->c->broker->iopool, &io->work);
    return false;
}

/* After a read of a local extent: where we are now. An open one may have been rolled since it was looked up. */
static bool local_result(struct fetch_part *part, const struct vv_extent *x, const struct vv_read *r, size_t got)
{
    /* Not even one batch of any size: what is left of this extent is a hole (compaction made it). */
    bool hole = !got && part->min_one && x->last < part->seen_limit;
    part->next = hole ? x->last + 1 : VV_MAX(part->next, r->next_offset);
    settle(part, got);
    if (part->next > x->last) return true;
    part->stuck = part->next < part->seen_limit;
    return part->stuck && got > 0 && x->state == VV_EXTENT_OPEN;
}

static void look_up(struct vv_work *w)
{
    struct fetch_io *io = VV_CONTAINER(w, struct fetch_io, work);
    struct fetch_part *part = io->remote.user;
    io->err = vv_index_find(part->partition->index, io->read.offset, &io->extent);
    vv_reactor_post(part->op->c->x->reactor, &part->task);
}

/* Where the offset lies is on the disk: an old page of the index. */
static void look_up_later(struct fetch_part *part)
{
    struct fetch_io *io = io_of(part);
    if (!io) {
        vv_fetch_fail(part, VV_E_NOMEM, "out of memory");
        return;
    }
    io->read.offset = part->next;
    io->remote.user = part;
    io->work.run = look_up;
    pend(part, FETCH_LOOKUP);
    vv_iopool_submit(part->op->c->broker->iopool, &io->work);
}

static bool read_failed(struct fetch_part *part, struct vv_extent *x, int err, const char *text)
{
    settle(part, 0);
    if (err == VV_E_AGAIN || err == VV_E_NOENT) { /* the local copy went between question and answer (retention) */
        part->stuck = part->op->ended;
        if (part->stuck || part->again++ < AGAIN_MAX) return !part->stuck;
    }
    /* The local copy is damaged, but the bucket has a proven one. */
    if ((err == VV_E_CORRUPT || err == VV_CORRUPT_MESSAGE) && x->state == VV_EXTENT_BOTH && part->partition->tier &&
        !part->op->ended) {
        log_failure(part, err, "in the local copy; the remote copy is served");
        return read_remote(part, x);
    }
    vv_fetch_fail(part, err, text && *text ? text : vv_err_name(err));
    return false;
}

/* A batch that would do alone, but not behind what a near client (hot_max) got already. With little there, the client's own limits
 * hold: it might wait for min_bytes, or meet the same little each time. */
static bool only_hot_max(const struct fetch_part *part, const struct vv_read *r)
{
    const struct fetch_op *op = part->op;
    return !r->min_one && op->bytes < op->hot_max / 2 && (int64_t)r->max_bytes < VV_MIN(part->left, op->left + part->reserved);
}

static bool read_local(struct fetch_part *part, struct vv_extent *x)
{
    struct vv_error e = {0};
    size_t before = part->bytes.bytes;
    struct vv_read r = {.offset = VV_MAX(part->next, x->base), .limit = part->seen_limit};
    r.max_bytes = reserve(part, VV_MIN(part->op->left, part->op->hot_max - part->op->bytes));
    r.min_one = part->min_one;
    r.next_offset = part->next;
    int err = vv_log_read(part->partition->log, x, &r, &part->bytes, &e);
    size_t got = part->bytes.bytes - before;
    if (err == VV_E_AGAIN || (!err && !got && only_hot_max(part, &r))) return read_later(part, x, &r);
    if (err) return read_failed(part, x, err, e.text);
    return local_result(part, x, &r, got);
}

/* first: the answer of a lookup for part->next that is already there, or NULL. */
static void advance(struct fetch_part *part, int first_err, const struct vv_extent *first)
{
    struct vv_index *index = part->partition->index;
    int64_t read_base = -1;
    part->seen_limit = vv_fetch_limit(part);
    part->stuck = part->held = false;
    for (bool more = true; more && part->next < part->seen_limit && !part->err;) {
        if (!has_room(part)) {
            part->stuck = true;
            if (first && !first_err) vv_extent_release(index, &(struct vv_extent){.local = first->local});
            return;
        }
        struct vv_extent x;
        int err = first ? first_err : vv_index_find_now(index, part->next, &x);
        if (first) x = *first;
        first = NULL;
        if (err == VV_E_AGAIN) {
            look_up_later(part);
            return;
        }
        bool nothing = err == VV_E_NOENT || (!err && (x.base >= part->seen_limit || x.base == read_base));
        if (nothing) { /* a hole at the end, or the rest of the same extent does not fit */
            part->stuck = true;
            if (!err) vv_extent_release(index, &x);
            return;
        }
        if (err) {
            vv_fetch_fail(part, err, "the index could not be read");
            return;
        }
        int64_t base = x.base;
        part->stuck = false;
        int64_t before = part->next;
        more = x.local ? read_local(part, &x) : read_remote(part, &x);
        read_base = part->next > before ? base : -1;
        if (x.local) vv_extent_release(index, &x);
    }
}

void vv_fetch_advance(struct fetch_part *part)
{
    advance(part, 0, NULL);
}

/* ---- results ---- */

static void take_lookup(struct fetch_part *part)
{
    struct fetch_io *io = part->io;
    struct vv_extent x = io->extent;
    if (!part->op->ended) {
        advance(part, io->err, &x);
    } else {
        part->stuck = true;
        if (!io->err) vv_extent_release(part->partition->index, &x);
    }
}

static void take_local(struct fetch_part *part)
{
    struct fetch_io *io = part->io;
    size_t got = io->err ? 0 : io->bytes.bytes;
    bool more;
    if (!io->err && vv_chain_append(&part->bytes, &io->bytes)) io->err = VV_E_NOMEM;
    vv_chain_release(&io->bytes);
    struct vv_extent x = io->extent;
    more = io->err ? read_failed(part, &x, io->err, io->error.text) : local_result(part, &x, &io->read, got);
    vv_extent_release(part->partition->index, &x);
    if (more && !part->op->ended) vv_fetch_advance(part);
}

static void aborted_found(void *ctx, int err, const struct vv_aborted *v, size_t n);

/* The index pages of what was read are in memory afterwards. */
static void aborted_again(struct vv_work *w)
{
    struct fetch_io *io = VV_CONTAINER(w, struct fetch_io, work);
    struct fetch_part *part = io->remote.user;
    struct vv_extent x;
    int err = VV_OK;
    for (int64_t at = part->q.FetchOffset; at < part->next && !err; at = x.last + 1) {
        err = vv_index_find(part->partition->index, at, &x);
        if (!err) vv_extent_release(part->partition->index, &x);
        if (!err && x.last == INT64_MAX) break;
    }
    vv_tier_aborted(part->partition->tier, part->q.FetchOffset, part->next - 1, aborted_found, part);
}

static void aborted_found(void *ctx, int err, const struct vv_aborted *v, size_t n)
{
    struct fetch_part *part = ctx;
    struct fetch_io *io = part->io;
    if (err == VV_E_AGAIN && part->again++ < AGAIN_MAX) {
        io->work.run = aborted_again;
        vv_iopool_submit(part->op->c->broker->iopool, &io->work);
        return;
    }
    io->err = err;
    if (!err && n) {
        io->aborted = malloc(n * sizeof *v);
        if (io->aborted) memcpy(io->aborted, v, n * sizeof *v);
        io->err = io->aborted ? 0 : VV_E_NOMEM;
        io->aborted_n = io->aborted ? n : 0;
    }
    vv_reactor_post(part->op->c->x->reactor, &part->task);
}

/* read_committed: what was aborted among the remote bytes stands in the footers, which the read has just used. */
static void find_aborted(struct fetch_part *part)
{
    pend(part, FETCH_ABORTED);
    vv_tier_aborted(part->partition->tier, part->q.FetchOffset, part->next - 1, aborted_found, part);
}

static void take_aborted(struct fetch_part *part)
{
    struct fetch_io *io = part->io;
    part->aborted = io->aborted;
    part->aborted_n = io->aborted_n;
    io->aborted = NULL;
    if (io->err) { /* records whose fate is unknown are not handed out */
        part->op->bytes -= (int64_t)part->bytes.bytes;
        vv_chain_release(&part->bytes);
        vv_fetch_fail(part, io->err, "the aborted transactions could not be read");
    } else if (!part->op->ended) {
        vv_fetch_advance(part);
    }
}

static void remote_failed(struct fetch_part *part, const struct vv_tier_read *r)
{
    bool again = r->err == VV_E_AGAIN && part->again++ < AGAIN_MAX;
    if (again && !part->op->ended) {
        vv_fetch_advance(part);
    } else if (again || r->err == VV_E_TIMEOUT) { /* not yet: the download goes on for the next request */
        part->stuck = true;
    } else {
        if (r->err != VV_OFFSET_OUT_OF_RANGE) {
            vv_count(fetch_cold_errors, 1);
            vv_topic_count(part->topic, cold_errors, 1);
        }
        vv_fetch_fail(part, r->err, r->error.text[0] ? r->error.text : vv_err_name(r->err));
    }
}

static void take_remote(struct fetch_part *part)
{
    struct vv_tier_read *r = &part->io->remote;
    size_t got = r->err ? 0 : r->bytes.bytes;
    bool moved = !r->err && r->next_offset > part->next;
    if (got && vv_chain_append(&part->bytes, &r->bytes)) {
        r->err = VV_E_NOMEM;
        got = 0;
    }
    vv_chain_release(&r->bytes);
    settle(part, got);
    if (r->err) {
        remote_failed(part, r);
        return;
    }
    vv_count(fetch_cold_bytes, got);
    vv_fetch_quota(part->op, VV_QUOTA_REMOTE, got);
    vv_topic_count(part->topic, cold_bytes, got);
    vv_topic_count(part->topic, cold_requests, 1);
    part->next = VV_MAX(part->next, r->next_offset);
    if (got && part->op->committed)
        find_aborted(part);
    else if (moved && !part->op->ended)
        vv_fetch_advance(part); /* local extents may follow */
    else
        part->stuck = true;
}

void vv_fetch_take(struct fetch_part *part)
{
    enum fetch_pending how = part->pending;
    part->pending = FETCH_IDLE;
    part->op->pending--;
    part->op->cold_pending -= how == FETCH_REMOTE;
    if (how == FETCH_LOOKUP)
        take_lookup(part);
    else if (how == FETCH_LOCAL)
        take_local(part);
    else if (how == FETCH_REMOTE)
        take_remote(part);
    else
        take_aborted(part);
}
