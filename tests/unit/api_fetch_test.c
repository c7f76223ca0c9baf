/* Fetch and ListOffsets of a whole broker, over a socket: every version, sessions, long polls, limits, errors. */
#include "api_rig.h"

static struct peer *a, *b;

static int setup(void **state)
{
    (void)state;
    a = peer_new();
    b = peer_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    peer_free(a);
    peer_free(b);
    return 0;
}

static void every_version_reads_the_same(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "versions");
    produce(a, "versions", 0, 3, 1000, 10);
    struct one_fetch o;
    int32_t bytes = 0;
    for (int16_t v = 4; v <= 18; v++) {
        fetch_init(&o, "versions", id, 1);
        const struct FetchResponse_PartitionData *d = only(peer_call(a, FETCH, v, &o.q));
        assert_int_equal(d->ErrorCode, 0);
        assert_int_equal(d->HighWatermark, 3);
        assert_int_equal(d->LastStableOffset, 3);
        assert_int_equal(d->LogStartOffset, v >= 5 ? 0 : -1);
        assert_int_equal(d->AbortedTransactions.n, -1);
        if (!bytes) bytes = d->Records.n;
        assert_true(bytes > 61);
        assert_int_equal(d->Records.n, bytes);
    }
    fetch_init(&o, "versions", id, 1);
    o.q.IsolationLevel = 1;
    const struct FetchResponse_PartitionData *d = only(peer_call(a, FETCH, 12, &o.q));
    assert_int_equal(d->AbortedTransactions.n, 0);
    assert_int_equal(d->Records.n, bytes);
}

static void a_parked_fetch_is_woken(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "parked");
    struct one_fetch o;
    fetch_init(&o, "parked", id, 3);
    o.q.MaxWaitMs = 50000;
    peer_send(a, FETCH, 13, &o.q);
    produce(b, "parked", 2, 1, 1, 1);
    const struct FetchResponse *r = peer_receive(a, FETCH, 13);
    assert_int_equal(r->Responses.n, 1);
    assert_int_equal(r->Responses.v[0].Partitions.n, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(r->Responses.v[0].Partitions.v[i].ErrorCode, 0);
        assert_int_equal(r->Responses.v[0].Partitions.v[i].Records.n > 0, i == 2);
    }
    /* min_bytes: two batches are needed for it */
    fetch_init(&o, "parked", id, 3);
    o.q.MaxWaitMs = 50000;
    o.q.MinBytes = r->Responses.v[0].Partitions.v[2].Records.n + 1;
    peer_send(a, FETCH, 13, &o.q);
    produce(b, "parked", 1, 1, 1, 1);
    r = peer_receive(a, FETCH, 13);
    assert_true(r->Responses.v[0].Partitions.v[1].Records.n > 0);
    assert_true(r->Responses.v[0].Partitions.v[2].Records.n > 0);
}

static void a_parked_fetch_times_out_empty(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "quiet");
    struct one_fetch o;
    fetch_init(&o, "quiet", id, 1);
    o.q.MaxWaitMs = 20;
    assert_int_equal(only(peer_call(a, FETCH, 13, &o.q))->Records.n, 0);
}

static void a_parked_fetch_hears_of_the_topics_end(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "doomed");
    struct one_fetch o;
    fetch_init(&o, "doomed", id, 1);
    o.q.MaxWaitMs = 50000;
    peer_send(a, FETCH, 13, &o.q);
    struct DeleteTopicsRequest q;
    struct vv_str name = VV_STR_LIT("doomed");
    VV_MSG_INIT(DeleteTopicsRequest, &q);
    q.TimeoutMs = 10000;
    q.TopicNames.v = &name;
    q.TopicNames.n = 1;
    const struct DeleteTopicsResponse *deleted = peer_call(b, DELETE_TOPICS, 5, &q);
    assert_int_equal(deleted->Responses.v[0].ErrorCode, 0);
    assert_int_equal(only(peer_receive(a, FETCH, 13))->ErrorCode, VV_UNKNOWN_TOPIC_ID);
}

static void a_parked_fetch_survives_its_peer(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "left");
    struct one_fetch o;
    fetch_init(&o, "left", id, 3);
    o.q.MaxWaitMs = 50000;
    o.q.SessionEpoch = 0;
    for (int i = 0; i < 20; i++) {
        struct peer *gone = peer_new();
        peer_send(gone, FETCH, 13, &o.q);
        peer_free(gone);
        produce(b, "left", i % 3, 1, 1, 1);
    }
    o.q.MaxWaitMs = 0;
    o.d[0].FetchOffset = 7;
    o.t.Partitions.n = 1;
    assert_int_equal(only(peer_call(b, FETCH, 13, &o.q))->HighWatermark, 7);
}

