"""The live page's server: its socket, bound before the run sends anything, and its thread."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Sequence

import trio

from replay.engine.priority import CONTROL_NICE
from replay.errors import UsageError, reason_of
from replay.settings.listening import is_any, is_loopback_host, parse_place, place_text
from replay.web.guard import Guard
from replay.web.listen import bound, check_installed, config_of

from .feed import Feed

STARTED_S, LAST_LINES_S, LEAVE_S = 10.0, 2.0, 2.0
"""Maximum times for the server to start, for viewers to receive the last lines, and for the server to stop."""

POLL_S = 0.02


class LiveServer:
    """Serves a feed. The command calls `start`, and `close` at its end."""

    def __init__(self, place: str, allow: Sequence[str] = (), cert: str = "", key: str = "") -> None:
        """Bind the socket.

        Raise UsageError if that is not possible, if a certificate cannot be used, or if the packages that serve the
        page are not installed.
        """
        check_installed("--live")
        host, port = parse_place(place)
        self._allow, self._host = list(allow), host
        self._own_names = [socket.gethostname()] if is_any(host) else []
        self._cert, self._cert_key = cert, key or cert
        _check_certificate(cert, self._cert_key)
        self._socket = bound("--live", host, port)
        self.port: int = self._socket.getsockname()[1]
        self.feed = Feed()
        self.token = secrets.token_urlsafe(24)
        self._started, self._stop = threading.Event(), threading.Event()
        self._failure = ""
        self._stopped: trio.Event | None = None
        self._trio: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=self._run, name="live page", daemon=True)

    @property
    def link(self) -> str:
        """The link for viewers; its fragment, which browsers do not send, is the key."""
        named = [name.strip("[]") for name in self._allow if name.strip("[]") != self._host]
        host = [*named, *self._own_names][0] if self._own_names else self._host
        return f"{'https' if self._cert else 'http'}://{place_text(host, self.port)}/#{self.token}"

    @property
    def is_open_to_others(self) -> bool:
        """Whether it listens beyond loopback without TLS."""
        return not self._cert and not is_loopback_host(self._host)

    def start(self) -> None:
        """Begin to serve. Raise UsageError if that fails."""
        self._thread.start()
        if not self._started.wait(STARTED_S) or self._failure:
            raise UsageError(
                f"--live: the page cannot be served: {self._failure or 'its server does not start'}"
            )

    def end(self) -> None:
        """End the feed: viewers receive the rest of it, and their streams end."""
        self.feed.end()

    def close(self) -> None:
        """Wait until viewers have received the last lines, for LAST_LINES_S at most, and close the port."""
        self.end()
        until = time.monotonic() + LAST_LINES_S
        while self.feed.viewers and time.monotonic() < until and self._thread.is_alive():
            time.sleep(POLL_S)
        with contextlib.suppress(trio.RunFinishedError):
            if self._trio is not None and self._stopped is not None:
                self._trio.run_sync_soon(self._stopped.set)
        if self._thread.ident is not None:
            self._thread.join(LEAVE_S)
        with contextlib.suppress(OSError):
            self._socket.close()

    def _run(self) -> None:
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(
                os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), CONTROL_NICE)
            )
        try:
            trio.run(self._serve)
        except BaseException as error:  # No error of the page may end the run.
            self._failure = f"{type(error).__name__}: {error}"
        self._started.set()

    async def _serve(self) -> None:
        from hypercorn.trio import serve

        from .app import live_app

        self._trio, self._stopped = trio.lowlevel.current_trio_token(), trio.Event()
        next_change = trio.Event()

        def wake() -> None:
            nonlocal next_change
            woken, next_change = next_change, trio.Event()
            woken.set()

        def changed() -> None:
            assert self._trio is not None
            with contextlib.suppress(trio.RunFinishedError):
                self._trio.run_sync_soon(wake, idempotent=True)

        self.feed.listen(changed)
        config = config_of(self._socket)
        if self._cert:
            config.certfile, config.keyfile = self._cert, self._cert_key
        app = live_app(
            self.feed, lambda: next_change, Guard(self._host, [*self._allow, *self._own_names], self.token)
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: serve(
                app, config, shutdown_trigger=self._stopped.wait, task_status=task_status, mode="asgi"  # type: ignore[arg-type, union-attr]
            ))  # fmt: skip
            self._started.set()


def _check_certificate(cert: str, key: str) -> None:
    if not cert:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, password=_no_password)
    except OSError as error:  # ssl.SSLError is an OSError, too.
        where = f"{cert} and {key}" if key != cert else cert
        hint = "give a PEM file with the certificate, its chain and its key (or give --live-key), without a password"
        raise UsageError(f"--live-cert: {where} cannot be used: {reason_of(error)}", hint=hint) from None


def _no_password() -> str:
    raise ssl.SSLError("the key has a password")
