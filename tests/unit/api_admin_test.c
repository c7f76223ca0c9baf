/* The admin handlers over a real registry: requests go in as structs, answers are encoded at the call's version and
 * decoded again, so that what a client sees is what is checked. The transport is this file: vv_call_reply and
 * vv_call_close are defined here. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "call.h"
#include "configs.h"
#include "live.h"
#include "log_impl.h"
#include "gen/messages.h"
#include "topics.h"

struct rig {
    char dir[64], log_dir[80];
    struct vv_broker_config config;
    struct vv_broker b;
    struct vv_batch_builder *builder;
};
struct asked { /* one call under way */
    struct vv_call c;
    struct vv_exchange x;
    pthread_mutex_t m;
    pthread_cond_t answered;
    bool done, closed;
    struct vv_chain body;
    uint8_t *bytes;
};

static void finish(struct vv_call *c, const void *response)
{
    struct asked *a = VV_CONTAINER(c, struct asked, c);
    struct vv_out out;
    vv_out_init(&out);
    pthread_mutex_lock(&a->m);
    assert_false(a->done);
    if (response) {
        assert_int_equal(vv_msg_encode(c->api->response, c->version, response, &out), 0);
        assert_int_equal(vv_out_finish(&out, &a->body), 0);
    }
    a->closed = !response;
    a->done = true;
    pthread_cond_signal(&a->answered);
    pthread_mutex_unlock(&a->m);
}

void vv_call_reply(struct vv_call *c, const void *response)
{
    finish(c, response);
}
void vv_call_close(struct vv_call *c, const char *why)
{
    (void)why;
    finish(c, NULL);
}

/* Runs one request; the decoded response lives until asked_free. */
static void *ask(struct rig *r, struct asked *a, vv_handler *h, int16_t key, int16_t version, void *request)
{
    *a = (struct asked){
        .c = {.x = &a->x, .broker = &r->b, .api = vv_api_by_key(key), .version = version, .req = request}};
    pthread_mutex_init(&a->m, NULL);
    pthread_cond_init(&a->answered, NULL);
    vv_arena_init(&a->x.arena, 0);
    h(&a->c);
    pthread_mutex_lock(&a->m);
    while (!a->done) pthread_cond_wait(&a->answered, &a->m);
    pthread_mutex_unlock(&a->m);
    assert_false(a->closed);
    a->bytes = malloc(a->body.bytes + 1);
    vv_chain_copy_out(&a->body, a->bytes);
    void *response = vv_arena_alloc(&a->x.arena, a->c.api->response->root->size);
    size_t used;
    assert_int_equal(vv_msg_decode(a->c.api->response, version, a->bytes, a->body.bytes, &a->x.arena, response, &used),
                     0);
    assert_int_equal(used, a->body.bytes);
    return response;
}

static void asked_free(struct asked *a)
{
    vv_chain_release(&a->body);
    vv_arena_release(&a->x.arena);
    free(a->bytes);
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    struct vv_error e = {0};
    snprintf(r->dir, sizeof r->dir, "/tmp/varve-admin-XXXXXX");
    if (!mkdtemp(r->dir)) return -1;
    snprintf(r->log_dir, sizeof r->log_dir, "%s/log", r->dir);
    const char *sets[] = {"tier.url=off", "num.partitions=3", "ssl.keystore.password=secret"};
    if (vv_config_load(&vv_env_posix, NULL, 0, sets, 3, &r->config, &e)) return -1;
    r->b = (struct vv_broker){
        .env = &vv_env_posix, .config = &r->config, .node_id = 1, .log_dir = r->log_dir, .time_trusted = true};
    if (vv_fs_mkdirs(&vv_env_posix, r->log_dir) || vv_iopool_new("io", 2, &r->b.iopool) ||
        vv_reactor_new(&vv_env_posix, "control", &r->b.control) || vv_reactor_start(r->b.control) ||
        vv_topics_new(&r->b, &r->b.topics))
        return -1;
    r->builder = vv_batch_builder_new();
    *state = r;
    return 0;
}

static int rm_entry(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st, (void)flag, (void)f;
    return remove(path);
}

