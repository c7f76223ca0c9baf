/* hot_path.c — canned work through the broker's hot path, to be counted by callgrind (run): how many instructions
 * one request costs, from its bytes to the bytes of its answer, without the network.
 *
 *     hot_path                     prints the compiler and the cases
 *     hot_path CASE DIRECTORY      prints "<operations>"; everything counted happens inside counted()
 *
 * Produce: header, body, vv_batch_check, vv_log_append, response. Fetch: header, body, vv_log_read (every CRC is
 * verified), response. The inputs are the same in every run: no clock, no random numbers. Calls of the kernel cost
 * nothing here; what they cost is bench/'s business. One thread. */
#include "varve/bytes.h"
#include "varve/env.h"
#include "varve/log.h"
#include "varve/wire.h"
#include "gen/messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARM = 64, PRODUCE_KEY = 0, FETCH_KEY = 1, PRODUCE_VERSION = 11, FETCH_VERSION = 12 };
#define NOW_MS     1700000000000
#define FETCH_READ (1 << 20)

struct work {
    const char *name;
    bool fetch;
    int record_bytes, records; /* per batch */
    int operations;
};
static const struct work works[] = {
    {"produce-1x1024", false, 1024, 1, 2000},
    {"produce-64x1024", false, 1024, 64, 400},
    {"produce-640x100", false, 100, 640, 400},
    {"fetch-1x1024", true, 1024, 1, 100},
    {"fetch-64x1024", true, 1024, 64, 100},
};

struct rig {
    const struct work *work;
    struct vv_index *index;
    struct vv_log *log;
    uint8_t *frame, *scratch; /* a request; a copy that the broker may change */
    size_t frame_n;
    uint64_t sum; /* of what came out, so that nothing is left out */
};

static void must(int err, const char *what)
{
    if (!err) return;
    fprintf(stderr, "hot_path: %s: %s\n", what, vv_err_name(err));
    exit(1);
}

/* ---- inputs ---- */

static void keep(struct rig *r, struct vv_out *o)
{
    struct vv_chain chain = {0};
    must(vv_out_finish(o, &chain), "finish");
    free(r->frame);
    free(r->scratch);
    r->frame_n = chain.bytes;
    r->frame = malloc(chain.bytes);
    r->scratch = malloc(chain.bytes);
    if (!r->frame || !r->scratch) must(VV_E_NOMEM, "frame");
    vv_chain_copy_out(&chain, r->frame);
    vv_chain_release(&chain);
}

static void write_header(struct vv_out *o, int16_t key, int16_t version)
{
    struct vv_request_header h = {.key = key, .version = version, .correlation_id = 7,
                                  .client_id = VV_STR_LIT("budget")};
    vv_out_init(o);
    must(vv_request_header_encode(&h, o), "header");
}

static void make_produce(struct rig *r)
{
    struct vv_batch_builder *b = vv_batch_builder_new();
    uint8_t value[4096], *p;
    size_t n;
    for (int i = 0; i < r->work->records; i++) {
        for (int k = 0; k < r->work->record_bytes; k++) value[k] = (uint8_t)(i * 31 + k * 7);
        must(vv_batch_builder_add(b, NOW_MS + i, NULL, -1, value, r->work->record_bytes), "record");
    }
    must(vv_batch_builder_finish(b, &p, &n), "batch");

    struct ProduceRequest q;
    struct ProduceRequest_TopicProduceData t;
    struct ProduceRequest_PartitionProduceData d;
    struct vv_out o;
    VV_MSG_INIT(ProduceRequest, &q);
    VV_STRUCT_INIT(ProduceRequest_TopicProduceData, &t);
    VV_STRUCT_INIT(ProduceRequest_PartitionProduceData, &d);
    d.Records = (struct vv_records){.p = p, .n = (int32_t)n};
    t.Name = VV_STR_LIT("numbers");
    t.PartitionData.v = &d;
    t.PartitionData.n = 1;
    q.TransactionalId = VV_STR_NULL;
    q.Acks = 1;
    q.TimeoutMs = 30000;
    q.TopicData.v = &t;
    q.TopicData.n = 1;
    write_header(&o, PRODUCE_KEY, PRODUCE_VERSION);
    must(vv_msg_encode(&vv_schema_ProduceRequest, PRODUCE_VERSION, &q, &o), "Produce");
    keep(r, &o);
    vv_batch_builder_free(b);
}

