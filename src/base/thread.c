/* thread.c — see varve/thread.h. */
#include "varve/thread.h"
#include "varve/bytes.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>

static atomic_bool told;
static atomic_int wanted; /* as the kernel counts: the process's own is in it */

void vv_background_nice(int nice)
{
    atomic_store(&wanted, VV_MIN(getpriority(PRIO_PROCESS, 0) + nice, 19)); /* of 0: the calling thread's, on Linux */
    atomic_store(&told, true);
}

void vv_thread_background(const char *name)
{
    pthread_setname_np(pthread_self(), name);
    if (atomic_load(&told)) setpriority(PRIO_PROCESS, 0, atomic_load(&wanted)); /* refused: then it is as the others */
}
