/* cmd_bench_s3.c — `varve bench s3`: what the object store itself gives, through the broker's own store layer.
 *
 * Three passes over the same objects: PUTs on some threads, ranged GETs with some under way, and the same GETs relayed:
 * every range is also sent over a loopback TCP connection to a thread that throws it away, which is the least that
 * a broker's cold read must do. What a broker achieves is to be seen beside these.
 *
 * Threads: this one submits GETs, takes what has come and relays it; `done` runs on the store's thread and only puts
 * the GET on a list; putters and the relay's reader live for one pass. CPU time is this process's without the reader. */
#include "bench.h"
#include "bucket.h"
#include "probes.h"
#include "progress.h"
#include "table.h"

#include "config.h"
#include "varve/bytes.h"
#include "varve/objstore.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MIB         ((uint64_t)1 << 20)
#define DEADLINE_MS 120000
#define SINK_BYTES  ((size_t)1 << 20)

struct object {
    char *key;
    uint64_t size;
};
struct range { /* one GET under way */
    struct vv_objget get;
    struct s3 *s;
    int64_t began_us;
    struct range *next;
};
struct s3 {
    const struct vv_args *args;
    struct vv_objstore *store;
    struct vv_report *report;
    struct vv_progress progress;
    struct vv_hist hist;
    struct object *objects;
    size_t count, cap;
    uint64_t total;
    int64_t range_bytes, gets, putters;
    uint8_t *content; /* 1 MiB, random */
    pthread_mutex_t lock; /* what follows */
    pthread_cond_t came;
    struct range *done;
    size_t next_put;
    int err;
    struct vv_error e;
    /* the running pass */
    size_t object;
    uint64_t at, moved;
    int relay_fd;
};

static void failed(struct s3 *s, int err, const struct vv_error *e)
{
    pthread_mutex_lock(&s->lock);
    if (!s->err) {
        s->err = err;
        vv_error_set(&s->e, err, "%s", e && e->text[0] ? e->text : vv_err_name(err));
    }
    pthread_mutex_unlock(&s->lock);
}

static int add_object(struct s3 *s, const char *key, uint64_t size)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 64;
        struct object *v = realloc(s->objects, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        s->objects = v;
        s->cap = cap;
    }
    s->objects[s->count].key = strdup(key);
    if (!s->objects[s->count].key) return VV_E_NOMEM;
    s->objects[s->count++].size = size;
    s->total += size;
    return 0;
}

/* ---- a pass's rows ---- */

struct clock {
    int64_t began_us;
    double cpu;
};

static struct clock clock_start(struct s3 *s)
{
    memset(&s->hist, 0, sizeof s->hist);
    vv_progress_begin(&s->progress, "varve bench s3", s->total, true);
    return (struct clock){vv_mono_us(&vv_env_posix), vv_bench_own_cpu()};
}

static void clock_stop(struct s3 *s, const struct clock *c, const char *section, double others_cpu)
{
    double seconds = (double)VV_MAX(vv_mono_us(&vv_env_posix) - c->began_us, 1) / 1e6;
    double cpu = vv_bench_own_cpu() - c->cpu - others_cpu;
    vv_progress_end(&s->progress);
    vv_report_add(s->report, section, "throughput", "MB/s", 1, (double)s->total / seconds / 1e6);
    vv_report_add(s->report, section, "seconds", "s", 3, seconds);
    vv_report_add(s->report, section, "CPU", "s/GB", 3, cpu / ((double)s->total / 1e9));
    vv_report_add(s->report, section, "requests", "", 0, (double)s->hist.count);
    vv_report_add(s->report, section, "request p50", "ms", 2, (double)vv_hist_at(&s->hist, 0.5) / 1000);
    vv_report_add(s->report, section, "request p99", "ms", 2, (double)vv_hist_at(&s->hist, 0.99) / 1000);
}

/* ---- PUT ---- */

static int content_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    const struct s3 *s = ctx;
    while (n) {
        size_t from = (size_t)(at % MIB), k = VV_MIN(n, (size_t)MIB - from);
        memcpy(dst, s->content + from, k);
        dst = (uint8_t *)dst + k;
        at += k;
        n -= k;
    }
    return 0;
}

