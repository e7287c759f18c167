"""A server that says by path exactly the bytes it is given, in the pieces it is given, and keeps what it was asked."""

from __future__ import annotations

import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

Pieces = Sequence[bytes]
PAUSE_S = 0.02
"""Between two pieces of an answer."""


class Turns:
    """Another answer each time that a path is asked for; the last one from then on."""

    def __init__(self, *answers: Pieces) -> None:
        self._answers = list(answers)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])


class ScriptedServer:
    """`answers` has the pieces by path; an answer that says `Connection: close` ends its connection."""

    def __init__(self, answers: Mapping[str, Pieces | Turns]) -> None:
        self.asked: list[bytes] = []
        asked = self.asked

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while head := self._head():
                    length = next(
                        (
                            int(line[15:])
                            for line in head.split(b"\r\n")
                            if line.startswith(b"Content-Length:")
                        ),
                        0,
                    )
                    asked.append(head + self.rfile.read(length))
                    pieces = list(answers[head.split(b" ")[1].decode()])
                    for number, piece in enumerate(pieces):
                        time.sleep(PAUSE_S if number else 0)
                        self.wfile.write(piece)
                        self.wfile.flush()
                    if b"Connection: close" in b"".join(pieces):
                        return

            def _head(self) -> bytes:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = self.rfile.readline()
                    if not line:
                        return b""
                    head += line
                return head

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def answer(body: bytes, headers: bytes = b"", status: int = 200) -> bytes:
    """A whole answer with a Content-Length."""
    return b"HTTP/1.1 %d OK\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)


Reply = tuple[Sequence[bytes], str]
"""The pieces of an answer, and what becomes of the connection: `keep`, `close`, or `reset`."""


class ReplyServer:
    """`reply(path, turn)` says what is answered to the request that is number `turn` (from 0) on its connection."""

    def __init__(self, reply: Callable[[str, int], Reply]) -> None:
        self.asked: list[tuple[bytes, int]] = []
        asked = self.asked

        class Handler(socketserver.BaseRequestHandler):
            request: socket.socket

            def handle(self) -> None:
                received, turn = b"", 0
                while True:
                    while b"\r\n\r\n" not in received:
                        data = self.request.recv(65_536)
                        if not data:
                            return
                        received += data
                    head, _, received = received.partition(b"\r\n\r\n")
                    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
                    while len(received) < int(length[1] if length else 0):
                        received += self.request.recv(65_536)
                    received = b""
                    asked.append((head.partition(b"\r\n")[0], turn))
                    pieces, after = reply(head.split(b" ")[1].decode(), turn)
                    turn += 1
                    for number, piece in enumerate(pieces):
                        time.sleep(PAUSE_S if number else 0)
                        self.request.sendall(piece)
                    if after == "reset":
                        time.sleep(PAUSE_S)
                        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        self.request.close()
                    if after != "keep":
                        return

        class Server(socketserver.ThreadingTCPServer):
            request_queue_size = 512
            daemon_threads = True

            def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
                assert isinstance(request, socket.socket)
                request.close()

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> ReplyServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
