"""Watched figures of a search for the peak: by load, over time in a hold, and which one changed first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replay.diagnosis.usage import fixed_limits
from replay.peaks.climb import Climb
from replay.peaks.first_change import RunOf
from replay.peaks.search import Trial
from replay.peaks.watched import Sampled
from replay.results.run import Run
from replay.units import counted

from .charts import BLUE, ORANGE
from .figures import latency_of, over_time
from .html import Figure, Section, html_table, named
from .page import Page
from .peak_figures import watched_by_load
from .peak_trials import in_order
from .watched import charts_of

COLUMNS_SHOWN, CHARTS_SHOWN = 8, 24
"""How many figures the tables list, and how many are drawn by load.

If there are more than COLUMNS_SHOWN, those that came nearest to a limit come first, then those that differ most
between trials.
"""

READING = "The mean of each trial, and its highest sample in brackets."


def watched_names(found: Climb) -> list[str]:
    """Return the names of the watched figures; sorted by `_interest` if a table cannot show all."""
    names = list(dict.fromkeys(name for trial in found.trials for name in trial.watched))
    if len(names) <= COLUMNS_SHOWN:
        return names
    return sorted(names, key=lambda name: _interest(found, name), reverse=True)


def _interest(found: Climb, name: str) -> tuple[float, float]:
    """Return the largest share of its limit that a figure reached, and how much its means differ."""
    figures = [trial.watched[name] for trial in found.trials if name in trial.watched]
    means = [figure.mean for figure in figures if figure.mean is not None]
    largest = max(map(abs, means), default=0.0)
    used = max((figure.used for figure in figures if figure.used is not None), default=0.0)
    return used, (max(means) - min(means)) / largest if largest else 0.0


def watched_facts(found: Climb) -> Iterator[tuple[str, str]]:
    """Yield what changed first in each trial that missed an objective, and how many samples of each figure failed."""
    for number, change in enumerate(found.first_changes):
        stage = "held at " if change.stage == "hold" else "at "
        words = change.words or "no watched figure is known to have changed before an objective was missed"
        yield "watched" if number == 0 else "", f"{stage}{change.load:.3g} times: {words}"
    for name in watched_names(found):
        figures = [trial.watched[name] for trial in found.trials if name in trial.watched]
        if failed := sum(figure.failed for figure in figures):
            reason = next(figure.reason for figure in figures if figure.failed)
            yield "", f"{name}: {counted(failed, 'sample')} failed: {reason}"


def print_watched(page: Page, found: Climb) -> None:
    """Print a table of at most COLUMNS_SHOWN watched figures, unless nothing was watched."""
    names = watched_names(found)
    if not names:
        return
    page.title("Watched figures")
    page.say(READING, "dim")
    heads = [("", "name"), *((name, "right") for name in names[:COLUMNS_SHOWN])]
    page.table(
        heads, [[f"{each.stage} {each.load:.3g}", *_cells(each, names)] for each in in_order(found.trials)]
    )
    if more := len(names[COLUMNS_SHOWN:]):
        page.say(f"{counted(more, 'more figure')} in peak.json", "dim")


def _cells(trial: Trial, names: Sequence[str]) -> list[str]:
    return [_cell(trial.watched.get(name)) for name in names[:COLUMNS_SHOWN]]


def _cell(figure: Sampled | None) -> str:
    if figure is None or figure.mean is None or figure.highest is None:
        return "-"
    return f"{figure.mean:.4g} ({figure.highest:.4g})"


def watched_sections(found: Climb, run_of: RunOf | None) -> list[Section]:
    """Return the sections of a page: charts by load, a table, and charts over time.

    There are at most CHARTS_SHOWN charts by load, and the table has at most COLUMNS_SHOWN figures. The charts over time
    show the last hold and a trial that missed an objective.
    """
    names = watched_names(found)
    made: list[Section] = [
        Figure(
            f"Watched: {named(name)}, by load",
            "",
            watched_by_load(found, name),
            nothing="The figure has no sample.",
        )
        for name in names[:CHARTS_SHOWN]
    ]
    heads = ("", "load", *(named(name) for name in names[:COLUMNS_SHOWN]))
    rows = [[each.stage, f"{each.load:.3g}", *_cells(each, names)] for each in in_order(found.trials)]
    if names:
        made.append(html_table(heads, rows, "Watched figures", reading=READING))
        if more := len(names[COLUMNS_SHOWN:]):
            made.append(f'<p class="soft">{counted(more, "more figure")} in peak.json.</p>')
    for trial, words in _over_time(found) if run_of is not None else ():
        made += _on_its_clock(run_of(trial.run), words)  # type: ignore[misc]
    return made


def _over_time(found: Climb) -> list[tuple[Trial, str]]:
    """Return the trials that are drawn over time, with their titles.

    They are the last hold, and the first trial in which a watched figure changed before an objective was missed.
    """
    watched = [trial for trial in found.trials if trial.watched and trial.run]
    holds = [trial for trial in watched if trial.stage == "hold"]
    chosen = [(trial, f"The hold at load {trial.load:.3g}") for trial in holds[-1:]]
    first = next((change.run for change in found.first_changes if change.words), "")
    missed = [trial for trial in watched if trial.run == first and trial not in holds[-1:]]
    return [
        *chosen,
        *((trial, f"A trial that missed an objective, at load {trial.load:.3g}") for trial in missed),
    ]


def _on_its_clock(run: Run, words: str) -> list[Section]:
    """Return the response of a trial over time, and its watched figures below it on the same clock."""
    rows, document = run.seconds(), run.document
    series = [("p99", latency_of("response_p99_ns"), ORANGE), ("p50", latency_of("response_p50_ns"), BLUE)]
    response = over_time(rows, series, "response", document.recorded_clock, "latency")
    return [
        Figure(
            f"{words}: response", "p50 and p99 of each second (long runs: the worst of several).", response
        ),
        *charts_of(rows, document.recorded_clock, list(document.watched), fixed_limits(document)),
    ]
