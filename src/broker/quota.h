/* quota.h — client quotas at work: what each client used lately, and how long it must wait.
 *
 * As Kafka does it: a rate is the sum of the last quota.window.num windows of quota.window.size.seconds, the current
 * one too, over their time, never over less than all but one of them: what was not used lately may be used at once. Who
 * is above its limit waits until the rate would have fallen to it; the answer says so and the connection is not read
 * from meanwhile (KIP-219). Nothing is refused.
 *
 * Threads: recording on any; changes of the quotas on control. One mutex around the meters; without any quota nothing
 * is locked or looked up. */
#ifndef VARVE_BROKER_QUOTA_H
#define VARVE_BROKER_QUOTA_H
#include "quota_set.h"
#include "varve/env.h"

#include <stdatomic.h>

struct vv_quotas {
    _Atomic bool on[VV_QUOTA_KINDS]; /* there is a quota of this kind */
    struct vv_quota_set set;         /* as of now; changed on control with the meters' lock */
    struct vv_quota_meters *meters;
};
int vv_quotas_new(int windows, int64_t window_ms, struct vv_quotas **out);
void vv_quotas_free(struct vv_quotas *q); /* NULL is fine */
/* The set from now on; *set is taken over. */
void vv_quotas_use(struct vv_quotas *q, struct vv_quota_set *set);
/* For clients without a quota of this kind of their own, each; 0: none. */
void vv_quotas_default(struct vv_quotas *q, enum vv_quota_kind kind, int64_t limit);

/* The slow half of what is below. */
int64_t vv_quota_count(struct vv_quotas *q, enum vv_quota_kind kind, struct vv_str client, uint64_t n, int64_t now_ms);
int64_t vv_quota_burst_of(struct vv_quotas *q, enum vv_quota_kind kind, struct vv_str client);

static inline bool vv_quota_on(struct vv_quotas *q, enum vv_quota_kind kind)
{
    return q && atomic_load_explicit(&q->on[kind], memory_order_relaxed);
}
/* Counts n more (0: only asks). Milliseconds this client has to wait, 0 when it may go on. */
static inline int64_t vv_quota_record(struct vv_quotas *q, enum vv_quota_kind kind, struct vv_str client, uint64_t n,
                                      int64_t now_ms)
{
    return vv_quota_on(q, kind) ? vv_quota_count(q, kind, client, n, now_ms) : 0;
}
/* The most one answer may hold: what the quota allows in all windows. */
static inline int64_t vv_quota_burst(struct vv_quotas *q, enum vv_quota_kind kind, struct vv_str client)
{
    return vv_quota_on(q, kind) ? vv_quota_burst_of(q, kind, client) : INT64_MAX;
}

/* Everybody is this user until there is authentication. */
#define VV_QUOTA_USER VV_STR_LIT("ANONYMOUS")
#endif
