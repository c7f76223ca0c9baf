/* bench.c — from options to a run and from a run to rows: what the `varve bench` commands have in common.
 *
 * Connections are spread over the leaders of the topic's partitions, so that every request goes to who can answer
 * it. All canned requests of a run share one batch: its bytes stay in the cache, and memory does not grow with the
 * partitions. One thread. */
#include "bench.h"
#include "table.h"

#include "varve/bytes.h"
#include "varve/env.h"
#include "varve/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define SHARED ((size_t)1 << 10)

/* ---- CPU time ---- */

double vv_bench_own_cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static bool process_cpu(int64_t pid, double *out)
{
    char path[64], line[1024];
    unsigned long long user, system;
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(line, 1, sizeof line - 1, f) : 0;
    if (f) fclose(f);
    line[n] = 0;
    const char *at = strrchr(line, ')'); /* the name may hold anything */
    if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
                      &system) != 2) return false;
    *out = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    return true;
}

/* ---- open ---- */

/* Leaders are named, and answer as such: Apache Kafka names them a moment before they do. */
static bool leaders_ready(struct vv_bench *b, int64_t partitions)
{
    struct vv_error ignored = {0};
    bool ready = b->part_count == (size_t)partitions;
    for (size_t i = 0; ready && i < b->part_count; i++) {
        ready = b->parts[i].leader >= 0;
        b->parts[i].timestamp = -1;
    }
    ready = ready && !vv_client_offsets(b->client, b->parts, b->part_count, &ignored);
    for (size_t i = 0; ready && i < b->part_count; i++)
        ready = !b->parts[i].err;
    return ready;
}

static int create_topic(struct vv_bench *b, int64_t partitions, struct vv_error *e)
{
    int rc = vv_admin_create_topic(b->client, b->topic, (int32_t)partitions, -1, NULL, 0, e);
    for (int tries = 0; !rc && tries < 200; tries++) {
        free(b->parts);
        rc = vv_client_partitions(b->client, b->topic, &b->parts, &b->part_count, e);
        if (!rc && leaders_ready(b, partitions)) return 0;
        if (rc == VV_UNKNOWN_TOPIC_OR_PARTITION || rc == VV_LEADER_NOT_AVAILABLE) rc = 0;
        usleep(50000);
    }
    return rc ? rc : vv_error_set(e, VV_E_TIMEOUT, "topic %s was created, but has no leaders yet", b->topic);
}

static int find_topic(struct vv_bench *b, int64_t partitions, struct vv_error *e)
{
    int rc = vv_client_partitions(b->client, b->topic, &b->parts, &b->part_count, e);
    if (rc == VV_UNKNOWN_TOPIC_OR_PARTITION && partitions > 0) {
        free(b->parts);
        b->parts = NULL;
        rc = create_topic(b, partitions, e);
    }
    if (!rc && partitions > 0 && b->part_count != (size_t)partitions)
        rc = vv_error_set(e, VV_E_CONFLICT,
                          "topic %s has %zu partitions, not %" PRId64 "; name a new topic or leave --partitions out",
                          b->topic, b->part_count, partitions);
    if (!rc && !b->part_count) rc = vv_error_set(e, VV_E_PROTO, "topic %s has no partitions", b->topic);
    for (size_t i = 0; i < b->part_count && !rc; i++)
        if (b->parts[i].leader < 0)
            rc = vv_error_set(e, VV_LEADER_NOT_AVAILABLE, "%s-%d has no leader", b->topic, b->parts[i].partition);
    return rc;
}

