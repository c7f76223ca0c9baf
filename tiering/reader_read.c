/* reader_read.c — the three questions to remote data: bytes from an offset, first record at a time, aborted
 * transactions. Contract: varve/tier.h; tasks and their states: reader.h.
 *
 * A read waits for the footer of its extent and for the chunk that holds its offset; what follows is added as far as
 * it is in memory already, across chunks and extents. Only bytes that passed their block's checksum get here; the
 * walk over the batches checks their structure and order again, because the cut must fall between batches. */
#include "reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- words for failures ---- */

/* The answer for a failed entry: a Kafka code and a text that says what to do. */
static int explain(const struct vv_task *k, int err, const struct vv_error *why, struct vv_error *e)
{
    char object[VV_KEY_MAX];
    struct vv_segkey key;
    const char *text = why && why->text[0] ? why->text : vv_err_name(err);
    vv_reader_key_object(k, &key);
    vv_segkey_format(&key, object);
    if (err == VV_E_NOENT && k->part->tier->replica) /* the next look says what is there instead, or where the log starts now */
        return vv_error_set(e, VV_KAFKA_STORAGE_ERROR, "%s is not in the bucket any more: its owner replaced or deleted it", object);
    if (err == VV_E_NOENT)
        return vv_error_set(e, VV_CORRUPT_MESSAGE,
                            "%s is gone from the bucket, offsets %" PRId64 "-%" PRId64 " of %s-%d with it: bring it "
                            "back (object versions, a copy of the bucket) or move the log start past them "
                            "(kafka-delete-records)",
                            object, k->x.base, k->x.last, k->part->topic, (int)k->part->o.partition);
    if (err == VV_E_CORRUPT)
        return vv_error_set(e, VV_CORRUPT_MESSAGE,
                            "%s is damaged or foreign (%.180s): replace it (object versions, a copy of the bucket) or "
                            "move the log start past %" PRId64 " (kafka-delete-records)", object, text, k->x.last);
    if (err == VV_E_UNSUPPORTED || err == VV_E_KEY)
        return vv_error_set(e, VV_KAFKA_STORAGE_ERROR, "%s: %.300s", object, text);
    if (err == VV_E_SHUTDOWN || err == VV_E_TIMEOUT) return vv_error_set(e, err, "%s", text);
    return vv_error_set(e, VV_KAFKA_STORAGE_ERROR, "%s cannot be read, the store is away or too slow: %.300s", object,
                        text);
}

static int explain_entry(const struct vv_task *k, const struct vv_cc_entry *entry, struct vv_error *e)
{
    /* The store's own timeout is not the end of the wait. */
    int err = entry->err == VV_E_TIMEOUT ? VV_E_AGAIN : entry->err;
    return explain(k, err, entry->error, e);
}

/* Why the task got nothing and does not wait. */
static int reason(struct vv_task *k)
{
    int err = vv_task_ended(k);
    return err ? err : VV_E_NOMEM;
}

static bool failed(const struct vv_cc_entry *e)
{
    return e->state == VV_CC_FAILED;
}

/* ---- reads ---- */

static void finish_read(struct vv_task *k, int err, const struct vv_error *why)
{
    struct vv_tier_read *r = k->r;
    struct vv_reader *rd = k->rd;
    if (k->bytes.bytes) err = VV_OK; /* what comes after is the next read's business */
    r->err = err;
    r->next_offset = k->bytes.bytes ? k->returned : err ? r->offset : k->offset; /* below k->offset there is nothing */
    r->error = (struct vv_error){0};
    if (err && why) r->error = *why;
    if (err && !why) vv_error_set(&r->error, err, "%s", vv_err_name(err));
    if (!err) vv_chain_move(&r->bytes, &k->bytes);
    if (r->bytes.bytes) vv_reader_served(rd, k->part, r->offset, r->next_offset, r->bytes.bytes, k->waited || k->dry);
    pthread_mutex_lock(&rd->mu);
    r->waiter = NULL;
    pthread_mutex_unlock(&rd->mu);
    vv_task_drop_data(k);
    r->done(r);
    vv_task_free(k); /* last: a closing part waits for this */
}

static void fail_read(struct vv_task *k, int err)
{
    struct vv_error e = {0};
    vv_error_set(&e, err, "%s-%d at offset %" PRId64 ": %s", k->part->topic, (int)k->part->o.partition, k->r->offset,
                 err == VV_E_TIMEOUT ? "the wait is over, the download goes on" : vv_err_name(err));
    finish_read(k, err, &e);
}

