"""What is kept of responses: headers and bodies in any pieces, and the ring that hands them over."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.lane.keeping import make_keeping
from replay_native.ground.xxh64 import begin as xxh64_begin
from replay_native.ground.xxh64 import digest as xxh64_digest
from replay_native.ground.xxh64 import update as xxh64_update
from replay_native.http1 import parser as http1
from replay_native.keeping import responses
from replay_native.keeping.responses import ALL, DIGEST, SAMPLE, VALUE_BYTES_MAX, Keeping
from replay_native.keeping.ring import (
    BODIES_LOST,
    HAS_BODY,
    HEADERS_CUT,
    IS_CUT,
    IS_JSON,
    IS_PACKED,
    ROWS_LOST,
    Row,
    drain,
    make_drained,
)
from tests import naive_digest

pytestmark = pytest.mark.boundscheck

NAMES = ("location", "x-version")
BODY = json.dumps({"id": 7, "items": ["a", "bb"], "text": "x" * 40}).encode()


def xxh64(data: bytes) -> int:
    state, tail = np.zeros(6, np.uint64), np.zeros(32, np.uint8)
    xxh64_begin(state)
    xxh64_update(state, tail, np.frombuffer(bytearray(data), np.uint8))
    return int(xxh64_digest(state, tail))


def keeping_of(mode: int = ALL, **options: Any) -> Keeping:
    given = {"headers": NAMES, "body_limit": 1_000, "head_limit": 4_096, "ring_bytes": 1 << 16, **options}
    return make_keeping(mode, 2, **given)


def receive(keeping: Keeping, data: bytes, cuts: Sequence[int] = (), *, seq: int = 0, slot: int = 0) -> int:
    """Parse a response in pieces, as the lanes do, and hand it over. Returns the parser's state."""
    parsers = np.zeros(1, http1.PARSER)
    parser = parsers[0]
    responses.begin_from_python(keeping, slot, seq)
    edges = [0, *sorted(cuts), len(data)]
    for begin, end in itertools.pairwise(edges):
        piece, at = np.frombuffer(bytearray(data[begin:end]), np.uint8), 0
        while at < len(piece) and parser["parse_state"] < http1.DONE:
            start, before = at, int(parser["body_bytes"])
            at = int(http1.parse_part(parsers, piece, at, 4_096))
            stretch = int(parser["body_bytes"]) - before
            if stretch:
                responses.body_from_python(keeping, slot, piece[at - stretch : at].copy())
            elif not keeping.slots[slot]["has_head"]:
                is_complete = int(parser["parse_state"] >= http1.CHUNK_SIZE)
                responses.head_from_python(keeping, slot, piece[start:at].copy(), is_complete)
    row = Row(seq, 3, 1, 1_000, int(parser["status"]), int(parser["body_bytes"]))
    responses.hand_over_from_python(keeping, slot, row)
    return int(parser["parse_state"])


def drained(keeping: Keeping, rows: int = 64) -> list[dict[str, Any]]:
    out = make_drained(rows, 1 << 16, 1 << 18)
    count = int(drain(keeping.ring, out, 0))
    found = []
    for row in range(count):
        first, last = out.row_headers[row : row + 2]
        headers = [
            (NAMES[out.names[i]], out.headers[out.header_ends[i] : out.header_ends[i + 1]].tobytes())
            for i in range(first, last)
        ]
        found.append({
            "seq": int(out.seq[row]), "client": int(out.client[row]), "route": int(out.route[row]),
            "status": int(out.status[row]), "length": int(out.length[row]), "flags": int(out.flags[row]),
            "json": int(out.of_json[row]), "bytes": int(out.of_bytes[row]), "headers": headers,
            "type": out.types[out.type_ends[row] : out.type_ends[row + 1]].tobytes(),
            "encoding": out.encodings[out.encoding_ends[row] : out.encoding_ends[row + 1]].tobytes(),
            "body": out.bodies[out.body_ends[row] : out.body_ends[row + 1]].tobytes(),
        })  # fmt: skip
    return found


