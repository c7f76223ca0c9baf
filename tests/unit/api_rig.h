/* api_rig.h — for tests of the API layer: a whole broker in a child process, and a client that speaks every version.
 * The child is forked before this process has threads; it listens on a free port and tells it on its stdout. */
#ifndef VARVE_TEST_API_RIG_H
#define VARVE_TEST_API_RIG_H
#include "broker.h"
#include "call.h"
#include "varve/vlog.h"
#include "gen/messages.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define RIG static __attribute__((unused))

struct rig {
    char dir[64];
    pid_t pid;
    int port;
};

struct peer { /* one connection; the last response lives in its arena */
    int fd;
    int32_t correlation;
    struct vv_arena arena;
    uint8_t *frame;
};

static struct rig rig;

RIG void rig_child(int out)
{
    char data[96];
    snprintf(data, sizeof data, "data.dir=%s", rig.dir);
    const char *sets[] = {data, "listeners=PLAINTEXT://127.0.0.1:0", "metrics.listener=off", "num.partitions=3",
                          "max.incremental.fetch.session.cache.slots=32", "fetch.near.rtt.us=1000000000"};
    struct vv_broker_config config;
    struct vv_error e = {0};
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* a test that dies takes its broker along */
    dup2(out, STDOUT_FILENO);
    vlog_level = VV_ERROR;
    if (vv_config_load(&vv_env_posix, NULL, 0, sets, VV_COUNT(sets), &config, &e)) {
        fprintf(stderr, "%s\n", e.text);
        _exit(2);
    }
    int code = vv_broker_main(&vv_env_posix, &config, &vv_api_net_handler);
    vv_config_release(&config);
    _exit(code);
}

RIG int rig_start(void **state)
{
    (void)state;
    int pipes[2];
    char line[512] = "";
    strcpy(rig.dir, "/tmp/varve-api-XXXXXX");
    if (!mkdtemp(rig.dir) || pipe(pipes)) return -1;
    rig.pid = fork();
    if (!rig.pid) rig_child(pipes[1]);
    close(pipes[1]);
    for (size_t n = 0; n + 1 < sizeof line && !strchr(line, '\n');) {
        ssize_t got = read(pipes[0], line + n, sizeof line - 1 - n);
        if (got <= 0) return -1;
        n += (size_t)got;
        line[n] = 0;
    }
    const char *at = strstr(line, "kafka=127.0.0.1:");
    rig.port = at ? atoi(at + strlen("kafka=127.0.0.1:")) : 0;
    return rig.port > 0 ? 0 : -1; /* the pipe stays open: the child may print more */
}

RIG int rig_stop(void **state)
{
    (void)state;
    int status = -1;
    char command[96];
    kill(rig.pid, SIGTERM);
    waitpid(rig.pid, &status, 0);
    snprintf(command, sizeof command, "rm -rf %s", rig.dir);
    return system(command) || !WIFEXITED(status) || WEXITSTATUS(status) ? -1 : 0;
}

RIG struct peer *peer_new(void)
{
    struct peer *p = calloc(1, sizeof *p);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)rig.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 60};
    p->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_return_code(connect(p->fd, (struct sockaddr *)&to, sizeof to), 0);
    setsockopt(p->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    vv_arena_init(&p->arena, 0);
    return p;
}

RIG void peer_free(struct peer *p)
{
    close(p->fd);
    vv_arena_release(&p->arena);
    free(p->frame);
    free(p);
}

RIG void peer_write(struct peer *p, const void *bytes, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t sent = write(p->fd, (const char *)bytes + at, n - at);
        assert_true(sent > 0);
        at += (size_t)sent;
    }
}

/* extra: bytes after the body, to be refused. */
RIG void peer_send_extra(struct peer *p, int16_t key, int16_t version, const void *request, size_t extra)
{
    const struct vv_api *api = vv_api_by_key(key);
    struct vv_out out;
    struct vv_chain body = {0};
    vv_out_init(&out);
    struct vv_request_header h = {
        .key = key, .version = version, .correlation_id = ++p->correlation, .client_id = VV_STR_LIT("test")};
    assert_int_equal(vv_request_header_encode(&h, &out), 0);
    if (request) assert_int_equal(vv_msg_encode(api->request, version, request, &out), 0);
    if (extra) memset(vv_out_reserve(&out, extra), 0, extra);
    assert_int_equal(vv_out_finish(&out, &body), 0);
    uint8_t *frame = malloc(4 + body.bytes);
    vv_put32(frame, (uint32_t)body.bytes);
    vv_chain_copy_out(&body, frame + 4);
    peer_write(p, frame, 4 + body.bytes);
    free(frame);
    vv_chain_release(&body);
}

RIG void peer_send(struct peer *p, int16_t key, int16_t version, const void *request)
{
    peer_send_extra(p, key, version, request, 0);
}

RIG bool peer_read(struct peer *p, void *to, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = read(p->fd, (char *)to + at, n - at);
        if (got <= 0) return false;
        at += (size_t)got;
    }
    return true;
}

RIG bool peer_closed(struct peer *p)
{
    char c;
    return read(p->fd, &c, 1) == 0;
}

