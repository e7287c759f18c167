"""Objectives by window: every stretch of a run of that length, held against its requests one by one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from replay.errors import UsageError
from replay.ledger.percentiles import rank
from replay.results import slo
from replay.results.document import RouteStart, RunDocument
from replay.results.hlog import read_hlog
from replay.results.measured import FAILED
from replay.results.run import load_run
from tests.support.metrics_data import ROUTES, at_s, trial
from tests.support.there import there

ACTION = "registration"
NAMED = [RouteStart(ROUTES[0], action=ACTION), RouteStart(ROUTES[1], action=ACTION), RouteStart(ROUTES[2])]
SECONDS = 23


@dataclass
class Told:
    """What a run was told, second by second: (route, outcome, ns)."""

    path: Path
    seconds: list[list[tuple[int, str, int]]] = field(default_factory=list)

    def worst(self, window_s: int, figure) -> tuple[float, int, int]:
        """The worst window's figure, how many windows have one, and where it begins: by definition."""
        found = []
        for begin in range(max(len(self.seconds) - window_s, 0) + 1):
            inside = list(itertools.chain(*self.seconds[begin : begin + window_s]))
            if (value := figure(inside)) is not None:
                found.append((value, -begin))
        worst = max(found)
        return worst[0], len(found), -worst[1]


def run_of(path: Path, objectives: list[str], *, seed: int = 1, closed_loop: bool = False, ticks=1.0) -> Told:
    rng = np.random.default_rng(seed)
    told = Told(path)
    started = trial(path, named=NAMED, slo=objectives, closed_loop=closed_loop)
    lane = started.lanes[0]
    for second in range(SECONDS):
        rows = []
        for _ in range(int(rng.integers(0, 40)) if second % 7 else 0):
            route, outcome = int(rng.integers(0, 3)), str(rng.choice(["2xx", "2xx", "2xx", "5xx", "reset"]))
            ns = lane.request(
                route,
                outcome,
                due_ms=second * 1e3,
                late_ms=0.0,
                wait_ms=0.0,
                service_ms=float(rng.lognormal(1, 1)),
            )
            rows.append((route, outcome, ns))
        lane.request(0, "5xx", warm_up=True, service_ms=9_000)
        told.seconds.append(rows)
        started.recorder.tick(at_s((second + 1) * ticks))
    started.recorder.finish(at_s(SECONDS * ticks + 0.01))
    return told


def document(told: Told) -> RunDocument:
    return load_run(told.path).document


def share(routes):
    def figure(rows):
        mine = [outcome for route, outcome, _ in rows if route in routes]
        return sum(outcome in FAILED for outcome in mine) / len(mine) if mine else None

    return figure


def percentile(p, routes, outcomes=("2xx", "5xx", "reset")):
    def figure(rows):
        mine = sorted(ns for route, outcome, ns in rows if route in routes and outcome in outcomes)
        return mine[rank(p, len(mine)) - 1] if mine else None

    return figure


