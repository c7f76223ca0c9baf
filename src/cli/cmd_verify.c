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
    {"topic", 't', "TOPIC", "One topic only: its name or its id."},
    {"anchor", 'a', "HASH|FILE", "A value remembered from an earlier run, or a file with its `anchor` lines; may be repeated."}, VV_OPT_OUTPUT, VV_OPT_CONFIG, VV_OPT_SET, {0},
};

struct anchor_name { char text[320]; };

struct verify {
    const struct vv_args *a;
    bool json;
    json_t *damages; /* of the partition at hand */
    json_t *rows;
    struct vv_verified sum;
    struct vv_anchor *anchors;
    struct anchor_name *names; /* as many: what the file said of them */
    size_t anchor_count;
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
    if (!err) err = vv_verify_anchored(log, v->anchors, v->anchor_count, found, v, &got, &e);
    if (err) {
        rc = trouble(v, err, &e);
        got.damages += !rc;
        v->sum.damages -= !rc;
    }
    v->sum.segments += got.segments;
    v->sum.records += got.records;
    v->sum.bytes += got.bytes;
    v->sum.damages += got.damages;
    v->sum.unlinked += got.unlinked;
    v->partitions++;
    const struct vv_bucket_log_info *l = log ? vv_bucket_log_info(log) : NULL;
    if (v->json)
        json_array_append_new(v->rows, json_pack("{s:s,s:i,s:I,s:I,s:I,s:I,s:I,s:O,s:s,s:I}", "topic", t->name, "partition",
                                                 (int)partition, "log_start",
                                                 (json_int_t)(l ? l->log_start : 0), "next_offset",
                                                 (json_int_t)(l ? l->next_offset : 0),
                                                 "objects", (json_int_t)got.segments, "records",
                                                 (json_int_t)got.records, "bytes",
                                                 (json_int_t)got.bytes, "damages", v->damages, "anchor", got.chain, "anchor_offset",
                                                 (json_int_t)got.chain_offset));
    else if (!got.damages && !rc)
        printf("ok       %s-%d: offsets %" PRId64 "..%" PRId64 ", %" PRIu64 " objects, %" PRIu64 " records\n", t->name,
               (int)partition,
               l->log_start, l->next_offset - 1, got.segments, got.records);
    if (!v->json && *got.chain) printf("anchor   %s-%d %" PRId64 " %s\n", t->name, (int)partition, got.chain_offset, got.chain);
    json_decref(v->damages);
    vv_bucket_log_close(log);
    return rc;
}

/* ---- anchors ---- */

static bool parse_hash(const char *text, size_t n, uint8_t out[32])
{
    if (n != 64 || strspn(text, "0123456789abcdef") < 64) return false;
    for (size_t i = 0; i < 32; i++) {
        char hex[3] = {text[2 * i], text[2 * i + 1], 0};
        out[i] = (uint8_t)strtoul(hex, NULL, 16);
    }
    return true;
}

static int add_anchor(struct verify *v, const char *hash, size_t n, const char *name)
{
    struct vv_anchor *a = realloc(v->anchors, (v->anchor_count + 1) * sizeof *a);
    if (a) v->anchors = a;
    struct anchor_name *names = realloc(v->names, (v->anchor_count + 1) * sizeof *names);
    if (names) v->names = names;
    if (!a || !names) return VV_E_NOMEM;
    a[v->anchor_count] = (struct vv_anchor){.offset = -1};
    if (!parse_hash(hash, n, a[v->anchor_count].value)) return VV_E_USAGE;
    snprintf(names[v->anchor_count++].text, sizeof names->text, "%s", name);
    return VV_OK;
}

/* Lines "anchor TOPIC-PARTITION OFFSET HASH", as an earlier run printed them; others are passed over. */
static int anchors_of_file(struct verify *v, const char *path)
{
    char line[512], name[256], offset[32], hash[80];
    size_t before = v->anchor_count;
    FILE *f = fopen(path, "re");
    if (!f) return vv_cli_usage(v->a, "--anchor %s: neither 64 hex digits nor a file that can be read", path);
    int err = VV_OK;
    while (!err && fgets(line, sizeof line, f)) {
        if (sscanf(line, "anchor %255s %31s %79s", name, offset, hash) != 3) continue;
        char what[320];
        snprintf(what, sizeof what, "%s up to offset %s", name, offset);
        err = add_anchor(v, hash, strlen(hash), what);
    }
    fclose(f);
    if (err || v->anchor_count == before) return vv_cli_usage(v->a, "--anchor %s: no `anchor` lines of varve verify in it", path);
    return VV_EXIT_DONE;
}

static int take_anchors(struct verify *v)
{
    size_t n;
    const char **given = vv_arg_all(v->a, "anchor", &n);
    int rc = given ? VV_EXIT_DONE : VV_EXIT_FAILED;
    for (size_t i = 0; i < n && !rc; i++) {
        int err = add_anchor(v, given[i], strlen(given[i]), "");
        if (err == VV_E_USAGE) rc = anchors_of_file(v, given[i]);
        else if (err) rc = VV_EXIT_FAILED;
    }
    free(given);
    return rc;
}

/* An anchor that no partition met is damage: what it vouched for is not there any more, or not as it was. */
static void judge_anchors(struct verify *v)
{
    for (size_t i = 0; i < v->anchor_count; i++) {
        const struct vv_anchor *a = &v->anchors[i];
        struct vv_error e;
        char hash[65];
        for (size_t k = 0; k < sizeof a->value; k++) snprintf(hash + 2 * k, 3, "%02x", a->value[k]);
        if (a->met) {
            if (!v->json)
                printf("proven   everything below offset %" PRId64 " is as it was when anchor %s was told%s%s\n", a->offset, hash,
                       *v->names[i].text ? ": " : "", v->names[i].text);
            continue;
        }
        vv_error_set(&e, VV_E_CORRUPT, "anchor %s%s%s is no past state of this log: a segment was replaced or left out, the log was cut off before "
                     "it, or retention has removed all that it covered", hash, *v->names[i].text ? " of " : "", v->names[i].text);
        v->sum.damages++;
        v->damages = json_array();
        found(v, &e);
        if (v->json) json_array_append_new(v->rows, json_pack("{s:s,s:o}", "anchor_missed", hash, "damages", v->damages));
        else json_decref(v->damages);
    }
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
    rc = take_anchors(&v);
    if (!rc) rc = verify_bucket(&v, b);
    if (!rc) judge_anchors(&v);
    if (v.json) {
        json_dumpf(v.rows, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (!rc) {
        printf("%" PRIu64 " partitions, %" PRIu64 " objects, %" PRIu64 " records, %s: %" PRIu64 " damaged\n",
               v.partitions, v.sum.segments,
               v.sum.records, vv_human_bytes((double)v.sum.bytes, size), v.sum.damages);
        if (!v.anchor_count)
            printf("Whether somebody replaced or cut off history cannot be told without an anchor: keep the `anchor` lines, and give them to "
                   "--anchor next time.\n");
        if (v.sum.unlinked)
            printf("%" PRIu64 " objects of an older version have no place in the hash chain: an anchor says nothing of them.\n", v.sum.unlinked);
    }
    free(v.anchors);
    free(v.names);
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
            "cluster and the manifest, every block and batch, every record's frame, that no offset is missing, and the hash\n"
            "chain over all of it. Exit code 3: damage, each one named.\n"
            "Checksums find rot, not forgery: keep the `anchor` lines somewhere else, and\n"
            "  varve verify URL --anchor FILE\n"
            "proves later that what they cover was not changed, and nothing of it left out from the log start on.",
    .opts = opts,
    .run = run,
};
