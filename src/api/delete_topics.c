/* delete_topics.c — DeleteTopics, by name or by id. Durable before the answer; the files and objects follow.
 * Threads: control. */
#include "defer.h"
#include "gen/messages.h"

struct wanted {         /* version 6 and the ones before in one shape */
    struct vv_str name; /* null: by id */
    struct vv_uuid id;
};
struct wanted_list {
    const struct wanted *v;
};

static struct vv_str name_at(const void *ctx, int32_t i)
{
    return ((const struct wanted_list *)ctx)->v[i].name;
}

static struct vv_str id_at(const void *ctx, int32_t i)
{
    const struct wanted *w = &((const struct wanted_list *)ctx)->v[i];
    return vv_uuid_is_zero(w->id) ? VV_STR_NULL : (struct vv_str){(const char *)w->id.b, sizeof w->id.b};
}

static struct wanted *take_wanted(struct vv_call *c, int32_t *n)
{
    const struct DeleteTopicsRequest *q = c->req;
    *n = VV_MAX(c->version >= 6 ? q->Topics.n : q->TopicNames.n, 0);
    struct wanted *v = vv_arena_alloc(vv_call_arena(c), ((size_t)*n + 1) * sizeof *v);
    for (int32_t i = 0; v && i < *n; i++)
        v[i] = c->version >= 6 ? (struct wanted){q->Topics.v[i].Name, q->Topics.v[i].TopicId}
                               : (struct wanted){.name = q->TopicNames.v[i]};
    return v;
}

static int find(struct vv_call *c, const struct wanted *w, struct vv_topic **t, struct vv_error *e)
{
    bool by_id = !vv_uuid_is_zero(w->id);
    if (w->name.n < 0 && !by_id)
        return vv_error_set(e, VV_INVALID_REQUEST, "Neither topic name nor id were specified.");
    if (w->name.n >= 0 && by_id)
        return vv_error_set(e, VV_INVALID_REQUEST, "You may not specify both topic name and topic id.");
    *t = by_id ? vv_topics_get_id(c->broker->topics, w->id)
               : vv_topics_get(c->broker->topics, w->name.p, (size_t)w->name.n);
    if (*t) return VV_OK;
    return by_id ? vv_error_set(e, VV_UNKNOWN_TOPIC_ID, "This server does not host this topic ID.")
                 : vv_error_set(e, VV_UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.");
}

static int delete_one(struct vv_call *c, const struct wanted *w, struct DeleteTopicsResponse_DeletableTopicResult *r,
                      struct vv_error *e)
{
    struct vv_topic *t = NULL;
    bool full = false;
    int err = find(c, w, &t, e);
    if (err) return err;
    struct vv_str name = vv_call_str(c, t->name, &full);
    r->TopicId = t->id;
    if (!full) r->Name = name;
    if (t->internal)
        err = vv_error_set(e, VV_INVALID_REQUEST, "%s is an internal topic: it cannot be deleted.", t->name);
    else if (c->broker->config->tier_replica)
        err = vv_replica_refusal(c->broker, VV_POLICY_VIOLATION, e);
    else
        err = vv_topics_delete(c->broker->topics, t, e);
    vv_topic_unref(t);
    return err;
}

static int disabled(const struct vv_call *c, struct vv_error *e)
{
    if (c->broker->config->delete_topic_enable) return VV_OK;
    return vv_error_set(e, c->version < 3 ? VV_INVALID_REQUEST : VV_TOPIC_DELETION_DISABLED,
                        "Topic deletion is disabled (delete.topic.enable=false).");
}

static void delete_all(struct vv_call *c)
{
    struct DeleteTopicsResponse r;
    int32_t n = 0;
    bool full = false;
    VV_MSG_INIT(DeleteTopicsResponse, &r);
    struct wanted_list l = {take_wanted(c, &n)};
    bool *same_name = l.v ? vv_call_duplicates(c, name_at, &l, n) : NULL;
    bool *same_id = l.v ? vv_call_duplicates(c, id_at, &l, n) : NULL;
    if (!same_name || !same_id ||
        VV_ARRAY_NEW(r.Responses, DeleteTopicsResponse_DeletableTopicResult, vv_call_arena(c), n)) {
        vv_call_close(c, "out of memory");
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        struct vv_error e = {0};
        r.Responses.v[i].Name = l.v[i].name;
        r.Responses.v[i].TopicId = l.v[i].id;
        int err = disabled(c, &e);
        if (!err && same_name[i]) err = vv_error_set(&e, VV_INVALID_REQUEST, "Duplicate topic name.");
        if (!err && same_id[i]) err = vv_error_set(&e, VV_INVALID_REQUEST, "Duplicate topic id.");
        if (!err) err = delete_one(c, &l.v[i], &r.Responses.v[i], &e);
        r.Responses.v[i].ErrorCode = vv_call_error(c, err, &e, &r.Responses.v[i].ErrorMessage, &full);
    }
    vv_call_reply(c, &r);
}

void vv_handle_delete_topics(struct vv_call *c)
{
    vv_call_on_control(c, delete_all);
}
