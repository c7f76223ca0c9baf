/* partition.c — one partition as the bucket has it: the manifest's head, its page references, and what continues it
 * (tiering/follow.h).
 * Pages are loaded when a cursor comes to them. */
#include "reader_impl.h"

#include <stdio.h>
#include <stdlib.h>

#define STOP 1000000 /* from each(): neither a Kafka code nor one of ours */

static int tail_push(void *ctx, const struct vv_extent *x)
{
    struct vv_bucket_log *log = ctx;
    if (x->last < log->manifest.deleting_below) return VV_OK;
    if (log->tail_n == log->tail_cap) {
        size_t cap = log->tail_cap ? log->tail_cap * 2 : 64;
        struct vv_extent *v = realloc(log->tail, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        log->tail = v;
        log->tail_cap = cap;
    }
    log->tail[log->tail_n++] = *x;
    return VV_OK;
}

static int first_of(void *ctx, const struct vv_extent *x)
{
    *(struct vv_extent *)ctx = *x;
    return STOP;
}

/* The log start may have moved since the manifest was written: the newest footer knows. Its damage is not this call's
 * business. */
static int newest_log_start(struct vv_bucket_log *log, struct vv_error *e)
{
    struct vv_footer f = {0};
    struct vv_segkey k;
    uint64_t bytes;
    if (!log->tail_n || log->tail[log->tail_n - 1].last < log->manifest.next_offset) return VV_OK; /* the manifest itself knows better */
    const struct vv_extent *x = &log->tail[log->tail_n - 1];
    vv_segkey_of(log->info.topic_id, log->info.partition, x, &k);
    int err = vv_footer_get(log->bucket->store, &k, log->bucket->clusters, (size_t)(x->object_bytes - vv_extent_footer_at(x)), &f,
                            &bytes, e);
    if (err == VV_E_CORRUPT || err == VV_E_NOENT || err == VV_E_UNSUPPORTED || err == VV_E_KEY) return VV_OK;
    if (!err) log->info.log_start = VV_MAX(log->info.log_start, f.log_start);
    vv_footer_release(&f);
    return err;
}

static int summarize(struct vv_bucket_log *log, struct vv_error *e)
{
    struct vv_bucket_log_info *i = &log->info;
    struct vv_extent first = {.first_ts = -1};
    i->max_ts = -1;
    for (int k = 1; k < VV_MANIFEST_LEVELS; k++)
        for (size_t j = 0; j < log->manifest.level[k].n; j++) {
            i->segments += log->manifest.level[k].v[j].segments;
            i->bytes += log->manifest.level[k].v[j].bytes;
            i->max_ts = VV_MAX(i->max_ts, log->manifest.level[k].v[j].max_ts);
        }
    for (size_t j = 0; j < log->tail_n; j++) {
        i->segments++;
        i->bytes += log->tail[j].bytes;
        i->max_ts = VV_MAX(i->max_ts, log->tail[j].max_ts);
    }
    int err = vv_manifest_pages(&log->manifest, &log->where, i->log_start, INT64_MIN, first_of, &first, e);
    if (err && err != STOP) return err;
    for (size_t j = 0; !err && j < log->tail_n; j++)
        if (log->tail[j].last >= i->log_start) err = first_of(&first, &log->tail[j]);
    i->first_ts = first.first_ts;
    return VV_OK;
}

static int load(struct vv_bucket_log *log, struct vv_error *e)
{
    struct vv_bucket_log_info *i = &log->info;
    int err = vv_manifest_load(&log->manifest, &log->where, tail_push, log, e);
    if (err) return err;
    i->manifest = log->manifest.exists;
    i->revision = log->manifest.revision;
    i->deleting_below = log->manifest.deleting_below;
    size_t listed = log->tail_n;
    struct vv_follow f = {.w = &log->where, .who = i->topic, .each = tail_push, .ctx = log, .e = e, .after = -1,
                          .next = VV_MAX(log->manifest.next_offset, log->manifest.folded_end),
                          .log_start = log->manifest.log_start, .epoch_floor = log->manifest.writer_epoch};
    if (log->tail_n) {
        f.after = log->tail[log->tail_n - 1].base;
        f.next = VV_MAX(f.next, log->tail[log->tail_n - 1].last + 1);
    } else if (log->manifest.folded_end) {
        f.after = log->manifest.folded_end - 1;
    }
    err = vv_follow_run(&f);
    i->followed = log->tail_n - listed;
    i->hole = f.hole;
    i->log_start = f.log_start;
    if (!err) err = newest_log_start(log, e);
    i->next_offset = VV_MAX(f.next, i->log_start);
    return err ? err : summarize(log, e);
}

int vv_bucket_log_open(struct vv_bucket *b, const struct vv_bucket_topic *t, int32_t partition,
                       struct vv_bucket_log **out,
                       struct vv_error *e)
{
    bool known = false;
    *out = NULL;
    for (size_t i = 0; i < t->partition_count; i++) known = known || t->partitions[i] == partition;
    if (!known) return vv_error_set(e, VV_E_NOENT, "there is nothing of partition %d of %s in %s", (int)partition,
                                    t->name, b->store->url);
    struct vv_bucket_log *log = calloc(1, sizeof *log);
    if (!log) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    log->bucket = b;
    log->info.topic_id = t->id;
    log->info.partition = partition;
    snprintf(log->info.topic, sizeof log->info.topic, "%s", t->name);
    log->where = (struct vv_manifest_where){.env = b->env, .store = b->store, .cluster_id = b->root.cluster_id,
                                            .topic = log->info.topic,
                                            .topic_id = t->id, .partition = partition};
    int err = load(log, e);
    if (err) {
        vv_bucket_log_close(log);
        return err;
    }
    *out = log;
    return VV_OK;
}

void vv_bucket_log_close(struct vv_bucket_log *log)
{
    if (!log) return;
    vv_manifest_release(&log->manifest);
    free(log->tail);
    free(log);
}

const struct vv_bucket_log_info *vv_bucket_log_info(const struct vv_bucket_log *log)
{
    return &log->info;
}

/* ---- segments, in pieces ---- */

void vv_cursor_init(struct vv_cursor *c, struct vv_bucket_log *log, int64_t from, int64_t from_ts)
{
    c->log = log;
    c->at = from;
    c->from_ts = from_ts;
    c->n = c->next = c->tail_next = 0;
    c->tail = false;
}

static int cursor_take(void *ctx, const struct vv_extent *x)
{
    struct vv_cursor *c = ctx;
    if (c->n == VV_CURSOR_BATCH) return STOP;
    c->v[c->n++] = *x;
    c->at = x->last + 1;
    return VV_OK;
}

int vv_cursor_next(struct vv_cursor *c, struct vv_extent *out, struct vv_error *e)
{
    while (c->next == c->n) {
        struct vv_bucket_log *log = c->log;
        if (c->tail) return VV_E_NOENT;
        c->n = c->next = 0;
        int err = vv_manifest_pages(&log->manifest, &log->where, c->at, c->from_ts, cursor_take, c, e);
        if (err == VV_E_NOENT)
            return vv_error_set(e, VV_E_CORRUPT, "a manifest page of %s-%d is missing", log->info.topic,
                                (int)log->info.partition);
        if (err && err != STOP) return err;
        if (err) continue;
        for (; c->tail_next < log->tail_n && !err; c->tail_next += !err)
            if (log->tail[c->tail_next].last >= c->at) err = cursor_take(c, &log->tail[c->tail_next]);
        c->tail = !err;
    }
    *out = c->v[c->next++];
    return VV_OK;
}

int vv_bucket_log_segments(struct vv_bucket_log *log, int64_t from, int (*each)(void *ctx, const struct vv_extent *x),
                           void *ctx, struct vv_error *e)
{
    struct vv_extent x;
    struct vv_cursor *c = malloc(sizeof *c);
    if (!c) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    vv_cursor_init(c, log, from, INT64_MIN);
    int err;
    while (!(err = vv_cursor_next(c, &x, e)) && !(err = each(ctx, &x))) {
    }
    free(c);
    return err == VV_E_NOENT ? VV_OK : err;
}
