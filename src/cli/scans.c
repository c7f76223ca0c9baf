/* scans.c — see scans.h. */
#include "scans.h"

static struct vv_scan **slot(struct vv_scans *s, size_t i)
{
    return &s->v[i % VV_SCANS_AHEAD];
}

static int begin(struct vv_scans *s, struct vv_error *e)
{
    int err = vv_scan_open(s->logs->v[s->open], s->window, slot(s, s->open), e);
    if (!err) s->open++;
    return err;
}

void vv_scans_ahead(struct vv_scans *s)
{
    struct vv_error e; /* there is no memory for it now: it is opened when its turn comes, or that says so */
    for (size_t i = s->done; i < s->logs->n && i < s->done + VV_SCANS_AHEAD; i++) {
        if (i == s->open && begin(s, &e)) return;
        if (!vv_scan_ask(*slot(s, i))) return;
    }
}

int vv_scans_next(struct vv_scans *s, struct vv_scan **scan, struct vv_bucket_log **log, struct vv_error *e)
{
    *scan = NULL;
    *log = NULL;
    if (s->reading) vv_scan_close(*slot(s, s->done++));
    s->reading = false;
    if (s->done == s->logs->n) return VV_OK;
    int err = s->open == s->done ? begin(s, e) : VV_OK;
    if (err) return err;
    s->reading = true;
    vv_scans_ahead(s);
    *scan = *slot(s, s->done);
    *log = s->logs->v[s->done];
    return VV_OK;
}

void vv_scans_end(struct vv_scans *s)
{
    while (s->done < s->open) vv_scan_close(*slot(s, s->done++));
    s->reading = false;
}
