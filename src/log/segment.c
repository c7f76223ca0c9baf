/* segment.c — one segment's files and tables. Contract and locks: segment.h. */
#include "segment.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Closed segments keep their file open once it was read, up to this many in the process; above, every read opens and closes. */
#define FILES_KEPT 4096
static atomic_int files_kept;

const struct vv_segment_ref_ops vv_segment_refs = {vv_segment_ref, vv_segment_unref};

struct vv_segment *vv_segment_new(struct vv_env *env, const char *dir, int64_t base)
{
    struct vv_segment *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->dir = strdup(dir);
    if (!s->dir) {
        free(s);
        return NULL;
    }
    s->env = env;
    s->base = base;
    s->first_ts = s->max_ts = s->max_ts_offset = -1;
    s->epoch = -1;
    s->open = true;
    atomic_init(&s->refs, 1);
    atomic_init(&s->next_offset, base);
    for (int i = 0; i < VV_SEGMENT_HINTS; i++) s->hints[i].offset = -1;
    pthread_rwlock_init(&s->file_lock, NULL);
    pthread_mutex_init(&s->mu, NULL);
    return s;
}

void vv_segment_ref(struct vv_segment *s)
{
    atomic_fetch_add(&s->refs, 1);
}

static void close_file(struct vv_segment *s)
{
    if (!s->file) return;
    vv_fs_close(s->env, s->file);
    s->file = NULL;
    if (!s->pinned) atomic_fetch_sub(&files_kept, 1);
}

void vv_segment_unref(struct vv_segment *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1) return;
    close_file(s);
    free(s->offsets);
    free(s->times);
    vv_blocks_release(&s->blocks);
    free(s->snapshot);
    pthread_mutex_destroy(&s->mu);
    pthread_rwlock_destroy(&s->file_lock);
    free(s->dir);
    free(s->old_dir);
    free(s);
}

int vv_segment_moved(struct vv_segment *s, const char *dir)
{
    char *to = strdup(dir);
    if (!to) return VV_E_NOMEM;
    pthread_rwlock_wrlock(&s->file_lock); /* nobody is about to open a file by its old name */
    VV_ASSERT(!s->old_dir);
    s->old_dir = s->dir;
    s->dir = to;
    pthread_rwlock_unlock(&s->file_lock);
    return 0;
}

void vv_segment_path(const char *dir, int64_t offset, const char *suffix, char path[VV_SEGMENT_PATH])
{
    snprintf(path, VV_SEGMENT_PATH, "%s/%020" PRId64 "%s", dir, offset, suffix);
}

static int open_pinned(struct vv_segment *s, int flags)
{
    char path[VV_SEGMENT_PATH];
    vv_segment_path(s->dir, s->base, ".log", path);
    s->pinned = true;
    return vv_fs_open(s->env, path, flags, &s->file);
}

int vv_segment_create(struct vv_segment *s)
{
    return open_pinned(s, VV_O_READ | VV_O_WRITE | VV_O_CREATE | VV_O_TRUNC);
}

int vv_segment_open_file(struct vv_segment *s)
{
    return open_pinned(s, VV_O_READ | VV_O_WRITE);
}

void vv_segment_unpin(struct vv_segment *s)
{
    pthread_rwlock_wrlock(&s->file_lock);
    if (s->pinned && s->file) {
        s->pinned = false;
        if (atomic_fetch_add(&files_kept, 1) >= FILES_KEPT) close_file(s);
    }
    pthread_rwlock_unlock(&s->file_lock);
}

void vv_segment_forget_file(struct vv_segment *s)
{
    pthread_mutex_lock(&s->mu);
    close_file(s);
    for (int i = 0; i < VV_SEGMENT_HINTS; i++) s->hints[i].offset = -1;
    pthread_mutex_unlock(&s->mu);
}

int vv_segment_enter(struct vv_segment *s, bool may_block, struct vv_file **f)
{
    char path[VV_SEGMENT_PATH];
    pthread_rwlock_rdlock(&s->file_lock);
    pthread_mutex_lock(&s->mu);
    *f = s->file;
    pthread_mutex_unlock(&s->mu);
    if (*f) return 0;
    if (!may_block) {
        pthread_rwlock_unlock(&s->file_lock);
        return VV_E_AGAIN;
    }
    vv_segment_path(s->dir, s->base, ".log", path);
    struct vv_file *mine;
    int err = vv_fs_open(s->env, path, VV_O_READ, &mine);
    if (err) {
        pthread_rwlock_unlock(&s->file_lock);
        return err;
    }
    *f = mine;
    if (atomic_fetch_add(&files_kept, 1) >= FILES_KEPT) {
        atomic_fetch_sub(&files_kept, 1);
        return 0; /* leave closes it */
    }
    pthread_mutex_lock(&s->mu); /* two readers may be here at once; file_lock shared keeps it from going away */
    bool kept = !s->file;
    if (kept) s->file = mine;
    pthread_mutex_unlock(&s->mu);
    if (!kept) atomic_fetch_sub(&files_kept, 1);
    return 0;
}

