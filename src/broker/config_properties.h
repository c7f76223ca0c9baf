/* config_properties.h — the text format of server.properties: Java's .properties. */
#ifndef VARVE_BROKER_CONFIG_PROPERTIES_H
#define VARVE_BROKER_CONFIG_PROPERTIES_H
#include "varve/error.h"

#include <stddef.h>

/* Calls each() for every key in order with its line number (of the key's first line). key and
 * value are NUL-terminated, unescaped, the value without blanks around it; valid during the call.
 * each() returning non-zero stops and is returned. E_CONFIG with *e "line N: …" for a malformed
 * escape or a NUL byte; E_NOMEM. Blank keys are errors. */
int vv_properties_each(const char *text, size_t n,
                       int (*each)(void *ctx, int line, const char *key, const char *value),
                       void *ctx, struct vv_error *e);
#endif
