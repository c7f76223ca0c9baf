/* prodstate.c — idempotent producers of one partition. Contract: prodstate.h.
 *
 * A hash of entries by producer id (open addressing, at most 2/3 full, deletion by shifting back), and a list of those
 * in a transaction ordered by its first offset, so that the first unstable offset is the head. Sequences wrap from
 * INT32_MAX to 0. One owner; no I/O. */
#include "prodstate.h"

#include <stdlib.h>

#define KEPT 5              /* batches a producer may have in flight, hence may send again */
#define SNAPSHOT_VERSION 1
#define SNAPSHOT_HEADER 10u /* version, CRC, count */
#define SNAPSHOT_ENTRY 46u

struct kept {
    int64_t last_offset, timestamp;
    int32_t last_seq, delta; /* first = last - delta, for offsets and (with wrap) for sequences */
};

struct producer {
    int64_t id, last_ts, txn_first; /* txn_first -1: none open */
    struct producer *txn_prev, *txn_next;
    struct kept batch[KEPT]; /* oldest first */
    int32_t coordinator_epoch;
    int16_t epoch;
    uint8_t n;
};

struct vv_prodstate {
    struct producer **slot;
    size_t mask, count; /* mask = slots - 1 */
    struct producer *spare; /* of vv_prodstate_reserve */
    int64_t now_ms;
    struct producer *txn_head, *txn_tail;
};

static size_t home(const struct vv_prodstate *s, int64_t id)
{
    uint64_t h = (uint64_t)id * 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ (h >> 32)) & s->mask;
}

static struct producer *find(const struct vv_prodstate *s, int64_t id)
{
    for (size_t i = home(s, id); s->slot[i]; i = (i + 1) & s->mask)
        if (s->slot[i]->id == id) return s->slot[i];
    return NULL;
}

static int grow(struct vv_prodstate *s)
{
    size_t slots = (s->mask + 1) * 2, old_slots = s->mask + 1;
    struct producer **old = s->slot, **fresh = calloc(slots, sizeof(struct producer *));
    if (!fresh) return VV_E_NOMEM;
    s->slot = fresh;
    s->mask = slots - 1;
    for (size_t i = 0; i < old_slots; i++) {
        if (!old[i]) continue;
        size_t at = home(s, old[i]->id);
        while (fresh[at])
            at = (at + 1) & s->mask;
        fresh[at] = old[i];
    }
    free(old);
    return 0;
}

int vv_prodstate_reserve(struct vv_prodstate *s)
{
    if ((s->count + 1) * 3 > (s->mask + 1) * 2 && grow(s)) return VV_E_NOMEM;
    if (!s->spare) s->spare = calloc(1, sizeof *s->spare);
    return s->spare ? 0 : VV_E_NOMEM;
}

static struct producer *add(struct vv_prodstate *s, int64_t id)
{
    if (vv_prodstate_reserve(s)) return NULL;
    struct producer *p = s->spare;
    s->spare = NULL;
    p->id = id;
    p->epoch = -1;
    p->last_ts = -1;
    p->txn_first = -1;
    p->coordinator_epoch = -1;
    size_t at = home(s, id);
    while (s->slot[at])
        at = (at + 1) & s->mask;
    s->slot[at] = p;
    s->count++;
    return p;
}

/* ---- open transactions, ordered by first offset ---- */

static void txn_open(struct vv_prodstate *s, struct producer *p, int64_t first)
{
    p->txn_first = first;
    p->txn_prev = s->txn_tail;
    p->txn_next = NULL;
    if (s->txn_tail) s->txn_tail->txn_next = p;
    else s->txn_head = p;
    s->txn_tail = p;
}

static void txn_close(struct vv_prodstate *s, struct producer *p)
{
    if (p->txn_first < 0) return;
    if (p->txn_prev) p->txn_prev->txn_next = p->txn_next;
    else s->txn_head = p->txn_next;
    if (p->txn_next) p->txn_next->txn_prev = p->txn_prev;
    else s->txn_tail = p->txn_prev;
    p->txn_prev = p->txn_next = NULL;
    p->txn_first = -1;
}

/* ---- life ---- */

struct vv_prodstate *vv_prodstate_new(void)
{
    struct vv_prodstate *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->mask = 7;
    s->slot = calloc(s->mask + 1, sizeof(struct producer *));
    if (!s->slot) {
        free(s);
        return NULL;
    }
    return s;
}

void vv_prodstate_clear(struct vv_prodstate *s)
{
    for (size_t i = 0; i <= s->mask; i++) {
        free(s->slot[i]);
        s->slot[i] = NULL;
    }
    s->count = 0;
    s->txn_head = s->txn_tail = NULL;
}

void vv_prodstate_free(struct vv_prodstate *s)
{
    if (!s) return;
    vv_prodstate_clear(s);
    free(s->spare);
    free(s->slot);
    free(s);
}

size_t vv_prodstate_count(const struct vv_prodstate *s)
{
    return s->count;
}

/* ---- sequences ---- */

static int32_t seq_plus(int32_t seq, int32_t n)
{
    return (int32_t)(((int64_t)seq + n) & INT32_MAX);
}

