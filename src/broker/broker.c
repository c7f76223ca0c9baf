/* broker.c — start and stop: what is opened, in which order, and the way back. Contract: broker.h.
 *
 * Start: directory → listeners bound (a taken port is told before anything is claimed) → tier claimed → topics
 * loaded, restored or none → partitions opened in parallel → groups → metrics, tier threads, network. After a lost disk partitions, then groups,
 * come in the background (opening.h). Nobody is
 * served before the ready line. Stop is the reverse; the clean mark is written last, and only when every log was
 * closed cleanly. Signals are taken by the main thread alone; every other thread has them blocked. */
#include "broker.h"

#include "broker_tier.h"
#include "directory.h"
#include "groups_snapshot.h"
#include "housekeeper.h"
#include "live.h"
#include "metrics_broker.h"
#include "migration.h"
#include "opening.h"
#include "partition.h"
#include "replica.h"
#include "topics.h"
#include "varve/bytes.h"
#include "varve/thread.h"
#include "varve/vlog.h"
#include "varve/wait.h"

#include <errno.h>
#include <inttypes.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define NET_GRACE_MS  3000
#define TIER_GRACE_MS 10000
#define CLAIM_WAIT_MS 65000
#define OPENING_WAIT_MS 2000 /* a small cluster is back by then: nobody is told to come again */
#define REGISTRY_MAX  (256u << 20)

struct broker_run {
    struct vv_broker b;
    struct vv_directory dir;
    struct vv_objstore *store;
    struct vv_seed *seed; /* the first start from somebody else's bucket; NULL: none */
    char *snapshot; /* while restoring: what the bucket says */
    size_t snapshot_n;
    struct vv_listen listens[VV_LISTENERS_MAX];
    char metrics_where[320];
    bool opened; /* partitions may be open */
    bool served; /* network ran */
    int64_t retention_ms, retention_bytes; /* in force at the start */
    sigset_t signals;
};

/* ---- process ---- */

/* Buffers of a fetch are as large as what a client asks for of a partition. As malloc starts, those from 128 KiB on are mapped
 * and unmapped one by one, and later a heap's top is given back after each answer: every page of every answer was faulted in and
 * cleared again, half of the CPU time of a catch-up in pieces of 1 MiB. So what a heap keeps is stated: 16 MiB at most; and there
 * is one for each reactor and one more, or every thread of the iopool that reads large answers would keep as much. */
static void keep_memory(int reactors)
{
#ifdef __GLIBC__
    enum { KEEP = 16 << 20, MAP_ABOVE = (8 << 20) + (64 << 10) };
    mallopt(M_MMAP_THRESHOLD, MAP_ABOVE);
    mallopt(M_TRIM_THRESHOLD, KEEP);
    mallopt(M_TOP_PAD, KEEP);
    mallopt(M_ARENA_MAX, (reactors > 0 ? reactors : (int)sysconf(_SC_NPROCESSORS_ONLN)) + 1);
#else
    (void)reactors;
#endif
}

static void prepare_process(struct broker_run *r)
{
    struct rlimit files;
    keep_memory(r->b.config->reactor_count);
    vv_background_nice(r->b.config->tier_threads_nice);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&r->signals);
    sigaddset(&r->signals, SIGTERM);
    sigaddset(&r->signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &r->signals, NULL); /* threads inherit it */
    if (getrlimit(RLIMIT_NOFILE, &files)) return;
    if (files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        getrlimit(RLIMIT_NOFILE, &files);
    }
    if (files.rlim_cur < 4096)
        VLOG_WARN("only %llu files may be open at a time: raise the limit (ulimit -n) for many partitions or clients",
                  (unsigned long long)files.rlim_cur);
}

/* ---- listeners ---- */

void vv_broker_endpoint(struct vv_broker *b, int listener, const char **host, int *port)
{
    const struct vv_endpoint *a = &b->config->advertised[listener];
    *host = a->host;
    *port = a->port ? a->port : b->listens[listener].bound_port;
}

