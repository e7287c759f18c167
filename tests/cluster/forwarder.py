"""A network between an agent and its coordinator: delays by direction, jitter and stalls."""

from __future__ import annotations

import random
import socket
import threading
import time


class Forwarder:
    """Forwards TCP connections to a port of this machine. `out_s` delays what the agent sends, `back_s` what it gets.

    Nothing passes for `stall_s` of every second, nor while `flowing` is not set; what came in the meantime follows. A
    `listener` may be in another network.
    """

    def __init__(
        self, port: int, *, out_s: float = 0.0, back_s: float = 0.0, jitter_s: float = 0.0, stall_s: float = 0.0,
        seed: int = 1, listener: socket.socket | None = None,
    ) -> None:  # fmt: skip
        self._target, self._delays, self._jitter_s = port, (out_s, back_s), jitter_s
        self._stall_s = stall_s
        self._random = random.Random(seed)
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.flowing = threading.Event()
        self.flowing.set()

    def __enter__(self) -> Forwarder:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.flowing.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._target))
            for source, sink, delay_s in ((here, there, self._delays[0]), (there, here, self._delays[1])):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass, args=(source, sink, delay_s), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, delay_s: float) -> None:
        try:
            while data := source.recv(1 << 16):
                time.sleep(delay_s + self._random.random() * self._jitter_s)
                time.sleep(max(self._stall_s - time.monotonic() % 1, 0))
                self.flowing.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return
