/* client_quotas.c — DescribeClientQuotas, AlterClientQuotas (KIP-546), and DescribeUserScramCredentials, which
 * kafka-configs asks together with a user's quotas.
 *
 * Quotas are src/broker/quota_set.h's: by user, client id, both, or their defaults. What Kafka knows and what is not
 * enforced here (by ip, request_percentage, controller_mutation_rate) is refused in words instead of being stored
 * without effect. Each entry of a change stands for itself; all that are good are durable before the answer.
 * Threads: control. */
#include "defer.h"
#include "live.h"
#include "gen/messages.h"

#include <math.h>

enum { MATCH_EXACT, MATCH_DEFAULT, MATCH_ANY };

/* ---- describe ---- */

struct wanted { /* what one part of the entity must be */
    bool asked;
    int match;
    struct vv_str name;
};
struct filter {
    struct wanted user, client, ip;
    bool strict;
};

static int add_component(struct filter *f, const struct DescribeClientQuotasRequest_ComponentData *c,
                         struct vv_error *e)
{
    struct wanted *w = vv_str_is(c->EntityType, "user")        ? &f->user
                       : vv_str_is(c->EntityType, "client-id") ? &f->client
                       : vv_str_is(c->EntityType, "ip")        ? &f->ip
                                                               : NULL;
    if (c->EntityType.n <= 0) return vv_error_set(e, VV_INVALID_REQUEST, "Invalid empty entity type.");
    if (!w)
        return vv_error_set(e, VV_UNSUPPORTED_VERSION, "Unsupported entity type %.*s", VV_STR_ARG(c->EntityType));
    if (w->asked)
        return vv_error_set(e, VV_INVALID_REQUEST, "Entity type %.*s cannot appear more than once in the filter.",
                            VV_STR_ARG(c->EntityType));
    if (c->MatchType < MATCH_EXACT || c->MatchType > MATCH_ANY)
        return vv_error_set(e, VV_INVALID_REQUEST, "Unknown match type %d", c->MatchType);
    if ((c->MatchType == MATCH_EXACT) != (c->Match.n >= 0))
        return vv_error_set(e, VV_INVALID_REQUEST, "A name to match belongs to the exact match, and only to it.");
    *w = (struct wanted){true, c->MatchType, c->Match};
    return VV_OK;
}

static bool fits(const struct wanted *w, bool strict, bool has, struct vv_str name)
{
    if (!w->asked) return !strict || !has;
    if (!has) return false;
    return w->match == MATCH_ANY || (w->match == MATCH_DEFAULT ? name.n < 0 : vv_str_eq(name, w->name));
}

static int fill_entry(struct vv_call *c, const struct vv_quota_entry *q,
                      struct DescribeClientQuotasResponse_EntryData *x)
{
    const struct vv_quota_entity *who = &q->entity;
    struct vv_arena *a = vv_call_arena(c);
    if (VV_ARRAY_NEW(x->Entity, DescribeClientQuotasResponse_EntityData, a, who->has_user + who->has_client) ||
        VV_ARRAY_NEW(x->Values, DescribeClientQuotasResponse_ValueData, a, VV_QUOTA_KINDS))
        return vv_arena_err(a);
    int32_t n = 0;
    if (who->has_user)
        x->Entity.v[n++] = (struct DescribeClientQuotasResponse_EntityData){VV_STR_LIT("user"), who->user};
    if (who->has_client)
        x->Entity.v[n++] = (struct DescribeClientQuotasResponse_EntityData){VV_STR_LIT("client-id"), who->client};
    x->Values.n = 0;
    for (int k = 0; k < VV_QUOTA_KINDS; k++)
        if (q->limit[k] > 0)
            x->Values.v[x->Values.n++] =
                (struct DescribeClientQuotasResponse_ValueData){vv_str_c(vv_quota_names[k]), q->limit[k]};
    return VV_OK;
}

