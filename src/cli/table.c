/* table.c — cells are kept as text and printed once, when the widths are known. */
#include "table.h"

#include "varve/buf.h"
#include "varve/bytes.h"

#include <ctype.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 16

struct vv_table {
    struct vv_arena arena;
    char *name[COLUMNS_MAX];
    char kind[COLUMNS_MAX]; /* 0, '#', '?' */
    size_t columns;
    char **cells;
    size_t count, cap;
    bool broken; /* out of memory */
};

struct vv_table *vv_table_new(const char *columns)
{
    struct vv_table *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    vv_arena_init(&t->arena, 0);
    while (*columns && t->columns < COLUMNS_MAX) {
        size_t n = strcspn(columns, " ");
        size_t i = t->columns++;
        t->kind[i] = columns[n - 1] == '#' || columns[n - 1] == '?' ? columns[n - 1] : 0;
        t->name[i] = vv_arena_strdup(&t->arena, columns, n - (t->kind[i] ? 1 : 0));
        t->broken |= !t->name[i];
        columns += n;
        columns += *columns == ' ';
    }
    return t;
}

void vv_table_cell(struct vv_table *t, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    if (!t || t->broken) return;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0) text = NULL;
    va_end(ap);
    if (t->count == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 256;
        char **cells = realloc(t->cells, cap * sizeof *cells);
        if (cells) {
            t->cells = cells;
            t->cap = cap;
        }
    }
    char *kept = text && t->count < t->cap ? text : NULL;
    if (kept)
        t->cells[t->count++] = kept;
    else
        free(text);
    t->broken |= !kept;
}

size_t vv_table_rows(const struct vv_table *t)
{
    return t->count / t->columns;
}

static int compare_rows(const void *a, const void *b, void *ctx)
{
    const struct vv_table *t = ctx;
    char *const *x = a, *const *y = b;
    for (size_t c = 0; c < t->columns; c++) {
        int d = strcmp(x[c], y[c]);
        if (d && t->kind[c] == '#') {
            long long m = strtoll(x[c], NULL, 10), n = strtoll(y[c], NULL, 10);
            d = (m > n) - (m < n);
        }
        if (d) return d;
    }
    return 0;
}

void vv_table_sort(struct vv_table *t)
{
    if (t && t->count)
        qsort_r(t->cells, vv_table_rows(t), t->columns * sizeof *t->cells, compare_rows, t);
}

void vv_table_free(struct vv_table *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->count; i++)
        free(t->cells[i]);
    free(t->cells);
    vv_arena_release(&t->arena);
    free(t);
}

/* Columns on the screen: UTF-8 continuation bytes take none. */
static size_t width(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void pad(size_t n)
{
    while (n--)
        putchar(' ');
}

static void print_text(const struct vv_table *t)
{
    size_t widths[COLUMNS_MAX];
    for (size_t c = 0; c < t->columns; c++) {
        widths[c] = width(t->name[c]);
        for (size_t i = c; i < t->count; i += t->columns)
            widths[c] = VV_MAX(widths[c], width(t->cells[i]));
    }
    for (size_t r = 0; r <= vv_table_rows(t); r++) {
        for (size_t c = 0; c < t->columns; c++) {
            const char *cell = r ? t->cells[(r - 1) * t->columns + c] : t->name[c];
            size_t gap = widths[c] - width(cell);
            if (t->kind[c] == '#') pad(gap);
            fputs(cell, stdout);
            if (c + 1 < t->columns) pad((t->kind[c] == '#' ? 0 : gap) + 2);
        }
        putchar('\n');
    }
}

static json_t *json_cell(char kind, const char *cell)
{
    if (!strcmp(cell, "-")) return json_null();
    if (kind == '?') return json_boolean(!strcmp(cell, "true"));
    if (kind == '#' && strpbrk(cell, ".e")) return json_real(strtod(cell, NULL));
    if (kind == '#') return json_integer(strtoll(cell, NULL, 10));
    json_t *text = json_string(cell);
    return text ? text : json_string("(not UTF-8)");
}

static int print_json(const struct vv_table *t)
{
    json_t *rows = json_array();
    for (size_t r = 0; r < vv_table_rows(t); r++) {
        json_t *row = json_object();
        for (size_t c = 0; c < t->columns; c++) {
            char key[64];
            size_t n = 0;
            for (const char *p = t->name[c]; *p && n < sizeof key - 1; p++)
                key[n++] = *p == '-' ? '_' : (char)tolower((unsigned char)*p);
            key[n] = 0;
            json_object_set_new(row, key, json_cell(t->kind[c], t->cells[r * t->columns + c]));
        }
        json_array_append_new(rows, row);
    }
    int rc = json_dumpf(rows, stdout, JSON_INDENT(2)) ? VV_EXIT_FAILED : 0;
    putchar('\n');
    json_decref(rows);
    return rc;
}

int vv_table_print(struct vv_table *t, bool json)
{
    int rc = !t || t->broken ? VV_EXIT_FAILED : 0;
    if (!rc && json)
        rc = print_json(t);
    else if (!rc)
        print_text(t);
    vv_table_free(t);
    return rc;
}

bool vv_table_wants_json(const struct vv_args *a, bool *json)
{
    const char *format = vv_arg(a, "output");
    *json = format && !strcmp(format, "json");
    if (format && !*json && strcmp(format, "table")) {
        vv_cli_usage(a, "--output %s: must be table or json", format);
        return false;
    }
    return true;
}

const char *vv_human_bytes(double bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t u = 0;
    while (bytes >= 1024 && u + 1 < VV_COUNT(units)) {
        bytes /= 1024;
        u++;
    }
    snprintf(out, 32, u && bytes < 100 ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return out;
}
