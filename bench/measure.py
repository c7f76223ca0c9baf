"""measure.py — what bench/run measures with: clients, the machine's state, broker CPU and memory.

The rules (bench/README.md): memory is warmed by writing and deleting a file as large as the run appends, an append probe follows
and is kept with the result; two placements, free and pinned (broker on cpu 0, client on cpu 1); broker CPU seconds per GB beside
every throughput; who measures a latency beside other work does not wait for a core itself.
"""
import contextlib
import functools
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import time
import urllib.request
from concurrent import futures

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/clients"), str(ROOT / "tests/crash")]
from broker import SKIP, wait_for  # noqa: E402
from ledger import Client, Gone  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
VARVE = pathlib.Path(os.environ.get("VARVE", ROOT / "build/varve"))
PROBE_MB_S = 2000  # an append below that ran on fresh pages


class Sizes:
    """How much each step moves. quick: everything in about 40 minutes; full: sizes that outlast a burst of the machine."""

    def __init__(self, quick):
        self.java_1k = 300_000 if quick else 2_000_000
        self.java_100 = 1_500_000 if quick else 10_000_000
        self.raw_mib = 512 if quick else 2048
        self.latency_s = 5 if quick else 20
        self.round_trips = 2000 if quick else 10_000
        self.many = 10_000
        self.both_many = 2000 if quick else 5000
        self.unclean_segment_mib = 16 if quick else 64
        self.cold_mib = 1024 if quick else 2048
        self.tier_mib = 512 if quick else 2048


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def read_bytes(pid):
    """What it has asked read() and pread() for and got, page cache or not."""
    return int(re.search(r"rchar: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text())[1])


@contextlib.contextmanager
def on(cpus):
    """What is started inside runs on these cpus; None: anywhere."""
    before = os.sched_getaffinity(0)
    try:
        if cpus:
            os.sched_setaffinity(0, cpus)
        yield
    finally:
        os.sched_setaffinity(0, before)


FIRST = (os.SCHED_RR, os.sched_param(5))
OTHERS = (os.SCHED_OTHER, os.sched_param(0))


@functools.cache
def may_be_first():
    """Is SCHED_RR permitted here? Told once if not."""
    try:
        os.sched_setscheduler(0, *FIRST)
    except PermissionError:
        print("without SCHED_RR (not permitted): who measures latencies may wait for a core itself", file=sys.stderr)
        return False
    os.sched_setscheduler(0, *OTHERS)
    return True


@contextlib.contextmanager
def first():
    """What this thread starts inside gets a core before all others do (SCHED_RR, inherited); as always where that is not permitted."""
    if may_be_first():
        os.sched_setscheduler(0, *FIRST)
    try:
        yield
    finally:
        if may_be_first():
            os.sched_setscheduler(0, *OTHERS)


@contextlib.contextmanager
def reactors_first(broker):
    """A Varve's reactors in SCHED_RR as well: what it adds by itself, without the scheduler of the cores it shares."""
    tids = [int(t.parent.name) for t in pathlib.Path(f"/proc/{broker.pid}/task").glob("*/comm") if t.read_text().startswith("net-")]
    if not tids:
        raise RuntimeError("no thread is named net-*")
    try:
        for t in tids:
            os.sched_setscheduler(t, *FIRST)
        yield
    finally:
        for t in tids:
            os.sched_setscheduler(t, *OTHERS)


def warm(directory, mib):
    """Host-backed pages for what comes; MB/s of an append onto them. Fresh pages: once more, twice at most."""
    path, block = pathlib.Path(directory) / "warm", b"\xa5" * (1 << 20)
    for _ in range(3):
        with open(path, "wb", buffering=0) as f:
            for _ in range(mib):
                f.write(block)
        os.unlink(path)
        began = time.monotonic()
        with open(path, "wb", buffering=0) as f:
            for _ in range(64):
                f.write(block)
        rate = (64 << 20) / (time.monotonic() - began) / 1e6
        os.unlink(path)
        if rate >= PROBE_MB_S:
            break
    return rate


def first_metadata(broker):
    """Starts it; seconds from exec until a Metadata request is answered."""
    began = time.monotonic()
    broker.start()

    def answered():
        try:
            with Client(broker.bootstrap, 60) as c:
                return c.ask(3, 1, struct.pack(">i", 0))
        except Gone:
            return None

    wait_for("Metadata", answered, every_s=0.002)
    return time.monotonic() - began


# ---- clients ----

def run(command, **more):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def java(jars, tool, *args):
    return run(["java", "-Xms256m", "-Xmx512m", "-cp", f"{jars}/*", f"org.apache.kafka.tools.{tool}", *args])


def java_produce(jars, broker, topic, records, size):
    said = java(jars, "ProducerPerformance", "--topic", topic, "--num-records", records, "--record-size", size, "--throughput", -1,
                "--producer-props", f"bootstrap.servers={broker.bootstrap}", "acks=1", "batch.size=65536", "linger.ms=5")
    rec_s, mib_s = re.findall(r"([\d.]+) records/sec \(([\d.]+) MB/sec\)", said)[-1]
    return float(rec_s), float(mib_s) * 1.048576


def java_consume(jars, broker, topic, records):
    said = java(jars, "ConsumerPerformance", "--bootstrap-server", broker.bootstrap, "--topic", topic, "--messages", records,
                "--timeout", 60000)
    row = said.strip().splitlines()[-1].split(", ")
    if int(float(row[4])) < records:
        raise RuntimeError(f"the consumer saw {row[4]} of {records}")
    return float(row[9]) * int(float(row[4])) / records  # fetch records/s, without the time to join its group


def java_round_trips(jars, broker, topic, count):
    said = java(jars, "EndToEndLatency", broker.bootstrap, topic, count, 1, 1024)
    p50, p99, p999 = re.search(r"50th = (\d+), 99th = (\d+), 99.9th = (\d+)", said).groups()
    return float(p50), float(p99), float(p999)


def varve_bench(what, *args, broker=None, machine=False, env=None, before_others=False):
    """The report of `varve bench`. before_others: an open loop beside work that wants the cores too; what it waited for one itself would be
    told as the broker's latency. Alone it would only take the core from the broker that it wakes."""
    command = [VARVE, "bench", what, "-ojson", *args] + ([] if machine else ["--no-machine"])
    if broker:
        command += ["--bootstrap", broker.bootstrap, "--broker-pid", broker.pid]
    with first() if before_others else contextlib.nullcontext():
        return json.loads(run(command, env=env))


def of(report, section, key):
    return report[section][key]["value"]


def open_syncs_p99(directory, writers, rate, seconds):
    """ms: fdatasync alone as an open loop. Each writer appends 1 KiB to a file of its own whenever that is due and syncs it; from
    when it was due, so a stall counts for all that it held up. As in `varve bench latency`, the first second is not counted."""
    def writer(i):
        path, each, took = pathlib.Path(directory) / f"sync-{i}", writers / rate, []
        with open(path, "wb", buffering=0) as f:
            for k in range(int(seconds / each)):
                due = began + (k + i / writers) * each
                time.sleep(max(0, due - time.monotonic()))
                os.pwrite(f.fileno(), b"\xa5" * 1024, k * 1024)
                os.fdatasync(f.fileno())
                if due >= began + 1:
                    took.append(time.monotonic() - due)
        os.unlink(path)
        return took
    with first(), futures.ThreadPoolExecutor(writers) as pool:
        began = time.monotonic() + 0.1
        took = sorted(t for one in pool.map(writer, range(writers)) for t in one)
    return took[int(len(took) * 0.99)] * 1000


# ---- what is fetched or built once ----

def cache():
    where = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "varve/bench"
    where.mkdir(parents=True, exist_ok=True)
    return where


def rdkafka():
    """The client of rdk.c, built against Debian's librdkafka-dev; None without it."""
    source, program = ROOT / "bench/rdk.c", cache() / "rdk"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        done = subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", program, source, "-lrdkafka"], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            print("without librdkafka: install librdkafka-dev", file=sys.stderr)
            return None
    return program


def local_tiered_storage():
    """Apache Kafka's LocalTieredStorage: the test jar of kafka-storage, by its Maven coordinates. None: cannot be had."""
    jar = cache() / "kafka-storage-4.1.0-test.jar"
    if not jar.exists():
        done = subprocess.run(["mvn", "-q", "-B", "dependency:copy", "-Dartifact=org.apache.kafka:kafka-storage:4.1.0:jar:test",
                               f"-DoutputDirectory={jar.parent}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            print(f"without LocalTieredStorage: {done.stdout[-300:]}", file=sys.stderr)
            return None
    return jar


# ---- the store ----

METRICS_AGE_S = 11  # MinIO answers with what it counted up to ten seconds ago


def store_requests(minio):
    """MinIO's own count: requests by S3 call, bytes it received and sent."""
    time.sleep(METRICS_AGE_S)
    with urllib.request.urlopen(f"{minio.env['MINIO_ENDPOINT']}/minio/v2/metrics/cluster", timeout=30) as page:
        text = page.read().decode()
    calls = {api: float(n) for api, n in re.findall(r'^minio_s3_requests_total\{.*?api="(\w+)".*?\} (\S+)', text, re.M)}
    traffic = [sum(float(n) for n in re.findall(rf"^minio_s3_traffic_{way}_bytes(?:\{{.*?\}})? (\S+)", text, re.M))
               for way in ("received", "sent")]
    return calls, traffic[0], traffic[1]


def copy_lag(broker):
    return sum(v for k, v in broker.metrics().items() if k[0] == "varve_remote_copy_lag_bytes")
