#!/usr/bin/env python3
"""powercut.py [--cuts N] [--seed N] — cuts the power under a broker, over and over; nothing acknowledged may be lost.

The data directory lies on ext4 on a loop device. While producers, commits and topic changes run, the file system is shut down
without flushing its journal (the ioctl GOINGDOWN, NOLOGFLUSH): what was synced stays, everything else is gone, as when a machine
loses its power. Then the broker gets kill -9, the file system is mounted again, a broker opens what is left, and the ledger is
checked. Some cuts come at a random moment, some right after the N-th rename (or open, unlink, truncate, mkdir) of a thread.
An answer that comes after the cut began proves nothing: the machine it came from is off, and ext4 lets an fdatasync that races
with the shutdown succeed although its data is lost (a plain loop of write and fdatasync shows it). What EIO does: disk.py.

Modes: `same`: the tier lies on the file system that is cut; `other`: it does not; `relaxed`: log.flush.acks=none, where a suffix
may be missing (the log is a strict prefix). Needs root, a loop device and mkfs.ext4; ends with 77 otherwise. Runs in a mount
namespace of its own, so that nothing stays mounted whatever happens.
"""
import argparse
import fcntl
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "clients")]
from broker import Scratch, Varve, skip, wait_for  # noqa: E402
from faults import STORAGE_ERROR, own_mounts, strace, stopped  # noqa: E402
from ledger import Client, Gone, Ledger  # noqa: E402

GOINGDOWN, NOLOGFLUSH = 0x8004587D, 2
MODES = ["same", "other", "relaxed"]
LIVES = 4  # cuts of one file system before it is made anew: each opens what the one before left
POINTS = ["rename", "openat", "unlink", "ftruncate", "mkdir"]
PARTITIONS = 3
BUSY = (14, 15, 16, 5, 3)  # the coordinator or the offsets topic is on its way
SETTINGS = {"num.partitions": PARTITIONS, "offsets.topic.num.partitions": 1, "log.segment.bytes": 65536,
            "log.local.retention.bytes": 131072, "socket.request.max.bytes": 1048576, "metrics.listener": "off"}


