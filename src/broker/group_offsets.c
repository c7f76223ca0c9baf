/* group_offsets.c — the committed offsets of a group: look-up, OffsetFetch, OffsetDelete, expiry (KIP-211).
 *
 * An entry exists from the first commit under way; it is seen once one is durable. Deletion writes tombstones and
 * forgets at once; commits that were under way before it are ignored when they end (floor). On control. */
#include "groups.h"
#include "varve/vlog.h"

#include <stdlib.h>

#define TOMBSTONES_MAX 1000 /* per batch */

/* ---- entries ---- */

struct vv_str vv_group_offset_topic(const struct vv_group_offset *o)
{
    return (struct vv_str){o->node.key.p + 4, o->node.key.n - 4};
}

int32_t vv_group_offset_partition(const struct vv_group_offset *o)
{
    return (int32_t)vv_get32(o->node.key.p);
}

struct vv_group_offset *vv_group_offset(struct vv_group *group, struct vv_str topic, int32_t partition, bool create)
{
    char buffer[512], *key = buffer;
    if (topic.n < 0 || (size_t)topic.n > sizeof buffer - 5) return NULL; /* no topic has such a name */
    vv_put32(key, (uint32_t)partition);
    if (topic.n) memcpy(key + 4, topic.p, (size_t)topic.n);
    struct vv_str k = {key, topic.n + 4};
    struct vv_gnode *node = vv_gmap_get(&group->offsets, k);
    if (node || !create) return node ? VV_CONTAINER(node, struct vv_group_offset, node) : NULL;
    struct vv_group_offset *o = calloc(1, sizeof *o);
    struct vv_str own = VV_STR_NULL;
    if (!o || vv_str_own(&own, k) || vv_gmap_put(&group->offsets, &o->node, own)) {
        vv_str_drop(&own);
        free(o);
        return NULL;
    }
    o->metadata = VV_STR_NULL;
    group->groups->bytes += sizeof *o + (size_t)own.n;
    return o;
}

void vv_group_offset_free(struct vv_group *group, struct vv_group_offset *o)
{
    vv_gmap_remove(&group->offsets, &o->node);
    group->groups->bytes -= sizeof *o + (size_t)o->node.key.n + (size_t)VV_MAX(o->metadata.n, 0);
    vv_str_drop(&o->metadata);
    free((void *)o->node.key.p);
    free(o);
}

/* ---- OffsetFetch ---- */

typedef struct OffsetFetchResponse_OffsetFetchResponsePartitions fetched;
typedef struct OffsetFetchResponse_OffsetFetchResponseTopics fetched_topic;

static void fill(fetched *p, const struct vv_group_offset *o)
{
    p->CommittedOffset = o && o->present ? o->offset : -1;
    p->CommittedLeaderEpoch = o && o->present ? o->leader_epoch : -1;
    p->Metadata = o && o->present && o->metadata.n > 0 ? o->metadata : VV_STR_LIT("");
}

static int fetch_named(struct vv_groups *g, struct vv_group *group, struct vv_group_call *c,
                       const struct OffsetFetchRequest_OffsetFetchRequestTopics *asked, fetched_topic *told)
{
    char *name = vv_arena_alloc(c->arena, 256);
    bool by_id = c->version >= 10;
    int err = 0;
    int32_t partitions;
    told->Name = asked->Name;
    told->TopicId = asked->TopicId;
    if (!name) return vv_arena_err(c->arena);
    if (by_id && g->ops->topic(g->ctx, VV_STR_NULL, &asked->TopicId, name, NULL, &partitions))
        told->Name = vv_str_c(name);
    else if (by_id)
        err = VV_UNKNOWN_TOPIC_ID;
    if (VV_ARRAY_NEW(told->Partitions, OffsetFetchResponse_OffsetFetchResponsePartitions, c->arena,
                     VV_MAX(asked->PartitionIndexes.n, 0)))
        return vv_arena_err(c->arena);
    for (int32_t i = 0; i < told->Partitions.n; i++) {
        int32_t index = asked->PartitionIndexes.v[i];
        told->Partitions.v[i].PartitionIndex = index;
        told->Partitions.v[i].ErrorCode = (int16_t)err;
        fill(&told->Partitions.v[i], group && !err ? vv_group_offset(group, told->Name, index, false) : NULL);
    }
    return 0;
}

