#!/usr/bin/env python3
"""faults.py [CASE...] — a broker on a bucket that fails, lies, stalls and loses, and what must hold nevertheless.

Everywhere: what was acknowledged is there, in its place and once (tests/crash/ledger.py); nothing local goes before its copy in the
bucket is proven; after a quiet end the bucket holds what root and manifests name and nothing else (world.py, s3_ledger).
Without arguments: all cases, three at a time (they mostly wait). -l lists them; -j 1 and one case show all messages of a failure.
"""
import argparse
import concurrent.futures
import pathlib
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]
import caches  # noqa: E402
import caches  # noqa: E402
import care  # noqa: E402
import comeback  # noqa: E402
import merges  # noqa: E402
import reads  # noqa: E402
import store  # noqa: E402
import uploads  # noqa: E402
from world import ROOT  # noqa: E402

CASES = {name.removeprefix("case_"): run for module in (store, uploads, reads, caches, care, comeback, merges) for name, run in vars(module).items()
         if name.startswith("case_")}


def judge(name):
    began = time.monotonic()
    try:
        CASES[name]()
    except Exception as e:
        print(f"FAILED  {name:14} {time.monotonic() - began:5.1f} s  {type(e).__name__}: {e}\n"
              f"        again with: {sys.argv[0]} {name}", flush=True)
        return e
    print(f"ok      {name:14} {time.monotonic() - began:5.1f} s", flush=True)
    return None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("-l", "--list", action="store_true")
    p.add_argument("-j", "--jobs", type=int, default=3)
    p.add_argument("case", nargs="*", metavar="CASE", help=" ".join(CASES))
    a = p.parse_args()
    if a.list:
        for name, run in CASES.items():
            print(f"{name:14} {' '.join(run.__doc__.split())}")
        return
    if not (ROOT / "build/varve").exists():
        print("SKIP: there is no build/varve: make build")
        sys.exit(77)
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        errors = [e for e in pool.map(judge, a.case or CASES) if e]
    if len(a.case) == 1 and errors:
        raise errors[0]
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
