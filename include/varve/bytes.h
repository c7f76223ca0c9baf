/* bytes.h — big-endian loads and stores, varints (zigzag), CRC32C, UUIDs, small helpers. Header-only but for CRC. */
#ifndef VARVE_BYTES_H
#define VARVE_BYTES_H
#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include <stdbool.h>

static inline uint16_t vv_get16(const void *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static inline uint32_t vv_get32(const void *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint64_t vv_get64(const void *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
static inline void vv_put16(void *p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
static inline void vv_put32(void *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static inline void vv_put64(void *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }

/* Unsigned and zigzag varints (Kafka records, flexible versions). Read returns bytes used, 0 = truncated or
 * over-long. Write returns bytes written (≤ 5 for 32 bit, ≤ 10 for 64 bit). */
size_t vv_uvarint_get(const uint8_t *p, size_t n, uint32_t *v);
size_t vv_uvarint_put(uint8_t *p, uint32_t v);
size_t vv_varint_get(const uint8_t *p, size_t n, int32_t *v);
size_t vv_varint_put(uint8_t *p, int32_t v);
size_t vv_varlong_get(const uint8_t *p, size_t n, int64_t *v);
size_t vv_varlong_put(uint8_t *p, int64_t v);

/* CRC32C (Castagnoli), as Kafka's batches use it. crc = 0 to begin; feed the previous result to continue. */
uint32_t vv_crc32c(uint32_t crc, const void *p, size_t n);

struct vv_uuid { uint8_t b[16]; };
static inline bool vv_uuid_eq(struct vv_uuid a, struct vv_uuid b) { return !memcmp(a.b, b.b, 16); }
static inline bool vv_uuid_is_zero(struct vv_uuid a) { static const struct vv_uuid z; return !memcmp(a.b, z.b, 16); }
/* Kafka's text form: 22 characters of URL-safe base64 without padding, NUL-terminated. */
void vv_uuid_text(struct vv_uuid u, char out[23]);
bool vv_uuid_parse(const char *text, struct vv_uuid *out);

/* Both evaluate one of the two again: no calls that do something inside. */
#define VV_MIN(a, b) ((a) < (b) ? (a) : (b))
#define VV_MAX(a, b) ((a) > (b) ? (a) : (b))
#define VV_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define VV_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#endif
