/* topic_config.c — the table of topic-level keys, and how a topic's values come about.
 *
 * Effective values start as the broker's (defaults()), then every override is parsed over its
 * field, then the rules between values run (finish()): what is set on the topic is checked, what
 * is inherited is clipped. The table is sorted by name. Pure; any thread. */
#include "topic_config.h"

#include "varve/bytes.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What the table parses into: the plain fields, and texts that mean something else than
 * themselves. The texts point into the overrides and are gone after finish(). */
struct scratch {
    struct vv_topic_config c;
    const char *cleanup, *compression, *timestamp_type, *unused;
    int32_t level;
};

/* X(field of struct scratch, "key", type, min, max, "choices", "broker synonyms, strongest
 * first", "what it does") */
#define VV_TOPIC_KEYS(X)                                                                           \
    X(cleanup, "cleanup.policy", LIST, 0, 0, "delete|compact", "log.cleanup.policy",               \
      "delete: by retention; compact: internal topics only so far.")                               \
    X(level, "compression.gzip.level", INT, -1, 9, NULL, "compression.gzip.level",                 \
      "Accepted; batches are stored as the producer sent them.")                                   \
    X(level, "compression.lz4.level", INT, 1, 17, NULL, "compression.lz4.level",                   \
      "Accepted; batches are stored as the producer sent them.")                                   \
    X(compression, "compression.type", STRING, 0, 0, "producer|uncompressed|gzip|snappy|lz4|zstd", \
      "compression.type", "producer: batches are stored as the producer sent them.")               \
    X(level, "compression.zstd.level", INT, -131072, 22, NULL, "compression.zstd.level",           \
      "Accepted; batches are stored as the producer sent them.")                                   \
    X(c.delete_retention_ms, "delete.retention.ms", LONG, 0, INT64_MAX, NULL,                      \
      "log.cleaner.delete.retention.ms", "How long a tombstone survives compaction.")              \
    X(c.file_delete_delay_ms, "file.delete.delay.ms", LONG, 0, INT64_MAX, NULL,                    \
      "log.segment.delete.delay.ms", "Accepted; a local file goes at once, whoever reads it ends.")\
    X(c.flush_messages, "flush.messages", LONG, 1, INT64_MAX, NULL, "log.flush.interval.messages", \
      "Flush after this many records.")                                                            \
    X(c.flush_ms, "flush.ms", LONG, 0, INT64_MAX, NULL,                                            \
      "log.flush.interval.ms log.flush.scheduler.interval.ms", "Flush after this time.")           \
    X(unused, "follower.replication.throttled.replicas", LIST, 0, 0, NULL, "",                     \
      "Accepted; there is no replication traffic yet.")                                            \
    X(c.index_interval_bytes, "index.interval.bytes", INT, 0, INT32_MAX, NULL,                     \
      "log.index.interval.bytes", "Bytes between two entries of a segment's offset index.")        \
    X(unused, "leader.replication.throttled.replicas", LIST, 0, 0, NULL, "",                       \
      "Accepted; there is no replication traffic yet.")                                            \
    X(c.local_retention_bytes, "local.retention.bytes", LONG, -2, INT64_MAX, NULL,                 \
      "log.local.retention.bytes", "How much stays local; -2: as retention.bytes.")                \
    X(c.local_retention_ms, "local.retention.ms", LONG, -2, INT64_MAX, NULL,                       \
      "log.local.retention.ms",                                                                    \
      "How long the local copy of what is in the bucket stays; -2: as retention.ms.")              \
    X(c.max_compaction_lag_ms, "max.compaction.lag.ms", LONG, 1, INT64_MAX, NULL,                  \
      "log.cleaner.max.compaction.lag.ms", "A record older than this is compacted.")               \
    X(c.max_message_bytes, "max.message.bytes", INT, 0, INT32_MAX, NULL, "message.max.bytes",      \
      "The largest record batch.")                                                                 \
    X(c.timestamp_after_max_ms, "message.timestamp.after.max.ms", LONG, 0, INT64_MAX, NULL,        \
      "log.message.timestamp.after.max.ms", "How far a record's time may lie in the future.")      \
    X(c.timestamp_before_max_ms, "message.timestamp.before.max.ms", LONG, 0, INT64_MAX, NULL,      \
      "log.message.timestamp.before.max.ms", "How far a record's time may lie in the past.")       \
    X(timestamp_type, "message.timestamp.type", STRING, 0, 0, "CreateTime|LogAppendTime",          \
      "log.message.timestamp.type", "Whose clock stamps a record.")                                \
    X(c.min_cleanable_dirty_ratio, "min.cleanable.dirty.ratio", DOUBLE, 0, 1, NULL,                \
      "log.cleaner.min.cleanable.ratio", "The share of new bytes that starts a compaction.")       \
    X(c.min_compaction_lag_ms, "min.compaction.lag.ms", LONG, 0, INT64_MAX, NULL,                  \
      "log.cleaner.min.compaction.lag.ms", "A record younger than this is not compacted away.")    \
    X(c.min_insync_replicas, "min.insync.replicas", INT, 1, INT32_MAX, NULL,                       \
      "min.insync.replicas", "In-sync copies an acks=all write needs.")                            \
    X(c.preallocate, "preallocate", BOOLEAN, 0, 0, NULL, "log.preallocate",                        \
      "Accepted; segments grow as they are written.")                                              \
    X(c.remote_copy_disabled, "remote.log.copy.disable", BOOLEAN, 0, 0, NULL, "",                  \
      "Pauses uploads; what is in the bucket stays readable.")                                     \
    X(c.remote_delete_on_disable, "remote.log.delete.on.disable", BOOLEAN, 0, 0, NULL, "",         \
      "Switching remote.storage.enable off deletes what is in the bucket.")                        \
    X(c.remote_storage, "remote.storage.enable", BOOLEAN, 0, 0, NULL, "",                          \
      "Closed segments go to the bucket.")                                                         \
    X(c.retention_bytes, "retention.bytes", LONG, -1, INT64_MAX, NULL, "log.retention.bytes",      \
      "How much of a partition is kept, hot and cold together; -1: everything.")                   \
    X(c.retention_ms, "retention.ms", LONG, -1, INT64_MAX, NULL,                                   \
      "log.retention.ms log.retention.minutes log.retention.hours",                                \
      "How long records are kept, hot and cold together; -1: for ever.")                           \
    X(c.segment_bytes, "segment.bytes", INT, 65536, INT32_MAX, NULL, "log.segment.bytes",          \
      "A segment of this size is closed, and with that ready for the tier.")                       \
    X(c.segment_index_bytes, "segment.index.bytes", INT, 4, INT32_MAX, NULL,                       \
      "log.index.size.max.bytes", "A segment whose index has this size is closed.")                \
    X(c.segment_jitter_ms, "segment.jitter.ms", LONG, 0, INT64_MAX, NULL,                          \
      "log.roll.jitter.ms log.roll.jitter.hours", "Spreads the closing by age.")                   \
    X(c.segment_ms, "segment.ms", LONG, 1, INT64_MAX, NULL, "log.roll.ms log.roll.hours",          \
      "A segment of this age is closed.")                                                          \
    X(c.unclean_leader_election, "unclean.leader.election.enable", BOOLEAN, 0, 0, NULL,            \
      "unclean.leader.election.enable", "Whether a copy that is behind may lead.")

