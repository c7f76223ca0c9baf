#!/usr/bin/env python3
"""replica.py — a read-only replica of somebody else's bucket, while that one is written to: varve broker --replica.

A writer gets records, deletions, new topics and new partitions; the replica follows, its consumers read every record once and in order, and
nothing is ever written to the bucket: by its bytes before and after, and by what a replica in front of a store of our own asks of it.
Kills of either, a bucket that is away, refusals, bad input.
usage: tests/tier/replica.py [--store fs|minio] [--sealed] [case…]
"""
import pathlib
import struct
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "crash"), str(HERE.parent / "clients")]
from broker import Varve, wait_for  # noqa: E402
from ledger import decode_batches  # noqa: E402
from restore import SETTINGS, Source, main, refused, stores_has, value  # noqa: E402
from s3front import S3Front  # noqa: E402
from world import Asker, text  # noqa: E402

OUT_OF_RANGE, TOPIC_AUTHORIZATION_FAILED, POLICY_VIOLATION, STORAGE_ERROR = 1, 29, 44, 56
WRITES = ("PUT", "DELETE", "DELETE_MANY", "CREATE", "PART", "COMPLETE", "ABORT")
QUICK = {"tier.replica": "true", "tier.replica.interval.ms": 50, "tier.fetch.deadline.ms": 2000}


class Replica:
    def __init__(self, scratch, stores, of="source", name="replica", settings=None, start=True):
        self.broker = Varve(scratch, {**SETTINGS, **stores.settings(of), **QUICK, **(settings or {})}, name, start)

    def client(self):
        return Asker(self.broker.bootstrap)

    def messages(self):
        return self.broker.log.read_text(errors="replace")

    def end(self, topic, partition=0):
        with self.client() as c:
            return c.offset(topic, partition, -1)

    def reaches(self, topic, end, partition=0):
        wait_for(f"the replica has {topic}-{partition} up to {end}", lambda: topic in self.topics() and self.end(topic, partition) >= end)

    def topics(self):
        with self.client() as c:
            return c.topics()

    def check(self, sent, start=None):
        """What is there is what was sent, from the log start on."""
        with self.client() as c:
            for (topic, p), values in sent.items():
                first, end = c.offset(topic, p, -2), c.offset(topic, p, -1)
                assert start is None or first == start.get((topic, p), 0), (topic, p, first)
                got = [(o, v) for o, _, v in c.read_all(topic, p)]
                assert got == list(enumerate(values))[first:end], f"{topic}-{p}: {len(got)} records, expected {first}..{end}"


class Consumer(threading.Thread):
    """Reads a partition of the replica as it grows; whatever comes must be the next record."""

    def __init__(self, replica, source, topic, partition=0):
        super().__init__(daemon=True)
        self.replica, self.source, self.topic, self.partition = replica, source, topic, partition
        self.at, self.seen, self.wrong, self.codes, self.done = 0, 0, None, set(), False

    def run(self):
        while not self.done and not self.wrong:
            try:
                with self.replica.client() as c:
                    while not self.done and not self.wrong:
                        self.step(c)
            except Exception as e:  # the replica is down for a moment
                if isinstance(e, (AssertionError, IndexError)):
                    self.wrong = repr(e)
                time.sleep(0.02)

    def step(self, c):
        code, _, data = c.fetch(self.topic, self.partition, self.at, wait_ms=100)
        self.codes.add(code)
        if code == OUT_OF_RANGE:  # it jumps forward to the log start, never back
            start = c.offset(self.topic, self.partition, -2)
            assert start > self.at, f"out of range at {self.at}, the log start is {start}"
            self.at = start
        for offset, _, v in decode_batches(data) if not code else ():
            if offset < self.at:
                continue
            assert offset == self.at, f"offset {offset} where {self.at} was to come"
            assert v == value(self.topic, self.partition, offset), f"another record at {offset}"
            self.at += 1
            self.seen += 1

    def end(self, at):
        wait_for(f"the consumer has read up to {at}", lambda: self.wrong or self.at >= at)
        self.done = True
        self.join(60)
        assert not self.wrong, self.wrong


def writes_to(s3):
    return sum(s3.count(op) for op in WRITES)


