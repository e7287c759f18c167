"""A twin as a context manager: its processes run within the block, and have all ended after it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from replay.errors import EngineError, InputError, UsageError, reason_of

from . import state
from .folders import own_folder
from .host import Orders, Ready
from .limits import document_of, with_settings
from .spec import Twin

END_S = 8.0
ANSWER_S = 15.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RunningTwin:
    """A running twin, as the program that started it sees it."""

    def __init__(self, twin: Twin, ready: Ready, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self.twin, self.front, self.control, self.log_path = twin, ready.front, ready.control, log_path
        self.pids = ready.pids
        self._token, self._urls, self._process = ready.token, ready.urls, process
        self._died = ""

    def url(self, service: str) -> str:
        """Return the URL of a service. Raises UsageError if there is no service of this name."""
        if service not in self._urls:
            raise UsageError(f"there is no service {service!r}", hint=", ".join(self._urls))
        return self._urls[service]

    @property
    def figures_url(self) -> str:
        """The URL of all figures, as one JSON object."""
        return f"{self.control}/figures"

    def figures(self) -> dict[str, float]:
        """Return the present values of all figures."""
        figures: dict[str, float] = ask(self.control, "/figures")
        return figures

    def set(self, name: str, value: object) -> None:
        """Change a setting. Raise the errors of `change_settings`."""
        change_settings(self.control, self._token, {name: _text(value)})

    def died(self) -> str:
        """Return why the twin stopped by itself; empty while it runs."""
        if self._process.poll() is not None and not self._died:
            line = self._process.stdout.readline() if self._process.stdout else b""
            with contextlib.suppress(msgspec.MsgspecError):
                self._died = msgspec.json.decode(line, type=Ready).error
            code = self._process.returncode
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self._died = self._died or f"the twin's first process (pid {self._process.pid}) died by {how}"
        return self._died


def _text(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextlib.contextmanager
def running(
    twin: Twin,
    *,
    set: Mapping[str, object] | None = None,
    seed: int | None = None,
    log: Path | None = None,
) -> Iterator[RunningTwin]:
    """Start a twin, with some settings changed, and end it after the block.

    Without `log`, the log is in a folder that is removed at the end. Raise UsageError if a setting is invalid or the
    twin reports why it cannot start, and EngineError if it ends without a reason, or stops by itself later.
    """
    twin = with_settings(twin, set or {})
    if seed is not None:
        twin.seed = seed
    with contextlib.ExitStack() as stack:
        log_path = log or stack.enter_context(own_folder()) / "twin.ndjson"
        process: subprocess.Popen[bytes] | None = None
        try:
            process, ready = _start(Orders(twin=document_of(twin), log=str(log_path)))
            running_twin = RunningTwin(twin, ready, process, log_path)
            yield running_twin
            if died := running_twin.died():
                raise EngineError(died, hint="the twin stopped by itself")
        finally:
            if process is not None:
                _end(process)


def _start(orders: Orders) -> tuple[subprocess.Popen[bytes], Ready]:
    """Start the first process, and wait until the twin serves.

    Raise UsageError with the reason why it cannot serve, EngineError if it ends without a reason.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "replay.staging.twin.root"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(orders) + b"\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise EngineError("the twin did not start", hint="see its message above, if any")
        ready = msgspec.json.decode(line, type=Ready)
        if ready.error:
            raise UsageError(ready.error, hint=ready.hint)
    except BaseException:
        _end(process)
        raise
    return process, ready


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the first process, which ends the others, even if a second interrupt arrives meanwhile."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
        with contextlib.suppress(InputError, OSError):
            state.remove(state.folder() / f"{process.pid}.json")


def change_settings(control: str, token: str, settings: Mapping[str, str]) -> list[dict[str, str]]:
    """Change settings of a running twin, all of them or, if one is invalid, none, and return the changes.

    Raise UsageError if a setting is unknown, fixed or invalid, and EngineError if a process of the twin did not apply
    them. Other processes keep the new settings then.
    """
    changes: list[dict[str, str]] = ask(control, "/set", msgspec.json.encode(settings), token)
    return changes


def ask(control: str, path: str, body: bytes | None = None, token: str = "") -> Any:
    """Return the answer of a running twin at its control address.

    Raises UsageError if the twin refuses the request or does not run, EngineError if one of its processes failed.
    """
    request = urllib.request.Request(control + path, data=body, headers={"X-Twin-Token": token})
    try:
        with _OPENER.open(request, timeout=ANSWER_S) as response:
            return msgspec.json.decode(response.read())
    except urllib.error.HTTPError as error:
        found = msgspec.json.decode(error.read())
        kind = UsageError if error.code < 500 else EngineError
        raise kind(found["error"], hint=found["hint"]) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        words = reason_of(reason) if isinstance(reason, OSError) else str(reason)
        raise UsageError(
            f"no twin answers at {control}: {words}", hint="replay twin run FILE starts one"
        ) from None
