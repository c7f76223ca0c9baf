/* create_topics.c — CreateTopics: checks as Kafka makes them, creation on `control`, durable before the answer.
 *
 * There is one broker: a replication factor of 1 (or -1) and manual assignments to this broker are what can be had.
 * Threads: control. */
#include "defer.h"
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
    if (!seen) return vv_error_set(e, VV_E_LIMIT, "too many assignments");
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
    if (!*out) return vv_error_set(e, VV_E_LIMIT, "too many configuration entries");
    for (int32_t i = 0; i < t->Configs.n; i++) {
        struct vv_str key = t->Configs.v[i].Name, value = t->Configs.v[i].Value;
        if (vv_str_has_nul(key) || vv_str_has_nul(value))
            return vv_error_set(e, VV_INVALID_CONFIG, "a configuration entry holds a NUL character");
        (*out)[i] = (struct vv_kv){vv_call_text(c, key, &full), vv_call_text(c, value, &full)};
        if (value.n < 0)
            return vv_error_set(e, VV_INVALID_CONFIG, "Null value not supported for topic configs: %s", (*out)[i].key);
    }
    return full ? vv_error_set(e, VV_E_LIMIT, "too many configuration entries") : VV_OK;
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
    return l->full ? VV_E_LIMIT : 0;
}

static int fill_configs(struct vv_call *c, const struct vv_kv *kv, size_t n, created *r)
{
    const struct vv_broker_config *b = c->broker->config;
    struct config_list l = {.c = c, .r = r};
    int32_t count = 0;
    if (c->version < 5) return VV_OK;
    vv_topic_config_each(kv, n, b, false, count_config, &count);
    if (VV_ARRAY_NEW(r->Configs, CreateTopicsResponse_CreatableTopicConfigs, vv_call_arena(c), count))
        return VV_E_LIMIT;
    r->Configs.n = 0;
    return vv_topic_config_each(kv, n, b, false, add_config, &l);
}

/* ---- one topic, then all ---- */

static int create_one(struct vv_call *c, const creatable *t, created *r, struct vv_error *e)
{
    const struct CreateTopicsRequest *q = c->req;
    struct vv_topic *topic = NULL;
    struct vv_kv *configs;
    int32_t partitions = 0;
    bool full = false;
    if (!vv_topic_name_ok(t->Name.p, (size_t)VV_MAX(t->Name.n, 0), e)) return VV_INVALID_TOPIC_EXCEPTION;
    char *name = vv_call_text(c, t->Name, &full);
    if (!name) return vv_error_set(e, VV_E_LIMIT, "the request is too large");
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
    vv_call_on_control(c, create_all);
}
