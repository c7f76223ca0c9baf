/* scrub.c — every closed segment is read over time, on the disk and in the bucket, and compared with the checksums of its append.
 *
 * A pass goes through the partitions by topic id and number and through each from its start; where it is is written down once a minute
 * (tier-scrub.json beside the data), so a restart goes on there. A pass begins tier.scrub.interval.ms after the one before began. Budget: bytes
 * per second, one for the disk and one for the bucket, paid before each piece is read.
 *
 * What is looked at of one segment: its local blocks against the block table of the append; its object: footer (checksums, identity,
 * cluster), the same block table as the local one, every block. Then what is damaged is mended from the other side:
 *   local damage, object proven just now   the local copy is forgotten (index, then files); the bucket serves
 *   object damaged or missing, local good  put again under the same key, same content and size, read back whole (uploader.c)
 *   both, or only one that is damaged      reported: object and offsets by name; readers get CORRUPT_MESSAGE for those, not for others
 * And before a partition's first segment the head of its manifest: a damaged one is written anew from the index.
 * A segment that moved on meanwhile (tombstoned, merged, its intent changed) is nobody's damage: what was found is looked at again
 * against the index before it counts.
 *
 * Threads: one, its own; or vv_tier_step's. The part's `scrubbing` mark keeps it open. */
#include "scrub.h"
#include "follow.h"
#include "tier_impl.h"
#include "jsontext.h"
#include "varve/vlog.h"
#include "varve/wait.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 60000
#define WINDOW (1u << 20)
#define SAVE_US 60000000
#define BACKOFF_US 10000000

enum { LOCAL, REMOTE };

struct look { /* at one segment */
    struct vv_tier_part *p;
    struct vv_tier_config c;
    struct vv_extent x;      /* holds a reference to its local segment */
    struct vv_blocks blocks; /* of the local copy */
    bool have_blocks;
    char key[VV_KEY_MAX];
    struct vv_error local, remote; /* what is wrong */
    struct vv_error e;
};

/* ---- where it is ---- */

static bool state_path(const struct vv_tier *t, char *out, size_t n)
{
    return t->id.data_dir && snprintf(out, n, "%s/tier-scrub.json", t->id.data_dir) < (int)n;
}

/* Not there or damaged: a pass begins at the start, now. */
static void load_state(struct vv_tier *t)
{
    struct vv_scrub *s = &t->scrub;
    char path[4096];
    uint8_t *p = NULL;
    size_t n;
    s->loaded = true;
    if (!state_path(t, path, sizeof path) || vv_fs_read_file(t->env, path, 65536, &p, &n)) return;
    json_t *o = json_loadb((const char *)p, n, 0, NULL);
    const char *id = json_string_value(json_object_get(o, "topic_id"));
    if (id && vv_uuid_parse(id, &s->topic_id)) {
        s->partition = (int32_t)json_integer_value(json_object_get(o, "partition"));
        s->base = json_integer_value(json_object_get(o, "base"));
        s->began_ms = json_integer_value(json_object_get(o, "began_ms"));
        atomic_store(&s->last_pass_ms, json_integer_value(json_object_get(o, "last_pass_ms")));
    }
    json_decref(o);
    free(p);
}

void vv_scrub_save(struct vv_tier *t)
{
    struct vv_scrub *s = &t->scrub;
    char path[4096], id[23];
    s->saved_us = vv_mono_us(t->env);
    if (!s->loaded || !state_path(t, path, sizeof path)) return;
    vv_uuid_text(s->topic_id, id);
    json_t *o = json_pack("{s:i,s:s,s:i,s:I,s:I,s:I}", "format", 1, "topic_id", id, "partition", (int)s->partition, "base",
                          (json_int_t)s->base, "began_ms", (json_int_t)s->began_ms, "last_pass_ms",
                          (json_int_t)atomic_load(&s->last_pass_ms));
    char *text = vv_json_text(o, JSON_COMPACT);
    json_decref(o);
    if (text && vv_fs_write_file(t->env, path, text, strlen(text))) VLOG_WARN("scrub: cannot write %s", path);
    free(text);
}

