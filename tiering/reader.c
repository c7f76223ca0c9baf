/* reader.c — gets ranges of segment objects into the chunk cache and brings tasks forward. Structures and locks:
 * reader.h.
 *
 * What arrives is checked on the store's thread before anybody sees it (reader_check.c). What fails is fetched once more
 * (a proxy may have lied), then the failure is remembered for a few seconds, so that a crowd of readers does not
 * hammer a damaged object. */
#include "reader.h"
#include "diskcache.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdlib.h>

static void on_get(struct vv_objget *g);

/* ---- sending ---- */

/* mu held, e is FLYING: fills its GET. send() must follow, without mu. */
static void board(struct vv_reader *rd, struct vv_cc_entry *e)
{
    uint64_t at = e->at;
    size_t n = e->bytes;
    vv_segkey_format(&e->key.object, e->object);
    if (e->key.kind != VV_CC_FOOTER) vv_footer_range(&e->table->footer, e->key.first, e->key.count, &at, &n);
    e->owner = rd;
    e->get = (struct vv_objget){.key = e->object, .at = at, .n = n, .done = on_get, .deadline_ms = rd->config.fetch_deadline_ms};
    rd->flights++;
    rd->sending++;
}

static void send_get(struct vv_reader *rd, struct vv_cc_entry *e)
{
    struct vv_diskread *local = vv_diskcache_find(rd->tier->disk, &e->key.object, &e->get);
    e->from_disk = local != NULL;
    if (!local) atomic_fetch_add(&rd->tier->fetch_requests, 1);
    if (local) vv_diskcache_read(rd->tier->disk, local); /* e may be gone when it or the next returns */
    else vv_objstore_get_async(rd->store, &e->get);
    pthread_mutex_lock(&rd->mu);
    if (!--rd->sending) pthread_cond_broadcast(&rd->change);
    pthread_mutex_unlock(&rd->mu);
}

static void count_cache(struct vv_reader *rd) /* mu held */
{
    atomic_store(&rd->tier->cache_bytes, rd->cc.data.used + rd->cc.footers.used);
}

void vv_reader_pump(struct vv_reader *rd)
{
    for (;;) {
        pthread_mutex_lock(&rd->mu);
        struct vv_cc_entry *e = rd->dying ? NULL : vv_cc_pump(&rd->cc, vv_mono_us(rd->env));
        if (e) board(rd, e);
        count_cache(rd);
        pthread_mutex_unlock(&rd->mu);
        if (!e) return;
        send_get(rd, e);
    }
}

void vv_reader_tick(struct vv_reader *rd)
{
    if (rd) vv_reader_pump(rd);
}

/* ---- arriving ---- */

static bool try_again(struct vv_reader *rd, struct vv_cc_entry *e, const struct vv_error *why)
{
    pthread_mutex_lock(&rd->mu);
    bool again = !rd->dying && (e->from_disk || !e->attempts++);
    if (again) rd->sending++;
    pthread_mutex_unlock(&rd->mu);
    if (!again) return false;
    VLOG_WARN("tier: %s, bytes %" PRIu64 "-%" PRIu64 "%s: %s; fetching them once more", e->object, e->get.at,
              e->get.at + e->get.n - 1, e->from_disk ? " in the disk cache" : "", why->text);
    vv_buf_unref(e->get.buf);
    send_get(rd, e);
    return true;
}

/* mu held. Returns the tasks that waited for it. */
static struct vv_task *land(struct vv_reader *rd, struct vv_cc_entry *e, int err, const struct vv_error *why)
{
    int64_t now = vv_mono_us(rd->env);
    struct vv_task *waiters = e->waiters;
    e->waiters = NULL;
    for (struct vv_task *k = waiters; k; k = k->wait_next) {
        k->on = NULL;
        *(e->key.kind == VV_CC_FOOTER ? &k->footer : &k->data) = vv_cc_ref(e);
    }
    vv_cc_unref(e->table);
    e->table = NULL;
    if (err) {
        bool keep = err != VV_E_SHUTDOWN && err != VV_E_NOMEM;
        vv_cc_failed(&rd->cc, e, err, why, now, keep ? VV_READER_BAD_US : 0);
    } else {
        vv_cc_arrived(&rd->cc, e, now);
        if (waiters && e->key.kind == VV_CC_FOOTER) vv_cc_touch(&rd->cc, e, 0, 0, 0, true, now);
    }
    count_cache(rd);
    return waiters;
}

/* Is it right? The disk cache is told: what came from the store, as it lies there, is offered; what came from a file and is wrong
 * goes. */
static int check(struct vv_reader *rd, struct vv_cc_entry *e, struct vv_error *why)
{
    struct vv_diskcache *disk = rd->tier->disk;
    struct vv_chain stored = {0};
    if (disk && !e->from_disk && !e->get.err) vv_chain_add(&stored, e->get.buf, e->get.buf->data, e->get.n);
    int err = vv_reader_check(rd, e, why);
    if (!err) vv_diskcache_offer(disk, &e->key.object, e->get.at, &stored);
    if (err == VV_E_CORRUPT && e->from_disk) vv_diskcache_bad(disk, &e->key.object, e->get.at, e->get.n);
    vv_chain_release(&stored);
    return err;
}

