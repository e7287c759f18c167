"""Prints a comparison in the terminal: the verdict, the metrics, then notes."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from replay.comparison.decision import Finding
from replay.comparison.outputs import caught_text, figure_text, interval_text, runs_text
from replay.comparison.verdict import Comparison
from replay.comparison.words import change_text
from replay.units import counted

from .differences import STYLE as DIFFERENCE_STYLE
from .differences import print_differences
from .page import Page
from .watched_sides import print_watched

_STYLE = {
    "REGRESSION": "bold red",
    "INVALID": "bold red",
    "IMPROVEMENT": "bold green",
    "NO_REGRESSION": "bold green",
    "INCONCLUSIVE": "bold yellow",
}

WORDS = {
    "REGRESSION": "✗ worse",
    "IMPROVEMENT": "✓ better",
    "NO_REGRESSION": "✓ no worse",
    "INCONCLUSIVE": "? inconclusive",
}
"""The text of each verdict of a metric."""


def print_comparison(found: Comparison, console: Console) -> None:
    """Print a comparison, with the verdict first and, if metrics were compared, again at the end."""
    page = Page(console)
    page.say(f"{found.verdict}: {found.sentence}", _STYLE[found.verdict])
    for reason in found.reasons:
        if reason not in found.sentence:
            page.say(reason, "yellow", indent=2)
    if caught := caught_text(found):
        page.say(caught, indent=2)
    _metrics(page, found)
    print_watched(page, found)
    for text in (*found.notes, *(f"left out: {text}" for text in found.left_out)):
        page.say(text, "dim", indent=2)
    if found.responses is not None:
        page.title("Responses")
        print_differences(found.responses, console, again=False)
    if found.findings:
        page.say()
        page.say(f"{found.verdict}: {found.sentence}", _STYLE[found.verdict])
        if found.responses is not None:
            responses_line = f"responses {found.responses.verdict}: {found.responses.sentence}"
            page.say(responses_line, DIFFERENCE_STYLE[found.responses.verdict])


def _metrics(page: Page, found: Comparison) -> None:
    if not found.findings:
        return
    interval = (
        "within run only"
        if found.findings[0].within_run
        else f"{100 * (1 - found.options.alpha):g}% interval"
    )
    counts = [f"{counted(len(side.runs), 'run')} of {side.label}" for side in (found.base, found.new)]
    page.title(", ".join(counts))
    headers = [
        ("", "name"),
        ("", ""),
        (found.base.label, "right"),
        (found.new.label, "right"),
        ("change", "right"),
    ]
    page.table([*headers, (interval, ""), ("", "text")], [_row(page, finding) for finding in found.findings])
    how = f"tolerance {100 * found.options.tolerance:g}%; errors {100 * found.options.error_tolerance:g} points; "
    if found.labellings:
        how += f"{found.labellings:,} labellings" + ("" if found.exact else " (sampled)") + ", "
    how += found.design
    page.say(how, "dim")


def _row(page: Page, finding: Finding) -> list[str | Text]:
    metric, at_least, runs = finding.metric, "≥" if finding.at_least else "", runs_text(finding)
    return [
        page.text(metric.route or "all requests", "" if metric.route else "bold"),
        metric.name,
        figure_text(finding.base, metric),
        at_least + figure_text(finding.new, metric),
        change_text(finding.change, metric),
        interval_text(finding),
        page.text(
            WORDS[finding.verdict] + (f" ({runs} runs per side needed)" if runs else ""),
            _STYLE[finding.verdict],
        ),
    ]
