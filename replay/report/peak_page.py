"""The page of a climb (load against latency and failures, ascending and descending), and that of a surge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from replay.peaks.climb import Climb
from replay.peaks.recovery import WATCH_TIMES, Recovery
from replay.peaks.search import Trial
from replay.results import slo
from replay.results.measured import FAILED
from replay.results.run import Run
from replay.units import format_rate

from .axes import Axis, Label, count_axis, latency_axis, padded, plain_label, times_label
from .charts import BLUE, GREEN, GREY, ORANGE, RED, Chart
from .figures import errors, latency_of, over_time, rates
from .html import Figure, Section, headline, html_table, write_page
from .peak import TRIAL_HEADS, climb_facts, in_order, surge_facts, trial_cells

_STAGES = {"up": (BLUE, "ascending"), "hold": (GREEN, "held"), "down": (ORANGE, "descending")}


def _load_plot(
    found: Climb,
    title: str,
    value: Callable[[Trial], float | None],
    *,
    is_latency: bool = False,
    label: Label = plain_label,
) -> Chart | None:
    """A figure against load: each trial as a dot, and for each direction a line through the median at each load."""
    shown = [(trial, at) for trial in in_order(found.trials) if (at := value(trial)) is not None]
    if not shown:
        return None
    loads, values = [trial.load for trial, _ in shown], [at for _, at in shown]
    low, high = padded(min(loads), max(loads), is_log=True, by=0.04)
    across = Axis(low, high, "load: times the recording", is_log=True, label=times_label)
    limits = _limits(found) if is_latency else []
    up = latency_axis(min(values), max(values), title) if is_latency else count_axis(max(values), title)
    if is_latency and limits:
        up = latency_axis(min([*values, *limits]), max([*values, *limits]), title)
    plot = Chart(across, up if is_latency else Axis(0.0, up.high, title, label=label))
    if found.peak and not math.isinf(found.above):
        plot.shade(min(found.above, high), high, RED, "objectives missed", opacity=0.08)
        plot.rule_x(found.peak, GREEN, "peak")
    for stage, (colour, words) in _STAGES.items():
        chosen = [(trial, at) for trial, at in shown if trial.stage == stage]
        if chosen:
            _stage(plot, chosen, colour, words)
    return plot


def _stage(plot: Chart, chosen: Sequence[tuple[Trial, float]], colour: str, words: str) -> None:
    """Add the trials of one direction: filled dots for those that met every objective, rings for the others."""
    by_load: dict[float, list[float]] = {}
    for trial, at in chosen:
        by_load.setdefault(trial.load, []).append(at)
    line = sorted((load, median(values)) for load, values in by_load.items())
    if len(line) > 1:
        plot.line(line, colour, width=1.6)
    for is_met in (True, False):
        dots = [
            (trial.load, at, f"{trial.load:.3g}×, {format_rate(trial.rate_per_s)}: {trial_cells(trial)[-1]}")
            for trial, at in chosen
            if trial.ok == is_met
        ]
        plot.dots(dots, colour, words if is_met else "", filled=is_met, size=8)


def _limits(found: Climb) -> list[float]:
    """The limits of objectives on the response that a chart can show."""
    return [limit for _, limit, _ in _goals(found)]


def _goals(found: Climb) -> list[tuple[str, float, float]]:
    texts = list(found.trials[0].passed) if found.trials else []
    parsed = [slo.parse(text) for text in texts if _is_objective(text)]
    return [
        (each.text, each.limit, each.percentile)
        for each in parsed
        if each.percentile is not None and not each.route and each.metric == "response"
    ]


def _is_objective(text: str) -> bool:
    try:
        slo.parse(text)
    except Exception:
        return False
    return True


def _latency(found: Climb, percentile: float) -> Chart | None:
    """A percentile of the response against load, with the objectives on that percentile."""
    field = f"p{percentile:g}_ns"

    def ns(trial: Trial) -> float | None:
        value = getattr(trial, field)
        return None if value is None else float(max(value, 1))

    plot = _load_plot(found, f"response p{percentile:g}", ns, is_latency=True)
    for words, limit, of in _goals(found):
        if plot is not None and of == percentile:
            plot.rule_y(limit, RED, f"objective {words}", named_left=True)
    return plot


def _failed(found: Climb) -> str:
    """Why the result is a failure although a peak was found; empty if it is not."""
    if found.recovery == "DID_NOT_RECOVER":
        return "FAILED: the target did not recover from the overload"
    return "The peak could not be held" if found.held is False and found.held_load is None else ""


def _percent(value: float, step: float) -> tuple[str, ...]:
    return (f"{plain_label(value, step)[0]}%",)


def write_peak_page(found: Climb, sentence: str, path: Path, before: Sequence[tuple[str, str]] = ()) -> None:
    """Write the page to `path`, with the facts in `before` above the results. OutputError if that fails."""
    trials = in_order(found.trials)
    notes = [f"{name}: {words}" for name, words in [*before, *climb_facts(found)]]
    has_failures = any(trial.failed_share for trial in trials)
    failed = (
        _load_plot(found, "failed", lambda trial: 100 * trial.failed_share, label=_percent)
        if has_failures
        else None
    )
    good = _load_plot(found, "good responses per second", lambda trial: trial.done_per_s)
    reading = "Filled dots are trials that met every objective, rings are trials that did not. Lines join the medians."
    sections: list[Section] = [
        headline(found.verdict, sentence, notes, failed=_failed(found)),
        Figure("p99 of the response by load", reading, _latency(found, 99)),
        Figure("p50 of the response by load", "", _latency(found, 50)),
        Figure("Failed requests by load", "", failed, nothing="No request failed."),
        Figure("Good responses by load", "", good),
        html_table(TRIAL_HEADS, [trial_cells(trial) for trial in trials], "Trials", long=(6,)),
    ]
    write_page(path, "replay: peak", "The highest load that meets the objectives", sections)


def write_surge_page(
    found: Recovery,
    run: Run,
    times: float,
    trigger_ns: int,
    path: Path,
    before: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the page of a surge to `path`, with the facts in `before` above. OutputError if that fails."""
    facts = surge_facts(found, times, trigger_ns)
    rows, clock = run.seconds(), run.document.recorded_clock
    series = [("p99", latency_of("response_p99_ns"), ORANGE), ("p50", latency_of("response_p50_ns"), BLUE)]
    in_flight = [("in flight", lambda row: float(row.in_flight), BLUE)]
    made = {
        "Due, sent and answered": rates(rows, clock),
        "Response over time": over_time(rows, series, "response", clock, "latency"),
        "Requests in flight": over_time(rows, in_flight, "requests", clock),
        "Failed requests": errors(rows, FAILED, clock),
    }
    from_s = trigger_ns / 1e9
    for plot in made.values():
        if plot is not None:
            _mark_surge(plot, from_s, 2 * from_s, found.after_s)
    sentence = facts[0][1]
    notes = [f"{name}: {words}" for name, words in [*before, *facts[1:-1]]]
    if found.verdict == "RECOVERED":
        sentence += f"; the target was as before {found.after_s:.0f} s after its end"
    elif found.verdict == "DID_NOT_RECOVER":
        sentence += f"; {WATCH_TIMES * from_s:.0f} s after its end the target was not as before"
    elif found.verdict == "UNSTEADY":
        sentence += "; the target could not sustain the baseline either"
    figures = [Figure(name, "", plot, nothing="None.") for name, plot in made.items()]
    write_page(
        path, "replay: surge", "Recovery from a surge", [headline(found.verdict, sentence, notes), *figures]
    )


def _mark_surge(plot: Chart, from_s: float, until_s: float, after_s: float | None) -> None:
    plot.shade(from_s, until_s, GREY, "the surge")
    if after_s is not None:
        plot.rule_x(until_s + after_s, GREEN, "as before the surge from here on")
