/* histogram.h — a log-linear histogram of 64-bit values: 128 steps per power of two, so a value is told to within
 * 0.8 %, from 0 to 2^64 - 1, in 58 KiB whatever comes in. Values below 128 are exact. Pure; one owner. */
#ifndef VARVE_CLI_HISTOGRAM_H
#define VARVE_CLI_HISTOGRAM_H
#include <stdint.h>

enum { VV_HIST_STEPS = 128, VV_HIST_BUCKETS = 58 * VV_HIST_STEPS };
struct vv_hist { /* init with {0} */
    uint64_t count, max;
    double sum;
    uint64_t bucket[VV_HIST_BUCKETS];
};
void vv_hist_add(struct vv_hist *h, uint64_t value);
void vv_hist_merge(struct vv_hist *to, const struct vv_hist *from);
/* The smallest told value that at least the share q (0…1) of the values does not exceed: the upper end of its
 * bucket, never above the largest value. 0 when there are none. */
uint64_t vv_hist_at(const struct vv_hist *h, double q);
double vv_hist_mean(const struct vv_hist *h);
#endif
