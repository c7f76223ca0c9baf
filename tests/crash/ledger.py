"""ledger.py — the oracle of every crash test: what was sent, what was acknowledged, what is there afterwards.

A small Kafka client on one socket (Produce 3, Fetch 4, ListOffsets 1, CreateTopics 2, Metadata 1, DescribeConfigs 1,
IncrementalAlterConfigs 0, OffsetCommit 2, OffsetFetch 1; uncompressed batches, CRC checked on the way back), so
that every send has exactly one outcome: ok with its offset, failed by an answer, or unknown because the peer died.
Anomalies have the names of Jepsen's Kafka workload. Python's standard library only.
"""
import ctypes
import socket
import struct
import time

TABLE = []
for _n in range(256):
    for _ in range(8):
        _n = _n >> 1 ^ (0x82F63B78 if _n & 1 else 0)
    TABLE.append(_n)


def isal():
    """ISA-L's CRC-32C, which the broker needs anyway: a hundred times faster where much is sent."""
    try:
        f = ctypes.CDLL("libisal.so.2").crc32_iscsi
    except (OSError, AttributeError):
        return None
    f.restype, f.argtypes = ctypes.c_uint, (ctypes.c_char_p, ctypes.c_int, ctypes.c_uint)
    return f


FAST = isal()


def crc32c(data):
    if FAST:
        return FAST(data, len(data), 0xFFFFFFFF) ^ 0xFFFFFFFF
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def varint(n):
    n, out = (n << 1) ^ (n >> 63), b""
    while n > 127:
        out, n = out + bytes((n & 127 | 128,)), n >> 7
    return out + bytes((n,))


def read_varint(data, at):
    shift = value = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at


def encode_batch(values, producer=(-1, -1, -1)):
    """producer: id, epoch, first sequence."""
    records = b""
    for i, value in enumerate(values):
        record = b"\0" + varint(0) + varint(i) + varint(-1) + varint(len(value)) + value + varint(0)
        records += varint(len(record)) + record
    when = int(time.time() * 1000) if producer[0] >= 0 else 0  # what is known of a producer ages by its records
    tail = struct.pack(">hiqqqhii", 0, len(values) - 1, when, when, *producer, len(values)) + records
    return struct.pack(">qiibI", 0, len(tail) + 9, -1, 2, crc32c(tail)) + tail


def decode_batches(data):
    """(offset, leader epoch, value) of every record; a batch cut at the end is left out; a bad CRC is an error."""
    at = 0
    while at + 61 <= len(data):
        base, length, epoch, magic, crc = struct.unpack_from(">qiibI", data, at)
        end = at + 12 + length
        if end > len(data):
            return
        assert magic == 2 and crc == crc32c(data[at + 21:end]), f"damaged batch was served at offset {base}"
        count = struct.unpack_from(">i", data, at + 57)[0]
        p = at + 61
        for _ in range(count):
            _, p = read_varint(data, p)
            _, p = read_varint(data, p + 1)
            delta, p = read_varint(data, p)
            n, p = read_varint(data, p)
            p += max(n, 0)
            n, p = read_varint(data, p)
            value = data[p:p + n]
            p += n
            headers, p = read_varint(data, p)
            assert headers == 0
            yield base + delta, epoch, value
        at = end


class Gone(Exception):
    """The peer died, or did not answer: the outcome is unknown."""


