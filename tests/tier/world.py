"""world.py — what the fault tests share: a broker on a store that misbehaves, what was sent to it, and the two ledgers.

    with World(settings) as w:
        w.fill(6)                    about six segments of 64 KiB into topic t; every outcome is in w.ledger
        w.quiet()                    waits until every closed segment is in the bucket and only there
        w.check()                    what is read, hot and cold, is what was acknowledged
        w.close()                    a clean stop; then the bucket must hold what its manifests name and nothing else
"""
import contextlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "crash"), str(HERE.parent / "clients")]
from broker import ROOT, Scratch, Varve, wait_for  # noqa: E402
from ledger import Client, Gone, Ledger, decode_batches  # noqa: E402
from s3front import S3Front  # noqa: E402

TOPIC = "t"
CORRUPT_MESSAGE, OUT_OF_RANGE, STORAGE_ERROR = 2, 1, 56
SETTINGS = {"listeners": "PLAINTEXT://127.0.0.1:0", "metrics.listener": "127.0.0.1:0", "log.segment.bytes": 65536,
            "log.local.retention.bytes": 0, "log.segment.delete.delay.ms": 0,
            "offsets.topic.num.partitions": 1, "tier.fetch.deadline.ms": 2000, "socket.request.max.bytes": 20 << 20}


def text(s):
    return struct.pack(">h", len(s)) + s.encode()


class Asker(Client):
    """The ledger's client with the questions that only these tests ask."""

    def delete_topic(self, topic):
        got = self.ask(20, 1, struct.pack(">i", 1) + text(topic) + struct.pack(">i", 30000))
        code = struct.unpack_from(">h", got, len(got) - 2)[0]
        assert code == 0, f"DeleteTopics: error code {code}"

    def delete_records(self, topic, partition, before):
        got = self.ask(21, 0, struct.pack(">i", 1) + text(topic) + struct.pack(">iiqi", 1, partition, before, 30000))
        start, code = struct.unpack_from(">qh", got, len(got) - 10)
        assert code == 0, f"DeleteRecords: error code {code}"
        return start

    def producer_id(self):
        code, pid, epoch = struct.unpack_from(">hqh", self.ask(22, 0, struct.pack(">hi", -1, 60000)), 4)
        assert code == 0 and epoch == 0, f"InitProducerId: error code {code}, epoch {epoch}"
        return pid


