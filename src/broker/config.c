/* config.c — loading: texts from files and overrides, checks against the table, derived values,
 * warnings.
 *
 * Every known key has a slot with its text and where it came from; keys that have no effect
 * (config_foreign.c) and keys of prefix families are kept in a list, so that DescribeConfigs can
 * show what was set. After all texts are in: aliases (Aiven's rsm.config.* names) fill what is
 * unset, typed fields are parsed, values that several keys speak of are derived, warnings are
 * collected. A text is stored once in an arena that lives as long as the config.
 *
 * Invariants: after a successful load every typed field holds its text's value; slots[i] belongs
 * to vv_config_keys[i]. Threads: see config.h. */
#include "config.h"

#include "varve/buf.h"
#include "varve/bytes.h"
#include "varve/vlog.h"
#include "config_foreign.h"
#include "config_listeners.h"
#include "config_properties.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FILE_BYTES_MAX (4u << 20)
#define WARNINGS_MAX   64

#define VV_COUNT_SECTION(title)
#define VV_X(field, name, type, initial, min, max, choices, flags, doc) VV_KEY_AT_##field,
enum { VV_CONFIG_KEYS(VV_COUNT_SECTION, VV_X) KEY_COUNT };
#undef VV_X

/* A SECTION row becomes a heading without a name, so that the reference keeps the table's order. */
#define VV_SECTION_ROW(title) {.section = title},
#define VV_X(field, key, ktype, init, lo, hi, words, kflags, text)                                 \
    {.name = key,                                                                                  \
     .type = VV_TYPE_##ktype,                                                                      \
     .initial = init,                                                                              \
     .min = lo,                                                                                    \
     .max = hi,                                                                                    \
     .choices = words,                                                                             \
     .flags = kflags,                                                                              \
     .doc = text,                                                                                  \
     .offset = offsetof(struct vv_broker_config, field)},
#define VV_NO_ROW(title)
const struct vv_config_key vv_config_keys[] = {VV_CONFIG_KEYS(VV_NO_ROW, VV_X)};
const size_t vv_config_key_count = KEY_COUNT;
static const struct vv_config_key with_sections[] = {VV_CONFIG_KEYS(VV_SECTION_ROW, VV_X)};
#undef VV_X

struct slot {
    const char *text;    /* effective text when set here; NULL = default */
    const char *where;   /* "server.properties:12", "--set" */
    const char *altered[2]; /* at run time, NULL = not: on this broker, on all brokers */
    int rank;            /* of the source: later files and --set are higher; 0 = unset */
};
struct extra { /* set, known, without a slot */
    const char *name, *value, *where;
    const struct vv_foreign_key *key; /* NULL: of a prefix family */
    enum vv_foreign_why why;
};
struct vv_config_private {
    struct vv_arena arena;
    struct slot slots[KEY_COUNT];
    struct extra *extras;
    size_t extra_count, extra_cap;
    const char *warnings[WARNINGS_MAX];
    size_t warning_count;
};

static void warn(struct vv_broker_config *c, const char *fmt, const char *a, const char *b,
                 const char *d)
{
    struct vv_config_private *p = c->p;
    if (p->warning_count == WARNINGS_MAX) return;
    const char *text = vv_arena_printf(&p->arena, "%s%s%s%s", fmt, a, b, d);
    if (text) p->warnings[p->warning_count++] = text;
}

static int key_index(const char *name)
{
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (!strcmp(vv_config_keys[i].name, name)) return (int)i;
    return -1;
}

bool vv_config_is_sensitive(const char *name)
{
    static const char *const words[] = {"password",    "secret",     "session.token",
                                        "jaas",        "passphrase", "keystore.key",
                                        "private.key", "credential"};
    int i = key_index(name);
    if (i >= 0) return vv_config_keys[i].type == VV_TYPE_PASSWORD;
    const struct vv_foreign_key *f = vv_foreign_find(name);
    if (f) return f->type == VV_TYPE_PASSWORD;
    for (size_t w = 0; w < VV_COUNT(words); w++)
        if (strstr(name, words[w])) return true;
    return false;
}

/* ---- checking one value ---- */

static int parse_integer(const struct vv_config_key *k, const char *text, int64_t *out,
                         struct vv_error *e)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return vv_error_set(e, VV_E_CONFIG, "%s=%s: not a whole number", k->name, text);
    if (v < k->min || v > k->max)
        return vv_error_set(e, VV_E_CONFIG, "%s=%s: must be from %lld to %lld", k->name, text,
                            (long long)k->min, (long long)k->max);
    *out = v;
    return 0;
}