/* The remote extent that holds k->offset. Never waits for the disk (a reactor's or a store's thread): E_AGAIN then. */
static int find_extent(struct vv_task *k)
{
    int err = vv_index_find_now(k->part->o.index, k->offset, &k->x);
    if (err && err != VV_E_NOENT) return err;
    if (!err) {
        vv_extent_release(k->part->o.index, &k->x);
        k->x.local = NULL;
    }
    if (k->bytes.bytes) return !err && k->x.base <= k->offset && k->x.state == VV_EXTENT_REMOTE ? VV_OK : VV_E_AGAIN;
    if (err || k->offset < vv_index_log_start(k->part->o.index)) return VV_OFFSET_OUT_OF_RANGE;
    if (!vv_extent_is_remote(&k->x)) return VV_E_AGAIN;
    return k->x.base <= k->offset ? VV_OK : VV_E_CORRUPT;
}

static void touch(struct vv_task *k, int64_t from, int64_t to, bool whole)
{
    int64_t first = k->footer->footer.blocks.v[k->data->key.first].first_offset;
    pthread_mutex_lock(&k->rd->mu);
    vv_cc_touch(&k->rd->cc, k->data, first, from, to, whole, vv_mono_us(k->rd->env));
    pthread_mutex_unlock(&k->rd->mu);
}

enum cut { CUT_FULL, CUT_MORE, CUT_BAD };

/* Where the good bytes of k->data from this block on end. */
static size_t good_bytes(const struct vv_task *k, uint32_t block)
{
    const struct vv_cc_entry *d = k->data;
    const struct vv_block *v = k->footer->footer.blocks.v;
    if (!d->bad) return d->bytes;
    while (block < d->key.first + d->key.count && !d->bad[block - d->key.first]) block++;
    return block == d->key.first + d->key.count ? d->bytes : (size_t)(v[block].at - v[d->key.first].at);
}

/* Adds whole batches of k->data. MORE: the chunk is used up and there is room. */
static enum cut cut(struct vv_task *k, struct vv_error *e)
{
    const struct vv_cc_entry *d = k->data;
    const struct vv_block *v = k->footer->footer.blocks.v;
    const struct vv_tier_read *r = k->r;
    uint32_t block = VV_MAX(vv_blocks_find(&k->footer->footer.blocks, k->offset), d->key.first);
    size_t at = (size_t)(v[block].at - v[d->key.first].at), start = at, end = at;
    int64_t from = k->offset, floor = v[block].first_offset;
    size_t good = good_bytes(k, block);
    bool full = false;
    while (at < good) {
        struct vv_batch b;
        if (vv_batch_parse(d->buf->data + at, good - at, &b) || b.base_offset < floor || b.last_delta < 0 ||
            vv_batch_last(&b) > k->x.last) {
            vv_error_set(e, VV_E_CORRUPT, "no sound batch at byte %" PRIu64, v[d->key.first].at + at);
            break;
        }
        floor = vv_batch_last(&b) + 1;
        if (floor <= k->offset) { /* before what is wanted */
            at += b.bytes;
            start = end = at;
            continue;
        }
        size_t so_far = k->bytes.bytes + (end - start);
        full = floor > r->limit || (so_far + b.bytes > r->max_bytes && (so_far || !r->min_one));
        if (full) break;
        at += b.bytes;
        end = at;
        k->returned = floor;
    }
    if (end > start && vv_chain_add(&k->bytes, d->buf, d->buf->data + start, end - start)) {
        vv_error_set(e, VV_E_NOMEM, "out of memory");
        return CUT_BAD;
    }
    if (end > start) k->offset = k->returned;
    touch(k, from, k->offset, at >= d->bytes);
    if (!full && at == good && good < d->bytes)
        vv_error_set(e, VV_E_CORRUPT, "the block at byte %" PRIu64 " does not fit its checksum",
                     v[d->key.first].at + at);
    return full ? CUT_FULL : at < d->bytes ? CUT_BAD : CUT_MORE;
}

