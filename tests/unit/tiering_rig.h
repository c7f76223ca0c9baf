/* tiering_rig.h — what the tier's unit tests share: a partition whose log is a list of segments in memory (the log's functions that the
 * tier calls are defined here, in place of src/log's), a directory as store behind the fault wrapper, a clock under control.
 * rig_crash() forgets everything but the disk, the bucket and the segments. VARVE_TEST_FORM in the environment: the flags of new objects
 * (1 compressed, 2 encrypted); ctest runs the suites with 3 too. */
#ifndef VARVE_TESTS_TIERING_RIG_H
#define VARVE_TESTS_TIERING_RIG_H
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tier_impl.h"

#pragma GCC diagnostic ignored "-Wunused-function" /* each test uses its part of the rig */

/* ---- the log in memory ---- */
struct vv_segment {
    _Atomic int refs;
    int64_t base, last, max_ts;
    uint8_t *p;
    size_t n;
    struct vv_blocks blocks;
    bool dropped; /* files removed */
};
struct vv_log { struct vv_segment *v[4096]; size_t n; int64_t end; int32_t epoch; };

static _Atomic uint64_t rig_read_bytes; /* from segments */
int vv_segment_read_raw(struct vv_segment *s, void *dst, size_t n, uint64_t at)
{
    if (at + n > s->n) return VV_E_IO;
    rig_read_bytes += n;
    memcpy(dst, s->p + at, n);
    return 0;
}
int vv_segment_blocks(struct vv_segment *s, struct vv_blocks *out)
{
    size_t n = vv_blocks_encoded_size(&s->blocks);
    uint8_t *p = malloc(n);
    vv_blocks_encode(&s->blocks, p);
    int err = vv_blocks_decode(p, n, out);
    free(p);
    return err;
}
int vv_segment_snapshot(struct vv_segment *s, uint8_t **p, size_t *n)
{
    *p = malloc(16);
    *n = (size_t)snprintf((char *)*p, 16, "snap%lld", (long long)s->last + 1);
    return 0;
}
static struct vv_aborted rig_aborted[8]; /* what the log knows */
static size_t rig_aborted_n;
int vv_log_aborted(struct vv_log *log, int64_t from, int64_t to, struct vv_aborted **v, size_t *n)
{
    (void)log;
    *v = calloc(rig_aborted_n + 1, sizeof **v);
    *n = 0;
    for (size_t i = 0; i < rig_aborted_n; i++)
        if (rig_aborted[i].last_offset >= from && rig_aborted[i].first_offset <= to) (*v)[(*n)++] = rig_aborted[i];
    return 0;
}
size_t vv_log_epochs(struct vv_log *log, struct vv_epoch *out, size_t max)
{
    if (max) out[0] = (struct vv_epoch){log->epoch, 0};
    return 1;
}
int vv_log_drop_local(struct vv_log *log, struct vv_segment *s)
{
    (void)log;
    s->dropped = true;
    return 0;
}

/* ---- environment ---- */
static int64_t rig_wall_ms = 1700000000000, rig_mono_us = 1000000;
static int64_t rig_wall(void *c) { (void)c; return rig_wall_ms; }
static int64_t rig_mono(void *c) { (void)c; return rig_mono_us; }
static const struct vv_clock_ops rig_clock = {rig_wall, rig_mono};
static struct vv_env rig_env;
static void rig_advance(int64_t ms) { rig_wall_ms += ms; rig_mono_us += ms * 1000; }

struct rig {
    char dir[64], data[128], part_dir[128], bucket[128], keys[128];
    struct vv_objstore *store; /* the fault wrapper */
    struct vv_index *index;
    struct vv_log log;
    struct vv_tier *tier;
    struct vv_tier_part *part;
    struct vv_tier_config config;
    struct vv_tier_identity id;
    struct vv_uuid topic_id;
    int64_t limit; /* what may be uploaded */
    int progress;
};

static void rig_ref(struct vv_segment *s) { s->refs++; }
static void rig_unref(struct vv_segment *s) { s->refs--; }
static const struct vv_segment_ref_ops rig_ref_ops = {rig_ref, rig_unref};
static int64_t rig_limit(void *ctx) { return ((struct rig *)ctx)->limit; }
static int32_t rig_epoch(void *ctx) { return ((struct rig *)ctx)->log.epoch; }
static void rig_progress(void *ctx) { ((struct rig *)ctx)->progress++; }

