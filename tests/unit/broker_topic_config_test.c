/* A topic's configuration: inheritance, checks of what is set, clipping of what is not,
 * description. */
#include "topic_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct vv_broker_config broker;
static struct vv_topic_config out;
static struct vv_error error;

#define KV(...)                                                                                    \
    (const struct vv_kv[]){__VA_ARGS__},                                                           \
        sizeof((const struct vv_kv[]){__VA_ARGS__}) / sizeof(struct vv_kv)
#define ACCEPT(...)                                                                                \
    do {                                                                                           \
        error.text[0] = 0;                                                                         \
        if (vv_topic_config_parse(KV(__VA_ARGS__), &broker, false, &out, &error))                  \
            fail_msg("%s", error.text);                                                            \
    } while (0)
#define REFUSE(what, ...)                                                                          \
    do {                                                                                           \
        assert_int_equal(vv_topic_config_parse(KV(__VA_ARGS__), &broker, false, &out, &error),     \
                         VV_INVALID_CONFIG);                                                       \
        if (!strstr(error.text, what)) fail_msg("'%s' not in '%s'", what, error.text);             \
    } while (0)

static void with_broker(const char *const *sets, size_t n)
{
    vv_config_release(&broker);
    assert_int_equal(vv_config_load(&vv_env_posix, NULL, 0, sets, n, &broker, &error), 0);
}

static int defaults(void **state)
{
    (void)state;
    with_broker(NULL, 0);
    return 0;
}

static void inherits(void **state)
{
    (void)state;
    assert_int_equal(vv_topic_config_parse(NULL, 0, &broker, false, &out, &error), 0);
    assert_true(out.remote_storage && out.cleanup_delete && !out.cleanup_compact);
    assert_true(out.retention_ms == -1 && out.local_retention_ms == 86400000);
    assert_true(out.segment_bytes == 1073741824 && out.segment_ms == 604800000);
    assert_int_equal(out.max_message_bytes, 1048588);
    assert_false(out.log_append_time);
    assert_int_equal(vv_topic_config_parse(NULL, 0, &broker, true, &out, &error), 0);
    assert_false(out.remote_storage); /* internal topics stay here */
    assert_true(out.local_retention_ms == -1);
}

static void clips_what_is_inherited(void **state)
{
    (void)state;
    ACCEPT({"retention.ms", "1000"});
    assert_true(out.local_retention_ms == 1000);
    ACCEPT({"retention.bytes", "5000"}, {"retention.ms", "86400001"});
    assert_true(out.local_retention_bytes == 5000 && out.local_retention_ms == 86400000);
    ACCEPT({"local.retention.ms", "-2"}, {"retention.ms", "99"});
    assert_true(out.local_retention_ms == 99);
    ACCEPT({"remote.log.copy.disable", "true"}, {"retention.ms", "99"});
    assert_true(out.local_retention_ms == 99 && out.local_retention_bytes == -1);
}

static void checks_what_is_set(void **state)
{
    (void)state;
    REFUSE("must not exceed", {"local.retention.ms", "1001"}, {"retention.ms", "1000"});
    REFUSE("must not exceed", {"local.retention.bytes", "-1"}, {"retention.bytes", "1000"});
    REFUSE("copy.disable", {"local.retention.ms", "5"}, {"remote.log.copy.disable", "true"});
    REFUSE("not here yet", {"cleanup.policy", "compact"});
    REFUSE("not here yet", {"cleanup.policy", "compact,delete"});
    REFUSE("compression.type=zstd", {"compression.type", "zstd"});
    REFUSE("must be from 65536", {"segment.bytes", "65535"});
    REFUSE("must be true or false", {"remote.storage.enable", "maybe"});
    REFUSE("must be one of", {"message.timestamp.type", "Now"});
    REFUSE("must be from -1", {"retention.ms", "-2"});
    REFUSE("Unknown topic config name: retentoin.ms; did you mean retention.ms?",
           {"retentoin.ms", "1"});
    REFUSE("max.compaction.lag.ms", {"min.compaction.lag.ms", "9"}, {"max.compaction.lag.ms", "8"});
    ACCEPT({"segment.bytes", "65536"}, {"compression.type", "producer"},
           {"message.timestamp.type", "LogAppendTime"}, {"local.retention.ms", "5"},
           {"cleanup.policy", "delete"}, {"retention.ms", NULL});
    assert_true(out.segment_bytes == 65536 && out.log_append_time && out.local_retention_ms == 5);
    ACCEPT({"segment.ms", "5"}, {"segment.ms", "6"});
    assert_true(out.segment_ms == 6);
    assert_int_equal(
        vv_topic_config_parse(KV({"cleanup.policy", "compact"}), &broker, true, &out, &error), 0);
    assert_true(out.cleanup_compact);
}

