/* conformance.c — what every object store of Varve must do, call by call. Contract:
 * varve/objstore.h.
 *
 * A test is a function that returns nothing and fails by CHECK, which notes the place and goes on
 * to the next test. Every test works under its own key prefix; the runner removes everything at the
 * end by listing and bulk delete. */
#include "conformance.h"
#include "objsum.h"
#include "varve/bytes.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    struct vv_objstore *s;
    char root[200];
    const char *name;
    unsigned caps;
    jmp_buf failed;
};

static void fail_at(struct run *r, int line, const char *what, int got, const struct vv_error *e)
{
    printf("FAILED %s (conformance.c:%d): %s", r->name, line, what);
    if (got) printf(" — got %s: %s", vv_err_name(got), e && e->code ? e->text : "");
    printf("\n");
    longjmp(r->failed, 1);
}
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) fail_at(r, __LINE__, #cond, 0, NULL);                                         \
    } while (0)
#define WANT(err, call)                                                                            \
    do {                                                                                           \
        struct vv_error e = {0};                                                                   \
        int got_ = (call);                                                                         \
        if (got_ != (err)) fail_at(r, __LINE__, #call " should give " #err, got_, &e);             \
    } while (0)
#define OK(call) WANT(VV_OK, call)

enum { MS = 30000 };

static const char *key_of(struct run *r, const char *name)
{
    static _Thread_local char keys[8][VV_OBJ_KEY_MAX + 64];
    static _Thread_local unsigned at;
    char *key = keys[at++ % 8];
    snprintf(key, sizeof keys[0], "%s%s/%s", r->root, r->name, name);
    return key;
}

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)((at * 2654435761u >> 13) ^ at);
}

static int pattern_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    struct vv_objsrc *src = ctx;
    if (at + n > src->size) return VV_E_USAGE;
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)dst)[i] = byte_at(at + i);
    return VV_OK;
}

static bool is_pattern(const uint8_t *p, uint64_t at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != byte_at(at + i)) return false;
    return true;
}

static void expect_whole(struct run *r, const char *key, const char *want, size_t n)
{
    struct vv_slice got;
    struct vv_objinfo info;
    OK(vv_objstore_get_whole(r->s, key, 1 << 20, MS, &got, &info, &e));
    bool same = got.n == n && !memcmp(got.p, want, n) && info.size == n;
    vv_buf_unref(got.buf);
    CHECK(same);
}

/* ---- async ---- */

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t change;
    unsigned done;
};

static void waiter_init(struct waiter *w)
{
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->change, NULL);
    w->done = 0;
}

static void on_done(struct vv_objget *get)
{
    struct waiter *w = get->ctx;
    pthread_mutex_lock(&w->lock);
    w->done++;
    pthread_cond_signal(&w->change);
    pthread_mutex_unlock(&w->lock);
}

