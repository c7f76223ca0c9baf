/* objstore.h — the seam to the object store: a directory, an S3-compatible bucket, or a wrapper that lies.
 *
 * Two forms of call, because there are two kinds of caller:
 *  - ASYNC ranged GET (vv_objstore_get_async) for the reader: hundreds in flight, no thread each.
 *  - SYNC calls for the uploader, the manifest, restore and the CLI: they block the calling thread, read an
 *    upload's bytes on that thread, and return when the store has answered or the deadline is over.
 *
 * SHAPES. Keys are relative to the store's prefix (the store adds and removes it), 1…VV_OBJ_KEY_MAX bytes with
 * the prefix, any bytes but NUL; no empty, "." or ".." component, no leading or trailing '/'. We use
 * [A-Za-z0-9._~/-] only. Sizes and positions are bytes, deadlines are milliseconds from the call (0 =
 * VV_OBJ_DEADLINE_MS); a deadline covers everything the call does, retries included.
 *
 * ERRORS. Every call returns 0 or a vv_err and fills *e (may be NULL) with a text for a person, never a secret:
 *   E_NOENT       no such object or bucket (404)
 *   E_CONFLICT    a put's condition did not hold (412, or 409: another conditional put is running)
 *   E_ACCESS      refused: credentials or permission (401, 403), or no credentials at all
 *   E_AGAIN       the store is away, slow or overloaded (connection errors, 429, 5xx, SlowDown) and retries inside
 *                 the deadline did not help. The outcome of a put or delete is UNKNOWN: HEAD, compare, adopt.
 *   E_TIMEOUT     the deadline passed. The outcome of a put or delete is UNKNOWN.
 *   E_CORRUPT     the object is shorter than the range asked for, or the bytes received are not what was announced
 *   E_LIMIT       bigger than the maximum the caller gave
 *   E_PROTO       the store's answer makes no sense (malformed XML, listing out of order …)
 *   E_UNSUPPORTED the backend cannot do it: look at the capabilities first
 *   E_USAGE       a bad key or argument;  E_CONFIG  at open;  E_SHUTDOWN  canceled or closing
 *   E_IO, E_NOSPC from a directory or from an upload source, as is
 * Sent again after a lost reply a put is idempotent if unconditional; a conditional one can answer E_CONFLICT to
 * our own success (the caller compares ETag or content and adopts).
 *
 * THREADS. All calls may be made from any thread. `done` runs on a thread of the backend or inside
 * vv_objstore_get_async itself (bad argument, empty range, inline_async, an injected fault): hold no lock there that
 * done takes. done must not block and must not make SYNC calls; it may submit more async GETs.
 *
 * SOURCES. Amazon S3 API reference (GetObject, PutObject conditions, ListObjectsV2, DeleteObjects, multipart
 * upload), "Signing AWS API requests" (Signature Version 4), RFC 9110 (ranges, conditions). */
#ifndef VARVE_OBJSTORE_H
#define VARVE_OBJSTORE_H
#include "varve/buf.h"
#include "varve/env.h"
#include "varve/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VV_OBJ_KEY_MAX = 1024,         /* S3's own limit, prefix included */
    VV_OBJ_ETAG_MAX = 128,         /* with quotes and NUL */
    VV_OBJ_LIST_MAX = 1000,        /* keys per page, S3's own limit */
    VV_OBJ_DELETE_MAX = 1000,      /* keys per DeleteObjects request */
    VV_OBJ_DEADLINE_MS = 60 * 1000,
    VV_OBJ_DEADLINE_MAX_MS = 24 * 3600 * 1000,
};
#define VV_OBJ_MULTIPART_ABOVE (128ull << 20) /* bigger puts go in parts … */
#define VV_OBJ_PART_SIZE (64ull << 20)        /* … of at least this size */
#define VV_OBJ_PARTS_MAX 10000

/* What a backend can do. S3 dialects differ behind one protocol: what the code of a backend can do is a
 * capability, what the server at the other end really does is found by vv_objstore_probe(). */
