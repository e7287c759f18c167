"""The writer of a recording: a separate process, so that neither cleaning nor the disk delays the traffic.

It reads frames from its standard input; each has a kind, a length and a msgpack payload. The first frame is a
`Setup`. Then follow lists of `Exchange`s, and about twice per second the accounts of the serving process. The
writer ends when its input ends, even if the serving process was killed, and then reports its results in a line of
JSON. It ignores SIGINT, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from replay.errors import ReplayError
from replay.trace.journal import JournalWriter, Notes
from replay.trace.journal_record import JournalRecord

from .body_limits import BodyLimits
from .exchange import Exchange
from .record_maker import RecordMaker
from .setup import Setup

if TYPE_CHECKING:
    from .batches import BatchReader

FRAME = struct.Struct("<cI")
SETUP, EXCHANGES, ACCOUNTS = b"S", b"E", b"A"

BLOCK_RECORDS, BLOCK_BYTES = 8_192, 4 << 20
BLOCK_EVERY_S = 0.25
NICENESS = 5
RING_EVERY_S = 0.02
"""How long the writer waits for requests in the ring, at most. Each round has a fixed cost, so that fewer are cheaper.

A ring that fills is read at once.
"""

DISK, CUT_BODY, FAULT = "the disk took no more", "body over the limit", "fault in replay"


class Began(msgspec.Struct):
    """The first line that the writer prints, with an error if it could not start."""

    error: str = ""
    hint: str = ""


class Given(msgspec.Struct):
    """Counts of the serving process, which the writer adds to its own in the notes. `ended` marks the last counts."""

    lost: dict[str, int]
    incomplete: dict[str, int]
    refused: dict[str, int]
    ended: bool = False


class Ended(msgspec.Struct):
    """The last line that the writer prints."""

    notes: Notes


def _batches(setup: Setup, maker: RecordMaker) -> BatchReader:
    """Return the reader of a native receiver's ring."""
    # The import is here because the writer of a proxy does not need the mirror's kernels, and should not wait for
    # them.
    from .batches import BatchReader
    from .ring import MirrorRing

    limits = BodyLimits(setup.body_limit, tuple(setup.body_limits))
    return BatchReader(MirrorRing(setup.ring), maker, limits)


