/* histogram.c — bucket of a value: its power of two, and the seven bits below the leading one. */
#include "histogram.h"

#include "varve/bytes.h"

#include <math.h>

static unsigned bucket_of(uint64_t v)
{
    if (v < VV_HIST_STEPS) return (unsigned)v;
    unsigned shift = (unsigned)(63 - __builtin_clzll(v)) - 7; /* v >> shift is in [128, 256) */
    return shift * VV_HIST_STEPS + (unsigned)(v >> shift);
}

static uint64_t upper_end(unsigned bucket)
{
    if (bucket < VV_HIST_STEPS) return bucket;
    unsigned shift = bucket / VV_HIST_STEPS - 1;
    uint64_t low = (uint64_t)(bucket % VV_HIST_STEPS + VV_HIST_STEPS) << shift;
    return low + ((1ull << shift) - 1);
}

void vv_hist_add(struct vv_hist *h, uint64_t value)
{
    h->count++;
    h->sum += (double)value;
    h->max = VV_MAX(h->max, value);
    h->bucket[bucket_of(value)]++;
}

void vv_hist_merge(struct vv_hist *to, const struct vv_hist *from)
{
    to->count += from->count;
    to->sum += from->sum;
    to->max = VV_MAX(to->max, from->max);
    for (unsigned i = 0; i < VV_HIST_BUCKETS; i++)
        to->bucket[i] += from->bucket[i];
}

uint64_t vv_hist_at(const struct vv_hist *h, double q)
{
    uint64_t want = (uint64_t)ceil(q * (double)h->count), seen = 0;
    want = VV_MIN(VV_MAX(want, 1), h->count);
    for (unsigned i = 0; i < VV_HIST_BUCKETS && h->count; i++) {
        seen += h->bucket[i];
        if (seen >= want) return VV_MIN(upper_end(i), h->max);
    }
    return 0;
}

double vv_hist_mean(const struct vv_hist *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}
