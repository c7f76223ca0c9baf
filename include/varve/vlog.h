/* vlog.h — the broker's own messages, to stderr, one line each: `2026-01-02T03:04:05.678Z WARN  what …`.
 * Any thread. Control characters in arguments are escaped, so that no client can forge a line.
 * Log once, where the error is handled. Never log a secret or a record's bytes. */
#ifndef VARVE_VLOG_H
#define VARVE_VLOG_H
enum vv_level { VV_DEBUG, VV_INFO, VV_WARN, VV_ERROR };
extern enum vv_level vlog_level; /* messages below are dropped; default VV_INFO */
void vlog(enum vv_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define VLOG_DEBUG(...) do { if (vlog_level <= VV_DEBUG) vlog(VV_DEBUG, __VA_ARGS__); } while (0)
#define VLOG_INFO(...) vlog(VV_INFO, __VA_ARGS__)
#define VLOG_WARN(...) vlog(VV_WARN, __VA_ARGS__)
#define VLOG_ERROR(...) vlog(VV_ERROR, __VA_ARGS__)

/* An assertion that stays on in release builds: for our own bugs, never for a peer's bytes. */
void vv_assert_fail(const char *cond, const char *file, int line) __attribute__((noreturn));
#define VV_ASSERT(c) do { if (__builtin_expect(!(c), 0)) vv_assert_fail(#c, __FILE__, __LINE__); } while (0)
#endif
