/* The coordinator's state machine: join, sync, heartbeat, leave, static members, timeouts, protocol choice, restart. */
#include "groups_fake.h"
#include "varve/vlog.h"

/* ---- requests ---- */

struct joiner {
    const char *group, *member, *instance, *protocols; /* "range,sticky=other": name[=metadata] */
    int16_t version;
    int32_t session_ms, rebalance_ms;
    const char *type;
};

static struct call *join_as(struct joiner j)
{
    struct call *c = new_call(&vv_schema_JoinGroupResponse, j.version ? j.version : 5);
    NEW_REQUEST(JoinGroupRequest, c);
    r->GroupId = vv_str_c(j.group ? j.group : "g");
    r->SessionTimeoutMs = j.session_ms ? j.session_ms : 10000;
    r->RebalanceTimeoutMs = j.rebalance_ms ? j.rebalance_ms : 60000;
    r->MemberId = vv_str_c(j.member ? j.member : "");
    r->GroupInstanceId = vv_str_c(j.instance);
    r->ProtocolType = vv_str_c(j.type ? j.type : "consumer");
    char *list = vv_arena_printf(&c->arena, "%s", j.protocols ? j.protocols : "range");
    VV_ARRAY_NEW(r->Protocols, JoinGroupRequest_JoinGroupRequestProtocol, &c->arena, 8);
    r->Protocols.n = 0;
    for (char *p, *save = NULL; (p = strtok_r(list, ",", &save)); list = NULL) {
        char *data = strchr(p, '=');
        if (data) *data++ = 0;
        r->Protocols.v[r->Protocols.n].Name = vv_str_c(p);
        r->Protocols.v[r->Protocols.n++].Metadata =
            (struct vv_bytes){(const uint8_t *)(data ? data : p), (int32_t)strlen(data ? data : p)};
    }
    SEND(c, vv_groups_join, r);
    return c;
}
#define JOIN(...) join_as((struct joiner){__VA_ARGS__})

