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
/* Of one topic, for bringing it back after a deletion: [{"group", "partition", "offset", "leader_epoch", "commit_ms", "metadata"}].
 * On control; NULL: none, or no memory. */
json_t *vv_groups_export_topic(struct vv_groups *g, const char *topic);
/* Commits them again for a topic that came back; a group that has members now keeps what it says itself. On control; the
 * commits end later. */
void vv_groups_import_topic(struct vv_groups *g, struct vv_topic *t, const json_t *offsets);
/* Restore: writes them to __consumer_offsets, before vv_groups_open reads it. An offset beyond what was restored of
 * its partition becomes the partition's end: its consumer must not skip what comes next. Main thread. */
int vv_groups_import(struct vv_broker *b, const char *snapshot, size_t n, struct vv_error *e);
#endif