static void waiter_wait(struct waiter *w, unsigned n)
{
    pthread_mutex_lock(&w->lock);
    while (w->done < n)
        pthread_cond_wait(&w->change, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

static int get_range(struct run *r, const char *key, uint64_t at, size_t n, int64_t deadline_ms,
                     struct vv_buf **out)
{
    struct waiter w;
    struct vv_objget get = {
        .key = key, .at = at, .n = n, .deadline_ms = deadline_ms, .done = on_done, .ctx = &w};
    waiter_init(&w);
    vv_objstore_get_async(r->s, &get);
    waiter_wait(&w, 1);
    *out = get.buf;
    return get.err;
}

/* ---- tests ---- */

static void put_and_get(struct run *r)
{
    struct vv_objinfo put, head;
    const char *key = key_of(r, "a/b/c.seg");
    OK(vv_objstore_put_mem(r->s, key, "hello", 5, NULL, MS, &put, &e));
    CHECK(put.size == 5);
    expect_whole(r, key, "hello", 5);
    OK(vv_objstore_head(r->s, key, MS, &head, &e));
    CHECK(head.size == 5);
    CHECK(!put.etag[0] || !head.etag[0] || !strcmp(put.etag, head.etag));
    CHECK(head.mtime_ms > 1000000000000);
    if ((r->caps & VV_OBJ_CAP_ETAG_IS_MD5) && put.etag[0])
        CHECK(!strcmp(put.etag, "\"5d41402abc4b2a76b9719d911017c592\""));
    OK(vv_objstore_put_mem(r->s, key, "other bytes", 11, NULL, MS, &head, &e));
    CHECK(!put.etag[0] || strcmp(put.etag, head.etag));
    expect_whole(r, key, "other bytes", 11);
}

static void empty_object(struct run *r)
{
    struct vv_objinfo info;
    struct vv_slice got;
    const char *key = key_of(r, "empty");
    OK(vv_objstore_put_mem(r->s, key, "", 0, NULL, MS, NULL, &e));
    OK(vv_objstore_head(r->s, key, MS, &info, &e));
    CHECK(info.size == 0);
    expect_whole(r, key, "", 0);
    OK(vv_objstore_get_suffix(r->s, key, 10, MS, &got, NULL, &e));
    CHECK(got.n == 0 && got.buf);
    vv_buf_unref(got.buf);
    WANT(VV_E_CORRUPT, vv_objstore_get(r->s, key, VV_GET_RANGE, 0, 1, MS, &got, NULL, &e));
}

static void missing_key(struct run *r)
{
    struct vv_slice got;
    struct vv_buf *buf;
    const char *key = key_of(r, "not/there");
    WANT(VV_E_NOENT, vv_objstore_get_whole(r->s, key, 100, MS, &got, NULL, &e));
    CHECK(!got.buf);
    WANT(VV_E_NOENT, vv_objstore_get_suffix(r->s, key, 100, MS, &got, NULL, &e));
    WANT(VV_E_NOENT, vv_objstore_head(r->s, key, MS, NULL, &e));
    CHECK(get_range(r, key, 0, 10, MS, &buf) == VV_E_NOENT && !buf);
    OK(vv_objstore_delete(r->s, key, MS, &e));
}

static void ranges(struct run *r)
{
    struct vv_objsrc src = {.size = 300000, .read = pattern_read};
    static const struct {
        uint64_t at;
        size_t n;
        int err;
    } cases[] = {{0, 1, 0},
                 {0, 300000, 0},
                 {299999, 1, 0},
                 {12345, 100000, 0},
                 {0, 0, 0},
                 {7, 0, 0},
                 {299999, 2, VV_E_CORRUPT},
                 {300000, 1, VV_E_CORRUPT},
                 {1ull << 40, 5, VV_E_CORRUPT}};
    const char *key = key_of(r, "object");
    struct vv_buf *buf;
    struct vv_slice got;
    struct vv_objinfo info;
    src.ctx = &src;
    OK(vv_objstore_put(r->s, key, &src, NULL, MS, NULL, &e));
    for (size_t i = 0; i < VV_COUNT(cases); i++) {
        int err = get_range(r, key, cases[i].at, cases[i].n, MS, &buf);
        CHECK(err == cases[i].err);
        CHECK(err ? !buf
                  : buf->cap == cases[i].n && is_pattern(buf->data, cases[i].at, cases[i].n));
        vv_buf_unref(buf);
        if (!cases[i].n) continue;
        WANT(cases[i].err, vv_objstore_get(r->s, key, VV_GET_RANGE, cases[i].at, cases[i].n, MS,
                                           &got, &info, &e));
        CHECK(cases[i].err || (got.n == cases[i].n && is_pattern(got.p, cases[i].at, got.n) &&
                               info.size == 300000));
        vv_buf_unref(got.buf);
    }
    OK(vv_objstore_get_suffix(r->s, key, 4096, MS, &got, &info, &e));
    CHECK(got.n == 4096 && is_pattern(got.p, 300000 - 4096, 4096) && info.size == 300000);
    vv_buf_unref(got.buf);
    OK(vv_objstore_get_suffix(r->s, key, 1 << 20, MS, &got, &info, &e));
    CHECK(got.n == 300000 && is_pattern(got.p, 0, got.n) && info.size == 300000);
    vv_buf_unref(got.buf);
}

static void limits(struct run *r)
{
    struct vv_slice got;
    const char *key = key_of(r, "ten");
    OK(vv_objstore_put_mem(r->s, key, "0123456789", 10, NULL, MS, NULL, &e));
    WANT(VV_E_LIMIT, vv_objstore_get_whole(r->s, key, 9, MS, &got, NULL, &e));
    OK(vv_objstore_get_whole(r->s, key, 10, MS, &got, NULL, &e));
    vv_buf_unref(got.buf);
}

static void bad_keys(struct run *r)
{
    char long_key[VV_OBJ_KEY_MAX + 2];
    memset(long_key, 'k', sizeof long_key - 1);
    long_key[sizeof long_key - 1] = 0;
    const char *const bad[] = {"", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "./a", long_key};
    struct vv_buf *buf;
    for (size_t i = 0; i < VV_COUNT(bad); i++) {
        WANT(VV_E_USAGE, vv_objstore_put_mem(r->s, bad[i], "x", 1, NULL, MS, NULL, &e));
        WANT(VV_E_USAGE, vv_objstore_head(r->s, bad[i], MS, NULL, &e));
        WANT(VV_E_USAGE, vv_objstore_delete(r->s, bad[i], MS, &e));
        CHECK(get_range(r, bad[i], 0, 1, MS, &buf) == VV_E_USAGE);
    }
}

static const char *const odd_names[] = {"space in it",
                                        "plus+plus",
                                        "per%cent%2Fcent",
                                        "amp&amp;",
                                        "quote'\"",
                                        "semi;colon:at@",
                                        "eq=eq?q#h",
                                        "tilde~.-_",
                                        "b{r}[a](c)",
                                        "star*!$,",
                                        "back\\slash",
                                        "pipe|^`",
                                        "less<more>",
                                        "\xc3\xa4\xe1\x88\xb4\xf0\x9f\x98\x80",
                                        "...",
                                        "a..b"};

/* Stored under exactly this name and found there. A backend may refuse a key (E_UNSUPPORTED), but
 * not bend it. */
static bool odd_key_works(struct run *r, const char *key, const char *text)
{
    struct vv_objlist list;
    size_t n = strlen(text);
    int err = vv_objstore_put_mem(r->s, key, text, n, NULL, MS, NULL, NULL);
    if (err == VV_E_UNSUPPORTED) return false;
    CHECK(err == VV_OK);
    expect_whole(r, key, text, n);
    OK(vv_objstore_list(r->s, key, NULL, 0, MS, &list, &e)); /* a prefix that needs encoding */
    bool first = list.count >= 1 && !strcmp(list.v[0].key, key);
    vv_objlist_release(&list);
    CHECK(first);
    OK(vv_objstore_list(r->s, key, key, 0, MS, &list, &e)); /* a start-after that does */
    bool none = list.count == 0;
    vv_objlist_release(&list);
    CHECK(none);
    return true;
}

static void odd_keys(struct run *r)
{
    const char *keys[VV_COUNT(odd_names)];
    char copies[VV_COUNT(odd_names)][400];
    int results[VV_COUNT(odd_names)];
    size_t n = 0, found = 0;
    struct vv_objlist list;
    for (size_t i = 0; i < VV_COUNT(odd_names); i++) {
        char text[32];
        snprintf(text, sizeof text, "odd %zu", i);
        snprintf(copies[n], sizeof copies[n], "%s", key_of(r, odd_names[i]));
        keys[n] = copies[n];
        if (odd_key_works(r, keys[n], text))
            n++;
        else
            printf("        (refuses '%s')\n", odd_names[i]);
    }
    OK(vv_objstore_list(r->s, key_of(r, ""), NULL, 0, MS, &list, &e));
    size_t count = list.count;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < list.count; k++)
            found += !strcmp(list.v[k].key, keys[i]);
    vv_objlist_release(&list);
    CHECK(count == n && found == n);
    OK(vv_objstore_delete_many(r->s, keys, n, MS, results, &e));
    for (size_t i = 0; i < n; i++)
        WANT(VV_E_NOENT, vv_objstore_head(r->s, keys[i], MS, NULL, &e));
}

static void long_key(struct run *r)
{
    char name[700];
    size_t n = 0;
    while (n < 600)
        n += (size_t)snprintf(name + n, sizeof name - n, "%0100zu/", n);
    snprintf(name + n, sizeof name - n, "%0100zu", n);
    OK(vv_objstore_put_mem(r->s, key_of(r, name), "long", 4, NULL, MS, NULL, &e));
    expect_whole(r, key_of(r, name), "long", 4);
}

static void deleting(struct run *r)
{
    const char *keys[5];
    char copies[5][300];
    int results[5];
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "d/%d", i);
        snprintf(copies[i], sizeof copies[i], "%s", key_of(r, name));
        keys[i] = copies[i];
        if (i != 2) OK(vv_objstore_put_mem(r->s, keys[i], "x", 1, NULL, MS, NULL, &e));
    }
    OK(vv_objstore_delete(r->s, keys[0], MS, &e));
    WANT(VV_E_NOENT, vv_objstore_head(r->s, keys[0], MS, NULL, &e));
    OK(vv_objstore_head(r->s, keys[1], MS, NULL, &e));
    OK(vv_objstore_delete_many(r->s, keys, 4, MS, results, &e)); /* 0 and 2 are not there */
    for (int i = 0; i < 4; i++)
        CHECK(results[i] == VV_OK);
    for (int i = 0; i < 4; i++)
        WANT(VV_E_NOENT, vv_objstore_head(r->s, keys[i], MS, NULL, &e));
    OK(vv_objstore_head(r->s, keys[4], MS, NULL, &e));
    OK(vv_objstore_delete_many(r->s, keys, 0, MS, results, &e));
}