class Disk:
    """ext4 in a file, on a loop device that detaches by itself when it is unmounted."""

    def __init__(self, scratch, name):
        self.image, self.path, self.mounted = scratch.dir / f"{name}.img", scratch.dir / name, False
        self.path.mkdir()
        with self.image.open("wb") as f:
            f.truncate(256 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", self.image], check=True)

    def mount(self):
        done = subprocess.run(["mount", "-o", "loop", self.image, self.path], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            skip(f"cannot mount a loop device ({done.stderr.strip()}): run where /dev/loop-control and ext4 are available")
        self.mounted = True

    def cut(self):
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, GOINGDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(fd)

    def umount(self):
        if self.mounted:
            wait_for("the file system can be unmounted", lambda: not subprocess.run(["umount", self.path], stderr=subprocess.DEVNULL).returncode, 30)
            self.mounted = False

    def remove(self):
        self.umount()
        self.image.unlink()
        self.path.rmdir()


class Facts:
    """What a test may rely on after a cut: the last answered value of each fact, and those asked for since."""

    def __init__(self):
        self.sure, self.asked, self.topics, self.names = {}, {}, set(), 0

    def change(self, key, value, ask, dark):
        """ask: true when the change was answered as done."""
        self.asked.setdefault(key, []).append(value)
        if ask(value) and not dark.is_set():
            self.sure[key], self.asked[key] = value, []
            return True
        return False

    def check(self, key, found):
        may = [self.sure.get(key), *self.asked.get(key, [])]
        assert found in may, f"{key}: {found} after the cut, {may[0]} was answered, {may[1:]} were asked for after that"
        self.sure[key], self.asked[key] = found, []


class Life:
    """The producers and changers of one life of the broker."""

    def __init__(self, broker, topic, ledgers, facts, seed):
        self.broker, self.topic, self.ledgers, self.facts, self.error = broker, topic, ledgers, facts, None
        self.over, self.dark = threading.Event(), threading.Event()
        self.next = facts.sure.get(("committed", topic)) or 0
        self.next_ms = int(facts.sure.get(("retention.ms", topic)) or 10**12)
        self.threads = [threading.Thread(target=self.guard, args=(self.produce, i, random.Random(seed + i))) for i in range(PARTITIONS)]
        self.threads += [threading.Thread(target=self.guard, args=(f,)) for f in (self.commit, self.change)]
        for t in self.threads:
            t.start()

    def guard(self, f, *more):
        try:
            with Client(self.broker.bootstrap, timeout_s=30) as c:
                while not self.over.is_set():
                    f(c, *more)
        except Gone:
            pass
        except Exception as e:  # told by join, on the main thread
            self.error = self.error or e

    def produce(self, c, partition, chance):
        code = self.ledgers[partition].send(c, self.topic, partition, chance.randrange(1, 6), chance.randrange(10, 3000),
                                            doubt=(STORAGE_ERROR,), dark=self.dark)
        assert code in (0, STORAGE_ERROR), f"Produce: error code {code}"
        if code:
            time.sleep(0.01)

    def commit(self, c):
        self.next += 1
        if not self.facts.change(("committed", self.topic), self.next, lambda n: c.commit("g", self.topic, 0, n) == 0, self.dark):
            time.sleep(0.01)

    def change(self, c):
        def alter(value):
            return c.try_alter(self.topic, {"retention.ms": value}) == 0
        self.next_ms += 1
        done = self.facts.change(("retention.ms", self.topic), str(self.next_ms), alter, self.dark)
        if self.facts.names < 40:
            self.facts.names += 1
            name = f"made-{self.facts.names}"
            if c.try_create(name, 1, {}) == 0 and not self.dark.is_set():
                self.facts.topics.add(name)
        if not done:
            time.sleep(0.01)

    def join(self):
        self.over.set()
        for t in self.threads:
            t.join(60)
        if self.error:
            raise self.error


def check(broker, topic, ledgers, facts, relaxed):
    """Everything that was promised is there. Returns (records there, acknowledged ones that a relaxed mode lost)."""
    counts, lost = [], 0
    with Client(broker.bootstrap) as c:
        missing = facts.topics - c.topics()
        assert not missing, f"topics that were answered are gone: {sorted(missing)}"
        for partition, ledger in enumerate(ledgers):
            start, records = c.offset(topic, partition, -2), c.read_all(topic, partition)
            assert start == 0 and (not records or records[0][0] == 0), f"partition {partition} begins at {start}"
            acked = len(ledger.ok)
            counts.append(ledger.check(partition, records, lost_ok=relaxed))
            if relaxed:
                ledger.forget_lost(partition, len(records))
                lost += acked - len(ledger.ok)
        key = ("retention.ms", topic)
        if facts.sure.get(key):
            facts.check(key, c.config(topic, "retention.ms"))
        key = ("committed", topic)
        if facts.sure.get(key):
            code, offset = wait_for("the committed offset can be read", lambda: next(
                (x for x in [c.committed("g", topic, 0)] if x[0] not in BUSY), None), 30)
            assert code == 0, f"OffsetFetch: error code {code}"
            facts.check(key, offset)
    return sum(counts), lost


def run_life(scratch, disk, settings, chance, topic, ledgers, facts, name, relaxed):
    """From a mounted file system to one that was cut and checked; returns (records found, records lost, how it was cut)."""
    point = chance.choice(POINTS) if chance.random() < 0.4 and shutil.which("strace") else None
    n = chance.randrange(1, 12)
    broker = Varve(scratch, settings, name)
    with Client(broker.bootstrap) as c:
        c.create(topic, PARTITIONS, {})
    how = f"after {chance.random() * 0.9 + 0.1:.3f} s"
    tracer = None
    if point:  # attached now, so that it is the work that is hit, not the start
        tracer = strace(broker.pid, f"trace={point}", f"inject={point}:signal=STOP:when={n}")
        how = f"after {point} number {n} of a thread"
    life = Life(broker, topic, ledgers, facts, chance.randrange(1 << 30))
    try:
        deadline = time.monotonic() + (3 if point else float(how.split()[1]))
        while time.monotonic() < deadline and not (point and stopped(broker.pid)):
            time.sleep(0.01)
        life.dark.set()
        disk.cut()
        if tracer is None:  # disk errors everywhere: refusals, and no crash
            time.sleep(0.1)
        ended = not broker.running()
    finally:
        life.over.set()
        broker.kill()
        if tracer:
            tracer.wait(30)
        life.join()
    assert not ended, f"the broker ended by itself when the disk failed: {broker.process}"
    disk.umount()
    if os.environ.get("VARVE_KEEP"):  # what the next life finds
        subprocess.run(["cp", "--sparse=always", disk.image, scratch.dir / "cut.img"], check=True)
    disk.mount()
    after = Varve(scratch, settings, name + "-after")
    found, lost = check(after, topic, ledgers, facts, relaxed)
    after.kill()
    for thing in (broker, after):
        scratch.started.remove(thing)
    return found, lost, how


def run_mode(scratch, mode, lives, seed, first):
    """Several cuts of one file system, each life opening what the one before left."""
    chance = random.Random(seed)
    disk = Disk(scratch, f"disk-{seed}")
    settings = dict(SETTINGS, **{"data.dir": disk.path / "data"})
    if mode == "other":
        settings["tier.url"] = f"fs:{scratch.dir}/tier-{seed}"
    if mode == "relaxed":
        settings["log.flush.acks"] = "none"
    ledgers, facts = [Ledger() for _ in range(PARTITIONS)], Facts()
    disk.mount()
    try:
        for i in range(lives):
            name = f"{mode}-{first + i}"
            found, lost, how = run_life(scratch, disk, settings, chance, "t", ledgers, facts, name, mode == "relaxed")
            sure = sum(len(x.ok) for x in ledgers)
            more = f", the last {lost} before the cut lost, as this mode may" if lost else ""
            print(f"cut {first + i}: {mode}, {how}: {found} records there, {sure} acknowledged{more}", flush=True)
            assert i < lives - 1 or found, "no record survived: the test tests nothing"
    except BaseException:
        print(f"FAILED; again with: {sys.argv[0]} --seed {seed} --mode {mode} --cuts {lives}", flush=True)
        raise
    finally:
        for thing in scratch.started:
            if thing.running():
                thing.kill()
        disk.remove()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--cuts", type=int, default=12)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--mode", choices=MODES)
    a = p.parse_args()
    own_mounts()
    began, cut, seed = time.monotonic(), 0, a.seed
    with Scratch() as scratch:
        while cut < a.cuts:
            lives = min(LIVES, a.cuts - cut)
            run_mode(scratch, a.mode or MODES[(seed - a.seed) % len(MODES)], lives, seed, cut + 1)
            cut, seed = cut + lives, seed + 1
    print(f"{cut} power cuts, nothing acknowledged was lost, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