/* ---- budget ---- */

static bool stopping(struct vv_tier *t)
{
    pthread_mutex_lock(&t->mu);
    bool yes = t->stopping;
    pthread_mutex_unlock(&t->mu);
    return yes;
}

/* Pays for n bytes of a side. With threads it waits until they are due; without (vv_tier_step) the next step waits. False: stopping. */
static bool pay(struct look *l, int side, size_t n)
{
    struct vv_tier *t = l->p->tier;
    struct vv_scrub *s = &t->scrub;
    int64_t rate = side == LOCAL ? l->c.scrub_local_bytes_per_s : l->c.scrub_bytes_per_s;
    atomic_fetch_add(&s->bytes[side], n);
    if (rate <= 0) return !stopping(t);
    s->tokens_us[side] = VV_MAX(s->tokens_us[side], vv_mono_us(t->env)) + (int64_t)((double)n * 1e6 / (double)rate);
    pthread_mutex_lock(&t->mu);
    while (t->started && !t->stopping && !l->p->closing && s->tokens_us[side] > vv_mono_us(t->env)) {
        struct timespec ts = vv_deadline_us(VV_MIN(s->tokens_us[side] - vv_mono_us(t->env), (int64_t)500000));
        pthread_cond_timedwait(&t->idle, &t->mu, &ts);
    }
    bool go_on = !t->stopping && !l->p->closing;
    pthread_mutex_unlock(&t->mu);
    return go_on;
}

/* ---- the local copy ---- */

static int damaged(struct vv_error *to, const char *what, const struct vv_extent *x, uint64_t at)
{
    return vv_error_set(to, VV_E_CORRUPT, "%s of offsets %" PRId64 "..%" PRId64 ": the block at byte %" PRIu64 " is not what was appended", what,
                        x->base, x->last, at);
}

static int look_local(struct look *l)
{
    uint8_t *buf = NULL;
    int err = vv_segment_blocks(l->x.local, &l->blocks);
    if (err) return vv_error_set(&l->local, err, "its block table cannot be read: %s", vv_err_name(err));
    l->have_blocks = true;
    for (uint32_t i = 0; i < l->blocks.count && !err; i++) {
        const struct vv_block *b = &l->blocks.v[i];
        uint8_t *room = realloc(buf, b->n);
        if (!room) err = VV_E_NOMEM;
        if (room) buf = room;
        if (!err && !pay(l, LOCAL, b->n)) err = VV_E_SHUTDOWN;
        if (!err) err = vv_segment_read_raw(l->x.local, buf, b->n, b->at);
        if (!err && vv_crc32c(0, buf, b->n) != b->crc) err = damaged(&l->local, "the local copy", &l->x, b->at);
    }
    free(buf);
    if (err && !l->local.code) vv_error_set(&l->local, err, "the local copy cannot be read: %s", vv_err_name(err));
    return err;
}

/* ---- the object ---- */