/* Without a session a near client's partitions take turns to be the first: here it is the given one's, of n. */
static const struct FetchResponse *fetch_from(struct one_fetch *o, int32_t first, int32_t n)
{
    a->correlation += n - a->correlation % n + first - 1;
    return peer_call(a, FETCH, 13, &o->q);
}

static void limits(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "limits");
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 4; k++) produce(a, "limits", i, 1, 1, 1000);
    struct one_fetch o;
    fetch_init(&o, "limits", id, 3);
    const struct FetchResponse *r = fetch_from(&o, 0, 3);
    int32_t all = r->Responses.v[0].Partitions.v[0].Records.n, one = all / 4;
    assert_true(one > 1000 && all == one * 4);

    o.q.MaxBytes = 1; /* one whole batch of the first partition, nothing of the others */
    r = fetch_from(&o, 0, 3);
    assert_int_equal(r->Responses.v[0].Partitions.v[0].Records.n, one);
    assert_int_equal(r->Responses.v[0].Partitions.v[1].Records.n, 0);
    assert_int_equal(r->Responses.v[0].Partitions.v[2].Records.n, 0);

    fetch_init(&o, "limits", id,
               3); /* per partition: two batches and a bit; the first may pass the limit, the others not */
    o.d[0].PartitionMaxBytes = 1;
    o.d[1].PartitionMaxBytes = one * 2 + 10;
    o.d[2].PartitionMaxBytes = 1;
    r = fetch_from(&o, 0, 3);
    assert_int_equal(r->Responses.v[0].Partitions.v[0].Records.n, one);
    assert_int_equal(r->Responses.v[0].Partitions.v[1].Records.n, 2 * one);
    assert_int_equal(r->Responses.v[0].Partitions.v[2].Records.n, 0);

    fetch_init(&o, "limits", id, 3); /* of the whole answer */
    o.q.MaxBytes = all + one;
    r = fetch_from(&o, 0, 3);
    assert_int_equal(r->Responses.v[0].Partitions.v[0].Records.n, all);
    assert_int_equal(r->Responses.v[0].Partitions.v[1].Records.n, one);
    assert_int_equal(r->Responses.v[0].Partitions.v[2].Records.n, 0);
}

static int32_t got(const struct FetchResponse *r, int partition)
{
    return r->Responses.v[0].Partitions.v[partition].Records.n;
}

/* The rig's clients are near: what is in memory comes in pieces of 1 MiB, but for those who want more. */
static void near_clients_get_a_mebibyte_at_a_time(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "near");
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 4; k++) produce(a, "near", i, 50, 1, 4000);
    struct one_fetch o;
    fetch_init(&o, "near", id, 3);
    const struct FetchResponse *r = fetch_from(&o, 0, 3);
    int32_t one = got(r, 0) / 4;
    assert_true(one > 200000 && one * 5 < 1 << 20);
    assert_int_equal(got(r, 0), one * 4);
    assert_int_equal(got(r, 1), one);
    assert_int_equal(got(r, 2), 0);

    r = fetch_from(&o, 2, 3);
    assert_int_equal(got(r, 2), one * 4);
    assert_int_equal(got(r, 0), one);
    assert_int_equal(got(r, 1), 0);

    o.q.MinBytes = 64 << 10;
    assert_int_equal(got(fetch_from(&o, 0, 3), 1), one);
    o.q.MinBytes++;
    r = peer_call(a, FETCH, 13, &o.q);
    assert_int_equal(got(r, 1), one * 4);
    assert_int_equal(got(r, 2), one * 4);

    id = topic(a, "large"); /* only whole batches; what is small and behind them still fits */
    for (int k = 0; k < 2; k++) produce(a, "large", 0, 200, 1, 4000);
    produce(a, "large", 1, 1, 1, 1000);
    fetch_init(&o, "large", id, 3);
    r = fetch_from(&o, 0, 3);
    assert_true(got(r, 0) > 800000 && got(r, 0) < 1 << 20);
    assert_true(got(r, 1) > 1000);
}

