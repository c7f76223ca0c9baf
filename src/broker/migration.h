/* migration.h — tier.migrate.url: the bucket of this broker moves to another one while it runs (tiering/migrate.c).
 *
 * Asked for by altering that key (varve tier migrate, kafka-configs) or by the file; so a restart goes on with it. Afterwards
 * meta.properties names the new bucket, and the one it came from: tier.url may say either until an operator changes it. */
#ifndef VARVE_MIGRATION_H
#define VARVE_MIGRATION_H
#include "broker.h"
#include "directory.h"

/* The configuration in force may ask for one, or not any more. On control, or the main thread once the tier is started. */
void vv_migration_look(struct vv_broker *b);
const char *vv_migration_target(struct vv_broker *b); /* of the migration of this life; NULL: none. Any thread */
#endif
