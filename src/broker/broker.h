/* broker.h — the composition root: one process, its parts, and who owns what.
 *
 * Parts: config, net (reactors), control (a reactor without connections: groups, topic changes, timers of the broker),
 * iopool (blocking disk work), topics (registry), groups, producer ids, tier (optional), metrics, housekeeper.
 *
 * Threads: reactors run API handlers inline. Work on groups and changes of topics run on `control`
 * (vv_broker_control_post). Lock order: topics rwlock -> partition mutex -> index mutex. */
#ifndef VARVE_BROKER_H
#define VARVE_BROKER_H
#include "varve/env.h"
#include "varve/net.h"
#include "varve/log.h"
#include "varve/tier.h"
#include "varve/wire.h"
#include "config.h"
#include "topic_config.h"

struct vv_groups;
struct vv_topics;
struct vv_producer_ids;
struct vv_metrics_server;
struct vv_housekeeper;
struct vv_quotas;
struct vv_directory;
struct vv_replica;
struct vv_opening;

struct vv_broker {
    struct vv_env *env;
    const struct vv_broker_config *config; /* as the files say; any thread. Keys that may be altered: vv_broker_live */
    struct vv_broker_config *live;         /* with what was altered at run time; NULL: nothing; on control (live.h) */
    struct vv_live_values {                /* of these, what other threads read */
        _Atomic int32_t remote_fetch_max_wait_ms;
        _Atomic int32_t producer_expiry_ms; /* 0: not told yet, as the files say */
    } values;
    char cluster_id[64];
    int32_t node_id;
    char *log_dir;
    struct vv_net *net;
    struct vv_reactor *control;
    struct vv_iopool *iopool;
    struct vv_topics *topics;
    struct vv_groups *groups;
    struct vv_producer_ids *producer_ids;
    struct vv_quotas *quotas;  /* of clients (quota.h) */
    struct vv_tier *tier;      /* NULL: tiering is off */
    bool tier_running;         /* control, or the main thread before it runs */
    char *_Atomic tier_url;    /* the bucket: config->tier, or where a migration brought it; NULL: off. Old ones stay valid */
    char *_Atomic migrate_url; /* a migration of this life; set once (migration.c) */
    struct vv_directory *directory; /* main thread's; the migration's while it switches */
    struct vv_listen *listens; /* bound listeners */
    size_t listen_count;
    _Atomic bool ready, stopping;
    _Atomic bool time_trusted; /* at the last look; vv_broker_time_trusted asks anew */
    _Atomic int64_t clock_gap_ms; /* wall - mono that was believed at the last look; 0: not known */
    _Atomic int disk_state;    /* enum vv_disk_state (housekeeper.c) */
    _Atomic int64_t disk_seconds_left; /* until the reserve, at the rate producers write; INT64_MAX: they do not */
    /* Bytes that producers wrote; from slow on they are slowed down, from max on the reserve is reached. 0: no limit. */
    _Atomic uint64_t disk_written, disk_written_slow, disk_written_max;
    bool restoring;            /* the directory was empty and the bucket was not; all of it is brought back before anybody is served (seed.h) */
    struct vv_opening *opening; /* partitions that are brought back in the background; NULL: none. Set before anybody is served */
    _Atomic bool groups_ready; /* groups may be asked */
    struct vv_housekeeper *housekeeper;
    struct vv_replica *replica; /* NULL: the bucket is our own */
    struct vv_metrics_server *metrics; /* NULL: off */
};

/* housekeeper.c: how much room the log directory has left, looked at once a second. */
enum vv_disk_state { VV_DISK_OK, VV_DISK_THROTTLE, VV_DISK_REFUSE };

/* housekeeper.c: wall time may drive deletions; false while it has jumped, also when nobody looked since. Any thread. */
bool vv_broker_time_trusted(struct vv_broker *b, int64_t wall_ms);

/* Between two looks: producers stored n bytes more. */
static inline void vv_broker_disk_written(struct vv_broker *b, size_t n)
{
    uint64_t now = atomic_fetch_add_explicit(&b->disk_written, n, memory_order_relaxed) + n;
    uint64_t max = atomic_load_explicit(&b->disk_written_max, memory_order_relaxed);
    int ok = VV_DISK_OK;
    if (max && now >= max)
        atomic_store(&b->disk_state, VV_DISK_REFUSE);
    else if (max && now >= atomic_load_explicit(&b->disk_written_slow, memory_order_relaxed))
        atomic_compare_exchange_strong(&b->disk_state, &ok, VV_DISK_THROTTLE);
}

