/* create_topics.c — CreateTopics: checks as Kafka makes them, creation on `control`, durable before the answer.
 *
 * There is one broker: a replication factor of 1 (or -1) and manual assignments to this broker are what can be had.
 *
 * A Varve extension in the protocol's own words: the configuration `varve.undelete=ID|NAME` brings a deleted topic back, inside its grace,
 * under the name that the request creates (src/broker/undelete.c). It is a creation: the same permission, the same refusal when the name
 * is there, and any other broker refuses an unknown configuration. Nothing is advertised, nobody else meets it. One such topic per request, alone:
 * it may wait for the store.
 *
 * Threads: control; undeletion opens on the iopool. */
#include "defer.h"
#include "live.h"
#include "gen/messages.h"

#include <inttypes.h>

typedef struct CreateTopicsRequest_CreatableTopic creatable;
typedef struct CreateTopicsResponse_CreatableTopicResult created;

static struct vv_str name_at(const void *ctx, int32_t i)
{
    return ((const struct CreateTopicsRequest *)ctx)->Topics.v[i].Name;
}

static int check_assignments(struct vv_call *c, const creatable *t, struct vv_error *e)
{
    int32_t n = t->Assignments.n;
    if (t->ReplicationFactor != -1)
        return vv_error_set(e, VV_INVALID_REQUEST,
                            "A manual partition assignment was specified, but replication factor was not set to -1.");
    if (t->NumPartitions != -1)
        return vv_error_set(e, VV_INVALID_REQUEST,
                            "A manual partition assignment was specified, but numPartitions was not set to -1.");
    bool *seen = vv_arena_alloc(vv_call_arena(c), (size_t)n);
    if (!seen) return vv_error_set(e, vv_arena_err(vv_call_arena(c)), "no memory for the assignments");
    for (int32_t i = 0; i < n; i++) {
        int32_t p = t->Assignments.v[i].PartitionIndex;
        if (p < 0 || p >= n)
            return vv_error_set(e, VV_INVALID_REPLICA_ASSIGNMENT,
                                "partitions should be a consecutive 0-based integer sequence");
        if (seen[p])
            return vv_error_set(e, VV_INVALID_REPLICA_ASSIGNMENT,
                                "Found multiple manual partition assignments for partition %" PRId32, p);
        seen[p] = true;
        int err = vv_check_replicas(c->broker, t->Assignments.v[i].BrokerIds.v, t->Assignments.v[i].BrokerIds.n, e);
        if (err) return err;
    }
    return VV_OK;
}

static int check_shape(struct vv_call *c, const creatable *t, int32_t *partitions, struct vv_error *e)
{
    if (t->Assignments.n > 0) {
        *partitions = t->Assignments.n;
        return check_assignments(c, t, e);
    }
    if (t->ReplicationFactor < -1 || t->ReplicationFactor == 0)
        return vv_error_set(e, VV_INVALID_REPLICATION_FACTOR,
                            "Replication factor must be larger than 0, or -1 to use the default value.");
    if (t->ReplicationFactor > 1)
        return vv_error_set(
            e, VV_INVALID_REPLICATION_FACTOR,
            "Unable to replicate the partition %d time(s): The target replication factor of %d cannot be reached "
            "because only 1 broker(s) are registered.",
            t->ReplicationFactor, t->ReplicationFactor);
    *partitions = t->NumPartitions == -1 ? c->broker->config->num_partitions : t->NumPartitions;
    if (*partitions <= 0)
        return vv_error_set(e, VV_INVALID_PARTITIONS,
                            "Number of partitions must be larger than 0, or -1 to use the default value.");
    return VV_OK;
}

static int take_configs(struct vv_call *c, const creatable *t, struct vv_kv **out, struct vv_error *e)
{
    bool full = false;
    *out = vv_arena_alloc(vv_call_arena(c), ((size_t)VV_MAX(t->Configs.n, 0) + 1) * sizeof **out);
    if (!*out) return vv_error_set(e, vv_arena_err(vv_call_arena(c)), "no memory for the configuration entries");
    for (int32_t i = 0; i < t->Configs.n; i++) {
        struct vv_str key = t->Configs.v[i].Name, value = t->Configs.v[i].Value;
        if (vv_str_has_nul(key) || vv_str_has_nul(value))
            return vv_error_set(e, VV_INVALID_CONFIG, "a configuration entry holds a NUL character");
        (*out)[i] = (struct vv_kv){vv_call_text(c, key, &full), vv_call_text(c, value, &full)};
        if (value.n < 0)
            return vv_error_set(e, VV_INVALID_CONFIG, "Null value not supported for topic configs: %s", (*out)[i].key);
    }
    return full ? vv_error_set(e, vv_arena_err(vv_call_arena(c)), "no memory for the configuration entries") : VV_OK;
}

