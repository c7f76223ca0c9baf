/* cmd_bench_latency.c — `varve bench latency`: an open loop at a given rate.
 *
 * Request i is due at begin + i * interval, whatever the broker does: when it falls behind, what waits is counted as
 * waiting ("coordinated omission" has no place here). A latency runs from the time a request was due to its answer;
 * what this client itself was late with writing it is reported beside it. The first part of the run is sent, but not
 * counted. One thread. */
#include "bench.h"

#include "varve/bytes.h"
#include "varve/env.h"

#include <stdlib.h>

struct due { /* of one connection: requests in order; [answered, sent) are under way, [sent, due) wait for their turn */
    int64_t *at_us;
    size_t answered, sent, due, max;
};
struct latency {
    struct vv_bench b;
    struct vv_canned canned;
    struct due *lanes;
    uint64_t wanted, made, answered, counted_from;
    double interval_us;
    int64_t begin_us;
    size_t *turn; /* per connection: next partition */
    struct vv_hist answers, writes;
    struct vv_error *e;
    int failed;
};

static int64_t due_at(const struct latency *t, uint64_t i)
{
    return t->begin_us + (int64_t)((double)i * t->interval_us);
}

static bool counts(const struct latency *t, int64_t due_us)
{
    return due_us >= due_at(t, t->counted_from);
}

static const struct vv_chain *next(void *ctx, struct vv_lane *l)
{
    struct latency *t = ctx;
    struct due *d = &t->lanes[l->index];
    if (d->sent == d->due) return NULL;
    int64_t due_us = d->at_us[d->sent++];
    if (counts(t, due_us)) vv_hist_add(&t->writes, (uint64_t)VV_MAX(vv_mono_us(&vv_env_posix) - due_us, 0));
    for (;;) { /* every connection goes to a leader, so one of the partitions is its own */
        size_t at = t->turn[l->index]++ % t->b.part_count;
        if (t->b.parts[at].leader == l->node) return &t->canned.frame[at];
    }
}

static int answer(void *ctx, struct vv_lane *l, const uint8_t *p, size_t n, struct vv_error *e)
{
    struct latency *t = ctx;
    struct due *d = &t->lanes[l->index];
    int64_t due_us = d->at_us[d->answered++];
    t->answered++;
    if (counts(t, due_us)) vv_hist_add(&t->answers, (uint64_t)VV_MAX(vv_mono_us(&vv_env_posix) - due_us, 0));
    return vv_canned_answer(&t->b, p, n, e);
}

static void due(void *ctx)
{
    struct latency *t = ctx;
    int64_t now = vv_mono_us(&vv_env_posix);
    while (t->made < t->wanted && due_at(t, t->made) <= now) {
        size_t lane = (size_t)(t->made % (uint64_t)t->b.connections);
        struct due *d = &t->lanes[lane];
        d->at_us[d->due++] = due_at(t, t->made++);
        if (!t->failed) t->failed = vv_replay_kick(&t->b.replay.lanes[lane], t->e);
    }
    if (t->made < t->wanted) vv_replay_wake_at(&t->b.replay, due_at(t, t->made));
}

static bool finished(void *ctx)
{
    struct latency *t = ctx;
    if (!t->begin_us) { /* the first turn: the clock starts with everything connected */
        t->begin_us = vv_mono_us(&vv_env_posix) + 1000;
        vv_replay_wake_at(&t->b.replay, t->begin_us);
    }
    return t->answered == t->wanted || t->failed;
}

static void progress(void *ctx, int64_t now_us)
{
    const struct latency *t = ctx;
    vv_bench_tell(&t->b, t->answered * t->canned.batch_bytes, now_us);
}

static const struct vv_replay_ops ops = {.next = next, .answer = answer, .finished = finished, .due = due,
                                         .progress = progress};

static int prepare(struct latency *t)
{
    size_t lanes = (size_t)t->b.connections, each = (size_t)(t->wanted / lanes + 1);
    t->lanes = calloc(lanes, sizeof *t->lanes);
    t->turn = calloc(lanes, sizeof *t->turn);
    for (size_t i = 0; t->lanes && t->turn && i < lanes; i++) {
        t->turn[i] = i; /* not all begin with the same partition */
        t->lanes[i].at_us = calloc(each, sizeof(int64_t));
        if (!t->lanes[i].at_us) return VV_E_NOMEM;
    }
    return t->lanes && t->turn ? 0 : VV_E_NOMEM;
}