static void make_fetch(struct rig *r)
{
    struct FetchRequest q;
    struct FetchRequest_FetchTopic t;
    struct FetchRequest_FetchPartition d;
    struct vv_out o;
    VV_MSG_INIT(FetchRequest, &q);
    VV_STRUCT_INIT(FetchRequest_FetchTopic, &t);
    VV_STRUCT_INIT(FetchRequest_FetchPartition, &d);
    d.FetchOffset = 5;
    d.PartitionMaxBytes = FETCH_READ;
    t.Topic = VV_STR_LIT("numbers");
    t.Partitions.v = &d;
    t.Partitions.n = 1;
    q.MaxBytes = FETCH_READ;
    q.Topics.v = &t;
    q.Topics.n = 1;
    write_header(&o, FETCH_KEY, FETCH_VERSION);
    must(vv_msg_encode(&vv_schema_FetchRequest, FETCH_VERSION, &q, &o), "Fetch");
    keep(r, &o);
}

/* ---- the two ways ---- */

static const void *take(struct rig *r, struct vv_arena *a, struct vv_request_header *h)
{
    size_t used = 0;
    vv_arena_init(a, 0);
    must(vv_request_header_decode(r->scratch, r->frame_n, h), "header");
    void *msg = vv_arena_alloc(a, h->api->request->root->size);
    if (!msg) must(VV_E_LIMIT, "request");
    must(vv_msg_decode(h->api->request, h->version, r->scratch + h->size, r->frame_n - h->size, a, msg, &used), "body");
    return msg;
}

static void answer(struct rig *r, const struct vv_request_header *h, const void *msg)
{
    struct vv_out o;
    struct vv_chain chain = {0};
    vv_out_init(&o);
    must(vv_response_header_encode(h->key, h->version, h->correlation_id, &o), "response header");
    must(vv_msg_encode(h->api->response, h->version, msg, &o), "response");
    must(vv_out_finish(&o, &chain), "response");
    r->sum += chain.bytes;
    vv_chain_release(&chain);
}

static void produce(struct rig *r)
{
    static const struct vv_batch_rules rules = {.max_bytes = 1 << 20, .output_max = 1 << 28, .ts_type = VV_CREATE_TIME,
        .now_ms = NOW_MS, .before_max_ms = INT64_MAX, .after_max_ms = 3600000, .client = true};
    struct vv_request_header h;
    struct vv_arena arena;
    struct vv_error e = {0};
    const struct ProduceRequest *q = take(r, &arena, &h);
    struct vv_records records = q->TopicData.v[0].PartitionData.v[0].Records;
    uint8_t *p = (uint8_t *)(uintptr_t)records.p;
    struct vv_batch b;
    int32_t bad;
    must(vv_batch_check(p, (size_t)records.n, &rules, &b, &bad, &e), e.text);
    struct vv_append a = {.p = p, .b = &b, .now_ms = NOW_MS};
    must(vv_log_append(r->log, &a, &e), e.text);
    struct ProduceResponse out;
    VV_MSG_INIT(ProduceResponse, &out);
    must(VV_ARRAY_NEW(out.Responses, ProduceResponse_TopicProduceResponse, &arena, 1), "response");
    out.Responses.v[0].Name = q->TopicData.v[0].Name;
    must(VV_ARRAY_NEW(out.Responses.v[0].PartitionResponses, ProduceResponse_PartitionProduceResponse, &arena, 1),
         "response");
    out.Responses.v[0].PartitionResponses.v[0].BaseOffset = a.base_offset;
    answer(r, &h, &out);
    vv_arena_release(&arena);
}

