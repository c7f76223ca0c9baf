/* config.h — the broker's configuration: a Kafka server.properties, --set overrides, typed
 * values.
 *
 * vv_config_load() reads the files in order, then the KEY=VALUE overrides (which win over every
 * file), checks every value against its row of config_keys.h, and derives what the broker needs
 * (listeners, directories, tier). A bad value or an unknown key is an error that names file and
 * line; a key that Apache Kafka knows but that has no effect here is warned of once, with the
 * reason, when its value is not Kafka's default.
 *
 * Threads: a loaded config is read-only and may be read from any thread. A change at run time
 * makes a changed copy (vv_config_clone + vv_config_set_dynamic); swapping and freeing is the
 * owner's business. */
#ifndef VARVE_BROKER_CONFIG_H
#define VARVE_BROKER_CONFIG_H
#include "varve/env.h"
#include "varve/error.h"
#include "config_keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Kafka's numbers of config types and sources, as DescribeConfigs sends them. */
enum vv_config_type {
    VV_TYPE_BOOLEAN = 1,
    VV_TYPE_STRING,
    VV_TYPE_INT,
    VV_TYPE_SHORT,
    VV_TYPE_LONG,
    VV_TYPE_DOUBLE,
    VV_TYPE_LIST,
    VV_TYPE_CLASS,
    VV_TYPE_PASSWORD,
};
enum vv_config_source {
    VV_SOURCE_TOPIC = 1,          /* set on the topic */
    VV_SOURCE_DYNAMIC_BROKER = 2,  /* altered on this broker */
    VV_SOURCE_DYNAMIC_DEFAULT = 3, /* altered on all brokers */
    VV_SOURCE_STATIC = 4, /* file or --set */
    VV_SOURCE_DEFAULT = 5,
};
enum vv_key_flags { VV_KEY_DYNAMIC = 1 /* may be altered at run time */ };

struct vv_config_key { /* a row of config_keys.h */
    const char *name;
    enum vv_config_type type;
    const char *initial; /* default as text; NULL = unset */
    int64_t min, max;
    const char *choices; /* a|b|c or NULL */
    unsigned flags;
    const char *section;
    const char *doc;
    size_t offset; /* of the field in struct vv_broker_config */
};
extern const struct vv_config_key vv_config_keys[];
extern const size_t vv_config_key_count;

struct vv_endpoint {
    char name[64];  /* listener name, "PLAINTEXT" */
    char host[256]; /* "" = every address */
    int port;       /* 0 = any free port / as bound */
};
#define VV_LISTENERS_MAX 8

#define VV_FIELD_BOOLEAN  bool
#define VV_FIELD_STRING   const char *
#define VV_FIELD_LIST     const char *
#define VV_FIELD_PASSWORD const char *
#define VV_FIELD_INT      int32_t
#define VV_FIELD_SHORT    int32_t
#define VV_FIELD_LONG     int64_t
#define VV_FIELD_DOUBLE   double

enum vv_flush_acks { VV_FLUSH_ALL, VV_FLUSH_LEADER, VV_FLUSH_NONE };

struct vv_broker_config {
    /* One field per row of config_keys.h: dots become underscores. Raw values: prefer the derived
     * ones below where several keys speak of one thing. */
#define VV_NO_SECTION(title)
#define VV_X(field, name, type, initial, min, max, choices, flags, doc) VV_FIELD_##type field;
    VV_CONFIG_KEYS(VV_NO_SECTION, VV_X)
#undef VV_X

    /* Derived by vv_config_load(). */
    int32_t id; /* node.id or broker.id */
    /* the directory a person is told: data.dir, or log.dirs when only that is set */
    const char *data;
    const char *log;             /* the one log directory */
    const char *tier;            /* fs:DIR or s3://BUCKET/PREFIX; NULL = the tier is off */
    const char *cache_dir;       /* of the disk cache */
    bool tier_s3_path_style_set; /* else tier_s3_path_style is a guess: true with an endpoint */
    enum vv_flush_acks flush_acks;
    bool tier_verify_full;
    int64_t retention_ms; /* of ms, minutes, hours; -1 = for ever */
    int64_t roll_ms, roll_jitter_ms;
    int64_t flush_ms;  /* INT64_MAX = off */
    int reactor_count; /* 0 = one per core */
    struct vv_endpoint listen[VV_LISTENERS_MAX];
    /* same order; host never ""; port 0 = as bound */
    struct vv_endpoint advertised[VV_LISTENERS_MAX];
    size_t listen_count;
    bool metrics_on;
    struct vv_endpoint metrics; /* name unused */

