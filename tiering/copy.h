/* copy.h — one object from a store into another, proven: what hydration and migration share.
 *
 * A segment is read in runs of whole blocks, each checked against its CRC before it is sent on; its footer is checked against its own
 * checksums, the key and the clusters whose objects may be there. After the put the target's footer is read back and compared byte by byte
 * (`full`: everything). An object that the target has already, proven the same way, is not copied again: so a copy can be repeated after a
 * crash at any point. Nothing is changed in the source. Blocking; any thread, one copy at a time per struct. */
#ifndef VARVE_TIERING_COPY_H
#define VARVE_TIERING_COPY_H
#include "footer.h"
#include "varve/objstore.h"

struct vv_copy {
    struct vv_env *env;
    struct vv_objstore *from, *to;
    struct vv_keyring *keys; /* for what is encrypted; NULL: none. Copied as it is; the keys are needed to check it */
    const char *clusters;
    bool full;
    bool (*go_on)(void *ctx, size_t bytes); /* before so many are read: waits for their share of the bandwidth; false: stop, E_SHUTDOWN */
    void *ctx;
};
/* footer_bytes: about as many at the object's end. 0: copied; 1: was there. E_NOENT: the source does not have it; E_CORRUPT: it is damaged there, or the target keeps other bytes than it was
 * given; E_SHUTDOWN; what the stores say. *source_said: the error is the source's. */
int vv_copy_segment(const struct vv_copy *c, const struct vv_segkey *k, size_t footer_bytes, bool *source_said,
                    struct vv_error *e);
/* A small object as it is. E_NOENT: the source does not have it. */
int vv_copy_small(const struct vv_copy *c, const char *key, size_t max, struct vv_error *e);
#endif
