/* undelete.c — a deleted topic inside its grace: what is kept of it, how it comes back, when it is forgotten.
 *
 * A deletion leaves an entry in the registry (struct vv_doomed: id, configurations, committed offsets), the objects in the bucket (named in
 * the root's list of deleted topics) and, aside, the directories with what was not in the bucket yet. They stay for
 * tier.delete.grace.ms; the directories go earlier when the disk runs short.
 *
 *   begin (control)   which one, under which name: the name is taken from here on
 *   open (iopool)     root's list, which alone decides: an entry marked `deleting` is refused; directories renamed back, a missing one
 *                     restored from the bucket; partitions opened as after a crash
 *   end (control)     registry written, topic shown, offsets committed again. A failure puts all aside and tells the deletion again
 *
 * A crash before the registry is written leaves a deleted topic: tidying renames the directories aside, the next start tells the bucket again.
 * How a client says it: CreateTopics with the configuration varve.undelete=ID|NAME (src/api/create_topics.c). */
#include "live.h"
#include "topics.h"

#include "groups_snapshot.h"
#include "jsontext.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vv_undelete {
    struct vv_topics *ts;
    struct vv_topic *topic;      /* not listed yet; its partitions only once they are all open */
    struct vv_partition **parts;
    int32_t partitions;
    int err;
    struct vv_error e;
};

bool vv_doomed_keeps(const struct vv_broker *b, const struct vv_doomed *d)
{
    return d->tiered && b->tier && vv_broker_live(b)->tier_delete_grace_ms > 0;
}

const char *vv_undelete_name(const struct vv_undelete *u)
{
    return u ? u->topic->name : NULL;
}

/* ---- the directories aside ---- */

struct aside {
    struct vv_broker *b;
    const struct vv_uuid *ids; /* whose directories */
    size_t n;
    const struct vv_topic *to; /* rename back for this topic; NULL = remove */
    int err;
};

static int on_aside(void *ctx, const char *name)
{
    struct aside *a = ctx;
    struct vv_env *env = a->b->env;
    struct vv_uuid id;
    char dir[4096], back[4096];
    bool retired, wanted = false;
    long partition;
    if (!vv_topic_dir_parse(name, &partition, &retired) || !retired) return 0;
    if ((size_t)snprintf(dir, sizeof dir, "%s/%s", a->b->log_dir, name) >= sizeof dir || !vv_topic_dir_id(env, dir, &id)) return 0;
    for (size_t i = 0; i < a->n && !wanted; i++) wanted = vv_uuid_eq(a->ids[i], id);
    if (!wanted) return 0;
    if (!a->to) {
        int err = vv_topic_dir_remove(env, dir);
        if (err && err != VV_E_NOENT) VLOG_WARN("%s: cannot be removed: %s", dir, vv_err_name(err));
        return 0;
    }
    struct vv_stat st;
    snprintf(back, sizeof back, "%s/%s-%ld", a->b->log_dir, a->to->name, partition);
    a->err = vv_fs_stat(env, back, &st) == VV_E_NOENT ? vv_fs_rename(env, dir, back) : VV_E_EXIST;
    return a->err != 0;
}

static int each_aside(struct aside *a)
{
    int err = vv_fs_list(a->b->env, a->b->log_dir, on_aside, a);
    if (a->err) return a->err;
    return err ? err : vv_fs_sync_dir(a->b->env, a->b->log_dir);
}

/* ---- forgetting ---- */

static void purge(struct vv_work *w)
{
    struct vv_topics *ts = VV_CONTAINER(w, struct vv_topics, snapshot.purge);
    struct aside a = {.b = ts->broker, .ids = ts->snapshot.purge_ids, .n = ts->snapshot.purge_count};
    each_aside(&a);
    vv_broker_control_post(ts->broker, &ts->snapshot.purge_done);
}

