"""Reads recordings from files (plain, gzip, zstd, Parquet) and standard input, in blocks of whole lines."""

from __future__ import annotations

import codecs
import os
import re
import shlex
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from replay.errors import InputError, reason_of
from replay.trace import Source, is_trace
from replay.units import name_text
from replay_native.ground import xxh64 as checksum
from replay_native.ground.jit import warm

from .input_paths import STDIN
from .parquet_text import rows_as_csv
from .rejects import TOO_LONG, Rejects
from .streams import Counted, Gunzip, Pieces, Unmarked, Unzstd, zstd_head
from .wrappers import unwrap, unwrapped

BLOCK_BYTES = 4 << 20
"""Number of bytes per read."""

EXAMPLE_BYTES = 999

HEAD_BYTES = 1 << 20
"""How many bytes are read to detect a format."""

HEAD_BYTES_MAX = 16 << 20
"""If the first line is longer than the head of a plain or gzip file, the head is extended up to this size."""

_MAGICS = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "parquet": b"PAR1"}
_UNREAD = {
    "UTF-16, and logs are read as UTF-8": (
        re.compile(codecs.BOM_UTF16_LE + b"|" + codecs.BOM_UTF16_BE), "iconv -f UTF-16 -t UTF-8 {}"
    ),
    "compressed with bzip2, which replay cannot read": (re.compile(rb"BZh[1-9]1AY&SY"), "bzcat {}"),
    "compressed with xz, which replay cannot read": (re.compile(rb"\xfd7zXZ\0"), "xzcat {}"),
    "a zip archive": (re.compile(rb"PK\x03\x04"), "unzip -p {}"),
    "a tar archive": (re.compile(rb".{257}ustar", re.DOTALL), "tar -xOf {}"),
}  # fmt: skip
"""Compressions and encodings that are not read: what each is, how it begins, and the command that converts it."""


