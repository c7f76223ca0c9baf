/* live.c — altering the broker's configuration while it runs. Contract: live.h.
 *
 * A change is made on a copy, which checks everything, then written to the registry's file, then swapped in and told to
 * whoever keeps values of it: topics that inherit it, the tier, the values read by other threads. `config` of struct
 * vv_broker stays what the files say and is read by any thread; the copy here belongs to control and is freed when the
 * next one comes. Invariant: nothing is in force that is not on disk. */
#include "live.h"

#include "broker_tier.h"
#include "migration.h"
#include "topics.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const struct vv_broker_config *vv_broker_live(const struct vv_broker *b)
{
    return b->live ? b->live : b->config;
}

/* ---- in force ---- */

/* all: partitions have values of the broker's own that changed. */
static void reconfigure(struct vv_broker *b, struct vv_topic *t, bool all)
{
    struct vv_topic_config config;
    vv_topic_config_load(t->overrides, t->override_count, vv_broker_live(b), t->internal, NULL, &config);
    if (!all && !memcmp(&config, &t->config, sizeof config)) return;
    t->config = config;
    for (int32_t i = 0; i < t->partition_count; i++)
        if (t->partitions[i]) vv_partition_configure(t->partitions[i], &config);
}

void vv_live_apply(struct vv_broker *b)
{
    const struct vv_broker_config *c = vv_broker_live(b);
    struct vv_tier_config tc;
    atomic_store(&b->values.remote_fetch_max_wait_ms, c->remote_fetch_max_wait_ms);
    int32_t expiry = (int32_t)c->producer_id_expiration_ms;
    bool all = atomic_exchange(&b->values.producer_expiry_ms, expiry) != expiry;
    int64_t per_client = c->tier_client_fetch_max_bytes_per_second;
    if (b->quotas) vv_quotas_default(b->quotas, VV_QUOTA_REMOTE, per_client == INT64_MAX ? 0 : per_client);
    if (b->topics) {
        pthread_rwlock_wrlock(&b->topics->lock);
        for (size_t i = 0; i < b->topics->count; i++) reconfigure(b, b->topics->v[i], all);
        pthread_rwlock_unlock(&b->topics->lock);
    }
    if (!b->tier) return;
    vv_broker_tier_config(c, &tc);
    vv_tier_configure(b->tier, &tc);
    vv_migration_look(b);
}

static void swap(struct vv_broker *b, struct vv_broker_config *next)
{
    vv_live_free(b);
    b->live = next;
    vv_live_apply(b);
}

void vv_live_free(struct vv_broker *b)
{
    if (!b->live) return;
    vv_config_release(b->live);
    free(b->live);
    b->live = NULL;
}

/* ---- altering ---- */

static struct vv_broker_config *copy_of(struct vv_broker *b)
{
    struct vv_broker_config *c = calloc(1, sizeof *c);
    if (!c || !vv_config_clone(vv_broker_live(b), c)) return c;
    free(c);
    return NULL;
}

struct clearing {
    struct vv_broker_config *c;
    enum vv_alter_scope scope;
    const struct vv_live_change *v;
    size_t n;
};

static int clear_unnamed(void *ctx, const char *key, const char *value)
{
    struct clearing *x = ctx;
    (void)value;
    for (size_t i = 0; i < x->n; i++)
        if (!strcmp(x->v[i].key, key)) return 0;
    return vv_config_set_dynamic(x->c, x->scope, key, NULL, NULL);
}

static int change(struct vv_broker_config *c, enum vv_alter_scope scope, const struct vv_live_change *v, size_t n,
                  bool replace, struct vv_error *e)
{
    struct clearing x = {c, scope, v, n};
    int err = VV_OK;
    for (size_t i = 0; i < n && !err; i++) err = vv_config_set_dynamic(c, scope, v[i].key, v[i].value, e);
    if (!err && replace) err = vv_config_altered_each(c, scope, clear_unnamed, &x);
    return err;
}

