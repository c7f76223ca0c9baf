/* snapshot.c — what the bucket must hear of the registry: a copy of it after every change, and topics that were
 * deleted.
 *
 * Both are puts that may fail or take long: they run on the iopool, one at a time each, and are repeated from the
 * tick until they went. A change while a put runs makes one more put. State lives on control; an iopool thread only
 * touches what it was handed (snapshot.json, snapshot.doomed) and reports by a task. */
#include "topics.h"

#include "groups_snapshot.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <stdlib.h>
#include <string.h>

#define RETRY_US 5000000
#define GROUPS_US                                                                                                    \
    60000000 /* offsets move all the time: a copy at most this often on their account, a big one less often */
#define GROUPS_BIG_US 600000000
#define GROUPS_BIG    (1u << 20)

static struct vv_topics *of_put(struct vv_work *w)
{
    return VV_CONTAINER(w, struct vv_topics, snapshot.put);
}

/* ---- the copy ---- */

static void put(struct vv_work *w)
{
    struct vv_topics *ts = of_put(w);
    struct vv_error e = {0};
    pthread_mutex_lock(&ts->snapshot.put_lock);
    ts->snapshot.put_err =
        ts->snapshot.last ? VV_OK
                          : vv_tier_put_snapshot(ts->broker->tier, ts->snapshot.json, strlen(ts->snapshot.json),
                                                 ts->snapshot.putting_change, &e);
    pthread_mutex_unlock(&ts->snapshot.put_lock);
    if (ts->snapshot.put_err)
        VLOG_WARN("the list of topics could not be copied to the bucket, will try again: %s",
                  *e.text ? e.text : vv_err_name(ts->snapshot.put_err));
    vv_broker_control_post(ts->broker, &ts->snapshot.put_done);
}

static void start_put(struct vv_topics *ts)
{
    struct vv_snapshot *s = &ts->snapshot;
    if (s->putting || !s->dirty) return;
    s->groups_seen = vv_groups_changes(ts->broker->groups);
    s->json = vv_topics_snapshot(ts);
    if (!s->json) return; /* the tick tries again */
    s->groups_after_us = vv_mono_us(ts->broker->env) + (strlen(s->json) < GROUPS_BIG ? GROUPS_US : GROUPS_BIG_US);
    s->dirty = false;
    s->putting_change = s->change;
    s->change = false;
    s->putting = true;
    s->put.run = put;
    vv_iopool_submit(ts->broker->iopool, &s->put);
}

static void put_done(struct vv_task *task)
{
    struct vv_topics *ts = VV_CONTAINER(task, struct vv_topics, snapshot.put_done);
    struct vv_snapshot *s = &ts->snapshot;
    free(s->json);
    s->json = NULL;
    s->putting = false;
    if (s->put_err) {
        s->dirty = true;
        s->change = s->change || s->putting_change;
        s->put_retry_us = vv_mono_us(ts->broker->env) + RETRY_US;
    } else {
        start_put(ts);
    }
}

/* ---- deletions ---- */

static void doom(struct vv_work *w)
{
    struct vv_topics *ts = VV_CONTAINER(w, struct vv_topics, snapshot.doom);
    struct vv_doomed *d = &ts->snapshot.doomed;
    struct vv_error e = {0};
    ts->snapshot.doom_err = vv_tier_delete_topic(ts->broker->tier, d->id, d->name, d->deleted_ms, &e);
    if (ts->snapshot.doom_err)
        VLOG_WARN("topic %s: the bucket could not be told of its deletion, will try again: %s", d->name,
                  *e.text ? e.text : vv_err_name(ts->snapshot.doom_err));
    vv_broker_control_post(ts->broker, &ts->snapshot.doom_done);
}

static void doom_done(struct vv_task *task);

static void start_doom(struct vv_topics *ts)
{
    struct vv_snapshot *s = &ts->snapshot;
    const struct vv_doomed *next = NULL;
    for (size_t i = 0; i < ts->doomed_count && !next; i++)
        if (ts->doomed[i].tiered && !ts->doomed[i].told) next = &ts->doomed[i];
    if (s->dooming || !next) return;
    char *name = strdup(next->name);
    if (!name) return; /* the tick tries again */
    s->doomed = (struct vv_doomed){.id = next->id, .name = name, .deleted_ms = next->deleted_ms};
    s->dooming = true;
    s->doom.run = doom;
    s->doom_done.run = doom_done;
    vv_iopool_submit(ts->broker->iopool, &s->doom);
}

static void doom_done(struct vv_task *task)
{
    struct vv_topics *ts = VV_CONTAINER(task, struct vv_topics, snapshot.doom_done);
    struct vv_snapshot *s = &ts->snapshot;
    s->dooming = false;
    struct vv_doomed *d = vv_doomed_find(ts, s->doomed.id);
    if (s->doom_err) {
        s->doom_retry_us = vv_mono_us(ts->broker->env) + RETRY_US;
    } else {
        if (d) d->told = true; /* until the tick finds that it cannot be brought back any more */
        start_doom(ts);
    }
    vv_doomed_release(&s->doomed);
}

/* ---- from outside ---- */

static void changed(struct vv_task *task)
{
    struct vv_topics *ts = VV_CONTAINER(task, struct vv_topics, snapshot.changed);
    ts->snapshot.dirty = ts->snapshot.change = true;
    start_put(ts);
    start_doom(ts);
}

void vv_topics_changed(struct vv_broker *b)
{
    struct vv_topics *ts = b->topics;
    if (!b->tier || !ts || b->config->tier_replica) return; /* the list in a replica's bucket is its owner's */
    ts->snapshot.changed.run = changed;
    ts->snapshot.put_done.run = put_done;
    vv_broker_control_post(b, &ts->snapshot.changed);
}

void vv_topics_tick(struct vv_broker *b)
{
    struct vv_topics *ts = b->topics;
    int64_t now = vv_mono_us(b->env);
    if (!b->tier || b->config->tier_replica) return;
    if (now >= ts->snapshot.groups_after_us && vv_groups_changes(b->groups) != ts->snapshot.groups_seen)
        ts->snapshot.dirty = true;
    if (now >= ts->snapshot.put_retry_us) start_put(ts);
    if (now >= ts->snapshot.doom_retry_us) start_doom(ts);
    vv_doomed_tick(ts);
}

void vv_topics_last_snapshot(struct vv_broker *b)
{
    struct vv_topics *ts = b->topics;
    struct vv_tier_stats stats;
    struct vv_snapshot *s = &ts->snapshot;
    pthread_mutex_lock(&s->put_lock); /* the older copy that is under way goes first */
    s->last = true;
    pthread_mutex_unlock(&s->put_lock);
    bool due =
        s->dirty || s->putting || atomic_load(&s->changed.queued) || vv_groups_changes(b->groups) != s->groups_seen;
    if (!b->tier || !due || b->config->tier_replica) return;
    vv_tier_stats(b->tier, &stats);
    if (!stats.store_ok) return; /* away: an orderly stop does not wait for it; the next start puts it */
    char *json = vv_topics_snapshot(ts);
    struct vv_error e = {0};
    if (json && vv_tier_put_snapshot(b->tier, json, strlen(json), true, &e))
        VLOG_WARN("the list of topics could not be copied to the bucket: %s", e.text);
    free(json);
}
