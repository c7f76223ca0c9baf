/* directory.c — see directory.h. */
#include "directory.h"

#include "varve/bytes.h"
#include "varve/vlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CLEAN_MARK ".kafka_cleanshutdown"
#define META       "meta.properties"
#define RESTORING  "varve-restoring"

static int join(const struct vv_directory *d, const char *name, char out[4096])
{
    return snprintf(out, 4096, "%s/%s", d->path, name) < 4096 ? VV_OK : VV_E_LIMIT;
}

/* ---- making and locking ---- */

static int unusable(const struct vv_directory *d, int err, const char *what, struct vv_error *e)
{
    if (err == VV_E_ACCESS)
        return vv_error_set(
            e, err,
            "cannot %s the log directory %s: this user (uid %u) may not write there. Make it writable (chown), or "
            "choose another one with --data-dir DIR",
            what, d->path, (unsigned)getuid());
    if (err == VV_E_NOSPC)
        return vv_error_set(e, err, "cannot %s the log directory %s: no space left on its disk", what, d->path);
    if (err == VV_E_EXIST)
        return vv_error_set(e, err, "cannot %s the log directory %s: something on that path is not a directory", what,
                            d->path);
    return vv_error_set(e, err, "cannot %s the log directory %s: %s. Choose another one with --data-dir DIR", what,
                        d->path, vv_err_name(err));
}

/* A file where a directory should be: the system calls say so in several ways. */
static bool file_in_the_way(const struct vv_directory *d)
{
    char path[4096];
    struct vv_stat st;
    if ((size_t)snprintf(path, sizeof path, "%s", d->path) >= sizeof path) return false;
    for (char *end = path + strlen(path); end && end > path; end = strrchr(path, '/')) {
        *end = 0;
        if (!vv_fs_stat(d->env, path, &st)) return !st.is_dir;
    }
    return false;
}

static int make_and_lock(struct vv_directory *d, struct vv_error *e)
{
    char path[4096];
    int err = vv_fs_mkdirs(d->env, d->path);
    if (err) return unusable(d, file_in_the_way(d) ? VV_E_EXIST : err, "make", e);
    err = vv_fs_sync_parent(d->env, d->path); /* made by a life that was killed before it could */
    if (err && file_in_the_way(d)) err = VV_E_EXIST;
    if (err && err != VV_E_ACCESS) return unusable(d, err, "make", e); /* a parent that may not be read was not made by us */
    err = join(d, ".lock", path);
    if (!err) err = vv_fs_lock(d->env, path, &d->lock);
    if (err == VV_E_CONFLICT)
        return vv_error_set(
            e, err,
            "a broker is running in %s already: a second broker on the same directory would damage it. Stop the "
            "other one, or choose another directory with --data-dir DIR",
            d->path);
    return err ? unusable(d, err, "write to", e) : VV_OK;
}

/* ---- reading ---- */

static int read_meta(struct vv_directory *d, const char *text, int32_t node_id, struct vv_error *e)
{
    char *copy = strdup(text), *save = NULL, version[16] = "", node[16] = "";
    bool ours = false;
    if (!copy) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    for (char *line = strtok_r(copy, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save)) {
        char *eq = strchr(line, '=');
        if (*line == '#' || !eq) continue;
        *eq = 0;
        const char *value = eq + 1;
        if (!strcmp(line, "version")) snprintf(version, sizeof version, "%s", value);
        if (!strcmp(line, "node.id") || !strcmp(line, "broker.id")) snprintf(node, sizeof node, "%s", value);
        if (!strcmp(line, "cluster.id")) snprintf(d->cluster_id, sizeof d->cluster_id, "%s", value);
        if (!strcmp(line, "directory.id")) snprintf(d->directory_id, sizeof d->directory_id, "%s", value);
        if (!strcmp(line, "varve.tier")) snprintf(d->tier, sizeof d->tier, "%s", value);
        if (!strcmp(line, "varve.tier.moved.from")) snprintf(d->moved_from, sizeof d->moved_from, "%s", value);
        if (!strcmp(line, "varve.replica")) d->replica = !strcmp(value, "true");
        ours = ours || !strcmp(line, "varve.version");
    }
    free(copy);
    if (!ours)
        return vv_error_set(e, VV_E_CONFLICT,
                            "%s belongs to Apache Kafka (its %s has no varve.version; cluster %s). Varve does not "
                            "take it over: choose another directory with --data-dir DIR",
                            d->path, META, d->cluster_id);
    if (strcmp(version, "1") || !*d->cluster_id || !*node)
        return vv_error_set(e, VV_E_CORRUPT,
                            "%s/%s is damaged or of another version (version=%s cluster.id=%s node.id=%s)", d->path,
                            META, version, d->cluster_id, node);
    if (strtol(node, NULL, 10) != node_id)
        return vv_error_set(e, VV_E_CONFLICT,
                            "%s belongs to node %s, this broker is node %d: set node.id=%s, or choose another "
                            "directory with --data-dir DIR",
                            d->path, node, (int)node_id, node);
    return VV_OK;
}

