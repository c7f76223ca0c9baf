"""clients.py — the six readers, by name, and the topic they are tried on."""
import subprocess
import sys
import time

import broker
import dataset

HERE = broker.HERE
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
READERS = ("confluent", "kafkapython", "kafkajs", "franz", "kcat", "console")


def readers(cache):
    """name -> command without its last two arguments, BOOTSTRAP and TOPIC."""
    python = cache / "venv/bin/python"
    return {
        "confluent": [python, HERE / "read_confluent.py"],
        "kafkapython": [python, HERE / "read_kafkapython.py"],
        "kafkajs": ["node", HERE / "read_kafkajs.js", cache / "node"],
        "franz": [cache / "franz"],
        "kcat": [python, HERE / "read_kcat.py"],
        "console": [python, HERE / "read_console.py", cache / "jars"],
    }


def read(command, bootstrap, topic, patience_s=240):
    """Runs a reader: (partition -> (count, sha256), seconds). A reader that fails raises RuntimeError."""
    began = time.monotonic()
    done = subprocess.run([*map(str, command), bootstrap, topic], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=patience_s)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}\n{done.stderr.strip()[-2000:]}")
    lines = (line.split() for line in done.stdout.splitlines())
    return {int(p): (int(count), digest) for p, count, digest in lines}, time.monotonic() - began


def admin(bootstrap):
    from confluent_kafka.admin import AdminClient
    return AdminClient({"bootstrap.servers": bootstrap})


def create(bootstrap, topic, config=None, partitions=dataset.PARTITIONS):
    from confluent_kafka.admin import NewTopic
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config={k: str(v) for k, v in (config or {}).items()})
    client = admin(bootstrap)
    for future in client.create_topics([new]).values():
        future.result(60)


def alter(bootstrap, topic, config):
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
    entries = [ConfigEntry(k, str(v), incremental_operation=AlterConfigOpType.SET) for k, v in config.items()]
    client = admin(bootstrap)
    for future in client.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)]
                                                   ).values():
        future.result(60)


def produce(bootstrap, topic, records, codec="none", **more):
    """Sends records with confluent-kafka and demands that every one is acknowledged."""
    from confluent_kafka import Producer
    failed = []
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "acks": "all", "linger.ms": 20,
                         "enable.idempotence": True, "queue.buffering.max.messages": 1000000,
                         "queue.buffering.max.kbytes": 1 << 20, **more})
    acked = [0]

    def report(error, message):
        if error:
            failed.append(str(error))
        else:
            acked[0] += 1

    sent = 0
    for partition, timestamp, key, value in records:
        while True:
            try:
                producer.produce(topic, value, key, partition, timestamp=timestamp, on_delivery=report)
                break
            except BufferError:
                producer.poll(0.5)
        sent += 1
        if sent % 1000 == 0:
            producer.poll(0)
    left = producer.flush(120)
    if failed or left or acked[0] != sent:
        raise RuntimeError(f"{topic}: {sent} sent, {acked[0]} acknowledged, {left} without an answer; {failed[:3]}")


def main():
    """clients.py BOOTSTRAP TOPIC [READER...] — what the readers say of a topic, for trying things out."""
    cache = broker.in_venv()
    broker.needs()
    commands = readers(cache)
    for name in sys.argv[3:] or commands:
        answer, seconds = read(commands[name], *sys.argv[1:3])
        print(f"{name}: {seconds:.1f} s")
        for p in sorted(answer):
            print(" ", p, *answer[p])


if __name__ == "__main__":
    main()
