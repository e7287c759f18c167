"""Agents that are started elsewhere and connect to the coordinator.

They are the pods of a Job, or agents that the user starts.
"""

from __future__ import annotations

from pathlib import Path

import trio

from replay.errors import OutputError, UsageError, reason_of
from replay.settings.listening import is_loopback_host, parse_place, place_text

from .connecting import server_context
from .handshake import make_token
from .transports import Accept, Identity, Transport, serve_listener

AGENTS_MAX = 10_000
_FORM = "write --cluster listen:HOST:PORT,agents=N"


class Listening(Transport):
    """Waits for `agents` agents at HOST:PORT, with mutual TLS, or with a token on loopback."""

    def __init__(self, host: str, port: int, agents: int, identity: Identity) -> None:
        super().__init__()
        self.host, self.port, self.agents = host, port, agents
        self._identity = identity
        self._ways = ""

    @property
    def how_to_join(self) -> str:
        """The command that starts an agent (see `Transport`)."""
        return f"replay agent --connect {place_text(self.host, self.port)} {self._ways}"

    async def serve(self, accept: Accept, folder: Path, allow: tuple[str, ...]) -> None:
        """Listen for agents and serve their connections, until cancelled (see `Transport`).

        Raises OutputError if the address cannot be listened on, and the errors of `server_context`.
        """
        given = self._identity
        context = server_context(given.ca, given.cert, given.key) if given.is_given else None
        token_file = folder / "token"
        if context is None:
            self.token = make_token(token_file)
        self._ways = f"--token-file {token_file}" if context is None else "--ca FILE --cert FILE --key FILE"
        try:
            listeners = await trio.open_tcp_listeners(self.port, host=self.host)
        except OSError as error:
            place = place_text(self.host, self.port)
            raise OutputError(f"the coordinator cannot listen on {place}: {reason_of(error)}") from None
        try:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    self.port = listener.socket.getsockname()[1]
                    nursery.start_soon(serve_listener, self, listener, accept, context)
                nursery.start_soon(self.begin, token_file, folder)
        finally:
            token_file.unlink(missing_ok=True)

    async def begin(self, token_file: Path, folder: Path) -> None:
        """Start the agents once the port is open. Subclasses override this; here the user starts them."""


def check_secured(host: str, identity: Identity) -> None:
    """Raise UsageError if a coordinator would listen beyond loopback without certificates."""
    if not is_loopback_host(host) and not identity.is_given:
        raise UsageError(
            f"{host} is beyond this machine: agents and coordinators identify each other by certificates",
            hint="give --cluster-ca, --cluster-cert and --cluster-key",
        )


def parse_listening(text: str, identity: Identity) -> Listening:
    """Parse `HOST:PORT,agents=N`. Raises UsageError for any other text, or if the connections would be unsecured."""
    place, comma, rest = text.partition(",")
    name, _, count = rest.partition("=")
    if not comma or name != "agents" or not count.isdigit() or not 1 <= int(count) <= AGENTS_MAX:
        raise UsageError(
            f"--cluster listen:{text}: give the number of agents, from 1 to {AGENTS_MAX:,}", hint=_FORM
        )
    host, port = parse_place(place)
    check_secured(host, identity)
    return Listening(host, port, int(count), identity)
