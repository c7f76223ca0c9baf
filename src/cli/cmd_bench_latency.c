/* cmd_bench_latency.c — `varve bench latency`: an open loop at a given rate.
 *
 * Request i is due at begin + i * interval, whatever the broker does: when it falls behind, what waits is counted as
 * waiting ("coordinated omission" has no place here). A latency runs from the time a request was due to its answer;
 * what this client itself was late with writing it is reported beside it. The first part of the run is sent, but not
 * counted.
 *
 * --end-to-end: as many connections more follow the ends of the partitions, and the time until a batch has come back
 * is told too. Request i goes to partition i modulo their number, always on the same connection, so the k-th batch
 * behind a partition's end is known without a mark in it; a foreign producer is found out by its batches' size.
 * One thread. */
#include "bench.h"

#include "varve/bytes.h"
#include "varve/env.h"
#include "varve/log.h"

#include <inttypes.h>
#include <stdlib.h>

struct request {
    int64_t due_us;
    size_t part;
};
struct due { /* of one connection: requests in order; [answered, sent) are under way, [sent, due) wait for their turn */
    struct request *v;
    size_t answered, sent, due;
};
struct follower { /* a connection that reads */
    struct vv_chain frame;
    struct FetchRequest_FetchPartition *asked;
    bool waits; /* a Fetch is under way */
};
struct end { /* of a partition, where its reader is */
    int64_t from, next;
    size_t lane;
};
struct latency {
    struct vv_bench b;
    struct vv_canned canned;
    struct due *lanes;
    size_t producers; /* connections that send; those behind them follow */
    uint64_t wanted, made, answered, counted_from;
    double interval_us;
    int64_t begin_us;
    size_t *turn; /* per connection: next partition */
    struct vv_hist answers, writes, arrivals;
    struct vv_error *e;
    int failed;
    bool end_to_end;
    struct follower *followers;
    struct end *ends;
    uint64_t arrived;
    int16_t fetch_version;
};

static int64_t due_at(const struct latency *t, uint64_t i)
{
    return t->begin_us + (int64_t)((double)i * t->interval_us);
}

static bool counts(const struct latency *t, int64_t due_us)
{
    return due_us >= due_at(t, t->counted_from);
}

/* ---- following the ends ---- */

static const struct vv_chain *ask(struct latency *t, struct vv_lane *l)
{
    struct follower *f = &t->followers[l->index - t->producers];
    struct FetchRequest q;
    struct FetchRequest_FetchTopic topic;
    int32_t n = 0;
    if (f->waits) return NULL;
    for (size_t i = 0; i < t->b.part_count; i++) {
        if (t->ends[i].lane != l->index) continue;
        VV_STRUCT_INIT(FetchRequest_FetchPartition, &f->asked[n]);
        f->asked[n].Partition = t->b.parts[i].partition;
        f->asked[n].FetchOffset = t->ends[i].next;
        f->asked[n++].PartitionMaxBytes = 1 << 20;
    }
    if (!n) return NULL;
    VV_MSG_INIT(FetchRequest, &q);
    VV_STRUCT_INIT(FetchRequest_FetchTopic, &topic);
    topic.Topic = vv_str_c(t->b.topic);
    topic.Partitions.v = f->asked;
    topic.Partitions.n = n;
    q.ReplicaId = -1;
    q.MaxWaitMs = 500;
    q.MinBytes = 1;
    q.MaxBytes = 50 << 20;
    q.SessionEpoch = -1;
    q.Topics.v = &topic;
    q.Topics.n = 1;
    vv_chain_release(&f->frame);
    f->waits = !vv_replay_encode(1, t->fetch_version, &q, &f->frame);
    return f->waits ? &f->frame : NULL;
}

static int arrive(struct latency *t, size_t part, const uint8_t *p, size_t n, struct vv_error *e)
{
    struct end *end = &t->ends[part];
    int64_t now = vv_mono_us(&vv_env_posix);
    while (n >= VV_BATCH_HEADER) {
        size_t whole = (size_t)VV_MAX((int32_t)vv_get32(p + 8), 0) + VV_BATCH_OVERHEAD;
        int64_t base = (int64_t)vv_get64(p);
        if (whole > n) break;
        if (whole != t->canned.batch_bytes || base != end->next)
            return vv_error_set(e, VV_E_PROTO, "%s-%zu: the batch at offset %" PRId64 " is not one of ours: somebody else writes to the topic",
                                t->b.topic, part, base);
        uint64_t k = (uint64_t)(base - end->from) / (uint64_t)t->canned.records;
        int64_t due_us = due_at(t, part + k * t->b.part_count);
        if (counts(t, due_us)) vv_hist_add(&t->arrivals, (uint64_t)VV_MAX(now - due_us, 0));
        t->arrived++;
        end->next = base + t->canned.records;
        p += whole;
        n -= whole;
    }
    return 0;
}

