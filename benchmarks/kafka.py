"""Kafka: records per CPU second beside other producers, how late records are sent, and how fast batches are encoded.

The broker is a real Apache Kafka on a core of its own. The producers take turns on another core.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from replay.trace import TraceWriter
from replay_native.feed.ring import ENTRY
from replay_native.kafka import recordbatch as kernels
from tests.support.kafka_broker import Broker, jars

from . import peers

VALUE_BYTES = 100
BATCH_BYTES = 1_000_000
"""The default of replay and librdkafka. The default of the Java client, 16 KiB, is slower."""

RECORDS = 2_000_000
REPLAY_S = 4
"""The length of replay's runs in s."""

LINGER_MS = 5
"""How long the other producers, and replay in its last two entries, wait for a batch to fill.

replay's default, 1 ms, favors punctuality over CPU time.
"""

PROGRAMS = {
    "replay at 400,000/s": (400_000, 1, ()),
    "replay at 1,000,000/s": (1_000_000, 1, ()),
    f"replay at 1,500,000/s, {LINGER_MS} ms": (1_500_000, LINGER_MS, ()),
    f"replay at 1,500,000/s, {LINGER_MS} ms, idempotent": (1_500_000, LINGER_MS, ("--idempotence",)),
}
"""Rate per second, tick in ms, and flags. replay keeps a schedule; the other producers send as fast as they can."""

ROUNDS = 3
PUNCTUAL_RATES = (1_000, 10_000, 50_000)
PUNCTUAL_S = 6
EXAMPLE = Path("/usr/share/doc/librdkafka-dev/examples/rdkafka_performance.c")

RD_H = """\
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#define RD_UNUSED __attribute__((unused))
#define RD_MIN(a, b) ((a) < (b) ? (a) : (b))
#define RD_MAX(a, b) ((a) > (b) ? (a) : (b))
#define rd_snprintf snprintf
typedef int64_t rd_ts_t;
static inline RD_UNUSED rd_ts_t rd_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (rd_ts_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}
"""
"""Stands in for the internal headers of librdkafka that the example needs, which Debian's package does not contain."""

CONFLUENT = """\
import sys
from confluent_kafka import Producer
broker, topic, count, size, batch = sys.argv[1:4] + [int(sys.argv[4]), int(sys.argv[5])]
producer = Producer({"bootstrap.servers": broker, "acks": 1, "linger.ms": 5, "batch.size": batch,
                     "queue.buffering.max.messages": 1_000_000})
failed = 0
def delivered(error, message):
    global failed
    failed += error is not None
value = b"v" * size
for number in range(int(count)):
    while True:
        try:
            producer.produce(topic, value, partition=0, on_delivery=delivered)
            break
        except BufferError:
            producer.poll(0.01)
    if number % 1000 == 0:
        producer.poll(0)
assert producer.flush(60) == 0 and failed == 0
"""


def rdkafka_performance(folder: Path) -> str | None:
    """Build librdkafka's own benchmark from Debian's librdkafka-dev; return None if that, gcc or the build is missing."""
    if not EXAMPLE.exists() or shutil.which("gcc") is None:
        return None
    source = folder / "src"
    source.mkdir(exist_ok=True)
    for name in ("rd.h", "rdtime.h"):
        (source / name).write_text("#pragma once\n" + RD_H)
    (folder / "examples").mkdir(exist_ok=True)
    shutil.copy(EXAMPLE, folder / "examples")
    program = folder / "rdkafka_performance"
    built = subprocess.run(
        ["gcc", "-O2", f"-I{source}", "-I/usr/include/librdkafka", "-o", str(program),
         str(folder / "examples" / EXAMPLE.name), "-lrdkafka", "-lpthread", "-lz", "-lm"],
        capture_output=True, check=False,
    )  # fmt: skip
    return str(program) if built.returncode == 0 else None


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """Run a real Apache Kafka on the server's core."""
    (folder / "jars").mkdir()
    (folder / "broker").mkdir()
    made = Broker(folder / "broker", jars(folder / "jars"), core=peers.SERVER_CORE)
    made.start()
    try:
        yield made
    finally:
        made.kill()


def new_topic(of: Broker, name: str, partitions: int = 1) -> str:
    """Make a topic, and return its name."""

    async def made() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=of.address)
        await admin.start()
        await admin.create_topics([NewTopic(name, partitions, 1)])
        await admin.close()

    asyncio.run(made())
    return name