void vv_segment_leave(struct vv_segment *s, struct vv_file *f)
{
    pthread_mutex_lock(&s->mu);
    bool own = f == s->file;
    pthread_mutex_unlock(&s->mu);
    pthread_rwlock_unlock(&s->file_lock);
    if (!own) vv_fs_close(s->env, f);
}

/* ---- tables ---- */

static int grow(void **v, size_t *cap, size_t n, size_t one)
{
    if (n < *cap) return 0;
    size_t next = *cap ? *cap * 2 : 16;
    void *p = realloc(*v, next * one);
    if (!p) return VV_E_NOMEM;
    *v = p;
    *cap = next;
    return 0;
}

static int add_index_entries(struct vv_segment *s, int64_t last, uint64_t at)
{
    s->offsets[s->offset_count].rel = (uint32_t)(last - s->base);
    s->offsets[s->offset_count++].at = (uint32_t)at;
    if (s->max_ts_offset >= 0 && (!s->time_count || s->max_ts > s->times[s->time_count - 1].ts)) {
        s->times[s->time_count].ts = s->max_ts;
        s->times[s->time_count++].rel = (uint32_t)(s->max_ts_offset - s->base);
    }
    return 0;
}

int vv_segment_reserve(struct vv_segment *s)
{
    if (s->offset_count < s->offset_cap && s->time_count + 1 < s->time_cap && s->blocks.count < s->blocks.cap) return 0;
    pthread_mutex_lock(&s->mu);
    int err = grow((void **)&s->offsets, &s->offset_cap, s->offset_count, sizeof *s->offsets);
    if (!err) err = grow((void **)&s->times, &s->time_cap, s->time_count + 1, sizeof *s->times);
    if (!err) err = vv_blocks_reserve(&s->blocks);
    pthread_mutex_unlock(&s->mu);
    return err;
}

int vv_segment_account(struct vv_segment *s, const uint8_t *p, const struct vv_batch *b, int64_t index_interval)
{
    int err = vv_segment_reserve(s);
    if (err) return err;
    uint64_t at = atomic_load_explicit(&s->bytes, memory_order_relaxed);
    int64_t last = vv_batch_last(b);
    pthread_mutex_lock(&s->mu);
    err = vv_blocks_append(&s->blocks, p, b->bytes, b->base_offset, b->base_ts, b->max_ts, (uint32_t)VV_MAX(b->records, 0));
    if (err) {
        pthread_mutex_unlock(&s->mu);
        return err;
    }
    if (s->max_ts_offset < 0 || b->max_ts > s->max_ts) {
        s->max_ts = b->max_ts;
        s->max_ts_offset = last;
    }
    if (!at) {
        s->first_ts = b->base_ts;
        s->epoch = b->leader_epoch;
        s->opened_mono_ms = vv_mono_ms(s->env);
    }
    if (s->since_index > (uint64_t)index_interval) {
        add_index_entries(s, last, at);
        s->since_index = 0;
    }
    s->since_index += b->bytes;
    pthread_mutex_unlock(&s->mu);
    atomic_store_explicit(&s->next_offset, last + 1, memory_order_release);
    atomic_store_explicit(&s->bytes, at + b->bytes, memory_order_release);
    return 0;
}

void vv_segment_hint(struct vv_segment *s, int64_t offset, uint64_t at)
{
    pthread_mutex_lock(&s->mu);
    s->hints[s->next_hint].offset = offset;
    s->hints[s->next_hint].at = at;
    s->next_hint = (s->next_hint + 1) % VV_SEGMENT_HINTS;
    pthread_mutex_unlock(&s->mu);
}

/* Largest entry at or below rel among n entries; false when all are above. */
static bool search_memory(const struct vv_segment *s, uint32_t rel, struct vv_place *out)
{
    size_t lo = 0, hi = s->offset_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->offsets[mid].rel <= rel) lo = mid + 1;
        else hi = mid;
    }
    if (!lo) return false;
    *out = (struct vv_place){s->offsets[lo - 1].at, -1, s->base + s->offsets[lo - 1].rel};
    return true;
}