static int parse_double(const struct vv_config_key *k, const char *text, double *out,
                        struct vv_error *e)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v))
        return vv_error_set(e, VV_E_CONFIG, "%s=%s: not a number", k->name, text);
    if (v < (double)k->min || v > (double)k->max)
        return vv_error_set(e, VV_E_CONFIG, "%s=%s: must be from %lld to %lld", k->name, text,
                            (long long)k->min, (long long)k->max);
    *out = v;
    return 0;
}

static bool is_choice(const char *choices, const char *word, size_t n)
{
    for (const char *p = choices;; p += strcspn(p, "|") + 1) {
        if (strcspn(p, "|") == n && !strncmp(p, word, n)) return true;
        if (!strchr(p, '|')) return false;
    }
}

/* Every element of a LIST, or the whole of a STRING, is one of the choices. */
static int check_choices(const struct vv_config_key *k, const char *text, struct vv_error *e)
{
    const char *p = text;
    do {
        size_t n = k->type == VV_TYPE_LIST ? strcspn(p, ",") : strlen(p);
        const char *word = p;
        size_t len = n;
        while (len && *word == ' ') {
            word++;
            len--;
        }
        while (len && word[len - 1] == ' ')
            len--;
        if (!is_choice(k->choices, word, len))
            return vv_error_set(e, VV_E_CONFIG, "%s=%s: must be one of %s", k->name, text,
                                k->choices);
        p += n;
    } while (*p++);
    return 0;
}

int vv_config_parse(const struct vv_config_key *k, const char *text, void *field,
                    struct vv_error *e)
{
    int64_t v = 0;
    int rc;
    switch (k->type) {
    case VV_TYPE_BOOLEAN:
        if (strcasecmp(text, "true") && strcasecmp(text, "false"))
            return vv_error_set(e, VV_E_CONFIG, "%s=%s: must be true or false", k->name, text);
        *(bool *)field = !strcasecmp(text, "true");
        return 0;
    case VV_TYPE_INT:
    case VV_TYPE_SHORT:
        if ((rc = parse_integer(k, text, &v, e))) return rc;
        *(int32_t *)field = (int32_t)v;
        return 0;
    case VV_TYPE_LONG:
        if ((rc = parse_integer(k, text, &v, e))) return rc;
        *(int64_t *)field = v;
        return 0;
    case VV_TYPE_DOUBLE:
        return parse_double(k, text, field, e);
    default:
        if (k->choices && (rc = check_choices(k, text, e))) return rc;
        *(const char **)field = *text ? text : NULL;
        return 0;
    }
}

int vv_config_check(const struct vv_config_key *key, const char *value, struct vv_error *e)
{
    union {
        bool b;
        int32_t i;
        int64_t l;
        double d;
        const char *s;
    } scratch;
    return vv_config_parse(key, value, &scratch, e);
}

/* ---- collecting texts ---- */