struct row {
    struct vv_config_key key;
    const char *synonyms;
};
#define VV_X(field, kname, ktype, lo, hi, words, syn, text)                                        \
    {{.name = kname,                                                                               \
      .type = VV_TYPE_##ktype,                                                                     \
      .min = lo,                                                                                   \
      .max = hi,                                                                                   \
      .choices = words,                                                                            \
      .flags = VV_KEY_DYNAMIC,                                                                     \
      .doc = text,                                                                                 \
      .offset = offsetof(struct scratch, field)},                                                  \
     syn},
static const struct row rows[] = {VV_TOPIC_KEYS(VV_X)};
#undef VV_X

static const struct row *row_of(const char *key)
{
    for (size_t i = 0; i < VV_COUNT(rows); i++)
        if (!strcmp(rows[i].key.name, key)) return &rows[i];
    return NULL;
}

bool vv_topic_config_known(const char *key)
{
    return row_of(key) != NULL;
}

bool vv_topic_config_is_list(const char *key)
{
    const struct row *r = row_of(key);
    return r && r->key.type == VV_TYPE_LIST;
}

/* The last value set for a key; NULL when unset. */
static const char *override_of(const struct vv_kv *kv, size_t n, const char *key)
{
    while (n--)
        if (!strcmp(kv[n].key, key)) return kv[n].value;
    return NULL;
}

