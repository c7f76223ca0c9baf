#!/usr/bin/env python3
"""replay.py — a bucket without its broker: varve replay, ls, inspect and verify against what was sent, and against bad input.

A broker with a directory as bucket gets batches of a small client (keys, nulls, bytes that are no UTF-8, headers, gzip, times out of order); it is
stopped; then only the bucket is read. What comes out is compared with what went in, and with tests/bucket_reader.py.
usage: tests/tier/replay.py [--store fs|minio] [--sealed]     sealed: compressed and encrypted objects, and what goes wrong with keys
"""
import argparse
import base64
import csv
import gzip
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests/clients"), str(ROOT / "tests/crash"), str(ROOT / "tests/tier")]
import broker  # noqa: E402
import ledger  # noqa: E402
from s3front import S3Front  # noqa: E402

VARVE = pathlib.Path(os.environ.get("VARVE", ROOT / "build/varve"))
TOPIC, PARTITIONS, BATCHES, BATCH = "cars", 2, 120, 20
T0 = 1_700_000_000_000
checks = 0


def check(ok, what):
    global checks
    checks += 1
    if not ok:
        raise AssertionError(what)


def blob(b):
    return ledger.varint(-1) if b is None else ledger.varint(len(b)) + b


def batch(records, codec):
    """records: [(ts, key, value, headers)]; the broker assigns offsets."""
    body, base = b"", records[0][0]
    for i, (ts, key, value, headers) in enumerate(records):
        r = b"\0" + ledger.varint(ts - base) + ledger.varint(i) + blob(key) + blob(value) + ledger.varint(len(headers))
        r += b"".join(blob(k) + blob(v) for k, v in headers)
        body += ledger.varint(len(r)) + r
    if codec == 1:
        body = gzip.compress(body)
    tail = struct.pack(">hiqqqhii", codec, len(records) - 1, base, max(r[0] for r in records), -1, -1, -1, len(records)) + body
    return struct.pack(">qiibI", 0, len(tail) + 9, -1, 2, ledger.crc32c(tail)) + tail


def produce(client, partition, records, codec):
    name, data = TOPIC.encode(), batch(records, codec)
    body = struct.pack(">hhiih", -1, -1, 30000, 1, len(name)) + name + struct.pack(">iii", 1, partition, len(data)) + data
    code, base = struct.unpack_from(">hq", client.ask(0, 3, body), 4 + 2 + len(name) + 4 + 4)
    assert code == 0, f"Produce: error code {code}"
    return base


def text(b):
    try:
        return b if b is None else b.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(b).decode()}


def make_records(partition, n):
    for i in range(n * BATCH, (n + 1) * BATCH):
        late = -90_000 if i // BATCH % 7 == 3 else 0  # whole batches that come late
        key = None if i % 5 == 4 else b"\xff\0key" if i % 23 == 7 else b"car-%d" % (i % 13)
        value = None if i % 29 == 3 else bytes(range(128, 256)) if i % 31 == 5 else ('"%d/%d" charged\n\u00e4,\t' % (partition, i)).encode() + b"v" * 200
        headers = [(b"site", b"s%d" % (i % 3)), (b"site", None), (b"raw", b"\xfe")] if i % 11 == 0 else []
        yield T0 + i * 1000 + late, key, value, headers


def in_bucket(server, partitions):
    """Every closed segment is in the bucket, of so many partitions."""
    page = server.metrics()
    lag = [v for k, v in page.items() if k[0] == "varve_partition_tier_lag_bytes"]
    remote = [v for k, v in page.items() if k[0] == "varve_partition_remote_bytes" and v > 0]
    return len(remote) == partitions and not any(lag)