static int by_topic(const void *a, const void *b)
{
    const struct vv_group_offset *x = *(struct vv_group_offset *const *)a, *y = *(struct vv_group_offset *const *)b;
    struct vv_str s = vv_group_offset_topic(x), t = vv_group_offset_topic(y);
    int c = memcmp(s.p, t.p, (size_t)VV_MIN(s.n, t.n));
    if (!c) c = (s.n > t.n) - (s.n < t.n);
    return c ? c : memcmp(x->node.key.p, y->node.key.p, 4);
}

static int fetch_all(struct vv_groups *g, struct vv_group *group, struct vv_group_call *c,
                     struct OffsetFetchResponse_OffsetFetchResponseGroup *told)
{
    size_t n = 0;
    int32_t topics = 0;
    struct vv_gcursor at = {0};
    struct vv_group_offset **v = vv_arena_alloc(c->arena, (group->offsets.count + 1) * sizeof *v);
    if (!v) return vv_arena_err(c->arena);
    for (struct vv_gnode *node; (node = vv_gmap_next(&group->offsets, &at));) {
        struct vv_group_offset *o = VV_CONTAINER(node, struct vv_group_offset, node);
        if (o->present) v[n++] = o;
    }
    qsort(v, n, sizeof *v, by_topic);
    for (size_t i = 0; i < n; i++)
        topics += !i || !vv_str_eq(vv_group_offset_topic(v[i]), vv_group_offset_topic(v[i - 1]));
    if (VV_ARRAY_NEW(told->Topics, OffsetFetchResponse_OffsetFetchResponseTopics, c->arena, topics)) return vv_arena_err(c->arena);
    told->Topics.n = 0;
    for (size_t i = 0, end; i < n; i = end) {
        struct vv_str name = vv_group_offset_topic(v[i]);
        struct vv_uuid id = {{0}};
        int32_t partitions;
        for (end = i + 1; end < n && vv_str_eq(vv_group_offset_topic(v[end]), name);) end++;
        /* A topic that is gone has no id to name it by. */
        if (c->version >= 10 && !g->ops->topic(g->ctx, name, NULL, NULL, &id, &partitions)) continue;
        fetched_topic *t = &told->Topics.v[told->Topics.n++];
        t->Name = name;
        t->TopicId = id;
        if (VV_ARRAY_NEW(t->Partitions, OffsetFetchResponse_OffsetFetchResponsePartitions, c->arena, end - i))
            return vv_arena_err(c->arena);
        for (size_t k = i; k < end; k++) {
            t->Partitions.v[k - i].PartitionIndex = vv_group_offset_partition(v[k]);
            fill(&t->Partitions.v[k - i], v[k]);
        }
    }
    return 0;
}

static void fetch_group(struct vv_groups *g, struct vv_group_call *c,
                        const struct OffsetFetchRequest_OffsetFetchRequestGroup *asked,
                        struct OffsetFetchResponse_OffsetFetchResponseGroup *told)
{
    int err = 0;
    told->GroupId = asked->GroupId;
    if (g->stopping) err = VV_COORDINATOR_NOT_AVAILABLE;
    if (!err && (asked->GroupId.n < 0 || asked->GroupId.n > VV_GROUP_ID_MAX)) err = VV_INVALID_GROUP_ID;
    struct vv_group *group = err ? NULL : vv_groups_find(g, asked->GroupId);
    if (!err && asked->Topics.n < 0) {
        if (group) err = fetch_all(g, group, c, told);
    } else if (!err) {
        err = VV_ARRAY_NEW(told->Topics, OffsetFetchResponse_OffsetFetchResponseTopics, c->arena, asked->Topics.n);
        for (int32_t i = 0; i < told->Topics.n && !err; i++)
            err = fetch_named(g, group, c, &asked->Topics.v[i], &told->Topics.v[i]);
    }
    if (!err) return;
    told->Topics.n = 0;
    told->ErrorCode = (int16_t)vv_err_kafka(err);
}

