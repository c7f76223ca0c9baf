/* group_commit.c — OffsetCommit: checked, written as one batch, visible and answered once durable.
 *
 * A member commits for its generation; a consumer without group management (no member id, generation -1) while the
 * group is empty or does not exist. Partitions that are refused do not hold up the others. On control. */
#include "groups.h"
#include "varve/vlog.h"

#include <stdlib.h>

/* What a commit in this group would be told as a whole. *m: whose session it keeps alive, may be NULL. */
static int check_group(struct vv_group *group, const struct OffsetCommitRequest *r, int16_t version,
                       struct vv_group_member **m)
{
    int32_t generation = r->GenerationIdOrMemberEpoch;
    *m = NULL;
    if (!group) return generation < 0 ? 0 : version >= 9 ? VV_GROUP_ID_NOT_FOUND : VV_ILLEGAL_GENERATION;
    if (generation < 0 && group->state == VV_GROUP_EMPTY) return 0;
    if (generation < 0 && r->MemberId.n <= 0 && r->GroupInstanceId.n < 0) return VV_UNKNOWN_MEMBER_ID;
    int err = vv_group_check_member(group, r->MemberId, r->GroupInstanceId, m);
    if (err) return err;
    if (generation != group->generation) return VV_ILLEGAL_GENERATION;
    return group->state == VV_GROUP_COMPLETING ? VV_REBALANCE_IN_PROGRESS : 0;
}

static void commit_ended(struct vv_group_write *w, int err)
{
    struct vv_group *group = w->group;
    struct vv_groups *g = group->groups;
    for (int32_t i = 0; i < w->item_count; i++) {
        struct vv_commit_item *item = &w->items[i];
        struct vv_group_offset *o = item->o;
        o->pending--;
        if (!err && w->seq >= o->floor && w->seq >= o->written) {
            g->bytes += (size_t)VV_MAX(item->metadata.n, 0) - (size_t)VV_MAX(o->metadata.n, 0);
            vv_str_drop(&o->metadata);
            o->metadata = item->metadata;
            item->metadata = VV_STR_NULL;
            o->offset = item->offset;
            o->leader_epoch = item->leader_epoch;
            o->commit_ms = w->commit_ms;
            o->expire_ms = item->expire_ms;
            o->topic_id = item->topic_id;
            o->written = w->seq;
            o->present = true;
        }
        if (!o->present && !o->pending) vv_group_offset_free(group, o);
    }
}

static void commit_reported(struct vv_group_write *w, int err)
{
    if (!w->call) return;
    for (int32_t i = 0; i < w->item_count; i++) *w->items[i].error = (int16_t)err;
    w->call->done(w->call, w->response);
}

/* ---- the request ---- */

struct commit {
    struct vv_groups *g;
    struct vv_group_call *c;
    const struct OffsetCommitRequest *r;
    struct OffsetCommitResponse response;
    struct accepted {
        struct vv_str topic;
        struct vv_uuid topic_id;
        const struct OffsetCommitRequest_OffsetCommitRequestPartition *p;
        int16_t *error;
    } *v;
    int32_t n;
};

static void check_topic(struct commit *k, int32_t t)
{
    const struct OffsetCommitRequest_OffsetCommitRequestTopic *asked = &k->r->Topics.v[t];
    struct OffsetCommitResponse_OffsetCommitResponseTopic *told = &k->response.Topics.v[t];
    char *name = vv_arena_alloc(k->c->arena, 256);
    struct vv_uuid id = {{0}};
    int32_t partitions = 0;
    bool by_id = k->c->version >= 10;
    const struct vv_uuid *asked_id = by_id ? &asked->TopicId : NULL;
    bool known = name && k->g->ops->topic(k->g->ctx, asked->Name, asked_id, name, &id, &partitions);
    for (int32_t i = 0; i < told->Partitions.n; i++) {
        const struct OffsetCommitRequest_OffsetCommitRequestPartition *p = &asked->Partitions.v[i];
        int16_t *error = &told->Partitions.v[i].ErrorCode;
        told->Partitions.v[i].PartitionIndex = p->PartitionIndex;
        if (!known)
            *error = by_id ? VV_UNKNOWN_TOPIC_ID : VV_UNKNOWN_TOPIC_OR_PARTITION;
        else if (p->PartitionIndex < 0 || p->PartitionIndex >= partitions)
            *error = VV_UNKNOWN_TOPIC_OR_PARTITION;
        else if (p->CommittedMetadata.n > k->g->config.metadata_max)
            *error = VV_OFFSET_METADATA_TOO_LARGE;
        else
            k->v[k->n++] = (struct accepted){vv_str_c(name), id, p, error};
    }
}

