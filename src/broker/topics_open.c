/* topics_open.c — opening, closing and retiring partitions, many at a time, and tidying the log directory before.
 *
 * A job is a list of slots that a few threads take one by one; the first error ends it. Opening recovers what a crash
 * left, so it may read a lot: that is why it is parallel. Runs while nobody else touches the partitions of the job.
 */
#include "opening.h"
#include "topics.h"

#include "varve/bytes.h"
#include "varve/vlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 64

struct slot {
    struct vv_topic *topic;
    int32_t index;
    struct vv_partition **at;
};

struct job {
    struct vv_broker *broker;
    struct slot *slots;
    size_t count;
    _Atomic size_t next;
    enum { OPEN, CLOSE, RETIRE } what;
    bool clean;
    pthread_mutex_t lock;
    int err; /* first */
    struct vv_error *e;
};

static void note(struct job *j, const struct slot *s, int err, const struct vv_error *why)
{
    pthread_mutex_lock(&j->lock);
    if (!j->err) {
        j->err = err;
        vv_error_set(j->e, err, "%s-%d: %s", s->topic->name, (int)s->index,
                     why && *why->text ? why->text : vv_err_name(err));
    }
    pthread_mutex_unlock(&j->lock);
}

static bool failed(struct job *j)
{
    pthread_mutex_lock(&j->lock);
    bool yes = j->err != 0;
    pthread_mutex_unlock(&j->lock);
    return yes;
}

/* What a try to bring it back left: the name must be free. */
static int remove_unfinished(struct vv_broker *b, const struct slot *s)
{
    char dir[4096];
    if ((size_t)snprintf(dir, sizeof dir, "%s/%s-%d", b->log_dir, s->topic->name, (int)s->index) >= sizeof dir) return VV_E_LIMIT;
    int err = vv_topic_dir_remove(b->env, dir);
    return err == VV_E_NOENT ? VV_OK : err;
}

static void *take_slots(void *arg)
{
    struct job *j = arg;
    for (;;) {
        size_t i = atomic_fetch_add(&j->next, 1);
        if (i >= j->count) return NULL;
        struct slot *s = &j->slots[i];
        struct vv_error why = {0};
        int err = VV_OK;
        if (j->what == CLOSE) { /* every one is closed, whatever the others said */
            if (*s->at) err = vv_partition_close(*s->at);
            *s->at = NULL;
        } else if (j->what == RETIRE) {
            err = *s->at ? vv_partition_retire_dir(*s->at) : remove_unfinished(j->broker, s);
        } else if (!failed(j)) {
            err = vv_partition_open(j->broker, s->topic, s->index, j->clean, s->at, &why);
        }
        if (err) note(j, s, err, &why);
    }
}

static int run(struct job *j)
{
    pthread_t threads[THREADS_MAX];
    size_t want = (size_t)j->broker->config->num_recovery_threads_per_data_dir, started = 0;
    size_t least = j->broker->restoring ? THREADS_MAX : 8; /* most of it waits for the bucket, or for the disk */
    want = VV_MIN(VV_MIN(VV_MAX(want, least), (size_t)THREADS_MAX), j->count);
    pthread_mutex_init(&j->lock, NULL);
    while (started + 1 < want && !pthread_create(&threads[started], NULL, take_slots, j))
        started++;
    take_slots(j); /* this thread too: with no other it does all */
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&j->lock);
    free(j->slots);
    return j->err;
}

int vv_topics_open_parts(struct vv_topic *t, int32_t from, int32_t to, struct vv_partition **out, struct vv_error *e)
{
    struct job j = {
        .broker = t->broker, .clean = !t->returning, .e = e, .slots = calloc((size_t)(to - from), sizeof *j.slots)};
    if (!j.slots) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    for (int32_t i = from; i < to; i++)
        j.slots[j.count++] = (struct slot){t, i, &out[i - from]};
    return run(&j);
}

int vv_topics_retire_parts(struct vv_topic *t, struct vv_error *e)
{
    struct job j = {
        .broker = t->broker, .what = RETIRE, .e = e, .slots = calloc((size_t)t->partition_count, sizeof *j.slots)};
    if (!j.slots) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    for (int32_t i = 0; i < t->partition_count; i++)
        j.slots[j.count++] = (struct slot){t, i, &t->partitions[i]};
    return run(&j);
}

