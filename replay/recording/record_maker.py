"""Converts exchanges to clean records."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from dataclasses import dataclass

from replay.trace.importing import Found, Options
from replay.trace.importing.marks import Change
from replay.trace.importing.readers.records import Record, RecordReader, end_to_end
from replay.trace.importing.scrub_rules import parse_rules
from replay.trace.journal_record import JournalRecord, JournalResponse
from replay.trace.manifest import CUT_BODY_MARK
from replay.trace.requests import Headers
from replay.trace.responses import RecordedResponse, media_type

from .exchange import Exchange
from .headers import HeaderList
from .setup import Setup

HEADERS_REMEMBERED = 1 << 14


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of secrets and of changed values.

    `dropped` counts by what was removed, `names` by the secret's name, and `changes` by the change that was made.
    """

    dropped: Counter[str]
    names: Counter[str]
    changes: Counter[Change]

    @classmethod
    def of(cls, found: Found) -> Counts:
        """Return a copy of all counts so far."""
        return cls(Counter(found.secrets_dropped), Counter(found.secrets_by_name), Counter(found.changes))

    def since(self, before: Counts) -> Counts:
        """Return the difference between these counts and earlier ones."""
        return Counts(self.dropped - before.dropped, self.names - before.names, self.changes - before.changes)

    def count_again(self, found: Found, times: int = 1) -> None:
        """Add these counts `times` times to those of `found`."""
        for what, count in self.dropped.items():
            found.drop(what, times * count)
        for name, count in self.names.items():
            found.note_secret(name, times * count)
        for change, count in self.changes.items():
            found.note_change(change, times * count)


class RecordMaker:
    """Converts exchanges to records, without secrets unless the setup keeps them."""

    def __init__(self, setup: Setup) -> None:
        self.found = Found(key=secrets.token_bytes(32))
        self.options = Options(
            keep_secrets=setup.keep_secrets, responses="all", scrub=parse_rules(setup.scrub), scrub_key=setup.scrub_key
        )  # fmt: skip
        self._keeps_responses = setup.keep_responses
        self._reader = RecordReader(self.found, self.options)
        self._aside = Found(key=self.found.key, known_secrets=self.found.known_secrets)
        self._aside_reader = RecordReader(self._aside, self.options)
        self.wanted = HeaderList.parse(setup.headers)
        self._client_key = secrets.token_bytes(16)
        self._known: dict[Headers, tuple[Headers, Counts]] = {}
        self._secrets_known = 0

    def made(self, exchange: Exchange) -> JournalRecord | str:
        """Return the record of an exchange, or the reason why there is none."""
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
            client=self.client(exchange.client),
            status=exchange.status,
            took_ns=exchange.took_ns,
            first_byte_ns=exchange.first_byte_ns,
            size=response.size if response is not None and response.complete else -1,
            headers=record.headers,
            body=record.body,
            response=None if response is None else self._response(exchange),
        )

    def line(self, name: bytes, value: bytes) -> tuple[Headers, Counts]:
        """Return a header as it is recorded, and the counts to add each time it occurs.

        The header is empty if it is not recorded.
        """
        before = Counts.of(self._aside)
        pairs = end_to_end([(name, value)])
        kept = self._aside_reader.kept(pair for pair in pairs if self.wanted.has(pair[0]))
        return kept, Counts.of(self._aside).since(before)

    def client(self, address: str) -> bytes:
        """Return the keyed hash that replaces the address of a client."""
        return hashlib.blake2b(address.encode(), key=self._client_key, digest_size=8).digest()

    def _headers(self, headers: Headers) -> Headers:
        """Return the headers of a request as they are recorded.

        Header sets are cached, because most requests repeat one.
        """
        if len(self.found.known_secrets) != self._secrets_known:
            # A value in a cached header may have turned out to be a secret.
            self._secrets_known = len(self.found.known_secrets)
            self._known.clear()
        known = self._known.get(headers)
        if known is not None:
            known[1].count_again(self.found)
            return known[0]
        before = Counts.of(self.found)
        pairs = [(name, value or b"") for name, value in headers]
        kept = self._reader.kept(pair for pair in end_to_end(pairs) if self.wanted.has(pair[0]))
        if len(self._known) >= HEADERS_REMEMBERED:
            self._known.clear()
        self._known[headers] = kept, Counts.of(self.found).since(before)
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
