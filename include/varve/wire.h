/* wire.h — Kafka's messages as data: schema tables, and one codec that walks them.
 *
 * Every message is a C struct in gen/messages.h (generated from src/wire/schema/ by src/wire/gen.py; it keeps
 * Kafka's CamelCase, the first letter always upper case) and a table `vv_schema_<Message>`. Nested structs are
 * `struct <Message>_<Struct>` with a table `vv_struct_<Message>_<Struct>`.
 *
 * Shapes: arrays are {T *v; int32_t n}, n = -1 is null. A struct that may be null is a pointer. Strings are not
 * NUL-terminated. A field a version lacks is decoded as its default.
 * Lifetime: what vv_msg_decode() gives points into the input (strings, bytes, records) and the arena (arrays).
 * Before filling a message or a nested struct for encoding, initialise it (VV_MSG_INIT, VV_STRUCT_INIT,
 * VV_ARRAY_NEW do): defaults are not all zero.
 * Threads: pure functions; any thread. Errors: VV_E_PROTO malformed, VV_E_LIMIT arena full,
 * VV_UNSUPPORTED_VERSION a version or a value the version can not carry, VV_E_NOMEM.
 * Source: the Kafka protocol guide and KIP-482 (flexible versions, tagged fields). */
#ifndef VARVE_WIRE_H
#define VARVE_WIRE_H
#include "varve/buf.h"
#include "varve/bytes.h"
#include "varve/error.h"

#include <stdio.h>
#include <string.h>

struct vv_str { const char *p; int32_t n; };      /* n = -1 null */
struct vv_bytes { const uint8_t *p; int32_t n; }; /* n = -1 null */
/* Record batches. Decoded: p, n into the input. Encoding: with chain set, its bytes are spliced by reference. */
struct vv_records { const uint8_t *p; int32_t n; const struct vv_chain *chain; };

#define VV_STR_NULL ((struct vv_str){NULL, -1})
#define VV_STR_ARG(s) ((s).n < 0 ? 0 : (s).n), ((s).p ? (s).p : "")
#define VV_STR_LIT(s) ((struct vv_str){"" s, (int32_t)sizeof(s) - 1})
static inline struct vv_str vv_str_c(const char *s) /* NULL becomes null */
{
    return s ? (struct vv_str){s, (int32_t)strlen(s)} : VV_STR_NULL;
}
static inline bool vv_str_eq(struct vv_str a, struct vv_str b)
{
    return a.n == b.n && (a.n <= 0 || !memcmp(a.p, b.p, (size_t)a.n));
}
static inline bool vv_str_is(struct vv_str a, const char *s)
{
    return vv_str_eq(a, vv_str_c(s));
}

enum vv_type {
    VV_T_BOOL, VV_T_INT8, VV_T_INT16, VV_T_INT32, VV_T_INT64, VV_T_FLOAT64, VV_T_UUID,
    VV_T_STRING, VV_T_BYTES, VV_T_RECORDS, VV_T_STRUCT, VV_T_ARRAY,
};
enum vv_field_flags {
    VV_F_IGNORABLE = 1, /* dropped in silence when the version lacks it */
    VV_F_DEF_NULL = 2,  /* default is null */
    VV_F_POINTER = 4,   /* a struct that may be null */
    VV_F_NOFLEX = 8,    /* 16-bit length in every version */
    VV_F_SECRET = 16,   /* never printed */
};
#define VV_VERSION_OPEN 32767 /* "and above" */
#define VV_VERSION_NONE 32767 /* as a minimum: in no version */

struct vv_msg_struct;
struct vv_msg_field {
    const char *name;
    const struct vv_msg_struct *sub; /* of structs and arrays of structs */
    int64_t def;                     /* default of numbers and bools */
    uint16_t offset;                 /* in the C struct */
    uint16_t flags;
    uint8_t type, elem;              /* enum vv_type; elem: of an array's elements */
    int16_t min, max;                /* versions that have it */
    int16_t null_min, null_max;      /* versions in which it may be null */
    int16_t tag, tag_min, tag_max;   /* versions in which it is a tagged field */
};
struct vv_msg_struct {
    const char *name;
    const struct vv_msg_field *fields;
    uint16_t nfields, size; /* size: of the C struct */
};
struct vv_msg_schema {
    const char *name;
    const struct vv_msg_struct *root;
    int16_t min, max; /* versions the codec knows */
    int16_t flexible; /* first flexible one, VV_VERSION_NONE without */
};

