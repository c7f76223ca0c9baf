/* group_load.c — groups from the records of __consumer_offsets, in log order: the last one per key wins, also a tombstone.
 *
 * Keys 0 and 1 are offsets, 2 a group; others belong to newer group protocols and are passed over. A record that cannot be
 * read is passed over with a warning: one damaged group must not keep the broker down. Before control starts. */
#include "groups.h"
#include "varve/vlog.h"

#include <stdlib.h>

static int decode(const struct vv_msg_schema *schema, const uint8_t *p, int32_t n, struct vv_arena *arena, void *out,
                  int16_t *version)
{
    if (n < 2) return VV_E_PROTO;
    *version = (int16_t)vv_get16(p);
    if (*version < schema->min || *version > schema->max) return VV_E_UNSUPPORTED;
    return vv_msg_decode(schema, *version, p + 2, (size_t)n - 2, arena, out, NULL);
}

/* ---- offsets ---- */

static int apply_offset(struct vv_groups *g, const struct vv_record *r, struct vv_arena *arena)
{
    struct OffsetCommitKey k;
    struct OffsetCommitValue v;
    int16_t version;
    int err = decode(&vv_schema_OffsetCommitKey, r->key, r->key_n, arena, &k, &version);
    if (err) return err;
    struct vv_group *group = vv_groups_find(g, k.Group);
    if (r->value_n < 0) {
        struct vv_group_offset *o = group ? vv_group_offset(group, k.Topic, k.Partition, false) : NULL;
        if (o) vv_group_offset_free(group, o);
        return 0;
    }
    err = decode(&vv_schema_OffsetCommitValue, r->value, r->value_n, arena, &v, &version);
    if (err) return err;
    if (!group) group = vv_groups_add(g, k.Group);
    struct vv_group_offset *o = group ? vv_group_offset(group, k.Topic, k.Partition, true) : NULL;
    if (!o) return VV_E_NOMEM;
    g->bytes -= (size_t)VV_MAX(o->metadata.n, 0);
    vv_str_drop(&o->metadata);
    if (v.Metadata.n > 0 && vv_str_own(&o->metadata, v.Metadata)) return VV_E_NOMEM;
    g->bytes += (size_t)VV_MAX(o->metadata.n, 0);
    o->offset = v.Offset;
    o->leader_epoch = v.LeaderEpoch;
    o->commit_ms = v.CommitTimestamp;
    o->expire_ms = version == 1 ? v.ExpireTimestamp : -1;
    o->topic_id = v.TopicId;
    o->present = true;
    return 0;
}

/* ---- groups ---- */

static void clear_members(struct vv_group *group)
{
    while (group->first) vv_member_remove(group->first, VV_UNKNOWN_MEMBER_ID);
    group->leader = NULL;
}

static int load_member(struct vv_group *group, const struct GroupMetadataValue_MemberMetadata *v,
                       struct vv_str protocol)
{
    char host[VV_GROUP_ID_MAX + 1];
    int32_t n = VV_MIN(VV_MAX(v->ClientHost.n, 0), VV_GROUP_ID_MAX);
    if (n) memcpy(host, v->ClientHost.p, (size_t)n);
    host[n] = 0;
    if (vv_group_member(group, v->MemberId)) return VV_E_CORRUPT;
    if (v->GroupInstanceId.n >= 0 && vv_group_instance(group, v->GroupInstanceId)) return VV_E_CORRUPT;
    struct vv_group_member *m = vv_member_new(group, v->MemberId, v->GroupInstanceId, v->ClientId, host);
    if (!m) return VV_E_NOMEM;
    struct vv_group_protocol one = {protocol.n < 0 ? VV_STR_LIT("") : protocol, v->Subscription};
    int err = vv_member_set_protocols(m, &one, 1);
    if (!err) err = vv_bytes_own(&m->assignment, v->Assignment);
    if (err) {
        vv_member_discard(m);
        return err;
    }
    m->session_ms = v->SessionTimeout;
    m->rebalance_ms = v->RebalanceTimeout < 0 ? v->SessionTimeout : v->RebalanceTimeout;
    return vv_member_add(m);
}

