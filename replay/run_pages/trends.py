"""The page of trends: each scenario's runs, its changes, and two builds to compare.

It reads the folders of runs, not the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replay.errors import InputError, reason_of
from replay.history.finding import KINDS, stamps_in
from replay.history.rows import Row, read_row
from replay.history.trends import Change, Moved, Trend, trends_of
from replay.report.html import BAD, GOOD, html_table, named, page_and_policy, toned
from replay.report.svg import escape
from replay.units import counted, format_latency, format_rate, format_share

from .pages import Page, utc
from .trend_charts import charts_of

RUNS_MAX = 5_000
RUNS_SHOWN = 200
"""Maximum number of runs of a scenario that the page lists, the newest ones."""


class Known:
    """A cache of rows by name, and of the trends for the newest state of the folder.

    Several threads may share it.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._trends: tuple[list[Row], list[Trend]] = ([], [])

    def rows(self, root: Path) -> list[Row]:
        """Return the newest RUNS_MAX runs and searches directly in a folder, in the order of time.

        Raise InputError if the folder cannot be read.
        """
        try:
            stamps = [(name, stamp) for name, stamp in stamps_in(root) if "/" not in name]
        except OSError as error:
            raise InputError(f"{root} cannot be read: {reason_of(error)}") from None
        newest = sorted(stamps, key=lambda each: int(each[1].split()[0]))[-RUNS_MAX:]
        before, fresh = self._rows, {}
        for name, stamp in newest:
            row = before.get(name)
            fresh[name] = row if row is not None and row.stamp == stamp else read_row(root, name, stamp)
        self._rows = fresh
        return sorted(fresh.values(), key=lambda row: (row.started_ns, row.name))

    def trends(self, root: Path) -> list[Trend]:
        """Return the trends of the runs. They are computed again only if a run was added, changed or deleted."""
        rows = self.rows(root)
        known, trends = self._trends
        if known != rows:
            trends = trends_of(rows)
            self._trends = (rows, trends)
        return trends


def trends_page(root: Path, known: Known) -> Page:
    """Return the page with every scenario, those with the newest runs first."""
    parts = [_section(trend) for trend in known.trends(root)]
    body = f'<main><h1>Trends</h1><p><a href="/">all runs</a></p>{"".join(parts) or "<p>No runs.</p>"}</main>'
    return page_and_policy("replay: trends", f"the runs in {root}", [body])


def runs_of_builds(rows: Sequence[Row], load: str, build: str) -> list[str]:
    """Return the names of the comparable runs of a build at one load. Raise InputError if there are none.

    Runs without a label belong to no build.
    """
    found = [
        row.name
        for row in rows
        if row.kind == "run" and row.load == load and row.build == build and row.is_comparable
    ]
    if not build or not found:
        raise InputError(f"there are no runs of the build {build!r} to compare")
    return found


def _section(trend: Trend) -> str:
    is_search = trend.kind == "peak"
    title = f"{'Peaks of ' if is_search else ''}{named(trend.scenario)} ({named(trend.load[:6])})"
    changes = html_table(
        ("from", "build", "what", "change"),
        [row for change in trend.changes for row in _change_rows(change)],
        "Changes",
    )
    if not trend.changes:
        few = f"Too few {KINDS[trend.kind][1]} to detect a change." if trend.too_few else "No change."
        changes = f'<p class="soft">{few}</p>'
    begins = {change.run: change for change in trend.changes}
    head: tuple[str, ...] = (
        "started (UTC)",
        "build",
        "search",
        "peak, of the recording",
        "rate at the peak",
        "change",
    )
    if not is_search:
        head = ("started (UTC)", "build", "run", "p50", "p99", "failed", "change")
    make = _search_row if is_search else _run_row
    rows = [make(row, _mark(begins.get(row.name))) for row in reversed(trend.rows[-RUNS_SHOWN:])]
    count = counted(len(trend.rows), *KINDS[trend.kind])
    table = html_table(
        head, rows, f"{count} of {counted(trend.builds, 'build')} on {counted(trend.hosts, 'host')}"
    )
    left = ", ".join(f"{count} {named(verdict)}" for verdict, count in sorted(trend.left_out.items()))
    left_out = f'<p class="soft">Not compared: {escape(left)}.</p>' if left else ""
    builds = "" if is_search else _builds(trend)
    return f"<section><h2>{escape(title)}</h2>{changes}{charts_of(trend)}{left_out}{builds}{table}</section>"


def _builds(trend: Trend) -> str:
    """Return a form to choose two builds for a comparison; empty if there are fewer than two.

    The newest build is preselected as new, and the one before it as base.
    """
    builds = list(dict.fromkeys(row.build for row in reversed(trend.rows) if row.build))
    if len(builds) < 2:
        return ""
    selects = "".join(
        f'<label>{side} <select name="{side}">{_options(builds, chosen)}</select></label> '
        for side, chosen in (("base", builds[1]), ("new", builds[0]))
    )
    hidden = f'<input type="hidden" name="load" value="{escape(trend.load)}">'
    return (
        f'<form method="get" action="/builds"><p>{hidden}{selects}<button>Compare builds</button></p></form>'
    )


def _options(builds: Sequence[str], chosen: str) -> str:
    return "".join(
        f'<option value="{escape(build)}"{" selected" if build == chosen else ""}>{escape(named(build))}</option>'
        for build in builds
    )


def _change_rows(change: Change) -> list[list[str]]:
    rows = []
    for moved in change.moved[:4]:
        worse = moved.is_worse
        text = _moved(moved)
        marked = (
            f"cannot tell: {text}; {change.doubt}" if change.doubt else toned(text, BAD if worse else GOOD)
        )
        what = "peak" if moved.metric == "peak" else f"{moved.metric} of {moved.route or 'all requests'}"
        rows.append([utc(change.started_ns / 1e9), named(change.build or change.run), named(what), marked])
    return rows


def _moved(moved: Moved) -> str:
    if moved.metric == "failed":
        return f"{format_share(moved.before)} to {format_share(moved.after)}"
    text = format_rate if moved.metric == "peak" else format_latency
    before, after = (text(value) for value in (moved.before, moved.after))
    return f"{moved.change:+.1%}, {before} to {after}"


def _mark(change: Change | None) -> str:
    """Return what changes at a run; empty if nothing does."""
    if change is None:
        return ""
    if change.doubt:
        return "cannot tell"
    words = {"peak": ("lower", "higher"), "failed": ("more failures", "fewer failures")}
    worse, better = words.get(change.moved[0].metric, ("slower", "faster"))
    return f"{worse if change.is_slower else better} from here"


def _run_row(row: Row, mark: str) -> list[str]:
    figures = row.figures[0]
    p50, p99 = ("" if value is None else format_latency(value) for value in (figures.p50_ns, figures.p99_ns))
    when = utc(row.started_ns / 1e9)
    return [when, named(row.build), named(row.name), p50, p99, format_share(figures.failed), mark]


def _search_row(row: Row, mark: str) -> list[str]:
    peak = "" if row.peak is None else f"{row.peak:.3g}×"
    rate = "" if row.peak_per_s is None else format_rate(row.peak_per_s)
    return [utc(row.started_ns / 1e9), named(row.build), named(row.name), peak, rate, mark]
