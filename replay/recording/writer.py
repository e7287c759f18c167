"""The writer of a recording: a separate process, so that neither cleaning nor the disk delays the traffic.

It reads frames from its standard input: a kind, a length, and msgpack. The first one is a `Setup`; then come lists of
`Exchange`s, and once per second the accounts of the serving process. It ends when its input does, even if that
process was killed, and then reports its results in a line of JSON. It ignores the terminal's signals.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import select
import signal
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec

from replay.errors import ReplayError
from replay.trace.importing import Found, Options
from replay.trace.importing.marks import Change
from replay.trace.importing.readers.records import Record, RecordReader, end_to_end
from replay.trace.importing.scrub_rules import parse_rules
from replay.trace.journal import JournalRecord, JournalResponse, JournalWriter, Notes
from replay.trace.manifest import CUT_BODY_MARK
from replay.trace.requests import Headers
from replay.trace.responses import RecordedResponse, media_type

from .exchange import Exchange
from .headers import HeaderList

FRAME = struct.Struct("<cI")
SETUP, EXCHANGES, ACCOUNTS = b"S", b"E", b"A"

BLOCK_RECORDS, BLOCK_BYTES = 8_192, 4 << 20
BLOCK_EVERY_S = 0.25
HEADERS_REMEMBERED = 1 << 14
NICENESS = 5

DISK, CUT_BODY = "the disk took no more", "body over the limit"


class Setup(msgspec.Struct):
    """The settings of the writer. `began` reports whether it could start."""

    journal: str
    source: str
    started_ns: int
    keep_secrets: bool = False
    keep_responses: bool = False
    headers: str = "all"
    scrub: list[str] = []
    scrub_key: bytes = b""


class Began(msgspec.Struct):
    """The writer's first line: an error if it could not start."""

    error: str = ""
    hint: str = ""


class Given(msgspec.Struct):
    """Accounts of the serving process."""

    lost: dict[str, int]
    incomplete: dict[str, int]
    refused: dict[str, int]
    ended: bool = False


class Ended(msgspec.Struct):
    """The writer's last line."""

    notes: Notes


@dataclass(frozen=True, slots=True)
class _Counts:
    """Counts of removed secrets."""

    dropped: Counter[str]
    names: Counter[str]
    changes: Counter[Change]

    @classmethod
    def of(cls, found: Found) -> _Counts:
        """All counts so far."""
        return cls(Counter(found.secrets_dropped), Counter(found.secrets_by_name), Counter(found.changes))

    def since(self, before: _Counts) -> _Counts:
        """The counts since an earlier state."""
        return _Counts(
            self.dropped - before.dropped, self.names - before.names, self.changes - before.changes
        )

    def count_again(self, found: Found) -> None:
        """Add counts again."""
        for what, count in self.dropped.items():
            found.drop(what, count)
        for name, count in self.names.items():
            found.note_secret(name, count)
        for change, count in self.changes.items():
            found.note_change(change, count)


