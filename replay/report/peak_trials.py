"""The trials of a search for the peak as text, and their order in tables and charts."""

from __future__ import annotations

from collections.abc import Sequence

from replay.peaks.search import Trial
from replay.units import format_latency, format_rate, format_share

TRIAL_HEADS = ("", "load", "rate", "p50", "p99", "failed", "objectives")


def trial_cells(trial: Trial) -> list[str]:
    """Return the cells of a trial: stage, load, rate, p50, p99, failed, objectives."""
    outcome = "generator limited" if trial.generator_limited else "met" if trial.ok else "missed"
    if not trial.ok and not trial.generator_limited:
        missed = ", ".join(goal for goal, passed in trial.passed.items() if not passed)
        outcome += f": {trial.status_failure}" if trial.status_failure else f" {missed}"
    return [
        trial.stage,
        f"{trial.load:.3g}",
        format_rate(trial.rate_per_s),
        *("-" if value is None else format_latency(value) for value in (trial.p50_ns, trial.p99_ns)),
        format_share(trial.failed_share),
        outcome,
    ]


def trial_line(trial: Trial) -> str:
    """Return a trial as the line that reports its end."""
    stage, load, rate, p50, p99, failed, outcome = trial_cells(trial)
    return f"{stage} {load} times, {rate}: p50 {p50}, p99 {p99}, {failed} failed: {outcome}"


def in_order(trials: Sequence[Trial]) -> list[Trial]:
    """Return the ascending trials by load, then the held and descending ones in their order. Probes are left out."""
    up = sorted((trial for trial in trials if trial.stage == "up"), key=lambda trial: trial.load)
    return [*up, *(trial for trial in trials if trial.stage in ("hold", "down"))]
