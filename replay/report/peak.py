"""A climb as one HTML page: load against latency and failures, on the way up and on the way down."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..peak.climb import Climb
from ..peak.search import Trial
from ..units import format_latency, format_rate, format_share
from .figures import BLUE, GREEN, MS, ORANGE, new_figure, with_legend
from .html import html_table, write_page

_STAGES = {"up": BLUE, "hold": GREEN, "down": ORANGE}


def trial_cells(trial: Trial) -> list[str]:
    """A trial in words: stage, load, rate, p50, p99, failed, objectives."""
    said = "generator limited" if trial.generator_limited else "met" if trial.ok else "missed"
    if not trial.ok and not trial.generator_limited:
        said += " " + ", ".join(goal for goal, passed in trial.passed.items() if not passed)
    return [
        trial.stage,
        f"{trial.load:.3g}",
        format_rate(trial.rate_per_s),
        *("-" if value is None else format_latency(value) for value in (trial.p50_ns, trial.p99_ns)),
        format_share(trial.failed_share),
        said,
    ]


def in_order(trials: Sequence[Trial]) -> list[Trial]:
    """The way up by load, then what came after it as it came."""
    up = sorted((trial for trial in trials if trial.stage == "up"), key=lambda trial: trial.load)
    return [*up, *(trial for trial in trials if trial.stage != "up")]


def _plot(trials: Sequence[Trial], label: str, value: Any) -> Any:
    """Load against a figure of each trial, a line a stage."""
    plot = new_figure("times the recording", label, x_axis_type="log")
    for stage, colour in _STAGES.items():
        chosen = [trial for trial in trials if trial.stage == stage and value(trial) is not None]
        if chosen:
            loads, values = [trial.load for trial in chosen], [value(trial) for trial in chosen]
            plot.line(loads, values, color=colour, legend_label=stage, line_width=1.5)
            plot.scatter(loads, values, color=colour, legend_label=stage, size=7)
    return with_legend(plot)


def write_peak_page(found: Climb, sentence: str, path: Path) -> None:
    """Write the page to `path`. OutputError where it cannot be."""
    trials = in_order(found.trials)
    head = f"<h1>{escape(found.verdict)}</h1><p>{escape(sentence)}</p>"
    names = ("", "times", "rate", "p50", "p99", "failed", "objectives")
    plots = {
        "p99 by load, ms": _plot(trials, "p99, ms", lambda trial: trial.p99_ns and trial.p99_ns / MS),
        "Failed by load, %": _plot(trials, "failed, %", lambda trial: 100 * trial.failed_share),
    }
    write_page(
        path, "Peak", head, [plots, html_table(names, [trial_cells(trial) for trial in trials], "Trials")]
    )
