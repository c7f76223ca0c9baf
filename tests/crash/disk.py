#!/usr/bin/env python3
"""disk.py [CASE...] — the disk and the clock misbehave under a running broker; no CASE runs all of them.

fsync   a sync fails once with EIO: of the log, of a table, of a directory, of the journal, of metadata. Nothing affected is
        acknowledged, then or ever; the partition goes offline, the others go on; the restarted broker has everything.
read    reads fail with EIO, are interrupted, return less: right bytes or KAFKA_STORAGE_ERROR, never a crash
full    the data directory on a tmpfs of 64 MiB fills up: refused cleanly, reads go on, room comes back without a restart
start   a directory that cannot be used, a port in use: a clear message and exit code 1
clock   wall time jumps ahead and back: nothing is deleted early, the broker lives, retention goes on when a person confirms

fsync and read need strace, full needs root (mount), clock needs the package faketime.
"""
import collections
import errno
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "clients")]
from broker import Scratch, Varve, skip, wait_for  # noqa: E402
from faults import CORRUPT, STORAGE_ERROR, detach, own_mounts, strace  # noqa: E402
from ledger import Client, Ledger, decode_batches  # noqa: E402

SETTINGS = {"num.partitions": 2, "offsets.topic.num.partitions": 1, "log.segment.bytes": 65536, "tier.url": "off",
            "log.local.retention.bytes": 1 << 30, "socket.request.max.bytes": 4 << 20}
LOADING = (3, 5, 14, 15, 16)
FIRST = "00000000000000000000"


def ask(what, call, busy=LOADING):
    """call() until its error code is not one of a coordinator on its way; (code, …) or a code."""
    def look():
        got = call()
        return None if (got[0] if isinstance(got, tuple) else got) in busy else (got,)
    return wait_for(what, look, 30)[0]


def check_all(bootstrap, ledgers, topic="t"):
    with Client(bootstrap) as c:
        return sum(ledger.check(p, c.read_all(topic, p)) for p, ledger in enumerate(ledgers))


def forget(scratch, *things):
    for thing in things:
        scratch.started.remove(thing)


# ---- fsync ----

def sync_fails(scratch, name, call, path):
    """One sync of one file of partition 0 fails; how the broker takes it, and what is there afterwards."""
    broker, ledgers = Varve(scratch, SETTINGS, name), [Ledger(), Ledger()]
    data = broker.log_dir
    out = scratch.dir / f"{name}.trace"
    with Client(broker.bootstrap) as c:
        c.create("t", 2, {})
        ledgers[0].send(c, "t", 0, 1, 100)
        tracer = strace(broker.pid, f"trace={call}", f"inject={call}:error=EIO:when=1+", path=[data / path], out=out)
        codes = collections.defaultdict(list)
        for _ in range(60):
            for p in (0, 1):
                codes[p].append(ledgers[p].send(c, "t", p, 3, 2000, doubt=(STORAGE_ERROR,) if STORAGE_ERROR not in codes[p] else ()))
        wait_for("a sync failed", lambda: "INJECTED" in out.read_text(), 20)
        wait_for("the partition is offline", lambda: codes[0].append(
            ledgers[0].send(c, "t", 0, 1, 100, doubt=(STORAGE_ERROR,))) or codes[0][-1] == STORAGE_ERROR, 20)
        first = codes[0].index(STORAGE_ERROR)
        assert set(codes[0][:first]) <= {0} and set(codes[0][first:]) == {STORAGE_ERROR}, f"acknowledged after the failure: {codes[0]}"
        for _ in range(10):
            assert ledgers[1].send(c, "t", 1, 1, 100) == 0, "the other partition suffers"
        assert set(codes[1]) == {0}, f"the other partition suffers: {codes[1]}"
        ledgers[1].check(1, c.read_all("t", 1))
    assert broker.running()
    detach(tracer)
    tries = [line for line in out.read_text().splitlines() if "INJECTED" in line]
    # Of a directory a flush and a seal may have been under way at the same time; neither of them tries again.
    assert len(tries) <= (1 if call == "fdatasync" else 2), f"a failed sync was tried again: {tries}"
    with Client(broker.bootstrap) as c:  # the disk is well again: nobody may believe it
        assert ledgers[0].send(c, "t", 0, 1, 100) == STORAGE_ERROR
    broker.kill()
    after = Varve(scratch, {**SETTINGS, "data.dir": broker.settings["data.dir"]}, name + "-after")
    found = check_all(after.bootstrap, ledgers)
    with Client(after.bootstrap) as c:
        assert ledgers[0].send(c, "t", 0, 1, 100) == 0
    assert after.stop() == 0
    forget(scratch, broker, after)
    print(f"fsync: {name}: {found} records there, none acknowledged after the failure", flush=True)


