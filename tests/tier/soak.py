#!/usr/bin/env python3
"""soak.py [--hours H | --minutes M] [--seed N] — one broker that lives long in a bad world.

Without a pause: producers with a ledger, readers hot and cold at random offsets, faults of the bucket that change every
round (one round in four is honest), log starts that move, and kill -9 of the broker now and then. Every value that
comes back is compared with what was acknowledged. After each round that ended with an honest bucket: everything
closed reaches the bucket, everything is read from the log start on, and the process is measured.

Kills end after the first half of the time: the second half is one long life, that growth can be seen.

At the end: the two ledgers (every acknowledged record once at its offset; the bucket holds what its manifests name
and nothing else), and no growth: of two equally long halves of the longest life, the second may not need more memory than
the first by more than 1 MiB an hour plus 8 MiB of noise, nor more descriptors. A life has to last: 40 minutes are the least
that says something about growth; what is shorter says null. A failure prints the seed.
"""
import argparse
import json
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from s3front import S3Front  # noqa: E402
from world import CORRUPT_MESSAGE, OUT_OF_RANGE, STORAGE_ERROR, TOPIC, World, decode_batches, wait_for  # noqa: E402

FAULTS = [("PUT", "error"), ("PUT", "drop"), ("PUT", "drop_before"), ("GET", "error"), ("GET", "alter"), ("GET", "truncate"),
          ("GET", "drop"), ("LIST", "error"), ("HEAD", "error"), ("DELETE|DELETE_MANY", "drop"), ("ANY", "error")]
BAD_SEGMENT = [("PUT", "ignore"), ("PUT", "truncate"), ("PUT", "alter")]  # of segments: proven before a local copy goes
SETTINGS = {"tier.delete.grace.ms": 2000, "tier.upload.interval.ms": 2000, "log.local.retention.bytes": 131072}


def measure(w):
    proc = pathlib.Path(f"/proc/{w.broker.pid}")
    rss = int(next(line for line in (proc / "status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
    return time.monotonic(), rss / 1024, len(list((proc / "fd").iterdir()))


class Soak:
    def __init__(self, w, chance):
        self.w, self.chance, self.start = w, chance, 0
        self.rounds = self.kills = self.reads = self.cold_errors = 0
        self.lives = [[]]

    def misbehave(self):
        self.w.s3.clear()
        if self.chance.random() < 0.25:
            return
        for op, do in self.chance.sample(FAULTS, 3):
            self.w.s3.rule(op, "", do, share=self.chance.choice((0.05, 0.3)))
        op, do = self.chance.choice(BAD_SEGMENT)
        self.w.s3.rule(op, r"\.seg$", do, share=0.2)

    def read_some(self, c):
        end = c.offset(TOPIC, 0, -1)
        for _ in range(12):
            at = self.chance.randrange(self.start, end)
            code, _, data = c.fetch(TOPIC, 0, at, max_bytes=self.chance.choice((4096, 65536, 1 << 20)), wait_ms=300)
            assert code in (0, CORRUPT_MESSAGE, STORAGE_ERROR, OUT_OF_RANGE), f"error code {code} at {at}"
            assert code != OUT_OF_RANGE or at < self.start, f"out of range at {at}, the log starts at {self.start}"
            self.cold_errors += code != 0
            self.reads += 1
            for offset, _, value in decode_batches(data or b""):
                assert self.w.ledger.ok[value] == (0, offset), f"another record at {offset}"

    def keep_short(self, c):
        """The history is kept to some hundred segments, so that an hour is not spent reading it again and again."""
        end = c.offset(TOPIC, 0, -1)
        if end - self.start > 6000:
            self.start = end - 3000
            assert c.delete_records(TOPIC, 0, self.start) == self.start
            self.w.ledger.ok = {v: at for v, at in self.w.ledger.ok.items() if at[1] >= self.start}

    def settle(self):
        self.w.s3.clear()
        self.w.s3.cut()

        def tiered():
            return self.w.metric("varve_partition_tier_lag_bytes", TOPIC) == 0

        wait_for("everything closed is in the bucket", tiered, 180)
        wait_for("damage is forgotten", self.all_there, 60)
        self.lives[-1].append(measure(self.w))

    def all_there(self):
        try:
            self.w.check()
            return True
        except AssertionError as e:
            if "error code 2" not in str(e) and "error code 56" not in str(e) and "nothing came" not in str(e):
                raise
            return False

    def round(self, kills):
        self.rounds += 1
        self.misbehave()
        for _ in range(self.chance.randrange(1, 4)):
            self.w.fill(self.chance.randrange(1, 6))
            with self.w.client() as c:
                self.read_some(c)
        with self.w.client() as c:
            self.keep_short(c)
        if kills and self.chance.random() < 0.04:
            self.kills += 1
            self.w.kill()
            self.w.s3.clear()
            self.w.start()
            self.lives.append([])
        if not self.w.s3.rules or self.rounds % 10 == 0:
            self.settle()

    def growth(self):
        """What the longest life says: (hours, MiB an hour beyond the noise, descriptors more)."""
        life = max(self.lives, key=len)
        if len(life) < 8:
            return None
        life = life[len(life) // 4:]  # caches fill first
        half = len(life) // 2
        first, second = life[:half], life[half:]
        hours = (second[-1][0] - first[0][0]) / 3600
        if hours < 0.25:
            return None  # caches still fill
        more = max(m for _, m, _ in second) - max(m for _, m, _ in first)
        return hours, (more - 8) / hours, max(f for _, _, f in second) - max(f for _, _, f in first)


def run(seconds, seed):
    began = time.monotonic()
    with World(SETTINGS, s3=S3Front(seed=seed)) as w:
        s = Soak(w, random.Random(seed))
        w.fill(2)
        while time.monotonic() < began + seconds or s.rounds < 5:
            s.round(kills=time.monotonic() < began + seconds / 2)
        s.settle()
        grown = s.growth()
        wait_for("what is dead is gone", lambda: not w.segments() or w.segments()[0][1] >= s.start, 60)
        w.close()
        w.check_bucket()
        w.s3.__exit__()
    said = {"seed": seed, "rounds": s.rounds, "kills": s.kills, "reads": s.reads, "refused_reads": s.cold_errors,
            "records": w.ledger.next, "growth": grown and {"hours": round(grown[0], 2), "mib_per_hour_beyond_noise": round(grown[1], 2), "descriptors": grown[2]}}
    print(json.dumps(said))
    assert grown is None or (grown[1] <= 1 and grown[2] <= 4), f"it grows: {grown}"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--hours", type=float, default=0)
    p.add_argument("--minutes", type=float, default=0)
    p.add_argument("--seed", type=int, default=int(time.time()))
    a = p.parse_args()
    try:
        run((a.hours * 60 + a.minutes) * 60, a.seed)
    except Exception:
        print(f"again with --seed {a.seed}", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
