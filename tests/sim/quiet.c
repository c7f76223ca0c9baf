/* quiet.c — the end of a run: faults off, steps until idle. Then everything sealed is in the bucket, nothing lies there
 * that the manifest does not name, and the bucket alone gives the tiered prefix back. See world.h. */
#include "world.h"

#include <ctype.h>

static void drop_all_local(struct world *w, struct sim_part *p)
{
    struct vv_extent x;
    while (!vv_index_find_state(p->index, VV_EXTENT_BOTH, 0, &x)) {
        vv_extent_release(p->index, &x);
        world_ok(w, vv_tier_part_drop_local(p->tier, x.base), "drop local", NULL);
    }
}

static void steps_until_idle(struct world *w)
{
    bool remote = sim_percent(w, 50); /* then small objects are merged */
    for (int round = 0; round < 60; round++) {
        if (round == 40) { /* what was replaced last is deleted after its grace */
            struct vv_tier_config c = w->tier_config;
            c.merge_segments_min = 0;
            vv_tier_configure(w->tier, &c);
        }
        for (int i = 0; i < w->parts && remote && round == 4; i++) drop_all_local(w, &w->part[i]);
        for (int i = 0; i < w->parts; i++) world_ok(w, vv_log_seal_pending(w->part[i].log), "seal", NULL);
        int n = 0;
        while (vv_tier_step(w->tier)) SIM_CHECK(++n < 5000, "the tier never comes to rest");
        vv_tier_hurry(w->tier);
        vv_clock_sim_advance(&w->clock, 3000); /* graces pass */
    }
}

/* ---- the bucket holds what it should and nothing else ---- */

struct names {
    char (*v)[VV_KEY_MAX];
    size_t n, cap;
};

static void want(struct names *l, const char *key)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->v = realloc(l->v, l->cap * sizeof *l->v);
        if (!l->v) sim_fail("out of memory");
    }
    snprintf(l->v[l->n++], VV_KEY_MAX, "%s", key);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

struct manifest_check {
    struct world *w;
    struct sim_part *p;
    struct names *l;
    int64_t next;
    uint64_t segments;
};

static int on_manifest(void *ctx, const struct vv_extent *m)
{
    struct manifest_check *c = ctx;
    struct vv_extent x;
    struct vv_segkey k;
    char key[VV_KEY_MAX];
    SIM_CHECK(!c->segments || m->base == c->next, "partition %d: the manifest goes from %" PRId64 " to %" PRId64,
              c->p->id, c->next, m->base);
    int err = vv_index_next(c->p->index, m->base, &x);
    SIM_CHECK(!err && x.base == m->base && x.last == m->last && x.nonce == m->nonce && x.epoch == m->epoch &&
                  x.object_bytes == m->object_bytes && x.bytes == m->bytes && x.max_ts == m->max_ts &&
                  vv_extent_is_remote(&x),
              "partition %d: the manifest's segment %" PRId64 "..%" PRId64 " is not the index's", c->p->id, m->base,
              m->last);
    vv_extent_release(c->p->index, &x);
    vv_segkey_of(c->w->topic_id, c->p->id, m, &k);
    vv_segkey_format(&k, key);
    want(c->l, key);
    c->next = m->last + 1;
    c->segments++;
    return 0;
}

static void expect_part(struct world *w, struct sim_part *p, struct names *l)
{
    struct vv_manifest m = {0};
    struct vv_manifest_where where = {.env = &w->bucket_env,
                                      .store = w->checker,
                                      .cluster_id = "simulated",
                                      .topic = "sim",
                                      .topic_id = w->topic_id,
                                      .partition = p->id};
    struct manifest_check c = {.w = w, .p = p, .l = l};
    struct vv_index_summary s;
    struct vv_error e = {0};
    char key[VV_KEY_MAX];
    vv_index_summary(p->index, &s);
    SIM_CHECK(!s.pending_extents, "partition %d: %" PRIu64 " sealed extents were not uploaded", p->id,
              s.pending_extents);
    int err = vv_manifest_walk(&m, &where, on_manifest, &c, &e);
    SIM_CHECK(!err, "partition %d: the manifest: %s", p->id, e.text);
    SIM_CHECK(c.segments == s.remote_extents,
              "partition %d: %" PRIu64 " segments in the manifest, %" PRIu64 " in the index", p->id, c.segments,
              s.remote_extents);
    SIM_CHECK(!m.exists || m.log_start == s.log_start,
              "partition %d: the manifest's log start is %" PRId64 ", it is %" PRId64, p->id, m.log_start, s.log_start);
    if (m.exists) {
        vv_key_head(w->topic_id, p->id, key);
        want(l, key);
    }
    for (int k = 1; k < VV_MANIFEST_LEVELS;
         k++) /* enough for 65536 segments: below a page of level 2 nobody looks here */
        for (size_t i = 0; i < m.level[k].n; i++) {
            vv_key_page(w->topic_id, p->id, k, m.level[k].v[i].sha256, key);
            want(l, key);
        }
    vv_manifest_release(&m);
}

