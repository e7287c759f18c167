"""The service behind a recording proxy: its address, whether it is allowed, and connections to it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

from replay.errors import InputError, LimitError, UsageError, reason_of
from replay.plan.safety import Allowed
from replay.shown import without_user

from .streams import PlainStream, Stream, TlsStream

CONNECT_S = 10.0
LOOKED_UP_FOR_S = 30.0
"""How long, in seconds, looked-up addresses are used before the next lookup."""

_PORTS = {"http": 80, "https": 443}


class Upstream:
    """The service to which a proxy forwards requests.

    `check` looks up its address and must be called before the first request. Raises UsageError if the URL is
    invalid, or if `ca` is given without https, and InputError if the file `ca` cannot be used.
    """

    def __init__(self, url: str, allowed: Allowed, ca: Path | None = None) -> None:
        self.url, self._allowed = url, allowed
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(without_user(f"--upstream {url!r}: {error}")) from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise UsageError(
                without_user(f"--upstream {url!r} is not the URL of a service"),
                hint="for example http://127.0.0.1:9000",
            )
        if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise UsageError(
                "--upstream must have no user, path or query, because requests are forwarded unchanged",
                hint=f"give {parts.scheme}://{re.sub('^.*@', '', parts.netloc)}",
            )
        self.host, self.port = parts.hostname, port or _PORTS[parts.scheme]
        self._tls = _client_context(ca) if parts.scheme == "https" else None
        if ca is not None and self._tls is None:
            raise UsageError(
                "--upstream-ca needs an https:// service", hint="leave it out, or give --upstream https://..."
            )
        self._addresses: list[tuple[int, Any]] = []
        self._looked_up_s = 0.0

    @property
    def is_tls(self) -> bool:
        """Return whether the service uses TLS."""
        return self._tls is not None

    async def check(self) -> None:
        """Look up the service.

        Raises UsageError if the lookup fails, and LimitError if an address is neither loopback nor allowed.
        """
        try:
            await self._look_up()
        except OSError as error:
            raise UsageError(f"--upstream {self.host}: {reason_of(error)}") from None

    async def _look_up(self) -> None:
        found = await trio.socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        self._allowed.check(self.host, [str(address[0]) for *_, address in found])
        self._addresses = [(int(kind), address) for kind, _, _, _, address in found]
        self._looked_up_s = trio.current_time()

    async def connect(self) -> Stream:
        """Return a new connection, secured if the service uses TLS.

        Raises OSError if no address accepts one, or if the service now has an address that is not allowed.
        """
        if trio.current_time() - self._looked_up_s > LOOKED_UP_FOR_S:
            try:
                # If the lookup fails, the known addresses stay in use.
                with contextlib.suppress(OSError):
                    await self._look_up()
            except LimitError as error:
                raise ConnectionRefusedError(str(error)) from None
        failure: OSError = ConnectionRefusedError("no address")
        for kind, address in self._addresses:
            sock = socket.socket(kind, socket.SOCK_STREAM)
            try:
                with trio.fail_after(CONNECT_S):
                    return await self._connected(sock, address)
            except trio.TooSlowError:
                failure = TimeoutError(f"no connection within {CONNECT_S:g} s")
            except OSError as error:
                failure = error
            except BaseException:
                sock.close()
                raise
            sock.close()
        raise failure

    async def _connected(self, sock: socket.socket, address: Any) -> Stream:
        sock.setblocking(False)
        try:
            sock.connect(address)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code)) from None
        if self._tls is None:
            return PlainStream(sock)
        stream = TlsStream(sock, self._tls, server_side=False, name=self.host)
        await stream.secure()
        return stream


def _client_context(ca: Path | None) -> ssl.SSLContext:
    """Return the TLS context that verifies the service, against the system's authorities or those in a file."""
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"--upstream-ca {ca}: {reason_of(error)}", hint="give a PEM file") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def server_context(cert: Path, key: Path | None) -> ssl.SSLContext:
    """Return the TLS context of a listener with its certificate. Raises InputError if a file cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        files = f"--cert {cert}" + (f" and --key {key}" if key is not None else "")
        raise InputError(
            f"{files} cannot be used: {reason_of(error)}", hint="give PEM files that belong together"
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    return context
