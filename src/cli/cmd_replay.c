/* cmd_replay.c — `varve replay URL`: records out of a bucket without a broker.
 *
 * Nothing is written when the start fails: the output is opened when the first record has been read and verified.
 * A regular --output FILE is written beside as FILE.part and takes its name when it is whole. */
#include "bucket.h"
#include "export.h"
#include "prewarm.h"
#include "feed.h"
#include "progress.h"
#include "scans.h"
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FLUSH_BYTES (256u << 10)
#define STOP_WRITE 1000001 /* from the callback: writing failed, said by errno */
#define STOP_NOMEM 1000002
#define STOP_SAID 1000003 /* said already */
#define STOP_FEED 1000004 /* the other Kafka; feed_error */

static const struct vv_opt opts[] = {
    {"topic", 't', "TOPIC", "Which topic: its name or its id. Needed."},
    {"partition", 'p', "N", "One partition only (default: all, one after the other)."},
    {"from", 0, "X", "First offset (a bare integer) or time (RFC 3339 or ts:MILLIS)."},
    {"to", 0, "X", "Offset or time that is no longer wanted."},
    {"key", 'k', "KEY", "Only records with exactly this key."},
    {"grep", 'g', "RE", "Only records whose value matches this extended regular expression."},
    {"format", 'f', "FORMAT", "ndjson (default), json, csv or raw (values, one per line)."},
    {"output", 'o', "FILE", "Write there instead of standard output."},
    {"to-kafka", 0, "HOST:PORT", "Write the records to a topic of another Kafka instead, partition by partition."},
    {"as", 0, "TOPIC", "With --to-kafka: the topic there (default: the same name); it is made when it is not there."},
    {"plan", 0, NULL, "Print what it would cost - bytes, GETs, minutes, money - and read nothing."},
    {"prewarm", 0, NULL, "Bring the window from the bucket to the disk cache of the running broker BROKER (HOST:PORT)."},
    {"rate", 'r', "BYTES", "With --prewarm: at most so many bytes a second (64K, 50M, 1G)."},
    VV_OPT_CONFIG,
    VV_OPT_SET,
    {0},
};

struct replay {
    const struct vv_args *a;
    struct vv_scan_opts window;
    const char *key, *output;
    size_t key_n;
    bool grep;
    regex_t re;
    int64_t partition;
    struct vv_export x;
    struct vv_feed *feed; /* instead of `to` */
    struct vv_error feed_error;
    FILE *to;
    char *part; /* FILE.part; NULL = write straight */
    struct vv_progress progress;
    struct vv_scans scans;
    struct vv_scan *scan; /* the one of `scans` that is read */
    uint64_t done_bytes; /* of the partitions before */
    uint64_t seen;
    int64_t segment; /* the base offset of the one that records come from */
};

/* ---- the question ---- */

static int parse_position(struct replay *r, const char *name)
{
    const char *text = vv_arg(r->a, name);
    struct vv_position p = {0};
    if (!text) return VV_EXIT_DONE;
    if (!vv_position_parse(text, &p))
        return vv_cli_usage(r->a, "--%s %s: expected an offset (42), a time (2026-03-01T00:00:00Z) or ts:MILLIS", name,
                            text);
    bool from = !strcmp(name, "from");
    if (p.is_time)
        *(from ? &r->window.from_ts : &r->window.to_ts) = p.at;
    else
        *(from ? &r->window.from : &r->window.to) = p.at;
    return VV_EXIT_DONE;
}

