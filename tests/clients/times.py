#!/usr/bin/env python3
"""times.py [--kafka | --tier fs|minio|libs3] — for the first of each month, the offset by timestamp equals the one
found by reading everything.

"By timestamp" is asked in four ways: ListOffsets as librdkafka and kafka-python send it, kafka-get-offsets, and a
consumer that is told to start there. "By reading" is a consumer's pass over all records: the first offset at or after the
time, and that record's own time. The flights are far from ordered by time (the months come as 1, 10, 11, 12, 2, ...),
nearly all of them are in the bucket, and the time after the last flight has no offset."""

import datetime
import subprocess
import sys

import broker
import clients
import dataset
import read_console
from tiered import chosen

MONTHS = [
    int(datetime.datetime(2013 + m // 12, m % 12 + 1, 1, tzinfo=datetime.timezone.utc).timestamp() * 1000)
    for m in range(13)
] + [
    1420070400000
]  # a year later: behind the last


def by_reading(bootstrap, topic):
    """(time, partition) -> (offset, its time) or (-1, -1)."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "not-used", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(dataset.PARTITIONS)])
    found, count = {(when, p): (-1, -1) for when in MONTHS for p in range(dataset.PARTITIONS)}, 0

    def more():
        nonlocal count
        for m in consumer.consume(5000, 0.2):
            if m.error():
                raise KafkaException(m.error())
            count += 1
            at = m.timestamp()[1]
            for when in MONTHS:
                if at >= when and found[when, m.partition()][0] < 0:
                    found[when, m.partition()] = (m.offset(), at)
        return count == dataset.COUNT

    broker.wait_for("everything is read", more, every_s=0)
    consumer.close()
    return found


def by_librdkafka(bootstrap, topic, cache):
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import OffsetSpec

    client, found = clients.admin(bootstrap), {}
    for when in MONTHS:
        asked = {TopicPartition(topic, p): OffsetSpec.for_timestamp(when) for p in range(dataset.PARTITIONS)}
        for partition, future in client.list_offsets(asked, request_timeout=60).items():
            answer = future.result(60)
            found[when, partition.partition] = (answer.offset, answer.timestamp)
    return found


def by_kafkapython(bootstrap, topic, cache):
    from kafka import KafkaConsumer, TopicPartition

    consumer, found = KafkaConsumer(bootstrap_servers=bootstrap), {}
    for when in MONTHS:
        answer = consumer.offsets_for_times({TopicPartition(topic, p): when for p in range(dataset.PARTITIONS)})
        for partition, at in answer.items():
            found[when, partition.partition] = (-1, -1) if at is None else (at.offset, at.timestamp)
    consumer.close()
    return found


def by_get_offsets(bootstrap, topic, cache):
    """The tool does not print the time of the record, nor partitions without an answer."""
    found = {}
    for when in MONTHS[3:5] + MONTHS[-1:]:
        done = subprocess.run(
            read_console.java(
                cache / "jars",
                "org.apache.kafka.tools.GetOffsetShell",
                "--bootstrap-server",
                bootstrap,
                "--topic",
                topic,
                "--time",
                str(when),
            ),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        for p in range(dataset.PARTITIONS):
            found[when, p] = (-1, None)
        for line in done.stdout.split():
            _, p, offset = line.split(":")
            found[when, int(p)] = (int(offset) if offset else -1, None)
    return found


def by_seeking(bootstrap, topic, cache):
    """kcat starts at a time with -o s@; the first record it gets."""
    found = {}
    for when in (MONTHS[1], MONTHS[6]):
        for p in range(dataset.PARTITIONS):
            done = subprocess.run(
                [
                    "kcat",
                    "-C",
                    "-b",
                    bootstrap,
                    "-t",
                    topic,
                    "-p",
                    str(p),
                    "-o",
                    f"s@{when}",
                    "-c",
                    "1",
                    "-q",
                    "-e",
                    "-f",
                    "%o %T\n",
                ],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=60,
            )
            found[when, p] = tuple(map(int, done.stdout.split()))
    return found


def main():
    cache = broker.in_venv("data", "java")
    records = list(dataset.load(cache))
    wrong = 0
    with broker.Scratch() as scratch:
        store = chosen(scratch, sys.argv[1:])
        for codec in ("none", "zstd"):
            topic = f"flights-{codec}"
            store.create(topic, codec)
            clients.produce(store.bootstrap, topic, records, codec)
            store.cold(topic)
            want = by_reading(store.bootstrap, topic)
            for way in (by_librdkafka, by_kafkapython, by_get_offsets, by_seeking):
                answers = way(store.bootstrap, topic, cache)
                bad = {
                    k: (a, want[k]) for k, a in answers.items() if a[0] != want[k][0] or a[1] not in (None, want[k][1])
                }
                wrong += len(bad)
                print(
                    f"{codec:5} {way.__name__:15} {len(answers) - len(bad)} of {len(answers)} times right", flush=True
                )
                for (when, p), (got, right) in list(bad.items())[:10]:
                    print(f"      {when} partition {p}: (offset, time) {got}, by reading {right}", flush=True)
    print(f"{wrong} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
