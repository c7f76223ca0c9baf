/* sim.c — the seeded simulation of one broker's storage: log, index and tierer over a disk that loses power and a store
 * that lies.
 *
 *   sim --seed N [--steps M] [-v]     one run, replayable to the byte
 *   sim --seeds A-B [--steps M]       many; ends at the first that fails
 *
 * A run is a schedule drawn from the seed: appends and retries, flushes, rolls and seals, tier steps, retention,
 * deletions, clock jumps, faults of disk and store, deaths at any change of either, restarts, and now and then the loss
 * of the disk. After every step the model of what was appended is compared with what is there; at the end everything
 * must come to rest. Every 50th seed runs twice and must do the same twice. One thread. */
#include "world.h"
#include "varve/vlog.h"

#include <signal.h>
#include <unistd.h>

/* ---- the steps ---- */

static struct sim_part *any_part(struct world *w)
{
    return &w->part[sim_below(w, (uint64_t)w->parts)];
}

static void do_append(struct world *w)
{
    struct sim_part *p = any_part(w);
    for (uint64_t n = 1 + sim_below(w, 6); n && !world_dead(w); n--) part_append(w, p);
}

static void do_retry(struct world *w)
{
    part_retry(w, any_part(w));
}

static void do_gap(struct world *w)
{
    part_bad_sequence(w, any_part(w));
}

static void do_flush(struct world *w)
{
    struct sim_part *p = any_part(w);
    int err = vv_log_flush(p->log);
    sim_say(w, "flush %d", p->id);
    if (!world_ok(w, err, "flush", NULL)) return;
    SIM_CHECK(vv_log_flushed(p->log) >= p->end, "partition %d: flushed to %" PRId64 " of %" PRId64, p->id,
              vv_log_flushed(p->log), p->end);
    p->acked = p->end;
}

static void kick(struct sim_part *p)
{
    if (p->tier) vv_tier_part_kick(p->tier);
}

static void do_roll(struct world *w)
{
    struct sim_part *p = any_part(w);
    sim_say(w, "roll %d", p->id);
    world_ok(w, vv_log_roll(p->log), "roll", NULL);
}

static void do_seal(struct world *w)
{
    struct sim_part *p = any_part(w);
    sim_say(w, "seal %d", p->id);
    world_ok(w, vv_log_seal_pending(p->log), "seal", NULL);
    kick(p);
}

static void do_tier(struct world *w)
{
    if (!w->tier) return;
    for (uint64_t n = 1 + sim_below(w, 8), i = 0; i < n && !world_dead(w); i++)
        if (!vv_tier_step(w->tier)) break;
    struct vv_tier_stats s;
    vv_tier_stats(w->tier, &s);
    sim_say(w, "tier: %" PRIu64 " uploads, %" PRIu64 " errors, %" PRIu64 " deletes", s.uploads, s.upload_errors,
            s.deletes);
    SIM_CHECK(!atomic_load(&w->tier->fenced), "the tier thinks that another writer took over");
}

static void do_hurry(struct world *w)
{
    sim_say(w, "hurry");
    if (w->tier) vv_tier_hurry(w->tier);
}

static void do_open_tier(struct world *w)
{
    world_try_tier(w);
}

/* Local retention: the oldest that has a proven copy, or any. */
static void do_drop_local(struct world *w)
{
    struct sim_part *p = any_part(w);
    struct vv_extent x;
    int64_t from = p->end > 0 && sim_percent(w, 30) ? (int64_t)sim_below(w, (uint64_t)p->end) : 0;
    if (!p->tier || vv_index_find_state(p->index, VV_EXTENT_BOTH, from, &x)) return;
    vv_extent_release(p->index, &x);
    sim_say(w, "drop local %d: %" PRId64 "..%" PRId64, p->id, x.base, x.last);
    world_ok(w, vv_tier_part_drop_local(p->tier, x.base), "drop local", NULL);
}

static void move_start(struct world *w, struct sim_part *p, int64_t to)
{
    if (to <= p->log_start) return;
    sim_say(w, "log start %d: %" PRId64 " -> %" PRId64, p->id, p->log_start, to);
    p->log_start_asked = VV_MAX(p->log_start_asked, to);
    if (!world_ok(w, vv_index_set_log_start(p->index, to), "log start", NULL)) return;
    p->log_start = to;
    if (p->tier) vv_tier_part_log_start_moved(p->tier);
}

