/* cmd_group.c — `varve group …`: consumer groups, their progress, their offsets. */
#include "admin.h"
#include "table.h"

#include "varve/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- list ---- */

static const struct vv_opt list_opts[] = {VV_OPT_BOOTSTRAP, VV_OPT_OUTPUT, {0}};

static int list_node(struct vv_client *c, int32_t node, struct vv_table *t, struct vv_error *e)
{
    struct ListGroupsRequest rq;
    struct vv_reply r;
    VV_MSG_INIT(ListGroupsRequest, &rq);
    int rc = vv_client_call(c, node, 16, &rq, &r, e);
    if (rc) return rc;
    const struct ListGroupsResponse *rs = r.msg;
    if (rs->ErrorCode)
        rc = vv_error_set(e, rs->ErrorCode, "broker %d: %s", node, vv_err_name(rs->ErrorCode));
    for (int32_t i = 0; !rc && i < rs->Groups.n; i++) {
        vv_table_cell(t, "%.*s", VV_STR_ARG(rs->Groups.v[i].GroupId));
        vv_table_cell(t, "%.*s", VV_STR_ARG(rs->Groups.v[i].GroupState));
        vv_table_cell(t, "%.*s", VV_STR_ARG(rs->Groups.v[i].ProtocolType));
        vv_table_cell(t, "%d", node);
    }
    vv_reply_release(&r);
    return rc;
}

static int run_list(const struct vv_args *a)
{
    bool json;
    struct vv_error e = {0};
    struct vv_reply r;
    if (!vv_table_wants_json(a, &json)) return VV_EXIT_USAGE;
    struct vv_client *c = vv_admin_open(a);
    if (!c) return VV_EXIT_FAILED;
    struct vv_table *t = vv_table_new("GROUP STATE PROTOCOL COORDINATOR#");
    int rc = vv_client_metadata(c, NULL, 0, &r, &e);
    if (!rc) {
        const struct MetadataResponse *rs = r.msg;
        for (int32_t i = 0; i < rs->Brokers.n && !rc; i++)
            rc = list_node(c, rs->Brokers.v[i].NodeId, t, &e);
        vv_reply_release(&r);
    }
    vv_client_close(c);
    vv_table_sort(t);
    if (!rc) return vv_table_print(t, json);
    vv_table_free(t);
    return vv_cli_fail(a, "%s", e.text);
}

const struct vv_command vv_cmd_group_list = {
    .name = "group list",
    .words_max = 0,
    .summary = "List consumer groups.",
    .opts = list_opts,
    .run = run_list,
};

/* ---- describe ---- */

static const struct vv_opt describe_opts[] = {
    VV_OPT_BOOTSTRAP, VV_OPT_OUTPUT, {"members", 'm', NULL, "Members instead of partitions."}, {0}};

/* The member an assignment gives a partition to; NULL when none does. */
static const struct DescribeGroupsResponse_DescribedGroupMember *
owner(const struct DescribeGroupsResponse_DescribedGroup *g, struct vv_str topic, int32_t partition,
      struct vv_arena *arena)
{
    for (int32_t i = 0; i < g->Members.n; i++) {
        struct ConsumerProtocolAssignment as;
        struct vv_bytes b = g->Members.v[i].MemberAssignment;
        if (b.n < 2 || vv_msg_decode(&vv_schema_ConsumerProtocolAssignment, 0, b.p + 2,
                                     (size_t)b.n - 2, arena, &as, NULL))
            continue;
        for (int32_t t = 0; t < as.AssignedPartitions.n; t++)
            for (int32_t p = 0; p < as.AssignedPartitions.v[t].Partitions.n; p++)
                if (as.AssignedPartitions.v[t].Partitions.v[p] == partition &&
                    vv_str_eq(as.AssignedPartitions.v[t].Topic, topic))
                    return &g->Members.v[i];
    }
    return NULL;
}

/* The end offset of a partition, -1 when it cannot be told. */
static int64_t end_offset(struct vv_client *c, const char *topic, int32_t partition)
{
    struct vv_part_ref *parts;
    size_t n;
    int64_t end = -1;
    if (vv_client_partitions(c, topic, &parts, &n, NULL)) return -1;
    for (size_t i = 0; i < n; i++)
        if (parts[i].partition == partition) {
            parts[i].timestamp = -1;
            if (!vv_client_offsets(c, &parts[i], 1, NULL) && !parts[i].err) end = parts[i].offset;
        }
    free(parts);
    return end;
}

