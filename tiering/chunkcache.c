/* chunkcache.c — see chunkcache.h. */
#include "chunkcache.h"
#include "varve/vlog.h"

#include <stdlib.h>

#define FRESH_US 500000  /* an unread chunk waits for its reader: a consumer asks again within a round trip */
#define BUSY_US 100000   /* one that is being read, for the next step */
#define WISH_US 5000000  /* how long a wish without a waiter is kept */
#define BURST_US 250000  /* of the rate limit */
#define BAD_MAX 128

/* ---- lists, references, hash ---- */

static struct vv_cc_pool *pool_of(struct vv_cc *cc, const struct vv_cc_entry *e)
{
    return e->key.kind == VV_CC_FOOTER ? &cc->footers : &cc->data;
}

static struct vv_cc_list *list_of(struct vv_cc *cc, struct vv_cc_entry *e, enum vv_cc_where where)
{
    struct vv_cc_pool *p = pool_of(cc, e);
    switch (where) {
    case VV_CC_FRESH: return &p->fresh;
    case VV_CC_BUSY: return &p->busy;
    case VV_CC_DONE: return &p->done;
    case VV_CC_HOT: return &p->hot;
    case VV_CC_WISHES: return &p->wishes;
    case VV_CC_AIR: return &p->air;
    case VV_CC_BAD: return &cc->bad;
    case VV_CC_NOWHERE: break;
    }
    return NULL;
}

static void leave(struct vv_cc *cc, struct vv_cc_entry *e)
{
    struct vv_cc_list *l = list_of(cc, e, e->where);
    if (!l) return;
    *(e->prev ? &e->prev->next : &l->head) = e->next;
    *(e->next ? &e->next->prev : &l->tail) = e->prev;
    e->prev = e->next = NULL;
    l->count--;
    if (e->where == VV_CC_HOT) pool_of(cc, e)->hot_bytes -= e->bytes;
    e->where = VV_CC_NOWHERE;
}

/* To the head: the most recent end. */
static void enter(struct vv_cc *cc, struct vv_cc_entry *e, enum vv_cc_where where)
{
    leave(cc, e);
    struct vv_cc_list *l = list_of(cc, e, where);
    e->next = l->head;
    *(l->head ? &l->head->prev : &l->tail) = e;
    l->head = e;
    l->count++;
    e->where = where;
    if (where == VV_CC_HOT) pool_of(cc, e)->hot_bytes += e->bytes;
}

struct vv_cc_entry *vv_cc_ref(struct vv_cc_entry *e)
{
    e->refs++;
    return e;
}

void vv_cc_unref(struct vv_cc_entry *e)
{
    if (!e || --e->refs) return;
    vv_cc_unref(e->table);
    vv_buf_unref(e->buf);
    vv_buf_unref(e->raw);
    vv_footer_release(&e->footer);
    free(e->chunks);
    free(e->bad);
    free(e->error);
    free(e);
}

static bool same(const struct vv_cc_key *a, const struct vv_cc_key *b)
{
    return a->first == b->first && a->kind == b->kind && a->count == b->count && vv_segkey_eq(&a->object, &b->object);
}

static struct vv_cc_entry **bucket(struct vv_cc *cc, const struct vv_cc_key *k)
{
    uint64_t h = k->object.nonce ^ (uint64_t)k->object.base * 0x9e3779b97f4a7c15u;
    h ^= (uint64_t)k->first << 20 ^ (uint64_t)k->kind << 7;
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return &cc->hash[h >> 32 & (VV_CC_BUCKETS - 1)];
}

/* Out of every list and the hash; its memory is no longer counted; the cache's reference goes. */
static void forget(struct vv_cc *cc, struct vv_cc_entry *e)
{
    struct vv_cc_pool *p = pool_of(cc, e);
    if (e->state == VV_CC_FLYING || e->state == VV_CC_READY) p->used -= e->bytes;
    if (e->ahead) p->ahead_bytes -= e->bytes;
    e->ahead = false;
    leave(cc, e);
    if (!e->hashed) return;
    struct vv_cc_entry **at = bucket(cc, &e->key);
    while (*at != e) at = &(*at)->hash_next;
    *at = e->hash_next;
    e->hashed = false;
    vv_cc_unref(e);
}