enum vv_objstore_caps {
    VV_OBJ_CAP_IF_NONE_MATCH = 1,  /* put only if the key is absent */
    VV_OBJ_CAP_IF_MATCH = 2,       /* put only if the object still has this ETag */
    VV_OBJ_CAP_MULTIPART = 4,
    VV_OBJ_CAP_BULK_DELETE = 8,    /* many keys in one request (delete_many works without, key by key) */
    VV_OBJ_CAP_ETAG_IS_MD5 = 16,   /* single puts: an ETag that is told is the MD5 of the bytes, quoted hex */
    VV_OBJ_CAP_CHECKED_PUT = 32,   /* the store itself checks the checksum sent with a put */
};
#define VV_OBJ_CAP_CONDITIONAL_PUT (VV_OBJ_CAP_IF_NONE_MATCH | VV_OBJ_CAP_IF_MATCH)

/* op | name in metrics and fault rules | billed as a PUT-class request (PUT, POST, LIST) */
#define VV_OBJ_OPS(X)                                                                              \
    X(GET_ASYNC, "get_async", 0)                                                                   \
    X(GET, "get", 0)                                                                               \
    X(HEAD, "head", 0)                                                                             \
    X(PUT, "put", 1)                                                                               \
    X(DELETE, "delete", 0)                                                                         \
    X(DELETE_MANY, "delete_many", 1)                                                               \
    X(LIST, "list", 1)                                                                             \
    X(ABORT_STALE, "abort_stale", 1)
enum vv_objop {
#define VV_X(name, text, put) VV_OBJ_##name,
    VV_OBJ_OPS(VV_X)
#undef VV_X
    VV_OBJ_OP_COUNT
};
const char *vv_objop_name(enum vv_objop op);

struct vv_objinfo {
    uint64_t size;
    int64_t mtime_ms;           /* Unix time by the store's clock, whole seconds on S3; 0 = not told */
    char etag[VV_OBJ_ETAG_MAX]; /* as the store spells it, quotes included; "" = not told (fs: above 1 MiB,
                                 * and by a ranged get) */
    bool etag_differs;          /* put: the ETag told has an MD5's form and is not the MD5 of what was sent. Means something only
                                 * where ETAG_IS_MD5 holds (encrypted buckets have ETags of their own) */
};

/* ---- async ranged GET ----
 * The caller owns the struct, embeds it in its own, and keeps it and `key` alive until done has RETURNED
 * (done itself may free it). The bytes land in one new buffer of exactly n bytes, or, with a sink, in the caller's
 * own memory as they arrive: in order, each byte once; what is tried again goes on where the last attempt ended.
 * room and arrived are called like done (threads, what they may do), before it, never two at a time for one GET. */
struct vv_objget;
struct vv_objsink {
    /* Where the bytes from `at` of the range on go: *dst and how many have room there, any number >= 1. 0 = there is no
     * memory: the GET ends with E_NOMEM. */
    size_t (*room)(struct vv_objget *get, size_t at, uint8_t **dst);
    void (*arrived)(struct vv_objget *get, size_t at, size_t n); /* they are there */
};
struct vv_objget {
    /* set by the caller */
    const char *key;
    uint64_t at;
    size_t n;                            /* 0: completes with an empty buffer, nothing is asked */
    int64_t deadline_ms;
    void (*done)(struct vv_objget *get); /* exactly once per submit, also after cancel and close */
    void *ctx;                           /* the caller's own */
    const struct vv_objsink *sink;       /* NULL: into buf */
    /* set by the backend before done */
    int err;
    struct vv_buf *buf; /* err == 0 and no sink: the caller's reference, buf->cap == n; else NULL */
    struct vv_error error;
    /* the backend's own */
    void *impl;
    struct vv_objget *next;
    int64_t started_us;
};

