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
#define LOOKS_MAX 16 /* spares looked at for one that fits */

struct pooled {
    struct vv_buf buf;           /* first: release() gets it */
    struct pooled *newer, *older; /* spares */
    size_t room;                 /* bytes mapped at data */
};

struct vv_bufpool {
    pthread_mutex_t lock;
    size_t refs;
    bool closed;
    size_t spare_max, promised, spare_bytes;
    struct pooled *newest, *oldest;
};

static void unmap(struct pooled *b)
{
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

/* with lock: out of the spares */
static struct pooled *take(struct vv_bufpool *p, struct pooled *b)
{
    *(b->newer ? &b->newer->older : &p->newest) = b->older;
    *(b->older ? &b->older->newer : &p->oldest) = b->newer;
    p->spare_bytes -= b->room;
    return b;
}

/* with lock: spares above the limit, linked by `older` */
static struct pooled *surplus(struct vv_bufpool *p)
{
    struct pooled *drop = NULL;
    while (p->oldest && p->spare_bytes > p->spare_max + p->promised) {
        struct pooled *b = take(p, p->oldest);
        b->older = drop;
        drop = b;
    }
    return drop;
}

static void unmap_all(struct pooled *b)
{
    while (b) {
        struct pooled *older = b->older;
        unmap(b);
        b = older;
    }
}

static void give_back(struct vv_buf *buf)
{
    struct pooled *b = (struct pooled *)buf, *drop;
    struct vv_bufpool *p = buf->owner;
    pthread_mutex_lock(&p->lock);
    b->newer = NULL;
    b->older = p->newest;
    *(p->newest ? &p->newest->newer : &p->oldest) = b;
    p->newest = b;
    p->spare_bytes += b->room;
    drop = surplus(p);
    let_go(p);
    unmap_all(drop);
}

void vv_bufpool_promise(struct vv_bufpool *p, size_t n)
{
    pthread_mutex_lock(&p->lock);
    p->promised += n;
    pthread_mutex_unlock(&p->lock);
}

void vv_bufpool_unpromise(struct vv_bufpool *p, size_t n)
{
    pthread_mutex_lock(&p->lock);
    p->promised -= n;
    pthread_mutex_unlock(&p->lock);
}

struct vv_bufpool *vv_bufpool_new(size_t spare_bytes)
{
    struct vv_bufpool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->refs = 1;
    p->spare_max = spare_bytes;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

struct vv_buf *vv_bufpool_get(struct vv_bufpool *p, size_t n)
{
    if (n < VV_BUFPOOL_FROM) return vv_buf_new(n);
    struct pooled *b = NULL, *s;
    int looks = 0;
    pthread_mutex_lock(&p->lock);
    for (s = p->newest; s && !b && looks++ < LOOKS_MAX; s = s->older)
        if (s->room >= n && s->room - n <= (s->room < MIB ? s->room / 3 : s->room / 8)) b = s;
    if (b) take(p, b);
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
    pthread_mutex_lock(&p->lock);
    size_t bytes = p->spare_bytes, promised = p->promised, spare_max = p->spare_max;
    p->promised = p->spare_max = 0;
    struct pooled *drop = surplus(p);
    p->promised = promised;
    p->spare_max = p->closed ? 0 : spare_max;
    pthread_mutex_unlock(&p->lock);
    unmap_all(drop);
    return bytes;
}

void vv_bufpool_free(struct vv_bufpool *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->closed = true;
    p->promised = 0;
    pthread_mutex_unlock(&p->lock);
    vv_bufpool_trim(p);
    pthread_mutex_lock(&p->lock);
    let_go(p);
}
