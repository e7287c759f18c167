"""Logs of HDR histograms (`.hlog`): writes version 1.3, for any HdrHistogram tool, and reads versions 1.0 to 1.3.

A line is `Tag=T,start_s,length_s,max_ms,histogram`. Times count from BaseTime; Interval_Max is in ms for values in
ns.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from replay.errors import InputError, reason_of
from replay.files import open_regular, read_lines
from replay.ledger.histogram import Histogram, decode, encode

NS_PER_MS = 1e6
_SAFE = "".join(chr(c) for c in range(33, 127) if chr(c) not in ",%")
_TIME = re.compile(r"#\[(BaseTime|StartTime):\s*([0-9.]+)")
_UNIT = re.compile(r"#\s*unit\s*[:=]\s*(ns|us|ms|s)\b", re.IGNORECASE)
_RELATIVE_BEFORE_S = 365 * 86_400
"""If the first timestamp is more than a year before StartTime, timestamps count from StartTime (the rule of
HistogramLogReader)."""

PROBLEMS_KEPT = 20

COUNTERS_KEPT_MAX = 1 << 27
"""Maximum number of counters in the sums of all tags of a log: 1 GiB."""

COUNTERS_READ_MAX = 1 << 33
"""Maximum number of counters in all histograms of a log. Without a limit, reading a small compressed file could take
hours."""

_FEWER = "log fewer intervals or tags, or a smaller range of values"
_RECOVER = "the run's figures are in run.json: replay report RUN --json"


def tag_of(histogram: str, route: str = "", outcome: str = "") -> str:
    """Return the tag of a histogram: `response.all`, or of a route and outcome: `response.2xx.GET_/users/{id}`.

    Commas, percent signs, spaces, line breaks and non-ASCII characters are percent-encoded. The first space becomes
    `_`, and an underscore before it `%5F`. So no two routes share a tag, and `parts_of` can reverse it.
    """
    if not route:
        return histogram
    head, space, tail = route.partition(" ")
    head = urllib.parse.quote(head, safe=_SAFE).replace("_", "%5F")
    return f"{histogram}.{outcome}.{head}{'_' if space else ''}{urllib.parse.quote(tail, safe=_SAFE)}"


def parts_of(tag: str) -> tuple[str, str, str]:
    """Split a tag made by `tag_of` into (histogram, outcome, route).

    Outcome and route are empty if the tag covers all routes.
    """
    histogram, _, rest = tag.partition(".")
    outcome, _, name = rest.partition(".")
    if not name:
        return tag, "", ""
    head, underscore, tail = name.partition("_")
    return (
        histogram,
        outcome,
        urllib.parse.unquote(head) + (" " if underscore else "") + urllib.parse.unquote(tail),
    )


def header(base_ns: int, comment: str = "") -> bytes:
    """Return the first lines of a log whose times count from `base_ns` (ns since the epoch)."""
    base_s = base_ns / 1e9
    date = datetime.fromtimestamp(base_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [
        "#[Histogram log format version 1.3]",
        *([f"#[{comment}]"] if comment else []),
        "#unit: ns (Interval_Max: ms)",
        f"#[BaseTime: {base_s:.3f} (seconds since epoch)]",
        f"#[StartTime: {base_s:.3f} (seconds since epoch), {date}]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    return ("\n".join(lines) + "\n").encode()


def line(tag: str, start_s: float, length_s: float, histogram: Histogram) -> bytes:
    """Return the line of one interval, for values in nanoseconds; `start_s` counts from the log's base."""
    max_ms = histogram.max / NS_PER_MS
    return f"Tag={tag},{start_s:.3f},{length_s:.3f},{max_ms:.6f},".encode() + encode(histogram) + b"\n"


def read_unit(text: bytes) -> str:
    """Return the unit that a comment line states, or an empty string."""
    found = _UNIT.search(text.decode("utf-8", "replace"))
    return found.group(1).lower() if found else ""


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """One line of a log, with its histogram still encoded in `text`.

    `counters` is the number of counters that the decoded histogram has. `start_s` counts from the epoch if the log
    states its base; otherwise it is as written. `tag` is empty if the line has none.
    """

    tag: str
    start_s: float
    length_s: float
    text: bytes
    counters: int

    @property
    def histogram(self) -> Histogram:
        """The counts with their layout.

        They are decoded on each access, because the histograms of a complete log would take gigabytes.
        """
        return decode(self.text)

    @property
    def digits(self) -> int:
        """The number of significant digits of its values."""
        return self.histogram.layout.digits


