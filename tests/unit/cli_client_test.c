/* The CLI's client: Kafka's partitioner, and peers that misbehave. */
#include "client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

/* murmur2 values published in Kafka's own tests: (hash & 0x7fffffff) % partitions. */
static void partitioner(void **state)
{
    (void)state;
    assert_int_equal(vv_client_partition_of("21", 2, 100000), (-973932308 & 0x7fffffff) % 100000);
    assert_int_equal(vv_client_partition_of("foobar", 6, 100000),
                     (-790332482 & 0x7fffffff) % 100000);
    assert_int_equal(vv_client_partition_of("abc", 3, 100000), 479470107 % 100000);
    const char *long_key = "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8";
    assert_int_equal(vv_client_partition_of(long_key, strlen(long_key), 100000),
                     (-58897971 & 0x7fffffff) % 100000);
}

struct peer { /* accepts one connection, reads one request, answers with bytes, closes */
    int fd, port;
    const uint8_t *answer;
    size_t n;
    pthread_t thread;
};

static void *serve(void *arg)
{
    struct peer *p = arg;
    uint8_t request[512];
    int fd = accept(p->fd, NULL, NULL);
    if (read(fd, request, sizeof request) > 0 && p->n) (void)!write(fd, p->answer, p->n);
    close(fd);
    return NULL;
}

/* What vv_client_open says about a peer that answers its first request (correlation id 1) like
 * this. */
static int against(const uint8_t *answer, size_t n, struct vv_error *e)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    struct peer p = {.answer = answer, .n = n};
    struct vv_client *c;
    char address[32];
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p.fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(p.fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(p.fd, 1), 0);
    getsockname(p.fd, (struct sockaddr *)&at, &len);
    snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(at.sin_port));
    assert_int_equal(pthread_create(&p.thread, NULL, serve, &p), 0);
    int rc = vv_client_open(address, "test", &c, e);
    if (!rc) vv_client_close(c);
    pthread_join(p.thread, NULL);
    close(p.fd);
    return rc;
}

static void bad_peers(void **state)
{
    (void)state;
    struct vv_error e = {0};
    static const uint8_t huge[] = {0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1};
    static const uint8_t negative[] = {0xff, 0xff, 0xff, 0xff};
    static const uint8_t cut[] = {0, 0, 0, 100, 0, 0, 0, 1, 0, 0};
    static const uint8_t other_id[] = {0, 0, 0, 10, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0};
    static const uint8_t many[] = {0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff};
    static const uint8_t http[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    static const uint8_t fine[] = {0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3};
    assert_int_equal(against(NULL, 0, &e), VV_E_IO);
    assert_int_equal(against(huge, sizeof huge, &e), VV_E_PROTO);
    assert_int_equal(against(negative, sizeof negative, &e), VV_E_PROTO);
    assert_int_equal(against(cut, sizeof cut, &e), VV_E_IO);
    assert_int_equal(against(other_id, sizeof other_id, &e), VV_E_PROTO);
    assert_int_equal(against(many, sizeof many, &e), VV_E_PROTO);
    assert_int_not_equal(against(http, sizeof http - 1, &e), 0);
    assert_non_null(strstr(e.text, "does not answer like a Kafka broker"));
    assert_int_equal(against(fine, sizeof fine, &e), 0);
}

static void bad_addresses(void **state)
{
    (void)state;
    struct vv_error e = {0};
    struct vv_client *c;
    assert_int_equal(vv_client_open(":0", "test", &c, &e), VV_E_USAGE);
    assert_int_equal(vv_client_open("host:99999", "test", &c, &e), VV_E_USAGE);
    assert_int_equal(vv_client_open("127.0.0.1:1", "test", &c, &e), VV_E_IO);
    assert_non_null(strstr(e.text, "is it running?"));
    assert_null(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(partitioner), cmocka_unit_test(bad_peers),
                                       cmocka_unit_test(bad_addresses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