static void check_bucket(struct world *w)
{
    struct names l = {0};
    struct vv_objlist page = {0};
    struct vv_error e = {0};
    char key[VV_KEY_MAX], topic[VV_KEY_MAX];
    size_t i = 0;
    want(&l, VV_KEY_ROOT);
    for (int k = 0; k < w->parts; k++) expect_part(w, &w->part[k], &l);
    qsort(l.v, l.n, sizeof *l.v, by_name);
    vv_key_topic(w->topic_id, topic);
    key[0] = 0;
    do {
        vv_objlist_release(&page);
        int err = vv_objstore_list(w->checker, "", key[0] ? key : NULL, 0, 0, &page, &e);
        SIM_CHECK(!err, "listing the bucket: %s", e.text);
        for (size_t n = 0; n < page.count; n++) {
            if (!strcmp(page.v[n].key, topic)) continue;
            SIM_CHECK(i >= l.n || strcmp(l.v[i], page.v[n].key) >= 0, "%s is not in the bucket", l.v[i]);
            bool known = i < l.n && !strcmp(l.v[i], page.v[n].key);
            /* A page that a merge wrote and then gave up, or went another way: garbage collection's, when it is on. */
            bool page_left = !w->tier_config.gc_interval_ms && w->tier_config.merge_segments_min && strstr(page.v[n].key, "v1/m/");
            SIM_CHECK(known || w->disk_lost || page_left, "%s is in the bucket and nothing names it", page.v[n].key);
            i += known;
            snprintf(key, sizeof key, "%s", page.v[n].key);
        }
    } while (page.more);
    SIM_CHECK(i == l.n, "%s is not in the bucket", l.v[i]);
    vv_objlist_release(&page);
    free(l.v);
}

/* ---- the end ---- */

/* Nothing below the log start is left, neither in the index nor on the disk. */
static void check_forgotten(struct world *w, struct sim_part *p)
{
    struct vv_extent x;
    SIM_CHECK(!vv_index_next(p->index, 0, &x), "partition %d: no extent", p->id);
    SIM_CHECK(x.last >= p->log_start,
              "partition %d: %s extent %" PRId64 "..%" PRId64 " is left below log start %" PRId64, p->id,
              vv_extent_state_name(x.state), x.base, x.last, p->log_start);
    vv_extent_release(p->index, &x);
    (void)w;
}

struct files {
    struct world *w;
    struct sim_part *p;
};

static int on_file(void *ctx, const char *name)
{
    struct files *f = ctx;
    const char *dot = strchr(name, '.');
    if (!isdigit((unsigned char)name[0]) || !dot || strcmp(dot, ".snapshot") == 0) return 0;
    struct vv_extent x;
    int64_t base = strtoll(name, NULL, 10);
    int err = vv_index_next(f->p->index, base, &x);
    SIM_CHECK(!err && x.base == base && x.local, "partition %d: the file %s belongs to no local extent", f->p->id,
              name);
    vv_extent_release(f->p->index, &x);
    return 0;
}

static bool had_objects(const struct world *w)
{
    bool any = false;
    for (int i = 0; i < w->parts; i++) any |= w->part[i].proven > w->part[i].log_start;
    return any;
}

/* The topic is deleted: after the grace nothing of it is left, also of what an earlier loss of the disk orphaned. */
static void delete_topic(struct world *w)
{
    struct vv_error e = {0};
    struct vv_objlist page = {0};
    for (int i = 0; i < w->parts; i++) {
        vv_tier_part_close(w->part[i].tier);
        w->part[i].tier = NULL;
    }
    world_ok(w, vv_tier_delete_topic(w->tier, w->topic_id, "sim", 0, &e), "delete topic", e.text);
    for (int round = 0; round < 20; round++) {
        while (vv_tier_step(w->tier)) {
        }
        vv_tier_hurry(w->tier);
        vv_clock_sim_advance(&w->clock, 3000);
        int err = vv_objstore_list(w->checker, "v1/t/", NULL, 0, 0, &page, &e);
        SIM_CHECK(!err, "listing the bucket: %s", e.text);
        SIM_CHECK(page.count || round * 3000 >= w->tier_config.delete_grace_ms || !had_objects(w),
                  "the topic is gone before its grace");
        vv_objlist_release(&page);
    }
    int err = vv_objstore_list(w->checker, "", NULL, 0, 0, &page, &e);
    SIM_CHECK(!err, "listing the bucket: %s", e.text);
    for (size_t i = 0; i < page.count; i++)
        SIM_CHECK(!strcmp(page.v[i].key, VV_KEY_ROOT), "%s is left of a deleted topic", page.v[i].key);
    vv_objlist_release(&page);
}

void quiet_end(struct world *w)
{
    world_clear_faults(w);
    vv_clock_sim_advance(&w->clock, 2000000000); /* past every tombstone that a jump of the clock put into the future */
    world_down(w, sim_percent(w, 50) ? SIM_POWER : SIM_CLEAN);
    world_up(w);
    for (int i = 0; i < w->parts; i++) world_ok(w, vv_log_roll(w->part[i].log), "roll", NULL);
    steps_until_idle(w);
    check_bucket(w);
    for (int i = 0; i < w->parts; i++) {
        struct sim_part *p = &w->part[i];
        check_forgotten(w, p);
        part_check(w, p, true);
        if (sim_percent(w, 50)) drop_all_local(w, p);
        struct files f = {w, p};
        world_ok(w, vv_fs_list(&w->env, p->dir, on_file, &f), "list", NULL);
        part_check(w, p, true);
        part_read_remote(w, p, p->log_start, 100000);
    }
    world_down(w, SIM_CLEAN);
    world_lose_disk(w);
    world_up(w);
    for (int i = 0; i < w->parts; i++) { /* all was rolled and uploaded: the bucket has everything */
        struct sim_part *p = &w->part[i];
        for (int k = 0; k < 20; k++) part_retry(w, p);
        for (int k = 0; k < 5; k++) part_append(w, p);
        part_check(w, p, true);
    }
    delete_topic(w);
    world_down(w, SIM_CLEAN);
}
