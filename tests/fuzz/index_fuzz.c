/* index_fuzz.c — libFuzzer: any bytes as the index journal of a partition. What opens must answer every lookup, and answer the same
 * after it was written down and read again.
 *
 * Input: {u8 mode}, then 0: the file as it is behind its magic; 1: records {u8 type}{u8 length}{bytes}, put into the file with the
 * checksums they need, so that what the records say is reached; length 255 stands for a page of 64 extents. */
#include "index_impl.h"
#include "env_sim.h"
#include "varve/vlog.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DIR "/p"
#define STEPS_MAX 1000

struct sum { uint64_t n, hash; };

static void add(struct sum *s, uint64_t v)
{
    s->n++;
    s->hash = (s->hash ^ v) * 0x9e3779b97f4a7c15u;
}

static struct sum ask(struct vv_index *ix)
{
    struct sum s = {0};
    struct vv_extent x;
    struct vv_index_summary total;
    int64_t at = 0;
    for (int i = 0; i < STEPS_MAX && !vv_index_next(ix, at, &x) && x.last < INT64_MAX; i++) {
        if (x.base < at) abort();
        add(&s, (uint64_t)x.base);
        add(&s, (uint64_t)x.last ^ x.nonce << 8 ^ (uint64_t)x.state);
        struct vv_extent y;
        vv_index_find(ix, x.last, &y);
        vv_index_find_time(ix, x.max_ts, x.base, &y);
        at = x.base + 1;
    }
    for (int st = VV_EXTENT_OPEN; st <= VV_EXTENT_DELETING; st++)
        add(&s, (uint64_t)vv_index_find_state(ix, (enum vv_extent_state)st, 0, &x));
    vv_index_find_max_ts(ix, &x);
    vv_index_summary(ix, &total);
    add(&s, total.extents);
    add(&s, total.remote_bytes);
    add(&s, (uint64_t)total.log_start);
    return s;
}

static struct vv_index *open_index(struct vv_env *env)
{
    struct vv_index *ix;
    struct vv_error e;
    return vv_index_open(env, DIR, NULL, &ix, &e) ? NULL : ix;
}

static void run(struct vv_env *env)
{
    struct vv_error e;
    struct vv_extent open;
    struct vv_index *ix = open_index(env);
    if (!ix) return;
    if (vv_index_attached(ix, &e)) {
        vv_index_close(ix);
        return;
    }
    if (!vv_index_find_state(ix, VV_EXTENT_OPEN, 0, &open)) { /* never journalled: gone with the next file */
        vv_index_close(ix);
        return;
    }
    struct sum before = ask(ix);
    if (vv_index_sync(ix)) abort();
    vv_index_close(ix);
    ix = open_index(env);
    if (!ix || vv_index_attached(ix, &e)) abort();
    struct sum after = ask(ix);
    if (before.n != after.n || before.hash != after.hash) abort();
    vv_index_close(ix);
}

static void records(struct vv_journal_image *im, const uint8_t *p, size_t n)
{
    static uint8_t page[VV_PAGE_BYTES];
    while (n >= 2) {
        uint8_t type = p[0];
        size_t len = p[1], have = VV_MIN(len, n - 2);
        if (len == 255) { /* 64 times the bytes of one extent, a step apart */
            memset(page, 0, sizeof page);
            for (size_t i = 0; i < VV_PAGE_EXTENTS; i++) {
                uint8_t *x = page + i * VV_EXTENT_BYTES;
                memcpy(x, p + 2, VV_MIN(n - 2, (size_t)VV_EXTENT_BYTES));
                vv_put64(x, (vv_get64(x) & 0xffff) + i * 10);
                vv_put64(x + 8, vv_get64(x) + 9);
            }
            vv_journal_image_add(im, type, page, sizeof page);
        } else {
            vv_journal_image_add(im, type, p + 2, have);
        }
        p += 2 + have;
        n -= 2 + have;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vlog_level = VV_ERROR;
    if (!size) return 0;
    struct vv_fs_mem *fs = vv_fs_mem_new(NULL);
    struct vv_env env = vv_env_posix;
    struct vv_journal_image im = {0};
    env.fs_ops = &vv_fs_mem_ops;
    env.fs = fs;
    if (vv_fs_mkdirs(&env, DIR)) abort();
    vv_journal_image_add(&im, REC_LOG_START, "\0\0\0\0\0\0\0", 8); /* and with it the magic */
    if (data[0] & 1) {
        records(&im, data + 1, size - 1);
    } else {
        uint8_t *p = realloc(im.p, im.n + size);
        if (!p) abort();
        memcpy(p + 8, data + 1, size - 1);
        im.p = p;
        im.n = 8 + size - 1;
    }
    if (vv_fs_write_file(&env, DIR "/varve.index", im.p, im.n)) abort();
    free(im.p);
    run(&env);
    vv_fs_mem_free(fs);
    return 0;
}
