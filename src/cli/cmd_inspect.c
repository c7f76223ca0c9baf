/* cmd_inspect.c — `varve inspect URL KEY | --topic T --partition P`: one object or one partition's manifest, as text or JSON. */
#include "bucket.h"
#include "table.h"

#include "follow.h"
#include "footer.h"
#include "jsoncrc.h"
#include "keys.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_MAX (64u << 20)
#define ASK_MS 60000

static const struct vv_opt opts[] = {
    {"topic", 't', "TOPIC", "The manifest of a partition of this topic."},
    {"partition", 'p', "N", "Which partition (default 0)."},
    VV_OPT_OUTPUT,
    VV_OPT_CONFIG,
    VV_OPT_SET,
    {0},
};

/* ---- printing any JSON for people: scalars as "name  value", lists of objects as tables ---- */

static void print_scalar(const json_t *v)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY);
    printf("%s", json_is_string(v) ? json_string_value(v) : text ? text : "?");
    free(text);
}

static void print_rows(const json_t *rows)
{
    const json_t *row, *v;
    const char *name;
    size_t i;
    bool first = true;
    json_array_foreach(rows, i, row) {
        if (!json_is_object(row)) {
            printf("  ");
            print_scalar(row);
            putchar('\n');
            continue;
        }
        if (first) {
            json_object_foreach((json_t *)(uintptr_t)row, name, v) printf("  %s", name);
            putchar('\n');
            first = false;
        }
        json_object_foreach((json_t *)(uintptr_t)row, name, v) {
            printf("  ");
            print_scalar(v);
        }
        putchar('\n');
    }
}

static void print_text(json_t *o)
{
    const char *name;
    json_t *v;
    json_object_foreach(o, name, v) {
        if (json_is_array(v)) {
            printf("%s: %zu\n", name, json_array_size(v));
            print_rows(v);
            continue;
        }
        printf("%-16s ", name);
        print_scalar(v);
        putchar('\n');
    }
}

/* Takes o over. */
static int print(const struct vv_args *a, json_t *o, bool json)
{
    int rc = VV_EXIT_DONE;
    if (!o) return vv_cli_fail(a, "out of memory");
    if (json)
        rc = json_dumpf(o, stdout, JSON_INDENT(2)) ? VV_EXIT_FAILED : VV_EXIT_DONE;
    else if (json_is_object(o))
        print_text(o);
    else
        print_rows(o);
    if (json) putchar('\n');
    json_decref(o);
    return rc;
}

static json_t *time_json(int64_t ms)
{
    char text[40];
    return ms == -1 ? json_null() : json_string(vv_time_text(ms, text));
}

/* ---- a segment object ---- */

static json_t *blocks_json(const struct vv_footer *f)
{
    const struct vv_blocks *t = &f->blocks;
    json_t *all = json_array();
    char crc[16];
    for (uint32_t i = 0; i < t->count; i++) {
        const struct vv_block *b = &t->v[i];
        snprintf(crc, sizeof crc, "%08x", b->crc);
        json_t *o = json_pack("{s:I,s:I,s:s,s:I,s:o,s:o}", "at", (json_int_t)b->at, "bytes",
                                             (json_int_t)b->n, "crc32c", crc,
                                             "first_offset", (json_int_t)b->first_offset, "min_time",
                                             time_json(b->min_ts), "max_time",
                                             time_json(b->max_ts));
        if (f->flags) {
            json_object_set_new(o, "stored_at", json_integer((json_int_t)f->stored[i].at));
            json_object_set_new(o, "stored_bytes", json_integer((json_int_t)f->stored[i].n));
            json_object_set_new(o, "compressed", json_boolean(f->stored[i].how == VV_STORED_ZSTD));
        }
        json_array_append_new(all, o);
    }
    return all;
}

