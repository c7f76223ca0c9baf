/* obj_backends.h — what the object-store backends share with objstore.c, and nobody else sees. */
#ifndef VARVE_OBJ_BACKENDS_H
#define VARVE_OBJ_BACKENDS_H
#include "varve/objstore.h"

int vv_obj_fs_open(const char *url, const struct vv_objstore_config *config, struct vv_env *env,
                   struct vv_objstore **out, struct vv_error *e);
int vv_obj_s3_open(const char *url, const struct vv_objstore_config *config, struct vv_env *env,
                   struct vv_objstore **out, struct vv_error *e);
int vv_obj_libs3_open(const char *url, const struct vv_objstore_config *config, struct vv_env *env,
                      struct vv_objstore **out, struct vv_error *e);

/* Fills the common head of a backend. */
void vv_objstore_init(struct vv_objstore *s, const struct vv_objstore_ops *ops, struct vv_env *env,
                      unsigned caps, const char *url);
/* Ends an async GET: counts, sets the outcome (taking the reference to buf), calls done. get->error
 * may be filled. */
void vv_objget_finish(struct vv_objstore *s, struct vv_objget *get, int err, struct vv_buf *buf);
/* Copies what has arrived, the bytes from `at` of the range on, into the sink. */
int vv_objget_feed(struct vv_objget *get, size_t at, const uint8_t *src, size_t n);
#endif
