"""Requests that kernels pass without Python: their records are those that Python would have made."""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.recording.batches import BatchReader
from replay.recording.body_limits import BodyLimits
from replay.recording.exchange import Clients, Exchange
from replay.recording.framing import request_head
from replay.recording.record_maker import RecordMaker
from replay.recording.ring import MirrorRing
from replay.recording.setup import Setup
from replay.recording.writer import Writer
from replay.trace.importing.cleaning import VALUE_CHARS_MIN
from replay.trace.importing.pseudonyms import Pseudonyms
from replay.trace.journal_columns import records_of
from replay.trace.journal_record import JournalRecord
from replay_native.ground import shared
from replay_native.mirror.cleaning import WORD_BYTES_MIN
from replay_native.mirror.memory import RingWords

KEY = bytes(range(32))
PEER = struct.unpack("<I", socket.inet_aton("127.0.0.1"))[0]


def setup(*scrub: str, keep_secrets: bool = False, headers: str = "all", limit: int = 1 << 20) -> Setup:
    return Setup(
        journal="", source="", started_ns=0, scrub=list(scrub), scrub_key=KEY, keep_secrets=keep_secrets, headers=headers,
        body_limit=limit,
    )  # fmt: skip


class Recorded:
    """A ring, and what its reader made of the requests that were put into it."""

    def __init__(self, chosen: Setup) -> None:
        self.ring = MirrorRing.create(1 << 20)
        self.maker = RecordMaker(chosen)
        self.reader = BatchReader(self.ring, self.maker, BodyLimits(chosen.body_limit))
        self.by_python = 0
        self.records: list[JournalRecord] = []
        self.lost = Counter[str]()

    def put(self, request: bytes, at_ns: int) -> None:
        """Put a request into the ring, as the receiver does it (`mirror.ring.put`)."""
        line_end, head_end = request.index(b"\n") + 1, request.index(b"\r\n\r\n") + 4
        size = 64 + len(request) + 7 & ~7
        words = struct.pack("<8q", size, at_ns, line_end, head_end, len(request), socket.AF_INET, PEER, 0)
        at = self.ring.word(RingWords.PUT)
        data = np.frombuffer((words + request).ljust(size, b"\0"), np.uint8)
        self.ring.arrays.data[at : at + size] = data
        shared.write_word(self.ring.arrays.words, RingWords.PUT_RECORDS, at_ns + 1)
        shared.write_word(self.ring.arrays.words, RingWords.PUT, at + size)

    def take(self) -> None:
        """Take everything out of the ring, and out of the batch."""
        while self.reader.take(self._by_python):
            pass
        if (batch := self.reader.taken()) is not None:
            columns, text, _ = batch
            self.records += records_of(columns, bytes(text))
        self.records.sort(key=lambda record: record.at_ns)

    def _by_python(self, exchanges) -> int:
        made = list(map(self.maker.made, exchanges))
        self.by_python += len(made)
        self.records += [record for record in made if not isinstance(record, str)]
        self.lost.update(record for record in made if isinstance(record, str))
        return len(made)


def exchange(request: bytes, at_ns: int, limit: int = 1 << 20) -> Exchange:
    head = request_head(request)
    assert head is not None
    body = request[head.end :]
    return Exchange(
        at_ns=at_ns, method=head.method.decode(), target=head.target, host=head.host.decode().lower(), headers=head.headers,
        client=Clients().of("127.0.0.1", head.headers), body=body if len(body) <= limit else None, body_bytes=len(body),
    )  # fmt: skip


def request(target: bytes = b"/a", body: bytes = b"", *lines: bytes, method: bytes = b"POST") -> bytes:
    head = [
        method + b" " + target + b" HTTP/1.1",
        b"Host: Shop.example:80",
        b"Content-Length: %d" % len(body),
        *lines,
    ]
    return b"\r\n".join([*head, b"", body])


def check_alike(requests: list[bytes], chosen: Setup) -> Recorded:
    """Clean requests one by one by kernels, and by Python alone: records and counts must be equal."""
    ours, judge = Recorded(chosen), RecordMaker(chosen)
    judge._client_key = ours.maker._client_key
    wanted = []
    for at_ns, each in enumerate(requests):
        ours.put(each, at_ns)
        ours.take()
        wanted.append(judge.made(exchange(each, at_ns, chosen.body_limit)))
    assert ours.records == [record for record in wanted if not isinstance(record, str)]
    assert ours.lost == Counter(record for record in wanted if isinstance(record, str))
    for name in ("secrets_dropped", "secrets_by_name", "changes", "known_secrets", "rules_used"):
        assert getattr(ours.maker.found, name) == getattr(judge.found, name), name
    assert ours.ring.waiting == 0
    return ours