/* The distinct leaders in turn. */
static int spread(struct vv_bench *b, struct vv_error *e)
{
    size_t count = 0;
    int32_t *distinct = calloc(b->part_count + 1, sizeof *distinct);
    b->nodes = calloc((size_t)b->connections, sizeof *b->nodes);
    if (!distinct || !b->nodes) {
        free(distinct);
        return vv_error_set(e, VV_E_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < b->part_count; i++) {
        size_t k = 0;
        while (k < count && distinct[k] != b->parts[i].leader) k++;
        distinct[k] = b->parts[i].leader;
        count += k == count;
    }
    for (int64_t i = 0; i < b->connections; i++)
        b->nodes[i] = distinct[(size_t)i % count];
    free(distinct);
    if ((size_t)b->connections < count)
        return vv_error_set(e, VV_E_USAGE, "the topic has %zu leaders: give at least that many --connections", count);
    return 0;
}

int vv_bench_open(struct vv_bench *b, const struct vv_args *a, const char *what, int64_t partitions, int16_t key)
{
    struct vv_error e = {0};
    b->args = a;
    b->topic = vv_arg(a, "topic");
    b->tty = isatty(STDERR_FILENO);
    b->replay.epoll_fd = b->replay.timer_fd = -1;
    if (!b->topic) return vv_cli_usage(a, "--topic is missing");
    if (!vv_table_wants_json(a, &b->json) || !vv_arg_number(a, "connections", 4, 1, 100000, &b->connections) ||
        !vv_arg_number(a, "broker-pid", 0, 1, INT32_MAX, &b->broker_pid))
        return VV_EXIT_USAGE;
    if (b->broker_pid && !process_cpu(b->broker_pid, &b->broker_cpu))
        return vv_cli_usage(a, "--broker-pid %" PRId64 ": there is no such process here", b->broker_pid);
    b->report = vv_report_new(what);
    b->client = b->report ? vv_admin_open(a) : NULL;
    if (!b->client) return VV_EXIT_FAILED;
    int rc = find_topic(b, partitions, &e);
    if (!rc) rc = spread(b, &e);
    if (rc) return vv_cli_fail(a, "%s", e.text);
    b->version = vv_client_version(b->client, b->nodes[0], key);
    if (b->version < 0) return vv_cli_fail(a, "the broker does not serve this request in a version known here");
    /* The probes come first: what they write warms the memory, and the run finds the machine as they left it. */
    if (!vv_arg_given(a, "no-machine") && vv_report_machine(b->report, vv_arg(a, "dir"), &e)) return vv_cli_fail(a,
        "%s", e.text);
    return 0;
}

void vv_bench_close(struct vv_bench *b)
{
    vv_client_close(b->client);
    free(b->parts);
    free(b->nodes);
    free(b->report);
}

/* ---- run ---- */

int vv_bench_run(struct vv_bench *b, const struct vv_replay_ops *ops, void *ctx, struct vv_error *e)
{
    b->replay.ops = ops;
    b->replay.ctx = ctx;
    int rc = vv_replay_open(&b->replay, b->client, b->nodes, (size_t)b->connections, e);
    if (rc) return rc;
    double broker = 0, own = vv_bench_own_cpu();
    if (b->broker_pid) process_cpu(b->broker_pid, &b->broker_cpu);
    b->began_us = vv_mono_us(&vv_env_posix);
    rc = vv_replay_run(&b->replay, e);
    b->ended_us = vv_mono_us(&vv_env_posix);
    b->own_cpu = vv_bench_own_cpu() - own;
    if (b->broker_pid && process_cpu(b->broker_pid, &broker)) b->broker_cpu = broker - b->broker_cpu;
    vv_replay_close(&b->replay);
    if (b->tty) fputs("\r\033[K", stderr);
    return rc;
}

double vv_bench_seconds(const struct vv_bench *b)
{
    return (double)VV_MAX(b->ended_us - b->began_us, 1) / 1e6;
}

void vv_bench_tell(const struct vv_bench *b, uint64_t bytes, int64_t now_us)
{
    char human[32];
    double s = (double)(now_us - b->began_us) / 1e6;
    if (b->tty) fprintf(stderr, "\r\033[K%s in %.1f s, %.0f MB/s", vv_human_bytes((double)bytes, human), s,
                        (double)bytes / s / 1e6);
}

int vv_bench_report(struct vv_bench *b, uint64_t payload, uint64_t records, const char *limit)
{
    struct vv_report *r = b->report;
    double s = vv_bench_seconds(b), gb = (double)payload / 1e9, rate = (double)payload / s / 1e6;
    vv_report_text(r, "result", "topic", b->topic);
    vv_report_add(r, "result", "partitions", "", 0, (double)b->part_count);
    vv_report_add(r, "result", "connections", "", 0, (double)b->connections);
    vv_report_add(r, "result", "request version", "", 0, b->version);
    vv_report_add(r, "result", "batch bytes moved", "MiB", 1, (double)payload / 1048576);
    vv_report_add(r, "result", "records", "", 0, (double)records);
    vv_report_add(r, "result", "seconds", "s", 3, s);
    vv_report_add(r, "result", "throughput", "MB/s", 1, rate);
    vv_report_add(r, "result", "record rate", "records/s", 0, (double)records / s);
    if (gb > 0) vv_report_add(r, "result", "client CPU", "s/GB", 3, b->own_cpu / gb);
    if (gb > 0 && b->broker_pid) vv_report_add(r, "result", "broker CPU", "s/GB", 3, b->broker_cpu / gb);
    double possible = limit ? vv_report_value(r, "machine", limit) : 0;
    if (possible > 0) {
        vv_report_text(r, "result", "seen beside", limit);
        vv_report_add(r, "result", "share of it", "", 2, rate / possible);
    }
    b->report = NULL;
    return vv_report_print(r, b->json);
}

/* ---- canned Produce ---- */

/* One batch of about batch_bytes: records of record_size bytes that do not compress, stamped now. */
static int build_batch(int64_t record_size, int64_t batch_bytes, struct vv_canned *out, struct vv_chain *batch)
{
    struct vv_batch_builder *bb = vv_batch_builder_new();
    uint8_t *value = malloc((size_t)record_size), *p = NULL;
    size_t n = 0;
    uint64_t x = 88172645463325252ull;
    int64_t now = vv_wall_ms(&vv_env_posix), count = VV_MAX(1, batch_bytes / (record_size + 10));
    int rc = bb && value ? 0 : VV_E_NOMEM;
    for (int64_t i = 0; i < count && !rc; i++) {
        for (int64_t k = 0; k < record_size; k++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            value[k] = (uint8_t)(x >> 32);
        }
        rc = vv_batch_builder_add(bb, now, NULL, -1, value, (int32_t)record_size);
    }
    if (!rc) rc = vv_batch_builder_finish(bb, &p, &n);
    struct vv_buf *buf = rc ? NULL : vv_buf_new(VV_MAX(n, SHARED));
    if (!rc && !buf) rc = VV_E_NOMEM;
    if (!rc) {
        memcpy(buf->data, p, n);
        rc = vv_chain_add(batch, buf, buf->data, n);
    }
    vv_buf_unref(buf);
    vv_batch_builder_free(bb);
    free(value);
    out->batch_bytes = n;
    out->records = (int32_t)count;
    return rc;
}

static int encode_one(const struct vv_bench *b, int32_t partition, int16_t acks, const struct vv_chain *batch,
                      struct vv_chain *out)
{
    struct ProduceRequest q;
    struct ProduceRequest_TopicProduceData t;
    struct ProduceRequest_PartitionProduceData d;
    VV_MSG_INIT(ProduceRequest, &q);
    VV_STRUCT_INIT(ProduceRequest_TopicProduceData, &t);
    VV_STRUCT_INIT(ProduceRequest_PartitionProduceData, &d);
    d.Index = partition;
    d.Records.chain = batch;
    t.Name = vv_str_c(b->topic);
    t.PartitionData.v = &d;
    t.PartitionData.n = 1;
    q.TransactionalId = VV_STR_NULL;
    q.Acks = acks;
    q.TimeoutMs = 30000;
    q.TopicData.v = &t;
    q.TopicData.n = 1;
    return vv_replay_encode(0, b->version, &q, out);
}

int vv_canned_produce(struct vv_bench *b, int64_t record_size, int64_t batch_bytes, int16_t acks, struct vv_canned *out,
                      struct vv_error *e)
{
    struct vv_chain batch = {0};
    *out = (struct vv_canned){.frame = calloc(b->part_count + 1, sizeof *out->frame), .count = b->part_count};
    int rc = out->frame ? build_batch(record_size, batch_bytes, out, &batch) : VV_E_NOMEM;
    for (size_t i = 0; i < b->part_count && !rc; i++)
        rc = encode_one(b, b->parts[i].partition, acks, &batch, &out->frame[i]);
    vv_chain_release(&batch);
    return rc ? vv_error_set(e, rc, "the requests cannot be built: %s", vv_err_name(rc)) : 0;
}

void vv_canned_release(struct vv_canned *c)
{
    for (size_t i = 0; c->frame && i < c->count; i++)
        vv_chain_release(&c->frame[i]);
    free(c->frame);
    c->frame = NULL;
}

int vv_canned_answer(const struct vv_bench *b, const uint8_t *p, size_t n, struct vv_error *e)
{
    struct vv_arena arena;
    void *msg;
    vv_arena_init(&arena, 0);
    int rc = vv_replay_decode(0, b->version, p, n, &arena, &msg);
    if (rc) {
        vv_error_set(e, rc, "a Produce response that makes no sense: %s", vv_err_name(rc));
    } else {
        const struct ProduceResponse *r = msg;
        bool one = r->Responses.n == 1 && r->Responses.v[0].PartitionResponses.n == 1;
        rc = one ? r->Responses.v[0].PartitionResponses.v[0].ErrorCode : VV_E_PROTO;
        if (rc) vv_error_set(e, rc, "the broker refused a batch: %s", vv_err_name(rc));
    }
    vv_arena_release(&arena);
    return rc;
}
