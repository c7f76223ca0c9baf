/* synth.c — see synth.h. */
#include "synth.h"
#include "obj_backends.h"
#include "varve/vlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33, x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

/* Two records of a batch are 5 ms apart. The second batch of one segment in seven is two hours late, the first of one in
 * eleven three hours early. */
int64_t synth_time(int64_t record)
{
    int64_t i = record / SYNTH_RECORDS, k = record % SYNTH_RECORDS, second = k / 2;
    uint64_t h = mix((uint64_t)i + 1);
    int64_t t = SYNTH_T0 + i * SYNTH_MINUTE + (second ? 30000 : 0) + (int64_t)(h % 20000) + k % 2 * 5;
    if (second && h % 7 == 3) t -= 120 * SYNTH_MINUTE;
    if (!second && h % 11 == 5) t += SYNTH_EARLY;
    return t;
}

void synth_extent(const struct synth *s, int64_t i, struct vv_extent *x)
{
    int64_t base = i * SYNTH_RECORDS, max = -1;
    for (int64_t k = 0; k < SYNTH_RECORDS; k++) max = VV_MAX(max, synth_time(base + k));
    *x = (struct vv_extent){.base = base, .last = base + SYNTH_RECORDS - 1, .first_ts = synth_time(base), .max_ts = max,
                            .sealed_ms = SYNTH_T0 + (i + 1) * SYNTH_MINUTE, .bytes = s->bytes, .object_bytes = s->object_bytes,
                            .nonce = mix((uint64_t)i) | 1, .state = VV_EXTENT_REMOTE};
}

static size_t add_batch(uint8_t *to, int64_t base, struct vv_blocks *blocks)
{
    struct vv_batch_builder *w = vv_batch_builder_new();
    uint8_t *p = NULL;
    size_t n = 0;
    char value[40];
    int64_t a = synth_time(base), b = synth_time(base + 1);
    for (int64_t k = 0; k < 2; k++) {
        int len = snprintf(value, sizeof value, "record %020lld", (long long)(base + k));
        VV_ASSERT(!vv_batch_builder_add(w, synth_time(base + k), "k", 1, value, len));
    }
    VV_ASSERT(!vv_batch_builder_finish(w, &p, &n));
    vv_put64(p, (uint64_t)base);
    memcpy(to, p, n);
    VV_ASSERT(!vv_blocks_append(blocks, to, n, base, a, VV_MAX(a, b), 2));
    vv_batch_builder_free(w);
    return n;
}

uint8_t *synth_object(const struct synth *s, int64_t i, size_t *n)
{
    struct vv_extent x;
    struct vv_epoch epoch = {0, 0};
    uint8_t data[1024], *foot = NULL;
    size_t data_n = 0, foot_n = 0;
    synth_extent(s, i, &x);
    struct vv_footer f = {.records = SYNTH_RECORDS, .writer_epoch = s->writer_epoch, .first_ts = x.first_ts, .max_ts = x.max_ts,
                          .sealed_ms = x.sealed_ms, .topic = (char *)(uintptr_t)s->topic,
                          .cluster_id = (char *)(uintptr_t)s->cluster_id, .epochs = &epoch, .epoch_count = 1};
    for (int64_t k = 0; k < SYNTH_RECORDS; k += 2) data_n += add_batch(data + data_n, x.base + k, &f.blocks);
    vv_blocks_seal(&f.blocks);
    f.data_bytes = data_n;
    vv_segkey_of(s->topic_id, s->partition, &x, &f.key);
    VV_ASSERT(!vv_footer_encode(&f, &foot, &foot_n));
    vv_blocks_release(&f.blocks);
    uint8_t *p = malloc(data_n + foot_n);
    VV_ASSERT(p);
    memcpy(p, data, data_n);
    memcpy(p + data_n, foot, foot_n);
    free(foot);
    *n = data_n + foot_n;
    return p;
}

int synth_init(struct synth *s)
{
    size_t n = 0;
    uint8_t *p = synth_object(s, 0, &n);
    s->object_bytes = n;
    s->bytes = vv_get64(p + n - VV_TRAILER_BYTES + 16);
    free(p);
    return VV_OK;
}

/* ---- the store ---- */

struct synth_store {
    struct vv_objstore base;
    struct vv_objstore *inner;
    const struct synth *s;
};

/* The object of a generated segment; NULL: not one of them. */
static uint8_t *made(struct vv_objstore *base, const char *key, size_t *n)
{
    const struct synth *s = ((struct synth_store *)base)->s;
    struct vv_segkey k;
    struct vv_extent x;
    if (vv_segkey_parse(key, &k) || !vv_uuid_eq(k.topic_id, s->topic_id) || k.partition != s->partition || k.generation) return NULL;
    synth_extent(s, k.base / SYNTH_RECORDS, &x);
    return x.base == k.base && x.last == k.last && x.nonce == k.nonce ? synth_object(s, k.base / SYNTH_RECORDS, n) : NULL;
}

