"""`replay runs`: the runs of a folder, newest first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay import units
from replay.errors import InputError
from replay.shown import json_shown, shown

from .options import OptionalValue
from .outputs import STDOUT, write_file
from .places import RUNS

if TYPE_CHECKING:
    from replay.results.listing import ListedRun, Listing

_WIDTH_MIN, _TARGET_MIN = 40, 8
_HEADS = ("when", "run", "target", "verdict", "p99", "objectives")
_GAP = "  "


@click.command(name="runs", short_help="List runs: when, target, verdict, p99, objectives.")
@click.argument("folder", type=click.Path(path_type=Path), default=RUNS, metavar="[FOLDER]")
@click.option("-n", "--newest", type=click.IntRange(1), metavar="N", help="List the newest N only.")
@click.option(
    "--json", "json_file", cls=OptionalValue, bare=STDOUT, metavar="FILE", help="Write the list for scripts."
)
def command(folder: Path, newest: int | None, json_file: str | None) -> None:
    """List the runs in FOLDER [default: runs], newest first."""
    from replay.results.listing import list_runs

    if not folder.is_dir() and folder != RUNS:
        raise InputError(f"{folder} is not a folder", hint="give the folder that holds runs")
    listing = list_runs(folder)
    chosen = listing.runs[:newest]
    if json_file is not None:
        write_file(json_file, _json(chosen))
    if json_file != STDOUT:
        _print(folder, listing, chosen)


def _json(runs: list[ListedRun]) -> bytes:
    import msgspec

    rows: list[dict[str, Any]] = []
    for run in runs:
        if run.problem:
            rows.append({"path": str(run.path), "problem": run.problem})
            continue
        started = dt.datetime.fromtimestamp(run.started_ns / 1e9, dt.UTC).isoformat(timespec="milliseconds")
        row = msgspec.to_builtins(run, enc_hook=str) | {"started_at": started}
        row.pop("problem")
        rows.append(row)
    return json_shown(msgspec.json.format(msgspec.json.encode(rows), indent=2)) + b"\n"


def _print(folder: Path, listing: Listing, runs: list[ListedRun]) -> None:
    if runs:
        rows = [_HEADS, *(_cells(run) for run in runs)]
        for line in _lines(rows, _columns()):
            click.echo(line)
    else:
        click.echo(f"no runs in {shown(str(folder))}")
    if len(runs) < len(listing.runs):
        click.echo(f"{len(listing.runs) - len(runs):,} older ones are not listed")
    for other in listing.others:
        click.echo(f"more runs: replay runs {shown(str(other))}")


def _cells(run: ListedRun) -> tuple[str, ...]:
    if run.problem:
        return ("", run.path.name, "", "UNREADABLE", "", run.problem)
    when = dt.datetime.fromtimestamp(run.started_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M")
    p99 = "" if run.p99_ns is None else ("≥" if run.p99_at_least else "") + units.format_latency(run.p99_ns)
    objectives = f"{run.objectives_met} of {run.objectives} met" if run.objectives else ""
    return (when, run.path.name, run.target, run.verdict, p99, objectives)


def _columns() -> int | None:
    """Columns of the terminal; None if stdout is none: then nothing is cut."""
    import shutil
    import sys

    return max(shutil.get_terminal_size().columns, _WIDTH_MIN) if sys.stdout.isatty() else None


def _lines(rows: Sequence[tuple[str, ...]], columns: int | None) -> list[str]:
    """The table without padding at the right. Where it is too wide, names and targets are cut in the middle."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(_HEADS))]
    if columns is not None:
        for at in (2, 1):
            over = sum(widths) + len(_GAP) * (len(widths) - 1) - columns
            widths[at] -= min(max(over, 0), max(widths[at] - _TARGET_MIN, 0))
    lines = []
    for row in cells:
        fitted = [_fitted(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(_GAP.join(fitted).rstrip()[: columns or None])
    return lines


def _fitted(text: str, width: int) -> str:
    """A text shortened in the middle to fit."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]
