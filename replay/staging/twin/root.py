"""The first process of a twin.

It binds all sockets, starts the other processes, and runs the control address and the name server. All sockets
are bound before any process starts, so that a port in use is reported before that. When one of its processes
dies, it reports which one, ends the others, and exits.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import trio

from replay.errors import EngineError, ReplayError, UsageError

from . import state
from .graph import entry_of
from .host import (
    Answer,
    Command,
    HostProcess,
    Orders,
    Ready,
    bind_all,
    bound,
    ignore_terminal,
    listen,
    report,
    say,
)
from .limits import names_of, twin_from, value_text
from .resolving import HOST, QuotaServer, watch_quota
from .spec import TWIN, Twin
from .wire import Request, Response, serve_connection

CHILD_START_S = 30.0
CHILD_END_S = 3.0
CHILD_ANSWER_S = 10.0


class _Child:
    """A process of the twin that the first process has started."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self.name, self.process = name, process
        self._received = bytearray()
        self._turn = trio.Lock()
        self._asked = 0

    async def line(self) -> bytes:
        """Return the next line that the process prints; empty at the end of the output."""
        assert self.process.stdout is not None
        while (end := self._received.find(b"\n")) < 0:
            data = await self.process.stdout.receive_some()
            if not data:
                return b""
            self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    async def ask(self, settings: dict[str, str] | None = None) -> Answer:
        """Return the process's answer to a change of settings, or its figures if there are no settings.

        The answer has an `error` if the process has ended, or does not answer within CHILD_ANSWER_S.
        """
        assert self.process.stdin is not None
        with trio.move_on_after(CHILD_ANSWER_S):
            async with self._turn:
                self._asked += 1
                command = Command(turn=self._asked, set=settings)
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.process.stdin.send_all(msgspec.json.encode(command) + b"\n")
                    while line := await self.line():
                        answer = msgspec.json.decode(line, type=Answer)
                        if answer.turn == command.turn:
                            return answer
            return Answer(turn=0, error="it has ended")
        return Answer(turn=0, error=f"it does not answer within {CHILD_ANSWER_S:g} s")

    async def end(self) -> None:
        """Close the process's standard input, so that it exits; kill it if it has not exited after CHILD_END_S."""
        with trio.CancelScope(shield=True):
            assert self.process.stdin is not None and self.process.stdout is not None
            await self.process.stdin.aclose()
            with trio.move_on_after(CHILD_END_S):
                await self.process.wait()
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            await self.process.stdout.aclose()


