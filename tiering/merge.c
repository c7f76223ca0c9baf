/* merge.c — small objects of quiet topics become bigger ones, long after they were written.
 *
 * A run of neighbouring extents that are only in the bucket, small, of one generation and older than the age (and the delete
 * grace) becomes one object of the next generation. Members of one generation only: an object is copied once per generation, so a
 * history costs a few copies whatever its length. Steps, each repeatable after a crash:
 *   1. members read and checked against their footers; the new object made in memory (same batches, new blocks, compressed and
 *      encrypted as the settings are now, whatever the members are)
 *   2. intent in the index: key and everything else about it     3. PUT, read back
 *   4. the manifest names it instead of its members, which stand in the list of what was replaced (manifest_replace.c)
 *   5. the index follows, one record                              6. after the grace: what was replaced is deleted
 * Until 5 the broker reads the members, then the new one; the old objects stay for the grace, so whoever holds an old extent gets
 * its bytes. A crash after 4 is settled before the next manifest (vv_mf_settle). What was built before an intent but cannot be
 * finished (the log start passed a member) is deleted and given up.
 *
 * Thread: whoever has the part's merging mark; steps 4 to 6 under its keeping mark, too. */
#include "abreast.h"
#include "follow.h"
#include "tier_impl.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdlib.h>

#define MEMBERS_MAX 512
#define WIDTH 8 /* members asked for at the same time */
#define WINDOW_BYTES (8u << 20)
#define SCAN_MAX 4096 /* extents looked at in one step */
#define DEADLINE_MS 60000
#define LOOK_AGAIN_MS 60000

struct merge {
    struct vv_tier_part *p;
    struct vv_tier_config c;
    struct vv_extent *v; /* members */
    size_t n;
    struct vv_extent x;  /* the new one */
    struct vv_footer footer;
    struct vv_blockcodec *codec; /* NULL: its blocks are stored as they are */
    uint8_t *bytes;      /* as much of it as there is; at the end footer and trailer, tail_n */
    size_t n_bytes, cap, tail_n;
    uint8_t *open;       /* the block that still grows */
    size_t open_n, open_cap;
    uint32_t ended;      /* blocks in `bytes` */
    char key[VV_KEY_MAX];
    struct vv_error e;
};

/* ---- which ---- */

static uint64_t bytes_max(const struct merge *g)
{
    uint64_t segment = (uint64_t)atomic_load(&g->p->segment_bytes);
    return segment ? VV_MIN(g->c.merge_bytes_max, segment) : g->c.merge_bytes_max;
}

static bool is_small(const struct merge *g, const struct vv_extent *x)
{
    return x->bytes <= bytes_max(g) / 2 && x->object_bytes && x->generation < 0xffff;
}

static bool goes_on(const struct merge *g, uint64_t bytes, const struct vv_extent *x)
{
    const struct vv_extent *first = &g->v[0], *before = &g->v[g->n - 1];
    return x->base == before->last + 1 && x->generation == first->generation && bytes + x->bytes <= bytes_max(g) &&
           x->sealed_ms - first->sealed_ms <= g->c.merge_span_ms;
}

/* Nothing in this run can ever be merged: what follows is bigger, or of a later generation that only others join. */
static bool hopeless(const struct merge *g, const struct vv_extent *x)
{
    return !is_small(g, x) || x->generation > g->v[0].generation;
}

/* The first run worth it, in v; 0: none now. merge_at moves past what never will be. */
static int plan(struct merge *g)
{
    struct vv_tier_part *p = g->p;
    int64_t at = VV_MAX(p->merge_at, vv_index_log_start(p->o.index)), now = vv_wall_ms(p->tier->env);
    int64_t age = VV_MAX(g->c.merge_age_ms, g->c.delete_grace_ms);
    size_t least = (size_t)VV_MAX(g->c.merge_segments_min, 2);
    uint64_t bytes = 0;
    bool settled = true; /* everything before the run is past merging */
    struct vv_extent x;
    g->n = 0;
    for (int i = 0; i < SCAN_MAX; i++) {
        int err = vv_index_next(p->o.index, at, &x);
        if (err) return err == VV_E_NOENT ? (g->n >= least) : err;
        vv_extent_release(p->o.index, &x);
        bool old = x.state == VV_EXTENT_REMOTE && now - x.sealed_ms >= age;
        if (!old) return g->n >= least;
        if (g->n && (!is_small(g, &x) || !goes_on(g, bytes, &x) || g->n == MEMBERS_MAX)) {
            if (g->n >= least) return 1;
            settled = settled && hopeless(g, &x);
            g->n = 0;
        }
        at = x.last + 1;
        if (!g->n && settled) p->merge_at = is_small(g, &x) ? x.base : at;
        if (!is_small(g, &x)) continue;
        bytes = g->n ? bytes + x.bytes : x.bytes;
        g->v[g->n++] = x;
    }
    return g->n >= least;
}

