/* history.c — a long history in one partition, proven: build/history --segments N [--dir DIR] [--topic NAME --topic-id ID]
 * [--keep] [--verify].
 *
 * Builds the index and the manifest of N one-minute segments (synth.h) with the broker's own code, then asks everything
 * that a broker and a reader ask: what a commit costs at every size, lookups by offset and by time against the truth with the
 * GETs counted, a restart, a restore, a replay's plan, windows of records, a log start that passes nearly all of it. Counts
 * and sizes are checked, times only printed.
 *
 * --dir: the bucket (fs:DIR) may be a real broker's: its cluster is kept and a few objects around the middle are written out, so that
 * a broker or the CLI can read them afterwards (tests/tier/history.py). */
#include "index_impl.h"
#include "synth.h"
#include "tier_impl.h"
#include "varve/reader.h"
#include "varve/vlog.h"

#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WRITTEN_OUT 512 /* objects around the middle */

static struct synth synth = {.topic = "history", .cluster_id = "history-cluster", .writer_epoch = 1};
static struct vv_env env; /* without waiting for the disk */
static struct vv_objstore *store;
static struct vv_tier *tier;
static int64_t segments;
static char work[64], index_dir[96], bucket[256], cluster[64];
static struct vv_fs_ops quick_ops;

#define NEED(c, ...) do { if (!(c)) { fprintf(stderr, "history: %s:%d: " #c ": ", __FILE__, __LINE__); \
    fprintf(stderr, __VA_ARGS__); fputc('\n', stderr); exit(1); } } while (0)

static void must(int err, const struct vv_error *e)
{
    NEED(!err, "%s %s", vv_err_name(err), e ? e->text : "");
}

static int no_sync(void *fs, struct vv_file *f) { (void)fs, (void)f; return VV_OK; }
static int no_sync_dir(void *fs, const char *path) { (void)fs, (void)path; return VV_OK; }

static double seconds(int64_t from_us) { return (double)(vv_mono_us(&env) - from_us) / 1e6; }

static uint64_t random_below(uint64_t n)
{
    static uint64_t x = 88172645463325252u;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return x % n;
}

static size_t rss_kib(void)
{
    size_t kib = 0;
    char line[200];
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmRSS: %zu", &kib);
    if (f) fclose(f);
    return kib;
}

static uint64_t gets(void)
{
    return store->stats.calls[VV_OBJ_GET] + store->stats.calls[VV_OBJ_GET_ASYNC];
}

/* ---- the bucket ---- */

static void open_bucket(bool own)
{
    struct vv_error e = {0};
    struct vv_objstore *inner;
    struct vv_tier_config c = {.readahead_chunks = 0};
    struct vv_tier_identity id = {.node_id = 7};
    char url[300];
    env = vv_env_posix;
    quick_ops = *env.fs_ops;
    quick_ops.datasync = no_sync;
    quick_ops.sync_dir = no_sync_dir;
    env.fs_ops = &quick_ops;
    snprintf(url, sizeof url, "fs:%s", bucket);
    must(vv_objstore_open(url, &(struct vv_objstore_config){.inline_async = true}, &env, &inner, &e), &e);
    if (own) snprintf(id.cluster_id, sizeof id.cluster_id, "%s", synth.cluster_id);
    store = synth_store(inner, &synth);
    must(vv_tier_open(&env, store, &c, &id, true, &tier, &e), &e);
    snprintf(cluster, sizeof cluster, "%s", id.cluster_id);
    synth.cluster_id = cluster;
    synth.writer_epoch = tier->claim.writer_epoch;
    synth_init(&synth);
}

static struct vv_manifest_where where(void)
{
    return (struct vv_manifest_where){.env = &env, .store = store, .cluster_id = cluster, .topic = synth.topic,
                                      .topic_id = synth.topic_id, .writer_epoch = synth.writer_epoch};
}