class World:
    def __init__(self, settings=None, s3=None, start=True, topics=(TOPIC,), **s3_settings):
        self.scratch, self.s3, self.own_s3 = Scratch(), s3 or S3Front(), s3 is None
        self.settings = {**SETTINGS, **self.s3.settings(**s3_settings), **(settings or {})}
        self.topics, self.ledger, self.start_now, self.lives = topics, Ledger(), start, 0

    def __enter__(self):
        self.scratch.__enter__()
        self.settings.setdefault("data.dir", self.scratch.path("data"))
        self.broker = Varve(self.scratch, self.settings, start=False)
        try:
            if self.start_now:
                self.start()
                with self.client() as c:
                    for topic in self.topics:
                        c.create(topic, 1, {})
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *why):
        try:
            self.scratch.__exit__(*why)
        finally:
            if self.own_s3:
                self.s3.__exit__()

    def start(self):
        self.broker.settings = dict(self.settings)
        self.broker.start()
        return self

    def kill(self):
        self.broker.kill()

    def client(self, timeout_s=60):
        return Asker(self.broker.bootstrap, timeout_s)

    def messages(self):
        return self.broker.log.read_text(errors="replace")

    def data(self):
        return pathlib.Path(self.settings["data.dir"])

    def lose_disk(self):
        shutil.rmtree(self.data())

    def refused(self, more=None, name="refused", patience_s=60, **settings):
        """Starts another broker that must not get ready; its messages."""
        settings = {**self.settings, "listeners": "PLAINTEXT://127.0.0.1:0", "metrics.listener": "off",
                    "data.dir": self.scratch.path(name), **(more or {}), **settings}
        other = Varve(self.scratch, settings, name + "-broker", start=False)
        self.scratch.started.remove(other)
        try:
            other.start()
        except RuntimeError:
            code = other.process.wait(patience_s)
            assert code == 1, f"exit code {code} instead of 1: {other.log.read_text()}"
            return other.log.read_text()
        other.kill()
        raise AssertionError("a broker started that should have been refused")

    # ---- traffic

    def fill(self, segments, topic=TOPIC, client=None, size=3000, batches=None):
        """Two batches of eight fill a segment of 64 KiB; the last one stays open."""
        with contextlib.ExitStack() as stack:
            c = client or stack.enter_context(self.client())
            for _ in range(batches or 2 * segments):
                code = self.ledger_of(topic).send(c, topic, 0, 8, size)
                assert code == 0, f"Produce: error code {code}"
        return self

    def ledger_of(self, topic):
        if topic == TOPIC:
            return self.ledger
        return self.__dict__.setdefault("ledgers", {}).setdefault(topic, Ledger())

    def fill_until(self, event, what, topic=TOPIC, most=4000):
        """Sends until the event, or until the broker is gone."""
        with self.client() as c:
            for _ in range(most):
                if event.is_set():
                    return self
                self.ledger_of(topic).send(c, topic, 0, 8, 3000)
        if event.wait(20):
            return self
        raise AssertionError(f"never came: {what}")

    def metric(self, name, topic=None):
        labels = (("partition", "0"), ("topic", topic)) if topic else ()
        return self.broker.metrics().get((name, *labels), 0)

    def local_start(self, topic=TOPIC):
        return self.metric("varve_partition_local_start_offset", topic)

    def local_logs(self, topic=TOPIC):
        return sorted((self.broker.log_dir / f"{topic}-0").glob("*.log"))

    def quiet(self, topic=TOPIC, patience_s=90):
        """Everything closed is in the bucket, and only there."""
        wait_for("everything closed is in the bucket and only there", lambda: (
            self.metric("varve_partition_tier_lag_bytes", topic) == 0 and len(self.local_logs(topic)) == 1), patience_s)
        return self

    def check(self, topic=TOPIC, client=None):
        with contextlib.ExitStack() as stack:
            c = client or stack.enter_context(self.client())
            records = c.read_all(topic, 0)
        self.ledger_of(topic).check(0, records)
        return records

    def hot_works(self, topic="hot"):
        """Produce, and fetch of what was produced, without the bucket."""
        with self.client(20) as c:
            assert self.ledger_of(topic).send(c, topic, 0, 1, 100) == 0
            end = c.offset(topic, 0, -1)
            code, _, data = c.fetch(topic, 0, end - 1, wait_ms=100)
            assert code == 0 and [o for o, _, _ in decode_batches(data)] == [end - 1], f"hot fetch: {code}"

    # ---- the end

    def close(self, strict=True):
        code = self.broker.stop()
        assert code == 0, f"exit code {code} on SIGTERM"
        if strict:
            s3_ledger(self.s3)
        return self

    def segments(self, topic_dir=""):
        """(base, last, key) of what is in the bucket, in order."""
        found = []
        for key in self.s3.keys(topic_dir + r".*\.seg$"):
            base, last = re.search(r"/(\d{20})-(\d{20})-[^/]*\.seg$", key).groups()
            found.append((int(base), int(last), key))
        return sorted(found)

    def topic_dir(self, topic=TOPIC):
        for key in self.s3.keys(r"/topic\.json$"):
            if json.loads(self.s3.get(key))["topic"] == topic:
                return key.removesuffix("topic.json")
        raise KeyError(topic)

    def read_bucket(self, topic=TOPIC, prefix="p"):
        """The topic as a stranger reads it from a copy of the bucket (tests/bucket_reader.py; sealed objects without the modules for them:
        varve replay): [(offset, value length)]."""
        copy = self.scratch.dir / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        for key in self.s3.keys():
            at = copy / key.removeprefix(prefix + "/")
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_bytes(self.s3.get(key))
        reader, keys = [sys.executable, ROOT / "tests/bucket_reader.py", copy, topic], self.settings.get("tier.encryption.keys.file")
        if keys and all(importlib.util.find_spec(m) for m in ("zstandard", "cryptography")):
            reader.append(keys)
        elif keys:
            reader = [os.environ.get("VARVE", ROOT / "build/varve"), "replay", f"fs:{copy}", "--topic", topic, "--set", f"tier.encryption.keys.file={keys}"]
        done = subprocess.run(reader, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, f"{reader[1]}: {done.stderr}"
        return [(0, *((r["offset"], r["value"].encode()))) for r in map(json.loads, done.stdout.splitlines())]

    def check_bucket(self, topic=TOPIC):
        """A stranger finds in the bucket a prefix of what was acknowledged, each at its offset, at least up to the last segment."""
        where = {offset: value for value, (_, offset) in self.ledger_of(topic).ok.items()}
        records = self.read_bucket(topic)
        for _, offset, value in records:
            assert where.get(offset, value) == value, f"the bucket has another record at {offset}"
        offsets = [offset for _, offset, _ in records]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets))) if offsets else True, "the bucket has a hole"
        return records


