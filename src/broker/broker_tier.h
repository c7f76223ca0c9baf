/* broker_tier.h — the bucket as the broker opens it: store, claim, identity, restore. Main thread, before anybody is
 * served. */
#ifndef VARVE_BROKER_TIER_H
#define VARVE_BROKER_TIER_H
#include "broker.h"
#include "directory.h"
#include "seed.h"

/* Opens the store of config->tier and claims it; b->cluster_id is adopted when it was empty. Nothing to do when the
 * tier is off. */
int vv_broker_tier_open(struct vv_broker *b, const struct vv_directory *d, struct vv_seed **seed, struct vv_objstore **store,
                        struct vv_error *e); /* *seed: of --restore, or made when an earlier one did not get to its end; NULL: none */
/* For a fresh directory: the registry's JSON out of the bucket; *text NULL when there is none. */
int vv_broker_tier_snapshot(struct vv_broker *b, char **text, size_t *n, struct vv_error *e);
/* Another bucket than tier.url's: tier.origin.s3.* where they are set. */
int vv_broker_open_other(struct vv_broker *b, const char *url, bool read_only, struct vv_objstore **out, struct vv_error *e);
/* Endpoint, credentials and so on, as keys of the configuration say; texts stay c's. For everybody who opens a bucket. */
void vv_broker_store_config(const struct vv_broker_config *c, struct vv_objstore_config *out);
void vv_broker_tier_config(const struct vv_broker_config *c, struct vv_tier_config *out);
#endif
