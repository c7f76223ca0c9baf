/* tier_impl.h — the tier's own structures, shared by its files: tier.c (open, threads, parts), claim.c (root object),
 * manifest*.c, uploader.c, merge.c, keeper.c (housekeeping: manifests, deletion, renewal), restore.c, reader*.c.
 *
 * Locks: part->life -> tier->mu -> (index, log). `life` orders the moves of one part's proven extents (BOTH and later) between
 * the housekeeper and vv_tier_part_drop_local; it is held across disk I/O, never across store I/O (local space must come free while
 * the store is away). The moves SEALED -> UPLOADING -> BOTH belong to whoever has the part's `busy` mark, the manifest to whoever
 * has its `keeping` mark. `mu` is short: lists, marks, statistics, configuration. The claim has its own lock, `claim_mu`, held
 * across store I/O and never together with another. */
#ifndef VARVE_TIER_IMPL_H
#define VARVE_TIER_IMPL_H
#include "varve/tier.h"
#include "footer.h"
#include "gc.h"
#include "keys.h"
#include "manifest.h"
#include "origin.h"
#include "root.h"
#include "scrub.h"

#include <pthread.h>
#include <stdatomic.h>

struct vv_reader;    /* reader.h */
struct vv_diskcache; /* diskcache.h */

struct vv_claim { /* claim.c; claim_mu held except during open */
    uint64_t writer_epoch;
    char incarnation[33];        /* of this opening; also in tier-identity.json */
    char etag[VV_OBJ_ETAG_MAX];  /* of the root as we wrote it last; "" = not told */
    int64_t claimed_ms, renewed_mono_us;
    struct vv_deleted_topic *deleted;
    size_t deleted_count;
    struct vv_origins origins;
    bool lost;                   /* another writer took over: no more writes to the bucket */
};

struct vv_tier {
    struct vv_env *env;
    struct vv_objstore *store;
    struct vv_tier_identity id;
    struct vv_tier_config config; /* mu; read a copy through vv_tier_config_get */
    pthread_mutex_t mu;
    pthread_cond_t work;          /* something for an uploader, or stopping */
    pthread_cond_t keep;          /* something for the housekeeper, or stopping */
    pthread_cond_t idle;          /* a part's busy mark was taken off */
    struct vv_tier_part **parts;  /* mu */
    size_t part_count, part_cap;
    size_t upload_turn, keep_turn; /* round robin; mu */
    bool started, stopping;        /* mu */
    bool switching;                /* mu: a migration is at its switch, no part may be taken for uploads or housekeeping */
    _Atomic int64_t stop_by_us;    /* 0 = not stopping */
    pthread_t *uploaders;
    int uploader_count;
    pthread_t scrubber;
    struct vv_scrub scrub;
    int64_t delete_tokens_us;      /* mu; deletions: monotonic time up to which they are spent */
    pthread_t keeper, merger;
    bool merging;                  /* the merger's thread runs */
    int64_t merge_tokens_us;       /* mu; as upload_tokens_us */
    size_t merge_turn;             /* mu */
    int64_t upload_tokens_us;      /* mu; bandwidth: monotonic time up to which bytes are spent */
    pthread_mutex_t claim_mu;
    struct vv_claim claim;
    _Atomic bool fenced;           /* mirror of claim.lost */
    _Atomic bool unclaimed;        /* opened while the store was away: fenced until the keeper has claimed it */
    bool take_over;                /* for that */
    bool replica;                  /* fenced for good: somebody else's bucket, followed (replica.c) */
    int64_t gc_uploads_us;         /* keeping: next look for abandoned uploads in parts */
    char clusters[VV_CLUSTERS_MAX]; /* whose objects belong here: ours and the origins'; fixed once claimed */
    const struct vv_tier_seed *seed; /* NULL: this is no first start from somebody else's bucket */
    struct vv_hydrate *hydrate;    /* hydrate.c; NULL: nothing to bring over */
    struct vv_migrate *_Atomic migrate;    /* migrate.c; NULL: none in this life */
    struct vv_snapshots *snapshots; /* snapshots.c: what is kept of the list of topics; its own lock */
    bool stale_aborted;            /* keeping: multiparts of earlier lives were aborted */
    int64_t clock_gap_ms;          /* wall - monotonic at open: a jump by more than an hour pauses deletion */
    _Atomic bool clock_warned;     /* keeper and merger both look */
    int64_t tier_after_us;         /* back-off of renewal and topic deletion; mu */
    unsigned tier_failures;
    bool tier_keeping;             /* mu: somebody is in vv_keeper_tier_step */
    struct vv_uuid *topics_named;  /* mu; topic.json known to be written by this process */
    size_t topics_named_count;
    /* statistics; gets/puts/… come from the store's */
    _Atomic uint64_t copy_throttle_us; /* uploaders waited for the bandwidth limit */
    _Atomic uint64_t uploads, upload_bytes, upload_errors, deletes, delete_errors, gc_objects, gc_uploads;
    _Atomic uint64_t fetch_requests, fetch_bytes, fetch_errors, cache_hits, cache_misses, cache_bytes; /* reader.c */
    _Atomic uint64_t merges, merged_segments, merged_bytes;
    _Atomic bool store_ok;
    struct vv_reader *reader; /* mu; made by the first read, stays until vv_tier_free */
    struct vv_diskcache *disk; /* NULL = none */
};