/* ---- the answer's configuration ---- */

struct config_list {
    struct vv_call *c;
    created *r;
    bool full;
};

static int count_config(void *ctx, const struct vv_topic_config_value *v)
{
    (void)v;
    ++*(int32_t *)ctx;
    return 0;
}

static int add_config(void *ctx, const struct vv_topic_config_value *v)
{
    struct config_list *l = ctx;
    l->r->Configs.v[l->r->Configs.n++] = (struct CreateTopicsResponse_CreatableTopicConfigs){
        .Name = vv_str_c(v->value.name),
        .Value = v->value.sensitive ? VV_STR_NULL : vv_call_str(l->c, v->value.value, &l->full),
        .ReadOnly = v->value.read_only,
        .ConfigSource = (int8_t)v->value.source,
        .IsSensitive = v->value.sensitive,
    };
    return l->full ? vv_arena_err(vv_call_arena(l->c)) : 0;
}

static int fill_configs(struct vv_call *c, const struct vv_kv *kv, size_t n, created *r)
{
    const struct vv_broker_config *b = vv_broker_live(c->broker);
    struct config_list l = {.c = c, .r = r};
    int32_t count = 0;
    if (c->version < 5) return VV_OK;
    vv_topic_config_each(kv, n, b, false, count_config, &count);
    if (VV_ARRAY_NEW(r->Configs, CreateTopicsResponse_CreatableTopicConfigs, vv_call_arena(c), count))
        return vv_arena_err(vv_call_arena(c));
    r->Configs.n = 0;
    return vv_topic_config_each(kv, n, b, false, add_config, &l);
}

/* ---- undelete ---- */

#define UNDELETE "varve.undelete"

struct returning {
    struct vv_call *c;
    struct CreateTopicsResponse r;
    struct vv_undelete *u;
};

static bool wants_undelete(const struct CreateTopicsRequest *q)
{
    for (int32_t i = 0; i < q->Topics.n; i++)
        for (int32_t k = 0; k < q->Topics.v[i].Configs.n; k++)
            if (vv_str_is(q->Topics.v[i].Configs.v[k].Name, UNDELETE)) return true;
    return false;
}

static void undelete_reply(struct returning *x, int err, const struct vv_error *e)
{
    bool full = false;
    created *t = &x->r.Topics.v[0];
    t->ErrorCode = vv_call_error(x->c, err, e, &t->ErrorMessage, &full);
    vv_call_reply(x->c, &x->r);
}

/* Between the steps the call carries this instead of the request. */
static struct returning *returning_of(struct vv_call *c)
{
    return c->req;
}

static void undelete_finish(struct vv_call *c)
{
    struct returning *x = returning_of(c);
    struct vv_error e = {0};
    struct vv_topic *t;
    int err = vv_undelete_end(x->u, &t, &e);
    created *r = &x->r.Topics.v[0];
    if (t) {
        r->TopicId = t->id;
        r->NumPartitions = t->partition_count;
        r->ReplicationFactor = 1;
        if (fill_configs(c, t->overrides, t->override_count, r)) r->TopicConfigErrorCode = VV_UNKNOWN_SERVER_ERROR;
        vv_topic_unref(t);
    }
    undelete_reply(x, err, &e);
}

static void undelete_open(struct vv_call *c)
{
    vv_undelete_open(returning_of(c)->u);
    vv_call_on_control(c, undelete_finish);
}

/* The configurations but for the word itself. */
static const char *split_configs(struct vv_kv *kv, size_t *n)
{
    const char *what = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++) {
        if (!strcmp(kv[i].key, UNDELETE))
            what = kv[i].value;
        else
            kv[kept++] = kv[i];
    }
    *n = kept;
    return what;
}

static int undelete_begin(struct returning *x, struct vv_error *e)
{
    struct vv_call *c = x->c;
    const struct CreateTopicsRequest *q = c->req;
    const creatable *t = &q->Topics.v[0];
    struct vv_kv *kv;
    size_t n = (size_t)VV_MAX(t->Configs.n, 0);
    bool full = false;
    if (c->broker->config->tier_replica) return vv_replica_refusal(c->broker, VV_POLICY_VIOLATION, e);
    if (q->Topics.n != 1)
        return vv_error_set(e, VV_INVALID_REQUEST, "A topic that is brought back (" UNDELETE ") must be alone in its request.");
    char *name = vv_call_text(c, t->Name, &full);
    if (!name) return vv_error_set(e, vv_arena_err(vv_call_arena(c)), "no memory for the request");
    if (vv_str_has_nul(t->Name)) return vv_error_set(e, VV_INVALID_TOPIC_EXCEPTION, "the name holds a NUL character");
    if (vv_internal_topic_name(t->Name))
        return vv_error_set(e, VV_INVALID_REQUEST, "Creation of internal topic %s is prohibited.", name);
    if (t->Assignments.n > 0 || t->NumPartitions != -1)
        return vv_error_set(e, VV_INVALID_REQUEST, "A topic that is brought back has the partitions it had: give none.");
    int err = take_configs(c, t, &kv, e);
    if (err) return err;
    const char *what = split_configs(kv, &n);
    return vv_undelete_begin(c->broker->topics, name, what, kv, n, q->ValidateOnly, &x->u, e);
}

