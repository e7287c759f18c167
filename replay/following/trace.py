"""Stands in for a trace when a source is followed: lists for plan and renderer that grow with the source."""

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
    """Header sets or bodies in memory."""

    def __init__(self, values: list[Any], schema: pa.Schema) -> None:
        array = pa.array(values, type=schema.field(0).type)
        self._batches = [pa.record_batch([array], schema=schema)]

    def __len__(self) -> int:
        return int(self._batches[0].num_rows)

    def __getitem__(self, index: int) -> Any:
        return self._batches[0].column(0)[index].as_py()

    def loaded_batches(self) -> Iterator[pa.RecordBatch]:
        """Nothing to load: all data is in memory."""
        return iter(self._batches)


class _MemoryBodies(_MemoryBlobs, PlainBodies):
    """Bodies in memory."""


class FollowedRequests(Requests):
    """The requests of a source. None is known before it is due: kernels read them through `RequestStore.table`."""

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
    """The followed source. It has no rows, and its digest is unique."""

    def __init__(self, name: str, reading: Reading, clients: int) -> None:
        options = {"topics": dict(reading.found.topics)} if reading.found.topics else {}
        super().__init__(
            Path(name), Manifest(clients=clients, time_zone=reading.found.time_zone, options=options)
        )
        self._requests = FollowedRequests(reading)
        self._digest = f"followed-{secrets.token_hex(8)}"

    @property
    def requests(self) -> Requests:  # type: ignore[override]
        """The lists of methods, hosts and routes."""
        return self._requests

    @property
    def digest(self) -> str:  # type: ignore[override]
        """A unique name: a source cannot be followed twice."""
        return self._digest


class BatchTrace(Trace):
    """The hosts, header sets and bodies that a few due rows refer to."""

    def __init__(self, reading: Reading, headers: Sequence[Headers], bodies: Sequence[bytes]) -> None:
        super().__init__(Path(), Manifest())
        self._requests = FollowedRequests(reading, headers, bodies)

    @property
    def requests(self) -> Requests:  # type: ignore[override]
        """The requests, which are all that a followed trace has."""
        return self._requests
