/* client.c — connections, frames, versions, and the few calls everybody needs.
 *
 * A connection is opened on first use of a node and dropped on any I/O error; calls are not
 * retried here (except where a comment says so): the caller knows what is safe to repeat. Bytes
 * are read into a buffer that grows with what has arrived, never by the length a peer declares. */
#include "client.h"

#include "varve/bytes.h"
#include "varve/env.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME_MAX (256u << 20)
#define APIS_MAX  128

struct conn {
    int32_t node;
    char host[256];
    int port;
    int fd; /* -1 = closed */
    bool versions_known;
    int16_t min[APIS_MAX], max[APIS_MAX];
};
struct vv_client {
    char client_id[64];
    char bootstrap[512];
    int timeout_ms;
    int32_t correlation;
    struct conn **conns; /* [0] is the bootstrap connection */
    size_t count;
};

/* The highest version this client speaks where that is less than the codec's: later ones use
 * topic ids or batch what is single here. */
static const struct {
    int16_t key, max;
} caps[] = {{0, 11}, {1, 12}, {8, 8}, {9, 7}, {10, 3}, {3, 12}, {11, 9}, {19, 7}, {20, 5}};

/* ---- sockets ---- */

static int wait_for(int fd, short events, int64_t deadline_ms)
{
    for (;;) {
        int64_t left = deadline_ms - vv_mono_ms(&vv_env_posix);
        if (left <= 0) return VV_E_TIMEOUT;
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, (int)VV_MIN(left, 1000));
        if (n > 0) return 0;
        if (n < 0 && errno != EINTR) return VV_E_IO;
    }
}

static int connect_one(const struct addrinfo *ai, int64_t deadline_ms)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err = 0, one = 1;
    socklen_t n = sizeof err;
    if (fd < 0) return -1;
    if (connect(fd, ai->ai_addr, ai->ai_addrlen) && errno != EINPROGRESS)
        err = errno;
    else if (wait_for(fd, POLLOUT, deadline_ms))
        err = ETIMEDOUT;
    else
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n);
    if (err) {
        close(fd);
        errno = err;
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static int open_socket(struct vv_client *c, struct conn *k, struct vv_error *e)
{
    struct addrinfo *list = NULL, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    int64_t deadline = vv_mono_ms(&vv_env_posix) + VV_MIN(c->timeout_ms, 10000);
    char port[16];
    snprintf(port, sizeof port, "%d", k->port);
    int gai = getaddrinfo(k->host, port, &hints, &list);
    if (gai)
        return vv_error_set(e, VV_E_IO, "cannot find the broker %s: %s", k->host,
                            gai_strerror(gai));
    for (const struct addrinfo *ai = list; ai && k->fd < 0; ai = ai->ai_next)
        k->fd = connect_one(ai, deadline);
    int err = errno;
    freeaddrinfo(list);
    if (k->fd < 0)
        return vv_error_set(e, VV_E_IO, "cannot connect to the broker %s:%d: %s; is it running?",
                            k->host, k->port, strerror(err));
    return 0;
}

static void hang_up(struct conn *k)
{
    if (k->fd >= 0) close(k->fd);
    k->fd = -1;
    k->versions_known = false;
}

static int send_all(struct conn *k, const struct vv_chain *chain, int64_t deadline_ms)
{
    for (size_t i = 0; i < chain->count; i++) {
        const uint8_t *p = chain->v[i].p;
        size_t left = chain->v[i].n;
        while (left) {
            ssize_t n = send(k->fd, p, left, MSG_NOSIGNAL);
            if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
                int rc = wait_for(k->fd, POLLOUT, deadline_ms);
                if (rc) return rc;
            } else if (n < 0 && errno != EINTR) {
                return VV_E_IO;
            } else if (n > 0) {
                p += n;
                left -= (size_t)n;
            }
        }
    }
    return 0;
}

static int read_some(struct conn *k, uint8_t *to, size_t n, int64_t deadline_ms)
{
    while (n) {
        ssize_t got = recv(k->fd, to, n, 0);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            int rc = wait_for(k->fd, POLLIN, deadline_ms);
            if (rc) return rc;
        } else if (got == 0 || (got < 0 && errno != EINTR)) {
            return VV_E_IO;
        } else if (got > 0) {
            to += got;
            n -= (size_t)got;
        }
    }
    return 0;
}