static int all(struct vv_topics *ts, struct job *j)
{
    struct vv_opening *later = j->what == OPEN ? ts->broker->opening : NULL;
    size_t n = 0;
    for (size_t i = 0; i < ts->count; i++)
        n += (size_t)ts->v[i]->partition_count;
    j->broker = ts->broker;
    j->slots = calloc(n + 1, sizeof *j->slots);
    if (!j->slots) return vv_error_set(j->e, VV_E_NOMEM, "out of memory");
    for (size_t i = 0; i < ts->count; i++)
        for (int32_t k = 0; k < ts->v[i]->partition_count; k++) {
            bool takes = false;
            int err = later ? vv_opening_takes(later, ts->v[i], k, &takes) : VV_OK;
            if (err) {
                free(j->slots);
                return vv_error_set(j->e, err, "%s-%d: %s", ts->v[i]->name, (int)k, vv_err_name(err));
            }
            if (!takes) j->slots[j->count++] = (struct slot){ts->v[i], k, &ts->v[i]->partitions[k]};
        }
    return run(j);
}

int vv_topics_open_all(struct vv_topics *ts, bool clean, struct vv_error *e)
{
    struct job j = {.clean = clean, .e = e};
    int err = all(ts, &j);
    /* The epochs that began now are durable when their directories' names are: once for all of them. */
    if (!err && (!clean || ts->broker->restoring)) {
        err = vv_fs_sync_dir(ts->broker->env, ts->broker->log_dir);
        if (err) vv_error_set(e, err, "cannot sync %s: %s", ts->broker->log_dir, vv_err_name(err));
    }
    return err;
}

int vv_topics_close(struct vv_topics *ts)
{
    struct vv_error e = {0};
    struct job j = {.what = CLOSE, .e = &e};
    int err = all(ts, &j);
    if (err) VLOG_ERROR("not closed cleanly: %s", e.text);
    return err;
}

/* ---- tidying ---- */

struct names {
    char **v;
    size_t count;
};

static int collect(void *ctx, const char *name)
{
    struct names *l = ctx;
    char **v = realloc(l->v, (l->count + 1) * sizeof *v);
    if (!v) return VV_E_NOMEM;
    l->v = v;
    v[l->count] = strdup(name);
    return v[l->count++] ? VV_OK : VV_E_NOMEM;
}

static void names_free(struct names *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->v[i]);
    free(l->v);
}

/* A partition's directory: files only. */
int vv_topic_dir_remove(struct vv_env *env, const char *dir)
{
    struct names l = {0};
    char path[4096];
    int err = vv_fs_list(env, dir, collect, &l);
    for (size_t i = 0; i < l.count && !err; i++) {
        if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, l.v[i]) >= sizeof path) err = VV_E_LIMIT;
        if (!err) err = vv_fs_unlink(env, path);
    }
    names_free(&l);
    return err ? err : vv_fs_rmdir(env, dir);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

size_t vv_topic_dir_parse(const char *name, long *partition, bool *retired)
{
    char stem[256], *end;
    *retired = ends_with(name, "-delete");
    if ((size_t)snprintf(stem, sizeof stem, "%s", name) >= sizeof stem) return 0;
    char *dot = *retired ? strrchr(stem, '.') : NULL;
    if (dot) *dot = 0;
    const char *dash = strrchr(stem, '-');
    if (!dash || dash == stem || dash[1] < '0' || dash[1] > '9') return 0;
    *partition = strtol(dash + 1, &end, 10);
    return *end ? 0 : (size_t)(dash - stem);
}

bool vv_topic_dir_id(struct vv_env *env, const char *dir, struct vv_uuid *id)
{
    char path[4096], text[23];
    uint8_t *bytes = NULL;
    size_t n;
    if ((size_t)snprintf(path, sizeof path, "%s/partition.metadata", dir) >= sizeof path) return false;
    if (vv_fs_read_file(env, path, 4096, &bytes, &n)) return false;
    const char *at = memmem(bytes, n, "topic_id: ", 10);
    bool ok = at && (size_t)((const char *)bytes + n - at) >= 32;
    if (ok) {
        memcpy(text, at + 10, 22);
        text[22] = 0;
        ok = vv_uuid_parse(text, id);
    }
    free(bytes);
    return ok;
}

