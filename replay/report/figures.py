"""The figures of an HTML page, by Bokeh: transparent, in colours that stand on light and dark alike."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    Legend,
    LogColorMapper,
    NumeralTickFormatter,
    Span,
    Whisker,
)
from bokeh.plotting import figure

from replay.comparison.decision import Finding
from replay.comparison.sides import Side
from replay.comparison.within_run import quantile_bounds
from replay.comparison.words import change_text
from replay.ledger.histogram import Histogram
from replay.results import hlog
from replay.results.run import Run
from replay.results.timeline import Second
from replay.units import format_latency

MS = 1e6
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#4c8dd6", "#e07b39", "#3fa55b", "#d9534f", "#9a6dd7", "#808892"
YELLOW = "#c2a633"
CYCLE = (RED, PURPLE, ORANGE, YELLOW, "#d65fa0", GREY, BLUE, GREEN, "#7a4b2a")
HEAT_STOPS = (
    (76, 141, 214, 40),
    (98, 116, 220, 150),
    (154, 92, 205, 220),
    (224, 84, 84, 245),
    (245, 170, 60, 255),
)
"""Red, green, blue, opacity: few requests let the page through, be it light or dark."""

FONT, FONT_SIZE = "system-ui, sans-serif", "12px"
SPECTRUM_STEPS = 24
"""Points of a spectrum for each factor of ten."""

COLUMNS_MAX, ROWS_PER_DECADE = 240, 16
SECONDS_MAX = 1_200
HEIGHT = 260


def new_figure(x: str, y: str, *, height: int = HEIGHT, **more: object) -> figure:
    """An empty figure in the page's colours."""
    plot = figure(
        height=height, sizing_mode="stretch_width", toolbar_location=None, tools="", x_axis_label=x, y_axis_label=y,
        background_fill_color=None, border_fill_color=None, outline_line_color=None, **more,
    )  # fmt: skip
    for axis in plot.axis:
        axis.axis_label_text_color = axis.major_label_text_color = GREY
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_size = axis.major_label_text_font_size = FONT_SIZE
        axis.axis_line_color = axis.major_tick_line_color = GREY
        axis.axis_line_alpha = axis.major_tick_line_alpha = 0.5
        axis.minor_tick_line_color = None
        axis.axis_label_text_font_style = "normal"
    plot.grid.grid_line_color, plot.grid.grid_line_alpha = GREY, 0.15
    return plot


def with_legend(plot: figure, *, columns: int = 1) -> figure:
    """The figure, its legend above it; a click on an entry hides its line."""
    for legend in plot.select(Legend):
        plot.center.remove(legend)
        plot.add_layout(legend, "above")
        legend.background_fill_color = legend.border_line_color = None
        legend.label_text_color, legend.label_text_font, legend.label_text_font_size = GREY, FONT, FONT_SIZE
        legend.click_policy, legend.spacing, legend.padding, legend.margin = "hide", 2, 0, 4
        legend.ncols = columns
    return plot


def latency_axis(plot: figure, low_ms: float, high_ms: float, at: Callable[[float], float] = float) -> None:
    """Name 1, 2 and 5 of every factor of ten between two latencies on the y axis, in their own units, `at` their places."""
    ticks = [
        mantissa * 10.0**power
        for power in range(math.floor(math.log10(low_ms)), math.ceil(math.log10(high_ms)) + 1)
        for mantissa in (1, 2, 5)
    ]
    ticks = [tick for tick in ticks if low_ms * 0.7 <= tick <= high_ms * 1.4]
    if len(ticks) > 9:
        ticks = [tick for tick in ticks if f"{tick:e}"[0] == "1"]
    plot.yaxis.ticker = FixedTicker(ticks=[at(tick) for tick in ticks])
    plot.yaxis.major_label_overrides = {at(tick): _plain(tick) for tick in ticks}


def _plain(ms: float) -> str:
    """`20 ms`, without the zeros that a measured figure has."""
    number, unit = format_latency(round(ms * MS)).split()
    return f"{float(number):g} {unit}"