def list_offsets(c, topic, when):
    """ListOffsets v11, which knows them all, of partition 0."""
    name = topic.encode()
    body = struct.pack(">ib", -1, 0) + b"\x02" + bytes([len(name) + 1]) + name + b"\x02" + struct.pack(">iiq", 0, -1, when) + b"\0\0"
    head = struct.pack(">hhih", 2, 11, 1, 6) + b"ledger" + b"\0"
    body += struct.pack(">i", 30000) + b"\0"
    c.s.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">i", data[:4])[0]:
        data += c.s.recv(1 << 20)
    code, _, offset = struct.unpack_from(">hqq", data, 4 + 4 + 1 + 4 + 1 + 1 + len(name) + 1 + 4)
    assert code == 0, f"ListOffsets {when}: error code {code}"
    return offset


def tiered(source, topic, partition=0):
    source.quiet()
    return source.remote_end(topic, partition)


def case_follows(scratch, stores):
    """Growth, new and deleted topics, partitions, DeleteRecords, kill -9 of either: every record once, in order; nothing is written."""
    s = Source(scratch, stores, settings={"tier.delete.grace.ms": 600000})
    s.create("cars", 2)
    s.create("doomed")
    s.fill("cars", 0)
    s.fill("doomed", 0, 160)
    end = tiered(s, "cars")
    stores_has(stores, "source", "doomed")
    r = Replica(scratch, stores)
    assert "replica of " + stores.url("source") in r.messages() and f"tier={stores.url('source')} " in r.broker.ready
    assert r.end("cars") == end > 200, (r.end("cars"), end)
    r.check(s.sent)
    consumer = Consumer(r, s, "cars")
    consumer.start()
    for _ in range(3):
        s.fill("cars", 0, 160)
    r.reaches("cars", tiered(s, "cars"))
    with r.client() as c:
        assert c.commit("watchers", "cars", 0, 77) == 0
    r.broker.kill()
    r.broker.start()
    with r.client() as c:
        assert c.committed("watchers", "cars", 0) == (0, 77), "the replica's own offsets"
    s.fill("cars", 0, 160)
    s.broker.kill()
    s.broker.start()
    s.fill("cars", 0, 160)
    s.fill("cars", 1, 160)
    s.create("fresh")
    s.fill("fresh", 0, 160)
    r.reaches("cars", tiered(s, "cars"))
    r.reaches("cars", tiered(s, "cars", 1), 1)
    r.reaches("fresh", tiered(s, "fresh"))
    consumer.end(s.remote_end("cars"))
    assert consumer.seen == consumer.at, "nothing was skipped"
    with s.client() as c:
        assert c.delete_records("cars", 0, 500) == 500
        c.delete_topic("doomed")
        c.alter("fresh", {"retention.ms": "123456789"})
        grow = struct.pack(">i", 1) + text("fresh") + struct.pack(">ii", 3, -1) + struct.pack(">ib", 30000, 0)
        assert struct.unpack_from(">h", c.ask(37, 0, grow), 4 + 4 + 2 + 5)[0] == 0
    s.create("doomed")  # of the same name, another topic
    s.fill("doomed", 0, 96)
    again = tiered(s, "doomed")
    s.fill("cars", 0, 160)  # a segment's footer tells the log start before the manifest does
    r.reaches("cars", tiered(s, "cars"))
    with r.client() as c:
        wait_for("the log start", lambda: c.offset("cars", 0, -2) == 500)
        assert c.fetch("cars", 0, 100)[0] == OUT_OF_RANGE
        wait_for("the new topic of an old name", lambda: "doomed" in c.topics() and c.offset("doomed", 0, -1) >= max(again, 32))
        wait_for("partitions", lambda: c.config("fresh", "retention.ms") == "123456789")
        wait_for("three partitions", lambda: c.fetch("fresh", 2, 0, wait_ms=0)[0] == 0)
    r.check(s.sent)
    s.broker.stop()
    before = stores.content("source")
    with r.client() as c:  # without its owner, and everything that a client may try
        r.check(s.sent)
        assert c.commit("watchers", "cars", 0, 600) == 0
    r.broker.stop()
    r.broker.start()
    r.check(s.sent)
    r.broker.stop()
    assert stores.content("source") == before, "the bucket was written to"
    s.broker.start()  # and it is its owner's still
    s.fill("cars", 0, 16)
    s.broker.stop()


