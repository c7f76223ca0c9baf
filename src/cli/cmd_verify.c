/* cmd_verify.c — `varve verify URL`: is everything there, and is it what was written? */
#include "bucket.h"
#include "progress.h"
#include "table.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct vv_opt opts[] = {
    {"topic", 't', "TOPIC", "One topic only: its name or its id."}, VV_OPT_OUTPUT, VV_OPT_CONFIG, VV_OPT_SET, {0},
};

struct verify {
    const struct vv_args *a;
    bool json;
    json_t *damages; /* of the partition at hand */
    json_t *rows;
    struct vv_verified sum;
    uint64_t partitions;
    int rc;
};

static void found(void *ctx, const struct vv_error *damage)
{
    struct verify *v = ctx;
    if (v->json)
        json_array_append_new(v->damages, json_string(damage->text));
    else
        printf("DAMAGED  %s\n", damage->text);
}

/* Damage is told and counted; anything else ends the command. */
static int trouble(struct verify *v, int err, const struct vv_error *e)
{
    if (err != VV_E_CORRUPT) return vv_cli_bucket_fail(v->a, err, e);
    v->sum.damages++;
    found(v, e);
    return VV_EXIT_DONE;
}

static int verify_partition(struct verify *v, struct vv_bucket *b, const struct vv_bucket_topic *t, int32_t partition)
{
    struct vv_bucket_log *log = NULL;
    struct vv_verified got = {0};
    struct vv_error e = {0};
    v->damages = json_array();
    int err = vv_bucket_log_open(b, t, partition, &log, &e), rc = VV_EXIT_DONE;
    if (!err) err = vv_verify_log(log, found, v, &got, &e);
    if (err) {
        rc = trouble(v, err, &e);
        got.damages += !rc;
        v->sum.damages -= !rc;
    }
    v->sum.segments += got.segments;
    v->sum.records += got.records;
    v->sum.bytes += got.bytes;
    v->sum.damages += got.damages;
    v->partitions++;
    const struct vv_bucket_log_info *l = log ? vv_bucket_log_info(log) : NULL;
    if (v->json)
        json_array_append_new(v->rows, json_pack("{s:s,s:i,s:I,s:I,s:I,s:I,s:I,s:O}", "topic", t->name, "partition",
                                                 (int)partition, "log_start",
                                                 (json_int_t)(l ? l->log_start : 0), "next_offset",
                                                 (json_int_t)(l ? l->next_offset : 0),
                                                 "objects", (json_int_t)got.segments, "records",
                                                 (json_int_t)got.records, "bytes",
                                                 (json_int_t)got.bytes, "damages", v->damages));
    else if (!got.damages && !rc)
        printf("ok       %s-%d: offsets %" PRId64 "..%" PRId64 ", %" PRIu64 " objects, %" PRIu64 " records\n", t->name,
               (int)partition,
               l->log_start, l->next_offset - 1, got.segments, got.records);
    json_decref(v->damages);
    vv_bucket_log_close(log);
    return rc;
}

static int verify_topics(struct verify *v, struct vv_bucket *b, const struct vv_bucket_topic *t, size_t n)
{
    int rc = VV_EXIT_DONE;
    for (size_t i = 0; i < n && !rc; i++)
        for (size_t p = 0; p < t[i].partition_count && !rc; p++) rc = verify_partition(v, b, &t[i], t[i].partitions[p]);
    return rc;
}

static int verify_bucket(struct verify *v, struct vv_bucket *b)
{
    struct vv_error e = {0};
    const char *name = vv_arg(v->a, "topic");
    struct vv_bucket_topic one, *all = NULL;
    size_t n = 0;
    int err = name ? vv_bucket_find_topic(b, name, &one, &e) : vv_bucket_topics(b, &all, &n, &e);
    if (err) return vv_cli_bucket_fail(v->a, err, &e);
    int rc = name ? verify_topics(v, b, &one, 1) : verify_topics(v, b, all, n);
    if (name) vv_bucket_topic_release(&one);
    vv_bucket_topics_free(all, n);
    return rc;
}

static int run(const struct vv_args *a)
{
    struct verify v = {.a = a};
    char size[32];
    int rc;
    if (!vv_table_wants_json(a, &v.json)) return VV_EXIT_USAGE;
    struct vv_bucket *b = vv_cli_bucket(a, &rc);
    if (!b) return rc;
    v.rows = json_array();
    rc = verify_bucket(&v, b);
    if (v.json) {
        json_dumpf(v.rows, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (!rc) {
        printf("%" PRIu64 " partitions, %" PRIu64 " objects, %" PRIu64 " records, %s: %" PRIu64 " damaged\n",
               v.partitions, v.sum.segments,
               v.sum.records, vv_human_bytes((double)v.sum.bytes, size), v.sum.damages);
    }
    json_decref(v.rows);
    vv_bucket_close(b);
    return rc ? rc : v.sum.damages ? VV_EXIT_DAMAGE : VV_EXIT_DONE;
}

const struct vv_command vv_cmd_verify = {
    .name = "verify",
    .words = "URL",
    .words_min = 1,
    .words_max = 1,
    .summary = "Check every object of a bucket: checksums, identity, continuity from the log start.",
    .text = "Reads everything: manifests and their pages by their hashes, each object's footer against its name, its\n"
            "cluster and the manifest, every block and batch, every record's frame, and that no offset is missing. Exit\n"
            "code 3: damage, each one named.",
    .opts = opts,
    .run = run,
};
