"""The latencies of each route over time, from the intervals of a run's own log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from replay.diagnosis.by_route import series_of
from replay.results.run import Run, load_run
from tests.support.metrics_data import ROUTES, at_s, trial

SECONDS = 12


def run_of(path: Path) -> Run:
    """Two routes: the first gets slow in its sixth second, the second fails from there on. The third is never asked."""
    made = trial(path)
    lane = made.lanes[0]
    for second in range(SECONDS):
        for at in range(10):
            due_ms = 1e3 * second + 50 * at
            lane.request(0, due_ms=due_ms, service_ms=100.0 if second >= 6 else 2.0)
            lane.request(1, "timeout" if second >= 6 and at < 5 else "2xx", due_ms=due_ms, service_ms=4.0)
            if second >= 6:
                lane.request(1, "refused", due_ms=due_ms, service_ms=0.1)
        made.recorder.tick(at_s(second + 1), last=second == SECONDS - 1)
    made.recorder.finish(at_s(SECONDS))
    return load_run(path)


def test_each_route_has_its_median_and_its_failures_by_window(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    edges, found = series_of(run, run.seconds())
    first, second = (next(route for route in found if route.route == name) for name in ROUTES[:2])
    assert edges.size == SECONDS
    assert first.ended.tolist() == [10] * SECONDS and first.failed.sum() == 0
    assert first.p50_ns[:6] == pytest.approx(np.full(6, 2.03e6), rel=0.02)
    assert first.p50_ns[6:] == pytest.approx(np.full(6, 100.03e6), rel=0.02)
    assert second.failed_share[:6].tolist() == [0.0] * 6
    assert second.failed_share[6:] == pytest.approx(np.full(6, 15 / 20))


def test_refusals_that_end_at_once_do_not_make_a_route_look_fast(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    second = next(route for route in series_of(run, run.seconds())[1] if route.route == ROUTES[1])
    assert second.p50_ns[6:] == pytest.approx(np.full(6, 4.03e6), rel=0.02)


def test_a_run_of_one_second_has_no_series(tmp_path: Path) -> None:
    made = trial(tmp_path / "run")
    made.lanes[0].request(0)
    made.recorder.finish(at_s(1))
    run = load_run(tmp_path / "run")
    edges, found = series_of(run, run.seconds()[:1])
    assert edges.size == 0 and found == []
