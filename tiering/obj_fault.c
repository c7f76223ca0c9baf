/* obj_fault.c — a store that lies, by rules: a wrapper over the ops of any other store. Contract:
 * varve/objstore.h.
 *
 * Each call asks decide() once; the first rule that fits gives one verdict, which the call then
 * acts out. A call that no rule fits goes through unchanged. Randomness is a seeded xorshift, so a
 * run repeats with its seed as long as the calls come in the same order.
 *
 * Async GETs: an affected one is carried by an own vv_objget (struct carried), whose `outer` is the
 * caller's. A stalled one waits in `stalled`; whoever takes it out of that list (release, cancel,
 * close, or the timer thread at its deadline) ends it or sends it on.
 *
 * Threads: any. `lock` guards rules, randomness and the stalled list; it is never held while the
 * inner store or a done is called. Stalls are timed by the real monotonic clock, not env's. */
#include "obj_backends.h"
#include "varve/bytes.h"
#include "varve/wait.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RULES_MAX = 64, KEY_PART_MAX = 256 };

struct rule {
    struct vv_objfault_rule is;
    char key_part[KEY_PART_MAX];
    unsigned seen, hits;
    bool on;
};

struct verdict {
    int action; /* enum vv_objfault_action, -1 = none */
    int err;
    int64_t arg;
    uint64_t random;
};

struct obj_fault;

struct carried {
    struct vv_objget get; /* what the inner store sees */
    struct vv_objget *outer;
    struct obj_fault *owner;
    struct verdict verdict;
    uint8_t *dst; /* with a sink: where the bytes now arriving go */
    size_t passed; /* bytes of the range that came before the stall */
    int64_t until_ms; /* when stalled: real monotonic */
    uint64_t release_no; /* a release after this one lets it go, also if it comes before the stall does */
    struct carried *next;
};

struct obj_fault {
    struct vv_objstore base;
    struct vv_objstore *inner;
    pthread_mutex_t lock;
    pthread_cond_t change; /* a release, a new stall, closing; on the monotonic clock */
    struct rule rules[RULES_MAX];
    int rule_count;
    uint64_t seed;
    uint64_t release_no; /* + 1 with every release */
    struct carried *stalled;
    unsigned sync_stalled, carried_count;
    pthread_t timer;
    bool timer_runs, closing;
};

static int64_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static uint64_t next_random(struct obj_fault *s)
{
    uint64_t x = s->seed;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return s->seed = x;
}

/* With lock held. */
static bool rule_fits(struct obj_fault *s, struct rule *r, enum vv_objop op, const char *key)
{
    if (!r->on || (r->is.op >= 0 && r->is.op != (int)op)) return false;
    if (r->is.key_part && !strstr(key, r->is.key_part)) return false;
    r->seen++;
    unsigned from = r->is.from ? r->is.from : 1;
    if (r->seen < from || (r->is.count && r->seen - from >= r->is.count)) return false;
    return !r->is.percent || next_random(s) % 100 < r->is.percent;
}

static struct verdict decide(struct obj_fault *s, enum vv_objop op, const char *key)
{
    struct verdict v = {.action = -1};
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->rule_count; i++) {
        struct rule *r = &s->rules[i];
        if (!rule_fits(s, r, op, key)) continue;
        r->hits++;
        v.action = (int)r->is.action;
        v.err = r->is.err ? r->is.err : v.action == VV_FAULT_LOSE_REPLY ? VV_E_TIMEOUT : VV_E_AGAIN;
        v.arg = r->is.arg;
        v.random = next_random(s);
        break;
    }
    pthread_mutex_unlock(&s->lock);
    return v;
}

static int injected(struct vv_error *e, int err, enum vv_objop op, const char *key)
{
    return vv_error_set(e, err, "injected fault: %s %s: %s", vv_objop_name(op), key,
                        vv_err_name(err));
}

static void wait_until(struct obj_fault *s, int64_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    pthread_cond_timedwait(&s->change, &s->lock, &t);
}