/* One frame, malloc'ed; the buffer doubles as bytes arrive. */
static int read_frame(struct conn *k, uint8_t **frame, size_t *n, int64_t deadline_ms)
{
    uint8_t size[4];
    uint8_t *p = NULL;
    size_t have = 0;
    int rc = read_some(k, size, 4, deadline_ms);
    if (rc) return rc;
    size_t want = vv_get32(size);
    if (want > FRAME_MAX || want < 4) return VV_E_PROTO;
    while (have < want && !rc) {
        size_t step = VV_MIN(want - have, VV_MAX(have, (size_t)65536));
        uint8_t *grown = realloc(p, have + step);
        if (!grown) {
            rc = VV_E_NOMEM;
            break;
        }
        p = grown;
        rc = read_some(k, p + have, step, deadline_ms);
        have += step;
    }
    if (rc) {
        free(p);
        return rc;
    }
    *frame = p;
    *n = want;
    return 0;
}

/* ---- one exchange ---- */

void vv_reply_release(struct vv_reply *r)
{
    vv_arena_release(&r->arena);
    free(r->frame);
    r->frame = NULL;
    r->msg = NULL;
}

static int decode(const struct vv_api *api, int16_t version, int32_t correlation, size_t n,
                  struct vv_reply *out)
{
    int32_t got;
    size_t used = 0, body = 0;
    int rc = vv_response_header_decode(api->key, version, out->frame, n, &got, &used);
    if (rc) return rc;
    if (got != correlation) return VV_E_PROTO;
    vv_arena_init(&out->arena, FRAME_MAX);
    out->version = version;
    out->msg = vv_arena_alloc(&out->arena, api->response->root->size);
    if (!out->msg) return VV_E_NOMEM;
    rc = vv_msg_decode(api->response, version, out->frame + used, n - used, &out->arena, out->msg,
                       &body);
    if (rc) vv_arena_release(&out->arena);
    return rc;
}

static int exchange(struct vv_client *c, struct conn *k, const struct vv_api *api, int16_t version,
                    const void *request, struct vv_reply *out)
{
    struct vv_out o;
    struct vv_chain chain = {0};
    uint8_t size[4];
    size_t n = 0;
    int32_t correlation = ++c->correlation;
    int64_t deadline = vv_mono_ms(&vv_env_posix) + c->timeout_ms;
    *out = (struct vv_reply){0};
    vv_out_init(&o);
    uint8_t *head = vv_out_reserve(&o, 4);
    const struct vv_request_header header = {.key = api->key,
                                             .version = version,
                                             .correlation_id = correlation,
                                             .client_id = vv_str_c(c->client_id),
                                             .api = api};
    int rc = head ? vv_request_header_encode(&header, &o) : VV_E_NOMEM;
    if (!rc) rc = vv_msg_encode(api->request, version, request, &o);
    if (rc) {
        vv_out_release(&o);
        return rc;
    }
    vv_put32(size, (uint32_t)(vv_out_size(&o) - 4));
    memcpy(head, size, 4);
    rc = vv_out_finish(&o, &chain);
    if (!rc) rc = send_all(k, &chain, deadline);
    vv_chain_release(&chain);
    if (!rc) rc = read_frame(k, &out->frame, &n, deadline);
    if (!rc) rc = decode(api, version, correlation, n, out);
    if (rc) {
        free(out->frame);
        out->frame = NULL;
    }
    return rc;
}

static int learn_versions(struct vv_client *c, struct conn *k, struct vv_error *e)
{
    struct ApiVersionsRequest rq;
    struct vv_reply r;
    VV_MSG_INIT(ApiVersionsRequest, &rq);
    int rc = exchange(c, k, vv_api_by_key(18), 0, &rq, &r); /* version 0 is answered by everybody */
    if (rc) {
        hang_up(k);
        return vv_error_set(e, rc, "%s:%d does not answer like a Kafka broker: %s", k->host,
                            k->port, vv_err_name(rc));
    }
    const struct ApiVersionsResponse *rs = r.msg;
    for (int i = 0; i < APIS_MAX; i++)
        k->min[i] = k->max[i] = -1;
    for (int32_t i = 0; i < rs->ApiKeys.n; i++) {
        int16_t key = rs->ApiKeys.v[i].ApiKey;
        if (key >= 0 && key < APIS_MAX) {
            k->min[key] = rs->ApiKeys.v[i].MinVersion;
            k->max[key] = rs->ApiKeys.v[i].MaxVersion;
        }
    }
    k->versions_known = true;
    vv_reply_release(&r);
    return 0;
}

