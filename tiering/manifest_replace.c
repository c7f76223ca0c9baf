/* manifest_replace.c — a run of segments becomes one in the manifest: pages rewritten, what they replace remembered for the grace.
 *
 * Every page that holds some of the run is written anew, on the way up too, and joined with the one before it while both fit into one;
 * the head names the new ones. The segments that went and the pages that were rewritten stand in a page of level 0, which the
 * head's "replaced" names with the time: all of that stays readable for the grace, for whoever holds an older head. Then the
 * entry is marked deleting (irrevocable), the objects go, then the entry.
 * A failure forgets what is in memory, as in manifest.c: pages already written are orphans without harm. */
#include "footer.h"
#include "keys.h"
#include "manifest_impl.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 60000
#define JOIN_SEGMENTS (VV_MANIFEST_FANOUT * 64) /* pages of pages with more segments below are not looked at for joining */

/* ---- the head's list ---- */

json_t *vv_mf_replaced_json(const struct vv_manifest *m)
{
    json_t *arr = json_array();
    for (size_t i = 0; i < m->replaced_count; i++) {
        const struct vv_replaced *r = &m->replaced[i];
        char by[17];
        snprintf(by, sizeof by, "%016" PRIx64, r->by);
        json_array_append_new(arr, json_pack("{s:I,s:I,s:s,s:I,s:b,s:I,s:I,s:s}", "base", (json_int_t)r->base, "last",
                                             (json_int_t)r->last, "by", by, "dead_ms", (json_int_t)r->dead_ms, "deleting",
                                             (int)r->deleting, "segments", (json_int_t)r->segments, "bytes",
                                             (json_int_t)r->bytes, "sha256", r->sha256));
    }
    return arr;
}

static int replaced_push(struct vv_manifest *m, const struct vv_replaced *r)
{
    struct vv_replaced *v = realloc(m->replaced, (m->replaced_count + 1) * sizeof *v);
    if (!v) return VV_E_NOMEM;
    m->replaced = v;
    v[m->replaced_count++] = *r;
    return VV_OK;
}

int vv_mf_replaced_parse(struct vv_manifest *m, const json_t *arr)
{
    size_t i;
    const json_t *o;
    json_array_foreach(arr, i, o) {
        const char *by = json_string_value(json_object_get(o, "by")), *sha = json_string_value(json_object_get(o, "sha256"));
        const json_t *base = json_object_get(o, "base"), *last = json_object_get(o, "last"), *dead = json_object_get(o, "dead_ms");
        char *end = NULL;
        if (!by || !sha || strlen(by) != 16 || strlen(sha) != 64 || strspn(sha, "0123456789abcdef") != 64 ||
            !json_is_integer(base) || !json_is_integer(last) || !json_is_integer(dead))
            return VV_E_CORRUPT;
        struct vv_replaced r = {
            .base = json_integer_value(base),
            .last = json_integer_value(last),
            .by = strtoull(by, &end, 16),
            .dead_ms = json_integer_value(dead),
            .deleting = json_is_true(json_object_get(o, "deleting")),
            .segments = (uint64_t)json_integer_value(json_object_get(o, "segments")),
            .bytes = (uint64_t)json_integer_value(json_object_get(o, "bytes")),
        };
        memcpy(r.sha256, sha, 65);
        if (*end || r.last < r.base) return VV_E_CORRUPT;
        int err = replaced_push(m, &r);
        if (err) return err;
    }
    return VV_OK;
}

static int each_old_page(const char *key, vv_manifest_each_page each, void *ctx)
{
    struct vv_pageref r = {0};
    const char *name = key ? strrchr(key, '/') : NULL;
    if (!name || name[1] < '1' || name[1] > '9' || name[2] != '-' || strlen(name) != 3 + 64 + 5) return VV_E_CORRUPT;
    memcpy(r.sha256, name + 3, 64);
    return each(ctx, name[1] - '0', &r);
}

int vv_mf_replaced_each_ref(const struct vv_manifest *m, const struct vv_manifest_where *w, vv_manifest_each_page each, void *ctx,
                            struct vv_error *e)
{
    int err = VV_OK;
    for (size_t i = 0; i < m->replaced_count && !err; i++) {
        struct vv_pageref ref = {0};
        json_t *o = NULL;
        const json_t *page;
        size_t k;
        memcpy(ref.sha256, m->replaced[i].sha256, sizeof ref.sha256);
        err = each(ctx, 0, &ref);
        if (!err) err = vv_mf_get_page(w, 0, &ref, &o, e);
        if (err == VV_E_NOENT && m->replaced[i].deleting) err = VV_OK; /* gone, the head did not follow yet */
        json_array_foreach(o ? json_object_get(o, "pages") : NULL, k, page)
            if (!err) err = each_old_page(json_string_value(page), each, ctx);
        json_decref(o);
    }
    return err;
}