static int prepare(struct commit *k)
{
    size_t count = 0;
    VV_MSG_INIT(OffsetCommitResponse, &k->response);
    if (VV_ARRAY_NEW(k->response.Topics, OffsetCommitResponse_OffsetCommitResponseTopic, k->c->arena,
                     VV_MAX(k->r->Topics.n, 0)))
        return vv_arena_err(k->c->arena);
    for (int32_t t = 0; t < k->response.Topics.n; t++) {
        struct OffsetCommitResponse_OffsetCommitResponseTopic *told = &k->response.Topics.v[t];
        int32_t n = VV_MAX(k->r->Topics.v[t].Partitions.n, 0);
        told->Name = k->r->Topics.v[t].Name;
        told->TopicId = k->r->Topics.v[t].TopicId;
        if (VV_ARRAY_NEW(told->Partitions, OffsetCommitResponse_OffsetCommitResponsePartition, k->c->arena, n))
            return vv_arena_err(k->c->arena);
        count += (size_t)n;
    }
    k->v = vv_arena_alloc(k->c->arena, (count + 1) * sizeof *k->v);
    if (!k->v) return vv_arena_err(k->c->arena);
    for (int32_t t = 0; t < k->response.Topics.n; t++) check_topic(k, t);
    return 0;
}

static int add_item(struct vv_group_write *w, const struct commit *k, const struct accepted *a)
{
    struct vv_commit_item *item = &w->items[w->item_count];
    uint8_t *key = NULL, *value = NULL;
    size_t key_n, value_n;
    *item = (struct vv_commit_item){.error = a->error,
                                    .offset = a->p->CommittedOffset,
                                    .expire_ms = k->r->RetentionTimeMs < 0 ? -1 : w->commit_ms + k->r->RetentionTimeMs,
                                    .leader_epoch = a->p->CommittedLeaderEpoch,
                                    .metadata = VV_STR_NULL,
                                    .topic_id = a->topic_id};
    if (a->p->CommittedMetadata.n > 0 && vv_str_own(&item->metadata, a->p->CommittedMetadata)) return VV_E_NOMEM;
    item->o = vv_group_offset(w->group, a->topic, a->p->PartitionIndex, true);
    if (!item->o) {
        vv_str_drop(&item->metadata);
        return VV_E_NOMEM;
    }
    item->o->pending++;
    w->item_count++;
    int err = vv_group_offset_key(w->group->id, a->topic, a->p->PartitionIndex, &key, &key_n);
    if (!err) err = vv_group_offset_value(item, w->commit_ms, &value, &value_n);
    if (!err) err = vv_group_write_add(w, key, key_n, value, value_n);
    free(key);
    free(value);
    return err;
}

/* 0: the call is answered by the write. */
static int write_commit(struct vv_group *group, struct commit *k)
{
    struct vv_group_write *w = vv_group_write_new(group);
    if (!w) return VV_E_NOMEM;
    w->items = calloc((size_t)k->n, sizeof *w->items);
    struct OffsetCommitResponse *response = vv_arena_alloc(k->c->arena, sizeof *response);
    int err = w->items && response ? 0 : VV_E_NOMEM;
    for (int32_t i = 0; i < k->n && !err; i++) err = add_item(w, k, &k->v[i]);
    if (err) {
        commit_ended(w, err);
        vv_group_write_free(w);
        return err;
    }
    *response = k->response;
    w->call = k->c;
    w->response = response;
    w->report = commit_reported;
    w->finish = commit_ended;
    return vv_group_write_submit(w);
}

static int commit_error(int err)
{
    err = vv_err_kafka(err);
    if (err == VV_MESSAGE_TOO_LARGE || err == VV_RECORD_LIST_TOO_LARGE) return VV_INVALID_COMMIT_OFFSET_SIZE;
    return vv_group_write_error(err);
}

void vv_groups_commit(struct vv_groups *g, struct vv_group_call *c)
{
    struct commit k = {.g = g, .c = c, .r = c->req};
    struct vv_group_member *m = NULL;
    if (prepare(&k)) {
        k.response.Topics.n = 0;
        c->done(c, &k.response);
        return;
    }
    int err = 0;
    if (g->stopping) err = VV_COORDINATOR_NOT_AVAILABLE;
    if (!err && (k.r->GroupId.n < 0 || k.r->GroupId.n > VV_GROUP_ID_MAX)) err = VV_INVALID_GROUP_ID;
    struct vv_group *group = err ? NULL : vv_groups_find(g, k.r->GroupId);
    if (!err) err = check_group(group, k.r, c->version, &m);
    if (!err && m) vv_member_renew(m);
    if (!err && vv_groups_full(g, (size_t)k.n * 256)) err = VV_INVALID_COMMIT_OFFSET_SIZE;
    if (!err && k.n && !group) {
        group = vv_groups_add(g, k.r->GroupId);
        if (!group) err = VV_COORDINATOR_NOT_AVAILABLE;
    }
    if (!err && k.n) {
        err = write_commit(group, &k);
        if (!err) return;
        VLOG_WARN("group %s: a commit was not stored: %s", group->id.p, vv_err_name(err));
        err = commit_error(err);
    }
    for (int32_t i = 0; i < k.n; i++) *k.v[i].error = (int16_t)err;
    c->done(c, &k.response);
}