def spectrum(lines: Sequence[tuple[str, Sequence[Histogram], float, str]]) -> figure | None:
    """Latency by 1/(1-p): a line for each (name, histograms, scale to ns, colour), and a band: what its runs span, or of one
    run the interval of its order statistics.
    """
    lines = [(name, [run for run in runs if run.count], scale, colour) for name, runs, scale, colour in lines]
    lines = [line for line in lines if line[1]]
    if not lines:
        return None
    plot = new_figure("percentile", "", x_axis_type="log", y_axis_type="log", height=380)
    low, high, rarest = math.inf, 0.0, 2.0
    for name, runs, scale, colour in lines:
        least = max(min(run.count for run in runs), 2)
        rarest = max(rarest, least)
        inverse = np.logspace(
            math.log10(1.1), math.log10(least), max(round(SPECTRUM_STEPS * math.log10(least)), 2)
        )
        source = _spectrum_source(runs, inverse, scale)
        low, high = min(low, float(source.data["low"].min())), max(high, float(source.data["high"].max()))
        total = sum(run.count for run in runs)
        label = f"{name}: {total:,} requests" + (f", {len(runs)} runs" if len(runs) > 1 else "")
        plot.varea("x", "low", "high", source=source, fill_color=colour, fill_alpha=0.22, legend_label=label)
        line = plot.line("x", "y", source=source, color=colour, line_width=2, legend_label=label)
        tips = [(name, "p@p{0.[0000]} is @y{0.[000]} ms (@low{0.[00]} to @high{0.[00]})")]
        plot.add_tools(HoverTool(renderers=[line], tooltips=tips, mode="vline"))
    nines = {
        10.0**power: f"p{100 * (1 - 10.0**-power):.10g}" for power in range(1, round(math.log10(rarest)) + 1)
    }
    plot.xaxis.ticker = FixedTicker(ticks=[2.0, *nines])
    plot.xaxis.major_label_overrides = {2.0: "p50"} | nines
    latency_axis(plot, low, high)
    return with_legend(plot)


def _spectrum_source(runs: Sequence[Histogram], inverse: np.ndarray, scale: float) -> ColumnDataSource:
    percentiles = [100.0 * (1 - 1 / x) for x in inverse]
    values = np.array([run.percentiles(percentiles) for run in runs], float)
    edges = values if len(runs) > 1 else np.array(quantile_bounds(runs[0], percentiles), float)
    values, edges = (np.maximum(rows * scale / MS, 1e-6) for rows in (values, edges))
    return ColumnDataSource(
        {
            "x": inverse, "p": percentiles, "y": np.exp(np.log(values).mean(axis=0)), "low": edges.min(axis=0),
            "high": edges.max(axis=0),
        }
    )  # fmt: skip


def heat_map(run: Run) -> figure | None:
    """How many requests had which response, over the seconds of the run; hotter where more, on a log scale."""
    columns, length_s = _heat_columns(run)
    if len(columns) < 2:
        return None
    first = min(int(bins[0]) for _, bins, _ in columns)
    last = max(int(bins[-1]) for _, bins, _ in columns)
    across = min(len(columns), COLUMNS_MAX)
    cells = np.zeros((last - first + 1, across), np.float32)
    for start_s, bins, counts in columns:
        np.add.at(cells[:, min(int(start_s / length_s * across), across - 1)], bins - first, counts)
    edges = 10.0 ** (np.arange(first, last + 2) / ROWS_PER_DECADE)
    low_log, high_log = first / ROWS_PER_DECADE, (last + 1) / ROWS_PER_DECADE
    plot = new_figure(
        "seconds since the start", "", y_range=(low_log, high_log), x_range=(0, length_s), height=300
    )
    latency_axis(plot, edges[0], edges[-1], math.log10)
    mapper = LogColorMapper(
        palette=_heat(64), low=1, high=max(float(cells.max()), 2.0), nan_color="rgba(0,0,0,0)"
    )
    of_cell = np.broadcast_to(edges[:-1, None], cells.shape).astype(np.float32)
    source = ColumnDataSource(
        {
            "count": [np.where(cells > 0, cells, np.nan)], "from": [of_cell],
            "to": [of_cell * np.float32(10 ** (1 / ROWS_PER_DECADE))],
        }
    )  # fmt: skip
    image = plot.image(
        "count", x=0, y=low_log, dw=length_s, dh=high_log - low_log, source=source, color_mapper=mapper
    )
    tips = [("", "@count{0,0} requests, @from{0.[00]} to @to{0.[00]} ms, at $x{0} s")]
    plot.add_tools(HoverTool(renderers=[image], tooltips=tips))
    plot.grid.grid_line_color = None
    bar = ColorBar(color_mapper=mapper, background_fill_color=None, width=8, padding=4, bar_line_color=None)
    bar.major_label_text_color, bar.major_label_text_font, bar.major_label_text_font_size = (
        GREY,
        FONT,
        FONT_SIZE,
    )
    bar.major_tick_line_color = None
    bar.formatter = NumeralTickFormatter(format="0,0")
    plot.add_layout(bar, "right")
    return plot


