/* walk.h — what every walker of a schema table asks of a field. Private to src/wire; the contract of the tables
 * is varve/wire.h. */
#ifndef VARVE_WIRE_WALK_H
#define VARVE_WIRE_WALK_H
#include "varve/wire.h"

/* Every array member of a generated struct has this shape. */
struct walk_array {
    void *v;
    int32_t n;
};

static inline bool walk_tagged(const struct vv_msg_field *f, int16_t version)
{
    return version >= f->tag_min && version <= f->tag_max;
}

/* In the version, and not as a tagged field. */
static inline bool walk_plain(const struct vv_msg_field *f, int16_t version)
{
    return version >= f->min && version <= f->max && !walk_tagged(f, version);
}

static inline bool walk_nullable(const struct vv_msg_field *f, int16_t version)
{
    return version >= f->null_min && version <= f->null_max;
}

/* Bytes on the wire of types of fixed width, else 0. */
static inline size_t walk_wire_width(uint8_t type)
{
    static const uint8_t width[] = {[VV_T_BOOL] = 1, [VV_T_INT8] = 1, [VV_T_INT16] = 2, [VV_T_INT32] = 4,
                                    [VV_T_INT64] = 8, [VV_T_FLOAT64] = 8, [VV_T_UUID] = 16, [VV_T_ARRAY] = 0};
    return width[type];
}

/* Bytes of a value in memory; sub for structs. */
static inline size_t walk_size(uint8_t type, const struct vv_msg_struct *sub)
{
    static const uint8_t size[] = {
        [VV_T_BOOL] = sizeof(bool), [VV_T_INT8] = 1, [VV_T_INT16] = 2, [VV_T_INT32] = 4, [VV_T_INT64] = 8,
        [VV_T_FLOAT64] = sizeof(double), [VV_T_UUID] = 16, [VV_T_STRING] = sizeof(struct vv_str), [VV_T_BYTES] = sizeof(struct vv_bytes),
        [VV_T_RECORDS] = sizeof(struct vv_records), [VV_T_ARRAY] = sizeof(struct walk_array)};
    return type == VV_T_STRUCT ? sub->size : size[type];
}

void walk_default(const struct vv_msg_field *f, uint8_t *at);         /* sets it */
bool walk_is_default(const struct vv_msg_field *f, const uint8_t *at); /* deep for embedded structs */
#endif
