"""`replay follow`: sends each entry of a growing source to a target, a fixed delay after it was recorded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import Exit, UsageError

from .flags import flags_of_all, settings_flags
from .help import GroupedCommand
from .options import out_option
from .outputs import Outputs, output_options, outputs_of
from .places import RUNS, remember_run, result_folder
from .reading_options import contents_options, format_options, options_of
from .run import exit_code, made_sinks, print_to_stderr, read_scenario, report_console_for
from .streams import say, shown_of

if TYPE_CHECKING:
    from replay.engine.sinks import Sink
    from replay.following.follow import Following
    from replay.following.opening import Wanted
    from replay.following.stream import Stream
    from replay.report.console import Console
    from replay.settings.scenario import Scenario

NOT_FOLLOWED = frozenset(
    {"window.from", "window.until", "window.tz", "speed", "compress_to", "rate", "peak", "start_at"}
)
"""Settings that this verb does not have. All but `start_at` need a complete recording."""

HTTP = "http"


def _flags() -> list[str]:
    """Return the keys of the settings that have a flag here: all but NOT_FOLLOWED and those of Kafka."""
    from replay.settings.table import SETTINGS

    return [key for key in flags_of_all() if key not in NOT_FOLLOWED and SETTINGS[key].group != "Kafka"]


@click.command(
    name="follow",
    cls=GroupedCommand,
    short_help="Replay a growing log against a target, a few seconds later.",
)
@click.argument("paths", nargs=-1, metavar="SOURCE [SCENARIO.toml]")
@settings_flags(
    _flags(),
    words={
        "target": "Where to send: http[s]://HOST[:PORT][/BASE/PATH], or kafka://HOST:PORT[/TOPIC] for records.",
        "duration": "Stop after this time [default: on a signal, or at the end of the source].",
    },
)
@out_option("Folder for the run [default: runs/NAME-TIME].")
@click.option("--scenario", metavar="FILE", help="Scenario file; flags override it.")
@click.option(
    "--mirror",
    is_flag=True,
    help="With SOURCE http: follow the requests that a proxy mirrors (nginx, Envoy, HAProxy).",
)
@click.option(
    "--listen", metavar="HOST:PORT", help="With --mirror: address to receive the mirrored requests on."
)
@click.option(
    "--delay",
    metavar="TIME",
    help="How long after its recording each entry is sent [default: depends on the source].",
)
@click.option(
    "--from",
    "from_",
    type=click.Choice(["now", "beginning"]),
    default="now",
    help="Follow new entries only, or start at the beginning of the file [default: now].",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="X.trace",
    help="Write the followed entries to this trace.",
)
@format_options
@contents_options
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="NAME=...",
    help="Also export the figures of each second: otlp=URL, prometheus=HOST:PORT, csv=FILE, jsonl=FILE, or a sink of an "
    "installed package; repeatable.",
)
@output_options("report.html in the run's folder")
@click.option("--plain", is_flag=True, help="Disable colours and the live view.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only; the exit code shows the result.")
def command(
    paths: tuple[str, ...], out: Path | None, delay: str | None, from_: str, keep: Path | None, sinks: tuple[str, ...],
    mirror: bool, listen: str | None, plain: bool, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    """Follow a log while it is written, and send each of its requests to a target some seconds after it was recorded.

    SOURCE is a growing log file, - for standard input, http with --mirror --listen HOST:PORT for the requests that a
    proxy mirrors, or kafka://HOST:PORT/TOPIC,TOPIC, whose records go to a --target kafka://HOST:PORT[/TOPIC]. Rotated
    and truncated files are followed; if the file does not exist yet, the command waits for it. It stops on SIGINT or
    SIGTERM, after -d, or at the end of standard input. The result is a run like that of `replay run`, and the exit
    codes are the same.
    """
    from replay.audience import audience
    from replay.following.selecting import refuse_unfit
    from replay.units import parse_duration_ns

    scenario, sources = read_scenario(paths, given)
    if len(sources) != 1:
        raise UsageError(f"{len(sources)} sources: {', '.join(sources)}", hint="follow one source per run")
    is_kafka = sources[0].startswith("kafka://")
    _check_target(scenario.target, is_kafka=is_kafka)
    refuse_unfit(scenario)
    delay_ns = None if delay is None else parse_duration_ns(delay)
    if delay_ns is not None and delay_ns <= 0:
        raise UsageError(
            f"--delay {delay} is not above 0: an entry cannot be sent before it was recorded",
            hint="--delay 3s",
        )
    outputs, writers = outputs_of(given), made_sinks(sinks)
    console = report_console_for(plain, quiet, stderr=outputs.takes_stdout)
    is_mirror = _is_mirror(sources[0], mirror, listen)
    if is_kafka:
        stream = _topics(sources[0], scenario, from_, keep)
    else:
        stream = _mirror(scenario, listen) if is_mirror else _opened(sources[0], from_)
    wanted = _wanted(sources[0], delay_ns, scenario, keep, given)
    with (
        result_folder(out, RUNS, "stdin" if sources[0] == "-" else sources[0]) as folder,
        contextlib.closing(stream),
        audience(scenario, print_to_stderr) as watching,
    ):
        watching.waiting(f"Waiting for the first entries of {stream.name}.")
        sinks_of_all = [*writers, *watching.sinks]
        raise SystemExit(_follow(stream, wanted, scenario, folder, console, plain, outputs, sinks_of_all))


def _is_mirror(name: str, mirror: bool, listen: str | None) -> bool:
    """Return whether mirrored requests are followed. UsageError if the options contradict each other."""
    if name == HTTP and mirror and listen:
        return True
    if name == HTTP and not Path(name).exists():
        raise UsageError(
            "http needs --mirror and --listen", hint="replay follow http --mirror --listen 127.0.0.1:8081"
        )
    if mirror or listen:
        raise UsageError(
            "--mirror, --listen and SOURCE http belong together",
            hint="replay follow http --mirror --listen HOST:PORT",
        )
    return False


def _mirror(scenario: Scenario, place: str | None) -> Stream:
    """Open the receiver of mirrored requests. UsageError if it is also the target, which would be a loop."""
    from replay.following.mirror import MirrorStream
    from replay.recording.listening import parse_place

    assert place is not None
    host, port = parse_place(place)
    name, _, target_port = scenario.target.partition("://")[2].partition("/")[0].rpartition(":")
    if port and target_port == str(port) and name.strip("[]") in (host, "localhost"):
        raise UsageError(f"{scenario.target} is where the mirror listens", hint="give another target")
    return MirrorStream(place, say)


def _check_target(url: str, *, is_kafka: bool) -> None:
    """Raise UsageError if the target cannot receive the entries of this source."""
    from replay.settings.target import scheme_of

    scheme = scheme_of(url)
    if is_kafka and scheme != "kafka":
        raise UsageError(
            f"a topic cannot be followed to {url}: its records are not HTTP requests",
            hint="--target kafka://HOST:PORT[/TOPIC]",
        )
    if not is_kafka and scheme not in ("http", "https"):
        raise UsageError(
            f"{url} cannot be the target: only http:// and https:// targets can receive this source",
            hint="--target http://127.0.0.1:8080",
        )


def _topics(name: str, scenario: Scenario, from_: str, keep: Path | None) -> Stream:
    """Open Kafka topics at their current ends.

    UsageError if the topics cannot be followed, or if the target would write to a topic that is followed.
    """
    from replay.following.topics import TopicStream
    from replay.plan.safety import allowed
    from replay.protocols.kafka.record import parse_source
    from replay.protocols.kafka.tail import refuse_loop

    source = parse_source(name)
    if from_ != "now":
        raise UsageError(
            "--from beginning: a topic can only be followed from its current end",
            hint="use replay record, then replay run",
        )
    if keep is not None:
        raise UsageError("--keep does not apply to topics", hint=f"replay record {name} records them")
    refuse_loop(source, scenario.target, scenario.kafka.topic_map)
    return TopicStream(source, scenario.kafka, allowed(scenario))


def _opened(name: str, from_: str) -> Stream:
    """Open standard input or a log file, the latter for new entries only or from its beginning.

    Entries that arrive while the run is prepared are not lost. UsageError for a URL.
    """
    from replay.following.log import GrowingLog
    from replay.following.pipe import StandardInput

    if name == "-":
        return StandardInput()
    if "://" in name:
        raise UsageError(f"{name} cannot be followed", hint="follow a log file, or - for standard input")
    return GrowingLog(Path(name), from_beginning=from_ == "beginning")


def _wanted(
    name: str, delay_ns: int | None, scenario: Scenario, keep: Path | None, given: dict[str, Any]
) -> Wanted:
    from replay.errors import OutputError
    from replay.following.opening import Wanted
    from replay.trace.importing.detection import named_importer

    if keep is not None and os.path.lexists(keep):
        raise OutputError(f"{keep} exists", hint="give another --keep")
    if keep is not None and not os.access(keep.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{keep} cannot be written", hint="give another --keep, in a folder that exists")
    options = options_of(given)
    importer = None if given["format_name"] is None else named_importer(given["format_name"], options)
    return Wanted(
        name=name, format=importer, options=options, delay_ns=delay_ns, seed=scenario.seed, keep=keep
    )


def _follow(
    stream: Stream, wanted: Wanted, scenario: Scenario, folder: Path, console: Console, plain: bool,
    outputs: Outputs, sinks: list[Sink],
) -> int:  # fmt: skip
    """Prepare and run, print the report, write the outputs, and return the exit code."""
    from replay.engine.blocking import owns_signals, run_blocking
    from replay.engine.nursery import run_targets
    from replay.engine.prepare import find_targets, kernels_of, planned
    from replay.following.follow import Following
    from replay.following.opening import format_of
    from replay.report.console import Console
    from replay.report.live import LiveView
    from replay.report.outputs.of_run import RunResult
    from replay.report.terminal import print_report
    from replay.results.run import load_run

    from .progress import KERNELS, warm_kernels

    errors = Console(stderr=True, quiet=console.quiet, force_terminal=False if plain else None)
    found = run_blocking(lambda: find_targets(scenario))
    warm_kernels(errors, (*KERNELS, *kernels_of(scenario)))
    if not stream.wait_for_head(lambda: False, lambda why: say(f"{why}: waiting for its first lines")):
        return int(Exit.INTERRUPTED)
    following = Following(stream, format_of(stream, wanted), wanted, scenario, say)
    with _closing(following):
        following.wait_for_history()
        following.set_addresses(found[0].hosts)
        plan = planned(following.schedule(), found[0], partial(_show, following, console))
        with LiveView(errors, plan.schedule.plan) as live:
            all_sinks = [*([] if console.quiet else [live]), *sinks]
            document = run_blocking(
                partial(
                    run_targets, [plan], scenario, folder, sinks=all_sinks, signals=owns_signals(), last=True,
                    live=following,
                )
            )  # fmt: skip
    result = RunResult(load_run(folder))
    remember_run(folder)
    keep_problem = _about_kept(following, wanted.keep, folder)
    with shown_of(folder):
        if not console.quiet:
            print_report(result.run, console)
        outputs.write(result, folder / "report.html")
    if following.reading.failure is not None:
        say(str(following.reading.failure), f"the measurements until then are in {folder}")
        return int(Exit.CRASHED)
    return int(Exit.CRASHED) if keep_problem else exit_code(document)


def _about_kept(following: Following, keep: Path | None, folder: Path) -> str:
    """Report a problem with the trace of --keep and return its text, which is empty without a problem.

    If no entry arrived, that is reported, too, but is not a problem.
    """
    problem = following.keep_problem()
    if problem:
        say(problem, f"the run is saved in {folder}")
    elif keep is not None and not os.path.lexists(keep):
        say(f"{keep} was not written: no entry arrived")
    return problem


@contextlib.contextmanager
def _closing(following: Following) -> Iterator[None]:
    try:
        yield
    finally:
        following.close()


def _show(following: Following, console: Console, target: Any) -> None:
    from replay.protocols.registry import unused_settings
    from replay.report.followed import print_followed
    from replay.units import counted, format_duration

    history = following.reading.history
    source = [
        ("source", f"{following.stream.name}, {following.reading.importer.title}"),
        ("delay", f"{format_duration(following.delay_ns)} ({following.delay_reason})"),
    ]
    if history.rows:
        source.append(("known", f"the routes of the last {counted(history.rows, 'request')}"))
    print_followed(
        target.schedule.plan, target.schedule.scenario, target.found.hosts, source, console,
        unused=unused_settings(target.schedule.scenario),
    )  # fmt: skip