def trace_of(path: Path, value_bytes: int = VALUE_BYTES, distinct: int = 1_000_000) -> Path:
    """Write a trace of equal records without keys for one topic, which runs at a constant rate repeat."""
    with TraceWriter(path) as writer:
        request = writer.add_request("PRODUCE", b"/t/0", body=b"v" * value_bytes)
        at_ns = np.arange(distinct, dtype=np.int64) * 1_000
        writer.add_events(at_ns, np.full(distinct, request, np.uint32), np.zeros(distinct, np.uint32))
        writer.manifest.options = {"topics": {"t": 1}}
    return path


def encode() -> dict[str, float]:
    """Return the records per second that one core encodes and seals, by batch size; the median of seven rounds."""
    tail = (
        bytes([1]) + bytes([2 * VALUE_BYTES & 127 | 128, 2 * VALUE_BYTES >> 7]) + b"v" * VALUE_BYTES + b"\0"
    )
    count = 10_000
    size = 1 << (count * len(tail) - 1).bit_length()
    ring = np.zeros(size, np.uint8)
    ring[: count * len(tail)] = np.frombuffer(tail * count, np.uint8)
    rows = np.zeros(count, ENTRY)
    rows["offset"], rows["length"], rows["state"] = np.arange(count) * len(tail), len(tail), 1_700_000_000_000
    found = {}
    for name, limit in (("64 KiB", 65_536), ("1 MB", BATCH_BYTES)):
        buffer, state = np.zeros(limit, np.uint8), np.zeros(kernels.BATCH_WORDS, np.int64)
        rates = []
        for _ in range(7):
            done, began = 0, time.perf_counter()
            while done < 3_000_000:
                at = 0
                while at < count:
                    kernels.begin(buffer, state)
                    at = kernels.append(buffer, state, rows, ring, at, count, limit)
                    kernels.seal(buffer, state, 0, -1, -1, -1)
                done += count
            rates.append(done / (time.perf_counter() - began))
        found[name] = statistics.median(rates)
    return found


def _replay(
    folder: Path, trace: Path, of: Broker, topic: str, rate: int, tick_ms: int, more: Sequence[str]
) -> float:
    scenario = folder / f"{tick_ms}ms.toml"
    scenario.write_text(f'[kafka]\ntick = "{tick_ms}ms"\n')
    document = peers.replay(
        folder,
        [str(trace), str(scenario), "--target", f"kafka://{of.address}/{topic}", "--methods", "all",
         "--rate", f"{rate}/s", "-d", f"{REPLAY_S}s", *more],
    )  # fmt: skip
    return float(document["accounts"]["ok"] / document["generator"]["cpu_s"])


