/* cmd_doctor.c — `varve doctor URL`: what a store really does, tried with a few small objects, and what follows for a broker.
 *
 * One row of CHECKS is one question: a function that tries it and says yes or no with a number or a reason. A check
 * whose answer is no is either fatal (no broker can work there), or has a safe path that the broker takes by itself
 * (it asks the same questions when it claims the bucket: tiering/obj_probe.c); `otherwise` says which. Everything is
 * written below PREFIX/doctor-NONCE/ and removed at the end; nothing else in the bucket is touched. One thread. */
#include "bucket.h"
#include "table.h"

#include "config.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEADLINE_MS = 30000, SMALL = 5, PART = 5 << 20, BIG = 11 << 20, SKEW_MS = 5 * 60 * 1000 };

struct doctor {
    struct vv_objstore *s;
    const struct vv_objstore_config *config;
    char root[64];   /* "doctor-….../" */
    unsigned caps;   /* what was found */
    bool quick;
    char *written[32]; /* keys, to be removed at the end: a listing may lie */
    size_t written_n;
    struct vv_error e;
    char says[200];
};

static bool say(struct doctor *d, bool yes, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool say(struct doctor *d, bool yes, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->says, sizeof d->says, fmt, ap);
    va_end(ap);
    return yes;
}

static bool failed(struct doctor *d, int err)
{
    return say(d, false, "%.190s", *d->e.text ? d->e.text : vv_err_name(err));
}

static bool is_directory(const struct doctor *d)
{
    return !strncmp(d->s->url, "fs:", 3);
}

static const char *key_of(const struct doctor *d, const char *name, char out[VV_OBJ_KEY_MAX])
{
    snprintf(out, VV_OBJ_KEY_MAX, "%s%s", d->root, name);
    return out;
}

static void remember(struct doctor *d, const char *key)
{
    for (size_t i = 0; i < d->written_n; i++)
        if (!strcmp(d->written[i], key)) return;
    VV_ASSERT(d->written_n < VV_COUNT(d->written));
    char *copy = strdup(key);
    if (copy) d->written[d->written_n++] = copy;
}

static int put_text(struct doctor *d, const char *name, const char *text)
{
    char key[VV_OBJ_KEY_MAX];
    remember(d, key_of(d, name, key));
    return vv_objstore_put_mem(d->s, key_of(d, name, key), text, strlen(text), NULL, DEADLINE_MS, NULL, &d->e);
}

static bool holds(struct doctor *d, const char *name, const char *text)
{
    char key[VV_OBJ_KEY_MAX];
    struct vv_slice got = {0};
    int err = vv_objstore_get_whole(d->s, key_of(d, name, key), 4096, DEADLINE_MS, &got, NULL, &d->e);
    bool same = !err && got.n == strlen(text) && !memcmp(got.p, text, got.n);
    if (!err) vv_buf_unref(got.buf);
    if (!err && !same) vv_error_set(&d->e, VV_E_PROTO, "%s: an older answer came back", key);
    return same;
}

/* ---- the checks ---- */

static bool check_write(struct doctor *d)
{
    int64_t best = INT64_MAX;
    for (int i = 0; i < SMALL; i++) {
        int64_t began = vv_mono_us(&vv_env_posix);
        int err = put_text(d, "small", "written");
        if (err) return failed(d, err);
        best = VV_MIN(best, vv_mono_us(&vv_env_posix) - began);
    }
    return say(d, true, "a small PUT takes %.1f ms", (double)best / 1e3);
}

static bool check_read_after_write(struct doctor *d)
{
    for (int i = 0; i < SMALL; i++) {
        char text[32];
        snprintf(text, sizeof text, "version %d", i);
        int err = put_text(d, "again", text);
        if (err || !holds(d, "again", text)) return failed(d, err ? err : VV_E_PROTO);
    }
    return say(d, true, "%d overwrites, each read back at once", SMALL);
}

static bool check_clock(struct doctor *d)
{
    char key[VV_OBJ_KEY_MAX];
    struct vv_objinfo info = {0};
    int err = put_text(d, "clock", "now");
    int64_t now = vv_wall_ms(&vv_env_posix);
    if (!err) err = vv_objstore_head(d->s, key_of(d, "clock", key), DEADLINE_MS, &info, &d->e);
    if (err) return failed(d, err);
    if (!info.mtime_ms) return say(d, true, "the store tells no time");
    int64_t away = info.mtime_ms - now;
    bool ok = away > -SKEW_MS && away < SKEW_MS;
    return say(d, ok, "the store's clock is %+.1f s from ours", (double)away / 1e3);
}