/* Versions before 8 speak of one group, without the list around it. */
static int old_request(struct vv_group_call *c, const struct OffsetFetchRequest *r,
                       struct OffsetFetchRequest_OffsetFetchRequestGroup *out)
{
    VV_STRUCT_INIT(OffsetFetchRequest_OffsetFetchRequestGroup, out);
    out->GroupId = r->GroupId;
    out->Topics.n = r->Topics.n;
    if (r->Topics.n < 0) return 0;
    if (VV_ARRAY_NEW(out->Topics, OffsetFetchRequest_OffsetFetchRequestTopics, c->arena, r->Topics.n))
        return vv_arena_err(c->arena);
    for (int32_t i = 0; i < r->Topics.n; i++) {
        out->Topics.v[i].Name = r->Topics.v[i].Name;
        out->Topics.v[i].PartitionIndexes.v = r->Topics.v[i].PartitionIndexes.v;
        out->Topics.v[i].PartitionIndexes.n = r->Topics.v[i].PartitionIndexes.n;
    }
    return 0;
}

static int old_response(struct vv_group_call *c, const struct OffsetFetchResponse_OffsetFetchResponseGroup *from,
                        struct OffsetFetchResponse *to)
{
    to->ErrorCode = from->ErrorCode;
    if (VV_ARRAY_NEW(to->Topics, OffsetFetchResponse_OffsetFetchResponseTopic, c->arena, from->Topics.n))
        return vv_arena_err(c->arena);
    for (int32_t i = 0; i < from->Topics.n; i++) {
        const fetched_topic *f = &from->Topics.v[i];
        struct OffsetFetchResponse_OffsetFetchResponseTopic *t = &to->Topics.v[i];
        t->Name = f->Name;
        if (VV_ARRAY_NEW(t->Partitions, OffsetFetchResponse_OffsetFetchResponsePartition, c->arena, f->Partitions.n))
            return vv_arena_err(c->arena);
        for (int32_t k = 0; k < f->Partitions.n; k++) {
            t->Partitions.v[k].PartitionIndex = f->Partitions.v[k].PartitionIndex;
            t->Partitions.v[k].CommittedOffset = f->Partitions.v[k].CommittedOffset;
            t->Partitions.v[k].CommittedLeaderEpoch = f->Partitions.v[k].CommittedLeaderEpoch;
            t->Partitions.v[k].Metadata = f->Partitions.v[k].Metadata;
            t->Partitions.v[k].ErrorCode = f->Partitions.v[k].ErrorCode;
        }
    }
    return 0;
}

/* Version 1 has no error of its own: every partition says it. */
static int spread_error(struct vv_group_call *c, const struct OffsetFetchRequest_OffsetFetchRequestGroup *asked,
                        int err, struct OffsetFetchResponse_OffsetFetchResponseGroup *told)
{
    if (VV_ARRAY_NEW(told->Topics, OffsetFetchResponse_OffsetFetchResponseTopics, c->arena, VV_MAX(asked->Topics.n, 0)))
        return vv_arena_err(c->arena);
    for (int32_t i = 0; i < told->Topics.n; i++) {
        fetched_topic *t = &told->Topics.v[i];
        int32_t n = VV_MAX(asked->Topics.v[i].PartitionIndexes.n, 0);
        t->Name = asked->Topics.v[i].Name;
        if (VV_ARRAY_NEW(t->Partitions, OffsetFetchResponse_OffsetFetchResponsePartitions, c->arena, n))
            return vv_arena_err(c->arena);
        for (int32_t k = 0; k < n; k++) {
            t->Partitions.v[k].PartitionIndex = asked->Topics.v[i].PartitionIndexes.v[k];
            t->Partitions.v[k].ErrorCode = (int16_t)err;
            fill(&t->Partitions.v[k], NULL);
        }
    }
    return 0;
}