static bool no_content(const char *name)
{
    static const char *const names[] = {
        ".lock", "lost+found", RESTORING, META ".tmp", "tier-identity.json", "tier-identity.json.tmp", "varve-clock"};
    for (size_t i = 0; i < VV_COUNT(names); i++)
        if (!strcmp(name, names[i])) return true;
    return false;
}

struct content {
    char first[256];
    bool any;
};

static int look(void *ctx, const char *name)
{
    struct content *c = ctx;
    if (no_content(name)) return 0;
    snprintf(c->first, sizeof c->first, "%s", name);
    c->any = true;
    return 0;
}

/* ---- an unfinished first start or restore: nobody was served from it, the bucket has everything ---- */

struct removing {
    struct vv_directory *d;
    char path[4096]; /* of the directory that is emptied */
    int depth;
    char victim[512];
};

static int pick(void *ctx, const char *name)
{
    struct removing *r = ctx;
    if (!r->depth && no_content(name)) return 0;
    snprintf(r->victim, sizeof r->victim, "%s", name);
    return 1; /* one at a time: a directory that changes while it is listed may be listed wrongly */
}

static int remove_all(struct vv_directory *d, const char *path, int depth)
{
    struct removing r = {.d = d, .depth = depth};
    struct vv_stat st;
    if (depth > 2) return VV_E_LIMIT;
    for (;;) {
        int err = vv_fs_list(d->env, path, pick, &r);
        if (err != 1) return err;
        if ((size_t)snprintf(r.path, sizeof r.path, "%s/%s", path, r.victim) >= sizeof r.path) return VV_E_LIMIT;
        err = vv_fs_stat(d->env, r.path, &st);
        if (!err && st.is_dir) {
            err = remove_all(d, r.path, depth + 1);
            if (!err) err = vv_fs_rmdir(d->env, r.path);
        } else if (!err) {
            err = vv_fs_unlink(d->env, r.path);
        }
        if (err) return err;
    }
}

static int examine_fresh(struct vv_directory *d, struct vv_error *e)
{
    char path[4096];
    struct vv_stat st;
    struct content c = {.any = false};
    int err = join(d, RESTORING, path);
    if (!err && !vv_fs_stat(d->env, path, &st)) {
        VLOG_WARN("%s: a first start was interrupted: beginning again", d->path);
        err = remove_all(d, d->path, 0);
        if (err)
            return vv_error_set(e, err, "cannot remove what an interrupted first start left in %s: %s", d->path, vv_err_name(err));
    }
    if (!err) err = vv_fs_list(d->env, d->path, look, &c);
    if (err) return unusable(d, err, "read", e);
    if (c.any)
        return vv_error_set(
            e, VV_E_CONFLICT,
            "%s is not empty (%s …) and has no %s: it is not a directory of Varve. Choose another one "
            "with --data-dir DIR",
            d->path, c.first, META);
    d->fresh = true;
    return VV_OK;
}