static void offset_rows(struct vv_client *c, const char *group,
                        const struct OffsetFetchResponse *rs, struct vv_reply *members,
                        struct vv_table *t)
{
    const struct DescribeGroupsResponse *dg = members->msg;
    for (int32_t k = 0; k < rs->Topics.n; k++)
        for (int32_t i = 0; i < rs->Topics.v[k].Partitions.n; i++) {
            const struct OffsetFetchResponse_OffsetFetchResponsePartition *p =
                &rs->Topics.v[k].Partitions.v[i];
            char topic[250];
            snprintf(topic, sizeof topic, "%.*s", VV_STR_ARG(rs->Topics.v[k].Name));
            int64_t end = end_offset(c, topic, p->PartitionIndex);
            const struct DescribeGroupsResponse_DescribedGroupMember *m =
                dg->Groups.n ? owner(&dg->Groups.v[0], rs->Topics.v[k].Name, p->PartitionIndex,
                                     &members->arena)
                             : NULL;
            vv_table_cell(t, "%s", group);
            vv_table_cell(t, "%s", topic);
            vv_table_cell(t, "%" PRId32, p->PartitionIndex);
            if (p->CommittedOffset < 0)
                vv_table_cell(t, "-");
            else
                vv_table_cell(t, "%" PRId64, p->CommittedOffset);
            if (end < 0)
                vv_table_cell(t, "-");
            else
                vv_table_cell(t, "%" PRId64, end);
            if (end < 0 || p->CommittedOffset < 0)
                vv_table_cell(t, "-");
            else
                vv_table_cell(t, "%" PRId64, VV_MAX(end - p->CommittedOffset, 0));
            if (m)
                vv_table_cell(t, "%.*s", VV_STR_ARG(m->ClientId));
            else
                vv_table_cell(t, "-");
        }
}

static void member_rows(const char *group, const struct DescribeGroupsResponse *rs,
                        struct vv_table *t)
{
    for (int32_t i = 0; rs->Groups.n && i < rs->Groups.v[0].Members.n; i++) {
        const struct DescribeGroupsResponse_DescribedGroupMember *m = &rs->Groups.v[0].Members.v[i];
        vv_table_cell(t, "%s", group);
        vv_table_cell(t, "%.*s", VV_STR_ARG(m->MemberId));
        vv_table_cell(t, "%.*s", VV_STR_ARG(m->ClientId));
        vv_table_cell(t, "%.*s", VV_STR_ARG(m->ClientHost));
    }
}

static int describe(struct vv_client *c, const char *group, bool members, struct vv_table *t,
                    struct vv_error *e)
{
    struct DescribeGroupsRequest dg;
    struct OffsetFetchRequest of;
    struct vv_str name = vv_str_c(group);
    struct vv_reply r, o;
    int32_t node;
    int rc = vv_client_coordinator(c, group, &node, e);
    if (rc) return rc;
    VV_MSG_INIT(DescribeGroupsRequest, &dg);
    dg.Groups.v = &name;
    dg.Groups.n = 1;
    if ((rc = vv_client_call(c, node, 15, &dg, &r, e))) return rc;
    const struct DescribeGroupsResponse *rs = r.msg;
    bool dead =
        !rs->Groups.n || vv_str_is(rs->Groups.v[0].GroupState, "Dead") || rs->Groups.v[0].ErrorCode;
    if (dead) {
        rc = vv_error_set(e, VV_GROUP_ID_NOT_FOUND, "there is no group %s", group);
    } else if (members) {
        member_rows(group, rs, t);
    } else {
        VV_MSG_INIT(OffsetFetchRequest, &of);
        of.GroupId = name;
        of.Topics.n = -1;
        rc = vv_client_call(c, node, 9, &of, &o, e);
        if (!rc) {
            offset_rows(c, group, o.msg, &r, t);
            vv_reply_release(&o);
        }
    }
    vv_reply_release(&r);
    return rc;
}

static int run_describe(const struct vv_args *a)
{
    bool json, members = vv_arg_given(a, "members");
    int rc = 0;
    if (!vv_table_wants_json(a, &json)) return VV_EXIT_USAGE;
    struct vv_client *c = vv_admin_open(a);
    if (!c) return VV_EXIT_FAILED;
    struct vv_table *t = vv_table_new(members ? "GROUP MEMBER CLIENT HOST"
                                              : "GROUP TOPIC PARTITION# OFFSET# END# LAG# CLIENT");
    for (size_t i = 0; i < a->word_count; i++) {
        struct vv_error e = {0};
        if (describe(c, a->words[i], members, t, &e)) rc = vv_cli_fail(a, "%s", e.text);
    }
    vv_table_sort(t);
    int printed = vv_table_print(t, json);
    vv_client_close(c);
    return rc ? rc : printed;
}