static struct conn *conn_of(struct vv_client *c, int32_t node)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->conns[i]->node == node) return c->conns[i];
    return NULL;
}

static struct conn *add_conn(struct vv_client *c, int32_t node)
{
    struct conn **v = realloc(c->conns, (c->count + 1) * sizeof *v);
    if (v) c->conns = v;
    struct conn *k = v ? calloc(1, sizeof *k) : NULL;
    if (!k) return NULL;
    k->node = node;
    k->fd = -1;
    c->conns[c->count++] = k;
    return k;
}

static int ensure(struct vv_client *c, struct conn *k, struct vv_error *e)
{
    int rc = k->fd < 0 ? open_socket(c, k, e) : 0;
    if (!rc && !k->versions_known) rc = learn_versions(c, k, e);
    return rc;
}

static int16_t common_version(const struct conn *k, const struct vv_api *api)
{
    int16_t max = api->max, min = api->min;
    for (size_t i = 0; i < VV_COUNT(caps); i++)
        if (caps[i].key == api->key) max = VV_MIN(max, caps[i].max);
    if (api->key < 0 || api->key >= APIS_MAX || k->max[api->key] < 0) return -1;
    max = VV_MIN(max, k->max[api->key]);
    min = VV_MAX(min, k->min[api->key]);
    return max >= min ? max : -1;
}

int16_t vv_client_version(struct vv_client *c, int32_t node, int16_t key)
{
    struct conn *k = conn_of(c, node);
    const struct vv_api *api = vv_api_by_key(key);
    return k && api && !ensure(c, k, NULL) ? common_version(k, api) : -1;
}

int vv_client_call(struct vv_client *c, int32_t node, int16_t key, const void *request,
                   struct vv_reply *out, struct vv_error *e)
{
    const struct vv_api *api = vv_api_by_key(key);
    struct conn *k = conn_of(c, node);
    if (!k) return vv_error_set(e, VV_E_STATE, "no address for broker %d", node);
    int rc = ensure(c, k, e);
    if (rc) return rc;
    int16_t version = api ? common_version(k, api) : -1;
    if (version < 0)
        return vv_error_set(e, VV_E_UNSUPPORTED, "the broker %s:%d does not serve %s", k->host,
                            k->port, api ? api->name : "this request");
    rc = exchange(c, k, api, version, request, out);
    if (rc) {
        hang_up(k);
        return vv_error_set(e, rc, "%s to %s:%d: %s", api->name, k->host, k->port, vv_err_name(rc));
    }
    return 0;
}

/* ---- life ---- */

static int parse_address(const char *text, struct conn *k, struct vv_error *e)
{
    size_t n = strcspn(text, ",");
    const char *colon = memrchr(text, ':', n);
    size_t host_n = colon ? (size_t)(colon - text) : n;
    const char *host = text;
    if (host_n >= 2 && host[0] == '[' && host[host_n - 1] == ']') {
        host++;
        host_n -= 2;
    }
    k->port = colon ? atoi(colon + 1) : 9092;
    if (!host_n || host_n >= sizeof k->host || k->port <= 0 || k->port > 65535)
        return vv_error_set(e, VV_E_USAGE, "%.*s is not HOST:PORT", (int)n, text);
    memcpy(k->host, host, host_n);
    k->host[host_n] = 0;
    return 0;
}

int vv_client_open(const char *bootstrap, const char *client_id, struct vv_client **out,
                   struct vv_error *e)
{
    struct vv_client *c = calloc(1, sizeof *c);
    struct conn *k = c ? add_conn(c, VV_NODE_ANY) : NULL;
    int rc = k ? VV_E_USAGE : vv_error_set(e, VV_E_NOMEM, "out of memory");
    const char *at = bootstrap ? bootstrap : "127.0.0.1:9092";
    *out = NULL;
    if (k) {
        c->timeout_ms = 30000;
        snprintf(c->client_id, sizeof c->client_id, "%s", client_id);
        do { /* the first address that answers */
            at += *at == ',';
            rc = parse_address(at, k, e);
            if (!rc) rc = ensure(c, k, e);
            at += strcspn(at, ",");
        } while (rc && *at);
    }
    if (rc)
        vv_client_close(c);
    else
        *out = c;
    return rc;
}

void vv_client_close(struct vv_client *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->count; i++) {
        hang_up(c->conns[i]);
        free(c->conns[i]);
    }
    free(c->conns);
    free(c);
}

