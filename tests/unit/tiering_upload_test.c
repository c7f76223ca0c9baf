/* The uploader and the claim: the way of a segment into the bucket, every fault on it, crashes between the steps, other writers. */
#include "tiering_rig.h"
#include "follow.h"

#include <openssl/evp.h>

static int setup(void **state)
{
    struct rig *r = rig_new();
    rig_open(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static void fault(struct rig *r, enum vv_objop op, enum vv_objfault_action action, unsigned count, int64_t arg)
{
    assert_true(vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = (int)op, .key_part = ".seg", .count = count,
                                                                    .action = action, .arg = arg}) >= 0);
}

static void in_order_and_only_what_may(void **state)
{
    struct rig *r = *state;
    rig_seal(r, 4, 20000);
    rig_seal(r, 2, 70000);
    rig_seal(r, 1, 10);
    r->limit = 60; /* the third is not below the stable end */
    rig_run(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_BOTH);
    assert_int_equal(rig_state(r, 40), VV_EXTENT_BOTH);
    assert_int_equal(rig_state(r, 60), VV_EXTENT_SEALED);
    assert_int_equal(rig_segments(r), 2);
    assert_int_equal(r->progress, 2);
    r->limit = INT64_MAX;
    vv_tier_part_kick(r->part);
    rig_run(r);
    assert_int_equal(rig_state(r, 60), VV_EXTENT_BOTH);
    assert_int_equal(vv_tier_part_drop_local(r->part, 0), 0);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_REMOTE);
    assert_true(r->log.v[0]->dropped);
    assert_int_equal(vv_tier_part_drop_local(r->part, 0), VV_E_STATE);
    struct vv_tier_part_stats s;
    vv_tier_part_stats(r->part, &s);
    assert_int_equal(s.uploaded_segments, 3);
    struct vv_index_summary sum;
    vv_index_summary(r->index, &sum);
    assert_int_equal(sum.pending_extents, 0);
}

/* The object is exactly local bytes (or what they are stored as) + footer, and its footer tells all. */
static void object_content(void **state)
{
    struct rig *r = *state;
    struct vv_segment *s = rig_seal(r, 4, 20000);
    struct vv_extent x;
    struct vv_segkey k;
    struct vv_slice got = {0};
    struct vv_footer f;
    struct vv_error e = {0};
    char key[VV_KEY_MAX];
    rig_run(r);
    assert_int_equal(vv_index_find(r->index, 0, &x), 0);
    vv_extent_release(r->index, &x);
    vv_segkey_of(r->topic_id, 2, &x, &k);
    vv_segkey_format(&k, key);
    rig_ok(vv_objstore_get_whole(r->store, key, 1 << 20, 0, &got, NULL, &e), &e);
    assert_int_equal(got.n, x.object_bytes);
    assert_int_equal(memcmp(got.p, s->p, VV_MIN(s->n, got.n)) != 0, rig_form(&r->config) != 0);
    assert_int_equal(vv_footer_decode(got.p, got.n, got.n, r->store->keys, &f, NULL, &e), 0);
    assert_int_equal(f.flags, rig_form(&r->config));
    assert_int_equal(vv_extent_footer_at(&x), f.stored_bytes);
    assert_int_equal(vv_footer_check(&f, &k, "cluster-1", &e), 0);
    assert_int_equal(f.blocks.count, 2);
    assert_memory_equal(f.snapshot, "snap40", 6);
    assert_int_equal(f.epochs[0].epoch, 3);
    vv_footer_release(&f);
    vv_buf_unref(got.buf);
}

static void settles_with_one_object(struct rig *r)
{
    rig_settle(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_BOTH);
    assert_int_equal(rig_segments(r), 1);
}

