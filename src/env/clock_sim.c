/* clock_sim.c — time and chance under control: contract in env_sim.h. Any thread. */
#include "env_sim.h"
#include "varve/vlog.h"

#include <string.h>

static int64_t sim_wall_ms(void *clock)
{
    return ((struct vv_clock_sim *)clock)->wall_ms;
}

static int64_t sim_mono_us(void *clock)
{
    return ((struct vv_clock_sim *)clock)->mono_us;
}

const struct vv_clock_ops vv_clock_sim_ops = {.wall_ms = sim_wall_ms, .mono_us = sim_mono_us};

void vv_clock_sim_init(struct vv_clock_sim *c, int64_t wall_ms)
{
    c->wall_ms = wall_ms;
    c->mono_us = 1000000;
}

void vv_clock_sim_advance(struct vv_clock_sim *c, int64_t ms)
{
    VV_ASSERT(ms >= 0);
    c->wall_ms += ms;
    c->mono_us += ms * 1000;
}

void vv_clock_sim_jump(struct vv_clock_sim *c, int64_t ms)
{
    c->wall_ms += ms;
}

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = *x += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void vv_rand_seed(struct vv_rand *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) r->s[i] = splitmix(&seed);
}

static uint64_t rotate(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t vv_rand_next(struct vv_rand *r)
{
    uint64_t *s = r->s, out = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return out;
}

uint64_t vv_rand_below(struct vv_rand *r, uint64_t n)
{
    VV_ASSERT(n > 0);
    return vv_rand_next(r) % n; /* the bias is far below what a test could see */
}

bool vv_rand_percent(struct vv_rand *r, unsigned percent)
{
    return vv_rand_below(r, 100) < percent;
}

void vv_random_seeded_init(struct vv_random_seeded *s, uint64_t seed)
{
    pthread_mutex_init(&s->mu, NULL);
    vv_rand_seed(&s->r, seed);
}

static void seeded_fill(void *random, void *dst, size_t n)
{
    struct vv_random_seeded *s = random;
    uint8_t *p = dst;
    pthread_mutex_lock(&s->mu);
    while (n) {
        uint64_t v = vv_rand_next(&s->r);
        size_t k = n < sizeof v ? n : sizeof v;
        memcpy(p, &v, k);
        p += k;
        n -= k;
    }
    pthread_mutex_unlock(&s->mu);
}

const struct vv_random_ops vv_random_seeded_ops = {.fill = seeded_fill};