static void open_index(struct vv_index **ix, const char *dir)
{
    struct vv_error e = {0};
    must(vv_index_open(&env, dir, NULL, ix, &e), &e);
    must(vv_index_attached(*ix, &e), &e);
}

/* ---- building; what one update costs on the way ---- */

static void adopt(struct vv_index *ix, int64_t i)
{
    struct vv_extent x;
    synth_extent(&synth, i, &x);
    must(vv_index_adopt(ix, &x), NULL);
}

static void commit(struct vv_manifest *m, struct vv_index *ix)
{
    struct vv_error e = {0};
    struct vv_manifest_where w = where();
    must(vv_manifest_commit(m, &w, ix, 0, &e), &e);
}

/* A segment's whole way through the index, as an upload and local retention take it. */
static void live(struct vv_index *ix, int64_t i)
{
    struct vv_extent x;
    synth_extent(&synth, i, &x);
    must(vv_index_add_open(ix, x.base, 0, NULL), NULL);
    must(vv_index_seal(ix, &x), NULL);
    for (enum vv_extent_state s = VV_EXTENT_UPLOADING; s <= VV_EXTENT_REMOTE; s++) must(vv_index_move(ix, x.base, s, &x), NULL);
}

/* 256 segments in commits of 16. */
static int64_t sample(struct vv_manifest *m, struct vv_index *ix, int64_t at)
{
    uint64_t puts = store->stats.calls[VV_OBJ_PUT], bytes = store->stats.bytes_put, journal = 0;
    int64_t began = vv_mono_us(&env);
    must(vv_index_sync(ix), NULL); /* what was adopted before is in the journal: live segments append to it */
    uint64_t before = ix->journal.size;
    double sync_s = seconds(began);
    began = vv_mono_us(&env);
    for (int k = 0; k < 16; k++) {
        for (int j = 0; j < 16; j++) live(ix, at++);
        commit(m, ix);
    }
    journal = ix->journal.size > before ? ix->journal.size - before : 0;
    double us = seconds(began) * 1e6 / 256;
    puts = store->stats.calls[VV_OBJ_PUT] - puts;
    bytes = store->stats.bytes_put - bytes;
    printf("%9" PRId64 " segments: %.3f PUTs and %5.1f KiB of manifest a segment (%.1f KiB a commit of 16), %" PRIu64
           " bytes of journal, %.0f us; journal rewritten in %.0f ms\n",
           at, (double)puts / 256, (double)bytes / 1024 / 256, (double)bytes / 1024 / 16, journal / 256, us, sync_s * 1e3);
    NEED(puts <= 16 + 1 + 8, "PUTs of 16 commits: %" PRIu64, puts); /* heads, one page, and at most one of each level above */
    NEED(bytes / 16 < 512 * 1024, "%" PRIu64 " bytes a commit", bytes / 16);
    NEED(journal / 256 < 1024, "%" PRIu64 " bytes of journal a segment", journal / 256);
    return at;
}

static void report_index(struct vv_index *ix)
{
    size_t tree = 0, cached = sizeof(struct vv_page) * VV_PAGE_CACHE;
    for (int k = 0; k < VV_FENCE_TREE_LEVELS; k++) tree += ix->f.up[k].cap * sizeof *ix->f.up[k].max;
    size_t resident = ix->n * sizeof *ix->v + ix->f.n * sizeof *ix->f.v + tree + cached;
    printf("index: %zu KiB resident (%zu extents, %zu fences), %" PRIu64 " KiB journal, %" PRIu64 " KiB pages on disk\n",
           resident / 1024, ix->n, ix->f.n, ix->journal.size / 1024, (uint64_t)ix->slot_top * VV_PAGE_BYTES / 1024);
    NEED(ix->n < 2048, "%zu extents stay in memory", ix->n);
    NEED(resident < (size_t)segments + (1u << 20), "%zu bytes for %" PRId64 " segments", resident, segments); /* a byte each */
}

