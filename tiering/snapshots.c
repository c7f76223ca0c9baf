/* snapshots.c — the list of topics in the bucket: its newest state (v1/cluster.json), and those of before that restores as of a time
 * need (v1/h/MILLISECONDS.json, docs/bucket-format.md).
 *
 * A copy of a state is kept when topics changed, and at most every ten minutes when only committed offsets did. With age they are thinned
 * out: after a day one an hour, after two weeks one a day, after 400 days one in 30 days; the newest always stays. So the
 * number is bounded by the age of the bucket (ten years: about 900) and by CHANGES_MAX. A copy that cannot be written or deleted is
 * no error of the put: the state itself is in cluster.json. Which copies there are is listed once a life; one writer, so memory is
 * right afterwards. Threads: any; `lock` is held across the store. */
#include "jsoncrc.h"
#include "tier_impl.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS  60000
#define LOOK_MS      5000
#define SNAPSHOT_MAX (256u << 20)
#define MINUTE_MS    60000LL
#define HOUR_MS      (60 * MINUTE_MS)
#define DAY_MS       (24 * HOUR_MS)
#define EVERY_MS     (10 * MINUTE_MS)
#define CHANGES_MAX  4000

struct vv_snapshots {
    pthread_mutex_t lock;
    bool listed;
    int64_t *at; /* ascending */
    size_t n;
};

static void key_of(int64_t ms, char out[VV_KEY_MAX])
{
    snprintf(out, VV_KEY_MAX, VV_KEY_SNAPSHOTS "%015" PRId64 ".json", ms);
}

static int64_t time_of(const char *key) /* -1: not ours */
{
    char again[VV_KEY_MAX], *end;
    int64_t ms = strtoll(key + sizeof VV_KEY_SNAPSHOTS - 1, &end, 10);
    if (ms < 0) return -1;
    key_of(ms, again);
    return strcmp(again, key) ? -1 : ms;
}

/* All times of kept copies, ascending (as keys are); *at is malloc'ed. */
static int list_all(struct vv_objstore *store, int64_t **at, size_t *count, struct vv_error *e)
{
    char after[VV_KEY_MAX] = "";
    bool more = true;
    int err = VV_OK;
    *at = NULL;
    *count = 0;
    while (more && !err) {
        struct vv_objlist l = {0};
        err = vv_objstore_list(store, VV_KEY_SNAPSHOTS, *after ? after : NULL, 0, DEADLINE_MS, &l, e);
        int64_t *v = !err && l.count ? realloc(*at, (*count + l.count) * sizeof *v) : *at;
        if (!err && l.count && !v) err = VV_E_NOMEM;
        if (v) *at = v;
        for (size_t i = 0; i < l.count && !err; i++)
            if (time_of(l.v[i].key) >= 0) v[(*count)++] = time_of(l.v[i].key);
        more = !err && l.more && l.count;
        if (more) snprintf(after, sizeof after, "%s", l.v[l.count - 1].key);
        vv_objlist_release(&l);
    }
    if (!err) return VV_OK;
    free(*at);
    *at = NULL;
    *count = 0;
    return err;
}

static int64_t spacing(int64_t age_ms)
{
    return age_ms < DAY_MS ? 0 : age_ms < 14 * DAY_MS ? HOUR_MS : age_ms < 400 * DAY_MS ? DAY_MS : 30 * DAY_MS;
}

/* The oldest copy that is too close to its younger neighbour; SIZE_MAX: none. */
static size_t superfluous(const struct vv_snapshots *s, int64_t now_ms)
{
    for (size_t i = 0; i + 1 < s->n; i++)
        if (s->at[i + 1] - s->at[i] < spacing(now_ms - s->at[i])) return i ? i : s->n > 2 ? 1 : SIZE_MAX;
    return s->n > CHANGES_MAX ? 1 : SIZE_MAX; /* the oldest says when the history begins */
}

static void thin_out(struct vv_tier *t, struct vv_snapshots *s)
{
    char key[VV_KEY_MAX];
    struct vv_error e = {0};
    for (int k = 0; k < 16; k++) { /* a few at a time: there is a next put */
        size_t i = superfluous(s, vv_wall_ms(t->env));
        if (i == SIZE_MAX) return;
        key_of(s->at[i], key);
        if (vv_tier_saw(t, vv_objstore_delete(t->store, key, DEADLINE_MS, &e))) return;
        memmove(s->at + i, s->at + i + 1, (s->n - i - 1) * sizeof *s->at);
        s->n--;
    }
}

static void keep_copy(struct vv_tier *t, struct vv_snapshots *s, const char *json, size_t n, bool changed)
{
    char key[VV_KEY_MAX];
    struct vv_error e = {0};
    int64_t now = vv_wall_ms(t->env);
    int err = s->listed ? VV_OK : vv_tier_saw(t, list_all(t->store, &s->at, &s->n, &e));
    s->listed = s->listed || !err;
    if (err || (s->n && now <= s->at[s->n - 1])) goto out; /* a clock that went back keeps nothing until it is there again */
    if (!changed && s->n && now - s->at[s->n - 1] < EVERY_MS) return;
    int64_t *v = realloc(s->at, (s->n + 1) * sizeof *v);
    if (!v) return;
    s->at = v;
    key_of(now, key);
    err = vv_tier_saw(t, vv_objstore_put_mem(t->store, key, json, n, NULL, DEADLINE_MS, NULL, &e));
    if (!err) v[s->n++] = now;
    if (!err) thin_out(t, s);
out:
    if (err) VLOG_WARN("tier: no copy of the list of topics was kept for restores as of this time: %s", e.text);
}

