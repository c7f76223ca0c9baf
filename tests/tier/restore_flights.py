#!/usr/bin/env python3
"""restore_flights.py — the flights data set comes back from the bucket, read with librdkafka and compared with the source by hash.

336,776 flights are produced by an idempotent producer, half of them before a time T. Then: the disk is lost and the broker comes back from its
bucket alone; a new cluster is seeded from that bucket as of T; another one from its newest state, and that one's origin is taken away when it
has been brought over. In between, without a broker, `varve replay` of a month and of a tail number. Each holds, partition by partition, exactly the beginning of what was sent, up to the end that it names.
usage: tests/tier/restore_flights.py [--store fs|minio]
"""
import argparse
import json
import pathlib
import shutil
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "crash"), str(HERE.parent / "clients")]
import broker  # noqa: E402
import clients  # noqa: E402
import dataset  # noqa: E402
from restore import SETTINGS, Restored, Source, Stores  # noqa: E402

TOPIC = "flights"
FAST = {**SETTINGS, "log.segment.bytes": 2 << 20, "tier.hydrate.max.bytes.per.second": 1 << 30}


def expect(records, ends):
    """partition -> (count, sha256) of what was sent up to these ends."""
    hashers = {p: dataset.Hasher() for p in ends}
    for partition, timestamp, key, value in records:
        if hashers[partition].count < ends[partition]:
            hashers[partition].add(hashers[partition].count, timestamp, key, value)
    return {p: (h.count, h.sha.hexdigest()) for p, h in hashers.items()}


def same(cache, records, who, client, least, name):
    with client() as c:
        ends = {p: c.offset(TOPIC, p, -1) for p in range(dataset.PARTITIONS)}
    assert sum(ends.values()) >= least, f"{name}: {sum(ends.values())} records, {least} were closed and uploaded"
    got, took_s = clients.read(clients.readers(cache)["confluent"], who.bootstrap, TOPIC)
    assert got == expect(records, ends), f"{name}: another content than was sent: {got}"
    print(f"{name}: {sum(ends.values())} flights are what was sent ({took_s:.1f} s)", flush=True)
    return sum(ends.values())


MARCH = (1362096000000, 1364774400000)  # of 2013
TAIL = b"N725MQ"                        # the one that flew most


def replayed(stores, records, ends):
    """No broker runs: `varve replay` of a month, of one tail number, of both, against the source."""
    count, sent = dict.fromkeys(ends, 0), []
    for partition, timestamp, key, value in records:
        if count[partition] < ends[partition]:
            sent.append((partition, count[partition], timestamp, key, value))
            count[partition] += 1
    month = ("--from", f"ts:{MARCH[0]}", "--to", f"ts:{MARCH[1]}")
    for args, keep in ((month, lambda t, k: MARCH[0] <= t < MARCH[1]), (("--key", TAIL.decode()), lambda t, k: k == TAIL),
                       ((*month, "--key", TAIL.decode()), lambda t, k: MARCH[0] <= t < MARCH[1] and k == TAIL)):
        got = [json.loads(line) for line in stores.cli("replay", "source", "--topic", TOPIC, *args).stdout.splitlines()]
        want = sorted(r for r in sent if keep(r[2], r[3]))
        assert want and [(r["partition"], r["offset"], r["timestamp"], r["key"] and r["key"].encode(), r["value"].encode()) for r in got] == want, \
            f"varve replay {' '.join(args)}: {len(got)} flights, {len(want)} were sent"
        print(f"varve replay {' '.join(args)}: {len(got)} flights are what was sent", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("fs", "minio"), default="fs")
    o = parser.parse_args()
    cache = broker.in_venv("data")
    records = list(dataset.load(cache))
    half = len(records) // 2
    with broker.Scratch() as scratch:
        stores = Stores(scratch, o.store)
        s = Source(scratch, stores, settings=FAST)
        clients.create(s.broker.bootstrap, TOPIC)
        clients.produce(s.broker.bootstrap, TOPIC, records[:half])
        s.quiet()
        clients.create(s.broker.bootstrap, "marker", partitions=1)
        broker.wait_for("the list of topics is in the bucket", lambda: "marker" in stores.cli("inspect", "source", "v1/cluster.json").stdout)
        first = sum(s.remote_end(TOPIC, p) for p in range(dataset.PARTITIONS))
        t = s.now_ms()
        clients.produce(s.broker.bootstrap, TOPIC, records[half:])
        s.quiet()
        total = sum(s.remote_end(TOPIC, p) for p in range(dataset.PARTITIONS))
        s.broker.kill()
        shutil.rmtree(s.broker.settings["data.dir"])
        s.broker.settings["tier.take.over"] = "true"  # the proof that the claim is its own was on the disk
        began = time.monotonic()
        s.broker.start()
        print(f"disk lost, ready again after {(time.monotonic() - began) * 1000:.0f} ms", flush=True)
        same(cache, records, s.broker, s.client, total, "from its bucket alone")
        with s.client() as c:
            ends = {p: c.offset(TOPIC, p, -1) for p in range(dataset.PARTITIONS)}
        s.broker.stop()
        replayed(stores, records, ends)
        old = Restored(scratch, stores, "then", stores.url("source"), as_of=t, settings=FAST)
        n = same(cache, records, old.broker, old.client, first, "as of the time between")
        assert n == first <= half, f"{n} records as of then, {first} were closed"
        old.broker.stop()
        new = Restored(scratch, stores, "now", stores.url("source"), settings=FAST)
        same(cache, records, new.broker, new.client, total, "a new cluster, read through")
        new.hydrated()
        stores.take_away("source")
        new.broker.stop()
        new.again()
        same(cache, records, new.broker, new.client, total, "without the origin")
        new.broker.stop()


if __name__ == "__main__":
    main()
