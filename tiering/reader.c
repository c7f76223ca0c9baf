/* reader.c — gets ranges of segment objects into the chunk cache and brings tasks forward. Structures and locks:
 * reader.h; what a GET brings: reader_flight.c. */
#include "reader.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdlib.h>

/* ---- sending ---- */

void vv_reader_count_cache(struct vv_reader *rd)
{
    atomic_store(&rd->tier->cache_bytes, rd->cc.data.used + rd->cc.footers.used);
}

void vv_reader_pump(struct vv_reader *rd)
{
    for (;;) {
        struct vv_flight *f = NULL;
        struct vv_cc_entry *e = NULL;
        pthread_mutex_lock(&rd->mu);
        bool wishes = rd->cc.data.wishes.count || rd->cc.footers.wishes.count;
        if (wishes && !rd->dying) f = vv_flight_new(rd);
        if (f && (e = vv_cc_pump(&rd->cc, vv_mono_us(rd->env))) != NULL) vv_flight_board(f, e);
        vv_reader_count_cache(rd);
        pthread_mutex_unlock(&rd->mu);
        if (!e) {
            free(f);
            return;
        }
        vv_flight_send(f);
    }
}

/* A second without a GET: nobody reads, the spare buffers go. */
void vv_reader_stats(struct vv_reader *rd, struct vv_tier_stats *out)
{
    if (!rd) return;
    pthread_mutex_lock(&rd->mu);
    for (const struct vv_task *k = rd->tasks; k; k = k->next) out->reads_waiting += k->kind != VV_TASK_AHEAD;
    out->ranges_queued = rd->cc.data.wishes.count + rd->cc.footers.wishes.count;
    out->gets_flying = rd->flights;
    pthread_mutex_unlock(&rd->mu);
}

void vv_reader_tick(struct vv_reader *rd)
{
    if (!rd) return;
    vv_reader_pump(rd);
    pthread_mutex_lock(&rd->mu);
    bool idle = !rd->flights && vv_mono_us(rd->env) - rd->landed_us > 1000000;
    pthread_mutex_unlock(&rd->mu);
    if (idle) vv_bufpool_trim(rd->bufs);
}

/* ---- tasks ---- */

struct vv_task *vv_task_new(struct vv_tier_part *p, enum vv_task_kind kind)
{
    struct vv_reader *rd = vv_reader_of(p->tier);
    struct vv_task *k = rd ? calloc(1, sizeof *k) : NULL;
    if (!k) return NULL;
    k->kind = kind;
    k->rd = rd;
    k->part = p;
    pthread_mutex_lock(&rd->mu);
    k->next = rd->tasks;
    if (k->next) k->next->prev = k;
    rd->tasks = k;
    pthread_mutex_unlock(&rd->mu);
    return k;
}

void vv_task_free(struct vv_task *k)
{
    struct vv_reader *rd = k->rd;
    vv_chain_release(&k->bytes);
    free(k->aborted);
    pthread_mutex_lock(&rd->mu);
    vv_cc_unref(k->footer);
    vv_cc_unref(k->data);
    *(k->prev ? &k->prev->next : &rd->tasks) = k->next;
    if (k->next) k->next->prev = k->prev;
    pthread_cond_broadcast(&rd->change);
    pthread_mutex_unlock(&rd->mu);
    free(k);
}

int vv_task_ended(struct vv_task *k)
{
    pthread_mutex_lock(&k->rd->mu);
    int err = k->end_err;
    pthread_mutex_unlock(&k->rd->mu);
    return err;
}

void vv_task_run(struct vv_task *k)
{
    switch (k->kind) {
    case VV_TASK_READ: vv_task_run_read(k); break;
    case VV_TASK_TIME: vv_task_run_time(k); break;
    case VV_TASK_ABORTED: vv_task_run_aborted(k); break;
    case VV_TASK_AHEAD: vv_task_run_ahead(k); break;
    }
}

static void put_back(struct vv_task *k, struct vv_cc_entry **slot)
{
    if (!*slot) return;
    pthread_mutex_lock(&k->rd->mu);
    vv_cc_unref(*slot);
    pthread_mutex_unlock(&k->rd->mu);
    *slot = NULL;
}

