/* Quotas: which one holds for whom, the registry's text and back, and rates over windows as time goes. */
#include "quota.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdlib.h>

#define ANY  VV_STR_NULL
#define S(x) VV_STR_LIT(x)

static struct vv_quota_entity who(bool has_user, struct vv_str user, bool has_client, struct vv_str client)
{
    return (struct vv_quota_entity){has_user, has_client, user, client};
}

static void put(struct vv_quota_set *s, struct vv_quota_entity e, double limit)
{
    assert_int_equal(vv_quota_set_put(s, &e, VV_QUOTA_FETCH, limit), 0);
}

/* Kafka's order, weakest first: each one that is added wins over all before. */
static void the_strongest_holds(void **state)
{
    (void)state;
    struct vv_quota_set s = {0};
    const struct vv_quota_entity order[] = {
        who(false, ANY, true, ANY),  who(false, ANY, true, S("c")), who(true, ANY, false, ANY),    who(true, ANY, true, ANY),
        who(true, ANY, true, S("c")), who(true, S("u"), false, ANY), who(true, S("u"), true, ANY), who(true, S("u"), true, S("c")),
    };
    struct vv_quota_entity counted;
    assert_true(vv_quota_set_find(&s, S("u"), S("c"), VV_QUOTA_FETCH, &counted) == 0);
    for (size_t i = 0; i < VV_COUNT(order); i++) {
        put(&s, order[i], (double)i + 1);
        assert_true(vv_quota_set_find(&s, S("u"), S("c"), VV_QUOTA_FETCH, &counted) == (double)i + 1);
        assert_int_equal(counted.has_user, order[i].has_user); /* a default counts each for itself */
        assert_int_equal(counted.has_client, order[i].has_client);
        assert_true(!counted.has_client || vv_str_is(counted.client, "c"));
        assert_true(!counted.has_user || vv_str_is(counted.user, "u"));
    }
    assert_true(vv_quota_set_find(&s, S("u"), S("c"), VV_QUOTA_PRODUCE, &counted) == 0);
    assert_true(vv_quota_set_find(&s, S("u"), S("x"), VV_QUOTA_FETCH, &counted) == 7);
    assert_true(vv_quota_set_find(&s, S("x"), S("c"), VV_QUOTA_FETCH, &counted) == 5);
    struct vv_quota_set again = {0}, copy;
    json_t *text = vv_quota_set_json(&s);
    assert_int_equal(json_array_size(text), 8);
    assert_int_equal(vv_quota_set_load(&again, text), 0);
    assert_int_equal(again.n, 8);
    assert_int_equal(vv_quota_set_copy(&again, &copy), 0);
    json_t *same = vv_quota_set_json(&copy);
    assert_true(json_equal(text, same));
    json_decref(text);
    json_decref(same);
    for (size_t i = 0; i < VV_COUNT(order); i++) put(&again, order[i], 0);
    assert_int_equal(again.n, 0);
    vv_quota_set_release(&s);
    vv_quota_set_release(&again);
    vv_quota_set_release(&copy);
}

static void damaged_text_is_skipped(void **state)
{
    (void)state;
    struct vv_quota_set s = {0};
    json_t *list = json_loads("[{\"user\": 3, \"quotas\": {\"producer_byte_rate\": 1}}, 7, {\"quotas\": {\"producer_byte_rate\": 1}},"
                              "{\"user\": \"u\", \"quotas\": {\"x\": 1, \"producer_byte_rate\": \"y\", \"consumer_byte_rate\": 2}}]",
                              0, NULL);
    assert_non_null(list);
    assert_int_equal(vv_quota_set_load(&s, list), 0);
    assert_int_equal(s.n, 1);
    assert_true(s.v[0].limit[VV_QUOTA_FETCH] == 2 && s.v[0].limit[VV_QUOTA_PRODUCE] == 0);
    json_decref(list);
    vv_quota_set_release(&s);
}

