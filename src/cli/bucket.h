/* bucket.h — what the commands that read a bucket share: `varve replay`, `ls`, `inspect`, `verify`. The first operand
 * is the URL;
 * --config and --set say how to reach it, as for the broker. One thread. */
#ifndef VARVE_CLI_BUCKET_H
#define VARVE_CLI_BUCKET_H
#include "cli.h"
#include "varve/reader.h"

/* NULL after a message; *rc is the exit code then. */
struct vv_bucket *vv_cli_bucket(const struct vv_args *a, int *rc);
/* --config and --set, and what they say of the store: it points into the configuration, which the caller releases in any
 * case. An exit code, after a message. */
struct vv_broker_config;
int vv_cli_store_config(const struct vv_args *a, struct vv_broker_config *config, struct vv_objstore_config *out);
/* Says it; the exit code: 3 for damage, else 1. */
int vv_cli_bucket_fail(const struct vv_args *a, int err, const struct vv_error *e);

struct vv_cli_logs { /* the partitions that a command works on; release even after an error */
    struct vv_bucket_log **v;
    size_t n;
};
/* All partitions of a topic, or one (-1 = all). An exit code, after a message. */
int vv_cli_logs_open(const struct vv_args *a, struct vv_bucket *b, const char *topic, int32_t partition,
                     struct vv_cli_logs *out);
void vv_cli_logs_close(struct vv_cli_logs *l);

struct vv_position { bool given, is_time; int64_t at; };
/* A bare integer is an offset; RFC 3339 or ts:MILLIS a time. False: neither. */
bool vv_position_parse(const char *text, struct vv_position *out);
/* 2026-01-02T03:04:05.678Z; "-" for -1. */
const char *vv_time_text(int64_t ms, char out[40]);
#endif
