/* Dispatch, ApiVersions, Metadata and Produce of a whole broker, over a socket: versions, refusals, malformed requests.
 */
#include "api_rig.h"

static struct peer *a;

static int setup(void **state)
{
    (void)state;
    a = peer_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    peer_free(a);
    return 0;
}

/* ---- dispatch ---- */

static void versions_are_told(void **state)
{
    (void)state;
    struct ApiVersionsRequest q;
    VV_MSG_INIT(ApiVersionsRequest, &q);
    q.ClientSoftwareName = VV_STR_LIT("varve-test");
    q.ClientSoftwareVersion = VV_STR_LIT("1.0");
    for (int16_t v = 0; v <= 4; v++) {
        const struct ApiVersionsResponse *r = peer_call(a, API_VERSIONS, v, &q);
        assert_int_equal(r->ErrorCode, 0);
        assert_int_equal(r->FinalizedFeatures.n, 0);
        for (int32_t i = 0; i < r->ApiKeys.n; i++) {
            const struct vv_api *api = vv_api_by_key(r->ApiKeys.v[i].ApiKey);
            assert_non_null(vv_handler_find(api->key));
            assert_int_equal(r->ApiKeys.v[i].MinVersion, api->min);
            assert_int_equal(r->ApiKeys.v[i].MaxVersion, api->max);
        }
        assert_true(r->ApiKeys.n >= 20);
    }
    q.ClientSoftwareName = VV_STR_LIT("-bad name-");
    assert_int_equal(((const struct ApiVersionsResponse *)peer_call(a, API_VERSIONS, 3, &q))->ErrorCode,
                     VV_INVALID_REQUEST);
}

static void an_unknown_api_versions_version_is_answered(void **state)
{
    (void)state;
    peer_send(a, API_VERSIONS, 77, NULL);
    const struct ApiVersionsResponse *r = peer_receive(a, API_VERSIONS, 0);
    assert_int_equal(r->ErrorCode, VV_UNSUPPORTED_VERSION);
    assert_int_equal(r->ApiKeys.n, 1);
    assert_int_equal(r->ApiKeys.v[0].ApiKey, API_VERSIONS);
    assert_int_equal(r->ApiKeys.v[0].MaxVersion, 4);
    struct ApiVersionsRequest q; /* and the connection goes on */
    VV_MSG_INIT(ApiVersionsRequest, &q);
    assert_int_equal(((const struct ApiVersionsResponse *)peer_call(a, API_VERSIONS, 0, &q))->ErrorCode, 0);
}

static void what_is_not_served_closes(void **state)
{
    (void)state;
    static const struct {
        int16_t key, version;
    } cases[] = {{PRODUCE, 2}, {PRODUCE, 14}, {FETCH, 3}, {METADATA, -1}, {4, 0}, {999, 0}, {-1, 0}};
    for (size_t i = 0; i < VV_COUNT(cases); i++) {
        struct peer *p = peer_new();
        peer_send(p, cases[i].key, cases[i].version, NULL);
        assert_true(peer_closed(p));
        peer_free(p);
    }
}

static void what_is_malformed_closes(void **state)
{
    (void)state;
    struct MetadataRequest q;
    VV_MSG_INIT(MetadataRequest, &q);
    q.Topics.n = -1;
    struct peer *p = peer_new();
    peer_send_extra(p, METADATA, 9, &q, 1); /* a byte too many */
    assert_true(peer_closed(p));
    peer_free(p);
    static const uint8_t huge[] = {0, 0, 0, 18, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0};
    static const uint8_t brief[] = {0, 0, 0, 3, 0, 3, 0};
    p = peer_new();
    peer_write(p, huge, sizeof huge); /* 2^31-1 topics announced */
    assert_true(peer_closed(p));
    peer_free(p);
    p = peer_new();
    peer_write(p, brief, sizeof brief);
    assert_true(peer_closed(p));
    peer_free(p);
}

/* ---- metadata ---- */

