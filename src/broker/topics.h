/* topics.h — the inside of the topic registry; what others may call is in broker.h. */
#ifndef VARVE_TOPICS_H
#define VARVE_TOPICS_H
#include "broker.h"
#include "partition.h"

#include <jansson.h>
#include <pthread.h>

#define VV_PARTITIONS_MAX 10000 /* per topic */

/* A deleted topic of which something is left: directories, objects in the bucket that are not yet being deleted. What is needed to
 * bring it back is here (undelete.c); owned. */
struct vv_doomed {
    struct vv_uuid id;
    char *name;
    int32_t partitions;
    bool tiered; /* false: forgotten as soon as its directories are out of the way */
    int64_t deleted_ms;
    struct vv_kv *configs;
    size_t config_count;
    json_t *offsets; /* committed by groups when it was deleted (groups_snapshot.h); NULL: none */
    bool told;       /* the bucket knows; told once more after each start, which is harmless */
    bool returning;  /* an undelete of it is under way */
};

/* snapshot.c's state; on control, but for what an iopool thread was handed. */
struct vv_snapshot {
    struct vv_task changed, put_done, doom_done;
    struct vv_work put, doom;
    bool dirty, change, putting_change, putting, dooming;
    uint64_t groups_seen;    /* vv_groups_changes() as of the last copy */
    int64_t groups_after_us; /* offsets alone do not cause a copy before */
    char *json;              /* being put */
    pthread_mutex_t put_lock; /* held by the put under way: a late one must not write over the last one */
    bool last;               /* put_lock: the last copy is made by the stop itself */
    struct vv_doomed doomed; /* being told to the bucket */
    int put_err, doom_err;
    int64_t put_retry_us, doom_retry_us;
    /* undelete.c: local leftovers of deleted topics go */
    struct vv_work purge;
    struct vv_task purge_done;
    struct vv_uuid *purge_ids;
    size_t purge_count;
    bool purging, purge_forgets;
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
    struct vv_undelete *undelete; /* on control: the one under way; its name is taken */
    int64_t producer_ids; /* from a bucket's snapshot: ids below are in use; 0 otherwise */
    struct vv_snapshot snapshot;
};

/* What is about to change, so that it can be written down before anybody sees it. */
struct vv_quota_set;
struct vv_topics_change {
    const struct vv_topic *add, *drop, *edit;
    int32_t partitions;            /* of edit */
    const struct vv_kv *overrides; /* of edit */
    size_t override_count;
    const struct vv_quota_set *quotas;     /* all of them; NULL: as they are */
    const struct vv_broker_config *config; /* the broker's as altered (live.h); NULL: as it is */
};

int vv_topics_new(struct vv_broker *b, struct vv_topics **out);
void vv_topics_free(struct vv_topics *ts); /* after close; NULL is fine */

/* topics_file.c. Load fills an empty registry from the file's (or the bucket snapshot's) JSON; partitions are opened
 * later. */
int vv_topics_load(struct vv_topics *ts, const char *text, size_t n, struct vv_error *e);
int vv_topics_save(struct vv_topics *ts, const struct vv_topics_change *change,
                   struct vv_error *e);         /* change may be NULL */
char *vv_topics_snapshot(struct vv_topics *ts); /* the JSON; malloc'ed; on control */

/* topics_open.c. Blocking, parallel: num.recovery.threads.per.data.dir. */
int vv_topics_open_all(struct vv_topics *ts, bool clean, struct vv_error *e);
int vv_topics_open_parts(struct vv_topic *t, int32_t from, int32_t to, struct vv_partition **out, struct vv_error *e);
int vv_topics_retire_parts(struct vv_topic *t, struct vv_error *e); /* renames every directory away; first error */
int vv_topics_close(struct vv_topics *ts); /* all partitions cleanly; first error */
/* Directories of no topic: what a crash left of a deletion or a creation goes, anything else is renamed to
 * NAME-stray. */
int vv_topics_tidy(struct vv_topics *ts, struct vv_error *e);

/* topic.c; growth under the write lock */
struct vv_topic *vv_topic_new(struct vv_broker *b, const char *name, struct vv_uuid id, bool internal);
void vv_topic_free(struct vv_topic *t);
int vv_topic_grow(struct vv_topic *t, struct vv_partition **add, int32_t n);
void vv_topic_put(struct vv_topic *t, int32_t index, struct vv_partition *p); /* on control: it is back */
int vv_kv_copy(const struct vv_kv *v, size_t n, struct vv_kv **out,
               size_t *out_n); /* name order, later duplicates win */
void vv_kv_free(struct vv_kv *v, size_t n);

/* topics.c, for the other files */
int vv_topics_insert(struct vv_topics *ts, struct vv_topic *t);
/* A topic of somebody else's list (replica.c), with its id; configurations as they are. On control. */
int vv_topics_adopt(struct vv_topics *ts, const char *name, struct vv_uuid id, int32_t partitions, const struct vv_kv *configs, size_t n,
                    struct vv_error *e);
int vv_topics_check_create(struct vv_topics *ts, const char *name, int32_t partitions, struct vv_error *e);
int vv_doomed_push(struct vv_topics *ts, struct vv_doomed *d); /* takes over what it owns, also when it fails */
struct vv_doomed *vv_doomed_find(struct vv_topics *ts, struct vv_uuid id);
void vv_doomed_remove(struct vv_topics *ts, struct vv_uuid id);
void vv_doomed_release(struct vv_doomed *d);

/* undelete.c */
void vv_doomed_tick(struct vv_topics *ts); /* on control: what cannot come back any more is forgotten; disk pressure */
bool vv_doomed_keeps(const struct vv_broker *b, const struct vv_doomed *d); /* its directories stay for the grace */
/* The topic id in a directory's partition.metadata. */
bool vv_topic_dir_id(struct vv_env *env, const char *dir, struct vv_uuid *id);
int vv_topic_dir_remove(struct vv_env *env, const char *dir); /* topics_open.c: files only */
/* "<topic>-<number>[.<hex>-delete]": the length of the topic's name, 0 = something else. topics_open.c */
size_t vv_topic_dir_parse(const char *name, long *partition, bool *retired);

/* snapshot.c: the bucket's copy of the registry, and topic deletions the bucket has not heard of. */
void vv_topics_changed(struct vv_broker *b); /* any thread; coalesced */
void vv_topics_tick(struct vv_broker *b);    /* on control, each second: retries */
void vv_topics_last_snapshot(
    struct vv_broker *b); /* after control and iopool stopped: what was not put yet, blocking */
#endif