def metadata_sync_fails(scratch):
    """The topics file: what is answered as done is there after a restart, what was refused may be asked for again."""
    broker = Varve(scratch, SETTINGS, "topics")
    made = set()
    with Client(broker.bootstrap) as c:
        c.create("t", 1, {})
        out = scratch.dir / "topics.trace"
        tracer = strace(broker.pid, "trace=fdatasync", "inject=fdatasync:error=EIO:when=2..3",
                        path=[broker.log_dir / "varve-topics.json.tmp"], out=out)
        codes = {}
        for i in range(8):
            codes[f"x{i}"] = c.try_create(f"x{i}", 1, {})
        made = {name for name, code in codes.items() if code == 0}
        assert "INJECTED" in out.read_text() and len(made) < 8, f"the failure was not seen: {codes}"
        detach(tracer)
    broker.kill()
    after = Varve(scratch, {**SETTINGS, "data.dir": broker.settings["data.dir"]}, "topics-after")
    with Client(after.bootstrap) as c:
        assert made | {"t"} <= c.topics(), f"made {made}, there are {c.topics()}"
        for name in codes:
            assert c.try_create(name, 1, {}) in (0, 36)
    forget(scratch, broker)
    print(f"fsync: topics: {len(made)} of 8 made, all of them there", flush=True)


def offsets_sync_fails(scratch):
    """The offsets topic's log: no commit is answered as done any more, and the restart has the last one that was."""
    broker = Varve(scratch, SETTINGS, "offsets")
    with Client(broker.bootstrap) as c:
        c.create("t", 1, {})
        assert ask("the group has its coordinator", lambda: c.commit("g", "t", 0, 1)) == 0
        out = scratch.dir / "offsets.trace"
        tracer = strace(broker.pid, "trace=fdatasync", "inject=fdatasync:error=EIO:when=3+",
                        path=[broker.log_dir / f"__consumer_offsets-0/{FIRST}.log"], out=out)
        codes = [c.commit("g", "t", 0, n) for n in range(2, 40)]
        assert "INJECTED" in out.read_text() and 0 not in codes[codes.index(next(x for x in codes if x)):], codes
        detach(tracer)
        assert c.commit("g", "t", 0, 50) != 0
        assert Ledger().send(c, "t", 0, 1, 10) == 0
    last = 1 + max((i + 1 for i, code in enumerate(codes) if code == 0), default=0)
    broker.kill()
    after = Varve(scratch, {**SETTINGS, "data.dir": broker.settings["data.dir"]}, "offsets-after")
    with Client(after.bootstrap) as c:
        code, offset = ask("the group is loaded", lambda: c.committed("g", "t", 0))
        assert code == 0 and last <= offset <= last + 1, f"{last} was answered, {offset} is there"
        assert ask("commits go on", lambda: c.commit("g", "t", 0, 99)) == 0
    forget(scratch, broker)
    print(f"fsync: offsets: committed up to {last}, there is {offset}", flush=True)


def case_fsync(scratch):
    sync_fails(scratch, "active", "fdatasync", f"t-0/{FIRST}.log")
    sync_fails(scratch, "table", "fdatasync", f"t-0/{FIRST}.index.tmp")
    sync_fails(scratch, "directory", "fsync", "t-0")
    sync_fails(scratch, "journal", "fdatasync", "t-0/varve.index")
    metadata_sync_fails(scratch)
    offsets_sync_fails(scratch)


# ---- read ----

