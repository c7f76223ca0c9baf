"""care.py — deletion and care: the way back inside the grace, nothing of it after, and what is kept in order meanwhile.
Cases of faults.py."""
import json
import struct
import subprocess

from world import ROOT, TOPIC, World, text, wait_for


def varve(w, *args, code=0):
    """A command against the world's broker; what it prints."""
    done = subprocess.run([ROOT / "build/varve", *args, "--bootstrap", w.broker.bootstrap], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    assert done.returncode == code, f"varve {' '.join(args)}: exit code {done.returncode}: {done.stderr}"
    return done.stdout if code == 0 else done.stderr


def deleted(w):
    return {d["topic"]: d for d in json.loads(varve(w, "topic", "list", "--deleted", "-o", "json"))}


def confirmed(w, topic=TOPIC):
    """The bucket knows of the deletion."""
    root = json.loads(w.s3.get("p/v1/root.json"))
    return any(d["topic"] == topic for d in root["deleted_topics"])


def commit(c, group, topic, offset):
    body = text(group) + struct.pack(">i", -1) + text("") + struct.pack(">qi", -1, 1) + text(topic) + struct.pack(">iiq", 1, 0, offset) + text("m")
    got = c.ask(8, 2, body)
    assert struct.unpack_from(">h", got, len(got) - 2)[0] == 0


def committed(c, group, topic):
    got = c.ask(9, 1, text(group) + struct.pack(">i", 1) + text(topic) + struct.pack(">ii", 1, 0))
    return struct.unpack_from(">q", got, 4 + 2 + len(topic) + 4 + 4)[0]


def delete(w, topic=TOPIC):
    with w.client() as c:
        c.delete_topic(topic)
    wait_for("the bucket knows of the deletion", lambda: confirmed(w, topic), 30)


def topic_id(w, topic=TOPIC):
    return w.topic_dir(topic).split("/")[-2]


def case_undelete():
    """A deleted topic comes back with id, settings, records (those too that were not in the bucket), log start and committed offsets."""
    with World() as w:
        w.fill(4).quiet()
        before = topic_id(w)
        varve(w, "topic", "alter", TOPIC, "--set", "max.message.bytes=77777")
        with w.client() as c:
            assert c.delete_records(TOPIC, 0, 10) == 10
            commit(c, "readers", TOPIC, 21)
        delete(w)
        assert deleted(w)[TOPIC]["id"] == before and deleted(w)[TOPIC]["state"] == "deleted"
        with w.client() as c:
            c.create(TOPIC, 1, {})
            assert "already exists" in varve(w, "topic", "undelete", before, code=1)
            assert "no deleted topic" in varve(w, "topic", "undelete", "nonesuch", code=1)
            assert c.offset(TOPIC, 0, -1) == 0
        assert varve(w, "topic", "undelete", before, "--as", "back") == "back is back\n"
        assert not deleted(w)
        with w.client() as c:
            records = c.read_all("back", 0)
            assert records[0][0] == 10 and len(records) == 64 - 10, f"{len(records)} records came back"
            assert c.offset("back", 0, -2) == 10 and committed(c, "readers", "back") == 21
            assert c.offset(TOPIC, 0, -1) == 0, "the new topic got records of the old one"
        assert topic_id(w, "back") == before
        assert "77777" in varve(w, "topic", "describe", "back", "--configs")
        w.kill()  # at once: it is durable
        w.start()
        with w.client() as c:
            assert len(c.read_all("back", 0)) == 54
            assert w.ledger_of("back").send(c, "back", 0, 8, 3000) == 0
            assert len(c.read_all("back", 0)) == 62
        w.close()


def case_undelete_lost():
    """After a restart, and after the loss of the disk, a deleted topic comes back from what the bucket has."""
    with World() as w:
        w.fill(4).quiet()
        delete(w)
        w.kill()
        w.start()
        wait_for("told again", lambda: deleted(w).get(TOPIC), 30)
        wait_for("it is back", lambda: not subprocess.run([ROOT / "build/varve", "topic", "undelete", TOPIC, "--bootstrap",
                                                           w.broker.bootstrap], stderr=subprocess.DEVNULL).returncode, 30, 0.5)
        w.check()  # with what never was in the bucket
        w.fill(2).quiet()
        delete(w)
        wait_for("the snapshot knows", lambda: not json.loads(w.s3.get("p/v1/cluster.json"))["topics"] or all(
            t["name"] != TOPIC for t in json.loads(w.s3.get("p/v1/cluster.json"))["topics"]), 30)
        w.broker.stop()
        w.lose_disk()
        w.start()
        wait_for("it is back", lambda: not subprocess.run([ROOT / "build/varve", "topic", "undelete", TOPIC, "--bootstrap",
                                                           w.broker.bootstrap], stderr=subprocess.DEVNULL).returncode, 30, 0.5)
        with w.client() as c:
            offsets = [o for o, _, _ in c.read_all(TOPIC, 0)]
        assert offsets == list(range(len(offsets))) and len(offsets) >= 80, f"{len(offsets)} records came back"
        w.close()


def case_undelete_late():
    """After the grace nothing comes back: refused in words, objects and directories gone, the name used again meanwhile untouched."""
    with World({"tier.delete.grace.ms": 4000}) as w:
        w.fill(3).quiet()
        old = topic_id(w)
        delete(w)
        with w.client() as c:
            c.create(TOPIC, 1, {})
        w.__dict__["ledgers"] = {}
        w.ledger.__init__()
        w.fill(2).quiet()
        new = [k.split("/")[3] for k in w.s3.keys(r"/topic\.json$") if old not in k]
        w.kill()
        w.start()
        wait_for("the objects are gone", lambda: not w.s3.keys(f"/{old}/"), 60)
        wait_for("the entry is gone", lambda: not deleted(w), 60)
        assert "no deleted topic" in varve(w, "topic", "undelete", old, "--as", "back", code=1)
        assert not list(w.broker.log_dir.glob("*-delete")), "a directory stayed"
        assert topic_id(w) == new[0]
        w.check()
        w.close()


def case_gc():
    """What a lost disk left unfinished in the bucket is collected when the log has grown over it; uploads in parts too. The ledger is empty."""
    with World({"tier.gc.interval.ms": 500, "tier.gc.age.ms": 1000, "tier.delete.grace.ms": 1000}) as w:
        w.fill(3).quiet()
        folder = w.topic_dir() + "00000/"
        w.broker.stop()  # a crash would do as well, but then the claim is waited for
        w.lose_disk()
        end = w.segments()[-1][1] + 1
        strays = [f"{folder}{a:020d}-{b:020d}-00000000-0000-{n:016x}.seg" for n, (a, b) in enumerate(
            [(end, end + 15), (end + 16, end + 31), (5, 20)], 1)]
        for key in strays:
            w.s3.put(key, b"half an upload")
        page = w.topic_dir().replace("/v1/t/", "/v1/m/") + "00000/1-" + "0" * 64 + ".json"
        w.s3.put(page, b"{}")
        w.start()
        w.ledger.__init__()
        w.fill(4).quiet()
        wait_for("the strays are collected", lambda: not [k for k in (*strays, page) if k in w.s3.keys()], 15)
        assert w.metric("varve_tier_gc_objects_total") == 4
        with w.client() as c:
            offsets = [o for o, _, _ in c.read_all(TOPIC, 0)]
        assert offsets == list(range(len(offsets))), "a hole"
        w.close()
