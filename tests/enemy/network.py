#!/usr/bin/env python3
"""network.py — what no client sends: broken frames, huge counts, half requests, readers that do not read, ten thousand idle peers.

Each case runs against one broker that must afterwards still answer everybody else, in bounded memory. Faults 40-44 of the
list in docs/reliability.md. Python's standard library only.
"""
import os
import pathlib
import random
import resource
import socket
import struct
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "clients"), str(TESTS / "crash")]
from broker import ROOT, Scratch, Varve  # noqa: E402
from ledger import Client, crc32c, encode_batch  # noqa: E402

API_VERSIONS, METADATA, PRODUCE, FETCH = 18, 3, 0, 1
MIB = 1 << 20


def connect(broker):
    host, port = broker.bootstrap.rsplit(":", 1)
    s = socket.create_connection((host, int(port)), 30)
    s.settimeout(30)
    return s


def frame(key, version, body, flexible=False, correlation=7):
    head = struct.pack(">hhih", key, version, correlation, 4) + b"mean" + (b"\0" if flexible else b"")
    return struct.pack(">i", len(head) + len(body)) + head + body


def answer(s):
    """One response's payload, or None when the peer closed."""
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">i", data[:4])[0]:
        try:
            more = s.recv(65536)
        except ConnectionError:
            return None
        if not more:
            return None
        data += more
    return data[4:]


def alive(broker):
    with connect(broker) as s:
        s.sendall(frame(METADATA, 1, struct.pack(">i", 0)))
        got = answer(s)
        assert got and got[:4] == struct.pack(">i", 7), f"no answer for others: {got!r}"