void vv_task_drop_footer(struct vv_task *k)
{
    put_back(k, &k->footer);
}

void vv_task_drop_data(struct vv_task *k)
{
    put_back(k, &k->data);
}

/* mu held. Who reads on waits for more than the next chunk if the same GET brings it: fewer, larger answers. */
static void wait_for(struct vv_task *k, struct vv_cc_entry *e)
{
    const struct vv_flight *f = e->flight;
    size_t n = e->bytes;
    k->beyond = false;
    for (unsigned i = e->seat + 1; f && i < f->count && f->e[i] && n < k->patience; i++) {
        e = f->e[i];
        n += e->bytes;
        k->beyond = true;
    }
    k->on = e;
    k->wait_next = e->waiters;
    e->waiters = k;
}

/* mu held: takes the task out of the list it waits in. False: it does not wait. */
static bool stop_waiting(struct vv_task *k)
{
    if (!k->on) return false;
    struct vv_task *at = k->on->waiters;
    if (at == k) {
        k->on->waiters = k->wait_next;
    } else {
        while (at->wait_next != k) at = at->wait_next;
        at->wait_next = k->wait_next;
    }
    k->on->since_us = VV_MAX(k->on->since_us, vv_mono_us(k->rd->env)); /* a wish lives on for a while */
    k->on = NULL;
    return true;
}

static enum vv_get get(struct vv_task *k, const struct vv_cc_key *key, uint64_t at, size_t n, bool peek,
                       struct vv_cc_entry **slot)
{
    struct vv_reader *rd = k->rd;
    int64_t now = vv_mono_us(rd->env);
    struct vv_cc_entry *sent = NULL;
    enum vv_get got = VV_GOT_NOT;
    pthread_mutex_lock(&rd->mu);
    if (k->end_err || rd->dying) {
        pthread_mutex_unlock(&rd->mu);
        return VV_GOT_NOT;
    }
    struct vv_cc_entry *e =
        peek ? vv_cc_find(&rd->cc, key, now) : vv_cc_want(&rd->cc, key, at, n, VV_CC_DEMAND, now, &sent);
    bool there = e && (e->state == VV_CC_READY || e->state == VV_CC_FAILED);
    if (there) {
        *slot = vv_cc_ref(e);
        if (e->state == VV_CC_READY && key->kind == VV_CC_FOOTER) vv_cc_touch(&rd->cc, e, 0, 0, 0, true, now);
        got = VV_GOT;
    } else if (e && !peek) {
        if (key->kind != VV_CC_FOOTER && !e->table) e->table = vv_cc_ref(k->footer);
        wait_for(k, e);
        got = VV_GOT_LATER;
    }
    bool counts = k->kind == VV_TASK_READ && key->kind != VV_CC_FOOTER && !peek && (!there || !k->waited);
    if (counts) atomic_fetch_add(there ? &rd->tier->cache_hits : &rd->tier->cache_misses, 1);
    if (got == VV_GOT_LATER && key->kind != VV_CC_FOOTER) k->waited = true;
    pthread_mutex_unlock(&rd->mu);
    if (got == VV_GOT_LATER) vv_reader_pump(rd); /* k is the others' from here on */
    return got;
}

void vv_reader_key_object(const struct vv_task *k, struct vv_segkey *out)
{
    vv_segkey_of(k->part->o.topic_id, k->part->o.partition, &k->x, out);
}

static size_t footer_bytes(const struct vv_extent *x)
{
    uint64_t at = vv_extent_footer_at(x), n = x->object_bytes > at ? x->object_bytes - at : 0;
    if (n < VV_TRAILER_BYTES) n = VV_TRAILER_BYTES; /* nonsense in the index: the check of the footer says so */
    return (size_t)VV_MIN(n, (uint64_t)VV_FOOTER_MAX);
}

enum vv_get vv_task_get_footer(struct vv_task *k, bool peek)
{
    struct vv_cc_key key = {.kind = VV_CC_FOOTER};
    vv_reader_key_object(k, &key.object);
    return get(k, &key, vv_extent_footer_at(&k->x), footer_bytes(&k->x), peek, &k->footer);
}