struct vv_tier_part {
    struct vv_tier *tier;
    struct vv_tier_part_opts o; /* topic is our copy */
    char topic[250];
    pthread_mutex_t life;
    struct vv_manifest manifest; /* the keeping mark's */
    struct vv_gc gc;             /* the keeping mark's, but for when it is due: mu */
    struct vv_replica_part {     /* of a replica: its follower's (replica.c) */
        int64_t next;            /* where what is known of the log ends, whatever the log start says */
        uint64_t writer_epoch;   /* of its newest segment */
        int64_t told_start;      /* log start that objects behind the manifest's end told */
        bool hole;               /* something lies beyond next that does not continue it: looked at again when the manifest changed */
        struct vv_extent newest; /* whose footer was read; base -1: none */
    } replica;
    uint8_t chain[VV_CHAIN_BYTES]; /* the busy mark's: the chain behind the last upload; chain_known: of this life */
    bool chain_known;
    _Atomic bool copy_disabled;
    _Atomic int64_t segment_bytes;
    int64_t merge_at, merge_expire_ms; /* the merging mark's: below is nothing left to merge; when something replaced is due */
    /* all below: tier->mu */
    bool busy;               /* an uploader works on it */
    bool keeping;            /* housekeeping works on it */
    bool merging;            /* merge.c works on it */
    int64_t merge_after_us;
    unsigned merge_failures;
    bool scrubbing;          /* the scrubber looks at it */
    bool kicked;             /* look for uploads */
    bool swept;              /* log start was applied to extents; false = to do */
    int copying;             /* so many objects of it are being copied between stores (pace.h) */
    bool closing, leaving;   /* leaving: about to be freed */
    bool overwrite;          /* the object under the intent's key is bad: put without condition */
    uint64_t dirty;          /* changes not yet in the manifest */
    int64_t dirty_since_us;
    int64_t upload_after_us, keep_after_us; /* back-off, monotonic */
    unsigned upload_failures, keep_failures;
    int64_t delete_check_us; /* next look for expired tombstones: 0 = now, INT64_MAX = there are none */
    struct vv_tier_part_stats stats;
};

void vv_tier_config_get(struct vv_tier *t, struct vv_tier_config *out);
/* Every result of a store call goes through here: keeps store_ok. Returns err. */
int vv_tier_saw(struct vv_tier *t, int err);
/* base * 2^failures with jitter in [half, whole], at most max; microseconds. */
int64_t vv_tier_backoff_us(struct vv_tier *t, unsigned failures, int64_t base_us, int64_t max_us);
/* Stopping and past the grace: a running upload gives up. */
bool vv_tier_overdue(struct vv_tier *t);
void vv_tier_set_clusters(struct vv_tier *t, const struct vv_origins *o);
int vv_tier_delete_prefix(struct vv_tier *t, const char *prefix, struct vv_error *e); /* keeper.c [blocking] */
/* mu held, given up meanwhile: until *until_us (which others may move) has come, or the tier stops. Not without threads. */
void vv_tier_wait_until(struct vv_tier *t, const int64_t *until_us);
void vv_tier_part_dirty(struct vv_tier_part *p); /* the manifest must follow; takes mu */