def case_rewritten(scratch, stores):
    """What its owner writes anew: small objects merged and the old ones deleted, records deleted and brought back."""
    merging = {"tier.delete.grace.ms": 1000, "tier.merge.age.ms": 0, "tier.merge.segments.min": 4, "tier.merge.max.bytes.per.second": 1 << 30}
    s = Source(scratch, stores, settings=merging)
    s.create("cars")
    s.fill("cars", 0, 480)
    end = tiered(s, "cars")
    stores_has(stores, "source", "cars")
    r = Replica(scratch, stores, settings={"tier.cache.bytes": 1 << 20})
    wait_for(f"the replica has everything up to {end}", lambda: r.end("cars") == end)
    with s.client() as c:
        c.alter("cars", {"segment.bytes": 4 << 20})  # before, what it had was big
    s.broker.stop()
    time.sleep(1.1)  # older than the grace: the age itself is the subject
    consumer = Consumer(r, s, "cars")
    consumer.start()
    s.broker.start()
    wait_for("a merge", lambda: s.broker.metrics().get(("varve_tier_merges_total",), 0))
    few = [k for k in stores.content("source") if "-0001-" in k]
    assert few, "a merged object"
    consumer.end(end)
    if not stores.minio:  # the grace is over: what the merged object holds is gone (its owner looks once a minute)
        bucket = pathlib.Path(stores.url("source")[3:])
        last = max(int(p.name[21:41]) for p in bucket.rglob("*-0001-*.seg"))
        old = [p for p in bucket.rglob("*-0000-*.seg") if int(p.name[21:41]) <= last]
        assert len(old) >= 4
        for p in old:
            p.unlink()
    assert consumer.seen == end and not consumer.codes & {OUT_OF_RANGE}, (consumer.seen, consumer.codes)
    r.check(s.sent)
    r.broker.kill()
    r.broker.start()
    r.check(s.sent, {})
    s.broker.settings["tier.delete.grace.ms"] = 600000
    s.broker.stop()
    s.broker.start()
    with s.client() as c, r.client() as mine:
        assert c.delete_records("cars", 0, 200) == 200
        wait_for("the log start", lambda: mine.offset("cars", 0, -2) == 200)
        assert c.delete_records("cars", 0, -(1 << 63)) == 0, "varve topic undelete --records"
        wait_for("the records are back", lambda: mine.offset("cars", 0, -2) == 0)
    r.check(s.sent, {})


def case_refuses(scratch, stores):
    """What would change something is refused, with a code that no client repeats for ever; groups and offsets work."""
    s = Source(scratch, stores)
    s.create("cars")
    s.fill("cars")
    end = tiered(s, "cars")
    stores_has(stores, "source", "cars")
    with s.client() as c:
        by_time = [c.offset("cars", 0, when) for when in (0, 1)]
    s.broker.stop()
    before = stores.content("source")
    r = Replica(scratch, stores)
    with r.client() as c:
        assert c.produce("cars", 0, [b"no"])[0] == TOPIC_AUTHORIZATION_FAILED
        assert c.producer_id() >= 0
        assert c.try_create("mine", 1, {}) == POLICY_VIOLATION
        assert c.try_alter("cars", {"retention.ms": "1000"}) == POLICY_VIOLATION
        got = c.ask(20, 1, struct.pack(">i", 1) + text("cars") + struct.pack(">i", 30000))
        assert struct.unpack_from(">h", got, len(got) - 2)[0] == POLICY_VIOLATION
        got = c.ask(21, 0, struct.pack(">i", 1) + text("cars") + struct.pack(">iiqi", 1, 0, 10, 30000))
        assert struct.unpack_from(">h", got, len(got) - 2)[0] == POLICY_VIOLATION
        grow = struct.pack(">i", 1) + text("cars") + struct.pack(">ii", 3, -1) + struct.pack(">ib", 30000, 0)
        got = c.ask(37, 0, grow)
        at = 4 + 4 + 2 + 4
        code, n = struct.unpack_from(">hh", got, at)
        assert code == POLICY_VIOLATION and b"read-only replica of" in got[at + 4:at + 4 + n], got
        c.ask(3, 1, struct.pack(">i", 1) + text("auto"))
        assert c.topics() - {"__consumer_offsets"} == {"cars"}
        assert c.commit("g", "cars", 0, 5) == 0 and c.committed("g", "cars", 0) == (0, 5)
        assert [c.offset("cars", 0, when) for when in (-1, -2)] == [end, 0]
        assert [list_offsets(c, "cars", when) for when in (-1, -2, -4, -5, -6)] == [end, 0, end, end - 1, end]
        assert list_offsets(c, "cars", -3) in range(end), "the largest timestamp"
        assert [c.offset("cars", 0, when) for when in (0, 1)] == by_time, "as its owner says"
    r.check(s.sent)
    data = r.broker.settings["data.dir"]
    r.broker.stop()
    assert stores.content("source") == before, "the bucket was written to"
    # a replica's directory is no broker's, and the other way round; no bucket, another cluster's bucket
    refused(scratch, stores, "source", "is the directory of a replica", settings={"data.dir": str(data)})
    refused(scratch, stores, "source", "has logs of its own", settings={**QUICK, "data.dir": str(s.broker.settings["data.dir"])})
    refused(scratch, stores, "none", "is not a Varve bucket", settings=QUICK) if stores.minio else None
    other = Source(scratch, stores, "other")
    other.broker.stop()
    refused(scratch, stores, "other", "belongs to cluster", settings={**QUICK, "data.dir": str(data)})