static const struct MetadataResponse *ask(int16_t version, struct vv_str name, struct vv_uuid id, bool create)
{
    struct MetadataRequest q;
    struct MetadataRequest_MetadataRequestTopic t;
    VV_MSG_INIT(MetadataRequest, &q);
    VV_STRUCT_INIT(MetadataRequest_MetadataRequestTopic, &t);
    t.Name = name;
    t.TopicId = id;
    q.Topics.v = &t;
    q.Topics.n = 1;
    q.AllowAutoTopicCreation = create;
    return peer_call(a, METADATA, version, &q);
}

static void metadata_in_every_version(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "known"), zero = {{0}};
    struct MetadataRequest q;
    for (int16_t v = 0; v <= 13; v++) {
        VV_MSG_INIT(MetadataRequest, &q);
        q.Topics.n = v ? -1 : 0; /* all */
        const struct MetadataResponse *r = peer_call(a, METADATA, v, &q);
        bool seen = false;
        assert_int_equal(r->Brokers.n, 1);
        assert_int_equal(r->Brokers.v[0].Port, rig.port);
        assert_true(vv_str_is(r->Brokers.v[0].Host, "127.0.0.1"));
        if (v >= 1) assert_int_equal(r->ControllerId, r->Brokers.v[0].NodeId);
        if (v >= 2) assert_true(r->ClusterId.n > 0);
        for (int32_t i = 0; i < r->Topics.n; i++) seen |= vv_str_is(r->Topics.v[i].Name, "known");
        assert_true(seen);
        if (v) { /* none */
            q.Topics.n = 0;
            assert_int_equal(((const struct MetadataResponse *)peer_call(a, METADATA, v, &q))->Topics.n, 0);
        }
        r = ask(v, VV_STR_LIT("known"), zero, true);
        assert_int_equal(r->Topics.v[0].ErrorCode, 0);
        assert_int_equal(r->Topics.v[0].Partitions.n, 3);
        assert_int_equal(r->Topics.v[0].Partitions.v[2].PartitionIndex, 2);
        assert_int_equal(r->Topics.v[0].Partitions.v[2].IsrNodes.n, 1);
        if (v >= 10) assert_memory_equal(&r->Topics.v[0].TopicId, &id, sizeof id);
        if (v >= 8) assert_int_equal(r->Topics.v[0].TopicAuthorizedOperations, INT32_MIN);
        if (v >= 4)
            assert_int_equal(ask(v, VV_STR_LIT("absent"), zero, false)->Topics.v[0].ErrorCode,
                             VV_UNKNOWN_TOPIC_OR_PARTITION);
        assert_int_equal(ask(v, VV_STR_LIT("a/b"), zero, true)->Topics.v[0].ErrorCode, VV_INVALID_TOPIC_EXCEPTION);
    }
    const struct MetadataResponse *r = ask(12, VV_STR_NULL, id, false);
    assert_int_equal(r->Topics.v[0].ErrorCode, 0);
    assert_true(vv_str_is(r->Topics.v[0].Name, "known"));
    assert_int_equal(ask(12, VV_STR_NULL, (struct vv_uuid){{9}}, true)->Topics.v[0].ErrorCode, VV_UNKNOWN_TOPIC_ID);
    assert_int_equal(ask(10, VV_STR_NULL, id, true)->Topics.v[0].ErrorCode, VV_INVALID_REQUEST);
    assert_int_equal(ask(12, VV_STR_LIT("__transaction_state"), zero, true)->Topics.v[0].ErrorCode,
                     VV_UNKNOWN_TOPIC_OR_PARTITION);
}

/* ---- produce ---- */

static const struct ProduceResponse_PartitionProduceResponse *send_one(struct one_produce *o, int16_t version)
{
    const struct ProduceResponse *r = peer_call(a, PRODUCE, version, &o->q);
    assert_int_equal(r->Responses.n, 1);
    assert_int_equal(r->Responses.v[0].PartitionResponses.n, 1);
    return &r->Responses.v[0].PartitionResponses.v[0];
}

