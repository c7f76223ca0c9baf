"""uploads.py — faults 14 to 19: what goes wrong on the way into the bucket."""
import contextlib
import os
import pathlib
import threading
import time

from world import TOPIC, Gone, World, wait_for

PART = 5 << 20  # S3's smallest
LARGE = {"log.segment.bytes": 2 * PART + (1 << 20), "tier.s3.part.bytes": PART, "message.max.bytes": 16 << 20}


# ---- 14: kill -9 at every step of an upload

def killed_at(op, key, do, nth=1, settings=None, size=3000, batches=64, after=None):
    """Stall there, kill, start again: everything closed gets to the bucket, once."""
    with World(settings) as w:
        rule = w.s3.rule(op, key, do, nth=nth, times=1)
        sent = threading.Event()

        def send():
            with contextlib.suppress(Gone, OSError), w.client() as c:
                for _ in range(batches):
                    if rule.reached.is_set():
                        break
                    w.ledger.send(c, TOPIC, 0, 8, size)
            sent.set()

        feeder = threading.Thread(target=send)
        feeder.start()
        assert rule.reached.wait(30), f"{op} {key} was never called ({nth})"
        w.kill()
        feeder.join()
        w.s3.clear()
        w.start().check()
        w.fill(1, size=size).quiet()
        if after:
            after(w)
        w.check()
        w.close()
        if size < PART // 100:
            w.check_bucket()
        w.start().check()
        w.close()


def case_14_small():
    """kill -9 before and after each call of an upload in one piece."""
    for op, key, nth in (("PUT", r"topic\.json$", 1), ("PUT", r"\.seg$", 1), ("PUT", r"\.seg$", 3), ("GET", r"\.seg$", 1),
                         ("GET", r"\.seg$", 2), ("PUT", r"head\.json$", 1)):
        for do in ("stall", "stall_after"):
            killed_at(op, key, do, nth)


def case_14_page():
    """The same where a manifest's entries are folded into a page."""
    for do in ("stall", "stall_after"):
        killed_at("PUT", r"/1-[0-9a-f]{64}\.json$", do, batches=600)


def case_14_multipart():
    """The same for every call of an upload in parts; no part stays behind."""
    for op, nth in (("CREATE", 1), ("PART", 1), ("PART", 3), ("COMPLETE", 1)):
        for do in ("stall", "stall_after"):
            killed_at(op, "", do, nth, settings=LARGE, size=350_000, after=lambda w: wait_for(
                "open uploads are gone", lambda: not w.s3.uploads))


def case_14_delete():
    """kill -9 around the deletion of objects: before and after the manifest that allows it, and the DELETE itself."""
    settings = {"tier.delete.grace.ms": 1}

    for op, key in (("PUT", r"head\.json$"), ("DELETE|DELETE_MANY", "")):
        for do in ("stall", "stall_after"):
            with World(settings) as w:
                w.fill(6).quiet()
                rule = w.s3.rule(op, key, do, times=1)
                with w.client() as c:
                    c.delete_records(TOPIC, 0, 40)
                assert rule.reached.wait(30), f"{op} was never called"
                w.kill()
                w.s3.clear()
                w.start()
                wait_for("the dead objects are gone", lambda: w.segments()[0][1] >= 40)
                with w.client() as c:
                    assert c.offset(TOPIC, 0, -2) == 40
                    records = c.read_all(TOPIC, 0)
                assert [r[0] for r in records] == list(range(40, records[-1][0] + 1)) and records[0][0] == 40
                w.close()


# ---- 15: the store is overloaded

def case_15():
    """503 for all, then for a third: producers and hot readers do not notice, retries back off, the backlog drains."""
    with World(topics=(TOPIC, "hot")) as w:
        storm = w.s3.rule("ANY", do="error")
        w.fill(8)
        rule_hits = storm.hits
        wait_for("uploads are tried", lambda: storm.hits > rule_hits + 5)
        for _ in range(20):
            w.hot_works()
        assert w.local_start() == 0 and len(w.local_logs()) == 8, "local data went while nothing was in the bucket"
        assert w.s3.keys(r"\.seg$") == []
        began, hits = time.monotonic(), storm.hits
        wait_for("the broker goes on trying", lambda: storm.hits >= hits + 3)
        rate = (storm.hits - hits) / max(time.monotonic() - began, 0.01)
        assert rate < 100, f"{rate:.0f} requests a second to a store that answers SlowDown"
        w.s3.remove(storm)
        w.s3.rule("ANY", do="error", share=0.3)
        w.fill(8).quiet()
        w.s3.clear()
        w.check()
        w.close()
        w.check_bucket()


# ---- 16, 17: replies and bytes that get lost

def case_16():
    """Done, but the answer is lost: one referenced copy, no false failure, for every kind of write."""
    with World({"tier.delete.grace.ms": 1}) as w:
        w.s3.rule("PUT", do="drop", share=0.35)
        w.s3.rule("DELETE|DELETE_MANY", do="drop", times=2)
        w.fill(24).quiet()
        with w.client() as c:
            c.delete_records(TOPIC, 0, 40)
        wait_for("the dead objects are gone", lambda: w.segments()[0][1] >= 40)
        w.s3.clear()
        w.ledger.ok = {v: at for v, at in w.ledger.ok.items() if at[1] >= 40}
        w.check()
        w.close()
        w.start().check()
        w.close()