static int arrivals(struct latency *t, struct vv_lane *l, const uint8_t *p, size_t n, struct vv_error *e)
{
    struct vv_arena arena;
    void *msg;
    vv_arena_init(&arena, 0);
    t->followers[l->index - t->producers].waits = false;
    int rc = vv_replay_decode(1, t->fetch_version, p, n, &arena, &msg);
    const struct FetchResponse *r = rc ? NULL : msg;
    if (rc) vv_error_set(e, rc, "a Fetch response that makes no sense: %s", vv_err_name(rc));
    for (int32_t i = 0; !rc && i < r->Responses.n; i++)
        for (int32_t k = 0; !rc && k < r->Responses.v[i].Partitions.n; k++) {
            const struct FetchResponse_PartitionData *d = &r->Responses.v[i].Partitions.v[k];
            if (d->ErrorCode || d->PartitionIndex < 0 || (size_t)d->PartitionIndex >= t->b.part_count)
                rc = vv_error_set(e, d->ErrorCode ? d->ErrorCode : VV_E_PROTO, "Fetch of %s-%d: %s", t->b.topic,
                                  d->PartitionIndex, vv_err_name(d->ErrorCode));
            else if (d->Records.n > 0)
                rc = arrive(t, (size_t)d->PartitionIndex, d->Records.p, (size_t)d->Records.n, e);
        }
    vv_arena_release(&arena);
    return rc;
}

/* ---- sending ---- */

static const struct vv_chain *next(void *ctx, struct vv_lane *l)
{
    struct latency *t = ctx;
    if (l->index >= t->producers) return ask(t, l);
    struct due *d = &t->lanes[l->index];
    if (d->sent == d->due) return NULL;
    const struct request *q = &d->v[d->sent++];
    if (counts(t, q->due_us)) vv_hist_add(&t->writes, (uint64_t)VV_MAX(vv_mono_us(&vv_env_posix) - q->due_us, 0));
    return &t->canned.frame[q->part];
}

static int answer(void *ctx, struct vv_lane *l, const uint8_t *p, size_t n, struct vv_error *e)
{
    struct latency *t = ctx;
    if (l->index >= t->producers) return arrivals(t, l, p, n, e);
    struct due *d = &t->lanes[l->index];
    int64_t due_us = d->v[d->answered++].due_us;
    t->answered++;
    if (counts(t, due_us)) vv_hist_add(&t->answers, (uint64_t)VV_MAX(vv_mono_us(&vv_env_posix) - due_us, 0));
    return vv_canned_answer(&t->b, p, n, e);
}

/* Where request i goes. Every connection leads to a leader, so one of the partitions is its own. */
static size_t lane_for(struct latency *t, uint64_t i, size_t *part)
{
    *part = (size_t)(i % t->b.part_count);
    if (t->end_to_end) return t->ends[*part].lane - t->producers;
    size_t lane = (size_t)(i % t->producers);
    do *part = t->turn[lane]++ % t->b.part_count;
    while (t->b.parts[*part].leader != t->b.nodes[lane]);
    return lane;
}

