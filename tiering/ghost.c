/* ghost.c — see ghost.h. */
#include "ghost.h"

#include <stdlib.h>

static uint64_t mix(uint64_t h)
{
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    h ^= h >> 33;
    return h ? h : 1;
}

static bool has(const struct vv_ghost *g, const uint64_t *table, uint64_t mark)
{
    for (size_t i = mark & (g->slots - 1); table[i]; i = (i + 1) & (g->slots - 1))
        if (table[i] == mark) return true;
    return false;
}

static void add(struct vv_ghost *g, uint64_t mark)
{
    if (g->young_count == g->capacity) { /* the old table is emptied and used again */
        uint64_t *t = g->old;
        for (size_t i = 0; i < g->slots; i++) t[i] = 0;
        g->old = g->young;
        g->young = t;
        g->young_count = 0;
    }
    size_t i = mark & (g->slots - 1);
    while (g->young[i]) i = (i + 1) & (g->slots - 1);
    g->young[i] = mark;
    g->young_count++;
}

void vv_ghost_release(struct vv_ghost *g)
{
    free(g->young);
    free(g->old);
    *g = (struct vv_ghost){0};
}

void vv_ghost_resize(struct vv_ghost *g, size_t capacity)
{
    if (capacity == g->capacity) return;
    vv_ghost_release(g);
    g->capacity = capacity;
}

static bool ready(struct vv_ghost *g)
{
    if (g->young) return true;
    if (!g->capacity) return false;
    for (g->slots = 16; g->slots < g->capacity * 3 / 2;) g->slots *= 2;
    g->young = calloc(g->slots, sizeof *g->young);
    g->old = calloc(g->slots, sizeof *g->old);
    if (g->young && g->old) return true;
    free(g->young);
    free(g->old);
    g->young = g->old = NULL;
    return false;
}

/* The marks of a range: `grain` from first to before end; none: the one of its first byte. */
struct marks { uint64_t object, first, end, single; };

static struct marks marks_of(uint64_t object, uint64_t at, size_t n)
{
    struct marks m = {object, (at + VV_GHOST_GRAIN - 1) / VV_GHOST_GRAIN, (at + n + VV_GHOST_GRAIN - 1) / VV_GHOST_GRAIN, 0};
    if (m.first >= m.end) {
        m.single = at * 2 + 1;
        m.end = m.first + 1;
    }
    return m;
}

static uint64_t mark(const struct marks *m, uint64_t i)
{
    return mix(m->object ^ mix(m->single ? m->single : i * 2));
}

bool vv_ghost_again(struct vv_ghost *g, uint64_t object, uint64_t at, size_t n)
{
    struct marks m = marks_of(object, at, n);
    bool all = true;
    if (!ready(g)) return false;
    for (uint64_t i = m.first; i < m.end; i++) {
        uint64_t one = mark(&m, i);
        if (has(g, g->young, one)) continue;
        all &= has(g, g->old, one);
        add(g, one);
    }
    return all;
}

bool vv_ghost_has(const struct vv_ghost *g, uint64_t object, uint64_t at, size_t n)
{
    struct marks m = marks_of(object, at, n);
    if (!g->young) return false;
    for (uint64_t i = m.first; i < m.end; i++)
        if (!has(g, g->young, mark(&m, i)) && !has(g, g->old, mark(&m, i))) return false;
    return true;
}