size_t vv_edit_distance(const char *a, const char *b)
{
    size_t row[128], n = strlen(b);
    if (strlen(a) >= VV_COUNT(row) || n >= VV_COUNT(row)) return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diag = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t keep = diag + (a[i - 1] != b[j - 1]);
            diag = row[j];
            row[j] = VV_MIN(keep, VV_MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[n];
}

/* The known name most like an unknown one; NULL when none is near. A topic's name of a broker key
 * counts as near (retention.ms -> log.retention.ms). */
static const char *nearest(const char *name)
{
    const char *best = NULL;
    size_t best_d = VV_MAX(strlen(name) / 4, 2) + 1;
    for (size_t i = 0; i < KEY_COUNT + vv_foreign_key_count; i++) {
        const char *k =
            i < KEY_COUNT ? vv_config_keys[i].name : vv_foreign_keys[i - KEY_COUNT].name;
        size_t d = vv_edit_distance(name, k);
        if (!strncmp(k, "log.", 4) && !strcmp(k + 4, name)) d = 0;
        if (d < best_d) {
            best = k;
            best_d = d;
        }
    }
    return best;
}

static int add_extra(struct vv_config_private *p, const char *name, const char *value,
                     const char *where, const struct vv_foreign_key *key, enum vv_foreign_why why)
{
    struct extra *x = NULL;
    for (size_t i = 0; i < p->extra_count; i++)
        if (!strcmp(p->extras[i].name, name)) x = &p->extras[i];
    if (!x) {
        if (p->extra_count == p->extra_cap) {
            size_t cap = p->extra_cap ? p->extra_cap * 2 : 32;
            struct extra *v = realloc(p->extras, cap * sizeof *v);
            if (!v) return VV_E_NOMEM;
            p->extras = v;
            p->extra_cap = cap;
        }
        x = &p->extras[p->extra_count++];
    }
    *x = (struct extra){vv_arena_strdup(&p->arena, name, strlen(name)),
                        vv_arena_strdup(&p->arena, value, strlen(value)), where, key, why};
    return x->name && x->value ? 0 : VV_E_NOMEM;
}

struct source {
    struct vv_broker_config *c;
    const char *file; /* NULL: --set */
    int rank;
    struct vv_error *e;
};

static const char *place(struct source *s, int line)
{
    return s->file ? vv_arena_printf(&s->c->p->arena, "%s:%d", s->file, line) : "--set";
}

/* An unknown key is kept like a known one, told apart by why = COUNT, and judged when
 * config.unknown is known. */
static int take(void *ctx, int line, const char *name, const char *value)
{
    struct source *s = ctx;
    struct vv_config_private *p = s->c->p;
    const char *where = place(s, line);
    enum vv_foreign_why why = VV_WHY_COUNT;
    int i = key_index(name), rc = 0;
    if (!where) return vv_error_set(s->e, VV_E_NOMEM, "out of memory");
    if (i >= 0) {
        const char *text = vv_arena_strdup(&p->arena, value, strlen(value));
        if (!text) return vv_error_set(s->e, VV_E_NOMEM, "out of memory");
        p->slots[i] = (struct slot){.text = text, .where = where, .rank = s->rank};
        return 0;
    }
    const struct vv_foreign_key *f = vv_foreign_find(name);
    if (f)
        why = f->why;
    else
        vv_foreign_family(name, &why);
    rc = add_extra(p, name, value, where, f, why);
    return rc ? vv_error_set(s->e, rc, "out of memory") : 0;
}

static int load_file(struct vv_env *env, struct source *s)
{
    uint8_t *text = NULL;
    size_t n = 0;
    struct vv_error inner = {0}, *e = s->e;
    int rc = vv_fs_read_file(env, s->file, FILE_BYTES_MAX, &text, &n);
    if (rc)
        return vv_error_set(e, rc, "cannot read the configuration file %s: %s", s->file,
                            vv_err_name(rc));
    s->e = &inner;
    rc = vv_properties_each((const char *)text, n, take, s, &inner);
    free(text);
    return rc ? vv_error_set(e, rc, "%s: %s", s->file, inner.text) : 0;
}

static int load_set(struct source *s, const char *set)
{
    const char *eq = strchr(set, '=');
    if (!eq || eq == set)
        return vv_error_set(s->e, VV_E_USAGE, "--set %s: expected KEY=VALUE", set);
    char *name = vv_arena_strdup(&s->c->p->arena, set, (size_t)(eq - set));
    if (!name) return vv_error_set(s->e, VV_E_NOMEM, "out of memory");
    return take(s, 0, name, eq + 1);
}

/* ---- after the texts: aliases, typed fields, derived values, warnings ---- */

static const char *extra_value(const struct vv_broker_config *c, const char *name)
{
    for (size_t i = 0; i < c->p->extra_count; i++)
        if (!strcmp(c->p->extras[i].name, name)) return c->p->extras[i].value;
    return NULL;
}

/* Aiven's plugin and ours speak of the same things. */
static const struct {
    const char *theirs, *ours;
} aliases[] = {
    {"storage.s3.region", "tier.s3.region"},
    {"storage.s3.endpoint.url", "tier.s3.endpoint"},
    {"storage.s3.path.style.access.enabled", "tier.s3.path.style"},
    {"storage.aws.access.key.id", "tier.s3.access.key.id"},
    {"storage.aws.secret.access.key", "tier.s3.secret.access.key"},
    {"storage.s3.access.key.id", "tier.s3.access.key.id"},
    {"storage.s3.secret.access.key", "tier.s3.secret.access.key"},
    {"storage.s3.multipart.upload.part.size", "tier.s3.part.bytes"},
    {"storage.s3.storage.class", "tier.s3.storage.class"},
};

static const char *rsm(const struct vv_broker_config *c, const char *rest)
{
    const char *prefix = extra_value(c, "remote.log.storage.manager.impl.prefix");
    char name[256];
    snprintf(name, sizeof name, "%s%s", prefix && *prefix ? prefix : "rsm.config.", rest);
    return extra_value(c, name);
}

static int set_if_unset(struct vv_broker_config *c, const char *name, const char *value)
{
    struct slot *s = &c->p->slots[key_index(name)];
    if (!s->text && value && *value)
        *s = (struct slot){.text = value, .where = "rsm.config.*", .rank = 1};
    return 0;
}

static int apply_aliases(struct vv_broker_config *c)
{
    const char *bucket = rsm(c, "storage.s3.bucket.name"), *root = rsm(c, "storage.root");
    const char *prefix = rsm(c, "key.prefix");
    for (size_t i = 0; i < VV_COUNT(aliases); i++)
        set_if_unset(c, aliases[i].ours, rsm(c, aliases[i].theirs));
    const char *url = NULL;
    if (bucket && *bucket)
        url = vv_arena_printf(&c->p->arena, "s3://%s/%s", bucket, prefix ? prefix : "");
    else if (root && *root)
        url = vv_arena_printf(&c->p->arena, "fs:%s", root);
    else
        return 0;
    return url ? set_if_unset(c, "tier.url", url) : VV_E_NOMEM;
}

static const char *text_of(const struct vv_config_private *p, size_t i)
{
    const struct slot *s = &p->slots[i];
    if (s->altered[VV_ALTER_BROKER]) return s->altered[VV_ALTER_BROKER];
    if (s->altered[VV_ALTER_ALL]) return s->altered[VV_ALTER_ALL];
    return s->text ? s->text : vv_config_keys[i].initial;
}

static int parse_fields(struct vv_broker_config *c, struct vv_error *e)
{
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const struct vv_config_key *k = &vv_config_keys[i];
        const char *text = text_of(c->p, i);
        struct vv_error inner = {0};
        if (!text) continue;
        int rc = vv_config_parse(k, text, (char *)c + k->offset, &inner);
        if (rc && k->type == VV_TYPE_PASSWORD) return vv_error_set(e, rc, "%s: bad value", k->name);
        if (rc)
            return vv_error_set(e, rc, "%s: %s",
                                c->p->slots[i].where ? c->p->slots[i].where : "default",
                                inner.text);
    }
    return 0;
}

