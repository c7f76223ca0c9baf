/* child.c — fork, exec of /proc/self/exe, the ready line over a pipe. */
#include "child.h"

#include "varve/env.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_MS 30000

static void become_broker(const char *const *sets, size_t n, int out, int err)
{
    const char **argv = calloc(2 * n + 3, sizeof *argv);
    size_t k = 0;
    if (!argv) _exit(127);
    argv[k++] = "varve";
    argv[k++] = "broker";
    for (size_t i = 0; i < n; i++) {
        argv[k++] = "--set";
        argv[k++] = sets[i];
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(out, 1);
    dup2(err, 2);
    execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* "varve ready: kafka=HOST:PORT[,…] metrics=HOST:PORT …" */
static int take_ready(const char *line, struct vv_child *c)
{
    const char *kafka = strstr(line, " kafka="), *metrics = strstr(line, " metrics=");
    if (strncmp(line, "varve ready:", 12) || !kafka || !metrics) return VV_E_PROTO;
    snprintf(c->bootstrap, sizeof c->bootstrap, "%.*s", (int)strcspn(kafka + 7, ", \n"), kafka + 7);
    snprintf(c->metrics, sizeof c->metrics, "%.*s", (int)strcspn(metrics + 9, " \n"), metrics + 9);
    return 0;
}

/* Reads up to the first line's end, or the deadline, or the broker's end. */
static int await_ready(int fd, struct vv_child *c)
{
    char line[2048];
    size_t n = 0;
    int64_t deadline = vv_mono_ms(&vv_env_posix) + READY_MS;
    while (n < sizeof line - 1) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - vv_mono_ms(&vv_env_posix);
        if (left <= 0) return VV_E_TIMEOUT;
        if (poll(&p, 1, (int)left) <= 0) continue;
        ssize_t got = read(fd, line + n, sizeof line - 1 - n);
        if (got <= 0) return VV_E_SHUTDOWN;
        n += (size_t)got;
        line[n] = 0;
        if (strchr(line, '\n')) return take_ready(line, c);
    }
    return VV_E_PROTO;
}

int vv_child_start(const char *const *sets, size_t n, const char *log, struct vv_child *c,
                   struct vv_error *e)
{
    int out[2];
    *c = (struct vv_child){0};
    snprintf(c->log, sizeof c->log, "%s", log);
    int err = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (err < 0 || pipe2(out, O_CLOEXEC)) {
        if (err >= 0) close(err);
        return vv_error_set(e, VV_E_IO, "cannot start a broker: %s: %s", log, strerror(errno));
    }
    c->pid = fork();
    if (c->pid == 0) become_broker(sets, n, out[1], err);
    close(out[1]);
    close(err);
    int rc = c->pid < 0 ? VV_E_IO : await_ready(out[0], c);
    close(out[0]);
    if (rc) {
        if (c->pid < 0) c->pid = 0;
        int code = vv_child_stop(c);
        return vv_error_set(
            e, rc, "the broker did not become ready (%s, exit code %d); its messages are in %s",
            vv_err_name(rc), code, log);
    }
    return 0;
}

int vv_child_stop(struct vv_child *c)
{
    int status = 0;
    if (c->pid <= 0) return 0;
    kill(c->pid, SIGTERM);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
        ;
    c->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static char *http_get(const char *where, const char *path)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    char host[256], request[256];
    const char *colon = strrchr(where, ':');
    char *text = malloc(1 << 20);
    size_t n = 0;
    if (!text || !colon) goto fail;
    snprintf(host, sizeof host, "%.*s", (int)(colon - where), where);
    to.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1) goto fail;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) goto fail;
    int len = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\n\r\n", path);
    if (!connect(fd, (struct sockaddr *)&to, sizeof to) && write(fd, request, (size_t)len) == len) {
        ssize_t got;
        while (n < (1 << 20) - 1 && (got = read(fd, text + n, (1 << 20) - 1 - n)) > 0)
            n += (size_t)got;
    }
    close(fd);
    text[n] = 0;
    return text;
fail:
    free(text);
    return NULL;
}

double vv_child_metric(const struct vv_child *c, const char *name)
{
    char *text = strcmp(c->metrics, "-") ? http_get(c->metrics, "/metrics") : NULL;
    double sum = 0;
    int found = 0;
    size_t n = strlen(name);
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, n) || (name[n - 1] != '{' && line[n] != ' ')) continue;
        char *space = strpbrk(line, " \n");
        char *close_brace = strpbrk(line, "}\n");
        char *value = close_brace && *close_brace == '}' ? close_brace + 1 : space;
        sum += value ? strtod(value, NULL) : 0;
        found = 1;
    }
    free(text);
    return found ? sum : -1;
}