static void purge_done(struct vv_task *task)
{
    struct vv_topics *ts = VV_CONTAINER(task, struct vv_topics, snapshot.purge_done);
    struct vv_snapshot *s = &ts->snapshot;
    for (size_t i = 0; i < s->purge_count && s->purge_forgets; i++) vv_doomed_remove(ts, s->purge_ids[i]);
    s->purging = false;
    if (!s->purge_forgets) return;
    vv_topics_save(ts, NULL, NULL); /* not written: found forgotten again after the next start */
    vv_topics_changed(ts->broker);
}

void vv_doomed_tick(struct vv_topics *ts)
{
    struct vv_snapshot *s = &ts->snapshot;
    struct vv_broker *b = ts->broker;
    bool tight = atomic_load(&b->disk_state) != VV_DISK_OK;
    if (s->purging || !ts->doomed_count) return;
    free(s->purge_ids);
    s->purge_ids = calloc(ts->doomed_count, sizeof *s->purge_ids);
    s->purge_count = 0;
    for (size_t i = 0; s->purge_ids && i < ts->doomed_count; i++) {
        const struct vv_doomed *d = &ts->doomed[i];
        if (!d->tiered || !d->told || d->returning) continue;
        enum vv_tier_fate fate = vv_tier_topic_fate(b->tier, d->id);
        if (fate == VV_TIER_LIVE || fate == VV_TIER_DELETING) s->purge_ids[s->purge_count++] = d->id;
    }
    s->purge_forgets = s->purge_count != 0;
    for (size_t i = 0; s->purge_ids && tight && !s->purge_forgets && i < ts->doomed_count; i++)
        if (!ts->doomed[i].returning) s->purge_ids[s->purge_count++] = ts->doomed[i].id;
    if (!s->purge_count) return;
    s->purging = true;
    s->purge.run = purge;
    s->purge_done.run = purge_done;
    vv_iopool_submit(b->iopool, &s->purge);
}

/* ---- which one ---- */

static int ambiguous(struct vv_topics *ts, const char *what, struct vv_error *e)
{
    char ids[120] = "";
    for (size_t i = 0; i < ts->doomed_count; i++) {
        size_t at = strlen(ids);
        if (strcmp(ts->doomed[i].name, what) || at + 25 > sizeof ids) continue;
        ids[at] = ' ';
        vv_uuid_text(ts->doomed[i].id, ids + at + 1);
    }
    return vv_error_set(e, VV_INVALID_REQUEST, "Several deleted topics were called '%s': give the id of one:%s", what, ids);
}

static int choose(struct vv_topics *ts, const char *what, struct vv_doomed **out, struct vv_error *e)
{
    struct vv_uuid id;
    *out = strlen(what) == 22 && vv_uuid_parse(what, &id) ? vv_doomed_find(ts, id) : NULL;
    for (size_t i = 0, found = 0; !*out || found; i++) {
        if (i == ts->doomed_count) break;
        if (strcmp(ts->doomed[i].name, what)) continue;
        if (found++) return ambiguous(ts, what, e);
        *out = &ts->doomed[i];
    }
    if (!*out || !(*out)->tiered)
        return vv_error_set(e, VV_UNKNOWN_TOPIC_OR_PARTITION, "There is no deleted topic '%s' that could be brought back "
                            "(`varve topic list --deleted` shows them).", what);
    return VV_OK;
}

/* Its directories are just being removed: a rename in the middle of that would bring back half of one. */
static int check_purge(struct vv_topics *ts, const struct vv_doomed *d, struct vv_error *e)
{
    const struct vv_snapshot *s = &ts->snapshot;
    for (size_t i = 0; s->purging && i < s->purge_count; i++)
        if (vv_uuid_eq(s->purge_ids[i], d->id))
            return vv_error_set(e, VV_REQUEST_TIMED_OUT, "What is left of '%s' on this disk is just being removed: try again in a moment.",
                                d->name);
    return VV_OK;
}