static bool check_transport(struct doctor *d)
{
    const char *endpoint = d->config->endpoint;
    if (is_directory(d)) return say(d, true, "a directory");
    if (!endpoint) endpoint = getenv("AWS_ENDPOINT_URL_S3");
    if (!endpoint) endpoint = getenv("AWS_ENDPOINT_URL");
    if (!endpoint || !strncmp(endpoint, "https:", 6)) return say(d, true, "TLS, certificate verified");
    bool near = strstr(endpoint, "//127.") || strstr(endpoint, "//localhost") || strstr(endpoint, "//[::1]");
    return say(d, near, near ? "plain HTTP on this machine" : "plain HTTP: who listens reads along, bodies are not encrypted");
}

static bool opens_with(struct doctor *d, const char *path_style, struct vv_error *e)
{
    struct vv_objstore_config c = *d->config;
    struct vv_objstore *other;
    struct vv_objinfo info;
    char key[VV_OBJ_KEY_MAX];
    c.path_style = path_style;
    int err = vv_objstore_open(d->s->url, &c, &vv_env_posix, &other, e);
    if (err) return false;
    err = vv_objstore_head(other, key_of(d, "small", key), 2000, &info, e);
    vv_objstore_close(other);
    return !err;
}

static bool check_addressing(struct doctor *d)
{
    struct vv_error e = {0};
    if (is_directory(d)) return say(d, true, "a directory");
    bool path = opens_with(d, "true", &e), host = opens_with(d, "false", &e);
    if (!path && !host) return say(d, false, "%.150s", e.text);
    return say(d, true, path && host ? "in the path and in the host name" : path ? "in the path only" : "in the host name only");
}

static bool check_etag(struct doctor *d)
{
    bool yes = d->caps & VV_OBJ_CAP_ETAG_IS_MD5;
    return say(d, yes, yes ? "what was stored can be told from the answer" : "ETags are the store's own");
}

static bool check_if_none_match(struct doctor *d)
{
    bool yes = d->caps & VV_OBJ_CAP_IF_NONE_MATCH;
    return say(d, yes, yes ? "refused when the key is there" : "not offered, or accepted and ignored");
}

static bool check_if_match(struct doctor *d)
{
    bool yes = d->caps & VV_OBJ_CAP_IF_MATCH;
    return say(d, yes, yes ? "refused when the object changed" : "not offered, or accepted and ignored");
}

static bool check_checked_put(struct doctor *d)
{
    if (is_directory(d)) return say(d, true, "no network in between");
    bool yes = d->caps & VV_OBJ_CAP_CHECKED_PUT;
    return say(d, yes, yes ? "a body that differs from its checksum is refused" : "a damaged body was stored without a word");
}

static bool range_is(struct doctor *d, enum vv_objget_kind kind, uint64_t at, size_t n, const char *want)
{
    char key[VV_OBJ_KEY_MAX];
    struct vv_slice got = {0};
    int err = kind == VV_GET_SUFFIX
                  ? vv_objstore_get_suffix(d->s, key_of(d, "range", key), n, DEADLINE_MS, &got, NULL, &d->e)
                  : vv_objstore_get(d->s, key_of(d, "range", key), kind, at, n, DEADLINE_MS, &got, NULL, &d->e);
    if (err) return want ? false : err == VV_E_CORRUPT;
    bool same = want && got.n == strlen(want) && !memcmp(got.p, want, got.n);
    vv_buf_unref(got.buf);
    return same;
}

static bool check_ranges(struct doctor *d)
{
    int err = put_text(d, "range", "0123456789");
    if (err) return failed(d, err);
    if (!range_is(d, VV_GET_RANGE, 3, 4, "3456")) return say(d, false, "bytes=3-6 of ten gave something else");
    if (!range_is(d, VV_GET_RANGE, 8, 4, NULL)) return say(d, false, "a range beyond the end was not told from a full one");
    if (!range_is(d, VV_GET_SUFFIX, 0, 4, "6789")) return say(d, false, "a suffix range (bytes=-4) gave something else");
    if (!range_is(d, VV_GET_SUFFIX, 0, 64, "0123456789")) return say(d, false, "a suffix range longer than the object did not give the object");
    return say(d, true, "in the middle, at the end, beyond it");
}

