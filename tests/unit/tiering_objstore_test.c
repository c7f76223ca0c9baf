/* tiering_objstore_test.c — the conformance suite over a directory, plain and behind a wrapper
 * without faults, inline and with threads; then what the fault wrapper promises, and what is the
 * directory backend's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conformance.h"
#include "varve/bytes.h"

enum { MS = 10000 };

struct fixture {
    char dir[64], url[80];
    struct vv_objstore *store;
};

static struct vv_objstore *open_dir(struct fixture *f, bool inline_async)
{
    struct vv_objstore_config config = {.inline_async = inline_async};
    struct vv_error e;
    snprintf(f->dir, sizeof f->dir, "/tmp/varve-objstore-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->url, sizeof f->url, "fs:%s/deep/store", f->dir);
    assert_int_equal(vv_objstore_open(f->url, &config, &vv_env_posix, &f->store, &e), 0);
    return f->store;
}

static struct vv_objstore *open_fault(struct fixture *f)
{
    struct vv_objstore *inner = open_dir(f, false);
    assert_int_equal(vv_objfault_open(inner, 7, &f->store), 0);
    return f->store;
}

static void close_dir(struct fixture *f)
{
    char command[128];
    vv_objstore_close(f->store);
    snprintf(command, sizeof command, "rm -rf '%s'", f->dir);
    assert_int_equal(system(command), 0);
}

static void conforms(struct fixture *f)
{
    struct conformance_options options = {.many = true, .big = true};
    assert_int_equal(vv_objstore_probe(f->store, "probe/", MS, &options.caps, NULL), 0);
    assert_int_equal(options.caps, VV_OBJ_CAP_CONDITIONAL_PUT | VV_OBJ_CAP_ETAG_IS_MD5);
    assert_int_equal(conformance_run(f->store, "run/", &options), 0);
    struct vv_objlist list;
    assert_int_equal(vv_objstore_list(f->store, "", NULL, 0, MS, &list, NULL), 0);
    assert_int_equal(list.count, 0);
    vv_objlist_release(&list);
    close_dir(f);
}

static void directory_conforms(void **state)
{
    struct fixture f;
    (void)state;
    open_dir(&f, false);
    conforms(&f);
}

static void inline_directory_conforms(void **state)
{
    struct fixture f;
    (void)state;
    open_dir(&f, true);
    conforms(&f);
}

static void faultless_wrapper_conforms(void **state)
{
    struct fixture f;
    (void)state;
    open_fault(&f);
    conforms(&f);
}

/* ---- the directory's own ---- */

static void objects_are_plain_files(void **state)
{
    struct fixture f;
    char path[160], text[8] = "";
    (void)state;
    open_dir(&f, false);
    assert_int_equal(vv_objstore_put_mem(f.store, "v1/t/x", "bytes", 5, NULL, MS, NULL, NULL), 0);
    snprintf(path, sizeof path, "%s/deep/store/v1/t/x", f.dir);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(text, 1, 8, file), 5);
    fclose(file);
    assert_string_equal(text, "bytes");
    assert_int_equal(vv_objstore_put_mem(f.store, ".tmp/x", "no", 2, NULL, MS, NULL, NULL),
                     VV_E_USAGE);
    assert_int_equal(vv_objstore_delete(f.store, "v1/t/x", MS, NULL), 0);
    snprintf(path, sizeof path, "%s/deep/store/v1", f.dir); /* empty directories go too */
    assert_int_not_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "%s/deep/store", f.dir);
    assert_int_equal(access(path, F_OK), 0);
    close_dir(&f);
}

static void bad_urls(void **state)
{
    static const char *const bad[] = {"",
                                      "fs:",
                                      "fs:/",
                                      "s3:/x",
                                      "http://x",
                                      "s3://",
                                      "s3://ab",
                                      "s3://UP_/../x",
                                      "s3://bucket/a//b",
                                      "s3://buck%et"};
    (void)state;
    struct vv_objstore_config config = {
        .ignore_environment = true, .access_key_id = "a", .secret_access_key = "b"};
    for (size_t i = 0; i < VV_COUNT(bad); i++) {
        struct vv_objstore *store;
        struct vv_error e = {0};
        assert_int_equal(vv_objstore_open(bad[i], &config, &vv_env_posix, &store, &e), VV_E_CONFIG);
        assert_null(store);
        assert_int_not_equal(e.text[0], 0);
    }
}

/* ---- faults ---- */

static void rule(struct fixture *f, struct vv_objfault_rule r)
{
    assert_true(vv_objfault_add(f->store, &r) >= 0);
}

static int put(struct fixture *f, const char *key, const char *text)
{
    return vv_objstore_put_mem(f->store, key, text, strlen(text), NULL, MS, NULL, NULL);
}