/* The members of an intent. False: the index no longer has exactly them. */
static bool members_of(struct merge *g)
{
    int64_t at = g->x.base;
    g->n = 0;
    while (at <= g->x.last && g->n < MEMBERS_MAX) {
        struct vv_extent x;
        if (vv_index_next(g->p->o.index, at, &x)) return false;
        vv_extent_release(g->p->o.index, &x);
        if (x.base != at || x.last > g->x.last || x.state != VV_EXTENT_REMOTE) return false;
        g->v[g->n++] = x;
        at = x.last + 1;
    }
    return at == g->x.last + 1;
}

/* ---- the new object ---- */

static void pay(struct merge *g, uint64_t n)
{
    struct vv_tier *t = g->p->tier;
    if (g->c.merge_bytes_per_s <= 0) return;
    pthread_mutex_lock(&t->mu);
    t->merge_tokens_us = VV_MAX(t->merge_tokens_us, vv_mono_us(t->env) - 100000) +
                         (int64_t)((double)n * 1e6 / (double)g->c.merge_bytes_per_s);
    vv_tier_wait_until(t, &t->merge_tokens_us);
    pthread_mutex_unlock(&t->mu);
}

/* Room for n more bytes of the object. */
static uint8_t *room(struct merge *g, size_t n)
{
    if (g->n_bytes + n > g->cap) {
        size_t cap = g->n_bytes + n + g->cap / 2;
        uint8_t *p = realloc(g->bytes, cap);
        if (!p) return NULL;
        g->bytes = p;
        g->cap = cap;
    }
    return g->bytes + g->n_bytes;
}

/* The block that is complete now becomes part of the object, in the form that objects have now. */
static int end_block(struct merge *g)
{
    struct vv_footer *f = &g->footer;
    uint32_t i = g->ended;
    if (i == f->blocks.count) return VV_OK;
    size_t n = f->blocks.v[i].n;
    uint8_t *to = room(g, g->codec ? vv_block_stored_max(g->codec, n) : n);
    struct vv_stored *v = to ? realloc(f->stored, (i + 1) * sizeof *v) : NULL;
    if (!v) return VV_E_NOMEM;
    f->stored = v;
    v[i] = (struct vv_stored){g->n_bytes, (uint32_t)n, VV_STORED_PLAIN};
    int err = g->codec ? vv_block_store(g->codec, i, g->open, n, to, &v[i].n, &v[i].how) : VV_OK;
    if (!g->codec) memcpy(to, g->open, n);
    if (err) return err;
    g->n_bytes += v[i].n;
    g->open_n = 0;
    g->ended++;
    return VV_OK;
}

static int add_batch(struct merge *g, const uint8_t *p, const struct vv_batch *b)
{
    struct vv_blocks *t = &g->footer.blocks;
    uint32_t before = t->count;
    int err = vv_blocks_append(t, p, b->bytes, b->base_offset, b->base_ts, VV_MAX(b->base_ts, b->max_ts), (uint32_t)b->records);
    if (err) return err;
    if (t->count > before && g->ended < before) err = end_block(g);
    uint8_t *open = err ? NULL : g->open_n + b->bytes <= g->open_cap ? g->open : realloc(g->open, g->open_n + b->bytes);
    if (!open) return err ? err : VV_E_NOMEM;
    g->open = open;
    g->open_cap = VV_MAX(g->open_cap, g->open_n + b->bytes);
    memcpy(open + g->open_n, p, b->bytes);
    g->open_n += b->bytes;
    return VV_OK;
}

