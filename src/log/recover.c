/* recover.c — from whatever a crash left in the directory to a log that can be appended to.
 *
 * A segment whose .blocks covers exactly its bytes was closed (or the broker stopped) cleanly: it is trusted. Every other one is scanned,
 * batch by batch with CRCs, from the disk rather than from cached pages. A bad tail of what was never sealed is cut to the last
 * whole batch, and what lies behind the cut goes: flushes cover a prefix, so nothing acknowledged is there. What the index journal
 * knows as sealed is never cut: damage there is rot, kept and reported, and an error for whoever reads it.
 * Order of the rest: index (attach), producer state (newest good snapshot, then replay), leader epochs, the open segment. */
#include "log_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct found { /* a .log file */
    int64_t base, protected_end; /* offsets below were sealed: never cut */
    struct vv_segment *s;
    bool known, followed, uploaded, scanned, rotten; /* followed: the journal knows what comes after it, perhaps only in the bucket */
    int64_t sealed_ms;
};
struct recovery {
    struct vv_log *log;
    const struct vv_log_opts *o;
    struct vv_error *e;
    struct found *v;
    size_t n, cap;
    int64_t *snapshots;
    size_t snapshot_n, snapshot_cap;
    bool epochs_changed, epochs_damaged;
    int nomem;
};

static int fail(struct recovery *r, int err, const char *what)
{
    return vv_error_set(r->e, err, "%s: cannot recover the log: %s (%s)", r->log->dir, what, vv_err_name(err));
}

/* ---- what is there ---- */

static bool name_offset(const char *name, const char *suffix, int64_t *offset)
{
    char *end;
    if (strspn(name, "0123456789") != 20 || strcmp(name + 20, suffix)) return false;
    *offset = (int64_t)strtoll(name, &end, 10);
    return *offset >= 0;
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), k = strlen(suffix);
    return n >= k && !strcmp(name + n - k, suffix);
}

static int on_name(void *ctx, const char *name)
{
    struct recovery *r = ctx;
    int64_t offset;
    if (name_offset(name, ".log", &offset)) {
        if (r->n == r->cap) {
            size_t cap = r->cap ? r->cap * 2 : 16;
            struct found *v = realloc(r->v, cap * sizeof *v);
            if (!v) return VV_E_NOMEM;
            r->v = v;
            r->cap = cap;
        }
        r->v[r->n++] = (struct found){.base = offset, .protected_end = offset};
    } else if (name_offset(name, ".snapshot", &offset)) {
        if (r->snapshot_n == r->snapshot_cap) {
            size_t cap = r->snapshot_cap ? r->snapshot_cap * 2 : 16;
            int64_t *v = realloc(r->snapshots, cap * sizeof *v);
            if (!v) return VV_E_NOMEM;
            r->snapshots = v;
            r->snapshot_cap = cap;
        }
        r->snapshots[r->snapshot_n++] = offset;
    } else if (ends_with(name, ".cleaned") || ends_with(name, ".tmp") || ends_with(name, ".swap")) {
        char path[VV_SEGMENT_PATH];
        snprintf(path, sizeof path, "%s/%s", r->log->dir, name);
        vv_fs_unlink(r->log->env, path); /* half-made; if it stays, the next start tries again */
    }
    return 0;
}

static int by_base(const void *a, const void *b)
{
    int64_t x = ((const struct found *)a)->base, y = ((const struct found *)b)->base;
    return (x > y) - (x < y);
}