/* Bytewise order, '~' behind letters and digits, pages of two. */
static bool check_listing(struct doctor *d)
{
    static const char *const names[] = {"list/A", "list/B-x", "list/a", "list/a.b", "list/a0", "list/a~", "list/b/c"};
    size_t seen = 0;
    char prefix[VV_OBJ_KEY_MAX], after[VV_OBJ_KEY_MAX] = "";
    for (size_t i = VV_COUNT(names); i--;) {
        int err = put_text(d, names[i], "x");
        if (err) return failed(d, err);
    }
    key_of(d, "list/", prefix);
    for (bool more = true; more;) {
        struct vv_objlist l = {0};
        int err = vv_objstore_list(d->s, prefix, *after ? after : NULL, 2, DEADLINE_MS, &l, &d->e);
        if (err) return failed(d, err);
        for (size_t i = 0; i < l.count; i++, seen++)
            if (seen >= VV_COUNT(names) || strcmp(l.v[i].key + strlen(d->root), names[seen])) {
                say(d, false, "%.100s comes at the wrong place", l.v[i].key);
                vv_objlist_release(&l);
                return false;
            }
        if (l.count) snprintf(after, sizeof after, "%s", l.v[l.count - 1].key);
        more = l.more && l.count;
        vv_objlist_release(&l);
    }
    if (seen != VV_COUNT(names)) return say(d, false, "%zu of %zu keys just written are listed", seen, VV_COUNT(names));
    return say(d, true, "bytewise, in pages, with what was just written");
}

static bool check_bulk_delete(struct doctor *d)
{
    if (is_directory(d)) return say(d, true, "a directory");
    char a[VV_OBJ_KEY_MAX], b[VV_OBJ_KEY_MAX];
    struct vv_objinfo info;
    int results[2], err = put_text(d, "bulk", "x");
    uint64_t before = d->s->stats.requests[VV_OBJ_DELETE];
    const char *keys[] = {key_of(d, "bulk", a), key_of(d, "bulk-that-is-not-there", b)};
    if (!err) err = vv_objstore_delete_many(d->s, keys, 2, DEADLINE_MS, results, &d->e);
    if (err) return failed(d, err);
    if (vv_objstore_head(d->s, a, DEADLINE_MS, &info, &d->e) != VV_E_NOENT) return say(d, false, "an object was still there after its deletion");
    bool single = d->s->stats.requests[VV_OBJ_DELETE] != before || !(d->s->caps & VV_OBJ_CAP_BULK_DELETE);
    return say(d, !single, single ? "keys go one by one" : "many keys in one request, a missing one is no error");
}

static int pattern(void *ctx, uint64_t at, void *dst, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++) ((uint8_t *)dst)[i] = (uint8_t)((at + i) * 2654435761u >> 11);
    return VV_OK;
}

static bool check_multipart(struct doctor *d)
{
    char key[VV_OBJ_KEY_MAX];
    uint8_t want[4096];
    struct vv_objsrc src = {.size = BIG, .read = pattern};
    struct vv_slice got = {0};
    if (d->quick) return say(d, true, "not tried (--quick)");
    if (is_directory(d)) return say(d, true, "a directory");
    if (!(d->s->caps & VV_OBJ_CAP_MULTIPART)) return say(d, false, "not with this client");
    int64_t began = vv_mono_us(&vv_env_posix);
    remember(d, key_of(d, "multipart", key));
    int err = vv_objstore_put(d->s, key, &src, NULL, DEADLINE_MS * 4, NULL, &d->e);
    double seconds = (double)(vv_mono_us(&vv_env_posix) - began) / 1e6;
    if (!err) err = vv_objstore_get(d->s, key, VV_GET_RANGE, PART - 2048, sizeof want, DEADLINE_MS, &got, NULL, &d->e);
    if (err) return failed(d, err);
    pattern(NULL, PART - 2048, want, sizeof want);
    bool same = got.n == sizeof want && !memcmp(got.p, want, sizeof want);
    vv_buf_unref(got.buf);
    return say(d, same, same ? "11 MiB in parts of 5 MiB, %.0f MB/s" : "the bytes around the border of two parts differ (%.0f MB/s)",
               BIG / 1e6 / seconds);
}

/* Not asked of the store: the object that leads to everything, when somebody's is there. */
static bool check_root(struct doctor *d)
{
    struct vv_bucket *b = NULL;
    struct vv_bucket_opts o = {0};
    int err = vv_bucket_attach(d->s, &o, &b, &d->e);
    if (err == VV_E_NOENT) return say(d, true, "no Varve bucket yet: a broker would make it one");
    if (err) return failed(d, err);
    say(d, true, "the Varve bucket of cluster %s", vv_bucket_cluster_id(b));
    vv_bucket_close(b);
    return true;
}