/* The same in the .index file, an entry at a time; anything odd is "not found". */
static bool search_file(struct vv_segment *s, uint32_t rel, struct vv_place *out)
{
    char path[VV_SEGMENT_PATH];
    struct vv_file *f;
    struct vv_place found = {.base = s->base, .last = -1};
    uint64_t size;
    uint8_t e[8];
    vv_segment_path(s->dir, s->base, ".index", path);
    if (vv_fs_open(s->env, path, VV_O_READ, &f)) return false;
    if (vv_fs_size(s->env, f, &size)) size = 0;
    uint64_t lo = 0, hi = size / 8;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (vv_fs_pread(s->env, f, e, 8, mid * 8) != 8) break;
        if (vv_get32(e) <= rel) {
            lo = mid + 1;
            found = (struct vv_place){vv_get32(e + 4), -1, s->base + vv_get32(e)};
        } else {
            hi = mid;
        }
    }
    vv_fs_close(s->env, f);
    *out = found;
    return found.at < atomic_load(&s->bytes);
}

int vv_segment_lookup(struct vv_segment *s, int64_t offset, bool may_block, struct vv_place *out)
{
    uint32_t rel = offset > s->base ? (uint32_t)VV_MIN(offset - s->base, (int64_t)UINT32_MAX) : 0;
    *out = (struct vv_place){.base = s->base, .last = -1};
    if (!rel) return 0;
    pthread_mutex_lock(&s->mu);
    bool found = false, open = s->open;
    for (int i = 0; i < VV_SEGMENT_HINTS && !found; i++) {
        if (s->hints[i].offset != offset) continue;
        *out = (struct vv_place){s->hints[i].at, offset, -1};
        found = true;
    }
    if (!found && open) search_memory(s, rel, out);
    pthread_mutex_unlock(&s->mu);
    if (found || open) return 0;
    if (!may_block) return VV_E_AGAIN;
    if (!search_file(s, rel, out)) *out = (struct vv_place){.base = s->base, .last = -1};
    return 0;
}

/* ---- tables as files ---- */

/* Never half a file under the name, also when one was there; the directory is the caller's to sync. */
int vv_segment_write_file(struct vv_env *env, const char *path, const void *p, size_t n, bool durable)
{
    char temp[VV_SEGMENT_PATH + 8];
    struct vv_file *f;
    snprintf(temp, sizeof temp, "%s.tmp", path);
    int err = vv_fs_open(env, temp, VV_O_WRITE | VV_O_CREATE | VV_O_TRUNC, &f);
    if (err) return err;
    if (n) err = vv_fs_pwrite(env, f, p, n, 0);
    if (!err && durable) err = vv_fs_datasync(env, f);
    int cerr = vv_fs_close(env, f);
    if (!err) err = cerr;
    if (!err) err = vv_fs_rename(env, temp, path);
    if (err) vv_fs_unlink(env, temp);
    return err;
}

/* Kafka's encodings; the time index ends with the segment's largest timestamp, as Kafka's does when it closes one. */
static uint8_t *encode_tables(struct vv_segment *s, size_t *index_n, size_t *time_n, size_t *blocks_n)
{
    size_t extra = s->max_ts_offset >= 0 && (!s->time_count || s->max_ts > s->times[s->time_count - 1].ts);
    *index_n = s->offset_count * 8;
    *time_n = (s->time_count + extra) * 12;
    *blocks_n = vv_blocks_encoded_size(&s->blocks);
    uint8_t *all = malloc(*index_n + *time_n + *blocks_n + 1), *p = all;
    if (!all) return NULL;
    for (size_t i = 0; i < s->offset_count; i++, p += 8) {
        vv_put32(p, s->offsets[i].rel);
        vv_put32(p + 4, s->offsets[i].at);
    }
    for (size_t i = 0; i < s->time_count; i++, p += 12) {
        vv_put64(p, (uint64_t)s->times[i].ts);
        vv_put32(p + 8, s->times[i].rel);
    }
    if (extra) {
        vv_put64(p, (uint64_t)s->max_ts);
        vv_put32(p + 8, (uint32_t)(s->max_ts_offset - s->base));
        p += 12;
    }
    vv_blocks_encode(&s->blocks, p);
    return all;
}

int vv_segment_write_tables(struct vv_segment *s, bool durable)
{
    char path[VV_SEGMENT_PATH];
    size_t index_n, time_n, blocks_n;
    pthread_mutex_lock(&s->mu);
    uint8_t *all = encode_tables(s, &index_n, &time_n, &blocks_n);
    pthread_mutex_unlock(&s->mu);
    if (!all) return VV_E_NOMEM;
    vv_segment_path(s->dir, s->base, ".index", path);
    int err = vv_segment_write_file(s->env, path, all, index_n, durable);
    vv_segment_path(s->dir, s->base, ".timeindex", path);
    if (!err) err = vv_segment_write_file(s->env, path, all + index_n, time_n, durable);
    vv_segment_path(s->dir, s->base, ".blocks", path);
    if (!err) err = vv_segment_write_file(s->env, path, all + index_n + time_n, blocks_n, durable);
    free(all);
    return err;
}

