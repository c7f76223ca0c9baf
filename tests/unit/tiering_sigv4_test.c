/* tiering_sigv4_test.c — Signature V4 against published vectors.
 *
 * The rows named aws4_* are from AWS's "Signature Version 4 test suite" (credentials AKIDEXAMPLE, 20150830T123600Z,
 * us-east-1, service "service"); those named s3_* are the worked examples of the S3 API reference, "Authenticating
 * Requests: Using the Authorization Header" (AKIAIOSFODNN7EXAMPLE, 20130524T000000Z, examplebucket). The rows of the
 * suite that test path normalisation are left out: S3 has none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "sigv4.h"

#define E VV_SIGV4_EMPTY_SHA256

struct vector {
    const char *name, *method, *path; /* raw */
    struct vv_sigv4_kv query[6], headers[8];
    const char *payload, *signature;
};

static const struct vector suite[] = {
    {"aws4_get-vanilla", "GET", "/", {{0}}, {{"host", "example.amazonaws.com"}, {"x-amz-date", "20150830T123600Z"}}, E,
     "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
    {"aws4_post-vanilla", "POST", "/", {{0}}, {{"x-amz-date", "20150830T123600Z"}, {"host", "example.amazonaws.com"}}, E,
     "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
    {"aws4_get-vanilla-query-order-key-case", "GET", "/", {{"Param2", "value2"}, {"Param1", "value1"}},
     {{"host", "example.amazonaws.com"}, {"x-amz-date", "20150830T123600Z"}}, E,
     "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
    {"aws4_get-unreserved", "GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", {{0}},
     {{"host", "example.amazonaws.com"}, {"x-amz-date", "20150830T123600Z"}}, E,
     "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
    {"aws4_get-utf8", "GET", "/\xe1\x88\xb4", {{0}},
     {{"host", "example.amazonaws.com"}, {"x-amz-date", "20150830T123600Z"}}, E,
     "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
    {"aws4_get-vanilla-utf8-query", "GET", "/", {{"\xe1\x88\xb4", "bar"}},
     {{"host", "example.amazonaws.com"}, {"x-amz-date", "20150830T123600Z"}}, E,
     "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
    {"aws4_get-header-value-trim", "GET", "/", {{0}},
     {{"host", "example.amazonaws.com"}, {"my-header1", " value1"}, {"my-header2", " \"a   b   c\""},
      {"x-amz-date", "20150830T123600Z"}}, E,
     "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
    {"aws4_post-x-www-form-urlencoded", "POST", "/", {{0}},
     {{"content-type", "application/x-www-form-urlencoded"}, {"host", "example.amazonaws.com"},
      {"x-amz-date", "20150830T123600Z"}},
     "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
     "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
    {"s3_get-object-range", "GET", "/test.txt", {{0}},
     {{"host", "examplebucket.s3.amazonaws.com"}, {"range", "bytes=0-9"}, {"x-amz-content-sha256", E},
      {"x-amz-date", "20130524T000000Z"}}, E,
     "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
    {"s3_put-object", "PUT", "/test$file.text", {{0}},
     {{"date", "Fri, 24 May 2013 00:00:00 GMT"}, {"host", "examplebucket.s3.amazonaws.com"},
      {"x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"},
      {"x-amz-date", "20130524T000000Z"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
     "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
     "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
    {"s3_get-bucket-lifecycle", "GET", "/", {{"lifecycle", ""}},
     {{"host", "examplebucket.s3.amazonaws.com"}, {"x-amz-content-sha256", E}, {"x-amz-date", "20130524T000000Z"}}, E,
     "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
    {"s3_list-objects", "GET", "/", {{"prefix", "J"}, {"max-keys", "2"}},
     {{"host", "examplebucket.s3.amazonaws.com"}, {"x-amz-content-sha256", E}, {"x-amz-date", "20130524T000000Z"}}, E,
     "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
};

static void published_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof suite / sizeof *suite; i++) {
        const struct vector *v = &suite[i];
        int s3 = !strncmp(v->name, "s3_", 3);
        char path[512], query[512], auth[VV_SIGV4_AUTH_MAX];
        size_t queries = 0, headers = 0;
        while (queries < 6 && v->query[queries].name) queries++;
        while (headers < 8 && v->headers[headers].name) headers++;
        assert_int_not_equal(vv_sigv4_encode(path, sizeof path, v->path, true), SIZE_MAX);
        assert_int_not_equal(vv_sigv4_query(query, sizeof query, v->query, queries), SIZE_MAX);
        struct vv_sigv4_request r = {
            .method = v->method, .path = path, .query = query, .headers = v->headers, .header_count = headers,
            .payload_hash = v->payload, .date = s3 ? "20130524T000000Z" : "20150830T123600Z", .region = "us-east-1",
            .service = s3 ? "s3" : "service", .access_key_id = s3 ? "AKIAIOSFODNN7EXAMPLE" : "AKIDEXAMPLE",
            .secret_access_key = s3 ? "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
                                    : "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"};
        assert_int_equal(vv_sigv4_authorization(&r, auth), 0);
        const char *signature = strstr(auth, "Signature=");
        assert_non_null(signature);
        if (strcmp(signature + 10, v->signature)) print_error("%s: %s\n", v->name, auth);
        assert_string_equal(signature + 10, v->signature);
    }
}

static void encoding(void **state)
{
    (void)state;
    char out[64];
    assert_int_equal(vv_sigv4_encode(out, sizeof out, "a b+c/d%~", true), 15);
    assert_string_equal(out, "a%20b%2Bc/d%25~");
    vv_sigv4_encode(out, sizeof out, "a/\xff", false);
    assert_string_equal(out, "a%2F%FF");
    assert_int_equal(vv_sigv4_encode(out, 3, "abc", true), SIZE_MAX);
    assert_int_equal(vv_sigv4_encode(out, 4, "abc", true), 3);
    assert_int_equal(vv_sigv4_encode(out, 3, "%", true), SIZE_MAX);
}

static void limits_are_errors(void **state)
{
    (void)state;
    char long_text[1500], auth[VV_SIGV4_AUTH_MAX];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    struct vv_sigv4_kv host = {"host", "h"};
    struct vv_sigv4_request r = {.method = "GET", .path = "/", .query = "", .headers = &host, .header_count = 1,
                                 .payload_hash = E, .date = "20130524T000000Z", .region = "r", .service = "s3",
                                 .access_key_id = "a", .secret_access_key = long_text};
    assert_int_not_equal(vv_sigv4_authorization(&r, auth), 0);
    r.secret_access_key = "s";
    r.access_key_id = long_text;
    assert_int_not_equal(vv_sigv4_authorization(&r, auth), 0);
    r.access_key_id = "a";
    r.region = long_text;
    assert_int_not_equal(vv_sigv4_authorization(&r, auth), 0);
    r.region = "r";
    assert_int_equal(vv_sigv4_authorization(&r, auth), 0);
}

static void date(void **state)
{
    (void)state;
    char out[VV_SIGV4_DATE_N];
    vv_sigv4_date(1440938160999, out);
    assert_string_equal(out, "20150830T123600Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_vectors), cmocka_unit_test(encoding),
                                       cmocka_unit_test(limits_are_errors), cmocka_unit_test(date)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