static struct vv_quotas *quotas(struct vv_quota_entity e, double limit)
{
    struct vv_quotas *q;
    struct vv_quota_set s = {0};
    assert_int_equal(vv_quotas_new(11, 1000, &q), 0);
    assert_false(vv_quota_on(q, VV_QUOTA_FETCH));
    put(&s, e, limit);
    vv_quotas_use(q, &s);
    assert_true(vv_quota_on(q, VV_QUOTA_FETCH));
    return q;
}

static int64_t use(struct vv_quotas *q, const char *client, uint64_t n, int64_t now_ms)
{
    return vv_quota_record(q, VV_QUOTA_FETCH, vv_str_c(client), n, now_ms);
}

static void rates_fall_with_time(void **state)
{
    (void)state;
    struct vv_quotas *q = quotas(who(false, ANY, true, ANY), 100);
    assert_int_equal(vv_quota_burst(q, VV_QUOTA_FETCH, S("c")), 1000);
    assert_int_equal(vv_quota_burst(q, VV_QUOTA_PRODUCE, S("c")), INT64_MAX);
    assert_int_equal(vv_quota_record(q, VV_QUOTA_PRODUCE, S("c"), 1 << 30, 0), 0);
    int64_t t = 5000000;
    assert_int_equal(use(q, "c", 1000, t), 0);    /* all windows at once */
    assert_int_equal(use(q, "c", 1, t), 11);      /* one too many: 10 ms, and one for rounding */
    assert_int_equal(use(q, "c", 0, t), 11);      /* asking costs nothing */
    assert_int_equal(use(q, "other", 1000, t), 0); /* counted for itself */
    assert_int_equal(use(q, "c", 199, t), 2001);
    assert_int_equal(use(q, "c", 0, t + 9999), 2001);  /* ten windows are the least a rate is taken over */
    assert_true(use(q, "c", 0, t + 10500) > 0 && use(q, "c", 0, t + 10500) <= 1501);
    assert_int_equal(use(q, "c", 0, t + 11000), 0);    /* out of the windows */
    assert_int_equal(use(q, "c", 1000, t + 11000), 0);
    assert_int_equal(use(q, "c", 1ull << 62, t + 11000), INT32_MAX);
    assert_int_equal(use(q, "c", 1000, t + 99000), 0);
    vv_quotas_free(q);
}

static void a_user_is_counted_as_one(void **state)
{
    (void)state;
    struct vv_quotas *q = quotas(who(true, VV_QUOTA_USER, false, ANY), 100);
    assert_int_equal(use(q, "a", 600, 1000), 0);
    assert_true(use(q, "b", 600, 1000) > 0);
    struct vv_quota_set none = {0};
    vv_quotas_use(q, &none);
    assert_int_equal(use(q, "b", 600, 1000), 0);
    vv_quotas_default(q, VV_QUOTA_FETCH, 50);
    assert_int_equal(use(q, "c", 500, 1000), 0);
    assert_true(use(q, "c", 500, 1000) > 0);
    assert_int_equal(use(q, "d", 500, 1000), 0);
    vv_quotas_free(q);
}

static void many_clients_come_and_go(void **state)
{
    (void)state;
    struct vv_quotas *q = quotas(who(false, ANY, true, ANY), 100);
    char name[16];
    for (int i = 0; i < 150000; i++) { /* more than are told apart; the last ones share */
        snprintf(name, sizeof name, "c%d", i);
        int64_t wait = use(q, name, 900, 1000);
        assert_int_equal(wait > 0, i > 100000);
    }
    assert_int_equal(use(q, "c149999", 900, 60000), 0); /* all forgotten */
    assert_int_equal(use(q, "fresh", 900, 60000), 0);
    vv_quotas_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_strongest_holds),      cmocka_unit_test(damaged_text_is_skipped),
        cmocka_unit_test(rates_fall_with_time),     cmocka_unit_test(a_user_is_counted_as_one),
        cmocka_unit_test(many_clients_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