static int look_blocks(struct look *l, const struct vv_footer *f)
{
    struct vv_blockcodec *c = f->flags ? vv_footer_codec(f) : NULL;
    uint8_t *plain = NULL;
    int err = f->flags && !c ? VV_E_NOMEM : VV_OK;
    for (uint32_t i = 0, to; i < f->blocks.count && !err; i = to) {
        struct vv_slice s = {0};
        uint64_t at, from;
        size_t n, more;
        vv_footer_range(f, i, 1, &from, &n);
        for (to = i + 1; to < f->blocks.count; n = more, to++) {
            vv_footer_range(f, i, to + 1 - i, &at, &more);
            if (more > WINDOW) break;
        }
        if (!pay(l, REMOTE, n)) err = VV_E_SHUTDOWN;
        if (!err) err = vv_tier_saw(l->p->tier, vv_objstore_get(l->p->tier->store, l->key, VV_GET_RANGE, from, n, DEADLINE_MS, &s, NULL, &l->e));
        for (uint32_t k = i; k < to && !err; k++) {
            const struct vv_block *b = &f->blocks.v[k];
            uint8_t *room = realloc(plain, b->n);
            if (!room) err = VV_E_NOMEM;
            if (room) plain = room;
            vv_footer_range(f, k, 1, &at, &more);
            if (!err) err = vv_footer_load(f, c, k, s.p + (at - from), plain);
            if (err == VV_E_CORRUPT) damaged(&l->e, l->key, &l->x, b->at);
        }
        if (s.buf) vv_buf_unref(s.buf);
    }
    free(plain);
    vv_blockcodec_free(c);
    return err;
}

static int look_remote(struct look *l)
{
    struct vv_tier *t = l->p->tier;
    struct vv_footer f = {0};
    struct vv_segkey k;
    uint64_t object_bytes = 0;
    size_t guess = (size_t)(l->x.object_bytes - vv_extent_footer_at(&l->x));
    vv_segkey_of(l->p->o.topic_id, l->p->o.partition, &l->x, &k);
    vv_segkey_format(&k, l->key);
    if (!pay(l, REMOTE, guess)) return VV_E_SHUTDOWN;
    int err = vv_tier_saw(t, vv_footer_get(t->store, &k, t->clusters, guess, &f, &object_bytes, &l->e));
    if (err == VV_E_NOENT) vv_error_set(&l->e, err, "%s is missing", l->key);
    if (err == VV_E_CORRUPT) {
        struct vv_error why = l->e;
        vv_error_set(&l->e, err, "%s: %.200s", l->key, why.text);
    }
    if (!err && object_bytes != l->x.object_bytes)
        err = vv_error_set(&l->e, VV_E_CORRUPT, "%s has %" PRIu64 " bytes, not %" PRIu64, l->key, object_bytes, l->x.object_bytes);
    if (!err && l->have_blocks && !vv_blocks_same(&f.blocks, &l->blocks))
        err = vv_error_set(&l->e, VV_E_CORRUPT, "%s has another block table than the local segment", l->key);
    if (!err) err = look_blocks(l, &f);
    vv_footer_release(&f);
    if (err == VV_E_CORRUPT || err == VV_E_NOENT) l->remote = l->e;
    return err;
}

/* ---- mending ---- */

/* Is the segment still what it was when we looked? */
static bool unchanged(struct look *l)
{
    struct vv_extent x;
    if (vv_index_next(l->p->o.index, l->x.base, &x)) return false;
    bool local = x.local == l->x.local;
    vv_extent_release(l->p->o.index, &x);
    return x.base == l->x.base && x.last == l->x.last && x.nonce == l->x.nonce && x.generation == l->x.generation && x.state == l->x.state &&
           local;
}

static void report(struct look *l, const struct vv_error *what, const char *then)
{
    VLOG_ERROR("scrub: %s-%d, offsets %" PRId64 "..%" PRId64 ": %s; %s", l->p->topic, (int)l->p->o.partition, l->x.base, l->x.last, what->text, then);
    atomic_fetch_add(&l->p->tier->scrub.damages, 1);
}

static void mended(struct look *l, const struct vv_error *what, const char *how)
{
    report(l, what, how);
    atomic_fetch_add(&l->p->tier->scrub.mended, 1);
}

