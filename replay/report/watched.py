"""Watched figures in reports: a chart of each figure with its limit, a table of all, and lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from replay.diagnosis.usage import LIMIT, Samples, Usage, refusals_of, usages_in, usages_of
from replay.results.document import RecordedClock, RunDocument, WatchFigures
from replay.results.timeline import Second
from replay.results.watched import values_of
from replay.units import counted, format_share

from .charts import BLUE, GREY, RED, Chart
from .facts import Fact
from .figures import over_time
from .html import Figure, html_table, named

CHARTS_SHOWN, LINES_SHOWN = 24, 12
"""How many figures are drawn, and how many a terminal lists.

If there are more, those that came nearest to a limit come first.
"""

NEAR = 0.8
"""If a terminal cannot list all figures, one that used at least this share of its limit is listed in any case."""

READING = "A figure from the target's side, sampled each second (long runs: the largest of several)."


def chart_of(
    rows: Sequence[Second], name: str, clock: RecordedClock | None, fixed_limit: float | None = None
) -> Chart | None:
    """Draw a watched figure, with its limit and its refusals if they are known; None as in `over_time`."""
    series = [(name, lambda row: row.watched.get(name), BLUE)]
    if any(row.watched.get(name + LIMIT) for row in rows):
        series.append((f"limit of {name}", lambda row: row.watched.get(name + LIMIT), GREY))
    elif fixed_limit is not None:
        series.append((f"limit of {name}", lambda row: fixed_limit, GREY))
    beside = refusals_of(name, values_of(rows))
    if beside and any(row.watched.get(beside) for row in rows):
        series.append((f"{beside}", lambda row: row.watched.get(beside), RED))
    return over_time(rows, series, "", clock, zero_counts=True)


def charts_of(
    rows: Sequence[Second],
    clock: RecordedClock | None,
    names: Sequence[str] = (),
    limits: Mapping[str, float] | None = None,
) -> list[Figure]:
    """Return a chart of each watched figure, at most CHARTS_SHOWN.

    `names` adds figures without a sample. `limits` are the constant limits.
    """
    values = values_of(rows) | {name: [] for name in names if not any(name in row.watched for row in rows)}
    usages = by_interest(usages_of(values, limits))
    nothing = "There is no sample, or the run was too short for a chart."
    return [
        Figure(
            f"Watched: {named(usage.name)}",
            READING,
            chart_of(rows, usage.name, clock, (limits or {}).get(usage.name)),
            nothing=nothing,
        )
        for usage in usages[:CHARTS_SHOWN]
    ]


def by_interest(usages: Sequence[Usage]) -> list[Usage]:
    """Return the figures in their order if all can be drawn.

    Otherwise those that came nearest to a limit come first, then those that moved most.
    """
    if len(usages) <= CHARTS_SHOWN:
        return list(usages)
    return sorted(usages, key=lambda usage: (-(usage.highest or 0.0), -_movement(usage.values)))


def _movement(values: Samples) -> float:
    known = [value for value in values if value is not None]
    return (max(known) - min(known)) / (abs(max(known, key=abs)) or 1.0) if known else 0.0


def table_of(document: RunDocument) -> str:
    """Return a table of every watched figure: its range, its limit, and when it changed. Empty if none was watched."""
    by_name = {figure.name: figure for figure in document.watches}
    rows = [_row(usage, by_name.get(usage.name)) for usage in usages_in(document)]
    heads = (
        "",
        "first",
        "lowest",
        "highest",
        "last",
        "limit",
        "most used",
        "refused",
        "changed",
        "samples failed",
    )
    return html_table(heads, rows, "Watched figures", long=(9,))


def _row(usage: Usage, figure: WatchFigures | None) -> list[str]:
    known = [value for value in usage.values if value is not None]
    limits = [limit for limit in usage.limits if limit is not None]
    refused = [count for count in usage.refused if count is not None]
    changed = None if figure is None else figure.changed_at_s
    failed = "" if figure is None or not figure.failed else f"{figure.failed:,}: {figure.reason}"
    range_ = [known[0], min(known), max(known), known[-1]] if known else []
    return [
        named(usage.name),
        *([f"{value:g}" for value in range_] or [""] * 4),
        f"{limits[-1]:g}" if limits else "",
        "" if usage.highest is None else format_share(usage.highest),
        f"{max(refused):g}" if refused else "",
        "" if changed is None else f"{changed:.0f} s",
        failed,
    ]


def facts_of_watched(document: RunDocument) -> Iterator[Fact]:
    """Yield lines about the watched figures.

    If there are more than LINES_SHOWN, only those are listed that failed, changed, or came near a limit: at most
    LINES_SHOWN, the nearest to a limit first.
    """
    usages = usages_in(document)
    by_name = {figure.name: figure for figure in document.watches}
    shown = usages
    if len(usages) > LINES_SHOWN:
        notable = [usage for usage in usages if _is_notable(usage, by_name.get(usage.name))]
        shown = sorted(notable, key=lambda usage: -(usage.highest or 0.0))[:LINES_SHOWN]
    for usage in shown:
        figure = by_name.get(usage.name)
        failed = figure is not None and bool(figure.failed)
        yield Fact("watched", f"{usage.name}: {_words(usage, figure)}", "yellow" if failed else "")
    if more := len(usages) - len(shown):
        yield Fact("", f"{counted(more, 'more figure')} in run.json")
    if document.watched_first:
        yield Fact("", document.watched_first, "yellow")


def _is_notable(usage: Usage, figure: WatchFigures | None) -> bool:
    changed = figure is not None and (figure.changed_at_s is not None or bool(figure.failed))
    return changed or (usage.highest or 0.0) >= NEAR


def _words(usage: Usage, figure: WatchFigures | None) -> str:
    known = [value for value in usage.values if value is not None]
    words = "no sample"
    if known:
        words = f"{known[0]:g} at the start, {known[-1]:g} at the end, from {min(known):g} to {max(known):g}"
    if usage.highest is not None:
        words += f"; up to {format_share(usage.highest)} of its limit"
    if figure is not None and figure.changed_at_s is not None:
        words += f"; changed at {figure.changed_at_s:.0f} s"
    if figure is not None and figure.failed:
        words += f"; {counted(figure.failed, 'sample')} failed: {figure.reason}"
    return words
