/* xml.c — S3's XML over expat. Contract: xml.h.
 *
 * A document type declaration ends the parse: S3 sends none, and without one there are no entities
 * to explode. The parser keeps one path and one text buffer of fixed size; nothing grows with the
 * document. */
#include "xml.h"
#include "varve/error.h"

#include <ctype.h>
#include <expat.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct parse {
    XML_Parser parser;
    vv_xml_fn *fn;
    void *ctx;
    int err;
    char path[VV_XML_PATH_MAX];
    size_t path_n, marks[VV_XML_DEPTH_MAX]; /* where each open element's name begins */
    int depth;
    char text[VV_XML_TEXT_MAX];
    size_t text_n;
};

static void stop(struct parse *p, int err)
{
    if (!p->err) p->err = err;
    XML_StopParser(p->parser, XML_FALSE);
}

static void on_start(void *ctx, const char *name, const char **attributes)
{
    struct parse *p = ctx;
    (void)attributes;
    const char *colon = strrchr(name, ':');
    if (colon) name = colon + 1;
    size_t n = strlen(name);
    if (p->depth == VV_XML_DEPTH_MAX || p->path_n + n + 2 > sizeof p->path) {
        stop(p, VV_E_PROTO);
        return;
    }
    p->marks[p->depth++] = p->path_n;
    if (p->path_n) p->path[p->path_n++] = '/';
    memcpy(p->path + p->path_n, name, n + 1);
    p->path_n += n;
    p->text_n = 0;
}

static void on_end(void *ctx, const char *name)
{
    struct parse *p = ctx;
    (void)name;
    if (p->err) return;
    p->text[p->text_n] = 0;
    int err = p->fn(p->ctx, p->path, p->text);
    if (err) {
        stop(p, err);
        return;
    }
    p->path_n = p->marks[--p->depth];
    p->path[p->path_n] = 0;
    p->text_n = 0;
}

static void on_text(void *ctx, const char *text, int n)
{
    struct parse *p = ctx;
    if (n < 0 || p->text_n + (size_t)n >= sizeof p->text) {
        stop(p, VV_E_PROTO);
        return;
    }
    memcpy(p->text + p->text_n, text, (size_t)n);
    p->text_n += (size_t)n;
}

static void on_doctype(void *ctx, const char *name, const char *system, const char *public,
                       int internal)
{
    (void)name, (void)system, (void)public, (void)internal;
    stop(ctx, VV_E_PROTO);
}

int vv_xml_parse(const void *bytes, size_t n, vv_xml_fn *fn, void *ctx)
{
    const char *at = bytes;
    while (n && isspace((unsigned char)*at))
        at++, n--;
    if (n == 0 || n > INT_MAX) return VV_E_PROTO;
    struct parse p = {.fn = fn, .ctx = ctx, .parser = XML_ParserCreate("UTF-8")};
    if (!p.parser) return VV_E_NOMEM;
    XML_SetUserData(p.parser, &p);
    XML_SetElementHandler(p.parser, on_start, on_end);
    XML_SetCharacterDataHandler(p.parser, on_text);
    XML_SetStartDoctypeDeclHandler(p.parser, on_doctype);
    enum XML_Status status = XML_Parse(p.parser, at, (int)n, 1);
    if (status != XML_STATUS_OK && !p.err)
        p.err = XML_GetErrorCode(p.parser) == XML_ERROR_NO_MEMORY ? VV_E_NOMEM : VV_E_PROTO;
    XML_ParserFree(p.parser);
    return p.err;
}

int64_t vv_xml_time_ms(const char *text)
{
    struct tm tm = {0};
    int ms = 0, n = 0;
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
               &tm.tm_min, &tm.tm_sec, &n) != 6)
        return 0;
    if (tm.tm_year < 1970 || tm.tm_year > 9999 || tm.tm_mon < 1 || tm.tm_mon > 12) return 0;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    if (text[n] == '.')
        for (int i = 1, unit = 100; isdigit((unsigned char)text[n + i]) && unit; i++, unit /= 10)
            ms += (text[n + i] - '0') * unit;
    return (int64_t)timegm(&tm) * 1000 + ms;
}

size_t vv_xml_escape(char *dst, size_t cap, const char *src)
{
    size_t n = 0;
    for (const unsigned char *p = (const unsigned char *)src; *p; p++) {
        char plain[2] = {(char)*p, 0};
        const char *out = *p == '&' ? "&amp;" : *p == '<' ? "&lt;" : *p == '>' ? "&gt;" : plain;
        size_t out_n = strlen(out);
        if (*p < 0x20 || *p > 0x7e || n + out_n >= cap) return SIZE_MAX;
        memcpy(dst + n, out, out_n);
        n += out_n;
    }
    if (n >= cap) return SIZE_MAX;
    dst[n] = 0;
    return n;
}
