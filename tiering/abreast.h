/* abreast.h — the same thing done to several, at the same time: for calls that mostly wait for a store.
 *
 * Threads are made for the occasion: one costs less than a request. May be nested; the caller's thread takes part, and does everything
 * when no thread can be made. */
#ifndef VARVE_TIERING_ABREAST_H
#define VARVE_TIERING_ABREAST_H
#include <stddef.h>

#define VV_ABREAST_MAX 16

/* one(ctx, 0..n-1), each once, at most `width` at a time (VV_ABREAST_MAX at most); returns when all have returned. */
void vv_abreast(size_t n, size_t width, void (*one)(void *ctx, size_t i), void *ctx);
#endif
