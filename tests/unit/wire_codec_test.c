/* wire_codec_test.c — the codec's rules: defaults, versions, nulls, tags, limits, splicing, headers, printing. */
#include "varve/wire.h"
#include "gen/messages.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

static uint8_t *encode(const struct vv_msg_schema *schema, int16_t version, const void *msg, size_t *n)
{
    struct vv_out out;
    struct vv_chain chain = {0};
    vv_out_init(&out);
    assert_int_equal(vv_msg_encode(schema, version, msg, &out), 0);
    assert_int_equal(vv_out_finish(&out, &chain), 0);
    uint8_t *p = malloc(chain.bytes + 1);
    *n = chain.bytes;
    vv_chain_copy_out(&chain, p);
    vv_chain_release(&chain);
    return p;
}

static int encode_error(const struct vv_msg_schema *schema, int16_t version, const void *msg)
{
    struct vv_out out;
    vv_out_init(&out);
    int err = vv_msg_encode(schema, version, msg, &out);
    vv_out_release(&out);
    return err;
}

/* Written by hand from the protocol guide: Heartbeat v4 is flexible. */
static void bytes_by_hand(void **state)
{
    (void)state;
    static const uint8_t v4[] = {2, 'g', 0, 0, 0, 7, 3, 'm', '1', 0, 0};
    static const uint8_t v3[] = {0, 1, 'g', 0, 0, 0, 7, 0, 2, 'm', '1', 0xff, 0xff};
    struct HeartbeatRequest r;
    size_t n;
    VV_MSG_INIT(HeartbeatRequest, &r);
    assert_int_equal(r.GroupInstanceId.n, -1);
    r.GroupId = vv_str_c("g");
    r.GenerationId = 7;
    r.MemberId = VV_STR_LIT("m1");
    uint8_t *p = encode(&vv_schema_HeartbeatRequest, 4, &r, &n);
    assert_int_equal(n, sizeof v4);
    assert_memory_equal(p, v4, n);
    free(p);
    p = encode(&vv_schema_HeartbeatRequest, 3, &r, &n);
    assert_int_equal(n, sizeof v3);
    assert_memory_equal(p, v3, n);
    free(p);
}

static void absent_fields_get_defaults(void **state)
{
    (void)state;
    static const uint8_t v0[] = {0xff, 0xff, 0xff, 0xff};
    static const uint8_t none[] = {0, 0, 0, 0};
    struct MetadataRequest r;
    struct vv_arena arena;
    size_t used;
    vv_arena_init(&arena, 0);
    assert_int_equal(vv_msg_decode(&vv_schema_MetadataRequest, 0, none, 4, &arena, &r, &used), 0);
    assert_true(r.AllowAutoTopicCreation);
    assert_int_equal(r.Topics.n, 0);
    assert_int_equal(used, 4);
    /* null topics are for version 1 and above */
    assert_int_equal(vv_msg_decode(&vv_schema_MetadataRequest, 0, v0, 4, &arena, &r, &used), VV_E_PROTO);
    assert_int_equal(vv_msg_decode(&vv_schema_MetadataRequest, 1, v0, 4, &arena, &r, &used), 0);
    assert_int_equal(r.Topics.n, -1);
    assert_int_equal(vv_msg_decode(&vv_schema_MetadataRequest, 99, v0, 4, &arena, &r, &used),
                     VV_UNSUPPORTED_VERSION);
    vv_arena_release(&arena);
}

static void version_lacks_a_value(void **state)
{
    (void)state;
    struct JoinGroupRequest join;
    VV_MSG_INIT(JoinGroupRequest, &join);
    assert_int_equal(encode_error(&vv_schema_JoinGroupRequest, 0, &join), 0);
    join.Reason = VV_STR_LIT("because"); /* ignorable: dropped */
    assert_int_equal(encode_error(&vv_schema_JoinGroupRequest, 0, &join), 0);
    join.GroupInstanceId = VV_STR_LIT("static"); /* not ignorable */
    assert_int_equal(encode_error(&vv_schema_JoinGroupRequest, 4, &join), VV_UNSUPPORTED_VERSION);
    assert_int_equal(encode_error(&vv_schema_JoinGroupRequest, 5, &join), 0);
    join.GroupId = VV_STR_NULL; /* never null */
    assert_int_equal(encode_error(&vv_schema_JoinGroupRequest, 5, &join), VV_UNSUPPORTED_VERSION);
}