static void put_fails(void **state)
{
    struct rig *r = *state;
    rig_seal(r, 4, 20000);
    fault(r, VV_OBJ_PUT, VV_FAULT_FAIL, 3, 0);
    rig_run(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_UPLOADING); /* backed off, not spinning */
    struct vv_tier_part_stats s;
    vv_tier_part_stats(r->part, &s);
    assert_int_equal(s.upload_errors, 1);
    assert_true(s.last_error[0]);
    settles_with_one_object(r);
}

static void reply_lost(void **state)
{
    struct rig *r = *state;
    rig_seal(r, 4, 20000);
    fault(r, VV_OBJ_PUT, VV_FAULT_LOSE_REPLY, 1, 0);
    settles_with_one_object(r);
    struct vv_tier_stats s;
    vv_tier_stats(r->tier, &s);
    assert_int_equal(s.uploads, 1);
}

static void acknowledged_but_not_stored(void **state)
{
    struct rig *r = *state;
    rig_seal(r, 4, 20000);
    fault(r, VV_OBJ_PUT, VV_FAULT_DROP_WRITE, 2, 0);
    rig_run(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_UPLOADING);
    settles_with_one_object(r);
}

static void stored_truncated(void **state)
{
    struct rig *r = *state;
    rig_seal(r, 4, 20000);
    fault(r, VV_OBJ_PUT, VV_FAULT_TRUNCATE, 2, 0);
    rig_run(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_UPLOADING);
    settles_with_one_object(r);
}

static void stored_other_bytes(void **state)
{
    struct rig *r = *state;
    struct vv_tier_config c = r->config;
    c.verify_full = true;
    vv_tier_configure(r->tier, &c);
    rig_seal(r, 4, 20000);
    fault(r, VV_OBJ_PUT, VV_FAULT_FLIP, 2, 30000); /* in a block: only a full read-back sees it */
    rig_run(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_UPLOADING);
    settles_with_one_object(r);
}

static void footer_read_back_fails(void **state)
{
    struct rig *r = *state;
    rig_seal(r, 4, 20000);
    fault(r, VV_OBJ_GET, VV_FAULT_FAIL, 2, 0);
    settles_with_one_object(r);
}

static void rot_is_refused(void **state)
{
    struct rig *r = *state;
    struct vv_segment *s = rig_seal(r, 8, 50000);
    s->p[123456] ^= 4; /* after the append */
    rig_run(r);
    rig_settle(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_UPLOADING);
    assert_int_equal(rig_segments(r), 0);
    struct vv_tier_part_stats st;
    vv_tier_part_stats(r->part, &st);
    assert_non_null(strstr(st.last_error, "damaged"));
    s->p[123456] ^= 4; /* the file was put back */
    settles_with_one_object(r);
}

/* A crash after each step of an upload; the same key must come out. */
static void crash_at_each_step(void **state)
{
    struct rig *r = *state;
    static const enum vv_objfault_action actions[] = {VV_FAULT_FAIL, VV_FAULT_LOSE_REPLY, VV_FAULT_TRUNCATE, VV_FAULT_DROP_WRITE};
    int64_t base = 0;
    for (size_t i = 0; i < VV_COUNT(actions); i++) {
        struct vv_extent before, after;
        rig_seal(r, 4, 20000);
        fault(r, VV_OBJ_PUT, actions[i], 1, 0);
        vv_tier_step(r->tier);
        vv_objfault_clear(r->store);
        assert_int_equal(vv_index_next(r->index, base, &before), 0);
        vv_extent_release(r->index, &before);
        assert_int_equal(before.state, VV_EXTENT_UPLOADING);
        rig_crash(r);
        rig_open(r); /* takes its own claim back at once */
        rig_settle(r);
        assert_int_equal(vv_index_next(r->index, base, &after), 0);
        vv_extent_release(r->index, &after);
        assert_int_equal(after.state, VV_EXTENT_BOTH);
        assert_int_equal(after.nonce, before.nonce);
        assert_int_equal(rig_segments(r), i + 1);
        base = after.last + 1;
    }
}

