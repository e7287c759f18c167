"""Timelines and interval logs of several agents, summed by second of the common clock.

Agents count their seconds from the same instant, so second k of the whole run is the sum of every agent's second
k. Counts are added. Percentiles are computed from the sum of the histograms, because percentiles cannot be added
or averaged.
"""

from __future__ import annotations

import heapq
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from replay.ledger.catalog import EACH_SECOND_COUNTERS, FIGURES, PERCENTILES
from replay.ledger.histogram import Histogram, Layout
from replay.ledger.percentiles import values_at
from replay.results import hlog
from replay.results.action_counts import added
from replay.results.folder import AppendFile, RunFolder, read_rows
from replay.results.timeline import Second
from replay.units import SECOND_NS, counted

from .parts import Part

_SETTLED_S = 2.5
"""A merged line is complete when it ended this long before the line that is being read."""

_COUNTS = (
    "planned", "sent", "ok", "error", "timeout", "unsent", "unsent_of_target", "bytes_sent", "bytes_received",
    "status_worse", "unknown_4xx", *EACH_SECOND_COUNTERS,
)  # fmt: skip
_LEVELS = ("in_flight", "waiting", "open")

Figures = dict[int, dict[str, int]]
"""Percentiles of each second, by their names in the timeline."""

Watched = Mapping[int, dict[str, float | None]]
"""Samples of watched figures, by the number of the second, from 1."""


def merge_logs(parts: Sequence[Part], out: RunFolder, wall_ns: int, watched: Watched) -> list[str]:
    """Write latency.hlog and timeline.jsonl of the whole run, and describe what could not be read.

    `watched` are the samples of the coordinator.
    """
    log = AppendFile(out.latency)
    timeline = AppendFile(out.timeline)
    problems: list[str] = []
    try:
        log.append(hlog.header(wall_ns))
        figures: Figures = {}
        for text in merged_lines(parts, figures, problems):
            log.append(text)
        for row in merged_rows(parts, figures, wall_ns, watched):
            timeline.append(msgspec.json.encode(row) + b"\n")
    finally:
        log.close()
        timeline.close()
    return problems


class _Line(NamedTuple):
    """A line of one agent's log; times are in seconds since the common instant."""

    end_s: float
    start_s: float
    tag: str
    histogram: Histogram


@dataclass
class _Sum:
    """The sum of the lines with the same tag and second."""

    start_s: float
    end_s: float
    layout: Layout
    counts: np.ndarray = field(repr=False)

    def add(self, line: _Line) -> None:
        self.start_s = min(self.start_s, line.start_s)
        self.end_s = max(self.end_s, line.end_s)
        self.counts += line.histogram.counts


def merged_lines(parts: Sequence[Part], figures: Figures, problems: list[str]) -> Iterator[bytes]:
    """Yield the lines of the merged log, and add the percentiles of each second to `figures`.

    Lines of one tag whose starts round to the same second are merged, if their layouts are equal and the merged line
    is not written yet. Every value is in exactly one line, whatever the errors of the clocks. `problems` gets a
    sentence for each log with lines that cannot be read.
    """
    opened: dict[tuple[str, int], _Sum] = {}
    checked_s = 0.0
    for line in heapq.merge(*(_lines(part, problems) for part in parts), key=lambda line: line.end_s):
        if line.end_s > checked_s + 1:
            checked_s = line.end_s
            yield from _closed(opened, figures, checked_s - _SETTLED_S)
        key = line.tag, max(round(line.start_s), 0)
        found = opened.get(key)
        if found is not None and found.layout == line.histogram.layout:
            found.add(line)
            continue
        if found is not None:
            yield from _closed({key: found}, figures, float("inf"))
        counts = line.histogram.counts.astype(np.uint64)
        opened[key] = _Sum(line.start_s, line.end_s, line.histogram.layout, counts)
    yield from _closed(opened, figures, float("inf"))


def _lines(part: Part, problems: list[str]) -> Iterator[_Line]:
    log = hlog.Log(part.folder.latency)
    for interval in hlog.scan(log, lambda tag: True):
        start_s = interval.start_s - (log.base_s or 0.0) + part.shift_s
        yield _Line(start_s + interval.length_s, start_s, interval.tag, interval.histogram)
    if log.problem_count:
        lines = counted(log.problem_count, "line")
        problems.append(f"{lines} of {part.folder.latency} could not be read ({log.problems[0]})")


