"""Takes the place of a trace when a source is followed, with lists that grow with the source."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from replay.trace import Manifest, Trace
from replay.trace.blobs import BODIES_SCHEMA, Blobs, PlainBodies
from replay.trace.requests import HEADERS_SCHEMA, Headers, Requests

from .reading import Reading


class _MemoryBlobs(Blobs):
    """Header sets or bodies that are in memory."""

    def __init__(self, values: list[Any], schema: pa.Schema) -> None:
        array = pa.array(values, type=schema.field(0).type)
        self._batches = [pa.record_batch([array], schema=schema)]

    def __len__(self) -> int:
        return int(self._batches[0].num_rows)

    def __getitem__(self, index: int) -> Any:
        return self._batches[0].column(0)[index].as_py()

    def loaded_batches(self) -> Iterator[pa.RecordBatch]:
        """Return the only batch; its data is always loaded."""
        return iter(self._batches)


class _MemoryBodies(_MemoryBlobs, PlainBodies):
    """Bodies that are in memory."""


class FollowedRequests(Requests):
    """The requests dictionary of a followed source, without any requests.

    Requests are known only shortly before they are due. Kernels read them through `RequestStore.table`.
    """

    def __init__(
        self, reading: Reading, headers: Sequence[Headers] = (), bodies: Sequence[bytes] = ()
    ) -> None:
        self.rows = 0
        self.methods, self.hosts = reading.methods, reading.hosts
        self.routes, self.actions = reading.book.names, reading.book.actions
        self.batches = []
        self._header_sets = self._bodies = None
        if headers or bodies:
            pairs = [[{"name": name, "value": value} for name, value in one] for one in headers]
            self._header_sets = _MemoryBlobs(pairs, HEADERS_SCHEMA)
            self._bodies = _MemoryBodies(list(bodies), BODIES_SCHEMA)


class FollowedTrace(Trace):
    """The trace of a followed source. It has no rows, and its digest is unique."""

    def __init__(self, name: str, reading: Reading, clients: int) -> None:
        options = {"topics": dict(reading.found.topics)} if reading.found.topics else {}
        super().__init__(
            Path(name), Manifest(clients=clients, time_zone=reading.found.time_zone, options=options)
        )
        self._requests = FollowedRequests(reading)
        self._digest = f"followed-{secrets.token_hex(8)}"

    @property
    def requests(self) -> Requests:  # type: ignore[override]
        """Return the dictionary with the lists of methods, hosts and routes."""
        return self._requests

    @property
    def digest(self) -> str:  # type: ignore[override]
        """Return a unique digest, because a source cannot be followed twice with the same entries."""
        return self._digest


class BatchTrace(Trace):
    """The hosts, header sets and bodies to which the rows of one batch refer."""

    def __init__(self, reading: Reading, headers: Sequence[Headers], bodies: Sequence[bytes]) -> None:
        super().__init__(Path(), Manifest())
        self._requests = FollowedRequests(reading, headers, bodies)

    @property
    def requests(self) -> Requests:  # type: ignore[override]
        """Return the dictionary with the header sets and bodies."""
        return self._requests