/* Behind the chunk that was used up. */
static void advance(struct vv_task *k)
{
    const struct vv_blocks *b = &k->footer->footer.blocks;
    uint32_t next = k->data ? k->data->key.first + k->data->key.count : b->count;
    vv_task_drop_data(k);
    if (next < b->count) {
        k->offset = VV_MAX(k->offset, b->v[next].first_offset);
    } else {
        k->offset = k->x.last + 1;
        k->found = false;
        vv_task_drop_footer(k);
    }
}

/* A failed entry under the read. True: look the extent up again, its object was deleted by right. */
static bool object_moved(struct vv_task *k, const struct vv_cc_entry *entry)
{
    struct vv_extent was = k->x;
    if (entry->err != VV_E_NOENT || k->moved || k->bytes.bytes) return false;
    k->moved = true;
    if (!find_extent(k) && was.base == k->x.base && was.nonce == k->x.nonce) return false;
    k->found = false;
    vv_task_drop_data(k);
    vv_task_drop_footer(k);
    return true;
}

static void finish_failed(struct vv_task *k, const struct vv_cc_entry *entry)
{
    struct vv_error e = {0};
    int err = explain_entry(k, entry, &e);
    finish_read(k, err, &e);
}

/* Footer and chunk of k->offset. False: the task waits, is over or must start again with *again. */
static bool get_read(struct vv_task *k, bool *again)
{
    bool peek = k->bytes.bytes > 0;
    enum vv_get got = k->footer ? VV_GOT : vv_task_get_footer(k, peek);
    *again = false;
    if (got == VV_GOT && !failed(k->footer) && !k->data) {
        const struct vv_blocks *b = &k->footer->footer.blocks;
        if (!b->count) {
            advance(k);
            *again = true;
            return false;
        }
        uint32_t c = vv_footer_chunk_of(k->footer, vv_blocks_find(b, k->offset));
        got = vv_task_get_data(k, VV_CC_CHUNK, k->footer->chunks[c], vv_footer_chunk_blocks(k->footer, c), peek);
    }
    if (got == VV_GOT_LATER) return false;
    if (got == VV_GOT_NOT) {
        k->dry = peek;
        fail_read(k, reason(k));
        return false;
    }
    const struct vv_cc_entry *bad = failed(k->footer) ? k->footer : k->data && failed(k->data) ? k->data : NULL;
    if (!bad) return true;
    *again = object_moved(k, bad);
    if (!*again) finish_failed(k, bad);
    return false;
}

void vv_task_run_read(struct vv_task *k)
{
    for (;;) {
        struct vv_error e = {0};
        bool again;
        int err = vv_task_ended(k);
        if (!err && !k->found) err = find_extent(k);
        if (err == VV_E_AGAIN && (k->bytes.bytes || k->offset > k->r->offset)) { /* what follows is not remote */
            finish_read(k, VV_OK, NULL);
            return;
        }
        if (err) {
            fail_read(k, err == VV_E_CORRUPT ? VV_CORRUPT_MESSAGE : err);
            return;
        }
        k->found = true;
        if (k->x.base >= k->r->limit) {
            finish_read(k, VV_OK, NULL);
            return;
        }
        if (!get_read(k, &again)) {
            if (again) continue;
            return;
        }
        enum cut c = cut(k, &e);
        if (c == CUT_MORE) {
            advance(k);
            continue;
        }
        struct vv_error why = {0};
        err = c == CUT_BAD ? explain(k, e.code, &e, &why) : VV_OK;
        finish_read(k, err, &why);
        return;
    }
}

void vv_tier_read_start(struct vv_tier_read *r)
{
    r->err = VV_OK;
    r->bytes = (struct vv_chain){0};
    r->waiter = r->reader = NULL;
    struct vv_task *k = vv_task_new(r->part, VV_TASK_READ);
    if (!k) {
        r->err = vv_error_set(&r->error, VV_KAFKA_STORAGE_ERROR, "out of memory");
        r->next_offset = r->offset;
        r->done(r);
        return;
    }
    r->reader = k->rd;
    k->r = r;
    k->offset = r->offset;
    if (r->found && vv_extent_is_remote(r->found) && r->found->base <= r->offset && r->found->last >= r->offset) {
        k->x = *r->found;
        k->x.local = NULL;
        k->found = true;
    }
    r->found = NULL;
    if (r->order) vv_reader_order(k);
    pthread_mutex_lock(&k->rd->mu);
    r->waiter = k;
    pthread_mutex_unlock(&k->rd->mu);
    if (vv_reader_begins(k->rd, k->part, k->offset)) k->patience = VV_MIN(r->max_bytes, VV_READER_PATIENCE);
    vv_task_run(k);
}