static void expect(struct fixture *f, const char *key, const char *text)
{
    struct vv_slice got;
    assert_int_equal(vv_objstore_get_whole(f->store, key, 1000, MS, &got, NULL, NULL), 0);
    assert_int_equal(got.n, strlen(text));
    assert_memory_equal(got.p, text, got.n);
    vv_buf_unref(got.buf);
}

static void fail_and_lose(void **state)
{
    struct fixture f;
    (void)state;
    open_fault(&f);
    rule(&f, (struct vv_objfault_rule){.op = VV_OBJ_PUT,
                                       .key_part = "seg",
                                       .from = 2,
                                       .count = 1,
                                       .action = VV_FAULT_FAIL,
                                       .err = VV_E_NOSPC});
    rule(&f, (struct vv_objfault_rule){
                 .op = VV_OBJ_PUT, .key_part = "lost", .action = VV_FAULT_LOSE_REPLY});
    rule(&f,
         (struct vv_objfault_rule){.op = -1, .key_part = "gone", .action = VV_FAULT_DROP_WRITE});
    assert_int_equal(put(&f, "1.seg", "one"), 0);
    assert_int_equal(put(&f, "2.seg", "two"), VV_E_NOSPC);
    assert_int_equal(put(&f, "2.seg", "two"), 0);
    assert_int_equal(vv_objfault_hits(f.store, 0), 1);
    assert_int_equal(put(&f, "lost", "bytes"), VV_E_TIMEOUT);
    expect(&f, "lost", "bytes");
    assert_int_equal(put(&f, "gone", "bytes"), 0);
    assert_int_equal(vv_objstore_head(f.store, "gone", MS, NULL, NULL), VV_E_NOENT);
    vv_objfault_clear(f.store);
    assert_int_equal(put(&f, "gone", "bytes"), 0);
    rule(&f, (struct vv_objfault_rule){.op = VV_OBJ_DELETE, .action = VV_FAULT_DROP_WRITE});
    assert_int_equal(vv_objstore_delete(f.store, "gone", MS, NULL), 0);
    expect(&f, "gone", "bytes");
    close_dir(&f);
}

static void damaged_bytes(void **state)
{
    struct fixture f;
    struct vv_objinfo info;
    (void)state;
    open_fault(&f);
    rule(&f, (struct vv_objfault_rule){
                 .op = VV_OBJ_PUT, .key_part = "short", .action = VV_FAULT_TRUNCATE, .arg = 3});
    rule(&f, (struct vv_objfault_rule){
                 .op = VV_OBJ_PUT, .key_part = "flip", .action = VV_FAULT_FLIP, .arg = 1});
    assert_int_equal(vv_objstore_put_mem(f.store, "short", "bytes", 5, NULL, MS, &info, NULL), 0);
    assert_int_equal(info.size, 5); /* so says the liar */
    expect(&f, "short", "byt");
    assert_int_equal(put(&f, "flip", "aaaa"), 0);
    expect(&f, "flip", "aqaa");
    vv_objfault_clear(f.store);
    rule(&f, (struct vv_objfault_rule){.op = VV_OBJ_GET, .action = VV_FAULT_FLIP, .arg = 0});
    expect(&f, "flip", "qqaa");
    expect(&f, "flip", "qqaa"); /* the stored bytes stayed */
    close_dir(&f);
}

static void percent_is_seeded(void **state)
{
    unsigned first = 0;
    (void)state;
    for (int round = 0; round < 2; round++) {
        struct fixture f;
        unsigned failed = 0;
        open_fault(&f);
        rule(&f,
             (struct vv_objfault_rule){.op = VV_OBJ_HEAD, .percent = 30, .action = VV_FAULT_FAIL});
        for (unsigned i = 0; i < 32; i++)
            if (vv_objstore_head(f.store, "x", MS, NULL, NULL) == VV_E_AGAIN) failed |= 1u << i;
        assert_int_not_equal(failed, 0);
        assert_int_not_equal(failed, UINT32_MAX);
        if (round) assert_int_equal(failed, first);
        first = failed;
        close_dir(&f);
    }
}