static void expect_list(struct run *r, const char *prefix, const char *after, size_t max,
                        const char *const *want, size_t n, bool more)
{
    struct vv_objlist list;
    char after_key[400];
    if (after) snprintf(after_key, sizeof after_key, "%s", key_of(r, after));
    OK(vv_objstore_list(r->s, key_of(r, prefix), after ? after_key : NULL, max, MS, &list, &e));
    bool same = list.count == n && list.more == more;
    for (size_t i = 0; i < list.count && same; i++) {
        same = !strcmp(list.v[i].key, key_of(r, want[i])) && list.v[i].size == 1;
        same = same && list.v[i].mtime_ms > 1000000000000;
    }
    if (!same)
        for (size_t i = 0; i < list.count; i++)
            printf("  listed %s %llu\n", list.v[i].key, (unsigned long long)list.v[i].size);
    vv_objlist_release(&list);
    CHECK(same);
}

static void listing(struct run *r)
{
    /* '-' < '.' < '/' < '0': a directory walk that forgets it is out of order */
    static const char *const names[] = {"a", "b-1", "b.c", "b/1", "b/2/x", "b/2/y", "b0", "c/1"};
    for (size_t i = VV_COUNT(names); i-- > 0;)
        OK(vv_objstore_put_mem(r->s, key_of(r, names[i]), "x", 1, NULL, MS, NULL, &e));
    expect_list(r, "", NULL, 0, names, 8, false);
    expect_list(r, "", NULL, 3, names, 3, true);
    expect_list(r, "", "b.c", 3, names + 3, 3, true);
    expect_list(r, "", "b/2/y", 3, names + 6, 2, false);
    expect_list(r, "", "c/1", 3, names, 0, false);
    expect_list(r, "b", NULL, 0, names + 1, 6, false);
    expect_list(r, "b/", NULL, 0, names + 3, 3, false);
    expect_list(r, "b/", "b/1", 1, names + 4, 1, true);
    expect_list(r, "b/2", "b/2/", 0, names + 4, 2, false);
    expect_list(r, "b", "b/15", 0, names + 4, 3, false); /* a start that is no key */
    expect_list(r, "nothing", NULL, 0, names, 0, false);
}

