/* origin.h — where a bucket's first objects came from: the "origins" of the root object, and the journal of bringing them over.
 *
 * A cluster seeded from somebody else's bucket keeps topic ids and byte copies of the segments, whose footers still name the cluster that
 * wrote them. So the root says which clusters' objects belong here: v[0] is the bucket that this one was seeded from, what follows are the
 * origins of that one. `seeded` false: the first start did not get to its end, nothing in the bucket counts, it begins again. `hydrated`:
 * every object is here; the origin is not needed any more. Pure but for the two file calls; any thread. */
#ifndef VARVE_TIERING_ORIGIN_H
#define VARVE_TIERING_ORIGIN_H
#include "varve/tier.h"

#include <jansson.h>

#define VV_CLUSTERS_MAX ((VV_ORIGINS_MAX + 1) * 64)

json_t *vv_origins_json(const struct vv_origins *o); /* an array; NULL: out of memory */
int vv_origins_parse(const json_t *array, struct vv_origins *out); /* NULL: none. E_CORRUPT, E_LIMIT */
/* "own,origin,…" for vv_footer_check. */
void vv_clusters_text(const char *own, const struct vv_origins *o, char out[VV_CLUSTERS_MAX]);

/* varve-origin.json in the data directory: the origins, and per partition how far its objects were brought over. */
struct vv_origin_part {
    struct vv_uuid topic_id;
    int32_t partition;
    int64_t copied; /* every object below is here */
    int64_t end;    /* objects at or above were never the origin's */
};
struct vv_origin_journal { /* init {0} */
    struct vv_origins origins;
    struct vv_origin_part *v; /* in the order of vv_origin_part_find: by id, then partition */
    size_t n;
};
int vv_origin_journal_load(struct vv_env *env, const char *data_dir, struct vv_origin_journal *out, struct vv_error *e); /* E_NOENT */
int vv_origin_journal_save(struct vv_env *env, const char *data_dir, const struct vv_origin_journal *j, struct vv_error *e);
void vv_origin_journal_release(struct vv_origin_journal *j);
struct vv_origin_part *vv_origin_part_find(const struct vv_origin_journal *j, struct vv_uuid id, int32_t partition);
int vv_origin_part_add(struct vv_origin_journal *j, const struct vv_origin_part *p); /* replaces one that is there */
#endif