static int bind_listeners(struct broker_run *r, const struct vv_net_handler *handler, struct vv_error *e)
{
    struct vv_broker *b = &r->b;
    const struct vv_broker_config *c = b->config;
    struct vv_net_config nc = {
        .reactors = c->reactor_count,
        .frame_bytes_max = (size_t)c->socket_request_max_bytes,
        .unsent_bytes_max = 64u << 20,
        .inflight_max = 64,
        .near_us = c->fetch_near_rtt_us,
        .idle_ms_max = c->connections_max_idle_ms < 0 ? INT64_MAX / 4000 : c->connections_max_idle_ms,
        .stall_ms_max = 60000,
        .conns_max = c->max_connections,
        .conns_per_ip_max = c->max_connections_per_ip == INT32_MAX ? 0 : c->max_connections_per_ip,
        .sndbuf = c->socket_send_buffer_bytes,
        .rcvbuf = c->socket_receive_buffer_bytes,
    };
    for (size_t i = 0; i < c->listen_count; i++)
        r->listens[i] = (struct vv_listen){.host = c->listen[i].host, .port = c->listen[i].port};
    b->listens = r->listens;
    b->listen_count = c->listen_count;
    return vv_net_new(b->env, &nc, r->listens, c->listen_count, handler, b, &b->net, e);
}

/* ---- topics ---- */

static int load_text(struct broker_run *r, const char *text, size_t n, const char *from, struct vv_error *e)
{
    struct vv_error why = {0};
    int err = vv_topics_load(r->b.topics, text, n, &why);
    return err ? vv_error_set(e, err, "%s cannot be read: %s", from, *why.text ? why.text : vv_err_name(err)) : VV_OK;
}

/* A replica's registry: the bucket's topics as they are now, and its own internal ones. */
static int load_replica(struct broker_run *r, struct vv_error *e)
{
    struct vv_broker *b = &r->b;
    uint8_t *own = NULL;
    char *text = NULL;
    size_t n = 0;
    int err = r->dir.fresh ? VV_OK : vv_fs_read_file(b->env, b->topics->path, REGISTRY_MAX, &own, &n);
    if (err) return vv_error_set(e, err, "cannot read %s: %s", b->topics->path, vv_err_name(err));
    err = vv_replica_registry(b, (const char *)own, n, &text, e);
    if (!err) err = load_text(r, text, strlen(text), "the list of topics of the bucket to follow", e);
    if (!err && !r->dir.fresh) err = vv_topics_tidy(b->topics, e);
    free(own);
    free(text);
    return err;
}

static int load_own(struct broker_run *r, struct vv_error *e)
{
    struct vv_broker *b = &r->b;
    uint8_t *text = NULL;
    size_t n = 0;
    int err = vv_fs_read_file(b->env, b->topics->path, REGISTRY_MAX, &text, &n);
    if (err == VV_E_NOENT)
        return vv_error_set(
            e, err,
            "%s is missing: without it the logs beside it cannot be told. Bring it back, or start with an empty "
            "--data-dir on the same tier.url to restore what is in the bucket",
            b->topics->path);
    if (err) return vv_error_set(e, err, "cannot read %s: %s", b->topics->path, vv_err_name(err));
    err = load_text(r, (const char *)text, n, b->topics->path, e);
    free(text);
    return err ? err : vv_topics_tidy(b->topics, e);
}

/* What the last start did not bring back to its end. */
static int load_left(struct broker_run *r, struct vv_error *e)
{
    struct vv_broker *b = &r->b;
    int err = vv_opening_left(b, &r->snapshot, &r->snapshot_n, e);
    if (err) return err == VV_E_NOENT ? VV_OK : err;
    if (!b->tier) return vv_error_set(e, VV_E_CONFIG, "partitions of %s are still to be brought back from the bucket: set tier.url as it was", b->log_dir);
    err = vv_opening_new(b, &b->opening);
    return err ? vv_error_set(e, err, "out of memory") : VV_OK;
}

