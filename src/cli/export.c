/* export.c — see export.h. Written by hand, not with a JSON library: this is the inner loop of a replay. */
#include "export.h"

#include "varve/reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const formats[] = {"ndjson", "json", "csv", "raw"};

bool vv_export_format_parse(const char *text, enum vv_export_format *out)
{
    for (size_t i = 0; i < VV_COUNT(formats); i++)
        if (!strcmp(text, formats[i])) {
            *out = (enum vv_export_format)i;
            return true;
        }
    return false;
}

static char *room(struct vv_text *t, size_t n)
{
    if (t->broken) return NULL;
    if (t->cap - t->n < n) {
        size_t cap = VV_MAX(t->cap * 2, t->n + n + 4096);
        char *p = realloc(t->p, cap);
        if (!p) {
            t->broken = true;
            return NULL;
        }
        t->p = p;
        t->cap = cap;
    }
    return t->p + t->n;
}

static void put(struct vv_text *t, const void *p, size_t n)
{
    char *to = room(t, n);
    if (!to) return;
    if (n) memcpy(to, p, n);
    t->n += n;
}

static void puts_(struct vv_text *t, const char *s)
{
    put(t, s, strlen(s));
}

static void put_int(struct vv_text *t, int64_t v)
{
    char text[24], *p = text + sizeof text;
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do *--p = (char)('0' + u % 10);
    while (u /= 10);
    if (v < 0) *--p = '-';
    put(t, p, (size_t)(text + sizeof text - p));
}

/* Well-formed as Unicode defines it (table 3-7): no surrogates, nothing over-long, nothing above U+10FFFF. */
bool vv_utf8_ok(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint64_t eight;
        while (n - i >= 8 && (memcpy(&eight, p + i, 8), !(eight & 0x8080808080808080u))) i += 8;
        if (i == n) break;
        uint8_t c = p[i], low = 0x80, high = 0xbf;
        size_t more = 9;
        if (c < 0x80) more = 0;
        if (c >= 0xc2 && c <= 0xdf) more = 1;
        if (c >= 0xe0 && c <= 0xef) more = 2;
        if (c >= 0xf0 && c <= 0xf4) more = 3;
        if (c == 0xe0) low = 0xa0;
        if (c == 0xed) high = 0x9f;
        if (c == 0xf0) low = 0x90;
        if (c == 0xf4) high = 0x8f;
        if (more == 9 || more >= n - i) return false;
        for (size_t k = 1; k <= more; k++, low = 0x80, high = 0xbf)
            if (p[i + k] < low || p[i + k] > high) return false;
        i += more + 1;
    }
    return true;
}

static void put_string(struct vv_text *t, const uint8_t *p, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    char *q = room(t, n * 6 + 2), *start = q;
    if (!q) return;
    *q++ = '"';
    for (size_t i = 0; i < n; i++) {
        size_t run = i; /* what needs no escape is copied in one piece */
        while (i < n && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\') i++;
        memcpy(q, p + run, i - run);
        q += i - run;
        if (i == n) break;
        uint8_t c = p[i];
        *q++ = '\\';
        switch (c) {
        case '"':
        case '\\': *q++ = (char)c; break;
        case '\n': *q++ = 'n'; break;
        case '\r': *q++ = 'r'; break;
        case '\t': *q++ = 't'; break;
        default:
            memcpy(q, "u00", 3);
            q[3] = hex[c >> 4];
            q[4] = hex[c & 15];
            q += 5;
        }
    }
    *q++ = '"';
    t->n += (size_t)(q - start);
}

static void put_base64(struct vv_text *t, const uint8_t *p, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *q = room(t, n / 3 * 4 + 4), *start = q;
    if (!q) return;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        *q++ = digit[v >> 18];
        *q++ = digit[v >> 12 & 63];
        *q++ = i + 1 < n ? digit[v >> 6 & 63] : '=';
        *q++ = i + 2 < n ? digit[v & 63] : '=';
    }
    t->n += (size_t)(q - start);
}

static void put_bytes(struct vv_text *t, const uint8_t *p, int32_t n)
{
    if (n < 0) {
        puts_(t, "null");
    } else if (vv_utf8_ok(p, (size_t)n)) {
        put_string(t, p, (size_t)n);
    } else {
        puts_(t, "{\"base64\":\"");
        put_base64(t, p, (size_t)n);
        puts_(t, "\"}");
    }
}

struct header_list { struct vv_text *t; bool any; };

static int put_header(void *ctx, const uint8_t *key, int32_t key_n, const uint8_t *value, int32_t value_n)
{
    struct header_list *l = ctx;
    puts_(l->t, l->any ? ",{\"key\":" : "{\"key\":");
    put_bytes(l->t, key, key_n);
    puts_(l->t, ",\"value\":");
    put_bytes(l->t, value, value_n);
    puts_(l->t, "}");
    l->any = true;
    return 0;
}

