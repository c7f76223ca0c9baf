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

static bool mark_one(struct vv_ghost *g, uint64_t mark)
{
    if (has(g, g->young, mark)) return true;
    bool seen = has(g, g->old, mark);
    add(g, mark);
    return seen;
}

bool vv_ghost_again(struct vv_ghost *g, uint64_t object, uint64_t at, size_t n)
{
    uint64_t first = (at + VV_GHOST_GRAIN - 1) / VV_GHOST_GRAIN, end = (at + n + VV_GHOST_GRAIN - 1) / VV_GHOST_GRAIN;
    bool all = true;
    if (!ready(g)) return false;
    if (first >= end) return mark_one(g, mix(object ^ mix(at * 2 + 1)));
    for (uint64_t i = first; i < end; i++) all &= mark_one(g, mix(object ^ mix(i * 2)));
    return all;
}
