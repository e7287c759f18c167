"""One TCP connection: pairs its requests with responses, or names its protocol if it is not HTTP/1."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .assembly import Direction
from .messages import OTHER, REQUEST_LINE, STATUS_LINE, Message, Messages

WAITING_MAX = 1 << 12
"""How many requests of a connection may wait for responses.

When another one arrives, the oldest gets no response.
"""

TLS, HTTP_2, ANOTHER = (
    "TLS (capture it where it is already decrypted; keys are not used)",
    "HTTP/2",
    "another protocol",
)
UPGRADED = "an upgraded protocol (WebSocket or a tunnel)"
_TLS_RECORDS = frozenset(range(20, 25))
_PREFACE = b"PRI * HTTP/2.0\r\n"
_NO_BODY = frozenset({b"204", b"304"})


def spoken(data: bytes) -> str:
    """Return the name of the protocol that a stream begins with; empty if it may be HTTP/1."""
    if len(data) >= 3 and data[0] in _TLS_RECORDS and data[1] == 3 and data[2] <= 4:
        return TLS
    if data.startswith(_PREFACE[: len(data)]) and len(data) >= 4:
        return HTTP_2
    return ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request with its response, if one was captured."""

    request: Message
    response: Message | None
    client: bytes
    method: bytes


class Conversation:
    """A connection from its first captured packet on.

    `done` receives exchanges; `lost(what, number)` counts lost messages, where `what` is `request`, `response` or
    `pair`. `client` is the client's address (16 bytes), and `port` the server's port. `begins` is true if a SYN
    of the connection was captured.
    """

    def __init__(
        self,
        *,
        client: bytes,
        port: int,
        begins: bool,
        sequence: int | None,
        done: Callable[[Exchange], None],
        lost: Callable[[str, int], None],
    ) -> None:
        self.client, self.port = client, port
        self._done, self._lost = done, lost
        self.speaks = ""
        self.bytes = 0
        self._waiting: deque[Message] = deque()
        self._lossy = not begins
        self._first = True
        self.requests = Messages(REQUEST_LINE, whole=begins, done=self._asked, lost=self._request_lost)
        self.responses = Messages(
            STATUS_LINE,
            whole=begins,
            done=self._answered,
            lost=self._response_lost,
            without_body=self._without_body,
        )
        self.up = Direction(sequence, self._take_request_bytes, self._hole_above)
        self.down = Direction(None, self._take_response_bytes, self._hole_below)

    def begin_down(self, sequence: int) -> None:
        """Set the sequence number of the server's first byte, unless some of its bytes were already read."""
        if self.down.position == 0:
            self.down = Direction(sequence, self._take_response_bytes, self._hole_below)

    @property
    def is_over(self) -> bool:
        """Whether both sides have closed and everything was read."""
        return self.up.is_over and self.down.is_over

    def close(self, at_ns: int) -> None:
        """End the connection, because it was closed or the capture ended."""
        self.up.flush()
        self.requests.close(at_ns)
        self.down.flush()
        self.responses.close(at_ns)
        while self._waiting:
            self._give_up(self._waiting.popleft())

    def _take_request_bytes(self, data: bytes, at_ns: int, acknowledged: int, number: int) -> None:
        self.bytes += len(data)
        if self._first:
            self._first = False
            self.speaks = spoken(data)
            if self.speaks:
                self._stop()
        self.requests.feed(data, at_ns, acknowledged, number)
        if self.requests.state == OTHER and not self.speaks:
            self.speaks = ANOTHER
            self._stop()

    def _take_response_bytes(self, data: bytes, at_ns: int, acknowledged: int, number: int) -> None:
        self.bytes += len(data)
        if self.responses.count == 0 and not self.speaks and spoken(data) == TLS:
            self.speaks = TLS
            self._stop()
        self.responses.feed(data, at_ns, self.up.place(acknowledged), number)

    def _stop(self) -> None:
        """Stop reading, because the rest of the connection is not HTTP/1."""
        self.requests.state = self.responses.state = OTHER

    def _hole_above(self, size: int) -> None:
        self._lossy = True
        self.requests.hole(size)

    def _hole_below(self, size: int) -> None:
        self._lossy = True
        self.responses.hole(size)

    def _request_lost(self, number: int) -> None:
        self._lossy = True
        self._lost("request", number)

    def _response_lost(self, number: int) -> None:
        self._lossy = True
        self._lost("response", number)

    def _asked(self, message: Message) -> None:
        self._waiting.append(message)
        if len(self._waiting) > WAITING_MAX:
            self._give_up(self._waiting.popleft())

    def _without_body(self, response: Message) -> bool:
        """Return whether a response has no body, by its status or by the method of its request (RFC 9112, 6.3)."""
        status = response.start[1]
        if status.startswith(b"1") or status in _NO_BODY:
            return True
        request = self._request_of(response)
        if request is None:
            return False
        method = request.start[1]
        return method == b"HEAD" or (method == b"CONNECT" and status.startswith(b"2"))

    def _request_of(self, response: Message) -> Message | None:
        """Return the request that a response answers, if that is certain.

        As long as nothing was lost, responses are paired in order. After a loss, only the request whose last byte the
        response acknowledges matches; without pipelining, that is the last request before it.
        """
        if not self._lossy:
            return self._waiting[0] if self._waiting else None
        return next((each for each in self._waiting if each.end == response.acknowledged), None)

    def _answered(self, response: Message) -> None:
        status = response.start[1]
        if status.startswith(b"1") and status != b"101":
            return
        request = self._request_of(response)
        if request is None:
            self._lost("pair", response.number)
            return
        while self._waiting[0] is not request:
            self._give_up(self._waiting.popleft())
        self._waiting.popleft()
        self._finish(request, response)
        if status == b"101" or (request.start[1] == b"CONNECT" and status.startswith(b"2")):
            self.speaks = UPGRADED
            self._stop()

    def _give_up(self, request: Message) -> None:
        self._finish(request, None)

    def _finish(self, request: Message, response: Message | None) -> None:
        if request.damaged:
            self._lost("request", request.number)
            return
        self._done(Exchange(request, response, self.client, request.start[1]))
