/* Producer state: sequences and their wrap, duplicates, epochs, transactions, expiry, the snapshot and damage to it. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>

#include "prodstate.h"

static struct vv_batch batch(int64_t id, int16_t epoch, int32_t sequence, int32_t records, int64_t offset)
{
    return (struct vv_batch){.producer_id = id,
                             .producer_epoch = epoch,
                             .base_sequence = sequence,
                             .last_delta = records - 1,
                             .records = records,
                             .base_offset = offset,
                             .max_ts = 1000 + offset};
}

/* What check says of it: 0, an error, or 1000 for a duplicate at `want_base`. */
static int ask(struct vv_prodstate *s, struct vv_batch b, int64_t want_base)
{
    bool duplicate;
    int64_t base = -7, last = -7;
    struct vv_error e = {0};
    int err = vv_prodstate_check(s, &b, &duplicate, &base, &last, &e);
    if (err) {
        assert_false(duplicate);
        assert_int_equal(e.code, err);
        assert_true(e.text[0]);
    }
    if (!duplicate) return err;
    assert_int_equal(base, want_base);
    assert_int_equal(last, want_base + b.last_delta);
    return 1000;
}

static void put(struct vv_prodstate *s, struct vv_batch b)
{
    assert_int_equal(ask(s, b, -1), 0);
    assert_int_equal(vv_prodstate_update(s, &b), 0);
}

static void marker(struct vv_prodstate *s, int64_t id, int16_t epoch, int64_t offset)
{
    struct vv_batch b = batch(id, epoch, -1, 1, offset);
    b.control = b.transactional = true;
    put(s, b);
}

static struct vv_batch txn(struct vv_batch b)
{
    b.transactional = true;
    return b;
}