static int32_t seq_minus(int32_t seq, int32_t n)
{
    return (int32_t)(((int64_t)seq - n) & INT32_MAX);
}

static const struct kept *find_duplicate(const struct producer *p, const struct vv_batch *b)
{
    if (p->epoch != b->producer_epoch) return NULL;
    int32_t last = seq_plus(b->base_sequence, b->last_delta);
    for (unsigned i = 0; i < p->n; i++) {
        const struct kept *k = &p->batch[i];
        if (k->last_seq == last && seq_minus(k->last_seq, k->delta) == b->base_sequence) return k;
    }
    return NULL;
}

/* Kafka accepts any sequence of a producer that it does not know: its records may all be gone by retention. */
static int check_sequence(const struct producer *p, const struct vv_batch *b, struct vv_error *e)
{
    if (b->producer_epoch != p->epoch) {
        if (b->base_sequence == 0 || p->epoch < 0) return 0;
        return vv_error_set(e, VV_OUT_OF_ORDER_SEQUENCE_NUMBER,
                            "producer %lld began epoch %d with sequence %d: a new epoch begins with 0",
                            (long long)p->id, b->producer_epoch, b->base_sequence);
    }
    int32_t last = p->n ? p->batch[p->n - 1].last_seq : -1;
    if (p->epoch < 0 || b->base_sequence == (p->n ? seq_plus(last, 1) : 0)) return 0;
    return vv_error_set(
        e, VV_OUT_OF_ORDER_SEQUENCE_NUMBER,
        "producer %lld epoch %d sent sequence %d after %d: a batch before it is missing; the client sends again",
        (long long)p->id, p->epoch, b->base_sequence, last);
}

int vv_prodstate_check(const struct vv_prodstate *s, const struct vv_batch *b, bool *duplicate, int64_t *base,
                       int64_t *last, struct vv_error *e)
{
    *duplicate = false;
    if (b->producer_id < 0) return 0;
    const struct producer *p = find(s, b->producer_id);
    if (!p) return 0;
    const struct kept *k = b->control ? NULL : find_duplicate(p, b);
    if (k) {
        *duplicate = true;
        *base = k->last_offset - k->delta;
        *last = k->last_offset;
        return 0;
    }
    if (b->producer_epoch < p->epoch)
        return vv_error_set(e, VV_INVALID_PRODUCER_EPOCH,
                            "producer %lld sent epoch %d, the latest here is %d: a newer instance of it has taken over",
                            (long long)p->id, b->producer_epoch, p->epoch);
    if (b->control) return 0;
    int err = check_sequence(p, b, e);
    if (!err && p->txn_first >= 0 && !b->transactional)
        err = vv_error_set(e, VV_INVALID_TXN_STATE,
                           "producer %lld has a transaction open since offset %lld and sent a batch outside of it",
                           (long long)p->id, (long long)p->txn_first);
    return err;
}

void vv_prodstate_now(struct vv_prodstate *s, int64_t now_ms)
{
    s->now_ms = now_ms;
}

int vv_prodstate_update(struct vv_prodstate *s, const struct vv_batch *b)
{
    if (b->producer_id < 0) return 0;
    if (b->control && !b->records) return 0; /* compaction removed the marker and with it the whole transaction */
    struct producer *p = find(s, b->producer_id);
    if (!p && !(p = add(s, b->producer_id))) return VV_E_NOMEM;
    if (p->epoch != b->producer_epoch) {
        p->epoch = b->producer_epoch;
        p->n = 0;
    }
    p->last_ts = VV_MAX(b->max_ts, s->now_ms);
    if (b->control) {
        txn_close(s, p);
        return 0;
    }
    if (p->n == KEPT) memmove(p->batch, p->batch + 1, (size_t)(--p->n) * sizeof *p->batch);
    p->batch[p->n++] = (struct kept){
        .last_offset = vv_batch_last(b),
        .timestamp = b->max_ts,
        .last_seq = b->base_sequence < 0 ? -1 : seq_plus(b->base_sequence, b->last_delta),
        .delta = b->last_delta,
    };
    if (b->transactional && p->txn_first < 0) txn_open(s, p, b->base_offset);
    return 0;
}

int64_t vv_prodstate_first_unstable(const struct vv_prodstate *s)
{
    return s->txn_head ? s->txn_head->txn_first : INT64_MAX;
}

/* ---- expiry ---- */

static void remove_slot(struct vv_prodstate *s, size_t hole)
{
    free(s->slot[hole]);
    s->slot[hole] = NULL;
    s->count--;
    for (size_t i = (hole + 1) & s->mask; s->slot[i]; i = (i + 1) & s->mask) {
        size_t want = home(s, s->slot[i]->id);
        if (((i - want) & s->mask) < ((i - hole) & s->mask))
            continue; /* it sits between its home and the hole's far side */
        s->slot[hole] = s->slot[i];
        s->slot[i] = NULL;
        hole = i;
    }
}

