/* prewarm.c — see prewarm.h.
 *
 * The broker is asked by Fetch with a tagged field of our own (src/api/README.md): it reads on as for any consumer, writes
 * what it reads to its disk cache and answers how far it came, without records. Who does not know the field answers
 * records, and is named as a broker that cannot do it. What is on the broker's own disk anyway is left out. The rate is
 * kept here, by waiting; the broker's own limits hold as for any reader. One partition after the other. */
#include "prewarm.h"

#include "admin.h"
#include "progress.h"
#include "table.h"
#include "varve/bytes.h"
#include "varve/env.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STEP_BYTES (8 << 20)
#define STEP_MIN (64 << 10)
#define PAUSE_US 50000        /* when the broker's disk has enough to write */
#define PATIENCE_US 60000000  /* without any progress */

struct run {
    const struct vv_args *a;
    const struct vv_prewarm *p;
    struct vv_client *c;
    struct vv_part_ref *parts; /* offset: where to begin */
    int64_t *ends;
    size_t n;
    struct vv_progress progress;
    uint64_t bytes, offsets;
    int64_t began_us, moved_us;
};

bool vv_rate_parse(const char *text, int64_t *out)
{
    static const char units[] = "KMG";
    char *end;
    unsigned long long v = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (*text < '0' || *text > '9' || !v || v > (unsigned long long)INT64_MAX >> shift || (*end && (!unit || end[1]))) return false;
    *out = (int64_t)(v << shift);
    return true;
}

/* ---- the window ---- */

/* Offsets for a time, or -2, -4 …; -1 where there is none. */
static int64_t *offsets_at(struct run *r, int64_t timestamp, struct vv_error *e)
{
    struct vv_part_ref *rows = malloc((r->n + 1) * sizeof *rows);
    int64_t *v = malloc((r->n + 1) * sizeof *v);
    int rc = rows && v ? 0 : vv_error_set(e, VV_E_NOMEM, "out of memory");
    for (size_t i = 0; i < r->n && !rc; i++) {
        rows[i] = r->parts[i];
        rows[i].timestamp = timestamp;
    }
    if (!rc) rc = vv_client_offsets(r->c, rows, r->n, e);
    for (size_t i = 0; i < r->n && !rc; i++) {
        v[i] = rows[i].offset;
        if (rows[i].err)
            rc = vv_error_set(e, rows[i].err, "offsets of %s-%d: %s", r->p->topic, (int)rows[i].partition,
                              vv_err_name(rows[i].err));
    }
    free(rows);
    if (!rc) return v;
    free(v);
    return NULL;
}

static int64_t *bound(struct run *r, const struct vv_position *at, int64_t otherwise, struct vv_error *e)
{
    int64_t *v = offsets_at(r, !at->given ? otherwise : at->is_time ? at->at : -2, e);
    for (size_t i = 0; v && i < r->n; i++) {
        if (at->given && !at->is_time) v[i] = at->at;
        else if (v[i] < 0) v[i] = INT64_MAX; /* no record is that young */
    }
    return v;
}

/* [from, to) of each partition, without what is below the log start or on the broker's disk. */
static int find_window(struct run *r, struct vv_error *e)
{
    int64_t *start = offsets_at(r, -2, e), *local = start ? offsets_at(r, -4, e) : NULL;
    int64_t *from = local ? bound(r, &r->p->from, -2, e) : NULL, *to = from ? bound(r, &r->p->to, -1, e) : NULL;
    if (to)
        for (size_t i = 0; i < r->n; i++) {
            r->parts[i].offset = VV_MAX(from[i], start[i]);
            r->ends[i] = VV_MIN(to[i], local[i]);
        }
    int rc = to ? VV_EXIT_DONE : vv_cli_fail(r->a, "%s", e->text);
    free(start);
    free(local);
    free(from);
    free(to);
    return rc;
}

static int find_partitions(struct run *r)
{
    struct vv_error e = {0};
    int rc = vv_client_partitions(r->c, r->p->topic, &r->parts, &r->n, &e);
    if (rc) return vv_cli_fail(r->a, "%s", e.text);
    if (r->p->partition >= 0) {
        size_t i = 0;
        while (i < r->n && r->parts[i].partition != r->p->partition) i++;
        if (i == r->n) return vv_cli_fail(r->a, "%s has no partition %d", r->p->topic, (int)r->p->partition);
        r->parts[0] = r->parts[i];
        r->n = 1;
    }
    r->ends = calloc(r->n + 1, sizeof *r->ends);
    return r->ends ? find_window(r, &e) : vv_cli_fail(r->a, "out of memory");
}

/* About how many bytes that is: the window's share of what is in the bucket. */
static uint64_t estimate(struct run *r)
{
    struct vv_error e = {0};
    struct vv_admin_size *sizes = NULL;
    size_t n = 0;
    double sum = 0;
    int64_t *start = offsets_at(r, -2, &e), *local = start ? offsets_at(r, -4, &e) : NULL;
    if (local && !vv_admin_sizes(r->c, r->p->topic, &sizes, &n, &e))
        for (size_t i = 0; i < r->n; i++)
            for (size_t k = 0; k < n; k++)
                if (sizes[k].partition == r->parts[i].partition && local[i] > start[i] && r->ends[i] > r->parts[i].offset)
                    sum += (double)sizes[k].remote * (double)(r->ends[i] - r->parts[i].offset) /
                           (double)(local[i] - start[i]);
    free(sizes);
    free(start);
    free(local);
    return (uint64_t)sum;
}

/* ---- reading ---- */

static void sleep_us(int64_t us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    if (us > 0) nanosleep(&t, NULL);
}

