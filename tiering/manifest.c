/* manifest.c — see manifest.h; the JSON is documented in docs/bucket-format.md, "Manifest".
 *
 * Any failed commit forgets what is in memory (loaded = false): the next one begins with what the bucket says, so a lost reply, a
 * foreign head and a crash are all the same case. Pages are named by content, so writing one twice is harmless. */
#include "manifest.h"
#include "abreast.h"
#include "jsoncrc.h"
#include "keys.h"
#include "manifest_impl.h"
#include "jsontext.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 60000

/* ---- small things ---- */

static int sha256_hex(const void *p, size_t n, char out[65])
{
    uint8_t md[32];
    if (EVP_Digest(p, n, md, NULL, EVP_sha256(), NULL) != 1) return VV_E_NOMEM;
    for (size_t i = 0; i < sizeof md; i++) snprintf(out + i * 2, 3, "%02x", md[i]);
    return VV_OK;
}

static int64_t get_int(const json_t *o, const char *name, bool *ok)
{
    const json_t *v = json_object_get(o, name);
    if (!json_is_integer(v)) {
        *ok = false;
        return 0;
    }
    return json_integer_value(v);
}

static const char *get_text(const json_t *o, const char *name, bool *ok)
{
    const char *s = json_string_value(json_object_get(o, name));
    if (!s) *ok = false;
    return s ? s : "";
}

json_t *vv_mf_extent_json(const struct vv_extent *x)
{
    char nonce[17];
    snprintf(nonce, sizeof nonce, "%016" PRIx64, x->nonce);
    json_t *o = json_pack("{s:I,s:I,s:i,s:i,s:s,s:I,s:I,s:I,s:I,s:I}", "base", (json_int_t)x->base, "last", (json_int_t)x->last,
                     "epoch", (int)x->epoch, "generation", (int)x->generation, "nonce", nonce, "bytes",
                     (json_int_t)x->bytes, "object_bytes", (json_int_t)x->object_bytes, "first_ts",
                     (json_int_t)x->first_ts, "max_ts", (json_int_t)x->max_ts, "sealed_ms", (json_int_t)x->sealed_ms);
    if (x->stored_bytes) json_object_set_new(o, "stored_bytes", json_integer((json_int_t)x->stored_bytes));
    return o;
}

static int extent_parse(const json_t *o, struct vv_extent *x)
{
    bool ok = true;
    *x = (struct vv_extent){
        .base = get_int(o, "base", &ok),
        .last = get_int(o, "last", &ok),
        .epoch = (int32_t)get_int(o, "epoch", &ok),
        .generation = (uint32_t)get_int(o, "generation", &ok),
        .bytes = (uint64_t)get_int(o, "bytes", &ok),
        .object_bytes = (uint64_t)get_int(o, "object_bytes", &ok),
        .first_ts = get_int(o, "first_ts", &ok),
        .max_ts = get_int(o, "max_ts", &ok),
        .sealed_ms = get_int(o, "sealed_ms", &ok),
        .state = VV_EXTENT_REMOTE,
    };
    char *end;
    const char *nonce = get_text(o, "nonce", &ok);
    x->nonce = strtoull(nonce, &end, 16);
    if (json_object_get(o, "stored_bytes")) x->stored_bytes = (uint64_t)get_int(o, "stored_bytes", &ok);
    return ok && strlen(nonce) == 16 && !*end && x->base >= 0 && x->last >= x->base ? VV_OK : VV_E_CORRUPT;
}

json_t *vv_mf_ref_json(const struct vv_pageref *r)
{
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:s}", "base", (json_int_t)r->base, "last", (json_int_t)r->last, "max_ts",
                     (json_int_t)r->max_ts, "segments", (json_int_t)r->segments, "bytes", (json_int_t)r->bytes, "sha256",
                     r->sha256);
}

int vv_mf_ref_parse(const json_t *o, struct vv_pageref *r)
{
    bool ok = true;
    const char *sha = get_text(o, "sha256", &ok);
    *r = (struct vv_pageref){
        .base = get_int(o, "base", &ok),
        .last = get_int(o, "last", &ok),
        .max_ts = get_int(o, "max_ts", &ok),
        .segments = (uint64_t)get_int(o, "segments", &ok),
        .bytes = (uint64_t)get_int(o, "bytes", &ok),
    };
    snprintf(r->sha256, sizeof r->sha256, "%s", sha);
    return ok && strlen(sha) == 64 && strspn(sha, "0123456789abcdef") == 64 && r->last >= r->base ? VV_OK : VV_E_CORRUPT;
}

