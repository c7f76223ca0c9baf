/* vlog.c — one message, one line, one write(2) to stderr, so that lines of threads never mix. varve/vlog.h. */
#include "varve/vlog.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum vv_level vlog_level = VV_INFO;

/* Line breaks and control bytes of arguments become '?', so that a name cannot forge a line. */
static void neutralize(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f) p[i] = '?';
}

void vlog(enum vv_level level, const char *fmt, ...)
{
    static const char *const names[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};
    if (level < vlog_level) return;
    struct timespec now;
    struct tm tm;
    char line[2048];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03dZ %s ", (int)(now.tv_nsec / 1000000), names[level]);
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    va_end(ap);
    size_t end = more < 0 ? n : n + (size_t)more;
    if (end > sizeof line - 2) end = sizeof line - 2;
    neutralize(line + n, end - n);
    line[end++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, end);
    (void)ignored;
}

void vv_assert_fail(const char *cond, const char *file, int line)
{
    vlog(VV_ERROR, "internal error: %s at %s:%d; please report this", cond, file, line);
    abort();
}
