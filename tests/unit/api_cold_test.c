/* Reads of what is only in the bucket, through a whole broker: across the border, by time, with no time to wait. */
#include "api_rig.h"

enum { CREATE_TOPICS = 19, INCREMENTAL_ALTER_CONFIGS = 44, BATCHES = 120, VALUE = 3000, FIRST_TS = 1000000 };

static struct peer *a;
static struct vv_uuid id;

static int64_t list(int16_t version, int64_t ts, int64_t *found_ts)
{
    struct ListOffsetsRequest q;
    struct ListOffsetsRequest_ListOffsetsTopic t;
    struct ListOffsetsRequest_ListOffsetsPartition p;
    VV_MSG_INIT(ListOffsetsRequest, &q);
    VV_STRUCT_INIT(ListOffsetsRequest_ListOffsetsTopic, &t);
    VV_STRUCT_INIT(ListOffsetsRequest_ListOffsetsPartition, &p);
    q.ReplicaId = -1;
    q.Topics.v = &t;
    q.Topics.n = t.Partitions.n = 1;
    t.Name = VV_STR_LIT("cold");
    t.Partitions.v = &p;
    p.Timestamp = ts;
    const struct ListOffsetsResponse *r = peer_call(a, LIST_OFFSETS, version, &q);
    assert_int_equal(r->Topics.v[0].Partitions.v[0].ErrorCode, 0);
    if (found_ts) *found_ts = r->Topics.v[0].Partitions.v[0].Timestamp;
    return r->Topics.v[0].Partitions.v[0].Offset;
}

static void create_topic(void)
{
    struct CreateTopicsRequest q;
    struct CreateTopicsRequest_CreatableTopic t;
    struct CreateTopicsRequest_CreatableTopicConfig c[2];
    VV_MSG_INIT(CreateTopicsRequest, &q);
    VV_STRUCT_INIT(CreateTopicsRequest_CreatableTopic, &t);
    for (int i = 0; i < 2; i++) VV_STRUCT_INIT(CreateTopicsRequest_CreatableTopicConfig, &c[i]);
    c[0].Name = VV_STR_LIT("segment.bytes");
    c[0].Value = VV_STR_LIT("65536");
    c[1].Name = VV_STR_LIT("local.retention.bytes");
    c[1].Value = VV_STR_LIT("1");
    q.TimeoutMs = 10000;
    q.Topics.v = &t;
    q.Topics.n = 1;
    t.Name = VV_STR_LIT("cold");
    t.NumPartitions = 1;
    t.ReplicationFactor = 1;
    t.Configs.v = c;
    t.Configs.n = 2;
    const struct CreateTopicsResponse *r = peer_call(a, CREATE_TOPICS, 7, &q);
    assert_int_equal(r->Topics.v[0].ErrorCode, 0);
    id = r->Topics.v[0].TopicId;
}

/* One record per batch; record i has timestamp FIRST_TS + i. Ends when all that can be is in the bucket alone. */
static int group_setup(void **state)
{
    if (rig_start(state)) return -1;
    a = peer_new();
    create_topic();
    for (int i = 0; i < BATCHES; i++) assert_int_equal(produce(a, "cold", 0, 1, FIRST_TS + i, VALUE), i);
    while (list(8, -4, NULL) < BATCHES / 2) {
    } /* earliest local */
    while (list(9, -5, NULL) + 1 < list(8, -4, NULL)) {
    } /* latest tiered */
    return 0;
}

static int group_teardown(void **state)
{
    peer_free(a);
    return rig_stop(state);
}

/* The offsets in a partition's records, which must begin at from and be whole batches without a gap. The next one. */
static int64_t follow(const struct FetchResponse_PartitionData *d, int64_t from)
{
    assert_int_equal(d->ErrorCode, 0);
    assert_int_equal(d->HighWatermark, BATCHES);
    assert_int_equal(d->LogStartOffset, 0);
    for (size_t at = 0, n = (size_t)VV_MAX(d->Records.n, 0); at < n;) {
        struct vv_batch b;
        assert_int_equal(vv_batch_parse(d->Records.p + at, n - at, &b), 0);
        assert_true(vv_batch_crc_ok(d->Records.p + at, &b));
        assert_int_equal(b.base_offset, from);
        assert_int_equal(b.base_ts, FIRST_TS + from);
        from = vv_batch_last(&b) + 1;
        at += b.bytes;
    }
    return from;
}

static int read_all(int32_t partition_max, int32_t max, int32_t wait_ms, int8_t isolation)
{
    struct one_fetch o;
    int fetches = 0;
    for (int64_t at = 0; at < BATCHES; fetches++) {
        fetch_init(&o, "cold", id, 1);
        o.q.MaxWaitMs = wait_ms;
        o.q.MaxBytes = max;
        o.q.IsolationLevel = isolation;
        o.d[0].PartitionMaxBytes = partition_max;
        o.d[0].FetchOffset = at;
        at = follow(only(peer_call(a, FETCH, 13, &o.q)), at);
    }
    return fetches;
}

static void everything_is_read_in_order(void **state)
{
    (void)state;
    assert_true(read_all(1 << 20, 1 << 20, 10000, 0) < BATCHES);
    assert_true(read_all(1 << 20, 1 << 20, 10000, 1) < BATCHES);
    assert_true(read_all(10000, 1 << 20, 10000, 0) < BATCHES);
    assert_int_equal(read_all(1, 1 << 20, 10000, 0), BATCHES); /* a batch at a time */
    assert_int_equal(read_all(1 << 20, 1, 10000, 0), BATCHES);
}

