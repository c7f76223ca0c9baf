/* batch.c — Kafka's record batch, version 2 (KIP-98): header, records, what a leader checks, and a builder for our own
 * records.
 *
 * Layout, big-endian: 0 base offset, 8 length of what follows, 12 leader epoch, 16 magic, 17 CRC32C of all from 21, 21
 * attributes {0-2 codec, 3 time type, 4 transactional, 5 control, 6 delete horizon}, 23 last offset delta, 27 base
 * time, 35 max time, 43 producer id, 51 producer epoch, 53 base sequence, 57 record count, 61 records (compressed as
 * one). Record: varint length, attributes, varlong time delta, varint offset delta, key, value, headers.
 *
 * Invariant: no byte outside [p, p + bytes) is read, whatever the bytes say. Pure; any thread. Needs nothing of the
 * other log files but compress.h. */
#include "compress.h"

#include <stdlib.h>

#define AT_LENGTH 8
#define AT_EPOCH 12
#define AT_MAGIC 16
#define AT_CRC 17
#define AT_ATTRIBUTES 21
#define AT_LAST_DELTA 23
#define AT_BASE_TS 27
#define AT_MAX_TS 35
#define AT_PRODUCER_ID 43
#define AT_PRODUCER_EPOCH 51
#define AT_SEQUENCE 53
#define AT_COUNT 57

#define ATTR_CODEC 0x07
#define ATTR_LOG_APPEND 0x08
#define ATTR_TRANSACTIONAL 0x10
#define ATTR_CONTROL 0x20

#define NO_TIMESTAMP (-1)
#define STORED_OUTPUT_MAX ((size_t)INT32_MAX) /* of batches that passed a check under a lower limit when they came */

/* ---- header ---- */

int vv_batch_parse(const uint8_t *p, size_t n, struct vv_batch *out)
{
    if (n < VV_BATCH_HEADER) return VV_E_AGAIN;
    uint16_t attributes = vv_get16(p + AT_ATTRIBUTES);
    *out = (struct vv_batch){
        .base_offset = (int64_t)vv_get64(p),
        .length = (int32_t)vv_get32(p + AT_LENGTH),
        .leader_epoch = (int32_t)vv_get32(p + AT_EPOCH),
        .crc = vv_get32(p + AT_CRC),
        .attributes = (int16_t)attributes,
        .last_delta = (int32_t)vv_get32(p + AT_LAST_DELTA),
        .base_ts = (int64_t)vv_get64(p + AT_BASE_TS),
        .max_ts = (int64_t)vv_get64(p + AT_MAX_TS),
        .producer_id = (int64_t)vv_get64(p + AT_PRODUCER_ID),
        .producer_epoch = (int16_t)vv_get16(p + AT_PRODUCER_EPOCH),
        .base_sequence = (int32_t)vv_get32(p + AT_SEQUENCE),
        .records = (int32_t)vv_get32(p + AT_COUNT),
        .transactional = attributes & ATTR_TRANSACTIONAL,
        .control = attributes & ATTR_CONTROL,
        .codec = (enum vv_codec)(attributes & ATTR_CODEC),
        .ts_type = attributes & ATTR_LOG_APPEND ? VV_LOG_APPEND_TIME : VV_CREATE_TIME,
    };
    if (p[AT_MAGIC] != 2 || out->length < VV_BATCH_HEADER - VV_BATCH_OVERHEAD) return VV_E_CORRUPT;
    if (out->codec > VV_CODEC_ZSTD || out->records < 0 || out->last_delta < 0) return VV_E_CORRUPT;
    if (out->base_offset < 0 || out->base_offset >= INT64_MAX - out->last_delta) return VV_E_CORRUPT;
    out->bytes = (size_t)out->length + VV_BATCH_OVERHEAD;
    return n < out->bytes ? VV_E_AGAIN : 0;
}

static uint32_t compute_crc(const uint8_t *p, size_t bytes)
{
    return vv_crc32c(0, p + AT_ATTRIBUTES, bytes - AT_ATTRIBUTES);
}

bool vv_batch_crc_ok(const uint8_t *p, const struct vv_batch *b)
{
    return compute_crc(p, b->bytes) == b->crc;
}

/* ---- records ---- */

struct raw { /* a record as encoded */
    const uint8_t *key, *value, *headers_p;
    size_t headers_n;
    int64_t ts_delta;
    int32_t offset_delta, key_n, value_n, headers;
};

struct reader {
    const uint8_t *at, *end;
};

