/* replay.h — the engine below `varve bench`: many connections, pipelined requests, one epoll loop on one thread.
 *
 * What is sent is encoded beforehand by whoever uses it; the engine only puts a correlation id into the first bytes,
 * writes, reads whole responses into one buffer per connection, and hands them over. So the client costs little
 * beside the system calls. */
#ifndef VARVE_CLI_REPLAY_H
#define VARVE_CLI_REPLAY_H
#include "client.h"

struct vv_lane { /* one connection */
    struct vv_replay *replay;
    size_t index;
    int32_t node;
    void *user;
    /* the engine's */
    int fd, inflight;
    uint32_t events;
    uint8_t head[12]; /* length, key, version, correlation id of the request under way */
    const struct vv_chain *out;
    size_t sent;
    int32_t correlation, expected;
    uint8_t *in;
    size_t in_n, in_cap;
};

struct vv_replay_ops {
    /* The next request of this connection, with its length; it must stay as it is until it was sent whole, which is
     * certain when next is called again. NULL: nothing now; vv_replay_kick when there is. */
    const struct vv_chain *(*next)(void *ctx, struct vv_lane *l);
    /* A response from its correlation id on. Non-zero ends the run with that error. */
    int (*answer)(void *ctx, struct vv_lane *l, const uint8_t *p, size_t n, struct vv_error *e);
    bool (*finished)(void *ctx);                /* asked after every turn */
    void (*due)(void *ctx);                     /* the time given to vv_replay_wake_at has come; may be NULL */
    void (*progress)(void *ctx, int64_t us);    /* every 250 ms; may be NULL */
};

struct vv_replay { /* init with {0} and these: */
    const struct vv_replay_ops *ops;
    void *ctx;
    int inflight_max;
    bool silent; /* acks=0: nothing answers */
    int stall_ms; /* give up after that long without a byte; 0 = 30000 */
    /* filled in */
    struct vv_lane *lanes;
    size_t count;
    uint64_t bytes_out, bytes_in;
    int epoll_fd, timer_fd;
};
/* One connection to nodes[i] each. 0, or everything is closed again. */
int vv_replay_open(struct vv_replay *r, struct vv_client *c, const int32_t *nodes, size_t count, struct vv_error *e);
int vv_replay_run(struct vv_replay *r, struct vv_error *e);
void vv_replay_close(struct vv_replay *r);
int vv_replay_kick(struct vv_lane *l, struct vv_error *e); /* look for requests now; also from ops */
void vv_replay_wake_at(struct vv_replay *r, int64_t mono_us);
bool vv_lane_sending(const struct vv_lane *l); /* a request is not written whole yet */

/* A request as the engine wants it: length, header, body. out must be empty. */
int vv_replay_encode(int16_t key, int16_t version, const void *msg, struct vv_chain *out);
/* A response's body. msg lives in the arena and points into p. */
int vv_replay_decode(int16_t key, int16_t version, const uint8_t *p, size_t n, struct vv_arena *a, void **msg);
#endif
