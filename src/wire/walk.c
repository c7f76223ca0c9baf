/* walk.c — defaults of fields, structs and messages. Contract: varve/wire.h and walk.h. Pure; any thread. */
#include "walk.h"

void walk_default(const struct vv_msg_field *f, uint8_t *at)
{
    int32_t n = f->flags & VV_F_DEF_NULL ? -1 : 0;
    switch (f->type) {
    case VV_T_BOOL:
        *(bool *)at = f->def != 0;
        break;
    case VV_T_INT8:
    case VV_T_INT16:
    case VV_T_INT32:
    case VV_T_INT64:
    case VV_T_FLOAT64: /* its default is 0 */
        memcpy(at, &f->def, walk_size(f->type, NULL)); /* little-endian hosts only, as bytes.h is */
        break;
    case VV_T_UUID:
        memset(at, 0, 16);
        break;
    case VV_T_STRING:
        *(struct vv_str *)(void *)at = (struct vv_str){n ? NULL : "", n};
        break;
    case VV_T_BYTES:
        *(struct vv_bytes *)(void *)at = (struct vv_bytes){n ? NULL : (const uint8_t *)"", n};
        break;
    case VV_T_RECORDS: /* Kafka's default of records is null */
        *(struct vv_records *)(void *)at = (struct vv_records){NULL, -1, NULL};
        break;
    case VV_T_ARRAY:
        *(struct walk_array *)(void *)at = (struct walk_array){NULL, n};
        break;
    default:
        if (f->flags & VV_F_POINTER)
            *(void **)(void *)at = NULL;
        else
            vv_struct_init(f->sub, at);
    }
}

bool walk_is_default(const struct vv_msg_field *f, const uint8_t *at)
{
    int32_t n = f->flags & VV_F_DEF_NULL ? -1 : 0;
    const struct vv_records *records = (const void *)at;
    switch (f->type) {
    case VV_T_BOOL:
        return *(const bool *)at == (f->def != 0);
    case VV_T_INT8:
    case VV_T_INT16:
    case VV_T_INT32:
    case VV_T_INT64:
    case VV_T_FLOAT64: /* its default is 0 */
        return !memcmp(at, &f->def, walk_size(f->type, NULL));
    case VV_T_UUID:
        return vv_uuid_is_zero(*(const struct vv_uuid *)(const void *)at);
    case VV_T_STRING:
        return ((const struct vv_str *)(const void *)at)->n == n;
    case VV_T_BYTES:
        return ((const struct vv_bytes *)(const void *)at)->n == n;
    case VV_T_RECORDS:
        return !records->chain && records->n == -1;
    case VV_T_ARRAY:
        return ((const struct walk_array *)(const void *)at)->n == n;
    default:
        break;
    }
    if (f->flags & VV_F_POINTER) return !*(void *const *)(const void *)at;
    for (uint16_t i = 0; i < f->sub->nfields; i++)
        if (!walk_is_default(&f->sub->fields[i], at + f->sub->fields[i].offset)) return false;
    return true;
}

void vv_struct_init(const struct vv_msg_struct *type, void *at)
{
    for (uint16_t i = 0; i < type->nfields; i++)
        walk_default(&type->fields[i], (uint8_t *)at + type->fields[i].offset);
}

void vv_msg_init(const struct vv_msg_schema *schema, void *msg)
{
    vv_struct_init(schema->root, msg);
}

void *vv_struct_array(const struct vv_msg_struct *type, struct vv_arena *arena, int32_t n)
{
    if (n < 0) return NULL;
    uint8_t *v = vv_arena_alloc(arena, VV_MAX((size_t)n, (size_t)1) * type->size);
    for (int32_t i = 0; v && i < n; i++)
        vv_struct_init(type, v + (size_t)i * type->size);
    return v;
}
