"""broker.py — brokers and stores for the tests: ephemeral ports, a directory of their own, ended by their pid.

    with Scratch() as scratch:                  a temporary directory; ends everything started in it, whatever happens
        broker = Varve(scratch, {"tier.url": "fs:" + scratch.path("tier")})     or Kafka(scratch): Apache Kafka 4.1.0
        broker.bootstrap, broker.metrics(), broker.stop(), broker.kill(), broker.start()
        minio = Minio(scratch)                  minio.settings("prefix", client="curl"): for a Varve's tier

Nothing here sleeps for a fixed time and hopes: wait_for() asks for the state itself until it is there or the patience ends.
Leaving Scratch without an exception demands that every broker ends cleanly (Varve: exit code 0).
"""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SKIP = 77
PATIENCE_S = 120


def skip(why):
    print(f"SKIP: {why}", flush=True)
    sys.exit(SKIP)


def needs(*parts):
    """The cache directory with the named parts prepared; ends the program with 77 when they cannot be had."""
    done = subprocess.run([HERE / "needs", *parts], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    sys.stderr.write(done.stderr)
    if done.returncode == SKIP:
        skip(done.stderr.strip().splitlines()[-1].removeprefix("SKIP: "))
    if done.returncode:
        sys.exit(f"tests/clients/needs failed: {done.returncode}")
    return pathlib.Path(done.stdout.strip())


def in_venv(*parts):
    """Goes on with the Python that has the clients; returns the cache directory."""
    cache = needs("python", *parts)
    python = cache / "venv/bin/python"
    if pathlib.Path(sys.prefix) != cache / "venv":
        sys.stdout.flush()
        os.execv(python, [str(python), *sys.argv])
    return cache


def wait_for(what, state, patience_s=PATIENCE_S, every_s=0.1):
    """Asks state() until it says something true, and returns that."""
    deadline = time.monotonic() + patience_s
    while True:
        answer = state()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience_s} s: {what}")
        time.sleep(every_s)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Scratch:
    """A temporary directory and everything that was started in it. VARVE_KEEP=1 keeps the directory."""

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"varve-{pathlib.Path(sys.argv[0]).stem}-"))
        self.started = []
        return self

    def path(self, name):
        return str(self.dir / name)

    def __exit__(self, kind, error, trace):
        failures = []
        for thing in reversed(self.started):
            try:
                thing.end(kind is None)
            except Exception as e:  # the others must end too
                failures.append(e)
        if kind is not None and not (kind is SystemExit and error.code == SKIP):
            for thing in self.started:
                thing.show_log()
        if os.environ.get("VARVE_KEEP"):
            print(f"kept: {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        if failures and kind is None:
            raise failures[0]


class Process:
    """A broker as a child process; its messages go to a file."""

    def __init__(self, scratch, name):
        self.dir = scratch.dir / name
        self.dir.mkdir()
        self.name, self.log, self.process = name, self.dir / "messages", None
        scratch.started.append(self)

    def spawn(self, command, **more):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, **more)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, patience_s=60):
        """SIGTERM and a clean end."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(patience_s)
        self.process = None
        return code

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def end(self, clean):
        if self.process is None:
            return
        if not self.running():
            raise RuntimeError(f"{self.name} ended by itself with {self.process.returncode}")
        if clean:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.stop()
                if code != self.clean_code:
                    raise RuntimeError(f"{self.name} ended with {code} on SIGTERM")
                return
            self.kill()
            raise RuntimeError(f"{self.name} did not end on SIGTERM")
        self.kill()

    def show_log(self):
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        print(f"---- {self.name}, last messages", *lines[-30:], sep="\n", file=sys.stderr)


class Varve(Process):
    """build/varve broker (VARVE names another binary); settings go by --set, AWS_… into its environment."""

    clean_code = 0
    kind = "varve"

    def __init__(self, scratch, settings=None, name="varve", start=True):
        super().__init__(scratch, name)
        self.settings = {"data.dir": self.dir / "data", "listeners": "PLAINTEXT://127.0.0.1:0",
                         "metrics.listener": "127.0.0.1:0", **(settings or {})}
        self.binary = pathlib.Path(os.environ.get("VARVE", ROOT / "build/varve"))
        if start:
            self.start()

    def start(self):
        if not self.binary.exists():
            skip(f"there is no {self.binary}: make build")
        command, env = [self.binary, "broker"], dict(os.environ)
        for key, value in self.settings.items():
            if key.startswith("AWS_"):
                env[key] = value
            else:
                command += ["--set", f"{key}={value}"]
        self.spawn(command, stdout=subprocess.PIPE, env=env)
        line = self.process.stdout.readline().decode()
        match = re.match(r"varve ready: kafka=(\S+) metrics=(\S+) ", line)
        if not match:
            self.process.wait(30)
            raise RuntimeError(f"varve broker did not become ready: {line!r}, exit code {self.process.returncode}")
        self.bootstrap, self.metrics_at, self.ready = match[1].split(",")[0], match[2], line.strip()
        return self

    @property
    def log_dir(self):
        return pathlib.Path(self.settings["data.dir"]) / "log"

    def metrics(self):
        """The page as {(name, (label, value)…): number}; names without labels have the key (name,)."""
        with urllib.request.urlopen(f"http://{self.metrics_at}/metrics", timeout=30) as page:
            text = page.read().decode()
        found = {}
        for name, labels, value in re.findall(r"^([a-z_]+)(?:\{(.*)\})? (\S+)", text, re.M):
            found[(name, *sorted(re.findall(r'(\w+)="([^"]*)"', labels)))] = float(value)
        return found


class Kafka(Process):
    """Apache Kafka 4.1.0 from Maven Central, one KRaft node: what we are compared with."""

    clean_code = 143  # a JVM's on SIGTERM
    kind = "kafka"

    def __init__(self, scratch, settings=None, name="kafka", start=True):
        super().__init__(scratch, name)
        self.jars = needs("java") / "jars"
        kafka, controller = free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{kafka}"
        self.settings = {
            "process.roles": "broker,controller", "node.id": 1, "log.dirs": self.dir / "data",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{kafka},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "offsets.topic.replication.factor": 1, "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1, "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1, "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.num.partitions": 4, "transaction.state.log.num.partitions": 4, **(settings or {})}
        self.settings["controller.quorum.voters"] = f"{self.settings['node.id']}@127.0.0.1:{controller}"
        (self.dir / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in self.settings.items()))
        (self.dir / "log4j2.properties").write_text(
            "rootLogger.level=WARN\nappender.e.type=Console\nappender.e.name=e\nappender.e.target=SYSTEM_ERR\n"
            "appender.e.layout.type=PatternLayout\nappender.e.layout.pattern=%d %p %m (%c)%n\n"
            "rootLogger.appenderRef.e.ref=e\n")
        self.java = ["java", "-Xms512m", "-Xmx512m", f"-Dlog4j2.configurationFile={self.dir}/log4j2.properties",
                     "-cp", f"{self.jars}/*"]
        with self.log.open("ab") as log:
            subprocess.run([*self.java, "kafka.tools.StorageTool", "format", "-c", self.dir / "server.properties",
                            "-t", "dmFydmUtdGVzdHMtY2x1cw"], check=True, stdout=log, stderr=log)
        if start:
            self.start()

    def start(self):
        self.spawn([*self.java, "kafka.Kafka", self.dir / "server.properties"], stdout=subprocess.DEVNULL)
        host, port = self.bootstrap.split(":")

        def listening():
            if not self.running():
                raise RuntimeError(f"Apache Kafka ended with {self.process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return True

        wait_for("Apache Kafka listens", listening)
        return self


class Missing(Exception):
    """Something cannot be had on this machine; the text says what would help."""


class Minio:
    """A server of minio-test/ (minio, second, third, fourth) as a store for a Varve's tier. Missing: it cannot run here."""

    def __init__(self, scratch, server="minio"):
        self.dir, self.server = scratch.dir / server, ROOT / "minio-test" / server
        done = subprocess.run([self.server, "start", self.dir], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        sys.stderr.write(done.stderr)
        if done.returncode == SKIP:
            raise Missing(done.stderr.strip().splitlines()[-1].removeprefix("SKIP: "))
        done.check_returncode()
        env = re.findall(r"\b([A-Z_0-9]+)=(\S+)", done.stdout)
        self.env = {re.sub("^(SECOND|THIRD|FOURTH)_", "MINIO_", k): v for k, v in env}
        scratch.started.append(self)

    def settings(self, prefix, client="curl"):
        return {"tier.url": f"s3://{self.env['MINIO_BUCKET']}/{prefix}", "tier.s3.client": client,
                "tier.s3.endpoint": self.env["MINIO_ENDPOINT"], "tier.s3.region": self.env["MINIO_REGION"],
                "AWS_ACCESS_KEY_ID": self.env["MINIO_ACCESS_KEY"],
                "AWS_SECRET_ACCESS_KEY": self.env["MINIO_SECRET_KEY"]}

    def end(self, clean):
        subprocess.run([self.server, "stop", self.dir], check=clean)

    def show_log(self):
        log = self.dir / "log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        print("---- the store, last messages", *lines[-10:], sep="\n", file=sys.stderr)