/* ---- upload source: where the bytes of a put come from ----
 * read() delivers exactly n bytes at `at` (at + n <= size) or fails with a vv_err that the put then returns.
 * It is called on the thread that called put, never twice at a time, in pieces of at most 1 MiB, and more than once
 * for the same bytes (checksum first, unless the caller brings it; then sending; again on every retry): it must deliver
 * the same bytes. */
struct vv_objsrc {
    uint64_t size;
    int (*read)(void *ctx, uint64_t at, void *dst, size_t n);
    void *ctx;
};

/* ---- the sums of a put's bytes, from a caller that reads them anyway (tiering/objsum.h makes them) ----
 * They are what the store at the other end is told and checks: a put whose bytes are others fails with E_CORRUPT. One for each
 * `piece` bytes; sums of other pieces than the put sends, or without those that it needs, are not used: it reads once more. */
enum vv_objsum_kind { VV_SUM_MD5 = 1, VV_SUM_SHA256 = 2 };
#define VV_SUM_WHOLE UINT64_MAX /* the piece of a put in one request */
struct vv_objsum {
    uint8_t md5[16], sha256[32];
};
struct vv_objsumming { /* how a put sums */
    uint64_t piece;
    unsigned kinds; /* enum vv_objsum_kind; 0 = it sums nothing */
};
struct vv_objsums {
    struct vv_objsumming as;
    size_t count;
    const struct vv_objsum *v;
};

struct vv_objput {
    bool if_none_match;   /* If-None-Match: * — only if absent */
    const char *if_match; /* If-Match — only if the ETag is this one; NULL = no condition */
    bool cold;            /* written once and kept for long: in the configured storage class */
    const struct vv_objsums *sums; /* NULL = the put makes what it needs */
};

enum vv_objget_kind {
    VV_GET_WHOLE,  /* n = most bytes wanted: E_LIMIT if the object is bigger */
    VV_GET_RANGE,  /* [at, at + n): E_CORRUPT if the object ends before */
    VV_GET_SUFFIX, /* the last n bytes, or the whole object if it is smaller */
};

struct vv_objlist_entry {
    char *key; /* relative to the store's prefix */
    uint64_t size;
    int64_t mtime_ms;
    char *etag; /* "" = not told */
};
/* One page, init with {0}, release with vv_objlist_release. Keys ascend bytewise; memory is the arena's. */
struct vv_objlist {
    struct vv_objlist_entry *v;
    size_t count, cap;
    bool more; /* go on with start_after = v[count - 1].key */
    struct vv_arena arena;
};
void vv_objlist_release(struct vv_objlist *list);
/* For backends: appends a copy. */
int vv_objlist_add(struct vv_objlist *list, const char *key, size_t key_n, uint64_t size, int64_t mtime_ms,
                   const char *etag);

struct vv_objstore;
struct vv_keyring;

/* The backend's side. Arguments were checked (keys, limits, deadlines > 0, outputs zeroed) by the calls below. */
struct vv_objstore_ops {
    void (*close)(struct vv_objstore *s); /* no sync call may be running; async GETs end with E_SHUTDOWN */
    void (*get_async)(struct vv_objstore *s, struct vv_objget *get);
    void (*cancel)(struct vv_objstore *s, struct vv_objget *get);
    int (*get)(struct vv_objstore *s, const char *key, enum vv_objget_kind kind, uint64_t at, size_t n,
               int64_t deadline_ms, struct vv_slice *out, struct vv_objinfo *info, struct vv_error *e);
    int (*head)(struct vv_objstore *s, const char *key, int64_t deadline_ms, struct vv_objinfo *info,
                struct vv_error *e);
    int (*put)(struct vv_objstore *s, const char *key, const struct vv_objsrc *src, const struct vv_objput *how,
               int64_t deadline_ms, struct vv_objinfo *info, struct vv_error *e);
    struct vv_objsumming (*summing)(struct vv_objstore *s, uint64_t n); /* NULL: sums nothing */
    int (*del)(struct vv_objstore *s, const char *key, int64_t deadline_ms, struct vv_error *e);
    int (*delete_many)(struct vv_objstore *s, const char *const *keys, size_t count, int64_t deadline_ms,
                       int *results, struct vv_error *e); /* count <= VV_OBJ_DELETE_MAX */
    int (*list)(struct vv_objstore *s, const char *prefix, const char *start_after, size_t max,
                int64_t deadline_ms, struct vv_objlist *out, struct vv_error *e);
    int (*abort_stale)(struct vv_objstore *s, const char *prefix, int64_t before_wall_ms, int64_t deadline_ms,
                       size_t *aborted, struct vv_error *e);
    void (*interrupt)(struct vv_objstore *s); /* NULL: the flag is enough */
};