static json_t *footer_json(const char *key, const struct vv_footer *f, uint64_t object_bytes)
{
    char id[23], nonce[17];
    vv_uuid_text(f->key.topic_id, id);
    snprintf(nonce, sizeof nonce, "%016" PRIx64, f->key.nonce);
    json_t *o = json_pack("{s:s,s:i,s:s,s:s,s:s,s:i,s:I,s:I,s:i,s:i,s:s,s:I,s:I,s:I,s:I}", "key", key, "version",
                          f->version, "cluster_id",
                          f->cluster_id, "topic", f->topic, "topic_id", id, "partition", (int)f->key.partition, "base",
                          (json_int_t)f->key.base, "last", (json_int_t)f->key.last, "epoch", (int)f->key.epoch,
                          "generation",
                          (int)f->key.generation, "nonce", nonce, "writer_epoch", (json_int_t)f->writer_epoch,
                          "records",
                          (json_int_t)f->records, "bytes", (json_int_t)f->data_bytes, "object_bytes",
                          (json_int_t)object_bytes);
    json_t *epochs = json_array(), *aborted = json_array();
    for (size_t i = 0; i < f->epoch_count; i++)
        json_array_append_new(epochs, json_pack("{s:i,s:I}", "epoch", (int)f->epochs[i].epoch, "start",
                                                (json_int_t)f->epochs[i].start));
    for (size_t i = 0; i < f->aborted_count; i++)
        json_array_append_new(aborted, json_pack("{s:I,s:I,s:I}", "producer_id", (json_int_t)f->aborted[i].producer_id,
                                                 "first_offset",
                                                 (json_int_t)f->aborted[i].first_offset, "last_offset",
                                                 (json_int_t)f->aborted[i].last_offset));
    json_object_set_new(o, "compression", json_string(f->flags & VV_OBJECT_COMPRESSED ? "zstd" : "none"));
    json_object_set_new(o, "encryption", json_string(f->flags & VV_OBJECT_ENCRYPTED ? "aes-256-gcm" : "none"));
    if (f->sealing) json_object_set_new(o, "key_id", json_string(f->sealing->key_id));
    json_object_set_new(o, "stored_bytes", json_integer((json_int_t)f->stored_bytes));
    json_object_set_new(o, "stored_ratio", json_real(f->data_bytes ? (double)f->stored_bytes / (double)f->data_bytes : 1));
    json_object_set_new(o, "first_time", time_json(f->first_ts));
    json_object_set_new(o, "max_time", time_json(f->max_ts));
    json_object_set_new(o, "sealed", time_json(f->sealed_ms));
    json_object_set_new(o, "log_start", json_integer(f->log_start));
    json_object_set_new(o, "snapshot_bytes", json_integer((json_int_t)f->snapshot_n));
    json_object_set_new(o, "epochs", epochs);
    json_object_set_new(o, "aborted", aborted);
    json_object_set_new(o, "blocks", blocks_json(f));
    return o;
}

static int inspect_segment(const struct vv_args *a, struct vv_bucket *b, const struct vv_segkey *k, bool json)
{
    struct vv_footer f = {0};
    struct vv_error e = {0};
    uint64_t object_bytes = 0;
    char key[VV_KEY_MAX];
    vv_segkey_format(k, key);
    int err = vv_footer_get(vv_bucket_store(b), k, vv_bucket_cluster_id(b), 65536, &f, &object_bytes, &e);
    if (err == VV_E_NOENT) return vv_cli_fail(a, "there is no object %s", key);
    if (err) return vv_cli_bucket_fail(a, err, &e);
    int rc = print(a, footer_json(key, &f, object_bytes), json);
    vv_footer_release(&f);
    return rc;
}

static int inspect_json(const struct vv_args *a, struct vv_bucket *b, const char *key, bool json)
{
    struct vv_slice s = {0};
    struct vv_error e = {0};
    int err = vv_objstore_get_whole(vv_bucket_store(b), key, JSON_MAX, ASK_MS, &s, NULL, &e);
    if (err == VV_E_NOENT) return vv_cli_fail(a, "there is no object %s", key);
    if (err) return vv_cli_bucket_fail(a, err, &e);
    bool holds = vv_jsoncrc_holds((const char *)s.p, s.n);
    json_t *o = holds ? json_loadb((const char *)s.p, s.n, 0, NULL) : NULL;
    vv_buf_unref(s.buf);
    if (o) return print(a, o, json);
    vv_error_set(&e, VV_E_CORRUPT, holds ? "%s is neither a segment nor JSON" : "%s is damaged: it does not fit its checksum", key);
    return vv_cli_bucket_fail(a, VV_E_CORRUPT, &e);
}

