#!/usr/bin/env python3
"""damage.py [CASE...] [--places N] [--seed N] — bytes on the disk change; no CASE runs all of them.

flips   one bit of a closed segment is another, at N random places (200): CORRUPT_MESSAGE for what it touches, right bytes before
        it, other partitions are served
upload  the same before the segment was uploaded: the damaged segment never gets into the bucket, the good ones do
torn    after kill -9 the last 1 … 65536 bytes of the log are cut, zeroed or garbled: a prefix of whole batches is left
files   after kill -9 and after a stop one file of a partition, or two, is gone, empty or an older one: offsets, epochs, records
        and what is known of idempotent producers are as before, or the partition's journal is refused by name

Every record is compared with what was sent, offset, epoch and bytes. Needs nothing but the broker.
"""
import argparse
import itertools
import pathlib
import random
import re
import shutil
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "clients")]
from broker import Scratch, Varve, wait_for  # noqa: E402
from faults import CORRUPT  # noqa: E402
from ledger import Client, Ledger, decode_batches  # noqa: E402

SETTINGS = {"num.partitions": 2, "log.segment.bytes": 65536, "tier.url": "off", "log.local.retention.bytes": 1 << 30,
            "metrics.listener": "off"}


class Random(Ledger):
    """A ledger whose values are random bytes, so that no damage goes unseen and no two batches look alike."""

    def __init__(self, chance):
        super().__init__()
        self.chance = chance

    def fill(self, c, partition, batches, size=1500):
        for _ in range(batches):
            values = [b"%d/%d/" % (partition, self.next + i) + self.chance.randbytes(self.chance.randrange(10, size)) for i in range(3)]
            self.next += 3
            code, base = c.produce("t", partition, values)
            assert code == 0
            for i, value in enumerate(values):
                self.ok[value] = (partition, base + i)


def started(scratch, name, settings, ledgers, batches):
    broker = Varve(scratch, settings, name)
    with Client(broker.bootstrap) as c:
        c.create("t", len(ledgers), {})
        for p, ledger in enumerate(ledgers):
            ledger.fill(c, p, batches)
    return broker


def closed(log_dir, partition=0):
    """The closed segments of a partition: those with a block table, but for the open one (which has one after a stop)."""
    directory = log_dir / f"t-{partition}"
    return sorted({p.with_suffix(".log") for p in directory.glob("*.blocks")} - {max(directory.glob("*.log"))})