static int part_of(const uint8_t *p, size_t size, enum vv_objget_kind kind, uint64_t at, size_t n, size_t *from, size_t *len)
{
    *from = kind == VV_GET_RANGE ? (size_t)at : kind == VV_GET_SUFFIX && n < size ? size - n : 0;
    *len = kind == VV_GET_RANGE ? n : size - *from;
    (void)p;
    if (kind == VV_GET_WHOLE && n < size) return VV_E_LIMIT;
    return *from + *len > size ? VV_E_CORRUPT : VV_OK;
}

static int synth_get(struct vv_objstore *base, const char *key, enum vv_objget_kind kind, uint64_t at, size_t n,
                     int64_t deadline_ms, struct vv_slice *out, struct vv_objinfo *info, struct vv_error *e)
{
    size_t size, from, len;
    uint8_t *p = made(base, key, &size);
    if (!p) return vv_objstore_get(((struct synth_store *)base)->inner, key, kind, at, n, deadline_ms, out, info, e);
    int err = part_of(p, size, kind, at, n, &from, &len);
    struct vv_buf *b = err ? NULL : vv_buf_new(len);
    if (b) {
        memcpy(b->data, p + from, len);
        *out = (struct vv_slice){.buf = b, .p = b->data, .n = len};
        if (info) *info = (struct vv_objinfo){.size = size};
    }
    free(p);
    return err ? vv_error_set(e, err, "%s: wrong range", key) : VV_OK;
}

static void synth_get_async(struct vv_objstore *base, struct vv_objget *g)
{
    size_t size, from, len;
    uint8_t *p = made(base, g->key, &size);
    if (!p) {
        vv_objstore_get_async(((struct synth_store *)base)->inner, g);
        return;
    }
    int err = part_of(p, size, VV_GET_RANGE, g->at, g->n, &from, &len);
    struct vv_buf *b = !err && !g->sink ? vv_buf_new(len) : NULL;
    if (b) memcpy(b->data, p + from, len);
    if (!err && g->sink) err = vv_objget_feed(g, 0, p + from, len);
    free(p);
    vv_objget_finish(base, g, err, b);
}

static void synth_cancel(struct vv_objstore *base, struct vv_objget *g) { (void)base, (void)g; } /* all is over at once */

static int synth_head(struct vv_objstore *base, const char *key, int64_t deadline_ms, struct vv_objinfo *info, struct vv_error *e)
{
    size_t size;
    uint8_t *p = made(base, key, &size);
    if (!p) return vv_objstore_head(((struct synth_store *)base)->inner, key, deadline_ms, info, e);
    free(p);
    *info = (struct vv_objinfo){.size = size};
    return VV_OK;
}

static int synth_put(struct vv_objstore *base, const char *key, const struct vv_objsrc *src, const struct vv_objput *how,
                     int64_t deadline_ms, struct vv_objinfo *info, struct vv_error *e)
{
    return vv_objstore_put(((struct synth_store *)base)->inner, key, src, how, deadline_ms, info, e);
}

static int synth_del(struct vv_objstore *base, const char *key, int64_t deadline_ms, struct vv_error *e)
{
    return vv_objstore_delete(((struct synth_store *)base)->inner, key, deadline_ms, e);
}

static int synth_delete_many(struct vv_objstore *base, const char *const *keys, size_t count, int64_t deadline_ms, int *results,
                             struct vv_error *e)
{
    return vv_objstore_delete_many(((struct synth_store *)base)->inner, keys, count, deadline_ms, results, e);
}

static int synth_list(struct vv_objstore *base, const char *prefix, const char *start_after, size_t max, int64_t deadline_ms,
                      struct vv_objlist *out, struct vv_error *e)
{
    return vv_objstore_list(((struct synth_store *)base)->inner, prefix, start_after, max, deadline_ms, out, e);
}

static int synth_abort_stale(struct vv_objstore *base, const char *prefix, int64_t before_wall_ms, int64_t deadline_ms,
                             size_t *aborted, struct vv_error *e)
{
    return vv_objstore_abort_stale(((struct synth_store *)base)->inner, prefix, before_wall_ms, deadline_ms, aborted, e);
}

static void synth_close(struct vv_objstore *base)
{
    free(base);
}

static const struct vv_objstore_ops synth_ops = {
    .close = synth_close,
    .get_async = synth_get_async,
    .cancel = synth_cancel,
    .get = synth_get,
    .head = synth_head,
    .put = synth_put,
    .del = synth_del,
    .delete_many = synth_delete_many,
    .list = synth_list,
    .abort_stale = synth_abort_stale,
};

struct vv_objstore *synth_store(struct vv_objstore *inner, const struct synth *s)
{
    struct synth_store *t = calloc(1, sizeof *t);
    VV_ASSERT(t);
    vv_objstore_init(&t->base, &synth_ops, inner->env, inner->caps, inner->url);
    t->inner = inner;
    t->s = s;
    return &t->base;
}
