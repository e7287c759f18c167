"""Figures of a run that still goes are those that its document has in the end; objectives fall and rise with the load."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.engine.recording import Recording
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.folder import RunFolder
from replay.results.so_far import SoFar
from replay.results.standing import LEAST, StandingNow
from replay.results.timeline import Second
from replay_native.ledger import lane_metrics
from tests.support.metrics_data import ROUTES, Lane, at_s, started


class Follower:
    """A sink that follows a run."""

    def __init__(self) -> None:
        self.steps: list[list[StandingNow]] = []

    def start(self, started: Started) -> None:
        self.so_far = SoFar(started)

    def second(self, second: Second, deltas: Deltas) -> None:
        self.steps.append(self.so_far.take(second, deltas))

    def end(self, document: RunDocument) -> None:
        self.document = document

    def close(self) -> None:
        pass


def follow(folder: Path, slow_from: int, slow_until: int, seconds: int = 40, **more: object) -> Follower:
    """A run of 40 requests a second, 2 ms each, but 900 ms and one failure in ten in some of the seconds."""
    start, follower = started(**more), Follower()  # type: ignore[arg-type]
    made = RunFolder.create(folder)
    metrics = lane_metrics.create(made.lane(0), len(start.routes), lane_metrics.ARENA_BYTES, 0)
    lane, recording = Lane(metrics), Recording(made, [metrics], start, [follower])
    for second in range(seconds):
        is_slow = slow_from <= second < slow_until
        for number in range(40):
            outcome = "reset" if is_slow and number % 10 == 0 else "2xx"
            lane.request(number % 3, outcome, service_ms=900.0 if is_slow else 2.0)
        recording.tick(at_s(second + 1))
    recording.finish(at_s(seconds + 0.5))
    return follower


def test_in_the_end_every_figure_is_that_of_the_document(tmp_path: Path) -> None:
    slo = ["p99<250ms", "errors<0.1%", "max service<1s", f'p50 of "{ROUTES[0]}"<1s']
    follower = follow(tmp_path / "run", 10, 20, slo=slo)
    measured, document = follower.so_far.measured, follower.document
    for kind in ("response", "service", "lateness", "wait"):
        assert measured.latency(kind) == getattr(document.latency, kind)
    for route in document.routes:
        assert dict(follower.so_far.routes)[route.route] == route.outcomes
        assert measured.latency("response", route.route) == route.response
    for name in ("planned", "sent", "ok", "error", "timeout", "unsent"):
        assert follower.so_far.sums[name] == getattr(document.accounts, name)
    assert [each.met for each in follower.steps[-1]] == [outcome.passed for outcome in document.slo]


@pytest.mark.parametrize(
    "slo", ["p99<250ms", "errors<1%", "p99<250ms over 5s", f'errors of "{ROUTES[0]}"<1%']
)
def test_a_breach_begins_with_the_trouble_and_ends_after_it(tmp_path: Path, slo: str) -> None:
    follower = follow(tmp_path / "run", 10, 20, slo=[slo])
    now = [step[0].met_now for step in follower.steps]
    assert now[9] is not False
    assert now[11] is False
    assert now[-2] is True
    assert now.index(False) >= 10
    begins, ends = now.index(False), len(now) - now[::-1].index(False)
    assert all(state is False for state in now[begins:ends])
    assert 20 <= ends <= 31
    assert follower.steps[-1][0].met is False, "over the whole run it is missed"


def test_few_requests_are_no_breach(tmp_path: Path) -> None:
    start, follower = started(slo=["p99<1us"]), Follower()
    made = RunFolder.create(tmp_path / "run")
    metrics = lane_metrics.create(made.lane(0), len(start.routes), lane_metrics.ARENA_BYTES, 0)
    lane, recording = Lane(metrics), Recording(made, [metrics], start, [follower])
    for second in range(LEAST + 5):
        lane.request()
        recording.tick(at_s(second + 1))
    recording.finish(at_s(LEAST + 5.5))
    assert {step[0].met_now for step in follower.steps} == {None}, "ten requests in the last ten seconds"


def test_the_budget_is_that_of_the_requests_planned(tmp_path: Path) -> None:
    follower = follow(
        tmp_path / "run", 10, 12, slo=["errors<1%", "p90<250ms", "errors<0%"], plan={"rows": 1_600}
    )
    left = [each.left for each in follower.steps[-1]]
    assert left[0] == pytest.approx(1 - 8 / 16)
    assert left[1] == pytest.approx(1 - 80 / 160)
    assert left[2] == 0.0
    assert [each.left for each in follower.steps[9]] == [1.0, 1.0, 1.0]


def test_what_only_the_end_can_decide_is_not_decided_before(tmp_path: Path) -> None:
    follower = follow(tmp_path / "run", 10, 12, slo=["statuses differ<5%"])
    assert {(step[0].met, step[0].met_now, step[0].budget) for step in follower.steps} == {
        (None, None, "decided at the end")
    }