static void many_keys(struct run *r)
{
    enum { N = 1203 };
    static char copies[N][64]; /* static: a failed check jumps out */
    static const char *keys[N];
    static int results[N];
    char base[64];
    snprintf(base, sizeof base, "%.40s", key_of(r, ""));
    for (size_t i = 0; i < N; i++) {
        snprintf(copies[i], sizeof copies[i], "%.50s%05zu", base, i);
        keys[i] = copies[i];
        OK(vv_objstore_put_mem(r->s, keys[i], "1", 1, NULL, MS, NULL, &e));
    }
    size_t seen = 0, pages = 0;
    char last[64] = "";
    for (bool more = true; more;) {
        struct vv_objlist list;
        OK(vv_objstore_list(r->s, base, last[0] ? last : NULL, 0, MS, &list, &e));
        for (size_t i = 0; i < list.count; i++)
            CHECK(seen < N && !strcmp(list.v[i].key, keys[seen++]));
        more = list.more;
        if (list.count) snprintf(last, sizeof last, "%s", list.v[list.count - 1].key);
        vv_objlist_release(&list);
        pages++;
    }
    CHECK(seen == N && pages == 2);
    OK(vv_objstore_delete_many(r->s, keys, N, MS, results, &e));
    struct vv_objlist list;
    OK(vv_objstore_list(r->s, base, NULL, 0, MS, &list, &e));
    size_t left = list.count;
    vv_objlist_release(&list);
    CHECK(left == 0);
}

