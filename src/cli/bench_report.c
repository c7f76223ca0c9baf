/* bench_report.c — results as rows: aligned text for people, one JSON object for machines, from the same rows. */
#include "bench.h"
#include "probes.h"

#include "varve/bytes.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 64

struct row {
    const char *section, *key, *unit; /* literals */
    char text[128];                   /* instead of a value */
    int digits;
    double value;
};
struct vv_report {
    const char *what;
    struct row rows[ROWS_MAX];
    size_t count;
};

struct vv_report *vv_report_new(const char *what)
{
    struct vv_report *r = calloc(1, sizeof *r);
    if (r) r->what = what;
    return r;
}

static struct row *add(struct vv_report *r, const char *section, const char *key)
{
    if (r->count == ROWS_MAX) abort(); /* a command adds a fixed number of rows */
    struct row *row = &r->rows[r->count++];
    row->section = section;
    row->key = key;
    return row;
}

void vv_report_add(struct vv_report *r, const char *section, const char *key, const char *unit, int digits,
                   double value)
{
    struct row *row = add(r, section, key);
    row->unit = unit;
    row->digits = digits;
    row->value = value;
}

void vv_report_text(struct vv_report *r, const char *section, const char *key, const char *value)
{
    snprintf(add(r, section, key)->text, sizeof r->rows[0].text, "%s", value);
}

double vv_report_value(const struct vv_report *r, const char *section, const char *key)
{
    for (size_t i = 0; i < r->count; i++)
        if (!strcmp(r->rows[i].section, section) && !strcmp(r->rows[i].key, key)) return r->rows[i].value;
    return 0;
}

static void print_text(const struct vv_report *r)
{
    const char *section = "";
    for (size_t i = 0; i < r->count; i++) {
        const struct row *row = &r->rows[i];
        if (strcmp(section, row->section)) printf("%s%s\n", i ? "\n" : "", row->section);
        section = row->section;
        if (row->text[0])
            printf("  %-34s %14s\n", row->key, row->text);
        else
            printf("  %-34s %14.*f %s\n", row->key, row->digits, row->value, row->unit);
    }
}

static int print_json(const struct vv_report *r)
{
    json_t *top = json_pack("{s:s}", "bench", r->what);
    for (size_t i = 0; top && i < r->count; i++) {
        const struct row *row = &r->rows[i];
        json_t *section = json_object_get(top, row->section);
        if (!section) {
            section = json_object();
            json_object_set_new(top, row->section, section);
        }
        json_object_set_new(section, row->key,
                            row->text[0] ? json_string(row->text)
                                         : json_pack("{s:f,s:s}", "value", row->value, "unit", row->unit));
    }
    int rc = top ? json_dumpf(top, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9)) : -1;
    json_decref(top);
    putchar('\n');
    return rc ? VV_EXIT_FAILED : 0;
}

int vv_report_print(struct vv_report *r, bool json)
{
    int rc = 0;
    if (json)
        rc = print_json(r);
    else
        print_text(r);
    free(r);
    return rc;
}

int vv_report_machine(struct vv_report *r, const char *dir, struct vv_error *e)
{
    struct vv_probes p;
    int rc = vv_probe_machine(dir ? dir : ".", &p, e);
    if (rc) return rc;
    vv_report_add(r, "machine", "cpus", "", 0, p.cpus);
    vv_report_add(r, "machine", "load average before", "", 2, p.load1);
    vv_report_add(r, "machine", "memcpy", "GB/s", 2, p.memcpy_gb_s);
    vv_report_add(r, "machine", "crc32c", "GB/s", 2, p.crc32c_gb_s);
    vv_report_add(r, "machine", "loopback", "MB/s", 0, p.loopback_mb_s);
    vv_report_add(r, "machine", "append, fresh pages", "MB/s", 0, p.append_cold_mb_s);
    vv_report_add(r, "machine", "append, warm pages", "MB/s", 0, p.append_mb_s);
    vv_report_add(r, "machine", "fdatasync of 4 KiB, p50", "us", 0, p.sync_p50_us);
    vv_report_add(r, "machine", "fdatasync of 4 KiB, p99", "us", 0, p.sync_p99_us);
    return 0;
}