def fill(scratch, settings):
    """Sends everything, waits until all of it is in the bucket, stops the broker. The records as NDJSON should have them."""
    sent = []
    server = broker.Varve(scratch, {"tier.upload.interval.ms": 1000, **settings})
    with ledger.Client(server.bootstrap) as client:
        client.create(TOPIC, PARTITIONS, {"segment.bytes": 65536, "remote.storage.enable": "true"})
        client.create("other", 1, {"segment.bytes": 65536, "remote.storage.enable": "true"})
        for n in range(BATCHES):
            for p in range(PARTITIONS):
                records = list(make_records(p, n))
                at = produce(client, p, records, n % 2)
                for i, (ts, key, value, headers) in enumerate(records):
                    sent.append({"topic": TOPIC, "partition": p, "offset": at + i, "timestamp": ts, "timestampType": "CreateTime", "key": text(key),
                                 "value": text(value), "headers": [{"key": text(k), "value": text(v)} for k, v in headers]})
        client.produce("other", 0, [b"one"])
    sent.sort(key=lambda r: (r["partition"], r["offset"]))
    broker.wait_for("everything is in the bucket", lambda: in_bucket(server, PARTITIONS + 1))
    server.stop()
    server.process = None
    return sent


class Cli:
    def __init__(self, url, settings):
        self.url, self.env = url, dict(os.environ)
        self.sets = []
        for k, v in settings.items():
            if k.startswith("AWS_"):
                self.env[k] = v
            elif k != "tier.url":
                self.sets += ["--set", f"{k}={v}"]

    def run(self, command, *args, url=None):
        return subprocess.run([VARVE, command, url or self.url, *args, *self.sets], env=self.env, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=300)

    def ok(self, command, *args):
        done = self.run(command, *args)
        check(done.returncode == 0, f"varve {command} {args}: exit {done.returncode}: {done.stderr.decode()}")
        return done.stdout

    def replay(self, *args):
        return [json.loads(line) for line in self.ok("replay", "--topic", TOPIC, *args).splitlines()]


def same(got, want, what):
    if got != want:
        first = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        raise AssertionError(f"{what}: {len(got)} records, {len(want)} expected; first difference at {first}: "
                             f"{got[first:first + 1]} instead of {want[first:first + 1]}")
    check(want, f"{what}: the comparison is empty")


def check_windows(cli, sent):
    same(cli.replay(), sent, "everything")
    for p in range(PARTITIONS):
        mine = [r for r in sent if r["partition"] == p]
        same(cli.replay("--partition", str(p)), mine, f"partition {p}")
        for a, b in ((0, 1), (1, 2), (777, 1500), (2399, 2400), (19, 21), (2000, 999999)):
            same(cli.replay("-p", str(p), "--from", str(a), "--to", str(b)), [r for r in mine if a <= r["offset"] < b], f"offsets {a}..{b}")
    for a, b in ((T0 + 500_000, T0 + 1_000_000), (T0 + 999_500, T0 + 1_000_001), (T0 - 5, T0 + 60_000), (T0 + 2_300_000, T0 + 9_000_000)):
        want = [r for r in sent if a <= r["timestamp"] < b]
        same(cli.replay("--from", f"ts:{a}", "--to", f"ts:{b}"), want, f"times {a}..{b}")
    want = [r for r in sent if r["timestamp"] >= T0 + 600_000 and r["offset"] < 1000]
    same(cli.replay("--from", "2023-11-14T22:23:20Z", "--to", "1000"), want, "a time and an offset")
    same(cli.replay("--from", "2023-11-14T23:23:20.000+01:00", "--to", "1000"), want, "a time with a zone")


def check_filters(cli, sent):
    same(cli.replay("--key", "car-7"), [r for r in sent if r["key"] == "car-7"], "key")
    want = [r for r in sent if isinstance(r["value"], str) and re.search(r'^"1/[0-9]*7" ', r["value"], re.M)]
    same(cli.replay("--grep", '^"1/[0-9]*7" '), want, "grep")
    same(cli.replay("--grep", "charged", "--key", "car-3", "--from", "100", "--to", "200"),
         [r for r in sent if r["key"] == "car-3" and isinstance(r["value"], str) and "charged" in r["value"] and 100 <= r["offset"] < 200], "both")
    check(cli.replay("--key", "nobody") == [], "a key that nobody has")


