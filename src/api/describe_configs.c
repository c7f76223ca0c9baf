/* describe_configs.c — DescribeConfigs: a topic's effective values and where they come from; the broker's own.
 *
 * Threads: control, where alone topics' overrides change. Sensitive values are never sent. */
#include "defer.h"
#include "live.h"
#include "gen/messages.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { RESOURCE_TOPIC = 2, RESOURCE_BROKER = 4, RESOURCE_LOGGER = 8, RESOURCE_CLIENT_METRICS = 16 };

#define DELETED_TOPICS "varve.deleted.topics"

typedef struct DescribeConfigsRequest_DescribeConfigsResource wanted;
typedef struct DescribeConfigsResponse_DescribeConfigsResult result;
typedef struct DescribeConfigsResponse_DescribeConfigsResourceResult entry;

struct listing {
    struct vv_call *c;
    const wanted *w;
    result *r;
    int32_t cap;
    bool count_only, full;
};

static bool asked(const struct listing *l, const char *name)
{
    if (l->w->ConfigurationKeys.n < 0) return true; /* all */
    for (int32_t i = 0; i < l->w->ConfigurationKeys.n; i++)
        if (vv_str_is(l->w->ConfigurationKeys.v[i], name)) return true;
    return false;
}

static int add_entry(struct listing *l, const struct vv_config_value *v, const struct vv_config_synonym *syn,
                     size_t syn_count)
{
    const struct DescribeConfigsRequest *q = l->c->req;
    if (!asked(l, v->name)) return 0;
    if (l->count_only) {
        l->cap++;
        return 0;
    }
    if (l->r->Configs.n == l->cap) return 0;
    entry *x = &l->r->Configs.v[l->r->Configs.n++];
    x->Name = vv_call_str(l->c, v->name, &l->full);
    x->Value = v->sensitive ? VV_STR_NULL : vv_call_str(l->c, v->value, &l->full);
    x->ReadOnly = v->read_only;
    x->ConfigSource = (int8_t)v->source;
    x->IsSensitive = v->sensitive;
    x->ConfigType = (int8_t)v->type;
    x->Documentation = q->IncludeDocumentation ? vv_call_str(l->c, v->doc, &l->full) : VV_STR_NULL;
    if (!q->IncludeSynonyms) return l->full ? VV_E_LIMIT : 0;
    if (VV_ARRAY_NEW(x->Synonyms, DescribeConfigsResponse_DescribeConfigsSynonym, vv_call_arena(l->c), syn_count))
        return VV_E_LIMIT;
    for (size_t i = 0; i < syn_count; i++)
        x->Synonyms.v[i] = (struct DescribeConfigsResponse_DescribeConfigsSynonym){
            .Name = vv_call_str(l->c, syn[i].name, &l->full),
            .Value = v->sensitive ? VV_STR_NULL : vv_call_str(l->c, syn[i].value, &l->full),
            .Source = (int8_t)syn[i].source,
        };
    return l->full ? VV_E_LIMIT : 0;
}

/* ---- topics ---- */

static int on_topic_value(void *ctx, const struct vv_topic_config_value *v)
{
    return add_entry(ctx, &v->value, v->synonyms, v->synonym_count);
}