class SourceFile:
    """One file of a recording; `head` is its first bytes, uncompressed.

    Raises InputError if it cannot be read, is empty, or has a form that is not read (an archive, UTF-16).
    """

    def __init__(self, name: str) -> None:
        self.name = "standard input" if name == STDIN else name
        self._path = None if name == STDIN else Path(name)
        self._pipe: BinaryIO | None = None
        self.bytes_done = 0
        self.damaged = ""
        warm(["ground.xxh64"])
        self._checksum = np.zeros(checksum.STATE_WORDS, dtype=np.uint64)
        self._tail = np.zeros(32, dtype=np.uint8)
        checksum.begin(self._checksum)
        try:
            self.bytes_total = self._check()
            with self._open() as file:
                raw = _first_bytes(file)
        except OSError as error:
            raise InputError(f"{self.name}: {reason_of(error)}") from None
        self._peeked = raw if self.bytes_total < 0 else b""
        self.compression = next((name for name, magic in _MAGICS.items() if raw.startswith(magic)), "")
        if not raw:
            raise InputError(f"{self.name} is empty")
        head = (self._uncompressed_head(raw) if self.compression else raw).removeprefix(codecs.BOM_UTF8)
        self._refuse_packed(name, head)
        self.wrapper, self.head = "", head

    def take_off(self, wrapper: str) -> None:
        """Remove a wrapper from the lines.

        `wrapper` holds its name, or `outer+inner` for nested ones.
        """
        self.head = unwrap(wrapper, self.whole_lines())
        self.wrapper = wrapper

    def whole_lines(self) -> bytes:
        """Return the head up to its last line end, or the whole head if it has none."""
        return self.head[: self.head.rfind(b"\n") + 1] or self.head

    def _refuse_packed(self, name: str, head: bytes) -> None:
        """Raise InputError if the file is an archive, or has a compression or encoding that replay does not read."""
        for kind, (pattern, command) in _UNREAD.items():
            if pattern.match(head):
                shown = shlex.quote(name)
                raise InputError(f"{self.name} is {kind}", hint=f"{command.format(shown)} | replay import -")

    def _check(self) -> int:
        """Return the size in bytes, -1 if unknown.

        Raises InputError for a folder.
        """
        if self._path is None:
            return -1
        status = self._path.stat()
        if stat.S_ISDIR(status.st_mode):
            if is_trace(self._path):
                raise InputError(
                    f"{self.name} is a trace already",
                    hint=f"replay inspect {shlex.quote(self.name)} shows it",
                )
            raise InputError(f"{self.name} is a folder", hint="give the log files in it")
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def _open(self) -> BinaryIO:
        """Open a file at its beginning.

        A pipe, which can be read only once, continues at its current position. Raises InputError if standard input is
        closed.
        """
        if self._path is not None and self.bytes_total >= 0:
            return self._path.open("rb", buffering=0)
        if self._pipe is None and self._path is not None:
            self._pipe = self._path.open("rb", buffering=0)
        elif self._pipe is None:
            if sys.stdin is None:
                raise InputError("standard input is closed")
            self._pipe = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
        return os.fdopen(os.dup(self._pipe.fileno()), "rb", buffering=0)

    def _uncompressed_head(self, raw: bytes) -> bytes:
        if self.compression == "zstd":
            head = zstd_head(raw, HEAD_BYTES)
        elif self.compression == "parquet":
            head = bytes(next(self._rows_as_csv(), b""))
        else:
            try:
                head = zlib.decompressobj(wbits=31).decompress(raw, HEAD_BYTES)
                if len(head) == HEAD_BYTES and b"\n" not in head:
                    head = zlib.decompressobj(wbits=31).decompress(raw, HEAD_BYTES_MAX)
            except zlib.error as error:
                raise InputError(f"{self.name} is not a readable gzip file: {error}") from None
        if not head:
            raise InputError(f"{self.name} is empty, or damaged at its beginning ({self.compression})")
        return head

    def source(self) -> Source:
        """Return the manifest entry of the file, which is complete only after all blocks were read."""
        return Source(
            name=name_text(Path(self.name).name),
            bytes=self.bytes_done,
            xxh64=f"{checksum.digest(self._checksum, self._tail):016x}",
            compression=self.compression,
            wrapper=self.wrapper,
        )

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        """Yield (buffer, end): buffer[:end] holds whole lines, without wrappers.

        A missing last line end is added. The buffer is reused for the next block. A line that does not fit into a
        block arrives in pieces, of which only the last ends in a newline.
        """
        return unwrapped(self.wrapper, self._blocks()) if self.wrapper else self._blocks()

    def line_blocks(self, rejects: Rejects) -> Iterator[tuple[int, bytes]]:
        """Yield blocks of whole lines, each with the number of lines before it, for readers in Python.

        A line that does not fit into a block is rejected and left out: its last part may look like a line.
        """
        number, beginning = 0, b""
        for block, end in self.blocks():
            data = block[:end].tobytes()
            if not data.endswith(b"\n"):
                beginning = beginning or data[:EXAMPLE_BYTES]
                continue
            if beginning:
                number += 1
                rejects.lines += 1
                rejects.add(TOO_LONG, self.name, number, beginning)
                beginning, data = b"", data[data.index(b"\n") + 1 :]
            yield number, data
            number += data.count(b"\n")

    def lines(self, rejects: Rejects) -> Iterator[tuple[int, bytes]]:
        """Yield each line with its number and without its line end, for readers that read one line at a time.

        All lines are counted in `rejects`. A line that does not fit into a block is rejected, and not yielded.
        """
        for number, data in self.line_blocks(rejects):
            for line in data.split(b"\n")[:-1]:
                number += 1
                rejects.lines += 1
                yield number, line.removesuffix(b"\r")

    def stream(self) -> Iterator[memoryview]:
        """Yield the uncompressed bytes in pieces.

        All pieces share one buffer, so that each is valid only until the next.
        """
        view = memoryview(bytearray(BLOCK_BYTES))
        with self._open() as file:
            reader = Unmarked(self._reader(Counted(file, self)))
            while count := reader.readinto(view):
                yield view[:count]

    def _rows_as_csv(self) -> Iterator[bytes]:
        """Yield a Parquet file as CSV.

        Raises InputError if it is not a regular file.
        """
        if self._path is None or self.bytes_total < 0:
            raise InputError(
                f"Parquet cannot be read from {self.name}", hint="give the name of a regular file"
            )
        return rows_as_csv(self._path, self.name)

    def _reader(self, raw: Counted) -> Counted | Gunzip | Unzstd | Pieces:
        if self.compression == "parquet":
            return Pieces(self._rows_as_csv(), raw)
        if self.compression == "zstd":
            return Unzstd(raw, self)
        return Gunzip(raw, self) if self.compression else raw

    def _blocks(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        buffer = np.empty(2 * BLOCK_BYTES + 1, dtype=np.uint8)
        view = memoryview(buffer.data)
        held = 0
        with self._open() as file:
            reader = Unmarked(self._reader(Counted(file, self)))
            while count := reader.readinto(view[held : held + BLOCK_BYTES]):
                end = _after_last_newline(buffer, held, held + count)
                held += count
                if end == 0 and held > BLOCK_BYTES:
                    end = held
                if end:
                    yield buffer, end
                    held -= end
                    buffer[:held] = buffer[end : end + held]
            if held:
                buffer[held] = ord("\n")
                yield buffer, held + 1

    def account(self, chunk: memoryview) -> None:
        """Count and hash bytes as they are stored, before decompression."""
        checksum.update(self._checksum, self._tail, np.frombuffer(chunk, dtype=np.uint8))
        self.bytes_done += len(chunk)

    def take_peeked(self, room: int) -> bytes:
        """Return up to `room` bytes that were read for the head of a pipe and must be passed on once more."""
        taken, self._peeked = self._peeked[:room], self._peeked[room:]
        return taken


def _first_bytes(file: BinaryIO) -> bytes:
    """Read the first HEAD_BYTES of a file, or up to HEAD_BYTES_MAX if its first line is longer.

    A pipe delivers fewer bytes at a time, so several reads may be necessary.
    """
    found, wanted = bytearray(), HEAD_BYTES
    while len(found) < wanted and (piece := file.read(wanted - len(found))):
        found += piece
        if len(found) == wanted < HEAD_BYTES_MAX and b"\n" not in found:
            wanted = min(2 * wanted, HEAD_BYTES_MAX)
    return bytes(found)


def _after_last_newline(buffer: npt.NDArray[np.uint8], begin: int, end: int) -> int:
    """Return the offset after the last newline of buffer[begin:end], or 0 if there is none."""
    step = 1 << 12
    while begin < end:
        first = max(begin, end - step)
        found = buffer[first:end].tobytes().rfind(b"\n")
        if found >= 0:
            return first + found + 1
        end, step = first, 2 * step
    return 0