static void tagged_structs(void **state)
{
    (void)state;
    struct ProduceResponse r, back;
    struct vv_arena arena;
    size_t plain, tagged, used;
    vv_arena_init(&arena, 0);
    VV_MSG_INIT(ProduceResponse, &r);
    assert_int_equal(VV_ARRAY_NEW(r.Responses, ProduceResponse_TopicProduceResponse, &arena, 1), 0);
    assert_int_equal(VV_ARRAY_NEW(r.Responses.v[0].PartitionResponses, ProduceResponse_PartitionProduceResponse,
                                  &arena, 1), 0);
    struct ProduceResponse_PartitionProduceResponse *part = &r.Responses.v[0].PartitionResponses.v[0];
    assert_int_equal(part->CurrentLeader.LeaderId, -1);
    assert_int_equal(part->LogAppendTimeMs, -1);
    free(encode(&vv_schema_ProduceResponse, 10, &r, &plain));
    part->CurrentLeader.LeaderId = 7;
    uint8_t *p = encode(&vv_schema_ProduceResponse, 10, &r, &tagged);
    assert_int_equal(tagged, plain + 2 + 4 + 4 + 1); /* tag, size, two ints, no tags inside */
    assert_int_equal(vv_msg_decode(&vv_schema_ProduceResponse, 10, p, tagged, &arena, &back, &used), 0);
    assert_int_equal(back.Responses.v[0].PartitionResponses.v[0].CurrentLeader.LeaderId, 7);
    assert_int_equal(back.Responses.v[0].PartitionResponses.v[0].CurrentLeader.LeaderEpoch, -1);
    free(p);
    vv_arena_release(&arena);
}

static void nullable_structs(void **state)
{
    (void)state;
    struct DescribeTopicPartitionsRequest r, back;
    struct DescribeTopicPartitionsRequest_Cursor cursor;
    struct vv_arena arena;
    size_t n, used;
    vv_arena_init(&arena, 0);
    VV_MSG_INIT(DescribeTopicPartitionsRequest, &r);
    assert_null(r.Cursor);
    assert_int_equal(r.ResponsePartitionLimit, 2000);
    for (int with = 0; with < 2; with++) {
        VV_STRUCT_INIT(DescribeTopicPartitionsRequest_Cursor, &cursor);
        cursor.PartitionIndex = 5;
        r.Cursor = with ? &cursor : NULL;
        uint8_t *p = encode(&vv_schema_DescribeTopicPartitionsRequest, 0, &r, &n);
        assert_int_equal(
            vv_msg_decode(&vv_schema_DescribeTopicPartitionsRequest, 0, p, n, &arena, &back, &used), 0);
        assert_int_equal(used, n);
        if (with)
            assert_int_equal(back.Cursor->PartitionIndex, 5);
        else
            assert_null(back.Cursor);
        free(p);
    }
    vv_arena_release(&arena);
}

static void unknown_tags_are_skipped(void **state)
{
    (void)state;
    static const uint8_t ok[] = {1, 1, 2, 9, 2, 'x', 'y', 40, 0};
    static const uint8_t twice[] = {1, 1, 2, 9, 0, 9, 0};
    static const uint8_t falling[] = {1, 1, 2, 9, 0, 8, 0};
    static const uint8_t too_long[] = {1, 1, 1, 9, 3, 'x', 'y'};
    struct ApiVersionsRequest r;
    struct vv_arena arena;
    size_t used;
    const struct vv_msg_schema *s = &vv_schema_ApiVersionsRequest;
    vv_arena_init(&arena, 0);
    assert_int_equal(vv_msg_decode(s, 3, ok, sizeof ok, &arena, &r, &used), 0);
    assert_int_equal(used, sizeof ok);
    assert_int_equal(vv_msg_decode(s, 3, twice, sizeof twice, &arena, &r, &used), VV_E_PROTO);
    assert_int_equal(vv_msg_decode(s, 3, falling, sizeof falling, &arena, &r, &used), VV_E_PROTO);
    assert_int_equal(vv_msg_decode(s, 3, too_long, sizeof too_long, &arena, &r, &used), VV_E_PROTO);
    vv_arena_release(&arena);
}

/* A million tags in a section cost their bytes, no memory. */
static void a_million_tags(void **state)
{
    (void)state;
    enum { COUNT = 1000000 };
    uint8_t *p = malloc(COUNT * 6 + 16);
    size_t n = 0, used;
    p[n++] = 1;
    p[n++] = 1;
    n += vv_uvarint_put(p + n, COUNT);
    for (uint32_t tag = 0; tag < COUNT; tag++) {
        n += vv_uvarint_put(p + n, tag);
        p[n++] = 0;
    }
    struct ApiVersionsRequest r;
    struct vv_arena arena;
    vv_arena_init(&arena, 64);
    assert_int_equal(vv_msg_decode(&vv_schema_ApiVersionsRequest, 3, p, n, &arena, &r, &used), 0);
    assert_int_equal(used, n);
    assert_int_equal(arena.used, 0);
    vv_arena_release(&arena);
    free(p);
}