#define SLOT(c, field)   (&(c)->p->slots[VV_KEY_AT_##field])
#define IS_SET(c, field) (text_of((c)->p, VV_KEY_AT_##field) != vv_config_keys[VV_KEY_AT_##field].initial)

static int derive_paths(struct vv_broker_config *c, struct vv_error *e)
{
    struct vv_arena *a = &c->p->arena;
    const struct slot *dirs = SLOT(c, log_dirs)->text ? SLOT(c, log_dirs) : SLOT(c, log_dir_key);
    const char *dir = c->log_dirs ? c->log_dirs : c->log_dir_key;
    bool own = !dir || SLOT(c, data_dir)->rank > dirs->rank; /* data.dir speaks last */
    const char *tier = NULL;
    if (!own && strchr(dir, ','))
        return vv_error_set(
            e, VV_E_CONFIG,
            "%s: log.dirs=%s: one directory is used; join the disks below it, or run one "
            "broker per disk",
            dirs->where, dir);
    if (own && !c->data_dir) return vv_error_set(e, VV_E_CONFIG, "data.dir is empty");
    c->log = own ? vv_arena_printf(a, "%s/log", c->data_dir) : dir;
    c->data = own || SLOT(c, data_dir)->text ? c->data_dir : dir;
    if (own || SLOT(c, data_dir)->text)
        tier = vv_arena_printf(a, "fs:%s/tier", c->data_dir);
    else
        tier = vv_arena_printf(a, "fs:%s-tier", dir);
    c->cache_dir = c->tier_cache_dir                   ? c->tier_cache_dir
                   : own || SLOT(c, data_dir)->text ? vv_arena_printf(a, "%s/cache", c->data_dir)
                                                    : vv_arena_printf(a, "%s-cache", dir);
    if (!c->log || !tier || !c->cache_dir) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    c->tier = c->tier_url ? c->tier_url : tier;
    if (!c->remote_log_storage_system_enable || !strcmp(c->tier, "off"))
        c->tier = NULL;
    else if (!strncmp(c->tier, "fs:", 3) ? !c->tier[3]
                                         : strncmp(c->tier, "s3://", 5) || !c->tier[5])
        return vv_error_set(e, VV_E_CONFIG,
                            "%s: tier.url=%s: must be fs:DIR, s3://BUCKET/PREFIX or off",
                            SLOT(c, tier_url)->where, c->tier);
    return 0;
}

static int64_t times(int64_t v, int64_t unit)
{
    return v < 0 ? -1 : v > INT64_MAX / unit ? INT64_MAX : v * unit;
}