/* ---- first record at or after a time ---- */

static void finish_time(struct vv_task *k, int err, const struct vv_time_hit *hit)
{
    k->time_done(k->ctx, err, hit);
    vv_task_free(k);
}

/* Why an object is missing: the log start passed its extent, another object took its place, or it should be there. */
enum fate { FATE_HERE, FATE_GONE, FATE_MOVED };

static enum fate fate(struct vv_task *k)
{
    struct vv_extent now;
    int err = vv_index_find_now(k->part->o.index, k->x.base, &now);
    if (err) return err == VV_E_AGAIN ? FATE_MOVED : FATE_GONE;
    vv_extent_release(k->part->o.index, &now);
    if (now.base > k->x.base) return FATE_GONE;
    return now.base == k->x.base && now.nonce == k->x.nonce ? FATE_HERE : FATE_MOVED;
}

static void fail_time(struct vv_task *k, const struct vv_cc_entry *entry)
{
    struct vv_error e;
    enum fate f = entry->err == VV_E_NOENT ? fate(k) : FATE_HERE;
    int err = f == FATE_GONE ? VV_E_NOENT : f == FATE_MOVED ? VV_E_AGAIN : explain_entry(k, entry, &e);
    finish_time(k, err, NULL);
}

/* The bytes of k->block: from a chunk that is there anyway, else a GET of the block alone. */
static enum vv_get get_block(struct vv_task *k)
{
    uint32_t c = vv_footer_chunk_of(k->footer, k->block);
    uint32_t count = vv_footer_chunk_blocks(k->footer, c);
    enum vv_get got = vv_task_get_data(k, VV_CC_CHUNK, k->footer->chunks[c], count, true);
    if (got == VV_GOT && !failed(k->data)) return got;
    vv_task_drop_data(k);
    return vv_task_get_data(k, VV_CC_BLOCK, k->block, 1, false);
}

void vv_task_run_time(struct vv_task *k)
{
    enum vv_get got = k->footer ? VV_GOT : vv_task_get_footer(k, false);
    if (got == VV_GOT && failed(k->footer)) {
        fail_time(k, k->footer);
        return;
    }
    while (got == VV_GOT) {
        const struct vv_blocks *b = &k->footer->footer.blocks;
        if (!k->block_set) k->block = b->count ? vv_blocks_find_time(b, k->ts, vv_blocks_find(b, k->from)) : 0;
        k->block_set = true;
        if (k->block >= b->count) {
            finish_time(k, VV_E_NOENT, NULL);
            return;
        }
        if (!k->data && (got = get_block(k)) != VV_GOT) break;
        if (failed(k->data)) {
            fail_time(k, k->data);
            return;
        }
        struct vv_time_hit hit;
        const uint8_t *p = k->data->buf->data + (b->v[k->block].at - b->v[k->data->key.first].at);
        bool bad = k->data->bad && k->data->bad[k->block - k->data->key.first];
        int err = bad ? VV_E_CORRUPT : vv_batches_find_time(p, b->v[k->block].n, k->ts, k->from, &hit);
        if (k->data->key.kind == VV_CC_BLOCK) touch(k, k->from, k->x.last, true);
        if (err != VV_E_NOENT) {
            finish_time(k, err ? VV_CORRUPT_MESSAGE : VV_OK, err ? NULL : &hit);
            return;
        }
        vv_task_drop_data(k);
        k->block = vv_blocks_find_time(b, k->ts, k->block + 1);
    }
    if (got == VV_GOT_NOT) finish_time(k, reason(k), NULL);
}

void vv_tier_find_time(struct vv_tier_part *p, const struct vv_extent *x, int64_t ts, int64_t from,
                       void (*done)(void *ctx, int err, const struct vv_time_hit *hit), void *ctx)
{
    struct vv_task *k = vv_task_new(p, VV_TASK_TIME);
    if (!k || !vv_extent_is_remote(x)) {
        if (k) vv_task_free(k);
        done(ctx, k ? VV_E_STATE : VV_E_NOMEM, NULL);
        return;
    }
    k->x = *x;
    k->x.local = NULL;
    k->ts = ts;
    k->from = from;
    k->time_done = done;
    k->ctx = ctx;
    vv_task_run(k);
}