static int load_bucket(struct broker_run *r, struct vv_error *e)
{
    struct vv_broker *b = &r->b;
    int err = r->seed ? vv_seed_begin(r->seed, b, &r->snapshot, &r->snapshot_n, e)
                      : vv_broker_tier_snapshot(b, &r->snapshot, &r->snapshot_n, e);
    if (err || !r->snapshot) return err;
    b->restoring = r->seed || vv_tier_hydrates(b->tier); /* what is the origin's is told by what is open when the tier starts */
    if (!b->restoring && (err = vv_opening_new(b, &b->opening))) return vv_error_set(e, err, "out of memory");
    if (r->seed) return load_text(r, r->snapshot, r->snapshot_n, "the list of topics in the bucket to restore from", e);
    VLOG_INFO("%s is empty and %s has a history: restoring it", b->log_dir, b->config->tier);
    return load_text(r, r->snapshot, r->snapshot_n, "the bucket's list of topics (v1/cluster.json)", e);
}

static int load_topics(struct broker_run *r, struct vv_error *e)
{
    struct vv_broker *b = &r->b;
    bool fresh = r->dir.fresh, replica = b->config->tier_replica;
    int err = vv_topics_new(b, &b->topics);
    if (!err) err = vv_quotas_new(b->config->quota_window_num, (int64_t)b->config->quota_window_size_seconds * 1000, &b->quotas);
    if (err) return vv_error_set(e, err, "out of memory");
    if (fresh) err = vv_directory_restoring(&r->dir, e); /* a crash before the claim below: begin again */
    if (!err) err = replica ? load_replica(r, e) : fresh ? load_bucket(r, e) : load_own(r, e);
    if (!err && !fresh && !replica) err = load_left(r, e);
    if (!err) err = vv_producer_ids_open(b, &b->producer_ids, e);
    if (!err && fresh && (b->restoring || b->opening)) vv_producer_ids_skip_to(b, b->topics->producer_ids);
    if (!err)
        err = vv_directory_begin(&r->dir, e);
    r->opened = true;
    if (!err) err = vv_topics_open_all(b->topics, r->dir.clean, e);
    if (!err && replica) err = vv_replica_first(b, r->store, &b->replica, e);
    if (!err && b->restoring) err = vv_groups_import(b, r->snapshot, r->snapshot_n, e);
    if (!err && r->seed) err = vv_seed_end(r->seed, b, r->snapshot, r->snapshot_n, e);
    if (!err && b->opening) err = vv_opening_keep(b->opening, r->snapshot, r->snapshot_n, e);
    free(r->snapshot);
    r->snapshot = NULL;
    if (!err && (fresh || replica)) err = vv_topics_save(b->topics, NULL, e);
    if (!err && fresh && b->tier) err = vv_tier_keep_origins(b->tier, e);
    bool moved = !err && b->tier_url && strcmp(b->tier_url, b->config->tier);
    snprintf(r->dir.moved_from, sizeof r->dir.moved_from, "%s", moved ? b->config->tier : "");
    if (!err) err = vv_directory_claim(&r->dir, b->cluster_id, b->tier_url, e);
    if (!err && (b->restoring || (b->opening && fresh)))
        VLOG_INFO("restored %zu topics from %s", b->topics->count, r->seed ? b->config->tier_restore_url : b->config->tier);
    b->restoring = false;
    if (!err) vv_live_apply(b);
    return err;
}

static void new_cluster_id(struct vv_broker *b)
{
    struct vv_uuid id;
    do {
        vv_random(b->env, id.b, sizeof id.b);
        vv_uuid_text(id, b->cluster_id);
    } while (*b->cluster_id == '-');
}

/* ---- start ---- */

static int reopen_seed(struct broker_run *r, struct vv_error *e)
{
    const struct vv_broker_config *c = r->b.config;
    vv_seed_close(r->seed);
    r->seed = NULL;
    return c->tier_restore_url ? vv_seed_open(&r->b, c->tier_restore_url, c->tier_restore_as_of_ms, &r->seed, e) : VV_OK;
}

/* A broker that lost its disk finds its own claim in the bucket, and cannot tell it from another's: it waits until it
 * has expired. */