static void do_retention(struct world *w)
{
    struct sim_part *p = any_part(w);
    struct vv_extent x;
    int64_t to = p->log_start;
    for (uint64_t n = 1 + sim_below(w, 3); n; n--) {
        if (vv_index_find(p->index, to, &x)) break;
        vv_extent_release(p->index, &x);
        if (x.state == VV_EXTENT_OPEN) break;
        to = x.last + 1;
    }
    move_start(w, p, to);
}

static void do_delete_records(struct world *w)
{
    struct sim_part *p = any_part(w);
    int64_t top = sim_percent(w, 80) ? p->acked : p->end, to = p->log_start;
    if (top <= to) return;
    uint64_t reach = sim_percent(w, 10) ? (uint64_t)(top - to) : (uint64_t)VV_MIN(top - to, (int64_t)40);
    move_start(w, p, to + 1 + (int64_t)sim_below(w, reach));
}

static void do_time(struct world *w)
{
    vv_clock_sim_advance(&w->clock, 1 + (int64_t)sim_below(w, sim_percent(w, 20) ? 60000 : 3000));
}

static void do_jump(struct world *w)
{
    int64_t ms = (int64_t)sim_below(w, sim_percent(w, 20) ? 200000000 : 100000) * (sim_percent(w, 50) ? 1 : -1);
    sim_say(w, "the clock jumps by %" PRId64 " s", ms / 1000);
    vv_clock_sim_jump(&w->clock, ms);
}

static void do_read(struct world *w)
{
    struct sim_part *p = any_part(w);
    if (p->log_start >= p->end) return;
    part_read(w, p, p->log_start + (int64_t)sim_below(w, (uint64_t)(p->end - p->log_start)));
}

static void do_read_remote(struct world *w)
{
    struct sim_part *p = any_part(w);
    if (p->log_start >= p->proven || !p->tier) return;
    part_read_remote(w, p, p->log_start + (int64_t)sim_below(w, (uint64_t)(p->proven - p->log_start)),
                     1 + (int)sim_below(w, 10));
}

static void do_find_time(struct world *w)
{
    part_find_time(w, any_part(w));
}

static void do_check(struct world *w)
{
    part_check(w, any_part(w), true);
}

/* ---- faults and deaths ---- */

static void do_store_fault(struct world *w)
{
    static const int errors[] = {VV_E_AGAIN, VV_E_TIMEOUT, VV_E_ACCESS};
    static const int ops[] = {VV_OBJ_GET, VV_OBJ_GET_ASYNC, VV_OBJ_HEAD, VV_OBJ_PUT, VV_OBJ_DELETE, VV_OBJ_LIST, -1};
    struct vv_objfault_rule r = {.op = ops[sim_below(w, VV_COUNT(ops))],
                                 .from = 1 + (unsigned)sim_below(w, 3),
                                 .count = 1 + (unsigned)sim_below(w, 4),
                                 .err = errors[sim_below(w, VV_COUNT(errors))]};
    static const enum vv_objfault_action lies[] = {VV_FAULT_LIST_STALE, VV_FAULT_LIST_MISSING, VV_FAULT_LIST_EXTRA,
                                                   VV_FAULT_LIST_ENDLESS};
    switch (sim_below(w, 10)) {
    case 0: r.action = VV_FAULT_FAIL; break;
    case 1: r.action = VV_FAULT_FAIL, r.op = -1, r.count = 0, r.percent = 1 + (unsigned)sim_below(w, 40); break;
    case 2: r.action = VV_FAULT_FAIL, r.op = -1, r.count = 0; break; /* away */
    case 3:
    case 4: r.action = VV_FAULT_LOSE_REPLY, r.err = 0; break;
    case 5: r.action = VV_FAULT_DROP_WRITE, r.op = VV_OBJ_PUT, r.key_part = ".seg"; break;
    case 6: r.action = VV_FAULT_TRUNCATE, r.op = VV_OBJ_PUT, r.key_part = ".seg"; break;
    case 7:
        r.action = sim_percent(w, 50) ? VV_FAULT_TRUNCATE : VV_FAULT_FLIP, r.key_part = ".seg", r.arg = -1;
        r.op = sim_percent(w, 50) ? VV_OBJ_GET : VV_OBJ_GET_ASYNC;
        break;
    case 8: /* whoever restores starts with a store of its own, which does not lie: what it leaves out would be lost */
        r.action = lies[sim_below(w, VV_COUNT(lies))], r.op = VV_OBJ_LIST, r.err = 0, r.from = 1;
        if (sim_percent(w, 50)) r.count = 0;
        break;
    default: /* only the full check finds a byte that the store changed */
        if (!w->tier_config.verify_full) return;
        r.action = VV_FAULT_FLIP, r.op = VV_OBJ_PUT, r.key_part = ".seg", r.arg = -1;
        w->wrote_bad = true;
    }
    if (r.action == VV_FAULT_TRUNCATE) r.arg = 0;
    sim_say(w, "store fault: action %d on op %d from %u count %u %u%% %s", (int)r.action, r.op, r.from, r.count,
            r.percent, r.err ? vv_err_name(r.err) : "");
    vv_objfault_add(w->store, &r);
    w->store_bad = true;
}

