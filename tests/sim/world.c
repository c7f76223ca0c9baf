/* world.c — putting the parts together, taking them down, and dying. See world.h. */
#include "world.h"
#include "varve/vlog.h"

#include <stdarg.h>

struct world *sim_world;

void sim_fail(const char *fmt, ...)
{
    struct world *w = sim_world;
    va_list ap;
    fflush(stdout);
    fprintf(stderr, "seed %" PRIu64 ", step %d: ", w->seed, w->step);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nreplay: build/sim --seed %" PRIu64 " --steps %d -v\n", w->seed, w->steps);
    exit(1);
}

void sim_say(struct world *w, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    for (const char *c = line; *c; c++) w->trace = (w->trace ^ (uint8_t)*c) * 0x100000001b3u;
    if (w->verbose) printf("%4d %s\n", w->step, line);
}

uint64_t sim_below(struct world *w, uint64_t n)
{
    return vv_rand_below(&w->rand, n);
}

bool sim_percent(struct world *w, unsigned percent)
{
    return vv_rand_percent(&w->rand, percent);
}

/* ---- making ---- */

static void make_disk(struct world *w)
{
    w->disk = vv_fs_mem_new(&w->clock);
    w->fault = vv_fs_fault_new(&vv_fs_mem_ops, w->disk);
    w->env = (struct vv_env){.fs_ops = &vv_fs_fault_ops,
                             .fs = w->fault,
                             .clock_ops = &vv_clock_sim_ops,
                             .clock = &w->clock,
                             .random_ops = &vv_random_seeded_ops,
                             .random = &w->random};
}

void world_init(struct world *w, uint64_t seed)
{
    struct vv_error e = {0};
    static const char keys[] = "sim AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
    struct vv_objstore_config sc = {.inline_async = true, .keys_file = SIM_KEYS};
    w->seed = seed;
    w->next_producer = 1000;
    vv_rand_seed(&w->rand, seed);
    vv_clock_sim_init(&w->clock, 1700000000000);
    vv_random_seeded_init(&w->random, seed ^ 0x5eed);
    make_disk(w);
    w->bucket = vv_fs_mem_new(&w->clock);
    w->bucket_env = w->env;
    w->bucket_env.fs_ops = &vv_fs_mem_ops;
    w->bucket_env.fs = w->bucket;
    if (vv_fs_write_file(&w->bucket_env, SIM_KEYS, keys, sizeof keys - 1)) sim_fail("keys");
    memset(w->topic_id.b, 7, 16);
    w->id = (struct vv_tier_identity){.cluster_id = "simulated", .node_id = 1, .data_dir = "/data"};
    w->tier_config = (struct vv_tier_config){.delete_grace_ms = sim_percent(w, 50) ? 30000 : 3000,
                                             .verify_full = sim_percent(w, 50),
                                             .compress = seed & 1, /* not drawn: older seeds keep their schedules */
                                             .encrypt = seed & 2,
                                             .manifest_interval_ms = 10000,
                                             .gc_interval_ms = sim_percent(w, 70) ? 7000 : 0,
                                             .gc_age_ms = 20000,
                                             .merge_segments_min = sim_percent(w, 60) ? 2 + (int)sim_below(w, 4) : 0,
                                             .merge_bytes_max = (uint64_t)8192 << sim_below(w, 5),
                                             .merge_age_ms = 1000,
                                             .manifest_batch = 1 + (int)sim_below(w, 6),
                                             .chunk_bytes = (size_t)2048 << sim_below(w, 6),
                                             .cache_bytes_max = (size_t)32768 << sim_below(w, 8),
                                             .readahead_chunks = 1 + (int)sim_below(w, 4)};
    w->log_config = (struct vv_log_config){.segment_bytes = sim_percent(w, 10) ? 700 : 4096 << sim_below(w, 4),
                                           .segment_ms = 3600000,
                                           .segment_index_bytes = 1 << 20,
                                           .index_interval_bytes = 1 << (8 + sim_below(w, 5)),
                                           .flush_messages = INT64_MAX,
                                           .flush_ms = INT64_MAX,
                                           .producer_expiry_ms = INT64_MAX / 2};
    w->parts = 1 + (int)sim_below(w, SIM_PARTS);
    for (int i = 0; i < w->parts; i++) {
        struct sim_part *p = &w->part[i];
        p->id = i;
        snprintf(p->dir, sizeof p->dir, "/data/sim-%d", i);
        for (int k = 0; k < SIM_PRODUCERS; k++) p->producer[k].id = w->next_producer++;
    }
    if (vv_objstore_open("fs:/bucket", &sc, &w->bucket_env, &w->checker, &e)) sim_fail("bucket: %s", e.text);
    sim_say(w, "%d partitions, segments of %lld, verify %s%s%s", w->parts, (long long)w->log_config.segment_bytes,
            w->tier_config.verify_full ? "full" : "footer", w->tier_config.compress ? ", compressed" : "",
            w->tier_config.encrypt ? ", encrypted" : "");
}

