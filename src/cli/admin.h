/* admin.h — what the topic, group and tier commands share: opening a client, checking answers,
 * reading times. */
#ifndef VARVE_CLI_ADMIN_H
#define VARVE_CLI_ADMIN_H
#include "cli.h"
#include "client.h"

/* --bootstrap; says on stderr why when there is no client. */
struct vv_client *vv_admin_open(const struct vv_args *a);
/* "K=V" words into two arrays cut in place (malloc'ed copies; free with vv_admin_free_pairs).
 * False after a message. */
struct vv_admin_pair {
    char *key;
    const char *value;
};
bool vv_admin_pairs(const struct vv_args *a, const char *option, struct vv_admin_pair **out,
                    size_t *n);
void vv_admin_free_pairs(struct vv_admin_pair *p, size_t n);
/* RFC 3339 ("2026-03-01T00:00:00Z", "2026-03-01T01:00:00+01:00", "2026-03-01"), or ts:MILLIS ->
 * Unix ms. */
bool vv_admin_time(const char *text, int64_t *ms);
/* An error code of an answer with its text, on stderr: "topic x: INVALID_CONFIG: …". Returns
 * VV_EXIT_FAILED. */
int vv_admin_refused(const struct vv_args *a, const char *kind, struct vv_str name, int code,
                     struct vv_str message);

/* IncrementalAlterConfigs of one topic: each "K=V" is set, each "K" deleted. Used by topic alter
 * and the demo. */
int vv_admin_alter_broker(struct vv_client *c, int32_t node, const struct vv_admin_pair *pairs, size_t n, struct vv_error *e);
/* Where a broker's bucket is, and where it is being moved to; "" = nowhere. failed: that was given up. */
struct vv_admin_bucket { char url[512], migrates_to[512]; bool failed; };
int vv_admin_bucket(struct vv_client *c, int32_t node, struct vv_admin_bucket *out, struct vv_error *e);
int vv_admin_alter_topic(struct vv_client *c, const char *topic, const struct vv_admin_pair *pairs,
                         size_t n, struct vv_error *e); /* value NULL = delete */
int vv_admin_create_topic(struct vv_client *c, const char *topic, int32_t partitions,
                          int16_t replicas, const struct vv_admin_pair *configs, size_t n,
                          struct vv_error *e);

/* Sizes by partition of a topic (or all topics: NULL), from DescribeLogDirs of every broker that
 * leads it. */
struct vv_admin_size {
    int32_t partition;
    int64_t local, remote;
    int64_t segments, pending; /* objects in the bucket; bytes closed and not there yet. -1: the broker does not say */
    char topic[250];
};
int vv_admin_sizes(struct vv_client *c, const char *topic, struct vv_admin_size **out, size_t *n,
                   struct vv_error *e);
/* --price: what a GiB in the bucket costs a month. */
#define VV_PRICE_DEFAULT "0.023"
#define VV_OPT_PRICE                                                                               \
    {"price", 0, "USD", "A GiB in the bucket a month (default " VV_PRICE_DEFAULT ", S3 Standard)."}
bool vv_admin_price(const struct vv_args *a, double *price); /* false after a message */
struct vv_table;
void vv_admin_cost_cell(struct vv_table *t, int64_t bytes, double price); /* dollars a month */
#endif