static void without_a_tier(void **state)
{
    (void)state;
    const char *sets[] = {"remote.log.storage.system.enable=false"};
    with_broker(sets, 1);
    assert_int_equal(vv_topic_config_parse(NULL, 0, &broker, false, &out, &error), 0);
    assert_false(out.remote_storage);
    REFUSE("no tier", {"remote.storage.enable", "true"});
    const char *off[] = {"tier.default.enable=false"};
    with_broker(off, 1);
    assert_int_equal(vv_topic_config_parse(NULL, 0, &broker, false, &out, &error), 0);
    assert_false(out.remote_storage);
    ACCEPT({"remote.storage.enable", "true"});
    assert_true(out.remote_storage);
}

static void switching_the_tier_off(void **state)
{
    (void)state;
    assert_int_equal(vv_topic_config_change(NULL, 0, KV({"remote.storage.enable", "false"}),
                                            &broker, false, &out, &error),
                     VV_INVALID_CONFIG);
    assert_non_null(strstr(error.text, "remote.log.delete.on.disable"));
    assert_int_equal(vv_topic_config_change(NULL, 0,
                                            KV({"remote.storage.enable", "false"},
                                               {"remote.log.delete.on.disable", "true"}),
                                            &broker, false, &out, &error),
                     0);
    assert_int_equal(vv_topic_config_change(KV({"remote.storage.enable", "false"}),
                                            KV({"retention.ms", "5"}), &broker, false, &out,
                                            &error),
                     0);
}

/* What is stored must load whatever the broker's settings have become. */
static void stored_config_never_fails(void **state)
{
    (void)state;
    vv_topic_config_load(KV({"local.retention.ms", "5000"}, {"retention.ms", "1000"},
                            {"no.such", "1"}, {"segment.bytes", "1"}, {"cleanup.policy", "compact"},
                            {"compression.type", "zstd"}),
                         &broker, false, NULL, &out);
    assert_true(out.local_retention_ms == 1000 && out.segment_bytes == 1073741824);
    assert_false(out.cleanup_delete ||
                 out.cleanup_compact); /* never delete by time what wanted compaction */
    const char *sets[] = {"tier.url=off"};
    with_broker(sets, 1);
    vv_topic_config_load(KV({"remote.storage.enable", "true"}), &broker, false, NULL, &out);
    assert_false(out.remote_storage);
}

struct found {
    size_t n;
    char last[64], retention[64], segment[64], local[64];
    enum vv_config_source retention_source, segment_source;
    size_t retention_synonyms, segment_synonyms;
};

static int look(void *ctx, const struct vv_topic_config_value *v)
{
    struct found *f = ctx;
    assert_true(!f->n || strcmp(f->last, v->value.name) < 0);
    strcpy(f->last, v->value.name);
    f->n++;
    assert_non_null(v->value.value);
    if (!strcmp(v->value.name, "retention.ms")) {
        strcpy(f->retention, v->value.value);
        f->retention_source = v->value.source;
        f->retention_synonyms = v->synonym_count;
        assert_string_equal(v->synonyms[0].value, "2");
    }
    if (!strcmp(v->value.name, "segment.bytes")) {
        strcpy(f->segment, v->value.value);
        f->segment_source = v->value.source;
        f->segment_synonyms = v->synonym_count;
        assert_string_equal(v->synonyms[1].name, "log.segment.bytes");
    }
    if (!strcmp(v->value.name, "local.retention.ms")) strcpy(f->local, v->value.value);
    return 0;
}

static void describes(void **state)
{
    (void)state;
    const char *sets[] = {"log.retention.hours=2"};
    with_broker(sets, 1);
    struct found f = {0};
    assert_int_equal(vv_topic_config_each(KV({"segment.bytes", "70000"}), &broker, false, look, &f),
                     0);
    assert_int_equal(f.n, 33);
    assert_string_equal(f.retention, "7200000");
    assert_int_equal(f.retention_source, VV_SOURCE_STATIC);
    assert_int_equal(f.retention_synonyms, 2); /* hours as set, ms by default */
    assert_string_equal(f.local, "7200000");
    assert_string_equal(f.segment, "70000");
    assert_int_equal(f.segment_source, VV_SOURCE_TOPIC);
    assert_int_equal(f.segment_synonyms, 2);
    assert_true(vv_topic_config_known("retention.ms") &&
                !vv_topic_config_known("log.retention.ms"));
    assert_true(vv_topic_config_is_list("cleanup.policy") &&
                !vv_topic_config_is_list("retention.ms"));
}

static int release(void **state)
{
    (void)state;
    vv_config_release(&broker);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(inherits, defaults, release),
        cmocka_unit_test_setup_teardown(clips_what_is_inherited, defaults, release),
        cmocka_unit_test_setup_teardown(checks_what_is_set, defaults, release),
        cmocka_unit_test_setup_teardown(without_a_tier, defaults, release),
        cmocka_unit_test_setup_teardown(switching_the_tier_off, defaults, release),
        cmocka_unit_test_setup_teardown(stored_config_never_fails, defaults, release),
        cmocka_unit_test_setup_teardown(describes, defaults, release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