class RecordMaker:
    """Converts exchanges to clean records."""

    def __init__(self, setup: Setup) -> None:
        self.found = Found(key=secrets.token_bytes(32))
        options = Options(
            keep_secrets=setup.keep_secrets, responses="all", scrub=parse_rules(setup.scrub), scrub_key=setup.scrub_key
        )  # fmt: skip
        self._keeps_responses = setup.keep_responses
        self._reader = RecordReader(self.found, options)
        self._wanted = HeaderList.parse(setup.headers)
        self._client_key = secrets.token_bytes(16)
        self._known: dict[Headers, tuple[Headers, _Counts]] = {}
        self._secrets_known = 0

    def made(self, exchange: Exchange) -> JournalRecord | str:
        """The record of an exchange, or the reason why there is none."""
        response = exchange.response
        record = Record(
            at_ns=exchange.at_ns,
            method=exchange.method,
            target=exchange.target,
            host=exchange.host,
            headers=self._headers(exchange.headers),
            body=exchange.body or b"",
        )
        if why := self._reader.wrong(record):
            return why
        return JournalRecord(
            at_ns=exchange.at_ns,
            method=record.method if exchange.body is not None else record.method + CUT_BODY_MARK,
            target=record.target,
            host=record.host,
            client=self._client(exchange.client),
            status=exchange.status,
            took_ns=exchange.took_ns,
            first_byte_ns=exchange.first_byte_ns,
            size=response.size if response is not None and response.complete else -1,
            headers=record.headers,
            body=record.body,
            response=None if response is None else self._response(exchange),
        )

    def _client(self, address: str) -> bytes:
        return hashlib.blake2b(address.encode(), key=self._client_key, digest_size=8).digest()

    def _headers(self, headers: Headers) -> Headers:
        """The recorded headers without secrets. Sets are cached: most requests repeat one."""
        if len(self.found.known_secrets) != self._secrets_known:
            # A value in a cached header may have proved to be a secret since.
            self._secrets_known = len(self.found.known_secrets)
            self._known.clear()
        known = self._known.get(headers)
        if known is not None:
            known[1].count_again(self.found)
            return known[0]
        before = _Counts.of(self.found)
        pairs = [(name, value or b"") for name, value in headers]
        kept = self._reader.kept(pair for pair in end_to_end(pairs) if self._wanted.has(pair[0]))
        if len(self._known) >= HEADERS_REMEMBERED:
            self._known.clear()
        self._known[headers] = kept, _Counts.of(self.found).since(before)
        return kept

    def _response(self, exchange: Exchange) -> JournalResponse | None:
        response = exchange.response
        assert response is not None
        pairs = end_to_end([(name, value or b"") for name, value in response.headers])
        if self._keeps_responses:
            made = self._reader.responses.made(
                pairs, response.body, size=response.size, is_whole=response.complete and not response.cut
            )
        else:
            made = RecordedResponse(media_type(tuple(pairs)))
        if made is None:
            return None
        return JournalResponse(
            type=made.type,
            headers=made.headers,
            size=response.size if response.complete else -1,
            digest=response.digest if response.complete else 0,
            body=made.body,
            cut=made.cut,
        )


class Writer:
    """Writes its input to a journal: a block when it is large, or a quarter of a second old."""

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

    def take(self, kind: bytes, payload: bytes) -> None:
        """Process one frame."""
        if kind == ACCOUNTS:
            self._given = msgspec.msgpack.decode(payload, type=Given)
            return
        for exchange in _Exchanges.decode(payload):
            record = self._maker.made(exchange)
            if isinstance(record, str):
                self._lose(record, 1)
                continue
            if exchange.body is None and exchange.body_bytes:
                self._cut += 1
            self._held.append(record)
            self._held_bytes += 256 + len(record.body) + exchange.body_bytes
            if record.response is not None and record.response.body:
                self._held_bytes += len(record.response.body)
            if len(self._held) >= BLOCK_RECORDS or self._held_bytes >= BLOCK_BYTES:
                self.flush()

    def is_due(self) -> float:
        """How long the buffered records may still wait, in seconds."""
        return max(0.0, self._flushed_s + BLOCK_EVERY_S - time.monotonic())

    def flush(self) -> None:
        """Write the buffered records, and the notes."""
        self._flushed_s = time.monotonic()
        held, self._held, self._held_bytes = self._held, [], 0
        try:
            if held:
                self._journal.append(held)
        except OSError:
            self._lose(DISK, len(held))
        self._note()
        with contextlib.suppress(OSError):
            self._journal.write_notes()

    def end(self) -> Notes:
        """Write the rest, and close the journal."""
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
    """Frames from a pipe."""

    def __init__(self, file: int) -> None:
        self._file, self._held = file, bytearray()

    def next(self, wait_s: float | None) -> tuple[bytes, bytes] | None:
        """The next frame; None if none arrives in time. EOFError at the end."""
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
    """Write one recording."""
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
            frame = frames.next(writer.is_due())
            if frame is not None:
                writer.take(*frame)
            if writer.is_due() == 0:
                writer.flush()
    _say(Ended(writer.end()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