bool vv_manifest_keeps(const struct vv_manifest *m, int64_t base, int64_t last)
{
    for (size_t i = 0; i < m->replaced_count; i++)
        if (m->replaced[i].base <= base && m->replaced[i].last >= last) return true;
    return false;
}

static bool knows(const struct vv_manifest *m, uint64_t nonce)
{
    for (size_t i = 0; i < m->replaced_count; i++)
        if (m->replaced[i].by == nonce) return true;
    return false;
}

/* A crash came between the manifest and the index: the index follows before anything else is committed, else the replaced
 * segments would be listed again. */
int vv_mf_settle(const struct vv_manifest *m, struct vv_index *ix)
{
    struct vv_extent n;
    if (!m->replaced_count || !vv_index_intent(ix, &n) || !knows(m, n.nonce)) return VV_OK;
    n.state = VV_EXTENT_REMOTE;
    return vv_index_replace(ix, &n);
}


/* ---- rewriting pages ---- */

struct rewrite {
    struct vv_manifest *m;
    const struct vv_manifest_where *w;
    const struct vv_extent *n;
    struct vv_mf_list old;  /* what it replaces */
    json_t *pages;          /* keys of the pages that were rewritten */
    bool placed;
    struct vv_error *e;
};

static int page_went(struct rewrite *r, int level, const struct vv_pageref *ref)
{
    char key[VV_KEY_MAX];
    vv_key_page(r->w->topic_id, r->w->partition, level, ref->sha256, key);
    return json_array_append_new(r->pages, json_string(key)) ? VV_E_NOMEM : VV_OK;
}

/* The run's members leave the list, the new one takes their place (once). */
static int substitute(struct rewrite *r, const struct vv_mf_list *from, struct vv_mf_list *to)
{
    int err = VV_OK;
    for (size_t i = 0; i < from->n && !err; i++) {
        const struct vv_extent *x = &from->v[i];
        if (x->last < r->n->base || x->base > r->n->last) {
            err = vv_mf_list_push(to, x);
            continue;
        }
        err = vv_mf_list_push(&r->old, x);
        if (!err && !r->placed) err = vv_mf_list_push(to, r->n);
        r->placed = true;
    }
    return err;
}

static int segments_of(struct rewrite *r, const struct vv_pageref *ref, struct vv_mf_list *out)
{
    json_t *o = NULL;
    int err = vv_mf_get_page(r->w, 1, ref, &o, r->e);
    if (!err) err = vv_mf_segments_parse(json_object_get(o, "entries"), out);
    json_decref(o);
    return err;
}

static int refs_of(struct rewrite *r, int level, const struct vv_pageref *ref, struct vv_manifest_level *out)
{
    json_t *o = NULL;
    const json_t *child;
    size_t i;
    int err = vv_mf_get_page(r->w, level, ref, &o, r->e);
    json_array_foreach(o ? json_object_get(o, "entries") : NULL, i, child) {
        struct vv_pageref c;
        err = vv_mf_ref_parse(child, &c);
        if (!err) err = vv_mf_level_push(out, &c);
        if (err) break;
    }
    json_decref(o);
    return err;
}

/* Writes a page of level 1 and appends its reference; the one before is taken in while both fit. */
static int emit_segments(struct rewrite *r, struct vv_mf_list *l, struct vv_manifest_level *out)
{
    struct vv_mf_list both = {0};
    int err = VV_OK;
    if (!l->n) return VV_OK;
    if (out->n && out->v[out->n - 1].segments + l->n <= VV_MANIFEST_FANOUT) {
        const struct vv_pageref before = out->v[--out->n];
        err = segments_of(r, &before, &both);
        if (!err) err = page_went(r, 1, &before);
    }
    for (size_t i = 0; i < l->n && !err; i++) err = vv_mf_list_push(&both, &l->v[i]);
    struct vv_pageref ref = {.base = err ? 0 : both.v[0].base, .last = err ? 0 : both.v[both.n - 1].last, .max_ts = -1,
                             .segments = both.n};
    json_t *entries = json_array();
    for (size_t i = 0; i < both.n && !err; i++) {
        json_array_append_new(entries, vv_mf_extent_json(&both.v[i]));
        ref.max_ts = VV_MAX(ref.max_ts, both.v[i].max_ts);
        ref.bytes += both.v[i].bytes;
    }
    free(both.v);
    if (err)
        json_decref(entries);
    else
        err = vv_mf_put_page(r->w, 1, entries, NULL, &ref, r->e);
    return err ? err : vv_mf_level_push(out, &ref);
}

