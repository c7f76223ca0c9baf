/* decode.c — bytes to structs by walking a schema table. Contract: varve/wire.h.
 *
 * Invariants:
 * 1. Memory follows bytes. An array of scalars is checked against the bytes that are there before it is
 *    allocated; an array of structs grows by doubling while its elements are decoded, so a declared count costs
 *    nothing. The arena's limit is the last word.
 * 2. Nesting is that of the schema, which is a tree: recursion is bounded without a counter.
 * 3. Tags must ascend. So no known tag comes twice and unknown ones cost their bytes and nothing else.
 * Pure; any thread. */
#include "varve/wire.h"
#include "walk.h"
#include "tags.h"

struct dec {
    const uint8_t *p, *end;
    struct vv_arena *arena;
    int16_t version;
    bool flexible;
};

static int dec_struct(struct dec *d, const struct vv_msg_struct *type, uint8_t *out);

static inline size_t left(const struct dec *d)
{
    return (size_t)(d->end - d->p);
}

static int dec_uvarint(struct dec *d, uint32_t *v)
{
    if (d->p < d->end && *d->p < 0x80) {
        *v = *d->p++;
        return VV_OK;
    }
    size_t used = vv_uvarint_get(d->p, left(d), v);
    d->p += used;
    return used ? VV_OK : VV_E_PROTO;
}

/* A length or count of either form; -1 is null. wide: 32 bits when not flexible, else 16. */
static int dec_length(struct dec *d, bool flexible, bool wide, int32_t *n)
{
    if (flexible) {
        uint32_t v;
        if (dec_uvarint(d, &v)) return VV_E_PROTO;
        *n = (int32_t)(v - 1);
        return v <= (uint32_t)INT32_MAX ? VV_OK : VV_E_PROTO;
    }
    size_t width = wide ? 4 : 2;
    if (left(d) < width) return VV_E_PROTO;
    *n = wide ? (int32_t)vv_get32(d->p) : (int16_t)vv_get16(d->p);
    d->p += width;
    return *n >= -1 ? VV_OK : VV_E_PROTO;
}

static int dec_blob(struct dec *d, bool flexible, bool string, bool nullable, struct vv_bytes *out)
{
    int32_t n;
    if (dec_length(d, flexible, !string, &n)) return VV_E_PROTO;
    if (n < 0) {
        *out = (struct vv_bytes){NULL, -1};
        return nullable ? VV_OK : VV_E_PROTO;
    }
    if ((size_t)n > left(d) || (string && n > INT16_MAX)) return VV_E_PROTO;
    *out = (struct vv_bytes){d->p, n};
    d->p += n;
    return VV_OK;
}

/* One value of fixed width or a string of bytes: what arrays of scalars and fields have in common. */
static int dec_scalar(struct dec *d, uint8_t type, bool flexible, bool nullable, uint8_t *out)
{
    struct vv_bytes blob;
    int err;
    size_t width = walk_wire_width(type);
    if (left(d) < width) return VV_E_PROTO;
    switch (type) {
    case VV_T_BOOL:
        *(bool *)out = *d->p != 0;
        break;
    case VV_T_INT8:
        *out = *d->p;
        break;
    case VV_T_INT16: {
        uint16_t v = vv_get16(d->p);
        memcpy(out, &v, sizeof v);
        break;
    }
    case VV_T_INT32: {
        uint32_t v = vv_get32(d->p);
        memcpy(out, &v, sizeof v);
        break;
    }
    case VV_T_INT64:
    case VV_T_FLOAT64: {
        uint64_t v = vv_get64(d->p);
        memcpy(out, &v, sizeof v);
        break;
    }
    case VV_T_UUID:
        memcpy(out, d->p, 16);
        break;
    case VV_T_STRING:
        err = dec_blob(d, flexible, true, nullable, &blob);
        if (!err) *(struct vv_str *)(void *)out = (struct vv_str){(const char *)blob.p, blob.n};
        return err;
    case VV_T_BYTES:
        return dec_blob(d, flexible, false, nullable, (struct vv_bytes *)(void *)out);
    case VV_T_RECORDS:
        err = dec_blob(d, flexible, false, nullable, &blob);
        if (!err) *(struct vv_records *)(void *)out = (struct vv_records){blob.p, blob.n, NULL};
        return err;
    default:
        return VV_E_STATE;
    }
    d->p += width;
    return VV_OK;
}

static int dec_scalars(struct dec *d, const struct vv_msg_field *f, int32_t n, struct walk_array *out)
{
    size_t size = walk_size(f->elem, NULL), least = walk_wire_width(f->elem);
    if (!least) least = d->flexible ? 1 : 2; /* a length, at the least */
    if ((size_t)n > left(d) / least) return VV_E_PROTO;
    uint8_t *v = vv_arena_alloc(d->arena, (size_t)n * size);
    if (!v) return vv_arena_err(d->arena);
    *out = (struct walk_array){v, n};
    for (int32_t i = 0; i < n; i++) {
        int err = dec_scalar(d, f->elem, d->flexible, false, v + (size_t)i * size);
        if (err) return err;
    }
    return VV_OK;
}

