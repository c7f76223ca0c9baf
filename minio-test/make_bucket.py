#!/usr/bin/env python3
"""make_bucket.py ENDPOINT KEY SECRET BUCKET — creates a bucket with a Signature V4 request; standard library only.

The store's own seam has no call for this on purpose: a broker never makes buckets. It is also a second, independent
implementation of the signature, which a wrong one of ours would not agree with."""
import datetime
import hashlib
import hmac
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def request(endpoint, key, secret, method, path, region="us-east-1"):
    host = urllib.parse.urlsplit(endpoint).netloc
    now = datetime.datetime.now(datetime.timezone.utc)
    date, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    payload = hashlib.sha256(b"").hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    canonical = f"{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{date}\n\n{names}\n{payload}"
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signing = ("AWS4" + secret).encode()
    for part in (day, region, "s3", "aws4_request"):
        signing = sign(signing, part)
    signature = hmac.new(signing, to_sign.encode(), hashlib.sha256).hexdigest()
    headers = {
        "x-amz-content-sha256": payload,
        "x-amz-date": date,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}",
    }
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(urllib.request.Request(endpoint + path, method=method, headers=headers), timeout=10)


def main():
    endpoint, key, secret, bucket = sys.argv[1:5]
    for attempt in range(50):  # a server that just came up says "not yet" for a moment
        try:
            request(endpoint, key, secret, "PUT", "/" + bucket)
            return 0
        except urllib.error.HTTPError as error:
            body = error.read().decode(errors="replace")
            if "BucketAlreadyOwnedByYou" in body:
                return 0
            if error.code < 500 or attempt == 49:
                print(f"making bucket {bucket}: HTTP {error.code}: {body[:300]}", file=sys.stderr)
                return 1
        time.sleep(0.2)
    return 1


if __name__ == "__main__":
    sys.exit(main())