static struct call *sync_as(const char *member, int32_t generation, const char *instance, int n,
                            const char *const *members)
{
    struct call *c = new_call(&vv_schema_SyncGroupResponse, 5);
    NEW_REQUEST(SyncGroupRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->GenerationId = generation;
    r->MemberId = vv_str_c(member);
    r->GroupInstanceId = vv_str_c(instance);
    VV_ARRAY_NEW(r->Assignments, SyncGroupRequest_SyncGroupRequestAssignment, &c->arena, n);
    for (int i = 0; i < n; i++) {
        char *part = vv_arena_printf(&c->arena, "part%d", i);
        r->Assignments.v[i].MemberId = vv_str_c(members[i]);
        r->Assignments.v[i].Assignment = (struct vv_bytes){(const uint8_t *)part, (int32_t)strlen(part)};
    }
    SEND(c, vv_groups_sync, r);
    return c;
}
#define FOLLOW(member, generation) sync_as(member, generation, NULL, 0, NULL)

static int heartbeat_as(const char *member, int32_t generation, const char *instance)
{
    struct call *c = new_call(&vv_schema_HeartbeatResponse, 3);
    NEW_REQUEST(HeartbeatRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->GenerationId = generation;
    r->MemberId = vv_str_c(member);
    r->GroupInstanceId = vv_str_c(instance);
    SEND(c, vv_groups_heartbeat, r);
    return c->heartbeat.ErrorCode;
}
#define BEAT(member, generation) heartbeat_as(member, generation, NULL)

static struct call *leave_as(int16_t version, const char *member, const char *instance)
{
    struct call *c = new_call(&vv_schema_LeaveGroupResponse, version);
    NEW_REQUEST(LeaveGroupRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->MemberId = vv_str_c(member);
    VV_ARRAY_NEW(r->Members, LeaveGroupRequest_MemberIdentity, &c->arena, 1);
    r->Members.v[0].MemberId = vv_str_c(member);
    r->Members.v[0].GroupInstanceId = vv_str_c(instance);
    if (version < 3) r->Members.n = 0;
    SEND(c, vv_groups_leave, r);
    return c;
}

static struct vv_group *group(void)
{
    struct vv_group *g = vv_groups_find(w.g, VV_STR_LIT("g"));
    assert_non_null(g);
    return g;
}

static const char *state_name(void)
{
    return vv_group_state_name(group()->state);
}

static void assert_bytes(struct vv_bytes b, const char *s)
{
    assert_int_equal(b.n, strlen(s));
    if (b.n) assert_memory_equal(b.p, s, (size_t)b.n);
}

/* A first round of n members by the old protocol (no ids beforehand), synced: generation 1, stable. */
static char *ids[16];
static void stable(int n)
{
    struct call *j[16], *s[16];
    for (int i = 0; i < n; i++) j[i] = JOIN(.version = 3);
    pass(w.config.initial_delay_ms * 3);
    for (int i = 0; i < n; i++) {
        assert_int_equal(j[i]->answers, 1);
        assert_int_equal(j[i]->join.ErrorCode, 0);
        ids[i] = text(j[i], j[i]->join.MemberId);
    }
    for (int i = n - 1; i >= 0; i--) s[i] = sync_as(ids[i], 1, NULL, i ? 0 : n, (const char *const *)ids);
    for (int i = 0; i < n; i++) assert_int_equal(s[i]->sync.ErrorCode, 0);
    assert_string_equal(state_name(), "Stable");
}

/* ---- joining ---- */

static void join_is_checked(void **state)
{
    (void)state;
    assert_int_equal(JOIN(.group = "")->join.ErrorCode, VV_INVALID_GROUP_ID);
    assert_int_equal(JOIN(.session_ms = 5999)->join.ErrorCode, VV_INVALID_SESSION_TIMEOUT);
    assert_int_equal(JOIN(.session_ms = 1800001)->join.ErrorCode, VV_INVALID_SESSION_TIMEOUT);
    assert_int_equal(JOIN(.member = "nobody")->join.ErrorCode, VV_UNKNOWN_MEMBER_ID);
    assert_int_equal(JOIN(.type = "")->join.ErrorCode, VV_INCONSISTENT_GROUP_PROTOCOL);
    assert_int_equal(JOIN(.protocols = ",")->join.ErrorCode, VV_INCONSISTENT_GROUP_PROTOCOL);
    for (int16_t v = 1; v <= 9; v++)
        assert_int_equal(JOIN(.version = v, .group = "")->join.ErrorCode, VV_INVALID_GROUP_ID);
    assert_int_equal(w.g->table.count, 0);
}

static void a_member_id_comes_first(void **state)
{
    (void)state;
    struct call *first = JOIN();
    assert_int_equal(first->join.ErrorCode, VV_MEMBER_ID_REQUIRED);
    char *id = text(first, first->join.MemberId);
    assert_int_equal(strncmp(id, "client-", 7), 0);
    assert_int_equal(strlen(id), 7 + 36);
    struct call *again = JOIN(.member = id);
    assert_int_equal(again->answers, 0);
    pass(2999);
    assert_int_equal(again->answers, 0);
    pass(1);
    assert_int_equal(again->join.ErrorCode, 0);
    assert_int_equal(again->join.GenerationId, 1);
    assert_string_equal(text(again, again->join.Leader), id);
    assert_int_equal(again->join.Members.n, 1);
    assert_bytes(again->join.Members.v[0].Metadata, "range");
    assert_int_equal(JOIN(.version = 3, .member = "made-up")->join.ErrorCode, VV_UNKNOWN_MEMBER_ID);
}

static void an_unused_member_id_expires(void **state)
{
    (void)state;
    struct call *first = JOIN();
    char *id = text(first, first->join.MemberId);
    pass(10000);
    assert_int_equal(JOIN(.member = id)->join.ErrorCode, VV_UNKNOWN_MEMBER_ID);
}

static void a_rebalance_waits_for_ids_given_out(void **state)
{
    (void)state;
    stable(1);
    struct call *first = JOIN();
    struct call *leader = JOIN(.member = ids[0]); /* asks for a rebalance */
    assert_int_equal(leader->answers, 0);
    struct call *second = JOIN(.member = text(first, first->join.MemberId));
    assert_int_equal(leader->join.GenerationId, 2);
    assert_int_equal(second->join.GenerationId, 2);
}

static void an_empty_group_waits_for_more(void **state)
{
    (void)state;
    struct call *a = JOIN(.version = 3);
    pass(2000);
    struct call *b = JOIN(.version = 3);
    pass(1000); /* the first delay ended, but somebody came in it */
    assert_int_equal(a->answers, 0);
    pass(2999);
    assert_int_equal(a->answers, 0);
    pass(1);
    assert_int_equal(a->answers, 1);
    assert_int_equal(b->answers, 1);
    assert_int_equal(a->join.Members.n, 2); /* the leader sees all, the others nobody */
    assert_int_equal(b->join.Members.n, 0);
    assert_true(vv_str_eq(a->join.Leader, b->join.Leader));
}

static void the_initial_wait_ends_with_the_rebalance_timeout(void **state)
{
    (void)state;
    struct call *first = JOIN(.version = 3, .rebalance_ms = 7000);
    for (int i = 0; i < 6; i++) {
        pass(1000);
        JOIN(.version = 3, .rebalance_ms = 7000);
    }
    assert_int_equal(first->answers, 0);
    pass(1000);
    assert_int_equal(first->answers, 1);
    assert_int_equal(first->join.Members.n, 7);
}

static void protocols_are_voted_on(void **state)
{
    (void)state;
    struct call *a = JOIN(.version = 3, .protocols = "range,sticky=S,only-a");
    struct call *b = JOIN(.version = 3, .protocols = "sticky=T,range");
    struct call *c = JOIN(.version = 3, .protocols = "sticky,range");
    assert_int_equal(JOIN(.version = 3, .protocols = "only-a")->join.ErrorCode, VV_INCONSISTENT_GROUP_PROTOCOL);
    assert_int_equal(JOIN(.version = 3, .type = "connect")->join.ErrorCode, VV_INCONSISTENT_GROUP_PROTOCOL);
    pass(9000);
    assert_string_equal(text(a, a->join.ProtocolName), "sticky");
    assert_string_equal(text(b, b->join.ProtocolName), "sticky");
    assert_string_equal(text(c, c->join.ProtocolName), "sticky");
    assert_bytes(a->join.Members.v[0].Metadata, "S");
    assert_bytes(a->join.Members.v[1].Metadata, "T");
}

static void a_group_has_a_size(void **state)
{
    (void)state;
    w.g->config.size_max = 2;
    stable(2);
    assert_int_equal(JOIN(.version = 3)->join.ErrorCode, VV_GROUP_MAX_SIZE_REACHED);
    struct call *a = JOIN(.member = ids[0]);
    struct call *b = JOIN(.member = ids[1]);
    assert_int_equal(a->join.ErrorCode, 0);
    assert_int_equal(b->join.ErrorCode, 0);
}

static void rejoining_without_change_changes_nothing(void **state)
{
    (void)state;
    stable(2);
    struct call *c = JOIN(.member = ids[1]);
    assert_int_equal(c->join.ErrorCode, 0);
    assert_int_equal(c->join.GenerationId, 1);
    assert_int_equal(c->join.Members.n, 0);
    assert_string_equal(state_name(), "Stable");
    c = JOIN(.member = ids[1], .protocols = "range=new");
    assert_int_equal(c->answers, 0);
    assert_string_equal(state_name(), "PreparingRebalance");
    assert_int_equal(BEAT(ids[0], 1), VV_REBALANCE_IN_PROGRESS);
    struct call *d = JOIN(.member = ids[0]);
    assert_int_equal(c->join.GenerationId, 2);
    assert_bytes(d->join.Members.v[1].Metadata, "new");
}

static void a_lost_join_answer_is_given_again(void **state)
{
    (void)state;
    struct call *a = JOIN(.version = 3), *b = JOIN(.version = 3);
    pass(9000);
    char *leader = text(a, a->join.MemberId), *other = text(b, b->join.MemberId);
    struct call *again = JOIN(.member = leader);
    assert_int_equal(again->join.GenerationId, 1);
    assert_int_equal(again->join.Members.n, 2);
    assert_int_equal(JOIN(.member = other)->join.Members.n, 0);
    assert_string_equal(state_name(), "CompletingRebalance");
}

static void a_repeated_join_replaces_the_parked_one(void **state)
{
    (void)state;
    struct call *first = JOIN();
    char *id = text(first, first->join.MemberId);
    struct call *a = JOIN(.member = id), *b = JOIN(.member = id);
    assert_int_equal(a->join.ErrorCode, VV_REBALANCE_IN_PROGRESS);
    pass(3000);
    assert_int_equal(b->join.ErrorCode, 0);
    assert_int_equal(b->join.Members.n, 1);
}

/* ---- sync ---- */

static void the_leaders_assignment_reaches_all(void **state)
{
    (void)state;
    struct call *a = JOIN(.version = 3), *b = JOIN(.version = 3);
    pass(9000);
    const char *members[] = {text(a, a->join.MemberId), text(b, b->join.MemberId)};
    struct call *follower = FOLLOW(members[1], 1);
    assert_int_equal(follower->answers, 0);
    w.hold = true;
    struct call *leader = sync_as(members[0], 1, NULL, 2, members);
    assert_int_equal(leader->answers, 0); /* not before it is durable */
    assert_string_equal(state_name(), "CompletingRebalance");
    settle(0);
    assert_bytes(leader->sync.Assignment, "part0");
    assert_bytes(follower->sync.Assignment, "part1");
    assert_string_equal(text(leader, leader->sync.ProtocolName), "range");
    assert_bytes(FOLLOW(members[1], 1)->sync.Assignment, "part1"); /* and again, when asked again */
    assert_string_equal(state_name(), "Stable");
}

static void sync_is_checked(void **state)
{
    (void)state;
    assert_int_equal(FOLLOW("x", 1)->sync.ErrorCode, VV_UNKNOWN_MEMBER_ID);
    stable(1);
    assert_int_equal(FOLLOW("x", 1)->sync.ErrorCode, VV_UNKNOWN_MEMBER_ID);
    assert_int_equal(FOLLOW(ids[0], 0)->sync.ErrorCode, VV_ILLEGAL_GENERATION);
    struct call *c = new_call(&vv_schema_SyncGroupResponse, 5);
    NEW_REQUEST(SyncGroupRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->GenerationId = 1;
    r->MemberId = vv_str_c(ids[0]);
    r->ProtocolType = VV_STR_LIT("consumer");
    r->ProtocolName = VV_STR_LIT("sticky");
    SEND(c, vv_groups_sync, r);
    assert_int_equal(c->sync.ErrorCode, VV_INCONSISTENT_GROUP_PROTOCOL);
    JOIN(.member = ids[0], .protocols = "range=x");
    struct call *late = JOIN(.version = 3);
    assert_string_equal(state_name(), "PreparingRebalance");
    assert_int_equal(FOLLOW(ids[0], 2)->sync.ErrorCode, VV_REBALANCE_IN_PROGRESS);
    assert_int_equal(late->answers, 0);
}

static void an_assignment_that_is_not_stored_means_another_round(void **state)
{
    (void)state;
    struct call *a = JOIN(.version = 3), *b = JOIN(.version = 3);
    pass(9000);
    const char *members[] = {text(a, a->join.MemberId), text(b, b->join.MemberId)};
    struct call *follower = FOLLOW(members[1], 1);
    w.hold = true;
    struct call *leader = sync_as(members[0], 1, NULL, 2, members);
    settle(VV_E_IO);
    assert_int_equal(leader->sync.ErrorCode, VV_NOT_COORDINATOR);
    assert_int_equal(follower->sync.ErrorCode, VV_NOT_COORDINATOR);
    assert_string_equal(state_name(), "PreparingRebalance");
    w.refuse = VV_E_OFFLINE;
    JOIN(.member = members[0]);
    JOIN(.member = members[1]);
    leader = sync_as(members[0], 2, NULL, 2, members);
    assert_int_equal(leader->sync.ErrorCode, VV_NOT_COORDINATOR);
    assert_string_equal(state_name(), "PreparingRebalance");
}

static void an_assignment_overtaken_by_a_join_is_not_used(void **state)
{
    (void)state;
    struct call *a = JOIN(.version = 3);
    pass(3000);
    const char *members[] = {text(a, a->join.MemberId)};
    w.hold = true;
    struct call *leader = sync_as(members[0], 1, NULL, 1, members);
    struct call *b = JOIN(.version = 3);
    assert_int_equal(leader->sync.ErrorCode, VV_REBALANCE_IN_PROGRESS);
    JOIN(.member = members[0]);
    assert_int_equal(b->join.GenerationId, 2);
    assert_string_equal(state_name(), "CompletingRebalance");
    settle(0); /* generation 1's assignment is durable now: too late */
    assert_string_equal(state_name(), "CompletingRebalance");
    struct call *follower = FOLLOW(text(b, b->join.MemberId), 2);
    assert_int_equal(follower->answers, 0);
}

static void who_does_not_sync_is_out(void **state)
{
    (void)state;
    struct call *a = JOIN(.version = 3), *b = JOIN(.version = 3, .session_ms = 100000);
    pass(9000);
    const char *members[] = {text(a, a->join.MemberId), text(b, b->join.MemberId)};
    sync_as(members[0], 1, NULL, 2, members);
    assert_string_equal(state_name(), "Stable");
    for (int i = 0; i < 11; i++) {
        pass(5000);
        assert_int_equal(BEAT(members[0], 1), 0);
    }
    pass(6000);
    assert_string_equal(state_name(), "PreparingRebalance");
    assert_int_equal(BEAT(members[1], 1), VV_UNKNOWN_MEMBER_ID);
    assert_int_equal(BEAT(members[0], 1), VV_REBALANCE_IN_PROGRESS);
}

/* ---- sessions ---- */

static void heartbeats_keep_a_member(void **state)
{
    (void)state;
    stable(2);
    assert_int_equal(BEAT("x", 1), VV_UNKNOWN_MEMBER_ID);
    assert_int_equal(BEAT(ids[0], 2), VV_ILLEGAL_GENERATION);
    pass(9999);
    assert_int_equal(BEAT(ids[0], 1), 0);
    pass(1); /* the second member has been silent for its session */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(BEAT(ids[0], 1), VV_REBALANCE_IN_PROGRESS);
        pass(5000);
    }
    assert_int_equal(BEAT(ids[1], 1), VV_UNKNOWN_MEMBER_ID);
    struct call *c = JOIN(.member = ids[0]);
    assert_int_equal(c->join.GenerationId, 2);
    assert_int_equal(c->join.Members.n, 1);
}

static void a_dead_leader_is_replaced(void **state)
{
    (void)state;
    stable(3);
    pass(5000);
    assert_int_equal(BEAT(ids[1], 1), 0);
    assert_int_equal(BEAT(ids[2], 1), 0);
    pass(5001);
    struct call *b = JOIN(.member = ids[1]), *c = JOIN(.member = ids[2]);
    assert_string_equal(text(b, b->join.Leader), ids[1]);
    assert_int_equal(b->join.Members.n, 2);
    assert_int_equal(c->join.Members.n, 0);
}

static void who_does_not_rejoin_is_out(void **state)
{
    (void)state;
    stable(2);
    struct call *c = JOIN(.member = ids[0], .protocols = "range=new");
    for (int i = 0; i < 12; i++) {
        assert_int_equal(c->answers, 0);
        assert_int_equal(BEAT(ids[1], 1), VV_REBALANCE_IN_PROGRESS); /* alive, but does not come back */
        pass(5000);
    }
    assert_int_equal(c->join.GenerationId, 2);
    assert_int_equal(c->join.Members.n, 1);
}

static void the_last_member_leaves_an_empty_group(void **state)
{
    (void)state;
    stable(1);
    int before = w.batches;
    pass(10001);
    assert_string_equal(state_name(), "Empty");
    assert_int_equal(group()->generation, 2);
    assert_int_equal(w.batches, before + 1); /* stored */
    settle(0);
}

static void a_late_broker_forgives(void **state)
{
    (void)state;
    stable(1);
    w.us += 30 * 1000000; /* the process stood still: heartbeats wait unread */
    struct vv_timer *t = next_timer();
    assert_ptr_equal(t, &group()->first->session);
    fake_cancel(NULL, t);
    t->fire(t);
    assert_int_equal(BEAT(ids[0], 1), 0);
    assert_string_equal(state_name(), "Stable");
    pass(10001);
    assert_string_equal(state_name(), "Empty");
}

/* ---- leaving ---- */

static void leaving_starts_a_rebalance(void **state)
{
    (void)state;
    stable(3);
    assert_int_equal(leave_as(1, "x", NULL)->leave.ErrorCode, VV_UNKNOWN_MEMBER_ID);
    assert_string_equal(state_name(), "Stable");
    struct call *c = leave_as(3, "x", NULL);
    assert_int_equal(c->leave.ErrorCode, 0);
    assert_int_equal(c->leave.Members.v[0].ErrorCode, VV_UNKNOWN_MEMBER_ID);
    assert_int_equal(leave_as(1, ids[2], NULL)->leave.ErrorCode, 0);
    assert_string_equal(state_name(), "PreparingRebalance");
    struct call *a = JOIN(.member = ids[0]);
    assert_int_equal(leave_as(5, ids[1], NULL)->leave.Members.v[0].ErrorCode, 0);
    assert_int_equal(a->join.Members.n, 1); /* nobody else to wait for */
    assert_int_equal(leave_as(4, ids[0], NULL)->leave.Members.v[0].ErrorCode, 0);
    assert_string_equal(state_name(), "Empty");
}

static void leaving_while_parked(void **state)
{
    (void)state;
    struct call *first = JOIN();
    char *id = text(first, first->join.MemberId);
    assert_int_equal(leave_as(3, id, NULL)->leave.Members.v[0].ErrorCode, 0); /* an id not yet used */
    assert_int_equal(JOIN(.member = id)->join.ErrorCode, VV_UNKNOWN_MEMBER_ID);
    stable(2);
    struct call *c = JOIN(.member = ids[1], .protocols = "range=x");
    leave_as(3, ids[1], NULL);
    assert_int_equal(c->join.ErrorCode, VV_UNKNOWN_MEMBER_ID);
}

/* ---- static members ---- */

static char *static_pair(int16_t version, char **other)
{
    struct call *a = JOIN(.version = version, .instance = "one"), *b = JOIN(.version = version, .instance = "two");
    pass(9000);
    assert_int_equal(a->join.ErrorCode, 0);
    char *id = text(a, a->join.MemberId);
    *other = text(b, b->join.MemberId);
    const char *members[] = {id, *other};
    sync_as(members[1], 1, "two", 0, NULL);
    sync_as(members[0], 1, "one", 2, members);
    assert_string_equal(state_name(), "Stable");
    return id;
}

static void a_static_member_comes_back_unnoticed(void **state)
{
    (void)state;
    char *other, *leader = static_pair(5, &other);
    struct call *c = JOIN(.instance = "two");
    assert_int_equal(c->join.ErrorCode, 0);
    assert_int_equal(c->join.GenerationId, 1);
    assert_int_equal(c->join.Members.n, 0);
    char *fresh = text(c, c->join.MemberId);
    assert_string_not_equal(fresh, other);
    assert_int_equal(strncmp(fresh, "two-", 4), 0);
    assert_string_equal(state_name(), "Stable");
    assert_bytes(sync_as(fresh, 1, "two", 0, NULL)->sync.Assignment, "part1");
    assert_int_equal(heartbeat_as(other, 1, "two"), VV_FENCED_INSTANCE_ID);
    assert_int_equal(BEAT(other, 1), VV_UNKNOWN_MEMBER_ID);
    assert_int_equal(sync_as(other, 1, "two", 0, NULL)->sync.ErrorCode, VV_FENCED_INSTANCE_ID);
    assert_int_equal(JOIN(.member = other, .instance = "two")->join.ErrorCode, VV_FENCED_INSTANCE_ID);
    assert_int_equal(heartbeat_as(fresh, 1, "two"), 0);
    assert_int_equal(heartbeat_as(leader, 1, "one"), 0);
}

static void a_static_leader_comes_back(void **state)
{
    (void)state;
    char *other, *leader = static_pair(5, &other);
    struct call *c = JOIN(.instance = "one"); /* is told the old id leads, so that it does not assign */
    assert_int_equal(c->join.Members.n, 0);
    assert_string_equal(text(c, c->join.Leader), leader);
    c = JOIN(.version = 9, .instance = "one"); /* knows how to lead without assigning */
    assert_int_equal(c->join.Members.n, 2);
    assert_true(c->join.SkipAssignment);
    assert_true(vv_str_eq(c->join.Leader, c->join.MemberId));
    assert_int_equal(c->join.GenerationId, 1);
    (void)other;
}

static void a_static_member_with_news_means_a_rebalance(void **state)
{
    (void)state;
    char *other, *leader = static_pair(5, &other);
    struct call *c = JOIN(.instance = "two", .protocols = "sticky,range");
    assert_int_equal(c->join.GenerationId, 1); /* the choice stays: range */
    struct call *lead = JOIN(.member = leader, .instance = "one", .protocols = "sticky,range");
    assert_int_equal(lead->answers, 0);
    struct call *d = JOIN(.instance = "two", .protocols = "sticky");
    assert_string_equal(text(lead, lead->join.ProtocolName), "sticky");
    assert_int_equal(d->join.GenerationId, 2);
}

static void a_duplicate_static_member_is_fenced(void **state)
{
    (void)state;
    struct call *a = JOIN(.instance = "one"), *b = JOIN(.instance = "one");
    assert_int_equal(a->join.ErrorCode, VV_FENCED_INSTANCE_ID);
    pass(9000);
    assert_int_equal(b->join.ErrorCode, 0);
    assert_int_equal(b->join.Members.n, 1);
}

static void a_static_member_that_is_not_stored_may_try_again(void **state)
{
    (void)state;
    char *other;
    static_pair(5, &other);
    w.hold = true;
    struct call *c = JOIN(.instance = "two");
    assert_int_equal(c->answers, 0);
    settle(VV_E_IO);
    assert_int_equal(c->join.ErrorCode, VV_NOT_COORDINATOR);
    w.hold = false;
    assert_int_equal(JOIN(.instance = "two")->join.ErrorCode, 0);
}

static void a_static_member_caught_in_a_rebalance(void **state)
{
    (void)state;
    char *other, *leader = static_pair(5, &other);
    w.hold = true;
    struct call *c = JOIN(.instance = "two");
    struct call *lead = JOIN(.member = leader, .instance = "one", .protocols = "range=x");
    assert_int_equal(lead->join.GenerationId, 2); /* both are here */
    assert_int_equal(c->join.GenerationId, 2);
    settle(0);
    c = JOIN(.instance = "one"); /* now while the generation has no assignment: a rebalance at once */
    assert_int_equal(c->answers, 0);
    assert_string_equal(state_name(), "PreparingRebalance");
    JOIN(.instance = "two");
    assert_int_equal(c->join.GenerationId, 3);
    const char *members[] = {text(c, c->join.MemberId)};
    struct call *first = c;
    sync_as(members[0], 3, "one", 1, members);
    settle(0);
    assert_string_equal(state_name(), "Stable");
    c = JOIN(.instance = "two");
    struct call *third = JOIN(.version = 3);
    settle(0); /* stored, but the group moves on: it is part of that */
    assert_int_equal(c->answers, 0);
    assert_int_equal(third->answers, 0);
    JOIN(.member = text(first, first->join.MemberId), .instance = "one");
    assert_int_equal(c->join.GenerationId, 4);
}

static void static_members_outlive_a_rebalance(void **state)
{
    (void)state;
    char *other, *leader = static_pair(5, &other);
    struct call *c = JOIN(.member = leader, .instance = "one");
    for (int i = 0; i < 12; i++) {
        assert_int_equal(heartbeat_as(other, 1, "two"), VV_REBALANCE_IN_PROGRESS);
        pass(5000);
    }
    assert_int_equal(c->join.Members.n, 2); /* it did not rejoin, and keeps its place */
    assert_string_equal(text(c, c->join.Members.v[1].GroupInstanceId), "two");
}

static void an_administrator_removes_an_instance(void **state)
{
    (void)state;
    char *other;
    static_pair(5, &other);
    assert_int_equal(leave_as(3, other, "one")->leave.Members.v[0].ErrorCode, VV_FENCED_INSTANCE_ID);
    assert_int_equal(leave_as(3, "", "three")->leave.Members.v[0].ErrorCode, VV_UNKNOWN_MEMBER_ID);
    struct call *c = leave_as(3, "", "two");
    assert_int_equal(c->leave.Members.v[0].ErrorCode, 0);
    assert_string_equal(text(c, c->leave.Members.v[0].GroupInstanceId), "two");
    assert_string_equal(state_name(), "PreparingRebalance");
    assert_int_equal(heartbeat_as(other, 1, "two"), VV_UNKNOWN_MEMBER_ID);
}

/* ---- restart and stop ---- */

static void members_survive_a_restart(void **state)
{
    (void)state;
    stable(2);
    restart();
    assert_string_equal(state_name(), "Stable");
    assert_int_equal(group()->generation, 1);
    assert_int_equal(BEAT(ids[0], 1), 0);
    assert_bytes(FOLLOW(ids[1], 1)->sync.Assignment, "part1");
    pass(9999);
    assert_int_equal(BEAT(ids[0], 1), 0);
    pass(1); /* fresh session timers: ids[1] asked for its assignment at the start */
    assert_int_equal(BEAT(ids[0], 1), VV_REBALANCE_IN_PROGRESS);
    assert_int_equal(JOIN(.member = ids[0])->join.GenerationId, 2);
}

static void a_stop_answers_the_parked(void **state)
{
    (void)state;
    struct call *a = JOIN(.version = 3);
    vv_groups_stop(w.g);
    assert_int_equal(a->join.ErrorCode, VV_COORDINATOR_NOT_AVAILABLE);
    assert_int_equal(JOIN(.version = 3)->join.ErrorCode, VV_COORDINATOR_NOT_AVAILABLE);
    assert_int_equal(BEAT("x", 1), VV_COORDINATOR_NOT_AVAILABLE);
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_open, world_close)
int main(void)
{
    vlog_level = VV_ERROR;
    const struct CMUnitTest tests[] = {
        T(join_is_checked),
        T(a_member_id_comes_first),
        T(an_unused_member_id_expires),
        T(a_rebalance_waits_for_ids_given_out),
        T(an_empty_group_waits_for_more),
        T(the_initial_wait_ends_with_the_rebalance_timeout),
        T(protocols_are_voted_on),
        T(a_group_has_a_size),
        T(rejoining_without_change_changes_nothing),
        T(a_lost_join_answer_is_given_again),
        T(a_repeated_join_replaces_the_parked_one),
        T(the_leaders_assignment_reaches_all),
        T(sync_is_checked),
        T(an_assignment_that_is_not_stored_means_another_round),
        T(an_assignment_overtaken_by_a_join_is_not_used),
        T(who_does_not_sync_is_out),
        T(heartbeats_keep_a_member),
        T(a_dead_leader_is_replaced),
        T(who_does_not_rejoin_is_out),
        T(the_last_member_leaves_an_empty_group),
        T(a_late_broker_forgives),
        T(leaving_starts_a_rebalance),
        T(leaving_while_parked),
        T(a_static_member_comes_back_unnoticed),
        T(a_static_leader_comes_back),
        T(a_static_member_with_news_means_a_rebalance),
        T(a_duplicate_static_member_is_fenced),
        T(a_static_member_that_is_not_stored_may_try_again),
        T(a_static_member_caught_in_a_rebalance),
        T(static_members_outlive_a_rebalance),
        T(an_administrator_removes_an_instance),
        T(members_survive_a_restart),
        T(a_stop_answers_the_parked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
