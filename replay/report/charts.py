"""Charts of all reports: marks on two axes, drawn as SVG when a page is written.

A chart collects marks in the units of its axes. `replay.report.drawing` draws it wide for screens and paper, and narrow
for phones; small charts are only drawn narrow. The page's script reads `Chart.data` to show the values under the
pointer. Without the script only this display is missing; the tables contain the figures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from replay.shown import shown

from .axes import Axis
from .svg import element, escape, number, path, paths

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#3d7fcc", "#d9702c", "#2f9950", "#d14a46", "#8f5fd0", "#77808b"
YELLOW, DARK, LIGHT = "#b08d16", "#222", "#eee"
CYCLE = (RED, PURPLE, ORANGE, YELLOW, "#c9529a", GREY, BLUE, GREEN, "#8a5a36", "#2a9d94")
"""Colors that work on light and dark backgrounds."""

WIDE, NARROW = 1000, 360
"""Widths in pixels of the two drawings of a chart."""

Place = Callable[[float], float]
"""Converts a value on an axis to its pixel."""

Mark = Callable[[Place, Place, float, float], str]
"""Draws a part of a chart as SVG.

The arguments convert x and y to pixels, and give the frame's width and height.
"""


Cells = Sequence[tuple[str, Sequence[tuple[int, float, float]]]]
CELL_WIDTH = 6
"""The smallest width of a heat map's column, in pixels."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values that are shown under the pointer: a name, and a value for each position on the x axis.

    A value is None if nothing was measured. `unit` selects how the script formats them: latency (ns), rate, share
    or number.
    """

    name: str
    at: Sequence[float]
    values: Sequence[float | None]
    unit: str = "number"
    colour: str = GREY


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of the legend."""

    name: str
    colour: str
    shape: str


