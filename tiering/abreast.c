/* abreast.c — see abreast.h. */
#include "abreast.h"
#include "varve/bytes.h"

#include <pthread.h>
#include <stdatomic.h>

struct abreast {
    size_t n;
    _Atomic size_t next;
    void (*one)(void *ctx, size_t i);
    void *ctx;
};

static void *take(void *arg)
{
    struct abreast *a = arg;
    for (size_t i; (i = atomic_fetch_add(&a->next, 1)) < a->n;) a->one(a->ctx, i);
    return NULL;
}

void vv_abreast(size_t n, size_t width, void (*one)(void *ctx, size_t i), void *ctx)
{
    struct abreast a = {.n = n, .one = one, .ctx = ctx};
    pthread_t threads[VV_ABREAST_MAX];
    size_t started = 0, want = VV_MIN(VV_MIN(width, (size_t)VV_ABREAST_MAX), n);
    while (started + 1 < want && !pthread_create(&threads[started], NULL, take, &a)) started++;
    take(&a);
    for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
}