class Root:
    """The first process of a twin."""

    def __init__(self, orders: Orders, sockets: dict[str, socket.socket]) -> None:
        self._twin = twin_from(orders.twin)
        self._is_one = self._twin.processes == "one"
        self._control = bound("control_port", self._twin.control_port)
        addresses = {name: (HOST, int(sock.getsockname()[1])) for name, sock in sockets.items()}
        self._orders = msgspec.structs.replace(
            orders,
            token=secrets.token_hex(16),
            hosted=list(sockets) if self._is_one else [],
            addresses=addresses,
        )
        self._sockets = sockets
        self._children: list[_Child] = []
        self._process = HostProcess(self._orders, self._twin, sockets if self._is_one else {})
        self._died = ""

    async def run(self) -> None:
        """Serve until standard input is closed.

        Raises EngineError if another process of the twin did not start, or died.
        """
        place = None
        with self._name_server():
            self._process.build()
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._start_all)
                    place = state.write(self._announced())
                    nursery.start_soon(self._process.serve, self._started)
                    nursery.start_soon(listen, self._control, self._serve_control)
                    for child in self._children:
                        nursery.start_soon(self._watch, child, nursery.cancel_scope)
                    while await trio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
                        pass
                    nursery.cancel_scope.cancel()
            finally:
                if place is not None:
                    state.remove(place)
                for child in self._children:
                    await child.end()
                self._process.log.note(TWIN, "stopped", self._died or "its standard input was closed")
                self._process.close()
                for sock in (*self._sockets.values(), self._control):
                    sock.close()
        if self._died:
            raise EngineError(self._died, hint="see its message above, if any")

    @contextlib.contextmanager
    def _name_server(self) -> Iterator[None]:
        given, world = self._twin.dns, self._process.world
        if given is None:
            yield
            return
        with QuotaServer(given, watch_quota(world)) as server:
            for name in self._orders.addresses:
                server.set(f"{name}.{given.domain}", HOST)
            world.dns = HOST, server.port
            yield

    async def _start_all(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start a process for each service, if each service has its own, and wait until they serve."""
        for name in () if self._is_one else self._sockets:
            number = self._sockets[name].fileno()
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "replay.staging.twin.host"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(number,),
            )  # fmt: skip
            child = _Child(name, process)
            self._children.append(child)
            orders = msgspec.structs.replace(
                self._orders, hosted=[name], sockets={name: number}, dns=self._process.world.dns, token=""
            )
            assert process.stdin is not None
            await process.stdin.send_all(msgspec.json.encode(orders) + b"\n")
        for child in self._children:
            with trio.move_on_after(CHILD_START_S):
                if await child.line():
                    self._sockets[child.name].close()
                    continue
            raise EngineError(
                f"the process of {child.name} did not start", hint="see its message above, if any"
            )
        task_status.started()

    def _announced(self) -> state.Running:
        control = f"http://{HOST}:{self._control.getsockname()[1]}"
        return state.Running(
            name=self._twin.name,
            control=control,
            token=self._orders.token,
            pid=os.getpid(),
            front=self._url(entry_of(self._twin)),
        )

    def _url(self, name: str) -> str:
        host, port = self._orders.addresses[name]
        return f"http://{host}:{port}"

    def _started(self) -> None:
        figures = self._process.world.figures
        figures.gauge(
            f"{TWIN}.processes", lambda: 1 + sum(c.process.returncode is None for c in self._children)
        )
        pids = [os.getpid(), *(child.process.pid for child in self._children)]
        self._process.log.note(TWIN, "started", f"{self._twin.name}, seed {self._twin.seed}", pids=pids)
        announced = self._announced()
        urls = {name: self._url(name) for name in self._orders.addresses}
        say(
            Ready(
                control=announced.control, token=announced.token, front=announced.front, urls=urls, pids=pids
            )
        )

    async def _watch(self, child: _Child, scope: trio.CancelScope) -> None:
        """End the twin if a process dies."""
        code = await child.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._died = f"the process of {child.name} (pid {child.process.pid}) died by {how}"
        self._process.log.note(TWIN, "died", self._died)
        scope.cancel()

    async def _serve_control(self, stream: trio.SocketStream) -> None:
        await serve_connection(stream, self._answer, lambda request: None)

    async def _answer(self, request: Request) -> Response:
        path = request.path.partition("?")[0]
        if request.method == "GET" and path == "/figures":
            return _json(200, await self._figures())
        if request.method == "GET" and path == "/settings":
            return _json(200, {name: value_text(self._twin, name) for name in names_of(self._twin)})
        if request.method != "POST" or path != "/set":
            return _json(
                404, {"error": f"there is no {request.method} {path}", "hint": "/figures, /settings, /set"}
            )
        if not secrets.compare_digest(request.token.encode(), self._orders.token.encode()):
            return _json(403, {"error": "this needs the twin's token", "hint": "use replay twin set"})
        try:
            settings = msgspec.json.decode(request.body, type=dict[str, str])
            return _json(200, await self._set(settings))
        except msgspec.MsgspecError as error:
            return _json(
                400, {"error": f"not a JSON object of strings: {error}", "hint": '{"auth.workers": "8"}'}
            )
        except ReplayError as error:
            status = 400 if isinstance(error, UsageError) else 500
            return _json(status, {"error": str(error), "hint": error.hint})

    async def _set(self, settings: dict[str, str]) -> list[dict[str, str]]:
        """Change settings in all processes, and return the changes.

        Raises UsageError if one is invalid (then no process changes any), EngineError if another process did not apply
        them.
        """
        changes = self._process.apply(settings)
        for change_ in changes:
            why = f"{change_['name']} = {change_['new']}, was {change_['old']}"
            self._process.log.note(TWIN, "set", why, setting=change_["name"])
        failures: dict[str, str] = {}

        async def ask(child: _Child) -> None:
            if error := (await child.ask(settings)).error:
                failures[child.name] = error

        async with trio.open_nursery() as nursery:
            for child in self._children:
                nursery.start_soon(ask, child)
        if failures:
            why = "; ".join(f"the process of {name}: {failures[name]}" for name in sorted(failures))
            self._process.log.note(TWIN, "set_failed", why)
            raise EngineError(
                f"not every process has the new settings: {why}", hint="stop this twin and start it again"
            )
        return changes

    async def _figures(self) -> dict[str, Any]:
        found: dict[str, Any] = self._process.world.figures.document()
        for child in self._children:
            part = (await child.ask()).figures
            late_ms = max(found[f"{TWIN}.late_ms"], part.get(f"{TWIN}.late_ms", 0))
            found.update(part)
            found[f"{TWIN}.late_ms"] = late_ms
        return dict(sorted(found.items()))


def _json(status: int, value: object) -> Response:
    return Response(status, body=msgspec.json.encode(value))


def main() -> int:
    """Run as a process, and return the exit code."""
    ignore_terminal()
    line = sys.stdin.buffer.readline()
    if not line:
        # The parent process was interrupted before it sent the orders.
        return 0
    try:
        orders = msgspec.json.decode(line, type=Orders)
        twin: Twin = twin_from(orders.twin)
        trio.run(Root(orders, bind_all(twin)).run)
    except ReplayError as error:
        return report(error)
    except BaseExceptionGroup as group:
        ours = _ours(group)
        if ours is None:
            raise
        return report(ours)
    return 0


def _ours(error: BaseException) -> ReplayError | None:
    """Return the first ReplayError in a group of errors; None if there is none."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _ours(each))), None)
    return error if isinstance(error, ReplayError) else None


if __name__ == "__main__":
    sys.exit(main())