void vv_groups_fetch(struct vv_groups *g, struct vv_group_call *c)
{
    const struct OffsetFetchRequest *r = c->req;
    struct OffsetFetchResponse response;
    int err = 0;
    VV_MSG_INIT(OffsetFetchResponse, &response);
    if (c->version < 8) {
        struct OffsetFetchRequest_OffsetFetchRequestGroup asked;
        struct OffsetFetchResponse_OffsetFetchResponseGroup told;
        VV_STRUCT_INIT(OffsetFetchResponse_OffsetFetchResponseGroup, &told);
        err = old_request(c, r, &asked);
        if (!err) fetch_group(g, c, &asked, &told);
        if (!err && c->version < 2 && told.ErrorCode) err = spread_error(c, &asked, told.ErrorCode, &told);
        if (!err) err = old_response(c, &told, &response);
        if (err) {
            response.Topics.n = 0;
            response.ErrorCode = VV_UNKNOWN_SERVER_ERROR;
        }
    } else if (!VV_ARRAY_NEW(response.Groups, OffsetFetchResponse_OffsetFetchResponseGroup, c->arena,
                             VV_MAX(r->Groups.n, 0))) {
        for (int32_t i = 0; i < response.Groups.n; i++) fetch_group(g, c, &r->Groups.v[i], &response.Groups.v[i]);
    }
    c->done(c, &response);
}

/* ---- deletion ---- */

static int add_tombstone(struct vv_group_write *w, const struct vv_group_offset *o)
{
    uint8_t *key = NULL;
    size_t n;
    int err = vv_group_offset_key(w->group->id, vv_group_offset_topic(o), vv_group_offset_partition(o), &key, &n);
    if (!err) err = vv_group_write_add(w, key, n, NULL, 0);
    free(key);
    return err;
}

static int add_group_tombstone(struct vv_group_write *w)
{
    uint8_t *key = NULL;
    size_t n;
    int err = vv_group_metadata_key(w->group->id, &key, &n);
    if (!err) err = vv_group_write_add(w, key, n, NULL, 0);
    free(key);
    return err;
}

static void forget(struct vv_group *group, struct vv_group_offset *o, uint64_t seq)
{
    if (!o->pending) {
        vv_group_offset_free(group, o);
        return;
    }
    o->present = false;
    o->floor = seq;
}

/* Submits what w holds, then forgets it: a write that was refused forgets nothing. */
static int drop_batch(struct vv_group_write *w, struct vv_group_offset **v, size_t n)
{
    struct vv_group *group = w->group;
    uint64_t seq = w->seq;
    group->writes++; /* keep the group while we look at it */
    int err = vv_group_write_submit(w);
    for (size_t i = 0; i < n && !err; i++) forget(group, v[i], seq);
    vv_group_unpin(group);
    return err;
}

int vv_group_offsets_drop(struct vv_group *group, const struct vv_group_drop *d, bool *wrote)
{
    struct vv_group_offset *v[TOMBSTONES_MAX];
    struct vv_group_write *w = NULL;
    struct vv_gcursor at = {0};
    size_t n = 0, left = 0;
    int err = 0;
    bool with_group = d->with_group && group->generation > 0;
    *wrote = false;
    for (struct vv_gnode *node; (node = vv_gmap_next(&group->offsets, &at));)
        left += d->pick(d->ctx, VV_CONTAINER(node, struct vv_group_offset, node));
    at = (struct vv_gcursor){0};
    while (!err && (left || with_group)) {
        if (!w) w = vv_group_write_new(group);
        if (!w) return VV_E_NOMEM;
        struct vv_gnode *node = left ? vv_gmap_next(&group->offsets, &at) : NULL;
        struct vv_group_offset *o = node ? VV_CONTAINER(node, struct vv_group_offset, node) : NULL;
        if (o && d->pick(d->ctx, o)) {
            err = add_tombstone(w, o);
            v[n++] = o;
            left--;
        }
        if (!left && with_group && !err) err = add_group_tombstone(w);
        if (!left) with_group = false;
        if (err) {
            vv_group_write_free(w);
            return err;
        }
        if (left && n < TOMBSTONES_MAX) continue;
        if (!left) {
            w->report = d->report;
            w->call = d->call;
            w->response = d->response;
            w->index = d->index;
        }
        err = drop_batch(w, v, n);
        *wrote = !err;
        w = NULL;
        n = 0;
    }
    return err;
}

