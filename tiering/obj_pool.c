/* obj_pool.c — a queue of async GETs and the threads that run them, for the directory and libs3.
 * Contract: obj_pool.h.
 *
 * A GET is in the queue, or held by exactly one worker, or done. Cancel marks one that still waits
 * (its impl); one that runs goes on to its end. Threads start with the first GET; without any (none
 * could be made) it runs inline. `lock` guards the queue and is a leaf: never held while a GET runs
 * or done is called. */
#include "obj_pool.h"
#include "obj_backends.h"
#include "varve/thread.h"
#include "varve/bytes.h"

static char canceled_mark; /* get->impl of a canceled GET that still waits */

void vv_objpool_init(struct vv_objpool *pool, struct vv_objstore *store,
                     int (*range)(struct vv_objstore *, struct vv_objget *, int64_t,
                                  struct vv_buf **),
                     bool run_inline)
{
    memset(pool, 0, sizeof *pool);
    pool->store = store;
    pool->range = range;
    pool->run_inline = run_inline;
    pthread_mutex_init(&pool->lock, NULL);
}

static void run(struct vv_objpool *pool, struct vv_objget *get, int err)
{
    struct vv_buf *buf = NULL;
    int64_t left_ms = get->deadline_ms - (vv_mono_us(pool->store->env) - get->started_us) / 1000;
    if (!err && atomic_load(&pool->store->interrupted)) err = VV_E_SHUTDOWN;
    if (!err && left_ms <= 0)
        err = vv_error_set(&get->error, VV_E_TIMEOUT, "get %s: the deadline passed in the queue",
                           get->key);
    if (!err) err = pool->range(pool->store, get, left_ms, &buf);
    vv_objget_finish(pool->store, get, err, buf);
}

static void *worker(void *arg)
{
    struct vv_objpool *pool = arg;
    vv_thread_background("store");
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->head && !pool->closing)
            vv_event_wait(&pool->more, &pool->lock);
        struct vv_objget *get = pool->head;
        if (!get) break;
        pool->head = get->next;
        if (!pool->head) pool->tail = NULL;
        int err = pool->closing || get->impl == &canceled_mark ? VV_E_SHUTDOWN : VV_OK;
        pthread_mutex_unlock(&pool->lock);
        run(pool, get, err);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* With lock held. */
static bool start_workers(struct vv_objpool *pool)
{
    while (pool->worker_count < VV_OBJPOOL_WORKERS &&
           !pthread_create(&pool->workers[pool->worker_count], NULL, worker, pool))
        pool->worker_count++;
    return pool->worker_count > 0;
}

void vv_objpool_submit(struct vv_objpool *pool, struct vv_objget *get)
{
    bool queued = false;
    if (!pool->run_inline) {
        pthread_mutex_lock(&pool->lock);
        queued = !pool->closing && start_workers(pool);
        if (queued) {
            if (pool->tail)
                pool->tail->next = get;
            else
                pool->head = get;
            pool->tail = get;
            vv_event_wake(&pool->more, false);
        }
        pthread_mutex_unlock(&pool->lock);
    }
    if (!queued) run(pool, get, VV_OK);
}

void vv_objpool_cancel(struct vv_objpool *pool, struct vv_objget *get)
{
    pthread_mutex_lock(&pool->lock);
    for (struct vv_objget *g = pool->head; g; g = g->next)
        if (g == get) g->impl = &canceled_mark;
    pthread_mutex_unlock(&pool->lock);
}

void vv_objpool_release(struct vv_objpool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    vv_event_wake(&pool->more, true);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->worker_count; i++)
        pthread_join(pool->workers[i], NULL);
    pthread_mutex_destroy(&pool->lock);
}
