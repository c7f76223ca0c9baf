/* demo_ev.c — `varve demo ev`: the whole of Varve in a minute, on a broker and a directory of its
 * own.
 *
 * Steps: a child broker; a topic with small segments; months of charging told live, followed by
 * two consumer groups; the layers drawn; local copies let go; the layers again; one station's
 * week, months ago, read back from the bucket; everything read back from offset 0. Every number
 * is measured or asked from the broker; whatever does not come out as the story says is an error
 * and exit code 1. One thread, but for demo_live.c. */
#include "admin.h"
#include "child.h"
#include "demo.h"
#include "member.h"
#include "strata.h"
#include "table.h"

#include "varve/bytes.h"
#include "varve/env.h"

#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DAY_MS        86400000LL
#define SEGMENT_BYTES 524288
#define LOCAL_BYTES   1048576
#define PARTS_MAX     64

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
    interrupted = sig;
}

struct demo {
    const struct vv_args *a;
    struct demo_plan plan;
    struct vv_child child;
    struct vv_client *c;
    char dir[400];
    bool keep, colour, tty;
    int64_t row_ms[VV_STRATA_ROWS_MAX + 1]; /* rows of the picture */
    int rows;
    struct vv_stratum strata[PARTS_MAX];
    struct vv_part_ref *parts;
    size_t n;
};

/* ---- saying ---- */

