"""Converts records, which may have headers, bodies and responses (as in HAR and GoReplay files), to rows."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np

from replay.trace.dictionary import flatten
from replay.trace.importing.cleaning import Cleaner
from replay.trace.importing.codings import BadCoding, coding_of
from replay.trace.importing.readers.recorded_responses import ResponseKeeper, without_secrets
from replay.trace.importing.registry import Found, Options, Rows
from replay.trace.importing.rejects import NO_METHOD, NO_PATH
from replay.trace.manifest import Stamp
from replay.trace.requests import Headers
from replay.trace.responses import RecordedResponse

ROWS_AT_ONCE = 1 << 13

METHOD = re.compile(r"[A-Za-z_][A-Za-z_-]{0,15}")
_URL = re.compile(rb"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_PLAIN = re.compile(rb"[!-~]*")
_UNSAFE = re.compile(rb"[^!-~]")


@dataclass(slots=True)
class Record:
    """One recorded request; -1 is unknown.

    `target` may be a whole URL. `first_byte_ns` is the time from the first byte of the request to that of the
    response.
    """

    at_ns: int
    method: str
    target: bytes
    host: str = ""
    client: bytes = b""
    status: int = -1
    took_ns: int = -1
    size: int = -1
    headers: Headers = ()
    body: bytes = b""
    response: RecordedResponse | None = None
    first_byte_ns: int = -1


WRITTEN_ANEW = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})
"""Headers that describe the transfer of a message, not the request.

A replay writes its own.
"""


def end_to_end(pairs: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers without those of the recorded connection.

    The header `Connection` may list more of them (RFC 9110, 7.6.1).
    """
    named = {
        option.strip().lower()
        for name, value in pairs
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    return [pair for pair in pairs if pair[0].lower() not in WRITTEN_ANEW and pair[0].lower() not in named]


class RecordReader:
    """Base of the readers of records: converts records to rows.

    A subclass provides the records.
    """

    stamp: Stamp = "start"
    subtracts = False
    rows_at_once = ROWS_AT_ONCE
    """How many records are converted together."""

    follows = False
    """Whether the file is still growing.

    Then no record waits for other records or for its response.
    """

    def __init__(self, found: Found, options: Options) -> None:
        self._found, self._options = found, options
        self._cleaner = Cleaner(found, options)
        self.responses = ResponseKeeper(self._cleaner, found, options)
        self._key = secrets.randbits(62)
        self._methods: dict[str, int] = {}
        self._hosts: dict[str, int] = {}

    @property
    def methods(self) -> list[str]:
        """Method names by index."""
        return list(self._methods)

    @property
    def hosts(self) -> list[str]:
        """Hosts by index."""
        return list(self._hosts)

    def method_index(self, name: str) -> int:
        """Return the index of a method, which is added if it is new."""
        return self._methods.setdefault(name, len(self._methods))

    def host_index(self, name: str) -> int:
        """Return the index of a host, which is added if it is new."""
        return self._hosts.setdefault(name, len(self._hosts))

    def wrong(self, record: Record) -> str:
        """Normalize target and host of a record, and remove the secrets from its target and body.

        Returns why the record cannot be used (no valid method or path), or an empty text.
        """
        if not METHOD.fullmatch(record.method):
            return NO_METHOD
        target = record.target
        if not target.startswith(b"/") and target != b"*":
            url = _URL.match(target)
            if url is None:
                return NO_PATH
            record.host = url[2].rpartition(b"@")[2].lower().decode("latin-1")
            target = url[3] if url[3].startswith(b"/") else b"/" + url[3]
        if not _PLAIN.fullmatch(target):
            target = _UNSAFE.sub(lambda m: b"%%%02X" % m[0][0], target)
        record.target = self._cleaner.target(target)
        record.body = self.clean_body(record.body, record.headers)
        record.host = record.host.rpartition("@")[2]
        return ""

    def clean_body(self, body: bytes, headers: Headers) -> bytes:
        """Remove the secrets from a request body, even if it is compressed.

        A body that cannot be decoded is counted, and returned unchanged.
        """
        coding = coding_of(headers) if body and not self._options.keep_secrets else b""
        try:
            return without_secrets(self._cleaner, body, coding)
        except BadCoding:
            self._found.count_unknown("content coding of a body", 1)
            return body

    def kept(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Remove the secrets from headers."""
        return self._cleaner.headers(headers)

    def rows(self, records: Iterator[Record]) -> Iterator[Rows]:
        """Yield records as rows, several at a time.

        `wrong` must have accepted the records.
        """
        while taken := list(islice(records, 1 if self.follows else self.rows_at_once)):
            yield self._rows(taken)

    def _rows(self, records: list[Record]) -> Rows:
        def column(values: Iterable[int]) -> np.ndarray:
            return np.fromiter(values, np.int64, len(records))

        data, offsets = flatten([record.target for record in records])
        methods, hosts = self._methods, self._hosts
        sets: dict[Headers, int] = {}
        bodies: dict[bytes, int] = {}
        responses = [record.response for record in records if record.response is not None]
        wide = bool(responses) or any(record.first_byte_ns >= 0 for record in records)
        number = count()
        return Rows(
            at_ns=column(record.at_ns for record in records),
            data=data,
            offsets=offsets,
            method=column(methods.setdefault(record.method, len(methods)) for record in records),
            host=column(
                hosts.setdefault(record.host, len(hosts)) if record.host else -1 for record in records
            ),
            client_hash=column(
                hash((self._key, record.client)) if record.client else 0 for record in records
            ),
            status=column(record.status for record in records),
            took_ns=column(record.took_ns for record in records),
            bytes=column(record.size for record in records),
            headers=column(
                sets.setdefault(record.headers, len(sets)) if record.headers else -1 for record in records
            ),
            header_sets=list(sets),
            body=column(
                bodies.setdefault(record.body, len(bodies)) if record.body else -1 for record in records
            ),
            bodies=list(bodies),
            response=column(-1 if record.response is None else next(number) for record in records)
            if wide
            else None,
            responses=responses,
            first_byte_ns=column(record.first_byte_ns for record in records) if wide else None,
        )
