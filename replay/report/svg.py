"""SVG as text: compact elements, numbers and paths, and estimated text widths.

Only presentation attributes are used, so that a picture needs neither a style sheet nor a script.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from replay.shown import shown

FONT_SIZE = 12
LINE = 15
"""The distance between two lines of text, in pixels."""

_WIDE, _NARROW = frozenset("mwMWQ@%—…"), frozenset("iljtfrI.,:;'|!()[]/ ·-")


def escape(text: str) -> str:
    """Escape text for HTML and SVG: no markup, and no character that hides or reorders its neighbors."""
    return html.escape(shown(text))


def number(value: float) -> str:
    """Format a coordinate to a tenth of a pixel: `12`, `3.4`, `-.5`."""
    text = f"{value:.1f}".removesuffix(".0")
    if text.startswith(("0.", "-0.")):
        text = text.replace("0.", ".", 1)
    return "0" if text in ("-0", "") else text


def attributes(given: dict[str, object]) -> str:
    """Format attributes as ` name="value"`, without those that are None.

    In a name, `_` becomes `-`, and a trailing `_` is dropped.
    """
    parts = []
    for name, value in given.items():
        if value is None:
            continue
        value_text = number(value) if isinstance(value, float) else str(value)
        parts.append(f' {name.rstrip("_").replace("_", "-")}="{escape(value_text)}"')
    return "".join(parts)


def element(name: str, *inner: str, **given: object) -> str:
    """Return an element. `inner` is its content, in which text must be escaped already."""
    body = "".join(inner)
    return f"<{name}{attributes(given)}>{body}</{name}>" if body else f"<{name}{attributes(given)}/>"


def text(words: str, x: float, y: float, **given: object) -> str:
    """Return a text element with its baseline at (x, y)."""
    return element("text", escape(words), x=float(x), y=float(y), **given)


def text_width(words: str, size: float = FONT_SIZE) -> float:
    """Estimate the width of a text in pixels in a common sans-serif font, rather too wide than too narrow."""
    return size * sum(
        0.98
        if char in _WIDE or ord(char) > 0x2E80
        else 0.38
        if char in _NARROW
        else 0.74
        if char.isupper()
        else 0.65
        for char in shown(words)
    )


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return a polyline through points in pixels, as relative path steps rounded to a tenth of a pixel."""
    parts: list[str] = []
    at_x = at_y = 0
    for x, y in points:
        to_x, to_y = round(10 * x), round(10 * y)
        if not parts:
            parts.append(f"M{number(to_x / 10)} {number(to_y / 10)}")
        elif (to_x, to_y) != (at_x, at_y):
            step_x, step_y = number((to_x - at_x) / 10), number((to_y - at_y) / 10)
            parts.append(f"l{step_x}{step_y if step_y[0] == '-' else ' ' + step_y}")
        at_x, at_y = to_x, to_y
    return "".join(parts)


def paths(runs: Sequence[Sequence[tuple[float, float]]]) -> str:
    """Return several lines as one path. A single point is a dot as wide as the line."""
    return "".join(path(run) + ("h0" if len(run) == 1 else "") for run in runs if run)