static void derive_times(struct vv_broker_config *c)
{
    if (IS_SET(c, log_retention_ms))
        c->retention_ms = c->log_retention_ms;
    else if (IS_SET(c, log_retention_minutes))
        c->retention_ms = times(c->log_retention_minutes, 60000);
    else if (IS_SET(c, log_retention_hours))
        c->retention_ms = times(c->log_retention_hours, 3600000);
    else
        c->retention_ms = c->log_retention_ms;
    c->roll_ms = IS_SET(c, log_roll_ms) ? c->log_roll_ms : times(c->log_roll_hours, 3600000);
    c->roll_jitter_ms = IS_SET(c, log_roll_jitter_ms) ? c->log_roll_jitter_ms
                                                      : times(c->log_roll_jitter_hours, 3600000);
    c->flush_ms = IS_SET(c, log_flush_interval_ms) ? c->log_flush_interval_ms
                                                   : c->log_flush_scheduler_interval_ms;
}

static int derive_rest(struct vv_broker_config *c, struct vv_error *e)
{
    c->id = IS_SET(c, node_id) || c->broker_id < 0 ? c->node_id : c->broker_id;
    if (IS_SET(c, node_id) && c->broker_id >= 0 && c->broker_id != c->node_id)
        return vv_error_set(e, VV_E_CONFIG, "%s: broker.id=%d is not node.id=%d; drop one of them",
                            SLOT(c, broker_id)->where, c->broker_id, c->node_id);
    c->reactor_count = c->reactors ? c->reactors : c->num_network_threads;
    c->flush_acks = !strcmp(c->log_flush_acks, "all")      ? VV_FLUSH_ALL
                    : !strcmp(c->log_flush_acks, "leader") ? VV_FLUSH_LEADER
                                                           : VV_FLUSH_NONE;
    c->tier_verify_full = !strcmp(c->tier_verify, "full");
    c->tier_s3_path_style_set = IS_SET(c, tier_s3_path_style);
    if (!c->tier_s3_path_style_set) c->tier_s3_path_style = c->tier_s3_endpoint != NULL;
    c->metrics_on = c->metrics_listener && strcasecmp(c->metrics_listener, "off");
    if (c->metrics_on) {
        struct vv_error inner;
        if (vv_endpoint_parse(c->metrics_listener, strlen(c->metrics_listener), &c->metrics,
                              &inner))
            return vv_error_set(e, VV_E_CONFIG, "%s: metrics.listener: %s, nor off",
                                SLOT(c, metrics_listener)->where, inner.text);
    }
    if (c->log_cleanup_policy && strstr(c->log_cleanup_policy, "compact"))
        return vv_error_set(
            e, VV_E_CONFIG,
            "%s: log.cleanup.policy=%s: user topics cannot be compacted yet, and deleting "
            "instead would lose data; say delete, with log.retention.ms=-1 to keep everything",
            SLOT(c, log_cleanup_policy)->where, c->log_cleanup_policy);
    const char *roles = extra_value(c, "process.roles");
    if (roles && *roles && !strstr(roles, "broker"))
        return vv_error_set(
            e, VV_E_CONFIG,
            "process.roles=%s: there is no controller-only node here; this file is for "
            "Apache Kafka's controller",
            roles);
    return 0;
}

static int derive(struct vv_broker_config *c, int *controllers, struct vv_error *e)
{
    struct vv_error inner = {0};
    const char *names = extra_value(c, "controller.listener.names");
    int rc = derive_paths(c, e);
    if (rc) return rc;
    derive_times(c);
    if ((rc = derive_rest(c, e))) return rc;
    rc = vv_listeners_derive(c, names && *names ? names : NULL, controllers, &inner);
    if (rc)
        return vv_error_set(e, rc, "%s: %s",
                            SLOT(c, listeners)->where ? SLOT(c, listeners)->where : "default",
                            inner.text);
    return 0;
}

static bool same_value(const struct vv_foreign_key *k, const char *value)
{
    if (!k->initial) return !*value;
    if (k->type == VV_TYPE_BOOLEAN) return !strcasecmp(k->initial, value);
    if (k->type == VV_TYPE_DOUBLE)
        return strtod(k->initial, NULL) == strtod(value, NULL); /* the same text in other words */
    return !strcmp(k->initial, value);
}

static bool wants_warning(const struct vv_broker_config *c, const struct extra *x)
{
    if (x->why == VV_WHY_TIER && (!x->key || strstr(x->name, "impl.prefix")))
        return false; /* rsm.config.*: used, or the business of another plugin */
    (void)c;
    return !x->key || !same_value(x->key, x->value);
}

