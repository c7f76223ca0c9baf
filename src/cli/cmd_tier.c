/* cmd_tier.c — `varve tier …`: the bucket as the broker sees it. */
#include "admin.h"
#include "table.h"

#include "varve/bytes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

/* ---- migrate ---- */

static const struct vv_opt migrate_opts[] = {
    VV_OPT_BOOTSTRAP,
    {"no-wait", 0, NULL, "Ask for it and leave; the broker goes on, also after a restart."},
    {"stop", 0, NULL, "Stop one that has not switched yet; the old bucket stays."},
    {0},
};

static int watch(const struct vv_args *a, struct vv_client *c, int32_t node, const char *url)
{
    struct vv_admin_bucket b;
    struct vv_error e = {0};
    struct timespec pause = {.tv_nsec = 200000000};
    for (bool seen = false;; nanosleep(&pause, NULL)) {
        if (vv_admin_bucket(c, node, &b, &e)) return vv_cli_fail(a, "%s", e.text);
        if (!strcmp(b.url, url)) {
            printf("%s is the bucket now; set tier.url=%s. The old one keeps what it has until you delete it.\n", url, url);
            return VV_EXIT_DONE;
        }
        if (b.failed && !strcmp(b.migrates_to, url))
            return vv_cli_fail(a, "given up, %s stays the bucket: the broker's messages say why", b.url);
        if (*b.migrates_to && strcmp(b.migrates_to, url))
            return vv_cli_fail(a, "the broker was asked to migrate to %s before: that begins anew with its next start", b.migrates_to);
        if (seen && !*b.migrates_to) return vv_cli_fail(a, "the broker does not migrate: its messages say why");
        if (!seen) printf("copying from %s to %s; it goes on if you leave\n", b.url, url);
        fflush(stdout);
        seen = true;
    }
}

static int run_migrate(const struct vv_args *a)
{
    struct vv_error e = {0};
    struct vv_reply meta;
    bool stop = vv_arg_given(a, "stop");
    if ((a->word_count == 1) == stop) return vv_cli_usage(a, stop ? "--stop takes no URL" : "a URL, or --stop");
    struct vv_client *c = vv_admin_open(a);
    if (!c) return VV_EXIT_FAILED;
    int rc = vv_client_metadata(c, NULL, 0, &meta, &e);
    const struct MetadataResponse *m = rc ? NULL : meta.msg;
    int32_t node = m && m->Brokers.n ? m->Brokers.v[0].NodeId : 0;
    if (m && m->Brokers.n != 1) rc = vv_error_set(&e, VV_E_UNSUPPORTED, "%d brokers share this bucket: only one can move it", (int)m->Brokers.n);
    if (m) vv_reply_release(&meta);
    struct vv_admin_pair pair = {.key = "tier.migrate.url", .value = stop ? NULL : a->words[0]};
    if (!rc) rc = vv_admin_alter_broker(c, node, &pair, 1, &e);
    if (rc)
        rc = vv_cli_fail(a, "%s", e.text);
    else if (!stop && !vv_arg_given(a, "no-wait"))
        rc = watch(a, c, node, a->words[0]);
    vv_client_close(c);
    return rc;
}

const struct vv_command vv_cmd_tier_migrate = {
    .name = "tier migrate",
    .words = "[URL]",
    .words_max = 1,
    .summary = "Move a running broker's bucket to another one: copy, prove, switch.",
    .text = "URL must be empty, or a half-done migration of the same cluster: one that was interrupted goes on. Produce and fetch go\n"
            "on meanwhile; nothing in the old bucket changes but its root, which says where the history went. Its endpoint and\n"
            "credentials are the broker's tier.origin.s3.* where set, else its tier.s3.*. A stopped broker migrates when it starts\n"
            "with --set tier.migrate.url=URL.",
    .opts = migrate_opts,
    .run = run_migrate,
};
