/* The bucket read by a stranger: tests/bucket_reader.py, made from docs/bucket-format.md alone, must print exactly the records that
 * were uploaded, and refuse damaged ones. Skipped, with the reason, without python3. */
#include "tiering_rig.h"

#include <zlib.h>

/* One v2 batch of `count` records from `base` on; gzip if asked. Independent of src/log. */
static size_t make_batch(uint8_t *out, int64_t base, int count, bool gz)
{
    static uint8_t body[65536], packed[65536];
    size_t n = 0;
    for (int i = 0; i < count; i++) {
        uint8_t rec[512];
        char key[32], value[64];
        size_t at = 1;
        int kn = snprintf(key, sizeof key, "key-%lld", (long long)base + i);
        int vn = snprintf(value, sizeof value, "value \xc3\xa4 %lld", (long long)(base + i) * 7);
        rec[0] = 0;
        at += vv_varlong_put(rec + at, i * 3);
        at += vv_varint_put(rec + at, i);
        at += vv_varint_put(rec + at, i % 5 == 4 ? -1 : kn);
        if (i % 5 != 4) {
            memcpy(rec + at, key, (size_t)kn);
            at += (size_t)kn;
        }
        at += vv_varint_put(rec + at, vn);
        memcpy(rec + at, value, (size_t)vn);
        at += (size_t)vn;
        at += vv_varint_put(rec + at, 0);
        n += vv_varint_put(body + n, (int32_t)at);
        memcpy(body + n, rec, at);
        n += at;
    }
    const uint8_t *p = body;
    if (gz) {
        z_stream z = {.next_in = body, .avail_in = (uInt)n, .next_out = packed, .avail_out = sizeof packed};
        assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        n = z.total_out;
        deflateEnd(&z);
        p = packed;
    }
    memset(out, 0, 61);
    vv_put64(out, (uint64_t)base);
    vv_put32(out + 8, (uint32_t)(49 + n));
    vv_put32(out + 12, 3);
    out[16] = 2;
    vv_put16(out + 21, gz ? 1 : 0);
    vv_put32(out + 23, (uint32_t)count - 1);
    vv_put64(out + 27, (uint64_t)(1000 + base));
    vv_put64(out + 35, (uint64_t)(1000 + base + (count - 1) * 3));
    vv_put64(out + 43, UINT64_MAX);
    vv_put16(out + 51, UINT16_MAX);
    vv_put32(out + 53, UINT32_MAX);
    vv_put32(out + 57, (uint32_t)count);
    memcpy(out + 61, p, n);
    vv_put32(out + 17, vv_crc32c(0, out + 21, 40 + n));
    return 61 + n;
}

/* Replaces the rig's meaningless bytes by real batches. */
static void seal_real(struct rig *r, int batches)
{
    struct vv_segment *s = calloc(1, sizeof *s);
    s->base = r->log.end;
    s->p = malloc(1 << 20);
    for (int i = 0; i < batches; i++) {
        size_t n = make_batch(s->p + s->n, r->log.end, 10, i % 2);
        assert_int_equal(vv_blocks_append(&s->blocks, s->p + s->n, n, r->log.end, 1000, 2000, 10), 0);
        s->n += n;
        r->log.end += 10;
    }
    vv_blocks_seal(&s->blocks);
    s->last = r->log.end - 1;
    r->log.v[r->log.n++] = s;
    assert_int_equal(vv_index_add_open(r->index, s->base, 3, s), 0);
    struct vv_extent x = {.base = s->base, .last = s->last, .first_ts = 1000, .max_ts = 2000, .bytes = s->n};
    assert_int_equal(vv_index_seal(r->index, &x), 0);
    vv_tier_part_kick(r->part);
    rig_run(r);
}

static int run_reader(struct rig *r, const char *out)
{
    char cmd[1024];
    snprintf(cmd, sizeof cmd, "python3 %s/tests/bucket_reader.py %s flights > %s/%s 2> %s/err", VARVE_SOURCE_DIR, r->bucket, r->dir,
             out, r->dir);
    return system(cmd);
}

static void expect_lines(struct rig *r, int64_t from, int64_t to)
{
    char path[128], line[512], want[512];
    if (run_reader(r, "out")) fail_msg("the reader failed, see %s/err", r->dir);
    snprintf(path, sizeof path, "%s/out", r->dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    for (int64_t o = from; o < to; o++) {
        char key[48] = "null";
        if (o % 10 % 5 != 4) snprintf(key, sizeof key, "\"key-%lld\"", (long long)o);
        snprintf(want, sizeof want,
                 "{\"offset\": %lld, \"timestamp\": %lld, \"key\": %s, \"value\": \"value \\u00e4 %lld\", \"headers\": [], "
                 "\"partition\": 2}\n",
                 (long long)o, (long long)(1000 + o / 10 * 10 + o % 10 * 3), key, (long long)o * 7);
        assert_non_null(fgets(line, sizeof line, f));
        assert_string_equal(line, want);
    }
    assert_null(fgets(line, sizeof line, f));
    fclose(f);
}

static void a_stranger_reads_the_bucket(void **state)
{
    (void)state;
    if (system("python3 -c '' 2> /dev/null")) {
        print_message("skipped: no python3 (apt-get install python3)\n");
        skip();
    }
    struct rig *r = rig_new();
    rig_open(r);
    seal_real(r, 3); /* roll-forward only */
    expect_lines(r, 0, 30);
    for (int i = 0; i < 260; i++) seal_real(r, 1); /* a page */
    rig_settle(r);
    seal_real(r, 2); /* manifest and roll-forward */
    expect_lines(r, 0, 2650);
    assert_int_equal(vv_index_set_log_start(r->index, 35), 0);
    vv_tier_part_log_start_moved(r->part);
    rig_settle(r);
    expect_lines(r, 35, 2650);
    r->limit = r->log.end; /* a segment that is deleted before it was uploaded leaves a hole that nobody misses */
    seal_real(r, 1);
    assert_int_equal(vv_index_set_log_start(r->index, 2660), 0);
    vv_tier_part_log_start_moved(r->part);
    r->limit = INT64_MAX;
    seal_real(r, 2);
    expect_lines(r, 2660, 2680);
    /* One flipped byte in a block is seen. */
    struct vv_extent x;
    struct vv_segkey k;
    struct vv_slice s = {0};
    struct vv_error e = {0};
    char key[VV_KEY_MAX];
    assert_int_equal(vv_index_find(r->index, 2670, &x), 0);
    vv_extent_release(r->index, &x);
    vv_segkey_of(r->topic_id, 2, &x, &k);
    vv_segkey_format(&k, key);
    rig_ok(vv_objstore_get_whole(r->store, key, 1 << 20, 0, &s, NULL, &e), &e);
    s.buf->data[70] ^= 1;
    rig_ok(vv_objstore_put_mem(r->store, key, s.p, s.n, NULL, 0, NULL, &e), &e);
    vv_buf_unref(s.buf);
    assert_int_not_equal(run_reader(r, "out"), 0);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_stranger_reads_the_bucket)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