def read_under(scratch, broker, ledgers, what, *expressions):
    """Reads everything while reads misbehave: each fetch gives right bytes or a refusal. Then all of it, undisturbed."""
    out = scratch.dir / "read.trace"
    tracer = strace(broker.pid, *expressions, path=[p for p in broker.log_dir.glob("t-*/*.log")], out=out)
    refused = right = 0
    with Client(broker.bootstrap) as c:
        for p, ledger in enumerate(ledgers):
            want = {offset: value for value, (where, offset) in ledger.ok.items()}
            for start in range(0, len(want), max(1, len(want) // 12)):
                code, _, data = c.fetch("t", p, start, max_bytes=30000, wait_ms=0)
                assert code in (0, CORRUPT, STORAGE_ERROR), f"{what}: fetch at {start}: error code {code}"
                refused += code != 0
                for offset, _, value in decode_batches(data):
                    assert want[offset] == value, f"{what}: wrong bytes at {offset}"
                    right += 1
        assert broker.running(), f"{what}: the broker is gone"
    assert "INJECTED" in out.read_text(), f"{what}: nothing was injected"
    detach(tracer)
    check_all(broker.bootstrap, ledgers)
    print(f"read: {what}: {right} records right, {refused} fetches refused", flush=True)
    return refused, right


def case_read(scratch):
    broker, ledgers = Varve(scratch, SETTINGS, "read"), [Ledger(), Ledger()]
    with Client(broker.bootstrap) as c:
        c.create("t", 2, {})
        for _ in range(60):
            for p in (0, 1):
                assert ledgers[p].send(c, "t", p, 3, 2000) == 0
    reads = "trace=pread64,preadv2"
    refused, right = read_under(scratch, broker, ledgers, "EIO always", reads, "inject=pread64,preadv2:error=EIO")
    assert refused and not right
    refused, right = read_under(scratch, broker, ledgers, "EIO now and then", reads, "inject=pread64,preadv2:error=EIO:when=3+3")
    assert refused and right
    refused, right = read_under(scratch, broker, ledgers, "EINTR", reads, "inject=pread64,preadv2:error=EINTR:when=1+2")
    assert right and not refused, "an interrupted call is no failure"
    refused, right = read_under(scratch, broker, ledgers, "not in memory", reads, "inject=preadv2:error=EAGAIN")
    assert right and not refused, "what is not in the page cache is read on another thread"
    read_under(scratch, broker, ledgers, "end of file", reads, "inject=pread64,preadv2:retval=0:when=2+2")
    broker.kill()
    forget(scratch, broker)
    short_transfers(scratch)


def short_transfers(scratch):
    """A whole life with short and interrupted reads and writes everywhere: produce, seal, upload, cold read, recovery."""
    library = scratch.path("short.so")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        skip("there is no C compiler: install the package gcc (make needs)")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "short.c", "-ldl"], check=True)
    settings = {**SETTINGS, "tier.url": f"fs:{scratch.dir}/short-tier", "log.local.retention.bytes": 131072,
                "data.dir": scratch.dir / "short-data"}
    ledgers = [Ledger(), Ledger()]
    for life in range(3):
        broker = Wrapped(scratch, settings, f"short-{life}", {"LD_PRELOAD": library})
        with Client(broker.bootstrap) as c:
            c.create("t", 2, {})
            for p in (0, 1):
                for _ in range(60):
                    assert ledgers[p].send(c, "t", p, 3, 2000) == 0
        found = check_all(broker.bootstrap, ledgers)
        if life == 0:
            broker.kill()
        else:
            assert broker.stop() == 0
        forget(scratch, broker)
    print(f"read: short transfers: {found} records right, hot and cold", flush=True)


class Wrapped(Varve):
    """A broker with more in its environment."""

    def __init__(self, scratch, settings, name, env):
        self.more = env
        super().__init__(scratch, settings, name)

    def spawn(self, command, **more):
        more["env"] = {**more["env"], **self.more}
        super().spawn(command, **more)


# ---- full ----

class Tmpfs:
    def __init__(self, scratch, name, size="64m"):
        self.path = scratch.dir / name
        self.path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.path], check=True)
        self.filler = self.path / "somebody-elses"

    def free(self):
        return shutil.disk_usage(self.path).free

    def fill(self, leave):
        with self.filler.open("wb") as f:
            while (n := self.free() - leave) > 0:
                try:
                    os.posix_fallocate(f.fileno(), 0, n)
                    return
                except OSError as e:  # the broker took some of it meanwhile
                    if e.errno != errno.ENOSPC:
                        raise

    def room(self):
        self.filler.unlink()

    def umount(self):
        subprocess.run(["umount", "-l", self.path], check=False)


