/* obj_s3_loop.c — the thread that runs all async GETs of one S3 store over a curl multi handle.
 *
 * States of a GET (struct s3_get):  submitted → waiting ⇄ running → ended.  `submitted` is the list
 * other threads push to; the loop moves it to `waiting` (in order; a retry waits there too, until
 * not_before_us) and starts waiting ones while fewer than connections_max run. ended: out of every
 * list, done called, freed.
 *
 * Invariants: every s3_get is in exactly one of the three lists until it ends; only the loop thread
 * ends one. Another thread touches `submitted`, the `canceled` flags (found by scanning under
 * `lock`) and the wake-up. A cancel that comes late finds nothing and does nothing.
 *
 * Threads: the loop's own, named in the functions below; submit, cancel and free from any. `lock`
 * is a leaf and never held during curl's calls or done. */
#include "bufpool.h"
#include "obj_s3.h"
#include "varve/bytes.h"
#include "varve/thread.h"
#include "varve/vlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POLL_MS = 1000, SPARE_MAX = 64, SPARE_BYTES = 32 << 20 };

struct s3_get {
    struct s3_call call;
    struct vv_objget *get;
    struct s3_get *prev, *next;
    int64_t not_before_us;
    bool canceled; /* guarded by lock */
    char range[64];
};

struct s3_list {
    struct s3_get *head, *tail;
    unsigned count;
};

struct s3_loop {
    struct obj_s3 *s;
    CURLM *multi;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the lists' links, canceled, closing */
    struct s3_list submitted, waiting, running;
    bool closing;
    CURL *spare[SPARE_MAX]; /* the loop thread's: easy handles to use again */
    unsigned spare_count;
    struct vv_bufpool *bufs;
    int64_t busy_us; /* the loop thread's: last seen at work */
};

static void list_push(struct s3_list *list, struct s3_get *g)
{
    g->next = NULL;
    g->prev = list->tail;
    if (list->tail)
        list->tail->next = g;
    else
        list->head = g;
    list->tail = g;
    list->count++;
}

static void list_remove(struct s3_list *list, struct s3_get *g)
{
    if (g->prev)
        g->prev->next = g->next;
    else
        list->head = g->next;
    if (g->next)
        g->next->prev = g->prev;
    else
        list->tail = g->prev;
    list->count--;
}

/* Moves g between lists; either may be NULL. */
static void move(struct s3_loop *loop, struct s3_get *g, struct s3_list *from, struct s3_list *to)
{
    pthread_mutex_lock(&loop->lock);
    if (from) list_remove(from, g);
    if (to) list_push(to, g);
    pthread_mutex_unlock(&loop->lock);
}

/* Loop thread; g is in no list any more. */
static void end(struct s3_loop *loop, struct s3_get *g, int err)
{
    struct vv_objget *get = g->get;
    struct vv_buf *buf = NULL;
    if (!err && !get->sink) {
        buf = g->call.buf;
        g->call.buf = NULL;
        VV_ASSERT(g->call.got == get->n && buf->cap == get->n);
    }
    s3_call_release(&g->call);
    free(g);
    vv_objget_finish(&loop->s->base, get, err, buf);
}

static void spare_give(struct s3_loop *loop, CURL *curl)
{
    if (!curl) return;
    curl_multi_remove_handle(loop->multi, curl);
    curl_easy_reset(curl);
    if (loop->spare_count < SPARE_MAX)
        loop->spare[loop->spare_count++] = curl;
    else
        curl_easy_cleanup(curl);
}

static int stop_reason(struct s3_loop *loop, struct s3_get *g, bool canceled)
{
    if (canceled || atomic_load(&loop->s->base.interrupted))
        return vv_error_set(&g->get->error, VV_E_SHUTDOWN, "get %s: canceled", g->get->key);
    if (vv_mono_us(loop->s->base.env) < g->call.deadline_us) return VV_OK;
    if (g->get->error.code) return g->get->error.code; /* of the last attempt: tells more */
    return vv_error_set(&g->get->error, VV_E_TIMEOUT, "get %s: the deadline passed", g->get->key);
}

