/* records.c — what is built on a scan: records, their headers, and the estimate before a scan. */
#include "reader_impl.h"

#include <stdlib.h>

#define OUTPUT_MAX (1u << 30) /* of one decompressed batch */

struct each {
    const struct vv_scan_opts *o;
    const struct vv_scan_batch *batch;
    int (*fn)(void *ctx, const struct vv_scan_batch *b, const struct vv_record *r);
    void *ctx;
    int stopped;
};

static int one(void *ctx, const struct vv_record *r)
{
    struct each *x = ctx;
    const struct vv_scan_opts *o = x->o;
    if (r->offset < o->from || r->offset >= o->to || r->timestamp < o->from_ts || r->timestamp >= o->to_ts) return 0;
    x->stopped = x->fn(x->ctx, x->batch, r);
    return x->stopped;
}

int vv_scan_each(struct vv_scan *s, int (*fn)(void *ctx, const struct vv_scan_batch *b, const struct vv_record *r),
                 void *ctx,
                 struct vv_error *e)
{
    struct vv_scan_batch b;
    struct each x = {.o = vv_scan_opts_of(s), .batch = &b, .fn = fn, .ctx = ctx};
    for (;;) {
        int err = vv_scan_next(s, &b, e);
        if (err || !b.p) return err;
        if (b.b.control) continue; /* `everything`: markers hold no records of users */
        err = vv_batch_each(b.p, &b.b, OUTPUT_MAX, one, &x);
        if (x.stopped) return x.stopped;
        if (err)
            return vv_error_set(e, VV_E_CORRUPT, "the batch at offset %lld cannot be decoded: %s",
                                (long long)b.b.base_offset,
                                vv_err_name(err));
    }
}

int vv_record_headers(const struct vv_record *r,
                      int (*each)(void *ctx, const uint8_t *key, int32_t key_n, const uint8_t *value, int32_t value_n),
                      void *ctx)
{
    const uint8_t *p = r->headers_p;
    size_t n = r->headers_n;
    for (int32_t i = 0; i < r->headers; i++) {
        const uint8_t *part[2];
        int32_t len[2];
        for (int k = 0; k < 2; k++) {
            size_t used = vv_varint_get(p, n, &len[k]);
            if (!used || (len[k] > 0 && (size_t)len[k] > n - used) || (k == 0 && len[k] < 0)) return VV_E_CORRUPT;
            part[k] = p + used;
            used += len[k] > 0 ? (size_t)len[k] : 0;
            p += used;
            n -= used;
        }
        int err = each(ctx, part[0], len[0], len[1] < 0 ? NULL : part[1], len[1]);
        if (err) return err;
    }
    return VV_OK;
}

/* ---- the estimate ---- */

struct plan {
    const struct vv_bucket *b;
    struct vv_scan_opts o;
    struct vv_scan_plan *out;
};

static int plan_one(void *ctx, const struct vv_extent *x)
{
    struct plan *p = ctx;
    if (x->base >= p->o.to) return VV_E_NOENT;
    if (x->max_ts < p->o.from_ts) return VV_OK;
    uint64_t stored = vv_extent_footer_at(x), footer = x->object_bytes > stored ? x->object_bytes - stored : 0;
    p->out->gets++;
    p->out->bytes += footer;
    if (x->first_ts >= p->o.to_ts) {
        p->out->footers_only++;
        return VV_OK;
    }
    double all = (double)x->last - (double)x->base + 1;
    double in = (double)VV_MIN(x->last, p->o.to - 1) - (double)VV_MAX(x->base, p->o.from) + 1;
    uint64_t bytes = x->object_bytes <= VV_SCAN_WHOLE_MAX ? stored : (uint64_t)((double)stored * in / all);
    p->out->segments++;
    p->out->bytes += bytes;
    if (x->object_bytes > VV_SCAN_WHOLE_MAX) p->out->gets += (bytes + p->b->chunk_bytes - 1) / p->b->chunk_bytes;
    return VV_OK;
}

int vv_scan_plan(struct vv_bucket_log *log, const struct vv_scan_opts *o, struct vv_scan_plan *out, struct vv_error *e)
{
    struct plan p = {.b = log->bucket, .o = *o, .out = out};
    *out = (struct vv_scan_plan){0};
    p.o.from = VV_MAX(o->from, log->info.log_start);
    return vv_bucket_log_segments(log, p.o.from, plan_one, &p, e);
}