def produce_until(c, ledger, stop, size=60000, most=1500):
    """Sends to partition 0 until stop(code) is true; the codes."""
    codes = []
    while len(codes) < most:
        codes.append(ledger.send(c, "t", 0, 1, size))
        if stop(codes[-1]):
            return codes
    raise AssertionError(f"{most} batches and the state did not come: {collections.Counter(codes)}")


def full_with_reserve(scratch):
    """The bucket cannot take anything, the disk runs full up to the reserve; then the bucket can: room comes by itself."""
    disk, bucket = Tmpfs(scratch, "m-disk"), Tmpfs(scratch, "m-bucket")
    reserve = (64 << 20) // 8
    try:
        disk.fill(leave=24 << 20)
        settings = {**SETTINGS, "data.dir": disk.path / "data", "tier.url": f"fs:{bucket.path}/tier", "log.segment.bytes": 1 << 20}
        broker, ledger = Varve(scratch, settings, "full"), Ledger()
        with Client(broker.bootstrap) as c:
            c.create("t", 2, {})
            assert ask("the group has its coordinator", lambda: c.commit("g", "t", 0, 1)) == 0
            bucket.fill(leave=0)
            codes = produce_until(c, ledger, lambda code: code != 0)
            assert codes[-1] == STORAGE_ERROR, codes[-1]
            throttled = sum(v for k, v in broker.metrics().items() if "throttle" in k[0])
            assert throttled > 0, "producers were not slowed down before they were refused"
            assert disk.free() > reserve - (3 << 20), f"the reserve is used up: {disk.free()} bytes free"
            ledger.check(0, c.read_all("t", 0))
            assert c.commit("g", "t", 0, 2) == 0, "commits do not go on"
            bucket.room()
            wait_for("producers are accepted again", lambda: ledger.send(c, "t", 0, 1, 60000) == 0, 90, 0.2)
            for _ in range(200):  # more than what was free: what is in the bucket leaves the disk
                while ledger.send(c, "t", 0, 1, 60000):
                    time.sleep(0.1)
            total = len(ledger.ok) * 60000
            assert total > 24 << 20, "not more than what was free: the test tests nothing"
            ledger.check(0, c.read_all("t", 0))
        assert broker.stop() == 0
        forget(scratch, broker)
        print(f"full: reserve: {total >> 20} MiB through 24 MiB of room, {len(ledger.failed)} batches refused", flush=True)
    finally:
        stop_all(scratch)
        disk.umount()
        bucket.umount()


def full_to_the_last_byte(scratch):
    """Without a reserve: ENOSPC at any write. Everything is refused cleanly, and goes on when there is room."""
    disk = Tmpfs(scratch, "m-brim")
    try:
        settings = {**SETTINGS, "data.dir": disk.path / "data", "tier.disk.reserve": 0, "tier.url": "off"}
        broker, ledger = Varve(scratch, settings, "brim"), Ledger()
        with Client(broker.bootstrap) as c:
            c.create("t", 2, {})
            assert ask("the group has its coordinator", lambda: c.commit("g", "t", 0, 1)) == 0
            disk.fill(leave=3 << 20)
            codes = produce_until(c, ledger, lambda code: code != 0, size=9000)
            assert codes[-1] == STORAGE_ERROR, codes[-1]
            for size in (5000, 3000, 1500, 700, 300, 100, 10) * 4:  # the last page
                ledger.send(c, "t", 0, 1, size)
            for _ in range(100):
                ledger.send(c, "t", 0, 1, 5000)
            made = [c.try_create(f"no-{i}", 1, {}) for i in range(3)]
            changed = c.try_alter("t", {"retention.ms": "123456789"})
            commits = [c.commit("g", "t", 0, n) for n in range(2, 400)]
            assert broker.running() and any(made), f"a full disk and {made}"
            ledger.check(0, c.read_all("t", 0))
            warnings = broker.log.read_text(errors="replace").count("closing segment")
            assert warnings < 20, f"{warnings} warnings of one seal"
            disk.room()
            wait_for("producers are accepted again", lambda: ledger.send(c, "t", 0, 1, 5000) == 0, 30, 0.1)
            assert ask("commits go on", lambda: c.commit("g", "t", 0, 777)) == 0, "commits do not go on"
            for _ in range(40):
                assert ledger.send(c, "t", 0, 1, 5000) == 0
            c.create("yes", 1, {})
            c.alter("t", {"retention.ms": "987654321"})
            segments = {p.stem for p in (broker.log_dir / "t-0").glob("*.log")}
            wait_for("what rolled is closed", lambda: len(segments - {
                p.stem for p in (broker.log_dir / "t-0").glob("*.blocks")}) <= 1, 60)
        assert broker.stop() == 0
        after = Varve(scratch, settings, "brim-after")
        with Client(after.bootstrap) as c:
            ledger.check(0, c.read_all("t", 0))
            assert ask("the group is loaded", lambda: c.committed("g", "t", 0)) == (0, 777)
            assert "yes" in c.topics() and c.config("t", "retention.ms") == "987654321"
        print(f"full: to the last byte: {len(ledger.failed)} batches refused, {sum(x != 0 for x in commits)} commits, "
              f"topics {made}, config {changed}; all went on", flush=True)
        after.kill()
        full_at_start(scratch, disk, settings, ledger)
        forget(scratch, broker, after)
    finally:
        stop_all(scratch)
        disk.umount()