static int open_tier(struct broker_run *r, struct vv_error *e)
{
    struct vv_broker *b = &r->b;
    int64_t until = vv_mono_ms(b->env) + CLAIM_WAIT_MS;
    struct timespec pause = {.tv_sec = 2};
    bool said = false;
    if (b->config->tier_replica) return vv_replica_open_tier(b, &r->dir, &r->store, e);
    for (;;) {
        int err = vv_broker_tier_open(b, &r->dir, &r->seed, &r->store, e);
        if (err != VV_E_CONFLICT || !r->dir.fresh || vv_mono_ms(b->env) > until) return err;
        if (!said) VLOG_WARN("%s. Waiting whether that claim expires", e->text);
        said = true;
        vv_objstore_close(r->store);
        r->store = NULL;
        if (r->seed && (err = reopen_seed(r, e))) return err; /* its store was closed with the pair */
        if (sigtimedwait(&r->signals, NULL, &pause) > 0)
            return vv_error_set(e, VV_E_SHUTDOWN, "stopped while waiting for the bucket");
    }
}

/* What is in the directory of a replica is not a log, and the other way round. */
static int check_replica(struct vv_directory *d, bool replica, struct vv_error *e)
{
    if (d->fresh) d->replica = replica;
    if (d->replica == replica) return VV_OK;
    return vv_error_set(e, VV_E_CONFLICT, replica ? "%s has logs of its own: a replica needs a directory of its own, choose another one with "
                                                    "--data-dir DIR"
                                                  : "%s is the directory of a replica (%s): start it with --replica, or choose another one "
                                                    "with --data-dir DIR", d->path, d->tier);
}

static int open_parts(struct broker_run *r, const struct vv_net_handler *handler, struct vv_error *e)
{
    struct vv_broker *b = &r->b;
    const struct vv_broker_config *c = b->config;
    b->log_dir = strdup(c->log);
    if (!b->log_dir) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int err = c->tier_restore_url ? vv_seed_open(b, c->tier_restore_url, c->tier_restore_as_of_ms, &r->seed, e) : VV_OK;
    if (!err) err = vv_directory_open(b->env, c->log, b->node_id, &r->dir, e);
    if (!err) err = check_replica(&r->dir, c->tier_replica, e);
    if (err) return err;
    snprintf(b->cluster_id, sizeof b->cluster_id, "%s", r->dir.cluster_id);
    if (!r->dir.fresh && !r->dir.clean) VLOG_WARN("%s was not closed cleanly: checking the logs", b->log_dir);
    err = bind_listeners(r, handler, e);
    if (!err) err = open_tier(r, e);
    if (err) return err;
    if (!*b->cluster_id) new_cluster_id(b);
    err = vv_iopool_new("io", c->num_io_threads, &b->iopool);
    if (!err) err = vv_reactor_new(b->env, "control", &b->control);
    if (err) return vv_error_set(e, err, "cannot start threads: %s", vv_err_name(err));
    err = load_topics(r, e);
    if (!err && b->opening && vv_opening_has_groups(b->opening)) return VV_OK; /* the groups come when the partitions are back */
    if (!err) err = vv_groups_open(b, &b->groups, e);
    atomic_store(&b->groups_ready, !err);
    return err;
}

static int start_parts(struct broker_run *r, struct vv_error *e)
{
    struct vv_broker *b = &r->b;
    r->retention_ms = vv_broker_live(b)->retention_ms;
    r->retention_bytes = vv_broker_live(b)->log_retention_bytes;
    int err = vv_metrics_broker_start(b, &b->metrics, r->metrics_where, sizeof r->metrics_where, e);
    if (!err && (err = vv_reactor_start(b->control)))
        vv_error_set(e, err, "cannot start threads: %s", vv_err_name(err));
    if (!err) err = vv_housekeeper_start(b, &b->housekeeper, e);
    if (!err && b->tier && (err = vv_tier_start(b->tier)))
        vv_error_set(e, err, "cannot start threads: %s", vv_err_name(err));
    if (!err && b->replica && (err = vv_replica_start(b->replica)))
        vv_error_set(e, err, "cannot start threads: %s", vv_err_name(err));
    if (err) return err;
    b->tier_running = b->tier != NULL;
    vv_migration_look(b);
    vv_topics_changed(b); /* the bucket's copy may be older than what a crash left here */
    if (b->opening && (err = vv_opening_start(b->opening))) return vv_error_set(e, err, "cannot start threads: %s", vv_err_name(err));
    if (b->opening) vv_opening_wait(b->opening, OPENING_WAIT_MS);
    r->served = true;
    err = vv_net_start(b->net);
    return err ? vv_error_set(e, err, "cannot start the network: %s", vv_err_name(err)) : VV_OK;
}

