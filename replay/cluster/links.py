"""The coordinator's connections to its agents: the messages that they transfer, and the files that it fetches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import trio

from .framing import Broken, Connection
from .messages import AnyMessage, Fetch, Message, Piece
from .shipping import AskPiece

WAITING_MAX = 1_024
"""Maximum number of messages to one agent that wait until its connection accepts them."""

PIECES_MAX = 64
"""Maximum number of pieces from one agent that wait until they are written."""

FLUSH_S = 2.0
"""Time limit for the last messages to all agents."""


class Links:
    """The connections to agents, by the agents' numbers."""

    def __init__(self) -> None:
        self._connections: dict[int, Connection] = {}
        self._outgoing: dict[int, trio.MemorySendChannel[Message]] = {}
        self._to_send: dict[int, trio.MemoryReceiveChannel[Message]] = {}
        self._pieces: dict[int, trio.MemorySendChannel[Piece]] = {}

    def open(self, agent: int, connection: Connection) -> None:
        """Add an agent's connection. Messages that are `put` from now on are sent when the connection is served."""
        self._connections[agent] = connection
        self._outgoing[agent], self._to_send[agent] = trio.open_memory_channel[Message](WAITING_MAX)

    def is_open(self, agent: int) -> bool:
        """Return whether messages to this agent can be sent."""
        return agent in self._outgoing

    async def serve(self, agent: int, received: Callable[[AnyMessage], None]) -> str:
        """Exchange messages with an agent until its connection ends, and return why it ended."""
        connection, why = self._connections[agent], "its connection ended"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_all, connection, self._to_send[agent])
            try:
                while (message := await connection.receive()) is not None:
                    if isinstance(message, Piece):
                        self._piece(agent, message)
                    else:
                        received(message)
            except Broken as error:
                why = str(error)
            self._outgoing.pop(agent, None)
            if agent in self._pieces:
                self._pieces[agent].close()
            nursery.cancel_scope.cancel()
        return why

    def put(self, agent: int, message: Message) -> None:
        """Queue a message for an agent; drop it if the agent is not connected, or does not read its messages."""
        channel = self._outgoing.get(agent)
        if channel is None:
            return
        try:
            channel.send_nowait(message)
        except trio.WouldBlock:
            return  # The agent does not read its messages. The coordinator will notice that it is silent.

    def asks(self, agent: int) -> AskPiece:
        """Return a function that fetches pieces of an agent's files.

        The function raises trio.EndOfChannel when the connection has ended.
        """
        send, receive = trio.open_memory_channel[Piece](PIECES_MAX)
        self._pieces[agent] = send

        async def ask(name: str, offset: int) -> Piece:
            self.put(agent, Fetch(file=name, offset=offset))
            return await receive.receive()

        return ask

    def _piece(self, agent: int, piece: Piece) -> None:
        """Pass on a piece; drop it if it was not requested, or if PIECES_MAX pieces wait."""
        with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            if agent in self._pieces:
                self._pieces[agent].send_nowait(piece)

    async def flush(self) -> None:
        """Wait until the last messages are sent, for FLUSH_S at most."""
        with trio.move_on_after(FLUSH_S):
            while any(channel.statistics().current_buffer_used for channel in self._outgoing.values()):
                await trio.sleep(0.01)
            await trio.sleep(0.05)

    @property
    def sent_bytes(self) -> int:
        """Bytes sent to all agents."""
        return sum(connection.sent_bytes for connection in self._connections.values())

    @property
    def received_bytes(self) -> int:
        """Bytes received from all agents."""
        return sum(connection.received_bytes for connection in self._connections.values())


async def _send_all(connection: Connection, messages: trio.MemoryReceiveChannel[Message]) -> None:
    async for message in messages:
        try:
            await connection.send(message)
        except Broken:
            return
