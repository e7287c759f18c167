"""Computes when each row of a trace is due, from the window, the pace and the methods that a scenario sends.

Rows are read lazily, in constant memory.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import UsageError
from replay.results.samples import RecordedRow
from replay.settings.scenario import BODY_METHODS, Scenario
from replay.trace import Batch, Trace, with_requests
from replay.units import SECOND_NS
from replay_native.ledger.hdr import COUNTERS_2
from replay_native.plan import survey as kernels
from replay_native.plan.numbers import mark_sent
from replay_native.trace import columns

from .numbers import RowNumbers

DUE_ROWS = 65_536
"""Maximum rows of a DueBatch."""

DEFAULT_TOOK_NS = 100 * units.MS_NS
"""Assumed duration of a response whose recorded duration is unknown, for the estimate of connections."""

STATUS_CLASSES = ("unknown", "1xx", "2xx", "3xx", "4xx", "5xx")

NOT_SENDABLE = ("CONNECT", "PRI")
"""Methods that an origin server does not serve."""

FOREVER = 1 << 62
"""The value of `Clock.rows_max` that stands for no limit."""

_METHODS = 256

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DueBatch:
    """Due requests in due order, as columns of equal length.

    Request i has the sequence number `first_seq` + i. `due_ns` counts from the start of the run, and `at_ns` is the
    recorded time since the epoch. `request` and `route` index the trace's dictionary, and `method` its list of
    methods. `status` is the recorded one, -1 if unknown. `own` has the hosts, header sets and bodies that rows of a
    followed source refer to; None means those of the schedule's trace.
    """

    first_seq: int
    due_ns: npt.NDArray[np.int64]
    request: npt.NDArray[np.uint32]
    client: npt.NDArray[np.uint32]
    route: npt.NDArray[np.uint32]
    method: npt.NDArray[np.uint8]
    status: npt.NDArray[np.int16]
    at_ns: npt.NDArray[np.int64]
    own: Trace | None = None

    def __len__(self) -> int:
        return len(self.due_ns)

    @property
    def rows(self) -> kernels.DueRows:
        """The columns in the order that kernels take."""
        return kernels.DueRows(*(getattr(self, name) for name in kernels.DueRows._fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """How recorded time becomes due time.

    All `_ns` except `period_ns` are recorded times since the epoch. A row recorded at `origin_ns` is due at the
    start. Rows from `from_ns` and before `until_ns` are replayed. `window_until_ns` is the end of the window before
    the scenario's duration shortens it. `period_ns` is 0 for the recorded pace, positive for a constant rate, and
    negative for a closed loop. With `repeats`, the trace starts again after its last row, until `rows_max` requests
    are sent.
    """

    origin_ns: int
    from_ns: int
    until_ns: int
    window_until_ns: int
    speed: float
    period_ns: float
    rows_max: int
    repeats: bool

    @property
    def pace(self) -> kernels.Pace:
        """The clock in the form that kernels take."""
        return kernels.Pace(self.origin_ns, self.speed, self.period_ns)


def span_text(from_ns: int, until_ns: int, zone: dt.tzinfo) -> str:
    """Format a span of recorded time as `START to END`, in a time zone."""
    return f"{units.format_moment(from_ns, zone)} to {units.format_moment(until_ns, zone)}"


def time_zone(trace: Trace, scenario: Scenario) -> dt.tzinfo:
    """Return the time zone of a window: the scenario's, otherwise the recording's if it is valid, otherwise UTC."""
    if scenario.window.tz is not None:
        return units.parse_zone(scenario.window.tz)
    try:
        return units.parse_zone(trace.manifest.time_zone or "UTC")
    except UsageError:
        return dt.UTC


def make_clock(trace: Trace, scenario: Scenario, zone: dt.tzinfo) -> Clock:
    """Return the clock for a trace: the scenario's window and pace.

    Raises UsageError if the window is empty, or lies outside the recording.
    """
    window, start_ns, end_ns = scenario.window, trace.start_ns, trace.end_ns
    from_ns, until_ns = start_ns, end_ns + 1
    if window.from_ is not None:
        from_ns = units.parse_moment(window.from_).resolve_ns(start_ns, end_ns, zone)
    if window.until is not None:
        until_ns = units.parse_moment(window.until).resolve_ns(max(from_ns, start_ns), end_ns, zone)
    if window.from_ is not None and window.until is not None and until_ns <= from_ns:
        raise UsageError(
            f"the window {span_text(from_ns, until_ns, zone)} is empty",
            hint="its end must be after its beginning",
        )
    if from_ns > end_ns or until_ns <= max(from_ns, start_ns):
        raise UsageError(
            f"the window {span_text(from_ns, until_ns, zone)} holds nothing of the recording",
            hint=f"the recording is from {span_text(start_ns, end_ns, zone)}",
        )
    origin_ns, window_until_ns = max(from_ns, start_ns), until_ns
    speed = float(scenario.speed)
    if scenario.compress_to_ns is not None:
        speed = max(min(until_ns, end_ns + 1) - origin_ns, 1) / scenario.compress_to_ns
    duration_ns, rate = scenario.duration_ns, scenario.rate_per_s
    rows_max, period_ns = FOREVER, 0.0
    if rate is not None:
        period_ns = kernels.CLOSED_LOOP_PERIOD_NS if scenario.closed_loop else SECOND_NS / rate
    if duration_ns is not None and rate is None:
        until_ns = min(until_ns, origin_ns + math.ceil(duration_ns * speed))
    elif duration_ns is not None and not scenario.closed_loop:
        rows_max = max(1, math.ceil(duration_ns / period_ns))
    return Clock(
        origin_ns=origin_ns,
        from_ns=from_ns,
        until_ns=until_ns,
        window_until_ns=window_until_ns,
        speed=speed,
        period_ns=period_ns,
        rows_max=rows_max,
        repeats=duration_ns is not None and rate is not None,
    )


def method_rules(methods: list[str], scenario: Scenario) -> npt.NDArray[np.uint8]:
    """Return the rule for the requests of each method, uint8[256] by method id.

    A rule is SEND, NEEDS_BODY, NOT_ALLOWED or NOT_SENDABLE of `replay_native.plan.survey`.
    """
    rules = np.full(_METHODS, kernels.NOT_SENDABLE, np.uint8)
    for index, method in enumerate(methods):
        if method in NOT_SENDABLE or not method.isascii() or not method.replace("-", "").isalnum():
            continue
        if not scenario.methods.allow(method):
            rules[index] = kernels.NOT_ALLOWED
        else:
            rules[index] = kernels.NEEDS_BODY if method in BODY_METHODS else kernels.SEND
    return rules


@dataclass(slots=True, kw_only=True)
class Tally:
    """The counts of a pass over a trace, to which `add` adds further passes; `kernels.SurveyCounts` describes each.

    `selected` is the number of requests sent.
    """

    sent: Int64s
    skipped: Int64s
    routes: Int64s
    tooks: npt.NDArray[np.uint32]
    hosts: Int64s
    bodiless: Int64s
    windows: Int64s
    rows: Int64s = field(default_factory=lambda: np.zeros((2, kernels.BINS), np.int64))
    busy: Int64s = field(default_factory=lambda: np.zeros((2, kernels.BINS), np.int64))
    selected: int = 0

    @classmethod
    def of(cls, trace: Trace) -> Tally:
        """Return a tally for a trace with all counts at zero."""
        routes, hosts = len(trace.requests.routes), len(trace.requests.hosts)
        windows = np.zeros((2, kernels.WINDOW_WORDS), np.int64)
        windows[:, kernels.EDGE_NS] = [SECOND_NS // kernels.BINS, 60 * SECOND_NS // kernels.BINS]
        return cls(
            sent=np.zeros(_METHODS, np.int64),
            skipped=np.zeros(_METHODS, np.int64),
            routes=np.zeros((routes, len(STATUS_CLASSES)), np.int64),
            tooks=np.zeros((routes, COUNTERS_2), np.uint32),
            hosts=np.zeros(hosts + 1, np.int64),
            bodiless=np.zeros(routes, np.int64),
            windows=windows,
        )

    @property
    def counts(self) -> kernels.SurveyCounts:
        """The counts in the order that kernels take."""
        return kernels.SurveyCounts(*(getattr(self, name) for name in kernels.SurveyCounts._fields))

    @property
    def seen(self) -> int:
        """Number of rows read in one pass. It is wrong once `add` has added another pass."""
        return int(self.sent.sum() + self.skipped.sum())

    def add(self, other: Tally, times: int) -> None:
        """Add the requests sent in another pass `times` times; peaks and skipped rows are unchanged."""
        for name in ("sent", "routes", "hosts", "bodiless"):
            getattr(self, name)[:] += getattr(other, name) * times
        self.tooks += other.tooks * np.uint32(times)
        self.selected += other.selected * times


def request_table(trace: Trace) -> npt.NDArray[np.int64]:
    """Return the raw addresses of the requests dictionary, int64[batches, TABLE_COLUMNS].

    They are valid as long as the trace exists.
    """
    rows = [(b.offsets, b.data, b.method, b.route, b.host, b.headers, b.body) for b in trace.requests.batches]
    table = np.zeros((len(rows), columns.TABLE_COLUMNS), np.int64)
    for index, row in enumerate(rows):
        table[index, : len(row)] = [column.ctypes.data for column in row]
    return table


class RowSource(Protocol):
    """A source of due rows: a trace, or a source that is followed during the run."""

    @property
    def clock(self) -> Clock:
        """How recorded time becomes due time."""
        ...

    @property
    def table(self) -> Int64s:
        """Raw addresses of the requests dictionary (see `request_table`)."""
        ...

    def batches(self) -> Iterator[DueBatch]:
        """Yield the due rows that are known before the run, in order."""
        ...

    def arriving(self) -> AsyncGenerator[DueBatch, None]:
        """Yield the due rows in order, as they become known."""
        ...

    def stop(self) -> None:
        """End `arriving`."""
        ...

    def recorded(self, wanted: list[int]) -> dict[int, RecordedRow]:
        """Return the recorded rows for these sequence numbers."""
        ...

    def numbers(self, rows_a_pass: int) -> RowNumbers:
        """Return which row of the recording each request of a pass is."""
        ...


class DueRows:
    """The rows of a trace that are sent, with their due times."""

    def __init__(self, trace: Trace, clock: Clock, scenario: Scenario) -> None:
        self.trace, self.clock = trace, clock
        self.table = request_table(trace)
        self._rules = method_rules(trace.requests.methods, scenario)

    def batches(self) -> Iterator[DueBatch]:
        """Yield the due requests in order, computed anew at each call.

        A trace that repeats yields up to `rows_max` requests. For a closed loop with a duration this never ends.
        """
        seq = 0
        while seq < self.clock.rows_max:
            before = seq
            for batch in self._trace_batches():
                begin = 0
                while begin < len(batch) and seq < self.clock.rows_max:
                    due, begin = self._select(batch, begin, seq)
                    if len(due):
                        yield due
                    seq += len(due)
                if seq >= self.clock.rows_max:
                    return
            if seq == before or not self.clock.repeats:
                return

    async def arriving(self) -> AsyncGenerator[DueBatch, None]:
        """Yield the same as `batches`, because the whole trace is known in advance."""
        for batch in self.batches():
            yield batch

    def stop(self) -> None:
        """Do nothing: only a source that is followed must be stopped."""

    def count(self, rows_max: int) -> Tally:
        """Survey one pass over the trace, up to `rows_max` requests sent."""
        clock = self.clock
        tally = Tally.of(self.trace)
        for batch in self._trace_batches(columns_alone=True):
            tally.selected = kernels.survey(
                batch.rows, self.table, self._rules, clock.pace, tally.selected, rows_max, DEFAULT_TOOK_NS,
                tally.counts,
            )  # fmt: skip
            if tally.selected >= rows_max:
                break
        return tally

    def recorded(self, wanted: list[int]) -> dict[int, RecordedRow]:
        """Return the recorded rows for sequence numbers of the first pass.

        Reads the trace up to the last of them.
        """
        numbers = np.array(sorted(set(wanted)), np.int64)
        found: dict[int, RecordedRow] = {}
        first = 0
        for batch in self._trace_batches() if len(numbers) else ():
            begin = 0
            while begin < len(batch) and first <= numbers[-1]:
                due, begin = self._select(batch, begin, first)
                low, high = np.searchsorted(numbers, [first, first + len(due)])
                for number in numbers[low:high].tolist():
                    found[number] = self._recorded_row(due, number - first)
                first += len(due)
            if first > numbers[-1]:
                break
        return found

    def rows_in_window(self) -> int:
        """Count the rows in the window, sent or not.

        The manifest gives the number if the window covers every file; otherwise the window is read.
        """
        from_ns, until_ns = self.clock.from_ns, self.clock.window_until_ns
        segments = self.trace.manifest.segments
        whole = [part.rows for part in segments if from_ns <= part.start_ns and part.end_ns < until_ns]
        if len(whole) == len(segments):
            return sum(whole)
        return sum(len(batch) for batch in self.trace.batches(from_ns, until_ns))

    def numbers(self, rows_a_pass: int) -> RowNumbers:
        """Return which row of the trace each request is.

        Reads the rows before the window, to count them, and the window if the trace has methods that are not sent.
        """
        from_ns = self.clock.from_ns
        first = (
            sum(len(batch) for batch in self.trace.batches(None, from_ns))
            if from_ns > self.trace.start_ns
            else 0
        )
        if not self._skips_methods():
            return RowNumbers.whole(first, rows_a_pass)
        return RowNumbers.of_rows(self._sent_rows(first), rows_a_pass)

    def _skips_methods(self) -> bool:
        """Return whether the trace has methods that are not sent."""
        methods = len(self.trace.requests.methods)
        return bool((self._rules[:methods] >= kernels.NOT_ALLOWED).any())

    def _sent_rows(self, row: int) -> Iterator[Int64s]:
        """Yield the numbers of the rows that are sent, by batch. `row` is the number of the first row of the window."""
        for batch in self._trace_batches(columns_alone=True):
            marks = np.zeros(len(batch), np.bool_)
            mark_sent(batch.request, self.table, self._rules, marks)
            yield np.flatnonzero(marks) + row
            row += len(batch)

    def _recorded_row(self, due: DueBatch, index: int) -> RecordedRow:
        request = self.trace.requests.get(int(due.request[index]))
        method = self.trace.requests.methods[request.method]
        return RecordedRow(int(due.at_ns[index]), method, request.target.decode("latin-1"))

    def _trace_batches(self, *, columns_alone: bool = False) -> Iterator[Batch]:
        """Yield batches whose requests stay loaded until the next one is requested."""
        batches = self.trace.batches(self.clock.from_ns, self.clock.until_ns)
        return with_requests(batches, self.trace.requests, columns_alone=columns_alone)

    def _select(self, batch: Batch, begin: int, first: int) -> tuple[DueBatch, int]:
        """Return up to DUE_ROWS due requests from row `begin` of a batch on, and the row to continue with.

        `first` is the sequence number of the first one.
        """
        capacity = min(DUE_ROWS, len(batch) - begin, self.clock.rows_max - first)
        due_ns, at_ns = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
        request, client, route = (np.empty(capacity, np.uint32) for _ in range(3))
        method, status = np.empty(capacity, np.uint8), np.empty(capacity, np.int16)
        out = kernels.DueRows(due_ns, request, client, route, method, status, at_ns)
        count, following = kernels.select(
            batch.rows, begin, self.table, self._rules, self.clock.pace, first, out
        )
        due = DueBatch(
            first,
            due_ns[:count],
            request[:count],
            client[:count],
            route[:count],
            method[:count],
            status[:count],
            at_ns[:count],
        )
        return due, int(following)