/* A varint of one or two bytes, which nearly all of a record are; 0: it is longer, or cut off. */
static inline size_t take_short(struct reader *r, uint32_t *u)
{
    const uint8_t *p = r->at;
    if (p < r->end && p[0] < 0x80) {
        *u = p[0];
        r->at = p + 1;
        return 1;
    }
    if (r->end - p < 2 || p[1] >= 0x80) return 0;
    *u = (uint32_t)(p[0] & 0x7f) | (uint32_t)p[1] << 7;
    r->at = p + 2;
    return 2;
}

static inline bool take_int(struct reader *r, int32_t *v)
{
    uint32_t u;
    if (take_short(r, &u)) {
        *v = (int32_t)(u >> 1) ^ -(int32_t)(u & 1);
        return true;
    }
    size_t used = vv_varint_get(r->at, (size_t)(r->end - r->at), v);
    r->at += used;
    return used;
}

static inline bool take_long(struct reader *r, int64_t *v)
{
    uint32_t u;
    if (take_short(r, &u)) {
        *v = (int64_t)(u >> 1) ^ -(int64_t)(u & 1);
        return true;
    }
    size_t used = vv_varlong_get(r->at, (size_t)(r->end - r->at), v);
    r->at += used;
    return used;
}

/* A length and that many bytes; -1 is null. */
static inline bool take_bytes(struct reader *r, const uint8_t **p, int32_t *n)
{
    if (!take_int(r, n) || *n < -1) return false;
    *p = NULL;
    if (*n < 0) return true;
    if (*n > r->end - r->at) return false;
    *p = r->at;
    r->at += *n;
    return true;
}

static bool take_headers(struct reader *r, struct raw *out)
{
    const uint8_t *ignored;
    int32_t n;
    if (!take_int(r, &out->headers) || out->headers < 0) return false;
    out->headers_p = r->at;
    for (int32_t i = 0; i < out->headers; i++) { /* every header takes bytes, so this ends with them */
        if (!take_bytes(r, &ignored, &n) || n < 0) return false;
        if (!take_bytes(r, &ignored, &n)) return false;
    }
    out->headers_n = (size_t)(r->at - out->headers_p);
    return true;
}

/* The next record; NULL or what is wrong with it. */
static const char *take_record(struct reader *r, struct raw *out)
{
    int32_t length;
    if (!take_int(r, &length)) return "its length is cut off or over-long";
    if (length < 1 || length > r->end - r->at) return "its length does not fit the batch";
    struct reader body = {r->at + 1, r->at + length}; /* the attributes byte has no meaning */
    r->at = body.end;
    if (!take_long(&body, &out->ts_delta)) return "bad timestamp delta";
    if (!take_int(&body, &out->offset_delta)) return "bad offset delta";
    if (!take_bytes(&body, &out->key, &out->key_n)) return "bad key length";
    if (!take_bytes(&body, &out->value, &out->value_n)) return "bad value length";
    if (!take_headers(&body, out)) return "bad headers";
    return body.at == body.end ? NULL : "bytes are left over behind its headers";
}

/* The records' bytes, decompressed when they must be; *owned is to be freed. */
static int open_records(const uint8_t *p, const struct vv_batch *b, size_t output_max, struct reader *r,
                        uint8_t **owned)
{
    const uint8_t *body = p + VV_BATCH_HEADER;
    size_t n = b->bytes - VV_BATCH_HEADER;
    *owned = NULL;
    if (b->codec != VV_CODEC_NONE) {
        int err = vv_decompress(b->codec, body, n, output_max, owned, &n);
        if (err) return err;
        body = *owned;
    }
    *r = (struct reader){body, body + n};
    return 0;
}

int vv_batch_each(const uint8_t *p, const struct vv_batch *b, size_t output_max,
                  int (*each)(void *ctx, const struct vv_record *r), void *ctx)
{
    struct reader r;
    struct raw raw;
    uint8_t *owned;
    int64_t below = 0; /* deltas ascend; compaction leaves gaps */
    int err = open_records(p, b, output_max, &r, &owned);
    if (err) return err;
    for (int32_t i = 0; i < b->records && !err; i++) {
        struct vv_record rec;
        if (take_record(&r, &raw) || raw.offset_delta < below || raw.offset_delta > b->last_delta ||
            __builtin_add_overflow(b->base_ts, raw.ts_delta, &rec.timestamp)) {
            err = VV_E_CORRUPT;
            break;
        }
        below = (int64_t)raw.offset_delta + 1;
        if (b->ts_type == VV_LOG_APPEND_TIME) rec.timestamp = b->max_ts;
        rec.offset = b->base_offset + raw.offset_delta;
        rec.key = raw.key;
        rec.key_n = raw.key_n;
        rec.value = raw.value;
        rec.value_n = raw.value_n;
        rec.headers = raw.headers;
        rec.headers_p = raw.headers_p;
        rec.headers_n = raw.headers_n;
        err = each(ctx, &rec);
    }
    if (!err && r.at != r.end) err = VV_E_CORRUPT;
    free(owned);
    return err;
}

