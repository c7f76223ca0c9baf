/* env_sim.h — the environment of tests and of the simulator: a disk, a clock and chance that a seed decides.
 *
 * fs_mem: a file system in memory that knows what a power cut takes: bytes written and not synced, entries of a
 *   directory made, renamed or removed and not synced. fs_fault: a wrapper that fails chosen calls of any file system.
 * clock_sim: wall and monotonic clock move only when told. random_seeded: the same bytes for the same seed.
 * The same seed and the same calls give the same world. Any thread may call anything (a mutex inside each). */
#ifndef VARVE_ENV_SIM_H
#define VARVE_ENV_SIM_H
#include "varve/env.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- chance: xoshiro256**, seeded with splitmix64; a plain generator has no lock, one owner ---- */
struct vv_rand { uint64_t s[4]; };
void vv_rand_seed(struct vv_rand *r, uint64_t seed);
uint64_t vv_rand_next(struct vv_rand *r);
uint64_t vv_rand_below(struct vv_rand *r, uint64_t n); /* 0..n-1; n > 0 */
bool vv_rand_percent(struct vv_rand *r, unsigned percent);

struct vv_random_seeded { pthread_mutex_t mu; struct vv_rand r; };
void vv_random_seeded_init(struct vv_random_seeded *s, uint64_t seed);
extern const struct vv_random_ops vv_random_seeded_ops; /* random: struct vv_random_seeded * */

/* ---- clock ---- */
struct vv_clock_sim { atomic_int_fast64_t wall_ms, mono_us; };
void vv_clock_sim_init(struct vv_clock_sim *c, int64_t wall_ms);
void vv_clock_sim_advance(struct vv_clock_sim *c, int64_t ms); /* both; ms >= 0 */
void vv_clock_sim_jump(struct vv_clock_sim *c, int64_t ms);    /* the wall only; back too */
extern const struct vv_clock_ops vv_clock_sim_ops; /* clock: struct vv_clock_sim * */

/* ---- file system in memory ---- */
struct vv_fs_mem;
extern const struct vv_fs_ops vv_fs_mem_ops; /* fs: struct vv_fs_mem * */
/* clock (may be NULL) gives modification times. Paths are absolute or relative to the root; no "..". */
struct vv_fs_mem *vv_fs_mem_new(struct vv_clock_sim *clock);
void vv_fs_mem_free(struct vv_fs_mem *fs); /* asserts that every file was closed */
size_t vv_fs_mem_open_files(struct vv_fs_mem *fs);
/* Bytes of all files together; 0 = no limit. A write that does not fit writes what does and is E_NOSPC. */
void vv_fs_mem_capacity(struct vv_fs_mem *fs, uint64_t bytes);
uint64_t vv_fs_mem_used(struct vv_fs_mem *fs);
/* Off: the process that used it is dead. Every call but close is E_IO, locks are free, open files stay useless for
 * good. On again without a crash is what kill -9 leaves: all that was written. */
void vv_fs_mem_power(struct vv_fs_mem *fs, bool on);
bool vv_fs_mem_is_on(struct vv_fs_mem *fs);
/* Turns off in the middle of the n-th change from now (1 = the next one; a write stops half way, anything else does not
 * happen), then calls hook (may be NULL; may not call fs). n 0 = not any more. */
void vv_fs_mem_cut_after(struct vv_fs_mem *fs, uint64_t n, void (*hook)(void *ctx), void *ctx);
uint64_t vv_fs_mem_changes(struct vv_fs_mem *fs); /* calls that changed or synced something so far */
/* Power cut, then power again: of what was not synced the seed keeps, loses or tears. Per file, each write since the
 * last datasync is kept, lost, replaced by zeros (the size grew, the bytes never came) or torn at 512-byte sectors. Per
 * directory the first k changes of entries since sync_dir are kept, in order; a rename between directories happened in
 * both or in neither. */
void vv_fs_mem_crash(struct vv_fs_mem *fs, uint64_t seed);
/* Rot: flips one bit of what is stored, durably. E_NOENT, or E_LIMIT at or past the end. */
int vv_fs_mem_flip(struct vv_fs_mem *fs, const char *path, uint64_t at);

/* ---- faults over any file system ---- */
enum vv_fsop { /* bits */
    VV_FSOP_OPEN = 1 << 0, VV_FSOP_PREAD = 1 << 1, VV_FSOP_PWRITE = 1 << 2, VV_FSOP_DATASYNC = 1 << 3,
    VV_FSOP_TRUNCATE = 1 << 4, VV_FSOP_SIZE = 1 << 5, VV_FSOP_STAT = 1 << 6, VV_FSOP_RENAME = 1 << 7,
    VV_FSOP_UNLINK = 1 << 8, VV_FSOP_MKDIR = 1 << 9, VV_FSOP_RMDIR = 1 << 10, VV_FSOP_SYNC_DIR = 1 << 11,
    VV_FSOP_LIST = 1 << 12, VV_FSOP_LOCK = 1 << 13, VV_FSOP_SPACE = 1 << 14,
    VV_FSOP_ANY = (1 << 15) - 1,
    VV_FSOP_CHANGE = VV_FSOP_PWRITE | VV_FSOP_DATASYNC | VV_FSOP_TRUNCATE | VV_FSOP_RENAME | VV_FSOP_UNLINK |
                     VV_FSOP_MKDIR | VV_FSOP_RMDIR | VV_FSOP_SYNC_DIR,
};
enum vv_fsfault_action {
    VV_FSFAULT_FAIL, /* before anything is done */
    VV_FSFAULT_HALF, /* pwrite: half is written; pread: half is given back as if the file ended; others: FAIL */
    VV_FSFAULT_LATE, /* done, then told as failed */
};
struct vv_fsfault_rule {
    unsigned ops;          /* enum vv_fsop bits; 0 = any */
    const char *path_part; /* substring of the path (rename: of either); NULL = any. Copied. */
    unsigned from, count;  /* on matching calls from..from+count-1, the first is 1; from 0 = 1, count 0 = for ever */
    enum vv_fsfault_action action;
    int err;               /* 0 = E_IO */
};
struct vv_fs_fault;
extern const struct vv_fs_ops vv_fs_fault_ops; /* fs: struct vv_fs_fault * */
struct vv_fs_fault *vv_fs_fault_new(const struct vv_fs_ops *inner_ops, void *inner);
void vv_fs_fault_free(struct vv_fs_fault *f); /* the inner file system stays */
/* its id; the first rule that fits acts */
int vv_fs_fault_add(struct vv_fs_fault *f, const struct vv_fsfault_rule *rule);
void vv_fs_fault_clear(struct vv_fs_fault *f);
unsigned vv_fs_fault_hits(struct vv_fs_fault *f, int id);              /* how often rule id has acted */
uint64_t vv_fs_fault_calls(struct vv_fs_fault *f, unsigned ops);       /* calls of these kinds so far */
#endif
