"""merges.py — small objects become bigger ones under a broker that is killed at every step of it. Cases of faults.py."""
import tempfile
import time

from world import TOPIC, World, wait_for

MERGING = {"tier.delete.grace.ms": 1000, "tier.merge.age.ms": 0, "tier.merge.segments.min": 4, "tier.merge.max.bytes.per.second": 1 << 30}
MERGED = r"-0001-[0-9a-f]{16}\.seg$"


def old_small_ones(w):
    """Objects that may be merged when the broker looks next, at its start; it is stopped."""
    w.fill(6).quiet()
    with w.client() as c:
        c.alter(TOPIC, {"segment.bytes": 4 << 20})  # before, what it had was big
    w.broker.stop()
    time.sleep(1.1)  # the age itself is the subject: it is wall time


def merge_kill(w):
    with w:
        merges = 0
        for first, then in ((MERGED, None), (r"/0-[0-9a-f]{64}\.json$", None), (r"/0-[0-9a-f]{64}\.json$", r"head\.json$")):
            for do in ("stall", "stall_after"):
                with w.client() as c:
                    c.alter(TOPIC, {"segment.bytes": 65536})
                old_small_ones(w)
                rule = w.s3.rule("PUT", first, do="stall" if then else do)
                w.start()
                assert rule.reached.wait(60), f"never came: PUT {first}"
                if then:
                    last = w.s3.rule("PUT", then, do=do)
                    rule.release(True)
                    assert last.reached.wait(60), f"never came: PUT {then}"
                w.kill()
                w.s3.clear()
                w.check_bucket()
                w.start()
                wait_for("the merge is finished", lambda: w.metric("varve_tier_merges_total"), 60)
                merges += 1
                w.check()
                w.check_bucket()
        assert merges == 6
        generations = {k.split("-")[-2] for _, _, k in w.segments()}
        assert "0001" in generations, generations
        w.close()


def case_merge_kill():
    """kill -9 before and after the merged object, the list of what it replaced, and the head: nothing is lost or served twice, a stranger too
    finds every record, and the next start finishes it."""
    merge_kill(World(MERGING))


def case_merge_kill_sealed():
    """The same with objects that are compressed and encrypted: an interrupted merge is given up and made anew under another name."""
    with tempfile.NamedTemporaryFile("w", prefix="varve-keys-") as keys:  # readable by its owner only
        keys.write("one AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
        keys.flush()
        merge_kill(World({**MERGING, "tier.compression": "zstd", "tier.encryption": "aes-256-gcm", "tier.encryption.keys.file": keys.name}))