static void do_store_well(struct world *w)
{
    sim_say(w, "the store is well");
    vv_objfault_clear(w->store);
    world_store_well(w);
}

static void do_disk_fault(struct world *w)
{
    static const unsigned ops[] = {VV_FSOP_PWRITE, VV_FSOP_DATASYNC, VV_FSOP_RENAME, VV_FSOP_SYNC_DIR,
                                   VV_FSOP_OPEN,   VV_FSOP_CHANGE,   VV_FSOP_PREAD};
    struct vv_fsfault_rule r = {.ops = ops[sim_below(w, VV_COUNT(ops))],
                                .from = 1 + (unsigned)sim_below(w, 5),
                                .count = 1,
                                .action = (enum vv_fsfault_action)sim_below(w, 3)};
    if (r.ops == VV_FSOP_PREAD && r.action == VV_FSFAULT_HALF)
        r.action = VV_FSFAULT_FAIL; /* a disk that lies about ends is not a disk */
    sim_say(w, "disk fault: ops %x from %u action %d", r.ops, r.from, (int)r.action);
    vv_fs_fault_add(w->fault, &r);
    w->excused = true;
}

static void do_full_disk(struct world *w)
{
    if (w->excused) {
        sim_say(w, "room on the disk");
        vv_fs_mem_capacity(w->disk, 0);
        return;
    }
    sim_say(w, "the disk is full soon");
    vv_fs_mem_capacity(w->disk, vv_fs_mem_used(w->disk) + sim_below(w, 20000));
    w->excused = true;
}

static enum sim_death any_death(struct world *w)
{
    return sim_percent(w, 65) ? SIM_POWER : SIM_KILL;
}

static void restart(struct world *w, enum sim_death how)
{
    world_down(w, how);
    world_up(w);
}

static void do_die(struct world *w)
{
    restart(w, any_death(w));
}

/* Dies in the middle of some change of what comes next. */
static void do_arm(struct world *w)
{
    uint64_t n = 1 + sim_below(w, 60);
    w->death = any_death(w);
    sim_say(w, "a death is near: change %" PRIu64, n);
    world_arm(w, n);
}

static void do_clean_stop(struct world *w)
{
    restart(w, SIM_CLEAN);
}

/* An object that the store changed and nobody has verified yet is all that is left of its records when the disk goes:
 * the restore takes it (its footer is right), readers get CORRUPT. The model does not follow there. */
static bool bad_object_may_count(struct world *w)
{
    struct vv_extent x;
    for (int i = 0; i < w->parts && w->wrote_bad; i++) {
        if (vv_index_find_state(w->part[i].index, VV_EXTENT_UPLOADING, 0, &x)) continue;
        vv_extent_release(w->part[i].index, &x);
        return true;
    }
    return false;
}

static void do_lose_disk(struct world *w)
{
    if (!sim_percent(w, 25) || bad_object_may_count(w)) return;
    for (int i = 0; i < w->parts; i++) part_check(w, &w->part[i], false); /* what is proven at this moment */
    world_down(w, SIM_KILL);
    world_lose_disk(w);
    world_up(w);
}

