"""The sink: an HTTP/1.1 server on one native thread, for calibration, tests and benchmarks.

It answers `200` with a small body at wire speed. For every request it records the sequence number (`X-Replay:
RUN-SEQ`), the arrival time (CLOCK_MONOTONIC right after the read) and the connection. A path that begins with `/sink/`
controls the answer by options between slashes, `name` or `name=number`, as in `/sink/delay_ms=50/status=503?id=7`.
Unknown options are ignored.

| option | the answer |
|---|---|
| `status=N`, `body=BYTES` | has this status, this much body (204 and 304 have none) |
| `fails=PERCENT` | is a 503 for this share of the requests, drawn for each one independently |
| `delay_ms=N` | is sent N ms later; other connections are not delayed |
| `stall_ms=N` | is sent after the whole server has stalled (no reads, no answers) for N ms |
| `drip_ms=N`, `step=BYTES` | is sent in parts of `step` bytes (default 1), one every N ms |
| `chunked`, `chunked=BYTES`, `trailers` | is chunked, in chunks of BYTES, with two trailers |
| `until_close` | has no length, and ends with the connection |
| `informational=N` | is sent after N informational responses (103) |
| `close`, `close_silently` | is the connection's last, announced or not |
| `idle_close_ms=N` | is whole; N ms later the connection is closed |
| `reset`, `hang_up` | is replaced by RST, or by FIN |
| `reset_reused`, `hang_up_reused` | is replaced likewise, but not for the first request of a connection |
| `reset_at=N`, `truncate_at=N` | is cut off by RST, or FIN, after N bytes (or at its end) |
| `garbage` | is not HTTP |
| `endless_headers` | has headers that never end |
| `never` | is never sent; the connection stays open |

With `tls` it speaks TLS. With `servers` a request waits for one of them, unless its path begins with `/sink/`.
`Sink.stall` stalls the whole server at a given time. To run it as a process, on other CPUs than the program that it
measures: `python -m replay.staging.sink --port 8080 --stamps /dev/shm/stamps`. `SinkMemory.open` reads the timestamps
while the process runs, and after it has ended.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from replay.errors import (
    EngineError,
    InputError,
    ReplayError,
    UsageError,
    reason_of,
)
from replay.units import SECOND_NS
from replay_native.ground import shared
from replay_native.ground.jit import warm
from replay_native.ground.libc import EPOLL_EVENT_BYTES, lanes_supported
from replay_native.lane import libssl
from replay_native.staging import sink as kernels
from replay_native.staging import sink_memory as layout
from replay_native.staging.queueing import QUEUE
from replay_native.staging.sink_memory import STAMP, SinkWords

STAMPS_DEFAULT = 1 << 20
CONNECTIONS_DEFAULT = 4_096
BODY_DEFAULT = 13
RUN_S_MAX = 86_400.0
STOP_S = 5.0


@dataclass(frozen=True)
class SinkMemory:
    """The shared state of the sink, readable from other processes: its control words and the arrival stamps."""

    control: np.ndarray
    rows: np.ndarray

    @classmethod
    def create(cls, capacity: int, path: Path | None = None) -> SinkMemory:
        """Create memory for `capacity` stamps, with every page resident.

        It is shared through the file at `path`, or private. Raise UsageError if the file cannot be created.
        """
        size = SinkWords.WORDS * 8 + capacity * STAMP.itemsize
        if path is None:
            return cls._map(mmap.mmap(-1, size))
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
                file.truncate(size)
                return cls._map(mmap.mmap(file.fileno(), size))
        except OSError as error:
            raise UsageError(f"{path}: the stamps cannot be written: {reason_of(error)}") from error

    @classmethod
    def open(cls, path: Path) -> SinkMemory:
        """Open the memory of a sink in another process, running or ended. Raise InputError if there is none."""
        try:
            with path.open("r+b") as file:
                memory = mmap.mmap(file.fileno(), 0)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: no stamps of a sink: {error}") from error
        if len(memory) < SinkWords.WORDS * 8:
            raise InputError(f"{path}: no stamps of a sink: the file is too short")
        return cls._map(memory, touch=False)

    @classmethod
    def _map(cls, memory: mmap.mmap, *, touch: bool = True) -> SinkMemory:
        control = np.frombuffer(memory, np.int64, SinkWords.WORDS)
        rows = np.frombuffer(memory, STAMP, (len(memory) - control.nbytes) // STAMP.itemsize, control.nbytes)
        if touch:
            rows.view(np.uint8)[:] = 0
        return cls(control, rows)

    def word(self, index: int) -> int:
        """Return one word of the control block (see SinkWords)."""
        return int(shared.read_word(self.control, index))

    @property
    def port(self) -> int:
        """The port that the sink listens on; 0 before it does."""
        return self.word(SinkWords.PORT)

    @property
    def arrivals(self) -> int:
        """The number of requests received, stored or not."""
        return self.word(SinkWords.ARRIVALS)

    def stamps(self) -> np.ndarray:
        """Return a copy of the stored arrivals, in order: seq (-1: none), arrival_ns, connection."""
        return self.rows[: min(self.arrivals, self.rows.size)].copy()

    def stall(self, for_s: float, at_ns: int | None = None) -> None:
        """Stall the whole server (no reads, no responses) for this long, from `at_ns` (CLOCK_MONOTONIC) or now."""
        shared.write_word(
            self.control, SinkWords.STALL_AT_NS, time.monotonic_ns() if at_ns is None else at_ns
        )
        shared.write_word(self.control, SinkWords.STALL_NS, round(for_s * SECOND_NS))


@dataclass(frozen=True, slots=True)
class Identity:
    """The certificate of a TLS sink, as PEM files. With `client_ca`, clients must present a certificate, too.

    With `resume`, sessions can be resumed. `version` is the only version offered, 0x0303 or 0x0304, or 0 for
    both.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None
    resume: bool = True
    version: int = 0


