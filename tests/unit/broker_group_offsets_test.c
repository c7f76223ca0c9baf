/* Committed offsets: who may commit, when they are seen, deletion, expiry, restart; the records' exact bytes. */
#include "groups_fake.h"
#include "varve/vlog.h"

/* ---- requests ---- */

struct one {
    const char *group, *member, *topic, *note;
    int32_t generation, partition;
    int64_t offset, retention_ms;
    int16_t version;
    uint8_t topic_id;
};

static struct call *commit_as(struct one o)
{
    struct call *c = new_call(&vv_schema_OffsetCommitResponse, o.version ? o.version : 8);
    NEW_REQUEST(OffsetCommitRequest, c);
    r->GroupId = vv_str_c(o.group ? o.group : "g");
    r->GenerationIdOrMemberEpoch = o.generation ? o.generation : -1;
    r->MemberId = vv_str_c(o.member ? o.member : "");
    r->RetentionTimeMs = o.retention_ms ? o.retention_ms : -1;
    VV_ARRAY_NEW(r->Topics, OffsetCommitRequest_OffsetCommitRequestTopic, &c->arena, 1);
    r->Topics.v[0].Name = vv_str_c(o.topic ? o.topic : "t");
    r->Topics.v[0].TopicId.b[0] = o.topic_id;
    VV_ARRAY_NEW(r->Topics.v[0].Partitions, OffsetCommitRequest_OffsetCommitRequestPartition, &c->arena, 1);
    r->Topics.v[0].Partitions.v[0].PartitionIndex = o.partition;
    r->Topics.v[0].Partitions.v[0].CommittedOffset = o.offset;
    r->Topics.v[0].Partitions.v[0].CommittedLeaderEpoch = 3;
    r->Topics.v[0].Partitions.v[0].CommittedMetadata = vv_str_c(o.note);
    SEND(c, vv_groups_commit, r);
    return c;
}
#define COMMIT(...) commit_as((struct one){__VA_ARGS__})
#define COMMIT_ERROR(...) (COMMIT(__VA_ARGS__)->commit.Topics.v[0].Partitions.v[0].ErrorCode)

static struct call *fetch_as(int16_t version, const char *group, const char *topic, uint8_t topic_id)
{
    struct call *c = new_call(&vv_schema_OffsetFetchResponse, version);
    NEW_REQUEST(OffsetFetchRequest, c);
    if (version < 8) {
        r->GroupId = vv_str_c(group);
        r->Topics.n = -1;
        if (topic) {
            VV_ARRAY_NEW(r->Topics, OffsetFetchRequest_OffsetFetchRequestTopic, &c->arena, 1);
            r->Topics.v[0].Name = vv_str_c(topic);
            VV_PLAIN_ARRAY_NEW(r->Topics.v[0].PartitionIndexes, &c->arena, 4);
            for (int32_t i = 0; i < 4; i++) r->Topics.v[0].PartitionIndexes.v[i] = i;
        }
    } else {
        VV_ARRAY_NEW(r->Groups, OffsetFetchRequest_OffsetFetchRequestGroup, &c->arena, 1);
        r->Groups.v[0].GroupId = vv_str_c(group);
        r->Groups.v[0].Topics.n = -1;
        if (topic || topic_id) {
            VV_ARRAY_NEW(r->Groups.v[0].Topics, OffsetFetchRequest_OffsetFetchRequestTopics, &c->arena, 1);
            r->Groups.v[0].Topics.v[0].Name = vv_str_c(topic ? topic : "");
            r->Groups.v[0].Topics.v[0].TopicId.b[0] = topic_id;
            VV_PLAIN_ARRAY_NEW(r->Groups.v[0].Topics.v[0].PartitionIndexes, &c->arena, 4);
            for (int32_t i = 0; i < 4; i++) r->Groups.v[0].Topics.v[0].PartitionIndexes.v[i] = i;
        }
    }
    SEND(c, vv_groups_fetch, r);
    return c;
}

static int64_t fetched(const char *topic, int32_t partition)
{
    return fetch_as(7, "g", topic, 0)->fetch.Topics.v[0].Partitions.v[partition].CommittedOffset;
}