static void *put_some(void *arg)
{
    struct s3 *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        size_t i = s->err ? s->count : s->next_put++;
        pthread_mutex_unlock(&s->lock);
        if (i >= s->count) return NULL;
        struct vv_error e = {0};
        const struct vv_objsrc src = {s->objects[i].size, content_read, s};
        int64_t began = vv_mono_us(&vv_env_posix);
        int err = vv_objstore_put(s->store, s->objects[i].key, &src, NULL, DEADLINE_MS, NULL, &e);
        if (err) failed(s, err, &e);
        pthread_mutex_lock(&s->lock);
        vv_hist_add(&s->hist, (uint64_t)(vv_mono_us(&vv_env_posix) - began));
        s->moved += s->objects[i].size;
        vv_progress_show(&s->progress, s->moved, 0);
        pthread_mutex_unlock(&s->lock);
    }
}

static void put_pass(struct s3 *s)
{
    enum { THREADS_MAX = 64 };
    pthread_t threads[THREADS_MAX];
    int64_t started = 0;
    s->moved = 0;
    struct clock c = clock_start(s);
    while (started + 1 < s->putters && !pthread_create(&threads[started], NULL, put_some, s))
        started++;
    put_some(s);
    for (int64_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    clock_stop(s, &c, "put", 0);
}

/* ---- GET ---- */

static void get_done(struct vv_objget *g)
{
    struct range *r = g->ctx;
    pthread_mutex_lock(&r->s->lock);
    r->next = r->s->done;
    r->s->done = r;
    pthread_cond_signal(&r->s->came);
    pthread_mutex_unlock(&r->s->lock);
}

/* The next range of the pass; false: there is none. */
static bool submit(struct s3 *s, struct range *r)
{
    while (s->object < s->count && s->at >= s->objects[s->object].size) {
        s->object++;
        s->at = 0;
    }
    if (s->err || s->object == s->count) return false;
    const struct object *o = &s->objects[s->object];
    uint64_t n = VV_MIN((uint64_t)s->range_bytes, o->size - s->at);
    r->get = (struct vv_objget){.key = o->key, .at = s->at, .n = (size_t)n, .deadline_ms = DEADLINE_MS,
                                .done = get_done, .ctx = r};
    s->at += n;
    r->began_us = vv_mono_us(&vv_env_posix);
    vv_objstore_get_async(s->store, &r->get);
    return true;
}

static void relay(struct s3 *s, const uint8_t *p, size_t n)
{
    while (n && !s->err) {
        ssize_t k = send(s->relay_fd, p, n, MSG_NOSIGNAL);
        if (k <= 0) {
            failed(s, VV_E_IO, NULL);
            return;
        }
        p += k;
        n -= (size_t)k;
    }
}

static struct range *take(struct s3 *s)
{
    pthread_mutex_lock(&s->lock);
    while (!s->done) pthread_cond_wait(&s->came, &s->lock);
    struct range *r = s->done;
    s->done = r->next;
    pthread_mutex_unlock(&s->lock);
    return r;
}

static void get_all(struct s3 *s)
{
    size_t running = 0;
    struct range *slots = calloc((size_t)s->gets, sizeof *slots);
    if (!slots) {
        failed(s, VV_E_NOMEM, NULL);
        return;
    }
    s->object = 0;
    s->at = s->moved = 0;
    for (int64_t i = 0; i < s->gets; i++) {
        slots[i].s = s;
        running += submit(s, &slots[i]);
    }
    while (running) {
        struct range *r = take(s);
        struct vv_objget g = r->get;
        if (g.err) failed(s, g.err, &g.error);
        vv_hist_add(&s->hist, (uint64_t)(vv_mono_us(&vv_env_posix) - r->began_us));
        if (!submit(s, r)) running--; /* the store works while this range is relayed */
        if (!g.err) {
            s->moved += g.n;
            if (s->relay_fd >= 0) relay(s, g.buf->data, g.n);
            vv_buf_unref(g.buf);
        }
        vv_progress_show(&s->progress, s->moved, 0);
    }
    free(slots);
}

struct sink {
    int fd;
    double cpu;
};

static void *swallow(void *arg)
{
    struct sink *k = arg;
    struct timespec t;
    uint8_t *p = malloc(SINK_BYTES);
    while (p && recv(k->fd, p, SINK_BYTES, 0) > 0) {}
    free(p);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    k->cpu = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    return NULL;
}

static void get_pass(struct s3 *s, bool relayed)
{
    struct sink k = {.fd = -1};
    pthread_t reader;
    int fds[2];
    s->relay_fd = -1;
    if (relayed) {
        int err = vv_probe_tcp_pair(fds);
        if (!err) k.fd = fds[1];
        if (!err && pthread_create(&reader, NULL, swallow, &k)) {
            close(fds[0]);
            close(fds[1]);
            err = VV_E_NOMEM;
        }
        if (err) {
            failed(s, err, NULL);
            return;
        }
        s->relay_fd = fds[0];
    }
    struct clock c = clock_start(s);
    get_all(s);
    if (relayed) {
        shutdown(fds[0], SHUT_WR); /* all of it has arrived when the reader ends */
        pthread_join(reader, NULL);
        close(fds[0]);
        close(fds[1]);
    }
    clock_stop(s, &c, relayed ? "get, relayed" : "get", k.cpu);
}

/* ---- objects ---- */

static int own_objects(struct s3 *s, int64_t mib, int64_t object_mib)
{
    char key[96];
    uint8_t b[8];
    int err = 0;
    vv_random(&vv_env_posix, b, sizeof b);
    for (int64_t i = 0; i < mib && !err; i += object_mib) {
        snprintf(key, sizeof key, "varve-bench/%016llx/%06lld", (unsigned long long)vv_get64(b), (long long)i);
        err = add_object(s, key, (uint64_t)VV_MIN(object_mib, mib - i) * MIB);
    }
    s->content = malloc(MIB);
    if (!s->content) return VV_E_NOMEM;
    vv_random(&vv_env_posix, s->content, MIB);
    return err;
}

static int existing_objects(struct s3 *s, const char *prefix, struct vv_error *e)
{
    char *after = NULL;
    bool more = true;
    int err = 0;
    while (more && !err) {
        struct vv_objlist page = {0};
        err = vv_objstore_list(s->store, prefix, after, 0, DEADLINE_MS, &page, e);
        for (size_t i = 0; i < page.count && !err; i++)
            if (page.v[i].size) err = add_object(s, page.v[i].key, page.v[i].size);
        more = !err && page.more && page.count;
        free(after);
        after = more ? strdup(page.v[page.count - 1].key) : NULL;
        if (more && !after) err = VV_E_NOMEM;
        vv_objlist_release(&page);
    }
    free(after);
    if (!err && !s->count) err = vv_error_set(e, VV_E_NOENT, "there are no objects below %s/%s", s->store->url, prefix);
    return err;
}

static void remove_own(struct s3 *s)
{
    const char **keys = calloc(s->count + 1, sizeof *keys);
    int *results = calloc(s->count + 1, sizeof *results);
    struct vv_error e = {0};
    int err = keys && results ? 0 : VV_E_NOMEM;
    for (size_t i = 0; i < s->count && !err; i++) keys[i] = s->objects[i].key;
    if (!err) err = vv_objstore_delete_many(s->store, keys, s->count, DEADLINE_MS, results, &e);
    if (err) fprintf(stderr, "varve bench s3: objects below varve-bench/ could not all be removed: %s\n",
                     e.text[0] ? e.text : vv_err_name(err));
    free(keys);
    free(results);
}

/* ---- the command ---- */

static int measure(struct s3 *s, int64_t mib, int64_t object_mib)
{
    const char *existing = vv_arg(s->args, "existing");
    struct vv_error e = {0};
    int err = existing ? existing_objects(s, existing, &e) : own_objects(s, mib, object_mib);
    if (!err && !vv_arg_given(s->args, "no-machine")) err = vv_report_machine(s->report, vv_arg(s->args, "dir"), &e);
    if (err) failed(s, err, &e);
    vv_report_text(s->report, "objects", "store", s->store->url);
    vv_report_add(s->report, "objects", "count", "", 0, (double)s->count);
    vv_report_add(s->report, "objects", "bytes", "MiB", 1, (double)s->total / (double)MIB);
    vv_report_add(s->report, "objects", "range of a GET", "MiB", 2, (double)s->range_bytes / (double)MIB);
    vv_report_add(s->report, "objects", "GETs under way", "", 0, (double)s->gets);
    vv_report_add(s->report, "objects", "PUTs under way", "", 0, existing ? 0 : (double)s->putters);
    if (!s->err && !existing) put_pass(s);
    if (!s->err) get_pass(s, false);
    if (!s->err) get_pass(s, true);
    if (!existing && s->count) remove_own(s);
    return s->err ? vv_cli_fail(s->args, "%s", s->e.text) : 0;
}

static void release(struct s3 *s)
{
    vv_objstore_close(s->store);
    for (size_t i = 0; i < s->count; i++) free(s->objects[i].key);
    free(s->objects);
    free(s->content);
    free(s->report);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->came);
    free(s);
}

