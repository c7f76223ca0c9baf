/* fetch.h — one Fetch under way: the operation and its partitions. The life of it is told in README.md.
 *
 * Invariants: an operation belongs to the reactor of its connection and is touched there only; what runs elsewhere (a
 * read on the iopool, a read of the tier) owns its struct fetch_io until it posts the part's task, which is the last
 * thing it does. The answer goes out once: when `ended` is set, no read is pending and the operation's task is not
 * queued. Everything lives in the exchange's arena; a part holds a reference to its topic until the answer. */
#ifndef VARVE_API_FETCH_H
#define VARVE_API_FETCH_H
#include "broker.h"
#include "call.h"
#include "fetch_session.h"
#include "partition.h"
#include "quota.h"

enum fetch_pending { FETCH_IDLE, FETCH_LOOKUP, FETCH_LOCAL, FETCH_REMOTE, FETCH_ABORTED };

struct fetch_io { /* a read that could not be answered at once */
    struct vv_work work;
    struct vv_extent extent;
    struct vv_read read;
    struct vv_chain bytes;
    struct vv_tier_read remote;
    struct vv_error error;
    struct vv_aborted *aborted; /* malloc'ed */
    size_t aborted_n;
    int err;
};

struct fetch_op;
struct fetch_part {
    struct fetch_op *op;
    struct vv_str topic_name;
    struct vv_uuid topic_id;
    struct FetchRequest_FetchPartition q;
    struct vv_session_part *cached; /* NULL: no session */
    struct vv_topic *topic;
    struct vv_partition *partition; /* NULL: err says why */
    int err;
    bool diverging, stuck; /* stuck: below its limit, but nothing more fits or may be read now */
    bool held;             /* stuck, until the client's quota of cold reads allows the next one */
    struct FetchResponse_EpochEndOffset diverges;
    int64_t next, seen_limit; /* next offset to read; readable end when last looked */
    int64_t left;             /* of PartitionMaxBytes */
    int64_t reserved;         /* of the operation's bytes, by the pending read */
    bool min_one;             /* the pending read has the right to one whole batch */
    struct vv_chain bytes;
    struct vv_aborted *aborted; /* of the remote bytes; malloc'ed */
    size_t aborted_n;
    int again; /* the tier said "not remote any more, look it up again" */
    enum fetch_pending pending;
    struct fetch_io *io;
    struct vv_task task; /* a read has ended */
    struct vv_waiter waiter;
};

struct fetch_op {
    struct vv_call *c;
    struct vv_fetch_session *session;
    struct fetch_part *parts;
    int32_t part_count, pending, cold_pending;
    int32_t first;  /* whose turn it is to be read first */
    int32_t hungry; /* about how many behind a cold one have something to read too; -1 = not counted in this step */
    int64_t left, bytes; /* budget not yet reserved; bytes got */
    int64_t hot_max;     /* bytes of the answer after which nothing more is read from memory */
    bool by_id, committed, follower, failed, ended, min_one_given;
    bool prewarm; /* into the disk cache; the answer tells how far, and carries no records */
    int64_t due_us, cold_due_us;
    int64_t held_until_us; /* parts are held: look again then; 0: none */
    struct vv_timer timer;
    struct vv_task task; /* a partition has moved */
};

/* fetch_read.c: reads what is there; afterwards the part is pending, failed, stuck or at its limit. */
void vv_fetch_advance(struct fetch_part *part);
int64_t vv_fetch_limit(const struct fetch_part *part);
void vv_fetch_fail(struct fetch_part *part, int err, const char *text);
/* The part's task: takes the result of its pending read over. */
void vv_fetch_take(struct fetch_part *part);

/* fetch.c: milliseconds the client has to wait before it may have n bytes more (0: only asks). */
int64_t vv_fetch_quota(struct fetch_op *op, enum vv_quota_kind kind, uint64_t n);

/* fetch_reply.c: answers and gives everything back. */
void vv_fetch_reply(struct fetch_op *op);
#endif
