/* pace.c — see pace.h. */
#include "pace.h"

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

static bool wanted(struct vv_pace *p)
{
    struct vv_tier *t = p->t;
    pthread_mutex_lock(&t->mu);
    bool closing = p->part && p->part->closing;
    pthread_mutex_unlock(&t->mu);
    return !closing && !atomic_load(&t->fenced);
}

bool vv_pace_go_on(void *pace, size_t bytes)
{
    struct vv_pace *p = pace;
    struct vv_tier_config c;
    vv_tier_config_get(p->t, &c);
    p->paid_us = VV_MAX(p->paid_us, vv_mono_us(p->t->env) - 1000000); /* at most a second's worth is saved up */
    if (c.hydrate_bytes_per_s > 0) p->paid_us += (int64_t)((double)bytes / (double)c.hydrate_bytes_per_s * 1e6);
    while (wanted(p)) {
        int64_t ahead = p->paid_us - vv_mono_us(p->t->env);
        if (!vv_pace_wait(p, VV_MIN(VV_MAX(ahead, (int64_t)0), (int64_t)500000))) return false;
        if (ahead <= 500000) return wanted(p);
    }
    return false;
}

bool vv_pace_hold(struct vv_pace *p, struct vv_tier_part *part)
{
    if (part->closing || part->copying) return false;
    part->copying = true;
    p->part = part;
    return true;
}

void vv_pace_give_back(struct vv_pace *p)
{
    struct vv_tier *t = p->t;
    pthread_mutex_lock(&t->mu);
    p->part->copying = false;
    p->part = NULL;
    pthread_cond_broadcast(&t->idle);
    pthread_mutex_unlock(&t->mu);
}
