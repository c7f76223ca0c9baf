"""s3front.py — an S3 store in memory that does at run time whatever a test tells it to.

    with S3Front() as s3:                                   path style, one bucket, no signatures (the access key id can be checked)
        s3.settings("prefix")                               for a Varve's tier
        rule = s3.rule("PUT", r"\\.seg$", do="stall", nth=3) the third such call stalls; rule.reached is set, rule.release() lets it go
        s3.clear()                                          an honest store again

Operations: PUT GET HEAD LIST DELETE DELETE_MANY CREATE PART COMPLETE ABORT UPLOADS, several as "GET|HEAD", ANY. What a rule can do:
    error        answer `status`/`code` instead of doing it
    stall        wait before doing it, then close without doing it (release(True): do it after all)
    stall_after  do it, then wait, then close without a reply
    drop         do it and close without a reply
    ignore       say 200 and do nothing (PUT)
    truncate     store, or serve, half of the bytes           alter    store, or serve, one bit wrong (the ETag is that of what is stored)
    lie_altered  store one bit wrong under the ETag of what was sent      alter_unsaid  under one that says nothing (sums=False)
    blackhole    read the request, never answer               slow     move bodies at `rate` bytes/s
    error_body   200 with an <Error> inside (COMPLETE)        listing  change(keys) -> keys, for LIST
    wrong_etag   answer with the ETag of something else       endless  every LIST page says that there is more
With keep="alter" (truncate …) a stall_after or drop also stores that.
Honest otherwise: Content-MD5 and conditions are checked, listings are strongly consistent and paged. Everything under one lock;
stalls and pauses are outside of it.
"""
import base64
import calendar
import hashlib
import random
import re
import socket
import ssl
import threading
import time
import urllib.parse
import xml.etree.ElementTree
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class Close(Exception):
    """The connection ends without an answer."""


class Rule:
    def __init__(self, front, op, key, do, nth, times, share, **more):
        self.front, self.op, self.key, self.do = front, op, re.compile(key), do
        self.nth, self.times, self.share = nth, times, share
        self.__dict__.update(more)
        self.seen = self.hits = 0
        self.reached, self.released, self.proceed = threading.Event(), threading.Event(), False

    def matches(self, op, key):
        if self.op not in ("ANY", op) and op not in self.op.split("|") or not self.key.search(key):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.times is not None and self.hits >= self.times):
            return False
        if self.share < 1 and self.front.chance.random() >= self.share:
            return False
        self.hits += 1
        return True

    def release(self, proceed=False):
        self.proceed = proceed
        self.released.set()


class Stored:
    def __init__(self, data, etag=None):
        self.data, self.time = data, time.time()
        self.etag = etag or '"%s"' % hashlib.md5(data).hexdigest()


def altered(data):
    at = len(data) // 3
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1:] if data else data


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # a client that was killed


