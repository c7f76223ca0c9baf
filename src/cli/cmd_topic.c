/* cmd_topic.c — `varve topic …`: list, create, describe, alter, delete, against any Kafka broker.
 */
#include "admin.h"
#include "cmd_undelete.h"
#include "table.h"

#include "varve/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- list ---- */

static const struct vv_opt list_opts[] = {
    VV_OPT_BOOTSTRAP,
    VV_OPT_OUTPUT,
    {"internal", 0, NULL, "Internal topics too."},
    {"deleted", 0, NULL, "Instead: deleted topics that `topic undelete` can bring back (Varve only)."},
    {0}};

static int run_list(const struct vv_args *a)
{
    bool json;
    struct vv_reply r;
    struct vv_error e = {0};
    if (!vv_table_wants_json(a, &json)) return VV_EXIT_USAGE;
    struct vv_client *c = vv_admin_open(a);
    if (!c) return VV_EXIT_FAILED;
    if (vv_arg_given(a, "deleted")) {
        int shown = vv_cli_list_deleted(a, c, json);
        vv_client_close(c);
        return shown;
    }
    int rc = vv_client_metadata(c, NULL, 0, &r, &e);
    if (rc) {
        rc = vv_cli_fail(a, "%s", e.text);
    } else {
        const struct MetadataResponse *rs = r.msg;
        struct vv_table *t = vv_table_new("TOPIC PARTITIONS# REPLICAS# INTERNAL?");
        for (int32_t i = 0; i < rs->Topics.n; i++) {
            const struct MetadataResponse_MetadataResponseTopic *m = &rs->Topics.v[i];
            if (m->IsInternal && !vv_arg_given(a, "internal")) continue;
            vv_table_cell(t, "%.*s", VV_STR_ARG(m->Name));
            vv_table_cell(t, "%d", VV_MAX(m->Partitions.n, 0));
            vv_table_cell(t, "%d", m->Partitions.n > 0 ? m->Partitions.v[0].ReplicaNodes.n : 0);
            vv_table_cell(t, "%s", m->IsInternal ? "true" : "false");
        }
        vv_reply_release(&r);
        vv_table_sort(t);
        rc = vv_table_print(t, json);
    }
    vv_client_close(c);
    return rc;
}

const struct vv_command vv_cmd_topic_list = {
    .name = "topic list",
    .words_max = 0,
    .summary = "List topics.",
    .opts = list_opts,
    .run = run_list,
};

/* ---- create ---- */

static const struct vv_opt create_opts[] = {
    VV_OPT_BOOTSTRAP,
    {"partitions", 'p', "N", "Partitions (default: the broker's num.partitions)."},
    {"replication-factor", 'r', "N", "Copies (default: the broker's default.replication.factor)."},
    {"config", 'c', "KEY=VALUE", "A topic configuration; may be repeated."},
    {"if-not-exists", 0, NULL, "A topic that is there already is fine."},
    {0},
};

static int run_create(const struct vv_args *a)
{
    int64_t partitions, replicas;
    struct vv_admin_pair *configs;
    size_t n;
    int rc = 0;
    if (!vv_arg_number(a, "partitions", -1, 1, 100000, &partitions) ||
        !vv_arg_number(a, "replication-factor", -1, 1, 1000, &replicas) ||
        !vv_admin_pairs(a, "config", &configs, &n))
        return VV_EXIT_USAGE;
    struct vv_client *c = vv_admin_open(a);
    for (size_t i = 0; c && i < a->word_count; i++) {
        struct vv_error e = {0};
        int err = vv_admin_create_topic(c, a->words[i], (int32_t)partitions, (int16_t)replicas,
                                        configs, n, &e);
        if (err == VV_TOPIC_ALREADY_EXISTS && vv_arg_given(a, "if-not-exists"))
            printf("%s is there already\n", a->words[i]);
        else if (err)
            rc = vv_cli_fail(a, "%s", e.text);
        else
            printf("%s created\n", a->words[i]);
    }
    vv_admin_free_pairs(configs, n);
    vv_client_close(c);
    return c ? rc : VV_EXIT_FAILED;
}

