/* compact.c — compaction of internal topics: of every key only the last record stays, in place, offsets unchanged.
 *
 * Sealed segments are rewritten one after the other, oldest first: <base>.log.cleaned, synced, then renamed over the .log. The
 * .blocks goes before and comes back after, so a crash in between means a scan. Segments that end up empty at the front are given
 * back by moving the log start. Only for logs whose segments never go to the bucket. Memory: the live keys. */
#include "log_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct key {
    struct key *next;
    int64_t offset; /* of its last record */
    uint32_t hash;
    int32_t n;
    uint8_t p[];
};
struct pass {
    struct vv_log *log;
    struct key **v;
    size_t mask, count;
    int64_t drop_tombstones_before; /* ms */
    struct vv_segment *into;        /* tables of the rewritten segment */
    uint8_t *out, *records;
    size_t out_n, out_cap, records_n, records_cap;
    int64_t base_offset, base_ts;   /* of the batch under work */
    int32_t kept;
    size_t removed;
};

static int reserve(uint8_t **p, size_t *cap, size_t need)
{
    if (need <= *cap) return 0;
    size_t next = VV_MAX(need, *cap * 2 + 4096);
    uint8_t *grown = realloc(*p, next);
    if (!grown) return VV_E_NOMEM;
    *p = grown;
    *cap = next;
    return 0;
}

/* ---- the last offset of every key ---- */

static struct key **slot(struct pass *m, const uint8_t *p, int32_t n, uint32_t hash)
{
    struct key **k = &m->v[hash & m->mask];
    while (*k && ((*k)->hash != hash || (*k)->n != n || memcmp((*k)->p, p, (size_t)n))) k = &(*k)->next;
    return k;
}

static int grow_map(struct pass *m)
{
    size_t cap = (m->mask + 1) * 2;
    struct key **v = calloc(cap, sizeof *v);
    if (!v) return VV_E_NOMEM;
    for (size_t i = 0; i <= m->mask; i++)
        for (struct key *k = m->v[i], *next; k; k = next) {
            next = k->next;
            k->next = v[k->hash & (cap - 1)];
            v[k->hash & (cap - 1)] = k;
        }
    free(m->v);
    m->v = v;
    m->mask = cap - 1;
    return 0;
}

static int note_record(void *ctx, const struct vv_record *r)
{
    struct pass *m = ctx;
    if (!r->key) return 0;
    uint32_t hash = vv_crc32c(0, r->key, (size_t)r->key_n);
    struct key **at = slot(m, r->key, r->key_n, hash);
    if (*at) {
        (*at)->offset = r->offset;
        return 0;
    }
    struct key *k = malloc(sizeof *k + (size_t)r->key_n);
    if (!k) return VV_E_NOMEM;
    *k = (struct key){.offset = r->offset, .hash = hash, .n = r->key_n};
    memcpy(k->p, r->key, (size_t)r->key_n);
    *at = k;
    return ++m->count > m->mask ? grow_map(m) : 0;
}

static int note_batch(void *ctx, const uint8_t *p, const struct vv_batch *b, uint64_t at)
{
    (void)at;
    return vv_batch_each(p, b, (size_t)1 << 30, note_record, ctx);
}

/* ---- rewriting ---- */