static int parse(struct replay *r)
{
    const char *format = vv_arg(r->a, "format"), *re = vv_arg(r->a, "grep");
    r->window = VV_SCAN_ALL;
    r->segment = -1;
    r->key = vv_arg(r->a, "key");
    r->key_n = r->key ? strlen(r->key) : 0;
    r->output = vv_arg(r->a, "output");
    if (!vv_arg(r->a, "topic")) return vv_cli_usage(r->a, "--topic is needed: varve ls %s shows what there is",
                                                    r->a->words[0]);
    if (vv_arg(r->a, "as") && !vv_arg(r->a, "to-kafka")) return vv_cli_usage(r->a, "--as goes with --to-kafka");
    if (vv_arg(r->a, "to-kafka") && (format || r->output))
        return vv_cli_usage(r->a, "--to-kafka writes records, not text: without --format and --output");
    if (format && !vv_export_format_parse(format, &r->x.format))
        return vv_cli_usage(r->a, "--format %s: must be ndjson, json, csv or raw", format);
    if (!vv_arg_number(r->a, "partition", -1, 0, INT32_MAX, &r->partition)) return VV_EXIT_USAGE;
    int rc = parse_position(r, "from");
    if (!rc) rc = parse_position(r, "to");
    if (rc) return rc;
    if (r->window.from >= r->window.to || r->window.from_ts >= r->window.to_ts)
        return vv_cli_usage(r->a, "--to %s is not after --from %s: nothing lies between", vv_arg(r->a, "to"),
                            vv_arg(r->a, "from"));
    if (re) {
        char why[200];
        int bad = regcomp(&r->re, re, REG_EXTENDED | REG_NOSUB | REG_NEWLINE);
        if (bad) {
            regerror(bad, &r->re, why, sizeof why);
            return vv_cli_usage(r->a, "--grep %s: %s", re, why);
        }
        r->grep = true;
    }
    return VV_EXIT_DONE;
}

/* A window that lies wholly outside what is there is a mistake, not an empty answer. */
static int check_window(struct replay *r, const struct vv_cli_logs *logs)
{
    int64_t start = INT64_MAX, end = 0, first_ts = INT64_MAX, max_ts = -1;
    char at[40];
    for (size_t i = 0; i < logs->n; i++) {
        const struct vv_bucket_log_info *b = vv_bucket_log_info(logs->v[i]);
        start = VV_MIN(start, b->log_start);
        end = VV_MAX(end, b->next_offset);
        if (b->max_ts < 0) continue;
        first_ts = VV_MIN(first_ts, b->first_ts);
        max_ts = VV_MAX(max_ts, b->max_ts);
    }
    if (r->window.to <= start && end > start)
        return vv_cli_fail(r->a, "--to %s is before the beginning: the log starts at offset %" PRId64,
                           vv_arg(r->a, "to"), start);
    if (r->window.from > end)
        return vv_cli_fail(r->a, "--from %s is past the end: the bucket's last offset is %" PRId64,
                           vv_arg(r->a, "from"), end - 1);
    if (max_ts >= 0 && r->window.to_ts <= first_ts)
        return vv_cli_fail(r->a, "--to %s is before the beginning: the first record is of %s", vv_arg(r->a, "to"),
                           vv_time_text(first_ts, at));
    if (max_ts >= 0 && r->window.from_ts > max_ts)
        return vv_cli_fail(r->a, "--from %s is past the end: the last record is of %s", vv_arg(r->a, "from"),
                           vv_time_text(max_ts, at));
    if (r->window.from > 0 && r->window.from < start)
        fprintf(stderr, "varve replay: the log starts at offset %" PRId64 ": what was before is deleted\n", start);
    if (max_ts >= 0 && r->window.from_ts > INT64_MIN && r->window.from_ts < first_ts)
        fprintf(stderr, "varve replay: the history begins at %s\n", vv_time_text(first_ts, at));
    return VV_EXIT_DONE;
}

/* ---- what it will cost ---- */

static int make_plan(struct replay *r, const struct vv_cli_logs *logs, struct vv_scan_plan *sum)
{
    *sum = (struct vv_scan_plan){0};
    for (size_t i = 0; i < logs->n; i++) {
        struct vv_scan_plan p;
        struct vv_error e = {0};
        int err = vv_scan_plan(logs->v[i], &r->window, &p, &e);
        if (err) return vv_cli_bucket_fail(r->a, err, &e);
        sum->segments += p.segments;
        sum->footers_only += p.footers_only;
        sum->gets += p.gets;
        sum->bytes += p.bytes;
    }
    return VV_EXIT_DONE;
}

/* List prices of AWS S3, us-east-1: GET requests per 1,000, and a gigabyte that leaves the region. */
#define USD_PER_GET (0.0004 / 1000)
#define USD_PER_GB 0.09
#define BYTES_PER_S 125e6 /* 1 Gbit/s */