static void rig_ok(int err, const struct vv_error *e)
{
    if (err) fail_msg("%s: %s", vv_err_name(err), e->text);
}

static void rig_open_index(struct rig *r, const char *dir)
{
    struct vv_error e = {0};
    rig_ok(vv_index_open(&rig_env, dir, &rig_ref_ops, &r->index, &e), &e);
    for (size_t i = 0; i < r->log.n; i++) {
        struct vv_segment *s = r->log.v[i];
        enum vv_extent_state st;
        struct vv_extent x = {.base = s->base, .last = s->last, .first_ts = s->max_ts, .max_ts = s->max_ts, .bytes = s->n, .local = s};
        if (s->dropped) continue;
        assert_int_equal(vv_index_attach(r->index, &x, &st), 0);
        if (st == VV_EXTENT_REMOTE || st == VV_EXTENT_TOMBSTONED || st == VV_EXTENT_DELETING) s->dropped = true;
    }
    rig_ok(vv_index_attached(r->index, &e), &e);
}

static void rig_open_part(struct rig *r)
{
    struct vv_error e = {0};
    struct vv_tier_part_opts o = {.topic_id = r->topic_id, .topic = "flights", .partition = 2, .log = &r->log, .index = r->index,
                                  .upload_limit = rig_limit, .leader_epoch = rig_epoch, .on_progress = rig_progress, .ctx = r};
    rig_ok(vv_tier_part_open(r->tier, &o, &r->part, &e), &e);
}

static void rig_open_tier(struct rig *r)
{
    struct vv_error e = {0};
    rig_ok(vv_tier_open(&rig_env, r->store, &r->config, &r->id, false, &r->tier, &e), &e);
}

static void rig_open(struct rig *r)
{
    rig_open_index(r, r->part_dir);
    rig_open_tier(r);
    rig_open_part(r);
}

/* A crash: nothing is flushed, released or told. The claim stays in the bucket. */
static void rig_crash(struct rig *r)
{
    if (r->part) {
        vv_manifest_release(&r->part->manifest);
        r->tier->part_count = 0;
        free(r->part);
    }
    r->part = NULL;
    vv_tier_free(r->tier);
    r->tier = NULL;
    vv_index_close(r->index);
    r->index = NULL;
}

static int rig_rm(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st, (void)flag, (void)f;
    return remove(path);
}

static unsigned rig_form(struct vv_tier_config *c)
{
    const char *text = getenv("VARVE_TEST_FORM");
    unsigned form = text ? (unsigned)atoi(text) : 0;
    c->compress = form & VV_OBJECT_COMPRESSED;
    c->encrypt = form & VV_OBJECT_ENCRYPTED;
    return form;
}

static void rig_write_keys(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, 0600), 0);
}

/* For tests of hundreds of small worlds, whose crashes are a process's, not a machine's: nothing waits for the disk. */
static bool rig_no_sync; /* before rig_new */
static int rig_sync_file(void *fs, struct vv_file *f) { (void)fs, (void)f; return 0; }
static int rig_sync_dir(void *fs, const char *path) { (void)fs, (void)path; return 0; }

static bool rig_threads; /* async GETs on threads of the store; before rig_new */

