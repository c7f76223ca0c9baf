/* metrics_kafka.h — the page's second half: kafka_exporter's names, so that dashboards made for it work unchanged. */
#ifndef VARVE_BROKER_METRICS_KAFKA_H
#define VARVE_BROKER_METRICS_KAFKA_H
#include "broker.h"
#include "metrics.h"

/* A topic's partitions as they were gathered; `of` at most the count that the page shows. */
struct vv_metrics_partition {
    char topic[250], id[12];
    int64_t log_start, high_watermark;
};

/* Brokers, topics, partitions: kafka_brokers, kafka_topic_partition_*. On the metrics server's thread. */
void vv_metrics_kafka_partitions(struct vv_broker *b, struct vv_metrics_out *o, const struct vv_metrics_partition *p,
                                 size_t n);
/* Groups: kafka_consumergroup_*. Asks `control` and waits for its answer; nothing once it is stopping. */
void vv_metrics_kafka_groups(struct vv_broker *b, struct vv_metrics_out *o);
#endif
