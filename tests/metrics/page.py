#!/usr/bin/env python3
"""page.py [--prometheus] — the metrics page against what is written for it, on a running broker with real work behind it.

- Values: what was produced, tiered, read cold and committed is what the page says, partition by partition.
- Kafka's tiering metrics: each one has its counterpart (the table in docs/metrics.md), and it is on the page.
- config/grafana-dashboard.json, config/prometheus-alerts.yml and the expressions of Grafana dashboard 7589 (made for
  kafka_exporter) name nothing that the page does not have.

With --prometheus (Debian's package of that name) a real Prometheus scrapes the broker: promtool checks the rules, and
every expression is evaluated; those that the work here must have given a value to must have one.
"""
import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "clients"))
import broker  # noqa: E402

CONFIG = broker.ROOT / "config"
TOPIC, GROUP, RECORDS = "stations", "dashboard", 3000

# What dashboard 7589 asks for ($job, $instance, $topic are its variables).
DASHBOARD_7589 = [
    'sum(rate(kafka_topic_partition_current_offset{instance=~"$instance", topic=~"$topic"}[1m])) by (topic)',
    'sum(kafka_consumergroup_lag{instance=~"$instance", topic=~"$topic"}) by (consumergroup, topic)',
    'sum(delta(kafka_topic_partition_current_offset{instance=~"$instance", topic=~"$topic"}[5m])/5) by (topic)',
    'sum(delta(kafka_consumergroup_current_offset{instance=~"$instance", topic=~"$topic"}[5m])/5) by (consumergroup, topic)',
    'sum by(topic) (kafka_topic_partitions{instance=~"$instance", topic=~"$topic"})',
]

# Words of PromQL that are no metrics.
WORDS = set("""sum min max avg count by without rate increase delta deriv histogram_quantile and or unless on ignoring
offset bool le op topic api instance job consumergroup partition""".split())


def page(b):
    with urllib.request.urlopen(f"http://{b.metrics_at}/metrics", timeout=30) as answer:
        return answer.read().decode()


def families(text):
    """name -> {labels as a frozenset of pairs: value}; histograms under their _bucket, _sum, _count names."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        name, labels, value = re.fullmatch(r"([a-z_0-9]+)(?:\{(.*)\})? (\S+)", line).groups()
        pairs = frozenset(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', labels or ""))
        found.setdefault(name, {})[pairs] = float(value)
    return found


def declared(text):
    return set(re.findall(r"^# TYPE (\S+) ", text, re.M))


def names_in(expression):
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\$\w+', " ", expression)
    return {w for w in re.findall(r"[a-z_][a-z_0-9]*", bare) if w not in WORDS}


def dashboard_expressions():
    board = json.loads((CONFIG / "grafana-dashboard.json").read_text())
    assert board["uid"] and board["title"] and board["schemaVersion"] >= 30
    panels = [p for p in board["panels"] if p["type"] != "row"]
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"]), "panel ids are not unique"
    for p in panels:
        assert p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 and p["targets"], p["title"]
    return [t["expr"] for p in panels for t in p["targets"]]


def alert_expressions():
    return re.findall(r"^ +expr: (.*)$", (CONFIG / "prometheus-alerts.yml").read_text(), re.M)


def kafka_table():
    """Kafka's metric -> ours, from docs/metrics.md; `no` rows have a reason instead."""
    rows = re.findall(r"^\| `([A-Za-z-]+)` \| (.*?) \|", (broker.ROOT / "docs/metrics.md").read_text(), re.M)
    assert len(rows) >= 24, "the table of docs/metrics.md was not found"
    return {kafka: set(re.findall(r"`([a-z_0-9]+)`", ours)) for kafka, ours in rows}


def check_names(text):
    have = declared(text)
    have |= {f"{n}{s}" for n in have for s in ("_bucket", "_sum", "_count")}
    for where, expressions in (
        ("config/grafana-dashboard.json", dashboard_expressions()),
        ("config/prometheus-alerts.yml", alert_expressions()),
        ("dashboard 7589", DASHBOARD_7589),
    ):
        assert expressions, where
        for e in expressions:
            missing = names_in(e) - have - {"up"}
            assert not missing, f"{where}: {missing} is not on the page ({e})"
    for kafka, ours in kafka_table().items():
        assert ours <= have, f"docs/metrics.md: {kafka} is said to be {ours - have}, which is not on the page"


def work(b):
    """3,000 records in two partitions, most of them only in the bucket, read by a group of one that commits 2,000."""
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": b.bootstrap})
    config = {"segment.bytes": "65536", "local.retention.bytes": "65536"}
    admin.create_topics([NewTopic(TOPIC, 2, 1, config=config)])[TOPIC].result()
    producer = Producer({"bootstrap.servers": b.bootstrap, "batch.size": 16384})
    for i in range(RECORDS):
        producer.produce(TOPIC, b"%06d" % i * 100, partition=i % 2)
    assert producer.flush(60) == 0
    value = lambda name: families(page(b))[name]  # noqa: E731
    tiered = lambda: sum(value("varve_partition_local_start_offset").values()) > RECORDS / 2  # noqa: E731
    broker.wait_for("most of it is only in the bucket", tiered)
    consumer = Consumer({"bootstrap.servers": b.bootstrap, "group.id": GROUP, "auto.offset.reset": "earliest",
                         "enable.auto.commit": False})
    consumer.subscribe([TOPIC])
    seen = [0, 0]
    while sum(seen) < RECORDS:
        m = consumer.poll(30)
        assert m and not m.error(), m
        seen[m.partition()] += 1
    consumer.commit(offsets=[TopicPartition(TOPIC, 0, 1500), TopicPartition(TOPIC, 1, 500)], asynchronous=False)
    return consumer