static int keep_record(void *ctx, const struct vv_record *r)
{
    struct pass *m = ctx;
    if (r->key) {
        struct key *k = *slot(m, r->key, r->key_n, vv_crc32c(0, r->key, (size_t)r->key_n));
        bool old_tombstone = !r->value && r->timestamp < m->drop_tombstones_before;
        if ((k && k->offset != r->offset) || old_tombstone) {
            m->removed++;
            return 0;
        }
    }
    size_t body_max = 40 + (r->key ? (size_t)r->key_n : 0) + (r->value ? (size_t)r->value_n : 0) + r->headers_n;
    int err = reserve(&m->records, &m->records_cap, m->records_n + body_max + 5);
    uint8_t *body = err ? NULL : malloc(body_max), *p = body;
    if (!body) return VV_E_NOMEM;
    *p++ = 0;
    p += vv_varlong_put(p, r->timestamp - m->base_ts);
    p += vv_varint_put(p, (int32_t)(r->offset - m->base_offset));
    p += vv_varint_put(p, r->key ? r->key_n : -1);
    if (r->key) p = (uint8_t *)mempcpy(p, r->key, (size_t)r->key_n);
    p += vv_varint_put(p, r->value ? r->value_n : -1);
    if (r->value) p = (uint8_t *)mempcpy(p, r->value, (size_t)r->value_n);
    p += vv_varint_put(p, r->headers);
    if (r->headers_n) p = (uint8_t *)mempcpy(p, r->headers_p, r->headers_n);
    uint8_t *to = m->records + m->records_n;
    to += vv_varint_put(to, (int32_t)(p - body));
    to = (uint8_t *)mempcpy(to, body, (size_t)(p - body));
    m->records_n = (size_t)(to - m->records);
    m->kept++;
    free(body);
    return 0;
}

static int keep_batch(void *ctx, const uint8_t *p, const struct vv_batch *b, uint64_t at)
{
    struct pass *m = ctx;
    (void)at;
    m->records_n = 0;
    m->kept = 0;
    m->base_offset = b->base_offset;
    m->base_ts = b->base_ts;
    int err = vv_batch_each(p, b, (size_t)1 << 30, keep_record, m);
    if (err || !m->kept) return err;
    size_t n = VV_BATCH_HEADER + m->records_n;
    err = reserve(&m->out, &m->out_cap, m->out_n + n);
    if (err) return err;
    uint8_t *h = m->out + m->out_n;
    memcpy(h, p, VV_BATCH_HEADER); /* offsets, times, epoch and producer stay */
    memcpy(h + VV_BATCH_HEADER, m->records, m->records_n);
    vv_put32(h + 8, (uint32_t)(n - VV_BATCH_OVERHEAD));
    vv_put16(h + 21, (uint16_t)(b->attributes & ~7)); /* uncompressed */
    vv_put32(h + 57, (uint32_t)m->kept);
    vv_put32(h + 17, vv_crc32c(0, h + 21, n - 21));
    struct vv_batch now;
    err = vv_batch_parse(h, n, &now);
    if (!err) err = vv_segment_account(m->into, h, &now, m->log->config.index_interval_bytes);
    m->out_n += n;
    return err;
}

/* The file and its tables change together, as far as readers can see. */
static int swap_files(struct pass *m, struct vv_segment *s)
{
    struct vv_env *env = m->log->env;
    char log[VV_SEGMENT_PATH], cleaned[VV_SEGMENT_PATH], blocks[VV_SEGMENT_PATH];
    vv_segment_path(s->dir, s->base, ".log", log);
    vv_segment_path(s->dir, s->base, ".log.cleaned", cleaned);
    vv_segment_path(s->dir, s->base, ".blocks", blocks);
    int err = vv_segment_write_file(env, cleaned, m->out, m->out_n, true);
    if (err) return err;
    pthread_rwlock_wrlock(&s->file_lock);
    err = vv_fs_unlink(env, blocks);
    if (!err || err == VV_E_NOENT) err = vv_fs_sync_dir(env, s->dir);
    if (!err) err = vv_fs_rename(env, cleaned, log);
    if (!err) {
        vv_segment_forget_file(s);
        atomic_store(&s->bytes, m->out_n);
        err = vv_segment_write_tables(m->into, true);
        if (!err) err = vv_fs_sync_dir(env, s->dir);
    }
    pthread_rwlock_unlock(&s->file_lock);
    return err;
}

