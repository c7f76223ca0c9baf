/* broker_tier.c — see broker_tier.h.
 *
 * A directory that has written to a bucket must find that bucket again: meta.properties says which one (varve.tier).
 * Another URL is fine when the same cluster's root is there (a bucket that moved); one without a root is refused, for
 * a fresh root there would hide that the history is gone. A first start needs the bucket (it cannot tell itself from a
 * lost disk); any other goes on without one that is away. */
#include "broker_tier.h"

#include "keys.h"
#include "root.h"
#include "varve/bytes.h"
#include "varve/objstore.h"
#include "varve/vlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK_MS 5000 /* a store that needs longer is claimed by the tier, while clients are served */

static int64_t limit_of(int64_t per_s)
{
    return per_s == INT64_MAX ? 0 : per_s;
}

/* Copies of a directory's files in another directory are worth something only to who says so (a network mount). */
static int64_t cache_disk_bytes(const struct vv_broker_config *c)
{
    bool on_disk = c->tier && !strncmp(c->tier, "fs:", 3);
    return c->tier_cache_disk_bytes < 0 && on_disk ? 0 : c->tier_cache_disk_bytes;
}

static bool encrypts(const struct vv_broker_config *c)
{
    return !strcmp(c->tier_encryption, "aes-256-gcm");
}

void vv_broker_tier_config(const struct vv_broker_config *c, struct vv_tier_config *out)
{
    *out = (struct vv_tier_config){
        .upload_threads = c->tier_upload_threads,
        .upload_bytes_per_s = limit_of(c->remote_log_manager_copy_max_bytes_per_second),
        .fetch_bytes_per_s = limit_of(c->remote_log_manager_fetch_max_bytes_per_second),
        .cache_dir = c->cache_dir,
        .cache_disk_bytes = cache_disk_bytes(c),
        .disk_reserve = c->tier_disk_reserve,
        .cache_bytes_max = (size_t)c->tier_cache_bytes,
        .chunk_bytes = (size_t)c->tier_chunk_bytes,
        .readahead_chunks = c->tier_readahead_chunks,
        .fetch_deadline_ms = c->tier_fetch_deadline_ms,
        .compress = !strcmp(c->tier_compression, "zstd"),
        .encrypt = encrypts(c),
        .verify_full = c->tier_verify_full,
        .delete_objects_per_s = limit_of(c->tier_delete_max_objects_per_second),
        .delete_grace_ms = c->tier_delete_grace_ms,
        .scrub_interval_ms = c->tier_scrub_interval_ms,
        .scrub_bytes_per_s = c->tier_scrub_bytes_per_second,
        .scrub_local_bytes_per_s = c->tier_scrub_local_bytes_per_second,
        .gc_interval_ms = c->tier_gc_interval_ms,
        .gc_age_ms = c->tier_gc_age_ms,
        .merge_segments_min = c->tier_merge_segments_min,
        .merge_bytes_max = (uint64_t)c->tier_merge_bytes_max,
        .merge_age_ms = c->tier_merge_age_ms,
        .merge_span_ms = c->tier_merge_span_ms,
        .merge_bytes_per_s = limit_of(c->tier_merge_max_bytes_per_second),
        .hydrate_bytes_per_s = limit_of(c->tier_hydrate_max_bytes_per_second),
    };
}

void vv_broker_store_config(const struct vv_broker_config *c, struct vv_objstore_config *out)
{
    *out = (struct vv_objstore_config){
        .client = c->tier_s3_client,
        .endpoint = c->tier_s3_endpoint,
        .region = c->tier_s3_region,
        .connections_max = (unsigned)c->tier_s3_connections_max,
        .path_style = c->tier_s3_path_style_set ? (c->tier_s3_path_style ? "true" : "false") : NULL,
        .access_key_id = c->tier_s3_access_key_id,
        .secret_access_key = c->tier_s3_secret_access_key,
        .session_token = c->tier_s3_session_token,
        .ca_file = c->tier_s3_ca_file,
        .storage_class = c->tier_s3_storage_class,
        .sse = !strcmp(c->tier_s3_sse, "none") ? NULL : c->tier_s3_sse,
        .sse_kms_key_id = c->tier_s3_sse_kms_key_id,
        .keys_file = c->tier_encryption_keys_file,
        .active_key = c->tier_encryption_key_id,
        .multipart_above = VV_MIN((uint64_t)c->tier_s3_part_bytes * 2, (uint64_t)5 << 30),
        .part_size = (uint64_t)c->tier_s3_part_bytes,
    };
}

static int open_url(struct vv_broker *b, const char *url, struct vv_objstore **out, struct vv_error *e)
{
    struct vv_objstore_config oc;
    if (encrypts(b->config) && !b->config->tier_encryption_keys_file)
        return vv_error_set(e, VV_E_CONFIG, "tier.encryption=%s needs tier.encryption.keys.file", b->config->tier_encryption);
    if (strcmp(url, b->config->tier)) return vv_broker_open_other(b, url, false, out, e);
    vv_broker_store_config(b->config, &oc);
    return vv_objstore_open(url, &oc, b->env, out, e);
}

