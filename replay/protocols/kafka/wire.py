"""Produce requests, pipelined on one connection: their framing, and their answers.

The layout is that of Apache Kafka's protocol guide, Produce (versions 3 to 7, which differ only in the answer).
aiokafka connects (TLS, SASL, API versions); then this module takes over the transport.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError

PRODUCE_KEY = 0
LOWEST, HIGHEST = 3, 7
ANSWER_BYTES = 1 << 16
ANSWER_MAX = 16 << 20


class Answer(NamedTuple):
    """A broker's answer about one batch."""

    part: TopicPartition
    code: int
    offset: int


def produce_request(
    version: int, correlation: int, client_id: bytes, acks: int, timeout_ms: int,
    batches: Sequence[tuple[TopicPartition, memoryview]],
) -> bytes:  # fmt: skip
    """Return a complete frame with one batch per partition. The batches of a topic are adjacent."""
    head = struct.pack(
        f">hhih{len(client_id)}shhi",
        PRODUCE_KEY,
        version,
        correlation,
        len(client_id),
        client_id,
        -1,
        acks,
        timeout_ms,
    )
    by_topic: dict[str, list[tuple[int, memoryview]]] = {}
    for part, data in batches:
        by_topic.setdefault(part.topic, []).append((part.partition, data))
    pieces: list[bytes | memoryview] = [b"", head, struct.pack(">i", len(by_topic))]
    for topic, parts in by_topic.items():
        name = topic.encode()
        pieces.append(struct.pack(f">h{len(name)}si", len(name), name, len(parts)))
        for number, data in parts:
            pieces += (struct.pack(">ii", number, len(data)), data)
    pieces[0] = struct.pack(">i", sum(map(len, pieces)))
    return b"".join(pieces)


def produce_answers(version: int, frame: memoryview) -> tuple[int, list[Answer]]:
    """Parse an answer, and return its correlation id and the result for each batch.

    struct.error or ValueError if the frame is not an answer.
    """
    row = struct.Struct(">ihqqq" if version >= 5 else ">ihqq")
    correlation, topics = struct.unpack_from(">ii", frame)
    at, found = 8, []
    for _ in range(topics):
        (length,) = struct.unpack_from(">h", frame, at)
        topic = str(frame[at + 2 : at + 2 + length], "utf-8")
        (count,) = struct.unpack_from(">i", frame, at + 2 + length)
        at += 6 + length
        for _ in range(count):
            number, code, offset, *_ = row.unpack_from(frame, at)
            found.append(Answer(TopicPartition(topic, number), code, offset))
            at += row.size
    return correlation, found


class ProduceConnection(asyncio.BufferedProtocol):
    """A connection to one broker. Answers arrive in the order of the requests.

    It calls `answered(answers)` and `writable()` while it runs, and `lost(error)` once at the end. `clogged`
    means that the socket accepts no more at present.
    """

    def __init__(
        self, connection: AIOKafkaConnection, acks: int, timeout_ms: int,
        answered: Callable[[list[Answer]], None], writable: Callable[[], None], lost: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        """Take over the transport of a connection that aiokafka made.

        IncompatibleBrokerVersion if the broker supports none of the versions from LOWEST to HIGHEST.
        """
        low, high = connection._versions[PRODUCE_KEY]
        self._version = min(high, HIGHEST)
        if self._version < max(low, LOWEST):
            raise IncompatibleBrokerVersion(
                f"the broker accepts Produce requests of versions {low} to {high}"
            )
        self._client_id = (connection._client_id or "").encode()
        self._acks, self._timeout_ms = acks, timeout_ms
        self._answered, self._writable, self._lost = answered, writable, lost
        self._buffer = bytearray(ANSWER_BYTES)
        self._filled = 0
        self._correlation = self._expected = 0
        self._connection = connection
        self.clogged = self.is_lost = False
        connection._read_task.cancel()
        self._transport = connection._writer.transport
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._transport.resume_reading()

    def send(self, batches: Sequence[tuple[TopicPartition, memoryview]]) -> None:
        """Send one request. Must not be called while `clogged`."""
        self._correlation = (self._correlation + 1) & 0x7FFFFFFF
        self._transport.write(
            produce_request(
                self._version, self._correlation, self._client_id, self._acks, self._timeout_ms, batches
            )
        )

    def close(self) -> None:
        """Close the connection at once; `lost` is called soon after."""
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer that the transport reads into."""
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Handle the complete frames in the buffer."""
        self._filled += nbytes
        at = 0
        while self._filled - at >= 4:
            (size,) = struct.unpack_from(">i", self._buffer, at)
            if not 8 <= size <= ANSWER_MAX:
                self.close()
                return
            if self._filled - at - 4 < size:
                if size + 4 > len(self._buffer):
                    self._buffer = self._buffer[at:] + bytearray(size + 4)
                    self._filled, at = self._filled - at, 0
                break
            self._take(memoryview(self._buffer)[at + 4 : at + 4 + size])
            at += 4 + size
        self._buffer[: self._filled - at] = self._buffer[at : self._filled]
        self._filled -= at

    def _take(self, frame: memoryview) -> None:
        try:
            correlation, answers = produce_answers(self._version, frame)
        except (struct.error, ValueError):
            correlation, answers = -1, []
        self._expected = (self._expected + 1) & 0x7FFFFFFF
        if correlation != self._expected:
            self.close()
        elif not self.is_lost:
            self._answered(answers)

    def pause_writing(self) -> None:
        """Record that the socket is full."""
        self.clogged = True

    def resume_writing(self) -> None:
        """Record that everything has been written to the socket, and notify the sender."""
        self.clogged = False
        self._writable()

    def eof_received(self) -> None:
        """Do nothing: asyncio then closes the connection and calls `connection_lost`."""

    def connection_lost(self, error: Exception | None) -> None:
        """Handle the end of the connection, whichever side closed it."""
        if not self.is_lost:
            self.is_lost = True
            self._connection._on_close_cb = None
            self._connection.close()
            self._lost(KafkaConnectionError(str(error or "the broker closed the connection")))