static void other_partitions_go_on(void **state)
{
    struct rig *r = *state;
    struct rig *q = calloc(1, sizeof *q); /* a second partition of the same tier */
    *q = *r;
    q->log = (struct vv_log){.epoch = 1};
    q->part = NULL;
    snprintf(q->part_dir, sizeof q->part_dir, "%s/data/flights-9", r->dir);
    rig_open_index(q, q->part_dir);
    struct vv_error e = {0};
    struct vv_tier_part_opts o = {.topic_id = r->topic_id, .topic = "flights", .partition = 9, .log = &q->log, .index = q->index,
                                  .upload_limit = rig_limit, .leader_epoch = rig_epoch, .ctx = q};
    rig_ok(vv_tier_part_open(r->tier, &o, &q->part, &e), &e);
    vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = VV_OBJ_PUT, .key_part = "/00002/", .action = VV_FAULT_FAIL});
    rig_seal(r, 1, 1000);
    for (int i = 0; i < 5; i++) rig_seal(q, 1, 1000);
    rig_run(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_UPLOADING);
    for (int i = 0; i < 5; i++) assert_int_equal(rig_state(q, i * 10), VV_EXTENT_BOTH);
    vv_objfault_clear(r->store);
    rig_settle(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_BOTH);
    vv_tier_part_close(q->part);
    vv_index_close(q->index);
    for (size_t i = 0; i < q->log.n; i++) {
        vv_blocks_release(&q->log.v[i]->blocks);
        free(q->log.v[i]->p);
        free(q->log.v[i]);
    }
    free(q);
}

static void copy_disabled(void **state)
{
    struct rig *r = *state;
    vv_tier_part_set_copy_disabled(r->part, true);
    rig_seal(r, 1, 1000);
    rig_run(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_SEALED);
    vv_tier_part_set_copy_disabled(r->part, false);
    rig_run(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_BOTH);
}

/* ---- the claim ---- */

static int try_open(struct rig *r, const char *cluster, int32_t node, const char *data_dir, bool take_over, struct vv_tier **out,
                    struct vv_error *e)
{
    struct vv_tier_identity id = {.node_id = node, .data_dir = data_dir};
    snprintf(id.cluster_id, sizeof id.cluster_id, "%s", cluster);
    return vv_tier_open(&rig_env, r->store, &r->config, &id, take_over, out, e);
}

static void other_writers(void **state)
{
    struct rig *r = *state;
    struct vv_tier *t = NULL;
    struct vv_error e;
    assert_int_equal(try_open(r, "cluster-2", 1, NULL, true, &t, &e), VV_E_CONFLICT); /* not even --take-over */
    assert_non_null(strstr(e.text, "cluster-1"));
    assert_int_equal(try_open(r, "cluster-1", 2, NULL, false, &t, &e), VV_E_CONFLICT);
    assert_non_null(strstr(e.text, "node 1"));
    assert_non_null(strstr(e.text, "--take-over"));
    rig_advance(59000);
    assert_int_equal(try_open(r, "cluster-1", 2, NULL, false, &t, &e), VV_E_CONFLICT);
    rig_run(r);
    rig_advance(2000);
    rig_run(r); /* renews */
    rig_advance(59000);
    assert_int_equal(try_open(r, "cluster-1", 2, NULL, false, &t, &e), VV_E_CONFLICT);
    rig_ok(try_open(r, "cluster-1", 2, NULL, true, &t, &e), &e);
    assert_int_equal(t->claim.writer_epoch, 2);
    /* The old writer notices at its next renewal and writes nothing more. */
    rig_advance(21000);
    rig_run(r);
    assert_true(r->tier->fenced);
    rig_seal(r, 1, 100);
    rig_settle(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_SEALED);
    assert_int_equal(rig_segments(r), 0);
    vv_tier_stop(t, 0);
    vv_tier_free(t);
}

