/* reader_flight.c — one GET for a run of neighbouring entries of an object. Structures and locks: reader.h.
 *
 * A flight fills its entries in order. Each block is checked as soon as its last byte is there, while it is in the
 * processor's cache; an entry whose blocks are all good lands at once, with the rest of the flight still arriving: who
 * waits for it is served then. Nobody sees an entry before it has landed.
 *
 * What does not fit its checksum, or is missing at the end, is fetched once more after the flight (a proxy may have
 * lied), then the failure is remembered for a few seconds, so that a crowd of readers does not hammer a damaged object.
 * A footer flies alone and whole. Compressed or encrypted blocks arrive in a buffer of their own and are unpacked when
 * their entry is complete.
 *
 * The disk cache is asked before the store (vv_flight_send), and offered what the store sent and passed its check (offer).
 *
 * Threads: room and arrived are the store's, one at a time for a flight; an entry aboard is that thread's alone but for
 * its place in the cache (mu). */
#include "reader.h"
#include "diskcache.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdlib.h>

static void over(struct vv_objget *g);
static size_t room(struct vv_objget *g, size_t at, uint8_t **dst);
static void arrived(struct vv_objget *g, size_t at, size_t n);
static const struct vv_objsink sink = {room, arrived};

/* ---- sending ---- */

struct vv_flight *vv_flight_new(struct vv_reader *rd)
{
    struct vv_flight *f = calloc(1, sizeof *f);
    if (f) f->rd = rd;
    return f;
}

void vv_flight_board(struct vv_flight *f, struct vv_cc_entry *e)
{
    VV_ASSERT(f->count < VV_FLIGHT_MAX && e->state == VV_CC_FLYING);
    struct vv_objget *g = &f->get;
    uint64_t at = e->at;
    e->coming = e->bytes;
    if (e->key.kind != VV_CC_FOOTER) vv_footer_range(&e->table->footer, e->key.first, e->key.count, &at, &e->coming);
    if (!f->count) {
        f->id = e->key.object;
        vv_segkey_format(&e->key.object, f->object);
        *g = (struct vv_objget){.key = f->object, .at = at, .done = over,
                                .deadline_ms = f->rd->config.fetch_deadline_ms,
                                .sink = e->key.kind == VV_CC_FOOTER ? NULL : &sink};
        f->next = f->rd->flying;
        if (f->next) f->next->prev = f;
        f->rd->flying = f;
        f->rd->flights++;
        f->rd->sending++;
    }
    VV_ASSERT(at == g->at + g->n && (e->table || !g->sink));
    if (g->sink && !e->buf && !e->promised) {
        vv_bufpool_promise(f->rd->bufs, e->bytes);
        e->promised = true;
    }
    g->n += e->coming;
    e->flight = f;
    e->seat = f->count;
    f->e[f->count++] = e;
}

void vv_flight_send(struct vv_flight *f)
{
    struct vv_reader *rd = f->rd;
    struct vv_diskread *local = vv_diskcache_find(rd->tier->disk, &f->id, &f->get);
    pthread_mutex_lock(&rd->mu);
    f->from_disk = local != NULL;
    if (local) vv_cc_refund(&rd->cc, f->get.n);
    pthread_mutex_unlock(&rd->mu);
    if (!local) atomic_fetch_add(&rd->tier->fetch_requests, 1);
    if (local) vv_diskcache_read(rd->tier->disk, local); /* f may be gone when it or the next returns */
    else vv_objstore_get_async(rd->store, &f->get);
    pthread_mutex_lock(&rd->mu);
    if (!--rd->sending) pthread_cond_broadcast(&rd->change);
    pthread_mutex_unlock(&rd->mu);
}

/* ---- landing ---- */

static void keep_promise(struct vv_reader *rd, struct vv_cc_entry *e)
{
    if (e->promised) vv_bufpool_unpromise(rd->bufs, e->bytes);
    e->promised = false;
}

static void run_all(struct vv_task *k)
{
    while (k) {
        struct vv_task *next = k->wait_next;
        vv_task_run(k);
        k = next;
    }
}

