/* tiering_reader_rig.h — the tier's rig with real record batches that are only in the bucket, and a reader that can
 * wait. */
#ifndef VARVE_TESTS_TIERING_READER_RIG_H
#define VARVE_TESTS_TIERING_READER_RIG_H
#include "tiering_rig.h"

#define BATCH_RECORDS 10

/* Deterministic and hard to mistake for another place's bytes. */
static void rig_fill(uint8_t *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = (uint8_t)(seed >> 56);
    }
}

/* Time of a record: mostly rising, every 7th far out of order. */
static int64_t rig_ts(int64_t offset)
{
    return 1000000 + offset * 10 + (offset % 7 == 3 ? 5000 : 0) - (offset % 11 == 5 ? 3000 : 0);
}

/* One batch of BATCH_RECORDS records at base, value bytes each; malloc'ed. */
static uint8_t *rig_batch(int64_t base, int32_t value, size_t *n, int64_t *min_ts, int64_t *max_ts)
{
    struct vv_batch_builder *b = vv_batch_builder_new();
    uint8_t *v = malloc((size_t)value + 1), *p, *copy;
    *min_ts = INT64_MAX;
    *max_ts = INT64_MIN;
    for (int64_t o = base; o < base + BATCH_RECORDS; o++) {
        int64_t ts = rig_ts(o);
        rig_fill(v, (size_t)value, (uint64_t)o);
        assert_int_equal(vv_batch_builder_add(b, ts, "key", 3, v, value), 0);
        *min_ts = VV_MIN(*min_ts, ts);
        *max_ts = VV_MAX(*max_ts, ts);
    }
    assert_int_equal(vv_batch_builder_finish(b, &p, n), 0);
    copy = malloc(*n);
    memcpy(copy, p, *n);
    vv_put64(copy, (uint64_t)base); /* offset and epoch are outside the CRC */
    vv_put32(copy + 12, 3);
    vv_batch_builder_free(b);
    free(v);
    return copy;
}

/* Seals a segment of real batches. hole: that many offsets are missing at its end. */
static struct vv_segment *rig_seal_batches(struct rig *r, int batches, int32_t value, int64_t hole)
{
    struct vv_segment *s = calloc(1, sizeof *s);
    s->base = r->log.end;
    s->max_ts = INT64_MIN;
    for (int i = 0; i < batches; i++) {
        size_t n;
        int64_t min_ts, max_ts;
        uint8_t *p = rig_batch(r->log.end, value, &n, &min_ts, &max_ts);
        s->p = realloc(s->p, s->n + n);
        memcpy(s->p + s->n, p, n);
        s->n += n;
        assert_int_equal(vv_blocks_append(&s->blocks, p, n, r->log.end, min_ts, max_ts, BATCH_RECORDS), 0);
        s->max_ts = VV_MAX(s->max_ts, max_ts);
        r->log.end += BATCH_RECORDS;
        free(p);
    }
    vv_blocks_seal(&s->blocks);
    r->log.end += hole;
    s->last = r->log.end - 1;
    r->log.v[r->log.n++] = s;
    assert_int_equal(vv_index_add_open(r->index, s->base, r->log.epoch, s), 0);
    struct vv_extent x = {.base = s->base, .last = s->last, .first_ts = s->base, .max_ts = s->max_ts, .bytes = s->n,
                          .sealed_ms = rig_wall_ms};
    assert_int_equal(vv_index_seal(r->index, &x), 0);
    if (r->part) vv_tier_part_kick(r->part);
    return s;
}

/* Uploads everything and forgets the local copies. */
static void rig_only_remote(struct rig *r)
{
    rig_settle(r);
    for (size_t i = 0; i < r->log.n; i++)
        if (!r->log.v[i]->dropped) assert_int_equal(vv_tier_part_drop_local(r->part, r->log.v[i]->base), 0);
}