static int add_batches(struct merge *g, const struct vv_extent *x, const uint8_t *p, size_t n, int64_t *floor)
{
    for (size_t at = 0; at < n;) {
        struct vv_batch b;
        if (vv_batch_parse(p + at, n - at, &b) || !vv_batch_crc_ok(p + at, &b) || b.base_offset < *floor || vv_batch_last(&b) > x->last)
            return VV_E_CORRUPT;
        int err = add_batch(g, p + at, &b);
        if (err) return err;
        *floor = vv_batch_last(&b) + 1;
        at += b.bytes;
    }
    return VV_OK;
}

static int add_aborted(struct vv_footer *to, const struct vv_footer *f)
{
    for (size_t i = 0; i < f->aborted_count; i++) {
        const struct vv_aborted *a = &f->aborted[i];
        size_t j = 0;
        while (j < to->aborted_count &&
               (to->aborted[j].producer_id != a->producer_id || to->aborted[j].first_offset != a->first_offset))
            j++;
        if (j < to->aborted_count) continue; /* it overlaps several members */
        struct vv_aborted *v = realloc(to->aborted, (to->aborted_count + 1) * sizeof *v);
        if (!v) return VV_E_NOMEM;
        to->aborted = v;
        v[to->aborted_count++] = *a;
    }
    return VV_OK;
}

/* What is said of the end comes from the newest: its epochs reach from the log start then to the end of the run. */
static void take_end(struct vv_footer *to, struct vv_footer *f)
{
    free(to->epochs);
    free(to->snapshot);
    to->epochs = f->epochs;
    to->epoch_count = f->epoch_count;
    to->snapshot = f->snapshot;
    to->snapshot_n = f->snapshot_n;
    f->epochs = NULL;
    f->snapshot = NULL;
    to->writer_epoch = VV_MAX(to->writer_epoch, f->writer_epoch);
    to->log_start = VV_MAX(to->log_start, f->log_start);
    to->sealed_ms = VV_MAX(to->sealed_ms, f->sealed_ms);
    to->max_ts = VV_MAX(to->max_ts, f->max_ts);
    if (to->first_ts < 0) to->first_ts = f->first_ts;
    to->records += f->records;
}

/* Every block of a member, as it was appended, checked. */
static int add_blocks(struct merge *g, const struct vv_extent *x, const struct vv_footer *f, const uint8_t *p)
{
    struct vv_blockcodec *c = f->flags ? vv_footer_codec(f) : NULL;
    uint8_t *plain = NULL;
    int64_t floor = x->base;
    int err = f->flags && !c ? VV_E_NOMEM : VV_OK;
    for (uint32_t i = 0; !err && i < f->blocks.count; i++) {
        uint64_t at;
        size_t stored, n = f->blocks.v[i].n;
        vv_footer_range(f, i, 1, &at, &stored);
        uint8_t *more = realloc(plain, n);
        if (more) plain = more;
        err = more ? vv_footer_load(f, c, i, p + at, plain) : VV_E_NOMEM;
        if (!err) err = add_batches(g, x, plain, n, &floor);
    }
    free(plain);
    vv_blockcodec_free(c);
    return err;
}

/* Whole object of a member, every block and batch of it checked, appended. */
static int add_member(struct merge *g, const struct vv_extent *x, const struct vv_slice *s)
{
    struct vv_tier_part *p = g->p;
    struct vv_footer f = {0};
    struct vv_segkey k;
    char key[VV_KEY_MAX];
    uint64_t before = g->footer.blocks.records;
    vv_segkey_of(p->o.topic_id, p->o.partition, x, &k);
    vv_segkey_format(&k, key);
    int err = vv_footer_decode(s->p, s->n, s->n, p->tier->store->keys, &f, NULL, &g->e);
    if (!err) err = vv_footer_check(&f, &k, p->tier->clusters, &g->e);
    if (!err && f.data_bytes != x->bytes) err = VV_E_CORRUPT;
    if (!err) err = add_blocks(g, x, &f, s->p);
    if (!err && g->footer.blocks.records - before != f.records) err = VV_E_CORRUPT;
    if (!err) err = add_aborted(&g->footer, &f);
    if (!err) err = vv_footer_add_links(&g->footer, &f, x == g->v);
    if (!err) take_end(&g->footer, &f);
    if (err == VV_E_CORRUPT && !g->e.text[0]) vv_error_set(&g->e, err, "%s is damaged", key);
    vv_footer_release(&f);
    return err;
}