def check_formats(cli, sent, scratch):
    same(json.loads(cli.ok("replay", "--topic", TOPIC, "--format", "json")), sent, "json")
    rows = list(csv.reader(io.StringIO(cli.ok("replay", "--topic", TOPIC, "--format", "csv").decode(), newline="")))
    check(rows[0] == ["topic", "partition", "offset", "timestamp", "timestampType", "key", "value", "headers"], "the CSV's first line")

    def cell(v):
        return "" if v is None else v if isinstance(v, str) else json.dumps(v, separators=(",", ":"))

    same(rows[1:], [[TOPIC, str(r["partition"]), str(r["offset"]), str(r["timestamp"]), r["timestampType"], cell(r["key"]), cell(r["value"]),
                     cell(r["headers"])] for r in sent], "csv")
    raw = cli.ok("replay", "--topic", TOPIC, "--format", "raw", "--from", "0", "--to", "50", "-p", "0")
    values = [b"" if r["value"] is None else r["value"].encode() if isinstance(r["value"], str) else base64.b64decode(r["value"]["base64"])
              for r in sent if r["partition"] == 0 and r["offset"] < 50]
    check(raw == b"".join(v + b"\n" for v in values), "raw")
    path = scratch.path("out.ndjson")
    check(cli.ok("replay", "--topic", TOPIC, "--output", path) == b"", "with --output nothing goes to stdout")
    same([json.loads(line) for line in open(path, "rb")], sent, "--output")
    check(not os.path.exists(path + ".part"), "FILE.part was renamed")
    empty = json.loads(cli.ok("replay", "--topic", TOPIC, "--format", "json", "--key", "nobody"))
    check(empty == [], "an empty JSON array")


def check_stranger(cli, sent, bucket, keys=None):
    if keys and not all(importlib.util.find_spec(m) for m in ("zstandard", "cryptography")):
        print("note: the stranger's reader of sealed objects was not tried: it needs Python's zstandard and cryptography")
        return
    lines = subprocess.run([sys.executable, ROOT / "tests/bucket_reader.py", bucket, TOPIC, *([keys] if keys else [])], stdout=subprocess.PIPE,
                           check=True).stdout
    other = [json.loads(line) for line in lines.splitlines()]
    mine = [{**{k: r[k] for k in ("offset", "timestamp", "key", "value", "partition")}, "headers": [[h["key"], h["value"]] for h in r["headers"]]}
            for r in cli.replay()]
    same(mine, other, "the stranger's reader")
    check(len(other) == len(sent), "the stranger's reader reads everything")


def log_of(cli, partition):
    return json.loads(cli.ok("inspect", "--topic", TOPIC, "--partition", str(partition), "-o", "json"))["segments"]


