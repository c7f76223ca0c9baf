/* groups_fake.h — a coordinator in a world of its own: clock and timers by hand, a log in memory whose writes become
 * durable when the test says so, and calls whose responses go through the codec at their version. */
#ifndef GROUPS_FAKE_H
#define GROUPS_FAKE_H
#include "groups.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define TIMERS_MAX 512
#define CALLS_MAX 2048

struct kept { /* one record of the log */
    uint8_t *key, *value;
    int32_t key_n, value_n;
};
struct call {
    struct vv_group_call gc;
    const struct vv_msg_schema *schema;
    struct vv_arena arena;
    uint8_t *bytes;
    int answers;
    union {
        struct JoinGroupResponse join;
        struct SyncGroupResponse sync;
        struct HeartbeatResponse heartbeat;
        struct LeaveGroupResponse leave;
        struct OffsetCommitResponse commit;
        struct OffsetFetchResponse fetch;
        struct OffsetDeleteResponse offset_delete;
        struct ListGroupsResponse list;
        struct DescribeGroupsResponse describe;
        struct DeleteGroupsResponse delete_groups;
    };
};
static struct world {
    struct vv_groups *g;
    struct vv_group_config config;
    int64_t us, ms_offset;
    bool untrusted;
    uint64_t random;
    struct vv_timer *timers[TIMERS_MAX];
    size_t timer_count;
    struct vv_produce_done *queue[64];
    size_t queued;
    int refuse; /* the next append's error */
    bool hold;  /* writes wait for settle() */
    struct kept *log;
    size_t log_count;
    int batches;
    struct call *calls[CALLS_MAX];
    size_t call_count;
    const char *topics[4];
    uint8_t topic_ids[4];
} w;

static int64_t fake_mono(void *ctx)
{
    (void)ctx;
    return w.us;
}

static int64_t fake_wall(void *ctx)
{
    (void)ctx;
    return 1700000000000 + w.us / 1000 + w.ms_offset;
}

static bool fake_trusted(void *ctx)
{
    (void)ctx;
    return !w.untrusted;
}

static void fake_random(void *ctx, void *dst, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++) {
        w.random = w.random * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)dst)[i] = (uint8_t)(w.random >> 56);
    }
}

static void fake_cancel(void *ctx, struct vv_timer *t)
{
    (void)ctx;
    for (size_t i = 0; i < w.timer_count; i++)
        if (w.timers[i] == t) {
            w.timers[i] = w.timers[--w.timer_count];
            break;
        }
    t->slot = 0;
}

static void fake_arm(void *ctx, struct vv_timer *t, int64_t due_us)
{
    fake_cancel(ctx, t);
    assert_true(w.timer_count < TIMERS_MAX);
    assert_non_null(t->fire);
    t->due_us = due_us;
    t->slot = 1;
    w.timers[w.timer_count++] = t;
}

static struct vv_timer *next_timer(void)
{
    struct vv_timer *first = NULL;
    for (size_t i = 0; i < w.timer_count; i++)
        if (!first || w.timers[i]->due_us < first->due_us) first = w.timers[i];
    return first;
}

/* Time passes, timer by timer. */
static void __attribute__((unused)) pass(int64_t ms)
{
    int64_t end = w.us + ms * 1000;
    for (struct vv_timer *t; (t = next_timer()) && t->due_us <= end;) {
        w.us = VV_MAX(w.us, t->due_us);
        fake_cancel(NULL, t);
        t->fire(t);
    }
    w.us = end;
}

static int fake_log_open(void *ctx, int32_t *partitions)
{
    (void)ctx;
    *partitions = 50;
    return 0;
}

static int keep(void *ctx, const struct vv_record *r)
{
    (void)ctx;
    w.log = realloc(w.log, (w.log_count + 1) * sizeof *w.log);
    struct kept *k = &w.log[w.log_count++];
    *k = (struct kept){malloc((size_t)r->key_n), NULL, r->key_n, r->value_n};
    memcpy(k->key, r->key, (size_t)r->key_n);
    if (r->value_n < 0) return 0;
    k->value = malloc((size_t)r->value_n + 1);
    memcpy(k->value, r->value, (size_t)r->value_n);
    return 0;
}

static void __attribute__((unused)) settle(int err)
{
    while (w.queued) {
        struct vv_produce_done *d = w.queue[0];
        memmove(w.queue, w.queue + 1, --w.queued * sizeof *w.queue);
        d->done(d, err);
    }
}

static int fake_append(void *ctx, int32_t partition, uint8_t *batch, size_t n, struct vv_produce_done *d)
{
    struct vv_batch b;
    (void)ctx;
    assert_in_range(partition, 0, 49);
    if (w.refuse) return w.refuse;
    assert_int_equal(vv_batch_parse(batch, n, &b), 0);
    assert_true(vv_batch_crc_ok(batch, &b));
    assert_int_equal(vv_batch_each(batch, &b, 1 << 20, keep, NULL), 0);
    w.batches++;
    assert_true(w.queued < VV_COUNT(w.queue));
    w.queue[w.queued++] = d;
    return 0;
}

