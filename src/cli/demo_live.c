/* demo_live.c — the live part of the demo: stations produce, a monitor and a dashboard follow as
 * consumer groups.
 *
 * Four threads, each with connections of its own: the producer (all stations' gateway, acks=all,
 * paced so that the story takes plan->seconds), two members of `monitor` who share the
 * partitions, one member of `dashboard`. What they learn is in atomics; the first error stops
 * everybody. */
#include "demo.h"
#include "client.h"
#include "member.h"

#include "varve/bytes.h"
#include "varve/env.h"

#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define TICK_US        25000
#define PARTITIONS_MAX 64

static void fail(struct demo_live *l, const struct vv_error *e)
{
    pthread_mutex_lock(&l->lock);
    if (!atomic_load(&l->failed)) l->error = *e;
    atomic_store(&l->failed, true);
    pthread_mutex_unlock(&l->lock);
    atomic_store(&l->stop, true);
}

const char *demo_field(const uint8_t *p, int32_t n, const char *name, size_t *len)
{
    size_t name_n = strlen(name);
    if (n <= 0) return NULL;
    const char *at = memmem(p, (size_t)n, name, name_n), *end = (const char *)p + n;
    if (!at) return NULL;
    at += name_n;
    size_t k = 0;
    while (at + k < end && at[k] != '"' && at[k] != ',' && at[k] != '}')
        k++;
    *len = k;
    return at;
}

/* ---- the producer ---- */

struct gateway {
    struct demo_live *l;
    struct vv_client *c;
    struct vv_part_ref *parts;
    size_t n;
    struct vv_batch_builder *builder[PARTITIONS_MAX];
    int64_t records[PARTITIONS_MAX]; /* in the builders */
    int64_t bytes;
};

/* One Produce request with a batch for every partition that has records; waits for the acks. */
static int send_batches(struct gateway *g, struct vv_error *e)
{
    struct ProduceRequest rq;
    struct ProduceRequest_TopicProduceData t;
    struct ProduceRequest_PartitionProduceData p[PARTITIONS_MAX];
    struct vv_reply r;
    int64_t records = 0, before = vv_mono_us(&vv_env_posix);
    int32_t count = 0;
    VV_MSG_INIT(ProduceRequest, &rq);
    VV_STRUCT_INIT(ProduceRequest_TopicProduceData, &t);
    for (size_t i = 0; i < g->n; i++) {
        uint8_t *bytes;
        size_t n;
        if (!g->records[i]) continue;
        if (vv_batch_builder_finish(g->builder[i], &bytes, &n))
            return vv_error_set(e, VV_E_NOMEM, "out of memory");
        VV_STRUCT_INIT(ProduceRequest_PartitionProduceData, &p[count]);
        p[count].Index = g->parts[i].partition;
        p[count++].Records = (struct vv_records){.p = bytes, .n = (int32_t)n};
        g->bytes += (int64_t)n;
        records += g->records[i];
        g->records[i] = 0;
    }
    if (!count) return 0;
    t.Name = vv_str_c(DEMO_TOPIC);
    t.PartitionData.v = p;
    t.PartitionData.n = count;
    rq.Acks = -1;
    rq.TimeoutMs = 30000;
    rq.TopicData.v = &t;
    rq.TopicData.n = 1;
    int rc = vv_client_call(g->c, g->parts[0].leader, 0, &rq, &r, e);
    if (rc) return rc;
    const struct ProduceResponse *rs = r.msg;
    for (int32_t i = 0; rs->Responses.n && i < rs->Responses.v[0].PartitionResponses.n && !rc;
         i++) {
        const struct ProduceResponse_PartitionProduceResponse *a =
            &rs->Responses.v[0].PartitionResponses.v[i];
        if (a->ErrorCode)
            rc = vv_error_set(e, a->ErrorCode, "Produce to partition %" PRId32 ": %s %.*s",
                              a->Index, vv_err_name(a->ErrorCode), VV_STR_ARG(a->ErrorMessage));
    }
    vv_reply_release(&r);
    if (!rc) {
        atomic_fetch_add(&g->l->produced, records);
        atomic_store(&g->l->produced_bytes, g->bytes);
        atomic_fetch_add(&g->l->produce_us_sum, vv_mono_us(&vv_env_posix) - before);
        atomic_fetch_add(&g->l->produce_requests, 1);
    }
    return rc;
}

