/* quota_set.c — see quota_set.h. */
#include "quota_set.h"

#include "varve/vlog.h"

#include <stdlib.h>
#include <string.h>

const char *const vv_quota_names[VV_QUOTA_KINDS] = {
#define VV_X(id, name, label) name,
    VV_QUOTA_KEYS(VV_X)
#undef VV_X
};

int vv_quota_kind_of(struct vv_str name)
{
    for (int k = 0; k < VV_QUOTA_KINDS; k++)
        if (vv_str_is(name, vv_quota_names[k])) return k;
    return -1;
}

/* ---- order ---- */

static int compare_names(bool has_a, struct vv_str a, bool has_b, struct vv_str b)
{
    if (!has_a || !has_b) return (int)has_a - (int)has_b;
    int32_t n = VV_MIN(a.n, b.n);
    int d = n > 0 ? memcmp(a.p, b.p, (size_t)n) : 0;
    return d ? d : (a.n > b.n) - (a.n < b.n); /* the default, null, comes first */
}

static int compare(const struct vv_quota_entity *a, const struct vv_quota_entity *b)
{
    int d = compare_names(a->has_user, a->user, b->has_user, b->user);
    return d ? d : compare_names(a->has_client, a->client, b->has_client, b->client);
}

static size_t lower_bound(const struct vv_quota_set *s, const struct vv_quota_entity *e, bool *found)
{
    size_t lo = 0, hi = s->n;
    *found = false;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int d = compare(&s->v[mid].entity, e);
        *found |= !d;
        if (d < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* ---- change ---- */

static bool keep(struct vv_str from, struct vv_str *to)
{
    *to = VV_STR_NULL;
    if (from.n < 0) return true;
    char *p = malloc((size_t)from.n + 1);
    if (!p) return false;
    memcpy(p, from.p, (size_t)from.n);
    *to = (struct vv_str){p, from.n};
    return true;
}

static void forget(struct vv_quota_entity *e)
{
    free((void *)(uintptr_t)e->user.p);
    free((void *)(uintptr_t)e->client.p);
}

static int insert(struct vv_quota_set *s, size_t at, const struct vv_quota_entity *e)
{
    if (s->n >= VV_QUOTA_ENTITIES_MAX) return VV_E_LIMIT;
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 8;
        struct vv_quota_entry *v = realloc(s->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        s->v = v;
        s->cap = cap;
    }
    struct vv_quota_entry x = {.entity = {.has_user = e->has_user, .has_client = e->has_client}};
    struct vv_str none = VV_STR_NULL;
    bool ok = keep(e->has_user ? e->user : none, &x.entity.user);
    if (!ok || !keep(e->has_client ? e->client : none, &x.entity.client)) {
        free((void *)(uintptr_t)x.entity.user.p);
        return VV_E_NOMEM;
    }
    memmove(s->v + at + 1, s->v + at, (s->n - at) * sizeof *s->v);
    s->v[at] = x;
    s->n++;
    return VV_OK;
}

int vv_quota_set_put(struct vv_quota_set *s, const struct vv_quota_entity *e, enum vv_quota_kind kind, double limit)
{
    bool found, used = false;
    size_t at = lower_bound(s, e, &found);
    if (!found && limit <= 0) return VV_OK;
    int err = found ? VV_OK : insert(s, at, e);
    if (err) return err;
    s->v[at].limit[kind] = limit;
    for (int k = 0; k < VV_QUOTA_KINDS; k++) used |= s->v[at].limit[k] > 0;
    if (used) return VV_OK;
    forget(&s->v[at].entity);
    memmove(s->v + at, s->v + at + 1, (s->n - at - 1) * sizeof *s->v);
    s->n--;
    return VV_OK;
}

int vv_quota_set_copy(const struct vv_quota_set *from, struct vv_quota_set *to)
{
    int err = VV_OK;
    *to = (struct vv_quota_set){0};
    for (size_t i = 0; i < from->n && !err; i++) {
        err = insert(to, i, &from->v[i].entity);
        if (!err) memcpy(to->v[i].limit, from->v[i].limit, sizeof to->v[i].limit);
    }
    if (err) vv_quota_set_release(to);
    return err;
}

void vv_quota_set_release(struct vv_quota_set *s)
{
    for (size_t i = 0; i < s->n; i++) forget(&s->v[i].entity);
    free(s->v);
    *s = (struct vv_quota_set){0};
}

/* ---- which one holds ---- */

double vv_quota_set_find(const struct vv_quota_set *s, struct vv_str user, struct vv_str client,
                         enum vv_quota_kind kind, struct vv_quota_entity *who)
{
    const struct vv_str any = VV_STR_NULL;
    const struct vv_quota_entity order[] = {
        {true, true, user, client}, {true, true, user, any},   {true, false, user, any}, {true, true, any, client},
        {true, true, any, any},     {true, false, any, any},   {false, true, any, client}, {false, true, any, any},
    };
    for (size_t i = 0; i < VV_COUNT(order); i++) {
        bool found;
        size_t at = lower_bound(s, &order[i], &found);
        if (!found || s->v[at].limit[kind] <= 0) continue;
        *who = (struct vv_quota_entity){order[i].has_user, order[i].has_client, order[i].has_user ? user : any,
                                        order[i].has_client ? client : any};
        return s->v[at].limit[kind];
    }
    return 0;
}

/* ---- the registry's member: [{"user": NAME or null, "client-id": …, "quotas": {name: limit}}] ---- */

static int name_json(json_t *to, const char *key, bool has, struct vv_str name)
{
    if (!has) return VV_OK;
    json_t *v = name.n < 0 ? json_null() : json_stringn(name.p, (size_t)name.n);
    return v && !json_object_set_new(to, key, v) ? VV_OK : VV_E_NOMEM;
}

json_t *vv_quota_set_json(const struct vv_quota_set *s)
{
    json_t *list = json_array();
    int err = list ? VV_OK : VV_E_NOMEM;
    for (size_t i = 0; i < s->n && !err; i++) {
        const struct vv_quota_entry *x = &s->v[i];
        json_t *o = json_object(), *quotas = json_object();
        for (int k = 0; k < VV_QUOTA_KINDS; k++)
            if (x->limit[k] > 0 && json_object_set_new(quotas, vv_quota_names[k], json_real(x->limit[k])))
                err = VV_E_NOMEM;
        if (json_object_set_new(o, "quotas", quotas)) err = VV_E_NOMEM;
        if (!err) err = name_json(o, "user", x->entity.has_user, x->entity.user);
        if (!err) err = name_json(o, "client-id", x->entity.has_client, x->entity.client);
        if (json_array_append_new(list, o)) err = VV_E_NOMEM;
    }
    if (!err) return list;
    json_decref(list);
    return NULL;
}

static bool load_name(json_t *o, const char *key, bool *has, struct vv_str *name)
{
    json_t *v = json_object_get(o, key);
    *has = v != NULL;
    *name = VV_STR_NULL;
    if (!v || json_is_null(v)) return true;
    if (json_is_string(v)) *name = (struct vv_str){json_string_value(v), (int32_t)json_string_length(v)};
    return json_is_string(v);
}

int vv_quota_set_load(struct vv_quota_set *s, json_t *list)
{
    size_t i;
    json_t *o, *limit;
    const char *name;
    int err = VV_OK;
    json_array_foreach(list, i, o)
    {
        struct vv_quota_entity e;
        bool ok = load_name(o, "user", &e.has_user, &e.user) && load_name(o, "client-id", &e.has_client, &e.client);
        json_object_foreach(json_object_get(o, "quotas"), name, limit)
        {
            int kind = vv_quota_kind_of(vv_str_c(name));
            double v = json_number_value(limit);
            if (!ok || kind < 0 || !(v > 0) || (!e.has_user && !e.has_client))
                VLOG_WARN("a stored quota is skipped: %s", name);
            else if (!err)
                err = vv_quota_set_put(s, &e, (enum vv_quota_kind)kind, v);
        }
    }
    return err;
}
