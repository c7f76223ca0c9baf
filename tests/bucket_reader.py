#!/usr/bin/env python3
"""Reads a topic out of a Varve bucket copied to a directory, as JSON lines, from docs/bucket-format.md alone.
usage: bucket_reader.py DIR TOPIC [KEYS]  (Python's standard library; snappy, lz4, zstandard only for those codecs; for encrypted
objects KEYS, a file of `ID BASE64` lines, and the module cryptography)"""
import base64, gzip, hashlib, json, os, re, struct, sys

NAME = re.compile(r"(\d{20})-(\d{20})-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{16}\.seg$")
TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ 0x82F63B78 if n & 1 else n >> 1
    TABLE.append(n)

def crc32c(data):
    c = 0xFFFFFFFF
    for b in data:
        c = TABLE[(c ^ b) & 255] ^ c >> 8
    return c ^ 0xFFFFFFFF

def need(ok, what):
    if not ok:
        raise ValueError("damaged: " + what)

def read(key):
    with open(os.path.join(sys.argv[1], key), "rb") as f:
        return f.read()

def document(key):  # JSON with its checksum, if it has one
    raw = read(key)
    sealed = re.search(rb', "crc": "([0-9a-f]{8})"}$', raw)
    need(not sealed or crc32c(raw[:sealed.start()]) == int(sealed[1], 16), key)
    return json.loads(raw)

def listing(prefix):
    d = os.path.join(sys.argv[1], prefix)
    return sorted(os.listdir(d)) if os.path.isdir(d) else []

def name_of(base, last, epoch, generation, nonce):
    return "%020d-%020d-%08x-%04x-%016x.seg" % (base, last, epoch & 0xFFFFFFFF, generation, nonce)

def page(prefix, level, ref):  # the segments under one page, in order
    raw = read("%s%d-%s.json" % (prefix, level, ref["sha256"]))
    need(hashlib.sha256(raw).hexdigest() == ref["sha256"], "page " + ref["sha256"])
    for entry in json.loads(raw)["entries"]:
        yield from [entry] if level == 1 else page(prefix, level - 1, entry)

def parse(raw):  # tagged sections, and where each begins
    sections, starts, at = {}, {}, 0
    while at < len(raw):
        tag, n = struct.unpack_from(">4sI", raw, at)
        sections[tag], starts[tag] = raw[at + 8:at + 8 + n], at
        at += 8 + n
    return sections, starts

def keyring():
    with open(sys.argv[3]) as f:
        return dict(line.split() for line in f if line.strip() and line[0] != "#")

def gcm(key, nonce, data, aad):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    return AESGCM(key).decrypt(nonce, bytes(data), aad)

class Segment:
    def __init__(self, prefix, name, topic_id, partition, clusters):
        obj = read(prefix + name)
        magic, flen, fcrc, size, version, flags, tcrc = struct.unpack(">8sIIQHHI", obj[-32:])
        need(magic == b"VARVESEG" and crc32c(obj[-32:-4]) == tcrc, "trailer of " + name)
        need(version == 1 and flags < 4, "unknown version of " + name)
        raw = obj[size:-32]
        need(len(raw) == flen and crc32c(raw) == fcrc, "footer of " + name)
        sections, starts = parse(raw)
        aad, self.key = (prefix + name).encode(), None
        if flags & 2:
            wrap = sections[b"ENCR"]
            end = 4 + struct.unpack_from(">H", wrap, 2)[0]
            kek = base64.b64decode(keyring()[wrap[4:end].decode()])
            self.key = gcm(kek, wrap[end:end + 12], wrap[end + 12:], b"varve data key")
            readable = raw[:starts[b"SEAL"]]
            secret = gcm(self.key, b"\xff" * 12, sections[b"SEAL"], aad + obj[-16:-4] + readable)
            sections.update(parse(secret)[0])
        (tid, part, epoch, base, last, nonce, gen, _, _, self.writer, _, _, _,
         self.log_start) = struct.unpack_from(">16siiqqQIIQQqqqq", sections[b"SEGM"])
        need(tid == topic_id and part == partition and name_of(base, last, epoch, gen, nonce) == name and
             sections[b"CLUS"].decode() in clusters, "identity of " + name)
        self.data, self.table, self.name, self.stored, self.aad = obj[:size], sections[b"BLKS"], name, sections.get(b"STOR"), aad

    def load(self, i):  # block i of a compressed or encrypted object
        at, n, how = struct.unpack_from(">QII", self.stored, 4 + 16 * i)
        block = self.data[at:at + n]
        if self.key:
            block = gcm(self.key, struct.pack(">IQ", 0, i), block, self.aad)
        return decompress(4, block) if how == 1 else block

    def check_blocks(self):
        end, count = 0, struct.unpack_from(">I", self.table)[0]
        if self.stored:
            self.data = b"".join(self.load(i) for i in range(count))
        for i in range(count):
            at, n, crc = struct.unpack_from(">QII", self.table, 4 + 40 * i)
            need(at == end and crc32c(self.data[at:at + n]) == crc, "block %d of %s" % (i, self.name))
            end = at + n
        need(end == len(self.data), "block table of " + self.name)

