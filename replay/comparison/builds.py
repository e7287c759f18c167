"""The builds of an A/B session.

A build that is a command is started on a port of its own for one run, and then stopped with all processes of its
session.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from replay.errors import TargetError, UsageError

from .cores import pinned

HOST = "127.0.0.1"
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
READY_S = 60.0
GRACE_S = 5.0
POLL_S = 0.05
LOG_SHOWN = 300
"""Maximum number of characters of a build's output that an error quotes."""


@dataclass(frozen=True, slots=True)
class Build:
    """A command with `{port}` in it, or the URL of a service that already runs."""

    label: str
    what: str

    def __post_init__(self) -> None:
        if not self.is_url and "{port}" not in self.what:
            raise UsageError(
                f"--{self.label}: {self.what!r} has no {{port}}",
                hint="write {port} in the place of the port that the command listens on, or give a URL",
            )

    @property
    def is_url(self) -> bool:
        """Whether the build is a URL, so that nothing has to be started."""
        return _URL.fullmatch(self.what) is not None

    @contextlib.contextmanager
    def running(
        self,
        log: Path,
        ready: str = "",
        ready_s: float = READY_S,
        url: str = f"http://{HOST}:{{port}}",
        cores: Collection[int] = (),
    ) -> Iterator[str]:
        """Start the build, wait until it is ready, and yield its URL; afterwards stop every process of its session.

        If the build is a URL, nothing is started, and the URL is yielded without a check.

        `url` is the URL of a build that is started, with `{port}` in it. The build runs on `cores`, or on any core if
        there are none. `ready` is a path or URL that must answer with a status below 500 (`{port}` is replaced);
        without it, the port must accept connections. Raise TargetError, with the last output of the build, if the
        build ends or is not ready in time.
        """
        if self.is_url:
            yield self.what
            return
        port = free_port()
        with log.open("wb") as file:
            with pinned(cores):
                process = subprocess.Popen(
                    self.what.replace("{port}", str(port)), shell=True, stdin=subprocess.DEVNULL, stdout=file,
                    stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, "PORT": str(port)},
                )  # fmt: skip
            try:
                self._wait(process, port, ready, ready_s, log)
                yield url.replace("{port}", str(port))
            finally:
                end_session(process)

    def _wait(
        self, process: subprocess.Popen[bytes], port: int, ready: str, ready_s: float, log: Path
    ) -> None:
        url = ready.replace("{port}", str(port))
        if url.startswith("/"):
            url = f"http://{HOST}:{port}{url}"
        deadline = time.monotonic() + ready_s
        while not (_answers(url) if url else _accepts(port)):
            code = process.poll()
            if code is not None:
                raise TargetError(
                    f"the {self.label} build ended with {code} before it was ready{_words(log)}"
                )
            if time.monotonic() > deadline:
                what = url or f"port {port}"
                raise TargetError(
                    f"the {self.label} build was not ready after {ready_s:g} s: {what} does not answer{_words(log)}",
                    hint="check that it listens on {port}, or give --ready-timeout or another --ready",
                )
            time.sleep(POLL_S)


def free_port() -> int:
    """Return a loopback port on which no process listens."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
        return True
    return False


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2.0) as answer:
            return int(answer.status) < 500
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _words(log: Path) -> str:
    with contextlib.suppress(OSError):
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 4 * LOG_SHOWN, 0))
            text = " ".join(file.read().decode("utf-8", "replace")[-LOG_SHOWN:].split())
        return f": {text}" if text else " (it printed nothing)"
    return ""


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to every process of a session, and SIGKILL to those that still live after GRACE_S.

    Processes that outlive SIGKILL by GRACE_S are left.
    """
    _signal_all(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        process.poll()
        if not _members(process.pid):
            break
        time.sleep(POLL_S)
    deadline = time.monotonic() + GRACE_S
    while _members(process.pid) and time.monotonic() < deadline:
        _signal_all(process.pid, signal.SIGKILL)
        process.poll()
        time.sleep(POLL_S)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)


def _signal_all(session: int, number: int) -> None:
    for pid in _members(session):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _members(session: int) -> list[int]:
    """Return the ids of the living processes of a session; an empty list if the system has no /proc.

    The id of a session is that of its first process, and is not reused while any of its processes lives.
    """
    found = []
    for entry in Path("/proc").iterdir() if Path("/proc/self/stat").exists() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def run_step(name: str, command: str, log: Path, time_limit_s: float) -> None:
    """Run a user's command before or after runs, and afterwards stop every process of its session.

    An empty command does nothing. Raise UsageError if the command fails or takes longer than `time_limit_s`, or than
    1 s if the limit is lower.
    """
    if not command:
        return
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(max(time_limit_s, 1.0))
        except subprocess.TimeoutExpired:
            raise UsageError(
                f"--{name}: not finished after {max(time_limit_s, 1.0):.0f} s{_words(log)}"
            ) from None
        finally:
            end_session(process)
    if code:
        raise UsageError(f"--{name}: {command!r} ended with {code}{_words(log)}")
