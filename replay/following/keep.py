"""Keeps a followed source as a trace, in a separate thread.

If the disk is too slow, the trace lacks entries, but the run's requests are not delayed.
"""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from replay.errors import ReplayError
from replay.trace import Trace, TraceWriter
from replay.trace.dictionary import flatten
from replay.trace.importing.readers.jitter import Columns
from replay.trace.importing.registry import Options
from replay.trace.requests import Headers

from .reading import Reading

QUEUE_PARTS_MAX = 1 << 12

Message = tuple[Headers, bytes | None]
_NO_MESSAGE: Message = ((), b"")


class _Part(NamedTuple):
    """Entries on their way to the trace, with their targets, headers and bodies."""

    columns: Columns
    targets: list[bytes]
    messages: list[Message]
    hosts: npt.NDArray[np.int64]


class Keeper:
    """Writes entries to the new trace at `path`.

    `dropped` counts the entries that are not in the trace, because the queue was full or the disk failed.
    """

    def __init__(self, path: Path, reading: Reading, options: Options) -> None:
        self._reading, self._options = reading, options
        self._writer = TraceWriter(path, rules=options.routes, private=options.keep_secrets)
        self._writer.__enter__()
        self._parts: queue.Queue[_Part | None] = queue.Queue(QUEUE_PARTS_MAX)
        self._thread = threading.Thread(target=self._run, name="replay-keep", daemon=True)
        self.dropped = 0
        self.failure: ReplayError | OSError | None = None
        self._rows = 0
        self._thread.start()

    def add(self, part: Columns) -> None:
        """Queue entries for the trace; if the queue is full, drop them. They must have a column `start_ns`."""
        store = self._reading.store
        numbers = part["request"].tolist()
        targets = [store.target(number) or b"" for number in numbers]
        messages = [store.messages.get(number, _NO_MESSAGE) for number in numbers] if store.messages else []
        hosts = np.array([store.host(number) for number in numbers], np.int64)
        try:
            self._parts.put_nowait(_Part(part, targets, messages, hosts))
        except queue.Full:
            self.dropped += len(targets)

    def _run(self) -> None:
        while (taken := self._parts.get()) is not None:
            if self.failure is not None:
                self.dropped += len(taken.targets)
                continue
            try:
                self._write(taken)
            except (ReplayError, OSError) as error:
                self.failure = error
                self.dropped += len(taken.targets)

    def _write(self, taken: _Part) -> None:
        writer, part, targets = self._writer, taken.columns, taken.targets
        data, offsets = flatten(targets)
        methods = np.array([writer.method_id(name) for name in self._reading.methods], np.int64)
        hosts = np.array([*map(writer.host_id, self._reading.hosts), -1], np.int64)
        headers = [writer.add_headers(found[0]) if found[0] else -1 for found in taken.messages]
        bodies = [writer.add_body(found[1]) if found[1] else -1 for found in taken.messages]
        ids = writer.add_requests(
            data, offsets, methods[part["method"]], hosts[taken.hosts],
            np.array(headers, np.int64) if headers else None, np.array(bodies, np.int64) if bodies else None,
        )  # fmt: skip
        writer.add_events(
            part["start_ns"], ids, part["client"], part["status"], part["took_ns"], part["size"]
        )
        self._rows += len(targets)

    def close(self) -> Trace | None:
        """Write the queued entries, and return the trace.

        Returns None if the trace has no entry, or if writing failed. In the second case, `failure` is the error.
        """
        self._parts.put(None)
        self._thread.join()
        manifest, reading = self._writer.manifest, self._reading
        manifest.importer, manifest.resolution_ns = reading.importer.name, reading.resolution_ns
        manifest.stamp, manifest.duration_subtracted = reading.reader.stamp, reading.reader.subtracts
        manifest.time_zone = reading.found.time_zone
        manifest.rejected = reading.rejected()
        found = reading.found
        manifest.options = {"format": reading.importer.name, **self._options.as_dict()}
        manifest.secrets_dropped, manifest.secrets_by_name = found.secrets_dropped, found.secrets_by_name
        if found.changes:
            manifest.options["scrubbed"] = found.scrubbed()
        if self.failure is None and self._rows == 0:
            self._discard()
            return None
        try:
            if self.failure is not None:
                raise self.failure
            self._writer.__exit__(None, None, None)
        except (ReplayError, OSError) as error:
            self.failure = error
            self.dropped += self._rows  # These rows were written, but are lost with the trace.
            self._discard()
            return None
        return self._writer.trace

    def _discard(self) -> None:
        """Remove the unfinished trace."""
        error = self.failure or KeyboardInterrupt()
        self._writer.__exit__(type(error), error, None)