static int dec_structs(struct dec *d, const struct vv_msg_field *f, int32_t n, struct walk_array *out)
{
    size_t size = f->sub->size, cap = 0, max = (size_t)n;
    uint8_t *v = NULL;
    if (max > left(d)) return VV_E_PROTO;
    for (size_t i = 0; i < max; i++) {
        if (i == cap) {
            size_t more = cap ? cap * 2 : VV_MAX(2048 / size, (size_t)1);
            more = VV_MIN(more, max);
            uint8_t *grown = vv_arena_alloc(d->arena, more * size);
            if (!grown) return vv_arena_err(d->arena);
            if (i) memcpy(grown, v, i * size);
            v = grown;
            cap = more;
        }
        int err = dec_struct(d, f->sub, v + i * size);
        if (err) return err;
    }
    *out = (struct walk_array){v, n};
    return VV_OK;
}

static int dec_array(struct dec *d, const struct vv_msg_field *f, uint8_t *out)
{
    struct walk_array *array = (struct walk_array *)(void *)out;
    int32_t n;
    if (dec_length(d, d->flexible, true, &n)) return VV_E_PROTO;
    *array = (struct walk_array){NULL, n};
    if (n < 0) return walk_nullable(f, d->version) ? VV_OK : VV_E_PROTO;
    if (n == 0) return VV_OK;
    array->n = 0;
    return f->elem == VV_T_STRUCT ? dec_structs(d, f, n, array) : dec_scalars(d, f, n, array);
}

/* A struct that may be null in this version is preceded by a byte, negative for null. */
static int dec_struct_field(struct dec *d, const struct vv_msg_field *f, uint8_t *out)
{
    if (walk_nullable(f, d->version)) {
        if (d->p == d->end) return VV_E_PROTO;
        if (*d->p++ & 0x80) {
            *(void **)(void *)out = NULL;
            return VV_OK;
        }
    }
    if (f->flags & VV_F_POINTER) {
        uint8_t *sub = vv_arena_alloc(d->arena, f->sub->size);
        if (!sub) return vv_arena_err(d->arena);
        *(void **)(void *)out = sub;
        out = sub;
    }
    return dec_struct(d, f->sub, out);
}

static int dec_field(struct dec *d, const struct vv_msg_field *f, uint8_t *out)
{
    if (f->type == VV_T_ARRAY) return dec_array(d, f, out);
    if (f->type == VV_T_STRUCT) return dec_struct_field(d, f, out);
    bool flexible = d->flexible && !(f->flags & VV_F_NOFLEX);
    return dec_scalar(d, f->type, flexible, walk_nullable(f, d->version), out);
}

/* One tagged field of `size` bytes: known ones must fill them exactly. */
static int dec_tag(struct dec *d, const struct vv_msg_struct *type, uint32_t tag, uint32_t size, uint8_t *out)
{
    const uint8_t *end = d->end, *next = d->p + size;
    for (uint16_t i = 0; i < type->nfields; i++) {
        const struct vv_msg_field *f = &type->fields[i];
        if (!walk_tagged(f, d->version) || (uint32_t)f->tag != tag) continue;
        d->end = next;
        int err = dec_field(d, f, out + f->offset);
        d->end = end;
        return err ? err : d->p == next ? VV_OK : VV_E_PROTO;
    }
    d->p = next;
    return VV_OK;
}

/* type NULL: every tag is unknown. */
static int dec_tags(struct dec *d, const struct vv_msg_struct *type, uint8_t *out)
{
    uint32_t count, tag, size;
    int64_t last = -1;
    if (dec_uvarint(d, &count) || count > left(d) / 2) return VV_E_PROTO;
    for (; count; count--) {
        if (dec_uvarint(d, &tag) || dec_uvarint(d, &size)) return VV_E_PROTO;
        if (tag <= last || size > left(d)) return VV_E_PROTO;
        last = tag;
        if (!type) {
            d->p += size;
            continue;
        }
        int err = dec_tag(d, type, tag, size, out);
        if (err) return err;
    }
    return VV_OK;
}

size_t vv_tags_skip(const uint8_t *p, size_t n)
{
    struct dec d = {.p = p, .end = p + n, .flexible = true};
    return dec_tags(&d, NULL, NULL) ? 0 : (size_t)(d.p - p);
}

static int dec_struct(struct dec *d, const struct vv_msg_struct *type, uint8_t *out)
{
    for (uint16_t i = 0; i < type->nfields; i++) {
        const struct vv_msg_field *f = &type->fields[i];
        if (!walk_plain(f, d->version)) {
            walk_default(f, out + f->offset);
            continue;
        }
        int err = dec_field(d, f, out + f->offset);
        if (err) return err;
    }
    return d->flexible ? dec_tags(d, type, out) : VV_OK;
}

int vv_msg_decode(const struct vv_msg_schema *schema, int16_t version, const uint8_t *p, size_t n,
                  struct vv_arena *arena, void *out, size_t *used)
{
    if (used) *used = 0;
    memset(out, 0, schema->root->size);
    if (version < schema->min || version > schema->max) return VV_UNSUPPORTED_VERSION;
    struct dec d = {.p = p, .end = p + n, .arena = arena, .version = version,
                    .flexible = version >= schema->flexible};
    int err = dec_struct(&d, schema->root, out);
    if (!err && used) *used = (size_t)(d.p - p);
    return err;
}