static void due(void *ctx)
{
    struct latency *t = ctx;
    int64_t now = vv_mono_us(&vv_env_posix);
    while (t->made < t->wanted && due_at(t, t->made) <= now) {
        size_t part, lane = lane_for(t, t->made, &part);
        struct due *d = &t->lanes[lane];
        d->v[d->due++] = (struct request){due_at(t, t->made++), part};
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
    return (t->answered == t->wanted && (!t->end_to_end || t->arrived == t->wanted)) || t->failed;
}

static void progress(void *ctx, int64_t now_us)
{
    const struct latency *t = ctx;
    vv_bench_tell(&t->b, t->answered * t->canned.batch_bytes, now_us);
}

static const struct vv_replay_ops ops = {.next = next, .answer = answer, .finished = finished, .due = due,
                                         .progress = progress};

static int prepare_followers(struct latency *t, struct vv_error *e)
{
    struct vv_bench *b = &t->b;
    size_t lanes = t->producers, turn = 0;
    int32_t *nodes = realloc(b->nodes, 2 * lanes * sizeof *nodes);
    if (nodes) b->nodes = nodes;
    t->ends = calloc(b->part_count, sizeof *t->ends);
    t->followers = calloc(lanes, sizeof *t->followers);
    if (!nodes || !t->ends || !t->followers) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    for (size_t i = 0; i < lanes; i++) {
        nodes[lanes + i] = nodes[i];
        t->followers[i].asked = calloc(b->part_count, sizeof *t->followers[i].asked);
        if (!t->followers[i].asked) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    }
    b->connections = (int64_t)(2 * lanes);
    t->fetch_version = vv_client_version(b->client, nodes[0], 1);
    for (size_t i = 0; i < b->part_count; i++) b->parts[i].timestamp = -1;
    int rc = vv_client_offsets(b->client, b->parts, b->part_count, e);
    for (size_t i = 0; i < b->part_count && !rc; i++) {
        if (b->parts[i].err)
            return vv_error_set(e, b->parts[i].err, "%s-%zu: %s", b->topic, i, vv_err_name(b->parts[i].err));
        while (nodes[turn % lanes] != b->parts[i].leader) turn++;
        t->ends[i] = (struct end){b->parts[i].offset, b->parts[i].offset, lanes + turn++ % lanes};
    }
    return rc;
}

/* How many of the requests connection `lane` will send, at most. */
static size_t share_of(const struct latency *t, size_t lane)
{
    size_t parts = 0;
    if (!t->end_to_end) return (size_t)(t->wanted / t->producers) + 1;
    for (size_t i = 0; i < t->b.part_count; i++) parts += t->ends[i].lane == t->producers + lane;
    return ((size_t)(t->wanted / t->b.part_count) + 1) * parts;
}

static int prepare(struct latency *t, struct vv_error *e)
{
    size_t lanes = t->producers = (size_t)t->b.connections;
    int rc = t->end_to_end ? prepare_followers(t, e) : 0;
    if (rc) return rc;
    t->lanes = calloc(lanes, sizeof *t->lanes);
    t->turn = calloc(lanes, sizeof *t->turn);
    bool there = t->lanes && t->turn;
    for (size_t i = 0; there && i < lanes; i++) {
        t->turn[i] = i; /* not all begin with the same partition */
        t->lanes[i].v = calloc(share_of(t, i) + 1, sizeof *t->lanes[i].v);
        there = t->lanes[i].v;
    }
    return there ? 0 : vv_error_set(e, VV_E_NOMEM, "out of memory for %" PRIu64 " requests", t->wanted);
}

static void add_hist(struct vv_report *r, const char *section, const struct vv_hist *h)
{
    static const struct {
        const char *name;
        double q;
    } qs[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}};
    for (size_t i = 0; i < VV_COUNT(qs); i++)
        vv_report_add(r, section, qs[i].name, "us", 0, (double)vv_hist_at(h, qs[i].q));
    vv_report_add(r, section, "mean", "us", 1, vv_hist_mean(h));
}

static void add_rows(struct vv_report *r, const struct latency *t)
{
    add_hist(r, "latency", &t->answers);
    vv_report_add(r, "latency", "requests counted", "", 0, (double)t->answers.count);
    vv_report_add(r, "latency", "client wrote late, p50", "us", 0, (double)vv_hist_at(&t->writes, 0.5));
    vv_report_add(r, "latency", "client wrote late, p99", "us", 0, (double)vv_hist_at(&t->writes, 0.99));
    if (t->end_to_end) add_hist(r, "end to end", &t->arrivals);
}

static const struct vv_opt opts[] = {
    VV_BENCH_OPTS,
    {"partitions", 'p', "N", "Create the topic with so many when it is not there; else it must have so many."},
    {"rate", 'r', "N", "Records per second (default 20000)."},
    {"record-size", 0, "BYTES", "Value of a record (default 1024)."},
    {"batch-bytes", 0, "BYTES", "Of one batch, which is one request (default 16384)."},
    {"acks", 'a', "N", "1 (default) or -1."},
    {"end-to-end", 'e', NULL, "Follow the partitions too: the time from due until a batch has come back."},
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
    int rc = prepare(t, e);
    if (rc) return rc;
    rc = vv_bench_run(&t->b, &ops, t, e);
    return rc ? rc : t->failed;
}

static void release(struct latency *t)
{
    for (size_t i = 0; t->lanes && i < t->producers; i++) free(t->lanes[i].v);
    for (size_t i = 0; t->followers && i < t->producers; i++) {
        vv_chain_release(&t->followers[i].frame);
        free(t->followers[i].asked);
    }
    free(t->lanes);
    free(t->turn);
    free(t->followers);
    free(t->ends);
}

static int run(const struct vv_args *a)
{
    struct latency *t = calloc(1, sizeof *t);
    struct vv_error e = {0};
    int64_t partitions, rate, record, batch, acks, seconds;
    if (!t) return vv_cli_fail(a, "out of memory");
    t->end_to_end = vv_arg_given(a, "end-to-end");
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
    release(t);
    vv_canned_release(&t->canned);
    vv_bench_close(&t->b);
    free(t);
    return code;
}

const struct vv_command vv_cmd_bench_latency = {
    .name = "bench latency",
    .words_max = 0,
    .summary = "Latency of appends, and end to end, at a given rate, from the time each was due.",
    .text = "  varve bench latency --topic load --rate 20000 --seconds 10\n"
            "An open loop: a broker that falls behind does not slow the questions down, and what waits\n"
            "is counted as waiting. With --end-to-end nobody else may write to the topic meanwhile.",
    .opts = opts,
    .run = run,
};
