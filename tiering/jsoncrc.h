/* jsoncrc.h — the checksum of the JSON objects that have a fixed name: root, heads, list of topics (docs/bucket-format.md).
 *
 * The last member of the object: `, "crc": "xxxxxxxx"}`, CRC-32C of all bytes before that comma. A flipped bit in a digit or an id would be
 * good JSON of something else. A text without it is an older version's: whether it makes sense is for its reader to say. Pure. */
#ifndef VARVE_TIERING_JSONCRC_H
#define VARVE_TIERING_JSONCRC_H
#include <stdbool.h>
#include <stddef.h>

/* The text with its checksum, malloc'ed and NUL-terminated; NULL: out of memory. What is no object stays as it is. */
char *vv_jsoncrc_add(const char *json, size_t n, size_t *out_n);
/* False: it has a checksum, and another one. */
bool vv_jsoncrc_holds(const char *json, size_t n);
/* Takes the checksum off again, if it has one. text has room for n + 1 bytes. */
void vv_jsoncrc_strip(char *text, size_t *n);
#endif
