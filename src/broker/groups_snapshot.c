/* groups_snapshot.c — see groups_snapshot.h. */
#include "groups_snapshot.h"

#include "groups.h"
#include "partition.h"
#include "varve/vlog.h"

#include <stdlib.h>
#include <string.h>

#define RECORDS_PER_BATCH 500

uint64_t vv_groups_changes(const struct vv_groups *g)
{
    return g ? g->writes_done : 0; /* not those begun: a copy made meanwhile does not have them */
}

/* ---- out ---- */

static json_t *text(struct vv_str s)
{
    json_t *t = s.n > 0 ? json_stringn(s.p, (size_t)s.n) : NULL;
    return t ? t : json_string(""); /* not UTF-8: only a note of the client's can be, and it is not worth an offset */
}

static int export_offset(json_t *to, const struct vv_group_offset *o)
{
    if (!o->present) return VV_OK;
    json_t *v = json_pack("{s:o,s:i,s:I,s:i,s:I,s:o}", "topic", text(vv_group_offset_topic(o)), "partition",
                          (int)vv_group_offset_partition(o), "offset", (json_int_t)o->offset, "leader_epoch",
                          (int)o->leader_epoch, "commit_ms", (json_int_t)o->commit_ms, "metadata", text(o->metadata));
    return v && !json_array_append_new(to, v) ? VV_OK : VV_E_NOMEM;
}

json_t *vv_groups_export_topic(struct vv_groups *g, const char *topic)
{
    struct vv_gcursor at = {0};
    json_t *all = json_array();
    for (struct vv_gnode *node; all && g && (node = vv_gmap_next(&g->table, &at));) {
        struct vv_group *group = VV_CONTAINER(node, struct vv_group, node);
        struct vv_gcursor in = {0};
        for (struct vv_gnode *n; (n = vv_gmap_next(&group->offsets, &in));) {
            const struct vv_group_offset *o = VV_CONTAINER(n, struct vv_group_offset, node);
            if (!vv_str_is(vv_group_offset_topic(o), topic) || export_offset(all, o) || !o->present) continue;
            json_object_set_new(json_array_get(all, json_array_size(all) - 1), "group", text(group->id));
        }
    }
    if (json_array_size(all)) return all;
    json_decref(all);
    return NULL;
}

static int export_group(json_t *to, struct vv_group *group)
{
    struct vv_gcursor at = {0};
    json_t *offsets = json_array(), *id = json_stringn(group->id.p, (size_t)group->id.n);
    int err = VV_OK;
    for (struct vv_gnode *node; !err && (node = vv_gmap_next(&group->offsets, &at));)
        err = export_offset(offsets, VV_CONTAINER(node, struct vv_group_offset, node));
    if (err || !id || !json_array_size(offsets)) { /* nothing to keep, or no name that JSON can hold */
        json_decref(offsets);
        json_decref(id);
        return err;
    }
    json_t *v = json_pack("{s:o,s:o}", "group", id, "offsets", offsets);
    return v && !json_array_append_new(to, v) ? VV_OK : VV_E_NOMEM;
}

json_t *vv_groups_export(struct vv_groups *g)
{
    struct vv_gcursor at = {0};
    json_t *to = json_array();
    int err = to ? VV_OK : VV_E_NOMEM;
    for (struct vv_gnode *node; !err && g && (node = vv_gmap_next(&g->table, &at));)
        err = export_group(to, VV_CONTAINER(node, struct vv_group, node));
    if (!err) return to;
    json_decref(to);
    return NULL;
}

/* ---- in ---- */

struct import {
    struct vv_broker *b;
    struct vv_partition *to; /* of __consumer_offsets */
    struct vv_batch_builder *batch;
    int records;
    size_t offsets, cut;
};

static int write_batch(struct import *im)
{
    uint8_t *p;
    size_t n;
    struct vv_batch batch;
    struct vv_error e = {0};
    if (!im->records) return VV_OK;
    int err = vv_batch_builder_finish(im->batch, &p, &n);
    if (!err) err = vv_batch_parse(p, n, &batch);
    struct vv_append a = {
        .p = p, .b = &batch, .leader_epoch = vv_partition_epoch(im->to), .now_ms = vv_wall_ms(im->b->env)};
    if (!err) err = vv_partition_append(im->to, &a, &e);
    vv_batch_builder_free(im->batch);
    im->batch = vv_batch_builder_new();
    im->records = 0;
    return !err && !im->batch ? VV_E_NOMEM : err;
}

static int import_offset(struct import *im, struct vv_str group, json_t *o)
{
    const char *topic, *metadata;
    int partition, epoch;
    json_int_t offset, commit_ms;
    uint8_t *key = NULL, *value = NULL;
    size_t key_n, value_n;
    if (json_unpack(o, "{s:s,s:i,s:I,s:i,s:I,s:s}", "topic", &topic, "partition", &partition, "offset", &offset,
                    "leader_epoch", &epoch, "commit_ms", &commit_ms, "metadata", &metadata))
        return VV_E_CORRUPT;
    struct vv_topic *t = vv_topics_get(im->b->topics, topic, strlen(topic));
    struct vv_partition *p = t ? vv_topic_partition(t, partition) : NULL;
    bool known = t && partition >= 0 && partition < vv_topic_partitions(t);
    int err = VV_OK;
    if (known) {
        int64_t end = p ? vv_log_end(p->log) : INT64_MAX; /* one that cannot be read now: as it was */
        if (offset > end) im->cut++;
        struct vv_commit_item item = {.offset = VV_MIN((int64_t)offset, end),
                                      .expire_ms = -1,
                                      .leader_epoch = offset > end ? -1 : epoch,
                                      .metadata = vv_str_c(metadata),
                                      .topic_id = t->id};
        err = vv_group_offset_key(group, vv_str_c(topic), partition, &key, &key_n);
        if (!err) err = vv_group_offset_value(&item, commit_ms, &value, &value_n);
        if (!err)
            err =
                vv_batch_builder_add(im->batch, vv_wall_ms(im->b->env), key, (int32_t)key_n, value, (int32_t)value_n);
        im->offsets++;
    }
    free(key);
    free(value);
    vv_topic_unref(t);
    if (!err && known && ++im->records == RECORDS_PER_BATCH) err = write_batch(im);
    return err;
}

