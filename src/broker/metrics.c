/* metrics.c — the counters, the text page, the small HTTP server.
 *
 * libmicrohttpd (with its TLS library some MiB resident) is loaded by dlopen when the server
 * starts; its functions are called through `struct library`, one member per function used.
 * Threads: counters any; everything else the library's one polling thread, except start and stop.
 */
#include "metrics.h"

#include "varve/bytes.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>

struct vv_metrics vv_metrics;

void vv_metrics_api(int key, int64_t us)
{
    if (key < 0 || key >= VV_METRIC_APIS) return;
    atomic_fetch_add_explicit(&vv_metrics.api[key].count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&vv_metrics.api[key].us, us, memory_order_relaxed);
}

/* ---- text ---- */

struct vv_metrics_out {
    FILE *to;
    const char *name; /* of the family */
};

static void number(FILE *to, double v)
{
    if (v > -1e15 && v < 1e15 && v == (double)(int64_t)v)
        fprintf(to, "%" PRId64, (int64_t)v);
    else if (isinf(v))
        fputs(v > 0 ? "+Inf" : "-Inf", to);
    else
        fprintf(to, "%.9g", v);
}

void vv_metrics_family(struct vv_metrics_out *o, const char *name, const char *type,
                       const char *help)
{
    o->name = name;
    fprintf(o->to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void label_value(FILE *to, const char *v)
{
    for (; *v; v++) {
        if (*v == '\n')
            fputs("\\n", to);
        else if (*v == '"' || *v == '\\')
            fprintf(to, "\\%c", *v);
        else
            fputc(*v, to);
    }
}

static void sample(struct vv_metrics_out *o, const char *suffix, double value, va_list ap)
{
    const char *name, *sep = "{";
    fprintf(o->to, "%s%s", o->name, suffix);
    while ((name = va_arg(ap, const char *))) {
        fprintf(o->to, "%s%s=\"", sep, name);
        label_value(o->to, va_arg(ap, const char *));
        fputc('"', o->to);
        sep = ",";
    }
    fputs(*sep == ',' ? "} " : " ", o->to);
    number(o->to, value);
    fputc('\n', o->to);
}

void vv_metrics_sample(struct vv_metrics_out *o, double value, ...)
{
    va_list ap;
    va_start(ap, value);
    sample(o, "", value, ap);
    va_end(ap);
}

__attribute__((sentinel)) static void part(struct vv_metrics_out *o, const char *suffix, double value, ...)
{
    va_list ap;
    va_start(ap, value);
    sample(o, suffix, value, ap);
    va_end(ap);
}

void vv_metrics_histogram(struct vv_metrics_out *o, const struct vv_metrics_histogram *h)
{
    vv_metrics_family(o, h->name, "histogram", h->help);
}

void vv_metrics_observed(struct vv_metrics_out *o, const struct vv_metrics_histogram *h, const char *label,
                         const uint64_t *counts, double sum)
{
    uint64_t below = 0;
    for (size_t i = 0; i <= h->bounds; i++) {
        char le[32];
        snprintf(le, sizeof le, "%g", i < h->bounds ? h->le[i] : 0);
        below += counts[i];
        part(o, "_bucket", (double)below, h->label, label, "le", i < h->bounds ? le : "+Inf", (const char *)NULL);
    }
    part(o, "_sum", sum, h->label, label, (const char *)NULL);
    part(o, "_count", (double)below, h->label, label, (const char *)NULL);
}

void vv_metrics_one(struct vv_metrics_out *o, const char *name, const char *type, const char *help,
                    double value)
{
    vv_metrics_family(o, name, type, help);
    vv_metrics_sample(o, value, (const char *)NULL);
}

static void api_samples(struct vv_metrics_out *o, const struct vv_metrics_opts *opts, bool seconds)
{
    for (int key = 0; key < VV_METRIC_APIS; key++) {
        int64_t count = atomic_load_explicit(&vv_metrics.api[key].count, memory_order_relaxed);
        int64_t us = atomic_load_explicit(&vv_metrics.api[key].us, memory_order_relaxed);
        const char *name = opts->api_name ? opts->api_name(key) : NULL;
        char text[16];
        snprintf(text, sizeof text, "%d", key);
        if (count)
            vv_metrics_sample(o, seconds ? (double)us / 1e6 : (double)count, "api",
                              name ? name : text, (const char *)NULL);
    }
}

char *vv_metrics_text(const struct vv_metrics_opts *opts, size_t *n)
{
    char *text = NULL;
    struct vv_metrics_out o = {.to = open_memstream(&text, n)};
    if (!o.to) return NULL;
    vv_metrics_family(&o, "varve_build_info", "gauge", "The version that runs.");
    vv_metrics_sample(&o, 1, "version", VARVE_VERSION, (const char *)NULL);
#define VV_X(field, name, type, scale, help)                                                       \
    vv_metrics_one(&o, name, #type, help,                                                          \
                   (double)atomic_load_explicit(&vv_metrics.field, memory_order_relaxed) / scale);
    VV_METRICS(VV_X)
#undef VV_X
    vv_metrics_family(&o, "varve_requests_total", "counter", "Requests answered, by API.");
    api_samples(&o, opts, false);
    vv_metrics_family(&o, "varve_request_seconds_total", "counter",
                      "Time from receipt to answer, long polls included, by API.");
    api_samples(&o, opts, true);
    if (opts->collect) opts->collect(opts->ctx, &o);
    if (fclose(o.to)) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- the server ---- */

#define VV_MHD(X)                                                                                  \
    X(MHD_start_daemon)                                                                            \
    X(MHD_stop_daemon) X(MHD_get_daemon_info) X(MHD_create_response_from_buffer)                   \
        X(MHD_add_response_header) X(MHD_queue_response) X(MHD_destroy_response)

struct library {
#define VV_X(f) __typeof__(&f) f;
    VV_MHD(VV_X)
#undef VV_X
};
static struct library lib;

struct vv_metrics_server {
    struct vv_metrics_opts opts;
    struct MHD_Daemon *daemon;
    int port;
};

static int load_library(struct vv_error *e)
{
    static void *handle; /* stays loaded */
    if (!handle) handle = dlopen("libmicrohttpd.so.12", RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return vv_error_set(
            e, VV_E_UNSUPPORTED,
            "metrics.listener needs libmicrohttpd (%s); install libmicrohttpd12 or set "
            "metrics.listener=off",
            dlerror());
#define VV_X(f)                                                                                    \
    *(void **)&lib.f = dlsym(handle, #f);                                                          \
    if (!lib.f) return vv_error_set(e, VV_E_UNSUPPORTED, "libmicrohttpd.so.12 has no " #f);
    VV_MHD(VV_X)
#undef VV_X
    return 0;
}

static enum MHD_Result reply(struct MHD_Connection *conn, unsigned status, const char *type,
                             char *text, size_t n, enum MHD_ResponseMemoryMode mode)
{
    struct MHD_Response *r = lib.MHD_create_response_from_buffer(n, text, mode);
    if (!r) return MHD_NO;
    lib.MHD_add_response_header(r, "Content-Type", type);
    enum MHD_Result rc = lib.MHD_queue_response(conn, status, r);
    lib.MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result reply_line(struct MHD_Connection *conn, unsigned status, const char *line)
{
    char text[256];
    int n = snprintf(text, sizeof text, "%s\n", line);
    return reply(conn, status, "text/plain; charset=utf-8", text, (size_t)VV_MIN(n, 255),
                 MHD_RESPMEM_MUST_COPY);
}

static enum MHD_Result answer(void *ctx, struct MHD_Connection *conn, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_n, void **state)
{
    struct vv_metrics_server *s = ctx;
    char why[200] = "";
    (void)version;
    (void)upload;
    (void)upload_n;
    (void)state;
    if (strcmp(method, "GET") && strcmp(method, "HEAD"))
        return reply_line(conn, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET");
    if (!strcmp(url, "/metrics")) {
        size_t n = 0;
        char *text = vv_metrics_text(&s->opts, &n);
        if (!text) return reply_line(conn, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory");
        return reply(conn, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, n,
                     MHD_RESPMEM_MUST_FREE);
    }
    if (!strcmp(url, "/healthz")) {
        bool ok = !s->opts.healthy || s->opts.healthy(s->opts.ctx, why, sizeof why);
        return reply_line(conn, ok ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, ok ? "ok" : why);
    }
    if (!strcmp(url, "/readyz")) {
        bool ok = !s->opts.ready || s->opts.ready(s->opts.ctx);
        return reply_line(conn, ok ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
                          ok ? "ready" : "not ready");
    }
    return reply_line(conn, MHD_HTTP_NOT_FOUND, "there are /metrics, /healthz and /readyz");
}

static int start_on(struct vv_metrics_server *s, const struct addrinfo *ai, struct vv_error *e)
{
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC;
    if (ai->ai_family == AF_INET6) flags |= MHD_USE_IPv6;
    errno = 0;
    s->daemon = lib.MHD_start_daemon(flags, 0, NULL, NULL, answer, s, MHD_OPTION_SOCK_ADDR,
                                     ai->ai_addr, MHD_OPTION_CONNECTION_LIMIT, 32u,
                                     MHD_OPTION_CONNECTION_TIMEOUT, 30u, MHD_OPTION_END);
    if (!s->daemon)
        return vv_error_set(
            e, errno == EADDRINUSE ? VV_E_EXIST : VV_E_IO,
            "cannot serve metrics on %s:%d: %s; set metrics.listener to another port or to "
            "off",
            s->opts.listen->host, s->opts.listen->port,
            errno ? strerror(errno) : "the library gives no reason");
    const union MHD_DaemonInfo *info =
        lib.MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    s->port = info && info->port ? info->port : s->opts.listen->port;
    return 0;
}

int vv_metrics_start(const struct vv_metrics_opts *opts, struct vv_metrics_server **out,
                     struct vv_error *e)
{
    struct addrinfo *ai = NULL,
                    hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char port[16];
    int rc = load_library(e);
    *out = NULL;
    if (rc) return rc;
    struct vv_metrics_server *s = calloc(1, sizeof *s);
    if (!s) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    s->opts = *opts;
    snprintf(port, sizeof port, "%d", opts->listen->port);
    int gai = getaddrinfo(*opts->listen->host ? opts->listen->host : NULL, port, &hints, &ai);
    if (gai)
        rc = vv_error_set(e, VV_E_CONFIG, "metrics.listener: host %s: %s", opts->listen->host,
                          gai_strerror(gai));
    else
        rc = start_on(s, ai, e);
    if (ai) freeaddrinfo(ai);
    if (rc) {
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

int vv_metrics_port(const struct vv_metrics_server *s)
{
    return s->port;
}

void vv_metrics_stop(struct vv_metrics_server *s)
{
    if (!s) return;
    lib.MHD_stop_daemon(s->daemon);
    free(s);
}
