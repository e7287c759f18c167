"""`replay run`: replays a trace or a log against a target, and prints a report."""

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

from .cluster_options import check_unused, cluster_options
from .flags import flags_of_all, given_settings, settings_flags
from .help import GroupedCommand
from .options import out_option
from .outputs import Outputs, output_options, outputs_of
from .places import RUNS, remember_run, result_folder
from .scrub_options import Scrubbing, scrub_options, scrubbing
from .streams import say, shown_of, tell

if TYPE_CHECKING:
    from replay.audience import Audience
    from replay.engine.prepare import Prepared
    from replay.engine.sinks import Sink
    from replay.protocols.protocol import TargetPlan
    from replay.report.console import Console
    from replay.results.document import RunDocument
    from replay.settings.scenario import Scenario
    from replay.trace.importing import Options

    from .cluster_run import Over


def read_scenario(paths: tuple[str, ...], given: Mapping[str, Any]) -> tuple[Scenario, list[str]]:
    """Return the scenario with the flags applied, and the recordings to replay.

    UsageError for more than one scenario, or if there is no recording, and the errors of `load_scenario`.
    """
    from replay.protocols.scenario import load_scenario

    files = [path for path in paths if path.endswith(".toml")]
    recordings = [path for path in paths if not path.endswith(".toml")]
    files += [given["scenario"]] if given.get("scenario") else []
    if len(files) > 1:
        raise UsageError(f"more than one scenario: {', '.join(files)}")
    path = Path(files[0]) if files else None
    scenario = named_after(load_scenario(path, *given_settings(given)), path)
    if not recordings and scenario.trace and path is not None:
        recordings = [str(path.parent / scenario.trace)]
    if not recordings:
        raise UsageError(
            "no trace or log to replay",
            hint="give one as an argument, or a scenario that sets trace",
        )
    return scenario, recordings


def named_after(scenario: Scenario, path: Path | None) -> Scenario:
    """Return the scenario, named after its file if it has a file and no name."""
    from msgspec.structs import replace

    return scenario if path is None or scenario.name else replace(scenario, name=path.stem)


@contextlib.contextmanager
def work_area(out: Path) -> Iterator[Path]:
    """Make a temporary folder beside the run folder, and remove it when the context ends.

    OutputError if the folder cannot be made.
    """
    area = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        try:
            area.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"{out} cannot be made: {reason_of(error)}",
                hint="give another folder with -o",
            ) from None
        yield area
    finally:
        shutil.rmtree(area, ignore_errors=True)


