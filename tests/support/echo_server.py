"""A TCP service that sends every line back, for the example protocol."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class EchoServer:
    """Where it listens, and the lines that came. Lines with `garble` in them come back changed, with `hang` never."""

    port: int = 0
    lines: list[bytes] = field(default_factory=list)


@contextmanager
def echo_server() -> Iterator[EchoServer]:
    """Run one in a thread of this process."""
    made = EchoServer()
    ended = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                made.lines.append(line)
                if b"hang" in line:
                    ended.wait()
                    return
                self.wfile.write(line.swapcase() if b"garble" in line else line)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            ended.set()
            server.shutdown()
            thread.join()