/* mu held: e leaves the flight. Returns the tasks that waited for it. */
static struct vv_task *land(struct vv_flight *f, struct vv_cc_entry *e, int err, const struct vv_error *why)
{
    struct vv_reader *rd = f->rd;
    int64_t now = vv_mono_us(rd->env);
    bool footer = e->key.kind == VV_CC_FOOTER;
    struct vv_task *waiters = e->waiters;
    e->waiters = NULL;
    for (struct vv_task *k = waiters; k; k = k->wait_next) {
        k->on = NULL;
        if (!k->beyond) *(footer ? &k->footer : &k->data) = vv_cc_ref(e);
    }
    f->e[e->seat] = NULL;
    e->flight = NULL;
    vv_cc_unref(e->table);
    e->table = NULL;
    vv_buf_unref(e->raw);
    e->raw = NULL;
    if (err) {
        bool keep = err != VV_E_SHUTDOWN && err != VV_E_NOMEM;
        keep_promise(rd, e);
        vv_buf_unref(e->buf);
        e->buf = NULL;
        vv_cc_failed(&rd->cc, e, err, why, now, keep ? VV_READER_BAD_US : 0);
    } else {
        vv_cc_arrived(&rd->cc, e, now);
        if (waiters && footer) vv_cc_touch(&rd->cc, e, 0, 0, 0, true, now);
    }
    vv_reader_count_cache(rd);
    return waiters;
}

static void land_and_run(struct vv_flight *f, struct vv_cc_entry *e, int err, const struct vv_error *why)
{
    pthread_mutex_lock(&f->rd->mu);
    struct vv_task *k = land(f, e, err, why);
    pthread_mutex_unlock(&f->rd->mu);
    run_all(k);
}

/* ---- arriving ---- */

static size_t room(struct vv_objget *g, size_t at, uint8_t **dst)
{
    struct vv_flight *f = VV_CONTAINER(g, struct vv_flight, get);
    struct vv_cc_entry *e = f->e[f->filling];
    (void)at;
    if (!e->buf) {
        e->buf = vv_bufpool_get(f->rd->bufs, e->bytes);
        if (e->buf) keep_promise(f->rd, e);
    }
    if (!e->raw && e->table->footer.flags) e->raw = vv_bufpool_get(f->rd->bufs, e->coming);
    if (!e->buf || (!e->raw && e->table->footer.flags)) return 0;
    *dst = (e->raw ? e->raw : e->buf)->data + e->got;
    return e->coming - e->got;
}

/* What landed is kept until the disk cache was offered all of the flight. */
static void keep_stored(struct vv_flight *f, const struct vv_cc_entry *e)
{
    struct vv_buf *b = e->raw ? e->raw : e->buf;
    if (f->rd->tier->disk && !f->from_disk) vv_chain_add(&f->stored, b, b->data, e->coming);
}

static void arrived(struct vv_objget *g, size_t at, size_t n)
{
    struct vv_flight *f = VV_CONTAINER(g, struct vv_flight, get);
    struct vv_cc_entry *e = f->e[f->filling];
    int err = VV_OK;
    (void)at;
    if (!f->from_disk) atomic_fetch_add(&f->rd->tier->fetch_bytes, n);
    e->got += n;
    if (e->raw && e->got == e->coming) err = vv_reader_unpack(e);
    if (!e->raw || e->got == e->coming) vv_reader_check_arrived(e);
    if (e->got < e->coming) return;
    f->filling++;
    if (e->torn && !err) return; /* stays aboard to the end */
    if (!err) keep_stored(f, e);
    land_and_run(f, e, err, NULL);
}

/* ---- the end of a flight ---- */

static bool full(const struct vv_cc_entry *e)
{
    return e->got == e->coming;
}

static void damaged(const struct vv_cc_entry *e, struct vv_error *why)
{
    vv_error_set(why, VV_E_CORRUPT, "a block between byte %" PRIu64 " and %" PRIu64 " does not fit its checksum",
                 e->at, e->at + e->bytes - 1);
}

/* mu held: the run of entries from seat i on that deserve another try, in a flight of their own; NULL: there is none. */
static struct vv_flight *rebook(struct vv_flight *f, unsigned i, struct vv_error *why)
{
    struct vv_flight *again = NULL;
    for (; i < f->count; i++) {
        struct vv_cc_entry *e = f->e[i];
        bool worth = e && !f->rd->dying && (f->from_disk || !e->attempts) && (full(e) || f->get.err == VV_E_CORRUPT);
        if (!worth) break;
        if (!again) {
            if (full(e)) damaged(e, why);
            else *why = f->get.error;
            again = vv_flight_new(f->rd);
        }
        if (!again) break;
        e->attempts += !f->from_disk;
        e->got = 0;
        e->checked = 0;
        e->torn = false;
        f->e[i] = NULL;
        vv_flight_board(again, e);
    }
    return again;
}