static void produce_in_every_version(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "sink");
    struct vv_batch_builder *b = vv_batch_builder_new();
    struct one_produce o;
    int64_t next = 0;
    for (int16_t v = 3; v <= 13; v++)
        for (int16_t acks = -1; acks <= 1; acks++) {
            produce_init(&o, "sink", 0, batch(b, 2, 1, 10));
            o.t.TopicId = id;
            o.q.Acks = acks;
            next += 2;
            if (!acks) { /* no answer: the next one is that of the next request */
                peer_send(a, PRODUCE, v, &o.q);
                continue;
            }
            const struct ProduceResponse_PartitionProduceResponse *r = send_one(&o, v);
            assert_int_equal(r->ErrorCode, 0);
            assert_int_equal(r->BaseOffset, next - 2);
            assert_int_equal(r->LogAppendTimeMs, -1);
            if (v >= 5) assert_int_equal(r->LogStartOffset, 0);
        }
    vv_batch_builder_free(b);
}

static void produce_refusals(void **state)
{
    (void)state;
    topic(a, "refused");
    struct vv_batch_builder *b = vv_batch_builder_new(), *c = vv_batch_builder_new();
    struct one_produce o;
    struct vv_records good = batch(b, 1, 1, 10);
    produce_init(&o, "refused", 0, good);
    o.q.Acks = 2;
    assert_int_equal(send_one(&o, 9)->ErrorCode, VV_INVALID_REQUIRED_ACKS);
    produce_init(&o, "refused", 0, good);
    o.q.TransactionalId = VV_STR_LIT("tx");
    assert_int_equal(send_one(&o, 9)->ErrorCode, VV_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    produce_init(&o, "refused", 3, good);
    assert_int_equal(send_one(&o, 9)->ErrorCode, VV_UNKNOWN_TOPIC_OR_PARTITION);
    produce_init(&o, "nobody-made-this", 0, good);
    assert_int_equal(send_one(&o, 9)->ErrorCode, VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(send_one(&o, 13)->ErrorCode, VV_UNKNOWN_TOPIC_ID);
    produce_init(&o, "refused", 0, (struct vv_records){(const uint8_t *)"", 0, NULL});
    assert_int_equal(send_one(&o, 9)->ErrorCode, VV_INVALID_RECORD);
    produce_init(&o, "refused", 0, (struct vv_records){(const uint8_t *)"", -1, NULL});
    assert_int_equal(send_one(&o, 9)->ErrorCode, VV_INVALID_RECORD);

    uint8_t two[512];
    memcpy(two, good.p, (size_t)good.n);
    memcpy(two + good.n, good.p, (size_t)good.n);
    produce_init(&o, "refused", 0, (struct vv_records){two, good.n * 2, NULL});
    assert_int_equal(send_one(&o, 9)->ErrorCode, VV_INVALID_RECORD);
    two[good.n - 1] ^= 1; /* a flipped bit */
    produce_init(&o, "refused", 0, (struct vv_records){two, good.n, NULL});
    const struct ProduceResponse_PartitionProduceResponse *r = send_one(&o, 9);
    assert_int_equal(r->ErrorCode, VV_CORRUPT_MESSAGE);
    assert_int_equal(r->BaseOffset, -1);
    assert_true(r->ErrorMessage.n > 0);
    int64_t far = (int64_t)9 * 1000 * 1000 * 1000 * 1000;
    produce_init(&o, "refused", 0, batch(c, 2, far, 10));
    r = send_one(&o, 9);
    assert_int_equal(r->ErrorCode, VV_INVALID_TIMESTAMP);
    assert_int_equal(r->RecordErrors.n, 1);
    assert_int_equal(r->RecordErrors.v[0].BatchIndex, 0);
    assert_int_equal(produce(a, "refused", 0, 1, 1, 10), 0); /* nothing of all that is in the log */
    vv_batch_builder_free(b);
    vv_batch_builder_free(c);
}

static void failed_acks_0_closes(void **state)
{
    (void)state;
    struct vv_batch_builder *b = vv_batch_builder_new();
    struct one_produce o;
    produce_init(&o, "nobody-made-this", 0, batch(b, 1, 1, 10));
    o.q.Acks = 0;
    peer_send(a, PRODUCE, 9, &o.q);
    assert_true(peer_closed(a));
    vv_batch_builder_free(b);
}

/* Changes a batch's header and makes it whole again. */
static struct vv_records forge(uint8_t *p, struct vv_records r, int16_t attributes, int64_t producer, int32_t sequence)
{
    memcpy(p, r.p, (size_t)r.n);
    vv_put16(p + 21, (uint16_t)attributes);
    vv_put64(p + 43, (uint64_t)producer);
    vv_put16(p + 51, producer < 0 ? UINT16_MAX : 0);
    vv_put32(p + 53, (uint32_t)sequence);
    vv_put32(p + 17, vv_crc32c(0, p + 21, (size_t)r.n - 21));
    return (struct vv_records){p, r.n, NULL};
}

static void idempotence(void **state)
{
    (void)state;
    topic(a, "once");
    struct vv_batch_builder *b = vv_batch_builder_new();
    struct vv_records two = batch(b, 2, 1, 10);
    struct one_produce o;
    uint8_t bytes[512];
    static const struct {
        int32_t sequence;
        int16_t error;
        int64_t offset;
    } steps[] = {
        {0, 0, 0}, {0, 0, 0}, /* again: the same place */
        {2, 0, 2}, {4, 0, 4}, {2, 0, 2}, {9, VV_OUT_OF_ORDER_SEQUENCE_NUMBER, -1}, {6, 0, 6},
    };
    for (size_t i = 0; i < VV_COUNT(steps); i++) {
        produce_init(&o, "once", 0, forge(bytes, two, 0, 77000, steps[i].sequence));
        const struct ProduceResponse_PartitionProduceResponse *r = send_one(&o, 9);
        assert_int_equal(r->ErrorCode, steps[i].error);
        assert_int_equal(r->BaseOffset, steps[i].offset);
    }
    vv_batch_builder_free(b);
}

static void commit_offset(void)
{
    struct OffsetCommitRequest q;
    struct OffsetCommitRequest_OffsetCommitRequestTopic t;
    struct OffsetCommitRequest_OffsetCommitRequestPartition p;
    VV_MSG_INIT(OffsetCommitRequest, &q);
    VV_STRUCT_INIT(OffsetCommitRequest_OffsetCommitRequestTopic, &t);
    VV_STRUCT_INIT(OffsetCommitRequest_OffsetCommitRequestPartition, &p);
    q.GroupId = VV_STR_LIT("g");
    q.Topics.v = &t;
    q.Topics.n = t.Partitions.n = 1;
    t.Name = VV_STR_LIT("plain");
    t.Partitions.v = &p;
    const struct OffsetCommitResponse *r = peer_call(a, 8, 2, &q);
    assert_int_equal(r->Topics.v[0].Partitions.v[0].ErrorCode, 0);
}

static void what_a_client_may_not_write(void **state)
{
    (void)state;
    enum { ZSTD = 4, TRANSACTIONAL = 16, CONTROL = 32 };
    topic(a, "plain");
    struct vv_batch_builder *b = vv_batch_builder_new();
    struct vv_records good = batch(b, 1, 1, 10);
    struct one_produce o;
    uint8_t bytes[512];
    produce_init(&o, "plain", 0, forge(bytes, good, TRANSACTIONAL, 5, 0));
    assert_int_equal(send_one(&o, 9)->ErrorCode, VV_INVALID_TXN_STATE);
    produce_init(&o, "plain", 0, forge(bytes, good, TRANSACTIONAL | CONTROL, 5, 0));
    assert_int_equal(send_one(&o, 9)->ErrorCode, VV_INVALID_RECORD);
    produce_init(&o, "plain", 0, forge(bytes, good, ZSTD, -1, -1)); /* says zstd, is not */
    assert_int_not_equal(send_one(&o, 9)->ErrorCode, 0);
    commit_offset(); /* makes __consumer_offsets */
    produce_init(&o, "__consumer_offsets", 0, good);
    assert_int_equal(send_one(&o, 9)->ErrorCode, VV_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(produce(a, "plain", 0, 1, 1, 10), 0); /* nothing of all that is in the log */
    vv_batch_builder_free(b);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(versions_are_told),
        T(an_unknown_api_versions_version_is_answered),
        T(what_is_not_served_closes),
        T(what_is_malformed_closes),
        T(metadata_in_every_version),
        T(produce_in_every_version),
        T(produce_refusals),
        T(failed_acks_0_closes),
        T(idempotence),
        T(what_a_client_may_not_write),
    };
    return cmocka_run_group_tests(tests, rig_start, rig_stop);
}
