"""Draws a chart at one width: measures the labels, then draws the frame and its content."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from replay.shown import shown

from .axes import Axis, Tick
from .charts import DARK, GREY, WIDE, Chart, Key, Place
from .fit import shortened
from .svg import FONT_SIZE, LINE, element, escape, number, text, text_width

Fits = Callable[[Sequence[tuple[float, Tick]], float], bool]
"""Returns whether the labels at these pixels fit on an axis of this length without overlapping."""


def draw(chart: Chart, width: int = WIDE, *, hidden: bool = False) -> str:
    """Return the chart as SVG, `width` pixels wide. With `hidden`, it is invisible until a style sheet shows it."""
    return _Drawing(chart, width).svg(hidden)


class _Drawing:
    """The state of one drawing: the chart, its width, and the measured labels."""

    def __init__(self, chart: Chart, width: int) -> None:
        self._chart, self._width = chart, width
        self._legend, self._top = self._placed_legend()
        self._height = chart.height if width >= WIDE or chart.rows else round(chart.height * 0.9)
        self._rows = self._row_names()
        self._y_ticks = self._fitting(chart.y, self._height, self._fits_up)
        widest = max((text_width(tick.words[0]) for tick in self._y_ticks), default=0.0)
        self._left = round(min(max([widest, *(text_width(name) for name in self._rows)]) + 10, 0.45 * width))
        self._right = round(width - 14)
        self._x_ticks = self._fitting(chart.x, self._right - self._left, self._fits_across)
        self._labels = max((len(tick.words) for tick in self._x_ticks), default=0)

    def _row_names(self) -> list[str]:
        most = int(0.42 * self._width / (0.6 * FONT_SIZE))
        return [shortened(shown(name), most) for name in self._chart.rows]

    def _placed_legend(self) -> tuple[list[tuple[float, float, Key]], float]:
        """Return the legend entries with their positions, in as many rows as needed, and the top of the frame."""
        placed, x, line = [], 0.0, 0
        title = self._chart.y.title
        if title:
            x = text_width(title) + 18
        for key in self._chart.keys:
            length = 24 + text_width(key.name) + 14
            if x + length > self._width and x > 0:
                x, line = 0.0, line + 1
            placed.append((x, line * (LINE + 2.0), key))
            x += length
        lines = line + 1 if placed or title else 0
        return placed, lines * (LINE + 2.0) + 8

    def _fitting(self, axis: Axis, length: float, fits: Fits) -> list[Tick]:
        """Return the first set of ticks that fits.

        If none fits, return the largest part of a set that does.
        """
        kept: list[Tick] = []
        for ticks in axis.ticks():
            if fits([(axis.share(tick.value) * length, tick) for tick in ticks], length):
                return ticks
            kept = max(kept, _spaced(axis, ticks, length, fits), key=len)
        return kept

    def _fits_up(self, placed: Sequence[tuple[float, Tick]], length: float) -> bool:
        at = sorted(place for place, _ in placed)
        return all(after - before >= LINE + 2 for before, after in itertools.pairwise(at))

    def _fits_across(self, placed: Sequence[tuple[float, Tick]], length: float) -> bool:
        spans = [_span(place, tick, length) for place, tick in placed]
        return all(left >= right + 10 for (_, right), (left, _) in itertools.pairwise(spans))

    def svg(self, hidden: bool) -> str:
        """Return the whole picture as an SVG element."""
        chart, left, top = self._chart, self._left, self._top
        wide, high = self._right - left, self._height
        title = self._axis_title()
        total = round(top + high + 9 + LINE * self._labels + LINE * len(title) + 4)

        def x(value: float) -> float:
            return chart.x.share(value) * wide

        def y(value: float) -> float:
            return (1 - chart.y.share(value)) * high

        frame = element(
            "svg", element("g", *(mark(x, y, wide, high) for mark in chart.marks)), class_="plot", x=left,
            y=number(top), width=wide, height=high, viewBox=f"0 0 {wide} {high}", preserveAspectRatio="none",
            overflow="hidden",
        )  # fmt: skip
        title_element = element("title", escape(chart.label)) if chart.label else ""
        ticks = element("g", self._bottom(x, title), class_="ticks", text_anchor="middle")
        return element(
            "svg", title_element, self._heads(), self._grid(x, y), frame, self._words(x, y), ticks,
            xmlns="http://www.w3.org/2000/svg", class_=self._class(hidden), display="none" if hidden else None,
            role="img", width=self._width, height=total, viewBox=f"0 0 {self._width} {total}",
            font_family="system-ui,sans-serif", font_size=FONT_SIZE, fill=GREY,
        )  # fmt: skip

    def _class(self, hidden: bool) -> str:
        """Return the CSS class by which the style sheet shows the picture.

        `wide` is shown on screens, `narrow` on phones, and `single` everywhere.
        """
        if hidden:
            return "narrow"
        return "wide" if self._width >= WIDE else "single"

    def _heads(self) -> str:
        """Return the title of the y axis, and the legend."""
        drawn = [text(self._chart.y.title, 0, 11)] if self._chart.y.title else []
        for x, y, key in self._legend:
            drawn += [_sample(key, x, y + 7), text(key.name, x + 24, y + 11)]
        return "".join(drawn)

    def _grid(self, x: Place, y: Place) -> str:
        """Return faint lines at the ticks, and the labels of the y axis or of the rows."""
        left, top, wide, high = self._left, self._top, self._right - self._left, self._height
        lines = [
            f"M{left} {number(top + y(tick.value))}h{wide}" for tick in self._y_ticks if not self._chart.rows
        ]
        upright = [f"M{number(left + x(tick.value))} {number(top)}v{high}" for tick in self._x_ticks]
        frame = f"M{left} {number(top + high)}h{wide}"
        names = [
            text(tick.words[0], left - 6, top + y(tick.value) + 4)
            for tick in self._y_ticks
            if not self._chart.rows
        ]
        rows = [text(name, 0, top + y(-row) + 4) for row, name in enumerate(self._rows)]
        faint = element("path", d="".join(lines)) + element("path", d="".join(upright), class_="upright")
        return (
            element("g", faint, stroke=GREY, stroke_opacity=".18", fill="none")
            + element("path", d=frame, stroke=GREY, stroke_opacity=".6", fill="none")
            + (element("g", *names, text_anchor="end") if names else "")
            + "".join(rows)
        )

    def _axis_title(self) -> list[str]:
        """Return the title of the x axis as lines that fit the width."""
        lines: list[str] = []
        for word in self._chart.x.title.split():
            if lines and text_width(f"{lines[-1]} {word}") <= self._width - 8:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        return lines

    def _bottom(self, x: Place, title: Sequence[str]) -> str:
        left, y = self._left, self._top + self._height + LINE + 3
        wide = self._right - left
        drawn = []
        for tick in self._x_ticks:
            start, end = _span(x(tick.value), tick, wide)
            for line, words in enumerate(tick.words):
                drawn.append(text(words, left + (start + end) / 2, y + line * LINE))
        named = [
            text(words, self._width / 2, y + (self._labels + at) * LINE, class_="title")
            for at, words in enumerate(title)
        ]
        return "".join(drawn + named)

    def _words(self, x: Place, y: Place) -> str:
        """Return the texts inside the frame.

        A text that would overlap another one moves up or down to the nearest free line, if there is one (`_free`).
        """
        taken: list[tuple[float, float, float]] = []
        drawn = []
        wide, high = self._right - self._left, self._height
        for words, at, value, colour, anchor in self._chart.texts:
            length = text_width(words)
            start = x(at) - length - 4 if anchor == "end" else x(at) + 4
            start = min(max(start, 2.0), max(wide - length - 2, 2.0))
            place = _free(y(value) - 5, start, length, taken, high)
            taken.append((place, start, length))
            drawn.append(text(words, self._left + start, self._top + place, fill=colour))
        return "".join(drawn)


def _free(
    wanted: float, start: float, length: float, taken: Sequence[tuple[float, float, float]], high: float
) -> float:
    """Return a baseline inside the frame that no other text uses, at most six lines from the wanted one.

    If there is none, return the wanted one.
    """
    wanted = min(max(wanted, 12.0), high - 4)
    for move in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6):
        place = wanted + move * LINE
        clear = all(
            abs(place - y) >= LINE - 1 or start > x + width + 4 or start + length + 4 < x
            for y, x, width in taken
        )
        if clear and 11 <= place <= high - 3:
            return place
    return wanted


def _span(place: float, tick: Tick, length: float) -> tuple[float, float]:
    """Return the left and right end of a tick's label, which is centered on the tick but kept near the frame."""
    half = max(text_width(words) for words in tick.words) / 2
    middle = min(max(place, half - 8), max(length + 12 - half, half - 8))
    return middle - half, middle + half