static void lying_lists(void **state)
{
    struct fixture f;
    struct vv_objlist list;
    (void)state;
    open_fault(&f);
    assert_int_equal(put(&f, "a", "1"), 0);
    assert_int_equal(put(&f, "b", "1"), 0);
    rule(&f,
         (struct vv_objfault_rule){.op = VV_OBJ_LIST, .count = 1, .action = VV_FAULT_LIST_STALE});
    rule(&f,
         (struct vv_objfault_rule){.op = VV_OBJ_LIST, .count = 1, .action = VV_FAULT_LIST_MISSING});
    rule(&f, (struct vv_objfault_rule){
                 .op = VV_OBJ_LIST, .count = 1, .action = VV_FAULT_LIST_EXTRA, .arg = 9});
    rule(&f, (struct vv_objfault_rule){.op = VV_OBJ_LIST, .action = VV_FAULT_LIST_ENDLESS});
    static const size_t counts[] = {1, 1, 3, 2};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(vv_objstore_list(f.store, "", NULL, 0, MS, &list, NULL), 0);
        assert_int_equal(list.count, counts[i]);
        assert_int_equal(list.more, i == 3);
        if (i == 2) assert_string_equal(list.v[2].key, "b0");
        vv_objlist_release(&list);
    }
    /* the page that goes back is found out: no caller loops for ever */
    assert_int_equal(vv_objstore_list(f.store, "", "b", 0, MS, &list, NULL), VV_E_PROTO);
    close_dir(&f);
}

struct counted {
    struct vv_objget get;
    pthread_mutex_t lock;
    pthread_cond_t change;
    int done;
};

static void counted_done(struct vv_objget *get)
{
    struct counted *c = get->ctx;
    pthread_mutex_lock(&c->lock);
    c->done++;
    pthread_cond_broadcast(&c->change);
    pthread_mutex_unlock(&c->lock);
}

static void counted_start(struct fixture *f, struct counted *c, int64_t deadline_ms)
{
    memset(c, 0, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->change, NULL);
    c->get = (struct vv_objget){
        .key = "k", .n = 3, .deadline_ms = deadline_ms, .done = counted_done, .ctx = c};
    vv_objstore_get_async(f->store, &c->get);
}

static int counted_wait(struct counted *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->done)
        pthread_cond_wait(&c->change, &c->lock);
    pthread_mutex_unlock(&c->lock);
    assert_int_equal(c->done, 1);
    if (!c->get.err) assert_memory_equal(c->get.buf->data, "abc", 3);
    vv_buf_unref(c->get.buf);
    return c->get.err;
}

static void stalls_end_four_ways(void **state)
{
    struct fixture f;
    struct counted released, canceled, late, closed;
    (void)state;
    open_fault(&f);
    assert_int_equal(put(&f, "k", "abc"), 0);
    rule(&f, (struct vv_objfault_rule){.op = VV_OBJ_GET_ASYNC, .action = VV_FAULT_STALL});
    counted_start(&f, &late, 20);
    assert_int_equal(counted_wait(&late), VV_E_TIMEOUT);
    counted_start(&f, &released, MS);
    counted_start(&f, &canceled, MS);
    assert_int_equal(vv_objfault_stalled(f.store), 2);
    vv_objstore_cancel(f.store, &canceled.get);
    assert_int_equal(counted_wait(&canceled), VV_E_SHUTDOWN);
    assert_int_equal(vv_objfault_stalled(f.store), 1);
    vv_objfault_release(f.store);
    assert_int_equal(counted_wait(&released), VV_OK);
    counted_start(&f, &closed, MS);
    close_dir(&f);
    assert_int_equal(counted_wait(&closed), VV_E_SHUTDOWN);
}

static void *stalled_put(void *arg)
{
    struct fixture *f = arg;
    return (void *)(intptr_t)put(f, "k", "abc");
}

static void sync_stall(void **state)
{
    struct fixture f;
    pthread_t thread;
    void *err;
    (void)state;
    open_fault(&f);
    rule(&f, (struct vv_objfault_rule){.op = VV_OBJ_PUT, .action = VV_FAULT_STALL});
    assert_int_equal(pthread_create(&thread, NULL, stalled_put, &f), 0);
    while (vv_objfault_stalled(f.store) == 0)
        sched_yield();
    assert_int_equal(vv_objstore_head(f.store, "k", MS, NULL, NULL), VV_E_NOENT);
    vv_objfault_release(f.store);
    pthread_join(thread, &err);
    assert_int_equal((intptr_t)err, 0);
    expect(&f, "k", "abc");
    assert_int_equal(pthread_create(&thread, NULL, stalled_put, &f), 0);
    while (vv_objfault_stalled(f.store) == 0)
        sched_yield();
    vv_objstore_interrupt(f.store);
    pthread_join(thread, &err);
    assert_true((intptr_t)err != 0);
    assert_int_equal(put(&f, "k", "abc"), VV_E_SHUTDOWN);
    close_dir(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directory_conforms),
        cmocka_unit_test(inline_directory_conforms),
        cmocka_unit_test(faultless_wrapper_conforms),
        cmocka_unit_test(objects_are_plain_files),
        cmocka_unit_test(bad_urls),
        cmocka_unit_test(fail_and_lose),
        cmocka_unit_test(damaged_bytes),
        cmocka_unit_test(percent_is_seeded),
        cmocka_unit_test(lying_lists),
        cmocka_unit_test(stalls_end_four_ways),
        cmocka_unit_test(sync_stall),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
