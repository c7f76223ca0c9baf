/* progress.h — one line on a terminal: how far, how fast, how long still. To stderr; silent when that is no terminal. One thread. */
#ifndef VARVE_CLI_PROGRESS_H
#define VARVE_CLI_PROGRESS_H
#include <stdbool.h>
#include <stdint.h>

struct vv_progress {
    const char *who;
    bool on;
    uint64_t total;
    int64_t began_us, shown_us;
};
/* wanted: false where it would disturb (records go to the same terminal). total: bytes, an estimate; 0 = unknown. */
void vv_progress_begin(struct vv_progress *p, const char *who, uint64_t total, bool wanted);
void vv_progress_show(struct vv_progress *p, uint64_t bytes, uint64_t records); /* at most five times a second */
void vv_progress_end(struct vv_progress *p);                                    /* wipes the line */
void vv_progress_sum(const struct vv_progress *p, uint64_t bytes, uint64_t records);
/* "1.0 GiB of 2.0 GiB  50 %  100 MiB/s  ETA 0:10  5 records" */
void vv_progress_text(char *out, unsigned n, uint64_t bytes, uint64_t total, uint64_t records, int64_t us);
#endif
