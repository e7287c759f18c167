"""Watched figures of a comparison: a table for the page and one for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from replay.comparison.verdict import Comparison
from replay.comparison.watched import WatchedSides, watched_sides
from replay.units import counted

from .html import html_table, named
from .page import Page

ROWS_SHOWN, LINES_SHOWN = 60, 8
"""How many figures a page and a terminal list: those that differ most."""

READING = (
    "Figures from the target's side, each the median over the runs of a build. Those that differ most come first. The"
    " verdict does not depend on them."
)


def watched_section(found: Comparison) -> str:
    """The section of a page; empty if nothing was watched."""
    figures = watched_sides(found.base, found.new)
    if not figures:
        return ""
    labels = (found.base.label, found.new.label)
    heads = ("", *(f"mean, {label}" for label in labels), *(f"highest, {label}" for label in labels))
    made = html_table(
        heads, [_row(each) for each in figures[:ROWS_SHOWN]], "Watched figures", reading=READING
    )
    if (more := len(figures) - ROWS_SHOWN) > 0:
        made += f'<p class="soft">{counted(more, "more figure")} in --json.</p>'
    return made


def print_watched(page: Page, found: Comparison) -> None:
    """Print the table in the terminal; print nothing if nothing was watched."""
    figures = watched_sides(found.base, found.new)
    if not figures:
        return
    page.title("Watched figures")
    labels = (found.base.label, found.new.label)
    heads = [
        ("", "name"),
        *((f"{what} {label}", "right") for what in ("mean", "highest") for label in labels),
    ]
    page.table(heads, [[each.name, *_row(each)[1:]] for each in figures[:LINES_SHOWN]])
    if (more := len(figures) - LINES_SHOWN) > 0:
        page.say(f"{counted(more, 'more figure')} in --json", "dim")


def _row(each: WatchedSides) -> list[str]:
    values: Sequence[float | None] = (each.base_mean, each.new_mean, each.base_highest, each.new_highest)
    return [named(each.name), *("" if value is None else f"{value:.4g}" for value in values)]
