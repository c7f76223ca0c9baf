/* alter_configs.c — AlterConfigs (the whole set of a topic or broker) and IncrementalAlterConfigs (single entries):
 * durable before the answer.
 *
 * Topics change their overrides; the broker's own keys change by src/broker/live.c, for this broker (its id) or all
 * (the empty name). Both requests are brought into one shape. Threads: control. */
#include "configs.h"
#include "defer.h"
#include "live.h"
#include "gen/messages.h"

#include <inttypes.h>
#include <stdio.h>

enum { RESOURCE_TOPIC = 2, RESOURCE_BROKER = 4, RESOURCE_LOGGER = 8 };

struct resource { /* of either request */
    int8_t type;
    struct vv_str name;
    const struct vv_config_change *changes;
    size_t n;
    bool replace; /* AlterConfigs: what is not named goes back to its default */
    bool nul;     /* a text holds a NUL character */
};
struct outcome {
    int16_t code;
    struct vv_str message;
};

/* A resource as text: type and name; for duplicates. */
struct keyed {
    const struct vv_str *v;
};

static struct vv_str key_at(const void *ctx, int32_t i)
{
    return ((const struct keyed *)ctx)->v[i];
}

static bool *duplicates(struct vv_call *c, const struct resource *v, int32_t n)
{
    struct vv_str *keys = vv_arena_alloc(vv_call_arena(c), ((size_t)n + 1) * sizeof *keys);
    for (int32_t i = 0; keys && i < n; i++) {
        char *k = vv_arena_printf(vv_call_arena(c), "%d %.*s", v[i].type, (int)VV_MAX(v[i].name.n, 0),
                                  v[i].name.p ? v[i].name.p : "");
        if (!k) return NULL;
        keys[i] = vv_str_c(k);
    }
    return keys ? vv_call_duplicates(c, key_at, &(struct keyed){keys}, n) : NULL;
}

static int refuse_repeated_keys(const struct resource *r, struct vv_error *e)
{
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < i; k++)
            if (!strcmp(r->changes[i].key, r->changes[k].key))
                return vv_error_set(e, VV_INVALID_REQUEST, "Error due to duplicate config keys : %s",
                                    r->changes[i].key);
    return VV_OK;
}

static int alter_topic(struct vv_call *c, const struct resource *r, bool validate_only, struct vv_error *e)
{
    struct vv_overrides o;
    if (r->name.n <= 0) return vv_error_set(e, VV_INVALID_REQUEST, "Default topic resources are not allowed.");
    struct vv_topic *t = vv_topics_get(c->broker->topics, r->name.p, (size_t)r->name.n);
    if (!t)
        return vv_error_set(e, VV_UNKNOWN_TOPIC_OR_PARTITION, "The topic '%.*s' does not exist.", (int)r->name.n,
                            r->name.p);
    int err = c->broker->config->tier_replica && !t->internal ? vv_replica_refusal(c->broker, VV_POLICY_VIOLATION, e) : VV_OK;
    if (!err) err = vv_overrides_begin(&o, vv_call_arena(c), t->overrides, r->replace ? 0 : t->override_count, r->n);
    for (size_t i = 0; i < r->n && !err; i++)
        err = vv_overrides_apply(&o, &r->changes[i], vv_broker_live(c->broker), t->internal, e);
    if (!err) err = vv_topics_set_configs(c->broker->topics, t, o.v, o.n, validate_only, e);
    vv_topic_unref(t);
    return err;
}

static int check_broker(const struct vv_call *c, struct vv_str name, struct vv_error *e)
{
    char id[16];
    snprintf(id, sizeof id, "%" PRId32, c->broker->node_id);
    if (name.n <= 0 || vv_str_is(name, id)) return VV_OK;
    for (int32_t i = name.p[0] == '-' && name.n > 1; i < name.n; i++)
        if (name.p[i] < '0' || name.p[i] > '9')
            return vv_error_set(e, VV_INVALID_REQUEST, "Node id must be an integer, but it is: %.*s", (int)name.n,
                                name.p);
    return vv_error_set(e, VV_INVALID_REQUEST, "Unexpected broker id, expected %s, but received %.*s", id, (int)name.n,
                        name.p);
}

