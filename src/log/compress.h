/* compress.h — the four codecs of Kafka's record batches, in one shot each.
 *
 * Framing as Kafka's clients write it: gzip (RFC 1952), snappy (xerial's block stream, or raw), LZ4 frame, zstd frame.
 * Pure functions; any thread. Libraries: zlib, snappy, lz4, zstd. */
#ifndef VARVE_LOG_COMPRESS_H
#define VARVE_LOG_COMPRESS_H
#include "varve/log.h"

/* *out is malloc'ed, at most max bytes: memory grows as output appears, never by a declared size. E_LIMIT above max, E_CORRUPT, E_NOMEM. */
int vv_decompress(enum vv_codec codec, const uint8_t *p, size_t n, size_t max, uint8_t **out, size_t *out_n);
/* *out is malloc'ed. For our own tools and tests. */
int vv_compress(enum vv_codec codec, const uint8_t *p, size_t n, uint8_t **out, size_t *out_n);
#endif
