"""The interface through which a coordinator starts its agents and accepts their connections."""

from __future__ import annotations

import ssl
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from replay.errors import OutputError, reason_of
from replay.units import counted

from .framing import Connection
from .handshake import HANDSHAKE_S, make_token

Accept = Callable[[Connection], Awaitable[None]]
"""Serves one connection of an agent until it ends."""

LOCAL_MAX = 64
"""Maximum number of agents for `local:N`, which is for tests."""

LEAVE_S = 2.0
"""How long agents may take to exit by themselves after the run, before they are terminated (SIGTERM)."""

ASKED_S = 6.0
"""How long terminated agents may take to stop cleanly, before they are killed (SIGKILL)."""


@dataclass
class Started:
    """An agent's process, as far as the coordinator knows it."""

    order: str
    process: trio.Process | None = None
    ended: trio.Event = field(default_factory=trio.Event)


class Transport(ABC):
    """Starts agents, or waits for agents that the user starts, and accepts their connections.

    `agents` is their number. `token` is the token that they must prove to know. `is_here` means that they run on
    this machine.
    """

    agents: int
    token: bytes = b""
    is_here = False

    def __init__(self) -> None:
        self.started: dict[str, Started] = {}
        self.refused = 0
        """The number of connections whose TLS handshake failed."""

    @property
    def how_to_join(self) -> str:
        """The command with which the user starts an agent; empty if the coordinator starts the agents."""
        return ""

    @abstractmethod
    async def serve(self, accept: Accept, folder: Path, allow: tuple[str, ...]) -> None:
        """Start the agents and serve their connections, until cancelled.

        `folder` is for their run folders and output. `allow` are the hosts that agents on this machine may send
        to.
        """

    async def gone(self, order: str) -> bool:
        """Return whether the process of this order is known to have ended."""
        started = self.started.get(order)
        return started is not None and started.ended.is_set()


def agent_command(*arguments: str) -> list[str]:
    """Return the command of an agent on this machine."""
    return [sys.executable, "-m", "replay.cli", "agent", *arguments]


async def wait_for(process: trio.Process, started: Started) -> None:
    """Wait until an agent's process ends.

    If this task is cancelled, which happens after the run, wait for LEAVE_S, then terminate the process, and
    finally kill it.
    """
    try:
        await process.wait()
    finally:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(LEAVE_S):
                await process.wait()
            if process.returncode is None:
                process.terminate()
                with trio.move_on_after(ASKED_S):
                    await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
        started.ended.set()


async def serve_listener(
    transport: Transport, listener: trio.SocketListener, accept: Accept, context: ssl.SSLContext | None = None
) -> None:
    """Serve every connection, over TLS if there is a context. A failed handshake ends only that connection."""

    async def served(stream: trio.SocketStream) -> None:
        if context is None:
            await accept(Connection(stream))
            return
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(HANDSHAKE_S):
                await secured.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError, OSError):
            transport.refused += 1
            await trio.aclose_forcefully(stream)
            return
        await accept(Connection(secured))

    await trio.serve_listeners(served, [listener])


class Local(Transport):
    """A transport with agents as processes on this machine, for tests and for trying out: `local:N`."""

    is_here = True

    def __init__(self, agents: int) -> None:
        super().__init__()
        self.agents = agents

    async def serve(self, accept: Accept, folder: Path, allow: tuple[str, ...]) -> None:
        """Start the agents and serve their connections until cancelled (see `Transport`)."""
        token_file = folder / "token"
        self.token = make_token(token_file)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_listener, self, listener, accept)
                for number in range(self.agents):
                    hosts = [text for host in allow for text in ("--allow", host)]
                    command = agent_command(
                        *("--connect", f"127.0.0.1:{port}", "--token-file", str(token_file)),
                        *("--runs", str(folder), "--order", str(number), *hosts),
                    )
                    nursery.start_soon(self._run, command, folder, str(number))
        finally:
            token_file.unlink(missing_ok=True)

    async def _run(self, command: list[str], folder: Path, order: str) -> None:
        """Run one agent in its own session until it ends.

        Ctrl-C then reaches only the coordinator, which ends the agent cleanly.
        """
        started = self.started[order] = Started(order)
        with (folder / f"agent-{order}.log").open("wb") as log:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        started.process = process
        await wait_for(process, started)


@dataclass(frozen=True)
class Identity:
    """The PEM files of one side: the authorities that sign certificates, its own certificate, and its private key."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    @property
    def is_given(self) -> bool:
        """Whether there are certificates, so that connections can be secured."""
        return bool(self.ca and self.cert)


def make_folder(folder: Path) -> None:
    """Create the folder for the agents' runs, accessible only to this user.

    Raises OutputError if it exists, or cannot be created.
    """
    try:
        folder.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise OutputError(
            f"{folder} exists already",
            hint="it contains agents' runs of an earlier attempt: merge them (replay merge), or remove it",
        ) from None
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {reason_of(error)}") from None


def in_words(agents: int) -> str:
    """Return a number of agents with its noun, such as `2 agents`."""
    return counted(agents, "agent")
