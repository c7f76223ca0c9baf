"""store.py — faults 20 to 23: a store that refuses, vanishes, crawls, is silent or cannot do something; two writers."""
import json
import os
import json
import subprocess
import struct
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from s3front import S3Front
from world import ROOT, STORAGE_ERROR, TOPIC, Varve, World, served_again, wait_for


# ---- 20, 21: the store refuses, or is another

def case_20():
    """Credentials revoked and rotated: nothing is lost, it shows, the new ones are taken without a restart; no secret anywhere."""
    with World(start=False, topics=(TOPIC, "hot")) as w:
        secret = "planted-secret-of-the-file"
        file = w.scratch.dir / "credentials"

        def write(who):
            fresh = w.scratch.dir / "credentials.new"
            fresh.write_text(f"[default]\naws_access_key_id = {who}\naws_secret_access_key = {secret}\n")
            fresh.chmod(0o600)
            fresh.rename(file)

        write("first")
        w.settings["AWS_ACCESS_KEY_ID"] = w.settings["AWS_SECRET_ACCESS_KEY"] = ""
        w.settings["AWS_SHARED_CREDENTIALS_FILE"] = str(file)
        w.s3.keys_allowed = {"first"}
        w.start()
        with w.client() as c:
            for topic in w.topics:
                c.create(topic, 1, {})
        w.fill(3).quiet()
        w.s3.keys_allowed = {"second"}
        start = w.local_start()
        w.fill(4)
        wait_for("it shows", lambda: w.metric("varve_tier_store_up") == 0 and w.metric("varve_remote_copy_errors_total") > 0)
        w.hot_works()
        assert w.local_start() == start and len(w.local_logs()) >= 4
        write("second")
        w.quiet()
        w.check()
        with w.client() as c:
            assert secret.encode() not in c.ask(32, 1, struct.pack(">ibh", 1, 4, 1) + b"1" + struct.pack(">ib", -1, 1))
        assert w.metric("varve_tier_store_up") == 1
        page = "".join(map(str, w.broker.metrics()))
        assert secret not in w.messages() and secret not in page
        w.close()