/* ---- OffsetDelete ---- */

static bool is_marked(void *ctx, const struct vv_group_offset *o)
{
    (void)ctx;
    return o->marked;
}

static void unmark(struct vv_group *group)
{
    struct vv_gcursor at = {0};
    for (struct vv_gnode *node; (node = vv_gmap_next(&group->offsets, &at));)
        VV_CONTAINER(node, struct vv_group_offset, node)->marked = false;
}

static void offsets_deleted(struct vv_group_write *w, int err)
{
    struct OffsetDeleteResponse *response = w->response;
    if (!w->call) return;
    response->ErrorCode = (int16_t)err;
    if (err) response->Topics.n = 0;
    w->call->done(w->call, response);
}

static int delete_prepare(struct vv_groups *g, struct vv_group *group, struct vv_group_call *c,
                          const struct OffsetDeleteRequest *r, struct OffsetDeleteResponse *response)
{
    int32_t topics = VV_MAX(r->Topics.n, 0);
    if (VV_ARRAY_NEW(response->Topics, OffsetDeleteResponse_OffsetDeleteResponseTopic, c->arena, topics))
        return vv_arena_err(c->arena);
    for (int32_t t = 0; t < response->Topics.n; t++) {
        struct OffsetDeleteResponse_OffsetDeleteResponseTopic *told = &response->Topics.v[t];
        int32_t partitions = 0, n = VV_MAX(r->Topics.v[t].Partitions.n, 0);
        bool known = g->ops->topic(g->ctx, r->Topics.v[t].Name, NULL, NULL, NULL, &partitions);
        bool busy = vv_group_subscribes(group, r->Topics.v[t].Name);
        told->Name = r->Topics.v[t].Name;
        if (VV_ARRAY_NEW(told->Partitions, OffsetDeleteResponse_OffsetDeleteResponsePartition, c->arena, n))
            return vv_arena_err(c->arena);
        for (int32_t p = 0; p < n; p++) {
            told->Partitions.v[p].PartitionIndex = r->Topics.v[t].Partitions.v[p].PartitionIndex;
            told->Partitions.v[p].ErrorCode =
                !known ? VV_UNKNOWN_TOPIC_OR_PARTITION : busy ? VV_GROUP_SUBSCRIBED_TO_TOPIC : 0;
            if (!known || busy) continue;
            struct vv_group_offset *o =
                vv_group_offset(group, told->Name, told->Partitions.v[p].PartitionIndex, false);
            if (o) o->marked = true;
        }
    }
    return 0;
}

void vv_groups_offset_delete(struct vv_groups *g, struct vv_group_call *c)
{
    const struct OffsetDeleteRequest *r = c->req;
    struct OffsetDeleteResponse *response = vv_arena_alloc(c->arena, sizeof *response), none;
    bool wrote = false;
    int err = response ? 0 : vv_arena_err(c->arena);
    if (!response) response = &none;
    VV_MSG_INIT(OffsetDeleteResponse, response);
    if (!err && g->stopping) err = VV_COORDINATOR_NOT_AVAILABLE;
    if (!err && r->GroupId.n <= 0) err = VV_INVALID_GROUP_ID;
    struct vv_group *group = err ? NULL : vv_groups_find(g, r->GroupId);
    if (!err && !group) err = VV_GROUP_ID_NOT_FOUND;
    if (!err && group->state != VV_GROUP_EMPTY && !vv_group_is_consumer(group)) err = VV_NON_EMPTY_GROUP;
    if (!err) err = delete_prepare(g, group, c, r, response);
    if (!err) {
        struct vv_group_drop d = {.pick = is_marked, .report = offsets_deleted, .call = c, .response = response};
        err = vv_group_offsets_drop(group, &d, &wrote);
        if (err) err = vv_group_write_error(err);
    }
    if (group) unmark(group);
    if (!err && wrote) return;
    response->ErrorCode = (int16_t)vv_err_kafka(err);
    if (err) response->Topics.n = 0;
    c->done(c, response);
}

