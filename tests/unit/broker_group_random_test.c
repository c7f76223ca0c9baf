/* Groups under random requests, times, failed and late writes and restarts, from a seed: every call is answered exactly
 * once, timers and memory balance, the state machine's invariants hold after each step, what was told as committed
 * stays until a deletion. */
#include "groups_fake.h"
#include "varve/vlog.h"

#define IDS 12

static uint64_t seed;
static uint32_t pick(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 11) % n);
}

static char ids[IDS][64];
static const char *const instances[] = {NULL, NULL, "i1", "i2"};
static struct call *joins[CALLS_MAX];
static size_t join_count;
static struct call *commits[CALLS_MAX];
static int64_t commit_offsets[CALLS_MAX];
static size_t commit_count;
static long seen[5]; /* steps per state: the walk must get around */
static int64_t promised; /* highest offset told as committed since the last deletion */

static void remember(struct vv_str id)
{
    if (id.n > 0 && id.n < 64) snprintf(ids[pick(IDS)], 64, "%.*s", id.n, id.p);
}

static struct vv_str some_id(struct call *c)
{
    return vv_str_c(vv_arena_printf(&c->arena, "%s", ids[pick(IDS)]));
}

static int32_t generation(void)
{
    struct vv_group *g = vv_groups_find(w.g, VV_STR_LIT("g"));
    return g ? g->generation - (pick(8) == 0) : 0;
}

