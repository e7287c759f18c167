"""Reads the bytes of a recording: files (plain, gzip, zstd) and standard input, in blocks of whole lines."""

from __future__ import annotations

import codecs
import contextlib
import functools
import glob
import os
import re
import shlex
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from replay.errors import InputError, UsageError, reason_of
from replay.trace import Source, half_trace, is_trace
from replay.units import name_text
from replay_native.ground import xxh64 as checksum
from replay_native.ground.jit import warm

from .wrappers import unwrap, unwrapped

BLOCK_BYTES = 4 << 20
"""Bytes per read."""

HEAD_BYTES = 1 << 20
"""How many bytes are used to detect a format."""

HEAD_BYTES_MAX = 16 << 20
"""If the first line is longer than the head, the head is extended up to this size."""

STDIN = "-"
_MAGICS = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "parquet": b"PAR1"}
_UNREAD = {
    "UTF-16, and logs are read as UTF-8": (
        re.compile(codecs.BOM_UTF16_LE + b"|" + codecs.BOM_UTF16_BE), "iconv -f UTF-16 -t UTF-8 {}"
    ),
    "compressed by bzip2, which is not read": (re.compile(rb"BZh[1-9]1AY&SY"), "bzcat {}"),
    "compressed by xz, which is not read": (re.compile(rb"\xfd7zXZ\0"), "xzcat {}"),
    "a zip archive": (re.compile(rb"PK\x03\x04"), "unzip -p {}"),
    "a tar archive": (re.compile(rb".{257}ustar", re.DOTALL), "tar -xOf {}"),
}  # fmt: skip
"""Compressions and encodings that are not read: how each begins, what it is, and the command that converts it."""

_CHUNK_BYTES = 1 << 20
_PARQUET_ROWS = 1 << 14
_ZSTD_READ_BYTES = 4096
"""Upper limit for the good data lost in front of damage."""


