"""The journal of a recording in progress, from which the trace can be made if the recording process is killed.

 MAGIC, two slots of NOTES_BYTES with notes, then blocks of records

While requests arrive, a block is appended at least once per second. Each block has its lengths and a checksum, so
that an incomplete block is noticed. It consists of two parts, each compressed with LZ4: a msgpack value, and text to
which the value refers. LZ4 takes a third of the time that zstd takes here, and a journal is soon replaced by the trace.

Notes (losses, removed secrets) are rewritten in place, alternating between the two slots. Neither a full disk nor a
kill can therefore destroy the last valid notes. Records are cleaned first, so that secrets never reach the disk.

The file is locked while it is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cramjam
import msgspec

from replay.errors import InputError, OutputError, reason_of

from .journal_columns import JournalColumns, records_of
from .journal_record import JournalRecord

MAGIC = b"\x89replay journal 2\n"
ENDING = ".journal"
NOTES_BYTES = 64 << 10
FIRST_BLOCK = len(MAGIC) + 2 * NOTES_BYTES
BLOCK_BYTES_MAX = 1 << 30
"""Maximum length of a block that a reader accepts. A recorder writes a block when it has some MiB."""

REUSED_BYTES_MAX = 16 << 20
"""Compressors keep memory up to this size. Larger memory, for a rare large body, is freed."""

_NOTES_HEAD = struct.Struct("<QII")
_BLOCK_HEAD = struct.Struct("<4sIIII")
"""A mark, the lengths of both compressed parts, the number of records, and the checksum of both parts."""

_BLOCK_MARK, _COLUMNS_MARK = b"RJBL", b"RJCO"
"""The first bytes of a block of records, and of a block of columns (`journal_columns`)."""


class Notes(msgspec.Struct):
    """The notes of a recording.

    `records` counts the records in all blocks. `lost` and `incomplete` count requests by reason. `ended` is true if
    the recording was completed.
    """

    source: str = ""
    started_ns: int = 0
    records: int = 0
    last_ns: int = 0
    lost: dict[str, int] = {}
    incomplete: dict[str, int] = {}
    refused: dict[str, int] = {}
    secrets_dropped: dict[str, int] = {}
    secrets_by_name: dict[str, int] = {}
    changes: list[tuple[str, str, str, int]] = []
    rules_used: list[str] = []
    assumptions: list[str] = []
    bodies_left: dict[str, int] = {}
    options: dict[str, bool | int | str] = {}
    ended: bool = False


def journal_of(trace: Path) -> Path:
    """Return the path of the journal for a recording to the trace at `trace`."""
    return trace.parent / f"{trace.name}{ENDING}"


class JournalWriter:
    """Appends records to a new journal at `path`.

    A journal without records is replaced. Raises OutputError if there is another file at `path`, or if the journal
    cannot be written.
    """

    def __init__(self, path: Path, notes: Notes) -> None:
        self.path, self.notes = path, notes
        self._value, self._text = _Compressor(), _Compressor()
        self._end, self._turn = FIRST_BLOCK, 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            _remove_empty(path)
            self._file = os.open(path, flags, 0o600)
        except FileExistsError:
            raise _in_the_way(path) from None
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {reason_of(error)}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(self._file, MAGIC + bytes(2 * NOTES_BYTES), 0)
            self.write_notes()
        except OSError as error:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise OutputError(f"{path} cannot be written: {reason_of(error)}") from None

    def append(self, records: list[JournalRecord]) -> None:
        """Write a block of records.

        Raises OSError if the disk refuses it; the journal is then unchanged.
        """
        self._append(_BLOCK_MARK, records, b"", len(records), max(record.at_ns for record in records))

    def append_columns(self, columns: JournalColumns, text: memoryview, last_ns: int) -> None:
        """Write a block of columns with their text. Their latest request arrived at `last_ns`.

        Raises OSError if the disk refuses it; the journal is then unchanged.
        """
        self._append(_COLUMNS_MARK, columns, text, columns.count, last_ns)

    def _append(self, mark: bytes, value: object, text: bytes | memoryview, count: int, last_ns: int) -> None:
        parts = self._value.compressed(msgspec.msgpack.encode(value)), self._text.compressed(text)
        head = _BLOCK_HEAD.pack(mark, *map(len, parts), count, _checksum(*parts))
        try:
            at = self._end
            for part in (head, *parts):
                at = self._write(part, at)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise
        self._end = at
        self.notes.records += count
        self.notes.last_ns = max(self.notes.last_ns, last_ns)

    def _write(self, data: bytes | memoryview, at: int) -> int:
        """Write all data at a position of the file, and return the position after it."""
        left = memoryview(data)
        while left:
            done = os.pwrite(self._file, left, at)
            at, left = at + done, left[done:]
        return at

    def write_notes(self) -> None:
        """Write the notes to the slot that does not hold the latest ones.

        If they are too long for a slot, their lists of secrets, assumptions and changes are emptied first.
        """
        payload = msgspec.msgpack.encode(self.notes)
        if len(payload) > NOTES_BYTES - _NOTES_HEAD.size:
            self.notes.secrets_by_name, self.notes.assumptions, self.notes.changes = {}, [], []
            payload = msgspec.msgpack.encode(self.notes)
        self._turn += 1
        data = _NOTES_HEAD.pack(self._turn, len(payload), zlib.crc32(payload)) + payload
        os.pwrite(self._file, data, len(MAGIC) + self._turn % 2 * NOTES_BYTES)

    def close(self) -> None:
        """Write the notes a last time, if the disk accepts them, and close the file."""
        with contextlib.suppress(OSError):
            self.write_notes()
        os.close(self._file)


class _Compressor:
    """Compresses into memory that is reused, because allocating it for each block takes as long as compressing."""

    def __init__(self) -> None:
        self._memory = bytearray()

    def compressed(self, data: bytes | memoryview) -> memoryview:
        """Return `data` compressed, in memory that is valid until the next call."""
        size = cramjam.lz4.compress_block_bound(data)
        memory = self._memory if len(self._memory) >= size else bytearray(size)
        if size <= REUSED_BYTES_MAX:
            self._memory = memory
        return memoryview(memory)[: cramjam.lz4.compress_block_into(data, memory)]


def _checksum(value: bytes | memoryview, text: bytes | memoryview) -> int:
    return zlib.crc32(text, zlib.crc32(value))


def _remove_empty(path: Path) -> None:
    """Remove the journal of a recording that ended before its first request."""
    with contextlib.suppress(OSError, InputError):
        if path.stat().st_size == FIRST_BLOCK and not is_being_written(path) and not read_notes(path).records:
            path.unlink()


def _in_the_way(path: Path) -> OutputError:
    """Return the error for a file that exists where a new journal would be written."""
    trace = str(path).removesuffix(ENDING)
    if is_being_written(path):
        return OutputError(f"{path} is being written by another recording", hint="give another -o")
    try:
        read_notes(path)
    except InputError:
        hint = "move it elsewhere, or give another -o"
        return OutputError(f"{path} exists, and it is not the journal of a recording", hint=hint)
    return OutputError(
        f"{path} holds an unfinished recording to the same trace",
        hint=f"to keep it: replay import {path} -o {trace}; otherwise delete it",
    )


def is_being_written(path: Path) -> bool:
    """Return whether a running recording holds the lock on a journal; False if the file cannot be opened."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def is_journal(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a journal."""
    return head.startswith(MAGIC)