def check_looking(cli, sent, sealed):
    plan = json.loads(cli.ok("replay", "--topic", TOPIC, "--plan", "--format", "json"))
    rows = json.loads(cli.ok("ls", TOPIC, "-o", "json"))
    check([r["partition"] for r in rows] == list(range(PARTITIONS)), "ls: partitions")
    for row in rows:
        mine = [r for r in sent if r["partition"] == row["partition"]]
        check((row["log_start"], row["next_offset"]) == (0, len(mine)), f"ls: offsets {row}")
        check(row["objects"] > 3, f"ls: objects {row}")
    check(sealed or plan["bytes"] > sum(r["bytes"] for r in rows), f"plan {plan} and ls {rows}")
    check(plan["bytes"] >= sum(s["object_bytes"] for s in log_of(cli, 0) + log_of(cli, 1)) and plan["segments"] == sum(r["objects"] for r in rows), f"plan {plan} and ls {rows}")
    small = json.loads(cli.ok("replay", "--topic", TOPIC, "--plan", "--format", "json", "--from", "0", "--to", "10"))
    check(small["segments"] == PARTITIONS and small["bytes"] < plan["bytes"], f"plan of a window: {small}")
    human = cli.ok("replay", "--topic", TOPIC, "--plan").decode()
    check(all(word in human for word in ("bytes", "GETs", "minutes", "money")), f"plan: {human}")
    topics = json.loads(cli.ok("ls", "-o", "json"))
    check({t["topic"]: t["offsets"] for t in topics if not t["topic"].startswith("__")} == {TOPIC: len(sent), "other": 1}, f"ls: {topics}")
    log = json.loads(cli.ok("inspect", "--topic", TOPIC, "--partition", "1", "-o", "json"))
    check(log["next_offset"] == rows[1]["next_offset"] and len(log["segments"]) == rows[1]["objects"], "inspect: the partition")
    ends = [s["last"] + 1 for s in log["segments"]]
    check([s["base"] for s in log["segments"]] == [0] + ends[:-1], "inspect: segments tile")
    seg = json.loads(cli.ok("inspect", log["segments"][0]["key"], "-o", "json"))
    check(seg["topic"] == TOPIC and seg["base"] == 0 and seg["records"] == ends[0] and sum(b["bytes"] for b in seg["blocks"]) == seg["bytes"], "inspect: a segment")
    check(b"blocks" in cli.ok("inspect", log["segments"][0]["key"]), "inspect as text")
    if sealed:
        check((seg["compression"], seg["encryption"], seg["key_id"]) == ("zstd", "aes-256-gcm", "second"), f"inspect: sealed {seg}")
        check(0 < seg["stored_ratio"] < 0.9 and seg["stored_bytes"] == sum(b["stored_bytes"] for b in seg["blocks"]), f"inspect: sizes {seg}")
    else:
        check((seg["compression"], seg["encryption"], seg["stored_ratio"]) == ("none", "none", 1) and "key_id" not in seg, "inspect: plain")
    root = json.loads(cli.ok("inspect", "v1/root.json", "-o", "json"))
    check(root["cluster_id"] == log["cluster_id"] == seg["cluster_id"], "inspect: the root")
    cli.ok("verify")
    rows = json.loads(cli.ok("verify", "--topic", TOPIC, "-o", "json"))
    check(sum(r["records"] for r in rows) == len(sent) and not any(r["damages"] for r in rows), f"verify: {rows}")


def refused(cli, scratch, code, word, *args, url=None, command="replay"):
    """Ends with that code and says why; writes nothing anywhere."""
    out = scratch.path("refused")
    more = ["--output", out] if command == "replay" and "--to-kafka" not in args else []
    done = cli.run(command, *args, *more, url=url)
    said = done.stderr.decode() + done.stdout.decode() if command == "verify" else done.stderr.decode()
    check(done.returncode == code, f"{command} {args} {url}: exit {done.returncode}, not {code}: {said}")
    check(re.search(word, said), f"{command} {args} {url}: {said!r} does not say {word!r}")
    check(command == "verify" or done.stdout == b"", f"{command} {args}: {done.stdout[:100]}")
    if code != 3:
        check(not os.path.exists(out) and not os.path.exists(out + ".part"), f"{command} {args}: something was written")
    return said


