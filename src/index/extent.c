/* extent.c — the life cycle table, and an extent as bytes. See varve/index.h and extent.h. */
#include "extent.h"

const char *vv_extent_state_name(enum vv_extent_state s)
{
    static const char *const names[] = {
#define VV_X(name) #name,
        VV_EXTENT_STATES(VV_X)
#undef VV_X
    };
    return (unsigned)s < VV_COUNT(names) ? names[s] : "?";
}

/* Legal moves, one row per state. Nothing leads from a state in which local bytes are the only proven copy to REMOTE:
 * forgetting live local data before BOTH cannot be written down. */
#define TO(s) (1u << VV_EXTENT_##s)
static const unsigned legal[] = {
    [VV_EXTENT_OPEN] = TO(SEALED) | TO(DELETING),
    [VV_EXTENT_SEALED] = TO(OPEN) | TO(UPLOADING) | TO(DELETING),
    [VV_EXTENT_UPLOADING] = TO(SEALED) | TO(BOTH) | TO(DELETING),
    [VV_EXTENT_BOTH] = TO(REMOTE) | TO(TOMBSTONED) | TO(DELETING),
    [VV_EXTENT_REMOTE] = TO(BOTH) | TO(TOMBSTONED) | TO(DELETING),
    [VV_EXTENT_TOMBSTONED] = TO(DELETING) | TO(REMOTE),
    [VV_EXTENT_DELETING] = 0,
};

bool vv_extent_move_legal(enum vv_extent_state from, enum vv_extent_state to)
{
    return (unsigned)from < VV_COUNT(legal) && (unsigned)to < VV_COUNT(legal) && (legal[from] & (1u << to));
}

void vv_extent_encode(const struct vv_extent *x, uint8_t *p)
{
    const uint64_t v[] = {(uint64_t)x->base,      (uint64_t)x->last,    (uint64_t)x->first_ts,
                          (uint64_t)x->max_ts,    (uint64_t)x->sealed_ms, (uint64_t)x->dead_ms,
                          x->bytes,               x->object_bytes,      x->nonce};
    memset(p, 0, VV_EXTENT_BYTES);
    for (size_t i = 0; i < VV_COUNT(v); i++) vv_put64(p + i * 8, v[i]);
    vv_put32(p + 72, x->generation);
    vv_put32(p + 76, (uint32_t)x->epoch);
    p[80] = (uint8_t)x->state;
    vv_put64(p + 88, x->stored_bytes);
}

int vv_extent_decode(const uint8_t *p, struct vv_extent *x)
{
    *x = (struct vv_extent){
        .base = (int64_t)vv_get64(p),
        .last = (int64_t)vv_get64(p + 8),
        .first_ts = (int64_t)vv_get64(p + 16),
        .max_ts = (int64_t)vv_get64(p + 24),
        .sealed_ms = (int64_t)vv_get64(p + 32),
        .dead_ms = (int64_t)vv_get64(p + 40),
        .bytes = vv_get64(p + 48),
        .object_bytes = vv_get64(p + 56),
        .nonce = vv_get64(p + 64),
        .generation = vv_get32(p + 72),
        .epoch = (int32_t)vv_get32(p + 76),
        .state = (enum vv_extent_state)p[80],
        .stored_bytes = vv_get64(p + 88),
    };
    if (p[80] >= VV_COUNT(legal) || x->base < 0 || x->last < x->base) return VV_E_CORRUPT;
    return VV_OK;
}