/* A sync call stands still. 0 = go on. */
static int stall(struct obj_fault *s, enum vv_objop op, const char *key, int64_t deadline_ms,
                 struct vv_error *e)
{
    int64_t until = real_ms() + deadline_ms;
    pthread_mutex_lock(&s->lock);
    uint64_t release_no = s->release_no;
    s->sync_stalled++;
    while (s->release_no == release_no && !s->closing && real_ms() < until &&
           !atomic_load(&s->base.interrupted))
        wait_until(s, until);
    bool released = s->release_no != release_no;
    s->sync_stalled--;
    pthread_mutex_unlock(&s->lock);
    return released ? VV_OK : injected(e, VV_E_TIMEOUT, op, key);
}

/* The verdict of a sync call, its FAIL and STALL acted out: non-zero ends the call. */
static int before(struct obj_fault *s, enum vv_objop op, const char *key, int64_t deadline_ms,
                  struct verdict *v, struct vv_error *e)
{
    *v = decide(s, op, key);
    if (v->action == VV_FAULT_FAIL) return injected(e, v->err, op, key);
    return v->action == VV_FAULT_STALL ? stall(s, op, key, deadline_ms, e) : VV_OK;
}

static int after(const struct verdict *v, int err, enum vv_objop op, const char *key,
                 struct vv_error *e)
{
    return v->action == VV_FAULT_LOSE_REPLY ? injected(e, v->err, op, key) : err;
}

static size_t position(const struct verdict *v, uint64_t size)
{
    return (size_t)(v->arg >= 0 ? VV_MIN((uint64_t)v->arg, size - 1) : v->random % size);
}

static uint64_t cut(const struct verdict *v, uint64_t size)
{
    return v->arg > 0 ? VV_MIN((uint64_t)v->arg, size) : size / 2;
}

/* ---- async GET ---- */

static void carried_end(struct carried *c, int err, struct vv_buf *buf)
{
    struct obj_fault *s = c->owner;
    struct vv_objget *outer = c->outer;
    vv_objget_finish(&s->base, outer, err, buf);
    pthread_mutex_lock(&s->lock); /* only now may close() go on, and c be forgotten by a cancel */
    s->carried_count--;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
    free(c);
}

static void carried_done(struct vv_objget *get);
static const struct vv_objsink carried_sink;
static void *timer(void *arg);

/* A GET with a sink may stall on its way: behind `arg` bytes. */
static bool stalls_later(const struct carried *c)
{
    const struct verdict *v = &c->verdict;
    return v->action == VV_FAULT_STALL && c->outer->sink && !c->passed && v->arg > 0 &&
           (uint64_t)v->arg < c->outer->n;
}

static void send_on(struct carried *c)
{
    c->get.key = c->outer->key;
    c->get.at = c->outer->at + c->passed;
    c->get.n = c->outer->n - c->passed;
    if (stalls_later(c)) c->get.n = (size_t)c->verdict.arg;
    c->get.deadline_ms = c->outer->deadline_ms;
    c->get.done = carried_done;
    c->get.sink = c->outer->sink ? &carried_sink : NULL;
    vv_objstore_get_async(c->owner->inner, &c->get);
}

/* It stands still from here on; false: the store is closing, or stalls were released since it was asked for. */
static bool hold(struct carried *c)
{
    struct obj_fault *s = c->owner;
    pthread_mutex_lock(&s->lock);
    bool stalls = !s->closing && s->release_no == c->release_no;
    if (stalls) {
        c->until_ms = real_ms() + c->outer->deadline_ms;
        c->next = s->stalled;
        s->stalled = c;
        if (!s->timer_runs) s->timer_runs = !pthread_create(&s->timer, NULL, timer, s);
        pthread_cond_broadcast(&s->change);
    }
    pthread_mutex_unlock(&s->lock);
    return stalls;
}