def check_bad_input(cli, scratch):
    topic = ("--topic", TOPIC)
    nowhere, empty = scratch.path("nowhere"), scratch.path("empty")
    os.mkdir(empty)
    for command, more in (("replay", topic), ("ls", ()), ("verify", ()), ("inspect", ("v1/root.json",))):
        refused(cli, scratch, 1, "no directory", *more, url=f"fs:{nowhere}", command=command)
        refused(cli, scratch, 1, "not a Varve bucket", *more, url=f"fs:{empty}", command=command)
        refused(cli, scratch, 1, "http://", *more, url="http://127.0.0.1/", command=command)
    check(not os.path.exists(nowhere) and os.listdir(empty) == [], "reading makes nothing")
    refused(cli, scratch, 1, "no topic nothing", "--topic", "nothing")
    refused(cli, scratch, 1, "no topic nothing", "--topic", "nothing", command="verify")
    refused(cli, scratch, 1, "partition 7", *topic, "--partition", "7")
    refused(cli, scratch, 2, "--topic is needed")
    refused(cli, scratch, 2, "--from", *topic, "--from", "yesterday")
    refused(cli, scratch, 2, "--to", *topic, "--to", "2023-02-30T00:00:00Z")
    refused(cli, scratch, 2, "--grep", *topic, "--grep", "(")
    refused(cli, scratch, 2, "--format", *topic, "--format", "xml")
    refused(cli, scratch, 2, "not after", *topic, "--from", "10", "--to", "10")
    refused(cli, scratch, 1, "before the beginning", *topic, "--to", "2001-01-01T00:00:00Z")
    refused(cli, scratch, 1, "past the end", *topic, "--from", "2040-01-01T00:00:00Z")
    refused(cli, scratch, 1, "past the end", *topic, "--from", "99999999")
    refused(cli, scratch, 1, "no object", "v1/t/none", command="inspect")
    done = cli.run("replay", *topic, "--output", scratch.path("no/such/dir/file"))
    check(done.returncode == 1 and b"cannot write" in done.stderr, "an output that cannot be opened")


class Damage:
    """The bucket's files, changed by hand and put back."""

    def __init__(self, bucket):
        self.bucket = pathlib.Path(bucket)
        self.segments = sorted(p for p in self.bucket.glob("v1/t/*/00000/*.seg") if json.loads((p.parent.parent / "topic.json").read_text())["topic"] == TOPIC)
        self.kept = {}

    def keep(self, path):
        self.kept.setdefault(path, path.read_bytes())
        return self.kept[path]

    def put_back(self):
        for path, data in self.kept.items():
            path.write_bytes(data)
        self.kept = {}


