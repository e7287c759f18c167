"""`replay run`: a trace or a log onto a target, and its report."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from replay.errors import (
    Exit,
    OutputError,
    UsageError,
    reason_of,
)
from replay.report.console import Console
from replay.settings.file import load
from replay.settings.headers import parse_header
from replay.settings.scenario import Scenario
from replay.settings.target import parse_target

from .places import result_folder
from .streams import shown_of

RUNS = Path("runs")
"""Where runs go without `-o`."""

_OPTIONS = (
    (("--target",), "URL", "Where to send: http[s]://HOST[:PORT][/BASE/PATH], kafka://HOST:PORT/TOPIC."),
    (("--sample",), "SHARE", "Replay a share of the requests: 25%."),
    (("--sample-by",), "WHAT", "request, or client: a share of the clients, with all they do."),
    (("--grow",), "WHAT", "What --scale makes more of: requests, sessions or repeat."),
    (("--speed",), "FACTOR", "2, 2x or 200%: twice as fast as recorded."),
    (("--peak",), "RATE", "Scale so that the busiest minute has this rate."),
    (("--compress-to",), "TIME", "As fast as it takes to be this long: a day in 10m."),
    (("--rate",), "RATE", "Constant rate instead: 500/s, 50/1m; max: closed loop."),
    (("-d", "--duration"), "TIME", "End after this long: 30s, 10m."),
    (("-c", "--connections"), "N|auto", "Most connections."),
    (("--connect",), "WHOSE", "pool, per-client or per-request: whose connections are."),
    (("--order",), "due|client", "client: a client's request waits for the answer to its last one."),
    (("-t", "--threads"), "N|auto", "Lanes, a thread each."),
    (("--from", "window.from"), "WHEN", "First moment: 18:00, ISO 8601, +10m."),
    (("--until", "window.until"), "WHEN", "Moment to end before; +10m counts from --from."),
    (("--tz", "window.tz"), "ZONE", "Zone of --from and --until [default: the log's own]."),
    (("--methods",), "LIST", "Methods to send, or all [default: GET,HEAD]."),
    (("--max-rate",), "RATE", "Refuse a plan with a busier second [beyond loopback: 1,000/s]."),
    (("--max-duration",), "TIME", "Refuse a longer plan [beyond loopback: 1h]."),
    (("--max-wait",), "TIME", "For a free connection; 500ms, or a number of seconds [default: 10s]."),
    (("--timeout",), "TIME", "For a whole response; 500ms, or a number of seconds [default: 30s]."),
    (("--host",), "NAME", "Host header [default: the target's]."),
    (("--send-headers",), "LIST", "Recorded headers to send: user-agent,accept; or all [default: none]."),
    (("--client-ip-header",), "NAME", "Send each client's made-up address: X-Forwarded-For."),
    (("--client-ip-range",), "NETWORK", "10.0.0.0/8, 198.18.0.0/15 or 2001:db8::/32."),
    (("--resolve",), "WHEN", "Look the target's name up again: ttl, once, or per-connection [default: ttl]."),
    (("--resolver",), "ADDRESS[:PORT]", "Name server to ask [default: those of resolv.conf]."),
    (("--warm-up",), "TIME", "Send, and do not measure, the first moments."),
    (("--engine",), "NAME", "auto, native or portable."),
    (("--ca", "tls.ca"), "FILE", "https: certificates to trust [default: the system's]."),
    (("--cert", "tls.cert"), "FILE", "https: client certificate, PEM."),
    (("--key", "tls.key"), "FILE", "https: its private key [default: in --cert]."),
    (
        ("--server-name", "tls.server_name"),
        "NAME",
        "https: name to ask for and verify [default: the target's].",
    ),
    (("--acks", "kafka.acks"), "1|all", "Kafka: acknowledgements that a record waits for."),
    (("--compression", "kafka.compression_type"), "NAME", "Kafka: none, gzip, snappy, lz4 or zstd."),
    (("--timestamps", "kafka.timestamps"), "due|recorded", "Kafka: what CreateTime is."),
    (("--partitions", "kafka.partitions"), "auto|recorded|key", "Kafka: which partition a record goes to."),
    (("--answers", "kafka.answers"), "TOPIC", "Kafka: measure until a pipeline's answer on this topic."),
    (("--answers-by", "kafka.answers_by"), "key|HEADER", "Kafka: what an answer has of its record."),
    (("--seed",), "N", "Of bodies' random values."),
)
"""Flags that set a knob of the scenario: names, value, help. The knob is the last name's."""

_SWITCHES = {
    "allow_production": ("--allow-production", True),
    "empty_bodies": ("--empty-bodies", True),
    "no_x_replay": ("--no-x-replay", False),
    "tls__insecure": ("--insecure", True),
    "kafka__consume": ("--consume", True),
    "kafka__enable_idempotence": ("--idempotence", True),
}


