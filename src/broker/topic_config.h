/* topic_config.h — a topic's configuration: what is set on it over the broker's defaults, typed
 * and checked.
 *
 * The names, types, ranges and broker synonyms are one table (topic_config.c). Only values set on
 * the topic are validated against each other; an inherited value that does not fit is clipped
 * instead (local retention never exceeds total). Pure; any thread. */
#ifndef VARVE_BROKER_TOPIC_CONFIG_H
#define VARVE_BROKER_TOPIC_CONFIG_H
#include "varve/error.h"
#include "config.h"

struct vv_kv {
    const char *key, *value;
}; /* value NULL = unset */

struct vv_topic_config { /* effective */
    bool cleanup_delete, cleanup_compact;
    int64_t delete_retention_ms, file_delete_delay_ms;
    int64_t flush_messages, flush_ms; /* INT64_MAX = off */
    int32_t index_interval_bytes;
    int64_t retention_ms, retention_bytes; /* total, hot and cold; -1 = no limit */
    int64_t local_retention_ms,
        local_retention_bytes; /* resolved (never -2) and never above total; -1 = no limit.
                                  Equal to total when the topic does not tier. */
    int64_t min_compaction_lag_ms, max_compaction_lag_ms;
    double min_cleanable_dirty_ratio;
    int32_t max_message_bytes;
    bool log_append_time; /* message.timestamp.type */
    int64_t timestamp_before_max_ms, timestamp_after_max_ms;
    int32_t min_insync_replicas;
    bool preallocate, unclean_leader_election;
    /* remote.storage.enable (and the broker has a tier) */
    bool remote_storage;
    bool remote_copy_disabled, remote_delete_on_disable;
    int32_t segment_bytes, segment_index_bytes;
    int64_t segment_ms, segment_jitter_ms;
};

/* Effective config of a topic with these overrides. internal: compaction is allowed, the tier is
 * off unless asked for. Returns 0 or INVALID_CONFIG with *e naming key and reason. Later
 * duplicates win. */
int vv_topic_config_parse(const struct vv_kv *overrides, size_t n,
                          const struct vv_broker_config *broker, bool internal,
                          struct vv_topic_config *out, struct vv_error *e);
/* The same as parse for a change from old (what is set now) to overrides: also the rules about
 * transitions (switching the tier off needs remote.log.delete.on.disable=true). */
int vv_topic_config_change(const struct vv_kv *old, size_t old_n, const struct vv_kv *overrides,
                           size_t n, const struct vv_broker_config *broker, bool internal,
                           struct vv_topic_config *out, struct vv_error *e);

/* For what is already stored on a topic: never fails. Unknown keys and bad values are skipped
 * with a warning in the log, values that do not fit (the broker's settings may have changed
 * since) are clipped. */
void vv_topic_config_load(const struct vv_kv *overrides, size_t n,
                          const struct vv_broker_config *broker, bool internal, const char *topic,
                          struct vv_topic_config *out);

bool vv_topic_config_known(const char *key);
/* LIST type: AlterConfigs APPEND and SUBTRACT make sense */
bool vv_topic_config_is_list(const char *key);

/* Per key in name order, for DescribeConfigs. value.source is TOPIC, DYNAMIC_*, STATIC or DEFAULT; synonyms are the places the value could come from, strongest first (the first is where
 * it came from). */
#define VV_SYNONYMS_MAX (1 + 3 * VV_CONFIG_SYNONYMS_MAX) /* three names of a broker key at most */
struct vv_topic_config_value {
    struct vv_config_value value;
    struct vv_config_synonym synonyms[VV_SYNONYMS_MAX];
    size_t synonym_count;
};
int vv_topic_config_each(const struct vv_kv *overrides, size_t n,
                         const struct vv_broker_config *broker, bool internal,
                         int (*each)(void *ctx, const struct vv_topic_config_value *v), void *ctx);
#endif