static int teardown(void **state)
{
    struct rig *r = *state;
    vv_reactor_stop(r->b.control);
    int err = vv_topics_close(r->b.topics);
    vv_iopool_free(r->b.iopool);
    vv_topics_free(r->b.topics);
    vv_live_free(&r->b);
    vv_reactor_free(r->b.control);
    vv_batch_builder_free(r->builder);
    vv_config_release(&r->config);
    nftw(r->dir, rm_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(r);
    return err;
}

/* ---- CreateTopics ---- */

typedef struct CreateTopicsRequest_CreatableTopic creatable;

static creatable topic(const char *name, int32_t partitions, int16_t replicas)
{
    creatable t;
    VV_STRUCT_INIT(CreateTopicsRequest_CreatableTopic, &t);
    t.Name = vv_str_c(name);
    t.NumPartitions = partitions;
    t.ReplicationFactor = replicas;
    return t;
}

static struct CreateTopicsResponse *create(struct rig *r, struct asked *a, int16_t version, creatable *t, int32_t n,
                                           bool validate)
{
    struct CreateTopicsRequest q = {.Topics = {t, n}, .TimeoutMs = 1000, .ValidateOnly = validate};
    return ask(r, a, vv_handle_create_topics, 19, version, &q);
}

static int create_code(struct rig *r, creatable t)
{
    struct asked a;
    int code = create(r, &a, 7, &t, 1, false)->Topics.v[0].ErrorCode;
    asked_free(&a);
    return code;
}

static void test_create(void **state)
{
    struct rig *r = *state;
    struct asked a;
    struct CreateTopicsRequest_CreatableTopicConfig kv = {VV_STR_LIT("retention.ms"), VV_STR_LIT("1000")};
    creatable t[3] = {topic("a", -1, -1), topic("b", 2, 1), topic("c", 1, 1)};
    t[1].Configs.v = &kv;
    t[1].Configs.n = 1;
    struct CreateTopicsResponse *s = create(r, &a, 7, t, 3, false);
    assert_int_equal(s->Topics.n, 3);
    assert_int_equal(s->Topics.v[0].ErrorCode, 0);
    assert_int_equal(s->Topics.v[0].ErrorMessage.n, -1);
    assert_int_equal(s->Topics.v[0].NumPartitions, 3); /* num.partitions */
    assert_int_equal(s->Topics.v[0].ReplicationFactor, 1);
    assert_false(vv_uuid_is_zero(s->Topics.v[0].TopicId));
    assert_int_equal(s->Topics.v[1].NumPartitions, 2);
    bool seen = false;
    for (int32_t i = 0; i < s->Topics.v[1].Configs.n; i++) {
        const struct CreateTopicsResponse_CreatableTopicConfigs *x = &s->Topics.v[1].Configs.v[i];
        if (!vv_str_is(x->Name, "retention.ms")) continue;
        seen = true;
        assert_true(vv_str_is(x->Value, "1000"));
        assert_int_equal(x->ConfigSource, VV_SOURCE_TOPIC);
    }
    assert_true(seen);
    asked_free(&a);
    s = create(r, &a, 2, t, 1, false);
    assert_int_equal(s->Topics.v[0].ErrorCode, VV_TOPIC_ALREADY_EXISTS);
    asked_free(&a);
}

static void test_create_refused(void **state)
{
    struct rig *r = *state;
    struct asked a;
    assert_int_equal(create_code(r, topic("x", 1, 2)), VV_INVALID_REPLICATION_FACTOR);
    assert_int_equal(create_code(r, topic("x", 1, 0)), VV_INVALID_REPLICATION_FACTOR);
    assert_int_equal(create_code(r, topic("x", 0, 1)), VV_INVALID_PARTITIONS);
    assert_int_equal(create_code(r, topic("x", -2, 1)), VV_INVALID_PARTITIONS);
    assert_int_equal(create_code(r, topic("a/b", 1, 1)), VV_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(create_code(r, topic("", 1, 1)), VV_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(create_code(r, topic("__consumer_offsets", 1, 1)), VV_INVALID_REQUEST);
    creatable t = topic("x", 1, 1);
    struct CreateTopicsRequest_CreatableTopicConfig kv = {VV_STR_LIT("cleanup.policy"), VV_STR_LIT("compact")};
    t.Configs.v = &kv;
    t.Configs.n = 1;
    assert_int_equal(create_code(r, t), VV_INVALID_CONFIG);
    kv = (struct CreateTopicsRequest_CreatableTopicConfig){VV_STR_LIT("no.such.key"), VV_STR_LIT("1")};
    assert_int_equal(create_code(r, t), VV_INVALID_CONFIG);
    kv = (struct CreateTopicsRequest_CreatableTopicConfig){VV_STR_LIT("retention.ms"), VV_STR_NULL};
    assert_int_equal(create_code(r, t), VV_INVALID_CONFIG);
    creatable twice[3] = {topic("x", 1, 1), topic("y", 1, 1), topic("x", 2, 1)};
    struct CreateTopicsResponse *s = create(r, &a, 5, twice, 3, false);
    assert_int_equal(s->Topics.v[0].ErrorCode, VV_INVALID_REQUEST);
    assert_int_equal(s->Topics.v[1].ErrorCode, 0);
    assert_int_equal(s->Topics.v[2].ErrorCode, VV_INVALID_REQUEST);
    asked_free(&a);
    s = create(r, &a, 7, twice, 1, true); /* check only */
    assert_int_equal(s->Topics.v[0].ErrorCode, 0);
    assert_true(s->Topics.v[0].Configs.n > 10);
    asked_free(&a);
    assert_null(vv_topics_get(r->b.topics, "x", 1));
}

static void test_manual_assignments(void **state)
{
    struct rig *r = *state;
    int32_t me = 1, other = 2, both[2] = {1, 1};
    struct CreateTopicsRequest_CreatableReplicaAssignment as[2] = {{1, {&me, 1}}, {0, {&me, 1}}};
    creatable t = topic("m", -1, -1);
    t.Assignments.v = as;
    t.Assignments.n = 2;
    creatable wrong = t;
    wrong.NumPartitions = 2;
    assert_int_equal(create_code(r, wrong), VV_INVALID_REQUEST);
    wrong = t;
    wrong.ReplicationFactor = 1;
    assert_int_equal(create_code(r, wrong), VV_INVALID_REQUEST);
    as[0].BrokerIds.v = &other;
    assert_int_equal(create_code(r, t), VV_INVALID_REPLICA_ASSIGNMENT);
    as[0].BrokerIds.v = both;
    as[0].BrokerIds.n = 2;
    assert_int_equal(create_code(r, t), VV_INVALID_REPLICA_ASSIGNMENT);
    as[0] = (struct CreateTopicsRequest_CreatableReplicaAssignment){2, {&me, 1}};
    assert_int_equal(create_code(r, t), VV_INVALID_REPLICA_ASSIGNMENT);
    as[0].PartitionIndex = 0;
    assert_int_equal(create_code(r, t), VV_INVALID_REPLICA_ASSIGNMENT);
    as[0].PartitionIndex = 1;
    assert_int_equal(create_code(r, t), 0);
    struct vv_topic *m = vv_topics_get(r->b.topics, "m", 1);
    assert_int_equal(m->partition_count, 2);
    vv_topic_unref(m);
}

/* ---- DeleteTopics, CreatePartitions ---- */

static void test_delete(void **state)
{
    struct rig *r = *state;
    struct asked a;
    assert_int_equal(create_code(r, topic("a", 1, 1)), 0);
    assert_int_equal(create_code(r, topic("b", 1, 1)), 0);
    struct vv_topic *b = vv_topics_get(r->b.topics, "b", 1);
    struct vv_uuid id = b->id, unknown = {{1}};
    vv_topic_unref(b);
    struct DeleteTopicsRequest_DeleteTopicState v[6];
    for (int i = 0; i < 6; i++) VV_STRUCT_INIT(DeleteTopicsRequest_DeleteTopicState, &v[i]);
    v[0].TopicId = id;
    v[1].TopicId = unknown;
    v[2].Name = VV_STR_LIT("nobody");
    /* v[3]: neither */
    v[4].Name = VV_STR_LIT("a");
    v[4].TopicId = unknown;
    v[4].TopicId.b[0] = 2;
    v[5].Name = VV_STR_LIT("nobody2");
    struct DeleteTopicsRequest q = {.Topics = {v, 6}};
    struct DeleteTopicsResponse *s = ask(r, &a, vv_handle_delete_topics, 20, 6, &q);
    assert_int_equal(s->Responses.v[0].ErrorCode, 0);
    assert_true(vv_str_is(s->Responses.v[0].Name, "b"));
    assert_int_equal(s->Responses.v[1].ErrorCode, VV_UNKNOWN_TOPIC_ID);
    assert_int_equal(s->Responses.v[2].ErrorCode, VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(s->Responses.v[3].ErrorCode, VV_INVALID_REQUEST);
    assert_int_equal(s->Responses.v[4].ErrorCode, VV_INVALID_REQUEST);
    asked_free(&a);
    assert_null(vv_topics_get(r->b.topics, "b", 1));
    struct vv_str names[3] = {VV_STR_LIT("a"), VV_STR_LIT("zz"), VV_STR_LIT("zz")};
    q = (struct DeleteTopicsRequest){.TopicNames = {names, 3}};
    s = ask(r, &a, vv_handle_delete_topics, 20, 1, &q);
    assert_int_equal(s->Responses.v[0].ErrorCode, 0);
    assert_int_equal(s->Responses.v[1].ErrorCode, VV_INVALID_REQUEST);
    assert_int_equal(s->Responses.v[2].ErrorCode, VV_INVALID_REQUEST);
    asked_free(&a);
    assert_null(vv_topics_get(r->b.topics, "a", 1));
    assert_int_equal(create_code(r, topic("a", 1, 1)), 0); /* the name is free at once */
}

static int grow(struct rig *r, const char *name, int32_t count, int32_t assigned, bool validate)
{
    struct asked a;
    int32_t me = 1;
    struct CreatePartitionsRequest_CreatePartitionsAssignment as[2] = {{{&me, 1}}, {{&me, 1}}};
    struct CreatePartitionsRequest_CreatePartitionsTopic t = {
        .Name = vv_str_c(name), .Count = count, .Assignments = {as, assigned}};
    struct CreatePartitionsRequest q = {.Topics = {&t, 1}, .ValidateOnly = validate};
    struct CreatePartitionsResponse *s = ask(r, &a, vv_handle_create_partitions, 37, 3, &q);
    int code = s->Results.v[0].ErrorCode;
    assert_int_equal(s->Results.v[0].ErrorMessage.n >= 0, code != 0);
    asked_free(&a);
    return code;
}

static void test_create_partitions(void **state)
{
    struct rig *r = *state;
    assert_int_equal(create_code(r, topic("g", 2, 1)), 0);
    assert_int_equal(grow(r, "nobody", 3, -1, false), VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(grow(r, "g", 2, -1, false), VV_INVALID_PARTITIONS);
    assert_int_equal(grow(r, "g", 1, -1, false), VV_INVALID_PARTITIONS);
    assert_int_equal(grow(r, "g", 5, 2, false), VV_INVALID_REPLICA_ASSIGNMENT);
    assert_int_equal(grow(r, "g", 4, 2, true), 0);
    struct vv_topic *g = vv_topics_get(r->b.topics, "g", 1);
    assert_int_equal(g->partition_count, 2);
    assert_int_equal(grow(r, "g", 4, 2, false), 0);
    assert_int_equal(g->partition_count, 4);
    assert_non_null(vv_topic_partition(g, 3));
    vv_topic_unref(g);
}

/* ---- DeleteRecords, DescribeLogDirs ---- */

static void produce(struct rig *r, struct vv_partition *p, int records)
{
    struct vv_error e = {0};
    uint8_t *bytes;
    size_t n;
    struct vv_batch b;
    for (int i = 0; i < records; i++) assert_int_equal(vv_batch_builder_add(r->builder, 1000, "k", 1, "v", 1), 0);
    assert_int_equal(vv_batch_builder_finish(r->builder, &bytes, &n), 0);
    assert_int_equal(vv_batch_parse(bytes, n, &b), 0);
    struct vv_append a = {.p = bytes, .b = &b, .leader_epoch = vv_partition_epoch(p)};
    assert_int_equal(vv_partition_append(p, &a, &e), 0);
}

static void test_records_and_dirs(void **state)
{
    struct rig *r = *state;
    struct asked a;
    assert_int_equal(create_code(r, topic("d", 2, 1)), 0);
    struct vv_topic *t = vv_topics_get(r->b.topics, "d", 1);
    produce(r, vv_topic_partition(t, 1), 10);
    struct DeleteRecordsRequest_DeleteRecordsPartition p[4] = {{1, 4}, {1, 11}, {0, -1}, {2, 0}};
    struct DeleteRecordsRequest_DeleteRecordsTopic d[2] = {{VV_STR_LIT("d"), {p, 4}}, {VV_STR_LIT("nobody"), {p, 1}}};
    struct DeleteRecordsRequest q = {.Topics = {d, 2}};
    struct DeleteRecordsResponse *s = ask(r, &a, vv_handle_delete_records, 21, 2, &q);
    assert_int_equal(s->Topics.v[0].Partitions.v[0].ErrorCode, 0);
    assert_int_equal(s->Topics.v[0].Partitions.v[0].LowWatermark, 4);
    assert_int_equal(s->Topics.v[0].Partitions.v[1].ErrorCode, VV_OFFSET_OUT_OF_RANGE);
    assert_int_equal(s->Topics.v[0].Partitions.v[1].LowWatermark, -1);
    assert_int_equal(s->Topics.v[0].Partitions.v[2].ErrorCode, 0);
    assert_int_equal(s->Topics.v[0].Partitions.v[2].LowWatermark, 0);
    assert_int_equal(s->Topics.v[0].Partitions.v[3].ErrorCode, VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(s->Topics.v[1].Partitions.v[0].ErrorCode, VV_UNKNOWN_TOPIC_OR_PARTITION);
    asked_free(&a);
    assert_int_equal(vv_partition_log_start(vv_topic_partition(t, 1)), 4);
    vv_topic_unref(t);

    struct DescribeLogDirsRequest all = {.Topics = {NULL, -1}};
    struct DescribeLogDirsResponse *l = ask(r, &a, vv_handle_describe_log_dirs, 35, 4, &all);
    assert_int_equal(l->Results.n, 1); /* no tier, no second entry */
    assert_true(vv_str_is(l->Results.v[0].LogDir, r->log_dir));
    assert_true(l->Results.v[0].TotalBytes > 0 && l->Results.v[0].UsableBytes >= 0);
    assert_int_equal(l->Results.v[0].Topics.n, 1);
    assert_int_equal(l->Results.v[0].Topics.v[0].Partitions.n, 2);
    assert_int_equal(l->Results.v[0].Topics.v[0].Partitions.v[0].PartitionSize, 0);
    assert_true(l->Results.v[0].Topics.v[0].Partitions.v[1].PartitionSize > 61);
    asked_free(&a);
    int32_t some[2] = {1, 9};
    struct DescribeLogDirsRequest_DescribableLogDirTopic w[2] = {{VV_STR_LIT("d"), {some, 2}},
                                                                 {VV_STR_LIT("nobody"), {some, 2}}};
    struct DescribeLogDirsRequest one = {.Topics = {w, 2}};
    l = ask(r, &a, vv_handle_describe_log_dirs, 35, 1, &one);
    assert_int_equal(l->Results.v[0].Topics.n, 1);
    assert_int_equal(l->Results.v[0].Topics.v[0].Partitions.n, 1);
    assert_int_equal(l->Results.v[0].Topics.v[0].Partitions.v[0].PartitionIndex, 1);
    asked_free(&a);
}

/* ---- configuration ---- */

static void config_is(struct rig *r, const char *name, const char *key, const char *value, int source)
{
    struct asked a;
    struct vv_str k = vv_str_c(key);
    struct DescribeConfigsRequest_DescribeConfigsResource w = {
        .ResourceType = 2, .ResourceName = vv_str_c(name), .ConfigurationKeys = {&k, 1}};
    struct DescribeConfigsRequest q = {.Resources = {&w, 1}, .IncludeSynonyms = true, .IncludeDocumentation = true};
    struct DescribeConfigsResponse *s = ask(r, &a, vv_handle_describe_configs, 32, 4, &q);
    assert_int_equal(s->Results.v[0].ErrorCode, 0);
    assert_int_equal(s->Results.v[0].Configs.n, 1);
    const struct DescribeConfigsResponse_DescribeConfigsResourceResult *x = &s->Results.v[0].Configs.v[0];
    assert_true(vv_str_is(x->Value, value));
    assert_int_equal(x->ConfigSource, source);
    assert_true(x->Documentation.n > 0);
    assert_true(x->Synonyms.n > 0);
    assert_true(vv_str_is(x->Synonyms.v[0].Value, value));
    asked_free(&a);
}

static int alter(struct rig *r, int8_t type, const char *name, const char *key, int8_t op, const char *value,
                 bool validate)
{
    struct asked a;
    struct IncrementalAlterConfigsRequest_AlterableConfig c = {vv_str_c(key), op, vv_str_c(value)};
    struct IncrementalAlterConfigsRequest_AlterConfigsResource w = {type, vv_str_c(name), {&c, 1}};
    struct IncrementalAlterConfigsRequest q = {.Resources = {&w, 1}, .ValidateOnly = validate};
    struct IncrementalAlterConfigsResponse *s = ask(r, &a, vv_handle_incremental_alter_configs, 44, 1, &q);
    int code = s->Responses.v[0].ErrorCode;
    assert_int_equal(s->Responses.v[0].ErrorMessage.n > 0, code != 0);
    assert_int_equal(s->Responses.v[0].ResourceType, type);
    asked_free(&a);
    return code;
}

static void test_incremental(void **state)
{
    struct rig *r = *state;
    assert_int_equal(create_code(r, topic("t", 1, 1)), 0);
    assert_int_equal(alter(r, 2, "t", "retention.ms", 0, "5000", false), 0);
    assert_int_equal(alter(r, 2, "t", "retention.bytes", 0, "700", true), 0); /* check only */
    config_is(r, "t", "retention.ms", "5000", VV_SOURCE_TOPIC);
    config_is(r, "t", "retention.bytes", "-1", VV_SOURCE_DEFAULT);
    assert_int_equal(alter(r, 2, "t", "retention.ms", 1, NULL, false), 0);
    config_is(r, "t", "retention.ms", "-1", VV_SOURCE_DEFAULT);
    assert_int_equal(alter(r, 2, "t", "retention.ms", 0, "x", false), VV_INVALID_CONFIG);
    assert_int_equal(alter(r, 2, "t", "retention.ms", 0, NULL, false), VV_INVALID_REQUEST);
    assert_int_equal(alter(r, 2, "t", "retention.ms", 2, "1", false), VV_INVALID_CONFIG); /* not a list */
    assert_int_equal(alter(r, 2, "t", "retention.ms", 9, "1", false), VV_INVALID_REQUEST);
    assert_int_equal(alter(r, 2, "t", "cleanup.policy", 2, "compact", false), VV_INVALID_CONFIG);
    assert_int_equal(alter(r, 2, "t", "leader.replication.throttled.replicas", 2, "0:1", false), 0);
    assert_int_equal(alter(r, 2, "t", "leader.replication.throttled.replicas", 2, "1:1,0:1", false), 0);
    config_is(r, "t", "leader.replication.throttled.replicas", "0:1,1:1", VV_SOURCE_TOPIC);
    assert_int_equal(alter(r, 2, "t", "leader.replication.throttled.replicas", 3, "0:1", false), 0);
    config_is(r, "t", "leader.replication.throttled.replicas", "1:1", VV_SOURCE_TOPIC);
    assert_int_equal(alter(r, 2, "nobody", "retention.ms", 0, "1", false), VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(alter(r, 4, "2", "log.retention.ms", 0, "1", false), VV_INVALID_REQUEST);
    assert_int_equal(alter(r, 8, "1", "root", 0, "DEBUG", false), VV_INVALID_REQUEST);
    assert_int_equal(alter(r, 77, "1", "a", 0, "b", false), VV_INVALID_REQUEST);
}

static void test_alter_replaces(void **state)
{
    struct rig *r = *state;
    struct asked a;
    assert_int_equal(create_code(r, topic("t", 1, 1)), 0);
    assert_int_equal(alter(r, 2, "t", "retention.ms", 0, "5000", false), 0);
    struct AlterConfigsRequest_AlterableConfig c[2] = {{VV_STR_LIT("retention.bytes"), VV_STR_LIT("9")},
                                                       {VV_STR_LIT("retention.bytes"), VV_STR_LIT("8")}};
    struct AlterConfigsRequest_AlterConfigsResource w[2] = {{2, VV_STR_LIT("t"), {c, 1}}, {2, VV_STR_LIT("t"), {c, 1}}};
    struct AlterConfigsRequest q = {.Resources = {w, 1}};
    struct AlterConfigsResponse *s = ask(r, &a, vv_handle_alter_configs, 33, 2, &q);
    assert_int_equal(s->Responses.v[0].ErrorCode, 0);
    asked_free(&a);
    config_is(r, "t", "retention.bytes", "9", VV_SOURCE_TOPIC);
    config_is(r, "t", "retention.ms", "-1", VV_SOURCE_DEFAULT); /* not named: back to the default */
    q.Resources.n = 2;
    s = ask(r, &a, vv_handle_alter_configs, 33, 0, &q);
    assert_int_equal(s->Responses.v[0].ErrorCode, VV_INVALID_REQUEST);
    assert_int_equal(s->Responses.v[1].ErrorCode, VV_INVALID_REQUEST);
    asked_free(&a);
    q.Resources.n = 1;
    w[0].Configs.n = 2; /* one key twice */
    s = ask(r, &a, vv_handle_alter_configs, 33, 1, &q);
    assert_int_equal(s->Responses.v[0].ErrorCode, VV_INVALID_REQUEST);
    asked_free(&a);
}

/* The only value of a key, of a broker or ("") of all; NULL when it is not listed. Copied. */
static char *broker_value(struct rig *r, const char *broker, const char *key, int *source, int *synonyms, bool *read_only)
{
    struct asked a;
    struct vv_str k = vv_str_c(key);
    struct DescribeConfigsRequest_DescribeConfigsResource w = {
        .ResourceType = 4, .ResourceName = vv_str_c(broker), .ConfigurationKeys = {&k, 1}};
    struct DescribeConfigsRequest q = {.Resources = {&w, 1}, .IncludeSynonyms = true};
    struct DescribeConfigsResponse *s = ask(r, &a, vv_handle_describe_configs, 32, 4, &q);
    assert_int_equal(s->Results.v[0].ErrorCode, 0);
    char *value = NULL;
    if (s->Results.v[0].Configs.n) {
        const struct DescribeConfigsResponse_DescribeConfigsResourceResult *x = &s->Results.v[0].Configs.v[0];
        value = strndup(x->Value.p, (size_t)x->Value.n);
        *source = x->ConfigSource;
        *synonyms = x->Synonyms.n;
        *read_only = x->ReadOnly;
    }
    asked_free(&a);
    return value;
}

static void broker_value_is(struct rig *r, const char *broker, const char *key, const char *value, int source, int synonyms)
{
    int got_source = 0, got_synonyms = 0;
    bool read_only = true;
    char *got = broker_value(r, broker, key, &got_source, &got_synonyms, &read_only);
    if (value)
        assert_string_equal(got, value);
    else
        assert_null(got);
    free(got);
    if (!value) return;
    assert_int_equal(got_source, source);
    assert_int_equal(got_synonyms, synonyms);
    assert_false(read_only);
}

/* The registry as a restart or a restore would read it, into a second broker. */
static void reload(struct rig *r, struct vv_broker *again)
{
    char *text = vv_topics_snapshot(r->b.topics);
    *again = (struct vv_broker){.env = &vv_env_posix, .config = &r->config, .node_id = 1, .log_dir = r->log_dir};
    assert_int_equal(vv_topics_new(again, &again->topics), 0);
    assert_int_equal(vv_topics_load(again->topics, text, strlen(text), NULL), 0);
    free(text);
}

static void test_broker_configs(void **state)
{
    struct rig *r = *state;
    assert_int_equal(create_code(r, topic("t", 1, 1)), 0);
    assert_int_equal(create_code(r, topic("own", 1, 1)), 0);
    assert_int_equal(alter(r, 2, "own", "retention.ms", 0, "42", false), 0);
    broker_value_is(r, "1", "log.retention.ms", "-1", VV_SOURCE_DEFAULT, 1);
    assert_int_equal(alter(r, 4, "", "log.retention.ms", 0, "9000", true), 0); /* validated only */
    broker_value_is(r, "", "log.retention.ms", NULL, 0, 0);
    assert_int_equal(alter(r, 4, "", "log.retention.ms", 0, "9000", false), 0);
    broker_value_is(r, "1", "log.retention.ms", "9000", VV_SOURCE_DYNAMIC_DEFAULT, 2);
    broker_value_is(r, "", "log.retention.ms", "9000", VV_SOURCE_DYNAMIC_DEFAULT, 1);
    config_is(r, "t", "retention.ms", "9000", VV_SOURCE_DYNAMIC_DEFAULT);
    assert_int_equal(alter(r, 4, "1", "log.retention.ms", 0, "8000", false), 0);
    broker_value_is(r, "1", "log.retention.ms", "8000", VV_SOURCE_DYNAMIC_BROKER, 3);
    config_is(r, "t", "retention.ms", "8000", VV_SOURCE_DYNAMIC_BROKER);
    config_is(r, "own", "retention.ms", "42", VV_SOURCE_TOPIC);
    struct vv_topic *t = vv_topics_get(r->b.topics, "t", 1);
    assert_int_equal(t->config.retention_ms, 8000); /* in force, not only told */
    assert_int_equal(atomic_load(&vv_topic_partition(t, 0)->rules.retention_ms), 8000);
    assert_int_equal(alter(r, 4, "1", "producer.id.expiration.ms", 0, "5000", false), 0); /* no topic's own, but its logs' */
    assert_int_equal(vv_topic_partition(t, 0)->log->config.producer_expiry_ms, 5000);
    vv_topic_unref(t);
    assert_int_equal(alter(r, 4, "1", "remote.fetch.max.wait.ms", 0, "77", false), 0);
    assert_int_equal(atomic_load(&r->b.values.remote_fetch_max_wait_ms), 77);
    struct vv_broker again;
    reload(r, &again);
    assert_int_equal(vv_broker_live(&again)->retention_ms, 8000);
    assert_int_equal(vv_broker_live(&again)->remote_fetch_max_wait_ms, 77);
    vv_topics_free(again.topics);
    vv_live_free(&again);
    assert_int_equal(alter(r, 4, "1", "log.retention.ms", 1, NULL, false), 0);
    config_is(r, "t", "retention.ms", "9000", VV_SOURCE_DYNAMIC_DEFAULT);
    assert_int_equal(alter(r, 4, "1", "listeners", 0, "PLAINTEXT://:1", false), VV_INVALID_REQUEST);
    assert_int_equal(alter(r, 4, "1", "log.retention.ms", 0, "soon", false), VV_INVALID_REQUEST);
    assert_int_equal(alter(r, 4, "1", "log.retention.ms", 2, "1", false), VV_INVALID_CONFIG);
    assert_int_equal(alter(r, 4, "2", "log.retention.ms", 0, "1", false), VV_INVALID_REQUEST);
    assert_int_equal(alter(r, 4, "x", "log.retention.ms", 0, "1", false), VV_INVALID_REQUEST);
    assert_int_equal(alter(r, 8, "1", "root", 0, "DEBUG", false), VV_INVALID_REQUEST);
    assert_int_equal(alter(r, 4, "1", "log.cleanup.policy", 2, "delete", false), 0);
    broker_value_is(r, "1", "log.cleanup.policy", "delete", VV_SOURCE_DYNAMIC_BROKER, 2);
    /* The whole set: what is not named goes back. */
    struct asked a;
    struct AlterConfigsRequest_AlterableConfig c = {VV_STR_LIT("log.retention.bytes"), VV_STR_LIT("5")};
    struct AlterConfigsRequest_AlterConfigsResource w = {4, VV_STR_LIT("1"), {&c, 1}};
    struct AlterConfigsRequest q = {.Resources = {&w, 1}};
    struct AlterConfigsResponse *s = ask(r, &a, vv_handle_alter_configs, 33, 2, &q);
    assert_int_equal(s->Responses.v[0].ErrorCode, 0);
    asked_free(&a);
    broker_value_is(r, "1", "log.retention.bytes", "5", VV_SOURCE_DYNAMIC_BROKER, 2);
    broker_value_is(r, "1", "remote.fetch.max.wait.ms", "500", VV_SOURCE_DEFAULT, 1);
    broker_value_is(r, "1", "log.retention.ms", "9000", VV_SOURCE_DYNAMIC_DEFAULT, 2);
}

static void test_describe_others(void **state)
{
    struct rig *r = *state;
    struct asked a;
    struct DescribeConfigsRequest_DescribeConfigsResource w[] = {
        {4, VV_STR_LIT("1"), {NULL, -1}},  {4, VV_STR_LIT(""), {NULL, -1}},   {4, VV_STR_LIT("2"), {NULL, -1}},
        {4, VV_STR_LIT("1x"), {NULL, -1}}, {8, VV_STR_LIT("1"), {NULL, -1}},  {2, VV_STR_LIT("nobody"), {NULL, -1}},
        {2, VV_STR_LIT(""), {NULL, -1}},   {99, VV_STR_LIT("1"), {NULL, -1}},
    };
    struct DescribeConfigsRequest q = {.Resources = {w, (int32_t)VV_COUNT(w)}, .IncludeSynonyms = true};
    struct DescribeConfigsResponse *s = ask(r, &a, vv_handle_describe_configs, 32, 1, &q);
    const int codes[] = {0,
                         0,
                         VV_INVALID_REQUEST,
                         VV_INVALID_REQUEST,
                         0,
                         VV_UNKNOWN_TOPIC_OR_PARTITION,
                         VV_INVALID_TOPIC_EXCEPTION,
                         VV_INVALID_REQUEST};
    for (size_t i = 0; i < VV_COUNT(w); i++) {
        assert_int_equal(s->Results.v[i].ErrorCode, codes[i]);
        assert_int_equal(s->Results.v[i].Configs.n > 0, i == 0);
    }
    bool partitions = false, secret = false;
    for (int32_t i = 0; i < s->Results.v[0].Configs.n; i++) {
        const struct DescribeConfigsResponse_DescribeConfigsResourceResult *x = &s->Results.v[0].Configs.v[i];
        if (vv_str_is(x->Name, "ssl.keystore.password")) secret = x->IsSensitive && x->Value.n == -1;
        if (!vv_str_is(x->Name, "num.partitions")) continue;
        partitions = true;
        assert_true(vv_str_is(x->Value, "3"));
        assert_int_equal(x->ConfigSource, VV_SOURCE_STATIC);
        assert_int_equal(x->Synonyms.n, 2);
        assert_true(vv_str_is(x->Synonyms.v[1].Value, "1"));
    }
    assert_true(partitions && secret);
    asked_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_create),      T(test_create_refused),    T(test_manual_assignments),
        T(test_delete),      T(test_create_partitions), T(test_records_and_dirs),
        T(test_incremental), T(test_alter_replaces),    T(test_describe_others),
        T(test_broker_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