def s3_ledger(s3, prefix="p"):
    """What the bucket holds is what root, snapshot and manifests name, and no upload is open."""
    root = json.loads(s3.get(f"{prefix}/v1/root.json"))
    assert root["released"], "the claim was not released"
    named = {f"{prefix}/v1/root.json", f"{prefix}/v1/cluster.json"}
    have = {k for k in s3.keys(f"^{prefix}/") if "/v1/h/" not in k}  # snapshots of before are named by their time alone
    for d in root["deleted_topics"]:
        have = {k for k in have if f"/{d['topic_id']}/" not in k}
    named |= {k for k in have if k.endswith("/topic.json")}
    for key in [k for k in have if k.endswith("/head.json")]:
        head, folder = json.loads(s3.get(key)), key.removesuffix("head.json")
        segments = list(head["segments"])
        for level, pages in enumerate(head["pages"], 1):
            for page in pages:
                segments += walk_page(s3, folder, level, page, named)
        named |= {key, *(f"{prefix}/{g}" for g in head["garbage"])}
        for run in head["replaced"]:  # kept for the grace
            key = f"{folder}0-{run['sha256']}.json"
            old = json.loads(s3.get(key))
            named |= {key, *(f"{prefix}/{page}" for page in old["pages"])}
            segments += old["entries"]
        data = folder.replace("/v1/m/", "/v1/t/")
        for s in segments:
            if s["last"] >= head["deleting_below"]:
                named.add("%s%020d-%020d-%08x-%04x-%s.seg" % (data, s["base"], s["last"], s["epoch"], s["generation"], s["nonce"]))
    extra, missing = sorted(have - named), sorted(named - have)
    assert not extra, f"orphans in the bucket after a quiet end: {extra[:3]} ({len(extra)})"
    assert not missing, f"named by a manifest and not in the bucket: {missing[:3]} ({len(missing)})"
    assert not s3.uploads, f"{len(s3.uploads)} multipart uploads are still open"


def walk_page(s3, folder, level, page, named):
    key = f"{folder}{level}-{page['sha256']}.json"
    named.add(key)
    for entry in json.loads(s3.get(key))["entries"]:
        yield from [entry] if level == 1 else walk_page(s3, folder, level - 1, entry, named)


def served_again(w, offset):
    """A failure is remembered for a few seconds, so that a crowd does not hammer the bucket."""
    with w.client() as c:
        wait_for(f"offset {offset} is served again", lambda: (lambda code, _, data: code == 0 and data)(*c.fetch(TOPIC, 0, offset)), 30)
