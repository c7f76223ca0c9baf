"""caches.py — fault 30 and its kin: the cache on disk, crowds of cold readers, little memory, a pause, prewarming. Cases of
faults.py."""
import contextlib
import os
import pathlib
import random
import selectors
import signal
import socket
import struct
import subprocess
import threading
import time

from world import ROOT, TOPIC, World, decode_batches, text, wait_for

SMALL = {"tier.cache.bytes": 1 << 20, "tier.chunk.bytes": 65536}


def files(w):
    """What lies in the disk cache."""
    return [p for p in (w.data() / "cache").glob("*.vvc")]


def disk_bytes(w):
    total = 0
    for p in files(w):
        with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
            total += p.stat().st_blocks * 512
    return total


def settle(w):
    """Nothing waits to be written."""
    last = [-1]

    def still():
        before, last[0] = last[0], w.metric("varve_tier_disk_cache_writes_total")
        return last[0] == before
    wait_for("the disk cache has written what it wants to", still, every_s=0.3)


def case_30_disk():
    """What is read again and does not fit into memory comes from the disk cache: bounded, over a kill -9, with damaged files, and
    without the bucket."""
    with World({**SMALL, "tier.cache.disk.bytes": 16 << 20}) as w:
        w.fill(60).quiet()
        w.check()
        settle(w)
        assert w.metric("varve_tier_disk_cache_writes_total") == 0, "a replay that reads once wrote to the disk"

        def round_and_round():  # what finds the queue of writes full is not kept, but the next time
            w.check()
            settle(w)
            return w.metric("varve_tier_disk_cache_hits_total") > 30 and len(files(w)) > 40
        wait_for("the disk cache has what is read again", round_and_round, every_s=0)
        w.kill()
        for i, p in enumerate(sorted(files(w))[:20]):  # cut, emptied, rotten, and one that is a stranger's
            data = p.read_bytes()
            p.write_bytes((data[:-7], b"", data[:50] + bytes((data[50] ^ 8,)) + data[51:], data[::-1])[i % 4])
        (w.data() / "cache" / "notes.txt").write_text("not the cache's")
        w.start()
        w.check()
        assert w.metric("varve_tier_disk_cache_bad_total") > 5, "rotten files went unnoticed"
        for _ in range(2):
            w.check()
        settle(w)
        w.kill()
        w.settings["tier.fetch.deadline.ms"] = 300
        w.start()
        w.check()  # fetches footers, which join their data
        settle(w)
        w.kill()
        w.s3.rule("GET", r"\.seg$", status=503)
        w.start()
        with w.client() as c:
            served = [c.fetch(TOPIC, 0, base, max_bytes=1000)[0] for base, _, _ in w.segments()]
        assert served.count(0) > len(served) / 2, f"without the bucket: {served}"
        w.s3.clear()
        assert (w.data() / "cache" / "notes.txt").read_text() == "not the cache's"
        w.kill()
        w.settings["tier.cache.disk.bytes"] = 1 << 20  # a third of what is read round and round
        w.start()
        for _ in range(4):
            w.check()
            assert disk_bytes(w) <= 1 << 20 and w.metric("varve_tier_disk_cache_bytes") <= 1 << 20
        w.close()


class Cold:
    """One consumer of the crowd: a few fetches, checked, on a socket that never blocks."""

    def __init__(self, w, crowd, start, fetches):
        self.w, self.crowd, self.at, self.left, self.data = w, crowd, start, fetches, b""
        self.s = socket.create_connection(crowd.address, 30)
        self.s.setblocking(False)
        crowd.selector.register(self.s, selectors.EVENT_READ, self)
        self.ask()

    def ask(self):
        body = struct.pack(">iiiib", -1, 500, 1, 65536, 0) + struct.pack(">i", 1) + text(TOPIC)
        body += struct.pack(">iiqi", 1, 0, self.at, 65536)
        head = struct.pack(">hhih", 1, 4, 1, 4) + b"cold"
        self.s.send(struct.pack(">i", len(head) + len(body)) + head + body)

    def ready(self):
        more = self.s.recv(1 << 20)
        assert more, "closed"
        self.data += more
        if len(self.data) < 4 or len(self.data) < 4 + struct.unpack(">i", self.data[:4])[0]:
            return
        at = 8 + 4 + 4 + 2 + len(TOPIC) + 4 + 4
        code, _, _, aborted = struct.unpack_from(">hqqi", self.data, at)
        at += 22 + 16 * max(aborted, 0)
        batches, self.data = self.data[at + 4:], b""
        assert code == 0, f"error code {code} at {self.at}"
        before = self.at
        for offset, _, value in decode_batches(batches):
            if offset >= self.at:
                assert offset == self.at and self.w.ledger.ok[value] == (0, offset), f"{offset} instead of {self.at}"
                self.at += 1
        self.crowd.barren = 0 if self.at > before else self.crowd.barren + 1
        assert self.crowd.barren < 20000, "nothing comes any more"
        self.left -= self.at > before
        if self.left and self.at < self.crowd.end:
            self.ask()
            return
        self.crowd.selector.unregister(self.s)
        self.s.close()
        self.crowd.open -= 1


