/* golden.c — decodes every vector of a golden file and encodes it again: the bytes must be the same.
 *
 * Without arguments: writes the list of messages the Java side shall make ("Name class low high"), from the schemas.
 * With a file: checks it; exit status 1 and a line per failure when something differs. */
#include "varve/wire.h"

#include <stdlib.h>

static const char *java_class(const char *name, char *dst, size_t n)
{
    size_t length = strlen(name);
    bool rpc = (length > 7 && !strcmp(name + length - 7, "Request")) ||
               (length > 8 && !strcmp(name + length - 8, "Response")) || !strcmp(name + length - 6, "Header");
    bool group = !strncmp(name, "OffsetCommitK", 13) || !strncmp(name, "OffsetCommitV", 13) ||
                 !strncmp(name, "GroupMetadata", 13);
    snprintf(dst, n, "org.apache.kafka.%s.%s%s", group ? "coordinator.group.generated" : "common.message", name,
             rpc ? "Data" : "");
    return dst;
}

/* In Kafka 4 the number of a key's type is no version any more: its keys are version 0 there. */
static void list(void)
{
    char class[160];
    for (size_t i = 0; vv_schemas[i]; i++) {
        const struct vv_msg_schema *s = vv_schemas[i];
        size_t n = strlen(s->name);
        bool key = n > 3 && !strcmp(s->name + n - 3, "Key");
        /* Version 0 of the request header is only for an API that is gone; Kafka has no class for it. */
        int low = !strcmp(s->name, "RequestHeader") ? 1 : key ? 0 : s->min;
        printf("%s %s %d %d\n", s->name, java_class(s->name, class, sizeof class), low, key ? 0 : s->max);
    }
}

static const struct vv_msg_schema *schema_of(const char *name)
{
    for (size_t i = 0; vv_schemas[i]; i++)
        if (!strcmp(vv_schemas[i]->name, name)) return vv_schemas[i];
    return NULL;
}

/* 0, or says what is wrong. */
static int check(const struct vv_msg_schema *s, int16_t version, const uint8_t *p, size_t n)
{
    struct vv_arena arena;
    struct vv_out out;
    struct vv_chain chain = {0};
    uint8_t *again = NULL;
    size_t used = 0;
    vv_arena_init(&arena, 0);
    vv_out_init(&out);
    void *msg = malloc(s->root->size);
    if (version < s->min) version = s->min; /* keys, see list() */
    const char *what = NULL;
    int err = msg ? vv_msg_decode(s, version, p, n, &arena, msg, &used) : VV_E_NOMEM;
    if (err)
        what = "decoding";
    else if (used != n)
        what = "trailing bytes";
    else if ((err = vv_msg_encode(s, version, msg, &out)) || (err = vv_out_finish(&out, &chain)))
        what = "encoding";
    else if (chain.bytes != n || !(again = malloc(n + 1)))
        what = "length";
    else {
        vv_chain_copy_out(&chain, again);
        if (memcmp(again, p, n)) what = "bytes";
    }
    if (what) {
        fprintf(stderr, "%s version %d (%zu bytes): %s differs (%s, read %zu, wrote %zu)\n", s->name, version, n,
                what, vv_err_name(err), used, chain.bytes);
    }
    free(again);
    free(msg);
    vv_chain_release(&chain);
    vv_out_release(&out);
    vv_arena_release(&arena);
    return what ? 1 : 0;
}

static uint8_t *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    uint8_t *p = malloc((size_t)size + 1);
    *n = p ? fread(p, 1, (size_t)size, f) : 0;
    fclose(f);
    return p;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        list();
        return 0;
    }
    size_t n, vectors = 0;
    int failures = 0;
    uint8_t *data = slurp(argv[1], &n);
    if (!data) {
        perror(argv[1]);
        return 1;
    }
    for (const uint8_t *p = data, *end = data + n; p < end; vectors++) {
        char name[256] = {0};
        size_t length = *p;
        if ((size_t)(end - p) < length + 7) break;
        memcpy(name, p + 1, length);
        p += 1 + length;
        int16_t version = (int16_t)vv_get16(p);
        size_t size = vv_get32(p + 2);
        if (size > (size_t)(end - p) - 6) break;
        const struct vv_msg_schema *s = schema_of(name);
        if (s)
            failures += check(s, version, p + 6, size);
        else
            failures++;
        p += 6 + size;
    }
    printf("%zu vectors, %d failures\n", vectors, failures);
    free(data);
    return failures || !vectors;
}
