"""Keeps what was followed as a trace, in a thread of its own: a slow disk loses records of the trace, never requests."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from replay.errors import ReplayError
from replay.trace import Trace, TraceWriter
from replay.trace.dictionary import flatten
from replay.trace.importing.readers.jitter import Columns
from replay.trace.route_rules import RouteRules

from .reading import Reading

QUEUE_PARTS_MAX = 1 << 12


class Keeper:
    """Writes entries to the new trace at `path`. `dropped` counts those for which there was no time or no room."""

    def __init__(self, path: Path, reading: Reading, rules: RouteRules) -> None:
        self._reading = reading
        self._writer = TraceWriter(path, rules=rules)
        self._writer.__enter__()
        self._parts: queue.Queue[tuple[Columns, list[bytes]] | None] = queue.Queue(QUEUE_PARTS_MAX)
        self._thread = threading.Thread(target=self._run, name="replay-keep", daemon=True)
        self.dropped = 0
        self.failure: ReplayError | None = None
        self._rows = 0
        self._thread.start()

    def add(self, part: Columns) -> None:
        """Take entries with their starts (`start_ns`). Never waits."""
        store = self._reading.store
        targets = [store.target(number) or b"" for number in part["request"].tolist()]
        try:
            self._parts.put_nowait((part, targets))
        except queue.Full:
            self.dropped += len(targets)

    def _run(self) -> None:
        while (taken := self._parts.get()) is not None:
            part, targets = taken
            if self.failure is not None:
                self.dropped += len(targets)
                continue
            try:
                self._write(part, targets)
            except ReplayError as error:
                self.failure = error
                self.dropped += len(targets)

    def _write(self, part: Columns, targets: list[bytes]) -> None:
        writer = self._writer
        data, offsets = flatten(targets)
        methods = np.array([writer.method_id(name) for name in self._reading.methods], np.int64)
        hosts = np.array([*map(writer.host_id, self._reading.hosts), -1], np.int64)
        ids = writer.add_requests(data, offsets, methods[part["method"]], hosts[self._hosts(part["request"])])
        writer.add_events(
            part["start_ns"], ids, part["client"], part["status"], part["took_ns"], part["size"]
        )
        self._rows += len(targets)

    def _hosts(self, ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        store = self._reading.store
        return np.array([store.host(number) for number in ids.tolist()], np.int64)

    def close(self) -> Trace | None:
        """Write the rest; the trace, or None where there is none. `failure` then says why."""
        self._parts.put(None)
        self._thread.join()
        manifest, reading = self._writer.manifest, self._reading
        manifest.importer, manifest.resolution_ns = reading.importer.name, reading.resolution_ns
        manifest.stamp, manifest.duration_subtracted = reading.reader.stamp, reading.reader.subtracts
        manifest.time_zone = reading.found.time_zone
        manifest.rejected = reading.rejected()
        manifest.secrets_dropped = reading.found.secrets_dropped
        if self.failure is None and self._rows == 0:
            self._discard()
            return None
        try:
            if self.failure is not None:
                raise self.failure
            self._writer.__exit__(None, None, None)
        except ReplayError as error:
            self.failure = error
            self._discard()
            return None
        return self._writer.trace

    def _discard(self) -> None:
        """Leave nothing behind."""
        error = self.failure or KeyboardInterrupt()
        self._writer.__exit__(type(error), error, None)