static void add_rows(struct vv_report *r, const struct latency *t)
{
    static const struct {
        const char *name;
        double q;
    } qs[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}};
    for (size_t i = 0; i < VV_COUNT(qs); i++)
        vv_report_add(r, "latency", qs[i].name, "us", 0, (double)vv_hist_at(&t->answers, qs[i].q));
    vv_report_add(r, "latency", "mean", "us", 1, vv_hist_mean(&t->answers));
    vv_report_add(r, "latency", "requests counted", "", 0, (double)t->answers.count);
    vv_report_add(r, "latency", "client wrote late, p50", "us", 0, (double)vv_hist_at(&t->writes, 0.5));
    vv_report_add(r, "latency", "client wrote late, p99", "us", 0, (double)vv_hist_at(&t->writes, 0.99));
}

static const struct vv_opt opts[] = {
    VV_BENCH_OPTS,
    {"partitions", 'p', "N", "Create the topic with so many when it is not there; else it must have so many."},
    {"rate", 'r', "N", "Records per second (default 20000)."},
    {"record-size", 0, "BYTES", "Value of a record (default 1024)."},
    {"batch-bytes", 0, "BYTES", "Of one batch, which is one request (default 16384)."},
    {"acks", 'a', "N", "1 (default) or -1."},
    {"seconds", 0, "N", "How long, after a second that is not counted (default 10)."},
    {0},
};

static int measure(struct latency *t, int64_t rate, int64_t seconds, struct vv_error *e)
{
    double per_s = (double)rate / t->canned.records;
    t->interval_us = 1e6 / per_s;
    t->wanted = (uint64_t)VV_MAX(per_s * (double)(seconds + 1), 1);
    t->counted_from = (uint64_t)per_s;
    t->b.replay.inflight_max = INT32_MAX; /* an open loop waits for nobody */
    t->e = e;
    int rc = prepare(t);
    if (rc) return vv_error_set(e, rc, "out of memory for %llu requests", (unsigned long long)t->wanted);
    rc = vv_bench_run(&t->b, &ops, t, e);
    return rc ? rc : t->failed;
}

static int run(const struct vv_args *a)
{
    struct latency *t = calloc(1, sizeof *t);
    struct vv_error e = {0};
    int64_t partitions, rate, record, batch, acks, seconds;
    if (!t) return vv_cli_fail(a, "out of memory");
    int code = VV_EXIT_USAGE;
    if (vv_arg_number(a, "partitions", 0, 1, 100000, &partitions) && vv_arg_number(a, "rate", 20000, 1, 10000000,
        &rate) &&
        vv_arg_number(a, "record-size", 1024, 1, 1 << 26, &record) && vv_arg_number(a, "batch-bytes", 16384, 1,
            1 << 26, &batch) &&
        vv_arg_number(a, "acks", 1, -1, 1, &acks) && vv_arg_number(a, "seconds", 10, 1, 3600, &seconds))
        code = acks ? vv_bench_open(&t->b, a, "latency", partitions, 0) : vv_cli_usage(a,
            "--acks 0 has no answer to wait for");
    if (!code && (vv_canned_produce(&t->b, record, batch, (int16_t)acks, &t->canned, &e) || measure(t, rate, seconds,
        &e)))
        code = vv_cli_fail(a, "%s", e.text);
    if (!code) {
        add_rows(t->b.report, t);
        vv_report_add(t->b.report, "result", "rate wanted", "records/s", 0, (double)rate);
        vv_report_add(t->b.report, "result", "batch size", "bytes", 0, (double)t->canned.batch_bytes);
        vv_report_add(t->b.report, "result", "acks", "", 0, (double)acks);
        code = vv_bench_report(&t->b, t->answered * t->canned.batch_bytes, t->answered * (uint64_t)t->canned.records,
                               NULL);
    }
    for (int64_t i = 0; t->lanes && i < t->b.connections; i++)
        free(t->lanes[i].at_us);
    free(t->lanes);
    free(t->turn);
    vv_canned_release(&t->canned);
    vv_bench_close(&t->b);
    free(t);
    return code;
}

const struct vv_command vv_cmd_bench_latency = {
    .name = "bench latency",
    .words_max = 0,
    .summary = "Latency of appends at a given rate, from the time each was due.",
    .text = "  varve bench latency --topic load --rate 20000 --seconds 10\n"
            "An open loop: a broker that falls behind does not slow the questions down, and what waits\n"
            "is counted as waiting.",
    .opts = opts,
    .run = run,
};