class Writer:
    """Writes its input to a journal.

    A block is written when it is large enough, or BLOCK_EVERY_S after the one before it.
    """

    def __init__(self, setup: Setup) -> None:
        self._maker = RecordMaker(setup)
        options: dict[str, bool | int | str] = {
            "keep_secrets": setup.keep_secrets, "keep_responses": setup.keep_responses, "headers": setup.headers,
        }  # fmt: skip
        self.notes = Notes(source=setup.source, started_ns=setup.started_ns, options=options)
        self._journal = JournalWriter(Path(setup.journal), self.notes)
        self._held: list[JournalRecord] = []
        self._held_bytes = 0
        self._flushed_s = time.monotonic()
        self._given = Given({}, {}, {})
        self._lost: dict[str, int] = {}
        self._cut = 0
        self._ring = None if setup.ring < 0 else _batches(setup, self._maker)

    @property
    def has_ring(self) -> bool:
        """Return whether a native receiver's ring is part of the input."""
        return self._ring is not None

    def take(self, kind: bytes, payload: bytes) -> None:
        """Process one frame from the serving process: exchanges are buffered as records, accounts are noted."""
        if kind == ACCOUNTS:
            self._given = msgspec.msgpack.decode(payload, type=Given)
            return
        self._hold(_Exchanges.decode(payload))
        self._flush_block()

    @property
    def is_behind(self) -> bool:
        """Return whether so much waits in the ring that the writer should take more at once."""
        return self._ring is not None and self._ring.is_filling

    def take_from_ring(self) -> bool:
        """Process some requests from the ring, and return whether there were any."""
        if self._ring is None:
            return False
        if self._ring.is_full:
            self.flush()
        # `_hold` must not flush: requests that the kernels accepted are clean only once all secrets in this portion
        # are known.
        count = self._ring.take(self._hold)
        self._flush_block()
        return count > 0

    def _hold(self, exchanges: Iterable[Exchange]) -> int:
        """Make records of exchanges, buffer them, and return how many exchanges there were, recorded or not."""
        count = 0
        for exchange in exchanges:
            count += 1
            try:
                record = self._maker.made(exchange)
            except Exception as error:
                # A fault of ours in one request must not end the recording of all others.
                record = f"{FAULT} ({type(error).__name__})"
            if isinstance(record, str):
                self._lose(record, 1)
                continue
            if exchange.body is None and exchange.body_bytes:
                self._cut += 1
            self._held.append(record)
            self._held_bytes += 256 + len(record.body) + exchange.body_bytes
            if record.response is not None and record.response.body:
                self._held_bytes += len(record.response.body)
        return count

    def _flush_block(self) -> None:
        """Write the buffered records if they fill a block."""
        if len(self._held) >= BLOCK_RECORDS or self._held_bytes >= BLOCK_BYTES:
            self.flush()

    def due_in_s(self) -> float:
        """Return how long the buffered records may still wait, in seconds; 0 if they are due."""
        return max(0.0, self._flushed_s + BLOCK_EVERY_S - time.monotonic())

    def flush(self) -> None:
        """Write the buffered records and the notes. Records that the disk refuses are counted as lost."""
        self._flushed_s = time.monotonic()
        held, self._held, self._held_bytes = self._held, [], 0
        try:
            if held:
                self._journal.append(held)
        except OSError:
            self._lose(DISK, len(held))
        if self._ring is not None and (batch := self._ring.taken()) is not None:
            try:
                self._journal.append_columns(*batch)
            except OSError:
                self._lose(DISK, batch[0].count)
        self._note()
        with contextlib.suppress(OSError):
            self._journal.write_notes()

    def end(self) -> Notes:
        """Write the remaining records, close the journal, and return its notes."""
        self.flush()
        self._journal.close()
        return self.notes

    def _lose(self, why: str, count: int) -> None:
        self._lost[why] = self._lost.get(why, 0) + count

    def _note(self) -> None:
        notes, given, found = self.notes, self._given, self._maker.found
        notes.lost = {**given.lost, **self._lost}
        notes.incomplete = {**given.incomplete, **({CUT_BODY: self._cut} if self._cut else {})}
        notes.refused, notes.ended = given.refused, given.ended
        notes.secrets_dropped, notes.secrets_by_name = found.secrets_dropped, found.secrets_by_name
        notes.changes = [(*change, count) for change, count in found.changes.items()]
        notes.rules_used = sorted(map(str, found.rules_used))
        notes.assumptions, notes.bodies_left = found.assumptions, found.bodies_left


_Exchanges = msgspec.msgpack.Decoder(list[Exchange])


class _Frames:
    """Reads frames from a pipe."""

    def __init__(self, file: int) -> None:
        self._file, self._held = file, bytearray()

    def next(self, wait_s: float | None) -> tuple[bytes, bytes] | None:
        """Return the next frame, or None if none arrives within `wait_s` seconds.

        A `wait_s` of None waits without limit. Raises EOFError at the end of the input.
        """
        while True:
            if len(self._held) >= FRAME.size:
                kind, size = FRAME.unpack_from(self._held)
                if len(self._held) >= FRAME.size + size:
                    payload = bytes(self._held[FRAME.size : FRAME.size + size])
                    del self._held[: FRAME.size + size]
                    return kind, payload
            if wait_s is not None and not select.select([self._file], [], [], wait_s)[0]:
                return None
            data = os.read(self._file, 1 << 20)
            if not data:
                raise EOFError
            self._held += data


def _say(line: msgspec.Struct) -> None:
    with contextlib.suppress(OSError):
        os.write(1, msgspec.json.encode(line) + b"\n")


def main() -> int:
    """Write one recording from standard input, and return the exit code: 2 if the recording cannot begin."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    frames = _Frames(0)
    try:
        first = frames.next(None)
        assert first is not None
        writer = Writer(msgspec.msgpack.decode(first[1], type=Setup))
    except EOFError:
        return 0
    except ReplayError as error:
        _say(Began(str(error), error.hint))
        return 2
    _say(Began())
    os.nice(NICENESS)
    with contextlib.suppress(EOFError):
        while True:
            writer.take_from_ring()
            patience_s = RING_EVERY_S if writer.has_ring else BLOCK_EVERY_S
            frame = frames.next(0 if writer.is_behind else min(writer.due_in_s(), patience_s))
            if frame is not None:
                writer.take(*frame)
            if writer.due_in_s() == 0:
                writer.flush()
    while writer.take_from_ring():
        pass
    _say(Ended(writer.end()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
