/* group_member.c — members of a group: identity, protocols, the vote, what they subscribe to. On control. */
#include "groups.h"

#include <stdlib.h>

/* ---- owned strings and bytes ---- */

void vv_str_drop(struct vv_str *s)
{
    free((void *)s->p);
    *s = VV_STR_NULL;
}

void vv_bytes_drop(struct vv_bytes *b)
{
    free((void *)b->p);
    *b = (struct vv_bytes){NULL, 0};
}

int vv_str_own(struct vv_str *dst, struct vv_str s)
{
    char *p = NULL;
    if (s.n >= 0) {
        p = malloc((size_t)s.n + 1);
        if (!p) return VV_E_NOMEM;
        if (s.n) memcpy(p, s.p, (size_t)s.n);
        p[s.n] = 0;
    }
    free((void *)dst->p);
    *dst = (struct vv_str){p, s.n};
    return 0;
}

int vv_bytes_own(struct vv_bytes *dst, struct vv_bytes b)
{
    uint8_t *p = NULL;
    int32_t n = VV_MAX(b.n, 0);
    if (n) {
        p = malloc((size_t)n);
        if (!p) return VV_E_NOMEM;
        memcpy(p, b.p, (size_t)n);
    }
    free((void *)dst->p);
    *dst = (struct vv_bytes){p, n};
    return 0;
}

/* ---- protocols ---- */

static void drop_votes(struct vv_group *group, const struct vv_group_protocols *p, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        for (int32_t k = 0; k < group->vote_count; k++) {
            struct vv_group_vote *vote = &group->votes[k];
            if (!vv_str_eq(vote->name, p->v[i].name)) continue;
            if (--vote->members == 0) {
                vv_str_drop(&vote->name);
                memmove(vote, vote + 1, (size_t)(--group->vote_count - k) * sizeof *vote);
            }
            break;
        }
}

/* Names within one member are distinct (copy_protocols). */
static int add_votes(struct vv_group *group, const struct vv_group_protocols *p)
{
    struct vv_group_vote *votes = realloc(group->votes, (size_t)(group->vote_count + p->n + 1) * sizeof *votes);
    if (!votes) return VV_E_NOMEM;
    group->votes = votes;
    for (int32_t i = 0; i < p->n; i++) {
        int32_t k = 0;
        while (k < group->vote_count && !vv_str_eq(votes[k].name, p->v[i].name)) k++;
        if (k == group->vote_count) {
            votes[k] = (struct vv_group_vote){.name = VV_STR_NULL};
            if (vv_str_own(&votes[k].name, p->v[i].name)) {
                drop_votes(group, p, i);
                return VV_E_NOMEM;
            }
            group->vote_count++;
        }
        votes[k].members++;
    }
    return 0;
}

static bool named_before(const struct vv_group_protocol *v, int32_t i)
{
    for (int32_t k = 0; k < i; k++)
        if (vv_str_eq(v[k].name, v[i].name)) return true;
    return false;
}

static int copy_protocols(struct vv_group_protocols *dst, const struct vv_group_protocol *v, int32_t n)
{
    size_t bytes = (size_t)n * sizeof *v;
    for (int32_t i = 0; i < n; i++) bytes += (size_t)v[i].name.n + (size_t)VV_MAX(v[i].metadata.n, 0);
    struct vv_group_protocol *copy = malloc(bytes + 1);
    if (!copy) return VV_E_NOMEM;
    char *at = (char *)(copy + n);
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++) {
        if (named_before(v, i)) continue;
        int32_t name_n = v[i].name.n, data_n = VV_MAX(v[i].metadata.n, 0);
        if (name_n) memcpy(at, v[i].name.p, (size_t)name_n);
        copy[kept].name = (struct vv_str){at, name_n};
        at += name_n;
        if (data_n) memcpy(at, v[i].metadata.p, (size_t)data_n);
        copy[kept++].metadata = (struct vv_bytes){(const uint8_t *)at, data_n};
        at += data_n;
    }
    *dst = (struct vv_group_protocols){copy, kept, bytes};
    return 0;
}

int vv_member_set_protocols(struct vv_group_member *m, const struct vv_group_protocol *v, int32_t n)
{
    struct vv_group_protocols fresh, old = m->protocols;
    int err = copy_protocols(&fresh, v, n);
    if (err) return err;
    if (vv_group_member(m->group, m->id) == m) { /* else it votes when it is added */
        if (add_votes(m->group, &fresh)) {
            free(fresh.v);
            return VV_E_NOMEM;
        }
        drop_votes(m->group, &old, old.n);
    }
    m->protocols = fresh;
    m->group->groups->bytes += fresh.bytes - old.bytes;
    free(old.v);
    return 0;
}