/* ---- members, several asked for at the same time ---- */

struct window { struct merge *g; const struct vv_extent *v; size_t n; struct { struct vv_slice s; int err; struct vv_error e; } got[WIDTH]; };

static void get_one(void *ctx, size_t i)
{
    struct window *w = ctx;
    struct vv_tier_part *p = w->g->p;
    struct vv_segkey k;
    char key[VV_KEY_MAX];
    vv_segkey_of(p->o.topic_id, p->o.partition, &w->v[i], &k);
    vv_segkey_format(&k, key);
    w->got[i].err = vv_tier_saw(p->tier, vv_objstore_get_whole(p->tier->store, key, (size_t)w->v[i].object_bytes, DEADLINE_MS, &w->got[i].s,
                                                               NULL, &w->got[i].e));
}

static int add_members(struct merge *g)
{
    int err = VV_OK;
    pthread_mutex_lock(&g->p->tier->mu);
    size_t width = g->p->tier->started ? WIDTH : 1; /* the simulator has no threads */
    pthread_mutex_unlock(&g->p->tier->mu);
    for (size_t i = 0; i < g->n && !err;) {
        struct window w = {.g = g, .v = &g->v[i]};
        uint64_t bytes = 0;
        for (; i < g->n && w.n < WIDTH && (!w.n || bytes + g->v[i].object_bytes <= WINDOW_BYTES); i++, w.n++) bytes += g->v[i].object_bytes;
        if (vv_tier_overdue(g->p->tier)) return VV_E_SHUTDOWN;
        pay(g, bytes);
        vv_abreast(w.n, width, get_one, &w);
        for (size_t k = 0; k < w.n; k++) {
            if (!err && w.got[k].err) g->e = w.got[k].e;
            if (!err) err = w.got[k].err;
            if (!err) err = add_member(g, &w.v[k], &w.got[k].s);
            if (w.got[k].s.buf) vv_buf_unref(w.got[k].s.buf);
        }
    }
    return err ? err : end_block(g);
}

/* ---- the new object ---- */

static unsigned form(const struct merge *g)
{
    return (g->c.compress ? VV_OBJECT_COMPRESSED : 0) | (g->c.encrypt ? VV_OBJECT_ENCRYPTED : 0);
}

/* What it is called, and how its blocks are stored. */
static int begin(struct merge *g)
{
    struct vv_tier_part *p = g->p;
    struct vv_tier *t = p->tier;
    struct vv_extent *x = &g->x;
    struct vv_footer *f = &g->footer;
    *x = (struct vv_extent){.base = g->v[0].base, .last = g->v[g->n - 1].last, .nonce = x->nonce, .generation = g->v[0].generation + 1,
                            .epoch = g->v[g->n - 1].epoch, .state = VV_EXTENT_REMOTE};
    while (!x->nonce) vv_random(t->env, &x->nonce, sizeof x->nonce);
    vv_segkey_of(p->o.topic_id, p->o.partition, x, &f->key);
    vv_segkey_format(&f->key, g->key);
    f->first_ts = f->max_ts = -1;
    f->topic = strdup(p->topic);
    f->cluster_id = strdup(t->id.cluster_id);
    if (!f->topic || !f->cluster_id) return VV_E_NOMEM;
    for (size_t i = 0; i < g->n; i++) g->cap += (size_t)g->v[i].bytes; /* about what it will be */
    if (!(g->bytes = malloc(g->cap + 1))) return VV_E_NOMEM;
    f->flags = (uint16_t)form(g);
    int err = f->flags & VV_OBJECT_ENCRYPTED ? vv_footer_make_key(f, t->store->keys, t->env, &g->e) : VV_OK;
    if (!err && f->flags && !(g->codec = vv_footer_codec(f))) err = VV_E_NOMEM;
    return err;
}

