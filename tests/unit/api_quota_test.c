/* Client quotas of a whole broker, over a socket: set, told, refused, enforced on Produce and Fetch. */
#include "api_rig.h"

enum { DESCRIBE = 48, ALTER = 49, SCRAM = 50, RECORDS = 50, VALUE = 4000 };

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

#define ANYBODY VV_STR_NULL /* the default entity */
static const struct vv_str unused = {"-", 1};

/* One quota of one entity (a part called "-" is not there); value 0 removes it. The error code. */
static int alter(struct vv_str user, struct vv_str client, const char *key, double value)
{
    struct AlterClientQuotasRequest_EntityData who[2];
    struct AlterClientQuotasRequest_OpData op = {vv_str_c(key), value, value == 0};
    struct AlterClientQuotasRequest_EntryData entry = {.Entity = {who, 0}, .Ops = {&op, 1}};
    struct AlterClientQuotasRequest q = {.Entries = {&entry, 1}};
    if (user.p != unused.p)
        who[entry.Entity.n++] = (struct AlterClientQuotasRequest_EntityData){VV_STR_LIT("user"), user};
    if (client.p != unused.p)
        who[entry.Entity.n++] = (struct AlterClientQuotasRequest_EntityData){VV_STR_LIT("client-id"), client};
    const struct AlterClientQuotasResponse *r = peer_call(a, ALTER, 1, &q);
    assert_int_equal(r->Entries.n, 1);
    assert_int_equal(r->Entries.v[0].Entity.n, entry.Entity.n);
    assert_int_equal(r->Entries.v[0].ErrorMessage.n > 0, r->Entries.v[0].ErrorCode != 0);
    return r->Entries.v[0].ErrorCode;
}

/* How many entities match; *value of the first one's first quota. */
static int32_t described(const char *type, int8_t match, struct vv_str name, bool strict, double *value)
{
    struct DescribeClientQuotasRequest_ComponentData c = {vv_str_c(type), match, name};
    struct DescribeClientQuotasRequest q = {.Components = {&c, type ? 1 : 0}, .Strict = strict};
    const struct DescribeClientQuotasResponse *r = peer_call(a, DESCRIBE, 1, &q);
    assert_int_equal(r->ErrorCode, 0);
    if (r->Entries.n && value) *value = r->Entries.v[0].Values.v[0].Value;
    return r->Entries.n;
}

static void quotas_are_kept_and_told(void **state)
{
    (void)state;
    double value = 0;
    const struct vv_str test = VV_STR_LIT("reader"), joe = VV_STR_LIT("joe");
    assert_int_equal(described(NULL, 0, ANYBODY, false, NULL), 0);
    assert_int_equal(alter(unused, test, "consumer_byte_rate", 1e6), 0);
    assert_int_equal(alter(unused, ANYBODY, "producer_byte_rate", 5), 0);
    assert_int_equal(alter(joe, test, "remote_consumer_byte_rate", 7), 0);
    assert_int_equal(alter(joe, unused, "producer_byte_rate", 9), 0);
    assert_int_equal(described(NULL, 0, ANYBODY, false, NULL), 4);
    assert_int_equal(described("client-id", 0, test, true, &value), 1);
    assert_true(value == 1e6);
    assert_int_equal(described("client-id", 0, test, false, NULL), 2); /* joe's too */
    assert_int_equal(described("client-id", 1, ANYBODY, false, &value), 1);
    assert_true(value == 5);
    assert_int_equal(described("client-id", 2, ANYBODY, false, NULL), 3);
    assert_int_equal(described("user", 2, ANYBODY, true, &value), 1);
    assert_true(value == 9);
    assert_int_equal(described("ip", 2, ANYBODY, false, NULL), 0);
    assert_int_equal(alter(unused, test, "consumer_byte_rate", 0), 0);
    assert_int_equal(alter(unused, ANYBODY, "producer_byte_rate", 0), 0);
    assert_int_equal(alter(joe, test, "remote_consumer_byte_rate", 0), 0);
    assert_int_equal(alter(joe, unused, "producer_byte_rate", 0), 0);
    assert_int_equal(described(NULL, 0, ANYBODY, false, NULL), 0);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    const struct vv_str me = VV_STR_LIT("me"), bad = VV_STR_LIT("\xff\xfe");
    assert_int_equal(alter(unused, me, "no_such_rate", 1), VV_INVALID_REQUEST);
    assert_int_equal(alter(unused, me, "request_percentage", 50), VV_INVALID_REQUEST);
    assert_int_equal(alter(unused, me, "controller_mutation_rate", 50), VV_INVALID_REQUEST);
    assert_int_equal(alter(unused, me, "producer_byte_rate", -1), VV_INVALID_REQUEST);
    assert_int_equal(alter(unused, me, "producer_byte_rate", 1.5), VV_INVALID_REQUEST);
    assert_int_equal(alter(unused, unused, "producer_byte_rate", 1), VV_INVALID_REQUEST);
    assert_int_equal(alter(unused, VV_STR_LIT(""), "producer_byte_rate", 1), VV_INVALID_REQUEST);
    assert_int_equal(alter(unused, bad, "producer_byte_rate", 1), VV_INVALID_REQUEST);
    assert_int_equal(described(NULL, 0, ANYBODY, false, NULL), 0);
    struct DescribeClientQuotasRequest_ComponentData c[] = {{VV_STR_LIT("user"), 0, VV_STR_NULL},
                                                            {VV_STR_LIT("host"), 2, VV_STR_NULL}};
    struct DescribeClientQuotasRequest q = {.Components = {c, 1}};
    assert_int_equal(((struct DescribeClientQuotasResponse *)peer_call(a, DESCRIBE, 0, &q))->ErrorCode, VV_INVALID_REQUEST);
    q.Components.v = c + 1;
    assert_int_equal(((struct DescribeClientQuotasResponse *)peer_call(a, DESCRIBE, 1, &q))->ErrorCode,
                     VV_UNSUPPORTED_VERSION);
    struct DescribeUserScramCredentialsRequest_UserName user = {me};
    struct DescribeUserScramCredentialsRequest all = {.Users = {NULL, -1}}, one = {.Users = {&user, 1}};
    assert_int_equal(((struct DescribeUserScramCredentialsResponse *)peer_call(a, SCRAM, 0, &all))->Results.n, 0);
    const struct DescribeUserScramCredentialsResponse *r = peer_call(a, SCRAM, 0, &one);
    assert_int_equal(r->Results.v[0].ErrorCode, VV_RESOURCE_NOT_FOUND);
}

