/* obj_pair.h — two stores behind one: everything goes to the first; segments that it does not have are read from the second.
 *
 * For a bucket that is being filled from another one (a seeded cluster's own bucket and its origin): keys are the same in both,
 * because topic ids are kept, so that a segment is found where it is now. Only segment objects are read from the second store; manifests,
 * the root and listings are the first's alone, and nothing is ever written to the second.
 * The first store can be replaced while calls run (a migration): calls that run end where they began. Contract: varve/objstore.h. */
#ifndef VARVE_OBJ_PAIR_H
#define VARVE_OBJ_PAIR_H
#include "varve/objstore.h"

/* Takes over both (closed with it); second may be NULL. E_NOMEM leaves them to the caller. */
int vv_objpair_open(struct vv_objstore *first, struct vv_objstore *second, struct vv_objstore **out);
bool vv_objpair_is(const struct vv_objstore *s);
/* From now on only the first is asked. The second stays open until the pair is closed. */
void vv_objpair_forget_second(struct vv_objstore *pair);
/* Takes over `first` as the first store; the one before stays open until the pair is closed. At most VV_OBJPAIR_SWAPS times: else E_LIMIT.
 * The caller sees to it that no write is under way. */
#define VV_OBJPAIR_SWAPS 8
int vv_objpair_replace_first(struct vv_objstore *pair, struct vv_objstore *first);
struct vv_objstore *vv_objpair_first(struct vv_objstore *pair);
struct vv_objstore *vv_objpair_second(struct vv_objstore *pair); /* NULL: none, or forgotten */
uint64_t vv_objpair_second_reads(struct vv_objstore *pair);     /* reads that the second store answered */
#endif
