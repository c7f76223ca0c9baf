/* scarce.c — preloaded by scarce.py: allocations and threads that fail when the test says so, while the broker runs.
 *
 * The file that SCARCE names is shared memory of both (struct scarce); all zero means that nothing fails. What the dynamic loader
 * allocates never fails: glibc itself ends the process then. `place`: callers that did not fail yet, told apart by their stacks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DEPTH = 7, SHOWN = 16, PLACES = 1 << 16 };

struct scarce {
    _Atomic uint64_t calls;   /* allocations so far */
    _Atomic uint64_t at;      /* this one of them fails; 0: none */
    _Atomic uint64_t share;   /* of a thousand, so many fail */
    _Atomic uint64_t place;   /* 1: the next one from a place that did not fail yet fails, and this is 0 again */
    _Atomic uint64_t every, turn; /* with place: only places of which one in `every` is taken, the turn-th; 0: all */
    _Atomic uint64_t threads; /* so many pthread_creates fail */
    _Atomic uint64_t failed, threads_failed;
    uint64_t depth, stack[SHOWN]; /* of the last failure */
};

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

static struct scarce *scarce;
static const void *loader;
static _Atomic uint8_t *seen;
static _Thread_local int busy __attribute__((tls_model("initial-exec")));

__attribute__((constructor)) static void begin(void)
{
    void *warm[2];
    const char *path = getenv("SCARCE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    backtrace(warm, 2); /* loads what it needs now */
    Dl_info d;
    if (dladdr(dlsym(RTLD_DEFAULT, "__tls_get_addr"), &d)) loader = d.dli_fbase;
    seen = mmap(NULL, PLACES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fd < 0) return;
    void *p = mmap(NULL, sizeof *scarce, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED) scarce = p;
}

static bool of_loader(const void *caller)
{
    Dl_info d;
    return loader && dladdr(caller, &d) && d.dli_fbase == loader;
}

static bool new_place(void **stack, int n)
{
    uint64_t h = 14695981039346656037u;
    for (int i = 2; i < n && i < 2 + DEPTH; i++) h = (h ^ (uintptr_t)stack[i]) * 1099511628211u, h ^= h >> 29;
    uint64_t every = atomic_load(&scarce->every);
    if (every && (h >> 20) % every != atomic_load(&scarce->turn)) return false;
    return !atomic_exchange(&seen[h % PLACES], 1);
}

static bool fails(const void *caller)
{
    struct scarce *s = scarce;
    if (!s || busy) return false;
    uint64_t call = atomic_fetch_add(&s->calls, 1) + 1, at = atomic_load(&s->at), share = atomic_load(&s->share);
    bool place = atomic_load(&s->place);
    if (call != at && !place && !(share && call * 2654435761u / 65536 % 1000 < share)) return false;
    busy = 1;
    void *stack[SHOWN + 2];
    int n = place || call == at ? backtrace(stack, SHOWN + 2) : 0;
    uint64_t one = 1;
    bool fail = !of_loader(caller) && (!place || (new_place(stack, n) && atomic_compare_exchange_strong(&s->place, &one, 0)));
    if (fail) {
        for (int i = 2; i < n; i++) s->stack[i - 2] = (uintptr_t)stack[i];
        s->depth = n > 2 ? (uint64_t)n - 2 : 0;
        atomic_fetch_add(&s->failed, 1);
        errno = ENOMEM;
    }
    busy = 0;
    return fail;
}

void *malloc(size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}

void *memalign(size_t align, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(align, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(align, n);
}

int posix_memalign(void **p, size_t align, size_t n)
{
    void *got = fails(__builtin_return_address(0)) ? NULL : __libc_memalign(align, n);
    if (got) *p = got;
    return got ? 0 : ENOMEM;
}

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg)
{
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!next) next = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
    uint64_t left = scarce ? atomic_load(&scarce->threads) : 0;
    while (left && !atomic_compare_exchange_weak(&scarce->threads, &left, left - 1)) {}
    if (left) {
        atomic_fetch_add(&scarce->threads_failed, 1);
        return EAGAIN;
    }
    return next(t, a, run, arg);
}