/* The new object in memory, and all that the index will say of it. The same members give the same bytes, but under a data key. */
static int make(struct merge *g)
{
    struct vv_extent *x = &g->x;
    struct vv_footer *f = &g->footer;
    uint8_t *tail = NULL;
    int err = begin(g);
    if (!err) err = add_members(g);
    if (err) return err;
    vv_blocks_seal(&f->blocks);
    f->data_bytes = f->blocks.bytes;
    f->stored_bytes = g->n_bytes;
    err = vv_footer_encode(f, &tail, &g->tail_n);
    uint8_t *to = err ? NULL : room(g, g->tail_n);
    if (!err && !to) err = VV_E_NOMEM;
    if (!err) {
        memcpy(to, tail, g->tail_n);
        g->n_bytes += g->tail_n;
        x->bytes = f->data_bytes;
        x->stored_bytes = f->flags ? f->stored_bytes : 0;
        x->object_bytes = g->n_bytes;
        x->first_ts = f->first_ts;
        x->max_ts = f->max_ts;
        x->sealed_ms = f->sealed_ms;
    }
    free(tail);
    return err;
}

static int put(struct merge *g)
{
    struct vv_tier *t = g->p->tier;
    struct vv_slice s = {0};
    struct vv_objinfo info = {0};
    size_t n = (size_t)g->x.object_bytes, back = g->c.verify_full ? n : g->tail_n;
    if (atomic_load(&t->fenced)) return vv_error_set(&g->e, VV_E_CONFLICT, "another writer took over the bucket");
    pay(g, n);
    int err = vv_tier_saw(t, vv_objstore_put_mem(t->store, g->key, g->bytes, n, NULL, DEADLINE_MS + (int64_t)(n / 256), NULL, &g->e));
    if (!err) err = vv_tier_saw(t, vv_objstore_get_suffix(t->store, g->key, back, DEADLINE_MS, &s, &info, &g->e));
    if (!err && (info.size != n || s.n != back || memcmp(s.p, g->bytes + n - back, back)))
        err = vv_error_set(&g->e, VV_E_CORRUPT, "the store did not keep %s as it was put", g->key);
    vv_buf_unref(s.buf);
    return err;
}

/* ---- committing ---- */

static int commit(struct merge *g)
{
    struct vv_tier_part *p = g->p;
    struct vv_manifest_where w;
    struct vv_extent now;
    int err = vv_tier_keep_begin(p);
    vv_tier_where(p, &w);
    pthread_mutex_lock(&p->life); /* nobody tombstones a member now */
    bool whole = members_of(g);
    pthread_mutex_unlock(&p->life);
    if (!err && !whole) err = VV_E_STATE;
    if (!err) err = vv_tier_saw(p->tier, vv_manifest_replace(&p->manifest, &w, p->o.index, &g->x, &g->e));
    if (!err && vv_index_intent(p->o.index, &now)) err = vv_index_replace(p->o.index, &g->x); /* else settled before */
    vv_tier_keep_end(p);
    return err;
}

/* What cannot be finished leaves nothing: not in the manifest, so the object goes, then the intent. */
static int give_up(struct merge *g)
{
    struct vv_tier_part *p = g->p;
    struct vv_manifest_where w;
    struct vv_extent n;
    struct vv_segkey k;
    vv_tier_where(p, &w);
    int err = vv_tier_keep_begin(p);
    if (!err) err = vv_tier_saw(p->tier, vv_manifest_without(&p->manifest, &w, p->o.index, &g->e));
    bool pending = !err && vv_index_intent(p->o.index, &n);
    vv_tier_keep_end(p);
    if (!pending) return err;
    vv_segkey_of(p->o.topic_id, p->o.partition, &n, &k);
    vv_segkey_format(&k, g->key);
    err = vv_tier_saw(p->tier, vv_objstore_delete(p->tier->store, g->key, DEADLINE_MS, &g->e));
    g->x.object_bytes = 0;
    return err ? err : vv_index_intend(p->o.index, NULL);
}