int vv_mf_level_push(struct vv_manifest_level *l, const struct vv_pageref *r)
{
    if (!(l->n & (l->n - 1))) { /* at powers of two there is no room */
        struct vv_pageref *v = realloc(l->v, VV_MAX(l->n * 2, (size_t)1) * sizeof *v);
        if (!v) return VV_E_NOMEM;
        l->v = v;
    }
    l->v[l->n++] = *r;
    return VV_OK;
}

static void level_drop(struct vv_manifest_level *l, size_t n) /* the first n */
{
    memmove(l->v, l->v + n, (l->n - n) * sizeof *l->v);
    l->n -= n;
}

int vv_mf_garbage_add(struct vv_manifest *m, const char *key)
{
    for (size_t i = 0; i < m->garbage_count; i++)
        if (!strcmp(m->garbage[i], key)) return VV_OK;
    char **v = realloc(m->garbage, (m->garbage_count + 1) * sizeof *v);
    if (!v) return VV_E_NOMEM;
    m->garbage = v;
    m->garbage[m->garbage_count] = strdup(key);
    if (!m->garbage[m->garbage_count]) return VV_E_NOMEM;
    m->garbage_count++;
    return VV_OK;
}

int vv_manifest_condemn(struct vv_manifest *m, const char *key)
{
    return vv_mf_garbage_add(m, key);
}

static void garbage_clear(struct vv_manifest *m)
{
    for (size_t i = 0; i < m->garbage_count; i++) free(m->garbage[i]);
    free(m->garbage);
    m->garbage = NULL;
    m->garbage_count = 0;
}

void vv_manifest_release(struct vv_manifest *m)
{
    for (int k = 0; k < VV_MANIFEST_LEVELS; k++) free(m->level[k].v);
    free(m->replaced);
    garbage_clear(m);
    *m = (struct vv_manifest){0};
}

/* ---- reading ---- */

int vv_mf_list_push(struct vv_mf_list *l, const struct vv_extent *x)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : VV_MANIFEST_FANOUT;
        struct vv_extent *v = realloc(l->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = *x;
    return VV_OK;
}