static void put_headers(struct vv_text *t, const struct vv_record *r)
{
    struct header_list l = {t, false};
    puts_(t, "[");
    vv_record_headers(r, put_header, &l); /* the batch was checked: what cannot be decoded ends here */
    puts_(t, "]");
}

/* What all records of a partition begin with. */
static void make_prefix(struct vv_export *x)
{
    x->prefix.n = 0;
    puts_(&x->prefix, "{\"topic\":");
    put_string(&x->prefix, (const uint8_t *)x->topic, strlen(x->topic));
    puts_(&x->prefix, ",\"partition\":");
    put_int(&x->prefix, x->partition);
    puts_(&x->prefix, ",\"offset\":");
    x->prefix_of = x->partition;
}

static void put_json(struct vv_export *x, const struct vv_record *r, const char *type)
{
    struct vv_text *t = &x->out;
    if (!x->prefix.n || x->prefix_of != x->partition) make_prefix(x);
    put(t, x->prefix.p, x->prefix.n);
    t->broken |= x->prefix.broken;
    put_int(t, r->offset);
    puts_(t, ",\"timestamp\":");
    put_int(t, r->timestamp);
    puts_(t, ",\"timestampType\":\"");
    puts_(t, type);
    puts_(t, "\",\"key\":");
    put_bytes(t, r->key, r->key_n);
    puts_(t, ",\"value\":");
    put_bytes(t, r->value, r->value_n);
    puts_(t, ",\"headers\":");
    put_headers(t, r);
    puts_(t, "}");
}

/* ---- CSV ---- */

static void put_quoted(struct vv_text *t, const uint8_t *p, size_t n)
{
    char *q = room(t, n * 2 + 2), *start = q;
    if (!q) return;
    *q++ = '"';
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '"') *q++ = '"';
        *q++ = (char)p[i];
    }
    *q++ = '"';
    t->n += (size_t)(q - start);
}

/* Quotes where RFC 4180 wants them, and for the empty string, so that it is not null. */
static void put_cell(struct vv_text *t, const uint8_t *p, size_t n)
{
    bool plain = n > 0;
    for (size_t i = 0; i < n && plain; i++) plain = p[i] != ',' && p[i] != '"' && p[i] != '\n' && p[i] != '\r';
    if (plain)
        put(t, p, n);
    else
        put_quoted(t, p, n);
}

static void put_cell_bytes(struct vv_export *x, const uint8_t *p, int32_t n)
{
    if (n < 0) return;
    if (vv_utf8_ok(p, (size_t)n)) {
        put_cell(&x->out, p, (size_t)n);
        return;
    }
    x->scratch.n = 0;
    put_bytes(&x->scratch, p, n);
    put_cell(&x->out, (const uint8_t *)x->scratch.p, x->scratch.n);
}

static void put_csv(struct vv_export *x, const struct vv_record *r, const char *type)
{
    struct vv_text *t = &x->out;
    puts_(t, x->topic);
    puts_(t, ",");
    put_int(t, x->partition);
    puts_(t, ",");
    put_int(t, r->offset);
    puts_(t, ",");
    put_int(t, r->timestamp);
    puts_(t, ",");
    puts_(t, type);
    puts_(t, ",");
    put_cell_bytes(x, r->key, r->key_n);
    puts_(t, ",");
    put_cell_bytes(x, r->value, r->value_n);
    puts_(t, ",");
    x->scratch.n = 0;
    put_headers(&x->scratch, r);
    put_cell(t, (const uint8_t *)x->scratch.p, x->scratch.n);
    puts_(t, "\n");
}

/* ---- the whole ---- */

void vv_export_begin(struct vv_export *x)
{
    if (x->format == VV_EXPORT_JSON) puts_(&x->out, "[");
    if (x->format == VV_EXPORT_CSV) puts_(&x->out, "topic,partition,offset,timestamp,timestampType,key,value,headers\n");
}

void vv_export_record(struct vv_export *x, const struct vv_record *r, enum vv_ts_type ts)
{
    const char *type = ts == VV_LOG_APPEND_TIME ? "LogAppendTime" : "CreateTime";
    switch (x->format) {
    case VV_EXPORT_NDJSON:
        put_json(x, r, type);
        puts_(&x->out, "\n");
        break;
    case VV_EXPORT_JSON:
        puts_(&x->out, x->records ? ",\n" : "\n");
        put_json(x, r, type);
        break;
    case VV_EXPORT_CSV: put_csv(x, r, type); break;
    case VV_EXPORT_RAW:
        if (r->value_n > 0) put(&x->out, r->value, (size_t)r->value_n);
        puts_(&x->out, "\n");
        break;
    }
    x->records++;
}

void vv_export_end(struct vv_export *x)
{
    if (x->format == VV_EXPORT_JSON) puts_(&x->out, "\n]\n");
}

void vv_export_release(struct vv_export *x)
{
    free(x->out.p);
    free(x->scratch.p);
    free(x->prefix.p);
    x->out = x->scratch = x->prefix = (struct vv_text){0};
}
