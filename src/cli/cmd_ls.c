/* cmd_ls.c — `varve ls URL [TOPIC]`: what is in a bucket. */
#include "bucket.h"
#include "table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct vv_opt opts[] = {VV_OPT_OUTPUT, VV_OPT_CONFIG, VV_OPT_SET, {0}};

static void cell_time(struct vv_table *t, int64_t ms)
{
    char text[40];
    vv_table_cell(t, "%s", vv_time_text(ms, text));
}

static int list_partitions(const struct vv_args *a, struct vv_bucket *b, bool json)
{
    struct vv_cli_logs logs;
    int rc = vv_cli_logs_open(a, b, a->words[1], -1, &logs);
    struct vv_table *t = rc ? NULL : vv_table_new("PARTITION# LOG-START# NEXT-OFFSET# OBJECTS# BYTES# FROM TO");
    for (size_t i = 0; i < logs.n && !rc; i++) {
        const struct vv_bucket_log_info *l = vv_bucket_log_info(logs.v[i]);
        vv_table_cell(t, "%d", (int)l->partition);
        vv_table_cell(t, "%" PRId64, l->log_start);
        vv_table_cell(t, "%" PRId64, l->next_offset);
        vv_table_cell(t, "%" PRIu64, l->segments);
        vv_table_cell(t, "%" PRIu64, l->bytes);
        cell_time(t, l->first_ts);
        cell_time(t, l->max_ts);
    }
    if (!rc) rc = vv_table_print(t, json);
    vv_cli_logs_close(&logs);
    return rc;
}

/* One topic's partitions as one row. */
static int add_topic(struct vv_table *t, struct vv_bucket *b, const struct vv_bucket_topic *topic, struct vv_error *e)
{
    char id[23];
    struct vv_bucket_log_info sum = {.first_ts = INT64_MAX, .max_ts = -1};
    int64_t offsets = 0;
    for (size_t i = 0; i < topic->partition_count; i++) {
        struct vv_bucket_log *log;
        int err = vv_bucket_log_open(b, topic, topic->partitions[i], &log, e);
        if (err) return err;
        const struct vv_bucket_log_info *l = vv_bucket_log_info(log);
        sum.segments += l->segments;
        sum.bytes += l->bytes;
        offsets += l->next_offset - l->log_start;
        if (l->max_ts >= 0) sum.first_ts = VV_MIN(sum.first_ts, l->first_ts);
        sum.max_ts = VV_MAX(sum.max_ts, l->max_ts);
        vv_bucket_log_close(log);
    }
    vv_uuid_text(topic->id, id);
    vv_table_cell(t, "%s", topic->name);
    vv_table_cell(t, "%s", id);
    vv_table_cell(t, "%zu", topic->partition_count);
    vv_table_cell(t, "%" PRId64, offsets);
    vv_table_cell(t, "%" PRIu64, sum.segments);
    vv_table_cell(t, "%" PRIu64, sum.bytes);
    cell_time(t, sum.max_ts < 0 ? -1 : sum.first_ts);
    cell_time(t, sum.max_ts);
    return VV_OK;
}

static int list_topics(const struct vv_args *a, struct vv_bucket *b, bool json)
{
    struct vv_bucket_topic *v;
    struct vv_error e = {0};
    size_t n;
    int err = vv_bucket_topics(b, &v, &n, &e);
    if (err) return vv_cli_bucket_fail(a, err, &e);
    struct vv_table *t = vv_table_new("TOPIC ID PARTITIONS# OFFSETS# OBJECTS# BYTES# FROM TO");
    for (size_t i = 0; i < n && !err && t; i++) err = add_topic(t, b, &v[i], &e);
    vv_bucket_topics_free(v, n);
    if (!err) return vv_table_print(t, json);
    vv_table_free(t);
    return vv_cli_bucket_fail(a, err, &e);
}

static int run(const struct vv_args *a)
{
    bool json;
    int rc;
    if (!vv_table_wants_json(a, &json)) return VV_EXIT_USAGE;
    struct vv_bucket *b = vv_cli_bucket(a, &rc);
    if (!b) return rc;
    rc = a->word_count > 1 ? list_partitions(a, b, json) : list_topics(a, b, json);
    vv_bucket_close(b);
    return rc;
}

const struct vv_command vv_cmd_ls = {
    .name = "ls",
    .words = "URL [TOPIC]",
    .words_min = 1,
    .words_max = 2,
    .summary = "List a bucket's topics, or a topic's partitions: offsets, times, objects, bytes.",
    .text = "Reads the bucket alone; no broker is asked. Objects and bytes include what waits for its deletion.",
    .opts = opts,
    .run = run,
};
