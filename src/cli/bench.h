/* bench.h — what the `varve bench` commands share: the topic and its leaders, canned Produce requests, the report. */
#ifndef VARVE_CLI_BENCH_H
#define VARVE_CLI_BENCH_H
#include "admin.h"
#include "histogram.h"
#include "replay.h"

#define VV_BENCH_OPTS \
    VV_OPT_BOOTSTRAP, VV_OPT_OUTPUT, \
        {"topic", 't', "NAME", "The topic; required."}, \
        {"connections", 'c', "N", "Connections (default 4)."}, \
        {"broker-pid", 0, "PID", "The broker's process, when it is on this machine: its CPU time is reported."}, \
        {"no-machine", 0, NULL, "Leave the machine's probes out (they take some seconds)."}, \
        {"dir", 0, "DIRECTORY", "Where the disk probes write (default: here)."}

/* ---- a report: rows of sections, as text or JSON ---- */
struct vv_report;
struct vv_report *vv_report_new(const char *what);
/* Rows appear in this order; the text has `digits` decimals, JSON the number as it is. unit "" = none. */
void vv_report_add(struct vv_report *r, const char *section, const char *key, const char *unit, int digits,
                   double value);
void vv_report_text(struct vv_report *r, const char *section, const char *key, const char *value);
int vv_report_print(struct vv_report *r, bool json); /* to stdout, and frees it; 0 or VV_EXIT_FAILED */
int vv_report_machine(struct vv_report *r, const char *dir, struct vv_error *e);
/* runs the probes; section "machine" */
double vv_report_value(const struct vv_report *r, const char *section, const char *key); /* 0 = not there */

/* ---- a run ---- */
struct vv_bench {
    const struct vv_args *args;
    const char *topic;
    bool json, tty;
    struct vv_client *client;
    struct vv_part_ref *parts; /* all partitions of the topic */
    size_t part_count;
    int64_t connections, broker_pid;
    int32_t *nodes; /* a leader for each connection */
    int16_t version; /* of the requests */
    struct vv_report *report;
    struct vv_replay replay;
    int64_t began_us, ended_us;
    double broker_cpu, own_cpu; /* at the beginning, then spent */
};
/* Options, client, topic (created with so many partitions when it is not there and partitions > 0), leaders. An exit
 * code, after a message; vv_bench_close in any case. key: of the API that will be used. */
int vv_bench_open(struct vv_bench *b, const struct vv_args *a, const char *what, int64_t partitions, int16_t key);
/* Connects, runs, takes the times. 0 or an error in *e. */
int vv_bench_run(struct vv_bench *b, const struct vv_replay_ops *ops, void *ctx, struct vv_error *e);
/* Throughput, CPU and machine rows; prints. `payload`: bytes of batches that were moved. */
int vv_bench_report(struct vv_bench *b, uint64_t payload, uint64_t records, const char *limit);
void vv_bench_close(struct vv_bench *b);
double vv_bench_own_cpu(void); /* seconds of this process so far */
double vv_bench_seconds(const struct vv_bench *b);
void vv_bench_tell(const struct vv_bench *b, uint64_t bytes, int64_t now_us); /* a progress line, on a terminal */

/* ---- canned Produce requests: one per partition, all of them share the bytes of one batch ---- */
struct vv_canned {
    struct vv_chain *frame; /* per partition */
    size_t count;
    size_t batch_bytes;
    int32_t records;
};
int vv_canned_produce(struct vv_bench *b, int64_t record_size, int64_t batch_bytes, int16_t acks, struct vv_canned *out,
                      struct vv_error *e);
void vv_canned_release(struct vv_canned *c);
/* A Produce response's first error; 0 or a code with *e. */
int vv_canned_answer(const struct vv_bench *b, const uint8_t *p, size_t n, struct vv_error *e);
#endif