bool vv_member_matches(const struct vv_group_member *m, const struct JoinGroupRequest *r)
{
    if (m->protocols.n != r->Protocols.n) return false;
    for (int32_t i = 0; i < m->protocols.n; i++) {
        struct vv_bytes a = m->protocols.v[i].metadata, b = r->Protocols.v[i].Metadata;
        if (!vv_str_eq(m->protocols.v[i].name, r->Protocols.v[i].Name)) return false;
        if (a.n != VV_MAX(b.n, 0) || (a.n && memcmp(a.p, b.p, (size_t)a.n))) return false;
    }
    return true;
}

struct vv_bytes vv_member_metadata(const struct vv_group_member *m, struct vv_str protocol)
{
    for (int32_t i = 0; i < m->protocols.n && protocol.n >= 0; i++)
        if (vv_str_eq(m->protocols.v[i].name, protocol)) return m->protocols.v[i].metadata;
    return (struct vv_bytes){NULL, 0};
}

static int32_t supporters(const struct vv_group *group, struct vv_str name)
{
    for (int32_t i = 0; i < group->vote_count; i++)
        if (vv_str_eq(group->votes[i].name, name)) return group->votes[i].members;
    return 0;
}

bool vv_group_supports(struct vv_group *group, const struct JoinGroupRequest *r)
{
    if (group->state == VV_GROUP_EMPTY) return r->ProtocolType.n > 0 && r->Protocols.n > 0;
    if (!vv_str_eq(group->protocol_type, r->ProtocolType)) return false;
    for (int32_t i = 0; i < r->Protocols.n; i++)
        if (supporters(group, r->Protocols.v[i].Name) == (int32_t)group->members.count) return true;
    return false;
}

/* Every member votes for the first of its protocols that all can do; most votes win, the earliest voter's on a tie. */
struct vv_str vv_group_select_protocol(struct vv_group *group)
{
    int32_t count = (int32_t)group->members.count, best = -1;
    int32_t *votes = calloc((size_t)group->vote_count + 1, sizeof *votes);
    struct vv_str chosen = VV_STR_NULL;
    for (struct vv_group_member *m = group->first; m; m = m->next)
        for (int32_t i = 0; i < m->protocols.n; i++) {
            if (supporters(group, m->protocols.v[i].name) != count) continue;
            if (!votes) { /* no memory for a ballot: any protocol that all can do is right */
                return m->protocols.v[i].name;
            }
            for (int32_t k = 0; k < group->vote_count; k++)
                if (vv_str_eq(group->votes[k].name, m->protocols.v[i].name)) votes[k]++;
            break;
        }
    for (int32_t k = 0; votes && k < group->vote_count; k++)
        if (votes[k] > 0 && (best < 0 || votes[k] > votes[best])) best = k;
    if (best >= 0) chosen = group->votes[best].name;
    free(votes);
    return chosen;
}

/* ---- members ---- */

static size_t member_bytes(const struct vv_group_member *m)
{
    return sizeof *m + (size_t)m->client_id.n + (size_t)m->client_host.n + 2 * VV_MAX((size_t)64, (size_t)m->id.n);
}

static struct vv_str cut(struct vv_str s)
{
    if (s.n < 0) return VV_STR_LIT("");
    s.n = VV_MIN(s.n, VV_GROUP_ID_MAX);
    return s;
}

void vv_member_discard(struct vv_group_member *m)
{
    struct vv_groups *g = m->group->groups;
    if (g->ops) g->ops->cancel(g->ctx, &m->session);
    g->bytes -= m->protocols.bytes;
    free(m->protocols.v);
    vv_str_drop(&m->id);
    vv_str_drop(&m->instance);
    vv_str_drop(&m->client_id);
    vv_str_drop(&m->client_host);
    vv_bytes_drop(&m->assignment);
    vv_bytes_drop(&m->staged);
    free(m);
}

struct vv_group_member *vv_member_new(struct vv_group *group, struct vv_str id, struct vv_str instance,
                                      struct vv_str client_id, const char *client_host)
{
    struct vv_group_member *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->group = group;
    m->id = m->instance = m->client_id = m->client_host = VV_STR_NULL;
    m->session.fire = vv_member_session_fire;
    int err = vv_str_own(&m->id, id);
    if (!err) err = vv_str_own(&m->instance, instance);
    if (!err) err = vv_str_own(&m->client_id, cut(client_id));
    if (!err) err = vv_str_own(&m->client_host, vv_str_c(client_host ? client_host : ""));
    if (!err) return m;
    vv_member_discard(m);
    return NULL;
}