static int by_offset(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* What the journal says of each file; files of extents that have no local part any more are leftovers of a deletion. */
static int ask_journal(struct recovery *r)
{
    int64_t log_start = vv_index_log_start(r->log->index);
    size_t to = 0;
    for (size_t i = 0; i < r->n; i++) {
        struct found f = r->v[i];
        struct vv_extent x;
        int err = vv_index_next(r->log->index, f.base, &x);
        if (err && err != VV_E_NOENT) return fail(r, err, "reading the index");
        if (!err && x.base == f.base) {
            enum vv_extent_state st = x.state;
            f.known = true;
            f.protected_end = x.last + 1;
            f.sealed_ms = x.sealed_ms;
            f.uploaded = st != VV_EXTENT_SEALED;
            vv_extent_release(r->log->index, &x);
            if (!vv_index_next(r->log->index, f.protected_end, &x)) {
                f.followed = x.base == f.protected_end || x.base <= log_start; /* or what lay between is deleted */
                vv_extent_release(r->log->index, &x);
            }
            if (st == VV_EXTENT_REMOTE || st == VV_EXTENT_TOMBSTONED || st == VV_EXTENT_DELETING) {
                err = vv_segment_unlink(r->log->env, r->log->dir, f.base);
                if (err) return fail(r, err, "removing the files of a deleted segment");
                continue;
            }
        } else if (!err) {
            vv_extent_release(r->log->index, &x);
            if (x.base <= log_start) { /* below the log start and forgotten, but its files would not go at the time */
                err = vv_segment_unlink(r->log->env, r->log->dir, f.base);
                if (err) return fail(r, err, "removing the files of a deleted segment");
                continue;
            }
        }
        r->v[to++] = f;
    }
    r->n = to;
    return 0;
}

/* ---- one segment ---- */

static int on_batch(void *ctx, const uint8_t *p, const struct vv_batch *b, uint64_t at)
{
    struct { struct recovery *r; struct found *f; } *c = ctx;
    struct vv_log *log = c->r->log;
    (void)at;
    if (b->base_offset < atomic_load(&c->f->s->next_offset)) return VV_E_CORRUPT;
    if (b->leader_epoch > vv_epochs_latest(&log->epochs)) {
        int changed = vv_epochs_assign(&log->epochs, b->leader_epoch, b->base_offset);
        if (changed < 0) return changed;
        c->r->epochs_changed |= changed > 0;
    }
    return vv_segment_account(c->f->s, p, b, log->config.index_interval_bytes);
}

static int note_header(void *ctx, const uint8_t *p, const struct vv_batch *b, uint64_t at)
{
    struct vv_segment *s = ctx;
    (void)p;
    if (!at) s->epoch = b->leader_epoch;
    atomic_store(&s->next_offset, vv_batch_last(b) + 1);
    return 0;
}

static int first_only(void *ctx, const uint8_t *p, const struct vv_batch *b, uint64_t at)
{
    (void)p, (void)at;
    ((struct vv_segment *)ctx)->epoch = b->leader_epoch;
    return 1;
}

static bool table_there(struct vv_segment *s, const char *suffix)
{
    char path[VV_SEGMENT_PATH];
    struct vv_stat st;
    vv_segment_path(s->dir, s->base, suffix, path);
    return !vv_fs_stat(s->env, path, &st);
}

/* True: its tables vouch for every byte, and it ends where a batch ends. */
static bool trust(struct vv_segment *s, uint64_t size, bool keep_tables, int64_t index_interval)
{
    struct vv_blocks t;
    uint64_t at = 0;
    s->open = false; /* the file, not memory */
    int err = size && table_there(s, ".index") && table_there(s, ".timeindex") ? vv_segment_load_blocks(s, &t) : VV_E_NOENT;
    s->open = true;
    if (err) return false;
    bool ok = t.count && t.bytes == size && t.v[0].first_offset >= s->base;
    if (ok) ok = vv_log_walk(s->env, s->file, &at, VV_MIN(size, t.v[0].n), false, first_only, s) == 1;
    if (ok) at = t.v[t.count - 1].at;
    if (ok) ok = !vv_log_walk(s->env, s->file, &at, size, false, note_header, s);
    if (ok) {
        s->first_ts = t.v[0].min_ts;
        for (uint32_t i = 0; i < t.count; i++) s->max_ts = VV_MAX(s->max_ts, t.v[i].max_ts);
        s->blocks = t;
        if (keep_tables) ok = !vv_segment_load_tables(s, index_interval);
    }
    if (ok && !keep_tables) vv_segment_drop_tables(s);
    if (ok) {
        s->opened_mono_ms = vv_mono_ms(s->env);
        atomic_store(&s->bytes, size);
        return true;
    }
    if (s->blocks.v != t.v) vv_blocks_release(&t);
    return false;
}

/* A fresh segment object: trust may have left half-filled tables. */
static int open_found(struct recovery *r, struct found *f, uint64_t *size)
{
    vv_segment_unref(f->s);
    f->s = vv_segment_new(r->log->env, r->log->dir, f->base);
    if (!f->s) return fail(r, VV_E_NOMEM, "memory");
    int err = vv_segment_open_file(f->s);
    if (!err) err = vv_fs_size(r->log->env, f->s->file, size);
    return err ? fail(r, err, "opening a segment") : 0;
}

static int scan(struct recovery *r, struct found *f, uint64_t size)
{
    struct { struct recovery *r; struct found *f; } ctx = {r, f};
    struct vv_log *log = r->log;
    uint64_t at = 0;
    if (!r->o->clean) vv_fs_drop_cache(log->env, f->s->file);
    int err = vv_log_walk(log->env, f->s->file, &at, size, true, on_batch, &ctx);
    if (err && err != VV_E_CORRUPT) return fail(r, err, "reading a segment");
    int64_t end = atomic_load(&f->s->next_offset);
    if (err && end < f->protected_end) {
        VLOG_ERROR("%s/%020" PRId64 ".log: damaged at byte %" PRIu64 " of %" PRIu64 "; kept, not served. Restore it from a backup%s",
                   log->dir, f->base, at, size, f->uploaded ? " or from the bucket" : "");
        f->rotten = true;
        atomic_store(&f->s->bytes, size);
        atomic_store(&f->s->next_offset, f->protected_end);
        return 0;
    }
    if (at < size) {
        VLOG_WARN("%s/%020" PRId64 ".log: cut %" PRIu64 " bytes of an unfinished write; the log ends at offset %" PRId64, log->dir, f->base,
                  size - at, end);
        err = vv_fs_truncate(log->env, f->s->file, at);
        if (err) return fail(r, err, "cutting a torn tail");
    }
    err = vv_fs_datasync(log->env, f->s->file);
    return err ? fail(r, err, "syncing a segment") : 0;
}

static int drop_behind(struct recovery *r, size_t i)
{
    for (size_t k = i + 1; k < r->n; k++) {
        if (r->v[k].known)
            return vv_error_set(r->e, VV_E_CORRUPT,
                                "%s: cannot recover the log: the sealed segment %" PRId64 " follows a gap, segment %" PRId64 " ends at %" PRId64
                                ": put the missing file back, or move the newer files away", r->log->dir, r->v[k].base, r->v[i].base,
                                atomic_load(&r->v[i].s->next_offset));
        VLOG_WARN("%s/%020" PRId64 ".log: removed, it follows an unfinished write", r->log->dir, r->v[k].base);
        int err = vv_segment_unlink(r->log->env, r->log->dir, r->v[k].base);
        if (err) return fail(r, err, "removing a segment behind a torn one");
    }
    r->n = i + 1;
    return 0;
}

/* Trusts or scans. keep: its tables stay in memory, it will be appended to. */
static int take_segment(struct recovery *r, struct found *f, bool keep)
{
    uint64_t size;
    int err = open_found(r, f, &size);
    if (err || trust(f->s, size, keep, r->log->config.index_interval_bytes)) return err;
    f->scanned = true;
    if (!size) return 0;
    err = open_found(r, f, &size);
    return err ? err : scan(r, f, size);
}

static bool is_empty(struct recovery *r, int64_t base)
{
    char path[VV_SEGMENT_PATH];
    struct vv_stat st;
    vv_segment_path(r->log->dir, base, ".log", path);
    return !vv_fs_stat(r->log->env, path, &st) && !st.size;
}

static int drop_empty(struct recovery *r, size_t i)
{
    int err = vv_segment_unlink(r->log->env, r->log->dir, r->v[i].base);
    if (err) return fail(r, err, "removing an empty segment");
    vv_segment_unref(r->v[i].s);
    memmove(&r->v[i], &r->v[i + 1], (r->n - i - 1) * sizeof *r->v);
    r->n--;
    return 0;
}

/* Files that rolls made and then failed: empty, and segment i went on past them. */
static int drop_failed_rolls(struct recovery *r, size_t i)
{
    int64_t end = atomic_load(&r->v[i].s->next_offset);
    while (i + 1 < r->n && r->v[i + 1].base < end && !r->v[i + 1].known && is_empty(r, r->v[i + 1].base)) {
        int err = drop_empty(r, i + 1);
        if (err) return err;
    }
    return 0;
}

static int recover_segments(struct recovery *r)
{
    int64_t log_start = vv_index_log_start(r->log->index);
    for (size_t i = 0; i < r->n; i++) {
        struct found *f = &r->v[i];
        bool last = i + 1 == r->n;
        int err = take_segment(r, f, last && !f->uploaded);
        if (err || last) return err;
        err = drop_failed_rolls(r, i);
        if (err) return err;
        if (i + 1 == r->n) return f->scanned ? 0 : take_segment(r, f, !f->uploaded);
        int64_t end = atomic_load(&f->s->next_offset), next = r->v[i + 1].base;
        bool gap = !f->followed && !f->rotten && end < next;
        /* What was sealed and continued is complete, however far compaction left its last batch. The last that was sealed may have been
         * reopened since: as unsealed. A gap below the log start was left by an earlier recovery. */
        if (gap && next > log_start) {
            err = drop_behind(r, i);
            if (!err && !f->scanned) err = take_segment(r, f, !f->uploaded);
            return err;
        }
        if (gap && !f->known && !atomic_load(&f->s->bytes)) { /* nothing of it was written in time, and nobody misses it */
            err = drop_empty(r, i--);
            if (err) return err;
            continue;
        }
        atomic_store(&f->s->next_offset, f->followed ? f->protected_end : gap ? end : next);
        if (f->scanned && !f->rotten) {
            err = vv_segment_write_tables(f->s, true);
            if (err) return fail(r, err, "writing a segment's tables");
            vv_segment_drop_tables(f->s);
        }
        vv_segment_unpin(f->s);
    }
    return 0;
}

/* ---- producers ---- */

struct replay {
    struct vv_prodstate *producers;
    int64_t from; /* the snapshot has everything below */
};

static int replay_batch(void *ctx, const uint8_t *p, const struct vv_batch *b, uint64_t at)
{
    struct replay *c = ctx;
    (void)p, (void)at;
    return b->base_offset < c->from ? 0 : vv_prodstate_update(c->producers, b);
}

static int load_snapshot(struct recovery *r, int64_t offset)
{
    char path[VV_SEGMENT_PATH];
    uint8_t *p;
    size_t n;
    vv_segment_path(r->log->dir, offset, ".snapshot", path);
    int err = vv_fs_read_file(r->log->env, path, (size_t)64 << 20, &p, &n);
    if (err) return err;
    err = vv_prodstate_decode(r->log->producers, p, n);
    free(p);
    return err;
}

static bool has_snapshot(const struct recovery *r, int64_t offset)
{
    for (size_t i = 0; i < r->snapshot_n; i++)
        if (r->snapshots[i] == offset) return true;
    return false;
}

static int restore_producers(struct recovery *r, int64_t end)
{
    struct vv_log *log = r->log;
    int64_t from = INT64_MIN;
    if (r->snapshot_n) qsort(r->snapshots, r->snapshot_n, sizeof *r->snapshots, by_offset);
    for (size_t i = r->snapshot_n; i-- > 0 && from == INT64_MIN;) {
        if (r->snapshots[i] > end) continue;
        int err = load_snapshot(r, r->snapshots[i]);
        if (err == VV_E_NOENT) continue; /* went with its segment a moment ago */
        if (!err) from = r->snapshots[i];
        else if (err != VV_E_CORRUPT && err != VV_E_LIMIT) return fail(r, err, "reading a producer snapshot");
        else
            VLOG_WARN("%s/%020" PRId64 ".snapshot: damaged; the producers are restored from what comes before and the log", log->dir,
                      r->snapshots[i]);
    }
    for (size_t i = 0; i < r->n; i++) {
        struct found *f = &r->v[i];
        uint64_t at = 0, bytes = atomic_load(&f->s->bytes);
        struct vv_file *file;
        if (!bytes || atomic_load(&f->s->next_offset) <= from) continue;
        if (f->base < from) { /* the snapshot lies inside: after a clean stop, at the end */
            struct vv_place place;
            if (!vv_segment_lookup(f->s, from, true, &place)) at = place.at;
        }
        int err = vv_segment_enter(f->s, true, &file);
        if (err) return fail(r, err, "opening a segment");
        struct replay replay = {log->producers, from};
        err = vv_log_walk(log->env, file, &at, bytes, false, replay_batch, &replay);
        vv_segment_leave(f->s, file);
        if (err && !(err == VV_E_CORRUPT && f->rotten)) return fail(r, err, "reading producers from a segment");
        /* Of a segment that was scanned, or whose tables an earlier recovery wrote before it died: the upload wants it. */
        if (i + 1 < r->n && (f->scanned || !has_snapshot(r, atomic_load(&f->s->next_offset)))) {
            uint8_t *p;
            size_t n;
            err = vv_prodstate_encode(log->producers, &p, &n);
            if (!err) {
                err = vv_log_write_snapshot(log, p, n, atomic_load(&f->s->next_offset));
                free(p);
            }
            if (err) return fail(r, err, "writing a producer snapshot");
        }
    }
    return 0;
}

/* Snapshots that no segment begins at, but for the newest: left by clean stops. */
static void drop_stray_snapshots(struct recovery *r)
{
    for (size_t i = 0; i + 1 < r->snapshot_n; i++) {
        bool used = r->log->active && r->log->active->base == r->snapshots[i];
        for (size_t k = 0; k < r->n && !used; k++) used = r->v[k].base == r->snapshots[i];
        if (used) continue;
        char path[VV_SEGMENT_PATH];
        vv_segment_path(r->log->dir, r->snapshots[i], ".snapshot", path);
        vv_fs_unlink(r->log->env, path);
    }
}

/* ---- the index and the open segment ---- */

static int attach(struct recovery *r)
{
    struct vv_log *log = r->log;
    struct vv_error e = {0};
    for (size_t i = 0; i < r->n; i++) {
        struct found *f = &r->v[i];
        enum vv_extent_state st;
        if (!atomic_load(&f->s->bytes) && !f->known) continue; /* the empty open segment */
        struct vv_extent x = {.base = f->base,
                              .last = atomic_load(&f->s->next_offset) - 1,
                              .first_ts = f->s->first_ts,
                              .max_ts = f->s->max_ts,
                              .bytes = atomic_load(&f->s->bytes),
                              .epoch = f->s->epoch,
                              .sealed_ms = f->sealed_ms ? f->sealed_ms : r->o->now_ms,
                              .local = f->s};
        int err = vv_index_attach(log->index, &x, &st);
        if (err) return fail(r, err, "registering a segment");
    }
    int err = vv_index_attached(log->index, &e);
    if (err == VV_E_CORRUPT) VLOG_ERROR("%s", e.text);
    return err && err != VV_E_CORRUPT ? fail(r, err, e.text) : 0;
}

static int open_active(struct recovery *r)
{
    struct vv_log *log = r->log;
    struct vv_index_summary sum;
    struct found *f = r->n ? &r->v[r->n - 1] : NULL;
    vv_index_summary(log->index, &sum);
    int64_t base = VV_MAX(VV_MAX(r->o->start_offset, sum.log_start), sum.remote_end);
    if (f && atomic_load(&f->s->next_offset) >= base && !f->rotten && !f->uploaded) {
        bool empty = !atomic_load(&f->s->bytes);
        int err = empty ? vv_index_add_open(log->index, f->base, vv_epochs_latest(&log->epochs), f->s) : vv_index_reopen(log->index, f->base);
        if (err) return fail(r, err, "reopening the last segment");
        vv_segment_ref(f->s);
        log->active = f->s;
        atomic_store(&log->end, atomic_load(&f->s->next_offset));
        return 0;
    }
    if (f && !atomic_load(&f->s->bytes)) { /* an empty file below what the bucket or the log start say */
        vv_segment_unlink(log->env, log->dir, f->base);
    } else if (f) {
        base = VV_MAX(base, atomic_load(&f->s->next_offset));
        if (f->scanned && !f->rotten && vv_segment_write_tables(f->s, true)) return fail(r, VV_E_IO, "writing a segment's tables");
        if (!f->rotten) vv_segment_drop_tables(f->s);
        vv_segment_unpin(f->s);
    }
    atomic_store(&log->end, base);
    int err = vv_log_new_active(log, base);
    return err ? fail(r, err, "opening a new segment") : 0;
}

/* ---- epochs, metadata ---- */

static int epoch_batch(void *ctx, const uint8_t *p, const struct vv_batch *b, uint64_t at)
{
    (void)p, (void)at;
    int err = b->leader_epoch > vv_epochs_latest(ctx) ? vv_epochs_assign(ctx, b->leader_epoch, b->base_offset) : 0;
    return VV_MIN(err, 0);
}

/* The checkpoint is gone or damaged: the batches know. */
static int rebuild_epochs(struct recovery *r)
{
    vv_epochs_release(&r->log->epochs);
    for (size_t i = 0; i < r->n; i++) {
        struct vv_file *file;
        uint64_t at = 0;
        int err = vv_segment_enter(r->v[i].s, true, &file);
        if (err) return fail(r, err, "opening a segment");
        err = vv_log_walk(r->log->env, file, &at, atomic_load(&r->v[i].s->bytes), false, epoch_batch, &r->log->epochs);
        vv_segment_leave(r->v[i].s, file);
        if (err && err != VV_E_CORRUPT) return fail(r, err, "reading leader epochs from a segment");
    }
    r->epochs_changed = r->log->epochs.n > 0; /* a log without records has none to remember */
    return 0;
}

static int check_metadata(struct recovery *r)
{
    char path[VV_SEGMENT_PATH], id[23], text[64];
    uint8_t *have;
    size_t n;
    vv_uuid_text(r->o->topic_id, id);
    int len = snprintf(text, sizeof text, "version: 0\ntopic_id: %s\n", id);
    snprintf(path, sizeof path, "%s/partition.metadata", r->log->dir);
    int err = vv_fs_read_file(r->log->env, path, 4096, &have, &n);
    if (err == VV_E_NOENT) {
        err = vv_fs_write_hint(r->log->env, path, text, (size_t)len); /* the registry knows it too */
        return err ? fail(r, err, "writing partition.metadata") : 0;
    }
    if (err) return fail(r, err, "reading partition.metadata");
    const char *line = strstr((char *)have, "topic_id: ");
    bool same = line && !strncmp(line + 10, id, 22);
    if (!same && !line) { /* damaged: what the registry says holds */
        err = vv_fs_write_hint(r->log->env, path, text, (size_t)len);
    } else if (!same) {
        err = vv_error_set(r->e, VV_E_CONFLICT, "%s belongs to topic id %.22s, not to %s: it is another topic's data. Move it away or put the right registry back",
                           r->log->dir, line + 10, id);
    }
    free(have);
    return err;
}

/* A clean stop left everything, or there never was anything: nothing was mended, and nothing waits to be made durable. */
static bool settled(const struct recovery *r, int64_t end)
{
    bool records = false, scanned = false;
    for (size_t i = 0; i < r->n; i++) {
        records |= atomic_load(&r->v[i].s->bytes) > 0;
        scanned |= r->v[i].scanned && atomic_load(&r->v[i].s->bytes) > 0;
    }
    return r->o->clean && !scanned && !r->epochs_changed && !r->epochs_damaged && (!records || has_snapshot(r, end));
}

static int recover(struct recovery *r)
{
    struct vv_log *log = r->log;
    int err = vv_fs_mkdir(log->env, log->dir);
    if (err) return fail(r, err, "creating the directory");
    log->parent_dirty = true; /* it may be there and not yet durable: new, or made by a life that was killed */
    err = check_metadata(r);
    if (err) return err;
    err = vv_fs_list(log->env, log->dir, on_name, r);
    if (err) return fail(r, err, "listing the directory");
    if (r->n) qsort(r->v, r->n, sizeof *r->v, by_base);
    int epochs = vv_epochs_load(&log->epochs, log->env, log->dir);
    if (epochs && epochs != VV_E_CORRUPT) return fail(r, epochs, "reading leader-epoch-checkpoint");
    r->epochs_damaged = epochs;
    err = ask_journal(r);
    if (!err) err = recover_segments(r);
    if (!err && (epochs || !log->epochs.n) && r->n) err = rebuild_epochs(r);
    if (!err) err = attach(r);
    if (!err) err = open_active(r);
    if (err) return err;
    int64_t end = vv_log_end(log);
    err = restore_producers(r, end);
    if (err) return err;
    size_t before = log->epochs.n;
    vv_epochs_cut_end(&log->epochs, end);
    if (r->epochs_changed || epochs || before != log->epochs.n) err = vv_epochs_save(&log->epochs, log->env, log->dir, true);
    if (err) return fail(r, err, "writing leader-epoch-checkpoint");
    drop_stray_snapshots(r);
    bool as_it_was = settled(r, end);
    log->settled_end = as_it_was ? end : -1;
    log->dir_dirty = true; /* with the first flush: the name above it too */
    if (!as_it_was) err = vv_fs_sync_dir(log->env, log->dir);
    if (err) return fail(r, err, "syncing the directory");
    atomic_store(&log->flushed, end);
    return 0;
}

int vv_log_recover(struct vv_log *log, const struct vv_log_opts *o, struct vv_error *e)
{
    struct recovery r = {.log = log, .o = o, .e = e};
    int err = recover(&r);
    for (size_t i = 0; i < r.n; i++) vv_segment_unref(r.v[i].s);
    free(r.v);
    free(r.snapshots);
    return err;
}
