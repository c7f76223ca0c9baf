/* bufpool.c — see bufpool.h.
 *
 * Invariants: a mapping is either a spare or belongs to exactly one buffer in use; `refs` counts the owner and the
 * buffers in use. A spare is given only to a GET that nearly fills it, because the cache's budget counts the GET's
 * bytes. The newest are kept: sizes change with the topic that is read. `lock` is a leaf; mapping and unmapping are
 * done without it. */
#include "bufpool.h"
#include "varve/bytes.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MIB ((size_t)1 << 20)

struct pooled {
    struct vv_buf buf; /* first: release() gets it */
    size_t room;       /* bytes mapped at data */
};

struct vv_bufpool {
    pthread_mutex_t lock;
    size_t refs;
    bool closed;
    struct pooled *spare[VV_BUFPOOL_SPARE];
};

static void unmap(struct pooled *b)
{
    if (!b) return;
    munmap(b->buf.data, b->room);
    free(b);
}

static struct pooled *map(size_t n)
{
    size_t step = n < MIB ? MIB / 16 : MIB / 4; /* chunks differ by a block; what is never touched costs nothing */
    size_t room = (n + step - 1) / step * step;
    struct pooled *b = calloc(1, sizeof *b);
    void *p = b ? mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (p == MAP_FAILED) {
        free(b);
        return NULL;
    }
    b->buf.data = p;
    b->room = room;
    return b;
}

static void let_go(struct vv_bufpool *p) /* with lock, which it gives up */
{
    bool last = --p->refs == 0;
    pthread_mutex_unlock(&p->lock);
    if (!last) return;
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void give_back(struct vv_buf *buf)
{
    struct pooled *b = (struct pooled *)buf, *drop = b;
    struct vv_bufpool *p = buf->owner;
    pthread_mutex_lock(&p->lock);
    if (!p->closed) {
        drop = p->spare[0];
        memmove(p->spare, p->spare + 1, sizeof p->spare - sizeof *p->spare);
        p->spare[VV_BUFPOOL_SPARE - 1] = b;
    }
    let_go(p);
    unmap(drop);
}

struct vv_bufpool *vv_bufpool_new(void)
{
    struct vv_bufpool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->refs = 1;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

struct vv_buf *vv_bufpool_get(struct vv_bufpool *p, size_t n)
{
    if (n < VV_BUFPOOL_FROM) return vv_buf_new(n);
    struct pooled *b = NULL;
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < VV_BUFPOOL_SPARE && !b; i++) {
        struct pooled *s = p->spare[i];
        if (!s || s->room < n || s->room - n > s->room / 8) continue;
        b = s;
        p->spare[i] = NULL;
    }
    p->refs++;
    pthread_mutex_unlock(&p->lock);
    if (!b) b = map(n);
    if (!b) {
        pthread_mutex_lock(&p->lock);
        let_go(p);
        return NULL;
    }
    atomic_init(&b->buf.refs, 1);
    b->buf.cap = n;
    b->buf.release = give_back;
    b->buf.owner = p;
    return &b->buf;
}

size_t vv_bufpool_trim(struct vv_bufpool *p)
{
    struct pooled *gone[VV_BUFPOOL_SPARE];
    size_t bytes = 0;
    pthread_mutex_lock(&p->lock);
    memcpy(gone, p->spare, sizeof gone);
    memset(p->spare, 0, sizeof p->spare);
    pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < VV_BUFPOOL_SPARE; i++) {
        bytes += gone[i] ? gone[i]->room : 0;
        unmap(gone[i]);
    }
    return bytes;
}

void vv_bufpool_free(struct vv_bufpool *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->closed = true;
    pthread_mutex_unlock(&p->lock);
    vv_bufpool_trim(p);
    pthread_mutex_lock(&p->lock);
    let_go(p);
}