/* Upper bounds of the buckets of call durations, in ms; the last bucket is everything above. */
#define VV_OBJ_LATENCY_MS(X) X(2) X(5) X(10) X(20) X(50) X(100) X(200) X(500) X(1000) X(2000) X(5000) X(10000) X(30000)
enum {
#define VV_X(ms) VV_OBJ_LATENCY_##ms,
    VV_OBJ_LATENCY_MS(VV_X)
#undef VV_X
    VV_OBJ_LATENCY_MORE,
    VV_OBJ_LATENCIES
};

/* Counters; read them any time. A call is one of the functions below, a request is one HTTP exchange with S3
 * (0 for a directory), retries included. */
struct vv_objstore_stats {
    atomic_uint_fast64_t calls[VV_OBJ_OP_COUNT], errors[VV_OBJ_OP_COUNT], call_us[VV_OBJ_OP_COUNT];
    atomic_uint_fast64_t requests[VV_OBJ_OP_COUNT], retries[VV_OBJ_OP_COUNT];
    atomic_uint_fast64_t call_le[VV_OBJ_OP_COUNT][VV_OBJ_LATENCIES]; /* calls by duration: the first bucket that holds it */
    atomic_uint_fast64_t bytes_put, bytes_got;
};

struct vv_objstore { /* embedded first in each backend's own struct */
    const struct vv_objstore_ops *ops;
    struct vv_env *env;
    unsigned caps;   /* enum vv_objstore_caps */
    struct vv_keyring *keys; /* for what is encrypted in it (tiering/keyring.h), closed with it; NULL = none */
    char url[512];   /* as given, for messages and for the tier's identity; holds no secret */
    struct vv_objstore_stats stats;
    atomic_bool interrupted;
    bool read_only;  /* opened so: nothing that changes it leaves this process (E_ACCESS) */
};

/* ---- opening ---- */
struct vv_objstore_config { /* zeroed = defaults; strings are copied at open */
    const char *client;       /* "curl" (default) or "libs3" */
    const char *endpoint;     /* http[s]://HOST[:PORT]; NULL = environment, then https://s3.REGION.amazonaws.com */
    const char *region;       /* NULL = environment, profile, then us-east-1 */
    const char *path_style;   /* "true", "false", NULL or "auto": path style if an endpoint was given */
    const char *access_key_id, *secret_access_key, *session_token; /* NULL = environment, then profile file */
    const char *profile;      /* NULL = AWS_PROFILE, then "default" */
    const char *ca_file;      /* PEM file of authorities to trust instead of the system's; TLS is always verified */
    const char *module_dir;   /* where varve_libs3.so lies; NULL = VARVE_MODULE_DIR, then beside the executable */
    const char *storage_class; /* s3: of long-lived objects (vv_objput.cold); NULL = the bucket's default */
    const char *sse;          /* s3: "sse-s3" or "sse-kms", asked for with every put; NULL = the bucket's default */
    const char *sse_kms_key_id; /* for sse-kms; NULL = the store's default key */
    const char *keys_file;    /* keys for encrypted segment objects; NULL = none */
    const char *active_key;   /* id of the one that new objects use; NULL = the file's last */
    bool ignore_environment;  /* tests: only what is given here */
    bool read_only;           /* fs: makes no directory, E_NOENT when there is none; puts and deletes are E_ACCESS, nothing is sent */
    bool inline_async;        /* fs: async GETs run inside get_async, for the simulator */
    uint64_t multipart_above; /* 0 = VV_OBJ_MULTIPART_ABOVE */
    uint64_t part_size;       /* 0 = VV_OBJ_PART_SIZE; at least 5 MiB */
    unsigned connections_max; /* s3: connections of the async GETs; 0 = 64 */
};
/* url: fs:DIR | s3://BUCKET[/PREFIX]. The environment is AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
 * AWS_SESSION_TOKEN, AWS_REGION, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_PROFILE,
 * AWS_SHARED_CREDENTIALS_FILE, AWS_CA_BUNDLE and ~/.aws/credentials (read again when it changes and after a 403).
 * Opening makes no request to the store: it is not an error that the store is away. fs: makes the directory. */
