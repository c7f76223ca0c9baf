/* quota.c — meters. Contract: quota.h.
 *
 * A meter is a ring of windows, found by kind and by whose use is counted together. A meter whose windows have all
 * passed says nothing, so it may go without a trace: that is how the table stays small when client ids come and go.
 * Beyond METERS_MAX busy ones newcomers share one per kind. */
#include "quota.h"

#include "group_map.h"
#include "metrics.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define METERS_MAX 100000
#define SWEEP_MIN  1024

struct meter {
    struct vv_gnode node;
    int64_t first, last; /* numbers of windows: the oldest that counts, the newest that was written */
    uint64_t *used;      /* by window number modulo the number of windows */
    char key[];
};

struct vv_quota_meters {
    pthread_mutex_t lock;
    struct vv_gmap table; /* lock */
    size_t sweep_at;      /* lock */
    int64_t swept;        /* lock; in this window: once is enough */
    int64_t fallback[VV_QUOTA_KINDS]; /* lock; 0: none */
    int windows;
    int64_t window_ms;
};

int vv_quotas_new(int windows, int64_t window_ms, struct vv_quotas **out)
{
    struct vv_quotas *q = calloc(1, sizeof *q);
    struct vv_quota_meters *m = calloc(1, sizeof *m);
    if (!q || !m) {
        free(q);
        free(m);
        return VV_E_NOMEM;
    }
    *m = (struct vv_quota_meters){.sweep_at = SWEEP_MIN, .windows = windows, .window_ms = window_ms};
    pthread_mutex_init(&m->lock, NULL);
    q->meters = m;
    *out = q;
    return VV_OK;
}

static void drop_meter(struct vv_quota_meters *m, struct meter *t)
{
    vv_gmap_remove(&m->table, &t->node);
    free(t->used);
    free(t);
}

void vv_quotas_free(struct vv_quotas *q)
{
    if (!q) return;
    struct vv_gcursor at = {0};
    for (struct vv_gnode *node; (node = vv_gmap_next(&q->meters->table, &at));)
        drop_meter(q->meters, VV_CONTAINER(node, struct meter, node));
    vv_gmap_release(&q->meters->table);
    pthread_mutex_destroy(&q->meters->lock);
    vv_quota_set_release(&q->set);
    free(q->meters);
    free(q);
}

static void tell(struct vv_quotas *q) /* lock held */
{
    for (int k = 0; k < VV_QUOTA_KINDS; k++) {
        bool on = q->meters->fallback[k] > 0;
        for (size_t i = 0; i < q->set.n && !on; i++) on = q->set.v[i].limit[k] > 0;
        atomic_store(&q->on[k], on);
    }
}

void vv_quotas_use(struct vv_quotas *q, struct vv_quota_set *set)
{
    struct vv_quota_set old = q->set;
    pthread_mutex_lock(&q->meters->lock);
    q->set = *set;
    tell(q);
    pthread_mutex_unlock(&q->meters->lock);
    *set = (struct vv_quota_set){0};
    vv_quota_set_release(&old);
}

void vv_quotas_default(struct vv_quotas *q, enum vv_quota_kind kind, int64_t limit)
{
    pthread_mutex_lock(&q->meters->lock);
    q->meters->fallback[kind] = limit;
    tell(q);
    pthread_mutex_unlock(&q->meters->lock);
}

/* ---- meters; all with the lock held ---- */

static void advance(const struct vv_quota_meters *m, struct meter *t, int64_t now)
{
    if (now - t->last >= m->windows) {
        memset(t->used, 0, (size_t)m->windows * sizeof *t->used);
        t->first = t->last = now;
    }
    while (t->last < now) t->used[++t->last % m->windows] = 0;
    t->first = VV_MAX(t->first, now - m->windows + 1);
}

static void sweep(struct vv_quota_meters *m, int64_t now)
{
    struct vv_gcursor at = {0};
    for (struct vv_gnode *node; (node = vv_gmap_next(&m->table, &at));) {
        struct meter *t = VV_CONTAINER(node, struct meter, node);
        if (now - t->last >= m->windows) drop_meter(m, t);
    }
    m->sweep_at = VV_MIN(VV_MAX((size_t)SWEEP_MIN, m->table.count * 2), (size_t)METERS_MAX);
    m->swept = now;
}