static void claim_is_released_and_recognised(void **state)
{
    struct rig *r = *state;
    struct vv_tier *t = NULL;
    struct vv_error e;
    rig_crash(r);
    assert_int_equal(try_open(r, "cluster-1", 1, NULL, false, &t, &e), VV_E_CONFLICT); /* without the secret beside the data */
    rig_ok(try_open(r, "cluster-1", 1, r->data, false, &t, &e), &e);
    vv_tier_stop(t, 0); /* clean: anybody of the cluster may follow */
    vv_tier_free(t);
    rig_ok(try_open(r, "", 5, NULL, false, &t, &e), &e);
    assert_string_equal(t->id.cluster_id, "cluster-1"); /* adopted */
    assert_int_equal(t->claim.writer_epoch, 3);
    vv_tier_free(t); /* dies holding the claim */
    rig_advance(61000);
    rig_open_index(r, r->part_dir);
    rig_open_tier(r);
    rig_open_part(r);
}

static void claim_survives_lost_replies(void **state)
{
    struct rig *r = *state;
    vv_objfault_add(r->store, &(struct vv_objfault_rule){.op = VV_OBJ_PUT, .key_part = "root.json", .percent = 50,
                                                         .action = VV_FAULT_LOSE_REPLY});
    for (int i = 0; i < 30; i++) {
        rig_advance(21000);
        rig_run(r);
    }
    assert_false(r->tier->fenced);
    vv_objfault_clear(r->store);
    rig_advance(21000);
    rig_run(r);
    assert_false(r->tier->fenced);
}

/* ---- the sums that a put is given ---- */

static struct vv_objsumming sums_wanted;
static uint64_t sums_seen, sums_missed;

static struct vv_objsumming want_sums(struct vv_objstore *s, uint64_t n)
{
    (void)s, (void)n;
    return sums_wanted;
}

/* Every piece as it will be sent, against what the uploader said of it; what the store needs must be there. */
static void check_sums(const uint8_t *p, uint64_t n, const struct vv_objsums *sums)
{
    assert_int_equal(sums->as.piece, sums_wanted.piece);
    assert_int_equal(sums->as.kinds & sums_wanted.kinds, sums_wanted.kinds);
    uint64_t piece = VV_MIN(sums->as.piece, n);
    assert_int_equal(sums->count, (n + piece - 1) / piece);
    for (size_t i = 0; i < sums->count; i++) {
        uint8_t md5[16], sha256[32];
        size_t take = (size_t)VV_MIN(piece, n - i * piece);
        assert_int_equal(EVP_Digest(p + i * piece, take, md5, NULL, EVP_md5(), NULL), 1);
        assert_int_equal(EVP_Digest(p + i * piece, take, sha256, NULL, EVP_sha256(), NULL), 1);
        if (sums->as.kinds & VV_SUM_MD5) assert_memory_equal(sums->v[i].md5, md5, 16);
        if (sums->as.kinds & VV_SUM_SHA256) assert_memory_equal(sums->v[i].sha256, sha256, 32);
    }
}

static const struct vv_objstore_ops *ops_before;
static int checking_put(struct vv_objstore *s, const char *key, const struct vv_objsrc *src, const struct vv_objput *how, int64_t deadline_ms,
                        struct vv_objinfo *info, struct vv_error *e)
{
    if (strstr(key, ".seg")) {
        uint8_t *p = malloc(src->size);
        assert_int_equal(src->read(src->ctx, 0, p, src->size), 0);
        if (how->sums) check_sums(p, src->size, how->sums);
        *(how->sums ? &sums_seen : &sums_missed) += 1;
        free(p);
    }
    return ops_before->put(s, key, src, how, deadline_ms, info, e);
}

