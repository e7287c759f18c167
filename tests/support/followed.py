"""A followed run as a process, and logs that are written while it goes on."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

MS_FORMAT = '$remote_addr - - [$msec] "$request" $status $body_bytes_sent $request_time'
"""An nginx log_format with milliseconds and durations."""

READY = "objectives"
"""The last line of the plan, after which the run begins."""


def line(
    target: str,
    *,
    at_s: float | None = None,
    took_s: float = 0.0,
    status: int = 200,
    client: str = "10.0.0.1",
) -> str:
    """A line in MS_FORMAT of a request that ends now, or at `at_s`."""
    at_s = time.time() if at_s is None else at_s
    return f'{client} - - [{at_s:.3f}] "GET {target} HTTP/1.1" {status} 12 {took_s:.3f}\n'


@dataclass
class Ended:
    """How a followed run ended: exit code, what it printed, and its run.json."""

    code: int
    out: str
    err: str
    run: dict[str, Any]

    @property
    def source(self) -> dict[str, Any]:
        found: dict[str, Any] = self.run["source"]
        return found

    @property
    def planned(self) -> int:
        return int(self.run["accounts"]["planned"])

    def balanced(self) -> bool:
        """Every entry is in one account."""
        source = self.source
        others = source["late_at_source"] + source["not_due"] + sum(source["skipped"].values())
        return bool(self.planned == source["entries"] - others + source["copies"])


class Followed:
    """`replay follow SOURCE --target URL -o FOLDER`, started at once. `kill_all` ends those that a failed test left."""

    started: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, folder: Path, source: str, port: int, *flags: str) -> None:
        self.folder = folder / "run"
        command = [
            sys.executable, "-m", "replay.cli", "follow", source, "--target", f"http://127.0.0.1:{port}", "-o",
            str(self.folder), "--plain", *flags,
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=folder,
        )
        self.started.append(self.process)
        self._out = self._err = b""

    @classmethod
    def kill_all(cls) -> None:
        for process in cls.started:
            if process.poll() is None:
                process.kill()
                process.communicate()
        cls.started.clear()

    def wait_for_plan(self, timeout_s: float = 60.0) -> None:
        """Until the plan is printed: what is written from now on is in time."""
        self._out = self._wait(self.process.stdout, self._out, READY, timeout_s)

    def wait_for_error(self, words: str, timeout_s: float = 60.0) -> None:
        """Until these words stand on standard error."""
        self._err = self._wait(self.process.stderr, self._err, words, timeout_s)

    @staticmethod
    def _wait(pipe: IO[bytes] | None, known: bytes, words: str, timeout_s: float) -> bytes:
        assert pipe is not None
        deadline_s = time.monotonic() + timeout_s
        while words.encode() not in known and time.monotonic() < deadline_s:
            if select.select([pipe], [], [], 0.1)[0]:
                piece = os.read(pipe.fileno(), 65_536)
                if not piece:
                    break
                known += piece
        assert words.encode() in known, known
        return known

    def end(self, number: int | None = signal.SIGTERM, timeout_s: float = 60.0) -> Ended:
        """Send a signal, if any, and wait for the end."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=timeout_s)
        path = self.folder / "run.json"
        document = json.loads(path.read_text()) if path.exists() else {}
        return Ended(
            self.process.returncode, (self._out + out).decode(), (self._err + err).decode(), document
        )
