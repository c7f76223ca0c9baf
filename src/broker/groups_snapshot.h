/* groups_snapshot.h — committed offsets in the bucket's snapshot, so that a lost disk does not send every consumer
 * back.
 *
 * "groups": [{"group", "offsets": [{"topic", "partition", "offset", "leader_epoch", "commit_ms", "metadata"}]}].
 * Members are not in it: they rejoin. The copy is at most a minute old (topics.h, snapshot.c). */
#ifndef VARVE_GROUPS_SNAPSHOT_H
#define VARVE_GROUPS_SNAPSHOT_H
#include "broker.h"

#include <jansson.h>

uint64_t vv_groups_changes(const struct vv_groups *g); /* grows with every write that ended; g may be NULL */
json_t *vv_groups_export(struct vv_groups *g);         /* on control (or after it stopped); NULL: out of memory */
/* Restore: writes them to __consumer_offsets, before vv_groups_open reads it. An offset beyond what was restored of
 * its partition becomes the partition's end: its consumer must not skip what comes next. Main thread. */
int vv_groups_import(struct vv_broker *b, const char *snapshot, size_t n, struct vv_error *e);
#endif
