"""A process of a twin, with the services that it hosts: `python -m replay.staging.twin.host`.

A process reads one line of JSON from standard input, its `Orders`, and prints one line when it serves. It ends
when standard input is closed. The first process (`root.py`) starts further processes with `processes = "each"`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import trio

from replay.errors import ReplayError, UsageError, reason_of

from .bus import BusHost
from .events import EventLog
from .graph import services_of
from .limits import change, twin_from
from .resolving import HOST
from .service import ServiceHost
from .spec import BUS, TWIN, Twin
from .wire import Request, Response, serve_connection
from .world import World

BACKLOG = 4_096
TICK_S = 1.0


class Orders(msgspec.Struct, kw_only=True):
    """What a process hosts, and how its services are reached.

    `sockets` are the descriptors of listening sockets that it inherits, by service.
    """

    twin: dict[str, Any]
    log: str = ""
    token: str = ""
    hosted: list[str] = []
    sockets: dict[str, int] = {}
    addresses: dict[str, tuple[str, int]] = {}
    dns: tuple[str, int] | None = None
    state: str = ""


class Ready(msgspec.Struct, kw_only=True):
    """The line that a process prints: where it serves, or why it cannot."""

    control: str = ""
    token: str = ""
    front: str = ""
    urls: dict[str, str] = {}
    pids: list[int] = []
    error: str = ""
    hint: str = ""


class Command(msgspec.Struct, kw_only=True):
    """A command from the first process to another one: to change settings or, without any, to return its figures.

    `turn` counts commands, so that a late answer is not taken for the answer to the next command.
    """

    turn: int
    set: dict[str, str] | None = None


class Answer(msgspec.Struct, kw_only=True):
    """The answer to a command, with its `turn`. `error` is the reason why settings were not changed."""

    turn: int
    error: str = ""
    figures: dict[str, float] = {}


class _Hosted(Protocol):
    async def handle(self, request: Request) -> Response: ...
    def abandoned(self, request: Request) -> None: ...
    def changed(self) -> None: ...
    def close(self) -> None: ...


class HostProcess:
    """One process of a twin, with the services that it hosts."""

    def __init__(self, orders: Orders, twin: Twin, sockets: dict[str, socket.socket]) -> None:
        self.orders, self.twin = orders, twin
        self.sockets = sockets
        self.log = EventLog(Path(orders.log) if orders.log else None)
        addresses = {name: (host, port) for name, (host, port) in orders.addresses.items()}
        self.world = World(twin, addresses, self.log, orders.dns)
        self.hosted: dict[str, _Hosted] = {}

    def build(self) -> None:
        """Create the services that this process hosts."""
        for name in self.orders.hosted:
            self.hosted[name] = BusHost(self.world) if name == BUS else ServiceHost(self.world, name)
        self.world.figures.gauge(f"{TWIN}.late_ms", self.world.late_ms)

    def apply(self, settings: dict[str, str]) -> list[dict[str, str]]:
        """Change settings, and return the changes. Raises UsageError if one is invalid; then none is changed."""
        changes = change(self.twin, settings)
        self.world.changed()
        for hosted in self.hosted.values():
            hosted.changed()
        for name, value in settings.items():
            service, _, key = name.partition(".")
            hosted_service = self.hosted.get(service)
            if key == "cache.start" and isinstance(hosted_service, ServiceHost):
                hosted_service.cache_started(str(value))
        return [{"name": c.name, "old": c.old, "new": c.new} for c in changes]

    def answer(self, command: Command) -> Answer:
        """Return the answer to a command of the first process."""
        if command.set is None:
            return Answer(turn=command.turn, figures=self.world.figures.document())
        try:
            self.apply(command.set)
        except Exception as error:
            # This process continues with the old settings, and the user who changes them must know that.
            return Answer(turn=command.turn, error=str(error) or type(error).__name__)
        return Answer(turn=command.turn)

    async def serve(self, started: Callable[[], None]) -> None:
        """Serve until cancelled, and call `started` when connections are accepted."""
        async with trio.open_nursery() as nursery:
            self.world.nursery = nursery
            nursery.start_soon(self._tick)
            for name, hosted in self.hosted.items():
                if isinstance(hosted, ServiceHost):
                    nursery.start_soon(hosted.autoscale)
                nursery.start_soon(listen, self.sockets[name], partial(_serve_stream, hosted))
            started()

    async def _tick(self) -> None:
        before_s = trio.current_time()
        while True:
            await trio.sleep(TICK_S)
            now_s = trio.current_time()
            self.world.figures.tick(now_s - before_s)
            self.log.tick()
            before_s = now_s

    def close(self) -> None:
        """Close all sockets and files."""
        for hosted in self.hosted.values():
            hosted.close()
        for sock in self.sockets.values():
            sock.close()
        self.log.close()


async def _serve_stream(hosted: _Hosted, stream: trio.SocketStream) -> None:
    await serve_connection(stream, hosted.handle, hosted.abandoned)


async def listen(sock: socket.socket, handle: Callable[[trio.SocketStream], Any]) -> None:
    """Serve the connections of a listening socket."""
    sock.setblocking(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    await trio.serve_listeners(handle, [listener])


def bound(key: str, port: int) -> socket.socket:
    """Return a listening socket on loopback. Raises UsageError, with the setting `key`, if the port cannot be used."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((HOST, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise UsageError(
            f"{key}: {HOST}:{port} cannot be listened on: {reason_of(error)}",
            hint="give another port; 0 takes any free port",
        ) from None
    return sock


def bind_all(twin: Twin) -> dict[str, socket.socket]:
    """Return a listening socket for each service, and for the bus.

    Raises UsageError if a port cannot be used; then no socket is left open.
    """
    wanted = {name: (f"services.{name}.port", service.port) for name, service in services_of(twin).items()}
    if twin.balancer is not None:
        wanted["balancer"] = ("balancer.port", twin.balancer.port)
    if twin.bus is not None:
        wanted[BUS] = ("bus.port", twin.bus.port)
    sockets: dict[str, socket.socket] = {}
    try:
        for name, (key, port) in wanted.items():
            sockets[name] = bound(key, port)
    except UsageError:
        for sock in sockets.values():
            sock.close()
        raise
    return sockets


def ignore_terminal() -> None:
    """Ignore the terminal's signals, which go to the whole process group.

    This process ends when its standard input is closed.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def say(ready: Ready) -> None:
    """Print the line that reports the state of this process."""
    sys.stdout.buffer.write(msgspec.json.encode(ready) + b"\n")
    sys.stdout.buffer.flush()


def report(error: ReplayError) -> int:
    """Print why the process does not serve, and return its exit code."""
    say(Ready(error=str(error), hint=error.hint))
    return int(error.exit_code)


async def commands(process: HostProcess) -> None:
    """Answer the commands of the first process, one JSON object per line, until standard input is closed."""
    while line := await trio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
        answer = process.answer(msgspec.json.decode(line, type=Command))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


async def run_child(orders: Orders) -> None:
    """Run a process that hosts services for the first process."""
    sockets = {name: socket.socket(fileno=number) for name, number in orders.sockets.items()}
    process = HostProcess(orders, twin_from(orders.twin), sockets)
    process.build()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.serve, lambda: say(Ready(pids=[os.getpid()])))
            await commands(process)
            nursery.cancel_scope.cancel()
    finally:
        process.close()


def main() -> int:
    """Run as a process beside the first one, and return the exit code."""
    ignore_terminal()
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    orders = msgspec.json.decode(line, type=Orders)
    try:
        trio.run(run_child, orders)
    except ReplayError as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