/* ---- time search ---- */

struct time_search {
    int64_t ts, from;
    struct vv_time_hit *out;
};

static int match_time(void *ctx, const struct vv_record *r)
{
    struct time_search *t = ctx;
    if (r->timestamp < t->ts || r->offset < t->from) return 0;
    t->out->offset = r->offset;
    t->out->timestamp = r->timestamp;
    return 1;
}

int vv_batches_find_time(const uint8_t *p, size_t n, int64_t ts, int64_t from, struct vv_time_hit *out)
{
    struct time_search t = {ts, from, out};
    while (n) {
        struct vv_batch b;
        int err = vv_batch_parse(p, n, &b);
        if (err) return VV_E_CORRUPT; /* also when cut short: whole batches were promised */
        if (b.max_ts >= ts && vv_batch_last(&b) >= from) {
            out->leader_epoch = b.leader_epoch;
            err = vv_batch_each(p, &b, STORED_OUTPUT_MAX, match_time, &t);
            if (err) return err == 1 ? 0 : err;
        }
        p += b.bytes;
        n -= b.bytes;
    }
    return VV_E_NOENT;
}

/* ---- the leader's check ---- */

static int check_frame(const uint8_t *p, size_t n, const struct vv_batch_rules *rules, struct vv_batch *b,
                       struct vv_error *e)
{
    if (n == 0) return vv_error_set(e, VV_INVALID_RECORD, "the partition has no batch: exactly one is expected");
    if (n > AT_MAGIC && p[AT_MAGIC] < 2)
        return vv_error_set(e, VV_UNSUPPORTED_FOR_MESSAGE_FORMAT,
                            "message format %d is not accepted: the client must be of Kafka 0.11 or newer",
                            p[AT_MAGIC]);
    int err = vv_batch_parse(p, n, b);
    if (err == VV_E_AGAIN && n >= VV_BATCH_HEADER && b->bytes > rules->max_bytes)
        err = 0; /* too large is the better answer */
    if (err == VV_E_AGAIN)
        return vv_error_set(e, VV_CORRUPT_MESSAGE, "the batch is cut off after %zu bytes", n);
    if (err) return vv_error_set(e, VV_CORRUPT_MESSAGE, "not a record batch: its header makes no sense");
    if (b->bytes > rules->max_bytes)
        return vv_error_set(e, VV_MESSAGE_TOO_LARGE, "the batch has %zu bytes, max.message.bytes is %zu", b->bytes,
                            rules->max_bytes);
    if (n > b->bytes)
        return vv_error_set(e, VV_INVALID_RECORD, "%zu bytes follow the batch: exactly one batch is expected",
                            n - b->bytes);
    if (!vv_batch_crc_ok(p, b))
        return vv_error_set(e, VV_CORRUPT_MESSAGE, "the batch's CRC does not match its bytes: damaged on the way");
    return 0;
}

static int check_client(const struct vv_batch *b, struct vv_error *e)
{
    if (b->control) return vv_error_set(e, VV_INVALID_RECORD, "clients may not write control batches");
    if (b->base_offset != 0)
        return vv_error_set(e, VV_INVALID_RECORD, "the batch's base offset is %lld: clients must send 0",
                            (long long)b->base_offset);
    if (b->producer_id >= 0 && (b->producer_epoch < 0 || b->base_sequence < 0))
        return vv_error_set(e, VV_INVALID_RECORD,
                            "producer id %lld comes with epoch %d and sequence %d: both must be 0 or more",
                            (long long)b->producer_id, b->producer_epoch, b->base_sequence);
    if (b->producer_id < 0 && b->transactional)
        return vv_error_set(e, VV_INVALID_RECORD, "a transactional batch needs a producer id");
    return 0;
}

static int check_header(const struct vv_batch *b, const struct vv_batch_rules *rules, int32_t *bad, struct vv_error *e)
{
    int err = rules->client ? check_client(b, e) : 0;
    if (err) return err;
    if (b->records <= 0 || b->last_delta != b->records - 1)
        return vv_error_set(e, VV_INVALID_RECORD, "the batch declares %d records and last offset delta %d", b->records,
                            b->last_delta);
    if (b->ts_type == VV_LOG_APPEND_TIME) { /* the log stamps, not who sends */
        *bad = 0;
        return vv_error_set(e, VV_INVALID_TIMESTAMP,
                            "the batch says its timestamps are of type LogAppendTime: producers may not");
    }
    return 0;
}