const struct vv_command vv_cmd_topic_create = {
    .name = "topic create",
    .words = "NAME...",
    .words_min = 1,
    .words_max = -1,
    .summary = "Create topics.",
    .text = "  varve topic create rides --partitions 6 --config segment.bytes=1048576",
    .opts = create_opts,
    .run = run_create,
};

/* ---- describe ---- */

static const struct vv_opt describe_opts[] = {
    VV_OPT_BOOTSTRAP,
    VV_OPT_OUTPUT,
    {"tier", 't', NULL, "Where the data lies: offsets and bytes, local and in the bucket."},
    VV_OPT_PRICE,
    {"configs", 0, NULL, "The configuration instead of the partitions."},
    {0},
};

static void join_ids(char *to, size_t max, const int32_t *v, int32_t n)
{
    size_t at = 0;
    *to = 0;
    for (int32_t i = 0; i < n && at < max - 12; i++)
        at += (size_t)snprintf(to + at, max - at, "%s%" PRId32, i ? "," : "", v[i]);
}

/* Rows of one special timestamp for all partitions. */
static int offsets_at(struct vv_client *c, const struct vv_part_ref *parts, size_t n, int64_t at,
                      int64_t *out, struct vv_error *e)
{
    struct vv_part_ref *rows = calloc(n + 1, sizeof *rows);
    if (!rows) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    memcpy(rows, parts, n * sizeof *rows);
    for (size_t i = 0; i < n; i++)
        rows[i].timestamp = at;
    int rc = vv_client_offsets(c, rows, n, e);
    for (size_t i = 0; i < n; i++)
        out[i] = rc || rows[i].err ? -1 : rows[i].offset;
    free(rows);
    return rc;
}

static void cell_offset(struct vv_table *t, int64_t v)
{
    if (v < 0)
        vv_table_cell(t, "-");
    else
        vv_table_cell(t, "%" PRId64, v);
}

static int describe_tier(struct vv_client *c, const char *topic, double price, struct vv_table *t,
                         struct vv_error *e)
{
    struct vv_part_ref *parts = NULL;
    struct vv_admin_size *sizes = NULL;
    size_t n = 0, sizes_n = 0;
    int rc = vv_client_partitions(c, topic, &parts, &n, e);
    int64_t *o = calloc(4 * (n + 1), sizeof *o);
    if (!rc && !o) rc = vv_error_set(e, VV_E_NOMEM, "out of memory");
    static const int64_t special[] = {-2, -4, -5, -1};
    for (size_t k = 0; k < 4 && !rc; k++)
        rc = offsets_at(c, parts, n, special[k], o + k * n, e);
    if (!rc) rc = vv_admin_sizes(c, topic, &sizes, &sizes_n, e);
    for (size_t i = 0; i < n && !rc; i++) {
        struct vv_admin_size size = {.segments = -1, .pending = -1};
        for (size_t s = 0; s < sizes_n; s++)
            if (sizes[s].partition == parts[i].partition) size = sizes[s];
        vv_table_cell(t, "%s", topic);
        vv_table_cell(t, "%" PRId32, parts[i].partition);
        for (size_t k = 0; k < 4; k++)
            cell_offset(t, o[k * n + i]);
        vv_table_cell(t, "%" PRId64, size.local);
        vv_table_cell(t, "%" PRId64, size.remote);
        cell_offset(t, size.segments);
        cell_offset(t, size.pending);
        vv_admin_cost_cell(t, size.remote, price);
    }
    free(o);
    free(sizes);
    free(parts);
    return rc;
}