void world_free(struct world *w)
{
    vv_objstore_close(w->checker);
    vv_fs_fault_free(w->fault);
    vv_fs_mem_free(w->disk);
    vv_fs_mem_free(w->bucket);
    for (int i = 0; i < w->parts; i++) part_free_model(&w->part[i]);
}

/* ---- faults ---- */

static void both_off(void *ctx)
{
    struct world *w = ctx;
    vv_fs_mem_power(w->disk, false); /* the one that called has gone already */
    vv_fs_mem_power(w->bucket, false);
}

void world_arm(struct world *w, uint64_t changes)
{
    vv_fs_mem_cut_after(w->disk, changes, both_off, w);
    vv_fs_mem_cut_after(w->bucket, changes, both_off, w);
}

bool world_dead(struct world *w)
{
    return !vv_fs_mem_is_on(w->disk) || !vv_fs_mem_is_on(w->bucket);
}

void world_store_well(struct world *w)
{
    if (w->store_bad) w->store_bad_until_ms = vv_mono_ms(&w->env) + 5000;
    w->store_bad = false;
}

void world_clear_faults(struct world *w)
{
    if (w->store) vv_objfault_clear(w->store);
    world_store_well(w);
    vv_fs_fault_clear(w->fault);
    vv_fs_mem_capacity(w->disk, 0);
    world_arm(w, 0);
}

bool world_ok(struct world *w, int err, const char *what, const char *why)
{
    if (!err) return true;
    sim_say(w, "  %s: %s %s", what, vv_err_name(err), why ? why : "");
    SIM_CHECK(world_dead(w) || w->excused, "%s: %s %s", what, vv_err_name(err), why ? why : "");
    return false;
}

/* ---- up ---- */

static int64_t upload_limit(void *ctx)
{
    struct sim_part *p = ctx;
    return vv_log_flushed(p->log);
}

static int32_t leader_epoch(void *ctx)
{
    struct sim_part *p = ctx;
    return vv_log_epoch(p->log);
}

static int open_tier_part(struct world *w, struct sim_part *p, struct vv_error *e)
{
    struct vv_tier_part_opts o = {.topic_id = w->topic_id,
                                  .topic = "sim",
                                  .partition = p->id,
                                  .log = p->log,
                                  .index = p->index,
                                  .upload_limit = upload_limit,
                                  .leader_epoch = leader_epoch,
                                  .ctx = p};
    return vv_tier_part_open(w->tier, &o, &p->tier, e);
}

static int open_tier(struct world *w, struct vv_error *e)
{
    int err = vv_tier_open(&w->env, w->store, &w->tier_config, &w->id, w->part[0].restore, &w->tier, e);
    SIM_CHECK(err != VV_E_CONFLICT, "our own claim is refused: %s", e->text);
    return err;
}

bool world_try_tier(struct world *w)
{
    struct vv_error e = {0};
    if (w->tier) return true;
    if (open_tier(w, &e)) {
        sim_say(w, "  no tier: %s", e.text);
        return false;
    }
    for (int i = 0; i < w->parts; i++) world_ok(w, open_tier_part(w, &w->part[i], &e), "tier part", e.text);
    return true;
}

static int open_part(struct world *w, struct sim_part *p, enum sim_death how, struct vv_error *e)
{
    struct vv_tier_restored r = {0};
    int err = vv_index_open(&w->env, p->dir, &vv_segment_refs, &p->index, e);
    if (!err && p->restore) err = vv_tier_restore_part(w->tier, w->topic_id, "sim", p->id, p->index, &r, e);
    struct vv_log_opts o = {.env = &w->env,
                            .dir = p->dir,
                            .topic = "sim",
                            .partition = p->id,
                            .topic_id = w->topic_id,
                            .index = p->index,
                            .config = w->log_config,
                            .clean = w->clean,
                            .start_offset = r.next_offset,
                            .now_ms = vv_wall_ms(&w->env),
                            .ctx = p};
    if (!err) err = vv_log_open(&o, &p->log, e);
    if (!err && r.epoch_count) err = vv_log_set_epochs(p->log, r.epochs, r.epoch_count);
    if (!err && r.snapshot_n) err = vv_log_load_snapshot(p->log, r.snapshot, r.snapshot_n, r.next_offset);
    free(r.epochs);
    free(r.snapshot);
    int32_t latest = err ? 0 : vv_log_epoch(p->log);
    bool broken = !w->clean || p->restore;
    if (!err && (latest < 0 || broken)) err = vv_log_begin_epoch(p->log, broken ? VV_MAX(latest, 0) + 1 : 0);
    if (!err && broken) err = vv_fs_sync_parent(&w->env, p->dir);
    if (err) return err;
    if (p->restore) part_restored(w, p, r.log_start, r.next_offset);
    else part_came_back(w, p, how);
    return VV_OK;
}