/* One warning per reason, naming all its keys. */
static int collect_warnings(struct vv_broker_config *c, int controllers)
{
    struct vv_config_private *p = c->p;
    for (int why = 0; why < VV_WHY_COUNT; why++) {
        char names[1024] = "";
        size_t n = 0;
        if (why == VV_WHY_KRAFT && controllers)
            n = (size_t)snprintf(names, sizeof names, "CONTROLLER listener");
        for (size_t i = 0; i < p->extra_count; i++) {
            const struct extra *x = &p->extras[i];
            if ((int)x->why != why || !wants_warning(c, x)) continue;
            int w = snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", x->name);
            if (w < 0 || (size_t)w >= sizeof names - n) {
                memcpy(names + sizeof names - 4, "...", 4);
                break;
            }
            n += (size_t)w;
        }
        if (n) warn(c, "without effect: ", names, ": ", vv_foreign_reasons[why]);
    }
    if (c->compression_type && strcmp(c->compression_type, "producer"))
        warn(c, "without effect: compression.type=", c->compression_type,
             ": batches are stored as the producer sent them", "");
    return 0;
}

static int judge_unknown(struct vv_broker_config *c, struct vv_error *e)
{
    bool refuse = !c->config_unknown || strcmp(c->config_unknown, "warn");
    struct vv_config_private *p = c->p;
    size_t kept = 0;
    for (size_t i = 0; i < p->extra_count; i++) {
        const struct extra *x = &p->extras[i];
        if (x->why != VV_WHY_COUNT) {
            p->extras[kept++] = *x;
            continue;
        }
        const char *near = nearest(x->name);
        char hint[192] = "";
        if (near) snprintf(hint, sizeof hint, "; did you mean %s?", near);
        if (refuse)
            return vv_error_set(e, VV_E_CONFIG,
                                "%s: unknown key %s%s (config.unknown=warn lets it pass)", x->where,
                                x->name, hint);
        char text[512];
        snprintf(text, sizeof text, "%s: unknown key %s ignored%s", x->where, x->name, hint);
        warn(c, text, "", "", "");
    }
    p->extra_count = kept;
    return 0;
}

int vv_config_load(struct vv_env *env, const char *const *files, size_t file_count,
                   const char *const *sets, size_t set_count, struct vv_broker_config *out,
                   struct vv_error *e)
{
    int rc = 0, controllers = 0;
    *out = (struct vv_broker_config){.p = calloc(1, sizeof *out->p)};
    if (!out->p) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    vv_arena_init(&out->p->arena, 0);
    for (size_t i = 0; i < file_count; i++) {
        struct source s = {out, files[i], (int)i + 1, e};
        if ((rc = load_file(env, &s))) return rc;
    }
    for (size_t i = 0; i < set_count; i++) {
        struct source s = {out, NULL, (int)file_count + 1, e};
        if ((rc = load_set(&s, sets[i]))) return rc;
    }
    if (apply_aliases(out)) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    if ((rc = parse_fields(out, e)) || (rc = judge_unknown(out, e)) ||
        (rc = derive(out, &controllers, e)))
        return rc;
    return collect_warnings(out, controllers);
}

void vv_config_log_warnings(const struct vv_broker_config *c)
{
    for (size_t i = 0; i < c->p->warning_count; i++)
        VLOG_WARN("config: %s", c->p->warnings[i]);
}

size_t vv_config_warning_count(const struct vv_broker_config *c)
{
    return c->p ? c->p->warning_count : 0;
}

const char *vv_config_warning(const struct vv_broker_config *c, size_t i)
{
    return c->p->warnings[i];
}

void vv_config_release(struct vv_broker_config *c)
{
    if (c->p) {
        vv_arena_release(&c->p->arena);
        free(c->p->extras);
        free(c->p);
    }
    *c = (struct vv_broker_config){0};
}

/* ---- run-time changes ---- */

int vv_config_clone(const struct vv_broker_config *from, struct vv_broker_config *to)
{
    int controllers;
    *to = (struct vv_broker_config){.p = calloc(1, sizeof *to->p)};
    if (!to->p) return VV_E_NOMEM;
    struct vv_arena *a = &to->p->arena;
    vv_arena_init(a, 0);
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const struct slot *s = &from->p->slots[i];
        struct slot *d = &to->p->slots[i];
        d->rank = s->rank;
        if (s->text && !(d->text = vv_arena_strdup(a, s->text, strlen(s->text)))) goto nomem;
        if (s->where && !(d->where = vv_arena_strdup(a, s->where, strlen(s->where)))) goto nomem;
        for (int k = 0; k < 2; k++) {
            const char *text = s->altered[k];
            if (text && !(d->altered[k] = vv_arena_strdup(a, text, strlen(text)))) goto nomem;
        }
    }
    for (size_t i = 0; i < from->p->extra_count; i++) {
        const struct extra *x = &from->p->extras[i];
        const char *where = vv_arena_strdup(a, x->where, strlen(x->where));
        if (!where || add_extra(to->p, x->name, x->value, where, x->key, x->why)) goto nomem;
    }
    if (!parse_fields(to, NULL) && !derive(to, &controllers, NULL)) return 0;
