"""`replay record`: topics of a Kafka cluster, to a trace."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import click

from .. import units
from ..errors import Exit


def _moment_ms(text: str, name: str, word: str) -> int | None:
    """A moment as ms since the epoch; None where it is the word for no bound. UsageError where it is neither."""
    if text == word:
        return None
    now_ns = time.time_ns()
    return units.parse_moment(text).resolve_ns(now_ns, now_ns, dt.UTC) // units.MS


@click.command(name="record", short_help="Record Kafka topics to a trace.")
@click.argument("source", metavar="kafka://HOST:PORT/TOPIC[,TOPIC]")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="The trace to write: NAME.trace."
)
@click.option(
    "--from", "from_", metavar="WHEN", default="earliest", help="earliest, or a moment [default: earliest]."
)
@click.option("--until", metavar="WHEN", default="latest", help="latest (what is there now), or a moment.")
@click.option("--resume", metavar="TRACE", help="Go on where an earlier recording ended.")
@click.option("--scenario", metavar="FILE", help="A scenario whose [kafka] says how to connect.")
@click.option("--force", is_flag=True, help="Replace an existing trace.")
def command(
    source: str, out: Path, from_: str, until: str, resume: str | None, scenario: str | None, force: bool
) -> None:
    """Record topics as they are on the brokers: stamps, keys, values, headers, partitions. Ctrl-C ends it in order.

    Values are recorded as they are: a trace of Kafka holds what the topic held.
    """
    from rich.console import Console

    from ..kafka.record import parse_source, record, resume_offsets
    from ..scenario.file import load
    from ..trace import Trace

    place = parse_source(source)
    from_ms, until_ms = _moment_ms(from_, "--from", "earliest"), _moment_ms(until, "--until", "latest")
    offsets = resume_offsets(Trace.open(Path(resume))) if resume else None
    kafka = load(Path(scenario)).kafka if scenario else None
    with Console(stderr=True).status("recording") as status:
        done = record(
            place, out, from_ms=from_ms, until_ms=until_ms, resume=offsets, kafka=kafka, overwrite=force,
            progress=lambda records: status.update(f"recording: {records:,} records"),
        )  # fmt: skip
    click.echo(f"{out}: {done.records:,} records of {', '.join(place.topics)}")
    if not done.complete:
        click.echo(f"it does not reach its end; go on with --resume {out}", err=True)
    if done.interrupted:
        raise SystemExit(Exit.INTERRUPTED)