static struct rig *rig_new(void)
{
    struct rig *r = calloc(1, sizeof *r);
    struct vv_error e = {0};
    char url[160];
    snprintf(r->dir, sizeof r->dir, "/tmp/varve-tier-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->data, sizeof r->data, "%s/data", r->dir);
    snprintf(r->part_dir, sizeof r->part_dir, "%s/data/flights-2", r->dir);
    snprintf(r->bucket, sizeof r->bucket, "%s/bucket", r->dir);
    rig_env = vv_env_posix;
    rig_env.clock_ops = &rig_clock;
    static struct vv_fs_ops quick;
    quick = *rig_env.fs_ops;
    quick.datasync = rig_sync_file;
    quick.sync_dir = rig_sync_dir;
    if (rig_no_sync) rig_env.fs_ops = &quick;
    assert_int_equal(vv_fs_mkdirs(&rig_env, r->data), 0);
    snprintf(url, sizeof url, "fs:%s", r->bucket);
    snprintf(r->keys, sizeof r->keys, "%s/keys", r->dir);
    rig_write_keys(r->keys, "one AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
    struct vv_objstore_config sc = {.inline_async = !rig_threads, .keys_file = r->keys};
    struct vv_objstore *inner;
    rig_ok(vv_objstore_open(url, &sc, &rig_env, &inner, &e), &e);
    assert_int_equal(vv_objfault_open(inner, 1, &r->store), 0);
    memset(r->topic_id.b, 7, 16);
    r->id = (struct vv_tier_identity){.cluster_id = "cluster-1", .node_id = 1, .data_dir = r->data};
    r->config = (struct vv_tier_config){.delete_grace_ms = 60000};
    rig_form(&r->config);
    r->limit = INT64_MAX;
    r->log.epoch = 3;
    return r;
}

static void rig_free(struct rig *r)
{
    if (r->part) vv_tier_part_close(r->part);
    if (r->tier) vv_tier_stop(r->tier, 1000);
    vv_tier_free(r->tier);
    vv_index_close(r->index);
    vv_objstore_close(r->store);
    for (size_t i = 0; i < r->log.n; i++) {
        assert_int_equal(r->log.v[i]->refs, 0);
        vv_blocks_release(&r->log.v[i]->blocks);
        free(r->log.v[i]->p);
        free(r->log.v[i]);
    }
    nftw(r->dir, rig_rm, 16, FTW_DEPTH | FTW_PHYS);
    free(r);
}

/* Seals one segment of `batches` batches of n bytes, ten offsets each. The bytes are seeded by offset. */
static struct vv_segment *rig_seal(struct rig *r, int batches, size_t n)
{
    struct vv_segment *s = calloc(1, sizeof *s);
    s->base = r->log.end;
    s->n = n * (size_t)batches;
    s->p = malloc(s->n + 1);
    for (int i = 0; i < batches; i++) {
        uint8_t *p = s->p + n * (size_t)i;
        for (size_t k = 0; k < n; k++) p[k] = (uint8_t)((uint64_t)(r->log.end + (int64_t)k) * 2654435761u >> 13);
        assert_int_equal(vv_blocks_append(&s->blocks, p, n, r->log.end, r->log.end, r->log.end + 9, 10), 0);
        r->log.end += 10;
    }
    vv_blocks_seal(&s->blocks);
    s->last = r->log.end - 1;
    s->max_ts = s->last;
    r->log.v[r->log.n++] = s;
    assert_int_equal(vv_index_add_open(r->index, s->base, r->log.epoch, s), 0);
    struct vv_extent x = {.base = s->base, .last = s->last, .first_ts = s->base, .max_ts = s->last, .bytes = s->n, .sealed_ms = rig_wall_ms};
    assert_int_equal(vv_index_seal(r->index, &x), 0);
    if (r->part) vv_tier_part_kick(r->part);
    return s;
}

/* Steps until there is nothing to do at this moment; returns the steps. */
static int rig_run(struct rig *r)
{
    int n = 0;
    while (vv_tier_step(r->tier)) assert_true(++n < 100000);
    return n;
}

/* The same with time: back-offs and intervals pass. */
static void rig_settle(struct rig *r)
{
    for (int i = 0; i < 40; i++) {
        rig_run(r);
        vv_tier_hurry(r->tier);
        rig_advance(2000);
    }
}

static enum vv_extent_state rig_state(struct rig *r, int64_t base)
{
    struct vv_extent x;
    if (vv_index_next(r->index, base, &x) || x.base != base) fail_msg("no extent at %lld", (long long)base);
    vv_extent_release(r->index, &x);
    return x.state;
}

static size_t rig_count(struct rig *r, const char *prefix)
{
    struct vv_error e = {0};
    struct vv_objlist l = {0};
    size_t n = 0;
    char after[VV_KEY_MAX] = "";
    bool more = true;
    while (more) {
        rig_ok(vv_objstore_list(r->store, prefix, after[0] ? after : NULL, 0, 0, &l, &e), &e);
        n += l.count;
        more = l.more;
        if (more) snprintf(after, sizeof after, "%s", l.v[l.count - 1].key);
        vv_objlist_release(&l);
    }
    return n;
}

static size_t rig_segments(struct rig *r)
{
    char prefix[VV_KEY_MAX];
    vv_key_part_prefix(r->topic_id, 2, prefix);
    return rig_count(r, prefix);
}
#endif
