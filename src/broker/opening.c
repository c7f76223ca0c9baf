/* opening.c — see opening.h. */
#include "opening.h"

#include "groups_snapshot.h"
#include "migration.h"
#include "varve/bytes.h"
#include "varve/vlog.h"
#include "varve/wait.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME    "varve-restore.json"
#define FILE_MAX     (256u << 20)
#define THREADS      64 /* they wait for the bucket */
#define AGAIN_MS     1000
#define AGAIN_MAX_MS 30000

enum state { WAITS, OPENS, OPENED, DONE };

struct item {
    struct vv_topic *topic; /* a reference, until DONE */
    int32_t index;
    enum state state;
    bool asked;             /* in the queue of those that were asked for */
    bool looked;            /* an answer came, if only that it cannot be read */
    int err;                /* of the last try */
    unsigned failures;
    int64_t after_ms;
    struct vv_partition *partition; /* OPENED */
};

struct vv_opening {
    struct vv_broker *b;
    char *path;
    char *text; /* the bucket's list, until the groups were taken from it; control's */
    size_t text_n;
    bool no_groups; /* control's: they are here, or cannot be taken */
    struct item *v; /* by topic and index, once all are noted */
    size_t n, cap;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t cursor;
    size_t *asked, asked_head, asked_n; /* a ring of indexes into v, each in it at most once */
    bool stop, told_away, over; /* over: all are back */
    int64_t began_ms;
    pthread_t threads[THREADS];
    size_t started;
    struct vv_task publish;
};

/* ---- what is left of an earlier start ---- */

static char *path_of(struct vv_broker *b)
{
    char *path;
    return asprintf(&path, "%s/" FILE_NAME, b->log_dir) < 0 ? NULL : path;
}

int vv_opening_left(struct vv_broker *b, char **text, size_t *n, struct vv_error *e)
{
    char *path = path_of(b);
    uint8_t *bytes = NULL;
    if (!path) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int err = vv_fs_read_file(b->env, path, FILE_MAX, &bytes, n);
    if (err && err != VV_E_NOENT) vv_error_set(e, err, "cannot read %s: %s", path, vv_err_name(err));
    *text = (char *)bytes;
    free(path);
    return err;
}

int vv_opening_new(struct vv_broker *b, struct vv_opening **out)
{
    struct vv_opening *o = *out = calloc(1, sizeof *o);
    if (!o || !(o->path = path_of(b))) return VV_E_NOMEM;
    o->b = b;
    pthread_mutex_init(&o->lock, NULL);
    vv_cond_init(&o->changed);
    return VV_OK;
}

