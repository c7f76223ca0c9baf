/* create_partitions.c — CreatePartitions: a topic grows. Threads: control. */
#include "defer.h"
#include "gen/messages.h"

#include <inttypes.h>

typedef struct CreatePartitionsRequest_CreatePartitionsTopic growing;

static struct vv_str name_at(const void *ctx, int32_t i)
{
    return ((const struct CreatePartitionsRequest *)ctx)->Topics.v[i].Name;
}

static int check(struct vv_call *c, const growing *g, const struct vv_topic *t, struct vv_error *e)
{
    int32_t has = t->partition_count, more = g->Count - has, given = g->Assignments.n;
    if (t->internal)
        return vv_error_set(e, VV_INVALID_REQUEST, "%s is an internal topic: its number of partitions is fixed.",
                            t->name);
    if (g->Count == has)
        return vv_error_set(e, VV_INVALID_PARTITIONS, "Topic already has %" PRId32 " partition(s).", has);
    if (g->Count < has)
        return vv_error_set(e, VV_INVALID_PARTITIONS,
                            "The topic %s currently has %" PRId32 " partition(s); %" PRId32
                            " would not be an increase.",
                            t->name, has, g->Count);
    if (given > 0 && given != more)
        return vv_error_set(e, VV_INVALID_REPLICA_ASSIGNMENT,
                            "Attempted to add %" PRId32 " additional partition(s), but only %" PRId32
                            " assignment(s) were specified.",
                            more, given);
    int err = VV_OK;
    for (int32_t i = 0; i < given && !err; i++)
        err = vv_check_replicas(c->broker, g->Assignments.v[i].BrokerIds.v, g->Assignments.v[i].BrokerIds.n, e);
    return err;
}

static int grow_one(struct vv_call *c, const growing *g, struct vv_error *e)
{
    const struct CreatePartitionsRequest *q = c->req;
    struct vv_topic *t = vv_topics_get(c->broker->topics, g->Name.p, (size_t)VV_MAX(g->Name.n, 0));
    if (!t) return vv_error_set(e, VV_UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.");
    int err = check(c, g, t, e);
    if (!err && c->broker->config->tier_replica) err = vv_replica_refusal(c->broker, VV_POLICY_VIOLATION, e);
    if (!err) err = vv_topics_add_partitions(c->broker->topics, t, g->Count, q->ValidateOnly, e);
    vv_topic_unref(t);
    return err;
}

static void grow_all(struct vv_call *c)
{
    const struct CreatePartitionsRequest *q = c->req;
    struct CreatePartitionsResponse r;
    int32_t n = VV_MAX(q->Topics.n, 0);
    bool full = false;
    VV_MSG_INIT(CreatePartitionsResponse, &r);
    bool *dup = vv_call_duplicates(c, name_at, q, n);
    if (!dup || VV_ARRAY_NEW(r.Results, CreatePartitionsResponse_CreatePartitionsTopicResult, vv_call_arena(c), n)) {
        vv_call_close(c, "out of memory");
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        struct vv_error e = {0};
        r.Results.v[i].Name = q->Topics.v[i].Name;
        int err = dup[i] ? vv_error_set(&e, VV_INVALID_REQUEST, "Duplicate topic in request.")
                         : grow_one(c, &q->Topics.v[i], &e);
        r.Results.v[i].ErrorCode = vv_call_error(c, err, &e, &r.Results.v[i].ErrorMessage, &full);
    }
    vv_call_reply(c, &r);
}

void vv_handle_create_partitions(struct vv_call *c)
{
    vv_call_on_control(c, grow_all);
}
