/* metrics.h — what the broker counts, and the page that shows it.
 *
 * One row of VV_METRICS makes the counter, its name, type and help. Anybody counts with
 * vv_count()/vv_gauge(): relaxed atomics, any thread. What is derived when somebody looks
 * (per-partition sizes, the tier's own counters) comes from the collect callback. Names:
 * varve_*_total | _bytes | _seconds; labels of low cardinality only.
 *
 * The server is libmicrohttpd on metrics.listener: one thread of its own, at most 32 connections,
 * GET /metrics (Prometheus text 0.0.4), /healthz, /readyz. The library is loaded when the server
 * starts and never when it is off. */
#ifndef VARVE_BROKER_METRICS_H
#define VARVE_BROKER_METRICS_H
#include "config.h"

#include <stdatomic.h>

/* X(field, "name", counter|gauge, scale: units per 1 of the page (1000000 for µs shown as
 * seconds), "help") */
#define VV_METRICS(X)                                                                              \
    X(produce_bytes, "varve_produce_bytes_total", counter, 1, "Batch bytes appended for clients.") \
    X(produce_records, "varve_produce_records_total", counter, 1, "Records appended for clients.") \
    X(produce_batches, "varve_produce_batches_total", counter, 1, "Batches appended for clients.") \
    X(produce_errors, "varve_produce_errors_total", counter, 1, "Batches refused.")                \
    X(produce_duplicates, "varve_produce_duplicates_total", counter, 1,                            \
      "Batches of idempotent producers that were there already.")                                  \
    X(fetch_bytes, "varve_fetch_bytes_total", counter, 1, "Batch bytes sent to consumers.")        \
    X(fetch_cold_bytes, "varve_fetch_cold_bytes_total", counter, 1,                                \
      "Of these, bytes that came from the bucket.")                                                \
    X(fetch_errors, "varve_fetch_errors_total", counter, 1, "Partitions answered with an error.")  \
    X(fetch_cold_errors, "varve_fetch_cold_errors_total", counter, 1, "Cold reads that failed.")   \
    X(flushes, "varve_flush_total", counter, 1, "Times data was made durable (fdatasync).")        \
    X(flush_us, "varve_flush_seconds_total", counter, 1000000, "Time spent in these.")             \
    X(segments_sealed, "varve_segments_sealed_total", counter, 1, "Segments closed.")              \
    X(segments_deleted, "varve_segments_deleted_total", counter, 1,                                \
      "Local copies of segments deleted.")                                                         \
    X(retention_errors, "varve_retention_errors_total", counter, 1, "Failed local deletions.")     \
    X(throttled_us, "varve_produce_throttle_seconds_total", counter, 1000000,                      \
      "Time producers were held back because the disk runs full.")                                 \
    X(disk_refusals, "varve_disk_full_refusals_total", counter, 1,                                 \
      "Batches refused because the disk reserve was reached.")                                     \
    X(quota_produce_us, "varve_quota_produce_throttle_seconds_total", counter, 1000000,            \
      "Time producers were told to wait by their quota.")                                          \
    X(quota_produce_hits, "varve_quota_produce_violations_total", counter, 1,                      \
      "Produce requests above their client's quota.")                                              \
    X(quota_fetch_us, "varve_quota_fetch_throttle_seconds_total", counter, 1000000,                \
      "Time consumers were told to wait by their quota.")                                          \
    X(quota_fetch_hits, "varve_quota_fetch_violations_total", counter, 1,                          \
      "Fetches above their client's quota.")                                                       \
    X(quota_remote_us, "varve_quota_remote_fetch_throttle_seconds_total", counter, 1000000,        \
      "Time cold reads were held back by their client's quota.")                                   \
    X(quota_remote_hits, "varve_quota_remote_fetch_violations_total", counter, 1,                  \
      "Cold reads held back by their client's quota.")                                             \
    X(offset_commits, "varve_offset_commits_total", counter, 1, "Offsets committed by groups.")    \
    X(rebalances, "varve_group_rebalances_total", counter, 1, "Completed rebalances.")             \
    X(bad_requests, "varve_bad_requests_total", counter, 1,                                        \
      "Requests that could not be decoded or were not known.")

struct vv_metrics {
#define VV_X(field, name, type, scale, help) _Atomic int64_t field;
    VV_METRICS(VV_X)
#undef VV_X
#define VV_METRIC_APIS 96
    struct {
        _Atomic int64_t count, us;
    } api[VV_METRIC_APIS]; /* requests answered and the time from receipt to answer, by API key */
};
extern struct vv_metrics vv_metrics;

#define vv_count(field, n)                                                                         \
    atomic_fetch_add_explicit(&vv_metrics.field, (int64_t)(n), memory_order_relaxed)
#define vv_gauge(field, v)                                                                         \
    atomic_store_explicit(&vv_metrics.field, (int64_t)(v), memory_order_relaxed)
void vv_metrics_api(int key, int64_t us);

/* ---- collecting ---- */
struct vv_metrics_out;
/* Begins a family; type is "counter" or "gauge". All its samples follow before the next family. */
void vv_metrics_family(struct vv_metrics_out *o, const char *name, const char *type,
                       const char *help);
/* One sample; labels are name, value pairs ended by NULL (values are escaped). */
void vv_metrics_sample(struct vv_metrics_out *o, double value, ...) __attribute__((sentinel));
/* A family of type histogram; label is the name of its one label. */
struct vv_metrics_histogram {
    const char *name, *help, *label;
    const double *le; /* upper bounds, ascending, of `bounds` buckets; one more bucket is everything above */
    size_t bounds;
};
void vv_metrics_histogram(struct vv_metrics_out *o, const struct vv_metrics_histogram *h);
/* One row of it: bounds + 1 counts, each of its bucket alone, and the sum of what was observed. */
void vv_metrics_observed(struct vv_metrics_out *o, const struct vv_metrics_histogram *h, const char *label,
                         const uint64_t *counts, double sum);
/* A family with one sample without labels. */
void vv_metrics_one(struct vv_metrics_out *o, const char *name, const char *type, const char *help,
                    double value);

/* ---- the page ---- */
struct vv_metrics_opts {
    const struct vv_endpoint *listen;
    /* NULL result: key's number is shown */
    const char *(*api_name)(int key);
    bool (*ready)(void *ctx);                            /* /readyz: 200 or 503 */
    bool (*healthy)(void *ctx, char *why, size_t why_n); /* /healthz; NULL = always */
    /* on the server's thread; may be NULL */
    void (*collect)(void *ctx, struct vv_metrics_out *o);
    void *ctx;
};
struct vv_metrics_server;
/* E_UNSUPPORTED: the library is not installed; E_EXIST: the port is taken; *e says what to do. */
int vv_metrics_start(const struct vv_metrics_opts *opts, struct vv_metrics_server **out,
                     struct vv_error *e);
int vv_metrics_port(const struct vv_metrics_server *s); /* as bound */
/* NULL is fine; waits for running requests */
void vv_metrics_stop(struct vv_metrics_server *s);
/* The page's text, malloc'ed (tests, CLI). */
char *vv_metrics_text(const struct vv_metrics_opts *opts, size_t *n);
#endif