/* Asks for what the sink does not have yet. */
static void set_range(struct s3_get *g)
{
    struct s3_call *c = &g->call;
    if (c->sunk) c->sunk_n += c->got;
    c->got = 0;
    c->range_at = g->get->at + c->sunk_n;
    c->range_n = g->get->n - c->sunk_n;
    snprintf(g->range, sizeof g->range, "bytes=%llu-%llu", (unsigned long long)c->range_at,
             (unsigned long long)(c->range_at + c->range_n - 1));
}

/* waiting → running, or ended when the attempt cannot even begin. */
static void start(struct s3_loop *loop, struct s3_get *g)
{
    set_range(g);
    CURL *curl = loop->spare_count ? loop->spare[--loop->spare_count] : s3_curl_new();
    int err = curl ? s3_attempt_begin(&g->call, curl, &g->get->error) : VV_E_NOMEM;
    if (!err && curl_multi_add_handle(loop->multi, curl) != CURLM_OK) err = VV_E_NOMEM;
    if (!err) {
        move(loop, g, &loop->waiting, &loop->running);
        return;
    }
    if (curl) curl_easy_cleanup(curl);
    move(loop, g, &loop->waiting, NULL);
    end(loop, g, err);
}

/* Transfers that curl has finished. */
static void reap(struct s3_loop *loop)
{
    CURLMsg *msg;
    int left;
    while ((msg = curl_multi_info_read(loop->multi, &left)) != NULL) {
        if (msg->msg != CURLMSG_DONE) continue;
        struct s3_call *call = NULL;
        CURL *curl = msg->easy_handle;
        CURLcode rc = msg->data.result;
        int64_t delay_ms;
        curl_easy_getinfo(curl, CURLINFO_PRIVATE, (char **)&call);
        struct s3_get *g = VV_CONTAINER(call, struct s3_get, call);
        int err = s3_attempt_end(call, rc, &delay_ms, &g->get->error);
        spare_give(loop, curl);
        call->curl = NULL;
        if (err && delay_ms >= 0) {
            g->not_before_us = vv_mono_us(loop->s->base.env) + delay_ms * 1000;
            move(loop, g, &loop->running, &loop->waiting);
        } else {
            move(loop, g, &loop->running, NULL);
            end(loop, g, err);
        }
    }
}

/* Ends what was canceled, interrupted or is late. The lists' links change only on this thread but
 * for `submitted`, so walking them needs no lock. */
static void sweep(struct s3_loop *loop, struct s3_list *list)
{
    for (struct s3_get *g = list->head, *next; g; g = next) {
        next = g->next;
        pthread_mutex_lock(&loop->lock);
        bool canceled = g->canceled || loop->closing;
        pthread_mutex_unlock(&loop->lock);
        int err = stop_reason(loop, g, canceled);
        if (!err) continue;
        if (g->call.curl) spare_give(loop, g->call.curl);
        g->call.curl = NULL;
        move(loop, g, list, NULL);
        end(loop, g, err);
    }
}

/* Starts what may start. Returns how long to sleep at most. */
static int dispatch(struct s3_loop *loop)
{
    int64_t now = vv_mono_us(loop->s->base.env), wake = now + POLL_MS * 1000;
    for (struct s3_get *g = loop->waiting.head, *next; g; g = next) {
        next = g->next;
        wake = VV_MIN(wake, g->call.deadline_us);
        if (g->not_before_us > now)
            wake = VV_MIN(wake, g->not_before_us);
        else if (loop->running.count < loop->s->connections_max)
            start(loop, g);
    }
    for (struct s3_get *g = loop->running.head; g; g = g->next)
        wake = VV_MIN(wake, g->call.deadline_us);
    return (int)VV_MAX((wake - now) / 1000 + 1, (int64_t)1);
}

static bool take_submitted(struct s3_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    while (loop->submitted.head) {
        struct s3_get *g = loop->submitted.head;
        list_remove(&loop->submitted, g);
        list_push(&loop->waiting, g);
    }
    bool closing = loop->closing;
    pthread_mutex_unlock(&loop->lock);
    return !closing;
}