class SourceFile:
    """One file of a recording; `head` is its first bytes, uncompressed. InputError if it cannot be read."""

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
        """Remove a wrapper from the lines; `wrappers` lists those removed."""
        self.head = unwrap(wrapper, self.whole_lines())
        self.wrapper = wrapper

    def whole_lines(self) -> bytes:
        """The head, without a last line that may be cut off."""
        return self.head[: self.head.rfind(b"\n") + 1] or self.head

    def _refuse_packed(self, name: str, head: bytes) -> None:
        """InputError if the file is compressed in a way that replay does not read."""
        for kind, (pattern, command) in _UNREAD.items():
            if pattern.match(head):
                shown = shlex.quote(name)
                raise InputError(f"{self.name} is {kind}", hint=f"{command.format(shown)} | replay import -")

    def _check(self) -> int:
        """The size in bytes; -1 if unknown."""
        if self._path is None:
            return -1
        status = self._path.stat()
        if stat.S_ISDIR(status.st_mode):
            if is_trace(self._path):
                raise InputError(
                    f"{self.name} is a trace already", hint=f"replay inspect {self.name} shows it"
                )
            raise InputError(f"{self.name} is a folder", hint="give the log files in it")
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def _open(self) -> BinaryIO:
        """A file from its beginning; a pipe, which can be read only once, from its current position."""
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
            head = _zstd_head(raw)
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
            raise InputError(f"{self.name} is empty ({self.compression})")
        return head

    def source(self) -> Source:
        """The manifest entry of the file; complete only after all blocks were read."""
        return Source(
            name=name_text(Path(self.name).name),
            bytes=self.bytes_done,
            xxh64=f"{checksum.digest(self._checksum, self._tail):016x}",
            compression=self.compression,
            wrapper=self.wrapper,
        )

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        """Yield (buffer, end): whole lines in buffer[:end]; a missing last line end is added.

        The buffer is reused for the next block. A line that does not fit comes in pieces without a newline. Wrappers
        are removed.
        """
        return unwrapped(self.wrapper, self._blocks()) if self.wrapper else self._blocks()

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of the file without line ends, for readers that take one at a time."""
        for block, end in self.blocks():
            for line in block[:end].tobytes().split(b"\n")[:-1]:
                yield line.removesuffix(b"\r")

    def stream(self) -> Iterator[memoryview]:
        """Yield the uncompressed bytes in pieces; each piece is overwritten by the next."""
        view = memoryview(bytearray(BLOCK_BYTES))
        with self._open() as file:
            reader = _Unmarked(self._reader(_Counted(file, self)))
            while count := reader.readinto(view):
                yield view[:count]

    def _rows_as_csv(self) -> Iterator[bytes]:
        """A Parquet file as CSV, so that one importer of tables reads both."""
        if self._path is None or self.bytes_total < 0:
            raise InputError(f"Parquet cannot be read from {self.name}", hint="give the name of a file")
        try:
            import pyarrow.parquet as pq

            with pq.ParquetFile(self._path) as file:
                flat = [field.name for field in file.schema_arrow if _is_flat(field.type)]
                for index, batch in enumerate(file.iter_batches(_PARQUET_ROWS, columns=flat)):
                    sink = pa.BufferOutputStream()
                    csv.write_csv(_as_text(batch), sink, csv.WriteOptions(include_header=index == 0))
                    yield sink.getvalue().to_pybytes()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{self.name} is not a readable Parquet file: {reason}") from None

    def _reader(self, raw: _Counted) -> _Counted | _Gunzip | _Unzstd | _Pieces:
        if self.compression == "parquet":
            return _Pieces(self._rows_as_csv(), raw)
        if self.compression == "zstd":
            return _Unzstd(raw, self)
        return _Gunzip(raw, self) if self.compression else raw

    def _blocks(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        buffer = np.empty(2 * BLOCK_BYTES + 1, dtype=np.uint8)
        view = memoryview(buffer.data)
        held = 0
        with self._open() as file:
            reader = _Unmarked(self._reader(_Counted(file, self)))
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
        """Count and hash bytes as stored on disk."""
        checksum.update(self._checksum, self._tail, np.frombuffer(chunk, dtype=np.uint8))
        self.bytes_done += len(chunk)

    def take_peeked(self, room: int) -> bytes:
        """Bytes of a stream that were read for its head and will be read again."""
        taken, self._peeked = self._peeked[:room], self._peeked[room:]
        return taken


def _first_bytes(file: BinaryIO) -> bytes:
    """HEAD_BYTES of a file (or all of it), extended if the first line is longer; a pipe delivers them as they arrive."""
    found, wanted = bytearray(), HEAD_BYTES
    while len(found) < wanted and (piece := file.read(wanted - len(found))):
        found += piece
        if len(found) == wanted < HEAD_BYTES_MAX and b"\n" not in found:
            wanted = min(2 * wanted, HEAD_BYTES_MAX)
    return bytes(found)


def expand(paths: Sequence[str | Path]) -> list[str]:
    """Find files by path, by folder (all files inside, except hidden ones and traces) and by pattern (`*.gz`), each
    once.

    UsageError if there is none, InputError if a folder or pattern has none.
    """
    if not paths:
        raise UsageError("no log given")
    found: list[str] = []
    for path in map(str, paths):
        place = Path(path)
        if path != STDIN and place.is_dir() and not is_trace(place):
            kept = sorted(_files_in(place))
            if not kept:
                raise InputError(f"{path} is a folder without files")
            found += map(str, kept)
        elif path != STDIN and glob.has_magic(path) and not place.exists():
            matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207
            if not matches:
                raise InputError(f"{path}: no file is named like this")
            found += matches
        else:
            found.append(path)
    return _once(found)


def _once(names: Sequence[str]) -> list[str]:
    """The names without duplicates of the same file (`current.log` may be a link to `access.log`)."""
    files: dict[object, str] = {}
    for name in names:
        status = None
        if name != STDIN:
            with contextlib.suppress(OSError):
                status = Path(name).stat()
        files.setdefault(name if status is None else (status.st_dev, status.st_ino), name)
    return list(files.values())


def _files_in(folder: Path) -> Iterator[Path]:
    """The files of a folder and its subfolders, except hidden ones and traces (already imported recordings)."""
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            yield entry
        elif entry.is_dir() and not entry.is_symlink() and not is_trace(entry) and half_trace(entry) is None:
            yield from _files_in(entry)


def _after_last_newline(buffer: npt.NDArray[np.uint8], begin: int, end: int) -> int:
    """The offset after the last newline of buffer[begin:end], or 0."""
    step = 1 << 12
    while begin < end:
        first = max(begin, end - step)
        found = buffer[first:end].tobytes().rfind(b"\n")
        if found >= 0:
            return first + found + 1
        end, step = first, 2 * step
    return 0


class _Counted:
    """A file that is counted and hashed as it is read."""

    def __init__(self, file: BinaryIO, source: SourceFile) -> None:
        self._file, self._source = file, source

    def readinto(self, view: memoryview) -> int:
        peeked = self._source.take_peeked(len(view))
        try:
            if peeked:
                count = len(peeked)
                view[:count] = peeked
            else:
                count = self._file.readinto(view)  # type: ignore[attr-defined]
        except OSError as error:
            name, done = self._source.name, self._source.bytes_done
            raise InputError(f"{name}: {reason_of(error)} after {done:,} bytes") from None
        self._source.account(view[:count])
        return count


class _Unmarked:
    """Remove the byte order mark that some editors put before UTF-8."""

    def __init__(self, reader: _Counted | _Gunzip | _Unzstd | _Pieces) -> None:
        self._reader = reader
        self._begun = False

    def readinto(self, view: memoryview) -> int:
        """Read the next bytes; 0 at the end."""
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


class _Gunzip:
    """The members of a gzip file, uncompressed. Data after damage is skipped, and `source.damaged` describes it."""

    def __init__(self, raw: _Counted, source: SourceFile) -> None:
        self._raw, self._source = raw, source
        self._inflate = zlib.decompressobj(wbits=31)
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))
        self._rest = b""
        self._ended = False

    def readinto(self, view: memoryview) -> int:
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
        """Uncompress part of the remaining data; at the end of the file, drain the decompressor."""
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
            self._source.damaged = "damaged gzip: it ends too early"
        return out


_TEXTS = (pa.binary(), pa.large_binary(), pa.binary_view(), pa.string_view())


def _is_flat(kind: pa.DataType) -> bool:
    """Whether a column has one value per row, as opposed to a struct."""
    return pa.types.is_struct(kind) or not pa.types.is_nested(kind)


@functools.cache
def _has_csv(kind: pa.DataType) -> bool:
    """Whether Arrow can write a column as CSV; UUID bytes and intervals have no text form."""
    try:
        csv.write_csv(pa.table([pa.nulls(1, kind)], names=["a"]), pa.BufferOutputStream())
    except pa.ArrowException:
        return False
    return not pa.types.is_fixed_size_binary(kind)


def _column_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column for CSV: bytes to text, durations to numbers in the unit of their type."""
    # Importing pyarrow takes as long as importing all of our own modules.
    import pyarrow.compute as pc

    if pa.types.is_duration(column.type):
        numbers = column.cast(pa.int64()).cast(pa.string())
        return pc.binary_join_element_wise(numbers, column.type.unit, "")
    as_text = pc.CastOptions(pa.large_string(), allow_invalid_utf8=True)
    return column.cast(options=as_text) if column.type in _TEXTS else column