static void step(struct demo *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void step(struct demo *d, const char *fmt, ...)
{
    va_list ap;
    printf("\n%s", d->colour ? "\033[1m▸ " : "▸ ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    puts(d->colour ? "\033[0m" : "");
    fflush(stdout);
}

static const char *date_of(int64_t ms, char out[24])
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, 24, "%Y-%m-%d", &tm);
    return out;
}

static double seconds_since(int64_t us)
{
    return (double)(vv_mono_us(&vv_env_posix) - us) / 1e6;
}

/* ---- the plan ---- */

static int make_plan(struct demo *d)
{
    const struct vv_args *a = d->a;
    int64_t seed, days, stations, partitions, seconds;
    if (!vv_arg_number(a, "seed", 42, 0, INT64_MAX, &seed) ||
        !vv_arg_number(a, "days", 180, 14, 3650, &days) ||
        !vv_arg_number(a, "stations", 30, 6, EV_STATIONS_MAX, &stations) ||
        !vv_arg_number(a, "partitions", 4, 1, PARTS_MAX, &partitions) ||
        !vv_arg_number(a, "seconds", 20, 1, 86400, &seconds))
        return VV_EXIT_USAGE;
    d->plan = (struct demo_plan){.seed = (uint64_t)seed,
                                 .stations = (int)stations,
                                 .partitions = (int)partitions,
                                 .seconds = (int)seconds};
    d->plan.to_ms = vv_wall_ms(&vv_env_posix) / DAY_MS * DAY_MS;
    d->plan.from_ms = d->plan.to_ms - days * DAY_MS;
    struct ev_story *s =
        ev_story_new(d->plan.seed, d->plan.stations, d->plan.from_ms, d->plan.to_ms);
    struct ev_event *ev = malloc(sizeof *ev);
    while (s && ev && ev_story_next(s, ev)) {
        d->plan.events++;
        d->plan.bytes += (int64_t)ev->json_n;
        if (ev->type == EV_ENDED) d->plan.site_wh[ev->site] += ev->session_wh;
    }
    bool ok = s && ev;
    ev_story_free(s);
    free(ev);
    d->rows = (int)VV_MIN(VV_MAX(days / 7, 7), 26);
    for (int r = 0; r <= d->rows; r++)
        d->row_ms[r] = d->plan.from_ms + (d->plan.to_ms - d->plan.from_ms) * r / d->rows;
    return ok ? 0 : vv_cli_fail(a, "out of memory");
}

/* ---- the broker ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *w)
{
    (void)st;
    (void)type;
    (void)w;
    return remove(path);
}

static int make_dir(struct demo *d)
{
    const char *given = vv_arg(d->a, "dir"), *tmp = getenv("TMPDIR");
    if (given) {
        d->keep = true;
        snprintf(d->dir, sizeof d->dir, "%s", given);
        int rc = vv_fs_mkdirs(&vv_env_posix, given);
        return rc ? vv_cli_fail(d->a, "cannot make %s: %s", given, vv_err_name(rc)) : 0;
    }
    d->keep = vv_arg_given(d->a, "keep");
    snprintf(d->dir, sizeof d->dir, "%s/varve-demo-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(d->dir)) {
        vv_cli_fail(d->a, "cannot make a directory %s", d->dir);
        d->dir[0] = 0;
        return VV_EXIT_FAILED;
    }
    return 0;
}

static int start_broker(struct demo *d)
{
    char data[450], log[450], tier[512];
    struct vv_error e = {0};
    size_t given;
    const char **user = vv_arg_all(d->a, "set", &given), *url = vv_arg(d->a, "tier");
    const char *own[] = {data,
                         "listeners=PLAINTEXT://127.0.0.1:0",
                         "metrics.listener=127.0.0.1:0",
                         "group.initial.rebalance.delay.ms=0",
                         "offsets.topic.num.partitions=4",
                         "log.retention.check.interval.ms=1000",
                         "log.segment.delete.delay.ms=0",
                         tier};
    size_t n = VV_COUNT(own) - (url ? 0 : 1);
    const char **all = calloc(n + given, sizeof *all);
    int64_t began = vv_mono_us(&vv_env_posix);
    if (!all || !user) {
        free(all);
        free(user);
        return vv_cli_fail(d->a, "out of memory");
    }
    snprintf(data, sizeof data, "data.dir=%s", d->dir);
    snprintf(log, sizeof log, "%s/broker.log", d->dir);
    snprintf(tier, sizeof tier, "tier.url=%s", url ? url : "");
    memcpy(all, own, n * sizeof *all);
    memcpy(all + n, user, given * sizeof *all);
    int rc = vv_child_start(all, n + given, log, &d->child, &e);
    double took = seconds_since(began);
    free(all);
    free(user);
    if (!rc) rc = vv_client_open(d->child.bootstrap, "varve-demo", &d->c, &e);
    if (rc) {
        d->keep = true;
        return vv_cli_fail(d->a, "%s", e.text);
    }
    step(d, "A broker of our own");
    printf("  varve broker, ready in %.0f ms on %s\n  local disk: %s/log\n  bucket:     %s\n",
           took * 1e3, d->child.bootstrap, d->dir,
           url ? url : "a directory that stands in for S3 (tier.url=fs:…/tier)");
    return 0;
}

static int make_topic(struct demo *d)
{
    struct vv_error e = {0};
    char segment[16];
    snprintf(segment, sizeof segment, "%d", SEGMENT_BYTES);
    const struct vv_admin_pair configs[] = {
        {(char *)(uintptr_t) "segment.bytes", segment},
        {(char *)(uintptr_t) "retention.ms", "-1"},
        {(char *)(uintptr_t) "local.retention.ms", "-2"},
        {(char *)(uintptr_t) "local.retention.bytes", "-2"},
    };
    int rc = vv_admin_create_topic(d->c, DEMO_TOPIC, d->plan.partitions, 1, configs,
                                   VV_COUNT(configs), &e);
    if (!rc) rc = vv_client_partitions(d->c, DEMO_TOPIC, &d->parts, &d->n, &e);
    if (rc) return vv_cli_fail(d->a, "%s", e.text);
    step(d, "Topic %s", DEMO_TOPIC);
    printf("  %d partitions; a segment closes at %d KiB and goes to the bucket; kept for ever\n",
           d->plan.partitions, SEGMENT_BYTES / 1024);
    return 0;
}

/* ---- live ---- */

static int charging_now(const struct demo_live *l)
{
    int n = 0;
    for (int i = 0; i < l->plan->stations; i++)
        n += atomic_load(&l->charging[i]);
    return n;
}

static void progress(struct demo *d, const struct demo_live *l, int64_t began)
{
    char date[24], bytes[32];
    double mwh = 0;
    for (int s = 0; s < EV_SITES; s++)
        mwh += (double)atomic_load(&l->site_wh[s]) / 1e6;
    int64_t produced = atomic_load(&l->produced), seen = atomic_load(&l->dashboard_seen);
    printf("%s  %s  %7" PRId64
           " events %9s %6.0f/s │ monitor: %2d of %d charging │ dashboard: %6.1f MWh, "
           "%" PRId64 " behind%s",
           d->tty ? "\r" : "", date_of(VV_MAX(atomic_load(&l->story_ms), d->plan.from_ms), date),
           produced, vv_human_bytes((double)atomic_load(&l->produced_bytes), bytes),
           (double)produced / VV_MAX(seconds_since(began), 0.001), charging_now(l),
           d->plan.stations, mwh, VV_MAX(produced - seen, 0), d->tty ? "   " : "\n");
    fflush(stdout);
}

static void show_sites(struct demo *d, const struct demo_live *l)
{
    printf("  What the dashboard counted (kWh by site):\n");
    for (int s = 0; s < EV_SITES; s++)
        printf("    %-16s %9.0f\n", ev_site_name(s), (double)atomic_load(&l->site_wh[s]) / 1e3);
    (void)d;
}

static int check_live(struct demo *d, const struct demo_live *l)
{
    int64_t all = d->plan.events;
    if (interrupted) return vv_cli_fail(d->a, "interrupted");
    if (l->produced != all || l->monitor_seen < all || l->dashboard_seen < all)
        return vv_cli_fail(d->a,
                           "%" PRId64 " of %" PRId64 " events produced, the monitor saw %" PRId64
                           ", the dashboard %" PRId64,
                           (int64_t)l->produced, all, (int64_t)l->monitor_seen,
                           (int64_t)l->dashboard_seen);
    for (int s = 0; s < EV_SITES; s++)
        if (l->site_wh[s] != d->plan.site_wh[s])
            return vv_cli_fail(
                d->a, "the dashboard counted %" PRId64 " Wh at %s; the stations delivered %" PRId64,
                (int64_t)l->site_wh[s], ev_site_name(s), d->plan.site_wh[s]);
    return 0;
}

static int live(struct demo *d)
{
    struct vv_error e = {0};
    struct demo_live *l = calloc(1, sizeof *l);
    char from[24], to[24];
    if (!l) return vv_cli_fail(d->a, "out of memory");
    step(d, "%d days of charging, told in %d seconds",
         (int)((d->plan.to_ms - d->plan.from_ms) / DAY_MS), d->plan.seconds);
    printf("  %d stations at %d sites, %s to %s, acks=all; a monitor (group of two) and a "
           "dashboard follow\n",
           d->plan.stations, EV_SITES, date_of(d->plan.from_ms, from), date_of(d->plan.to_ms, to));
    int64_t began = vv_mono_us(&vv_env_posix), shown = 0;
    int rc = demo_live_start(l, &d->plan, d->child.bootstrap, &e);
    int64_t limit_us = ((int64_t)d->plan.seconds * 3 + 30) * 1000000;
    while (!rc && !demo_live_done(l) && !interrupted &&
           vv_mono_us(&vv_env_posix) - began < limit_us) {
        poll(NULL, 0, 50);
        int64_t now = vv_mono_us(&vv_env_posix);
        if (now - shown > (d->tty ? 100000 : 4000000)) {
            progress(d, l, began);
            shown = now;
        }
    }
    double took = seconds_since(began);
    progress(d, l, began);
    int members =
        (atomic_load(&l->monitor_partitions[0]) > 0) + (atomic_load(&l->monitor_partitions[1]) > 0);
    int stopped = demo_live_stop(l, &e);
    printf("%s", d->tty ? "\n" : "");
    if (rc || stopped)
        rc = vv_cli_fail(d->a, "%s", e.text);
    else
        rc = check_live(d, l);
    if (!rc) {
        show_sites(d, l);
        printf("  Both groups saw all %" PRId64
               " events (the monitor's %d member%s), the energy adds up; %.1f s, "
               "%.1f ms per acknowledged request\n",
               d->plan.events, members, members == 1 ? "" : "s", took,
               (double)l->produce_us_sum / 1e3 / (double)VV_MAX((int64_t)l->produce_requests, 1));
    }
    pthread_mutex_destroy(&l->lock);
    free(l);
    return rc;
}

/* ---- the layers ---- */

static int ask_offsets(struct demo *d, int64_t at, struct vv_part_ref *rows, struct vv_error *e)
{
    for (size_t i = 0; i < d->n; i++) {
        rows[i] = d->parts[i];
        rows[i].timestamp = at;
    }
    int rc = vv_client_offsets(d->c, rows, d->n, e);
    for (size_t i = 0; i < d->n && !rc; i++)
        if (rows[i].err)
            rc = vv_error_set(e, rows[i].err, "ListOffsets(%" PRId64 ") of partition %d: %s", at,
                              rows[i].partition, vv_err_name(rows[i].err));
    return rc;
}

/* Start, local start, tiered end, end and bytes of every partition; no rows. */
static int look(struct demo *d, struct vv_error *e)
{
    struct vv_part_ref rows[PARTS_MAX];
    struct vv_admin_size *sizes;
    size_t sizes_n;
    static const int64_t special[] = {-2, -4, -5, -1};
    for (size_t k = 0; k < 4; k++) {
        int rc = ask_offsets(d, special[k], rows, e);
        if (rc) return rc;
        for (size_t i = 0; i < d->n; i++) {
            struct vv_stratum *s = &d->strata[i];
            s->partition = rows[i].partition;
            int64_t v = rows[i].offset;
            *(k == 0   ? &s->start
              : k == 1 ? &s->local_start
              : k == 2 ? &s->tiered_end
                       : &s->end) = k == 2 ? v + 1 : v; /* -5 is the last offset in the bucket */
        }
    }
    int rc = vv_admin_sizes(d->c, DEMO_TOPIC, &sizes, &sizes_n, e);
    for (size_t i = 0; i < d->n && !rc; i++)
        for (size_t k = 0; k < sizes_n; k++)
            if (sizes[k].partition == d->strata[i].partition) {
                d->strata[i].local_bytes = sizes[k].local;
                d->strata[i].remote_bytes = sizes[k].remote;
            }
    if (!rc) free(sizes);
    return rc;
}

static int draw(struct demo *d)
{
    struct vv_part_ref rows[PARTS_MAX];
    struct vv_error e = {0};
    int rc = look(d, &e);
    for (int r = 0; r <= d->rows && !rc; r++) {
        rc = ask_offsets(d, d->row_ms[r], rows, &e);
        for (size_t i = 0; i < d->n && !rc; i++)
            d->strata[i].at[r] = rows[i].offset < 0 ? d->strata[i].end : rows[i].offset;
    }
    if (rc) return vv_cli_fail(d->a, "%s", e.text);
    vv_strata_draw(stdout, d->strata, d->n, d->row_ms, d->rows, vv_terminal_width(1), d->colour);
    fflush(stdout);
    return 0;
}

/* Waits until every closed segment is in the bucket: until the tiered ends stand still for a
 * second. */
static int settle(struct demo *d, bool local, int seconds)
{
    struct vv_error e = {0};
    int64_t last = -1, still = vv_mono_ms(&vv_env_posix), until = still + seconds * 1000;
    while (!interrupted && vv_mono_ms(&vv_env_posix) < until) {
        int64_t sum = 0, above = 0;
        int rc = look(d, &e);
        if (rc) return vv_cli_fail(d->a, "%s", e.text);
        for (size_t i = 0; i < d->n; i++) {
            sum += local ? d->strata[i].local_start : d->strata[i].tiered_end;
            above += local ? d->strata[i].local_bytes > LOCAL_BYTES + SEGMENT_BYTES
                           : (d->strata[i].end - d->strata[i].tiered_end) * 700 > 3 * SEGMENT_BYTES;
        }
        if (sum != last) still = vv_mono_ms(&vv_env_posix);
        last = sum;
        if (!above && vv_mono_ms(&vv_env_posix) - still > 600) return 0;
        poll(NULL, 0, 100);
    }
    return interrupted ? vv_cli_fail(d->a, "interrupted") : 0;
}

static int let_go(struct demo *d)
{
    struct vv_error e = {0};
    char local[24], a[32], b[32];
    int64_t before = 0, after = 0, cold = 0, all = 0;
    snprintf(local, sizeof local, "%d", LOCAL_BYTES);
    const struct vv_admin_pair pair = {(char *)(uintptr_t) "local.retention.bytes", local};
    for (size_t i = 0; i < d->n; i++)
        before += d->strata[i].local_bytes;
    step(d, "Local copies go");
    printf("  varve topic alter %s --set local.retention.bytes=%s: what is safely in the bucket "
           "may leave the disk\n",
           DEMO_TOPIC, local);
    if (vv_admin_alter_topic(d->c, DEMO_TOPIC, &pair, 1, &e))
        return vv_cli_fail(d->a, "%s", e.text);
    int rc = settle(d, true, 20);
    if (rc) return rc;
    for (size_t i = 0; i < d->n; i++) {
        after += d->strata[i].local_bytes;
        cold += d->strata[i].local_start - d->strata[i].start;
        all += d->strata[i].end - d->strata[i].start;
    }
    printf("  local disk: %s → %s; %.0f %% of the events are only in the bucket now\n\n",
           vv_human_bytes((double)before, a), vv_human_bytes((double)after, b),
           100.0 * (double)cold / (double)VV_MAX(all, 1));
    if (!cold)
        return vv_cli_fail(d->a, "nothing became cold; the broker's messages are in %s",
                           d->child.log);
    return draw(d);
}

/* ---- back from the bucket ---- */

struct replay {
    const char *key;
    int64_t until_ms, events, sessions, wh, shown, seen, last_ms;
    bool done;
};

static int on_replay(void *ctx, int32_t partition, const struct vv_record *r)
{
    struct replay *p = ctx;
    size_t n;
    (void)partition;
    p->seen++;
    if (r->timestamp >= p->until_ms) {
        p->done = true;
        return 1;
    }
    if ((size_t)VV_MAX(r->key_n, 0) != strlen(p->key) || memcmp(r->key, p->key, strlen(p->key)))
        return 0;
    p->events++;
    const char *type = demo_field(r->value, r->value_n, "\"eventType\":\"", &n);
    const char *wh = demo_field(r->value, r->value_n, "\"sessionWh\":", &n);
    if (type && wh && *type == 'E') {
        char date[24];
        time_t t = (time_t)(r->timestamp / 1000);
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(date, sizeof date, "%a %d %b %H:%M", &tm);
        p->sessions++;
        p->wh += strtoll(wh, NULL, 10);
        if (p->shown++ < 4)
            printf("    %s  session ended, %5.1f kWh   (offset %" PRId64 ")\n", date,
                   (double)strtoll(wh, NULL, 10) / 1e3, r->offset);
    }
    return 0;
}

/* What the stations really sent in that week, from the story itself. */
static int64_t truth(const struct demo *d, const char *key, int64_t from, int64_t to)
{
    struct ev_story *s =
        ev_story_new(d->plan.seed, d->plan.stations, d->plan.from_ms, d->plan.to_ms);
    struct ev_event *ev = malloc(sizeof *ev);
    int64_t n = 0;
    while (s && ev && ev_story_next(s, ev))
        n += ev->time_ms >= from && ev->time_ms < to && !strcmp(ev->key, key);
    ev_story_free(s);
    free(ev);
    return n;
}

struct requests {
    double gets, bytes;
};

static struct requests store_requests(struct demo *d)
{
    return (struct requests){
        vv_child_metric(&d->child, "varve_tier_store_requests_total{op=\"get\"}"),
        vv_child_metric(&d->child, "varve_remote_fetch_bytes_total")};
}

static void say_requests(struct requests was, struct requests is)
{
    char bytes[32];
    if (was.gets < 0 || is.gets < was.gets) return;
    printf("  the bucket answered %.0f reads, %s\n", is.gets - was.gets,
           vv_human_bytes(VV_MAX(is.bytes - was.bytes, 0), bytes));
}

static int replay_station(struct demo *d)
{
    struct vv_error e = {0};
    char key[24], from_date[24], to_date[24], bytes_text[32];
    int64_t from = d->plan.from_ms + 7 * DAY_MS, to = from + 7 * DAY_MS, first, local_start = 0;
    size_t bytes = 0, n;
    ev_station_name(0, key);
    struct vv_part_ref part = d->parts[vv_client_partition_of(key, strlen(key), (int32_t)d->n)];
    for (size_t i = 0; i < d->n; i++)
        if (d->strata[i].partition == part.partition) local_start = d->strata[i].local_start;
    step(d, "One station's week, months ago");
    struct requests was = store_requests(d);
    int64_t began = vv_mono_us(&vv_env_posix);
    part.timestamp = from;
    int rc = vv_client_offsets(d->c, &part, 1, &e);
    double lookup_ms = seconds_since(began) * 1e3;
    first = part.offset;
    printf("  %s, %s to %s: partition %d, offset %" PRId64 " by timestamp (%.1f ms)\n", key,
           date_of(from, from_date), date_of(to, to_date), part.partition, first, lookup_ms);
    struct replay p = {.key = key, .until_ms = to};
    while (!rc && !p.done && !interrupted) {
        int64_t next;
        rc = vv_fetch_partition(d->c, &part, 1000, 1 << 20, on_replay, &p, &next, &n, &e);
        bytes += n;
        if (rc == 1) /* on_replay has seen enough */
            rc = 0;
        else if (!rc && next == part.offset && n == 0 && seconds_since(began) > 20)
            rc = vv_error_set(&e, VV_E_TIMEOUT, "no answer to the replay at offset %" PRId64, next);
        part.offset = next;
    }
    if (rc) return vv_cli_fail(d->a, "%s", e.text);
    double took_ms = seconds_since(began) * 1e3;
    int64_t want = truth(d, key, from, to);
    printf("    … %" PRId64 " sessions, %.1f kWh\n  %" PRId64
           " events of the station among %" PRId64
           " read (%s) in %.0f ms; the station sent %" PRId64 "\n",
           p.sessions, (double)p.wh / 1e3, p.events, p.seen,
           vv_human_bytes((double)bytes, bytes_text), took_ms, want);
    say_requests(was, store_requests(d));
    if (part.offset <= local_start)
        printf("  the local disk begins at offset %" PRId64 ": all of it came from the bucket\n",
               local_start);
    return p.events == want ? 0 : vv_cli_fail(d->a, "the replay is not what was sent");
}

struct whole {
    int64_t next, records, bytes;
};

static int on_whole(void *ctx, int32_t partition, const struct vv_record *r)
{
    struct whole *w = ctx;
    (void)partition;
    if (r->offset != w->next) return VV_E_CORRUPT;
    w->next++;
    w->records++;
    w->bytes += r->value_n;
    return 0;
}

static int read_all(struct demo *d)
{
    struct vv_error e = {0};
    int64_t records = 0, bytes = 0, began = vv_mono_us(&vv_env_posix);
    char text[32];
    step(d, "Everything, from offset 0");
    struct requests was = store_requests(d);
    for (size_t i = 0; i < d->n; i++) {
        struct vv_part_ref part = d->parts[i];
        struct whole w = {0};
        part.offset = 0;
        int64_t stalled = vv_mono_ms(&vv_env_posix);
        while (part.offset < d->strata[i].end && !interrupted) {
            int64_t next;
            size_t n;
            int rc = vv_fetch_partition(d->c, &part, 1000, 4 << 20, on_whole, &w, &next, &n, &e);
            if (rc == VV_E_CORRUPT)
                return vv_cli_fail(d->a, "partition %d: offset %" PRId64 " is not where it belongs",
                                   part.partition, w.next);
            if (rc) return vv_cli_fail(d->a, "%s", e.text);
            if (next != part.offset)
                stalled = vv_mono_ms(&vv_env_posix);
            else if (vv_mono_ms(&vv_env_posix) - stalled > 20000)
                return vv_cli_fail(d->a, "partition %d stands still at offset %" PRId64,
                                   part.partition, next);
            part.offset = next;
        }
        records += w.records;
        bytes += w.bytes;
    }
    double took = seconds_since(began);
    printf("  %" PRId64 " of %" PRId64
           " events, %s, in %.1f s: %.0f events/s, hot and cold alike\n",
           records, d->plan.events, vv_human_bytes((double)bytes, text), took,
           (double)records / VV_MAX(took, 0.001));
    say_requests(was, store_requests(d));
    if (records != d->plan.events || bytes != d->plan.bytes)
        return vv_cli_fail(d->a, "what came back is not what was sent");
    return 0;
}

static void farewell(struct demo *d)
{
    double puts_n = vv_child_metric(&d->child, "varve_remote_copy_requests_total");
    double put_bytes = vv_child_metric(&d->child, "varve_remote_copy_bytes_total");
    char text[32];
    if (puts_n >= 0)
        printf("\n  In all: %.0f segments uploaded, %s.\n", puts_n,
               vv_human_bytes(VV_MAX(put_bytes, 0), text));
    puts("\n  Next:\n"
         "    build/varve broker            a broker on 127.0.0.1:9092, everything under "
         "./varve-data\n"
         "    kcat -b 127.0.0.1:9092 -L     any Kafka client talks to it\n"
         "    make minio                    the same on a real S3 server, started here\n"
         "    varve topic describe T --tier where a topic's bytes lie\n"
         "    docs/                         how it works; config/CONFIGURATION.md: every key");
}

static int tell_story(struct demo *d)
{
    int rc = make_plan(d);
    if (!rc) rc = make_dir(d);
    if (!rc) rc = start_broker(d);
    if (!rc) rc = make_topic(d);
    if (!rc) rc = live(d);
    if (!rc) rc = settle(d, false, 20);
    if (!rc) {
        step(d, "The layers");
        puts("  Time runs upwards. Closed segments are in the bucket and still on the local "
             "disk.\n");
        rc = draw(d);
    }
    if (!rc) rc = let_go(d);
    if (!rc) rc = replay_station(d);
    if (!rc) rc = read_all(d);
    if (!rc) farewell(d);
    return rc;
}

static int run(const struct vv_args *a)
{
    struct demo *d = calloc(1, sizeof *d);
    if (!d) return vv_cli_fail(a, "out of memory");
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    d->a = a;
    d->tty = isatty(1);
    d->colour = d->tty && !getenv("NO_COLOR") && !vv_arg_given(a, "no-color");
    int rc = tell_story(d);
    vv_client_close(d->c);
    int code = vv_child_stop(&d->child);
    if (!rc && code)
        rc = vv_cli_fail(a, "the broker ended with code %d; its messages are in %s", code,
                         d->child.log);
    if (d->dir[0] && !d->keep && !rc)
        nftw(d->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    else if (d->dir[0])
        printf("\n  Kept: %s\n", d->dir);
    free(d->parts);
    free(d);
    return rc;
}

static const struct vv_opt opts[] = {
    {"seed", 0, "N", "Another story (default 42)."},
    {"days", 0, "N", "How far back it begins (default 180)."},
    {"stations", 0, "N", "Charging stations (default 30)."},
    {"partitions", 0, "N", "Partitions of the topic (default 4)."},
    {"seconds", 0, "N", "How long the telling takes (default 20)."},
    {"tier", 0, "URL", "Another bucket, s3://BUCKET/PREFIX, with --set tier.s3.… as it needs."},
    VV_OPT_SET,
    {"dir", 0, "DIR", "Where the broker keeps its data; kept afterwards."},
    {"keep", 'k', NULL, "Keep the temporary directory."},
    {"no-color", 0, NULL, "No colours, whatever the terminal can."},
    {0},
};

const struct vv_command vv_cmd_demo_ev = {
    .name = "demo ev",
    .words_max = 0,
    .summary = "See it work: months of EV charging go cold and come back, in about a minute.",
    .text = "Starts a broker of its own on a free port and a temporary directory, which are gone "
            "afterwards. Nothing\n"
            "else is needed: no S3, no network. Charging stations send OCPP-like events, a monitor "
            "and a dashboard\n"
            "follow as consumer groups, closed segments go to the bucket, local copies are let go, "
            "and one station's\n"
            "week, months ago, is read back from the bucket.",
    .opts = opts,
    .run = run,
};
