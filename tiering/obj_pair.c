/* obj_pair.c — see obj_pair.h.
 *
 * An async GET is carried by an own vv_objget (struct carried). When the first store answers that the object is not there, the same
 * carrier goes to the second. A cancel reaches the store that has the GET now; between the two it is remembered and acted on instead of
 * the second request. Once the second request was sent it runs to its end or deadline: whose turn it is to free the carrier stays simple.
 * Threads: any. `lock` guards the carriers' state and the list of stores; never held while a store or a done is called. */
#include "obj_pair.h"
#include "keys.h"
#include "obj_backends.h"
#include "varve/bytes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct obj_pair {
    struct vv_objstore base;
    struct vv_objstore *_Atomic first, *_Atomic second;
    struct vv_objstore *owned[VV_OBJPAIR_SWAPS + 2];
    size_t owned_count;
    atomic_uint_fast64_t second_reads;
    pthread_mutex_t lock;
    pthread_cond_t none; /* no carrier is left */
    size_t carried_count;
};

struct carried {
    struct vv_objget get; /* what the inner store sees */
    struct vv_objget *outer;
    struct obj_pair *owner;
    struct vv_objstore *at; /* the first store while it has the GET; NULL afterwards */
    bool second, cancelled;
};

static bool is_segment(const char *key)
{
    struct vv_segkey k;
    return !vv_segkey_parse(key, &k);
}

/* ---- async GET ---- */

static void carried_end(struct carried *c, int err, struct vv_buf *buf)
{
    struct obj_pair *s = c->owner;
    vv_objget_finish(&s->base, c->outer, err, buf);
    pthread_mutex_lock(&s->lock); /* only now may close() go on, and c be forgotten by a cancel */
    s->carried_count--;
    pthread_cond_broadcast(&s->none);
    pthread_mutex_unlock(&s->lock);
    free(c);
}

static void carried_done(struct vv_objget *get)
{
    struct carried *c = VV_CONTAINER(get, struct carried, get);
    struct obj_pair *s = c->owner;
    struct vv_objstore *second = atomic_load(&s->second);
    bool go_on = get->err == VV_E_NOENT && second && !c->second && is_segment(get->key);
    pthread_mutex_lock(&s->lock);
    c->at = NULL;
    bool cancelled = c->cancelled;
    pthread_mutex_unlock(&s->lock);
    if (go_on && cancelled) {
        carried_end(c, VV_E_SHUTDOWN, NULL);
    } else if (go_on) {
        c->second = true;
        vv_objstore_get_async(second, &c->get);
    } else {
        if (!get->err && c->second) atomic_fetch_add(&s->second_reads, 1);
        c->outer->error = get->error;
        carried_end(c, get->err, get->buf);
    }
}

static size_t carried_room(struct vv_objget *get, size_t at, uint8_t **dst)
{
    struct carried *c = VV_CONTAINER(get, struct carried, get);
    return c->outer->sink->room(c->outer, at, dst);
}

static void carried_arrived(struct vv_objget *get, size_t at, size_t n)
{
    struct carried *c = VV_CONTAINER(get, struct carried, get);
    c->outer->sink->arrived(c->outer, at, n);
}

static const struct vv_objsink carried_sink = {carried_room, carried_arrived};

static void pair_get_async(struct vv_objstore *base, struct vv_objget *get)
{
    struct obj_pair *s = (struct obj_pair *)base;
    struct carried *c = calloc(1, sizeof *c);
    if (!c) {
        vv_objget_finish(base, get, VV_E_NOMEM, NULL);
        return;
    }
    c->outer = get;
    c->owner = s;
    c->get = (struct vv_objget){.key = get->key, .at = get->at, .n = get->n, .deadline_ms = get->deadline_ms,
                                .done = carried_done, .sink = get->sink ? &carried_sink : NULL};
    struct vv_objstore *first = atomic_load(&s->first);
    c->at = first;
    get->impl = c;
    pthread_mutex_lock(&s->lock);
    s->carried_count++;
    pthread_mutex_unlock(&s->lock);
    vv_objstore_get_async(first, &c->get);
}

static void pair_cancel(struct vv_objstore *base, struct vv_objget *get)
{
    struct obj_pair *s = (struct obj_pair *)base;
    struct carried *c = get->impl; /* alive: the caller keeps `get`'s done from returning */
    if (!c) return;
    pthread_mutex_lock(&s->lock);
    c->cancelled = true;
    struct vv_objstore *at = c->at;
    pthread_mutex_unlock(&s->lock);
    if (at) vv_objstore_cancel(at, &c->get);
}

/* ---- sync calls ---- */

static int pair_get(struct vv_objstore *base, const char *key, enum vv_objget_kind kind, uint64_t at, size_t n, int64_t deadline_ms,
                    struct vv_slice *out, struct vv_objinfo *info, struct vv_error *e)
{
    struct obj_pair *s = (struct obj_pair *)base;
    struct vv_objstore *second = atomic_load(&s->second);
    int err = vv_objstore_get(atomic_load(&s->first), key, kind, at, n, deadline_ms, out, info, e);
    if (err != VV_E_NOENT || !second || !is_segment(key)) return err;
    err = vv_objstore_get(second, key, kind, at, n, deadline_ms, out, info, e);
    if (!err) atomic_fetch_add(&s->second_reads, 1);
    return err;
}

