/* table.h — output of rows: aligned text for people, JSON for scripts, from the same cells. */
#ifndef VARVE_CLI_TABLE_H
#define VARVE_CLI_TABLE_H
#include "cli.h"

/* Columns are separated by blanks; '#' behind a name marks numbers (right-aligned; bare in JSON),
 * '?' booleans. JSON keys are the names in lower case. */
struct vv_table;
struct vv_table *vv_table_new(const char *columns);
/* The next cell, row by row. "-" is null in JSON. */
void vv_table_cell(struct vv_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void vv_table_sort(struct vv_table *t); /* by the columns from the left, numbers as numbers */
size_t vv_table_rows(const struct vv_table *t);
/* Prints to stdout and frees. json: an array of objects. Returns 0 or VV_EXIT_FAILED (out of
 * memory). */
int vv_table_print(struct vv_table *t, bool json);
void vv_table_free(struct vv_table *t);

/* The -o option: false after a message when it is neither table nor json. */
bool vv_table_wants_json(const struct vv_args *a, bool *json);
/* 1.5 MiB */
const char *vv_human_bytes(double bytes, char out[32]);
#endif
