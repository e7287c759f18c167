"""`replay run`: a trace or a log onto a target, and its report."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import (
    Exit,
    OutputError,
    UsageError,
    reason_of,
)

from .flags import flags_of_all, given_settings, settings_flags
from .help import GroupedCommand
from .options import out_option
from .places import result_folder
from .streams import shown_of

if TYPE_CHECKING:
    from replay.report.console import Console
    from replay.settings.scenario import Scenario

RUNS = Path("runs")
"""Where runs go without `-o`."""


def read_scenario(paths: tuple[str, ...], given: Mapping[str, Any]) -> tuple[Scenario, list[str]]:
    """The scenario of a command line, and the recordings to replay."""
    from replay.settings.file import load

    files = [path for path in paths if path.endswith(".toml")]
    recordings = [path for path in paths if not path.endswith(".toml")]
    files += [given["scenario"]] if given.get("scenario") else []
    if len(files) > 1:
        raise UsageError(f"more than one scenario: {', '.join(files)}")
    path = Path(files[0]) if files else None
    scenario = load(path, *given_settings(given))
    if not recordings and scenario.trace and path is not None:
        recordings = [str(path.parent / scenario.trace)]
    if not recordings:
        raise UsageError("no trace or log to replay", hint="name one: TRACE|LOG --target URL")
    return scenario, recordings


@contextlib.contextmanager
def work_area(out: Path) -> Iterator[Path]:
    """A folder beside the run's own for what it needs meanwhile; gone afterwards."""
    area = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        try:
            area.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"{out} cannot be made: {reason_of(error)}",
                hint="give another place with -o",
            ) from None
        yield area
    finally:
        shutil.rmtree(area, ignore_errors=True)


@click.command(name="run", cls=GroupedCommand, short_help="Replay a trace or a log onto a target.")
@click.argument("paths", nargs=-1, metavar="TRACE|LOG...|SCENARIO.toml")
@settings_flags(flags_of_all())
@out_option("Folder of the run [default: runs/NAME-TIME].")
@click.option("--scenario", metavar="FILE", help="Scenario; flags override it.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and send nothing.")
@click.option("--plain", is_flag=True, help="No colours, no live view.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only; the exit code says how it went.")
def command(
    paths: tuple[str, ...], out: Path | None, dry_run: bool, plain: bool, quiet: bool, **given: Any
) -> None:
    """Replay a trace, or logs, onto a target: each request at its recorded moment.

    Exit codes: 0 passed, 1 the run failed after it had begun, or its target moved to where it is not allowed, 2 wrong
    usage or over a limit (nothing was sent), 4 invalid (the generator was the bottleneck), 99 an SLO failed, the circuit
    breaker opened, or more than half of the responses have a worse status than recorded, 130 interrupted.
    """
    from replay.settings.target import parse_target

    scenario, recordings = read_scenario(paths, given)
    parse_target(scenario.target)
    console = report_console_for(plain, quiet)
    if dry_run:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="replay-") as area:
            _prepare(scenario, recordings, Path(area), console)
        return
    with result_folder(out, RUNS, recordings[0]) as folder, work_area(folder) as area:
        raise SystemExit(replay_recordings(scenario, recordings, folder, area, console, plain))


def report_console_for(plain: bool, quiet: bool) -> Console:
    """Standard output as the report has it; without colours and cursor movements where not wanted."""
    from replay.report.console import Console
    from replay.report.page import WIDTH, report_console

    console = Console(width=WIDTH, no_color=True, force_terminal=False) if plain else report_console()
    console.quiet = quiet
    return console


def _prepare(scenario: Scenario, recordings: list[str], area: Path, console: Console) -> list[Any]:
    """Open or import the recordings, plan, check the plan against its target, print it; a schedule for each target."""
    import trio

    from replay.lane.resolve import resolve
    from replay.lane.sizing import check_sockets
    from replay.plan.safety import check_plan
    from replay.plan.schedule import make_schedules
    from replay.protocols.http1.adapter import why_portable
    from replay.report.console import Console
    from replay.report.plan import print_plan
    from replay.settings.target import parse_target
    from replay.settings.unused import unused_settings
    from replay.trace.importing import open_trace

    from .import_ import ProgressBar
    from .progress import warm_kernels

    targets = [parse_target(own.target) for own in scenario.by_target()]
    places = [[place.host for place in trio.run(resolve, target, scenario)] for target in targets]
    errors = Console(stderr=True, highlight=False, quiet=console.quiet)
    if any(target.is_kafka for target in targets):
        from replay.protocols.kafka.adapter import KERNELS

        warm_kernels(errors, KERNELS)
    warm_kernels(errors)
    with ProgressBar(errors) as progress:
        trace = open_trace(recordings, area / "imported.trace", progress=progress)
    name = recordings[0] if len(recordings) == 1 else f"{recordings[0]} and {len(recordings) - 1} more"
    schedules = make_schedules(trace, scenario, name=name, area=area)
    for schedule, addresses in zip(schedules, places, strict=True):
        target = schedule.target
        because = "" if target.is_kafka else why_portable(scenario.engine, secure=target.is_secure)
        unused = unused_settings(scenario) if schedule is schedules[-1] else []
        print_plan(
            schedule.plan, schedule.scenario, addresses, console, portable_because=because, unused=unused
        )  # fmt: skip
        check_plan(schedule.plan, target, addresses, trace.requests.hosts, schedule.scenario)
        check_sockets(schedule.plan, schedule.scenario, len(addresses))
    return schedules


def replay_recordings(
    scenario: Scenario, recordings: list[str], folder: Path, area: Path, console: Console, plain: bool
) -> int:
    """Run it, print its report, and say how it went as an exit code."""
    from replay.engine.nursery import run_blocking
    from replay.protocols.kafka import fit_for
    from replay.report.console import Console
    from replay.report.live import LiveView
    from replay.report.terminal import print_report
    from replay.results.run import load_run

    schedules = _prepare(scenario, recordings, area, console)
    errors = Console(stderr=True, quiet=console.quiet, force_terminal=False if plain else None)
    with LiveView(errors, *(schedule.plan for schedule in schedules)) as live:
        document = run_blocking(
            schedules[0], scenario, folder, observer=live.update,
            fit=fit_for(*(schedule.target for schedule in schedules)), also=schedules[1:],
            last=True,
        )  # fmt: skip
    if not console.quiet:
        with shown_of(folder):
            print_report(load_run(folder), console)
    return exit_code(document)


def exit_code(document: Any) -> int:
    """What a run's document says to scripts."""
    from replay.results.failures import failures_of

    if document.ending.how == "interrupted":
        return Exit.INTERRUPTED
    if document.ending.how == "not_allowed":
        return Exit.CRASHED if document.accounts.sent else Exit.USAGE
    if document.validity.verdict == "INVALID":
        return Exit.INVALID
    return Exit.FAILED if failures_of(document) else Exit.PASSED
