/* partition.c — the life of a partition: open or restore, configure, maintain, close, delete. Contract: partition.h.
 *
 * Invariants: after `closing` no append, flush or maintenance begins, and close, retire and destroy wait for those
 * under way, so that nobody uses the log or its directory after them. The tier's part is opened before the first
 * maintenance or by maintenance itself: retention and the tier never both move extents. Appends, flushes and reads of
 * our own are in partition_io.c. */
#include "live.h"
#include "partition.h"
#include "metrics.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define ROLL_NEVER INT64_MAX

static void maintain_run(struct vv_work *w);

/* ---- configuration ---- */

/* Partitions are opened on the iopool too: what is in force is control's alone. */
static int64_t producer_expiry_ms(const struct vv_broker *b)
{
    int32_t ms = atomic_load(&b->values.producer_expiry_ms);
    return ms ? ms : b->config->producer_id_expiration_ms;
}

static struct vv_log_config log_config(const struct vv_partition *p, const struct vv_topic_config *c)
{
    return (struct vv_log_config){
        .segment_bytes = c->segment_bytes,
        .segment_ms = c->segment_ms,
        .segment_index_bytes = c->segment_index_bytes,
        .index_interval_bytes = c->index_interval_bytes,
        .segment_jitter_ms = c->segment_jitter_ms,
        .flush_messages = c->flush_messages,
        .flush_ms = c->flush_ms,
        .producer_expiry_ms = producer_expiry_ms(p->broker),
        .compact = c->cleanup_compact,
    };
}

static void take_rules(struct vv_partition *p, const struct vv_topic_config *c)
{
    struct vv_partition_rules *r = &p->rules;
    bool tiered = p->broker->tier && c->remote_storage && !p->topic->internal;
    atomic_store(&r->max_message_bytes, c->max_message_bytes);
    atomic_store(&r->ts_before_max_ms, c->timestamp_before_max_ms);
    atomic_store(&r->ts_after_max_ms, c->timestamp_after_max_ms);
    atomic_store(&r->ts_type, c->log_append_time ? VV_LOG_APPEND_TIME : VV_CREATE_TIME);
    atomic_store(&r->compacted, c->cleanup_compact);
    atomic_store(&r->tiered, tiered);
    atomic_store(&r->copy_disabled, !tiered || c->remote_copy_disabled);
    atomic_store(&r->drop_remote, p->broker->tier && !c->remote_storage && c->remote_delete_on_disable);
    atomic_store(&r->flush_messages, c->flush_messages);
    atomic_store(&r->delete_retention_ms, c->delete_retention_ms);
    /* A topic that is compacted only has no retention. */
    atomic_store(&r->retention_ms, c->cleanup_delete ? c->retention_ms : -1);
    atomic_store(&r->retention_bytes, c->cleanup_delete ? c->retention_bytes : -1);
    atomic_store(&r->local_retention_ms, c->local_retention_ms);
    atomic_store(&r->local_retention_bytes, c->local_retention_bytes);
}

void vv_partition_configure(struct vv_partition *p, const struct vv_topic_config *c)
{
    struct vv_log_config lc = log_config(p, c);
    take_rules(p, c);
    vv_log_configure(p->log, &lc);
    if (p->tier) vv_tier_part_set_copy_disabled(p->tier, atomic_load(&p->rules.copy_disabled));
    if (p->tier) vv_tier_part_set_segment_bytes(p->tier, c->segment_bytes);
    vv_partition_maintain(p);
}

/* ---- what the log and the tier tell and ask ---- */

static void on_log_event(void *ctx, enum vv_log_event ev)
{
    (void)ctx;
    if (ev == VV_LOG_SEALED) vv_count(segments_sealed, 1);
}

static int64_t upload_limit(void *ctx)
{
    return vv_partition_last_stable(ctx);
}

static int32_t leader_epoch(void *ctx)
{
    return vv_partition_epoch(ctx);
}

static void on_tier_progress(void *ctx)
{
    vv_partition_maintain(ctx);
}