static void conditions(struct run *r)
{
    struct vv_objinfo first, second;
    const char *key = key_of(r, "root");
    struct vv_objput absent = {.if_none_match = true};
    OK(vv_objstore_put_mem(r->s, key, "one", 3, &absent, MS, &first, &e));
    WANT(VV_E_CONFLICT, vv_objstore_put_mem(r->s, key, "two", 3, &absent, MS, NULL, &e));
    expect_whole(r, key, "one", 3);
    CHECK(first.etag[0]);
    struct vv_objput same = {.if_match = first.etag};
    OK(vv_objstore_put_mem(r->s, key, "two", 3, &same, MS, &second, &e));
    WANT(VV_E_CONFLICT, vv_objstore_put_mem(r->s, key, "three", 5, &same, MS, NULL, &e));
    expect_whole(r, key, "two", 3);
    OK(vv_objstore_delete(r->s, key, MS, &e));
    same.if_match = second.etag;
    WANT(VV_E_CONFLICT, vv_objstore_put_mem(r->s, key, "four", 4, &same, MS, NULL, &e));
    WANT(VV_E_NOENT, vv_objstore_head(r->s, key, MS, NULL, &e));
}

struct racer {
    struct run *r;
    const char *key, *if_match;
    char text[16];
    int err;
};

static void *race_main(void *arg)
{
    struct racer *racer = arg;
    struct vv_objput how = {.if_none_match = !racer->if_match, .if_match = racer->if_match};
    racer->err = vv_objstore_put_mem(racer->r->s, racer->key, racer->text, strlen(racer->text),
                                     &how, MS, NULL, NULL);
    return NULL;
}

/* Of many conditional puts at once exactly one wins, and its bytes are there. */
static void race(struct run *r, const char *key, const char *if_match)
{
    enum { N = 8 };
    struct racer racers[N];
    pthread_t threads[N];
    int winners = 0, winner = -1;
    for (int i = 0; i < N; i++) {
        racers[i] = (struct racer){.r = r, .key = key, .if_match = if_match};
        /* distinct from what is there, too: an equal ETag would let two win */
        snprintf(racers[i].text, sizeof racers[i].text, "%s %d", if_match ? "second" : "first", i);
        CHECK(!pthread_create(&threads[i], NULL, race_main, &racers[i]));
    }
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < N; i++) {
        CHECK(racers[i].err == VV_OK || racers[i].err == VV_E_CONFLICT);
        winners += racers[i].err == VV_OK;
        if (racers[i].err == VV_OK) winner = i;
    }
    CHECK(winners == 1);
    expect_whole(r, key, racers[winner].text, strlen(racers[winner].text));
}

static void concurrent_conditions(struct run *r)
{
    struct vv_objinfo info;
    char key[400];
    for (int round = 0; round < 3; round++) {
        char name[16];
        snprintf(name, sizeof name, "round%d", round);
        snprintf(key, sizeof key, "%s", key_of(r, name));
        race(r, key, NULL);
        OK(vv_objstore_head(r->s, key, MS, &info, &e));
        race(r, key, info.etag);
    }
}

static void unsupported_is_said(struct run *r)
{
    struct vv_objput absent = {.if_none_match = true}, match = {.if_match = "\"x\""},
                     both = {.if_none_match = true, .if_match = "\"x\""};
    const char *key = key_of(r, "k");
    WANT(VV_E_USAGE, vv_objstore_put_mem(r->s, key, "x", 1, &both, MS, NULL, &e));
    if (!(r->s->caps & VV_OBJ_CAP_IF_NONE_MATCH))
        WANT(VV_E_UNSUPPORTED, vv_objstore_put_mem(r->s, key, "x", 1, &absent, MS, NULL, &e));
    if (!(r->s->caps & VV_OBJ_CAP_IF_MATCH))
        WANT(VV_E_UNSUPPORTED, vv_objstore_put_mem(r->s, key, "x", 1, &match, MS, NULL, &e));
    WANT(VV_E_NOENT, vv_objstore_head(r->s, key, MS, NULL, &e));
}

static int failing_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    (void)ctx;
    if (at + n > 100000) return VV_E_IO;
    memset(dst, 'f', n);
    return VV_OK;
}

/* The source's error is the put's, and no half object appears. */
static void source_fails(struct run *r)
{
    struct vv_objsrc src = {.size = 3 << 20, .read = failing_read};
    const char *key = key_of(r, "half");
    WANT(VV_E_IO, vv_objstore_put(r->s, key, &src, NULL, MS, NULL, &e));
    WANT(VV_E_NOENT, vv_objstore_head(r->s, key, MS, NULL, &e));
}