@dataclass(frozen=True, slots=True)
class Servers:
    """A queue in front of `count` servers, each with a service time of `service_ns`, first come first served.

    With `retries`, a request that is not done within `patience_ns` is sent again while the server still processes
    the abandoned one. When the last try fails, the response is a 503.
    """

    count: int
    service_ns: int
    retries: int = 0
    patience_ns: int = SECOND_NS

    def __post_init__(self) -> None:
        if self.count < 1 or self.service_ns < 1 or self.retries < 0 or self.patience_ns < 1:
            raise UsageError(
                f"a queue is not possible with {self.count} servers, {self.service_ns} ns of service,"
                f" {self.retries} retries and {self.patience_ns} ns of patience",
                hint="give at least one server, times above 0, and 0 or more retries",
            )


class Sink:
    """A sink on a thread of this process: `with Sink() as sink: ... sink.port ... sink.stamps()`.

    `capacity` stamps are kept (later ones are only counted). `connections` is a limit: further ones are closed at
    once. `spin` polls without sleeping, so that timestamps include no wake-up time; this uses a whole CPU. The
    sink ends with `stop`, or by itself after `run_s`. Raise UsageError if the file `stamps` cannot be created.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        capacity: int = STAMPS_DEFAULT,
        connections: int = CONNECTIONS_DEFAULT,
        body: int = BODY_DEFAULT,
        spin: bool = False,
        run_s: float = RUN_S_MAX,
        stamps: Path | None = None,
        tls: Identity | None = None,
        servers: Servers | None = None,
    ) -> None:
        self._tls, self._context, self._servers = tls, 0, servers
        self._host, self._port = host, port
        self._connections, self._body, self._spin, self._run_s = connections, body, spin, run_s
        self.memory = SinkMemory.create(capacity, stamps)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Sink:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port that the sink listens on; 0 before it does."""
        return self.memory.port

    @property
    def arrivals(self) -> int:
        """The number of requests received, stored or not."""
        return self.memory.arrivals

    @property
    def running(self) -> bool:
        """Whether the sink's thread is running."""
        return self._thread is not None and self._thread.is_alive()

    def word(self, index: int) -> int:
        """Return one word of the control block (see SinkWords)."""
        return self.memory.word(index)

    def stamps(self) -> np.ndarray:
        """Return a copy of the stored arrivals, in order: seq (-1: none), arrival_ns, connection."""
        return self.memory.stamps()

    def stall(self, for_s: float, at_ns: int | None = None) -> None:
        """Stall the whole server (no reads, no responses) for this long, from `at_ns` (CLOCK_MONOTONIC) or now."""
        self.memory.stall(for_s, at_ns)
        self._wake()

    def start(self) -> None:
        """Listen, and serve on a separate thread.

        Raise EngineError if the sink was started before or cannot run on this system, and UsageError if the address
        or a certificate cannot be used.
        """
        if self._thread is not None:
            raise EngineError("this sink was started before")
        if unsupported := lanes_supported():
            raise EngineError(f"the sink cannot run here: {unsupported}")
        warm(["ground.shared", "staging.sink"])
        if self._tls is not None:
            self._context = _server_context(self._tls)
        self._listener = self._listen()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._kernel_memory = self._make()
        shared.write_word(self.memory.control, SinkWords.PORT, self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, name="sink", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with libssl.sigpipe_held_back() if self._context else contextlib.nullcontext():
            kernels.run(self._kernel_memory)

    def stop(self) -> None:
        """Stop the sink, and reset its connections. A second call has no effect.

        Raise EngineError if the thread does not end, or if the sink failed.
        """
        if self._thread is None or self._wake_fd < 0:
            return
        shared.write_word(self.memory.control, SinkWords.STOP, 1)
        self._wake()
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            raise EngineError("the sink did not stop", hint="end the process")
        self._listener.close()
        os.close(self._wake_fd)
        self._wake_fd = -1
        if self._context:
            libssl.call("SSL_CTX_free", self._context)
        state = self.word(SinkWords.STATE)
        if state < 0:
            raise EngineError(f"the sink could not run: {os.strerror(-state)}")

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind((self._host, self._port))
            listener.listen(self._connections)
        except OSError as error:
            listener.close()
            raise UsageError(
                f"the sink cannot listen on {self._host}:{self._port}: {reason_of(error)}",
                hint="choose another host or port",
            ) from error
        return listener

    def _make(self) -> layout.Sink:
        peers = np.zeros(self._connections, layout.PEER)
        peers["fd"] = layout.NONE
        settings = np.zeros(1, layout.SETTINGS)
        settings["listener"], settings["wake_fd"] = self._listener.fileno(), self._wake_fd
        settings["run_until_ns"] = time.monotonic_ns() + round(self._run_s * SECOND_NS)
        settings["spin"], settings["body"] = self._spin, self._body
        settings["free_first"], settings["next_timer_ns"] = layout.NONE, layout.FAR_NS
        settings["has_pwait2"] = 1
        settings["tls_context"] = self._context
        queue, servers = np.zeros(1, QUEUE), self._servers
        if servers is not None:
            queue["service_ns"], queue["retries"] = servers.service_ns, servers.retries
            queue["patience_ns"] = servers.patience_ns
        answer = b"HTTP/1.1 200 Sink\r\nContent-Length: %d\r\n\r\n" % self._body + b"x" * self._body
        return layout.Sink(
            control=self.memory.control,
            stamps=self.memory.rows,
            peers=peers,
            settings=settings,
            timers=np.full(self._connections, layout.FAR_NS, np.int64),
            options=np.full((self._connections, len(layout.OPTIONS)), layout.NO_OPTION, np.int64),
            inputs=np.zeros((self._connections, layout.ROW_BYTES), np.uint8),
            outputs=np.zeros((self._connections, layout.ROW_BYTES), np.uint8),
            answer=np.frombuffer(answer, np.uint8).copy(),
            events=np.zeros(layout.EVENTS_AT_ONCE * EPOLL_EVENT_BYTES, np.uint8),
            scratch=np.zeros(4, np.int64),
            queue=queue,
            free_ns=np.zeros(servers.count if servers is not None else 0, np.int64),
        )


_CTRL_SET_SESS_CACHE_MODE, _CTRL_SET_MIN_PROTO_VERSION, _CTRL_SET_MAX_PROTO_VERSION = 44, 123, 124
_SESS_CACHE_OFF, _OP_NO_TICKET = 0, 1 << 14
_VERIFY_PEER_AND_FAIL = 1 | 2


def _server_context(tls: Identity) -> int:
    """Return an SSL_CTX for a sink.

    Raise UsageError if a file is invalid, and EngineError without OpenSSL.
    """
    if unsupported := libssl.unsupported():
        raise EngineError(f"the sink cannot speak TLS here: {unsupported}")
    context = libssl.new_context("TLS_server_method")
    problem = ""
    if not libssl.use_identity(context, str(tls.cert), str(tls.key)):
        problem = f"{tls.cert} and {tls.key} are not a certificate and its key"
    if tls.client_ca is not None:
        if libssl.call_int("SSL_CTX_load_verify_locations", context, str(tls.client_ca).encode(), None) != 1:
            problem = f"{tls.client_ca} holds no certificates"
        libssl.call("SSL_CTX_set_verify", context, _VERIFY_PEER_AND_FAIL, None)
    # If clients present certificates, OpenSSL refuses to resume a session unless the server has set an id context.
    libssl.call("SSL_CTX_set_session_id_context", context, b"sink", 4)
    if not tls.resume:
        libssl.call("SSL_CTX_set_options", context, _OP_NO_TICKET)
        libssl.call("SSL_CTX_ctrl", context, _CTRL_SET_SESS_CACHE_MODE, _SESS_CACHE_OFF, None)
        libssl.call("SSL_CTX_set_num_tickets", context, 0)
    for limit in (_CTRL_SET_MIN_PROTO_VERSION, _CTRL_SET_MAX_PROTO_VERSION) if tls.version else ():
        libssl.call("SSL_CTX_ctrl", context, limit, tls.version, None)
    if problem:
        libssl.call("SSL_CTX_free", context)
        raise UsageError(f"the sink cannot speak TLS: {problem}")
    return context


def main(arguments: list[str] | None = None) -> int:
    """Run a sink until SIGINT, SIGTERM or the end of its time, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m replay.staging.sink", description="An HTTP server at wire speed."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free port")
    parser.add_argument(
        "--stamps", type=Path, help="file to share the timestamps of arrivals (best in /dev/shm)"
    )
    parser.add_argument(
        "--capacity",
        type=int,
        default=STAMPS_DEFAULT,
        help="number of timestamps that are kept",
    )
    parser.add_argument(
        "--connections", type=int, default=CONNECTIONS_DEFAULT, help="maximum number of connections"
    )
    parser.add_argument(
        "--body", type=int, default=BODY_DEFAULT, help="bytes of the body of the default response"
    )
    parser.add_argument("--cert", type=Path, help="speak TLS with this certificate in PEM, with its chain")
    parser.add_argument(
        "--key",
        type=Path,
        help="private key of the certificate, in PEM (default: the file of --cert)",
    )
    parser.add_argument(
        "--spin", action="store_true", help="never sleep, so that timestamps include no wake-up time"
    )
    parser.add_argument("--seconds", type=float, default=RUN_S_MAX, help="stop after this many seconds")
    given = parser.parse_args(arguments)
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    try:
        with Sink(
            port=given.port,
            host=given.host,
            capacity=given.capacity,
            connections=given.connections,
            body=given.body,
            spin=given.spin,
            run_s=given.seconds,
            stamps=given.stamps,
            tls=Identity(given.cert, given.key or given.cert) if given.cert else None,
        ) as sink:
            print(f"listening on {given.host}:{sink.port}", flush=True)
            while sink.running and not asked.wait(0.2):
                pass
            print(f"{sink.arrivals} requests", flush=True)
    except ReplayError as error:
        print(f"sink: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
