/* model.c — what was appended, and what of it comes back after a death. See world.h. */
#include "world.h"

/* ---- the model ---- */

static void batch_free(struct sim_batch *b)
{
    free(b->p);
    *b = (struct sim_batch){0};
}

void part_free_model(struct sim_part *p)
{
    while (p->n) batch_free(&p->v[--p->n]);
    batch_free(&p->maybe);
    free(p->v);
}

static void model_add(struct sim_part *p, const struct sim_batch *b)
{
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 64;
        p->v = realloc(p->v, p->cap * sizeof *p->v);
        if (!p->v) sim_fail("out of memory");
    }
    p->v[p->n++] = *b;
    p->end = b->last + 1;
}

/* First batch whose last >= offset. */
size_t part_lower(struct sim_part *p, int64_t offset)
{
    size_t lo = 0, hi = p->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (p->v[mid].last < offset) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

struct sim_batch *part_batch_at(struct sim_part *p, int64_t offset)
{
    size_t i = part_lower(p, offset);
    return i < p->n ? &p->v[i] : NULL;
}

/* What survived tells each producer where it goes on. */
static bool last_of(const struct sim_part *p, struct sim_producer *q, const struct sim_batch **last)
{
    *last = NULL;
    for (size_t i = p->n; i > 0 && !*last; i--)
        if (p->v[i - 1].producer == q->id) *last = &p->v[i - 1];
    q->next = *last ? (*last)->sequence + (*last)->records : 0;
    q->epoch = (int16_t)(*last ? (*last)->epoch : 0);
    return *last != NULL;
}

/* doubtful: from this offset to the log start batches may or may not have survived, nobody misses them: a producer
 * whose last is there may be known or not, and is replaced by another. fresh: all are. */
static void rewind_producers(struct world *w, struct sim_part *p, bool fresh, int64_t doubtful)
{
    for (int k = 0; k < SIM_PRODUCERS; k++) {
        struct sim_producer *q = &p->producer[k];
        const struct sim_batch *last;
        bool known = last_of(p, q, &last);
        bool doubt = known && last->base >= doubtful && last->last < p->log_start;
        if (fresh || doubt) *q = (struct sim_producer){.id = w->next_producer++};
    }
    p->reopened_at = p->n;
}

/* jump: the end is a log start, which may lie inside a batch that was lost. */
static void model_cut(struct world *w, struct sim_part *p, int64_t end, bool jump)
{
    while (p->n && p->v[p->n - 1].last >= end) {
        SIM_CHECK(p->v[p->n - 1].base >= end || jump,
                  "partition %d: the log ends at %" PRId64 ", inside the batch %" PRId64 "..%" PRId64, p->id, end,
                  p->v[p->n - 1].base, p->v[p->n - 1].last);
        batch_free(&p->v[--p->n]);
        w->lost_batches++;
    }
}

void part_came_back(struct world *w, struct sim_part *p, enum sim_death how)
{
    int64_t end = vv_log_end(p->log), was = p->end;
    struct vv_index_summary s;
    vv_index_summary(p->index, &s);
    SIM_CHECK(s.log_start >= p->log_start && s.log_start <= p->log_start_asked,
              "partition %d: the log start was %" PRId64 " (asked: %" PRId64 ") and came back as %" PRId64, p->id,
              p->log_start, p->log_start_asked, s.log_start);
    p->log_start = p->log_start_asked = s.log_start;
    if (p->maybe.p && end > p->end) {
        model_add(p, &p->maybe); /* its bytes are compared like all others */
        p->maybe.p = NULL;
    }
    batch_free(&p->maybe);
    bool jump = end == s.log_start; /* what was deleted and not flushed was lost, and is not missed */
    int64_t need = how == SIM_POWER ? p->acked : was;
    SIM_CHECK(end >= need, "partition %d: offsets below %" PRId64 " were %s, the log ends at %" PRId64, p->id, need,
              how == SIM_POWER ? "acknowledged" : "written", end);
    SIM_CHECK(end <= p->end || jump, "partition %d: the log ends at %" PRId64 ", %" PRId64 " was the end", p->id, end,
              p->end);
    model_cut(w, p, end, jump);
    bool gap = p->n ? p->v[p->n - 1].last + 1 < end : end > 0;
    SIM_CHECK(!gap || jump, "partition %d: the log ends at %" PRId64 ", where no batch ended", p->id, end);
    p->end = p->acked = end; /* recovery synced it */
    rewind_producers(w, p, gap || (jump && end < was), need);
    sim_say(w, "  partition %d: %" PRId64 "..%" PRId64 " (was %" PRId64 ")", p->id, p->log_start, end, was);
}

void part_restored(struct world *w, struct sim_part *p, int64_t log_start, int64_t next_offset)
{
    struct vv_index_summary s;
    vv_index_summary(p->index, &s);
    sim_say(w,
            "  partition %d: restored %" PRId64 "..%" PRId64 " of %" PRId64 "..%" PRId64 ", %" PRId64
            " was in the bucket",
            p->id, log_start, next_offset, p->log_start, p->end, p->proven);
    SIM_CHECK(vv_log_end(p->log) == next_offset, "partition %d: the log ends at %" PRId64 ", restored to %" PRId64,
              p->id, vv_log_end(p->log), next_offset);
    SIM_CHECK(s.log_start == log_start, "partition %d: log start %" PRId64 ", restored %" PRId64, p->id, s.log_start,
              log_start);
    SIM_CHECK(next_offset >= p->proven, "partition %d: %" PRId64 " was in the bucket, %" PRId64 " came back", p->id,
              p->proven, next_offset);
    SIM_CHECK(log_start <= p->log_start_asked, "partition %d: log start %" PRId64 " came back as %" PRId64, p->id,
              p->log_start, log_start);
    SIM_CHECK(next_offset <= p->end, "partition %d: %" PRId64 " was the end, %" PRId64 " came back", p->id, p->end,
              next_offset);
    batch_free(&p->maybe);
    model_cut(w, p, next_offset, next_offset == log_start);
    p->end = p->acked = next_offset;
    p->proven = VV_MAX(s.remote_end, 0);
    p->log_start = p->log_start_asked = log_start;
    rewind_producers(w, p, next_offset > p->proven,
                     INT64_MAX); /* what was deleted before it was uploaded is forgotten */
}

/* ---- appends ---- */

static void build(struct world *w, struct sim_part *p, struct sim_batch *b)
{
    static uint8_t value[8192];
    struct vv_batch_builder *bb = vv_batch_builder_new();
    uint8_t *bytes;
    size_t max = sim_percent(w, 5) ? sizeof value : sim_percent(w, 30) ? 1500 : 100;
    int64_t now = vv_wall_ms(&w->env);
    b->records = 1 + (int32_t)sim_below(w, SIM_RECORDS);
    b->max_ts = INT64_MIN;
    for (int32_t i = 0; i < b->records; i++) {
        size_t n = (size_t)sim_below(w, max + 1);
        char key[32];
        int k = snprintf(key, sizeof key, "%d/%" PRId64, p->id, p->end + i);
        vv_random(&w->env, value, n);
        b->ts[i] = now - (sim_percent(w, 20) ? (int64_t)sim_below(w, 100000) : 0);
        b->max_ts = VV_MAX(b->max_ts, b->ts[i]);
        if (vv_batch_builder_add(bb, b->ts[i], key, k, value, (int32_t)n)) sim_fail("batch builder");
    }
    if (vv_batch_builder_finish(bb, &bytes, &b->n)) sim_fail("batch builder");
    b->p = malloc(b->n);
    if (!b->p) sim_fail("out of memory");
    memcpy(b->p, bytes, b->n);
    vv_batch_builder_free(bb);
}

static void stamp(struct sim_batch *b, int64_t producer, int16_t epoch, int32_t sequence)
{
    b->producer = producer;
    b->epoch = epoch;
    b->sequence = sequence;
    vv_put64(b->p + 43, (uint64_t)producer);
    vv_put16(b->p + 51, (uint16_t)epoch);
    vv_put32(b->p + 53, (uint32_t)sequence);
    vv_put32(b->p + 17, vv_crc32c(0, b->p + 21, b->n - 21));
}

/* As the produce path does: check, append. */
static int append(struct world *w, struct sim_part *p, struct sim_batch *b, struct vv_append *a, struct vv_error *e)
{
    struct vv_batch_rules rules = {.max_bytes = 1 << 20,
                                   .output_max = 1 << 20,
                                   .now_ms = vv_wall_ms(&w->env),
                                   .before_max_ms = INT64_MAX,
                                   .after_max_ms = INT64_MAX,
                                   .client = true};
    struct vv_batch parsed;
    int32_t bad;
    int err = vv_batch_check(b->p, b->n, &rules, &parsed, &bad, e);
    SIM_CHECK(!err, "a good batch is refused: %s", e->text);
    *a = (struct vv_append){.p = b->p, .b = &parsed, .leader_epoch = vv_log_epoch(p->log), .now_ms = rules.now_ms};
    err = vv_log_append(p->log, a, e);
    a->b = NULL;
    return err;
}

static void appended(struct world *w, struct sim_part *p, struct sim_batch *b, const struct vv_append *a)
{
    SIM_CHECK(a->base_offset == p->end && a->last_offset == p->end + b->records - 1,
              "partition %d: appended at %" PRId64 "..%" PRId64 ", the end was %" PRId64, p->id, a->base_offset,
              a->last_offset, p->end);
    b->base = a->base_offset;
    b->last = a->last_offset;
    model_add(p, b);
    b->p = NULL;
    SIM_CHECK(vv_log_end(p->log) == p->end, "partition %d: the log end is %" PRId64 ", not %" PRId64, p->id,
              vv_log_end(p->log), p->end);
    sim_say(w, "append %d: %" PRId64 "..%" PRId64 " (%zu bytes, producer %" PRId64 " at %d)", p->id,
            p->v[p->n - 1].base, p->end - 1, p->v[p->n - 1].n, p->v[p->n - 1].producer, p->v[p->n - 1].sequence);
}

void part_append(struct world *w, struct sim_part *p)
{
    struct vv_error e = {0};
    struct vv_append a;
    struct sim_batch b = {0};
    struct sim_producer *q = sim_percent(w, 80) ? &p->producer[sim_below(w, SIM_PRODUCERS)] : NULL;
    build(w, p, &b);
    if (q && q->next && sim_percent(w, 3)) {
        q->epoch++;
        q->next = 0;
    }
    stamp(&b, q ? q->id : -1, q ? q->epoch : -1, q ? q->next : -1);
    int err = append(w, p, &b, &a, &e);
    if (world_ok(w, err, "append", e.text)) {
        SIM_CHECK(!a.duplicate, "partition %d: a new batch is taken for a duplicate", p->id);
        if (q) q->next += b.records;
        appended(w, p, &b, &a);
    } else if (err != VV_E_OFFLINE) { /* the last that was tried may have reached the disk; what fitted of those before
                                         it was cut off */
        batch_free(&p->maybe);
        b.base = p->end;
        b.last = p->end + b.records - 1;
        p->maybe = b;
        b.p = NULL;
    }
    batch_free(&b);
}

/* A producer that did not hear the answer sends the same batch again. */
void part_retry(struct world *w, struct sim_part *p)
{
    const struct sim_producer *q = &p->producer[sim_below(w, SIM_PRODUCERS)];
    size_t nth = (size_t)sim_below(w, SIM_KEPT), i = p->n;
    for (size_t left = nth + 1; left;) {
        if (!i) return;
        i--;
        if (p->v[i].producer == q->id && p->v[i].epoch == q->epoch) left--;
    }
    const struct sim_batch *b = &p->v[i];
    struct sim_batch again = *b;
    struct vv_error e = {0};
    struct vv_append a;
    if (b->base < p->log_start) return; /* what is deleted may be forgotten */
    again.p = malloc(b->n);
    if (!again.p) sim_fail("out of memory");
    memcpy(again.p, b->p, b->n);
    vv_put64(again.p, 0);
    vv_put32(again.p + 12, UINT32_MAX);
    int err = append(w, p, &again, &a, &e);
    free(again.p);
    sim_say(w, "retry %d: %" PRId64 "..%" PRId64 " again: %s", p->id, b->base, b->last,
            err ? vv_err_name(err) : "duplicate");
    if (err == VV_E_OFFLINE) return;
    if (nth && i < p->reopened_at && err > 0) return; /* a snapshot keeps only the last one */
    SIM_CHECK(!err, "partition %d: the retry of batch %" PRId64 "..%" PRId64 " (%zu from the end) is refused: %s",
              p->id, b->base, b->last, nth, e.text);
    SIM_CHECK(a.duplicate && a.base_offset == b->base && a.last_offset == b->last,
              "partition %d: the retry of batch %" PRId64 "..%" PRId64 " was appended as %" PRId64 "..%" PRId64, p->id,
              b->base, b->last, a.base_offset, a.last_offset);
}

/* A batch with a gap before it must not be appended. */
void part_bad_sequence(struct world *w, struct sim_part *p)
{
    const struct sim_producer *q = &p->producer[sim_below(w, SIM_PRODUCERS)];
    struct sim_batch b = {0};
    struct vv_error e = {0};
    struct vv_append a;
    if (!q->next) return;
    build(w, p, &b);
    stamp(&b, q->id, q->epoch, q->next + 1 + (int32_t)sim_below(w, 100));
    int err = append(w, p, &b, &a, &e);
    batch_free(&b);
    sim_say(w, "gap %d: %s", p->id, vv_err_name(err));
    if (err == VV_E_OFFLINE) return;
    SIM_CHECK(err == VV_OUT_OF_ORDER_SEQUENCE_NUMBER, "partition %d: a batch with a gap in its sequence gets %s", p->id,
              vv_err_name(err));
    SIM_CHECK(vv_log_end(p->log) == p->end, "partition %d: a refused batch moved the end", p->id);
}