static unsigned source_reads;
static int counted_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    source_reads += at == 0;
    return pattern_read(ctx, at, dst, n);
}

/* Sums that the caller has are used, and what is not what was summed is not kept by a store that checks. */
static void sums_of_the_caller(struct run *r, uint64_t size)
{
    enum { PARTS_MAX = 16 };
    struct vv_objsum v[PARTS_MAX];
    struct vv_objsrc src = {.size = size, .read = counted_read, .ctx = &src};
    struct vv_objsumming as = vv_objstore_summing(r->s, size);
    struct vv_objsums sums = {.as = as, .v = v};
    struct vv_objput how = {.sums = &sums};
    const char *key = key_of(r, "summed");
    if (!as.kinds) return;
    for (uint64_t at = 0; at < size; at += VV_MIN(as.piece, size - at)) {
        CHECK(sums.count < PARTS_MAX);
        OK(vv_objsum_source(&src, at, VV_MIN(as.piece, size - at), as.kinds, &v[sums.count++]));
    }
    source_reads = 0;
    OK(vv_objstore_put(r->s, key, &src, &how, MS, NULL, &e));
    CHECK(source_reads == 1); /* the sending */
    sums.as.piece = size / 2 + 1; /* of other pieces: not used */
    OK(vv_objstore_put(r->s, key, &src, &how, MS, NULL, &e));
    CHECK(source_reads == 3);
    sums.as.piece = as.piece;
    if (!(r->caps & VV_OBJ_CAP_CHECKED_PUT)) return;
    OK(vv_objstore_delete(r->s, key, MS, &e));
    v[sums.count - 1].md5[3] ^= 1; /* the other sum only some stores look at, which is why there are both */
    CHECK(vv_objstore_put(r->s, key, &src, &how, 2000, NULL, NULL) != VV_OK);
    WANT(VV_E_NOENT, vv_objstore_head(r->s, key, MS, NULL, &e));
}

static void sums_whole(struct run *r)
{
    sums_of_the_caller(r, 300000);
}

static void sums_of_parts(struct run *r)
{
    sums_of_the_caller(r, (12 << 20) + 77);
}

static void many_async(struct run *r)
{
    enum { N = 200 };
    struct vv_objsrc src = {.size = 1 << 20, .read = pattern_read};
    struct vv_objget gets[N];
    struct waiter w;
    char key[400], missing[400];
    src.ctx = &src;
    snprintf(key, sizeof key, "%s", key_of(r, "object"));
    snprintf(missing, sizeof missing, "%s", key_of(r, "missing"));
    OK(vv_objstore_put(r->s, key, &src, NULL, MS, NULL, &e));
    waiter_init(&w);
    for (unsigned i = 0; i < N; i++) {
        gets[i] = (struct vv_objget){.key = i % 10 == 9 ? missing : key,
                                     .at = i * 5000,
                                     .n = 1 + i * 100,
                                     .deadline_ms = MS,
                                     .done = on_done,
                                     .ctx = &w};
        vv_objstore_get_async(r->s, &gets[i]);
    }
    waiter_wait(&w, N);
    unsigned wrong = 0;
    for (unsigned i = 0; i < N; i++) {
        if (i % 10 == 9)
            wrong += gets[i].err != VV_E_NOENT;
        else
            wrong += gets[i].err || gets[i].buf->cap != gets[i].n ||
                     !is_pattern(gets[i].buf->data, gets[i].at, gets[i].n);
        vv_buf_unref(gets[i].buf);
    }
    CHECK(w.done == N);
    CHECK(wrong == 0);
}

struct sunk {
    struct vv_objget get;
    uint8_t *p;
    size_t at; /* arrived */
    unsigned wrong, pieces;
};

static size_t sunk_room(struct vv_objget *get, size_t at, uint8_t **dst)
{
    struct sunk *k = VV_CONTAINER(get, struct sunk, get);
    k->wrong += at != k->at;
    *dst = k->p + at;
    return 1 + at % 70001;
}

static void sunk_arrived(struct vv_objget *get, size_t at, size_t n)
{
    struct sunk *k = VV_CONTAINER(get, struct sunk, get);
    k->wrong += at != k->at || !n || n > 1 + at % 70001;
    k->at += n;
    k->pieces++;
}

static const struct vv_objsink sunk_sink = {sunk_room, sunk_arrived};