static int import_group(struct import *im, struct vv_topic *log, json_t *o)
{
    const char *id = json_string_value(json_object_get(o, "group"));
    json_t *offset;
    size_t i;
    if (!id) return VV_E_CORRUPT;
    struct vv_str group = vv_str_c(id);
    im->to = vv_topic_partition(log, vv_group_partition(group, log->partition_count));
    int err = im->to ? VV_OK : VV_E_STATE;
    json_array_foreach(json_object_get(o, "offsets"), i, offset)
    {
        if (!err) err = import_offset(im, group, offset);
    }
    if (!err) err = write_batch(im);
    return err ? err : vv_log_flush(im->to->log);
}

int vv_groups_import(struct vv_broker *b, const char *snapshot, size_t n, struct vv_error *e)
{
    struct import im = {.b = b, .batch = vv_batch_builder_new()};
    json_t *root = json_loadb(snapshot, n, 0, NULL), *groups = json_object_get(root, "groups"), *o;
    struct vv_topic *log = vv_topics_get(b->topics, VV_OFFSETS_TOPIC, sizeof VV_OFFSETS_TOPIC - 1);
    size_t i;
    int err = root && im.batch ? VV_OK : VV_E_NOMEM;
    json_array_foreach(groups, i, o)
    {
        if (!err && log) err = import_group(&im, log, o);
    }
    if (err) vv_error_set(e, err, "cannot restore the groups' offsets: %s", vv_err_name(err));
    if (!err && log && im.offsets)
        VLOG_INFO("restored %zu committed offsets of %zu groups; %zu were beyond what the bucket has and were set to "
                  "its end",
                  im.offsets, json_array_size(groups), im.cut);
    vv_topic_unref(log);
    vv_batch_builder_free(im.batch);
    json_decref(root);
    return err;
}

/* ---- a topic that came back ---- */

struct again { /* one commit of one offset, as a client without members would make it */
    struct vv_group_call call;
    struct vv_arena arena;
    struct OffsetCommitRequest q;
    struct OffsetCommitRequest_OffsetCommitRequestTopic topic;
    struct OffsetCommitRequest_OffsetCommitRequestPartition part;
};

static void again_done(struct vv_group_call *c, const void *response)
{
    struct again *a = VV_CONTAINER(c, struct again, call);
    const struct OffsetCommitResponse *r = response;
    int err = r->Topics.n > 0 && r->Topics.v[0].Partitions.n > 0 ? r->Topics.v[0].Partitions.v[0].ErrorCode : 0;
    if (err) VLOG_WARN("group %.*s: its offset of a topic that came back is not committed again: %s", a->q.GroupId.n, a->q.GroupId.p,
                       vv_err_name(err));
    vv_arena_release(&a->arena);
    free(a);
}

static void commit_again(struct vv_groups *g, struct vv_topic *t, const json_t *o)
{
    const char *group = json_string_value(json_object_get(o, "group"));
    const char *metadata = json_string_value(json_object_get(o, "metadata"));
    int32_t partition = (int32_t)json_integer_value(json_object_get(o, "partition"));
    struct vv_partition *p = vv_topic_partition(t, partition);
    struct again *a = group && p ? calloc(1, sizeof *a) : NULL;
    if (!a) return;
    vv_arena_init(&a->arena, 1u << 20);
    int64_t offset = json_integer_value(json_object_get(o, "offset")), end = vv_log_end(p->log);
    VV_MSG_INIT(OffsetCommitRequest, &a->q);
    VV_STRUCT_INIT(OffsetCommitRequest_OffsetCommitRequestTopic, &a->topic);
    VV_STRUCT_INIT(OffsetCommitRequest_OffsetCommitRequestPartition, &a->part);
    a->part.PartitionIndex = partition;
    a->part.CommittedOffset = VV_MIN(offset, end);
    a->part.CommittedLeaderEpoch = offset > end ? -1 : (int32_t)json_integer_value(json_object_get(o, "leader_epoch"));
    a->topic.Partitions.v = &a->part;
    a->topic.Partitions.n = 1;
    a->q.Topics.v = &a->topic;
    a->q.Topics.n = 1;
    a->q.GenerationIdOrMemberEpoch = -1;
    a->call = (struct vv_group_call){.req = &a->q, .version = 8, .arena = &a->arena, .client_host = "", .done = again_done};
    a->topic.Name = vv_str_c(vv_arena_strdup(&a->arena, t->name, strlen(t->name)));
    a->q.GroupId = vv_str_c(vv_arena_strdup(&a->arena, group, strlen(group)));
    a->q.MemberId = vv_str_c("");
    a->part.CommittedMetadata = vv_str_c(metadata ? vv_arena_strdup(&a->arena, metadata, strlen(metadata)) : "");
    vv_groups_commit(g, &a->call);
}

void vv_groups_import_topic(struct vv_groups *g, struct vv_topic *t, const json_t *offsets)
{
    size_t i;
    const json_t *o;
    if (!g || g->stopping) return;
    json_array_foreach(offsets, i, o) commit_again(g, t, o);
}