def check_damage(cli, scratch, bucket, sent):
    d = Damage(bucket)
    victim, topic = d.segments[len(d.segments) // 2], ("--topic", TOPIC)
    base, last = int(victim.name[:20]), int(victim.name[21:41])
    mine = [r for r in sent if r["partition"] == 0]

    def flip(at):
        data = bytearray(d.keep(victim))
        data[at] ^= 0x40
        victim.write_bytes(data)

    def truncate():
        victim.write_bytes(d.keep(victim)[:-100])

    def vanish():
        d.keep(victim)
        victim.unlink()

    def forge():
        d.keep(victim)
        shutil.copyfile(d.segments[1], victim)

    data = victim.read_bytes()
    deeds = [("a flipped bit", lambda: flip(1000)), ("the last data byte", lambda: flip(struct.unpack_from(">Q", data, len(data) - 16)[0] - 1)),
             ("the footer", lambda: flip(len(data) - 60)), ("the trailer", lambda: flip(len(data) - 4)), ("cut off", truncate), ("gone", vanish),
             ("another's bytes", forge)]
    for what, deed in deeds:
        deed()
        for args in ((), topic):
            said = refused(cli, scratch, 3, victim.name, *args, command="verify")
            check(said.count("DAMAGED") == 1, f"{what}: one damage is told once: {said}")
        refused(cli, scratch, 3, victim.name, *topic)
        out = pathlib.Path(scratch.path("refused.part"))
        before = [json.loads(line) for line in out.read_bytes().splitlines()]
        same(before, mine[:len(before)], f"{what}: what came before it")
        check(len(before) <= base, f"{what}: nothing of the damaged object came out")
        out.unlink()
        check(not os.path.exists(scratch.path("refused")), "no whole file after an error")
        same(cli.replay("-p", "0", "--from", str(last + 1)), [r for r in mine if r["offset"] > last], f"{what}: behind it all is well")
        d.put_back()
        cli.ok("verify")
    check_hole(cli, scratch, d, victim, base, last)
    check_versions(cli, scratch, d, victim)


def check_hole(cli, scratch, d, victim, base, last):
    """The manifest without one of its segments."""
    head = d.bucket / "v1/m" / victim.parent.parent.name / "00000/head.json"
    manifest = json.loads(d.keep(head))
    del manifest["crc"]  # as older versions wrote it
    manifest["segments"] = [s for s in manifest["segments"] if s["base"] != base]
    head.write_text(json.dumps(manifest))
    refused(cli, scratch, 3, f"{base}..{last} are in no object", command="verify")
    refused(cli, scratch, 3, f"{base}..{last} are in no object", "--topic", TOPIC)
    pathlib.Path(scratch.path("refused.part")).unlink()
    head.write_bytes(d.kept[head][:-20])
    refused(cli, scratch, 3, "head.json", command="verify")
    manifest = json.loads(d.kept[head])
    manifest["segments"][1]["max_ts"] += 1
    head.write_text(json.dumps(manifest))
    refused(cli, scratch, 3, "does not fit its checksum", command="verify")
    del manifest["crc"]
    head.write_text(json.dumps(manifest))
    refused(cli, scratch, 3, "what the manifest says", command="verify")
    d.put_back()


def check_versions(cli, scratch, d, victim):
    """What a newer Varve wrote is not guessed at."""
    root = d.bucket / "v1/root.json"
    kept = d.keep(root)
    at = kept.index(b"writer_epoch") + 16
    root.write_bytes(kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1:])  # another digit
    for command, more in (("replay", ("--topic", TOPIC)), ("verify", ()), ("inspect", ("v1/root.json",))):
        refused(cli, scratch, 3, "v1/root.json", *more, command=command)
    newer = json.loads(kept)
    del newer["crc"]
    newer["format"] = 2
    root.write_text(json.dumps(newer))
    for command, more in (("replay", ("--topic", TOPIC)), ("verify", ()), ("ls", ())):
        refused(cli, scratch, 1, "newer", *more, command=command)
    newer["format"], newer["cluster_id"] = 1, "AAAAAAAAAAAAAAAAAAAAAA"
    root.write_text(json.dumps(newer))
    refused(cli, scratch, 1, "belongs to cluster", "--topic", TOPIC)
    root.write_text("{")
    refused(cli, scratch, 3, "damaged", command="ls")
    d.put_back()
    data = bytearray(d.keep(victim))
    struct.pack_into(">H", data, len(data) - 8, 2)
    struct.pack_into(">I", data, len(data) - 4, ledger.crc32c(bytes(data[-32:-4])))
    victim.write_bytes(data)
    refused(cli, scratch, 1, "newer", "--topic", TOPIC, "-p", "0", "--from", str(int(victim.name[:20])), "--to", str(int(victim.name[:20]) + 1))
    d.put_back()