static bool any_host(const char *host)
{
    return !*host || !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
}

static void say_ready(struct broker_run *r)
{
    struct vv_broker *b = &r->b;
    const struct vv_broker_config *c = b->config; /* what is in force is control's, which runs already */
    printf("varve ready: kafka=");
    for (size_t i = 0; i < b->listen_count; i++) {
        const char *host = any_host(c->listen[i].host) ? c->advertised[i].host : c->listen[i].host;
        printf(strchr(host, ':') ? "%s[%s]:%d" : "%s%s:%d", i ? "," : "", host, b->listens[i].bound_port);
    }
    printf(" metrics=%s tier=%s retention=", r->metrics_where, b->tier_url ? b->tier_url : "off");
    if (r->retention_ms < 0 && r->retention_bytes < 0) printf("unlimited");
    if (r->retention_ms >= 0) printf("%" PRId64 "ms", r->retention_ms);
    if (r->retention_bytes >= 0) printf("%s%" PRId64 "bytes", r->retention_ms >= 0 ? "," : "", r->retention_bytes);
    printf(" data=%s\n", c->data);
    fflush(stdout);
}

/* ---- stop ---- */

struct stop_groups {
    struct vv_task task;
    struct vv_broker *b;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
};

static void stop_groups_run(struct vv_task *t)
{
    struct stop_groups *s = VV_CONTAINER(t, struct stop_groups, task);
    if (s->b->groups) vv_groups_stop(s->b->groups);
    pthread_mutex_lock(&s->lock);
    s->done = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void stop_groups(struct vv_broker *b)
{
    struct stop_groups s = {.task = {.run = stop_groups_run}, .b = b};
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.changed, NULL);
    vv_broker_control_post(b, &s.task);
    pthread_mutex_lock(&s.lock);
    while (!s.done)
        pthread_cond_wait(&s.changed, &s.lock);
    pthread_mutex_unlock(&s.lock);
    pthread_mutex_destroy(&s.lock);
    pthread_cond_destroy(&s.changed);
}

static void wake_topic(void *ctx, struct vv_topic *t)
{
    (void)ctx;
    for (int32_t i = 0; i < t->partition_count; i++)
        if (vv_topic_partition(t, i)) vv_partition_wake(vv_topic_partition(t, i));
}

/* True when no client's question is open any more. */
static bool stop_serving(struct broker_run *r)
{
    struct vv_broker *b = &r->b;
    struct vv_net_stats stats = {0};
    if (!r->served) return true;
    stop_groups(b);
    vv_topics_each(b->topics, wake_topic, NULL); /* parked fetches look again and see that we stop */
    vv_net_stop(b->net, NET_GRACE_MS);
    vv_net_stats(b->net, &stats);
    if (stats.conns) VLOG_WARN("stopping with %" PRIu64 " connections whose questions are still open", stats.conns);
    return !stats.conns;
}

/* Bounds what the stop waits for a store that is away: whatever still runs then ends with E_SHUTDOWN. */
struct last_call {
    struct vv_objstore *store;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool running, done;
};

static void *last_call_run(void *arg)
{
    struct last_call *c = arg;
    struct timespec until = vv_deadline_us(TIER_GRACE_MS * 1000LL);
    pthread_mutex_lock(&c->lock);
    int rc = 0;
    while (!c->done && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&c->changed, &c->lock, &until);
    if (!c->done)
        VLOG_WARN("the bucket does not answer: stopping without it; the next start uploads what is missing");
    pthread_mutex_unlock(&c->lock);
    vv_objstore_interrupt(c->store);
    return NULL;
}

static void last_call_begin(struct last_call *c, struct vv_objstore *store)
{
    *c = (struct last_call){.store = store};
    pthread_mutex_init(&c->lock, NULL);
    vv_cond_init(&c->changed);
    c->running = !pthread_create(&c->thread, NULL, last_call_run, c);
    if (!c->running)
        vv_objstore_interrupt(store);
}

