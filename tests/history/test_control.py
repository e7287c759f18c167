"""The control workload: what it measures, and when a move of it makes a step doubtful."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from replay.history.change_points import Series, find_steps
from replay.ledger import control_workload
from replay.ledger.control_workload import control_ns

RUNS = 40


def found(control: np.ndarray, size: float, seed: int = 1) -> list[str]:
    """The doubts of the steps in 40 runs whose level changes by `size` at the 20th; an empty one is an alarm."""
    values = np.random.default_rng(seed).normal(0, 0.02, (RUNS, 3))
    values[20:] += size
    builds, floors = [str(number) for number in range(RUNS)], np.full(3, 1e-3)
    return [step.doubt for step in find_steps(Series(values, builds, ["one"] * RUNS, control, floors))]


def test_a_noisy_control_workload_hides_no_step() -> None:
    """Its noise is five times the step: it moves by as much between any few runs."""
    for seed in range(5):
        control = np.random.default_rng(seed + 100).normal(0, 0.5, RUNS)
        assert found(control, 0.1, seed) == [""], seed


def test_a_control_workload_that_moved_with_the_runs_makes_the_step_doubtful() -> None:
    for noise in (0.0, 0.002, 0.01):
        control = np.where(np.arange(RUNS) >= 20, 0.1, 0.0) + np.random.default_rng(2).normal(0, noise, RUNS)
        assert "" not in found(control, 0.1), noise


def test_a_measurement_is_kept_for_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAY_CACHE", str(tmp_path))
    control_workload._kept.cache_clear()
    first = control_ns()
    control_workload._kept.cache_clear()
    assert control_ns() == first > 0
    (kept,) = (tmp_path / "replay").iterdir()
    kept.write_text("damaged")
    control_workload._kept.cache_clear()
    assert control_ns() > 0 and kept.read_text() != "damaged"
    control_workload._kept.cache_clear()


def test_time_in_which_it_does_not_run_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 ms of sleep in each repetition, as if other programs had the core, are no work."""
    alone, real = control_workload._measured(), control_workload.zlib.compress

    def slow(data: bytes, level: int) -> bytes:
        time.sleep(0.05)
        return real(data, level)

    monkeypatch.setattr(control_workload.zlib, "compress", slow)
    assert control_workload._measured() < alone + 25_000_000