@click.command(name="run", cls=GroupedCommand, short_help="Replay a trace or a log against a target.")
@click.argument("paths", nargs=-1, metavar="TRACE|LOG...|SCENARIO.toml")
@settings_flags(flags_of_all())
@out_option("Folder for the run [default: runs/NAME-TIME].")
@click.option("--scenario", metavar="FILE", help="Scenario file; flags override it.")
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="NAME=...",
    help="Also export the figures of each second: otlp=URL, prometheus=HOST:PORT, csv=FILE, jsonl=FILE, or a sink of an "
    "installed package; repeatable.",
)
@cluster_options
@output_options("report.html in the run's folder")
@click.option(
    "--set",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a variable that the scenario reads from the environment; repeatable.",
)
@scrub_options
@click.option("--dry-run", is_flag=True, help="Print the plan without sending anything.")
@click.option("--plain", is_flag=True, help="Disable colours and the live view.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only; the exit code shows the result.")
def command(
    paths: tuple[str, ...], out: Path | None, sinks: tuple[str, ...], variables: tuple[str, ...],
    scrub: tuple[str, ...], scrub_key_file: Path | None, keep_secrets: bool,
    dry_run: bool, plain: bool, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    """Replay a trace, or logs, against a target. By default, requests are sent with their recorded timing.

    Exit codes: 0 passed, 1 the run failed after it had begun, or its target moved to an address that is not allowed, 2
    wrong usage or over a limit (nothing was sent), 4 invalid (the generator was the bottleneck), 99 an SLO failed, the
    circuit breaker opened, or more than half of the responses have a worse status than recorded, 130 interrupted.
    """
    from replay.settings.target import scheme_of

    outputs = outputs_of(given)
    scenario, recordings = read_scenario(paths, given)
    set_variables(scenario, variables)
    scheme_of(scenario.target)
    wanted = scrubbing(scrub, scrub_key_file, keep_secrets)
    writers = made_sinks(sinks)
    over = _over(given, scenario)
    console = report_console_for(plain, quiet, stderr=outputs.takes_stdout)
    if dry_run:
        import tempfile

        from replay.settings.instant import instant_of

        instant_of(scenario)

        with tempfile.TemporaryDirectory(prefix="replay-") as area:
            _prepare(scenario, recordings, Path(area), console, sends=False, wanted=wanted)
        return
    with result_folder(out, RUNS, recordings[0]) as folder, work_area(folder) as area:
        raise SystemExit(
            replay_recordings(
                scenario,
                recordings,
                folder,
                area,
                console,
                plain,
                outputs=outputs,
                sinks=writers,
                wanted=wanted,
                over=over,
            )
        )


def _over(given: Mapping[str, Any], scenario: Scenario) -> Over | None:
    """Return the transport that `--cluster` selects; None without it.

    UsageError for options that cannot be combined with it, or that need it.
    """
    if given["cluster"] is None:
        check_unused(given)
        return None
    from .cluster_run import over_cluster

    return over_cluster(given, scenario)


def set_variables(scenario: Scenario, texts: tuple[str, ...]) -> None:
    """Set variables of the scenario for this process (`--set NAME=VALUE`).

    NAME is that of the scenario's variable, or of the environment variable that it reads. UsageError if there is no such
    variable, or no `=`.
    """
    from replay import units

    known = {variable.name: variable.env for variable in scenario.variable if variable.env is not None}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text!r} has no value", hint="write --set NAME=VALUE")
        variable = known.get(name) or (name if name in known.values() else None)
        if variable is None:
            guess = units.nearest(name, known)
            meant = f" (did you mean {guess}?)" if guess else ""
            hint = (
                f"it has {', '.join(known)}" if known else 'give the scenario a [[variable]] with env = "..."'
            )
            raise UsageError(
                f"--set {name}: the scenario reads no such variable from the environment{meant}", hint=hint
            )
        os.environ[variable] = value


def made_sinks(texts: tuple[str, ...]) -> list[Sink]:
    """Make the sinks of `--sink`. UsageError for an invalid one."""
    if not texts:
        return []
    from replay.engine.sinks import make_sinks

    return make_sinks(texts)


def report_console_for(plain: bool, quiet: bool, stderr: bool = False) -> Console:
    """Return the console for the report: stdout, or stderr if an output goes to stdout.

    `plain` disables colors and cursor movements; `quiet` discards everything.
    """
    from replay.report.console import Console
    from replay.report.page import console_width, report_console

    console = report_console(stderr=stderr)
    if plain:
        console = Console(width=console_width(), no_color=True, force_terminal=False, stderr=stderr)
    console.quiet = quiet
    return console


def _prepare(
    scenario: Scenario, recordings: list[str], area: Path, console: Console, *, sends: bool = True,
    wanted: Scrubbing | None = None,
) -> Prepared:  # fmt: skip
    """Open or import the recordings, plan the requests of each target, print the plans and check them."""
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
        trace = open_trace(
            recordings,
            area / "imported.trace",
            options=_import_options(recordings, wanted),
            progress=progress,
        )
    name = recordings[0] if len(recordings) == 1 else f"{recordings[0]} and {len(recordings) - 1} more"
    show = _plan_printer(scenario, len(found), console)
    return prepare(trace, scenario, name=name, area=area, found=found, show=show)


def _import_options(recordings: list[str], wanted: Scrubbing | None) -> Options | None:
    """Return the options for importing recordings; None for the defaults, or if nothing is imported.

    UsageError if an import option is given although nothing is imported.
    """
    from replay.trace import is_trace
    from replay.trace.importing import Options

    if wanted is None:
        return None
    if len(recordings) == 1 and is_trace(Path(recordings[0])):
        wanted.check_used(f"{recordings[0]} is a trace already")
        return None
    return Options(keep_secrets=wanted.keep_secrets, scrub=wanted.rules, scrub_key=wanted.key)