static const struct vv_doomed *doomed_of(struct vv_topics *ts, const char *dir)
{
    struct vv_uuid id;
    return vv_topic_dir_id(ts->broker->env, dir, &id) ? vv_doomed_find(ts, id) : NULL;
}

/* Nothing was ever written, or the topic is on the list of deleted ones. */
static bool worthless(struct vv_topics *ts, const char *dir)
{
    struct vv_env *env = ts->broker->env;
    struct names l = {0};
    char path[4096];
    bool bytes = vv_fs_list(env, dir, collect, &l) != 0;
    for (size_t i = 0; i < l.count; i++) {
        struct vv_stat st;
        bool fits = (size_t)snprintf(path, sizeof path, "%s/%s", dir, l.v[i]) < sizeof path;
        if (ends_with(l.v[i], ".log") && (!fits || vv_fs_stat(env, path, &st) || st.size)) bytes = true;
    }
    names_free(&l);
    return !bytes || doomed_of(ts, dir);
}

/* Of a deleted topic that can be brought back: out of the way under the name that a deletion gives it. */
static int put_aside(struct vv_topics *ts, const char *name, const char *dir)
{
    char aside[4096];
    uint64_t r[2];
    if (ends_with(name, "-delete")) return VV_OK;
    vv_random(ts->broker->env, r, sizeof r);
    if ((size_t)snprintf(aside, sizeof aside, "%s.%016llx%016llx-delete", dir, (unsigned long long)r[0], (unsigned long long)r[1]) >=
        sizeof aside)
        return VV_E_LIMIT;
    return vv_fs_rename(ts->broker->env, dir, aside);
}

static int tidy_one(struct vv_topics *ts, const char *name, struct vv_error *e)
{
    struct vv_env *env = ts->broker->env;
    char dir[4096], aside[4096];
    struct vv_stat st;
    long partition = 0;
    bool retired;
    size_t topic_n = vv_topic_dir_parse(name, &partition, &retired);
    int err = VV_OK;
    bool made = ends_with(name, VV_PARTITION_MADE);
    if (!topic_n && !retired && !made) return VV_OK;
    if ((size_t)snprintf(dir, sizeof dir, "%s/%s", ts->broker->log_dir, name) >= sizeof dir) return VV_OK;
    if (vv_fs_stat(env, dir, &st) || !st.is_dir) return VV_OK;
    if (made) return vv_topic_dir_remove(env, dir);
    struct vv_topic *t = topic_n && !retired ? vv_topics_get(ts, name, topic_n) : NULL;
    bool ours = t && partition < t->partition_count;
    if (t) atomic_fetch_sub(&t->refs, 1);
    if (ours) return VV_OK;
    const struct vv_doomed *d = doomed_of(ts, dir);
    if (d && vv_doomed_keeps(ts->broker, d)) {
        err = put_aside(ts, name, dir);
    } else if (retired || worthless(ts, dir)) {
        err = vv_topic_dir_remove(env, dir);
        if (!err) VLOG_INFO("%s: removed, left over from a topic that is gone", dir);
    } else {
        if ((size_t)snprintf(aside, sizeof aside, "%s-stray", dir) >= sizeof aside) return VV_OK;
        err = vv_fs_rename(env, dir, aside);
        VLOG_WARN("%s belongs to no topic here: renamed to %s-stray; remove it when nobody misses it", dir, name);
    }
    return err ? vv_error_set(e, err, "cannot tidy %s: %s", dir, vv_err_name(err)) : VV_OK;
}

int vv_topics_tidy(struct vv_topics *ts, struct vv_error *e)
{
    struct names l = {0};
    int err = vv_fs_list(ts->broker->env, ts->broker->log_dir, collect, &l);
    if (err) vv_error_set(e, err, "cannot list %s: %s", ts->broker->log_dir, vv_err_name(err));
    for (size_t i = 0; i < l.count && !err; i++)
        err = tidy_one(ts, l.v[i], e);
    names_free(&l);
    for (size_t i = ts->doomed_count; i-- && !err;)
        if (!ts->doomed[i].tiered) vv_doomed_remove(ts, ts->doomed[i].id);
    return err;
}