static void undelete_all(struct vv_call *c)
{
    const struct CreateTopicsRequest *q = c->req;
    struct returning *x = vv_arena_alloc(vv_call_arena(c), sizeof *x);
    struct vv_error e = {0};
    if (x) *x = (struct returning){.c = c};
    if (x) VV_MSG_INIT(CreateTopicsResponse, &x->r);
    if (!x || VV_ARRAY_NEW(x->r.Topics, CreateTopicsResponse_CreatableTopicResult, vv_call_arena(c), q->Topics.n)) {
        vv_call_close(c, "out of memory");
        return;
    }
    for (int32_t i = 0; i < q->Topics.n; i++) x->r.Topics.v[i].Name = q->Topics.v[i].Name;
    int err = undelete_begin(x, &e);
    for (int32_t i = 1; i < q->Topics.n; i++) x->r.Topics.v[i].ErrorCode = VV_INVALID_REQUEST;
    if (err || !x->u) {
        undelete_reply(x, err, &e);
        return;
    }
    c->req = x; /* from here on the call is ours alone */
    vv_call_on_iopool(c, undelete_open);
}

/* ---- one topic, then all ---- */

static int create_one(struct vv_call *c, const creatable *t, created *r, struct vv_error *e)
{
    const struct CreateTopicsRequest *q = c->req;
    struct vv_topic *topic = NULL;
    struct vv_kv *configs;
    int32_t partitions = 0;
    bool full = false;
    if (c->broker->config->tier_replica) return vv_replica_refusal(c->broker, VV_POLICY_VIOLATION, e);
    if (!vv_topic_name_ok(t->Name.p, (size_t)VV_MAX(t->Name.n, 0), e)) return VV_INVALID_TOPIC_EXCEPTION;
    char *name = vv_call_text(c, t->Name, &full);
    if (!name) return vv_error_set(e, vv_arena_err(vv_call_arena(c)), "no memory for the request");
    if (vv_internal_topic_name(t->Name))
        return vv_error_set(e, VV_INVALID_REQUEST, "Creation of internal topic %s is prohibited.", name);
    int err = check_shape(c, t, &partitions, e);
    if (!err) err = take_configs(c, t, &configs, e);
    size_t n = (size_t)VV_MAX(t->Configs.n, 0);
    if (!err)
        err = vv_topics_create(c->broker->topics, name, partitions, configs, n, false, q->ValidateOnly, &topic, e);
    if (err) return err;
    if (topic) {
        r->TopicId = topic->id;
        vv_topic_unref(topic);
    }
    r->NumPartitions = partitions;
    r->ReplicationFactor = 1;
    if (fill_configs(c, configs, n, r))
        r->TopicConfigErrorCode = VV_UNKNOWN_SERVER_ERROR; /* it is created all the same */
    return VV_OK;
}

static void create_all(struct vv_call *c)
{
    const struct CreateTopicsRequest *q = c->req;
    struct CreateTopicsResponse r;
    bool full = false;
    VV_MSG_INIT(CreateTopicsResponse, &r);
    bool *dup = vv_call_duplicates(c, name_at, q, q->Topics.n);
    if (!dup ||
        VV_ARRAY_NEW(r.Topics, CreateTopicsResponse_CreatableTopicResult, vv_call_arena(c), VV_MAX(q->Topics.n, 0))) {
        vv_call_close(c, "out of memory");
        return;
    }
    for (int32_t i = 0; i < r.Topics.n; i++) {
        struct vv_error e = {0};
        r.Topics.v[i].Name = q->Topics.v[i].Name;
        int err = dup[i] ? vv_error_set(&e, VV_INVALID_REQUEST, "Duplicate topic name.")
                         : create_one(c, &q->Topics.v[i], &r.Topics.v[i], &e);
        r.Topics.v[i].ErrorCode = vv_call_error(c, err, &e, &r.Topics.v[i].ErrorMessage, &full);
    }
    vv_call_reply(c, &r);
}

void vv_handle_create_topics(struct vv_call *c)
{
    vv_call_on_control(c, wants_undelete(c->req) ? undelete_all : create_all);
}
