"""Runs over agents by the real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replay.staging.sink import Sink
from tests.support.trace_data import Row, write_trace
from tests.support.waiting import is_alive

SECOND_NS = 1_000_000_000
PATIENCE_S = 180

AGENT = f"{sys.executable} -m replay.cli agent"
"""The command of an agent of this checkout."""


def url(sink: Sink) -> str:
    """A sink as a target."""
    return f"http://127.0.0.1:{sink.port}"


def ssh_of(folder: Path) -> str:
    """A program in ssh's place: it runs the command here, whatever the host."""
    script = folder / "ssh.sh"
    script.write_text('#!/bin/sh\nshift\nexec sh -c "$1"\n')
    script.chmod(0o700)
    return str(script)


def evening(trace: Path, *, seconds: int, per_second: int, clients: int = 17, path: str = "/r/{}") -> Path:
    """A trace of evenly spread requests of some clients, each with a path of its own."""
    rows = [
        Row(n * SECOND_NS // per_second, target=path.format(n).encode(), client=n % clients)
        for n in range(seconds * per_second)
    ]
    write_trace(trace, rows)
    return trace


class Command:
    """`replay run --cluster` as a process."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.folder, self.out = folder, folder / "RUN"
        self.agents = folder / "RUN.agents"
        command = [sys.executable, "-m", "replay.cli", "run", *arguments, "-o", "RUN", "--plain"]
        self.process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def wait(self, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
        """The exit code, and everything that was printed."""
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out + err

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.out / "run.json").read_text())
        return document

    def agent_pids(self) -> list[int]:
        """The processes of the agents, by their number in the run."""
        shares = [json.loads(path.read_text()) for path in self.agents.glob("agent-*/share.json")]
        return [share["pid"] for share in sorted(shares, key=lambda share: share["agent"])]

    def await_start(self, agents: int) -> None:
        """Until every agent has its order to start."""
        until(lambda: len(self.agent_pids()) == agents)


def until(is_so: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.05)


@contextmanager
def running(folder: Path, *arguments: str, **how: Any):
    """A run over agents; what is left of it is killed at the end."""
    command = Command(folder, *arguments, **how)
    try:
        yield command
    finally:
        pids = command.agent_pids()
        if command.process.poll() is None:
            command.process.kill()
            command.process.communicate()
        for pid in pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
