"""A source that is followed, in place of a trace: lists for plan and renderer that grow with the source."""

from __future__ import annotations

import secrets
from pathlib import Path

from replay.trace import Manifest, Trace
from replay.trace.requests import Requests

from .reading import Reading


class FollowedRequests(Requests):
    """The requests of a source. None is known before it is due: kernels read them by `RequestStore.table`."""

    def __init__(self, reading: Reading) -> None:
        self.rows = 0
        self.methods, self.hosts = reading.methods, reading.hosts
        self.routes, self.actions = reading.book.names, reading.book.actions
        self.batches = []
        self._header_sets = self._bodies = None


class FollowedTrace(Trace):
    """What is followed. It has no rows of its own; its digest is that of no other source."""

    def __init__(self, name: str, reading: Reading, clients: int) -> None:
        super().__init__(Path(name), Manifest(clients=clients, time_zone=reading.found.time_zone))
        self._requests = FollowedRequests(reading)
        self._digest = f"followed-{secrets.token_hex(8)}"

    @property
    def requests(self) -> Requests:  # type: ignore[override]
        """The lists of methods, hosts and routes."""
        return self._requests

    @property
    def digest(self) -> str:  # type: ignore[override]
        """A name of its own: what was followed cannot be followed again."""
        return self._digest
