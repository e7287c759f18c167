"""`replay inspect`: shows the content of a recording on one screen."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.text import Text

from replay import units
from replay.errors import UsageError
from replay.report.console import Console, Table
from replay.shown import json_shown

from .history import step_words
from .import_ import (
    ProgressBar,
    actions_text,
    facts,
    folded_lines,
    left_out_lines,
    rejected_lines,
    responses_text,
    span_text,
    stamps_text,
)
from .reading_options import routes_option

if TYPE_CHECKING:
    from replay.trace import Trace
    from replay.trace.body_summary import BodySummary, TypeShare
    from replay.trace.inspection import Inspection
    from replay.trace.summary import Summary, Took

ROUTES_SHOWN = 12
STATUSES_SHOWN = 8
TYPES_SHOWN = 5

HEAT_MAP_FROM_NS = 2 * 3600 * units.SECOND_NS
"""The shortest recording with a heat map. Shorter ones have no hourly pattern to show."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SHADES = " ░▒▓█"
_BARS = " ▁▂▃▄▅▆▇█"


def sparkline(counts: list[int]) -> str:
    """Draw counts as bars with eight levels. A nonzero count is always visible."""
    most = max(counts, default=0) or 1
    return "".join(_BARS[0 if count == 0 else max(1, round(8 * count / most))] for count in counts)


