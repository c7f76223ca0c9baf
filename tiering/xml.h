/* xml.h — reads the small XML documents of S3: calls back for every element that ends, with its
 * path and text. Pure; any thread. The document is a peer's: depth, text and what expat may do are
 * limited. */
#ifndef VARVE_XML_H
#define VARVE_XML_H
#include <stddef.h>
#include <stdint.h>

enum { VV_XML_DEPTH_MAX = 12, VV_XML_PATH_MAX = 512, VV_XML_TEXT_MAX = 8192 };

/* path: names from the root, without namespaces, joined by '/', as "ListBucketResult/Contents/Key".
 * text: the element's own characters, entities resolved. A non-zero return ends the parse and is
 * returned. */
typedef int vv_xml_fn(void *ctx, const char *path, const char *text);

/* 0, E_PROTO (not well-formed, a document type, too deep or too long), E_NOMEM, or what fn
 * returned. Blanks before the document are skipped: S3 sends them to keep a connection alive. */
int vv_xml_parse(const void *p, size_t n, vv_xml_fn *fn, void *ctx);

int64_t vv_xml_time_ms(const char *text); /* 2009-10-12T17:50:30.000Z; 0 = not a time */
/* Escapes text for an element. SIZE_MAX: dst too small, or not printable ASCII (XML cannot carry
 * control characters nor bytes that are not UTF-8; callers have another way for such keys). */
size_t vv_xml_escape(char *dst, size_t cap, const char *src);
#endif
