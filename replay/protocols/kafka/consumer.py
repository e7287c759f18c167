"""The consumer, a separate process: reports the records that arrive, their times, and its lag.

It has an interpreter of its own, so reading cannot delay sending. `python -m replay.protocols.kafka.consumer`
reads a pickled `Order` from its standard input, and writes frames to its standard output until its input is
closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import struct
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from replay.plan.safety import Allowed
from replay.settings.scenario import Kafka

from .cluster import CONNECT_TIMEOUT_S, client_settings, last_reason
from .failures import as_replay_error
from .gate import Gate, GatedLoop
from .target import KafkaTarget

FRAME = struct.Struct("<iiqqqqi")
"""The header of a frame, which the bytes of its body follow.

Its fields are the partition, the number of records, the first offset and the one after the last, the partition's
end, the time (ns), and the length of the body. The body of a frame of answers has the length of each record's join
key (int32; -1: none), and then all keys. For other records it is empty.
"""

READY, FAILED, REFUSED = -1, -2, -3
"""Codes in place of a partition.

READY: the consumer is ready. FAILED: it failed; the body is the pickled error. REFUSED: the cluster advertised
a host that is not allowed; the body is its name.
"""

POLL_MS = 200
RECORDS_AT_ONCE = 500
COMMIT_MS = 1_000


@dataclass(frozen=True, slots=True)
class Order:
    """What to consume.

    The partitions from index `answers` on belong to the topic of answers. Answers are joined by their key or by
    the header `answers_by`.
    """

    target: KafkaTarget
    kafka: Kafka
    group: str
    parts: tuple[TopicPartition, ...]
    answers: int
    answers_by: str
    allowed: Allowed


def _known_by(records: Sequence[ConsumerRecord], by: str) -> bytes:
    """Return the join keys of records in the form of a frame's body."""
    if by == "key":
        known: list[bytes | None] = [record.key for record in records]
    else:
        known = [next((value for name, value in record.headers if name == by), None) for record in records]
    lengths = array("i", (-1 if value is None else len(value) for value in known))
    return lengths.tobytes() + b"".join(value or b"" for value in known)


def _write(index: int, count: int, first: int, end: int, high: int, seen_ns: int, more: bytes = b"") -> None:
    sys.stdout.buffer.write(FRAME.pack(index, count, first, end, high, seen_ns, len(more)) + more)
    sys.stdout.buffer.flush()


async def _consume(order: Order, gate: Gate) -> None:
    settings: dict[str, Any] = client_settings(order.target, order.kafka)
    consumer = AIOKafkaConsumer(
        **settings, group_id=order.group, enable_auto_commit=True, auto_commit_interval_ms=COMMIT_MS,
        max_poll_records=RECORDS_AT_ONCE,
    )  # fmt: skip
    places = {part: index for index, part in enumerate(order.parts)}
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    task, named = asyncio.current_task(), 0
    if task is not None:
        gate.on_refusal = task.cancel
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await consumer.start()
            consumer.assign(order.parts)
            ends = await consumer.end_offsets(list(order.parts))
            for part, end in ends.items():
                consumer.seek(part, end)
                _write(places[part], 0, end, end, end, 0)
        gate.on_refusal = lambda: None
        _write(READY, 0, 0, 0, 0, 0)
        while not over.is_set():
            for host in list(gate.refused)[named:]:
                named += 1
                _write(REFUSED, 0, 0, 0, 0, 0, host.encode())
            batches = await consumer.getmany(timeout_ms=POLL_MS)
            seen_ns = time.monotonic_ns()
            for part, records in batches.items():
                index, end = places[part], records[-1].offset + 1
                more = _known_by(records, order.answers_by) if index >= order.answers else b""
                high = consumer.highwater(part) or end
                _write(index, len(records), records[0].offset, end, high, seen_ns, more)
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2):
                await consumer.stop()


def _read(count: int) -> bytes:
    """Read this many bytes of standard input (fewer at its end), and none beyond, since its end is awaited later."""
    data = b""
    while len(data) < count and (more := os.read(sys.stdin.fileno(), count - len(data))):
        data += more
    return data


def main() -> None:
    """Read the order, and consume until standard input is closed."""
    order: Order = pickle.loads(_read(int.from_bytes(_read(8), "little")))
    gate = Gate(order.allowed.check)
    try:
        with asyncio.Runner(loop_factory=lambda: GatedLoop(gate)) as runner:
            runner.run(_consume(order, gate))
    except BrokenPipeError:
        os._exit(1)
    except (Exception, asyncio.CancelledError) as error:
        refused = next(iter(gate.refused.values()), None)
        why = refused or as_replay_error(last_reason() or error, order.target.authority)
        _write(FAILED, 0, 0, 0, 0, 0, pickle.dumps(why))


if __name__ == "__main__":
    main()