int vv_objstore_open(const char *url, const struct vv_objstore_config *config, struct vv_env *env,
                     struct vv_objstore **out, struct vv_error *e);
/* Before a close that must not wait for a store that is away: sync calls that run end soon, with E_SHUTDOWN (the
 * outcome of a put or delete is unknown), new calls of both kinds fail with it at once. For good. */
void vv_objstore_interrupt(struct vv_objstore *s);
/* NULL is fine. Outstanding async GETs are completed with E_SHUTDOWN before it returns. */
void vv_objstore_close(struct vv_objstore *s);

/* ---- the calls ---- */
/* Returns at once. A bad argument completes with E_USAGE too: the outcome is always told by done. */
void vv_objstore_get_async(struct vv_objstore *s, struct vv_objget *get);
/* Asks for an early end: done comes soon, with E_SHUTDOWN if the cancel was in time. Never blocks on the network.
 * Only while done has not returned (the caller's own lock decides that); not from inside done. */
void vv_objstore_cancel(struct vv_objstore *s, struct vv_objget *get);

/* *out: the bytes, with one reference to their buffer for the caller to unref (also when out->n is 0).
 * info (may be NULL) tells of the whole object. */
int vv_objstore_get(struct vv_objstore *s, const char *key, enum vv_objget_kind kind, uint64_t at, size_t n,
                    int64_t deadline_ms, struct vv_slice *out, struct vv_objinfo *info, struct vv_error *e);
int vv_objstore_get_whole(struct vv_objstore *s, const char *key, size_t max, int64_t deadline_ms,
                          struct vv_slice *out, struct vv_objinfo *info, struct vv_error *e);
int vv_objstore_get_suffix(struct vv_objstore *s, const char *key, size_t n, int64_t deadline_ms,
                           struct vv_slice *out, struct vv_objinfo *info, struct vv_error *e);
int vv_objstore_head(struct vv_objstore *s, const char *key, int64_t deadline_ms, struct vv_objinfo *info,
                     struct vv_error *e);
/* how NULL = unconditional. info (may be NULL): size and ETag as stored. Sends a checksum that the store checks;
 * above multipart_above in parts, aborted on failure. */
int vv_objstore_put(struct vv_objstore *s, const char *key, const struct vv_objsrc *src,
                    const struct vv_objput *how, int64_t deadline_ms, struct vv_objinfo *info, struct vv_error *e);
/* Which sums a put of n bytes needs. */
struct vv_objsumming vv_objstore_summing(struct vv_objstore *s, uint64_t n);
int vv_objstore_put_mem(struct vv_objstore *s, const char *key, const void *p, size_t n,
                        const struct vv_objput *how, int64_t deadline_ms, struct vv_objinfo *info,
                        struct vv_error *e);
/* A missing key is a success. */
int vv_objstore_delete(struct vv_objstore *s, const char *key, int64_t deadline_ms, struct vv_error *e);
/* Any count; results[i] is 0 or a vv_err per key. Returns 0 if all went, else the first error. The deadline is
 * per VV_OBJ_DELETE_MAX keys. */
