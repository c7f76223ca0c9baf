/* client.h — a small blocking Kafka client for the command line: one connection per broker, one
 * request at a time.
 *
 * Requests and responses are the structs of src/wire; the version is the highest both sides (and
 * this client) speak. Every call has a deadline. A struct vv_client belongs to one thread. */
#ifndef VARVE_CLI_CLIENT_H
#define VARVE_CLI_CLIENT_H
#include "varve/buf.h"
#include "varve/error.h"
#include "varve/wire.h"
#include "gen/messages.h"

struct vv_client;
#define VV_NODE_ANY (-1) /* the bootstrap broker */

/* bootstrap: "HOST:PORT[,HOST:PORT…]", NULL = 127.0.0.1:9092. Connects and learns the API
 * versions. */
int vv_client_open(const char *bootstrap, const char *client_id, struct vv_client **out,
                   struct vv_error *e);
void vv_client_close(struct vv_client *c); /* NULL is fine */

struct vv_reply { /* a response and what it points into; release when done with it */
    void *msg;
    int16_t version;
    struct vv_arena arena;
    uint8_t *frame;
};
/* Sends request (struct of the API's request schema) to a node learnt from Metadata or
 * VV_NODE_ANY, waits for the response. 0; E_UNSUPPORTED when there is no common version;
 * E_TIMEOUT, E_IO (the connection is reopened by the next call). On error nothing is to be
 * released. Error codes inside the response are the caller's. */
int vv_client_call(struct vv_client *c, int32_t node, int16_t key, const void *request,
                   struct vv_reply *out, struct vv_error *e);
void vv_reply_release(struct vv_reply *r);
/* The version vv_client_call would use, or -1. */
int16_t vv_client_version(struct vv_client *c, int32_t node, int16_t key);
/* A socket of the caller's own to a node: connected, non-blocking, no bytes exchanged. */
int vv_client_dial(struct vv_client *c, int32_t node, int *fd, struct vv_error *e);
/* How long one call may take beyond what the request itself asks to wait; default 30000. */
void vv_client_set_timeout(struct vv_client *c, int timeout_ms);


/* Metadata of named topics (n = 0: all). Learns the brokers' addresses for vv_client_call.
 * Release *out. */
int vv_client_metadata(struct vv_client *c, const char *const *topics, size_t n,
                       struct vv_reply *out, struct vv_error *e);
/* Coordinator of a group: its node. Retries while it loads, within the timeout. */
int vv_client_coordinator(struct vv_client *c, const char *group, int32_t *node,
                          struct vv_error *e);

struct vv_part_ref { /* one partition of one topic */
    const char *topic;
    int32_t partition, leader;
    int64_t offset;    /* in or out */
    int64_t timestamp; /* in or out */
    int err;           /* Kafka code */
};
/* The partitions of a topic, by number, malloc'ed; topic points to the argument.
 * UNKNOWN_TOPIC_OR_PARTITION with *e. */
int vv_client_partitions(struct vv_client *c, const char *topic, struct vv_part_ref **out,
                         size_t *n, struct vv_error *e);
/* ListOffsets for each row's timestamp (a time or -1…-6): fills offset (and timestamp, err) of
 * each; groups by leader. The return value speaks of the calls, err of the rows. */
int vv_client_offsets(struct vv_client *c, struct vv_part_ref *rows, size_t n, struct vv_error *e);
/* Kafka's default partitioner for keyed records. */
int32_t vv_client_partition_of(const void *key, size_t n, int32_t partitions);
#endif