static struct meter *add_meter(struct vv_quota_meters *m, struct vv_str key, int64_t now)
{
    struct meter *t = calloc(1, sizeof *t + (size_t)key.n);
    if (t) t->used = calloc((size_t)m->windows, sizeof *t->used);
    if (!t || !t->used) {
        free(t);
        return NULL;
    }
    memcpy(t->key, key.p, (size_t)key.n);
    t->first = t->last = now;
    if (!vv_gmap_put(&m->table, &t->node, (struct vv_str){t->key, key.n})) return t;
    free(t->used);
    free(t);
    return NULL;
}

/* Kind, then each name with its presence and length before it. */
static char *add_name(char *p, bool has, struct vv_str name)
{
    int32_t n = has ? VV_MAX(name.n, 0) : -1;
    memcpy(p, &n, sizeof n);
    p += sizeof n;
    if (n > 0) memcpy(p, name.p, (size_t)n);
    return p + VV_MAX(n, 0);
}

static struct meter *meter_of(struct vv_quota_meters *m, enum vv_quota_kind kind, const struct vv_quota_entity *who,
                              int64_t now)
{
    char small[512], *key = small;
    size_t room = 1 + 8 + (size_t)VV_MAX(who->user.n, 0) + (size_t)VV_MAX(who->client.n, 0);
    if (room > sizeof small && !(key = malloc(room))) return NULL;
    *key = (char)kind;
    char *end = add_name(add_name(key + 1, who->has_user, who->user), who->has_client, who->client);
    struct vv_str k = {key, (int32_t)(end - key)};
    struct vv_gnode *node = vv_gmap_get(&m->table, k);
    if (!node && m->table.count >= m->sweep_at && m->swept != now) sweep(m, now);
    if (!node && m->table.count >= METERS_MAX) {
        k.n = 1;
        node = vv_gmap_get(&m->table, k);
    }
    struct meter *t = node ? VV_CONTAINER(node, struct meter, node) : add_meter(m, k, now);
    if (key != small) free(key);
    return t;
}

static double limit_of(struct vv_quotas *q, enum vv_quota_kind kind, struct vv_str client, struct vv_quota_entity *who)
{
    double limit = vv_quota_set_find(&q->set, VV_QUOTA_USER, client, kind, who);
    if (limit > 0) return limit;
    *who = (struct vv_quota_entity){.has_client = true, .client = client};
    return (double)q->meters->fallback[kind];
}

/* How long until use over time has come down to the limit. */
static int64_t wait_ms(const struct vv_quota_meters *m, const struct meter *t, double limit, int64_t now_ms)
{
    double used = 0;
    for (int i = 0; i < m->windows; i++) used += (double)t->used[i];
    int64_t elapsed = VV_MAX(now_ms - t->first * m->window_ms, (m->windows - 1) * m->window_ms);
    double wait = used * 1000 / limit - (double)VV_MAX(elapsed, 1);
    return wait <= 0 ? 0 : wait >= INT32_MAX ? INT32_MAX : (int64_t)wait + 1;
}

int64_t vv_quota_count(struct vv_quotas *q, enum vv_quota_kind kind, struct vv_str client, uint64_t n, int64_t now_ms)
{
    struct vv_quota_meters *m = q->meters;
    struct vv_quota_entity who;
    int64_t wait = 0, now = now_ms / m->window_ms;
    if (client.n < 0) client = VV_STR_LIT(""); /* a client without an id */
    pthread_mutex_lock(&m->lock);
    double limit = limit_of(q, kind, client, &who);
    struct meter *t = limit > 0 ? meter_of(m, kind, &who, now) : NULL; /* out of memory: not counted */
    if (t) {
        advance(m, t, now);
        t->used[now % m->windows] += n;
        wait = wait_ms(m, t, limit, now_ms);
    }
    pthread_mutex_unlock(&m->lock);
    return wait;
}

int64_t vv_quota_burst_of(struct vv_quotas *q, enum vv_quota_kind kind, struct vv_str client)
{
    struct vv_quota_meters *m = q->meters;
    struct vv_quota_entity who;
    if (client.n < 0) client = VV_STR_LIT("");
    pthread_mutex_lock(&m->lock);
    double limit = limit_of(q, kind, client, &who);
    pthread_mutex_unlock(&m->lock);
    double most = limit * (double)VV_MAX(m->windows - 1, 1) * (double)m->window_ms / 1000;
    return limit <= 0 || most >= 9e18 ? INT64_MAX : (int64_t)VV_MAX(most, 1.0);
}
