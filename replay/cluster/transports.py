"""How a coordinator gets its agents: what starts them, and how their connections come in."""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from replay.errors import OutputError, UsageError, reason_of
from replay.units import counted

from .framing import Connection
from .handshake import make_token

Accept = Callable[[Connection], Awaitable[None]]
"""Serves one connection of an agent until it ends."""

LOCAL_MAX = 64
"""Agents of `local:N`: it is for tests."""

LEAVE_S = 8.0
"""How long agents may take to leave after the run, before they are killed."""


@dataclass
class Started:
    """An agent's process, as far as the coordinator knows it."""

    order: str
    process: trio.Process | None = None
    ended: trio.Event = field(default_factory=trio.Event)


class Transport(ABC):
    """Starts agents. `agents` says how many; `token` is what they prove to know; `is_here`: they run on this machine."""

    agents: int
    token: bytes = b""
    is_here = False

    def __init__(self) -> None:
        self.started: dict[str, Started] = {}

    @abstractmethod
    async def serve(self, accept: Accept, folder: Path, allow: tuple[str, ...]) -> None:
        """Start the agents and serve their connections, until cancelled. `folder` is the place for their run folders
        and what they print.
        """

    async def gone(self, order: str) -> bool:
        """Whether the process of this order is known to have ended."""
        started = self.started.get(order)
        return started is not None and started.ended.is_set()


def agent_command(*arguments: str) -> list[str]:
    """The command of an agent on this machine."""
    return [sys.executable, "-m", "replay.cli", "agent", *arguments]


class Local(Transport):
    """Agents as processes of this machine, for tests and for trying out: `local:N`."""

    is_here = True

    def __init__(self, agents: int) -> None:
        super().__init__()
        self.agents = agents

    async def serve(self, accept: Accept, folder: Path, allow: tuple[str, ...]) -> None:
        """See `Transport`."""
        token_file = folder / "token"
        self.token = make_token(token_file)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        try:
            async with trio.open_nursery() as nursery:

                async def served(stream: trio.SocketStream) -> None:
                    await accept(Connection(stream))

                nursery.start_soon(trio.serve_listeners, served, [listener])
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
        """Run one agent. It has a session of its own: Ctrl-C reaches the coordinator alone, which ends it in order."""
        started = self.started[order] = Started(order)
        with (folder / f"agent-{order}.log").open("wb") as log:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        started.process = process
        try:
            await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                with trio.move_on_after(LEAVE_S):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            started.ended.set()


def make_transport(text: str) -> Transport:
    """The transport that `--cluster` names. UsageError for anything else."""
    kind, _, rest = text.partition(":")
    if kind == "local":
        if not rest.isdigit() or not 1 <= int(rest) <= LOCAL_MAX:
            raise UsageError(
                f"--cluster {text}: give a number of agents from 1 to {LOCAL_MAX}",
                hint="local:2 is for tests; for more load from this machine use more lanes: -t",
            )
        return Local(int(rest))
    raise UsageError(
        f"--cluster {text!r} is not a cluster",
        hint="write local:N, tls://HOST:PORT, tcp://127.0.0.1:PORT, ssh:FILE or k8s:",
    )


def make_folder(folder: Path) -> None:
    """The folder of the agents' runs, for this user alone. OutputError if it exists, or cannot be made."""
    try:
        folder.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise OutputError(
            f"{folder} exists already",
            hint="it holds agents' runs of an earlier try: merge them (replay merge), or remove it",
        ) from None
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {reason_of(error)}") from None


def in_words(agents: int) -> str:
    """`2 agents`."""
    return counted(agents, "agent")