/* What is in memory and allowed is not waited for: a batch that is only too large beside the little that there is already. */
static void near_clients_get_a_large_batch_behind_a_small_one(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "behind");
    produce(a, "behind", 0, 15, 1, 4000);
    produce(a, "behind", 1, 250, 1, 4000);
    struct one_fetch o;
    fetch_init(&o, "behind", id, 2);
    o.q.MinBytes = 64 << 10;
    o.q.MaxWaitMs = 50000;
    const struct FetchResponse *r = fetch_from(&o, 0, 2);
    assert_in_range(got(r, 0), 60000, (64 << 10) - 1);
    assert_in_range(got(r, 1), (1 << 20) - got(r, 0) + 1, 1 << 20);

    o.q.MinBytes = 1;
    o.d[1].PartitionMaxBytes = got(r, 1) - 1; /* the client's own limit holds */
    r = fetch_from(&o, 0, 2);
    assert_in_range(got(r, 0), 60000, (64 << 10) - 1);
    assert_int_equal(got(r, 1), 0);
}

static int16_t fetch_error(struct one_fetch *o, int16_t version)
{
    return only(peer_call(a, FETCH, version, &o->q))->ErrorCode;
}

static void errors(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "errors");
    produce(a, "errors", 0, 5, 1, 1);
    struct one_fetch o;
    fetch_init(&o, "errors", id, 1);
    o.d[0].FetchOffset = 6;
    const struct FetchResponse_PartitionData *d = only(peer_call(a, FETCH, 13, &o.q));
    assert_int_equal(d->ErrorCode, VV_OFFSET_OUT_OF_RANGE);
    assert_int_equal(d->HighWatermark, 5);
    assert_int_equal(d->LogStartOffset, 0);
    o.d[0].FetchOffset = 5;
    assert_int_equal(fetch_error(&o, 13), 0);
    o.d[0].FetchOffset = -1;
    assert_int_equal(fetch_error(&o, 13), VV_OFFSET_OUT_OF_RANGE);
    fetch_init(&o, "errors", id, 1);
    o.d[0].Partition = 3;
    assert_int_equal(fetch_error(&o, 13), VV_UNKNOWN_TOPIC_OR_PARTITION);
    fetch_init(&o, "nowhere", (struct vv_uuid){{1, 2, 3}}, 1);
    assert_int_equal(fetch_error(&o, 13), VV_UNKNOWN_TOPIC_ID);
    assert_int_equal(fetch_error(&o, 12), VV_UNKNOWN_TOPIC_OR_PARTITION);
    fetch_init(&o, "errors", id, 1);
    o.d[0].CurrentLeaderEpoch = 1000;
    assert_int_equal(fetch_error(&o, 12), VV_UNKNOWN_LEADER_EPOCH);
    fetch_init(&o, "errors", id, 1);
    o.q.ReplicaId = 7;
    assert_int_equal(fetch_error(&o, 12), VV_NOT_LEADER_OR_FOLLOWER);
    fetch_init(&o, "errors", id, 1);
    o.q.ReplicaState.ReplicaId = 7;
    assert_int_equal(fetch_error(&o, 16), VV_NOT_LEADER_OR_FOLLOWER);
}

static void epochs(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "epochs");
    produce(a, "epochs", 0, 5, 1, 1);
    struct OffsetForLeaderEpochRequest q;
    struct OffsetForLeaderEpochRequest_OffsetForLeaderTopic t;
    struct OffsetForLeaderEpochRequest_OffsetForLeaderPartition p;
    VV_MSG_INIT(OffsetForLeaderEpochRequest, &q);
    VV_STRUCT_INIT(OffsetForLeaderEpochRequest_OffsetForLeaderTopic, &t);
    VV_STRUCT_INIT(OffsetForLeaderEpochRequest_OffsetForLeaderPartition, &p);
    q.Topics.v = &t;
    q.Topics.n = t.Partitions.n = 1;
    t.Topic = VV_STR_LIT("epochs");
    t.Partitions.v = &p;
    struct MetadataRequest mq;
    VV_MSG_INIT(MetadataRequest, &mq);
    mq.Topics.n = -1;
    const struct MetadataResponse *m = peer_call(a, METADATA, 9, &mq);
    int32_t ours = -1;
    for (int32_t i = 0; i < m->Topics.n; i++)
        if (vv_str_is(m->Topics.v[i].Name, "epochs")) ours = m->Topics.v[i].Partitions.v[0].LeaderEpoch;
    assert_true(ours >= 0);
    for (int16_t v = 2; v <= 4; v++) {
        p.CurrentLeaderEpoch = p.LeaderEpoch = ours;
        const struct OffsetForLeaderEpochResponse *r = peer_call(a, EPOCHS, v, &q);
        assert_int_equal(r->Topics.v[0].Partitions.v[0].ErrorCode, 0);
        assert_int_equal(r->Topics.v[0].Partitions.v[0].LeaderEpoch, ours);
        assert_int_equal(r->Topics.v[0].Partitions.v[0].EndOffset, 5);
        p.CurrentLeaderEpoch = ours + 1;
        r = peer_call(a, EPOCHS, v, &q);
        assert_int_equal(r->Topics.v[0].Partitions.v[0].ErrorCode, VV_UNKNOWN_LEADER_EPOCH);
    }
    struct one_fetch o; /* a client that has more of our epoch than we have */
    fetch_init(&o, "epochs", id, 1);
    o.d[0].CurrentLeaderEpoch = o.d[0].LastFetchedEpoch = ours;
    o.d[0].FetchOffset = 5;
    const struct FetchResponse_PartitionData *d = only(peer_call(a, FETCH, 13, &o.q));
    assert_int_equal(d->ErrorCode, 0);
    assert_int_equal(d->DivergingEpoch.Epoch, -1);
    o.d[0].FetchOffset = 9;
    d = only(peer_call(a, FETCH, 13, &o.q));
    assert_int_equal(d->DivergingEpoch.Epoch, ours);
    assert_int_equal(d->DivergingEpoch.EndOffset, 5);
    assert_int_equal(d->Records.n, 0);
}

