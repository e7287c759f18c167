"""Byte streams of stored files: counted, decompressed (gzip, zstd), and without a byte order mark."""

from __future__ import annotations

import codecs
import contextlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

import pyarrow as pa

from replay.errors import InputError, reason_of

_CHUNK_BYTES = 1 << 20
_ZSTD_READ_BYTES = 4096
"""Number of bytes per read, and the most intact bytes lost before damage, because Arrow discards a read that fails."""


class Stored(Protocol):
    """The file that a stream reads.

    It counts its bytes and describes its damage.
    """

    name: str
    bytes_done: int
    damaged: str

    def take_peeked(self, room: int) -> bytes:
        """Return up to `room` bytes that were read for the head and must be read again."""

    def account(self, chunk: memoryview) -> None:
        """Count and hash bytes as they are stored, before decompression."""


class Counted:
    """A file whose bytes are counted and hashed while they are read."""

    def __init__(self, file: BinaryIO, source: Stored) -> None:
        self._file, self._source = file, source

    def readinto(self, view: memoryview) -> int:
        """Read the next bytes into `view`, and return how many; 0 at the end.

        Raises InputError if the system reports an error.
        """
        peeked = self._source.take_peeked(len(view))
        try:
            if peeked:
                count = len(peeked)
                view[:count] = peeked
            else:
                count = self._file.readinto(view)  # type: ignore[attr-defined]
        except OSError as error:
            name, done = self._source.name, self._source.bytes_done
            raise InputError(f"{name}: {reason_of(error)}, after {done:,} bytes were read") from None
        self._source.account(view[:count])
        return count


class Unmarked:
    """Removes the byte order mark that some editors put before UTF-8 text."""

    def __init__(self, reader: Counted | Gunzip | Unzstd | Pieces) -> None:
        self._reader = reader
        self._begun = False

    def readinto(self, view: memoryview) -> int:
        """Read the next bytes into `view`, and return how many; 0 at the end."""
        count = self._reader.readinto(view)
        if self._begun:
            return count
        self._begun = True
        while 0 < count < len(codecs.BOM_UTF8) and (more := self._reader.readinto(view[count:])):
            count += more
        rest = bytes(view[:count])
        if not rest.startswith(codecs.BOM_UTF8):
            return count
        rest = rest.removeprefix(codecs.BOM_UTF8)
        view[: len(rest)] = rest
        return len(rest) or self._reader.readinto(view)


class Gunzip:
    """Decompresses the members of a gzip file.

    Data after damage is skipped, and `source.damaged` describes the damage.
    """

    def __init__(self, raw: Counted, source: Stored) -> None:
        self._raw, self._source = raw, source
        self._inflate = zlib.decompressobj(wbits=31)
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))
        self._rest = b""
        self._ended = False

    def readinto(self, view: memoryview) -> int:
        """Read the next bytes into `view`, and return how many; 0 at the end."""
        while not self._ended:
            if not self._rest:
                count = self._raw.readinto(self._chunk)
                self._rest = bytes(self._chunk[:count])
                self._ended = not count
            out = self._step(len(view))
            if out:
                view[: len(out)] = out
                return len(out)
        return 0

    def _step(self, room: int) -> bytes:
        """Decompress part of the remaining data.

        At the end of the file, flush the decompressor.
        """
        if self._inflate.eof:
            if not self._rest.strip(b"\0"):
                self._rest = b""
                return b""
            self._inflate = zlib.decompressobj(wbits=31)
        try:
            out = self._inflate.decompress(self._rest, room)
        except zlib.error as error:
            self._source.damaged, self._ended = f"damaged gzip: {error}", True
            return b""
        self._rest = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        if self._ended and out:
            self._ended = False
        elif self._ended and not self._inflate.eof:
            self._source.damaged = "damaged gzip: the file ends too early"
        return out


class Pieces:
    """Bytes that another reader derives from a file, whose own bytes are counted at the same time."""

    def __init__(self, pieces: Iterator[bytes], raw: Counted) -> None:
        self._pieces, self._raw = pieces, raw
        self._rest = b""
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))

    def readinto(self, view: memoryview) -> int:
        """Read the next bytes into `view`, and return how many; 0 at the end."""
        while not self._rest:
            self._raw.readinto(self._chunk)
            piece = next(self._pieces, None)
            if piece is None:
                while self._raw.readinto(self._chunk):
                    pass
                return 0
            self._rest = piece
        taken, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(taken)] = taken
        return len(taken)


def zstd_head(raw: bytes, size: int) -> bytes:
    """Decompress the beginning of a zstd file until there are `size` bytes, or until `raw` ends or is damaged."""
    head = b""
    stream = pa.CompressedInputStream(pa.BufferReader(raw), "zstd")
    with contextlib.suppress(OSError, pa.ArrowException):
        while len(head) < size and (piece := stream.read(4096)):
            head += piece
    return head


class Unzstd:
    """Decompresses the frames of a zstd file.

    Data after damage is skipped, and `source.damaged` describes the damage.
    """

    closed = False

    def __init__(self, raw: Counted, source: Stored) -> None:
        self._raw, self._source = raw, source
        self._stream = pa.CompressedInputStream(pa.PythonFile(self, mode="r"), "zstd")

    def read(self, count: int) -> bytes:
        """Return the next compressed bytes.

        Arrow calls this method.
        """
        chunk = memoryview(bytearray(count))
        return bytes(chunk[: self._raw.readinto(chunk)])

    def readinto(self, view: memoryview) -> int:
        """Read the next bytes into `view`, and return how many; 0 at the end."""
        done = 0
        try:
            while done < len(view) and not self._source.damaged:
                data = self._stream.read(min(len(view) - done, _ZSTD_READ_BYTES))
                if not data:
                    break
                view[done : done + len(data)] = data
                done += len(data)
        except (OSError, pa.ArrowException) as error:
            self._source.damaged = f"damaged zstd: {str(error).partition(chr(10))[0]}"
        return done
