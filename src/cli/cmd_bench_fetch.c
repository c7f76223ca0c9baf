/* cmd_bench_fetch.c — `varve bench fetch`: catch-up from the first offset to where the partitions end now.
 *
 * Work is cut into spans (a partition, or a slice of one when there are more connections than partitions); every
 * connection has its spans and one Fetch under way for all of them. Of the answer only batch headers are looked at:
 * that offsets ascend, and how many are missing between batches (none, unless the topic was compacted). One thread. */
#include "bench.h"

#include "varve/bytes.h"
#include "varve/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct span {
    const struct vv_part_ref *part;
    int64_t from, next, to; /* offsets */
    size_t lane;
};
struct fetch_lane {
    struct vv_chain frame;
    struct FetchRequest_FetchPartition *asked;
    struct span *spans; /* by partition, then offset */
    size_t count, cursor;
};
struct fetch {
    struct vv_bench b;
    struct span *spans;
    size_t span_count, open;
    struct fetch_lane *lanes;
    int64_t max_bytes, partition_bytes;
    uint64_t payload, records, missing;
    int barren; /* answers in a row that brought nothing */
};
#define BARREN_MAX 200

/* ---- asking ---- */

static const struct vv_chain *next(void *ctx, struct vv_lane *l)
{
    struct fetch *f = ctx;
    struct fetch_lane *own = &f->lanes[l->index];
    struct FetchRequest q;
    struct FetchRequest_FetchTopic t;
    int32_t n = 0;
    for (size_t i = 0; i < own->count; i++) {
        const struct span *s = &own->spans[i];
        if (s->next >= s->to) continue;
        if (n && own->asked[n - 1].Partition == s->part->partition) continue; /* its next slice: later */
        VV_STRUCT_INIT(FetchRequest_FetchPartition, &own->asked[n]);
        own->asked[n].Partition = s->part->partition;
        own->asked[n].FetchOffset = s->next;
        own->asked[n].PartitionMaxBytes = (int32_t)f->partition_bytes;
        n++;
    }
    if (!n) return NULL;
    VV_MSG_INIT(FetchRequest, &q);
    VV_STRUCT_INIT(FetchRequest_FetchTopic, &t);
    t.Topic = vv_str_c(f->b.topic);
    t.Partitions.v = own->asked;
    t.Partitions.n = n;
    q.ReplicaId = -1;
    q.MaxWaitMs = 500;
    q.MinBytes = 1;
    q.MaxBytes = (int32_t)f->max_bytes;
    q.SessionEpoch = -1;
    q.Topics.v = &t;
    q.Topics.n = 1;
    vv_chain_release(&own->frame);
    return vv_replay_encode(1, f->b.version, &q, &own->frame) ? NULL : &own->frame;
}

/* ---- looking ---- */

/* Answers come in the order of the question: the search goes on where the last one ended. */
static struct span *span_of(struct fetch_lane *own, int32_t partition)
{
    for (size_t i = 0; i < own->count; i++) {
        struct span *s = &own->spans[own->cursor++ % own->count];
        if (s->part->partition == partition && s->next < s->to) return s;
    }
    return NULL;
}

/* Steps over whole batches by their headers; the last one may be cut off. */
static int walk(struct fetch *f, struct span *s, const uint8_t *p, size_t n, struct vv_error *e)
{
    while (n >= VV_BATCH_HEADER && s->next < s->to) {
        int32_t length = (int32_t)vv_get32(p + 8);
        size_t whole = (size_t)VV_MAX(length, 0) + VV_BATCH_OVERHEAD;
        int64_t base = (int64_t)vv_get64(p), last = base + (int32_t)vv_get32(p + 23);
        if (length < VV_BATCH_HEADER - VV_BATCH_OVERHEAD || last < s->next || base < 0)
            return vv_error_set(e, VV_E_PROTO, "%s-%d: at offset %" PRId64 " came a batch of %" PRId64 " to %" PRId64,
                                f->b.topic,
                                s->part->partition, s->next, base, last);
        if (whole > n) break;
        if (last < s->to) { /* who reads a slice does not count the batch that the next slice begins with */
            f->payload += whole;
            f->records += vv_get32(p + 57);
        }
        f->missing += (uint64_t)VV_MAX(base - s->next, 0);
        s->next = last + 1;
        p += whole;
        n -= whole;
    }
    return 0;
}

static int take(struct fetch *f, struct vv_lane *l, const struct FetchResponse *r, struct vv_error *e)
{
    if (r->ErrorCode) return vv_error_set(e, r->ErrorCode, "Fetch: %s", vv_err_name(r->ErrorCode));
    for (int32_t t = 0; t < r->Responses.n; t++)
        for (int32_t i = 0; i < r->Responses.v[t].Partitions.n; i++) {
            const struct FetchResponse_PartitionData *d = &r->Responses.v[t].Partitions.v[i];
            struct span *s = span_of(&f->lanes[l->index], d->PartitionIndex);
            if (d->ErrorCode)
                return vv_error_set(e, d->ErrorCode, "%s-%d: %s", f->b.topic, d->PartitionIndex,
                                    vv_err_name(d->ErrorCode));
            int rc = s && d->Records.n > 0 ? walk(f, s, d->Records.p, (size_t)d->Records.n, e) : 0;
            if (rc) return rc;
            if (s && s->next >= s->to) f->open--;
        }
    return 0;
}