static int32_t produce_throttle(struct peer *p)
{
    struct vv_batch_builder *b = vv_batch_builder_new();
    struct one_produce o;
    produce_init(&o, "q", 0, batch(b, RECORDS, 1000, VALUE));
    const struct ProduceResponse *r = peer_call(p, PRODUCE, 9, &o.q);
    vv_batch_builder_free(b);
    assert_int_equal(r->Responses.v[0].PartitionResponses.v[0].ErrorCode, 0); /* told to wait, never refused */
    return r->ThrottleTimeMs;
}

/* The waits are minutes, so that no slow machine sees their end; whoever has to wait is left alone. */
static void producers_and_consumers_are_held_back(void **state)
{
    (void)state;
    const struct vv_str test = VV_STR_LIT("test"); /* the rig's client id */
    struct vv_uuid id = topic(a, "q");
    struct one_fetch o;
    assert_int_equal(produce_throttle(a), 0);
    assert_int_equal(alter(unused, VV_STR_LIT("somebody"), "producer_byte_rate", 1000), 0);
    assert_int_equal(produce_throttle(a), 0); /* somebody else's quota */
    assert_int_equal(alter(unused, test, "producer_byte_rate", 1000), 0);
    struct peer *slow = peer_new(), *slow_too = peer_new();
    assert_true(produce_throttle(slow) > 60000);
    peer_send(slow, METADATA, 12, &(struct MetadataRequest){0}); /* stays unread */
    assert_true(produce_throttle(slow_too) > 60000);             /* the same client by another connection */
    peer_free(slow_too);
    topic(a, "q");                                               /* others go on */
    assert_int_equal(alter(unused, test, "producer_byte_rate", 0), 0);
    assert_int_equal(produce_throttle(a), 0);

    fetch_init(&o, "q", id, 1);
    const struct FetchResponse *r = peer_call(a, FETCH, 16, &o.q);
    assert_int_equal(r->ThrottleTimeMs, 0);
    int32_t all = only(r)->Records.n;
    assert_true(all > RECORDS * VALUE * 3);
    assert_int_equal(alter(VV_STR_LIT("ANONYMOUS"), ANYBODY, "consumer_byte_rate", 1000), 0);
    peer_free(slow);
    slow = peer_new();
    r = peer_call(slow, FETCH, 16, &o.q);
    assert_true(r->ThrottleTimeMs > 60000);
    assert_true(only(r)->Records.n > 0 && only(r)->Records.n < all); /* one batch, however small the quota */
    r = peer_call(a, FETCH, 16, &o.q); /* above the quota already: nothing, and a wait of its own */
    assert_true(r->ThrottleTimeMs > 60000);
    assert_int_equal(only(r)->Records.n, 0);
    peer_free(a);
    a = peer_new();
    assert_int_equal(alter(VV_STR_LIT("ANONYMOUS"), ANYBODY, "consumer_byte_rate", 0), 0);
    r = peer_call(a, FETCH, 16, &o.q);
    assert_int_equal(r->ThrottleTimeMs, 0);
    assert_int_equal(only(r)->Records.n, all);
    peer_free(slow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(quotas_are_kept_and_told),
        T(what_cannot_be_is_refused),
        T(producers_and_consumers_are_held_back),
    };
    return cmocka_run_group_tests(tests, rig_start, rig_stop);
}