def check_feed(cli, sent, scratch):
    """Into another Kafka, which dies and comes back while it is written to: every record once, in order, as it was."""
    port = broker.free_port()
    settings = {"listeners": f"PLAINTEXT://127.0.0.1:{port}", "tier.url": f"fs:{scratch.path('fed')}", "tier.upload.interval.ms": 1000}
    there = broker.Varve(scratch, settings, name="there")
    refused(cli, scratch, 2, "--format", "--topic", TOPIC, "--to-kafka", there.bootstrap, "--format", "csv")
    with ledger.Client(there.bootstrap) as client:
        client.create("narrow", 1, {})
    refused(cli, scratch, 1, "narrow has 1 partitions there and 2 here", "--topic", TOPIC, "--to-kafka", there.bootstrap, "--as", "narrow")
    feed = subprocess.Popen([VARVE, "replay", cli.url, "--topic", TOPIC, "--to-kafka", there.bootstrap, "--as", "again", *cli.sets],
                            env=cli.env, stderr=subprocess.PIPE)
    broker.wait_for("some of it is there", lambda: any(k[0] == "varve_topic_produce_records_total" and ("topic", "again") in k and v > 0
                                                       for k, v in there.metrics().items()), every_s=0.005)
    there.kill()
    there.start()
    said = feed.communicate(timeout=120)[1].decode()
    check(feed.returncode == 0, f"varve replay --to-kafka: exit {feed.returncode}: {said}")
    broker.wait_for("all of it is in the other bucket", lambda: in_bucket(there, PARTITIONS))
    there.stop()
    there.process = None
    fed = Cli(settings["tier.url"], {}).run("replay", "--topic", "again")
    got = [json.loads(line) for line in fed.stdout.splitlines()]
    same([{k: v for k, v in r.items() if k not in ("topic", "offset")} for r in got],
         [{k: v for k, v in r.items() if k not in ("topic", "offset")} for r in sent], "what another Kafka was fed")
    offsets = [r["offset"] for r in got]
    check(offsets == [r["offset"] for r in sent], "offsets without holes over there")


KEYS = {"first": bytes(range(32)), "second": bytes(range(32, 64)), "third": bytes(32)}


def write_keys(path, *ids, **more):
    lines = [f"{i} {base64.b64encode(KEYS[i]).decode()}" for i in ids] + [f"{i} {base64.b64encode(k).decode()}" for i, k in more.items()]
    path = pathlib.Path(path)
    path.write_text("# keys of the archive\n" + "\n".join(lines) + "\n")
    path.chmod(0o600)


def check_keys(cli, scratch, keys, sent):
    """Without the key nothing comes out, and the key is named; a rotation reads old and new."""
    topic = ("--topic", TOPIC)
    write_keys(keys, "first", "third")
    for command, more in (("replay", topic), ("verify", ()), ("inspect", (log_of(cli, 0)[0]["key"],))):
        said = refused(cli, scratch, 1, "key second", *more, command=command)
        check("keys" in said, f"{command}: which file: {said}")
    cli.ok("ls")
    write_keys(keys, "first", second=KEYS["third"])
    for command, more in (("replay", topic), ("verify", ())):
        said = refused(cli, scratch, 1, "called second", *more, command=command)
        check(base64.b64encode(KEYS["third"]).decode() not in said, f"{command}: a key in the message")
    write_keys(keys, "second", "third")
    pathlib.Path(keys).chmod(0o644)
    refused(cli, scratch, 1, "chmod 600", *topic)
    pathlib.Path(keys).chmod(0o600)
    same(cli.replay(), sent, "after a rotation")
    write_keys(keys, "first", "second")


def check_rotation(cli, scratch, settings, keys):
    """A broker with nothing but the bucket: without the key its partitions neither serve nor take anything and the log names it; with the key
    they are back without a restart, and the newest one writes."""
    write_keys(keys, "first")
    server = broker.Varve(scratch, {"tier.upload.interval.ms": 1000, **settings}, "restored")
    with ledger.Client(server.bootstrap) as client:
        broker.wait_for("the typed error", lambda: client.fetch(TOPIC, 0, 0)[0] == 56)
        check(client.produce(TOPIC, 0, [b"no"])[0] == 56, "nothing is taken before the end of the log is known")
        check("key second" in server.log.read_text(), f"the log names the key: {server.log.read_text()}")
        write_keys(keys, "first", "second", "third")
        broker.wait_for("the partitions are back", lambda: client.fetch(TOPIC, 0, 0)[0] == 0 and client.fetch(TOPIC, 1, 0)[0] == 0)
        at = produce(client, 0, list(make_records(0, BATCHES)), 0)

    def newest():
        new = [s for s in log_of(cli, 0) if s["base"] <= at <= s["last"]]
        return new and json.loads(cli.ok("inspect", new[0]["key"], "-o", "json"))["key_id"]

    broker.wait_for("the new records are in the bucket", newest)
    check(newest() == "third", "new objects have the newest key")
    server.stop()
    write_keys(keys, "first", "third")
    server.start()
    with ledger.Client(server.bootstrap) as client:
        broker.wait_for("the typed error", lambda: client.fetch(TOPIC, 0, 0)[0] == 56)
        check("key second" in server.log.read_text(), "the log names the key")
        write_keys(keys, "third", "second", "first")
        broker.wait_for("the key is back", lambda: len(client.fetch(TOPIC, 0, 0)[2]) > 0)
    server.stop()
    server.process = None
    said = server.log.read_text()
    check(not any(base64.b64encode(k).decode() in said for k in KEYS.values()), "no key in the log")


