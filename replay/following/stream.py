"""A growing source in the form that importers read: a `SourceFile` whose blocks arrive as they are written."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from replay.results.document import Note
from replay.trace.importing.registry import Importer
from replay.trace.importing.sources import SourceFile

POLL_S = 0.02
"""Time between two polls of the source."""

LINE_BYTES_MAX = 1 << 20
"""Longer lines are not waited for."""


class Stream(SourceFile):
    """A source of lines whose end is unknown.

    `in_history` is true while lines from before the run are delivered. `caught_up_ns` is the last instant
    (CLOCK_MONOTONIC) at which there was nothing left to read: lines read later did not exist then. `has_header`: the
    first line of a file names its columns.
    """

    kind = ""
    rotations = 0
    has_header = False
    is_recorded = True
    """Whether what was read and not sent still exists at the source. Mirrored requests do not."""

    own_format: Importer | None = None
    """The format of a source that is no text; None if it is found in the first lines."""

    def __init__(self, name: str) -> None:
        self.name, self.head, self.wrapper, self.damaged = name, b"", "", ""
        self.compression = ""
        self.bytes_done = 0
        self.in_history = True
        self.caught_up_ns = time.monotonic_ns()
        self.ended_by_itself = False
        self.stopped = threading.Event()
        self.on_live: Callable[[], None] = lambda: None

    @abstractmethod
    def wait_for_head(self, is_stopped: Callable[[], bool], waiting: Callable[[str], None]) -> bool:
        """Wait until `head` has enough to detect the format; False if stopped before."""

    @property
    def truncations(self) -> int:
        """How often the source was truncated or replaced in place."""
        return 0

    def trouble(self) -> str:
        """The current problem with the source; empty if there is none."""
        return ""

    def notes(self) -> list[Note]:
        """Other notes about the source for the result."""
        return []

    def lost(self) -> dict[str, int]:
        """Requests that arrived but could not be passed on, by reason."""
        return {}

    def _history(self) -> Iterator[bytes]:
        """Whole lines that were written before the run."""
        return iter(())

    @abstractmethod
    def _new(self) -> list[bytes]:
        """New whole lines; empty if there are none now."""

    def _last(self) -> list[bytes]:
        """The remainder at the end: a last line without its line end."""
        return []

    def _has_ended(self) -> bool:
        """Whether no more data will ever come."""
        return False

    def stream(self) -> Iterator[memoryview]:
        """The same as pieces of bytes."""
        for data in self._pieces():
            yield memoryview(bytearray(data))

    def _blocks(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        for data in self._pieces():
            buffer = np.zeros(len(data) + 64, dtype=np.uint8)  # kernels read some bytes past the end
            buffer[: len(data)] = np.frombuffer(data, dtype=np.uint8)
            yield buffer, len(data)

    def _pieces(self) -> Iterator[bytes]:
        for data in self._history():
            if data:
                yield data
        self.in_history = False
        self.on_live()
        while not self.stopped.is_set():
            found = self._new()
            for data in found:
                self.bytes_done += len(data)
                yield data
            if not found:
                if self._has_ended():
                    self.ended_by_itself = True
                    break
                self.caught_up_ns = time.monotonic_ns()
                self.stopped.wait(POLL_S)
        if self.ended_by_itself:
            yield from self._last()

    def finish(self) -> None:
        """Accept no new data. Data that has arrived is still read; then the source has ended."""

    def close(self) -> None:
        """Close everything."""