def case_bucket_away(scratch, stores):
    """In front of a store of ours: not one write is asked for; a bucket that is away: typed errors, then it catches up; the budget."""
    with S3Front() as s3:
        class Front:
            minio = None

            def settings(self, _):
                return s3.settings()
        s = Source(scratch, Front())
        s.create("cars")
        s.fill("cars")
        end = tiered(s, "cars")
        wait_for("a list of topics", lambda: s3.count("PUT", "cluster.json") > 0)
        s.broker.stop()
        writes, before = writes_to(s3), {k: s3.get(k) for k in s3.keys()}
        r = Replica(scratch, Front(), settings={"tier.cache.bytes": 1 << 20, "tier.readahead.chunks": 0})
        assert r.end("cars") == end
        wait_for("two looks", lambda: s3.count("HEAD", "head.json") >= 3)  # the first one reads the list of topics once more
        asked, heads = len(s3.calls), s3.count("HEAD", "head.json")
        wait_for("four looks more", lambda: s3.count("HEAD", "head.json") >= heads + 4)
        calls = [op for op, *_ in s3.calls[asked:]]
        assert set(calls) <= {"HEAD", "LIST"}, f"a look when nothing happened asks HEAD and LIST only: {set(calls)}"
        assert calls.count("LIST") <= calls.count("HEAD"), "one HEAD of the list, and a HEAD and a LIST a partition"
        s3.away()
        with r.client() as c:
            wait_for("a typed error", lambda: c.fetch("cars", 0, 0, wait_ms=3000)[0] == STORAGE_ERROR)
            assert c.offset("cars", 0, -1) == end, "what is known stays known"
        wait_for("it says so", lambda: "replica: behind" in r.messages())
        s3.clear()
        s.broker.start()
        s.fill("cars", 0, 160)
        r.reaches("cars", tiered(s, "cars"))
        wait_for("it says so", lambda: "again" in r.messages().split("replica: behind")[-1])
        wait_for("served again", lambda: not r.client().fetch("cars", 0, 0)[0], 30)
        r.check(s.sent)
        s.broker.stop()
        writes, before = writes_to(s3), {k: s3.get(k) for k in s3.keys()}
        r.broker.kill()
        r.broker.start()
        r.check(s.sent)
        assert {k: s3.get(k) for k in s3.keys()} == before, "a replica wrote to the bucket"
        r.broker.stop()
        r.broker.start()
        gone = s3.keys(r"\.seg$")[0]  # replaced or deleted by its owner between two looks: asked again, not "damaged", not skipped
        s3.delete(gone)
        with r.client() as c:
            assert c.fetch("cars", 0, 0, wait_ms=3000)[0] == STORAGE_ERROR
        s3.put(gone, before[gone])
        r.broker.stop()
        assert writes_to(s3) == writes and {k: s3.get(k) for k in s3.keys()} == before, "a replica wrote to the bucket"


CASES = {name[5:]: run for name, run in list(globals().items()) if name.startswith("case_")}


if __name__ == "__main__":
    main(CASES, __doc__)