static int open_store(struct s3 *s)
{
    struct vv_broker_config config;
    struct vv_objstore_config store;
    struct vv_error e = {0};
    int code = vv_cli_store_config(s->args, &config, &store);
    store.connections_max = (unsigned)s->gets;
    if (!code && vv_objstore_open(s->args->words[0], &store, &vv_env_posix, &s->store, &e))
        code = vv_cli_fail(s->args, "%s", e.text);
    vv_config_release(&config);
    return code;
}

static int run(const struct vv_args *a)
{
    bool json;
    int64_t mib, object_mib, range_mib;
    struct s3 *s = calloc(1, sizeof *s);
    if (!s) return vv_cli_fail(a, "out of memory");
    s->args = a;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->came, NULL);
    s->report = vv_report_new("s3");
    int code = VV_EXIT_USAGE;
    if (vv_table_wants_json(a, &json) && vv_arg_number(a, "mib", 512, 1, 1 << 20, &mib) &&
        vv_arg_number(a, "object-mib", 64, 1, 4096, &object_mib) &&
        vv_arg_number(a, "range-mib", 8, 1, 1024, &range_mib) && vv_arg_number(a, "gets", 4, 1, 1024, &s->gets) &&
        vv_arg_number(a, "puts", 4, 1, 64, &s->putters))
        code = s->report ? open_store(s) : vv_cli_fail(a, "out of memory");
    if (!code) {
        s->range_bytes = range_mib * (int64_t)MIB;
        code = measure(s, mib, object_mib);
    }
    if (!code) {
        code = vv_report_print(s->report, json);
        s->report = NULL;
    }
    release(s);
    return code;
}