static void carried_done(struct vv_objget *get)
{
    struct carried *c = VV_CONTAINER(get, struct carried, get);
    struct verdict *v = &c->verdict;
    int err = get->err;
    c->outer->error = get->error;
    if (!err && c->passed + get->n < c->outer->n) { /* only what comes before the stall was asked for */
        c->passed += get->n;
        if (!hold(c)) send_on(c);
        return;
    }
    if (!err && v->action == VV_FAULT_LOSE_REPLY)
        err = injected(&c->outer->error, v->err, VV_OBJ_GET_ASYNC, get->key);
    if (!err && v->action == VV_FAULT_TRUNCATE)
        err = injected(&c->outer->error, VV_E_CORRUPT, VV_OBJ_GET_ASYNC, get->key);
    if (!err && v->action == VV_FAULT_FLIP && get->buf) get->buf->data[position(v, get->n)] ^= 0x10;
    carried_end(c, err, get->buf);
}

static size_t carried_room(struct vv_objget *get, size_t at, uint8_t **dst)
{
    struct carried *c = VV_CONTAINER(get, struct carried, get);
    size_t n = c->outer->sink->room(c->outer, c->passed + at, dst);
    c->dst = *dst;
    return n;
}

/* A flipped byte is flipped as it passes, behind a cut nothing is told. */
static void carried_arrived(struct vv_objget *get, size_t at, size_t n)
{
    struct carried *c = VV_CONTAINER(get, struct carried, get);
    const struct verdict *v = &c->verdict;
    size_t flip = v->action == VV_FAULT_FLIP ? position(v, get->n) : SIZE_MAX;
    size_t end = v->action == VV_FAULT_TRUNCATE ? (size_t)cut(v, get->n) : get->n;
    if (flip >= at && flip - at < n) c->dst[flip - at] ^= 0x10;
    if (at >= end) return;
    c->outer->sink->arrived(c->outer, c->passed + at, VV_MIN(n, end - at));
}

static const struct vv_objsink carried_sink = {carried_room, carried_arrived};