static int rewrite(struct pass *m, struct vv_segment *s)
{
    struct vv_file *f;
    uint64_t at = 0;
    m->out_n = m->removed = 0;
    m->into = vv_segment_new(m->log->env, m->log->dir, s->base);
    if (!m->into) return VV_E_NOMEM;
    int err = vv_segment_enter(s, true, &f);
    if (!err) {
        err = vv_log_walk(m->log->env, f, &at, atomic_load(&s->bytes), true, keep_batch, m);
        vv_segment_leave(s, f);
    }
    if (!err && m->removed) err = swap_files(m, s);
    vv_segment_unref(m->into);
    return err;
}

/* ---- the pass ---- */

/* Calls step() with every sealed local segment, oldest first, and with the open ones too when asked. */
static int each_segment(struct pass *m, bool open_too, int (*step)(struct pass *m, struct vv_segment *s))
{
    struct vv_extent x;
    int err = 0;
    for (int64_t at = 0; !err && !vv_index_next(m->log->index, at, &x); at = x.base + 1) {
        bool wanted = x.local && (x.state == VV_EXTENT_SEALED || (open_too && x.state == VV_EXTENT_OPEN));
        if (wanted) err = step(m, x.local);
        vv_extent_release(m->log->index, &x);
    }
    return err;
}

static int note_segment(struct pass *m, struct vv_segment *s)
{
    struct vv_file *f;
    uint64_t at = 0;
    int err = vv_segment_enter(s, true, &f);
    if (err) return err;
    err = vv_log_walk(m->log->env, f, &at, atomic_load(&s->bytes), true, note_batch, m);
    vv_segment_leave(s, f);
    return err;
}

/* Enough that is new? As Kafka's min.cleanable.dirty.ratio of one half. */
static bool worth_it(struct vv_log *log)
{
    struct vv_extent x;
    uint64_t dirty = 0, clean = 0;
    for (int64_t at = 0; !vv_index_next(log->index, at, &x); at = x.base + 1) {
        if (x.local && x.state == VV_EXTENT_SEALED) {
            uint64_t bytes = atomic_load(&x.local->bytes);
            if (x.base >= log->compacted_to) dirty += bytes;
            else clean += bytes;
        }
        vv_extent_release(log->index, &x);
    }
    return dirty && dirty >= clean;
}

/* Empty segments at the front: the log begins behind them. Their files go with retention. */
static int give_back_front(struct vv_log *log, int64_t *compacted_to)
{
    struct vv_extent x;
    int64_t start = -1;
    bool leading = true;
    for (int64_t at = 0; !vv_index_next(log->index, at, &x); at = x.base + 1) {
        bool sealed = x.local && x.state == VV_EXTENT_SEALED;
        if (sealed) *compacted_to = x.last + 1;
        if (leading && sealed && !atomic_load(&x.local->bytes)) start = x.last + 1;
        else if (x.local) leading = false;
        vv_extent_release(log->index, &x);
    }
    return start > 0 ? vv_index_set_log_start(log->index, start) : 0;
}

int vv_log_compact(struct vv_log *log, int64_t delete_retention_ms)
{
    struct pass m = {.log = log, .mask = 1023, .drop_tombstones_before = vv_wall_ms(log->env) - delete_retention_ms};
    pthread_mutex_lock(&log->seal_mu);
    int err = 0;
    if (worth_it(log)) {
        m.v = calloc(m.mask + 1, sizeof *m.v);
        err = m.v ? each_segment(&m, true, note_segment) : VV_E_NOMEM;
        if (!err) err = each_segment(&m, false, rewrite);
        if (!err) err = give_back_front(log, &log->compacted_to);
        if (err) VLOG_WARN("%s: compaction stopped: %s", log->dir, vv_err_name(err));
        for (size_t i = 0; m.v && i <= m.mask; i++)
            for (struct key *k = m.v[i], *next; k; k = next) {
                next = k->next;
                free(k);
            }
        free(m.v);
        free(m.out);
        free(m.records);
    }
    pthread_mutex_unlock(&log->seal_mu);
    return err;
}
