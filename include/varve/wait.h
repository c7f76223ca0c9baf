/* wait.h — timed waits of threads: conditions that count the kernel's monotonic time, whatever the wall clock does.
 *
 * For waits that only threads make. What a simulation must decide goes by vv_mono_us of the environment (env.h). */
#ifndef VARVE_WAIT_H
#define VARVE_WAIT_H
#include <pthread.h>
#include <stdint.h>
#include <time.h>

void vv_cond_init(pthread_cond_t *c);        /* its timed waits end at a vv_deadline_us */
struct timespec vv_deadline_us(int64_t us);  /* so many microseconds from now; 0 or less: now */
#endif