/* ---- a partition ---- */

struct segments { json_t *all; const struct vv_bucket_log_info *l; };

static int add_segment(void *ctx, const struct vv_extent *x)
{
    struct segments *s = ctx;
    struct vv_segkey k;
    char key[VV_KEY_MAX];
    vv_segkey_of(s->l->topic_id, s->l->partition, x, &k);
    vv_segkey_format(&k, key);
    json_array_append_new(s->all, json_pack("{s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:s}", "base", (json_int_t)x->base, "last",
                                            (json_int_t)x->last,
                                            "bytes", (json_int_t)x->bytes, "object_bytes", (json_int_t)x->object_bytes,
                                            "first_time",
                                            time_json(x->first_ts), "max_time", time_json(x->max_ts), "sealed",
                                            time_json(x->sealed_ms),
                                            "key", key));
    return VV_OK;
}

static int inspect_partition(const struct vv_args *a, struct vv_bucket *b, const char *topic, bool json)
{
    struct vv_cli_logs logs;
    struct vv_error e = {0};
    int64_t partition;
    if (!vv_arg_number(a, "partition", 0, 0, INT32_MAX, &partition)) return VV_EXIT_USAGE;
    int rc = vv_cli_logs_open(a, b, topic, (int32_t)partition, &logs);
    if (!rc) {
        const struct vv_bucket_log_info *l = vv_bucket_log_info(logs.v[0]);
        struct segments s = {json_array(), l};
        char id[23];
        int err = vv_bucket_log_segments(logs.v[0], 0, add_segment, &s, &e);
        vv_uuid_text(l->topic_id, id);
        json_t *o = json_pack("{s:s,s:s,s:s,s:i,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "cluster_id",
                              vv_bucket_cluster_id(b), "topic", l->topic,
                              "topic_id", id, "partition", (int)l->partition, "manifest", l->manifest, "revision",
                              (json_int_t)l->revision,
                              "log_start", (json_int_t)l->log_start, "deleting_below", (json_int_t)l->deleting_below,
                              "next_offset",
                              (json_int_t)l->next_offset, "bytes", (json_int_t)l->bytes, "not_in_manifest",
                              (json_int_t)l->followed,
                              "segments", s.all);
        if (err)
            rc = vv_cli_bucket_fail(a, err, &e);
        else
            rc = print(a, json_incref(o), json);
        json_decref(o);
    }
    vv_cli_logs_close(&logs);
    return rc;
}

static int run(const struct vv_args *a)
{
    bool json;
    int rc;
    struct vv_segkey k;
    const char *topic = vv_arg(a, "topic"), *key = a->word_count > 1 ? a->words[1] : NULL;
    if (!vv_table_wants_json(a, &json)) return VV_EXIT_USAGE;
    if (!topic == !key) return vv_cli_usage(a, "name either an object's KEY or --topic");
    struct vv_bucket *b = vv_cli_bucket(a, &rc);
    if (!b) return rc;
    if (topic)
        rc = inspect_partition(a, b, topic, json);
    else if (!vv_segkey_parse(key, &k))
        rc = inspect_segment(a, b, &k, json);
    else
        rc = inspect_json(a, b, key, json);
    vv_bucket_close(b);
    return rc;
}

const struct vv_command vv_cmd_inspect = {
    .name = "inspect",
    .words = "URL [KEY]",
    .words_min = 1,
    .words_max = 2,
    .summary = "Show what an object of a bucket says, or a partition's manifest and segments.",
    .text = "KEY is an object's name below the URL: a segment (its footer and block table), v1/root.json, v1/cluster.json,\n"
            "a manifest's head or page. With --topic: the partition's log as a reader sees it, segments that the manifest\n"
            "lacks included.",
    .opts = opts,
    .run = run,
};
