/* group_map.c — the coordinator's hash table; rules in group_map.h. */
#include "group_map.h"

#include <stdlib.h>

static uint64_t hash_seed = 0x9e3779b97f4a7c15u;

void vv_gmap_seed(uint64_t seed)
{
    hash_seed = seed | 1;
}

static uint64_t hash(struct vv_str key)
{
    uint64_t h = hash_seed;
    for (int32_t i = 0; i < key.n; i++) h = (h ^ (uint8_t)key.p[i]) * 0x100000001b3u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

static int grow(struct vv_gmap *m)
{
    size_t cap = m->cap ? m->cap * 2 : 8;
    struct vv_gnode **v = calloc(cap, sizeof *v);
    if (!v) return m->cap ? 0 : VV_E_NOMEM; /* longer chains are still right */
    for (size_t i = 0; i < m->cap; i++) {
        while (m->v[i]) {
            struct vv_gnode *node = m->v[i];
            m->v[i] = node->next;
            node->next = v[node->hash & (cap - 1)];
            v[node->hash & (cap - 1)] = node;
        }
    }
    free(m->v);
    m->v = v;
    m->cap = cap;
    return 0;
}

int vv_gmap_put(struct vv_gmap *m, struct vv_gnode *node, struct vv_str key)
{
    if (m->count >= m->cap && grow(m)) return VV_E_NOMEM;
    node->key = key;
    node->hash = hash(key);
    struct vv_gnode **bucket = &m->v[node->hash & (m->cap - 1)];
    node->next = *bucket;
    *bucket = node;
    m->count++;
    return 0;
}

struct vv_gnode *vv_gmap_get(const struct vv_gmap *m, struct vv_str key)
{
    if (!m->count || key.n < 0) return NULL;
    uint64_t h = hash(key);
    for (struct vv_gnode *node = m->v[h & (m->cap - 1)]; node; node = node->next)
        if (node->hash == h && vv_str_eq(node->key, key)) return node;
    return NULL;
}

void vv_gmap_remove(struct vv_gmap *m, struct vv_gnode *node)
{
    struct vv_gnode **at = &m->v[node->hash & (m->cap - 1)];
    while (*at != node) at = &(*at)->next;
    *at = node->next;
    node->next = NULL;
    m->count--;
}

void vv_gmap_release(struct vv_gmap *m)
{
    free(m->v);
    *m = (struct vv_gmap){0};
}

struct vv_gnode *vv_gmap_next(const struct vv_gmap *m, struct vv_gcursor *c)
{
    if (!c->started && m->cap) c->next = m->v[0];
    c->started = true;
    while (!c->next && c->bucket + 1 < m->cap) c->next = m->v[++c->bucket];
    struct vv_gnode *node = c->next;
    if (node) c->next = node->next;
    return node;
}