/* A declared count allocates nothing: the elements must be there. */
static void counts_are_not_believed(void **state)
{
    (void)state;
    static const uint8_t huge[] = {0x7f, 0xff, 0xff, 0xff, 0, 1, 'a'};
    uint8_t plenty[4096] = {0, 0, 0x0f, 0xf0}; /* 4080 topics of two bytes each: half of them are not there */
    struct MetadataRequest r;
    struct vv_arena arena;
    vv_arena_init(&arena, 0);
    const struct vv_msg_schema *s = &vv_schema_MetadataRequest;
    assert_int_equal(vv_msg_decode(s, 1, huge, sizeof huge, &arena, &r, NULL), VV_E_PROTO);
    assert_int_equal(arena.used, 0);
    assert_int_equal(vv_msg_decode(s, 1, plenty, sizeof plenty, &arena, &r, NULL), VV_E_PROTO);
    vv_arena_release(&arena);
    vv_arena_init(&arena, 4096);
    assert_int_equal(vv_msg_decode(s, 1, plenty, sizeof plenty, &arena, &r, NULL), VV_E_LIMIT);
    vv_arena_release(&arena);
}

static void records_are_spliced(void **state)
{
    (void)state;
    struct FetchResponse r;
    struct vv_arena arena;
    struct vv_buf *buf = vv_buf_new(5);
    struct vv_chain batches = {0}, chain = {0};
    struct vv_out out;
    size_t used;
    memcpy(buf->data, "batch", 5);
    assert_int_equal(vv_chain_add(&batches, buf, buf->data, 5), 0);
    vv_arena_init(&arena, 0);
    VV_MSG_INIT(FetchResponse, &r);
    assert_int_equal(VV_ARRAY_NEW(r.Responses, FetchResponse_FetchableTopicResponse, &arena, 1), 0);
    assert_int_equal(VV_ARRAY_NEW(r.Responses.v[0].Partitions, FetchResponse_PartitionData, &arena, 1), 0);
    r.Responses.v[0].Partitions.v[0].Records = (struct vv_records){.chain = &batches};
    vv_out_init(&out);
    assert_int_equal(vv_msg_encode(&vv_schema_FetchResponse, 12, &r, &out), 0);
    assert_int_equal(vv_out_finish(&out, &chain), 0);
    bool spliced = false;
    for (size_t i = 0; i < chain.count; i++)
        spliced = spliced || chain.v[i].p == buf->data;
    assert_true(spliced);
    uint8_t *p = malloc(chain.bytes);
    vv_chain_copy_out(&chain, p);
    assert_int_equal(vv_msg_decode(&vv_schema_FetchResponse, 12, p, chain.bytes, &arena, &r, &used), 0);
    struct vv_records back = r.Responses.v[0].Partitions.v[0].Records;
    assert_int_equal(back.n, 5);
    assert_memory_equal(back.p, "batch", 5);
    assert_true(back.p > p && back.p < p + chain.bytes); /* into the input */
    free(p);
    vv_chain_release(&chain);
    vv_chain_release(&batches);
    vv_buf_unref(buf);
    vv_arena_release(&arena);
}

static void random_round_trips(void **state)
{
    (void)state;
    for (size_t i = 0; vv_schemas[i]; i++) {
        const struct vv_msg_schema *s = vv_schemas[i];
        void *msg = malloc(s->root->size), *back = malloc(s->root->size);
        for (int16_t v = s->min; v <= s->max; v++) {
            struct vv_arena arena;
            size_t n, m, used;
            vv_arena_init(&arena, 0);
            assert_int_equal(vv_msg_random(s, v, (uint64_t)v * 7 + i, &arena, msg), 0);
            uint8_t *p = encode(s, v, msg, &n);
            assert_int_equal(vv_msg_decode(s, v, p, n, &arena, back, &used), 0);
            assert_int_equal(used, n);
            uint8_t *q = encode(s, v, back, &m);
            assert_int_equal(m, n);
            assert_memory_equal(p, q, n);
            free(p);
            free(q);
            vv_arena_release(&arena);
        }
        free(msg);
        free(back);
    }
}

static void request_headers(void **state)
{
    (void)state;
    static const uint8_t v2[] = {0, 18, 0, 3, 0, 0, 0, 9, 0, 2, 'm', 'e', 0, 0xee};
    static const uint8_t unknown[] = {0x7f, 0, 0, 3, 0, 0, 0, 9, 0xff, 0xff};
    static const uint8_t negative[] = {0, 18, 0, 0, 0, 0, 0, 9, 0xff, 0xfe};
    struct vv_request_header h;
    assert_int_equal(vv_request_header_decode(v2, sizeof v2, &h), 0);
    assert_int_equal(h.key, 18);
    assert_int_equal(h.version, 3);
    assert_int_equal(h.correlation_id, 9);
    assert_true(vv_str_is(h.client_id, "me"));
    assert_int_equal(h.size, 13);
    assert_string_equal(h.api->name, "ApiVersions");
    for (size_t n = 0; n < 13; n++)
        assert_int_equal(vv_request_header_decode(v2, n, &h), VV_E_PROTO);
    assert_int_equal(vv_request_header_decode(unknown, sizeof unknown, &h), 0);
    assert_null(h.api);
    assert_int_equal(h.client_id.n, -1);
    assert_int_equal(vv_request_header_decode(negative, sizeof negative, &h), VV_E_PROTO);
}