/* In order, each byte once, and only what was asked for. */
static void into_a_sink(struct run *r)
{
    static const struct { size_t at, n; int err; } cases[] = {
        {0, 1 << 20, VV_OK}, {1, 999999, VV_OK}, {77, 1, VV_OK}, {5, 0, VV_OK}, {1000000, 1 << 20, VV_E_CORRUPT}};
    struct vv_objsrc src = {.size = 1 << 20, .read = pattern_read};
    const char *key = key_of(r, "object");
    src.ctx = &src;
    OK(vv_objstore_put(r->s, key, &src, NULL, MS, NULL, &e));
    for (size_t i = 0; i < VV_COUNT(cases); i++) {
        struct waiter w;
        struct sunk k = {.p = calloc(2, 1 << 20)};
        waiter_init(&w);
        k.get = (struct vv_objget){.key = key, .at = cases[i].at, .n = cases[i].n, .deadline_ms = MS,
                                   .done = on_done, .ctx = &w, .sink = &sunk_sink};
        vv_objstore_get_async(r->s, &k.get);
        waiter_wait(&w, 1);
        CHECK(k.get.err == cases[i].err && !k.get.buf);
        CHECK(!k.wrong && is_pattern(k.p, cases[i].at, k.at));
        CHECK(cases[i].err || k.at == cases[i].n);
        free(k.p);
    }
}

struct marked_get {
    struct vv_objget get;
    bool over; /* under the waiter's lock: till then get is the store's */
};

static void on_marked_done(struct vv_objget *get)
{
    struct waiter *w = get->ctx;
    pthread_mutex_lock(&w->lock);
    VV_CONTAINER(get, struct marked_get, get)->over = true;
    pthread_mutex_unlock(&w->lock);
    on_done(get);
}

static void canceling(struct run *r)
{
    enum { N = 50 };
    struct vv_objsrc src = {.size = 1 << 20, .read = pattern_read};
    struct marked_get gets[N];
    struct waiter w;
    const char *key = key_of(r, "object");
    src.ctx = &src;
    OK(vv_objstore_put(r->s, key, &src, NULL, MS, NULL, &e));
    waiter_init(&w);
    for (unsigned i = 0; i < N; i++) {
        gets[i] = (struct marked_get){
            .get = {.key = key, .n = 1 << 20, .deadline_ms = MS, .done = on_marked_done, .ctx = &w}};
        vv_objstore_get_async(r->s, &gets[i].get);
    }
    for (unsigned i = 0; i < N; i += 2) { /* what has not ended may be canceled */
        pthread_mutex_lock(&w.lock);
        if (!gets[i].over) vv_objstore_cancel(r->s, &gets[i].get);
        pthread_mutex_unlock(&w.lock);
    }
    waiter_wait(&w, N);
    for (unsigned i = 0; i < N; i++) {
        const struct vv_objget *get = &gets[i].get;
        bool canceled = get->err == VV_E_SHUTDOWN && i % 2 == 0;
        CHECK(canceled || get->err == VV_OK);
        CHECK((get->buf != NULL) == (get->err == VV_OK));
        vv_buf_unref(get->buf);
    }
}

static void big_object(struct run *r)
{
    struct vv_objsrc src = {.size = (24 << 20) + 12345, .read = pattern_read};
    struct vv_objinfo info, head;
    struct vv_buf *buf;
    struct vv_slice got;
    const char *key = key_of(r, "big.seg");
    src.ctx = &src;
    OK(vv_objstore_put(r->s, key, &src, NULL, MS, &info, &e));
    CHECK(info.size == src.size);
    OK(vv_objstore_head(r->s, key, MS, &head, &e));
    CHECK(head.size == src.size);
    CHECK(!info.etag[0] || !head.etag[0] || !strcmp(info.etag, head.etag));
    for (uint64_t at = 0; at < src.size; at += 4 << 20) {
        size_t n = (size_t)VV_MIN(src.size - at, (uint64_t)4 << 20);
        CHECK(get_range(r, key, at, n, MS, &buf) == VV_OK);
        bool same = is_pattern(buf->data, at, n);
        vv_buf_unref(buf);
        CHECK(same);
    }
    OK(vv_objstore_get_suffix(r->s, key, 20000, MS, &got, &head, &e));
    CHECK(got.n == 20000 && is_pattern(got.p, src.size - 20000, 20000) && head.size == src.size);
    vv_buf_unref(got.buf);
}