/* ---- aborted transactions ---- */

static int by_first(const void *a, const void *b)
{
    const struct vv_aborted *x = a, *y = b;
    return (x->first_offset > y->first_offset) - (x->first_offset < y->first_offset);
}

static void finish_aborted(struct vv_task *k, int err)
{
    if (!err && k->aborted_n) qsort(k->aborted, k->aborted_n, sizeof *k->aborted, by_first);
    k->aborted_done(k->ctx, err, err ? NULL : k->aborted, err ? 0 : k->aborted_n);
    vv_task_free(k);
}

/* A transaction over several segments is in each one's footer. */
static int collect(struct vv_task *k)
{
    const struct vv_footer *f = &k->footer->footer;
    for (size_t i = 0; i < f->aborted_count; i++) {
        const struct vv_aborted *a = &f->aborted[i];
        size_t j = 0;
        if (a->last_offset < k->from || a->first_offset > k->to) continue;
        while (j < k->aborted_n &&
               (k->aborted[j].producer_id != a->producer_id || k->aborted[j].first_offset != a->first_offset))
            j++;
        if (j < k->aborted_n) continue;
        if (k->aborted_n == k->aborted_cap) {
            size_t cap = k->aborted_cap ? k->aborted_cap * 2 : 16;
            struct vv_aborted *v = realloc(k->aborted, cap * sizeof *v);
            if (!v) return VV_E_NOMEM;
            k->aborted = v;
            k->aborted_cap = cap;
        }
        k->aborted[k->aborted_n++] = *a;
    }
    return VV_OK;
}

/* A footer that cannot be had. E_STATE: the range is looked up again, another object took the place of this one. */
static int footer_missing(struct vv_task *k, struct vv_error *e)
{
    enum fate f = k->footer->err == VV_E_NOENT ? fate(k) : FATE_HERE;
    if (f == FATE_GONE) return VV_OFFSET_OUT_OF_RANGE;
    if (f == FATE_HERE) return explain_entry(k, k->footer, e);
    if (k->moved) return VV_E_AGAIN;
    k->moved = true;
    k->found = false;
    vv_task_drop_footer(k);
    return VV_E_STATE;
}

/* The next extent of the range. E_NOENT: there is none. */
static int next_aborted(struct vv_task *k)
{
    if (k->offset > k->to) return VV_E_NOENT;
    int err = vv_index_find_now(k->part->o.index, k->offset, &k->x);
    if (!err) vv_extent_release(k->part->o.index, &k->x);
    k->x.local = NULL;
    if (err && err != VV_E_NOENT) return err;
    if (!err && k->x.base <= k->offset) return VV_OK;
    if (k->offset < vv_index_log_start(k->part->o.index)) return VV_OFFSET_OUT_OF_RANGE;
    return err || k->x.base > k->to ? VV_E_NOENT : VV_OK;
}

void vv_task_run_aborted(struct vv_task *k)
{
    for (;;) {
        int err = k->found ? VV_OK : next_aborted(k);
        if (err) {
            finish_aborted(k, err == VV_E_NOENT ? VV_OK : err);
            return;
        }
        k->found = true;
        if (vv_extent_is_remote(&k->x)) {
            struct vv_error e;
            enum vv_get got = k->footer ? VV_GOT : vv_task_get_footer(k, false);
            if (got == VV_GOT_LATER) return;
            if (got == VV_GOT_NOT) err = reason(k);
            else if (!failed(k->footer)) err = collect(k);
            else err = footer_missing(k, &e);
            if (err == VV_E_STATE) continue;
            if (err) {
                finish_aborted(k, err);
                return;
            }
            vv_task_drop_footer(k);
        }
        if (k->x.last == INT64_MAX) k->to = INT64_MIN; /* the open segment is the last */
        else k->offset = k->x.last + 1;
        k->found = false;
    }
}

void vv_tier_aborted(struct vv_tier_part *p, int64_t from, int64_t to,
                     void (*done)(void *ctx, int err, const struct vv_aborted *v, size_t n), void *ctx)
{
    struct vv_task *k = vv_task_new(p, VV_TASK_ABORTED);
    if (!k) {
        done(ctx, VV_E_NOMEM, NULL, 0);
        return;
    }
    k->offset = k->from = from;
    k->to = to;
    k->aborted_done = done;
    k->ctx = ctx;
    vv_task_run(k);
}
