"""Usual and unusual requests beside each other at a mirror: each is recorded once, in the order of its connection."""

from __future__ import annotations

import random
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from replay.trace import Trace
from tests.support.certificates import Authority
from tests.support.recording import Recorder, recording

pytestmark = pytest.mark.whole

NATIVE_KINDS = ("usual", "usual", "secret")
KINDS = (*NATIVE_KINDS, "chunked", "expects", "pieces", "large")
CONNECTIONS, REQUESTS = 10, 30
SLOW_S = 1.5
"""Longer than the native thread waits for the rest of a request."""

LASTS = {
    "nothing": b"",
    "two framings": b"POST /never HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a folded header": b"GET /never HTTP/1.1\r\nHost: x\r\nX-Any: a\r\n b\r\n\r\n",
    "no version": b"GET /never\r\n\r\n",
    "half a request": b"POST /never HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
}
NEVER = b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n"


def pieces_of(target: bytes, kind: str, draw: random.Random) -> tuple[bytes, list[bytes]]:
    """The body of a request, and the pieces in which it is sent."""
    body = b"tea " * (50_000 if kind == "large" else draw.randint(0, 300))
    head = b"POST %b HTTP/1.1\r\nHost: x\r\n" % target
    length = b"Content-Length: %d\r\n" % len(body)
    if kind == "secret":
        length += b"Authorization: Bearer abcdefgh%08d\r\n" % draw.randrange(10**8)
    if kind == "chunked":
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:100], body[100:]) if part)
        return body, [head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"]
    if kind == "expects":
        body = body or b"tea"
        return body, [head + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body), body]
    whole = head + length + b"\r\n" + body
    if kind == "pieces":
        one, two = sorted(draw.sample(range(1, len(whole)), 2))
        return body, [whole[:one], whole[one:two], whole[two:]]
    return body, [whole]


class Client:
    """Sends requests of all kinds on one connection. `sent` are targets and bodies that must be recorded."""

    def __init__(self, number: int, sock: socket.socket, *, is_slow: bool) -> None:
        self._name, self._sock, self._is_slow = b"/client%d/" % number, sock, is_slow
        self._draw = random.Random(number)
        # A connection stays with Python after its first unusual request, so that one comes at any place.
        self._unusual_from = self._draw.randint(0, REQUESTS)
        self._back = b""
        self.sent: list[tuple[bytes, bytes]] = []

    def run(self, last: str) -> list[tuple[bytes, bytes]]:
        """Send all requests, and at last what is never recorded."""
        with self._sock:
            while len(self.sent) < REQUESTS:
                self._send_some()
            if last != "nothing":
                self._sock.sendall(LASTS[last] + (b"" if last.startswith("half") else NEVER))
                self._await(b"400 Bad Request", 0 if last.startswith("half") else 1)
        return self.sent

    def _send_some(self) -> None:
        """Send some requests without waiting for responses; the end of one and the next are sent together."""
        data = b""
        kinds = KINDS if len(self.sent) >= self._unusual_from else NATIVE_KINDS
        for kind in self._draw.choices(kinds, k=self._draw.randint(1, 6)):
            target = self._name + b"%d" % len(self.sent)
            body, (*pieces, rest) = pieces_of(target, kind, self._draw)
            self.sent.append((target, body))
            for piece in pieces:
                self._sock.sendall(data + piece)
                data = b""
                if kind == "expects":
                    self._await(b"100 Continue", self._back.count(b"100 Continue") + 1)
                else:
                    time.sleep(SLOW_S if self._is_slow else 0.01)
                    self._is_slow = False
            data += rest
        self._sock.sendall(data)
        self._await(b"204 No Content", len(self.sent))

    def _await(self, words: bytes, count: int) -> None:
        """Read until so many responses have come."""
        while self._back.count(words) < count:
            data = self._sock.recv(65_536)
            assert data, (words, count, self._back[-300:])
            self._back += data


def connect(recorder: Recorder, context: ssl.SSLContext | None) -> socket.socket:
    """A connection to a recording."""
    sock = socket.create_connection(("127.0.0.1", recorder.port), 60)
    return sock if context is None else context.wrap_socket(sock, server_hostname="127.0.0.1")


def recorded(trace: Trace) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """Targets and bodies in the order of the trace, by client."""
    found: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for batch in trace.batches():
        for row in batch.request.tolist():
            request = trace.requests.get(row)
            name = re.match(rb"/\w+", request.target)
            assert name is not None
            body = trace.requests.body(request.body) if request.body >= 0 else b""
            found.setdefault(name[0], []).append((request.target, body))
    return found


@pytest.mark.parametrize("is_tls", [False, True])
def test_unusual_requests_beside_usual_ones_are_recorded_once_and_in_order(
    is_tls: bool, tmp_path: Path
) -> None:
    options: list[str] = []
    context: ssl.SSLContext | None = None
    if is_tls:
        authority = Authority.create(tmp_path)
        identity = authority.issue("127.0.0.1")
        options = ["--cert", str(identity.cert), "--key", str(identity.key)]
        context = ssl.create_default_context(cafile=str(authority.path))
    lasts = list(LASTS) * (CONNECTIONS // len(LASTS))
    with recording(tmp_path / "day.trace", "--mirror", *options) as recorder:
        clients = [
            Client(number, connect(recorder, context), is_slow=number == 0) for number in range(CONNECTIONS)
        ]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            sent = list(pool.map(Client.run, clients, lasts))
        assert recorder.stop() == 0
    trace = recorder.trace()
    assert recorded(trace) == {b"/client%d" % number: each for number, each in enumerate(sent)}
    assert trace.manifest.lost == {"request broke off": lasts.count("half a request")}
    refused = sum(last not in ("nothing", "half a request") for last in lasts)
    assert f"refused and not forwarded {refused}: " in recorder.printed
