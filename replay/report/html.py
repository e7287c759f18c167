"""The page builder: one frame for every HTML page.

A page is self-contained and loads nothing; only the live page fetches its data. Reports work without a script, in
light and dark mode, wide and narrow, on paper, and without a style sheet (as under a server's strict policy). All text
from traces and targets is escaped, because it is untrusted. The page's own policy allows its one style sheet and its
one script by their digests.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replay._version import __version__
from replay.files import write_whole

from .charts import BLUE, NARROW, Chart
from .drawing import draw
from .fit import shortened
from .svg import element, escape

GOOD, BAD, OPEN, SOFT = "good", "bad", "open", "soft"
TONES = {
    "VALID": GOOD, "NO_REGRESSION": GOOD, "IMPROVEMENT": GOOD, "FOUND": GOOD, "NO_LIMIT": GOOD,
    "RECOVERED": GOOD, "NOT_HARMED": GOOD, "SAME": GOOD, "INVALID": BAD, "REGRESSION": BAD,
    "DID_NOT_RECOVER": BAD, "DIFFERENT": BAD,
}  # fmt: skip
"""The color of each verdict. Other verdicts have the color OPEN."""

NAME_CHARS = 100
"""The most characters of a route's name or a path. Longer ones are shortened in the middle."""

BAR_WIDTH = 40


class Html(str):
    """Text that is HTML, and that is not escaped again."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its title and explanation, or the text to show if there is nothing to draw."""

    title: str
    reading: str
    plot: Chart | None
    nothing: str = "Nothing was measured, or the run was too short for a chart."


Section = str | Figure


def toned(text: str, tone: str) -> Html:
    """Return text in one of the page's tones."""
    return Html(f'<span class="{tone}">{escape(text)}</span>')


def named(text: str) -> str:
    """Return an untrusted name, shortened to fit a page."""
    return shortened(text, NAME_CHARS)


def linked(text: str, url: str) -> str:
    """Return text as a link that sends no Referer; plain text if there is no URL."""
    return Html(f'<a href="{escape(url)}" rel="noreferrer">{escape(text)}</a>') if url else text


def barred(text: str, share: float) -> Html:
    """Return text beside a bar whose length shows a share."""
    length = BAR_WIDTH * min(max(share, 0.0), 1.0)
    bar = element("rect", width=float(length), height="8", fill=BLUE, fill_opacity=".6")
    return Html(f'<svg width="{BAR_WIDTH}" height="8">{bar}</svg> {escape(text)}')


def headline(
    verdict: str, sentence: str, more: Sequence[str] = (), *, failed: str = "", level: int = 1
) -> str:
    """Return the verdict with its sentence as a heading, and urgent notes below it.

    The verdict is not green if there is a text in `failed`. `level` is the level of the heading.
    """
    tone = TONES.get(verdict, OPEN)
    lines = f'<p class="bad"><b>{escape(failed)}</b></p>' if failed else ""
    tone = SOFT if failed and tone == GOOD else tone
    lines += "".join(f'<p class="soft">{escape(text)}</p>' for text in more if text and text not in sentence)
    words = f'<span class="{tone}">{escape(verdict)}</span> {escape(sentence)}'
    return f"<h{level}>{words}</h{level}>{lines}"


def cards(figures: Sequence[tuple[str, str, str]]) -> str:
    """Return a row of cards for important figures, given as (name, figure, tone). Empty figures are left out."""
    made = [
        f"<div><small>{escape(name)}</small> <b>{toned(text, tone) if tone else escape(text)}</b></div>"
        for name, text, tone in figures
        if text
    ]
    return f'<div class="cards">{"".join(made)}</div>'


def html_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    *,
    reading: str = "",
    groups: Sequence[tuple[str, int]] = (),
    long: Sequence[int] = (),
    left: bool = False,
) -> str:
    """Return a section with a table; empty if there are no rows.

    Cells are text or `Html`. `groups` are header groups: (name, number of columns). Columns in `long` wrap. `left`
    means that all columns are text. On a phone each row becomes a paragraph in which each cell has its column's
    name.
    """
    if not rows:
        return ""
    above = "".join(f'<th colspan="{columns}">{escape(name)}</th>' for name, columns in groups)
    heads = f"<tr>{above}</tr>" if groups else ""
    heads += _row([f"<th>{escape(name)}" for name in head], left)
    body = "".join(_row([_cell(cell, at in long) for at, cell in enumerate(row)], left) for row in rows)
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    heading += f'<p class="soft">{escape(reading)}</p>' if reading else ""
    kind = ' class="text"' if left else ""
    labels = escape("|".join(label.replace("|", " ") for label in _labels(head, groups)))
    table = (
        f'<table{kind} cellpadding="3" data-l="{labels}"><thead>{heads}</thead><tbody>{body}</tbody></table>'
    )
    return f'{heading}<div class="scroll">{table}</div>'