static bool expired(const struct producer *p, int64_t now_ms, int64_t expiry_ms)
{
    int64_t age;
    if (p->txn_first >= 0) return false;
    if (__builtin_sub_overflow(now_ms, p->last_ts, &age)) return now_ms > p->last_ts;
    return age >= expiry_ms;
}

void vv_prodstate_expire(struct vv_prodstate *s, int64_t now_ms, int64_t expiry_ms)
{
    for (size_t i = 0; i <= s->mask;) {
        if (s->slot[i] && expired(s->slot[i], now_ms, expiry_ms)) remove_slot(s, i); /* another may have moved here */
        else i++;
    }
}

/* ---- snapshot ---- */

static void encode_entry(uint8_t *at, const struct producer *p)
{
    static const struct kept none = {.last_offset = -1, .last_seq = -1};
    const struct kept *k = p->n ? &p->batch[p->n - 1] : &none;
    vv_put64(at, (uint64_t)p->id);
    vv_put16(at + 8, (uint16_t)p->epoch);
    vv_put32(at + 10, (uint32_t)k->last_seq);
    vv_put64(at + 14, (uint64_t)k->last_offset);
    vv_put32(at + 22, (uint32_t)k->delta);
    vv_put64(at + 26, (uint64_t)p->last_ts);
    vv_put32(at + 34, (uint32_t)p->coordinator_epoch);
    vv_put64(at + 38, (uint64_t)p->txn_first);
}

int vv_prodstate_encode(const struct vv_prodstate *s, uint8_t **out, size_t *n)
{
    size_t size = SNAPSHOT_HEADER + s->count * SNAPSHOT_ENTRY;
    uint8_t *p = malloc(size), *at = p;
    if (!p) return VV_E_NOMEM;
    vv_put16(p, SNAPSHOT_VERSION);
    vv_put32(p + 6, (uint32_t)s->count);
    at += SNAPSHOT_HEADER;
    for (size_t i = 0; i <= s->mask; i++) {
        if (!s->slot[i]) continue;
        encode_entry(at, s->slot[i]);
        at += SNAPSHOT_ENTRY;
    }
    vv_put32(p + 2, vv_crc32c(0, p + 6, size - 6));
    *out = p;
    *n = size;
    return 0;
}

static int decode_entry(struct vv_prodstate *s, const uint8_t *at)
{
    int64_t id = (int64_t)vv_get64(at), ts = (int64_t)vv_get64(at + 26), txn = (int64_t)vv_get64(at + 38);
    struct kept k = {.last_offset = (int64_t)vv_get64(at + 14),
                     .timestamp = ts,
                     .last_seq = (int32_t)vv_get32(at + 10),
                     .delta = (int32_t)vv_get32(at + 22)};
    if (id < 0 || k.last_seq < -1 || k.last_offset < -1 || k.delta < 0 || txn < -1) return VV_E_CORRUPT;
    if (k.last_offset >= 0 && k.delta > k.last_offset) return VV_E_CORRUPT;
    if (find(s, id)) return VV_E_CORRUPT;
    struct producer *p = add(s, id);
    if (!p) return VV_E_NOMEM;
    p->epoch = (int16_t)vv_get16(at + 8);
    p->last_ts = ts;
    p->coordinator_epoch = (int32_t)vv_get32(at + 34);
    if (k.last_offset >= 0) p->batch[p->n++] = k;
    p->txn_first = txn;
    return 0;
}

static int by_txn_first(const void *a, const void *b)
{
    const struct producer *x = *(struct producer *const *)a, *y = *(struct producer *const *)b;
    return (x->txn_first > y->txn_first) - (x->txn_first < y->txn_first);
}

/* A snapshot has no order; the list does. */
static int link_txns(struct vv_prodstate *s)
{
    size_t n = 0;
    struct producer **v = malloc((s->count + 1) * sizeof(struct producer *));
    if (!v) return VV_E_NOMEM;
    for (size_t i = 0; i <= s->mask; i++)
        if (s->slot[i] && s->slot[i]->txn_first >= 0) v[n++] = s->slot[i];
    qsort(v, n, sizeof(struct producer *), by_txn_first);
    for (size_t i = 0; i < n; i++)
        txn_open(s, v[i], v[i]->txn_first);
    free(v);
    return 0;
}

int vv_prodstate_decode(struct vv_prodstate *s, const uint8_t *p, size_t n)
{
    vv_prodstate_clear(s);
    if (n < SNAPSHOT_HEADER || vv_get16(p) != SNAPSHOT_VERSION) return VV_E_CORRUPT;
    if (vv_get32(p + 2) != vv_crc32c(0, p + 6, n - 6)) return VV_E_CORRUPT;
    size_t count = vv_get32(p + 6);
    if (n - SNAPSHOT_HEADER != count * SNAPSHOT_ENTRY) return VV_E_CORRUPT;
    int err = 0;
    for (size_t i = 0; i < count && !err; i++)
        err = decode_entry(s, p + SNAPSHOT_HEADER + i * SNAPSHOT_ENTRY);
    if (!err) err = link_txns(s);
    if (err) vv_prodstate_clear(s);
    return err;
}