/* Runs until SIGTERM/SIGINT. Exit code 0 after a clean stop; 1 with a message on stderr otherwise.
 * handler is the API layer's (vv_api_net_handler): the broker never names it, so that links stay one-way. */
int vv_broker_main(struct vv_env *env, const struct vv_broker_config *config, const struct vv_net_handler *handler);

/* What a client that came in on this listener is told to connect to: its own listener's advertised address. */
void vv_broker_endpoint(struct vv_broker *b, int listener, const char **host, int *port);

/* ---- topics (topics.c): names, ids, partitions, configs; durable in <log.dirs>/varve-topics.json ---- */
struct vv_partition;
/* What clients did with a topic since this process began; relaxed, shown on /metrics (Kafka's BrokerTopicMetrics). */
struct vv_topic_counters {
    _Atomic int64_t produce_bytes, produce_records, fetch_bytes;
    _Atomic int64_t cold_requests, cold_bytes, cold_errors;
};
#define vv_topic_count(t, field, n) atomic_fetch_add_explicit(&(t)->counters.field, (int64_t)(n), memory_order_relaxed)
struct vv_topic {
    char *name;
    struct vv_uuid id;
    bool internal;
    _Atomic int refs;
    _Atomic bool deleted;
    _Atomic bool kept;  /* deleted, but its directories stay aside: it can be brought back */
    bool returning;     /* being brought back: a partition without a directory is restored from the bucket */
    int32_t partition_count;
    struct vv_partition **partitions; /* grows only; NULL: not back yet (opening.h); read with the registry's read lock or through vv_topic_partition */
    struct vv_kv *overrides;          /* configs set on the topic; changed on control under the write lock */
    size_t override_count;
    struct vv_topic_config config;    /* effective */
    struct vv_broker *broker;
    struct vv_partition **retired[16]; /* arrays that readers may still hold, one per growth */
    struct vv_work destroy_work;
    struct vv_topic_counters counters;
};
/* Lookups take a reference; any thread. NULL when absent. */
struct vv_topic *vv_topics_get(struct vv_topics *ts, const char *name, size_t n);
struct vv_topic *vv_topics_get_id(struct vv_topics *ts, struct vv_uuid id);
void vv_topic_unref(struct vv_topic *t);
struct vv_partition *vv_topic_partition(struct vv_topic *t, int32_t index); /* NULL when out of range, or not back yet (opening.h) */
int32_t vv_topic_partitions(struct vv_topic *t);
/* What to answer about a partition that is NULL; one that is not back yet is brought back sooner. Any thread. */
int vv_topic_absent(struct vv_topic *t, int32_t index);
/* Calls each() with every topic in name order under the read lock; keep it short. */
void vv_topics_each(struct vv_topics *ts, void (*each)(void *ctx, struct vv_topic *t), void *ctx);

/* Changes; on control only; durable before they return. Errors are Kafka codes with *e filled. */
int vv_topics_create(struct vv_topics *ts, const char *name, int32_t partitions, const struct vv_kv *configs, size_t n,
                     bool internal, bool validate_only, struct vv_topic **out, struct vv_error *e);
int vv_topics_delete(struct vv_topics *ts, struct vv_topic *t, struct vv_error *e);
/* undelete.c: brings a deleted topic back, inside the grace, with its id, configurations (and these on top), records and the offsets that
 * groups had committed. `what` is its id or its name, `name` what it is called from now on. Three steps of one request: */
struct vv_undelete;
int vv_undelete_begin(struct vv_topics *ts, const char *name, const char *what, const struct vv_kv *configs, size_t n, bool validate_only,
                      struct vv_undelete **out, struct vv_error *e); /* on control; *out NULL: only validated */
