/* overrides.c — IncrementalAlterConfigs' arithmetic on a topic's overrides. Contract: configs.h. Pure. */
#include "configs.h"

#include <inttypes.h>
#include <string.h>

int vv_overrides_begin(struct vv_overrides *o, struct vv_arena *arena, const struct vv_kv *now, size_t n, size_t more)
{
    *o = (struct vv_overrides){.arena = arena, .cap = n + more};
    o->v = vv_arena_alloc(arena, (o->cap + 1) * sizeof *o->v);
    if (!o->v) return vv_arena_err(arena);
    for (size_t i = 0; i < n; i++) {
        if (!now[i].value) continue;
        o->v[o->n++] = now[i];
    }
    return VV_OK;
}

static struct vv_kv *find(struct vv_overrides *o, const char *key)
{
    for (size_t i = 0; i < o->n; i++)
        if (!strcmp(o->v[i].key, key)) return &o->v[i];
    return NULL;
}

static int set(struct vv_overrides *o, const char *key, const char *value)
{
    struct vv_kv *kv = find(o, key);
    if (!kv && o->n == o->cap) return VV_E_LIMIT;
    if (!kv) kv = &o->v[o->n++];
    *kv = (struct vv_kv){key, value};
    return VV_OK;
}

static void unset(struct vv_overrides *o, const char *key)
{
    struct vv_kv *kv = find(o, key);
    if (!kv) return;
    size_t i = (size_t)(kv - o->v);
    memmove(&o->v[i], &o->v[i + 1], (o->n - i - 1) * sizeof *o->v);
    o->n--;
}

struct current {
    struct vv_arena *arena;
    const char *key;
    char *value;
};

static int take_current(void *ctx, const struct vv_topic_config_value *v)
{
    struct current *c = ctx;
    if (strcmp(v->value.name, c->key)) return 0;
    const char *text = v->value.value ? v->value.value : "";
    c->value = vv_arena_strdup(c->arena, text, strlen(text));
    return 1;
}

/* Next entry of a comma-separated list, without blanks around it; false at the end. */
static bool next_entry(const char **p, const char **at, size_t *n)
{
    while (**p == ',' || **p == ' ') (*p)++;
    if (!**p) return false;
    *at = *p;
    *n = strcspn(*p, ",");
    *p += *n;
    while (*n && (*at)[*n - 1] == ' ') (*n)--;
    return true;
}

static bool has_entry(const char *list, const char *at, size_t n)
{
    const char *p = list, *x;
    size_t xn;
    while (next_entry(&p, &x, &xn))
        if (xn == n && !memcmp(x, at, n)) return true;
    return false;
}

/* Entries of `from` that are not in `without`, appended to the list in to. */
static void add_entries(char *to, const char *from, const char *without)
{
    const char *p = from, *at;
    size_t n;
    while (next_entry(&p, &at, &n)) {
        if (has_entry(without, at, n) || has_entry(to, at, n)) continue;
        size_t end = strlen(to);
        if (end) to[end++] = ',';
        memcpy(to + end, at, n);
        to[end + n] = 0;
    }
}

char *vv_list_change(struct vv_arena *arena, const char *list, const struct vv_config_change *ch)
{
    char *to = vv_arena_alloc(arena, strlen(list) + strlen(ch->value) + 2);
    if (!to) return NULL;
    add_entries(to, list, ch->op == VV_CONFIG_SUBTRACT ? ch->value : "");
    if (ch->op == VV_CONFIG_APPEND) add_entries(to, ch->value, "");
    return to;
}

static int change_list(struct vv_overrides *o, const struct vv_config_change *ch, const struct vv_broker_config *broker,
                       bool internal, struct vv_error *e)
{
    const char *op = ch->op == VV_CONFIG_APPEND ? "APPEND" : "SUBTRACT";
    if (!vv_topic_config_is_list(ch->key))
        return vv_error_set(e, VV_INVALID_CONFIG, "Can't %s to key %s because its type is not LIST.", op, ch->key);
    struct current c = {.arena = o->arena, .key = ch->key};
    vv_topic_config_each(o->v, o->n, broker, internal, take_current, &c);
    char *list = c.value ? vv_list_change(o->arena, c.value, ch) : NULL;
    if (!list) return vv_error_set(e, vv_arena_err(o->arena), "out of memory");
    return set(o, ch->key, list);
}

int vv_overrides_apply(struct vv_overrides *o, const struct vv_config_change *ch, const struct vv_broker_config *broker,
                       bool internal, struct vv_error *e)
{
    if (!vv_topic_config_known(ch->key) && ch->op != VV_CONFIG_DELETE)
        return vv_error_set(e, VV_INVALID_CONFIG, "Unknown topic config name: %s", ch->key);
    if (ch->op != VV_CONFIG_DELETE && !ch->value)
        return vv_error_set(e, VV_INVALID_REQUEST, "Null value not supported for : %s", ch->key);
    switch (ch->op) {
    case VV_CONFIG_SET:
        return set(o, ch->key, ch->value);
    case VV_CONFIG_DELETE:
        unset(o, ch->key);
        return VV_OK;
    case VV_CONFIG_APPEND:
    case VV_CONFIG_SUBTRACT:
        return change_list(o, ch, broker, internal, e);
    default:
        return vv_error_set(e, VV_INVALID_REQUEST, "Unknown operation %d on config key %s.", ch->op, ch->key);
    }
}