class Crowd:
    def __init__(self, w, count, end, seed):
        host, port = w.broker.bootstrap.rsplit(":", 1)
        self.address, self.end, self.open, self.barren = (host, int(port)), end, count, 0
        self.selector, chance = selectors.DefaultSelector(), random.Random(seed)
        for _ in range(count):
            Cold(w, self, chance.randrange(end - 16), 4)

    def run(self):
        while self.open:
            for key, _ in self.selector.select(30):
                key.data.ready()


def memory(w, what):
    for line in pathlib.Path(f"/proc/{w.broker.pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) << 10
    raise KeyError(what)


def case_30_crowd():
    """A thousand cold consumers at once: everybody gets everything right, caches and memory stay bounded, produce and hot reads go
    on, a hot partition does not wait for a cold one in the same Fetch."""
    with World({**SMALL, "tier.cache.disk.bytes": 2 << 20}, topics=(TOPIC, "hot")) as w:
        w.fill(80).quiet()
        w.hot_works()
        stop, failed, rounds, most = threading.Event(), [], [0], [0, 0]

        def look():
            try:
                while not stop.is_set():
                    w.hot_works()
                    rounds[0] += 1
                    most[0] = max(most[0], w.metric("varve_tier_cache_bytes"))
                    most[1] = max(most[1], disk_bytes(w))
            except Exception as e:  # noqa: BLE001
                failed.append(repr(e))

        before = memory(w, "VmRSS")
        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            with w.client() as c:
                end = c.offset(TOPIC, 0, -1)
            for seed in range(2):
                Crowd(w, 1000, end, seed).run()
        finally:
            stop.set()
            watcher.join()
        assert not failed, failed[0]
        assert rounds[0] >= 3, f"{rounds[0]} rounds of hot produce and fetch beside the crowd"
        assert most[0] <= 2 << 20, f"the cache had {most[0]} bytes, 1 MiB is allowed"
        assert most[1] <= 2 << 20, f"the disk cache had {most[1]} bytes, 2 MiB are allowed"
        grown = memory(w, "VmHWM") - before
        assert grown < 256 << 20, f"memory grew by {grown >> 20} MiB"
        both_in_one(w)
        w.kill()
        w.start()
        w.check()
        w.close()


def both_in_one(w):
    """A Fetch of a cold partition whose bucket stalls and a hot one: the hot one's records come."""
    w.kill()
    w.settings["tier.cache.disk.bytes"] = 0
    w.start()
    stalled = w.s3.rule("GET", r"\.seg$", do="stall")
    with w.client(20) as c:
        end = c.offset("hot", 0, -1)
        body = struct.pack(">iiiib", -1, 10000, 1, 1 << 20, 0) + struct.pack(">i", 2)
        for topic, offset in ((TOPIC, 0), ("hot", end - 1)):
            body += text(topic) + struct.pack(">iiqi", 1, 0, offset, 1 << 20)
        got = c.ask(1, 4, body)
    assert stalled.reached.wait(30), "the cold partition was not asked for"
    at = got.index(text("hot")) + 5 + 4 + 4
    code, _, _, aborted = struct.unpack_from(">hqqi", got, at)
    records = list(decode_batches(got[at + 26 + 16 * max(aborted, 0):]))
    assert code == 0 and [r[0] for r in records] == [end - 1], f"the hot partition: code {code}, {records}"
    stalled.release()
    w.s3.clear()


def prewarm(w, *args, code=0, broker=None):
    done = subprocess.run([os.environ.get("VARVE", ROOT / "build/varve"), "replay", broker or w.broker.bootstrap, "--prewarm", *args],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == code, f"prewarm {args}: exit code {done.returncode}: {done.stderr}"
    return done.stdout + done.stderr


def case_prewarm():
    """varve replay BROKER --prewarm: the window, and no more, is on the broker's disk afterwards and is served without the bucket; at
    the rate that was said; nonsense is refused."""
    with World({**SMALL, "tier.cache.disk.bytes": 64 << 20, "tier.readahead.chunks": 1}) as w:
        w.fill(60).quiet()
        with w.client() as c:
            cold = c.offset(TOPIC, 0, -1) - 16
        began = time.monotonic()
        said = prewarm(w, "--topic", TOPIC, "--from", "160", "--to", "480", "--rate", "1M")
        assert "went through the disk cache" in said, said
        assert time.monotonic() - began > 0.5, "about 0.9 MiB at 1 MiB/s"
        settle(w)
        w.kill()
        held = sum(p.stat().st_size for p in files(w))
        assert 900_000 < held < 1_600_000, f"{held} bytes are in the cache, the window has about 960,000"
        w.s3.rule("GET", r"\.seg$", status=503)
        w.start()
        with w.client() as c:
            at = 160
            while at < 480:
                code, _, data = c.fetch(TOPIC, 0, at, max_bytes=65536)
                assert code == 0, f"error code {code} at {at} without the bucket"
                for offset, _, value in decode_batches(data):
                    if offset >= at:
                        assert offset == at and w.ledger.ok[value] == (0, offset)
                        at += 1
        w.s3.clear()
        assert "nothing of this window" in prewarm(w, "--topic", TOPIC, "--from", str(cold + 16))
        assert "no partition 7" in prewarm(w, "--topic", TOPIC, "--partition", "7", code=1)
        prewarm(w, "--topic", "nowhere", code=1)
        assert "HOST:PORT" in prewarm(w, "--topic", TOPIC, broker="fs:/nowhere", code=2)
        assert "--rate" in prewarm(w, "--topic", TOPIC, "--rate", "fast", code=2)
        w.check()
        w.kill()
        w.settings["tier.cache.disk.bytes"] = 0
        w.start()
        assert "tier.cache.disk.bytes" in prewarm(w, "--topic", TOPIC, code=1)
        assert not files(w)
        w.close()


@contextlib.contextmanager
def memory_limit(pid, limit):
    """The process in a memory cgroup of its own, where this machine lets us; says whether it is."""
    group = pathlib.Path(f"/sys/fs/cgroup/memory/varve-test-{pid}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):  # empty once the process is gone
            (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def produce_until(w, topic, stop, failed):
    try:
        with w.client() as c:
            while not stop.is_set():
                assert w.ledger_of(topic).send(c, topic, 0, 8, 3000) == 0
    except Exception as e:  # noqa: BLE001
        failed.append(f"{topic}: {e!r}")


def case_11():
    """256 MiB for everything (a memory cgroup where there is one): a thousand cold consumers and eight producers, nobody is killed;
    then kill -9, as the kernel would, and nothing acknowledged is lost."""
    topics = [f"p{i}" for i in range(8)]
    with World({**SMALL, "tier.cache.bytes": 32 << 20, "tier.cache.disk.bytes": 8 << 20}, topics=(TOPIC, *topics)) as w:
        w.fill(80).quiet()
        stop, failed = threading.Event(), []
        producers = [threading.Thread(target=produce_until, args=(w, t, stop, failed)) for t in topics]
        with memory_limit(w.broker.pid, 256 << 20):
            for t in producers:
                w.ledger_of(t._args[1])
                t.start()
            try:
                with w.client() as c:
                    end = c.offset(TOPIC, 0, -1)
                Crowd(w, 1000, end, 7).run()
            finally:
                stop.set()
                for t in producers:
                    t.join()
            assert not failed, failed[0]
            most = memory(w, "VmHWM")
            assert most < 256 << 20, f"{most >> 20} MiB resident"
            w.kill()
        w.start()
        for topic in (TOPIC, *topics):
            w.check(topic)
            assert topic == TOPIC or w.ledger_of(topic).ok, f"nothing was produced to {topic}"
        w.close()


def case_12():
    """SIGSTOP under load, for longer than every deadline here, then SIGCONT: nothing is acknowledged meanwhile, all goes on afterwards
    under the same claim (who lost it meanwhile: case 33)."""
    with World({"tier.fetch.deadline.ms": 1000}, topics=(TOPIC, "busy")) as w:
        w.fill(10).quiet()
        stop, failed = threading.Event(), []
        producer = threading.Thread(target=produce_until, args=(w, "busy", stop, failed))
        w.ledger_of("busy")
        producer.start()
        wait_for("records", lambda: len(w.ledger_of("busy").ok) > 100)
        os.kill(w.broker.pid, signal.SIGSTOP)
        wait_for("it is stopped", lambda: "T (stopped)" in pathlib.Path(f"/proc/{w.broker.pid}/status").read_text())
        before, answers = len(w.ledger_of("busy").ok), []

        def cold():
            with w.client() as c:
                answers.append(c.fetch(TOPIC, 0, 0)[0])

        reader = threading.Thread(target=cold)
        reader.start()
        stop.wait(4)  # the pause
        assert len(w.ledger_of("busy").ok) <= before + 8 and not answers, "a stopped process answered"  # 8: it was on its way
        os.kill(w.broker.pid, signal.SIGCONT)
        reader.join(60)
        assert answers and answers[0] in (0, 56), f"the cold read: {answers}"
        wait_for("more records", lambda: len(w.ledger_of("busy").ok) > before + 100)
        stop.set()
        producer.join()
        assert not failed, failed[0]
        w.fill(4).quiet()
        w.check()
        w.check("busy")
        assert "took over" not in w.messages()
        w.close()
