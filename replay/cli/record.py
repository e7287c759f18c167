"""`replay record`: topics of a Kafka cluster become a trace."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import click

from replay import units
from replay.errors import Exit, UsageError

from .options import out_option
from .streams import tell


def _bounds_ms(from_: str, until: str) -> tuple[int | None, int | None]:
    """`--from` and `--until` in ms since the epoch; None for earliest and latest.

    `+10m` counts from --from, else from now. UsageError where they are no moments, or nothing can be between them.
    """
    now_ns = time.time_ns()
    from_ns = None if from_ == "earliest" else _moment_ns(from_, "--from", "earliest", now_ns)
    if from_ns is not None and from_ns > now_ns:
        raise UsageError(
            f"--from {from_} is {_shown(from_ns)}, which is still to come",
            hint="give a moment that is over, with its day",
        )
    if until == "latest":
        return None if from_ns is None else from_ns // units.MS_NS, None
    until_ns = _moment_ns(until, "--until", "latest", now_ns if from_ns is None else from_ns)
    if from_ns is not None and until_ns <= from_ns:
        raise UsageError(
            f"--until {until} ({_shown(until_ns)}) is not after --from {from_} ({_shown(from_ns)})",
            hint="nothing is between them",
        )
    return None if from_ns is None else from_ns // units.MS_NS, until_ns // units.MS_NS


def _moment_ns(text: str, name: str, word: str, start_ns: int) -> int:
    try:
        return units.parse_moment(text).resolve_ns(start_ns, start_ns, dt.UTC)
    except UsageError as error:
        raise UsageError(f"{name}: {error}", hint=f"{error.hint}, or {word}") from None


def _shown(at_ns: int) -> str:
    return f"{units.to_datetime(at_ns):%Y-%m-%d %H:%M:%S} UTC"


@click.command(name="record", short_help="Record Kafka topics to a trace.")
@click.argument("source", metavar="kafka://HOST:PORT/TOPIC[,TOPIC]")
@out_option("Trace to write: NAME.trace.", required=True)
@click.option(
    "--from",
    "from_",
    metavar="WHEN",
    default="earliest",
    help="earliest, or a moment: 18:00, ISO 8601 (UTC) [default: earliest].",
)
@click.option(
    "--until",
    metavar="WHEN",
    default="latest",
    help="latest (what is there now), or a moment; +10m counts from --from, else from now.",
)
@click.option("--resume", metavar="TRACE", help="Continue where an earlier recording ended.")
@click.option("--scenario", metavar="FILE", help="Scenario whose [kafka] table says how to connect.")
@click.option(
    "--isolation",
    type=click.Choice(["read_committed", "read_uncommitted"]),
    default="read_committed",
    help="read_uncommitted also records open and aborted transactions [default: read_committed].",
)
@click.option(
    "--allow", multiple=True, metavar="HOST", help="Host beyond loopback that the cluster may advertise."
)
@click.option("--force", is_flag=True, help="Replace an existing trace.")
def command(
    source: str, out: Path, from_: str, until: str, resume: str | None, scenario: str | None, isolation: str,
    allow: tuple[str, ...], force: bool,
) -> None:  # fmt: skip
    """Record topics as the brokers hold them: timestamps, keys, values, headers, partitions. Ctrl-C ends it in order.

    Values are recorded unchanged: the trace contains what the topic contained.
    """
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
