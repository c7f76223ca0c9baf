/* prewarm.h — `varve replay BROKER --prewarm`: a window of a topic goes from the bucket to the broker's disk cache. */
#ifndef VARVE_CLI_PREWARM_H
#define VARVE_CLI_PREWARM_H
#include "bucket.h"

#include <stdint.h>

struct vv_prewarm {
    const char *broker, *topic;
    int32_t partition;          /* -1 = all */
    struct vv_position from, to; /* given false: all */
    int64_t bytes_per_s;        /* 0 = as fast as the broker goes */
};
/* "1000", "64K", "50M", "1G" (of 1024) -> bytes a second. */
bool vv_rate_parse(const char *text, int64_t *out);
int vv_prewarm_run(const struct vv_args *a, const struct vv_prewarm *p); /* an exit code */
#endif