static int answer(void *ctx, struct vv_lane *l, const uint8_t *p, size_t n, struct vv_error *e)
{
    struct fetch *f = ctx;
    struct vv_arena arena;
    void *msg;
    vv_arena_init(&arena, 0);
    uint64_t before = f->payload;
    int rc = vv_replay_decode(1, f->b.version, p, n, &arena, &msg);
    rc = rc ? vv_error_set(e, rc, "a Fetch response that makes no sense: %s", vv_err_name(rc)) : take(f, l, msg, e);
    vv_arena_release(&arena);
    f->barren = f->payload > before ? 0 : f->barren + 1;
    if (!rc && f->open && f->barren > BARREN_MAX * (int)f->b.connections)
        rc = vv_error_set(e, VV_E_TIMEOUT, "%d answers in a row brought nothing, and %zu parts are not at their end",
                          f->barren, f->open);
    return rc;
}

static bool finished(void *ctx)
{
    return !((const struct fetch *)ctx)->open;
}

static void progress(void *ctx, int64_t now_us)
{
    const struct fetch *f = ctx;
    vv_bench_tell(&f->b, f->payload, now_us);
}

static const struct vv_replay_ops ops = {.next = next, .answer = answer, .finished = finished, .progress = progress};

/* ---- cutting ---- */

static int offsets(struct fetch *f, int64_t at, int64_t *out, struct vv_error *e)
{
    struct vv_bench *b = &f->b;
    for (size_t i = 0; i < b->part_count; i++)
        b->parts[i].timestamp = at;
    int rc = vv_client_offsets(b->client, b->parts, b->part_count, e);
    for (size_t i = 0; i < b->part_count && !rc; i++) {
        if (b->parts[i].err) rc = vv_error_set(e, b->parts[i].err, "%s-%zu: %s", b->topic, i,
                                               vv_err_name(b->parts[i].err));
        out[i] = b->parts[i].offset;
    }
    return rc;
}

static int by_lane(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->lane != y->lane) return x->lane < y->lane ? -1 : 1;
    if (x->part != y->part) return x->part < y->part ? -1 : 1;
    return (x->from > y->from) - (x->from < y->from);
}

static int plan(struct fetch *f, struct vv_error *e)
{
    struct vv_bench *b = &f->b;
    size_t lanes = (size_t)b->connections, slices = VV_MAX(1, lanes / b->part_count), turn = 0;
    int64_t *from = calloc(b->part_count * 2, sizeof *from), *to = from ? from + b->part_count : NULL;
    f->spans = calloc(b->part_count * slices, sizeof *f->spans);
    f->lanes = calloc(lanes, sizeof *f->lanes);
    int rc = from && f->spans && f->lanes ? 0 : vv_error_set(e, VV_E_NOMEM, "out of memory");
    if (!rc) rc = offsets(f, -2, from, e);
    if (!rc) rc = offsets(f, -1, to, e);
    for (size_t i = 0; i < lanes && !rc; i++) {
        f->lanes[i].asked = calloc(b->part_count, sizeof *f->lanes[i].asked);
        if (!f->lanes[i].asked) rc = vv_error_set(e, VV_E_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < b->part_count * slices && !rc; i++) {
        size_t p = i % b->part_count, k = i / b->part_count;
        int64_t all = to[p] - from[p], begin = from[p] + all * (int64_t)k / (int64_t)slices,
                end = from[p] + all * (int64_t)(k + 1) / (int64_t)slices;
        if (begin == end) continue;
        while (b->nodes[turn % lanes] != b->parts[p].leader) turn++;
        f->spans[f->span_count++] = (struct span){&b->parts[p], begin, begin, end, turn++ % lanes};
    }
    f->open = f->span_count;
    if (f->open) qsort(f->spans, f->span_count, sizeof *f->spans, by_lane);
    for (size_t i = 0; i < f->span_count; i++) {
        struct fetch_lane *own = &f->lanes[f->spans[i].lane];
        if (!own->count++) own->spans = &f->spans[i];
    }
    if (!rc && !f->open) rc = vv_error_set(e, VV_E_NOENT, "topic %s is empty", b->topic);
    free(from);
    return rc;
}

static const struct vv_opt opts[] = {
    VV_BENCH_OPTS,
    {"max-bytes", 0, "BYTES", "Of one response (default 8388608)."},
    {"partition-bytes", 0, "BYTES", "Of one partition in a response (default 8388608)."},
    {0},
};

static int run(const struct vv_args *a)
{
    struct fetch f = {0};
    struct vv_error e = {0};
    if (!vv_arg_number(a, "max-bytes", 8 << 20, 1, 1 << 27, &f.max_bytes) ||
        !vv_arg_number(a, "partition-bytes", 8 << 20, 1, 1 << 27, &f.partition_bytes))
        return VV_EXIT_USAGE;
    int code = vv_bench_open(&f.b, a, "fetch", 0, 1);
    f.b.replay.inflight_max = 1; /* where the next one begins stands in the answer */
    if (!code && (plan(&f, &e) || vv_bench_run(&f.b, &ops, &f, &e))) code = vv_cli_fail(a, "%s", e.text);
    if (!code) {
        vv_report_add(f.b.report, "result", "offsets missing", "", 0, (double)f.missing);
        code = vv_bench_report(&f.b, f.payload, f.records, "loopback");
    }
    for (int64_t i = 0; f.lanes && i < f.b.connections; i++) {
        vv_chain_release(&f.lanes[i].frame);
        free(f.lanes[i].asked);
    }
    free(f.lanes);
    free(f.spans);
    vv_bench_close(&f.b);
    return code;
}

const struct vv_command vv_cmd_bench_fetch = {
    .name = "bench fetch",
    .words_max = 0,
    .summary = "Throughput of catching up from the first offset, any Kafka broker.",
    .text = "  varve bench fetch --topic load --connections 4\n"
            "Reads every partition once, to where it ends when the run begins. With more connections than partitions,\n"
            "a partition is read in slices. Only batch headers are looked at: their order, and that no offset is missing.",
    .opts = opts,
    .run = run,
};
