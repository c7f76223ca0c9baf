/* fetch_session.c — the cache of incremental fetch sessions. Contract, bounds and threads: fetch_session.h. */
#include "fetch_session.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#define SESSION_QUIET_MS 120000
#define SESSION_BUCKETS  1024
#define CACHE_PARTS_MAX  ((size_t)1 << 20)
enum { EPOCH_FINAL = -1, EPOCH_INITIAL = 0 };

struct vv_fetch_session {
    struct vv_fetch_session *newer, *older; /* by last use */
    struct vv_fetch_session *hash_next;
    int32_t id, epoch; /* epoch: of the next request */
    bool by_id, busy, dropped, full;
    int64_t used_ms;
    struct vv_session_part *first, *last;
    struct vv_session_part **buckets;
    size_t count, bucket_count;
};

static struct {
    pthread_mutex_t lock;
    struct vv_fetch_session *hash[SESSION_BUCKETS];
    struct vv_fetch_session *newest, *oldest;
    size_t count, parts;
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- one session's partitions ---- */

static uint32_t part_hash(bool by_id, struct vv_uuid id, struct vv_str name, int32_t partition)
{
    uint32_t h = by_id ? vv_crc32c(0, id.b, sizeof id.b) : vv_crc32c(0, name.p, (size_t)VV_MAX(name.n, 0));
    return vv_crc32c(h, &partition, sizeof partition);
}

static struct vv_session_part **find_part(struct vv_fetch_session *s, struct vv_uuid id, struct vv_str name,
                                          int32_t partition)
{
    struct vv_session_part **at = &s->buckets[part_hash(s->by_id, id, name, partition) & (s->bucket_count - 1)];
    for (; *at; at = &(*at)->hash_next) {
        if ((*at)->q.Partition != partition) continue;
        if (s->by_id ? vv_uuid_eq((*at)->id, id) : vv_str_eq((struct vv_str){(*at)->name, (*at)->name_n}, name)) break;
    }
    return at;
}

static void unlink_part(struct vv_fetch_session *s, struct vv_session_part *p)
{
    *(p->prev ? &p->prev->next : &s->first) = p->next;
    *(p->next ? &p->next->prev : &s->last) = p->prev;
}

static void append_part(struct vv_fetch_session *s, struct vv_session_part *p)
{
    p->prev = s->last;
    p->next = NULL;
    *(s->last ? &s->last->next : &s->first) = p;
    s->last = p;
}

static int grow(struct vv_fetch_session *s)
{
    if (s->count < s->bucket_count) return 0;
    size_t n = s->bucket_count ? s->bucket_count * 2 : 16;
    struct vv_session_part **v = calloc(n, sizeof(struct vv_session_part *));
    if (!v) return VV_E_NOMEM;
    for (struct vv_session_part *p = s->first; p; p = p->next) {
        struct vv_session_part **at =
            &v[part_hash(s->by_id, p->id, (struct vv_str){p->name, p->name_n}, p->q.Partition) & (n - 1)];
        p->hash_next = *at;
        *at = p;
    }
    free(s->buckets);
    s->buckets = v;
    s->bucket_count = n;
    return 0;
}

static int put_part(struct vv_fetch_session *s, const struct FetchRequest_FetchTopic *t,
                    const struct FetchRequest_FetchPartition *q)
{
    if (grow(s)) return VV_E_NOMEM;
    struct vv_session_part **at = find_part(s, t->TopicId, t->Topic, q->Partition);
    if (*at) {
        (*at)->q = *q;
        return 0;
    }
    int32_t n = s->by_id ? 0 : VV_MAX(t->Topic.n, 0);
    struct vv_session_part *p = calloc(1, sizeof *p + (size_t)n + 1);
    if (!p) return VV_E_NOMEM;
    if (n) memcpy(p->name, t->Topic.p, (size_t)n);
    p->name_n = n;
    p->id = t->TopicId;
    p->q = *q;
    p->high_watermark = p->log_start = -1;
    *at = p;
    append_part(s, p);
    s->count++;
    return 0;
}

static void remove_part(struct vv_fetch_session *s, struct vv_uuid id, struct vv_str name, int32_t partition)
{
    if (!s->bucket_count) return;
    struct vv_session_part **at = find_part(s, id, name, partition), *p = *at;
    if (!p) return;
    *at = p->hash_next;
    unlink_part(s, p);
    free(p);
    s->count--;
}

static void free_session(struct vv_fetch_session *s)
{
    for (struct vv_session_part *p = s->first, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    free(s->buckets);
    free(s);
}

/* ---- the cache; with the lock ---- */

static struct vv_fetch_session **find_session(int32_t id)
{
    struct vv_fetch_session **at = &cache.hash[(uint32_t)id % SESSION_BUCKETS];
    while (*at && (*at)->id != id) at = &(*at)->hash_next;
    return at;
}

static void unlink_session(struct vv_fetch_session *s)
{
    *(s->newer ? &s->newer->older : &cache.newest) = s->older;
    *(s->older ? &s->older->newer : &cache.oldest) = s->newer;
}

static void make_newest(struct vv_fetch_session *s)
{
    s->newer = NULL;
    s->older = cache.newest;
    *(cache.newest ? &cache.newest->newer : &cache.oldest) = s;
    cache.newest = s;
}

static void drop_session(struct vv_fetch_session *s)
{
    *find_session(s->id) = s->hash_next;
    unlink_session(s);
    cache.count--;
    cache.parts -= s->count;
    s->dropped = true;
    if (!s->busy) free_session(s);
}

static bool make_room(size_t slots, size_t parts, int64_t now_ms)
{
    while (cache.count + 1 > slots || cache.parts + parts > CACHE_PARTS_MAX) {
        struct vv_fetch_session *victim = cache.oldest;
        if (!victim) return false;
        if (now_ms - victim->used_ms <= SESSION_QUIET_MS)
            while (victim && victim->count >= parts) victim = victim->newer;
        if (!victim) return false;
        drop_session(victim);
    }
    return true;
}

static int32_t new_id(void)
{
    int32_t id = 0;
    while (id <= 0 || *find_session(id)) {
        if (getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id) return 0;
        id &= INT32_MAX;
    }
    return id;
}

/* ---- requests ---- */

static int put_all(struct vv_fetch_session *s, const struct FetchRequest *q)
{
    int err = 0;
    for (int32_t i = 0; i < q->Topics.n; i++)
        for (int32_t k = 0; !err && k < q->Topics.v[i].Partitions.n; k++)
            err = put_part(s, &q->Topics.v[i], &q->Topics.v[i].Partitions.v[k]);
    return err;
}

static void create(const struct FetchRequest *q, bool by_id, size_t slots, int64_t now_ms,
                   struct vv_fetch_session **out)
{
    struct vv_fetch_session *s = calloc(1, sizeof *s);
    if (!s) return;
    s->by_id = by_id;
    s->epoch = EPOCH_INITIAL + 1;
    s->busy = s->full = true;
    s->used_ms = now_ms;
    if (put_all(s, q) || !s->count) {
        free_session(s);
        return;
    }
    pthread_mutex_lock(&cache.lock);
    bool kept = make_room(slots, s->count, now_ms) && (s->id = new_id()) != 0;
    if (kept) {
        struct vv_fetch_session **at = find_session(s->id);
        *at = s;
        make_newest(s);
        cache.count++;
        cache.parts += s->count;
    }
    pthread_mutex_unlock(&cache.lock);
    if (kept)
        *out = s;
    else
        free_session(s);
}

/* The epoch wraps to 1: 0 and -1 have their meanings. */
static int32_t next_epoch(int32_t epoch)
{
    return epoch == INT32_MAX ? 1 : epoch + 1;
}

static int update(struct vv_fetch_session *s, const struct FetchRequest *q)
{
    for (int32_t i = 0; i < q->ForgottenTopicsData.n; i++) {
        const struct FetchRequest_ForgottenTopic *t = &q->ForgottenTopicsData.v[i];
        for (int32_t k = 0; k < t->Partitions.n; k++) remove_part(s, t->TopicId, t->Topic, t->Partitions.v[k]);
    }
    return put_all(s, q);
}

static int continue_session(const struct FetchRequest *q, bool by_id, int64_t now_ms, struct vv_fetch_session **out)
{
    int err = 0;
    pthread_mutex_lock(&cache.lock);
    struct vv_fetch_session *s = *find_session(q->SessionId);
    if (!s)
        err = VV_FETCH_SESSION_ID_NOT_FOUND;
    else if (s->busy || s->epoch != q->SessionEpoch)
        err = VV_INVALID_FETCH_SESSION_EPOCH;
    else if (s->by_id != by_id)
        err = VV_FETCH_SESSION_TOPIC_ID_ERROR;
    if (!err) {
        size_t before = s->count;
        err = update(s, q) ? VV_UNKNOWN_SERVER_ERROR : 0;
        cache.parts += s->count - before;
        s->epoch = next_epoch(s->epoch);
        s->used_ms = now_ms;
        s->full = false;
        if (err || !s->count || cache.parts > CACHE_PARTS_MAX) {
            drop_session(s); /* nothing left: the answer says id 0 */
        } else {
            s->busy = true;
            unlink_session(s);
            make_newest(s);
            *out = s;
        }
    }
    pthread_mutex_unlock(&cache.lock);
    return err;
}

int vv_fetch_session_begin(const struct FetchRequest *q, bool by_id, size_t slots, int64_t now_ms,
                           struct vv_fetch_session **out)
{
    *out = NULL;
    if (q->SessionEpoch != EPOCH_FINAL && q->SessionEpoch != EPOCH_INITIAL)
        return continue_session(q, by_id, now_ms, out);
    if (q->SessionId) {
        pthread_mutex_lock(&cache.lock);
        struct vv_fetch_session *old = *find_session(q->SessionId);
        if (old) drop_session(old);
        pthread_mutex_unlock(&cache.lock);
    }
    if (q->SessionEpoch == EPOCH_INITIAL) create(q, by_id, slots, now_ms, out);
    return 0;
}

void vv_fetch_session_end(struct vv_fetch_session *s)
{
    pthread_mutex_lock(&cache.lock);
    s->busy = false;
    bool dropped = s->dropped;
    pthread_mutex_unlock(&cache.lock);
    if (dropped) free_session(s);
}

int32_t vv_fetch_session_id(const struct vv_fetch_session *s)
{
    return s->id;
}

bool vv_fetch_session_full(const struct vv_fetch_session *s)
{
    return s->full;
}

size_t vv_fetch_session_count(const struct vv_fetch_session *s)
{
    return s->count;
}

struct vv_session_part *vv_fetch_session_first(struct vv_fetch_session *s)
{
    return s->first;
}

void vv_fetch_session_to_end(struct vv_fetch_session *s, struct vv_session_part *p)
{
    unlink_part(s, p);
    append_part(s, p);
}

size_t vv_fetch_sessions_cached(void)
{
    pthread_mutex_lock(&cache.lock);
    size_t n = cache.count;
    pthread_mutex_unlock(&cache.lock);
    return n;
}

void vv_fetch_sessions_clear(void)
{
    pthread_mutex_lock(&cache.lock);
    while (cache.newest) drop_session(cache.newest);
    pthread_mutex_unlock(&cache.lock);
}