static int broker_change(struct vv_call *c, const struct vv_config_change *ch, struct vv_live_change *to,
                         struct vv_error *e)
{
    struct vv_config_value now;
    if (c->broker->config->tier_replica && !strcmp(ch->key, "tier.migrate.url")) return vv_replica_refusal(c->broker, VV_POLICY_VIOLATION, e);
    *to = (struct vv_live_change){ch->key, ch->value};
    if (ch->op == VV_CONFIG_DELETE) {
        to->value = NULL;
        return VV_OK;
    }
    if (!ch->value) return vv_error_set(e, VV_INVALID_REQUEST, "Null value not supported for : %s", ch->key);
    if (ch->op == VV_CONFIG_SET) return VV_OK;
    if (ch->op != VV_CONFIG_APPEND && ch->op != VV_CONFIG_SUBTRACT)
        return vv_error_set(e, VV_INVALID_REQUEST, "Unknown operation %d on config key %s.", ch->op, ch->key);
    if (!vv_config_is_list(ch->key))
        return vv_error_set(e, VV_INVALID_CONFIG, "Can't %s to key %s because its type is not LIST.",
                            ch->op == VV_CONFIG_APPEND ? "APPEND" : "SUBTRACT", ch->key);
    vv_config_get(vv_broker_live(c->broker), ch->key, &now);
    to->value = vv_list_change(vv_call_arena(c), now.value ? now.value : "", ch);
    return to->value ? VV_OK : vv_error_set(e, vv_arena_err(vv_call_arena(c)), "no memory for the request");
}

static int alter_broker(struct vv_call *c, const struct resource *r, bool validate_only, struct vv_error *e)
{
    int err = check_broker(c, r->name, e);
    struct vv_live_change *v = vv_arena_alloc(vv_call_arena(c), (r->n + 1) * sizeof *v);
    if (!err && !v) err = vv_error_set(e, vv_arena_err(vv_call_arena(c)), "no memory for the request");
    for (size_t i = 0; i < r->n && !err; i++) err = broker_change(c, &r->changes[i], &v[i], e);
    if (err) return err;
    enum vv_alter_scope scope = r->name.n > 0 ? VV_ALTER_BROKER : VV_ALTER_ALL;
    return vv_live_alter(c->broker, scope, v, r->n, r->replace, validate_only, e);
}

static int alter_one(struct vv_call *c, const struct resource *r, bool validate_only, struct vv_error *e)
{
    if (r->nul) return vv_error_set(e, VV_INVALID_CONFIG, "a configuration entry holds a NUL character");
    int err = refuse_repeated_keys(r, e);
    if (err) return err;
    switch (r->type) {
    case RESOURCE_TOPIC:
        return alter_topic(c, r, validate_only, e);
    case RESOURCE_BROKER:
        return alter_broker(c, r, validate_only, e);
    case RESOURCE_LOGGER:
        return vv_error_set(e, VV_INVALID_REQUEST, "Log levels cannot be changed while the broker runs.");
    default:
        return vv_error_set(e, VV_INVALID_REQUEST, "Unsupported resource type %d.", r->type);
    }
}

/* NULL: the arena is full. */
static struct outcome *alter_all(struct vv_call *c, const struct resource *v, int32_t n, bool validate_only)
{
    struct outcome *out = vv_arena_alloc(vv_call_arena(c), ((size_t)n + 1) * sizeof *out);
    bool *dup = duplicates(c, v, n), full = false;
    for (int32_t i = 0; out && dup && i < n; i++) {
        struct vv_error e = {0};
        int err = dup[i] ? vv_error_set(&e, VV_INVALID_REQUEST, "Each resource must appear at most once.")
                         : alter_one(c, &v[i], validate_only, &e);
        out[i].code = vv_call_error(c, err, &e, &out[i].message, &full);
    }
    return dup ? out : NULL;
}

/* ---- the two requests in one shape ---- */

#define CHANGES_MAX 1000 /* of one resource: there are 100 keys */

