/* seed.h — `--restore URL`: a new cluster begins with the topics of somebody else's bucket, which is only read.
 *
 * The source's root, and its list of topics (as of a time, if one is given), are read before anything is written anywhere. Then the
 * own, empty bucket is claimed for a new cluster with the source as its origin (tiering/origin.h), every partition is restored from the
 * source's manifests, and the root says that this came to its end. From then on the source is read through (tiering/obj_pair.h) and
 * brought over in the background (tiering/hydrate.c). A crash before that end begins again. Main thread. */
#ifndef VARVE_SEED_H
#define VARVE_SEED_H
#include "broker.h"
#include "directory.h"

struct vv_seed;

/* as_of_ms -1: the newest state. E_NOENT, E_CONFLICT, E_UNSUPPORTED, the store's answer: with a text that says what to do. */
int vv_seed_open(struct vv_broker *b, const char *url, int64_t as_of_ms, struct vv_seed **out, struct vv_error *e);
void vv_seed_close(struct vv_seed *s); /* NULL is fine */
/* Which origin this broker's bucket has, if any: *seed's (checked against the bucket `own`), the journal's of the data directory, or what
 * the root of a bucket says that a lost disk comes back from; an unfinished seeding there becomes *seed. */
int vv_seed_find_origins(struct vv_broker *b, const struct vv_directory *d, struct vv_objstore *own, struct vv_seed **seed,
                         struct vv_origins *out, struct vv_error *e);
/* The store that the tier works on: *store, and what it does not have yet from the origin. */
int vv_seed_wrap(struct vv_broker *b, struct vv_seed *seed, const struct vv_origins *o, struct vv_objstore **store, struct vv_error *e);
int vv_seed_check_directory(const struct vv_directory *d, struct vv_error *e); /* a new cluster begins in an empty one */
uint64_t vv_seed_writer_epoch(const struct vv_seed *s);
/* The tier is claimed: partitions that are opened now come from the source. */
int vv_seed_begin(struct vv_seed *s, struct vv_broker *b, char **text, size_t *n, struct vv_error *e);
int vv_seed_end(struct vv_seed *s, struct vv_broker *b, const char *text, size_t n, struct vv_error *e);
#endif