static const struct {
    unsigned weight;
    void (*run)(struct world *w);
} steps[] = {
    {40, do_append},      {8, do_retry},          {2, do_gap},   {14, do_flush},      {4, do_roll},
    {12, do_seal},        {30, do_tier},          {5, do_hurry}, {2, do_open_tier},   {6, do_drop_local},
    {2, do_retention},    {2, do_delete_records}, {10, do_time}, {1, do_jump},        {10, do_read},
    {10, do_read_remote}, {6, do_find_time},      {3, do_check}, {3, do_store_fault}, {3, do_store_well},
    {1, do_disk_fault},   {1, do_full_disk},      {1, do_die},   {3, do_arm},         {1, do_clean_stop},
    {1, do_lose_disk},
};

static void one_step(struct world *w)
{
    unsigned sum = 0;
    for (size_t i = 0; i < VV_COUNT(steps); i++) sum += steps[i].weight;
    unsigned at = (unsigned)sim_below(w, sum);
    size_t i = 0;
    for (; at >= steps[i].weight; i++) at -= steps[i].weight;
    steps[i].run(w);
    bool offline = false;
    for (int k = 0; k < w->parts && !world_dead(w); k++) offline |= vv_log_offline(w->part[k].log);
    if (offline) w->death = any_death(w);
    if (world_dead(w) || (offline && sim_percent(w, 50))) restart(w, w->death);
    if (!offline && !world_dead(w)) part_check(w, any_part(w), false);
    if (world_dead(w)) restart(w, w->death); /* reads do not change anything, but a cut may wait for the next open */
}

/* ---- runs ---- */

static uint64_t run(uint64_t seed, int count, bool verbose)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w) exit(2);
    sim_world = w;
    w->verbose = verbose;
    w->steps = count;
    world_init(w, seed);
    w->death = SIM_KILL;
    world_up(w);
    for (w->step = 1; w->step <= count; w->step++) one_step(w);
    quiet_end(w);
    if (verbose)
        printf("seed %" PRIu64 ": %" PRIu64 " restarts, %" PRIu64 " restores, %" PRIu64
               " batches lost unacknowledged, trace %016" PRIx64 "\n",
               seed, w->deaths, w->restores, w->lost_batches, w->trace);
    uint64_t trace = w->trace;
    world_free(w);
    free(w);
    sim_world = NULL;
    return trace;
}

static void last_words(int sig)
{
    char line[160];
    int n = sim_world ? snprintf(line, sizeof line,
                                 "signal %d in seed %" PRIu64 ", step %d\nreplay: build/sim --seed %" PRIu64
                                 " --steps %d -v\n",
                                 sig, sim_world->seed, sim_world->step, sim_world->seed, sim_world->steps)
                      : 0;
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0) n = 0;
    signal(sig, SIG_DFL);
    raise(sig);
}

static int usage(void)
{
    fprintf(stderr, "usage: sim --seed N | --seeds A-B  [--steps M] [-v]\n");
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t from = 1, to = 1;
    int count = 400;
    bool verbose = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "-v")) {
            verbose = true;
            continue;
        }
        i++;
        if (value && !strcmp(argv[i - 1], "--seed")) from = to = strtoull(value, NULL, 10);
        else if (value && !strcmp(argv[i - 1], "--steps")) count = atoi(value);
        else if (!value || strcmp(argv[i - 1], "--seeds") || sscanf(value, "%" SCNu64 "-%" SCNu64, &from, &to) != 2)
            return usage();
    }
    if (verbose) setvbuf(stdout, NULL, _IOLBF, 0); /* in step with the log on stderr */
    if (!verbose) vlog_level = (enum vv_level)(VV_ERROR + 1);
    signal(SIGABRT, last_words);
    signal(SIGSEGV, last_words);
    for (uint64_t seed = from; seed <= to; seed++) {
        uint64_t trace = run(seed, count, verbose);
        if (seed % 50) continue;
        uint64_t again = run(seed, count, false);
        if (again == trace) continue;
        fprintf(stderr, "seed %" PRIu64 " did not do the same twice\n", seed);
        return 1;
    }
    printf("%" PRIu64 " seeds of %d steps passed\n", to - from + 1, count);
    return 0;
}