static void link_of(struct rig *r, int64_t base, struct vv_footer *f)
{
    struct vv_extent x;
    struct vv_segkey k;
    uint64_t n;
    struct vv_error e = {0};
    assert_int_equal(vv_index_find(r->index, base, &x), 0);
    vv_extent_release(r->index, &x);
    vv_segkey_of(r->topic_id, 2, &x, &k);
    rig_ok(vv_footer_get(r->store, &k, r->tier->clusters, 4096, f, &n, &e), &e);
    assert_int_equal(f->link_count, 1);
}

/* The sums that the store asks for come with the put, in pieces or whole, of the bytes in their stored form and of the footer; the link's is
 * of the segment, whoever else wanted a SHA-256. */
static void sums_are_handed_down(void **state)
{
    static const struct vv_objsumming cases[] = {
        {VV_SUM_WHOLE, VV_SUM_MD5 | VV_SUM_SHA256}, {VV_SUM_WHOLE, VV_SUM_MD5}, {30000, VV_SUM_MD5 | VV_SUM_SHA256}, {65536, VV_SUM_MD5}, {0, 0}};
    struct rig *r = *state;
    static struct vv_objstore_ops checking;
    ops_before = r->store->ops;
    checking = *ops_before;
    checking.put = checking_put;
    checking.summing = want_sums;
    r->store->ops = &checking;
    sums_seen = sums_missed = 0;
    for (size_t i = 0; i < VV_COUNT(cases); i++) {
        uint8_t sha256[32];
        struct vv_footer f;
        sums_wanted = cases[i];
        struct vv_segment *s = rig_seal(r, 5, 33333);
        rig_run(r);
        assert_int_equal(rig_state(r, s->base), VV_EXTENT_BOTH);
        assert_int_equal(EVP_Digest(s->p, s->n, sha256, NULL, EVP_sha256(), NULL), 1);
        link_of(r, s->base, &f);
        assert_memory_equal(f.links[0].sha256, sha256, 32);
        vv_footer_release(&f);
    }
    assert_int_equal(sums_seen, VV_COUNT(cases) - 1);
    assert_int_equal(sums_missed, 1);
    r->store->ops = ops_before;
}

/* Once for all that must be known, once to send it. */
static void a_segment_is_read_twice(void **state)
{
    struct rig *r = *state;
    struct vv_segment *s = rig_seal(r, 40, 50000);
    rig_read_bytes = 0;
    rig_run(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_BOTH);
    assert_int_equal(rig_read_bytes, 2 * s->n);
}

/* The object arrived, its reply did not, and meanwhile the local copy rots: the object counts, and the chain goes on from what it says. */
static void rot_after_a_lost_reply(void **state)
{
    struct rig *r = *state;
    struct vv_footer first, second;
    uint8_t chain[VV_CHAIN_BYTES];
    if (rig_form(&r->config)) return; /* what is stored otherwise is made from the local copy, which must be good */
    struct vv_segment *s = rig_seal(r, 4, 20000);
    fault(r, VV_OBJ_PUT, VV_FAULT_LOSE_REPLY, 1, 0);
    rig_run(r);
    assert_int_equal(rig_state(r, 0), VV_EXTENT_UPLOADING);
    s->p[30000] ^= 1;
    settles_with_one_object(r);
    rig_seal(r, 1, 10000);
    rig_settle(r);
    link_of(r, 0, &first);
    link_of(r, 40, &second);
    memcpy(chain, first.chain, sizeof chain);
    vv_chain_next(chain, first.links);
    assert_memory_equal(second.chain, chain, sizeof chain);
    vv_footer_release(&first);
    vv_footer_release(&second);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(in_order_and_only_what_may), T(object_content), T(put_fails), T(reply_lost), T(acknowledged_but_not_stored),
        T(stored_truncated), T(stored_other_bytes), T(footer_read_back_fails), T(rot_is_refused), T(crash_at_each_step),
        T(other_partitions_go_on), T(copy_disabled), T(other_writers), T(claim_is_released_and_recognised),
        T(claim_survives_lost_replies), T(sums_are_handed_down), T(a_segment_is_read_twice), T(rot_after_a_lost_reply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
