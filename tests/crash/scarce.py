#!/usr/bin/env python3
"""scarce.py [CASE...] [--every K] [--turn I] — memory, threads and descriptors run out under a running broker; no CASE runs all of them.

places    every place that allocates (told apart by its stack) fails once while a scripted conversation goes on: produce, roll, upload,
          fetch hot and cold, metadata, topics made, changed and deleted, a group, commits, log starts that move. One failure a
          conversation, until one passes without. --every K takes one place in K of them, the I-th part
nth       the N-th allocation of the conversation fails, N = 1, 1 + K, …, until the conversation has fewer
share     for a while (shorter with --every) a share of all allocations fails, up to every second one
threads   no thread can be made
files     no descriptor is left: new peers are turned away without spinning, those who are there go on; all of it comes back

Everywhere: an answer is right, a typed error, or a closed connection; none stays out; the broker lives and goes on as before when
there is enough again; what was acknowledged is there, what was refused is not (ledger.py), after a kill -9, too.
A failure prints where the allocation failed. Needs a C compiler.
"""
import argparse
import collections
import itertools
import mmap
import os
import pathlib
import re
import resource
import shutil
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "clients"), str(HERE.parent / "tier")]
from broker import Scratch, Varve, skip, wait_for  # noqa: E402
from faults import OUT_OF_RANGE, STORAGE_ERROR  # noqa: E402
from ledger import Client, Gone, Ledger, decode_batches  # noqa: E402
from s3front import S3Front  # noqa: E402

SETTINGS = {"num.partitions": 2, "offsets.topic.num.partitions": 1, "log.segment.bytes": 65536, "log.local.retention.bytes": 65536,
            "log.segment.delete.delay.ms": 0, "tier.delete.grace.ms": 1000, "group.initial.rebalance.delay.ms": 0,
            "socket.request.max.bytes": 4 << 20, "tier.fetch.deadline.ms": 2000, "reactors": 2, "tier.cache.bytes": 1 << 20}
# What a broker without memory may answer: UNKNOWN_SERVER_ERROR, REQUEST_TIMED_OUT, COORDINATOR_…, NOT_COORDINATOR, KAFKA_STORAGE_ERROR
TIMED_OUT = 7
TYPED = {-1, TIMED_OUT, 14, 15, 16, STORAGE_ERROR}
FIELDS = ("calls", "at", "share", "place", "every", "turn", "threads", "failed", "threads_failed", "depth")


class Scarce:
    """The shared memory of scarce.c, by the names of its fields."""

    def __init__(self, scratch):
        compiler = shutil.which("cc") or shutil.which("gcc")
        if not compiler:
            skip("there is no C compiler: install the package gcc (make needs)")
        self.library, file = scratch.path("scarce.so"), scratch.dir / "scarce"
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", self.library, HERE / "scarce.c", "-ldl"], check=True)
        file.write_bytes(bytes(4096))
        with file.open("r+b") as f:
            self.__dict__["memory"] = mmap.mmap(f.fileno(), 4096)
        self.env = {"LD_PRELOAD": self.library, "SCARCE": str(file)}

    def __getattr__(self, name):
        return struct.unpack_from("<Q", self.memory, 8 * FIELDS.index(name))[0]

    def __setattr__(self, name, value):
        if name in FIELDS:
            struct.pack_into("<Q", self.memory, 8 * FIELDS.index(name), value)
        else:
            self.__dict__[name] = value

    def enough(self):
        for name in ("at", "share", "place", "threads"):
            setattr(self, name, 0)

    def where(self, maps):
        """The stack of the last failure; maps: /proc/PID/maps of the broker."""
        found = []
        for address in struct.unpack_from(f"<{self.depth}Q", self.memory, 8 * len(FIELDS)):
            for low, high, offset, path in re.findall(r"^(\w+)-(\w+) r-xp (\w+) \S+ \S+ +(\S+)", maps, re.M):
                if int(low, 16) <= address < int(high, 16):
                    at = hex(address - int(low, 16) + int(offset, 16) - 1)
                    done = subprocess.run(["addr2line", "-f", "-s", "-e", path, at], stdout=subprocess.PIPE, text=True)
                    found.append(" ".join(done.stdout.split()) + f" ({pathlib.Path(path).name}+{at})")
        return found