def full_at_start(scratch, disk, settings, ledger):
    """A broker that starts on a full disk serves reads or says what is wrong; never does it damage anything."""
    disk.fill(leave=0)
    broker = Varve(scratch, settings, "brim-start", start=False)
    try:
        broker.start()
    except RuntimeError:
        text = broker.log.read_text(errors="replace")
        assert broker.process.returncode == 1 and "space" in text, f"exit code {broker.process.returncode}: {text[-500:]}"
        how = "refused with a message"
    else:
        with Client(broker.bootstrap) as c:
            ledger.check(0, c.read_all("t", 0))
        broker.kill()
        how = "served reads"
    broker.process = None
    disk.room()
    after = Varve(scratch, settings, "brim-again")
    with Client(after.bootstrap) as c:
        assert ledger.send(c, "t", 0, 1, 100) == 0
        ledger.check(0, c.read_all("t", 0))
    after.kill()
    forget(scratch, broker, after)
    print(f"full: a start on a full disk: {how}", flush=True)


def stop_all(scratch):
    """Before a file system is unmounted; a failure is on its way then, or nothing runs."""
    for thing in scratch.started:
        if thing.running():
            thing.kill()


def case_full(scratch):
    full_with_reserve(scratch)
    full_to_the_last_byte(scratch)


# ---- start ----

def refused(scratch, name, settings, *words):
    broker = Varve(scratch, settings, name, start=False)
    began = time.monotonic()
    try:
        broker.start()
    except RuntimeError:
        pass
    else:
        raise AssertionError(f"{name}: it started")
    code, text = broker.process.returncode, broker.log.read_text(errors="replace")
    broker.process = None
    forget(scratch, broker)
    assert code == 1, f"{name}: exit code {code}: {text}"
    missing = [w for w in words if w not in text]
    assert not missing, f"{name}: the message lacks {missing}: {text}"
    assert time.monotonic() - began < 20
    print(f"start: {name}: {text.strip().splitlines()[-1][:150]}", flush=True)


def case_start(scratch):
    running = Varve(scratch, SETTINGS, "running")
    data = pathlib.Path(running.settings["data.dir"])
    port = running.bootstrap.rsplit(":", 1)[1]
    refused(scratch, "second-broker", {**SETTINGS, "data.dir": data}, "running", str(data), "--data-dir")
    refused(scratch, "port-in-use", {**SETTINGS, "listeners": f"PLAINTEXT://127.0.0.1:{port}"}, port, "taken")
    refused(scratch, "metrics-port-in-use", {**SETTINGS, "metrics.listener": f"127.0.0.1:{port}"}, port, "in use")
    assert Client(running.bootstrap).topics() is not None, "the running broker suffered"
    assert running.stop() == 0
    refused(scratch, "another-node", {**SETTINGS, "data.dir": data, "node.id": 7}, "node 1", "node.id")
    theirs = scratch.dir / "kafka/log"
    theirs.mkdir(parents=True)
    (theirs / "meta.properties").write_text("version=1\ncluster.id=dmFydmUtdGVzdHMtY2x1cw\nnode.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\n")
    refused(scratch, "of-apache-kafka", {**SETTINGS, "data.dir": theirs.parent}, "Apache Kafka", str(theirs))
    (theirs / "meta.properties").unlink()
    (theirs / "precious.txt").write_text("keep me")
    refused(scratch, "of-somebody-else", {**SETTINGS, "data.dir": theirs.parent}, "not empty", "precious.txt")
    assert (theirs / "precious.txt").read_text() == "keep me"
    file = scratch.dir / "some-file"
    file.write_text("x")
    refused(scratch, "a-file", {**SETTINGS, "data.dir": file}, str(file), "not a directory")
    sealed = Tmpfs(scratch, "m-sealed", "1m")
    try:
        subprocess.run(["mount", "-o", "remount,ro", sealed.path], check=True)
        refused(scratch, "not-writable", {**SETTINGS, "data.dir": sealed.path / "data"}, str(sealed.path), "may not write")
    finally:
        sealed.umount()


