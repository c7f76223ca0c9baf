/* migration.c — see migration.h. */
#include "migration.h"
#include "opening.h"

#include "broker_tier.h"
#include "live.h"
#include "varve/vlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The other bucket is the truth. A crash before this is written finds its way by the old root's moved_to. */
static void switched(void *ctx, const char *url)
{
    struct vv_broker *b = ctx;
    struct vv_error e = {0};
    snprintf(b->directory->moved_from, sizeof b->directory->moved_from, "%s", b->config->tier);
    if (vv_directory_claim(b->directory, b->cluster_id, url, &e))
        VLOG_ERROR("migration: %s: set tier.url=%s before the next start", e.text, url);
    else
        VLOG_INFO("migration: complete: set tier.url=%s; until then %s is read as that. The old bucket is not needed any more", url,
                  b->config->tier);
    b->tier_url = b->migrate_url;
}

void vv_migration_look(struct vv_broker *b)
{
    const char *url = vv_broker_live(b)->tier_migrate_url;
    struct vv_error e = {0};
    if (b->opening && !vv_opening_over(b->opening)) return; /* what is not back yet is no part that could be copied; asked again then */
    if (!b->tier_running || b->config->tier_replica || (url && b->tier_url && !strcmp(url, b->tier_url))) return;
    char *now = b->migrate_url;
    if (now && (!url || strcmp(url, now))) {
        vv_tier_migrate_cancel(b->tier);
        if (url) VLOG_WARN("migration: another one, to %s, begins with the next start of the broker", url);
    }
    if (now || !url) return;
    struct vv_tier_migration m = {.switched = switched, .ctx = b};
    char *copy = strdup(url);
    int err = copy ? vv_broker_open_other(b, url, false, &m.to, &e) : VV_E_NOMEM;
    if (!err) {
        b->migrate_url = copy;
        copy = NULL;
        err = vv_tier_migrate(b->tier, &m, &e);
    }
    free(copy);
    if (err) VLOG_ERROR("migration: not begun: %s", e.text[0] ? e.text : vv_err_name(err));
}

const char *vv_migration_target(struct vv_broker *b)
{
    return b->migrate_url;
}
