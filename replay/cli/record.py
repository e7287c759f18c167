"""`replay record`: records live HTTP, or the topics of a Kafka cluster, as a trace."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Any

import click

from replay import units
from replay.errors import Exit, UsageError

from .options import out_option
from .scrub_options import scrub_options
from .streams import tell

HTTP = "http"

KAFKA_OPTIONS = ("from_", "until", "resume", "scenario", "isolation")
HTTP_OPTIONS = (
    "listen", "upstream", "upstream_ca", "mirror", "answer", "cert", "key", "record_headers", "body_limit", "keep_responses",
    "keep_secrets", "scrub", "scrub_key_file",
)  # fmt: skip


class _RecordCommand(click.Command):
    """The verb, whose help lists its options in groups: for HTTP, for Kafka, for both."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group."""
        groups: dict[str, list[tuple[str, str]]] = {"HTTP (replay record http)": []}
        groups |= {"Kafka (replay record kafka://...)": [], "Both": []}
        http, kafka, both = groups.values()
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                name = parameter.name
                (http if name in HTTP_OPTIONS else kafka if name in KAFKA_OPTIONS else both).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _refuse_others(context: click.Context, names: tuple[str, ...], source: str, other: str) -> None:
    """Raise UsageError if an option for the other kind of source was given."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and given is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{parameter.opts[-1] if parameter.opts[-1].startswith('--') else parameter.opts[0]} is not for {source}",
                hint=f"it is for {other}",
            )


def _bounds_ms(from_: str, until: str) -> tuple[int | None, int | None]:
    """Parse `--from` and `--until` into ms since the epoch; None for earliest and latest.

    `+10m` counts from --from, or from now without it. UsageError if a time is invalid, --from is
    in the future, or the range is empty.
    """
    now_ns = time.time_ns()
    from_ns = None if from_ == "earliest" else _moment_ns(from_, "--from", "earliest", now_ns)
    if from_ns is not None and from_ns > now_ns:
        raise UsageError(
            f"--from {from_} is {_shown(from_ns)}, which is in the future",
            hint="give a moment in the past, with its day",
        )
    if until == "latest":
        return None if from_ns is None else from_ns // units.MS_NS, None
    until_ns = _moment_ns(until, "--until", "latest", now_ns if from_ns is None else from_ns)
    if from_ns is not None and until_ns <= from_ns:
        raise UsageError(
            f"--until {until} ({_shown(until_ns)}) is not after --from {from_} ({_shown(from_ns)})",
            hint="give a later --until, or an earlier --from",
        )
    return None if from_ns is None else from_ns // units.MS_NS, until_ns // units.MS_NS


def _moment_ns(text: str, name: str, word: str, start_ns: int) -> int:
    try:
        return units.parse_moment(text).resolve_ns(start_ns, start_ns, dt.UTC)
    except UsageError as error:
        raise UsageError(f"{name}: {error}", hint=f"{error.hint}, or {word}") from None


def _shown(at_ns: int) -> str:
    return f"{units.to_datetime(at_ns):%Y-%m-%d %H:%M:%S} UTC"


@click.command(
    name="record", cls=_RecordCommand, short_help="Record live HTTP traffic or Kafka topics to a trace."
)
@click.argument("source", metavar="http|kafka://HOST:PORT/TOPIC[,TOPIC]")
@out_option("Trace to write: NAME.trace.", required=True)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    help="Address to receive requests on.",
)
@click.option("--upstream", metavar="URL", help="Service that requests are forwarded to, unchanged.")
@click.option(
    "--upstream-ca",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="PEM file of the authorities to trust for an https:// service [default: the system's].",
)
@click.option(
    "--mirror",
    is_flag=True,
    help="Receive the requests that a proxy mirrors (nginx mirror, Envoy, HAProxy, Traefik).",
)
@click.option(
    "--answer",
    type=click.IntRange(200, 299),
    metavar="STATUS",
    default=204,
    show_default=True,
    help="With --mirror: status of every response.",
)
@click.option(
    "--cert",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Certificate (PEM) for clients that use TLS.",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Private key of --cert [default: in the same file].",
)
@click.option(
    "--record-headers",
    metavar="LIST",
    default="all",
    show_default=True,
    help="Request headers to record: all, none, or accept,x-*,!x-trace. Secrets are replaced unless --keep-secrets is set.",
)
@click.option(
    "--body-limit",
    metavar="SIZE",
    multiple=True,
    help="Most bytes of a body to record [default: 1MiB]; 'POST /upload=0' for one route.",
)
@click.option("--keep-responses", is_flag=True, help="Also record the headers and bodies of responses.")
@scrub_options
@click.option(
    "--from",
    "from_",
    metavar="WHEN",
    default="earliest",
    help="Where to start: earliest, or a time such as 18:00 or ISO 8601, in UTC without a zone [default: earliest].",
)
@click.option(
    "--until",
    metavar="WHEN",
    default="latest",
    help="Where to stop: latest (the current end), or a time; +10m counts from --from, or from now without it.",
)
@click.option("--resume", metavar="TRACE", help="Trace of an earlier recording, to continue at its end.")
@click.option("--scenario", metavar="FILE", help="Scenario whose [kafka] table has the connection settings.")
@click.option(
    "--isolation",
    type=click.Choice(["read_committed", "read_uncommitted"]),
    default="read_committed",
    help="read_uncommitted also records open and aborted transactions [default: read_committed].",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="HOST",
    help="Host beyond loopback that is allowed as --upstream or as a broker of the cluster.",
)
@click.option("--force", is_flag=True, help="Replace the trace if it exists.")
@click.pass_context
def command(
    context: click.Context, /, source: str, out: Path, allow: tuple[str, ...], force: bool, **given: Any
) -> None:
    """Record live HTTP requests, or the records of Kafka topics, as a trace.

    \b
    replay record http --listen 127.0.0.1:8080 --upstream http://127.0.0.1:9000 -o day.trace
    replay record http --listen 127.0.0.1:8080 --mirror -o day.trace
    replay record kafka://127.0.0.1:9092/orders -o orders.trace

    http: a proxy in front of one service, or a receiver of mirrored requests. Secrets are replaced (--scrub). Ctrl-C or
    SIGTERM stops it cleanly.

    kafka: timestamps, keys, values, headers, partitions. Values are recorded unchanged. Ctrl-C stops it cleanly.
    """
    if source == HTTP:
        from .record_http import HttpOptions, record_http

        _refuse_others(context, KAFKA_OPTIONS, "replay record http", "replay record kafka://HOST:PORT/TOPIC")
        options = HttpOptions(**{name: given[name] for name in HTTP_OPTIONS})
        record_http(options, out, allow=allow, force=force)
        return
    _refuse_others(context, HTTP_OPTIONS, source, "replay record http")
    _record_kafka(source, out, allow=allow, force=force, **{name: given[name] for name in KAFKA_OPTIONS})


def _record_kafka(
    source: str, out: Path, *, from_: str, until: str, resume: str | None, scenario: str | None, isolation: str,
    allow: tuple[str, ...], force: bool,
) -> None:  # fmt: skip
    """Record Kafka topics, and print the summary."""
    from replay.plan.safety import allowed
    from replay.protocols.kafka.record import parse_source, record, resume_offsets
    from replay.report.console import Console
    from replay.settings.file import load
    from replay.trace import Trace

    place = parse_source(source)
    from_ms, until_ms = _bounds_ms(from_, until)
    offsets = resume_offsets(Trace.open(Path(resume)), place.topics) if resume else None
    settings = load(Path(scenario) if scenario else None, flags={"allow": list(allow)})
    with Console(stderr=True).status("recording") as status:
        done = record(
            place, out, from_ms=from_ms, until_ms=until_ms, resume=offsets, kafka=settings.kafka,
            overwrite=force, isolation=isolation, permitted=allowed(settings),
            progress=lambda records: status.update(f"recording: {records:,} records"),
        )  # fmt: skip
    tell(f"{out}: {done.records:,} records of {', '.join(place.topics)}")
    for line in done.remarks():
        tell(line, err=True)
    if not done.complete:
        tell(f"the recording is incomplete; continue with --resume {out}", err=True)
    if done.interrupted:
        raise SystemExit(Exit.INTERRUPTED)