struct vv_cc_entry *vv_cc_find(struct vv_cc *cc, const struct vv_cc_key *key, int64_t now_us)
{
    struct vv_cc_entry *e = *bucket(cc, key);
    while (e && !same(&e->key, key)) e = e->hash_next;
    bool stale = e && ((e->state == VV_CC_FAILED && e->since_us <= now_us) || (e->bad && e->bad_until_us <= now_us));
    if (stale && e->state != VV_CC_FLYING) {
        forget(cc, e);
        return NULL;
    }
    return e;
}

/* ---- room ---- */

static struct vv_cc_entry *victim(struct vv_cc_pool *p, size_t n, enum vv_cc_urgency urgency, int64_t now_us)
{
    if (p->done.tail) return p->done.tail;
    if (p->busy.tail && now_us - p->busy.tail->since_us > BUSY_US) return p->busy.tail;
    if (p->fresh.tail && now_us - p->fresh.tail->since_us > FRESH_US) return p->fresh.tail;
    if (urgency == VV_CC_AHEAD) return NULL;
    bool cramped = p->used - p->hot_bytes + n <= p->max / 4 || p->used == p->hot_bytes;
    return cramped ? p->hot.tail : NULL;
}

/* Also more than the budget where nothing else is held: an oversized batch must be readable. */
static bool reserve(struct vv_cc *cc, struct vv_cc_pool *p, size_t n, enum vv_cc_urgency urgency, int64_t now_us)
{
    if (urgency == VV_CC_AHEAD && p->ahead_bytes + n > p->max / 2) return false;
    while (p->used && p->used + n > p->max) {
        struct vv_cc_entry *v = victim(p, n, urgency, now_us);
        if (!v) return false;
        forget(cc, v);
    }
    p->used += n;
    return true;
}

static bool rate_allows(struct vv_cc *cc, size_t n, int64_t now_us)
{
    if (!cc->bytes_per_s) return true;
    if (cc->spent_us > now_us) return false;
    cc->spent_us = VV_MAX(cc->spent_us, now_us - BURST_US) + (int64_t)((double)n * 1e6 / (double)cc->bytes_per_s);
    return true;
}

void vv_cc_refund(struct vv_cc *cc, size_t n)
{
    if (cc->bytes_per_s) cc->spent_us -= (int64_t)((double)n * 1e6 / (double)cc->bytes_per_s);
}

static void take_off(struct vv_cc *cc, struct vv_cc_entry *e)
{
    e->state = VV_CC_FLYING;
    enter(cc, e, VV_CC_AIR);
    vv_cc_ref(e); /* the flight's */
}

static void asked(struct vv_cc *cc, struct vv_cc_entry *e, int64_t now_us)
{
    if (e->ahead) pool_of(cc, e)->ahead_bytes -= e->bytes;
    e->ahead = false;
    if (e->state == VV_CC_QUEUED) e->since_us = now_us;
}

struct vv_cc_entry *vv_cc_want(struct vv_cc *cc, const struct vv_cc_key *key, uint64_t at, size_t bytes,
                               enum vv_cc_urgency urgency, int64_t now_us, struct vv_cc_entry **send)
{
    struct vv_cc_entry *e = vv_cc_find(cc, key, now_us);
    *send = NULL;
    if (e) {
        if (urgency == VV_CC_DEMAND) asked(cc, e, now_us);
        return e;
    }
    struct vv_cc_pool *p = key->kind == VV_CC_FOOTER ? &cc->footers : &cc->data;
    if (urgency == VV_CC_AHEAD && (p->wishes.count || cc->spent_us > now_us)) return NULL;
    e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->key = *key;
    e->at = at;
    e->bytes = bytes;
    e->refs = 1;
    e->since_us = now_us;
    e->served_to = INT64_MIN;
    if (urgency == VV_CC_AHEAD) {
        if (!reserve(cc, p, bytes, urgency, now_us)) {
            free(e);
            return NULL;
        }
        rate_allows(cc, bytes, now_us);
        e->ahead = true;
        p->ahead_bytes += bytes;
        take_off(cc, e);
        *send = e;
    } else {
        e->state = VV_CC_QUEUED;
        enter(cc, e, VV_CC_WISHES);
    }
    e->hash_next = *bucket(cc, key);
    *bucket(cc, key) = e;
    e->hashed = true;
    return e;
}