def capacity(folder: Path, of: Broker, trace: Path) -> dict[str, float]:
    """Return records per CPU second of the producer by program, medians over interleaved rounds."""
    program = rdkafka_performance(folder)
    counted = ["--num-records", str(RECORDS), "--record-size", str(VALUE_BYTES), "--throughput", "-1"]
    props = [
        f"bootstrap.servers={of.address}",
        "acks=1",
        f"linger.ms={LINGER_MS}",
        f"batch.size={BATCH_BYTES}",
    ]
    rounds: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        topic = new_topic(of, f"capacity-{number}")
        for name, how in PROGRAMS.items():
            rounds.setdefault(name, []).append(_replay(folder, trace, of, topic, *how))
        if program:
            done = peers.finish(
                [program, "-P", "-t", topic, "-p", "0", "-b", of.address, "-s", str(VALUE_BYTES), "-c", str(RECORDS),
                 "-a", "1", "-q", "-X", f"linger.ms={LINGER_MS}", "-X", f"batch.size={BATCH_BYTES}",
                 "-X", "queue.buffering.max.messages=1000000"],
            )  # fmt: skip
            rounds.setdefault("rdkafka_performance", []).append(RECORDS / done.cpu_s)
        done = peers.finish([sys.executable, "-c", CONFLUENT, of.address, topic, str(RECORDS // 2),
                             str(VALUE_BYTES), str(BATCH_BYTES)])  # fmt: skip
        rounds.setdefault("confluent-kafka", []).append(RECORDS / 2 / done.cpu_s)
        done = peers.finish(of.command("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, *counted,
                                       "--producer-props", *props))  # fmt: skip
        rounds.setdefault("kafka-producer-perf-test", []).append(RECORDS / done.cpu_s)
    return {name: statistics.median(values) for name, values in rounds.items()}


def _with_live_view(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Run `replay run` in a terminal, so that its live view is on, and return its run.json."""
    import json

    run = folder / f"run-{time.monotonic_ns()}"
    ours, theirs = pty.openpty()

    def drain() -> None:
        with contextlib.suppress(OSError):
            while os.read(ours, 65_536):
                pass

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    command = [sys.executable, "-m", "replay.cli", "run", *arguments, "-o", str(run)]
    subprocess.run(peers.pinned(peers.GENERATOR_CORE, command), stdin=theirs, stdout=theirs, stderr=theirs,
                   timeout=300, check=False, env=os.environ | {"TERM": "xterm"})  # fmt: skip
    os.close(theirs)
    reader.join(5)
    os.close(ours)
    document: dict[str, Any] = json.loads((run / "run.json").read_text())
    shutil.rmtree(run)
    return document


def _stamps_ms(of: Broker, topic: str) -> np.ndarray:
    """Return the CreateTimes in ms of all records in the first partition of a topic."""

    async def read() -> list[int]:
        consumer = AIOKafkaConsumer(bootstrap_servers=of.address, auto_offset_reset="earliest")
        await consumer.start()
        part = TopicPartition(topic, 0)
        consumer.assign([part])
        end = (await consumer.end_offsets([part]))[part]
        await consumer.seek_to_beginning(part)
        stamps: list[int] = []
        while await consumer.position(part) < end:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                stamps += [record.timestamp for record in records]
        await consumer.stop()
        return stamps

    return np.array(asyncio.run(read()), np.float64)


def _perf_test_late_ms(of: Broker, topic: str, rate: int) -> dict[str, float]:
    """Return how late kafka-producer-perf-test sends, by its CreateTimes, relative to its most punctual record.

    `late_*` are percentiles after its first second, and `start_ms` is the maximum of its first tenth of a second.
    """
    done = peers.finish(
        of.command("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records",
                   str(rate * PUNCTUAL_S), "--record-size", str(VALUE_BYTES), "--throughput", str(rate),
                   "--producer-props", f"bootstrap.servers={of.address}", "acks=1", "linger.ms=0"),
    )  # fmt: skip
    stamps = _stamps_ms(of, topic)
    late = stamps - np.arange(len(stamps)) * 1_000 / rate
    late -= late.min()
    settled = late[rate:]
    return {
        "late_p50_ms": float(np.percentile(settled, 50)), "late_p99_ms": float(np.percentile(settled, 99)),
        "start_ms": float(late[: max(rate // 10, 1)].max()), "cores": done.cpu_s / PUNCTUAL_S,
    }  # fmt: skip


def punctuality(folder: Path, of: Broker, trace: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return delays of records in ms by rate and program: of replay medians of ROUNDS, of the peer one round."""
    found = {}
    for rate in PUNCTUAL_RATES:
        rounds = []
        for number in range(ROUNDS):
            topic = new_topic(of, f"late-{rate}-{number}", 4)
            arguments = [str(trace), "--target", f"kafka://{of.address}/{topic}", "--methods", "all",
                         "--rate", f"{rate}/s", "-d", f"{PUNCTUAL_S}s"]  # fmt: skip
            document = _with_live_view(folder, arguments)
            latency = document["latency"]
            rounds.append({
                f"{kind}_{name}_ms": latency[kind][f"{name}_ns"] / 1e6
                for kind in ("lateness", "wait", "service") for name in ("p50", "p99")
            } | {"cores": document["generator"]["cpu_s"] / document["duration_s"]})  # fmt: skip
        peer = _perf_test_late_ms(of, new_topic(of, f"throttled-{rate}"), rate)
        found[str(rate)] = {
            "replay": {name: statistics.median(each[name] for each in rounds) for name in rounds[0]},
            "kafka-producer-perf-test": peer,
        }
    return found


def measure(folder: Path) -> dict[str, Any]:
    """Return the figures of all three benchmarks, against a broker that is started for them."""
    trace = trace_of(folder / "kafka.trace")
    with broker(folder) as of:
        return {
            "encode": encode(), "capacity": capacity(folder, of, trace), "punctuality": punctuality(folder, of, trace),
        }  # fmt: skip
