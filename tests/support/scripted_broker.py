"""A Kafka broker that says what a test has it say: its own TCP server, a few requests, lies on demand.

It keeps what is produced (a list of record batches by partition), so that what it answers is consistent unless a test
changes it. Several may share one `Cluster`.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from aiokafka.protocol import admin, commit, coordination, fetch, metadata, offset, produce

MESSAGE_TOO_LARGE = 10

_REQUESTS: dict[int, Any] = {
    0: produce.ProduceRequest_v3,
    1: fetch.FetchRequest_v4,
    2: offset.OffsetRequest_v2,
    3: metadata.MetadataRequest_v1,
    8: commit.OffsetCommitRequest_v2,
    9: commit.OffsetFetchRequest_v1,
    10: coordination.FindCoordinatorRequest_v0,
    17: admin.SaslHandShakeRequest_v1,
    18: admin.ApiVersionRequest_v0,
    32: admin.DescribeConfigsRequest_v0,
    36: admin.SaslAuthenticateRequest_v0,
}
DESCRIBE_CONFIGS = 32

Batch = tuple[int, int, bytes]
"""The offset of the first record, how many there are, the batch as it was sent."""


@dataclass
class Cluster:
    """What all brokers of a cluster say. Tests change it at any time.

    `advertised` has by node id where a broker is; `ends` what the end of a partition is, from what it really is.
    `refuse(count, size)` is the error code for a batch, `largest` the topics' max.message.bytes (None: not described).
    """

    topic: str = "t"
    partitions: int = 1
    advertised: dict[int, tuple[str, int]] = field(default_factory=dict)
    leader: Callable[[int], int] = lambda partition: 1
    replicas: list[int] = field(default_factory=lambda: [1])
    coordinator: int = 1
    ends: Callable[[int, int], int] = lambda partition, end: end
    refuse: Callable[[int, int], int] = lambda count, size: 0
    largest: int | None = None
    log: dict[int, list[Batch]] = field(default_factory=lambda: defaultdict(list))
    refused: list[tuple[int, int]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    credentials: list[bytes] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def end(self, partition: int) -> int:
        """Where a partition really ends."""
        batches = self.log[partition]
        return batches[-1][0] + batches[-1][1] if batches else 0


class ScriptedBroker:
    """One broker of a cluster, which serves connections of a listening socket, each in a thread."""

    def __init__(self, cluster: Cluster, listener: socket.socket | None = None) -> None:
        self.cluster = cluster
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        host, port = self.listener.getsockname()[:2]
        self.place: tuple[str, int] = (host, port)
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return "{}:{}".format(*self.place)

    def close(self) -> None:
        """Close the listener and all connections, as a broker that dies."""
        self.listener.close()
        for connection in self.connections:
            with_no_error(connection.shutdown, socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with_no_error(self._answer_all, connection)
        with_no_error(connection.close)

    def _answer_all(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while head := stream.read(4):
            frame = BytesIO(stream.read(struct.unpack(">i", head)[0]))
            key, _, correlation, length = struct.unpack(">hhih", frame.read(10))
            frame.read(max(length, 0))
            request = _REQUESTS[key]
            with self.cluster.lock:
                self.cluster.asked.append(key)
            answer = getattr(self, f"_answer_{key}")(request.decode(frame))
            body = struct.pack(">i", correlation) + request.RESPONSE_TYPE(*answer).encode()
            connection.sendall(struct.pack(">i", len(body)) + body)

    def _answer_18(self, _: Any) -> tuple[Any, ...]:
        known = [key for key in _REQUESTS if key != DESCRIBE_CONFIGS or self.cluster.largest is not None]
        return 0, [(key, _REQUESTS[key].API_VERSION, _REQUESTS[key].API_VERSION) for key in known]

    def _answer_17(self, _: Any) -> tuple[Any, ...]:
        return 0, ["PLAIN"]

    def _answer_36(self, request: Any) -> tuple[Any, ...]:
        self.cluster.credentials.append(request.sasl_auth_bytes)
        return 0, "", b""

    def _answer_3(self, _: Any) -> tuple[Any, ...]:
        cluster = self.cluster
        brokers = [(number, host, port, None) for number, (host, port) in cluster.advertised.items()]
        leaders = [cluster.leader(partition) for partition in range(cluster.partitions)]
        parts = [
            (0 if leader >= 0 else 5, partition, leader, cluster.replicas, cluster.replicas)
            for partition, leader in enumerate(leaders)
        ]
        return brokers, brokers[0][0], [(0, cluster.topic, False, parts)]

    def _answer_10(self, _: Any) -> tuple[Any, ...]:
        number = self.cluster.coordinator
        return 0, number, *self.cluster.advertised[number]

    def _answer_8(self, request: Any) -> tuple[Any, ...]:
        return ([(topic, [(part[0], 0) for part in parts]) for topic, parts in request.topics],)

    def _answer_9(self, request: Any) -> tuple[Any, ...]:
        return ([(topic, [(part, -1, "", 0) for part in parts]) for topic, parts in request.topics],)

    def _answer_2(self, request: Any) -> tuple[Any, ...]:
        def end(partition: int, stamp: int) -> int:
            return 0 if stamp == -2 else self.cluster.ends(partition, self.cluster.end(partition))

        with self.cluster.lock:
            topics = [
                (topic, [(partition, 0, -1, end(partition, stamp)) for partition, stamp in parts])
                for topic, parts in request.topics
            ]
        return 0, topics

    def _answer_0(self, request: Any) -> tuple[Any, ...]:
        with self.cluster.lock:
            topics = [
                (topic, [(partition, *self._append(partition, data), -1) for partition, data in parts])
                for topic, parts in request.topics
            ]
        return topics, 0

    def _append(self, partition: int, data: bytes) -> tuple[int, int]:
        (count,) = struct.unpack_from(">i", data, 57)
        code = self.cluster.refuse(count, len(data))
        if code:
            self.cluster.refused.append((count, len(data)))
            return code, -1
        first = self.cluster.end(partition)
        self.cluster.log[partition].append((first, count, data))
        return 0, first

    def _answer_1(self, request: Any) -> tuple[Any, ...]:
        found = [
            (topic, [(partition, *self._read(partition, first)) for partition, first, _ in parts])
            for topic, parts in request.topics
        ]
        if not any(data for _, parts in found for *_, data in parts):
            time.sleep(0.05)
        return 0, found

    def _read(self, partition: int, first: int) -> tuple[Any, ...]:
        with self.cluster.lock:
            end = self.cluster.end(partition)
            batches = [
                struct.pack(">q", at) + data[8:]
                for at, count, data in self.cluster.log[partition]
                if at + count > first
            ]
        return 0, end, end, [], b"".join(batches)

    def _answer_32(self, request: Any) -> tuple[Any, ...]:
        entries = [
            ("max.message.bytes", str(self.cluster.largest), False, False, False),
            ("cleanup.policy", "delete", False, True, False),
            ("retention.ms", "-1", False, True, False),
        ]
        return 0, [(0, "", 2, resource[1], entries) for resource in request.resources]


def with_no_error(step: Callable[..., object], *arguments: Any) -> None:
    """Do it; a connection that ends is no error of a broker."""
    try:
        step(*arguments)
    except (OSError, struct.error, ValueError):
        return


def single(**more: Any) -> tuple[Cluster, ScriptedBroker]:
    """A cluster of one broker, which says the truth."""
    cluster = Cluster(**more)
    broker = ScriptedBroker(cluster)
    cluster.advertised[1] = broker.place
    return cluster, broker