class Poor(Varve):
    """A broker that has the memory, the threads and the descriptors that the test leaves it."""

    def __init__(self, scratch, scarce, settings, name):
        self.scarce = scarce
        super().__init__(scratch, settings, name)
        self.maps = pathlib.Path(f"/proc/{self.pid}/maps").read_text()

    def spawn(self, command, **more):
        more["env"] = {**more["env"], **self.scarce.env}
        super().spawn(command, **more)


def text(s):
    return struct.pack(">h", len(s)) + s.encode()


class Conversation:
    """One life of a client after the other with everything that the broker does. What it is told is judged: `codes` counts it."""

    def __init__(self, broker, scarce):
        self.broker, self.scarce, self.codes = broker, scarce, collections.Counter()
        self.ledgers, self.starts, self.turn, self.c = [Ledger(), Ledger()], [0, 0], 0, None
        self.asked = set()  # log starts that DeleteRecords asked for
        self.maybe, self.made, self.undone = set(), set(), set()  # offsets that may be committed, topics there, to be deleted yet

    def client(self):
        if not self.c:
            self.c = Client(self.broker.bootstrap, 30)
        return self.c

    def step(self, what, call):
        """call(client) -> error code; None: the connection was closed."""
        try:
            code = call(self.client())
        except Gone as e:
            assert self.broker.running(), f"the broker ended by itself in {what}"
            assert "timed out" not in str(e), f"{what} was never answered"
            if self.c:
                self.c.s.close()
            self.c, code = None, None
        self.codes[code] += code != 0
        return code

    def must_or(self, what, call, others=()):
        code = self.step(what, call)
        assert code in (0, None) or code in TYPED or code in others, f"{what}: error code {code}"
        return code

    def produce(self, c, p, count, size):
        return self.ledgers[p].send(c, "t", p, count, size, doubt=(TIMED_OUT,))  # written, and durable later

    def fetch(self, c, p, at):
        code, _, data = c.fetch("t", p, at, max_bytes=30000, wait_ms=0)
        if code == OUT_OF_RANGE:  # of a DeleteRecords that was not answered as done
            start = c.offset("t", p, -2)
            assert at < start and start in self.asked, f"out of range at {at} of {p}, the log starts at {start}"
            self.started(p, start)
            return 0
        for offset, _, value in decode_batches(data):
            assert offset < self.starts[p] or self.ledgers[p].ok.get(value) == (p, offset) or value in self.ledgers[p].unknown, f"wrong bytes at {offset} of {p}"
        return code

    def topics(self, c):
        assert c.topics() is not None
        return 0

    def group(self, c, name):
        """Join, sync, beat, commit, leave: the first code that is not 0."""
        got = c.ask(11, 1, text(name) + struct.pack(">ii", 10000, 10000) + text("") + text("consumer") + struct.pack(">i", 1) +
                    text("range") + struct.pack(">i", 4) + b"meta")
        code, generation, n = struct.unpack_from(">hih", got, 0)
        if code:
            return code
        at = 8 + max(n, 0)
        at += 2 + struct.unpack_from(">h", got, at)[0]
        n = struct.unpack_from(">h", got, at)[0]
        member = got[at + 2:at + 2 + n].decode()
        who = text(name) + struct.pack(">i", generation) + text(member)
        got = c.ask(14, 0, who + struct.pack(">i", 1) + text(member) + struct.pack(">i", 4) + b"mine")
        code = struct.unpack_from(">h", got)[0]
        if not code:
            assert got[6:] == b"mine", f"SyncGroup: {got}"
            code = struct.unpack_from(">h", c.ask(12, 0, who))[0]
        left = struct.unpack_from(">h", c.ask(13, 0, text(name) + text(member)))[0]
        return code or left

    def delete_topic(self, c, name):
        got = c.ask(20, 1, struct.pack(">i", 1) + text(name) + struct.pack(">i", 30000))
        return struct.unpack_from(">h", got, len(got) - 2)[0]

    def move_start(self, c, p, before):
        got = c.ask(21, 0, struct.pack(">i", 1) + text("t") + struct.pack(">iiqi", 1, p, before, 30000))
        return struct.unpack_from(">qh", got, len(got) - 10)[1]

    def producer(self, c):
        code, pid, epoch = struct.unpack_from(">hqh", c.ask(22, 0, struct.pack(">hi", -1, 60000)), 4)
        if code:
            return code
        values = [b"1/%d/i" % self.ledgers[1].next]
        self.ledgers[1].next += 1
        try:
            code, base = c.produce("t", 1, values, -1, (pid, epoch, 0))
        except Gone:
            self.ledgers[1].unknown.update(values)
            raise
        if code:
            (self.ledgers[1].unknown if code == TIMED_OUT else self.ledgers[1].failed).update(values)
        else:
            self.ledgers[1].ok[values[0]] = (1, base)
        return code

    def run(self):
        self.turn += 1
        n = self.turn
        if self.c and n % 2:  # a connection of its own every second time
            self.c.s.close()
            self.c = None
        self.must_or("Metadata", self.topics)
        for p in (0, 1):
            self.must_or("Produce", lambda c, p=p: self.produce(c, p, 3, 7000))
        end = max((o for _, o in self.ledgers[0].ok.values()), default=0)
        self.must_or("Fetch, hot", lambda c: self.fetch(c, 0, end))
        self.must_or("Fetch, cold", lambda c: self.fetch(c, 0, self.starts[0]), (2,))
        self.must_or("Fetch, the middle", lambda c: self.fetch(c, 0, (self.starts[0] + end) // 2), (2,))
        self.must_or("ListOffsets", lambda c: self.list_offsets(c))
        self.must_or("InitProducerId", self.producer)
        self.groups(n)
        self.change_topics(n)
        if n % 8 == 0:
            for p in (0, 1):
                self.forget(p)

    def list_offsets(self, c):
        got = c.ask(2, 1, struct.pack(">ii", -1, 1) + text("t") + struct.pack(">iiqiq", 2, 0, -1, 1, 1))
        return struct.unpack_from(">h", got, 4 + 2 + 1 + 4 + 4)[0]

    def groups(self, n):
        self.must_or("a group", lambda c: self.group(c, f"g{n % 3}"), (22, 25, 27))
        if self.must_or("OffsetCommit", lambda c: c.commit("plain", "t", 0, n)) == 0:
            self.maybe = {n}
        else:
            self.maybe.add(n)

        def committed(c):
            code, offset = c.committed("plain", "t", 0)
            assert code or not self.maybe or offset in self.maybe, f"committed {offset}, it must be one of {self.maybe}"
            return code
        self.must_or("OffsetFetch", committed)

    def change_topics(self, n):
        name = f"x{n}"
        code = self.must_or("CreateTopics", lambda c: c.try_create(name, 2, {"retention.ms": 1 << 40}))
        (self.made if code == 0 else self.undone).add(name)
        if code == 0:
            self.must_or("IncrementalAlterConfigs", lambda c: c.try_alter(name, {"retention.ms": 1 << 41}))
            code = self.must_or("DeleteTopics", lambda c: self.delete_topic(c, name))
            self.made.discard(name)
            if code:
                self.undone.add(name)

    def forget(self, p):
        """The log start moves: the history stays short."""
        known = sorted(o for _, o in self.ledgers[p].ok.values())
        if len(known) < 60:
            return
        before = known[-40]
        self.asked.add(before)
        if self.must_or("DeleteRecords", lambda c: self.move_start(c, p, before)) == 0:
            self.started(p, before)

    def started(self, p, start):
        self.starts[p] = start
        self.ledgers[p].ok = {v: at for v, at in self.ledgers[p].ok.items() if at[1] >= start}

    def as_before(self):
        """There is enough again: everything goes on, at most after what was put off."""
        self.scarce.enough()
        for p in (0, 1):
            wait_for("producers are accepted again", lambda p=p: self.step("Produce", lambda c: self.produce(c, p, 1, 100)) == 0, 30, 0.02)
        for name in sorted(self.undone):
            wait_for(f"topic {name} can be deleted", lambda name=name: self.step(
                "DeleteTopics", lambda c: self.delete_topic(c, name)) in (0, 3), 30, 0.02)
        self.undone.clear()
        wait_for("commits go on", lambda: self.step("OffsetCommit", lambda c: c.commit("plain", "t", 0, 7777777)) == 0, 30, 0.02)
        self.maybe = {7777777}

    def check(self, bootstrap=None):
        """What is acknowledged is there, in its place, and nothing that was refused."""
        found = 0
        with Client(bootstrap or self.broker.bootstrap) as c:
            for p, ledger in enumerate(self.ledgers):
                start = c.offset("t", p, -2)
                assert start == self.starts[p] or start in self.asked, f"the log of {p} starts at {start}, asked was {self.starts[p]}"
                self.started(p, start)
                found += ledger.check(p, c.read_all("t", p))
            there = {t for t in c.topics() if not t.startswith("_")}
            assert there == {"t"} | self.made, f"topics: {there}"
        return found


class Poverty:
    """A broker and a conversation with it; the end of it."""

    def __init__(self, scratch, name, s3, **settings):
        self.scratch, self.scarce, self.name = scratch, Scarce(scratch), name
        self.settings = {**SETTINGS, **s3.settings(name), "data.dir": scratch.dir / f"{name}-data", **settings}
        self.broker = Poor(scratch, self.scarce, self.settings, name)
        self.talk = Conversation(self.broker, self.scarce)
        with Client(self.broker.bootstrap) as c:
            c.create("t", 2, {})
        self.talk.as_before()
        for _ in range(24):
            self.talk.run()
        assert not +self.talk.codes, f"refused before anything is scarce: {self.talk.codes}"
        self.talk.check()

    def why(self, n):
        """A failure with what led to it."""
        said = [line for line in self.broker.log.read_text(errors="replace").splitlines() if " ERROR " in line or " WARN " in line and "offline" not in line][-8:]
        return "\n    ".join([f"{self.name}: failure {n}: told so far: {dict(self.talk.codes)}", *self.scarce.where(self.broker.maps), *said])

    def end(self):
        self.talk.as_before()
        found = self.talk.check()
        self.broker.kill()
        self.scratch.started.remove(self.broker)
        after = Varve(self.scratch, self.settings, f"{self.name}-after")
        assert self.talk.check(after.bootstrap) == found, "a kill -9 changed what is there"
        assert after.stop() == 0
        self.scratch.started.remove(after)
        return found

    def attempt(self, n, do):
        try:
            do()
        except BaseException:
            print(self.why(n), file=sys.stderr, flush=True)
            raise


def case_places(scratch, a):
    with S3Front() as s3:
        x = Poverty(scratch, "places", s3)
        x.scarce.every, x.scarce.turn = a.every, a.turn % a.every if a.every else 0
        idle = 0
        for n in itertools.count(1):
            before = x.scarce.failed
            x.scarce.place = 1
            x.attempt(n, x.talk.run)
            x.attempt(n, x.talk.as_before)
            idle = 0 if x.scarce.failed > before else idle + 1
            if os.environ.get("SCARCE_SHOW") and not idle:
                print(f"-- {n}:", *x.scarce.where(x.broker.maps), sep="\n    ", flush=True)
            if n % 50 == 0:
                x.attempt(n, x.talk.check)
            if idle >= 5 and n >= 20:
                break
        assert x.scarce.failed >= 20, f"only {x.scarce.failed} allocations failed"
        failed, codes, found = x.scarce.failed, dict(x.talk.codes), x.end()
    print(f"places: {failed} places failed once in {n} conversations; told: {codes}; {found} records right", flush=True)


def case_nth(scratch, a):
    with S3Front() as s3:
        x, step = Poverty(scratch, "nth", s3), max(a.every, 1)
        before = x.scarce.calls
        x.talk.run()
        most = x.scarce.calls - before
        for n in range(1 + a.turn % step, most, step):
            x.scarce.at = x.scarce.calls + n
            x.attempt(n, x.talk.run)
            x.attempt(n, x.talk.as_before)
            if n % (50 * step) < step:
                x.attempt(n, x.talk.check)
        failed, codes, found = x.scarce.failed, dict(x.talk.codes), x.end()
        assert failed, "no allocation failed"
    print(f"nth: {failed} allocations of {most} failed; told: {codes}; {found} records right", flush=True)


def case_share(scratch, a):
    with S3Front() as s3:
        x = Poverty(scratch, "share", s3)
        for share in (5, 20, 100, 500):
            for n in range(4 if a.every else 12):
                x.scarce.share = share
                x.attempt(f"{share} of 1000, {n}", x.talk.run)
                x.attempt(f"{share} of 1000, {n}", x.talk.as_before)
            x.attempt(share, x.talk.check)
        failed, codes, found = x.scarce.failed, dict(x.talk.codes), x.end()
        assert failed > 100, f"only {failed} allocations failed"
    print(f"share: {failed} allocations failed; told: {codes}; {found} records right", flush=True)


def case_threads(scratch, a):
    with S3Front() as s3:
        x = Poverty(scratch, "threads", s3)
        x.scarce.threads = 1 << 40
        for n in range(12):
            x.attempt(n, x.talk.run)
        with Client(x.broker.bootstrap) as c:
            c.topics()
        failed, codes, found = x.scarce.threads_failed, dict(x.talk.codes), x.end()
    print(f"threads: {failed} threads could not be made; told: {codes}; {found} records right", flush=True)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_ticks(pid):
    return sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))