EVERY = (0, 1, 2)
CASES = [
    ("errors < 1% over 5s", 5, share(EVERY), 0),
    (f'errors of "{ROUTES[1]}" < 1% over 3s', 3, share((1,)), 0),
    (f'errors of "{ACTION}" < 1% over 3s', 3, share((0, 1)), 0),
    ('errors of "GET *" < 1% over 3s', 3, share((0, 2)), 0),
    ("p90 < 1ms over 4s", 4, percentile(90, EVERY), 0.001),
    ("p50 service < 1ms over 1s", 1, percentile(50, EVERY), 0.001),
    (f'p90 of "{ROUTES[2]}" < 1ms over 6s', 6, percentile(90, (2,)), 0.01),
    (f'p50 service of "{ACTION}" < 1ms over 2s', 2, percentile(50, (0, 1)), 0.01),
    ("max first_byte < 1ms over 2s", 2, percentile(100, EVERY, ("2xx", "5xx")), 0.001),
    ("max < 1ms over 1h", 3_600, percentile(100, EVERY), 0.001),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_worst_window_is_that_of_the_requests_themselves(tmp_path, seed):
    told = run_of(tmp_path / "run", [text for text, *_ in CASES], seed=seed)
    for outcome, (text, window_s, figure, error) in zip(document(told).slo, CASES, strict=True):
        worst, count, begin = told.worst(window_s, figure)
        assert outcome.slo == text and not outcome.passed
        assert outcome.value == pytest.approx(worst, rel=error, abs=2), text
        assert (there(outcome.windows).count, there(outcome.windows).failed > 0) == (count, True), text
        if not error:
            assert there(outcome.windows).worst_at_s == begin, text


def test_a_bad_second_fails_a_window_that_the_whole_run_forgives(tmp_path):
    objectives = ["p90 < 5ms", "p90 < 5ms over 2s", "p90 < 5s over 2s", "errors < 50% over 1s"]
    made = trial(tmp_path / "run", slo=objectives)
    for second in range(30):
        for _ in range(10):
            made.lanes[0].request(0, service_ms=50.0 if second == 12 else 1.0)
        made.recorder.tick(at_s(second + 1))
    outcomes = made.recorder.finish(at_s(30)).slo
    assert [outcome.passed for outcome in outcomes] == [True, False, True, True]
    assert outcomes[0].windows is None
    assert (there(outcomes[1].windows).count, there(outcomes[1].windows).failed) == (29, 2)
    assert there(outcomes[1].windows).worst_at_s in (11, 12)
    assert slo.words_of(outcomes[1]) == "is 50.0 ms in the worst window, at 11 s (2 of 29 fail)"
    assert slo.words_of(outcomes[2]).endswith("(all 29 meet it)")


def test_windows_are_as_many_intervals_as_come_nearest(tmp_path):
    told = run_of(tmp_path / "run", ["max < 1ms over 5s"], ticks=1.04)
    worst, count, _ = told.worst(5, percentile(100, EVERY))
    outcome = document(told).slo[0]
    assert (outcome.value, there(outcome.windows).count) == (pytest.approx(worst, rel=0.001), count)


def test_requests_never_sent_make_a_lower_bound_of_their_windows_alone(tmp_path):
    made = trial(tmp_path / "run", slo=["p99 < 20s over 1s", "p50 < 1s over 1s", "errors < 60% over 1s"])
    for second in range(4):
        for _ in range(5):
            made.lanes[0].request(0)
            if second == 2:
                made.lanes[0].unsent(0)
        made.recorder.tick(at_s(second + 1))
    p99, p50, errors = made.recorder.finish(at_s(4)).slo
    assert (p99.passed, p99.at_least, there(p99.windows).failed, there(p99.windows).worst_at_s) == (
        False,
        True,
        1,
        2,
    )
    assert p50.passed and errors.passed and errors.value == 0.5


def test_a_closed_loop_has_service_by_window(tmp_path):
    told = run_of(tmp_path / "run", ["max service < 1ms over 3s", "p99 < 1s over 3s"], closed_loop=True)
    service, response = document(told).slo
    assert service.value == pytest.approx(told.worst(3, percentile(100, EVERY))[0], rel=0.001)
    assert (response.passed, response.value) == (False, None)


def test_every_request_is_in_the_log_once_whatever_is_asked_for(tmp_path):
    told = run_of(
        tmp_path / "run", [f'p99 of "{ACTION}" < 1s over 2s', f'p99 service of "{ROUTES[0]}" < 1s over 2s']
    )
    counts: dict[str, int] = {}
    for interval in read_hlog(told.path / "latency.hlog").intervals:
        kind = interval.tag.split(".")[0] + ("" if interval.tag.endswith((".all", ".ok")) else " by route")
        counts[kind] = counts.get(kind, 0) + (0 if interval.tag.endswith(".ok") else interval.histogram.count)
    total = sum(map(len, told.seconds))
    first = sum(route == 0 for rows in told.seconds for route, *_ in rows)
    assert counts["response"] == counts["response by route"] == total
    assert counts["service by route"] == first


def test_a_route_that_the_recording_does_not_have_is_refused_at_once(tmp_path):
    with pytest.raises(
        UsageError, match=r"column 8: 'registraton' is not a route .* \(did you mean 'registration'"
    ):
        trial(tmp_path / "run", named=NAMED, slo=['p99 of "registraton" < 1s'])


def test_a_run_that_was_killed_has_the_windows_that_were_written(tmp_path):
    made = trial(tmp_path / "run", slo=["p90 < 5ms over 2s"])
    for second in range(6):
        for _ in range(10):
            made.lanes[0].request(0, service_ms=50.0 if second == 3 else 1.0)
        made.recorder.tick(at_s(second + 1))
    made.recorder.close()
    (outcome,) = document(Told(tmp_path / "run")).slo
    assert (outcome.passed, there(outcome.windows).count, there(outcome.windows).failed) == (False, 5, 2)


@pytest.mark.parametrize("damage", ["bytes", "fields"])
def test_an_objective_by_window_fails_if_a_line_before_the_last_is_damaged(
    tmp_path: Path, damage: str
) -> None:
    made = trial(tmp_path / "run", slo=["p99 < 1s over 2s"])
    for second in range(6):
        made.lanes[0].many(10)
        made.recorder.tick(at_s(second + 1))
    made.recorder.close()
    lines = made.folder.latency.read_bytes().splitlines(keepends=True)
    numbers = [number for number, text in enumerate(lines) if text.startswith(b"Tag=response.all,")]
    text = lines[numbers[2]]
    lines[numbers[2]] = text[:60] + b"!!!" + text[63:] if damage == "bytes" else text.replace(b",", b";")
    lines[numbers[2]] = lines[numbers[2]].replace(b"Tag=response.all;", b"Tag=response.all,")
    made.folder.latency.write_bytes(b"".join(lines))
    (outcome,) = document(Told(tmp_path / "run")).slo
    assert not outcome.passed and there(outcome.windows).failed == 0 and there(outcome.windows).damaged
    assert slo.words_of(outcome).endswith("(all 5 meet it), and a log of the run is damaged")


def test_windows_that_fail_before_the_damage_are_named_with_it(tmp_path: Path) -> None:
    made = trial(tmp_path / "run", slo=["p99 < 1ms over 1s"])
    for second in range(6):
        made.lanes[0].request(0, service_ms=50.0)
        made.recorder.tick(at_s(second + 1))
    made.recorder.close()
    lines = made.folder.latency.read_bytes().splitlines(keepends=True)
    numbers = [number for number, text in enumerate(lines) if text.startswith(b"Tag=response.all,")]
    lines[numbers[3]] = lines[numbers[3]][:60] + b"!!!" + lines[numbers[3]][63:]
    made.folder.latency.write_bytes(b"".join(lines))
    (outcome,) = document(Told(tmp_path / "run")).slo
    words = slo.words_of(outcome)
    assert "in the worst window that can be read" in words and "(5 of 5 fail)" in words
    assert words.endswith(", and a log of the run is damaged")


def test_a_damaged_log_has_no_windows_and_fails_what_asks_for_them(tmp_path):
    made = trial(tmp_path / "run", slo=["p99 < 1s over 2s", "p99 < 1s"])
    made.lanes[0].many(100)
    made.recorder.tick(at_s(1))
    made.folder.timeline.write_bytes(b"{damaged}\n")
    by_window, whole = made.recorder.finish(at_s(2)).slo
    assert (by_window.passed, by_window.value, whole.passed) == (False, None, True)
    assert slo.words_of(by_window) == "has no value: a log of the run is damaged"
