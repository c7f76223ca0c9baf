/* child.h — a broker of our own: `varve broker` as a child process, for the demo. */
#ifndef VARVE_CLI_CHILD_H
#define VARVE_CLI_CHILD_H
#include "varve/error.h"

#include <sys/types.h>

struct vv_child {
    pid_t pid;           /* 0 = none */
    char bootstrap[256]; /* HOST:PORT */
    char metrics[256];   /* HOST:PORT or "-" */
    char log[512];       /* file with its messages */
};
/* Starts it with the given configuration ("KEY=VALUE"), waits for its ready line. Messages go to
 * the file log. It gets SIGTERM when this process dies. */
int vv_child_start(const char *const *sets, size_t n, const char *log, struct vv_child *out,
                   struct vv_error *e);
/* SIGTERM, wait; its exit code, or 128 + signal. 0 when there is none. */
int vv_child_stop(struct vv_child *c);
/* The value of a metric (exact text before the blank), summed over samples when it ends with '{'.
 * -1 = not there. */
double vv_child_metric(const struct vv_child *c, const char *name);
#endif
