/* group_log.c — groups as records of __consumer_offsets: Kafka's keys and values, and the writes that carry them.
 *
 * A write is one batch: all partitions of a commit, or a group's metadata. It is reported once, when it is as durable
 * as acks=all demands, when it failed, or when it is overdue (offsets.commit.timeout.ms); the append itself may end later,
 * and finish() then hears of it. Writes of a group go to one partition, so their order is the log's order.
 * A group outlives its writes. On control. */
#include "groups.h"
#include "varve/vlog.h"

#include <stdlib.h>

/* ---- bytes ---- */

int vv_group_encode(const struct vv_msg_schema *schema, int16_t version, const void *msg, uint8_t **out, size_t *n)
{
    struct vv_out o;
    struct vv_chain chain = {0};
    uint8_t prefix[2];
    vv_out_init(&o);
    vv_put16(prefix, (uint16_t)version);
    vv_out_bytes(&o, prefix, sizeof prefix);
    int err = vv_msg_encode(schema, version, msg, &o);
    if (err) {
        vv_out_release(&o);
        return err;
    }
    err = vv_out_finish(&o, &chain);
    *n = chain.bytes;
    *out = err ? NULL : malloc(chain.bytes);
    if (*out) vv_chain_copy_out(&chain, *out);
    vv_chain_release(&chain);
    return err ? err : *out ? 0 : VV_E_NOMEM;
}

int vv_group_offset_key(struct vv_str group, struct vv_str topic, int32_t partition, uint8_t **out, size_t *n)
{
    struct OffsetCommitKey k = {.Group = group, .Topic = topic, .Partition = partition};
    return vv_group_encode(&vv_schema_OffsetCommitKey, 1, &k, out, n);
}

int vv_group_metadata_key(struct vv_str group, uint8_t **out, size_t *n)
{
    struct GroupMetadataKey k = {.Group = group};
    return vv_group_encode(&vv_schema_GroupMetadataKey, 2, &k, out, n);
}

/* Version 1 alone can say when it expires; 4 alone knows the topic's id; 3 is what every Kafka since 2.1 reads. */
int vv_group_offset_value(const struct vv_commit_item *i, int64_t commit_ms, uint8_t **out, size_t *n)
{
    struct OffsetCommitValue v;
    VV_MSG_INIT(OffsetCommitValue, &v);
    v.Offset = i->offset;
    v.LeaderEpoch = i->leader_epoch;
    v.Metadata = i->metadata.n > 0 ? i->metadata : VV_STR_LIT("");
    v.CommitTimestamp = commit_ms;
    v.ExpireTimestamp = i->expire_ms;
    v.TopicId = i->topic_id;
    int16_t version = i->expire_ms >= 0 ? 1 : vv_uuid_is_zero(i->topic_id) ? 3 : 4;
    return vv_group_encode(&vv_schema_OffsetCommitValue, version, &v, out, n);
}

int vv_group_metadata_value(struct vv_group *group, bool staged, uint8_t **out, size_t *n)
{
    struct vv_arena arena;
    struct GroupMetadataValue v;
    vv_arena_init(&arena, 0);
    VV_MSG_INIT(GroupMetadataValue, &v);
    v.ProtocolType = group->protocol_type.n < 0 ? VV_STR_LIT("") : group->protocol_type;
    v.Generation = group->generation;
    v.Protocol = group->protocol;
    v.Leader = group->leader ? group->leader->id : VV_STR_NULL;
    v.CurrentStateTimestamp = group->state_ms;
    int err = VV_ARRAY_NEW(v.Members, GroupMetadataValue_MemberMetadata, &arena, group->members.count);
    struct GroupMetadataValue_MemberMetadata *at = v.Members.v;
    for (struct vv_group_member *m = group->first; m && !err; m = m->next, at++) {
        at->MemberId = m->id;
        at->GroupInstanceId = m->instance;
        at->ClientId = m->client_id;
        at->ClientHost = m->client_host;
        at->RebalanceTimeout = m->rebalance_ms;
        at->SessionTimeout = m->session_ms;
        at->Subscription = vv_member_metadata(m, group->protocol);
        at->Assignment = staged ? m->staged : m->assignment;
    }
    if (!err) err = vv_group_encode(&vv_schema_GroupMetadataValue, 3, &v, out, n);
    vv_arena_release(&arena);
    return err;
}

/* ---- where a group lives ---- */

/* One code point; a damaged sequence counts as U+FFFD for its first byte. */
static int32_t next_char(struct vv_str s, int32_t *at)
{
    const uint8_t *p = (const uint8_t *)s.p + *at;
    int32_t left = s.n - *at, n = 0;
    if (p[0] < 0x80)
        n = 1;
    else if (p[0] >= 0xc2 && p[0] < 0xf5)
        n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    int32_t c = n == 1 ? p[0] : p[0] & (0xff >> (n + 1));
    for (int32_t i = 1; i < n; i++) {
        if (i >= left || (p[i] & 0xc0) != 0x80) {
            n = 0;
            break;
        }
        c = c << 6 | (p[i] & 0x3f);
    }
    *at += n ? n : 1;
    return n ? c : 0xfffd;
}

int32_t vv_java_hash(struct vv_str s)
{
    uint32_t h = 0;
    for (int32_t at = 0; at < s.n;) {
        int32_t c = next_char(s, &at);
        if (c < 0x10000) {
            h = h * 31 + (uint32_t)c;
            continue;
        }
        c -= 0x10000; /* two UTF-16 units */
        h = h * 31 + (uint32_t)(0xd800 + (c >> 10));
        h = h * 31 + (uint32_t)(0xdc00 + (c & 0x3ff));
    }
    return (int32_t)h;
}

