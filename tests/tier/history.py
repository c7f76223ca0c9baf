#!/usr/bin/env python3
"""history.py — a long history in one partition: the program of tests/history builds it into a broker's bucket, then the CLI and a
broker on an empty directory work with it. The broker restores it, finds times and reads in the middle, starts again.

Counts and contents are checked; times and memory are printed.
usage: tests/tier/history.py [--segments N] [--verify]
"""
import argparse
import json
import pathlib
import re
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "crash"), str(HERE.parent / "clients")]
from broker import ROOT, Scratch, Varve  # noqa: E402
from ledger import Client, decode_batches  # noqa: E402
from world import text  # noqa: E402

T0, MINUTE, RECORDS, WRITTEN_OUT, MASK = 1483228800000, 60000, 4, 512, (1 << 64) - 1
VARVE = ROOT / "build/varve"


def time_of(record):
    """synth_time of tests/history/synth.c."""
    i, k = divmod(record, RECORDS)
    h = i + 1
    for factor in (0xff51afd7ed558ccd, 0xc4ceb9fe1a85ec53):
        h = (h ^ h >> 33) * factor & MASK
    h ^= h >> 33
    t = T0 + i * MINUTE + (30000 if k >= 2 else 0) + h % 20000 + k % 2 * 5
    return t - 120 * MINUTE * (k >= 2 and h % 7 == 3) + 180 * MINUTE * (k < 2 and h % 11 == 5)


def truth(ts):
    """The first record with a time at or after ts, as far as a record three hours early can be from its minute."""
    record = max((ts - T0) // MINUTE - 181, 0) * RECORDS
    while time_of(record) < ts:
        record += 1
    return record


def cli(*args):
    done = subprocess.run([VARVE, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, f"varve {' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr}"
    return done.stdout


def find_times(client, times):
    body = struct.pack(">ii", -1, 1) + text("history") + struct.pack(">i", 1)
    found = []
    for ts in times:
        got = client.ask(2, 1, body + struct.pack(">iq", 0, ts))
        code, at, offset = struct.unpack_from(">hqq", got, len(got) - 18)
        assert code == 0, f"ListOffsets {ts}: error {code}"
        found.append((offset, at))
    return found


def rss_mib(broker):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{broker.pid}/status").read_text())[1]) / 1024


def check_broker(broker, first, last, what):
    """[first, last): the records whose objects are really there."""
    with Client(broker.bootstrap) as client:
        began = time.monotonic()
        got = read(client, first, last)
        assert [o for o, _ in got] == list(range(first, last)), f"read {len(got)} records"
        times = [t for t in (time_of(r) + d for r in range(first, last, 19) for d in (-1, 0, 1)) if first <= truth(t) < last]
        asked = time.monotonic()
        for ts, (offset, at) in zip(times, find_times(client, times)):
            assert offset == truth(ts) and at == time_of(offset), f"{ts}: offset {offset} at {at}, not {truth(ts)}"
        done = time.monotonic()
    print(f"{what}: {len(got)} records in the middle in {(asked - began) * 1e3:.0f} ms, {len(times)} times found, "
          f"{(done - asked) * 1e3 / len(times):.1f} ms each; {rss_mib(broker):.0f} MiB resident")


def read(client, at, end):
    got = []
    while at < end:
        code, _, data = client.fetch("history", 0, at, wait_ms=5000)
        assert code == 0, f"Fetch at {at}: error {code}"
        new = [(o, v) for o, _, v in decode_batches(data) if at <= o < end]
        assert new, f"nothing at offset {at}"
        got += new
        at = new[-1][0] + 1
    return got


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--segments", type=int, default=300000)
    a.add_argument("--verify", action="store_true")
    a = a.parse_args()
    with Scratch() as scratch:
        bucket = scratch.path("bucket")
        settings = {"tier.url": f"fs:{bucket}", "offsets.topic.num.partitions": 1}
        with Client(Varve(scratch, settings, "founder").bootstrap) as client:
            client.create("history", 1, {})
        scratch.started[-1].stop()
        topic = next(t for t in json.loads(pathlib.Path(bucket, "v1/cluster.json").read_text())["topics"] if t["name"] == "history")
        made = subprocess.run([ROOT / "build/history", "--segments", str(a.segments), "--dir", bucket, "--topic", "history",
                               "--topic-id", topic["id"]] + ["--verify"] * a.verify, stdout=subprocess.PIPE, text=True)
        print(made.stdout, end="")
        assert made.returncode == 0, f"build/history: exit {made.returncode}"
        segments = int(re.search(r"^(\d+) segments passed", made.stdout, re.M)[1])
        first = (segments // 2 - WRITTEN_OUT // 2) * RECORDS
        last = first + WRITTEN_OUT * RECORDS
        for what, *args in (("ls", "-o", "json"), ("replay", "--plan", "-t", "history")):
            began = time.monotonic()
            said = cli(what, f"fs:{bucket}", *(["history"] if what == "ls" else []), *args)
            print(f"varve {what}: {time.monotonic() - began:.2f} s")
            assert re.search(rf"\b{segments}\b", said.replace(",", "")), said
        began = time.monotonic()
        lines = cli("replay", f"fs:{bucket}", "-t", "history", "--from", str(first + 5), "--to", str(last - 3)).splitlines()
        print(f"varve replay of {len(lines)} records in the middle: {time.monotonic() - began:.2f} s")
        assert [json.loads(x)["offset"] for x in lines] == list(range(first + 5, last - 3))
        began = time.monotonic()
        broker = Varve(scratch, settings, "restored")
        print(f"a broker on an empty directory: ready after {time.monotonic() - began:.2f} s")
        check_broker(broker, first, last, "restored")
        broker.stop()
        began = time.monotonic()
        broker.start()
        print(f"the same again: ready after {time.monotonic() - began:.2f} s")
        check_broker(broker, first, last, "restarted")
    print(f"{segments} segments: built, restored, read and found; passed")


if __name__ == "__main__":
    main()
