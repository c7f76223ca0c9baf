"""faults.py — what the tests of disk faults share: mounts of their own, strace on a running broker, error codes."""
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "clients")]
from broker import skip, wait_for  # noqa: E402

OUT_OF_RANGE, CORRUPT, STORAGE_ERROR = 1, 2, 56


def own_mounts():
    """Everything below runs in a mount namespace of its own; its mounts and loop devices end with the last process in it."""
    if os.environ.get("VARVE_OWN_MOUNTS"):
        return
    if os.geteuid():
        skip("cutting the power needs root (mount, ioctl): run as root")
    for tool in ("unshare", "mkfs.ext4", "mount", "umount"):
        if not shutil.which(tool):
            skip(f"there is no {tool}: install the packages util-linux, mount and e2fsprogs (make needs)")
    probe = subprocess.run(["unshare", "-m", "--propagation", "private", "true"], stderr=subprocess.PIPE, text=True)
    if probe.returncode:
        skip(f"no mount namespace here ({probe.stderr.strip()}): run on a machine or in a privileged container")
    os.environ["VARVE_OWN_MOUNTS"] = "1"
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv])


def strace(pid, *expressions, path=None, out="/dev/null"):
    """strace attached to all threads of a running process, with these -e expressions; returns when it is at work."""
    if not shutil.which("strace"):
        skip("there is no strace: install the package strace (make needs)")
    command = ["strace", "-f", "-qq", "-y", "-o", str(out), "-e", "signal=none"]
    for e in expressions:
        command += ["-e", e]
    for p in path or []:
        command += ["-P", str(p)]
    tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)

    def attached():
        if tracer.poll() is not None:
            skip(f"strace may not trace here ({tracer.stderr.read().strip()}): run as root, or allow ptrace")
        return all("\nTracerPid:\t0\n" not in (t / "status").read_text() for t in pathlib.Path(f"/proc/{pid}/task").iterdir())
    wait_for("strace is attached", attached, 20, 0.01)
    return tracer


def detach(tracer):
    tracer.terminate()
    tracer.wait(30)


def stopped(pid):
    try:
        states = [(t / "stat").read_text().rsplit(")", 1)[1].split()[0] for t in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return False
    return all(s in "tT" for s in states)
