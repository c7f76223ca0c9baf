/* cmd_tier.c — `varve tier …`: the bucket as the broker sees it. */
#include "admin.h"
#include "table.h"

#include "varve/bytes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct vv_opt status_opts[] = {VV_OPT_BOOTSTRAP, VV_OPT_OUTPUT, VV_OPT_PRICE, {0}};

static int by_topic(const void *a, const void *b)
{
    return strcmp(((const struct vv_admin_size *)a)->topic,
                  ((const struct vv_admin_size *)b)->topic);
}

static int run_status(const struct vv_args *a)
{
    struct vv_error e = {0};
    struct vv_admin_size *s = NULL;
    size_t n = 0;
    bool json;
    double price;
    if (!vv_table_wants_json(a, &json) || !vv_admin_price(a, &price)) return VV_EXIT_USAGE;
    struct vv_client *c = vv_admin_open(a);
    if (!c) return VV_EXIT_FAILED;
    int rc = vv_admin_sizes(c, NULL, &s, &n, &e);
    vv_client_close(c);
    if (rc) return vv_cli_fail(a, "%s", e.text);
    struct vv_table *t = vv_table_new("TOPIC PARTITIONS# LOCAL-BYTES# REMOTE-BYTES# OBJECTS# PENDING-BYTES# USD-MONTH#");
    if (n) qsort(s, n, sizeof *s, by_topic);
    for (size_t i = 0; i < n;) {
        int64_t local = 0, remote = 0, objects = 0, pending = 0;
        size_t from = i;
        for (; i < n && !strcmp(s[i].topic, s[from].topic); i++) {
            local += s[i].local;
            remote += s[i].remote;
            objects += VV_MAX(s[i].segments, (int64_t)0);
            pending += VV_MAX(s[i].pending, (int64_t)0);
        }
        vv_table_cell(t, "%s", s[from].topic);
        vv_table_cell(t, "%zu", i - from);
        vv_table_cell(t, "%" PRId64, local);
        vv_table_cell(t, "%" PRId64, remote);
        vv_table_cell(t, "%" PRId64, objects);
        vv_table_cell(t, "%" PRId64, pending);
        vv_admin_cost_cell(t, remote, price);
    }
    free(s);
    return vv_table_print(t, json);
}

const struct vv_command vv_cmd_tier_status = {
    .name = "tier status",
    .words_max = 0,
    .summary = "Bytes of every topic, on the local disks and in the bucket.",
    .text = "By partition: varve topic describe TOPIC --tier. USD-MONTH is what the bytes in the bucket cost at "
            "--price.",
    .opts = status_opts,
    .run = run_status,
};