static int describe_topic(struct listing *l, struct vv_error *e)
{
    struct vv_broker *b = l->c->broker;
    const struct vv_broker_config *live = vv_broker_live(b);
    struct vv_str name = l->w->ResourceName;
    if (!vv_topic_name_ok(name.p, (size_t)VV_MAX(name.n, 0), e)) return VV_INVALID_TOPIC_EXCEPTION;
    struct vv_topic *t = vv_topics_get(b->topics, name.p, (size_t)name.n);
    if (!t) return vv_error_set(e, VV_UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.");
    l->count_only = true;
    int err = vv_topic_config_each(t->overrides, t->override_count, live, t->internal, on_topic_value, l);
    if (!err)
        err = VV_ARRAY_NEW(l->r->Configs, DescribeConfigsResponse_DescribeConfigsResourceResult, vv_call_arena(l->c),
                           l->cap);
    l->r->Configs.n = 0;
    l->count_only = false;
    if (!err) err = vv_topic_config_each(t->overrides, t->override_count, live, t->internal, on_topic_value, l);
    vv_topic_unref(t);
    return err;
}

/* ---- the broker ---- */

static int on_broker_value(void *ctx, const struct vv_config_value *v)
{
    struct listing *l = ctx;
    struct vv_config_synonym syn[VV_CONFIG_SYNONYMS_MAX];
    return add_entry(l, v, syn, vv_config_synonyms(vv_broker_live(l->c->broker), v->name, syn));
}

/* Of the defaults of all brokers only what was altered is told, as altered there. */
static int on_default_value(void *ctx, const struct vv_config_value *v)
{
    struct listing *l = ctx;
    struct vv_config_synonym syn[VV_CONFIG_SYNONYMS_MAX];
    size_t n = vv_config_synonyms(vv_broker_live(l->c->broker), v->name, syn), i = 0;
    while (i < n && syn[i].source != VV_SOURCE_DYNAMIC_DEFAULT) i++;
    if (i == n) return 0;
    struct vv_config_value shown = *v;
    shown.value = syn[i].value;
    shown.source = syn[i].source;
    return add_entry(l, &shown, &syn[i], 1);
}

/* The broker's id, or empty: the defaults of all brokers. */
static int check_broker(struct listing *l, struct vv_error *e)
{
    char text[16], *end;
    struct vv_str name = l->w->ResourceName;
    int32_t n = VV_MIN(name.n, (int32_t)sizeof text - 1);
    if (n <= 0) return VV_OK;
    memcpy(text, name.p, (size_t)n);
    text[n] = 0;
    long id = strtol(text, &end, 10);
    if (*end || n != name.n)
        return vv_error_set(e, VV_INVALID_REQUEST, "Broker id must be an integer, but it is: %.*s", (int)name.n,
                            name.p);
    if (id != l->c->broker->node_id)
        return vv_error_set(e, VV_INVALID_REQUEST,
                            "Unexpected broker id, expected %" PRId32 " or empty string, but received %ld",
                            l->c->broker->node_id, id);
    return VV_OK;
}

/* What `varve topic list --deleted` asks for: no configuration, so only who names it gets it, alone. */
static int describe_deleted(struct listing *l)
{
    char *text = vv_undelete_list(l->c->broker->topics);
    if (!text || VV_ARRAY_NEW(l->r->Configs, DescribeConfigsResponse_DescribeConfigsResourceResult, vv_call_arena(l->c), 1)) {
        free(text);
        return VV_E_LIMIT;
    }
    l->r->Configs.n = 0;
    l->cap = 1;
    struct vv_config_value v = {.name = DELETED_TOPICS, .value = text, .read_only = true, .source = VV_SOURCE_STATIC, .type = VV_TYPE_STRING,
                                .doc = "Deleted topics that can still be brought back."};
    int err = add_entry(l, &v, NULL, 0);
    free(text);
    return err;
}

static int describe_broker(struct listing *l, struct vv_error *e)
{
    const struct vv_broker_config *config = vv_broker_live(l->c->broker);
    int (*each)(void *, const struct vv_config_value *) = l->w->ResourceName.n > 0 ? on_broker_value : on_default_value;
    int err = check_broker(l, e);
    if (err) return err;
    if (l->w->ConfigurationKeys.n == 1 && vv_str_is(l->w->ConfigurationKeys.v[0], DELETED_TOPICS)) return describe_deleted(l);
    l->count_only = true;
    err = vv_config_each(config, each, l);
    if (!err)
        err = VV_ARRAY_NEW(l->r->Configs, DescribeConfigsResponse_DescribeConfigsResourceResult, vv_call_arena(l->c),
                           l->cap);
    l->r->Configs.n = 0;
    l->count_only = false;
    return err ? err : vv_config_each(config, each, l);
}

static int describe_one(struct listing *l, struct vv_error *e)
{
    switch (l->w->ResourceType) {
    case RESOURCE_TOPIC:
        return describe_topic(l, e);
    case RESOURCE_BROKER:
        return describe_broker(l, e);
    case RESOURCE_LOGGER: /* there are none to show */
        if (l->w->ResourceName.n <= 0) return vv_error_set(e, VV_INVALID_REQUEST, "Broker id must not be empty");
        return check_broker(l, e);
    case RESOURCE_CLIENT_METRICS:
        if (l->w->ResourceName.n <= 0)
            return vv_error_set(e, VV_INVALID_REQUEST, "Client metrics subscription name must not be empty");
        return VV_OK;
    default:
        return vv_error_set(e, VV_INVALID_REQUEST, "Unsupported resource type: %d", l->w->ResourceType);
    }
}

static void describe_all(struct vv_call *c)
{
    const struct DescribeConfigsRequest *q = c->req;
    struct DescribeConfigsResponse r;
    int32_t n = VV_MAX(q->Resources.n, 0);
    VV_MSG_INIT(DescribeConfigsResponse, &r);
    bool full = VV_ARRAY_NEW(r.Results, DescribeConfigsResponse_DescribeConfigsResult, vv_call_arena(c), n) != 0;
    for (int32_t i = 0; i < n && !full; i++) {
        struct vv_error e = {0};
        struct listing l = {.c = c, .w = &q->Resources.v[i], .r = &r.Results.v[i]};
        l.r->ResourceType = l.w->ResourceType;
        l.r->ResourceName = l.w->ResourceName;
        int err = describe_one(&l, &e);
        full = err == VV_E_LIMIT || err == VV_E_NOMEM;
        if (err) l.r->Configs.n = 0;
        l.r->ErrorCode = vv_call_error(c, err, &e, &l.r->ErrorMessage, &full);
    }
    if (full)
        vv_call_close(c, "out of memory");
    else
        vv_call_reply(c, &r);
}

void vv_handle_describe_configs(struct vv_call *c)
{
    vv_call_on_control(c, describe_all);
}
