"""Rails' production.log and development.log.

A request has several lines (from ActionPack and Rails::Rack::Logger). `Started GET "/users?x=1" for 1.2.3.4 at
2026-11-29 16:28:40 +0000` gives the start, the request and the client; `Completed 200 OK in 58ms` gives the result.
If Ruby's Logger puts its own timestamp in front of the line, this timestamp is used, because it has microseconds.

Lines are grouped by their tags (`config.log_tags = [:request_id]`), without tags by process (`#25`), and otherwise by
file. Within a group, a `Completed` line belongs to the open request that started at most its duration plus SLACK_NS
earlier. If several requests fit, the status and duration of all of them are unknown, and the line is counted as
`completed, but which request`.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from replay.trace.importing.readers.lines import zone_text
from replay.trace.importing.readers.records import Record, RecordReader
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    Rows,
    importer,
)
from replay.trace.importing.rejects import (
    AMBIGUOUS,
    BLANK,
    DETAIL,
    NO_START,
)
from replay.trace.importing.sources import SourceFile
from replay.units import SECOND_NS, datetime_to_ns

FORGOTTEN_NS = 600 * SECOND_NS
"""A request that is not completed within this time is assumed never to complete."""

SLACK_NS = 3 * SECOND_NS
"""Tolerance for the start of a completed request.

Timestamps are truncated to seconds, and the duration excludes time before the controller.
"""

WAITING_MAX = 100
"""How many requests of one group wait for completion.

Beyond that, the oldest gets no status.
"""

OPEN_MAX = 100_000
"""How many groups of requests wait for completion.