def _as_text(batch: pa.RecordBatch) -> pa.Table:
    """The columns that CSV can hold: struct fields under their paths (`request.path`), bytes as text."""
    table = pa.Table.from_batches([batch])
    while any(pa.types.is_struct(kind) for kind in table.schema.types):
        table = table.flatten()
    found = [
        (name, _column_text(column)) for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    kept = [(name, column) for name, column in found if _has_csv(column.type)]
    return pa.table([column for _, column in kept], names=[name for name, _ in kept])


class _Pieces:
    """Bytes derived from a file, which is counted as they are read."""

    def __init__(self, pieces: Iterator[bytes], raw: _Counted) -> None:
        self._pieces, self._raw = pieces, raw
        self._rest = b""
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))

    def readinto(self, view: memoryview) -> int:
        """Read the next bytes; 0 at the end."""
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


def _zstd_head(raw: bytes) -> bytes:
    """What a zstd file begins with."""
    head = b""
    stream = pa.CompressedInputStream(pa.BufferReader(raw), "zstd")
    with contextlib.suppress(OSError, pa.ArrowException):
        while len(head) < HEAD_BYTES and (piece := stream.read(4096)):
            head += piece
    return head


class _Unzstd:
    """The frames of a zstd file, uncompressed. Data after damage is skipped, and `source.damaged` describes it."""

    closed = False

    def __init__(self, raw: _Counted, source: SourceFile) -> None:
        self._raw, self._source = raw, source
        self._stream = pa.CompressedInputStream(pa.PythonFile(self, mode="r"), "zstd")

    def read(self, count: int) -> bytes:
        """Compressed bytes, in the interface that Arrow reads from."""
        chunk = memoryview(bytearray(count))
        return bytes(chunk[: self._raw.readinto(chunk)])

    def readinto(self, view: memoryview) -> int:
        """Read the next bytes; 0 at the end."""
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
