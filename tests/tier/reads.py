"""reads.py — faults 25 to 31: damaged and missing objects, deletion and movement under readers, a lost disk."""
import contextlib
import json
import os
import random
import re
import threading
import time

from s3front import S3Front, altered
from world import CORRUPT_MESSAGE, OUT_OF_RANGE, STORAGE_ERROR, TOPIC, Gone, World, decode_batches, served_again, wait_for


# ---- 25, 26: damaged and missing objects

def expect_only(w, segments, bad, what):
    """Offsets of the segment `bad` answer CORRUPT_MESSAGE, all others are served right."""
    with w.client() as c:
        for base, last, _ in segments:
            if (base, last) == bad:
                for _ in range(3):
                    code, _, data = c.fetch(TOPIC, 0, base, wait_ms=2000)
                    assert code == CORRUPT_MESSAGE and not data, f"{what}: offset {base}: code {code}, {len(data)} bytes"
                continue
            at = base
            while at <= last:
                code, _, data = c.fetch(TOPIC, 0, at, max_bytes=65536, wait_ms=2000)
                got = list(decode_batches(data))
                assert code == 0 and got, f"{what}: offset {at}, beside the damage: code {code}"
                for offset, _, value in got:
                    assert w.ledger.ok[value] == (0, offset), f"{what}: another record at {offset}"
                at = got[-1][0] + 1
                if bad[0] <= at <= bad[1]:
                    break


