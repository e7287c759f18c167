"""`replay runs`: lists the runs of a folder, newest first, or shows their trends."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay import units
from replay.errors import InputError, UsageError, reason_of
from replay.shown import json_shown, shown, without_surrogates

from .options import OptionalValue
from .outputs import STDOUT, write_file
from .places import RUNS
from .streams import say, tell

if TYPE_CHECKING:
    from replay.results.listing import ListedRun, Listing

_WIDTH_MIN, _TARGET_MIN = 40, 8
_HEADS = ("when", "run", "target", "verdict", "p99", "objectives")
_GAP = "  "


@click.command(name="runs", short_help="List runs, or show where they got slower or faster (--trend).")
@click.argument("words", nargs=-1, metavar="[FOLDER] [SCENARIO]")
@click.option("-n", "--newest", type=click.IntRange(1), metavar="N", help="List the newest N only.")
@click.option("--trend", is_flag=True, help="Show the builds at which a scenario became slower or faster.")
@click.option(
    "--since",
    default="",
    metavar="BUILD",
    help="Show changes since BUILD; --fail-on then counts those that were reported before, too.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["change", "slower"]),
    help="change: exit with 99 on a change that was not reported before; slower: only if it is for the worse.",
)
@click.option("--rebuild", is_flag=True, help="Rebuild the database from the run folders.")
@click.option(
    "--json",
    "json_file",
    cls=OptionalValue,
    bare=STDOUT,
    metavar="FILE",
    help="Write the list, or with --trend the trends, for scripts [without FILE: stdout].",
)
def command(
    words: tuple[str, ...], newest: int | None, trend: bool, since: str, fail_on: str | None, rebuild: bool,
    json_file: str | None,
) -> None:  # fmt: skip
    """List the runs in FOLDER [default: runs], newest first. SCENARIO (a name or file) limits the list to its runs.

    With --trend, show for each scenario the builds at which it became slower or faster (docs/runs.md). Exit codes:
    0, 99 if --fail-on finds a change, 1 if --rebuild fails (without --trend).
    """
    from replay.results.listing import list_runs

    folder, scenario = _folder_and_scenario(words)
    if trend or since or fail_on:
        from .trends import show_trends

        raise SystemExit(show_trends(folder, scenario, since, fail_on, json_file, rebuild=rebuild))
    is_rebuilt = not rebuild or _rebuild(folder)
    listing = list_runs(folder)
    if scenario:
        listing = _only(listing, scenario, folder)
    chosen = listing.runs[:newest]
    if json_file is not None:
        write_file(json_file, _json(chosen))
    if json_file != STDOUT:
        _print(folder, listing, chosen)
    if not is_rebuilt:
        raise SystemExit(1)


def _folder_and_scenario(words: tuple[str, ...]) -> tuple[Path, str]:
    """Split the arguments into FOLDER and SCENARIO: an argument that is a folder is FOLDER, any other is SCENARIO.

    UsageError for two of a kind. InputError if SCENARIO has a slash but no .toml ending, or if it is
    given and the default folder does not exist.
    """
    folders = [word for word in words if Path(word).is_dir()]
    others = [word for word in words if not Path(word).is_dir()]
    if len(folders) > 1 or len(others) > 1:
        raise UsageError(
            f"too many arguments: {' '.join(words)}", hint="give at most one folder and one scenario"
        )
    scenario = others[0] if others else ""
    folder = Path(folders[0]) if folders else RUNS
    if scenario and "/" in scenario and not scenario.endswith(".toml"):
        raise InputError(f"{scenario} is not a folder", hint="give a folder that contains runs")
    if scenario and not folder.is_dir():
        raise InputError(
            f"{scenario} is not a folder, and there is no folder {folder}",
            hint="give a folder that contains runs",
        )
    return folder, scenario


def _rebuild(folder: Path) -> bool:
    """Rebuild the database, report how many results (runs, searches) it has, and return whether that worked.

    InputError if the folder cannot be read.
    """
    from replay.history.database import database_of, opened

    try:
        with opened(folder, rebuild=True) as history:
            count = len(history.rows())
            problem = history.problem
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {reason_of(error)}") from None
    if problem:
        say(problem)
    else:
        tell(f"{database_of(folder).name} rebuilt: {units.counted(count, 'result')}", err=True)
    return not problem


def _only(listing: Listing, scenario: str, folder: Path) -> Listing:
    """Return the runs of one scenario. InputError if there are none."""
    from dataclasses import replace

    name = Path(scenario).stem if scenario.endswith(".toml") else scenario
    runs = [run for run in listing.runs if run.scenario == name]
    if not runs:
        known = sorted({run.scenario for run in listing.runs if run.scenario})
        hint = f"it has runs of {', '.join(known[:10])}" if known else "replay run makes them"
        raise InputError(
            f"{scenario} is not a folder, and {folder} has no runs of a scenario {name!r}", hint=hint
        )
    return replace(listing, runs=runs)


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
    text = msgspec.json.encode(without_surrogates(rows))
    return json_shown(msgspec.json.format(text, indent=2)) + b"\n"


def _print(folder: Path, listing: Listing, runs: list[ListedRun]) -> None:
    if runs:
        rows = [_HEADS, *(_cells(run) for run in runs)]
        for line in _lines(rows, _columns()):
            click.echo(line)
    else:
        click.echo(f"no runs in {shown(str(folder))}")
    if len(runs) < len(listing.runs):
        click.echo(f"not listed: {units.counted(len(listing.runs) - len(runs), 'older run')}")
    if listing.links:
        named = ", ".join(shown(name) for name in listing.links[:3])
        click.echo(f"{units.counted(len(listing.links), 'link')} not followed: {named}")
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
    """Return the width of the terminal, at least _WIDTH_MIN; None if stdout is not a terminal: nothing is cut then."""
    import shutil
    import sys

    return max(shutil.get_terminal_size().columns, _WIDTH_MIN) if sys.stdout.isatty() else None


def _lines(rows: Sequence[tuple[str, ...]], columns: int | None) -> list[str]:
    """Return the lines of the table.

    If the table is too wide, names and targets are shortened in the middle, and then lines are cut.
    """
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
    """Shorten a text in the middle if it does not fit."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]
