/* encode.c — structs to bytes by walking a schema table. Contract: varve/wire.h.
 *
 * A tagged field is preceded by its size. Those few are walked twice: once by a counting encoder (out = NULL),
 * once for real. One walk serves both, so they can not disagree. Records with a chain are spliced by reference.
 * A value the version can not carry is VV_UNSUPPORTED_VERSION unless the field is ignorable.
 * Pure; any thread. */
#include "walk.h"

struct enc {
    struct vv_out *out; /* NULL: count only */
    size_t size;        /* bytes so far */
    int16_t version;
    bool flexible;
    uint8_t scratch[16]; /* where a counting (or failed) encoder writes */
};

static int enc_struct(struct enc *e, const struct vv_msg_struct *type, const uint8_t *at);

/* Room for n ≤ 16 bytes; never NULL. */
static inline uint8_t *put(struct enc *e, size_t n)
{
    e->size += n;
    uint8_t *p = e->out ? vv_out_reserve(e->out, n) : NULL;
    return p ? p : e->scratch;
}

static void put_bytes(struct enc *e, const void *p, size_t n)
{
    e->size += n;
    if (e->out && n) vv_out_bytes(e->out, p, n);
}

static void put_uvarint(struct enc *e, uint32_t v)
{
    uint8_t tmp[5];
    size_t n = vv_uvarint_put(tmp, v);
    memcpy(put(e, n), tmp, n);
}

static void put_length(struct enc *e, bool flexible, bool wide, int32_t n)
{
    if (flexible)
        put_uvarint(e, (uint32_t)n + 1);
    else if (wide)
        vv_put32(put(e, 4), (uint32_t)n);
    else
        vv_put16(put(e, 2), (uint16_t)n);
}

static int enc_blob(struct enc *e, bool flexible, bool string, bool nullable, const void *p, int32_t n)
{
    if (n < 0 && !nullable) return VV_UNSUPPORTED_VERSION;
    if (string && n > INT16_MAX) return VV_E_LIMIT;
    put_length(e, flexible, !string, n < 0 ? -1 : n);
    if (n > 0) put_bytes(e, p, (size_t)n);
    return VV_OK;
}

static int enc_records(struct enc *e, bool flexible, bool nullable, const struct vv_records *r)
{
    if (!r->chain) return enc_blob(e, flexible, false, nullable, r->p, r->n);
    if (r->chain->bytes >= INT32_MAX) return VV_E_LIMIT;
    put_length(e, flexible, true, (int32_t)r->chain->bytes);
    e->size += r->chain->bytes;
    if (e->out) vv_out_chain(e->out, r->chain);
    return VV_OK;
}

static int enc_scalar(struct enc *e, uint8_t type, bool flexible, bool nullable, const uint8_t *at)
{
    switch (type) {
    case VV_T_BOOL:
        *put(e, 1) = *(const bool *)at ? 1 : 0;
        return VV_OK;
    case VV_T_INT8:
        *put(e, 1) = *at;
        return VV_OK;
    case VV_T_INT16: {
        uint16_t v;
        memcpy(&v, at, sizeof v);
        vv_put16(put(e, 2), v);
        return VV_OK;
    }
    case VV_T_INT32: {
        uint32_t v;
        memcpy(&v, at, sizeof v);
        vv_put32(put(e, 4), v);
        return VV_OK;
    }
    case VV_T_INT64:
    case VV_T_FLOAT64: {
        uint64_t v;
        memcpy(&v, at, sizeof v);
        vv_put64(put(e, 8), v);
        return VV_OK;
    }
    case VV_T_UUID:
        memcpy(put(e, 16), at, 16);
        return VV_OK;
    case VV_T_STRING: {
        const struct vv_str *s = (const void *)at;
        return enc_blob(e, flexible, true, nullable, s->p, s->n);
    }
    case VV_T_BYTES: {
        const struct vv_bytes *b = (const void *)at;
        return enc_blob(e, flexible, false, nullable, b->p, b->n);
    }
    case VV_T_RECORDS:
        return enc_records(e, flexible, nullable, (const void *)at);
    default:
        return VV_E_STATE;
    }
}

