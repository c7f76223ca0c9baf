/* verify.c — everything there is to check about one partition: a scan that goes on behind each damage. */
#include "reader_impl.h"

#include <stdlib.h>

#define OUTPUT_MAX (1u << 30)

struct verify {
    void (*found)(void *ctx, const struct vv_error *damage);
    void *ctx;
    struct vv_verified *out;
    int64_t log_start;
};

static void tell(struct verify *v, const struct vv_error *e)
{
    v->out->damages++;
    v->found(v->ctx, e);
}

static int nothing(void *ctx, const struct vv_record *r)
{
    (void)ctx;
    (void)r;
    return 0;
}

static int check_batch(struct verify *v, const struct vv_scan_batch *b)
{
    struct vv_error e;
    if (vv_batch_last(&b->b) < v->log_start) return VV_OK; /* of the first segment: no part of the log any more */
    v->out->batches++;
    v->out->records += (uint64_t)b->b.records;
    v->out->bytes += b->b.bytes;
    int err = vv_batch_each(b->p, &b->b, OUTPUT_MAX, nothing, NULL);
    if (err == VV_E_NOMEM) return err;
    if (err) {
        vv_error_set(&e, VV_E_CORRUPT, "the records of the batch at offset %lld cannot be decoded (%s), its checksum is right",
                     (long long)b->b.base_offset, vv_err_name(err));
        tell(v, &e);
    }
    return VV_OK;
}

int vv_verify_log(struct vv_bucket_log *log, void (*found)(void *ctx, const struct vv_error *damage), void *ctx,
                  struct vv_verified *out, struct vv_error *e)
{
    return vv_verify_anchored(log, NULL, 0, found, ctx, out, e);
}

int vv_verify_anchored(struct vv_bucket_log *log, struct vv_anchor *anchors, size_t n,
                       void (*found)(void *ctx, const struct vv_error *damage), void *ctx, struct vv_verified *out,
                       struct vv_error *e)
{
    struct verify v = {found, ctx, out, log->info.log_start};
    struct vv_chain_check *chain = vv_chain_check_new(anchors, n);
    struct vv_scan_opts o = VV_SCAN_ALL;
    struct vv_scan_stats stats;
    struct vv_scan *s = NULL;
    *out = (struct vv_verified){0};
    o.everything = true;
    int err = chain ? vv_scan_open(log, &o, &s, e) : vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (!err) vv_scan_set_chain(s, chain);
    while (!err) {
        struct vv_scan_batch b;
        struct vv_error why = {0};
        err = vv_scan_next(s, &b, &why);
        if (!err && !b.p) break;
        if (!err) {
            err = check_batch(&v, &b);
        } else if (vv_scan_failed_segment(s) && (err == VV_E_CORRUPT || err == VV_E_UNSUPPORTED ||
                                                 err == VV_E_CONFLICT)) {
            tell(&v, &why);
            vv_scan_skip(s);
            err = VV_OK;
        } else if (err == VV_E_CORRUPT) { /* the manifest itself: nothing behind it can be found */
            tell(&v, &why);
            err = VV_OK;
            break;
        } else if (e) {
            *e = why;
        }
    }
    if (!err && log->info.hole) {
        struct vv_error hole;
        vv_error_set(&hole, VV_E_CORRUPT, "%s-%d: objects lie beyond offset %lld, which is in none: lost to the log",
                     log->info.topic,
                     (int)log->info.partition, (long long)log->info.next_offset);
        tell(&v, &hole);
    }
    if (s) vv_scan_stats(s, &stats);
    out->segments = s ? (uint64_t)stats.segments : 0;
    vv_scan_close(s);
    if (chain) vv_chain_check_tell(chain, out);
    vv_chain_check_free(chain);
    return err;
}
