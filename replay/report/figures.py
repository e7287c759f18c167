"""The charts of a run, from its histograms and its timeline."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from replay.comparison.within_run import quantile_bounds
from replay.ledger.catalog import HISTOGRAMS
from replay.ledger.histogram import Histogram
from replay.results import hlog, slo
from replay.results.document import RecordedClock, RouteFigures, RunDocument
from replay.results.measured import FAILED
from replay.results.run import Run
from replay.results.timeline import Second
from replay.units import SECOND_NS, format_duration

from .axes import Axis, count_axis, latency_axis, percentile_label, time_axis
from .charts import BLUE, CYCLE, GREEN, ORANGE, RED, Chart, Series

SPECTRUM_STEPS = 16
"""How many points a percentile curve has per factor of ten."""

COLUMNS_MAX, ROWS_PER_DECADE = 90, 12
SECONDS_MAX = 200
ROUTES_BESIDE = 12
GOAL_ROOM = 4.0
"""The largest factor by which a chart of failures is enlarged to show the limit of an objective."""

HEAT = ("#6f97cf", "#6a72c9", "#8f5fd0", "#c2539b", "#e0583c", "#f0a53a")
"""Colors from low values to high ones, which work on light and dark backgrounds."""

Goal = tuple[str, float, float | None]
"""An objective in a chart: its text, its limit, and its percentile (None for a share of requests)."""

HeatColumn = tuple[float, np.ndarray, np.ndarray]
"""A column of a heat map: its start (s), the rows that contain requests, and their counts."""


def goals_of(document: RunDocument, metrics: Sequence[str]) -> list[Goal]:
    """Return the objectives for all requests that limit one of these metrics (`errors` for the share of errors)."""
    return goals_among([outcome.slo for outcome in document.slo], metrics)


def goals_among(objectives: Sequence[str], metrics: Sequence[str]) -> list[Goal]:
    """Return goals as `goals_of` does, for objectives that are given as text."""
    found: list[Goal] = []
    for text in objectives:
        parsed = slo.parse(text)
        if parsed.route:
            continue
        if parsed.percentile is not None and parsed.metric in metrics:
            found.append((text, parsed.limit, parsed.percentile))
        elif parsed.outcomes == FAILED and "errors" in metrics:
            found.append((text, parsed.limit, None))
    return found


def spectrum(
    lines: Sequence[tuple[str, Sequence[Histogram], float, str]], goals: Sequence[Goal] = (), title: str = ""
) -> Chart | None:
    """Draw latency by 1/(1-p). None without requests.

    Each (name, histograms, scale to ns, color) gives a line and a band. The band is the range of several runs, or
    the order-statistic interval of one run.
    """
    lines = [(name, [run for run in runs if run.count], scale, colour) for name, runs, scale, colour in lines]
    lines = [line for line in lines if line[1]]
    if not lines:
        return None
    drawn = [(name, runs, colour, *_quantiles(runs, scale)) for name, runs, scale, colour in lines]
    limits = [limit for _, limit, percentile in goals if percentile is not None]
    low = min([float(edges[0].min()) for *_, edges in drawn] + limits)
    high = max([float(edges[1].max()) for *_, edges in drawn] + limits)
    rarest = max(float(inverse[-1]) for _, _, _, inverse, _, _ in drawn)
    ticks = (2.0, *(10.0**power for power in range(1, max(round(math.log10(rarest)), 1) + 1)))
    across = Axis(
        1.1, max(rarest, 2.2), "percentile (each step is ten times as rare)", is_log=True, label=percentile_label,
        kind="percentile", fixed=ticks,
    )  # fmt: skip
    plot = Chart(across, latency_axis(low, high, title), height=300)
    for name, runs, colour, inverse, middle, (lower, upper) in drawn:
        total = sum(run.count for run in runs)
        label = f"{name}: {total:,} requests" + (f", {len(runs)} runs" if len(runs) > 1 else "")
        plot.band(list(zip(inverse, lower, upper, strict=True)), colour)
        plot.line(list(zip(inverse, middle, strict=True)), colour, label, width=2)
        plot.hover.append(Series(name, list(inverse), list(middle), "latency", colour))
    for words, limit, percentile in goals:
        if percentile is not None:
            until = 1 / (1 - percentile / 100) if percentile < 100 else across.high
            plot.rule_y(limit, RED, f"objective {words}", until)
    return plot


def _quantiles(
    runs: Sequence[Histogram], scale: float
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return 1/(1-p), the geometric mean of the runs' values there in ns, and the limits of the band."""
    least = max(min(run.count for run in runs), 2)
    steps = max(round(SPECTRUM_STEPS * math.log10(least)), 2)
    inverse = np.logspace(math.log10(1.1), math.log10(least), steps)
    percentiles = [100.0 * (1 - 1 / x) for x in inverse]
    values = np.array([run.percentiles(percentiles) for run in runs], float)
    edges = values if len(runs) > 1 else np.array(quantile_bounds(runs[0], percentiles), float)
    values, edges = (np.maximum(rows * scale, 1.0) for rows in (values, edges))
    return inverse, np.exp(np.log(values).mean(axis=0)), (edges.min(axis=0), edges.max(axis=0))