uint32_t vv_footer_chunk_bytes(const struct vv_cc_entry *footer, uint32_t first, uint32_t count, uint64_t *at)
{
    const struct vv_block *v = footer->footer.blocks.v;
    *at = v[first].at;
    return (uint32_t)(v[first + count - 1].at + v[first + count - 1].n - v[first].at);
}

uint32_t vv_footer_chunk_of(const struct vv_cc_entry *footer, uint32_t block)
{
    uint32_t low = 0, high = footer->chunk_count - 1;
    while (low < high) {
        uint32_t mid = low + (high - low + 1) / 2;
        if (footer->chunks[mid] <= block) low = mid;
        else high = mid - 1;
    }
    return low;
}

uint32_t vv_footer_chunk_blocks(const struct vv_cc_entry *footer, uint32_t chunk)
{
    uint32_t end = chunk + 1 < footer->chunk_count ? footer->chunks[chunk + 1] : footer->footer.blocks.count;
    return end - footer->chunks[chunk];
}

enum vv_get vv_task_get_data(struct vv_task *k, enum vv_cc_kind kind, uint32_t first, uint32_t count, bool peek)
{
    struct vv_cc_key key = {.kind = kind, .first = first, .count = count};
    uint64_t at;
    vv_reader_key_object(k, &key.object);
    uint32_t n = vv_footer_chunk_bytes(k->footer, first, count, &at);
    return get(k, &key, at, n, peek, &k->data);
}

/* mu held: the chunk, now FLYING, or NULL: it is there already (*there), or there is no room. */
static struct vv_cc_entry *take_ahead(struct vv_task *k, uint32_t c, bool *there)
{
    struct vv_reader *rd = k->rd;
    uint32_t first = k->footer->chunks[c], count = vv_footer_chunk_blocks(k->footer, c);
    struct vv_cc_key key = {.kind = VV_CC_CHUNK, .first = first, .count = count};
    struct vv_cc_entry *sent = NULL;
    uint64_t at;
    vv_reader_key_object(k, &key.object);
    uint32_t n = vv_footer_chunk_bytes(k->footer, first, count, &at);
    struct vv_cc_entry *e = vv_cc_want(&rd->cc, &key, at, n, VV_CC_AHEAD, vv_mono_us(rd->env), &sent);
    *there = e && !sent && e->state != VV_CC_FAILED;
    if (sent) sent->table = vv_cc_ref(k->footer);
    return sent;
}

uint32_t vv_task_send_ahead(struct vv_task *k, uint32_t c, size_t bytes)
{
    struct vv_reader *rd = k->rd;
    struct vv_flight *f = vv_flight_new(rd);
    bool there = f != NULL;
    if (!f) return c;
    pthread_mutex_lock(&rd->mu);
    for (; there && !rd->dying && c < k->footer->chunk_count && f->count < VV_FLIGHT_MAX && f->get.n < bytes; c++) {
        struct vv_cc_entry *e = take_ahead(k, c, &there);
        if (e) vv_flight_board(f, e);
        else if (f->count || !there) break; /* the GET ends before what is there */
        there = true;
    }
    vv_reader_count_cache(rd);
    pthread_mutex_unlock(&rd->mu);
    if (f->count) vv_flight_send(f);
    else free(f);
    return c;
}

void vv_task_footer_ahead(struct vv_task *k, const struct vv_extent *x)
{
    struct vv_reader *rd = k->rd;
    struct vv_cc_key key = {.kind = VV_CC_FOOTER};
    struct vv_cc_entry *sent;
    vv_segkey_of(k->part->o.topic_id, k->part->o.partition, x, &key.object);
    pthread_mutex_lock(&rd->mu);
    if (!rd->dying)
        vv_cc_want(&rd->cc, &key, vv_extent_footer_at(x), footer_bytes(x), VV_CC_DEMAND, vv_mono_us(rd->env), &sent);
    pthread_mutex_unlock(&rd->mu);
    vv_reader_pump(rd);
}

/* ---- ending ---- */