int vv_objstore_delete_many(struct vv_objstore *s, const char *const *keys, size_t count, int64_t deadline_ms,
                            int *results, struct vv_error *e);
/* One page: keys that begin with prefix ("" = all; need not end at a '/') and are > start_after (NULL = from the
 * beginning), at most max (0 = VV_OBJ_LIST_MAX). *out must be {0}. Checked here: keys ascend, keep to prefix and
 * start_after (else E_PROTO), so that a loop over pages ends. */
int vv_objstore_list(struct vv_objstore *s, const char *prefix, const char *start_after, size_t max,
                     int64_t deadline_ms, struct vv_objlist *out, struct vv_error *e);
/* Aborts multipart uploads of keys under prefix begun before a wall-clock time. 0 without multipart. */
int vv_objstore_abort_stale(struct vv_objstore *s, const char *prefix, int64_t before_wall_ms, int64_t deadline_ms,
                            size_t *aborted, struct vv_error *e);

/* Finds out what the server really honours, with a few small objects under `prefix` (removed at the end): the
 * result is s->caps without what does not work. A server may ignore a condition and answer 200: only trying tells.
 * Returns an error when the store cannot be asked at all. */
int vv_objstore_probe(struct vv_objstore *s, const char *prefix, int64_t deadline_ms, unsigned *caps,
                      struct vv_error *e);

bool vv_objkey_valid(const char *key); /* the rules of SHAPES, without the prefix */

/* ---- faults: a wrapper over any store, for tests and the simulator ----
 * Every call looks at the rules in order; the first that fits acts. Seeded by env's randomness for positions. */
enum vv_objfault_action {
    VV_FAULT_FAIL,       /* fail with err before anything is done */
    VV_FAULT_LOSE_REPLY, /* do it, then fail with err (default E_TIMEOUT) */
    VV_FAULT_DROP_WRITE, /* say done, do nothing (put, delete) */
    VV_FAULT_TRUNCATE,   /* put: store only the first `arg` bytes (arg 0 = half); get: E_CORRUPT as a short object is */
    VV_FAULT_FLIP,       /* one byte, position `arg` or seeded if arg < 0: put stores it so, get returns it so */
    VV_FAULT_STALL,      /* wait until vv_objfault_release, cancel, close or the deadline (then E_TIMEOUT); a GET into a
                          * sink after its first `arg` bytes */
    VV_FAULT_LIST_STALE,   /* list: leave out the newest entry (highest mtime, then key) of the page */
    VV_FAULT_LIST_MISSING, /* list: leave out one seeded entry */
    VV_FAULT_LIST_EXTRA,   /* list: add one entry that does not exist (last key + "0"), size arg */
    VV_FAULT_LIST_ENDLESS, /* list: say `more` and give the same page again */
};
struct vv_objfault_rule {
    int op;                 /* enum vv_objop, or -1 = any */
    const char *key_part;   /* substring of the key (list: of the prefix); NULL = any. Copied. */
    unsigned from, count;   /* acts on matching calls from..from+count-1, the first is 1; from 0 = 1, count 0 = ever */
    unsigned percent;       /* of those, by seed; 0 = all */
    enum vv_objfault_action action;
    int err;                /* for FAIL and LOSE_REPLY; 0 = E_AGAIN and E_TIMEOUT */
    int64_t arg;
};
/* Takes over `inner` (closed with the wrapper). seed feeds percent and positions. */
int vv_objfault_open(struct vv_objstore *inner, uint64_t seed, struct vv_objstore **out);
int vv_objfault_add(struct vv_objstore *fault, const struct vv_objfault_rule *rule); /* returns its id >= 0 */
void vv_objfault_clear(struct vv_objstore *fault);           /* all rules; releases stalls */
void vv_objfault_release(struct vv_objstore *fault);         /* stalled calls go on */
unsigned vv_objfault_hits(struct vv_objstore *fault, int id); /* how often rule id has acted */
unsigned vv_objfault_stalled(struct vv_objstore *fault);     /* calls that wait now */
#endif