nomem:
    vv_config_release(to);
    return VV_E_NOMEM;
}

/* "key=value: reason" of the parser in Kafka's words. */
static int refuse_value(const char *key, const char *value, const struct vv_error *why, struct vv_error *e)
{
    size_t skip = strlen(key) + 1 + strlen(value) + 2;
    return vv_error_set(e, VV_INVALID_REQUEST, "Invalid value %s for configuration %s: %s", value, key,
                        strlen(why->text) > skip ? why->text + skip : why->text);
}

int vv_config_set_dynamic(struct vv_broker_config *c, enum vv_alter_scope scope, const char *key, const char *value,
                          struct vv_error *e)
{
    struct vv_error inner = {0};
    int i = key_index(key), controllers;
    if (!value && (i < 0 || !(vv_config_keys[i].flags & VV_KEY_DYNAMIC))) return 0; /* never was altered */
    if (i < 0 && !vv_foreign_find(key))
        return vv_error_set(e, VV_INVALID_REQUEST, "Unknown broker config name: %s", key);
    if (i < 0 || !(vv_config_keys[i].flags & VV_KEY_DYNAMIC))
        return vv_error_set(e, VV_INVALID_REQUEST,
                            "Cannot update these configs dynamically: %s. It is read when the broker starts: change "
                            "its properties file and restart it",
                            key);
    if (value && vv_config_check(&vv_config_keys[i], value, &inner)) return refuse_value(key, value, &inner, e);
    const char **altered = &c->p->slots[i].altered[scope], *old = *altered, *text = NULL;
    if (value && !(text = vv_arena_strdup(&c->p->arena, value, strlen(value))))
        return vv_error_set(e, VV_E_NOMEM, "out of memory");
    *altered = text;
    if (!parse_fields(c, &inner) && !derive(c, &controllers, &inner)) return 0;
    *altered = old;
    (void)(parse_fields(c, NULL) || derive(c, &controllers, NULL));
    return vv_error_set(e, VV_INVALID_REQUEST, "%s", inner.text);
}

int vv_config_altered_each(const struct vv_broker_config *c, enum vv_alter_scope scope,
                           int (*each)(void *ctx, const char *key, const char *value), void *ctx)
{
    int rc = 0;
    for (size_t i = 0; i < KEY_COUNT && !rc; i++)
        if (c->p->slots[i].altered[scope]) rc = each(ctx, vv_config_keys[i].name, c->p->slots[i].altered[scope]);
    return rc;
}

/* ---- asking ---- */

const char *vv_config_default(const char *name)
{
    int i = key_index(name);
    if (i >= 0) return vv_config_keys[i].initial;
    const struct vv_foreign_key *f = vv_foreign_find(name);
    return f ? f->initial : NULL;
}

static struct vv_config_value slot_value(const struct vv_broker_config *c, size_t i)
{
    const struct vv_config_key *k = &vv_config_keys[i];
    const struct slot *s = &c->p->slots[i];
    bool secret = k->type == VV_TYPE_PASSWORD;
    return (struct vv_config_value){
        .name = k->name,
        .value = secret ? NULL : text_of(c->p, i),
        .source = s->altered[VV_ALTER_BROKER] ? VV_SOURCE_DYNAMIC_BROKER
                  : s->altered[VV_ALTER_ALL]  ? VV_SOURCE_DYNAMIC_DEFAULT
                  : s->text                   ? VV_SOURCE_STATIC
                                              : VV_SOURCE_DEFAULT,
        .type = k->type,
        .sensitive = secret,
        .read_only = !(k->flags & VV_KEY_DYNAMIC),
        .doc = k->doc,
    };
}

static struct vv_config_value extra_config(const struct extra *x)
{
    bool secret = vv_config_is_sensitive(x->name);
    return (struct vv_config_value){
        .name = x->name,
        .value = secret ? NULL : x->value,
        .source = VV_SOURCE_STATIC,
        .type = x->key   ? x->key->type
                : secret ? VV_TYPE_PASSWORD
                         : VV_TYPE_STRING,
        .sensitive = secret,
        .read_only = true,
        .doc = "",
    };
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct vv_config_value *)a)->name,
                  ((const struct vv_config_value *)b)->name);
}

int vv_config_each(const struct vv_broker_config *c,
                   int (*each)(void *ctx, const struct vv_config_value *v), void *ctx)
{
    size_t n = 0;
    struct vv_config_value *v = malloc((KEY_COUNT + c->p->extra_count) * sizeof *v);
    if (!v) return VV_E_NOMEM;
    for (size_t i = 0; i < KEY_COUNT; i++)
        v[n++] = slot_value(c, i);
    for (size_t i = 0; i < c->p->extra_count; i++)
        v[n++] = extra_config(&c->p->extras[i]);
    qsort(v, n, sizeof *v, by_name);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = each(ctx, &v[i]);
    free(v);
    return rc;
}