def rss(broker):
    text = pathlib.Path(f"/proc/{broker.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024


def closed(s):
    """Reads until the broker closes; what it said before."""
    said = b""
    while True:
        try:
            more = s.recv(65536)
        except ConnectionError:
            return said
        if not more:
            return said
        said += more


def bad_lengths(broker):
    before = rss(broker)
    for length in (-1, -(2**31), 2**31 - 1, 101 * MIB, 0, 1, 7):
        with connect(broker) as s:
            s.sendall(struct.pack(">i", length) + b"\0" * 7)
            assert closed(s) == b"", f"length {length} was answered"
    assert rss(broker) - before < 16 * MIB


def tls_hello(broker):
    with connect(broker) as s:
        s.sendall(bytes.fromhex("16030100c8010000c40303") + os.urandom(200))
        assert closed(s) == b""


def half_frames(broker):
    """A length that says 90 MiB, and ten bytes: nothing is allocated for the rest."""
    before, held = rss(broker), []
    for _ in range(200):
        s = connect(broker)
        s.sendall(struct.pack(">i", 90 * MIB) + b"\0\x03\0\x01\0\0\0\0\0\0")
        held.append(s)
    alive(broker)
    assert rss(broker) - before < 32 * MIB, f"{(rss(broker) - before) / MIB:.0f} MiB for half frames"
    for s in held:
        s.close()


def huge_counts(broker):
    before = rss(broker)
    bodies = [
        (METADATA, 1, struct.pack(">i", 2**31 - 1), False),
        (METADATA, 1, struct.pack(">i", -2), False),
        (METADATA, 9, b"\xff\xff\xff\xff\x0f", True),
        (METADATA, 1, struct.pack(">ih", 1, 32767), False),
        (API_VERSIONS, 3, b"\xff\xff\xff\xff\x0f", True),
        (FETCH, 4, struct.pack(">iiiib", -1, 0, 1, 1, 0) + struct.pack(">i", 2**31 - 1), False),
        (PRODUCE, 3, struct.pack(">hhii", -1, 1, 1000, 2**31 - 1), False),
    ]
    for key, version, body, flexible in bodies:
        with connect(broker) as s:
            s.sendall(frame(key, version, body, flexible))
            closed(s)
    tags = 20_000_000  # each one: tag number, size 0
    body = b"\x01\x01" + b"\x80\xda\xc4\x09"
    with connect(broker) as s:
        s.sendall(struct.pack(">i", 14 + 1 + len(body) + 4 * tags) + frame(API_VERSIONS, 3, body, True)[4:])
        try:
            for n in range(0, tags, 1_000_000):
                s.sendall(b"".join(bytes((i & 127 | 128, i >> 7 & 127 | 128, i >> 14 & 127 | 128, i >> 21))
                                   for i in range(n, n + 1_000_000)))
        except OSError:
            pass
        closed(s)
    alive(broker)
    assert rss(broker) - before < 128 * MIB, f"{(rss(broker) - before) / MIB:.0f} MiB after huge counts"


def vectors():
    """(api key, version, flexible, body) of random requests that Kafka's own classes wrote."""
    keys = {}
    for line in (ROOT / "src/wire/gen/messages.c").read_text().splitlines():
        if line.lstrip().startswith('{') and "&vv_schema_" in line and "Request" in line:
            parts = [p.strip(' {}",;&') for p in line.rstrip(" ,;").split(",")]
            name = next(p for p in parts if p.startswith("vv_schema_"))[len("vv_schema_"):]
            keys[name] = (int(parts[0]), parts[-1] if parts[-1].lstrip("-").isdigit() else "32767")
    data, at = (ROOT / "tests/golden/sample.bin").read_bytes(), 0
    while at < len(data):
        n = data[at]
        name = data[at + 1:at + 1 + n].decode()
        version, size = struct.unpack(">hi", data[at + 1 + n:at + 7 + n])
        body = data[at + 7 + n:at + 7 + n + size]
        at += 7 + n + size
        if name in keys:
            key, flexible = keys[name]
            yield key, version, version >= int(flexible), body


def damaged_requests(broker):
    """Every API and version: whole, cut short, with flipped bytes. Closed or answered; never a dead broker, never a hang."""
    chance = random.Random(20261123)
    everything = list(vectors())
    assert len({(k, v) for k, v, _, _ in everything}) > 100, "the vectors were not found"
    sent = 0
    for key, version, flexible, body in everything:
        cuts = {chance.randrange(len(body) + 1) for _ in range(6)} if body else {0}
        cases = [body, *(body[:c] for c in cuts)]
        for _ in range(6):
            broken = bytearray(body or b"\0")
            for _ in range(chance.randrange(1, 4)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            cases.append(bytes(broken))
        for case in cases:
            with connect(broker) as s:
                s.sendall(frame(key, version, case, flexible))
                s.shutdown(socket.SHUT_WR)  # joins and fetches that wait are given up with their connection
                closed(s)
                sent += 1
    alive(broker)
    return sent


def produce(s, topic, records):
    body = struct.pack(">hhiih", -1, 1, 30000, 1, len(topic)) + topic + struct.pack(">iii", 1, 0, len(records)) + records
    s.sendall(frame(PRODUCE, 3, body))
    got = answer(s)
    assert got is not None, "produce was not answered"
    return struct.unpack(">h", got[4 + 4 + 2 + len(topic) + 4 + 4:][:2])[0]


def slow_readers(broker):
    """Peers that ask for megabytes again and again and read nothing: what waits for them is bounded."""
    topic = b"slow"
    with Client(broker.bootstrap) as c:
        c.create(topic.decode(), 1, {})
    with connect(broker) as s:
        one = encode_batch([b"x" * 500_000])
        for _ in range(16):
            assert produce(s, topic, one) == 0
    before, held = rss(broker), []
    body = struct.pack(">iiiib", -1, 100, 1, 50 * MIB, 0) + struct.pack(">ih", 1, len(topic)) + topic + \
        struct.pack(">iiqi", 1, 0, 0, 50 * MIB)
    for _ in range(8):
        s = connect(broker)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.setblocking(False)
        for _ in range(1000):
            try:
                s.send(frame(FETCH, 4, body))
            except BlockingIOError:
                break
        held.append(s)
    alive(broker)
    grown = rss(broker) - before
    assert grown < 8 * 80 * MIB, f"{grown / MIB:.0f} MiB for 8 readers that do not read"
    for s in held:
        s.close()
    alive(broker)
    return f"{grown / MIB:.0f} MiB held for 8 of them"


def bombs(broker):
    """Lies inside of batches: counts, magic, CRC, decompressed size."""
    import gzip

    topic = b"slow"
    good = encode_batch([b"v"])

    def patched(data, at, new, fix=True):
        data = bytearray(data)
        data[at:at + len(new)] = new
        if fix:
            data[17:21] = struct.pack(">I", crc32c(bytes(data[21:])))
        return bytes(data)

    squeezed = gzip.compress(b"\0" * (256 * MIB), 9)
    tail = struct.pack(">hiqqqhii", 1, 0, 0, 0, -1, -1, -1, 1) + squeezed
    bomb = struct.pack(">qiibI", 0, len(tail) + 9, -1, 2, crc32c(tail)) + tail
    cases = {
        "false count": (patched(good, 57, struct.pack(">i", 1000)), {87, 2}),
        "negative count": (patched(good, 57, struct.pack(">i", -1)), {87, 2}),
        "bad CRC": (patched(good, 30, b"\xff", fix=False), {2}),
        "magic 1": (patched(good, 16, b"\x01"), {43, 2, 87}),
        "two batches": (good + good, {87}),
        "cut": (good[:-1], {2, 87}),
        "control batch": (patched(good, 21, struct.pack(">h", 32)), {87}),
        "bomb": (bomb, {87, 10, 2}),
    }
    before = rss(broker)
    for name, (records, codes) in cases.items():
        with connect(broker) as s:
            code = produce(s, topic, records)
            assert code in codes, f"{name}: error code {code}"
    assert rss(broker) - before < 320 * MIB
    with connect(broker) as s:
        assert produce(s, topic, good) == 0


def idle_peers(broker):
    """Ten thousand connections that say nothing: a new client is served, each costs little."""
    want = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (want + 200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    before, held = rss(broker), []
    for _ in range(want):
        held.append(connect(broker))
    alive(broker)
    each = (rss(broker) - before) / want
    for s in held:
        s.close()
    alive(broker)
    assert each < 16 * 1024, f"{each:.0f} bytes for an idle connection"
    return f"{want} idle connections, {each:.0f} bytes each"


def main():
    with Scratch() as scratch:
        broker = Varve(scratch, {"num.partitions": 1})
        for case in (idle_peers, bad_lengths, tls_hello, half_frames, huge_counts, damaged_requests, slow_readers, bombs):
            said = case(broker)
            alive(broker)
            print(f"{case.__name__:18} held{': ' + str(said) if said else ''}", flush=True)
    print("all held; the broker ended cleanly")


if __name__ == "__main__":
    main()