# ---- who gives way when the processor is short

def case_nice():
    """The tier's threads and nobody else's are nicer; those that serve clients stay as they were started."""
    with World({"tier.threads.nice": 7}) as w:
        w.fill(4).quiet()
        found, own = {}, os.getpriority(os.PRIO_PROCESS, 0)
        for task in pathlib.Path(f"/proc/{w.broker.pid}/task").iterdir():
            name = (task / "comm").read_text().strip()
            found.setdefault(name, set()).add(int((task / "stat").read_text().rsplit(")", 1)[1].split()[16]))
        background = {"tier-upload", "tier-keeper", "tier-merger", "tier-scrubber"}
        assert background <= set(found) and {"net-0", "control", "io"} <= set(found), found
        for name, values in found.items():
            nice = name in background | {"store", "disk-cache"}
            assert values == {min(own + 7, 19) if nice else own}, (name, values, own)
        w.close()


def lied_to(do, verify):
    with World({"tier.verify": verify}) as w:
        lie = w.s3.rule("PUT", r"\.seg$", do)
        w.fill(4)
        wait_for(f"the lie ({do}) is told more than once", lambda: lie.hits >= 2)
        assert w.local_start() == 0, f"{do}: the local copy went although the store kept something else"
        w.check()
        w.s3.clear()
        w.quiet()
        w.check()
        w.close()
        w.check_bucket()


def case_17():
    """Acknowledged and not stored, stored in part, stored with other bytes: seen before the local copy goes."""
    for do in ("ignore", "truncate", "alter"):
        lied_to(do, "footer")
    lied_to("lie_altered", "full")


def case_17_twice():
    """Stored with other bytes, and then the next put acknowledged and not stored: what lies under the key is still the bad copy."""
    with World() as w:
        w.s3.rule("PUT", r"\.seg$", "alter", times=1)
        ignored = w.s3.rule("PUT", r"\.seg$", "ignore", nth=1, times=1)
        w.fill(3)
        wait_for("the second put of it was ignored", lambda: ignored.hits == 1)
        w.s3.clear()
        w.fill(2).quiet()
        w.check()
        w.close()
        w.check_bucket()


def case_17_killed():
    """A wrong copy under our key, and the broker dies before it could tell: the next life looks at all of it."""
    with World() as w:
        stall = w.s3.rule("PUT", r"\.seg$", "stall_after", keep="alter")
        w.fill(2)
        assert stall.reached.wait(30)
        w.kill()
        w.s3.clear()
        w.start().quiet()
        w.check()
        w.close()
        w.check_bucket()


# ---- 18: listings that lie

def case_18():
    """A restore whose LIST misses, repeats or invents objects still finds what the manifest names, and nothing else."""
    def invented(keys):
        return sorted(keys + [k.replace("-00000000-", "-00000009-") for k in keys if k.endswith(".seg")])

    lies = {"missing": lambda keys: [], "stale": lambda keys: keys[:-2], "extra": invented, "twice": lambda keys: sorted(keys * 2)}
    for name, change in (*lies.items(), ("endless", None)):
        with World() as w:
            w.fill(6).quiet()
            w.close()
            w.lose_disk()
            w.s3.rule("LIST", do="listing" if change else name, change=change)
            before = w.segments()
            try:
                w.start()
            except RuntimeError:
                assert name == "twice", f"{name}: {w.messages()}"  # refused as nonsense: fine, nothing was claimed wrongly
                w.s3.clear()
                w.broker.process = None
                w.start()
            with w.client() as c:
                assert c.offset(TOPIC, 0, -1) == before[-1][1] + 1, f"{name}: the restored log ends elsewhere"
                records = c.read_all(TOPIC, 0)
            assert [r[0] for r in records] == list(range(before[-1][1] + 1)), name
            w.s3.clear()
            w.close(strict=False)
            assert [k for *_, k in before] == w.s3.keys(r"\.seg$"), f"{name}: objects were deleted by a listing's word"


# ---- 19: uploads in parts that go wrong

def case_19():
    """A part with a wrong ETag, a Complete that says 200 and means no, or does nothing: failures, aborted, tried again."""
    for op, do in (("COMPLETE", "error_body"), ("COMPLETE", "ignore"), ("PART", "wrong_etag"), ("PART", "error"), ("COMPLETE", "drop")):
        with World(LARGE) as w:
            rule = w.s3.rule(op, do=do, times=2, status=400, code="InvalidPart")
            w.fill(1, size=350_000, batches=6).quiet()
            assert rule.hits == 2, f"{op} {do} came {rule.hits} times"
            if do == "ignore":  # it said that it was done: the next life sweeps
                w.close(strict=False)
                w.start()
            wait_for("no upload is open", lambda: not w.s3.uploads)
            w.check()
            w.close()
