"""The pages of `replay serve`: the list of runs, one run, a comparison of two groups of runs, and errors."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from replay.comparison.decision import Options
from replay.comparison.sides import sides_of
from replay.comparison.verdict import compare_sides
from replay.errors import ReplayError, UsageError, damage_named
from replay.report.comparison_page import comparison_page
from replay.report.html import BAD, GOOD, Html, html_table, named, page_and_policy, toned
from replay.report.run_page import run_page
from replay.report.svg import escape
from replay.results.run import load_run
from replay.units import counted, format_latency, format_rate

from .folder import ServedRun, peaks_in, runs_in, whole_run

Page = tuple[bytes, str]
"""The content of a page, and its Content-Security-Policy."""

BUILD_RUNS_MAX = 200
"""Maximum number of runs in each group of a comparison."""


def list_page(root: Path, wanted: str) -> Page:
    """Return the page that lists the runs with a text in their name, target, verdict, scenario or build.

    Below the runs, it lists all searches for peaks.
    """
    runs = [run for run in runs_in(root) if _matches(run, wanted.strip().lower())]
    search = (
        '<form method="get" action="/"><p><label>Filter <input name="q" value="'
        f'{escape(wanted)}"></label> <button>Show</button> <a href="/">all</a> '
        '<a href="/trends">trends</a></p></form>'
    )
    head = ("run", "started (UTC)", "target", "verdict", "p99", "objectives", "base", "new")
    table = html_table(head, [_row(run) for run in runs], counted(len(runs), "run"), long=(2,))
    button = "<p><button>Compare base with new</button></p>"
    form = (
        f'<form method="get" action="/compare">{table}{button}</form>' if runs else "<p>No runs to show.</p>"
    )
    above = f"the runs in {root}"
    body = f"<main><h1>Runs</h1>{search}{form}{_peaks(root)}</main>"
    return page_and_policy("replay: runs", above, [body])


def _peaks(root: Path) -> str:
    """Return the table of the searches of `replay peak`, the newest first."""
    rows = [
        [
            named(name),
            utc(ended_s),
            named(peak.verdict),
            f"{peak.peak:.3g}×" if peak.peak else "",
            format_rate(peak.rate_per_s) if peak.rate_per_s else "",
        ]
        for name, ended_s, peak in peaks_in(root)
    ]
    head = ("search", "ended (UTC)", "verdict", "peak, of the recording", "rate at the peak")
    return html_table(head, rows, "Peaks")


def _matches(run: ServedRun, wanted: str) -> bool:
    found = run.listed
    words = (run.name, found.target, found.verdict, found.validity, found.scenario, found.build)
    return wanted in " ".join(words).lower()


def _row(run: ServedRun) -> list[str]:
    found = run.listed
    if found.problem:
        return [named(run.name), "", "", toned("UNREADABLE", BAD), "", named(found.problem), "", ""]
    tone = {"VALID": GOOD, "FAILED": BAD, "INVALID": BAD}.get(found.verdict, "")
    verdict = toned(found.verdict, tone) if tone else found.verdict
    p99 = "" if found.p99_ns is None else ("≥" if found.p99_at_least else "") + format_latency(found.p99_ns)
    met = f"{found.objectives_met} of {found.objectives} met" if found.objectives else ""
    is_whole = bool(found.validity) and _is_utf8(run.name)
    name = (
        Html(f'<a href="{escape(link_to(run.name))}">{escape(named(run.name))}</a>')
        if is_whole
        else named(run.name)
    )
    sides = [_box(side, run.name) if is_whole else "" for side in ("base", "new")]
    return [name, utc(found.started_ns / 1e9), named(found.target), verdict, p99, met, *sides]


def utc(at_s: float) -> str:
    """Return a moment in UTC, or `?` for a time outside the calendar, which a file by others may contain."""
    try:
        return dt.datetime.fromtimestamp(at_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "?"


def _is_utf8(name: str) -> bool:
    """Return whether a link can contain a name. A run whose name is not valid UTF-8 is listed without a link."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _box(side: str, name: str) -> Html:
    label = escape(f"{name} as {side}")
    return Html(f'<input type="checkbox" name="{side}" value="{escape(name)}" aria-label="{label}">')


def link_to(name: str) -> str:
    """Return the link to the page of a run."""
    return f"/run?name={quote(name, safe='')}"


def one_run(root: Path, name: str) -> Page:
    """Return the page of a finished run, newly generated. Raise InputError if there is none, or if it is damaged."""
    with damage_named(f"the run {name}"):
        return run_page(load_run(whole_run(root, name)), name)


def two_groups(root: Path, base: Sequence[str], new: Sequence[str]) -> Page:
    """Return the page of a comparison.

    Raise UsageError if a group has no run or more than BUILD_RUNS_MAX, and InputError if a run cannot be shown.
    """
    if not base or not new:
        raise UsageError(
            "a comparison needs runs of base and of new", hint="tick at least one run of base and one of new"
        )
    if len(base) > BUILD_RUNS_MAX or len(new) > BUILD_RUNS_MAX:
        raise UsageError(
            f"base or new has more than {BUILD_RUNS_MAX} runs", hint="tick fewer in the list of all runs"
        )
    old, now = ([whole_run(root, name) for name in dict.fromkeys(names)] for names in (base, new))
    with damage_named("one of the runs"):
        return comparison_page(compare_sides(*sides_of("base", old, "new", now), Options()))


def error_page(error: ReplayError) -> Page:
    """Return a page that explains why the requested page is not available."""
    hint = f'<p class="soft">{escape(error.hint)}</p>' if error.hint else ""
    body = f'<main><h1>{escape(str(error))}</h1>{hint}<p><a href="/">all runs</a></p></main>'
    return page_and_policy("replay: no page", "replay", [body])