@dataclass
class Chart:
    """A chart on two axes, to which the methods add marks. `label` describes it for screen readers."""

    x: Axis
    y: Axis
    label: str = ""
    height: int = 220
    rows: Sequence[str] = ()
    """Names of rows, which replace the labels of the y axis. Row n is at y = -n, so that row 0 is the topmost."""

    hover: list[Series] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    texts: list[tuple[str, float, float, str, str]] = field(default_factory=list)
    """Texts inside the frame: text, x, y, color, anchor."""
    keys: list[Key] = field(default_factory=list)

    def key(self, name: str, colour: str, shape: str = "line") -> None:
        """Add an entry to the legend, unless it has no name or is there already.

        The shapes are line, dash, halo, halo-dash, band, dot, ring and bar.
        """
        found = Key(name, colour, shape)
        if name and found not in self.keys:
            self.keys.append(found)

    def line(
        self,
        points: Sequence[tuple[float, float | None]],
        colour: str,
        name: str = "",
        *,
        width: float = 1.6,
        dash: str | None = None,
        fill: bool = False,
    ) -> None:
        """Add a line through points. A value of None interrupts it. `fill` tints the area below."""
        self.key(name, colour, "dash" if dash else "line")
        runs: list[list[tuple[float, float]]] = [[]]
        for at, value in points:
            if value is None or not math.isfinite(value):
                runs.append([])
            else:
                runs[-1].append((at, value))

        def draw(x: Place, y: Place, wide: float, high: float) -> str:
            drawn = [_thinned([(x(at), y(value)) for at, value in run]) for run in runs]
            return element(
                "path", d=paths(drawn), fill=colour if fill else "none", fill_opacity=".12" if fill else None, stroke=colour,
                stroke_width=width, stroke_dasharray=dash, stroke_linejoin="round", stroke_linecap="round",
                vector_effect="non-scaling-stroke",
            )  # fmt: skip

        self.marks.append(draw)

    def halo_line(
        self, points: Sequence[tuple[float, float | None]], name: str, *, dash: str | None = None
    ) -> None:
        """Add a light line with a dark edge, which is visible on any color."""
        self.line(points, DARK, width=3.4)
        self.line(points, LIGHT, width=1.4, dash=dash)
        self.key(name, LIGHT, "halo-dash" if dash else "halo")

    def band(
        self, points: Sequence[tuple[float, float, float]], colour: str, name: str = "", opacity: float = 0.2
    ) -> None:
        """Add the area between two lines, from points (x, low, high)."""
        self.key(name, colour, "band")

        def draw(x: Place, y: Place, wide: float, high: float) -> str:
            edge = [(x(at), y(top)) for at, _, top in points]
            edge += [(x(at), y(low)) for at, low, _ in reversed(points)]
            return element("path", d=path(edge) + "z", fill=colour, fill_opacity=opacity)

        self.marks.append(draw)

    def area(self, bars: Sequence[tuple[float, float, float]], colour: str, name: str = "") -> None:
        """Add adjacent bars, each as (from x, to x, y), as one shape."""
        self.key(name, colour, "bar")

        def draw(x: Place, y: Place, wide: float, high: float) -> str:
            edge = [(x(bars[0][0]), high)]
            for left, right, top in bars:
                edge += [(x(left), y(top)), (x(right), y(top))]
            edge.append((x(bars[-1][1]), high))
            return element("path", d=path(edge) + "z", fill=colour)

        self.marks.append(draw)

    def dots(
        self,
        dots: Sequence[tuple[float, float, str]],
        colour: str,
        name: str = "",
        *,
        filled: bool = True,
        size: float = 9,
    ) -> None:
        """Add a dot for each (x, y, label), either filled or as a ring."""
        self.key(name, colour, "dot" if filled else "ring")

        def draw(x: Place, y: Place, wide: float, high: float) -> str:
            if filled and not any(words for _, _, words in dots):
                steps = "".join(f"M{number(x(at))} {number(y(value))}h0" for at, value, _ in dots)
                return element("path", d=steps, stroke=colour, stroke_width=size, stroke_linecap="round")
            look = {"r": size / 2 - 1, "fill": colour if filled else "none", "pointer_events": "all"}
            drawn = []
            for at, value, words in dots:
                says = element("title", escape(words)) if words else ""
                drawn.append(element("circle", says, cx=float(x(at)), cy=float(y(value)), **look))
            return element("g", *drawn, stroke=colour, stroke_width=1.8)

        self.marks.append(draw)

    def cells(self, cells_of: Callable[[int], Cells], columns: int) -> None:
        """Add a heat map.

        `cells_of(n)` returns, for each color, the cells of a map with n columns, as (column, from y, to y).
        """

        def draw(x: Place, y: Place, wide: float, high: float) -> str:
            count = min(columns, int(wide / CELL_WIDTH))
            width, drawn = wide / count, []
            for colour, cells in cells_of(count):
                steps, at_x, at_y = [], 0, 0
                for column, low, top in cells:
                    to_x, up, down = round(10 * (column + 0.5) * width), round(y(top)), round(y(low))
                    high_px = max(down - up, 1)
                    across, along = number((to_x - at_x) / 10), str(up - at_y)
                    steps.append(f"m{across}{along if along[0] == '-' else ' ' + along}v{high_px}")
                    at_x, at_y = to_x, up + high_px
                drawn.append(element("path", d="".join(steps), stroke=colour))
            return element("g", *drawn, stroke_width=f"{width + 0.5:.1f}", shape_rendering="crispEdges")

        self.marks.append(draw)

    def shade(self, left: float, right: float, colour: str, name: str = "", opacity: float = 0.12) -> None:
        """Shade a part of the x axis over the whole height."""
        self.key(name, colour, "band")

        def draw(x: Place, y: Place, wide: float, high: float) -> str:
            return element(
                "rect", x=float(x(left)), y="0", width=max(x(right) - x(left), 0.0), height=float(high), fill=colour,
                fill_opacity=opacity,
            )  # fmt: skip

        self.marks.insert(0, draw)

    def rule_x(self, at: float, colour: str = GREY, name: str = "", dash: str | None = "5 4") -> None:
        """Add a vertical line from top to bottom."""
        self.line([(at, self.y.low), (at, self.y.high)], colour, name, width=1.3, dash=dash)

    def rule_y(
        self, at: float, colour: str, name: str, until: float | None = None, *, named_left: bool = False
    ) -> None:
        """Add a horizontal line, such as an objective.

        With `until` the line ends there, and a vertical line connects its end with the axis.
        """
        end = self.x.high if until is None else min(max(until, self.x.low), self.x.high)
        drop = [(end, self.y.low)] if until is not None else []
        self.line([(self.x.low, at), (end, at), *drop], colour, width=1.4, dash="6 4")
        self.texts.append(
            (name, self.x.low if named_left else end, at, colour, "start" if named_left else "end")
        )

    def words(self, at: float, value: float, words: str, colour: str = GREY, anchor: str = "start") -> None:
        """Add text inside the frame, just above a position."""
        self.texts.append((words, at, value, colour, anchor))

    def data(self) -> str:
        """Return the values under the pointer as JSON for the page's script; empty if there are none.

        The text is safe inside a page.
        """
        if not self.hover:
            return ""
        shared = self.hover[0].at
        axis: dict[str, object] = {
            "low": self.x.low, "high": self.x.high, "log": int(self.x.is_log), "kind": self.x.kind,
            "zoom": int(self.x.kind in ("time", "percentile")),
        }  # fmt: skip
        if self.x.clock is not None:
            clock = self.x.clock
            axis |= {"start": clock.start_ns / 1e9 + clock.utc_offset_s, "speed": clock.speed}
        series = [
            {
                "n": shown(each.name),
                "u": each.unit,
                "c": each.colour,
                "v": [_short(value) for value in each.values],
            }
            | ({} if each.at is shared else {"at": [_short(at, 6) for at in each.at]})
            for each in self.hover
        ]
        made = {"x": axis, "at": [_short(at, 6) for at in shared], "s": series}
        return json.dumps(made, separators=(",", ":")).replace("<", "\\u003c")


def _short(value: float | None, digits: int = 3) -> float | int | None:
    """Return a value for JSON with no more digits than are shown; None if it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}") if abs(value) < 1e6 or digits > 3 else float(f"{value:.4g}")
    return int(short) if short == int(short) else short


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Reduce a line of at least 500 points, given in pixels; shorter ones are unchanged.

    Each pixel column keeps its first, highest, lowest and last point.
    """
    if len(points) < 500:
        return points
    kept: list[tuple[float, float]] = []
    column: list[tuple[float, float]] = []
    for point in [*points, (math.inf, 0.0)]:
        if column and (point[0] == math.inf or int(point[0]) != int(column[0][0])):
            wanted = {0, len(column) - 1}
            wanted |= {ends(range(len(column)), key=lambda at: column[at][1]) for ends in (min, max)}
            kept += [column[at] for at in sorted(wanted)]
            column = []
        column.append(point)
    return kept
