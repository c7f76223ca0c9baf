"""read_kcat.py BOOTSTRAP TOPIC — reads a topic from offset 0 with kcat; see dataset.py.

kcat prints every record behind a line of numbers, lengths among them, so that no byte in a record can mislead us."""

import json
import subprocess
import sys

import dataset

FORMAT = r"%p %o %T %K %S\n%k%s"


def exactly(stream, n):
    data = stream.read(n)
    if len(data) != n:
        sys.exit("read_kcat: kcat's output ends within a record")
    return data


def main(bootstrap, topic):
    listing = subprocess.run(["kcat", "-b", bootstrap, "-L", "-J", "-t", topic], stdout=subprocess.PIPE, check=True)
    partitions = [p["partition"] for p in json.loads(listing.stdout)["topics"][0]["partitions"]]
    hashers = {p: dataset.Hasher() for p in partitions}
    kcat = subprocess.Popen(
        [
            "kcat",
            "-C",
            "-b",
            bootstrap,
            "-t",
            topic,
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            FORMAT,
            "-X",
            "check.crcs=true",
        ],
        stdout=subprocess.PIPE,
    )
    for line in kcat.stdout:
        partition, offset, timestamp, key_len, value_len = map(int, line.split())
        key = None if key_len < 0 else exactly(kcat.stdout, key_len)
        value = None if value_len < 0 else exactly(kcat.stdout, value_len)
        hashers[partition].add(offset, timestamp, key, value)
    if kcat.wait():
        sys.exit(f"read_kcat: kcat ended with {kcat.returncode}")
    dataset.report(hashers)


if __name__ == "__main__":
    main(*sys.argv[1:])