static void defaults(const struct vv_broker_config *b, bool internal, struct scratch *s)
{
    *s = (struct scratch){
        .c =
            {
                .delete_retention_ms = b->log_cleaner_delete_retention_ms,
                .file_delete_delay_ms = b->log_segment_delete_delay_ms,
                .flush_messages = b->log_flush_interval_messages,
                .flush_ms = b->flush_ms,
                .index_interval_bytes = b->log_index_interval_bytes,
                .retention_ms = b->retention_ms,
                .retention_bytes = b->log_retention_bytes,
                .local_retention_ms = b->log_local_retention_ms,
                .local_retention_bytes = b->log_local_retention_bytes,
                .min_compaction_lag_ms = b->log_cleaner_min_compaction_lag_ms,
                .max_compaction_lag_ms = b->log_cleaner_max_compaction_lag_ms,
                .min_cleanable_dirty_ratio = b->log_cleaner_min_cleanable_ratio,
                .max_message_bytes = b->message_max_bytes,
                .timestamp_before_max_ms = b->log_message_timestamp_before_max_ms,
                .timestamp_after_max_ms = b->log_message_timestamp_after_max_ms,
                .min_insync_replicas = b->min_insync_replicas,
                .preallocate = b->log_preallocate,
                .unclean_leader_election = b->unclean_leader_election_enable,
                .remote_storage = b->tier && b->tier_default_enable && !internal,
                .segment_bytes = b->log_segment_bytes,
                .segment_index_bytes = b->log_index_size_max_bytes,
                .segment_ms = b->roll_ms,
                .segment_jitter_ms = b->roll_jitter_ms,
            },
        .cleanup = b->log_cleanup_policy,
        .compression = "producer", /* the broker's other values have no effect */
        .timestamp_type = b->log_message_timestamp_type,
    };
}