static void do_join(void)
{
    struct call *c = new_call(&vv_schema_JoinGroupResponse, (int16_t)pick(10));
    NEW_REQUEST(JoinGroupRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->SessionTimeoutMs = 6000 + (int32_t)pick(3) * 5000;
    r->RebalanceTimeoutMs = 5000 + (int32_t)pick(3) * 10000;
    r->MemberId = pick(3) ? some_id(c) : VV_STR_LIT("");
    r->GroupInstanceId = c->gc.version >= 5 ? vv_str_c(instances[pick(4)]) : VV_STR_NULL;
    r->ProtocolType = pick(20) ? VV_STR_LIT("consumer") : VV_STR_LIT("connect");
    uint32_t n = 1 + pick(3);
    VV_ARRAY_NEW(r->Protocols, JoinGroupRequest_JoinGroupRequestProtocol, &c->arena, n);
    for (int32_t i = 0; i < r->Protocols.n; i++) {
        static const char *const names[] = {"range", "range", "sticky"};
        r->Protocols.v[i].Name = vv_str_c(names[pick(3)]);
        r->Protocols.v[i].Metadata = (struct vv_bytes){(const uint8_t *)"abcd", (int32_t)pick(4)};
    }
    joins[join_count++] = c;
    c->gc.req = r;
    vv_groups_join(w.g, &c->gc);
}

static void do_sync(void)
{
    struct call *c = new_call(&vv_schema_SyncGroupResponse, 5);
    NEW_REQUEST(SyncGroupRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->GenerationId = generation();
    r->MemberId = some_id(c);
    r->GroupInstanceId = vv_str_c(instances[pick(4)]);
    uint32_t n = pick(4);
    VV_ARRAY_NEW(r->Assignments, SyncGroupRequest_SyncGroupRequestAssignment, &c->arena, n);
    for (int32_t i = 0; i < r->Assignments.n; i++) {
        r->Assignments.v[i].MemberId = some_id(c);
        r->Assignments.v[i].Assignment = (struct vv_bytes){(const uint8_t *)"xyz", 3};
    }
    c->gc.req = r;
    vv_groups_sync(w.g, &c->gc);
}

static void do_heartbeat(void)
{
    struct call *c = new_call(&vv_schema_HeartbeatResponse, 4);
    NEW_REQUEST(HeartbeatRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->GenerationId = generation();
    r->MemberId = some_id(c);
    r->GroupInstanceId = vv_str_c(instances[pick(4)]);
    c->gc.req = r;
    vv_groups_heartbeat(w.g, &c->gc);
}

static void do_leave(void)
{
    struct call *c = new_call(&vv_schema_LeaveGroupResponse, (int16_t)pick(6));
    NEW_REQUEST(LeaveGroupRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->MemberId = some_id(c);
    uint32_t n = 1 + pick(2);
    VV_ARRAY_NEW(r->Members, LeaveGroupRequest_MemberIdentity, &c->arena, n);
    for (int32_t i = 0; i < r->Members.n; i++) {
        r->Members.v[i].MemberId = pick(2) ? some_id(c) : VV_STR_LIT("");
        r->Members.v[i].GroupInstanceId = vv_str_c(instances[pick(4)]);
    }
    if (c->gc.version < 3) r->Members.n = 0;
    c->gc.req = r;
    vv_groups_leave(w.g, &c->gc);
}

static void do_commit(int64_t offset)
{
    struct call *c = new_call(&vv_schema_OffsetCommitResponse, 8);
    NEW_REQUEST(OffsetCommitRequest, c);
    r->GroupId = VV_STR_LIT("g");
    r->GenerationIdOrMemberEpoch = pick(2) ? generation() : -1;
    r->MemberId = pick(2) ? some_id(c) : VV_STR_LIT("");
    VV_ARRAY_NEW(r->Topics, OffsetCommitRequest_OffsetCommitRequestTopic, &c->arena, 1);
    r->Topics.v[0].Name = VV_STR_LIT("t");
    VV_ARRAY_NEW(r->Topics.v[0].Partitions, OffsetCommitRequest_OffsetCommitRequestPartition, &c->arena, 1);
    r->Topics.v[0].Partitions.v[0].CommittedOffset = offset;
    commit_offsets[commit_count] = offset;
    commits[commit_count++] = c;
    c->gc.req = r;
    vv_groups_commit(w.g, &c->gc);
}

static void do_delete(void)
{
    static const char *const names[] = {"g"};
    struct call *c = new_call(&vv_schema_DeleteGroupsResponse, 2);
    NEW_REQUEST(DeleteGroupsRequest, c);
    VV_PLAIN_ARRAY_NEW(r->GroupsNames, &c->arena, 1);
    r->GroupsNames.v[0] = vv_str_c(names[0]);
    c->gc.req = r;
    bool was = vv_groups_find(w.g, VV_STR_LIT("g"));
    vv_groups_delete(w.g, &c->gc);
    if (was && !vv_groups_find(w.g, VV_STR_LIT("g"))) { /* promises before it are void, also those under way */
        commit_count = 0;
        promised = -1;
    }
}

/* Writes end in the order of the log; after a failed one all fail, as with a log that went offline. */
static void do_settle(void)
{
    for (uint32_t n = pick(6); n && w.queued; n--) {
        struct vv_produce_done *d = w.queue[0];
        memmove(w.queue, w.queue + 1, --w.queued * sizeof *w.queue);
        d->done(d, 0);
    }
}

static void collect(void)
{
    for (size_t i = 0; i < join_count; i++)
        if (joins[i]->answers) {
            remember(joins[i]->join.MemberId);
            joins[i--] = joins[--join_count];
        }
    for (size_t i = 0; i < commit_count; i++)
        if (commits[i]->answers) {
            if (!commits[i]->commit.Topics.v[0].Partitions.v[0].ErrorCode)
                promised = VV_MAX(promised, commit_offsets[i]);
            commit_count--;
            commits[i] = commits[commit_count];
            commit_offsets[i--] = commit_offsets[commit_count];
        }
}

static void check(void)
{
    struct vv_group *g = vv_groups_find(w.g, VV_STR_LIT("g"));
    if (promised >= 0) {
        struct vv_group_offset *o = g ? vv_group_offset(g, VV_STR_LIT("t"), 0, false) : NULL;
        assert_non_null(o);
        assert_true(o->present && o->offset >= promised);
    }
    if (!g) return;
    seen[g->state]++;
    size_t members = 0, statics = 0;
    int32_t parked = 0;
    bool owes = false;
    for (struct vv_group_member *m = g->first; m; m = m->next) {
        members++;
        statics += m->instance.n >= 0;
        parked += m->join != NULL;
        owes = owes || m->pending_sync;
        assert_true(m->session.slot);
        assert_ptr_equal(vv_group_member(g, m->id), m);
        if (m->sync) assert_int_equal(g->state, VV_GROUP_COMPLETING);
        if (m->join && g->state != VV_GROUP_PREPARING) assert_true(g->writes > 0); /* a static member being stored */
    }
    assert_int_equal(members, g->members.count);
    assert_int_equal(statics, g->instances.count);
    assert_int_equal(parked, g->awaiting_join);
    assert_int_equal(!members, g->state == VV_GROUP_EMPTY || (g->state == VV_GROUP_PREPARING && !members));
    assert_int_equal(!members, !g->leader);
    if (members) assert_true(g->vote_count > 0);
    if (g->state == VV_GROUP_PREPARING) assert_true(g->join_timer.slot);
    if (owes) assert_true(g->sync_timer.slot);
}

static void random_life(void **state)
{
    (void)state;
    for (uint64_t life = 1; life <= 150; life++) {
        world_open(NULL);
        seed = life * 0x9e3779b97f4a7c15u;
        memset(ids, 0, sizeof ids);
        join_count = commit_count = 0;
        promised = -1;
        w.g->config.size_max = 5;
        w.config.size_max = 5;
        for (int step = 0; step < 1500; step++) {
            w.refuse = pick(40) ? 0 : VV_E_NOSPC;
            uint32_t what = pick(100);
            if (w.queued > 40) what = 99;
            if (what < 25) do_join();
            else if (what < 45) do_sync();
            else if (what < 55) do_heartbeat();
            else if (what < 58) do_leave();
            else if (what < 70) do_commit(step + 1);
            else if (what < 71) do_delete();
            else if (what < 85) pass(pick(2000));
            else if (what < 86) pass(pick(30000));
            else do_settle();
            w.refuse = 0;
            collect();
            check();
            if (pick(400) == 0) {
                restart();
                collect();
                check();
            }
        }
        world_close(NULL);
    }
    for (int i = VV_GROUP_EMPTY; i <= VV_GROUP_STABLE; i++) assert_true(seen[i] > 1000);
    if (getenv("VARVE_TEST_VERBOSE"))
        for (int i = VV_GROUP_EMPTY; i <= VV_GROUP_STABLE; i++)
            printf("%s: %ld steps\n", vv_group_state_name((enum vv_group_state)i), seen[i]);
}

int main(void)
{
    vlog_level = VV_ERROR + 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_life)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