static bool time_in_bounds(int64_t ts, const struct vv_batch_rules *rules)
{
    bool past = ts < rules->now_ms;
    int64_t bound = past ? rules->before_max_ms : rules->after_max_ms, distance;
    if (ts == NO_TIMESTAMP || bound == INT64_MAX) return true;
    bool overflow = past ? __builtin_sub_overflow(rules->now_ms, ts, &distance)
                         : __builtin_sub_overflow(ts, rules->now_ms, &distance);
    return !overflow && distance <= bound;
}

static int check_records(struct reader *r, const struct vv_batch *b, const struct vv_batch_rules *rules,
                         int64_t *max_ts, int32_t *bad, struct vv_error *e)
{
    for (int32_t i = 0; i < b->records; i++) {
        struct raw raw;
        int64_t ts;
        *bad = i;
        if (r->at == r->end)
            return vv_error_set(e, VV_INVALID_RECORD, "the batch declares %d records and holds %d", b->records, i);
        const char *why = take_record(r, &raw);
        if (why) return vv_error_set(e, VV_INVALID_RECORD, "record %d is malformed: %s", i, why);
        if (raw.offset_delta != i)
            return vv_error_set(e, VV_INVALID_RECORD, "record %d has offset delta %d: they must count up from 0", i,
                                raw.offset_delta);
        if (rules->compacted && raw.key_n < 0)
            return vv_error_set(e, VV_INVALID_RECORD, "record %d has no key: a compacted topic needs one", i);
        if (__builtin_add_overflow(b->base_ts, raw.ts_delta, &ts))
            return vv_error_set(e, VV_INVALID_TIMESTAMP, "record %d: its timestamp does not fit 64 bits", i);
        if (rules->ts_type == VV_CREATE_TIME && !time_in_bounds(ts, rules))
            return vv_error_set(e, VV_INVALID_TIMESTAMP,
                                "record %d: timestamp %lld is too far from the broker's clock %lld "
                                "(message.timestamp.before.max.ms, message.timestamp.after.max.ms)",
                                i, (long long)ts, (long long)rules->now_ms);
        *max_ts = VV_MAX(*max_ts, ts);
    }
    *bad = -1;
    if (r->at != r->end)
        return vv_error_set(e, VV_INVALID_RECORD, "bytes follow the batch's %d records", b->records);
    return 0;
}

static void stamp(uint8_t *p, struct vv_batch *b, enum vv_ts_type type, int64_t max_ts)
{
    if (b->ts_type == type && b->max_ts == max_ts) return;
    b->ts_type = type;
    b->max_ts = max_ts;
    if (type == VV_LOG_APPEND_TIME) b->attributes = (int16_t)(b->attributes | ATTR_LOG_APPEND);
    vv_put16(p + AT_ATTRIBUTES, (uint16_t)b->attributes);
    vv_put64(p + AT_MAX_TS, (uint64_t)max_ts);
    b->crc = compute_crc(p, b->bytes);
    vv_put32(p + AT_CRC, b->crc);
}

int vv_batch_check(uint8_t *p, size_t n, const struct vv_batch_rules *rules, struct vv_batch *out, int32_t *bad_record,
                   struct vv_error *e)
{
    struct reader r;
    uint8_t *owned;
    int64_t max_ts = NO_TIMESTAMP;
    *bad_record = -1;
    int err = check_frame(p, n, rules, out, e);
    if (!err) err = check_header(out, rules, bad_record, e);
    if (err) return err;
    err = open_records(p, out, rules->output_max, &r, &owned);
    if (err == VV_E_LIMIT)
        return vv_error_set(e, VV_INVALID_RECORD, "the batch decompresses to more than %zu bytes", rules->output_max);
    if (err == VV_E_CORRUPT)
        return vv_error_set(e, VV_CORRUPT_MESSAGE, "the batch's compressed records cannot be decompressed");
    if (err) return vv_error_set(e, err, "out of memory while the batch was decompressed");
    err = check_records(&r, out, rules, &max_ts, bad_record, e);
    free(owned);
    if (err) return err;
    stamp(p, out, rules->ts_type, rules->ts_type == VV_LOG_APPEND_TIME ? rules->now_ms : max_ts);
    return 0;
}

/* ---- builder ---- */

struct vv_batch_builder {
    uint8_t *p;
    size_t n, cap;
    int64_t base_ts, max_ts;
    int32_t records;
    int64_t producer_id;
    int32_t sequence;
    int16_t producer_epoch;
    bool finished; /* the next add begins a new batch */
};

