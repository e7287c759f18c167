"""The frame of an HTML page: self-contained, it asks nothing of anybody, and reads by light and dark, wide and narrow.

Bokeh's script is taken from its package into the page. All text of traces and targets is escaped: it is untrusted.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay._version import __version__
from replay.files import write_whole
from replay.shown import shown

_CSP = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
GOOD, BAD, OPEN, SOFT = "good", "bad", "open", "soft"
TONES = {
    "VALID": GOOD, "NO_REGRESSION": GOOD, "IMPROVEMENT": GOOD, "FOUND": GOOD, "NO_LIMIT": GOOD,
    "RECOVERED": GOOD, "NOT_HARMED": GOOD, "INVALID": BAD, "REGRESSION": BAD, "DID_NOT_RECOVER": BAD,
}  # fmt: skip
"""Of verdicts; OPEN for all else."""

_STYLE = """
:root{color-scheme:light dark;--ink:#1b2027;--soft:#5d6671;--paper:#fff;--line:#e1e5e9;--card:#f6f7f9;--bar:#4c8dd626;
--good:#1a7f37;--bad:#c62a2f;--open:#8a6100}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#98a1ab;--paper:#13161a;--line:#2b3138;--card:#1b2026;
--bar:#4c8dd63d;--good:#4cc065;--bad:#ff7069;--open:#d9a83a}}
*{box-sizing:border-box}
body{font:15px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1120px;margin:0 auto;
padding:22px 20px 70px;-webkit-text-size-adjust:100%}
header,footer{color:var(--soft);font-size:13px;overflow-wrap:anywhere}footer{margin-top:44px}
h1{font-size:24px;line-height:1.35;font-weight:600;margin:14px 0 8px;overflow-wrap:anywhere}
h1 span{font-size:14px;letter-spacing:.04em;padding:3px 10px;margin-right:10px;border-radius:99px;vertical-align:3px;
white-space:nowrap}
h1 .good{background:var(--good)}h1 .bad{background:var(--bad)}h1 .open{background:var(--open)}
h1 .soft{background:var(--soft)}h1 .good,h1 .bad,h1 .open,h1 .soft{color:var(--paper)}
h2{font-size:17px;font-weight:600;margin:38px 0 2px}
p{margin:4px 0;overflow-wrap:anywhere}h2+p{margin-bottom:8px}
.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}.open{color:var(--open)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:10px;margin:18px 0}
.cards div{background:var(--card);border-radius:10px;padding:10px 14px}
.cards b{display:block;font-size:21px;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.3}
.cards small{color:var(--soft);font-size:13px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th,td{text-align:right;padding:5px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:500;color:var(--soft)}thead tr:not(:last-child) th{border:0;padding-bottom:0}
th[colspan]:not(:empty){text-align:center}
th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:150px;padding-left:0}
th:last-child,td:last-child{padding-right:0}
details{margin:10px 0}summary{cursor:pointer;color:var(--soft)}
@media(max-width:560px){body{padding:16px 14px 50px}h1{font-size:20px}h1 span{display:inline-block;margin-bottom:6px}
.cards{grid-template-columns:repeat(2,1fr)}.cards b{font-size:18px}}
"""


def escape(text: str) -> str:
    """Text as HTML shows it: no markup, and nothing that turns or hides what stands beside it."""
    return html.escape(shown(text))


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with its title, and how to read it; or what is said where there is nothing to draw."""

    title: str
    reading: str
    plot: Any
    nothing: str = "Nothing was measured."


Section = str | Figure


def toned(text: str, tone: str) -> Html:
    """Text in one of the page's tones."""
    return Html(f'<span class="{tone}">{escape(text)}</span>')


def barred(text: str, share: float) -> Html:
    """Text on a bar as long as a share of its cell."""
    percent = 100 * min(max(share, 0.0), 1.0)
    style = f"background:linear-gradient(90deg,var(--bar) {percent:.1f}%,transparent 0)"
    return Html(f'<span style="{style};display:block;border-radius:3px;padding:0 4px">{escape(text)}</span>')


def headline(verdict: str, sentence: str, more: Sequence[str] = (), *, failed: str = "") -> str:
    """The verdict in words, and below it what else is to be known at once. No verdict is green beside what `failed`."""
    tone = TONES.get(verdict, OPEN)
    lines = f'<p class="bad"><b>{escape(failed)}</b></p>' if failed else ""
    tone = SOFT if failed and tone == GOOD else tone
    lines += "".join(f'<p class="soft">{escape(text)}</p>' for text in more if text and text not in sentence)
    return f'<h1><span class="{tone}">{escape(verdict)}</span>{escape(sentence)}</h1>{lines}'


def cards(figures: Sequence[tuple[str, str, str]]) -> str:
    """The few figures that matter: (name, figure, tone); those without a figure are left out."""
    made = [
        f"<div><small>{escape(name)}</small><b>{toned(text, tone) if tone else escape(text)}</b></div>"
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
) -> str:
    """A section with a table; cells are text, or `Html`. `groups` stand above the heads: (name, columns). Nothing where
    there are no rows.
    """
    if not rows:
        return ""

    def line(cells: Sequence[str], tag: str) -> str:
        inner = (cell if isinstance(cell, Html) else escape(cell) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in inner) + "</tr>"

    above = "".join(f'<th colspan="{columns}">{escape(name)}</th>' for name, columns in groups)
    heads = (f"<tr>{above}</tr>" if groups else "") + line(head, "th")
    body = "".join(line(row, "td") for row in rows)
    said = f"<h2>{escape(title)}</h2>" if title else ""
    said += f'<p class="soft">{escape(reading)}</p>' if reading else ""
    return f'{said}<div class="scroll"><table><thead>{heads}</thead><tbody>{body}</tbody></table></div>'


def folded(summary: str, inner: str) -> str:
    """What is there for who wants it."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>" if inner else ""


def write_page(path: Path, title: str, above: str, sections: Sequence[Section]) -> None:
    """Put the page together, and write it whole or not at all. `above` stands over it: what it is of.

    OutputError where it cannot be written.
    """
    from bokeh.embed import components

    plots = {str(at): s.plot for at, s in enumerate(sections) if isinstance(s, Figure) and s.plot}
    script, divs = components(plots) if plots else ("", {})
    script = shown(script, lines=True)
    body = [f"<header>{escape(above)}</header>"]
    for at, section in enumerate(sections):
        if isinstance(section, str):
            body.append(section)
        elif section.plot:
            body.append(
                f'<h2>{escape(section.title)}</h2><p class="soft">{escape(section.reading)}</p>{divs[str(at)]}'
            )
        else:
            body.append(f'<h2>{escape(section.title)}</h2><p class="soft">{escape(section.nothing)}</p>')
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_CSP}">\n'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>{_STYLE}</style>\n'
        f"{_library() if plots else ''}</head>\n<body>{''.join(body)}\n<footer>replay {__version__}</footer>\n"
        f"{script}</body></html>\n"
    )
    write_whole(path, page.encode("utf-8", "backslashreplace"))


def _library() -> str:
    """Bokeh's script, from its package."""
    from bokeh.resources import Resources

    return str(Resources(mode="inline", components=["bokeh"], minified=True).render_js())