def varint(buf, at):
    shift = value = 0
    while True:
        value |= (buf[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if buf[at - 1] < 128:
            return value >> 1 ^ -(value & 1), at

def blob(buf, at):
    n, at = varint(buf, at)
    return (None, at) if n < 0 else (buf[at:at + n], at + n)

def decompress(codec, data):
    if codec == 2:
        import snappy
        out, at = b"", 16  # Java's framing, else one raw block
        while data[:8] == b"\x82SNAPPY\0" and at < len(data):
            n = struct.unpack_from(">I", data, at)[0]
            out, at = out + snappy.decompress(data[at + 4:at + 4 + n]), at + 4 + n
        return out if data[:8] == b"\x82SNAPPY\0" else snappy.decompress(data)
    if codec == 3:
        return __import__("lz4.frame").frame.decompress(data)
    if codec == 4:
        return __import__("zstandard").ZstdDecompressor().decompressobj().decompress(data)
    return gzip.decompress(data) if codec == 1 else data

def text(b):
    try:
        return b if b is None else b.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(b).decode()}

def records(data):
    at = 0
    while at < len(data):
        base, n, _, _, crc, attr, _, ts, max_ts, _, _, _, count = struct.unpack_from(">qiibIhiqqqhii", data, at)
        need(crc32c(data[at + 21:at + 12 + n]) == crc, "batch at offset %d" % base)
        body, p = (b"", 0) if attr & 32 else (decompress(attr & 7, data[at + 61:at + 12 + n]), 0)
        for _ in range(0 if attr & 32 else count):  # control batches hold no records of users
            size, p = varint(body, p)
            end = p + size
            ts_delta, p = varint(body, p + 1)
            delta, p = varint(body, p)
            key, p = blob(body, p)
            value, p = blob(body, p)
            header_count, p = varint(body, p)
            pairs = []
            for _ in range(2 * header_count):
                b, p = blob(body, p)
                pairs.append(text(b))
            yield {"offset": base + delta, "timestamp": max_ts if attr & 8 else ts + ts_delta, "key": text(key),
                   "value": text(value), "headers": list(zip(pairs[::2], pairs[1::2]))}
            p = end
        at += 12 + n

def partition_lines(clusters, tid_text, partition):
    prefix, manifest = ("v1/%s/%s/%05d/" % (kind, tid_text, partition) for kind in "tm")
    who = base64.urlsafe_b64decode(tid_text + "=="), partition, clusters
    head = {"log_start": 0, "deleting_below": 0, "next_offset": 0, "segments": [], "pages": []}
    if "head.json" in listing(manifest):
        head = document(manifest + "head.json")
    listed = [s for k in range(len(head["pages"]), 0, -1) for r in head["pages"][k - 1] for s in page(manifest, k, r)]
    log = [Segment(prefix, name_of(s["base"], s["last"], s["epoch"], s["generation"], int(s["nonce"], 16)), *who)
           for s in listed + head["segments"] if s["last"] >= max(head["deleting_below"], head["log_start"])]
    end, start, floor = head["next_offset"], head["log_start"], head.get("writer_epoch", 0)
    names = [n for n in listing(prefix) if NAME.match(n)]
    while True:  # roll forward
        best = None
        for name in (n for n in names if int(n[:20]) >= end and (not best or n[:20] == best.name[:20])):
            try:
                found = Segment(prefix, name, *who)
                if int(name[:20]) in range(end, max(end, found.log_start) + 1):  # continues, or the log starts there
                    rank = found.writer, found.name[51:55]  # of one writer the higher generation
                    best = found if found.writer >= floor and (not best or rank > (best.writer, best.name[51:55])) else best
            except (ValueError, struct.error) as e:
                print("leftover ignored: %s" % e, file=sys.stderr)
        if not best:
            break
        log.append(best)
        floor = best.writer
        end, start = int(best.name[21:41]) + 1, max(start, best.log_start)
    for segment in log:
        segment.check_blocks()
        yield from (dict(r, partition=partition) for r in records(segment.data) if r["offset"] >= start)

root = document("v1/root.json")
clusters = {root["cluster_id"], *(o["cluster_id"] for o in root.get("origins", []))}
for tid in set(listing("v1/t")) - {d["topic_id"] for d in root["deleted_topics"]}:
    if document("v1/t/%s/topic.json" % tid)["topic"] == sys.argv[2]:
        for part in (int(p) for p in listing("v1/t/" + tid) if p.isdigit()):
            for line in partition_lines(clusters, tid, part):
                print(json.dumps(line))
