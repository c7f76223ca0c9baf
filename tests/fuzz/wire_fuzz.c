/* wire_fuzz.c — libFuzzer: any bytes as any message in any version. What decodes must encode again, decode again
 * and print; request headers are tried on the same bytes.
 *
 * Input: {u8 schema} {u8 version, offset from the schema's first} {message}. */
#include "varve/wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Encodes msg; the bytes must decode to a message that encodes to the same bytes. */
static void again(const struct vv_msg_schema *s, int16_t version, const void *msg, int depth)
{
    struct vv_out out;
    struct vv_chain chain = {0};
    struct vv_arena arena;
    vv_out_init(&out);
    int err = vv_msg_encode(s, version, msg, &out);
    if (err || vv_out_finish(&out, &chain)) abort();
    uint8_t *bytes = malloc(chain.bytes + 1);
    void *copy = malloc(s->root->size);
    if (!bytes || !copy) abort();
    vv_chain_copy_out(&chain, bytes);
    if (depth == 0) {
        size_t used;
        vv_arena_init(&arena, 0);
        if (vv_msg_decode(s, version, bytes, chain.bytes, &arena, copy, &used) || used != chain.bytes) abort();
        again(s, version, copy, 1);
        vv_arena_release(&arena);
    }
    free(copy);
    free(bytes);
    vv_chain_release(&chain);
    vv_out_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *null;
    static size_t schemas;
    struct vv_arena arena;
    struct vv_request_header header;
    if (!null) null = fopen("/dev/null", "w");
    while (vv_schemas[schemas])
        schemas++;
    if (size < 2 || !null) return 0;
    const struct vv_msg_schema *s = vv_schemas[data[0] % schemas];
    int16_t version = (int16_t)(s->min + data[1] % (s->max - s->min + 1));
    size_t used;
    void *msg = malloc(s->root->size);
    if (!msg) return 0;
    vv_arena_init(&arena, (size_t)1 << 20);
    if (!vv_msg_decode(s, version, data + 2, size - 2, &arena, msg, &used)) {
        if (used > size - 2) abort();
        again(s, version, msg, 0);
        vv_msg_print(s, version, msg, null);
    }
    vv_arena_release(&arena);
    free(msg);
    if (!vv_request_header_decode(data, size, &header) && header.size > size) abort();
    return 0;
}
