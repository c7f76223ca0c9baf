/* group_map.h — a hash table by string with embedded nodes: groups by id, members by id and by instance id, offsets.
 *
 * The key belongs to the embedding object and stays as it is while the node is in a table. Chained; doubles at load 1.
 * Hashing is seeded per process, so that a client cannot pile its names onto one chain. One thread (control). */
#ifndef VARVE_GROUP_MAP_H
#define VARVE_GROUP_MAP_H
#include "varve/wire.h"

struct vv_gnode {
    struct vv_gnode *next;
    struct vv_str key;
    uint64_t hash;
};
struct vv_gmap { /* init with {0} */
    struct vv_gnode **v;
    size_t cap, count;
};

void vv_gmap_seed(uint64_t seed); /* once, before the first table */
int vv_gmap_put(struct vv_gmap *m, struct vv_gnode *node, struct vv_str key); /* key must be new; 0 or E_NOMEM */
struct vv_gnode *vv_gmap_get(const struct vv_gmap *m, struct vv_str key);
void vv_gmap_remove(struct vv_gmap *m, struct vv_gnode *node);
void vv_gmap_release(struct vv_gmap *m); /* the nodes are the owner's */
/* Every node; the one just returned may be removed (and freed) before the next call. *cursor starts as {0}. */
struct vv_gcursor {
    size_t bucket;
    struct vv_gnode *next;
    bool started;
};
struct vv_gnode *vv_gmap_next(const struct vv_gmap *m, struct vv_gcursor *cursor);
#endif