static int say_plan(const struct replay *r, const struct vv_scan_plan *p, size_t partitions)
{
    bool directory = !strncmp(r->a->words[0], "fs:", 3);
    double minutes = (double)p->bytes / BYTES_PER_S / 60, requests = directory ? 0 : (double)p->gets * USD_PER_GET;
    double transfer = directory ? 0 : (double)p->bytes / 1e9 * USD_PER_GB;
    char size[32];
    if (r->x.format == VV_EXPORT_JSON || (r->x.format == VV_EXPORT_NDJSON && vv_arg_given(r->a, "format"))) {
        json_t *o = json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f}", "topic", r->x.topic, "partitions",
                              (json_int_t)partitions, "segments",
                              (json_int_t)p->segments, "footers_only", (json_int_t)p->footers_only, "gets",
                              (json_int_t)p->gets, "bytes",
                              (json_int_t)p->bytes, "minutes_at_1_gbit", minutes, "usd_requests", requests,
                              "usd_transfer", transfer);
        int bad = !o || json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(o);
        return bad ? VV_EXIT_FAILED : VV_EXIT_DONE;
    }
    printf("topic     %s, %zu partition%s\n", r->x.topic, partitions, partitions == 1 ? "" : "s");
    printf("segments  %" PRIu64 " to read, %" PRIu64 " more to look at\n", p->segments, p->footers_only);
    printf("bytes     %s (%" PRIu64 ")\n", vv_human_bytes((double)p->bytes, size), p->bytes);
    printf("GETs      %" PRIu64 "\n", p->gets);
    printf("minutes   %.1f at 1 Gbit/s, %.1f at 10 Gbit/s\n", minutes, minutes / 10);
    if (directory)
        printf("money     none: a directory\n");
    else
        printf("money     $%.4f for requests, and $%.2f if the bytes leave the region\n"
               "          (AWS list prices: $0.0004 per 1,000 GETs, $0.09 per GB)\n",
               requests, transfer);
    return VV_EXIT_DONE;
}

/* ---- the output ---- */

static int open_output(struct replay *r)
{
    struct stat st;
    if (!r->output) {
        r->to = stdout;
        return VV_EXIT_DONE;
    }
    bool special = !stat(r->output, &st) && !S_ISREG(st.st_mode); /* a pipe, a device */
    if (!special && asprintf(&r->part, "%s.part", r->output) < 0) {
        r->part = NULL;
        return vv_cli_fail(r->a, "out of memory");
    }
    r->to = fopen(special ? r->output : r->part, "w");
    return r->to ? VV_EXIT_DONE : vv_cli_fail(r->a, "cannot write %s: %s", special ? r->output : r->part,
                                              strerror(errno));
}

static bool flush_export(struct replay *r)
{
    struct vv_text *t = &r->x.out;
    bool ok = !t->broken && (!t->n || fwrite(t->p, 1, t->n, r->to) == t->n);
    t->n = 0;
    return ok;
}

static int close_output(struct replay *r, int rc)
{
    bool bad = r->to && r->to != stdout && fclose(r->to);
    if (r->to == stdout) bad = fflush(stdout) != 0;
    r->to = NULL;
    if (bad && !rc) rc = vv_cli_fail(r->a, "cannot write the output: %s", strerror(errno));
    if (r->part && !rc && rename(r->part, r->output))
        rc = vv_cli_fail(r->a, "cannot rename %s to %s: %s", r->part, r->output, strerror(errno));
    else if (r->part && rc)
        fprintf(stderr, "varve replay: what came before the error is in %s\n", r->part);
    return rc;
}

/* ---- reading ---- */

static bool matches(const struct replay *r, const struct vv_record *rec)
{
    if (r->key && (rec->key_n < 0 || (size_t)rec->key_n != r->key_n ||
                   memcmp(rec->key, r->key, r->key_n))) return false;
    if (!r->grep) return true;
    if (rec->value_n < 0) return false;
    regmatch_t range = {.rm_so = 0, .rm_eo = rec->value_n};
    return !regexec(&r->re, (const char *)rec->value, 1, &range, REG_STARTEND);
}

