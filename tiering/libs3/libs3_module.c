/* libs3_module.c — varve_libs3.so: the calls of libs3_api.h over libs3 2.0.
 *
 * libs3's blocking form has no deadline, so every call is run in an S3RequestContext of its
 * session: add the request, then step and select until it has completed, the deadline is over or
 * the host interrupts. The two latter destroy the context, which completes the request as
 * interrupted; the session makes itself a new one. A context keeps its connections, so a session
 * saves the handshake of the next call.
 *
 * libs3 2.0: Signature V2; one PUT per object; ListObjects (version 1); follows redirects; gives up
 * below 1 KiB/s for 15 s; does not verify TLS certificates, which is why the host offers http only.
 *
 * Threads: any, one per session at a time. select() does not see descriptors past FD_SETSIZE; then
 * the loop naps. */
#include "libs3_api.h"
#include "varve/error.h"

#include <libs3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>

enum { STEP_MS = 100, BLIND_STEP_MS = 5 };

struct vv_libs3_session {
    S3RequestContext *context;
};

struct run {
    const struct vv_libs3_call *call;
    struct vv_libs3_answer *answer;
    bool complete;
    int callback_err;
    S3Status status;
    vv_libs3_sink *sink;
    vv_libs3_source *source;
    uint64_t left; /* bytes of a put still to be given */
    vv_libs3_entry *entry;
    bool more;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- libs3's callbacks ---- */

static S3Status on_properties(const S3ResponseProperties *properties, void *ctx)
{
    struct run *run = ctx;
    struct vv_libs3_answer *a = run->answer;
    a->told = true;
    a->size = properties->contentLength;
    a->mtime_ms = properties->lastModified > 0 ? properties->lastModified * 1000 : 0;
    snprintf(a->etag, sizeof a->etag, "%s", properties->eTag ? properties->eTag : "");
    return S3StatusOK;
}

static void on_complete(S3Status status, const S3ErrorDetails *details, void *ctx)
{
    struct run *run = ctx;
    run->complete = true;
    run->status = status;
    if (status == S3StatusOK) return;
    bool message = details && details->message;
    snprintf(run->answer->text, sizeof run->answer->text, "%s%s%.180s", S3_get_status_name(status),
             message ? ": " : "", message ? details->message : "");
    for (char *p = run->answer->text; *p; p++)
        if ((unsigned char)*p < 0x20) *p = '?';
}

static S3Status on_get(int n, const char *p, void *ctx)
{
    struct run *run = ctx;
    run->callback_err = n > 0 ? run->sink(run->call->ctx, p, (size_t)n) : 0;
    return run->callback_err ? S3StatusAbortedByCallback : S3StatusOK;
}

static int on_put(int n, char *p, void *ctx)
{
    struct run *run = ctx;
    size_t take = n <= 0 ? 0 : (uint64_t)n < run->left ? (size_t)n : (size_t)run->left;
    if (take == 0) return 0;
    run->callback_err = run->source(run->call->ctx, p, take);
    if (run->callback_err) return -1;
    run->left -= take;
    return (int)take;
}

static S3Status on_list(int truncated, const char *next, int count, const S3ListBucketContent *v,
                        int prefix_count, const char **prefixes, void *ctx)
{
    struct run *run = ctx;
    (void)next, (void)prefix_count, (void)prefixes;
    run->more = truncated != 0;
    for (int i = 0; i < count && !run->callback_err; i++)
        run->callback_err = run->entry(run->call->ctx, v[i].key, v[i].size,
                                       v[i].lastModified > 0 ? v[i].lastModified * 1000 : 0,
                                       v[i].eTag ? v[i].eTag : "");
    return run->callback_err ? S3StatusAbortedByCallback : S3StatusOK;
}

static const S3ResponseHandler plain_handler = {on_properties, on_complete};

/* ---- outcome ---- */

/* S3Status | vv_err | worth another try */
static const struct {
    S3Status status;
    int err;
    bool again;
} outcomes[] = {
    {S3StatusOK, VV_OK, false},
    {S3StatusOutOfMemory, VV_E_NOMEM, false},
    {S3StatusUriTooLong, VV_E_USAGE, false},
    {S3StatusKeyTooLong, VV_E_USAGE, false},
    {S3StatusXmlParseFailure, VV_E_AGAIN, true}, /* a gateway's 502 page: libs3 hides the status */
    {S3StatusNameLookupError, VV_E_AGAIN, true},
    {S3StatusFailedToConnect, VV_E_AGAIN, true},
    {S3StatusConnectionFailed, VV_E_AGAIN, true},
    {S3StatusInternalError, VV_E_AGAIN, true},
    {S3StatusServerFailedVerification, VV_E_ACCESS, false},
    {S3StatusErrorAccessDenied, VV_E_ACCESS, false},
    {S3StatusErrorAccountProblem, VV_E_ACCESS, false},
    {S3StatusErrorExpiredToken, VV_E_ACCESS, false},
    {S3StatusErrorInvalidAccessKeyId, VV_E_ACCESS, false},
    {S3StatusErrorInvalidSecurity, VV_E_ACCESS, false},
    {S3StatusErrorInvalidToken, VV_E_ACCESS, false},
    {S3StatusErrorNotSignedUp, VV_E_ACCESS, false},
    {S3StatusErrorRequestTimeTooSkewed, VV_E_ACCESS, false},
    {S3StatusErrorSignatureDoesNotMatch, VV_E_ACCESS, false},
    {S3StatusHttpErrorForbidden, VV_E_ACCESS, false},
    {S3StatusErrorNoSuchBucket, VV_E_NOENT, false},
    {S3StatusErrorNoSuchKey, VV_E_NOENT, false},
    {S3StatusHttpErrorNotFound, VV_E_NOENT, false},
    {S3StatusErrorInvalidRange, VV_E_CORRUPT, false},
    {S3StatusErrorPreconditionFailed, VV_E_CONFLICT, false},
    {S3StatusHttpErrorConflict, VV_E_CONFLICT, false},
    {S3StatusErrorEntityTooLarge, VV_E_LIMIT, false},
    {S3StatusErrorKeyTooLong, VV_E_USAGE, false},
    {S3StatusErrorInvalidBucketName, VV_E_CONFIG, false},
    {S3StatusErrorPermanentRedirect, VV_E_CONFIG, false},
    {S3StatusErrorMethodNotAllowed, VV_E_UNSUPPORTED, false},
    {S3StatusErrorNotImplemented, VV_E_UNSUPPORTED, false},
    {S3StatusErrorBadDigest, VV_E_CORRUPT, true},
    {S3StatusErrorIncompleteBody, VV_E_CORRUPT, true},
    {S3StatusErrorInternalError, VV_E_AGAIN, true},
    {S3StatusErrorOperationAborted, VV_E_AGAIN, true},
    {S3StatusErrorRequestTimeout, VV_E_AGAIN, true},
    {S3StatusErrorSlowDown, VV_E_AGAIN, true},
    /* 500 and 503 without a body libs3 understands end up here */
    {S3StatusErrorUnknown, VV_E_AGAIN, true},
    {S3StatusHttpErrorUnknown, VV_E_AGAIN, true},
};

static void judge(struct run *run)
{
    struct vv_libs3_answer *a = run->answer;
    if (run->callback_err) {
        a->err = run->callback_err;
        return;
    }
    a->err = VV_E_IO;
    for (size_t i = 0; i < sizeof outcomes / sizeof *outcomes; i++) {
        if (outcomes[i].status != run->status) continue;
        a->err = outcomes[i].err;
        a->again = outcomes[i].again;
    }
}

/* ---- running ---- */

static void wait_for_io(S3RequestContext *context, int64_t left_ms)
{
    fd_set reads, writes, excepts;
    int max = -1;
    FD_ZERO(&reads);
    FD_ZERO(&writes);
    FD_ZERO(&excepts);
    if (S3_get_request_context_fdsets(context, &reads, &writes, &excepts, &max) != S3StatusOK)
        max = -1;
    int64_t ms = S3_get_request_context_timeout(context);
    if (ms < 0 || ms > STEP_MS) ms = STEP_MS;
    if (max < 0 && ms > BLIND_STEP_MS) ms = BLIND_STEP_MS;
    if (ms > left_ms) ms = left_ms;
    struct timeval t = {.tv_usec = ms * 1000};
    select(max + 1, &reads, &writes, &excepts, &t);
}

static bool begin(struct run *run, const struct vv_libs3_call *call, struct vv_libs3_answer *answer,
                  S3BucketContext *bucket)
{
    const struct vv_libs3_target *t = call->target;
    memset(run, 0, sizeof *run);
    memset(answer, 0, sizeof *answer);
    run->call = call;
    run->answer = answer;
    *bucket = (S3BucketContext){.hostName = t->host,
                                .bucketName = t->bucket,
                                .protocol = S3ProtocolHTTP,
                                .uriStyle = t->path_style ? S3UriStylePath : S3UriStyleVirtualHost,
                                .accessKeyId = t->access_key_id,
                                .secretAccessKey = t->secret_access_key};
    struct vv_libs3_session *session = call->session;
    if (session->context || S3_create_request_context(&session->context) == S3StatusOK) return true;
    session->context = NULL;
    answer->err = VV_E_NOMEM;
    return false;
}

static void finish(struct run *run)
{
    struct vv_libs3_session *session = run->call->session;
    int64_t until = now_ms() + run->call->deadline_ms;
    int remaining = 1;
    while (!run->complete && remaining) {
        bool interrupted = atomic_load(run->call->interrupted);
        if (interrupted || now_ms() >= until) {
            S3_destroy_request_context(session->context); /* completes it as interrupted */
            session->context = NULL;
            run->answer->err = interrupted ? VV_E_SHUTDOWN : VV_E_TIMEOUT;
            snprintf(run->answer->text, sizeof run->answer->text, "%s",
                     interrupted ? "interrupted" : "no answer in time");
            return;
        }
        if (S3_runonce_request_context(session->context, &remaining) != S3StatusOK) break;
        if (!run->complete && remaining) wait_for_io(session->context, until - now_ms());
    }
    if (!run->complete) run->status = S3StatusInternalError;
    judge(run);
    if (run->answer->err &&
        run->answer->err != VV_E_NOENT) { /* no connection of unknown state for the next call */
        S3_destroy_request_context(session->context);
        session->context = NULL;
    }
}

static void module_get(const struct vv_libs3_call *call, uint64_t at, uint64_t n,
                       vv_libs3_sink *sink, struct vv_libs3_answer *answer)
{
    static const S3GetObjectHandler handler = {{on_properties, on_complete}, on_get};
    static const S3GetConditions none = {-1, -1, NULL, NULL};
    struct run run;
    S3BucketContext bucket;
    if (!begin(&run, call, answer, &bucket)) return;
    run.sink = sink;
    S3_get_object(&bucket, call->key, &none, at, n, call->session->context, &handler, &run);
    finish(&run);
}

static void module_head(const struct vv_libs3_call *call, struct vv_libs3_answer *answer)
{
    struct run run;
    S3BucketContext bucket;
    if (!begin(&run, call, answer, &bucket)) return;
    S3_head_object(&bucket, call->key, call->session->context, &plain_handler, &run);
    finish(&run);
}

static void module_put(const struct vv_libs3_call *call, uint64_t n, const char *md5_base64,
                       vv_libs3_source *source, struct vv_libs3_answer *answer)
{
    static const S3PutObjectHandler handler = {{on_properties, on_complete}, on_put};
    S3PutProperties properties = {
        .md5 = md5_base64, .expires = -1, .cannedAcl = S3CannedAclPrivate};
    struct run run;
    S3BucketContext bucket;
    if (!begin(&run, call, answer, &bucket)) return;
    run.source = source;
    run.left = n;
    S3_put_object(&bucket, call->key, n, &properties, call->session->context, &handler, &run);
    finish(&run);
}

static void module_del(const struct vv_libs3_call *call, struct vv_libs3_answer *answer)
{
    struct run run;
    S3BucketContext bucket;
    if (!begin(&run, call, answer, &bucket)) return;
    S3_delete_object(&bucket, call->key, call->session->context, &plain_handler, &run);
    finish(&run);
}

static void module_list(const struct vv_libs3_call *call, const char *marker, int max,
                        vv_libs3_entry *entry, bool *more, struct vv_libs3_answer *answer)
{
    static const S3ListBucketHandler handler = {{on_properties, on_complete}, on_list};
    struct run run;
    S3BucketContext bucket;
    *more = false;
    if (!begin(&run, call, answer, &bucket)) return;
    run.entry = entry;
    S3_list_bucket(&bucket, call->key, marker, NULL, max, call->session->context, &handler, &run);
    finish(&run);
    *more = run.more;
}

static struct vv_libs3_session *session_new(void)
{
    return calloc(1, sizeof(struct vv_libs3_session));
}

static void session_free(struct vv_libs3_session *session)
{
    if (!session) return;
    if (session->context) S3_destroy_request_context(session->context);
    free(session);
}

static const struct vv_libs3_api api = {
    .abi = VV_LIBS3_ABI,
    .session_new = session_new,
    .session_free = session_free,
    .get = module_get,
    .head = module_head,
    .put = module_put,
    .del = module_del,
    .list = module_list,
};

__attribute__((visibility("default"))) const struct vv_libs3_api *vv_libs3_module(void)
{
    static bool ready; /* the host calls this once, under its own lock */
    if (!ready) ready = S3_initialize("varve", S3_INIT_ALL, NULL) == S3StatusOK;
    return ready ? &api : NULL;
}
