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
"""Time between two polls of the source, in seconds."""

LINE_BYTES_MAX = 1 << 20
"""A line longer than this, in bytes, is passed on before its end has arrived."""


class Stream(SourceFile):
    """A source of lines, requests or records whose end is unknown.

    `in_history` is true while lines from before the run are delivered. `caught_up_ns` is the last instant
    (CLOCK_MONOTONIC) at which nothing was left to read; lines that are read later did not exist then. `has_header`
    means that the first line of a file names its columns.
    """

    kind = ""
    rotations = 0
    has_header = False
    is_recorded = True
    """Whether entries that were read but not sent still exist at the source. Mirrored requests do not."""

    own_format: Importer | None = None
    """The format of a source that is not text. None means that the format is detected from the first lines."""

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
        """Wait until `head` has enough to detect the format, and return False if `is_stopped` is true first."""

    @property
    def truncations(self) -> int:
        """Return how often the source was truncated or replaced in place."""
        return 0

    def trouble(self) -> str:
        """Return the current problem with the source, or "" if there is none."""
        return ""

    def notes(self) -> list[Note]:
        """Return further notes about the source for the results."""
        return []

    def lost(self) -> dict[str, int]:
        """Return how many requests arrived but could not be passed on, by reason."""
        return {}

    def _history(self) -> Iterator[bytes]:
        """Yield whole lines that were written before the run."""
        return iter(())

    @abstractmethod
    def _new(self) -> list[bytes]:
        """Return new whole lines, or nothing if there are none now."""

    def _last(self) -> list[bytes]:
        """Return last lines that have no line end in the source, each with a line end added."""
        return []

    def _has_ended(self) -> bool:
        """Return whether the source can get no more data."""
        return False

    def stream(self) -> Iterator[memoryview]:
        """Yield the data in pieces, as they arrive."""
        for data in self._pieces():
            yield memoryview(bytearray(data))

    def _blocks(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        for data in self._pieces():
            buffer = np.zeros(len(data) + 64, dtype=np.uint8)  # Kernels read some bytes past the end.
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
        """Accept no new data, if the source can refuse data; it then ends once the data that has arrived is read."""

    def close(self) -> None:
        """Close the files and connections of the source."""