static int describe_partitions(struct vv_client *c, const char *topic, struct vv_table *t,
                               struct vv_error *e)
{
    struct vv_reply r;
    struct vv_part_ref *parts = NULL;
    size_t n = 0;
    int rc = vv_client_partitions(c, topic, &parts, &n, e);
    int64_t *o = calloc(2 * (n + 1), sizeof *o);
    if (!rc && !o) rc = vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (!rc) rc = offsets_at(c, parts, n, -2, o, e);
    if (!rc) rc = offsets_at(c, parts, n, -1, o + n, e);
    if (!rc) rc = vv_client_metadata(c, &topic, 1, &r, e);
    if (rc) goto out;
    const struct MetadataResponse *rs = r.msg;
    for (size_t i = 0; i < n; i++)
        for (int32_t k = 0; rs->Topics.n && k < rs->Topics.v[0].Partitions.n; k++) {
            const struct MetadataResponse_MetadataResponsePartition *p =
                &rs->Topics.v[0].Partitions.v[k];
            char ids[128];
            if (p->PartitionIndex != parts[i].partition) continue;
            vv_table_cell(t, "%s", topic);
            vv_table_cell(t, "%" PRId32, p->PartitionIndex);
            vv_table_cell(t, "%" PRId32, p->LeaderId);
            join_ids(ids, sizeof ids, p->ReplicaNodes.v, p->ReplicaNodes.n);
            vv_table_cell(t, "%s", ids);
            join_ids(ids, sizeof ids, p->IsrNodes.v, p->IsrNodes.n);
            vv_table_cell(t, "%s", ids);
            cell_offset(t, o[i]);
            cell_offset(t, o[n + i]);
        }
    vv_reply_release(&r);
out:
    free(o);
    free(parts);
    return rc;
}

static const char *source_name(int source)
{
    static const char *const names[] = {"?", "topic", "broker", "cluster", "file", "default"};
    return source >= 0 && source < (int)VV_COUNT(names) ? names[source] : "?";
}

static int describe_configs(struct vv_client *c, const char *topic, struct vv_table *t,
                            struct vv_error *e)
{
    struct DescribeConfigsRequest rq;
    struct DescribeConfigsRequest_DescribeConfigsResource res;
    struct vv_reply r;
    VV_MSG_INIT(DescribeConfigsRequest, &rq);
    VV_STRUCT_INIT(DescribeConfigsRequest_DescribeConfigsResource, &res);
    res.ResourceType = 2;
    res.ResourceName = vv_str_c(topic);
    res.ConfigurationKeys.n = -1;
    rq.Resources.v = &res;
    rq.Resources.n = 1;
    int rc = vv_client_call(c, VV_NODE_ANY, 32, &rq, &r, e);
    if (rc) return rc;
    const struct DescribeConfigsResponse *rs = r.msg;
    if (rs->Results.n < 1 || rs->Results.v[0].ErrorCode)
        rc = vv_error_set(e, rs->Results.n ? rs->Results.v[0].ErrorCode : VV_E_PROTO,
                          "topic %s: %s", topic,
                          vv_err_name(rs->Results.n ? rs->Results.v[0].ErrorCode : VV_E_PROTO));
    for (int32_t i = 0; !rc && i < rs->Results.v[0].Configs.n; i++) {
        const struct DescribeConfigsResponse_DescribeConfigsResourceResult *k =
            &rs->Results.v[0].Configs.v[i];
        vv_table_cell(t, "%s", topic);
        vv_table_cell(t, "%.*s", VV_STR_ARG(k->Name));
        vv_table_cell(t, "%.*s", VV_STR_ARG(k->Value));
        vv_table_cell(t, "%s", source_name(k->ConfigSource));
    }
    vv_reply_release(&r);
    return rc;
}