bool vv_config_get(const struct vv_broker_config *c, const char *name, struct vv_config_value *out)
{
    int i = key_index(name);
    if (i >= 0) {
        *out = slot_value(c, (size_t)i);
        return true;
    }
    for (size_t x = 0; x < c->p->extra_count; x++)
        if (!strcmp(c->p->extras[x].name, name)) {
            *out = extra_config(&c->p->extras[x]);
            return true;
        }
    const struct vv_foreign_key *f = vv_foreign_find(name);
    if (!f) return false;
    *out = (struct vv_config_value){.name = f->name,
                                    .value = f->initial,
                                    .source = VV_SOURCE_DEFAULT,
                                    .type = f->type,
                                    .sensitive = f->type == VV_TYPE_PASSWORD,
                                    .read_only = true,
                                    .doc = ""};
    return true;
}

size_t vv_config_synonyms(const struct vv_broker_config *c, const char *name, struct vv_config_synonym *out)
{
    size_t n = 0;
    int i = key_index(name);
    struct vv_config_value v;
    const char *initial = vv_config_default(name);
    if (i >= 0) {
        const struct slot *s = &c->p->slots[i];
        const char *texts[] = {s->altered[VV_ALTER_BROKER], s->altered[VV_ALTER_ALL], s->text};
        const enum vv_config_source sources[] = {VV_SOURCE_DYNAMIC_BROKER, VV_SOURCE_DYNAMIC_DEFAULT, VV_SOURCE_STATIC};
        for (int k = 0; k < 3; k++)
            if (texts[k]) out[n++] = (struct vv_config_synonym){name, texts[k], sources[k]};
    } else if (vv_config_get(c, name, &v) && v.source == VV_SOURCE_STATIC) {
        out[n++] = (struct vv_config_synonym){name, v.value, v.source};
    }
    if (initial) out[n++] = (struct vv_config_synonym){name, initial, VV_SOURCE_DEFAULT};
    return n;
}

bool vv_config_is_list(const char *name)
{
    int i = key_index(name);
    return i >= 0 && vv_config_keys[i].type == VV_TYPE_LIST;
}

/* ---- the reference ---- */

static void reference_row(FILE *to, const struct vv_config_key *k)
{
    static const char *const types[] = {"",     "boolean", "string", "int",   "short",
                                        "long", "double",  "list",   "class", "password"};
    fprintf(to, "| `%s` | ", k->name);
    if (k->choices) {
        for (const char *p = k->choices; *p; p++)
            if (*p == '|')
                fputs(", ", to);
            else
                fputc(*p, to);
    } else {
        fputs(types[k->type], to);
    }
    fputs(" | ", to);
    if (k->initial && !strcmp(k->initial, "9223372036854775807"))
        fputs("no limit", to);
    else if (k->initial)
        fprintf(to, "`%s`", k->initial);
    fprintf(to, "%s | %s |\n", k->flags & VV_KEY_DYNAMIC ? " ⟳" : "", k->doc);
}

void vv_config_reference(FILE *to)
{
    fputs("# Configuration\n\n"
          "Generated by `varve config reference`; a test checks that it is up to date. Keys go "
          "into a\n"
          "`server.properties` (`varve broker --config FILE`) or on the command line (`--set "
          "KEY=VALUE`, which\n"
          "wins). Apache Kafka's names work. ⟳ may be altered while the broker runs (kafka-configs); an empty "
          "default is unset.\n",
          to);
    for (size_t i = 0; i < VV_COUNT(with_sections); i++) {
        const struct vv_config_key *k = &with_sections[i];
        if (!k->name)
            fprintf(to, "\n## %s\n\n| key | type | default | what it does |\n|---|---|---|---|\n",
                    k->section);
        else
            reference_row(to, k);
    }
    fputs("\n## Known, and without effect\n\n"
          "Every other key of Apache Kafka 3.x and 4.x is accepted; one that is set to something "
          "else than\n"
          "Kafka's default is warned of once, with the reason:\n",
          to);
    for (int why = 0; why < VV_WHY_COUNT; why++) {
        const char *sep = "";
        fprintf(to, "\n**%s:** ", vv_foreign_reasons[why]);
        for (size_t i = 0; i < vv_foreign_key_count; i++)
            if ((int)vv_foreign_keys[i].why == why) {
                fprintf(to, "%s`%s`", sep, vv_foreign_keys[i].name);
                sep = ", ";
            }
        fputc('\n', to);
    }
}