class Client:
    def __init__(self, bootstrap, timeout_s=60):
        host, port = bootstrap.rsplit(":", 1)
        try:
            self.s = socket.create_connection((host, int(port)), timeout_s)
        except OSError as e:
            raise Gone(str(e)) from e
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def ask(self, key, version, body):
        head = struct.pack(">hhih", key, version, 1, 6) + b"ledger"
        try:
            self.s.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
            data = b""
            while len(data) < 4 or len(data) < 4 + struct.unpack(">i", data[:4])[0]:
                more = self.s.recv(1 << 20)
                if not more:
                    raise Gone("closed")
                data += more
        except OSError as e:
            raise Gone(str(e)) from e
        return data[8:]

    def try_create(self, topic, partitions, configs):
        """The error code."""
        name = topic.encode()
        body = struct.pack(">ih", 1, len(name)) + name + struct.pack(">ihi", partitions, 1, 0) + struct.pack(">i", len(configs))
        for k, v in configs.items():
            body += struct.pack(">h", len(k)) + k.encode() + struct.pack(">h", len(str(v))) + str(v).encode()
        got = self.ask(19, 2, body + struct.pack(">ib", 30000, 0))
        return struct.unpack_from(">h", got, 4 + 4 + 2 + len(name))[0]

    def create(self, topic, partitions, configs):
        code = self.try_create(topic, partitions, configs)
        assert code in (0, 36), f"CreateTopics: error code {code}"

    def topics(self):
        """The names of all topics."""
        got = self.ask(3, 1, struct.pack(">i", -1))
        at, found = 4, set()
        for _ in range(struct.unpack_from(">i", got)[0]):
            at += 4
            n = struct.unpack_from(">h", got, at)[0]
            at += 2 + n + 4
            n = struct.unpack_from(">h", got, at)[0]
            at += 2 + max(n, 0)
        count = struct.unpack_from(">i", got, at + 4)[0]
        at += 8
        for _ in range(count):
            n = struct.unpack_from(">h", got, at + 2)[0]
            found.add(got[at + 4:at + 4 + n].decode())
            at += 4 + n + 1
            partitions = struct.unpack_from(">i", got, at)[0]
            at += 4
            for _ in range(partitions):
                at += 10
                for _ in range(2):
                    at += 4 + 4 * struct.unpack_from(">i", got, at)[0]
        return found

    def config(self, topic, key):
        """The value of one of a topic's configs."""
        name = topic.encode()
        got = self.ask(32, 1, struct.pack(">ibh", 1, 2, len(name)) + name + struct.pack(">ih", 1, len(key)) + key.encode() + b"\0")
        code, n = struct.unpack_from(">hh", got, 8)
        assert code == 0, f"DescribeConfigs: error code {code}"
        at = 12 + max(n, 0) + 1 + 2 + len(name)
        count = struct.unpack_from(">i", got, at)[0]
        at += 4
        for _ in range(count):
            n = struct.unpack_from(">h", got, at)[0]
            found, at = got[at + 2:at + 2 + n].decode(), at + 2 + n
            n = struct.unpack_from(">h", got, at)[0]
            value, at = got[at + 2:at + 2 + max(n, 0)].decode(), at + 2 + max(n, 0) + 3 + 4  # no synonyms
            if found == key:
                return value
        raise AssertionError(f"DescribeConfigs: no {key}")

    def commit(self, group, topic, partition, offset):
        """Commits without a membership; the error code."""
        name, g = topic.encode(), group.encode()
        body = struct.pack(">h", len(g)) + g + struct.pack(">ihqih", -1, 0, -1, 1, len(name)) + name
        got = self.ask(8, 2, body + struct.pack(">iiqh", 1, partition, offset, -1))
        return struct.unpack_from(">h", got, 4 + 2 + len(name) + 4 + 4)[0]

    def committed(self, group, topic, partition):
        """(error code, offset)"""
        name, g = topic.encode(), group.encode()
        got = self.ask(9, 1, struct.pack(">h", len(g)) + g + struct.pack(">ih", 1, len(name)) + name + struct.pack(">ii", 1, partition))
        at = 4 + 2 + len(name) + 4 + 4
        offset, n = struct.unpack_from(">qh", got, at)
        return struct.unpack_from(">h", got, at + 10 + max(n, 0))[0], offset

    def try_alter(self, topic, configs):
        """The error code."""
        name = topic.encode()
        body = struct.pack(">ibh", 1, 2, len(name)) + name + struct.pack(">i", len(configs))
        for k, v in configs.items():
            body += struct.pack(">h", len(k)) + k.encode() + b"\0" + struct.pack(">h", len(str(v))) + str(v).encode()
        got = self.ask(44, 0, body + b"\0")
        return struct.unpack_from(">h", got, 8)[0]

    def alter(self, topic, configs):
        code = self.try_alter(topic, configs)
        assert code == 0, f"IncrementalAlterConfigs: error code {code}"

    def produce(self, topic, partition, values, acks=-1, producer=(-1, -1, -1)):
        """(error code, base offset)"""
        name, batch = topic.encode(), encode_batch(values, producer)
        body = struct.pack(">hhiih", -1, acks, 30000, 1, len(name)) + name + struct.pack(">iii", 1, partition, len(batch)) + batch
        got = self.ask(0, 3, body)
        return struct.unpack_from(">hq", got, 4 + 2 + len(name) + 4 + 4)

    def offset(self, topic, partition, when):
        name = topic.encode()
        got = self.ask(2, 1, struct.pack(">iih", -1, 1, len(name)) + name + struct.pack(">iiq", 1, partition, when))
        code, _, offset = struct.unpack_from(">hqq", got, 4 + 2 + len(name) + 4 + 4)
        assert code == 0, f"ListOffsets: error code {code}"
        return offset

    def fetch(self, topic, partition, offset, max_bytes=1 << 20, wait_ms=500):
        """(error code, high watermark, bytes)"""
        name = topic.encode()
        body = struct.pack(">iiiib", -1, wait_ms, 1, max_bytes, 0) + struct.pack(">ih", 1, len(name)) + name
        got = self.ask(1, 4, body + struct.pack(">iiqi", 1, partition, offset, max_bytes))
        at = 4 + 4 + 2 + len(name) + 4 + 4
        code, high, _, aborted = struct.unpack_from(">hqqi", got, at)
        at += 22 + 16 * max(aborted, 0)
        n = struct.unpack_from(">i", got, at)[0]
        return code, high, got[at + 4:at + 4 + max(n, 0)]

    def read_all(self, topic, partition):
        """Every record from log start to the end, hot and cold: [(offset, epoch, value)]."""
        at, end, found, empty = self.offset(topic, partition, -2), self.offset(topic, partition, -1), [], 0
        while at < end:
            code, _, data = self.fetch(topic, partition, at)
            assert code in (0, 56), f"Fetch at {at}: error code {code}"
            before = at
            for record in decode_batches(data):
                if record[0] >= at:
                    found.append(record)
                    at = record[0] + 1
            empty = empty + 1 if at == before else 0
            if code == 56:
                time.sleep(0.05)  # answered at once: the broker remembers a failed read for three seconds
            assert empty < 120, f"Fetch at {at} of {end}: nothing came"
        return found


