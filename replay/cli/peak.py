"""`replay peak`: the highest scale of a trace that a target survives, and whether it comes back from a surge."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from replay import units
from replay.errors import (
    Exit,
    OutputError,
    RefusedError,
    UsageError,
    reason_of,
)
from replay.files import write_whole
from replay.ledger.statuses import ACCEPT
from replay.peaks.climb import Climb, climb
from replay.peaks.recovery import Recovery
from replay.peaks.search import Search, Trial
from replay.peaks.trial import Bench
from replay.report.console import Console, Table
from replay.report.peak import (
    climb_facts,
    in_order,
    rate_at,
    recording_facts,
    surge_facts,
    trial_cells,
    trial_line,
    write_peak_page,
    write_surge_page,
)
from replay.results.run import load_run
from replay.settings.scenario import Scenario
from replay.settings.target import parse_target
from replay.shown import json_shown
from replay.trace.importing import open_trace

from .import_ import ProgressBar, facts
from .places import keeping, result_folder
from .progress import KERNELS, warm_kernels
from .run import (
    RUNS,
    read_scenario,
    report_console_for,
    work_area,
)
from .streams import shown_of

Number = TypeVar("Number", int, float)

ENDINGS = {
    "FOUND": "The highest load that meets every objective: {peak} times the recording, {rate}.",
    "NO_LIMIT": "Every objective is met up to --highest: {peak} times the recording, {rate}.",
    "GENERATOR_LIMITED": "The generator was at its limit; the target met every objective up to {peak} times the"
    " recording.",
    "DID_NOT_RECOVER": "The target did not come back from {above} times the recording; it met every objective up to"
    " {peak} times before.",
    "FAILS_AT_LOWEST": "The target misses {missed} at the lowest load already, {lowest} times the recording, {rate}: lower"
    " --lowest, or give objectives that it can meet (--slo).",
    "OUT_OF_TRIALS": "The answers contradict each other: no peak was found.",
}
_NO_ANSWERS = {"UNKNOWN": Exit.INVALID, "UNSTEADY": Exit.INCONCLUSIVE}
_EXITS = {"FOUND": Exit.PASSED, "NO_LIMIT": Exit.PASSED, "GENERATOR_LIMITED": Exit.INVALID}


def _table(trials: Sequence[Trial]) -> Table:
    """Load against latency and failures: up from the lowest, held, and down again."""
    table = Table(box=None, pad_edge=False, header_style="cyan")
    for name in ("", "times", "rate", "p50", "p99", "failed", "objectives"):
        table.add_column(name, justify="left" if name in ("", "objectives") else "right", overflow="fold")
    for trial in in_order(trials):
        table.add_row(*trial_cells(trial))
    return table


def _sentence(found: Climb) -> str:
    last = found.trials[-1]
    load = last.load if found.verdict == "FAILS_AT_LOWEST" else found.peak
    return ENDINGS[found.verdict].format(
        peak=f"{found.peak:.3g}",
        above=f"{found.above:.3g}",
        rate=rate_at(found, load),
        lowest=f"{last.load:.3g}",
        missed=", ".join(goal for goal, passed in last.passed.items() if not passed),
    )


def _print_climb(console: Console, found: Climb) -> None:
    console.print(_table(found.trials))
    console.print()
    console.print(_sentence(found), style="bold")
    _print_facts(console, climb_facts(found))


def _print_facts(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    table = facts()
    for name, words in rows:
        table.add_row(name, words)
    console.print(table)


def _save(folder: Path, what: Climb | Recovery, recording: dict[str, Any]) -> None:
    """peak.json beside the runs."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and math.isinf(value) else value

    data = {key: finite(value) for key, value in asdict(what).items()} | {"recording": recording}
    path = folder / "peak.json"
    write_whole(path, json_shown(msgspec.json.format(msgspec.json.encode(data), indent=2)) + b"\n")


def _read(parse: Callable[[str], Number], text: str, flag: str) -> Number:
    """What a flag says. UsageError names the flag."""
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}", hint=error.hint) from None


def _duration(text: str, flag: str) -> int:
    value_ns = _read(units.parse_duration_ns, text, flag)
    if value_ns < units.SECOND_NS // 10:
        raise UsageError(f"{flag}: {text!r} is too short for a trial", hint="give 15s")
    return value_ns


def _climb(bench: Bench, console: Console, lowest: str, highest: str, width: str, votes: int) -> Climb:
    search = Search(
        bench.goals,
        _read(units.parse_factor, lowest, "--lowest"),
        _read(units.parse_factor, highest, "--highest"),
        _read(units.parse_share, width, "--width"),
        votes,
        each=bench.each,
    )
    window = bench.prepare()
    console.print(window.words, style="dim")
    found = climb(search, bench, lambda trial: console.print(trial_line(trial), style="dim"))
    last = found.trials[-1]
    if last.status_failure and last.stage == "up" and last.load == search.lowest:
        # Whatever the generator did meanwhile: a refusal is a refusal.
        raise RefusedError(
            f"{last.status_failure} at the lowest load already, {search.lowest:g} times the recording",
            hint=f"check the target, its data and credentials, or accept it: {ACCEPT}",
        )
    found.window = window
    return found


