/* metadata.c — Metadata: brokers, topics, leaders; makes missing topics when both sides allow it.
 *
 * One broker answers for everything: it leads every partition and is the controller. A missing topic that may be made
 * is made on `control` before the answer, so that the client need not ask again; everything else is answered inline.
 * Threads: the reactor, or `control` after a creation; references to topics are held while they are described. */
#include "call.h"
#include "broker.h"
#include "partition.h"
#include "gen/messages.h"

#include <stdio.h>
#include <stdlib.h>

/* What a client may do where nobody checks: the bits Kafka answers without an authorizer. */
enum { TOPIC_OPERATIONS = 3576, CLUSTER_OPERATIONS = 8096 };

struct metadata_op {
    struct vv_call *c;
    struct vv_task task; /* on control: creations */
};

static bool internal_name(struct vv_str s)
{
    return vv_str_is(s, "__consumer_offsets") || vv_str_is(s, "__transaction_state") ||
           vv_str_is(s, "__share_group_state");
}

/* ---- filling ---- */

static int fill_topic(struct vv_call *c, struct vv_topic *t, struct MetadataResponse_MetadataResponseTopic *out)
{
    const struct MetadataRequest *q = c->req;
    char *name = vv_arena_strdup(vv_call_arena(c), t->name, strlen(t->name));
    if (!name) return vv_arena_err(vv_call_arena(c));
    out->Name = vv_str_c(name);
    out->TopicId = t->id;
    out->IsInternal = t->internal;
    if (q->IncludeTopicAuthorizedOperations) out->TopicAuthorizedOperations = TOPIC_OPERATIONS;
    int32_t count = vv_topic_partitions(t);
    if (VV_ARRAY_NEW(out->Partitions, MetadataResponse_MetadataResponsePartition, vv_call_arena(c), count))
        return vv_arena_err(vv_call_arena(c));
    for (int32_t i = 0; i < count; i++) {
        struct MetadataResponse_MetadataResponsePartition *p = &out->Partitions.v[i];
        p->PartitionIndex = i;
        p->LeaderId = c->broker->node_id;
        struct vv_partition *there = vv_topic_partition(t, i);
        p->LeaderEpoch = there ? vv_partition_epoch(there) : -1; /* not back yet: who asks it for something is told so */
        p->ReplicaNodes.v = p->IsrNodes.v = &c->broker->node_id;
        p->ReplicaNodes.n = p->IsrNodes.n = 1;
    }
    return 0;
}

struct all_topics {
    struct vv_topic **v;
    size_t count, cap;
    bool failed;
};

static void keep_topic(void *ctx, struct vv_topic *t)
{
    struct all_topics *all = ctx;
    if (all->count == all->cap) {
        size_t cap = all->cap ? all->cap * 2 : 64;
        struct vv_topic **v = realloc(all->v, cap * sizeof(struct vv_topic *));
        if (!v) {
            all->failed = true;
            return;
        }
        all->v = v;
        all->cap = cap;
    }
    atomic_fetch_add(&t->refs, 1);
    all->v[all->count++] = t;
}

static int fill_all(struct vv_call *c, struct MetadataResponse *r)
{
    struct all_topics all = {0};
    vv_topics_each(c->broker->topics, keep_topic, &all);
    int err = all.failed ? VV_E_NOMEM
                         : VV_ARRAY_NEW(r->Topics, MetadataResponse_MetadataResponseTopic, vv_call_arena(c), all.count);
    int32_t n = 0;
    for (size_t i = 0; i < all.count; i++) {
        if (!err && !atomic_load(&all.v[i]->deleted)) err = fill_topic(c, all.v[i], &r->Topics.v[n++]);
        vv_topic_unref(all.v[i]);
    }
    if (!err) r->Topics.n = n;
    free(all.v);
    return err;
}

