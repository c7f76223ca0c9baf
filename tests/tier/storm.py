#!/usr/bin/env python3
"""storm.py [--minutes M] — fault 15 in full: the store answers SlowDown to every call for ten minutes, then to 30 % of them.

Four producers send steadily all the time, a quarter of the time before on an honest store. What must hold, and is asserted:
    - producers are never refused, and what they sent is there (the ledger);
    - nothing local goes that the bucket does not have, at any look;
    - the calls to the store get fewer while it refuses all of them;
    - at 30 % the uploads go on; after either storm the backlog is gone within twice the storm, with the producers still sending;
    - after a quiet end the bucket holds what its manifests name and nothing else.
Times of produce calls are printed by phase, with the machine's load: how they compare is for who reads them to judge.
"""
import argparse
import os
import pathlib
import sys
import threading
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]
from world import ROOT, World, wait_for  # noqa: E402

TOPICS = ("t", "t1", "t2", "t3")
PAUSE_S, RECORDS, SIZE = 0.2, 4, 1024  # a batch of a topic: 20 KiB/s each
SETTINGS = {"log.segment.bytes": 131072}


class Steady(threading.Thread):
    """Sends one batch after the other to a topic, one every PAUSE_S; late ones are not caught up with."""

    def __init__(self, w, topic):
        super().__init__(name=topic, daemon=True)
        self.w, self.topic, self.ledger, self.times = w, topic, w.ledger_of(topic), []
        self.over, self.error = threading.Event(), None
        self.start()

    def run(self):
        try:
            with self.w.client() as c:
                at = time.monotonic()
                while not self.over.is_set():
                    began = time.monotonic()
                    code = self.ledger.send(c, self.topic, 0, RECORDS, SIZE)
                    self.times.append((began, time.monotonic() - began))
                    assert code == 0, f"{self.topic}: Produce: error code {code}"
                    at = max(at + PAUSE_S, time.monotonic() - PAUSE_S)
                    self.over.wait(max(at - time.monotonic(), 0))
        except BaseException as e:
            self.error = e


class Storm:
    def __init__(self, w):
        self.w = w
        self.steady = [Steady(w, topic) for topic in TOPICS]

    def look(self):
        """What must hold at every moment. The bucket is asked last: it only grows."""
        starts = {topic: self.w.local_start(topic) for topic in TOPICS}
        for topic, start in starts.items():
            there = self.w.segments(self.dirs[topic]) if start else []
            assert not start or there[-1][1] + 1 >= start, f"{topic}: local data below {start} went, the bucket ends at {there[-1:]}"
        for s in self.steady:
            if s.error:
                raise s.error

    def phase(self, name, seconds, slices=10):
        """seconds of it; [(when, calls of the store until then)]."""
        began, before, calls, seen = time.monotonic(), len(self.w.s3.calls), [], []
        for i in range(slices):
            first = len(self.w.s3.calls)
            while time.monotonic() < began + seconds * (i + 1) / slices:
                self.look()
                time.sleep(0.25)
                seen.append((time.monotonic(), len(self.w.s3.calls) - before))
            calls.append(len(self.w.s3.calls) - first)
        self.note(name, began, calls)
        return seen

    def note(self, name, began, calls=()):
        took = sorted(t for s in self.steady for at, t in s.times if at >= began)
        p50, p99 = (took[len(took) * part // 100] * 1000 if took else 0 for part in (50, 99))
        print(f"{name:18} {time.monotonic() - began:6.0f} s  {len(took):6} batches  produce p50 {p50:.2f} p99 {p99:.2f} ms  "
              f"load {os.getloadavg()[0]:.1f}  lag {self.lag() >> 20} MiB  calls {list(calls)}", flush=True)

    def lag(self):
        return int(sum(self.w.metric("varve_partition_tier_lag_bytes", topic) for topic in TOPICS))

    def drained(self, name, most_s):
        """What had been closed by now is in the bucket and only there."""
        began = time.monotonic()
        ends = {topic: int(self.w.local_logs(topic)[-1].stem) for topic in TOPICS}
        wait_for(f"{name}: the backlog is gone", lambda: self.look() or all(self.w.local_start(t) >= ends[t] for t in TOPICS), most_s, 0.2)
        self.note(name, began)
        return time.monotonic() - began


def falls(seen):
    """Fewer calls a second in the second half than in the ten seconds after the first one."""
    first = next((t, n) for t, n in seen if n)
    after = next((t, n) for t, n in seen if t >= min(first[0] + 10, seen[len(seen) // 2][0]))
    middle, last = seen[len(seen) // 2], seen[-1]
    early, late = after[1] / (after[0] - first[0]), (last[1] - middle[1]) / (last[0] - middle[0])
    print(f"calls a second: {early:.2f} at first, {late:.2f} later")
    assert late < early, "the calls to a store that refuses them do not get fewer"


def segments_in(w):
    return len(w.s3.keys(r"\.seg$"))


def run(minutes):
    seconds = minutes * 60
    with World(SETTINGS, topics=TOPICS) as w:
        storm = Storm(w)
        wait_for("every topic is in the bucket", lambda: segments_in(w) and len(w.s3.keys(r"/topic\.json$")) == len(TOPICS))
        storm.dirs = {topic: w.topic_dir(topic).replace("/v1/m/", "/v1/t/") for topic in TOPICS}
        storm.phase("honest", seconds / 4)

        rule = w.s3.rule("ANY", do="error")
        before = segments_in(w)
        seen = storm.phase("all refused", seconds)
        assert segments_in(w) == before and rule.hits > 10, "the storm did not come"
        closed = sum(len(w.local_logs(topic)) - 1 for topic in TOPICS)
        assert closed * 131072 > 0.7 * storm.lag() > 0, f"{closed} closed segments kept, {storm.lag()} bytes wait"
        falls(seen)
        w.s3.remove(rule)
        drain = storm.drained("drained", 2 * seconds)
        storm.phase("honest again", seconds / 4)

        rule, before = w.s3.rule("ANY", do="error", share=0.3), segments_in(w)
        storm.phase("30 % refused", seconds)
        assert rule.hits > 10 and segments_in(w) > before, "at 30 % nothing gets through"
        w.s3.remove(rule)
        drain30 = storm.drained("drained of 30 %", 2 * seconds)

        for s in storm.steady:
            s.over.set()
        for s in storm.steady:
            s.join()
        storm.look()
        for topic in TOPICS:
            w.quiet(topic)
        records = sum(len(w.check(topic)) for topic in TOPICS)
        w.close()
        print(f"{records} records, all there; {minutes} minutes of refusals were drained in {drain:.0f} s, of 30 % in {drain30:.0f} s")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--minutes", type=float, default=10, help="how long each of the two storms is")
    a = p.parse_args()
    if not (ROOT / "build/varve").exists():
        print("SKIP: there is no build/varve: make build")
        sys.exit(77)
    run(a.minutes)


if __name__ == "__main__":
    main()