void vv_tier_read_cancel(struct vv_tier_read *r)
{
    struct vv_reader *rd = r->reader;
    if (!rd) return;
    pthread_mutex_lock(&rd->mu);
    struct vv_task *k = r->waiter;
    bool mine = false;
    if (k && !k->end_err) {
        k->end_err = VV_E_TIMEOUT;
        mine = stop_waiting(k);
    }
    pthread_mutex_unlock(&rd->mu);
    if (mine) vv_task_run(k);
    vv_reader_pump(rd);
}

void vv_reader_part_closed(struct vv_reader *rd, struct vv_tier_part *p)
{
    if (!rd) return;
    pthread_mutex_lock(&rd->mu);
    for (;;) {
        struct vv_task *k = rd->tasks, *any = NULL;
        for (; k; k = k->next) {
            if (k->part != p) continue;
            any = k;
            if (!k->end_err) k->end_err = VV_E_SHUTDOWN;
            if (stop_waiting(k)) break;
        }
        if (k) {
            pthread_mutex_unlock(&rd->mu);
            vv_task_run(k);
            pthread_mutex_lock(&rd->mu);
        } else if (any) {
            pthread_cond_wait(&rd->change, &rd->mu);
        } else {
            break;
        }
    }
    for (size_t i = 0; i < VV_READER_STREAMS; i++)
        if (rd->streams[i].part == p) rd->streams[i] = (struct vv_stream){0};
    pthread_mutex_unlock(&rd->mu);
}

/* ---- the reader as a whole ---- */

struct vv_reader *vv_reader_of(struct vv_tier *t)
{
    pthread_mutex_lock(&t->mu);
    struct vv_reader *rd = t->reader;
    struct vv_bufpool *bufs = rd ? NULL : vv_bufpool_new(VV_READER_SPARE_BYTES);
    if (bufs && (rd = calloc(1, sizeof *rd)) == NULL) vv_bufpool_free(bufs);
    if (bufs && rd) {
        rd->bufs = bufs;
        rd->tier = t;
        rd->env = t->env;
        rd->store = t->store;
        rd->config = t->config;
        vv_cc_limits(&rd->cc, t->config.cache_bytes_max, t->config.fetch_bytes_per_s, vv_mono_us(t->env));
        pthread_mutex_init(&rd->mu, NULL);
        pthread_cond_init(&rd->change, NULL);
        t->reader = rd;
    }
    pthread_mutex_unlock(&t->mu);
    return rd;
}

void vv_reader_configure(struct vv_reader *rd, const struct vv_tier_config *c)
{
    if (!rd) return;
    pthread_mutex_lock(&rd->mu);
    rd->config = *c;
    vv_cc_limits(&rd->cc, c->cache_bytes_max, c->fetch_bytes_per_s, vv_mono_us(rd->env));
    vv_reader_count_cache(rd);
    pthread_mutex_unlock(&rd->mu);
    vv_reader_pump(rd);
}

static struct vv_flight *flying(struct vv_reader *rd)
{
    struct vv_flight *f = rd->flying;
    while (f && (f->cancelled || f->from_disk)) f = f->next; /* the disk cache ends its own */
    return f;
}

void vv_reader_free(struct vv_reader *rd)
{
    if (!rd) return;
    pthread_mutex_lock(&rd->mu);
    rd->dying = true;
    while (rd->sending) pthread_cond_wait(&rd->change, &rd->mu);
    struct vv_flight *f;
    while ((f = flying(rd)) != NULL) {
        f->cancelled = true;
        rd->cancelling = f;
        rd->canceller = pthread_self();
        pthread_mutex_unlock(&rd->mu);
        vv_objstore_cancel(rd->store, &f->get);
        pthread_mutex_lock(&rd->mu);
        rd->cancelling = NULL;
        pthread_cond_broadcast(&rd->change);
    }
    while (rd->flights) pthread_cond_wait(&rd->change, &rd->mu);
    vv_cc_release(&rd->cc);
    pthread_mutex_unlock(&rd->mu);
    VV_ASSERT(!rd->tasks);
    vv_bufpool_free(rd->bufs);
    pthread_cond_destroy(&rd->change);
    pthread_mutex_destroy(&rd->mu);
    free(rd);
}