/* ---- sessions ---- */

static void sessions_tell_changes_only(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "session");
    produce(a, "session", 0, 1, 1, 1);
    struct one_fetch o;
    fetch_init(&o, "session", id, 3);
    o.q.SessionEpoch = 0;
    const struct FetchResponse *r = peer_call(a, FETCH, 13, &o.q);
    int32_t session = r->SessionId;
    assert_true(session > 0);
    assert_int_equal(r->Responses.v[0].Partitions.n, 3); /* the first answer tells everything */

    o.t.Partitions.n = 1; /* partition 0 has been read up to 1 */
    o.d[0].FetchOffset = 1;
    o.q.SessionId = session;
    o.q.SessionEpoch = 1;
    r = peer_call(a, FETCH, 13, &o.q);
    assert_int_equal(r->ErrorCode, 0);
    assert_int_equal(r->SessionId, session);
    assert_int_equal(r->Responses.n, 0);

    produce(b, "session", 2, 1, 1, 1);
    o.q.Topics.n = 0;
    o.q.SessionEpoch = 2;
    r = peer_call(a, FETCH, 13, &o.q);
    assert_int_equal(only(r)->PartitionIndex, 2);
    assert_true(only(r)->Records.n > 0);

    o.q.SessionEpoch = 2; /* again: not the next one */
    r = peer_call(a, FETCH, 13, &o.q);
    assert_int_equal(r->ErrorCode, VV_INVALID_FETCH_SESSION_EPOCH);

    struct FetchRequest_ForgottenTopic f;
    int32_t two = 2;
    VV_STRUCT_INIT(FetchRequest_ForgottenTopic, &f);
    f.TopicId = id;
    f.Partitions.v = &two;
    f.Partitions.n = 1;
    o.q.ForgottenTopicsData.v = &f;
    o.q.ForgottenTopicsData.n = 1;
    o.q.SessionEpoch = 3;
    r = peer_call(a, FETCH, 13, &o.q);
    assert_int_equal(r->ErrorCode, 0);
    assert_int_equal(r->Responses.n, 0); /* 2 has unread records, but is forgotten */

    o.q.ForgottenTopicsData.n = 0;
    o.q.SessionEpoch = 4;
    r = peer_call(a, FETCH, 12, &o.q); /* a session goes by ids or by names, not both */
    assert_int_equal(r->ErrorCode, VV_FETCH_SESSION_TOPIC_ID_ERROR);

    fetch_init(&o, "session", id, 3); /* epoch -1 closes it */
    o.q.SessionId = session;
    assert_int_equal(((const struct FetchResponse *)peer_call(a, FETCH, 13, &o.q))->SessionId, 0);
    o.q.SessionEpoch = 4;
    r = peer_call(a, FETCH, 13, &o.q);
    assert_int_equal(r->ErrorCode, VV_FETCH_SESSION_ID_NOT_FOUND);
}

static void sessions_take_turns(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "turns");
    for (int i = 0; i < 3; i++) produce(a, "turns", i, 1, 1, 1000);
    struct one_fetch o;
    fetch_init(&o, "turns", id, 3);
    o.q.SessionEpoch = 0;
    o.q.MaxBytes = 1; /* one batch per answer */
    unsigned served = 0;
    const struct FetchResponse *r = peer_call(a, FETCH, 13, &o.q);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < r->Responses.n; k++)
            for (int j = 0; j < r->Responses.v[k].Partitions.n; j++)
                if (r->Responses.v[k].Partitions.v[j].Records.n > 0)
                    served |= 1u << r->Responses.v[k].Partitions.v[j].PartitionIndex;
        o.q.Topics.n = 0; /* the client says nothing new: it is given other partitions all the same */
        o.q.SessionId = r->SessionId;
        o.q.SessionEpoch = i + 1;
        r = peer_call(a, FETCH, 13, &o.q);
    }
    assert_int_equal(served, 7);
}