static int emit_refs(struct rewrite *r, int level, struct vv_manifest_level *l, struct vv_manifest_level *out)
{
    struct vv_manifest_level both = {0};
    struct vv_pageref ref = {.max_ts = -1};
    uint64_t segments = 0;
    int err = VV_OK;
    if (!l->n) return VV_OK;
    for (size_t i = 0; i < l->n; i++) segments += l->v[i].segments;
    if (out->n && out->v[out->n - 1].segments + segments <= JOIN_SEGMENTS) {
        const struct vv_pageref before = out->v[out->n - 1];
        err = refs_of(r, level, &before, &both);
        if (!err && both.n + l->n <= VV_MANIFEST_FANOUT) {
            out->n--;
            err = page_went(r, level, &before);
        } else {
            both.n = 0;
        }
    }
    for (size_t i = 0; i < l->n && !err; i++) err = vv_mf_level_push(&both, &l->v[i]);
    json_t *entries = json_array();
    for (size_t i = 0; i < both.n && !err; i++) {
        json_array_append_new(entries, vv_mf_ref_json(&both.v[i]));
        ref.max_ts = VV_MAX(ref.max_ts, both.v[i].max_ts);
        ref.segments += both.v[i].segments;
        ref.bytes += both.v[i].bytes;
    }
    if (err) {
        json_decref(entries);
    } else {
        ref.base = both.v[0].base;
        ref.last = both.v[both.n - 1].last;
        err = vv_mf_put_page(r->w, level, entries, NULL, &ref, r->e);
    }
    free(both.v);
    return err ? err : vv_mf_level_push(out, &ref);
}

/* The references of one level, without the run. */
static int rewrite_level(struct rewrite *r, int level, struct vv_manifest_level *l)
{
    struct vv_manifest_level out = {0};
    int err = VV_OK;
    for (size_t i = 0; i < l->n && !err; i++) {
        const struct vv_pageref *ref = &l->v[i];
        if (ref->last < r->n->base || ref->base > r->n->last) {
            err = vv_mf_level_push(&out, ref);
            continue;
        }
        err = page_went(r, level, ref);
        if (level == 1) {
            struct vv_mf_list had = {0}, has = {0};
            if (!err) err = segments_of(r, ref, &had);
            if (!err) err = substitute(r, &had, &has);
            if (!err) err = emit_segments(r, &has, &out);
            free(had.v);
            free(has.v);
        } else {
            struct vv_manifest_level children = {0};
            if (!err) err = refs_of(r, level, ref, &children);
            if (!err) err = rewrite_level(r, level - 1, &children);
            if (!err) err = emit_refs(r, level, &children, &out);
            free(children.v);
        }
    }
    free(l->v);
    *l = out;
    return err;
}

/* The members must be exactly the run, without a hole. */
static bool tiles(const struct rewrite *r)
{
    const struct vv_mf_list *o = &r->old;
    if (!o->n || o->v[0].base != r->n->base || o->v[o->n - 1].last != r->n->last) return false;
    for (size_t i = 1; i < o->n; i++)
        if (o->v[i].base != o->v[i - 1].last + 1) return false;
    return true;
}

/* The page of level 0, and its entry for the head. */
static int remember(struct rewrite *r)
{
    struct vv_pageref ref = {0};
    struct vv_replaced gone = {.base = r->n->base, .last = r->n->last, .by = r->n->nonce, .dead_ms = vv_wall_ms(r->w->env),
                               .segments = r->old.n};
    json_t *entries = json_array();
    for (size_t i = 0; i < r->old.n; i++) {
        json_array_append_new(entries, vv_mf_extent_json(&r->old.v[i]));
        gone.bytes += r->old.v[i].object_bytes;
    }
    int err = vv_mf_put_page(r->w, 0, entries, r->pages, &ref, r->e);
    r->pages = NULL;
    memcpy(gone.sha256, ref.sha256, sizeof gone.sha256);
    return err ? err : replaced_push(r->m, &gone);
}

int vv_manifest_replace(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, const struct vv_extent *n,
                        struct vv_error *e)
{
    struct rewrite r = {.m = m, .w = w, .n = n, .pages = json_array(), .e = e};
    struct vv_mf_list had = {0}, has = {0};
    int err = vv_mf_ready(m, w, ix, e);
    if (err || knows(m, n->nonce)) goto out;
    for (int k = VV_MANIFEST_LEVELS - 1; k >= 1 && !err; k--) err = rewrite_level(&r, k, &m->level[k]);
    if (!err) err = vv_mf_collect(m, ix, &had);
    if (!err) err = substitute(&r, &had, &has);
    if (!err && !tiles(&r))
        err = vv_error_set(e, VV_E_STATE, "the manifest has no run of segments from %" PRId64 " to %" PRId64, n->base, n->last);
    if (!err && m->folded_end > n->base) m->folded_end = VV_MAX(m->folded_end, n->last + 1);
    if (!err) err = remember(&r);
    if (!err) err = vv_mf_put_head(m, w, &has, e);
out:
    if (err) m->loaded = false;
    free(r.old.v);
    free(had.v);
    free(has.v);
    json_decref(r.pages);
    return err;
}