/* A JSON object from the bucket, its hash, its identity checked. */
static int get_json(const struct vv_manifest_where *w, const char *key, json_t **out, char sha[65], struct vv_objinfo *info,
                    struct vv_error *e)
{
    struct vv_slice s = {0};
    char id[23];
    *out = NULL;
    int err = vv_objstore_get_whole(w->store, key, VV_MANIFEST_BYTES_MAX, DEADLINE_MS, &s, info, e);
    if (err) return err;
    err = sha256_hex(s.p, s.n, sha);
    bool holds = !err && vv_jsoncrc_holds((const char *)s.p, s.n);
    json_t *o = holds ? json_loadb((const char *)s.p, s.n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    vv_buf_unref(s.buf);
    if (err) return err;
    if (!holds) return vv_error_set(e, VV_E_CORRUPT, "%s is damaged: it does not fit its checksum", key);
    bool ok = json_is_object(o);
    vv_uuid_text(w->topic_id, id);
    int64_t format = ok ? get_int(o, "format", &ok) : 0;
    if (format > VV_BUCKET_FORMAT) {
        json_decref(o);
        return vv_error_set(e, VV_E_UNSUPPORTED, "%s has format %lld: a newer Varve wrote it; upgrade this one", key, (long long)format);
    }
    if (ok) ok = format == VV_BUCKET_FORMAT && !strcmp(get_text(o, "topic_id", &ok), id) &&
                 get_int(o, "partition", &ok) == w->partition && ok;
    if (ok) {
        *out = o;
        return VV_OK;
    }
    json_decref(o);
    return vv_error_set(e, VV_E_CORRUPT, "%s is not a manifest of this partition in format 1", key);
}

static int parse_levels(struct vv_manifest *m, const json_t *levels)
{
    size_t k;
    const json_t *arr, *o;
    if (!json_is_array(levels) || json_array_size(levels) > VV_MANIFEST_LEVELS - 1) return VV_E_CORRUPT;
    json_array_foreach(levels, k, arr) {
        size_t i;
        if (!json_is_array(arr)) return VV_E_CORRUPT;
        json_array_foreach(arr, i, o) {
            struct vv_pageref r;
            int err = vv_mf_ref_parse(o, &r);
            if (!err) err = vv_mf_level_push(&m->level[k + 1], &r);
            if (err) return err;
            m->folded_end = VV_MAX(m->folded_end, r.last + 1);
        }
    }
    return VV_OK;
}

int vv_mf_segments_parse(const json_t *arr, struct vv_mf_list *out)
{
    size_t i;
    const json_t *o;
    if (!json_is_array(arr)) return VV_E_CORRUPT;
    json_array_foreach(arr, i, o) {
        struct vv_extent x;
        int err = extent_parse(o, &x);
        if (!err) err = vv_mf_list_push(out, &x);
        if (err) return err;
    }
    return VV_OK;
}

static int parse_head(struct vv_manifest *m, const json_t *o, struct vv_mf_list *segments)
{
    bool ok = true;
    size_t i;
    const json_t *g;
    m->revision = (uint64_t)get_int(o, "revision", &ok);
    m->writer_epoch = (uint64_t)get_int(o, "writer_epoch", &ok);
    m->log_start = get_int(o, "log_start", &ok);
    m->deleting_below = get_int(o, "deleting_below", &ok);
    m->next_offset = get_int(o, "next_offset", &ok);
    if (!ok) return VV_E_CORRUPT;
    int err = parse_levels(m, json_object_get(o, "pages"));
    if (!err) err = vv_mf_segments_parse(json_object_get(o, "segments"), segments);
    if (err) return err;
    err = vv_mf_replaced_parse(m, json_object_get(o, "replaced"));
    if (err) return err;
    json_array_foreach(json_object_get(o, "garbage"), i, g) {
        if (!json_is_string(g)) return VV_E_CORRUPT;
        err = vv_mf_garbage_add(m, json_string_value(g));
        if (err) return err;
    }
    m->garbage_listed = m->garbage_count;
    return VV_OK;
}

/* What is known of a head that cannot be read: what a put over it is conditional on. */
static void forget(struct vv_manifest *m, int err, const char sha[65], const struct vv_objinfo *info)
{
    vv_manifest_release(m);
    m->damaged = err == VV_E_CORRUPT && sha[0]; /* its bytes were there */
    if (!m->damaged) return;
    snprintf(m->etag, sizeof m->etag, "%s", info->etag);
    memcpy(m->sha256, sha, sizeof m->sha256);
    m->exists = true;
}

static int load(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_mf_list *segments, struct vv_error *e)
{
    char key[VV_KEY_MAX], sha[65] = "";
    struct vv_objinfo info = {0};
    json_t *o = NULL;
    vv_manifest_release(m);
    vv_key_head(w->topic_id, w->partition, key);
    int err = get_json(w, key, &o, sha, &info, e);
    if (err == VV_E_NOENT) {
        m->loaded = true;
        return VV_OK;
    }
    if (err) {
        forget(m, err, sha, &info);
        return err;
    }
    bool ok = true;
    const char *cluster = get_text(o, "cluster_id", &ok);
    if (w->cluster_id && strcmp(cluster, w->cluster_id))
        err = vv_error_set(e, VV_E_CONFLICT, "%s belongs to cluster %s, not to %s", key, cluster, w->cluster_id);
    if (!err) {
        err = parse_head(m, o, segments);
        if (err) vv_error_set(e, err, "%s makes no sense", key);
    }
    json_decref(o);
    if (err) {
        forget(m, err, sha, &info);
        return err;
    }
    snprintf(m->etag, sizeof m->etag, "%s", info.etag);
    memcpy(m->sha256, sha, sizeof sha);
    m->exists = m->loaded = true;
    return VV_OK;
}

static int each_of(const struct vv_mf_list *l, int64_t from, vv_manifest_each each, void *ctx)
{
    int err = VV_OK;
    for (size_t i = 0; i < l->n && !err; i++)
        if (l->v[i].last >= from) err = each(ctx, &l->v[i]);
    return err;
}

int vv_manifest_load(struct vv_manifest *m, const struct vv_manifest_where *w, vv_manifest_each each, void *ctx,
                     struct vv_error *e)
{
    struct vv_mf_list segments = {0};
    int err = load(m, w, &segments, e);
    if (!err && each) err = each_of(&segments, 0, each, ctx);
    free(segments.v);
    return err;
}

int vv_mf_get_page(const struct vv_manifest_where *w, int level, const struct vv_pageref *r, json_t **out, struct vv_error *e)
{
    char key[VV_KEY_MAX], sha[65];
    vv_key_page(w->topic_id, w->partition, level, r->sha256, key);
    int err = get_json(w, key, out, sha, NULL, e);
    if (err || !strcmp(sha, r->sha256)) return err;
    json_decref(*out);
    *out = NULL;
    return vv_error_set(e, VV_E_CORRUPT, "manifest page %s has other content than its name says", key);
}

/* A page's entries: segments at level 1, references above. In one pass; what that cannot read, the JSON library judges. */
static int read_page(const struct vv_manifest_where *w, int level, const struct vv_pageref *r, struct vv_mf_list *segments,
                     struct vv_manifest_level *refs, struct vv_error *e)
{
    struct vv_slice s = {0};
    char key[VV_KEY_MAX], sha[65];
    json_t *o = NULL;
    const json_t *child;
    size_t i;
    vv_key_page(w->topic_id, w->partition, level, r->sha256, key);
    int err = vv_objstore_get_whole(w->store, key, VV_MANIFEST_BYTES_MAX, DEADLINE_MS, &s, NULL, e);
    if (err) return err;
    err = sha256_hex(s.p, s.n, sha);
    if (!err) err = strcmp(sha, r->sha256) ? VV_E_CORRUPT : vv_mf_scan(w, level, (const char *)s.p, s.n, segments, refs);
    vv_buf_unref(s.buf);
    if (err != VV_E_CORRUPT) return err;
    segments->n = refs->n = 0;
    err = vv_mf_get_page(w, level, r, &o, e);
    if (!err && level == 1) err = vv_mf_segments_parse(json_object_get(o, "entries"), segments);
    json_array_foreach(!err && level > 1 ? json_object_get(o, "entries") : NULL, i, child) {
        struct vv_pageref c;
        err = vv_mf_ref_parse(child, &c);
        if (!err) err = vv_mf_level_push(refs, &c);
        if (err) break;
    }
    json_decref(o);
    return err;
}

struct page { /* being read, with others */
    const struct vv_pageref *ref;
    struct vv_mf_list segments;
    struct vv_manifest_level refs;
    int err;
    struct vv_error e;
};

struct walk {
    const struct vv_manifest_where *w;
    int64_t from, min_ts;
    vv_manifest_each each;
    void *ctx;
    struct vv_error *e;
};

struct window { /* the next few pages of one level */
    const struct vv_manifest_where *w;
    int level;
    struct page v[VV_ABREAST_MAX];
    size_t n;
};

static void read_one(void *ctx, size_t i)
{
    struct window *win = ctx;
    struct page *p = &win->v[i];
    p->err = read_page(win->w, win->level, p->ref, &p->segments, &p->refs, &p->e);
}

static int walk_level(const struct walk *k, int level, const struct vv_pageref *v, size_t n);

/* Several pages are read at the same time, and gone through in order. */
static int walk_window(const struct walk *k, struct window *win)
{
    int err = VV_OK;
    vv_abreast(win->n, win->n, read_one, win);
    for (size_t i = 0; i < win->n; i++) {
        struct page *p = &win->v[i];
        if (!err && p->err && k->e) *k->e = p->e;
        if (!err) err = p->err;
        if (!err) err = each_of(&p->segments, k->from, k->each, k->ctx);
        if (!err) err = walk_level(k, win->level - 1, p->refs.v, p->refs.n);
        free(p->segments.v);
        free(p->refs.v);
    }
    return err;
}

static int walk_level(const struct walk *k, int level, const struct vv_pageref *v, size_t n)
{
    size_t width = VV_MIN(VV_MAX(k->w->pages, (size_t)1), (size_t)VV_ABREAST_MAX);
    int err = VV_OK;
    for (size_t i = 0; i < n && !err;) {
        struct window win = {.w = k->w, .level = level};
        for (; i < n && win.n < width; i++)
            if (v[i].last >= k->from && v[i].max_ts >= k->min_ts) win.v[win.n++].ref = &v[i];
        if (win.n) err = walk_window(k, &win);
    }
    return err;
}

int vv_manifest_pages(const struct vv_manifest *m, const struct vv_manifest_where *w, int64_t from, int64_t min_ts,
                      vv_manifest_each each, void *ctx, struct vv_error *e)
{
    struct walk k = {.w = w, .from = VV_MAX(from, m->deleting_below), .min_ts = min_ts, .each = each, .ctx = ctx, .e = e};
    int err = VV_OK;
    for (int level = VV_MANIFEST_LEVELS - 1; level >= 1 && !err; level--) err = walk_level(&k, level, m->level[level].v, m->level[level].n);
    return err;
}

static int each_ref(const struct vv_manifest_where *w, int level, const struct vv_pageref *r, vv_manifest_each_page each, void *ctx,
                    struct vv_error *e)
{
    json_t *o = NULL;
    const json_t *child;
    size_t i;
    int err = each(ctx, level, r);
    if (err || level == 1) return err;
    err = vv_mf_get_page(w, level, r, &o, e);
    json_array_foreach(o ? json_object_get(o, "entries") : NULL, i, child) {
        struct vv_pageref c;
        err = vv_mf_ref_parse(child, &c);
        if (!err) err = each_ref(w, level - 1, &c, each, ctx, e);
        if (err) break;
    }
    json_decref(o);
    return err;
}

int vv_manifest_each_ref(const struct vv_manifest *m, const struct vv_manifest_where *w, vv_manifest_each_page each, void *ctx,
                         struct vv_error *e)
{
    int err = VV_OK;
    for (int k = VV_MANIFEST_LEVELS - 1; k >= 1 && !err; k--)
        for (size_t i = 0; i < m->level[k].n && !err; i++) err = each_ref(w, k, &m->level[k].v[i], each, ctx, e);
    return err ? err : vv_mf_replaced_each_ref(m, w, each, ctx, e);
}

int vv_manifest_walk(struct vv_manifest *m, const struct vv_manifest_where *w, vv_manifest_each each, void *ctx,
                     struct vv_error *e)
{
    struct vv_mf_list segments = {0};
    int err = load(m, w, &segments, e);
    if (!err) err = vv_manifest_pages(m, w, 0, INT64_MIN, each, ctx, e);
    if (!err) err = each_of(&segments, m->deleting_below, each, ctx);
    free(segments.v);
    return err;
}

/* ---- writing ---- */

static json_t *identity(const struct vv_manifest_where *w)
{
    char id[23];
    vv_uuid_text(w->topic_id, id);
    return json_pack("{s:i,s:s,s:s,s:s,s:i}", "format", 1, "cluster_id", w->cluster_id, "topic", w->topic, "topic_id", id,
                     "partition", (int)w->partition);
}

int vv_mf_put_page(const struct vv_manifest_where *w, int level, json_t *entries, json_t *more, struct vv_pageref *ref,
                   struct vv_error *e)
{
    char key[VV_KEY_MAX];
    json_t *o = identity(w);
    if (!o || !entries) {
        json_decref(entries);
        json_decref(more);
        json_decref(o);
        return VV_E_NOMEM;
    }
    json_object_set_new(o, "level", json_integer(level));
    json_object_set_new(o, "entries", entries);
    if (more) json_object_set_new(o, "pages", more);
    char *text = vv_json_text(o, JSON_COMPACT);
    json_decref(o);
    if (!text) return VV_E_NOMEM;
    int err = sha256_hex(text, strlen(text), ref->sha256);
    vv_key_page(w->topic_id, w->partition, level, ref->sha256, key);
    if (!err) err = vv_objstore_put_mem(w->store, key, text, strlen(text), NULL, DEADLINE_MS, NULL, e);
    free(text);
    return err;
}

/* The first FANOUT of the level-0 list become a page of level 1. */
static int fold_segments(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_mf_list *l, struct vv_error *e)
{
    const struct vv_extent *v = l->v;
    struct vv_pageref r = {.base = v[0].base, .last = v[VV_MANIFEST_FANOUT - 1].last, .max_ts = -1,
                           .segments = VV_MANIFEST_FANOUT};
    json_t *entries = json_array();
    for (size_t i = 0; i < VV_MANIFEST_FANOUT; i++) {
        json_array_append_new(entries, vv_mf_extent_json(&v[i]));
        r.max_ts = VV_MAX(r.max_ts, v[i].max_ts);
        r.bytes += v[i].bytes;
    }
    int err = vv_mf_put_page(w, 1, entries, NULL, &r, e);
    if (!err) err = vv_mf_level_push(&m->level[1], &r);
    if (err) return err;
    m->folded_end = r.last + 1;
    l->n -= VV_MANIFEST_FANOUT;
    memmove(l->v, l->v + VV_MANIFEST_FANOUT, l->n * sizeof *l->v);
    return VV_OK;
}

static int fold_level(struct vv_manifest *m, const struct vv_manifest_where *w, int k, struct vv_error *e)
{
    struct vv_manifest_level *l = &m->level[k];
    struct vv_pageref r = {.base = l->v[0].base, .last = l->v[VV_MANIFEST_FANOUT - 1].last, .max_ts = -1};
    json_t *entries = json_array();
    for (size_t i = 0; i < VV_MANIFEST_FANOUT; i++) {
        json_array_append_new(entries, vv_mf_ref_json(&l->v[i]));
        r.max_ts = VV_MAX(r.max_ts, l->v[i].max_ts);
        r.segments += l->v[i].segments;
        r.bytes += l->v[i].bytes;
    }
    int err = vv_mf_put_page(w, k + 1, entries, NULL, &r, e);
    if (!err) err = vv_mf_level_push(&m->level[k + 1], &r);
    if (!err) level_drop(l, VV_MANIFEST_FANOUT);
    return err;
}

static int fold(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_mf_list *l, struct vv_error *e)
{
    int err = VV_OK;
    while (!err && l->n >= VV_MANIFEST_FANOUT) err = fold_segments(m, w, l, e);
    for (int k = 1; k + 1 < VV_MANIFEST_LEVELS; k++)
        while (!err && m->level[k].n >= VV_MANIFEST_FANOUT) err = fold_level(m, w, k, e);
    return err;
}

/* A page and everything under it become garbage. */
static int discard_page(struct vv_manifest *m, const struct vv_manifest_where *w, int level, const struct vv_pageref *r,
                        struct vv_error *e)
{
    char key[VV_KEY_MAX];
    json_t *o = NULL;
    const json_t *child;
    size_t i;
    int err = VV_OK;
    if (level > 1) {
        err = vv_mf_get_page(w, level, r, &o, e);
        if (err == VV_E_NOENT) err = VV_OK; /* gone already */
        json_array_foreach(o ? json_object_get(o, "entries") : NULL, i, child) {
            struct vv_pageref c;
            err = vv_mf_ref_parse(child, &c);
            if (!err) err = discard_page(m, w, level - 1, &c, e);
            if (err) break;
        }
        json_decref(o);
    }
    if (err) return err;
    vv_key_page(w->topic_id, w->partition, level, r->sha256, key);
    return vv_mf_garbage_add(m, key);
}

static int discard(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_error *e)
{
    for (int k = VV_MANIFEST_LEVELS - 1; k >= 1; k--) {
        size_t n = 0;
        while (n < m->level[k].n && m->level[k].v[n].last < m->deleting_below) {
            int err = discard_page(m, w, k, &m->level[k].v[n], e);
            if (err) return err;
            n++;
        }
        if (n) level_drop(&m->level[k], n);
    }
    return VV_OK;
}

int vv_mf_collect(struct vv_manifest *m, struct vv_index *ix, struct vv_mf_list *l)
{
    struct vv_extent x;
    int64_t at = VV_MAX(m->folded_end, 0);
    int err;
    while (!(err = vv_index_next(ix, at, &x))) {
        vv_extent_release(ix, &x);
        bool dead = x.state == VV_EXTENT_TOMBSTONED || x.state == VV_EXTENT_DELETING;
        if (!dead && !vv_extent_is_remote(&x)) break;
        at = x.last + 1;
        if (x.last < m->deleting_below || !x.object_bytes) continue;
        err = vv_mf_list_push(l, &x);
        if (err) return err;
    }
    return err == VV_E_NOENT ? VV_OK : err;
}

static json_t *head_json(const struct vv_manifest *m, const struct vv_manifest_where *w, const struct vv_mf_list *l)
{
    json_t *o = identity(w), *pages = json_array(), *segments = json_array(), *garbage = json_array();
    int top = 0;
    for (int k = 1; k < VV_MANIFEST_LEVELS; k++)
        if (m->level[k].n) top = k;
    for (int k = 1; k <= top; k++) {
        json_t *level = json_array();
        for (size_t i = 0; i < m->level[k].n; i++) json_array_append_new(level, vv_mf_ref_json(&m->level[k].v[i]));
        json_array_append_new(pages, level);
    }
    for (size_t i = 0; i < l->n; i++) json_array_append_new(segments, vv_mf_extent_json(&l->v[i]));
    for (size_t i = 0; i < m->garbage_count; i++) json_array_append_new(garbage, json_string(m->garbage[i]));
    json_object_set_new(o, "revision", json_integer((json_int_t)m->revision + 1));
    json_object_set_new(o, "writer_epoch", json_integer((json_int_t)w->writer_epoch));
    json_object_set_new(o, "previous", json_string(m->sha256));
    json_object_set_new(o, "updated_ms", json_integer((json_int_t)vv_wall_ms(w->env)));
    json_object_set_new(o, "log_start", json_integer((json_int_t)m->log_start));
    json_object_set_new(o, "deleting_below", json_integer((json_int_t)m->deleting_below));
    json_object_set_new(o, "next_offset", json_integer((json_int_t)m->next_offset));
    json_object_set_new(o, "segments", segments);
    json_object_set_new(o, "pages", pages);
    json_object_set_new(o, "garbage", garbage);
    json_object_set_new(o, "replaced", vv_mf_replaced_json(m));
    return o;
}

int vv_mf_put_head(struct vv_manifest *m, const struct vv_manifest_where *w, const struct vv_mf_list *l, struct vv_error *e)
{
    char key[VV_KEY_MAX], sha[sizeof m->sha256];
    struct vv_objinfo info = {0};
    struct vv_objput how = {0};
    size_t n = 0;
    json_t *o = head_json(m, w, l);
    char *plain = o ? vv_json_text(o, JSON_COMPACT) : NULL, *text = plain ? vv_jsoncrc_add(plain, strlen(plain), &n) : NULL;
    json_decref(o);
    free(plain);
    if (!text) return VV_E_NOMEM;
    if (!m->exists) how.if_none_match = (w->store->caps & VV_OBJ_CAP_IF_NONE_MATCH) != 0;
    if (m->exists && m->etag[0] && (w->store->caps & VV_OBJ_CAP_IF_MATCH)) how.if_match = m->etag;
    vv_key_head(w->topic_id, w->partition, key);
    int err = sha256_hex(text, n, sha);
    if (!err) err = vv_objstore_put_mem(w->store, key, text, n, &how, DEADLINE_MS, &info, e);
    if (!err) {
        memcpy(m->sha256, sha, sizeof sha);
        snprintf(m->etag, sizeof m->etag, "%s", info.etag);
        m->exists = true;
        m->damaged = m->taking = false;
        m->garbage_listed = m->garbage_count;
        m->revision++;
        m->writer_epoch = w->writer_epoch;
    }
    free(text);
    return err;
}

static int check_fits(const struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, struct vv_error *e)
{
    struct vv_index_summary s;
    vv_index_summary(ix, &s);
    if (m->writer_epoch > w->writer_epoch)
        return vv_error_set(e, VV_E_CONFLICT, "a writer with epoch %llu owns the manifest of %s-%d, ours is %llu",
                            (unsigned long long)m->writer_epoch, w->topic, (int)w->partition,
                            (unsigned long long)w->writer_epoch);
    if (m->next_offset > VV_MAX(s.remote_end, s.log_start) || m->log_start > s.log_start)
        return vv_error_set(e, VV_E_STATE,
                            "the bucket knows %s-%d up to offset %lld (log start %lld), this directory only up to %lld (log start "
                            "%lld): older local data; move the directory away and restore the partition from the bucket",
                            w->topic, (int)w->partition, (long long)m->next_offset, (long long)m->log_start,
                            (long long)s.remote_end, (long long)s.log_start);
    return VV_OK;
}

int vv_mf_ready(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, struct vv_error *e)
{
    int err = m->loaded ? VV_OK : vv_manifest_load(m, w, NULL, NULL, e);
    if (!err) err = vv_mf_settle(m, ix);
    return err ? err : check_fits(m, w, ix, e);
}

/* Is all that the bucket has beyond our proven end ours? An older data directory must not say what the log is. */
static int nothing_beyond(const struct vv_manifest_where *w, struct vv_index *ix, struct vv_error *e)
{
    struct vv_index_summary s;
    struct vv_objlist l = {0};
    char prefix[VV_KEY_MAX], after[VV_KEY_MAX + 24];
    vv_index_summary(ix, &s);
    vv_key_part_prefix(w->topic_id, w->partition, prefix);
    snprintf(after, sizeof after, "%s%020" PRId64, prefix, VV_MAX(s.remote_end, (int64_t)0));
    int err = vv_objstore_list(w->store, prefix, after, 0, DEADLINE_MS, &l, e);
    for (size_t i = 0; i < l.count && !err; i++) {
        struct vv_segkey k;
        struct vv_extent x;
        if (vv_segkey_parse(l.v[i].key, &k)) continue;
        int found = vv_index_next(ix, k.base, &x);
        if (!found) vv_extent_release(ix, &x);
        if (found || x.base != k.base || x.nonce != k.nonce)
            err = vv_error_set(e, VV_E_STATE, "the manifest of %s-%d is damaged, and %s is in the bucket, of which this directory knows nothing: "
                               "bring an older version of its head.json back", w->topic, (int)w->partition, l.v[i].key);
    }
    vv_objlist_release(&l);
    return err;
}

/* A head that cannot be read is written anew from the index, which knows all that the pages do. What it does not know (merged and
 * replaced objects in their grace, garbage) is part of no log and is collected as such (gc.c). Only for who asked the root just now. */
static int begin_anew(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, struct vv_error *e)
{
    struct vv_extent x;
    int64_t start = vv_index_log_start(ix), at = 0;
    int err = vv_manifest_load(m, w, NULL, NULL, e); /* the wire may have done it */
    if (err != VV_E_CORRUPT || !m->damaged) return err;
    struct vv_error why = *e;
    err = nothing_beyond(w, ix, e);
    if (err) return err;
    VLOG_ERROR("%s-%d: %s; writing it anew from the index", w->topic, (int)w->partition, why.text);
    while (!(err = vv_index_next(ix, at, &x))) {
        vv_extent_release(ix, &x);
        if (x.state != VV_EXTENT_DELETING) break;
        at = x.last + 1;
    }
    if (err && err != VV_E_NOENT) return err;
    m->deleting_below = VV_MIN(err ? start : x.base, start);
    m->loaded = true;
    return VV_OK;
}

static bool unchanged(const struct vv_manifest *before, const struct vv_manifest *m)
{
    if (!m->exists) return !m->next_offset && !m->log_start;
    if (m->damaged || m->taking) return false;
    return before->next_offset == m->next_offset && before->log_start == m->log_start &&
           before->deleting_below == m->deleting_below && before->garbage_listed == m->garbage_count && !m->garbage_count && before->writer_epoch == m->writer_epoch;
}

int vv_manifest_commit(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, int64_t deleting_below,
                       struct vv_error *e)
{
    struct vv_mf_list l = {0};
    struct vv_index_summary s;
    bool reviving = m->reviving;
    int64_t to = m->revive_to;
    int err = vv_mf_ready(m, w, ix, e);
    if (err == VV_E_CORRUPT && m->damaged) err = begin_anew(m, w, ix, e);
    if (err) goto out;
    vv_index_summary(ix, &s);
    struct vv_manifest before = *m; /* for numbers only */
    m->log_start = reviving ? to : s.log_start;
    m->deleting_below = VV_MAX(m->deleting_below, deleting_below);
    VV_ASSERT(m->deleting_below <= m->log_start); /* nothing a client may read is ever given up */
    err = vv_mf_collect(m, ix, &l);
    if (!err) err = fold(m, w, &l, e);
    if (!err) err = discard(m, w, e);
    if (err) goto out;
    m->next_offset = VV_MAX(m->next_offset, VV_MAX(m->folded_end, l.n ? l.v[l.n - 1].last + 1 : 0));
    if (!unchanged(&before, m)) err = vv_mf_put_head(m, w, &l, e);
out:
    if (err) m->loaded = false;
    free(l.v);
    return err;
}

void vv_manifest_sweep(struct vv_manifest *m, const struct vv_manifest_where *w)
{
    if (!m->loaded || !m->garbage_count) return;
    int *results = calloc(m->garbage_count, sizeof *results);
    if (!results) return;
    struct vv_error e;
    if (!vv_objstore_delete_many(w->store, (const char *const *)m->garbage, m->garbage_count, DEADLINE_MS, results, &e))
        garbage_clear(m); /* the next head no longer lists them */
    else
        VLOG_WARN("%s-%d: deleting old manifest pages: %s", w->topic, (int)w->partition, e.text);
    free(results);
}
