/* bytes.c — varints, CRC32C, UUID text. Contract: varve/bytes.h. Pure; any thread.
 * Varint: Protocol Buffers base-128 with zigzag, as the Kafka record format uses it. CRC32C by ISA-L. */
#include "varve/bytes.h"

#include <isa-l/crc.h>

/* Reads up to max_bytes 7-bit groups; the last group may carry at most last_bits bits. */
static size_t base128_get(const uint8_t *p, size_t n, size_t max_bytes, unsigned last_max, uint64_t *v)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n && i < max_bytes; i++) {
        value |= (uint64_t)(p[i] & 0x7f) << (7 * i);
        if (!(p[i] & 0x80)) {
            if (i + 1 == max_bytes && p[i] > last_max) return 0;
            *v = value;
            return i + 1;
        }
    }
    return 0;
}

static size_t base128_put(uint8_t *p, uint64_t v)
{
    size_t n = 0;
    while (v >= 0x80) {
        p[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    p[n++] = (uint8_t)v;
    return n;
}

size_t vv_uvarint_get(const uint8_t *p, size_t n, uint32_t *v)
{
    uint64_t wide;
    size_t used = base128_get(p, n, 5, 0x0f, &wide);
    if (used) *v = (uint32_t)wide;
    return used;
}

size_t vv_uvarint_put(uint8_t *p, uint32_t v)
{
    return base128_put(p, v);
}

size_t vv_varint_get(const uint8_t *p, size_t n, int32_t *v)
{
    uint32_t u;
    size_t used = vv_uvarint_get(p, n, &u);
    if (used) *v = (int32_t)((u >> 1) ^ (0u - (u & 1)));
    return used;
}

size_t vv_varint_put(uint8_t *p, int32_t v)
{
    return base128_put(p, ((uint32_t)v << 1) ^ (uint32_t)(v >> 31));
}

size_t vv_varlong_get(const uint8_t *p, size_t n, int64_t *v)
{
    uint64_t u;
    size_t used = base128_get(p, n, 10, 0x01, &u);
    if (used) *v = (int64_t)((u >> 1) ^ (0u - (u & 1)));
    return used;
}

size_t vv_varlong_put(uint8_t *p, int64_t v)
{
    return base128_put(p, ((uint64_t)v << 1) ^ (uint64_t)(v >> 63));
}

uint32_t vv_crc32c(uint32_t crc, const void *p, size_t n)
{
    /* ISA-L wants the running (uninverted) register and an int length. */
    const uint8_t *at = p;
    unsigned reg = ~crc;
    while (n) {
        int step = n > (1u << 30) ? (1 << 30) : (int)n;
        reg = crc32_iscsi((unsigned char *)(uintptr_t)at, step, reg);
        at += step;
        n -= (size_t)step;
    }
    return ~reg;
}

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void vv_uuid_text(struct vv_uuid u, char out[23])
{
    unsigned acc = 0, bits = 0, at = 0;
    for (size_t i = 0; i < 16; i++) {
        acc = (acc << 8) | u.b[i];
        bits += 8;
        while (bits >= 6) {
            bits -= 6;
            out[at++] = b64[(acc >> bits) & 63];
        }
    }
    out[at++] = b64[(acc << (6 - bits)) & 63];
    out[at] = 0;
}

bool vv_uuid_parse(const char *text, struct vv_uuid *out)
{
    unsigned acc = 0, bits = 0, at = 0;
    if (strlen(text) != 22) return false;
    for (size_t i = 0; i < 22; i++) {
        const char *hit = strchr(b64, text[i]);
        if (!hit || !text[i]) return false;
        acc = (acc << 6) | (unsigned)(hit - b64);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out->b[at++] = (uint8_t)(acc >> bits);
        }
    }
    return (acc & 0x0f) == 0; /* 22 * 6 - 128 = 4 padding bits */
}