/* ---- expiry ---- */

struct expiry {
    struct vv_group *group;
    int64_t now_ms, retention_ms;
    bool by_commit, by_state;
};

static bool is_expired(void *ctx, const struct vv_group_offset *o)
{
    const struct expiry *x = ctx;
    if (!o->present || o->pending || !(x->by_commit || x->by_state)) return false;
    if (vv_group_subscribes(x->group, vv_group_offset_topic(o))) return false;
    if (o->expire_ms >= 0) return x->now_ms >= o->expire_ms;
    int64_t base = x->by_state && x->group->state_ms >= 0 ? x->group->state_ms : o->commit_ms;
    return x->now_ms - base >= x->retention_ms;
}

/* Which clock runs for a group: none while members use its offsets. */
static struct expiry expiry_of(struct vv_group *group, int64_t now_ms)
{
    struct expiry x = {.group = group, .now_ms = now_ms, .retention_ms = group->groups->config.retention_ms};
    if (group->protocol_type.n <= 0)
        x.by_commit = true;
    else if (group->state == VV_GROUP_EMPTY)
        x.by_state = true;
    else if (vv_group_is_consumer(group) && group->topics_known && group->state == VV_GROUP_STABLE)
        x.by_commit = true;
    return x;
}

static bool is_any(void *ctx, const struct vv_group_offset *o)
{
    (void)ctx;
    (void)o;
    return true;
}

static void expire_group(struct vv_group *group, int64_t now_ms)
{
    struct expiry x = expiry_of(group, now_ms);
    struct vv_group_drop d = {.pick = is_expired, .ctx = &x};
    bool wrote;
    int err = vv_group_offsets_drop(group, &d, &wrote);
    if (!err && wrote) VLOG_INFO("group %s: committed offsets expired", group->id.p);
    if (!err && group->state == VV_GROUP_EMPTY && !group->offsets.count && !group->pending.count) {
        struct vv_group_drop whole = {.pick = is_any, .with_group = true};
        err = vv_group_offsets_drop(group, &whole, &wrote);
        if (!err) vv_group_remove(group);
    }
    if (err) VLOG_WARN("groups: expiry failed: %s", vv_err_name(err));
}

void vv_groups_expire(struct vv_groups *g)
{
    struct vv_gcursor at = {0};
    int64_t now_ms = g->ops->wall_ms(g->ctx);
    for (struct vv_gnode *node; (node = vv_gmap_next(&g->table, &at));)
        expire_group(VV_CONTAINER(node, struct vv_group, node), now_ms);
}

static bool is_of_topic(void *ctx, const struct vv_group_offset *o)
{
    return vv_str_is(vv_group_offset_topic(o), ctx);
}

void vv_groups_topic_deleted(struct vv_groups *g, const char *name)
{
    struct vv_gcursor at = {0};
    if (!g || g->stopping) return;
    char *copy = strdup(name);
    for (struct vv_gnode *node; copy && (node = vv_gmap_next(&g->table, &at));) {
        struct vv_group *group = VV_CONTAINER(node, struct vv_group, node);
        struct vv_group_drop d = {.pick = is_of_topic, .ctx = copy};
        bool wrote;
        int err = vv_group_offsets_drop(group, &d, &wrote);
        if (err) VLOG_WARN("group %s: offsets of a deleted topic stay: %s", group->id.p, vv_err_name(err));
    }
    free(copy);
}