static void sequences(void **state)
{
    (void)state;
    struct vv_prodstate *s = vv_prodstate_new();
    struct vv_batch none = batch(-1, -1, -1, 3, 0);
    put(s, none); /* not idempotent: nothing is remembered */
    assert_int_equal(vv_prodstate_count(s), 0);
    put(s, batch(7, 0, 0, 3, 10));
    assert_int_equal(ask(s, batch(7, 0, 4, 1, 20), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_int_equal(ask(s, batch(7, 0, 1, 1, 20), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_int_equal(ask(s, batch(7, 0, 0, 2, 20), 0),
                     VV_OUT_OF_ORDER_SEQUENCE_NUMBER); /* the same start, another length */
    assert_int_equal(ask(s, batch(7, 0, 0, 3, 20), 10), 1000);
    put(s, batch(7, 0, 3, 1, 20));
    put(s, batch(8, 3, 55, 1, 21)); /* unknown here: any sequence */
    assert_int_equal(ask(s, batch(8, 3, 57, 1, 22), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
    put(s, batch(8, 3, 56, 1, 22));
    assert_int_equal(vv_prodstate_count(s), 2);
    vv_prodstate_clear(s);
    assert_int_equal(vv_prodstate_count(s), 0);
    assert_int_equal(ask(s, batch(7, 0, 9, 1, 22), 0), 0);
    vv_prodstate_free(s);
    vv_prodstate_free(NULL);
}

static void five_duplicates(void **state)
{
    (void)state;
    struct vv_prodstate *s = vv_prodstate_new();
    for (int i = 0; i < 6; i++)
        put(s, batch(7, 0, i * 10, 10, 100 + i * 20));
    for (int i = 1; i < 6; i++)
        assert_int_equal(ask(s, batch(7, 0, i * 10, 10, 999), 100 + i * 20), 1000);
    assert_int_equal(ask(s, batch(7, 0, 0, 10, 999), 0),
                     VV_OUT_OF_ORDER_SEQUENCE_NUMBER); /* the sixth back is forgotten */
    assert_int_equal(ask(s, batch(7, 1, 50, 10, 999), 0),
                     VV_OUT_OF_ORDER_SEQUENCE_NUMBER); /* another epoch: no duplicate */
    vv_prodstate_free(s);
}

static void wraps(void **state)
{
    (void)state;
    struct vv_prodstate *s = vv_prodstate_new();
    put(s, batch(7, 0, INT32_MAX - 4, 3, 0));                                              /* ..4, ..3, ..2 */
    put(s, batch(7, 0, INT32_MAX - 1, 4, 3));                                              /* ..1, max, 0, 1 */
    assert_int_equal(ask(s, batch(7, 0, INT32_MAX - 1, 4, 50), 3), 1000);
    assert_int_equal(ask(s, batch(7, 0, INT32_MAX - 4, 3, 50), 0), 1000);
    assert_int_equal(ask(s, batch(7, 0, 3, 1, 50), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
    put(s, batch(7, 0, 2, 1, 7));
    put(s, batch(9, 0, INT32_MAX, 1, 8)); /* ends exactly at the top */
    assert_int_equal(ask(s, batch(9, 0, 1, 1, 9), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
    put(s, batch(9, 0, 0, 1, 9));
    vv_prodstate_free(s);
}

static void epochs(void **state)
{
    (void)state;
    struct vv_prodstate *s = vv_prodstate_new();
    put(s, batch(7, 4, 0, 5, 0));
    assert_int_equal(ask(s, batch(7, 3, 5, 1, 5), 0), VV_INVALID_PRODUCER_EPOCH);
    assert_int_equal(ask(s, batch(7, 5, 5, 1, 5), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
    put(s, batch(7, 5, 0, 1, 5));
    assert_int_equal(ask(s, batch(7, 4, 0, 5, 9), 0),
                     VV_INVALID_PRODUCER_EPOCH); /* the old epoch's batch is no duplicate now */
    assert_int_equal(ask(s, batch(7, 5, 0, 1, 9), 5), 1000);
    marker(s, 7, 6, 6); /* the coordinator bumped the epoch: sequences begin again */
    assert_int_equal(ask(s, batch(7, 6, 1, 1, 9), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_int_equal(ask(s, batch(7, 5, 1, 1, 9), 0), VV_INVALID_PRODUCER_EPOCH);
    put(s, batch(7, 6, 0, 1, 9));
    vv_prodstate_free(s);
}

static void transactions(void **state)
{
    (void)state;
    struct vv_prodstate *s = vv_prodstate_new();
    assert_int_equal(vv_prodstate_first_unstable(s), INT64_MAX);
    put(s, batch(1, 0, 0, 1, 0));
    assert_int_equal(vv_prodstate_first_unstable(s), INT64_MAX);
    put(s, txn(batch(2, 0, 0, 5, 10)));
    put(s, txn(batch(3, 0, 0, 5, 20)));
    put(s, txn(batch(4, 0, 0, 5, 30)));
    put(s, txn(batch(2, 0, 5, 5, 40)));
    assert_int_equal(ask(s, batch(2, 0, 10, 1, 50), 0), VV_INVALID_TXN_STATE);
    assert_int_equal(ask(s, batch(2, 0, 11, 1, 50), 0),
                     VV_OUT_OF_ORDER_SEQUENCE_NUMBER); /* wrong twice: Kafka's order */
    assert_int_equal(vv_prodstate_first_unstable(s), 10);
    marker(s, 3, 0, 50); /* in the middle */
    assert_int_equal(vv_prodstate_first_unstable(s), 10);
    marker(s, 2, 0, 51); /* the head */
    assert_int_equal(vv_prodstate_first_unstable(s), 30);
    put(s, txn(batch(2, 0, 10, 1, 60)));
    marker(s, 4, 0, 61);
    assert_int_equal(vv_prodstate_first_unstable(s), 60);
    marker(s, 3, 0, 62); /* nothing open: fine */
    struct vv_batch empty = batch(2, 0, -1, 1, 63); /* what compaction leaves of a marker says nothing */
    empty.control = empty.transactional = true;
    empty.records = 0;
    put(s, empty);
    assert_int_equal(vv_prodstate_first_unstable(s), 60);
    marker(s, 2, 0, 64);
    assert_int_equal(vv_prodstate_first_unstable(s), INT64_MAX);
    put(s, batch(2, 0, 11, 1, 65)); /* outside of a transaction again */
    vv_prodstate_free(s);
}

static void expires(void **state)
{
    (void)state;
    enum { N = 5000 };
    struct vv_prodstate *s = vv_prodstate_new();
    for (int i = 0; i < N; i++) { /* last times 1000 + i */
        struct vv_batch b = batch((int64_t)i * 977, 0, 0, 1, i);
        if (i % 100 == 0) b = txn(b);
        put(s, b);
    }
    vv_prodstate_expire(s, 1000 + N, N + 1);
    assert_int_equal(vv_prodstate_count(s), N);
    vv_prodstate_expire(s, 1000 + N, N - 2500); /* those up to time 1000 + 2500, that is i <= 2500 */
    for (int i = 0; i < N; i++) {
        bool gone = i <= 2500 && i % 100 != 0;
        /* gone: any sequence will do again */
        assert_int_equal(ask(s, txn(batch((int64_t)i * 977, 0, 5, 1, 0)), 0),
                         gone ? 0 : VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
    }
    assert_int_equal(vv_prodstate_count(s), N - 2501 + 26);
    assert_int_equal(vv_prodstate_first_unstable(s), 0);
    vv_prodstate_expire(s, INT64_MAX, 0);
    assert_int_equal(vv_prodstate_count(s), N / 100); /* only those in a transaction */
    vv_prodstate_expire(s, INT64_MIN, 0);            /* a clock gone mad forgets nobody */
    assert_int_equal(vv_prodstate_count(s), N / 100);
    vv_prodstate_free(s);
}

/* Who replays an old history is known for as long as anybody else. */
static void old_records_of_today(void **state)
{
    (void)state;
    struct vv_prodstate *s = vv_prodstate_new();
    vv_prodstate_now(s, 1000000);
    put(s, batch(7, 0, 0, 5, 0)); /* its records are of time 1000 */
    vv_prodstate_expire(s, 1000500, 1000);
    assert_int_equal(ask(s, batch(7, 0, 9, 1, 5), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
    vv_prodstate_expire(s, 1001000, 1000);
    assert_int_equal(vv_prodstate_count(s), 0);
    vv_prodstate_free(s);
}

/* A hundred thousand of them, coming and going, against a plain array. */
static void many(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct vv_prodstate *s = vv_prodstate_new();
    int32_t *next = calloc(N, sizeof *next);
    uint64_t seed = 1;
    for (int i = 0; i < 3 * N; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        int at = (int)((seed >> 33) % N);
        struct vv_batch b = batch((int64_t)at << 20, 0, next[at], 2, (int64_t)i * 2);
        put(s, b);
        next[at] += 2;
    }
    size_t known = 0;
    for (int i = 0; i < N; i++) {
        known += next[i] > 0;
        if (next[i])
            assert_int_equal(ask(s, batch((int64_t)i << 20, 0, next[i] + 1, 1, 0), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_int_equal(ask(s, batch((int64_t)i << 20, 0, next[i], 1, 0), 0), 0);
    }
    assert_int_equal(vv_prodstate_count(s), known);
    uint8_t *p;
    size_t n;
    assert_int_equal(vv_prodstate_encode(s, &p, &n), 0);
    assert_int_equal(n, 10 + 46 * known);
    assert_int_equal(vv_prodstate_decode(s, p, n), 0);
    assert_int_equal(vv_prodstate_count(s), known);
    free(p);
    free(next);
    vv_prodstate_free(s);
}

static void snapshot_bytes(void **state)
{
    (void)state;
    struct vv_prodstate *s = vv_prodstate_new();
    uint8_t *p;
    size_t n;
    assert_int_equal(vv_prodstate_encode(s, &p, &n), 0);
    assert_int_equal(n, 10);
    free(p);
    put(s, txn(batch(0x0102030405060708, 9, 0, 3, 100)));
    put(s, txn(batch(0x0102030405060708, 9, 3, 2, 103)));
    assert_int_equal(vv_prodstate_encode(s, &p, &n), 0);
    static const uint8_t want[] = {
        0, 1, 0, 0, 0,         0 /* CRC */, 0,    0,    0,    1,    1, 2, 3,   4, 5, 6, 7, 8,   0,
        9, 0, 0, 0, 4,         0,           0,    0,    0,    0,    0, 0, 104, 0, 0, 0, 1, 0,   0,
        0, 0, 0, 0, 1103 >> 8, 1103 & 255,  0xff, 0xff, 0xff, 0xff, 0, 0, 0,   0, 0, 0, 0, 100,
    };
    assert_int_equal(n, sizeof want);
    assert_int_equal(vv_get32(p + 2), vv_crc32c(0, p + 6, n - 6));
    memset(p + 2, 0, 4);
    assert_memory_equal(p, want, n);
    free(p);
    vv_prodstate_free(s);
}

static void snapshot_keeps_what_it_must(void **state)
{
    (void)state;
    struct vv_prodstate *s = vv_prodstate_new(), *t = vv_prodstate_new();
    put(s, batch(1, 0, 0, 10, 0));
    put(s, batch(1, 0, 10, 5, 10));
    put(s, txn(batch(2, 3, 0, 5, 20)));
    put(s, txn(batch(3, 3, 0, 5, 30)));
    put(s, txn(batch(4, 3, 0, 5, 40)));
    put(s, txn(batch(5, 0, 0, 1, 50)));
    marker(s, 5, 1, 51); /* an epoch without a batch */
    put(t, batch(99, 0, 0, 1, 0));
    uint8_t *p;
    size_t n;
    assert_int_equal(vv_prodstate_encode(s, &p, &n), 0);
    assert_int_equal(vv_prodstate_decode(t, p, n), 0);
    assert_int_equal(vv_prodstate_count(t), 5);
    assert_int_equal(ask(t, batch(99, 0, 7, 1, 0), 0), 0); /* replaced, not added */
    assert_int_equal(ask(t, batch(1, 0, 10, 5, 60), 10), 1000);
    assert_int_equal(ask(t, batch(1, 0, 0, 10, 60), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER); /* only the last is kept */
    assert_int_equal(ask(t, batch(5, 1, 1, 1, 60), 0), VV_OUT_OF_ORDER_SEQUENCE_NUMBER);
    put(t, batch(5, 1, 0, 1, 60));
    put(t, batch(1, 0, 15, 1, 61));
    assert_int_equal(vv_prodstate_first_unstable(t), 20);
    marker(t, 2, 3, 62);
    assert_int_equal(vv_prodstate_first_unstable(t), 30);
    marker(t, 3, 3, 63);
    assert_int_equal(vv_prodstate_first_unstable(t), 40);
    put(t, txn(batch(2, 3, 5, 1, 64)));
    marker(t, 4, 3, 65);
    assert_int_equal(vv_prodstate_first_unstable(t), 64);
    free(p);
    vv_prodstate_free(s);
    vv_prodstate_free(t);
}

static int decode_exact(struct vv_prodstate *s, const uint8_t *p, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1);
    memcpy(exact, p, n);
    int err = vv_prodstate_decode(s, exact, n);
    free(exact);
    return err;
}

static void damaged_snapshots(void **state)
{
    (void)state;
    struct vv_prodstate *s = vv_prodstate_new(), *t = vv_prodstate_new();
    uint8_t *p;
    size_t n;
    for (int i = 0; i < 4; i++)
        put(s, txn(batch(i, 0, 0, 3, i * 3)));
    assert_int_equal(vv_prodstate_encode(s, &p, &n), 0);
    for (size_t i = 0; i < n; i++) {
        put(t, batch(99, 0, 0, 1, 0));
        assert_int_equal(decode_exact(t, p, i), VV_E_CORRUPT);
        assert_int_equal(vv_prodstate_count(t), 0);
    }
    for (size_t i = 0; i < n * 8; i++) {
        p[i / 8] = (uint8_t)(p[i / 8] ^ (1 << i % 8));
        assert_int_equal(decode_exact(t, p, n), VV_E_CORRUPT);
        assert_int_equal(vv_prodstate_count(t), 0);
        assert_int_equal(vv_prodstate_first_unstable(t), INT64_MAX);
        p[i / 8] = (uint8_t)(p[i / 8] ^ (1 << i % 8));
    }
    /* The same with a CRC that fits: taken or refused, never a crash, and what is taken is written back. */
    for (size_t i = 6 * 8; i < n * 8; i++) {
        p[i / 8] = (uint8_t)(p[i / 8] ^ (1 << i % 8));
        vv_put32(p + 2, vv_crc32c(0, p + 6, n - 6));
        if (!decode_exact(t, p, n)) {
            uint8_t *q;
            size_t m;
            assert_int_equal(vv_prodstate_encode(t, &q, &m), 0);
            assert_int_equal(m, n);
            free(q);
        } else {
            assert_int_equal(vv_prodstate_count(t), 0);
        }
        p[i / 8] = (uint8_t)(p[i / 8] ^ (1 << i % 8));
    }
    memcpy(p + 10 + 46, p + 10, 46); /* one producer twice */
    vv_put32(p + 2, vv_crc32c(0, p + 6, n - 6));
    assert_int_equal(decode_exact(t, p, n), VV_E_CORRUPT);
    free(p);
    vv_prodstate_free(s);
    vv_prodstate_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences),
        cmocka_unit_test(five_duplicates),
        cmocka_unit_test(wraps),
        cmocka_unit_test(epochs),
        cmocka_unit_test(transactions),
        cmocka_unit_test(expires),
        cmocka_unit_test(old_records_of_today),
        cmocka_unit_test(many),
        cmocka_unit_test(snapshot_bytes),
        cmocka_unit_test(snapshot_keeps_what_it_must),
        cmocka_unit_test(damaged_snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