def response(body: bytes = BODY, headers: bytes = b"", *, chunks: int = 0) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Other: 1\r\n" + headers
    if not chunks:
        return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    parts = [body[at : at + chunks] for at in range(0, len(body), chunks)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\nX-Trailer: 1\r\n\r\n"


@given(data=st.data(), chunks=st.sampled_from([0, 1, 7, 50]), is_preceded=st.booleans())
def test_any_split_of_a_response_keeps_the_same(data: st.DataObject, chunks: int, is_preceded: bool) -> None:
    headers = b"LOCATION:  /next \r\nX-Version: 1\r\n  folded\r\nX-Version: 2\r\nSet-Cookie: a=b\r\n"
    text = response(headers=headers, chunks=chunks)
    if is_preceded:
        text = b"HTTP/1.1 103 Early Hints\r\nLocation: /early\r\n\r\n" + text
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    keeping = keeping_of()
    assert receive(keeping, text, cuts, seq=9) == http1.DONE
    (row,) = drained(keeping)
    assert row["headers"] == [("location", b"/next"), ("x-version", b"1 folded"), ("x-version", b"2")]
    assert (row["seq"], row["client"], row["route"], row["status"]) == (9, 3, 1, 200)
    assert (row["type"], row["encoding"], row["body"]) == (b"application/json", b"", BODY)
    assert row["flags"] & IS_JSON and row["json"] == naive_digest.digest(BODY)
    assert row["bytes"] == 0
    assert row["length"] == len(BODY)
    responses.give_back(keeping)


def test_a_digest_covers_all_of_a_body_of_which_only_the_beginning_is_kept() -> None:
    body = json.dumps(["y" * 90] * 100).encode()
    keeping = keeping_of(body_limit=50)
    receive(keeping, response(body), range(0, 9_000, 1_000))
    (row,) = drained(keeping)
    assert row["body"] == body[:50] and row["flags"] & IS_CUT
    assert row["json"] == naive_digest.digest(body)


def test_digests_alone_keep_no_body_but_those_that_must_be_decoded() -> None:
    keeping = keeping_of(DIGEST)
    receive(keeping, response())
    receive(keeping, response(b"\x1f\x8b...", b"Content-Encoding: gzip\r\n"))
    receive(keeping, response(headers=b"Content-Encoding: Identity\r\n"))
    plain, packed, identity = drained(keeping)
    assert plain["body"] == b"" and not plain["flags"] & HAS_BODY
    assert packed["body"] == b"\x1f\x8b..." and packed["flags"] & IS_PACKED
    assert packed["encoding"] == b"gzip"
    assert not identity["flags"] & IS_PACKED


def test_a_sample_holds_the_same_requests_in_every_run() -> None:
    kept = []
    for slot in (0, 1):
        keeping = keeping_of(SAMPLE, sample_ppm=250_000, ring_bytes=1 << 20)
        for seq in range(400):
            receive(keeping, response(), seq=seq, slot=slot)
        kept.append([row["seq"] for row in drained(keeping, 500) if row["body"]])
    assert kept[0] == kept[1]
    assert 60 < len(kept[0]) < 140


def test_a_full_ring_drops_bodies_first_and_then_rows_and_counts_both() -> None:
    keeping = keeping_of(ring_bytes=1 << 12)
    sent = 100
    for seq in range(sent):
        receive(keeping, response(b'"%s"' % (b"z" * 500)), seq=seq)
    rows = drained(keeping, 200)
    words = keeping.ring.words
    assert 0 < len(rows) < sent
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    assert len(rows) + words[ROWS_LOST] == sent
    assert sum(not row["body"] for row in rows) + words[ROWS_LOST] == words[BODIES_LOST]
    receive(keeping, response(), seq=sent)
    assert [row["seq"] for row in drained(keeping)] == [sent]


def test_records_survive_many_turns_of_the_ring() -> None:
    keeping, seen = keeping_of(ring_bytes=1 << 12), []
    for seq in range(500):
        body = json.dumps({"n": seq, "pad": "p" * (seq * 37 % 700)}).encode()
        receive(keeping, response(body), seq=seq)
        if seq % 3 == 2:
            seen += drained(keeping)
    seen += drained(keeping)
    assert keeping.ring.words[ROWS_LOST] == keeping.ring.words[BODIES_LOST] == 0
    for seq, row in enumerate(seen):
        assert row["seq"] == seq == json.loads(row["body"])["n"]
    assert len(seen) == 500


def test_columns_that_are_full_leave_the_rest_in_the_ring() -> None:
    keeping = keeping_of()
    for seq in range(10):
        receive(keeping, response(), seq=seq)
    assert [row["seq"] for row in drained(keeping, 4)] == [0, 1, 2, 3]
    assert [row["seq"] for row in drained(keeping, 64)] == [4, 5, 6, 7, 8, 9]


def test_a_long_header_is_cut_and_counted() -> None:
    keeping = keeping_of()
    receive(keeping, response(headers=b"Location: /%s\r\n" % (b"a" * 2_000)))
    (row,) = drained(keeping)
    assert row["headers"] == [("location", b"/" + b"a" * (VALUE_BYTES_MAX - 1))]
    assert keeping.ring.words[HEADERS_CUT] == 1


def test_headers_beyond_the_notes_are_counted() -> None:
    keeping = keeping_of(head_limit=4_096)
    receive(keeping, response(headers=b"".join(b"X-Version: %d\r\n" % n for n in range(150))))
    (row,) = drained(keeping)
    assert len(row["headers"]) == 150 and keeping.ring.words[HEADERS_CUT] == 0


def test_what_an_earlier_response_left_is_gone() -> None:
    keeping = keeping_of()
    receive(keeping, response(headers=b"Location: /one\r\n"))
    responses.begin_from_python(keeping, 0, 5)
    receive(keeping, b"HTTP/1.1 204 No Content\r\nX-Version: 2\r\n\r\n", seq=6)
    _, row = drained(keeping)
    assert (row["seq"], row["status"], row["length"], row["body"]) == (6, 204, 0, b"")
    assert row["headers"] == [("x-version", b"2")] and row["type"] == b""


@given(data=st.data(), body=st.binary(max_size=200))
def test_what_is_no_json_has_the_xxh64_of_all_of_it(data: st.DataObject, body: bytes) -> None:
    text = response(b"<p>" + body)
    keeping = keeping_of(body_limit=5)
    receive(keeping, text, data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    (row,) = drained(keeping)
    assert row["bytes"] == xxh64(b"<p>" + body) and not row["flags"] & IS_JSON
    responses.give_back(keeping)
