/* member.h — a member of a consumer group over the blocking client: join, assignment, fetch,
 * commit, leave.
 *
 * One thread owns a member; it lives inside vv_consumer_poll (a group notices a member that is not
 * polled for its session timeout). Assignor: range, by the leader, as Kafka's. */
#ifndef VARVE_CLI_MEMBER_H
#define VARVE_CLI_MEMBER_H
#include "client.h"
#include "varve/log.h"

struct vv_consumer;
int vv_consumer_new(const char *bootstrap, const char *client_id, const char *group,
                  const char *topic, struct vv_consumer **out, struct vv_error *e);
/* Joins when needed, fetches for up to wait_ms, calls each for every record. Returns 0 or an
 * error worth ending for; a non-zero result of each stops and is returned. */
int vv_consumer_poll(struct vv_consumer *m, int wait_ms,
                   int (*each)(void *ctx, int32_t partition, const struct vv_record *r), void *ctx,
                   struct vv_error *e);
int vv_consumer_commit(struct vv_consumer *m, struct vv_error *e); /* what polls returned so far */
int32_t vv_consumer_partitions(const struct vv_consumer *m);       /* assigned now */
int vv_consumer_rebalances(const struct vv_consumer *m);
/* How far behind the ends it saw last it is, summed; INT64_MAX before the first fetch. */
int64_t vv_consumer_lag(const struct vv_consumer *m);
void vv_consumer_close(struct vv_consumer *m); /* leaves the group; NULL is fine */

/* Fetches one partition from an offset (no group): whole batches. *next is behind the last record
 * given to each. */
int vv_fetch_partition(struct vv_client *c, const struct vv_part_ref *part, int wait_ms,
                       int32_t max_bytes,
                       int (*each)(void *ctx, int32_t partition, const struct vv_record *r),
                       void *ctx, int64_t *next, size_t *bytes, struct vv_error *e);
#endif
