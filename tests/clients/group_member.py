"""group_member.py BOOTSTRAP GROUP TOPIC LEDGER GO STRATEGY [PARTITION:OFFSET,...] — one member of groups.py's group.

Appends to LEDGER, one line each, before anything else happens with it: `assigned P...`, `revoked P...`, `got P OFFSET
DIGEST`, `committed P OFFSET` (acknowledged), each with the machine's monotonic clock in front. Reads nothing until
the file GO is there. With the last argument it kills itself with SIGKILL when it gets one of these records. SIGTERM:
commits and leaves."""

import hashlib
import os
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

COMMIT_EVERY = 500


class Member:
    def __init__(self, bootstrap, group, topic, ledger, go, strategy, die_at=""):
        self.topic, self.go, self.positions, self.stopping = topic, go, {}, False
        self.die_at = {tuple(map(int, at.split(":"))) for at in die_at.split(",") if at}
        self.ledger = open(ledger, "a", encoding="ascii", buffering=1)
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "partition.assignment.strategy": strategy,
                "check.crcs": True,
            }
        )
        self.cooperative = strategy.startswith("cooperative")
        self.started = False

    def note(self, *words):
        self.ledger.write(" ".join(map(str, (time.monotonic_ns(), *words))) + "\n")

    def assigned(self, consumer, partitions):
        (consumer.incremental_assign if self.cooperative else consumer.assign)(partitions)
        # A partition that was paused, taken away and given back is still paused: say which it is.
        (consumer.resume if self.started else consumer.pause)(partitions)
        self.note("assigned", *sorted(p.partition for p in partitions))

    def revoked(self, consumer, partitions):
        self.commit()
        self.positions = {p: at for p, at in self.positions.items() if p not in {x.partition for x in partitions}}
        self.note("revoked", *sorted(p.partition for p in partitions))
        (consumer.incremental_unassign(partitions) if self.cooperative else consumer.unassign())

    def lost(self, consumer, partitions):
        self.positions.clear()
        self.note("lost", *sorted(p.partition for p in partitions))

    def commit(self):
        """A commit that fails is one that did not happen: its records may come again, here or elsewhere."""
        if not self.positions:
            return
        try:
            done = self.consumer.commit(
                offsets=[TopicPartition(self.topic, p, at) for p, at in self.positions.items()], asynchronous=False
            )
        except KafkaException as e:
            self.note("refused", e.args[0].name())
            return
        for p in done:
            if not p.error:
                self.note("committed", p.partition, p.offset)
        self.positions.clear()

    def take(self, message):
        p, offset = message.partition(), message.offset()
        self.note("got", p, offset, hashlib.sha256((message.key() or b"") + b"\0" + message.value()).hexdigest()[:16])
        if (p, offset) in self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.positions[p] = offset + 1

    def run(self):
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        self.consumer.subscribe([self.topic], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.lost)
        pending = 0
        while not self.stopping:
            if not self.started and os.path.exists(self.go):
                self.started = True
                self.consumer.resume(self.consumer.assignment())
            message = self.consumer.poll(0.1)
            if message is None:
                pending = COMMIT_EVERY
            elif message.error():
                if message.error().code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(message.error())
            else:
                self.take(message)
                pending += 1
            if pending >= COMMIT_EVERY:
                self.commit()
                pending = 0
        self.commit()
        self.consumer.close()


if __name__ == "__main__":
    Member(*sys.argv[1:]).run()