static int fill_asked(struct vv_call *c, const struct MetadataRequest_MetadataRequestTopic *q,
                      struct MetadataResponse_MetadataResponseTopic *out)
{
    bool by_id = !vv_uuid_is_zero(q->TopicId);
    out->Name = q->Name;
    out->TopicId = q->TopicId;
    if (c->version < 12 && (by_id || q->Name.n < 0)) { /* ids are there from version 10 but may be used from 12 */
        if (q->Name.n < 0) out->Name = VV_STR_LIT("");
        out->ErrorCode = VV_INVALID_REQUEST;
        return 0;
    }
    if (!by_id && q->Name.n < 0) {
        out->ErrorCode = VV_INVALID_REQUEST;
        return 0;
    }
    struct vv_topic *t = by_id ? vv_topics_get_id(c->broker->topics, q->TopicId)
                               : vv_topics_get(c->broker->topics, q->Name.p, (size_t)q->Name.n);
    if (!t) {
        if (by_id)
            out->ErrorCode = VV_UNKNOWN_TOPIC_ID;
        else
            out->ErrorCode = vv_topic_name_ok(q->Name.p, (size_t)q->Name.n, NULL) ? VV_UNKNOWN_TOPIC_OR_PARTITION
                                                                                  : VV_INVALID_TOPIC_EXCEPTION;
        return 0;
    }
    int err = fill_topic(c, t, out);
    vv_topic_unref(t);
    return err;
}

static void answer(struct vv_call *c)
{
    const struct MetadataRequest *q = c->req;
    struct MetadataResponse r;
    VV_MSG_INIT(MetadataResponse, &r);
    struct MetadataResponse_MetadataResponseBroker self;
    VV_STRUCT_INIT(MetadataResponse_MetadataResponseBroker, &self);
    const char *host = NULL;
    int port = 0;
    vv_broker_endpoint(c->broker, vv_conn_listener(c->x->conn), &host, &port);
    self.NodeId = c->broker->node_id;
    self.Host = vv_str_c(host);
    self.Port = port;
    r.Brokers.v = &self;
    r.Brokers.n = 1;
    r.ClusterId = vv_str_c(c->broker->cluster_id);
    r.ControllerId = c->broker->node_id;
    if (q->IncludeClusterAuthorizedOperations) r.ClusterAuthorizedOperations = CLUSTER_OPERATIONS;
    int err = 0;
    if (q->Topics.n < 0 || (c->version == 0 && q->Topics.n == 0)) {
        err = fill_all(c, &r);
    } else {
        err = VV_ARRAY_NEW(r.Topics, MetadataResponse_MetadataResponseTopic, vv_call_arena(c), q->Topics.n);
        for (int32_t i = 0; !err && i < q->Topics.n; i++) err = fill_asked(c, &q->Topics.v[i], &r.Topics.v[i]);
    }
    if (err)
        vv_call_close(c, "its Metadata answer does not fit into memory");
    else
        vv_call_reply(c, &r);
}

/* ---- making topics ---- */

static bool may_create(struct vv_call *c, const struct MetadataRequest_MetadataRequestTopic *q)
{
    if (!vv_uuid_is_zero(q->TopicId) || q->Name.n < 0 || internal_name(q->Name)) return false;
    if (!vv_topic_name_ok(q->Name.p, (size_t)q->Name.n, NULL)) return false;
    struct vv_topic *t = vv_topics_get(c->broker->topics, q->Name.p, (size_t)q->Name.n);
    if (t) vv_topic_unref(t);
    return !t;
}

static void create_missing(struct vv_task *task)
{
    struct metadata_op *op = VV_CONTAINER(task, struct metadata_op, task);
    struct vv_call *c = op->c;
    const struct MetadataRequest *q = c->req;
    for (int32_t i = 0; i < q->Topics.n; i++) {
        if (!may_create(c, &q->Topics.v[i])) continue;
        struct vv_error e = {0};
        char *name = vv_arena_strdup(vv_call_arena(c), q->Topics.v[i].Name.p, (size_t)q->Topics.v[i].Name.n);
        struct vv_topic *t = NULL;
        if (!name) break;
        int err =
            vv_topics_create(c->broker->topics, name, c->broker->config->num_partitions, NULL, 0, false, false, &t, &e);
        if (!err && t) vv_topic_unref(t);
    }
    answer(c);
}

void vv_handle_metadata(struct vv_call *c)
{
    const struct MetadataRequest *q = c->req;
    if (q->AllowAutoTopicCreation && c->broker->config->auto_create_topics_enable && !c->broker->config->tier_replica) {
        for (int32_t i = 0; i < q->Topics.n; i++) {
            if (!may_create(c, &q->Topics.v[i])) continue;
            struct metadata_op *op = vv_arena_alloc(vv_call_arena(c), sizeof *op);
            if (!op) break;
            op->c = c;
            op->task.run = create_missing;
            vv_broker_control_post(c->broker, &op->task);
            return;
        }
    }
    answer(c);
}