def case_25():
    """A bit, a cut, another segment's bytes, another topic's object, an older version: found by checksum and identity;
    CORRUPT_MESSAGE for that range only, nothing wrong is ever served, and all is well once the object is."""
    with World(topics=(TOPIC, "other")) as w:
        w.fill(6).quiet()
        w.fill(6, "other").quiet("other")
        mine, others = w.segments(w.topic_dir()), w.segments(w.topic_dir("other"))
        base, last, key = mine[2]
        good = w.s3.get(key)
        wrong = {
            "a bit of the data": altered(good), "a bit of the footer": good[:-60] + bytes((good[-60] ^ 4,)) + good[-59:],
            "a bit of the trailer": good[:-1] + bytes((good[-1] ^ 1,)), "cut": good[:-1], "half": good[:len(good) // 2], "empty": b"",
            "the neighbour's": w.s3.get(mine[3][2]), "another topic's": w.s3.get(others[2][2]),
            "zeros": bytes(len(good)),
        }
        for what, bytes_ in wrong.items():
            w.s3.put(key, bytes_)
            w.kill()  # forgets what it has in memory
            w.start()
            expect_only(w, mine, (base, last), what)
        w.s3.put(key, good)
        served_again(w, base)
        w.check()
        w.close()


def case_25_wire():
    """Bytes altered or cut on their way once are fetched again; always: CORRUPT_MESSAGE or KAFKA_STORAGE_ERROR, no bad byte."""
    with World() as w:
        w.fill(6).quiet()
        w.s3.rule("GET", r"\.seg$", "alter", times=1)
        w.check()
        w.kill()
        w.s3.clear()
        w.start()
        for do in ("alter", "truncate"):
            rule = w.s3.rule("GET", r"\.seg$", do)
            with w.client() as c:
                code, seen = 0, 0
                while code == 0:
                    code, _, data = c.fetch(TOPIC, 0, 0, wait_ms=1000)
                    assert not data, f"{do}: bytes were served"
                    seen += 1
                    assert seen < 60, f"{do}: never an error"
                assert code in (CORRUPT_MESSAGE, STORAGE_ERROR), f"{do}: code {code}"
            w.s3.remove(rule)
        served_again(w, 0)
        w.check()
        w.close()


def case_26():
    """Objects deleted behind our back: a typed error and a metric, a crowd that repeats does not reach the bucket each time."""
    with World() as w:
        w.fill(6).quiet()
        segments = w.segments()
        base, last, key = segments[2]
        good = w.s3.get(key)
        w.s3.delete(key)
        expect_only(w, segments, (base, last), "missing")
        assert w.metric("varve_fetch_cold_errors_total") > 0 and w.metric("varve_remote_fetch_errors_total") > 0
        before = w.s3.count("GET", r"\.seg$")
        with w.client() as c:
            began = time.monotonic()
            for _ in range(200):
                assert c.fetch(TOPIC, 0, base, wait_ms=100)[0] == CORRUPT_MESSAGE
            allowed = 4 + 2 * (time.monotonic() - began)
        calls = w.s3.count("GET", r"\.seg$") - before
        assert calls <= allowed, f"{calls} requests to the bucket for 200 fetches of an object that is not there"
        assert "gone from the bucket" in w.messages(), "no word to the operator"
        w.s3.put(key, good)
        served_again(w, base)
        w.check()
        w.close()


# ---- 27: deleted while being read

def case_27():
    """DeleteRecords and DeleteTopic under readers; the topic comes again under its name: whole batches or an error that fits,
    never the other topic's records, and its objects go."""
    with World({"tier.delete.grace.ms": 1}, topics=()) as w:
        for life in range(3):
            with w.client() as c:
                c.create(TOPIC, 1, {})
            w.fill(6).quiet()
            mine, stop, wrong = dict(w.ledger.ok), threading.Event(), []

            def read(mine=mine, stop=stop, wrong=wrong):
                try:
                    with w.client() as c:
                        at = 0
                        while not stop.is_set():
                            code, _, data = c.fetch(TOPIC, 0, at, wait_ms=50)
                            got = list(decode_batches(data))
                            if code not in (0, OUT_OF_RANGE, 3, 6, STORAGE_ERROR):
                                wrong.append(f"error code {code} at {at}")
                            wrong.extend(f"a record of another life at {o}" for o, _, v in got if v not in mine)
                            at = got[-1][0] + 1 if got else 0
                            if code == OUT_OF_RANGE:
                                at = c.offset(TOPIC, 0, -2)
                            if code == 3:
                                break
                except (Gone, AssertionError) as e:
                    if "error code 3" not in str(e):
                        wrong.append(repr(e))

            readers = [threading.Thread(target=read) for _ in range(3)]
            for r in readers:
                r.start()
            with w.client() as c:
                for before in range(10, 90, 10):
                    c.delete_records(TOPIC, 0, before)
                old = w.topic_dir()
                c.delete_topic(TOPIC)
            for r in readers:
                r.join(30)
            stop.set()
            assert not wrong, f"life {life}: {wrong[:3]}"
            w.ledger.ok.clear()
            wait_for("the deleted topic's objects are gone", lambda old=old: not w.s3.keys(old))
        w.close()


def case_27_upload():
    """The log start passes a segment whose upload is under way: its object and its file go all the same."""
    with World({"tier.delete.grace.ms": 1}) as w:
        w.fill(2).quiet()
        before = w.segments()
        rule = w.s3.rule("PUT", r"\.seg$", "stall", times=1)
        w.fill(4)
        assert rule.reached.wait(30)
        with w.client() as c:
            assert c.delete_records(TOPIC, 0, 60) == 60
        wait_for("what was in the bucket goes", lambda: not set(before) & set(w.segments()))
        rule.release(True)
        w.quiet()
        wait_for("the new object goes", lambda: all(last >= 60 for _, last, _ in w.segments()))
        w.close()


# ---- 28: reading on while everything moves

def case_28():
    """Two readers follow from the start while segments close, move to the bucket and leave the disk."""
    with World() as w:
        done, failed = threading.Event(), []

        def follow():
            try:
                with w.client() as c:
                    for _ in range(4):  # from the start again and again: across all borders
                        at = 0
                        while not (done.is_set() and at >= c.offset(TOPIC, 0, -1)):
                            code, _, data = c.fetch(TOPIC, 0, at, wait_ms=100)
                            assert code == 0, f"error code {code} at {at}"
                            for offset, _, value in decode_batches(data):
                                if offset < at:
                                    continue
                                assert offset == at, f"poll-skip: {offset} after {at - 1}"
                                at += 1
                        if not done.is_set():
                            continue
                    assert at == c.offset(TOPIC, 0, -1)
            except (AssertionError, Gone) as e:
                failed.append(repr(e))

        readers = [threading.Thread(target=follow) for _ in range(2)]
        for r in readers:
            r.start()
        w.fill(40)
        done.set()
        for r in readers:
            r.join(120)
            assert not r.is_alive(), "a reader hangs"
        assert not failed, failed
        w.quiet()
        w.check()
        w.close()


# ---- 31: the disk is gone

def case_31():
    """rm -rf, after a clean end and after kill -9: log start and end, topic ids, settings, producer ids, every tiered record; after
    a clean end the groups' offsets too (else they are up to a minute old)."""
    for clean in (True, False):
        with World({"tier.upload.interval.ms": 300}, topics=()) as w:
            with w.client() as c:
                c.create(TOPIC, 1, {"segment.bytes": 131072, "retention.ms": 123456789012})
                c.create("empty", 2, {})
                pids = {c.producer_id() for _ in range(3)}
                wait_for("a coordinator", lambda: c.commit("g", TOPIC, 0, 61) == 0)
            w.fill(8)
            with w.client() as c:
                c.delete_records(TOPIC, 0, 50)
            end = len(w.ledger.ok)
            wait_for("the topic has its name in the bucket", lambda: any(json.loads(w.s3.get(k))["topic"] == TOPIC for k in w.s3.keys(r"/topic\.json$")))
            folder = w.topic_dir()
            wait_for("all of it is in the bucket", lambda: w.segments(folder) and w.segments(folder)[-1][1] == end - 1)
            if clean:
                w.close()
            else:
                w.kill()
            w.lose_disk()
            w.settings["tier.take.over"] = str(not clean).lower()
            w.start()
            with w.client() as c:
                start = c.offset(TOPIC, 0, -2)
                assert start == 50 or (not clean and start <= 50), f"the log starts at {start}"
                assert c.offset(TOPIC, 0, -1) == end, f"the log ends at {c.offset(TOPIC, 0, -1)}, not at {end}"
                assert c.config(TOPIC, "segment.bytes") == "131072" and c.config(TOPIC, "retention.ms") == "123456789012"
                assert not clean or c.committed("g", TOPIC, 0) == (0, 61), f"the group's offset: {c.committed('g', TOPIC, 0)}"
                assert c.offset("empty", 1, -1) == 0
                fresh = {c.producer_id() for _ in range(3)}
                assert min(fresh) > max(pids), f"producer ids {fresh} after {pids}"
                records = c.read_all(TOPIC, 0)
            assert [r[0] for r in records] == list(range(start, end))
            assert all(w.ledger.ok[v] == (0, o) for o, _, v in records), "another record at its offset"
            w.fill(2)
            assert w.topic_dir() == folder, "the topic has another id"
            w.ledger.ok = {v: at for v, at in w.ledger.ok.items() if at[1] >= start}
            w.check()
            w.close()


def case_31_twice():
    """Lost again and again, with kill -9 at a restore's own requests: it begins again and ends right."""
    with World() as w:
        w.fill(6).quiet()
        w.close()
        end = w.segments()[-1][1] + 1
        w.settings["tier.take.over"] = "true"
        for op, key in (("GET", r"cluster\.json$"), ("GET", r"head\.json$"), ("LIST", ""), ("GET", r"\.seg$"), ("PUT", r"root\.json$")):
            for do in ("stall", "stall_after"):
                w.lose_disk()
                rule = w.s3.rule(op, key, do, times=1)
                late = threading.Thread(target=lambda rule=rule: (rule.reached.wait(30), w.kill()))
                late.start()
                with contextlib.suppress(RuntimeError, AttributeError):
                    w.start()
                late.join()
                assert rule.reached.is_set(), f"{op} {key} is not part of a restore"
                w.s3.clear()
                w.start()
                with w.client() as c:
                    assert c.offset(TOPIC, 0, -1) == end
                    assert [r[0] for r in c.read_all(TOPIC, 0)] == list(range(end))
                w.close()


def case_31_damaged():
    """Root, list of topics, manifest or a page of the bucket damaged: a restore refuses by name, or takes what it can prove; it never
    starts an empty log over a history."""
    with World() as w:
        w.fill(300).quiet()
        w.close()
        end = w.segments()[-1][1] + 1
        pages = w.s3.keys(r"/1-[0-9a-f]{64}\.json$")
        assert pages, "no page was written: more segments are needed"
        for key in (*w.s3.keys(r"root\.json$|cluster\.json$|head\.json$"), pages[0]):
            good = w.s3.get(key)
            for what, bad in (("a bit", altered(good)), ("half", good[:len(good) // 2]), ("empty", b""), ("gone", None)):
                if key.endswith("root.json") and what == "gone":
                    continue  # a bucket without a root is a new one
                w.lose_disk()
                w.s3.put(key, bad) if bad is not None else w.s3.delete(key)
                try:
                    w.start()
                except RuntimeError:
                    assert w.broker.process.wait(60) == 1
                    w.broker.process = None
                else:
                    with w.client() as c:
                        listed = TOPIC in c.topics()
                        assert listed, f"{key}, {what}: an empty list of topics"
                        if c.produce(TOPIC, 0, [b"not on an empty log"])[0] == 0:  # its end is known, then
                            w.ledger.failed.add(b"not on an empty log")
                            assert c.offset(TOPIC, 0, -1) == end + 1, f"{key}, {what}: an empty log"
                        else:
                            wait_for("it says so", lambda: c.fetch(TOPIC, 0, 0, wait_ms=0)[0] == STORAGE_ERROR)
                    w.broker.stop()
                w.s3.put(key, good)
        w.lose_disk()
        w.settings["tier.take.over"] = "true"
        w.start()
        w.ledger.forget_lost(0, end)
        assert len(w.check()) == end
        w.close()


def case_30():
    """A crowd of cold readers and a cache that is far too small: everybody gets everything right, memory stays bounded, the hot
    ones go on."""
    with World({"tier.cache.bytes": 1 << 20, "tier.chunk.bytes": 65536}, topics=(TOPIC, "hot")) as w:
        w.fill(60).quiet()
        failed, most, stop = [], [0], threading.Event()

        def read(start):
            try:
                with w.client() as c:
                    at, end, found = start, c.offset(TOPIC, 0, -1), []
                    while at < end:
                        code, _, data = c.fetch(TOPIC, 0, at)
                        assert code == 0, f"error code {code} at {at}"
                        for offset, _, value in decode_batches(data):
                            if offset >= at:
                                assert offset == at and w.ledger.ok[value] == (0, offset), f"{offset} instead of {at}"
                                at += 1
                    del found
            except (AssertionError, Gone, KeyError) as e:
                failed.append(repr(e))

        def look():
            while not stop.is_set():
                most[0] = max(most[0], w.metric("varve_tier_cache_bytes"))
                w.hot_works()
                stop.wait(0.05)

        watcher = threading.Thread(target=look)
        readers = [threading.Thread(target=read, args=(48 * (i % 15),)) for i in range(30)]
        for t in (watcher, *readers):
            t.start()
        for t in readers:
            t.join(120)
            assert not t.is_alive(), "a reader hangs"
        stop.set()
        watcher.join()
        assert not failed, failed[:3]
        assert most[0] <= 2 << 20, f"the cache had {most[0]} bytes, 1 MiB is allowed"
        w.close()


def readable_again(w):
    """A damaged answer is remembered for seconds, and no longer."""
    def all_of_it():
        try:
            with w.client() as c:
                return c.read_all(TOPIC, 0)
        except AssertionError as e:
            if "error code 2" not in str(e) and "nothing came" not in str(e):
                raise
    wait_for("everything can be read again", all_of_it, 30)


def mix(seed, rounds=8):
    """Rounds of random faults, traffic, deletions and kill -9; then all must be well."""
    chance = random.Random(seed)
    writes = [("PUT", do) for do in ("error", "drop", "ignore", "truncate", "alter", "drop_before")]
    others = [("GET", "error"), ("GET", "alter"), ("GET", "truncate"), ("GET", "drop"), ("LIST", "error"), ("ANY", "error"),
              ("DELETE|DELETE_MANY", "drop"), ("DELETE|DELETE_MANY", "error"), ("HEAD", "error")]
    settings = {"tier.delete.grace.ms": chance.choice((1, 1000)), "tier.upload.interval.ms": chance.choice((100, 3600000))}
    with World(settings, s3=S3Front(seed=seed)) as w:
        start = 0
        for _ in range(rounds):
            for op, do in chance.sample(writes, 2) + chance.sample(others, 2):
                w.s3.rule(op, "" if op != "PUT" or do in ("error", "drop", "drop_before") else r"\.seg$", do, share=chance.choice((0.1, 0.3)))
            w.fill(chance.randrange(1, 8))
            with w.client() as c:
                end = c.offset(TOPIC, 0, -1)
                for _ in range(6):
                    at = chance.randrange(start, end)
                    code, _, data = c.fetch(TOPIC, 0, at, max_bytes=65536, wait_ms=200)
                    assert code in (0, CORRUPT_MESSAGE, STORAGE_ERROR), f"error code {code} at {at}"
                    for offset, _, value in decode_batches(data):
                        assert w.ledger.ok[value] == (0, offset), f"another record at {offset}"
                if chance.random() < 0.3:
                    start = chance.randrange(start, end)
                    assert c.delete_records(TOPIC, 0, start) == start
            if chance.random() < 0.5:
                w.kill()
                w.s3.clear()
                w.start()
        w.s3.clear()
        w.s3.cut()
        w.ledger.ok = {v: at for v, at in w.ledger.ok.items() if at[1] >= start}
        w.fill(2)
        w.quiet()
        readable_again(w)
        w.check()
        wait_for("what is dead is gone", lambda: not w.segments() or w.segments()[0][1] >= start)
        w.close()
        w.check_bucket()
        if chance.random() < 0.5:  # and again from the bucket alone
            end = w.segments()[-1][1] + 1
            w.lose_disk()
            w.start()
            w.ledger.forget_lost(0, end)
            w.check()
            w.close()
    w.s3.__exit__()


def case_mix():
    """Twelve seeds of everything at once (VARVE_SEED=N: that one alone)."""
    one = os.environ.get("VARVE_SEED")
    for seed in [int(one)] if one else range(1, 13):
        try:
            mix(seed)
        except Exception as e:
            raise AssertionError(f"seed {seed} (again with VARVE_SEED={seed}): {e}") from e


# ---- 29: a manifest that does not add up

def tampered(change=None, beside=None):
    """A bucket whose manifest (or listing) was changed while nobody looked, its broker's disk lost: (World, the end it should have)."""
    w = World()
    w.__enter__()
    w.fill(6).quiet()
    w.close()
    head = next(k for k in w.s3.keys(r"/head\.json$") if f"/{w.topic_dir().split('/')[-2]}/" in k)
    end = w.segments()[-1][1] + 1
    if change:
        said = json.loads(w.s3.get(head))
        del said["crc"]  # as older versions wrote it
        change(said["segments"])
        w.s3.put(head, json.dumps(said).encode())
    if beside:
        beside(w)
    w.lose_disk()
    return w, end


def case_29():
    """Segments that overlap, come twice, out of order or not at all: refused with the offsets; twins beside the manifest are not seen."""
    def overlap(segments):
        segments[2]["base"] -= 3

    def twice(segments):
        segments.insert(2, dict(segments[1]))

    def gap(segments):
        del segments[2]

    def order(segments):
        segments[1], segments[2] = segments[2], segments[1]

    for change, word in ((overlap, "overlaps"), (twice, "overlaps"), (order, "names no segment|overlaps"), (gap, "names no segment for offsets 32..47")):
        w, _ = tampered(change)
        try:
            w.start()
            with w.client() as c:
                wait_for("it says so", lambda: c.produce(TOPIC, 0, [b"not here"])[0] == STORAGE_ERROR)
            assert re.search(word, w.messages()), f"{change.__name__}: {w.messages()[-2000:]}"
            w.broker.stop()
        finally:
            w.__exit__(None, None, None)

    def twins(w):
        for _, _, key in w.segments()[:3]:
            w.s3.put(key[:-len("0123456789abcdef.seg")] + "0123456789abcdef.seg", w.s3.get(key))

    w, end = tampered(beside=twins)
    w.start()
    w.ledger.forget_lost(0, end)
    assert len(w.check()) == end
    w.close(strict=False)
    w.__exit__(None, None, None)