int vv_opening_takes(struct vv_opening *o, struct vv_topic *t, int32_t index, bool *takes)
{
    char dir[4096];
    struct vv_stat st;
    int n;
    *takes = false;
    if (!o->b->tier || t->internal || !t->config.remote_storage) return VV_OK;
    n = snprintf(dir, sizeof dir, "%s/%s-%d", o->b->log_dir, t->name, (int)index);
    if (n < 0 || (size_t)n + sizeof "/" VV_PARTITION_MARK > sizeof dir) return VV_E_LIMIT;
    int err = vv_fs_stat(o->b->env, dir, &st);
    strcpy(dir + n, "/" VV_PARTITION_MARK);
    if (!err && (err = vv_fs_stat(o->b->env, dir, &st)) == VV_E_NOENT) return VV_OK; /* it is complete */
    if (err && err != VV_E_NOENT) return err;
    if (o->n == o->cap) {
        size_t cap = o->cap ? o->cap * 2 : 256;
        struct item *v = realloc(o->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        o->v = v;
        o->cap = cap;
    }
    atomic_fetch_add(&t->refs, 1);
    o->v[o->n++] = (struct item){.topic = t, .index = index};
    *takes = true;
    return VV_OK;
}

size_t vv_opening_count(const struct vv_opening *o)
{
    return o->n;
}

static int by_topic(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->topic != y->topic) return (uintptr_t)x->topic < (uintptr_t)y->topic ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

int vv_opening_keep(struct vv_opening *o, const char *text, size_t n, struct vv_error *e)
{
    json_t *list = json_loadb(text, n, 0, NULL);
    bool groups = json_is_array(json_object_get(list, "groups"));
    json_decref(list);
    if (o->n) qsort(o->v, o->n, sizeof *o->v, by_topic);
    o->asked = calloc(o->n + 1, sizeof *o->asked); /* a ring of n */
    o->text = groups ? malloc(n) : NULL;
    o->no_groups = !groups;
    if (!o->asked || (groups && !o->text)) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (groups) memcpy(o->text, text, n);
    o->text_n = n;
    int err = vv_fs_write_file(o->b->env, o->path, text, n);
    return err ? vv_error_set(e, err, "cannot write %s: %s", o->path, vv_err_name(err)) : VV_OK;
}

bool vv_opening_over(struct vv_opening *o)
{
    pthread_mutex_lock(&o->lock);
    bool over = o->over;
    pthread_mutex_unlock(&o->lock);
    return over;
}

bool vv_opening_has_groups(const struct vv_opening *o)
{
    return o->text != NULL;
}

const char *vv_opening_list(const struct vv_opening *o, size_t *n)
{
    *n = o->text_n;
    return o->text;
}

/* ---- asking ---- */

static struct item *find(struct vv_opening *o, struct vv_topic *t, int32_t index)
{
    struct item key = {.topic = t, .index = index};
    return o->n ? bsearch(&key, o->v, o->n, sizeof *o->v, by_topic) : NULL;
}

int vv_topic_absent(struct vv_topic *t, int32_t index)
{
    struct vv_opening *o = t->broker->opening;
    if (!o || index < 0 || index >= vv_topic_partitions(t)) return VV_UNKNOWN_TOPIC_OR_PARTITION;
    pthread_mutex_lock(&o->lock);
    struct item *x = find(o, t, index);
    int err = x && x->err && x->looked ? VV_KAFKA_STORAGE_ERROR : VV_NOT_LEADER_OR_FOLLOWER;
    if (x && x->state == WAITS && !x->asked) {
        x->asked = true;
        o->asked[(o->asked_head + o->asked_n++) % o->n] = (size_t)(x - o->v);
        pthread_cond_signal(&o->changed);
    }
    pthread_mutex_unlock(&o->lock);
    return err;
}

/* ---- the threads ---- */

/* lock held. Who was asked for, then in order, then those whose time has come again. NULL: none before *due_ms. */
static struct item *next(struct vv_opening *o, int64_t now_ms, int64_t *due_ms)
{
    *due_ms = now_ms + AGAIN_MAX_MS;
    while (o->asked_n) {
        struct item *x = &o->v[o->asked[o->asked_head]];
        o->asked_head = (o->asked_head + 1) % o->n;
        o->asked_n--;
        x->asked = false;
        if (x->state == WAITS && x->after_ms <= now_ms) return x;
    }
    while (o->cursor < o->n) {
        struct item *x = &o->v[o->cursor++];
        if (x->state == WAITS && !x->failures) return x;
    }
    for (size_t i = 0; i < o->n; i++) {
        if (o->v[i].state != WAITS) continue;
        if (o->v[i].after_ms <= now_ms) return &o->v[i];
        *due_ms = VV_MIN(*due_ms, o->v[i].after_ms);
    }
    return NULL;
}

static bool is_away(int err)
{
    return err == VV_E_AGAIN || err == VV_E_TIMEOUT || err == VV_E_ACCESS || err == VV_E_SHUTDOWN;
}

static void failed(struct vv_opening *o, struct item *x, int err, const struct vv_error *e) /* lock held */
{
    bool away = is_away(err), say = away ? !o->told_away : !x->failures;
    if (say && err != VV_E_SHUTDOWN)
        VLOG_WARN("%s-%d is not back yet: %s; trying again", x->topic->name, (int)x->index, *e->text ? e->text : vv_err_name(err));
    if (away) o->told_away = true;
    x->after_ms = vv_mono_ms(o->b->env) + VV_MIN((int64_t)AGAIN_MS << VV_MIN(x->failures, 5u), (int64_t)AGAIN_MAX_MS);
    x->failures++;
    x->err = err;
    x->looked = x->looked || !away;
    x->state = WAITS;
}

static void *work(void *arg)
{
    struct vv_opening *o = arg;
    pthread_mutex_lock(&o->lock);
    while (!o->stop) {
        int64_t due, now = vv_mono_ms(o->b->env);
        struct item *x = next(o, now, &due);
        if (!x) {
            struct timespec until = vv_deadline_us((due - now + 1) * 1000);
            pthread_cond_timedwait(&o->changed, &o->lock, &until);
            continue;
        }
        x->state = OPENS;
        pthread_mutex_unlock(&o->lock);
        struct vv_error e = {0};
        struct vv_partition *p = NULL;
        int err = vv_partition_restore(o->b, x->topic, x->index, &p, &e);
        pthread_mutex_lock(&o->lock);
        if (err) {
            failed(o, x, err, &e);
        } else {
            o->told_away = false;
            x->looked = true;
            x->partition = p;
            x->state = OPENED;
        }
        vv_broker_control_post(o->b, &o->publish);
    }
    pthread_mutex_unlock(&o->lock);
    return NULL;
}

/* ---- on control, where topics change ---- */

/* The groups' offsets, once every partition was looked at; not twice. */
static void bring_groups(struct vv_opening *o)
{
    struct vv_broker *b = o->b;
    struct vv_error e = {0};
    int err = vv_groups_import(b, o->text, o->text_n, &e);
    if (!err && (err = vv_fs_write_file(b->env, o->path, "{}", 2)))
        vv_error_set(&e, err, "cannot write %s: %s", o->path, vv_err_name(err));
    o->no_groups = true;
    if (!err) err = vv_groups_open(b, &b->groups, &e);
    if (err) {
        VLOG_ERROR("%s; the groups wait for the next start", e.text);
        return;
    }
    free(o->text);
    o->text = NULL;
    atomic_store(&b->groups_ready, true);
    vv_topics_changed(b);
}

static void finish(struct vv_opening *o)
{
    int err = o->text ? VV_OK : vv_fs_unlink(o->b->env, o->path);
    if (err) VLOG_WARN("%s cannot be removed: %s", o->path, vv_err_name(err));
    VLOG_INFO("all %zu partitions are back after %lld ms", o->n, (long long)(vv_mono_ms(o->b->env) - o->began_ms));
    pthread_mutex_lock(&o->lock);
    o->stop = o->over = true;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
    vv_migration_look(o->b);
}

static void publish(struct vv_task *task)
{
    struct vv_opening *o = VV_CONTAINER(task, struct vv_opening, publish);
    size_t left = 0, unseen = 0;
    bool over;
    pthread_mutex_lock(&o->lock);
    over = o->stop;
    for (size_t i = 0; i < o->n; i++) {
        struct item *x = &o->v[i];
        if (x->state == OPENED) {
            x->state = DONE;
            vv_partition_join(x->partition);
            vv_topic_put(x->topic, x->index, x->partition);
            vv_partition_configure(x->partition, &x->topic->config); /* as it is now */
            x->partition = NULL;
            x->err = VV_OK;
            vv_topic_unref(x->topic);
        }
        left += x->state != DONE;
        unseen += x->state != DONE && !x->looked;
    }
    pthread_mutex_unlock(&o->lock);
    if (over) return;
    if (!unseen && !o->no_groups) bring_groups(o);
    if (!left) finish(o);
}

bool vv_opening_drop(struct vv_opening *o, struct vv_topic *t)
{
    bool busy = false;
    if (!o) return true;
    pthread_mutex_lock(&o->lock);
    for (size_t i = 0; i < o->n; i++) busy = busy || (o->v[i].topic == t && (o->v[i].state == OPENS || o->v[i].state == OPENED));
    for (size_t i = 0; i < o->n && !busy; i++) {
        if (o->v[i].topic != t || o->v[i].state != WAITS) continue;
        o->v[i].state = DONE;
        vv_topic_unref(t); /* not the last one */
    }
    pthread_mutex_unlock(&o->lock);
    vv_broker_control_post(o->b, &o->publish);
    return !busy;
}

/* ---- life ---- */

int vv_opening_start(struct vv_opening *o)
{
    int rc = 0;
    o->publish.run = publish;
    o->began_ms = vv_mono_ms(o->b->env);
    size_t want = VV_MIN(o->n, (size_t)THREADS);
    while (o->started < want && !(rc = pthread_create(&o->threads[o->started], NULL, work, o))) o->started++;
    if (want) VLOG_INFO("%zu partitions are brought back from the bucket in the background", o->n);
    vv_broker_control_post(o->b, &o->publish); /* with nothing to bring back there is nobody else to */
    return o->started || !want ? VV_OK : vv_err_from_errno(rc);
}

void vv_opening_wait(struct vv_opening *o, int64_t ms)
{
    struct timespec until = vv_deadline_us(ms * 1000);
    int rc = 0;
    pthread_mutex_lock(&o->lock);
    while (!o->over && !rc) rc = pthread_cond_timedwait(&o->changed, &o->lock, &until);
    pthread_mutex_unlock(&o->lock);
}

void vv_opening_stop(struct vv_opening *o)
{
    if (!o) return;
    pthread_mutex_lock(&o->lock);
    o->stop = true;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
}

void vv_opening_end(struct vv_opening *o)
{
    if (!o) return;
    vv_opening_stop(o);
    for (size_t i = 0; i < o->started; i++) pthread_join(o->threads[i], NULL);
    o->started = 0;
    for (size_t i = 0; i < o->n; i++) { /* whoever closes the topics closes them */
        if (o->v[i].state == OPENED) vv_topic_put(o->v[i].topic, o->v[i].index, o->v[i].partition);
        if (o->v[i].state != DONE) vv_topic_unref(o->v[i].topic);
        o->v[i].state = DONE;
    }
}

void vv_opening_free(struct vv_opening *o)
{
    if (!o) return;
    pthread_mutex_destroy(&o->lock);
    pthread_cond_destroy(&o->changed);
    free(o->v);
    free(o->asked);
    free(o->text);
    free(o->path);
    free(o);
}
