/* rdk.c — librdkafka as a client of the comparison: a producer and a consumer that do nothing else.
 *
 *     rdk produce BOOTSTRAP TOPIC RECORDS BYTES ACKS     prints {"mb_s":…,"rec_s":…,"seconds":…}
 *     rdk consume BOOTSTRAP TOPIC RECORDS                the same; partitions 0…n-1 from the beginning, without a group
 *
 * Settings are librdkafka's own but for linger (5 ms) and batch size (64 KiB), as the Java client has them here. The clock
 * runs from the first record to the last acknowledgement, or to the last record. */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long delivered, refused;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "rdk: %s: %s\n", what, why);
    exit(1);
}

static void set(rd_kafka_conf_t *c, const char *key, const char *value)
{
    char why[512];
    if (rd_kafka_conf_set(c, key, value, why, sizeof why) != RD_KAFKA_CONF_OK) die(key, why);
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk, (void)opaque;
    if (m->err) refused++;
    else delivered++;
}

static rd_kafka_t *client(rd_kafka_type_t type, rd_kafka_conf_t *c, const char *bootstrap)
{
    char why[512];
    set(c, "bootstrap.servers", bootstrap);
    rd_kafka_t *rk = rd_kafka_new(type, c, why, sizeof why);
    if (!rk) die("rd_kafka_new", why);
    return rk;
}

static void say(double seconds, double records, double bytes)
{
    printf("{\"mb_s\":%.2f,\"rec_s\":%.0f,\"seconds\":%.3f}\n", bytes / seconds / 1e6, records / seconds, seconds);
}

static void produce(const char *bootstrap, const char *topic, long records, size_t bytes, const char *acks)
{
    rd_kafka_conf_t *c = rd_kafka_conf_new();
    char *value = malloc(bytes);
    unsigned long x = 88172645463325252ul;
    if (!value) die("malloc", "no memory");
    for (size_t i = 0; i < bytes; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        value[i] = (char)(x >> 32);
    }
    set(c, "acks", acks);
    set(c, "linger.ms", "5");
    set(c, "batch.size", "65536");
    set(c, "queue.buffering.max.messages", "500000");
    rd_kafka_conf_set_dr_msg_cb(c, on_delivery);
    rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, c, bootstrap);
    rd_kafka_topic_t *t = rd_kafka_topic_new(rk, topic, NULL);
    double began = now();
    for (long i = 0; i < records; i++) {
        while (rd_kafka_produce(t, RD_KAFKA_PARTITION_UA, 0, value, bytes, NULL, 0, NULL)) {
            if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL) die("produce", rd_kafka_err2str(rd_kafka_last_error()));
            rd_kafka_poll(rk, 10);
        }
        if (i % 1000 == 0) rd_kafka_poll(rk, 0);
    }
    while (delivered + refused < records) rd_kafka_poll(rk, 100);
    double seconds = now() - began;
    if (refused) die("produce", "some records were refused");
    say(seconds, (double)records, (double)records * (double)bytes);
    rd_kafka_topic_destroy(t);
    rd_kafka_destroy(rk);
    free(value);
}

static void consume(const char *bootstrap, const char *topic, long records)
{
    rd_kafka_conf_t *c = rd_kafka_conf_new();
    const struct rd_kafka_metadata *m;
    set(c, "fetch.message.max.bytes", "1048576");
    set(c, "queued.max.messages.kbytes", "262144");
    set(c, "check.crcs", "false");
    rd_kafka_t *rk = client(RD_KAFKA_CONSUMER, c, bootstrap);
    rd_kafka_topic_t *t = rd_kafka_topic_new(rk, topic, NULL);
    if (rd_kafka_metadata(rk, 0, t, &m, 30000) || m->topic_cnt != 1) die("metadata", "no answer");
    int partitions = m->topics[0].partition_cnt;
    rd_kafka_metadata_destroy(m);
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    double began = now(), bytes = 0;
    for (int i = 0; i < partitions; i++)
        if (rd_kafka_consume_start_queue(t, i, RD_KAFKA_OFFSET_BEGINNING, q)) die("consume", rd_kafka_err2str(rd_kafka_last_error()));
    long seen = 0;
    rd_kafka_message_t *batch[1000];
    while (seen < records) {
        ssize_t n = rd_kafka_consume_batch_queue(q, 30000, batch, 1000);
        if (n <= 0) die("consume", "nothing came for 30 s");
        for (ssize_t i = 0; i < n; i++) {
            if (batch[i]->err && batch[i]->err != RD_KAFKA_RESP_ERR__PARTITION_EOF) die("consume", rd_kafka_message_errstr(batch[i]));
            if (!batch[i]->err) seen++, bytes += (double)batch[i]->len;
            rd_kafka_message_destroy(batch[i]);
        }
    }
    say(now() - began, (double)seen, bytes);
    for (int i = 0; i < partitions; i++) rd_kafka_consume_stop(t, i);
    rd_kafka_queue_destroy(q);
    rd_kafka_topic_destroy(t);
    rd_kafka_destroy(rk);
}

int main(int argc, char **argv)
{
    if (argc == 7 && !strcmp(argv[1], "produce")) produce(argv[2], argv[3], atol(argv[4]), (size_t)atol(argv[5]), argv[6]);
    else if (argc == 5 && !strcmp(argv[1], "consume")) consume(argv[2], argv[3], atol(argv[4]));
    else die("usage", "rdk produce BOOTSTRAP TOPIC RECORDS BYTES ACKS | rdk consume BOOTSTRAP TOPIC RECORDS");
    return 0;
}