/* One try. False: something of it failed, by a death or an excuse. */
static bool try_up(struct world *w, enum sim_death how)
{
    struct vv_error e = {0};
    struct vv_objstore_config sc = {.inline_async = true, .keys_file = SIM_KEYS};
    struct vv_objstore *inner;
    bool restore = w->part[0].restore;
    if (!world_ok(w, vv_fs_mkdirs(&w->env, "/data"), "mkdir", NULL)) return false;
    if (!world_ok(w, vv_fs_sync_parent(&w->env, "/data"), "sync", NULL)) return false;
    if (!world_ok(w, vv_objstore_open("fs:/bucket", &sc, &w->bucket_env, &inner, &e), "store", e.text)) return false;
    if (vv_objfault_open(inner, w->seed ^ w->deaths, &w->store)) sim_fail("out of memory");
    int err = open_tier(w, &e);
    if (err && !world_ok(w, err, "tier", e.text)) return false;
    for (int i = 0; i < w->parts; i++)
        if (!world_ok(w, open_part(w, &w->part[i], how, &e), "opening a partition", e.text)) return false;
    for (int i = 0; i < w->parts; i++)
        if (!world_ok(w, open_tier_part(w, &w->part[i], &e), "tier part", e.text)) return false;
    for (int i = 0; i < w->parts; i++) {
        w->part[i].restore = false;
        part_check(w, &w->part[i], true);
    }
    w->restores += restore;
    return true;
}

void world_up(struct world *w)
{
    enum sim_death how = w->death;
    for (int tries = 0; !w->up; tries++) {
        w->excused = false;
        if (tries < 3 && sim_percent(w, 15)) { /* dying while recovering */
            w->death = sim_percent(w, 50) ? SIM_POWER : SIM_KILL;
            world_arm(w, 1 + sim_below(w, 40));
        } else if (tries < 3 && sim_percent(w, 5)) {
            w->excused = true;
            vv_fs_fault_add(w->fault, &(struct vv_fsfault_rule){.from = 1 + (unsigned)sim_below(w, 60), .count = 1});
        }
        w->up = try_up(w, how);
        bool dead = world_dead(w);
        vv_fs_fault_clear(w->fault);
        world_arm(w, 0);
        if (w->up && !dead) break;
        SIM_CHECK(tries < 5, "does not come up again");
        w->up = true;
        enum sim_death again = dead ? w->death : SIM_KILL;
        world_down(w, again);
        if (again == SIM_POWER) how = SIM_POWER;
        if (w->part[0].restore) world_lose_disk(w); /* a restore cut short begins from nothing */
    }
    w->excused = false;
    sim_say(w, "up");
}

/* ---- down ---- */

static void close_parts(struct world *w, bool clean)
{
    for (int i = 0; i < w->parts; i++) {
        struct sim_part *p = &w->part[i];
        if (p->tier) vv_tier_part_close(p->tier);
        p->tier = NULL;
    }
    if (w->tier && clean) vv_tier_stop(w->tier, 1000);
    vv_tier_free(w->tier);
    w->tier = NULL;
    for (int i = 0; i < w->parts; i++) {
        struct sim_part *p = &w->part[i];
        if (p->log && clean) w->clean &= world_ok(w, vv_log_close(p->log), "close", NULL);
        else if (p->log) vv_log_abandon(p->log);
        p->log = NULL;
        vv_index_close(p->index);
        p->index = NULL;
    }
    vv_objstore_close(w->store);
    w->store = NULL;
    w->store_bad = false;
    w->store_bad_until_ms = 0;
}

void world_down(struct world *w, enum sim_death how)
{
    static const char *const names[] = {"clean stop", "kill", "power cut"};
    sim_say(w, "%s", names[how]);
    w->clean = how == SIM_CLEAN;
    if (how != SIM_CLEAN) {
        both_off(w);
        if (w->store) vv_objstore_interrupt(w->store);
    }
    close_parts(w, how == SIM_CLEAN);
    if (how == SIM_CLEAN && world_dead(w)) { /* died while stopping */
        how = w->death;
        w->clean = false;
        both_off(w);
    }
    w->deaths++;
    vv_fs_fault_clear(w->fault);
    vv_fs_mem_capacity(w->disk, 0);
    if (how == SIM_POWER) vv_fs_mem_crash(w->disk, sim_below(w, UINT64_MAX));
    vv_fs_mem_power(w->disk, true);
    vv_fs_mem_power(w->bucket, true);
    world_arm(w, 0);
    SIM_CHECK(!vv_fs_mem_open_files(w->disk), "%zu files are still open", vv_fs_mem_open_files(w->disk));
    SIM_CHECK(!vv_fs_mem_open_files(w->bucket), "%zu files of the bucket are still open",
              vv_fs_mem_open_files(w->bucket));
    w->death = how;
    w->up = false;
}

void world_lose_disk(struct world *w)
{
    sim_say(w, "the disk is lost");
    vv_fs_fault_free(w->fault);
    vv_fs_mem_free(w->disk);
    make_disk(w);
    w->clean = false;
    w->disk_lost = true;
    for (int i = 0; i < w->parts; i++) w->part[i].restore = true;
}
