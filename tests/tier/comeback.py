"""comeback.py — a broker without its disk comes back from its bucket: served at once, partitions as they come; no offset is given twice.
Cases of faults.py."""
import struct

from world import TOPIC, World, text, wait_for
from care import commit, committed

NOT_LEADER, NOT_AVAILABLE, STORAGE_ERROR = 6, 15, 56
SLOW = "slow"


def head_of(w, topic):
    return w.topic_dir(topic).replace("/v1/t/", "/v1/m/") + "00000/head.json"


def coordinator(c, group):
    """FindCoordinator: its error code."""
    return struct.unpack_from(">h", c.ask(10, 0, text(group)), 0)[0]


def offset_code(c, topic, when=-1):
    """ListOffsets: its error code."""
    name = text(topic)
    got = c.ask(2, 1, struct.pack(">ii", -1, 1) + name + struct.pack(">iiq", 1, 0, when))
    return struct.unpack_from(">h", got, 4 + len(name) + 4 + 4)[0]


def two_topics():
    return World(topics=(TOPIC, SLOW))


def prepared(w):
    for topic in (TOPIC, SLOW):
        w.fill(4, topic).quiet(topic)
    with w.client() as c:
        end = c.offset(SLOW, 0, -1)
        wait_for("a coordinator", lambda: coordinator(c, "g") == 0)
        commit(c, "g", SLOW, end)
        commit(c, "g", TOPIC, 5)
    w.broker.stop()
    w.lose_disk()
    return end


def took_back(w, c, topic):
    """What was not in the bucket went with the disk. Where the log ends now."""
    end = c.offset(topic, 0, -1)
    w.ledger_of(topic).forget_lost(0, end)
    return end


def case_comeback():
    """One head hangs: the other topic is served, this one takes nothing, also after kill -9; then both are whole."""
    with two_topics() as w:
        end = prepared(w)
        hang = w.s3.rule("GET", head_of(w, SLOW), do="stall")
        w.start()
        hang.reached.wait(30)
        with w.client() as c:
            assert {TOPIC, SLOW} <= set(c.topics())
            took_back(w, c, TOPIC)
            w.fill(2, client=c)  # with the next offsets: the ledger looks
            assert c.produce(SLOW, 0, [b"too early"])[0] == NOT_LEADER
            assert c.fetch(SLOW, 0, 0, wait_ms=0)[0] == NOT_LEADER and offset_code(c, SLOW) == NOT_LEADER
            assert coordinator(c, "g") == NOT_AVAILABLE
            c.create("new", 1, {})
            assert c.produce("new", 0, [b"at once"]) == (0, 0)
        w.kill()
        w.start()  # goes on where it was
        with w.client() as c:
            w.check(client=c)
            assert c.produce("new", 0, [b"again"]) == (0, 1)
            assert c.produce(SLOW, 0, [b"too early"])[0] == NOT_LEADER
        w.s3.clear()
        hang.release()
        with w.client() as c:
            wait_for("it is back", lambda: offset_code(c, SLOW) == 0, 60)
            back = took_back(w, c, SLOW)
            assert 0 < back <= end
            w.fill(2, SLOW, client=c)
            w.check(SLOW, client=c)
            wait_for("a coordinator", lambda: coordinator(c, "g") == 0)
            assert committed(c, "g", TOPIC) == 5 and committed(c, "g", SLOW) == back, "an offset beyond what came back"
        assert not list(w.broker.log_dir.glob("**/varve-restor*")), "marks are left"
        w.kill()
        w.start()
        w.check()
        w.check(SLOW)
        w.close()


def case_comeback_damaged():
    """One head makes no sense: that partition says so and is tried again, nothing else waits for it. It can be deleted."""
    with two_topics() as w:
        prepared(w)
        key = head_of(w, SLOW)
        good = w.s3.get(key)
        w.s3.put(key, b"{ nonsense")
        w.start()
        with w.client() as c:
            took_back(w, c, TOPIC)
            w.fill(2, client=c)
            w.check(client=c)
            wait_for("it says so", lambda: c.produce(SLOW, 0, [b"too early"])[0] == STORAGE_ERROR)
            wait_for("a coordinator", lambda: coordinator(c, "g") == 0)
            assert committed(c, "g", TOPIC) == 5
        assert f"{SLOW}-0 is not back yet" in w.messages()
        w.broker.stop()
        w.start()
        with w.client() as c:
            assert c.produce(SLOW, 0, [b"too early"])[0] in (NOT_LEADER, STORAGE_ERROR)
            w.s3.put(key, good)
            wait_for("it is back", lambda: offset_code(c, SLOW) == 0, 90)
            took_back(w, c, SLOW)
            w.fill(2, SLOW, client=c)
            w.check(SLOW, client=c)
        w.close()