static int expire(struct merge *g)
{
    struct vv_tier_part *p = g->p;
    struct vv_manifest_where w;
    int64_t next = 0;
    int64_t now = vv_wall_ms(p->tier->env);
    vv_tier_where(p, &w);
    int err = vv_tier_keep_begin(p);
    bool loaded = p->manifest.loaded; /* a first look does not read it only for this: the first commit does soon */
    if (!err && loaded) err = vv_tier_saw(p->tier, vv_manifest_expire(&p->manifest, &w, p->o.index, now - g->c.delete_grace_ms,
                                                                          &next, &g->e));
    vv_tier_keep_end(p);
    if (!loaded) next = now + LOOK_AGAIN_MS;
    else if (next != INT64_MAX) next += g->c.delete_grace_ms;
    p->merge_expire_ms = err < 0 ? 0 : next;
    return err;
}

/* ---- the step ---- */

static int merge(struct merge *g, bool resumed)
{
    struct vv_tier_part *p = g->p;
    bool whole = !resumed || members_of(g);
    bool same = !resumed || (!g->x.stored_bytes && !form(g)); /* a sealed object would be another one under the same name */
    int err = whole && same ? make(g) : VV_E_STATE;
    if (!err && !resumed) err = vv_index_intend(p->o.index, &g->x);
    if (!err) err = put(g);
    if (!err) err = commit(g);
    bool beyond = err == VV_E_STATE || err == VV_E_CORRUPT || err == VV_E_NOENT || err == VV_E_UNSUPPORTED || err == VV_E_KEY;
    if (!beyond) return err;
    if (err != VV_E_STATE) { /* a member that cannot be had: those behind it can */
        VLOG_WARN("%s-%d: merging %" PRId64 "..%" PRId64 ": %s", p->topic, (int)p->o.partition, g->v[0].base, g->v[g->n - 1].last,
                  g->e.text[0] ? g->e.text : vv_err_name(err));
        p->merge_at = g->v[g->n - 1].last + 1;
    }
    return give_up(g);
}

static void account(struct merge *g)
{
    struct vv_tier *t = g->p->tier;
    atomic_fetch_add(&t->merges, 1);
    atomic_fetch_add(&t->merged_segments, g->n);
    atomic_fetch_add(&t->merged_bytes, g->x.object_bytes);
    VLOG_INFO("%s-%d: %zu objects of %" PRId64 "..%" PRId64 " are one now (%" PRIu64 " bytes, generation %u)", g->p->topic,
              (int)g->p->o.partition, g->n, g->x.base, g->x.last, g->x.object_bytes, g->x.generation);
}

int vv_merge_step(struct vv_tier_part *p)
{
    struct merge g = {.p = p, .v = calloc(MEMBERS_MAX, sizeof *g.v)};
    int err = g.v ? VV_OK : VV_E_NOMEM, did = 0;
    struct vv_extent left;
    vv_tier_config_get(p->tier, &g.c);
    bool resumed = vv_index_intent(p->o.index, &g.x);
    if (p->tier->hydrate || p->tier->migrate) g.c.merge_segments_min = 0; /* keys are being copied between stores: they stay */
    if (!err && !resumed && p->merge_expire_ms <= vv_wall_ms(p->tier->env) && vv_keeper_clock_sane(p->tier)) did = err = expire(&g);
    if (!err && !did && !resumed && g.c.merge_segments_min > 0 && !atomic_load(&p->copy_disabled)) {
        did = err = plan(&g);
        g.x = (struct vv_extent){0};
    }
    if (!err && resumed) did = 1;
    if (err >= 0 && did && (resumed || g.n)) {
        err = merge(&g, resumed);
        if (!err && g.x.object_bytes && !vv_index_intent(p->o.index, &left)) account(&g);
        if (!err) p->merge_expire_ms = 0; /* look when it is due */
    }
    if (err < 0)
        VLOG_WARN("%s-%d: merging: %s", p->topic, (int)p->o.partition, g.e.text[0] ? g.e.text : vv_err_name(err));
    free(g.bytes);
    free(g.open);
    free(g.v);
    vv_blockcodec_free(g.codec);
    vv_footer_release(&g.footer);
    return err < 0 ? err : did;
}
