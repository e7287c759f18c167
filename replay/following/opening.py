"""Chooses how a source is followed: its format, and the delay that fits its timestamps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from replay.errors import InputError
from replay.trace.importing.detection import tell_format
from replay.trace.importing.registry import Importer, Options
from replay.units import SECOND_NS, format_duration

from .pending import SPREAD_TOGETHER_NS
from .stream import Stream

SLACK_NS = 2 * SECOND_NS
"""The default delay: the time for buffering, writing and reading a line. The resolution of coarse stamps is added."""

NOT_FOLLOWED = {
    "har": "a HAR file is complete only at its end",
    "pcap": "a capture can be imported once it is complete",
    "jmeter": "results of JMeter can be imported once they are complete",
    "otlp": "spans can be imported once all of them are written",
    "jaeger": "spans can be imported once all of them are written",
    "journal": "a recording can be imported once it has ended; `replay follow http --mirror` follows the traffic itself",
}
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"BZh", b"\xfd7zXZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a source is to be followed. A `delay_ns` of None means the default delay."""

    name: str
    format: Importer | None = None
    options: Options = field(default_factory=Options)
    delay_ns: int | None = None
    seed: int = 0
    keep: Path | None = None


def format_of(stream: Stream, wanted: Wanted) -> Importer:
    """Return the format of a source: its own, the wanted one, or the one detected from its first lines.

    Raises InputError if the format is not detected or cannot be followed.
    """
    if stream.own_format is not None:
        return stream.own_format
    if stream.head.startswith(COMPRESSED):
        raise InputError(
            f"{stream.name} is compressed or a Parquet file, which cannot be followed",
            hint="follow the plain log",
        )
    found = tell_format(stream, wanted.options, named=wanted.format)
    if found.name in NOT_FOLLOWED:
        raise InputError(
            f"{stream.name} is {found.title}: {NOT_FOLLOWED[found.name]}",
            hint="replay import, then replay run",
        )
    stream.has_header = found.name in ("csv", "tsv")
    return found


def delay_of(wanted: Wanted, stream: Stream, resolution_ns: int) -> tuple[int, str]:
    """Return the delay in ns, and the reason for it in words."""
    if wanted.delay_ns is not None:
        return wanted.delay_ns, "--delay"
    resolution = format_duration(max(resolution_ns, 1))
    if stream.own_format is not None:
        return SLACK_NS, f"the default for {stream.own_format.title}"
    if resolution_ns < SPREAD_TOGETHER_NS:
        return SLACK_NS, f"the default for stamps of {resolution}"
    return (
        SLACK_NS + resolution_ns,
        f"the default for stamps of {resolution}: {format_duration(SLACK_NS)} more than that",
    )