/* Reads a message of n bytes at p into *out (a struct of the schema). Array memory comes from the arena as
 * elements appear, never by a declared count. *used (may be NULL) tells what was read: trailing bytes are the
 * caller's to refuse. */
int vv_msg_decode(const struct vv_msg_schema *schema, int16_t version, const uint8_t *p, size_t n,
                  struct vv_arena *arena, void *out, size_t *used);
/* Appends the message. After an error the output holds a part of it: release it. */
int vv_msg_encode(const struct vv_msg_schema *schema, int16_t version, const void *msg, struct vv_out *out);
void vv_msg_init(const struct vv_msg_schema *schema, void *msg);       /* defaults */
void vv_struct_init(const struct vv_msg_struct *type, void *at);       /* defaults of a nested struct */
void *vv_struct_array(const struct vv_msg_struct *type, struct vv_arena *arena, int32_t n); /* NULL: arena full */
/* One line, near JSON; secret fields and record bytes are not shown. For debugging: use open_memstream. */
void vv_msg_print(const struct vv_msg_schema *schema, int16_t version, const void *msg, FILE *to);
/* Fills a message with values that version can carry, the same for the same seed. For tests. */
int vv_msg_random(const struct vv_msg_schema *schema, int16_t version, uint64_t seed, struct vv_arena *arena,
                  void *msg);

/* VV_MSG_INIT(ProduceResponse, &response); VV_STRUCT_INIT(ProduceResponse_NodeEndpoint, &endpoint);
 * VV_ARRAY_NEW(response.NodeEndpoints, ProduceResponse_NodeEndpoint, arena, 3) fills .v and .n with initialised
 * elements and is 0, VV_E_LIMIT or VV_E_NOMEM. VV_PLAIN_ARRAY_NEW(topic.ReplicaNodes, arena, 3) does it for arrays of numbers. */
#define VV_MSG_INIT(M, ptr) vv_struct_init(vv_schema_##M.root, (struct M *){ptr})
#define VV_STRUCT_INIT(S, ptr) vv_struct_init(&vv_struct_##S, (struct S *){ptr})
#define VV_ARRAY_NEW(field, S, arena, count)                                                        \
    (((field).v = (struct S *)vv_struct_array(&vv_struct_##S, (arena), (int32_t)(count)))           \
         ? ((field).n = (int32_t)(count), 0)                                                        \
         : ((field).n = 0, vv_arena_err(arena)))
#define VV_PLAIN_ARRAY_NEW(field, arena, count)                                                     \
    (((field).v = vv_arena_alloc((arena), ((size_t)(count) + 1) * sizeof *(field).v))               \
         ? ((field).n = (int32_t)(count), 0)                                                        \
         : ((field).n = 0, vv_arena_err(arena)))

struct vv_api {
    int16_t key;
    const char *name;
    const struct vv_msg_schema *request, *response; /* their min and max bound what is decoded */
    int16_t min, max;                               /* advertised by ApiVersions */
    int16_t flexible;                               /* first flexible version, VV_VERSION_NONE without */
};
extern const struct vv_api vv_apis[]; /* ordered by key */
extern const size_t vv_apis_count;
const struct vv_api *vv_api_by_key(int16_t key); /* NULL: not one of ours */

/* Every schema, ends with NULL. */
extern const struct vv_msg_schema *const vv_schemas[];

struct vv_request_header {
    int16_t key, version;
    int32_t correlation_id;
    struct vv_str client_id;  /* points into the input */
    const struct vv_api *api; /* NULL when the key is not one of ours */
    size_t size;              /* bytes before the body */
};
/* Version of the request header before a body; of the response header: 0 for ApiVersions, else 1 when flexible. */
int16_t vv_request_header_version(int16_t key, int16_t version);
int16_t vv_response_header_version(int16_t key, int16_t version);
/* Also succeeds for keys and versions that are not served (the caller answers those); E_PROTO when malformed. */
int vv_request_header_decode(const uint8_t *p, size_t n, struct vv_request_header *header);
int vv_request_header_encode(const struct vv_request_header *header, struct vv_out *out);
int vv_response_header_encode(int16_t key, int16_t version, int32_t correlation_id, struct vv_out *out);
/* *used: bytes before the body. */
int vv_response_header_decode(int16_t key, int16_t version, const uint8_t *p, size_t n, int32_t *correlation_id,
                              size_t *used);
#endif