def notes_in(head: bytes) -> Notes:
    """Return the latest valid notes of a journal, or empty notes if neither slot is valid.

    `head` has the first FIRST_BLOCK bytes of the journal, or fewer if it is cut off.
    """
    found: list[tuple[int, Notes]] = []
    for slot in range(2):
        begin = len(MAGIC) + slot * NOTES_BYTES
        part = head[begin : begin + NOTES_BYTES]
        if len(part) < _NOTES_HEAD.size:
            continue
        turn, size, check = _NOTES_HEAD.unpack_from(part)
        payload = part[_NOTES_HEAD.size : _NOTES_HEAD.size + size]
        if turn and len(payload) == size and zlib.crc32(payload) == check:
            with contextlib.suppress(msgspec.DecodeError):
                found.append((turn, msgspec.msgpack.decode(payload, type=Notes)))
    return max(found, key=lambda each: each[0])[1] if found else Notes()


def read_notes(path: Path) -> Notes:
    """Return the notes of the journal at `path`. Raises InputError if it is not a journal, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(FIRST_BLOCK)
    except OSError as error:
        raise InputError(f"{path}: {reason_of(error)}") from None
    if not is_journal(head):
        raise InputError(f"{path} is not the journal of a recording")
    return notes_in(head)


class CutJournalError(Exception):
    """Raised for a journal that is cut off or damaged."""


_Records = msgspec.msgpack.Decoder(list[JournalRecord])
_Columns = msgspec.msgpack.Decoder(JournalColumns)


def blocks_in(pieces: Iterator[memoryview]) -> Iterator[Notes | list[JournalRecord]]:
    """Yield the notes of a journal, then the records of each block.

    Raises CutJournalError after the last valid block if the file is not complete. A damaged block cannot be
    skipped, because nothing marks the start of the next one.
    """
    held = bytearray()
    begun = False
    for piece in pieces:
        held += piece
        if not begun:
            if len(held) < FIRST_BLOCK:
                continue
            begun = True
            yield notes_in(bytes(held[:FIRST_BLOCK]))
            del held[:FIRST_BLOCK]
        while (size := _whole_block(held)) > 0:
            yield _records_of(bytes(held[:size]))
            del held[:size]
    if not begun or held:
        raise CutJournalError


def _whole_block(held: bytearray) -> int:
    """Return the length of the first block with its header, or 0 if it is incomplete.

    Raises CutJournalError if the header is not that of a block.
    """
    if len(held) < _BLOCK_HEAD.size:
        return 0
    mark, value_bytes, text_bytes, _, _ = _BLOCK_HEAD.unpack_from(held)
    size = _BLOCK_HEAD.size + value_bytes + text_bytes
    if mark not in (_BLOCK_MARK, _COLUMNS_MARK) or size > BLOCK_BYTES_MAX:
        raise CutJournalError
    return size if len(held) >= size else 0


def _records_of(block: bytes) -> list[JournalRecord]:
    mark, value_bytes, _, count, check = _BLOCK_HEAD.unpack_from(block)
    text_begin = _BLOCK_HEAD.size + value_bytes
    parts = block[_BLOCK_HEAD.size : text_begin], block[text_begin:]
    if _checksum(*parts) != check:
        raise CutJournalError
    try:
        value, text = (bytes(cramjam.lz4.decompress_block(part)) for part in parts)
        is_columns = mark == _COLUMNS_MARK
        records = records_of(_Columns.decode(value), text) if is_columns else _Records.decode(value)
    except (msgspec.DecodeError, cramjam.DecompressionError, ValueError, IndexError):
        raise CutJournalError from None
    if len(records) != count:
        raise CutJournalError
    return records
