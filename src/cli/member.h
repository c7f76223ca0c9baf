/* member.h — a member of a consumer group over the blocking client: join, assignment, fetch,
 * commit, leave.
 *
 * One thread owns a member; it lives inside vv_member_poll (a group notices a member that is not
 * polled for its session timeout). Assignor: range, by the leader, as Kafka's. */
#ifndef VARVE_CLI_MEMBER_H
#define VARVE_CLI_MEMBER_H
#include "client.h"
#include "varve/log.h"

struct vv_member;
int vv_member_new(const char *bootstrap, const char *client_id, const char *group,
                  const char *topic, struct vv_member **out, struct vv_error *e);
/* Joins when needed, fetches for up to wait_ms, calls each for every record. Returns 0 or an
 * error worth ending for; a non-zero result of each stops and is returned. */
int vv_member_poll(struct vv_member *m, int wait_ms,
                   int (*each)(void *ctx, int32_t partition, const struct vv_record *r), void *ctx,
                   struct vv_error *e);
int vv_member_commit(struct vv_member *m, struct vv_error *e); /* what polls returned so far */
int32_t vv_member_partitions(const struct vv_member *m);       /* assigned now */
int vv_member_rebalances(const struct vv_member *m);
/* How far behind the ends it saw last it is, summed; INT64_MAX before the first fetch. */
int64_t vv_member_lag(const struct vv_member *m);
void vv_member_close(struct vv_member *m); /* leaves the group; NULL is fine */

/* Fetches one partition from an offset (no group): whole batches. *next is behind the last record
 * given to each. */
int vv_fetch_partition(struct vv_client *c, const struct vv_part_ref *part, int wait_ms,
                       int32_t max_bytes,
                       int (*each)(void *ctx, int32_t partition, const struct vv_record *r),
                       void *ctx, int64_t *next, size_t *bytes, struct vv_error *e);
#endif