def _closed(opened: dict[tuple[str, int], _Sum], figures: Figures, before_s: float) -> Iterator[bytes]:
    """Remove and yield the lines that ended before this time, and add their percentiles to `figures`."""
    done = sorted(
        ((one.end_s, key) for key, one in opened.items() if one.end_s < before_s), key=lambda pair: pair
    )
    for _, key in done:
        one = opened.pop(key)
        histogram = Histogram(one.counts, one.layout)
        _note_figures(*key, histogram, figures)
        yield hlog.line(key[0], max(one.start_s, 0.0), one.end_s - max(one.start_s, 0.0), histogram)


def _note_figures(tag: str, second: int, histogram: Histogram, figures: Figures) -> None:
    wanted = {name: at for name, (of, at) in FIGURES.items() if of == tag}
    if not wanted or not histogram.count:
        return
    values = values_at(histogram.counts, histogram.layout.half, histogram.count, list(PERCENTILES.values()))
    figures.setdefault(second, {}).update({name: values[at] for name, at in wanted.items()})


def merged_rows(parts: Sequence[Part], figures: Figures, wall_ns: int, watched: Watched) -> Iterator[Second]:
    """Yield the rows of the whole run's timeline, without gaps between them."""
    by_second: dict[int, list[tuple[Part, list[Second]]]] = {}
    for part in parts:
        own: dict[int, list[Second]] = {}
        for row in read_rows(part.folder.timeline, Second):
            own.setdefault(max(round(row.t_s + part.shift_s), 0), []).append(row)
        for second, rows in own.items():
            by_second.setdefault(second, []).append((part, rows))
    start_s = 0.0
    for second in sorted(by_second):
        rows_of = by_second[second]
        ends = [rows[-1].t_s + rows[-1].length_s + part.shift_s for part, rows in rows_of]
        end_s = max(statistics.median(ends), start_s + 0.001)
        of_agents = [own for _, own in rows_of]
        samples = watched.get(second + 1)
        yield sum_of_rows(of_agents, start_s, end_s, figures.get(second, {}), wall_ns, samples)
        start_s = round(end_s, 3)


def sum_of_rows(
    of_agents: Sequence[Sequence[Second]], start_s: float, end_s: float, figures: dict[str, int], wall_ns: int,
    watched: dict[str, float | None] | None = None,
) -> Second:  # fmt: skip
    """Return one row of the whole run from the rows of each agent.

    `watched` are the coordinator's own samples; without them, those of the agents are used. Both ends are rounded
    before the length is computed, so that the row ends where the next one begins.
    """
    start_s, end_s = round(start_s, 3), round(end_s, 3)
    rows = [row for own in of_agents for row in own]
    last = [own[-1] for own in of_agents]
    outcomes = _sums(row.outcomes for row in rows)
    measured = _sums(row.measured for row in rows)
    fields: dict[str, Any] = {name: sum(getattr(row, name) for row in rows) for name in _COUNTS}
    fields |= {name: sum(getattr(row, name) for row in last) for name in _LEVELS}
    return Second(
        t_s=start_s,
        length_s=round(end_s - start_s, 3),
        wall_ns=wall_ns + round(start_s * SECOND_NS),
        outcomes=outcomes,
        outcomes_measured=None if measured == outcomes else measured,
        lag=_largest(row.lag for row in last),
        watched=_first_known(row.watched for row in last) if watched is None else watched,
        actions=added(row.actions for row in rows),
        **fields,
        **figures,
    )


def _sums(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _largest(lags: Iterable[dict[str, int]]) -> dict[str, int]:
    """Return the lag of each partition: the largest one if several agents consume it."""
    found: dict[str, int] = {}
    for lag in lags:
        for name, count in lag.items():
            found[name] = max(count, found.get(name, 0))
    return found


def _first_known(watched: Iterable[dict[str, float | None]]) -> dict[str, float | None]:
    """Combine the samples of the target's own figures.

    All agents sample the same target, so the first known value of each figure is used.
    """
    found: dict[str, float | None] = {}
    for one in watched:
        for name, value in one.items():
            if found.get(name) is None:
                found[name] = value
    return found