def _plan_printer(scenario: Scenario, targets: int, console: Console) -> Callable[[TargetPlan], None]:
    """Return a function that prints the plan of each target.

    After the plan of the last target it prints the settings that no target uses.
    """
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
    *, outputs: Outputs | None = None, sinks: Sequence[Sink] = (), wanted: Scrubbing | None = None,
    over: Over | None = None,
) -> int:  # fmt: skip
    """Replay recordings, print the report, write the outputs, and return the exit code."""
    from replay.audience import audience
    from replay.settings.instant import instant_of

    instant_ns = instant_of(scenario)
    with audience(scenario, print_to_stderr) as watching:
        watching.waiting("Planning the run.")
        prepared = _prepare(scenario, recordings, area, console, wanted=wanted)
        if over is not None:
            watching.waiting("The agents are preparing.")
            document = over.run(
                prepared, recordings[0], folder, quiet=console.quiet, start_at_ns=instant_ns,
                sinks=[*sinks, *watching.sinks],
            )  # fmt: skip
            code = _report(document, folder, console, outputs)
            _linger(sinks)
            return code
        return _run_and_report(
            prepared, folder, console, plain, watching, outputs=outputs, sinks=sinks, instant_ns=instant_ns
        )


def print_to_stderr(line: str) -> None:
    """Print a line on stderr, apart from the report."""
    tell(line, err=True)


def _run_and_report(
    prepared: Prepared, folder: Path, console: Console, plain: bool, watching: Audience,
    *, outputs: Outputs | None, sinks: Sequence[Sink], instant_ns: int | None,
) -> int:  # fmt: skip
    from replay.report.console import Console
    from replay.report.live import LiveView
    from replay.settings.instant import moment_text

    from .starting import wait_for

    errors = Console(stderr=True, quiet=console.quiet, force_terminal=False if plain else None)
    if instant_ns is not None:
        watching.waiting(f"The first request is due at {moment_text(instant_ns)}.")
        wait_for(
            instant_ns,
            (lambda line: None) if console.quiet else print_to_stderr,
            plain=plain or console.quiet,
        )
    with LiveView(errors, *prepared.plans) as live:
        all_sinks = [*([] if console.quiet else [live]), *sinks, *watching.sinks]
        document = prepared.run(folder, sinks=all_sinks, start_at_ns=instant_ns, last=True)
    code = _report(document, folder, console, outputs)
    _linger(sinks)
    return code


def _report(document: RunDocument, folder: Path, console: Console, outputs: Outputs | None) -> int:
    """Print the report of a finished run, write the outputs, and return the exit code."""
    from replay.engine.sinks.threads import SINK_NOTES
    from replay.report.outputs.of_run import RunResult
    from replay.report.terminal import print_report
    from replay.results.run import load_run

    result = RunResult(load_run(folder))
    remember_run(folder)
    with shown_of(folder):
        if not console.quiet:
            print_report(result.run, console)
        for note in document.notes if console.quiet else ():
            if note.code in SINK_NOTES:
                say(f"{note.code}: {note.message}")
        if outputs is not None:
            outputs.write(result, folder / "report.html")
    return exit_code(document)


def _linger(sinks: Sequence[Sink]) -> None:
    """Wait for sinks that need more time after the report.

    An interrupt ends the wait. The run is already saved.
    """
    from replay.engine.sinks.interface import LingeringSink

    waiting = [sink for sink in sinks if isinstance(sink, LingeringSink) and sink.lingering()]
    for sink in waiting:
        say(sink.lingering())
    with contextlib.suppress(KeyboardInterrupt):
        for sink in waiting:
            if sentence := sink.linger():
                say(sentence)


def exit_code(document: Any) -> int:
    """Return the exit code of a finished run."""
    from replay.results.failures import failures_of

    if document.ending.how == "interrupted":
        return Exit.INTERRUPTED
    # "killed": the process or every agent was lost. "failed": the run or some of its agents could not continue.
    if document.ending.how in ("killed", "failed"):
        return Exit.CRASHED
    if document.ending.how in ("not_allowed", "over_limit"):
        return Exit.CRASHED if document.accounts.sent else Exit.USAGE
    if document.validity.verdict == "INVALID":
        return Exit.INVALID
    return Exit.FAILED if failures_of(document) else Exit.PASSED