# ---- clock ----

class Clock:
    """faketime's timestamp file: wall time as it says, monotonic time as it is."""

    def __init__(self, scratch):
        found = [p for p in pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
        if not found:
            skip("there is no faketime: install the package faketime (make needs)")
        self.file = scratch.dir / "now"
        self.env = {"LD_PRELOAD": str(found[0]), "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1",
                    "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.set("+0")

    def set(self, offset):
        new = self.file.with_suffix(".new")
        new.write_text(offset + "\n")
        new.rename(self.file)


def case_clock(scratch):
    clock = Clock(scratch)
    settings = {**SETTINGS, "data.dir": scratch.dir / "clock-data", "tier.url": f"fs:{scratch.dir}/clock-tier",
                "log.local.retention.ms": 3600000, "log.local.retention.bytes": -1, "log.retention.check.interval.ms": 1000}
    broker, ledger = Wrapped(scratch, settings, "clock", clock.env), Ledger()

    def says(text):
        return lambda: broker.log.read_text(errors="replace").count(text)

    def write(c, n=30):
        for _ in range(n):
            assert ledger.send(c, "t", 0, 3, 3000) == 0

    def whole(c, when):
        assert c.offset("t", 0, -2) == 0, f"{when}: the log starts at {c.offset('t', 0, -2)}"
        ledger.check(0, c.read_all("t", 0))

    with Client(broker.bootstrap) as c:
        c.create("t", 2, {"retention.ms": 86400000, "message.timestamp.type": "LogAppendTime"})
        write(c)
        for i, jump in enumerate(("+3650d", "-3650d", "+2d", "-2h", "+3650d")):
            clock.set(jump)
            write(c)  # at once: rolls and maintenance before anybody looked at the clock
            wait_for(f"the jump {jump} is noticed", lambda: says("the clock jumped by more than")() == i + 1, 20)
            write(c)
            time.sleep(1.5)  # more than one look of retention; nothing to wait for: nothing must happen
            whole(c, jump)
            assert ask("commits go on", lambda: c.commit("g", "t", 0, i + 1)) == 0
            clock.set("+0")
            wait_for("the clock is believed again", lambda: says("believed again")() == i + 1, 20)
            write(c)
        whole(c, "back")
    assert broker.stop() == 0
    forget(scratch, broker)
    clock.set("+3650d")  # while it was off
    broker = Wrapped(scratch, settings, "clock-later", clock.env)
    with Client(broker.bootstrap) as c:
        assert says("the clock jumped by more than")() == 1
        write(c)
        time.sleep(2.5)
        whole(c, "a start ten years later")
        assert ask("the group is loaded", lambda: c.committed("g", "t", 0)) == (0, 5), "the group's offsets went with the clock"
        (broker.log_dir / "varve-clock-confirm").touch()
        wait_for("retention goes on when a person confirms the clock", lambda: c.offset("t", 0, -2) > 0, 20)
    assert broker.stop() == 0
    forget(scratch, broker)
    print(f"clock: {len(ledger.ok)} records through five jumps and a start ten years later, none deleted before the time", flush=True)


CASES = {"fsync": case_fsync, "read": case_read, "full": case_full, "start": case_start, "clock": case_clock}


def main():
    names = sys.argv[1:] or list(CASES)
    unknown = [n for n in names if n not in CASES]
    if unknown:
        sys.exit(__doc__)
    own_mounts()
    began = time.monotonic()
    for name in names:
        with Scratch() as scratch:
            CASES[name](scratch)
        print(f"{name}: done after {time.monotonic() - began:.0f} s", flush=True)
    print(f"{len(names)} cases: {', '.join(names)}; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
