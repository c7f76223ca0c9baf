/* cmd_undelete.c — `varve topic undelete`, and what `varve topic list --deleted` shows.
 *
 * How it is said to a broker: src/api/create_topics.c (varve.undelete) and describe_configs.c (varve.deleted.topics). */
#include "cmd_undelete.h"
#include "table.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* The broker's list of what can come back; an array. */
static int fetch_deleted(struct vv_client *c, json_t **out, struct vv_error *e)
{
    struct DescribeConfigsRequest rq;
    struct DescribeConfigsRequest_DescribeConfigsResource res;
    struct vv_str key = vv_str_c("varve.deleted.topics");
    struct vv_reply r;
    char id[16] = "0";
    *out = NULL;
    int rc = vv_client_metadata(c, NULL, 0, &r, e);
    if (rc) return rc;
    const struct MetadataResponse *m = r.msg;
    if (m->Brokers.n > 0) snprintf(id, sizeof id, "%d", (int)m->Brokers.v[0].NodeId);
    vv_reply_release(&r);
    VV_MSG_INIT(DescribeConfigsRequest, &rq);
    VV_STRUCT_INIT(DescribeConfigsRequest_DescribeConfigsResource, &res);
    res.ResourceType = 4;
    res.ResourceName = vv_str_c(id);
    res.ConfigurationKeys.v = &key;
    res.ConfigurationKeys.n = 1;
    rq.Resources.v = &res;
    rq.Resources.n = 1;
    rc = vv_client_call(c, VV_NODE_ANY, 32, &rq, &r, e);
    if (rc) return rc;
    const struct DescribeConfigsResponse *rs = r.msg;
    if (rs->Results.n == 1 && !rs->Results.v[0].ErrorCode && rs->Results.v[0].Configs.n == 1) {
        struct vv_str v = rs->Results.v[0].Configs.v[0].Value;
        if (v.n > 0) *out = json_loadb(v.p, (size_t)v.n, 0, NULL);
    }
    vv_reply_release(&r);
    if (json_is_array(*out)) return 0;
    json_decref(*out);
    *out = NULL;
    return vv_error_set(e, VV_E_UNSUPPORTED, "this broker keeps no list of deleted topics: it is not Varve, or an older one");
}

static const char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