static int check_fate(struct vv_topics *ts, const struct vv_doomed *d, struct vv_error *e)
{
    enum vv_tier_fate fate = d->told ? vv_tier_topic_fate(ts->broker->tier, d->id) : VV_TIER_BUSY;
    if (fate == VV_TIER_BUSY)
        return vv_error_set(e, VV_REQUEST_TIMED_OUT, "The bucket has not confirmed the deletion of '%s' yet: try again in a moment.",
                            d->name);
    if (fate == VV_TIER_DELETED) return VV_OK;
    return vv_error_set(e, VV_INVALID_REQUEST, "Topic '%s' cannot come back: its grace is over and its objects are being deleted.",
                        d->name);
}

static struct vv_undelete *undelete_new(struct vv_topics *ts, const struct vv_doomed *d, const char *name, const struct vv_kv *configs,
                                        size_t n)
{
    struct vv_undelete *u = calloc(1, sizeof *u);
    struct vv_kv *all = calloc(d->config_count + n + 1, sizeof *all);
    struct vv_topic *t = vv_topic_new(ts->broker, name, d->id, false);
    if (u && all && t) {
        memcpy(all, d->configs, d->config_count * sizeof *all);
        memcpy(all + d->config_count, configs, n * sizeof *all);
        u->parts = calloc((size_t)d->partitions, sizeof(struct vv_partition *));
        if (!vv_kv_copy(all, d->config_count + n, &t->overrides, &t->override_count) && u->parts) {
            free(all);
            vv_topic_config_load(t->overrides, t->override_count, vv_broker_live(ts->broker), false, name, &t->config);
            t->returning = true;
            u->ts = ts;
            u->topic = t;
            u->partitions = d->partitions;
            return u;
        }
    }
    if (u) free(u->parts);
    free(u);
    free(all);
    vv_topic_free(t);
    return NULL;
}

int vv_undelete_begin(struct vv_topics *ts, const char *name, const char *what, const struct vv_kv *configs, size_t n, bool validate_only,
                      struct vv_undelete **out, struct vv_error *e)
{
    struct vv_doomed *d;
    struct vv_topic_config config;
    vv_reactor_assert_here(ts->broker->control);
    *out = NULL;
    if (!ts->broker->tier)
        return vv_error_set(e, VV_INVALID_REQUEST, "The tier is off: what is deleted cannot be brought back.");
    if (ts->undelete)
        return vv_error_set(e, VV_REQUEST_TIMED_OUT, "Topic '%s' is just being brought back: try again when it is there.",
                            vv_undelete_name(ts->undelete));
    int err = choose(ts, what, &d, e);
    if (!err) err = vv_topics_check_create(ts, name, d->partitions, e);
    if (!err && n) err = vv_topic_config_parse(configs, n, vv_broker_live(ts->broker), false, &config, e);
    if (!err) err = check_purge(ts, d, e);
    if (!err) err = check_fate(ts, d, e);
    if (err || validate_only) return err;
    struct vv_undelete *u = undelete_new(ts, d, name, configs, n);
    if (!u) return vv_err_kafka(vv_error_set(e, VV_E_NOMEM, "out of memory"));
    d->returning = true;
    *out = ts->undelete = u;
    return VV_OK;
}

/* ---- bringing it back ---- */

void vv_undelete_open(struct vv_undelete *u)
{
    struct vv_broker *b = u->ts->broker;
    struct vv_topic *t = u->topic;
    struct aside a = {.b = b, .ids = &t->id, .n = 1, .to = t};
    u->err = vv_tier_undelete_topic(b->tier, t->id, t->name, &u->e);
    if (u->err) return;
    u->err = each_aside(&a);
    if (u->err)
        vv_error_set(&u->e, u->err, "its directories in %s cannot be renamed back: %s", b->log_dir, vv_err_name(u->err));
    else
        u->err = vv_topics_open_parts(t, 0, u->partitions, u->parts, &u->e);
}