/* The next response, of this key and version. */
RIG void *peer_receive(struct peer *p, int16_t key, int16_t version)
{
    const struct vv_api *api = vv_api_by_key(key);
    uint8_t length[4];
    assert_true(peer_read(p, length, 4));
    size_t n = vv_get32(length), head = 0, used = 0;
    free(p->frame);
    p->frame = malloc(n + 1);
    assert_true(peer_read(p, p->frame, n));
    vv_arena_reset(&p->arena);
    void *response = vv_arena_alloc(&p->arena, api->response->root->size);
    int32_t correlation = -1;
    assert_int_equal(vv_response_header_decode(key, version, p->frame, n, &correlation, &head), 0);
    assert_int_equal(correlation, p->correlation);
    assert_int_equal(vv_msg_decode(api->response, version, p->frame + head, n - head, &p->arena, response, &used), 0);
    assert_int_equal(used, n - head);
    return response;
}

RIG void *peer_call(struct peer *p, int16_t key, int16_t version, const void *request)
{
    peer_send(p, key, version, request);
    return peer_receive(p, key, version);
}

/* ---- the usual requests ---- */
enum { PRODUCE = 0, FETCH = 1, LIST_OFFSETS = 2, METADATA = 3, API_VERSIONS = 18, DELETE_TOPICS = 20, EPOCHS = 23 };

/* Makes the topic when it is not there (3 partitions). */
RIG struct vv_uuid topic(struct peer *p, const char *name)
{
    struct MetadataRequest q;
    struct MetadataRequest_MetadataRequestTopic t;
    VV_MSG_INIT(MetadataRequest, &q);
    VV_STRUCT_INIT(MetadataRequest_MetadataRequestTopic, &t);
    t.Name = vv_str_c(name);
    q.Topics.v = &t;
    q.Topics.n = 1;
    const struct MetadataResponse *r = peer_call(p, METADATA, 12, &q);
    assert_int_equal(r->Topics.n, 1);
    assert_int_equal(r->Topics.v[0].ErrorCode, 0);
    assert_int_equal(r->Topics.v[0].Partitions.n, 3);
    return r->Topics.v[0].TopicId;
}

struct one_produce {
    struct ProduceRequest q;
    struct ProduceRequest_TopicProduceData t;
    struct ProduceRequest_PartitionProduceData d;
};

RIG void produce_init(struct one_produce *o, const char *name, int32_t partition, struct vv_records records)
{
    VV_MSG_INIT(ProduceRequest, &o->q);
    VV_STRUCT_INIT(ProduceRequest_TopicProduceData, &o->t);
    VV_STRUCT_INIT(ProduceRequest_PartitionProduceData, &o->d);
    o->q.Acks = -1;
    o->q.TimeoutMs = 10000;
    o->q.TopicData.v = &o->t;
    o->q.TopicData.n = 1;
    o->t.Name = vv_str_c(name);
    o->t.PartitionData.v = &o->d;
    o->t.PartitionData.n = 1;
    o->d.Index = partition;
    o->d.Records = records;
}

/* One batch of n records of value_n bytes; record i has timestamp ts + i. The builder owns the bytes. */
RIG struct vv_records batch(struct vv_batch_builder *b, int n, int64_t ts, int32_t value_n)
{
    uint8_t *p = NULL, value[4096] = {0};
    size_t bytes = 0;
    for (int i = 0; i < n; i++) assert_int_equal(vv_batch_builder_add(b, ts + i, "key", 3, value, value_n), 0);
    assert_int_equal(vv_batch_builder_finish(b, &p, &bytes), 0);
    return (struct vv_records){p, (int32_t)bytes, NULL};
}

RIG int64_t produce(struct peer *p, const char *name, int32_t partition, int n, int64_t ts, int32_t value_n)
{
    struct vv_batch_builder *b = vv_batch_builder_new();
    struct one_produce o;
    produce_init(&o, name, partition, batch(b, n, ts, value_n));
    const struct ProduceResponse *r = peer_call(p, PRODUCE, 9, &o.q);
    vv_batch_builder_free(b);
    assert_int_equal(r->Responses.v[0].PartitionResponses.v[0].ErrorCode, 0);
    return r->Responses.v[0].PartitionResponses.v[0].BaseOffset;
}

struct one_fetch {
    struct FetchRequest q;
    struct FetchRequest_FetchTopic t;
    struct FetchRequest_FetchPartition d[3];
};

/* The first n partitions of a topic, from offset 0, without waiting. */
RIG void fetch_init(struct one_fetch *o, const char *name, struct vv_uuid id, int32_t n)
{
    VV_MSG_INIT(FetchRequest, &o->q);
    VV_STRUCT_INIT(FetchRequest_FetchTopic, &o->t);
    o->q.MinBytes = 1;
    o->q.Topics.v = &o->t;
    o->q.Topics.n = 1;
    o->t.Topic = vv_str_c(name);
    o->t.TopicId = id;
    o->t.Partitions.v = o->d;
    o->t.Partitions.n = n;
    for (int32_t i = 0; i < n; i++) {
        VV_STRUCT_INIT(FetchRequest_FetchPartition, &o->d[i]);
        o->d[i].Partition = i;
        o->d[i].PartitionMaxBytes = 1 << 20;
    }
}

RIG const struct FetchResponse_PartitionData *only(const struct FetchResponse *r)
{
    assert_int_equal(r->ErrorCode, 0);
    assert_int_equal(r->Responses.n, 1);
    assert_int_equal(r->Responses.v[0].Partitions.n, 1);
    return &r->Responses.v[0].Partitions.v[0];
}
#endif
