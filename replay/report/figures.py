"""The figures of an HTML page, by Bokeh: transparent, in colours that stand on light and dark alike."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    LogColorMapper,
    LogTicker,
    NumeralTickFormatter,
    Span,
    Whisker,
)
from bokeh.plotting import figure

from ..compare.decision import Finding
from ..compare.sides import Side
from ..compare.words import change_text
from ..results import hlog
from ..results.histogram import Histogram
from ..results.run import Run
from ..results.timeline import Second
from ..units import format_latency

MS = 1e6
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#4c8dd6", "#e07b39", "#3fa55b", "#d9534f", "#9a6dd7", "#8a929c"
CYCLE = (RED, PURPLE, ORANGE, "#c2a633", "#d65fa0", GREY, BLUE, GREEN, "#7a4b2a")
HEAT = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.linspace((76, 141, 214), (224, 60, 57), 64).astype(int)]
SPECTRUM_STEPS = 16
"""Points of a spectrum for each factor of ten."""

COLUMNS_MAX, ROWS_PER_DECADE = 240, 12
HEIGHT = 280


def new_figure(x: str, y: str, *, height: int = HEIGHT, **more: object) -> figure:
    """An empty figure in the page's colours."""
    plot = figure(
        height=height, sizing_mode="stretch_width", toolbar_location=None, tools="", x_axis_label=x, y_axis_label=y,
        background_fill_color=None, border_fill_color=None, outline_line_color=None, **more,
    )  # fmt: skip
    for axis in plot.axis:
        axis.axis_label_text_color = axis.major_label_text_color = GREY
        axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = GREY
        axis.axis_label_text_font_style = "normal"
    if more.get("y_axis_type") == "log":
        plot.yaxis.ticker = LogTicker(mantissas=[1, 2, 5])
        plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    plot.grid.grid_line_color, plot.grid.grid_line_alpha = GREY, 0.2
    return plot


def with_legend(plot: figure, *, at: str = "top_left") -> figure:
    """The figure, its legend without a box; a click on an entry hides its line."""
    legend = plot.legend
    legend.location, legend.background_fill_color, legend.border_line_color = at, None, None
    legend.label_text_color, legend.click_policy, legend.spacing = GREY, "hide", 0
    return plot


def spectrum(lines: Sequence[tuple[str, Sequence[Histogram], float, str]]) -> figure | None:
    """Latency by 1/(1-p): a line for each (name, histograms, scale to ns, colour), and the band that its runs span."""
    plot = new_figure("1 request in ...", "ms", x_axis_type="log", y_axis_type="log", height=360)
    drawn = False
    for name, runs, scale, colour in lines:
        runs = [run for run in runs if run.count]
        if not runs:
            continue
        drawn = True
        least = min(run.count for run in runs)
        inverse = np.logspace(
            0, math.log10(max(least, 2)), max(round(SPECTRUM_STEPS * math.log10(max(least, 2))), 2)
        )
        percentiles = [100.0 * (1 - 1 / x) for x in inverse]
        values = np.array([run.percentiles(percentiles) for run in runs], float) * scale / MS
        values = np.maximum(values, 1e-6)
        source = ColumnDataSource(
            {
                "x": inverse, "p": percentiles, "y": np.exp(np.log(values).mean(axis=0)),
                "low": values.min(axis=0), "high": values.max(axis=0),
            }
        )  # fmt: skip
        total = sum(run.count for run in runs)
        label = f"{name} ({total:,} requests" + (f", {len(runs)} runs)" if len(runs) > 1 else ")")
        line = plot.line("x", "y", source=source, color=colour, line_width=2, legend_label=label)
        if len(runs) > 1:
            plot.varea(
                "x", "low", "high", source=source, fill_color=colour, fill_alpha=0.2, legend_label=label
            )
        plot.add_tools(
            HoverTool(renderers=[line], tooltips=[(name, "p@p{0.[0000]}: @y{0.[000]} ms")], mode="vline")
        )
    if not drawn:
        return None
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    return with_legend(plot)


def heat_map(run: Run) -> figure | None:
    """How many requests had which response, over the seconds of the run; darker where more, on a log scale."""
    log = hlog.read_hlog(run.folder.latency) if run.folder.latency.exists() else None
    kind = "service.all" if run.document.closed_loop else "response.all"
    rows = [interval for interval in log.intervals if interval.tag == kind] if log else []
    used = [(interval, np.flatnonzero(interval.counts)) for interval in rows]
    used = [(interval, at) for interval, at in used if at.size]
    if len(used) < 2:
        return None
    start, end = min(i.start_s for i, _ in used), max(i.start_s + i.length_s for i, _ in used)
    values = np.maximum(used[0][0].histogram.values(), 1) / MS
    low, high = values[min(at[0] for _, at in used)], values[max(at[-1] for _, at in used)]
    bins = max(math.ceil(ROWS_PER_DECADE * math.log10(max(high / low, 1.3))), 4)
    edges = np.logspace(math.log10(low), math.log10(high * 1.001), bins + 1)
    columns = min(len(used), COLUMNS_MAX)
    cells = np.zeros((bins, columns))
    for interval, at in used:
        column = min(int((interval.start_s - start) / max(end - start, 1e-9) * columns), columns - 1)
        rows_of = np.clip(np.searchsorted(edges, values[at], "right") - 1, 0, bins - 1)
        np.add.at(cells[:, column], rows_of, interval.counts[at].astype(float))
    row, col = np.nonzero(cells)
    width = (end - start) / columns
    source = ColumnDataSource(
        {
            "left": col * width, "right": (col + 1) * width, "bottom": edges[row], "top": edges[row + 1],
            "count": cells[row, col],
        }
    )  # fmt: skip
    plot = new_figure("seconds since the start", "ms", y_axis_type="log")
    mapper = LogColorMapper(palette=HEAT, low=1, high=max(float(cells.max()), 2.0))
    quads = plot.quad(
        "left",
        "right",
        "bottom",
        "top",
        source=source,
        line_color=None,
        fill_color={"field": "count", "transform": mapper},
    )
    plot.add_tools(
        HoverTool(
            renderers=[quads], tooltips=[("", "@count{0,0} requests, @bottom{0.[00]} to @top{0.[00]} ms")]
        )
    )
    bar = ColorBar(color_mapper=mapper, background_fill_color=None, width=8, title="requests")
    bar.major_label_text_color = bar.title_text_color = GREY
    bar.formatter = NumeralTickFormatter(format="0,0")
    plot.add_layout(bar, "right")
    return plot


