/* iopool.c — a few threads for work that blocks: fsync, seals, cold local reads. FIFO; work is embedded, so submitting
 * allocates nothing and cannot fail. Freeing runs what is queued, then joins. */
#include "varve/net.h"
#include "varve/wait.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct vv_iopool {
    pthread_mutex_t lock;
    struct vv_event more;
    struct vv_work *head, **tail;
    bool stopping;
    int count;
    char name[12];
    pthread_t threads[];
};

static void *worker(void *arg)
{
    struct vv_iopool *p = arg;
    pthread_setname_np(pthread_self(), p->name);
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->head && !p->stopping) vv_event_wait(&p->more, &p->lock);
        struct vv_work *w = p->head;
        if (!w) break;
        p->head = w->next;
        if (!p->head) p->tail = &p->head;
        pthread_mutex_unlock(&p->lock);
        w->run(w);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

int vv_iopool_new(const char *name, int threads, struct vv_iopool **out)
{
    struct vv_iopool *p = calloc(1, sizeof *p + (size_t)threads * sizeof p->threads[0]);
    if (!p) return VV_E_NOMEM;
    pthread_mutex_init(&p->lock, NULL);
    p->tail = &p->head;
    snprintf(p->name, sizeof p->name, "%s", name);
    for (; p->count < threads; p->count++) {
        int rc = pthread_create(&p->threads[p->count], NULL, worker, p);
        if (rc && !p->count) {
            vv_iopool_free(p);
            return vv_err_from_errno(rc);
        }
        if (rc) break; /* fewer threads do the same work */
    }
    *out = p;
    return VV_OK;
}

void vv_iopool_submit(struct vv_iopool *p, struct vv_work *w)
{
    w->next = NULL;
    pthread_mutex_lock(&p->lock);
    *p->tail = w;
    p->tail = &w->next;
    pthread_mutex_unlock(&p->lock);
    vv_event_wake(&p->more, false);
}

void vv_iopool_free(struct vv_iopool *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_mutex_unlock(&p->lock);
    vv_event_wake(&p->more, true);
    for (int i = 0; i < p->count; i++) pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