static void on_get(struct vv_objget *g)
{
    struct vv_cc_entry *e = VV_CONTAINER(g, struct vv_cc_entry, get);
    struct vv_reader *rd = e->owner;
    struct vv_error why = {0};
    int err = check(rd, e, &why);
    if (err == VV_E_CORRUPT && try_again(rd, e, &why)) return;
    if (err && err != VV_E_SHUTDOWN) {
        atomic_fetch_add(&rd->tier->fetch_errors, 1);
        VLOG_WARN("tier: cannot read %s, bytes %" PRIu64 "-%" PRIu64 ": %s", e->object, e->get.at,
                  e->get.at + e->get.n - 1, why.text);
    }
    if (err == VV_E_CORRUPT && !g->err && e->key.kind != VV_CC_FOOTER) err = vv_reader_keep_good(rd, e);
    if (!err && e->key.kind != VV_CC_FOOTER) e->buf = g->buf;
    else vv_buf_unref(g->buf);
    pthread_mutex_lock(&rd->mu);
    /* The cancel must be over before the GET's memory may go; from inside the cancel it is this thread's own. */
    while (rd->cancelling == e && !pthread_equal(rd->canceller, pthread_self()))
        pthread_cond_wait(&rd->change, &rd->mu);
    struct vv_task *k = land(rd, e, err, &why);
    pthread_mutex_unlock(&rd->mu);
    vv_reader_pump(rd);
    while (k) {
        struct vv_task *next = k->wait_next;
        vv_task_run(k);
        k = next;
    }
    pthread_mutex_lock(&rd->mu);
    rd->flights--;
    pthread_cond_broadcast(&rd->change);
    pthread_mutex_unlock(&rd->mu);
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

static void wait_for(struct vv_task *k, struct vv_cc_entry *e) /* mu held */
{
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
    if (k->kind == VV_TASK_READ && key->kind != VV_CC_FOOTER && !peek)
        atomic_fetch_add(there ? &rd->tier->cache_hits : &rd->tier->cache_misses, 1);
    pthread_mutex_unlock(&rd->mu);
    if (got == VV_GOT_LATER) vv_reader_pump(rd); /* k is the others' from here on */
    return got;
}

void vv_reader_key_object(const struct vv_task *k, struct vv_segkey *out)
{
    vv_segkey_of(k->part->o.topic_id, k->part->o.partition, &k->x, out);
}

enum vv_get vv_task_get_footer(struct vv_task *k, bool peek)
{
    struct vv_cc_key key = {.kind = VV_CC_FOOTER};
    vv_reader_key_object(k, &key.object);
    uint64_t at = vv_extent_footer_at(&k->x), n = k->x.object_bytes > at ? k->x.object_bytes - at : 0;
    if (n < VV_TRAILER_BYTES) n = VV_TRAILER_BYTES; /* nonsense in the index: the check of the footer says so */
    if (n > VV_FOOTER_MAX) n = VV_FOOTER_MAX;
    return get(k, &key, at, (size_t)n, peek, &k->footer);
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

bool vv_task_send_ahead(struct vv_task *k, uint32_t first, uint32_t count)
{
    struct vv_reader *rd = k->rd;
    struct vv_cc_key key = {.kind = VV_CC_CHUNK, .first = first, .count = count};
    struct vv_cc_entry *sent = NULL;
    uint64_t at;
    vv_reader_key_object(k, &key.object);
    uint32_t n = vv_footer_chunk_bytes(k->footer, first, count, &at);
    pthread_mutex_lock(&rd->mu);
    struct vv_cc_entry *e =
        rd->dying ? NULL : vv_cc_want(&rd->cc, &key, at, n, VV_CC_AHEAD, vv_mono_us(rd->env), &sent);
    bool ok = e && e->state != VV_CC_FAILED;
    if (sent) {
        sent->table = vv_cc_ref(k->footer);
        board(rd, sent);
    }
    count_cache(rd);
    pthread_mutex_unlock(&rd->mu);
    if (sent) send_get(rd, sent);
    return ok;
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
    if (!rd && (rd = calloc(1, sizeof *rd)) != NULL) {
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
    count_cache(rd);
    pthread_mutex_unlock(&rd->mu);
    vv_reader_pump(rd);
}

static struct vv_cc_entry *flying(struct vv_reader *rd)
{
    struct vv_cc_entry *heads[] = {rd->cc.data.air.head, rd->cc.footers.air.head};
    for (size_t i = 0; i < VV_COUNT(heads); i++)
        for (struct vv_cc_entry *e = heads[i]; e; e = e->next)
            if (!e->cancelled && !e->from_disk) return e;
    return NULL;
}

void vv_reader_free(struct vv_reader *rd)
{
    if (!rd) return;
    pthread_mutex_lock(&rd->mu);
    rd->dying = true;
    while (rd->sending) pthread_cond_wait(&rd->change, &rd->mu);
    struct vv_cc_entry *e;
    while ((e = flying(rd)) != NULL) {
        e->cancelled = true;
        rd->cancelling = e;
        rd->canceller = pthread_self();
        pthread_mutex_unlock(&rd->mu);
        vv_objstore_cancel(rd->store, &e->get);
        pthread_mutex_lock(&rd->mu);
        rd->cancelling = NULL;
        pthread_cond_broadcast(&rd->change);
    }
    while (rd->flights) pthread_cond_wait(&rd->change, &rd->mu);
    vv_cc_release(&rd->cc);
    pthread_mutex_unlock(&rd->mu);
    VV_ASSERT(!rd->tasks);
    pthread_cond_destroy(&rd->change);
    pthread_mutex_destroy(&rd->mu);
    free(rd);
}
