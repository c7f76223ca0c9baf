/* thread.h — threads whose work can wait for that of others: uploads, housekeeping, what comes from the store.
 *
 * Linux has a nice value for each thread, and nobody without privileges gets a lower one back. So a background thread is one for life,
 * and must not hold what a thread of the hot path waits for, but for a few instructions (docs/scaling.md says which locks those are). */
#ifndef VARVE_THREAD_H
#define VARVE_THREAD_H
#include <pthread.h>

/* Background threads that begin from now on are this much nicer (0…19) than the caller is. 0 until told; the process's. */
void vv_background_nice(int nice);
/* The calling thread is one, under this name (at most 15 bytes). Those that it makes are as nice. */
void vv_thread_background(const char *name);
#endif
