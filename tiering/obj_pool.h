/* obj_pool.h — async GETs for backends whose own calls block: a queue and a few threads. */
#ifndef VARVE_OBJ_POOL_H
#define VARVE_OBJ_POOL_H
#include "varve/objstore.h"
#include "varve/wait.h"

#include <pthread.h>

enum { VV_OBJPOOL_WORKERS = 4 };

struct vv_objpool {
    struct vv_objstore *store;
    /* One ranged GET, blocking, within left_ms: *out gets a new buffer of exactly get->n bytes, or
     * the sink gets them. */
    int (*range)(struct vv_objstore *store, struct vv_objget *get, int64_t left_ms,
                 struct vv_buf **out);
    bool run_inline; /* no threads: a GET is done when submit returns */
    pthread_mutex_t lock;
    struct vv_event more;
    struct vv_objget *head, *tail;
    pthread_t workers[VV_OBJPOOL_WORKERS];
    unsigned worker_count;
    bool closing;
};
void vv_objpool_init(struct vv_objpool *pool, struct vv_objstore *store,
                     int (*range)(struct vv_objstore *, struct vv_objget *, int64_t,
                                  struct vv_buf **),
                     bool run_inline);
void vv_objpool_submit(struct vv_objpool *pool, struct vv_objget *get);
void vv_objpool_cancel(struct vv_objpool *pool, struct vv_objget *get);
void vv_objpool_release(
    struct vv_objpool *pool); /* what waits ends with E_SHUTDOWN; joins the threads */
#endif