def _flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add the flags of `_OPTIONS` in their order."""
    for names, metavar, text in reversed(_OPTIONS):
        shown = [name for name in names if name.startswith("-")]
        parameter = _parameter(names)
        command = click.option(*shown, parameter, metavar=metavar, help=text)(command)
    return command


def _parameter(names: tuple[str, ...]) -> str:
    return names[-1].lstrip("-").replace("-", "_").replace(".", "__")


def _knobs(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Flags that were given as knobs, and the flag of each knob for errors."""
    knobs: dict[str, Any] = {}
    names: dict[str, str] = {}
    for option, *_ in _OPTIONS:
        parameter = _parameter(option)
        knob = parameter.replace("__", ".")
        if given.get(parameter) is not None:
            knobs[knob] = given[parameter]
            names[knob] = next(name for name in option if name.startswith("--"))
    for parameter, (flag, value) in _SWITCHES.items():
        if given.get(parameter):
            knob = parameter.removeprefix("no_").replace("__", ".")
            knobs[knob], names[knob] = value, flag
    if given.get("topic_map"):
        knobs["kafka.topic_map"], names["kafka.topic_map"] = (
            dict(map(_renamed, given["topic_map"])),
            "--topic-map",
        )
    if "seed" in knobs:
        if not knobs["seed"].isdigit():
            raise UsageError(f"--seed: {knobs['seed']!r} is not a number")
        knobs["seed"] = int(knobs["seed"])
    for knob in ("allow", "slo", "scale", "only", "without", "rewrite", "rewrite_host"):
        if given.get(knob):
            knobs[knob], names[knob] = list(given[knob]), f"--{knob.replace('_', '-')}"
    if given.get("header"):
        knobs["headers"], names["headers"] = dict(map(parse_header, given["header"])), "-H"
    return knobs, names


def _renamed(text: str) -> tuple[str, str]:
    """`OLD=NEW`, taken apart."""
    old, separator, new = text.partition("=")
    if not (old and separator and new):
        raise UsageError(f"--topic-map: {text!r} names no two topics", hint="write --topic-map OLD=NEW")
    return old, new


def read_scenario(paths: tuple[str, ...], given: Mapping[str, Any]) -> tuple[Scenario, list[str]]:
    """The scenario of a command line, and the recordings to replay."""
    files = [path for path in paths if path.endswith(".toml")]
    recordings = [path for path in paths if not path.endswith(".toml")]
    files += [given["scenario"]] if given.get("scenario") else []
    if len(files) > 1:
        raise UsageError(f"more than one scenario: {', '.join(files)}")
    path = Path(files[0]) if files else None
    scenario = load(path, *_knobs(given))
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


@click.command(name="run", short_help="Replay a trace or a log onto a target.")
@click.argument("paths", nargs=-1, metavar="TRACE|LOG...|SCENARIO.toml")
@_flags
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="The run's folder [default: runs/NAME-TIME]."
)
@click.option(
    "-H", "--header", multiple=True, metavar="'NAME: VALUE'", help="Send it; $NAME is of the environment."
)
@click.option(
    "--allow",
    multiple=True,
    metavar="HOST",
    help="Allow a target beyond loopback: a name, *.name, address or network.",
)
@click.option("--allow-production", is_flag=True, help="Allow the recording's own origin as a target.")
@click.option(
    "--slo",
    multiple=True,
    metavar="SLO",
    help="p99<250ms, 'errors<1% over 10s', 'statuses differ<5%'; 99 if missed.",
)
@click.option("--scale", multiple=True, metavar="K|ROUTE=K", help="4 times all, or 'POST /v1/users=5'.")
@click.option("--only", multiple=True, metavar="ROUTE", help="Replay only these routes: 'GET /v1/*'.")
@click.option("--without", multiple=True, metavar="ROUTE", help="Leave these routes out.")
@click.option("--rewrite", multiple=True, metavar="'FROM -> TO'", help="Other targets: '^/v1/ -> /v2/'.")
@click.option(
    "--topic-map", multiple=True, metavar="OLD=NEW", help="Kafka: send a recorded topic to another."
)
@click.option(
    "--idempotence",
    "kafka__enable_idempotence",
    is_flag=True,
    help="Kafka: nothing twice, whatever is sent again.",
)
@click.option("--consume", "kafka__consume", is_flag=True, help="Kafka: measure until records are consumed.")
@click.option(
    "--rewrite-host", multiple=True, metavar="FROM=TO", help="Send a recorded host by another name."
)
@click.option("--empty-bodies", is_flag=True, help="Send POST, PUT and PATCH without bodies.")
@click.option("--insecure", "tls__insecure", is_flag=True, help="https: verify no certificate.")
@click.option("--no-x-replay", is_flag=True, help="Do not number requests by an X-Replay header.")
@click.option("--scenario", metavar="FILE", help="A scenario; flags override it.")
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
    from replay.report.plan import print_plan
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
