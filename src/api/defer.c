/* defer.c — helpers of the admin handlers. Contract: defer.h. */
#include "defer.h"

#include <inttypes.h>
#include <stdlib.h>

struct deferred {
    struct vv_task task;
    struct vv_work work;
    struct vv_call *c;
    vv_deferred *run;
};

static void run_task(struct vv_task *t)
{
    struct deferred *d = VV_CONTAINER(t, struct deferred, task);
    d->run(d->c);
}

static void run_work(struct vv_work *w)
{
    struct deferred *d = VV_CONTAINER(w, struct deferred, work);
    d->run(d->c);
}

static struct deferred *deferred_new(struct vv_call *c, vv_deferred *run)
{
    struct deferred *d = vv_arena_alloc(vv_call_arena(c), sizeof *d);
    if (!d) {
        vv_call_close(c, "out of memory");
        return NULL;
    }
    *d = (struct deferred){.task.run = run_task, .work.run = run_work, .c = c, .run = run};
    return d;
}

void vv_call_on_control(struct vv_call *c, vv_deferred *run)
{
    struct deferred *d = deferred_new(c, run);
    if (d) vv_broker_control_post(c->broker, &d->task);
}

void vv_call_on_iopool(struct vv_call *c, vv_deferred *run)
{
    struct deferred *d = deferred_new(c, run);
    if (d) vv_iopool_submit(c->broker->iopool, &d->work);
}

char *vv_call_text(struct vv_call *c, struct vv_str s, bool *full)
{
    if (s.n < 0) return NULL;
    char *p = vv_arena_strdup(vv_call_arena(c), s.p ? s.p : "", (size_t)s.n);
    if (!p) *full = true;
    return p;
}

struct vv_str vv_call_str(struct vv_call *c, const char *text, bool *full)
{
    if (!text) return VV_STR_NULL;
    return vv_str_c(vv_call_text(c, vv_str_c(text), full));
}

int16_t vv_call_error(struct vv_call *c, int err, const struct vv_error *e, struct vv_str *message, bool *full)
{
    *message = err && e->text[0] ? vv_call_str(c, e->text, full) : VV_STR_NULL;
    return (int16_t)vv_err_kafka(err);
}

bool vv_str_has_nul(struct vv_str s)
{
    return s.n > 0 && memchr(s.p, 0, (size_t)s.n);
}

bool vv_internal_topic_name(struct vv_str name)
{
    return vv_str_is(name, "__consumer_offsets") || vv_str_is(name, "__transaction_state") ||
           vv_str_is(name, "__share_group_state") || vv_str_is(name, "__cluster_metadata");
}

static int by_name(const void *a, const void *b)
{
    const struct vv_str x = ((const struct vv_str_at *)a)->name, y = ((const struct vv_str_at *)b)->name;
    int32_t n = VV_MIN(x.n, y.n);
    int d = n > 0 ? memcmp(x.p, y.p, (size_t)n) : 0;
    return d ? d : (x.n > y.n) - (x.n < y.n);
}

bool *vv_call_duplicates(struct vv_call *c, struct vv_str (*at)(const void *ctx, int32_t i), const void *ctx, int32_t n)
{
    size_t count = n > 0 ? (size_t)n : 0;
    bool *dup = vv_arena_alloc(vv_call_arena(c), count + 1);
    struct vv_str_at *v = vv_arena_alloc(vv_call_arena(c), (count + 1) * sizeof *v);
    if (!dup || !v) return NULL;
    for (int32_t i = 0; i < n; i++) v[i] = (struct vv_str_at){at(ctx, i), i};
    qsort(v, count, sizeof *v, by_name);
    for (size_t i = 1; i < count; i++)
        if (v[i].name.n >= 0 && vv_str_eq(v[i].name, v[i - 1].name)) dup[v[i].i] = dup[v[i - 1].i] = true;
    return dup;
}

int vv_check_replicas(const struct vv_broker *b, const int32_t *ids, int32_t n, struct vv_error *e)
{
    if (n <= 0)
        return vv_error_set(e, VV_INVALID_REPLICA_ASSIGNMENT,
                            "The manual partition assignment includes an empty replica list.");
    for (int32_t i = 0; i < n; i++)
        if (ids[i] != b->node_id)
            return vv_error_set(e, VV_INVALID_REPLICA_ASSIGNMENT,
                                "The manual partition assignment includes broker %" PRId32
                                ", but no such broker is registered.",
                                ids[i]);
    if (n > 1)
        return vv_error_set(e, VV_INVALID_REPLICA_ASSIGNMENT,
                            "The manual partition assignment includes the broker %" PRId32 " more than once.",
                            b->node_id);
    return VV_OK;
}