static int run_describe(const struct vv_args *a)
{
    bool json, tier = vv_arg_given(a, "tier"), configs = vv_arg_given(a, "configs");
    int rc = 0;
    double price;
    if (!vv_table_wants_json(a, &json) || !vv_admin_price(a, &price)) return VV_EXIT_USAGE;
    struct vv_client *c = vv_admin_open(a);
    if (!c) return VV_EXIT_FAILED;
    struct vv_table *t = vv_table_new(
        configs ? "TOPIC KEY VALUE FROM"
        : tier  ? "TOPIC PARTITION# START# LOCAL-START# TIERED-TO# END# LOCAL-BYTES# REMOTE-BYTES# "
                  "OBJECTS# PENDING-BYTES# USD-MONTH#"
                : "TOPIC PARTITION# LEADER# REPLICAS ISR START# END#");
    for (size_t i = 0; t && i < a->word_count; i++) {
        struct vv_error e = {0};
        int err = configs ? describe_configs(c, a->words[i], t, &e)
                  : tier  ? describe_tier(c, a->words[i], price, t, &e)
                          : describe_partitions(c, a->words[i], t, &e);
        if (err) rc = vv_cli_fail(a, "%s", e.text);
    }
    vv_table_sort(t);
    int printed = vv_table_print(t, json);
    vv_client_close(c);
    return rc ? rc : printed;
}

const struct vv_command vv_cmd_topic_describe = {
    .name = "topic describe",
    .words = "NAME...",
    .words_min = 1,
    .words_max = -1,
    .summary = "Partitions, offsets, layers or configuration of topics.",
    .text = "With --tier: START is the first readable offset, LOCAL-START the first one on the "
            "local disk,\n"
            "TIERED-TO the last one in the bucket, END where the next record goes. What lies "
            "between START and\n"
            "LOCAL-START is only in the bucket; what lies above TIERED-TO is only local. "
            "PENDING-BYTES are closed and\nwait for their upload. USD-MONTH is what the bytes in the "
            "bucket cost at --price (requests not counted).",
    .opts = describe_opts,
    .run = run_describe,
};

/* ---- alter ---- */

static const struct vv_opt alter_opts[] = {
    VV_OPT_BOOTSTRAP,
    {"set", 's', "KEY=VALUE", "Set a topic configuration; may be repeated."},
    {"unset", 'u', "KEY", "Back to the broker's value; may be repeated."},
    {"partitions", 'p', "N", "Grow to N partitions."},
    {0},
};

static int grow(struct vv_client *c, const char *topic, int32_t partitions, struct vv_error *e)
{
    struct CreatePartitionsRequest rq;
    struct CreatePartitionsRequest_CreatePartitionsTopic t;
    struct vv_reply r;
    VV_MSG_INIT(CreatePartitionsRequest, &rq);
    VV_STRUCT_INIT(CreatePartitionsRequest_CreatePartitionsTopic, &t);
    t.Name = vv_str_c(topic);
    t.Count = partitions;
    t.Assignments.n = -1;
    rq.Topics.v = &t;
    rq.Topics.n = 1;
    rq.TimeoutMs = 30000;
    int rc = vv_client_call(c, VV_NODE_ANY, 37, &rq, &r, e);
    if (rc) return rc;
    const struct CreatePartitionsResponse *rs = r.msg;
    if (rs->Results.n > 0 && rs->Results.v[0].ErrorCode)
        rc = vv_error_set(e, rs->Results.v[0].ErrorCode, "topic %s: %s %.*s", topic,
                          vv_err_name(rs->Results.v[0].ErrorCode),
                          VV_STR_ARG(rs->Results.v[0].ErrorMessage));
    vv_reply_release(&r);
    return rc;
}