/* ---- after the grace ---- */

static int delete_keys(const struct vv_manifest_where *w, char (*keys)[VV_KEY_MAX], size_t n, struct vv_error *e)
{
    const char **refs = calloc(n + 1, sizeof *refs);
    int *results = calloc(n + 1, sizeof *results);
    int err = refs && results ? VV_OK : VV_E_NOMEM;
    for (size_t i = 0; i < n && !err; i++) refs[i] = keys[i];
    if (!err && n) err = vv_objstore_delete_many(w->store, refs, n, DEADLINE_MS, results, e);
    free(refs);
    free(results);
    return err;
}

/* Never what the index still names, whatever the manifest says; what the index cannot tell may be in use. */
static bool in_use(struct vv_index *ix, const struct vv_extent *old)
{
    struct vv_extent now;
    int err = vv_index_find(ix, old->base, &now);
    if (err) return err != VV_E_NOENT;
    vv_extent_release(ix, &now);
    return now.nonce == old->nonce;
}

static int delete_replaced(const struct vv_manifest_where *w, struct vv_index *ix, const struct vv_replaced *r, struct vv_error *e)
{
    struct vv_pageref ref = {0};
    struct vv_mf_list old = {0};
    json_t *o = NULL;
    const json_t *page;
    size_t i, n = 0;
    memcpy(ref.sha256, r->sha256, sizeof ref.sha256);
    int err = vv_mf_get_page(w, 0, &ref, &o, e);
    if (err == VV_E_NOENT) return VV_OK; /* its last deletion was this page's: the head did not follow */
    if (!err) err = vv_mf_segments_parse(json_object_get(o, "entries"), &old);
    const json_t *pages = json_object_get(o, "pages");
    char (*keys)[VV_KEY_MAX] = err ? NULL : calloc(old.n + json_array_size(pages) + 1, sizeof *keys);
    if (!err && !keys) err = VV_E_NOMEM;
    for (size_t k = 0; k < old.n && !err; k++) {
        struct vv_segkey key;
        if (in_use(ix, &old.v[k])) {
            err = vv_error_set(e, VV_E_STATE, "the segment at %" PRId64 " that generation %" PRIx64 " replaced is still in use",
                               old.v[k].base, r->by);
            break;
        }
        vv_segkey_of(w->topic_id, w->partition, &old.v[k], &key);
        vv_segkey_format(&key, keys[n++]);
    }
    json_array_foreach(pages, i, page) {
        const char *key = json_string_value(page);
        if (key && !err) snprintf(keys[n++], VV_KEY_MAX, "%s", key);
    }
    if (!err) err = delete_keys(w, keys, n, e);
    free(keys);
    free(old.v);
    json_decref(o);
    return err;
}

static int put_again(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, struct vv_error *e)
{
    struct vv_mf_list l = {0};
    int err = vv_mf_collect(m, ix, &l);
    if (!err) err = vv_mf_put_head(m, w, &l, e);
    free(l.v);
    return err;
}

int vv_manifest_without(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, struct vv_error *e)
{
    struct vv_extent n;
    int err = vv_mf_ready(m, w, ix, e);
    if (!err && vv_index_intent(ix, &n)) err = put_again(m, w, ix, e);
    if (err) m->loaded = false;
    return err;
}

int vv_manifest_expire(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, int64_t dead_before_ms,
                       int64_t *next_ms, struct vv_error *e)
{
    size_t due = 0, marked = 0;
    *next_ms = INT64_MAX;
    int err = vv_mf_ready(m, w, ix, e);
    for (size_t i = 0; i < m->replaced_count && !err; i++) {
        struct vv_replaced *r = &m->replaced[i];
        if (!r->deleting && r->dead_ms > dead_before_ms) {
            *next_ms = VV_MIN(*next_ms, r->dead_ms);
            continue;
        }
        due++;
        marked += !r->deleting;
        r->deleting = true;
    }
    if (!err && marked) err = put_again(m, w, ix, e); /* irrevocable from here on */
    for (size_t i = 0; i < m->replaced_count && !err && due;) {
        char key[VV_KEY_MAX];
        if (!m->replaced[i].deleting) {
            i++;
            continue;
        }
        err = delete_replaced(w, ix, &m->replaced[i], e);
        vv_key_page(w->topic_id, w->partition, 0, m->replaced[i].sha256, key);
        if (!err) err = vv_mf_garbage_add(m, key);
        if (err) break;
        memmove(&m->replaced[i], &m->replaced[i + 1], (--m->replaced_count - i) * sizeof *m->replaced);
    }
    if (!err && due) err = put_again(m, w, ix, e);
    if (err) m->loaded = false;
    else if (due) vv_manifest_sweep(m, w);
    return err ? err : (int)due;
}