static void build(void)
{
    struct vv_manifest m = {0};
    struct vv_index *ix;
    int64_t next_sample = 1024, at = 0, began = vv_mono_us(&env);
    open_index(&ix, index_dir);
    while (at < segments) {
        for (int k = 0; k < VV_MANIFEST_FANOUT && at < segments; k++) adopt(ix, at++);
        commit(&m, ix);
        bool last = at + 256 >= segments && at < segments;
        if (at < next_sample && !last) continue;
        at = sample(&m, ix, at);
        next_sample *= 8;
    }
    segments = at;
    must(vv_index_sync(ix), NULL);
    printf("built %" PRId64 " segments (%.1f years), %d levels, in %.1f s\n", segments, (double)segments / 525960,
           m.level[3].n ? 3 : m.level[2].n ? 2 : 1, seconds(began));
    report_index(ix);
    vv_manifest_release(&m);
    vv_index_close(ix);
    malloc_trim(0);
}

/* ---- lookups ---- */

/* The first record at or after from with a time >= ts; -1: none. Nothing before the record's own minute minus three hours can be it. */
static int64_t truth(int64_t ts, int64_t from)
{
    int64_t first = (ts - SYNTH_T0 - SYNTH_EARLY) / SYNTH_MINUTE - 1;
    for (int64_t r = VV_MAX(from, VV_MAX(first, 0) * SYNTH_RECORDS); r < segments * SYNTH_RECORDS; r++)
        if (synth_time(r) >= ts) return r;
    return -1;
}

struct found { bool done; int err; struct vv_time_hit hit; };

static void on_found(void *ctx, int err, const struct vv_time_hit *hit)
{
    struct found *f = ctx;
    f->done = true;
    f->err = err;
    if (!err) f->hit = *hit;
}

/* As ListOffsets does it; returns the record or -1. *most: GETs. */
static int64_t find_time(struct vv_tier_part *p, struct vv_index *ix, int64_t ts, int64_t from, uint64_t *most)
{
    uint64_t before = gets();
    struct vv_extent x;
    struct found f = {.err = VV_E_NOENT};
    while (f.err == VV_E_NOENT && !vv_index_find_time(ix, ts, from, &x)) {
        f.done = false;
        vv_tier_find_time(p, &x, ts, from, on_found, &f);
        NEED(f.done, "the store answers at once");
        from = x.last + 1;
    }
    *most = VV_MAX(*most, gets() - before);
    return f.err ? -1 : f.hit.offset;
}

