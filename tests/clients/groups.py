#!/usr/bin/env python3
"""groups.py [--kafka | --tier fs|minio|libs3] — three members of a group read across the tier border, one is killed:
nothing lost, nothing repeated after its commit.

The topic's older part is in the bucket alone, the newer on the local disk only (so much is checked). Three members
wait for each other; then they read, and one kills itself (SIGKILL) on the very record where one of its partitions
leaves the bucket. The others must take over its partitions and finish. The members' ledgers must then show:
  lost         no offset of any partition is missing
  different    an offset that was read twice has the same bytes, and the bytes are the source's
  repeated     nothing is delivered to anybody after a commit behind it was acknowledged
  out of order offsets within one assignment of a partition rise by one
Once with an eager assignor (range), once with a cooperative one."""

import hashlib
import subprocess
import sys

import broker
import clients
import dataset
from tiered import Reference, chosen

TOPIC = "flights-border"
COLD_SHARE = 0.6
STRATEGIES = ("range", "cooperative-sticky")


class Ledger:
    def __init__(self, scratch, name):
        self.path = scratch.path(name)
        open(self.path, "w").close()

    def lines(self):
        with open(self.path, encoding="ascii") as f:
            return [line.split() for line in f if line.endswith("\n")]

    def owned(self):
        """What the member holds, by its ledger."""
        owned = set()
        for _, word, *rest in self.lines():
            if word == "assigned":
                owned |= set(map(int, rest))
            elif word in ("revoked", "lost"):
                owned -= set(map(int, rest))
        return owned


def check(ledgers, records):
    """The anomalies in the members' ledgers, as text."""
    want = {}
    for partition, _, key, value in records:
        want.setdefault(partition, []).append(hashlib.sha256((key or b"") + b"\0" + value).hexdigest()[:16])
    seen = {p: set() for p in want}
    problems, events, repeats = [], [], 0
    for member, ledger in enumerate(ledgers):
        position = {}
        for at, word, *rest in ledger.lines():
            if word in ("assigned", "revoked", "lost"):
                for p in map(int, rest):
                    position.pop(p, None)
            elif word == "got":
                p, offset = int(rest[0]), int(rest[1])
                if position.get(p, offset) != offset:
                    problems.append(f"out of order: member {member}, {p}: {offset} where {position[p]} was due")
                position[p] = offset + 1
                repeats += offset in seen[p]
                seen[p].add(offset)
                if offset >= len(want[p]) or want[p][offset] != rest[2]:
                    problems.append(f"different: member {member}, {p} {offset}")
                events.append((int(at), 1, p, offset, member))
            elif word == "committed":
                events.append((int(at), 0, int(rest[0]), int(rest[1]), member))
    committed = dict.fromkeys(want, 0)
    for _, got, p, offset, member in sorted(events):
        if not got:
            committed[p] = max(committed[p], offset)
        elif offset < committed[p]:
            problems.append(f"repeated: {p} {offset} to member {member} after a commit of {committed[p]}")
    for p in want:
        missing = sorted(set(range(len(want[p]))) - seen[p])
        if missing:
            problems.append(f"lost: {p}: {len(missing)} offsets, the first {missing[0]}")
        if committed[p] != len(want[p]):
            problems.append(f"{p}: committed {committed[p]} of {len(want[p])}")
    return problems, repeats


def run(scratch, store, strategy, borders, records, ends):
    group, go = f"group-{strategy}", scratch.path(f"go-{strategy}")
    ledgers = [Ledger(scratch, f"ledger-{strategy}-{i}") for i in range(3)]
    die_at = ",".join(f"{p}:{at}" for p, at in borders.items())
    members = [
        subprocess.Popen(
            [
                sys.executable,
                broker.HERE / "group_member.py",
                store.bootstrap,
                group,
                TOPIC,
                ledger.path,
                go,
                strategy,
                die_at if i == 0 else "",
            ]
        )
        for i, ledger in enumerate(ledgers)
    ]

    def alive():
        for i, member in enumerate(members):
            if member.poll() is not None and not (i == 0 and member.returncode == -9):
                raise RuntimeError(f"member {i} ended with {member.returncode}")
        return True

    def balanced():
        alive()
        owned = [ledger.owned() for ledger in ledgers]
        return all(len(o) == 2 for o in owned) and len(set.union(*owned)) == dataset.PARTITIONS

    def finished():
        alive()
        done = dict.fromkeys(ends, 0)
        for ledger in ledgers:
            for _, word, *rest in ledger.lines():
                if word == "committed":
                    done[int(rest[0])] = max(done[int(rest[0])], int(rest[1]))
        return members[0].poll() == -9 and done == ends

    try:
        broker.wait_for("three members with two partitions each", balanced)
        open(go, "w").close()
        broker.wait_for("the member dies at the border and the others finish", finished, every_s=1)
        for member in members[1:]:
            member.terminate()
            member.wait(60)
    finally:
        for member in members:
            if member.poll() is None:
                member.kill()
                member.wait()
    problems, repeats = check(ledgers, records)
    died = next(line for line in reversed(ledgers[0].lines()) if line[1] == "got")
    print(f"{strategy}: killed at {died[2]} {died[3]}, {repeats} records came again", flush=True)
    if borders.get(int(died[2])) != int(died[3]):
        problems.append(f"the member died at {died[2]} {died[3]}, which is no border")
    return problems


def main():
    cache = broker.in_venv("data")
    records = list(dataset.load(cache))
    with broker.Scratch() as scratch:
        store = chosen(scratch, sys.argv[1:])
        reference = isinstance(store, Reference)
        store.create(TOPIC)
        split = int(len(records) * COLD_SHARE)
        clients.produce(store.bootstrap, TOPIC, records[:split])
        store.cold(TOPIC)
        if not reference:
            clients.alter(store.bootstrap, TOPIC, {"local.retention.ms": -2, "local.retention.bytes": -2})
        clients.produce(store.bootstrap, TOPIC, records[split:])
        ends, half = dict.fromkeys(range(dataset.PARTITIONS), 0), dict.fromkeys(range(dataset.PARTITIONS), 0)
        for i, (partition, *_) in enumerate(records):
            ends[partition] += 1
            half[partition] += i < split
        borders = half if reference else store.local_starts(TOPIC)
        if not all(half[p] // 2 < borders[p] <= half[p] for p in ends):
            sys.exit(f"the tier's border is not where it should be: {borders}, written before: {half}")
        problems = []
        for strategy in STRATEGIES:
            problems += run(scratch, store, strategy, borders, records, ends)
        if not reference and store.local_starts(TOPIC) != borders:
            problems.append(f"the border moved: {borders} to {store.local_starts(TOPIC)}")
    print(*problems[:20], f"{len(problems)} anomalies", sep="\n")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