static int ask(struct run *r, const struct vv_part_ref *part, int64_t at, struct FetchResponse_PartitionData *out)
{
    struct vv_error e = {0};
    struct vv_reply reply;
    struct FetchRequest q;
    struct FetchRequest_FetchTopic t;
    struct FetchRequest_FetchPartition fp;
    int64_t rate = r->p->bytes_per_s;
    VV_MSG_INIT(FetchRequest, &q);
    VV_STRUCT_INIT(FetchRequest_FetchTopic, &t);
    VV_STRUCT_INIT(FetchRequest_FetchPartition, &fp);
    fp.Partition = part->partition;
    fp.FetchOffset = at;
    fp.PartitionMaxBytes = rate ? (int32_t)VV_MAX(STEP_MIN, VV_MIN(STEP_BYTES, rate / 4)) : STEP_BYTES;
    t.Topic = vv_str_c(r->p->topic);
    t.Partitions.v = &fp;
    t.Partitions.n = 1;
    q.ReplicaId = -1;
    q.MaxWaitMs = 5000;
    q.MinBytes = 1;
    q.MaxBytes = STEP_BYTES;
    q.SessionEpoch = -1;
    q.Prewarm = true;
    q.Topics.v = &t;
    q.Topics.n = 1;
    int rc = vv_client_call(r->c, part->leader, 1, &q, &reply, &e);
    if (rc) return vv_cli_fail(r->a, "%s", e.text);
    const struct FetchResponse *got = reply.msg;
    bool there = !got->ErrorCode && got->Responses.n == 1 && got->Responses.v[0].Partitions.n == 1;
    if (there) *out = got->Responses.v[0].Partitions.v[0];
    int code = got->ErrorCode;
    vv_reply_release(&reply);
    return there ? VV_EXIT_DONE : vv_cli_fail(r->a, "Fetch: %s", vv_err_name(code));
}

static int refused(struct run *r, const struct vv_part_ref *part, int64_t at, int code)
{
    if (code == VV_INVALID_CONFIG)
        return vv_cli_fail(r->a, "%s has no disk cache to fill: set tier.cache.disk.bytes there (a tier that is a "
                           "directory has none by itself)", r->p->broker);
    return vv_cli_fail(r->a, "%s-%d at offset %" PRId64 ": %s", r->p->topic, (int)part->partition, at, vv_err_name(code));
}

/* After an answer: at the speed that is allowed, and not for ever without progress. */
static int pace(struct run *r, const struct vv_part_ref *part, int64_t at, bool moved)
{
    int64_t now = vv_mono_us(&vv_env_posix), rate = r->p->bytes_per_s;
    if (moved) r->moved_us = now;
    vv_progress_show(&r->progress, r->bytes, r->offsets);
    if (now - r->moved_us > PATIENCE_US) {
        vv_progress_end(&r->progress);
        return vv_cli_fail(r->a, "%s-%d stands at offset %" PRId64 ": the bucket does not answer, or the broker's disk is short "
                           "(its log says which)", r->p->topic, (int)part->partition, at);
    }
    if (!moved) sleep_us(PAUSE_US);
    if (rate) sleep_us(r->began_us + (int64_t)((double)r->bytes * 1e6 / (double)rate) - now);
    return VV_EXIT_DONE;
}

static int fill_one(struct run *r, size_t i)
{
    const struct vv_part_ref *part = &r->parts[i];
    for (int64_t at = part->offset; at < r->ends[i];) {
        struct FetchResponse_PartitionData d = {0};
        int rc = ask(r, part, at, &d);
        if (rc) return rc;
        bool later = d.ErrorCode == VV_KAFKA_STORAGE_ERROR; /* the store is away: it may come back */
        if (d.ErrorCode && !later) return refused(r, part, at, d.ErrorCode);
        if (!later && d.PrewarmedTo < 0)
            return vv_cli_fail(r->a, "%s does not know --prewarm: it is no Varve broker, or an older one", r->p->broker);
        bool moved = !later && d.PrewarmedTo > at;
        if (moved) {
            r->bytes += (uint64_t)d.PrewarmedBytes;
            r->offsets += (uint64_t)(d.PrewarmedTo - at);
            at = d.PrewarmedTo;
        }
        rc = pace(r, part, at, moved);
        if (rc) return rc;
    }
    return VV_EXIT_DONE;
}

static int fill(struct run *r)
{
    char size[32];
    bool any = false;
    int rc = VV_EXIT_DONE;
    for (size_t i = 0; i < r->n; i++) any |= r->parts[i].offset < r->ends[i];
    if (!any) {
        printf("%s: nothing of this window is only in the bucket\n", r->p->topic);
        return VV_EXIT_DONE;
    }
    vv_progress_begin(&r->progress, "varve replay --prewarm", estimate(r), true);
    r->began_us = r->moved_us = vv_mono_us(&vv_env_posix);
    for (size_t i = 0; i < r->n && !rc; i++) rc = fill_one(r, i);
    vv_progress_end(&r->progress);
    if (rc) return rc;
    printf("%s: %s of %zu partition%s went through the disk cache of %s in %.1f s\n", r->p->topic,
           vv_human_bytes((double)r->bytes, size), r->n, r->n == 1 ? "" : "s", r->p->broker,
           (double)(vv_mono_us(&vv_env_posix) - r->began_us) / 1e6);
    return VV_EXIT_DONE;
}

int vv_prewarm_run(const struct vv_args *a, const struct vv_prewarm *p)
{
    struct run r = {.a = a, .p = p};
    struct vv_error e = {0};
    if (vv_client_open(p->broker, "varve-prewarm", &r.c, &e)) return vv_cli_fail(a, "%s", e.text);
    int rc = find_partitions(&r);
    if (!rc) rc = fill(&r);
    free(r.parts);
    free(r.ends);
    vv_client_close(r.c);
    return rc;
}