static void lookups(void)
{
    struct vv_error e = {0};
    struct vv_index *ix;
    struct vv_tier_part *part;
    struct vv_extent x;
    uint64_t most = 0;
    enum { N = 20000, TIMES = 3000 };
    int64_t began = vv_mono_us(&env);
    open_index(&ix, index_dir);
    printf("restart: index open in %.0f ms\n", seconds(began) * 1e3);
    began = vv_mono_us(&env);
    for (int i = 0; i < N; i++) {
        int64_t r = (int64_t)random_below((uint64_t)segments * SYNTH_RECORDS);
        must(vv_index_find(ix, r, &x), NULL);
        NEED(x.base == r / SYNTH_RECORDS * SYNTH_RECORDS, "offset %" PRId64 " in %" PRId64, r, x.base);
    }
    printf("offset -> object: %.1f us\n", seconds(began) * 1e6 / N);
    began = vv_mono_us(&env);
    for (int i = 0; i < N; i++) {
        int64_t ts = SYNTH_T0 + (int64_t)random_below((uint64_t)segments * SYNTH_MINUTE + 4 * SYNTH_EARLY) - SYNTH_EARLY;
        int err = vv_index_find_time(ix, ts, 0, &x);
        int64_t want = truth(ts, 0);
        NEED(err ? want < 0 : x.base == want / SYNTH_RECORDS * SYNTH_RECORDS, "time %" PRId64 ": %" PRId64, ts, want);
    }
    printf("time -> object, the truth found beside it: %.1f us\n", seconds(began) * 1e6 / N);
    struct vv_tier_part_opts o = {.topic_id = synth.topic_id, .topic = synth.topic, .index = ix};
    must(vv_tier_part_open(tier, &o, &part, &e), &e);
    began = vv_mono_us(&env);
    for (int i = 0; i < TIMES; i++) {
        int64_t r = (int64_t)random_below((uint64_t)segments * SYNTH_RECORDS), ts = synth_time(r) + (int64_t)random_below(3) - 1;
        int64_t got = find_time(part, ix, ts, 0, &most), want = truth(ts, 0);
        NEED(got == want, "time %" PRId64 ": record %" PRId64 ", not %" PRId64, ts, got, want);
    }
    printf("time -> record: %.1f us, at most %" PRIu64 " GETs (a footer, a block)\n", seconds(began) * 1e6 / TIMES, most);
    NEED(most <= 2, "%" PRIu64 " GETs", most);
    began = vv_mono_us(&env);
    int64_t best = 0;
    for (int64_t i = VV_MAX(segments - 400, 0); i < segments; i++) {
        struct vv_extent y, z;
        synth_extent(&synth, i, &y);
        synth_extent(&synth, best, &z);
        if (y.max_ts > z.max_ts) best = i;
    }
    for (int i = 0; i < N; i++) must(vv_index_find_max_ts(ix, &x), NULL);
    NEED(x.base == best * SYNTH_RECORDS, "largest time in %" PRId64, x.base);
    printf("largest time -> object: %.1f us\n", seconds(began) * 1e6 / N);
    vv_tier_part_close(part);
    vv_index_close(ix);
    malloc_trim(0);
}

/* ---- back from the bucket ---- */

static void restore(void)
{
    struct vv_error e = {0};
    struct vv_index *ix;
    struct vv_tier_restored r;
    struct vv_extent x;
    struct vv_index_summary s;
    char dir[128];
    snprintf(dir, sizeof dir, "%s/restored", work);
    size_t before = rss_kib();
    uint64_t before_gets = gets();
    must(vv_index_open(&env, dir, NULL, &ix, &e), &e);
    int64_t began = vv_mono_us(&env);
    must(vv_tier_restore_part(tier, synth.topic_id, NULL, 0, ix, &r, &e), &e);
    printf("restore: %.2f s, %" PRIu64 " GETs, %zu KiB more memory at the end\n", seconds(began), gets() - before_gets,
           rss_kib() - VV_MIN(before, rss_kib()));
    NEED(r.next_offset == segments * SYNTH_RECORDS, "next offset %" PRId64, r.next_offset);
    vv_index_summary(ix, &s);
    NEED(s.remote_extents == (uint64_t)segments && s.remote_bytes == (uint64_t)segments * synth.bytes, "%" PRIu64 " extents",
         s.remote_extents);
    for (int i = 0; i < 2000; i++) {
        struct vv_extent want;
        int64_t k = (int64_t)random_below((uint64_t)segments);
        synth_extent(&synth, k, &want);
        must(vv_index_find(ix, want.base + 1, &x), NULL);
        NEED(x.base == want.base && x.last == want.last && x.nonce == want.nonce && x.max_ts == want.max_ts &&
             x.bytes == want.bytes && x.object_bytes == want.object_bytes && x.sealed_ms == want.sealed_ms, "segment %" PRId64, k);
    }
    free(r.epochs);
    free(r.snapshot);
    /* The log start passes nine tenths: three records, whatever the number, and they stay on their pages. */
    int64_t start = segments / 10 * 9 * SYNTH_RECORDS + 1;
    began = vv_mono_us(&env);
    must(vv_index_set_log_start(ix, start), NULL);
    must(vv_index_sweep(ix, start, VV_EXTENT_REMOTE, VV_EXTENT_TOMBSTONED, 1), NULL);
    must(vv_index_sweep(ix, start, VV_EXTENT_TOMBSTONED, VV_EXTENT_DELETING, 0), NULL);
    must(vv_index_find(ix, 0, &x), NULL);
    NEED(x.base <= start && x.last >= start, "the first live one is at %" PRId64, x.base);
    must(vv_index_drop(ix, start), NULL);
    NEED(ix->n < 2048, "%zu extents stay in memory", ix->n);
    printf("log start over nine tenths of it: %.1f ms\n", seconds(began) * 1e3);
    vv_index_close(ix);
    malloc_trim(0);
}

