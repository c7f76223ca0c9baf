/* scans.h — the partitions of a topic read one after the other, each in order, while what comes next is under way.
 *
 * A partition is begun (its footers and first chunks are asked for) as soon as everything of those before it is asked for: near the end of a
 * long one, at once behind short ones. At most VV_SCANS_AHEAD are open, so that memory stays bounded (reader.h, memory_max, for the one that
 * is read; some 16 MiB each for the others, 32 where objects are small). One thread. */
#ifndef VARVE_CLI_SCANS_H
#define VARVE_CLI_SCANS_H
#include "bucket.h"

#define VV_SCANS_AHEAD 8

struct vv_scans { /* zeroed but for logs and window; release with vv_scans_end */
    const struct vv_cli_logs *logs;
    const struct vv_scan_opts *window;
    struct vv_scan *v[VV_SCANS_AHEAD]; /* of logs->v[i] at i % VV_SCANS_AHEAD */
    size_t done, open;                 /* logs->v[done] is read, those up to `open` are begun */
    bool reading;
};
/* The next partition's scan, which is not the caller's to close; the one before is gone. *log NULL: there are no more. */
int vv_scans_next(struct vv_scans *s, struct vv_scan **scan, struct vv_bucket_log **log, struct vv_error *e);
/* Asks for what is due, now and then while reading. Waits for nothing but a page of a manifest. */
void vv_scans_ahead(struct vv_scans *s);
void vv_scans_end(struct vv_scans *s);
#endif
