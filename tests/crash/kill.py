#!/usr/bin/env python3
"""kill.py [--all] [--seed N] [--only SYSCALL:N] — kill -9 at the N-th system call of produce, seal and upload, over and over.

A broker runs under strace, which delivers SIGKILL when one of its threads enters a system call for the N-th time; a producer
writes down what was acknowledged (ledger.py); a second broker opens what is left, and everything acknowledged must be there,
in its place, whether it lies on the disk or in the bucket (`fs`), and the directory must still be whole at the next start.
Without --all: a sample that fits into CI. --all: every N up to what a whole run makes. A failure prints the line that repeats it.
"""
import argparse
import collections
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "clients")]
from broker import Scratch, Varve, skip  # noqa: E402
from ledger import Client, Gone, Ledger  # noqa: E402

CALLS = ["pwrite64", "fdatasync", "fsync", "rename", "unlink", "openat", "ftruncate", "mkdir", "close", "link", "renameat2", "sendmsg", "writev"]
TOPIC = "t"
SETTINGS = {"num.partitions": 2, "offsets.topic.num.partitions": 1, "metrics.listener": "off", "log.segment.bytes": 65536,
            "log.local.retention.bytes": 131072, "socket.request.max.bytes": 1048576}


class Traced(Varve):
    """A broker under strace -D: the traced process is our child, strace a grandchild that ends with it."""

    def __init__(self, scratch, settings, name, trace):
        self.trace = trace
        super().__init__(scratch, settings, name)

    def spawn(self, command, **more):
        super().spawn([*self.trace, *command], **more)

    def end(self, clean):
        if self.running():
            self.kill()


def workload(broker, ledger, batches=90):
    """Two partitions, about 20 segments each; True when the broker lived through all of it."""
    try:
        with Client(broker.bootstrap) as c:
            c.create(TOPIC, 2, {})
            for i in range(batches):
                for partition in (0, 1):
                    ledger.send(c, TOPIC, partition, 1 + i % 8, 3000)
            for partition in (0, 1):
                c.read_all(TOPIC, partition)
        return True
    except Gone:
        return False


def count_calls(scratch):
    """How often the busiest thread makes each call in a whole run: the N that make sense."""
    log = scratch.path("calls")
    broker = Traced(scratch, SETTINGS, "count", ["strace", "-D", "-f", "-qq", "-o", log, "-e", "trace=" + ",".join(CALLS), "-e", "signal=none"])
    assert workload(broker, Ledger())
    broker.stop()
    most = collections.defaultdict(collections.Counter)
    for line in pathlib.Path(log).read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match and match[2] in CALLS:
            most[match[2]][match[1]] += 1
    return {call: max(threads.values()) for call, threads in most.items()}


def crash(scratch, call, n):
    """One crash. True when the kill came."""
    name = f"{call}-{n}"
    trace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}"]
    ledger, broker, settings = Ledger(), None, dict(SETTINGS)
    settings["data.dir"] = scratch.dir / name / "data"
    lived = False
    try:
        broker = Traced(scratch, settings, name, trace)
        lived = workload(broker, ledger)
    except RuntimeError:
        pass  # killed before it was ready: what is there must open all the same
    thing = scratch.started.pop()
    if lived:
        broker.stop()
    elif thing.running():
        thing.process.wait(30)
    epochs_before = {}
    for again in range(2):
        after = Varve(scratch, settings, f"{name}-after{again}")
        with Client(after.bootstrap) as c:
            c.create(TOPIC, 2, {})
            for partition in (0, 1):
                records = c.read_all(TOPIC, partition)
                ledger.check(partition, records)
                epochs = [epoch for _, epoch, _ in records]
                assert epochs == sorted(epochs), "leader epochs go back"
                if again and not lived:
                    assert epochs[-1] > epochs_before[partition], "no new leader epoch after a kill"
                epochs_before[partition] = epochs[-1] if epochs else -1
                if not again:
                    assert ledger.send(c, TOPIC, partition, 3, 100) == 0
        if again:
            assert after.stop() == 0
        else:
            after.kill()
        scratch.started.remove(after)
    shutil.rmtree(scratch.dir / name)
    return not lived


def plan(counts, everything, seed):
    if everything:
        return [(call, n) for call, most in sorted(counts.items()) for n in range(1, most + 1)]
    chance, points = random.Random(seed), []
    for call, most in sorted(counts.items()):
        some = {1, 2, most, *(chance.randrange(1, most + 1) for _ in range(6))}
        points += [(call, n) for n in sorted(some)]
    return points


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--all", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only")
    a = p.parse_args()
    if not shutil.which("strace"):
        skip("there is no strace: install the package strace (make needs)")
    with Scratch() as scratch:
        probe = subprocess.run(["strace", "-D", "-qq", "-o", "/dev/null", "true"], stderr=subprocess.PIPE, text=True)
        if probe.returncode:
            skip(f"strace may not trace here ({probe.stderr.strip()}): run as root, or allow ptrace")
        if a.only:
            call, n = a.only.split(":")
            points = [(call, int(n))]
        else:
            counts = count_calls(scratch)
            points = plan(counts, a.all, a.seed)
            print("calls of the busiest thread:", ", ".join(f"{k} {v}" for k, v in sorted(counts.items())), flush=True)
        killed, began = 0, time.monotonic()
        for call, n in points:
            try:
                killed += crash(scratch, call, n)
            except BaseException:
                print(f"FAILED at {call}:{n}; again with: {sys.argv[0]} --only {call}:{n}", flush=True)
                raise
        assert killed or a.only, "no run was killed: the test tests nothing"
        print(f"{len(points)} crash points, {killed} of them killed the broker, ledger clean, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