static bool has_remote(struct vv_partition *p)
{
    struct vv_extent x;
    for (int s = VV_EXTENT_UPLOADING; s <= VV_EXTENT_DELETING; s++) {
        if (vv_index_find_state(p->index, (enum vv_extent_state)s, 0, &x)) continue;
        bool remote = x.nonce != 0;
        vv_extent_release(p->index, &x);
        if (remote) return true;
    }
    return false;
}

/* A topic that stopped tiering keeps its part: what is in the bucket is read and deleted through it. */
static int open_tier_part(struct vv_partition *p, struct vv_error *e)
{
    struct vv_tier_part *part;
    if (p->tier || !p->broker->tier || p->topic->internal) return VV_OK;
    if (!p->followed && !atomic_load(&p->rules.tiered) && !has_remote(p)) return VV_OK;
    struct vv_tier_part_opts o = {
        .topic_id = p->topic->id,
        .topic = p->topic->name,
        .partition = p->id,
        .log = p->log,
        .index = p->index,
        .upload_limit = upload_limit,
        .leader_epoch = leader_epoch,
        .on_progress = on_tier_progress,
        .ctx = p,
        .copy_disabled = atomic_load(&p->rules.copy_disabled),
        .segment_bytes = p->topic->config.segment_bytes,
    };
    int err = vv_tier_part_open(p->broker->tier, &o, &part, e);
    if (!err) p->tier = part;
    return err;
}

/* ---- open ---- */

static struct vv_partition *partition_new(struct vv_broker *b, struct vv_topic *t, int32_t id)
{
    struct vv_partition *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->broker = b;
    p->topic = t;
    p->id = id;
    if (asprintf(&p->dir, "%s/%s-%" PRId32, b->log_dir, t->name, id) < 0) {
        free(p);
        return NULL;
    }
    p->flush_work.run = vv_partition_flush_run;
    p->maintain_work.run = maintain_run;
    pthread_mutex_init(&p->lock, NULL);
    pthread_mutex_init(&p->maintaining, NULL);
    pthread_cond_init(&p->idle, NULL);
    return p;
}

static void partition_free(struct vv_partition *p)
{
    pthread_cond_destroy(&p->idle);
    pthread_mutex_destroy(&p->maintaining);
    pthread_mutex_destroy(&p->lock);
    free(p->dir);
    free(p);
}

struct names {
    char **v;
    size_t n, cap;
};

static int collect_name(void *ctx, const char *name)
{
    struct names *l = ctx;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 32;
        char **v = realloc(l->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n] = strdup(name);
    return l->v[l->n] ? (l->n++, VV_OK) : VV_E_NOMEM;
}

/* Removes what is in dir, and directories in it; dir itself stays, and the mark of an unfinished restore. */
static int empty_dir(struct vv_env *env, const char *dir, bool mark_stays)
{
    struct names l = {0};
    int err = vv_fs_list(env, dir, collect_name, &l);
    if (err == VV_E_NOENT) err = VV_OK;
    for (size_t i = 0; i < l.n; i++) {
        char *path = NULL;
        struct vv_stat st;
        bool keep = mark_stays && !strcmp(l.v[i], VV_PARTITION_MARK);
        int rc = asprintf(&path, "%s/%s", dir, l.v[i]) < 0 ? VV_E_NOMEM : vv_fs_stat(env, path, &st);
        if (!rc && st.is_dir) rc = empty_dir(env, path, false);
        if (!rc && !keep) rc = st.is_dir ? vv_fs_rmdir(env, path) : vv_fs_unlink(env, path);
        if (rc && rc != VV_E_NOENT && !err) err = rc;
        if (rc != VV_E_NOMEM) free(path);
        free(l.v[i]);
    }
    free(l.v);
    return err;
}

static int stop_at_records(void *ctx, const char *name)
{
    struct vv_partition *p = ctx;
    char path[4096];
    struct vv_stat st;
    size_t n = strlen(name);
    if (n <= 4 || strcmp(name + n - 4, ".log")) return 0;
    if (snprintf(path, sizeof path, "%s/%s", p->dir, name) >= (int)sizeof path) return VV_E_LIMIT;
    int err = vv_fs_stat(p->broker->env, path, &st);
    return err ? err : st.size > 0;
}