class Giver(BaseHTTPRequestHandler):
    """Instance metadata (IMDSv2) and STS, in imitation: gives out the credentials of the moment, good for a few seconds."""

    protocol_version = "HTTP/1.1"
    who, calls, down, token = "first", None, False, ""
    SECRET = "planted-secret-of-the-service"

    def log_message(self, *_):
        pass

    def say(self, status, body):
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        front, roles = type(self), "/latest/meta-data/iam/security-credentials/"
        front.calls.append((self.command, self.path, body))
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
        if front.down:
            self.say(500, "")
        elif (self.command, self.path) == ("PUT", "/latest/api/token"):
            self.say(200 if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else 400, "session-token")
        elif self.command == "GET" and self.headers["X-aws-ec2-metadata-token"] != "session-token":
            self.say(401, "")
        elif (self.command, self.path) == ("GET", roles):
            self.say(200, "archive-role")
        elif (self.command, self.path) == ("GET", roles + "archive-role"):
            self.say(200, json.dumps({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": front.who, "SecretAccessKey": self.SECRET,
                                      "Token": "token-of-" + front.who, "Expiration": until}))
        elif (self.command, self.path) == ("POST", "/"):
            asked = dict(urllib.parse.parse_qsl(body, strict_parsing=True))
            want = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": "arn:aws:iam::1:role/archive",
                    "RoleSessionName": "varve", "WebIdentityToken": front.token}
            self.say(200 if asked == want else 403, f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{front.who}</AccessKeyId><SecretAccessKey>{self.SECRET}</SecretAccessKey>
  <SessionToken>token-of-{front.who}</SessionToken><Expiration>{until}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>""")
        else:
            self.say(404, "")

    do_GET = do_PUT = do_POST = serve


def given_out(more, change):
    """A broker whose credentials come from a service: they are renewed before their end, an outage of the service is lived through, new
    ones are taken, and no secret shows."""
    giver = type("Bound", (Giver,), {"calls": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), giver)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        with World(start=False, topics=(TOPIC, "hot")) as w:
            none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
            w.settings.update({**none, **more(w, giver, f"http://127.0.0.1:{server.server_address[1]}")})
            w.s3.keys_allowed = {"first"}
            w.start()
            with w.client() as c:
                for topic in w.topics:
                    c.create(topic, 1, {})
            w.fill(3).quiet()
            asked = len(giver.calls)
            wait_for("they are renewed before their end", lambda: len(giver.calls) > asked)
            giver.down = True
            asked = len(giver.calls)
            wait_for("the service is asked in vain", lambda: len(giver.calls) > asked)
            w.fill(2).hot_works()
            change(giver)
            giver.who, giver.down, w.s3.keys_allowed = "second", False, {"second"}
            w.quiet()
            w.check()
            puts = [h for (op, key), h in w.s3.headers.items() if op == "PUT" and key.endswith(".seg")]
            assert all(h["x-amz-security-token"].startswith("token-of-") for h in puts) and puts
            assert giver.SECRET not in w.messages() and "token-of-" not in w.messages() and "session-token" not in w.messages()
            w.close()
    finally:
        server.shutdown()
        server.server_close()


def case_20_metadata():
    """Credentials of the instance's role, by IMDSv2."""
    given_out(lambda w, giver, url: {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url + "/"}, lambda giver: None)


def case_20_web_identity():
    """Credentials for a web identity token, by STS; the token is replaced in its file."""
    def more(w, giver, url):
        giver.file, giver.token = w.scratch.dir / "token", "header.payload+/=.signature"
        giver.file.write_text(giver.token + "\n")
        return {"AWS_ROLE_ARN": "arn:aws:iam::1:role/archive", "AWS_WEB_IDENTITY_TOKEN_FILE": str(giver.file), "AWS_ENDPOINT_URL_STS": url}

    def change(giver):
        giver.token = "another.token"
        giver.file.write_text(giver.token)

    given_out(more, change)


def case_20_start():
    """At start: wrong credentials, no bucket, nobody there, none at all: a clear word and exit code 1."""
    with World(start=False) as w:
        w.s3.keys_allowed = {"somebody else"}
        said = w.refused(name="wrong-key")
        assert "403" in said or "InvalidAccessKeyId" in said, said
        assert "planted-secret" not in said
        w.s3.keys_allowed = None
        said = w.refused(name="no-bucket", **{"tier.url": "s3://not-this-one/p"})
        assert "NoSuchBucket" in said, said
        said = w.refused(name="nobody", patience_s=120, **{"tier.s3.endpoint": "http://127.0.0.1:1"})
        assert "127.0.0.1:1" in said or "onnect" in said, said
        none = {**{k: "" for k in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}, "AWS_EC2_METADATA_DISABLED": "true"}
        said = w.refused({**none, "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}, name="no-key")
        assert "credentials" in said, said


def case_21():
    """The bucket vanishes: nothing local goes, hot traffic goes on, and it resumes when the bucket is back."""
    with World(topics=(TOPIC, "hot")) as w:
        w.fill(3).quiet()
        w.s3.bucket, start = "elsewhere", w.local_start()
        w.fill(4)
        wait_for("uploads fail", lambda: w.metric("varve_remote_copy_errors_total") > 0)
        w.hot_works()
        assert w.local_start() == start and len(w.local_logs()) >= 4
        w.s3.bucket = "bucket"
        w.quiet()
        w.check()
        w.close()
    with World() as w:  # emptied while we were away: not a fresh one
        w.fill(3).quiet()
        w.close()
        kept, w.s3.objects = w.s3.objects, {}
        said = w.refused(name="emptied", **{"data.dir": str(w.data())})
        assert "root" in said, said
        assert w.s3.objects == {}, "something was written to a bucket that lost its root"
        w.s3.objects = kept
        w.start().check()
        w.close()


def case_protection():
    """Storage class and server-side encryption are asked for, in one put and in parts; only segments get the class; bad ones are refused."""
    asked = {"tier.s3.storage.class": "STANDARD_IA", "tier.s3.sse": "sse-kms", "tier.s3.sse.kms.key.id": "arn:aws:kms:x:1:key/2"}
    with World({**asked, "tier.s3.part.bytes": 5 << 20, "log.segment.bytes": 11 << 20}, topics=("big", TOPIC)) as w:
        with w.client() as c:
            c.alter(TOPIC, {"segment.bytes": 65536})
        w.fill(2).quiet()
        w.fill(1, "big", size=100000, batches=18).quiet("big")
        kms = {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:x:1:key/2"}
        puts = {(op, key): h for (op, key), h in w.s3.headers.items() if op in ("PUT", "CREATE")}
        assert {op for op, _ in puts} == {"PUT", "CREATE"}, puts.keys()
        for (op, key), h in puts.items():
            sent = {k: v for k, v in h.items() if k.startswith("x-amz-server-side") or k == "x-amz-storage-class"}
            assert sent == ({**kms, "x-amz-storage-class": "STANDARD_IA"} if key.endswith(".seg") else kms), (op, key, sent)
            assert all(name in h["authorization"] for name in sent), "signed"
        others = [h for (op, _), h in w.s3.headers.items() if op not in ("PUT", "CREATE")]
        assert others and not any("x-amz-server-side-encryption" in h or "x-amz-storage-class" in h for h in others)
        w.check()
        w.check("big")
        said = w.refused(name="glacier", **{"tier.s3.storage.class": "GLACIER"})
        assert "GLACIER_IR" in said, said
        said = w.refused(name="key", **{"tier.s3.sse": "none"})
        assert "sse-kms" in said, said
        w.close()


# ---- 22: slow, and silent

def case_22_slow():
    """One partition's uploads crawl: the other's go on, and so does everything hot."""
    with World(topics=(TOPIC, "other", "hot")) as w:
        w.fill(2).quiet()
        crawl = w.s3.rule("PUT", w.topic_dir() + r".*\.seg$", "slow", rate=1024)
        w.fill(3)
        wait_for("the slow upload is under way", lambda: crawl.hits > 0)
        w.fill(6, "other").quiet("other", 30)
        w.hot_works()
        assert w.metric("varve_partition_tier_lag_bytes", TOPIC) > 0, "the slow one was not slow"
        w.check("other")
        w.s3.clear()
        w.s3.cut()
        w.quiet()
        w.check()
        w.close()


def case_22_blackhole():
    """A store that takes requests and never answers: cold reads are empty within max wait, then KAFKA_STORAGE_ERROR after
    tier.fetch.deadline.ms, never before; hot traffic goes on; afterwards all is well without a restart."""
    with World({"tier.fetch.deadline.ms": 3000}, topics=(TOPIC, "hot")) as w:
        w.fill(6).quiet()
        w.s3.rule("ANY", do="blackhole")
        with w.client() as c:
            began, codes = time.monotonic(), []
            while not codes or (codes[-1] == 0 and time.monotonic() - began < 60):
                asked = time.monotonic()
                code, _, data = c.fetch(TOPIC, 0, 0, wait_ms=300)
                assert not data and time.monotonic() - asked < 3, "an answer long after max wait"
                codes.append(code)
                if len(codes) == 2:
                    w.hot_works()
            took = time.monotonic() - began
            assert codes[-1] == STORAGE_ERROR, f"error code {codes[-1]}"
            assert len(codes) > 2 and took > 2.5, f"KAFKA_STORAGE_ERROR after {took:.1f} s, the deadline is 3 s: {codes}"
            w.hot_works()
        w.s3.clear()
        w.s3.cut()
        served_again(w, 0)
        w.check()
        w.close()


def case_22_stop():
    """SIGTERM while the store is silent: a bounded, clean end; nothing was lost."""
    with World() as w:
        w.fill(3).quiet()
        hole = w.s3.rule("ANY", do="blackhole")
        w.fill(3)
        wait_for("an upload hangs", lambda: hole.hits > 0)
        assert w.broker.stop(patience_s=45) == 0
        w.s3.clear()
        w.start().quiet()
        w.check()
        w.close()


# ---- 23: a store that ignores conditions

def case_23():
    """If-None-Match and If-Match are ignored: found out at start and said; the rest holds."""
    with World(start=False) as w:
        w.s3.conditions = False
        w.start()
        assert "no conditional writes" in w.messages()
        with w.client() as c:
            c.create(TOPIC, 1, {})
        w.s3.rule("PUT", do="drop", share=0.3)
        w.fill(8).quiet()
        w.s3.clear()
        w.check()
        w.kill()
        w.start().fill(2).quiet()
        w.check()
        w.close()
        w.check_bucket()


def case_mute():
    """A store that looks at no checksum and has ETags of its own: every upload is read back, an altered one is put again."""
    with World(start=False) as w:
        w.s3.sums = False
        w.start()
        with w.client() as c:
            c.create(TOPIC, 1, {})
        lie = w.s3.rule("PUT", r"\.seg$", "alter_unsaid", times=2)
        w.fill(5).quiet()
        assert lie.hits == 2 and "did not keep" in w.messages()
        w.check()
        w.close()
        w.check_bucket()


# ---- varve doctor

def doctor(w, *more):
    settings = {k: v for k, v in w.s3.settings().items() if k.startswith("tier.s3.")}
    done = subprocess.run([ROOT / "build/varve", "doctor", w.s3.settings()["tier.url"], "-o", "json", *more,
                           *(x for k, v in settings.items() for x in ("--set", f"{k}={v}"))],
                          capture_output=True, text=True, timeout=120,
                          env={**os.environ, **{k: v for k, v in w.s3.settings().items() if k.startswith("AWS_")}})
    return done.returncode, {row["check"]: row["ok"] for row in json.loads(done.stdout)}, done.stdout


def case_doctor():
    """What the doctor says of an honest store, of ones that lack something, of one that is away; it leaves nothing behind."""
    with World(start=False) as w:
        code, says, text = doctor(w)
        assert code == 0 and all(says.values()) and len(says) == 14, text
        w.s3.conditions = w.s3.sums = False
        code, says, text = doctor(w, "--quick")
        assert code == 0 and {k for k, ok in says.items() if not ok} == {"if-none-match", "if-match", "etag is md5", "checked put"}, text
        w.s3.conditions = w.s3.sums = True
        for op, do, wrong, fatal in (("LIST", {"do": "listing", "change": lambda keys: keys[::-1]}, "listing", 1),
                                     ("DELETE_MANY", {"do": "error", "status": 501, "code": "NotImplemented"}, "bulk delete", 0),
                                     ("CREATE", {"do": "error", "status": 501, "code": "NotImplemented"}, "multipart", 0)):
            rule = w.s3.rule(op, **do)
            code, says, text = doctor(w)
            assert code == fatal and {k for k, ok in says.items() if not ok} == {wrong}, text
            w.s3.remove(rule)
        assert doctor(w)[0] == 0
        assert w.s3.keys() == [], w.s3.keys()
        w.s3.rule("ANY", status=403, code="AccessDenied")
        code, says, text = doctor(w)
        assert code == 1 and says == {"write": False} and "AccessDenied" in text and "planted-secret" not in text, text


# ---- the claim

def case_claim():
    """A second broker on the same bucket is refused by name; after --take-over the first writes nothing more."""
    with World(topics=(TOPIC, "hot")) as w:
        w.fill(3).quiet()
        elsewhere = Varve(w.scratch, {**w.settings, "data.dir": w.scratch.path("second"), "tier.url": "s3://bucket/other"}, "second")
        assert elsewhere.stop() == 0
        said = w.refused(name="second", **{"node.id": 1})
        assert "belongs to cluster" in said or "writes to the bucket" in said, said
        w.fill(3).quiet()
        w.check()
        w.close()


def case_20_skew():
    """A store whose clock is two hours off refuses our signatures: its time is taken, at start and while we run."""
    with World(start=False) as w:
        w.s3.clock_s = 7200
        w.start()
        with w.client() as c:
            c.create(TOPIC, 1, {})
        w.fill(4).quiet()
        w.s3.clock_s = -7200
        w.fill(4).quiet()
        w.check()
        w.close()


def certificate(w, name, san):
    cert, key = w.scratch.path(name + ".pem"), w.scratch.path(name + ".key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
                    "-subj", "/CN=" + name, "-addext", "subjectAltName=" + san], check=True, stderr=subprocess.DEVNULL)
    return cert, key


def case_21_tls():
    """A certificate that nobody vouches for, or of another host: refused at start with a word about it; the right one is fine."""
    with World(start=False) as w:
        mine, other = certificate(w, "mine", "IP:127.0.0.1"), certificate(w, "other", "DNS:elsewhere.example")
        for name, pair, ca in (("unknown", mine, None), ("wrong-host", other, other[0]), ("wrong-ca", mine, other[0])):
            with S3Front(tls=pair) as front:
                more = {**front.settings(), **({"tier.s3.ca.file": ca} if ca else {})}
                said = w.refused(more, name=name)
                assert "certificate" in said, said
                assert not front.calls, f"{name}: a request was sent to a store that is not who it should be"
        with S3Front(tls=mine) as front:
            w.settings.update(front.settings(), **{"tier.s3.ca.file": mine[0]})
            w.start()
            with w.client() as c:
                c.create(TOPIC, 1, {})
            w.fill(4).quiet()
            w.check()
            assert front.keys(r"\.seg$")
            w.close(strict=False)


def case_22_admin():
    """While the store is silent, topics are made, changed and deleted, offsets committed; the bucket hears of it afterwards."""
    with World(topics=(TOPIC, "doomed"), settings={"tier.delete.grace.ms": 1}) as w:
        w.fill(4).quiet()
        w.fill(4, "doomed").quiet("doomed")
        doomed = w.topic_dir("doomed")
        w.s3.rule("ANY", do="blackhole")
        with w.client(20) as c:
            c.create("made", 1, {"retention.ms": 1234567})
            c.alter(TOPIC, {"retention.ms": 123456789012})
            assert c.delete_records(TOPIC, 0, 20) == 20
            c.delete_topic("doomed")
            assert c.topics() & {TOPIC, "made", "doomed"} == {TOPIC, "made"}
            wait_for("a coordinator", lambda: c.commit("g", TOPIC, 0, 33) == 0)
            assert c.offset(TOPIC, 0, -2) == 20
        w.s3.clear()
        w.s3.cut()
        wait_for("the deleted topic's objects are gone", lambda: not w.s3.keys(doomed), 120)
        wait_for("the bucket knows the new topic", lambda: b'"made"' in w.s3.get("p/v1/cluster.json"))
        w.close()


def case_33():
    """Another broker takes the bucket over while we run: we write nothing more that counts, our deletions do not reach its objects."""
    with World() as w:
        w.fill(4).quiet()
        shared = w.segments()[-1][1] + 1
        other = Varve(w.scratch, {**w.settings, "data.dir": w.scratch.path("other"), "tier.take.over": "true"}, "other")
        with w.client() as c:
            w.ledger.send(c, TOPIC, 0, 8, 3000)
        first, w.broker = w.broker, other
        w.ledger.ok = {v: at for v, at in w.ledger.ok.items() if at[1] < shared}
        w.fill(8).quiet()
        theirs = {v: at for v, at in w.ledger.ok.items()}
        w.broker, w.ledger.ok = first, {}
        w.fill(8)
        with w.client() as c:
            c.delete_records(TOPIC, 0, shared + 16)
        wait_for("the first one sees that it lost the bucket", lambda: "took over the bucket" in w.messages(), 60)
        before = len(w.s3.keys())
        w.fill(4)
        w.broker.stop()
        assert len(w.s3.keys()) <= before, "objects were written after that"
        w.broker, w.ledger.ok = other, theirs
        w.check()
        other.stop()
        third = Varve(w.scratch, {**w.settings, "data.dir": w.scratch.path("third")}, "third")
        w.broker = third
        with w.client() as c:
            records = c.read_all(TOPIC, 0)
        assert all(theirs.get(v) == (0, o) for o, _, v in records) and records, "the fenced broker's records are in the log"
