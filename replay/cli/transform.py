"""`replay transform`: makes a trace from another one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.settings.verbs import OF_TRANSFORM

from .flags import given_settings, settings_flags
from .help import GroupedCommand
from .options import out_option

if TYPE_CHECKING:
    from replay.report.console import Console, Table
    from replay.trace import Trace

ROUTES_SHOWN = 12


def _growth(before: list[int], after: Trace) -> Table:
    """Return a table of the requests of each route before and after the transform, with changed routes first."""
    from rich.text import Text

    from replay import units
    from replay.report.console import Table

    table = Table(box=None, pad_edge=False, header_style="cyan")
    for name in ("before", "after", "times"):
        table.add_column(name, justify="right")
    table.add_column("route", overflow="ellipsis", no_wrap=True)

    def row(old: int, new: int, route: Text) -> None:
        table.add_row(f"{old:,}", f"{new:,}", units.format_number(new / old) if old else "-", route)

    pairs = sorted(
        zip(before, after.manifest.routes, strict=True),
        key=lambda pair: (pair[0] == pair[1].rows, -max(pair[0], pair[1].rows)),
    )
    for old, new in pairs[:ROUTES_SHOWN]:
        row(old, new.rows, Text(new.route))
    rest = pairs[ROUTES_SHOWN:]
    if rest:
        row(
            sum(old for old, _ in rest),
            sum(new.rows for _, new in rest),
            Text(f"{len(rest):,} more routes", "dim"),
        )
    return table


def _report(console: Console, before: Trace, rows: list[int], after: Trace) -> None:
    from rich.text import Text

    from replay import units

    from .history import step_words
    from .import_ import facts, span_text

    table = facts()
    table.add_row("requests", f"{after.rows:,} made from {before.rows:,}, {after.manifest.clients:,} clients")
    table.add_row("span", span_text(after))
    zone = units.parse_zone(after.manifest.time_zone or "UTC")
    for step in after.manifest.history[len(before.manifest.history) :]:
        name, what = step_words(step, zone)
        table.add_row(name, Text(what))
    table.add_row("trace", Text(str(after.path), style="bold"))
    console.print(table)
    console.print()
    console.print(_growth(rows, after))


@click.command(
    name="transform",
    cls=GroupedCommand,
    short_help="Make a trace from another one: cut, sample, scale, speed up.",
)
@click.argument("recordings", nargs=-1, required=True, metavar="TRACE|LOG...")
@settings_flags(OF_TRANSFORM)
@out_option("Trace to write.", required=True)
@click.option("--force", is_flag=True, help="Replace the trace if it exists.")
def command(recordings: tuple[str, ...], out: Path, force: bool, **given: Any) -> None:
    """Make a trace from another one, or from logs.

    The steps are applied in this order: window, routes, sample, scale, peak, speed, rewrite.
    """
    from replay.plan.transforms import transform_of
    from replay.report.console import Console
    from replay.settings.file import load
    from replay.trace.importing import open_trace
    from replay.workload.transform import (
        rows_by_request,
        rows_by_route,
        rows_in_routes,
        transform,
    )

    from .import_ import ProgressBar

    scenario = load(None, *given_settings(given))
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        with ProgressBar(Console(stderr=True)) as progress:
            before = open_trace(recordings, Path(folder) / "imported.trace", progress=progress)
        wanted = transform_of(before, scenario)
        window_ns = wanted.from_ns, wanted.until_ns
        if wanted.rewrite:
            by_request = rows_by_request(before, *window_ns)
            after = transform(before, out, wanted, overwrite=force)
            rows = rows_in_routes(after, by_request)
        else:
            rows = rows_by_route(before, *window_ns)
            after = transform(before, out, wanted, overwrite=force)
        _report(Console(highlight=False), before, rows, after)