/* A restore that a crash cut short leaves a directory without records: it begins again from nothing. */
static bool wants_restore(struct vv_partition *p)
{
    struct vv_broker *b = p->broker;
    if (p->restored) return true;
    if ((!b->restoring && !p->topic->returning) || !b->tier || !atomic_load(&p->rules.tiered)) return false;
    int err = vv_fs_list(b->env, p->dir, stop_at_records, p);
    return err == VV_E_NOENT || (err == VV_OK && b->restoring); /* what was put aside by a deletion is complete */
}

static int open_log(struct vv_partition *p, const struct vv_topic_config *c, bool clean, struct vv_tier_restored *r,
                    struct vv_error *e)
{
    struct vv_broker *b = p->broker;
    struct vv_log_opts o = {
        .env = b->env,
        .dir = p->dir,
        .topic = p->topic->name,
        .partition = p->id,
        .topic_id = p->topic->id,
        .index = p->index,
        .config = log_config(p, c),
        .clean = clean,
        .recovery_point = 0,
        .start_offset = r ? r->next_offset : 0,
        .now_ms = vv_wall_ms(b->env),
        .on_event = on_log_event,
        .ctx = p,
    };
    int err = vv_log_open(&o, &p->log, e);
    if (err) return err;
    if (r && r->epoch_count) err = vv_log_set_epochs(p->log, r->epochs, r->epoch_count);
    if (!err && r && r->snapshot_n) err = vv_log_load_snapshot(p->log, r->snapshot, r->snapshot_n, r->next_offset);
    int32_t latest = vv_log_epoch(p->log);
    if (r) latest = VV_MAX(latest, r->epoch_used);
    if (!err && latest < 0 && clean)
        err = vv_log_begin_epoch(p->log, 0);
    else if (!err && (!clean || r)) /* what was acknowledged to nobody may be gone, all of it perhaps: a new epoch says so to readers */
        err = vv_log_begin_epoch(p->log, VV_MAX(latest, 0) + 1);
    return err ? vv_error_set(e, err, "%s: cannot begin a leader epoch: %s", p->dir, vv_err_name(err)) : VV_OK;
}

/* What it has is known after the first look. The leader epoch is the writer's. */
static int open_followed(struct vv_partition *p, struct vv_error *e)
{
    static const struct vv_epoch first = {0, 0};
    struct vv_broker *b = p->broker;
    struct vv_tier_restored r = {.next_offset = VV_REPLICA_LOG_BASE};
    int err = empty_dir(b->env, p->dir, false);
    if (err) return vv_error_set(e, err, "%s: cannot clear the directory: %s", p->dir, vv_err_name(err));
    err = vv_index_open(b->env, p->dir, &vv_segment_refs, &p->index, e);
    if (!err) err = open_log(p, &p->topic->config, true, &r, e);
    if (!err && (err = vv_log_set_epochs(p->log, &first, 1)))
        vv_error_set(e, err, "%s: cannot write the leader epochs: %s", p->dir, vv_err_name(err));
    return err ? err : open_tier_part(p, e);
}

int vv_partition_follow(struct vv_partition *p, struct vv_error *e)
{
    struct vv_tier_followed f;
    int err = vv_tier_follow_part(p->tier, &f, e);
    if (err) return err;
    if (f.epoch_count) err = vv_log_set_epochs(p->log, f.epochs, f.epoch_count);
    free(f.epochs);
    if (err) return vv_error_set(e, err, "%s: cannot write the leader epochs: %s", p->dir, vv_err_name(err));
    int64_t hw = atomic_load(&p->high_watermark);
    if (f.end < hw)
        VLOG_WARN("%s: the log ended at %" PRId64 ", its owner's ends at %" PRId64 " now: records were replaced", p->dir, hw, f.end);
    if (f.end == hw) return VV_OK;
    atomic_store_explicit(&p->high_watermark, f.end, memory_order_release);
    vv_partition_wake(p);
    return VV_OK;
}