static int tell(struct gateway *g, struct vv_error *e)
{
    const struct demo_plan *plan = g->l->plan;
    struct ev_story *s = ev_story_new(plan->seed, plan->stations, plan->from_ms, plan->to_ms);
    struct ev_event *ev = malloc(sizeof *ev);
    int64_t began = vv_mono_us(&vv_env_posix), sent = 0;
    int rc = s && ev ? 0 : vv_error_set(e, VV_E_NOMEM, "out of memory");
    while (!rc && !atomic_load(&g->l->stop)) {
        int64_t now = vv_mono_us(&vv_env_posix) - began;
        int64_t due =
            (int64_t)((double)plan->events * (double)now / ((double)plan->seconds * 1e6)) + 1;
        int more = 1;
        due = VV_MIN(due, sent + 4000); /* a batch stays below max.message.bytes */
        while (sent < due && (more = ev_story_next(s, ev))) {
            int32_t p = vv_client_partition_of(ev->key, strlen(ev->key), (int32_t)g->n);
            if (vv_batch_builder_add(g->builder[p], ev->time_ms, ev->key, (int32_t)strlen(ev->key),
                                     ev->json, (int32_t)ev->json_n)) {
                rc = vv_error_set(e, VV_E_NOMEM, "out of memory");
                break;
            }
            g->records[p]++;
            sent++;
            atomic_store(&g->l->story_ms, ev->time_ms);
        }
        if (!rc) rc = send_batches(g, e);
        if (!more) break;
        int64_t rest = TICK_US - (vv_mono_us(&vv_env_posix) - began - now);
        if (rest > 0) poll(NULL, 0, (int)(rest / 1000));
    }
    ev_story_free(s);
    free(ev);
    return rc;
}

static void *producer(void *arg)
{
    struct gateway g = {.l = arg};
    struct vv_error e = {0};
    int rc = vv_client_open(g.l->bootstrap, "ev-gateway", &g.c, &e);
    if (!rc) rc = vv_client_partitions(g.c, DEMO_TOPIC, &g.parts, &g.n, &e);
    if (!rc && g.n > PARTITIONS_MAX)
        rc = vv_error_set(&e, VV_E_LIMIT, "more than %d partitions", PARTITIONS_MAX);
    for (size_t i = 0; !rc && i < g.n; i++)
        if (!(g.builder[i] = vv_batch_builder_new()))
            rc = vv_error_set(&e, VV_E_NOMEM, "out of memory");
    if (!rc) rc = tell(&g, &e);
    if (rc) fail(g.l, &e);
    atomic_store(&g.l->produced_all, true);
    for (size_t i = 0; i < PARTITIONS_MAX; i++)
        vv_batch_builder_free(g.builder[i]);
    free(g.parts);
    vv_client_close(g.c);
    return NULL;
}

/* ---- the consumers ---- */

struct reader {
    struct demo_live *l;
    const char *group, *client;
    int number; /* of the monitor's members; -1: the dashboard */
};

static int station_of(const struct vv_record *r)
{
    char name[24];
    if (r->key_n <= 0 || r->key_n >= 24) return -1;
    for (int i = 0; i < EV_STATIONS_MAX; i++) {
        ev_station_name(i, name);
        if (strlen(name) == (size_t)r->key_n && !memcmp(name, r->key, (size_t)r->key_n)) return i;
    }
    return -1;
}