static void sessions_are_bounded(void **state)
{
    (void)state;
    struct vv_uuid id = topic(a, "bounded");
    struct one_fetch o;
    int made = 0;
    for (int i = 0; i < 60; i++) {
        fetch_init(&o, "bounded", id, 1);
        o.q.SessionEpoch = 0;
        const struct FetchResponse *r = peer_call(a, FETCH, 13, &o.q);
        assert_int_equal(r->ErrorCode, 0);
        made += r->SessionId != 0;
    }
    assert_in_range(made, 1, 32);
}

/* ---- offsets ---- */

static const struct ListOffsetsResponse_ListOffsetsPartitionResponse *list(const char *name, int32_t partition,
                                                                           int16_t version, int64_t ts)
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
    t.Name = vv_str_c(name);
    t.Partitions.v = &p;
    p.PartitionIndex = partition;
    p.Timestamp = ts;
    const struct ListOffsetsResponse *r = peer_call(a, LIST_OFFSETS, version, &q);
    return &r->Topics.v[0].Partitions.v[0];
}

static void offsets_by_time(void **state)
{
    (void)state;
    topic(a, "times");
    assert_int_equal(list("times", 0, 7, -3)->Offset, -1);
    assert_int_equal(list("times", 0, 7, 0)->Offset, -1);
    produce(a, "times", 0, 5, 1000, 1); /* 0..4: 1000..1004 */
    produce(a, "times", 0, 1, 5000, 1); /* 5 */
    produce(a, "times", 0, 3, 2000, 1); /* 6..8: out of order */
    for (int16_t v = 1; v <= 11; v++) {
        assert_int_equal(list("times", 0, v, -2)->Offset, 0);
        assert_int_equal(list("times", 0, v, -1)->Offset, 9);
        assert_int_equal(list("times", 0, v, 0)->Offset, 0);
        assert_int_equal(list("times", 0, v, 1003)->Offset, 3);
        assert_int_equal(list("times", 0, v, 1003)->Timestamp, 1003);
        assert_int_equal(list("times", 0, v, 1005)->Offset, 5);
        assert_int_equal(list("times", 0, v, 5000)->Offset, 5);
        assert_int_equal(list("times", 0, v, 5001)->Offset, -1);
        assert_int_equal(list("times", 0, v, 5001)->ErrorCode, 0);
        assert_int_equal(list("times", 0, v, -3)->ErrorCode, v >= 7 ? 0 : VV_UNSUPPORTED_VERSION);
        assert_int_equal(list("times", 0, v, -4)->ErrorCode, v >= 8 ? 0 : VV_UNSUPPORTED_VERSION);
        assert_int_equal(list("times", 0, v, -5)->ErrorCode, v >= 9 ? 0 : VV_UNSUPPORTED_VERSION);
        assert_int_equal(list("times", 0, v, -6)->ErrorCode, v >= 11 ? 0 : VV_UNSUPPORTED_VERSION);
        assert_int_equal(list("times", 0, v, -7)->ErrorCode, VV_UNSUPPORTED_VERSION);
    }
    assert_int_equal(list("times", 0, 7, -3)->Offset, 5);
    assert_int_equal(list("times", 0, 7, -3)->Timestamp, 5000);
    assert_int_equal(list("times", 0, 8, -4)->Offset, 0);
    assert_int_equal(list("times", 0, 9, -5)->Offset, -1);
    assert_int_equal(list("times", 0, 11, -6)->Offset, 0);
    assert_int_equal(list("times", 9, 7, -1)->ErrorCode, VV_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(list("no-such-topic", 0, 7, -1)->ErrorCode, VV_UNKNOWN_TOPIC_OR_PARTITION);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(every_version_reads_the_same),
        T(a_parked_fetch_is_woken),
        T(a_parked_fetch_times_out_empty),
        T(a_parked_fetch_hears_of_the_topics_end),
        T(a_parked_fetch_survives_its_peer),
        T(limits),
        T(near_clients_get_a_mebibyte_at_a_time),
        T(near_clients_get_a_large_batch_behind_a_small_one),
        T(errors),
        T(epochs),
        T(sessions_tell_changes_only),
        T(sessions_take_turns),
        T(sessions_are_bounded),
        T(offsets_by_time),
    };
    return cmocka_run_group_tests(tests, rig_start, rig_stop);
}