/* A second without a GET: nobody reads, the spare buffers go. */
static void trim_idle(struct s3_loop *loop)
{
    int64_t now = vv_mono_us(loop->s->base.env);
    if (loop->running.count || loop->waiting.count)
        loop->busy_us = now;
    else if (now - loop->busy_us >= POLL_MS * 1000)
        vv_bufpool_trim(loop->bufs);
}

static void *loop_main(void *arg)
{
    struct s3_loop *loop = arg;
    vv_thread_background("store");
    bool open;
    do {
        int running;
        open = take_submitted(loop);
        sweep(loop, &loop->waiting);
        sweep(loop, &loop->running);
        curl_multi_perform(loop->multi, &running);
        reap(loop);
        int sleep_ms = dispatch(loop); /* after reap: a connection that came free is used at once */
        trim_idle(loop);
        if (open) curl_multi_poll(loop->multi, NULL, 0, sleep_ms, NULL); /* a wake-up sticks */
    } while (open || loop->running.count || loop->waiting.count);
    return NULL;
}

void s3_loop_submit(struct s3_loop *loop, struct vv_objget *get)
{
    struct s3_get *g = calloc(1, sizeof *g);
    struct vv_buf *buf = get->sink ? NULL : vv_bufpool_get(loop->bufs, get->n);
    if (!g || (!buf && !get->sink)) {
        free(g);
        vv_buf_unref(buf);
        vv_objget_finish(&loop->s->base, get, VV_E_NOMEM, NULL);
        return;
    }
    g->get = get;
    s3_call_init(&g->call, loop->s, VV_OBJ_GET_ASYNC, "GET", get->key, get->deadline_ms);
    g->call.buf = buf;
    g->call.body_max = get->n;
    g->call.range = true;
    if (get->sink) g->call.sunk = get;
    s3_call_header(&g->call, "range", g->range);
    move(loop, g, NULL, &loop->submitted);
    curl_multi_wakeup(loop->multi);
}

void s3_loop_cancel(struct s3_loop *loop, struct vv_objget *get)
{
    struct s3_list *const lists[] = {&loop->submitted, &loop->waiting, &loop->running};
    pthread_mutex_lock(&loop->lock);
    for (size_t i = 0; i < VV_COUNT(lists); i++)
        for (struct s3_get *g = lists[i]->head; g; g = g->next)
            if (g->get == get) g->canceled = true;
    pthread_mutex_unlock(&loop->lock);
    curl_multi_wakeup(loop->multi);
}

int s3_loop_new(struct obj_s3 *s, struct s3_loop **out)
{
    struct s3_loop *loop = calloc(1, sizeof *loop);
    if (!loop) return VV_E_NOMEM;
    loop->s = s;
    pthread_mutex_init(&loop->lock, NULL);
    loop->multi = curl_multi_init();
    loop->bufs = vv_bufpool_new(SPARE_BYTES);
    if (!loop->multi || !loop->bufs) goto fail;
    curl_multi_setopt(loop->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)s->connections_max);
    curl_multi_setopt(loop->multi, CURLMOPT_MAXCONNECTS, (long)s->connections_max);
    if (pthread_create(&loop->thread, NULL, loop_main, loop)) goto fail;
    *out = loop;
    return VV_OK;
fail:
    if (loop->multi) curl_multi_cleanup(loop->multi);
    vv_bufpool_free(loop->bufs);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
    return VV_E_NOMEM;
}

void s3_loop_free(struct s3_loop *loop)
{
    if (!loop) return;
    pthread_mutex_lock(&loop->lock);
    loop->closing = true;
    pthread_mutex_unlock(&loop->lock);
    curl_multi_wakeup(loop->multi);
    pthread_join(loop->thread, NULL);
    for (unsigned i = 0; i < loop->spare_count; i++)
        curl_easy_cleanup(loop->spare[i]);
    curl_multi_cleanup(loop->multi);
    vv_bufpool_free(loop->bufs);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}