static int on_record(void *ctx, const struct vv_scan_batch *b, const struct vv_record *rec)
{
    struct replay *r = ctx;
    if (!r->feed && !r->to && open_output(r)) return STOP_SAID;
    if (!(r->seen++ & 1023) || b->segment->base != r->segment) {
        struct vv_scan_stats s;
        r->segment = b->segment->base;
        vv_scan_stats(r->scan, &s);
        vv_progress_show(&r->progress, r->done_bytes + s.bytes, r->x.records);
        vv_scans_ahead(&r->scans);
    }
    if (!matches(r, rec)) return 0;
    if (r->feed) {
        r->x.records++;
        return vv_feed_add(r->feed, r->x.partition, rec, &r->feed_error) ? STOP_FEED : 0;
    }
    vv_export_record(&r->x, rec, b->b.ts_type);
    if (r->x.out.broken) return STOP_NOMEM;
    return r->x.out.n >= FLUSH_BYTES && !flush_export(r) ? STOP_WRITE : 0;
}

/* One partition after the other. */
static int read_logs(struct replay *r, const struct vv_cli_logs *logs)
{
    struct vv_error e = {0};
    struct vv_bucket_log *log;
    struct vv_scan_stats s;
    int err, saved = 0;
    r->scans = (struct vv_scans){.logs = logs, .window = &r->window};
    while (!(err = vv_scans_next(&r->scans, &r->scan, &log, &e)) && log) {
        r->x.partition = vv_bucket_log_info(log)->partition;
        err = vv_scan_each(r->scan, on_record, r, &e);
        saved = errno;
        vv_scan_stats(r->scan, &s);
        r->done_bytes += s.bytes;
        if (err) break;
    }
    vv_scans_end(&r->scans);
    if (!err) return VV_EXIT_DONE;
    vv_progress_end(&r->progress);
    if (err == STOP_WRITE) return vv_cli_fail(r->a, "cannot write the output: %s", strerror(saved));
    if (err == STOP_SAID) return VV_EXIT_FAILED;
    if (err == STOP_NOMEM) return vv_cli_fail(r->a, "out of memory");
    if (err == STOP_FEED) return vv_cli_fail(r->a, "%s", r->feed_error.text);
    return vv_cli_bucket_fail(r->a, err, &e);
}

/* --to-kafka: what is there is checked before the first record is read. */
static int open_feed(struct replay *r, const struct vv_cli_logs *logs)
{
    const char *to = vv_arg(r->a, "to-kafka"), *as = vv_arg(r->a, "as");
    struct vv_feed_opts o = {.bootstrap = to, .topic = as ? as : r->x.topic};
    struct vv_error e = {0};
    if (!to) return VV_EXIT_DONE;
    for (size_t i = 0; i < logs->n; i++) o.partitions = VV_MAX(o.partitions, vv_bucket_log_info(logs->v[i])->partition + 1);
    return vv_feed_open(&o, &r->feed, &e) ? vv_cli_fail(r->a, "%s", e.text) : VV_EXIT_DONE;
}

static int feed_all(struct replay *r, const struct vv_cli_logs *logs, const struct vv_scan_plan *plan)
{
    struct vv_error e = {0};
    int rc = open_feed(r, logs);
    if (rc) return rc;
    vv_progress_begin(&r->progress, "varve replay", plan->bytes, true);
    rc = read_logs(r, logs);
    if (!rc && vv_feed_flush(r->feed, &e)) rc = vv_cli_fail(r->a, "%s", e.text);
    vv_progress_end(&r->progress);
    if (!rc) vv_progress_sum(&r->progress, r->done_bytes, r->x.records);
    vv_feed_close(r->feed);
    return rc;
}

static int read_all(struct replay *r, const struct vv_cli_logs *logs, const struct vv_scan_plan *plan)
{
    if (vv_arg(r->a, "to-kafka")) return feed_all(r, logs, plan);
    vv_progress_begin(&r->progress, "varve replay", plan->bytes, r->output || !isatty(STDOUT_FILENO));
    vv_export_begin(&r->x);
    int rc = read_logs(r, logs);
    vv_progress_end(&r->progress);
    if (!rc && !r->to) rc = open_output(r); /* an empty answer */
    if (!r->to) return rc;
    if (!rc) vv_export_end(&r->x);
    if (!flush_export(r) && !rc) rc = vv_cli_fail(r->a, "cannot write the output: %s", strerror(errno));
    if (!rc) vv_progress_sum(&r->progress, r->done_bytes, r->x.records);
    return close_output(r, rc);
}