def flip(path, chance):
    """Another bit at a random place; how to undo it."""
    at, bit = chance.randrange(path.stat().st_size), 1 << chance.randrange(8)
    with path.open("r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes((byte ^ bit,)))
    return at, byte


def put_back(path, at, byte):
    with path.open("r+b") as f:
        f.seek(at)
        f.write(bytes((byte,)))


# ---- flips ----

def case_flips(scratch, a):
    chance = random.Random(a.seed)
    ledgers = [Random(chance), Random(chance)]
    broker = started(scratch, "flips", SETTINGS, ledgers, 200)
    segments = wait_for("what rolled is closed", lambda: len(closed(broker.log_dir)) >= 6 and closed(broker.log_dir), 30)
    with Client(broker.bootstrap) as c:
        truth = {offset: (epoch, value) for offset, epoch, value in c.read_all("t", 0)}
        ledgers[0].check(0, [(o, e, v) for o, (e, v) in sorted(truth.items())])
        for n in range(a.places):
            path = chance.choice(segments)
            where = segments.index(path)
            base = int(path.stem)
            end = int(segments[where + 1].stem) if where + 1 < len(segments) else base + 1000
            at, byte = flip(path, chance)
            place = f"place {n}: {path.name} byte {at}{field(path, at, byte)}"
            begin = chance.choice((base, chance.randrange(base, end)))
            seen = None
            for offset in (begin, base) if begin != base else (base,):
                seen = read_until_damage(c, truth, offset, end, place)
                if seen:
                    break  # what comes after the damage is good when one begins behind it
            assert seen, f"{place}: not detected"
            assert broker.running()
            put_back(path, at, byte)
            if n % 20 == 0:
                ledgers[1].check(1, c.read_all("t", 1))
        ledgers[0].check(0, c.read_all("t", 0))
    assert broker.stop() == 0
    print(f"flips: {a.places} of {a.places} detected, nothing wrong served", flush=True)


def field(path, at, byte):
    """Where in its batch a byte lies."""
    data = bytearray(path.read_bytes())
    data[at] = byte
    begin = 0
    for batch in batches_of(bytes(data)):
        if at < begin + len(batch):
            return f", byte {at - begin} of a batch of {len(batch)} at {begin}"
        begin += len(batch)
    return ""


def read_until_damage(c, truth, at, end, place):
    """True when the damage was told. What is served on the way is right."""
    while at < end and at in truth:
        code, _, data = c.fetch("t", 0, at, max_bytes=30000, wait_ms=0)
        if code:
            assert code == CORRUPT, f"{place}: error code {code}"
            return True
        before = at
        for offset, epoch, value in decode_batches(data):
            assert truth.get(offset) == (epoch, value), f"{place}: a wrong record was served at {offset}"
            if offset >= at:
                at = offset + 1
        assert at > before, f"{place}: nothing comes at {at}, and no error"
    return False


# ---- upload ----

def case_upload(scratch, a):
    chance = random.Random(a.seed)
    ledgers = [Random(chance), Random(chance)]
    tier = scratch.dir / "upload-tier"
    settings = {**SETTINGS, "data.dir": scratch.dir / "upload-data", "tier.upload.threads": 1}
    broker = started(scratch, "upload-1", settings, ledgers, 150)
    wait_for("what rolled is closed", lambda: len(closed(broker.log_dir)) >= 4, 30)
    assert broker.stop() == 0
    scratch.started.remove(broker)
    segments = {p: closed(broker.log_dir, p) for p in (0, 1)}
    bad = chance.sample(segments[0], len(segments[0]) // 2)
    places = {path: flip(path, chance) for path in bad}
    good = [int(p.stem) for p in segments[0] if p not in bad], [int(p.stem) for p in segments[1]]
    broker = Varve(scratch, {**settings, "tier.url": f"fs:{tier}", "log.local.retention.bytes": 0}, "upload-2")

    def uploaded():
        found = {0: set(), 1: set()}
        for path in tier.glob("v1/t/*/*/*.seg"):
            found[int(path.parent.name)].add(int(path.name.split("-")[0]))
        return found
    first_bad = min(int(p.stem) for p in bad)
    wait_for("the other partition is uploaded", lambda: set(good[1]) <= uploaded()[1], 60)
    wait_for("what lies before the damage is uploaded", lambda: {x for x in good[0] if x < first_bad} <= uploaded()[0], 60)
    wait_for("the damage is told", lambda: re.search("damaged|corrupt|CRC", broker.log.read_text(errors="replace")), 30)
    with Client(broker.bootstrap) as c:
        ledgers[1].check(1, c.read_all("t", 1))
        ledgers[1].fill(c, 1, 60)  # the uploader goes on
        wait_for("new segments are uploaded", lambda: len(uploaded()[1]) > len(good[1]), 60)
        taken = uploaded()[0] & {int(p.stem) for p in bad}
        assert not taken, f"damaged segments are in the bucket: {sorted(taken)}"
        for path in bad:
            assert path.exists(), f"{path.name}: damaged, not in the bucket, and deleted"
    broker.kill()
    scratch.started.remove(broker)
    for path, (at, byte) in places.items():  # a good copy was found
        put_back(path, at, byte)
    broker = Varve(scratch, {**settings, "tier.url": f"fs:{tier}"}, "upload-3")
    wait_for("all of it is uploaded", lambda: {int(p.stem) for p in segments[0]} <= uploaded()[0], 60)
    with Client(broker.bootstrap) as c:
        for p in (0, 1):
            ledgers[p].check(p, c.read_all("t", p))
    print(f"upload: {len(bad)} damaged segments, none of them in the bucket until they were mended", flush=True)


# ---- torn ----

def case_torn(scratch, a):
    chance = random.Random(a.seed)
    for n in range(12):
        ledger, data = Random(chance), scratch.dir / f"torn-data-{n}"
        settings = {**SETTINGS, "data.dir": data, "log.segment.bytes": 1 << 20}
        broker = started(scratch, f"torn-{n}", settings, [ledger], 40)
        broker.kill()
        path = next((broker.log_dir / "t-0").glob("*.log"))
        size, how = path.stat().st_size, ("cut", "zero", "garble")[n % 3]
        torn = chance.choice((1, chance.randrange(1, 512), chance.randrange(1, 4096), chance.randrange(1, min(65536, size))))
        with path.open("r+b") as f:
            if how == "cut":
                f.truncate(size - torn)
            else:
                f.seek(size - torn)
                f.write(bytes(torn) if how == "zero" else chance.randbytes(torn))
        after = Varve(scratch, settings, f"torn-{n}-after")
        with Client(after.bootstrap) as c:
            records = c.read_all("t", 0)
            ledger.check(0, records, lost_ok=True)
            whole = len(records)
            assert not records or records[0][0] == 0
            kept = sum(len(batch) for batch in batches_of(path.read_bytes()))
            assert kept >= size - torn - 5000, f"{how} {torn} bytes took {size - kept} bytes away"
            ledger.forget_lost(0, whole)
            ledger.fill(c, 0, 5)
            ledger.check(0, c.read_all("t", 0))
        assert after.stop() == 0
        for thing in (broker, after):
            scratch.started.remove(thing)
        shutil.rmtree(data)
    print("torn: 12 tails, each log a prefix of whole batches that goes on", flush=True)


def batches_of(data):
    at = 0
    while at + 61 <= len(data):
        n = 12 + int.from_bytes(data[at + 8:at + 12], "big")
        if n < 61 or at + n > len(data):
            return
        yield data[at:at + n]
        at += n


# ---- files ----

KINDS = ["index", "timeindex", "snapshot", "blocks", "leader-epoch-checkpoint"]
WAYS = ["gone", "empty", "older"]


def spoil(directory, older, kind, way, chance):
    """One file of this kind; False when there is none, or no older one of its name."""
    files = sorted(directory.glob(f"*.{kind}" if kind != "leader-epoch-checkpoint" else kind))
    if not files:
        return False
    if way == "older":
        files = [p for p in files if (older / p.name).exists() and (older / p.name).read_bytes() != p.read_bytes()]
    if not files:
        return False
    path = chance.choice(files)
    if way == "gone":
        path.unlink()
    elif way == "empty":
        path.write_bytes(b"")
    else:
        shutil.copyfile(older / path.name, path)
    return True


def state(c, producer):
    records = c.read_all("t", 0)
    return c.offset("t", 0, -2), c.offset("t", 0, -1), records, c.produce("t", 0, [b"idempotent"], producer=producer)


def case_files(scratch, a):
    chance = random.Random(a.seed)
    data, kept, older = scratch.dir / "files-data", scratch.dir / "files-kept", scratch.dir / "files-older"
    settings = {**SETTINGS, "data.dir": data}
    ledger = Random(chance)
    broker = started(scratch, "files", settings, [ledger], 80)
    assert broker.stop() == 0  # with tables of the open segment, which grow later
    shutil.copytree(data / "log/t-0", older)
    scratch.started.remove(broker)
    producer = (4711, 0, 0)
    broker = Varve(scratch, settings, "files-more")
    with Client(broker.bootstrap) as c:
        ledger.fill(c, 0, 40)
        code, base = c.produce("t", 0, [b"idempotent"], producer=producer)
        assert code == 0
        ledger.ok[b"idempotent"] = (0, base)
        ledger.fill(c, 0, 40)
    singles = [((kind, way),) for kind in KINDS for way in WAYS]
    pairs = [p for p in itertools.combinations([s[0] for s in singles], 2) if p[0][0] != p[1][0]]
    tried = 0
    for stop in (False, True):
        if stop:
            broker = Varve(scratch, settings, "files-again")
            assert broker.stop() == 0
        else:
            broker.kill()
        scratch.started.remove(broker)
        if kept.exists():
            shutil.rmtree(kept)
        shutil.copytree(data, kept)
        for damage in singles + chance.sample(pairs, 12 if a.places <= 200 else len(pairs)):
            shutil.rmtree(data)
            shutil.copytree(kept, data)
            if not all([spoil(data / "log/t-0", older, kind, way, chance) for kind, way in damage]):
                continue
            what = f"{'stop' if stop else 'kill'}, " + ", ".join(f"{kind} {way}" for kind, way in damage)
            tried += 1
            after = Varve(scratch, settings, f"files-{tried}")
            with Client(after.bootstrap) as c:
                start, end, records, again = state(c, producer)
                assert start == 0 and len(records) == len(ledger.ok) == end, f"{what}: {start}..{end}, {len(records)} records"
                ledger.check(0, records)
                epochs = [epoch for _, epoch, _ in records]
                assert epochs == sorted(epochs), f"{what}: leader epochs fall"
                assert again == (0, base), f"{what}: the idempotent producer's retry gave {again}, not {base}"
                code, at = c.produce("t", 0, [b"next"])
                assert (code, at) == (0, end), f"{what}: the next record got {at}, not {end}"
                assert c.read_all("t", 0)[-1][1] >= epochs[-1], f"{what}: the leader epoch fell"
            after.kill()
            scratch.started.remove(after)
        shutil.rmtree(data)
        shutil.copytree(kept, data)
    journal_refused(scratch, settings, data)
    print(f"files: {tried} damages, offsets, epochs, records and producers as before", flush=True)


def journal_refused(scratch, settings, data):
    """The journal of the index knows what lies in the bucket: damaged in the middle it is refused by name, never guessed at."""
    path = data / "log/t-0/varve.index"
    text = bytearray(path.read_bytes())
    text[20] ^= 1
    path.write_bytes(text)
    broker = Varve(scratch, settings, "files-journal", start=False)
    try:
        broker.start()
    except RuntimeError:
        said = broker.log.read_text(errors="replace")
        assert broker.process.returncode == 1 and "varve.index" in said, said
        broker.process = None
    else:
        with Client(broker.bootstrap) as c:
            code = c.fetch("t", 0, 0)[0]
        assert code, "a damaged journal was believed"
        broker.kill()
    scratch.started.remove(broker)


CASES = {"flips": case_flips, "upload": case_upload, "torn": case_torn, "files": case_files}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    p.add_argument("--places", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    if not set(a.cases) <= set(CASES):
        p.error(f"the cases are {', '.join(CASES)}")
    began = time.monotonic()
    for name in a.cases or CASES:
        with Scratch() as scratch:
            CASES[name](scratch, a)
        print(f"{name}: done after {time.monotonic() - began:.0f} s", flush=True)
    print(f"{', '.join(a.cases or CASES)}: damage was found or mended, never served; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