int vv_live_alter(struct vv_broker *b, enum vv_alter_scope scope, const struct vv_live_change *v, size_t n,
                  bool replace, bool validate_only, struct vv_error *e)
{
    vv_reactor_assert_here(b->control);
    struct vv_broker_config *next = copy_of(b);
    if (!next) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int err = change(next, scope, v, n, replace, e);
    struct vv_topics_change to = {.config = next};
    if (!err && !validate_only) err = vv_topics_save(b->topics, &to, e);
    if (err || validate_only) {
        vv_config_release(next);
        free(next);
        return err;
    }
    swap(b, next);
    for (size_t i = 0; i < n; i++)
        VLOG_INFO("configuration of %s altered: %s%s%s", scope == VV_ALTER_ALL ? "all brokers" : "this broker",
                  v[i].key, v[i].value ? "=" : " deleted", v[i].value ? v[i].value : "");
    vv_topics_changed(b);
    return VV_OK;
}

/* ---- quotas ---- */

int vv_live_set_quotas(struct vv_broker *b, struct vv_quota_set *set, struct vv_error *e)
{
    vv_reactor_assert_here(b->control);
    struct vv_topics_change to = {.quotas = set};
    int err = vv_topics_save(b->topics, &to, e);
    if (err) return err;
    vv_quotas_use(b->quotas, set);
    VLOG_INFO("client quotas altered: %zu entities have some", b->quotas->set.n);
    vv_topics_changed(b);
    return VV_OK;
}

int vv_live_load_quotas(struct vv_broker *b, json_t *list)
{
    struct vv_quota_set set = {0};
    int err = b->quotas ? vv_quota_set_load(&set, list) : VV_OK;
    if (!err && b->quotas)
        vv_quotas_use(b->quotas, &set);
    else
        vv_quota_set_release(&set);
    return err;
}

/* ---- the registry's member: {"": {key: value}, "1": {...}} ---- */

static int put(void *ctx, const char *key, const char *value)
{
    return json_object_set_new(ctx, key, json_string(value)) ? VV_E_NOMEM : VV_OK;
}

static int add_scope(json_t *to, const char *name, const struct vv_broker_config *c, enum vv_alter_scope scope)
{
    json_t *o = json_object();
    int err = o ? vv_config_altered_each(c, scope, put, o) : VV_E_NOMEM;
    if (!err && json_object_size(o)) return json_object_set_new(to, name, o) ? VV_E_NOMEM : VV_OK;
    json_decref(o);
    return err;
}

json_t *vv_live_json(struct vv_broker *b, const struct vv_broker_config *config)
{
    char id[16];
    json_t *to = json_object();
    const struct vv_broker_config *c = config ? config : vv_broker_live(b);
    snprintf(id, sizeof id, "%" PRId32, b->node_id);
    if (to && !add_scope(to, "", c, VV_ALTER_ALL) && !add_scope(to, id, c, VV_ALTER_BROKER)) return to;
    json_decref(to);
    return NULL;
}

static void load_scope(struct vv_broker_config *c, json_t *o, enum vv_alter_scope scope)
{
    const char *key;
    json_t *value;
    json_object_foreach(o, key, value)
    {
        struct vv_error e = {0};
        if (vv_config_set_dynamic(c, scope, key, json_string_value(value), &e))
            VLOG_WARN("a stored alteration of the configuration is skipped: %s", e.text);
    }
}

int vv_live_load(struct vv_broker *b, json_t *altered)
{
    char id[16];
    if (!json_object_size(altered)) return VV_OK;
    struct vv_broker_config *c = copy_of(b);
    if (!c) return VV_E_NOMEM;
    snprintf(id, sizeof id, "%" PRId32, b->node_id);
    load_scope(c, json_object_get(altered, ""), VV_ALTER_ALL);
    load_scope(c, json_object_get(altered, id), VV_ALTER_BROKER);
    vv_live_free(b);
    b->live = c;
    return VV_OK;
}
