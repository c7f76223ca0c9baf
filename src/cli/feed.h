/* feed.h — records of a replay into another Kafka: keys, values, headers and times as they were, partition by partition.
 *
 * An idempotent producer with one request at a time (acks=all): what is sent again after a lost reply is stored once.
 * A run that ends early has written a prefix of each partition; a second run writes it again. One thread. */
#ifndef VARVE_CLI_FEED_H
#define VARVE_CLI_FEED_H
#include "varve/error.h"
#include "varve/log.h"

struct vv_feed;
struct vv_feed_opts {
    const char *bootstrap; /* HOST:PORT[,…] */
    const char *topic;     /* made with `partitions` partitions when it is not there */
    int32_t partitions;    /* the source's; fewer over there is E_CONFIG: records would have no place */
};
int vv_feed_open(const struct vv_feed_opts *o, struct vv_feed **out, struct vv_error *e);
/* Copies the record; sends when a batch is full. Partitions come one after the other. */
int vv_feed_add(struct vv_feed *f, int32_t partition, const struct vv_record *r, struct vv_error *e);
int vv_feed_flush(struct vv_feed *f, struct vv_error *e); /* everything added is acknowledged */
void vv_feed_close(struct vv_feed *f);                    /* what was not flushed is dropped. NULL is fine */
#endif