static const struct check {
    const char *name;
    bool (*ask)(struct doctor *d);
    bool fatal;
    const char *otherwise; /* what the answer no means */
} CHECKS[] = {
    {"write", check_write, true, "no broker can work here: mend access first"},
    {"read after write", check_read_after_write, true, "claims and manifests would go wrong: not usable"},
    {"transport", check_transport, false, "use https"},
    {"addressing", check_addressing, false, "set tier.s3.path.style"},
    {"clock", check_clock, false, "mend it: signatures are refused from 15 minutes on"},
    {"ranges", check_ranges, true, "cold reads need them: not usable"},
    {"listing", check_listing, true, "restore and garbage collection need it: not usable"},
    {"if-none-match", check_if_none_match, false, "the broker uploads without it; only one writer may exist"},
    {"if-match", check_if_match, false, "the broker claims without it; only one writer may exist"},
    {"etag is md5", check_etag, false, "the broker reads footers back to prove an upload, as always"},
    {"checked put", check_checked_put, false, "the broker compares ETags if they are MD5, else it reads every upload back"},
    {"bulk delete", check_bulk_delete, false, "the broker deletes key by key"},
    {"multipart", check_multipart, false, "one PUT per segment: keep segment.bytes below 5 GiB"},
    {"bucket", check_root, false, "see varve ls and varve verify"},
};

/* ---- the command ---- */

static const struct vv_opt opts[] = {VV_OPT_OUTPUT, VV_OPT_CONFIG, VV_OPT_SET,
                                     {"quick", 'q', NULL, "Without the upload of 11 MiB in parts."}, {0}};

static void sweep(struct doctor *d)
{
    struct vv_error e = {0};
    int results[VV_COUNT(d->written)];
    if (vv_objstore_delete_many(d->s, (const char *const *)d->written, d->written_n, DEADLINE_MS, results, &e))
        VLOG_WARN("what the doctor wrote below %s could not be removed: %s", d->root, e.text);
    for (size_t i = 0; i < d->written_n; i++) free(d->written[i]);
}

static int examine(struct doctor *d, bool json)
{
    struct vv_table *t = vv_table_new("CHECK OK? FINDING OTHERWISE");
    int rc = VV_EXIT_DONE;
    int err = vv_objstore_probe(d->s, d->root, DEADLINE_MS, &d->caps, &d->e);
    for (size_t i = 0; i < VV_COUNT(CHECKS); i++) {
        const struct check *c = &CHECKS[i];
        bool yes = err ? failed(d, err) : c->ask(d);
        if (!yes && c->fatal) rc = VV_EXIT_FAILED;
        vv_table_cell(t, "%s", c->name);
        vv_table_cell(t, "%s", yes ? "true" : "false");
        vv_table_cell(t, "%s", d->says);
        vv_table_cell(t, "%s", yes ? "-" : c->otherwise);
        if (err) break; /* the first answer stands for all */
    }
    sweep(d);
    int printed = vv_table_print(t, json);
    return printed ? printed : rc;
}

static int run(const struct vv_args *a)
{
    struct vv_broker_config config;
    struct vv_objstore_config store = {0};
    struct doctor d = {.config = &store, .quick = vv_arg_given(a, "quick")};
    uint64_t nonce;
    bool json;
    if (!vv_table_wants_json(a, &json)) return VV_EXIT_USAGE;
    int rc = vv_cli_store_config(a, &config, &store);
    if (rc) goto out;
    store.multipart_above = BIG - 1;
    store.part_size = PART;
    int err = vv_objstore_open(a->words[0], &store, &vv_env_posix, &d.s, &d.e);
    if (err) {
        rc = vv_cli_bucket_fail(a, err, &d.e);
        goto out;
    }
    vv_random(&vv_env_posix, &nonce, sizeof nonce);
    snprintf(d.root, sizeof d.root, "doctor-%016" PRIx64 "/", nonce);
    rc = examine(&d, json);
    vv_objstore_close(d.s);
out:
    vv_config_release(&config);
    return rc;
}

const struct vv_command vv_cmd_doctor = {
    .name = "doctor",
    .words = "URL",
    .words_min = 1,
    .words_max = 1,
    .summary = "Try what an object store really does, and say what follows.",
    .text = "  varve doctor s3://my-bucket/varve --set tier.s3.endpoint=https://store.example\n"
            "Writes a few small objects and 11 MiB below a prefix of its own and removes them. A broker asks the same when\n"
            "it claims its bucket and takes the safe path by itself. Exit code 1: a broker cannot work there.",
    .opts = opts,
    .run = run,
};
