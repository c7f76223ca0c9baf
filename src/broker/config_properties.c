/* config_properties.c — Java's .properties, as java.util.Properties.load() reads them.
 *
 * Natural lines end at CR, LF or CRLF. A line whose first non-blank is # or ! is a comment. An
 * odd number of backslashes before the end of a line joins the next one (its leading blanks
 * dropped; comments do not continue). The key ends at the first unescaped =, : or blank; one = or
 * : and blanks around it separate. \t \n \r \f and \uXXXX are escapes, any other \c is c. Input
 * is UTF-8 (a BOM is skipped); \u surrogate pairs become one character. Pure. */
#include "config_properties.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *p, *end;
    int line;  /* natural line under p */
    char *out; /* logical line, still escaped */
    size_t n;
    int first_line; /* natural line where it began */
};

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\f';
}

/* Copies one natural line without its end; returns false at the end of the text. */
static bool natural_line(struct reader *r, const char **line, size_t *n)
{
    if (r->p >= r->end) return false;
    const char *from = r->p;
    while (r->p < r->end && *r->p != '\n' && *r->p != '\r')
        r->p++;
    *line = from;
    *n = (size_t)(r->p - from);
    if (r->p < r->end) {
        bool cr = *r->p++ == '\r';
        if (cr && r->p < r->end && *r->p == '\n') r->p++;
    }
    r->line++;
    return true;
}

/* Assembles the next logical line in r->out; false at the end. */
static bool logical_line(struct reader *r)
{
    const char *line;
    size_t n;
    bool more = false;
    r->n = 0;
    while (natural_line(r, &line, &n)) {
        while (n && blank(*line)) {
            line++;
            n--;
        }
        if (!more) {
            if (!n || *line == '#' || *line == '!') continue;
            r->first_line = r->line;
        }
        size_t slashes = 0;
        while (slashes < n && line[n - 1 - slashes] == '\\')
            slashes++;
        more = slashes & 1;
        n -= more;
        memcpy(r->out + r->n, line, n);
        r->n += n;
        if (!more) return true;
    }
    return r->n > 0 || more;
}

static int hex4(const char *p, const char *end, uint32_t *v)
{
    if (end - p < 4) return VV_E_CONFIG;
    *v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        uint32_t d;
        if (c >= '0' && c <= '9')
            d = (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            d = (uint32_t)((c | 32) - 'a') + 10;
        else
            return VV_E_CONFIG;
        *v = *v << 4 | d;
    }
    return 0;
}

static size_t put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xe0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 63));
        to[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    to[0] = (char)(0xf0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 63));
    to[2] = (char)(0x80 | (c >> 6 & 63));
    to[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* One \uXXXX (p behind the u), or a pair of them. Returns bytes consumed behind the u, 0 =
 * malformed. */
static size_t unicode(const char *p, const char *end, char *to, size_t *n)
{
    uint32_t c, low;
    if (hex4(p, end, &c) || !c) return 0;
    size_t used = 4;
    if (c >= 0xd800 && c < 0xe000) {
        if (c >= 0xdc00 || end - p < 10 || p[4] != '\\' || p[5] != 'u' || hex4(p + 6, end, &low) ||
            low < 0xdc00 || low > 0xdfff)
            return 0;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        used = 10;
    }
    *n += put_utf8(to + *n, c);
    return used;
}

/* Unescapes [p, end) in place-safe fashion into to (never longer than its source). */
static int unescape(const char *p, const char *end, char *to)
{
    size_t n = 0;
    while (p < end) {
        char c = *p++;
        if (!c) return VV_E_CONFIG;
        if (c != '\\' || p == end) {
            to[n++] = c;
            continue;
        }
        c = *p++;
        if (c == 'u') {
            size_t used = unicode(p, end, to, &n);
            if (!used) return VV_E_CONFIG;
            p += used;
            continue;
        }
        to[n++] = c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : c == 'f' ? '\f' : c;
    }
    to[n] = 0;
    return 0;
}

static char *trim(char *s)
{
    while (*s && (blank(*s) || *s == '\n' || *s == '\r'))
        s++;
    size_t n = strlen(s);
    while (n && (blank(s[n - 1]) || s[n - 1] == '\n' || s[n - 1] == '\r'))
        s[--n] = 0;
    return s;
}

/* Splits r's logical line into key and value (both of size n + 1) and hands them on. */
static int one(struct reader *r, char *key, char *value,
               int (*each)(void *ctx, int line, const char *key, const char *value), void *ctx,
               struct vv_error *e)
{
    const char *p = r->out, *end = r->out + r->n;
    while (p < end && !blank(*p) && *p != '=' && *p != ':') {
        if (*p == '\\' && p + 1 < end) p++;
        p++;
    }
    const char *key_end = p;
    while (p < end && blank(*p))
        p++;
    if (p < end && (*p == '=' || *p == ':')) p++;
    while (p < end && blank(*p))
        p++;
    if (unescape(r->out, key_end, key) || unescape(p, end, value))
        return vv_error_set(e, VV_E_CONFIG, "line %d: a malformed \\uXXXX escape or a NUL byte",
                            r->first_line);
    if (!*key)
        return vv_error_set(e, VV_E_CONFIG, "line %d: there is no key before the separator",
                            r->first_line);
    return each(ctx, r->first_line, key, trim(value));
}

int vv_properties_each(const char *text, size_t n,
                       int (*each)(void *ctx, int line, const char *key, const char *value),
                       void *ctx, struct vv_error *e)
{
    struct reader r = {.p = text, .end = text + n};
    char *mem = malloc(3 * (n + 1));
    int rc = 0;
    if (!mem) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    r.out = mem;
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) r.p += 3;
    while (!rc && logical_line(&r))
        if (r.n) rc = one(&r, mem + n + 1, mem + 2 * (n + 1), each, ctx, e);
    free(mem);
    return rc;
}