static struct vv_snapshots *snapshots_of(struct vv_tier *t)
{
    pthread_mutex_lock(&t->mu);
    if (!t->snapshots && (t->snapshots = calloc(1, sizeof *t->snapshots))) pthread_mutex_init(&t->snapshots->lock, NULL);
    struct vv_snapshots *s = t->snapshots;
    pthread_mutex_unlock(&t->mu);
    return s;
}

int vv_tier_put_snapshot(struct vv_tier *t, const char *json, size_t n, bool keep, struct vv_error *e)
{
    if (atomic_load(&t->unclaimed)) return vv_error_set(e, VV_E_AGAIN, "%s does not answer yet", t->store->url);
    if (atomic_load(&t->fenced)) return vv_error_set(e, VV_E_CONFLICT, "another writer took over %s", t->store->url);
    struct vv_snapshots *s = snapshots_of(t);
    if (!s) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    char *text = vv_jsoncrc_add(json, n, &n);
    if (!text) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    pthread_mutex_lock(&s->lock);
    int err = vv_tier_saw(t, vv_objstore_put_mem(t->store, VV_KEY_CLUSTER, text, n, NULL, DEADLINE_MS, NULL, e));
    if (!err) keep_copy(t, s, text, n, keep);
    pthread_mutex_unlock(&s->lock);
    free(text);
    return err;
}

void vv_snapshots_lock(struct vv_tier *t)
{
    struct vv_snapshots *s = snapshots_of(t);
    if (s) pthread_mutex_lock(&s->lock);
}

void vv_snapshots_unlock(struct vv_tier *t)
{
    if (t->snapshots) pthread_mutex_unlock(&t->snapshots->lock);
}

void vv_snapshots_free(struct vv_snapshots *s)
{
    if (!s) return;
    pthread_mutex_destroy(&s->lock);
    free(s->at);
    free(s);
}

/* ---- reading ---- */

/* Without a list of topics a bucket with segments must not pass for a new one: a fresh list would hide them. */
static int no_snapshot(struct vv_objstore *store, struct vv_error *e)
{
    struct vv_objlist l = {0};
    int err = vv_objstore_list(store, VV_KEY_TOPICS, NULL, 1, DEADLINE_MS, &l, e);
    bool any = !err && l.count;
    vv_objlist_release(&l);
    if (err) return err;
    return any ? vv_error_set(e, VV_E_CORRUPT, "%s has segments below %s but no %s any more: bring it back (object versions, a copy of "
                              "the bucket); a new one would hide them", store->url, VV_KEY_TOPICS, VV_KEY_CLUSTER)
               : vv_error_set(e, VV_E_NOENT, "%s is not there: a new bucket", VV_KEY_CLUSTER);
}

static int get_text(struct vv_objstore *store, const char *key, char **json, size_t *n, struct vv_error *e)
{
    struct vv_slice s = {0};
    *json = NULL;
    *n = 0;
    int err = vv_objstore_get_whole(store, key, SNAPSHOT_MAX, DEADLINE_MS, &s, NULL, e);
    if (err) return err;
    *json = malloc(s.n + 1);
    if (*json) {
        memcpy(*json, s.p, s.n);
        (*json)[s.n] = 0;
        *n = s.n;
    }
    vv_buf_unref(s.buf);
    if (!*json) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (vv_jsoncrc_holds(*json, *n)) {
        vv_jsoncrc_strip(*json, n);
        return VV_OK;
    }
    free(*json);
    *json = NULL;
    return vv_error_set(e, VV_E_CORRUPT, "%s of %s does not fit its checksum: bring an older version of it back, or a copy (v1/h/)", key,
                        store->url);
}

int vv_tier_get_snapshot(struct vv_tier *t, char **json, size_t *n, struct vv_error *e)
{
    int err = vv_tier_saw(t, get_text(t->store, VV_KEY_CLUSTER, json, n, e));
    return err == VV_E_NOENT ? vv_tier_saw(t, no_snapshot(t->store, e)) : err;
}

int vv_tier_snapshot_etag(struct vv_tier *t, char etag[VV_OBJ_ETAG_MAX], struct vv_error *e)
{
    struct vv_objinfo info = {0};
    int err = vv_tier_saw(t, vv_objstore_head(t->store, VV_KEY_CLUSTER, LOOK_MS, &info, e));
    memcpy(etag, info.etag, sizeof info.etag);
    return err;
}

int vv_snapshots_get(struct vv_objstore *store, int64_t as_of_ms, char **json, size_t *n, int64_t *at_ms, int64_t *oldest_ms,
                     struct vv_error *e)
{
    int64_t *at = NULL;
    size_t count = 0, i;
    char key[VV_KEY_MAX];
    *json = NULL;
    *n = 0;
    *at_ms = *oldest_ms = -1;
    if (as_of_ms == INT64_MAX) {
        int err = get_text(store, VV_KEY_CLUSTER, json, n, e);
        return err == VV_E_NOENT ? no_snapshot(store, e) : err;
    }
    int err = list_all(store, &at, &count, e);
    if (!err && count) *oldest_ms = at[0];
    for (i = count; !err && i && at[i - 1] > as_of_ms; i--) continue;
    if (!err && !i) err = vv_error_set(e, VV_E_NOENT, "no list of topics is kept that is as old as that");
    if (!err) {
        *at_ms = at[i - 1];
        key_of(*at_ms, key);
        err = get_text(store, key, json, n, e);
    }
    free(at);
    return err;
}
