"""Splits one direction of a connection into HTTP/1 messages (RFC 9112), even if bytes are missing.

In the state HEAD, a start line and headers are collected. LENGTH, SIZE, CHUNK, CHUNK_END, TRAILER and CLOSE read a
body according to its framing. LOST waits for a segment that begins with a message. OTHER is another protocol, from
the start or after an upgrade.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

HEAD, LENGTH, SIZE, CHUNK, CHUNK_END, TRAILER, CLOSE, LOST, OTHER = range(9)

HEAD_BYTES_MAX = 256 << 10
BODY_BYTES_MAX = 64 << 20
"""Maximum body size that is kept.

A longer body is cut, and its message is marked as damaged.
"""

REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([^\r\n ]{1,65536}) HTTP/1\.[01]\r?\n")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: [^\r\n]*)?\r?\n")
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"\d{1,18}")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")


@dataclass(slots=True)
class Message:
    """One message.

    `at_ns`, `acknowledged` and `number` belong to the segment with its first byte, `end_ns` to the one with its last.
    If its last bytes are missing, `end_ns` is -1. If the close of the connection ends it, `end_ns` is the time of
    the close. `end` is the position in the stream after its last byte. A `damaged` message lacks bytes of its body;
    `body_bytes` still counts them.
    """

    start: re.Match[bytes]
    headers: list[tuple[bytes, bytes]]
    at_ns: int
    acknowledged: int
    number: int
    body: bytes = b""
    body_bytes: int = 0
    damaged: bool = False
    end_ns: int = 0
    end: int = 0


class Messages:
    """Splits one direction into messages.

    `done(message)` receives each message. `lost(number)` reports one that is lost to a hole, to damage, or to the end of
    the stream; `number` is its first packet. `without_body(message)` returns whether a response has no body regardless
    of its headers (a response to HEAD, RFC 9110, 9.3.2). It is None for requests.
    """

    def __init__(
        self,
        start_line: re.Pattern[bytes],
        *,
        whole: bool,
        done: Callable[[Message], None],
        lost: Callable[[int], None],
        without_body: Callable[[Message], bool] | None = None,
    ) -> None:
        self._start_line, self._without_body = start_line, without_body
        self._done, self._lost = done, lost
        self.state = HEAD if whole else LOST
        self.count = 0
        self._head = bytearray()
        self._line = bytearray()
        self._parts: list[bytes] = []
        self._left = 0
        self._message: Message | None = None
        self._begun = (0, 0, 0)
        self._offset = 0

    @property
    def between(self) -> bool:
        """Whether no message is in progress."""
        return self.state in (LOST, OTHER) or (self.state == HEAD and not self._head)

    def feed(self, data: bytes, at_ns: int, acknowledged: int, number: int) -> None:
        """Add the next bytes of the stream, which are the new part of the payload of packet `number`."""
        if self.state == LOST and self._start_line.match(data):
            self.state = HEAD
        at, size = 0, len(data)
        while at < size and self.state not in (LOST, OTHER):
            if self.state == HEAD and not self._head:
                while at < size and data[at] in b"\r\n":
                    at += 1
                if at == size:
                    break
                self._begun = (at_ns, acknowledged, number)
            before = at
            at = self._step(data, at)
            self._offset += at - before
            if self._message is not None and self.state == HEAD:
                self._end(at_ns)
        self._offset += size - at

    def hole(self, size: int) -> None:
        """Skip `size` missing bytes of the stream."""
        self._offset += size
        if self.state in (LENGTH, CHUNK) and size < self._left + (self.state == LENGTH):
            self._left -= size
            self._damage(size)
            if self._left == 0:
                self.state = HEAD
                self._end(-1)
        elif self.state == CLOSE:
            self._damage(size)
        elif self.state not in (LOST, OTHER):
            if self._message is not None or self._head:
                self._lost(self._begun[2])
            self._forget(LOST)

    def close(self, at_ns: int) -> None:
        """End the stream.

        A body that the close delimits is complete; any other open message is lost.
        """
        if self.state == CLOSE:
            self._end(at_ns)
        elif not self.between:
            self._lost(self._begun[2])
        self._forget(LOST)

    def _forget(self, state: int) -> None:
        self.state, self._message, self._left = state, None, 0
        self._head.clear()
        self._line.clear()
        self._parts.clear()

    def _damage(self, size: int) -> None:
        if self._message is not None:
            self._message.damaged = True
            self._message.body_bytes += size

    def _step(self, data: bytes, at: int) -> int:
        """Consume bytes from data[at:] and return the new offset."""
        if self.state == HEAD:
            return self._take_head(data, at)
        if self.state in (LENGTH, CHUNK, CLOSE):
            end = len(data) if self.state == CLOSE else min(len(data), at + self._left)
            self._take_body(data[at:end])
            self._left -= end - at
            if self._left == 0 and self.state != CLOSE:
                self.state = HEAD if self.state == LENGTH else CHUNK_END
            return end
        return self._take_line(data, at)

    def _take_body(self, data: bytes) -> None:
        message = self._message
        assert message is not None
        if message.body_bytes + len(data) <= BODY_BYTES_MAX:
            self._parts.append(data)
        else:
            message.damaged = True
        message.body_bytes += len(data)

    def _take_head(self, data: bytes, at: int) -> int:
        held = len(self._head)
        self._head += data[at:]
        end = _HEAD_END.search(self._head, max(0, held - 3))
        if end is None:
            if len(self._head) > HEAD_BYTES_MAX:
                self._lost(self._begun[2])
                self._forget(LOST)
            return len(data)
        used = end.end() - held
        head = bytes(self._head[: end.end()])
        self._head.clear()
        start = self._start_line.match(head)
        if start is None:
            # If the first data of a client is not a message, the connection has another protocol. Any other data that
            # is not a message counts as a lost message.
            is_another = not self.count and self._without_body is None
            if not is_another:
                self._lost(self._begun[2])
            self._forget(OTHER if is_another else LOST)
            return at + used
        self.count += 1
        at_ns, acknowledged, number = self._begun
        self._message = Message(start, HEADER.findall(head, start.end()), at_ns, acknowledged, number)
        self._frame(self._message)
        return at + used

    def _frame(self, message: Message) -> None:
        """Determine the length of the body (RFC 9112, 6.3).

        The chunked coding takes precedence over a length.
        """
        named: dict[bytes, bytes] = {}
        for name, value in message.headers:
            named.setdefault(name.lower(), value)
        coding, length = named.get(b"transfer-encoding", b""), named.get(b"content-length", b"")
        is_response = self._without_body is not None
        if self._without_body is not None and self._without_body(message):
            self.state = HEAD
        elif coding.lower().rstrip().endswith(b"chunked"):
            self.state = SIZE
        elif _LENGTH.fullmatch(length):
            self._left = int(length)
            self.state = LENGTH if self._left else HEAD
        else:
            self.state = CLOSE if is_response else HEAD

    def _take_line(self, data: bytes, at: int) -> int:
        """Process a line of the chunked coding: a size, the end of a chunk, or a trailer."""
        end = data.find(b"\n", at)
        self._line += data[at : end if end >= 0 else len(data)]
        if end < 0:
            if len(self._line) > HEAD_BYTES_MAX:
                self._lost(self._begun[2])
                self._forget(LOST)
            return len(data)
        line = bytes(self._line).rstrip(b"\r")
        self._line.clear()
        if self.state == SIZE:
            size = _SIZE.match(line)
            if size is None:
                self._lost(self._begun[2])
                self._forget(LOST)
            else:
                self._left = int(size[0], 16)
                self.state = CHUNK if self._left else TRAILER
        elif self.state == CHUNK_END:
            self.state = SIZE
        elif not line:
            self.state = HEAD
        return end + 1

    def _end(self, at_ns: int) -> None:
        message = self._message
        assert message is not None
        message.body, message.end_ns, message.end = b"".join(self._parts), at_ns, self._offset
        self._message = None
        self._parts.clear()
        self.state = HEAD
        self._done(message)