/* remote_ok: the object was proven just now. */
static int mend(struct look *l, bool remote_ok)
{
    bool local_bad = l->local.code != 0, remote_bad = l->remote.code != 0, local_ok = l->x.local && !local_bad;
    if (!unchanged(l)) return VV_OK; /* the next pass looks again */
    if (local_bad && remote_ok && l->x.state == VV_EXTENT_BOTH) {
        int err = vv_tier_part_drop_local(l->p, l->x.base);
        if (!err) mended(l, &l->local, "mended: the local copy is given up, the bucket's was read whole and serves");
        return err == VV_E_STATE ? VV_OK : err;
    }
    if (remote_bad && local_ok && l->x.state == VV_EXTENT_BOTH && !atomic_load(&l->p->tier->fenced)) {
        int err = vv_uploader_mend(l->p, &l->x, &l->e);
        if (!err) mended(l, &l->remote, "mended: put again from the local copy, and read back");
        if (err == VV_E_CORRUPT || err == VV_E_UNSUPPORTED) report(l, &l->remote, l->e.text);
        return err == VV_E_CORRUPT || err == VV_E_UNSUPPORTED ? VV_OK : err;
    }
    if (local_bad) report(l, &l->local, "there is no other copy: these offsets cannot be read until the file is brought back");
    if (remote_bad) report(l, &l->remote, "there is no other copy: what is damaged is answered with CORRUPT_MESSAGE until the object is brought back");
    return VV_OK;
}

static int look_head(struct look *l)
{
    struct vv_tier_part *p = l->p;
    struct vv_scrub *s = &p->tier->scrub;
    struct vv_manifest m = {0};
    struct vv_manifest_where w;
    if (l->c.scrub_bytes_per_s <= 0 || atomic_load(&p->tier->fenced)) return VV_OK;
    vv_tier_where(p, &w);
    int err = vv_tier_saw(p->tier, vv_manifest_load(&m, &w, NULL, NULL, &l->e));
    bool damaged = err == VV_E_CORRUPT && m.damaged;
    vv_manifest_release(&m);
    if (!damaged) return err == VV_E_CORRUPT || err == VV_E_CONFLICT ? VV_OK : err; /* an intruder is the keeper's to meet */
    atomic_fetch_add(&s->damages, 1);
    VLOG_ERROR("scrub: %s-%d: %s", p->topic, (int)p->o.partition, l->e.text);
    err = vv_keeper_mend_head(p, &l->e);
    if (!err) atomic_fetch_add(&s->mended, 1);
    if (err == VV_E_STATE) VLOG_ERROR("scrub: %s-%d: %s", p->topic, (int)p->o.partition, l->e.text);
    return err == VV_E_STATE || err == VV_E_CONFLICT ? VV_OK : err;
}

static int look_at(struct look *l)
{
    bool closed = l->x.state == VV_EXTENT_SEALED || l->x.state == VV_EXTENT_UPLOADING || l->x.state == VV_EXTENT_BOTH;
    bool local = closed && l->x.local && l->c.scrub_local_bytes_per_s > 0;
    int err = local ? look_local(l) : VV_OK;
    if (err == VV_E_SHUTDOWN || err == VV_E_NOMEM) return err;
    if (err == VV_E_NOENT) l->local = (struct vv_error){0}; /* dropped meanwhile */
    bool remote = vv_extent_is_remote(&l->x) && (l->c.scrub_bytes_per_s > 0 || l->local.code);
    err = remote ? look_remote(l) : VV_OK;
    if (err && !l->remote.code) return err;
    return l->local.code || l->remote.code ? mend(l, remote && !err) : VV_OK;
}

/* ---- the pass ---- */

static int by_place(struct vv_uuid a, int32_t ap, struct vv_uuid b, int32_t bp)
{
    int c = memcmp(a.b, b.b, sizeof a.b);
    return c ? c : (ap > bp) - (ap < bp);
}