static int on_monitor(void *ctx, int32_t partition, const struct vv_record *r)
{
    struct reader *me = ctx;
    size_t n;
    const char *type = demo_field(r->value, r->value_n, "\"eventType\":\"", &n);
    (void)partition;
    if (type && *type != 'U') { /* Started or Ended */
        int station = station_of(r);
        if (station >= 0) atomic_store(&me->l->charging[station], *type == 'S');
    }
    atomic_fetch_add(&me->l->monitor_seen, 1);
    return 0;
}

static int on_dashboard(void *ctx, int32_t partition, const struct vv_record *r)
{
    struct reader *me = ctx;
    size_t n;
    const char *type = demo_field(r->value, r->value_n, "\"eventType\":\"", &n);
    (void)partition;
    if (type && *type == 'E') {
        const char *wh = demo_field(r->value, r->value_n, "\"sessionWh\":", &n);
        int station = station_of(r);
        if (wh && station >= 0)
            atomic_fetch_add(&me->l->site_wh[ev_station_site(station)], strtoll(wh, NULL, 10));
    }
    atomic_fetch_add(&me->l->dashboard_seen, 1);
    return 0;
}

static void *consumer(void *arg)
{
    struct reader *me = arg;
    struct demo_live *l = me->l;
    struct vv_consumer *m = NULL;
    struct vv_error e = {0};
    int64_t commit_ms = 0;
    int rc = vv_consumer_new(l->bootstrap, me->client, me->group, DEMO_TOPIC, &m, &e);
    while (!rc && !atomic_load(&l->stop)) {
        rc = vv_consumer_poll(m, 250, me->number < 0 ? on_dashboard : on_monitor, me, &e);
        if (!rc && vv_mono_ms(&vv_env_posix) - commit_ms > 1000) {
            rc = vv_consumer_commit(m, &e);
            commit_ms = vv_mono_ms(&vv_env_posix);
        }
        if (me->number >= 0)
            atomic_store(&l->monitor_partitions[me->number], vv_consumer_partitions(m));
    }
    if (!rc) rc = vv_consumer_commit(m, &e);
    if (rc) fail(l, &e);
    vv_consumer_close(m);
    free(me);
    return NULL;
}

static int start_reader(struct demo_live *l, const char *group, const char *client, int number)
{
    struct reader *me = malloc(sizeof *me);
    if (!me) return VV_E_NOMEM;
    *me = (struct reader){l, group, client, number};
    if (pthread_create(&l->threads[l->thread_count], NULL, consumer, me)) {
        free(me);
        return VV_E_NOMEM;
    }
    l->thread_count++;
    return 0;
}

int demo_live_start(struct demo_live *l, const struct demo_plan *plan, const char *bootstrap,
                    struct vv_error *e)
{
    l->plan = plan;
    l->bootstrap = bootstrap;
    pthread_mutex_init(&l->lock, NULL);
    int rc = start_reader(l, "monitor", "monitor-0", 0);
    if (!rc) rc = start_reader(l, "monitor", "monitor-1", 1);
    if (!rc) rc = start_reader(l, "dashboard", "dashboard", -1);
    if (!rc && pthread_create(&l->threads[l->thread_count], NULL, producer, l)) rc = VV_E_NOMEM;
    if (!rc) l->thread_count++;
    return rc ? vv_error_set(e, rc, "cannot start threads") : 0;
}

bool demo_live_done(const struct demo_live *l)
{
    int64_t all = atomic_load(&l->produced);
    return atomic_load(&l->stop) ||
           (atomic_load(&l->produced_all) && atomic_load(&l->monitor_seen) >= all &&
            atomic_load(&l->dashboard_seen) >= all);
}

int demo_live_stop(struct demo_live *l, struct vv_error *e)
{
    atomic_store(&l->stop, true);
    for (int i = 0; i < l->thread_count; i++)
        pthread_join(l->threads[i], NULL);
    l->thread_count = 0;
    if (atomic_load(&l->failed) && e) *e = l->error;
    return atomic_load(&l->failed) ? l->error.code : 0;
}