/* A multipart upload that fails leaves neither object nor parts. */
static void multipart_fails(struct run *r)
{
    size_t aborted = 0;
    char key[400];
    struct vv_objsrc src = {.size = 24 << 20, .read = failing_read};
    snprintf(key, sizeof key, "%s", key_of(r, "half.seg"));
    WANT(VV_E_IO, vv_objstore_put(r->s, key, &src, NULL, MS, NULL, &e));
    WANT(VV_E_NOENT, vv_objstore_head(r->s, key, MS, NULL, &e));
    OK(vv_objstore_abort_stale(r->s, key, vv_wall_ms(r->s->env) + 60000, MS, &aborted, &e));
    CHECK(aborted == 0);
}

static void deadlines(struct run *r)
{
    struct vv_objsrc src = {.size = 8 << 20, .read = pattern_read};
    struct vv_buf *buf = NULL;
    const char *key = key_of(r, "object");
    src.ctx = &src;
    OK(vv_objstore_put(r->s, key, &src, NULL, MS, NULL, &e));
    int err = get_range(r, key, 0, 8 << 20, 1, &buf); /* may be in time, on a fast store */
    CHECK(err == VV_OK || err == VV_E_TIMEOUT || err == VV_E_AGAIN);
    vv_buf_unref(buf);
}

static const struct test {
    const char *name;
    void (*run)(struct run *r);
    unsigned needs;
    bool many, big;
} tests[] = {
    {"put_and_get", put_and_get, 0, false, false},
    {"empty_object", empty_object, 0, false, false},
    {"missing_key", missing_key, 0, false, false},
    {"ranges", ranges, 0, false, false},
    {"limits", limits, 0, false, false},
    {"bad_keys", bad_keys, 0, false, false},
    {"odd_keys", odd_keys, 0, false, false},
    {"long_key", long_key, 0, false, false},
    {"deleting", deleting, 0, false, false},
    {"listing", listing, 0, false, false},
    {"many_keys", many_keys, 0, true, false},
    {"conditions", conditions, VV_OBJ_CAP_CONDITIONAL_PUT, false, false},
    {"concurrent_conditions", concurrent_conditions, VV_OBJ_CAP_CONDITIONAL_PUT, false, false},
    {"unsupported_is_said", unsupported_is_said, 0, false, false},
    {"source_fails", source_fails, 0, false, false},
    {"sums_whole", sums_whole, 0, false, false},
    {"sums_of_parts", sums_of_parts, 0, false, true},
    {"many_async", many_async, 0, false, false},
    {"into_a_sink", into_a_sink, 0, false, false},
    {"canceling", canceling, 0, false, false},
    {"big_object", big_object, 0, false, true},
    {"multipart_fails", multipart_fails, VV_OBJ_CAP_MULTIPART, false, true},
    {"deadlines", deadlines, 0, false, false},
};

static void clean(struct vv_objstore *s, const char *root)
{
    for (bool more = true; more;) {
        struct vv_objlist list;
        if (vv_objstore_list(s, root, NULL, 0, MS, &list, NULL)) return;
        const char **keys = calloc(list.count + 1, sizeof *keys);
        int *results = calloc(list.count + 1, sizeof *results);
        for (size_t i = 0; keys && i < list.count; i++)
            keys[i] = list.v[i].key;
        more = keys && results && list.more &&
               !vv_objstore_delete_many(s, keys, list.count, MS, results, NULL);
        if (keys && results && !list.more)
            vv_objstore_delete_many(s, keys, list.count, MS, results, NULL);
        free(keys);
        free(results);
        vv_objlist_release(&list);
    }
}

/* Apart, because a longjmp may clobber the locals of the function that called setjmp. */
static bool passes(struct run *r, const struct test *t)
{
    if (setjmp(r->failed)) return false;
    t->run(r);
    return true;
}

int conformance_run(struct vv_objstore *s, const char *root,
                    const struct conformance_options *options)
{
    int failed = 0;
    for (size_t i = 0; i < VV_COUNT(tests); i++) {
        const struct test *t = &tests[i];
        struct run r = {.s = s, .name = t->name, .caps = options->caps};
        if (options->only && !strstr(t->name, options->only)) continue;
        if ((t->many && !options->many) || (t->big && !options->big)) continue;
        if ((t->needs & options->caps) != t->needs) {
            printf("skipped %s: the store does not have what it tests\n", t->name);
            continue;
        }
        snprintf(r.root, sizeof r.root, "%s", root);
        bool ok = passes(&r, t);
        if (ok) printf("ok      %s\n", t->name);
        failed += !ok;
        fflush(stdout);
    }
    clean(s, root);
    return failed;
}