int vv_broker_open_other(struct vv_broker *b, const char *url, bool read_only, struct vv_objstore **out, struct vv_error *e)
{
    const struct vv_broker_config *c = b->config;
    struct vv_objstore_config oc;
    vv_broker_store_config(c, &oc);
    oc.read_only = read_only;
    if (c->tier_origin_s3_endpoint) oc.endpoint = c->tier_origin_s3_endpoint;
    if (c->tier_origin_s3_region) oc.region = c->tier_origin_s3_region;
    if (c->tier_origin_s3_ca_file) oc.ca_file = c->tier_origin_s3_ca_file;
    if (c->tier_origin_s3_access_key_id) {
        oc.access_key_id = c->tier_origin_s3_access_key_id;
        oc.secret_access_key = c->tier_origin_s3_secret_access_key;
        oc.session_token = c->tier_origin_s3_session_token;
    }
    return vv_objstore_open(url, &oc, b->env, out, e);
}

/* The bucket that this directory has written to must be there, or say where it went (moved_to; else ""). */
static int check_identity(struct vv_broker *b, const struct vv_directory *d, struct vv_objstore *store, char moved_to[512],
                          struct vv_error *e)
{
    struct vv_root r;
    *moved_to = 0;
    if (!*d->tier)
        return VV_OK;
    int err = vv_root_get(store, ASK_MS, &r, e);
    if (!err && !strcmp(r.cluster_id, b->cluster_id)) memcpy(moved_to, r.moved_to, sizeof r.moved_to);
    if (!err) vv_root_release(&r);
    if (err != VV_E_NOENT)
        return err;
    if (strcmp(d->tier, store->url))
        return vv_error_set(e, VV_E_CONFLICT,
                            "the history of %s is in %s, and tier.url=%s has nothing of cluster %s: set tier.url back, "
                            "or copy the bucket there first",
                            d->path, d->tier, store->url, b->cluster_id);
    return vv_error_set(e, VV_E_CONFLICT,
                        "%s has no Varve root any more (%s), although %s has written to it: bring the bucket back; a "
                        "new one would hide that its history is gone",
                        store->url, VV_KEY_ROOT, d->path);
}

/* tier.url's store, or the one that a migration made of it. *moved: it did. */
static int open_current(struct vv_broker *b, const struct vv_directory *d, struct vv_objstore **store, bool *moved, struct vv_error *e)
{
    char to[512];
    *moved = *d->moved_from && !strcmp(d->moved_from, b->config->tier);
    int err = open_url(b, *moved ? d->tier : b->config->tier, store, e);
    if (!err) err = check_identity(b, d, *store, to, e);
    for (int hops = 0; !err && *to && hops < 8; hops++) {
        vv_objstore_close(*store);
        *moved = true;
        err = open_url(b, to, store, e);
        if (!err) err = check_identity(b, d, *store, to, e);
    }
    if (!err && *moved)
        VLOG_WARN("the history of cluster %s was moved from %s to %s (varve tier migrate): using that; set tier.url=%s", b->cluster_id,
                  b->config->tier, (*store)->url, (*store)->url);
    return err;
}

/* It may answer later by itself; a refusal (credentials, another writer, another cluster) needs a person. */
static bool is_away(int err)
{
    return err == VV_E_AGAIN || err == VV_E_TIMEOUT || err == VV_E_IO;
}

int vv_broker_tier_open(struct vv_broker *b, const struct vv_directory *d, struct vv_seed **seed, struct vv_objstore **store,
                        struct vv_error *e)
{
    struct vv_origins origins;
    struct vv_tier_config tc;
    struct vv_tier_identity id = {.node_id = b->node_id, .data_dir = b->log_dir, .must_exist = *d->tier != 0};
    bool take_over = b->config->tier_take_over;
    struct vv_error away = {0};
    *store = NULL;
    if (!b->config->tier) {
        if (*d->tier)
            VLOG_WARN("the tier is off: what this directory has only in %s cannot be read", d->tier);
        return VV_OK;
    }
    snprintf(id.cluster_id, sizeof id.cluster_id, "%s", b->cluster_id);
    vv_broker_tier_config(b->config, &tc);
    int err = *seed ? vv_seed_check_directory(d, e) : VV_OK;
    int said = err ? err : open_current(b, d, store, &id.arriving, &away);
    if (said && (!is_away(said) || !*store)) {
        if (!err) *e = away;
        return said;
    }
    err = vv_seed_find_origins(b, d, *store, seed, &origins, e);
    if (!err) err = vv_seed_wrap(b, *seed, &origins, store, e);
    if (!err) b->tier_url = strdup((*store)->url);
    if (!err && !b->tier_url) err = VV_E_NOMEM;
    if (err) return err;
    if (origins.n) id.origins = &origins;
    if (*seed) id.epoch_floor = vv_seed_writer_epoch(*seed);
    err = said;
    if (err)
        *e = away;
    else
        err = vv_tier_open(b->env, *store, &tc, &id, take_over, &b->tier, e);
    if (is_away(err) && !d->fresh) {
        VLOG_WARN("%s. Starting without the bucket: what is local is served and kept, what is only there has to wait", e->text);
        err = vv_tier_open_later(b->env, *store, &tc, &id, take_over, &b->tier, e);
    }
    if (!err)
        snprintf(b->cluster_id, sizeof b->cluster_id, "%s", id.cluster_id);
    return err;
}

int vv_broker_tier_snapshot(struct vv_broker *b, char **text, size_t *n, struct vv_error *e)
{
    *text = NULL;
    *n = 0;
    if (!b->tier) return VV_OK;
    int err = vv_tier_get_snapshot(b->tier, text, n, e);
    return err == VV_E_NOENT ? VV_OK : err;
}
