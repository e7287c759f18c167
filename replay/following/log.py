"""Reads a growing log file as one stream of whole lines, across rotation by rename and by copy and truncate.

Every poll distinguishes three cases:

- The file has grown: its new whole lines are read.
- The name refers to another file: the log was rotated. The old file is still read for at least DRAIN_S beside the
  new one, because a server may still write to it.
- The file is shorter than what was read of it, or it has grown and the last bytes that were read have changed: it was
  truncated or replaced in place, and is read from its beginning.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from replay.errors import InputError, reason_of
from replay.trace import is_trace
from replay.trace.importing.sources import BLOCK_BYTES, HEAD_BYTES

from .stream import LINE_BYTES_MAX, POLL_S, Stream

DRAIN_S = 10.0
"""How long, in seconds, a rotated file is read at least."""

HISTORY_HEAD_BYTES, HISTORY_TAIL_BYTES = 64 << 10, 1 << 20
"""How many bytes from before the run are read: of the head, for names of columns, and of the tail, for routes."""

_SEEN_BYTES = 64


class _Open:
    """An open file of the log, and how much of it was read."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self._file = path.open("rb", buffering=0)
        found = os.fstat(self._file.fileno())
        self.identity = (found.st_dev, found.st_ino)
        self.position = position
        self.partial = b""
        self.truncations = 0
        self.rotated_s: float | None = None
        self._seen = self._before(position)

    def _before(self, position: int) -> bytes:
        """Return up to _SEEN_BYTES bytes before a position, which show whether the file was replaced in place."""
        begin = max(0, position - _SEEN_BYTES)
        return os.pread(self._file.fileno(), position - begin, begin)

    @property
    def size(self) -> int:
        """Return the present size of the file in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def lines(self) -> bytes:
        """Return new whole lines, about BLOCK_BYTES at most, or b"" if there are none.

        A line longer than LINE_BYTES_MAX is returned in pieces.
        """
        size = self.size
        if size < self.position or (size > self.position and self._before(self.position) != self._seen):
            self.truncations += 1
            self.position, self.partial, self._seen = 0, b"", b""
        if size == self.position:
            return b""
        data = os.pread(self._file.fileno(), BLOCK_BYTES, self.position)
        self.position += len(data)
        self._seen = (self._seen + data[-_SEEN_BYTES:])[-_SEEN_BYTES:]
        data = self.partial + data
        end = data.rfind(b"\n") + 1
        if not end and len(data) > LINE_BYTES_MAX:
            end = len(data)
        self.partial = data[end:]
        return data[:end]

    def read(self, begin: int, count: int) -> bytes:
        """Return up to `count` bytes from `begin` on, without moving the position."""
        return os.pread(self._file.fileno(), count, begin)

    def rest(self) -> bytes:
        """Return an unfinished last line, with a line end added; b"" if it is blank or if there is none."""
        rest, self.partial = self.partial, b""
        return rest + b"\n" if rest.strip() else b""

    def close(self) -> None:
        self._file.close()


class GrowingLog(Stream):
    """A log file that is read while it is written, from its end or from its beginning."""

    kind = "log"

    def __init__(self, path: Path, *, from_beginning: bool = False) -> None:
        super().__init__(str(path))
        self._place = path
        self._current: _Open | None = None
        self._old: list[_Open] = []
        self.rotations = 0
        self._start = 0
        self._truncations_gone = 0
        self._header = b""
        self._skip_header = False
        self._begin(at_end=not from_beginning)

    @property
    def truncations(self) -> int:
        """Return how often the log was truncated or replaced in place."""
        return self._truncations_gone + sum(file.truncations for file in self._files())

    def trouble(self) -> str:
        """Return that the file does not exist, as a sentence, or "" if it exists."""
        return "" if os.path.lexists(self._place) else f"{self.name} does not exist"

    def wait_for_head(self, is_stopped: Callable[[], bool], waiting: Callable[[str], None]) -> bool:
        """Wait until the log has a first line, from which the format is detected.

        Returns False if `is_stopped` is true first. If there is no line yet, `waiting` is called once with the reason.
        """
        is_reported = False
        while not (head := self._read_head()):
            if is_stopped():
                return False
            if not is_reported:
                is_reported = True
                waiting(self.trouble() or f"{self.name} has no complete line yet")
            time.sleep(POLL_S)
            self._look()
        self.head = head
        self._header = head[: head.find(b"\n") + 1]
        return True

    def _files(self) -> list[_Open]:
        return [*self._old, *([self._current] if self._current is not None else [])]

    def _begin(self, *, at_end: bool) -> None:
        try:
            found = self._place.stat()
        except FileNotFoundError:
            if not self._place.parent.is_dir():
                raise InputError(
                    f"{self.name}: there is no folder {self._place.parent}",
                    hint="create it, or correct the path",
                ) from None
            return
        except OSError as error:
            raise InputError(f"{self.name}: {reason_of(error)}") from None
        self._refuse_other(found.st_mode)
        try:
            file = _Open(self._place)
        except OSError as error:
            raise InputError(f"{self.name}: {reason_of(error)}") from None
        if at_end:
            self._start = _line_begin(file, file.size)
            file.close()
            file = _Open(self._place, self._start)
        self._current = file

    def _refuse_other(self, mode: int) -> None:
        if is_trace(self._place):
            raise InputError(
                f"{self.name} is a trace: it does not grow", hint=f"replay run {self.name} replays it"
            )
        if stat.S_ISDIR(mode):
            raise InputError(f"{self.name} is a folder", hint="name the log file in it")
        if not stat.S_ISREG(mode):
            raise InputError(f"{self.name} is not a regular file", hint=f"replay follow - < {self.name}")

    def _read_head(self) -> bytes:
        for file in reversed(self._files()):
            head = file.read(0, HEAD_BYTES)
            if b"\n" in head:
                return head[: head.rfind(b"\n") + 1]
        return b""

    def _look(self) -> None:
        """Open the file to which the name refers, if it is not open yet."""
        try:
            found = self._place.stat()
        except OSError:
            return
        identity = (found.st_dev, found.st_ino)
        if any(file.identity == identity for file in self._files()):
            return
        try:
            file = _Open(self._place)
        except OSError:
            return
        if self._current is not None:
            self.rotations += 1
            self._current.rotated_s = time.monotonic()
            self._old.append(self._current)
            self._skip_header = True
        self._current = file

    def _history(self) -> Iterator[bytes]:
        """Yield the first and the last lines from before the run, or nothing if all lines count as new."""
        file = self._current
        if file is None or not self._start:
            return
        head = file.read(0, min(self._start, HISTORY_HEAD_BYTES))
        head = head[: head.rfind(b"\n") + 1]
        yield head
        begin = max(len(head), self._start - HISTORY_TAIL_BYTES)
        tail = file.read(begin, self._start - begin)
        if begin > len(head):
            tail = tail[tail.find(b"\n") + 1 :]
        yield tail

    def _new(self) -> list[bytes]:
        """Return the lines that were written since the last poll, by file."""
        self._look()
        found = []
        for file in self._files():
            data = file.lines()
            if data and file is self._current and self._skip_header:
                self._skip_header = False
                data = data.removeprefix(self._header) if self.has_header else data
            if data:
                found.append(data)
            elif file.rotated_s is not None and time.monotonic() > file.rotated_s + DRAIN_S:
                found.append(file.rest())
                self._truncations_gone += file.truncations
                self._old.remove(file)
                file.close()
        return [data for data in found if data]

    def _last(self) -> list[bytes]:
        return [rest for file in self._files() if (rest := file.rest())]

    def close(self) -> None:
        """Close the log, and the rotated files that are still open."""
        for file in self._files():
            file.close()


def _line_begin(file: _Open, size: int) -> int:
    """Return where an unfinished last line starts, or the size of the file if its last line is finished.

    A last line longer than LINE_BYTES_MAX counts as finished.
    """
    begin = max(0, size - LINE_BYTES_MAX)
    data = file.read(begin, size - begin)
    at = data.rfind(b"\n")
    return begin + at + 1 if at >= 0 else size if begin else 0
