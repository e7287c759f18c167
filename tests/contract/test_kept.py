"""What is kept of responses: the lane's contract, held by both engines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from replay.lane.keeping import make_keeping
from replay.lane.retries import retry_of
from replay.settings.scenario import Retry, Scenario
from replay.staging.sink import Sink
from replay_native.keeping.responses import ALL, DIGEST, Keeping
from replay_native.keeping.ring import HAS_BODY, IS_CUT, IS_JSON, IS_PACKED, ROWS_LOST, drain, make_drained
from tests import naive_digest
from tests.support.scripted_server import Pieces, ScriptedServer, Turns, answer

from .driver import MS_NS, Ask, Driven, RunLane, by_tls, drive

pytestmark = pytest.mark.boundscheck

DOCUMENT = json.dumps(
    {"id": 1, "name": "\N{LATIN SMALL LETTER E WITH ACUTE}", "tags": ["a", 2.50, None]}
).encode()
JSON_TYPE = b"Content-Type: application/json\r\n"


def keeping_of(mode: int = ALL, connections: int = 8, **options: Any) -> Keeping:
    given = {
        "headers": ("location",),
        "body_limit": 1_000,
        "head_limit": 65_536,
        "ring_bytes": 1 << 20,
        **options,
    }
    return make_keeping(mode, connections, **given)


def rows_of(keeping: Keeping) -> list[dict[str, Any]]:
    """What the lane handed over, by the number of the request."""
    out = make_drained(1_000, 1 << 20, 1 << 22)
    rows = []
    for row in range(int(drain(keeping.ring, out, 0))):
        rows.append({
            "seq": int(out.seq[row]), "client": int(out.client[row]), "route": int(out.route[row]),
            "due_ns": int(out.due_ns[row]), "status": int(out.status[row]), "length": int(out.length[row]),
            "flags": int(out.flags[row]), "json": int(out.of_json[row]),
            "body": out.bodies[out.body_ends[row] : out.body_ends[row + 1]].tobytes(),
            "headers": out.headers[
                out.header_ends[out.row_headers[row]] : out.header_ends[out.row_headers[row + 1]]
            ].tobytes(),
        })  # fmt: skip
    return sorted(rows, key=lambda row: int(row["seq"]))


async def kept(
    run_lane: RunLane, tmp_path: Path, answers: dict[str, Pieces | Turns], asks: Sequence[Ask], keeping: Keeping,
    **options: Any,
) -> tuple[list[dict[str, Any]], Driven]:  # fmt: skip
    with ScriptedServer(answers) as server:
        driven = await drive(run_lane, tmp_path, asks, server.port, keeping=keeping, **options)
    return rows_of(keeping), driven


async def test_a_row_says_what_came_for_which_request(run_lane: RunLane, tmp_path: Path) -> None:
    moved = answer(b"", b"Location: /there\r\n", status=302)
    answers: dict[str, Pieces | Turns] = {"/a": [answer(DOCUMENT, JSON_TYPE)], "/b": [moved]}
    asks = [Ask("/a", client=5), Ask("/b", 20, route=1), Ask("/a", 40, "POST", b"x")]
    keeping = keeping_of()
    rows, driven = await kept(run_lane, tmp_path, answers, asks, keeping)
    assert [row["seq"] for row in rows] == [0, 1, 2]
    assert [row["status"] for row in rows] == [200, 302, 200]
    assert [row["client"] for row in rows] == [5, 0, 0] and [row["route"] for row in rows] == [0, 1, 0]
    assert [row["due_ns"] - driven.start_ns for row in rows] == [0, 20 * MS_NS, 40 * MS_NS]
    assert [row["length"] for row in rows] == [len(DOCUMENT), 0, len(DOCUMENT)]
    assert rows[0]["json"] == rows[2]["json"] == naive_digest.digest(DOCUMENT)
    assert rows[0]["flags"] & IS_JSON and rows[0]["body"] == DOCUMENT
    assert rows[1]["headers"] == b"/there" and rows[1]["body"] == b""


async def test_pieces_chunks_and_a_close_at_the_end_make_no_difference(
    run_lane: RunLane, tmp_path: Path
) -> None:
    whole = answer(DOCUMENT, JSON_TYPE)
    chunked = b"HTTP/1.1 200 OK\r\n" + JSON_TYPE + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (DOCUMENT[:9], DOCUMENT[9:10], DOCUMENT[10:])]
    until_close = b"HTTP/1.1 200 OK\r\n" + JSON_TYPE + b"Connection: close\r\n\r\n" + DOCUMENT
    answers: dict[str, Pieces | Turns] = {
        "/whole": [whole],
        "/cut": [whole[:5], whole[5:30], whole[30:60], whole[60:]],
        "/chunked": [chunked + chunks[0], chunks[1][:2], chunks[1][2:] + chunks[2], b"0\r\nX-T: 1\r\n\r\n"],
        "/close": [until_close[:-9], until_close[-9:]],
        "/early": [b"HTTP/1.1 103 Early Hints\r\nLocation: /x\r\n\r\n", whole],
    }
    rows, _ = await kept(run_lane, tmp_path, answers, [Ask(path) for path in answers], keeping_of())
    assert len(rows) == len(answers)
    for row in rows:
        assert (row["json"], row["body"]) == (naive_digest.digest(DOCUMENT), DOCUMENT)
        assert row["flags"] & IS_JSON and row["length"] == len(DOCUMENT) and row["headers"] == b""


async def test_only_the_last_try_of_a_request_is_kept(run_lane: RunLane, tmp_path: Path) -> None:
    retry = retry_of(Scenario(retry=Retry(attempts=3, on=("503",))))
    answers: dict[str, Pieces | Turns] = {
        "/a": Turns([answer(b"busy", status=503)], [answer(DOCUMENT, JSON_TYPE)])
    }
    rows, driven = await kept(run_lane, tmp_path, answers, [Ask("/a")], keeping_of(), retry=retry)
    assert driven["retries"] == 1
    assert [(row["status"], row["body"]) for row in rows] == [(200, DOCUMENT)]


async def test_requests_without_a_whole_response_have_no_row(run_lane: RunLane, tmp_path: Path) -> None:
    answers: dict[str, Pieces | Turns] = {
        "/short": [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nabc"],
        "/garbage": [b"garbage\r\n\r\n"],
        "/good": [answer(DOCUMENT, JSON_TYPE)],
    }
    asks = [Ask("/short", method="POST"), Ask("/garbage", 30, "POST"), Ask("/good", 60)]
    rows, driven = await kept(run_lane, tmp_path, answers, asks, keeping_of())
    assert driven.outcomes == {"2xx": 1, "truncated": 1, "malformed": 1}
    assert [row["seq"] for row in rows] == [2]


async def test_a_long_body_is_cut_and_a_coded_one_is_handed_over_whole(
    run_lane: RunLane, tmp_path: Path
) -> None:
    long, coded = json.dumps(["x" * 99] * 2_000).encode(), bytes(range(256)) * 40
    answers: dict[str, Pieces | Turns] = {
        "/long": [answer(long, JSON_TYPE)],
        "/coded": [answer(coded, b"Content-Encoding: br\r\n")],
    }
    for mode in (ALL, DIGEST):
        rows, _ = await kept(run_lane, tmp_path, answers, [Ask("/long"), Ask("/coded")], keeping_of(mode))
        assert rows[0]["json"] == naive_digest.digest(long)
        assert rows[0]["body"] == (long[:1_000] if mode == ALL else b"")
        assert bool(rows[0]["flags"] & (HAS_BODY | IS_CUT)) == (mode == ALL)
        assert rows[1]["body"] == coded and rows[1]["flags"] & IS_PACKED


async def test_a_full_ring_never_holds_up_the_lane(run_lane: RunLane, tmp_path: Path, sink: Sink) -> None:
    keeping = keeping_of(ring_bytes=1 << 12)
    asks = [Ask(f"/size=200/{n}", n / 4) for n in range(200)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, keeping=keeping)
    assert driven["outcome_2xx"] == 200
    rows = rows_of(keeping)
    assert 0 < len(rows) < 200 and len(rows) + keeping.ring.words[ROWS_LOST] == 200


@by_tls
async def test_many_responses_are_all_kept(run_lane: RunLane, tmp_path: Path, sink: Sink) -> None:
    keeping = keeping_of(DIGEST)
    asks = [Ask(f"/{n}", n / 10, warm_up=n < 5) for n in range(300)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, keeping=keeping)
    assert driven["outcome_2xx"] == 300
    assert [row["seq"] for row in rows_of(keeping)] == list(range(300))