class S3Front:
    def __init__(self, bucket="bucket", seed=1, tls=None):
        self.bucket, self.chance = bucket, random.Random(seed)
        self.lock = threading.RLock()
        self.objects, self.uploads, self.rules, self.calls = {}, {}, [], []
        self.keys_allowed, self.conditions, self.next_upload = None, True, 0
        self.sums = True  # False: Content-MD5 is not looked at and ETags are the store's own
        self.clock_s = None  # set: the store's clock is that far from ours, and it refuses signatures 15 minutes off
        self.open = set()
        self.headers = {}  # (op, key) -> the last request's headers, names in lower case
        front = self

        class Bound(Handler):
            pass

        Bound.front = front
        self.server = Server(("127.0.0.1", 0), Bound)
        if tls:  # (certificate, key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.scheme, self.port = "https" if tls else "http", self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clear()
        self.server.shutdown()
        self.server.server_close()
        self.cut()

    def settings(self, prefix="p", **more):
        return {"tier.url": f"s3://{self.bucket}/{prefix}" if prefix else f"s3://{self.bucket}",
                "tier.s3.endpoint": f"{self.scheme}://127.0.0.1:{self.port}", "tier.s3.region": "us-east-1",
                "AWS_ACCESS_KEY_ID": "front", "AWS_SECRET_ACCESS_KEY": "planted-secret-3f9c", **more}

    # ---- what the tests say and ask

    def rule(self, op, key="", do="error", nth=1, times=None, share=1.0, status=503, code="SlowDown", keep=None, **more):
        r = Rule(self, op, key, do, nth, times, share, status=status, code=code, keep=keep, **more)
        with self.lock:
            self.rules.append(r)
        return r

    def remove(self, rule):
        with self.lock:
            self.rules.remove(rule)
        rule.release()

    def clear(self):
        with self.lock:
            rules, self.rules = self.rules, []
        for r in rules:
            r.release()

    def away(self):
        """Nobody answers: every call fails at once."""
        return self.rule("ANY", do="drop_before")

    def cut(self):
        """Ends the open connections."""
        with self.lock:
            sockets = list(self.open)
        for s in sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def keys(self, pattern=""):
        with self.lock:
            return sorted(k for k in self.objects if re.search(pattern, k))

    def get(self, key):
        with self.lock:
            return self.objects[key].data

    def put(self, key, data):
        with self.lock:
            self.objects[key] = Stored(data)

    def delete(self, key):
        with self.lock:
            del self.objects[key]

    def count(self, op, pattern=""):
        with self.lock:
            return sum(o == op and re.search(pattern, k) is not None for o, k, _ in self.calls)

    def find_rule(self, op, key):
        with self.lock:
            return next((r for r in self.rules if r.matches(op, key)), None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        with self.front.lock:
            self.front.open.add(self.connection)

    def finish(self):
        with self.front.lock:
            self.front.open.discard(self.connection)
        super().finish()

    # ---- one request

    def serve(self):
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        parts = urllib.parse.unquote(url.path).lstrip("/").split("/", 1)
        bucket, self.key = parts[0], parts[1] if len(parts) > 1 else ""
        op = self.operation()
        with self.front.lock:
            self.front.headers[op, self.key] = {k.lower(): v for k, v in self.headers.items()}
        rule = self.rule = self.front.find_rule(op, self.key)
        self.rate = rule.rate if rule and rule.do == "slow" else 0
        try:
            body = self.read_body()
            status = self.decide(op, rule, bucket, body)
        except (Close, OSError):
            status = 0
            self.close_connection = True
        with self.front.lock:
            self.front.calls.append((op, self.key, status))

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve

    def operation(self):
        q = self.query
        if self.command == "PUT":
            return "PART" if "partNumber" in q else "PUT"
        if self.command == "POST":
            return "DELETE_MANY" if "delete" in q else "CREATE" if "uploads" in q else "COMPLETE"
        if self.command == "DELETE":
            return "ABORT" if "uploadId" in q else "DELETE"
        if self.command == "GET" and not self.key:
            return "UPLOADS" if "uploads" in q else "LIST"
        return self.command

    def read_body(self):
        left, body = int(self.headers.get("Content-Length") or 0), b""
        while left:
            n = min(left, self.rate // 10 or 1 if self.rate else 1 << 20)
            more = self.rfile.read(n)
            if not more:
                raise Close
            body += more
            left -= len(more)
            if self.rate:
                time.sleep(0.1)
        return body

    def decide(self, op, rule, bucket, body):
        do = rule.do if rule else ""
        if do == "drop_before":
            raise Close
        if do in ("stall", "blackhole"):
            rule.reached.set()
            rule.released.wait()
            if not rule.proceed:
                raise Close
        if do == "error":
            return self.error(rule.status, rule.code)
        with self.front.lock:
            answer = self.refused(bucket) or getattr(self, "on_" + op.lower())(body, rule.keep or do if rule else "")
        if do == "stall_after":
            rule.reached.set()
            rule.released.wait()
        if do in ("drop", "stall_after"):
            raise Close
        return self.answer(*answer)

    def date_time_string(self, timestamp=None):
        return formatdate((timestamp or time.time()) + (self.front.clock_s or 0), usegmt=True)

    def refused(self, bucket):
        if self.front.clock_s is not None:
            signed = calendar.timegm(time.strptime(self.headers.get("x-amz-date", ""), "%Y%m%dT%H%M%SZ"))
            if abs(signed - time.time() - self.front.clock_s) > 900:
                return self.error_answer(403, "RequestTimeTooSkewed")
        if self.front.keys_allowed is not None:
            who = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
            if not who or who[1] not in self.front.keys_allowed:
                return self.error_answer(403, "InvalidAccessKeyId")
        return None if bucket == self.front.bucket else self.error_answer(404, "NoSuchBucket")

    # ---- answers: (status, headers, body)

    def error_answer(self, status, code):
        return status, {}, f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()

    def error(self, status, code):
        return self.answer(*self.error_answer(status, code))

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        length = headers.pop("Content-Length", len(body))
        for k, v in headers.items():
            self.send_header(k, v)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return status
        step = max(self.rate // 10, 1) if self.rate else len(body)
        for at in range(0, len(body), step or 1):
            self.wfile.write(body[at:at + step])
            if self.rate:
                time.sleep(0.1)
        if length != len(body):
            self.close_connection = True
        return status

    # ---- the store, with the lock held

    def conditions_hold(self):
        have = self.front.objects.get(self.key)
        if not self.front.conditions:
            return True
        if self.headers.get("If-None-Match") == "*" and have:
            return False
        want = self.headers.get("If-Match")
        return not want or (have is not None and have.etag == want)

    def bad_md5(self, body):
        told = self.headers.get("Content-MD5")
        return self.front.sums and told and told != base64.b64encode(hashlib.md5(body).digest()).decode()

    def kept(self, body, do):
        """What a store that was told to lie keeps of a body."""
        if do == "truncate":
            return Stored(body[:len(body) // 2])
        if do == "alter":
            return Stored(altered(body))
        if do == "lie_altered":
            return Stored(altered(body), Stored(body).etag)
        if not self.front.sums:
            self.front.next_upload += 1
            return Stored(altered(body) if do == "alter_unsaid" else body, f'"own-{self.front.next_upload}"')
        return Stored(body)

    def on_put(self, body, do):
        if self.bad_md5(body):
            return self.error_answer(400, "BadDigest")
        if not self.conditions_hold():
            return self.error_answer(412, "PreconditionFailed")
        new = self.kept(body, do)
        if do != "ignore":
            self.front.objects[self.key] = new
        etag = Stored(b"other").etag if do == "wrong_etag" else new.etag
        return 200, {"ETag": etag}, b""

    def on_get(self, body, do):
        have = self.front.objects.get(self.key)
        if not have:
            return self.error_answer(404, "NoSuchKey")
        data, status = have.data, 200
        headers = {"ETag": have.etag, "Last-Modified": formatdate(have.time, usegmt=True)}
        asked = re.match(r"bytes=(\d*)-(\d*)$", self.headers.get("Range", ""))
        if asked:
            first, last = asked[1], asked[2]
            start = int(first) if first else max(len(data) - int(last), 0)
            end = min(int(last) + 1, len(data)) if first and last else len(data)
            if start >= len(data):
                return self.error_answer(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            data, status = data[start:end], 206
        if do == "alter":
            data = altered(data)
        if do == "truncate":
            headers["Content-Length"], data = len(data), data[:len(data) // 2]
        return status, headers, data

    def on_head(self, body, do):
        have = self.front.objects.get(self.key)
        if not have:
            return 404, {}, b""
        return 200, {"ETag": have.etag, "Content-Length": len(have.data),
                     "Last-Modified": formatdate(have.time, usegmt=True)}, b""

    def on_delete(self, body, do):
        self.front.objects.pop(self.key, None)
        return 204, {}, b""

    def on_delete_many(self, body, do):
        for element in xml.etree.ElementTree.fromstring(body).iter():
            if element.tag.endswith("}Key"):
                self.front.objects.pop(element.text, None)
        return 200, {}, f"<DeleteResult {NS}/>".encode()

    def on_list(self, body, do):
        q = self.query
        prefix, after = q.get("prefix", ""), q.get("continuation-token") or q.get("start-after", "")
        keys = sorted(k for k in self.front.objects if k.startswith(prefix))
        if do == "listing":
            keys = self.rule.change(keys)
        keys = [k for k in keys if k > after]
        most = int(q.get("max-keys", 1000))
        page, more = keys[:most], len(keys) > most
        encode = urllib.parse.quote if q.get("encoding-type") == "url" else escape
        out = f"<ListBucketResult {NS}><IsTruncated>{str(more).lower()}</IsTruncated><KeyCount>{len(page)}</KeyCount>"
        if q.get("encoding-type") == "url":
            out += "<EncodingType>url</EncodingType>"
        if more or (do == "endless" and page):
            out += f"<NextContinuationToken>{encode(page[-1])}</NextContinuationToken>"
        for k in page:
            have = self.front.objects.get(k) or Stored(b"")
            out += (f"<Contents><Key>{encode(k)}</Key><LastModified>{stamp(have.time)}</LastModified>"
                    f"<ETag>{escape(have.etag)}</ETag><Size>{len(have.data)}</Size></Contents>")
        return 200, {}, (out + "</ListBucketResult>").encode()

    def on_create(self, body, do):
        self.front.next_upload += 1
        uid = f"upload-{self.front.next_upload}"
        self.front.uploads[uid] = (self.key, {}, time.time())
        return 200, {}, f"<InitiateMultipartUploadResult {NS}><UploadId>{uid}</UploadId></InitiateMultipartUploadResult>".encode()

    def on_part(self, body, do):
        upload = self.front.uploads.get(self.query["uploadId"])
        if not upload:
            return self.error_answer(404, "NoSuchUpload")
        if self.bad_md5(body):
            return self.error_answer(400, "BadDigest")
        part = upload[1][int(self.query["partNumber"])] = self.kept(body, do)
        return 200, {"ETag": Stored(b"other").etag if do == "wrong_etag" else part.etag}, b""

    def on_complete(self, body, do):
        if do == "error_body":
            return 200, {}, b"<Error><Code>InternalError</Code><Message>as told</Message></Error>"
        uid = self.query["uploadId"]
        if uid not in self.front.uploads:
            return self.error_answer(404, "NoSuchUpload")
        parts, sums, data = self.front.uploads[uid][1], b"", b""
        named = re.findall(r"<PartNumber>(\d+)</PartNumber>\s*<ETag>(.*?)</ETag>", body.decode())
        for number, etag in named:
            part = parts.get(int(number))
            if not part or part.etag.strip('"') != etag.replace("&quot;", "").strip('"'):
                return self.error_answer(400, "InvalidPart")
            sums += hashlib.md5(part.data).digest()
            data += part.data
        if not self.conditions_hold():
            return self.error_answer(412, "PreconditionFailed")
        if do == "ignore":
            new = Stored(data)
        else:
            new = self.front.objects[self.key] = Stored(data, f'"{hashlib.md5(sums).hexdigest()}-{len(named)}"')
            del self.front.uploads[uid]
        return 200, {}, (f"<CompleteMultipartUploadResult {NS}><ETag>{escape(new.etag)}</ETag>"
                         "</CompleteMultipartUploadResult>").encode()

    def on_abort(self, body, do):
        self.front.uploads.pop(self.query["uploadId"], None)
        return 204, {}, b""

    def on_uploads(self, body, do):
        prefix = self.query.get("prefix", "")
        out = f"<ListMultipartUploadsResult {NS}><IsTruncated>false</IsTruncated>"
        for uid, (key, _, began) in sorted(self.front.uploads.items()):
            if key.startswith(prefix):
                out += f"<Upload><Key>{escape(key)}</Key><UploadId>{uid}</UploadId><Initiated>{stamp(began)}</Initiated></Upload>"
        return 200, {}, (out + "</ListMultipartUploadsResult>").encode()


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))