static int run_alter(const struct vv_args *a)
{
    struct vv_admin_pair *pairs;
    struct vv_error e = {0};
    size_t n, unset_n;
    int64_t partitions;
    int rc = 0;
    if (!vv_arg_number(a, "partitions", 0, 1, 100000, &partitions) ||
        !vv_admin_pairs(a, "set", &pairs, &n))
        return VV_EXIT_USAGE;
    const char **unset = vv_arg_all(a, "unset", &unset_n);
    struct vv_admin_pair *all = realloc(pairs, (n + unset_n + 1) * sizeof *all);
    if (!all || !unset) {
        rc = vv_cli_fail(a, "out of memory");
        all = all ? all : pairs;
        unset_n = 0;
    }
    for (size_t i = 0; i < unset_n; i++)
        all[n + i] = (struct vv_admin_pair){strdup(unset[i]), NULL};
    n += unset_n;
    if (!rc && !n && !partitions)
        rc = vv_cli_usage(a, "nothing to do: give --set, --unset or --partitions");
    struct vv_client *c = rc ? NULL : vv_admin_open(a);
    if (!rc && !c) rc = VV_EXIT_FAILED;
    if (c && n && vv_admin_alter_topic(c, a->words[0], all, n, &e))
        rc = vv_cli_fail(a, "%s", e.text);
    if (c && !rc && partitions && grow(c, a->words[0], (int32_t)partitions, &e))
        rc = vv_cli_fail(a, "%s", e.text);
    if (!rc) printf("%s altered\n", a->words[0]);
    free(unset);
    vv_admin_free_pairs(all, n);
    vv_client_close(c);
    return rc;
}

const struct vv_command vv_cmd_topic_alter = {
    .name = "topic alter",
    .words = "NAME",
    .words_min = 1,
    .words_max = 1,
    .summary = "Change a topic's configuration, add partitions.",
    .text = "  varve topic alter rides --set local.retention.ms=60000\n"
            "  varve topic alter rides --set remote.log.copy.disable=true     (stop uploads, keep "
            "history)",
    .opts = alter_opts,
    .run = run_alter,
};

/* ---- delete ---- */

static const struct vv_opt delete_opts[] = {
    VV_OPT_BOOTSTRAP, {"if-exists", 0, NULL, "A topic that is not there is fine."}, {0}};

static int run_delete(const struct vv_args *a)
{
    struct DeleteTopicsRequest rq;
    struct vv_reply r;
    struct vv_error e = {0};
    int rc = 0;
    struct vv_client *c = vv_admin_open(a);
    struct vv_str *names = calloc(a->word_count, sizeof *names);
    if (!c || !names) {
        free(names);
        return VV_EXIT_FAILED;
    }
    for (size_t i = 0; i < a->word_count; i++)
        names[i] = vv_str_c(a->words[i]);
    VV_MSG_INIT(DeleteTopicsRequest, &rq);
    rq.TopicNames.v = names;
    rq.TopicNames.n = (int32_t)a->word_count;
    rq.TimeoutMs = 30000;
    if (vv_client_call(c, VV_NODE_ANY, 20, &rq, &r, &e)) {
        rc = vv_cli_fail(a, "%s", e.text);
    } else {
        const struct DeleteTopicsResponse *rs = r.msg;
        for (int32_t i = 0; i < rs->Responses.n; i++) {
            int err = rs->Responses.v[i].ErrorCode;
            struct vv_str name = rs->Responses.v[i].Name;
            if (err && (err != VV_UNKNOWN_TOPIC_OR_PARTITION || !vv_arg_given(a, "if-exists")))
                rc = vv_admin_refused(a, "topic", name, err, rs->Responses.v[i].ErrorMessage);
            else
                printf("%.*s %s\n", VV_STR_ARG(name), err ? "is not there" : "deleted");
        }
        vv_reply_release(&r);
    }
    free(names);
    vv_client_close(c);
    return rc;
}

const struct vv_command vv_cmd_topic_delete = {
    .name = "topic delete",
    .words = "NAME...",
    .words_min = 1,
    .words_max = -1,
    .summary = "Delete topics.",
    .text = "What is in the bucket is deleted after tier.delete.grace.ms; until then `varve topic undelete` brings it back.",
    .opts = delete_opts,
    .run = run_delete,
};
