/* synth.h — a generated history: one partition, one segment a minute, as many as wanted, none of them stored.
 *
 * Everything about segment i follows from i: its offsets, its times (some late by two hours, some early by three), its bytes,
 * its footer. A store wrapper makes the object when somebody asks for it; all else (manifests, roots) goes to the inner
 * store. So ten years take no room but their manifest. Sizes are the same for every segment, so that an extent
 * is made without its object. */
#ifndef VARVE_TESTS_SYNTH_H
#define VARVE_TESTS_SYNTH_H
#include "footer.h"
#include "varve/objstore.h"

#define SYNTH_RECORDS 4 /* of a segment: two batches of two */
#define SYNTH_T0 1483228800000 /* 2017-01-01 */
#define SYNTH_MINUTE 60000
#define SYNTH_EARLY (180 * SYNTH_MINUTE)

struct synth {
    struct vv_uuid topic_id;
    int32_t partition;
    const char *topic, *cluster_id;
    uint64_t writer_epoch;
    uint64_t bytes, object_bytes; /* of each; set by synth_init */
};
int synth_init(struct synth *s);
int64_t synth_time(int64_t record); /* of the record with this offset */
void synth_extent(const struct synth *s, int64_t i, struct vv_extent *x);
/* The whole object of segment i, malloc'ed; *n is s->object_bytes. */
uint8_t *synth_object(const struct synth *s, int64_t i, size_t *n);
/* Serves generated segments of this history; the inner store stays the caller's. */
struct vv_objstore *synth_store(struct vv_objstore *inner, const struct synth *s);
#endif
