/* export.h — records as text: NDJSON, JSON, CSV, or their bare values. Pure: bytes go into a buffer that the caller
 * empties.
 *
 * NDJSON and JSON: {"topic","partition","offset","timestamp","timestampType","key","value","headers"}; bytes that are
 * UTF-8 are a string, others {"base64": "..."}, null is null; headers are [{"key","value"}...], for names may repeat.
 * CSV: the same
 * columns (RFC 4180, LF); null is an empty cell, the empty string "", other bytes and headers their JSON. raw: the
 * value and LF. */
#ifndef VARVE_CLI_EXPORT_H
#define VARVE_CLI_EXPORT_H
#include "varve/log.h"

enum vv_export_format { VV_EXPORT_NDJSON, VV_EXPORT_JSON, VV_EXPORT_CSV, VV_EXPORT_RAW };
struct vv_text { /* init {0}; free p */
    char *p;
    size_t n, cap;
    bool broken; /* out of memory */
};
struct vv_export {
    enum vv_export_format format;
    const char *topic;
    int32_t partition;
    uint64_t records; /* written so far */
    struct vv_text out, scratch, prefix;
    int32_t prefix_of; /* partition */
};
bool vv_export_format_parse(const char *text, enum vv_export_format *out);
void vv_export_begin(struct vv_export *x);
void vv_export_record(struct vv_export *x, const struct vv_record *r, enum vv_ts_type type);
void vv_export_end(struct vv_export *x);
void vv_export_release(struct vv_export *x);
bool vv_utf8_ok(const uint8_t *p, size_t n);
#endif