static void no_time_to_wait_is_no_error(void **state)
{
    (void)state;
    assert_true(read_all(20000, 1 << 20, 0, 0) >= BATCHES * VALUE / 20000);
}

static void an_answer_crosses_the_border(void **state)
{
    (void)state;
    struct one_fetch o;
    int64_t local = list(8, -4, NULL), from = local - 2;
    fetch_init(&o, "cold", id, 1);
    o.q.MaxWaitMs = 10000;
    o.d[0].FetchOffset = from;
    assert_int_equal(follow(only(peer_call(a, FETCH, 13, &o.q)), from), BATCHES);
}

static void cold_and_hot_in_one_fetch(void **state)
{
    (void)state;
    struct vv_uuid hot = topic(a, "hot");
    produce(a, "hot", 1, 1, 1, 10);
    struct FetchRequest q;
    struct FetchRequest_FetchTopic t[2];
    struct one_fetch cold, warm;
    fetch_init(&cold, "cold", id, 1);
    fetch_init(&warm, "hot", hot, 3);
    q = cold.q;
    t[0] = cold.t;
    t[1] = warm.t;
    q.Topics.v = t;
    q.Topics.n = 2;
    q.MaxWaitMs = 50000;
    const struct FetchResponse *r = peer_call(a, FETCH, 13, &q);
    assert_int_equal(r->Responses.n, 2);
    follow(&r->Responses.v[0].Partitions.v[0], 0); /* perhaps nothing yet: hot data does not wait for it */
    assert_true(r->Responses.v[1].Partitions.v[1].Records.n > 0);
}

static void many_peers_leave_cold_reads(void **state)
{
    (void)state;
    struct one_fetch o;
    for (int i = 0; i < 30; i++) {
        struct peer *gone = peer_new();
        fetch_init(&o, "cold", id, 1);
        o.q.MaxWaitMs = 50000;
        o.q.MinBytes = 1 << 30;
        o.d[0].FetchOffset = i;
        peer_send(gone, FETCH, 13, &o.q);
        peer_free(gone);
    }
    read_all(1 << 20, 1 << 20, 10000, 0);
}

static void offsets_by_time(void **state)
{
    (void)state;
    int64_t ts = -1, local = list(8, -4, NULL);
    for (int i = 0; i < BATCHES; i += 7) {
        assert_int_equal(list(7, FIRST_TS + i, &ts), i);
        assert_int_equal(ts, FIRST_TS + i);
    }
    assert_int_equal(list(7, 0, NULL), 0);
    assert_int_equal(list(7, FIRST_TS + BATCHES, NULL), -1);
    assert_int_equal(list(7, -3, &ts), BATCHES - 1);
    assert_int_equal(ts, FIRST_TS + BATCHES - 1);
    assert_int_equal(list(7, -2, NULL), 0);
    assert_true(list(9, -5, NULL) >= local - 1);
    assert_int_equal(list(11, -6, NULL), VV_MAX(list(9, -5, NULL) + 1, local));
}

/* As kafka-configs does it; NULL takes it back. */
static void limit_cold_reads(const char *bytes_per_second)
{
    struct IncrementalAlterConfigsRequest_AlterableConfig c = {VV_STR_LIT("tier.client.fetch.max.bytes.per.second"),
                                                               bytes_per_second ? 0 : 1, vv_str_c(bytes_per_second)};
    struct IncrementalAlterConfigsRequest_AlterConfigsResource broker = {4, VV_STR_LIT("1"), {&c, 1}};
    struct IncrementalAlterConfigsRequest q = {.Resources = {&broker, 1}};
    const struct IncrementalAlterConfigsResponse *r = peer_call(a, INCREMENTAL_ALTER_CONFIGS, 1, &q);
    assert_int_equal(r->Responses.v[0].ErrorCode, 0);
}

static int32_t cold_bytes(int64_t from, int32_t wait_ms)
{
    struct one_fetch o;
    fetch_init(&o, "cold", id, 1);
    o.q.MaxWaitMs = wait_ms;
    o.d[0].FetchOffset = from;
    const struct FetchResponse *r = peer_call(a, FETCH, 13, &o.q);
    assert_int_equal(r->ThrottleTimeMs, 0); /* the connection is not held back: hot partitions go on */
    follow(only(r), from);
    return only(r)->Records.n;
}

/* A limit of R lets R * 10 bytes go at once, three batches here; the second read goes above it. */
static void cold_reads_have_a_quota(void **state)
{
    (void)state;
    int32_t all = cold_bytes(0, 10000);
    limit_cold_reads("1000");
    int32_t first = cold_bytes(0, 10000);
    assert_true(first > 2 * VALUE && first <= 10000 && first < all);
    assert_int_equal(cold_bytes(0, 10000), first);
    assert_int_equal(cold_bytes(0, 0), 0); /* no error: not yet */
    assert_int_equal(list(7, FIRST_TS + 7, NULL), 7); /* a search by time is not a replay */
    limit_cold_reads("1840");
    assert_true(cold_bytes(0, 50000) > 0); /* waits a moment in the fetch, then goes on by itself */
    limit_cold_reads(NULL);
    assert_int_equal(cold_bytes(0, 10000), all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read_in_order),  cmocka_unit_test(no_time_to_wait_is_no_error),
        cmocka_unit_test(an_answer_crosses_the_border), cmocka_unit_test(cold_and_hot_in_one_fetch),
        cmocka_unit_test(many_peers_leave_cold_reads),  cmocka_unit_test(offsets_by_time),
        cmocka_unit_test(cold_reads_have_a_quota),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
