/* tags.h — a section of tagged fields nobody here knows: step over it without memory. Private to src/wire. */
#ifndef VARVE_WIRE_TAGS_H
#define VARVE_WIRE_TAGS_H
#include <stddef.h>
#include <stdint.h>

/* Bytes of the whole section, 0 when malformed: truncated, or tags not in ascending order. */
size_t vv_tags_skip(const uint8_t *p, size_t n);
#endif