const struct vv_command vv_cmd_group_describe = {
    .name = "group describe",
    .words = "GROUP...",
    .words_min = 1,
    .words_max = -1,
    .summary = "Committed offsets, lag and members of groups.",
    .opts = describe_opts,
    .run = run_describe,
};

/* ---- reset ---- */

static const struct vv_opt reset_opts[] = {
    VV_OPT_BOOTSTRAP,
    VV_OPT_OUTPUT,
    {"topic", 't', "TOPIC", "Whose offsets to set."},
    {"partition", 'p', "N", "One partition only."},
    {"to", 0, "WHERE", "earliest, latest, an offset, an RFC 3339 time or ts:MILLIS."},
    {"dry-run", 'n', NULL, "Show the offsets, commit nothing."},
    {0},
};

/* Fills each row's offset with where `to` points. A time behind the last record is the end. */
static int resolve(struct vv_client *c, const char *to, struct vv_part_ref *parts, size_t n,
                   struct vv_error *e)
{
    char *end;
    long long fixed = strtoll(to, &end, 10);
    bool number = *to && !*end;
    int64_t ms = 0;
    int rc = 0;
    if (!number && strcmp(to, "earliest") && strcmp(to, "latest") && !vv_admin_time(to, &ms))
        return vv_error_set(e, VV_E_USAGE,
                            "--to %s: expected earliest, latest, an offset or a time", to);
    for (size_t i = 0; i < n; i++)
        parts[i].timestamp = !strcmp(to, "earliest")           ? -2
                             : number || !strcmp(to, "latest") ? -1
                                                               : ms;
    rc = vv_client_offsets(c, parts, n, e);
    for (size_t i = 0; i < n && !rc; i++) {
        if (parts[i].err)
            return vv_error_set(e, parts[i].err, "%s-%d: %s", parts[i].topic, parts[i].partition,
                                vv_err_name(parts[i].err));
        if (number && (fixed < 0 || fixed > parts[i].offset))
            return vv_error_set(e, VV_OFFSET_OUT_OF_RANGE, "%s-%d ends at %" PRId64 ", before %lld",
                                parts[i].topic, parts[i].partition, parts[i].offset, fixed);
        if (number) parts[i].offset = fixed;
        if (parts[i].offset < 0) {
            parts[i].timestamp = -1;
            rc = vv_client_offsets(c, &parts[i], 1, e);
        }
    }
    return rc;
}

static int commit(struct vv_client *c, const char *group, const struct vv_part_ref *parts, size_t n,
                  struct vv_error *e)
{
    struct OffsetCommitRequest rq;
    struct OffsetCommitRequest_OffsetCommitRequestTopic t;
    struct OffsetCommitRequest_OffsetCommitRequestPartition *p = calloc(n + 1, sizeof *p);
    struct vv_reply r;
    int32_t node;
    int rc = p ? vv_client_coordinator(c, group, &node, e)
               : vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (rc) {
        free(p);
        return rc;
    }
    VV_MSG_INIT(OffsetCommitRequest, &rq);
    VV_STRUCT_INIT(OffsetCommitRequest_OffsetCommitRequestTopic, &t);
    for (size_t i = 0; i < n; i++) {
        VV_STRUCT_INIT(OffsetCommitRequest_OffsetCommitRequestPartition, &p[i]);
        p[i].PartitionIndex = parts[i].partition;
        p[i].CommittedOffset = parts[i].offset;
        p[i].CommittedMetadata = vv_str_c("");
    }
    t.Name = vv_str_c(parts[0].topic);
    t.Partitions.v = p;
    t.Partitions.n = (int32_t)n;
    rq.GroupId = vv_str_c(group);
    rq.GenerationIdOrMemberEpoch = -1;
    rq.MemberId = vv_str_c("");
    rq.Topics.v = &t;
    rq.Topics.n = 1;
    rc = vv_client_call(c, node, 8, &rq, &r, e);
    free(p);
    if (rc) return rc;
    const struct OffsetCommitResponse *rs = r.msg;
    for (int32_t i = 0; rs->Topics.n && i < rs->Topics.v[0].Partitions.n && !rc; i++) {
        int err = rs->Topics.v[0].Partitions.v[i].ErrorCode;
        if (err)
            rc = vv_error_set(e, err, "group %s: %s%s", group, vv_err_name(err),
                              err == VV_UNKNOWN_MEMBER_ID || err == VV_ILLEGAL_GENERATION ||
                                      err == VV_REBALANCE_IN_PROGRESS
                                  ? "; it has members: stop them first"
                                  : "");
    }
    vv_reply_release(&r);
    return rc;
}

