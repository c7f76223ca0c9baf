/* opening.h — a broker that comes back from its own bucket serves at once; partitions are brought back in the background.
 *
 * A partition that waits is a NULL in its topic's array: nobody can write to it or read from it before its true end in the bucket is known, and
 * whoever asks gets a code that clients try again, and moves it to the front of the queue. While it is being built a mark lies in its directory
 * (partition.c): a directory without the mark is complete, also after a crash. One that cannot be read does not hold up the others: it is tried again.
 * The groups have no coordinator until every partition was looked at: what they committed is never beyond the log that came back.
 * varve-restore.json (the bucket's list of topics as it was found) stands beside the logs until all are back: the next start goes on. Once the
 * groups' offsets were taken from it, it is empty.
 *
 * Threads: a few of its own; items and the queue under lock, which comes before all others; control alone shows a partition that is back, as it changes topics. */
#ifndef VARVE_OPENING_H
#define VARVE_OPENING_H
#include "topics.h"

struct vv_opening;
/* Main thread. What an earlier start left: *text is its list; E_NOENT: nothing. */
int vv_opening_left(struct vv_broker *b, char **text, size_t *n, struct vv_error *e);
int vv_opening_new(struct vv_broker *b, struct vv_opening **out);
/* topics_open.c: is this partition's history to be brought back later? Noted, if so. */
int vv_opening_takes(struct vv_opening *o, struct vv_topic *t, int32_t index, bool *takes);
size_t vv_opening_count(const struct vv_opening *o);
/* After the last of them, before the directory is claimed. text: the bucket's list, copied. */
int vv_opening_keep(struct vv_opening *o, const char *text, size_t n, struct vv_error *e);
int vv_opening_start(struct vv_opening *o); /* the tier and control run */
void vv_opening_wait(struct vv_opening *o, int64_t ms); /* until all are back, but not longer */
void vv_opening_stop(struct vv_opening *o); /* asks; NULL is fine */
void vv_opening_end(struct vv_opening *o);  /* joins, when the store was interrupted and control has stopped; NULL is fine */
void vv_opening_free(struct vv_opening *o); /* NULL is fine */
/* On control. */
bool vv_opening_over(struct vv_opening *o); /* all are back */
bool vv_opening_drop(struct vv_opening *o, struct vv_topic *t); /* the topic is deleted; false: one of it is just being brought back */
bool vv_opening_has_groups(const struct vv_opening *o); /* also before control runs: offsets of groups are still to be taken */
const char *vv_opening_list(const struct vv_opening *o, size_t *n); /* while the groups have not been taken from it; NULL: they were */
#endif
