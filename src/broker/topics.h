/* topics.h — the inside of the topic registry; what others may call is in broker.h. */
#ifndef VARVE_TOPICS_H
#define VARVE_TOPICS_H
#include "broker.h"
#include "partition.h"

#include <pthread.h>

#define VV_PARTITIONS_MAX 10000 /* per topic */

/* A deleted topic whose objects are not yet tombstoned in the bucket. */
struct vv_doomed {
    struct vv_uuid id;
    char *name;
    int32_t partitions;
};

struct vv_topics {
    struct vv_broker *broker;
    char *path;
    pthread_rwlock_t lock;
    struct vv_topic **v; /* sorted by name */
    size_t count, cap;
    struct vv_topic **ids; /* open addressing by topic id; id_cap is a power of two */
    size_t id_cap;
    struct vv_doomed *doomed; /* on control */
    size_t doomed_count;

    /* parallel opening at start */
    pthread_mutex_t open_lock;
    pthread_cond_t opened;
    size_t open_topic;
    int32_t open_partition;
    int openers, open_err;
    bool clean;
    struct vv_error open_error;
};

int vv_topics_new(struct vv_broker *b, struct vv_topics **out);
/* Fills an empty registry from the file's (or the bucket snapshot's) JSON; partitions are opened later. */
int vv_topics_load(struct vv_topics *ts, const char *text, size_t n, struct vv_error *e);
int vv_topics_open_all(struct vv_topics *ts, bool clean, struct vv_error *e); /* blocking, parallel */
int vv_topics_save(struct vv_topics *ts, struct vv_error *e);
char *vv_topics_snapshot(struct vv_topics *ts); /* the JSON; malloc'ed; on control */
int vv_topics_close(struct vv_topics *ts);      /* all partitions cleanly; first error */

/* snapshot.c: the bucket's copy of the registry, and topic deletions the bucket has not heard of. */
void vv_topics_changed(struct vv_broker *b);
#endif
