/* manifest_scan.c — a manifest page read in one pass: long histories are tens of thousands of them, a JSON tree each would be most of a
 * restore's time.
 *
 * Knows what we write: no escapes in names and texts that matter, integers, unknown names skipped. Whatever else a page may be, the
 * caller reads it again with the JSON library, which says what is wrong with it. The page's hash was checked before. Pure. */
#include "manifest_impl.h"
#include "keys.h"

#include <stdlib.h>
#include <string.h>

struct scan { const char *p, *end; bool bad; };

static char look(struct scan *s) /* the next character that is no space; 0 at the end */
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')) s->p++;
    return s->p < s->end ? *s->p : 0;
}

static bool take(struct scan *s, char c)
{
    bool there = look(s) == c && c;
    if (there) s->p++;
    return there;
}

static void need(struct scan *s, char c)
{
    if (!take(s, c)) s->bad = true;
}

static const char *text(struct scan *s, size_t *n) /* without escapes */
{
    need(s, '"');
    const char *from = s->p;
    while (s->p < s->end && *s->p != '"' && *s->p != '\\') s->p++;
    *n = (size_t)(s->p - from);
    need(s, '"');
    return from;
}

static int64_t integer(struct scan *s)
{
    bool minus = take(s, '-');
    uint64_t v = 0;
    const char *from = s->p;
    look(s);
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9' && v < UINT64_MAX / 20; s->p++) v = v * 10 + (uint64_t)(*s->p - '0');
    if (s->p == from || v > INT64_MAX || (s->p < s->end && strchr("0123456789.eE", *s->p))) s->bad = true;
    return minus ? -(int64_t)v : (int64_t)v;
}

/* Any value, unread. Depth is bounded. */
static void skip(struct scan *s, int depth)
{
    size_t n;
    char c = look(s);
    if (depth > 16 || !c) s->bad = true;
    if (s->bad) return;
    if (c == '"') {
        text(s, &n);
    } else if (c == '{' || c == '[') {
        char close = c == '{' ? '}' : ']';
        s->p++;
        if (take(s, close)) return;
        do {
            if (close == '}') text(s, &n), need(s, ':');
            skip(s, depth + 1);
        } while (!s->bad && take(s, ','));
        need(s, close);
    } else {
        while (s->p < s->end && !strchr(",]} \n\t\r", *s->p)) s->p++;
    }
}

static bool is(const char *name, size_t n, const char *want)
{
    return n == strlen(want) && !memcmp(name, want, n);
}

struct entry { /* a segment or a reference: both are read, one is meant */
    struct vv_extent x;
    struct vv_pageref r;
    unsigned seen;
};

static void hex_nonce(struct scan *s, struct entry *e)
{
    size_t n;
    char buf[17] = "", *end;
    const char *t = text(s, &n);
    if (n != 16) s->bad = true;
    if (s->bad) return;
    memcpy(buf, t, 16);
    e->x.nonce = strtoull(buf, &end, 16);
    if (*end) s->bad = true;
}

static void sha(struct scan *s, struct entry *e)
{
    size_t n;
    const char *t = text(s, &n);
    if (n != 64) s->bad = true;
    if (s->bad) return;
    memcpy(e->r.sha256, t, 64);
    e->r.sha256[64] = 0;
    if (strspn(e->r.sha256, "0123456789abcdef") != 64) s->bad = true;
}

#define SEGMENT_FIELDS 0x3ffu
#define REF_FIELDS (1u << 0 | 1u << 1 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 11)

static void field(struct scan *s, struct entry *e, const char *name, size_t n)
{
    unsigned bit = 32;
    if (is(name, n, "base")) bit = 0, e->x.base = integer(s);
    else if (is(name, n, "last")) bit = 1, e->x.last = integer(s);
    else if (is(name, n, "epoch")) bit = 2, e->x.epoch = (int32_t)integer(s);
    else if (is(name, n, "generation")) bit = 3, e->x.generation = (uint32_t)integer(s);
    else if (is(name, n, "nonce")) bit = 4, hex_nonce(s, e);
    else if (is(name, n, "bytes")) bit = 5, e->x.bytes = (uint64_t)integer(s);
    else if (is(name, n, "object_bytes")) bit = 6, e->x.object_bytes = (uint64_t)integer(s);
    else if (is(name, n, "first_ts")) bit = 7, e->x.first_ts = integer(s);
    else if (is(name, n, "max_ts")) bit = 8, e->x.max_ts = integer(s);
    else if (is(name, n, "sealed_ms")) bit = 9, e->x.sealed_ms = integer(s);
    else if (is(name, n, "stored_bytes")) bit = 12, e->x.stored_bytes = (uint64_t)integer(s);
    else if (is(name, n, "segments")) bit = 10, e->r.segments = (uint64_t)integer(s);
    else if (is(name, n, "sha256")) bit = 11, sha(s, e);
    else skip(s, 0);
    if (bit < 32 && e->seen & 1u << bit) s->bad = true; /* twice */
    if (bit < 32) e->seen |= 1u << bit;
}

static void object(struct scan *s, struct entry *e)
{
    *e = (struct entry){.x.state = VV_EXTENT_REMOTE};
    need(s, '{');
    do {
        size_t n;
        const char *name = text(s, &n);
        need(s, ':');
        if (!s->bad) field(s, e, name, n);
    } while (!s->bad && take(s, ','));
    need(s, '}');
}

static int entries(struct scan *s, int level, struct vv_mf_list *segments, struct vv_manifest_level *refs)
{
    struct entry e;
    int err = VV_OK;
    need(s, '[');
    if (take(s, ']')) return VV_OK;
    do {
        object(s, &e);
        unsigned want = level == 1 ? SEGMENT_FIELDS : REF_FIELDS;
        if (s->bad || (e.seen & want) != want || e.x.last < e.x.base || (level == 1 && e.x.base < 0)) return VV_E_CORRUPT;
        e.r.base = e.x.base;
        e.r.last = e.x.last;
        e.r.bytes = e.x.bytes;
        e.r.max_ts = e.x.max_ts;
        err = level == 1 ? vv_mf_list_push(segments, &e.x) : vv_mf_level_push(refs, &e.r);
    } while (!err && take(s, ','));
    need(s, ']');
    return err;
}

int vv_mf_scan(const struct vv_manifest_where *w, int level, const char *p, size_t n, struct vv_mf_list *segments,
               struct vv_manifest_level *refs)
{
    struct scan s = {p, p + n, false};
    char id[23];
    bool format = false, topic = false, partition = false, listed = false;
    vv_uuid_text(w->topic_id, id);
    need(&s, '{');
    do {
        size_t name_n, value_n;
        const char *name = text(&s, &name_n), *value;
        need(&s, ':');
        if (s.bad) return VV_E_CORRUPT;
        if (is(name, name_n, "format")) {
            format = integer(&s) == VV_BUCKET_FORMAT;
        } else if (is(name, name_n, "topic_id")) {
            value = text(&s, &value_n);
            topic = is(value, value_n, id);
        } else if (is(name, name_n, "partition")) {
            partition = integer(&s) == w->partition;
        } else if (is(name, name_n, "entries") && !listed) {
            int err = entries(&s, level, segments, refs);
            if (err) return err;
            listed = true;
        } else {
            skip(&s, 0);
        }
    } while (!s.bad && take(&s, ','));
    need(&s, '}');
    if (look(&s)) s.bad = true;
    return !s.bad && format && topic && partition && listed ? VV_OK : VV_E_CORRUPT;
}