def _labels(head: Sequence[str], groups: Sequence[tuple[str, int]]) -> list[str]:
    """Return a label for the cells of each column, which includes the column's group."""
    over = [name for name, columns in groups for _ in range(columns)] or [""] * len(head)
    return [f"{group} {name}".strip() for group, name in zip(over, head, strict=True)]


def _row(cells: Sequence[str], left: bool) -> str:
    """Return a row of a table. Figures are right-aligned, even without the style sheet."""
    first = cells[0].replace(">", ' align="left">', 1)
    return f"<tr{'' if left else ' align=right'}>{''.join([first, *cells[1:]])}</tr>"


def _cell(cell: str, is_long: bool) -> str:
    inner = cell if isinstance(cell, Html) else escape(cell)
    return f"<td{' class=long' if is_long else ''}>{inner}"


_LABELLED = re.compile(r'<table(?: class="\w+")? cellpadding="3" data-l="([^"]*)">')


def _label_rules(body: str) -> str:
    """Return style rules that label the cells on a phone with their column's name."""
    rules = []
    for labels in dict.fromkeys(_LABELLED.findall(body)):
        of_table = f"table[data-l={_css_text(html.unescape(labels))}] td:nth-child"
        for at, label in enumerate(html.unescape(labels).split("|"), 1):
            if at > 1 and label:
                rules.append(f"{of_table}({at})::before{{content:{_css_text(label + ' ')}}}")
    return f"@media(max-width:640px){{{''.join(rules)}}}\n" if rules else ""


def _css_text(text: str) -> str:
    """Return a CSS string with all special characters escaped."""
    return '"' + "".join(c if c.isalnum() or c in " .,|" else f"\\{ord(c):x} " for c in text) + '"'


def facts_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return a list of names with their descriptions."""
    return html_table(("", ""), [list(row) for row in rows if row[1]], title, left=True)


def folded(summary: str, inner: str) -> str:
    """Return a collapsed section for details; empty if there are none."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>" if inner else ""


def drawn(figure: Figure) -> str:
    """Return a chart as a section, drawn at two widths, of which the style sheet shows one.

    Without a chart, the section has the text `nothing`.
    """
    head = f"<h2>{escape(figure.title)}</h2>" if figure.title else ""
    if figure.plot is None:
        return f'{head}<p class="soft">{escape(figure.nothing)}</p>'
    chart = figure.plot
    chart.label = chart.label or figure.title
    data = chart.data()
    block = f'<script type="application/json">{data}</script>' if data else ""
    reading = f'<p class="soft">{escape(figure.reading)}</p>' if figure.reading else ""
    return f"{head}{reading}<figure>{draw(chart)}{draw(chart, NARROW, hidden=True)}{block}</figure>"


def small(figures: Sequence[Figure]) -> str:
    """Return small charts side by side, each drawn once at the width of a phone."""
    return f'<div class="small">{"".join(map(_small, figures))}</div>' if figures else ""


def _small(figure: Figure) -> str:
    head = f"<h2>{escape(figure.title)}</h2>"
    if figure.plot is None:
        return f'<div>{head}<p class="soft">{escape(figure.nothing)}</p></div>'
    figure.plot.label = figure.plot.label or figure.title
    data = figure.plot.data()
    block = f'<script type="application/json">{data}</script>' if data else ""
    return f"<div>{head}<figure>{draw(figure.plot, NARROW)}{block}</figure></div>"


def write_page(path: Path, title: str, above: str, sections: Sequence[Section]) -> None:
    """Assemble a page, and write it atomically. Raise OutputError if it cannot be written.

    `above` is the text above the title.
    """
    page, _ = page_and_policy(title, above, sections)
    write_whole(path, page)


def page_and_policy(
    title: str, above: str, sections: Sequence[Section], *, script: str = "", own_server: bool = False
) -> tuple[bytes, str]:
    """Return a page and its Content-Security-Policy.

    `script` is appended to the common script. With `own_server` the page may fetch from the server that it came
    from.
    """
    body = "".join(section if isinstance(section, str) else drawn(section) for section in sections)
    style, script = _part("page.css") + _label_rules(body), _part("page.js") + script
    allowed = f"script-src '{_digest(script)}'; style-src '{_digest(style)}'"
    policy = f"default-src 'none'; {allowed}; img-src data:" + ("; connect-src 'self'" if own_server else "")
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,"><style>{style}</style></head>\n'
        f"<body><header>{escape(above)}</header>{body}\n<footer>replay {__version__}</footer>\n"
        f"<script>{script}</script></body></html>\n"
    )
    return page.encode("utf-8", "backslashreplace"), policy


@functools.cache
def _part(name: str) -> str:
    """Return the style sheet or script of every page as one text, so that the policy can allow it by its digest."""
    return Path(__file__).with_name(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