@dataclass(slots=True)
class Log:
    """A log after reading.

    `problems` lists the first lines that were left out, with reasons; `problem_count` counts all of them. `lines` is
    the number of lines.
    """

    path: Path
    intervals: list[Interval] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    lines: int = 0
    base_s: float | None = None
    start_s: float | None = None
    unit: str = ""

    _left_out_last: int = 0

    @property
    def is_damaged(self) -> bool:
        """Whether lines before the last one were left out. A killed run can end in the middle of its last line."""
        return self.problem_count > (self._left_out_last == self.lines)

    def _leave_out(self, number: int, why: str) -> None:
        self.problem_count += 1
        self._left_out_last = number
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(f"{self.path}, line {number}: {why}")

    def by_tag(self) -> dict[str, Histogram]:
        """Return the sum over time of each tag's histograms.

        Raise InputError if the histograms of a tag differ in range or digits, or if the sums need too much memory.
        """
        needed = dict[str, int]()
        for interval in self.intervals:
            needed[interval.tag] = max(needed.get(interval.tag, 0), interval.counters)
        if sum(needed.values()) > COUNTERS_KEPT_MAX:
            raise InputError(f"{self.path}: its {len(needed):,} tags need more than 1 GiB", hint=_FEWER)
        merged: dict[str, Histogram] = {}
        for interval in self.intervals:
            tag, histogram = interval.tag, interval.histogram
            try:
                merged[tag] = merged[tag].merged(histogram) if tag in merged else histogram
            except ValueError:
                raise InputError(
                    f"{self.path}: histograms of tag {tag or '(none)'} differ in range or digits"
                ) from None
        return merged


def read_hlog(path: str | os.PathLike[str]) -> Log:
    """Read a log of any HdrHistogram writer.

    Accepted are log versions 1.0 to 1.3, histograms in V0, V1 or V2, with or without tags, and lines in any order. An
    incomplete or damaged line is left out and counted in `problem_count`. Raise InputError if the file cannot be read,
    holds no histogram at all, or unpacks to too much data.
    """
    log = Log(Path(path))
    counters = 0
    for interval in scan(log):
        log.intervals.append(interval)
        counters += interval.counters
        if counters > COUNTERS_READ_MAX:
            raise InputError(
                f"{path}: its first {len(log.intervals):,} histograms unpack to more than 64 GiB", hint=_FEWER
            )
    if not log.intervals:
        why = f" ({log.problems[0]})" if log.problems else ""
        raise InputError(
            f"{path} holds no histograms{why}", hint="give a log of an HdrHistogram writer (.hlog)"
        )
    return log


def scan(log: Log, is_wanted: Callable[[str], bool] = lambda _: True) -> Iterator[Interval]:
    """Yield the intervals of the wanted tags of a log, one at a time.

    Lines of other tags are not decoded. Base time, start time, unit and problems are collected in `log`. Raise
    InputError if the file cannot be read.
    """
    try:
        with open_regular(log.path, or_pipe=True) as file:
            for number, row in enumerate(read_lines(file, log.path), 1):
                log.lines = number
                text = row.strip()
                if text.startswith(b"#"):
                    _read_comment(log, text)
                elif text and not text.startswith(b'"StartTimestamp"'):
                    interval = _read_line(log, number, text, is_wanted)
                    if interval is not None:
                        yield interval
    except OSError as error:
        raise InputError(f"{log.path} cannot be read: {reason_of(error)}") from None


def index(path: Path) -> dict[str, bytes]:
    """Return the encoded histogram of each tag, from a log with one line per tag.

    Raise InputError if the log cannot be read, or if a line does not have five fields.
    """
    try:
        with open_regular(path) as file:
            return dict(_tagged(path, read_lines(file, path)))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason_of(error)}") from None


def _tagged(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    for number, row in enumerate(lines, 1):
        text = row.strip(b"\r\n \t")
        if text.startswith(b"Tag="):
            fields = text[4:].split(b",")
            if len(fields) != 5:
                raise InputError(
                    f"{path}, line {number}, is damaged: it has {len(fields)} fields of 5", hint=_RECOVER
                )
            yield fields[0].decode("utf-8", "replace"), fields[-1]


def decode_at(path: Path, tag: str, text: bytes) -> Histogram:
    """Decode a histogram; if it is damaged, raise InputError with its file and tag."""
    try:
        return decode(text)
    except ValueError as error:
        raise InputError(f"{path}: the histogram of {tag} is damaged: {error}") from None


def _read_comment(log: Log, text: bytes) -> None:
    found = _TIME.match(text.decode("utf-8", "replace"))
    if found:
        try:
            value = float(found.group(2))
        except ValueError:
            return
        if found.group(1) == "BaseTime":
            log.base_s = value
        else:
            log.start_s = value
    log.unit = log.unit or read_unit(text)


def _read_line(log: Log, number: int, text: bytes, is_wanted: Callable[[str], bool]) -> Interval | None:
    tag = ""
    if text.startswith(b"Tag="):
        head, _, text = text[4:].partition(b",")
        tag = head.decode("utf-8", "replace")
    if not is_wanted(tag):
        return None
    fields = text.split(b",")
    if len(fields) != 4:
        log._leave_out(number, "not four fields: the line is incomplete, or the file is not an .hlog")
        return None
    try:
        start_s, length_s = float(fields[0]), float(fields[1])
        counters = decode(fields[3]).counts.size
    except ValueError as error:
        log._leave_out(number, str(error))
        return None
    if not (np.isfinite(start_s) and np.isfinite(length_s)):
        log._leave_out(number, "its time is not a finite number")
        return None
    if log.base_s is None:
        relative = log.start_s is not None and start_s < log.start_s - _RELATIVE_BEFORE_S
        log.base_s = log.start_s if relative else 0.0
    return Interval(tag, start_s + (log.base_s or 0.0), length_s, fields[3], counters)