def check_values(b):
    f = families(page(b))

    def at(name, **labels):
        return f[name][frozenset(labels.items())]

    p = [{"topic": TOPIC, "partition": str(i)} for i in range(2)]
    assert at("varve_topic_produce_records_total", topic=TOPIC) == RECORDS
    assert at("varve_topic_fetch_bytes_total", topic=TOPIC) >= RECORDS * 600
    assert 0 < at("varve_topic_remote_fetch_bytes_total", topic=TOPIC) <= at("varve_topic_fetch_bytes_total", topic=TOPIC)
    segments = at("varve_topic_remote_log_segments", topic=TOPIC)
    assert segments > 10 and at("varve_topic_remote_copy_requests_total", topic=TOPIC) == segments
    assert sum(at("varve_partition_remote_segments", **x) for x in p) == segments
    assert sum(at("varve_partition_remote_bytes", **x) for x in p) == at("varve_topic_remote_log_size_bytes", topic=TOPIC)
    puts = at("varve_store_call_seconds_count", op="put")
    assert puts >= segments and at("varve_store_call_seconds_bucket", op="put", le="+Inf") == puts
    assert at("varve_tier_store_up") == 1 and at("varve_disk_state") == 0 and at("varve_disk_seconds_left") > 0
    assert at("kafka_topic_partitions", topic=TOPIC) == 2 and at("kafka_brokers") == 1
    for x, committed in zip(p, (1500, 500)):
        assert at("kafka_topic_partition_current_offset", **x) == RECORDS / 2
        assert at("kafka_topic_partition_oldest_offset", **x) == 0
        assert at("kafka_consumergroup_current_offset", consumergroup=GROUP, **x) == committed
        assert at("kafka_consumergroup_lag", consumergroup=GROUP, **x) == RECORDS / 2 - committed
    assert at("kafka_consumergroup_lag_sum", consumergroup=GROUP, topic=TOPIC) == RECORDS - 2000
    assert at("kafka_consumergroup_current_offset_sum", consumergroup=GROUP, topic=TOPIC) == 2000
    assert at("kafka_consumergroup_members", consumergroup=GROUP) == 1
    log_dirs = subprocess.run([broker.ROOT / "build/varve", "topic", "describe", TOPIC, "--tier", "-o", "json", "-b", b.bootstrap],
                              capture_output=True, check=True)
    rows = json.loads(log_dirs.stdout)
    assert sum(r["objects"] for r in rows) == segments and all(r["pending_bytes"] == 0 for r in rows), rows


class Prometheus:
    def __init__(self, scratch, target):
        self.port = broker.free_port()
        config = pathlib.Path(scratch.path("prometheus.yml"))
        config.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: ['{CONFIG / 'prometheus-alerts.yml'}']\n"
            f"scrape_configs: [{{job_name: varve, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        self.log = open(scratch.path("prometheus.log"), "wb")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={scratch.path('prometheus')}",
             f"--web.listen-address=127.0.0.1:{self.port}"], stdout=self.log, stderr=self.log)
        scratch.started.append(self)

    def ask(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def samples(self):
        try:
            return self.ask("query", query="count_over_time(varve_topics[1m])")["result"]
        except OSError:
            return []

    def end(self, _):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()

    def show_log(self):
        pass


def check_prometheus(scratch, b):
    for program in ("prometheus", "promtool"):
        if not shutil.which(program):
            broker.skip(f"there is no {program}: install the package prometheus")
    subprocess.run(["promtool", "check", "rules", CONFIG / "prometheus-alerts.yml"], check=True)
    lint = subprocess.run(["promtool", "check", "metrics"], input=page(b), capture_output=True, text=True)
    ours = [line for line in lint.stderr.splitlines() if not line.startswith("kafka_")]  # those names were given to us
    assert lint.returncode in (0, 3) and not ours, ours
    p = Prometheus(scratch, b.metrics_at)
    broker.wait_for("five scrapes", lambda: any(float(r["value"][1]) >= 5 for r in p.samples()))
    rules = [r for g in p.ask("rules")["groups"] for r in g["rules"]]
    assert len(rules) == len(alert_expressions()) and all(r["health"] == "ok" for r in rules), rules
    empty = []
    for e in dashboard_expressions() + DASHBOARD_7589:
        for variable, value in (("$instance", ".*"), ("$topic", TOPIC), ("$__rate_interval", "1m"), ("$price", "0.023")):
            e = e.replace(variable, value)
        if not p.ask("query", query=e, time=time.time())["result"]:
            empty.append(e)
    assert not empty, f"no value: {empty}"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--prometheus", action="store_true")
    prometheus = options.parse_args().prometheus
    broker.in_venv()
    with broker.Scratch() as scratch:
        b = broker.Varve(scratch, {"group.initial.rebalance.delay.ms": "0"})
        consumer = work(b)
        check_values(b)
        check_names(page(b))
        if prometheus:
            check_prometheus(scratch, b)
        consumer.close()
    print("the page, the dashboard, the alerts and the tables agree")


if __name__ == "__main__":
    main()
