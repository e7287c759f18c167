"""`replay record http` as a process, the way a user starts it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from replay.trace import Trace

from .there import there

STARTS_WITHIN_S = 60
ENDS_WITHIN_S = 90


@dataclass
class Recorder:
    """A recording that is under way, and what it printed once it has ended."""

    process: subprocess.Popen[str]
    out: Path
    url: str
    port: int
    printed: str = ""

    @property
    def journal(self) -> Path:
        """Where its journal is."""
        return Path(f"{self.out}.journal")

    def writer_pid(self) -> int:
        """The process that writes the journal."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return next(int(pid) for task in tasks for pid in (task / "children").read_text().split())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; its exit code."""
        self.process.send_signal(number)
        with contextlib.suppress(ValueError):
            self.printed += self.process.communicate(timeout=ENDS_WITHIN_S)[0]
        return self.process.returncode

    def kill(self) -> None:
        """Kill both of its processes at once."""
        writer = self.writer_pid()
        for pid in (self.process.pid, writer):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        there(self.process.stdout).close()
        while Path(f"/proc/{writer}").exists() and "Z (" not in _state(writer):
            time.sleep(0.01)

    def trace(self) -> Trace:
        """The trace that it made."""
        return Trace.open(self.out)


def _state(pid: int) -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"State:\s+(.*)", Path(f"/proc/{pid}/status").read_text())
        return found[1] if found else ""
    return "Z (gone)"


@contextmanager
def recording(
    out: Path, *options: str, before: tuple[str, ...] = (), listen: str = "127.0.0.1:0"
) -> Iterator[Recorder]:
    """A recording to `out`; killed at the end where it still runs. `before` are words before it, such as prlimit."""
    command = [
        *before,
        sys.executable,
        "-m",
        "replay.cli",
        "record",
        "http",
        "--listen",
        listen,
        "-o",
        str(out),
        *options,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        printed, found = "", None
        ends_at = time.monotonic() + STARTS_WITHIN_S
        while found is None and time.monotonic() < ends_at and (line := there(process.stdout).readline()):
            printed += line
            found = re.search(r"(https?)://([\d.]+):(\d+) to ", line)
        assert found is not None, printed
        port = int(found[3])
        yield Recorder(process, out, f"{found[1]}://127.0.0.1:{port}", port, printed)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        there(process.stdout).close()


def replay(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of replay to its end."""
    return subprocess.run(
        [sys.executable, "-m", "replay.cli", *words], capture_output=True, text=True, timeout=120, check=False
    )