static void cell_time(struct vv_table *t, int64_t ms)
{
    char text[32];
    struct tm tm;
    time_t at = (time_t)(ms / 1000);
    gmtime_r(&at, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    vv_table_cell(t, "%s", text);
}

int vv_cli_list_deleted(const struct vv_args *a, struct vv_client *c, bool json)
{
    struct vv_error e = {0};
    json_t *list, *o;
    size_t i;
    if (fetch_deleted(c, &list, &e)) return vv_cli_fail(a, "%s", e.text);
    struct vv_table *t = vv_table_new("TOPIC ID PARTITIONS# DELETED UNTIL STATE");
    json_array_foreach(list, i, o)
    {
        vv_table_cell(t, "%s", text_of(o, "topic"));
        vv_table_cell(t, "%s", text_of(o, "topic_id"));
        vv_table_cell(t, "%d", (int)json_integer_value(json_object_get(o, "partitions")));
        cell_time(t, json_integer_value(json_object_get(o, "deleted_ms")));
        cell_time(t, json_integer_value(json_object_get(o, "until_ms")));
        vv_table_cell(t, "%s", text_of(o, "state"));
    }
    json_decref(list);
    vv_table_sort(t);
    return vv_table_print(t, json);
}

static const struct vv_opt opts[] = {
    VV_OPT_BOOTSTRAP,
    {"records", 0, NULL, "Of a topic that is there: records below the log start, as far as they are still kept."},
    {"as", 0, "NEW", "The name that it gets (default: the one it had)."},
    {"config", 'c', "KEY=VALUE", "A topic configuration beside those that it had; may be repeated."},
    {0},
};

/* The name that a deleted topic with this id had; "" when there is none. */
static int old_name(struct vv_client *c, const char *id, char out[250], struct vv_error *e)
{
    json_t *list, *o;
    size_t i;
    int rc = fetch_deleted(c, &list, e);
    *out = 0;
    if (rc) return rc;
    json_array_foreach(list, i, o)
    {
        if (!strcmp(text_of(o, "topic_id"), id)) snprintf(out, 250, "%s", text_of(o, "topic"));
    }
    json_decref(list);
    return 0;
}

static int undelete(const struct vv_args *a, struct vv_client *c, struct vv_admin_pair *all, size_t n)
{
    const char *what = a->words[0], *as = vv_arg(a, "as");
    char name[250];
    struct vv_error e = {0};
    if (old_name(c, what, name, &e)) return vv_cli_fail(a, "%s", e.text);
    const char *to = as ? as : *name ? name : what;
    vv_client_set_timeout(c, 180000); /* it may wait for the store */
    if (vv_admin_create_topic(c, to, -1, -1, all, n, &e)) return vv_cli_fail(a, "%s", e.text);
    printf("%s is back\n", to);
    return VV_EXIT_DONE;
}

static int undelete_records(const struct vv_args *a, struct vv_client *c)
{
    struct vv_part_ref *parts = NULL;
    struct DeleteRecordsRequest rq;
    struct DeleteRecordsRequest_DeleteRecordsTopic topic;
    struct vv_reply r;
    struct vv_error e = {0};
    size_t n = 0;
    int rc = VV_EXIT_DONE;
    if (vv_client_partitions(c, a->words[0], &parts, &n, &e)) return vv_cli_fail(a, "%s", e.text);
    struct DeleteRecordsRequest_DeleteRecordsPartition *v = calloc(n + 1, sizeof *v);
    VV_MSG_INIT(DeleteRecordsRequest, &rq);
    VV_STRUCT_INIT(DeleteRecordsRequest_DeleteRecordsTopic, &topic);
    for (size_t i = 0; v && i < n; i++) {
        v[i].PartitionIndex = parts[i].partition;
        v[i].Offset = INT64_MIN; /* src/api/delete_records.c */
    }
    topic.Name = vv_str_c(a->words[0]);
    topic.Partitions.v = v;
    topic.Partitions.n = (int32_t)n;
    rq.Topics.v = &topic;
    rq.Topics.n = 1;
    rq.TimeoutMs = 60000;
    vv_client_set_timeout(c, 180000);
    if (!v || vv_client_call(c, VV_NODE_ANY, 21, &rq, &r, &e)) {
        rc = vv_cli_fail(a, "%s", v ? e.text : "out of memory");
    } else {
        const struct DeleteRecordsResponse *rs = r.msg;
        for (int32_t i = 0; rs->Topics.n == 1 && i < rs->Topics.v[0].Partitions.n; i++) {
            const struct DeleteRecordsResponse_DeleteRecordsPartitionResult *p = &rs->Topics.v[0].Partitions.v[i];
            if (p->ErrorCode)
                rc = vv_cli_fail(a, "%s-%d: %s", a->words[0], (int)p->PartitionIndex, vv_err_name(p->ErrorCode));
            else
                printf("%s-%d starts at %" PRId64 "\n", a->words[0], (int)p->PartitionIndex, p->LowWatermark);
        }
        vv_reply_release(&r);
    }
    free(v);
    free(parts);
    return rc;
}

static int run(const struct vv_args *a)
{
    struct vv_admin_pair *pairs;
    size_t n;
    if (vv_arg_given(a, "records")) {
        struct vv_client *records = vv_admin_open(a);
        int done = records ? undelete_records(a, records) : VV_EXIT_FAILED;
        vv_client_close(records);
        return done;
    }
    if (!vv_admin_pairs(a, "config", &pairs, &n)) return VV_EXIT_USAGE;
    struct vv_admin_pair *all = realloc(pairs, (n + 1) * sizeof *all);
    char *key = strdup("varve.undelete");
    int rc = VV_EXIT_FAILED;
    if (!all || !key) {
        rc = vv_cli_fail(a, "out of memory");
        vv_admin_free_pairs(all ? all : pairs, n);
        free(key);
        return rc;
    }
    all[n] = (struct vv_admin_pair){key, a->words[0]};
    struct vv_client *c = vv_admin_open(a);
    if (c) rc = undelete(a, c, all, n + 1);
    vv_admin_free_pairs(all, n + 1);
    vv_client_close(c);
    return rc;
}

const struct vv_command vv_cmd_topic_undelete = {
    .name = "topic undelete",
    .words = "NAME|ID",
    .words_min = 1,
    .words_max = 1,
    .summary = "Bring a deleted topic, or deleted records, back, inside tier.delete.grace.ms.",
    .text = "With its id, configurations, records, log start and the offsets that groups had committed. What can come back:\n"
            "  varve topic list --deleted\n"
            "A topic that retention would empty again at once wants --config retention.ms=... too.\n"
            "  varve topic undelete rides --records      (what DeleteRecords or retention removed; raise its retention first)",
    .opts = opts,
    .run = run,
};
