"""`replay transform`: a trace to another one."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from replay import units
from replay.errors import UsageError
from replay.plan.due import make_clock, time_zone
from replay.report.console import Console, Table
from replay.settings.file import load
from replay.trace import Trace
from replay.trace.importing import open_trace
from replay.workload.transform import (
    Transform,
    rows_by_request,
    rows_by_route,
    rows_in_routes,
    transform,
)

from .history import step_words
from .import_ import ProgressBar, facts, span_text

ROUTES_SHOWN = 12


def _growth(before: list[int], after: Trace) -> Table:
    """Each route's requests in the window, and what has become of them; first those that are more, or fewer."""
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
    table = facts()
    table.add_row("requests", f"{after.rows:,} of {before.rows:,}, {after.manifest.clients:,} clients")
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
    name="transform", short_help="Make another trace of one: a window, a share, more of it, faster."
)
@click.argument("recordings", nargs=-1, required=True, metavar="TRACE|LOG...")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The trace to write.")
@click.option("--from", "window__from", metavar="WHEN", help="First moment: 18:00, ISO 8601, +10m.")
@click.option(
    "--until", "window__until", metavar="WHEN", help="Moment to end before; +10m counts from --from."
)
@click.option(
    "--tz", "window__tz", metavar="ZONE", help="Zone of --from and --until [default: the log's own]."
)
@click.option("--only", multiple=True, metavar="ROUTE", help="Keep these routes: 'GET /v1/*'.")
@click.option("--without", multiple=True, metavar="ROUTE", help="Leave these routes out.")
@click.option("--sample", metavar="SHARE", help="Keep a share: 25%.")
@click.option(
    "--sample-by", metavar="WHAT", help="request, or client: a share of the clients, with all they do."
)
@click.option("--scale", multiple=True, metavar="K|ROUTE=K", help="4 times all, or 'POST /v1/users=5'.")
@click.option("--grow", metavar="WHAT", help="What --scale makes more of: requests, sessions or repeat.")
@click.option("--peak", metavar="RATE", help="Scale so that the busiest minute has this rate.")
@click.option("--speed", metavar="FACTOR", help="2, 2x or 200%: twice as fast; changes every time scale.")
@click.option("--compress-to", metavar="TIME", help="As fast as it takes to be this long: a day in 10m.")
@click.option("--rewrite", multiple=True, metavar="'FROM -> TO'", help="Other targets: '^/v1/ -> /v2/'.")
@click.option("--seed", metavar="N", help="Of everything random [default: 1].")
@click.option("--force", is_flag=True, help="Replace the trace if it exists.")
def command(
    recordings: tuple[str, ...],
    out: Path,
    force: bool,
    **given: Any,
) -> None:
    """Make another trace of one. Steps come in this order: window, routes, sample, scale, peak, speed, rewrite."""
    knobs = {name.replace("__", "."): value for name, value in given.items() if value not in (None, ())}
    knobs = {name: list(value) if isinstance(value, tuple) else value for name, value in knobs.items()}
    names = {name: "--" + name.rpartition(".")[2].replace("_", "-") for name in knobs}
    if "seed" in knobs:
        knobs["seed"] = parse_seed(knobs["seed"])
    scenario = load(None, knobs, names)
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        with ProgressBar(Console(stderr=True)) as progress:
            before = open_trace(recordings, Path(folder) / "imported.trace", progress=progress)
        clock = make_clock(before, scenario, time_zone(before, scenario)) if before.rows else None
        window = scenario.window
        wanted = replace(
            Transform.of(scenario),
            from_ns=clock.from_ns if clock and window.from_ is not None else None,
            until_ns=clock.window_until_ns if clock and window.until is not None else None,
            speed=float(scenario.speed),
            compress_to_ns=scenario.compress_to_ns,
        )
        window_ns = wanted.from_ns, wanted.until_ns
        if wanted.rewrite:
            by_request = rows_by_request(before, *window_ns)
            after = transform(before, out, wanted, overwrite=force)
            rows = rows_in_routes(after, by_request)
        else:
            rows = rows_by_route(before, *window_ns)
            after = transform(before, out, wanted, overwrite=force)
        _report(Console(highlight=False), before, rows, after)


def parse_seed(text: str) -> int:
    """A seed from a flag. UsageError where it is none."""
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 63:
        raise UsageError(f"--seed: {text!r} is not a number", hint="write a whole number from 0 on")
    return int(text)
