/* wire_golden_test.c — bytes that Kafka 4.2's own classes wrote (tests/golden/sample.bin): decoded and encoded
 * again they are the same; cut short at any byte they are refused; with damaged bytes nothing breaks. */
#include "varve/wire.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

static uint8_t *data;
static size_t size;

static int load(void **state)
{
    (void)state;
    FILE *f = fopen(VARVE_SOURCE_DIR "/tests/golden/sample.bin", "rb");
    if (!f) return -1;
    fseek(f, 0, SEEK_END);
    size = (size_t)ftell(f);
    rewind(f);
    data = malloc(size);
    bool whole = data && fread(data, 1, size, f) == size;
    fclose(f);
    return whole ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    free(data);
    return 0;
}

struct vector {
    const struct vv_msg_schema *schema;
    int16_t version;
    const uint8_t *p;
    size_t n;
};

static const uint8_t *next_vector(const uint8_t *at, struct vector *v)
{
    char name[256] = {0};
    memcpy(name, at + 1, *at);
    at += 1 + *at;
    *v = (struct vector){.version = (int16_t)vv_get16(at), .p = at + 6, .n = vv_get32(at + 2)};
    for (size_t i = 0; vv_schemas[i]; i++)
        if (!strcmp(vv_schemas[i]->name, name)) v->schema = vv_schemas[i];
    assert_non_null(v->schema);
    if (v->version < v->schema->min) v->version = v->schema->min; /* keys of __consumer_offsets */
    return v->p + v->n;
}

static int decode(const struct vector *v, const uint8_t *bytes, size_t n, struct vv_arena *arena, void *msg,
                  size_t *used)
{
    return vv_msg_decode(v->schema, v->version, bytes, n, arena, msg, used);
}

static void round_trip(void **state)
{
    (void)state;
    size_t vectors = 0;
    struct vector v;
    for (const uint8_t *at = data; at < data + size; vectors++) {
        at = next_vector(at, &v);
        struct vv_arena arena;
        struct vv_out out;
        struct vv_chain chain = {0};
        size_t used;
        void *msg = malloc(v.schema->root->size);
        vv_arena_init(&arena, 0);
        vv_out_init(&out);
        assert_int_equal(decode(&v, v.p, v.n, &arena, msg, &used), 0);
        assert_int_equal(used, v.n);
        assert_int_equal(vv_msg_encode(v.schema, v.version, msg, &out), 0);
        assert_int_equal(vv_out_finish(&out, &chain), 0);
        assert_int_equal(chain.bytes, v.n);
        uint8_t *again = malloc(v.n + 1);
        vv_chain_copy_out(&chain, again);
        assert_memory_equal(again, v.p, v.n);
        free(again);
        free(msg);
        vv_chain_release(&chain);
        vv_arena_release(&arena);
    }
    assert_true(vectors > 1000);
}

/* A message is its fields one after the other: no proper prefix is a message. */
static void truncated_is_refused(void **state)
{
    (void)state;
    struct vector v;
    for (const uint8_t *at = data; at < data + size;) {
        at = next_vector(at, &v);
        void *msg = malloc(v.schema->root->size);
        for (size_t n = 0; n < v.n; n++) {
            struct vv_arena arena;
            uint8_t *bytes = malloc(n + 1); /* its end is the end of the input: ASan sees a read past it */
            memcpy(bytes + 1, v.p, n);
            vv_arena_init(&arena, 1 << 20);
            assert_int_equal(decode(&v, bytes + 1, n, &arena, msg, NULL), VV_E_PROTO);
            vv_arena_release(&arena);
            free(bytes);
        }
        free(msg);
    }
}

/* Any one byte set to values that hurt: an error or another message, within the arena's limit. */
static void damaged_is_survived(void **state)
{
    (void)state;
    static const uint8_t bad[] = {0x00, 0x7f, 0x80, 0xff};
    struct vector v;
    for (const uint8_t *at = data; at < data + size;) {
        at = next_vector(at, &v);
        void *msg = malloc(v.schema->root->size);
        uint8_t *bytes = malloc(v.n + 1);
        for (size_t i = 0; i < v.n * VV_COUNT(bad); i++) {
            struct vv_arena arena;
            size_t used;
            memcpy(bytes + 1, v.p, v.n);
            bytes[1 + i / VV_COUNT(bad)] = bad[i % VV_COUNT(bad)];
            vv_arena_init(&arena, 1 << 20);
            int err = decode(&v, bytes + 1, v.n, &arena, msg, &used);
            assert_true(err == 0 || err == VV_E_PROTO || err == VV_E_LIMIT);
            assert_true(used <= v.n);
            vv_arena_release(&arena);
        }
        free(bytes);
        free(msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(truncated_is_refused),
        cmocka_unit_test(damaged_is_survived),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
