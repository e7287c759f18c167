"""Messages over a stream: four bytes of length (big-endian), then the message."""

from __future__ import annotations

import struct

import msgspec
import trio

from .messages import FRAME_BYTES_MAX, AnyMessage, Message, decode, encode

_LENGTH = struct.Struct(">I")
_READ_BYTES = 1 << 18


class Broken(Exception):
    """The connection failed or ended too early, or a message is too large or not one of the protocol."""


class Ended(Broken):
    """The connection ended when a message was expected."""


class Connection:
    """One end of a connection. Any number of tasks may send while one receives.

    `sent_bytes` and `received_bytes` are totals, including the length prefixes.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._sending = trio.Lock()
        self.sent_bytes = self.received_bytes = 0

    async def send(self, message: Message) -> None:
        """Send a message. Raises Broken if the connection has ended or the message is too large."""
        data = encode(message)
        if len(data) > FRAME_BYTES_MAX:
            raise Broken(f"a message of {len(data):,} bytes is too large to send")
        async with self._sending:
            try:
                await self._stream.send_all(_LENGTH.pack(len(data)) + data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
                raise Broken(str(error) or "the connection ended") from None
        self.sent_bytes += len(data) + _LENGTH.size

    async def receive(self) -> AnyMessage | None:
        """Return the next message, or None when the connection has ended or failed.

        Raises Broken if the data is not a message, or the message is too large.
        """
        if not await self._filled(_LENGTH.size):
            return None
        (length,) = _LENGTH.unpack(self._buffer[: _LENGTH.size])
        if length > FRAME_BYTES_MAX:
            raise Broken(f"a message of {length:,} bytes is too large to receive")
        if not await self._filled(_LENGTH.size + length):
            return None
        data = bytes(self._buffer[_LENGTH.size : _LENGTH.size + length])
        del self._buffer[: _LENGTH.size + length]
        try:
            return decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Broken(f"the data received is not a message of this protocol: {error}") from None

    async def _filled(self, size: int) -> bool:
        while len(self._buffer) < size:
            try:
                piece = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                return False
            if not piece:
                return False
            self._buffer += piece
            self.received_bytes += len(piece)
        return True

    async def close(self) -> None:
        """Close the connection at once."""
        await trio.aclose_forcefully(self._stream)