def case_comeback_deleted():
    """A topic that cannot come back is deleted and made anew: nothing of the old one is in the new one."""
    with two_topics() as w:
        prepared(w)
        w.s3.put(head_of(w, SLOW), b"{ nonsense")
        w.start()
        with w.client() as c:
            wait_for("it says so", lambda: c.produce(SLOW, 0, [b"too early"])[0] == STORAGE_ERROR)
            c.delete_topic(SLOW)
            c.create(SLOW, 1, {})
            assert c.produce(SLOW, 0, [b"first"]) == (0, 0)
        w.kill()
        w.start()
        with w.client() as c:
            assert c.offset(SLOW, 0, -1) == 1
            took_back(w, c, TOPIC)
            w.check(client=c)
        w.broker.stop()


def case_comeback_stop():
    """SIGTERM while it comes back: a clean end, and the next start goes on."""
    with two_topics() as w:
        prepared(w)
        hang = w.s3.rule("GET", head_of(w, SLOW), do="blackhole")
        w.start()
        hang.reached.wait(30)
        assert w.broker.stop(patience_s=45) == 0
        w.s3.clear()
        w.start()
        with w.client() as c:
            wait_for("it is back", lambda: offset_code(c, SLOW) == 0, 60)
            took_back(w, c, SLOW)
            took_back(w, c, TOPIC)
            w.check(SLOW, client=c)
            w.check(client=c)
        w.close(strict=False)


def case_comeback_kills():
    """kill -9 again and again while many partitions come back and those that are back are written to: no offset twice, nothing lost."""
    many, n = "many", 40
    with World({"tier.take.over": "true"}) as w:
        ledger = w.ledger_of(many)
        with w.client() as c:
            c.create(many, n, {})
            for p in range(n):
                for _ in range(3):
                    assert ledger.send(c, many, p, 8, 3000) == 0
        wait_for("a segment of each is in the bucket", lambda: len({k.split("/")[-2] for _, _, k in w.segments(f"{w.topic_dir(many)}")}) == n
                 if w.s3.keys(r"/topic\.json$") else False, 60)
        w.broker.stop()
        for p in range(n):
            ledger.forget_lost(p, max(last for _, last, _ in w.segments(f"{w.topic_dir(many)}{p:05d}/")) + 1)
        w.lose_disk()
        for nth in (3, 17, 5, 9, None):
            rule = w.s3.rule("GET", r"/head\.json$|\.seg$", do="stall", nth=nth, times=1) if nth else None
            w.start()
            with w.client() as c:
                if rule:
                    rule.reached.wait(30)
                else:
                    for p in range(n):
                        wait_for("it is back", lambda p=p: c.produce(many, p, [b"-"])[0] != NOT_LEADER, 60)
                codes = {ledger.send(c, many, p, 1, 500) for p in range(n)}
                assert codes <= {0, NOT_LEADER}, codes
            if rule:
                w.kill()
                w.s3.clear()
        with w.client() as c:
            for p in range(n):
                check_dense(ledger, p, c.read_all(many, p))
        w.close(strict=False)


def check_dense(ledger, partition, records):
    """The ledger's look, past this test's own knocking."""
    offsets = [o for o, _, _ in records]
    assert offsets == list(range(len(offsets))), f"partition {partition}: a hole or an offset twice"
    where = {value: o for o, _, value in records if value != b"-"}
    assert len(where) == sum(value != b"-" for _, _, value in records), f"partition {partition}: a record twice"
    for value, (p, offset) in ledger.ok.items():
        assert p != partition or where.get(value) == offset, f"partition {p}: {value[:20]} acknowledged at {offset} is not there"