def _heat_columns(run: Run) -> tuple[list[tuple[float, np.ndarray, np.ndarray]], float]:
    """By interval: when it began, the rows that it has something in, how much; and how long it went in all."""
    if not run.folder.latency.exists():
        return [], 0.0
    kind = "service.all" if run.document.closed_loop else "response.all"
    log, columns, start_s, end_s = hlog.Log(run.folder.latency), [], math.inf, 0.0
    for interval in hlog.scan(log, lambda tag: tag == kind):
        histogram = interval.histogram
        at = np.flatnonzero(histogram.counts)
        if not at.size:
            continue
        ms = np.maximum(histogram.values()[at], 1) / MS
        bins = np.floor(np.log10(ms) * ROWS_PER_DECADE).astype(np.int64)
        used, place = np.unique(bins, return_inverse=True)
        columns.append((interval.start_s, used, np.bincount(place, histogram.counts[at].astype(float))))
        start_s, end_s = min(start_s, interval.start_s), max(end_s, interval.start_s + interval.length_s)
    return [(at_s - start_s, bins, counts) for at_s, bins, counts in columns], max(end_s - start_s, 1e-9)


def _heat(steps: int) -> list[str]:
    stops = np.array(HEAT_STOPS, float)
    at = np.linspace(0, len(stops) - 1, steps)
    bands = [np.interp(at, np.arange(len(stops)), stops[:, band]).astype(int) for band in range(4)]
    return [f"#{r:02x}{g:02x}{b:02x}{a:02x}" for r, g, b, a in zip(*bands, strict=True)]


def over_time(
    rows: Sequence[Second], series: Sequence[tuple[str, Callable[[Second], float | None], str]], unit: str
) -> figure | None:
    """Lines over the seconds of a run; each (name, its value of a row, colour), None where nothing happened."""
    rows = thinned(rows)
    drawn = [(name, [value(row) for row in rows], colour) for name, value, colour in series]
    drawn = [(name, values, colour) for name, values, colour in drawn if any(values)]
    if len(rows) < 2 or not drawn:
        return None
    plot = new_figure("seconds since the start", unit)
    plot.y_range.start = 0
    at = [row.t_s + row.length_s / 2 for row in rows]
    for name, values, colour in drawn:
        found = [math.nan if value is None else value for value in values]
        line = plot.line(at, found, color=colour, line_width=1.5, legend_label=name)
        plot.add_tools(HoverTool(renderers=[line], tooltips=[(name, "@y{0,0.[00]}")], mode="vline"))
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
    return with_legend(plot, columns=len(drawn))


def thinned(rows: Sequence[Second]) -> list[Second]:
    """At most SECONDS_MAX rows: of several, counts are added, and the worst latencies stand for all."""
    at_once = math.ceil(len(rows) / SECONDS_MAX)
    if at_once <= 1:
        return list(rows)
    return [_merged(rows[at : at + at_once]) for at in range(0, len(rows), at_once)]


def _merged(rows: Sequence[Second]) -> Second:
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
    return msgspec.structs.replace(rows[0], outcomes=outcomes, **worst, **added)


def rates(rows: Sequence[Second]) -> figure | None:
    """Requests due, sent and done a second."""

    def rate(field: str) -> Callable[[Second], float]:
        return lambda row: float(getattr(row, field)) / max(row.length_s, 1e-9)

    counts = [("due", BLUE, "planned"), ("sent", ORANGE, "sent"), ("done", GREEN, "ok")]
    return over_time(rows, [(name, rate(field), colour) for name, colour, field in counts], "a second")


def errors(rows: Sequence[Second], failed: Sequence[str]) -> figure | None:
    """Requests that a user would have seen fail, a second, on top of each other, by what became of them."""
    rows = thinned(rows)
    names = [name for name in failed if any(row.outcomes.get(name) for row in rows)]
    if not names:
        return None
    data: dict[str, list[float]] = {
        name: [row.outcomes.get(name, 0) / max(row.length_s, 1e-9) for row in rows] for name in names
    }
    data |= {"at": [row.t_s + row.length_s / 2 for row in rows], "width": [row.length_s for row in rows]}
    colours = [colour for name, colour in zip(failed, itertools.cycle(CYCLE), strict=False) if name in names]
    plot = new_figure("seconds since the start", "a second")
    plot.y_range.start = 0
    bars = plot.vbar_stack(
        names,
        x="at",
        width="width",
        source=ColumnDataSource(data),
        color=colours,
        line_color=None,
        legend_label=names,
    )
    for name, bar in zip(names, bars, strict=True):
        plot.add_tools(
            HoverTool(renderers=[bar], tooltips=[(name, f"@{{{name}}}{{0,0.[00]}} a second, at @at{{0}} s")])
        )
    return with_legend(plot, columns=min(len(names), 4))


def lateness_and_wait(rows: Sequence[Second]) -> figure | None:
    """How late the generator was, and how long requests waited for a connection: p99 of each second, ms."""
    series = [("lateness p99", in_ms("lateness_p99_ns"), BLUE), ("wait p99", in_ms("wait_p99_ns"), ORANGE)]
    return over_time(rows, series, "ms")


def in_ms(field: str) -> Callable[[Second], float | None]:
    """A latency of a second, for `over_time`."""
    return lambda row: None if (ns := getattr(row, field)) is None else ns / MS