def _spaced(
    axis: Axis,
    ticks: Sequence[Tick],
    length: float,
    fits: Fits,
) -> list[Tick]:
    """Return the first tick, and each further one that fits beside those already chosen."""
    kept: list[Tick] = []
    for tick in ticks:
        tried = [*kept, tick]
        if fits([(axis.share(each.value) * length, each) for each in tried], length):
            kept = tried
    return kept


def _sample(key: Key, x: float, y: float) -> str:
    """Return a sample of a series' style for the legend."""
    if key.shape in ("dot", "ring"):
        fill = key.colour if key.shape == "dot" else "none"
        return element(
            "circle", cx=float(x + 10), cy=float(y), r="4", fill=fill, stroke=key.colour, stroke_width="1.8"
        )
    if key.shape in ("bar", "band"):
        opacity = None if key.shape == "bar" else ".3"
        return element(
            "rect",
            x=float(x + 2),
            y=float(y - 5),
            width="16",
            height="10",
            fill=key.colour,
            fill_opacity=opacity,
        )
    where = f"M{number(x)} {number(y)}h19"
    edge = element("path", d=where, stroke=DARK, stroke_width="4") if key.shape.startswith("halo") else ""
    dash = "5 3" if key.shape.endswith("dash") else None
    return edge + element("path", d=where, stroke=key.colour, stroke_width="2.2", stroke_dasharray=dash)