static void describe(struct vv_call *c)
{
    const struct DescribeClientQuotasRequest *q = c->req;
    const struct vv_quota_set *set = &c->broker->quotas->set;
    struct DescribeClientQuotasResponse r;
    struct filter f = {.strict = q->Strict};
    struct vv_error e = {0};
    bool full = false;
    int err = VV_OK;
    VV_MSG_INIT(DescribeClientQuotasResponse, &r);
    for (int32_t i = 0; i < q->Components.n && !err; i++) err = add_component(&f, &q->Components.v[i], &e);
    if (!err && f.ip.asked && (f.user.asked || f.client.asked))
        err = vv_error_set(&e, VV_INVALID_REQUEST,
                           "Invalid entity filter component combination. IP filter component should not be used with "
                           "user or clientId filter component.");
    if (!err) full = VV_ARRAY_NEW(r.Entries, DescribeClientQuotasResponse_EntryData, vv_call_arena(c), set->n) != 0;
    if (!full) r.Entries.n = err ? -1 : 0;
    for (size_t i = 0; i < set->n && !err && !full; i++) {
        const struct vv_quota_entity *who = &set->v[i].entity;
        bool in = !f.ip.asked && fits(&f.user, f.strict, who->has_user, who->user) &&
                  fits(&f.client, f.strict, who->has_client, who->client);
        if (in) full = fill_entry(c, &set->v[i], &r.Entries.v[r.Entries.n++]) != 0;
    }
    r.ErrorCode = vv_call_error(c, err, &e, &r.ErrorMessage, &full);
    if (full)
        vv_call_close(c, "out of memory");
    else
        vv_call_reply(c, &r);
}

void vv_handle_describe_client_quotas(struct vv_call *c)
{
    vv_call_on_control(c, describe);
}

/* ---- alter ---- */

typedef struct AlterClientQuotasRequest_EntryData alteration;

static int take_entity(const alteration *a, struct vv_quota_entity *who, struct vv_error *e)
{
    *who = (struct vv_quota_entity){.user = VV_STR_NULL, .client = VV_STR_NULL};
    if (a->Entity.n <= 0) return vv_error_set(e, VV_INVALID_REQUEST, "Invalid empty client quota entity");
    for (int32_t i = 0; i < a->Entity.n; i++) {
        struct vv_str type = a->Entity.v[i].EntityType, name = a->Entity.v[i].EntityName;
        bool user = vv_str_is(type, "user"), client = vv_str_is(type, "client-id");
        if (vv_str_is(type, "ip"))
            return vv_error_set(e, VV_INVALID_REQUEST,
                                "Quotas by ip are not enforced here: max.connections.per.ip limits an address");
        if (!user && !client)
            return vv_error_set(e, VV_INVALID_REQUEST, "Unhandled client quota entity type: %.*s", VV_STR_ARG(type));
        if (user ? who->has_user : who->has_client)
            return vv_error_set(e, VV_INVALID_REQUEST, "Invalid client quota entity, duplicate entity entry %.*s",
                                VV_STR_ARG(type));
        if (!name.n) return vv_error_set(e, VV_INVALID_REQUEST, "Empty %.*s not supported", VV_STR_ARG(type));
        json_t *text = name.n > 0 ? json_stringn(name.p, (size_t)name.n) : NULL; /* as it will be written down */
        json_decref(text);
        if (name.n > 0 && !text)
            return vv_error_set(e, VV_INVALID_REQUEST, "the %.*s is not valid UTF-8", VV_STR_ARG(type));
        *(user ? &who->has_user : &who->has_client) = true;
        *(user ? &who->user : &who->client) = name;
    }
    return VV_OK;
}

static int check_op(const alteration *a, int32_t i, struct vv_error *e)
{
    const struct AlterClientQuotasRequest_OpData *op = &a->Ops.v[i];
    for (int32_t k = 0; k < i; k++)
        if (vv_str_eq(a->Ops.v[k].Key, op->Key))
            return vv_error_set(e, VV_INVALID_REQUEST, "Duplicate quota key %.*s", VV_STR_ARG(op->Key));
    if (vv_quota_kind_of(op->Key) < 0) {
        bool known = vv_str_is(op->Key, "request_percentage") || vv_str_is(op->Key, "controller_mutation_rate");
        if (known && op->Remove) return VV_OK;
        const char *why = known ? "Quotas of this kind are not enforced here and therefore refused:"
                                : "Invalid configuration key";
        return vv_error_set(e, VV_INVALID_REQUEST, "%s %.*s", why, VV_STR_ARG(op->Key));
    }
    if (op->Remove) return VV_OK;
    if (!isfinite(op->Value) || op->Value <= 0)
        return vv_error_set(e, VV_INVALID_REQUEST, "Configuration %.*s must be greater than 0", VV_STR_ARG(op->Key));
    if (op->Value < 9e18 && fabs(op->Value - floor(op->Value + 1e-6)) > 1e-6)
        return vv_error_set(e, VV_INVALID_REQUEST, "Configuration %.*s must be a Long value", VV_STR_ARG(op->Key));
    return VV_OK;
}

