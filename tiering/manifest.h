/* manifest.h — what belongs to a partition, as the bucket knows it: a head object and immutable pages.
 *
 * The head (JSON, fixed key) lists up to 256 segments newest last, references to pages of 256 older ones (level 1), references to pages of
 * 256 such references (level 2), and so on: an update writes one head, and a page every 256 segments; ten years of
 * one-minute segments are three levels. Two marks say what is gone: segments wholly below log_start are dead
 * but kept for the grace; those wholly below deleting_below are irrevocably being deleted and no longer listed.
 * Heads are hash-chained: each names the SHA-256 of the one before; pages are named by theirs. Commits are conditional
 * on the head's ETag where the store can do that.
 *
 * In memory only the page references are kept; the newest segments are taken from the index at each commit.
 * One user at a time (part->life). */
#ifndef VARVE_TIERING_MANIFEST_H
#define VARVE_TIERING_MANIFEST_H
#include "varve/bytes.h"
#include "varve/error.h"
#include "varve/index.h"
#include "varve/objstore.h"

#define VV_MANIFEST_FANOUT 256
#define VV_MANIFEST_LEVELS 8
#define VV_MANIFEST_BYTES_MAX (8u << 20)

struct vv_pageref {
    int64_t base, last, max_ts;
    uint64_t segments, bytes;
    char sha256[65];
};
struct vv_replaced { /* a run of segments that another object took the place of (manifest_replace.c) */
    int64_t base, last, dead_ms;
    uint64_t by;              /* nonce of the object */
    bool deleting;            /* irrevocable: what it replaced is being deleted */
    uint64_t segments, bytes; /* replaced: how many, of whole objects */
    char sha256[65];          /* page of level 0: the segments, and the pages that were rewritten */
};
struct vv_manifest_level { struct vv_pageref *v; size_t n; }; /* sorted by base */
struct vv_manifest {
    bool loaded;
    bool exists;              /* a head is in the bucket */
    bool damaged;             /* and cannot be read: the next commit writes it anew */
    bool taking;              /* the next commit writes one even if nothing changed: whoever wrote the last one finds another ETag */
    char etag[VV_OBJ_ETAG_MAX];
    char sha256[65];          /* of the head in the bucket; "" when there is none */
    uint64_t revision, writer_epoch;
    int64_t log_start, deleting_below;
    bool reviving;            /* the next commit says this log start, below the index's own (tier_undelete.c) */
    int64_t revive_to;
    int64_t folded_end;       /* segments below are in pages (or gone) */
    int64_t next_offset;      /* last listed segment's last + 1; 0 when none */
    struct vv_manifest_level level[VV_MANIFEST_LEVELS]; /* [0] unused: level 0 is the index */
    char **garbage;           /* keys that are no part of the log, irrevocably: to be deleted */
    struct vv_replaced *replaced; /* oldest first; kept for the grace */
    size_t replaced_count;
    size_t garbage_count;
    size_t garbage_listed;    /* how many of them the head in the bucket names */
};
struct vv_manifest_where { /* what a commit needs to know; borrowed */
    struct vv_env *env;
    struct vv_objstore *store;
    const char *cluster_id, *topic;
    struct vv_uuid topic_id;
    int32_t partition;
    uint64_t writer_epoch;
    size_t pages; /* read at a time by a walk, on threads of their own; 0: one, on the caller's */
};
void vv_manifest_release(struct vv_manifest *m);
/* Reads the head. E_NOENT is not an error: an empty manifest. Each level-0 segment goes to each() when not NULL. */
typedef int (*vv_manifest_each)(void *ctx, const struct vv_extent *x);
int vv_manifest_load(struct vv_manifest *m, const struct vv_manifest_where *w, vv_manifest_each each, void *ctx,
                     struct vv_error *e);
/* Calls each() for every segment in pages and head, ascending, skipping what is below deleting_below. Loads. */
int vv_manifest_walk(struct vv_manifest *m, const struct vv_manifest_where *w, vv_manifest_each each, void *ctx,
                     struct vv_error *e);
/* Of a loaded manifest, the segments in pages only, ascending: those that end at or after `from` and whose page has a time >= min_ts
 * (INT64_MIN = any). What each() returns stops the walk and is returned. */
int vv_manifest_pages(const struct vv_manifest *m, const struct vv_manifest_where *w, int64_t from, int64_t min_ts,
                      vv_manifest_each each, void *ctx, struct vv_error *e);
/* Every page that a loaded manifest refers to, on every level, and (level 0 and what that names) those kept for the grace. Reads the
 * pages of levels above 1 and of level 0. */
typedef int (*vv_manifest_each_page)(void *ctx, int level, const struct vv_pageref *r);
int vv_manifest_each_ref(const struct vv_manifest *m, const struct vv_manifest_where *w, vv_manifest_each_page each, void *ctx,
                         struct vv_error *e);
/* A key proven to be no part of the log (gc.c): the next commit names it, the sweep after that deletes it. */
int vv_manifest_condemn(struct vv_manifest *m, const char *key);
/* Writes the state of the index (and this deleting_below, which only grows) as the next head; folds full levels first. Over a head that is
 * damaged, too, unless the bucket has what the index does not know (E_STATE). The caller asked the root just now, if m is not loaded.
 * E_CONFLICT: another writer's epoch is in the head. */
int vv_manifest_commit(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix,
                       int64_t deleting_below, struct vv_error *e);
/* The run [n->base, n->last], which the manifest has as several segments, is n from now on: pages rewritten, head put; what went is kept
 * for the grace. Done already (a lost reply): nothing happens. The index is the caller's, right afterwards; until then its intent says
 * that n may be in here. E_STATE: there is no such run. */
int vv_manifest_replace(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, const struct vv_extent *n,
                        struct vv_error *e);
/* What was replaced before dead_before_ms goes for good: marked, deleted, struck off. Returns how many runs; *next_ms: when the oldest
 * that stays was replaced, INT64_MAX = none stays. */
int vv_manifest_expire(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, int64_t dead_before_ms,
                       int64_t *next_ms, struct vv_error *e);
/* Is this range part of a run that was replaced? Its objects stay for the grace; vv_manifest_expire deletes them. */
bool vv_manifest_keeps(const struct vv_manifest *m, int64_t base, int64_t last);
/* Settles a replacement that the manifest knows and the index does not yet. One that it does not know never gets into it afterwards: a new
 * head is put, so that a put of the one that named it, its reply lost and still under way, finds another ETag. */
int vv_manifest_without(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, struct vv_error *e);
/* Deletes what garbage names; best effort, the rest stays for next time. */
void vv_manifest_sweep(struct vv_manifest *m, const struct vv_manifest_where *w);
#endif