def heat_map(run: Run, rows: Sequence[Second]) -> Chart | None:
    """Draw the heat map of a run's response latency, or in a closed loop of the service time, as `heat_chart` does."""
    document = run.document
    columns, length_s = _heat_columns(run)
    kind = "service" if document.closed_loop else "response"
    return heat_chart(kind, columns, length_s, rows, document.recorded_clock, goals_of(document, (kind,)))


def heat_chart(
    kind: str,
    columns: Sequence[HeatColumn],
    length_s: float,
    rows: Sequence[Second],
    clock: RecordedClock | None,
    goals: Sequence[Goal],
) -> Chart | None:
    """Draw a heat map of latency over time, on a log scale. None with fewer than two columns.

    The color shows the number of requests. Lines show p50 and p99 of each second (in a long run, of the worst of
    several), and the objectives.
    """
    if len(columns) < 2:
        return None
    first = min(int(bins[0]) for _, bins, _ in columns)
    last = max(int(bins[-1]) for _, bins, _ in columns)
    edges = 10.0 ** (np.arange(first, last + 2) / ROWS_PER_DECADE)

    def counts(across: int) -> np.ndarray:
        made = np.zeros((last - first + 1, across))
        for start_s, bins, numbers in columns:
            np.add.at(made[:, min(int(start_s / length_s * across), across - 1)], bins - first, numbers)
        return made

    limits = [limit for _, limit, _ in goals]
    title = next((row.title for row in HISTOGRAMS if row.field == kind), kind)
    plot = Chart(
        time_axis(length_s, clock),
        latency_axis(min([edges[0], *limits]), max([edges[-1], *limits]), title),
        height=280,
    )
    across = min(len(columns), COLUMNS_MAX)
    plot.cells(lambda count: _levels(counts(count), edges), across)
    for colour, words in ((HEAT[0], "1 request"), (HEAT[-1], f"{int(counts(across).max()):,}")):
        plot.key(words, colour, "bar")
    _percentile_lines(plot, thinned(rows), kind, length_s)
    for words, limit, _ in goals:
        plot.rule_y(limit, RED, f"objective {words}")
    return plot


def _percentile_lines(plot: Chart, rows: Sequence[Second], kind: str, length_s: float) -> None:
    """Add lines for p50 and p99 of each row, which is a second, or in a long run the worst of several."""
    at = [min(row.t_s + row.length_s / 2, length_s) for row in rows]
    length = format_duration(round(rows[0].length_s) * SECOND_NS) if rows else ""
    which = "each second" if not rows or rows[0].length_s < 1.5 else f"the worst second in {length}"
    for name, dash in (("p99", None), ("p50", "2 3")):
        values = [_positive(getattr(row, f"{kind}_{name}_ns")) for row in rows]
        if any(value is not None for value in values):
            plot.halo_line(list(zip(at, values, strict=True)), f"{name} of {which}", dash=dash)
            plot.hover.append(Series(f"{kind} {name}", at, values, "latency"))
    plot.hover.append(Series("requests that ended", at, [float(_ended(row)) for row in rows]))


def _positive(value: int | None) -> float | None:
    return None if value is None else float(max(value, 1))


def _ended(row: Second) -> int:
    return sum(row.outcomes.values())


def _levels(cells: np.ndarray, edges: np.ndarray) -> list[tuple[str, list[tuple[int, float, float]]]]:
    """Return the cells of each color, on a log scale. Vertical neighbors of equal color are merged."""
    heat = np.log(np.maximum(cells, 1.0)) / math.log(max(float(cells.max()), 2.0))
    level = np.minimum((heat * len(HEAT)).astype(int), len(HEAT) - 1)
    level[cells == 0] = -1
    found: list[list[tuple[int, float, float]]] = [[] for _ in HEAT]
    for column in range(level.shape[1]):
        start = 0
        for row in range(1, level.shape[0] + 1):
            if row == level.shape[0] or level[row, column] != level[start, column]:
                if level[start, column] >= 0:
                    found[level[start, column]].append((column, float(edges[start]), float(edges[row])))
                start = row
    return [(colour, cell) for colour, cell in zip(HEAT, found, strict=True) if cell]