class Ledger:
    def __init__(self):
        self.ok, self.failed, self.unknown, self.next = {}, set(), set(), 0

    def send(self, client, topic, partition, count, size, acks=-1, doubt=(), dark=None):
        """Sends one batch of new values and writes down what became of it; raises Gone after noting the unknown.
        doubt: error codes after which the records may be there or not (a disk that failed after the write).
        dark: an event; answers that come after it was set prove nothing (the machine has no power any more)."""
        values = []
        for _ in range(count):
            values.append(b"%d/%d/" % (partition, self.next) + b"v" * size)
            self.next += 1
        try:
            code, base = client.produce(topic, partition, values, acks)
        except Gone:
            self.unknown.update(values)
            raise
        if code == 0 and dark and dark.is_set():
            self.unknown.update(values)
        elif code == 0:
            for i, value in enumerate(values):
                self.ok[value] = (partition, base + i)
        elif code in doubt:
            self.unknown.update(values)
        else:
            self.failed.update(values)
        return code

    def check(self, partition, records, lost_ok=False):
        """records: of one partition. lost_ok: a relaxed mode, where only a prefix must be there."""
        seen, before = {}, None
        for offset, _, value in records:
            assert before is None or offset == before + 1, f"inconsistent-offsets: {offset} after {before}"
            before = offset
            assert value not in seen, f"duplicate: {value[:20]} at {seen[value]} and {offset}"
            seen[value] = offset
            assert value not in self.failed, f"a refused record is there: {value[:20]} at {offset}"
            assert value in self.ok or value in self.unknown, f"a record nobody sent: {value[:20]!r} at {offset}"
        for value, (where, offset) in self.ok.items():
            if where != partition:
                continue
            if value not in seen:
                assert lost_ok, f"lost-write: {value[:20]} acknowledged at {offset}, the log has {len(records)} records up to {before}"
                continue
            assert seen[value] == offset, f"inconsistent-offsets: {value[:20]} acknowledged at {offset}, found at {seen[value]}"
        return len(seen)

    def forget_lost(self, partition, end):
        """After a loss that was allowed: what lay at end and above was taken back, and its offsets are given out again."""
        self.ok = {v: (where, offset) for v, (where, offset) in self.ok.items() if where != partition or offset < end}
