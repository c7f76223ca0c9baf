"""read_kafkapython.py BOOTSTRAP TOPIC — reads a topic from offset 0 with kafka-python; see dataset.py."""

import sys

from kafka import KafkaConsumer, TopicPartition

import dataset

QUIET_MS = 60000  # a broker that sends nothing for so long will not send the rest


def main(bootstrap, topic):
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        check_crcs=True,
        auto_offset_reset="none",
        max_poll_records=5000,
    )
    partitions = sorted(consumer.partitions_for_topic(topic))
    hashers = {p: dataset.Hasher() for p in partitions}
    ends = {
        t.partition: end for t, end in consumer.end_offsets([TopicPartition(topic, p) for p in partitions]).items()
    }
    reading = {p for p in partitions if ends[p] > 0}
    consumer.assign([TopicPartition(topic, p) for p in sorted(reading)])
    consumer.seek_to_beginning()
    while reading:
        answer = consumer.poll(timeout_ms=QUIET_MS)
        if not answer:
            sys.exit(f"read_kafkapython: nothing came for {QUIET_MS} ms; unfinished: {sorted(reading)}")
        for records in answer.values():
            for r in records:
                if r.partition in reading:
                    hashers[r.partition].add(r.offset, r.timestamp, r.key, r.value)
                    if r.offset >= ends[r.partition] - 1:
                        reading.remove(r.partition)
    consumer.close()
    dataset.report(hashers)


if __name__ == "__main__":
    main(*sys.argv[1:])