static void put_all_aside(struct vv_undelete *u)
{
    for (int32_t i = 0; i < u->partitions; i++) {
        if (!u->parts[i]) continue;
        if (vv_partition_retire_dir(u->parts[i])) VLOG_WARN("topic %s: a directory could not be put aside", u->topic->name);
        vv_partition_close(u->parts[i]);
    }
}

/* Written down first, then seen. */
static int show(struct vv_undelete *u, struct vv_doomed *d)
{
    struct vv_topics *ts = u->ts;
    struct vv_topic *t = u->topic;
    struct vv_doomed kept = *d;
    struct vv_topics_change change = {.add = t, .partitions = u->partitions};
    *d = ts->doomed[--ts->doomed_count]; /* leaves room for one */
    int err = vv_topics_save(ts, &change, &u->e);
    if (!err) err = vv_topic_grow(t, u->parts, u->partitions);
    if (!err) err = vv_topics_insert(ts, t);
    if (err) {
        ts->doomed[ts->doomed_count++] = kept;
        vv_topics_save(ts, NULL, NULL);
        return err;
    }
    vv_groups_import_topic(ts->broker->groups, t, kept.offsets);
    vv_doomed_release(&kept);
    return VV_OK;
}

int vv_undelete_end(struct vv_undelete *u, struct vv_topic **out, struct vv_error *e)
{
    struct vv_topics *ts = u->ts;
    struct vv_topic *t = u->topic;
    struct vv_doomed *d = vv_doomed_find(ts, t->id);
    vv_reactor_assert_here(ts->broker->control);
    VV_ASSERT(d); /* returning: nobody forgets it */
    int err = u->err ? u->err : show(u, d);
    t->returning = false;
    *out = NULL;
    if (err) {
        d = vv_doomed_find(ts, t->id);
        d->returning = d->told = false; /* the bucket may think that it lives: told again */
        put_all_aside(u);
        vv_error_set(e, err, "Topic '%s' could not be brought back: %s", t->name, *u->e.text ? u->e.text : vv_err_name(err));
        VLOG_WARN("%s", e->text);
        vv_topic_free(t);
    } else {
        VLOG_INFO("topic %s: brought back with %d partition%s", t->name, (int)u->partitions, u->partitions == 1 ? "" : "s");
        atomic_fetch_add(&t->refs, 1);
        *out = t;
    }
    ts->undelete = NULL;
    free(u->parts);
    free(u);
    vv_topics_changed(ts->broker);
    if (!err) return VV_OK;
    return err == VV_E_STATE || err == VV_E_NOENT ? VV_INVALID_REQUEST : vv_err_kafka(err);
}

char *vv_undelete_list(struct vv_topics *ts)
{
    static const char *const states[] = {[VV_TIER_LIVE] = "gone", [VV_TIER_DELETED] = "deleted", [VV_TIER_DELETING] = "deleting",
                                         [VV_TIER_BUSY] = "deleted"};
    json_t *list = json_array();
    for (size_t i = 0; i < ts->doomed_count; i++) {
        const struct vv_doomed *d = &ts->doomed[i];
        char id[23];
        if (!d->tiered || !ts->broker->tier) continue;
        vv_uuid_text(d->id, id);
        json_array_append_new(list, json_pack("{s:s,s:s,s:i,s:I,s:I,s:s}", "topic", d->name, "topic_id", id, "partitions",
                                              (int)d->partitions, "deleted_ms", (json_int_t)d->deleted_ms, "until_ms",
                                              (json_int_t)(d->deleted_ms + vv_broker_live(ts->broker)->tier_delete_grace_ms), "state",
                                              d->told ? states[vv_tier_topic_fate(ts->broker->tier, d->id)] : "deleted"));
    }
    char *text = vv_json_text(list, JSON_COMPACT);
    json_decref(list);
    return text;
}