static void link_last(struct vv_group *group, struct vv_group_member *m)
{
    m->prev = group->last;
    m->next = NULL;
    *(group->last ? &group->last->next : &group->first) = m;
    group->last = m;
}

static void unlink_member(struct vv_group *group, struct vv_group_member *m)
{
    *(m->prev ? &m->prev->next : &group->first) = m->next;
    *(m->next ? &m->next->prev : &group->last) = m->prev;
    m->prev = m->next = NULL;
}

int vv_member_add(struct vv_group_member *m)
{
    struct vv_group *group = m->group;
    link_last(group, m);
    int err = add_votes(group, &m->protocols);
    if (!err) {
        err = vv_gmap_put(&group->members, &m->by_id, m->id);
        if (!err && m->instance.n >= 0) {
            err = vv_gmap_put(&group->instances, &m->by_instance, m->instance);
            if (err) vv_gmap_remove(&group->members, &m->by_id);
        }
        if (err) drop_votes(group, &m->protocols, m->protocols.n);
    }
    if (err) {
        unlink_member(group, m);
        vv_member_discard(m);
        return err;
    }
    group->groups->bytes += member_bytes(m);
    if (!group->leader) group->leader = m;
    vv_group_pending_drop(group, m->id);
    return 0;
}

void vv_member_remove(struct vv_group_member *m, int err)
{
    struct vv_group *group = m->group;
    struct vv_group_call *join = vv_member_unpark(m), *sync = m->sync;
    m->sync = NULL;
    unlink_member(group, m);
    vv_gmap_remove(&group->members, &m->by_id);
    if (m->instance.n >= 0) vv_gmap_remove(&group->instances, &m->by_instance);
    if (group->leader == m) group->leader = group->first;
    vv_group_sync_received(m);
    drop_votes(group, &m->protocols, m->protocols.n);
    group->groups->bytes -= member_bytes(m);
    if (join) vv_group_answer_join_error(join, VV_STR_LIT(""), err);
    if (sync) vv_group_answer_sync_error(sync, err);
    vv_member_discard(m);
}

int vv_member_rename(struct vv_group_member *m, struct vv_str id)
{
    struct vv_str fresh = VV_STR_NULL;
    if (vv_str_own(&fresh, id)) return VV_E_NOMEM;
    struct vv_gmap *map = &m->group->members;
    m->group->groups->bytes -= member_bytes(m);
    vv_gmap_remove(map, &m->by_id);
    vv_str_drop(&m->id);
    m->id = fresh;
    m->group->groups->bytes += member_bytes(m);
    return vv_gmap_put(map, &m->by_id, m->id); /* one came out: there is room */
}

struct vv_group_member *vv_group_member(struct vv_group *group, struct vv_str id)
{
    struct vv_gnode *node = vv_gmap_get(&group->members, id);
    return node ? VV_CONTAINER(node, struct vv_group_member, by_id) : NULL;
}

struct vv_group_member *vv_group_instance(struct vv_group *group, struct vv_str instance)
{
    struct vv_gnode *node = vv_gmap_get(&group->instances, instance);
    return node ? VV_CONTAINER(node, struct vv_group_member, by_instance) : NULL;
}

int vv_group_check_member(struct vv_group *group, struct vv_str id, struct vv_str instance,
                          struct vv_group_member **out)
{
    struct vv_group_member *m = instance.n >= 0 ? vv_group_instance(group, instance) : vv_group_member(group, id);
    *out = NULL;
    if (!m) return VV_UNKNOWN_MEMBER_ID;
    if (instance.n >= 0 && !vv_str_eq(m->id, id)) return VV_FENCED_INSTANCE_ID;
    *out = m;
    return 0;
}

void vv_member_park(struct vv_group_member *m, struct vv_group_call *join)
{
    struct vv_group_call *old = vv_member_unpark(m);
    /* The client gave up on its first request and sent another one: nobody reads this answer. */
    if (old) vv_group_answer_join_error(old, m->id, VV_REBALANCE_IN_PROGRESS);
    m->join = join;
    m->group->awaiting_join++;
}

struct vv_group_call *vv_member_unpark(struct vv_group_member *m)
{
    struct vv_group_call *c = m->join;
    if (c) m->group->awaiting_join--;
    m->join = NULL;
    return c;
}

/* ---- member ids given out, not used yet ---- */

