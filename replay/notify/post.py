"""Posts messages to web hooks from a separate thread, with a limited number of retries, without delaying a run.

The URL of a web hook is a secret, because anyone who has it can write to the channel. Messages, errors and files
therefore contain only its host.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from replay._version import __version__
from replay.errors import LimitError, UsageError
from replay.plan.safety import Allowed, is_loopback, parse_address
from replay.settings.groups.live import check_web_hook
from replay.settings.headers import expand
from replay.shown import shown
from replay.units import counted

TRIES, PAUSE_S, TRY_S = 3, 1.0, 5.0
"""Maximum number of tries for a message, the pause after the first (twice as long after the second), and the time limit
of one try."""

QUEUED_MAX = 8
"""Maximum number of queued messages. A command sends up to four."""

LEAVE_S = 8.0
"""Maximum time for which the end of a command waits for its last message."""


class _Refused(Exception):
    """The web hook refused the message for good, so it is not sent again."""


@dataclass(frozen=True, repr=False)
class WebHook:
    """The URL to which messages are posted. Its printed form contains no secret."""

    url: SplitResult

    @property
    def host(self) -> str:
        """The host of the URL, which is safe to show."""
        return self.url.hostname or ""

    def __repr__(self) -> str:
        return f"WebHook({self.host})"


def web_hooks(
    urls: Sequence[str], allowed: Allowed, environ: Mapping[str, str] | None = None
) -> list[WebHook]:
    """Return the web hooks of a scenario.

    Raise UsageError if one is not a valid URL, has a user name, or uses a variable that is not set, and LimitError if
    its host is not allowed.
    """
    found = []
    for text in urls:
        url = expand("--notify", text, os.environ if environ is None else environ)
        check_web_hook(url.replace("$", ""), "--notify")
        hook = WebHook(urlsplit(url))
        if hook.url.username is not None:
            raise UsageError(
                f"--notify: the URL of {hook.host} has a user name",
                hint="leave it out; the secret of a web hook belongs in the path of its URL",
            )
        _addresses(hook, allowed)
        found.append(hook)
    return found


def _addresses(hook: WebHook, allowed: Allowed) -> list[str]:
    """Return the addresses of a web hook. Raise LimitError if one of them is not allowed.

    If the host has no address at present, the list is empty if the host is allowed; otherwise LimitError is raised.
    """
    port = hook.url.port or (443 if hook.url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(hook.host, port, type=socket.SOCK_STREAM)
    except OSError:
        if allowed.host(hook.host):
            return []
        hint = f"check its name; if it is right, allow it: --allow {hook.host}"
        raise LimitError(f"--notify: {hook.host} has no address", hint=hint) from None
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    for address in addresses:
        is_allowed = (
            allowed.host(hook.host) or is_loopback(address) or allowed.address(parse_address(address))
        )
        if not is_allowed:
            raise LimitError(
                f"--notify: {hook.host} is beyond this machine, and it is not allowed",
                hint=f"to send messages to it: --allow {hook.host}",
            )
    return addresses


class Poster:
    """Posts each message to every web hook, in its own thread. `send` does not wait."""

    def __init__(self, hooks: Sequence[WebHook], allowed: Allowed) -> None:
        self._hooks, self._allowed = list(hooks), allowed
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUED_MAX)
        self._given = self._delivered = 0
        self._why = ""
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        self._thread.start()

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message. If the queue is full, the message is dropped and counted."""
        self._given += len(self._hooks)
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._why = self._why or "the web hook is too slow"

    def close(self) -> str:
        """Wait for queued messages, for LEAVE_S at most, and return a warning if some were not delivered.

        The text is empty if all messages were delivered.
        """
        until = time.monotonic() + LEAVE_S
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=LEAVE_S)
        try:
            self._thread.join(max(until - time.monotonic(), 0.0))
        finally:
            self._leave.set()
        lost = self._given - self._delivered
        if not lost:
            return ""
        why = self._why or f"no answer within {LEAVE_S:g} s of the end"
        return f"--notify: {lost:,} of {counted(self._given, 'message')} not delivered: {why}"

    def _run(self) -> None:
        while (message := self._queue.get()) is not None:
            data = msgspec.json.encode(message)
            for hook in self._hooks:
                self._delivered += self._tried(hook, data)

    def _tried(self, hook: WebHook, data: bytes) -> bool:
        pause_s = PAUSE_S
        for number in range(TRIES):
            if number and self._leave.wait(pause_s):
                return False
            pause_s = PAUSE_S if not number else 2 * pause_s
            try:
                _post(hook, data, self._allowed)
                return True
            except (_Refused, LimitError) as error:
                self._why = f"{hook.host} {error}" if isinstance(error, _Refused) else str(error)
                return False
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._why = _words(hook, error)
        return False


def _words(hook: WebHook, error: Exception) -> str:
    """Return why a try failed. The error's own text is left out if it may quote the URL."""
    if isinstance(error, TimeoutError):
        return f"{hook.host} does not answer within {TRY_S:g} s"
    if isinstance(error, OSError) and error.strerror:
        return shown(f"{hook.host}: {error.strerror.lower()}")
    return str(error) if isinstance(error, _Failed) else f"{hook.host}: {type(error).__name__}"


class _Failed(OSError):
    """The web hook cannot accept the message now, so it is sent again."""


def _post(hook: WebHook, data: bytes, allowed: Allowed) -> None:
    """Try once to post a message.

    The connection goes to an address that was checked immediately before. Redirects are not followed. Raises _Refused or
    LimitError if another try would be useless, and _Failed or another error if it may succeed.
    """
    until = time.monotonic() + TRY_S
    addresses = _addresses(hook, allowed)
    if not addresses:
        raise _Failed(f"{hook.host} has no address")
    url = hook.url
    port = url.port or (443 if url.scheme == "https" else 80)
    raw = socket.create_connection((addresses[0], port), timeout=TRY_S)
    with contextlib.closing(raw):
        stream: socket.socket = raw
        if url.scheme == "https":
            stream = ssl.create_default_context().wrap_socket(raw, server_hostname=hook.host)
        connection = http.client.HTTPConnection(hook.host, port)
        connection.sock = stream
        place = (url.path or "/") + (f"?{url.query}" if url.query else "")
        head = {
            "Content-Type": "application/json",
            "User-Agent": f"replay/{__version__}",
            "Host": _host_header(url),
        }
        with contextlib.closing(connection):
            connection.request("POST", place, data, head)
            stream.settimeout(max(until - time.monotonic(), 0.1))
            answer = connection.getresponse()
            status = answer.status
    if status == 429 or status >= 500:
        raise _Failed(f"{hook.host} answered {status}")
    if not 200 <= status < 300:
        raise _Refused(f"answered {status}")


def _host_header(url: SplitResult) -> str:
    return url.netloc.rpartition("@")[2]
