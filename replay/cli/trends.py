"""`replay runs --trend`: shows the builds at which runs of a scenario got slower or faster."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay import units
from replay.errors import Exit, InputError, UsageError, reason_of
from replay.shown import json_shown, shown, without_surrogates

from .outputs import STDOUT, write_file
from .streams import say

if TYPE_CHECKING:
    from replay.history.finding import Kind
    from replay.history.trends import Change, Moved, Trend

_SPARKS = "▁▂▃▄▅▆▇█"
_SPARKS_MAX = 60
_MOVED_MAX = 4
_WHAT = {"p50": "p50", "p99": "p99", "failed": "failed requests", "peak": "peak"}
_WORSE = {"failed": ("more failures", "fewer failures"), "peak": ("a lower peak", "a higher peak")}


def show_trends(
    folder: Path, scenario: str, since: str, fail_on: str | None, json_file: str | None, *, rebuild: bool
) -> int:
    """Print the trends, store which changes were reported, and return the exit code.

    InputError if the folder cannot be read or has no runs of the scenario. UsageError if there is no run of `since`.
    """
    from replay.history.database import opened
    from replay.history.finding import KINDS
    from replay.history.trends import parts_of, trends_of

    try:
        with opened(folder, rebuild=rebuild) as history:
            rows = history.rows()
            trends = chosen(trends_of(rows), scenario, folder)
            begin = _begin(since, trends)
            found = []
            for trend in trends:
                known = history.reported(trend.scenario, trend.load)
                newest = trend.rows[-1].name if trend.rows else ""
                changes = [change for change in trend.changes if change.started_ns >= begin]
                fresh = {change.run for change in changes if known.get(change.run, newest) == newest}
                found.append((trend, changes, fresh))
                history.report(trend.scenario, trend.load, fresh - known.keys(), newest)
            problem = history.problem
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {reason_of(error)}") from None
    damaged = [row for row in rows if row.problem]
    parts = parts_of(rows, _name_of(scenario))
    if json_file is not None:
        write_file(json_file, _json(found, damaged, parts))
    if json_file != STDOUT:
        for trend, changes, fresh in found:
            _print(trend, changes, fresh)
        if not found:
            click.echo(f"no trends in {shown(str(folder))}")
        if parts:
            text = ", ".join(units.counted(count, *KINDS[kind]) for kind, count in parts.items())
            click.echo(f"in no trend: {text}")
    if damaged:
        say(f"{units.counted(len(damaged), 'run')} cannot be read: {damaged[0].name}: {damaged[0].problem}")
    if problem:
        say(f"{problem}; the trends are from the run folders, and reported changes were not stored")
    counted = [
        change
        for _, changes, fresh in found
        for change in changes
        if not change.doubt and (since or change.run in fresh) and (fail_on != "slower" or change.is_slower)
    ]
    return Exit.FAILED if fail_on and counted else Exit.PASSED


def chosen(trends: list[Trend], scenario: str, folder: Path) -> list[Trend]:
    """Return the trends of a scenario, or all without one. InputError if the scenario has no runs."""
    if not scenario:
        return trends
    name = _name_of(scenario)
    wanted = [trend for trend in trends if trend.scenario == name]
    if not wanted:
        known = sorted({trend.scenario for trend in trends})
        guess = units.nearest(name, known)
        meant = f" (did you mean {guess}?)" if guess else ""
        hint = f"it has runs of {', '.join(known[:10])}" if known else "replay run makes them"
        raise InputError(f"{folder} has no runs of a scenario {name!r}{meant}", hint=hint)
    return wanted


def _name_of(scenario: str) -> str:
    """Return the name of a scenario that was given by name or by file."""
    return Path(scenario).stem if scenario.endswith(".toml") else scenario


def _begin(since: str, trends: list[Trend]) -> int:
    """Return when a build, or the run of that name, first ran, in ns since the epoch; 0 if `since` is empty.

    UsageError if there is no run of it.
    """
    if not since:
        return 0
    times = [row.started_ns for trend in trends for row in trend.rows if since in (row.build, row.name)]
    if not times:
        raise UsageError(
            f"--since {since}: there is no run of this build or name", hint="replay runs --json lists builds"
        )
    return min(times)


def _json(
    found: list[tuple[Trend, list[Change], set[str]]], damaged: list[Any], parts: dict[Kind, int]
) -> bytes:
    import msgspec

    document = {
        "scenarios": [
            {
                "scenario": trend.scenario,
                "load": trend.load,
                "kind": trend.kind,
                "too_few": trend.too_few,
                "hosts": trend.hosts,
                "builds": trend.builds,
                "left_out": trend.left_out,
                "unjudged": trend.unjudged,
                "judges_p99": trend.judges_p99,
                "changes": [
                    msgspec.to_builtins(change) | {"new": change.run in fresh, "slower": change.is_slower}
                    for change in changes
                ],
                "runs": [msgspec.to_builtins(row) for row in trend.rows],
            }
            for trend, changes, fresh in found
        ],
        "in_no_trend": parts,
        "unreadable": [{"name": row.name, "problem": row.problem} for row in damaged],
    }
    text = msgspec.json.encode(without_surrogates(document))
    return json_shown(msgspec.json.format(text, indent=2)) + b"\n"


def _print(trend: Trend, changes: list[Change], fresh: set[str]) -> None:
    from replay.history.finding import KINDS
    from replay.history.trends import P99_REQUESTS

    hosts = units.counted(trend.hosts, "host")
    click.echo(
        f"{shown(trend.scenario)} ({trend.load[:6]}): {units.counted(len(trend.rows), *KINDS[trend.kind])} of"
        f" {units.counted(trend.builds, 'build')} on {hosts}"
    )
    for line in _line_of(trend):
        click.echo(f"  {line}")
    for change in changes:
        _print_change(change, "new" if change.run in fresh else "reported before")
    if not changes:
        from replay.history.change_points import RUNS_MIN

        few = f"too few {KINDS[trend.kind][1]} to detect a change: {len(trend.rows)} of {RUNS_MIN}"
        click.echo(f"  {few}" if trend.too_few else "  no change")
    if trend.kind == "run" and not trend.too_few and not trend.judges_p99:
        click.echo(f"  p99 is not judged: it needs {P99_REQUESTS:,} requests in nine of ten runs")
    if trend.left_out:
        left = ", ".join(f"{count} {verdict}" for verdict, count in sorted(trend.left_out.items()))
        click.echo(f"  not compared: {left}")
    if trend.unjudged:
        names = ", ".join(shown(route) for route in trend.unjudged[:3])
        more = f" and {len(trend.unjudged) - 3:,} more" if len(trend.unjudged) > 3 else ""
        click.echo(
            f"  routes not judged (too few requests or runs, or not among the 20 largest): {names}{more}"
        )


def _line_of(trend: Trend) -> list[str]:
    """Return the latest p99 values or peaks as a sparkline, with the range of all of them; empty if none is known."""
    text: Callable[[float], str]
    values: Sequence[float]
    if trend.kind == "peak":
        values = [row.peak_per_s for row in trend.rows if row.peak_per_s is not None]
        text = units.format_rate
    else:
        values = [f.p99_ns for row in trend.rows for f in row.figures[:1] if f.p99_ns is not None]
        text = units.format_latency
    if not values:
        return []
    name = "peak" if trend.kind == "peak" else "p99"
    return [f"{name:<4} {_sparks(values[-_SPARKS_MAX:])}  {text(min(values))} to {text(max(values))}"]


def _print_change(change: Change, state: str) -> None:
    when = dt.datetime.fromtimestamp(change.started_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M")
    begins = f"build {shown(change.build)}" if change.build else f"run {shown(change.run)}"
    if change.doubt:
        click.echo(f"  cannot tell: from {begins} ({when}) on, {moved_text(change.moved[0])}: {change.doubt}")
        return
    worse, better = _WORSE.get(change.moved[0].metric, ("slower", "faster"))
    word = worse if change.is_slower else better
    click.echo(f"  {word} from {begins} ({when}) on, {state}:")
    for moved in change.moved[:_MOVED_MAX]:
        click.echo(f"    {moved_text(moved)}")
    if len(change.moved) > _MOVED_MAX:
        click.echo(f"    and {len(change.moved) - _MOVED_MAX} more")


def moved_text(moved: Moved) -> str:
    """Return text such as `p99 of GET /a +6.1% (41.2 ms to 43.7 ms)`."""
    what = f"{_WHAT[moved.metric]} of {shown(moved.route) or 'all requests'}"
    if moved.metric == "failed":
        points = f"{100 * moved.change:+.2f} points"
        return f"{what} {points} ({units.format_share(moved.before)} to {units.format_share(moved.after)})"
    if moved.metric == "peak":
        return f"peak {moved.change:+.1%} ({units.format_rate(moved.before)} to {units.format_rate(moved.after)})"
    before, after = (units.format_latency(round(value)) for value in (moved.before, moved.after))
    return f"{what} {moved.change:+.1%} ({before} to {after})"


def _sparks(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    span = (high - low) or 1
    return "".join(_SPARKS[int((value - low) * (len(_SPARKS) - 1) / span)] for value in values)