/* Once more where another writer, who does not know yet that the bucket is ours, put a manifest meanwhile: it cannot twice. */
static int restore_index(struct vv_partition *p, struct vv_tier_restored *r, struct vv_error *e)
{
    struct vv_broker *b = p->broker;
    int err = VV_E_CONFLICT;
    for (int tries = 0; tries < 3 && err == VV_E_CONFLICT; tries++) {
        if (p->index) vv_index_close(p->index);
        p->index = NULL;
        err = empty_dir(b->env, p->dir, p->restored);
        if (err) return vv_error_set(e, err, "%s: cannot clear the directory before restoring: %s", p->dir, vv_err_name(err));
        err = vv_index_open(b->env, p->dir, &vv_segment_refs, &p->index, e);
        if (!err) err = vv_tier_restore_part(b->tier, p->topic->id, p->topic->name, p->id, p->index, r, e);
    }
    return err;
}

static int mark_in(struct vv_env *env, const char *dir)
{
    char *path;
    if (asprintf(&path, "%s/" VV_PARTITION_MARK, dir) < 0) return VV_E_NOMEM;
    int err = vv_fs_write_hint(env, path, "", 0);
    if (!err) err = vv_fs_sync_dir(env, dir);
    free(path);
    return err;
}

/* The directory never has its name without the mark before it is complete: it gets it with the mark inside. */
static int mark(struct vv_partition *p, struct vv_error *e)
{
    struct vv_env *env = p->broker->env;
    struct vv_stat st;
    char *made;
    if (asprintf(&made, "%s" VV_PARTITION_MADE, p->dir) < 0) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int err = vv_fs_stat(env, p->dir, &st);
    if (!err) {
        err = mark_in(env, p->dir); /* of an earlier try */
    } else if (err == VV_E_NOENT) {
        err = vv_fs_mkdirs(env, made);
        if (!err) err = mark_in(env, made);
        if (!err) err = vv_fs_rename(env, made, p->dir);
    }
    free(made);
    return err ? vv_error_set(e, err, "%s: cannot be made: %s", p->dir, vv_err_name(err)) : VV_OK;
}

/* It goes, durably, when all that is there is durable. */
static int unmark(struct vv_partition *p, struct vv_error *e)
{
    struct vv_env *env = p->broker->env;
    char *path;
    if (asprintf(&path, "%s/" VV_PARTITION_MARK, p->dir) < 0) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int err = vv_fs_sync_dir(env, p->dir);
    if (!err) err = vv_fs_sync_dir(env, p->broker->log_dir);
    if (!err) err = vv_fs_unlink(env, path);
    if (!err) err = vv_fs_sync_dir(env, p->dir);
    free(path);
    return err ? vv_error_set(e, err, "%s: cannot be made ready: %s", p->dir, vv_err_name(err)) : VV_OK;
}

static int open_parts(struct vv_partition *p, bool clean, struct vv_error *e)
{
    struct vv_broker *b = p->broker;
    const struct vv_topic_config *c = &p->topic->config;
    struct vv_tier_restored r = {0};
    take_rules(p, c);
    p->followed = b->config->tier_replica && !p->topic->internal;
    if (p->followed) return open_followed(p, e);
    bool restore = wants_restore(p);
    int err = restore ? restore_index(p, &r, e) : vv_index_open(b->env, p->dir, &vv_segment_refs, &p->index, e);
    if (!err) err = open_log(p, c, clean, restore ? &r : NULL, e);
    free(r.epochs);
    free(r.snapshot);
    if (err) return err;
    if (restore)
        VLOG_INFO("%s: restored offsets %" PRId64 "..%" PRId64 " from the bucket", p->dir, r.log_start,
                  r.next_offset - 1);
    vv_partition_advance(p);
    return p->restored ? unmark(p, e) : open_tier_part(p, e);
}

