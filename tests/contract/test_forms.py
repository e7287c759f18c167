"""Every form of an answer has one outcome, whichever engine reads it, and in however many pieces it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from replay.results.beginnings import shown
from replay_native.ledger.lane_metrics import MALFORMED, OUTCOMES, TRUNCATED
from tests.oracles.http1_forms import FORMS, Form
from tests.support.scripted_server import Reply, ReplyServer

from .driver import (
    MS_NS,
    Ask,
    Driven,
    RunLane,
    drive,
)

pytestmark = pytest.mark.boundscheck

SHORT = [form for form in FORMS if 1 < len(form.data) < 100 and form.state != "more"]


def outcome_of(form: Form) -> str:
    """What the lane must record; the server closes behind each answer."""
    if form.state == "whole":
        return f"{form.status // 100}xx"
    return OUTCOMES[MALFORMED if form.state == "malformed" else TRUNCATED]


def by_route(driven: Driven, routes: int) -> list[str]:
    """The outcome of each route's only request."""
    counts = driven.metrics.route_counts[:routes]
    assert counts.sum(axis=1).tolist() == [1] * routes
    return [OUTCOMES[code] for code in counts.argmax(axis=1).tolist()]


async def drive_forms(
    run_lane: RunLane, path: Path, forms: list[Form], reply: dict[str, Reply], gap_ms: float
) -> Driven:
    asks = [
        Ask(f"/{number}", at_ms=gap_ms * number, method="HEAD" if form.head else "GET", route=number)
        for number, form in enumerate(forms)
    ]
    with ReplyServer(lambda path, turn: reply[path]) as server:
        return await drive(
            run_lane, path, asks, server.port, routes=len(forms), arena_bytes=1, connections=16, max_wait_s=60,
        )  # fmt: skip


def notes(driven: Driven, forms: list[Form]) -> Iterator[tuple[Form, int, str]]:
    """The parser's reason and the first bytes that the sample of each malformed form has."""
    for route, form in enumerate(forms):
        if form.state == "malformed":
            reason, count, *beginning = driven.metrics.malformed[route, 0].tolist()
            yield form, reason, shown(bytes(beginning[:count]))


def begins_as(form: Form) -> str:
    line = form.data.replace(b"\r", b"\n").partition(b"\n")[0]
    return shown(line[:32].partition(b":")[0].partition(b"=")[0])


async def test_a_form_has_its_outcome(run_lane: RunLane, tmp_path: Path) -> None:
    reply: dict[str, Reply] = {f"/{n}": ([form.data], "close") for n, form in enumerate(FORMS)}
    driven = await drive_forms(run_lane, tmp_path, FORMS, reply, gap_ms=2.0)
    found = by_route(driven, len(FORMS))
    wrong = [
        (form.name, outcome, outcome_of(form))
        for form, outcome in zip(FORMS, found, strict=True)
        if outcome != outcome_of(form)
    ]
    assert not wrong
    noted = list(notes(driven, FORMS))
    assert [(form.name, reason) for form, reason, _ in noted] == [
        (form.name, form.reason) for form, _, _ in noted
    ]
    assert [text for _, _, text in noted] == [begins_as(form) for form, _, _ in noted]


async def test_a_form_in_pieces_has_the_same_outcome(run_lane: RunLane, tmp_path: Path) -> None:
    reply: dict[str, Reply] = {}
    for number, form in enumerate(SHORT):
        middle = 1 + number % (len(form.data) - 1)
        reply[f"/{number}"] = ([form.data[:middle], form.data[middle:]], "close")
    driven = await drive_forms(run_lane, tmp_path, SHORT, reply, gap_ms=3.0)
    assert by_route(driven, len(SHORT)) == list(map(outcome_of, SHORT))
    assert all(reason == form.reason for form, reason, _ in notes(driven, SHORT))


@pytest.mark.timing
async def test_text_that_is_not_http_is_malformed_at_once(run_lane: RunLane, tmp_path: Path) -> None:
    def reply(path: str, turn: int) -> Reply:
        return [b"no line end, and no close"], "keep"

    with ReplyServer(reply) as server:
        driven = await drive(run_lane, tmp_path, [Ask(), Ask(at_ms=5)], server.port, timeout_s=20)
    assert driven.outcomes == {"malformed": 2}
    assert driven.percentile_ns("service.all", 1.0) < 5_000 * MS_NS


async def test_a_status_that_is_none_stays_in_the_sample(run_lane: RunLane, tmp_path: Path) -> None:
    def reply(path: str, turn: int) -> Reply:
        return [b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n"], "keep"

    with ReplyServer(reply) as server:
        driven = await drive(run_lane, tmp_path, [Ask()], server.port)
    assert driven.outcomes == {"malformed": 1}
    assert driven.samples("failed")["status"].tolist() == [600]
    reason, count, *beginning = driven.metrics.malformed[0, 0].tolist()
    assert (reason, bytes(beginning[:count])) == (3, b"HTTP/1.1 600 Odd")


async def test_a_sample_holds_no_header_of_a_malformed_answer(run_lane: RunLane, tmp_path: Path) -> None:
    answers = [
        b"Set-Cookie: sid=s3cr3t\r\n\r\n",
        b"sid=s3cr3t; Path=/",
        b'{"token": "s3cr3t"}',
        b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=s3cr3t\r\nBad Name: s3cr3t\r\n\r\n",
        b"HTTP/1.1 200 OK\nAuthorization: s3cr3t\nContent-Length: s3cr3t\n\n",
    ]
    for pieces in (1, 2):
        cut = [[data] if pieces == 1 else [data[:9], data[9:]] for data in answers]
        with ReplyServer(lambda path, turn, cut=cut: (cut[int(path[1:])], "close")) as server:  # type: ignore[misc]
            asks = [Ask(f"/{number}", at_ms=number) for number in range(len(answers))]
            driven = await drive(run_lane, tmp_path, asks, server.port)
        assert driven.outcomes == {"malformed": len(answers)}
        assert sorted(driven.metrics.malformed[0, : len(answers), 0].tolist()) == [1, 1, 1, 7, 9]
        assert b"s3cr3t" not in driven.metrics.malformed.tobytes()


async def test_informational_answers_count_though_nothing_follows(run_lane: RunLane, tmp_path: Path) -> None:
    def reply(path: str, turn: int) -> Reply:
        return [b"HTTP/1.1 103 Hints\r\n\r\n" * 2], "close"

    with ReplyServer(reply) as server:
        driven = await drive(run_lane, tmp_path, [Ask(), Ask(at_ms=5)], server.port)
    assert driven.outcomes == {"truncated": 2}
    assert driven["informational"] == 4
