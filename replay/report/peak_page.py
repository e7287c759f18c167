"""The page of a search for the peak, which shows figures by load, and the page of a surge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replay.diagnosis.usage import fixed_limits
from replay.peaks.climb import Climb
from replay.peaks.first_change import RunOf
from replay.peaks.recovery import WATCH_TIMES, Recovery
from replay.results.measured import FAILED
from replay.results.run import Run

from .charts import BLUE, GREEN, GREY, ORANGE, Chart
from .figures import errors, latency_of, over_time, rates
from .html import Figure, Section, headline, html_table, write_page
from .peak import climb_facts, surge_facts
from .peak_figures import failed_by_load, good_by_load, latency_by_load
from .peak_trials import TRIAL_HEADS, in_order, trial_cells
from .peak_watched import watched_sections
from .watched import charts_of, table_of


def _notes(facts: Sequence[tuple[str, str]]) -> list[str]:
    """Return facts as lines. A fact without a name continues the previous one."""
    return [f"{name}: {words}" if name else words for name, words in facts]


def _failed(found: Climb) -> str:
    """Return a failure besides the verdict: no recovery, or a peak that could not be held; empty if there is none."""
    if found.recovery == "DID_NOT_RECOVER":
        return "FAILED: the target did not recover from the overload"
    return "The peak could not be held" if found.held is False and found.held_load is None else ""


def write_peak_page(
    found: Climb,
    sentence: str,
    path: Path,
    before: Sequence[tuple[str, str]] = (),
    run_of: RunOf | None = None,
) -> None:
    """Write the page of a search to `path`. Raise OutputError if that fails.

    The facts in `before` are above the results. `run_of` reads the run of a trial; without it, no trial is drawn
    over time.
    """
    trials = in_order(found.trials)
    notes = _notes([*before, *climb_facts(found)])
    reading = (
        "A filled dot is a trial that met every objective, a ring one that did not. Lines join the medians."
    )
    sections: list[Section] = [
        headline(found.verdict, sentence, notes, failed=_failed(found)),
        Figure("p99 of the response by load", reading, latency_by_load(found, 99)),
        Figure("p50 of the response by load", "", latency_by_load(found, 50)),
        Figure("Failed requests by load", "", failed_by_load(found), nothing="No request failed."),
        Figure("Good responses by load", "", good_by_load(found)),
        *watched_sections(found, run_of),
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
    """Write the page of a surge to `path`, with the facts in `before` above. Raise OutputError if that fails."""
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
    notes = _notes([*before, *facts[1:-1]])
    notes += [run.document.watched_first] if run.document.watched_first else []
    if found.verdict == "RECOVERED":
        sentence += f"; the target was back at the baseline {found.after_s:.0f} s after the surge"
    elif found.verdict == "DID_NOT_RECOVER":
        sentence += f"; {WATCH_TIMES * from_s:.0f} s after the surge the target was not back at the baseline"
    elif found.verdict == "UNKNOWN":
        sentence += "; too few responses before the surge to know the baseline"
    elif found.verdict == "UNSTEADY":
        sentence += "; the target could not sustain even the baseline"
    watched = charts_of(rows, clock, list(run.document.watched), fixed_limits(run.document))
    for figure in watched:
        if figure.plot is not None:
            _mark_surge(figure.plot, from_s, 2 * from_s, found.after_s)
    sections: list[Section] = [
        headline(found.verdict, sentence, notes),
        *(Figure(name, "", plot, nothing="There is nothing to draw.") for name, plot in made.items()),
        *watched,
        table_of(run.document),
    ]
    write_page(path, "replay: surge", "Recovery from a surge", sections)


def _mark_surge(plot: Chart, from_s: float, until_s: float, after_s: float | None) -> None:
    plot.shade(from_s, until_s, GREY, "the surge")
    if after_s is not None:
        plot.rule_x(until_s + after_s, GREEN, "back at the baseline from here on")
