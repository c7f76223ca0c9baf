"""read_console.py JARS BOOTSTRAP TOPIC — reads a topic from offset 0 with Kafka's console consumer; see dataset.py.

The console consumer prints a record as a line, so this reads what has no line ends and no tabs in it: JSON. It cannot
be told to stop at the end: it is told how many records there are (kafka-get-offsets)."""

import subprocess
import sys

import dataset

NULL = b"(no key)"  # not a tail number


def java(jars, main_class, *arguments):
    return [
        "java",
        "-Xmx256m",
        "-XX:TieredStopAtLevel=1",
        "-Dlog4j2.level=ERROR",
        "-cp",
        f"{jars}/*",
        main_class,
        *arguments,
    ]


def main(jars, bootstrap, topic):
    offsets = subprocess.run(
        java(
            jars,
            "org.apache.kafka.tools.GetOffsetShell",
            "--bootstrap-server",
            bootstrap,
            "--topic",
            topic,
            "--time",
            "latest",
        ),
        stdout=subprocess.PIPE,
        check=True,
    )
    ends = {int(p): int(end) for _, p, end in (line.split(":") for line in offsets.stdout.decode().split())}
    hashers = {p: dataset.Hasher() for p in ends}
    command = java(
        jars,
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "--bootstrap-server",
        bootstrap,
        "--topic",
        topic,
        "--from-beginning",
        "--max-messages",
        str(sum(ends.values())),
        "--timeout-ms",
        "60000",
    )
    for name in ("timestamp", "partition", "offset", "key"):
        command += ["--property", f"print.{name}=true"]
    command += ["--property", f"null.literal={NULL.decode()}", "--consumer-property", "check.crcs=true"]
    console = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in console.stdout:
        timestamp, partition, offset, key, value = line.rstrip(b"\n").split(b"\t")
        hashers[int(partition.removeprefix(b"Partition:"))].add(
            int(offset.removeprefix(b"Offset:")),
            int(timestamp.removeprefix(b"CreateTime:")),
            None if key == NULL else key,
            None if value == NULL else value,
        )
    said = console.stderr.read().decode()
    if console.wait() or f"Processed a total of {sum(ends.values())} messages" not in said:
        sys.exit(f"read_console: exit code {console.returncode}\n{said}")
    dataset.report(hashers)


if __name__ == "__main__":
    main(*sys.argv[1:])
