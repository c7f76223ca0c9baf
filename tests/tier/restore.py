#!/usr/bin/env python3
"""restore.py — a new cluster from somebody else's bucket: varve broker --restore URL [--as-of TIME].

A source broker gets records, offsets of a group, deletions; its bucket is kept byte by byte. Then new brokers with buckets of their own begin
from it: everything is there at once, read through; it is brought over in the background, also across kill -9 and a lost disk; then the
source's bucket is taken away and everything is still there. As of times between two uploads, bad input, a start that was interrupted.
usage: tests/tier/restore.py [--store fs|minio] [--sealed] [case…]      sealed: compressed and encrypted objects
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "crash"), str(HERE.parent / "clients")]
from broker import ROOT, Minio, Missing, Scratch, Varve, skip, wait_for  # noqa: E402
from replay import write_keys  # noqa: E402
from world import Asker  # noqa: E402

VARVE = pathlib.Path(os.environ.get("VARVE", ROOT / "build/varve"))
SETTINGS = {"log.segment.bytes": 65536, "log.local.retention.bytes": 0, "offsets.topic.num.partitions": 1,
            "tier.upload.interval.ms": 3600000}
SLOW = {"tier.hydrate.max.bytes.per.second": 40000}


class Stores:
    """Buckets by name, in a directory or in one MinIO; a stranger's look at them."""

    def __init__(self, scratch, kind, sealed=False):
        self.scratch, self.minio, self.more = scratch, Minio(scratch) if kind == "minio" else None, {}
        if sealed:
            write_keys(scratch.dir / "keys", "first", "second")
            self.more = {"tier.compression": "zstd", "tier.encryption": "aes-256-gcm", "tier.encryption.keys.file": scratch.path("keys")}

    def settings(self, name):
        if self.minio:
            return {**self.minio.settings(name), **self.more}
        return {"tier.url": "fs:" + self.scratch.path("bucket-" + name), **self.more}

    def url(self, name):
        return self.settings(name)["tier.url"]

    def content(self, name):
        """{key: hash of the bytes}"""
        if self.minio:
            root = pathlib.Path(self.minio.dir) / "data" / self.minio.env["MINIO_BUCKET"] / name
            return {str(p.parent.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("xl.meta")} | \
                   {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("part.*")}
        root = pathlib.Path(self.url(name)[3:])
        return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file() and ".tmp" not in p.parts}

    def read(self, name, key):
        done = subprocess.run([VARVE, "inspect", self.url(name), key, *self.sets(name)], env=self.env(), stdout=subprocess.PIPE)
        return json.loads(done.stdout)

    def sets(self, name):
        return [a for k, v in self.settings(name).items() if k != "tier.url" and not k.startswith("AWS_") for a in ("--set", f"{k}={v}")]

    def env(self):
        return {**os.environ, **{k: v for k, v in self.settings("x").items() if k.startswith("AWS_")}}

    def cli(self, command, name, *args):
        return subprocess.run([VARVE, command, self.url(name), *args, *self.sets(name)], env=self.env(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)

    def take_away(self, name):
        if self.minio:
            root = pathlib.Path(self.minio.dir) / "data" / self.minio.env["MINIO_BUCKET"]
        else:
            root = pathlib.Path(self.scratch.dir)
            name = "bucket-" + name
        (root / name).rename(root / ("away-" + name))


def value(topic, partition, i):
    name = b"%s/%d/%06d/" % (topic.encode(), partition, i)
    return name + hashlib.shake_128(name).digest(900)  # nothing that compression makes small


class Source:
    """The cluster whose bucket it is, and what it acknowledged: sent[topic, partition] is the list of values by offset."""

    def __init__(self, scratch, stores, name="source", settings=None):
        self.scratch, self.stores, self.name, self.sent = scratch, stores, name, {}
        self.broker = Varve(scratch, {**SETTINGS, **stores.settings(name), **(settings or {})}, name)

    def client(self):
        return Asker(self.broker.bootstrap)

    def create(self, topic, partitions=1, **configs):
        with self.client() as c:
            c.create(topic, partitions, {k.replace("_", "."): v for k, v in configs.items()})
        for p in range(partitions):
            self.sent[topic, p] = []

    def fill(self, topic, partition=0, records=320):
        have = self.sent[topic, partition]
        with self.client() as c:
            for _ in range(records // 16):
                values = [value(topic, partition, len(have) + i) for i in range(16)]
                code, base = c.produce(topic, partition, values)
                assert code == 0 and base == len(have), (code, base)
                have += values

    def commit(self, group, topic, partition, offset):
        with self.client() as c:
            wait_for("a coordinator", lambda: c.commit(group, topic, partition, offset) == 0)

    def lag(self):
        return sum(v for k, v in self.broker.metrics().items() if k[0] == "varve_partition_tier_lag_bytes")

    def quiet(self):
        wait_for("everything closed is in the bucket", lambda: self.lag() == 0)

    def remote_end(self, topic, partition=0):
        with self.client() as c:
            return c.offset(topic, partition, -1) and self.remote_offset(c, topic, partition)

    @staticmethod
    def remote_offset(c, topic, partition):
        """ListOffsets -5 (v9): the last tiered offset."""
        name = topic.encode()
        body = struct.pack(">ib", -1, 0) + b"\x02" + bytes([len(name) + 1]) + name + b"\x02" + struct.pack(">iiq", partition, -1, -5) + b"\0\0\0"
        head = struct.pack(">hhih", 2, 9, 1, 6) + b"ledger" + b"\0"
        c.s.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        data = b""
        while len(data) < 4 or len(data) < 4 + struct.unpack(">i", data[:4])[0]:
            data += c.s.recv(1 << 20)
        got = data[4 + 4 + 1:]  # correlation id, tags
        at = 4 + 1 + 1 + len(name) + 1 + 4
        code, _, offset = struct.unpack_from(">hqq", got, at)
        assert code == 0, code
        return offset + 1

    def now_ms(self):
        """A time that lies between what was sealed before and what will be: the clock is waited for on both sides."""
        at = int(time.time() * 1000) + 1
        wait_for("the next millisecond", lambda: time.time() * 1000 > at + 2, every_s=0.001)
        return at


class Restored:
    """A broker that was seeded."""

    def __init__(self, scratch, stores, name, url, as_of=None, settings=None, start=True):
        more = {"tier.restore.url": url, **({"tier.restore.as.of.ms": as_of} if as_of else {})}
        self.scratch, self.stores, self.name = scratch, stores, name
        self.plain = {**SETTINGS, **stores.settings(name), **(settings or {})}
        self.broker = Varve(scratch, {**self.plain, **more}, name, start=start)

    def again(self, **more):
        """Another start, as every one after the first: without --restore."""
        keep = {k: v for k, v in self.broker.settings.items() if not k.startswith("tier.restore.")}
        self.broker.settings = {**keep, **{k.replace("_", "."): v for k, v in more.items()}}
        self.broker.start()

    def client(self):
        return Asker(self.broker.bootstrap)

    def metric(self, name):
        return self.broker.metrics().get((name,), 0)

    def messages(self):
        return self.broker.log.read_text(errors="replace")

    def hydrated(self):
        def complete():  # killed right behind its end it does not say so, and has nothing to do after the next start
            said = self.messages()
            return "hydration: complete" in said or "are to be brought over" not in said.rsplit("tier: writing to", 1)[-1]
        wait_for("everything was brought over", complete)

    def check(self, sent, upto=None, start=None):
        """What is there is what was sent, up to the offset that the bucket had."""
        with self.client() as c:
            for (topic, p), values in sent.items():
                end = (upto or {}).get((topic, p), len(values))
                first = (start or {}).get((topic, p), 0)
                records = c.read_all(topic, p)
                assert [(o, v) for o, _, v in records] == list(enumerate(values))[first:end], \
                    f"{self.name}: {topic}-{p}: {len(records)} records from {records[:1]} instead of {first}..{end}"


def refused(scratch, stores, name, *words, settings=None, binary_args=None):
    """A broker that must not get ready: exit code 1, these words, nothing written."""
    options = {**SETTINGS, **stores.settings(name), "data.dir": scratch.path(name + "-data"), "listeners": "PLAINTEXT://127.0.0.1:0",
               "metrics.listener": "off", **(settings or {})}
    command = [VARVE, "broker", *(binary_args or [])]
    for k, v in options.items():
        if not k.startswith("AWS_"):
            command += ["--set", f"{k}={v}"]
    before = stores.content(name)
    done = subprocess.run(command, env={**stores.env()}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1, f"{name}: exit code {done.returncode}: {done.stderr}"
    for w in words:
        assert w in done.stderr, f"{name}: {w!r} is not in: {done.stderr}"
    assert stores.content(name) == before, f"{name}: something was written to the bucket"
    return done.stderr


def make_source(scratch, stores, name="source"):
    s = Source(scratch, stores, name)
    s.create("cars", 2)
    s.create("quiet")
    s.fill("cars", 0)
    s.fill("cars", 1)
    s.fill("quiet", 0, 16)
    s.commit("readers", "cars", 0, 100)
    s.quiet()
    return s


def case_restore(scratch, stores):
    """Everything at once, by reading through; kill -9 while it is brought over; then without the source."""
    s = make_source(scratch, stores)
    s.broker.stop()  # the last copy of the list of topics is written, with the group's offsets
    before = stores.content("source")
    upto = {k: 0 if k[0] == "quiet" else len(v) for k, v in s.sent.items()}
    r = Restored(scratch, stores, "new", stores.url("source"), settings=SLOW)
    with r.client() as c:
        for k in upto:
            upto[k] = c.offset(*k, -1)
        assert c.committed("readers", "cars", 0) == (0, 100)
    assert upto["cars", 0] >= len(s.sent["cars", 0]) - 64 and upto["quiet", 0] == 0, upto
    r.check(s.sent, upto)
    assert r.metric("varve_tier_hydrate_objects_left") > 0, "it was too quick to be seen"
    for _ in range(3):
        left = r.metric("varve_tier_hydrate_objects_left")
        if not left:
            break
        wait_for("an object more", lambda: r.metric("varve_tier_hydrate_objects_left") < left)
        r.broker.kill()
        r.again()
        r.check(s.sent, upto)
    with r.client() as c:  # the new cluster goes its own way, while it is filled
        more = [value("cars", 0, 10**6 + i) for i in range(160)]
        for i in range(0, 160, 16):
            code, base = c.produce("cars", 0, more[i:i + 16])
            assert (code, base) == (0, upto["cars", 0] + i)
        epochs = {e for _, e, _ in c.read_all("cars", 0)}
    assert len(epochs) >= 2, "a restore begins a leader epoch of its own"
    r.broker.stop()
    r.again(tier_hydrate_max_bytes_per_second=1 << 30)
    r.hydrated()
    assert stores.content("source") == before, "the source's bucket was written to"
    stores.take_away("source")
    expect = {**{k: v[:upto[k]] for k, v in s.sent.items()}}
    expect["cars", 0] = expect["cars", 0] + more
    r.check(expect)
    r.broker.kill()
    r.again()
    r.check(expect)
    r.broker.stop()
    done = stores.cli("verify", "new")
    assert done.returncode == 0, done.stderr + done.stdout
    if not stores.minio and not stores.more:  # and a stranger reads it from nothing but the page
        done = subprocess.run([sys.executable, ROOT / "tests/bucket_reader.py", stores.url("new")[3:], "cars"], stdout=subprocess.PIPE, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert sum(r["partition"] == 1 for r in lines) == upto["cars", 1] and done.returncode == 0, "bucket_reader.py reads another log"
    shutil.rmtree(r.broker.settings["data.dir"])  # and from its own bucket alone
    r.again()
    with r.client() as c:
        end = {k: c.offset(*k, -1) for k in expect}
    assert end["cars", 0] > upto["cars", 0], "what the new cluster uploaded itself is there too"
    r.check(expect, end)
    r.broker.stop()


def case_lost_disk(scratch, stores):
    """The new cluster loses its disk while it is being filled: it comes back from both buckets. And a start that is killed begins again."""
    s = make_source(scratch, stores)
    upto = {}
    for i in range(6):
        r = Restored(scratch, stores, "new", stores.url("source"), settings={**SLOW, "data.dir": scratch.path(f"data-{i}")}, start=False) if not i else r
        r.broker.settings["data.dir"] = scratch.path("data-0")
        env = {**os.environ, **{k: v for k, v in r.broker.settings.items() if k.startswith("AWS_")}}
        command = [VARVE, "broker"] + [a for k, v in r.broker.settings.items() if not k.startswith("AWS_") for a in ("--set", f"{k}={v}")]
        with open(scratch.path("killed"), "ab") as log:
            p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=env)
            time.sleep(0.004 * 3 ** i)
            p.kill()
            p.wait()
        if (pathlib.Path(scratch.path("data-0")) / "log/meta.properties").exists():
            break
    if (pathlib.Path(scratch.path("data-0")) / "log/meta.properties").exists():
        r.again()
    else:
        r.broker.start()
    with r.client() as c:
        for k in s.sent:
            upto[k] = c.offset(*k, -1)
    assert upto["cars", 1] > 200, upto
    r.check(s.sent, upto)
    r.broker.kill()
    shutil.rmtree(scratch.path("data-0"))
    wait_more = r.again
    wait_more(tier_take_over="true")  # its own claim, but the proof of that was on the disk
    r.check(s.sent, upto)
    assert r.metric("varve_tier_hydrate_objects_left") > 0
    r.broker.kill()
    shutil.rmtree(scratch.path("data-0"))
    r.again(tier_restore_url=stores.url("source"))  # the very first command once more: the seeding was done, the own bucket has it
    r.check(s.sent, upto)
    r.broker.stop()
    r.again(tier_hydrate_max_bytes_per_second=1 << 30)
    r.hydrated()
    s.broker.stop()
    stores.take_away("source")
    r.check(s.sent, upto)
    r.broker.stop()


def case_as_of(scratch, stores):
    """Times between two uploads: logs end with what was sealed then, start where they did, topics are those of then, and offsets."""
    s = Source(scratch, stores)
    begin = s.now_ms()
    s.create("cars", 2)
    s.create("doomed")
    s.fill("cars", 0)
    s.fill("cars", 1, 160)
    s.fill("doomed", 0, 160)
    s.commit("readers", "cars", 0, 50)
    s.quiet()
    s.create("marker")  # a change of topics: a copy of the list is kept, with the offsets of now
    first = {k: s.remote_end(*k) for k in (("cars", 0), ("cars", 1), ("doomed", 0))}
    stores_has(stores, "source", "marker")
    t1 = s.now_ms()
    s.fill("cars", 0)
    s.commit("readers", "cars", 0, 300)
    s.quiet()
    with s.client() as c:
        c.delete_records("cars", 1, 64)
        c.delete_topic("doomed")
    s.create("later")
    s.fill("later", 0, 160)
    s.quiet()
    s.broker.stop()
    before = stores.content("source")
    old = Restored(scratch, stores, "old", stores.url("source"), as_of=t1)
    with old.client() as c:
        assert c.topics() - {"__consumer_offsets"} == {"cars", "doomed", "marker"}, c.topics()
        assert c.committed("readers", "cars", 0) == (0, 50)
    sent = {k: v for k, v in s.sent.items() if k[0] in ("cars", "doomed")}
    old.check(sent, first)
    old.hydrated()
    old.check(sent, first)
    new = Restored(scratch, stores, "now", stores.url("source"))
    with new.client() as c:
        assert c.topics() - {"__consumer_offsets"} == {"cars", "later", "marker"}, c.topics()
        assert c.committed("readers", "cars", 0) == (0, 300)
        assert c.offset("cars", 1, -2) == 64
        ends = {k: c.offset(*k, -1) for k in (("cars", 0), ("cars", 1), ("later", 0))}
    assert ends["cars", 0] > first["cars", 0]
    new.check({k: s.sent[k] for k in ends}, ends, {("cars", 1): 64})
    said = refused(scratch, stores, "early", "lies before the beginning", settings={"tier.restore.url": stores.url("source"),
                                                                                  "tier.restore.as.of.ms": begin - 10**7})
    assert stores.url("source") in said
    refused(scratch, stores, "future", "lies in the future", settings={"tier.restore.url": stores.url("source"),
                                                                       "tier.restore.as.of.ms": begin + 10**9})
    assert not pathlib.Path(scratch.path("early-data")).exists(), "a data directory was made"
    assert stores.content("source") == before
    old.broker.stop()
    new.broker.stop()


def stores_has(stores, name, word):
    wait_for("the list of topics is in the bucket", lambda: word in stores.cli("inspect", name, "v1/cluster.json").stdout)


def case_bad_input(scratch, stores):
    """Not a bucket, a newer format, the own bucket, one that is taken, a directory that is not empty, no time: told, nothing written."""
    s = make_source(scratch, stores)
    url = stores.url("source")
    s.broker.stop()
    refused(scratch, stores, "nothing", "is not a Varve bucket", settings={"tier.restore.url": stores.url("no-such")})
    refused(scratch, stores, "source", "both", settings={"tier.restore.url": url})
    taken = Varve(scratch, {**SETTINGS, **stores.settings("taken")}, "taken")
    taken.stop()
    refused(scratch, stores, "taken", "is not empty, it belongs to cluster", settings={"tier.restore.url": url})
    refused(scratch, stores, "other", "is not empty: --restore", settings={"tier.restore.url": url, "data.dir": taken.settings["data.dir"]})
    refused(scratch, stores, "scheme", "s3://BUCKET/PREFIX", settings={"tier.restore.url": "http://there"})
    if not stores.minio:
        root = pathlib.Path(url[3:]) / "v1/root.json"
        kept = root.read_text()
        root.write_text(re.sub(', "crc": "[0-9a-f]{8}"}$', "}", kept).replace('"format": 1', '"format": 9'))
        refused(scratch, stores, "newer", "a newer Varve wrote", settings={"tier.restore.url": url})
        root.write_text("{")
        refused(scratch, stores, "damaged", "is damaged", settings={"tier.restore.url": url})
        root.write_text(kept)
    for args in (["--as-of", "2026-01-01"], ["--restore", url, "--as-of", "noon"]):
        done = subprocess.run([VARVE, "broker", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2, f"{args}: exit code {done.returncode}: {done.stderr}"


def migrate(stores, broker, url, *args):
    return subprocess.run([VARVE, "tier", "migrate", *([url] if url else []), "-b", broker.bootstrap, *args], env=stores.env(),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)


def case_migrate(scratch, stores):
    """The bucket of a running broker moves: produce and fetch go on; kill -9 on the way; the old one keeps what it had."""
    s = Source(scratch, stores, "old", {"tier.hydrate.max.bytes.per.second": 1 << 30})
    s.create("cars", 2)
    s.create("doomed")
    s.fill("cars", 0)
    s.fill("cars", 1)
    s.fill("doomed", 0, 160)
    s.commit("readers", "cars", 0, 100)
    s.quiet()
    with s.client() as c:
        c.delete_records("cars", 1, 64)
        c.delete_topic("doomed")
    before = stores.content("old")
    key = stores.settings("new").get("tier.url")
    config = {"tier.hydrate.max.bytes.per.second": 60000}  # slow enough to be killed on the way
    s.broker.stop()
    s.broker.settings.update(config)
    s.broker.start()
    done = migrate(stores, s.broker, key, "--no-wait")
    assert done.returncode == 0, done.stderr
    for _ in range(4):  # the alteration is kept: every start goes on with it
        wait_for("it copies", lambda: s.broker.metrics().get(("varve_tier_migrate_bytes_total",), 0) > 0 or "is the truth" in messages(s))
        s.fill("cars", 0, 32)
        if "is the truth" in messages(s):
            break
        s.broker.kill()
        s.broker.start()
    s.broker.kill()
    del s.broker.settings["tier.hydrate.max.bytes.per.second"]
    s.broker.settings["tier.hydrate.max.bytes.per.second"] = 1 << 30
    s.broker.start()
    done = migrate(stores, s.broker, key)
    assert done.returncode == 0 and "is the bucket now" in done.stdout, done.stderr + done.stdout
    s.fill("cars", 0, 160)
    s.quiet()
    lost = {k for k in before if k not in stores.content("old")}
    assert not lost, f"the old bucket lost {lost}"
    assert "moved_to" in stores.cli("inspect", "old", "v1/root.json").stdout
    check_source(s)
    s.broker.kill()  # tier.url still says the old one
    s.broker.start()
    check_source(s)
    with s.client() as c:
        assert c.offset("cars", 1, -2) == 64 and c.committed("readers", "cars", 0) == (0, 100)
    s.broker.stop()
    stores.take_away("old")
    s.broker.start()
    check_source(s)
    wait_for("the deleted topic is back", lambda: not subprocess.run([VARVE, "topic", "undelete", "doomed", "-b", s.broker.bootstrap],
                                                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE).returncode)
    with s.client() as c:
        records = c.read_all("doomed", 0)
        assert [v for _, _, v in records] == s.sent["doomed", 0][:len(records)] and len(records) >= 64
    s.broker.stop()
    done = stores.cli("verify", "new")
    assert done.returncode == 0, done.stderr + done.stdout
    shutil.rmtree(s.broker.settings["data.dir"])  # a lost disk comes back from the new one
    s.broker.settings.update(stores.settings("new"))
    s.broker.start()
    with s.client() as c:
        records = c.read_all("cars", 0)
        assert [v for _, _, v in records] == s.sent["cars", 0][:len(records)] and len(records) > 320
    s.broker.stop()


def case_migrate_kills(scratch, stores):
    """Killed again and again, at other moments each time, also in the middle of the switch: every start goes on, nothing is lost."""
    s = make_source(scratch, stores, "b0")
    s.broker.stop()
    for hop in range(1, 5):
        here, there = stores.url(f"b{hop - 1}"), stores.url(f"b{hop}")
        s.broker.settings.update({"tier.url": here, "tier.migrate.url": there})
        for kill in range(40):
            s.broker.start()
            if kill == 39 or f"tier={there} " in s.broker.ready:
                break
            time.sleep(0.011 * (kill * 7 % 10 + hop / 4))
            s.fill("cars", 0, 16)
            s.broker.kill()
        wait_for("it is there", lambda: f"complete: set tier.url={there}" in messages(s) or f"using that; set tier.url={there}" in messages(s))
        check_source(s)
        s.broker.stop()
        assert stores.cli("verify", f"b{hop}").returncode == 0
        stores.take_away(f"b{hop - 1}")


def messages(s):
    return s.broker.log.read_text(errors="replace")


def check_source(s):
    with s.client() as c:
        for (topic, p), values in s.sent.items():
            if topic == "doomed":
                continue
            first = c.offset(topic, p, -2)
            assert [(o, v) for o, _, v in c.read_all(topic, p)] == list(enumerate(values))[first:], f"{topic}-{p} is not what was sent"


def case_migrate_refused(scratch, stores):
    """A bucket that is not empty, of another cluster; a store that is away; asked to stop: the old one stays and works."""
    s = make_source(scratch, stores)
    taken = make_source(scratch, stores, "taken")
    taken.broker.stop()
    before = stores.content("taken")
    done = migrate(stores, s.broker, stores.url("taken"))
    assert done.returncode == 1 and "stays the bucket" in done.stderr, done.stderr + done.stdout
    assert "belongs to cluster" in messages(s)
    assert stores.content("taken") == before, "something was written to it"
    s.broker.stop()
    s.broker.start()
    assert migrate(stores, s.broker, None, "--stop").returncode == 0
    s.fill("cars", 0)
    s.quiet()
    check_source(s)
    s.broker.stop()
    half = {**SETTINGS, **stores.settings("half"), "tier.hydrate.max.bytes.per.second": 20000}
    s.broker.settings["tier.hydrate.max.bytes.per.second"] = 20000
    s.broker.start()
    assert migrate(stores, s.broker, stores.url("half"), "--no-wait").returncode == 0
    wait_for("it copies", lambda: s.broker.metrics().get(("varve_tier_migrate_bytes_total",), 0) > 0)
    s.broker.kill()
    refused(scratch, stores, "half", "half-done copy of a migration", settings={k: v for k, v in half.items()})
    moved = {**s.broker.settings, "tier.url": stores.url("half"), "metrics.listener": "off"}
    refused(scratch, stores, "half", "half-done copy of a migration", settings=moved)
    s.broker.start()
    check_source(s)
    s.broker.stop()


CASES = {name[5:]: run for name, run in list(globals().items()) if name.startswith("case_")}


def main(cases, about):
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--store", choices=("fs", "minio"), default="fs")
    parser.add_argument("--sealed", action="store_true")
    parser.add_argument("cases", nargs="*", choices=[[], *cases])
    o = parser.parse_args()
    for name in o.cases or cases:
        began = time.monotonic()
        with Scratch() as scratch:
            try:
                cases[name](scratch, Stores(scratch, o.store, o.sealed))
            except Missing as e:
                skip(str(e))
        print(f"{name}: ok, {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main(CASES, __doc__)
