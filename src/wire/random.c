/* random.c — messages full of values, from a seed. Contract: varve/wire.h. For tests and fuzzing: the generator is
 * its own (SplitMix64), so that a seed gives the same message everywhere. Pure; any thread. */
#include "walk.h"

enum { STRING_MAX = 24, ARRAY_MAX = 3 };

struct rnd {
    uint64_t state;
    struct vv_arena *arena;
    int16_t version;
};

static int rnd_struct(struct rnd *r, const struct vv_msg_struct *type, uint8_t *at);

static uint64_t next(struct rnd *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int rnd_scalar(struct rnd *r, uint8_t type, uint8_t *at)
{
    uint64_t v = next(r);
    int32_t n = (int32_t)(next(r) % STRING_MAX);
    if (v % 4 == 0) v &= 0x7f; /* small numbers now and then */
    switch (type) {
    case VV_T_BOOL:
        *(bool *)at = v >> 63;
        return VV_OK;
    case VV_T_UUID:
        for (int i = 0; i < 16; i++)
            at[i] = (uint8_t)next(r);
        return VV_OK;
    case VV_T_STRING:
    case VV_T_BYTES:
    case VV_T_RECORDS:
        break;
    default:
        memcpy(at, &v, walk_size(type, NULL));
        return VV_OK;
    }
    uint8_t *p = vv_arena_alloc(r->arena, STRING_MAX);
    if (!p) return VV_E_LIMIT;
    for (int32_t i = 0; i < n; i++)
        p[i] = type == VV_T_STRING ? (uint8_t)('a' + next(r) % 26) : (uint8_t)next(r);
    if (type == VV_T_STRING)
        *(struct vv_str *)(void *)at = (struct vv_str){(char *)p, n};
    else if (type == VV_T_BYTES)
        *(struct vv_bytes *)(void *)at = (struct vv_bytes){p, n};
    else
        *(struct vv_records *)(void *)at = (struct vv_records){p, n, NULL};
    return VV_OK;
}

static int rnd_array(struct rnd *r, const struct vv_msg_field *f, uint8_t *at)
{
    struct walk_array *array = (struct walk_array *)(void *)at;
    int32_t n = (int32_t)(next(r) % (ARRAY_MAX + 1));
    size_t size = walk_size(f->elem, f->sub);
    uint8_t *v = vv_arena_alloc(r->arena, (size_t)(n + 1) * size);
    if (!v) return VV_E_LIMIT;
    *array = (struct walk_array){v, n};
    for (int32_t i = 0; i < n; i++) {
        uint8_t *element = v + (size_t)i * size;
        int err = f->elem == VV_T_STRUCT ? rnd_struct(r, f->sub, element) : rnd_scalar(r, f->elem, element);
        if (err) return err;
    }
    return VV_OK;
}

static void set_null(const struct vv_msg_field *f, uint8_t *at)
{
    switch (f->type) {
    case VV_T_STRING:
        *(struct vv_str *)(void *)at = VV_STR_NULL;
        break;
    case VV_T_BYTES:
        *(struct vv_bytes *)(void *)at = (struct vv_bytes){NULL, -1};
        break;
    case VV_T_RECORDS:
        *(struct vv_records *)(void *)at = (struct vv_records){NULL, -1, NULL};
        break;
    case VV_T_ARRAY:
        *(struct walk_array *)(void *)at = (struct walk_array){NULL, -1};
        break;
    default:
        *(void **)(void *)at = NULL;
    }
}

static int rnd_field(struct rnd *r, const struct vv_msg_field *f, uint8_t *at)
{
    if (walk_nullable(f, r->version) && next(r) % 4 == 0) {
        set_null(f, at);
        return VV_OK;
    }
    if (f->type == VV_T_ARRAY) return rnd_array(r, f, at);
    if (f->type != VV_T_STRUCT) return rnd_scalar(r, f->type, at);
    if (f->flags & VV_F_POINTER) {
        uint8_t *sub = vv_arena_alloc(r->arena, f->sub->size);
        if (!sub) return VV_E_LIMIT;
        *(void **)(void *)at = sub;
        at = sub;
    }
    return rnd_struct(r, f->sub, at);
}

static int rnd_struct(struct rnd *r, const struct vv_msg_struct *type, uint8_t *at)
{
    vv_struct_init(type, at);
    for (uint16_t i = 0; i < type->nfields; i++) {
        const struct vv_msg_field *f = &type->fields[i];
        bool tagged = walk_tagged(f, r->version);
        if (!tagged && !walk_plain(f, r->version)) continue;
        if (tagged && next(r) % 3 == 0) continue; /* leave the default */
        int err = rnd_field(r, f, at + f->offset);
        if (err) return err;
    }
    return VV_OK;
}

int vv_msg_random(const struct vv_msg_schema *schema, int16_t version, uint64_t seed, struct vv_arena *arena,
                  void *msg)
{
    struct rnd r = {.state = seed, .arena = arena, .version = version};
    memset(msg, 0, schema->root->size);
    if (version < schema->min || version > schema->max) return VV_UNSUPPORTED_VERSION;
    return rnd_struct(&r, schema->root, msg);
}
