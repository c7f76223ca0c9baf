/* root.h — the root object as it is read: whose bucket this is, who writes to it, which topics are deleted. Pure but
 * for the
 * one GET; any thread. Who writes it: claim.c. */
#ifndef VARVE_TIERING_ROOT_H
#define VARVE_TIERING_ROOT_H
#include "varve/bytes.h"
#include "varve/error.h"
#include "varve/objstore.h"
#include "varve/tier.h"

struct vv_deleted_topic { /* an entry of the root's list: objects go after the grace */
    struct vv_uuid id;
    char name[256];
    int64_t deleted_ms;
    bool deleting; /* irrevocable */
};

struct vv_root { /* init {0} */
    char cluster_id[64], incarnation[33];
    int32_t node_id;
    uint64_t writer_epoch;
    int64_t claimed_ms, renewed_ms;
    bool released;
    struct vv_deleted_topic *deleted;
    size_t deleted_count;
    struct vv_origins origins;
    char moved_to[512];   /* a migration made that bucket the truth; "" = no */
    bool migrating;       /* a migration is being copied here: nothing counts yet */
    char etag[VV_OBJ_ETAG_MAX];
};

/* E_NOENT: no Varve bucket; E_UNSUPPORTED: a newer format; E_CORRUPT; what the store says. [blocking] */
int vv_root_get(struct vv_objstore *store, int64_t deadline_ms, struct vv_root *r, struct vv_error *e);
void vv_root_release(struct vv_root *r);
int vv_deleted_push(struct vv_deleted_topic **v, size_t *n, const struct vv_deleted_topic *d);
#endif
