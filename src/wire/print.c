/* print.c — a message on one line, near JSON, for people who debug. Contract: varve/wire.h.
 * Only the fields the version has; record bytes never; secret fields as "…". Bytes in hex, at most 64 of them.
 * Pure but for the stream; any thread. */
#include "walk.h"

#include <inttypes.h>

enum { BYTES_SHOWN_MAX = 64 };

static void print_struct(const struct vv_msg_struct *type, int16_t version, const uint8_t *at, FILE *to);

/* Everything outside printable ASCII is escaped: what a peer sent can not steer a terminal. */
static void print_string(const struct vv_str *s, FILE *to)
{
    if (s->n < 0) {
        fputs("null", to);
        return;
    }
    fputc('"', to);
    for (int32_t i = 0; i < s->n; i++) {
        unsigned char c = (unsigned char)s->p[i];
        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c >= 0x20 && c < 0x7f)
            fputc(c, to);
        else
            fprintf(to, "\\x%02x", c);
    }
    fputc('"', to);
}

static void print_bytes(const struct vv_bytes *b, FILE *to)
{
    if (b->n < 0) {
        fputs("null", to);
        return;
    }
    fputc('"', to);
    for (int32_t i = 0; i < VV_MIN(b->n, BYTES_SHOWN_MAX); i++)
        fprintf(to, "%02x", b->p[i]);
    fprintf(to, b->n > BYTES_SHOWN_MAX ? "… (%" PRId32 " bytes)\"" : "\"", b->n);
}

static void print_records(const struct vv_records *r, FILE *to)
{
    if (r->chain)
        fprintf(to, "\"%zu bytes\"", r->chain->bytes);
    else if (r->n < 0)
        fputs("null", to);
    else
        fprintf(to, "\"%" PRId32 " bytes\"", r->n);
}

static void print_scalar(uint8_t type, const uint8_t *at, FILE *to)
{
    char text[23];
    int16_t v16;
    int32_t v32;
    int64_t v64;
    double f64;
    switch (type) {
    case VV_T_BOOL:
        fputs(*(const bool *)at ? "true" : "false", to);
        break;
    case VV_T_INT8:
        fprintf(to, "%d", (int8_t)*at);
        break;
    case VV_T_INT16:
        memcpy(&v16, at, sizeof v16);
        fprintf(to, "%d", v16);
        break;
    case VV_T_INT32:
        memcpy(&v32, at, sizeof v32);
        fprintf(to, "%" PRId32, v32);
        break;
    case VV_T_INT64:
        memcpy(&v64, at, sizeof v64);
        fprintf(to, "%" PRId64, v64);
        break;
    case VV_T_FLOAT64:
        memcpy(&f64, at, sizeof f64);
        if (f64 - f64 == 0)
            fprintf(to, "%.17g", f64);
        else
            fputs("null", to); /* JSON has no infinity */
        break;
    case VV_T_UUID:
        vv_uuid_text(*(const struct vv_uuid *)(const void *)at, text);
        fprintf(to, "\"%s\"", text);
        break;
    case VV_T_STRING:
        print_string((const void *)at, to);
        break;
    case VV_T_BYTES:
        print_bytes((const void *)at, to);
        break;
    default:
        print_records((const void *)at, to);
    }
}

static void print_array(const struct vv_msg_field *f, int16_t version, const uint8_t *at, FILE *to)
{
    const struct walk_array *array = (const void *)at;
    size_t size = walk_size(f->elem, f->sub);
    if (array->n < 0) {
        fputs("null", to);
        return;
    }
    fputc('[', to);
    for (int32_t i = 0; i < array->n; i++) {
        const uint8_t *element = (const uint8_t *)array->v + (size_t)i * size;
        if (i) fputs(", ", to);
        if (f->elem == VV_T_STRUCT)
            print_struct(f->sub, version, element, to);
        else
            print_scalar(f->elem, element, to);
    }
    fputc(']', to);
}

static void print_field(const struct vv_msg_field *f, int16_t version, const uint8_t *at, FILE *to)
{
    if (f->flags & VV_F_SECRET) {
        fputs("\"…\"", to);
    } else if (f->type == VV_T_ARRAY) {
        print_array(f, version, at, to);
    } else if (f->type == VV_T_STRUCT) {
        if (f->flags & VV_F_POINTER) at = *(const uint8_t *const *)(const void *)at;
        if (at)
            print_struct(f->sub, version, at, to);
        else
            fputs("null", to);
    } else {
        print_scalar(f->type, at, to);
    }
}

static void print_struct(const struct vv_msg_struct *type, int16_t version, const uint8_t *at, FILE *to)
{
    const char *between = "";
    fputc('{', to);
    for (uint16_t i = 0; i < type->nfields; i++) {
        const struct vv_msg_field *f = &type->fields[i];
        if (!walk_plain(f, version) && !walk_tagged(f, version)) continue;
        fprintf(to, "%s\"%s\": ", between, f->name);
        print_field(f, version, at + f->offset, to);
        between = ", ";
    }
    fputc('}', to);
}

void vv_msg_print(const struct vv_msg_schema *schema, int16_t version, const void *msg, FILE *to)
{
    print_struct(schema->root, version, msg, to);
}
