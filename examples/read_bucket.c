/* read_bucket.c — the reader library in one page: prints a topic's keys and values from its bucket, without a broker.
 *   build/read_bucket fs:./varve-data/tier cars          (credentials for s3:// come from the AWS environment) */
#include "varve/reader.h"

#include <inttypes.h>
#include <stdio.h>

static int print(void *ctx, const struct vv_scan_batch *b, const struct vv_record *r)
{
    (void)ctx;
    (void)b;
    printf("%" PRId64 " %.*s %.*s\n", r->offset, r->key_n > 0 ? r->key_n : 0, (const char *)r->key,
           r->value_n > 0 ? r->value_n : 0,
           (const char *)r->value);
    return 0; /* anything else stops the scan and is returned by vv_scan_each */
}

static int read_partition(struct vv_bucket *b, const struct vv_bucket_topic *t, int32_t partition, struct vv_error *e)
{
    struct vv_bucket_log *log = NULL;
    struct vv_scan *scan = NULL;
    struct vv_scan_opts window = VV_SCAN_ALL; /* .from, .to: offsets; .from_ts, .to_ts: Unix milliseconds */
    int err = vv_bucket_log_open(b, t, partition, &log, e);
    if (!err) err = vv_scan_open(log, &window, &scan, e);
    if (!err) err = vv_scan_each(scan, print, NULL, e);
    vv_scan_close(scan);
    vv_bucket_log_close(log);
    return err;
}

int main(int argc, char **argv)
{
    struct vv_bucket *b = NULL;
    struct vv_bucket_topic t = {0};
    struct vv_error e = {0};
    if (argc != 3) {
        fprintf(stderr, "usage: %s URL TOPIC\n", argv[0]);
        return 2;
    }
    int err = vv_bucket_open(argv[1], NULL, &b, &e);
    if (!err) err = vv_bucket_find_topic(b, argv[2], &t, &e);
    for (size_t i = 0; i < t.partition_count && !err; i++) err = read_partition(b, &t, t.partitions[i], &e);
    if (err) fprintf(stderr, "%s\n", e.text);
    vv_bucket_topic_release(&t);
    vv_bucket_close(b);
    return err ? 1 : 0;
}