def _heat_columns(run: Run) -> tuple[list[HeatColumn], float]:
    """Return the column of each interval with requests, and the time that these intervals cover, in seconds.

    There are no columns if the run has no log of intervals.
    """
    if not run.folder.latency.exists():
        return [], 0.0
    kind = "service.all" if run.document.closed_loop else "response.all"
    log, columns, start_s, end_s = hlog.Log(run.folder.latency), [], math.inf, 0.0
    for interval in hlog.scan(log, lambda tag: tag == kind):
        histogram = interval.histogram
        used, counts = binned(histogram)
        if not used.size:
            continue
        columns.append((interval.start_s, used, counts))
        start_s, end_s = min(start_s, interval.start_s), max(end_s, interval.start_s + interval.length_s)
    return [(at_s - start_s, bins, counts) for at_s, bins, counts in columns], max(end_s - start_s, 1e-9)


def binned(
    histogram: Histogram, scale: float = 1.0, per_decade: int = ROWS_PER_DECADE
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bins of a log scale in which a histogram has values, and their counts.

    The scale has `per_decade` bins per factor of ten.
    """
    at = np.flatnonzero(histogram.counts)
    values = np.maximum(histogram.values()[at] * scale, 1.0)
    bins = np.floor(np.log10(values) * per_decade).astype(np.int64)
    used, place = np.unique(bins, return_inverse=True)
    return used, np.bincount(place, histogram.counts[at].astype(float))


def over_time(
    rows: Sequence[Second],
    series: Sequence[tuple[str, Callable[[Second], float | None], str]],
    title: str,
    clock: RecordedClock | None,
    unit: str = "number",
    *,
    zero_counts: bool = False,
) -> Chart | None:
    """Draw lines over the seconds of a run; None with fewer than two seconds, or if there is no line to draw.

    Each line is given as (name, function of a row, color). A line without values is not drawn, and one that is always
    0 only with `zero_counts`.
    """
    rows = thinned(rows)
    drawn = [(name, [value(row) for row in rows], colour) for name, value, colour in series]
    drawn = [
        (name, values, colour)
        for name, values, colour in drawn
        if any(value is not None if zero_counts else value for value in values)
    ]
    if len(rows) < 2 or not drawn:
        return None
    values = [value for _, row, _ in drawn for value in row if value is not None]
    if unit == "latency":
        up = latency_axis(min(max(value, 1.0) for value in values), max(values), title)
    else:
        up = count_axis(max(values), title, min(values))
    plot = Chart(time_axis(rows[-1].t_s + rows[-1].length_s, clock), up)
    at = [row.t_s + row.length_s / 2 for row in rows]
    for name, row, colour in drawn:
        plot.line(list(zip(at, row, strict=True)), colour, name)
        plot.hover.append(Series(name, at, row, unit, colour))
    return plot


def thinned(rows: Sequence[Second]) -> list[Second]:
    """Merge the rows into at most SECONDS_MAX rows, as `merged` does."""
    at_once = math.ceil(len(rows) / SECONDS_MAX)
    if at_once <= 1:
        return list(rows)
    return [merged(rows[at : at + at_once]) for at in range(0, len(rows), at_once)]


def merged(rows: Sequence[Second]) -> Second:
    """Merge several seconds into one row, for charts.

    The length and the requests planned, sent, ok and by outcome are added. The worst latencies and the largest samples
    are kept. All other figures, such as the requests in flight, are those of the first second.
    """
    outcomes: dict[str, int] = {}
    for row in rows:
        for name, count in row.outcomes.items():
            outcomes[name] = outcomes.get(name, 0) + count
    worst = {
        name: max((value for row in rows if (value := getattr(row, name)) is not None), default=None)
        for name in Second.__struct_fields__
        if name.endswith("_ns") and name != "wall_ns"
    }
    added = {name: sum(getattr(row, name) for row in rows) for name in ("planned", "sent", "ok", "length_s")}
    return msgspec.structs.replace(
        rows[0], outcomes=outcomes, watched=_largest_samples(rows), **worst, **added
    )


def _largest_samples(rows: Sequence[Second]) -> dict[str, float | None]:
    """Return the sample farthest from 0 of each watched figure, so that a short peak stays visible."""
    samples: dict[str, float | None] = {}
    for row in rows:
        for name, value in row.watched.items():
            known = samples.get(name)
            samples[name] = (
                value if known is None or (value is not None and abs(value) > abs(known)) else known
            )
    return samples


def rates(rows: Sequence[Second], clock: RecordedClock | None) -> Chart | None:
    """Draw the requests due, sent and answered per second; None as in `over_time`."""

    def rate(field: str) -> Callable[[Second], float]:
        return lambda row: float(getattr(row, field)) / max(row.length_s, 1e-9)

    counts = [("due", BLUE, "planned"), ("sent", ORANGE, "sent"), ("answered", GREEN, "ok")]
    series = [(name, rate(field), colour) for name, colour, field in counts]
    return over_time(rows, series, "requests per second", clock, "rate")


def errors(
    rows: Sequence[Second], failed: Sequence[str], clock: RecordedClock | None, goals: Sequence[Goal] = ()
) -> Chart | None:
    """Draw the failed requests per second, stacked by outcome, with the limits of objectives; None if none failed."""
    rows = thinned(rows)
    names = [name for name in failed if any(row.outcomes.get(name) for row in rows)]
    if not names:
        return None
    per_s = [{name: row.outcomes.get(name, 0) / max(row.length_s, 1e-9) for name in names} for row in rows]
    highest = max(sum(row.values()) for row in per_s)
    allowed = [
        (words, [limit * _ended(row) / max(row.length_s, 1e-9) for row in rows]) for words, limit, _ in goals
    ]
    near = [min(max(line), GOAL_ROOM * highest) for _, line in allowed if min(line) <= GOAL_ROOM * highest]
    plot = Chart(
        time_axis(rows[-1].t_s + rows[-1].length_s, clock),
        count_axis(max([highest, *near]), "failed requests per second"),
    )
    at = [row.t_s + row.length_s / 2 for row in rows]
    colours = dict(zip(failed, itertools.cycle(CYCLE), strict=False))
    for name in names:
        plot.key(name, colours[name], "bar")
    for last in range(len(names), 0, -1):
        tops = [sum(row[name] for name in names[:last]) for row in per_s]
        bars = [(row.t_s, row.t_s + row.length_s, top) for row, top in zip(rows, tops, strict=True)]
        plot.area(bars, colours[names[last - 1]], names[last - 1])
    for name in names:
        plot.hover.append(Series(name, at, [row[name] for row in per_s], "rate", colours[name]))
    for words, line in allowed:
        inside = [value if value <= plot.y.high else None for value in line]
        far = "" if any(value is not None for value in inside) else " (above this chart)"
        name = f"objective {words}, applied to each interval{far}"
        plot.halo_line(list(zip(at, inside, strict=True)), name, dash="6 4")
    return plot


def lag_and_wait(rows: Sequence[Second], clock: RecordedClock | None) -> Chart | None:
    """Draw p99 of the generator lag and of the wait for a connection in each second; None as in `over_time`."""
    series = [
        ("generator lag p99", latency_of("lateness_p99_ns"), BLUE),
        ("wait for a connection p99", latency_of("wait_p99_ns"), ORANGE),
    ]
    return over_time(rows, series, "", clock, "latency")


def latency_of(field: str) -> Callable[[Second], float | None]:
    """Return a function that returns a latency of a second, for `over_time`."""
    return lambda row: _positive(getattr(row, field))


def recorded_beside(routes: Sequence[RouteFigures]) -> Chart | None:
    """Draw p50 and p99 of the service time of the busiest routes, as recorded (rings) and as replayed (dots).

    None if no route has both.
    """
    rows = [
        route
        for route in routes
        if route.recorded is not None and route.recorded.p50_ns is not None and route.service is not None
    ][:ROUTES_BESIDE]
    if not rows:
        return None
    found: list[tuple[int, str, float, float]] = []
    for number, route in enumerate(rows):
        for name in ("p50", "p99"):
            then, now = getattr(route.recorded, f"{name}_ns"), getattr(route.service, f"{name}_ns")
            if then is not None and now is not None:
                found.append((number, name, float(max(then, 1)), float(max(now, 1))))
    values = [value for _, _, then, now in found for value in (then, now)]
    plot = Chart(
        latency_axis(min(values), max(values), "service time"),
        Axis(-len(rows) + 0.4, 0.6, bare=True),
        height=30 * len(rows) + 6,
        rows=[route.route for route in rows],
    )
    places = {"p50": 0.14, "p99": -0.14}
    for name, colour in (("p50", BLUE), ("p99", ORANGE)):
        joined: list[tuple[float, float | None]] = []
        for number, which, then, now in found:
            if which == name:
                y = places[name] - number
                joined += [(then, y), (now, y), (now, None)]
        plot.line(joined, colour, width=1.4)
    for kind, filled in (("recorded", False), ("replayed", True)):
        for name, colour in (("p50", BLUE), ("p99", ORANGE)):
            dots = [
                (now if filled else then, places[name] - number, "")
                for number, which, then, now in found
                if which == name
            ]
            plot.dots(dots, colour, f"{name} {kind}", filled=filled, size=8)
    return plot