/* A partition of `segments` segments in the bucket. The cache and chunks as in r->config. */
static struct rig *rig_remote(const struct vv_tier_config *c, int segments, int batches, int32_t value)
{
    struct rig *r = rig_new();
    r->config = *c;
    r->config.delete_grace_ms = 60000;
    rig_form(&r->config);
    rig_open(r);
    for (int i = 0; i < segments; i++) rig_seal_batches(r, batches, value, 0);
    rig_only_remote(r);
    return r;
}

/* ---- reads ---- */
struct rig_read {
    struct vv_tier_read r;
    pthread_mutex_t mu;
    pthread_cond_t cond;
    _Atomic int calls;
};

static void rig_read_done(struct vv_tier_read *r)
{
    struct rig_read *q = VV_CONTAINER(r, struct rig_read, r);
    pthread_mutex_lock(&q->mu);
    q->calls++;
    pthread_cond_signal(&q->cond);
    pthread_mutex_unlock(&q->mu);
}

static void rig_read_start(struct rig *r, struct rig_read *q, int64_t offset, size_t max_bytes)
{
    *q = (struct rig_read){.r = {.part = r->part, .offset = offset, .limit = r->log.end, .max_bytes = max_bytes,
                                 .min_one = true, .done = rig_read_done}};
    pthread_mutex_init(&q->mu, NULL);
    pthread_cond_init(&q->cond, NULL);
    vv_tier_read_start(&q->r);
}

static int rig_read_wait(struct rig_read *q)
{
    pthread_mutex_lock(&q->mu);
    while (!q->calls) pthread_cond_wait(&q->cond, &q->mu);
    assert_int_equal(q->calls, 1);
    pthread_mutex_unlock(&q->mu);
    return q->r.err;
}

/* The log's own bytes at the batch that holds offset. */
static const uint8_t *rig_truth(struct rig *r, int64_t offset, size_t *left)
{
    for (size_t i = 0; i < r->log.n; i++) {
        struct vv_segment *s = r->log.v[i];
        if (offset < s->base || offset > s->last) continue;
        for (size_t at = 0; at < s->n;) {
            struct vv_batch b;
            assert_int_equal(vv_batch_parse(s->p + at, s->n - at, &b), 0);
            if (vv_batch_last(&b) >= offset) {
                *left = s->n - at;
                return s->p + at;
            }
            at += b.bytes;
        }
    }
    *left = 0;
    return NULL;
}

/* Checks a served answer byte by byte against the log and releases it. Returns the bytes. */
static size_t rig_read_check(struct rig *r, struct rig_read *q)
{
    size_t n = q->r.bytes.bytes, at = 0;
    uint8_t *got = malloc(n + 1);
    int64_t offset = q->r.offset;
    vv_chain_copy_out(&q->r.bytes, got);
    while (at < n) {
        size_t left;
        const uint8_t *want = rig_truth(r, offset, &left);
        if (!want) fail_msg("nothing at %lld", (long long)offset);
        size_t here = VV_MIN(left, n - at);
        assert_memory_equal(got + at, want, here);
        for (size_t k = 0; k < here;) { /* the cut is between batches */
            struct vv_batch b;
            assert_int_equal(vv_batch_parse(got + at + k, n - at - k, &b), 0);
            offset = vv_batch_last(&b) + 1;
            k += b.bytes;
        }
        at += here;
    }
    if (n) assert_int_equal(q->r.next_offset, offset);
    free(got);
    vv_chain_release(&q->r.bytes);
    return n;
}

static size_t rig_read_ok(struct rig *r, struct rig_read *q, int64_t offset, size_t max_bytes)
{
    rig_read_start(r, q, offset, max_bytes);
    if (rig_read_wait(q)) fail_msg("offset %lld: %s: %s", (long long)offset, vv_err_name(q->r.err), q->r.error.text);
    return rig_read_check(r, q);
}

static struct vv_tier_stats rig_stats(struct rig *r)
{
    struct vv_tier_stats s;
    vv_tier_stats(r->tier, &s);
    return s;
}
#endif
