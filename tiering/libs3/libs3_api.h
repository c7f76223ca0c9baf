/* libs3_api.h — what the module varve_libs3.so offers to obj_libs3.c: S3 calls over Debian's libs3,
 * in plain C types.
 *
 * The module knows libs3 and nothing of Varve but this header and the codes of varve/error.h; the
 * host knows nothing of libs3. So the broker links neither libs3 nor the second libcurl and libxml2
 * that come with it: they are loaded, and cost memory, only where `tier.s3.client=libs3` asks for
 * them. */
#ifndef VARVE_LIBS3_API_H
#define VARVE_LIBS3_API_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VV_LIBS3_ABI    1
#define VV_LIBS3_SYMBOL "vv_libs3_module"

struct vv_libs3_target { /* strings outlive the call */
    const char *host;    /* host[:port] */
    const char *bucket;
    bool path_style;
    const char *access_key_id, *secret_access_key;
};

struct vv_libs3_answer {
    int err;       /* 0 or a vv_err */
    bool again;    /* the same request may succeed later */
    bool told;     /* the properties below came */
    uint64_t size; /* Content-Length: of a range, the range's */
    int64_t mtime_ms;
    char etag[128];
    char text[256]; /* for a person: libs3's name of the error, the server's message */
};

/* Callbacks return 0, or a vv_err that ends the call and is its outcome. */
typedef int vv_libs3_sink(void *ctx, const void *p, size_t n);
typedef int vv_libs3_source(void *ctx, void *dst, size_t n);
typedef int vv_libs3_entry(void *ctx, const char *key, uint64_t size, int64_t mtime_ms,
                           const char *etag);

/* A session carries one call at a time and keeps its connection for the next. */
struct vv_libs3_session;

struct vv_libs3_call {
    struct vv_libs3_session *session;
    const struct vv_libs3_target *target;
    int64_t deadline_ms;            /* from the call */
    const atomic_bool *interrupted; /* ends the call when set */
    const char *key;
    void *ctx; /* for the callback */
};

struct vv_libs3_api {
    unsigned abi;
    struct vv_libs3_session *(*session_new)(void);
    void (*session_free)(struct vv_libs3_session *session);
    /* n = 0: to the end of the object */
    void (*get)(const struct vv_libs3_call *call, uint64_t at, uint64_t n, vv_libs3_sink *sink,
                struct vv_libs3_answer *answer);
    void (*head)(const struct vv_libs3_call *call, struct vv_libs3_answer *answer);
    void (*put)(const struct vv_libs3_call *call, uint64_t n, const char *md5_base64,
                vv_libs3_source *source, struct vv_libs3_answer *answer);
    void (*del)(const struct vv_libs3_call *call, struct vv_libs3_answer *answer);
    /* call->key is the prefix */
    void (*list)(const struct vv_libs3_call *call, const char *marker, int max,
                 vv_libs3_entry *entry, bool *more, struct vv_libs3_answer *answer);
};
/* The module's only symbol. Initialises libs3; NULL when that fails. */
const struct vv_libs3_api *vv_libs3_module(void);
#endif