/* Ends stalled GETs whose deadline is over. */
static void *timer(void *arg)
{
    struct obj_fault *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->closing) {
        int64_t now = real_ms(), next = now + 1000;
        struct carried **at = &s->stalled, *late = NULL;
        for (; *at && !late; at = late ? at : &(*at)->next) {
            next = VV_MIN(next, (*at)->until_ms);
            if ((*at)->until_ms > now) continue;
            late = *at;
            *at = late->next;
        }
        if (!late) {
            wait_until(s, next);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        carried_end(late,
                    injected(&late->outer->error, VV_E_TIMEOUT, VV_OBJ_GET_ASYNC, late->outer->key),
                    NULL);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void fault_get_async(struct vv_objstore *base, struct vv_objget *get)
{
    struct obj_fault *s = (struct obj_fault *)base;
    pthread_mutex_lock(&s->lock);
    uint64_t release_no = s->release_no;
    pthread_mutex_unlock(&s->lock);
    struct verdict v = decide(s, VV_OBJ_GET_ASYNC, get->key);
    if (v.action == VV_FAULT_FAIL) {
        vv_objget_finish(base, get, injected(&get->error, v.err, VV_OBJ_GET_ASYNC, get->key), NULL);
        return;
    }
    struct carried *c = calloc(1, sizeof *c);
    if (!c) {
        vv_objget_finish(base, get, VV_E_NOMEM, NULL);
        return;
    }
    c->outer = get;
    c->owner = s;
    c->verdict = v;
    c->release_no = release_no;
    get->impl = c;
    pthread_mutex_lock(&s->lock);
    s->carried_count++;
    pthread_mutex_unlock(&s->lock);
    if (v.action != VV_FAULT_STALL || stalls_later(c) || !hold(c)) send_on(c);
}

static void fault_cancel(struct vv_objstore *base, struct vv_objget *get)
{
    struct obj_fault *s = (struct obj_fault *)base;
    struct carried *c = get->impl, *found = NULL;
    if (!c) return;
    pthread_mutex_lock(&s->lock);
    for (struct carried **at = &s->stalled; *at; at = &(*at)->next) {
        if (*at != c) continue;
        found = c;
        *at = c->next;
        break;
    }
    pthread_mutex_unlock(&s->lock);
    if (found)
        carried_end(c, injected(&get->error, VV_E_SHUTDOWN, VV_OBJ_GET_ASYNC, get->key), NULL);
    else
        vv_objstore_cancel(s->inner, &c->get);
}

void vv_objfault_release(struct vv_objstore *base)
{
    struct obj_fault *s = (struct obj_fault *)base;
    pthread_mutex_lock(&s->lock);
    struct carried *list = s->stalled;
    s->stalled = NULL;
    s->release_no++;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
    while (list) {
        struct carried *c = list;
        list = c->next;
        send_on(c);
    }
}

/* ---- sync calls ---- */

static int fault_get(struct vv_objstore *base, const char *key, enum vv_objget_kind kind,
                     uint64_t at, size_t n, int64_t deadline_ms, struct vv_slice *out,
                     struct vv_objinfo *info, struct vv_error *e)
{
    struct obj_fault *s = (struct obj_fault *)base;
    struct verdict v;
    int err = before(s, VV_OBJ_GET, key, deadline_ms, &v, e);
    if (err) return err;
    err = vv_objstore_get(s->inner, key, kind, at, n, deadline_ms, out, info, e);
    if (!err && out->n && v.action == VV_FAULT_FLIP) out->buf->data[position(&v, out->n)] ^= 0x10;
    if (!err && v.action == VV_FAULT_TRUNCATE) {
        if (kind == VV_GET_RANGE) return injected(e, VV_E_CORRUPT, VV_OBJ_GET, key);
        out->n = (size_t)cut(&v, out->n);
    }
    return after(&v, err, VV_OBJ_GET, key, e);
}

static int fault_head(struct vv_objstore *base, const char *key, int64_t deadline_ms,
                      struct vv_objinfo *info, struct vv_error *e)
{
    struct obj_fault *s = (struct obj_fault *)base;
    struct verdict v;
    int err = before(s, VV_OBJ_HEAD, key, deadline_ms, &v, e);
    if (err) return err;
    err = vv_objstore_head(s->inner, key, deadline_ms, info, e);
    return after(&v, err, VV_OBJ_HEAD, key, e);
}

struct flipped {
    const struct vv_objsrc *src;
    uint64_t position;
};

static int flipped_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    struct flipped *f = ctx;
    int err = f->src->read(f->src->ctx, at, dst, n);
    if (!err && f->position >= at && f->position - at < n)
        ((uint8_t *)dst)[f->position - at] ^= 0x10;
    return err;
}

static int fault_put(struct vv_objstore *base, const char *key, const struct vv_objsrc *src,
                     const struct vv_objput *how, int64_t deadline_ms, struct vv_objinfo *info,
                     struct vv_error *e)
{
    struct obj_fault *s = (struct obj_fault *)base;
    struct verdict v;
    int err = before(s, VV_OBJ_PUT, key, deadline_ms, &v, e);
    if (err) return err;
    struct flipped flipped = {.src = src};
    struct vv_objsrc lie = *src;
    struct vv_objput believed = *how; /* what it then stores is of the store's making: it has its own sums */
    if (v.action == VV_FAULT_TRUNCATE || v.action == VV_FAULT_FLIP) believed.sums = NULL;
    if (v.action == VV_FAULT_DROP_WRITE) {
        snprintf(info->etag, sizeof info->etag, "\"%032llx\"", (unsigned long long)v.random);
    } else {
        if (v.action == VV_FAULT_TRUNCATE) lie.size = cut(&v, src->size);
        if (v.action == VV_FAULT_FLIP && src->size) {
            flipped.position = position(&v, src->size);
            lie.read = flipped_read;
            lie.ctx = &flipped;
        }
        err = vv_objstore_put(s->inner, key, &lie, &believed, deadline_ms, info, e);
    }
    info->size = src->size;
    return after(&v, err, VV_OBJ_PUT, key, e);
}

static struct vv_objsumming fault_summing(struct vv_objstore *base, uint64_t n)
{
    return vv_objstore_summing(((struct obj_fault *)base)->inner, n);
}

static int fault_delete(struct vv_objstore *base, const char *key, int64_t deadline_ms,
                        struct vv_error *e)
{
    struct obj_fault *s = (struct obj_fault *)base;
    struct verdict v;
    int err = before(s, VV_OBJ_DELETE, key, deadline_ms, &v, e);
    if (err || v.action == VV_FAULT_DROP_WRITE) return err;
    err = vv_objstore_delete(s->inner, key, deadline_ms, e);
    return after(&v, err, VV_OBJ_DELETE, key, e);
}

/* One decision per request, by its first key; FAIL and LOSE_REPLY hit all keys of it. */
static int fault_delete_many(struct vv_objstore *base, const char *const *keys, size_t n,
                             int64_t deadline_ms, int *results, struct vv_error *e)
{
    struct obj_fault *s = (struct obj_fault *)base;
    struct verdict v;
    int err = before(s, VV_OBJ_DELETE_MANY, keys[0], deadline_ms, &v, e);
    if (!err && v.action != VV_FAULT_DROP_WRITE) {
        err = vv_objstore_delete_many(s->inner, keys, n, deadline_ms, results, e);
        if (v.action != VV_FAULT_LOSE_REPLY) return err;
        err = after(&v, err, VV_OBJ_DELETE_MANY, keys[0], e);
    }
    for (size_t i = 0; i < n; i++)
        results[i] = err;
    return err;
}

static void list_drop(struct vv_objlist *list, size_t i)
{
    memmove(&list->v[i], &list->v[i + 1], (list->count - i - 1) * sizeof *list->v);
    list->count--;
}

static void list_drop_newest(struct vv_objlist *list)
{
    size_t newest = 0;
    for (size_t i = 1; i < list->count; i++)
        if (list->v[i].mtime_ms >= list->v[newest].mtime_ms) newest = i;
    list_drop(list, newest);
}

static int list_add_ghost(struct vv_objlist *list, const struct verdict *v)
{
    char ghost[VV_OBJ_KEY_MAX + 2];
    if (!list->count) return VV_OK;
    int n = snprintf(ghost, sizeof ghost, "%s0", list->v[list->count - 1].key);
    return vv_objlist_add(list, ghost, (size_t)n, (uint64_t)v->arg,
                          list->v[list->count - 1].mtime_ms, "");
}

static int fault_list(struct vv_objstore *base, const char *prefix, const char *start_after,
                      size_t max, int64_t deadline_ms, struct vv_objlist *out, struct vv_error *e)
{
    struct obj_fault *s = (struct obj_fault *)base;
    struct verdict v;
    int err = before(s, VV_OBJ_LIST, prefix, deadline_ms, &v, e);
    if (err) return err;
    if (v.action == VV_FAULT_LIST_ENDLESS) start_after = NULL;
    vv_objlist_release(out); /* the inner call begins its own */
    err = vv_objstore_list(s->inner, prefix, start_after, max, deadline_ms, out, e);
    if (err) return err;
    if (v.action == VV_FAULT_LIST_STALE && out->count) list_drop_newest(out);
    if (v.action == VV_FAULT_LIST_MISSING && out->count) list_drop(out, v.random % out->count);
    if (v.action == VV_FAULT_LIST_EXTRA) err = list_add_ghost(out, &v);
    if (v.action == VV_FAULT_LIST_ENDLESS && out->count) out->more = true;
    if (!out->count) out->more = false;
    return after(&v, err, VV_OBJ_LIST, prefix, e);
}

static int fault_abort_stale(struct vv_objstore *base, const char *prefix, int64_t before_wall_ms,
                             int64_t deadline_ms, size_t *aborted, struct vv_error *e)
{
    struct obj_fault *s = (struct obj_fault *)base;
    struct verdict v;
    int err = before(s, VV_OBJ_ABORT_STALE, prefix, deadline_ms, &v, e);
    if (err) return err;
    err = vv_objstore_abort_stale(s->inner, prefix, before_wall_ms, deadline_ms, aborted, e);
    return after(&v, err, VV_OBJ_ABORT_STALE, prefix, e);
}

/* ---- life and rules ---- */

static void fault_close(struct vv_objstore *base)
{
    struct obj_fault *s = (struct obj_fault *)base;
    pthread_mutex_lock(&s->lock);
    struct carried *list = s->stalled;
    s->stalled = NULL;
    s->closing = true;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
    while (list) {
        struct carried *c = list;
        list = c->next;
        carried_end(c, injected(&c->outer->error, VV_E_SHUTDOWN, VV_OBJ_GET_ASYNC, c->outer->key),
                    NULL);
    }
    if (s->timer_runs) pthread_join(s->timer, NULL);
    vv_objstore_close(s->inner); /* ends what it still carries */
    pthread_mutex_lock(&s->lock);
    while (s->carried_count)
        pthread_cond_wait(&s->change, &s->lock);
    pthread_mutex_unlock(&s->lock);
    pthread_cond_destroy(&s->change);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void fault_interrupt(struct vv_objstore *base)
{
    struct obj_fault *s = (struct obj_fault *)base;
    vv_objstore_interrupt(s->inner);
    pthread_mutex_lock(&s->lock);
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
}

static const struct vv_objstore_ops fault_ops = {
    .interrupt = fault_interrupt,
    .close = fault_close,
    .get_async = fault_get_async,
    .cancel = fault_cancel,
    .get = fault_get,
    .head = fault_head,
    .put = fault_put,
    .summing = fault_summing,
    .del = fault_delete,
    .delete_many = fault_delete_many,
    .list = fault_list,
    .abort_stale = fault_abort_stale,
};

int vv_objfault_open(struct vv_objstore *inner, uint64_t seed, struct vv_objstore **out)
{
    struct obj_fault *s = calloc(1, sizeof *s);
    if (!s) return VV_E_NOMEM;
    vv_objstore_init(&s->base, &fault_ops, inner->env, inner->caps, inner->url);
    s->inner = inner;
    s->base.keys = inner->keys;
    inner->keys = NULL;
    s->seed = seed * 0x9e3779b97f4a7c15ull + 0x1234567890abcdefull;
    if (!s->seed) s->seed = 1;
    pthread_mutex_init(&s->lock, NULL);
    vv_cond_init(&s->change);
    *out = &s->base;
    return VV_OK;
}

int vv_objfault_add(struct vv_objstore *base, const struct vv_objfault_rule *rule)
{
    struct obj_fault *s = (struct obj_fault *)base;
    int id = VV_E_LIMIT;
    if (rule->key_part && strlen(rule->key_part) >= KEY_PART_MAX) return VV_E_LIMIT;
    pthread_mutex_lock(&s->lock);
    if (s->rule_count < RULES_MAX) {
        id = s->rule_count++;
        struct rule *r = &s->rules[id];
        memset(r, 0, sizeof *r);
        r->is = *rule;
        r->on = true;
        if (rule->key_part) {
            snprintf(r->key_part, sizeof r->key_part, "%s", rule->key_part);
            r->is.key_part = r->key_part;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return id;
}

void vv_objfault_clear(struct vv_objstore *base)
{
    struct obj_fault *s = (struct obj_fault *)base;
    pthread_mutex_lock(&s->lock);
    s->rule_count = 0;
    pthread_mutex_unlock(&s->lock);
    vv_objfault_release(base);
}

unsigned vv_objfault_hits(struct vv_objstore *base, int id)
{
    struct obj_fault *s = (struct obj_fault *)base;
    pthread_mutex_lock(&s->lock);
    unsigned hits = id >= 0 && id < s->rule_count ? s->rules[id].hits : 0;
    pthread_mutex_unlock(&s->lock);
    return hits;
}

unsigned vv_objfault_stalled(struct vv_objstore *base)
{
    struct obj_fault *s = (struct obj_fault *)base;
    pthread_mutex_lock(&s->lock);
    unsigned n = s->sync_stalled;
    for (struct carried *c = s->stalled; c; c = c->next)
        n++;
    pthread_mutex_unlock(&s->lock);
    return n;
}
