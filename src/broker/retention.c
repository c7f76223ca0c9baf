/* retention.c — what a partition forgets: total retention moves the log start, local retention drops copies that the
 * bucket has, and drops them before their time when the disk runs short.
 *
 * Invariants: the log start never passes the high watermark; only whole extents from the oldest on, the first that must
 * stay ends the walk; a local copy goes only from BOTH, or when its offsets are below the log start. With a tier part
 * the tier moves the extents, without one this file does. When the wall clock is not trusted the rules by time do
 * nothing. Threads: the partition's maintenance alone, blocking. */
#include "partition.h"
#include "housekeeper.h"
#include "metrics.h"
#include "varve/vlog.h"

#include <inttypes.h>

struct limits {
    int64_t ms, bytes; /* -1: no limit */
    int64_t now_ms;
    bool timed; /* the rule by time applies */
};

static struct limits limits_of(int64_t ms, int64_t bytes, int64_t now_ms, bool trusted)
{
    return (struct limits){.ms = ms, .bytes = bytes, .now_ms = now_ms, .timed = trusted && ms >= 0};
}

/* kept: bytes of everything from this extent on. */
static bool expired(const struct limits *l, const struct vv_extent *x, uint64_t kept)
{
    int64_t newest = x->max_ts >= 0 ? x->max_ts : x->sealed_ms;
    if (l->timed && newest > 0 && newest < l->now_ms && l->now_ms - newest > l->ms) return true;
    return l->bytes >= 0 && kept >= x->bytes && kept - x->bytes >= (uint64_t)l->bytes;
}

/* Bytes that still count: all live ones but those below the log start whose deletion is under way. */
struct weight {
    uint64_t total, local;
};

static struct weight weigh(struct vv_partition *p)
{
    struct vv_index_summary s;
    struct vv_log_stats l;
    struct vv_extent x;
    vv_index_summary(p->index, &s);
    vv_log_stats(p->log, &l);
    uint64_t open = (uint64_t)VV_MAX(l.open_bytes, 0);
    struct weight w = {.total = s.remote_bytes + s.pending_bytes + open, .local = s.local_bytes + open};
    for (int64_t at = 0; at < s.log_start && !vv_index_find(p->index, at, &x); at = x.last + 1) {
        vv_extent_release(p->index, &x);
        if (x.last >= s.log_start || x.state == VV_EXTENT_OPEN) break;
        w.total -= VV_MIN(x.bytes, w.total);
        if (x.state != VV_EXTENT_REMOTE) w.local -= VV_MIN(x.bytes, w.local);
    }
    return w;
}

/* ---- total retention ---- */

/* Nothing in the open segment is younger than the limit (or, by size, nothing of it may stay). */
static bool active_expired(struct vv_partition *p, const struct vv_extent *x, const struct limits *l, uint64_t kept)
{
    struct vv_time_hit hit;
    if (vv_partition_high_watermark(p) < vv_log_end(p->log) || vv_log_end(p->log) <= x->base) return false;
    if (l->bytes == 0 && kept > 0) return true;
    if (!l->timed || l->now_ms <= l->ms) return false;
    if (vv_log_find_time(p->log, x, l->now_ms - l->ms, x->base, &hit) != VV_E_NOENT) return false;
    return vv_log_find_time(p->log, x, 0, x->base, &hit) ==
           VV_OK; /* without times its age is unknown until it is sealed */
}

/* As Kafka does: a segment that is only expired records is closed, so that it can go. True: look at it again. */
static bool roll_active(struct vv_partition *p)
{
    int err = vv_log_roll(p->log);
    if (!err) err = vv_log_seal_pending(p->log);
    if (err) {
        vv_count(retention_errors, 1);
        VLOG_ERROR("%s: retention cannot close the open segment: %s", p->dir, vv_err_name(err));
    }
    return !err;
}

/* Where the log should start by the rules. */
static int64_t wanted_start(struct vv_partition *p, const struct limits *l)
{
    int64_t start = vv_partition_log_start(p), hw = vv_partition_high_watermark(p);
    uint64_t kept = weigh(p).total;
    struct vv_extent x;
    bool rolled = false;
    while (start < hw && !vv_index_find(p->index, start, &x)) {
        bool open = x.state == VV_EXTENT_OPEN;
        bool roll = open && x.last == INT64_MAX && !rolled && active_expired(p, &x, l, kept);
        vv_extent_release(p->index, &x);
        if (roll && roll_active(p)) {
            rolled = true;
            continue;
        }
        if (open || x.last >= hw || !expired(l, &x, kept)) break;
        start = x.last + 1;
        kept -= VV_MIN(x.bytes, kept);
    }
    return start;
}

static void move_log_start(struct vv_partition *p, int64_t to, const char *why)
{
    int64_t from = vv_partition_log_start(p);
    if (to <= from) return;
    int err = vv_index_set_log_start(p->index, to);
    if (err) {
        vv_count(retention_errors, 1);
        VLOG_ERROR("%s: cannot move the log start to %" PRId64 ": %s", p->dir, to, vv_err_name(err));
        return;
    }
    VLOG_INFO("%s: log start %" PRId64 " -> %" PRId64 " (%s)", p->dir, from, to, why);
}

