"""care.py — deletion and care: the way back inside the grace, nothing of it after, and what is kept in order meanwhile.
Cases of faults.py."""
import hashlib
import json
import pathlib
import shutil
import struct
import subprocess

from world import ROOT, TOPIC, World, served_again, text, wait_for
from ledger import crc32c  # world.py knows where it lies


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


# ---- the archive, proven

def copy_of(w, name):
    """The bucket as a directory."""
    to = w.scratch.dir / name
    shutil.rmtree(to, ignore_errors=True)
    for key in w.s3.keys():
        at = to / key.removeprefix("p/")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(w.s3.get(key))
    return to


def verify(bucket, *more, code=0):
    done = subprocess.run([ROOT / "build/varve", "verify", f"fs:{bucket}", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code, f"verify {more}: exit code {done.returncode} instead of {code}: {done.stdout}{done.stderr}"
    return done.stdout


def sections(footer):
    at = 0
    while at < len(footer):
        tag, n = footer[at:at + 4], struct.unpack_from(">I", footer, at + 4)[0]
        yield tag, footer[at + 8:at + 8 + n]
        at += 8 + n


def forge(path, chain=None):
    """Another content under every checksum that the object has, its SHA-256 too: what a person with write access can do. Returns the chain
    behind it (and continues `chain` if given, as one would who rewrites the rest as well)."""
    data = bytearray(path.read_bytes())
    n, = struct.unpack_from(">I", data, len(data) - 24)
    size, = struct.unpack_from(">Q", data, len(data) - 16)
    footer, body = bytes(data[size:size + n]), bytearray(data[:size])
    if chain is None:
        body[-20] ^= 1  # inside the last record's value
        at = 0
        while at < len(body):  # batch checksums
            length, = struct.unpack_from(">i", body, at + 8)
            struct.pack_into(">I", body, at + 17, crc32c(bytes(body[at + 21:at + 12 + length])))
            at += 12 + length
    out = b""
    for tag, p in sections(footer):
        p = bytearray(p)
        if tag == b"BLKS":
            for i in range(struct.unpack_from(">I", p)[0]):
                pos, length = struct.unpack_from(">QI", p, 4 + 40 * i)
                struct.pack_into(">I", p, 4 + 40 * i + 12, crc32c(bytes(body[pos:pos + length])))
            struct.pack_into(">I", p, len(p) - 4, crc32c(bytes(p[:-4])))
        if tag == b"LINK":
            p[-32:] = hashlib.sha256(body).digest()
            if chain is not None:
                p[:32] = chain
            after = hashlib.sha256(bytes(p[:32]) + bytes(p[36:])).digest()
        out += tag + struct.pack(">I", len(p)) + p
    trailer = bytearray(data[-32:])
    struct.pack_into(">I", trailer, 12, crc32c(out))
    struct.pack_into(">I", trailer, 28, crc32c(bytes(trailer[:28])))
    path.write_bytes(bytes(body) + out + trailer)
    return after


def segments_of(bucket):
    return sorted(pathlib.Path(bucket).glob("v1/t/*/00000/*.seg"))


def edit_head(bucket, change):
    head, = pathlib.Path(bucket).glob("v1/m/*/00000/head.json")
    o = json.loads(head.read_text())
    o.pop("crc")  # as older versions wrote it
    change(o)
    head.write_text(json.dumps(o))


def case_anchor():
    """A remembered anchor proves history: forged, missing, cut off and rewritten are found and named; growth and retention are not damage."""
    with World() as w:
        w.fill(6).quiet()
        w.broker.stop()
        first = copy_of(w, "first")
        anchors = w.scratch.dir / "anchors"
        anchors.write_text(verify(first))
        assert "cannot be told without an anchor" in anchors.read_text()
        line, = [s for s in anchors.read_text().splitlines() if s.startswith("anchor")]
        hash_then = line.split()[-1]
        w.start()
        w.fill(6).quiet()
        with w.client() as c:
            c.delete_records(TOPIC, 0, 20)
        w.close()
        later = copy_of(w, "later")
        assert "proven " in verify(later, "--anchor", anchors) and "proven " in verify(later, "--anchor", hash_then)
        assert "is no past state" in verify(later, "--anchor", "0" * 64, code=3)
        verify(later, "--anchor", "nonsense", code=2)

        victim = segments_of(later)[3]
        forge(victim)  # every checksum right
        said = verify(later, "--anchor", anchors, code=3)
        assert segments_of(later)[4].name in said and "hash chain" in said and "is no past state" not in said.split("hash chain")[0]
        verify(later, code=3)

        chain = None
        later = copy_of(w, "rewritten")
        for path in segments_of(later)[3:]:  # and everything after it made to fit
            chain = forge(path, chain)
        assert "damaged" in verify(later), "without an anchor it cannot be told"
        assert hash_then in verify(later, "--anchor", anchors, code=3)

        later = copy_of(w, "middle")
        victim = segments_of(later)[3]
        victim.unlink()
        assert victim.name in verify(later, "--anchor", anchors, code=3)
        gone = int(victim.name.split("-")[0])

        def leave_out(o):
            o["segments"] = [s for s in o["segments"] if s["base"] != gone]
        edit_head(later, leave_out)  # the manifest does not name it either
        assert f"offsets {gone}.." in verify(later, "--anchor", anchors, code=3)

        later = copy_of(w, "cut")

        def cut(o):
            o["segments"] = o["segments"][:4]
            o["next_offset"] = o["segments"][-1]["last"] + 1
        edit_head(later, cut)
        for path in segments_of(later)[4:]:
            path.unlink()
        verify(later)
        assert hash_then in verify(later, "--anchor", anchors, code=3)


# ---- what rots

def scrubbed(w, at_least):
    wait_for(f"{at_least} copies are mended", lambda: w.metric("varve_scrub_mended_total") >= at_least, 60)


def rot(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def case_scrub():
    """Rot on the disk is mended from the bucket, rot and loss in the bucket from the disk; what has one copy only is named and read around."""
    with World({"tier.scrub.interval.ms": 300, "tier.scrub.bytes.per.second": 50 << 20, "tier.scrub.local.bytes.per.second": 50 << 20,
                "log.local.retention.bytes": 1 << 20}) as w:
        w.fill(5)
        wait_for("all is in the bucket", lambda: w.metric("varve_partition_tier_lag_bytes", TOPIC) == 0 and len(w.segments()) >= 4, 30)
        objects = [key for _, _, key in w.segments()]
        before = [w.s3.get(key) for key in objects]
        w.s3.put(objects[0], rot(before[0], 1000))
        w.s3.delete(objects[1])
        log = w.local_logs()[2]
        log.write_bytes(rot(log.read_bytes(), 2000))
        scrubbed(w, 3)
        assert [w.s3.get(key) for key in objects] == before, "mended otherwise than it was"
        assert not log.exists(), "the damaged file is still there"
        assert objects[0].split("/")[-1] in w.messages() and objects[1].split("/")[-1] in w.messages()
        w.check()
        varve(w, "topic", "alter", TOPIC, "--set", "local.retention.bytes=1")
        w.quiet()
        damages = w.metric("varve_scrub_damages_total")
        w.s3.put(objects[1], rot(before[1], 3000))
        wait_for("it is reported", lambda: w.metric("varve_scrub_damages_total") > damages, 60)
        first, last, _ = w.segments()[1]
        with w.client() as c:
            assert c.fetch(TOPIC, 0, first)[0] == 2 and c.fetch(TOPIC, 0, last + 1)[0] == 0
        assert "there is no other copy" in w.messages()
        w.s3.put(objects[1], before[1])
        served_again(w, first)
        w.check()
        w.close()


# ---- records that were deleted

def start_of(w):
    with w.client() as c:
        return c.offset(TOPIC, 0, -2)


def objects_below(w, offset):
    return [key for _, last, key in w.segments() if last < offset]


def case_undelete_records():
    """What DeleteRecords removed comes back inside the grace, over kill -9 and a lost disk, and goes for good after it."""
    with World() as w:
        w.fill(6).quiet()
        with w.client() as c:
            assert c.delete_records(TOPIC, 0, 50) == 50
        assert varve(w, "topic", "undelete", TOPIC, "--records") == f"{TOPIC}-0 starts at 0\n"
        w.check()
        w.kill()
        w.start()
        assert start_of(w) == 0
        w.check()
        with w.client() as c:
            assert c.delete_records(TOPIC, 0, 40) == 40
        w.fill(2).quiet()  # footers that say: the log starts at 40
        head = next(k for k in w.s3.keys() if k.endswith("/head.json"))
        wait_for("the manifest follows at once", lambda: json.loads(w.s3.get(head))["log_start"] == 40, 10)
        assert varve(w, "topic", "undelete", TOPIC, "--records") == f"{TOPIC}-0 starts at 0\n"
        w.broker.stop()
        w.lose_disk()
        w.start()
        assert start_of(w) == 0
        with w.client() as c:
            offsets = [o for o, _, _ in c.read_all(TOPIC, 0)]
        assert offsets == list(range(len(offsets))) and len(offsets) >= 112, len(offsets)
        w.close()


def case_deletion():
    """Retention by size and time, and DeleteRecords: tombstoned, kept for the grace, then gone, whatever kill -9 comes between; nothing else."""
    with World({"tier.delete.grace.ms": 6000, "log.retention.check.interval.ms": 200}) as w:
        w.fill(6).quiet()
        all_of_it = w.segments()
        with w.client() as c:
            assert c.delete_records(TOPIC, 0, 33) == 33
        for _ in range(3):  # inside the grace nothing goes
            w.kill()
            w.start()
            assert w.segments() == all_of_it and start_of(w) == 33
        assert varve(w, "topic", "undelete", TOPIC, "--records") == f"{TOPIC}-0 starts at 0\n"
        with w.client() as c:
            assert c.delete_records(TOPIC, 0, 33) == 33
        wait_for("the objects are gone after the grace", lambda: not objects_below(w, 33), 60)
        assert w.segments() == [s for s in all_of_it if s[1] >= 33]
        assert start_of(w) == 33
        first = w.segments()[0][0]
        assert varve(w, "topic", "undelete", TOPIC, "--records") == f"{TOPIC}-0 starts at {first}\n"  # what shares a segment with live ones
        varve(w, "topic", "alter", TOPIC, "--set", "retention.bytes=140000")
        wait_for("retention by size moves the log start", lambda: start_of(w) > 33, 60)
        by_size = start_of(w)
        w.kill()
        w.start()
        assert start_of(w) >= by_size
        wait_for("and their objects go", lambda: not objects_below(w, by_size), 60)
        with w.client() as c:
            c.create("timed", 1, {})
            pid = c.producer_id()
            for i in range(6):  # an idempotent producer's records have times here
                assert c.produce("timed", 0, [b"%06d" % i * 500] * 8, producer=(pid, 0, i * 8))[0] == 0
        w.quiet("timed")
        folder, kept = w.topic_dir("timed"), w.segments()
        assert w.segments(folder)
        varve(w, "topic", "alter", "timed", "--set", "retention.ms=1")
        wait_for("retention by time empties it", lambda: not w.segments(folder), 60)
        assert [s for s in kept if folder not in s[2]] == w.segments(), "another topic's objects went"
        w.close()
