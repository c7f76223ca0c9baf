/* The metrics page: counters, families, labels; and the server over a real socket. */
#include "metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static void collect(void *ctx, struct vv_metrics_out *o)
{
    (void)ctx;
    vv_metrics_family(o, "varve_partition_bytes", "gauge", "Bytes.");
    vv_metrics_sample(o, 5, "topic", "a\"b\\c\nd", "place", "local", NULL);
    vv_metrics_one(o, "varve_ratio", "gauge", "A ratio.", 0.25);
    static const double le[] = {0.005, 1};
    const struct vv_metrics_histogram h = {"varve_wait_seconds", "Waits.", "op", le, 2};
    vv_metrics_histogram(o, &h);
    vv_metrics_observed(o, &h, "get", (uint64_t[]){3, 0, 2}, 7.5);
}

static bool is_ready;
static bool ready(void *ctx)
{
    (void)ctx;
    return is_ready;
}

static bool sick(void *ctx, char *why, size_t n)
{
    (void)ctx;
    snprintf(why, n, "the disk is gone");
    return false;
}

static const char *name_of(int key)
{
    return key == 1 ? "Fetch" : NULL;
}

static void page(void **state)
{
    (void)state;
    size_t n;
    vv_count(produce_bytes, 1000);
    vv_count(flush_us, 1500000);
    vv_metrics_api(1, 2500000);
    vv_metrics_api(77, 1);
    vv_metrics_api(-5, 1);
    vv_metrics_api(4000, 1);
    char *text =
        vv_metrics_text(&(struct vv_metrics_opts){.api_name = name_of, .collect = collect}, &n);
    assert_non_null(
        strstr(text, "# TYPE varve_produce_bytes_total counter\nvarve_produce_bytes_total 1000\n"));
    assert_non_null(strstr(text, "varve_flush_seconds_total 1.5\n"));
    assert_non_null(strstr(text, "varve_requests_total{api=\"Fetch\"} 1\n"));
    assert_non_null(strstr(text, "varve_requests_total{api=\"77\"} 1\n"));
    assert_non_null(strstr(text, "varve_request_seconds_total{api=\"Fetch\"} 2.5\n"));
    assert_non_null(
        strstr(text, "varve_partition_bytes{topic=\"a\\\"b\\\\c\\nd\",place=\"local\"} 5\n"));
    assert_non_null(strstr(text, "varve_ratio 0.25\n"));
    assert_non_null(strstr(text, "# TYPE varve_wait_seconds histogram\n"
                                 "varve_wait_seconds_bucket{op=\"get\",le=\"0.005\"} 3\n"
                                 "varve_wait_seconds_bucket{op=\"get\",le=\"1\"} 3\n"
                                 "varve_wait_seconds_bucket{op=\"get\",le=\"+Inf\"} 5\n"
                                 "varve_wait_seconds_sum{op=\"get\"} 7.5\n"
                                 "varve_wait_seconds_count{op=\"get\"} 5\n"));
    assert_int_equal(strlen(text), n);
    free(text);
}

/* One HTTP/1.0 exchange; the whole answer. */
static const char *get(int port, const char *request)
{
    static char answer[65536];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    size_t at = 0;
    ssize_t n;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    while ((n = read(fd, answer + at, sizeof answer - 1 - at)) > 0)
        at += (size_t)n;
    answer[at] = 0;
    close(fd);
    return answer;
}

static void server(void **state)
{
    (void)state;
    struct vv_endpoint at = {.host = "127.0.0.1", .port = 0};
    struct vv_metrics_opts opts = {.listen = &at, .ready = ready, .collect = collect};
    struct vv_metrics_server *s, *other;
    struct vv_error e = {0};
    if (vv_metrics_start(&opts, &s, &e)) fail_msg("%s", e.text);
    int port = vv_metrics_port(s);
    assert_true(port > 0);
    assert_non_null(strstr(get(port, "GET /metrics HTTP/1.0\r\n\r\n"), "varve_ratio 0.25"));
    assert_non_null(strstr(get(port, "GET /healthz HTTP/1.0\r\n\r\n"), "200 OK"));
    assert_non_null(strstr(get(port, "GET /readyz HTTP/1.0\r\n\r\n"), "503"));
    is_ready = true;
    assert_non_null(strstr(get(port, "GET /readyz HTTP/1.0\r\n\r\n"), "200 OK"));
    assert_non_null(strstr(get(port, "GET /x HTTP/1.0\r\n\r\n"), "404"));
    assert_non_null(strstr(get(port, "DELETE /metrics HTTP/1.0\r\n\r\n"), "405"));
    struct vv_endpoint taken = {.host = "127.0.0.1", .port = port};
    opts.listen = &taken;
    assert_int_not_equal(vv_metrics_start(&opts, &other, &e), 0);
    assert_non_null(strstr(e.text, "metrics.listener"));
    vv_metrics_stop(s);
    opts.listen = &at;
    opts.healthy = sick;
    assert_int_equal(vv_metrics_start(&opts, &s, &e), 0);
    assert_non_null(
        strstr(get(vv_metrics_port(s), "GET /healthz HTTP/1.0\r\n\r\n"), "the disk is gone"));
    vv_metrics_stop(s);
    vv_metrics_stop(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(page), cmocka_unit_test(server)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