def forest(findings: Sequence[Finding], tolerance: float) -> figure | None:
    """The change of each latency with its interval; dashed: the tolerance."""
    rows = [finding for finding in findings if finding.metric.is_latency]
    if not rows:
        return None
    finite = [abs(v) for f in rows for v in (f.change, f.low, f.high) if math.isfinite(v)]
    reach = 115 * max([tolerance, *finite])
    source = ColumnDataSource(
        {
            "name": [f"{finding.metric.where} {finding.metric.name}" for finding in rows][::-1],
            "at": list(range(len(rows))),
            "above": [at + 0.36 for at in range(len(rows))],
            "left": [-reach] * len(rows),
            "right": [reach] * len(rows),
            "change": [100 * finding.change for finding in rows][::-1],
            "low": [max(100 * finding.low, -reach) for finding in rows][::-1],
            "high": [min(100 * finding.high, reach) for finding in rows][::-1],
            "text": [_words(finding) for finding in rows][::-1],
            "said": [change_text(finding.change, finding.metric) for finding in rows][::-1],
            "colour": [_FINDING_COLOURS.get(finding.verdict, GREEN) for finding in rows][::-1],
        }
    )  # fmt: skip
    plot = new_figure(
        "slower by %",
        "",
        height=60 + 40 * len(rows),
        x_range=(-reach, reach),
        y_range=(-0.5, len(rows) - 0.3),
    )
    plot.yaxis.visible = False
    plot.ygrid.grid_line_color = None
    plot.add_layout(Span(location=0, dimension="height", line_color=GREY, line_width=1))
    for sign in (-1, 1):
        plot.add_layout(
            Span(location=sign * 100 * tolerance, dimension="height", line_color=GREY, line_dash="dashed")
        )
    plot.add_layout(
        Whisker(base="at", lower="low", upper="high", dimension="width", source=source, line_color="colour", line_width=3,
                upper_head=None, lower_head=None)
    )  # fmt: skip
    dots = plot.scatter("change", "at", source=source, size=11, color="colour")
    written = {
        "source": source,
        "text_font": {"value": FONT},
        "text_font_size": {"value": FONT_SIZE},
        "text_baseline": "middle",
    }
    plot.text("left", "above", "name", text_color=GREY, x_offset=2, **written)
    plot.text("right", "above", "said", text_color="colour", text_align="right", x_offset=-2, **written)
    plot.add_tools(HoverTool(renderers=[dots], tooltips=[("@name", "@text")]))
    return plot


_FINDING_COLOURS = {"REGRESSION": RED, "INCONCLUSIVE": YELLOW}


def _words(finding: Finding) -> str:
    figures = f"{format_latency(round(finding.base))} to {format_latency(round(finding.new))}"
    return f"{figures}, {change_text(finding.change, finding.metric)}"


def both_spectra(base: Side, new: Side, kind: str) -> figure | None:
    """The spectra of both builds: the geometric mean of each one's runs, and the band that they span."""
    lines = []
    for side, colour in ((base, BLUE), (new, ORANGE)):
        found = [run.measured.histogram(kind) for run in side.runs]
        lines.append((side.label, [h for h in found if h is not None], float(side.runs[0].scale), colour))
    return spectrum(lines)


def runs_in_order(base: Side, new: Side, kind: str) -> figure | None:
    """p50 and p99 of every run, in the order they were made: a drift, or one run apart, is seen here."""
    runs = [(run.started_ns, side, run) for side in (base, new) for run in side.runs]
    if len(runs) < 3 or any(started is None for started, _, _ in runs):
        return None
    runs.sort(key=lambda each: each[0] or 0)
    plot = new_figure("runs, in the order they were made", "", y_axis_type="log", height=280)
    values_ms = []
    for side, colour in ((base, BLUE), (new, ORANGE)):
        for percentile, filled in ((50.0, True), (99.0, False)):
            found = [
                (number, value.ns / MS, run.name)
                for number, (_, owner, run) in enumerate(runs, 1)
                if owner is side and (value := run.quantile(kind, percentile)) is not None
            ]
            if not found:
                continue
            at, ms, names = (list(column) for column in zip(*found, strict=True))
            values_ms += ms
            label = f"{side.label} p{percentile:g}"
            source = ColumnDataSource({"at": at, "ms": ms, "name": names})
            dots = plot.scatter(
                "at", "ms", source=source, size=9, line_color=colour, line_width=2, legend_label=label,
                fill_color=colour if filled else None,
            )  # fmt: skip
            plot.add_tools(HoverTool(renderers=[dots], tooltips=[("@name", f"{label} @ms{{0.[00]}} ms")]))
    if not values_ms:
        return None
    plot.xaxis.ticker.min_interval = 1
    latency_axis(plot, min(values_ms), max(values_ms))
    return with_legend(plot, columns=4)