static bool fake_topic(void *ctx, struct vv_str name, const struct vv_uuid *id, char *name_out, struct vv_uuid *id_out,
                       int32_t *partitions)
{
    (void)ctx;
    for (size_t i = 0; i < VV_COUNT(w.topics); i++) {
        if (!w.topics[i]) continue;
        if (id ? id->b[0] != w.topic_ids[i] : !vv_str_is(name, w.topics[i])) continue;
        if (name_out) strcpy(name_out, w.topics[i]);
        if (id_out) *id_out = (struct vv_uuid){{w.topic_ids[i]}};
        *partitions = 4;
        return true;
    }
    return false;
}

static const struct vv_group_ops fake_ops = {.mono_us = fake_mono,
                                             .wall_ms = fake_wall,
                                             .time_trusted = fake_trusted,
                                             .random = fake_random,
                                             .arm = fake_arm,
                                             .cancel = fake_cancel,
                                             .log_open = fake_log_open,
                                             .append = fake_append,
                                             .topic = fake_topic};

static int world_open(void **state)
{
    (void)state;
    w = (struct world){.us = 1000000, .random = 1, .topics = {"t", "u"}, .topic_ids = {1, 2}};
    w.config = (struct vv_group_config){.initial_delay_ms = 3000,
                                        .session_min_ms = 6000,
                                        .session_max_ms = 1800000,
                                        .size_max = 1000,
                                        .metadata_max = 4096,
                                        .batch_max = 1 << 20,
                                        .retention_ms = 7 * 86400000LL,
                                        .expiry_interval_ms = 600000,
                                        .commit_timeout_ms = 5000};
    assert_int_equal(vv_groups_new(&fake_ops, NULL, &w.config, &w.g), 0);
    vv_groups_started(w.g);
    return 0;
}

/* The broker stops (cleanly or not: the log is all that stays) and starts again. */
static void __attribute__((unused)) restart(void)
{
    vv_groups_stop(w.g);
    settle(0);
    assert_int_equal(w.timer_count, 0);
    vv_groups_close(w.g);
    assert_int_equal(vv_groups_new(&fake_ops, NULL, &w.config, &w.g), 0);
    for (size_t i = 0; i < w.log_count; i++) {
        struct vv_record r = {.offset = (int64_t)i,
                              .key = w.log[i].key,
                              .key_n = w.log[i].key_n,
                              .value = w.log[i].value,
                              .value_n = w.log[i].value_n};
        assert_int_equal(vv_groups_apply(w.g, &r), 0);
    }
    vv_groups_loaded(w.g);
    vv_groups_started(w.g);
}

static int world_close(void **state)
{
    (void)state;
    vv_groups_stop(w.g);
    settle(0);
    assert_int_equal(w.timer_count, 0); /* every timer belongs to something that was stopped */
    struct vv_gcursor at = {0};
    for (struct vv_gnode *n; (n = vv_gmap_next(&w.g->table, &at));)
        vv_group_remove(VV_CONTAINER(n, struct vv_group, node));
    assert_int_equal(w.g->bytes, 0); /* what was counted in was counted out */
    vv_groups_close(w.g);
    for (size_t i = 0; i < w.call_count; i++) {
        assert_int_equal(w.calls[i]->answers, 1); /* exactly once, parked or not */
        vv_arena_release(&w.calls[i]->arena);
        free(w.calls[i]->bytes);
        free(w.calls[i]);
    }
    for (size_t i = 0; i < w.log_count; i++) {
        free(w.log[i].key);
        free(w.log[i].value);
    }
    free(w.log);
    return 0;
}

static void answered(struct vv_group_call *gc, const void *response)
{
    struct call *c = VV_CONTAINER(gc, struct call, gc);
    struct vv_out out;
    struct vv_chain chain = {0};
    size_t used;
    c->answers++;
    assert_int_equal(c->answers, 1);
    vv_out_init(&out);
    assert_int_equal(vv_msg_encode(c->schema, gc->version, response, &out), 0);
    assert_int_equal(vv_out_finish(&out, &chain), 0);
    c->bytes = malloc(chain.bytes + 1);
    vv_chain_copy_out(&chain, c->bytes);
    size_t n = chain.bytes;
    vv_chain_release(&chain);
    assert_int_equal(vv_msg_decode(c->schema, gc->version, c->bytes, n, &c->arena, &c->join, &used), 0);
    assert_int_equal(used, n);
}

static struct call *new_call(const struct vv_msg_schema *schema, int16_t version)
{
    struct call *c = calloc(1, sizeof *c);
    assert_true(w.call_count < CALLS_MAX);
    w.calls[w.call_count++] = c;
    c->schema = schema;
    vv_arena_init(&c->arena, 0);
    c->gc.version = version;
    c->gc.arena = &c->arena;
    c->gc.client_id = VV_STR_LIT("client");
    c->gc.client_host = "/127.0.0.1";
    c->gc.done = answered;
    return c;
}

/* Hands the call over; writes become durable at once unless the test holds them. */
#define SEND(c, fn, request)                                                                       \
    do {                                                                                           \
        (c)->gc.req = (request);                                                                   \
        fn(w.g, &(c)->gc);                                                                         \
        if (!w.hold) settle(0);                                                                    \
    } while (0)
#define NEW_REQUEST(M, c)                                                                          \
    struct M *r = vv_arena_alloc(&(c)->arena, sizeof *r);                                          \
    VV_MSG_INIT(M, r)

static __attribute__((unused)) char *text(struct call *c, struct vv_str s)
{
    return vv_arena_strdup(&c->arena, s.n > 0 ? s.p : "", (size_t)VV_MAX(s.n, 0));
}
#endif