/* A member of group g in a stable generation 1. metadata: its subscription. */
static char *member(const uint8_t *metadata, int32_t n)
{
    struct call *c = new_call(&vv_schema_JoinGroupResponse, 3);
    NEW_REQUEST(JoinGroupRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->SessionTimeoutMs = 1800000;
    r->RebalanceTimeoutMs = 1800000;
    r->ProtocolType = VV_STR_LIT("consumer");
    VV_ARRAY_NEW(r->Protocols, JoinGroupRequest_JoinGroupRequestProtocol, &c->arena, 1);
    r->Protocols.v[0].Name = VV_STR_LIT("range");
    r->Protocols.v[0].Metadata = (struct vv_bytes){metadata, n};
    SEND(c, vv_groups_join, r);
    pass(3000);
    assert_int_equal(c->join.ErrorCode, 0);
    return text(c, c->join.MemberId);
}

static void sync_alone(const char *id)
{
    struct call *c = new_call(&vv_schema_SyncGroupResponse, 3);
    NEW_REQUEST(SyncGroupRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->GenerationId = 1;
    r->MemberId = vv_str_c(id);
    SEND(c, vv_groups_sync, r);
    assert_int_equal(c->sync.ErrorCode, 0);
}

static const uint8_t subscribes_t[] = {0, 1, 0, 0, 0, 1, 0, 1, 't', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0};

static void leave(const char *id)
{
    struct call *c = new_call(&vv_schema_LeaveGroupResponse, 1);
    NEW_REQUEST(LeaveGroupRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->MemberId = vv_str_c(id);
    SEND(c, vv_groups_leave, r);
    assert_int_equal(c->leave.ErrorCode, 0);
}

static int offset_delete(const char *group, const char *topic, int32_t partition, int *inner)
{
    struct call *c = new_call(&vv_schema_OffsetDeleteResponse, 0);
    NEW_REQUEST(OffsetDeleteRequest, c);
    r->GroupId = vv_str_c(group);
    VV_ARRAY_NEW(r->Topics, OffsetDeleteRequest_OffsetDeleteRequestTopic, &c->arena, 1);
    r->Topics.v[0].Name = vv_str_c(topic);
    VV_ARRAY_NEW(r->Topics.v[0].Partitions, OffsetDeleteRequest_OffsetDeleteRequestPartition, &c->arena, 1);
    r->Topics.v[0].Partitions.v[0].PartitionIndex = partition;
    SEND(c, vv_groups_offset_delete, r);
    *inner = c->offset_delete.Topics.n ? c->offset_delete.Topics.v[0].Partitions.v[0].ErrorCode : 0;
    return c->offset_delete.ErrorCode;
}

static struct call *delete_groups(const char *const *names, int n)
{
    struct call *c = new_call(&vv_schema_DeleteGroupsResponse, 2);
    NEW_REQUEST(DeleteGroupsRequest, c);
    VV_PLAIN_ARRAY_NEW(r->GroupsNames, &c->arena, n);
    for (int i = 0; i < n; i++) r->GroupsNames.v[i] = vv_str_c(names[i]);
    SEND(c, vv_groups_delete, r);
    return c;
}

static struct call *list(const char *state, const char *type)
{
    struct call *c = new_call(&vv_schema_ListGroupsResponse, 5);
    NEW_REQUEST(ListGroupsRequest, c);
    if (state) {
        VV_PLAIN_ARRAY_NEW(r->StatesFilter, &c->arena, 1);
        r->StatesFilter.v[0] = vv_str_c(state);
    }
    if (type) {
        VV_PLAIN_ARRAY_NEW(r->TypesFilter, &c->arena, 1);
        r->TypesFilter.v[0] = vv_str_c(type);
    }
    SEND(c, vv_groups_list, r);
    return c;
}

static struct call *describe(int16_t version, const char *name)
{
    struct call *c = new_call(&vv_schema_DescribeGroupsResponse, version);
    NEW_REQUEST(DescribeGroupsRequest, c);
    VV_PLAIN_ARRAY_NEW(r->Groups, &c->arena, 1);
    r->Groups.v[0] = vv_str_c(name);
    r->IncludeAuthorizedOperations = version >= 3;
    SEND(c, vv_groups_describe, r);
    return c;
}

/* ---- commits ---- */

static void a_simple_consumer_commits(void **state)
{
    (void)state;
    assert_int_equal(fetched("t", 1), -1);
    assert_int_equal(COMMIT_ERROR(.partition = 1, .offset = 42, .note = "hello"), 0);
    for (int16_t v = 1; v <= 10; v++) {
        struct call *c = fetch_as(v, "g", "t", v >= 10);
        if (v < 8) {
            assert_int_equal(c->fetch.Topics.v[0].Partitions.v[1].CommittedOffset, 42);
            assert_string_equal(text(c, c->fetch.Topics.v[0].Partitions.v[1].Metadata), "hello");
            assert_int_equal(c->fetch.Topics.v[0].Partitions.v[1].CommittedLeaderEpoch, v >= 5 ? 3 : -1);
            assert_int_equal(c->fetch.Topics.v[0].Partitions.v[0].CommittedOffset, -1);
        } else {
            assert_int_equal(c->fetch.Groups.v[0].Topics.v[0].Partitions.v[1].CommittedOffset, 42);
            assert_int_equal(c->fetch.Groups.v[0].Topics.v[0].Partitions.v[0].CommittedOffset, -1);
            assert_int_equal(c->fetch.Groups.v[0].Topics.v[0].Partitions.v[0].ErrorCode, 0);
        }
    }
    assert_int_equal(COMMIT_ERROR(.version = 2, .partition = 1, .offset = 43), 0);
    assert_int_equal(fetched("t", 1), 43);
    assert_int_equal(COMMIT_ERROR(.group = "", .offset = 1), 0); /* the empty id: allowed here, for old clients */
}

static void commits_are_checked_per_partition(void **state)
{
    (void)state;
    char *note = malloc(5000);
    memset(note, 'x', 4999);
    note[4999] = 0;
    assert_int_equal(COMMIT_ERROR(.topic = "nope"), VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(COMMIT_ERROR(.partition = 4), VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(COMMIT_ERROR(.partition = -1), VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(COMMIT_ERROR(.note = note), VV_OFFSET_METADATA_TOO_LARGE);
    assert_int_equal(COMMIT_ERROR(.version = 10, .topic = "", .topic_id = 9), VV_UNKNOWN_TOPIC_ID);
    assert_int_equal(w.g->table.count, 0);
    note[4096] = 0;
    assert_int_equal(COMMIT_ERROR(.note = note, .offset = 5), 0);
    assert_int_equal(COMMIT_ERROR(.version = 10, .topic = "", .topic_id = 2, .offset = 6), 0);
    assert_int_equal(fetched("u", 0), 6);
    struct call *c = fetch_as(10, "g", NULL, 9);
    assert_int_equal(c->fetch.Groups.v[0].Topics.v[0].Partitions.v[0].ErrorCode, VV_UNKNOWN_TOPIC_ID);
    free(note);
}

static void commits_need_the_generation(void **state)
{
    (void)state;
    assert_int_equal(COMMIT_ERROR(.generation = 1, .member = "x"), VV_ILLEGAL_GENERATION);
    assert_int_equal(COMMIT_ERROR(.version = 9, .generation = 1, .member = "x"), VV_GROUP_ID_NOT_FOUND);
    char *id = member(subscribes_t, sizeof subscribes_t);
    assert_int_equal(COMMIT_ERROR(.generation = 1, .member = id), VV_REBALANCE_IN_PROGRESS);
    sync_alone(id);
    assert_int_equal(COMMIT_ERROR(.generation = 1, .member = id, .offset = 7), 0);
    assert_int_equal(COMMIT_ERROR(.generation = 2, .member = id), VV_ILLEGAL_GENERATION);
    assert_int_equal(COMMIT_ERROR(.generation = 1, .member = "x"), VV_UNKNOWN_MEMBER_ID);
    assert_int_equal(COMMIT_ERROR(), VV_UNKNOWN_MEMBER_ID); /* a simple consumer, while there are members */
    leave(id);
    assert_int_equal(COMMIT_ERROR(.offset = 8), 0);
    assert_int_equal(COMMIT_ERROR(.generation = 2, .member = id), VV_UNKNOWN_MEMBER_ID);
    assert_int_equal(fetched("t", 0), 8);
}

static void a_commit_is_seen_when_it_is_durable(void **state)
{
    (void)state;
    COMMIT(.offset = 1);
    w.hold = true;
    struct call *c = COMMIT(.offset = 2);
    assert_int_equal(c->answers, 0);
    assert_int_equal(fetched("t", 0), 1);
    settle(VV_E_IO);
    assert_int_equal(c->commit.Topics.v[0].Partitions.v[0].ErrorCode, VV_NOT_COORDINATOR);
    assert_int_equal(fetched("t", 0), 1);
    c = COMMIT(.offset = 3);
    settle(0);
    assert_int_equal(c->commit.Topics.v[0].Partitions.v[0].ErrorCode, 0);
    assert_int_equal(fetched("t", 0), 3);
    w.refuse = VV_E_NOSPC;
    assert_int_equal(COMMIT_ERROR(.offset = 4), VV_NOT_COORDINATOR);
    assert_int_equal(fetched("t", 0), 3);
    w.refuse = VV_MESSAGE_TOO_LARGE;
    assert_int_equal(COMMIT_ERROR(.offset = 4), VV_INVALID_COMMIT_OFFSET_SIZE);
}

static void an_overdue_commit_fails_and_may_still_count(void **state)
{
    (void)state;
    w.hold = true;
    struct call *c = COMMIT(.offset = 9, .note = "late");
    pass(4999);
    assert_int_equal(c->answers, 0);
    pass(1);
    assert_int_equal(c->commit.Topics.v[0].Partitions.v[0].ErrorCode, VV_COORDINATOR_NOT_AVAILABLE);
    assert_int_equal(fetched("t", 0), -1);
    settle(0); /* it is in the log: a restart would show it, so we do */
    assert_int_equal(fetched("t", 0), 9);
}

static void all_offsets_at_once(void **state)
{
    (void)state;
    COMMIT(.topic = "u", .partition = 2, .offset = 22);
    COMMIT(.topic = "t", .partition = 3, .offset = 13);
    COMMIT(.topic = "t", .partition = 0, .offset = 10);
    struct call *c = fetch_as(5, "g", NULL, 0);
    assert_int_equal(c->fetch.Topics.n, 2);
    assert_string_equal(text(c, c->fetch.Topics.v[0].Name), "t");
    assert_int_equal(c->fetch.Topics.v[0].Partitions.n, 2);
    assert_int_equal(c->fetch.Topics.v[0].Partitions.v[1].PartitionIndex, 3);
    assert_int_equal(c->fetch.Topics.v[1].Partitions.v[0].CommittedOffset, 22);
    w.topics[1] = NULL; /* u is gone, its offsets are not yet */
    c = fetch_as(10, "g", NULL, 0);
    assert_int_equal(c->fetch.Groups.v[0].Topics.n, 1);
    assert_int_equal(c->fetch.Groups.v[0].Topics.v[0].TopicId.b[0], 1);
    assert_int_equal(fetch_as(8, "none", NULL, 0)->fetch.Groups.v[0].Topics.n, 0);
}

/* ---- deletion ---- */

static void offsets_are_deleted(void **state)
{
    (void)state;
    int inner;
    assert_int_equal(offset_delete("g", "t", 0, &inner), VV_GROUP_ID_NOT_FOUND);
    assert_int_equal(offset_delete("", "t", 0, &inner), VV_INVALID_GROUP_ID);
    char *id = member(subscribes_t, sizeof subscribes_t);
    sync_alone(id);
    COMMIT(.generation = 1, .member = id, .topic = "t", .offset = 1);
    COMMIT(.generation = 1, .member = id, .topic = "u", .offset = 2);
    assert_int_equal(offset_delete("g", "t", 0, &inner), 0);
    assert_int_equal(inner, VV_GROUP_SUBSCRIBED_TO_TOPIC);
    assert_int_equal(offset_delete("g", "none", 0, &inner), 0);
    assert_int_equal(inner, VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(offset_delete("g", "u", 0, &inner), 0);
    assert_int_equal(inner, 0);
    assert_int_equal(fetched("u", 0), -1);
    assert_int_equal(fetched("t", 0), 1);
    restart();
    assert_int_equal(fetched("u", 0), -1);
    assert_int_equal(fetched("t", 0), 1);
}

static void groups_are_deleted(void **state)
{
    (void)state;
    char *id = member(subscribes_t, sizeof subscribes_t);
    sync_alone(id);
    COMMIT(.group = "simple", .offset = 4);
    COMMIT(.generation = 1, .member = id, .offset = 1);
    const char *names[] = {"g", "simple", "none", "", "simple"};
    struct call *c = delete_groups(names, 5);
    assert_int_equal(c->delete_groups.Results.v[0].ErrorCode, VV_NON_EMPTY_GROUP);
    assert_int_equal(c->delete_groups.Results.v[1].ErrorCode, 0);
    assert_int_equal(c->delete_groups.Results.v[2].ErrorCode, VV_GROUP_ID_NOT_FOUND);
    assert_int_equal(c->delete_groups.Results.v[3].ErrorCode, VV_INVALID_GROUP_ID);
    assert_int_equal(c->delete_groups.Results.v[4].ErrorCode, VV_GROUP_ID_NOT_FOUND);
    leave(id);
    w.hold = true;
    c = delete_groups(names, 1);
    assert_int_equal(c->answers, 0);
    settle(0);
    assert_int_equal(c->delete_groups.Results.v[0].ErrorCode, 0);
    restart();
    assert_int_equal(w.g->table.count, 0);
}

static void a_deletion_overtakes_a_commit_under_way(void **state)
{
    (void)state;
    COMMIT(.offset = 1);
    w.hold = true;
    struct call *late = COMMIT(.offset = 2);
    struct call *other = COMMIT(.topic = "u", .offset = 5);
    assert_int_equal(w.queued, 2);
    vv_groups_topic_deleted(w.g, "t");
    settle(0);
    assert_int_equal(late->commit.Topics.v[0].Partitions.v[0].ErrorCode, 0);
    assert_int_equal(other->answers, 1);
    assert_int_equal(fetched("t", 0), -1); /* the tombstone is behind it in the log */
    assert_int_equal(fetched("u", 0), 5);
    w.hold = false;
    restart();
    assert_int_equal(fetched("t", 0), -1);
    assert_int_equal(fetched("u", 0), 5);
    assert_int_equal(COMMIT_ERROR(.offset = 3), 0);
    assert_int_equal(fetched("t", 0), 3);
}

static void a_group_deleted_under_a_commit(void **state)
{
    (void)state;
    const char *names[] = {"g"};
    w.hold = true;
    struct call *c = COMMIT(.offset = 2);
    struct call *d = delete_groups(names, 1);
    settle(0);
    assert_int_equal(c->answers, 1);
    assert_int_equal(d->delete_groups.Results.v[0].ErrorCode, 0);
    assert_int_equal(w.g->table.count, 0);
    w.hold = false;
    restart();
    assert_int_equal(w.g->table.count, 0);
}

static void a_deletion_that_is_refused_forgets_nothing(void **state)
{
    (void)state;
    int inner;
    const char *names[] = {"g"};
    COMMIT(.offset = 2);
    w.refuse = VV_E_NOSPC;
    assert_int_equal(offset_delete("g", "t", 0, &inner), VV_NOT_COORDINATOR);
    assert_int_equal(delete_groups(names, 1)->delete_groups.Results.v[0].ErrorCode, VV_NOT_COORDINATOR);
    w.refuse = 0;
    assert_int_equal(fetched("t", 0), 2);
}

static void thousands_of_tombstones_go_in_batches(void **state)
{
    (void)state;
    char name[32];
    struct vv_group *g = vv_groups_add(w.g, VV_STR_LIT("g"));
    for (int i = 0; i < 2500; i++) {
        snprintf(name, sizeof name, "%s", i % 5 ? "t" : "u");
        vv_group_offset(g, vv_str_c(name), i, true)->present = true;
    }
    vv_groups_topic_deleted(w.g, "t");
    settle(0);
    assert_int_equal(w.batches, 2);
    assert_int_equal(w.log_count, 2000);
    assert_int_equal(g->offsets.count, 500);
}

/* ---- expiry ---- */

static void simple_offsets_expire_by_commit(void **state)
{
    (void)state;
    COMMIT(.partition = 0, .offset = 1);
    pass(86400000);
    COMMIT(.partition = 1, .offset = 2);
    pass(6 * 86400000LL + 600000);
    settle(0);
    assert_int_equal(fetched("t", 0), -1);
    assert_int_equal(fetched("t", 1), 2);
    pass(86400000);
    settle(0);
    assert_int_equal(w.g->table.count, 0);
    restart();
    assert_int_equal(w.g->table.count, 0);
}

static void offsets_of_a_group_expire_after_its_end(void **state)
{
    (void)state;
    char *id = member(subscribes_t, sizeof subscribes_t);
    sync_alone(id);
    COMMIT(.generation = 1, .member = id, .offset = 1);
    COMMIT(.generation = 1, .member = id, .topic = "u", .offset = 2); /* not subscribed to */
    for (int i = 0; i < 8 * 48; i++) {
        pass(1800000 - 1);
        struct call *c = new_call(&vv_schema_HeartbeatResponse, 3);
        NEW_REQUEST(HeartbeatRequest, c);
        r->GroupId = VV_STR_LIT("g");
        r->GenerationId = 1;
        r->MemberId = vv_str_c(id);
        SEND(c, vv_groups_heartbeat, r);
        assert_int_equal(c->heartbeat.ErrorCode, 0);
    }
    settle(0);
    assert_int_equal(fetched("t", 0), 1);
    assert_int_equal(fetched("u", 0), -1);
    leave(id);
    pass(7 * 86400000LL - 600000);
    settle(0);
    assert_int_equal(fetched("t", 0), 1); /* the clock started when the group became empty */
    pass(1200000);
    settle(0);
    assert_int_equal(fetched("t", 0), -1);
    assert_int_equal(w.g->table.count, 0);
}

static void old_clients_name_their_own_retention(void **state)
{
    (void)state;
    COMMIT(.version = 2, .offset = 1, .retention_ms = 1000000);
    restart();
    pass(600000);
    assert_int_equal(fetched("t", 0), 1);
    pass(600000);
    settle(0);
    assert_int_equal(fetched("t", 0), -1);
}

static void nothing_expires_by_a_clock_that_jumped(void **state)
{
    (void)state;
    COMMIT(.offset = 1);
    w.untrusted = true;
    w.ms_offset = 365 * 86400000LL;
    pass(1200000);
    settle(0);
    assert_int_equal(fetched("t", 0), 1);
    w.untrusted = false;
    pass(600000);
    settle(0);
    assert_int_equal(fetched("t", 0), -1);
}

/* ---- restart, administrators ---- */

static void offsets_survive_a_restart(void **state)
{
    (void)state;
    COMMIT(.offset = 1, .note = "a");
    COMMIT(.offset = 2, .note = "b");
    COMMIT(.topic = "u", .offset = 3);
    w.topic_ids[1] = 7; /* u was deleted and made again while nobody looked */
    restart();
    struct call *c = fetch_as(7, "g", NULL, 0);
    assert_int_equal(c->fetch.Topics.n, 1);
    assert_int_equal(c->fetch.Topics.v[0].Partitions.v[0].CommittedOffset, 2);
    assert_int_equal(c->fetch.Topics.v[0].Partitions.v[0].CommittedLeaderEpoch, 3);
    assert_string_equal(text(c, c->fetch.Topics.v[0].Partitions.v[0].Metadata), "b");
}

static void damaged_records_are_passed_over(void **state)
{
    (void)state;
    const uint8_t keys[][8] = {{0, 1}, {0, 2, 0, 9, 'g'}, {0, 9, 1}, {0}, {0, 2, 0, 1, 'h'}};
    const int32_t lengths[] = {2, 5, 3, 1, 5};
    const uint8_t value[] = {0, 3, 0, 0};
    for (size_t i = 0; i < VV_COUNT(lengths); i++) {
        struct vv_record r = {.key = keys[i], .key_n = lengths[i], .value = value, .value_n = sizeof value};
        vlog_level = VV_ERROR + 1;
        assert_int_equal(vv_groups_apply(w.g, &r), 0);
        vlog_level = VV_ERROR;
    }
    assert_int_equal(w.g->table.count, 0);
}

static void administrators_see_groups(void **state)
{
    (void)state;
    char *id = member(subscribes_t, sizeof subscribes_t);
    COMMIT(.group = "simple", .offset = 1);
    assert_int_equal(list(NULL, NULL)->list.Groups.n, 2);
    struct call *c = list("completingrebalance", NULL);
    assert_int_equal(c->list.Groups.n, 1);
    assert_string_equal(text(c, c->list.Groups.v[0].GroupId), "g");
    assert_string_equal(text(c, c->list.Groups.v[0].ProtocolType), "consumer");
    assert_string_equal(text(c, c->list.Groups.v[0].GroupState), "CompletingRebalance");
    assert_string_equal(text(c, c->list.Groups.v[0].GroupType), "classic");
    assert_int_equal(list(NULL, "Classic")->list.Groups.n, 2);
    assert_int_equal(list(NULL, "consumer")->list.Groups.n, 0);
    assert_int_equal(describe(6, "g")->describe.Groups.v[0].Members.v[0].MemberMetadata.n, 0);
    sync_alone(id);
    c = describe(6, "g");
    assert_string_equal(text(c, c->describe.Groups.v[0].GroupState), "Stable");
    assert_string_equal(text(c, c->describe.Groups.v[0].ProtocolData), "range");
    assert_int_equal(c->describe.Groups.v[0].AuthorizedOperations, 8 + 64 + 256);
    assert_int_equal(c->describe.Groups.v[0].Members.n, 1);
    assert_string_equal(text(c, c->describe.Groups.v[0].Members.v[0].MemberId), id);
    assert_string_equal(text(c, c->describe.Groups.v[0].Members.v[0].ClientHost), "/127.0.0.1");
    assert_int_equal(c->describe.Groups.v[0].Members.v[0].MemberMetadata.n, sizeof subscribes_t);
    c = describe(5, "none");
    assert_int_equal(c->describe.Groups.v[0].ErrorCode, 0);
    assert_string_equal(text(c, c->describe.Groups.v[0].GroupState), "Dead");
    c = describe(6, "none");
    assert_int_equal(c->describe.Groups.v[0].ErrorCode, VV_GROUP_ID_NOT_FOUND);
    assert_string_equal(text(c, c->describe.Groups.v[0].ErrorMessage), "Group none not found.");
}

static void memory_is_bounded(void **state)
{
    (void)state;
    COMMIT(.offset = 1);
    size_t real = w.g->bytes;
    w.g->bytes = VV_GROUPS_BYTES_MAX;
    assert_int_equal(COMMIT_ERROR(.partition = 2), VV_INVALID_COMMIT_OFFSET_SIZE);
    w.g->bytes = real;
    assert_int_equal(COMMIT_ERROR(.partition = 2), 0);
}

/* ---- bytes ---- */

static void records_have_kafkas_bytes(void **state)
{
    (void)state;
    uint8_t *p;
    size_t n;
    const uint8_t key[] = {0, 1, 0, 1, 'g', 0, 1, 't', 0, 0, 0, 3};
    const uint8_t group_key[] = {0, 2, 0, 1, 'g'};
    const uint8_t value3[] = {0, 3, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 5, 0, 1, 'n', 0, 0, 0, 0, 0, 0, 3, 0xe8};
    const uint8_t value1[] = {0, 1, 0, 0, 0, 0, 0, 0, 0, 42, 0, 1, 'n', 0, 0, 0, 0, 0, 0, 3, 0xe8,
                              0, 0, 0, 0, 0, 0, 7, 0xd0};
    const uint8_t value4[] = {0, 4, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 5, 2, 'n', 0, 0, 0, 0, 0, 0, 3, 0xe8,
                              1, 0, 16, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    struct vv_commit_item item = {.offset = 42, .leader_epoch = 5, .expire_ms = -1, .metadata = VV_STR_LIT("n")};
    assert_int_equal(vv_group_offset_key(VV_STR_LIT("g"), VV_STR_LIT("t"), 3, &p, &n), 0);
    assert_int_equal(n, sizeof key);
    assert_memory_equal(p, key, n);
    free(p);
    assert_int_equal(vv_group_metadata_key(VV_STR_LIT("g"), &p, &n), 0);
    assert_int_equal(n, sizeof group_key);
    assert_memory_equal(p, group_key, n);
    free(p);
    assert_int_equal(vv_group_offset_value(&item, 1000, &p, &n), 0);
    assert_int_equal(n, sizeof value3);
    assert_memory_equal(p, value3, n);
    free(p);
    item.topic_id.b[0] = 9;
    assert_int_equal(vv_group_offset_value(&item, 1000, &p, &n), 0);
    assert_int_equal(n, sizeof value4);
    assert_memory_equal(p, value4, n);
    free(p);
    item.expire_ms = 2000;
    assert_int_equal(vv_group_offset_value(&item, 1000, &p, &n), 0);
    assert_int_equal(n, sizeof value1);
    assert_memory_equal(p, value1, n);
    free(p);
}

static void a_group_has_kafkas_bytes(void **state)
{
    (void)state;
    uint8_t *p;
    size_t n;
    struct vv_group *g = vv_groups_add(w.g, VV_STR_LIT("g"));
    g->generation = 7;
    g->state_ms = 1000;
    const uint8_t empty[] = {0, 3, 0, 0, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0, 0, 0};
    assert_int_equal(vv_group_metadata_value(g, false, &p, &n), 0);
    assert_int_equal(n, sizeof empty);
    assert_memory_equal(p, empty, n);
    free(p);
    struct vv_group_member *m = vv_member_new(g, VV_STR_LIT("m"), VV_STR_LIT("i"), VV_STR_LIT("c"), "/h");
    const struct vv_group_protocol range = {VV_STR_LIT("r"), {(const uint8_t *)"SUB", 3}};
    assert_int_equal(vv_member_set_protocols(m, &range, 1), 0);
    m->rebalance_ms = 1;
    m->session_ms = 2;
    vv_str_own(&g->protocol_type, VV_STR_LIT("consumer"));
    vv_str_own(&g->protocol, VV_STR_LIT("r"));
    assert_int_equal(vv_member_add(m), 0);
    vv_bytes_own(&m->assignment, (struct vv_bytes){(const uint8_t *)"AS", 2});
    const uint8_t one[] = {
        0, 3, 0, 8, 'c', 'o', 'n', 's', 'u', 'm', 'e', 'r', /* version, protocol type */
        0, 0, 0, 7, 0, 1, 'r', 0, 1, 'm',                   /* generation, protocol, leader */
        0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0, 0, 1,              /* time of the state, one member: */
        0, 1, 'm', 0, 1, 'i', 0, 1, 'c', 0, 2, '/', 'h',    /* id, instance, client, host */
        0, 0, 0, 1, 0, 0, 0, 2,                             /* rebalance and session timeout */
        0, 0, 0, 3, 'S', 'U', 'B', 0, 0, 0, 2, 'A', 'S',
    };
    assert_int_equal(vv_group_metadata_value(g, false, &p, &n), 0);
    assert_int_equal(n, sizeof one);
    assert_memory_equal(p, one, n);
    free(p);
}

static void partitions_are_kafkas(void **state)
{
    (void)state;
    assert_int_equal(vv_java_hash(VV_STR_LIT("")), 0);
    assert_int_equal(vv_java_hash(VV_STR_LIT("abc")), 96354);
    assert_int_equal(vv_java_hash(VV_STR_LIT("polygenelubricants")), INT32_MIN);
    assert_int_equal(vv_java_hash(VV_STR_LIT("\xc3\xa4")), 0xe4);
    assert_int_equal(vv_java_hash(VV_STR_LIT("\xf0\x9f\x98\x80")), 0xd83d * 31 + 0xde00);
    assert_int_equal(vv_group_partition(VV_STR_LIT("polygenelubricants"), 50), 0);
    assert_int_equal(vv_group_partition(VV_STR_LIT("abc"), 50), 4);
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_open, world_close)
int main(void)
{
    vlog_level = VV_ERROR;
    const struct CMUnitTest tests[] = {
        T(a_simple_consumer_commits),
        T(commits_are_checked_per_partition),
        T(commits_need_the_generation),
        T(a_commit_is_seen_when_it_is_durable),
        T(an_overdue_commit_fails_and_may_still_count),
        T(all_offsets_at_once),
        T(offsets_are_deleted),
        T(groups_are_deleted),
        T(a_deletion_overtakes_a_commit_under_way),
        T(a_group_deleted_under_a_commit),
        T(a_deletion_that_is_refused_forgets_nothing),
        T(thousands_of_tombstones_go_in_batches),
        T(simple_offsets_expire_by_commit),
        T(offsets_of_a_group_expire_after_its_end),
        T(old_clients_name_their_own_retention),
        T(nothing_expires_by_a_clock_that_jumped),
        T(offsets_survive_a_restart),
        T(damaged_records_are_passed_over),
        T(administrators_see_groups),
        T(memory_is_bounded),
        T(records_have_kafkas_bytes),
        T(a_group_has_kafkas_bytes),
        T(partitions_are_kafkas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
