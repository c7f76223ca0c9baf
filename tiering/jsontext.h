/* jsontext.h — JSON as text, or NULL: never a text that lacks what there was no memory for.
 *
 * jansson's setters drop a value that could not be allocated, and the object goes on without it: a manifest without a segment. So allocations
 * of jansson are watched; a thread whose last ones did not all succeed gets no text. Any thread; build and print on the same one. */
#ifndef VARVE_TIERING_JSONTEXT_H
#define VARVE_TIERING_JSONTEXT_H
#include <jansson.h>

char *vv_json_text(const json_t *o, size_t flags); /* json_dumps; NULL: out of memory, now or since this thread's last call */
#endif