int32_t vv_group_partition(struct vv_str group, int32_t partitions)
{
    int32_t h = vv_java_hash(group);
    return (h == INT32_MIN ? 0 : abs(h)) % partitions;
}

/* ---- writes ---- */

struct vv_group_write *vv_group_write_new(struct vv_group *group)
{
    struct vv_groups *g = group->groups;
    struct vv_group_write *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->batch = vv_batch_builder_new();
    if (!w->batch) {
        free(w);
        return NULL;
    }
    w->group = group;
    w->member = VV_STR_NULL;
    w->seq = ++g->write_seq;
    w->commit_ms = g->ops->wall_ms(g->ctx);
    w->next = g->writes;
    if (w->next) w->next->prev = w;
    g->writes = w;
    group->writes++;
    return w;
}

void vv_group_write_free(struct vv_group_write *w)
{
    struct vv_groups *g = w->group->groups;
    g->writes_done++;
    g->ops->cancel(g->ctx, &w->timeout);
    *(w->prev ? &w->prev->next : &g->writes) = w->next;
    if (w->next) w->next->prev = w->prev;
    vv_batch_builder_free(w->batch);
    vv_str_drop(&w->member);
    for (int32_t i = 0; i < w->item_count; i++) vv_str_drop(&w->items[i].metadata);
    free(w->items);
    vv_group_unpin(w->group);
    free(w);
}

int vv_group_write_add(struct vv_group_write *w, const uint8_t *key, size_t key_n, const uint8_t *value, size_t value_n)
{
    w->records++;
    return vv_batch_builder_add(w->batch, w->commit_ms, key, (int32_t)key_n, value, value ? (int32_t)value_n : -1);
}

int vv_group_write_error(int err)
{
    err = vv_err_kafka(err);
    switch (err) {
    case 0: return 0;
    case VV_UNKNOWN_TOPIC_OR_PARTITION:
    case VV_NOT_ENOUGH_REPLICAS:
    case VV_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
    case VV_REQUEST_TIMED_OUT:
    case VV_COORDINATOR_NOT_AVAILABLE: return VV_COORDINATOR_NOT_AVAILABLE;
    case VV_NOT_LEADER_OR_FOLLOWER:
    case VV_KAFKA_STORAGE_ERROR: return VV_NOT_COORDINATOR;
    case VV_MESSAGE_TOO_LARGE:
    case VV_RECORD_LIST_TOO_LARGE:
    case VV_INVALID_FETCH_SIZE: return VV_UNKNOWN_SERVER_ERROR;
    default: return err;
    }
}

static void report(struct vv_group_write *w, int err)
{
    if (w->reported) return;
    w->reported = true;
    if (w->report) w->report(w, err);
    w->call = NULL;
}

static void on_durable(struct vv_produce_done *d, int err)
{
    struct vv_group_write *w = VV_CONTAINER(d, struct vv_group_write, d);
    struct vv_groups *g = w->group->groups;
    g->ops->cancel(g->ctx, &w->timeout);
    if (err) VLOG_WARN("group %s: a write to " VV_OFFSETS_TOPIC " failed: %s", w->group->id.p, vv_err_name(err));
    if (w->finish) w->finish(w, err);
    report(w, vv_group_write_error(err));
    vv_group_write_free(w);
}

static void on_overdue(struct vv_timer *t)
{
    struct vv_group_write *w = VV_CONTAINER(t, struct vv_group_write, timeout);
    VLOG_WARN("group %s: a write to " VV_OFFSETS_TOPIC " is not durable after %lld ms", w->group->id.p,
              (long long)w->group->groups->config.commit_timeout_ms);
    report(w, VV_COORDINATOR_NOT_AVAILABLE);
}

static int refused(struct vv_group_write *w, int err)
{
    if (w->finish) w->finish(w, err);
    vv_group_write_free(w);
    return err;
}

int vv_group_write_submit(struct vv_group_write *w)
{
    struct vv_groups *g = w->group->groups;
    uint8_t *p;
    size_t n;
    int32_t partitions = 0;
    int err = vv_batch_builder_finish(w->batch, &p, &n);
    if (!err && n > (size_t)g->config.batch_max) err = VV_MESSAGE_TOO_LARGE;
    if (!err) err = g->ops->log_open(g->ctx, &partitions);
    if (err) return refused(w, err);
    w->d.done = on_durable;
    w->timeout.fire = on_overdue;
    g->ops->arm(g->ctx, &w->timeout, g->ops->mono_us(g->ctx) + g->config.commit_timeout_ms * 1000);
    err = g->ops->append(g->ctx, vv_group_partition(w->group->id, partitions), p, n, &w->d);
    return err ? refused(w, err) : 0;
}

int vv_group_store(struct vv_group *group, bool staged, struct vv_group_write **out)
{
    uint8_t *key = NULL, *value = NULL;
    size_t key_n, value_n;
    int err = vv_group_metadata_key(group->id, &key, &key_n);
    if (!err) err = vv_group_metadata_value(group, staged, &value, &value_n);
    struct vv_group_write *w = err ? NULL : vv_group_write_new(group);
    if (!err && !w) err = VV_E_NOMEM;
    if (!err) err = vv_group_write_add(w, key, key_n, value, value_n);
    free(key);
    free(value);
    if (err && w) vv_group_write_free(w);
    *out = err ? NULL : w;
    return err;
}
