/* keys.h — the names of everything in the bucket. One place spells them, one place parses them. Pure.
 *
 *   v1/root.json                                       cluster id, claim, topics under deletion: leads to everything
 *   v1/cluster.json                                    snapshot: topics, ids, configs, group offsets
 *   v1/h/<ms:015>.json                                 snapshots of before, for restores as of a time
 *   v1/t/<topic-id>/topic.json                         names the topic
 *   v1/t/<topic-id>/<partition:05>/<base:020>-<last:020>-<epoch:08x>-<generation:04x>-<nonce:016x>.seg
 *   v1/m/<topic-id>/<partition:05>/head.json           manifest head; level pages beside it: <level>-<sha256>.json
 * Topic ids are Kafka's 22 characters. docs/bucket-format.md explains them to a stranger. */
#ifndef VARVE_TIERING_KEYS_H
#define VARVE_TIERING_KEYS_H
#include "varve/bytes.h"
#include "varve/error.h"

#define VV_BUCKET_FORMAT 1 /* "format" of every JSON object */
#define VV_KEY_ROOT "v1/root.json"
#define VV_KEY_CLUSTER "v1/cluster.json"
#define VV_KEY_SNAPSHOTS "v1/h/"
#define VV_KEY_MAX 256

struct vv_segkey { /* everything that a segment's key tells */
    struct vv_uuid topic_id;
    int32_t partition;
    int64_t base, last;
    int32_t epoch;
    uint32_t generation;
    uint64_t nonce;
};
static inline bool vv_segkey_eq(const struct vv_segkey *a, const struct vv_segkey *b)
{
    return a->nonce == b->nonce && a->base == b->base && a->last == b->last && a->partition == b->partition &&
           a->epoch == b->epoch && a->generation == b->generation && vv_uuid_eq(a->topic_id, b->topic_id);
}
void vv_segkey_format(const struct vv_segkey *k, char out[VV_KEY_MAX]);
int vv_segkey_parse(const char *key, struct vv_segkey *out); /* E_PROTO unless it is spelled exactly as format would */

/* All of them: "v1/t/" is where topics lie, "v1/m/" where manifests do. */
#define VV_KEY_TOPICS "v1/t/"
#define VV_KEY_MANIFESTS "v1/m/"
void vv_key_topic(struct vv_uuid topic_id, char out[VV_KEY_MAX]);                                /* …/topic.json */
void vv_key_topic_prefix(struct vv_uuid topic_id, char out[VV_KEY_MAX]);                         /* v1/t/<id>/ */
void vv_key_part_prefix(struct vv_uuid topic_id, int32_t partition, char out[VV_KEY_MAX]);       /* v1/t/<id>/<p>/ */
void vv_key_manifest_prefix(struct vv_uuid topic_id, char out[VV_KEY_MAX]);                      /* v1/m/<id>/ */
void vv_key_pages_prefix(struct vv_uuid topic_id, int32_t partition, char out[VV_KEY_MAX]);      /* v1/m/<id>/<p>/ */
void vv_key_head(struct vv_uuid topic_id, int32_t partition, char out[VV_KEY_MAX]);
void vv_key_page(struct vv_uuid topic_id, int32_t partition, int level, const char *sha256, char out[VV_KEY_MAX]);
/* A key that sorts after every segment of the partition whose base is <= offset: LIST start-after. */
void vv_key_after(struct vv_uuid topic_id, int32_t partition, int64_t offset, char out[VV_KEY_MAX]);
#endif
