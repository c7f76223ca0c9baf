"""tiered.py — a broker with a tier for the tests, and how cold a topic is."""

import contextlib

import broker
import clients
import dataset

TIERS = ("fs", "minio", "libs3")
COLD = 0.8
TOPIC = {"retention.ms": -1, "remote.storage.enable": "true", "local.retention.ms": 1000, "local.retention.bytes": 1}
BROKER = {"group.initial.rebalance.delay.ms": 0, "log.retention.check.interval.ms": 1000, "tier.cache.bytes": 32 << 20}


def segment_bytes(codec):
    return 1 << 20 if codec == "none" else 256 << 10


class Tiered:
    """One broker on one kind of store."""

    def __init__(self, scratch, tier, minio=None):
        settings = dict(BROKER)
        if tier != "fs":
            settings.update(minio.settings(tier, {"minio": "curl", "libs3": "libs3"}[tier]))
        self.broker = broker.Varve(scratch, settings, f"varve-{tier}")
        self.bootstrap = self.broker.bootstrap

    def create(self, topic, codec="none"):
        clients.create(self.bootstrap, topic, {**TOPIC, "segment.bytes": segment_bytes(codec)})

    def state(self, topic):
        page = self.broker.metrics()
        of = {
            name: sum(v for k, v in page.items() if k[0] == f"varve_partition_{name}" and ("topic", topic) in k[1:])
            for name in ("local_bytes", "remote_bytes", "tier_lag_bytes")
        }
        return of["local_bytes"], of["remote_bytes"], of["tier_lag_bytes"]

    def on_disk(self, topic):
        """Segments and bytes of the topic's own files, whatever the broker says of them."""
        sizes = []
        for file in self.broker.log_dir.glob(f"{topic}-*/*.log"):
            with contextlib.suppress(FileNotFoundError):  # deleted while we look
                sizes.append(file.stat().st_size)
        return len(sizes), sum(sizes)

    def local_starts(self, topic):
        """partition -> first offset on the local disk."""
        return {
            int(dict(k[1:])["partition"]): int(v)
            for k, v in self.broker.metrics().items()
            if k[0] == "varve_partition_local_start_offset" and ("topic", topic) in k[1:]
        }

    def cold(self, topic):
        """Waits until only the open segments are here, by the metrics page and by the files in the log directory.
        Answers the share of the topic's bytes that is in the bucket alone, and the bytes in the bucket."""

        def only_open():
            local, remote, lag = self.state(topic)
            files, size = self.on_disk(topic)
            return remote > 0 and lag == 0 and files <= dataset.PARTITIONS and (local, remote, size)

        try:
            local, remote, size = broker.wait_for(f"{topic} is cold", only_open)
        except TimeoutError as e:
            raise RuntimeError(
                f"{e}; local, remote, lag {self.state(topic)}; files, bytes {self.on_disk(topic)}"
            ) from None
        share = remote / (remote + size)
        if share < COLD:
            raise RuntimeError(f"{topic}: only {share:.0%} of its bytes are in the bucket alone")
        if local < size:
            raise RuntimeError(f"{topic}: the metrics page says {local} bytes are local, the files have {size}")
        return share, remote

    def cold_bytes_served(self):
        return self.broker.metrics()[("varve_fetch_cold_bytes_total",)]


class Reference:
    """Apache Kafka in the place of Tiered."""

    def __init__(self, scratch, tier, minio=None):
        self.broker = broker.Kafka(scratch, name=f"kafka-{tier}")
        self.bootstrap = self.broker.bootstrap

    def create(self, topic, codec="none"):
        clients.create(self.bootstrap, topic, {"retention.ms": -1, "segment.bytes": 1 << 20})

    def cold(self, topic):
        return 0, 0

    def cold_bytes_served(self):
        return 0


def chosen(scratch, arguments):
    """The store by a program's arguments: --kafka, or --tier fs|minio|libs3 (fs)."""
    if "--kafka" in arguments:
        return Reference(scratch, "fs")
    tier = arguments[arguments.index("--tier") + 1] if "--tier" in arguments else "fs"
    if tier == "fs":
        return Tiered(scratch, tier)
    try:
        return Tiered(scratch, tier, broker.Minio(scratch))
    except broker.Missing as e:
        broker.skip(str(e))