/* ---- the broker's cache ---- */

static int prewarm(const struct vv_args *a)
{
    static const char *const no_records[] = {"key", "grep", "format", "output", "plan", "to-kafka", "as"};
    const char *rate = vv_arg(a, "rate");
    struct vv_prewarm p = {.broker = a->words[0], .topic = vv_arg(a, "topic")};
    struct replay r = {.a = a};
    int rc = parse(&r);
    if (r.grep) regfree(&r.re);
    if (rc) return rc;
    if (!strncmp(p.broker, "fs:", 3) || !strncmp(p.broker, "s3://", 5))
        return vv_cli_usage(a, "--prewarm fills a running broker's cache: say which broker, as HOST:PORT, not its bucket");
    for (size_t i = 0; i < VV_COUNT(no_records); i++)
        if (vv_arg_given(a, no_records[i])) return vv_cli_usage(a, "--%s: --prewarm prints no records", no_records[i]);
    if (rate && !vv_rate_parse(rate, &p.bytes_per_s))
        return vv_cli_usage(a, "--rate %s: expected bytes a second: 1000000, 64K, 50M, 1G", rate);
    p.partition = (int32_t)r.partition;
    if (vv_arg_given(a, "from")) vv_position_parse(vv_arg(a, "from"), &p.from);
    if (vv_arg_given(a, "to")) vv_position_parse(vv_arg(a, "to"), &p.to);
    return vv_prewarm_run(a, &p);
}

static int run(const struct vv_args *a)
{
    if (vv_arg_given(a, "prewarm")) return prewarm(a);
    if (vv_arg_given(a, "rate")) return vv_cli_usage(a, "--rate goes with --prewarm");
    struct replay r = {.a = a};
    struct vv_cli_logs logs = {0};
    struct vv_scan_plan plan;
    struct vv_bucket *b = NULL;
    int rc = parse(&r);
    if (!rc) b = vv_cli_bucket(a, &rc);
    if (b) rc = vv_cli_logs_open(a, b, vv_arg(a, "topic"), (int32_t)r.partition, &logs);
    if (!rc && !logs.n) rc = vv_cli_fail(a, "there is nothing of topic %s in the bucket yet", vv_arg(a, "topic"));
    if (!rc) r.x.topic = vv_bucket_log_info(logs.v[0])->topic;
    if (!rc) rc = check_window(&r, &logs);
    if (!rc) rc = make_plan(&r, &logs, &plan);
    if (!rc) rc = vv_arg_given(a, "plan") ? say_plan(&r, &plan, logs.n) : read_all(&r, &logs, &plan);
    vv_cli_logs_close(&logs);
    vv_bucket_close(b);
    vv_export_release(&r.x);
    free(r.part);
    if (r.grep) regfree(&r.re);
    return rc;
}

const struct vv_command vv_cmd_replay = {
    .name = "replay",
    .words = "URL|BROKER",
    .words_min = 1,
    .words_max = 1,
    .summary = "Read, search and export a topic from its bucket, without a broker.",
    .text = "URL is fs:DIR or s3://BUCKET/PREFIX; credentials are found as the broker finds them. Every checksum is\n"
            "verified, records below the log start and of aborted transactions are left out, nothing is written to the\n"
            "bucket. Partitions come one after the other, each in offset order; while one is read the next is on its way.\n"
            "--to is exclusive; a time window is exact for records in any order. On a terminal the progress goes to stderr. Exit code 3: a damaged or missing object,\n"
            "named.\n"
            "--prewarm with HOST:PORT instead of URL reads nothing out: the broker there brings the window from its bucket to its\n"
            "disk cache, so that replays of it need the bucket no more. A window larger than that cache leaves its end there.",
    .opts = opts,
    .run = run,
};