static int look_for_clean_mark(struct vv_directory *d)
{
    char path[4096];
    struct vv_stat st;
    int err = join(d, CLEAN_MARK, path);
    d->clean = !err && !vv_fs_stat(d->env, path, &st);
    return err;
}

int vv_directory_begin(struct vv_directory *d, struct vv_error *e)
{
    char path[4096];
    if (!d->clean)
        return VV_OK;
    int err = join(d, CLEAN_MARK, path);
    if (!err)
        err = vv_fs_unlink(d->env, path);
    if (!err)
        err = vv_fs_sync_dir(d->env, d->path); /* a crash from now on must not look like an orderly stop */
    return err ? unusable(d, err, "write to", e) : VV_OK;
}

int vv_directory_open(struct vv_env *env, const char *path, int32_t node_id, struct vv_directory *d,
                      struct vv_error *e)
{
    char meta[4096];
    uint8_t *text = NULL;
    size_t n;
    *d = (struct vv_directory){.env = env, .path = strdup(path), .node_id = node_id};
    if (!d->path) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int err = make_and_lock(d, e);
    if (err) return err;
    err = join(d, META, meta);
    if (!err) err = vv_fs_read_file(env, meta, 65536, &text, &n);
    if (err == VV_E_NOENT) {
        err = examine_fresh(d, e);
    } else if (err) {
        unusable(d, err, "read", e);
    } else {
        err = read_meta(d, (const char *)text, node_id, e);
        free(text);
    }
    return err ? err : look_for_clean_mark(d);
}

/* ---- writing ---- */

int vv_directory_claim(struct vv_directory *d, const char *cluster_id, const char *tier, struct vv_error *e)
{
    char path[4096], text[4096], date[64];
    time_t now = (time_t)(vv_wall_ms(d->env) / 1000);
    struct tm tm;
    snprintf(d->cluster_id, sizeof d->cluster_id, "%s", cluster_id);
    if (tier) snprintf(d->tier, sizeof d->tier, "%s", tier);
    if (!*d->directory_id) {
        struct vv_uuid id;
        do {
            vv_random(d->env, id.b, sizeof id.b);
            vv_uuid_text(id, d->directory_id);
        } while (*d->directory_id == '-');
    }
    gmtime_r(&now, &tm);
    strftime(date, sizeof date, "%a %b %d %H:%M:%S UTC %Y", &tm);
    int n = snprintf(text, sizeof text,
                     "#\n#%s\ncluster.id=%s\ndirectory.id=%s\nnode.id=%d\nversion=1\nvarve.version=%s\n%s%s%s%s%s%s%s", date,
                     d->cluster_id, d->directory_id, (int)d->node_id, VARVE_VERSION, *d->tier ? "varve.tier=" : "",
                     d->tier, *d->tier ? "\n" : "", *d->moved_from ? "varve.tier.moved.from=" : "", d->moved_from,
                     *d->moved_from ? "\n" : "", d->replica ? "varve.replica=true\n" : "");
    int err = n < (int)sizeof text ? join(d, META, path) : VV_E_LIMIT;
    if (!err) err = vv_fs_write_file(d->env, path, text, (size_t)n);
    if (err) return unusable(d, err, "write to", e);
    d->fresh = false;
    if (!join(d, RESTORING, path)) vv_fs_unlink(d->env, path); /* harmless beside meta.properties */
    return VV_OK;
}

int vv_directory_restoring(struct vv_directory *d, struct vv_error *e)
{
    char path[4096];
    int err = join(d, RESTORING, path);
    if (!err) err = vv_fs_write_file(d->env, path, "", 0);
    return err ? unusable(d, err, "write to", e) : VV_OK;
}

int vv_directory_mark_clean(struct vv_directory *d)
{
    static const char text[] = "{\"version\":0,\"brokerEpoch\":-1}";
    char path[4096];
    int err = join(d, CLEAN_MARK, path);
    return err ? err : vv_fs_write_file(d->env, path, text, sizeof text - 1);
}

void vv_directory_close(struct vv_directory *d)
{
    if (d->env) vv_fs_close(d->env, d->lock);
    d->lock = NULL;
    free(d->path);
    d->path = NULL;
}