def over_time(
    rows: Sequence[Second], series: Sequence[tuple[str, Sequence[float | None], str]], unit: str
) -> figure | None:
    """Lines over the seconds of a run; each (name, values, colour), None where nothing happened."""
    series = [(name, values, colour) for name, values, colour in series if any(value for value in values)]
    if len(rows) < 2 or not series:
        return None
    plot = new_figure("seconds since the start", unit)
    at = [row.t_s for row in rows]
    for name, values, colour in series:
        found = [math.nan if value is None else value for value in values]
        line = plot.line(at, found, color=colour, line_width=1.5, legend_label=name)
        plot.add_tools(HoverTool(renderers=[line], tooltips=[(name, "@y{0,0.[00]}")], mode="vline"))
    return with_legend(plot)


def rates(rows: Sequence[Second]) -> figure | None:
    """Requests due, sent and done a second."""
    counts = [("due", BLUE, "planned"), ("sent", ORANGE, "sent"), ("done", GREEN, "ok")]
    series = [
        (name, [getattr(row, field) / max(row.length_s, 1e-9) for row in rows], colour)
        for name, colour, field in counts
    ]
    return over_time(rows, series, "a second")


def errors(rows: Sequence[Second], failed: Sequence[str]) -> figure | None:
    """Requests that a user would have seen fail, a second, by what became of them."""
    series = [
        (name, [row.outcomes.get(name, 0) / max(row.length_s, 1e-9) for row in rows], colour)
        for name, colour in zip(failed, itertools.cycle(CYCLE), strict=False)
    ]
    return over_time(rows, series, "a second")


def lateness_and_wait(rows: Sequence[Second]) -> figure | None:
    """How late the generator was, and how long requests waited for a connection: p99 of each second, ms."""
    names = [("lateness p99", "lateness_p99_ns", BLUE), ("wait p99", "wait_p99_ns", ORANGE)]

    def ms(field: str) -> list[float | None]:
        return [None if (ns := getattr(row, field)) is None else ns / MS for row in rows]

    return over_time(rows, [(name, ms(field), colour) for name, field, colour in names], "ms")


def forest(findings: Sequence[Finding], tolerance: float) -> figure | None:
    """The change of each latency with its interval; dashed: the tolerance."""
    rows = [finding for finding in findings if finding.metric.is_latency]
    if not rows:
        return None
    names = [f"{finding.metric.where} {finding.metric.name}" for finding in rows][::-1]
    reach = (
        max([tolerance, *(abs(v) for f in rows for v in (f.change, f.low, f.high) if math.isfinite(v))]) * 115
    )
    source = ColumnDataSource(
        {
            "name": names,
            "at": list(range(len(names))),
            "change": [100 * finding.change for finding in rows][::-1],
            "low": [max(100 * finding.low, -reach) for finding in rows][::-1],
            "high": [min(100 * finding.high, reach) for finding in rows][::-1],
            "text": [_words(finding) for finding in rows][::-1],
            "colour": [{"REGRESSION": RED, "INCONCLUSIVE": "#c2a633"}.get(finding.verdict, GREEN) for finding in rows][::-1],
        }
    )  # fmt: skip
    plot = new_figure(
        "slower by %",
        "",
        height=70 + 26 * len(rows),
        x_range=(-reach, reach),
        y_range=(-0.6, len(rows) - 0.4),
    )
    plot.yaxis.ticker = FixedTicker(ticks=list(range(len(names))))
    plot.yaxis.major_label_overrides = dict(enumerate(names))
    plot.add_layout(Span(location=0, dimension="height", line_color=GREY, line_width=1))
    for sign in (-1, 1):
        plot.add_layout(
            Span(location=sign * 100 * tolerance, dimension="height", line_color=GREY, line_dash="dashed")
        )
    plot.add_layout(
        Whisker(base="at", lower="low", upper="high", dimension="width", source=source, line_color="colour", line_width=2,
                upper_head=None, lower_head=None)
    )  # fmt: skip
    dots = plot.scatter("change", "at", source=source, size=9, color="colour")
    plot.add_tools(HoverTool(renderers=[dots], tooltips=[("@name", "@text")]))
    return plot


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