static struct vv_cc_entry *pump_pool(struct vv_cc *cc, struct vv_cc_pool *p, int64_t now_us)
{
    struct vv_cc_entry *e;
    while ((e = p->wishes.tail) != NULL && !e->waiters && now_us - e->since_us > WISH_US) forget(cc, e);
    if (!e || (cc->bytes_per_s && cc->spent_us > now_us)) return NULL;
    if (!reserve(cc, p, e->bytes, VV_CC_DEMAND, now_us)) return NULL;
    rate_allows(cc, e->bytes, now_us);
    take_off(cc, e);
    return e;
}

struct vv_cc_entry *vv_cc_pump(struct vv_cc *cc, int64_t now_us)
{
    struct vv_cc_entry *e = pump_pool(cc, &cc->footers, now_us);
    return e ? e : pump_pool(cc, &cc->data, now_us);
}

/* ---- results ---- */

void vv_cc_arrived(struct vv_cc *cc, struct vv_cc_entry *e, int64_t now_us)
{
    e->state = VV_CC_READY;
    e->since_us = now_us;
    enter(cc, e, VV_CC_FRESH);
    vv_cc_unref(e);
}

void vv_cc_failed(struct vv_cc *cc, struct vv_cc_entry *e, int err, const struct vv_error *why, int64_t now_us,
                  int64_t keep_us)
{
    struct vv_cc_pool *p = pool_of(cc, e);
    p->used -= e->bytes;
    if (e->ahead) p->ahead_bytes -= e->bytes;
    e->ahead = false;
    e->state = VV_CC_FAILED;
    e->err = err;
    e->since_us = now_us + keep_us;
    if (why) e->error = malloc(sizeof *e->error);
    if (e->error) *e->error = *why;
    enter(cc, e, VV_CC_BAD);
    if (!keep_us) forget(cc, e);
    while (cc->bad.count > BAD_MAX) forget(cc, cc->bad.tail);
    vv_cc_unref(e);
}

void vv_cc_touch(struct vv_cc *cc, struct vv_cc_entry *e, int64_t first, int64_t from, int64_t to, bool whole,
                 int64_t now_us)
{
    if (!e->hashed || e->state != VV_CC_READY) return; /* evicted meanwhile: the toucher has a reference */
    struct vv_cc_pool *p = pool_of(cc, e);
    asked(cc, e, now_us); /* also who only looked, and found it */
    bool again = e->served_to != INT64_MIN && from < e->served_to;
    bool goes_on = e->served_to == INT64_MIN ? from <= first : from == e->served_to;
    e->since_us = now_us;
    e->served_to = VV_MAX(e->served_to, to);
    if (e->where == VV_CC_HOT || again) {
        enter(cc, e, VV_CC_HOT);
        while (p->hot_bytes > p->max - p->max / 4 && p->hot.tail != e) enter(cc, p->hot.tail, VV_CC_DONE);
    } else {
        enter(cc, e, goes_on && !whole ? VV_CC_BUSY : VV_CC_DONE);
    }
}

void vv_cc_limits(struct vv_cc *cc, size_t bytes_max, int64_t bytes_per_s, int64_t now_us)
{
    struct vv_cc_pool *pools[] = {&cc->data, &cc->footers};
    cc->footers.max = bytes_max / 8;
    cc->data.max = bytes_max - bytes_max / 8;
    cc->bytes_per_s = bytes_per_s;
    if (!bytes_per_s) cc->spent_us = 0;
    for (size_t i = 0; i < VV_COUNT(pools); i++) /* less than before: what may go goes now */
        while (pools[i]->used > pools[i]->max) {
            struct vv_cc_entry *v = victim(pools[i], 0, VV_CC_DEMAND, now_us);
            if (!v) break;
            forget(cc, v);
        }
}

static void drain(struct vv_cc *cc, struct vv_cc_list *l)
{
    while (l->head) forget(cc, l->head);
}

void vv_cc_release(struct vv_cc *cc)
{
    struct vv_cc_pool *pools[] = {&cc->data, &cc->footers};
    for (size_t i = 0; i < VV_COUNT(pools); i++) {
        VV_ASSERT(!pools[i]->air.head);
        drain(cc, &pools[i]->fresh);
        drain(cc, &pools[i]->busy);
        drain(cc, &pools[i]->done);
        drain(cc, &pools[i]->hot);
        drain(cc, &pools[i]->wishes);
    }
    drain(cc, &cc->bad);
}
