"""The checks of `make kafka` at full size, on a real Apache Kafka: `python -m benchmarks.kafka_proof [PART ...]`.

bytes: a million records of 100 B and of 1 kB are read back byte for byte, with acks 1 and idempotent. kills: during a run
at 10,000/s the broker is killed ten times, for 5 s each. volume: ten million records need no more memory than one million.
spacing: a recorded topic replays with its spacing, by the broker's append times.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from replay.cli import invoke
from replay.trace import Trace, TraceWriter
from tests.support.kafka_broker import Broker, jars

from . import kafka, peers

PARTITIONS = 4
START_NS = 1_700_000_000_000_000_000
KILLS, DOWN_S, UP_S = 10, 5.0, 8.0
BACK_S = 12.0
"""The time in s that a broker is expected to need for its start, so that the trace is long enough for all kills."""

START_S = 600.0
"""The time limit in s for a run to begin, which may have to compile kernels first."""


def make(of: Broker, topic: str, **configs: str) -> str:
    """Make a topic, and return its URL."""

    async def made() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=of.address)
        await admin.start()
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=configs)])
        await admin.close()

    asyncio.run(made())
    return f"kafka://{of.address}/{topic}"


def records_of(of: Broker, topic: str) -> Iterator[list[ConsumerRecord]]:
    """Yield batches of all records of a topic; the records of each partition are in order."""
    with asyncio.Runner() as runner:
        consumer = runner.run(_made(of, topic))
        try:
            parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            ends = runner.run(consumer.end_offsets(parts))
            while any(runner.run(consumer.position(part)) < ends[part] for part in parts):
                yield from runner.run(consumer.getmany(timeout_ms=1_000, max_records=20_000)).values()
        finally:
            runner.run(consumer.stop())


async def _made(of: Broker, topic: str) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(bootstrap_servers=of.address, auto_offset_reset="earliest")
    await consumer.start()
    parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(parts)
    await consumer.seek_to_beginning(*parts)
    return consumer


def numbered(path: Path, count: int, value_bytes: int, gap_ns: int) -> Trace:
    """Write a trace of records that differ in key and value, every tenth with a header.

    Row i has the partition i % PARTITIONS.
    """
    with TraceWriter(path) as writer:
        ids = np.empty(count, np.uint32)
        for number in range(count):
            headers = ((b"number", b"%d" % number),) if number % 10 == 0 else None
            ids[number] = writer.add_request(
                "PRODUCE", b"/t/%d?key=%d" % (number % PARTITIONS, number), headers=headers,
                body=value(number, value_bytes),
            )  # fmt: skip
        at_ns = START_NS + np.arange(count, dtype=np.int64) * gap_ns
        writer.add_events(at_ns, ids, np.zeros(count, np.uint32))
        writer.manifest.options = {"topics": {"t": PARTITIONS}}
    assert writer.trace is not None
    return writer.trace


def value(number: int, size: int) -> bytes:
    """Return a value of `size` bytes that no other record has."""
    seed = hashlib.blake2b(b"%d" % number, digest_size=50).digest()
    return (seed * (size // len(seed) + 1))[:size]


def digest(records: Iterator[tuple[int, bytes, bytes, tuple]]) -> list[str]:
    """Return a digest of the records of each partition, in their order."""
    sums = [hashlib.blake2b(digest_size=16) for _ in range(PARTITIONS)]
    for partition, key, body, headers in records:
        sums[partition].update(b"%d %d %r" % (len(key), len(body), headers) + key + body)
    return [one.hexdigest() for one in sums]


def bytes_come_back(folder: Path, of: Broker) -> None:
    """Print whether a million records of each size are read back byte for byte, in the order of each partition."""
    count = 1_000_000
    for size in (100, 1_000):
        trace = numbered(folder / f"{size}.trace", count, size, 10_000)
        sent = digest(
            (n % PARTITIONS, b"%d" % n, value(n, size), (("number", b"%d" % n),) if n % 10 == 0 else ())
            for n in range(count)
        )
        for name, more in (("acks 1", []), ("idempotent", ["--idempotence"])):
            topic = f"bytes-{size}-{len(more)}"
            document = peers.replay(
                folder,
                [
                    str(trace.path),
                    "--target",
                    make(of, topic),
                    "--methods",
                    "all",
                    "--max-wait",
                    "60s",
                    *more,
                ],
            )
            back = digest(
                (r.partition, r.key, r.value, r.headers) for batch in records_of(of, topic) for r in batch
            )
            same = "read back byte for byte" if back == sent else "read back WITH DIFFERENCES"
            print(
                f"{count:,} records of {size} B, {name}: {document['accounts']['ok']:,} acknowledged, {same}",
                flush=True,
            )


def kills(folder: Path, of: Broker) -> None:
    """Print how many records are lost, doubled and late if the broker is killed again and again."""
    count = round(10_000 * (KILLS + 1) * (DOWN_S + BACK_S + UP_S))
    trace = numbered(folder / "kills.trace", count, 100, 100_000)

    def killing(over: threading.Event, killed: list[int]) -> None:
        deadline = time.monotonic() + START_S
        while not any(folder.glob("run-*/started.json")) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(UP_S)
        while killed[0] < KILLS and not over.is_set():
            of.kill()
            killed[0] += 1
            time.sleep(DOWN_S)
            of.start()
            over.wait(UP_S)

    for name, more in (("idempotent", ["--idempotence"]), ("acks 1", [])):
        target, topic = make(of, f"kills-{len(more)}"), f"kills-{len(more)}"
        (folder / "kills.toml").write_text("[breaker]\non = false\n")

        over, killed = threading.Event(), [0]
        killer = threading.Thread(target=killing, args=(over, killed))
        killer.start()
        document = peers.replay(
            folder,
            [str(trace.path), "--target", target, "--methods", "all", "--scenario", str(folder / "kills.toml"),
             "--max-wait", "60s", "--timeout", "60s", *more],
        )  # fmt: skip
        over.set()
        killer.join()
        _say_kills(
            f"{killed[0]} kills, {name}",
            document,
            Counter(r.key for batch in records_of(of, topic) for r in batch),
        )


def _say_kills(name: str, document: dict[str, Any], back: Counter[bytes]) -> None:
    a, response = document["accounts"], document["latency"]["response"]
    balance = a["planned"] == a["sent"] + a["unsent"]
    balance &= a["sent"] == a["ok"] + a["error"] + a["timeout"] + a["in_flight"]
    print(
        f"{name}: {a}; balanced {balance}; offsets agree {document['kafka']['offsets_agree']};"
        f" read back {sum(back.values()):,}, distinct {len(back):,}, doubled {sum(n - 1 for n in back.values()):,},"
        f" acknowledged but lost {max(a['ok'] - len(back), 0):,}; response p50 {response['p50_ns'] / 1e6:.1f} ms,"
        f" p99 {response['p99_ns'] / 1e9:.1f} s, max {response['max_ns'] / 1e9:.1f} s",
        flush=True,
    )


def volume(folder: Path, of: Broker) -> None:
    """Print the peak memory of a short and a long run."""
    trace = kafka.trace_of(folder / "volume.trace")
    for count in (1_000_000, 10_000_000):
        target = make(of, f"volume-{count}", **{"retention.bytes": "200000000"})
        document = peers.replay(
            folder,
            [
                str(trace),
                "--target",
                target,
                "--methods",
                "all",
                "--rate",
                "200000/s",
                "-d",
                f"{count // 200_000}s",
            ],
        )
        rss_mib = peers.peak_rss_mib(document)
        print(
            f"{count:,} records: {document['accounts']['ok']:,} acknowledged, peak RSS {rss_mib:.0f} MiB",
            flush=True,
        )


def spacing(folder: Path, of: Broker) -> None:
    """Print how far the spacing of a replayed topic is off, by the broker's append times (in whole ms)."""
    random = np.random.default_rng(7)
    gaps_ns = random.exponential(2_000_000, 10_000).astype(np.int64)
    with TraceWriter(folder / "spaced.trace") as writer:
        one = writer.add_request("PRODUCE", b"/t/0?key=k", body=b"v" * 100)
        at_ns = START_NS + np.cumsum(gaps_ns)
        writer.add_events(at_ns, np.full(len(at_ns), one, np.uint32), np.zeros(len(at_ns), np.uint32))
        writer.manifest.options = {"topics": {"t": 1}}
    first = make(of, "spaced", **{"message.timestamp.type": "LogAppendTime"})
    peers.replay(folder, [str(folder / "spaced.trace"), "--target", first, "--methods", "all"])
    assert invoke(["record", first, "-o", str(folder / "again.trace")]) == 0
    again = make(of, "again", **{"message.timestamp.type": "LogAppendTime"})
    peers.replay(folder, [str(folder / "again.trace"), "--target", again, "--methods", "all"])
    stamps = [
        np.sort(np.array([r.timestamp for batch in records_of(of, topic) for r in batch], np.float64))
        for topic in ("spaced", "again")
    ]
    late = (stamps[1] - stamps[1][0]) - (stamps[0] - stamps[0][0])
    off = np.abs(late - np.median(late))
    print(f"{len(off):,} records: append times off by {np.percentile(off, 50):.1f} ms (p50),"
          f" {np.percentile(off, 99):.1f} ms (p99), {off.max():.0f} ms (max)", flush=True)  # fmt: skip


PARTS: dict[str, Callable[[Path, Broker], None]] = {
    "bytes": bytes_come_back, "kills": kills, "volume": volume, "spacing": spacing,
}  # fmt: skip


def main() -> None:
    """Run the requested parts, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=PARTS, default=())
    chosen = parser.parse_args().parts or list(PARTS)
    # SIGTERM acts as Ctrl-C, so that the broker ends, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="replay-proof-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "jars").mkdir()
        (folder / "broker").mkdir()
        of = Broker(folder / "broker", jars(folder / "jars"), core=peers.SERVER_CORE)
        of.start()
        stack.callback(of.kill)
        for part in chosen:
            PARTS[part](folder, of)


if __name__ == "__main__":
    main()