def heat_map(by_hour: list[list[int]]) -> list[str]:
    """Draw a line for each weekday with requests, with a cell per hour that is shaded relative to the busiest hour."""
    most = max(max(hours) for hours in by_hour) or 1
    return [
        f"{day} " + "".join(_SHADES[0 if not count else 1 + (4 * count - 1) // most] * 2 for count in hours)
        for day, hours in zip(_DAYS, by_hour, strict=True)
        if any(hours)
    ]


def _hours(summary: Summary) -> list[tuple[str, str | Text]]:
    """Return the rows of the heat map; none if the recording is shorter than HEAT_MAP_FROM_NS."""
    if summary.span_ns < HEAT_MAP_FROM_NS:
        return []
    rows: list[tuple[str, str | Text]] = []
    for index, line in enumerate(heat_map(summary.by_hour)):
        rows.append(("by hour" if index == 0 else "", Text(line, style="green")))
    hours = "".join(f"{hour:<6}" for hour in range(0, 24, 3))
    rows.append(("", Text("    " + hours, style="dim")))
    return rows


def as_json(found: Inspection, stats: dict[str, Any]) -> bytes:
    """Return the figures as JSON. `stats` holds those of `--stats`, and is empty without it."""
    return msgspec.json.format(msgspec.json.encode({**found.document, **stats}), indent=2)


def _types_text(types: list[TypeShare]) -> str:
    """Return the first TYPES_SHOWN media types with their shares of the messages and the mean size of their bodies."""
    total = sum(share.messages for share in types)
    shown = []
    for share in types[:TYPES_SHOWN]:
        mean = f", {share.bytes / share.sized:,.0f} bytes on average" if share.sized else ""
        shown.append(f"{share.type or 'no type'} {units.format_share(share.messages / total)}{mean}")
    more = len(types) - TYPES_SHOWN
    return " · ".join([*shown, f"and {units.counted(more, 'more type')}"] if more > 0 else shown)


def _bodies(trace: Trace, bodies: BodySummary) -> list[tuple[str, Text]]:
    """Return the rows about request bodies and recorded responses, with their media types."""
    rows = []
    if bodies.requests:
        share = units.format_share(bodies.requests / trace.rows)
        rows.append(
            ("bodies", Text(f"in {bodies.requests:,} requests ({share}), {bodies.distinct:,} distinct"))
        )
        rows.append(("", Text(_types_text(bodies.types))))
    if bodies.responses:
        rows.append(("responses", Text(responses_text(trace.manifest))))
        rows.append(("", Text(_types_text(bodies.response_types))))
    return rows


def _rates(trace: Trace, summary: Summary) -> list[tuple[str, str | Text]]:
    zone = units.parse_zone(trace.manifest.time_zone or "UTC")
    peaks = " · ".join(
        f"{units.format_rate(rate)} over {window} s" for window, rate in summary.peaks_per_s.items()
    )
    busiest = units.format_moment(summary.peak_second * units.SECOND_NS, zone)
    bucket = units.format_duration(summary.span_ns // len(summary.buckets) + 1)
    return [
        ("rate", f"{units.format_rate(summary.mean_per_s)} on average"),
        ("peaks", f"{peaks}; the busiest second is {busiest}"),
        ("over time", Text(sparkline(summary.buckets), style="green")),
        ("", f"each column is {bucket} long"),
    ]


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count:,} clients"


def _shares(found: Inspection) -> Table:
    trace, summary = found.trace, found.summary
    table = Table(box=None, pad_edge=False, header_style="cyan")
    for name in ("share", "requests"):
        table.add_column(name, justify="right")
    timed = bool(summary.known_latencies)
    routes = [(route, took) for route, took in found.by_share() if route.rows]
    if timed:
        table.add_column("p50", justify="right", no_wrap=True)
        table.add_column("p99", justify="right", no_wrap=True)
    table.add_column("action" if trace.manifest.actions() else "", no_wrap=True)
    table.add_column("route", overflow="ellipsis", no_wrap=True)

    def row(rows: int, took: Took | None, action: str, route: Text) -> None:
        times = [units.format_duration(ns) for ns in (took.p50_ns, took.p99_ns)] if took else ["-", "-"]
        share = units.format_share(rows / summary.rows)
        table.add_row(share, f"{rows:,}", *(times if timed else []), action, route)

    for route, took in routes[:ROUTES_SHOWN]:
        row(route.rows, took, route.action, Text(route.route))
    rest = sum(route.rows for route, _ in routes[ROUTES_SHOWN:])
    if rest:
        row(rest, None, "", Text(f"{len(routes) - ROUTES_SHOWN:,} more routes", style="dim"))
    return table


def _screen(console: Console, found: Inspection) -> None:
    trace, summary = found.trace, found.summary
    manifest, table = trace.manifest, facts()
    table.add_row(
        "requests", f"{summary.rows:,}, {manifest.requests:,} distinct, of {_clients(manifest.clients)}"
    )
    table.add_row("span", span_text(trace))
    for index, step in enumerate(manifest.history):
        zone = units.parse_zone(manifest.time_zone or "UTC")
        table.add_row("" if index else "history", Text(": ".join(step_words(step, zone))))
    for name, value in [*_rates(trace, summary), *_hours(summary)]:
        table.add_row(name, value)
    table.add_row("stamps", stamps_text(manifest))
    statuses = [
        f"{'unknown' if status < 0 else status} {units.format_share(rows / summary.rows)}"
        for status, rows in list(summary.statuses.items())[:STATUSES_SHOWN]
    ]
    table.add_row("statuses", " · ".join(statuses))
    methods = [f"{name} {units.format_share(rows / summary.rows)}" for name, rows in summary.methods.items()]
    table.add_row("methods", " · ".join(methods))
    latency = f"for {units.format_share(summary.known_latencies / summary.rows)} of the requests"
    table.add_row("latency", f"recorded {latency}" if summary.known_latencies else "not recorded")
    for name, line in _bodies(trace, found.bodies):
        table.add_row(name, line)
    for index, text in enumerate(actions_text(manifest)):
        table.add_row("actions" if index == 0 else "", Text(text))
    for index, line in enumerate(folded_lines(manifest)):
        table.add_row("folded" if index == 0 else "", line)
    for index, line in enumerate(rejected_lines(manifest)):
        table.add_row("rejected" if index == 0 else "", line)
    for index, line in enumerate(left_out_lines(manifest)):
        table.add_row("left out" if index == 0 else "", line)
    if not trace.has_checksums:
        table.add_row(
            "checksums",
            "none: an older version of replay wrote this trace, so damage to it cannot be detected",
        )
    from replay.trace.manifest import CUT_BODY_MARK

    skips = dict(found.skipped)
    cut = {method: skips.pop(method) for method in [*skips] if method.endswith(CUT_BODY_MARK)}
    if cut:
        listed = ", ".join(f"{rows:,} {method}" for method, rows in cut.items())
        table.add_row("cut", f"{listed}: their bodies are incomplete, so they are never replayed")
    if skips:
        listed = ", ".join(f"{rows:,} {method}" for method, rows in skips.items())
        table.add_row("skipped", f"{listed}: a replay sends only GET and HEAD unless --methods lists more")
    elif not cut:
        table.add_row("skipped", "nothing: a replay would send every request")
    console.print(table)
    console.print()
    console.print(_shares(found))


@click.command(name="inspect", short_help="Show what is in a trace or a log.")
@click.argument("recordings", nargs=-1, required=True, metavar="TRACE|LOG...")
@routes_option
@click.option("--json", "json_wanted", is_flag=True, help="Print the figures as JSON.")
@click.option("--stats", "stats_wanted", is_flag=True, help="Show burstiness, gaps, sessions and popularity.")
@click.option(
    "--against", metavar="TRACE", help="Show the figures of --stats, and compare them with this trace."
)
def command(
    recordings: tuple[str, ...],
    rules_file: Path | None,
    json_wanted: bool,
    stats_wanted: bool,
    against: str | None,
) -> None:
    """Show what is in a trace, or in logs without importing them."""
    from replay.trace import RouteRules, Trace, read_route_rules
    from replay.trace.importing import Options, open_trace
    from replay.trace.inspection import inspect

    options = Options(routes=RouteRules() if rules_file is None else read_route_rules(rules_file))
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        imported = Path(folder) / "inspected.trace"
        with ProgressBar(Console(stderr=True)) as progress:
            trace = open_trace(recordings, imported, options=options, progress=progress)
        if rules_file is not None and trace.path != imported:
            raise UsageError(
                f"--routes: the routes of {recordings[0]} were fixed when it was imported",
                hint=f"import its log again: replay import LOG --routes {rules_file}",
            )
        found = inspect(trace)
        stats = None
        if stats_wanted or against is not None:
            from .stats import Stats

            stats = Stats(trace, None if against is None else Trace.open(against))
        if json_wanted:
            click.echo(json_shown(as_json(found, {} if stats is None else stats.as_json())))
            return
        console = Console(highlight=False)
        _screen(console, found)
        if stats is not None:
            stats.print(console)