Beyond that, the requests of the oldest group get no status.
"""

_MS_NS, _US_NS = 1_000_000, 1_000
_LINE = re.compile(
    rb"^(?:[A-Z], \[(?P<logged>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+) #(?P<process>\d+)\] +[A-Z]+ -- [^:\n]*: )?"
    rb"(?P<tags>(?:\[[^\]\n]*\] )*)"
    rb'(?:Started (?P<method>[A-Z_-]{1,16}) "(?P<path>[^\n]*)" for (?P<client>\S*) at (?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d'
    rb" (?:[+-]\d{4}|UTC))"
    rb"|Completed (?P<status>\d{3})\b[^\n]*? in (?P<took>\d{1,9}(?:\.\d{1,9})?)ms"
    rb"|(?P<unrouted>ActionController::RoutingError \()|(?P<upgraded>Successfully upgraded to WebSocket))",
    re.MULTILINE,
)


@dataclass(slots=True)
class _Waiting:
    """A request that waits for its completion.

    If it is `unsure`, an ambiguous line may have completed it already.
    """

    record: Record
    unsure: bool = False


@dataclass(slots=True)
class _Group:
    """The waiting requests of one group, and how many of the unsure ones are completed."""

    waiting: list[_Waiting] = field(default_factory=list)
    completed: int = 0

    def candidates(self, earliest_ns: int) -> list[_Waiting]:
        """Return the requests that started at `earliest_ns` or later."""
        return [each for each in self.waiting if each.record.at_ns >= earliest_ns]

    def take_forgotten(self, before_ns: int) -> list[Record]:
        """Remove and return requests that started before an instant, and the oldest ones if too many wait."""
        count = max(len(self.waiting) - WAITING_MAX, 0)
        while count < len(self.waiting) and self.waiting[count].record.at_ns < before_ns:
            count += 1
        if not count:
            return []
        gone, self.waiting = self.waiting[:count], self.waiting[count:]
        self.completed = max(self.completed - sum(each.unsure for each in gone), 0)
        return [each.record for each in gone]

    def complete_one_of(self, candidates: list[_Waiting]) -> list[Record]:
        """Count the completion of one of several requests.

        When as many completions as unsure requests have been counted, all of them are removed and returned.
        """
        for each in candidates:
            each.unsure = True
        self.completed += 1
        unsure = [each.record for each in self.waiting if each.unsure]
        if self.completed < len(unsure):
            return []
        self.waiting = [each for each in self.waiting if not each.unsure]
        self.completed = 0
        return unsure


def sniff(head: bytes, options: Options) -> float:
    """Return 0.9 if a line of the head starts a request, otherwise 0.

    The share of such lines is no measure, because most lines of a Rails log are of other kinds. With `--columns` or
    `--log-format`, the result is 0.
    """
    if options.columns or options.log_format:
        return 0.0
    return 0.9 if any(found["at"] for found in _LINE.finditer(head)) else 0.0


@functools.lru_cache(maxsize=4096)
def _second(text: bytes) -> tuple[int, int] | None:
    """Parse a timestamp: return its instant in ns and its zone in minutes (0 if not given); None if it is invalid.

    The result is cached, because many lines share a timestamp.
    """
    try:
        at = dt.datetime.fromisoformat(
            text.decode().replace(" UTC", " +0000").replace(" +", "+").replace(" -", "-")
        )
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=dt.UTC)
    if not 1970 < at.year <= 2261:
        return None
    return datetime_to_ns(at), round((at.utcoffset() or dt.timedelta()).total_seconds() / 60)


def _logged_ns(text: bytes, zone_min: int) -> int:
    """Return the instant of a timestamp of Ruby's Logger in ns; -1 if it is invalid.

    The timestamp is in the zone of the requests, which it does not contain.
    """
    second = _second(text[:19])
    if second is None:
        return -1
    return second[0] - zone_min * 60 * SECOND_NS + int(text[20:29].ljust(9, b"0"))


def _started_ns(found: re.Match[bytes]) -> tuple[int, int] | None:
    """Return when a request started in ns, and its zone in minutes; None if the timestamp is invalid."""
    started = _second(found["at"])
    if started is None or not found["logged"]:
        return started
    logged_ns = _logged_ns(found["logged"], started[1])
    close = 0 <= logged_ns - started[0] < 2 * SECOND_NS
    return (logged_ns, started[1]) if close else started


class RailsReader(RecordReader):
    """Reads Rails' logs.

    Each valid line that starts a request gives a row.
    """

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        self._groups: dict[tuple[bytes, bytes], _Group] = {}
        self._lines_done = self._zone_min = self._latest_ns = 0

    def probe(self, head: bytes) -> Probe:
        """Return the start of the first request (None if the head has none), and the resolution.

        The resolution is 1 µs if Ruby's Logger wrote a timestamp, otherwise 1 s.
        """
        for found in _LINE.finditer(head):
            if found["at"] and (started := _started_ns(found)) is not None:
                return Probe(started[0], _US_NS if found["logged"] else SECOND_NS)
        return Probe(None, SECOND_NS)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file."""
        yield from self.rows(self._records(file))

    def _records(self, file: SourceFile) -> Iterator[Record]:
        self._groups.clear()
        self._lines_done = self._zone_min = self._latest_ns = 0
        for number, data in file.line_blocks(self._found.rejects):
            self._lines_done = number
            yield from self._of_block(file, data)
        for group in self._groups.values():
            yield from (each.record for each in group.waiting)
        self._groups.clear()

    def _of_block(self, file: SourceFile, data: bytes) -> Iterator[Record]:
        rejects, lines = self._found.rejects, data.count(b"\n")
        rejects.lines += lines
        blank = len(_BLANKS.findall(data))
        own = 0
        for found in _LINE.finditer(data):
            own += 1
            if found["at"]:
                yield from self._start(file, found, data)
                continue
            yield from self._end(file, found, data)
        rejects.counts[DETAIL] += max(lines - own - blank, 0)
        rejects.counts[BLANK] += blank
        rejects.counts += type(rejects.counts)()

    def _start(self, file: SourceFile, found: re.Match[bytes], data: bytes) -> Iterator[Record]:
        started = _started_ns(found)
        if started is None:
            self._reject("bad time", file, found, data)
            return
        record = Record(
            at_ns=started[0], method=found["method"].decode(), target=found["path"], client=found["client"]
        )
        why = self.wrong(record)
        if why:
            self._reject(why, file, found, data)
            return
        self._note_zone(started[1])
        self._latest_ns = max(self._latest_ns, record.at_ns)
        group = self._groups.setdefault(self._key_of(found), _Group())
        yield from group.take_forgotten(record.at_ns - FORGOTTEN_NS)
        group.waiting.append(_Waiting(record))
        if len(self._groups) > OPEN_MAX:
            oldest = self._groups.pop(next(iter(self._groups)))
            yield from (each.record for each in oldest.waiting)

    def _end(self, file: SourceFile, found: re.Match[bytes], data: bytes) -> Iterator[Record]:
        key = self._key_of(found)
        group = self._groups.get(key, _Group())
        took_ns = round(float(found["took"]) * _MS_NS) if found["took"] else -1
        candidates = group.candidates(self._now_ns(found) - max(took_ns, 0) - SLACK_NS)
        if not candidates:
            self._reject(NO_START if found["status"] else DETAIL, file, found, data)
        elif len(candidates) > 1 or candidates[0].unsure:
            self._reject(AMBIGUOUS, file, found, data)
            yield from group.complete_one_of(candidates)
        else:
            record = candidates[0].record
            record.status = int(found["status"] or (404 if found["unrouted"] else 101))
            record.took_ns = took_ns
            self._found.rejects.counts[DETAIL] += 1
            group.waiting.remove(candidates[0])
            yield record
        if not group.waiting:
            self._groups.pop(key, None)

    def _now_ns(self, found: re.Match[bytes]) -> int:
        """Return when a line was written; if that is unknown, the latest start so far."""
        if not found["logged"]:
            return self._latest_ns
        logged_ns = _logged_ns(found["logged"], self._zone_min)
        return logged_ns if logged_ns >= 0 else self._latest_ns

    @staticmethod
    def _key_of(found: re.Match[bytes]) -> tuple[bytes, bytes]:
        """Return the group of a line, which is its tags or its process."""
        return (found["tags"], b"" if found["tags"] else found["process"] or b"")

    def _reject(self, why: str, file: SourceFile, found: re.Match[bytes], data: bytes) -> None:
        rejects = self._found.rejects
        if not rejects.wants_example(why):
            rejects.counts[why] += 1
            return
        number = self._lines_done + data.count(b"\n", 0, found.start()) + 1
        line = data[found.start() : data.find(b"\n", found.start())]
        rejects.add(why, file.name, number, line[:999])

    def _note_zone(self, zone_min: int) -> None:
        zone, self._zone_min = zone_text(zone_min), zone_min
        self._found.time_zone_changed |= bool(self._found.time_zone) and self._found.time_zone != zone
        self._found.time_zone = self._found.time_zone or zone


_BLANKS = re.compile(rb"^[\r ]*\n", re.MULTILINE)

RAILS = importer(
    Importer(
        name="rails",
        title="a log of Rails (production.log, development.log)",
        sniff=sniff,
        reader=RailsReader,
        rank=-1,
    )
)
