/* follow.h — what continues a manifest: uploads that the batched manifest had not seen when its writer stopped.
 *
 * Objects after the last entry belong to the log if they continue it without a hole: the partition is listed from there on, every
 * candidate's footer must prove its identity, and of several with one base the one of the highest writer epoch wins, of those the one of the highest
 * generation (what a merge made of others). What lies beyond a
 * hole is reported, not taken, unless a footer tells that the log start had passed the hole (deleted before it was uploaded).
 * Writer epochs never fall along a log: an object below the epoch of the manifest, or of the object before it, is what a fenced
 * writer put there while another one owned the log.
 * Reads only; blocking; one thread. Used by restore and by the reader without a broker. */
#ifndef VARVE_TIERING_FOLLOW_H
#define VARVE_TIERING_FOLLOW_H
#include "footer.h"
#include "manifest.h"

struct vv_follow {
    /* set by the caller */
    const struct vv_manifest_where *w;
    const char *who;         /* for messages: "restore" */
    vv_manifest_each each;   /* gets what belongs to the log, ascending; state REMOTE */
    void *ctx;
    int64_t after;           /* base of the manifest's last segment; -1 = none */
    struct vv_error *e;
    /* in and out */
    int64_t next;            /* expected base */
    int64_t log_start;
    uint64_t epoch_floor;    /* in: the manifest's writer epoch */
    bool hole;               /* out: something lies beyond a hole */
    /* its own: the candidate for `next` */
    struct vv_footer best;
    struct vv_extent best_x;
    bool have_best;
};
int vv_follow_run(struct vv_follow *r);

/* The footer of an object, by a suffix GET of `guess` bytes (more when that is too little), proven to be the key's and the
 * cluster's (NULL = any). E_NOENT, E_CORRUPT, E_UNSUPPORTED, the store's. [blocking] */
int vv_footer_get(struct vv_objstore *store, const struct vv_segkey *k, const char *cluster_id, size_t guess, struct vv_footer *f,
                  uint64_t *object_bytes, struct vv_error *e);
#endif