struct vv_batch_builder *vv_batch_builder_new(void)
{
    struct vv_batch_builder *b = calloc(1, sizeof *b);
    if (b) vv_batch_builder_producer(b, -1, -1, -1);
    return b;
}

void vv_batch_builder_producer(struct vv_batch_builder *b, int64_t id, int16_t epoch, int32_t sequence)
{
    b->producer_id = id;
    b->producer_epoch = epoch;
    b->sequence = sequence;
}

void vv_batch_builder_free(struct vv_batch_builder *b)
{
    if (!b) return;
    free(b->p);
    free(b);
}

static int builder_room(struct vv_batch_builder *b, size_t more)
{
    if (more > INT32_MAX - b->n) return VV_E_LIMIT;
    size_t want = b->n + more;
    if (want <= b->cap) return 0;
    size_t cap = VV_MAX(VV_MAX(b->cap * 2, want), (size_t)512);
    uint8_t *p = realloc(b->p, cap);
    if (!p) return VV_E_NOMEM;
    b->p = p;
    b->cap = cap;
    return 0;
}

static size_t put_bytes(uint8_t *at, const void *p, int32_t n)
{
    size_t used = vv_varint_put(at, n);
    if (n <= 0) return used;
    memcpy(at + used, p, (size_t)n);
    return used + (size_t)n;
}

int vv_batch_builder_add(struct vv_batch_builder *b, int64_t ts, const void *key, int32_t key_n, const void *value,
                         int32_t value_n)
{
    return vv_batch_builder_add_record(
        b, &(struct vv_record){.timestamp = ts, .key = key, .key_n = key_n, .value = value, .value_n = value_n});
}

int vv_batch_builder_add_record(struct vv_batch_builder *b, const struct vv_record *r)
{
    if (r->key_n < -1 || r->value_n < -1 || r->headers < 0) return VV_E_USAGE;
    if (b->finished || !b->records) {
        b->n = VV_BATCH_HEADER;
        b->records = 0;
        b->base_ts = b->max_ts = r->timestamp;
        b->finished = false;
    }
    int64_t delta;
    if (__builtin_sub_overflow(r->timestamp, b->base_ts, &delta)) return VV_E_USAGE;
    /* attributes, time delta, offset delta, two lengths, headers */
    size_t bodies = (size_t)VV_MAX(r->key_n, 0) + (size_t)VV_MAX(r->value_n, 0) + r->headers_n;
    size_t most = 5 + 1 + 10 + 5 + 5 + 5 + 5 + bodies;
    int err = builder_room(b, most);
    if (err) return err;
    uint8_t *body = b->p + b->n + 5, *at = body; /* behind the longest length; moved up below */
    *at++ = 0;
    at += vv_varlong_put(at, delta);
    at += vv_varint_put(at, b->records);
    at += put_bytes(at, r->key, r->key_n);
    at += put_bytes(at, r->value, r->value_n);
    at += vv_varint_put(at, r->headers);
    if (r->headers_n) memcpy(at, r->headers_p, r->headers_n);
    at += r->headers_n;
    size_t length = (size_t)(at - body), used = vv_varint_put(b->p + b->n, (int32_t)length);
    memmove(b->p + b->n + used, body, length);
    b->n += used + length;
    b->records++;
    b->max_ts = VV_MAX(b->max_ts, r->timestamp);
    return 0;
}

int vv_batch_builder_finish(struct vv_batch_builder *b, uint8_t **p, size_t *n)
{
    if (!b->records) return VV_E_STATE;
    memset(b->p, 0, VV_BATCH_HEADER);
    vv_put32(b->p + AT_LENGTH, (uint32_t)(b->n - VV_BATCH_OVERHEAD));
    vv_put32(b->p + AT_EPOCH, (uint32_t)-1);
    b->p[AT_MAGIC] = 2;
    vv_put32(b->p + AT_LAST_DELTA, (uint32_t)(b->records - 1));
    vv_put64(b->p + AT_BASE_TS, (uint64_t)b->base_ts);
    vv_put64(b->p + AT_MAX_TS, (uint64_t)b->max_ts);
    vv_put64(b->p + AT_PRODUCER_ID, (uint64_t)b->producer_id);
    vv_put16(b->p + AT_PRODUCER_EPOCH, (uint16_t)b->producer_epoch);
    vv_put32(b->p + AT_SEQUENCE, (uint32_t)b->sequence);
    vv_put32(b->p + AT_COUNT, (uint32_t)b->records);
    vv_put32(b->p + AT_CRC, compute_crc(b->p, b->n));
    b->finished = true;
    *p = b->p;
    *n = b->n;
    return 0;
}