static int enc_array(struct enc *e, const struct vv_msg_field *f, const uint8_t *at)
{
    const struct walk_array *array = (const void *)at;
    size_t size = walk_size(f->elem, f->sub);
    if (array->n < 0 && !walk_nullable(f, e->version)) return VV_UNSUPPORTED_VERSION;
    put_length(e, e->flexible, true, array->n < 0 ? -1 : array->n);
    for (int32_t i = 0; i < array->n; i++) {
        const uint8_t *element = (const uint8_t *)array->v + (size_t)i * size;
        int err = f->elem == VV_T_STRUCT ? enc_struct(e, f->sub, element)
                                         : enc_scalar(e, f->elem, e->flexible, false, element);
        if (err) return err;
    }
    return VV_OK;
}

static int enc_struct_field(struct enc *e, const struct vv_msg_field *f, const uint8_t *at)
{
    bool nullable = walk_nullable(f, e->version);
    if (f->flags & VV_F_POINTER) at = *(const uint8_t *const *)(const void *)at;
    if (!at && !nullable) return VV_UNSUPPORTED_VERSION;
    if (nullable) *put(e, 1) = at ? 1 : 0xff;
    return at ? enc_struct(e, f->sub, at) : VV_OK;
}

static int enc_field(struct enc *e, const struct vv_msg_field *f, const uint8_t *at)
{
    if (f->type == VV_T_ARRAY) return enc_array(e, f, at);
    if (f->type == VV_T_STRUCT) return enc_struct_field(e, f, at);
    bool flexible = e->flexible && !(f->flags & VV_F_NOFLEX);
    return enc_scalar(e, f->type, flexible, walk_nullable(f, e->version), at);
}

static int enc_tag(struct enc *e, const struct vv_msg_field *f, const uint8_t *at)
{
    struct enc count = {.version = e->version, .flexible = true};
    int err = enc_field(&count, f, at);
    if (err) return err;
    if (count.size > INT32_MAX) return VV_E_LIMIT;
    put_uvarint(e, (uint32_t)f->tag);
    put_uvarint(e, (uint32_t)count.size);
    return enc_field(e, f, at);
}

/* Tags go out in ascending order; defaults do not go out. A struct has a handful at most. */
static int enc_tags(struct enc *e, const struct vv_msg_struct *type, const uint8_t *at)
{
    uint32_t count = 0;
    int16_t highest = -1;
    for (uint16_t i = 0; i < type->nfields; i++) {
        const struct vv_msg_field *f = &type->fields[i];
        if (!walk_tagged(f, e->version) || walk_is_default(f, at + f->offset)) continue;
        count++;
        highest = VV_MAX(highest, f->tag);
    }
    put_uvarint(e, count);
    for (int16_t tag = 0; tag <= highest; tag++) {
        for (uint16_t i = 0; i < type->nfields; i++) {
            const struct vv_msg_field *f = &type->fields[i];
            if (f->tag != tag || !walk_tagged(f, e->version) || walk_is_default(f, at + f->offset)) continue;
            int err = enc_tag(e, f, at + f->offset);
            if (err) return err;
        }
    }
    return VV_OK;
}

static int enc_struct(struct enc *e, const struct vv_msg_struct *type, const uint8_t *at)
{
    for (uint16_t i = 0; i < type->nfields; i++) {
        const struct vv_msg_field *f = &type->fields[i];
        if (walk_plain(f, e->version)) {
            int err = enc_field(e, f, at + f->offset);
            if (err) return err;
        } else if (!(f->flags & VV_F_IGNORABLE) && !walk_tagged(f, e->version) &&
                   !walk_is_default(f, at + f->offset)) {
            return VV_UNSUPPORTED_VERSION;
        }
    }
    return e->flexible ? enc_tags(e, type, at) : VV_OK;
}

int vv_msg_encode(const struct vv_msg_schema *schema, int16_t version, const void *msg, struct vv_out *out)
{
    if (version < schema->min || version > schema->max) return VV_UNSUPPORTED_VERSION;
    struct enc e = {.out = out, .version = version, .flexible = version >= schema->flexible};
    int err = enc_struct(&e, schema->root, msg);
    return err ? err : out->err;
}