/* ---- without a broker ---- */

static int count_window(void *ctx, const struct vv_scan_batch *b, const struct vv_record *r)
{
    (void)b;
    NEED(r->timestamp == synth_time(r->offset), "record %" PRId64, r->offset);
    ++*(int64_t *)ctx;
    return 0;
}

static void found_damage(void *ctx, const struct vv_error *e)
{
    (void)ctx;
    NEED(!"damage", "%s", e->text);
}

static void windows(struct vv_bucket_log *log)
{
    struct vv_error e = {0};
    int64_t began = vv_mono_us(&env);
    enum { N = 20 };
    for (int i = 0; i < N; i++) {
        struct vv_scan_opts o = VV_SCAN_ALL;
        struct vv_scan *s;
        int64_t k = (int64_t)random_below((uint64_t)segments), got = 0, want = 0;
        o.from = k * SYNTH_RECORDS;
        o.to = o.from + 700 * SYNTH_RECORDS;
        o.from_ts = SYNTH_T0 + (k + 200) * SYNTH_MINUTE;
        for (int64_t r = o.from; r < VV_MIN(o.to, segments * SYNTH_RECORDS); r++) want += synth_time(r) >= o.from_ts;
        must(vv_scan_open(log, &o, &s, &e), &e);
        must(vv_scan_each(s, count_window, &got, &e), &e);
        NEED(got == want, "window at %" PRId64 ": %" PRId64 " records, not %" PRId64, o.from, got, want);
        vv_scan_close(s);
    }
    printf("a window of 700 minutes: %.1f ms\n", seconds(began) * 1e3 / N);
}

static void without_broker(bool verify)
{
    struct vv_error e = {0};
    struct vv_bucket *b;
    struct vv_bucket_topic t = {0};
    struct vv_bucket_log *log;
    struct vv_scan_plan plan;
    struct vv_scan_opts o = VV_SCAN_ALL;
    char id[23];
    vv_uuid_text(synth.topic_id, id);
    must(vv_bucket_attach(store, &(struct vv_bucket_opts){.env = &env}, &b, &e), &e);
    must(vv_bucket_find_topic(b, id, &t, &e), &e);
    int64_t began = vv_mono_us(&env);
    must(vv_bucket_log_open(b, &t, 0, &log, &e), &e);
    printf("reader: open in %.1f ms", seconds(began) * 1e3);
    NEED(vv_bucket_log_info(log)->segments == (uint64_t)segments, "%" PRIu64 " segments", vv_bucket_log_info(log)->segments);
    began = vv_mono_us(&env);
    must(vv_scan_plan(log, &o, &plan, &e), &e);
    NEED(plan.segments == (uint64_t)segments, "plan of %" PRIu64, plan.segments);
    printf(", plan of all of it in %.2f s", seconds(began));
    began = vv_mono_us(&env);
    o.from_ts = SYNTH_T0 + segments / 2 * SYNTH_MINUTE;
    o.to_ts = o.from_ts + 1440 * SYNTH_MINUTE;
    must(vv_scan_plan(log, &o, &plan, &e), &e);
    printf(", of a day by time in %.2f s\n", seconds(began));
    windows(log);
    if (verify) {
        struct vv_verified v;
        began = vv_mono_us(&env);
        must(vv_verify_log(log, found_damage, NULL, &v, &e), &e);
        NEED(v.segments == (uint64_t)segments && v.records == (uint64_t)segments * SYNTH_RECORDS, "%" PRIu64, v.segments);
        printf("verify: %.1f s for every object\n", seconds(began));
    }
    vv_bucket_log_close(log);
    vv_bucket_topic_release(&t);
    vv_bucket_close(b);
}