def check_ahead():
    """While a partition's last object does not come, those of the next one are asked for; the order of what comes out is the same."""
    with S3Front() as s3, broker.Scratch() as scratch:
        settings = s3.settings("ahead")
        cli = Cli(settings["tier.url"], settings)
        want = cli_order(fill(scratch, settings))
        topic = s3.keys(r"/00001/.*\.seg$")[0].split("/00001/")[0]  # not the one beside it
        last = s3.keys(rf"{topic}/00000/.*\.seg$")[-1]
        rule = s3.rule("GET", re.escape(last), do="stall", nth=1)
        asked = s3.count("GET", r"/00001/.*\.seg$")
        with tempfile.TemporaryFile() as out:
            replay = subprocess.Popen([VARVE, "replay", cli.url, "--topic", TOPIC, *cli.sets], env=cli.env, stdout=out)
            check(rule.reached.wait(60), "the end of the first partition is asked for")
            broker.wait_for("the next is asked for", lambda: s3.count("GET", r"/00001/.*\.seg$") > asked)
            check(replay.poll() is None, "it waits for the first")
            s3.clear()
            check(replay.wait(60) == 0, "the replay ends")
            out.seek(0)
            same(cli_order(json.loads(line) for line in out), want, "the partitions in order")


def cli_order(records):
    return [(r["partition"], r["offset"], r["value"]) for r in records]


def contents(bucket):
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in pathlib.Path(bucket).rglob("*") if p.is_file()}


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--store", choices=("fs", "minio", "second", "third", "fourth"), default="fs")
    options.add_argument("--sealed", action="store_true")
    store, sealed = (options.parse_args().__dict__[k] for k in ("store", "sealed"))
    with broker.Scratch() as scratch:
        bucket = scratch.path("bucket")
        settings = {"tier.url": f"fs:{bucket}"} if store == "fs" else broker.Minio(scratch, store).settings("replay")
        keys = scratch.path("keys") if sealed else None
        if sealed:
            write_keys(keys, "first", "second")
            settings = {**settings, "tier.compression": "zstd", "tier.encryption": "aes-256-gcm", "tier.encryption.keys.file": keys}
        sent = fill(scratch, settings)
        cli = Cli(settings["tier.url"], settings)
        before = contents(bucket) if store == "fs" else None
        check_windows(cli, sent)
        check_filters(cli, sent)
        check_formats(cli, sent, scratch)
        check_looking(cli, sent, sealed)
        if store == "fs":
            check_stranger(cli, sent, bucket, keys)
            check_bad_input(cli, scratch)
            if not sealed:
                check_feed(cli, sent, scratch)
                check_ahead()
            check(contents(bucket) == before, "nothing was written to the bucket")
            check_damage(cli, scratch, bucket, sent)
            check(contents(bucket) == before, "the bucket is as it was")
        else:
            refused(cli, scratch, 1, "not a Varve bucket", "--topic", TOPIC, url=settings["tier.url"] + "-not")
        if sealed:
            check_keys(cli, scratch, keys, sent)
            check_rotation(cli, scratch, settings, keys)
    print(f"{checks} checks over {len(sent)} records on {store}: what went in came out")


if __name__ == "__main__":
    main()