void vv_segment_drop_tables(struct vv_segment *s)
{
    pthread_mutex_lock(&s->mu);
    s->open = false;
    free(s->offsets);
    free(s->times);
    s->offsets = NULL;
    s->times = NULL;
    s->offset_count = s->offset_cap = s->time_count = s->time_cap = 0;
    vv_blocks_release(&s->blocks);
    free(s->snapshot);
    s->snapshot = NULL;
    pthread_mutex_unlock(&s->mu);
}

static int read_table(struct vv_segment *s, const char *suffix, size_t one, uint8_t **p, size_t *n)
{
    char path[VV_SEGMENT_PATH];
    vv_segment_path(s->dir, s->base, suffix, path);
    int err = vv_fs_read_file(s->env, path, (size_t)1 << 30, p, n);
    if (!err && *n % one) {
        free(*p);
        err = VV_E_CORRUPT;
    }
    return err;
}

int vv_segment_load_blocks(struct vv_segment *s, struct vv_blocks *out)
{
    uint8_t *p;
    size_t n;
    *out = (struct vv_blocks){0};
    pthread_mutex_lock(&s->mu);
    if (s->open) {
        int err = 0;
        *out = s->blocks;
        out->cap = out->count;
        out->v = malloc(out->count * sizeof *out->v + 1);
        if (out->v && out->count) memcpy(out->v, s->blocks.v, out->count * sizeof *out->v);
        else if (!out->v) err = VV_E_NOMEM;
        pthread_mutex_unlock(&s->mu);
        return err;
    }
    pthread_mutex_unlock(&s->mu);
    int err = read_table(s, ".blocks", 1, &p, &n);
    if (err) return err;
    err = vv_blocks_decode(p, n, out);
    free(p);
    return err;
}

/* An empty file is what a power cut may leave of one that was not synced: entries that must be there are asked for. */
int vv_segment_load_tables(struct vv_segment *s, int64_t index_interval)
{
    uint8_t *p;
    size_t n, i;
    int err = read_table(s, ".index", 8, &p, &n);
    if (err) return err;
    pthread_mutex_lock(&s->mu);
    for (i = 0; i < n && !err; i += 8) {
        err = grow((void **)&s->offsets, &s->offset_cap, s->offset_count, sizeof *s->offsets);
        if (err) break;
        s->offsets[s->offset_count].rel = vv_get32(p + i);
        s->offsets[s->offset_count].at = vv_get32(p + i + 4);
        if (s->offset_count && s->offsets[s->offset_count].rel <= s->offsets[s->offset_count - 1].rel) err = VV_E_CORRUPT;
        if (s->offsets[s->offset_count].at >= s->blocks.bytes) err = VV_E_CORRUPT;
        s->offset_count++;
    }
    if (!s->offset_count && s->blocks.v[s->blocks.count - 1].at > (uint64_t)index_interval) err = VV_E_CORRUPT;
    pthread_mutex_unlock(&s->mu);
    free(p);
    if (!err) err = read_table(s, ".timeindex", 12, &p, &n);
    if (err) return err;
    pthread_mutex_lock(&s->mu);
    for (i = 0; i < n && !err; i += 12) {
        err = grow((void **)&s->times, &s->time_cap, s->time_count, sizeof *s->times);
        if (err) break;
        s->times[s->time_count].ts = (int64_t)vv_get64(p + i);
        s->times[s->time_count].rel = vv_get32(p + i + 8);
        if (s->time_count && s->times[s->time_count].ts <= s->times[s->time_count - 1].ts) err = VV_E_CORRUPT;
        s->time_count++;
    }
    if (!err && (!s->time_count || s->times[s->time_count - 1].ts != s->max_ts)) err = VV_E_CORRUPT;
    if (!err) {
        s->max_ts_offset = s->base + s->times[s->time_count - 1].rel;
    }
    pthread_mutex_unlock(&s->mu);
    free(p);
    return err;
}

int vv_segment_unlink(struct vv_env *env, const char *dir, int64_t base)
{
    static const char *const suffixes[] = {".blocks", ".index", ".timeindex", ".txnindex", ".snapshot", ".log"};
    char path[VV_SEGMENT_PATH];
    for (size_t i = 0; i < VV_COUNT(suffixes); i++) {
        vv_segment_path(dir, base, suffixes[i], path);
        int err = vv_fs_unlink(env, path);
        if (err && err != VV_E_NOENT) return err; /* the .log stays as long as anything else: the next start finds it and goes on */
    }
    return 0;
}