    struct vv_config_private *p; /* texts, sources, memory */
};

/* Reads files (may be none) and overrides ("KEY=VALUE", n). *out needs vv_config_release even
 * after an error. Returns 0 or E_CONFIG, E_NOENT, ...; *e says file:line, what, and what next.
 * Warnings are kept: vv_config_log_warnings() writes them to the log, once. */
int vv_config_load(struct vv_env *env, const char *const *files, size_t file_count,
                   const char *const *sets, size_t set_count, struct vv_broker_config *out,
                   struct vv_error *e);
void vv_config_log_warnings(const struct vv_broker_config *c);
size_t vv_config_warning_count(const struct vv_broker_config *c);
const char *vv_config_warning(const struct vv_broker_config *c, size_t i);
void vv_config_release(struct vv_broker_config *c); /* back to {0} */

/* Run-time changes: *to is a copy with its own memory (release it). */
int vv_config_clone(const struct vv_broker_config *from, struct vv_broker_config *to);
enum vv_alter_scope { VV_ALTER_BROKER, VV_ALTER_ALL }; /* this broker; all of the cluster (weaker) */
/* Alters one key at run time (value NULL = not any more). INVALID_REQUEST, as Kafka answers, when the key is unknown,
 * read-only or the value is bad; taking back what cannot be altered is nothing. c unchanged after an error. */
int vv_config_set_dynamic(struct vv_broker_config *c, enum vv_alter_scope scope, const char *key, const char *value,
                          struct vv_error *e);
/* What is altered; non-zero stops. */
int vv_config_altered_each(const struct vv_broker_config *c, enum vv_alter_scope scope,
                           int (*each)(void *ctx, const char *key, const char *value), void *ctx);

/* ---- asking (DescribeConfigs, CLI, reference) ---- */
struct vv_config_value {
    const char *name;
    const char *value; /* NULL = unset, or sensitive */
    enum vv_config_source source;
    enum vv_config_type type;
    bool sensitive, read_only;
    const char *doc; /* "" for keys that have no effect */
};
/* Calls each() for every key that has an effect and every other key that was set, in name order.
 * Non-zero stops. */
int vv_config_each(const struct vv_broker_config *c,
                   int (*each)(void *ctx, const struct vv_config_value *v), void *ctx);
/* One key; false when nobody knows it. */
bool vv_config_get(const struct vv_broker_config *c, const char *name, struct vv_config_value *out);
/* The same as {value, source} for the key's static default: what DescribeConfigs lists as
 * DEFAULT_CONFIG synonym. */
const char *vv_config_default(const char *name);
/* The places a key's value could come from, strongest first; the first is where it came from. Room for 4. Values of
 * sensitive keys are the caller's to hide. */
struct vv_config_synonym {
    const char *name, *value;
    enum vv_config_source source;
};
#define VV_CONFIG_SYNONYMS_MAX 4
size_t vv_config_synonyms(const struct vv_broker_config *c, const char *name, struct vv_config_synonym *out);
bool vv_config_is_list(const char *name); /* APPEND and SUBTRACT make sense */
/* A value that must not be shown or logged: keys with password, secret, token, … in their name. */
bool vv_config_is_sensitive(const char *name);

/* Checks text against a key's type, range and choices: 0 or E_CONFIG. */
int vv_config_check(const struct vv_config_key *key, const char *value, struct vv_error *e);
/* Checks text and stores it at field (the C type of key->type); STRING, LIST, PASSWORD keep the
 * pointer ("" -> NULL). */
int vv_config_parse(const struct vv_config_key *key, const char *text, void *field,
                    struct vv_error *e);
size_t vv_edit_distance(const char *a, const char *b); /* SIZE_MAX for very long words */
/* Writes config/CONFIGURATION.md. */
void vv_config_reference(FILE *to);
#endif
