/* world.h — the simulator's world: one broker's storage (log, index, tierer) over a disk, a bucket, a clock and chance
 * that a seed decides, and the model of what was appended to it. One thread. A broken invariant ends the process
 * with the seed and the command that replays it. */
#ifndef VARVE_TESTS_SIM_WORLD_H
#define VARVE_TESTS_SIM_WORLD_H
#include "env_sim.h"
#include "tier_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIM_KEYS "/keys" /* beside the bucket */
#define SIM_PARTS 3
#define SIM_PRODUCERS 4
#define SIM_RECORDS 8 /* at most, per batch */
#define SIM_KEPT 5    /* batches per producer that a retry may name */

struct sim_batch {
    int64_t base, last, producer;
    int32_t sequence, records;
    int16_t epoch;
    int64_t ts[SIM_RECORDS], max_ts;
    uint8_t *p; /* as appended */
    size_t n;
};
struct sim_producer { int64_t id; int16_t epoch; int32_t next; /* sequence */ };

struct sim_part {
    int32_t id;
    char dir[32];
    struct vv_index *index;
    struct vv_log *log;
    struct vv_tier_part *tier;
    /* the model */
    struct sim_batch *v; /* ascending; all that was ever appended and not lost, also below the log start */
    size_t n, cap;
    struct sim_batch maybe; /* an append that failed in a way that may have reached the disk; p NULL = none */
    int64_t end, acked;     /* acked: a flush said so */
    int64_t log_start, log_start_asked; /* asked: a move was begun that may not have become durable */
    int64_t proven;         /* offsets below are in the bucket, by the index */
    size_t reopened_at;     /* batches from here on were appended in this life */
    struct sim_producer producer[SIM_PRODUCERS];
    bool restore;           /* the directory is to be filled from the bucket */
};

enum sim_death { SIM_CLEAN, SIM_KILL, SIM_POWER };

struct world {
    uint64_t seed;
    struct vv_rand rand;
    struct vv_clock_sim clock;
    struct vv_random_seeded random;
    struct vv_fs_mem *disk, *bucket;
    struct vv_fs_fault *fault; /* over disk */
    struct vv_env env, bucket_env;
    struct vv_objstore *store;   /* the broker's: faults over the directory */
    struct vv_objstore *checker; /* nobody lies to us */
    struct vv_tier *tier;
    struct vv_tier_config tier_config;
    struct vv_tier_identity id;
    struct vv_log_config log_config;
    struct vv_uuid topic_id;
    struct sim_part part[SIM_PARTS];
    int parts;
    int64_t next_producer;
    int step, steps;
    bool verbose, clean, up;
    bool excused;     /* disk faults or a full disk in this life: calls may fail */
    bool disk_lost;   /* once: the bucket may hold leftovers that nobody remembers */
    bool store_bad;   /* faults of the store are on */
    int64_t store_bad_until_ms; /* monotonic: a reader remembers failures for a while */
    bool wrote_bad;   /* the store was told to keep other bytes than were put */
    enum sim_death death; /* what an armed cut is */
    uint64_t trace;   /* of everything that happened, to compare two runs */
    uint64_t deaths, lost_batches, restores;
};

extern struct world *sim_world; /* the one that runs; for the last words */
void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void sim_say(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* -v, and into the trace */
#define SIM_CHECK(c, ...) do { if (!(c)) sim_fail(__VA_ARGS__); } while (0)
uint64_t sim_below(struct world *w, uint64_t n);
bool sim_percent(struct world *w, unsigned percent);

/* world.c: life and death. up: opens everything, again and again until it survives, and checks what came back. */
void world_init(struct world *w, uint64_t seed);
void world_up(struct world *w);
void world_down(struct world *w, enum sim_death how);
void world_lose_disk(struct world *w); /* while down */
void world_free(struct world *w);
bool world_dead(struct world *w);       /* the power went in the middle of something */
bool world_try_tier(struct world *w);   /* opens the tier and its parts if it is not */
/* An error that nothing excuses ends the run. Returns true when err is 0. */
bool world_ok(struct world *w, int err, const char *what, const char *why);
void world_clear_faults(struct world *w);
void world_store_well(struct world *w); /* its faults are off from now on */
/* a death of kind w->death in the middle of this change of disk or bucket */
void world_arm(struct world *w, uint64_t changes);
size_t part_lower(struct sim_part *p, int64_t offset); /* index of the first batch whose last >= offset */
/* the batch that holds offset or the next one; NULL */
struct sim_batch *part_batch_at(struct sim_part *p, int64_t offset);

/* model.c: appends, and what a recovery brings back. reads.c: comparing what is there with what should be. */
void part_append(struct world *w, struct sim_part *p);
void part_retry(struct world *w, struct sim_part *p);
void part_bad_sequence(struct world *w, struct sim_part *p);
/* after recovery: what was lost, was that allowed? */
void part_came_back(struct world *w, struct sim_part *p, enum sim_death how);
void part_restored(struct world *w, struct sim_part *p, int64_t log_start, int64_t next_offset);
void part_read(struct world *w, struct sim_part *p, int64_t offset);
void part_read_remote(struct world *w, struct sim_part *p, int64_t offset, int times); /* through the tier's reader */
void part_find_time(struct world *w, struct sim_part *p);
void part_check(struct world *w, struct sim_part *p, bool deep); /* deep: every byte, local and in the bucket */
void part_free_model(struct sim_part *p);

/* quiet.c: faults off, steps until idle; then nothing may be left over, and the bucket alone must tell the story. */
void quiet_end(struct world *w);
#endif
