/* progress.c — see progress.h. */
#include "progress.h"

#include "table.h"
#include "varve/bytes.h"
#include "varve/env.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define EVERY_US 200000

void vv_progress_begin(struct vv_progress *p, const char *who, uint64_t total, bool wanted)
{
    int64_t now = vv_mono_us(&vv_env_posix);
    *p = (struct vv_progress){who, wanted && isatty(STDERR_FILENO), total, now, now};
}

void vv_progress_text(char *out, unsigned n, uint64_t bytes, uint64_t total, uint64_t records, int64_t us)
{
    char done[32], all[32], rate[32], eta[32] = "-";
    double per_s = (double)bytes * 1e6 / (double)VV_MAX(us, 1);
    uint64_t left = total > bytes ? total - bytes : 0;
    if (bytes && per_s > 0) {
        uint64_t s = (uint64_t)((double)left / per_s);
        if (s >= 3600)
            snprintf(eta, sizeof eta, "%" PRIu64 ":%02u:%02u", s / 3600, (unsigned)(s / 60 % 60), (unsigned)(s % 60));
        else
            snprintf(eta, sizeof eta, "%u:%02u", (unsigned)(s / 60), (unsigned)(s % 60));
    }
    snprintf(out, n, "%s of %s  %u %%  %s/s  ETA %s  %" PRIu64 " records", vv_human_bytes((double)bytes, done),
             vv_human_bytes((double)VV_MAX(total, bytes), all),
             total ? (unsigned)(100 * VV_MIN(bytes, total) / total) : 0,
             vv_human_bytes(per_s, rate), eta, records);
}

void vv_progress_show(struct vv_progress *p, uint64_t bytes, uint64_t records)
{
    char text[200];
    if (!p->on) return;
    int64_t now = vv_mono_us(&vv_env_posix);
    if (now - p->shown_us < EVERY_US) return;
    p->shown_us = now;
    vv_progress_text(text, sizeof text, bytes, p->total, records, now - p->began_us);
    fprintf(stderr, "\r%s: %s\033[K", p->who, text);
    fflush(stderr);
}

void vv_progress_end(struct vv_progress *p)
{
    if (p->on && p->shown_us != p->began_us) fputs("\r\033[K", stderr);
}

void vv_progress_sum(const struct vv_progress *p, uint64_t bytes, uint64_t records)
{
    char got[32], rate[32];
    if (!p->on) return;
    int64_t us = VV_MAX(vv_mono_us(&vv_env_posix) - p->began_us, 1);
    fprintf(stderr, "%s: %" PRIu64 " records from %s in %.1f s (%s/s)\n", p->who, records,
            vv_human_bytes((double)bytes, got),
            (double)us / 1e6, vv_human_bytes((double)bytes * 1e6 / (double)us, rate));
}
