/* The cache of fetch sessions: bounds, eviction, epochs, order of service, use by one request at a time. */
#include "fetch_session.h"
#include "varve/error.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

static struct FetchRequest_FetchPartition parts[2000];
static struct FetchRequest_FetchTopic t;
static struct FetchRequest q;

/* Asks for n partitions of topic "t". */
static void ask(int32_t n, int32_t session, int32_t epoch)
{
    VV_MSG_INIT(FetchRequest, &q);
    VV_STRUCT_INIT(FetchRequest_FetchTopic, &t);
    q.SessionId = session;
    q.SessionEpoch = epoch;
    q.Topics.v = &t;
    q.Topics.n = n ? 1 : 0;
    t.Topic = VV_STR_LIT("t");
    t.Partitions.v = parts;
    t.Partitions.n = n;
    for (int32_t i = 0; i < n; i++) {
        VV_STRUCT_INIT(FetchRequest_FetchPartition, &parts[i]);
        parts[i].Partition = i;
    }
}

static int32_t make(int32_t n, size_t slots, int64_t now_ms)
{
    struct vv_fetch_session *s;
    ask(n, 0, 0);
    assert_int_equal(vv_fetch_session_begin(&q, false, slots, now_ms, &s), 0);
    if (!s) return 0;
    int32_t id = vv_fetch_session_id(s);
    assert_int_equal(vv_fetch_session_count(s), (size_t)n);
    vv_fetch_session_end(s);
    return id;
}

static int go_on(int32_t id, int32_t epoch, int64_t now_ms)
{
    struct vv_fetch_session *s;
    ask(0, id, epoch);
    int err = vv_fetch_session_begin(&q, false, 10, now_ms, &s);
    if (s) vv_fetch_session_end(s);
    return err;
}

static int clear(void **state)
{
    (void)state;
    vv_fetch_sessions_clear();
    assert_int_equal(vv_fetch_sessions_cached(), 0);
    return 0;
}

static void a_full_cache_keeps_who_is_active(void **state)
{
    (void)state;
    int32_t first = make(3, 2, 0), second = make(3, 2, 1);
    assert_true(first && second && first != second);
    assert_int_equal(make(3, 2, 2), 0); /* same size, both fresh: refused */
    assert_int_equal(go_on(first, 1, 130000), 0);
    int32_t third = make(1, 2, 130001); /* second was silent for two minutes */
    assert_true(third);
    assert_int_equal(go_on(second, 1, 130002), VV_FETCH_SESSION_ID_NOT_FOUND);
    assert_int_equal(go_on(first, 2, 130003), 0);
    assert_true(make(3, 2, 130004)); /* third is smaller */
    assert_int_equal(go_on(third, 1, 130005), VV_FETCH_SESSION_ID_NOT_FOUND);
    assert_int_equal(vv_fetch_sessions_cached(), 2);
    assert_int_equal(make(1, 0, 0), 0); /* none allowed: none made, none lost but to make room */
}

static void epochs_count(void **state)
{
    (void)state;
    int32_t id = make(2, 10, 0);
    assert_int_equal(go_on(id, 2, 0), VV_INVALID_FETCH_SESSION_EPOCH);
    for (int32_t e = 1; e < 10; e++) assert_int_equal(go_on(id, e, 0), 0);
    assert_int_equal(go_on(id, 9, 0), VV_INVALID_FETCH_SESSION_EPOCH);
    struct vv_fetch_session *s;
    ask(2, id, -1); /* the end */
    assert_int_equal(vv_fetch_session_begin(&q, false, 10, 0, &s), 0);
    assert_null(s);
    assert_int_equal(vv_fetch_sessions_cached(), 0);
}

static void one_request_at_a_time(void **state)
{
    (void)state;
    struct vv_fetch_session *s, *other;
    ask(2, 0, 0);
    assert_int_equal(vv_fetch_session_begin(&q, false, 10, 0, &s), 0);
    int32_t id = vv_fetch_session_id(s);
    assert_int_equal(go_on(id, 1, 0), VV_INVALID_FETCH_SESSION_EPOCH);
    ask(2, id,
        0); /* the client starts over on another connection: the old one is out of the cache, its user still has it */
    assert_int_equal(vv_fetch_session_begin(&q, false, 10, 0, &other), 0);
    assert_non_null(other);
    assert_int_equal(vv_fetch_sessions_cached(), 1);
    assert_int_equal(vv_fetch_session_count(s), 2);
    vv_fetch_session_end(s);
    vv_fetch_session_end(other);
}

static void partitions_come_and_go(void **state)
{
    (void)state;
    struct vv_fetch_session *s;
    int32_t id = make(2000, 10, 0), gone[3] = {0, 1999, 5000}; /* the last one was never there */
    struct FetchRequest_ForgottenTopic f;
    VV_STRUCT_INIT(FetchRequest_ForgottenTopic, &f);
    f.Topic = VV_STR_LIT("t");
    f.Partitions.v = gone;
    f.Partitions.n = 3;
    ask(1, id, 1);
    parts[0].Partition = 7;
    parts[0].FetchOffset = 42;
    q.ForgottenTopicsData.v = &f;
    q.ForgottenTopicsData.n = 1;
    assert_int_equal(vv_fetch_session_begin(&q, false, 10, 0, &s), 0);
    assert_int_equal(vv_fetch_session_count(s), 1998);
    int32_t at = 1;
    for (struct vv_session_part *p = vv_fetch_session_first(s); p; p = p->next, at++) {
        assert_int_equal(p->q.Partition, at);
        assert_int_equal(p->q.FetchOffset, at == 7 ? 42 : 0);
    }
    vv_fetch_session_to_end(s, vv_fetch_session_first(s));
    assert_int_equal(vv_fetch_session_first(s)->q.Partition, 2);
    vv_fetch_session_end(s);
    for (int32_t i = 0; i < 2000; i++) parts[i].Partition = i;
    int32_t all[2000];
    for (int32_t i = 0; i < 2000; i++) all[i] = i;
    f.Partitions.v = all;
    f.Partitions.n = 2000;
    ask(0, id, 2);
    q.ForgottenTopicsData.v = &f;
    q.ForgottenTopicsData.n = 1;
    assert_int_equal(vv_fetch_session_begin(&q, false, 10, 0, &s), 0);
    assert_null(s); /* nothing left: no session */
    assert_int_equal(vv_fetch_sessions_cached(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_full_cache_keeps_who_is_active, clear),
        cmocka_unit_test_teardown(epochs_count, clear),
        cmocka_unit_test_teardown(one_request_at_a_time, clear),
        cmocka_unit_test_teardown(partitions_come_and_go, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