TEXTS = [
    b"tea", b"token", b"pass-word", b"PASSWORD", b"key", b"id", b"=", b":", b'"', b"&", b"?", b";", b"/", b"//", b" ", b"+",
    b"%3D", b"%20", b"%", b"\\", b"\\n", b"\\u000a", b"@",
    b"joe@shop.example", b"abcdefgh12345678", b"4111 1111 1111 1111", b"4111111111111111",
    b"+49 30 1234567", b"(555) 123-4567", b"DE89 3704 0044 0532 0130 00", b"DE89370400440532013000", b"1234567",
    b"2026-11-30T08:00:00", b"1764489600000", b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", b"Bearer abcdefgh12345678",
    b"\xc3\xa4", b"{", b"}", b"[1]", b"null", b"10.0.0.1", b"x" * 40, b"co", b"de", b"session", b"\n", b"\x01", b"user:",
]  # fmt: skip
pieces = st.lists(st.sampled_from(TEXTS), max_size=12).map(b"".join)
bodies = (
    pieces
    | st.binary(max_size=80)
    | st.tuples(pieces, st.integers(1, 30)).map(lambda pair: pair[0] * pair[1])
)
targets = pieces.map(
    lambda text: b"/" + b"".join(bytes([byte]) for byte in text if byte > 32 and byte != 127)
)
lines = st.builds(
    lambda name, value: name + b": " + b"".join(bytes([byte]) for byte in value if byte >= 32 and byte != 127),
    st.sampled_from([
        b"X-Any", b"Accept", b"Authorization", b"Cookie", b"X-Forwarded-For", b"X-Real-IP", b"Forwarded", b"X-Request-Id",
        b"X-Token", b"Referer", b"User-Agent", b"X-Addr", b"Keep-Alive",
    ]),
    pieces,
)  # fmt: skip
requests = st.lists(
    st.builds(lambda target, body, given: request(target, body, *given), targets, bodies, st.lists(lines, max_size=3)),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(requests, st.booleans())
def test_what_kernels_pass_is_what_python_would_have_recorded(requests, twice):
    check_alike(requests * 2 if twice else requests, setup())


@settings(deadline=None, max_examples=10)
@given(requests)
def test_rules_and_limits_hold(requests):
    check_alike(requests * 2, setup("header:x-any=drop", "json:/id=pseudonym", "query:id=drop", limit=60))
    check_alike(requests * 2, setup(headers="accept,x-*,!x-token"))
    check_alike(requests * 2, setup(keep_secrets=True))


def test_requests_without_secrets_need_no_python_after_the_first():
    lines = (
        b"User-Agent: me/1.0 (x)",
        b"Accept: */*",
        b"X-Forwarded-For: 203.0.113.7",
        b"X-Request-Id: abc-0",
    )
    sent = [
        request(b"/orders/%d?page=%d" % (number, number), b'{"unit": "EUR", "text": "%d"}' % number, *lines[:3],
                b"X-Request-Id: abc-%d" % number)
        for number in range(200)
    ]  # fmt: skip
    recorded = check_alike(sent, setup())
    assert recorded.by_python == 1


def test_a_secret_is_replaced_in_the_requests_behind_it_in_the_same_batch():
    ours = Recorded(setup())
    ours.put(request(b"/warm"), 0)
    ours.take()
    secret = b"abcdefgh12345678"
    ours.put(request(b"/first", b"", b"Authorization: Bearer " + secret), 1)
    for number in range(2, 50):
        ours.put(request(b"/then/" + secret, b'{"a": "%s"}' % secret, b"X-Any: " + secret), number)
    ours.take()
    assert len(ours.records) == 50
    assert not any(secret in repr(record).encode() for record in ours.records)
    assert len({record.target for record in ours.records[2:]}) == 1


def test_a_remembered_line_that_proves_to_hold_a_secret_is_cleaned_from_then_on():
    secret = b"abcdefgh12345678"
    line = b"X-Any: " + secret
    sent = [request(b"/a", b"", line)] * 3 + [request(b"/a", b"", b"Authorization: Bearer " + secret)]
    recorded = check_alike([*sent, request(b"/a", b"", line)], setup())
    assert secret not in repr(recorded.records[-1]).encode()


@pytest.mark.parametrize("size", [100, 2_000])
def test_names_are_found_wherever_they_stand_in_a_body(size):
    sent = []
    for at in range(0, size, 37):
        body = bytearray(b"tea " * (size // 4))
        body[at : at + 17] = b' pass-word="hunt" '[:17]
        sent.append(request(b"/a", bytes(body)))
    check_alike(sent, setup())


def test_everybody_agrees_how_long_a_known_secret_is():
    assert WORD_BYTES_MIN == VALUE_CHARS_MIN


def test_large_bodies_fill_a_batch_and_the_writer_goes_on_with_those_that_wait(tmp_path):
    recorded = Recorded(setup())
    recorded.ring = MirrorRing.create(1 << 26)
    writer = Writer(
        msgspec.structs.replace(setup(), journal=str(tmp_path / "j"), ring=os.dup(recorded.ring.file))
    )
    recorded.put(request(), 0)
    assert writer.take_from_ring() and not writer.is_behind
    count = 768
    for number in range(1, count + 1):
        recorded.put(request(b"/a", b"x" * 40_000), number)
    assert writer.take_from_ring() and writer.is_behind
    while writer.take_from_ring():
        pass
    assert not writer.is_behind
    assert writer.end().records == count + 1


def test_a_fault_of_ours_in_one_request_loses_only_that_request(tmp_path, monkeypatch):
    of = Pseudonyms.of

    def faulty(self: Pseudonyms, text: str) -> str:
        if "f4ulty" in text:
            raise RecursionError
        return of(self, text)

    monkeypatch.setattr(Pseudonyms, "of", faulty)
    recorded = Recorded(setup())
    writer = Writer(
        msgspec.structs.replace(setup(), journal=str(tmp_path / "j"), ring=os.dup(recorded.ring.file))
    )
    faulty_line = b"Authorization: Bearer f4ulty-value"
    for number, each in enumerate([
        request(b"/a"), request(b"/b", b'{"token": "f4ulty-value"}'), request(b"/c", b"", faulty_line), request(b"/d"),
        request(b"/e", b"", faulty_line),
    ]):  # fmt: skip
        recorded.put(each, number)
        while writer.take_from_ring():
            pass
    notes = writer.end()
    assert notes.lost == {"fault in replay (RecursionError)": 3}
    assert notes.records == 2
