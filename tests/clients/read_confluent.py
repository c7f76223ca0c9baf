"""read_confluent.py BOOTSTRAP TOPIC — reads a topic from offset 0 with confluent-kafka (librdkafka); see dataset.py."""

import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

import dataset

QUIET_S = 60  # a broker that sends nothing for so long will not send the rest


def main(bootstrap, topic):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "not-used",
            "enable.auto.commit": False,
            "check.crcs": True,
            "auto.offset.reset": "error",
        }
    )
    partitions = sorted(consumer.list_topics(topic, 30).topics[topic].partitions)
    hashers = {p: dataset.Hasher() for p in partitions}
    ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), 30)[1] for p in partitions}
    reading = {p for p in partitions if ends[p] > 0}
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in reading])
    heard = time.monotonic()
    while reading:
        messages = consumer.consume(5000, 0.2)
        if messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > QUIET_S:
            sys.exit(f"read_confluent: nothing came for {QUIET_S} s; unfinished: {sorted(reading)}")
        for m in messages:
            if m.error():
                raise KafkaException(m.error())
            if m.partition() in reading:
                hashers[m.partition()].add(m.offset(), m.timestamp()[1], m.key(), m.value())
                if m.offset() >= ends[m.partition()] - 1:
                    reading.remove(m.partition())
    consumer.close()
    dataset.report(hashers)


if __name__ == "__main__":
    main(*sys.argv[1:])