/* What is left aboard ends here: good blocks of a damaged entry are kept, the rest failed. */
static void fail_rest(struct vv_flight *f)
{
    struct vv_reader *rd = f->rd;
    bool told = false;
    for (unsigned i = 0; i < f->count; i++) {
        struct vv_cc_entry *e = f->e[i];
        struct vv_error why = f->get.error;
        int err = f->get.err;
        if (!e) continue;
        if (full(e)) {
            damaged(e, &why);
            err = vv_reader_keep_good(rd, e);
        }
        if (!told && (full(e) || err != VV_E_SHUTDOWN)) {
            atomic_fetch_add(&rd->tier->fetch_errors, 1);
            VLOG_WARN("tier: cannot read %s, bytes %" PRIu64 "-%" PRIu64 ": %s", f->object, e->at,
                      e->at + e->bytes - 1, why.text);
            told = true;
        }
        land_and_run(f, e, err, &why);
    }
}

static void end_data(struct vv_flight *f)
{
    struct vv_reader *rd = f->rd;
    for (unsigned i = 0; i < f->count; i++) {
        struct vv_error why = {0};
        if (!f->e[i]) continue;
        pthread_mutex_lock(&rd->mu);
        struct vv_flight *again = rebook(f, i, &why);
        pthread_mutex_unlock(&rd->mu);
        if (!again) continue;
        VLOG_WARN("tier: %s, bytes %" PRIu64 "-%" PRIu64 "%s: %s; fetching them once more", f->object, again->get.at,
                  again->get.at + again->get.n - 1, f->from_disk ? " in the disk cache" : "", why.text);
        if (f->from_disk) vv_diskcache_bad(rd->tier->disk, &f->id, again->get.at, again->get.n);
        vv_flight_send(again);
    }
    fail_rest(f);
}

/* All of it came from the store and was good, or the disk cache's neighbour would be a range with a hole. */
static void offer(struct vv_flight *f)
{
    if (!f->get.err && f->stored.bytes == f->get.n)
        vv_diskcache_offer(f->rd->tier->disk, &f->id, f->get.at, &f->stored);
    vv_chain_release(&f->stored);
}

static void end_footer(struct vv_flight *f)
{
    struct vv_reader *rd = f->rd;
    struct vv_cc_entry *e = f->e[0];
    struct vv_objget *g = &f->get;
    struct vv_error why = g->error;
    int err = g->err;
    if (!err) {
        if (!f->from_disk) atomic_fetch_add(&rd->tier->fetch_bytes, g->n);
        err = vv_reader_check_footer(rd, e, g->buf->data, &why);
        if (!err && !f->from_disk && rd->tier->disk) vv_chain_add(&f->stored, g->buf, g->buf->data, g->n);
    }
    vv_buf_unref(g->buf);
    g->buf = NULL;
    if (err == VV_E_CORRUPT && f->from_disk) vv_diskcache_bad(rd->tier->disk, &f->id, g->at, g->n);
    if (err == VV_E_CORRUPT && (f->from_disk || !e->attempts++)) {
        struct vv_flight *again = vv_flight_new(rd);
        pthread_mutex_lock(&rd->mu);
        bool go = again && !rd->dying;
        if (go) {
            f->e[0] = NULL;
            vv_flight_board(again, e);
        }
        pthread_mutex_unlock(&rd->mu);
        if (go) {
            VLOG_WARN("tier: %s, the footer%s: %s; fetching it once more", f->object,
                      f->from_disk ? " in the disk cache" : "", why.text);
            vv_flight_send(again);
            return;
        }
        free(again);
    }
    if (err && err != VV_E_SHUTDOWN) {
        atomic_fetch_add(&rd->tier->fetch_errors, 1);
        VLOG_WARN("tier: cannot read the footer of %s: %s", f->object, why.text);
    }
    land_and_run(f, e, err, &why);
}

static void over(struct vv_objget *g)
{
    struct vv_flight *f = VV_CONTAINER(g, struct vv_flight, get);
    struct vv_reader *rd = f->rd;
    if (g->err != VV_E_SHUTDOWN && !f->from_disk) vv_tier_saw(rd->tier, g->err);
    pthread_mutex_lock(&rd->mu);
    /* The cancel must be over before the GET's memory may go; from inside the cancel it is this thread's own. */
    while (rd->cancelling == f && !pthread_equal(rd->canceller, pthread_self()))
        pthread_cond_wait(&rd->change, &rd->mu);
    *(f->prev ? &f->prev->next : &rd->flying) = f->next;
    if (f->next) f->next->prev = f->prev;
    rd->landed_us = vv_mono_us(rd->env);
    pthread_mutex_unlock(&rd->mu);
    if (g->sink) end_data(f);
    else end_footer(f);
    offer(f);
    vv_reader_pump(rd);
    free(f);
    pthread_mutex_lock(&rd->mu);
    rd->flights--;
    pthread_cond_broadcast(&rd->change);
    pthread_mutex_unlock(&rd->mu);
}