static int unknown(const char *key, struct vv_error *e)
{
    const char *near = NULL;
    size_t best = VV_MAX(strlen(key) / 4, 2) + 1;
    for (size_t i = 0; i < VV_COUNT(rows); i++) {
        size_t d = vv_edit_distance(key, rows[i].key.name);
        if (d < best) {
            best = d;
            near = rows[i].key.name;
        }
    }
    return vv_error_set(e, VV_INVALID_CONFIG, "Unknown topic config name: %s%s%s%s", key,
                        near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static int apply(const struct vv_kv *kv, struct scratch *s, struct vv_error *e)
{
    struct vv_error inner = {0};
    const struct row *r = row_of(kv->key);
    if (!r) return unknown(kv->key, e);
    if (kv->value && vv_config_parse(&r->key, kv->value, (char *)s + r->key.offset, &inner))
        return vv_error_set(e, VV_INVALID_CONFIG, "%s", inner.text);
    return 0;
}

/* One limit of local against total retention; set: the topic says so itself. */
static int fit(const char *unit, int64_t *local, int64_t total, bool set, bool copy_disabled,
               struct vv_error *e)
{
    if (*local == -2) {
        *local = total;
        return 0;
    }
    bool above = total != -1 && (*local == -1 || *local > total);
    int rc = 0;
    if (set && above)
        rc = vv_error_set(e, VV_INVALID_CONFIG,
                          "local.retention.%s=%" PRId64 " must not exceed retention.%s=%" PRId64,
                          unit, *local, unit, total);
    else if (set && copy_disabled && *local != total)
        rc = vv_error_set(e, VV_INVALID_CONFIG,
                          "with remote.log.copy.disable=true nothing more reaches the bucket: "
                          "local.retention.%s must be -2 or equal retention.%s=%" PRId64,
                          unit, unit, total);
    if (above || copy_disabled) *local = total;
    return rc;
}

static int check_policies(struct scratch *s, bool internal, struct vv_error *e)
{
    struct vv_topic_config *c = &s->c;
    c->cleanup_delete = s->cleanup && strstr(s->cleanup, "delete");
    c->cleanup_compact = s->cleanup && strstr(s->cleanup, "compact");
    c->log_append_time = !strcmp(s->timestamp_type ? s->timestamp_type : "", "LogAppendTime");
    if (c->cleanup_compact && !internal)
        return vv_error_set(
            e, VV_INVALID_CONFIG,
            "cleanup.policy=%s: compaction of user topics is not here yet; use delete, with "
            "retention.ms=-1 to keep everything",
            s->cleanup);
    if (s->compression && strcmp(s->compression, "producer"))
        return vv_error_set(
            e, VV_INVALID_CONFIG,
            "compression.type=%s: batches are stored as the producer sent them; set "
            "compression.type on the producer and leave the topic at producer",
            s->compression);
    return 0;
}

/* Rules between values. Returns the first broken one; *s is usable (clipped) either way. */
static int finish(struct scratch *s, const struct vv_kv *kv, size_t n,
                  const struct vv_broker_config *b, bool internal, struct vv_error *e)
{
    struct vv_topic_config *c = &s->c;
    int rc = check_policies(s, internal, e), r;
    if (rc) {
        c->cleanup_compact = internal && c->cleanup_compact;
        c->cleanup_delete = c->cleanup_delete && !strstr(s->cleanup, "compact");
    }
    if (c->remote_storage && !b->tier) {
        c->remote_storage = false;
        r = vv_error_set(rc ? NULL : e, VV_INVALID_CONFIG,
                         "remote.storage.enable=true: this broker has no tier; set tier.url and "
                         "remote.log.storage.system.enable=true");
        rc = rc ? rc : r;
    }
    if (c->remote_storage && c->cleanup_compact) {
        c->remote_storage = false;
        r = vv_error_set(rc ? NULL : e, VV_INVALID_CONFIG,
                         "remote.storage.enable=true: compacted topics cannot tier yet");
        rc = rc ? rc : r;
    }
    bool ms_set = override_of(kv, n, "local.retention.ms") != NULL;
    bool bytes_set = override_of(kv, n, "local.retention.bytes") != NULL;
    bool frozen = c->remote_storage && c->remote_copy_disabled;
    r = fit("ms", &c->local_retention_ms, c->retention_ms, ms_set, frozen, rc ? NULL : e);
    rc = rc ? rc : r;
    r = fit("bytes", &c->local_retention_bytes, c->retention_bytes, bytes_set, frozen,
            rc ? NULL : e);
    rc = rc ? rc : r;
    if (c->min_compaction_lag_ms > c->max_compaction_lag_ms) {
        r = vv_error_set(rc ? NULL : e, VV_INVALID_CONFIG,
                         "min.compaction.lag.ms=%" PRId64
                         " must not exceed max.compaction.lag.ms=%" PRId64,
                         c->min_compaction_lag_ms, c->max_compaction_lag_ms);
        rc = rc ? rc : r;
        c->min_compaction_lag_ms = c->max_compaction_lag_ms;
    }
    if (!c->remote_storage) {
        c->local_retention_ms = c->retention_ms;
        c->local_retention_bytes = c->retention_bytes;
    }
    return rc;
}

int vv_topic_config_parse(const struct vv_kv *overrides, size_t n,
                          const struct vv_broker_config *broker, bool internal,
                          struct vv_topic_config *out, struct vv_error *e)
{
    struct scratch s;
    int rc = 0;
    defaults(broker, internal, &s);
    for (size_t i = 0; i < n && !rc; i++)
        rc = apply(&overrides[i], &s, e);
    if (!rc) rc = finish(&s, overrides, n, broker, internal, e);
    *out = s.c;
    return rc;
}

int vv_topic_config_change(const struct vv_kv *old, size_t old_n, const struct vv_kv *overrides,
                           size_t n, const struct vv_broker_config *broker, bool internal,
                           struct vv_topic_config *out, struct vv_error *e)
{
    struct vv_topic_config before;
    int rc = vv_topic_config_parse(overrides, n, broker, internal, out, e);
    if (rc) return rc;
    vv_topic_config_load(old, old_n, broker, internal, NULL, &before);
    if (before.remote_storage && !out->remote_storage && !out->remote_delete_on_disable)
        return vv_error_set(
            e, VV_INVALID_CONFIG,
            "remote.storage.enable=false deletes what is in the bucket: say so with "
            "remote.log.delete.on.disable=true, or keep it readable and stop uploads with "
            "remote.log.copy.disable=true");
    return 0;
}

void vv_topic_config_load(const struct vv_kv *overrides, size_t n,
                          const struct vv_broker_config *broker, bool internal, const char *topic,
                          struct vv_topic_config *out)
{
    struct scratch s;
    struct vv_error e = {0};
    defaults(broker, internal, &s);
    for (size_t i = 0; i < n; i++)
        if (apply(&overrides[i], &s, &e) && topic)
            VLOG_WARN("topic %s: stored config skipped: %s", topic, e.text);
    if (finish(&s, overrides, n, broker, internal, &e) && topic)
        VLOG_WARN("topic %s: stored config does not fit and was clipped: %s", topic, e.text);
    *out = s.c;
}

/* ---- describing ---- */

static void print_field(const struct row *r, const struct scratch *s, char *to, size_t n)
{
    const char *p = (const char *)s + r->key.offset;
    const char *text;
    int32_t i;
    int64_t l;
    double d;
    switch (r->key.type) {
    case VV_TYPE_BOOLEAN:
        snprintf(to, n, "%s", *(const bool *)p ? "true" : "false");
        break;
    case VV_TYPE_INT:
        memcpy(&i, p, sizeof i);
        snprintf(to, n, "%" PRId32, i);
        break;
    case VV_TYPE_LONG:
        memcpy(&l, p, sizeof l);
        snprintf(to, n, "%" PRId64, l);
        break;
    case VV_TYPE_DOUBLE:
        memcpy(&d, p, sizeof d);
        snprintf(to, n, "%g", d);
        break;
    default:
        memcpy(&text, p, sizeof text);
        snprintf(to, n, "%s", text ? text : "");
    }
}

static void add_synonyms(struct vv_topic_config_value *v, const struct row *r,
                         const struct vv_broker_config *broker, char names[][64])
{
    const char *p = r->synonyms;
    for (size_t k = 0; *p && k < 3; k++) {
        size_t n = strcspn(p, " ");
        snprintf(names[k], 64, "%.*s", (int)n, p);
        v->synonym_count += vv_config_synonyms(broker, names[k], v->synonyms + v->synonym_count);
        p += n;
        p += *p == ' ';
    }
    for (size_t i = 1; i < v->synonym_count; i++) /* stronger sources first, stable */
        for (size_t j = i; j && v->synonyms[j].source < v->synonyms[j - 1].source; j--) {
            struct vv_config_synonym t = v->synonyms[j];
            v->synonyms[j] = v->synonyms[j - 1];
            v->synonyms[j - 1] = t;
        }
}

/* A value as it is described: the override's text, else the broker's. Levels have no field of
 * their own. */
static const char *described(const struct row *r, const char *set,
                             const struct vv_topic_config_value *v, const struct scratch *s,
                             char *to, size_t n)
{
    if (set) return set;
    if (r->key.offset == offsetof(struct scratch, level))
        return v->synonym_count ? v->synonyms[0].value : "";
    print_field(r, s, to, n);
    return to;
}

int vv_topic_config_each(const struct vv_kv *overrides, size_t n,
                         const struct vv_broker_config *broker, bool internal,
                         int (*each)(void *ctx, const struct vv_topic_config_value *v), void *ctx)
{
    struct scratch s;
    defaults(broker, internal, &s);
    vv_topic_config_load(overrides, n, broker, internal, NULL, &s.c);
    for (size_t i = 0; i < VV_COUNT(rows); i++) {
        const struct row *r = &rows[i];
        const char *set = override_of(overrides, n, r->key.name);
        char text[512], names[3][64];
        struct vv_topic_config_value v = {.value = {.name = r->key.name,
                                                    .source = VV_SOURCE_DEFAULT,
                                                    .type = r->key.type,
                                                    .doc = r->key.doc}};
        if (set)
            v.synonyms[v.synonym_count++] =
                (struct vv_config_synonym){r->key.name, set, VV_SOURCE_TOPIC};
        add_synonyms(&v, r, broker, names);
        v.value.value = described(r, set, &v, &s, text, sizeof text);
        if (v.synonym_count) v.value.source = v.synonyms[0].source;
        int rc = each(ctx, &v);
        if (rc) return rc;
    }
    return 0;
}