def case_files(scratch, a):
    with S3Front() as s3:
        x = Poverty(scratch, "files", s3)
        pid, (soft, hard) = x.broker.pid, resource.prlimit(x.broker.pid, resource.RLIMIT_NOFILE)
        x.talk.as_before()
        for room in (0, 1, 2, 3, 5, 8):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + room, hard))
            for n in range(6):
                x.attempt(f"{room} descriptors", x.talk.run)
            turned_away(x, room)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            x.attempt(f"{room} descriptors", x.talk.as_before)
            x.attempt(f"{room} descriptors", x.talk.check)
        codes, found = dict(x.talk.codes), x.end()
        assert sum(codes.values()), "nothing was refused: descriptors were not scarce"
    print(f"files: told: {codes}; {found} records right", flush=True)


def turned_away(x, room):
    """Newcomers for which there is no descriptor: they are told, and the broker rests in between."""
    pid = x.broker.pid
    crowd = []
    for _ in range(room + 8):
        try:
            crowd.append(Client(x.broker.bootstrap, 30))
        except Gone:
            pass
    began, ticks = time.monotonic(), cpu_ticks(pid)
    time.sleep(1)  # nothing is waited for: nothing must happen
    share = (cpu_ticks(pid) - ticks) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began)
    for c in crowd:
        c.s.close()
    assert share < 0.5, f"{share:.2f} of a core while nothing can be accepted"


CASES = {"places": case_places, "nth": case_nth, "share": case_share, "threads": case_threads, "files": case_files}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--every", type=int, default=0, help="one place, or allocation, in so many")
    p.add_argument("--turn", type=int, default=0, help="which of them")
    p.add_argument("case", nargs="*", metavar="CASE", help=" ".join(CASES))
    a = p.parse_args()
    unknown = [n for n in a.case if n not in CASES]
    if unknown:
        sys.exit(f"no such case: {unknown}; there are {' '.join(CASES)}")
    began = time.monotonic()
    for name in a.case or CASES:
        with Scratch() as scratch:
            CASES[name](scratch, a)
        print(f"{name}: done after {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
