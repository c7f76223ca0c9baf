/* replica.h — `varve broker --replica`: somebody else's bucket is served and followed, and never written to.
 *
 * The registry holds the bucket's topics (ids, partitions, configurations of v1/cluster.json) and our own internal ones; partitions of the
 * former are `followed` (partition.h): their index is filled from the bucket at every start and by every look after it (tiering/replica.c),
 * the log beside it stays empty. What is durable here are the offsets of our own consumer groups. A look comes every
 * tier.replica.interval.ms: a HEAD of cluster.json, and if it changed a GET of it, whose changes are made on control (created, deleted,
 * grown, configured); then every partition. What cannot be read stays as it was and is asked for again.
 * Threads: one follower, with helpers for the partitions of one look; changes of topics on control. */
#ifndef VARVE_REPLICA_H
#define VARVE_REPLICA_H
#include "broker.h"
#include "directory.h"

struct vv_replica;

/* Opens tier.url for reading, and the tier on it. Main thread; b->cluster_id becomes that of the bucket. */
int vv_replica_open_tier(struct vv_broker *b, const struct vv_directory *d, struct vv_objstore **store, struct vv_error *e);
/* The registry's text: the bucket's topics, and of `own` (NULL: a first start) everything else. malloc'ed. [blocking] */
int vv_replica_registry(struct vv_broker *b, const char *own, size_t own_n, char **text, struct vv_error *e);
/* The first look: every partition is known when it returns. Main thread, before anybody is served. [blocking] */
int vv_replica_first(struct vv_broker *b, struct vv_objstore *store, struct vv_replica **out, struct vv_error *e);
int vv_replica_start(struct vv_replica *r); /* control runs */
/* Ends the follower; requests under way are interrupted: the store is of no use afterwards. NULL is fine. Control still runs. */
void vv_replica_stop(struct vv_replica *r);
void vv_replica_free(struct vv_replica *r);
#endif