static int pair_head(struct vv_objstore *base, const char *key, int64_t deadline_ms, struct vv_objinfo *info, struct vv_error *e)
{
    return vv_objstore_head(atomic_load(&((struct obj_pair *)base)->first), key, deadline_ms, info, e);
}

static int pair_put(struct vv_objstore *base, const char *key, const struct vv_objsrc *src, const struct vv_objput *how,
                    int64_t deadline_ms, struct vv_objinfo *info, struct vv_error *e)
{
    return vv_objstore_put(atomic_load(&((struct obj_pair *)base)->first), key, src, how, deadline_ms, info, e);
}

static struct vv_objsumming pair_summing(struct vv_objstore *base, uint64_t n)
{
    return vv_objstore_summing(atomic_load(&((struct obj_pair *)base)->first), n);
}

static int pair_delete(struct vv_objstore *base, const char *key, int64_t deadline_ms, struct vv_error *e)
{
    return vv_objstore_delete(atomic_load(&((struct obj_pair *)base)->first), key, deadline_ms, e);
}

static int pair_delete_many(struct vv_objstore *base, const char *const *keys, size_t count, int64_t deadline_ms, int *results,
                            struct vv_error *e)
{
    return vv_objstore_delete_many(atomic_load(&((struct obj_pair *)base)->first), keys, count, deadline_ms, results, e);
}

static int pair_list(struct vv_objstore *base, const char *prefix, const char *start_after, size_t max, int64_t deadline_ms,
                     struct vv_objlist *out, struct vv_error *e)
{
    vv_objlist_release(out); /* the inner call makes its own */
    return vv_objstore_list(atomic_load(&((struct obj_pair *)base)->first), prefix, start_after, max, deadline_ms, out, e);
}

static int pair_abort_stale(struct vv_objstore *base, const char *prefix, int64_t before_wall_ms, int64_t deadline_ms,
                            size_t *aborted, struct vv_error *e)
{
    return vv_objstore_abort_stale(atomic_load(&((struct obj_pair *)base)->first), prefix, before_wall_ms, deadline_ms, aborted, e);
}

/* ---- life ---- */

static void pair_interrupt(struct vv_objstore *base)
{
    struct obj_pair *s = (struct obj_pair *)base;
    pthread_mutex_lock(&s->lock);
    size_t n = s->owned_count;
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < n; i++) vv_objstore_interrupt(s->owned[i]);
}

static void pair_close(struct vv_objstore *base)
{
    struct obj_pair *s = (struct obj_pair *)base;
    atomic_store(&s->second, NULL);
    for (size_t i = 0; i < s->owned_count; i++) vv_objstore_close(s->owned[i]);
    pthread_mutex_lock(&s->lock);
    while (s->carried_count) pthread_cond_wait(&s->none, &s->lock);
    pthread_mutex_unlock(&s->lock);
    pthread_cond_destroy(&s->none);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static const struct vv_objstore_ops pair_ops = {
    .interrupt = pair_interrupt,
    .close = pair_close,
    .get_async = pair_get_async,
    .cancel = pair_cancel,
    .get = pair_get,
    .head = pair_head,
    .put = pair_put,
    .summing = pair_summing,
    .del = pair_delete,
    .delete_many = pair_delete_many,
    .list = pair_list,
    .abort_stale = pair_abort_stale,
};

int vv_objpair_open(struct vv_objstore *first, struct vv_objstore *second, struct vv_objstore **out)
{
    struct obj_pair *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return VV_E_NOMEM;
    vv_objstore_init(&s->base, &pair_ops, first->env, first->caps, first->url);
    s->base.keys = first->keys;
    first->keys = NULL;
    atomic_init(&s->first, first);
    atomic_init(&s->second, second);
    s->owned[s->owned_count++] = first;
    if (second) s->owned[s->owned_count++] = second;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->none, NULL);
    *out = &s->base;
    return VV_OK;
}

bool vv_objpair_is(const struct vv_objstore *s)
{
    return s->ops == &pair_ops;
}

void vv_objpair_forget_second(struct vv_objstore *base)
{
    atomic_store(&((struct obj_pair *)base)->second, NULL);
}

int vv_objpair_replace_first(struct vv_objstore *base, struct vv_objstore *first)
{
    struct obj_pair *s = (struct obj_pair *)base;
    pthread_mutex_lock(&s->lock);
    bool room = s->owned_count < VV_COUNT(s->owned);
    if (room) s->owned[s->owned_count++] = first;
    pthread_mutex_unlock(&s->lock);
    if (!room) return VV_E_LIMIT;
    atomic_store(&s->first, first);
    s->base.caps = first->caps;
    memcpy(s->base.url, first->url, sizeof s->base.url);
    return VV_OK;
}

struct vv_objstore *vv_objpair_first(struct vv_objstore *base)
{
    return atomic_load(&((struct obj_pair *)base)->first);
}

struct vv_objstore *vv_objpair_second(struct vv_objstore *base)
{
    return atomic_load(&((struct obj_pair *)base)->second);
}

uint64_t vv_objpair_second_reads(struct vv_objstore *base)
{
    return atomic_load(&((struct obj_pair *)base)->second_reads);
}
