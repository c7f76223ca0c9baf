/* cmd_bench.c — `varve bench produce` and `varve bench machine`.
 *
 * Produce: a closed loop. Every connection keeps so many requests under way, each with one batch; the partitions of
 * its leader take turns. The run ends when the wanted bytes are sent and answered. One thread. */
#include "bench.h"
#include "table.h"

#include "varve/bytes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct produce {
    struct vv_bench b;
    struct vv_canned canned;
    size_t turn; /* next partition to look at */
    uint64_t wanted, sent, answered; /* requests */
};

static const struct vv_chain *next(void *ctx, struct vv_lane *l)
{
    struct produce *p = ctx;
    if (p->sent == p->wanted) return NULL;
    for (size_t i = 0; i < p->b.part_count; i++) {
        size_t at = p->turn++ % p->b.part_count;
        if (p->b.parts[at].leader != l->node) continue;
        p->sent++;
        return &p->canned.frame[at];
    }
    return NULL;
}

static int answer(void *ctx, struct vv_lane *l, const uint8_t *bytes, size_t n, struct vv_error *e)
{
    struct produce *p = ctx;
    (void)l;
    p->answered++;
    return vv_canned_answer(&p->b, bytes, n, e);
}

static bool finished(void *ctx)
{
    const struct produce *p = ctx;
    if (!p->b.replay.silent) return p->answered == p->wanted;
    bool sending = false;
    for (size_t i = 0; i < p->b.replay.count; i++)
        sending |= vv_lane_sending(&p->b.replay.lanes[i]);
    return p->sent == p->wanted && !sending;
}

static void progress(void *ctx, int64_t now_us)
{
    const struct produce *p = ctx;
    vv_bench_tell(&p->b, (p->b.replay.silent ? p->sent : p->answered) * p->canned.batch_bytes, now_us);
}

static const struct vv_replay_ops produce_ops = {.next = next, .answer = answer, .finished = finished,
                                                 .progress = progress};

static const struct vv_opt produce_opts[] = {
    VV_BENCH_OPTS,
    {"partitions", 'p', "N", "Create the topic with so many when it is not there; else it must have so many."},
    {"record-size", 0, "BYTES", "Value of a record (default 1024)."},
    {"batch-bytes", 0, "BYTES", "Of one batch, which is one request (default 65536)."},
    {"inflight", 'i', "N", "Requests under way per connection (default 5)."},
    {"acks", 'a', "N", "0, 1 (default) or -1."},
    {"mib", 'm', "N", "How much (default 512)."},
    {0},
};

static int run_produce(const struct vv_args *a)
{
    struct produce p = {0};
    struct vv_error e = {0};
    int64_t partitions, record, batch, inflight, acks, mib;
    if (!vv_arg_number(a, "partitions", 0, 1, 100000, &partitions) ||
        !vv_arg_number(a, "record-size", 1024, 1, 1 << 26, &record) ||
        !vv_arg_number(a, "batch-bytes", 65536, 1, 1 << 26, &batch) ||
        !vv_arg_number(a, "inflight", 5, 1, 10000, &inflight) || !vv_arg_number(a, "acks", 1, -1, 1, &acks) ||
        !vv_arg_number(a, "mib", 512, 1, INT32_MAX, &mib))
        return VV_EXIT_USAGE;
    int code = vv_bench_open(&p.b, a, "produce", partitions, 0);
    if (!code && vv_canned_produce(&p.b, record, batch, (int16_t)acks, &p.canned, &e)) code = vv_cli_fail(a, "%s",
        e.text);
    if (!code) {
        p.wanted = VV_MAX(1, ((uint64_t)mib << 20) / p.canned.batch_bytes);
        p.b.replay.inflight_max = (int)inflight;
        p.b.replay.silent = acks == 0;
        if (vv_bench_run(&p.b, &produce_ops, &p, &e)) code = vv_cli_fail(a, "%s", e.text);
    }
    if (!code) {
        vv_report_add(p.b.report, "result", "record size", "bytes", 0, (double)record);
        vv_report_add(p.b.report, "result", "batch size", "bytes", 0, (double)p.canned.batch_bytes);
        vv_report_add(p.b.report, "result", "requests under way", "", 0, (double)inflight);
        vv_report_add(p.b.report, "result", "acks", "", 0, (double)acks);
        code = vv_bench_report(&p.b, p.wanted * p.canned.batch_bytes, p.wanted * (uint64_t)p.canned.records,
                               "append, warm pages");
    }
    vv_canned_release(&p.canned);
    vv_bench_close(&p.b);
    return code;
}

const struct vv_command vv_cmd_bench_produce = {
    .name = "bench produce",
    .words_max = 0,
    .summary = "Throughput of appends: pre-encoded batches, any Kafka broker.",
    .text = "  varve bench produce --topic load --partitions 6 --mib 1024\n"
            "The client costs next to nothing: requests are encoded once and repeated, without a\n"
            "producer id. The probes say what the machine could do at that moment; bench/README.md tells how to\n"
            "compare honestly.",
    .opts = produce_opts,
    .run = run_produce,
};

/* ---- machine ---- */

static const struct vv_opt machine_opts[] = {VV_OPT_OUTPUT, {"dir", 0, "DIRECTORY",
                                                             "Where the disk probes write (default: here)."}, {0}};

static int run_machine(const struct vv_args *a)
{
    bool json;
    struct vv_error e = {0};
    if (!vv_table_wants_json(a, &json)) return VV_EXIT_USAGE;
    struct vv_report *r = vv_report_new("machine");
    if (!r) return vv_cli_fail(a, "out of memory");
    if (!vv_report_machine(r, vv_arg(a, "dir"), &e)) return vv_report_print(r, json);
    free(r);
    return vv_cli_fail(a, "%s", e.text);
}

const struct vv_command vv_cmd_bench_machine = {
    .name = "bench machine",
    .words_max = 0,
    .summary = "What this machine can do now: memory, CRC32C, loopback, append, fdatasync.",
    .opts = machine_opts,
    .run = run_machine,
};
