"""`replay run`: replays a trace or a log onto a target, and prints a report."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from .outputs import Outputs, output_options, outputs_of
from .places import RUNS, result_folder
from .streams import say, shown_of

if TYPE_CHECKING:
    from replay.engine.prepare import Prepared
    from replay.engine.sinks import Sink
    from replay.protocols.protocol import TargetPlan
    from replay.report.console import Console
    from replay.settings.scenario import Scenario


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
    """A temporary folder beside the run's own."""
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
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="NAME=...",
    help="Also write each second to csv=FILE, jsonl=FILE, or a sink of an installed package; repeatable.",
)
@output_options("report.html in the run's folder")
@click.option("--dry-run", is_flag=True, help="Print the plan, and send nothing.")
@click.option("--plain", is_flag=True, help="No colours, no live view.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only; the exit code says how it went.")
def command(
    paths: tuple[str, ...], out: Path | None, sinks: tuple[str, ...], dry_run: bool, plain: bool, quiet: bool, **given: Any
) -> None:  # fmt: skip
    """Replay a trace, or logs, onto a target: each request at its recorded moment.

    Exit codes: 0 passed, 1 the run failed after it had begun, or its target moved to where it is not allowed, 2 wrong
    usage or over a limit (nothing was sent), 4 invalid (the generator was the bottleneck), 99 an SLO failed, the circuit
    breaker opened, or more than half of the responses have a worse status than recorded, 130 interrupted.
    """
    from replay.settings.target import scheme_of

    outputs = outputs_of(given)
    scenario, recordings = read_scenario(paths, given)
    scheme_of(scenario.target)
    writers = made_sinks(sinks)
    console = report_console_for(plain, quiet, stderr=outputs.takes_stdout)
    if dry_run:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="replay-") as area:
            _prepare(scenario, recordings, Path(area), console, sends=False)
        return
    with result_folder(out, RUNS, recordings[0]) as folder, work_area(folder) as area:
        raise SystemExit(
            replay_recordings(
                scenario, recordings, folder, area, console, plain, outputs=outputs, sinks=writers
            )
        )


def made_sinks(texts: tuple[str, ...]) -> list[Sink]:
    """The sinks of `--sink`. UsageError for what is none."""
    if not texts:
        return []
    from replay.engine.sinks import make_sinks

    return make_sinks(texts)


def report_console_for(plain: bool, quiet: bool, stderr: bool = False) -> Console:
    """Where the report goes: stdout, or stderr where a file goes to stdout. `plain`: no colours or cursor movements."""
    from replay.report.console import Console
    from replay.report.page import console_width, report_console

    console = report_console(stderr=stderr)
    if plain:
        console = Console(width=console_width(), no_color=True, force_terminal=False, stderr=stderr)
    console.quiet = quiet
    return console


def _prepare(
    scenario: Scenario, recordings: list[str], area: Path, console: Console, *, sends: bool = True
) -> Prepared:
    """Open or import the recordings, plan what each target is sent, print the plans, check them."""
    from replay.engine.blocking import run_blocking
    from replay.engine.prepare import find_targets, kernels_of, prepare
    from replay.report.console import Console
    from replay.trace.importing import open_trace

    from .import_ import ProgressBar
    from .progress import KERNELS, OF_A_PLAN, warm_kernels

    found = run_blocking(lambda: find_targets(scenario))
    errors = Console(stderr=True, highlight=False, quiet=console.quiet)
    warm_kernels(errors, (*KERNELS, *kernels_of(scenario)) if sends else OF_A_PLAN)
    with ProgressBar(errors) as progress:
        trace = open_trace(recordings, area / "imported.trace", progress=progress)
    name = recordings[0] if len(recordings) == 1 else f"{recordings[0]} and {len(recordings) - 1} more"
    show = _plan_printer(scenario, len(found), console)
    return prepare(trace, scenario, name=name, area=area, found=found, show=show)


def _plan_printer(scenario: Scenario, targets: int, console: Console) -> Callable[[TargetPlan], None]:
    """A function that prints the plan of each target, and after the last one the settings that no target uses."""
    from replay.protocols.registry import unused_settings
    from replay.report.plan import print_plan

    shown = 0

    def show(target: TargetPlan) -> None:
        nonlocal shown
        shown += 1
        print_plan(
            target.schedule.plan, target.schedule.scenario, target.found.hosts, console,
            portable_because=target.portable_because,
            unused=unused_settings(scenario) if shown == targets else [],
        )  # fmt: skip

    return show


def replay_recordings(
    scenario: Scenario, recordings: list[str], folder: Path, area: Path, console: Console, plain: bool,
    *, outputs: Outputs | None = None, sinks: Sequence[Sink] = (),
) -> int:  # fmt: skip
    """Run, print the report, write the outputs, and return the exit code."""
    from replay.engine.sinks.threads import SINK_NOTES
    from replay.report.console import Console
    from replay.report.live import LiveView
    from replay.report.outputs.of_run import RunResult
    from replay.report.terminal import print_report
    from replay.results.run import load_run

    prepared = _prepare(scenario, recordings, area, console)
    errors = Console(stderr=True, quiet=console.quiet, force_terminal=False if plain else None)
    with LiveView(errors, *prepared.plans) as live:
        document = prepared.run(folder, sinks=[live, *sinks], last=True)
    result = RunResult(load_run(folder))
    with shown_of(folder):
        if not console.quiet:
            print_report(result.run, console)
        for note in document.notes if console.quiet else ():
            if note.code in SINK_NOTES:
                say(f"{note.code}: {note.message}")
        if outputs is not None:
            outputs.write(result, folder / "report.html")
    return exit_code(document)


def exit_code(document: Any) -> int:
    """The exit code of a finished run."""
    from replay.results.failures import failures_of

    if document.ending.how == "interrupted":
        return Exit.INTERRUPTED
    if document.ending.how in ("not_allowed", "over_limit"):
        return Exit.CRASHED if document.accounts.sent else Exit.USAGE
    if document.validity.verdict == "INVALID":
        return Exit.INVALID
    return Exit.FAILED if failures_of(document) else Exit.PASSED