static int open_new(struct vv_broker *b, struct vv_topic *t, int32_t id, bool clean, bool restore, struct vv_partition **out, struct vv_error *e)
{
    *out = NULL;
    struct vv_partition *p = partition_new(b, t, id);
    if (!p) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    p->restored = restore;
    int err = restore ? mark(p, e) : VV_OK;
    if (!err) err = open_parts(p, clean, e);
    if (err) {
        if (p->log) vv_log_abandon(p->log);
        vv_index_close(p->index);
        partition_free(p);
        return err;
    }
    *out = p;
    if (!restore) vv_partition_maintain(p);
    return VV_OK;
}

int vv_partition_open(struct vv_broker *b, struct vv_topic *t, int32_t id, bool clean, struct vv_partition **out,
                      struct vv_error *e)
{
    return open_new(b, t, id, clean, false, out, e);
}

int vv_partition_restore(struct vv_broker *b, struct vv_topic *t, int32_t id, struct vv_partition **out, struct vv_error *e)
{
    return open_new(b, t, id, true, true, out, e);
}

void vv_partition_join(struct vv_partition *p)
{
    struct vv_error e = {0};
    pthread_mutex_lock(&p->maintaining);
    if (open_tier_part(p, &e)) VLOG_ERROR("%s: cannot start tiering: %s", p->dir, e.text); /* maintenance tries again */
    pthread_mutex_unlock(&p->maintaining);
}

/* ---- maintenance ---- */

void vv_partition_maintain(struct vv_partition *p)
{
    int s = atomic_load(&p->maintain_state);
    if (s == 1 || s == 3) return; /* it has not begun, or begins again: it will see what we saw */
    pthread_mutex_lock(&p->lock);
    s = p->maintain_state;
    if (s == 2) p->maintain_state = 3;
    if (s == 0 && !p->closing) {
        p->maintain_state = 1;
        vv_iopool_submit(p->broker->iopool, &p->maintain_work);
    }
    pthread_mutex_unlock(&p->lock);
}

/* Rewriting everything costs as much as is there: only when there is twice as much as the last time left. */
static bool compaction_due(struct vv_partition *p)
{
    struct vv_index_summary s;
    if (!atomic_load(&p->rules.compacted) || p->tier) return false;
    vv_index_summary(p->index, &s);
    return s.local_bytes > 0 && s.local_bytes >= 2 * p->compacted_bytes;
}

static int compact(struct vv_partition *p)
{
    struct vv_index_summary s;
    int err = vv_log_compact(p->log, atomic_load(&p->rules.delete_retention_ms));
    vv_index_summary(p->index, &s);
    p->compacted_bytes = s.local_bytes;
    if (err) VLOG_ERROR("%s: compaction failed: %s", p->dir, vv_err_name(err));
    return err;
}

int vv_partition_compact(struct vv_partition *p)
{
    pthread_mutex_lock(&p->maintaining);
    int err = compact(p);
    pthread_mutex_unlock(&p->maintaining);
    return err;
}

static void maintain(struct vv_partition *p)
{
    struct vv_broker *b = p->broker;
    struct vv_error e = {0};
    if (p->followed) return; /* its owner's retention is what the manifest says */
    if (vv_log_has_pending_seal(p->log)) vv_log_seal_pending(p->log); /* the log says what fails, and when it tries again */
    if (open_tier_part(p, &e)) VLOG_ERROR("%s: cannot start tiering: %s", p->dir, e.text);
    int64_t now = vv_wall_ms(b->env);
    vv_retention_apply(p, now, vv_broker_time_trusted(b, now));
    if (p->tier) vv_tier_part_kick(p->tier);
    if (compaction_due(p)) compact(p);
}

static void maintain_run(struct vv_work *w)
{
    struct vv_partition *p = VV_CONTAINER(w, struct vv_partition, maintain_work);
    atomic_store(&p->maintain_state, 2);
    pthread_mutex_lock(&p->maintaining);
    if (!p->closing && !vv_log_offline(p->log)) maintain(p);
    pthread_mutex_unlock(&p->maintaining);
    pthread_mutex_lock(&p->lock);
    if (p->maintain_state == 3 && !p->closing) { /* to the end of the queue: others want the thread too */
        p->maintain_state = 1;
        vv_iopool_submit(p->broker->iopool, &p->maintain_work);
    } else {
        p->maintain_state = 0;
        pthread_cond_broadcast(&p->idle);
    }
    pthread_mutex_unlock(&p->lock);
}

