/* directory.h — the log directory as a whole: one broker in it, whose it is, how its last stop went.
 *
 * Files: .lock (held while the broker runs), meta.properties (Kafka's format; plus varve.version and varve.tier),
 * .kafka_cleanshutdown (written last by an orderly stop, removed when the logs are opened), varve-restoring (an unfinished
 * first start or restore), varve-restore.json (partitions are still to be brought back, opening.h). One thread: the main one. */
#ifndef VARVE_DIRECTORY_H
#define VARVE_DIRECTORY_H
#include "varve/env.h"
#include "varve/error.h"

#include <stdbool.h>
#include <stdint.h>

struct vv_directory {
    struct vv_env *env;
    char *path;
    struct vv_file *lock;
    int32_t node_id;
    char cluster_id[64]; /* "" while fresh */
    char directory_id[24];
    char tier[512]; /* the store it has written to; "" = none yet */
    char moved_from[512]; /* tier was moved there from that one (migration.h); "" = no */
    bool replica;   /* of somebody else's bucket (replica.h): its partitions have no log of their own */
    bool fresh;     /* nothing is in it yet (or an unfinished restore was removed) */
    bool clean;     /* the last stop was orderly */
};
/* Makes, locks and reads it. *e says what to do about E_ACCESS (not writable), E_CONFLICT (a second broker, another
 * node, another system's directory), E_CORRUPT. *d needs vv_directory_close even after an error. */
int vv_directory_open(struct vv_env *env, const char *path, int32_t node_id, struct vv_directory *d,
                      struct vv_error *e);
/* Writes meta.properties: from now on it is not fresh. tier NULL = keep. */
int vv_directory_claim(struct vv_directory *d, const char *cluster_id, const char *tier, struct vv_error *e);
/* Before the first file of a first start or restore; vv_directory_claim ends it. */
int vv_directory_restoring(struct vv_directory *d, struct vv_error *e);
/* Before the logs are opened: removes the clean mark. A start that fails earlier leaves it for the next one. */
int vv_directory_begin(struct vv_directory *d, struct vv_error *e);
int vv_directory_mark_clean(struct vv_directory *d);
void vv_directory_close(struct vv_directory *d);
#endif