static int reset(const struct vv_args *a, struct vv_client *c, bool json)
{
    const char *topic = vv_arg(a, "topic"), *to = vv_arg(a, "to");
    struct vv_part_ref *parts = NULL, *chosen;
    struct vv_error e = {0};
    int64_t only;
    size_t n = 0;
    if (!vv_arg_number(a, "partition", -1, 0, INT32_MAX, &only)) return VV_EXIT_USAGE;
    int rc = vv_client_partitions(c, topic, &parts, &n, &e);
    chosen = parts;
    if (!rc && only >= 0 && (size_t)only >= n)
        rc = vv_error_set(&e, VV_UNKNOWN_TOPIC_OR_PARTITION, "topic %s has %zu partitions", topic,
                          n);
    if (!rc && only >= 0) {
        chosen = parts + only;
        n = 1;
    }
    if (!rc) rc = resolve(c, to, chosen, n, &e);
    if (!rc && !vv_arg_given(a, "dry-run")) rc = commit(c, a->words[0], chosen, n, &e);
    if (rc) {
        rc = rc == VV_E_USAGE ? vv_cli_usage(a, "%s", e.text) : vv_cli_fail(a, "%s", e.text);
    } else {
        struct vv_table *t = vv_table_new("GROUP TOPIC PARTITION# OFFSET#");
        for (size_t i = 0; i < n; i++) {
            vv_table_cell(t, "%s", a->words[0]);
            vv_table_cell(t, "%s", topic);
            vv_table_cell(t, "%" PRId32, chosen[i].partition);
            vv_table_cell(t, "%" PRId64, chosen[i].offset);
        }
        rc = vv_table_print(t, json);
    }
    free(parts);
    return rc;
}

static int run_reset(const struct vv_args *a)
{
    bool json;
    if (!vv_table_wants_json(a, &json)) return VV_EXIT_USAGE;
    if (!vv_arg(a, "topic") || !vv_arg(a, "to"))
        return vv_cli_usage(a, "--topic and --to are needed");
    struct vv_client *c = vv_admin_open(a);
    if (!c) return VV_EXIT_FAILED;
    int rc = reset(a, c, json);
    vv_client_close(c);
    return rc;
}

const struct vv_command vv_cmd_group_reset = {
    .name = "group reset",
    .words = "GROUP",
    .words_min = 1,
    .words_max = 1,
    .summary = "Set a group's offsets: replay from a point.",
    .text = "The group must have no running members.\n\n"
            "  varve group reset billing --topic rides --to 2026-03-01T00:00:00Z\n"
            "  varve group reset billing --topic rides --to earliest --dry-run",
    .opts = reset_opts,
    .run = run_reset,
};

/* ---- delete ---- */

static const struct vv_opt delete_opts[] = {VV_OPT_BOOTSTRAP, {0}};

static int delete_one(struct vv_client *c, const char *group, struct vv_error *e)
{
    struct DeleteGroupsRequest rq;
    struct vv_str name = vv_str_c(group);
    struct vv_reply r;
    int32_t node;
    int rc = vv_client_coordinator(c, group, &node, e);
    if (rc) return rc;
    VV_MSG_INIT(DeleteGroupsRequest, &rq);
    rq.GroupsNames.v = &name;
    rq.GroupsNames.n = 1;
    if ((rc = vv_client_call(c, node, 42, &rq, &r, e))) return rc;
    const struct DeleteGroupsResponse *rs = r.msg;
    if (rs->Results.n && rs->Results.v[0].ErrorCode)
        rc = vv_error_set(e, rs->Results.v[0].ErrorCode, "group %s: %s", group,
                          vv_err_name(rs->Results.v[0].ErrorCode));
    vv_reply_release(&r);
    return rc;
}

static int run_delete(const struct vv_args *a)
{
    int rc = 0;
    struct vv_client *c = vv_admin_open(a);
    if (!c) return VV_EXIT_FAILED;
    for (size_t i = 0; i < a->word_count; i++) {
        struct vv_error e = {0};
        if (delete_one(c, a->words[i], &e))
            rc = vv_cli_fail(a, "%s", e.text);
        else
            printf("%s deleted\n", a->words[i]);
    }
    vv_client_close(c);
    return rc;
}

const struct vv_command vv_cmd_group_delete = {
    .name = "group delete",
    .words = "GROUP...",
    .words_min = 1,
    .words_max = -1,
    .summary = "Forget groups that have no members.",
    .opts = delete_opts,
    .run = run_delete,
};
