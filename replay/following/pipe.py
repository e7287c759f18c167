"""Standard input as a source that is followed until its end."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable

from replay.errors import InputError
from replay.trace.importing.sources import BLOCK_BYTES

from .stream import LINE_BYTES_MAX, POLL_S, Stream


class StandardInput(Stream):
    """Lines that another program writes to standard input. All of them are new."""

    kind = "pipe"

    def __init__(self) -> None:
        super().__init__("standard input")
        if sys.stdin is None:
            raise InputError("standard input is closed")
        self._fd = os.dup(sys.stdin.fileno())
        self._buffer = b""
        self._ended = False

    def wait_for_head(self, is_stopped: Callable[[], bool], waiting: Callable[[str], None]) -> bool:
        """Wait for the first line, from which the format is detected.

        Returns False if `is_stopped` is true first. `waiting` is called once, if no line arrives within a second.
        Raises InputError if the input is empty, or if only blank lines have arrived.
        """
        report_at_s = time.monotonic() + 1.0
        while b"\n" not in self._buffer and not self._ended:
            self._fill(POLL_S)
            if is_stopped():
                return False
            if time.monotonic() > report_at_s:
                report_at_s = float("inf")
                waiting("no complete line has arrived from standard input yet")
        if not self._buffer.strip():
            raise InputError("standard input is empty, or begins with a blank line")
        self.head = self._buffer[: self._buffer.rfind(b"\n") + 1] or self._buffer
        return True

    def _fill(self, wait_s: float) -> None:
        """Read the data that is available, at most about BLOCK_BYTES; wait up to `wait_s` for the first of it."""
        deadline_s = wait_s
        while not self._ended and self._fd >= 0 and len(self._buffer) < BLOCK_BYTES:
            ready, _, _ = select.select([self._fd], [], [], deadline_s)
            if not ready:
                return
            data = os.read(self._fd, 1 << 16)
            self._ended = not data
            self._buffer += data
            deadline_s = 0.0

    def _new(self) -> list[bytes]:
        self._fill(0.0)
        end = self._buffer.rfind(b"\n") + 1
        if not end and len(self._buffer) > LINE_BYTES_MAX:
            end = len(self._buffer)
        data, self._buffer = self._buffer[:end], self._buffer[end:]
        return [data] if data else []

    def _has_ended(self) -> bool:
        return self._ended

    def _last(self) -> list[bytes]:
        rest, self._buffer = self._buffer, b""
        return [rest + b"\n"] if rest.strip() else []

    def close(self) -> None:
        """Close this object's copy of the descriptor; further calls do nothing.

        The number of a closed descriptor may belong to another file.
        """
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