static int apply(struct vv_quota_set *set, const alteration *a, struct vv_error *e)
{
    struct vv_quota_entity who;
    int err = take_entity(a, &who, e);
    for (int32_t i = 0; i < a->Ops.n && !err; i++) err = check_op(a, i, e);
    for (int32_t i = 0; i < a->Ops.n && !err; i++) {
        int kind = vv_quota_kind_of(a->Ops.v[i].Key);
        if (kind < 0) continue;
        err = vv_quota_set_put(set, &who, (enum vv_quota_kind)kind, a->Ops.v[i].Remove ? 0 : a->Ops.v[i].Value);
        if (err)
            err = vv_error_set(e, VV_INVALID_REQUEST, "there are %d client quota entities already", VV_QUOTA_ENTITIES_MAX);
    }
    return err;
}

static int fill_answer(struct vv_call *c, const alteration *a, struct AlterClientQuotasResponse_ResponseEntryData *x)
{
    if (VV_ARRAY_NEW(x->Entity, AlterClientQuotasResponse_ResponseEntityData, vv_call_arena(c), VV_MAX(a->Entity.n, 0)))
        return vv_arena_err(vv_call_arena(c));
    for (int32_t i = 0; i < a->Entity.n; i++)
        x->Entity.v[i] = (struct AlterClientQuotasResponse_ResponseEntityData){a->Entity.v[i].EntityType,
                                                                              a->Entity.v[i].EntityName};
    return VV_OK;
}

static void alter(struct vv_call *c)
{
    const struct AlterClientQuotasRequest *q = c->req;
    struct AlterClientQuotasResponse r;
    struct vv_quota_set next;
    struct vv_error e = {0};
    int32_t n = VV_MAX(q->Entries.n, 0);
    bool full = vv_quota_set_copy(&c->broker->quotas->set, &next) != 0, changed = false;
    VV_MSG_INIT(AlterClientQuotasResponse, &r);
    full = full || VV_ARRAY_NEW(r.Entries, AlterClientQuotasResponse_ResponseEntryData, vv_call_arena(c), n);
    for (int32_t i = 0; i < n && !full; i++) {
        struct vv_error why = {0};
        int err = apply(&next, &q->Entries.v[i], &why);
        changed |= !err;
        full = fill_answer(c, &q->Entries.v[i], &r.Entries.v[i]) != 0;
        r.Entries.v[i].ErrorCode = vv_call_error(c, err, &why, &r.Entries.v[i].ErrorMessage, &full);
    }
    int err = changed && !full && !q->ValidateOnly ? vv_live_set_quotas(c->broker, &next, &e) : VV_OK;
    for (int32_t i = 0; i < n && err; i++)
        if (!r.Entries.v[i].ErrorCode)
            r.Entries.v[i].ErrorCode = vv_call_error(c, err, &e, &r.Entries.v[i].ErrorMessage, &full);
    vv_quota_set_release(&next);
    if (full)
        vv_call_close(c, "out of memory");
    else
        vv_call_reply(c, &r);
}

void vv_handle_alter_client_quotas(struct vv_call *c)
{
    vv_call_on_control(c, alter);
}

/* ---- SCRAM credentials: there are none ---- */

void vv_handle_describe_user_scram_credentials(struct vv_call *c)
{
    const struct DescribeUserScramCredentialsRequest *q = c->req;
    struct DescribeUserScramCredentialsResponse r;
    bool full = false;
    VV_MSG_INIT(DescribeUserScramCredentialsResponse, &r);
    if (VV_ARRAY_NEW(r.Results, DescribeUserScramCredentialsResponse_DescribeUserScramCredentialsResult,
                     vv_call_arena(c), VV_MAX(q->Users.n, 0)))
        full = true;
    for (int32_t i = 0; i < q->Users.n && !full; i++) {
        struct vv_error e = {0};
        int err = vv_error_set(&e, VV_RESOURCE_NOT_FOUND,
                               "Attempt to describe a user credential that does not exist: %.*s",
                               VV_STR_ARG(q->Users.v[i].Name));
        r.Results.v[i].User = q->Users.v[i].Name;
        r.Results.v[i].ErrorCode = vv_call_error(c, err, &e, &r.Results.v[i].ErrorMessage, &full);
    }
    if (full)
        vv_call_close(c, "out of memory");
    else
        vv_call_reply(c, &r);
}
