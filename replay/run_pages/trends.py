"""The page of trends: each scenario's runs, its changes, and two builds to compare. It reads folders, not the database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replay.errors import InputError, reason_of
from replay.history.finding import stamps_in
from replay.history.rows import Row, read_row
from replay.history.trends import Change, Moved, Trend, trends_of
from replay.report.html import BAD, GOOD, html_table, named, page_and_policy, toned
from replay.report.svg import escape
from replay.units import counted, format_latency, format_rate, format_share

from .pages import Page, utc

RUNS_MAX = 5_000
RUNS_SHOWN = 200
"""Runs of a scenario that the page lists: the newest."""


def rows_in(root: Path, known: dict[str, Row]) -> list[Row]:
    """The runs right in a folder, in order of time; `known` keeps rows from one request to the next."""
    try:
        stamps = list(stamps_in(root))[-RUNS_MAX:]
    except OSError as error:
        raise InputError(f"{root} cannot be read: {reason_of(error)}") from None
    for name, stamp in stamps:
        row = known.get(name)
        if row is None or row.stamp != stamp:
            known[name] = read_row(root, name, stamp)
    return sorted((known[name] for name, _ in stamps), key=lambda row: (row.started_ns, row.name))


def trends_page(root: Path, known: dict[str, Row]) -> Page:
    """Every scenario, the newest first."""
    parts = [_section(trend) for trend in trends_of(rows_in(root, known)) if trend.kind == "run"]
    body = f'<main><h1>Trends</h1><p><a href="/">all runs</a></p>{"".join(parts) or "<p>No runs.</p>"}</main>'
    return page_and_policy("replay: trends", f"the runs in {root}", [body])


def runs_of_builds(rows: Sequence[Row], load: str, build: str) -> list[str]:
    """The comparable runs of a build at one load. InputError if there are none."""
    found = [
        row.name
        for row in rows
        if row.kind == "run" and row.load == load and row.build == build and row.is_comparable
    ]
    if not build or not found:
        raise InputError(f"there are no runs of the build {build!r} to compare")
    return found


def _section(trend: Trend) -> str:
    title = f"{named(trend.scenario)} ({named(trend.load[:6])})"
    changes = html_table(
        ("from", "build", "what", "change"),
        [row for change in trend.changes for row in _change_rows(change)],
        "Changes" if trend.changes else "No change",
    )
    begins = {change.run: change for change in trend.changes}
    rows = [_run_row(row, begins.get(row.name)) for row in reversed(trend.rows[-RUNS_SHOWN:])]
    table = html_table(
        ("started (UTC)", "build", "run", "p50", "p99", "failed", "change"),
        rows,
        f"{counted(len(trend.rows), 'run')} of {counted(trend.builds, 'build')} on {counted(trend.hosts, 'host')}",
    )
    return f"<section><h2>{escape(title)}</h2>{changes}{_builds(trend)}{table}</section>"


def _builds(trend: Trend) -> str:
    """Two builds to choose for a comparison."""
    builds = list(dict.fromkeys(row.build for row in reversed(trend.rows) if row.build))
    if len(builds) < 2:
        return ""
    options = "".join(f'<option value="{escape(build)}">{escape(named(build))}</option>' for build in builds)
    selects = "".join(
        f'<label>{side} <select name="{side}">{options}</select></label> ' for side in ("base", "new")
    )
    hidden = f'<input type="hidden" name="load" value="{escape(trend.load)}">'
    return (
        f'<form method="get" action="/builds"><p>{hidden}{selects}<button>Compare builds</button></p></form>'
    )


def _change_rows(change: Change) -> list[list[str]]:
    rows = []
    for moved in change.moved[:4]:
        worse = moved.is_worse
        text = _moved(moved)
        marked = (
            f"cannot tell: {text}; {change.doubt}" if change.doubt else toned(text, BAD if worse else GOOD)
        )
        what = f"{moved.metric} of {moved.route or 'all requests'}"
        rows.append([utc(change.started_ns / 1e9), named(change.build or change.run), named(what), marked])
    return rows


def _moved(moved: Moved) -> str:
    if moved.metric == "failed":
        return f"{format_share(moved.before)} to {format_share(moved.after)}"
    text = format_rate if moved.metric == "peak" else format_latency
    before, after = (text(round(value)) for value in (moved.before, moved.after))
    return f"{moved.change:+.1%}, {before} to {after}"


def _run_row(row: Row, change: Change | None) -> list[str]:
    figures = row.figures[0]
    p50, p99 = ("" if value is None else format_latency(value) for value in (figures.p50_ns, figures.p99_ns))
    mark = ""
    if change is not None:
        mark = (
            "cannot tell" if change.doubt else "slower from here" if change.is_slower else "faster from here"
        )
    when = utc(row.started_ns / 1e9)
    return [when, named(row.build), named(row.name), p50, p99, format_share(figures.failed), mark]