/* claim.c [blocking] */
int vv_claim_take(struct vv_tier *t, bool take_over, struct vv_error *e);
int vv_claim_take_late(struct vv_tier *t); /* what vv_tier_open_later put off; 1 = claimed, else an error, logged */
int vv_claim_renew(struct vv_tier *t, struct vv_error *e);
void vv_claim_release(struct vv_tier *t);
void vv_claim_free(struct vv_tier *t);
int vv_claim_add_deleted(struct vv_tier *t, struct vv_uuid id, const char *topic, int64_t deleted_ms, struct vv_error *e);
int vv_claim_undelete(struct vv_tier *t, struct vv_uuid id, struct vv_error *e); /* E_STATE: deleting; E_NOENT */
int vv_claim_mark_deleting(struct vv_tier *t, struct vv_uuid id, struct vv_error *e);
int vv_claim_drop_deleted(struct vv_tier *t, struct vv_uuid id, struct vv_error *e);
/* A migration, claim_mu held: `to` is taken without counting yet; the own root says that `url` is the truth now, which ends what is written
 * to it; the store was replaced and its root is ours (written soon). */
int vv_claim_announce(struct vv_tier *t, struct vv_objstore *to, struct vv_error *e);
int vv_claim_leave(struct vv_tier *t, const char *url, struct vv_error *e);
void vv_claim_arrive(struct vv_tier *t);
int vv_claim_set_origins(struct vv_tier *t, const struct vv_origins *o, struct vv_error *e);

/* tier.c: writes topic.json. [blocking] */
int vv_tier_name_topic(struct vv_tier *t, struct vv_uuid id, const char *topic, struct vv_error *e);

/* uploader.c: one upload of the part's next extent; busy held. 1: uploaded or dropped one, 0: nothing to do, < 0: failed. */
int vv_uploader_step(struct vv_tier_part *p);

/* Puts the object of a BOTH extent again, same key and size, from the local copy, and reads it back. E_CORRUPT: the local copy is damaged too, or
 * the store keeps other bytes; E_UNSUPPORTED: it would not be the same object. Waits for the busy mark. [blocking] */
int vv_uploader_mend(struct vv_tier_part *p, const struct vv_extent *x, struct vv_error *e);

/* keeper.c: one unit of housekeeping of one part, under its keeping mark. 1: did something, 0: nothing due, < 0: failed. */
int vv_keeper_part_step(struct vv_tier_part *p, bool flush);
bool vv_keeper_part_due(struct vv_tier_part *p, int64_t now_us); /* mu held */
int vv_keeper_commit(struct vv_tier_part *p, int64_t deleting_below, struct vv_error *e); /* the next head, and what it lets go */
/* A part's keeping mark for other threads, waited for; begin: E_CONFLICT = fenced, and end is to be called all the same. */
int vv_tier_keep_begin(struct vv_tier_part *p);
void vv_tier_keep_end(struct vv_tier_part *p);
int vv_keeper_mend_head(struct vv_tier_part *p, struct vv_error *e); /* one that is damaged is written anew, manifest.h. Waits for the keeping mark */
bool vv_keeper_clock_sane(struct vv_tier *t);
/* merge.c: one merge of small objects, or the deletion of what was replaced, under the part's merging mark. Results as above. */
int vv_merge_step(struct vv_tier_part *p);
/* Renewal, leftovers of earlier lives, deleted topics. */
int vv_keeper_tier_step(struct vv_tier *t);
/* hydrate.c: see there */
int vv_hydrate_start(struct vv_tier *t);
void vv_hydrate_stop(struct vv_hydrate *h); /* NULL is fine; joins */
void vv_hydrate_free(struct vv_hydrate *h);
void vv_hydrate_stats(struct vv_hydrate *h, struct vv_tier_stats *out);
/* migrate.c */
void vv_migrate_stop(struct vv_migrate *m); /* NULL is fine; joins */
void vv_migrate_free(struct vv_migrate *m);
void vv_migrate_stats(struct vv_migrate *m, struct vv_tier_stats *out);
/* snapshots.c */
void vv_snapshots_lock(struct vv_tier *t); /* no list of topics is put until unlocked */
void vv_snapshots_unlock(struct vv_tier *t);
void vv_snapshots_free(struct vv_snapshots *s);
/* reader.c; NULL is fine */
void vv_reader_free(struct vv_reader *rd);                                    /* ends its downloads; no part is open any more */
void vv_reader_part_closed(struct vv_reader *rd, struct vv_tier_part *p);      /* ends the part's reads, waits for them */
void vv_reader_configure(struct vv_reader *rd, const struct vv_tier_config *c);
void vv_reader_stats(struct vv_reader *rd, struct vv_tier_stats *out);
void vv_reader_tick(struct vv_reader *rd);                                     /* now and then: sends what had to wait */

void vv_tier_where(struct vv_tier_part *p, struct vv_manifest_where *w);
#endif