int vv_group_pending_add(struct vv_group *group, struct vv_str id, int32_t timeout_ms)
{
    struct vv_groups *g = group->groups;
    struct vv_group_pending *p = calloc(1, sizeof *p);
    struct vv_str own = VV_STR_NULL;
    if (!p || vv_str_own(&own, id) || vv_gmap_put(&group->pending, &p->by_id, own)) {
        vv_str_drop(&own);
        free(p);
        return VV_E_NOMEM;
    }
    g->bytes += sizeof *p + (size_t)own.n;
    p->group = group;
    p->timer.fire = vv_group_pending_fire;
    g->ops->arm(g->ctx, &p->timer, g->ops->mono_us(g->ctx) + (int64_t)timeout_ms * 1000);
    return 0;
}

bool vv_group_pending_drop(struct vv_group *group, struct vv_str id)
{
    struct vv_groups *g = group->groups;
    struct vv_gnode *node = vv_gmap_get(&group->pending, id);
    if (!node) return false;
    struct vv_group_pending *p = VV_CONTAINER(node, struct vv_group_pending, by_id);
    g->ops->cancel(g->ctx, &p->timer);
    vv_gmap_remove(&group->pending, node);
    g->bytes -= sizeof *p + (size_t)node->key.n;
    free((void *)node->key.p);
    free(p);
    return true;
}

/* ---- subscriptions ---- */

bool vv_group_is_consumer(const struct vv_group *group)
{
    return vv_str_is(group->protocol_type, "consumer");
}

static int by_name(const void *a, const void *b)
{
    const struct vv_str *x = a, *y = b;
    int c = memcmp(x->p, y->p, (size_t)VV_MIN(x->n, y->n));
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

static void forget_topics(struct vv_group *group)
{
    for (int32_t i = 0; i < group->topic_count; i++) vv_str_drop(&group->topics[i]);
    free(group->topics);
    group->topics = NULL;
    group->topic_count = 0;
    group->topics_known = false;
}

static int add_topics(struct vv_group *group, struct vv_bytes b, struct vv_arena *arena)
{
    struct ConsumerProtocolSubscription s;
    if (b.n < 2) return VV_E_PROTO;
    int16_t version = (int16_t)vv_get16(b.p);
    if (version < 0) return VV_E_PROTO;
    version = VV_MIN(version, vv_schema_ConsumerProtocolSubscription.max); /* newer ones only add at the end */
    const struct vv_msg_schema *schema = &vv_schema_ConsumerProtocolSubscription;
    int err = vv_msg_decode(schema, version, b.p + 2, (size_t)b.n - 2, arena, &s, NULL);
    if (err) return err;
    struct vv_str *v = realloc(group->topics, (size_t)(group->topic_count + s.Topics.n + 1) * sizeof *v);
    if (!v) return VV_E_NOMEM;
    group->topics = v;
    for (int32_t i = 0; i < s.Topics.n; i++) {
        v[group->topic_count] = VV_STR_NULL;
        if (vv_str_own(&v[group->topic_count], s.Topics.v[i])) return VV_E_NOMEM;
        group->topic_count++;
    }
    return 0;
}

/* Sorted, each once. */
static void tidy_topics(struct vv_group *group)
{
    int32_t n = 0;
    if (group->topic_count) qsort(group->topics, (size_t)group->topic_count, sizeof *group->topics, by_name);
    for (int32_t i = 0; i < group->topic_count; i++) {
        if (n && vv_str_eq(group->topics[n - 1], group->topics[i]))
            vv_str_drop(&group->topics[i]);
        else
            group->topics[n++] = group->topics[i];
    }
    group->topic_count = n;
}

void vv_group_find_topics(struct vv_group *group)
{
    forget_topics(group);
    if (group->protocol_type.n < 0) return;
    if (!group->first) {
        group->topics_known = true; /* nobody subscribes to anything */
        return;
    }
    if (!vv_group_is_consumer(group) || group->protocol.n < 0) return;
    struct vv_arena arena;
    vv_arena_init(&arena, 0);
    int err = 0;
    for (struct vv_group_member *m = group->first; m && !err; m = m->next) {
        err = add_topics(group, vv_member_metadata(m, group->protocol), &arena);
        vv_arena_reset(&arena);
        if (group->topic_count > 1000) tidy_topics(group);
    }
    vv_arena_release(&arena);
    if (err) {
        forget_topics(group);
        return;
    }
    tidy_topics(group);
    group->topics_known = true;
}

bool vv_group_subscribes(struct vv_group *group, struct vv_str topic)
{
    if (!group->topics_known) return vv_group_is_consumer(group);
    return group->topic_count && bsearch(&topic, group->topics, (size_t)group->topic_count, sizeof topic, by_name);
}

int32_t vv_group_rebalance_ms(const struct vv_group *group)
{
    int32_t ms = 0;
    for (const struct vv_group_member *m = group->first; m; m = m->next) ms = VV_MAX(ms, m->rebalance_ms);
    return ms;
}