int vv_client_dial(struct vv_client *c, int32_t node, int *fd, struct vv_error *e)
{
    const struct conn *known = conn_of(c, node);
    if (!known) return vv_error_set(e, VV_E_STATE, "no address for broker %d", node);
    struct conn k = *known;
    k.fd = -1;
    int rc = open_socket(c, &k, e);
    *fd = k.fd;
    return rc;
}

void vv_client_set_timeout(struct vv_client *c, int timeout_ms)
{
    c->timeout_ms = timeout_ms;
}

/* ---- conveniences ---- */

static void learn_brokers(struct vv_client *c, const struct MetadataResponse *rs)
{
    for (int32_t i = 0; i < rs->Brokers.n; i++) {
        const struct MetadataResponse_MetadataResponseBroker *b = &rs->Brokers.v[i];
        struct conn *k = conn_of(c, b->NodeId);
        if (!k) k = add_conn(c, b->NodeId);
        if (!k || b->Host.n <= 0 || (size_t)b->Host.n >= sizeof k->host) continue;
        if (k->port != b->Port || !vv_str_is(b->Host, k->host)) {
            hang_up(k);
            memcpy(k->host, b->Host.p, (size_t)b->Host.n);
            k->host[b->Host.n] = 0;
            k->port = b->Port;
        }
    }
}

int vv_client_metadata(struct vv_client *c, const char *const *topics, size_t n,
                       struct vv_reply *out, struct vv_error *e)
{
    struct MetadataRequest rq;
    struct MetadataRequest_MetadataRequestTopic *t = calloc(n + 1, sizeof *t);
    if (!t) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    VV_MSG_INIT(MetadataRequest, &rq);
    for (size_t i = 0; i < n; i++) {
        VV_STRUCT_INIT(MetadataRequest_MetadataRequestTopic, &t[i]);
        t[i].Name = vv_str_c(topics[i]);
    }
    rq.Topics.v = t;
    rq.Topics.n = n ? (int32_t)n : -1;
    rq.AllowAutoTopicCreation = false;
    int rc = vv_client_call(c, VV_NODE_ANY, 3, &rq, out, e);
    free(t);
    if (!rc) learn_brokers(c, out->msg);
    return rc;
}

int vv_client_coordinator(struct vv_client *c, const char *group, int32_t *node, struct vv_error *e)
{
    int64_t deadline = vv_mono_ms(&vv_env_posix) + c->timeout_ms;
    for (;;) {
        struct FindCoordinatorRequest rq;
        struct vv_reply r;
        VV_MSG_INIT(FindCoordinatorRequest, &rq);
        rq.Key = vv_str_c(group);
        int rc = vv_client_call(c, VV_NODE_ANY, 10, &rq, &r, e);
        if (rc) return rc;
        const struct FindCoordinatorResponse *rs = r.msg;
        int err = rs->ErrorCode;
        *node = rs->NodeId;
        vv_reply_release(&r);
        if (!err && !conn_of(c, *node) && !(rc = vv_client_metadata(c, NULL, 0, &r, e)))
            vv_reply_release(&r);
        if (!err) return rc;
        if ((err != VV_COORDINATOR_NOT_AVAILABLE && err != VV_COORDINATOR_LOAD_IN_PROGRESS) ||
            vv_mono_ms(&vv_env_posix) > deadline)
            return vv_error_set(e, err, "no coordinator for group %s: %s", group, vv_err_name(err));
        poll(NULL, 0, 100);
    }
}

static int by_partition(const void *a, const void *b)
{
    int32_t x = ((const struct vv_part_ref *)a)->partition,
            y = ((const struct vv_part_ref *)b)->partition;
    return (x > y) - (x < y);
}

int vv_client_partitions(struct vv_client *c, const char *topic, struct vv_part_ref **out,
                         size_t *n, struct vv_error *e)
{
    struct vv_reply r;
    int rc = vv_client_metadata(c, &topic, 1, &r, e);
    *out = NULL;
    *n = 0;
    if (rc) return rc;
    const struct MetadataResponse *rs = r.msg;
    if (rs->Topics.n < 1 || rs->Topics.v[0].ErrorCode) {
        int err = rs->Topics.n < 1 ? VV_UNKNOWN_TOPIC_OR_PARTITION : rs->Topics.v[0].ErrorCode;
        rc = vv_error_set(e, err, "topic %s: %s", topic, vv_err_name(err));
    } else {
        size_t count = (size_t)VV_MAX(rs->Topics.v[0].Partitions.n, 0);
        *out = calloc(count + 1, sizeof **out);
        rc = *out ? 0 : vv_error_set(e, VV_E_NOMEM, "out of memory");
        for (size_t i = 0; *out && i < count; i++)
            (*out)[(*n)++] =
                (struct vv_part_ref){.topic = topic,
                                     .partition = rs->Topics.v[0].Partitions.v[i].PartitionIndex,
                                     .leader = rs->Topics.v[0].Partitions.v[i].LeaderId};
    }
    vv_reply_release(&r);
    if (*n) qsort(*out, *n, sizeof **out, by_partition);
    return rc;
}

