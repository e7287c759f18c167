"""Responses against the recorded statuses, on both engines: which are worse, counted by route, never of the warm-up."""

from __future__ import annotations

from pathlib import Path

from replay_native.ledger.statuses import S
from tests.support.scripted_server import (
    Pieces,
    ScriptedServer,
    Turns,
    answer,
)

from .driver import Ask, RunLane, drive


async def test_worse_responses_are_counted_by_route(run_lane: RunLane, tmp_path: Path) -> None:
    paths = {f"/{status}": [answer(b"", status=status)] for status in (200, 302, 304, 404, 408, 500)}
    pairs = [
        (200, 200),
        (200, 404),
        (304, 404),
        (404, 404),
        (0, 404),
        (0, 200),
        (200, 302),
        (302, 302),
        (200, 304),
    ]
    pairs += [(200, 408), (200, 500), (500, 200)]
    with ScriptedServer(paths) as server:
        asks = [Ask(f"/{now}", at_ms=n, recorded_status=then) for n, (then, now) in enumerate(pairs)]
        asks += [Ask("/404", at_ms=20, route=1, recorded_status=200)]
        asks += [Ask("/404", at_ms=21, route=1, recorded_status=200, warm_up=True)]
        driven = await drive(run_lane, tmp_path, asks, server.port)
    counts = driven.metrics.status_counts
    assert counts[0, [S.compared, S.worse, S.unknown, S.unknown_4xx]].tolist() == [10, 3, 2, 1]
    assert counts[1, [S.compared, S.worse, S.unknown, S.unknown_4xx]].tolist() == [1, 1, 0, 0]


async def test_a_request_is_judged_by_its_last_try_and_none_without_a_response_is(
    run_lane: RunLane, tmp_path: Path
) -> None:
    paths: dict[str, Pieces | Turns] = {
        "/twice": Turns([answer(b"", status=404)], [answer(b"", status=200)]),
        "/cut": [b"HTTP/1.1 404 No\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"],
    }
    with ScriptedServer(paths) as server:
        asks = [Ask("/twice", recorded_status=200), Ask("/cut", at_ms=5, recorded_status=200)]
        driven = await drive(run_lane, tmp_path, asks, server.port)
    assert driven.outcomes == {"4xx": 1, "truncated": 1}
    assert driven.metrics.status_counts[0].tolist() == [1, 1, 0, 0]