static void response_headers(void **state)
{
    (void)state;
    assert_int_equal(vv_response_header_version(18, 3), 0); /* ApiVersions: always 0 */
    assert_int_equal(vv_response_header_version(0, 8), 0);
    assert_int_equal(vv_response_header_version(0, 9), 1);
    struct vv_out out;
    struct vv_chain chain = {0};
    uint8_t p[5];
    int32_t correlation_id;
    size_t used;
    vv_out_init(&out);
    assert_int_equal(vv_response_header_encode(0, 9, 77, &out), 0);
    assert_int_equal(vv_out_finish(&out, &chain), 0);
    assert_int_equal(chain.bytes, 5);
    vv_chain_copy_out(&chain, p);
    assert_int_equal(vv_response_header_decode(0, 9, p, 5, &correlation_id, &used), 0);
    assert_int_equal(correlation_id, 77);
    assert_int_equal(used, 5);
    assert_int_equal(vv_response_header_decode(0, 9, p, 4, &correlation_id, &used), VV_E_PROTO);
    vv_chain_release(&chain);
}

static void apis_are_ordered(void **state)
{
    (void)state;
    for (size_t i = 0; i < vv_apis_count; i++) {
        assert_ptr_equal(vv_api_by_key(vv_apis[i].key), &vv_apis[i]);
        assert_true(i == 0 || vv_apis[i - 1].key < vv_apis[i].key);
        assert_int_equal(vv_apis[i].max, vv_apis[i].request->max);
    }
    assert_int_equal(vv_api_by_key(0)->min, 0);
    assert_int_equal(vv_api_by_key(0)->request->min, 3);
    assert_null(vv_api_by_key(17));
}

static void printing_hides_secrets(void **state)
{
    (void)state;
    struct AlterConfigsRequest r;
    struct vv_arena arena;
    char *text = NULL;
    size_t n;
    vv_arena_init(&arena, 0);
    VV_MSG_INIT(AlterConfigsRequest, &r);
    assert_int_equal(VV_ARRAY_NEW(r.Resources, AlterConfigsRequest_AlterConfigsResource, &arena, 1), 0);
    assert_int_equal(VV_ARRAY_NEW(r.Resources.v[0].Configs, AlterConfigsRequest_AlterableConfig, &arena, 1), 0);
    r.Resources.v[0].Configs.v[0].Name = VV_STR_LIT("a\033b");
    r.Resources.v[0].Configs.v[0].Value = VV_STR_LIT("hunter2");
    FILE *f = open_memstream(&text, &n);
    vv_msg_print(&vv_schema_AlterConfigsRequest, 2, &r, f);
    fclose(f);
    assert_non_null(strstr(text, "\"Name\": \"a\\x1bb\", \"Value\": \"…\""));
    assert_null(strstr(text, "hunter2"));
    free(text);
    vv_arena_release(&arena);
}

/* What is checked in is what the generator makes. */
static void generated_files_are_fresh(void **state)
{
    (void)state;
    char directory[] = "/tmp/varve-wire-XXXXXX", command[512];
    assert_non_null(mkdtemp(directory));
    snprintf(command, sizeof command,
             "python3 %s/src/wire/gen.py %s && diff -r -x README.md %s/src/wire/gen %s; status=$?; rm -r %s; exit $status",
             VARVE_SOURCE_DIR, directory, VARVE_SOURCE_DIR, directory, directory);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_by_hand),
        cmocka_unit_test(absent_fields_get_defaults),
        cmocka_unit_test(version_lacks_a_value),
        cmocka_unit_test(tagged_structs),
        cmocka_unit_test(nullable_structs),
        cmocka_unit_test(unknown_tags_are_skipped),
        cmocka_unit_test(a_million_tags),
        cmocka_unit_test(counts_are_not_believed),
        cmocka_unit_test(records_are_spliced),
        cmocka_unit_test(random_round_trips),
        cmocka_unit_test(request_headers),
        cmocka_unit_test(response_headers),
        cmocka_unit_test(apis_are_ordered),
        cmocka_unit_test(printing_hides_secrets),
        cmocka_unit_test(generated_files_are_fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