static void take_offsets(const struct ListOffsetsResponse *rs, struct vv_part_ref *rows, size_t n)
{
    for (int32_t t = 0; t < rs->Topics.n; t++)
        for (int32_t i = 0; i < rs->Topics.v[t].Partitions.n; i++) {
            const struct ListOffsetsResponse_ListOffsetsPartitionResponse *p =
                &rs->Topics.v[t].Partitions.v[i];
            for (size_t k = 0; k < n; k++)
                if (rows[k].partition == p->PartitionIndex &&
                    vv_str_is(rs->Topics.v[t].Name, rows[k].topic)) {
                    rows[k].offset = p->Offset;
                    rows[k].timestamp = p->Timestamp;
                    rows[k].err = p->ErrorCode;
                    rows[k].leader = -2 - rows[k].leader; /* done */
                }
        }
}

/* One request: all rows of the first row's leader and topic that are not done and ask no
 * partition twice. */
static int offsets_once(struct vv_client *c, struct vv_part_ref *rows, size_t n, struct vv_error *e)
{
    struct ListOffsetsRequest rq;
    struct ListOffsetsRequest_ListOffsetsTopic t;
    struct ListOffsetsRequest_ListOffsetsPartition *p = calloc(n, sizeof *p);
    struct vv_reply r;
    int32_t leader = rows[0].leader, count = 0;
    if (!p) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    VV_MSG_INIT(ListOffsetsRequest, &rq);
    VV_STRUCT_INIT(ListOffsetsRequest_ListOffsetsTopic, &t);
    for (size_t i = 0; i < n; i++) {
        if (rows[i].leader != leader || strcmp(rows[i].topic, rows[0].topic)) continue;
        VV_STRUCT_INIT(ListOffsetsRequest_ListOffsetsPartition, &p[count]);
        p[count].PartitionIndex = rows[i].partition;
        p[count].CurrentLeaderEpoch = -1;
        p[count++].Timestamp = rows[i].timestamp;
    }
    t.Name = vv_str_c(rows[0].topic);
    t.Partitions.v = p;
    t.Partitions.n = count;
    rq.ReplicaId = -1;
    rq.Topics.v = &t;
    rq.Topics.n = 1;
    int rc = vv_client_call(c, leader, 2, &rq, &r, e);
    free(p);
    if (rc) return rc;
    take_offsets(r.msg, rows, n);
    vv_reply_release(&r);
    if (rows[0].leader == leader)
        return vv_error_set(e, VV_E_PROTO, "ListOffsets left out %s-%d", rows[0].topic,
                            rows[0].partition);
    return 0;
}

int vv_client_offsets(struct vv_client *c, struct vv_part_ref *rows, size_t n, struct vv_error *e)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        if (rows[i].leader >= 0)
            rc = offsets_once(c, rows + i, n - i, e);
        else if (rows[i].leader == -1)
            rows[i].err = VV_LEADER_NOT_AVAILABLE;
    for (size_t i = 0; i < n; i++)
        if (rows[i].leader <= -2) rows[i].leader = -2 - rows[i].leader;
    return rc;
}

/* Murmur2 over the key, as Kafka's clients spread keyed records. */
int32_t vv_client_partition_of(const void *key, size_t n, int32_t partitions)
{
    const uint32_t m = 0x5bd1e995;
    const uint8_t *p = key;
    uint32_t h = 0x9747b28c ^ (uint32_t)n;
    for (; n >= 4; n -= 4, p += 4) {
        uint32_t k =
            (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        k *= m;
        k = (k ^ k >> 24) * m;
        h = h * m ^ k;
    }
    if (n > 2) h ^= (uint32_t)p[2] << 16;
    if (n > 1) h ^= (uint32_t)p[1] << 8;
    if (n) {
        h ^= p[0];
        h *= m;
    }
    h = (h ^ h >> 13) * m;
    h ^= h >> 15;
    return (int32_t)(h & 0x7fffffff) % partitions;
}