@click.command(name="peak", short_help="The highest load that a target survives, up and down again.")
@click.argument("paths", nargs=-1, metavar="SCENARIO.toml|TRACE")
@click.option("--target", metavar="URL", help="Where to send: http[s]://HOST[:PORT][/BASE/PATH].")
@click.option("--slo", multiple=True, metavar="SLO", help="'p99<250ms' [default: errors<0.1% and errors<1%].")
@click.option("--methods", metavar="LIST", help="Methods to send, or all [default: GET,HEAD].")
@click.option(
    "--from",
    "window__from",
    metavar="WHEN",
    help="Where trials and hold are taken from [default: the busiest part].",
)
@click.option(
    "--until", "window__until", metavar="WHEN", help="Moment before which they end; +10m counts from --from."
)
@click.option(
    "--allow",
    multiple=True,
    metavar="HOST",
    help="Allow a target beyond loopback: a name, *.name, address or network.",
)
@click.option("--empty-bodies", is_flag=True, help="Send POST, PUT and PATCH without bodies.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder for the runs [default: runs/NAME-TIME]."
)
@click.option("--lowest", default="0.25", metavar="K", show_default=True, help="Scale to begin with.")
@click.option("--highest", default="64", metavar="K", show_default=True, help="Scale to end at.")
@click.option(
    "--width", default="2%", metavar="SHARE", show_default=True, help="How close the answer is to be."
)
@click.option("--trial", default="15s", metavar="TIME", show_default=True, help="Length of a trial.")
@click.option("--hold", default="60s", metavar="TIME", show_default=True, help="How long the peak is held.")
@click.option(
    "--votes", type=click.Choice(["1", "3", "5"]), default="3", show_default=True, help="Trials a load."
)
@click.option("--surge", metavar="K", help="Baseline, K times it, the exact baseline again: does it recover?")
@click.option("--trigger", default="20s", metavar="TIME", show_default=True, help="Length of --surge.")
@click.option("--plain", is_flag=True, help="No colours.")
def command(
    paths: tuple[str, ...], out: Path | None, lowest: str, highest: str, width: str, trial: str, hold: str,
    votes: str, surge: str | None, trigger: str, plain: bool, **given: Any,
) -> None:  # fmt: skip
    """Find the highest scale of a trace that meets the objectives; hold it; come down again.

    Trials run the busiest --trial of the recording, the hold the busiest --hold around it at the same mean rate. --from
    begins that window elsewhere; --from with --until names the part of the recording to look for it in.

    Exit codes: 0 found, 1 a trial could not be made after others were, 3 none (or none that could be held), 4 the generator
    was the limit, 99 did not recover, or most responses have a worse status than recorded at the lowest load already.
    """
    scenario, recordings = read_scenario(paths, given)
    parse_target(scenario.target)
    lengths_ns = _duration(trial, "--trial"), _duration(hold, "--hold"), _duration(trigger, "--trigger")
    console, errors = report_console_for(plain, False), Console(stderr=True, highlight=False)
    warm_kernels(errors, [*KERNELS, "workload.scale"])
    with (
        result_folder(out, RUNS, recordings[0]) as folder, _made(folder), work_area(folder) as area, keeping(folder)
    ):  # fmt: skip
        raise SystemExit(_measured(scenario, recordings, folder, area, lengths_ns, console, errors, surge,
                                   (lowest, highest, width, int(votes))))  # fmt: skip


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make the folder; it goes where nothing came into it."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {reason_of(error)}", hint="give another -o") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _measured(
    scenario: Scenario, recordings: list[str], folder: Path, area: Path, lengths_ns: tuple[int, int, int], console: Console,
    errors: Console, surge: str | None, bounds: tuple[str, str, str, int],
) -> int:  # fmt: skip
    """Do it, print it, save it; the exit code."""
    with ProgressBar(errors) as progress:
        trace = open_trace(recordings, area / "imported.trace", progress=progress)
    bench = Bench(trace, scenario, folder, area, trial_ns=lengths_ns[0], hold_ns=lengths_ns[1])
    before = recording_facts(trace.manifest, scenario)
    lines, rejected = trace.manifest.unread()
    recording = {"lines": lines, "rejected": rejected}
    if surge is not None:
        times = _read(units.parse_factor, surge, "--surge")
        recovery = bench.surge(times, lengths_ns[2])
        _save(folder, recovery, recording)
        write_surge_page(
            recovery, load_run(folder / "surge"), times, lengths_ns[2], folder / "peak.html", before
        )
        with shown_of(folder):
            _print_facts(console, [*before, *surge_facts(recovery, times, lengths_ns[2])])
        if recovery.verdict in _NO_ANSWERS:
            return _NO_ANSWERS[recovery.verdict]
        return Exit.FAILED if recovery.verdict == "DID_NOT_RECOVER" else Exit.PASSED
    trial, hold = (units.format_duration(length_ns) for length_ns in lengths_ns[:2])
    before.append(("trials", f"{trial} each; the peak is held for {hold}"))
    found = _climb(bench, errors, *bounds)
    _save(folder, found, recording)
    write_peak_page(found, _sentence(found), folder / "peak.html", before)
    with shown_of(folder):
        _print_facts(console, before)
        _print_climb(console, found)
    if found.recovery == "DID_NOT_RECOVER":
        return Exit.FAILED
    if found.held is False and found.held_load is None:
        return Exit.INCONCLUSIVE
    return _EXITS.get(found.verdict, Exit.INCONCLUSIVE)
