/* groups_broker.c — the coordinator in the running broker: real clock, timers of control, topics, __consumer_offsets.
 *
 * Opened on the main thread before requests come: every partition of __consumer_offsets is scanned; session timers of
 * the members found there start with control's first turn. The topic is made by the first write. On control else. */
#include "groups.h"
#include "varve/vlog.h"

#include <stdio.h>
#include <stdlib.h>

struct outside {
    struct vv_broker *b;
    struct vv_groups *g;
    struct vv_topic *log; /* __consumer_offsets; a reference */
    struct vv_task start;
};

static int64_t mono_us(void *ctx)
{
    return vv_mono_us(((struct outside *)ctx)->b->env);
}

static int64_t wall_ms(void *ctx)
{
    return vv_wall_ms(((struct outside *)ctx)->b->env);
}

static bool time_trusted(void *ctx)
{
    struct vv_broker *b = ((struct outside *)ctx)->b;
    return vv_broker_time_trusted(b, vv_wall_ms(b->env));
}

static void fill_random(void *ctx, void *dst, size_t n)
{
    vv_random(((struct outside *)ctx)->b->env, dst, n);
}

static void arm(void *ctx, struct vv_timer *t, int64_t due_us)
{
    vv_timer_arm(((struct outside *)ctx)->b->control, t, due_us);
}

static void cancel(void *ctx, struct vv_timer *t)
{
    if (t->slot) vv_timer_cancel(((struct outside *)ctx)->b->control, t);
}

static int create_log(struct outside *o)
{
    char segment[24];
    struct vv_error e = {0};
    const struct vv_broker_config *c = o->b->config;
    snprintf(segment, sizeof segment, "%d", (int)c->offsets_topic_segment_bytes);
    const struct vv_kv configs[] = {{"cleanup.policy", "compact"}, {"segment.bytes", segment}};
    int err = vv_topics_create(o->b->topics, VV_OFFSETS_TOPIC, c->offsets_topic_num_partitions, configs,
                               VV_COUNT(configs), true, false, &o->log, &e);
    if (!err && !o->log) o->log = vv_topics_get(o->b->topics, VV_OFFSETS_TOPIC, sizeof VV_OFFSETS_TOPIC - 1);
    if (!err && !o->log) err = VV_E_STATE;
    if (err) VLOG_ERROR("the topic " VV_OFFSETS_TOPIC " could not be made: %s", e.text[0] ? e.text : vv_err_name(err));
    return err;
}

static int log_open(void *ctx, int32_t *partitions)
{
    struct outside *o = ctx;
    if (o->log && o->log->deleted) {
        vv_topic_unref(o->log);
        o->log = NULL;
    }
    if (!o->log) o->log = vv_topics_get(o->b->topics, VV_OFFSETS_TOPIC, sizeof VV_OFFSETS_TOPIC - 1);
    int err = o->log ? 0 : create_log(o);
    if (!err) *partitions = o->log->partition_count;
    return err;
}

static int append(void *ctx, int32_t partition, uint8_t *batch, size_t n, struct vv_produce_done *d)
{
    struct vv_partition *p = vv_topic_partition(((struct outside *)ctx)->log, partition);
    return p ? vv_partition_append_internal(p, batch, n, d) : VV_E_STATE;
}

static bool find_topic(void *ctx, struct vv_str name, const struct vv_uuid *id, char *name_out, struct vv_uuid *id_out,
                       int32_t *partitions)
{
    struct vv_topics *ts = ((struct outside *)ctx)->b->topics;
    if (!id && name.n < 0) return false;
    struct vv_topic *t = id ? vv_topics_get_id(ts, *id) : vv_topics_get(ts, name.p, (size_t)name.n);
    if (!t) return false;
    if (name_out) snprintf(name_out, 250, "%s", t->name);
    if (id_out) *id_out = t->id;
    *partitions = t->partition_count;
    vv_topic_unref(t);
    return true;
}

static void release(void *ctx)
{
    struct outside *o = ctx;
    if (o->log) vv_topic_unref(o->log);
    free(o);
}

static const struct vv_group_ops real_ops = {.mono_us = mono_us,
                                             .wall_ms = wall_ms,
                                             .time_trusted = time_trusted,
                                             .random = fill_random,
                                             .arm = arm,
                                             .cancel = cancel,
                                             .log_open = log_open,
                                             .append = append,
                                             .topic = find_topic,
                                             .release = release};

static void start(struct vv_task *t)
{
    struct outside *o = VV_CONTAINER(t, struct outside, start);
    if (!o->g->stopping) vv_groups_started(o->g);
}

static int apply(void *ctx, const struct vv_record *r)
{
    return vv_groups_apply(ctx, r);
}

static int load(struct outside *o, struct vv_error *e)
{
    o->log = vv_topics_get(o->b->topics, VV_OFFSETS_TOPIC, sizeof VV_OFFSETS_TOPIC - 1);
    for (int32_t i = 0; o->log && i < o->log->partition_count; i++) {
        int err = vv_partition_scan(vv_topic_partition(o->log, i), apply, o->g, e);
        if (err) return err;
    }
    vv_groups_loaded(o->g);
    if (o->g->table.count) VLOG_INFO("groups: %zu loaded", o->g->table.count);
    return 0;
}

int vv_groups_open(struct vv_broker *b, struct vv_groups **out, struct vv_error *e)
{
    const struct vv_broker_config *c = b->config;
    const struct vv_group_config config = {.initial_delay_ms = c->group_initial_rebalance_delay_ms,
                                           .session_min_ms = c->group_min_session_timeout_ms,
                                           .session_max_ms = c->group_max_session_timeout_ms,
                                           .size_max = c->group_max_size,
                                           .metadata_max = c->offset_metadata_max_bytes,
                                           .batch_max = c->message_max_bytes,
                                           .retention_ms = (int64_t)c->offsets_retention_minutes * 60000,
                                           .expiry_interval_ms = c->offsets_retention_check_interval_ms,
                                           .commit_timeout_ms = c->offsets_commit_timeout_ms};
    struct outside *o = calloc(1, sizeof *o);
    if (!o) return vv_error_set(e, VV_E_NOMEM, "groups: out of memory");
    o->b = b;
    o->start.run = start;
    int err = vv_groups_new(&real_ops, o, &config, &o->g);
    if (err) {
        free(o);
        return vv_error_set(e, err, "groups: out of memory");
    }
    err = load(o, e);
    if (err) {
        vv_groups_close(o->g);
        return err;
    }
    *out = o->g;
    vv_broker_control_post(b, &o->start);
    return 0;
}