static int apply_group(struct vv_groups *g, const struct vv_record *r, struct vv_arena *arena)
{
    struct GroupMetadataKey k;
    struct GroupMetadataValue v;
    int16_t version;
    int err = decode(&vv_schema_GroupMetadataKey, r->key, r->key_n, arena, &k, &version);
    if (err) return err;
    struct vv_group *group = vv_groups_find(g, k.Group);
    if (group) { /* offsets stay: they have records of their own */
        clear_members(group);
        group->state = group->previous = VV_GROUP_EMPTY;
        group->generation = 0;
        vv_str_drop(&group->protocol_type);
        vv_str_drop(&group->protocol);
    }
    if (r->value_n < 0) return 0;
    err = decode(&vv_schema_GroupMetadataValue, r->value, r->value_n, arena, &v, &version);
    if (err) return err;
    if (!group) group = vv_groups_add(g, k.Group);
    if (!group) return VV_E_NOMEM;
    if (v.ProtocolType.n > 0) err = vv_str_own(&group->protocol_type, v.ProtocolType);
    if (!err) err = vv_str_own(&group->protocol, v.Protocol);
    group->generation = v.Generation;
    group->state_ms = v.CurrentStateTimestamp;
    for (int32_t i = 0; i < v.Members.n && !err; i++) err = load_member(group, &v.Members.v[i], v.Protocol);
    if (err) {
        clear_members(group);
        return err;
    }
    struct vv_group_member *leader = vv_group_member(group, v.Leader);
    if (leader) group->leader = leader;
    if (group->first) group->state = group->previous = VV_GROUP_STABLE;
    return 0;
}

int vv_groups_apply(struct vv_groups *g, const struct vv_record *r)
{
    struct vv_arena arena;
    if (r->key_n < 2) return 0;
    int16_t type = (int16_t)vv_get16(r->key);
    vv_arena_init(&arena, 0);
    int err = 0;
    if (type == 0 || type == 1)
        err = apply_offset(g, r, &arena);
    else if (type == 2)
        err = apply_group(g, r, &arena);
    vv_arena_release(&arena);
    if (err == VV_E_NOMEM) return err;
    if (err)
        VLOG_WARN(VV_OFFSETS_TOPIC ": the record at offset %lld can not be read (%s) and is passed over",
                  (long long)r->offset, vv_err_name(err));
    return 0;
}

/* ---- afterwards ---- */

/* Committed under the id of a topic that is gone, perhaps replaced by one of the same name. */
static bool is_stale(struct vv_groups *g, const struct vv_group_offset *o)
{
    struct vv_uuid id;
    int32_t partitions;
    if (vv_uuid_is_zero(o->topic_id)) return false;
    return !g->ops->topic(g->ctx, vv_group_offset_topic(o), NULL, NULL, &id, &partitions) ||
           !vv_uuid_eq(id, o->topic_id);
}

void vv_groups_loaded(struct vv_groups *g)
{
    struct vv_gcursor at = {0};
    for (struct vv_gnode *node; (node = vv_gmap_next(&g->table, &at));) {
        struct vv_group *group = VV_CONTAINER(node, struct vv_group, node);
        struct vv_gcursor in = {0};
        for (struct vv_gnode *n; (n = vv_gmap_next(&group->offsets, &in));) {
            struct vv_group_offset *o = VV_CONTAINER(n, struct vv_group_offset, node);
            if (is_stale(g, o)) vv_group_offset_free(group, o);
        }
        vv_group_find_topics(group);
        bool nothing = !group->first && !group->offsets.count && group->generation == 0;
        if (nothing) vv_group_remove(group);
    }
}