static void last_call_end(struct last_call *c)
{
    pthread_mutex_lock(&c->lock);
    c->done = true;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (c->running)
        pthread_join(c->thread, NULL);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
}

/* The claim is given back while the store still answers; from then on nothing waits for it. */
static void stop_tier(struct broker_run *r)
{
    struct last_call c;
    last_call_begin(&c, r->store);
    if (r->served)
        vv_topics_last_snapshot(&r->b);
    vv_tier_stop(r->b.tier, TIER_GRACE_MS);
    last_call_end(&c);
}

/* Returns 0 when every log was closed cleanly. */
static int stop_parts(struct broker_run *r)
{
    struct vv_broker *b = &r->b;
    vv_opening_stop(b->opening);
    bool quiet = stop_serving(r);
    vv_replica_stop(b->replica);
    vv_housekeeper_stop(b->housekeeper);
    vv_metrics_stop(b->metrics);
    if (b->control) vv_reactor_stop(b->control);
    if (b->tier)
        stop_tier(r);
    vv_opening_end(b->opening);
    if (b->groups) vv_groups_close(b->groups);
    int err = r->opened ? vv_topics_close(b->topics) : VV_OK;
    vv_iopool_free(b->iopool);
    b->iopool = NULL;
    vv_replica_free(b->replica);
    if (quiet) vv_net_free(b->net); /* else answers may still come: the process ends with it */
    vv_producer_ids_close(b->producer_ids);
    b->producer_ids = NULL;
    vv_tier_free(b->tier);
    vv_objstore_close(r->store);
    vv_seed_close(r->seed);
    vv_topics_free(b->topics);
    vv_opening_free(b->opening);
    vv_live_free(b);
    vv_quotas_free(b->quotas);
    if (b->control) vv_reactor_free(b->control);
    return err;
}

static int finish(struct broker_run *r, int err, const struct vv_error *e)
{
    if (err) fprintf(stderr, "varve broker: %s\n", *e->text ? e->text : vv_err_name(err));
    int closed = stop_parts(r);
    if (!err && closed) fprintf(stderr, "varve broker: a log was not closed cleanly: the next start checks it\n");
    if (!err && !closed) {
        VLOG_INFO("stopped");
        int marked = vv_directory_mark_clean(&r->dir);
        if (marked)
            VLOG_WARN("cannot write the clean-shutdown mark: %s; the next start checks the logs",
                      vv_err_name(marked));
    }
    vv_directory_close(&r->dir);
    free(r->b.log_dir);
    if (r->b.migrate_url != r->b.tier_url) free(r->b.migrate_url);
    free(r->b.tier_url);
    free(r);
    return err || closed ? 1 : 0;
}

int vv_broker_main(struct vv_env *env, const struct vv_broker_config *config, const struct vv_net_handler *handler)
{
    struct vv_error e = {0};
    int64_t began = vv_mono_ms(env);
    struct broker_run *r = calloc(1, sizeof *r);
    int sig = 0;
    if (!r) {
        fprintf(stderr, "varve broker: out of memory\n");
        return 1;
    }
    r->b.env = env;
    r->b.directory = &r->dir;
    r->b.config = config;
    r->b.node_id = config->id;
    atomic_init(&r->b.time_trusted, false); /* the housekeeper decides */
    prepare_process(r);
    vv_config_log_warnings(config);
    int err = open_parts(r, handler, &e);
    if (!err) err = start_parts(r, &e);
    if (err) return finish(r, err, &e);
    atomic_store(&r->b.ready, true);
    VLOG_INFO("ready after %lld ms: node %d of cluster %s, log in %s, tier %s", (long long)(vv_mono_ms(env) - began),
              (int)r->b.node_id, r->b.cluster_id, r->b.log_dir, r->b.tier_url ? r->b.tier_url : "off");
    say_ready(r);
    while (sigwait(&r->signals, &sig) == EINTR)
        ;
    VLOG_INFO("%s: stopping", sig == SIGINT ? "SIGINT" : "SIGTERM");
    atomic_store(&r->b.stopping, true);
    atomic_store(&r->b.ready, false);
    return finish(r, 0, &e);
}
