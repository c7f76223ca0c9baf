/* demo.h — the parts of `varve demo ev`: demo_ev.c tells the story, demo_live.c runs producer and
 * consumers. */
#ifndef VARVE_CLI_DEMO_H
#define VARVE_CLI_DEMO_H
#include "ev_story.h"
#include "varve/error.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define DEMO_TOPIC "ev.transactions"

struct demo_plan { /* what is told */
    uint64_t seed;
    int stations, partitions, seconds;
    int64_t from_ms, to_ms;
    /* counted beforehand */
    int64_t events, bytes, site_wh[EV_SITES];
};

struct demo_live { /* shared by the threads; counters are atomic */
    const struct demo_plan *plan;
    const char *bootstrap;
    /* records acknowledged; where in the story */
    _Atomic int64_t produced, produced_bytes, story_ms;
    _Atomic int64_t produce_us_sum, produce_requests;
    _Atomic bool produced_all, stop;
    _Atomic int64_t monitor_seen, dashboard_seen;
    _Atomic int charging[EV_STATIONS_MAX]; /* the monitor's: 1 while a session runs */
    _Atomic int64_t site_wh[EV_SITES];     /* the dashboard's */
    _Atomic int monitor_partitions[2];
    pthread_mutex_t lock;
    struct vv_error error; /* the first one of any thread */
    _Atomic bool failed;
    pthread_t threads[4];
    int thread_count;
};
/* Producer, two members of group `monitor`, one of `dashboard`. */
int demo_live_start(struct demo_live *l, const struct demo_plan *plan, const char *bootstrap,
                    struct vv_error *e);
/* True when everything was produced and both groups have read it all. */
bool demo_live_done(const struct demo_live *l);
/* Stops and joins; the first error of any thread. */
int demo_live_stop(struct demo_live *l, struct vv_error *e);
/* The value of a JSON string field ("\"station\":\"") or number ("\"sessionWh\":") in an event;
 * NULL = not there. */
const char *demo_field(const uint8_t *p, int32_t n, const char *name, size_t *len);
#endif
