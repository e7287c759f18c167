"""A socket to serve pages on, bound before the command does anything else, and the settings of the server behind it."""

from __future__ import annotations

import errno
import logging
import os
import socket
from importlib import import_module
from typing import TYPE_CHECKING

from replay.errors import UsageError, reason_of
from replay.settings.listening import place_text

if TYPE_CHECKING:
    from hypercorn.config import Config

USER_TIMEOUT_S = 20
"""If a peer accepts no data for this long, the kernel closes the connection."""

BACKLOG = 128
GRACE_S = 0.5
INSTALL = "pip install 'replay-engine[live]'"


def quiet() -> logging.Logger:
    """Return a logger that writes nothing, because the terminal belongs to the command."""
    logger = logging.getLogger("replay.web")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def check_installed(flag: str) -> None:
    """Raise UsageError if the packages that serve pages are not installed."""
    try:
        import_module("hypercorn.trio")
        import_module("starlette.applications")
    except ImportError as error:
        raise UsageError(f"{flag} needs {error.name}, which is not installed", hint=INSTALL) from None


def config_of(made: socket.socket) -> Config:
    """Return the settings of the server, which listens on a copy of the socket.

    The server writes nothing to the terminal, because the terminal belongs to the command.
    """
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{os.dup(made.fileno())}"]
    config.errorlog, config.accesslog = quiet(), None
    config.alpn_protocols = ["http/1.1"]
    config.include_server_header = False
    config.graceful_timeout = GRACE_S
    return config


def bound(flag: str, host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raise UsageError, for example if the address is not this machine's, or if the port is taken or not permitted.
    """
    place = place_text(host, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"{flag}: {place} cannot be listened on: {reason_of(error)}") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Connections inherit this limit, so a viewer that never reads cannot hold one for longer.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * USER_TIMEOUT_S)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = "give another port, or 0 for any free port"
            raise UsageError(f"{flag}: {place} is in use", hint=hint) from None
        if error.errno == errno.EADDRNOTAVAIL:
            hint = "give an address of this machine, or 0.0.0.0 for all of them"
        raise UsageError(f"{flag}: {place} cannot be listened on: {reason_of(error)}", hint=hint) from None
    return made
