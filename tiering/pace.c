/* pace.c — see pace.h. */
#include "pace.h"
#include "abreast.h"

#include "varve/wait.h"

void vv_pace_init(struct vv_pace *p, struct vv_tier *t)
{
    *p = (struct vv_pace){.t = t};
    pthread_mutex_init(&p->mu, NULL);
    vv_cond_init(&p->wake);
}

void vv_pace_release(struct vv_pace *p)
{
    pthread_mutex_destroy(&p->mu);
    pthread_cond_destroy(&p->wake);
}

void vv_pace_stop(struct vv_pace *p)
{
    pthread_mutex_lock(&p->mu);
    p->stop = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mu);
}

bool vv_pace_wait(struct vv_pace *p, int64_t us)
{
    struct timespec ts = vv_deadline_us(us);
    pthread_mutex_lock(&p->mu);
    int rc = 0;
    while (!p->stop && !rc) rc = pthread_cond_timedwait(&p->wake, &p->mu, &ts);
    bool stop = p->stop;
    pthread_mutex_unlock(&p->mu);
    return !stop;
}

static bool wanted(const struct vv_paced *who)
{
    struct vv_tier *t = who->pace->t;
    pthread_mutex_lock(&t->mu);
    bool closing = who->part && who->part->closing;
    pthread_mutex_unlock(&t->mu);
    return !closing && !atomic_load(&t->fenced);
}

/* Who asks later waits longer: each has a time of its own from which on it may read. */
static int64_t pay(struct vv_pace *p, size_t bytes)
{
    struct vv_tier_config c;
    vv_tier_config_get(p->t, &c);
    pthread_mutex_lock(&p->mu);
    p->paid_us = VV_MAX(p->paid_us, vv_mono_us(p->t->env) - 1000000); /* at most a second's worth is saved up */
    if (c.hydrate_bytes_per_s > 0) p->paid_us += (int64_t)((double)bytes / (double)c.hydrate_bytes_per_s * 1e6);
    int64_t from = p->paid_us;
    pthread_mutex_unlock(&p->mu);
    return from;
}

bool vv_pace_go_on(void *paced, size_t bytes)
{
    const struct vv_paced *who = paced;
    int64_t from = pay(who->pace, bytes);
    while (wanted(who)) {
        int64_t ahead = from - vv_mono_us(who->pace->t->env);
        if (!vv_pace_wait(who->pace, VV_MIN(VV_MAX(ahead, (int64_t)0), (int64_t)500000))) return false;
        if (ahead <= 500000) return wanted(who);
    }
    return false;
}

bool vv_pace_hold(struct vv_tier_part *part)
{
    if (part->closing) return false;
    part->copying++;
    return true;
}

void vv_pace_give_back(struct vv_tier_part *part)
{
    if (!part) return;
    struct vv_tier *t = part->tier;
    pthread_mutex_lock(&t->mu);
    part->copying--;
    pthread_cond_broadcast(&t->idle);
    pthread_mutex_unlock(&t->mu);
}

/* ---- rounds ---- */

void vv_round_begin(struct vv_round *r, struct vv_pace *p)
{
    struct vv_tier_config c;
    vv_tier_config_get(p->t, &c);
    r->pace = p;
    r->n = 0;
    r->bytes = 0;
    r->bytes_max = VV_ROUND_BYTES;
    if (c.hydrate_bytes_per_s > 0) r->bytes_max = VV_MIN(r->bytes_max, (uint64_t)c.hydrate_bytes_per_s * 8); /* puts have deadlines */
}

bool vv_round_full(const struct vv_round *r)
{
    return r->n == VV_ROUND_MAX || r->bytes >= r->bytes_max;
}

struct vv_round_item *vv_round_add(struct vv_round *r, struct vv_tier_part *part, bool hold, const struct vv_extent *x)
{
    struct vv_round_item *i = &r->v[r->n++];
    *i = (struct vv_round_item){.paced = {.pace = r->pace, .part = hold ? part : NULL}, .topic_id = part->o.topic_id,
                                .partition = part->o.partition, .x = *x};
    r->bytes += x->object_bytes;
    if (!hold) return i;
    pthread_mutex_lock(&part->tier->mu);
    part->copying++;
    pthread_mutex_unlock(&part->tier->mu);
    return i;
}

struct round_run {
    struct vv_round *r;
    void (*one)(void *ctx, struct vv_round_item *i);
    void *ctx;
};

static void run_item(void *arg, size_t i)
{
    struct round_run *run = arg;
    struct vv_round_item *item = &run->r->v[i];
    run->one(run->ctx, item);
    vv_pace_give_back(item->paced.part);
    item->paced.part = NULL;
}

void vv_round_run(struct vv_round *r, void (*one)(void *ctx, struct vv_round_item *i), void *ctx)
{
    struct round_run run = {.r = r, .one = one, .ctx = ctx};
    vv_abreast(r->n, VV_ROUND_MAX, run_item, &run);
}