#define TAKE_RESOURCES(Q, OP, REPLACE)                                                                                 \
    for (int32_t i = 0; v && i < n; i++) {                                                                             \
        int32_t k = VV_MAX((Q)->Resources.v[i].Configs.n, 0);                                                          \
        struct vv_config_change *ch =                                                                                  \
            k > CHANGES_MAX ? NULL : vv_arena_alloc(vv_call_arena(c), ((size_t)k + 1) * sizeof *ch);                   \
        if (!ch) return NULL;                                                                                          \
        v[i] = (struct resource){.type = (Q)->Resources.v[i].ResourceType,                                             \
                                 .name = (Q)->Resources.v[i].ResourceName,                                             \
                                 .changes = ch,                                                                        \
                                 .n = (size_t)k,                                                                       \
                                 .replace = (REPLACE)};                                                                \
        for (int32_t j = 0; j < k; j++) {                                                                              \
            struct vv_str key = (Q)->Resources.v[i].Configs.v[j].Name, value = (Q)->Resources.v[i].Configs.v[j].Value; \
            v[i].nul = v[i].nul || vv_str_has_nul(key) || vv_str_has_nul(value);                                       \
            ch[j] = (struct vv_config_change){vv_call_text(c, key, &full), vv_call_text(c, value, &full), (OP)};       \
        }                                                                                                              \
        if (full) return NULL;                                                                                         \
    }

static struct resource *take_full(struct vv_call *c, const struct AlterConfigsRequest *q, int32_t n)
{
    bool full = false;
    struct resource *v = vv_arena_alloc(vv_call_arena(c), ((size_t)n + 1) * sizeof *v);
    TAKE_RESOURCES(q, VV_CONFIG_SET, true)
    return v;
}

static struct resource *take_incremental(struct vv_call *c, const struct IncrementalAlterConfigsRequest *q, int32_t n)
{
    bool full = false;
    struct resource *v = vv_arena_alloc(vv_call_arena(c), ((size_t)n + 1) * sizeof *v);
    TAKE_RESOURCES(q, q->Resources.v[i].Configs.v[j].ConfigOperation, false)
    return v;
}

static void alter_full(struct vv_call *c)
{
    const struct AlterConfigsRequest *q = c->req;
    struct AlterConfigsResponse r;
    int32_t n = VV_MAX(q->Resources.n, 0);
    VV_MSG_INIT(AlterConfigsResponse, &r);
    struct resource *v = take_full(c, q, n);
    struct outcome *out = v ? alter_all(c, v, n, q->ValidateOnly) : NULL;
    if (!out || VV_ARRAY_NEW(r.Responses, AlterConfigsResponse_AlterConfigsResourceResponse, vv_call_arena(c), n)) {
        vv_call_close(c, "the request is too large");
        return;
    }
    for (int32_t i = 0; i < n; i++)
        r.Responses.v[i] = (struct AlterConfigsResponse_AlterConfigsResourceResponse){.ErrorCode = out[i].code,
                                                                                      .ErrorMessage = out[i].message,
                                                                                      .ResourceType = v[i].type,
                                                                                      .ResourceName = v[i].name};
    vv_call_reply(c, &r);
}

static void alter_incremental(struct vv_call *c)
{
    const struct IncrementalAlterConfigsRequest *q = c->req;
    struct IncrementalAlterConfigsResponse r;
    int32_t n = VV_MAX(q->Resources.n, 0);
    VV_MSG_INIT(IncrementalAlterConfigsResponse, &r);
    struct resource *v = take_incremental(c, q, n);
    struct outcome *out = v ? alter_all(c, v, n, q->ValidateOnly) : NULL;
    if (!out ||
        VV_ARRAY_NEW(r.Responses, IncrementalAlterConfigsResponse_AlterConfigsResourceResponse, vv_call_arena(c), n)) {
        vv_call_close(c, "the request is too large");
        return;
    }
    for (int32_t i = 0; i < n; i++)
        r.Responses.v[i] =
            (struct IncrementalAlterConfigsResponse_AlterConfigsResourceResponse){.ErrorCode = out[i].code,
                                                                                  .ErrorMessage = out[i].message,
                                                                                  .ResourceType = v[i].type,
                                                                                  .ResourceName = v[i].name};
    vv_call_reply(c, &r);
}

void vv_handle_alter_configs(struct vv_call *c)
{
    vv_call_on_control(c, alter_full);
}

void vv_handle_incremental_alter_configs(struct vv_call *c)
{
    vv_call_on_control(c, alter_incremental);
}