static void fetch(struct rig *r)
{
    struct vv_request_header h;
    struct vv_arena arena;
    struct vv_error e = {0};
    struct vv_extent x;
    struct vv_chain bytes = {0};
    const struct FetchRequest *q = take(r, &arena, &h);
    const struct FetchRequest_FetchPartition *part = &q->Topics.v[0].Partitions.v[0];
    struct vv_read read = {.offset = part->FetchOffset, .limit = vv_log_end(r->log),
        .max_bytes = (size_t)part->PartitionMaxBytes, .min_one = true, .may_block = true};
    must(vv_index_find(r->index, read.offset, &x), "index");
    must(vv_log_read(r->log, &x, &read, &bytes, &e), e.text);
    vv_extent_release(r->index, &x);
    if (bytes.bytes < FETCH_READ / 2) must(VV_E_STATE, "too little was read");
    struct FetchResponse out;
    VV_MSG_INIT(FetchResponse, &out);
    must(VV_ARRAY_NEW(out.Responses, FetchResponse_FetchableTopicResponse, &arena, 1), "response");
    out.Responses.v[0].Topic = q->Topics.v[0].Topic;
    must(VV_ARRAY_NEW(out.Responses.v[0].Partitions, FetchResponse_PartitionData, &arena, 1), "response");
    out.Responses.v[0].Partitions.v[0].HighWatermark = read.limit;
    out.Responses.v[0].Partitions.v[0].Records = (struct vv_records){.chain = &bytes};
    answer(r, &h, &out);
    vv_chain_release(&bytes);
    vv_arena_release(&arena);
}

/* Callgrind counts what happens in here (--toggle-collect). */
__attribute__((noinline)) void counted(struct rig *r);
void counted(struct rig *r)
{
    if (r->work->fetch) fetch(r);
    else produce(r);
}

/* ---- around them ---- */

static void open_log(struct rig *r, const char *dir)
{
    struct vv_error e = {0};
    must(vv_fs_mkdirs(&vv_env_posix, dir), dir);
    must(vv_index_open(&vv_env_posix, dir, &vv_segment_refs, &r->index, &e), e.text);
    struct vv_log_opts o = {.env = &vv_env_posix, .dir = dir, .topic = "numbers", .topic_id = {{7}}, .index = r->index,
        .config = {.segment_bytes = 1 << 30, .segment_ms = INT64_MAX, .segment_index_bytes = 10 << 20,
            .index_interval_bytes = 4096, .flush_messages = INT64_MAX, .flush_ms = INT64_MAX,
                .producer_expiry_ms = 86400000},
        .now_ms = NOW_MS};
    must(vv_log_open(&o, &r->log, &e), e.text);
}

static void fill(struct rig *r)
{
    int batches = 2 * FETCH_READ / (r->work->record_bytes * r->work->records);
    make_produce(r);
    for (int i = 0; i < batches; i++) {
        memcpy(r->scratch, r->frame, r->frame_n);
        produce(r);
    }
    make_fetch(r);
}

int main(int argc, char **argv)
{
    struct rig r = {0};
    for (size_t i = 0; argc == 3 && i < VV_COUNT(works); i++)
        if (!strcmp(works[i].name, argv[1])) r.work = &works[i];
    if (!r.work) {
        printf("gcc-%d\n", __GNUC__);
        for (size_t i = 0; i < VV_COUNT(works); i++) puts(works[i].name);
        return argc == 1 ? 0 : 2;
    }
    open_log(&r, argv[2]);
    if (r.work->fetch) fill(&r);
    else make_produce(&r);
    for (int i = 0; i < WARM + r.work->operations; i++) {
        memcpy(r.scratch, r.frame, r.frame_n);
        if (i >= WARM) counted(&r);
        else if (r.work->fetch) fetch(&r);
        else produce(&r);
    }
    if (!r.sum) return 1;
    printf("%d\n", r.work->operations);
    vv_log_abandon(r.log);
    vv_index_close(r.index);
    free(r.frame);
    free(r.scratch);
    return 0;
}