void vv_undelete_open(struct vv_undelete *u); /* blocking: store and disk; on the iopool */
int vv_undelete_end(struct vv_undelete *u, struct vv_topic **out, struct vv_error *e); /* on control; frees u; out with a reference */
const char *vv_undelete_name(const struct vv_undelete *u); /* NULL is fine */
/* JSON array of what can be brought back: [{"topic", "topic_id", "partitions", "deleted_ms", "until_ms", "state"}]; on control; malloc'ed. */
char *vv_undelete_list(struct vv_topics *ts);
int vv_topics_add_partitions(struct vv_topics *ts, struct vv_topic *t, int32_t total, bool validate_only,
                             struct vv_error *e);
/* Replaces the topic's overrides by this full set. */
int vv_topics_set_configs(struct vv_topics *ts, struct vv_topic *t, const struct vv_kv *configs, size_t n,
                          bool validate_only, struct vv_error *e);
/* Kafka's rules: 1..249 of [a-zA-Z0-9._-], not . or .. */
bool vv_topic_name_ok(const char *name, size_t n, struct vv_error *e);

/* replica.c: a replica's answer to who wants to change something: returns code, *e says where to go. */
int vv_replica_refusal(struct vv_broker *b, int code, struct vv_error *e);

/* ---- partitions (partition.c): log + index + tier, high watermark, waiters ---- */
/* DeleteRecords: durable log start move. offset -1 = high watermark. Blocking; on the iopool. New log start in *low. */
/* The way back, inside the grace, as far as objects are still kept. Blocking: store and disk. The log start in *low. */
int vv_partition_undelete_records(struct vv_partition *p, int64_t *low, struct vv_error *e);
int vv_partition_delete_records(struct vv_partition *p, int64_t offset, int64_t *low, struct vv_error *e);
int64_t vv_partition_high_watermark(struct vv_partition *p);
int64_t vv_partition_log_start(struct vv_partition *p);
int32_t vv_partition_epoch(struct vv_partition *p);
/* Internal writers (group offsets): appends one built batch; done runs on `control` when it is as durable as
 * acks=all demands. Returns 0 when done will be called. */
struct vv_produce_done {
    void (*done)(struct vv_produce_done *d, int err);
    struct vv_task task; /* the partition's */
    struct vv_partition *partition;
    struct vv_produce_done *next;
    int64_t offset;
    int err;
};
int vv_partition_append_internal(struct vv_partition *p, uint8_t *batch, size_t n, struct vv_produce_done *d);
/* Reads an internal topic's partition from its start, blocking, local only; for loading state at start. */
int vv_partition_scan(struct vv_partition *p, int (*each)(void *ctx, const struct vv_record *r), void *ctx,
                      struct vv_error *e);
struct vv_partition_sizes {
    uint64_t local_bytes, remote_bytes, lag_bytes, lag_segments, remote_segments;
    int64_t log_start, local_start, remote_end, end, high_watermark;
};
void vv_partition_sizes(struct vv_partition *p, struct vv_partition_sizes *out);
int vv_partition_compact(struct vv_partition *p); /* internal topics; blocking */

/* ---- groups (src/broker/groups*.c): opened after topics, on the main thread; loads __consumer_offsets when it is there ---- */
int vv_groups_open(struct vv_broker *b, struct vv_groups **out, struct vv_error *e);
void vv_groups_stop(struct vv_groups *g);  /* on control, before net stops: parked members are answered COORDINATOR_NOT_AVAILABLE */
void vv_groups_close(struct vv_groups *g); /* after control stopped */
void vv_groups_topic_deleted(struct vv_groups *g, const char *name); /* on control: its committed offsets go too; g may be NULL */

/* ---- producer ids (producer_ids.c): durable blocks of 1,000 in <log.dirs>/varve-producer-ids ---- */
int vv_producer_ids_open(struct vv_broker *b, struct vv_producer_ids **out, struct vv_error *e);
void vv_producer_ids_close(struct vv_producer_ids *p);
int vv_producer_id_next(struct vv_broker *b, int64_t *out); /* on control; blocking once per block */
int64_t vv_producer_ids_reserved(struct vv_broker *b);     /* first id of no reserved block; for the bucket's snapshot */
void vv_producer_ids_skip_to(struct vv_broker *b, int64_t id); /* restore: ids below (plus a margin) may be in use */

static inline void vv_broker_control_post(struct vv_broker *b, struct vv_task *t)
{
    vv_reactor_post(b->control, t);
}
#endif