int64_t vv_partition_end(struct vv_partition *p)
{
    return p->followed ? vv_partition_high_watermark(p) : vv_log_end(p->log);
}

bool vv_partition_roll_due(struct vv_partition *p)
{
    bool uploads = atomic_load(&p->rules.tiered) && !atomic_load(&p->rules.copy_disabled);
    return vv_log_roll_due(p->log, uploads ? vv_broker_live(p->broker)->tier_upload_interval_ms : ROLL_NEVER);
}

/* ---- close, delete ---- */

static void stop_and_wait(struct vv_partition *p)
{
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    while (p->flushing || p->maintain_state || p->appending) pthread_cond_wait(&p->idle, &p->lock);
    pthread_mutex_unlock(&p->lock);
    vv_partition_wake(p);
}

int vv_partition_close(struct vv_partition *p)
{
    if (!p) return VV_OK;
    stop_and_wait(p);
    vv_tier_part_close(p->tier);
    int err = vv_log_close(p->log);
    if (err) VLOG_ERROR("%s: closing failed: %s", p->dir, vv_err_name(err));
    vv_index_close(p->index);
    partition_free(p);
    return err;
}

static void random_hex(struct vv_env *env, char out[33])
{
    uint8_t b[16];
    vv_random(env, b, sizeof b);
    for (size_t i = 0; i < sizeof b; i++) snprintf(out + 2 * i, 3, "%02x", b[i]);
}

/* As Kafka: <topic>-<id>.<uuid>-delete, the topic cut so that the name fits a directory entry. */
int vv_partition_retire_dir(struct vv_partition *p)
{
    struct vv_env *env = p->broker->env;
    char hex[33], suffix[64], *to = NULL;
    stop_and_wait(p);
    random_hex(env, hex);
    int n = snprintf(suffix, sizeof suffix, "-%" PRId32 ".%s-delete", p->id, hex);
    if (asprintf(&to, "%s/%.*s%s", p->broker->log_dir, 255 - n, p->topic->name, suffix) < 0) return VV_E_NOMEM;
    /* Readers and the tier go on with the files below the new name: never with those of a topic that takes the old one.
     */
    int err = vv_index_move_dir(p->index, to);
    if (!err) err = vv_log_moved(p->log, to);
    if (!err) err = vv_fs_sync_dir(env, p->broker->log_dir);
    if (err) {
        VLOG_ERROR("%s: cannot rename to %s: %s", p->dir, to, vv_err_name(err));
        free(to);
        return err;
    }
    free(p->dir);
    p->dir = to;
    return VV_OK;
}

void vv_partition_destroy(struct vv_partition *p)
{
    if (!p) return;
    struct vv_env *env = p->broker->env;
    stop_and_wait(p);
    vv_tier_part_close(p->tier);
    vv_log_abandon(p->log);
    vv_index_close(p->index);
    int err = empty_dir(env, p->dir, false);
    if (!err) err = vv_fs_rmdir(env, p->dir);
    if (err && err != VV_E_NOENT) {
        vv_count(retention_errors, 1);
        VLOG_WARN("%s: the deleted partition's files could not all be removed: %s; remove the directory by hand",
                  p->dir, vv_err_name(err));
    }
    partition_free(p);
}

int vv_partition_put_aside(struct vv_partition *p)
{
    struct vv_extent x;
    int64_t at = 0;
    stop_and_wait(p);
    while (p->tier && !vv_index_find_state(p->index, VV_EXTENT_BOTH, at, &x)) {
        at = x.last + 1;
        vv_extent_release(p->index, &x);
        int err = vv_tier_part_drop_local(p->tier, x.base);
        if (err && err != VV_E_STATE) VLOG_WARN("%s: a local copy stays: %s", p->dir, vv_err_name(err));
    }
    return vv_partition_close(p);
}