/* ---- below the log start, without a tier part ---- */

static int delete_local_only(struct vv_partition *p, struct vv_extent *x)
{
    int err = vv_index_move(p->index, x->base, VV_EXTENT_DELETING, NULL);
    if (!err && x->local) err = vv_log_drop_local(p->log, x->local);
    if (!err) err = vv_index_remove(p->index, x->base); /* else the next start finishes it */
    return err;
}

/* The tier is off on this broker, the bucket has the bytes: remember that the object must go. */
static int tombstone(struct vv_partition *p, struct vv_extent *x)
{
    struct vv_extent dead = {.dead_ms = vv_wall_ms(p->broker->env)};
    int err = vv_index_move(p->index, x->base, VV_EXTENT_TOMBSTONED, &dead);
    if (!err && x->local) err = vv_log_drop_local(p->log, x->local);
    return err;
}

int vv_retention_below_log_start(struct vv_partition *p)
{
    int64_t log_start = vv_partition_log_start(p);
    struct vv_extent x;
    int first = VV_OK;
    for (int64_t at = 0; at < log_start && !vv_index_find(p->index, at, &x); at = x.last + 1) {
        int err = VV_OK;
        bool done = x.last >= log_start || x.state == VV_EXTENT_OPEN, local = x.local != NULL;
        if (!done && x.state == VV_EXTENT_SEALED) err = delete_local_only(p, &x);
        if (!done && vv_extent_is_remote(&x)) err = tombstone(p, &x);
        vv_extent_release(p->index, &x);
        if (done) break;
        if (!err && local && x.state != VV_EXTENT_UPLOADING) vv_count(segments_deleted, 1);
        if (err) {
            vv_count(retention_errors, 1);
            VLOG_ERROR("%s: cannot delete the segment of offsets %" PRId64 "..%" PRId64 ": %s", p->dir, x.base, x.last,
                       vv_err_name(err));
            if (!first) first = err;
        }
    }
    return first;
}

/* ---- local retention ---- */

static bool short_of_room(struct vv_partition *p)
{
    struct vv_space s;
    return !vv_fs_space(p->broker->env, p->broker->log_dir, &s) &&
           vv_disk_state_of(p->broker->config, &s) != VV_DISK_OK;
}

/* l NULL: the disk runs short; proven copies go before their time, at most half of what the partition has per look. */
static void drop_local_copies(struct vv_partition *p, const struct limits *l)
{
    uint64_t kept = weigh(p).local, floor = kept / 2;
    struct vv_extent x;
    for (int64_t at = vv_partition_log_start(p); !vv_index_find_state(p->index, VV_EXTENT_BOTH, at, &x);
         at = x.last + 1) {
        vv_extent_release(p->index, &x);
        if (l ? !expired(l, &x, kept) : kept <= floor || !short_of_room(p)) return;
        int err = vv_tier_part_drop_local(p->tier, x.base);
        if (err == VV_E_STATE || err == VV_E_NOENT) continue; /* the tier was faster: it was below the log start */
        if (err) {
            vv_count(retention_errors, 1);
            VLOG_ERROR("%s: cannot drop the local copy of offsets %" PRId64 "..%" PRId64 ": %s", p->dir, x.base, x.last,
                       vv_err_name(err));
            return;
        }
        vv_count(segments_deleted, 1);
        kept -= VV_MIN(x.bytes, kept);
    }
}

/* The topic stopped tiering with remote.log.delete.on.disable: what is only in the bucket is given up. */
static void give_up_remote(struct vv_partition *p)
{
    struct vv_index_summary s;
    vv_index_summary(p->index, &s);
    if (s.remote_end >= 0)
        move_log_start(p, VV_MIN(s.local_start, vv_partition_high_watermark(p)), "tiering was switched off");
}

void vv_retention_apply(struct vv_partition *p, int64_t now_ms, bool time_trusted)
{
    struct vv_partition_rules *r = &p->rules;
    struct limits total =
        limits_of(atomic_load(&r->retention_ms), atomic_load(&r->retention_bytes), now_ms, time_trusted);
    if (p->tier && atomic_load(&r->drop_remote)) give_up_remote(p);
    if (total.timed || total.bytes >= 0) move_log_start(p, wanted_start(p, &total), "retention");
    if (!p->tier)
        vv_retention_below_log_start(p);
    else if (vv_partition_log_start(p) != p->swept_start) /* DeleteRecords moves it too */
        vv_tier_part_log_start_moved(p->tier);
    p->swept_start = vv_partition_log_start(p);
    if (!p->tier || !atomic_load(&r->tiered)) return;
    struct limits local =
        limits_of(atomic_load(&r->local_retention_ms), atomic_load(&r->local_retention_bytes), now_ms, time_trusted);
    if (local.timed || local.bytes >= 0) drop_local_copies(p, &local);
    if (atomic_load(&p->broker->disk_state) != VV_DISK_OK) drop_local_copies(p, NULL);
}