/* The first part at or behind the cursor, marked; NULL: the pass is over. */
static struct vv_tier_part *next_part(struct vv_tier *t)
{
    struct vv_scrub *s = &t->scrub;
    struct vv_tier_part *best = NULL;
    pthread_mutex_lock(&t->mu);
    for (size_t i = 0; i < t->part_count; i++) {
        struct vv_tier_part *p = t->parts[i];
        if (p->closing || by_place(p->o.topic_id, p->o.partition, s->topic_id, s->partition) < 0) continue;
        if (!best || by_place(p->o.topic_id, p->o.partition, best->o.topic_id, best->o.partition) < 0) best = p;
    }
    if (best) best->scrubbing = true;
    pthread_mutex_unlock(&t->mu);
    if (best && by_place(best->o.topic_id, best->o.partition, s->topic_id, s->partition)) s->base = 0;
    if (best) {
        s->topic_id = best->o.topic_id;
        s->partition = best->o.partition;
    }
    return best;
}

static void part_done(struct vv_tier *t, struct vv_tier_part *p)
{
    pthread_mutex_lock(&t->mu);
    p->scrubbing = false;
    pthread_cond_broadcast(&t->idle);
    pthread_mutex_unlock(&t->mu);
}

static void pass_over(struct vv_tier *t)
{
    struct vv_scrub *s = &t->scrub;
    atomic_store(&s->last_pass_ms, vv_wall_ms(t->env));
    atomic_fetch_add(&s->passes, 1);
    VLOG_INFO("scrub: a pass is complete; damages since the start: %" PRIu64 ", of them mended: %" PRIu64, atomic_load(&s->damages),
              atomic_load(&s->mended));
    s->topic_id = (struct vv_uuid){{0}};
    s->partition = 0;
    s->base = 0;
    s->began_ms = 0;
    vv_scrub_save(t);
}

/* Is there work at this moment? Begins a pass when one is due. */
static bool due(struct vv_tier *t, const struct vv_tier_config *c)
{
    struct vv_scrub *s = &t->scrub;
    int64_t now = vv_mono_us(t->env), wall = vv_wall_ms(t->env), last = atomic_load(&s->last_pass_ms);
    if (!c->scrub_interval_ms || (c->scrub_bytes_per_s <= 0 && c->scrub_local_bytes_per_s <= 0)) return false;
    if (s->after_us > now || s->tokens_us[LOCAL] > now || s->tokens_us[REMOTE] > now) return false;
    if (!s->loaded) load_state(t);
    if (s->began_ms) return true;
    if (last && wall - last < c->scrub_interval_ms && wall >= last) return false;
    s->began_ms = wall;
    return true;
}

static void back_off(struct look *l, int err)
{
    struct vv_scrub *s = &l->p->tier->scrub;
    if (err == VV_E_SHUTDOWN) return;
    s->after_us = vv_mono_us(l->p->tier->env) + BACKOFF_US;
    VLOG_WARN("scrub: %s-%d at offset %" PRId64 ", will go on there: %s", l->p->topic, (int)l->p->o.partition, s->base,
              l->e.text[0] ? l->e.text : vv_err_name(err));
}

int vv_scrub_step(struct vv_tier *t)
{
    struct look l = {0};
    struct vv_scrub *s = &t->scrub;
    vv_tier_config_get(t, &l.c);
    if (t->replica || !due(t, &l.c)) return 0; /* somebody else's bucket is not ours to look after */
    struct vv_tier_part *p = l.p = next_part(t);
    if (!p) {
        pass_over(t);
        return 1;
    }
    int err = s->base ? VV_OK : look_head(&l), found = err ? err : vv_index_next(p->o.index, s->base, &l.x);
    if (err) {
        back_off(&l, err);
    } else if (found) { /* the end of this partition (or its index cannot be read: the log says so) */
        s->partition++;
        s->base = 0;
    } else {
        err = look_at(&l);
        int64_t next = l.x.last == INT64_MAX ? l.x.last : l.x.last + 1;
        vv_extent_release(p->o.index, &l.x);
        if (err) back_off(&l, err);
        if (!err) s->base = next;
    }
    vv_blocks_release(&l.blocks);
    part_done(t, p);
    if (vv_mono_us(t->env) - s->saved_us >= SAVE_US) vv_scrub_save(t);
    return 1;
}