static const struct vv_opt opts[] = {
    VV_OPT_OUTPUT,
    VV_OPT_CONFIG,
    VV_OPT_SET,
    {"mib", 'm', "N", "How much (default 512)."},
    {"object-mib", 0, "N", "Of one object (default 64)."},
    {"range-mib", 0, "N", "Of one GET (default 8)."},
    {"gets", 0, "N", "GETs under way (default 4)."},
    {"puts", 0, "N", "PUTs under way, a thread each (default 4)."},
    {"existing", 0, "PREFIX", "Read the objects below PREFIX instead of writing own ones; nothing is put."},
    {"no-machine", 0, NULL, "Leave the machine's probes out (they take some seconds)."},
    {"dir", 0, "DIRECTORY", "Where the disk probes write (default: here)."},
    {0},
};

const struct vv_command vv_cmd_bench_s3 = {
    .name = "bench s3",
    .words = "URL",
    .words_min = 1,
    .words_max = 1,
    .summary = "What the object store gives: parallel PUTs, ranged GETs, GETs relayed over loopback.",
    .text = "  varve bench s3 s3://bucket/prefix --gets 4\n"
            "The reference for cold reads and uploads, through the broker's own store layer. Own objects go\n"
            "below varve-bench/ and are removed at the end. --config and --set say how to reach the store, as for\n"
            "the broker; the AWS environment otherwise.",
    .opts = opts,
    .run = run,
};