/* ---- */

static void put_topic(void)
{
    struct vv_error e = {0};
    char key[VV_KEY_MAX], id[23];
    vv_uuid_text(synth.topic_id, id);
    vv_key_topic(synth.topic_id, key);
    json_t *o = json_pack("{s:i,s:s,s:s,s:s}", "format", 1, "topic", synth.topic, "topic_id", id, "cluster_id", cluster);
    char *text = json_dumps(o, 0);
    must(vv_objstore_put_mem(store, key, text, strlen(text), NULL, 60000, NULL, &e), &e);
    free(text);
    json_decref(o);
    for (int64_t i = VV_MAX(segments / 2 - WRITTEN_OUT / 2, 0), n = 0; n < WRITTEN_OUT && i < segments; i++, n++) {
        struct vv_extent x;
        struct vv_segkey k;
        size_t size;
        uint8_t *p = synth_object(&synth, i, &size);
        synth_extent(&synth, i, &x);
        vv_segkey_of(synth.topic_id, 0, &x, &k);
        vv_segkey_format(&k, key);
        must(vv_objstore_put_mem(store, key, p, size, NULL, 60000, NULL, &e), &e);
        free(p);
    }
    uint8_t *p;
    size_t size; /* the newest: a restore reads its footer */
    struct vv_extent x;
    struct vv_segkey k;
    p = synth_object(&synth, segments - 1, &size);
    synth_extent(&synth, segments - 1, &x);
    vv_segkey_of(synth.topic_id, 0, &x, &k);
    vv_segkey_format(&k, key);
    must(vv_objstore_put_mem(store, key, p, size, NULL, 60000, NULL, &e), &e);
    free(p);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st, (void)flag, (void)f;
    return remove(path);
}

int main(int argc, char **argv)
{
    bool verify = false, keep = false, own = true;
    segments = 300000;
    setvbuf(stdout, NULL, _IOLBF, 0);
    VV_ASSERT(vv_uuid_parse("aGlzdG9yeS1vZi15ZWFycw", &synth.topic_id));
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--verify")) verify = true;
        else if (!strcmp(argv[i], "--keep")) keep = true;
        else if (!strcmp(argv[i], "--segments") && (segments = atoll(v)) > 0) i++;
        else if (!strcmp(argv[i], "--dir") && *v) own = false, snprintf(bucket, sizeof bucket, "%s", v), i++;
        else if (!strcmp(argv[i], "--topic") && *v) synth.topic = v, i++;
        else if (!strcmp(argv[i], "--topic-id") && vv_uuid_parse(v, &synth.topic_id)) i++;
        else return fprintf(stderr, "history: what is %s?\n", argv[i]), 2;
    }
    const char *tmp = getenv("TMPDIR");
    snprintf(work, sizeof work, "%.40s/varve-history-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    NEED(mkdtemp(work), "%s", work);
    snprintf(index_dir, sizeof index_dir, "%s/index", work);
    if (own) snprintf(bucket, sizeof bucket, "%s/bucket", work);
    open_bucket(own);
    build();
    put_topic();
    lookups();
    restore();
    without_broker(verify);
    struct vv_error e = {0};
    vv_claim_release(tier);
    vv_tier_free(tier);
    vv_objstore_close(store);
    (void)e;
    if (!keep) nftw(work, remove_one, 32, FTW_DEPTH | FTW_PHYS);
    printf("%" PRId64 " segments passed\n", segments);
    return 0;
}
